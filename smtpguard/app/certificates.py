"""Load our certificates with their keys, watch their files while they are in use, and tell when they expire.

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
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from smtpguard.app.files import CannotStart
from smtpguard.config.listeners import Certificate, SmtpListener, place
from smtpguard.config.settings import Relay, Settings

if TYPE_CHECKING:
    from cryptography import x509

log = logging.getLogger(__name__)

RENEWAL_SECONDS = 10.0
"""The pause between looks at the files in use."""
REFUSED = "certificates refused"
"""The number of unusable new pairs, among the process's numbers (processes.numbers)."""
ENDS_SOON_DAYS = 30
"""The days before its expiry from which a certificate is warned about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key, from the settings. ``name``: a listener's address and port, "console" or "relay"."""

    name: str
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The expiry of a pair. ``ends``: when the first certificate in the file expires; None if it cannot be read or used, or not yet, with
    the reason in ``problem``, one sentence. ``names``: those for which it is, in lower case."""

    pair: Pair
    ends: datetime | None
    problem: str = ""
    names: frozenset[str] = frozenset()

    def names_host(self, host: str) -> bool:
        """Return whether it is for a host, by name or address; also if its names are not known."""
        return not self.names or not self.names.isdisjoint((host, f"*.{host.partition('.')[2]}"))


def of_listener(each: SmtpListener) -> Pair | None:
    """Return the pair of a listener, under the supervisor's name of that listener."""
    if each.tls is None:
        return None
    return Pair(name=place(each.address, each.port), certificate=each.tls.certificate, key=each.tls.key)


def of_console(settings: Settings) -> Pair | None:
    if settings.console is None or (tls := settings.console.tls) is None:
        return None
    return Pair(name="console", certificate=tls.certificate, key=tls.key)


def of_relay(relay: Relay, route: str = "") -> Pair | None:
    """Return the pair that we show to a relay. ``route``: the name of its route, "" for the default relay."""
    if relay.client_certificate is None or relay.client_key is None:
        return None
    return Pair(name=f"route {route}" if route else "relay", certificate=relay.client_certificate, key=relay.client_key)


def endings(settings: Settings) -> tuple[Ending, ...]:
    """Return when each certificate of the settings expires: those that listeners and the console show to clients, and those that
    we show to relays. Reads files."""
    relays = (of_relay(relay, name) for name, relay in settings.relays.items())
    found = (*map(of_listener, settings.listen.smtp), of_console(settings), *relays)
    return tuple(ending(pair) for pair in found if pair is not None)


def ending(pair: Pair) -> Ending:
    """Return when a pair expires, or why it cannot be used. Reads its files."""
    try:
        found = _Octets(pair.certificate, pair.key)
        found.into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return Ending(pair=pair, ends=found.ends(), names=found.names())
    except CannotStart as e:
        return Ending(pair=pair, ends=None, problem=str(e))


def server_context(tls: Certificate) -> ssl.SSLContext:
    """Return the SSL context of a server, for TLS 1.2 and later. Raises CannotStart."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _Octets(tls.certificate, tls.key).into(context)
    return context


def octets(path: Path) -> bytes:
    """Read one file, since ssl would not say which one cannot be read. Raises CannotStart."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise CannotStart(f"{path}: {e.strerror}") from None


def try_authorities(ca_file: Path) -> None:
    """Check that TLS can load the certificates of authorities. Raises CannotStart."""
    octets(ca_file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except OSError:  # ssl.SSLError is one
        raise CannotStart(f"{ca_file}: no certificates in PEM") from None


def authorities(ca_file: Path) -> list[x509.Certificate]:
    """Load the certificates that a time-stamp authority's certificate must lead to. Raises CannotStart."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(octets(ca_file))
    except ValueError:
        raise CannotStart(f"{ca_file}: no certificates in PEM") from None


def ends_by_file(settings: Settings) -> Mapping[str, datetime | None]:
    """Return when each certificate of the settings expires, by its file; None if it cannot be used with any of its keys."""
    found: dict[str, datetime | None] = {}
    for each in endings(settings):
        file = str(each.pair.certificate)
        found[file] = each.ends or found.get(file)
    return found


def try_all(settings: Settings, parts: Iterable[str]) -> None:
    """Load the pairs that these parts will use. Raises CannotStart."""
    shown: list[Certificate | None] = [each.tls for each in settings.listen.smtp if "proxy" in parts]
    if "console" in parts and settings.console is not None:
        shown.append(settings.console.tls)
    for tls in filter(None, shown):
        server_context(tls)


class Renewals:
    """Loads renewed certificates into the contexts that this process uses. ``refused``: how often a new pair was unusable, so
    that the old one was kept."""

    def __init__(self) -> None:
        self.refused = 0
        self._shown: list[_Shown] = []

    @property
    def counts(self) -> Mapping[str, int]:
        return {REFUSED: self.refused}

    def watch(self, pair: Pair | None, *contexts: ssl.SSLContext | None) -> None:
        """Watch this pair for the contexts that use it. Does nothing without a pair or a context."""
        used = [context for context in contexts if context is not None]
        if pair is not None and used:
            self._shown.append(_Shown(pair, used))

    async def look(self) -> None:
        for shown in self._shown:
            self.refused += not await asyncio.to_thread(shown.look)


class _Shown:
    def __init__(self, pair: Pair, contexts: Sequence[ssl.SSLContext]) -> None:
        self._pair, self._contexts = pair, contexts
        self._problem = ""
        try:
            self._seen = _Octets(pair.certificate, pair.key).digest
        except CannotStart:
            self._seen = b""

    def look(self) -> bool:
        """Load a new pair, if there is one on disk. Returns False the first time that it is unusable."""
        try:
            found = _Octets(self._pair.certificate, self._pair.key)
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
    """The octets of a certificate and its key, as they were at one moment."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises CannotStart."""
        self._file, self._files = certificate, f"{certificate}, {key}"
        self._certificate, self._key = octets(certificate), octets(key)
        self.digest = hashlib.sha256(hashlib.sha256(self._certificate).digest() + self._key).digest()

    def into(self, context: ssl.SSLContext) -> None:
        """Load the pair into a context. Raises CannotStart: then the context must not be used."""
        with ExitStack() as undo:
            places = []
            for pem in (self._certificate, self._key):
                memory = os.memfd_create("smtpguard", os.MFD_CLOEXEC)
                undo.callback(os.close, memory)
                os.write(memory, pem)
                places.append(f"/proc/self/fd/{memory}")
            try:
                # An encrypted key would ask for a password on the terminal.
                context.load_cert_chain(places[0], places[1], password="")
            except (OSError, ValueError) as e:
                other = getattr(e, "reason", "") == "KEY_VALUES_MISMATCH"
                why = "the key is not the certificate's" if other else "not PEM that can be used"
                raise CannotStart(f"{self._files}: {why}") from None

    def ends(self) -> datetime:
        """Return when the first of the certificates expires. Raises CannotStart, also if one is not valid yet."""
        each = self._read()
        if (begins := max(one.not_valid_before_utc for one in each)) > datetime.now(UTC):
            raise CannotStart(f"{self._file}: not valid before {begins:%Y-%m-%d %H:%M} UTC")
        return min(one.not_valid_after_utc for one in each)

    def names(self) -> frozenset[str]:
        from cryptography import x509

        try:
            said = self._read()[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            return frozenset()
        addresses = map(str, said.get_values_for_type(x509.IPAddress))
        return frozenset((*map(str.lower, said.get_values_for_type(x509.DNSName)), *addresses))

    def _read(self) -> list[x509.Certificate]:
        """Raises CannotStart."""
        from cryptography import x509  # slow to import, and most installations have no TLS of their own

        try:
            return x509.load_pem_x509_certificates(self._certificate)
        except ValueError:
            raise CannotStart(f"{self._file}: not PEM that can be used") from None
