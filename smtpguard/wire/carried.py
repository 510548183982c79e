"""The SMTP reply to a whole message: the one mapping from verdict and disposition to a reply (RFC 5321 section 4.2). And
messages that are refused without a verdict: one record each, for the log and the counters."""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from smtpguard.mail import reply
from smtpguard.mail.constant import constant, maker
from smtpguard.mail.envelope import Envelope, Lost, Onward, Recalled, Session, Transaction
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected, Relayed, Taken

_MOST_OF_AN_ID = 250


class Why(enum.StrEnum):
    """The words are in the log and are labels of a metric: do not change them. docs/operations.md explains them."""

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


_OF_CONTENT: Mapping[Reply, Why] = {
    reply.TOO_BIG: Why.TOO_LARGE,
    reply.DISK_FULL: Why.FAILED,
    reply.INTERNAL_ERROR: Why.FAILED,
}


def why_content(answer: Reply) -> Why:
    """Why a content is refused with this answer."""
    return _OF_CONTENT.get(answer, Why.BAD_CONTENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """``refused`` of ``recipients`` that were named; both 0 before any. ``queue_id``: the client's, from XFORWARD; ""
    for none. ``message_id``: "" before any content. ``reverse_path``: None before MAIL, "" for the null one.
    ``listener``: its name. ``reply``: None if the client did not wait for one."""

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


def message_id_of(message: Message) -> str:
    """From its header, on one line and limited in length; "" if there is none."""
    return " ".join((message.header.get("Message-ID") or "").split())[:_MOST_OF_AN_ID]


log = logging.getLogger("smtpguard.wire")

Admit = Callable[[Transaction, Onward], Awaitable[Disposition]]


@constant
class Carried:
    """``held``: the message waits here, was released before, or was for the guard itself. ``why``: set if there is no
    verdict."""

    reply: Reply
    held: bool = False
    why: Why | None = None


_new_carried = maker(Carried)


async def carry(admit: Admit, transaction: Transaction, onward: Onward, done: Callable[[], None]) -> Carried:
    """Let the guard decide and act. Raises nothing but CancelledError. In any case ``onward`` is over then, and ``done`` is
    called."""
    try:
        disposition = await admit(transaction, onward)
    except Lost as lost:
        return Carried(reply=lost.reply, why=Why.RELAY_LOST)
    except Recalled:
        return Carried(reply=reply.RECALLED, why=Why.UNDECIDED)
    except Exception as error:
        log.error("error in deciding %s: %s", transaction.id, type(error).__name__, exc_info=error)
        return Carried(reply=reply.INTERNAL_ERROR, why=Why.FAILED)
    finally:
        await onward.abandon()
        done()
    match disposition:
        case Relayed(replies=(first, *_)):
            return _new_carried(reply=first)
        case Held(hold_id=hold_id, released=released):
            return Carried(reply=reply.released(hold_id) if released else reply.held(hold_id), held=True)
        case Taken(reply=answer):
            return Carried(reply=answer, held=True)
        case Rejected(reply=answer):
            return Carried(reply=answer)
        case Deferred(reply=answer, undecided=undecided):
            return Carried(reply=answer, why=Why.UNDECIDED if undecided else None)
    log.error("no reply to %s: %s", transaction.id, disposition)
    return Carried(reply=reply.INTERNAL_ERROR, why=Why.FAILED)
