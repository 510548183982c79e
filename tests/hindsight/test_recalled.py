"""What a verdict's entry keeps of the facts is what the rules had: read back, it is the same, or bounds of it; never something else."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from smtpguard.admission.recordedfacts import FACTS, WHOLE
from smtpguard.hindsight.passed import Sums
from smtpguard.hindsight.policydiff import PolicyDiff
from smtpguard.hindsight.recalled import Recalled, Told, Window
from smtpguard.hindsight.replay import recall
from smtpguard.journal.event import Kind
from smtpguard.policy.counted import Live
from smtpguard.policy.engine import Plan
from smtpguard.policy.facts import FACTS as ALL
from smtpguard.policy.facts import Count, Fact, Source, Type, Unknown, Value
from smtpguard.policy.verdict import Verdict
from tests.guard.drawing import letter
from tests.guard.house import MEMBERS, RAMADAN, House, Way, house, index
from tests.hindsight.twins import documents, ground, sample, without_facts

ASKED = [Window(f.name, f.name) for f in ALL.values() if f.source is not Source.LIVE]


class Closings:
    """What each plan was closed with: all values that the rules had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.last: dict[str, Value] = {}
        close = Plan.close

        def closed(plan: Plan, live: Live) -> Verdict:
            told = zip(plan.rules._slots, plan._told(live), strict=True)
            self.last = dict(plan.facts.values) | {slot: value for slot, value in told if value is not None}
            return close(plan, live)

        monkeypatch.setattr(Plan, "close", closed)


@pytest.fixture
def closings(monkeypatch: pytest.MonkeyPatch) -> Closings:
    return Closings(monkeypatch)


class Memory:
    """What the journal of a house has, read back with its policy."""

    def __init__(self, home: House, policy: dict[str, Any]) -> None:
        self._home, self._sums = home, Sums()
        self._then = ground(home, policy)
        self._shift = PolicyDiff(self._then, self._then)
        self.asked = [*ASKED, *self._then.counts.values()]

    async def recalled(self, id: str, *, full: bool = True) -> Recalled:
        [(entry, clear)] = [p for p in await self._home.store.journal.history(id) if p[0].kind == Kind.VERDICT.value]
        message = Recalled(entry if full else without_facts(entry), clear)
        recall(message, self._then, self._sums)
        return message

    def told(self, message: Recalled, one: Window) -> Told:
        return self._shift.told(one, message)

    def wrong(self, message: Recalled, known: Mapping[str, Value]) -> list[str]:
        told = [(one.slot, self.told(message, one), known.get(one.slot)) for one in self.asked]
        return [
            f"{message.id} {slot}: {said}, but was {true}; {message.data}"
            for slot, said, true in told
            if not fits(said, true)
        ]


def fits(told: Told, true: Value | None) -> bool:
    value = told.value
    if told.vague and isinstance(value, Count) and isinstance(true, Count):
        return value.low <= true.low and true.high <= value.high
    if told.vague:
        return isinstance(value, Unknown) or true is None or isinstance(true, Unknown)
    return (isinstance(value, Unknown) and isinstance(true, Unknown)) or value == true


@pytest.mark.parametrize("full", [True, False], ids=["kept", "from before"])
@pytest.mark.parametrize("seed", range(3))
async def test_what_is_read_back_is_what_the_rules_had(
    tmp_path: Path, closings: Closings, seed: int, full: bool
) -> None:
    chance, policy = random.Random(seed), sample()
    index(tmp_path / "indexes", "staff", [f"colleague{n}@example.com" for n in range(30)])
    async with house(tmp_path, documents=documents(policy)) as home:
        home.verifier.domains = frozenset({"shop.example.com", "campaigns.example.com"})
        memory = Memory(home, policy)
        exact = total = 0
        for n in range(60):
            if chance.random() < 0.2:
                home.clock.pass_(seconds=chance.choice([60, 4000, 30_000]))
            to, more = letter(chance, n)
            await home.intake()(home.transaction(*to, id=f"T{n:015d}", **more), Way())
            message = await memory.recalled(f"T{n:015d}", full=full)
            if message.again:
                continue
            assert memory.wrong(message, closings.last) == []
            gathered = [one for one in ASKED if one.slot in closings.last]
            total += len(gathered)
            exact += sum(not memory.told(message, one).vague for one in gathered)
        assert exact / total > (0.95 if full else 0.6), "most of it is kept, or follows from the rest"


EXTRAORDINARY: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a header that cannot be read": (MEMBERS[:2], {}),
    "a text that cannot be read": (MEMBERS[:2], {"X_Readable": "unreadable"}),
    "nobody wrote it": ([RAMADAN], {"sender": "a@example.com, b@example.com"}),
    "a stranger": ([RAMADAN], {"sender": "otto@example.org"}),
    "somebody who logged in": ([MEMBERS[0]], {"session": {"auth_user": "anna@example.com"}}),
    "hidden members": (MEMBERS[:9], {"To": "bo@example.com"}),
    "a thread of colleagues, forwarded": ([MEMBERS[0]], {"X_Forwarded_Thread": "yes"}),
    "topics": ([RAMADAN, "news@lists.example.com"], {"X_Topics": "pork wine"}),
    "labels": ([MEMBERS[0]], {"X_Labels": "contract"}),
    "a stream": ([MEMBERS[0]], {"sender": "noreply@example.com", "session": {"client_ip": "10.1.2.3"}}),
    "an automatic answer": ([MEMBERS[0]], {"Auto_Submitted": "auto-replied", "reverse_path": ""}),
    "to the same person twice": ([MEMBERS[0], MEMBERS[0]], {}),
    "to many colleagues": ([f"c{n}@example.com" for n in range(30)], {"References": "<storm@example.com>"}),
}


@pytest.mark.parametrize("name", EXTRAORDINARY)
@pytest.mark.parametrize("days", [0, 14], ids=["lists that know", "lists that are stale"])
async def test_what_is_not_as_usual(home: House, closings: Closings, name: str, days: int) -> None:
    to, more = EXTRAORDINARY[name]
    policy = sample()
    index(home.folder, "staff", ["bo@example.com"])
    home.in_force = home.build(documents(policy))
    await home.put(documents(policy))
    home.verifier.domains = frozenset({"shop.example.com"})
    if name.startswith("a header"):
        home.reader.fails = Unknown(why="it is broken")
    home.clock.pass_(days=days)
    await home.intake()(home.transaction(*to, id="T000000000000001", **more), Way())
    memory = Memory(home, policy)
    assert memory.wrong(await memory.recalled("T000000000000001"), closings.last) == []


OF_ANY_TEXT = sorted(name for name in WHOLE if ALL[name].source is Source.TEXT)


async def test_an_ordinary_message_keeps_little_of_its_text_and_nothing_else(home: House) -> None:
    for to in ("peter@partner.example", MEMBERS[0]):
        transaction = home.transaction(to, Message_ID=f"<{to}>", body=to)
        await home.intake()(transaction, Way())
        [(_, data), *_] = await home.events(transaction.id)
        assert sorted(data[FACTS]) == (OF_ANY_TEXT if to == MEMBERS[0] else [])


async def test_language_and_marks_are_known_and_of_an_entry_from_before_they_were_kept_they_are_not(
    home: House,
) -> None:
    marks = {"X_Marks": "reply-prefix secretive"}
    transaction = home.transaction(MEMBERS[0], body="x", **marks)
    await home.intake()(transaction, Way())
    [(entry, clear)] = [p for p in await home.store.journal.history(transaction.id) if p[0].kind == Kind.VERDICT.value]
    content = json.loads(entry.body)
    for name in OF_ANY_TEXT:
        said = Recalled(entry, clear).told(Window(name, name))
        assert not said.vague
        assert said.value not in (frozenset(), "")
        del content["data"][FACTS][name]
    for name in OF_ANY_TEXT:
        assert Recalled(replace(entry, body=json.dumps(content)), clear).told(Window(name, name)).vague


async def test_how_many_a_mailing_has_reached_so_far_is_read_back(tmp_path: Path, closings: Closings) -> None:
    """Left out where it is what the message comes to alone."""
    policy = sample()
    policy["rules"] = [{"id": "ever", "when": {"mailing.ever": ">= 1000"}, "then": "hold"}]
    async with house(tmp_path, documents=documents(policy)) as home:
        memory = Memory(home, policy)
        for n, to in enumerate([MEMBERS[:2], MEMBERS[2:3], ["peter@partner.example"], MEMBERS[:1]]):
            headers = {"X_Mailing": "spring", "Message_ID": f"<{n}@example.com>", "body": str(n)}
            await home.intake()(home.transaction(*to, id=f"T{n}", **headers), Way())
            message = await memory.recalled(f"T{n}")
            assert memory.told(message, Window("mailing.ever", "mailing.ever")) == Told(closings.last["mailing.ever"])
            home.clock.pass_(days=2)


@pytest.mark.parametrize("sender", ["anna@example.com", "a@example.com, b@example.com"], ids=["one", "several"])
async def test_a_fact_of_tomorrow_is_read_back_and_of_an_entry_of_today_it_is_not_known(
    home: House, monkeypatch: pytest.MonkeyPatch, sender: str
) -> None:
    """Whatever it is called and hangs on: nothing about it is said anywhere but in its own row of the table."""
    transaction = home.transaction(MEMBERS[0], sender=sender)
    await home.intake()(transaction, Way())
    [(entry, clear)] = [p for p in await home.store.journal.history(transaction.id) if p[0].kind == Kind.VERDICT.value]
    for area, source in itertools.product(sorted({fact.area for fact in ALL.values()}), set(Source) - {Source.LIVE}):
        fact = Fact(name=f"{area}.of_tomorrow", type=Type.WORDS, source=source, doc="", label=("", ""), says={})
        monkeypatch.setitem(cast(dict[str, Fact], ALL), fact.name, fact)
        asked = Window(fact.name, fact.name)
        assert Recalled(entry, clear).told(asked).vague, fact
        content = json.loads(entry.body)
        content["data"][FACTS][fact.name] = ["x"]
        assert Recalled(replace(entry, body=json.dumps(content)), clear).told(asked) == Told(frozenset({"x"})), fact


async def test_peoples_own_words_are_not_kept(home: House) -> None:
    transaction = home.transaction(MEMBERS[0], X_Labels="For-Anna-Only")
    await home.intake()(transaction, Way())
    [(entry, _), *_] = await home.store.journal.history(transaction.id)
    assert "For-Anna-Only" not in entry.body
    message = await Memory(home, sample()).recalled(transaction.id)
    assert message.told(Window("message.labels", "message.labels")).vague
