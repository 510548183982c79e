"""The proxy part: the listeners, relay pool and guard of one process. It takes milter connections too, if the process
tree has both."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_network

import structlog

from smtpguard.app.certificates import RENEWAL_SECONDS, Renewals, of_listener, server_context
from smtpguard.app.clock import ids
from smtpguard.app.files import CannotStart, installation_secret, make_state, spool
from smtpguard.app.guardline import MailPart, straight_line
from smtpguard.app.regularly import every
from smtpguard.app.relay import Relays
from smtpguard.config.listeners import SenderRates, SmtpListener
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import hand_over
from smtpguard.guard.ports import Clock
from smtpguard.mail import reply
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Session, client_address, within
from smtpguard.mail.reply import Reply
from smtpguard.processes.numbers import Said
from smtpguard.processes.rates import Quota, Rates
from smtpguard.wire.listener import Limits, Listener, RateCheck, ServerAuth, ServerTls
from smtpguard.wire.server import Reception


class Proxy(MailPart):
    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        super().__init__(settings, clock)
        self._renewals = Renewals()

    async def start(self) -> None:
        settings, clock = self._settings, self._clock
        new_id = ids() if clock is None else ids(lambda: int(clock.now().timestamp() * 1000))
        self.line = line = await straight_line(settings, self._undo, clock)
        self._relays = relays = Relays(settings, self.places)
        self._undo.push_async_callback(relays.close)
        logins = relays.logins()
        routings = [relays.routing(each.called, line.policies.list_at) for each in settings.listen.smtp]
        self._rates = RateLimits(settings)
        self._undo.callback(self._rates.close)
        listeners = [
            replace(listener(settings, each, line.hostname, line.intake.here), rate_check=self._rates.of(each))
            for each in settings.listen.smtp
        ]
        self._receptions = [
            Reception(
                each,
                routing,
                line.intake,
                new_id=new_id,
                logins=logins.get(routing.first),
                turned_away=self._turned,
                note_refused=line.intake.note_refused,
            )
            for each, routing in zip(listeners, routings, strict=True)
        ]
        for each, where in zip(listeners, settings.listen.smtp, strict=True):
            self._renewals.watch(of_listener(where), each.tls.context if each.tls is not None else None)
        relays.watch(self._renewals, logins)

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.line.follow())
            tasks.create_task(every(RENEWAL_SECONDS, "certificates", self._renewals.look))
            tasks.create_task(self._rates.run())

    def take(
        self, connection: socket.socket, listener: int, closed: Callable[[], None], client: str | None = None
    ) -> None:
        if listener >= len(self._receptions):  # the first connection of an MTA
            from smtpguard.app.milter import receptions

            self._receptions += receptions(self._settings, self.line, self._turned)
        super().take(connection, listener, closed, client)

    def said(self) -> Said:
        said = self._relays.said()
        return replace(said, counts={**said.counts, **super().said().counts, **self._renewals.counts})


def listener(
    settings: Settings, each: SmtpListener, hostname: str, here: Callable[[Address], Reply | None]
) -> Listener:
    """Raises CannotStart if certificate or key cannot be used."""
    limits = settings.limits
    return Listener(
        name=each.called,
        hostname=hostname,
        spool=spool(settings),
        tls=_tls(each),
        auth=ServerAuth(required=each.auth.required, without_tls=each.auth.without_tls) if each.auth else None,
        trust=settings.trust,
        expanders=settings.expanders,
        senders_verified=each.senders_verified,
        here=here,
        limits=Limits(
            recipients=limits.recipients,
            message_octets=limits.message_mb << 20,
            line_octets=limits.line_octets,
            connections=limits.connections,
            connections_per_client=limits.per_client,
            idle_seconds=limits.idle_seconds,
            transaction_seconds=limits.transaction_seconds,
        ),
    )


def _tls(each: SmtpListener) -> ServerTls | None:
    if each.tls is None:
        return None
    return ServerTls(context=server_context(each.tls), implicit=each.tls.mode == "implicit", required=each.tls.required)


FILE = "rates"
REPORT_SECONDS = 60.0
_LOOK_SECONDS = 5.0
_MOST_NAMES = 10
_IPV6_PREFIX = 64
"""A client has at least a /64 (RFC 6177)."""


class RateLimits:
    """The limits in one process. All processes of this host with the same state folder count together."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises CannotStart."""
        self._settings = settings
        self._log = structlog.get_logger("smtpguard")
        self._rates: Rates | None = None
        if any(each.rates.any for each in settings.listen.smtp):
            make_state(settings)
            path = settings.state / FILE
            try:
                self._rates = Rates(path, installation_secret(settings), monotonic=monotonic)
                hand_over(path, settings.state)
            except OSError as e:
                raise CannotStart(f"{path}: {e.strerror or e}") from None

    def close(self) -> None:
        if self._rates is not None:
            self._rates.close()

    def of(self, listener: SmtpListener) -> RateCheck | None:
        """None if this listener has no limits."""
        rates, limits, trust, place = self._rates, listener.rates, self._settings.trust, listener.called
        if rates is None or not limits.any:
            return None

        def rate_check(session: Session, first: bool) -> Reply | None:
            quotas: list[Quota] = []
            if not within(session.client_ip, trust):
                quotas += _quotas(limits.client, f"client {_client(session.client_ip)}", place, first=first)
            if session.auth_user is not None:
                quotas += _quotas(limits.login, f"login {session.auth_user.casefold()}", place, first=first)
            full = rates.take(quotas) if quotas else None
            if full is None:
                return None
            return reply.LOGIN_TOO_FAST if full.name.startswith("login ") else reply.CLIENT_TOO_FAST

        return rate_check

    async def run(self) -> None:
        """Log the stopped names, in at most one line a minute. Never returns."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.report()

    def report(self) -> None:
        stopped = self._rates.stopped(REPORT_SECONDS) if self._rates is not None else {}
        if stopped:
            most = sorted(((times, name) for name, times in stopped.items() if name), reverse=True)[:_MOST_NAMES]
            shown = [f"{name}: {times}" for times, name in most]
            self._log.warning("rate-limited", recipients=sum(stopped.values()), most=shown, senders=len(stopped))


def _quotas(limits: SenderRates, name: str, place: str, *, first: bool) -> Sequence[Quota]:
    return [
        Quota(name, unit, place, limit.count, limit.window_seconds)
        for unit, limit, counts in (("messages", limits.messages, first), ("recipients", limits.recipients, True))
        if limit is not None and counts
    ]


def _client(address: str) -> str:
    found = client_address(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((int(found), _IPV6_PREFIX), strict=False))
    return str(found or address)
