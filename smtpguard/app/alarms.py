"""The alarms part: check every alarm condition every few seconds, and tell people.

It does not depend on the parts that handle mail, nor they on it. It opens the store when that is possible, asks the
relay itself whether it answers, and goes on while either is away. Its process serves the metrics too, if both run.
``smtpguard status`` shows the same findings and more, from the same look (``status``).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from smtpguard import __version__
from smtpguard.admission.model import ADMISSION_SECONDS
from smtpguard.app.alarmchannels import AlarmChannels, FileMemory
from smtpguard.app.certificates import ends
from smtpguard.app.clock import SystemClock
from smtpguard.app.files import CannotStart, make_state, no_room, no_spool, unwritable
from smtpguard.app.policies import Following, FollowingFile, Look
from smtpguard.app.relay import Relays, found, targets
from smtpguard.app.services import never_served, opened
from smtpguard.app.start import failing, watched
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.counts.backfill import known_since
from smtpguard.database.engine import clock_problem
from smtpguard.database.errors import Outage, StoreError, Unavailable
from smtpguard.database.migrate import NotSetUp, SchemaError
from smtpguard.database.schema import checkpoint
from smtpguard.guard.ports import PolicyInForce
from smtpguard.journal.bypass import Bypass, Bypasses
from smtpguard.journal.chain import instant
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.clock import Clock
from smtpguard.journal.signing import newest_checkpoint
from smtpguard.lists.registry import Registry
from smtpguard.notices.notice import choose_language
from smtpguard.observe import figures
from smtpguard.observe.alarms import BY_NAME, SLOW_SECONDS, Alarm, Found, RaisedAlarm, Seen, raised
from smtpguard.observe.rounds import Rounds, Shared
from smtpguard.observe.rows import Alarmed
from smtpguard.outbox.asking import SETTLED_WITHIN
from smtpguard.policy.freezing import PUT_BACK, Gate, Selector
from smtpguard.policy.parse import Organization
from smtpguard.processes.numbers import PUT_OFF, STORE_FAILS, Said
from smtpguard.processes.part import Part
from smtpguard.processes.statusfile import Tree, hidden, trees
from smtpguard.store.store import Store
from smtpguard.wire.handshake import open_connection
from smtpguard.wire.relay import RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
STORE_SECONDS = 15.0
"""Timeout of a look at the store."""
STATUS_STORE_SECONDS = 20.0
"""Timeout of all that ``status`` reads there."""
WRITE_SECONDS = RELAY_SECONDS = 30.0
RELAY_PATIENCE = Timeouts(connect=10, greeting=60, command=30, quit=5)
LOCK = "alarms.running"
CERTIFICATES_SECONDS = 60.0
MINUTES = 10


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
    _file: FollowingFile | None = None

    async def look(self) -> Seen:
        """What store and policy say. Raises StoreError. Nothing is known of a policy that cannot be read here."""
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
            store=no_room(self.settings) or unwritable(self.settings) or await self.store.ask(clock_problem),
            frozen=tuple(f for f in gate.freezes if f.selector is Selector.ALL),
            put_back=self._put_back(gate),
            stopped=trips,
            behind={name: figures.seconds_since(behind.since, now) for name, behind in hooks.items() if name in names},
            refusing=figures.refusing(hooks, self.settings.audit.receivers, now),
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

    async def look_at_policy(self) -> Look | None:
        """Read again only if something has changed."""
        self._file = self._file or FollowingFile(self.settings, self.store)
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
    found = Bypasses(settings.state).in_force(now)
    return () if found is None else (found,)


def store_problem(found: str | None, running: Iterable[Tree]) -> str | None:
    """Why the store cannot be used: ``found`` by this process, or else by the processes that take mail. "" if it can be
    used, None if this process has not tried and no other found a problem."""
    if not found and any(tree.alive and tree.row.get("store_fails") for tree in running):
        return _UNWRITTEN
    return found


def clock_ahead(running: Iterable[Tree]) -> int | None:
    """None if none of them lives."""
    return max((tree.row.get("clock_ahead", 0) for tree in running if tree.alive), default=None)


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
    return tuple(sorted(known - ready))


_SLOWLY = range(bisect_left(ADMISSION_SECONDS, SLOW_SECONDS) + 1, len(ADMISSION_SECONDS) + 1)


class Answers:
    """The number of messages answered in the last minutes, how many of them 4xx, and how many slowly, from counters that may
    restart. Messages turned away without a verdict are in the first two."""

    def __init__(self) -> None:
        self._grown: deque[tuple[float, Sequence[int]]] = deque()
        self._last: Sequence[int] | None = None

    def add(self, at: float, counts: Mapping[str, int]) -> None:
        away = counts.get(PUT_OFF, 0)
        answered = sum(n for name, n in counts.items() if name.startswith("answered "))
        slow = sum(counts.get(f"admission {n}", 0) for n in _SLOWLY)
        now = answered + away, counts.get("answered deferred", 0) + away, slow
        if self._last is not None and now[0] >= self._last[0] and now != self._last:
            self._grown.append((at, [max(0, n - last) for n, last in zip(now, self._last, strict=True)]))
        self._last = now
        while self._grown and self._grown[0][0] < at - 60 * MINUTES:
            self._grown.popleft()

    @property
    def of_late(self) -> tuple[int, int, int]:
        answered, deferred, slow = map(sum, zip((0, 0, 0), *(grown for _, grown in self._grown), strict=True))
        return answered, deferred, slow


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
        self._tree: Mapping[str, Any] | None = None  # the state of this process's tree, as its supervisor told it
        self._shared = Shared()
        self._outage = Outage(log, "alarms: looking at the store", self._clock.monotonic)

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
            untold = Outage(log, "what is wrong could not be told, tried again", self._clock.monotonic)
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    await self._rounds.round(self.seen())
                except Exception as error:  # whatever it is, the next round may reach somebody
                    untold.report(error, trace=True)
                else:
                    untold.end()

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
        return Said(levels={STORE_FAILS: int(bool(self._problem))}, found=found(self._targets))

    def told(self, numbers: Mapping[str, Any]) -> None:
        self._tree = numbers["tree"]
        if self.metrics is not None:
            self.metrics.told(numbers)

    async def stop(self, grace_seconds: float) -> None:
        """The next process sends alarms that are not sent yet."""
        if self.metrics is not None:
            await self.metrics.stop(grace_seconds)

    def seen(self) -> Seen:
        """All that is known now. A start that has not lasted yet is no end of those that failed."""
        now, passed = self._clock.now(), self._clock.monotonic()
        if passed - self._certificates[0] > CERTIFICATES_SECONDS:
            self._certificates = passed, ends(self._settings)
        known = self._seen or Seen(at=now)
        running = list(trees(self._settings.state, self._tree))
        counts = (Counter(tree.row.get("counts", {})) for tree in running if tree.alive)
        self._answers.add(passed, sum(counts, Counter[str]()))
        answered, deferred, slow = self._answers.of_late
        return replace(
            known,
            at=now,
            store=store_problem(self._problem, running),
            relay=in_words(self._relays) if self._relays else None,
            certificates=self._certificates[1],
            answered=answered,
            deferred=deferred,
            slow=slow,
            minutes=MINUTES,
            absent=absent(running),
            starts=None if failing(self._settings.state, now) else "",
            spool=no_spool(self._settings),
            bypass=bypass_in_force(self._settings, now),
            clock_ahead=clock_ahead(running),
        )

    async def _look_at_relay(self, route: str) -> None:
        """Uses one of the connections that all processes share: the relay never sees more than the limit."""
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
                self._away(str(e))
            finally:
                self._shared.memory = None
            await asyncio.sleep(LOOK_SECONDS)

    async def _once(self, looking: Observer) -> None:
        try:
            self._seen = await looking.look()
        except (StoreError, TimeoutError) as e:
            self._away(str(e) or "it does not answer in time")
        except Exception as error:
            self._outage.report(error, trace=True)
        else:
            self._problem = self._seen.store or await self._unwritable(looking.store)
            if self._problem:
                self._outage.report(self._problem)
            else:
                self._outage.end()
            with contextlib.suppress(StoreError):
                self._organization = looking.policies.policy.organization

    async def _unwritable(self, store: Store) -> str:
        """Why it can be read and not written; "" if it can. Found out every half minute, and at each look while it lasts."""
        now = self._clock.monotonic()
        if self._problem or now - self._wrote >= WRITE_SECONDS:
            try:
                await store.try_write()
            except StoreError as e:
                return str(e)
            self._wrote = now
        return ""

    def _away(self, why: str) -> None:
        """Earlier findings no longer count."""
        self._problem, self._seen = why, None
        self._outage.report(why)


@dataclass(slots=True, kw_only=True)
class Status:
    """The findings. None or empty means not found out: ``unknown`` has a sentence for each."""

    at: datetime
    version: str = __version__
    trees: list[Tree] = field(default_factory=list)
    hidden: str = ""
    """Why this user cannot look at the trees."""
    alarms: list[tuple[Alarm, datetime | None]] = field(default_factory=list)
    quiet: frozenset[str] = frozenset()
    """Names of alarms that the settings suppress: they are shown, and count for nothing."""
    policy: dict[str, Any] | None = None
    waiting: figures.Waiting | None = None
    quota: int = 0
    """Octets of held content, above which what would be held is answered 452."""
    relay: dict[str, Any] | None = None
    routes: list[dict[str, Any]] = field(default_factory=list)
    store: dict[str, Any] | None = None
    lists: list[dict[str, Any]] | None = None
    groups: list[dict[str, Any]] | None = None
    contacts_since: datetime | None = None
    checkpoint: dict[str, Any] | None = None
    receivers: list[dict[str, Any]] = field(default_factory=list)
    bypass: Bypass | None = None
    other_version: bool = False
    """The store has the schema of another version, which may be the one that serves."""
    new: bool = False
    """Nothing has ever served here."""
    unknown: list[str] = field(default_factory=list)

    @property
    def serves(self) -> bool:
        return any(tree.serves for tree in self.trees)

    @property
    def fine(self) -> bool:
        """The guard serves, no alarm is critical, and this version can read the store."""
        return self.serves and not self.critical and not self.other_version

    @property
    def critical(self) -> int:
        names = (alarm.condition.name for alarm, _ in self.alarms if alarm.condition.severity.value == "critical")
        return sum(name not in self.quiet for name in names)


async def status(settings: Settings) -> Status:
    """The status of the whole installation, as far as it can be found out, and what could not. Each question has its own
    timeout, so that one without an answer delays no other. Nothing is written. Never raises for an error of a part, the
    store or the relay."""
    quiet = frozenset(settings.alarms.quiet)
    found = Status(at=datetime.now(UTC), trees=list(trees(settings.state)), quiet=quiet, quota=settings.hold.quota)
    found.hidden = hidden(settings.state)
    found.bypass = Bypasses(settings.state).in_force(found.at)
    in_store, relay = await asyncio.gather(_store(settings, found), _relay(settings, found))
    failed = failing(settings.state, found.at) if not found.serves else None
    serves = os.access(settings.state, os.W_OK)  # another user need not be able to read keys
    usable = {file: at for file, at in ends(settings).items() if at is not None or serves}
    seen = replace(
        in_store,
        at=found.at,
        absent=absent(tree for tree in found.trees if not tree.silent),
        store=store_problem(in_store.store, found.trees),
        starts=failed.why if failed is not None else "",
        spool=no_spool(settings) if os.access(settings.state, os.F_OK) or found.hidden else "",
        certificates=usable,
        relay=relay,
        bypass=bypass_in_force(settings, found.at),
        clock_ahead=clock_ahead(found.trees),
    )
    known = {**(found.store or {}).pop("alarms", {}), **await _remembered(settings, found)}
    now = {alarm.key: alarm for alarm in raised(seen)}
    slow = _SLOW if watched(found.trees) else {}  # nobody else ends them
    for key, past in known.items():  # alarms that need minutes to be seen, such as shares of mail
        if key not in now and past.told is not None and past.name in slow:
            now[key] = Alarm(condition=BY_NAME[past.name], found=Found(words=_SLOW[past.name]))
    found.alarms = [(alarm, known[key].began if key in known else None) for key, alarm in now.items()]
    return found


_UNWRITTEN = "it answers, but did not take an entry; the log says more"
_OF_LATE = {"answered": "the", "some": "many", "minutes": "10"}  # "Of the messages ... many were"
_SLOW = {  # status reads the store alone, and does not try to write; it asks the relay by the settings as they are now
    "deferring": _OF_LATE,
    "slow": _OF_LATE,
    "store-away": {"said": _UNWRITTEN},
    "relay-away": {"said": "it does not answer the running guard; after a change of its password, restart the guard"},
}


async def _remembered(settings: Settings, found: Status) -> Mapping[str, RaisedAlarm]:
    try:
        return await FileMemory(settings.state).known()
    except OSError as e:
        found.unknown.append(f"the alarms that were sent: {e}")
        return {}


async def _relay(settings: Settings, found: Status) -> str | None:
    try:
        asked = {name: replace(target, reachability=None) for name, target in probed(settings).items()}
    except (Broken, CannotStart, OSError) as e:
        found.unknown.append(f"whether the relay answers: {e}")
        return None
    answers = await asyncio.gather(
        *(_within(RELAY_SECONDS, relay_says(target), "no answer in time") for target in asked.values())
    )
    rows = [
        {"name": f"{target.host} port {target.port}", "answers": not said, "problem": said or None}
        for target, said in zip(asked.values(), answers, strict=True)
    ]
    found.relay = rows[0]
    found.routes = [{"route": name, **row} for name, row in zip(asked, rows, strict=True) if name]
    return in_words(dict(zip(asked, answers, strict=True)))


async def _within(seconds: float, answer: Awaitable[str], otherwise: str) -> str:
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        return otherwise


async def _store(settings: Settings, found: Status) -> Seen:
    from smtpguard.app.storestatus import unreadable

    if (away := unreadable(settings)) is not None:
        found.unknown.append(away.text)
        return Seen(at=found.at)
    engine = settings.store.url.partition(":")[0].partition("+")[0]
    found.store = {"url": settings.store.url, "engine": engine, "answers": False, "problem": None, "put_back": None}
    try:
        if not found.trees and never_served(settings):
            found.new, found.store["problem"] = True, "smtpguard serve makes it"
            return Seen(at=found.at)
        async with asyncio.timeout(STATUS_STORE_SECONDS), opened(settings, reads=True) as (store, digester):
            policies = Following(store, settings, digester, SystemClock())
            looking = Observer(settings, store, policies, SystemClock())
            seen = await looking.look()
            found.store |= {"answers": not seen.store, "problem": seen.store or None}
            found.store |= {"put_back": seen.put_back or None, "alarms": await Alarmed(store).known()}
            found.store["fronts_aside"] = [str(file) for file in store.journal.fronts_aside()]
            found.waiting = await store.ask(lambda c: figures.look(c, found.at, settled_within=SETTLED_WITHIN))
            found.checkpoint = _checkpoint_row(await store.ask(newest_checkpoint))
            for key in settings.audit.receivers:
                at = found.waiting.hooks.get(f"({key})")
                told = partial(newest_checkpoint, among=checkpoint.c.seq <= at.told) if at is not None else None
                taken = None if told is None else await store.ask(told)
                row = _checkpoint_row(taken) or {"at": None, "entry": None}
                found.receivers.append({"receiver": key, **row, "failing_since": at and at.failing_since})
            found.contacts_since = await known_since(store)
            found.policy = await _policy(looking)
            found.lists = _lists(policies)
            found.groups = await directories(policies, store)
            return seen
    except NotSetUp as e:
        found.store["problem"] = str(e)
        if not found.trees:
            found.new = True
            return Seen(at=found.at)
    except SchemaError as e:  # this command cannot read it; the version that serves may
        found.other_version, found.store["problem"] = True, str(e)
        return Seen(at=found.at)
    except TimeoutError:  # an OSError, too
        found.store["problem"] = f"no answer within {STATUS_STORE_SECONDS:g} s"
    except OSError as e:
        found.store["problem"] = f"{e.filename or 'the store'}: {e.strerror or e}"
    except (CannotStart, StoreError, Broken) as e:
        found.store["problem"] = str(e)
    return Seen(at=found.at, store=found.store["problem"])


async def _policy(looking: Observer) -> dict[str, Any] | None:
    look = await looking.look_at_policy()
    if look is None:
        return None
    put = look.current.put
    try:
        enforced: bool | None = looking.policies.policy.enforce
    except StoreError:
        enforced = None
    return {
        "sha256": look.current.sha256,
        "since": put.at if put is not None else None,
        "by": (put.by or None) if put is not None else None,
        "how": (put.how or None) if put is not None else None,
        "enforced": enforced,
        "unreadable": look.unreadable or None,
        "file": look.file.state,
        "file_says": str(look.file),
    }


def _lists(policies: Following) -> list[dict[str, Any]] | None:
    try:
        registry = policies.current().registry
    except StoreError:
        return None
    return [
        {
            "list": name,
            "people": status.people,
            "checked_at": status.checked_at,
            "state": status.state.value,
            "stale": status.stale,
        }
        for name, status in registry.statuses.items()
    ]


async def directories(policies: PolicyInForce, store: Store) -> list[dict[str, Any]] | None:
    """The groups whose members a directory names."""
    try:
        sources = policies.current().sources_of_groups()
    except StoreError:
        return None
    known = {one.group: one for one in await store.people.memberships() if sources.get(one.group) == one.source}
    return [
        {
            "group": name,
            "people": len(known[name].people) if name in known else 0,
            "read_at": known[name].read_at if name in known else None,
            "problem": known[name].why or None if name in known else None,
        }
        for name in sorted(sources)
    ]


def _checkpoint_row(newest: Checkpoint | None) -> dict[str, Any] | None:
    return None if newest is None else {"at": instant(newest.at), "entry": newest.seq}
