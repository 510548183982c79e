"""Describe what an approval of a held message covers: as sentences for approvers, and as a row for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtpguard.holds.effects import TEST, Learned, covers_copies
from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import N_, Listed, Phrase, Said
from smtpguard.mailings.model import Grant
from smtpguard.mailings.slots import Slot, Target, Template
from smtpguard.reading.shown import is_compared

_EXAMPLES = 3
_MOST_SAID = 12
_LONG = 160
BEGINNING = 160
"""Number of characters shown of each letter that waits with another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """``template``: the slots of copies, None if only this message is covered. ``copies``: the number of copies that it
    was learned from. ``beforehand``: it was sent to be approved beforehand. ``compared``: its content could be parsed."""

    template: Template | None = None
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
            "links": _hosts(template),
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
    differs = [_slot(slot, before, blind) for before, slot in template.slots]
    differs += [Phrase("parts of links to {host}", host=host) for host in _hosts(template)]
    differs += [_one_of(texts, blind) for texts in template.choices]
    n = covers.copies + 1
    if not differs:
        return (
            _all(
                *first,
                Phrase("All {n} messages that wait are the same: a copy is covered while nothing in it differs.", n=n),
            ),
            _NEVER,
        )
    several = list(dict.fromkeys(differs))
    listed: list[Said] = list(several[:_MOST_SAID])
    if len(several) > _MOST_SAID:
        listed.append(Phrase("and {n} more", n=len(several) - _MOST_SAID))
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
    named = Phrase(_KINDS[slot.kind])
    if blind:
        return named
    words = slot.kind == "words"
    examples = slot.values if words else slot.values[:_EXAMPLES]
    shown: list[Said] = [_short(one) or _NOTHING for one in examples[:_MOST_SAID]]
    seen = Listed((*shown, *(() if words else ("…",))))
    if not before:
        return Phrase("{kind} ({seen})", kind=named, seen=seen)
    return Phrase("{kind} after “{before}” ({seen})", kind=named, before=_short(before), seen=seen)


def _one_of(texts: Sequence[str], blind: bool) -> Phrase:
    if blind:
        return Phrase("one of {n} texts", n=len(texts))
    shown = (Phrase("“{text}”", text=_short(text) or _NOTHING) for text in texts[:_MOST_SAID])
    return Phrase("one of {n} texts: {texts}", n=len(texts), texts=Listed(tuple(shown)))


def _hosts(template: Template | None) -> list[str]:
    targets: tuple[Target, ...] = template.targets if template is not None else ()
    return list(
        dict.fromkeys(one.base.partition(" ")[2].removeprefix("https://").removeprefix("http://") for one in targets)
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


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
_KINDS: Mapping[str, str] = {
    "name": N_("a name"),
    "number": N_("a number"),
    "code": N_("a code"),
    "list": N_("a list"),
    "words": N_("one of the words that were seen"),
}
