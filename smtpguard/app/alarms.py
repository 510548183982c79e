"""The alarms part: check every alarm condition every few seconds, and tell people.

It does not depend on the parts that handle mail, nor they on it. It opens the store when that is possible, asks the
relay itself whether it answers, and goes on while either is away. ``smtpguard status`` shows the same findings. Its
process serves the metrics too, if both run.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from smtpguard.app import policyfile
from smtpguard.app.alarmchannels import AlarmChannels, FileMemory
from smtpguard.app.certificates import ends
from smtpguard.app.clock import SystemClock
from smtpguard.app.files import CannotStart, make_state, no_room
from smtpguard.app.policies import Following
from smtpguard.app.relay import Relays, found, targets
from smtpguard.app.services import opened
from smtpguard.config.settings import Settings
from smtpguard.database.errors import StoreError, Unavailable
from smtpguard.guard.ports import Clock
from smtpguard.journal.bypass import Bypass, Bypasses
from smtpguard.lists.registry import Registry
from smtpguard.notices.notice import choose_language
from smtpguard.observe import figures as store_watching
from smtpguard.observe.alarms import Seen
from smtpguard.observe.rounds import Rounds, Shared
from smtpguard.observe.rows import Alarmed
from smtpguard.policy.freezing import PUT_BACK, Gate, Selector
from smtpguard.policy.parse import Organization
from smtpguard.processes.numbers import PUT_OFF, Said
from smtpguard.processes.part import Part
from smtpguard.processes.statusfile import Tree, trees
from smtpguard.store.store import Store
from smtpguard.wire.handshake import open_connection
from smtpguard.wire.relay import RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
STORE_SECONDS = 15.0
"""Timeout of a look at the store."""
WRITE_SECONDS = RELAY_SECONDS = 30.0
RELAY_PATIENCE = Timeouts(connect=10, greeting=60, command=30, quit=5)
LOCK = "alarms.running"
CERTIFICATES_SECONDS = 600.0
MINUTES = 10
ALWAYS = frozenset({"proxy", "milter", "delivery"})
"""Parts that must have a ready process if a process tree has them."""


async def relay_says(target: RelayTarget) -> str:
    """Why the relay cannot be used; "" if it answers. One session is opened as for mail, and ended."""
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


def probed(settings: Settings) -> Mapping[str, RelayTarget]:
    """All relays, by the name of their route."""
    return {name: replace(target, timeouts=RELAY_PATIENCE) for name, target in targets(settings).items()}


def in_words(said: Mapping[str, str]) -> str:
    """The problems of all relays in one text; "" if all answer. ``said``: the problem of each, by route (``relay_says``)."""
    return "; ".join(f"route {name}: {why}" if name else why for name, why in said.items() if why)


@dataclass(slots=True)
class Observer:
    """Looks at an open store. Made anew each time that it is opened."""

    settings: Settings
    store: Store
    policies: Following
    clock: Clock
    _froze: bool = False
    _file: policyfile.Following | None = None

    async def look(self) -> Seen:
        """What store and policy say. Raises StoreError. Nothing is known of a policy that cannot be read here."""
        async with asyncio.timeout(STORE_SECONDS):
            gate = await self.store.gate.read()
            hooks = await self.store.ask(store_watching.hooks_behind)
            now = self.clock.now()
            calls = await self.store.ask(lambda c: store_watching.called(c, now))
            active = {f.freeze_id for f in gate.freezes if f.until is None or now < f.until}
            trips = await self.store.ask(lambda c: store_watching.tripped(c, active, now))
        names = {hook.known_as for hook in self.settings.webhooks}
        seen = Seen(
            at=now,
            store=no_room(self.settings),
            frozen=tuple(f for f in gate.freezes if f.selector is Selector.ALL and f.freeze_id in active),
            put_back=self._put_back(gate),
            stopped=trips,
            behind={
                name: store_watching.seconds_since(behind.since, now) for name, behind in hooks.items() if name in names
            },
            refusing=store_watching.refusing(hooks, self.settings.audit.receivers, now),
        )
        policy = await self.look_at_policy()
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

    async def look_at_policy(self) -> policyfile.Look | None:
        """Read again only if something has changed."""
        self._file = self._file or policyfile.Following(self.settings, self.store)
        async with asyncio.timeout(STORE_SECONDS):
            return await self._file.look()

    def _put_back(self, gate: Gate) -> str:
        """Why the store seems rolled back, as found at opening. It is reported until a freeze of everything for that
        reason has come and been thawed."""
        stands = any(f.reason == PUT_BACK for f in gate.freezes)
        self._froze = self._froze or stands
        return str(self.store.put_back) if self.store.put_back is not None and (stands or not self._froze) else ""


def _stale(registry: Registry) -> tuple[str, ...]:
    registry.reopen()
    return tuple(sorted(name for name, status in registry.statuses.items() if status.stale))


def bypass_in_force(settings: Settings, now: datetime) -> tuple[Bypass, ...]:
    """That of this host."""
    found = Bypasses(settings.state).in_force(now)
    return () if found is None else (found,)


def absent(running: Iterable[Tree]) -> tuple[str, ...]:
    """Parts that a tree of this state folder has, killed ones included, and of which no process is ready anywhere."""
    known, ready = set[str](), set[str]()
    for tree in running:
        if tree.row.get("stopping"):
            continue
        for process in tree.parts:
            known.add(process["part"])
            if tree.alive and process["ready"]:
                ready.add(process["part"])
    return tuple(sorted((known & ALWAYS) - ready))


class Answers:
    """The number of messages answered in the last minutes, and how many of them 4xx, from counters that may restart.
    Messages turned away without a verdict are in both."""

    def __init__(self, minutes: int = MINUTES) -> None:
        self._seconds = minutes * 60.0
        self._grown: deque[tuple[float, int, int]] = deque()
        self._last: tuple[int, int] | None = None

    def add(self, at: float, counts: Mapping[str, int]) -> None:
        away = counts.get(PUT_OFF, 0)
        answered = sum(n for name, n in counts.items() if name.startswith("answered "))
        now = answered + away, counts.get("answered deferred", 0) + away
        if self._last is not None and (grown := now[0] - self._last[0]) > 0:
            self._grown.append((at, grown, max(0, now[1] - self._last[1])))
        self._last = now
        while self._grown and self._grown[0][0] < at - self._seconds:
            self._grown.popleft()

    @property
    def of_late(self) -> tuple[int, int]:
        return sum(n for _, n, _ in self._grown), sum(n for _, _, n in self._grown)


class Alarms(Part):
    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        super().__init__()
        self._settings = settings
        self._clock = clock or SystemClock()
        self.metrics: Part | None = None
        """The metrics part, if this process runs it too."""
        self._targets = probed(settings)
        self._relays: dict[str, str] = {}  # the problem of each relay that was asked
        self._seen: Seen | None = None  # of the store, at the last look
        self._problem: str | None = None  # why the store cannot be used
        self._wrote = float("-inf")  # when that was last possible
        self._organization: Organization | None = None
        self._certificates = (0.0, ends(settings))
        self._answers = Answers()
        self._shared = Shared()

    async def start(self) -> None:
        from smtpguard.app.delivery import signer

        make_state(self._settings)
        self._pools = Relays(self._settings, self.places)
        self._undo.push_async_callback(self._pools.close)
        if self.metrics is not None:
            self._undo.push_async_callback(self.metrics.close)
            await self.metrics.start()
        try:
            sign = signer(self._settings)
        except CannotStart as e:
            log.error("alarms are not signed: %s", e)
            sign = None
        ways = AlarmChannels(self._settings, lambda: self._organization, sign)
        self._undo.push_async_callback(ways.sender.close)
        self._rounds = Rounds(shared=self._shared, own=FileMemory(self._settings.state), tell=ways.tell)

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for name in self._targets:
                tasks.create_task(self._look_at_relay(name))
            if self.metrics is not None:
                tasks.create_task(self.metrics.serve())
            while not self._alone():  # noqa: ASYNC110 - nobody tells when the other one has ended
                await asyncio.sleep(LOOK_SECONDS)
            tasks.create_task(self._look_at_store())
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    await self._rounds.round(self.seen())
                except Exception:  # whatever it is, the next round may reach somebody
                    log.exception("alarms")

    def _alone(self) -> bool:
        """Of several trees over one state folder one looks, and covers all of them."""
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

    def said(self) -> Said:
        return Said(found=found(self._targets))

    def told(self, numbers: Mapping[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.told(numbers)

    async def stop(self, grace_seconds: float) -> None:
        """The next process sends alarms that are not sent yet."""
        if self.metrics is not None:
            await self.metrics.stop(grace_seconds)

    def seen(self) -> Seen:
        """All that is known now."""
        now, passed = self._clock.now(), self._clock.monotonic()
        if passed - self._certificates[0] > CERTIFICATES_SECONDS:
            self._certificates = passed, ends(self._settings)
        known = self._seen or Seen(at=now)
        running = list(trees(self._settings.state))
        counts = Counter[str]()
        for tree in running:
            if tree.alive:
                counts.update(tree.row.get("counts", {}))
        self._answers.add(passed, counts)
        answered, deferred = self._answers.of_late
        return replace(
            known,
            at=now,
            store=self._problem,
            relay=in_words(self._relays) if self._relays else None,
            certificates=self._certificates[1],
            answered=answered,
            deferred=deferred,
            minutes=MINUTES,
            absent=absent(running),
            starts="",
            bypass=bypass_in_force(self._settings, now),
        )

    async def _look_at_relay(self, route: str) -> None:
        """Uses one of the connections that all processes share, so that the relay never sees more connections than the
        limit."""
        pool = self._pools.pools[route]
        while True:
            try:
                place = await pool.place("")
            except RelayUnavailable:  # all are in use: their holders find out whether it answers
                pass
            else:
                try:
                    self._relays[route] = await relay_says(self._targets[route])
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
                        await self._once(looking)
                        await asyncio.sleep(LOOK_SECONDS)
            except (StoreError, CannotStart) as e:
                self._away(str(e) or type(e).__name__)
            finally:
                self._shared.memory = None
            await asyncio.sleep(LOOK_SECONDS)

    async def _once(self, looking: Observer) -> None:
        try:
            self._seen = await looking.look()
        except (StoreError, TimeoutError) as e:
            self._away(str(e) or "it does not answer in time")
        except Exception:
            log.exception("alarms: reading the store")
        else:
            self._problem = self._seen.store or await self._unwritable(looking.store)
            with contextlib.suppress(StoreError):
                self._organization = looking.policies.policy.organization

    async def _unwritable(self, store: Store) -> str:
        """Why it can be read and not written; "" if it can. Found out every half minute, and at each look while it lasts."""
        now = self._clock.monotonic()
        if self._problem or now - self._wrote >= WRITE_SECONDS:
            try:
                await store.try_write()
            except StoreError as e:
                return str(e) or type(e).__name__
            self._wrote = now
        return ""

    def _away(self, why: str) -> None:
        """Earlier findings no longer count."""
        self._problem, self._seen = why, None
