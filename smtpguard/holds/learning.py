"""Learn what the approval of a hold covers beside it: the slots in which its copies differ, or other tests of its mailing."""

from __future__ import annotations

import asyncio
from datetime import datetime

from smtpguard.guard.ports import Ledger
from smtpguard.holds import effects
from smtpguard.holds.effects import NOTHING_LEARNED, Learned
from smtpguard.holds.model import Choice, Hold, standing_votes
from smtpguard.reading.shown import Shown


async def learned(ledger: Ledger, hold_id: str, under: int | None, slots: float, now: datetime) -> Learned:
    """Learned from no more copies than each approver had seen; ``under``: how many the next one has, None for all.
    Raises LedgerError."""
    hold = await ledger.holds.find(hold_id)
    if hold is None or not (hold.queue or effects.covers_copies(hold)):
        return NOTHING_LEARNED
    votes = [v for v in standing_votes(hold) if v.choice is Choice.APPROVE]
    counted = (v.letters if hold.queue else v.copies for v in votes)
    known = [n for n in (*counted, under) if n is not None]
    if hold.queue:
        return Learned(letters=min((*known, await ledger.holds.letters(hold_id), effects.MOST_LETTERS)))
    if hold.kind == effects.TEST:
        own, others = await _versions(ledger, hold, now)
        return await asyncio.to_thread(effects.learned_from_tests, own, others[: min((*known, len(others)))], slots)
    rows = await ledger.holds.under(hold_id)
    most = min((*known, len(rows) - 1))
    return await asyncio.to_thread(effects.learned, rows[: most + 1], slots)


async def _versions(ledger: Ledger, hold: Hold, now: datetime) -> tuple[Shown | None, list[Shown]]:
    """The content that a test shows, and each other version of its mailing that is approved beforehand for its lists,
    from its author, in the order of approval."""
    mailing = await ledger.mailings.find(hold.mailing_id) if hold.mailing_id else None
    lists = frozenset(hold.lists)
    covers = {
        grant.hold_id: grant.cover
        for grant in sorted(mailing.grants if mailing is not None else (), key=lambda g: (g.since, g.hold_id))
        if grant.beforehand and grant.cover is not None and now < grant.until and lists <= grant.lists
    }
    same = [i for i, cover in covers.items() if (cover.author, cover.proofs) == (hold.author, hold.proofs)]
    shown = await ledger.holds.shown([hold.hold_id, *same])
    others = {shown[i].digest: shown[i] for i in same if i != hold.hold_id and i in shown}
    return shown.get(hold.hold_id), [one for digest, one in others.items() if digest != hold.exact]
