"""DSN intents for the sender of a released message: recipients that failed or are delayed (RFC 3461, RFC 3464).

notices.render tables their data. There is none if the reverse-path is null (a DSN is never answered), for a recipient
whose NOTIFY does not want it, or for smtpguard's own mail. A delay is reported once. For a relay without DSN the sender
is told that no further reports will come (RFC 3461 section 5.2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from smtpguard.holds.model import Hold
from smtpguard.journal.chain import utc_text
from smtpguard.mail.envelope import Recipient
from smtpguard.notices.dsn import Action
from smtpguard.outbox.attempt import OF_CONTENT, Pace, Result
from smtpguard.outbox.model import Delivered, Intent, IntentKind, Lease


def reports(
    lease: Lease, hold: Hold | None, results: Sequence[Result], now: datetime, pace: Pace
) -> tuple[Intent, ...]:
    """The DSNs that are due after an attempt."""
    if hold is None or lease.intent.kind not in OF_CONTENT or lease.intent.reverse_path is None:
        return ()
    failed = [r for r in results if r.delivered is Delivered.FAILED and Action.FAILED.wanted_by(r.recipient)]
    late = now - lease.created_at >= pace.tell_delay
    delayed = [r for r in results if late and r.wait is not None and Action.DELAYED.wanted_by(r.recipient)]
    relayed = [r for r in results if r.delivered is Delivered.SENT and not r.reports]
    relayed = [r for r in relayed if Action.RELAYED.wanted_by(r.recipient)]
    found = []
    if failed:
        found.append(_intent(lease, hold, failed, Action.FAILED, f"failed-{lease.token}", now))
    if relayed:
        found.append(_intent(lease, hold, relayed, Action.RELAYED, f"relayed-{lease.token}", now))
    if delayed:
        until = utc_text(lease.created_at + pace.give_up)
        found.append(_intent(lease, hold, delayed, Action.DELAYED, "delayed", now, retry_until=until))
    return tuple(found)


def _intent(
    lease: Lease, hold: Hold, results: Sequence[Result], action: Action, suffix: str, now: datetime, **more: Any
) -> Intent:
    sender = lease.intent.reverse_path
    assert sender is not None
    data = {
        "action": action.value,
        "recipients": [
            {
                "address": str(r.recipient.address),
                "notify": r.recipient.notify,
                "orcpt": r.recipient.orcpt,
                "reply": r.reply or "",
                "status": r.status if r.why == "unsendable" else "",
                "why": r.why,
                "at": utc_text(now),
            }
            for r in results
        ],
        "envid": hold.envelope.envid,
        "ret": hold.envelope.ret,
        "smtputf8": hold.envelope.smtputf8,
        "arrived_at": utc_text(hold.held_at),
        "language": hold.language,
        "subject": hold.subject,
        "part": lease.intent.kind is IntentKind.PART,
    }
    return Intent(
        intent_id=f"{lease.intent.intent_id}-{suffix}",
        kind=IntentKind.DSN,
        reverse_path=None,
        recipients=(Recipient(address=sender, notify="NEVER"),),
        hold_id=hold.hold_id,
        content_sha256=lease.intent.content_sha256,
        data=data | more,
    )
