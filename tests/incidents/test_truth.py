"""Random histories of a guard whose relay does as drawn: the report beside what the relay really took, and answered."""

from __future__ import annotations

import itertools
import random
import re
from collections import defaultdict
from pathlib import Path

import pytest

from smtpguard.holds.model import Choice, Refused, State
from smtpguard.incidents.query import IncidentQuery
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Answers, Envelope, Fence, Lost, Recalled
from smtpguard.mail.message import Message
from tests.guard.campaign import DPO, EVA, OMAR, documents
from tests.guard.house import MEMBERS, RAMADAN, FakePassage, House, house
from tests.guard.office import LATER, NO, OK, FakeRelay, Office

STEPS = 45
TRACE = re.compile(rb"X-Smtpguard: id=([^;\s]+)")


def person(address: str) -> str:
    return Address.parse(address).canonical("+")


class History(FakeRelay):
    """``said``: for each message the recipients that the relay answered 250 for; ``took``: those that it has."""

    def __init__(self, home: House, chance: random.Random) -> None:
        super().__init__()
        self.home, self.chance = home, chance
        self.office = Office(home, relay=self)
        self.approvals, self.intake = home.approvals(), home.intake()
        self.said: dict[str, set[str]] = defaultdict(set)
        self.took: dict[str, set[str]] = defaultdict(set)
        self._number = itertools.count()
        self._frozen: list[str] = []

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        found, everyone = TRACE.search(prepend), [str(a) for a in envelope.addresses]
        if found is None:  # a notice
            return Answers(replies=[OK] * len(everyone))
        id, chance = found.group(1).decode(), self.chance
        replies = [chance.choice([OK, OK, OK, LATER, NO]) for _ in everyone]
        if not await fence():
            raise Recalled
        if chance.random() < 0.3:
            await self.revoke()
        good = {a for a, reply in zip(everyone, replies, strict=True) if reply.positive}
        if chance.random() < 0.15:
            self.took[id] |= good if chance.random() < 0.5 else set()
            raise Lost(LATER, after_dot=True)
        if not await fence():
            raise Recalled
        self.took[id] |= good
        self.said[id] |= good
        return Answers(replies=replies)

    async def send(self) -> None:
        chance = self.chance
        one, two = chance.sample(MEMBERS, 2)
        to = chance.choice([[one], [one, two], [RAMADAN], [RAMADAN, one], [one, one.replace("@", "+a@")]])
        n = next(self._number)
        looks = chance.choice(["internal", "mailing"])
        message = self.home.transaction(*to, X_Looks=looks, Message_ID=f"<{n}@example.com>", body=f"Bacon {n}?")
        way = FakePassage(replies=(chance.choice([OK, OK, OK, NO, LATER]),))
        if chance.random() < 0.2:
            way.before_dot = lambda: self.freeze(f"F{n}")
        elif chance.random() < 0.2:
            way.raises = Lost(LATER, after_dot=True)
        await self.intake(message, way)
        if way.sent and way.replies[0].positive:
            self.said[message.id] |= {*to}
            self.took[message.id] |= {*to}
        elif way.raises is not None and way.begun and chance.random() < 0.5 and not way.abandoned:
            self.took[message.id] |= {*to}
        for id in self._frozen:
            await self.home.thaw(id)
        self._frozen.clear()

    async def freeze(self, id: str) -> None:
        self._frozen.append(id)
        await self.home.freeze(id=id)

    async def _vote(self, choice: Choice, *states: State) -> None:
        some = [hold for hold in await self.home.holds() if hold.state in states]
        if not some:
            return
        hold = self.chance.choice(some)
        for who in (EVA, OMAR, DPO) if choice is Choice.APPROVE else (EVA,):
            try:
                await self.approvals.vote(hold.hold_id, choice, approver=who, by="test", comment="so")
            except Refused:
                continue
        await self.approvals.follow()

    async def approve(self) -> None:
        await self._vote(Choice.APPROVE, State.WAITING)

    async def revoke(self) -> None:
        await self._vote(Choice.REJECT, State.WAITING, State.APPROVED, State.RELEASING, State.IN_DOUBT)

    async def step(self) -> None:
        await self.office.step(minutes=self.chance.choice([1, 2, 40]))

    def people(self, some: dict[str, set[str]]) -> set[str]:
        """Distinct, with everybody on the list behind its address."""
        every = set().union(*some.values())
        return {person(a) for a in every - {RAMADAN}} | (set(map(person, MEMBERS)) if RAMADAN in every else set())


@pytest.mark.parametrize("seed", range(8))
async def test_the_report_says_what_the_relay_took(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with house(tmp_path, documents=documents()) as home:
        history = History(home, chance)
        for _ in range(STEPS):
            await chance.choice(
                [history.send, history.send, history.approve, history.step, history.step, history.revoke]
            )()
        await home.store.journal.record([])
        found = await home.store.journal.incident(IncidentQuery(since=0), prove=True)
    report = found.report
    assert report is not None
    assert found.proof is not None
    assert found.proof.ok
    assert report.reached.messages == sum(map(bool, history.said.values()))
    reached, perhaps = report.reached.people, report.perhaps
    assert reached.high is not None
    assert perhaps.high is not None
    assert reached.low <= len(history.people(history.said)) <= reached.high
    assert len(history.people(history.took)) <= reached.high + perhaps.high
    unknown = {id for id, some in history.took.items() if some - history.said[id]}
    assert unknown <= set(report.unsettled), "what the relay took without saying so is in doubt"
    assert all(some.people.high for some in report.ends.values())
