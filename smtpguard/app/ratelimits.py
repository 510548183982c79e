"""Apply the rate limits of the settings to clients and logins, and log which of them were stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_network

import structlog

from smtpguard.app.files import CannotStart, installation_secret, make_state
from smtpguard.config.listeners import SenderRates, SmtpListener
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import hand_over
from smtpguard.mail import reply
from smtpguard.mail.envelope import Session, client_address, within
from smtpguard.mail.reply import Reply
from smtpguard.processes.rates import Quota, Rates
from smtpguard.wire.listener import RateCheck

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
