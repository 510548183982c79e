"""From marks to one word: internal, mailing or unclear. And what a reading of a message is, as a whole."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from smtpguard.reading.marks import Mark


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
    """A term of a vocabulary that was found. ``where``: subject, text, html, alt text or attachment name; ``context``: words around it."""

    vocabulary: str
    term: str
    where: str
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that reading says of one message. ``score`` > 0 leans to internal, < 0 to mailing.

    Header facts: ``from_address`` canonical or None; ``shown`` canonical addresses in To and Cc; ``labels``; ``automatic``
    (RFC 3834); ``thread``: the first Message-ID of References, In-Reply-To or its own.
    """

    looks: Looks
    score: float
    marks: tuple[Mark, ...]
    readable: Readable
    why_unreadable: str = ""
    topics: tuple[Topic, ...] = ()
    subject: str = ""
    from_address: str | None = None
    from_ambiguous: bool = False
    shown: frozenset[str] = frozenset()
    message_id: str = ""
    thread: str = ""
    labels: frozenset[str] = frozenset()
    automatic: bool = False
    forwarded_thread: bool = False  # a thread of colleagues forwarded
    language: str = ""
    excerpt: str = field(default="", repr=False)
    """The visible text's first 2,000 characters, for people who decide."""
