"""Reduce marks to one word: internal, mailing or unclear. And the Reading of a message as a whole."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.mail.constant import changed, constant
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.marks import KINDS, Mark, Side

THRESHOLD = 2.0
"""A score from here on is internal, from its negative down a mailing; between them it is unclear."""

# Marks of a reply that no campaign has. "Re:" alone is not one.
CONVERSATION = frozenset(
    {
        "outlook-thread",
        "quoted-headers",
        "quoting-markup",
        "quoted-text",
        "colleague-quoted",
        "colleague-referenced",
        "calendar",
    }
)
# Marks that a message is for colleagues only: no campaign says so.
_FOR_US = frozenset({"label-inside", "inside-only"})
# Marks that a newsletter may have too, from a testimonial, an event or a default label: they do not count against a proven origin.
_IN_NEWSLETTERS = frozenset({"quoted-text", "quoting-markup", "calendar", "label"})
# Marks of a mailing by words only, which anybody can write below a letter.
_WORDS = frozenset({"leaving", "subscription", "web", "imprint", "salutation", "newsletter"})
_WORDS_TOO = frozenset({"do-not-reply"})
WORDS_BELOW_A_LETTER = 1.0
"""The most weight of all words of a mailing against marks of a letter, without support by a header or the origin."""
_BORNE_OUT = frozenset({"list", "platform", "origin", "shared-origin"})
_BORNE_OUT_BY = frozenset({"noreply", "bounce-address", "auto-generated"})
_OF_A_LETTER = frozenset({"thread", "greeting", "signature", "client-text", "secret", "people"})
_SAID = frozenset({"greeting", "signature", "talk", "plainness"})
_MACHINERY = frozenset({"list", "platform", "links", "origin"})
_WAY_OFF = frozenset({"one-click", "list-unsubscribe"})
_STRONG = 2.5


class Looks(enum.Enum):
    INTERNAL = "internal"
    MAILING = "mailing"
    UNCLEAR = "unclear"


class Readable(enum.Enum):
    YES = "yes"
    UNREADABLE = "unreadable"  # encrypted, broken, or in an unknown format
    TOO_COMPLEX = "too-complex"  # beyond the bounds of size, depth, parts or time


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A term of a vocabulary that was found. ``where``: subject, text, html, name, alt text or attachment name.

    ``word``: the word in the text ("julskinkan", of which the term is "skink"); ``context``: the words around it.
    """

    vocabulary: str
    term: str
    where: str
    word: str
    context: str = ""

    @property
    def phrase(self) -> Phrase:
        """For people: the word, its topic, and its place."""
        return Phrase(_PLACES.get(self.where, _IN_THE_TEXT), word=self.word, topic=topic_called(self.vocabulary))


_IN_THE_TEXT = N_('"{word}" ({topic}, in the text)')
_PLACES: Mapping[str, str] = {
    "subject": N_('"{word}" ({topic}, in the subject)'),
    "alt text": N_('"{word}" ({topic}, in the text of a picture)'),
    "attachment name": N_('"{word}" ({topic}, in the name of an attachment)'),
    "attached text": N_('"{word}" ({topic}, in an attachment)'),
    "name": N_('"{word}" ({topic}, in a name in From, To or Cc)'),
    "hidden text": N_('"{word}" ({topic}, in text that nobody sees)'),
}
TOPICS: Mapping[str, str] = {
    "alcohol": N_("alcohol"),
    "confidential": N_("confidential"),
    "diets": N_("diets"),
    "gambling": N_("gambling"),
    "health": N_("health"),
    "politics": N_("politics"),
    "pork": N_("pork"),
    "redundancy": N_("redundancy"),
}
"""The product's own vocabularies; an admin's is called by its own name."""


def topic_called(vocabulary: str) -> Said:
    return Phrase(TOPICS[vocabulary]) if vocabulary in TOPICS else vocabulary


@constant
class Reading:
    """The result of reading one message. ``score`` > 0 leans to internal, < 0 to mailing; for a message that is not
    ``readable`` both are from its header only, and no reason to relay it.

    Header facts: ``from_address`` canonical or None; ``shown`` canonical addresses in To and Cc; ``labels``;
    ``automatic`` (RFC 3834); ``thread``: the first Message-ID of References, In-Reply-To or its own; ``conversation``:
    Outlook's number of it; ``answers``: whether it is a reply. ``quotes``: canonical addresses of the quoted writers;
    ``refers_to``: the Message-IDs of In-Reply-To and References, without brackets.
    """

    looks: Looks
    score: float
    marks: tuple[Mark, ...]
    readable: Readable
    why_unreadable: Said = ""
    topics: tuple[Topic, ...] = ()
    subject: str = ""
    from_address: str | None = None
    from_ambiguous: bool = False
    shown: frozenset[str] = frozenset()
    message_id: str = ""
    thread: str = ""
    conversation: str = ""
    answers: bool = False
    quotes: frozenset[str] = frozenset()
    refers_to: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()
    vouched: frozenset[str] = frozenset()
    """Domains whose signatures verified, by a trusted server's Authentication-Results."""
    automatic: bool = False
    forwarded_thread: bool = False  # a thread of colleagues forwarded
    language: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Counts in its text, by the names of facts."""
    excerpt: str = field(default="", repr=False)
    """The first 2,000 characters of the visible text, for approvers."""
    identity: Identity = field(default=Identity(), repr=False)
    """Its identity as a copy, if its text was read."""
    alone: str = ""
    """The name of this one message, used if it answers its recipients; "" if its own text is enough to decide alone."""
    campaign: tuple[str, ...] = ()
    """Names of the campaign that it declares; only for a verified origin."""


def judge(marks: Iterable[Mark], *, readable: Readable = Readable.YES) -> tuple[Looks, float, tuple[Mark, ...]]:
    """The word, the score, and the marks, with a mark for a contradiction if there is one. Of each group the heaviest
    mark counts.

    Marks of a conversation forbid "mailing": a List-Unsubscribe can be forged onto an Outlook thread, or added by a
    list server. So do a label or words that keep the message in the house, from any origin; and colleagues in To, or a
    list server, if nothing shows the machinery of mailings: an announcement may sound like a mailing. For an unreadable
    message the word is by its header, and only a way to unsubscribe makes it a mailing: rules on looks test readability
    first.

    Words of a mailing below a letter weigh little unless a header or the origin supports them. If one does, and it
    tells how to unsubscribe, a greeting and a signature count as a campaign's. Against a declared origin some marks of
    conversations do not count.
    """
    marks = tuple(marks)
    looks, score, contradiction = _judged(tuple(map(_telling, marks)), readable)
    if contradiction is not None:
        one, other = (marks[n].evidence for n in contradiction)
        marks += (KINDS["contradiction"].mark("marks of both sides: {one}; yet {other}", one=one, other=other),)
    return looks, score, marks


class _Telling(NamedTuple):
    """What a mark tells a judge: all but its evidence."""

    name: str
    side: Side
    weight: float
    group: str


_telling = attrgetter(*_Telling._fields)


@lru_cache(maxsize=1024)
def _judged(
    told: tuple[tuple[str, Side, float, str], ...], readable: Readable
) -> tuple[Looks, float, tuple[int, int] | None]:
    """The word, the score, and the places of the two heaviest marks of a contradiction. Cached: copies of a mailing, and
    most letters, have the marks of an earlier one."""
    marks = [_Telling(*each) for each in told]
    ours = [m for m in marks if m.side is Side.INTERNAL]
    theirs = [m for m in marks if m.side is Side.MAILING]
    names = {m.name for m in marks}
    counted = [m for m in ours if m.name not in _IN_NEWSLETTERS] if "declared-origin" in names else ours
    internal, mailing = _weighed(_heaviest(counted), _heaviest(theirs), theirs)
    score = round(internal - mailing, 2)
    talk = any(m.name in CONVERSATION for m in counted)
    for_us = any(m.name in _FOR_US for m in ours)
    among_us = any(m.group == "people" for m in ours)
    posted = "list-post" in names
    sent_by_machine = any(m.group in _MACHINERY for m in theirs)
    by_header = readable is Readable.UNREADABLE and not _WAY_OFF.isdisjoint(names)
    if score >= THRESHOLD:
        looks = Looks.INTERNAL
    elif (
        score <= -THRESHOLD
        and (readable is Readable.YES or by_header)
        and not (talk or for_us)
        and (sent_by_machine or not (among_us or posted))
    ):
        looks = Looks.MAILING
    else:
        looks = Looks.UNCLEAR
    if internal < _STRONG or mailing < _STRONG:
        return looks, score, None
    one, other = (max(some, key=lambda m: m.weight) for some in (ours, theirs))
    return looks, score, (marks.index(one), marks.index(other))


def _heaviest(marks: Iterable[_Telling]) -> dict[str, float]:
    """The weight of the heaviest mark of each group."""
    found: dict[str, float] = {}
    for mark in marks:
        group = mark.group or mark.name
        found[group] = max(found.get(group, 0.0), mark.weight)
    return found


def _weighed(ours: Mapping[str, float], theirs: Mapping[str, float], marks: Sequence[_Telling]) -> tuple[float, float]:
    """The weights for internal mail, and for a mailing. ``marks``: those of mailings."""
    if any(m.group in _BORNE_OUT or m.name in _BORNE_OUT_BY for m in marks):
        return sum(w for group, w in ours.items() if "leaving" not in theirs or group not in _SAID), sum(
            theirs.values()
        )
    only_words = {m.group or m.name for m in marks if m.group in _WORDS or m.name in _WORDS_TOO}
    words = sum(w for group, w in theirs.items() if group in only_words)
    if _OF_A_LETTER & ours.keys():
        words = min(words, WORDS_BELOW_A_LETTER)
    return sum(ours.values()), words + sum(w for group, w in theirs.items() if group not in only_words)


_UNPROVEN = KINDS["list-unproven"].mark("it bears list headers, which weigh nothing from where people write")


def without_list_headers(reading: Reading) -> Reading:
    """The reading of a message whose list headers were written by a person: they do not count."""
    if not has_list_headers(reading):
        return reading
    kept = [m for m in reading.marks if m.name != "contradiction" and not _of_a_list(m)]
    kept.append(_UNPROVEN)
    looks, score, marks = judge(kept, readable=reading.readable)
    return changed(reading, looks=looks, score=score, marks=marks)


def has_list_headers(reading: Reading) -> bool:
    return any(map(_of_a_list, reading.marks))


def _of_a_list(mark: Mark) -> bool:
    return mark.side is Side.MAILING and mark.group == "list"


def from_declared_origin(
    reading: Reading, domain: str, *, shared: bool = False, weights: Mapping[str, float] | None = None
) -> Reading:
    """The reading of a message that provably comes from the origin that the addressed list declares (DKIM).

    ``shared``: colleagues write from that domain too. ``weights``: the admins' weights of marks, 0 to switch one off.
    """
    kept = [m for m in reading.marks if m.name not in ("contradiction", "declared-origin", "shared-origin")]
    kind = KINDS["shared-origin" if shared else "declared-origin"]
    mark = kind.mark("it is signed by {domain}, the origin that the list declares", domain=domain)
    mark = replace(mark, weight=(weights or {}).get(kind.name, mark.weight))
    if mark.weight > 0:
        kept.append(mark)
    looks, score, marks = judge(kept, readable=reading.readable)
    return changed(reading, looks=looks, score=score, marks=marks)
