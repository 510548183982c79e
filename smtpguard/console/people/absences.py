"""The Away page: an approver reports an absence and names a deputy; an admin agrees to a deputy from another group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.accounts.model import AccountKeys, May, Role
from smtpguard.config.problem import Invalid
from smtpguard.console.people.accounts import Accounts
from smtpguard.console.people.credentials import NotPossible
from smtpguard.console.rendering import WrongField, form, page, see_other, services_of, speech, text_of
from smtpguard.console.services import for_roles, person
from smtpguard.guard.inforce import InForce
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.mail.address import BadAddress
from smtpguard.notices.intents import deputy_waits
from smtpguard.policy.approvals import LONGEST, Absence
from smtpguard.policy.grammar import day

NOT_AWAY = N_("{address} is not away.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeputyRow:
    """An absence on the page. ``deciding``: the groups in which the deputy decides; ``not_yet``: the groups in which an admin must
    agree first."""

    absence: Absence
    by_policy: bool
    deciding: tuple[str, ...]
    not_yet: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AwayPage:
    accounts: Accounts

    def routes(self) -> list[Route]:
        approver, admin, either = for_roles(Role.APPROVER), for_roles(Role.ADMIN), for_roles(Role.APPROVER, Role.ADMIN)
        return [
            Route("/away", either(self._page), methods=["GET"]),
            Route("/away", approver(self.away), methods=["POST"]),
            Route("/away/back", approver(self.back), methods=["POST"]),
            Route("/away/agree", admin(self.agree), methods=["POST"]),
            Route("/away/refuse", admin(self.refuse), methods=["POST"]),
        ]

    async def away(self, request: Request) -> Response:
        """Report an absence. An admin's agreement stays valid for the same deputy and days within the earlier ones."""
        who, in_force = person(request).address, services_of(request).in_force
        try:
            wanted = await self._from_form(request, who, in_force)
        except WrongField as bad:
            return await self._page(request, 400, wrong={bad.field: speech(request)(bad.why)})

        def step(declared: Absence | None) -> tuple[Absence, Event]:
            agreed = (
                declared is not None
                and declared.confirmed
                and declared.deputy == wanted.deputy
                and declared.since <= wanted.since
                and wanted.until <= declared.until
            )
            made = replace(wanted, confirmed=agreed)
            return made, self._event("away", made, who)

        made = await self.accounts.people.change_absence(who, step)
        now_in_force = await services_of(request).policies.follow()
        await self._ask_admins(request, made, now_in_force)
        return see_other("/away", done="done")

    async def _ask_admins(self, request: Request, absence: Absence, in_force: InForce) -> None:
        """Mail to the admins who can agree to the deputy, if one must."""
        not_yet = _row(absence, in_force, by_policy=False).not_yet
        if not not_yet:
            return
        two = in_force.addresses_of(absence.person, absence.deputy)
        admins = [a.address for a in await self.accounts.people.everybody() if not a.disabled and Role.ADMIN in a.roles]
        notices = deputy_waits(absence, not_yet, (one for one in admins if one not in two))
        await services_of(request).store.journal.record((), notices)

    async def back(self, request: Request) -> Response:
        """End or cancel the person's absence, whether the person or the policy declared it."""
        who, in_force, now = person(request).address, services_of(request).in_force, self.accounts.clock.now()
        mine = in_force.addresses_of(who)
        current = [a for a in in_force.groups.absences if a.person in mine and not a.is_over(now, in_force.groups.zone)]
        if not current:
            return await self._page(request, 409, problem=Phrase(NOT_AWAY, address=who))
        first = min(current, key=lambda a: a.since)

        def step(declared: Absence | None) -> tuple[Absence, Event]:
            made = replace(first, person=who, ended=now)
            return made, self._event("back", made, who)

        await self.accounts.people.change_absence(who, step)
        await services_of(request).policies.follow()
        return see_other("/away", done="done")

    async def agree(self, request: Request) -> Response:
        try:
            await self._deputy_address(text_of(form(request), "deputy", 320), services_of(request).in_force)
        except WrongField as bad:  # their account has ended since
            return await self._page(request, 409, problem=bad.why)
        return await self._decide_on_deputy(request, "agreed", lambda declared: replace(declared, confirmed=True))

    async def refuse(self, request: Request) -> Response:
        return await self._decide_on_deputy(
            request, "refused", lambda declared: replace(declared, deputy="", confirmed=False)
        )

    async def _decide_on_deputy(self, request: Request, change: str, to: Callable[[Absence], Absence]) -> Response:
        """Apply an admin's decision on the deputy that the page showed. If the deputy differs by now, change nothing."""
        sent, admin = form(request), person(request).address
        who, deputy = text_of(sent, "person", 320), text_of(sent, "deputy", 320)

        def step(declared: Absence | None) -> tuple[Absence, Event]:
            if declared is None or declared.is_over(
                self.accounts.clock.now(), services_of(request).in_force.groups.zone
            ):
                raise NotPossible(Phrase(NOT_AWAY, address=who))
            if declared.deputy != deputy or not deputy:
                raise NotPossible(Phrase("It has changed: {address} has changed their absence meanwhile.", address=who))
            if services_of(request).in_force.addresses_of(admin) & {declared.person, declared.deputy}:
                raise NotPossible(Phrase("You cannot approve your own deputy: another admin must do it."))
            return to(declared), self._event(change, declared, admin)

        try:
            await self.accounts.people.change_absence(who, step)
        except NotPossible as why:
            return await self._page(request, 409, problem=why.why)
        await services_of(request).policies.follow()
        return see_other("/away", done="done")

    async def _from_form(self, request: Request, who: str, in_force: InForce) -> Absence:
        """Parse the form. Raises WrongField."""
        sent = form(request)
        today = self.accounts.clock.now().astimezone(in_force.groups.zone).date()
        since = _day(sent.get("since"), "since") if sent.get("since") else today
        until = _day(sent.get("until"), "until")
        if until < since:
            raise WrongField("until", N_("The last day is before the first one."))
        if until < today:
            raise WrongField("until", N_("The last day is in the past."))
        if until - since > LONGEST:
            raise WrongField("until", N_("The absence is longer than a year."))
        deputy = await self._deputy_address(text_of(sent, "deputy"), in_force)
        if deputy and deputy in in_force.addresses_of(who):
            raise WrongField("deputy", N_("You cannot be your own deputy."))
        return Absence(person=who, since=since, until=until, deputy=deputy)

    async def _deputy_address(self, text: str, in_force: InForce) -> str:
        """Return the canonical address of a deputy, "" if the field is empty. A deputy can decide: they are in a group, or have the
        approver's role. Raises WrongField."""
        if not text:
            return ""
        try:
            address = self.accounts.canonical(text)
        except BadAddress:
            raise WrongField("deputy", N_("Not an address.")) from None
        if any(address in people for people in in_force.groups.values()):
            return address
        account = await self.accounts.people.account(AccountKeys(address=address))
        if account is None or not account.may(May.DECIDE):
            raise WrongField("deputy", N_("This person is in no group and has no account with the approver's role."))
        return address

    def _event(self, change: str, absence: Absence, by: str) -> Event:
        return Event(
            kind=Kind.ABSENCE,
            id=f"absence-{absence.since:%Y%m%d}",
            at=self.accounts.clock.now(),
            data={"change": change, "since": absence.since.isoformat(), "until": absence.until.isoformat()},
            private={
                "account": (absence.person,),
                "actor": (by,),
                **({"deputy": (absence.deputy,)} if absence.deputy else {}),
            },
        )

    async def _page(
        self, request: Request, status: int = 200, *, problem: Said = "",
        wrong: Mapping[str, str] | None = None,
    ) -> Response:  # fmt: skip
        who, in_force, now = person(request), services_of(request).in_force, self.accounts.clock.now()
        declared = {absence.person for absence in await self.accounts.people.absences()}
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
