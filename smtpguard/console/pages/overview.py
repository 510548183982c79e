"""The Overview page: waiting holds, freezes, health, and figures of today and the last 30 days; and the pages behind it.

The figures are those of `smtpguard report` (incidents.activity). Each links to what it counts: held messages, or the journal page of
messages that passed, or were deferred, rejected or only observed. For auditors there are the votes of each approver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.console import chart
from smtpguard.console.filters import ANY, PAGE, Filters, count_to_decide, midnight
from smtpguard.console.pages.holds import mailings_to_decide, rule_choices
from smtpguard.console.rendering import digits, form, page, see_other, services_of, speech, text_of
from smtpguard.console.rulewords import AIMS, rule_in_words
from smtpguard.console.services import ACTING, OPERATING, SEEING, Routes, person
from smtpguard.guard.inforce import InForce
from smtpguard.incidents.activity import Activity, ActivityFilter, Decided, approver_shares
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.index import State as Index
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech
from smtpguard.observe.alarms import RaisedAlarm

DAYS = 30
PERIODS = (1, 7, DAYS)
UNCOUNTED = 10_000
"""The most entries without sums that a page reads."""
STORE = ("store-away", "store-put-back", "start-fails")
"""The alarms in the store's tile."""
RELAY = ("relay-away", "deferring")
"""The alarms in the relay's tile."""
DID = {
    "relayed": N_("passed"),
    "asked": N_("writer asked"),
    "held": N_("held"),
    "rejected": N_("refused"),
    "deferred": N_("deferred"),
    "observed": N_("only observed"),
}
"""What was done with a message, as the journal page filters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The figures of the last ``days`` days, today included. ``since``: the first of them."""

    days: int
    found: Activity
    since: date


ROUTES = Routes()


@ROUTES.get("/")
async def overview(request: Request) -> Response:
    here, who, said = services_of(request), person(request), speech(request)
    if not who.roles:
        return see_other("/mine")
    in_force = here.in_force
    asked = request.query_params.get("days", "")
    days = int(asked) if asked in map(str, PERIODS) else DAYS
    figures = {n: await _figure(request, n) for n in sorted({1, days, DAYS})}
    chosen, month = figures[days], figures[DAYS]
    alarms = await here.alarms()
    waits = await here.store.holds.count_waiting()
    entries, signed = await here.store.journal.signed()
    return await page(
        request,
        "overview.html",
        waits=waits,
        standing=len(await mailings_to_decide(here, who)),
        mine=await count_to_decide(here, who) if Role.APPROVER in who.roles else None,
        figures=[figures[1], month],
        spans=lambda decided: _spans(decided, said),
        chosen=chosen,
        periods=PERIODS,
        aims={name: said(aim) for name, aim in AIMS.items()}
        | {r.rule_id: rule_in_words(r, said).aim for r in in_force.rules.rules},
        drawn=_charts(month),
        uncounted=max(each.found.uncounted for each in figures.values()),
        unwell=_unwell(in_force, said),
        listed=len(in_force.registry.lists),
        store=[alarm for alarm in alarms if alarm.name in STORE],
        relay=[alarm for alarm in alarms if alarm.name in RELAY],
        alarms=_untiled(alarms),
        entries=entries,
        signed=signed,
        link=_link,
        sees_all=who.sees_all,
        enforce=in_force.enforce,
        any=ANY,
        approvers=here.settings.audit.approvers and who.operates,
    )


async def _figure(request: Request, days: int) -> Figure:
    here = services_of(request)
    zone = here.in_force.hours.zone
    first = here.clock.now().astimezone(zone).date() - timedelta(days=days - 1)
    return Figure(
        days=days,
        since=first,
        found=await here.store.journal.activity(midnight(first, zone), None, zone, most=UNCOUNTED),
    )


def _spans(decided: Decided, said: Speech) -> tuple[str, str]:
    """Return the times within which half, and nine of ten, were decided, "" if they are unknown."""
    some = (decided.median_seconds, decided.p90_seconds)
    median, most = ("" if seconds is None else said.span(timedelta(seconds=seconds)) for seconds in some)
    return median, most


def _charts(
    month: Figure,
) -> tuple[chart.Bars[date] | None, chart.Bars[date] | None, list[tuple[date, tuple[int, ...]]]]:
    """Return a chart of what passed, one of what was stopped, and the numbers for each day, days without mail included."""
    known = {day.day: (day.relayed, day.held, day.rejected, day.deferred) for day in month.found.days}
    days = [month.since + timedelta(days=n) for n in range(month.days)]
    table: list[tuple[date, tuple[int, ...]]] = [(day, known.get(day, (0, 0, 0, 0))) for day in days]
    passed = chart.stacked_bars([(day, values[:1]) for day, values in table])
    return passed, chart.stacked_bars([(day, values[1:]) for day, values in table]), table


def _unwell(in_force: InForce, said: Speech) -> list[tuple[str, str]]:
    """Return the lists that cannot be relied on, each with the reason."""
    registry = in_force.registry
    return [
        (info.called, said.say(status.why))
        for name, info in sorted(registry.lists.items())
        if (status := registry.statuses[name]).state is not Index.READY
    ]


def _untiled(alarms: Sequence[RaisedAlarm]) -> list[RaisedAlarm]:
    """Return the alarms that no tile shows, and those that nobody has taken."""
    shown = (*STORE, *RELAY, "list-stale", "frozen")
    return [alarm for alarm in alarms if alarm.name not in shown or not alarm.taken_by]


@ROUTES.post("/alarms/take", *ACTING)
async def take(request: Request) -> Response:
    """Take an alarm: it is not sent again until a day later."""
    here, who = services_of(request), person(request)
    if not await here.take_alarm(text_of(form(request), "key", 500), who.address):
        raise HTTPException(404)
    return see_other("/")


def _link(figure: Figure, path: str, state: str = "", rule: str = "", list: str = "") -> str:
    """Return the URL of the page with what a figure counts."""
    return Filters(state=state, rule=rule, list=list, since=figure.since, mail=path != "/journal").url(path=path)


@ROUTES.get("/journal", *SEEING)
async def journal(request: Request) -> Response:
    here, said, asks = services_of(request), speech(request), Filters.of(request)
    in_force = here.in_force
    did = asks.state if asks.state in DID else "rejected"
    since, until = asks.times(in_force.hours.zone)
    before = digits(asks.after) or 0
    about = ActivityFilter(did=did, rule=asks.rule, list=asks.list, since=since, until=until)
    found, further = await here.store.journal.verdicts_of(about, before, PAGE)
    return await page(
        request,
        "journal.html",
        rows=[(entry, clear or {}) for entry, clear in found],
        did=did,
        wanted=asks,
        kinds=DID,
        lists=here.choices,
        rules=(rules := [*rule_choices(in_force, said), *((said(aim), rule) for rule, aim in AIMS.items())]),
        aims={rule: aim for aim, rule in rules},
        further=asks.url(str(further), path="/journal") if further else "",
    )


@ROUTES.get("/approvers", *OPERATING)
async def approvers(request: Request) -> Response:
    """Show the votes of each approver, if the settings allow it. The view is journalled first."""
    here, who = services_of(request), person(request)
    if not here.settings.audit.approvers:
        raise HTTPException(404)
    now = here.clock.now()
    looked = Event(
        kind=Kind.EXPORTED, id="journal", at=now, data={"what": "approvers"}, private={"actor": (who.address,)}
    )
    await here.store.journal.record((looked,))
    votes = await here.store.journal.votes(now - timedelta(days=DAYS), now + timedelta(seconds=1))
    return await page(request, "approvers.html", shares=approver_shares(votes), days=DAYS, timedelta=timedelta)
