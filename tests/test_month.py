"""``bench --month``: the same seed makes the same mail, and the counts are right for rules that hold everything or
nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from bench.correspondence import CAMPAIGN, FIRST, Post, Writing
from bench.month import Result, played, rules_of, table
from smtpguard.config.documents import shipped

EVERYTHING = """
rules:
  - id: everything
    when: {recipients.total: ">= 1"}
    then: hold
"""


def written(messages: int = 60) -> tuple[Writing, list[Post]]:
    writing = Writing(7, people=80, customers=400, crowd=6)
    return writing, writing.month(messages, 1)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Do not log the verdicts."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.configure(**before)


async def month(folder: Path, rules: str) -> tuple[list[Post], Result]:
    writing, posts = written()
    return posts, await played(folder, posts, writing, rules)


def test_the_same_seed_gives_the_same_mail() -> None:
    assert written()[1] == written()[1]
    _, posts = written(300)
    assert [post.at for post in posts] == sorted(post.at for post in posts)
    assert len([post for post in posts if not post.incident]) == 300
    assert len({post.kind for post in posts if post.incident}) == 23
    assert len({post.kind for post in posts if not post.incident}) >= 14


@pytest.mark.parametrize("rules", ["rules: []\n", EVERYTHING], ids=["nothing is held", "everything is held"])
async def test_held_and_missed_mail_is_counted(tmp_path: Path, rules: str) -> None:
    posts, result = await month(tmp_path, rules)
    open_ = rules.startswith("rules: []")
    ordinary = [post for post in posts if not post.incident]
    campaigns = sum(post.kind == CAMPAIGN for post in ordinary)
    assert result.messages == len(ordinary) == 60
    assert (result.incidents, len(result.dangerous)) == (23, 23)
    assert result.undecided == 0
    stopped = {kind for kind, one in result.dangerous.items() if one.stopped == 1}
    assert sum(result.count(of) for of in ("stopped", "in_part", "through")) == 23
    passed = set(result.dangerous) - stopped
    assert all(kind.startswith("approved, and then") for kind in passed) if not open_ else not stopped
    if open_:
        assert (result.wrongly, result.waited) == (0, 0)
        assert {
            n
            for kind in ("long text, one by one", "in Bcc to all at once")
            for n in result.dangerous[kind].reached.values()
        } == {6}
        assert sum(sent for sent, _ in result.by_writer.values()) == 60
    else:
        assert len(ordinary) - campaigns <= result.wrongly + result.waited <= len(ordinary)
        assert result.dangerous["nineteen at a time"].rules == {"everything": 1}


FIRST_LETTERS = """
rules:
  - id: first-letters
    when: {sender.first_contacts: ">= 1 in 30d"}
    then: hold
"""


async def test_a_guard_with_history_knows_recipients(tmp_path: Path) -> None:
    writing = Writing(7, people=80, customers=400, crowd=6)
    posts = writing.month(150, 0)
    results = []
    for name in ("new", "known"):
        (tmp_path / name).mkdir()
        results.append(await played(tmp_path / name, posts, writing, FIRST_LETTERS, known=name == "known"))
    new, known = (result.ordinary["letter to a customer"].held for result in results)
    assert 0 <= known < new / 2
    assert not any(line.startswith("| Dangerous") for line in table(results[0]))


async def test_a_campaign_passes_once_its_approval_takes_effect(tmp_path: Path) -> None:
    writing = Writing(7, people=80, customers=400, crowd=6)
    body, members = writing.newsletter("newsletter-en", 100), writing.company.lists["newsletter-en"]
    posts = [
        writing.from_the_tool(CAMPAIGN, to.address, "Hamnkvarn 10", body, FIRST + timedelta(minutes=minutes))
        for minutes, to in zip((0, 20.5, 60), members, strict=False)
    ]
    result = await played(tmp_path, posts, writing, EVERYTHING)
    assert (result.messages, result.waited, result.wrongly) == (3, 2, 0)  # the second while it can still be undone


async def test_the_sample_policy_holds_dangerous_mail_only(tmp_path: Path) -> None:
    _, result = await month(tmp_path, rules_of(shipped() / "policy.yaml"))
    assert result.wrongly <= 1
    for kind in ("thread of colleagues with a list in Cc", "a list's name at another domain",
                 "a colleague's letter with an unsubscribe line, to a list"):  # fmt: skip
        assert result.dangerous[kind].stopped == 1, kind
    lines = list(table(result))
    assert lines[-1].startswith("Of 23: ")
    assert any("in Bcc to all at once" in line for line in lines)
