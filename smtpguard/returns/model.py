"""Returned mail: its sort, its original message and how that is known, and whether it counts.

Anybody can write a report. Only one counts that carries the trace of a sent message, whose HMAC cannot be forged
(mail.trace), and that is about a recipient of it. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from smtpguard.locale.phrase import N_
from smtpguard.mail.codec import Codec
from smtpguard.mail.trace import TraceInfo


class Sort(enum.Enum):
    BOUNCE = "bounce"  # delivery failed (RFC 3464, "failed")
    DELAY = "delay"  # not delivered yet
    DELIVERED = "delivered"  # delivered, or relayed to a host without DSN
    COMPLAINT = "complaint"  # reported as abuse (RFC 5965)
    REPLY = "reply"
    UNSUBSCRIBE = "unsubscribe"
    AUTOMATIC = "automatic"  # an automatic answer: a person is away
    MENTION = "mention"  # a mention outside, of no mailing
    UNSORTED = "unsorted"  # of unknown kind


SORTS: Mapping[Sort, str] = {
    Sort.BOUNCE: N_("Bounces"),
    Sort.COMPLAINT: N_("Complaints"),
    Sort.REPLY: N_("Replies"),
    Sort.UNSUBSCRIBE: N_("Unsubscribes"),
    Sort.AUTOMATIC: N_("Automatic replies"),
    Sort.DELAY: N_("Delays"),
    Sort.DELIVERED: N_("Delivery reports"),
    Sort.MENTION: N_("Mentions outside"),
    Sort.UNSORTED: N_("Unsorted"),
}
"""In the order in which they are shown."""


REASONS: Mapping[str, str] = {
    "complaints": N_("Of {people} people who have it {n} complained. The policy stops it at {limit}"),
    "bounces": N_("Of {people} people to whom it went {n} could not be reached. The policy stops it at {limit}"),
    "replies": N_("Of {people} people who have it {n} answered. The policy stops it at {limit}"),
    "unsubscribes": N_("Of {people} people who have it {n} unsubscribed. The policy stops it at {limit}"),
}
"""Why a breaker stopped a mailing, by its key in the policy."""


class By(enum.Enum):
    """How its original message was recognised, the surest first."""

    TRACE = "trace"  # it carries the trace of the original
    ENVID = "envid"  # the envelope id of its sender (RFC 3461 section 4.4)
    VERP = "verp"  # it came to the reverse-path of that one copy
    MESSAGE_ID = "message-id"
    LIKENESS = "likeness"  # it has its text or its subject: likely, not certain
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonReport:
    """One person in a report, by the report's own words. ``status``: an enhanced code (RFC 3463)."""

    sort: Sort
    address: str = ""
    status: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """The content of a returned mail. ``trace``: of the original in it, None for none of ours; ``envid``,
    ``message_ids``: its references to the original; ``about``: at least one. ``rest``: the number of further people
    that it reports. ``why``: why it is unsorted."""

    about: tuple[PersonReport, ...]
    trace: TraceInfo | None = None
    envid: str = ""
    message_ids: tuple[str, ...] = ()
    subject: str = ""
    author: str = ""
    to: tuple[str, ...] = ()
    original_subject: str = ""
    feedback: str = ""
    rest: int = 0
    why: str = ""

    @property
    def sort(self) -> Sort:
        return self.about[0].sort


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The original message. ``message``: the id of a transaction or hold; ``mailing``: that it is a copy of; "" if
    unknown."""

    by: By = By.NOTHING
    message: str = ""
    mailing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Personal data, erased with ``retention: addresses``."""

    subject: str = ""
    author: str = ""
    address: str = ""
    status: str = ""
    said: str = ""
    feedback: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """One statement of a returned mail about one person. ``mail``: the SHA-256 of the mail; ``n``: the number of the
    statement in it. ``person``: the digest by which the person is counted, None if unknown. ``sure``: it carries
    something that only a recipient has, and is about a recipient. ``counts``: also, it is the first of its sort for
    this person. ``kept``: whether the mail is still stored."""

    mail: str
    n: int
    at: datetime
    sort: Sort
    match: Match
    person: bytes | None = None
    sure: bool = False
    counts: bool = False
    kept: bool = True
    said: Said = field(default_factory=Said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """How much of one sort came back in one stretch of time, and how many people of them count."""

    at: datetime
    sort: Sort
    likely: bool
    all: int
    counted: int


COUNTED = (Sort.COMPLAINT, Sort.BOUNCE, Sort.REPLY, Sort.UNSUBSCRIBE)
"""The sorts by which it is told whether it falls."""
SAID = Codec(Said)
