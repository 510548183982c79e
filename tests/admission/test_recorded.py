"""Facts read back from a verdict's entry equal those that the rules had, or are unknown."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smtpguard.admission.recorded import ERASED, FACTS, OLD, REPLY, UNREAD, UNSAID, Recorded
from smtpguard.journal.chain import Pair
from smtpguard.journal.event import Kind
from smtpguard.mail.message import Message
from smtpguard.policy.counted import APPROVED, Live
from smtpguard.policy.engine import Plan
from smtpguard.policy.facts import FACTS as ALL
from smtpguard.policy.facts import Count, Source, Unknown, Value
from smtpguard.policy.verdict import Verdict
from tests.app.twoguards import documents, sample
from tests.guard.drawing import letter
from tests.guard.house import MEMBERS, RAMADAN, FakePassage, House, house, index

ASKED = [fact.name for fact in ALL.values() if fact.source is not Source.LIVE]


class Closings:
    """All values that the rules had when the last plan was closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.last: dict[str, Value] = {}
        close = Plan.close

        def closed(plan: Plan, live: Live, *more: Any) -> Verdict:
            told = {**plan.rules._by_slot(plan.known), **plan.answers(live), APPROVED: live.approved}
            self.last = dict(plan.facts.values) | told
            return close(plan, live, *more)

        monkeypatch.setattr(Plan, "close", closed)


@pytest.fixture
def closings(monkeypatch: pytest.MonkeyPatch) -> Closings:
    return Closings(monkeypatch)


async def entry_of(home: House, id: str) -> Pair:
    await home.store.journal.catch_up()
    [pair] = [p for p in await home.store.journal.history(id) if p[0].kind == Kind.VERDICT.value]
    return pair


async def recorded(home: House, id: str) -> Recorded:
    return Recorded(*await entry_of(home, id))


def wrong(message: Recorded, known: Mapping[str, Value], slots: list[str]) -> list[str]:
    """The slots whose recorded value differs from the real one; unknown ones are left out."""
    said = [(slot, message.value(slot), known.get(slot)) for slot in slots]
    return [
        f"{message.id} {slot}: {value}, but was {true}; {message.facts}"
        for slot, value, true in said
        if value is not None
        and value != true
        and true is not None
        and not (isinstance(value, Unknown) and isinstance(true, Unknown))
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_recorded_facts_equal_those_of_the_rules(tmp_path: Path, closings: Closings, seed: int) -> None:
    chance, policy = random.Random(seed), sample()
    index(tmp_path / "indexes", "staff", [f"colleague{n}@example.com" for n in range(30)])
    async with house(tmp_path, documents=documents(policy)) as home:
        home.verifier.domains = frozenset({"shop.example.com", "campaigns.example.com"})
        asked = [*ASKED, *home.build(documents(policy)).rules._slots]
        exact = total = 0
        for n in range(60):
            if chance.random() < 0.2:
                home.clock.pass_(seconds=chance.choice([60, 4000, 30_000]))
            to, more = letter(chance, n)
            await home.send(*to, id=f"T{n:015d}", **more)
            message = await recorded(home, f"T{n:015d}")
            if message.again:
                continue
            assert wrong(message, closings.last, asked) == []
            gathered = [name for name in ASKED if name in closings.last]
            total += len(gathered)
            exact += sum(message.value(name) is not None for name in gathered)
        assert exact / total > 0.95, "facts of the text are missing of mail to no list"


EXTRAORDINARY: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a header that cannot be read": (MEMBERS[:2], {}),
    "a text that cannot be read": (MEMBERS[:2], {"X_Readable": "unreadable"}),
    "two authors": ([RAMADAN], {"sender": "a@example.com, b@example.com"}),
    "a stranger": ([RAMADAN], {"sender": "otto@example.org"}),
    "a login": ([MEMBERS[0]], {"session": {"auth_user": "anna@example.com"}}),
    "hidden members": (MEMBERS[:9], {"To": "bo@example.com"}),
    "a thread of colleagues, forwarded": ([MEMBERS[0]], {"X_Forwarded_Thread": "yes"}),
    "topics": ([RAMADAN, "news@lists.example.com"], {"X_Topics": "pork wine"}),
    "labels": ([MEMBERS[0]], {"X_Labels": "contract"}),
    "a stream": ([MEMBERS[0]], {"sender": "noreply@example.com", "session": {"client_ip": "10.1.2.3"}}),
    "an automatic answer": ([MEMBERS[0]], {"Auto_Submitted": "auto-replied", "reverse_path": ""}),
    "to the same person twice": ([MEMBERS[0], MEMBERS[0]], {}),
    "to odd spellings": (["Customer1@Example.NET", "x%GMAIL.com@relay.example"], {}),
    "to many colleagues": ([f"c{n}@example.com" for n in range(30)], {"References": "<storm@example.com>"}),
}


@pytest.mark.parametrize("name", EXTRAORDINARY)
@pytest.mark.parametrize("days", [0, 14], ids=["fresh lists", "stale lists"])
async def test_unusual_facts_are_recorded(home: House, closings: Closings, name: str, days: int) -> None:
    to, more = EXTRAORDINARY[name]
    policy = sample()
    index(home.folder, "staff", ["bo@example.com"])
    home.in_force = home.build(documents(policy))
    await home.put(documents(policy))
    home.verifier.domains = frozenset({"shop.example.com"})
    if name.startswith("a header"):
        home.reader.fails = Unknown(why="it is broken")
    home.clock.pass_(days=days)
    await home.send(*to, id="T000000000000001", **more)
    message = await recorded(home, "T000000000000001")
    slots = [*ASKED, *home.in_force.rules._slots]
    assert wrong(message, closings.last, slots) == []
    missing = [slot for slot in ASKED if slot in closings.last and message.value(slot) is None]
    assert missing == [], "every fact that was asked for is known, since it touches a list or is a copy"
    assert (message.facts or {}).get(REPLY, False) is (name == "to many colleagues")


async def test_the_subject_of_an_unread_message_is_that_which_programs_show(home: House) -> None:
    home.reader.fails = Unknown(why="it is broken")
    sent = home.transaction(RAMADAN, Subject="Räksmörgås")
    latin = Message.of(sent.message.raw[:].replace("Räksmörgås".encode(), "Räksmörgås".encode("latin-1")))
    await home.intake()(replace(sent, message=latin), FakePassage())
    assert [clear["subject"] for _, clear in await home.store.journal.history(sent.id) if clear] == [["Räksmörgås"]]


async def test_topics_are_recorded_only_of_mail_to_lists_or_customers(home: House) -> None:
    """Topics of a private letter are not journalled, those of mail to a customer are."""
    home.in_force = home.build(documents(policy := sample() | {"rules": [LOOKING]}))
    await home.put(documents(policy))
    for n, to in enumerate(("peter@partner.example", MEMBERS[0])):
        await home.intake()(
            home.transaction(to, id=f"T{n}", Message_ID=f"<{n}>", body=to, X_Topics="pork"), FakePassage()
        )
    nobodys, customers = await recorded(home, "T0"), await recorded(home, "T1")
    assert customers.value("message.topics") == frozenset({"pork"})
    assert nobodys.value("message.topics") is None
    assert nobodys.why_not("message.topics") == UNSAID
    assert "pork" not in str(nobodys.clear)
    assert nobodys.value("message.looks") is not None


LOOKING = {"id": "topics", "when": {"message.topics": "pork"}, "then": "hold", "mode": "observe"}


async def test_facts_of_unread_text_are_unknown(home: House) -> None:
    await home.send("peter@partner.example", id="T1")
    message = await recorded(home, "T1")
    assert message.value("message.language") is None
    assert message.why_not("message.language") == UNREAD


async def test_facts_are_erased_with_the_addresses(home: House) -> None:
    """Facts are erased with the addresses; the chain keeps counts and lists only."""
    transaction = home.transaction(*MEMBERS[:2], id="T1", X_Labels="For-Anna-Only", X_Topics="pork")
    await home.intake()(transaction, FakePassage())
    entry, clear = await entry_of(home, "T1")
    assert Recorded(entry, clear).value("message.labels") == frozenset({"For-Anna-Only"})
    assert "For-Anna-Only" not in entry.body
    assert FACTS not in entry.data
    erased = Recorded(entry, None)
    assert erased.value("message.labels") is None
    assert erased.why_not("message.labels") == ERASED
    assert erased.value("recipients.customers") == Count(2, 2)
    assert erased.value("recipients.lists") == frozenset({"ramadan"})


async def test_counts_with_an_upper_bound_are_unknown_after_erasure(home: House) -> None:
    home.clock.pass_(days=14)  # every index is stale
    await home.send(MEMBERS[0], "peter@partner.example", id="T1")
    entry, clear = await entry_of(home, "T1")
    assert Recorded(entry, clear).value("recipients.customers") == Count(1, 2)
    assert Recorded(entry, None).value("recipients.customers") is None


BEFORE = {"sender.is_writer": False, "message.language": "sv", "message.marks": ["signed"], "message.labels": "?", "stream": None,
          "mailing.customers": 12, "sender.customers in 3600": [3, None], "mailing.waiting": True}  # fmt: skip
"""``data.facts`` of an earlier version, which kept unusual values only."""


async def test_an_entry_of_an_earlier_version_gives_the_facts_it_has(home: House) -> None:
    await home.send(RAMADAN, id="T1")
    entry, clear = await entry_of(home, "T1")
    content = json.loads(entry.body)
    content["data"][FACTS] = BEFORE
    del content["private"][FACTS]
    names = {role: values for role, values in (clear or {}).items() if role != FACTS}
    message = Recorded(replace(entry, body=json.dumps(content)), names)
    known = {"sender.is_writer": False, "message.language": "sv", "message.marks": frozenset({"signed"}), "mailing.customers": Count(12, 12),
             "sender.customers in 3600": Count(3, float("inf")), "recipients.list_addresses": Count(1, 1), "recipients.reach": Count(60, 60),
             "recipients.lists": frozenset({"ramadan"}), "recipients.share": Count(1, 1), "message.looks": "internal", "client": "192.0.2.1",
             "recipients.total": Count(1, 1), "sender.address": "anna@example.com"}  # fmt: skip
    assert {slot: message.value(slot) for slot in known} == known
    assert isinstance(message.value("stream"), Unknown)
    assert message.stood("mailing.waiting")
    assert not message.stood("mailing.rejected")
    for slot in ("message.labels", "message.topics", "sender.proven", "sender.customers in 86400"):
        assert message.value(slot) is None, slot
        assert message.why_not(slot.partition(" ")[0]) == OLD
