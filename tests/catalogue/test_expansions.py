"""Aliases of aliases, nested lists and loops: an address that the relay expands counts as the people behind it, and
loops end."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.app.files import indexes
from smtpguard.lists.expansions import expansions_path
from tests.catalogue.wholeguard import MEMBERS, RAMADAN, READERS, WholeGuard, personal_mail, policy, whole_guard

ALIASES = f"""\
everybody: friends, everybody
friends: circle, {", ".join(MEMBERS[:10])}
circle: friends, everybody, |/usr/bin/archive
greetings: {RAMADAN}
amina: {MEMBERS[0]}
team: eva@example.com, omar@example.com
"""
EXPANDS = policy(expansions=[{"aliases": "aliases", "domains": ["example.com"]}])


async def step(guard: WholeGuard) -> None:
    """Let the delivery part read lists and maps, and the proxy what was found."""
    await guard.office._freshness.step()
    await guard.office._freshness.step()
    await guard.pass_(seconds=2)


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (tmp_path / "aliases").write_text(ALIASES)
    async with whole_guard(tmp_path, monkeypatch, text=EXPANDS) as guard:
        await step(guard)
        yield guard


@pytest.mark.parametrize("alias", ["everybody", "Friends", "circle", '"EVERYBODY"', "everybody+x"])
async def test_internal_mail_through_an_undeclared_alias_is_held(house: WholeGuard, alias: str) -> None:
    hold = await house.held(personal_mail(to="lotta@example.com"), f"<{alias}@example.com>")
    assert hold.lists == ("ramadan-greetings",)
    assert hold.reach == 10
    assert {h.rule for h in hold.verdict.hits} >= {"internal-to-list", "internal-to-hidden-members", "not-a-writer"}
    assert house.relay.messages == []


async def test_an_alias_of_a_lists_address_counts_as_the_list(house: WholeGuard) -> None:
    hold = await house.held(personal_mail(to="greetings@example.com"), "greetings@example.com")
    assert (hold.lists, hold.reach) == (("ramadan-greetings",), len(MEMBERS))


async def test_ordinary_mail_through_aliases_passes(house: WholeGuard) -> None:
    """Mail to a customer's forwarded mailbox, the team's alias and a colleague passes."""
    for n, to in enumerate(("amina@example.com", "team@example.com", "ulf@example.com")):
        await house.passes(personal_mail(to=to, message_id=f"<day{n}@example.com>"), to)


async def test_without_the_map_the_last_expansion_is_used(house: WholeGuard) -> None:
    (house.settings.policy.parent / "aliases").unlink()
    await house.pass_(minutes=16)
    await step(house)
    assert (await house.held(personal_mail(to="lotta@example.com"), "everybody@example.com")).reach == 10
    entries = await house.office._store.journal.entries(limit=10_000)
    told = [dict(entry.data) for entry, _ in entries if entry.kind == "list"]
    assert "No such file" in str(told[-1]["problem"])
    notices = [m for m in await house.deliver() if b"X-Smtpguard-Notice: list-failed" in m.content]
    assert notices, "approvers are notified"


async def test_a_new_alias_is_found_at_the_next_refresh(house: WholeGuard) -> None:
    new = personal_mail(to="lotta@example.com", message_id="<new@example.com>")
    await house.passes(new, "readers@example.com")
    (house.settings.policy.parent / "aliases").write_text(ALIASES + "readers: " + ", ".join(READERS[:50]) + "\n")
    await house.pass_(minutes=16)
    await step(house)
    assert (await house.held(personal_mail(to="lotta@example.com"), "readers@example.com")).lists == ("newsletter",)
    assert "readers" not in expansions_path(indexes(house.settings)).read_text()
