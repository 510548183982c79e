"""Let the stored copies of a mailing follow their primary hold, a slice a commit: sent when it is approved, back to
waiting when it is revoked.

What an approval covers beside its hold is learned before it: the slots in which the copies differ, or other tests of the
mailing (``learned``). The sweep continues what a crash, a pause between two stages, or a copy in flight has left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from smtpguard.database.errors import StoreError
from smtpguard.holds import effects
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.effects import NOTHING_LEARNED, Learned
from smtpguard.holds.model import LET_GO, Change, Choice, Hold, State, standing_votes
from smtpguard.holds.sending import Sending
from smtpguard.journal.event import Event, Kind
from smtpguard.mailings.model import Mailing
from smtpguard.mailings.revocation import with_its_lead
from smtpguard.mailings.staging import Progress
from smtpguard.notices.intents import NoticesNow
from smtpguard.outbox.model import Intent
from smtpguard.reading.shown import Shown

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

log = logging.getLogger(__name__)

SLICE = 100
"""The most copies that follow in one commit."""


async def paused(store: Store, holds: Iterable[Hold]) -> dict[str, Mailing]:
    """Return the mailings of which a primary hold was sent and copies wait for their stage, by the hold's id.

    Raises StoreError.
    """
    sent = [hold for hold in holds if hold.copies and hold.mailing_id and hold.state is State.RELEASED]
    found = (
        {one.mailing_id: one for one in await store.mailings.paused({hold.mailing_id for hold in sent})} if sent else {}
    )
    return {hold.hold_id: found[hold.mailing_id] for hold in sent if hold.mailing_id in found}


async def follow(store: Store, lead_id: str, notices: NoticesNow, term: Deadlines) -> int:
    """Let the copies under a decided primary hold follow it. Return how many did."""
    in_force, now = notices.in_force, notices.now
    followed = 0
    later: list[str] = []  # letters of a sender that came after those that were decided on

    def step(
        lead: Hold, copy: Hold, mailing: Mailing | None, new: int, sending: Sending, covered: bool
    ) -> Change | None:
        if copy.state is not State.WAITING:
            return with_its_lead(lead, copy, sending, notices)
        if lead.state not in LET_GO or covered:
            return effects.change_of_follower(lead, copy, mailing, new, now)
        ended = mailing is not None and all(grant.hold_id != lead.hold_id for grant in mailing.grants)
        ended = ended and not lead.queue
        kind = Kind.REOPENED if ended else Kind.APART
        event = Event(kind=kind, id=copy.hold_id, at=now, data={"with": lead.hold_id})
        if not lead.queue and mailing is not None and mailing.entry:
            return Change(hold=copy, events=(event,))
        # It waits for people, who get a notice of the first such: the primary hold of the others.
        successor = term.anew(replace(copy.in_place_of(lead), primary=""), in_force, now)
        told: tuple[Intent, ...] = ()
        if not lead.queue or not later:
            told = notices.set_apart(successor, lead, "later" if lead.queue else "ended" if ended else "differs")
        if lead.queue:
            later.append(copy.hold_id)
        return Change(hold=successor, events=(event,), intents=told)

    while True:
        n = await store.holds.follow(lead_id, SLICE, step)
        followed += n
        if n < SLICE:
            return followed


async def begin(store: Store, lead_id: str, notices: NoticesNow, term: Deadlines) -> None:
    """Let copies follow after a committed decision. A busy store raises nothing, since the decision is in force; the sweep goes
    on with the copies."""
    try:
        await follow(store, lead_id, notices, term)
    except StoreError as error:
        log.warning("copies of hold %s follow later: %s", lead_id, error)


async def sweep(store: Store, notices: NoticesNow, term: Deadlines) -> int:
    """Let all copies follow that have not. Return how many did. One delivery process calls this every few seconds."""
    return sum([await follow(store, lead_id, notices, term) for lead_id in await store.holds.leads_to_follow()])


async def notify_of_stages(store: Store, notices: NoticesNow) -> None:
    """Notify people once that the stages of a mailing wait for one of them. Beyond the first few mailings of a window the
    notice comes in the next one."""
    for one in await store.mailings.standing():
        if one.grant is None or one.progress is None or one.progress.told:
            continue
        hold = await store.holds.find(one.grant.hold_id)
        if hold is None:
            continue
        verdict = replace(hold.verdict, quorum=notices.in_force.rules.quorum(one.lists) or hold.verdict.quorum)
        asked = replace(hold, lists=one.lists, senders=hold.senders | one.writers, verdict=verdict)
        if told := notices.stages(asked, one, one.progress):
            await store.mailings.change(one.mailing_id, partial(_notified, one.progress, told))


def _notified(progress: Progress, told: tuple[Intent, ...], mailing: Mailing) -> tuple[Mailing, Change]:
    """Return the mailing with the notices that people get of its progress; no change if it has moved on meanwhile."""
    if mailing.progress != progress:
        return mailing, Change()
    return replace(mailing, progress=replace(progress, told=True)), Change(intents=told)


async def learned(store: Store, hold_id: str, under: int | None, slots: float) -> Learned:
    """Return what was learned of the copies under a hold, from no more of them than each approver had seen.

    ``under``: how many copies the next approver sees, None for all. Raises StoreError.
    """
    hold = await store.holds.find(hold_id)
    if hold is None or not (hold.queue or effects.covers_copies(hold)):
        return NOTHING_LEARNED
    votes = [v for v in standing_votes(hold) if v.choice is Choice.APPROVE]
    counted = (v.letters if hold.queue else v.copies for v in votes)
    known = [n for n in (*counted, under) if n is not None]
    if hold.queue:
        return Learned(letters=min((*known, await store.holds.count_letters(hold_id), effects.MOST_LETTERS)))
    if hold.kind == effects.TEST:
        own, others = await _versions(store, hold)
        return await asyncio.to_thread(effects.learned_from_tests, own, others[: min((*known, len(others)))], slots)
    rows = await store.holds.shown_under(hold_id)
    most = min((*known, len(rows) - 1))
    return await asyncio.to_thread(effects.learned, rows[: most + 1], slots)


async def _versions(store: Store, hold: Hold) -> tuple[Shown | None, list[Shown]]:
    """Return the content that a test shows, and the other versions of its mailing that are approved beforehand for its lists,
    from its author, in the order of approval."""
    mailing = await store.mailings.find(hold.mailing_id) if hold.mailing_id else None
    lists = frozenset(hold.lists)
    covers = {
        grant.hold_id: grant.cover
        for grant in sorted(mailing.grants if mailing is not None else (), key=lambda g: (g.since, g.hold_id))
        if grant.beforehand and grant.cover is not None and lists <= grant.lists
    }
    same = [i for i, cover in covers.items() if (cover.author, cover.proofs) == (hold.author, hold.proofs)]
    shown = await store.holds.shown_of_each([hold.hold_id, *same])
    others = {shown[i].digest: shown[i] for i in same if i != hold.hold_id and i in shown}
    return shown.get(hold.hold_id), [one for digest, one in others.items() if digest != hold.exact]
