"""Refresh the indexes of the lists in force on their schedule, and read new lists before mail comes; and ask directories who is
in the groups that they name.

A changed or failed list is journalled in the same commit as the notices about it. A slow source delays no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from smtpguard.accounts.membership import ANSWER_COUNTS, Membership, People, fault_of, sign_on_is_over, source_of
from smtpguard.accounts.model import Account, AccountChange, AccountKeys, role_change
from smtpguard.app.clock import SystemClock
from smtpguard.app.lists import built_expander, built_refresher, built_registry, open_registry
from smtpguard.app.policies import Following
from smtpguard.app.services import opened
from smtpguard.config.settings import Settings
from smtpguard.database.errors import Outage, PolicyUnreadable, StoreError
from smtpguard.database.migrate import NotSetUp
from smtpguard.guard.inforce import InForce
from smtpguard.journal.clock import Clock
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.digest import Digester
from smtpguard.lists.expanding import Expander
from smtpguard.lists.members import LdapMembers
from smtpguard.lists.sources import SourceError, Tally, cell_address, log_unexpected, why_implausible
from smtpguard.lists.sources.opening import opened as open_source
from smtpguard.lists.sync import Refresher, Report
from smtpguard.mail.address import BadAddress
from smtpguard.notices.listnotices import list_events, list_notices
from smtpguard.policy.freezing import ITSELF
from smtpguard.policy.parse import Policy
from smtpguard.store.store import Store
from smtpguard.store.writer import Committed

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""The pause between two looks for lists that are due."""
GROUPS_SECONDS = 5.0
"""The pause between two looks for groups that are due."""
FIRST_SECONDS = 20.0
"""The longest that a start waits for lists without an index, and approvals for the first answer of a directory."""
AT_ONCE = 4
"""The most lists that are read at the same time."""
MAY_HANG = 64
"""The most threads for sources, which may hang, of each kind."""
HANGS_SECONDS = 2 * 3600.0
"""The time after which a source counts as hanging: twice the timeout of a remote source. Reading a file may hang for ever."""
SOON = timedelta(minutes=1)
"""The time after which a directory that did not answer is asked again, unless the policy says less."""

Read = Callable[[LdapMembers], People]
"""Asks a directory for the people of a group. Raises SourceError."""


class ListRefresh:
    """Refreshes the lists of the policy in force on their schedule."""

    def __init__(self, settings: Settings, policies: Following, digester: Digester, store: Store, clock: Clock) -> None:
        self._settings, self._policies, self._digester = settings, policies, digester
        self._store, self._clock = store, clock
        self._both: tuple[Refresher | Expander, ...] = ()
        self._under = ""
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._few = asyncio.Semaphore(AT_ONCE)
        self._threads = ThreadPoolExecutor(MAY_HANG, "list sources")  # apart from the threads that everything else uses
        self._unrecorded: list[Report] = []
        self._outage = Outage(log, "news of lists: waiting for the store", clock.monotonic)
        self._unsynced = Outage(log, "a list cannot be synced", clock.monotonic, logging.ERROR)
        self._stopping = threading.Event()

    async def run(self) -> None:
        try:
            while True:
                await self._record()
                self._begin()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._stopping.set()  # a source that waits gives up; a half-read one is not used

    async def step(self) -> None:
        """Sync all lists that are due, and wait for them."""
        self._begin()
        await asyncio.gather(*self._reading.values())
        await self._record()

    def _begin(self) -> None:
        try:
            policy = self._policies.policy
        except PolicyUnreadable:  # logged elsewhere
            return
        if policy.sha256 != self._under:
            stop = self._stopping.is_set
            registry = built_registry(self._settings, policy, self._digester, self._clock)
            lists = built_refresher(self._settings, policy, self._digester, stop=stop)
            self._both = lists, built_expander(self._settings, policy, registry, stop=stop)
            self._under = policy.sha256
        for refresher in self._both:
            for info in refresher.due(self._clock.now()):
                if info.name not in self._reading:
                    self._reading[info.name] = asyncio.create_task(self._read(info, refresher))

    async def _read(self, info: ListInfo, refresher: Refresher | Expander) -> None:
        try:
            async with self._few:
                began = self._clock.now()
                thread = asyncio.get_running_loop().run_in_executor(self._threads, refresher.sync, info, began)
                await asyncio.wait({thread}, timeout=HANGS_SECONDS)
            while not thread.done():  # it hangs: others go on, and people are told
                if isinstance(refresher, Refresher):
                    report = await asyncio.to_thread(refresher.unfinished, info, began, self._clock.now())
                    if report.news:
                        self._unrecorded.append(report)
                await asyncio.wait({thread}, timeout=HANGS_SECONDS)
            report = await thread
            if report.news:
                self._unrecorded.append(report)
        except Exception as error:  # an internal error must not stop the other lists
            self._unsynced.report(f"{info.name}: {error!r}", trace=True)
        finally:
            del self._reading[info.name]

    async def _record(self) -> None:
        """Journal the reports, with notices. If the store does not answer they are kept and tried again: a change is found only
        once."""
        while self._unrecorded and not self._stopping.is_set():
            report = self._unrecorded[0]
            told = tuple(list_notices(report, self._policies.current()))
            try:
                await self._store.journal.record(list(list_events(report)), told)
            except StoreError as e:
                self._outage.report(e)
                return
            self._outage.end()
            self._unrecorded.remove(report)


async def read_new_lists(
    settings: Settings, policy: Policy, *, by: str, seconds: float = FIRST_SECONDS, committed: Committed | None = None
) -> None:
    """Read the lists that have no index yet, before mail comes that would be held without them. Returns after at most
    ``seconds``; the rest is read while mail comes. ``committed`` gets the journalled events. Raises CannotStart and StoreError."""
    registry, clock = open_registry(settings, policy), SystemClock()
    unread = [registry.lists[name] for name, status in registry.statuses.items() if status.index is None]
    if not any(info.members for info in unread):
        return
    stop, loop, done = threading.Event(), asyncio.get_running_loop(), asyncio.Event()
    refresher = built_refresher(settings, policy, registry.digester, stop=stop.is_set)
    reports: list[Report] = []

    def read() -> None:
        try:
            for info in unread:
                if info.members and not stop.is_set():
                    reports.append(refresher.sync(info, clock.now()))
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=read, name="smtpguard-lists", daemon=True).start()  # a source may hang: not waited for
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except TimeoutError:
        pass
    finally:
        stop.set()
    await record_reports(settings, policy, tuple(r for r in reports if r.news), by=by, committed=committed)


async def record_reports(
    settings: Settings, policy: Policy, reports: Sequence[Report], *, by: str, committed: Committed | None = None
) -> bool:
    """Journal reports on lists, with notices. Returns False if there is no journal yet, since the guard has never served here.
    Raises CannotStart and StoreError."""
    try:
        async with opened(settings, committed=committed) as (store, digester):
            in_force = InForce.of(policy, built_registry(settings, policy, digester, SystemClock()))
            await store.journal.record(
                [event for report in reports for event in list_events(report, by)],
                tuple(intent for report in reports for intent in list_notices(report, in_force)),
            )
    except NotSetUp:
        return False
    return True


def directory_reader(base: Path, delimiters: str) -> Read:
    """Return what asks a directory. ``base``: the folder that paths of the policy are relative to."""

    def read(model: LdapMembers) -> People:
        source, tally = open_source(model, base), Tally()
        found: dict[int, dict[str, None]] = {}
        try:
            for number, text in source.cells(tally):
                try:
                    found.setdefault(number, {})[cell_address(text).canonical(delimiters)] = None
                except BadAddress as error:
                    tally.reject(number, str(error))
        finally:
            source.close()
        people = tuple(tuple(addresses) for addresses in found.values())
        if wrong := why_implausible(source.label, len(people), tally, model):
            raise SourceError(wrong[0])
        if why := fault_of(people, model.at_least):
            raise SourceError(f"{source.label}: {why}")
        return people

    return read


class Memberships:
    """Asks directories who is in the groups that the policy lets them name, on their schedule. An unusable answer, or no answer,
    changes nothing for a day (accounts.membership). A directory that hangs keeps no other waiting."""

    def __init__(self, policies: Following, store: Store, clock: Clock, read: Read) -> None:
        self._policies, self._store, self._clock, self._read = policies, store, clock, read
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._known: Mapping[str, str] = {}
        self._threads = ThreadPoolExecutor(MAY_HANG, "directories")  # as those of list sources; an end waits for none
        self._outage = Outage(log, "members of groups: waiting for the store", clock.monotonic)

    async def step(self) -> None:
        """Ask all directories that are due, and wait for them."""
        await self.begin()
        await asyncio.gather(*self._asking.values())

    async def settle(self) -> None:
        """After a start, and after a change of the declared directories, wait for those that are due: until they answer, approvals
        of their members would lapse. Raises StoreError."""
        wanted = (await self._policies.follow()).sources_of_groups()
        if wanted == self._known:
            return
        await self.begin()
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=FIRST_SECONDS)
        self._known = wanted

    async def begin(self) -> None:
        """Begin to ask the directories that are due, and drop what no longer counts. Raises StoreError."""
        try:
            policy = self._policies.policy
        except PolicyUnreadable:  # logged elsewhere
            return
        await self._end_sign_ons()
        directories = policy.directories
        known = {one.group: one for one in await self._store.people.memberships()}
        for gone in known.keys() - directories.keys():  # else it would count, however old, where the group comes back
            await self._store.people.drop_membership(gone, policy.sha256)
        now = self._clock.now()
        for group, model in directories.items():
            source = source_of(model.model_dump(by_alias=True, exclude_none=True))
            before = known.get(group)
            if before is None or before.source != source:
                before = Membership(group=group, source=source)
            if before.people and before.read_at is not None and now - before.read_at >= ANSWER_COUNTS:
                before = replace(before.failed(before.why or "no answer for a day", now), tried_at=before.tried_at)
                await self._store.people.put_membership(before, before.read_at)
                log.error(
                    "group %s: its directory has not answered for a day: members that only it names no longer count",
                    group,
                )
            every = timedelta(seconds=model.refresh)
            wait = min(every, SOON) if before.why else every
            if group not in self._asking and (before.tried_at is None or now - before.tried_at >= wait):
                self._asking[group] = asyncio.create_task(self._ask(before, model))

    async def _end_sign_ons(self) -> None:
        """Remove what a sign-on gave somebody once it no longer counts: their roles, which their tokens have, and their groups.
        The gate moves with the groups, so that no process counts them any longer."""
        now = self._clock.now()

        def step(found: Sequence[Account]) -> AccountChange:
            account = next((one for one in found if sign_on_is_over(one, now)), None)
            if account is None:
                return AccountChange()
            lost = (role_change(account, "roles", (), ITSELF, now),) if account.roles else ()
            return AccountChange(account=replace(account, roles=(), claims=()), events=lost, ends_all=True)

        for account in await self._store.people.everybody():
            if sign_on_is_over(account, now):
                await self._store.people.turn(AccountKeys(account_id=account.account_id), step)

    async def _ask(self, before: Membership, model: LdapMembers) -> None:
        try:
            people = await asyncio.get_running_loop().run_in_executor(self._threads, self._read, model)
            made = before.read(people, self._clock.now())
        except SourceError as error:
            made = before.failed(str(error), self._clock.now())
        except Exception as error:  # an internal error must not stop the other groups
            made = before.failed(log_unexpected(f"group {before.group}", error), self._clock.now())
        try:
            await self._store.people.put_membership(made, before.read_at)
        except StoreError as error:
            self._outage.report(error)
        else:
            self._outage.end()
            if made.why and made.why != before.why:
                log.warning("group %s: %s; its last members count for a day", made.group, made.why)
            elif before.why and not made.why:
                log.warning("group %s: its directory answers again", made.group)
        finally:
            del self._asking[before.group]
