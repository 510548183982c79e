"""A mail transaction: the session that brought it, its envelope, and what can still be done with it at the relay (RFC 5321
sections 2.3.1 and 3.3, RFC 3461, RFC 6531).

The proxy and the milter both create transactions; the guard consumes them.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Protocol

from smtpguard.mail.address import Address
from smtpguard.mail.constant import changed, constant
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The client, as far as it is known. ``client_ip`` is textual; ``auth_user`` is proven by AUTH or a trusted peer.

    ``peer`` is the address that connected, if a trusted peer named another client; "" if it is the client itself.
    ``listener``: the name of the listener. ``ident``: the peer's name of the message (XFORWARD IDENT, or the queue id
    of a milter's MTA). ``senders_verified``: by the listener's settings the MTA in front checks who may use which From;
    ``mta_login``: then the login is that MTA's own, and not the writer's.
    ``proves_senders``: the sender is proven, by that or by a login.
    """

    client_ip: str = "127.0.0.1"
    client_name: str = ""
    peer: str = ""
    listener: str = ""
    helo: str = ""
    ident: str = ""
    auth_user: str | None = None
    tls: bool = False
    esmtp: bool = True
    senders_verified: bool = False
    mta_login: bool = False
    proves_senders: bool = False
    expander: bool = False


class Body(enum.StrEnum):
    """The BODY parameter of MAIL (RFC 6152)."""

    SEVENBIT = "7BIT"
    EIGHTBITMIME = "8BITMIME"


@constant
class Recipient:
    """One forward-path with its parameters of RFC 3461. ``notify`` and ``orcpt`` keep the client's spelling, None if
    absent."""

    address: Address
    notify: str | None = None
    orcpt: str | None = None

    @property
    def wants_failure(self) -> bool:
        """Whether a failure is to be reported to the reverse-path (RFC 3461 section 4.1: the default is yes)."""
        return self.notify is None or "FAILURE" in self.notify.upper().split(",")


@constant
class Envelope:
    """Reverse-path (None is the null one) and recipients in the order given, with the parameters of MAIL.

    ``size_bytes`` is what the client declared with SIZE (RFC 1870), None if it did not. ``auth`` is the AUTH= parameter
    (RFC 4954 section 5), ``ret`` FULL or HDRS, ``envid`` as the client spelled it.
    """

    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    size_bytes: int | None = None
    smtputf8: bool = False
    body: Body | None = None
    ret: str | None = None
    envid: str | None = None
    auth: str | None = None

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple([r.address for r in self.recipients])

    def to(self, recipients: Sequence[Recipient]) -> Envelope:
        """Return the envelope with other recipients."""
        return changed(self, recipients=tuple(recipients))

    @property
    def sha256(self) -> str:
        """Over reverse-path and the set of recipients: a vote is bound to it and to the content's SHA-256."""
        sender = self.reverse_path.text if self.reverse_path is not None else ""
        lines = [sender, *sorted([r.address.text for r in self.recipients])]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


Network = IPv4Network | IPv6Network


@lru_cache(maxsize=4096)
def client_address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address without zone (RFC 4007), an IPv4-mapped one (RFC 4291 section 2.5.5.2) as IPv4; None for a client
    without one."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=4096)
def client_network(text: str) -> str:
    """The client that a limit or a count is for: an IPv4 address, or the /64 of an IPv6 address, all of which one host
    can use (RFC 6177); the text itself if it is no address."""
    address = client_address(text)
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address or text)


def within(text: str, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks."""
    if not networks:
        return False
    address = client_address(text)
    return address is not None and any(address in network for network in networks)


Fence = Callable[[], Awaitable[bool]]
"""Whether the final dot may be sent now. It may read the gate again, but never waits long (freezes.gatewatch)."""


async def open_fence() -> bool:
    """Serve as the fence of what nothing stops."""
    return True


PassRest = Callable[[bytes, Fence, Sequence[Recipient]], Awaitable[Reply]]
"""The bytes to prepend, the fence, and the recipients that are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRecipient:
    """A recipient that the relay refused at RCPT (RFC 5321 section 3.3), so that the message is not for them. ``code``:
    "550 5.1.1"."""

    address: Address
    code: str

    @classmethod
    def of(cls, recipient: Recipient, said: Reply) -> RefusedRecipient:
        return cls(address=recipient.address, code=f"{said.code} {said.enhanced or ''}".strip())


@constant
class Transaction:
    """A whole message with its envelope, after the client's final dot. ``id`` names it in the log, the journal and the
    trace. ``refused``: recipients that the relay refused, which are not in the envelope."""

    id: str
    session: Session
    envelope: Envelope
    message: Message
    refused: tuple[RefusedRecipient, ...] = ()
    gone: Callable[[], bool] = field(default=lambda: False, repr=False)
    """Whether the client has disconnected: then the transaction is not admitted."""
    pass_rest: PassRest | None = field(default=None, repr=False)
    """Set if the wire itself can pass the message on to some of its recipients (milter: the MTA has it queued); then
    that part does not go through the outbox. Raises Recalled and Lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The result of sending a message of ours: one reply a recipient, in their order, ``Unsendable`` if the relay was
    not asked. ``reports``: whether the relay got the sender's DSN parameters, so that it reports success itself (RFC
    3461 section 5.2.1)."""

    replies: Sequence[Reply]
    reports: bool = True


class Recalled(Exception):
    """The fence refused before the final dot: nothing was sent, the relay connection was dropped."""


class Lost(Exception):
    """The relay connection failed. ``after_dot``: the relay may have accepted the message; it cannot be known (RFC
    1047). ``heard``: the replies to the first commands, which stand: some relays close after many refusals. Of a message of
    ours, one reply a recipient: ``reply`` if the relay did not refuse them before."""

    def __init__(self, reply: Reply, *, after_dot: bool = False, heard: Sequence[Reply] = ()) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.after_dot = after_dot
        self.heard = heard


class Onward(Protocol):
    """The relay side of one transaction whose MAIL and RCPT were already sent."""

    def begin(self) -> None:
        """``send`` will probably follow: ask the relay now whether it takes content (DATA). None is sent yet, and
        ``abandon`` is possible. Never raises."""

    def send(self, prepend: bytes, fence: Fence) -> Awaitable[tuple[Reply, ...]]:
        """DATA, ``prepend``, the content, and the final dot if ``await fence()`` allows it. One reply (SMTP), the
        relay's own.

        Raises Recalled if the fence refused, Lost if the connection failed.
        """

    async def abandon(self) -> None:
        """RSET at the relay: the message is not passed on now. Never raises."""
