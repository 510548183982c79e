"""What an approval of a held message covers, in words for those who decide and as a row for programs; in English and Swedish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smtpguard.holds.effects import TEST, Learned, covers_copies
from smtpguard.holds.model import Hold
from smtpguard.mailings.model import Grant
from smtpguard.mailings.slots import Slot, Target, Template
from smtpguard.reading.shown import is_compared

_EXAMPLES = 3
_MOST_SAID = 12
_LONG = 160
BEGINNING = 160
"""Characters that are shown of each letter that waits with another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """``template``: in what copies may differ, None where this very message alone is covered. ``copies``: from how many that was
    learned. ``beforehand``: it was sent to be approved beforehand. ``compared``: what it shows could be taken apart."""

    template: Template | None = None
    copies: int = 0
    beforehand: bool = False
    compared: bool = True
    letters: int | None = None
    """Of a sender's letters that wait as one, how many more are listed and decided on."""

    @property
    def under(self) -> int:
        """How many of those that wait under it were taken into account: whoever decides says it again."""
        return self.copies if self.letters is None else self.letters

    @property
    def row(self) -> dict[str, Any]:
        """For programs. ``differs``: in what, each with the words before it and some of what was seen, or all that is covered."""
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


def covered(hold: Hold, learned: Learned) -> Covered:
    return Covered(
        template=learned.template if covers_copies(hold) else None,
        copies=learned.copies or 0,
        beforehand=hold.kind == TEST,
        compared=is_compared(hold.exact),
        letters=learned.letters or 0 if hold.queue else None,
    )


def of_grant(grant: Grant, documents: Mapping[str, str]) -> Covered:
    """What was approved covers. ``documents``: templates by their names, as far as they are kept."""
    cover = grant.cover
    document = documents.get(cover.learned) if cover is not None else None
    template = Template.loads(document) if document is not None else None
    return Covered(
        template=template,
        copies=template.learned if template is not None else 0,
        beforehand=grant.beforehand,
        compared=cover is not None and is_compared(cover.exact),
    )


def said(covers: Covered, language: str = "en", *, blind: bool = False) -> tuple[str, ...]:
    """Sentences. ``blind``: to somebody who does not see the text."""
    words = _SWEDISH if language == "sv" else _ENGLISH
    template = covers.template
    if covers.letters is not None:
        n = min(covers.letters, 2)
        return (words[("letter", "letter and one", "letters")[n]].format(covers.letters), words["later"])
    if template is None:
        return (words["only"] if covers.compared else words["octets"],)
    first = words["beforehand"] if covers.beforehand else ""
    if not template.learned:
        return (f"{first}{words['default'].format(template.words_at_most)}", words["never"])
    if template.alone is not None:
        first += f"{words['default'].format(template.alone.words_at_most)} "
    asked = "versions" if template.alone is not None else "learned"
    differs = [_slot(slot, before, words, blind) for before, slot in template.slots]
    differs += [words["link"].format(host) for host in _hosts(template)]
    for texts in template.choices:
        shown = (
            "" if blind else ": " + ", ".join(f"“{_short(text) or words['nothing']}”" for text in texts[:_MOST_SAID])
        )
        differs.append(words["one of"].format(len(texts)) + shown)
    if not differs:
        return (f"{first}{words['same'].format(covers.copies + 1)}", words["never"])
    several = list(dict.fromkeys(differs))
    more = words["more"].format(len(several) - _MOST_SAID) if len(several) > _MOST_SAID else ""
    listed = "; ".join(several[:_MOST_SAID]) + more
    return (f"{first}{words[asked].format(covers.copies + 1)} {listed}.", words["never"])


def _slot(slot: Slot, before: str, words: Mapping[str, str], blind: bool) -> str:
    named = words[slot.kind]
    if blind:
        return named
    where = words["after"].format(_short(before)) if before else ""
    examples = slot.values if slot.kind == "words" else slot.values[:_EXAMPLES]
    listed = ", ".join(_short(one) or words["nothing"] for one in examples[:_MOST_SAID])
    return f"{named}{where} ({listed}{'' if slot.kind == 'words' else ', …'})"


def _hosts(template: Template | None) -> list[str]:
    targets: tuple[Target, ...] = template.targets if template is not None else ()
    return list(
        dict.fromkeys(one.base.partition(" ")[2].removeprefix("https://").removeprefix("http://") for one in targets)
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


_ENGLISH: Mapping[str, str] = {
    "only": "To approve it is to approve this message only: what it shows, with its files, pictures and links, from this sender. Whatever"
    " differs from it is held again.",
    "letter": "To approve it is to approve this letter, as it is.",
    "letter and one": "To approve it is to approve this letter and the other one that waits with it and is listed here, as they are.",
    "letters": "To approve it is to approve this letter and the {} others that wait with it and are listed here, as they are.",
    "later": "A letter that comes later, or is not listed, waits anew.",
    "octets": "To approve it is to approve this message only, octet by octet: what it shows cannot be taken apart.",
    "beforehand": "Approved beforehand, this very content may go to the list's address, and single copies of it may go to its people. ",
    "default": "A copy of it is covered while it differs in names, numbers and codes alone, and in at most {} words.",
    "same": "All {} messages that wait are the same: a copy is covered while nothing in it differs.",
    "learned": "A copy is covered while it is as the {} messages that wait. These differ from person to person in:",
    "versions": "So is one that is as the {} versions that were approved, with this one. These differ from each other in:",
    "never": "Another line, file, picture, address of a link, subject or sender is held again.",
    "name": "a name",
    "number": "a number",
    "code": "a code",
    "list": "a list",
    "words": "one of the words that were seen",
    "after": " after “{}”",
    "link": "parts of links to {}",
    "one of": "one of {} texts",
    "nothing": "nothing",
    "more": "; and {} more",
}  # fmt: skip
_SWEDISH: Mapping[str, str] = {
    "only": "Den som godkänner det godkänner bara det här meddelandet: det som det visar, med sina filer, bilder och länkar, från den här"
    " avsändaren. Allt som skiljer sig från det hålls kvar på nytt.",
    "letter": "Den som godkänner det godkänner det här brevet som det är.",
    "letter and one": "Den som godkänner det godkänner det här brevet och det andra som väntar tillsammans med det och visas här, som de är.",
    "letters": "Den som godkänner det godkänner det här brevet och de {} andra som väntar tillsammans med det och visas här, som de är.",
    "later": "Ett brev som kommer senare, eller inte visas, väntar på nytt.",
    "octets": "Den som godkänner det godkänner bara det här meddelandet, tecken för tecken: det går inte att se vad det består av.",
    "beforehand": "Godkänt i förväg får just det här innehållet skickas till listans adress, och enskilda exemplar av det till dem som står på den. ",
    "default": "Ett exemplar omfattas så länge det bara skiljer sig i namn, nummer och koder, och i högst {} ord.",
    "same": "Alla {} meddelanden som väntar är lika: ett exemplar omfattas så länge inget i det skiljer sig.",
    "learned": "Ett exemplar omfattas så länge det är som de {} meddelanden som väntar. De skiljer sig från person till person i:",
    "versions": "Det gäller också ett exemplar som är som de {} versioner som har godkänts, med den här. De skiljer sig åt i:",
    "never": "En annan rad, fil, bild, länkadress eller avsändare, eller ett annat ämne, hålls kvar på nytt.",
    "name": "ett namn",
    "number": "ett nummer",
    "code": "en kod",
    "list": "en lista",
    "words": "något av de ord som förekom",
    "after": " efter ”{}”",
    "link": "delar av länkar till {}",
    "one of": "en av {} texter",
    "nothing": "inget",
    "more": "; och {} till",
}  # fmt: skip
