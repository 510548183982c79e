"""The alarms part: check every alarm condition every few seconds, and tell people.

It does not depend on the parts that handle mail, nor they on it. It opens the store when that is possible, asks the
relay itself whether it answers, and goes on while either is away. Its process serves the metrics too, if both run.
``smtpguard status`` looks in the same way (app.status).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smtpguard.admission.model import ADMISSION_SECONDS
from smtpguard.app.alarmchannels import AlarmChannels, FileMemory
from smtpguard.app.certificates import ends_by_file
from smtpguard.app.clock import SystemClock
from smtpguard.app.files import CannotStart, make_state, no_room, no_spool, unwritable
from smtpguard.app.policies import Following
from smtpguard.app.relay import Relays, last_answers, targets
from smtpguard.app.services import opened
from smtpguard.app.start import failing_starts
from smtpguard.config.settings import Settings
from smtpguard.database.engine import ahead_of_server, clock_problem
from smtpguard.database.errors import Outage, StoreError, Unavailable, reason
from smtpguard.journal.bypass import Bypasses
from smtpguard.journal.clock import Clock
from smtpguard.lists.registry import Registry
from smtpguard.locale.phrase import Said, dump, load
from smtpguard.notices.notice import choose_language
from smtpguard.observe import figures
from smtpguard.observe.alarms import MINUTES, SLOW_SECONDS, Seen
from smtpguard.observe.rounds import Rounds, Shared
from smtpguard.observe.rows import Alarmed
from smtpguard.policy.freezing import PUT_BACK, Gate, Selector
from smtpguard.policy.parse import Organization
from smtpguard.processes.numbers import PUT_OFF, ProcessNumbers
from smtpguard.processes.part import Part
from smtpguard.processes.statusfile import Tree, trees
from smtpguard.store.store import Store
from smtpguard.wire.handshake import open_connection
from smtpguard.wire.relay import RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""The pause between two looks, and between two rounds of alarms."""
STORE_SECONDS = 15.0
"""The timeout of a look at the store."""
WRITE_SECONDS = 30.0
"""The pause between two attempts to write to the store, while they succeed."""
RELAY_SECONDS = 30.0
"""The pause between two sessions with a relay."""
RELAY_PATIENCE = Timeouts(connect=10, greeting=60, command=30, quit=5)
LOCK = "alarms.running"
"""The file in the state folder that the process which sends alarms locks."""
CERTIFICATES_SECONDS = 60.0
"""The pause between two readings of the certificates."""
NOT_WRITTEN = "it answers, but did not take an entry; the log says more"
_SLOW_BUCKETS = range(bisect_left(ADMISSION_SECONDS, SLOW_SECONDS) + 1, len(ADMISSION_SECONDS) + 1)


async def relay_problem(target: RelayTarget) -> str:
    """Open a session as for mail, and end it. Returns why the relay cannot be used; "" if it answers."""
    try:
        connection = await open_connection(target)
    except RelayUnavailable as e:
        return e.why
    except OSError as e:  # a file of its TLS
        return str(e)
    closed = asyncio.Event()
    connection.on_lost = lambda _: closed.set()
    connection.quit()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2 * target.timeouts.quit):
            await closed.wait()
    return ""


def probe_targets(settings: Settings) -> Mapping[str, RelayTarget]:
    """Return the targets of all relays by route, with the timeouts of a check."""
    return {name: replace(target, timeouts=RELAY_PATIENCE) for name, target in targets(settings).items()}


def join_problems(problems: Mapping[str, str]) -> str:
    """Join the problems of relays, by route, into one text; "" if all answer."""
    return "; ".join(f"route {name}: {why}" if name else why for name, why in problems.items() if why)


@dataclass(slots=True)
class Observer:
    """A look at an open store and its policy. It is made anew each time that the store is opened."""

    settings: Settings
    store: Store
    policies: Following
    clock: Clock
    _has_frozen: bool = False
    """A freeze of everything because of a rollback has been seen."""

    async def look(self) -> Seen:
        """Return what store and policy say, without the policy's part if this version cannot read it. Raises StoreError."""
        async with asyncio.timeout(STORE_SECONDS):
            gate = await self.store.gate.read()
            hooks = await self.store.ask(figures.hooks_behind)
            now = self.clock.now()
            calls = await self.store.ask(lambda c: figures.called(c, now))
            active = {f.freeze_id for f in gate.freezes}
            trips = await self.store.ask(lambda c: figures.tripped(c, active, now))
        names = {hook.known_as for hook in self.settings.webhooks}
        seen = Seen(
            at=now,
            store=no_room(self.settings)
            or unwritable(self.settings)
            or clock_problem(await self.store.ask(ahead_of_server)),
            frozen=tuple(f for f in gate.freezes if f.selector is Selector.ALL),
            put_back=self._put_back(gate),
            stopped=trips,
            behind={name: figures.seconds_since(behind.since, now) for name, behind in hooks.items() if name in names},
            refusing=figures.refusing(hooks, self.settings.audit.receivers, now),
        )
        async with asyncio.timeout(STORE_SECONDS):
            policy = await self.policies.look()
        if policy is not None:
            unreadable, differs = policy.unreadable, str(policy.file) if policy.file.differs else ""
            seen = replace(seen, unreadable=unreadable, differs=differs)
        try:
            await self.policies.follow()
        except Unavailable:  # none, or one that this version cannot read
            return seen
        in_force = self.policies.current()
        language = choose_language("", in_force.organization.languages)
        seen = replace(seen, called=calls, purposes=in_force.rules.purposes(language))
        return replace(
            seen, enforced=self.policies.policy.enforce, stale=await asyncio.to_thread(_stale, in_force.registry)
        )

    def _put_back(self, gate: Gate) -> str:
        """Return why the store seemed rolled back when it was opened, "" if it did not. It is reported until a freeze of
        everything for that reason has been seen and thawed."""
        is_frozen = any(f.reason == PUT_BACK for f in gate.freezes)
        self._has_frozen = self._has_frozen or is_frozen
        reported = self.store.put_back is not None and (is_frozen or not self._has_frozen)
        return str(self.store.put_back) if reported else ""


def _stale(registry: Registry) -> tuple[str, ...]:
    registry.reopen()
    return tuple(sorted(name for name, status in registry.statuses.items() if status.stale))


def store_problem(found: Said | None, running: Iterable[Tree]) -> Said | None:
    """Return why the store cannot be used: as ``found`` by this process, or else by the processes that take mail. "" if it
    can be used, None if this process has not tried and no other found a problem."""
    return found or next((load(tree.row["store"]) for tree in running if tree.alive and tree.row.get("store")), found)


def clock_ahead(running: Iterable[Tree]) -> int | None:
    """Return by how many seconds the clock jumped forward, while it is not believed, else 0. None if no process tree lives."""
    return max((tree.row.get("clock_ahead", 0) for tree in running if tree.alive), default=None)


def absent_parts(running: Iterable[Tree]) -> tuple[str, ...]:
    """Return the parts that are ready in no living tree. The parts of a killed tree are expected too, those of a stopping one not."""
    known, ready = set[str](), set[str]()
    for tree in running:
        if tree.row.get("stopping"):
            continue
        for process in tree.parts:
            known.add(process["part"])
            if tree.alive and process["ready"]:
                ready.add(process["part"])
    return tuple(sorted(known - ready))


class Answers:
    """The answers to messages in the last ``MINUTES``, counted from counters that may restart."""

    def __init__(self) -> None:
        self._grown: deque[tuple[float, Sequence[int]]] = deque()
        self._last: Sequence[int] | None = None

    def add(self, at: float, counts: Mapping[str, int]) -> None:
        away = counts.get(PUT_OFF, 0)
        answered = sum(n for name, n in counts.items() if name.startswith("answered "))
        slow = sum(counts.get(f"admission {n}", 0) for n in _SLOW_BUCKETS)
        now = answered + away, counts.get("answered deferred", 0) + away, slow
        if self._last is not None and now[0] >= self._last[0] and now != self._last:
            self._grown.append((at, [max(0, n - last) for n, last in zip(now, self._last, strict=True)]))
        self._last = now
        while self._grown and self._grown[0][0] < at - 60 * MINUTES:
            self._grown.popleft()

    @property
    def recent(self) -> tuple[int, int, int]:
        """How many messages were answered, how many of them 4xx, and how many slowly. The first two include messages turned
        away without a verdict."""
        answered, deferred, slow = map(sum, zip((0, 0, 0), *(grown for _, grown in self._grown), strict=True))
        return answered, deferred, slow


class Alarms(Part):
    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        super().__init__()
        self._settings = settings
        self._clock = clock or SystemClock()
        self.metrics: Part | None = None
        """The metrics part, if this process runs it too."""
        self._targets = probe_targets(settings)
        self._relays: dict[str, str] = {}  # the problem of each relay that was asked
        self._seen: Seen | None = None  # of the store, at the last look
        self._problem: Said | None = None  # why the store cannot be used
        self._wrote = float("-inf")  # when that was last possible
        self._organization: Organization | None = None
        self._certificates = (0.0, ends_by_file(settings))
        self._answers = Answers()
        self._tree: Mapping[str, Any] | None = None  # the state of this process's tree, as its supervisor told it
        self._shared = Shared()
        self._outage = Outage(log, "alarms: looking at the store", self._clock.monotonic)

    async def start(self) -> None:
        make_state(self._settings)
        self._pools = Relays(self._settings, self.places)
        self._undo.push_async_callback(self._pools.close)
        if self.metrics is not None:
            self._undo.push_async_callback(self.metrics.close)
            await self.metrics.start()
        ways = AlarmChannels(self._settings, lambda: self._organization)
        self._undo.push_async_callback(ways.sender.close)
        self._rounds = Rounds(shared=self._shared, own=FileMemory(self._settings.state), tell=ways.send)

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for name in self._targets:
                tasks.create_task(self._look_at_relay(name))
            if self.metrics is not None:
                tasks.create_task(self.metrics.serve())
            while not self._lock():  # noqa: ASYNC110 - nobody tells when the other one has ended
                await asyncio.sleep(LOOK_SECONDS)
            tasks.create_task(self._look_at_store())
            untold = Outage(log, "what is wrong could not be told, tried again", self._clock.monotonic)
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    await self._rounds.round(self.seen())
                except Exception as error:  # whatever it is, the next round may reach somebody
                    untold.report(error, trace=True)
                else:
                    untold.end()

    def _lock(self) -> bool:
        """Return whether this process is the one that looks for all trees over the state folder."""
        try:
            lock = os.open(self._settings.state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # better two alarms than none
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._undo.callback(os.close, lock)
        return True

    def said(self) -> ProcessNumbers:
        return ProcessNumbers(found=last_answers(self._targets), store=dump(self._problem or ""))

    def told(self, numbers: Mapping[str, Any]) -> None:
        self._tree = numbers["tree"]
        if self.metrics is not None:
            self.metrics.told(numbers)

    async def stop(self, grace_seconds: float) -> None:
        """The next process sends alarms that are not sent yet."""
        if self.metrics is not None:
            await self.metrics.stop(grace_seconds)

    def seen(self) -> Seen:
        """Return all that is known now. Failed starts are over (``starts`` is "") only once a start has lasted."""
        now, passed = self._clock.now(), self._clock.monotonic()
        if passed - self._certificates[0] > CERTIFICATES_SECONDS:
            self._certificates = passed, ends_by_file(self._settings)
        known = self._seen or Seen(at=now)
        running = list(trees(self._settings.state, self._tree))
        counts = (Counter(tree.row.get("counts", {})) for tree in running if tree.alive)
        self._answers.add(passed, sum(counts, Counter[str]()))
        answered, deferred, slow = self._answers.recent
        bypass = Bypasses(self._settings.state).in_force(now)
        return replace(
            known,
            at=now,
            store=store_problem(self._problem, running),
            relay=join_problems(self._relays) if self._relays else None,
            certificates=self._certificates[1],
            answered=answered,
            deferred=deferred,
            slow=slow,
            absent=absent_parts(running),
            starts=None if failing_starts(self._settings.state, now) else "",
            spool=no_spool(self._settings),
            bypass=() if bypass is None else (bypass,),
            clock_ahead=clock_ahead(running),
        )

    async def _look_at_relay(self, route: str) -> None:
        """Check a relay for ever. A check uses one of the connections that all processes share, so the relay never sees more
        than its limit."""
        pool = self._pools.pools[route]
        while True:
            try:
                place = await pool.place("")
            except RelayUnavailable:  # all are in use: their holders find out whether it answers
                pass
            else:
                try:
                    self._relays[route] = await relay_problem(self._targets[route])
                finally:
                    pool.freed(place)
            await asyncio.sleep(RELAY_SECONDS)

    async def _look_at_store(self) -> None:
        while True:
            try:
                async with opened(self._settings) as (store, digester):
                    self._shared.memory = Alarmed(store)
                    policies = Following(store, self._settings, digester, self._clock)
                    looking = Observer(self._settings, store, policies, self._clock)
                    while True:
                        await self._look_once(looking)
                        await asyncio.sleep(LOOK_SECONDS)
            except (StoreError, CannotStart) as e:
                self._away(reason(e))
            finally:
                self._shared.memory = None
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_once(self, looking: Observer) -> None:
        try:
            self._seen = await looking.look()
        except (StoreError, TimeoutError) as e:
            self._away(reason(e) or "it does not answer in time")
        except Exception as error:
            self._outage.report(error, trace=True)
        else:
            self._problem = self._seen.store or await self._write_problem(looking.store)
            if self._problem:
                self._outage.report(self._problem)
            else:
                self._outage.end()
            with contextlib.suppress(StoreError):
                self._organization = looking.policies.policy.organization

    async def _write_problem(self, store: Store) -> Said:
        """Return why the store cannot be written, "" if it can. It is tried every ``WRITE_SECONDS``, and at each look while
        there is a problem."""
        now = self._clock.monotonic()
        if self._problem or now - self._wrote >= WRITE_SECONDS:
            try:
                await store.try_write()
            except StoreError as e:
                return reason(e)
            self._wrote = now
        return ""

    def _away(self, why: Said) -> None:
        """Note that the store cannot be used, and forget what it said."""
        self._problem, self._seen = why, None
        self._outage.report(why)
