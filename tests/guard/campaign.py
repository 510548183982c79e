"""A tool that sends a mailing to one member after the other through a house, and the people who decide on it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from smtpguard.freezes.gatewatch import GateWatch
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.model import Choice
from smtpguard.mailings.service import Mailings, row
from smtpguard.policy.verdict import Deferred, Disposition, Rejected, Relayed
from smtpguard.policy.verdict import Held as IsHeld
from smtpguard.store.store import open_store
from tests.guard.house import DOCUMENTS, KEY, MEMBERS, POLICY, FakePassage, House, house
from tests.guard.office import Office

UNAPPROVED = """
  - id: unapproved-mailing
    description: A mailing to many customers is approved first
    when: {mailing.customers: ">= 5", mailing.approved: false}
    then: hold
"""

DPO, EVA, OMAR, ANNA = "dpo@example.com", "eva@example.com", "omar@example.com", "anna@example.com"


def documents(*, stages: str = "") -> dict[str, bytes]:
    policy = POLICY + UNAPPROVED
    if stages:
        policy = policy.replace("    avoid: [pork]\n", f"    avoid: [pork]\n    stages: {stages}\n")
    return {**DOCUMENTS, "policy.yaml": policy.encode()}


class Campaign:
    """A house, and a tool that sends a mailing to one member after the other."""

    def __init__(self, home: House, *, copies: int = 3) -> None:
        self.home, self.office = home, Office(home)
        self.term = Deadlines(copies=copies, release_delay_seconds=0)
        self.service = Mailings(home.store, home, home.clock)
        self._intake = home.intake()
        self._intake.term = self.term
        self.approvals = home.approvals()
        self.approvals.term = self.term
        self._number = itertools.count()
        self.ways: list[FakePassage] = []

    async def send(self, *to: str, mailing: str = "spring", **more: Any) -> Disposition:
        n = next(self._number)
        headers = {"X_Looks": "mailing", "X_Mailing": mailing, "Message_ID": f"<{n}@example.com>", "body": f"Copy {n}"}
        transaction = self.home.transaction(*to, **headers | more)
        way = FakePassage()
        self.ways.append(way)
        return await self._intake(transaction, way)

    async def to_members(self, first: int, last: int, **more: Any) -> list[Disposition]:
        return [await self.send(MEMBERS[n], **more) for n in range(first, last)]

    async def decide(self, hold_id: str, choice: Choice = Choice.APPROVE, **more: Any) -> None:
        for who in (EVA, DPO)[: 1 if choice is Choice.REJECT else 2]:
            await self.approvals.vote(hold_id, choice, approver=who, by="test", **more)

    async def one(self) -> dict[str, Any]:
        """The only mailing, as JSON commands show it."""
        (mailing,) = await self.service.list(least=1)
        return dict(row(mailing))

    async def noted(self) -> None:
        """Wait until outcomes are written, which is with a later batch."""
        await self.home.store.journal.record([])


@asynccontextmanager
async def approved(folder: Path, *, stages: str = "", url: str | None = None) -> AsyncIterator[Campaign]:
    """A mailing that four members have; eight copies under one hold are approved."""
    async with house(folder, documents=documents(stages=stages), url=url) as home:
        made = Campaign(home, copies=50)
        await made.to_members(0, 12)
        (entry,) = await home.store.holds.newest()
        await made.decide(entry.hold_id)
        yield made


@asynccontextmanager
async def beside(one: Campaign, folder: Path) -> AsyncIterator[Campaign]:
    """Another machine with the same store, clock and relay."""
    home = one.home
    async with open_store(home.store.url, secret=KEY, state_dir=folder, clock=home.clock) as store:
        there = House(store, home.clock, home.folder, documents())
        there.ids = (f"U{n:015d}" for n in itertools.count(1))
        there.watch = GateWatch(store.gate, home.clock)
        await there.follow()
        await there.watch.read()
        other = Campaign(there, copies=one.term.copies)
        other._number, other.office.relay = one._number, one.office.relay
        other.office.worker = other.office.hire("beside")
        yield other


def kinds(given: list[Disposition]) -> str:
    letters = {Relayed: "r", IsHeld: "h", Deferred: "d", Rejected: "x"}
    return "".join(letters[type(one)] for one in given)
