"""Laws of the delivery worker, for any outcomes of its attempts: nothing lost, at most one duplicate, each report once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.holds.model import Hold, OnReleaseEnd, State, after, settles_as
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.envelope import Answers, Envelope, Fence, Lost, Recalled, Recipient
from smtpguard.mail.message import Message
from smtpguard.mail.reply import RELAY_LOST, RELAY_UNAVAILABLE
from smtpguard.outbox import delivery
from smtpguard.outbox.attempt import MAX_DOUBTS
from smtpguard.outbox.delivery import Delivery
from smtpguard.outbox.model import NONE_YET, AttemptResult, Intent, IntentKind, Lease, Settled
from tests.clocks import MONDAY, Clock
from tests.guard.house import KEY, House, house
from tests.guard.office import BO, LATER, NO, OK, ULF, FakeRenderer, Office


class FakeStore:
    """The outbox's rules in memory: due by time, leased by token, settled only with the latest token."""

    def __init__(self, clock: Clock, hold: Hold, intent: Intent, content: Message) -> None:
        self.clock, self._hold, self._content = clock, hold, content
        self.states: list[State] = []
        self.over: Settled | None = None
        self.events: list[Event] = []
        self.entries: dict[str, Entry] = {}
        self.outbox = self.holds = self.contents = self
        self.put(intent)

    def put(self, intent: Intent) -> None:
        if intent.intent_id not in self.entries:
            self.entries[intent.intent_id] = Entry(intent, self.clock.now())

    async def lease(self, owner: str, n: int, seconds: int) -> Sequence[Lease]:
        now, found = self.clock.now(), []
        for entry in self.entries.values():
            due = {r: p for r, p in entry.pending.items() if p[0] <= now}
            if due and entry.leased_until <= now:
                entry.token += 1
                entry.attempts += 1
                entry.leased_until = now + timedelta(seconds=seconds)
                found.append(
                    Lease(
                        token=entry.token,
                        intent=entry.intent,
                        recipients=tuple(due),
                        attempts=entry.attempts - 1,
                        created_at=entry.created_at,
                        doubts=tuple(p[1] for p in due.values()),
                    )
                )
        return found

    async def settle(
        self,
        lease: Lease,
        outcomes: Sequence[AttemptResult],
        events: Sequence[Event],
        intents: Sequence[Intent] = (),
        over: OnReleaseEnd | None = None,
    ) -> bool:
        entry = self.entries[lease.intent.intent_id]
        if entry.token != lease.token or not entry.pending:
            return False
        for o in outcomes:
            del entry.pending[o.recipient]
            if o.event is DeliveryEvent.TAKE:
                entry.settled += Settled(sent=1)
            elif o.event is DeliveryEvent.REFUSE:
                entry.settled += Settled(doubted=1) if o.doubts else Settled(failed=1)
            if o.in_doubt or o.event is DeliveryEvent.PUT_OFF:
                assert o.next_at is not None
                entry.pending[o.recipient] = (o.next_at, o.doubts)
        entry.leased_until = self.clock.now()
        self.events += events
        for intent in intents:
            self.put(intent)
        if lease.intent.kind is not IntentKind.RELEASE:
            return True
        if not entry.pending:
            state = after(State.RELEASING, settles_as(entry.settled))
            assert state is not None
            assert over is not None
            self.states.append(state)
            self.over = entry.settled
            self.events += over(replace(self._hold, state=state, settled=entry.settled), lease.intent.intent_id)[0]
        elif any(o.in_doubt for o in outcomes):
            self.states.append(State.RELEASING)
        return True

    async def find(self, hold_id: str) -> Hold | None:
        return self._hold

    async def load(self, sha256: str) -> Message:
        return self._content


@dataclass
class Entry:
    intent: Intent
    created_at: datetime
    token: int = 0
    attempts: int = 0
    pending: dict[Recipient, tuple[datetime, int]] = field(default_factory=dict)
    leased_until: datetime = MONDAY
    settled: Settled = NONE_YET

    def __post_init__(self) -> None:
        self.pending = dict.fromkeys(self.intent.recipients, (self.created_at, 0))


@dataclass
class Attempt:
    """An attempt: how it ends, whether the relay takes the message before a bad end, and each recipient's reply
    code."""

    end: str
    takes: bool
    replies: tuple[int, ...]


class ScriptedRelay:
    def __init__(self, attempts: Iterable[Attempt]) -> None:
        self.attempts = iter(attempts)
        self.taken: dict[str, int] = {}
        self.known: set[str] = set()
        self.marked = False
        """An attempt ended without an answer after its mark."""

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        for a in envelope.addresses:
            assert str(a) not in self.known, "sent again to one that accepted"
        attempt = next(self.attempts, Attempt("replies", True, ()))
        codes = itertools.chain(attempt.replies, itertools.repeat(250))
        replies = [{250: OK, 451: LATER, 550: NO}[code] for code, _ in zip(codes, envelope.recipients, strict=False)]
        if attempt.end == "recalled":
            raise Recalled
        if attempt.end in ("down", "killed-before"):
            raise Lost(RELAY_UNAVAILABLE) if attempt.end == "down" else asyncio.CancelledError
        if not await fence():
            raise Recalled
        self.marked |= attempt.end in ("lost", "killed")
        if attempt.takes or attempt.end == "replies":
            for a, said in zip(envelope.addresses, replies, strict=True):
                if said.positive:
                    self.taken[str(a)] = self.taken.get(str(a), 0) + 1
        if attempt.end == "lost":
            raise Lost(RELAY_LOST, after_dot=True)
        if attempt.end == "killed":
            raise asyncio.CancelledError
        self.known |= {str(a) for a, said in zip(envelope.addresses, replies, strict=True) if said.positive}
        return Answers(replies=replies)


ATTEMPTS = st.builds(
    Attempt,
    end=st.sampled_from(["replies", "replies", "lost", "killed", "killed-before", "down", "recalled"]),
    takes=st.booleans(),
    replies=st.tuples(*[st.sampled_from([250, 451, 550])] * 3),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[House, Hold]:
    """One real hold, made once, and its policy."""

    async def make() -> tuple[House, Hold]:
        async with house(tmp_path_factory.mktemp("house")) as home:
            office = Office(home)
            return home, await office.home.hold(await office.approved(ULF, BO))

    return asyncio.run(make())


class OpenGate:
    def fence(self, what: object, **_: Any) -> Fence:
        async def fence_holds() -> bool:
            return True

        return fence_holds


@pytest.fixture(autouse=True)
def raise_logged_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that the worker would log and retry 120 times fails the test at once."""

    def fail(message: str, *_: object) -> None:
        raise

    monkeypatch.setattr(delivery.log, "exception", fail)


@given(st.lists(ATTEMPTS, max_size=14))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_lost_and_duplicates_are_bounded(made: tuple[House, Hold], attempts: list[Attempt]) -> None:
    home, held = made
    content = Message.of(b"Subject: x\r\nMessage-ID: <1@x>\r\n\r\nHello\r\n")
    intent = Intent(
        intent_id="H-release",
        kind=IntentKind.RELEASE,
        reverse_path=held.envelope.reverse_path,
        recipients=held.envelope.recipients,
        hold_id=held.hold_id,
        content_sha256=content.sha256,
    )
    clock = Clock()
    store = FakeStore(clock, held, intent, content)
    relay, renderer = ScriptedRelay(attempts), FakeRenderer()

    async def pause(seconds: float) -> None:
        clock.pass_(seconds=seconds)

    async def agreed(hold: Hold) -> bool:
        return True

    async def live() -> None:
        for _ in range(120):
            worker = Delivery(
                store,  # type: ignore[arg-type]
                relay,
                renderer,
                OpenGate(),  # type: ignore[arg-type]
                home,
                SteadyClock(clock),
                owner="x",
                trace_key=KEY,
                hostname="guard.example.com",
                agreed=agreed,
                jitter=lambda: 0.5,
                pause=pause,
            )
            for lease in await store.outbox.lease("x", 10, 60):
                if lease.intent.kind is IntentKind.DSN:
                    done = [AttemptResult(recipient=r, event=DeliveryEvent.TAKE) for r in lease.recipients]
                    await store.outbox.settle(lease, done, [])
                    continue
                try:
                    await worker.carry_out(lease)
                except asyncio.CancelledError:
                    pass
            clock.pass_(minutes=31)

    asyncio.run(live())
    assert store.states[:-1] == [State.RELEASING] * (len(store.states) - 1)
    assert store.over is not None
    assert store.over.sent + store.over.failed + store.over.doubted == len(held.envelope.recipients)
    assert store.over.sent == len(relay.known)
    assert relay.marked or not any(event.kind is Kind.IN_DOUBT for event in store.events), "nothing was in doubt"
    assert store.over.failed <= sum(address not in relay.taken for address in map(str, held.envelope.addresses))
    expected = State.RELEASED if relay.known else State.IN_DOUBT if store.over.doubted else State.UNDELIVERED
    assert store.states[-1] is expected
    dsns = [e.intent.data for e in store.entries.values() if e.intent.kind is IntentKind.DSN]
    failed = {r["address"] for d in dsns if d["action"] == "failed" for r in d["recipients"]}
    for address in map(str, held.envelope.addresses):
        taken = relay.taken.get(address, 0)
        assert taken <= (MAX_DOUBTS if relay.marked else 1)
        assert taken or address in failed, "lost"
        assert not (address in relay.known and address in failed), "reported as failed, though the relay has it"
