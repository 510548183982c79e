"""The proxy part: the listeners, relay pool and guard of one process, and its rate limits, which all processes of this
host count together. It takes milter connections too, if the process tree has both."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from smtpguard.app.certificates import RENEWAL_SECONDS, Renewals, of_listener, server_context
from smtpguard.app.clock import every, ids
from smtpguard.app.files import CannotStart, installation_secret, make_state, spool
from smtpguard.app.guardline import MailPart, straight_line
from smtpguard.app.relay import Relays
from smtpguard.config.listeners import SenderRates, SmtpListener
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import hand_over
from smtpguard.journal.clock import Clock
from smtpguard.mail import reply
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Session, client_network, within
from smtpguard.mail.reply import Reply
from smtpguard.processes.numbers import Said
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
        said, mail = self._relays.said(), super().said()
        return replace(
            said,
            counts={**said.counts, **mail.counts, **self._renewals.counts},
            levels={**said.levels, **mail.levels},
        )


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
                quotas += _quotas(limits.client, f"client {client_network(session.client_ip)}", place, first=first)
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


WINDOW_PARTS = 60
_COUNTS = WINDOW_PARTS + 1
_WAYS = 8
"""The rows that a key may use."""
_NAME_OCTETS = 64
_HEAD = struct.Struct("<32sddQ")
"""Digest of the version; time of the boot; time of the last report, 0 for never; stops to report."""
_SAME_BOOT_SECONDS = 10.0  # by which its time may differ, since clocks are set; a step of more drops the counts once
_ROW = struct.Struct(f"<16sdqI{_NAME_OCTETS}s{_COUNTS}I")
"""Digest of the key, its window, the number of its latest part, stops to report, name, counts."""
_STOPS = struct.Struct(f"<I{_NAME_OCTETS}s")
_STOPS_AT = _ROW.size - _STOPS.size - 4 * _COUNTS
_VERSION = b"smtpguard rates 2 "


@dataclass(frozen=True, slots=True)
class Quota:
    """At most ``count`` of ``unit`` in any ``window_seconds``, for ``name`` at ``place``. ``count`` is not part of
    the key, so a changed limit goes on with the same counts."""

    name: str
    unit: str
    place: str
    count: int
    window_seconds: float

    def key(self, secret: bytes) -> bytes:
        text = "\0".join((self.place, self.name, self.unit, str(self.window_seconds)))
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16, key=secret).digest()


@dataclass(slots=True)
class _Row:
    at: int
    key: bytes
    window: float
    part: int
    stops: int
    name: bytes
    counts: list[int]

    def advance(self, now: float) -> None:
        """Clear the counts that have left the window at ``now``. Clear all if the row's time is in the future: it is of
        another clock."""
        part = int(now * WINDOW_PARTS / self.window) if self.window else 0
        passed = part - self.part
        if not 0 <= passed < _COUNTS:
            self.counts = [0] * _COUNTS
        for old in range(self.part + 1, part + 1) if 0 < passed < _COUNTS else ():
            self.counts[old % _COUNTS] = 0
        self.part = part

    def write(self, to: mmap.mmap) -> None:
        _ROW.pack_into(to, self.at, self.key, self.window, self.part, self.stops, self.name, *self.counts)


class Rates:
    """Recent messages and recipients of each client and login, in a file that every process maps and locks (flock). So a
    limit is exact over all processes, and the lock of a process that dies is free. A row has the counts of one key in 61
    parts, each a 60th of its window: no window has more than the limit, and a count is forgotten at most a 60th of the
    window late. The file has a keyed digest of each key. It has the name only of a key that a limit has stopped, until
    that is reported. Counts of an earlier boot are dropped, since their times are of that boot's monotonic clock. A boot
    is known by its time: the units hide its id, which is in /proc/sys (ProcSubset=pid).

    ``rows``: the most keys at a time. If there are more, those with the smallest counts are forgotten."""

    def __init__(
        self,
        path: Path,
        secret: bytes,
        *,
        rows: int = 8192,
        monotonic: Callable[[], float] = time.monotonic,
        boot: Callable[[], float] = lambda: time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        """``secret``: keys the digests, 64 octets at most. ``boot``: the time of the machine's start. Raises OSError, also if the disk has no room for all of it."""
        self._monotonic, self._secret = monotonic, secret
        self._sets = max(1, rows // _WAYS)
        self._size = _HEAD.size + self._sets * _WAYS * _ROW.size
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)  # two processes may create it at once
            os.posix_fallocate(self._file, 0, self._size)  # a mapped page without room would kill the process
            self._map = mmap.mmap(self._file, self._size)
            version, booted = hashlib.sha256(_VERSION + str(self._sets).encode()).digest(), boot()
            found, before, *_ = _HEAD.unpack_from(self._map, 0)
            if found != version or abs(booted - before) > _SAME_BOOT_SECONDS:
                self._map[:] = bytes(self._size)
                _HEAD.pack_into(self._map, 0, version, booted, 0.0, 0)
            fcntl.flock(self._file, fcntl.LOCK_UN)
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        self._map.close()
        os.close(self._file)

    def take(self, quotas: Sequence[Quota]) -> Quota | None:
        """Count one for each quota. If one is used up, count nothing and return it."""
        now = self._monotonic()
        with self._locked():
            rows: list[_Row] = []
            for quota in quotas:
                row = self._row(quota, now, {row.at for row in rows})
                if sum(row.counts) >= quota.count:
                    row.stops += 1
                    row.name = _octets(quota.name)
                    row.write(self._map)
                    *known, stops = _HEAD.unpack_from(self._map, 0)
                    _HEAD.pack_into(self._map, 0, *known, stops + 1)
                    return quota
                rows.append(row)
            for row in rows:
                row.counts[row.part % _COUNTS] += 1
                row.write(self._map)
        return None

    def stopped(self, every: float) -> dict[str, int]:
        """How often each name was stopped since the last report; "" sums up the forgotten names. Empty until ``every``
        seconds after the last report. A result that is not empty is the report, for all processes."""
        now = self._monotonic()
        with self._locked():
            version, booted, told, stops = _HEAD.unpack_from(self._map, 0)
            if not stops or (told and now - told < every):
                return {}
            found: dict[str, int] = {}
            for at in range(_HEAD.size, self._size, _ROW.size):
                times, name = _STOPS.unpack_from(self._map, at + _STOPS_AT)
                if times:
                    text = name.rstrip(b"\0").decode("utf-8", "replace")
                    found[text] = found.get(text, 0) + times
                    _STOPS.pack_into(self._map, at + _STOPS_AT, 0, b"")
            if rest := stops - sum(found.values()):
                found[""] = rest
            _HEAD.pack_into(self._map, 0, version, booted, now, 0)
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _row(self, quota: Quota, now: float, taken: Container[int]) -> _Row:
        """The row of the quota's key, with its counts at ``now``. A new key gets the row with the smallest counts, but
        none of those ``taken``."""
        key = quota.key(self._secret)
        first = _HEAD.size + int.from_bytes(key[:4], "little") % self._sets * _WAYS * _ROW.size
        places = range(first, first + _WAYS * _ROW.size, _ROW.size)
        for at in places:
            if self._map[at : at + len(key)] == key:
                row = self._read(at)
                row.advance(now)
                return row
        rows = [self._read(at) for at in places if at not in taken]
        for row in rows:
            row.advance(now)
        given = min(rows, key=lambda row: sum(row.counts))
        given = _Row(given.at, key, quota.window_seconds, 0, 0, b"", [0] * _COUNTS)
        given.advance(now)
        return given

    def _read(self, at: int) -> _Row:
        key, window, part, stops, name, *counts = _ROW.unpack_from(self._map, at)
        return _Row(at, key, window, part, stops, name, counts)


def _octets(name: str) -> bytes:
    return name.encode("utf-8", "replace")[:_NAME_OCTETS].decode("utf-8", "ignore").encode()
