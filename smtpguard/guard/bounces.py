"""What the sender of a released message is told of recipients who could not have it (RFC 3461 section 6, RFC 3464).

An intent for the outbox, rendered when it is sent. Its ``data``:

``dsn``          "failed"
``release``      the id of the outbox entry that failed; with ``hold_id``, what to ask about
``hold_id``, ``message_id``, ``subject``, ``language``     of the message, as they came: escape them
``arrived_at``   when it was held
``envid``, ``ret``, ``content_sha256``    what RFC 3461 wants returned, and of what; null where absent
``recipients``   [{``address``, ``orcpt``: as given or null, ``status``: "5.1.1", ``reply``: the relay's words or "",
                 ``why``: refused | expired | in-doubt | unsendable, ``last_attempt_at``}]

There is none where the reverse-path is null (a DSN is never answered), none for a recipient whose NOTIFY does not want it,
and none for what we wrote ourselves. Never here: its words (mail.dsn), or when a recipient has failed (delivery).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from smtpguard.guard.attempt import Result
from smtpguard.mail.envelope import Recipient
from smtpguard.policy.admission import Delivered, Intent, IntentKind, Lease
from smtpguard.policy.approval import Hold


def report(lease: Lease, hold: Hold, results: Sequence[Result], now: datetime, *, mark: bool) -> tuple[Intent, ...]:
    """The DSN, or nothing where nobody is to be told. ``mark``: written before the attempt, which may need one of its own."""
    told = [r for r in results if r.delivered is Delivered.FAILED and r.recipient.wants_failure]
    if lease.intent.reverse_path is None or not told:
        return ()
    data = {
        "dsn": "failed",
        "release": lease.intent.intent_id,
        "hold_id": hold.hold_id,
        "message_id": hold.message_id,
        "subject": hold.subject,
        "language": hold.language,
        "arrived_at": _z(hold.held_at),
        "envid": hold.envelope.envid,
        "ret": hold.envelope.ret,
        "content_sha256": lease.intent.content_sha256,
        "recipients": [
            {
                "address": str(r.recipient.address),
                "orcpt": r.recipient.orcpt,
                "status": r.status,
                "reply": r.reply,
                "why": r.why,
                "last_attempt_at": _z(now),
            }
            for r in told
        ],
    }
    return (
        Intent(
            intent_id=f"{lease.intent.intent_id}-dsn-{lease.token}{'m' if mark else ''}",
            kind=IntentKind.DSN,
            reverse_path=None,
            recipients=(Recipient(address=lease.intent.reverse_path, notify="NEVER"),),
            hold_id=hold.hold_id,
            data=data,
        ),
    )


def _z(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
