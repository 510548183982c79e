"""What one client's commands come to before they are answered: the mail transaction that they make up (RFC 5321 section 3.3), and
the replies that wait (RFC 2920 section 3).

RCPTs are not answered at once: they wait until nothing more has come in, or an answer is needed, and are then asked of the
relay together; replies leave in the order of the commands all the same.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

from smtpguard.mail import reply
from smtpguard.mail.envelope import Envelope, Recipient
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import RefusedRecipient
from smtpguard.wire.desk import Desk
from smtpguard.wire.identity import Identity
from smtpguard.wire.proxy import Ask, Passage
from smtpguard.wire.turned import TurnedAway, Why, message_id_of


class Pipeline:
    """``out``: replies not yet written, None for what the relay is yet to say. ``asks``: what it is yet to be asked.

    ``mail``: of the transaction; ``recipients``: those that were accepted, ``refused``: those that the relay would not have;
    ``passage``: to the relay; ``deadline``: until when it must be complete.
    """

    def __init__(self, identity: Identity, desk: Desk) -> None:
        self.out: list[Reply | None] = []
        self.asks: list[Ask] = []
        self.mail: Envelope | None = None
        self.recipients: list[Recipient] = []
        self.refused: list[RefusedRecipient] = []
        self.passage: Passage | None = None
        self.deadline = math.inf
        self._identity, self._desk = identity, desk
        self._asked_at = math.inf
        self._named = self._refused = 0  # recipients
        self._turned: tuple[Why, Reply | None] | None = None
        self._message_id = ""

    def say(self, answer: Reply) -> None:
        self.out.append(answer)

    def ask(self, ask: Ask) -> None:
        self.asks.append(ask)
        self.out.append(None)

    def take_replies(self) -> bytes:
        out, self.out = self.out, []
        if len(out) == 1:
            return out[0].wire() if out[0] is not None else b""
        return b"".join([said.wire() for said in out if said is not None])

    async def settle(self) -> None:
        """Ask the relay what is to be asked, and put its answers where they belong."""
        if not self.asks:
            return
        asks, self.asks = self.asks, []
        assert self.passage is not None
        try:
            answers = await self.passage.ask(asks)
        except asyncio.CancelledError:
            self._refuse(Why.GAVE_UP, None, recipients=len(asks))
            raise
        self._asked_at = self._desk.monotonic()
        if len(asks) == len(self.out) == 1:  # a client that waits for each reply
            self.out[0] = self._answered(asks[0], answers[0])
        else:
            answered = zip(asks, answers, strict=True)
            self.out = [self._answered(*next(answered)) if said is None else said for said in self.out]

    def fail(self, *, in_command: bool) -> None:
        """An error of ours: a 451 for all it struck, and no word of it. ``in_command``: for the one that is being done, too."""
        self.turn_away(Why.FAILED, reply.INTERNAL_ERROR)
        self.out = [said or reply.INTERNAL_ERROR for said in self.out]
        if in_command:
            self.say(reply.INTERNAL_ERROR)
        self.asks = []
        self.reset()

    def reset(self) -> None:
        """No transaction; at the relay neither. Where it was turned away, all of it or some recipients, that is told now; and that nothing
        came of one of which the relay refused recipients."""
        if self.refused and self.mail is not None:
            envelope = replace(self.mail, recipients=tuple(self.recipients))
            self._desk.came_to_nothing(self._identity.session, envelope, tuple(self.refused))
        self.refused = []
        if self.passage is not None:
            self.passage.close()
            self.passage = None
        if self._turned is not None:
            self._desk.turned_away(self._turned_away(*self._turned))
            self._turned = None
        self._named = self._refused = 0
        self._message_id = ""
        self.mail = None
        self.recipients = []
        self.deadline = math.inf
        self._identity.transaction_over()

    def turn_away(self, why: Why, answer: Reply, *, message: Message | None = None) -> None:
        """The transaction, if there is one, ends without a verdict: all of it. What came first is the reason that is told."""
        if self.mail is None:
            return
        self._refused = self._named
        self._turned = self._turned or (why, answer)
        if message is not None:
            self._message_id = message_id_of(message)

    def refuse(self, why: Why, answer: Reply) -> None:
        """One recipient, here."""
        self.say(answer)
        self._refuse(why, answer)

    def dawdling(self, now: float, quiet_since: float) -> bool:
        """The client is waited for: others have the relay connection if that takes long. Whether they need one that is this
        client's own, because it has logged in."""
        limits, pressed = self._desk.listener.limits, self._desk.pool.pressed
        if self._identity.line is not None:
            return pressed and now - quiet_since >= limits.quiet_login_seconds
        if self.passage is not None:
            longest = limits.pressed_seconds if pressed else limits.dawdle_seconds
            if now - self._asked_at >= longest:
                self.passage.park()
        return False

    def _answered(self, ask: Ask, answer: Reply) -> Reply:
        if answer.positive:
            self._named += 1
            self.recipients.append(ask[0])
        else:
            assert self.passage is not None
            self._refuse(self.passage.why, answer)
            if self.passage.broken is None:  # else it is no word of the relay's about this recipient
                self.refused.append(RefusedRecipient.of(ask[0], answer))
        return answer

    def _refuse(self, why: Why, answer: Reply | None, *, recipients: int = 1) -> None:
        self._named += recipients
        self._refused += recipients
        self._turned = self._turned or (why, answer)

    def _turned_away(self, why: Why, answer: Reply | None) -> TurnedAway:
        session, mail = self._identity.session, self.mail
        return TurnedAway(
            why=why,
            reply=answer,
            client=session.client_ip,
            listener=session.listener,
            queue_id=session.ident,
            message_id=self._message_id,
            reverse_path=str(mail.reverse_path or "") if mail is not None else None,
            recipients=self._named,
            refused=self._refused,
        )
