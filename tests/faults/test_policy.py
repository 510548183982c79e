"""A policy file that is half written, cut anywhere: the last good one stays in force, and a cold start refuses.

A cut at the end of a rule leaves a policy that is sound and looser: that is the dangerous one.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from smtpguard.app import start
from smtpguard.app.files import read_policy, read_settings
from smtpguard.config.problem import Broken
from tests.faults.machine import Machine, policy

TEXT = policy()
ENDS = [m.end() for m in re.finditer(r"then: hold\n", TEXT)]
ANYWHERE = sorted(
    {
        *range(1, len(TEXT) - 1, 311),
        *ENDS,
        *(end - 1 for end in ENDS[::3]),
        TEXT.index("\nrules:"),
        TEXT.index("\nlists:"),
    }
)


@pytest.fixture
def guard(tmp_path: Path) -> Machine:
    """Not running: its policy was put in force."""
    made = Machine(tmp_path / "guard", 25)
    asyncio.run(start.prepare(read_settings(made.config), by="test", parts=()))
    return made


def test_cut_anywhere_the_last_good_one_stays(guard: Machine) -> None:
    settings = read_settings(guard.config)
    before = guard.ask(lambda store: store.gate())
    sound = 0
    for cut in ANYWHERE:
        settings.policy.write_text(TEXT[:cut])
        with pytest.raises(Broken) as refused:
            asyncio.run(start.reload(settings, by="test"))
        sound += all("half written" in p.text for p in refused.value.problems)
    assert sound > 10, "cuts that nothing but the policy in force gives away"
    assert guard.ask(lambda store: store.gate()) == before
    settings.policy.write_text(TEXT + "  - {id: more, when: {recipients.outside: any}, then: hold}\n")
    assert asyncio.run(start.reload(settings, by="test")).changed
    guard.verified()


def test_a_cold_start_refuses_and_says_where(guard: Machine) -> None:
    half = TEXT[: ENDS[2]]
    (guard.root / "policy.yaml").write_text(half)
    assert len(read_policy(read_settings(guard.config)).rules.rules) == 3, "sound by itself, and looser"
    for words, status in (("serve", 2), ("reload", 1)):
        done = guard.run(words, exits=status)
        line = half.count("\n") + 1
        assert re.fullmatch(
            rf"\S*policy.yaml:{line}:1: ends where the policy in force goes on, .*half written: expected .*\n(smtpguard: the policy in force stays\n)?",
            done.stderr,
        )


def test_a_vocabulary_that_is_half_written(guard: Machine) -> None:
    settings = read_settings(guard.config)
    own = settings.policy.parent / "vocabularies" / "gambling.yaml"
    own.parent.mkdir()
    shipped = Path(__file__).parents[2] / "config" / "vocabularies" / "alcohol.yaml"
    text = shipped.read_text()
    own.write_text(text)
    asyncio.run(start.reload(settings, by="test"))
    refusals = []
    for cut in [m.end() for m in re.finditer("\n", text)][2:-1:5]:
        own.write_text(text[:cut])
        with pytest.raises(Broken) as refused:
            asyncio.run(start.reload(settings, by="test"))
        refusals += refused.value.problems
    assert any("half written" in p.text for p in refusals)


def test_what_is_meant_is_not_refused(guard: Machine) -> None:
    settings = read_settings(guard.config)
    for text in (TEXT.rstrip("\n"), TEXT + "\n\n", TEXT[: ENDS[2]] + "# the others are gone for good\n"):
        settings.policy.write_text(text)
        assert asyncio.run(start.reload(settings, by="test")).changed
