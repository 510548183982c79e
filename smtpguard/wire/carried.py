"""The SMTP reply to a whole message: the one mapping from verdict and disposition to a reply (RFC 5321 section 4.2)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from smtpguard.mail import reply
from smtpguard.mail.constant import constant, maker
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Lost, Onward, Recalled, Transaction
from smtpguard.policy.verdict import Counted, Deferred, Disposition, Held, Rejected, Relayed
from smtpguard.wire.turnedaway import Why

log = logging.getLogger("smtpguard.wire")

Admit = Callable[[Transaction, Onward], Awaitable[Disposition]]


@constant
class Carried:
    """``held``: the message waits here, was released before, or was for the guard itself. ``drop``: close the connection
    after the reply. ``why``: set if there is no verdict."""

    reply: Reply
    held: bool = False
    drop: bool = False
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
        case Counted(reply=answer):
            return Carried(reply=answer, held=True)
        case Rejected(reply=answer):
            return Carried(reply=answer)
        case Deferred(reply=answer, drop=drop, undecided=undecided):
            return Carried(reply=answer, drop=drop, why=Why.UNDECIDED if undecided else None)
    log.error("no reply to %s: %s", transaction.id, disposition)
    return Carried(reply=reply.INTERNAL_ERROR, why=Why.FAILED)
