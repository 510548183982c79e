"""One mail transaction as the guard sees it, and what can still be done with it at the relay (RFC 5321 section 3.3).

The proxy and the milter both create these; the guard consumes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smtpguard.mail.address import Address
from smtpguard.mail.constant import constant
from smtpguard.mail.envelope import Envelope, Recipient, Session
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply

Fence = Callable[[], Awaitable[bool]]
"""Whether the final dot may be sent now. It may read the gate again, but never waits long (freezes.service)."""

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
    1047)."""

    def __init__(self, reply: Reply, *, after_dot: bool = False) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.after_dot = after_dot


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
