"""The pages that list holds: Waiting, a writer's own messages, and History.

Waiting lists holds by priority, a mailing as one row. People can decide on many at once, after a page that shows how many. History
has decisions, freezes, and all entries of one message, from the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.console import journalwords, labels
from smtpguard.console.decisionpreview import LARGE, DecisionPreview, accepted_number, preview_now
from smtpguard.console.filters import (
    ANY,
    APPROVED,
    DECIDED,
    ENDS,
    PAGE,
    WAITS,
    Filters,
    count_to_decide,
    page_of_holds,
)
from smtpguard.console.messageview import cached_view
from smtpguard.console.pages.message import hold_in_path
from smtpguard.console.rendering import (
    choice_of,
    digits,
    form,
    number,
    number_of,
    page,
    see_other,
    services_of,
    speech,
    text_of,
    what_of,
)
from smtpguard.console.rulewords import rule_in_words
from smtpguard.console.services import (
    ConsoleServices,
    Person,
    Routes,
    Visibility,
    is_asked,
    person,
    sees,
    view_event,
    visibility,
)
from smtpguard.database.errors import CommitUnknown, ContentMissing, StoreError
from smtpguard.guard.inforce import InForce
from smtpguard.holds.coverage import BEGINNING
from smtpguard.holds.effects import TEST, Seen, stages
from smtpguard.holds.model import Choice, Hold, HoldQuery, NotEntitled, PolicyChanged, Rank, Refused, State, Unconfirmed
from smtpguard.holds.service import Decided
from smtpguard.holds.summary import sentence, unsuitable_topics
from smtpguard.journal.chain import Clear
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech
from smtpguard.mailings import copies
from smtpguard.mailings.model import Mailing
from smtpguard.notices.noticedata import addressed, addressees
from smtpguard.policy.freezing import Freeze
from smtpguard.reading.topics import topic_name

MOST_AT_ONCE = 200
"""The most holds that are decided on at once."""
MOST_BEGUN = 50
"""The most holds of which a page shows the beginning of the text."""
MOST_OPENED = 1 << 20
"""The most octets of a hold of which a page shows the beginning of the text."""

ROUTES = Routes()


@ROUTES.get("/held")
async def waiting(request: Request) -> Response:
    """Show the Waiting page, or only its rows for a refresh."""
    here, who, said = services_of(request), person(request), speech(request)
    if not who.roles:
        return see_other("/mine")
    asks, in_force = Filters.of(request), here.in_force
    lists = in_force.registry.lists
    special = [name for name, info in lists.items() if info.special]
    wanted = asks.wanted(here, who, [State.WAITING])
    found: Sequence[Hold] = ()
    n, last = 0, None
    if wanted is not None:
        found, n, last = await here.store.holds.ranked(wanted, first=special, limit=PAGE, after=_place(asks.after))
    fragment = request.headers.get("hx-target") == "rows"
    return await page(
        request,
        "rows.html" if fragment else "waiting.html",
        rows=[_row(hold, request) for hold in found],
        frozen_ones=await here.freezes.holding_up(*found),
        fragment=fragment,
        count=n if asks.filtered or who.sees_all else await count_to_decide(here, who),
        shown=len(found),
        number=f"({n}) " if n else "",
        late=not in_force.hours.open_at(here.clock.now()),
        asked=[] if asks.after else await _in_doubt(here, who),
        standing=[] if asks.after else await mailings_to_decide(here, who),
        wanted=asks,
        here=asks.url(asks.after),
        further=asks.url(_cursor(last)) if last is not None else "",
        lists=here.choices,
        rules=rule_choices(in_force, said),
        kinds=WAITS,
        total=await here.store.holds.count_waiting(),
        sees_all=who.sees_all,
        seated=Role.APPROVER not in who.roles or bool(in_force.groups.of_person(who.address, here.clock.now())),
        decides=Role.APPROVER in who.roles,
    )


def rule_choices(in_force: InForce, said: Speech) -> list[tuple[str, str]]:
    """Return the rules to choose from, as (purpose, id)."""
    return [(rule_in_words(rule, said).aim or rule.rule_id, rule.rule_id) for rule in in_force.rules.rules]


def _cursor(place: Rank) -> str:
    return f"{place.later}-{-place.fewer}-{place.expires_at}-{place.hold_id}"


def _place(after: str) -> Rank | None:
    """Return the place in a cursor, None for an invalid one."""
    *numbers, hold_id = after.split("-", 3)
    found = [number for number in map(digits, numbers) if number is not None]
    if len(found) != 3 or not hold_id:
        return None
    later, people, expires_at = found
    return Rank(later=later, fewer=-people, expires_at=expires_at, hold_id=hold_id)


def _row(hold: Hold, request: Request) -> dict[str, Any]:
    """Return one row. ``sentence``: what it is, and whom it would reach; ``topics``: found topics that its audience is to be spared.
    ``approved``, ``needed``: numbers of votes; ``mine``: whether the reader's is among them. ``late``: who may decide out of hours,
    if it is out of hours now."""
    here, who, said = services_of(request), person(request), speech(request)
    in_force, now = here.in_force, here.clock.now()
    ahead, named = preview_now(here, hold, who), addressees(hold, in_force)
    approving = {vote.approver for vote in ahead.votes if vote.choice is Choice.APPROVE}
    missing = sum(n for need in ahead.needs for n, _ in need.groups)
    late = (
        () if in_force.hours.open_at(now) else tuple(dict.fromkeys(seat for need in ahead.needs for seat in need.late))
    )
    return {
        "hold": hold,
        "sentence": said.say(sentence(hold, named)),
        "topics": tuple(said.say(topic_name(topic)) for topic in (unsuitable_topics(hold.verdict) if named else ())),
        "special": any(info.special for info in addressed(hold, in_force)),  # visibly: by its address
        "may": is_asked(hold, who, here) and not hold.asks_writer,
        "may_undo": ahead.may_undo,
        "over": here.approvals.is_over(hold),
        "approved": len(approving),
        "needed": len(approving) + missing,
        "mine": who.address in approving,
        "late": late,
    }


@ROUTES.post("/decide", Role.APPROVER)
async def decide(request: Request) -> Response:
    """Show the chosen holds again with their number, to be confirmed. Nothing is decided yet."""
    here, who = services_of(request), person(request)
    sent = form(request)
    choice = choice_of(sent)
    chosen = await _chosen(here, who, [str(id) for id in sent.getlist("hold")])
    holds = [hold for hold in chosen if hold.state is State.WAITING]
    if not holds:
        return see_other("/held", done="none")
    return await _confirmation(request, choice.value, holds, here.in_force.sha256)


async def _confirmation(
    request: Request,
    choice: str,
    holds: Sequence[Hold],
    policy_sha256: str,
    status: int = 200,
    wrong: Mapping[str, str] | None = None,
) -> Response:
    here, aheads = services_of(request), _previews(request, holds)
    in_force = here.in_force
    people = sum(_sent(ahead) for _, ahead in aheads)
    texts = await _beginnings(here, person(request), holds)
    # a test, and a correction, let others pass and are not sent themselves
    sent = [(hold, ahead) for hold, ahead in aheads if ahead.sends and hold.kind != TEST and hold.correction is None]
    frozen = await here.freezes.holding_up(*(hold for hold, _ in sent))
    return await page(
        request,
        "confirm.html",
        status,
        choice=choice,
        holds=[(hold, _sent(ahead), texts.get(hold.hold_id, "")) for hold, ahead in aheads],
        stopped_by=_distinct(frozen.values()),
        stopped=len(frozen),
        delay=max((here.approvals.delay(hold, ahead.people) for hold, ahead in sent), default=timedelta()),
        sending=len(sent),
        left=sum(not ahead.sends for _, ahead in aheads),
        staged=sorted(
            {
                name
                for hold, ahead in aheads
                if ahead.sends and stages(hold, in_force)
                for name in in_force.staged(hold.lists)
            }
        ),
        people=people,
        unknown=any(hold.reach_at_least for hold, ahead in aheads if ahead.sends),
        large=people >= LARGE,
        policy_sha256=policy_sha256,
        wrong=wrong,
    )


async def _beginnings(here: ConsoleServices, who: Person, holds: Sequence[Hold]) -> dict[str, str]:
    """Return the beginnings of texts that the person may read, by hold, for holds that open fast. The views are journalled first."""
    readable = [
        hold for hold in holds if hold.size_bytes <= MOST_OPENED and visibility(hold, who, here) >= Visibility.TEXT
    ][:MOST_BEGUN]
    if not readable:
        return {}
    now = here.clock.now()
    await here.store.journal.record([view_event(hold, "text", "console", now, who.address) for hold in readable])
    found: dict[str, str] = {}
    for hold in readable:
        try:
            text = (await cached_view(await here.store.contents.load(hold.content_sha256))).new
        except ContentMissing:
            continue
        words = " ".join(text.split())
        found[hold.hold_id] = words if len(words) <= BEGINNING else f"{words[:BEGINNING].rpartition(' ')[0]}…"
    return found


def _sent(ahead: DecisionPreview) -> int:
    """Return how many people this person's approval sends it to."""
    return ahead.people if ahead.sends else 0


def _previews(request: Request, holds: Sequence[Hold]) -> list[tuple[Hold, DecisionPreview]]:
    here, who = services_of(request), person(request)
    return [(hold, preview_now(here, hold, who)) for hold in holds]


@ROUTES.post("/decided", Role.APPROVER)
async def decided(request: Request) -> Response:
    """Decide on each hold as it was when confirmed. Failures are listed with their reasons."""
    here, who, said = services_of(request), person(request), speech(request)
    sent = form(request)
    choice = choice_of(sent)
    comment = text_of(sent, "comment")
    bound = [str(value).split(":", 4) for value in sent.getlist("seen")][:MOST_AT_ONCE]
    seen = {id: rest for id, *rest in (b for b in bound if len(b) == 5)}
    aheads = _previews(request, await _chosen(here, who, list(seen)))
    holds = [hold for hold, _ in aheads]
    people = sum(number_of(shown) or 0 for _, _, shown, _ in seen.values())
    wrong = dict[str, str]()
    if choice is Choice.REJECT and not comment:
        wrong["comment"] = said("Give a reason: the writers read it.")
    elif choice is Choice.APPROVE and people >= LARGE and number(sent, "number") != people:
        wrong["number"] = said("Type how many people they reach together, to be sure.")
    elif choice is Choice.APPROVE and people < LARGE and number(sent, "number") != len(holds):
        wrong["number"] = said("Type how many messages it is, to be sure.")
    if not holds:
        return see_other("/held", done="none")
    if wrong:
        return await _confirmation(request, choice.value, holds, text_of(sent, "policy"), 422, wrong)
    done: list[Decided] = []
    left: list[tuple[Hold, str]] = []
    for hold, ahead in aheads:
        if not ahead.may and (choice is Choice.APPROVE or ahead.why_not not in ("voted", "leaving")):
            faster = labels.earlier_decision(hold, who.address, said) if ahead.why_not == "decided" else ""
            left.append((hold, f"{said(labels.WHY_NOT[ahead.why_not])} {faster}".strip()))
            continue
        content, envelope, shown, scope = seen[hold.hold_id]
        looked = Seen(
            content_sha256=content,
            envelope_sha256=envelope,
            scope=hold.scope,
            policy_sha256=text_of(sent, "policy"),
        )
        most = accepted_number(number_of(shown), hold.reach, ahead.people) if ahead.sends else 0
        if choice is Choice.APPROVE and (most is None or scope != hold.scope_text):
            left.append((hold, said("it has changed since you looked")))
            continue
        try:
            made = await here.approvals.vote(
                hold.hold_id, choice, approver=who.address, by=who.by, seen=looked, comment=comment,
                people=most or 0,
            )  # fmt: skip
            done.append(made)
        except NotEntitled:
            left.append((hold, said("you cannot decide on it")))
        except Unconfirmed:
            left.append((hold, said("it cannot be sent in stages: decide on it by itself")))
        except PolicyChanged:
            left.append((hold, said("the policy has changed since you looked")))
        except (Refused, KeyError):
            now = await here.store.holds.find(hold.hold_id)
            faster = labels.earlier_decision(now, who.address, said) if now is not None else ""
            left.append((hold, (said("it has changed since you looked") + f". {faster}").strip()))
        except CommitUnknown:
            left.append((hold, said("it is not known whether your vote counts: look at it again")))
        except StoreError:
            left.append((hold, said("the record cannot be written now")))
    frozen = [made.frozen for made in done if made.frozen]
    return await page(
        request,
        "decided.html",
        choice=choice.value,
        done=done,
        missing=sum(bool(made.missing) for made in done),
        left=left,
        stopped=len(frozen),
        stopped_by=_distinct(frozen),
    )


def _distinct(freezes: Iterable[Sequence[Freeze]]) -> list[Freeze]:
    return list(dict.fromkeys(freeze for some in freezes for freeze in some))


async def _in_doubt(here: ConsoleServices, who: Person) -> list[Hold]:
    """Return the holds in doubt that the person may see, and of which people must say whether they were sent."""
    asked = await here.store.holds.asked_about()
    return [hold for hold in asked if visibility(hold, who, here) is not Visibility.NOTHING]


async def mailings_to_decide(here: ConsoleServices, who: Person) -> list[tuple[Mailing, str]]:
    """Return the mailings that the person sees and that only a person can let go on, each with its state in English."""
    found, now = await here.store.mailings.standing(), here.clock.now()
    return [(one, labels.mailing_state(one)) for one in found if sees(who, one, here.in_force, now)]


async def _chosen(here: ConsoleServices, who: Person, ids: Sequence[str]) -> list[Hold]:
    """Return the holds with these ids that the person may see."""
    found = await here.store.holds.find_all(list(dict.fromkeys(id[:100] for id in ids[:MOST_AT_ONCE])))
    return [hold for hold in found if visibility(hold, who, here) is not Visibility.NOTHING]


@ROUTES.get("/mine")
async def mine(request: Request) -> Response:
    """Show the person's own messages, newest first. Void holds are left out: the client still has those messages."""
    states = tuple(state for state in State if state is not State.VOID)
    wanted = HoldQuery(states=states, marks=(f"from:{person(request).address}",))
    here, after = services_of(request), request.query_params.get("after", "")[:100]
    rows, further = await page_of_holds(here, wanted, limit=PAGE, after=after)
    frozen, paused = await here.freezes.holding_up(*rows), await copies.paused(here.store, rows)
    return await page(request, "mine.html", rows=rows, further=further, frozen_ones=frozen, paused=paused)


@ROUTES.get("/history", *Role)
async def history(request: Request) -> Response:
    here, who, said = services_of(request), person(request), speech(request)
    asks, in_force = Filters.of(request), here.in_force
    states = (*DECIDED, State.WAITING) if asks.state == ANY else ENDS.get(asks.state, DECIDED)
    found, further = await page_of_holds(here, asks.wanted(here, who, states), limit=PAGE, after=asks.after)
    return await page(
        request,
        "history.html",
        rows=found,
        paused=await copies.paused(here.store, found),
        frozen_ones=await here.freezes.holding_up(*found),
        wanted=asks,
        further=asks.url(further, path="/history") if further else "",
        lists=here.choices,
        rules=rule_choices(in_force, said),
        kinds={
            **{end: labels.SHORT_STATES.get(end, end) for end in ENDS},
            APPROVED: N_("approved"),
            ANY: N_("any outcome"),
        },
    )


@ROUTES.get("/history/freezes", *Role)
async def freeze_history(request: Request) -> Response:
    """Show freezes and thaws, with who set them and why."""
    here, said = services_of(request), speech(request)
    before = digits(request.query_params.get("after", ""))
    entries = await here.store.journal.freezes(limit=PAGE + 1, before=before)
    more = len(entries) > PAGE
    entries, names = entries[:PAGE], here.titles
    return await page(
        request,
        "freezes.html",
        entries=[
            (journalwords.entry_in_words(e, clear, said), _what_was_frozen(e.data, clear or {}, names, said), e)
            for e, clear in entries
        ],
        further=entries[-1][0].seq if more else "",
    )


@ROUTES.get("/history/{hold_id}")
async def timeline(request: Request) -> Response:
    """Show the journal of one message, as a timeline."""
    hold, _ = await hold_in_path(request)
    entries = await services_of(request).store.journal.history(hold.hold_id)
    said = speech(request)
    return await page(
        request,
        "timeline.html",
        hold=hold,
        entries=[journalwords.entry_in_words(e, clear, said) for e, clear in entries],
    )


def _what_was_frozen(data: Mapping[str, Any], clear: Clear, names: Mapping[str, str], said: Speech) -> str:
    value = data.get("value") or next(iter(clear.get("from", ())), said("erased"))
    return what_of(str(data.get("selector")), str(value), said, names)
