"""The pages for an incident: the report, with a form for its query; and freezes.

The query of a report may name people, so it is sent by POST and is in no URL and no log. On the Freeze page people freeze
everything, a list, a sender or a mailing, with a reason, and thaw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.console import notifying
from smtpguard.console.filters import PAGE, midnight, page_of_mailings
from smtpguard.console.incident import ReportText, report_in_words
from smtpguard.console.incidentfile import TYPES, MissingExtra, template_values, to_file
from smtpguard.console.rendering import UNKNOWN, form, not_done, number, page, see_other, services_of, speech, text_of
from smtpguard.console.reporting import Made, NothingFits, Occupied, make_once, query_of
from smtpguard.console.services import ACTING, ConsoleServices, Routes, person, sees_report
from smtpguard.database.errors import CommitUnknown, StoreError
from smtpguard.freezes.hooks import Hook
from smtpguard.freezes.service import Frozen, SecondPersonNeeded
from smtpguard.incidents import breach
from smtpguard.incidents.breach import MOST
from smtpguard.incidents.query import moment
from smtpguard.incidents.report import TooMany
from smtpguard.locale import languages
from smtpguard.locale.speech import Speech
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mailings.model import Mailing, NoSuch
from smtpguard.policy.freezing import Freeze, Selector

_MOST = 500  # characters of a field
_FIELDS = ("id", "list", "sender", "subject", "since", "until")
_HOURS = ("1", "4", "12", "24")
FEWEST = 2
"""The fewest people of a mailing of the day: a letter to one person is no mailing."""
Asked = dict[str, str]

ROUTES = Routes()


@ROUTES.get("/incident", *ACTING)
async def ask(request: Request) -> Response:
    """Show the day's mailings; for people who may report on anything also the form, filled in from a link."""
    return await _incident_page(request, {"id": request.query_params.get("id", "")[:_MOST]})


@ROUTES.post("/incident", *ACTING)
async def report(request: Request) -> Response:
    """Make a report. People who may only decide get one only if it touches no lists but their own."""
    here, who, said = services_of(request), person(request), speech(request)
    sent = form(request)
    anything = who.operates
    asked = {name: text_of(sent, name, _MOST) for name in (_FIELDS if anything else ("id",))}
    asked |= {name: "on" for name in ("alone", "names", "proof") if sent.get(name)}
    query, wrong = query_of(
        here.clock.now(),
        ids=asked["id"].split(),
        lists=filter(None, [asked.get("list")]),
        senders=filter(None, [asked.get("sender")]),
        subject=asked.get("subject", ""),
        alone="alone" in asked,
        since=asked.get("since") or None,
        until=asked.get("until") or None,
    )
    if wrong:
        no_time = said("Not a time: write 2026-11-26 09:30, in UTC, or 2h for two hours ago.")
        return await _incident_page(request, asked, 422, wrong=dict.fromkeys(wrong, no_time))
    if query.empty:
        return await _incident_page(request, asked, 422, wrong={"id": said("Say what the report is about.")})
    problem = await _write_down(request, sent) if anything else ""
    may = None if anything else lambda found: sees_report(who, found, here)
    try:
        made = await make_once(
            here,
            query,
            prove="proof" in asked,
            names="names" in asked,
            by=(who.address,),
            language=said.language,
            may=may,
        )
    except Occupied:
        return await _incident_page(request, asked, 409, said("Another report is being made: ask again in a minute."))
    except NothingFits as error:
        why = [f"{each[:1].upper()}{each[1:]}." for each in error.why]
        nothing = [] if error.rest else [said("Nothing in the journal matches.")]
        return await _incident_page(request, asked, 404, " ".join([*nothing, *why]))
    except TooMany:
        return await _incident_page(request, asked, 422, said("Too many messages match: narrow the search."))
    except StoreError:
        return await _incident_page(request, asked, 503, said("The record cannot be read at the moment."))
    page = await asyncio.to_thread(report_in_words, made, said, who.address)
    wanted = sent.get("format")
    if wanted not in TYPES:
        breach_form = await asyncio.to_thread(notifying.filled_form, made, page, said)
        drafts = await asyncio.to_thread(_drafts, made)
        return await _incident_page(
            request,
            asked,
            422 if problem else 200,
            problem,
            page,
            breach=breach_form,
            drafts=drafts,
            typed=_typed(sent) if problem else {},
        )
    try:
        content = await asyncio.to_thread(to_file, wanted, made, page, said)
    except MissingExtra as error:
        return await _incident_page(request, asked, 501, said.say(error.why), page)
    name = f"incident-{made.at:%Y%m%d-%H%M%S}.{wanted}"
    return Response(
        content, headers={"content-type": TYPES[wanted], "content-disposition": f'attachment; filename="{name}"'}
    )


async def _write_down(request: Request, sent: FormData) -> str:
    """Write down what the same form says of the incident. Return what is wrong with it, "" if nothing is or nothing was said."""
    here, who, said = services_of(request), person(request), speech(request)
    act, id, now = sent.get("act"), text_of(sent, "incident", _MOST), here.clock.now()
    if act not in ("aware", "write") or not id:
        return ""
    try:
        if act == "aware":
            event = breach.aware_event(id, moment(text_of(sent, "time", _MOST), now), by=who.address, at=now)
        else:
            text = sent.get("text", "")
            field = breach.Field(text_of(sent, "field", _MOST))
            event = breach.text_event(id, field, text if isinstance(text, str) else "", by=who.address, at=now)
    except ValueError:
        if act == "aware":
            return said("That is no time that has been: write 2026-11-26 09:30, in UTC, or 2h for so long ago.")
        return said("Nothing was written down: the field is empty, or too long.")
    try:
        if list(await here.store.journal.matching_ids(id)) != [id]:
            return said("Nothing was written down: the journal does not know the incident.")
        await here.store.journal.record([event])
        await here.store.preserve(id, by=who.address, reason="an incident")
    except StoreError as error:
        return not_done(error, said)[1]
    return ""


def _typed(sent: FormData) -> dict[str, str]:
    """Return what was typed into a field that was refused, by the field; the time under "time"."""
    text = sent.get("text", "")
    return {text_of(sent, "field", _MOST): text if isinstance(text, str) else "", "time": text_of(sent, "time", _MOST)}


def _drafts(made: Made) -> list[tuple[str, str, str]]:
    """Return the drafts, each with its title and language."""
    speeches = [Speech(language) for language in languages()]
    pages = [(said, report_in_words(made, said)) for said in speeches]
    return [
        (said(notifying.DRAFT_TITLES[to]), said.language, notifying.draft(to, made, page, said))
        for said, page in pages
        for to in notifying.DRAFT_TITLES
    ]


async def _incident_page(
    request: Request,
    asked: Asked,
    status: int = 200,
    problem: str = "",
    made: ReportText | None = None,
    *,
    wrong: Mapping[str, str] | None = None,
    breach: notifying.Form | None = None,
    drafts: Sequence[tuple[str, str, str]] = (),
    typed: Mapping[str, str] | None = None,
) -> Response:
    here = services_of(request)
    today, further = await _today(request) if made is None else ((), "")
    return await page(
        request,
        "incident.html",
        status,
        asked={name: asked.get(name, "") for name in (*_FIELDS, "alone", "names", "proof")},
        fresh=not asked.keys() - {"id"},
        today=today,
        further=further,
        breach=breach,
        drafts=drafts,
        typed=typed or {},
        most=MOST,
        lists=here.choices,
        problem=problem,
        wrong=wrong,
        **(template_values(made, speech(request)) if made is not None else {"made": None}),
    )


async def _today(request: Request) -> tuple[Sequence[Mailing], str]:
    """Return the mailings with a message today, in the organization's time zone, latest first, and the cursor of the next page."""
    here, zone = services_of(request), services_of(request).in_force.hours.zone
    try:
        found, further = await page_of_mailings(here, person(request), limit=PAGE, least=FEWEST)
    except StoreError:
        return (), ""
    begins = midnight(here.clock.now().astimezone(zone).date(), zone)
    some = [one for one in found if one.last_at >= begins]
    return some, further if len(some) == len(found) else ""


@ROUTES.post("/freeze", *ACTING)
async def freeze(request: Request) -> Response:
    here, who, said = services_of(request), person(request), speech(request)
    sent = form(request)
    reason = text_of(sent, "reason", 500)
    try:
        selector = Selector(text_of(sent, "selector"))
    except ValueError:
        return await freeze_page(request, 422, wrong={"selector": said("Choose what to stop.")})
    value = text_of(sent, selector.value, 500) if selector is not Selector.ALL else ""
    wrong: dict[str, str] = {}
    if selector is Selector.SENDER:
        try:
            value = Address.parse(value).canonical(here.settings.delimiters)
        except BadAddress:
            wrong["sender"] = said("Not an address: {address}", address=value)
    elif (selector is Selector.LIST and value not in here.lists) or (selector is not Selector.ALL and not value):
        wrong[selector.value] = said("Choose what to stop.")
    if not reason:
        wrong["reason"] = said("Give a reason: everyone who sees the banner reads it.")
    if wrong:
        return await freeze_page(request, 422, wrong=wrong)
    hours = text_of(sent, "hours")
    length = timedelta(hours=int(hours)) if hours in _HOURS else None
    try:
        if selector is Selector.MAILING:
            value = await here.store.mailings.whole_id(value)
        frozen = await here.freezes.freeze(selector, value, reason=reason, by=who.address, for_=length)
    except NoSuch:
        return await freeze_page(request, 422, wrong={"mailing": said("There is no mailing with this reference.")})
    except CommitUnknown:
        problem = said(
            "It is not known whether it is frozen: the database was lost meanwhile. Stop the mail server itself."
        )
        return await freeze_page(request, 503, problem)
    except StoreError:
        return await freeze_page(
            request, 503, said("NOTHING IS FROZEN: the record cannot be written. Stop the mail server itself.")
        )
    return await freeze_page(request, frozen=frozen)


@ROUTES.get("/thaw/{freeze_id}", *ACTING)
async def thaw_page(request: Request, status: int = 200, problem: str = "") -> Response:
    """Show what the thaw would release, before it is done."""
    here, said = services_of(request), speech(request)
    freeze = await _freeze_in_path(request)
    if freeze is None:
        return await freeze_page(request, 409, said("It is already lifted."))
    return await page(
        request,
        "thaw.html",
        status,
        freeze=freeze,
        goes=await here.freezes.released_by([freeze]),
        only_asks=await here.freezes.only_asks(freeze.freeze_id, here.addresses_of(person(request).address)),
        problem=problem,
    )


async def _freeze_in_path(request: Request) -> Freeze | None:
    wanted = request.path_params["freeze_id"][:100]
    return next((f for f in await services_of(request).freezes.active() if f.freeze_id == wanted), None)


@ROUTES.post("/thaw/{freeze_id}", *ACTING)
async def thaw(request: Request) -> Response:
    """Thaw a freeze, after the person has seen what that releases. If it would be more by now, they look again."""
    here, who, said = services_of(request), person(request), speech(request)
    if (freeze := await _freeze_in_path(request)) is not None:
        seen = number(form(request), "messages")
        if seen is None:
            return await thaw_page(request, 422)
        if (await here.freezes.released_by([freeze])).messages > seen:
            return await thaw_page(
                request, 409, said("More messages would be sent now than when you looked. Look again.")
            )
    try:
        hooks = await here.freezes.thaw(
            request.path_params["freeze_id"][:100], by=who.address, person=who.address, addresses_of=here.addresses_of
        )
    except SecondPersonNeeded:
        return see_other("/still", done="thaw-asked")
    except KeyError:
        return await freeze_page(request, 409, said("It is already lifted."))
    except CommitUnknown:
        return await freeze_page(request, 503, said(UNKNOWN))
    except StoreError:
        return await freeze_page(request, 503, said("It is frozen still: the record cannot be written at the moment."))
    if any(hook.problem for hook in hooks):
        return await freeze_page(
            request,
            200,
            said("It is lifted, but a command after the thaw failed: {what}", what="; ".join(_failures(hooks, said))),
        )
    return see_other("/still", done="thawed")


@ROUTES.get("/still", *Role)
async def freeze_page(
    request: Request,
    status: int = 200,
    problem: str = "",
    frozen: Frozen | None = None,
    *,
    wrong: Mapping[str, str] | None = None,
) -> Response:
    here, said = services_of(request), speech(request)
    chosen = request.query_params
    return await page(
        request,
        "still.html",
        status,
        problem=problem,
        wrong=wrong,
        just=frozen,
        failures=_failures(frozen.hooks, said) if frozen else [],
        lists=here.choices,
        chosen={name: chosen.get(name, "")[:500] for name in ("selector", "list", "sender", "mailing")},
        two=here.freezes.thaw_two,
        asked_for=await _asked_for(here) if here.freezes.thaw_two else {},
    )


def _failures(hooks: Sequence[Hook], said: Speech) -> list[str]:
    """Return the hooks that failed, with their own messages."""
    return [
        f"{hook.program}: {said.say(hook.failed)}" + (f": {hook.said}" if hook.said else "")
        for hook in hooks
        if hook.failed is not None
    ]


async def _asked_for(here: ConsoleServices) -> dict[str, str]:
    """Return who has already asked to thaw each freeze, by freeze; nobody if the store is away, as the page says by itself."""
    try:
        return {f.freeze_id: await here.freezes.asked_to_thaw(f.freeze_id) for f in await here.freezes.active()}
    except StoreError:
        return {}
