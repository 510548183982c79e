"""Find out the status of the whole installation, for ``smtpguard status``."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from smtpguard import __version__
from smtpguard.app.alarmchannels import FileMemory
from smtpguard.app.alarms import (
    NOT_WRITTEN,
    RELAY_SECONDS,
    Observer,
    absent_parts,
    clock_ahead,
    join_problems,
    probe_targets,
    relay_problem,
    store_problem,
)
from smtpguard.app.certificates import ends_by_file
from smtpguard.app.clock import SystemClock
from smtpguard.app.files import CannotStart, no_spool
from smtpguard.app.policies import Following, Look
from smtpguard.app.services import never_served, opened
from smtpguard.app.start import failing_starts, has_alarms_part
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.counts.backfill import known_since
from smtpguard.database.errors import StoreError, reason
from smtpguard.database.migrate import NotSetUp, SchemaError
from smtpguard.database.schema import checkpoint
from smtpguard.freezes.service import thaw_asked
from smtpguard.guard.ports import PolicyInForce
from smtpguard.journal.bypass import Bypass, Bypasses
from smtpguard.journal.chain import instant
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.signing import newest_checkpoint
from smtpguard.observe import figures
from smtpguard.observe.alarms import BY_NAME, Alarm, Found, Seen, raised
from smtpguard.observe.rows import Alarmed
from smtpguard.outbox.asking import SETTLED_WITHIN
from smtpguard.processes.statusfile import Tree, hidden, trees
from smtpguard.store.store import Store
from smtpguard.wire.target import RelayTarget

STORE_SECONDS = 20.0
"""The timeout of all that is read in the store."""
_OF_LATE = {"answered": "the", "some": "many", "minutes": "10"}  # "Of the messages ... many were"
_ONLY_REMEMBERED = {
    "deferring": _OF_LATE,
    "slow": _OF_LATE,
    "store-away": {"said": NOT_WRITTEN},
    "relay-away": {"said": "it does not answer the running guard; after a change of its password, restart the guard"},
}
"""The words of alarms that one look cannot see: of shares of mail in some minutes, of failed writes, and of the relay by the
settings that the guard runs with."""


@dataclass(slots=True, kw_only=True)
class Status:
    """What was found out. None or empty means not found out: ``unknown`` has a sentence for each."""

    at: datetime
    version: str = __version__
    trees: list[Tree] = field(default_factory=list)
    hidden: str = ""
    """Why this user cannot look at the process trees, "" if they can."""
    alarms: list[tuple[Alarm, datetime | None]] = field(default_factory=list)
    quiet: frozenset[str] = frozenset()
    """The names of alarms that the settings suppress: they are shown, and do not count as critical."""
    policy: dict[str, Any] | None = None
    waiting: figures.Waiting | None = None
    thaws_asked: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    """Who has asked to lift a freeze, and when, by freeze, where two must agree."""
    quota: int = 0
    """The octets of held content above which mail that would be held is answered 452."""
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
    """Return the status of the whole installation, as far as it can be found out. Each question has its own timeout, so that
    one without an answer delays no other. Nothing is written. An error of a part, the store or the relay is not raised."""
    quiet = frozenset(settings.alarms.quiet)
    found = Status(at=datetime.now(UTC), trees=list(trees(settings.state)), quiet=quiet, quota=settings.hold.quota)
    found.hidden = hidden(settings.state)
    found.bypass = Bypasses(settings.state).in_force(found.at)
    in_store, relay = await asyncio.gather(_store(settings, found), _relay(settings, found))
    failed = failing_starts(settings.state, found.at) if not found.serves else None
    serves = os.access(settings.state, os.W_OK)  # another user need not be able to read keys
    usable = {file: at for file, at in ends_by_file(settings).items() if at is not None or serves}
    seen = replace(
        in_store,
        at=found.at,
        absent=absent_parts(tree for tree in found.trees if not tree.silent),
        store=store_problem(in_store.store, found.trees),
        starts=failed.why if failed is not None else "",
        spool=no_spool(settings) if os.access(settings.state, os.F_OK) or found.hidden else "",
        certificates=usable,
        relay=relay,
        bypass=() if found.bypass is None else (found.bypass,),
        clock_ahead=clock_ahead(found.trees),
    )
    if found.store is not None:
        found.store["problem"] = found.store["problem"] or seen.store or None
    known = {**(found.store or {}).pop("alarms", {}), **await FileMemory(settings.state).known()}
    now = {alarm.key: alarm for alarm in raised(seen)}
    kept = _ONLY_REMEMBERED if has_alarms_part(found.trees) else {}  # nobody else ends them
    for key, past in known.items():
        if key not in now and past.told is not None and past.name in kept:
            now[key] = Alarm(condition=BY_NAME[past.name], found=Found(words=kept[past.name]))
    found.alarms = [(alarm, known[key].began if key in known else None) for key, alarm in now.items()]
    return found


async def _relay(settings: Settings, found: Status) -> str | None:
    try:
        asked = {name: replace(target, reachability=None) for name, target in probe_targets(settings).items()}
    except (Broken, CannotStart, OSError) as e:
        found.unknown.append(f"whether the relay answers: {e}")
        return None
    answers = await asyncio.gather(*map(_answer_in_time, asked.values()))
    rows = [
        {"name": f"{target.host} port {target.port}", "answers": not said, "problem": said or None}
        for target, said in zip(asked.values(), answers, strict=True)
    ]
    found.relay = rows[0]
    found.routes = [{"route": name, **row} for name, row in zip(asked, rows, strict=True) if name]
    return join_problems(dict(zip(asked, answers, strict=True)))


async def _answer_in_time(target: RelayTarget) -> str:
    """Return the problem of a relay, "" if there is none. It is one if the relay does not answer in time."""
    try:
        async with asyncio.timeout(RELAY_SECONDS):
            return await relay_problem(target)
    except TimeoutError:
        return "no answer in time"


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
        async with asyncio.timeout(STORE_SECONDS), opened(settings, reads=True) as (store, digester):
            policies = Following(store, settings, digester, SystemClock())
            seen = await Observer(settings, store, policies, SystemClock()).look()
            found.store |= {"answers": not seen.store, "problem": seen.store or None}
            found.store |= {"put_back": seen.put_back or None, "alarms": await Alarmed(store).known()}
            found.store["fronts_aside"] = [str(file) for file in store.journal.fronts_aside()]
            found.waiting = await store.ask(lambda c: figures.look(c, found.at, settled_within=SETTLED_WITHIN))
            for one in found.waiting.freezes if settings.freeze.thaw == "two" else ():
                if (asked := await thaw_asked(store, one.freeze_id, found.at)) is not None:
                    found.thaws_asked[one.freeze_id] = asked
            found.checkpoint = _checkpoint_row(await store.ask(newest_checkpoint))
            for key in settings.audit.receivers:
                at = found.waiting.hooks.get(f"({key})")
                told = partial(newest_checkpoint, among=checkpoint.c.seq <= at.told) if at is not None else None
                taken = None if told is None else await store.ask(told)
                row = _checkpoint_row(taken) or {"at": None, "entry": None}
                found.receivers.append({"receiver": key, **row, "failing_since": at and at.failing_since})
            found.contacts_since = await known_since(store)
            found.policy = _policy(await policies.look(), policies)
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
        found.store["problem"] = f"no answer within {STORE_SECONDS:g} s"
    except OSError as e:
        found.store["problem"] = f"{e.filename or 'the store'}: {e.strerror or e}"
    except (CannotStart, StoreError, Broken) as e:
        found.store["problem"] = reason(e)
    return Seen(at=found.at, store=found.store["problem"])


def _policy(look: Look | None, policies: Following) -> dict[str, Any] | None:
    if look is None:
        return None
    put = look.current.put
    try:
        enforced: bool | None = policies.policy.enforce
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
    """Return a row for each group whose members a directory names. None if the policy in force is not known."""
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
