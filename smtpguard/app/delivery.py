"""The delivery part: empty the outbox, refresh the list indexes, end holds at their deadlines, apply retention, and
pass journal entries to webhooks and the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial

from smtpguard.accounts.model import AccountKeys
from smtpguard.app.certificates import RENEWAL_SECONDS, Renewals, authorities
from smtpguard.app.clock import SystemClock, every, host_name, ids, slices, steady
from smtpguard.app.eventlog import SCAN, AuditFollower, EventLog
from smtpguard.app.files import CannotStart, folder_id, installation_secret, make_state, webhook_secret
from smtpguard.app.listrefresh import GROUPS_SECONDS, ListRefresh, Memberships, directory_reader
from smtpguard.app.mentions import Feeds
from smtpguard.app.policies import Following
from smtpguard.app.relay import Relays
from smtpguard.app.services import deadlines, notice_head, notices, opened, signer
from smtpguard.config.fields import read_secret
from smtpguard.config.settings import Settings
from smtpguard.config.web import Webhook
from smtpguard.database.errors import PolicyUnreadable, StoreError
from smtpguard.freezes.service import Freezes
from smtpguard.guard.ports import PolicyInForce
from smtpguard.holds.replying import Tokens
from smtpguard.holds.service import Approvals
from smtpguard.journal.clock import Clock
from smtpguard.locale.phrase import dump
from smtpguard.mail.address import Address, BadAddress
from smtpguard.notices.daily import Daily, checkpoint_mail, observed_reports
from smtpguard.notices.links import Links
from smtpguard.notices.notice import NoticeTemplates
from smtpguard.notices.render import Renderer
from smtpguard.observe.webhooks import Dispatcher, Hook, Sender, Topic
from smtpguard.observe.witnessing import SLICE, Sending, Syslog, Timestamping, Witnessing
from smtpguard.outbox.asking import report_doubts
from smtpguard.outbox.delivery import Delivery
from smtpguard.processes.numbers import CLOCK_AHEAD, ProcessNumbers
from smtpguard.processes.part import Part
from smtpguard.processes.statusfile import runs
from smtpguard.store.nouns import People
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store
from smtpguard.wire.deliveries import Deliveries

log = logging.getLogger(__name__)

SWEEP_SECONDS = 20.0
FOLLOW_SECONDS = 5.0
ENACT_SECONDS = 1.0
RETAIN_SECONDS = 60.0
DOUBT_SECONDS = 60.0
INDEX_SECONDS = 2.0
AUDIT_SECONDS = 1.0
WITNESS_SECONDS = 5.0
LAST_LINES_SECONDS = 5.0
MOVE_SECONDS = 0.08
"""The pause between two moves of fronts: a commit costs much the same for one verdict and for fifty, and syncs the disk that the
fronts are on."""


class Deliverer(Part):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._clock = steady(SystemClock())
        self._delivering: asyncio.Task[None] | None = None
        self._renewals = Renewals()

    async def start(self) -> None:
        settings, clock = self._settings, self._clock
        make_state(settings)
        secret = installation_secret(settings)
        self._store, self._digester = await self._undo.enter_async_context(opened(settings, committed=EventLog()))
        self._policies = policies = Following(self._store, settings, self._digester, clock)
        self._watch = await policies.watch()
        self._relays = relays = Relays(settings, self.places)
        self._undo.push_async_callback(relays.close)
        relays.watch(self._renewals, {})
        templates = _templates(settings, policies)
        try:
            templates()
        except BadAddress as e:
            raise CannotStart(f"notices: from: not the mailbox of a sender: {e}") from None
        name, owner = settings.hostname or host_name(), worker(settings)
        self._teller = teller(settings, self._store, self._policies, clock)
        self._audit_log = AuditFollower(self._store, clock)
        self._witnesses = list(witnesses(settings, self._store, clock, name))
        for each in self._witnesses:
            self._undo.push_async_callback(each.close)
        self._freshness = ListRefresh(settings, self._policies, self._digester, self._store, clock)
        read = directory_reader(settings.policy.parent, settings.delimiters)
        self._memberships = Memberships(self._policies, self._store, clock, read)
        self._freezes = Freezes(self._store, clock, new_id=ids(), thaw_hook=settings.thaw_hook)
        self._feeds = Feeds(settings, self._store.returns.mention, clock)
        self._reports = Daily(self._store, self._policies, clock, observed_reports)
        auditor = settings.audit.mail
        self._checkpoints = (
            Daily(self._store, self._policies, clock, partial(checkpoint_mail, auditor)) if auditor else None
        )
        self._approvals = Approvals(
            self._store, self._policies, clock, term=deadlines(settings), notices=notices(settings)
        )  # fmt: skip
        ways = {pool: Deliveries(pool) for pool in relays.pools.values()}
        self._delivery = Delivery(
            self._store,
            ways[relays.pools[""]],
            Renderer(
                store=self._store,
                in_force=self._policies.current,
                templates=templates,
                clock=clock,
                reporting_mta=name,
                sign=signer(settings),
                links=Links(secret) if settings.console_url else None,
                answers=(Address.parse(settings.hold.reply_at), Tokens(secret)) if settings.hold.reply_at else None,
                chosen=_language_of(self._store.people),
            ),
            self._watch,
            self._policies,
            clock,
            owner=owner,
            trace_key=secret,
            hostname=name,
            agreed=self._approvals.still_agreed,
            route=lambda listener, address: ways[relays.to(listener, address, policies.list_at)],
        )

        await self._store.outbox.abandon(partial(has_ended, ours=owner))

    async def serve(self) -> None:
        """Run all tasks, and never return. If a task fails the part ends, and is started again."""
        logged: dict[str, float] = {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run())
            self._delivering = tasks.create_task(self._delivery.run())
            tasks.create_task(self._freshness.run())
            tasks.create_task(every(AUDIT_SECONDS, "audit log", self._audit_log.follow, logged, full=SCAN))
            for witness in self._witnesses:
                tasks.create_task(every(WITNESS_SECONDS, witness.what, witness.give, logged, full=SLICE))
            if self._teller is not None:
                tasks.create_task(self._teller.run())
            if self._store.file:
                tasks.create_task(self._move_fronts())
            for seconds, what, work in self._regularly():
                tasks.create_task(every(seconds, what, work, logged))

    def _regularly(self) -> Iterator[tuple[float, str, Callable[[], Awaitable[object]]]]:
        approvals, journal = self._approvals, self._store.journal
        yield SWEEP_SECONDS, "holds", approvals.sweep
        yield ENACT_SECONDS, "approvals", self._enact
        yield FOLLOW_SECONDS, "held copies", approvals.follow
        yield FOLLOW_SECONDS, "what is in doubt", approvals.ask
        yield FOLLOW_SECONDS, "freezes", self._freezes.lift_ended
        yield SWEEP_SECONDS, "the outbox", self._store.outbox.hasten
        yield FOLLOW_SECONDS, "fronts of the journal", partial(journal.take_fronts, only_ended=True)
        yield SWEEP_SECONDS, "the daily report", self._reports.write
        if self._settings.mentions.feeds:
            yield self._settings.mentions.every, "mentions", self._feeds.read
        if self._checkpoints is not None:
            yield SWEEP_SECONDS, "the daily checkpoint", self._checkpoints.write
        yield RETAIN_SECONDS, "retention", self._retain
        yield INDEX_SECONDS, "words and sums of messages", partial(slices, journal.index)
        yield GROUPS_SECONDS, "groups", self._memberships.begin
        yield RENEWAL_SECONDS, "certificates", self._renewals.look
        yield DOUBT_SECONDS, "doubts", partial(report_doubts, self._store, self._clock)

    def said(self) -> ProcessNumbers:
        said = self._relays.said()
        ahead = int(self._clock.ahead.total_seconds()) if self._clock.jumped else 0
        counts, levels = {**said.counts, **self._renewals.counts}, {**said.levels, CLOCK_AHEAD: ahead}
        return replace(said, counts=counts, levels=levels, store=dump(self._store.fails))

    async def stop(self, grace_seconds: float) -> None:
        self._delivery.stop()
        if self._delivering is not None:
            await asyncio.wait({self._delivering}, timeout=grace_seconds)
        with contextlib.suppress(StoreError, TimeoutError):  # if the store is restored then, only the log has it
            async with asyncio.timeout(LAST_LINES_SECONDS):
                await self._audit_log.follow()

    async def _move_fronts(self) -> None:
        """Move the fronts of processes with clients into the chain. They try it themselves if the store is away."""
        while True:
            try:
                await self._store.journal.move_fronts()
            except StoreError:
                await asyncio.sleep(FOLLOW_SECONDS)
            await asyncio.sleep(MOVE_SECONDS)

    async def _enact(self) -> None:
        await self._memberships.settle()
        await self._approvals.enact()

    async def _retain(self) -> None:
        if self._clock.jumped:  # to correct the clock would not restore what was erased
            return
        wanted = Retention.of(self._settings.retention.model_dump())
        bounds = await self._store.agree(wanted, socket.gethostname())

        async def retain_slice() -> bool:
            return not self._clock.jumped and (await self._store.retain(bounds)).more

        await slices(retain_slice, 0.1)


def _templates(settings: Settings, policies: Following) -> Callable[[], NoticeTemplates]:
    """Return what gives the templates of notices for the policy in force. If that policy cannot be read, they are made from the
    settings alone."""
    made = lru_cache(maxsize=1)(NoticeTemplates)

    def templates() -> NoticeTemplates:
        try:
            organization = policies.policy.organization
        except PolicyUnreadable:
            organization = None
        return made(notice_head(settings, organization))

    return templates


def worker(settings: Settings) -> str:
    """Return the name of this process as the owner of leases: host, id of the state folder, process id."""
    return f"{socket.gethostname()} {folder_id(settings)} {os.getpid()}"


def has_ended(owner: str, *, ours: str) -> bool:
    """Return whether the worker that began an attempt has surely ended: a process of this host and state folder that is gone, or
    had our id. Of any other, also of one that an earlier version named without its folder, only the time of its lease tells."""
    if owner == ours:
        return True
    (place, _, pid), (here, _, _) = owner.rpartition(" "), ours.rpartition(" ")
    return place == here and pid.isdecimal() and not runs(int(pid))


def _language_of(people: People) -> Callable[[str], Awaitable[str]]:
    """Return what finds the language of a person's account. If the store does not answer it is "", the default: the notice goes
    out all the same."""

    async def chosen(address: str) -> str:
        try:
            account = await people.account(AccountKeys(address=address))
        except StoreError:
            return ""
        return account.language if account is not None else ""

    return chosen


def witnesses(settings: Settings, store: Store, clock: Clock, name: str) -> Iterator[Sending]:
    """Yield what sends checkpoints out of this host, which is called ``name``. Raises Broken and CannotStart."""
    audit = settings.audit
    url, token_file = (audit.witness.url, audit.witness.token_file) if audit.witness is not None else ("", None)
    token = read_secret(token_file) if token_file is not None else ""
    yield Witnessing(store, clock, url, token=token)
    if audit.syslog is not None:
        yield Syslog(store, clock, audit.syslog, name)
    if audit.timestamps is not None and audit.timestamps.url:
        roots, every = authorities(audit.timestamps.ca_file), audit.timestamps.every
        yield Timestamping(store, clock, audit.timestamps.url, roots, settings.state, every_seconds=every)


def teller(settings: Settings, store: Store, policies: PolicyInForce, clock: Clock) -> Dispatcher | None:
    """Return what calls the webhooks of the settings, None if there are none. The policy says which lists may be named to each.
    Raises CannotStart if a secret cannot be used."""
    if not settings.webhooks:
        return None
    hooks = [_hook(wanted, policies, settings.console_url) for wanted in settings.webhooks]
    return Dispatcher(hooks, store, Sender(), clock)


def _hook(wanted: Webhook, policies: PolicyInForce, url: str) -> Hook:
    def nameable(name: str) -> bool:
        """Return whether a list may be named. One that is no longer in the policy may not: its sensitivity is unknown."""
        if wanted.special:
            return True
        info = policies.current().registry.lists.get(name)
        return info is not None and not info.special

    return Hook(
        name=wanted.known_as,
        url=wanted.url,
        secret=webhook_secret(wanted.secret_file),
        topics=frozenset(map(Topic, wanted.events)),
        form=wanted.format,
        persons=wanted.personal,
        nameable=nameable,
        console=url,
    )
