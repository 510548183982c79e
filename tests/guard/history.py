"""Random histories of a guard: mail of all kinds, a relay that does as drawn, people who decide and take back, absences,
freezes, corrections, returns, erasure, other policies, restarts, and time."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import select

from smtpguard.admission.intake import Intake
from smtpguard.admission.model import Explained
from smtpguard.admission.preapproval import Corrections, NotAll, Preapproval
from smtpguard.app.explaining import Explainer
from smtpguard.database.errors import StoreError
from smtpguard.database.schema import outbox, underway
from smtpguard.freezes.gatewatch import GateWatch
from smtpguard.freezes.service import Freezes
from smtpguard.holds.effects import Deadlines
from smtpguard.holds.model import LIVE, SENDING, Choice, Hold, Refused, State
from smtpguard.holds.service import Approvals
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.writing import version_of
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Answers, Envelope, Fence, Lost, Recalled, Transaction
from smtpguard.mail.message import Message
from smtpguard.mail.reply import RELAY_UNAVAILABLE
from smtpguard.mailings.model import NoSuch
from smtpguard.mailings.service import Mailings
from smtpguard.observe import figures
from smtpguard.observe.metrics import Tally
from smtpguard.observe.webhooks import Allowed, Answered, Dispatcher, Hook, Sender, Topic
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.asking import report_doubts
from smtpguard.outbox.attempt import PACE
from smtpguard.policy.approvals import Absence
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Deferred, Held
from smtpguard.reading.fingerprint import Sketch
from smtpguard.reading.request import Surroundings
from smtpguard.returns.model import Sort
from smtpguard.returns.service import Returns
from smtpguard.store.retention import DOUBTS
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.guard import campaign
from tests.guard.campaign import ANNA, DPO, EVA, OMAR
from tests.guard.house import KEY, MEMBERS, RAMADAN, FakePassage, House, index, mail
from tests.guard.laws import check_covered, check_hold_not_frozen, check_release, check_seat, check_sent
from tests.guard.mailboxes import Mailboxes
from tests.guard.office import LATER, NO, OK, FakeRelay, Office
from tests.guard.policies import STAGES, ZONES, documents
from tests.guard.upkeep import Upkeep
from tests.returns.mails import arf, dsn, letter
from tests.store.making import sqlite_url

NEWS, TOOL, DEPUTY = "news@lists.example.com", "campaigns@example.com", "sten@example.com"
COLLEAGUES = ["ulf@example.com", "bo@example.com"]
READERS = ["reader@example.org", ANNA, *MEMBERS[50:]]
NEWCOMERS = [f"newcomer{n}@example.net" for n in range(3)]
VOTERS = (EVA, OMAR, DPO, DEPUTY, "new@example.com", "duty@example.com", ANNA)
Text = tuple[list[str], dict[str, Any]]
TRACE = re.compile(rb"X-Smtpguard: id=([^;\s]+)")
RELEASE = re.compile(rb"X-Smtpguard-Release: (\S+)")
HERE = (
    "store",
    "state",
    "home",
    "office",
    "owner",
    "approvals",
    "mailings",
    "freezes",
    "returns",
    "intake",
    "corrections",
    "teller",
)
"""The parts of a host."""
ACTS = {
    "post": 3, "copy": 3, "copies": 3, "work": 8, "chores": 6, "vote": 3, "let_go": 8, "answer": 6, "decide": 3, "time": 3,
    "again": 3, "returned": 3, "thaw": 4, "freeze": 1, "absence": 1, "policy": 1, "sync": 1, "back": 1, "correct": 1,
    "ask_before": 1, "campaign": 2, "restart": 1, "retain": 1, "preserve": 1, "renew": 1, "outage": 1, "back_up": 1,
}  # fmt: skip
"""What happens, and how often. Histories that erase or forget do some of it more often."""
ERASING, FORGETTING = {"erase": 2, "preserve": 2}, {"preserve": 2, "retain": 2}
Decision = Callable[["History", Hold, str], Awaitable[object]]
DECISIONS: dict[str, Decision] = {
    "reject": lambda it, hold, who: it.approvals.vote(
        hold.hold_id, Choice.REJECT, approver=who, by="test", comment="no"
    ),
    "withdraw": lambda it, hold, who: it.approvals.withdraw(
        hold.hold_id, sender=it.chance.choice([ANNA, TOOL]), by="test"
    ),
    "unvote": lambda it, hold, who: it.approvals.unvote(hold.hold_id, approver=who, by="test"),
    "say": lambda it, hold, who: it.say(hold, who, sent=it.chance.random() < 0.5),
    "confirm": lambda it, hold, who: it.approvals.confirm(hold.hold_id, writer=ANNA, by="test", people=hold.reach),
    "reopen": lambda it, hold, who: it.mailings.reopen(hold.mailing_id, approver=who, by="test", comment="no"),
    "reject all": lambda it, hold, who: it.mailings.reject(hold.mailing_id, approver=who, by="test", comment="no"),
    "go on": lambda it, hold, who: it.mailings.go_on(hold.mailing_id, approver=who, by="test", comment="no"),
    "stop": lambda it, hold, who: it.mailings.stop(hold.mailing_id, approver=who, by="test", comment="no"),
    "feedback": lambda it, hold, who: it.mailings.feedback(
        hold.mailing_id, bounces=it.chance.choice([1, 3]), by="test"
    ),
}
"""Against an approval, on stages, or on a doubt."""


def person(address: str) -> str:
    return Address.parse(address).canonical("+")


class Broken(BaseException):
    """A law is broken at the relay. A worker takes every Exception there for a lost connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """An approval in stages, of which only numbers count: ``steps`` before the rest, with ``pause`` between two, None if
    a person ends it. ``before``: how many had it by then."""

    steps: tuple[int, ...]
    pause: timedelta | None
    at: datetime
    before: int


class Receiver(Sender):
    """Of webhooks. ``got``: what it was sent, repetitions too."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history, self.got = history, list[dict[str, Any]]()

    async def send(self, url: str, secret: bytes, payload: Any, *args: Any) -> Answered:
        fails, lost = self.history.faults and self.history.chance.random() < 0.3, self.history.chance.random() < 0.5
        if not (fails and lost):
            self.got.append(dict(payload))
        return Answered(problem="HTTP 500" if fails else "")


class History(Upkeep, FakeRelay):
    """``said``: for each message the recipients that the relay, or a person about it, said that it has; ``took``: those that
    it has. ``lost``: the messages whose connection was lost after the dot. By release and recipient: whom the relay ``refused``, and
    how many ``tries`` it may have taken. ``foretold``: what ``explain`` said of a message just before it was sent. ``staged``: the approval in stages of a
    campaign, as long as nothing but time can end a pause; ``copies_of``: the messages of a campaign; ``looked``: how often a
    law was looked at. ``absent``: who has been away. ``faults``: whether relay and receivers fail. ``erases``: whether people's data is erased on request."""

    home: House
    store: Store

    def __init__(self, folder: Path, seed: int, url: str = "") -> None:
        """``url``: of a new database, for two hosts."""
        FakeRelay.__init__(self)
        Upkeep.__init__(self)
        self.url, self.hosts = url, 2 if url or seed % 3 == 1 else 1
        (folder / "beside").mkdir()
        self._elsewhere: dict[str, Any] = {}
        self.folder, self.chance = folder, Random(seed)
        self.began = datetime.fromisoformat(self.chance.choice(list(ZONES.values()))).replace(tzinfo=UTC)
        self.clock = Clock(at=self.began)
        self.said: dict[str, set[str]] = defaultdict(set)
        self.took: dict[str, set[str]] = defaultdict(set)
        self.faults, self.erases, self.forgets = True, seed % 4 == 3, seed % 5 == 2
        self.absent: set[str] = set()
        self.doubted: set[bytes] = set()
        self.refused: set[tuple[bytes, str]] = set()
        self.tries = Counter[tuple[bytes, str]]()
        self.lost: set[str] = set()
        self.staged: dict[str, Staged] = {}
        self.copies_of: dict[str, set[str]] = defaultdict(set)
        self.looked = Counter[str]()
        self.sent: set[str] = set()
        self.members, self.unsynced = MEMBERS, False
        self.to: dict[str, list[str]] = {}
        self.wrote: dict[str, set[str]] = {}
        self.behind: dict[str, dict[str, Sequence[str]]] = {}
        self.foretold: dict[str, Explained] = {}
        self.tally, self.tallied = Tally(), 0
        self.hook = Hook(
            name="chat", url="", secret=b"", topics=frozenset(Topic), allowed=Allowed(persons=True, special=True)
        )
        self.receiver, self.mailboxes = Receiver(self), Mailboxes(self.chance)
        self._delay = self.chance.choice([0, 0, 60])
        self._numbers, self._owners = itertools.count(), itertools.count()
        self._ids = (f"T{n:015d}" for n in itertools.count(1))
        self._texts: list[Text] = []
        self._put_off: list[Text] = []
        self._maybe: dict[str, datetime] = {}
        self._complaints, self._tripped = Counter[str](), set[str]()
        self._customers: dict[str, list[tuple[datetime, str, set[str]]]] = defaultdict(list)
        self._arrived: list[tuple[list[str], bytes, str]] = []
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
            store, SteadyClock(self.clock), new_id=lambda: f"F{next(self._numbers)}", recall_seconds=0, loud=False
        )
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

    # the relay, to what is released

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        try:
            return await self._delivered(envelope, content, prepend, fence)
        except AssertionError as broken:
            raise Broken from broken

    async def _delivered(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        found, everyone = TRACE.search(prepend), [str(a) for a in envelope.addresses]
        if found is None:  # a notice, or a report on a delivery
            self.mailboxes.put(everyone[0], content)
            return Answers(replies=[OK] * len(everyone))
        id, luck = found.group(1).decode(), self.chance.random() if self.faults else 1
        replies = [self.chance.choice([OK, OK, OK, LATER, NO]) if self.faults else OK for _ in everyone]
        if luck < 0.08:
            raise Lost(RELAY_UNAVAILABLE)
        if not await fence():
            raise Recalled
        await check_release(self.store, id, prepend, everyone, self.wrote)
        began = self.clock.now()
        if self.faults and self.chance.random() < 0.4:
            acts: list[Callable[[], Awaitable[None]]] = [
                partial(self.decide, id),
                self.decide,
                self.freeze,
                partial(self.freeze, everything=True),
                self.dawdle,
            ]
            await self.chance.choice(acts)()
        good = {a for a, reply in zip(everyone, replies, strict=True) if reply.positive}
        [release] = RELEASE.findall(prepend) or [b""]
        assert RAMADAN not in everyone or release not in self.doubted, (id, "the list may have it already")
        ways = [(release, one) for one in everyone]
        assert self.refused.isdisjoint(ways), (id, "refused for good")
        assert all(self.tries[way] < 2 for way in ways), (id, "a second duplicate")
        if luck < 0.24:
            self.doubted.add(release)
            self.tries.update(ways)
            self.took[id] |= good if self.chance.random() < 0.5 else set()
            raise Lost(LATER, after_dot=True) if luck < 0.2 else asyncio.CancelledError
        if not await fence():
            raise Recalled
        await check_hold_not_frozen(self.store, id)
        assert self.clock.now() - began < PACE.doubt, (id, "another attempt may have begun")
        self.took[id] |= good
        self.said[id] |= good
        self._check_stage(id)
        self.refused |= {way for way, reply in zip(ways, replies, strict=True) if reply.permanent}
        return Answers(replies=replies, reports=luck > 0.4)

    # what happens

    async def act(self) -> None:
        if self.chance.random() < 0.3:
            await self.move()
        acts = Counter(ACTS) + Counter(ERASING if self.erases else {}) + Counter(FORGETTING if self.forgets else {})
        [what] = self.chance.choices([*acts], [*acts.values()])
        act: Callable[[], Awaitable[None]] = getattr(self, what)
        await act()

    async def post(self) -> None:
        chance = self.chance
        one, two = chance.sample([*MEMBERS, *NEWCOMERS], 2)
        some = [
            [one],
            [one, two],
            [RAMADAN],
            [RAMADAN, one],
            [one, one.replace("@", "+a@")],
            [NEWS],
            [NEWS, RAMADAN],
            COLLEAGUES[:1],
        ]
        many = [chance.sample(MEMBERS, 6), [*COLLEAGUES, *chance.sample(MEMBERS, 24)]]
        to, looks = chance.choice(some + many), chance.choice(["internal", "mailing", "unclear"])
        await self.submit(
            to, X_Looks=looks, X_Labels=chance.choice(["", "", "", "contract"]), body=f"Bacon {next(self._numbers)}?",
            sender=chance.choice([ANNA, ANNA, ANNA, EVA]), session=chance.choice([{}, {}, {}, {"auth_user": "eva"}]),
        )  # fmt: skip

    async def copy(self) -> None:
        chance = self.chance
        one = [chance.choice(MEMBERS)]
        to = chance.choice([one, one, one, chance.sample(MEMBERS, 3), [chance.choice(READERS)], [RAMADAN]])
        mailing = chance.choice(["spring", "spring", "wine"])
        one = [chance.choice(NEWCOMERS)] if chance.random() < 0.1 else one
        body = chance.choice([f"Copy {next(self._numbers)}", f"Copy of {mailing}"])
        session = {"auth_user": ANNA} if chance.random() < 0.4 else {}
        await self.submit(
            to,
            X_Looks="mailing",
            X_Mailing=mailing,
            body=body,
            sender=chance.choice([TOOL, ANNA, ANNA]),
            session=session,
        )

    async def copies(self) -> None:
        for _ in range(self.chance.choice([3, 5])):
            await self.copy()

    async def again(self) -> None:
        """A client tries again, mostly after a 451; or it sends once more what it has sent."""
        some = self.chance.choice([self._put_off, self._put_off, self._texts])[-30:]
        if some:
            await self._submitted(*self.chance.choice(some))

    async def submit(self, to: list[str], **more: Any) -> str:
        """Its id."""
        more["Message_ID"] = f"<{next(self._numbers)}@example.com>"
        self._texts.append((to, more))
        return await self._submitted(to, more)

    async def _submitted(self, to: list[str], more: dict[str, Any]) -> str:
        chance, luck = self.chance, self.chance.random() if self.faults else 1
        message = self.home.transaction(*to, **more)
        way = FakePassage(
            message=bytes(message.message.raw[:]),
            replies=(chance.choice([OK, OK, OK, OK, *([NO, LATER] if self.faults else [])]),),
        )
        self.to[message.id] = to
        self.copies_of[more.get("X_Mailing", "")].add(message.id)
        login = more.get("session", {}).get("auth_user", "")
        self.wrote[message.id] = {more.get("sender", ANNA)} | (
            {login if "@" in login else f"{login}@example.com"} if login else set()
        )
        if luck < 0.06:
            way.before_dot = chance.choice([self.freeze, self.freeze, self.policy])
        elif luck < 0.17:
            way.raises = (
                Lost(LATER, after_dot=True) if luck < 0.12 else Lost(LATER) if luck < 0.15 else asyncio.CancelledError()
            )
        elif luck < 0.2:
            message = replace(message, gone=lambda: chance.random() < 0.6)
        if luck >= 0.06 and chance.random() < 0.3 and not to[0].endswith("@guard.example.com"):
            self.foretold[message.id] = await self.explain(message)
        answered = False
        try:
            done = await self.intake(message, way)
            answered = not isinstance(done, Deferred)
            if isinstance(done, Held) and done.hold_id == message.id:
                await self.mailboxes.held(done.hold_id)
        except (asyncio.CancelledError, StoreError):  # its process ends; or its client gets 451
            pass
        known = self.home.in_force.registry.lists  # another policy may have come in between
        self.behind[message.id] = {RAMADAN: self.indexed}
        if not known.keys().isdisjoint({"news", "nyheter"}):
            self.behind[message.id][NEWS] = READERS
        if not answered:
            self._put_off.append((to, more))
        if way.sent:
            self.sent.add(message.id)
            await self._was_sent(message.id, to, str(more["Message_ID"]), login)
        if way.sent and way.replies[0].positive:
            self.said[message.id] |= {*to}
            self.took[message.id] |= {*to}
            self._arrived.append((to, way.sent[0], more["Message_ID"]))
            self._check_stage(message.id)
        elif way.failed and getattr(way.raises, "after_dot", True):
            self.took[message.id] |= {*to} if chance.random() < 0.5 else set()
            self._maybe[more["Message_ID"]] = self.clock.now()
            self.lost.add(message.id)
        unanswered = None if answered else await self.store.holds.find(message.id)
        if unanswered is not None and unanswered.state is State.WAITING:  # its client still has it
            self.looked["unanswered"] += 1
            await self._approved(unanswered, [OMAR, EVA, DPO], 0)
        return message.id

    def _check_stage(self, id: str) -> None:
        """No more people have its campaign than its stages allow by now."""
        name = next((name for name in self.staged if id in self.copies_of[name]), "")
        if not name:
            return
        staged, have = self.staged[name], self._having(name)
        pauses = 0 if staged.pause is None else (self.clock.now() - staged.at) // staged.pause
        if pauses < len(staged.steps):
            self.looked["stage"] += 1
            assert len(have) <= staged.before + sum(staged.steps[: pauses + 1]), (id, staged, have)

    def _having(self, name: str) -> set[str]:
        return {person(one) for id in self.copies_of[name] for one in self.said[id] | self.took[id]}

    async def _was_sent(self, id: str, to: list[str], message_id: str, login: str) -> None:
        """Nothing stopped it: neither a freeze, nor a rejection, nor that its list may have it already, nor its number."""
        await self.settle()
        data = await check_sent(self.store, id, to, self.behind[id], self.wrote[id])
        doubted = self._maybe.get(message_id, self.began - DOUBTS)
        assert RAMADAN not in to or self.clock.now() - doubted >= DOUBTS, (id, "the list may have it already")
        everybody = {one for some in self.behind[id].values() for one in some}
        customers = {person(one) for one in to if person(one) in everybody and not one.endswith("@example.com")}
        if not data["mailing"] or not customers or data.get("bypass"):
            return
        known = self._customers[data["mailing"]]
        known.append((self.clock.now(), id, customers))
        since = self.clock.now() - timedelta(hours=23)
        several = set().union(*(some for at, one, some in known if at > since and (one == id or self.said[one])))
        self.looked[await check_covered(self.store, data, self.wrote[id], login, len(several))] += 1

    async def explain(self, one: Transaction) -> Explained:
        """As a person does with ``explain`` before it is sent."""
        made = Explainer(self.home.in_force, self.home.gather, Surroundings())
        return await made.explain(one.message, one.envelope.reverse_path, one.envelope.addresses, one.session)

    async def freeze(self, *, everything: bool = False) -> None:
        chance = self.chance
        kept = [("list", "ramadan"), ("list", "news"), ("sender", ANNA), ("all", "")]
        kept += [("mailing", one.mailing_id) for one in await self.mailings.list(least=1)]
        selector, value = ("all", "") if everything else chance.choice(kept)
        lasts = timedelta(hours=2) if chance.random() < 0.2 else None
        await self.freezes.freeze(Selector(selector), value, reason="a fire", by="root", for_=lasts)
        await self.home.watch.read()

    async def thaw(self) -> None:
        for one in (await self.store.gate.read()).freezes:
            await self.freezes.thaw(one.freeze_id, by="root")
        await self.home.watch.read()

    async def answer(self) -> None:
        await self.mailboxes.answer()

    async def vote(self) -> None:
        await self._approve(self.chance.sample(VOTERS, self.chance.choice([1, 3])))

    async def let_go(self) -> None:
        """All agree, or one does; nobody takes it back, and it goes out if that is enough."""
        await self._approve(self.chance.sample(VOTERS, self.chance.choice([1, 7, 7])))
        await self._enacted()

    async def _approve(self, people: Sequence[str]) -> None:
        waiting = [hold for hold in await self.home.holds() if hold.state is State.WAITING]
        if not waiting:
            return
        hold, most = self.chance.choice(waiting), self.chance.choice([0, 0, 0, 2, 10])
        await self._approved(hold, people, most)

    async def _approved(self, hold: Hold, people: Sequence[str], most: int) -> None:
        lead = hold.primary or hold.hold_id
        for who in people:
            asked = (await self.home.hold(lead)).verdict.quorum
            try:
                await self.approvals.vote(
                    hold.hold_id, Choice.APPROVE, approver=who, by="test", all_at_once=hold.reach, people=most
                )
            except Refused:
                continue
            assert who not in self.wrote.get(lead, ()), (lead, "on their own message", who)
            check_seat(asked, who)

    async def decide(self, id: str = "") -> None:
        """``id``: of the hold; "" for any."""
        self.staged.clear()
        chance, holds = self.chance, await self.home.holds()
        if not holds:
            return
        some = chance.choice(
            [[hold for hold in holds if hold.state in SENDING], [hold for hold in holds if hold.release_at]]
        )
        hold = chance.choice([hold for hold in holds if hold.hold_id == id] or some or holds)
        try:
            await DECISIONS[chance.choice([*DECISIONS])](self, hold, chance.choice([EVA, OMAR, DPO]))
        except (Refused, NoSuch):
            pass

    async def say(self, hold: Hold, who: str, *, sent: bool) -> None:
        """A person's word about a release in doubt counts as the relay's."""
        asked = await self.store.ask(lambda c: outboxes.asked(c, hold.hold_id, self.store.now_us()))
        await self.approvals.say(hold.hold_id, sent=sent, approver=who, by="test")
        self.doubted = {one for one in self.doubted if not one.startswith(hold.hold_id.encode())}
        self.tries = Counter({way: n for way, n in self.tries.items() if not way[0].startswith(hold.hold_id.encode())})
        if sent:
            has = {str(one.outcome.recipient.address) for some in asked.values() for one in some}
            self.said[hold.hold_id] |= has
            self.took[hold.hold_id] |= has

    async def absence(self) -> None:
        chance, now = self.chance, self.clock.now()
        who, deputy = chance.choice([EVA, OMAR, DPO]), chance.choice(["", OMAR, DEPUTY])
        ended, until = now if chance.random() < 0.3 else None, now.date() + timedelta(days=chance.choice([0, 2]))
        made = Absence(
            person=who, since=now.date(), until=until, deputy=deputy, confirmed=chance.random() < 0.7, ended=ended
        )
        self.absent.add(who)
        event = Event(kind=Kind.ABSENCE, id="E", at=now, private={"account": (who,)})
        await self.store.people.change_absence(who, lambda said: (made, event))
        await self.follow()

    async def policy(self) -> None:
        self.staged.clear()
        await self.home.put(made := documents(self.chance))
        self.absent |= {OMAR} if OMAR.encode() not in made["policy.yaml"].partition(b"lists:")[0] else set()
        await self.follow()

    async def time(self) -> None:
        await self.pass_(seconds=self.chance.choice([1, 61, 61, 1900, 1900, 4000, 4000, 20_000, 90_000]))

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

    async def back(self) -> None:
        self.clock.at -= timedelta(seconds=self.chance.choice([1, 40]))
        await self.home.watch.read()

    async def dawdle(self) -> None:
        """The relay takes so long that another attempt may have begun."""
        self.clock.pass_(seconds=PACE.doubt.total_seconds())
        await self.home.watch.read()

    async def work(self) -> None:
        await self.office.go(seconds=self.chance.choice([1, 60, 400]))
        for lease in await self.store.outbox.lease(self.owner, self.chance.choice([1, 50]), 60):
            try:
                await self.office.worker.carry_out(lease)
            except asyncio.CancelledError:  # it is killed
                pass

    async def chores(self) -> None:
        journal = self.store.journal
        some: list[Callable[[], Awaitable[object]]] = [
            *self.regular(),
            journal.index,
            journal.move_fronts,
            journal.checkpoint,
            self.tell,
            self.count,
        ]
        for one in self.chance.sample(some, 4):
            await one()

    def regular(self) -> list[Callable[[], Awaitable[object]]]:
        approvals = self.approvals
        return [approvals.sweep, approvals.enact, approvals.follow, approvals.ask, self.freezes.lift_ended, self.doubts]

    async def doubts(self) -> None:
        await report_doubts(self.store, self.clock)

    async def tell(self) -> int:
        return await self.teller.tell(self.hook)

    async def count(self) -> None:
        """As the metrics part does, a few entries at a time."""
        found, last = await self.store.ask(lambda c: figures.news(c, self.tallied, self.chance.choice([3, 1000])))
        held = await self.store.ask(lambda c: figures.held(c, found))
        for event in found:
            self.tally.add(event, held.get(event.id))
        self.tallied = last

    async def correct(self) -> None:
        self.home.reader.sketch = Sketch(tuple(range(100, 164)))
        text = {"X_Looks": "mailing", "X_Mailing": "sorry", "Subject": "We are sorry", "body": "It was wrong."}
        some = await self.mailings.list(least=1)
        try:
            message, doubt = Message.of(mail(RAMADAN, **text)), self.chance.random() < 0.5
            hold = await self.corrections.begin(self.chance.choice(some), message, starter=EVA, by="test", doubt=doubt)
            for who in (OMAR, DPO):
                await self.approvals.vote(hold.hold_id, Choice.APPROVE, approver=who, by="test")
        except (Refused, NotAll, IndexError):
            pass
        for to in self.chance.sample(MEMBERS, 3):
            await self.submit([to], **text)
        self.home.reader.sketch = Sketch()

    async def ask_before(self) -> None:
        self.home.reader.sketch = Sketch(tuple(range(200, 264)))
        to, mailing = self.chance.choice(["ramadan", "news"]), self.chance.choice(["spring", "wine"])
        await self.submit(
            [f"approve+{to}@guard.example.com"],
            X_Looks="mailing",
            X_Mailing=mailing,
            body="Copy of spring",
            sender=TOOL,
        )
        self.home.reader.sketch = Sketch()

    async def campaign(self) -> None:
        """A mailing that must be approved; people decide; and some time later its writer goes on with it, as before or with what
        nobody has seen, or another one does."""
        chance, name = self.chance, f"campaign{next(self._numbers)}"
        people, internal = chance.sample(MEMBERS, 14), chance.random() < 0.4
        text: dict[str, Any] = {"X_Looks": "internal" if internal else "mailing", "X_Mailing": name, "body": name}
        text |= {"sender": chance.choice([ANNA, TOOL, EVA]), "session": chance.choice([{}, {"auth_user": ANNA}])}
        ids = [await self.submit(people[:6], To="all", **text)]
        ids += [await self.submit([one], **text) for one in people[6 : chance.choice([6, 8])]]
        waiting = [hold for hold in await self.home.holds() if hold.state is State.WAITING and not hold.primary]
        lead = next((hold for hold in waiting if hold.hold_id in ids), None)
        if lead is None:
            return
        most, rejects = chance.choice([0, 0, 9, 10]), chance.random()
        if rejects > 0.3:
            await self._approved(lead, [OMAR, DPO], most)
            await self.pass_(seconds=61)
            await self.approvals.enact()
            await self.approvals.follow()
        rejected = False
        try:
            if rejects < 0.3:
                await self.approvals.vote(lead.hold_id, Choice.REJECT, approver=OMAR, by="test", comment="no")
                rejected = True
            elif rejects < 0.5:
                await self.mailings.reject(lead.mailing_id, approver=OMAR, by="test", comment="no")
                rejected = True
        except Refused:
            pass
        later = chance.choice([timedelta(seconds=1), timedelta(hours=2), timedelta(hours=20), timedelta(days=8)])
        await self.pass_(seconds=later.total_seconds())
        again = text | chance.choice([{}, {}, {"X_Looks": "internal"}, {"sender": "ulf@example.com", "session": {}}])
        for to in (people[6:12], [people[12]], [people[13]]):
            id = await self.submit(to, **again | ({"To": "all"} if to[1:] else {}))
            if rejected and later.days < 1 and not {*to}.isdisjoint(self.behind[id][RAMADAN]):
                hold = await self.store.holds.find(id)
                assert id not in self.sent, (lead.hold_id, "it was rejected", id)
                assert hold is None or hold.mailing_id != lead.mailing_id, (lead.hold_id, "people are asked again", id)

    async def let_go_in_stages(self, most: int) -> None:
        """A campaign that is surely let go: nothing is frozen or fails, and those who are asked agree. While they do, a copy may
        come to another list: who agreed before has not seen that. It goes in stages until the rest, and then its writer goes
        on, beyond what was approved, while again all may fail. ``most``: the people that the approvers name, 0 for none."""
        chance, name, self.faults = self.chance, f"staged{next(self._numbers)}", False
        self.unsynced, stages = False, chance.choice(STAGES)
        await self.pass_(seconds=61)
        await self.thaw()
        await self.home.put(campaign.documents(stages=stages))
        await self.follow()
        people = chance.sample([one for one in MEMBERS[:50] if one in self.indexed], 22)
        text: dict[str, Any] = {
            "X_Looks": "mailing",
            "X_Mailing": name,
            "body": name,
            "sender": chance.choice([ANNA, TOOL]),
        }
        ids = [await self.submit([one], **text) for one in people[:5]]
        lead = await self.home.hold(ids[-1])
        await self._approved(lead, [OMAR], most)
        if most:
            await self.submit([next(one for one in MEMBERS[50:] if one in self.indexed)], **text)
            await self._approved(lead, [DPO], most)
            await self._enacted()
        pause = re.search(r"pause: (\d+)([mh])", stages)
        unit = {"m": 60, "h": 3600}
        self.staged[name] = Staged(
            steps=tuple(int(step) for step in re.findall(r"\b\d+(?=,)", stages)),
            pause=timedelta(seconds=int(pause[1]) * unit[pause[2]]) if pause else None,
            at=self.clock.now(),
            before=len(self._having(name)),
        )
        await self._approved(lead, [OMAR, EVA, DPO], most)
        await self._enacted()
        for n in range(5, 15, 2):
            for one in people[n : n + 2]:
                await self.submit([one], **text)
            await self._enacted()
            if n > 7:
                self.staged.clear()
                await self.pass_(hours=3)
                try:
                    await self.mailings.go_on(lead.mailing_id, approver=OMAR, by="test")
                except Refused:
                    pass
        self.faults = True
        some: list[tuple[list[str], dict[str, Any]]] = [
            (people[15:16], {}),
            (people[15:21], {"X_Looks": "internal", "To": "all"}),
            (["reader@example.org"], {}),
            (people[21:], {"sender": "ulf@example.com"}),
            (people[20:21], {}),
        ]
        for to, more in chance.sample(some, len(some)):
            await self.submit(to, **text | more)

    async def _enacted(self) -> None:
        await self.pass_(seconds=61)
        await self.approvals.enact()
        await self.approvals.follow()
        await self.work()

    async def returned(self) -> None:
        """Some of what arrived comes back: reports, complaints and answers, and what somebody invents, which never counts. At
        the second complaint a mailing stops, if the policy says so."""
        chance = self.chance
        for to, raw, message_id in chance.sample(self._arrived[-20:], min(len(self._arrived), chance.choice([1, 3]))):
            who, invented = chance.choice([*to, "stranger@example.org"]), chance.random() < 0.3
            raw = raw.replace(b"X-Smtpguard: id=", b"X-Smtpguard: id=Z") if invented else raw
            back = chance.choice(
                [
                    arf(raw),
                    arf(raw),
                    dsn(raw, who),
                    letter(who, "Re: lunch", message_id),
                    letter(who, "unsubscribe", message_id),
                ]
            )
            receipt = await self.returns.take(back)
            for one in receipt.returns:
                written = one.sort in (Sort.REPLY, Sort.UNSUBSCRIBE)
                assert not one.counts or (who in to or RAMADAN in to or NEWS in to if written else not invented), one
                self._complaints[one.match.mailing] += one.counts and one.sort is Sort.COMPLAINT
                if self.home.in_force.breakers.each and self._complaints[one.match.mailing] > 1 and one.counts:
                    assert receipt.freezes or one.match.mailing in self._tripped, one
            self._tripped |= {stop.value for stop in receipt.freezes}
        await self.home.watch.read()

    async def restart(self) -> None:
        await self.close()
        await self.open()

    async def end(self) -> None:
        """Nothing fails any more, nothing is frozen, nobody decides; until nothing waits, or a month has passed."""
        self.faults = self.unsynced = False
        for n in range(60):
            if n and not await self.left():
                break
            await self.thaw()
            for one in self.regular():
                await one()
            for hold in await self.store.holds.asked():
                for who in VOTERS:
                    try:
                        await self.say(hold, who, sent=True)
                        break
                    except Refused:
                        continue
            for lease in await self.store.outbox.lease(self.owner, 500, 60):
                await self.office.worker.carry_out(lease)
            await self.pass_(hours=10)

    async def left(self) -> list[str]:
        """What waits: holds, messages without an outcome, and what is in the outbox."""
        wait = [hold.hold_id for hold in await self.home.holds() if hold.state in LIVE or hold.asked_at]
        ids = select(underway.c.id).where(underway.c.doubt.is_(False))
        going = ids.union(select(outbox.c.intent_id).where(outbox.c.done.is_(False)))
        return wait + list(await self.store.ask(lambda c: c.execute(going).scalars().all()))
