"""One mailing in many transactions: held from the threshold on, however its copies differ; and the people who have it
are counted."""

from __future__ import annotations

import asyncio
import quopri
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from smtpguard.app import proxy
from smtpguard.holds.model import Choice, State
from smtpguard.mailings.model import Mailing
from smtpguard.mailings.service import Mailings
from smtpguard.store.store import Store
from tests.catalogue.wholeguard import (
    DPO,
    EVA,
    HELD,
    MEMBERS,
    NEWSLETTER,
    RAMADAN,
    READERS,
    WholeGuard,
    personal_mail,
    policy,
    signed,
    whole_guard,
)
from tests.scripted_relay import Message

THRESHOLD = 12
CAMPAIGN = "Campaigns <campaigns@example.com>"
HEAD = "List-Unsubscribe: <https://news.example.com/u/{n:x}>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nPrecedence: bulk\r\n"
BODY = (
    "Dear {name},\r\n\r\nspring has come to our shops, and with it everything that makes a garden: bulbs, roses, seeds and tools.\r\n"
    "Until Sunday all of it costs a fifth less, and whoever brings this letter gets a bag of soil for nothing.\r\n"
    "We are open from nine to seven on every day of the week, and have coffee for those who have to wait a little.\r\n"
    "Your customer number is {n}. Look at what we have for you: https://shop.example.com/spring?c={n:06x}\r\n\r\n"
    "We look forward to seeing you!\r\nYour garden shop\r\n"
)
NAMES = ("Anna", "Bo", "Cecilia", "David", "Elsa", "Fredrik", "Greta", "Hassan", "Ida", "Johan")


def copy(
    n: int, *, to: str = "", sender: str = CAMPAIGN, subject: str = "Spring in the shops", body: str = BODY
) -> bytes:
    """A personalised copy: name, number, links, tokens and Message-ID differ."""
    return personal_mail(
        sender=sender, to=to or "you@example.net", subject=subject, head=HEAD.format(n=n),
        body=body.format(name=NAMES[n % 10], n=n), message_id=f"<{n}.{n * 7919}@campaigns.example.com>",
    )  # fmt: skip


def rules(**more: object) -> str:
    """The sample policy with a lower threshold for mailings, to make the tests fast."""
    unapproved = {"id": "a-mailing", "when": {"mailing.customers": f">= {THRESHOLD}", "mailing.approved": False},
                  "unless": {"stream": "any"}, "then": "hold"}  # fmt: skip
    return policy(rules=[unapproved], **more)


@pytest.fixture
async def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WholeGuard]:
    async with whole_guard(tmp_path, monkeypatch, text=rules(), settings="hold: {copies: 4}") as made:
        yield made


def store(guard: WholeGuard) -> Store:
    return guard.office._store


async def the_mailing(guard: WholeGuard) -> Mailing:
    (mailing,) = [m for m in await store(guard).mailings.newest() if m.messages > 1]
    return mailing


async def send(
    guard: WholeGuard, *, first: int = 0, n: int = 1, people: tuple[str, ...] = READERS, **more: str
) -> list[str]:
    """The answers to one copy for each person in turn."""
    return [await guard.send(copy(k, to=people[k], **more), people[k], sender="campaigns@example.com") for k in range(first, first + n)]  # fmt: skip


def passed(said: list[str]) -> int:
    """The number of copies that were relayed; all after them are held or deferred."""
    kinds = ["held" if HELD.match(s) else s[:3] for s in said]
    n = next((at for at, kind in enumerate(kinds) if kind != "250"), len(kinds))
    assert set(kinds[n:]) <= {"held", "451"}, kinds
    return n


async def test_copies_from_the_threshold_on_are_held_and_decided_as_one(guard: WholeGuard) -> None:
    said = await send(guard, n=THRESHOLD + 8)
    assert passed(said) == THRESHOLD - 1
    assert [s[:3] for s in said[-5:]] == ["451"] * 5 or [s[:3] for s in said[-4:]] == ["451"] * 4
    (entry,) = await guard.holds()
    mailing = await the_mailing(guard)
    assert (mailing.out, mailing.people.held, mailing.people.deferred) == (11, 5, 4)
    notices = await guard.deliver()
    assert sorted(to(m)[0] for m in notices) == ["campaigns@example.com", EVA, "omar@example.com"]
    before = {
        "campaigns@example.com": "It had been let through to 11 people before it was stopped"
    }  # the writer's notice is in their language
    for m in notices:
        text = quopri.decodestring(m.content).decode()
        assert before.get(to(m)[0], "Innan det stoppades hade det släppts igenom till 11 personer") in text
        assert ("one of several" if to(m)[0] in before else "ett av flera meddelanden i ett utskick") in text
    await guard.office._approvals.vote(entry.hold_id, Choice.APPROVE, approver=EVA, by="test")
    assert len(await guard.deliver()) >= 5
    assert passed(await send(guard, first=THRESHOLD - 1 + 5, n=12)) == 12
    assert [m async for m in _twice(guard)] == []
    mailing = await the_mailing(guard)
    assert (mailing.out, mailing.people.held, mailing.people.deferred) == (28, 0, 0)
    service = Mailings(store(guard), guard.office._policies, guard.clock)
    got = await service.people(mailing.mailing_id, [*READERS, *MEMBERS])
    assert got.keys() == set(READERS[:28])


def to(message: Message) -> list[str]:
    return [r.split(b"<")[1].split(b">")[0].decode() for r in message.rcpts]


async def _twice(guard: WholeGuard) -> AsyncIterator[str]:
    """Readers who got it more than once."""
    there = [one for m in guard.relay.messages for one in to(m)]
    for one in set(there):
        if one in READERS and there.count(one) > 1:
            yield one


async def test_copies_differ_in_sender_subject_and_message_id(guard: WholeGuard) -> None:
    said = []
    for n in range(THRESHOLD + 4):
        sender = f"Colleague {n} <colleague{n}@example.com>"
        content = copy(n, sender=sender, subject=f"Spring offer {NAMES[n % 10]} {n}")
        said.append(await guard.send(content, READERS[n], sender=f"bounce+{n}@campaigns.example.com"))
    assert passed(said) == THRESHOLD - 1
    assert len(await guard.holds()) == 1


async def test_two_processes_and_many_connections_share_the_threshold(guard: WholeGuard) -> None:
    """With two processes and many connections, exactly as many copies pass as the threshold allows."""
    other = proxy.Proxy(guard.settings)
    await other.start()
    watching = asyncio.create_task(other.serve())
    proxies = (guard.proxy_part, other)
    try:
        sending = []
        for n in range(3 * THRESHOLD):
            guard.proxy_part = proxies[n % 2]
            client = await guard.connect()
            content = copy(n)

            async def one(client: object = client, n: int = n, content: bytes = content) -> str:
                await client.ask("MAIL FROM:<campaigns@example.com>")  # type: ignore[attr-defined]
                await client.ask(f"RCPT TO:<{READERS[n]}>")  # type: ignore[attr-defined]
                await client.ask("DATA")  # type: ignore[attr-defined]
                client.say(content + b".\r\n")  # type: ignore[attr-defined]
                return str(await client.hear())  # type: ignore[attr-defined]

            sending.append(one())
        said = await asyncio.gather(*sending)
    finally:
        guard.proxy_part = proxies[0]
        watching.cancel()
        await other.stop(1)
        await other.close()
    assert sum(not HELD.match(s) and s.startswith("250") for s in said) == THRESHOLD - 1
    assert len(await guard.holds()) == 1


async def test_repeated_recipients_count_once(guard: WholeGuard) -> None:
    for _ in range(3):
        assert passed(await send(guard, n=THRESHOLD - 1)) == THRESHOLD - 1
    assert passed(await send(guard, first=THRESHOLD - 1, n=1)) == 0


async def test_several_recipients_in_each_envelope_are_summed(guard: WholeGuard) -> None:
    """The transaction that crosses the threshold is held whole."""
    half = THRESHOLD // 2
    people = READERS[:half], READERS[half : 2 * half - 1], READERS[100 : 100 + half], READERS[200 : 200 + half]
    said = [await guard.send(signed(copy(n)), *some, sender="campaigns@example.com") for n, some in enumerate(people)]
    assert passed(said) == 2
    (entry,) = await guard.holds()
    assert (entry.copies, entry.reach) == (1, 2 * half)


async def test_several_small_lists_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies to several lists, in any spelling of their addresses, are one mailing."""
    few: dict[str, Any] = {"members": MEMBERS[:8], "readers": READERS[:8]}
    async with whole_guard(tmp_path, monkeypatch, text=rules(), **few) as guard:
        aliases = [RAMADAN, RAMADAN.upper(), "ramadan+a@lists.example.com", '"ramadan"@lists.example.com']
        for n, alias in enumerate(aliases):
            await guard.passes(signed(copy(n, to=alias)), alias, sender="campaigns@example.com")
        hold = await guard.held(signed(copy(9, to=NEWSLETTER)), NEWSLETTER, sender="campaigns@example.com")
        assert "a-mailing" in {h.rule for h in hold.verdict.hits}


async def test_texts_without_common_content_are_counted_by_sender_and_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts without common content are no mailing, but the windows of their sender and of their list count them."""
    many = {"id": "many-of-a-list", "when": {"list.customers": ">= 6 in 1h"}, "then": "hold"}
    busy = {"id": "busy", "when": {"sender.customers": ">= 9 in 1h"}, "then": "hold"}
    async with whole_guard(tmp_path, monkeypatch, text=policy(rules=[many, busy])) as guard:
        words = [f"{a}{b}" for a in "abcdefghij" for b in ("lor", "mek", "nis", "pot", "rup", "sav", "tol", "vex")]

        async def one(n: int, to: str) -> str:
            text = " ".join(words[(n * 7 + k * k * (n + 1)) % 80] + words[(k * (n + 3)) % 80] for k in range(120))
            return await guard.send(copy(n, body=text.replace("{", "") + "\r\n"), to, sender="campaigns@example.com")

        assert passed([await one(n, READERS[n]) for n in range(7)]) == 5
        said = [await one(20 + n, MEMBERS[n]) for n in range(4)]
        assert [bool(HELD.match(s)) for s in said] == [False, True, True, True] or passed(said) <= 3


async def test_a_rejected_mailing_is_refused_with_the_approvers_comment(guard: WholeGuard) -> None:
    await send(guard, n=THRESHOLD + 1)
    (entry,) = await guard.holds()
    await guard.office._approvals.vote(
        entry.hold_id, Choice.REJECT, approver=EVA, by="test", comment="Not before Easter"
    )
    (said,) = await send(guard, first=50)
    assert said.startswith("550 5.7.1")
    assert 'People have already rejected this mailing: "Not before Easter".' in said
    assert [h.state for h in await guard.holds()] == [State.REJECTED]
    assert (await store(guard).journal.verify()).ok


async def test_two_different_texts_are_two_mailings(guard: WholeGuard) -> None:
    other = (
        "Dear {name},\r\n\r\nyour invoice for the past month is ready, and you find it among your documents in our portal.\r\n"
        "Please see to it that it is paid within thirty days, since we would otherwise have to charge interest on the sum.\r\n"
        "Questions are answered by our staff on weekdays, by telephone or in writing, and we gladly help with everything.\r\n"
        "Reference {n}\r\n\r\nKind regards\r\nThe people of the ledger\r\n"
    )
    assert passed(await send(guard, n=THRESHOLD - 1)) == THRESHOLD - 1
    assert passed(await send(guard, n=THRESHOLD - 1, body=other)) == THRESHOLD - 1
    assert await guard.holds() == []
    assert DPO not in {v.approver for h in await guard.holds() for v in h.votes}


APPROVE = "approve@guard.example.com"
ASKING = f"hold: {{approve_at: {APPROVE}}}"


async def test_a_preapproved_mailing_passes_to_its_list_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message that was approved beforehand is never relayed; the mailing passes to its list only."""
    async with whole_guard(tmp_path, monkeypatch, text=rules(), settings=ASKING) as guard:
        test = copy(1, to="approve")
        said = await guard.send(test, "approve+newsletter@guard.example.com", sender="campaigns@example.com")
        hold = await guard.hold(said)
        assert guard.relay.messages == []
        assert (hold.kind, hold.lists, hold.reach) == ("test", ("newsletter",), len(READERS))
        assert next(h.rule for h in hold.verdict.hits) == "approval-asked"
        assert "a-mailing" in {h.rule for h in hold.verdict.hits}, "the policy's verdict on the text"
        asked = await guard.deliver()
        assert any(b"X-Smtpguard-Notice: approve" in m.content for m in asked)
        await guard.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test", people=30)
        assert all(b"spring has come" not in m.content for m in await guard.deliver()), (
            "the message sent for preapproval is not relayed"
        )
        assert passed(await send(guard, first=2, n=28)) == 28
        assert await guard.send(copy(90, to=MEMBERS[0]), MEMBERS[0], sender="campaigns@example.com") != ""
        last = await send(guard, first=40, n=3)
        assert passed(last) == 1 or passed(last) == 2, "thirty people in all"
        assert len(await guard.holds()) == 2


@pytest.mark.parametrize(
    ("to", "sender", "why"),
    [
        (("approve@guard.example.com",), CAMPAIGN, "must name a list: approve+LIST@guard.example.com"),
        (("approve+nothing@guard.example.com",), CAMPAIGN, "there is no such list"),
        (("approve+newsletter@guard.example.com", "bo@example.com"), CAMPAIGN, "must have no other recipient"),
        (
            ("approve+newsletter@guard.example.com",),
            "Eve <eve@elsewhere.example>",
            "Only colleagues and the list's writers",
        ),
    ],
)
async def test_unsuitable_messages_are_refused_for_preapproval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: tuple[str, ...], sender: str, why: str
) -> None:
    async with whole_guard(tmp_path, monkeypatch, text=rules(), settings=ASKING) as guard:
        said = await guard.send(copy(1, sender=sender), *to)
        assert said.startswith("550 5.")
        assert why in said
        short = await guard.send(personal_mail(sender=CAMPAIGN), "approve+newsletter@guard.example.com")
        assert "too short to recognize" in short
        assert guard.relay.messages == []
        assert await guard.holds() == []
