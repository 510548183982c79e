"""Our certificates, each with its key: load them, watch their files while they are in use, and tell when they expire.

A pair that was renewed on disk is loaded into the SSL context in use, so that new connections get it. Files are read
once and loaded from memory. A new pair is tried in a context of its own first, so a half-written or broken pair never
reaches the one in use.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from smtpguard.app.files import CannotStart
from smtpguard.config.settings import Settings, SmtpListener
from smtpguard.observe.alarms.conditions import Ends

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""Between looks at the files that are in use."""
REFUSED = "certificates refused"
ENDS_SOON_DAYS = 30
"""From so many days before its end on a certificate is warned about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key, as the settings name them. ``name``: who shows it, a listener's address and port, "console" or
    "relay"."""

    name: str
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """``ends``: when the first of the file's certificates is no longer valid; None where it cannot be read or used, and then
    ``problem`` says why, in one sentence."""

    pair: Pair
    ends: datetime | None
    problem: str = ""


def pairs(settings: Settings) -> tuple[Pair, ...]:
    """All that the settings name: what listeners and the console show to clients, and what we show to the relay."""
    found = (*map(of_listener, settings.listen.smtp), of_console(settings), of_relay(settings))
    return tuple(pair for pair in found if pair is not None)


def of_listener(each: SmtpListener) -> Pair | None:
    """Named as the supervisor names the listener there."""
    if each.tls is None:
        return None
    name = f"[{each.address}]:{each.port}" if ":" in each.address else f"{each.address}:{each.port}"
    return Pair(name=name, certificate=each.tls.certificate, key=each.tls.key)


def of_console(settings: Settings) -> Pair | None:
    if settings.console is None or (tls := settings.console.tls) is None:
        return None
    return Pair(name="console", certificate=tls.certificate, key=tls.key)


def of_relay(settings: Settings) -> Pair | None:
    """What we show to the relay."""
    relay = settings.relay
    if relay.client_certificate is None or relay.client_key is None:
        return None
    return Pair(name="relay", certificate=relay.client_certificate, key=relay.client_key)


def endings(settings: Settings) -> tuple[Ending, ...]:
    """When each certificate ends, as its file has it now. Reads files."""
    return tuple(map(ending, pairs(settings)))


def ending(pair: Pair) -> Ending:
    """Reads its files."""
    try:
        octets = _Octets.read(pair)
        octets.into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return Ending(pair=pair, ends=octets.ends())
    except CannotStart as e:
        return Ending(pair=pair, ends=None, problem=str(e))


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For the side that answers; TLS 1.2 and later. Raises CannotStart."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _Octets.read(Pair(name="", certificate=certificate, key=key)).into(context)
    return context


def readable(*paths: Path | None) -> None:
    """Tried one by one, since ssl would not say which of them it is. Raises CannotStart."""
    for path in paths:
        if path is None:
            continue
        try:
            path.open("rb").close()
        except OSError as e:
            raise CannotStart(f"{path}: {e.strerror}") from None


def ends(settings: Settings) -> Iterator[Ends]:
    """When each of them ends, as its file says. One that cannot be used is told of elsewhere."""
    for each in endings(settings):
        if each.ends is not None:
            yield Ends(what=str(each.pair.certificate), at=each.ends)


def try_all(settings: Settings, parts: Iterable[str]) -> None:
    """Those that these parts will show. Raises CannotStart."""
    for listener in settings.listen.smtp if "proxy" in parts else ():
        if listener.tls is not None:
            server_context(listener.tls.certificate, listener.tls.key)
    if "console" in parts and settings.console is not None and settings.console.tls is not None:
        server_context(settings.console.tls.certificate, settings.console.tls.key)


class Renewals:
    """Takes renewed certificates into the contexts that one process has in use. ``refused``: how often it found a pair that
    cannot be used, and kept the one before."""

    def __init__(self) -> None:
        self.refused = 0
        self._shown: list[_Shown] = []

    @property
    def counts(self) -> Mapping[str, int]:
        """As a process says it of itself (processes.numbers)."""
        return {REFUSED: self.refused}

    def watch(self, pair: Pair | None, *contexts: ssl.SSLContext | None) -> None:
        """From now on, for ``contexts`` that show this pair. Nothing where there is no pair or no context."""
        used = [context for context in contexts if context is not None]
        if pair is not None and used:
            self._shown.append(_Shown(pair, used))

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        for shown in self._shown:
            self.refused += not await asyncio.to_thread(shown.look)


class _Shown:
    """A pair that is in use."""

    def __init__(self, pair: Pair, contexts: Sequence[ssl.SSLContext]) -> None:
        self._pair, self._contexts = pair, contexts
        self._problem = ""
        try:
            self._seen = _Octets.read(pair).digest
        except CannotStart:
            self._seen = b""

    def look(self) -> bool:
        """False where there is something new on disk, said for the first time, that cannot be used."""
        try:
            found = _Octets.read(self._pair)
            if found.digest == self._seen:
                self._problem = ""
                return True
            found.into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            ends = found.ends()
            if ends <= datetime.now(UTC):
                raise CannotStart(f"{self._pair.certificate}: it ended on {ends:%Y-%m-%d %H:%M} UTC")
        except CannotStart as e:
            if str(e) == self._problem:
                return True
            self._problem = str(e)
            log.error(
                "the certificate of %s cannot be renewed, and the one before stays in use: %s", self._pair.name, e
            )
            return False
        for context in self._contexts:
            found.into(context)
        self._seen, self._problem = found.digest, ""
        log.info("the certificate of %s was renewed; it ends on %s", self._pair.name, f"{ends:%Y-%m-%d %H:%M} UTC")
        return True


class _Octets:
    """Both files as they were at one moment."""

    def __init__(self, pair: Pair, certificate: bytes, key: bytes) -> None:
        self._pair, self._certificate, self._key = pair, certificate, key

    @classmethod
    def read(cls, pair: Pair) -> _Octets:
        """Raises CannotStart."""
        read = []
        for path in (pair.certificate, pair.key):
            try:
                read.append(path.read_bytes())
            except OSError as e:
                raise CannotStart(f"{path}: {e.strerror}") from None
        return cls(pair, *read)

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(hashlib.sha256(self._certificate).digest() + self._key).digest()

    def into(self, context: ssl.SSLContext) -> None:
        """Raises CannotStart; the context is not to be used then."""
        with ExitStack() as undo:
            places = []
            for octets in (self._certificate, self._key):
                memory = os.memfd_create("smtpguard", os.MFD_CLOEXEC)
                undo.callback(os.close, memory)
                os.write(memory, octets)
                places.append(f"/proc/self/fd/{memory}")
            try:
                context.load_cert_chain(
                    places[0], places[1], password=""
                )  # or a key that has one would ask the terminal
            except (ssl.SSLError, OSError, ValueError) as e:
                other = getattr(e, "reason", "") == "KEY_VALUES_MISMATCH"
                why = "the key is not the certificate's" if other else "not PEM that can be used"
                raise CannotStart(f"{self._pair.certificate}, {self._pair.key}: {why}") from None

    def ends(self) -> datetime:
        """Raises CannotStart."""
        from cryptography import x509  # which takes a while, and most installations have no TLS of their own

        try:
            return min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(self._certificate))
        except ValueError:
            raise CannotStart(f"{self._pair.certificate}: not PEM that can be used") from None
