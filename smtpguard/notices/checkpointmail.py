"""The daily mail of the newest checkpoint to an auditor: a witness that needs nothing but a mailbox.

It is a NOTICE intent like others (notices), whose ``data`` has ``notice``: checkpoint. When it is sent, ``fill`` adds ``seq``: the
entry, ``at``: when it was signed, and ``note``: the lines of the signed note, which stand on one in the mail, as in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from smtpguard.guard.ports import Clock, Ledger, PolicyInForce
from smtpguard.journal.chain import instant, utc_text
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.notices.noticedata import NONE
from smtpguard.notices.shadowreport import day_of
from smtpguard.outbox.model import Intent, IntentKind

CHECKPOINT = "checkpoint"


class Checkpoints:
    """Writes the intent of each day, once a day; also over all nodes, since its id is the same."""

    def __init__(self, ledger: Ledger, policies: PolicyInForce, clock: Clock, auditor: Address) -> None:
        self._ledger, self._policies, self._clock, self._auditor = ledger, policies, clock, auditor
        self._written: datetime | None = None

    async def write(self) -> None:
        """The mail of today, to be sent at its end. Raises LedgerError."""
        since, until = day_of(self._clock.now(), self._policies.current())
        if self._written == since:
            return
        intent = Intent(
            intent_id=f"{CHECKPOINT}-{since:%Y%m%dT%H%M}",
            kind=IntentKind.NOTICE,
            reverse_path=None,
            recipients=(Recipient(address=self._auditor, notify="NEVER"),),
            data={**NONE, "notice": CHECKPOINT},
            not_before=until,
        )
        await self._ledger.journal.record([], (intent,))
        self._written = since


async def fill(ledger: Ledger, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The data with the newest checkpoint; None if there is none. Raises LedgerError."""
    newest = next(iter(await ledger.journal.checkpoints(-1, 1)), None)
    if newest is None:
        return None
    at = utc_text(instant(newest.at))
    return {**data, "seq": newest.seq, "at": at, "note": newest.note.split("\n")}
