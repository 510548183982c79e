"""The page of one held message: reasons, recipients, text and approvers; and for its writer why it waits. Every view is
journalled.

Its HTML is served for a frame (htmlframe), and its attachments for download. Both are untrusted octets, sent with headers that
isolate them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from smtpguard.console import journalwords, labels
from smtpguard.console.decisionpreview import LARGE, preview_now
from smtpguard.console.evidence import ALPHABETS, Evidence, authorship, evidence, mixed_alphabets, segments
from smtpguard.console.htmlframe import html_page
from smtpguard.console.journalwords import QUESTIONS_AND_ANSWERS
from smtpguard.console.messageview import MessageView, attachment_of, cached_view
from smtpguard.console.rendering import page, services_of, speech
from smtpguard.console.services import ConsoleServices, Routes, Visibility, find, person, view_event
from smtpguard.database.errors import ContentMissing
from smtpguard.guard.inforce import InForce
from smtpguard.holds import coverage, effects
from smtpguard.holds.coverage import BEGINNING
from smtpguard.holds.model import Hold, State
from smtpguard.holds.summary import sentence, summary
from smtpguard.lists.recipients import INTERNAL, OUTSIDE, Classification
from smtpguard.locale.phrase import Amount
from smtpguard.locale.speech import Speech
from smtpguard.mail.message import Message
from smtpguard.notices import noticedata
from smtpguard.reading.looks import Reading
from smtpguard.reading.request import Depth, TooComplex

ROUTES = Routes()

SAMPLES = 5
"""The most addresses of one kind of recipients that are shown."""
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data: cid:; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",
    "Cache-Control": "no-store",
}
"""The headers of untrusted octets from a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Recipients of one kind: a list by its address or through members, colleagues, or outside people."""

    kind: str
    title: str = ""
    count: int = 0
    people: int | Amount = 0
    category: str = ""
    special: bool = False
    samples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What the page shows of a message's content to one person. ``letter``: None unless they may see the text. ``gone``: whether the
    content is erased. ``claimed``: the address in From, "" if there is none or it is unreadable."""

    letter: MessageView | None = field(default=None, repr=False)
    found: Evidence | None = None
    gone: bool = False
    claimed: str = ""


async def hold_in_path(request: Request) -> tuple[Hold, Visibility]:
    """Return the hold in the path, for a person who may see it; with a signed link, the link's own hold. Raises 404 for others, as
    if it did not exist."""
    link = getattr(request.state, "link", None)
    wanted = link.hold_id if link is not None else request.path_params.get("hold_id", "")
    found = await find(services_of(request), person(request), wanted)
    if found is None:
        raise HTTPException(404)
    return found


async def _record_view(request: Request, hold: Hold, saw: str) -> None:
    here, who = services_of(request), person(request)
    await here.store.journal.record([view_event(hold, saw, "console", here.clock.now(), who.address)])


@ROUTES.get("/mine/{link}")
@ROUTES.get("/held/{hold_id}")
async def message(request: Request) -> Response:
    who = person(request)
    hold, seen = await hold_in_path(request)
    if who.address in hold.senders:
        return await writer_page(request, hold)
    await _record_view(request, hold, seen.name.lower())
    return await approver_page(request, hold, seen)


async def approver_page(
    request: Request,
    hold: Hold,
    seen: Visibility,
    status: int = 200,
    problem: str = "",
    *,
    wrong: Mapping[str, str] | None = None,
) -> Response:
    """Return the page for approvers. ``problem``: why a decision was not made; ``wrong``: the errors by field."""
    here, who, said = services_of(request), person(request), speech(request)
    in_force = here.in_force
    content = await _content(here, hold, seen, request)
    whom = await asyncio.to_thread(recipients_by_kind, hold, in_force, seen)
    frozen = (await here.freezes.holding_up(hold)).get(hold.hold_id, ())
    ahead = preview_now(here, hold, who)
    covers = coverage.of_hold(hold, await here.approvals.learned(hold.hold_id))
    return await page(
        request,
        "message.html",
        status,
        hold=hold,
        sight=seen.name.lower(),
        summary=said.say(summary(hold, noticedata.addressees(hold, in_force), over=hold.state is not State.WAITING)),
        over=here.approvals.is_over(hold),
        at_most=hold.reach_at_most,
        reasons=reasons_in_words(
            noticedata.enforced_reasons(hold.verdict, in_force, readable=seen >= Visibility.TEXT), said
        ),
        content=content,
        segments=lambda text: segments(text, content.found.words if content.found else ()),
        reached=whom,
        wrote=authorship(hold, content.claimed, said),
        mixed=[
            (word, ", ".join(said(ALPHABETS[s]) if s in ALPHABETS else s.title() for s in scripts))
            for word, scripts in mixed_alphabets((*sorted(hold.senders), content.claimed, hold.subject))
        ],
        sensitive=sorted({row.category for row in whom if row.special}),
        ahead=ahead,
        queued=await _queued(here, hold, covers.letters or 0, blind=seen < Visibility.TEXT),
        stopped_by=frozen,
        outgoing=await here.store.holds.outgoing(hold.hold_id),
        covers=[said.say(each) for each in coverage.sentences(covers, blind=seen < Visibility.TEXT)],
        under=covers.under,
        policy_sha256=in_force.sha256,
        staged=effects.stages(hold, in_force),
        large=LARGE,
        delay=here.approvals.delay(hold, ahead.people),
        wrong=wrong,
        talk=await conversation(here, hold, said),
        asking=request.query_params.get("ask") == "1",
        states=labels.states(hold, frozen=bool(frozen)),
        problem=problem,
    )


async def _queued(here: ConsoleServices, hold: Hold, most: int, *, blind: bool) -> list[tuple[list[Hold], str]]:
    """Return the messages that are decided on with the hold, grouped by their text, oldest first. Each group has the beginning of
    the text, "" if the person may not see it."""
    texts: dict[str, tuple[list[Hold], str]] = {}
    for one, shown in await here.store.holds.queued(hold.hold_id, most) if most else ():
        text = shown.text if shown is not None and not blind else one.hold_id
        begins = shown.beginning(BEGINNING) if shown is not None and not blind else ""
        texts.setdefault(text, ([], begins))[0].append(one)
    return list(texts.values())


async def writer_page(
    request: Request, hold: Hold, status: int = 200, problem: str = "", *, wrong: Mapping[str, str] | None = None
) -> Response:
    here, said = services_of(request), speech(request)
    in_force = here.in_force
    frozen = (await here.freezes.holding_up(hold)).get(hold.hold_id, ())
    return await page(
        request,
        "own.html",
        status,
        hold=hold,
        summary=said.say(sentence(hold, noticedata.addressees(hold, in_force), over=hold.state is not State.WAITING)),
        policy_sha256=in_force.sha256,
        reasons=reasons_in_words(noticedata.reasons(hold, in_force), said),
        lists=noticedata.addressees(hold, in_force),
        stopped_by=frozen,
        outgoing=await here.store.holds.outgoing(hold.hold_id),
        over=here.approvals.is_over(hold),
        own_states=labels.own_states(hold, frozen=bool(frozen)),
        base=page_path(request),
        talk=await conversation(here, hold, said),
        asked=await here.questions.open_question(hold.hold_id),
        judged=await here.questions.judgement(hold.hold_id) if hold.state is not State.WAITING else "",
        problem=problem,
        wrong=wrong,
    )


def page_path(request: Request) -> str:
    """Return the path of the hold's page: with the signed link that its writer came by, or with its id."""
    link = request.path_params.get("link")
    return f"/mine/{link}" if link else f"/held/{request.path_params['hold_id']}"


async def conversation(here: ConsoleServices, hold: Hold, said: Speech) -> list[journalwords.EntryText]:
    """Return the questions to the writer and their answers, as far as they are not erased."""
    entries = await here.store.journal.history(hold.hold_id, *QUESTIONS_AND_ANSWERS)
    return [journalwords.entry_in_words(entry, clear, said) for entry, clear in entries]


def reasons_in_words(reasons: Iterable[Mapping[str, Any]], said: Speech) -> list[tuple[str, str, list[str]]]:
    """Return (rule, its purpose, what it saw) for each rule, in the reader's language. What several rules saw is said once."""
    effects: list[tuple[str, str, list[str]]] = []
    before: set[str] = set()
    for each in reasons:
        purpose = each["descriptions"].get(said.language) or said.say(each["description"] or "")
        seen = [sentence for s in each["sentences"] if (sentence := said.say(s)) not in before]
        before.update(seen)
        effects.append((str(each["rule"]), purpose, seen))
    return effects


def recipients_by_kind(hold: Hold, in_force: InForce, seen: Visibility) -> list[Reached]:
    """Return the recipients by kind, counted, with a few addresses for people who may see the text."""
    registry = in_force.registry
    if hold.correction is not None:
        have, may = hold.correction.sent, hold.correction.may
        return [Reached(kind="corrected", people=have), *([Reached(kind="in doubt", people=may)] if may else [])]
    if hold.kind == effects.TEST:  # it is shown as if it went to the lists, whether they have addresses or not
        everyone = registry.of_lists(name for name in hold.lists if name in registry.lists)
    else:
        everyone = registry.classify(hold.envelope.addresses)

    def samples(some: Iterable[Classification]) -> tuple[str, ...]:
        return tuple(str(one.address) for one in some)[:SAMPLES] if seen >= Visibility.TEXT else ()

    rows = []
    for touched in sorted(everyone.touched.values(), key=lambda t: (not t.by_address, -t.size.low)):
        info = registry.lists[touched.name]
        on_it = [one for one in everyone.recipients if touched.name in one.lists]
        rows.append(
            Reached(
                kind="list" if touched.by_address else "members",
                title=info.called,
                count=len(on_it),
                people=Amount(*(touched.size if touched.by_address else touched.members)),
                category=info.category or "",
                special=info.special,
                samples=samples(on_it),
            )
        )
    for kind in (INTERNAL, OUTSIDE):
        some = [one for one in everyone.recipients if one.kind is kind]
        if some:
            rows.append(Reached(kind=kind.value, count=len(some), people=len(some), samples=samples(some)))
    if hold.copies and (rest := hold.reach - int(everyone.reach.low)) > 0:
        rows.append(Reached(kind="copies", people=rest))
    return rows


async def _content(here: ConsoleServices, hold: Hold, seen: Visibility, request: Request) -> Content:
    try:
        content = await here.store.contents.load(hold.content_sha256)
    except ContentMissing:
        return Content(gone=True)
    reading = await here.reader.read(content, Depth.TEXT)
    lists = here.in_force.registry.lists
    avoid = {topic for name in hold.lists if name in lists for topic in lists[name].avoid}
    blind = seen < Visibility.TEXT
    found = evidence(reading, speech(request), avoid, blind=blind) if isinstance(reading, Reading) else None
    claimed = (reading.from_address or "") if isinstance(reading, Reading) and not reading.from_ambiguous else ""
    return Content(letter=await cached_view(content) if seen >= Visibility.TEXT else None, found=found, claimed=claimed)


@ROUTES.get("/held/{hold_id}/html")
async def frame(request: Request) -> Response:
    hold, content = await _visible_content(request)
    text = await asyncio.to_thread(html_page, content)
    if text is None:
        raise HTTPException(404)
    await _record_view(request, hold, "html")
    return HTMLResponse(text, headers=dict(_HEADERS))


@ROUTES.get("/held/{hold_id}/part/{n:int}")
async def part(request: Request) -> Response:
    hold, content = await _visible_content(request)
    try:
        found = await asyncio.to_thread(attachment_of, content, request.path_params["n"])
    except (TooComplex, RecursionError):
        found = None
    if found is None:
        raise HTTPException(404)
    listed, data = found
    await _record_view(request, hold, f"attachment {listed.n}")
    name = quote(listed.name.replace("/", "_").replace("\\", "_") or f"part-{listed.n}", safe="")
    headers = dict(_HEADERS) | {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}  # RFC 6266, RFC 8187
    return Response(data, media_type="application/octet-stream", headers=headers)


async def _visible_content(request: Request) -> tuple[Hold, Message]:
    """Return the hold and its content, for people who may see all of it. Raises 404 for others."""
    hold, seen = await hold_in_path(request)
    if seen < Visibility.FULL:
        raise HTTPException(404)
    try:
        return hold, await services_of(request).store.contents.load(hold.content_sha256)
    except ContentMissing:
        raise HTTPException(404) from None
