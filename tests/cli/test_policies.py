"""smtpguard reload and smtpguard policy at a terminal: refusals, questions, output."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result

from smtpguard.app import policycheck, start
from smtpguard.app.services import opened
from smtpguard.config.documents import shipped
from smtpguard.config.problem import Broken
from smtpguard.config.settings import read_settings
from smtpguard.journal.event import Event, Kind
from tests.cli.installing import running
from tests.clocks import Clock
from tests.faults.killing import killed

ENFORCED, OBSERVED = "enforce: true ", "enforce: false"
MORE = '  - {id: more, when: {recipients.outside: ">= 100"}, then: hold}\n'


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A folder with the sample policy in force, its lists read, and settings without warnings."""
    made = Path(shutil.copytree(shipped(), tmp_path / "etc"))
    with (made / "smtpguard.yaml").open("a") as settings:
        settings.write("alarms: {relay: {host: other.example.com, port: 25}}\n")
    asyncio.run(start.prepare(read_settings(made / "smtpguard.yaml"), by="root", parts=()))
    return made


@pytest.fixture
def run(etc: Path) -> Callable[..., Result]:
    return partial(running(), etc)


def edit(etc: Path, old: str, new: str) -> None:
    path = etc / "policy.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def in_force(etc: Path) -> str:
    async def ask() -> str:
        async with opened(read_settings(etc / "smtpguard.yaml")) as (store, _):
            return (await store.gate.read()).policy_sha256

    return asyncio.run(ask())


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpguard.cli.policies.terminal", lambda: True)


def test_a_stricter_policy_needs_no_confirmation(run: Callable[..., Result], etc: Path) -> None:
    before = in_force(etc)
    (etc / "policy.yaml").write_text((etc / "policy.yaml").read_text() + MORE)
    done = run("reload")
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(rf"policy \w{{12}} is in force, before it {before[:12]}\n", done.stdout)
    row = json.loads(run("reload", "--json").stdout)
    assert (row["changed"], row["looser"], row["warnings"]) == (False, [], [])
    assert row["policy_sha256"] == row["before"] == in_force(etc)


def test_without_a_terminal_a_looser_policy_needs_yes(run: Callable[..., Result], etc: Path) -> None:
    before = in_force(etc)
    edit(etc, ENFORCED, OBSERVED)
    refused = run("reload")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"Against the policy in force, {before[:12]}, this may let more pass:\n" in refused.stderr
    assert re.search(r"  \S+policy.yaml:5:1: enforce: false: every rule only observes", refused.stderr)
    assert refused.stderr.endswith("To put it in force: smtpguard reload --yes\n")
    as_json = run("reload", "--json")
    row = json.loads(as_json.stdout)
    assert (as_json.exit_code, row["changed"], row["policy_sha256"]) == (1, False, before)
    assert [each["line"] for each in row["looser"]] == [5]
    assert in_force(etc) == before
    assert run("reload", "--yes").exit_code == 0
    assert in_force(etc) != before


def test_at_a_terminal_a_looser_policy_is_confirmed(
    run: Callable[..., Result], etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_a_terminal(monkeypatch)
    before = in_force(etc)
    edit(etc, ENFORCED, OBSERVED)
    for answer in ("n\n", "\n"):
        assert run("reload", input=answer).exit_code == 1
        assert in_force(etc) == before
    done = run("reload", input="y\n")
    assert (done.exit_code, "Put it in force? [y/N]" in done.output) == (0, True)
    assert in_force(etc) != before


def test_a_truncated_file_is_refused_or_named_as_looser(run: Callable[..., Result], etc: Path) -> None:
    """reload refuses a truncated policy, or names every rule that it lacks."""
    before, text = in_force(etc), (etc / "policy.yaml").read_text()
    ends = [m.end() for m in re.finditer(r"then: hold[^\n]*\n", text)]
    for cut in (*ends[:-1], *range(200, len(text), 1500)):
        (etc / "policy.yaml").write_text(text[:cut])
        refused = run("reload")
        assert refused.exit_code == 1, cut
        assert in_force(etc) == before
    (etc / "policy.yaml").write_text(text[: ends[2]])
    assert "rule unapproved-mailing: removed" in run("reload").stderr
    (etc / "policy.yaml").write_text(text.rstrip("\n"))
    assert "the file may be truncated" in run("reload").stderr


async def test_a_file_that_changes_while_read_is_refused(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(etc / "smtpguard.yaml")
    propose = policycheck.propose

    async def slowly(*words: object, **more: object) -> policycheck.Proposal:
        done: policycheck.Proposal = await propose(*words, **more)  # type: ignore[arg-type]
        (etc / "policy.yaml").write_text((etc / "policy.yaml").read_text() + MORE)
        return done

    monkeypatch.setattr(policycheck, "propose", slowly)
    async with opened(settings) as (store, digester):
        with pytest.raises(Broken, match="changed while they were read"):
            await policycheck.propose_file(settings, store, digester)


def test_reload_refuses_what_check_refuses(run: Callable[..., Result], etc: Path) -> None:
    before = in_force(etc)
    for old, new in (
        ("lists/newsletter.csv", "lists/none.csv"),
        ('column: "Email Address"', "column: Adress"),
        ("at_least: 50", "at_least: 5000"),
    ):
        edit(etc, old, new)
        checked, reloaded = run("check"), run("reload", "--yes")
        assert (checked.exit_code, reloaded.exit_code) == (1, 1)
        assert set(checked.stderr.splitlines()) <= set(reloaded.stderr.splitlines())
        assert in_force(etc) == before
        edit(etc, new, old)


def test_an_unavailable_source_with_an_index_only_warns(run: Callable[..., Result], etc: Path) -> None:
    """reload only warns of an unavailable source whose index exists, so that the policy can be tightened meanwhile."""
    before = in_force(etc)
    (etc / "lists/newsletter.csv").unlink()
    (etc / "policy.yaml").write_text((etc / "policy.yaml").read_text() + MORE)
    assert run("check").exit_code == 1
    strict = run("reload", "--fail-on-warning")
    assert (strict.exit_code, in_force(etc)) == (1, before)
    done = run("reload")
    assert done.exit_code == 0
    assert "warning: " in done.stderr
    assert done.stderr.rstrip().endswith("No such file or directory; the members last read stay in use")
    assert in_force(etc) != before


def test_an_earlier_policy_is_put_back_in_force(run: Callable[..., Result], etc: Path, tmp_path: Path) -> None:
    first, text = in_force(etc), (etc / "policy.yaml").read_text()
    (etc / "policy.yaml").write_text(text + MORE)
    assert run("reload").exit_code == 0
    second = in_force(etc)
    refused = run("policy", "restore", first[:8])
    assert (refused.exit_code, in_force(etc)) == (1, second)
    assert f"policy.yaml of {first[:12]}: rule more: removed" in refused.stderr
    assert f"To put it in force: smtpguard policy restore {first[:8]} --yes" in refused.stderr
    done = run("policy", "restore", first[:8], "--yes")
    assert (done.exit_code, in_force(etc)) == (0, first)
    assert "is not the policy in force: the next smtpguard reload would put the file in force" in done.stderr
    assert "was in force already" in run("policy", "restore", first).stdout

    shown = tmp_path / "shown"
    killed("os.link", "-c", str(etc / "smtpguard.yaml"), "policy", "show", first[:8], "--output", str(shown))
    assert not (shown / "policy.yaml").exists(), "the first rules of a policy can be a policy too"
    shutil.rmtree(shown)
    before = os.umask(0o027)
    assert run("policy", "show", first[:8], "--output", str(shown)).exit_code == 0
    assert (os.umask(before), (shown / "policy.yaml").stat().st_mode & 0o777) == (0o027, 0o640)
    assert [p.name for p in shown.iterdir()] == ["policy.yaml"]
    assert (shown / "policy.yaml").read_text() == text
    assert run("policy", "show", first[:8], "--output", str(shown)).exit_code == 2, "nothing is overwritten"
    shutil.copy(shown / "policy.yaml", etc / "policy.yaml")
    assert "was in force already" in run("reload").stdout
    (etc / "policy.yaml").write_text(text + MORE)
    assert run("reload").exit_code == 0, "stricter again"
    (etc / "policy.yaml").write_text(text)
    assert (run("reload").exit_code, run("reload", "--yes").exit_code) == (1, 0), (
        "an old file is not taken for one being written"
    )

    rows = [json.loads(line) for line in run("policy", "history", "--json").stdout.splitlines()]
    assert [row["how"] for row in rows] == ["reload", "reload", "restore", "reload", "first start"]
    assert [row["sha256"] for row in rows] == [first, second, first, second, first]
    assert [row["looser"] for row in rows] == [1, 0, 1, 0, 0]
    assert rows[2]["changes"] == ["rule more: removed"]
    told = run("policy", "history").stdout
    rules = (shipped() / "policy.yaml").read_text().count("\n  - id: ")
    assert f"  {first[:12]}  {rules} rules, by " in told
    assert "    rule more: removed\n" in told


def test_two_policies_are_compared(run: Callable[..., Result], etc: Path) -> None:
    first = in_force(etc)
    (etc / "policy.yaml").write_text((etc / "policy.yaml").read_text() + MORE)
    told = run("policy", "diff", "in-force", "file").stdout
    assert f"+{MORE}" in told
    assert "may let more pass" not in told
    back = json.loads(run("policy", "diff", "file", first, "--json").stdout)
    assert [each["text"] for each in back["looser"]] == ["rule more: removed"]
    assert [each["name"] for each in back["documents"]] == ["policy.yaml"]
    assert run("policy", "diff", first).stdout == "they are the same\n"
    unknown = run("policy", "diff", "ffff")
    assert (unknown.exit_code, unknown.stderr) == (
        1,
        "smtpguard: no policy is kept under ffff: smtpguard policy history lists those that are\n",
    )
    assert run("policy", "show", first[:6]).stdout == run("audit", "policy", first[:6]).stdout


def test_check_compares_the_file_with_the_policy_in_force(run: Callable[..., Result], etc: Path) -> None:
    assert re.search(
        r"ok    policy \w{12} is in force, since [\d: -]+ UTC, by root; \S+ is the same\n", run("check").stdout
    )
    edit(etc, ENFORCED, OBSERVED)
    asyncio.run(start.prepare(read_settings(etc / "smtpguard.yaml"), by="root", parts=()))
    done = run("check")
    assert done.exit_code == 0
    assert re.search(r"odd   policy \w{12} is in force.* is another one, which smtpguard reload would put", done.stdout)


async def another_version(etc: Path) -> None:
    async with opened(read_settings(etc / "smtpguard.yaml")) as (store, _):
        event = Event(kind=Kind.POLICY, id="P", at=Clock().now(), data={"sha256": "f" * 64})
        await store.policies.put("f" * 64, {"policy.yaml": b"version: 2\n"}, event)


def test_check_in_force_tells_whether_an_upgrade_can_read_it(run: Callable[..., Result], etc: Path) -> None:
    good = in_force(etc)
    fine = run("check", "--in-force")
    assert (fine.exit_code, f"can read the policy in force, {good[:12]}." in fine.stdout) == (0, True)
    asyncio.run(another_version(etc))
    lost = run("check", "--in-force")
    assert (lost.exit_code, "cannot be read by smtpguard" in lost.stderr) == (1, True)
    assert json.loads(run("check", "--in-force", "--json").stdout)["readable"] is False
    assert run("check").exit_code == 1
    assert "Nothing is held." in run("held", "list").stdout
    refused = run("reload")
    assert (refused.exit_code, "what becomes looser is unknown" in refused.stderr) == (1, True)
    assert run("reload", "--yes").exit_code == 0
    assert in_force(etc) == good


def test_without_a_store_no_policy_is_in_force(tmp_path: Path) -> None:
    etc = Path(shutil.copytree(shipped(), tmp_path / "etc"))
    done = running("check", "--in-force")(etc)
    assert (done.exit_code, done.stderr.startswith("smtpguard: no policy is in force yet")) == (2, True)
    assert not (etc / "var").exists()
