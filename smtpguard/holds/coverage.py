"""Describe a held message in one sentence, and what an approval of it covers: as sentences for approvers, and as a row for
programs. Pure.

The one sentence says what it is, whom it is addressed to, and which topics it has. It is made from the verdict alone, so
that a list of a hundred rows reads no content. Lists and topics are named only if a list address was among the
recipients (noticedata.nameable).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtpguard.holds.effects import TEST, Learned, covers_copies
from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import N_, NN_, Amount, Listed, Phrase, Said
from smtpguard.mailings.alignment import links_in
from smtpguard.mailings.model import Grant
from smtpguard.mailings.slots import Slot, Target, Template
from smtpguard.policy.verdict import Reason, Verdict
from smtpguard.reading.looks import topic_called
from smtpguard.reading.shown import LINK, PICTURE, POINT, is_compared
from smtpguard.reading.thread import FORWARD, REPLY, prefix_of

_MOST_SAID = 12
_LONG, _LONG_TEXT, _AROUND = 160, 1_000, 60
BEGINNING = 160
"""Number of characters shown of each letter that waits with another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """``template``: the slots of copies, None if only this message is covered. ``copies``: the number of copies that it
    was learned from. ``beforehand``: it was sent to be approved beforehand. ``compared``: its content could be parsed."""

    template: Template | None
    copies: int = 0
    beforehand: bool = False
    compared: bool = True
    correction: bool = False
    """It is for exactly the people who got a mailing."""
    letters: int | None = None
    """For a sender's letters that wait as one hold: how many more are listed and decided on."""

    @property
    def under(self) -> int:
        """The number of waiting messages under it that were taken into account. The approver repeats it with the vote."""
        return self.copies if self.letters is None else self.letters

    @property
    def row(self) -> dict[str, Any]:
        """For programs. ``differs``: the slots, each with the words before it and some of the values seen, or all that
        are covered."""
        template = self.template
        return {
            "only": template is None and not self.letters,
            "letters": self.letters or 0,
            "copies": self.under,
            "words_at_most": None if template is None or template.learned else template.words_at_most,
            "differs": [
                {"before": before, "kind": slot.kind, "seen": list(slot.values)}
                for before, slot in (template.slots if template is not None else ())
            ],
            "links": _hosts(template.targets) if template is not None else [],
            "one_of": [list(texts) for texts in template.choices] if template is not None else [],
        }


def covered(hold: Hold, learned: Learned) -> Coverage:
    return Coverage(
        template=learned.template if covers_copies(hold) else None,
        copies=learned.copies or 0,
        beforehand=hold.kind == TEST,
        correction=hold.correction is not None,
        compared=is_compared(hold.exact),
        letters=learned.letters or 0 if hold.queue else None,
    )


def of_grant(grant: Grant, documents: Mapping[str, str]) -> Coverage:
    """The coverage of an approval in force. ``documents``: templates by name, as far as they are stored."""
    cover = grant.cover
    document = documents.get(cover.learned) if cover is not None else None
    template = Template.loads(document) if document is not None else None
    return Coverage(
        template=template,
        copies=template.learned if template is not None else 0,
        beforehand=grant.beforehand,
        correction=bool(grant.only),
        compared=cover is not None and is_compared(cover.exact),
    )


def said(covers: Coverage, *, blind: bool = False) -> tuple[Phrase, ...]:
    """Sentences. ``blind``: the reader may not see the text."""
    template = covers.template
    if covers.letters is not None:
        return (_letters(covers.letters), Phrase("A letter that comes later, or is not listed, waits anew."))
    if template is None:
        return (_ONLY if covers.compared else _OCTETS,)
    first = [_CORRECTION if covers.correction else _BEFOREHAND] if covers.beforehand else []
    if not template.learned:
        return (_all(*first, _by_default(template.words_at_most)), _NEVER)
    if template.alone is not None:
        first.append(_by_default(template.alone.words_at_most))
    differs = {_slot(slot, before, blind): slot.opens for before, slot in template.slots}
    differs |= {Phrase("pictures from {host}", host=host): True for host in _hosts(template.targets, (PICTURE,))}
    differs |= {
        Phrase("parts of links to {host}", host=host): False for host in _hosts(template.targets, (LINK, POINT))
    }
    differs |= {_one_of(texts, blind): True for texts in template.choices}
    n = covers.copies + 1
    if not differs:
        return (
            _all(
                *first,
                Phrase("All {n} messages that wait are the same: a copy is covered while nothing in it differs.", n=n),
            ),
            _NEVER,
        )
    # List all texts that were seen, and what one copy of many may have opened. List others up to a limit, then how many
    # more there are.
    listed: list[Said] = [one for n, (one, whole) in enumerate(differs.items()) if whole or n < _MOST_SAID]
    if left := len(differs) - len(listed):
        listed.append(Phrase("and {n} more", n=left))
    says = N_(
        "A copy is covered while it is as the {n} messages that wait. These differ from person to person in: {differs}."
    )
    if template.alone is not None:
        says = N_(
            "So is one that is as the {n} versions that were approved, with this one. These differ from each other in: {differs}."
        )
    return (_all(*first, Phrase(says, n=n, differs=Listed(tuple(listed), "; "))), _NEVER)


def _all(*sentences: Phrase) -> Phrase:
    return sentences[0] if len(sentences) == 1 else Phrase("{sentences}", sentences=Listed(sentences, " "))


def _letters(more: int) -> Phrase:
    if not more:
        return Phrase("To approve it is to approve this letter, as it is.")
    return Phrase.counted(
        "To approve it is to approve this letter and the other one that waits with it and is listed here, as they are.",
        "To approve it is to approve this letter and the {n} others that wait with it and are listed here, as they are.",
        more,
    )


def _by_default(words: int) -> Phrase:
    return Phrase(
        "A copy of it is covered while it differs in names, numbers and codes alone, and in at most {n} words.", n=words
    )


def _slot(slot: Slot, before: str, blind: bool) -> Phrase:
    addresses = slot.kind != "words" and "address" in links_in(word for value in slot.values for word in value.split())
    named = _OF_ANYBODY if addresses else Phrase(_KINDS[slot.kind])
    if blind:
        return named
    shown: list[Said] = [_new_in(one, slot.values[:n]) or _NOTHING for n, one in enumerate(slot.values)]
    seen: Phrase | Listed = Listed((*shown, *(() if slot.kind == "words" else ("…",))))
    if slot.known:
        seen = Phrase("{seen} with these words: {words}", seen=seen, words=Listed(slot.known))
    if not before:
        return Phrase("{kind} ({seen})", kind=named, seen=seen)
    return Phrase("{kind} after “{before}” ({seen})", kind=named, before=_short(before), seen=seen)


def _one_of(texts: Sequence[str], blind: bool) -> Phrase:
    if blind:
        return Phrase("one of {n} texts", n=len(texts))
    shown = (Phrase("“{text}”", text=_new_in(text, texts[:n]) or _NOTHING) for n, text in enumerate(texts))
    return Phrase("one of {n} texts: {texts}", n=len(texts), texts=Listed(tuple(shown)))


def _new_in(text: str, before: Sequence[str]) -> str:
    """From a few words before the place where it differs from all texts ``before``, so that no two look alike."""
    places = range(len(text))  # halved, not walked: texts may be long
    alike = max((bisect(places, 0, key=lambda n: not one.startswith(text[: n + 1])) for one in before), default=0)
    start = text.rfind(" ", 0, max(0, alike - _AROUND)) + 1
    return f"{'…' if start else ''}{_short(text[start:], _LONG_TEXT)}"


def _hosts(targets: Iterable[Target], kinds: tuple[str, ...] = (LINK, PICTURE, POINT)) -> list[str]:
    bases = (one.base.partition(" ")[2] for one in targets if one.base.startswith(kinds))
    return list(dict.fromkeys(base.removeprefix("https://").removeprefix("http://") for base in bases))


def _short(text: str, most: int = _LONG) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


_ONLY = Phrase(
    "To approve it is to approve this message only: what it shows, with its files, pictures and links, from this sender. Whatever differs from it is held again."
)
_OCTETS = Phrase("To approve it is to approve this message only, octet by octet: what it shows cannot be taken apart.")
_BEFOREHAND = Phrase(
    "Approved beforehand, this very content may go to the list's address, and single copies of it may go to its people."
)
_CORRECTION = Phrase("A single copy of it may go to each of those whom it is for, once, and to nobody else.")
_NEVER = Phrase("Another line, file, picture, address of a link, subject or sender is held again.")
_NOTHING = Phrase("nothing")
_OF_ANYBODY = Phrase("an address, not always the recipient's own")
_KINDS: Mapping[str, str] = {
    "name": N_("a name"),
    "number": N_("a number"),
    "code": N_("a code"),
    "list": N_("a list"),
    "words": N_("one of the words that were seen"),
}


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
    """One or two sentences. ``lists``: titles that may be named, and what says that it goes to others too. ``over``: the hold has ended."""
    first, topics = sentence(hold, lists, over=over), unsuitable(hold.verdict) if lists else ()
    if not topics:
        return first
    return Phrase("{sentence} It speaks of {topics}.", sentence=first, topics=and_(list(map(topic_called, topics))))


def reach_of(hold: Hold) -> Amount:
    """The number of people that the message reaches; without an upper bound if a list has no index."""
    return Amount(hold.reach, float("inf") if hold.reach_at_least else hold.reach)


def sentence(hold: Hold, lists: Sequence[str], *, over: bool = False) -> Phrase:
    """Its kind and its recipients, without its topics."""
    reach = reach_of(hold)
    if hold.kind == TEST:  # it is never sent itself
        forms = _FOR_LISTS if lists else _FOR_PEOPLE
    elif over:
        forms = _WAS_TO_LISTS if lists else _WAS_TO_PEOPLE
    elif hold.reach_at_most:
        forms = _AT_MOST_LISTS if lists else _AT_MOST_PEOPLE
    else:
        forms = _TO_LISTS if lists else _TO_PEOPLE
    return Phrase.counted(*forms, reach, what=Phrase(what(hold)), lists=some_of(lists))


def what(hold: Hold) -> str:
    if hold.kind == TEST:
        return _TEST if hold.correction is None else _CORRECTING
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
