"""Ask people about a release to a list's address in doubt: was it sent, or is it to be sent again.

Thousands of people may have it already, so it is never repeated automatically. The approvers and the guard's contact are told
at once, and again each working hour until somebody answers. The wait for an answer to a revoked release ends here too, and so
does the wait for the outcome of a verdict to relay.
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
from smtpguard.outbox.attempt import audience, release_ended

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

AGAIN = timedelta(hours=1)
NOBODY_ASKED = "no one is asked whether it was sent"


async def sweep(store: Store, notices: NoticesNow, outage: Outage) -> int:
    """Ask people about all releases that are due for it. Returns how many holds changed."""
    return await each(await store.outbox.to_ask(), partial(_by, _ask, store=store, notices=notices), outage)


async def remind(hold_id: str, store: Store, notices: NoticesNow) -> None:
    """Ask people again about a release."""
    await _by(_remind, hold_id, store, notices)


async def _by(change: Callable[..., Change], hold_id: str, store: Store, notices: NoticesNow) -> None:
    step, ended = partial(change, notices=notices), partial(release_ended, in_force=notices.in_force, now=notices.now)
    await store.outbox.ask_about(hold_id, step, ended)


async def each(hold_ids: Iterable[str], change: Callable[[str], Awaitable[object]], outage: Outage) -> int:
    """Change holds, each in a commit of its own. Returns how many changed. A change that fails is left for the next call, and
    told to ``outage``. A hold that was decided meanwhile is left alone."""
    changed, failed = 0, False
    for hold_id in hold_ids:
        try:
            await change(hold_id)
            changed += 1
        except Refused:
            continue
        except (StoreError, KeyError) as error:
            outage.report(f"hold {hold_id}: {error!r}")
            failed = True
    if not failed:
        outage.end()
    return changed


def _ask(hold: Hold, recipients: Sequence[Recipient], notices: NoticesNow) -> Change:
    """Return the change by which people are asked about a hold whose release is in doubt."""
    people = audience(hold, recipients, notices.in_force).number(recipients)
    state = after(hold.state, Move.DOUBT)
    if state is None or hold.asked_at is not None:
        return Change()  # it is not to be sent any more, or people are asked already
    asked = replace(hold, state=state, asked_at=notices.now, attend_at=_next(notices.in_force, notices.now))
    counts: dict[str, Any] = {"recipients": len(recipients), "people": people}
    event = event_on(hold, Kind.IN_DOUBT, notices.now, named=recipients, outcome="asked", **counts)
    return Change(hold=asked, events=(event,), intents=notices.doubt(hold, people, notices.now))


def _remind(hold: Hold, recipients: Sequence[Recipient], notices: NoticesNow) -> Change:
    """Return the change by which people are asked again."""
    if hold.asked_at is None:
        return Change()  # somebody has answered meanwhile
    people = audience(hold, recipients, notices.in_force).number(recipients)
    event = event_on(hold, Kind.REMINDED, notices.now, what="doubt")
    again = replace(hold, attend_at=_next(notices.in_force, notices.now))
    return Change(hold=again, events=(event,), intents=notices.doubt(hold, people, hold.asked_at))


def answered(
    hold: Hold,
    recipients: Sequence[Recipient],
    *,
    sent: bool,
    actors: tuple[str, ...],
    comment: str,
    notices: NoticesNow,
) -> Change:
    """Return the change by a person's answer. ``sent``: it was sent; else it is sent again."""
    people = audience(hold, recipients, notices.in_force).number(recipients)
    data = {"choice": "sent" if sent else "again", "recipients": len(recipients), "people": people}
    event = event_on(hold, Kind.SETTLED, notices.now, actors=actors, comment=comment, named=recipients, **data)
    settled = replace(hold, asked_at=None)
    return Change(hold=settled if sent else settled.moved(Move.ATTEMPT), events=(event,))


def _next(in_force: InForce, now: datetime) -> datetime:
    """Return the time an hour on, within working hours."""
    return in_force.hours.working_deadline(now, AGAIN, within=True)


SETTLED_WITHIN = timedelta(minutes=15)  # longer than any wait for a relay's reply (RFC 5321 section 4.5.3.2.6)


async def report_doubts(store: Store, clock: Clock) -> tuple[str, ...]:
    """Journal an IN_DOUBT (RFC 1047) for each verdict to relay that has waited too long for its outcome, as after a crash.
    Returns their ids. The client got no 250, so it tries again. A retry to a list's address then waits for a person, since the
    relay may have accepted the first message. Raises StoreError."""
    before = clock.now() - SETTLED_WITHIN
    return await store.journal.doubt(before) if await store.journal.unsettled(before) else ()
