"""The page of one held message: reasons, recipients, text and approvers; and for its writer why it waits. Every view is
journalled.

Its HTML is served for a frame, and its attachments for download. Both are untrusted bytes, each with headers that
isolate them. Three independent defences make the HTML safe: nh3 cleans the markup down to what shows text; a
Content-Security-Policy on the response loads nothing and sends nothing; the frame is sandboxed. Links lose their
targets. Only images inside the message are shown (RFC 2392), within bounds.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import nh3
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from smtpguard.console import labels
from smtpguard.console.messageview import (
    ALPHABETS,
    LARGE,
    Evidence,
    MessageView,
    attached,
    authorship,
    content_id,
    evidence,
    is_html,
    mixed,
    opened,
    outlook_now,
    parts,
    segments,
)
from smtpguard.console.rendering import page, services_of, speech
from smtpguard.console.services import ConsoleServices, Routes, Visibility, find, person, viewed
from smtpguard.database.errors import ContentMissing
from smtpguard.guard.inforce import InForce
from smtpguard.holds import coverage, effects
from smtpguard.holds.coverage import BEGINNING
from smtpguard.holds.model import Hold, State
from smtpguard.holds.summary import sentence, summary
from smtpguard.journal.event import Kind
from smtpguard.lists.recipients import INTERNAL, OUTSIDE, Classification
from smtpguard.locale.phrase import Amount
from smtpguard.locale.speech import Speech
from smtpguard.mail.message import Message
from smtpguard.notices import noticedata
from smtpguard.policy.facts import Source
from smtpguard.reading.looks import Reading
from smtpguard.reading.parts import Part, body_text, transfer
from smtpguard.reading.request import TooComplex

SAMPLES = 5
SPOKEN = frozenset({Kind.ASKED.value, Kind.ANSWERED.value, Kind.PLEADED.value})
_LETTERS: OrderedDict[str, MessageView] = OrderedDict()
_MOST_LETTERS = 32


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
class Shown:
    """What is behind the reasons, as far as this person may see it."""

    letter: MessageView | None = field(default=None, repr=False)
    found: Evidence | None = None
    gone: bool = False
    claimed: str = ""


async def looked_up(request: Request) -> tuple[Hold, Visibility]:
    """The hold in the path, for a person who may see it. Raises 404 for others, as if it did not exist.

    With a signed link only the link's own hold.
    """
    link = getattr(request.state, "link", None)
    wanted = link.hold_id if link is not None else request.path_params.get("hold_id", "")
    found = await find(services_of(request), person(request), wanted)
    if found is None:
        raise HTTPException(404)
    return found


async def _record_view(request: Request, hold: Hold, saw: str) -> None:
    here, who = services_of(request), person(request)
    await here.store.journal.record([viewed(hold, saw, "console", here.clock.now(), who.address)])


ROUTES = Routes()


@ROUTES.get("/mine/{link}")
@ROUTES.get("/held/{hold_id}")
async def message(request: Request) -> Response:
    who = person(request)
    hold, seen = await looked_up(request)
    if who.address in hold.senders:
        return await own(request, hold)
    await _record_view(request, hold, seen.name.lower())
    return await shown(request, hold, seen)


async def shown(
    request: Request,
    hold: Hold,
    seen: Visibility,
    status: int = 200,
    problem: str = "",
    *,
    wrong: Mapping[str, str] | None = None,
) -> Response:
    """The page for approvers. ``problem``: why a decision was not made; ``wrong``: the fields with errors."""
    here, who, said = services_of(request), person(request), speech(request)
    in_force = here.in_force
    content = await _content(here, hold, seen, request)
    whom = await asyncio.to_thread(reached, hold, in_force, seen)
    frozen = (await here.freezes.holding_up(hold)).get(hold.hold_id, ())
    ahead = outlook_now(here, hold, who)
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
            for word, scripts in mixed((*sorted(hold.senders), content.claimed, hold.subject))
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
        talk=await talk(here, hold, said),
        asking=request.query_params.get("ask") == "1",
        states=labels.states(hold, frozen=bool(frozen)),
        problem=problem,
    )


async def _queued(here: ConsoleServices, hold: Hold, most: int, *, blind: bool) -> list[tuple[list[Hold], str]]:
    """The letters that are decided on with it, by their text, oldest first, each with the beginning of the text: "" if the person
    may not see it."""
    texts: dict[str, tuple[list[Hold], str]] = {}
    for one, shown in await here.store.holds.queued(hold.hold_id, most) if most else ():
        text = shown.text if shown is not None and not blind else one.hold_id
        begins = shown.beginning(BEGINNING) if shown is not None and not blind else ""
        texts.setdefault(text, ([], begins))[0].append(one)
    return list(texts.values())


async def own(
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
        base=base(request),
        talk=await talk(here, hold, said),
        asked=await here.questions.open_question(hold.hold_id),
        judged=await here.questions.judgement(hold.hold_id) if hold.state is not State.WAITING else "",
        problem=problem,
        wrong=wrong,
    )


def base(request: Request) -> str:
    """The path of its page: by the signed link that its writer came with, or by its id."""
    link = request.path_params.get("link")
    return f"/mine/{link}" if link else f"/held/{request.path_params['hold_id']}"


async def talk(here: ConsoleServices, hold: Hold, said: Speech) -> list[labels.EntryText]:
    """The questions and answers about it that are not erased."""
    entries = await here.store.journal.history(hold.hold_id)
    return [labels.entry_in_words(entry, clear, said) for entry, clear in entries if entry.kind in SPOKEN]


def reasons_in_words(reasons: Iterable[Mapping[str, Any]], said: Speech) -> list[tuple[str, str, list[str]]]:
    """(rule, its purpose, what it saw), in the reader's language. What several rules saw is said once."""
    effects: list[tuple[str, str, list[str]]] = []
    before: set[str] = set()
    for each in reasons:
        purpose = each["descriptions"].get(said.language) or said.say(each["description"] or "")
        seen = [sentence for s in each["sentences"] if (sentence := said.say(s)) not in before]
        before.update(seen)
        effects.append((str(each["rule"]), purpose, seen))
    return effects


def reached(hold: Hold, in_force: InForce, seen: Visibility) -> list[Reached]:
    """Recipients by kind, counted, with a few samples for people who see the message."""
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


async def letter_of(content: Message) -> MessageView:
    """Opened in a thread, and cached for a while: the page is shown again after each decision."""
    found = _LETTERS.get(content.sha256)
    if found is None:
        found = _LETTERS[content.sha256] = await asyncio.to_thread(opened, content)
        if len(_LETTERS) > _MOST_LETTERS:
            _LETTERS.popitem(last=False)
    return found


async def _content(here: ConsoleServices, hold: Hold, seen: Visibility, request: Request) -> Shown:
    try:
        content = await here.store.contents.load(hold.content_sha256)
    except ContentMissing:
        return Shown(gone=True)
    need = frozenset({Source.HEADERS, Source.TEXT})
    reading = here.reader.at_once(content, need) or await here.reader.apart(content, need)
    lists = here.in_force.registry.lists
    avoid = {topic for name in hold.lists if name in lists for topic in lists[name].avoid}
    blind = seen < Visibility.TEXT
    found = evidence(reading, speech(request), avoid, blind=blind) if isinstance(reading, Reading) else None
    claimed = (reading.from_address or "") if isinstance(reading, Reading) and not reading.from_ambiguous else ""
    return Shown(letter=await letter_of(content) if seen >= Visibility.TEXT else None, found=found, claimed=claimed)


@ROUTES.get("/held/{hold_id}/html")
async def frame(request: Request) -> Response:
    hold, content = await _whole(request)
    text = await asyncio.to_thread(framed, content)
    if text is None:
        raise HTTPException(404)
    await _record_view(request, hold, "html")
    return HTMLResponse(text, headers=dict(_HEADERS))


@ROUTES.get("/held/{hold_id}/part/{n:int}")
async def part(request: Request) -> Response:
    hold, content = await _whole(request)
    try:
        found = await asyncio.to_thread(attached, content, request.path_params["n"])
    except (TooComplex, RecursionError):
        found = None
    if found is None:
        raise HTTPException(404)
    listed, data = found
    await _record_view(request, hold, f"attachment {listed.n}")
    name = quote(listed.name.replace("/", "_").replace("\\", "_") or f"part-{listed.n}", safe="")
    headers = dict(_HEADERS) | {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}  # RFC 6266, RFC 8187
    return Response(data, media_type="application/octet-stream", headers=headers)


async def _whole(request: Request) -> tuple[Hold, Message]:
    """For people who may see all of it; 404 for others."""
    hold, seen = await looked_up(request)
    if seen < Visibility.FULL:
        raise HTTPException(404)
    try:
        return hold, await services_of(request).store.contents.load(hold.content_sha256)
    except ContentMissing:
        raise HTTPException(404) from None


_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data: cid:; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",
    "Cache-Control": "no-store",
}

_MOST_HTML = 1 << 20
_MOST_IMAGE = 512 << 10
_MOST_IMAGES = 2 << 20
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_TAGS = frozenset(
    """
    a abbr address article aside b big blockquote br caption center cite code col colgroup dd del details div dl dt em
    figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark ol p pre q s samp section small
    span strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var
    """.split()  # noqa: SIM905
)
_EVERYWHERE = frozenset({"style", "align", "valign", "dir", "lang", "title", "width", "height", "bgcolor", "color"})
_ATTRIBUTES: dict[str, set[str]] = {
    "*": set(_EVERYWHERE),
    "img": {"src", "alt"},
    "font": {"face", "size"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "table": {"border", "cellpadding", "cellspacing"},
    "ol": {"start", "type"},
}
_STYLES = frozenset(
    """
    background-color border border-bottom border-collapse border-color border-left border-radius border-right border-spacing
    border-style border-top border-width color direction display font font-family font-size font-style font-variant
    font-weight height letter-spacing line-height list-style-type margin margin-bottom margin-left margin-right margin-top
    max-height max-width min-height min-width opacity padding padding-bottom padding-left padding-right padding-top
    text-align text-decoration text-indent text-transform vertical-align visibility white-space width word-break
    """.split()  # noqa: SIM905
)
_PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><title></title>
<style>body{{margin:12px;font-family:system-ui,sans-serif;color:#111;background:#fff;overflow-wrap:anywhere}}
img{{max-width:100%;height:auto}}a{{text-decoration:underline}}</style></head><body>
{}
</body></html>
"""


def framed(message: Message) -> str | None:
    """A page of its own; None without HTML, or with too much of it. Slow: not for the event loop."""
    try:
        found = list(parts(message))
    except (TooComplex, RecursionError):
        return None
    texts = [_text(part) for part in found if is_html(part)]
    if not texts or sum(map(len, texts)) > _MOST_HTML:
        return None
    return _PAGE.format("\n<hr>\n".join(cleaned(text, _images(found)) for text in texts))


def cleaned(html: str, images: Mapping[str, str]) -> str:
    """Keep what shows text, and nothing that loads anything. ``images``: Content-ID -> data: URL."""
    return nh3.clean(
        html,
        tags=set(_TAGS),
        clean_content_tags={"script", "style", "title", "template", "noscript", "object", "iframe", "svg", "math"},
        attributes=_ATTRIBUTES,
        attribute_filter=_filter(images),
        url_schemes={"cid", "data"},
        filter_style_properties=set(_STYLES),
        strip_comments=True,
        link_rel=None,
    )


def _filter(images: Mapping[str, str]) -> Callable[[str, str, str], str | None]:
    def kept(tag: str, name: str, value: str) -> str | None:
        if name == "src":
            return images.get(unquote(value[4:]).strip("<> ")) if value[:4].lower() == "cid:" else None
        if name == "style" and ("url" in value.lower() or "\\" in value):
            return None  # no attribute here needs a URL, or a disguised form of one
        return value

    return kept


def _images(found: list[Part]) -> dict[str, str]:
    """Content-ID -> data: URL of the images inside the message, as many as fit."""
    images: dict[str, str] = {}
    left = _MOST_IMAGES
    for part in found:
        name = content_id(part)
        if not name or part.kind not in _IMAGES or part.end - part.start > 2 * _MOST_IMAGE:
            continue
        data = transfer(part.body, part.encoding)[0]
        if len(data) > min(_MOST_IMAGE, left):
            continue
        left -= len(data)
        images.setdefault(name, f"data:{part.kind};base64,{base64.b64encode(data).decode('ascii')}")
    return images


def _text(part: Part) -> str:
    if part.end - part.start > 2 * _MOST_HTML:
        return " " * (_MOST_HTML + 1)
    return body_text(transfer(part.body, part.encoding)[0], part.kind, part.parameters).text
