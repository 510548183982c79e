"""The Onward of a milter message: accept it into the MTA's own queue (see mail.transaction).

The MTA writes its own Received, so that field of the trace is left out. The others are inserted on top, and ACCEPT is
sent at once after the fence was asked. From then on the message belongs to the MTA's queue, also if a freeze comes
later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smtpguard.mail import reply
from smtpguard.mail.envelope import Recipient
from smtpguard.mail.message import parse_header
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Fence, Lost, Recalled
from smtpguard.wire.milter.message import MilterMessage
from smtpguard.wire.milter.packet import Accept, Answer, DeleteRecipient, InsertHeader


class Acceptance:
    """For one message. ``say`` sends answers to the MTA at once; ``queue`` names the MTA's queue."""

    def __init__(
        self,
        letter: MilterMessage,
        say: Callable[[Sequence[Answer]], None],
        gone: Callable[[], bool],
        *,
        leading_space: bool,
        queue: str,
    ) -> None:
        self.said = False
        self._letter, self._say, self._gone = letter, say, gone
        self._space = b" " if leading_space else b""
        self._queue = queue

    async def send(self, prepend: bytes, fence: Fence) -> tuple[Reply, ...]:
        return (await self._accept(prepend, fence, ()),)

    async def pass_rest(self, prepend: bytes, fence: Fence, held: Sequence[Recipient]) -> Reply:
        """As ``send``, without those (see mail.transaction.Transaction)."""
        return await self._accept(prepend, fence, held)

    async def abandon(self) -> None:
        """The answer instead of ACCEPT follows from the disposition."""

    async def _accept(self, prepend: bytes, fence: Fence, held: Sequence[Recipient]) -> Reply:
        stands = await fence()
        if self._gone():
            raise Lost(reply.RELAY_LOST)
        if not stands:
            raise Recalled
        self.said = True
        self._say([*self._fields(prepend), *self._deleted(held), Accept()])
        return Reply.of(250, "2.0.0", f"In the queue of {self._queue}")

    def _fields(self, prepend: bytes) -> list[Answer]:
        fields = [f for f in parse_header(prepend) if f.name.lower() != "received"]
        return [
            InsertHeader(index, f.name.encode(), self._space + f.raw.replace(b"\r\n", b"\n").strip())
            for index, f in enumerate(fields)
        ]

    def _deleted(self, held: Sequence[Recipient]) -> list[Answer]:
        taken = {str(r.address) for r in held}
        pairs = zip(self._letter.recipients, self._letter.paths, strict=True)
        return [DeleteRecipient(path) for path in dict.fromkeys(path for r, path in pairs if str(r.address) in taken)]
