"""One sentence on a held message: what it is, whom it is addressed to, and which topics it has.

It is made from the verdict alone, so that a list of a hundred rows reads no content. Lists and topics are named only if
a list address was among the recipients (noticedata.nameable). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smtpguard.holds.effects import TEST
from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import N_, NN_, Amount, Listed, Phrase, Said
from smtpguard.policy.verdict import Reason, Verdict
from smtpguard.reading.looks import topic_called
from smtpguard.reading.thread import FORWARD, REPLY, prefix_of

_WHAT = {
    ("internal", REPLY): N_("A reply between colleagues"),
    ("internal", FORWARD): N_("A forwarded message between colleagues"),
    ("internal", ""): N_("A message between colleagues"),
    ("mailing", ""): N_("A mailing"),
}
_ANY = {REPLY: N_("A reply"), FORWARD: N_("A forwarded message"), "": N_("A message")}
_TEST = N_("A test of a mailing")
_CORRECTION = N_("The correction of a mailing")
_MOST_NAMED = 3
_TO_LISTS = NN_("{what}, on its way to one person on {lists}.", "{what}, on its way to {n} people on {lists}.")
_TO_PEOPLE = NN_("{what}, on its way to one person.", "{what}, on its way to {n} people.")
_AT_MOST_LISTS = NN_(
    "{what}, on its way to at most one person on {lists}.", "{what}, on its way to at most {n} people on {lists}."
)
_AT_MOST_PEOPLE = NN_("{what}, on its way to at most one person.", "{what}, on its way to at most {n} people.")
_WAS_TO_LISTS = NN_("{what}, written to one person on {lists}.", "{what}, written to {n} people on {lists}.")
_WAS_TO_PEOPLE = NN_("{what}, written to one person.", "{what}, written to {n} people.")


def summary(hold: Hold, lists: Sequence[str], *, over: bool = False) -> Phrase:
    """One or two sentences. ``lists``: titles that may be named. ``over``: the hold has ended."""
    first, topics = sentence(hold, lists, over=over), unsuitable(hold.verdict) if lists else ()
    if not topics:
        return first
    return Phrase("{sentence} It speaks of {topics}.", sentence=first, topics=and_(list(map(topic_called, topics))))


def sentence(hold: Hold, lists: Sequence[str], *, over: bool = False) -> Phrase:
    """Its kind and its recipients, without its topics."""
    reach = Amount(hold.reach, float("inf") if hold.reach_at_least else hold.reach)
    if over:
        forms = _WAS_TO_LISTS if lists else _WAS_TO_PEOPLE
    elif hold.reach_at_most:
        forms = _AT_MOST_LISTS if lists else _AT_MOST_PEOPLE
    else:
        forms = _TO_LISTS if lists else _TO_PEOPLE
    return Phrase.counted(*forms, reach, what=Phrase(what(hold)), lists=some_of(lists))


def what(hold: Hold) -> str:
    if hold.kind == TEST:
        return _TEST if hold.correction is None else _CORRECTION
    looks = next((r.observed for r in _seen(hold.verdict) if r.fact == "message.looks"), "")
    kind = prefix_of(hold.subject)
    prefix = kind[0] if kind is not None else ""
    return _WHAT.get((looks, prefix)) or (_WHAT[looks, ""] if looks == "mailing" else _ANY[prefix])


def unsuitable(verdict: Verdict) -> tuple[str, ...]:
    """Topics found in it that its audience is to be spared: names of vocabularies, which contain no comma."""
    found = (r.observed for r in _seen(verdict) if r.fact == "message.unsuitable_topics")
    names = (name for text in found if not text.startswith(("none", "unknown")) for name in text.split(", "))
    return tuple(dict.fromkeys(names))


def some_of(names: Sequence[str]) -> Said:
    """The first few, and how many more."""
    if len(names) <= _MOST_NAMED:
        return and_(list(names))
    return Phrase("{some} and {n} more", some=", ".join(names[:_MOST_NAMED]), n=len(names) - _MOST_NAMED)


def and_(texts: Sequence[Said]) -> Said:
    """ "pork, alcohol and health"."""
    if len(texts) < 2:
        return texts[0] if texts else ""
    return Phrase("{some} and {last}", some=Listed(tuple(texts[:-1])), last=texts[-1])


def _seen(verdict: Verdict) -> Iterable[Reason]:
    yield from (reason for hit in verdict.hits for reason in hit.reasons)
    yield from (miss.reason for miss in verdict.misses if miss.reason is not None)
