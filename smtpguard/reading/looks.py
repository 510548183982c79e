"""Reduce marks to one word: internal, mailing or unclear. And the Reading of a message as a whole."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.marks import KINDS, Mark, Side

THRESHOLD = 2.0
"""A score from here on is internal, from minus here on a mailing; what is between is unclear."""

# What an answer to somebody leaves behind, and no campaign has. "Re:" alone is not among it.
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
# By which a message says that it is for colleagues alone: no campaign says so of itself.
_FOR_US = frozenset({"label-inside", "inside-only"})
# What a testimonial, an event or a tenant's default label leaves in a newsletter too: nothing against a proven origin.
_IN_NEWSLETTERS = frozenset({"quoted-text", "quoting-markup", "calendar", "label"})
# What only words say of a mailing. Anybody can write them below a letter.
_WORDS = frozenset({"leaving", "subscription", "web", "imprint", "salutation", "newsletter"})
_WORDS_TOO = frozenset({"do-not-reply"})
WORDS_BELOW_A_LETTER = 1.0
"""What all words of a mailing weigh together against marks of a letter, where no header and no origin bears them out."""
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
    UNREADABLE = "unreadable"  # encrypted, broken, a foreign format: nobody here can say what it says
    TOO_COMPLEX = "too-complex"  # past the bounds of size, depth, parts or time


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A term of a vocabulary that was found. ``where``: subject, text, html, alt text or attachment name.

    ``word``: as it stands there ("julskinkan", of which the term is "skink"); ``context``: the words around it.
    """

    vocabulary: str
    term: str
    where: str
    word: str
    context: str = ""

    @property
    def phrase(self) -> Phrase:
        """For people: the word, what it is about, and where it stands."""
        return Phrase(_PLACES.get(self.where, _IN_THE_TEXT), word=self.word, topic=topic_called(self.vocabulary))


_IN_THE_TEXT = N_('"{word}" ({topic}, in the text)')
_PLACES: Mapping[str, str] = {
    "subject": N_('"{word}" ({topic}, in the subject)'),
    "alt text": N_('"{word}" ({topic}, in the text of a picture)'),
    "attachment name": N_('"{word}" ({topic}, in the name of an attachment)'),
    "attached text": N_('"{word}" ({topic}, in an attachment)'),
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
"""The product's own vocabularies; an admin's bears the admin's name."""


def topic_called(vocabulary: str) -> Said:
    return Phrase(TOPICS[vocabulary]) if vocabulary in TOPICS else vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that reading says of one message. ``score`` > 0 leans to internal, < 0 to mailing; of a message that is not
    ``readable`` both are of its header, and no ground to let it go anywhere.

    Header facts: ``from_address`` canonical or None; ``shown`` canonical addresses in To and Cc; ``labels``; ``automatic``
    (RFC 3834); ``thread``: the first Message-ID of References, In-Reply-To or its own; ``conversation``: Outlook's number of
    it; ``answers``: whether it is a reply. ``quotes``: canonical addresses of those who wrote what it quotes; ``refers_to``: the
    Message-IDs of In-Reply-To and References, without brackets.
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
    """Domains whose signatures verified, as a trusted server says in Authentication-Results."""
    automatic: bool = False
    forwarded_thread: bool = False  # a thread of colleagues forwarded
    language: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """What is counted in its text, by the names of facts."""
    excerpt: str = field(default="", repr=False)
    """The visible text's first 2,000 characters, for people who decide."""
    identity: Identity = field(default=Identity(), repr=False)
    """What it is a copy of, once its text was read."""
    little: bool = False
    """Whether its own text is too little to say so alone."""
    alone: str = ""
    """The name of this one message, for where it answers those who get it, and has little to say."""
    campaign: tuple[str, ...] = ()
    """Names of the campaign that it says it is of; for a verified origin only."""


def judge(marks: Iterable[Mark], *, readable: Readable = Readable.YES) -> tuple[Looks, float, tuple[Mark, ...]]:
    """The word, the score, and the marks with what their sum adds to them. Of each group the heaviest mark counts.

    Conversation forbids "mailing": a List-Unsubscribe can be forged onto an Outlook thread, or added by a list server. So does
    what it says of itself, a label or words that keep it within the house, wherever it comes from. So do colleagues in To, and
    a list server, where no machinery of mailings shows: an announcement may sound like one. Of a message that cannot be read
    this is what its header looks like, and only a way off a list makes it a mailing: whoever decides by looks asks first
    whether it was readable.

    Words of a mailing below a letter weigh little, unless a header or the origin bears them out; where one does, and it tells how to
    leave, a greeting and a signature are a campaign's. Against a declared origin some marks of conversations count for nothing.
    """
    marks = tuple(marks)
    declared = any(m.name == "declared-origin" for m in marks)
    counted = [m for m in marks if not (declared and m.side is Side.INTERNAL and m.name in _IN_NEWSLETTERS)]
    heaviest: dict[tuple[Side, str], float] = {}
    for mark in counted:
        key = (mark.side, mark.group or mark.name)
        heaviest[key] = max(heaviest.get(key, 0.0), mark.weight)
    internal, mailing = _weighed(counted, heaviest)
    score = round(internal - mailing, 2)
    talk = any(m.side is Side.INTERNAL and m.name in CONVERSATION for m in counted)
    for_us = any(m.side is Side.INTERNAL and m.name in _FOR_US for m in marks)
    among_us = any(m.side is Side.INTERNAL and m.group == "people" for m in marks)
    posted = any(m.name == "list-post" for m in marks)
    sent_by_machine = any(m.side is Side.MAILING and m.group in _MACHINERY for m in marks)
    by_header = readable is Readable.UNREADABLE and any(m.name in _WAY_OFF for m in marks)
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
    if internal >= _STRONG and mailing >= _STRONG:
        one = max((m for m in marks if m.side is Side.INTERNAL), key=lambda m: m.weight)
        other = max((m for m in marks if m.side is Side.MAILING), key=lambda m: m.weight)
        marks += (
            KINDS["contradiction"].mark(
                Phrase("marks of both sides: {one}; yet {other}", one=one.evidence, other=other.evidence)
            ),
        )
    return looks, score, marks


def _weighed(marks: Iterable[Mark], heaviest: Mapping[tuple[Side, str], float]) -> tuple[float, float]:
    """What speaks for internal mail, and for a mailing."""
    ours = {group: w for (side, group), w in heaviest.items() if side is Side.INTERNAL}
    theirs = {group: w for (side, group), w in heaviest.items() if side is Side.MAILING}
    borne_out = any(m.side is Side.MAILING and (m.group in _BORNE_OUT or m.name in _BORNE_OUT_BY) for m in marks)
    if borne_out:
        return sum(w for group, w in ours.items() if "leaving" not in theirs or group not in _SAID), sum(
            theirs.values()
        )
    only_words = {
        m.group or m.name for m in marks if m.side is Side.MAILING and (m.group in _WORDS or m.name in _WORDS_TOO)
    }
    words = sum(w for group, w in theirs.items() if group in only_words)
    if _OF_A_LETTER & ours.keys():
        words = min(words, WORDS_BELOW_A_LETTER)
    return sum(ours.values()), words + sum(w for group, w in theirs.items() if group not in only_words)


def without_list_headers(reading: Reading) -> Reading:
    """The reading of a message whose list headers nobody but a person can have written: they weigh nothing."""
    kept = [m for m in reading.marks if m.name != "contradiction" and not _of_a_list(m)]
    if not has_list_headers(reading):
        return reading
    kept.append(
        KINDS["list-unproven"].mark(Phrase("it bears list headers, which weigh nothing from where people write"))
    )
    looks, score, marks = judge(kept, readable=reading.readable)
    return replace(reading, looks=looks, score=score, marks=marks)


def has_list_headers(reading: Reading) -> bool:
    return any(map(_of_a_list, reading.marks))


def _of_a_list(mark: Mark) -> bool:
    return mark.side is Side.MAILING and mark.group == "list"


def from_declared_origin(
    reading: Reading, domain: str, *, shared: bool = False, weights: Mapping[str, float] | None = None
) -> Reading:
    """The reading of a message that provably comes from the origin which the addressed list declares (DKIM).

    ``shared``: colleagues write from that domain too. ``weights``: what admins make of marks, 0 to switch one off.
    """
    kept = [m for m in reading.marks if m.name not in ("contradiction", "declared-origin", "shared-origin")]
    kind = KINDS["shared-origin" if shared else "declared-origin"]
    mark = kind.mark(Phrase("it is signed by {domain}, the origin that the list declares", domain=domain))
    mark = replace(mark, weight=(weights or {}).get(kind.name, mark.weight))
    if mark.weight > 0:
        kept.append(mark)
    looks, score, marks = judge(kept, readable=reading.readable)
    return replace(reading, looks=looks, score=score, marks=marks)
