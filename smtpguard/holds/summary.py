"""Describe a held message in one sentence: what it is, whom it is addressed to, and which topics it has. Pure.

The sentence is made from the verdict alone, so that a list of a hundred rows reads no content. Lists and topics are
named only if a list address was among the recipients (noticedata.nameable).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smtpguard.holds.effects import TEST
from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import N_, NN_, Amount, Listed, Phrase, Said
from smtpguard.policy.verdict import Reason, Verdict
from smtpguard.reading.thread import FORWARD, REPLY, prefix_of
from smtpguard.reading.topics import topic_name

_WHAT = {
    ("internal", REPLY): N_("A reply between colleagues"),
    ("internal", FORWARD): N_("A forwarded message between colleagues"),
    ("internal", ""): N_("A message between colleagues"),
    ("mailing", ""): N_("A mailing"),
}
_ANY = {REPLY: N_("A reply"), FORWARD: N_("A forwarded message"), "": N_("A message")}
_TEST = N_("A test of a mailing")
_CORRECTING = N_("The correction of a mailing")
_MOST_NAMED = 3
_TO_LISTS = NN_("{what}, on its way to {n} person on {lists}.", "{what}, on its way to {n} people on {lists}.")
_TO_PEOPLE = NN_("{what}, on its way to {n} person.", "{what}, on its way to {n} people.")
_AT_MOST_LISTS = NN_(
    "{what}, on its way to at most {n} person on {lists}.", "{what}, on its way to at most {n} people on {lists}."
)
_AT_MOST_PEOPLE = NN_("{what}, on its way to at most {n} person.", "{what}, on its way to at most {n} people.")
_FOR_LISTS = NN_("{what}, for {n} person on {lists}.", "{what}, for {n} people on {lists}.")
_FOR_PEOPLE = NN_("{what}, for {n} person.", "{what}, for {n} people.")
_WAS_TO_LISTS = NN_("{what}, written to {n} person on {lists}.", "{what}, written to {n} people on {lists}.")
_WAS_TO_PEOPLE = NN_("{what}, written to {n} person.", "{what}, written to {n} people.")


def summary(hold: Hold, lists: Sequence[str], *, over: bool = False) -> Phrase:
    """Return one or two sentences on a held message. ``lists``: the titles that may be named, and a phrase if it goes
    to others too. ``over``: whether the hold has ended."""
    first, topics = sentence(hold, lists, over=over), unsuitable_topics(hold.verdict) if lists else ()
    if not topics:
        return first
    return Phrase(
        "{sentence} It speaks of {topics}.", sentence=first, topics=enumeration(list(map(topic_name, topics)))
    )


def reach_of(hold: Hold) -> Amount:
    """Return the number of people that the message reaches, without an upper bound if a list has no index."""
    return Amount(hold.reach, float("inf") if hold.reach_at_least else hold.reach)


def sentence(hold: Hold, lists: Sequence[str], *, over: bool = False) -> Phrase:
    """Return a sentence with the kind of a held message and its recipients, without its topics."""
    reach = reach_of(hold)
    if hold.kind == TEST:  # it is never sent itself
        forms = _FOR_LISTS if lists else _FOR_PEOPLE
    elif over:
        forms = _WAS_TO_LISTS if lists else _WAS_TO_PEOPLE
    elif hold.reach_at_most:
        forms = _AT_MOST_LISTS if lists else _AT_MOST_PEOPLE
    else:
        forms = _TO_LISTS if lists else _TO_PEOPLE
    return Phrase.counted(*forms, reach, what=Phrase(kind_phrase(hold)), lists=first_few(lists))


def kind_phrase(hold: Hold) -> str:
    if hold.kind == TEST:
        return _TEST if hold.correction is None else _CORRECTING
    looks = next((r.observed for r in _reasons(hold.verdict) if r.fact == "message.looks"), "")
    kind = prefix_of(hold.subject)
    prefix = kind[0] if kind is not None else ""
    return _WHAT.get((looks, prefix)) or (_WHAT[looks, ""] if looks == "mailing" else _ANY[prefix])


def unsuitable_topics(verdict: Verdict) -> tuple[str, ...]:
    """Return the topics in a message that are unsuitable for its audience: names of vocabularies, which contain no
    comma."""
    found = (r.observed for r in _reasons(verdict) if r.fact == "message.unsuitable_topics")
    names = (name for text in found if not text.startswith(("none", "unknown")) for name in text.split(", "))
    return tuple(dict.fromkeys(names))


def first_few(names: Sequence[str]) -> Said:
    """Return the first few names, and how many more there are."""
    if len(names) <= _MOST_NAMED:
        return enumeration(list(names))
    return Phrase("{some} and {n} more", some=", ".join(names[:_MOST_NAMED]), n=len(names) - _MOST_NAMED)


def enumeration(texts: Sequence[Said]) -> Said:
    """Return texts as an enumeration: "pork, alcohol and health"."""
    if len(texts) < 2:
        return texts[0] if texts else ""
    return Phrase("{some} and {last}", some=Listed(tuple(texts[:-1])), last=texts[-1])


def _reasons(verdict: Verdict) -> Iterable[Reason]:
    yield from (reason for hit in verdict.hits for reason in hit.reasons)
    yield from (miss.reason for miss in verdict.misses if miss.reason is not None)
