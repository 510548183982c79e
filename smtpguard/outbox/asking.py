"""A release to a list address that is in doubt waits for people, who say that it was sent, or have it sent again.

Thousands of people may have it already, so it is never repeated automatically. The approvers and the guard's contact
are told at once, and again each working hour until somebody has acted. The wait for an outcome of what was revoked ends
here too, and so does the wait for the outcome of a verdict to relay.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from smtpguard.database.errors import Outage, StoreError
from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import Change, Hold, Move, Refused, after, event_on
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Kind
from smtpguard.mail.envelope import Recipient
from smtpguard.notices.intents import NoticesNow
from smtpguard.outbox.attempt import over, persons_behind

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

AGAIN = timedelta(hours=1)
NOBODY_ASKED = "no one is asked whether it was sent"


async def sweep(store: Store, notices: NoticesNow, outage: Outage) -> int:
    """Ask people about all releases that are due for it. Returns how many holds changed."""
    step, ended = partial(_asked, notices=notices), partial(over, in_force=notices.in_force, now=notices.now)
    return await each(
        await store.outbox.in_doubt(), lambda hold_id: store.outbox.ask_about(hold_id, step, ended), outage
    )


async def each(hold_ids: Iterable[str], change: Callable[[str], Awaitable[object]], outage: Outage) -> int:
    """Change these holds, each in a commit of its own. Returns how many changed. One that fails is left for the next
    call, and ``outage`` told; one that was decided meanwhile is left alone."""
    changed, failed = 0, False
    for hold_id in hold_ids:
        try:
            await change(hold_id)
            changed += 1
        except Refused:
            continue
        except (StoreError, KeyError) as error:
            outage.tell(f"hold {hold_id}: {error!r}")
            failed = True
    if not failed:
        outage.over()
    return changed


def _asked(hold: Hold, recipients: Sequence[Recipient], notices: NoticesNow) -> Change:
    people = sum(one.weight for one in persons_behind(hold, recipients, notices.in_force))
    state = after(hold.state, Move.DOUBT)
    if state is None:
        return Change()  # it is not to be sent any more
    asked = replace(hold, state=state, asked_at=notices.now, attend_at=_next(notices.in_force, notices.now))
    counts: dict[str, Any] = {"recipients": len(recipients), "people": people}
    event = event_on(hold, Kind.IN_DOUBT, notices.now, named=recipients, outcome="asked", **counts)
    return Change(hold=asked, events=(event,), intents=notices.doubt(hold, people, notices.now))


def reminded(hold: Hold, notices: NoticesNow) -> Change:
    """No answer yet: they are asked again."""
    assert hold.asked_at is not None
    event = event_on(hold, Kind.REMINDED, notices.now, what="doubt")
    again = replace(hold, attend_at=_next(notices.in_force, notices.now))
    return Change(hold=again, events=(event,), intents=notices.doubt(hold, hold.reach, hold.asked_at))


def said(
    hold: Hold,
    recipients: Sequence[Recipient],
    *,
    sent: bool,
    actors: tuple[str, ...],
    comment: str,
    notices: NoticesNow,
) -> Change:
    """A person's answer; ``sent``: it was, else it is to be sent again."""
    people = sum(one.weight for one in persons_behind(hold, recipients, notices.in_force))
    data = {"choice": "sent" if sent else "again", "recipients": len(recipients), "people": people}
    event = event_on(hold, Kind.SETTLED, notices.now, actors=actors, comment=comment, named=recipients, **data)
    answered = replace(hold, asked_at=None)
    return Change(hold=answered if sent else answered.moved(Move.ATTEMPT), events=(event,))


def _next(in_force: InForce, now: datetime) -> datetime:
    """An hour on, in working hours."""
    return in_force.hours.working_deadline(now, AGAIN, within=True)


SETTLED_WITHIN = timedelta(minutes=15)  # longer than any wait for a relay's reply (RFC 5321 section 4.5.3.2.6)


async def report_doubts(store: Store, clock: Clock) -> tuple[str, ...]:
    """Journal an IN_DOUBT (RFC 1047) for each verdict to relay that has waited too long for its outcome, as after a
    crash; returns their ids. The client got no 250, so it tries again; a retry to a list address then waits for a
    person, since the relay may have accepted the first one. Raises StoreError."""
    before = clock.now() - SETTLED_WITHIN
    return await store.journal.doubt(before) if await store.journal.unsettled(before) else ()
