"""Messages that are refused without a verdict: the reason, and one record each, for the log and the counters."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from smtpguard.mail import reply
from smtpguard.mail.envelope import Envelope, RefusedRecipient, Session
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply

_MESSAGE_ID_CHARACTERS = 250
"""The most that is kept of a Message-ID."""


class Why(enum.StrEnum):
    """Why a message is refused without a verdict. The values are in the log and are labels of a metric, so they must not
    change. docs/operations.md explains them."""

    CONNECTIONS = "connections"  # limits: {connections, per_client}
    RELAY_DOWN = "relay-down"
    RELAY_SLOW = "relay-slow"  # connected, and no greeting within relay: {wait_seconds}
    RELAY_BUSY = "relay-busy"  # relay: {connections} are all in use
    RELAY_LOST = "relay-lost"  # or it answered differently on a second connection
    SENDER_REFUSED = "sender-refused"  # by the relay
    RECIPIENT_REFUSED = "recipient-refused"  # by the relay: at least one
    BAD_ADDRESS = "bad-address"  # an address that an MTA accepts and we cannot carry
    TOO_MANY_RECIPIENTS = "too-many-recipients"
    OTHER_ROUTE = "other-route"  # the transaction's relay is not this recipient's
    RATE_LIMIT = "rate-limit"  # rates of the listener
    TOO_LARGE = "too-large"
    BAD_CONTENT = "bad-content"
    TOO_SLOW = "too-slow"  # the client
    GAVE_UP = "gave-up"  # the client, while it waited for the answer to RCPT
    STOPPING = "stopping"
    UNDECIDED = "undecided"  # smtpguard_undecided_total says why
    FAILED = "failed"  # an error of smtpguard


NOT_FROM_RELAY: Mapping[Reply, Why] = {
    reply.OTHER_ROUTE: Why.OTHER_ROUTE,
    reply.CLIENT_TOO_FAST: Why.RATE_LIMIT,
    reply.LOGIN_TOO_FAST: Why.RATE_LIMIT,
    reply.RELAY_UNAVAILABLE: Why.RELAY_DOWN,
    reply.RELAY_LOST: Why.RELAY_LOST,
    reply.BUSY: Why.RELAY_BUSY,
    reply.INTERNAL_ERROR: Why.FAILED,
}
"""Replies to a recipient that no relay was asked about. Other recipients of the transaction may be accepted."""

_CONTENT_REASONS: Mapping[Reply, Why] = {
    reply.TOO_BIG: Why.TOO_LARGE,
    reply.DISK_FULL: Why.FAILED,
    reply.INTERNAL_ERROR: Why.FAILED,
}


def why_content(answer: Reply) -> Why:
    """Return why content is refused with this reply."""
    return _CONTENT_REASONS.get(answer, Why.BAD_CONTENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """The record of a refusal without a verdict.

    ``reply``: None if the client did not wait for one; ``listener``: its name; ``queue_id``: the client's, from
    XFORWARD, "" for none; ``message_id``: "" before any content; ``reverse_path``: None before MAIL, "" for the null one;
    ``recipients``: how many were named; ``refused``: how many of them were refused.
    """

    why: Why
    reply: Reply | None
    client: str
    listener: str
    queue_id: str = ""
    message_id: str = ""
    reverse_path: str | None = None
    recipients: int = 0
    refused: int = 0

    @classmethod
    def of(
        cls, session: Session, mail: Envelope, why: Why, reply: Reply | None, *, recipients: int, refused: int,
        message_id: str = "",
    ) -> TurnedAway:  # fmt: skip
        return cls(
            why=why,
            reply=reply,
            client=session.client_ip,
            listener=session.listener,
            queue_id=session.ident,
            message_id=message_id,
            reverse_path=str(mail.reverse_path or ""),
            recipients=recipients,
            refused=refused,
        )


class Refusals:
    """The refused recipients of one transaction after another, and the reason to turn one away.

    ``named``: the number of recipients that were answered; ``by_relay``: the recipients that the relay refused;
    ``first``: the first reason and its reply, None while nothing was refused.
    """

    __slots__ = ("_message_id", "_refused", "by_relay", "first", "named")

    def __init__(self) -> None:
        self.named = self._refused = 0
        self.by_relay: list[RefusedRecipient] = []
        self.first: tuple[Why, Reply | None] | None = None
        self._message_id = ""

    def refuse(self, why: Why, answer: Reply | None, *, recipients: int = 1) -> None:
        """Count so many more recipients, as refused."""
        self.named += recipients
        self._refused += recipients
        self.first = self.first or (why, answer)

    def turn_away(self, why: Why, answer: Reply, message: Message | None) -> None:
        """Count all recipients as refused. ``message``: None before its content is complete."""
        self._refused = self.named
        self.first = self.first or (why, answer)
        if message is not None:
            self._message_id = message_id_of(message)

    def take_by_relay(self) -> tuple[RefusedRecipient, ...]:
        """Return and forget the recipients that the relay refused."""
        taken, self.by_relay = tuple(self.by_relay), []
        return taken

    def report(self, session: Session, mail: Envelope) -> TurnedAway:
        """Return and forget what was refused. ``first`` must be set."""
        assert self.first is not None
        record = TurnedAway.of(
            session, mail, *self.first, recipients=self.named, refused=self._refused, message_id=self._message_id
        )
        self.first, self._message_id, self._refused = None, "", 0
        return record


def message_id_of(message: Message) -> str:
    """Return the Message-ID field, on one line and limited in length; "" if there is none."""
    return " ".join((message.header.get("Message-ID") or "").split())[:_MESSAGE_ID_CHARACTERS]
