"""The Away page: an approver reports an absence and names a deputy; an admin agrees to a deputy from another group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime

from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import AccountKeys, May, Role
from smtpguard.config.problem import Invalid
from smtpguard.console.people.credentials import NotPossible
from smtpguard.console.rendering import WrongField, form, page, see_other, services_of, speech, text_of
from smtpguard.console.services import ConsoleServices, Routes, person
from smtpguard.guard.inforce import InForce
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.mail.address import BadAddress
from smtpguard.notices.intents import deputy_waits
from smtpguard.policy.approvals import LONGEST, Absence
from smtpguard.policy.grammar import day

NOT_AWAY = N_("{address} is not away.")

ROUTES = Routes()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeputyRow:
    """An absence on the page. ``deciding``: the groups in which the deputy decides; ``not_yet``: the groups in which an admin must
    agree first."""

    absence: Absence
    by_policy: bool
    deciding: tuple[str, ...]
    not_yet: tuple[str, ...]


@ROUTES.post("/away", Role.APPROVER)
async def away(request: Request) -> Response:
    """Report an absence. An admin's agreement stays valid for the same deputy and days within the earlier ones."""
    here, who = services_of(request), person(request).address
    try:
        wanted = await _from_form(request, who, here.in_force)
    except WrongField as bad:
        return await away_page(request, 400, wrong={bad.field: speech(request)(bad.why)})

    def step(declared: Absence | None) -> tuple[Absence, Event]:
        agreed = (
            declared is not None
            and declared.confirmed
            and declared.deputy == wanted.deputy
            and declared.since <= wanted.since
            and wanted.until <= declared.until
        )
        made = replace(wanted, confirmed=agreed)
        return made, _event("away", made, who, here.clock.now())

    made = await here.accounts.people.change_absence(who, step)
    await _ask_admins(here, made, await here.policies.follow())
    return see_other("/away", done="done")


async def _ask_admins(here: ConsoleServices, absence: Absence, in_force: InForce) -> None:
    """Mail to the admins who can agree to the deputy, if one must."""
    not_yet = _row(absence, in_force, by_policy=False).not_yet
    if not not_yet:
        return
    two = in_force.addresses_of(absence.person, absence.deputy)
    admins = [a.address for a in await here.accounts.people.everybody() if not a.disabled and Role.ADMIN in a.roles]
    notices = deputy_waits(absence, not_yet, (one for one in admins if one not in two), in_force)
    await here.store.journal.record((), notices)


@ROUTES.post("/away/back", Role.APPROVER)
async def back(request: Request) -> Response:
    """End or cancel the person's absence, whether the person or the policy declared it."""
    here, who = services_of(request), person(request).address
    in_force, now = here.in_force, here.clock.now()
    mine = in_force.addresses_of(who)
    current = [a for a in in_force.groups.absences if a.person in mine and not a.is_over(now, in_force.groups.zone)]
    if not current:
        return await away_page(request, 409, problem=Phrase(NOT_AWAY, address=who))
    first = min(current, key=lambda a: a.since)

    def step(declared: Absence | None) -> tuple[Absence, Event]:
        made = replace(first, person=who, ended=now)
        return made, _event("back", made, who, now)

    await here.accounts.people.change_absence(who, step)
    await here.policies.follow()
    return see_other("/away", done="done")


@ROUTES.post("/away/agree", Role.ADMIN)
async def agree(request: Request) -> Response:
    try:
        await _deputy_address(request, text_of(form(request), "deputy", 320))
    except WrongField as bad:  # their account has ended since
        return await away_page(request, 409, problem=bad.why)
    return await _decide_on_deputy(request, "agreed", lambda declared: replace(declared, confirmed=True))


@ROUTES.post("/away/refuse", Role.ADMIN)
async def refuse(request: Request) -> Response:
    return await _decide_on_deputy(request, "refused", lambda declared: replace(declared, deputy="", confirmed=False))


async def _decide_on_deputy(request: Request, change: str, to: Callable[[Absence], Absence]) -> Response:
    """Apply an admin's decision on the deputy that the page showed. If the deputy differs by now, change nothing."""
    here, sent, admin = services_of(request), form(request), person(request).address
    who, deputy = text_of(sent, "person", 320), text_of(sent, "deputy", 320)

    def step(declared: Absence | None) -> tuple[Absence, Event]:
        if declared is None or declared.is_over(here.clock.now(), here.in_force.groups.zone):
            raise NotPossible(Phrase(NOT_AWAY, address=who))
        if declared.deputy != deputy or not deputy:
            raise NotPossible(Phrase("It has changed: {address} has changed their absence meanwhile.", address=who))
        if here.in_force.addresses_of(admin) & {declared.person, declared.deputy}:
            raise NotPossible(Phrase("You cannot approve your own deputy: another admin must do it."))
        return to(declared), _event(change, declared, admin, here.clock.now())

    try:
        await here.accounts.people.change_absence(who, step)
    except NotPossible as why:
        return await away_page(request, 409, problem=why.why)
    await here.policies.follow()
    return see_other("/away", done="done")


async def _from_form(request: Request, who: str, in_force: InForce) -> Absence:
    """Parse the form. Raises WrongField."""
    sent = form(request)
    today = services_of(request).clock.now().astimezone(in_force.groups.zone).date()
    since = _day(sent.get("since"), "since") if sent.get("since") else today
    until = _day(sent.get("until"), "until")
    if until < since:
        raise WrongField("until", N_("The last day is before the first one."))
    if until < today:
        raise WrongField("until", N_("The last day is in the past."))
    if until - since > LONGEST:
        raise WrongField("until", N_("The absence is longer than a year."))
    deputy = await _deputy_address(request, text_of(sent, "deputy"))
    if deputy and deputy in in_force.addresses_of(who):
        raise WrongField("deputy", N_("You cannot be your own deputy."))
    return Absence(person=who, since=since, until=until, deputy=deputy)


async def _deputy_address(request: Request, text: str) -> str:
    """Return the canonical address of a deputy, "" if the field is empty. A deputy can decide: they are in a group, or have the
    approver's role. Raises WrongField."""
    if not text:
        return ""
    accounts = services_of(request).accounts
    try:
        address = accounts.canonical(text)
    except BadAddress:
        raise WrongField("deputy", N_("Not an address.")) from None
    if any(address in people for people in services_of(request).in_force.groups.values()):
        return address
    account = await accounts.people.account(AccountKeys(address=address))
    if account is None or not account.may(May.DECIDE):
        raise WrongField("deputy", N_("This person is in no group and has no account with the approver's role."))
    return address


def _event(change: str, absence: Absence, by: str, at: datetime) -> Event:
    return Event(
        kind=Kind.ABSENCE,
        id=f"absence-{absence.since:%Y%m%d}",
        at=at,
        data={"change": change, "since": absence.since.isoformat(), "until": absence.until.isoformat()},
        private={
            "account": (absence.person,),
            "actor": (by,),
            **({"deputy": (absence.deputy,)} if absence.deputy else {}),
        },
    )


@ROUTES.get("/away", Role.APPROVER, Role.ADMIN)
async def away_page(
    request: Request, status: int = 200, *, problem: Said = "",
    wrong: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    here, who = services_of(request), person(request)
    in_force, now = here.in_force, here.clock.now()
    declared = {absence.person for absence in await here.accounts.people.absences()}
    mine = in_force.addresses_of(who.address)
    coming = sorted(
        (a for a in in_force.groups.absences if not a.is_over(now, in_force.groups.zone)),
        key=lambda a: (a.since, a.person),
    )
    rows = [_row(absence, in_force, by_policy=absence.person not in declared) for absence in coming]
    colleagues = frozenset().union(*(p for p in in_force.groups.values() if not p.isdisjoint(mine)))
    return await page(
        request,
        "away.html",
        status,
        wrong=wrong,
        problem=problem,
        mine=[row for row in rows if row.absence.person in mine],
        others=[row for row in rows if row.absence.person not in mine],
        for_whom=in_force.groups.decided_for(who.address, now),
        colleagues=sorted(colleagues - mine),
        decides=Role.APPROVER in who.roles,
        agrees=Role.ADMIN in who.roles,
        today=now.astimezone(in_force.groups.zone).date(),
    )


def _row(absence: Absence, in_force: InForce, *, by_policy: bool) -> DeputyRow:
    groups = in_force.groups
    theirs = [name for name in groups if not groups[name].isdisjoint(in_force.addresses_of(absence.person))]
    deputies = in_force.addresses_of(absence.deputy) if absence.deputy else frozenset()
    may = [name for name in theirs if absence.deputy and (absence.confirmed or not groups[name].isdisjoint(deputies))]
    return DeputyRow(
        absence=absence,
        by_policy=by_policy,
        deciding=tuple(may),
        not_yet=tuple(name for name in theirs if absence.deputy and name not in may),
    )


def _day(value: object, field: str) -> date:
    try:
        return day(value)
    except Invalid:
        raise WrongField(field, N_("Not a day.")) from None
