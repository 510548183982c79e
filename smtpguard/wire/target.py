"""The relay's address and how to speak to it, from the settings; the password is already read from its file."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

from smtpguard.wire.reachability import Reachability


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

    With a password, TLS is required and verified even if ``tls`` is opportunistic, unless ``auth_without_tls``.
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
    auth_without_tls: bool = False
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
        """The same relay for clients' credentials: without our own login, and over verified TLS, unless it is this
        machine or the settings allow otherwise."""
        own = replace(self, user=None, password=None, fallbacks=tuple(host.for_clients() for host in self.fallbacks))
        if own.tls in (Tls.OPPORTUNISTIC, Tls.NONE) and not self.takes_clients_in_clear:
            return replace(own, tls=Tls.REQUIRE)
        return own

    @property
    def takes_clients_in_clear(self) -> bool:
        return self.clients_without_tls or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether the name can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
