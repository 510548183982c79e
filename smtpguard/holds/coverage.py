"""Describe what an approval of a held message covers: as sentences for approvers, and as a row for programs. Pure."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtpguard.holds.effects import TEST, Learned, covers_copies
from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import N_, Listed, Phrase, Said
from smtpguard.mailings.model import Grant
from smtpguard.mailings.slots import Slot, Target, Template
from smtpguard.mailings.tokens import links_in
from smtpguard.reading.shown import LINK, PICTURE, POINT, is_compared

_MOST_SAID = 12
_LONG, _LONG_TEXT, _AROUND = 160, 1_000, 60
BEGINNING = 160
"""The number of characters that are shown of each letter that waits with another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What an approval covers beside the message itself. ``template``: the slots of copies, None if only this message
    is covered. ``copies``: the number of copies that the template was learned from. ``beforehand``: whether the message
    was sent to be approved beforehand. ``compared``: whether its content could be parsed. ``correction``: whether it is
    for exactly the people who got a mailing. ``letters``: for a sender's letters that wait as one hold, how many more
    are listed and decided on."""

    template: Template | None
    copies: int = 0
    beforehand: bool = False
    compared: bool = True
    correction: bool = False
    letters: int | None = None

    @property
    def under(self) -> int:
        """The number of waiting messages under it that were taken into account. The approver repeats it with the
        vote."""
        return self.copies if self.letters is None else self.letters

    @property
    def row(self) -> dict[str, Any]:
        """The JSON object of the coverage. ``differs``: the slots, each with the words before it and some of the values
        seen, or all that are covered."""
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


def of_hold(hold: Hold, learned: Learned) -> Coverage:
    return Coverage(
        template=learned.template if covers_copies(hold) else None,
        copies=learned.copies or 0,
        beforehand=hold.kind == TEST,
        correction=hold.correction is not None,
        compared=is_compared(hold.exact),
        letters=learned.letters or 0 if hold.queue else None,
    )


def of_grant(grant: Grant, documents: Mapping[str, str]) -> Coverage:
    """Return the coverage of an approval in force. ``documents``: templates by name, as far as they are stored."""
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


def sentences(covers: Coverage, *, blind: bool = False) -> tuple[Phrase, ...]:
    """Return the coverage as sentences. ``blind``: whether the reader may not see the text."""
    template = covers.template
    if covers.letters is not None:
        return (_letters(covers.letters), Phrase("A letter that comes later, or is not listed, waits anew."))
    if template is None:
        return (_THIS_ONLY if covers.compared else _OCTETS,)
    first = [_CORRECTION if covers.correction else _BEFOREHAND] if covers.beforehand else []
    if not template.learned:
        return (_joined(*first, _by_default(template.words_at_most)), _HELD_AGAIN)
    if template.alone is not None:
        first.append(_by_default(template.alone.words_at_most))
    differs = {_slot(slot, before, blind): slot.opens for before, slot in template.slots}
    differs |= {Phrase("pictures from {host}", host=host): True for host in _hosts(template.targets, (PICTURE,))}
    differs |= {
        Phrase("parts of links to {host}", host=host): False for host in _hosts(template.targets, (LINK, POINT))
    }
    differs |= {_choice(texts, blind): True for texts in template.choices}
    n = covers.copies + 1
    if not differs:
        return (
            _joined(
                *first,
                Phrase("All {n} messages that wait are the same: a copy is covered while nothing in it differs.", n=n),
            ),
            _HELD_AGAIN,
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
    return (_joined(*first, Phrase(says, n=n, differs=Listed(tuple(listed), "; "))), _HELD_AGAIN)


def _joined(*sentences: Phrase) -> Phrase:
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
    named = _ANYBODYS_ADDRESS if addresses else Phrase(_KINDS[slot.kind])
    if blind:
        return named
    shown: list[Said] = [_from_difference(one, slot.values[:n]) or _NOTHING for n, one in enumerate(slot.values)]
    seen: Phrase | Listed = Listed((*shown, *(() if slot.kind == "words" else ("…",))))
    if slot.known:
        seen = Phrase("{seen} with these words: {words}", seen=seen, words=Listed(slot.known))
    if not before:
        return Phrase("{kind} ({seen})", kind=named, seen=seen)
    return Phrase("{kind} after “{before}” ({seen})", kind=named, before=_short(before), seen=seen)


def _choice(texts: Sequence[str], blind: bool) -> Phrase:
    if blind:
        return Phrase("one of {n} texts", n=len(texts))
    shown = (Phrase("“{text}”", text=_from_difference(text, texts[:n]) or _NOTHING) for n, text in enumerate(texts))
    return Phrase("one of {n} texts: {texts}", n=len(texts), texts=Listed(tuple(shown)))


def _from_difference(text: str, before: Sequence[str]) -> str:
    """Return ``text`` from a few words before the place where it differs from all texts ``before``, so that no two look
    alike."""
    places = range(len(text))  # halved, not walked: texts may be long
    alike = max((bisect(places, 0, key=lambda n: not one.startswith(text[: n + 1])) for one in before), default=0)
    start = text.rfind(" ", 0, max(0, alike - _AROUND)) + 1
    return f"{'…' if start else ''}{_short(text[start:], _LONG_TEXT)}"


def _hosts(targets: Iterable[Target], kinds: tuple[str, ...] = (LINK, PICTURE, POINT)) -> list[str]:
    bases = (one.base.partition(" ")[2] for one in targets if one.base.startswith(kinds))
    return list(dict.fromkeys(base.removeprefix("https://").removeprefix("http://") for base in bases))


def _short(text: str, most: int = _LONG) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


_THIS_ONLY = Phrase(
    "To approve it is to approve this message only: what it shows, with its files, pictures and links, from this sender. Whatever differs from it is held again."
)
_OCTETS = Phrase("To approve it is to approve this message only, octet by octet: what it shows cannot be taken apart.")
_BEFOREHAND = Phrase(
    "Approved beforehand, this very content may go to the list's address, and single copies of it may go to its people."
)
_CORRECTION = Phrase("A single copy of it may go to each of those whom it is for, once, and to nobody else.")
_HELD_AGAIN = Phrase("Another line, file, picture, address of a link, subject or sender is held again.")
_NOTHING = Phrase("nothing")
_ANYBODYS_ADDRESS = Phrase("an address, not always the recipient's own")
_KINDS: Mapping[str, str] = {
    "name": N_("a name"),
    "number": N_("a number"),
    "code": N_("a code"),
    "list": N_("a list"),
    "words": N_("one of the words that were seen"),
}
