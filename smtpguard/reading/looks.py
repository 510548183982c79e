"""What a message looks like, in one word: internal, mailing or unclear. And the Reading of a message as a whole.

The word follows from the marks of the message, by their weights.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from smtpguard.locale.phrase import Phrase, Said
from smtpguard.mail.constant import changed, constant
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.marks import KINDS, Mark, Side
from smtpguard.reading.topics import Topic

THRESHOLD = 2.0
"""A score from here on is internal, and from its negative down a mailing. Between them it is unclear."""

# Marks of what people say to each other, which no campaign has. "Re:" alone is not one.
CONVERSATION = frozenset(
    {
        "outlook-thread",
        "quoted-headers",
        "quoting-markup",
        "quoted-text",
        "colleague-quoted",
        "colleague-referenced",
        "calendar",
        "tool-notice",
    }
)
# Marks that a message is for colleagues only: no campaign says so.
_FOR_US = frozenset({"label-inside", "inside-only"})
# Marks that a newsletter may have too, from a testimonial, an event, a default label or its tool: they do not count against a proven
# origin.
_IN_NEWSLETTERS = frozenset({"quoted-text", "quoting-markup", "calendar", "label", "tool-notice"})
# Marks of a mailing by words only, which anybody can write below a letter.
_WORD_GROUPS = frozenset({"leaving", "subscription", "web", "imprint", "salutation", "newsletter"})
_WORD_MARKS = frozenset({"do-not-reply"})
WORDS_BELOW_A_LETTER = 1.0
"""The most weight of all words of a mailing in a message with marks of a letter, without support by a header or the
origin."""
_SUPPORTS = frozenset({"list", "platform", "origin", "shared-origin"})
_SUPPORTS_BY_NAME = frozenset({"noreply", "bounce-address", "auto-generated"})
_OF_A_LETTER = frozenset({"thread", "greeting", "signature", "client-text", "secret", "people"})
_LETTER_WORDS = frozenset({"greeting", "signature", "talk", "plainness"})
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
    __hash__ = object.__hash__  # Enum's takes the name's, in Python


@constant
class Reading:
    """The result of reading one message. ``score``: above 0 it leans to internal, below 0 to mailing. For a message
    that is not ``readable``, looks and score are from its header only, and no reason to relay it.

    Header facts: ``from_address``: canonical, or None; ``shown``: canonical addresses in To and Cc; ``labels``;
    ``automatic`` (RFC 3834); ``thread``: the first Message-ID of References, In-Reply-To or its own;
    ``conversation``: Outlook's number of it; ``answers``: whether it is a reply. ``quotes``: canonical addresses of
    the quoted writers; ``refers_to``: the Message-IDs of In-Reply-To and References, without brackets.
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
    forwarded_thread: bool = False  # it forwards a thread of colleagues
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
    """Return the word, the score, and the marks, with a mark for a contradiction if there is one. Of each group the
    heaviest mark counts.

    Marks of a conversation forbid "mailing": a List-Unsubscribe can be forged onto an Outlook thread, or added by a
    list server. So do a label or words that keep the message in the house, from any origin; and colleagues in To, or
    a list server, if nothing shows the machinery of mailings: an announcement may sound like a mailing. For an
    unreadable message the word is by its header, and only a way to unsubscribe makes it a mailing: rules on looks
    test readability first.

    Words of a mailing below a letter weigh little unless a header or the origin supports them. If one does, and it
    tells how to unsubscribe, a greeting and a signature count as a campaign's. Against a declared origin some marks
    of conversations do not count.
    """
    marks = tuple(marks)
    looks, score, contradiction = _judge(tuple(map(_claim_of, marks)), readable)
    if contradiction is not None:
        one, other = (marks[n].evidence for n in contradiction)
        marks += (KINDS["contradiction"].mark(Phrase("marks of both sides: {one}; yet {other}", one=one, other=other)),)
    return looks, score, marks


class _Claim(NamedTuple):
    """A mark without its evidence: what a judge looks at."""

    name: str
    side: Side
    weight: float
    group: str


_claim_of = attrgetter(*_Claim._fields)


@lru_cache(maxsize=1024)
def _judge(
    claims: tuple[tuple[str, Side, float, str], ...], readable: Readable
) -> tuple[Looks, float, tuple[int, int] | None]:
    """Return the word, the score, and the places of the two heaviest marks of a contradiction. Cached: copies of a
    mailing, and most letters, have the marks of an earlier one."""
    marks = [_Claim(*each) for each in claims]
    ours = [m for m in marks if m.side is Side.INTERNAL]
    theirs = [m for m in marks if m.side is Side.MAILING]
    names = {m.name for m in marks}
    counted = [m for m in ours if m.name not in _IN_NEWSLETTERS] if "declared-origin" in names else ours
    internal, mailing = _side_weights(_group_weights(counted), _group_weights(theirs), theirs)
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


def _group_weights(marks: Iterable[_Claim]) -> dict[str, float]:
    """Return the weight of the heaviest mark of each group."""
    found: dict[str, float] = {}
    for mark in marks:
        group = mark.group or mark.name
        found[group] = max(found.get(group, 0.0), mark.weight)
    return found


def _side_weights(
    ours: Mapping[str, float], theirs: Mapping[str, float], marks: Sequence[_Claim]
) -> tuple[float, float]:
    """Return the weights for internal mail, and for a mailing. ``ours``, ``theirs``: by group; ``marks``: the marks
    of a mailing."""
    if any(m.group in _SUPPORTS or m.name in _SUPPORTS_BY_NAME for m in marks):
        return sum(w for group, w in ours.items() if "leaving" not in theirs or group not in _LETTER_WORDS), sum(
            theirs.values()
        )
    only_words = {m.group or m.name for m in marks if m.group in _WORD_GROUPS or m.name in _WORD_MARKS}
    words = sum(w for group, w in theirs.items() if group in only_words)
    if _OF_A_LETTER & ours.keys():
        words = min(words, WORDS_BELOW_A_LETTER)
    return sum(ours.values()), words + sum(w for group, w in theirs.items() if group not in only_words)


_UNPROVEN = KINDS["list-unproven"].mark("it bears list headers, which weigh nothing from where people write")


def without_list_headers(reading: Reading) -> Reading:
    """Return the reading of a message whose list headers were written by a person: they do not count."""
    kept = [m for m in reading.marks if m.group != "list" or m.side is not Side.MAILING]
    if len(kept) == len(reading.marks):
        return reading
    kept = [m for m in kept if m.name != "contradiction"]
    kept.append(_UNPROVEN)
    looks, score, marks = judge(kept, readable=reading.readable)
    return changed(reading, looks=looks, score=score, marks=marks)


def from_declared_origin(
    reading: Reading, domain: str, *, shared: bool = False, weights: Mapping[str, float] | None = None
) -> Reading:
    """Return the reading of a message that provably comes from the origin that the addressed list declares (DKIM).

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
