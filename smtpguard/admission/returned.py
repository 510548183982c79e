"""Take bounces, complaints and replies at addresses of the guard: stored before the 250, and never sent on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from smtpguard.mail import reply
from smtpguard.mail.address import Address, after_local
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Onward, Transaction
from smtpguard.policy.verdict import Counted, Disposition, Rejected

MOST_OCTETS = 10 << 20
"""A bounce may return the whole message."""
ALONE = "Mail to this address must have no other recipient."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnedMail:
    """``addresses``: the guard's own; ``+`` and a word may follow the local part (VERP). ``take``: stores a message and its
    recipients; raises subclasses of LedgerError (returns/service.py)."""

    addresses: Sequence[Address]
    take: Callable[[Message, Sequence[str]], Awaitable[object]]

    def reply_to(self, address: Address) -> Reply | None:
        """The reply to a recipient; None if it is not one of them."""
        return reply.RECIPIENT_OK if self._ours(address) else None

    def asked(self, transaction: Transaction) -> bool:
        return any(map(self._ours, transaction.envelope.addresses))

    async def __call__(self, transaction: Transaction, onward: Onward) -> Disposition:
        """Raises subclasses of LedgerError; the client then keeps the message."""
        await onward.abandon()
        to = transaction.envelope.addresses
        if not all(map(self._ours, to)):
            return Rejected(reply=reply.rejected(ALONE))
        if transaction.message.size_bytes > MOST_OCTETS:
            return Rejected(reply=reply.TOO_BIG)
        await self.take(transaction.message, [str(address) for address in to])
        return Counted(reply=reply.STORED)

    def _ours(self, address: Address) -> bool:
        rests = [after_local(address, ours) for ours in self.addresses]
        return any(rest == "" or (rest or "").startswith("+") for rest in rests)
