"""The hosts of a random history: one, or two with one store, their parts, the policy and the lists that they have, and time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from smtpguard.admission.intake import Intake
from smtpguard.admission.preapproval import Corrections, Preapproval
from smtpguard.freezes.gatewatch import GateWatch
from smtpguard.freezes.service import Freezes
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.service import Approvals
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.writing import version_of
from smtpguard.mail.address import Address
from smtpguard.mailings.service import Mailings
from smtpguard.observe.metrics import Counters
from smtpguard.observe.webhooks import Answered, Dispatcher, Hook, Sender, Topic
from smtpguard.returns.service import Returns
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.guard.campaign import ANNA
from tests.guard.house import KEY, MEMBERS, House, index
from tests.guard.mailboxes import Mailboxes
from tests.guard.office import FakeRelay, Office
from tests.guard.policies import ZONES
from tests.store.making import sqlite_url

NEWS, TOOL, DEPUTY = "news@lists.example.com", "campaigns@example.com", "sten@example.com"
READERS = ["reader@example.org", ANNA, *MEMBERS[50:]]
NEWCOMERS = [f"newcomer{n}@example.net" for n in range(3)]
HERE = ("store", "state", "home", "office", "owner", "approvals", "mailings", "freezes", "returns", "intake", "corrections",
        "teller")  # fmt: skip
"""The parts of a host."""


class Receiver(Sender):
    """Of webhooks. ``got``: what it was sent, repetitions too."""

    def __init__(self, history: Hosts) -> None:
        super().__init__()
        self.history, self.got = history, list[dict[str, Any]]()

    async def send(self, url: str, secret: bytes, payload: Any, *args: Any) -> Answered:
        fails, lost = self.history.faults and self.history.chance.random() < 0.3, self.history.chance.random() < 0.5
        if not (fails and lost):
            self.got.append(dict(payload))
        return Answered(problem="HTTP 500" if fails else "")


class Hosts(FakeRelay):
    """``faults``: whether relay and receivers fail. ``erases``: whether people's data is erased on request; ``forgets``: whether
    retention is short. ``tally``: what the metrics part has counted."""

    home: House
    store: Store

    def __init__(self, folder: Path, seed: int, url: str = "") -> None:
        """``url``: of a new database, for two hosts."""
        super().__init__()
        self.url, self.hosts = url, 2 if url or seed % 3 == 1 else 1
        (folder / "beside").mkdir()
        self._elsewhere: dict[str, Any] = {}
        self.folder, self.chance = folder, Random(seed)
        self.began = datetime.fromisoformat(self.chance.choice(list(ZONES.values()))).replace(tzinfo=UTC)
        self.clock = Clock(at=self.began)
        self.faults, self.erases, self.forgets = True, seed % 4 == 3, seed % 5 == 2
        self.members, self.unsynced = MEMBERS, False
        self.tally, self.tallied = Counters(), 0
        self.hook = Hook(name="chat", url="", secret=b"", topics=frozenset(Topic), persons=True)
        self.receiver, self.mailboxes = Receiver(self), Mailboxes(self.chance)
        self._delay = self.chance.choice([0, 0, 60])
        self._numbers, self._owners = itertools.count(), itertools.count()
        self._ids = (f"T{n:015d}" for n in itertools.count(1))
        self._open = AsyncExitStack()

    async def open(self, first: dict[str, bytes] | None = None) -> None:
        """As its hosts start; ``first``: the policy of a new store."""
        self.reindex()
        for n in range(self.hosts):
            self._elsewhere = {name: getattr(self, name) for name in HERE} if n else {}
            await self._begin(self.folder if not n else self.folder / "beside", first if not n else None)

    async def _begin(self, state: Path, first: dict[str, bytes] | None) -> None:
        where = self.url or sqlite_url(self.folder / "guard.db")
        opened = open_store(where, secret=KEY, state_dir=state, clock=self.clock, migrate=True)
        store = self.store = await self._open.enter_async_context(opened)
        self.state = state
        known = first or dict(await store.policies.documents((await store.gate.read()).policy_sha256))
        home = self.home = House(store, self.clock, self.folder / "indexes", known)
        home.ids = self._ids
        home.term = Deadlines(copies=self.chance.choice([2, 50]), release_delay_seconds=self._delay)
        home.front = await store.open_front() if self.chance.random() < 0.8 else None
        home.watch = GateWatch(store.gate, self.clock, front=home.front)
        if first is not None:
            await home.put(first)
        await self.follow()
        self.office = Office(home)
        self.mailboxes.open(home)
        self._open.push_async_callback(self.mailboxes.reader.close)
        self.office.relay, self.owner = self, f"worker {next(self._owners)}"
        self.office.worker = self.office.hire(self.owner, renderer=self.mailboxes)
        self.approvals: Approvals = home.approvals()
        self.mailings: Mailings = Mailings(store, home, self.clock, term=home.term, notices=home.notices)
        self.freezes = Freezes(
            store, SteadyClock(self.clock), new_id=lambda: f"F{next(self._numbers)}", recall_seconds=0,
            thaw_two=self.chance.random() < 0.3, loud=False,
        )  # fmt: skip
        digester = home.in_force.registry.digester
        self.returns = Returns(
            store, home, self.clock, digester, self.freezes, key=KEY, new_id=lambda: f"B{next(self._numbers)}"
        )
        self.intake: Intake = home.intake()
        beside: dict[str, Any] = {
            "store": store,
            "policies": home,
            "gather": home.gather,
            "term": home.term,
            "notices": home.notices,
        }
        self.intake.own = [Preapproval(address=Address.parse("approve@guard.example.com"), **beside)]
        self.corrections = Corrections(clock=self.clock, new_id=lambda: next(self._ids), **beside)
        self.teller = Dispatcher([self.hook], store, self.receiver, self.clock)
        if first is not None:
            self.told_from = (await store.cursors.at(self.hook.name)).told
        await store.outbox.abandon(lambda owner: True)

    async def close(self) -> None:
        await self._open.aclose()

    async def follow(self) -> None:
        for home in self.homes():
            await home.follow()
            await home.watch.read()

    def homes(self) -> list[House]:
        return [self.home, self._elsewhere["home"]] if self._elsewhere else [self.home]

    async def move(self) -> None:
        """What follows happens at the other host, if there are two."""
        if self._elsewhere:
            here, self._elsewhere = self._elsewhere, {name: getattr(self, name) for name in HERE}
            vars(self).update(here)
            await self.follow()

    async def settle(self) -> None:
        """Write the outcomes that wait, and move all fronts into the chain."""
        for home in self.homes():
            await home.store.journal.record([])
            await home.store.journal.take_fronts()

    def reindex(self) -> None:
        """Lists are synced, unless their source fails."""
        if self.unsynced:
            return
        self.indexed = self.members
        for name, people in (("ramadan", self.indexed), ("news", READERS), ("nyheter", READERS)):
            index(self.folder / "indexes", name, people, self.clock.now())

    async def sync(self) -> None:
        """People join and leave a list; or its source fails from now on, or no longer."""
        self.unsynced = self.chance.random() < 0.3
        stay = self.chance.sample(MEMBERS, len(MEMBERS) - self.chance.choice([0, 0, 1, 20]))
        self.members = [*stay, *NEWCOMERS[: self.chance.choice([0, 0, 1, 3])]]
        await self.pass_(seconds=60)

    async def pass_(self, **time: float) -> None:
        self.clock.pass_(**time)
        before = self.indexed
        self.reindex()
        if self.indexed != before:
            await self.journal_list(before)
        self.home.in_force.registry.reopen()
        await self.home.watch.read()

    async def journal_list(self, before: Sequence[str]) -> None:
        """As a sync does when people came to the list or left it."""
        digester = self.home.in_force.registry.digester
        old, new = ({digester.of(Address.parse(one)) for one in people} for people in (before, self.indexed))
        change = {"before": version_of(old), "added": len(new - old), "removed": len(old - new)}
        data = {**change, "version": version_of(new), "people": len(new), "news": ["replaced"], "problem": None}
        await self.store.journal.record([Event(kind=Kind.LIST, id="ramadan", at=self.clock.now(), data=data)])
