"""A house with a delivery worker, whose relay and renderer do as told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from smtpguard.database.errors import Unavailable
from smtpguard.holds.model import State
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.mail.envelope import Answers, Envelope, Fence, Lost, Recalled
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply
from smtpguard.outbox.delivery import Delivery
from smtpguard.outbox.model import AttemptResult, Intent, IntentKind
from tests.guard.house import KEY, RAMADAN, FakePassage, House, PatchedStore

OK = Reply.of(250, "2.0.0", "Ok")
LATER = Reply.of(451, "4.7.1", "Greylisted")
NO = Reply.of(550, "5.1.1", "No such user")
ULF, BO, DI = "ulf@example.com", "bo@example.net", "di@example.net"


@dataclass
class FakeRelay:
    """A relay that answers by recipient (``says``), by content (``refuses``), or ``raises``. ``taken``: the messages
    that it took, whatever it answered."""

    says: dict[str, Reply] = field(default_factory=dict)
    refuses: dict[bytes, Reply] = field(default_factory=dict)
    raises: BaseException | None = None
    takes_before_raising: bool = False
    before_mark: BaseException | None = None
    before_dot: Callable[[], Any] = lambda: None
    reports: bool = True
    taken: list[tuple[Envelope, bytes]] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        self.asked.append([str(a) for a in envelope.addresses])
        if self.before_mark is not None:
            raise self.before_mark
        if isinstance(self.raises, Lost) and not self.raises.after_dot:
            raise self.raises
        if not await fence():
            raise Recalled
        made = self.before_dot()
        if asyncio.iscoroutine(made):
            await made
        if self.raises is not None and not self.takes_before_raising:
            raise self.raises
        if not await fence():
            raise Recalled
        for_form = self.refuses.get(bytes(content.raw), OK)
        replies = [self.says.get(str(a), for_form) for a in envelope.addresses]
        good = tuple(r for r, said in zip(envelope.recipients, replies, strict=True) if said.positive)
        if good:
            self.taken.append((replace(envelope, recipients=good), prepend + bytes(content.raw)))
        if self.raises is not None:
            raise self.raises
        return Answers(replies=replies, reports=self.reports)

    def has(self, address: str) -> int:
        return sum(str(a) == address for envelope, _ in self.taken for a in envelope.addresses)


@dataclass
class FakeRenderer:
    raises: Exception | None = None
    nothing: bool = False
    forms: Sequence[bytes] = (b"Subject: Notice\r\n\r\nHello\r\n",)
    asked: list[Intent] = field(default_factory=list)

    async def render(self, intent: Intent) -> Sequence[tuple[Envelope, bytes]]:
        self.asked.append(intent)
        if self.raises is not None:
            raise self.raises
        if self.nothing:
            return ()
        return [(Envelope(reverse_path=None, recipients=intent.recipients), raw) for raw in self.forms]


class Office:
    """A house with a delivery worker, and methods that let time pass."""

    def __init__(self, home: House, **more: Any) -> None:
        self.home, self.clock, self.store = home, home.clock, home.store
        self.relay, self.renderer = FakeRelay(), FakeRenderer()
        self.worker = self.hire(**more)

    def hire(self, owner: str = "one", **more: Any) -> Delivery:
        settings: dict[str, Any] = {
            "owner": owner,
            "trace_key": KEY,
            "hostname": "guard.example.com",
            "agreed": self.home.approvals().still_agreed,
            "jitter": lambda: 0.5,
            "pause": self.pause,
        }
        relay, renderer = more.pop("relay", self.relay), more.pop("renderer", self.renderer)
        return Delivery(
            self.home.given_store,
            relay,
            renderer,
            self.home.watch,
            self.home,
            SteadyClock(self.clock),
            **settings | more,
        )

    def flaky(self) -> Flaky:
        """Another worker's store, whose writing of answers can fail."""
        self.home.given_store = store = Flaky(self.store)
        self.worker = self.hire()
        return store

    async def pause(self, seconds: float) -> None:
        await self.go(seconds=seconds)

    async def go(self, **time: float) -> None:
        self.clock.pass_(**time)
        await self.home.watch.read()

    async def step(self, **time: float) -> int:
        await self.go(**time)
        return await self.worker.step()

    async def until_quiet(self, step: timedelta = timedelta(hours=1), steps: int = 80) -> None:
        for _ in range(steps):
            await self.step(seconds=step.total_seconds())

    async def approved(self, *to: str, **more: Any) -> str:
        """The id of a held message that was approved, with its notices settled."""
        changed, to_list = more.pop("envelope", {}), more.pop("to_list", True)
        transaction = self.home.transaction(*([RAMADAN] if to_list else []), *to, **more)
        transaction = replace(transaction, envelope=replace(transaction.envelope, **changed))
        way = FakePassage()
        await self.home.intake()(transaction, way)
        await self.home.approve(transaction.id)
        await self.tell()
        return transaction.id

    async def tell(self) -> None:
        """Settle all notices so far as sent."""
        for lease in await self.store.outbox.lease("clerk", 100, 60):
            if lease.intent.kind is IntentKind.NOTICE:
                sent = [AttemptResult(recipient=r, event=DeliveryEvent.TAKE) for r in lease.recipients]
                await self.store.outbox.settle(lease, sent, [])
            else:
                await self.store.outbox.settle(lease, [], [])

    async def state(self, hold_id: str) -> State:
        hold = await self.store.holds.find(hold_id)
        assert hold is not None
        return hold.state

    async def journal(self, id: str) -> list[str]:
        """(Kind, outcome, code) of the worker's entries, as text."""
        kinds = {"release", "released", "in-doubt", "notice"}
        return [
            " ".join(filter(None, (kind, data.get("outcome"), data.get("code"))))
            for kind, data in await self.home.events(id)
            if kind in kinds
        ]

    def dsns(self) -> list[Intent]:
        unique = {i.intent_id: i for i in self.renderer.asked if i.kind is IntentKind.DSN}
        return list(unique.values())


class Flaky(PatchedStore):
    """A store whose next settles fail; ``written``: after they were written."""

    def __init__(self, store: Any) -> None:
        super().__init__(store, {"outbox.settle": self.settle})
        self._left, self._written, self.failed = 0, False, 0

    def fail(self, n: int, *, written: bool = False) -> None:
        self._left, self._written = n, written

    async def settle(self, *args: Any) -> bool:
        if self._left:
            self._left -= 1
            self.failed += 1
            if self._written:
                await self._store.outbox.settle(*args)
            raise Unavailable("away")
        return bool(await self._store.outbox.settle(*args))
