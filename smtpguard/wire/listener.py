"""The settings of a listener: limits, TLS, trusted peers. app makes them from the configuration.

The size of a command line is the grammar's (RFC 5321 section 4.5.3.1); all other limits are here.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Network, Session
from smtpguard.mail.reply import Reply

RateCheck = Callable[[Session, bool], Reply | None]
"""Count a recipient of this session, and a message if it is the first one. Returns the reply to RCPT above a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on a client. Octets, seconds and counts; every default is safe."""

    recipients: int = 1000  # RFC 5321 section 4.5.3.1.8 asks for 100 at least
    message_octets: int = 50 << 20
    line_octets: int = 1 << 20  # RFC 5321 section 4.5.3.1.6 says 1000; many mailings have all on one line
    header_octets: int = 1 << 20
    header_lines: int = 10_000
    hops: int = 50  # Received fields; RFC 5321 section 6.3
    spool_octets: int = 1 << 20  # larger content goes to a file
    connections: int = 2000
    connections_per_client: int = 100  # not for the trusted
    errors: int = 20  # wrong commands since the last message
    idle_seconds: float = 300  # RFC 5321 section 4.5.3.2.7: for a command, and for each piece of content
    transaction_seconds: float = 1200  # from MAIL to the final dot
    dawdle_seconds: float = 3  # how long a waiting client may keep a relay connection
    pressed_seconds: float = 1  # the same while others wait for one
    quiet_login_seconds: float = 20  # how long a logged-in client may be silent while others wait for one
    closing_seconds: float = 10  # how long a last reply may take to be read


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Our own certificate. ``implicit``: TLS from the first octet; ``required``: no mail before STARTTLS."""

    context: ssl.SSLContext
    implicit: bool = False
    required: bool = False
    handshake_seconds: float = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAuth:
    """Clients may log in, at the relay. ``required``: no mail before that; ``without_tls``: in clear, too."""

    required: bool = True
    without_tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """``name``: from the settings. ``trust``: peers that may use XFORWARD and XCLIENT and are not counted per client.
    ``spool``: the folder for large content."""

    name: str = ""
    hostname: str = "localhost"
    spool: Path
    tls: ServerTls | None = None
    auth: ServerAuth | None = None
    trust: tuple[Network, ...] = ()
    expanders: tuple[Network, ...] = ()
    senders_verified: bool = False
    here: Callable[[Address], Reply | None] = lambda address: None
    """The reply for addresses of the guard itself, which are not passed to the relay."""
    rate_check: RateCheck | None = None
    """The rate limits of clients and logins; None if there are none."""
    limits: Limits = field(default_factory=Limits)
