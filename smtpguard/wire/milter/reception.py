"""The connections of one milter listener: accepted, timed, and closed; and the answers after a message's decision.

Those answers are DISCARD once a hold is committed, or an SMTP reply. ACCEPT was sent before, with our trace
(acceptance). One timer serves all connections.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from smtpguard.mail import reply
from smtpguard.mail.envelope import Envelope, Session
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Transaction
from smtpguard.wire.carried import Admit, carry
from smtpguard.wire.connections import Connections
from smtpguard.wire.milter.connection import MilterConnection
from smtpguard.wire.milter.message import Acceptance, MilterSettings, Refusals
from smtpguard.wire.milter.packet import Answer, Discard, SmtpReply
from smtpguard.wire.turnedaway import TurnedAway, turned_away, why_content

log = logging.getLogger("smtpguard.wire")

LOOK_SECONDS = 5.0


class MilterReception(Connections[MilterConnection]):
    """Every connection of MTAs to one listener. Made and used in one event loop."""

    def __init__(
        self,
        settings: MilterSettings,
        admit: Admit,
        *,
        new_id: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
        turned_away: Callable[[TurnedAway], None] = lambda mail: None,
    ) -> None:
        """``turned_away``: called for each message that is answered 4xx without a verdict."""
        super().__init__(monotonic, LOOK_SECONDS)
        self._turned_away = turned_away
        self.settings, self.admit, self.new_id = settings, admit, new_id

    async def serve_connection(
        self, sock: socket.socket, over: Callable[[], None] | None = None, client: str | None = None
    ) -> None:
        """Take over an accepted connection; returns when it is set up, and calls ``over`` when it has ended. ``client``:
        of no use, since no proxy is in front of a milter."""
        _, link = await self.loop.connect_accepted_socket(lambda: MilterConnection(self), sock)
        self._calls(link, over)

    async def decide(
        self, transaction: Transaction, acceptance: Acceptance, refusals: Refusals | None = None
    ) -> Answer | None:
        """Let the guard decide and act. Returns the answer still to be sent; None if ACCEPT was sent. ``refusals``: of
        recipients that are not in the message."""
        self._deciding += 1
        carried = await carry(self.admit, transaction, acceptance, self._decided)
        if carried.why is not None and not acceptance.said:
            told = turned_away(
                transaction.session, transaction.envelope, carried.why, carried.reply, transaction.message
            )
            self._whole(told, refusals)
            return SmtpReply(carried.reply)
        if refusals is not None:
            self.recipients_refused(transaction.envelope, refusals)
        if acceptance.said:
            return None
        if carried.held:
            return Discard()
        if carried.reply.positive:
            log.error("%s was relayed without a word to the MTA", transaction.id)
            return SmtpReply(reply.INTERNAL_ERROR)
        return SmtpReply(carried.reply)

    def refused(self, session: Session, envelope: Envelope, answer: Reply, refusals: Refusals | None = None) -> None:
        """The content of a message cannot be accepted."""
        self._whole(turned_away(session, envelope, why_content(answer), answer), refusals)

    def _whole(self, told: TurnedAway, refusals: Refusals | None) -> None:
        """A whole message is turned away: recipients that were refused before are included, and it is reported once."""
        named = told.recipients + (refusals.recipients if refusals is not None else 0)
        self._turned_away(replace(told, recipients=named, refused=named))

    def recipients_refused(self, envelope: Envelope, refusals: Refusals) -> None:
        """Recipients were refused here, of a message that goes on without them or was dropped."""
        (why, answer), refused = refusals.first, refusals.recipients
        told = turned_away(refusals.session, envelope, why, answer)
        self._turned_away(replace(told, recipients=told.recipients + refused, refused=refused))
