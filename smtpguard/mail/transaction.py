"""One mail transaction as the guard sees it, and what can still be done with it at the relay (RFC 5321 section 3.3).

The proxy and the milter both create these; the guard consumes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply

Fence = Callable[[], Awaitable[bool]]
"""Whether the final dot may be sent now. It may look anew at what it goes by, but it never waits long (freezes.service)."""

PassRest = Callable[[bytes, Fence, Sequence[Recipient]], Awaitable[Reply]]
"""What to prepend, the fence, and who is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRecipient:
    """Somebody whom the relay refused at RCPT (RFC 5321 section 3.3), so that the message is not for them. ``code``: "550 5.1.1"."""

    address: Address
    code: str

    @classmethod
    def of(cls, recipient: Recipient, said: Reply) -> RefusedRecipient:
        return cls(address=recipient.address, code=f"{said.code} {said.enhanced or ''}".strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A whole message with its envelope, after the client's final dot. ``id`` names it in the log, the journal and the trace.
    ``refused``: who is not in the envelope, since the relay would not have them."""

    id: str
    session: Session
    envelope: Envelope
    message: Message
    refused: tuple[RefusedRecipient, ...] = ()
    gone: Callable[[], bool] = field(default=lambda: False, repr=False)
    """Whether the client has gone: a transaction whose client left before its batch is not admitted."""
    pass_rest: PassRest | None = field(default=None, repr=False)
    """Where the wire itself can pass the message on to all but some of its recipients (milter: the MTA has it queued); then a part
    that goes on is no affair of the outbox. Raises Recalled and Lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What became of a message of ours at the relay: one reply a recipient, in their order, ``Unsendable`` where it was not
    asked. ``reports``: whether it was told what the sender wants to hear of, so that reports of success are its own affair
    (RFC 3461 section 5.2.1)."""

    replies: Sequence[Reply]
    reports: bool = True


class Recalled(Exception):
    """The fence said no before the final dot: nothing was sent, the relay connection was dropped."""


class Lost(Exception):
    """The relay connection failed. ``after_dot``: the message may have been taken, nobody can know (RFC 1047)."""

    def __init__(self, reply: Reply, *, after_dot: bool = False) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.after_dot = after_dot


class Onward(Protocol):
    """The way to the relay for one transaction whose MAIL and RCPT it has mirrored already."""

    async def send(self, prepend: bytes, fence: Fence) -> tuple[Reply, ...]:
        """DATA, ``prepend``, the content, and the final dot if ``await fence()`` says so. One reply (SMTP), the relay's own.

        Raises Recalled if the fence fell, Lost if the relay went away.
        """

    async def abandon(self) -> None:
        """RSET at the relay: the message does not go on now. Never raises."""
