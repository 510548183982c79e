"""The relay's address and how to speak to it, from the settings (the password is already read from its file); and its
state across sessions: whether the last attempt reached it, and what it offered last.

The log reports when it cannot be reached, and why; again every few minutes while that lasts; and when it answers again.
Its offer is kept in a file, so that a process that has not reached it yet can answer EHLO.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

log = logging.getLogger(__name__)
AGAIN_SECONDS = 300.0


class Reachability:
    """``relay``: its name, for the log and the file. ``kept``: the file of its offer; None: no file."""

    def __init__(
        self, relay: str, monotonic: Callable[[], float] = time.monotonic, *, kept: Path | None = None
    ) -> None:
        self._relay, self._monotonic, self._kept = relay, monotonic, kept
        self._since: float | None = None  # None: it answers, or was never tried
        self._told = 0.0
        self.found: tuple[float, bool] | None = None
        """When the last attempt ended, by ``monotonic``, and whether the relay answered; None: there was none."""
        self.offered = self._read()
        """Its EHLO keywords in the latest session, perhaps of an earlier process; None: there never was one."""
        self.no_chunks = False
        """Whether it refuses BDAT, although it offers CHUNKING."""

    def lost(self, why: str) -> None:
        now = self._monotonic()
        self.found = now, False
        if self._since is None:
            self._since = now
        elif now - self._told < AGAIN_SECONDS:
            return
        self._told = now
        log.error("the relay %s cannot be used, mail is answered 4xx: %s", self._relay, why)

    def reached(self, offered: Mapping[str, str]) -> None:
        self.found = self._monotonic(), True
        if self._since is not None:
            log.warning("the relay %s answers again, after %.0f s", self._relay, self._monotonic() - self._since)
            self._since = None
        if offered != self.offered:
            self.offered = offered
            self._write()

    def refuses_chunks(self) -> None:
        self.no_chunks = True
        log.warning("the relay %s offers CHUNKING and refuses BDAT: content is sent by DATA", self._relay)

    def _read(self) -> Mapping[str, str] | None:
        """Errors are ignored: the relay will offer it again."""
        if self._kept is None:
            return None
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            kept = json.loads(self._kept.read_bytes())
            if kept["relay"] == self._relay:
                return {str(keyword): str(parameters) for keyword, parameters in kept["offered"].items()}
        return None

    def _write(self) -> None:
        if self._kept is None:
            return
        new = self._kept.with_name(f"{self._kept.name}.{os.getpid()}")
        try:
            new.touch(mode=0o600)
            new.write_text(json.dumps({"relay": self._relay, "offered": dict(self.offered or {})}))
            new.replace(self._kept)
        except OSError as e:
            log.warning("cannot save the relay's SMTP extensions in %s: %s", self._kept, e.strerror)


class Tls(enum.Enum):
    """OPPORTUNISTIC accepts any certificate and goes on without TLS; REQUIRE (STARTTLS) and IMPLICIT verify, or send
    nothing."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRE = "require"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds, as in RFC 5321 section 4.5.3.2; ``connect`` is for TCP and for each TLS handshake, ``quit`` for closing."""

    connect: float = 30
    greeting: float = 300
    command: float = 300
    data: float = 120
    block: float = 180
    final: float = 600
    quit: float = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayTarget:
    """The relay's address and how to speak to it. ``password`` is the secret itself, never the file, and never shown.

    With a password, TLS is required and verified even if ``tls`` is opportunistic.
    ``clients_without_tls``: clients' credentials may go there in clear; see ``for_clients``. ``wait_seconds``: the
    longest wait for a connection, until the relay has greeted; ``down_seconds``: how long a failed attempt is
    remembered at least. ``client_share``: the share of connections that an untrusted client may have. ``reachability``:
    the relay's state, and the log of outages; None: none.
    ``chunking``: send content by BDAT (RFC 3030) if the relay offers it.
    ``fallbacks``: other hosts for the same mail, tried in this order if the relay cannot be used (handshake.Route).
    """

    host: str = "127.0.0.1"
    port: int = 25
    tls: Tls = Tls.OPPORTUNISTIC
    server_name: str | None = None
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    clients_without_tls: bool = False
    connections: int = 20
    messages_per_connection: int = 100
    idle_seconds: float = 30
    wait_seconds: float = 120
    client_share: float = 0.5
    down_seconds: float = 1
    chunking: bool = True
    helo: str = "localhost"
    timeouts: Timeouts = field(default_factory=Timeouts)
    reachability: Reachability | None = field(default=None, compare=False, repr=False)
    fallbacks: tuple[RelayTarget, ...] = ()

    def for_clients(self) -> RelayTarget:
        """Return the same relay for clients' credentials: without our own login, and over verified TLS, unless it is this
        machine or the settings allow otherwise."""
        own = replace(self, user=None, password=None, fallbacks=tuple(host.for_clients() for host in self.fallbacks))
        in_clear = self.clients_without_tls or is_loopback(self.host)
        return replace(own, tls=Tls.REQUIRE) if own.tls in (Tls.OPPORTUNISTIC, Tls.NONE) and not in_clear else own


def is_loopback(host: str) -> bool:
    """Return whether the name can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
