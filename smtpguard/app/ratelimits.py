"""Limit how many messages and recipients a client or a login sends, over all processes of this host.

The counts are in a file that every process maps and locks (flock). So a limit is exact over all processes, and the lock of
a process that dies is free. The file has a keyed digest of each client and login. It has the name only of one that a limit
has stopped, until that is reported.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from smtpguard.app.files import CannotStart, installation_secret, make_state
from smtpguard.config.listeners import SenderRates, SmtpListener
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import hand_over
from smtpguard.mail import reply
from smtpguard.mail.envelope import Session, client_network, within
from smtpguard.mail.reply import Reply
from smtpguard.wire.listener import RateCheck

FILE = "rates"
REPORT_SECONDS = 60.0
"""The least time between two reports of stopped names."""
WINDOW_PARTS = 60
"""The parts of a window: a count is forgotten at most one part late."""
_LOOK_SECONDS = 5.0
_MOST_NAMES = 10
"""The most stopped names in a line of the log."""
_COUNTS = WINDOW_PARTS + 1
_WAYS = 8
"""The rows that a key may use."""
_NAME_OCTETS = 64
_HEAD = struct.Struct("<32sddQ")
"""Digest of the version; time of the boot; time of the last report, 0 for never; stops to report."""
_SAME_BOOT_SECONDS = 10.0
"""By how much the time of one boot may differ, since clocks are set. A step of more drops the counts once."""
_ROW = struct.Struct(f"<16sdqI{_NAME_OCTETS}s{_COUNTS}I")
"""Digest of the key, its window, the number of its latest part, stops to report, name, counts."""
_STOPS = struct.Struct(f"<I{_NAME_OCTETS}s")
_STOPS_AT = _ROW.size - _STOPS.size - 4 * _COUNTS
_VERSION = b"smtpguard rates 2 "


class RateLimits:
    """The rate limits of the settings in one process. All processes with the same state folder count together."""

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
        """Return the check of a listener, which gives the refusal if a limit is reached. None if the listener has no limits."""
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
        """Log the stopped names, in at most one line for each ``REPORT_SECONDS``. Never returns."""
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


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit: at most ``count`` of ``unit`` in any ``window_seconds``, for ``name`` at ``place``. ``count`` is not part of
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
        """Clear the counts that have left the window at ``now``. Clear all if the row's time is in the future: then it comes
        from another clock."""
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
    """The file of counts. A row has the counts of one key in 61 parts, each a 60th of its window: no window has more than the
    limit, and a count is forgotten at most a 60th of the window late. Counts of an earlier boot are dropped, since their
    times come from that boot's monotonic clock. A boot is known by its time: the units hide its id, which is in /proc/sys
    (ProcSubset=pid)."""

    def __init__(
        self,
        path: Path,
        secret: bytes,
        *,
        rows: int = 8192,
        monotonic: Callable[[], float] = time.monotonic,
        boot: Callable[[], float] = lambda: time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        """``secret``: keys the digests, at most 64 octets. ``rows``: the most keys at a time; if there are more, those with the
        smallest counts are forgotten. ``boot``: the time of the machine's start. Raises OSError, also if the disk has no room
        for the whole file."""
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
        """Count one for each quota. If a quota is used up, count nothing and return it."""
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
        """Return how often each name was stopped since the last report; "" sums up the forgotten names. The result is empty until
        ``every`` seconds after the last report. A result that is not empty is the report, for all processes."""
        now = self._monotonic()
        with self._locked():
            version, booted, reported, stops = _HEAD.unpack_from(self._map, 0)
            if not stops or (reported and now - reported < every):
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
        """Return the row of the quota's key, with its counts at ``now``. A new key gets the row with the smallest counts, but
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
