"""The page of one held message: reasons, recipients, text and approvers; and for its writer why it waits. Every view is
journalled."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from smtpguard.console import labels
from smtpguard.console.decisionpreview import LARGE, outlook
from smtpguard.console.labels import EntryText, entry_in_words
from smtpguard.console.messageview import (
    ALPHABETS,
    Evidence,
    MessageView,
    authorship,
    evidence,
    mixed,
    opened,
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
from smtpguard.lists.recipients import Classification
from smtpguard.lists.recipients import Kind as RecipientKind
from smtpguard.locale.speech import Speech
from smtpguard.mail.message import Message
from smtpguard.notices import noticedata
from smtpguard.policy.approvals import REST, Stages
from smtpguard.policy.facts import Source
from smtpguard.policy.verdict import Verdict
from smtpguard.reading.looks import Reading

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
    people: int = 0
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


async def record_view(request: Request, hold: Hold, saw: str) -> None:
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
    await record_view(request, hold, seen.name.lower())
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
    in_force, now = here.in_force, here.clock.now()
    content = await _content(here, hold, seen, request)
    whom = await asyncio.to_thread(reached, hold, in_force, seen)
    frozen = (await here.freezes.holding_up(hold)).get(hold.hold_id, ())
    ahead = outlook(hold, who, in_force, now)
    covers = coverage.covered(hold, await here.approvals.learned(hold.hold_id))
    return await page(
        request,
        "message.html",
        status,
        hold=hold,
        sight=seen.name.lower(),
        summary=said.say(summary(hold, noticedata.nameable(hold, in_force), over=hold.state is not State.WAITING)),
        at_most=hold.reach_at_most,
        reasons=spoken(hold.verdict, in_force, said, readable=seen >= Visibility.TEXT),
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
        covers=[said.say(each) for each in coverage.said(covers, blind=seen < Visibility.TEXT)],
        under=covers.under,
        policy_sha256=in_force.policy_sha256,
        staged=_staged(effects.stages(hold, in_force) if hold.mailing_id else None, said),
        unstaged=_staged(ahead.at_once.stages if ahead.at_once is not None else None, said),
        large=LARGE,
        delay=here.approvals.delay(hold, ahead.people),
        wrong=wrong,
        talk=await talk(here, hold, said),
        asking=request.query_params.get("ask") == "1",
        states=labels.KEPT_STATES if frozen else labels.STATES,
        categories=labels.CATEGORIES,
        why_not=labels.WHY_NOT,
        done=done(request),
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
    """The page for its writer."""
    here, said = services_of(request), speech(request)
    in_force = here.in_force
    frozen = (await here.freezes.holding_up(hold)).get(hold.hold_id, ())
    return await page(
        request,
        "own.html",
        status,
        hold=hold,
        summary=said.say(sentence(hold, noticedata.nameable(hold, in_force), over=hold.state is not State.WAITING)),
        policy_sha256=in_force.policy_sha256,
        reasons=in_words(noticedata.reasons(hold, in_force), said),
        lists=noticedata.nameable(hold, in_force),
        stopped_by=frozen,
        outgoing=await here.store.holds.outgoing(hold.hold_id),
        own_states=labels.own_states(hold, frozen=bool(frozen)),
        base=base(request),
        talk=await talk(here, hold, said),
        asked=await here.questions.open_question(hold.hold_id),
        judged=await here.questions.judged(hold.hold_id) if hold.state is not State.WAITING else "",
        done=done(request),
        problem=problem,
        wrong=wrong,
    )


def base(request: Request) -> str:
    """The path of its page: by the signed link that its writer came with, or by its id."""
    link = request.path_params.get("link")
    return f"/mine/{link}" if link else f"/held/{request.path_params['hold_id']}"


def done(request: Request) -> str:
    """What was done before this page, in words; only one of our own messages, whatever the URL says."""
    return speech(request)(text) if (text := labels.DONE.get(request.query_params.get("done", ""), "")) else ""


async def talk(here: ConsoleServices, hold: Hold, said: Speech) -> list[EntryText]:
    """The questions and answers about it that are not erased."""
    entries = await here.store.journal.history(hold.hold_id)
    return [entry_in_words(entry, clear, said) for entry, clear in entries if entry.kind in SPOKEN]


def spoken(
    verdict: Verdict, in_force: InForce, said: Speech, *, readable: bool = False
) -> list[tuple[str, str, list[str]]]:
    return in_words(noticedata.enforced(verdict, in_force, readable=readable), said)


def in_words(reasons: Iterable[Mapping[str, Any]], said: Speech) -> list[tuple[str, str, list[str]]]:
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
                people=int(touched.size.low if touched.by_address else touched.members.low),
                category=info.category or "",
                special=info.special,
                samples=samples(on_it),
            )
        )
    for kind in (RecipientKind.INTERNAL, RecipientKind.OUTSIDE):
        some = [one for one in everyone.recipients if one.kinds == {kind}]
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


def _staged(stages: Stages | None, said: Speech) -> str:
    """ "50, 1 %, the rest"; "" without stages."""
    return ", ".join(
        said("the rest") if step == REST else f"{said.number(step * 100)} %" if step < 1 else said.number(int(step))
        for step in (stages.steps if stages is not None else ())
    )


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
