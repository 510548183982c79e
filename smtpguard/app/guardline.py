"""Build the guard of one process from store, policy, reader and verifier; and the part around it that takes mail, for the proxy
and the milter alike."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from smtpguard.admission.bypass import BypassPath
from smtpguard.admission.dispose import Dispose
from smtpguard.admission.intake import Intake, OwnMail
from smtpguard.admission.mailvote import ReturnedMail, VotesByMail
from smtpguard.admission.preapproval import Preapproval
from smtpguard.app.clock import SystemClock, host_name, ids, steady
from smtpguard.app.eventlog import EventLog
from smtpguard.app.explaining import gathering
from smtpguard.app.files import installation_secret, make_state
from smtpguard.app.policies import Following
from smtpguard.app.services import deadlines, freezes_of, notices, opened, second_factor_for
from smtpguard.config.settings import Settings
from smtpguard.database.batch import read_head
from smtpguard.database.errors import Outage
from smtpguard.freezes.gatewatch import STALE_SECONDS, GateWatch
from smtpguard.holds.replying import Tokens
from smtpguard.holds.service import Approvals
from smtpguard.journal.bypass import Bypasses
from smtpguard.journal.clock import Clock
from smtpguard.locale.phrase import dump
from smtpguard.mail.address import Address
from smtpguard.mail.reply import RECALLED
from smtpguard.processes.numbers import PUT_OFF, STORE_SERVES, ProcessNumbers
from smtpguard.processes.part import Part
from smtpguard.store.bypassed import Bypassed
from smtpguard.store.store import Store
from smtpguard.wire.listener import Limits
from smtpguard.wire.turnedaway import TurnedAway, Why

if TYPE_CHECKING:
    from smtpguard.wire.milter import MilterReception
    from smtpguard.wire.server import Reception

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The guard of one process. ``follow`` must run, or the fences stop all mail. ``hostname``: our name in greetings.
    ``background``: the watch over the gate, and what a bypass needs."""

    intake: Intake
    watch: GateWatch
    hostname: str
    store: Store
    policies: Following
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]]

    async def follow(self) -> None:
        """Run what is in the background. Never returns."""
        async with asyncio.TaskGroup() as tasks:
            for run in self.background:
                tasks.create_task(run())


async def open_line(settings: Settings, undo: AsyncExitStack, clock: Clock | None) -> Line:
    """Build a guard that is ready for mail; ``undo`` closes it. Raises CannotStart, StoreError and Broken."""
    hosts = clock or SystemClock()
    clock = steady(hosts)
    make_state(settings)
    secret = installation_secret(settings)
    logged = opened(settings, hot=True, clock=clock, committed=EventLog())
    store, digester = await undo.enter_async_context(logged)
    policies = Following(store, settings, digester, clock, reading=True)
    front = await store.open_front() if settings.journal.front == "on" else None
    watch = await policies.watch(front)
    gather = gathering(settings, policies.around, undo)
    hostname = settings.hostname or host_name()
    told, terms = notices(settings), deadlines(settings)
    own: list[OwnMail] = []
    if settings.hold.approve_at:
        own.append(Preapproval(
            address=Address.parse(settings.hold.approve_at), store=store, policies=policies, gather=gather,
            term=terms, notices=told,
        ))  # fmt: skip
    if settings.hold.reply_at:
        own.append(VotesByMail(
            address=Address.parse(settings.hold.reply_at), tokens=Tokens(secret), store=store, policies=policies,
            reader=gather.reader, verifier=gather.verifier,
            approvals=Approvals(store, policies, clock, notices=told, term=terms),
            notices=told, clock=clock, required=second_factor_for(settings),
        ))  # fmt: skip
    if settings.returns.addresses:
        from smtpguard.returns.service import Returns

        service = Returns(
            store, policies, clock, digester, freezes_of(settings, store, clock), key=secret, new_id=ids()
        )
        addresses = [Address.parse(each) for each in settings.returns.addresses]
        own.append(ReturnedMail(addresses=addresses, take=lambda message, to: service.take(message, to=to)))
    bypass: BypassPath | None = None
    background = [watch.run]
    if settings.bypass.people:
        head = await store.ask(read_head)
        kept = Bypassed(
            Bypasses(settings.state),
            path=store.file,
            journal=head.journal,
            secret=secret,
            now=hosts.now,  # as the commands, which begin and end one while the server is away
            take=store.journal.take_fronts,
            note=store.journal.note,
        )
        undo.callback(kept.close)
        bypass = BypassPath(kept, store, watch, clock, trace_key=secret, hostname=hostname)
        background += [bypass.run, kept.run]
    intake = Intake(
        store,
        policies,
        gather,
        Dispose(store.journal.note, watch.fence, clock, trace_key=secret, hostname=hostname),
        watch,
        clock,
        term=terms,
        notices=told,
        own=own,
        front=front,
        bypass=bypass,
    )
    return Line(intake=intake, watch=watch, hostname=hostname, store=store, policies=policies, background=background)


def limits_of(settings: Settings) -> Limits:
    given = settings.limits
    return Limits(
        recipients=given.recipients,
        message_octets=given.message_mb << 20,
        line_octets=given.line_octets,
        connections=given.connections,
        connections_per_client=given.per_client,
        idle_seconds=given.idle_seconds,
        transaction_seconds=given.transaction_seconds,
    )


def counts(intake: Intake) -> Mapping[str, int]:
    """Return the counts of a process that takes mail (processes.numbers)."""
    undecided = {f"undecided {why}": count for why, count in intake.undecided.items()}
    answered = {f"answered {how}": count for how, count in intake.answered.items()}
    admissions = {f"admission {n}": count for n, count in enumerate(intake.admissions) if count}
    bypassed = {"bypassed": intake.bypass.relayed} if intake.bypass is not None else {}
    return undecided | answered | admissions | bypassed | {"admission us": intake.admission_microseconds}


_CLIENT_ERRORS = frozenset(
    {
        Why.RECIPIENT_REFUSED,
        Why.BAD_ADDRESS,
        Why.SENDER_REFUSED,
        Why.TOO_MANY_RECIPIENTS,
        Why.OTHER_ROUTE,
        Why.TOO_LARGE,
        Why.BAD_CONTENT,
    }
)
"""Causes that are errors of the client: they are logged as information, not as a warning."""
_CLIENT_CAUSES = frozenset({Why.TOO_SLOW, Why.TOO_MANY_RECIPIENTS, Why.OTHER_ROUTE, Why.RATE_LIMIT, Why.GAVE_UP})
"""Causes of 4xx answers that are neither the guard's nor the relay's."""
_UNSET = Outage(log, "a connection could not be set up", level=logging.INFO)
"""Logs the checks of a balancer, and whoever speaks no TLS."""


class TurnedAwayLog:
    """Logs and counts the mail that one process turned away without a verdict. ``counts``: for processes.numbers."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("smtpguard")
        self._counts: Counter[Why] = Counter()
        self._put_off = 0

    def __call__(self, mail: TurnedAway) -> None:
        self._counts[mail.why] += 1
        self._put_off += _is_put_off(mail)
        if mail.why is Why.RATE_LIMIT:  # logged in sum, once a minute (app.ratelimits)
            return
        tell = self._log.info if mail.why in _CLIENT_ERRORS else self._log.warning
        tell("turned-away", **log_fields(mail))

    @property
    def counts(self) -> Mapping[str, int]:
        return {f"turned-away {why}": count for why, count in self._counts.items()} | {PUT_OFF: self._put_off}


def _is_put_off(mail: TurnedAway) -> bool:
    """Return whether the mail was answered 4xx for all its recipients, and the guard has not counted that answer itself."""
    if mail.reply is None or mail.reply.code // 100 != 4 or mail.refused < mail.recipients:
        return False
    return mail.why not in _CLIENT_CAUSES and (mail.why is not Why.UNDECIDED or mail.reply is RECALLED)


def log_fields(mail: TurnedAway) -> dict[str, Any]:
    """Return the fields of its line in the log."""
    shown: dict[str, Any] = {"why": mail.why.value, "client": mail.client, "listener": mail.listener}
    if mail.reply is not None:
        shown["reply"] = str(mail.reply)
    if mail.queue_id:
        shown["queue_id"] = mail.queue_id
    if mail.message_id:
        shown["message_id"] = mail.message_id
    if mail.reverse_path is not None:
        shown |= {"reverse_path": mail.reverse_path, "recipients": mail.recipients, "refused": mail.refused}
    return shown


class MailPart(Part):
    """A part that takes mail, with one guard. Its listeners are those of the proxy, if it is one, then those of the milter
    (processes.listeners.Listener.number)."""

    line: Line

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """``clock``: replaces the system's, for all that is decided and recorded; sockets use real time."""
        super().__init__()
        self._settings, self._clock = settings, clock
        self._turned = TurnedAwayLog()
        self._receptions: list[Reception | MilterReception] = []
        self._connections: set[asyncio.Task[None]] = set()

    def take(
        self, connection: socket.socket, listener: int, closed: Callable[[], None], client: str | None = None
    ) -> None:
        task = asyncio.create_task(_serve(self._receptions[listener], connection, closed, client))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def said(self) -> ProcessNumbers:
        store = self.line.store
        serves = not store.problem and self.line.watch.age_seconds < STALE_SECONDS
        counted = {**counts(self.line.intake), **self._turned.counts}
        return ProcessNumbers(counts=counted, levels={STORE_SERVES: int(serves)}, store=dump(store.fails))

    async def stop(self, grace_seconds: float) -> None:
        cut_off = sum(await asyncio.gather(*(each.stop(grace_seconds) for each in self._receptions)))
        if cut_off:
            log.warning("%d connections were closed after %g s", cut_off, grace_seconds)
        await self.line.intake.drain()  # transactions that are still recorded, whose clients may have disconnected


async def _serve(
    reception: Reception | MilterReception, connection: socket.socket, closed: Callable[[], None], client: str | None
) -> None:
    """Serve a connection to its end. It may end before it begins: TLS fails, or the client has disconnected."""
    try:
        await reception.serve_connection(connection, closed, client)
    except OSError as e:
        _UNSET.report(e)
        connection.close()
        closed()
