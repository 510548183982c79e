"""Adjust a message's verdict for its mailing: approved, held with it, staged, or rejected.

Pure. It runs in the admission, after the rules have decided on the message alone. The results are: approved, and its
stage has come; held with the other copies under the primary hold; deferred, since enough copies are stored; or rejected
with the approvers' sentence.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import replace

from smtpguard.admission.builtinrules import hit, is_asked_of, is_meant, or_held
from smtpguard.admission.model import ComparisonMissing, Seen
from smtpguard.gathering.gather import Gathered
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.model import Hold, State
from smtpguard.lists.persons import persons
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.constant import changed, constant
from smtpguard.mailings.differences import FACT as DIFFERS
from smtpguard.mailings.differences import MOST_SAID, Difference, gravest
from smtpguard.mailings.model import Candidate, Grant, Mailing, Rejection
from smtpguard.mailings.staging import Move, Progress
from smtpguard.policy import confirming
from smtpguard.policy.facts import OF_MAILINGS, OF_SENDERS, named
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.rule import ASTRAY, COPIES, IN_DOUBT, REJECTED, STAGES, WAITS
from smtpguard.policy.verdict import Action, Hit, Mode, Reason, Verdict

MOST_TOLD = 50
"""How many writers of one mailing's copies are told the decision."""
OF_REACH = named(lambda fact: fact.name in OF_MAILINGS and fact.own == "recipients.reach")
"""The sizes of a mailing that count everyone, not only customers."""
WITH_IT = Phrase(
    "Further letters of its sender to so many customers are held with it; one decision is for all of them."
)
NEVER_COVERED = frozenset({FREEZE, IN_DOUBT})
"""Hits that no approval of a mailing removes."""


@constant
class MailingVerdict:
    """``verdict``: adjusted for the mailing. ``entry``: the hold that it is stored under, or counted with.
    ``progress``: of a release in stages, if this message changed it."""

    verdict: Verdict
    entry: Hold | None = None
    progress: Progress | None = None

    @property
    def primary(self) -> str:
        """The id of the hold that it is stored under; "" for none."""
        return self.entry.hold_id if self.entry is not None else ""


class MailingEffect(enum.Enum):
    """The effect of a mailing's state on one of its messages."""

    PASSES = "passes"  # no decision is about it, or nothing holds it
    REFUSED = "refused"
    COVERED = "covered"  # approved; it passes in its stage
    WAITS = "waits"  # with the copies that are held
    OWN = "own"  # as the rules say


def mailing_effect(
    action: Action, *, beside: bool, refused: Callable[[], bool], covered: Callable[[], bool], waits: bool
) -> MailingEffect:
    """``action``: of the rules. ``beside``: if it passes, no decision on the mailing is about it. ``covered``: whether
    an approval covers everything that would hold it. ``waits``: whether it waits with the held copies. Costly questions
    are asked last."""
    if action is Action.RELAY and beside:
        return MailingEffect.PASSES
    if refused():
        return MailingEffect.REFUSED
    if action <= Action.HOLD and covered():
        return MailingEffect.COVERED
    if action is Action.RELAY:
        return MailingEffect.WAITS if waits else MailingEffect.PASSES
    return MailingEffect.OWN


def mailing_verdict(verdict: Verdict, gathered: Gathered, live: Seen, term: Deadlines) -> MailingVerdict:
    mailing = live.mailing
    if mailing is None and verdict.action is not Action.CONFIRM:
        return MailingVerdict(verdict=verdict)
    if is_meant(verdict, gathered, live):
        verdict = _excused(verdict)
    if mailing is None or not gathered.in_force.enforce:
        return MailingVerdict(verdict=or_held(verdict, gathered, live))
    if live.astray and verdict.action < Action.DEFER:
        verdict = _with(verdict, _astray(live.astray), gathered)
    entry = _waiting(live.entry)
    counted = gathered.counted
    waits = (
        entry is not None
        and waits_for_size(entry, customers=counted.customers.high > 0, sure=not counted.unsure)
        and not is_anothers_letter(gathered, entry.senders)
    )
    # If a correction for its people is approved, a rejection of the mailing was of messages to others.
    corrects = any(grant.only for grant in live.grants)
    match mailing_effect(
        verdict.action,
        beside=bool(gathered.streams) or (not counted.customers.high and not waits),
        refused=lambda: not corrects and refused_by(gathered, live) is not None,
        covered=lambda: (
            bool(live.grants) and _covered(verdict, gathered, live) and not _undivided(verdict, gathered, mailing)
        ),
        waits=waits,
    ):
        case MailingEffect.PASSES:
            return MailingVerdict(verdict=verdict)
        case MailingEffect.REFUSED:
            rejection = refused_by(gathered, live)
            assert rejection is not None
            return MailingVerdict(verdict=_with(verdict, _rejected(rejection.sentence)))
        case MailingEffect.COVERED:
            if corrects:
                return MailingVerdict(verdict=_excused(verdict))
            return _in_turn(_excused(verdict), mailing, live)
        case MailingEffect.WAITS:
            with_it = Action.CONFIRM if is_asked_of(entry, gathered) else Action.HOLD
            verdict = _with(verdict, _waits(mailing, with_it), gathered)
    if verdict.action is Action.REJECT:
        return MailingVerdict(verdict=verdict)
    if entry is not None and (entry.by_address or gathered.by_address) and not _same(entry, gathered):
        entry = None
    if verdict.action is Action.DEFER:
        return MailingVerdict(verdict=verdict, entry=entry)
    # What one sender writes to too many people waits as one, whatever its text: it needs one decision.
    queued = entry is None and bool(gathered.facts.sent_by) and is_by_sender(verdict)
    queue = _waiting(live.queue) if queued else None
    verdict = _of_its_writer(verdict, entry or queue, gathered, live)
    copies = mailing.messages if entry is not None or not gathered.by_address else 0
    verdict = _with_what_went_before(verdict, mailing, copies, in_doubt=live.in_doubt)
    if entry is None:
        differs = (
            Reason(fact=DIFFERS, observed=one.kind, limit="", public=one.public, detail=one.detail)
            for one in _uncovered(verdict, gathered, live, mailing)
        )
        verdict = _with_reasons(verdict, tuple(differs))
    lead = entry or queue
    if queued and queue is None:
        verdict = _with_reasons(verdict, [Reason(fact="sender.waits", observed="true", limit="", public=WITH_IT)])
    if lead is not None and lead.copies >= term.copies:
        verdict = _with(verdict, _stored_enough(lead))
    return MailingVerdict(verdict=verdict, entry=lead)


def _of_its_writer(verdict: Verdict, lead: Hold | None, gathered: Gathered, live: Seen) -> Verdict:
    """Replace a confirmation by a hold if nobody can be asked. A message that joins other held ones is part of their
    question, or held with them."""
    if lead is None:
        return or_held(verdict, gathered, live)
    if verdict.action is not Action.CONFIRM or is_asked_of(lead, gathered):
        return verdict
    return confirming.held(verdict, confirming.NOT_ALONE if lead.asks_writer else confirming.OTHERS)


def _waiting(hold: Hold | None) -> Hold | None:
    return hold if hold is not None and hold.state is State.WAITING else None


def is_by_sender(verdict: Verdict) -> bool:
    """Whether it is held only for the number of people that its sender writes to."""
    holding = _holding(verdict)
    return bool(holding) and all(any(r.fact in OF_SENDERS for r in h.reasons) for h in holding)


def is_for_others(verdict: Verdict) -> bool:
    """Whether people other than its writer are to decide on it. What defers it ends by itself."""
    return any(h.action is Action.HOLD for h in _holding(verdict))


def _holding(verdict: Verdict) -> list[Hit]:
    return [h for h in verdict.hits if h.mode is Mode.ENFORCE and h.action.waits]


def refused_by(gathered: Gathered, live: Seen) -> Rejection | None:
    """The rejection of its mailing, if it applies to this message: the same content, from one of the writers of what
    was rejected."""
    found = live.mailing.rejection if live.mailing is not None else None
    if found is None or (found.senders and not gathered.behind & found.senders):
        return None
    if not found.senders and is_anothers_letter(gathered, found.senders):
        return None
    return found if not found.only or _compared(gathered).exact == found.only else None


def is_anothers_letter(gathered: Gathered, senders: frozenset[str]) -> bool:
    """Whether it is a letter of a person who wrote none of the held messages: using the same words must not stop it."""
    return gathered.facts.values.get("message.correspondence") is True and not gathered.behind & senders


def _same(entry: Hold, gathered: Gathered) -> bool:
    """Whether the waiting message to a list address has exactly the same content and author."""
    coming = _compared(gathered)
    return bool(entry.exact) and (entry.exact, entry.author) == (coming.exact, coming.author)


def _compared(gathered: Gathered) -> Candidate:
    if gathered.coming is None:
        raise ComparisonMissing("something like it was decided on", {})
    return gathered.coming


def waits_for_size(entry: Hold, *, customers: bool, sure: bool) -> bool:
    """Whether a mailing waits because of its size. Then the rest of it waits too, even after earlier copies have left
    the window. A copy that surely reaches no customer waits only if everyone was counted, not just customers. ``sure``:
    every list knows whom this copy reaches. Then the copy does not wait with holds that only a doubt has caused:
    otherwise a shop's template would wait with one evening's mail long after the list is well."""
    facts = OF_MAILINGS if customers else OF_REACH
    sizes = {h.rule: {r.fact for r in h.reasons} & facts for h in entry.verdict.hits if h.mode is Mode.ENFORCE}
    doubted = _doubted(entry.verdict) if sure else frozenset()
    return any(size for rule, size in sizes.items() if rule not in doubted)


def _doubted(verdict: Verdict) -> frozenset[str]:
    """The rules that took effect because a list could not say how many it reaches."""
    unknown = OF_MAILINGS.intersection(dict(verdict.unknown))
    return frozenset(h.rule for h in verdict.hits if not unknown.isdisjoint(r.fact for r in h.reasons))


def with_additions(entry: Hold, verdict: Verdict, gathered: Gathered, *, part: bool) -> Hold | None:
    """The primary hold with what this message adds to it: lists, also by address, rules, writers, colleagues who
    already have it (``part``), and certainty about a feared size. A deferred one adds no writer who is told. None if it
    adds nothing. Earlier votes count for what was there: additions that are new to a voter need a new vote."""
    lists = tuple(sorted({*entry.lists, *gathered.facts.lists}))
    asked = entry.asks_writer and is_for_others(verdict)
    stricter = {h.rule for h in entry.verdict.hits if asked and h.action is Action.CONFIRM}
    known = {h.rule for h in entry.verdict.hits if h.mode is Mode.ENFORCE} - (
        _doubted(entry.verdict) - _doubted(verdict)
    )
    known -= {h.rule for h in verdict.hits if h.action is Action.HOLD and h.rule in stricter}
    more = {h.rule: h for h in _holding(verdict) if h.rule not in known}
    senders = entry.senders | gathered.behind | gathered.sender.unnamed
    part = part or entry.part
    versions = _versions(entry, gathered)
    quorum = entry.verdict.quorum
    if lists != entry.lists:  # reports are no reason to ask others instead
        quorum = gathered.in_force.rules.quorum(lists, quorum if gathered.reports_to else ())
    writer, told = gathered.sender.told, entry.told
    hears = verdict.action.waits and writer not in (entry.sender, *told)
    if writer is not None and hears and len(told) < MOST_TOLD:
        told = (*told, writer)
    sure = {r.fact for h in more.values() for r in h.reasons} & OF_MAILINGS - dict(verdict.unknown).keys()
    thought = replace(
        entry.verdict,
        action=Action.HOLD if asked else entry.verdict.action,
        hits=(*(more.pop(h.rule, h) for h in entry.verdict.hits), *more.values()),
        unknown=tuple(pair for pair in entry.verdict.unknown if pair[0] not in sure),
        quorum=quorum,
    )
    grown = replace(entry, lists=lists, senders=senders, told=told, verdict=thought, part=part, versions=versions)
    return grown if asked or grown != entry else None


def _versions(entry: Hold, gathered: Gathered) -> tuple[tuple[str, str], ...]:
    """The versions of the lists that the hold or a copy is addressed to; the first version of each counts."""
    came = ((t.name, t.version) for t in gathered.counted.touched.values() if t.by_address)
    return tuple(sorted({**dict(came), **dict(entry.versions)}.items()))


def _covered(verdict: Verdict, gathered: Gathered, live: Seen) -> bool:
    """Whether a grant covers it: its approvers saw every rule that would hold it. A confirmation by the writer covers
    only what asks the writer, and nothing that is held. Reports may go to the lists alone that it was approved for."""
    grants = live.grants if verdict.action < Action.HOLD else [g for g in live.grants if not g.by_writer]
    holding = {h.rule for h in _holding(verdict)}
    return not holding & NEVER_COVERED and any(
        holding - {WAITS} <= grant.rules and gathered.reports_to <= grant.lists for grant in grants
    )


def _undivided(verdict: Verdict, gathered: Gathered, mailing: Mailing) -> bool:
    """Whether a rule holds it, and its mailing is released in stages, which this message cannot be: it goes to a list
    address, which the relay expands. Somebody must approve expressly that it goes to all of them at once."""
    return (
        verdict.action.waits
        and mailing.progress is not None
        and bool(gathered.counted.list_addresses.high)
        and bool(gathered.in_force.staged(gathered.facts.lists))
    )


def _excused(verdict: Verdict) -> Verdict:
    """Mark the hits that held it as approved."""
    hits = tuple([changed(h, mode=Mode.APPROVED) if h.mode is Mode.ENFORCE else h for h in verdict.hits])
    return changed(verdict, action=Action.RELAY, hits=hits, quorum=())


def _in_turn(verdict: Verdict, mailing: Mailing, live: Seen) -> MailingVerdict:
    """Pass it if the stage has room. A message that does not fit into the rest of a stage ends the stage."""
    progress, now = mailing.progress, live.now
    if progress is None or not live.fresh:
        return MailingVerdict(verdict=verdict)
    if not progress.waits and mailing.out + live.fresh > progress.limit and not progress.last:
        progress = progress.moved(Move.FULL, now) or progress
    if not progress.waits:
        return MailingVerdict(verdict=verdict, progress=progress)
    return MailingVerdict(verdict=_with(verdict, _not_yet(progress)), progress=progress)


def _with(verdict: Verdict, hit: Hit, gathered: Gathered | None = None) -> Verdict:
    """``gathered``: people are to decide on it, and its lists say who, unless rules have."""
    quorum = verdict.quorum
    if gathered is not None:
        quorum = quorum or gathered.in_force.rules.quorum(gathered.facts.lists)
    return replace(verdict, action=max(verdict.action, hit.action), hits=(*verdict.hits, hit), quorum=quorum)


def _with_what_went_before(verdict: Verdict, mailing: Mailing, copies: int, *, in_doubt: bool) -> Verdict:
    """Add the reasons that the mailing has several messages, and how many people it was let through to, so that
    approvers know that they decide on more than one message. ``copies``: of the mailing, decided on together with this
    message; none for another post to a list's address. ``in_doubt``: the outcome of this very message's earlier attempt
    is unknown."""
    out, reasons = mailing.out, list[Reason]()
    sized = any(r.fact in OF_MAILINGS for h in verdict.hits if h.mode is Mode.ENFORCE for r in h.reasons)
    if copies and sized:
        public = Phrase(
            "It is one of several copies of a mailing: a decision is for all of them, and for further ones."
        )
        reasons.append(Reason(fact="mailing.messages", observed=str(copies + 1), limit="", public=public))
    if out:
        public = Phrase.counted(
            "It had been let through to one person before it was stopped.",
            "It had been let through to {n} people before it was stopped.",
            out,
        )
        if in_doubt:
            public = Phrase.counted("One person may have got it already.", "{n} people may have got it already.", out)
        reasons.append(Reason(fact="mailing.sent", observed=str(out), limit="", public=public))
    return _with_reasons(verdict, reasons)


def _with_reasons(verdict: Verdict, reasons: Sequence[Reason]) -> Verdict:
    """Add reasons to the first hit that holds it."""
    if not reasons:
        return verdict
    first = next(n for n, h in enumerate(verdict.hits) if h.mode is Mode.ENFORCE and h.action is verdict.action)
    hits = list(verdict.hits)
    hits[first] = replace(hits[first], reasons=(*hits[first].reasons, *reasons))
    return replace(verdict, hits=tuple(hits))


def _uncovered(verdict: Verdict, gathered: Gathered, live: Seen, mailing: Mailing) -> Sequence[Difference]:
    """Why the approvals of its mailing do not cover it; with several approvals, compared with the one that it differs
    least from. Raises ComparisonMissing if what was approved must be read first."""
    grants = [g for g in mailing.grants if g.cover is not None and not g.by_writer]
    if not grants or not NEVER_COVERED.isdisjoint(h.rule for h in verdict.hits):
        return ()
    if live.approved:
        seen = frozenset().union(*(grant.rules for grant in live.grants if not grant.by_writer))
        new = [h.rule for h in verdict.hits if h.mode is Mode.ENFORCE and h.rule not in seen]
        return (Difference(kind="rules", what=", ".join(new)),) if new else ()
    missing = [grant for grant in grants if grant.hold_id not in gathered.differs]
    if missing:
        raise ComparisonMissing("people are to hear in what it differs from what was approved", approved=grants)
    coming = _compared(gathered)
    several = [_from_one(grant, coming, gathered, live, mailing) for grant in grants]
    fewest = min(map(len, several))
    return gravest(next(found for found in several if len(found) == fewest))[:MOST_SAID]


def _from_one(
    grant: Grant, coming: Candidate, gathered: Gathered, live: Seen, mailing: Mailing
) -> tuple[Difference, ...]:
    found = list(gathered.differs[grant.hold_id])
    cover = grant.cover
    if cover is not None and not cover.is_from(coming):
        same = coming.author in {cover.author, *(who for who, _ in cover.also)}
        if same or not any(one.kind == "sender" for one in found):
            found.append(Difference(kind="proof" if same else "sender", what="" if same else coming.author))
    by_copy = cover is not None and cover.learned and cover.exact != coming.exact and not grant.beforehand
    if by_copy and coming.by_address:
        found.append(Difference(kind="address"))
    if found:
        return tuple(found)
    everybody = persons(gathered.counted, gathered.in_force.registry)
    if names := grant.other_lists(everybody, gathered.in_force.approved_always):
        found.append(Difference(kind="lists", what=", ".join(sorted(names))))
    elif mailing.out + mailing.agreed + live.fresh > grant.people:
        found.append(Difference(kind="people", what=f"{grant.people:,}"))
    return tuple(found)


def _rejected(sentence: str) -> Hit:
    own = sentence.strip().rstrip(".")
    said = (
        Phrase('People have already rejected this mailing: "{reason}".', reason=own)
        if own
        else Phrase("People have already rejected this mailing.")
    )
    return hit(REJECTED, Action.REJECT, "mailing.rejected", said, description="")


def _astray(people: int) -> Hit:
    public = Phrase.counted(
        "It is approved as a correction for certain people alone, and one recipient is none of them or may have it already.",
        "It is approved as a correction for certain people alone, and {n} recipients are none of them or may have it already.",
        people,
    )
    return hit(ASTRAY, Action.HOLD, "mailing.correction", public, observed=str(people), limit="0")


def _waits(mailing: Mailing, action: Action) -> Hit:
    public = Phrase("Other copies of it are held; one decision is for all of them.")
    return hit(WAITS, action, "mailing.waits", public, detail=f"held as {mailing.entry}")


def _stored_enough(lead: Hold) -> Hit:
    public = Phrase("This mailing is held for review as {hold_id}, try again later.", hold_id=lead.hold_id)
    return hit(COPIES, Action.DEFER, "mailing.copies", public, observed=str(lead.copies), limit="")


def _not_yet(progress: Progress) -> Hit:
    on = progress.goes_on_at()
    public = Phrase("This mailing is sent in stages and waits until an approver continues it, try again later.")
    if on is not None:
        public = Phrase(
            "This mailing is sent in stages and goes on at {time} UTC, try again later.", time=f"{on:%Y-%m-%d %H:%M}"
        )
    observed = f"{progress.at.value} after stage {progress.stage + 1} of {len(progress.stages.steps)}"
    limit = str(progress.limit)
    return hit(STAGES, Action.DEFER, "mailing.stage", public, observed=observed, limit=limit, detail=progress.why)
