"""The types of mail that comes back: its sort, the message that it is about, how that is known, and whether it counts. Pure.

Anybody can write a report. A report counts only if it carries the trace of a sent message, whose HMAC cannot be forged
(mail.trace), and is about a recipient of that message.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from smtpguard.journal.chain import utc_text
from smtpguard.locale.phrase import N_
from smtpguard.mail.codec import Codec
from smtpguard.mail.trace import TraceInfo


class Sort(enum.Enum):
    """What a returned mail says about one person."""

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
"""The label of each sort, in the order in which pages show them."""

REASONS: Mapping[str, str] = {
    "complaints": N_("Of {people} people who have it {n} complained. The policy stops it at {limit}"),
    "bounces": N_("Of {people} people to whom it went {n} could not be reached. The policy stops it at {limit}"),
    "replies": N_("Of {people} people who have it {n} answered. The policy stops it at {limit}"),
    "unsubscribes": N_("Of {people} people who have it {n} unsubscribed. The policy stops it at {limit}"),
}
"""Why a breaker stopped a mailing, by the breaker's key in the policy."""


class By(enum.Enum):
    """How the original message was recognised, the surest first."""

    TRACE = "trace"  # the return carries the original's trace
    ENVID = "envid"  # it names the original's envelope id (RFC 3461 section 4.4)
    VERP = "verp"  # it came to a reverse-path that one copy alone had
    MESSAGE_ID = "message-id"  # it names the original's Message-ID
    LIKENESS = "likeness"  # it has the original's text or subject: likely, not certain
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonReport:
    """What a report says of one person. ``status``: an enhanced status code (RFC 3463); ``said``: the diagnostic text."""

    sort: Sort
    address: str = ""
    status: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A returned mail, parsed.

    ``about``: the people that it reports, at least one. ``trace``: the trace in the original that it returns, None if there
    is none or its HMAC is wrong. ``envid``, ``message_ids``: its references to the original. ``feedback``: the Feedback-Type
    of a complaint. ``rest``: the number of people that it reports beyond ``about``. ``why``: why it is unsorted.
    """

    about: tuple[PersonReport, ...]
    trace: TraceInfo | None = None
    envid: str = ""
    message_ids: tuple[str, ...] = ()
    subject: str = ""
    author: str
    to: tuple[str, ...]
    original_subject: str = ""
    feedback: str = ""
    rest: int = 0
    why: str = ""

    @property
    def sort(self) -> Sort:
        return self.about[0].sort


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The message that a return is about. ``message``: the id of its transaction or hold; ``mailing``: the id of the mailing
    of which it is a copy. Both are "" if unknown."""

    by: By = By.NOTHING
    message: str = ""
    mailing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnText:
    """The personal data of a return, which ``retention: addresses`` erases."""

    subject: str = ""
    author: str = ""
    address: str = ""
    status: str = ""
    said: str = ""
    feedback: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """One statement of a returned mail about one person.

    ``mail``: the SHA-256 of the mail; ``n``: the number of the statement in it. ``person``: the digest by which the person is
    counted, None if unknown. ``sure``: the mail proves that it is about a recipient of ``match.message``. ``counts``: it is
    sure, and the first of its sort for this person. ``kept``: the mail is still stored.
    """

    mail: str
    n: int
    at: datetime
    sort: Sort
    match: Match
    person: bytes | None = None
    sure: bool = False
    counts: bool = False
    kept: bool = True
    said: ReturnText = field(default_factory=ReturnText)


@dataclass(frozen=True, slots=True, kw_only=True)
class SortCount:
    """The number of returns of one sort in one stretch of time, which begins at ``at``. ``likely``: matched by likeness
    alone; ``counted``: how many of ``all`` count."""

    at: datetime
    sort: Sort
    likely: bool
    all: int
    counted: int


COUNTED = (Sort.COMPLAINT, Sort.BOUNCE, Sort.REPLY, Sort.UNSUBSCRIBE)
"""The sorts that breakers count, and by which a trend is found."""
SAID = Codec(ReturnText)


def unnamed(one: Return) -> Return:
    """Return a copy of ``one`` without addresses and texts. A mention stays whole: it is public."""
    said = ReturnText(status=one.said.status, feedback=one.said.feedback, why=one.said.why)
    return one if one.sort is Sort.MENTION else replace(one, said=said)


def row(one: Return) -> Mapping[str, Any]:
    """Return the JSON object of a return, for programs."""
    return {
        "id": one.mail,
        "n": one.n,
        "at": utc_text(one.at),
        "sort": one.sort.value,
        "known_by": one.match.by.value,
        "message": one.match.message or None,
        "mailing": one.match.mailing or None,
        "counts": one.counts,
        "address": one.said.address or None,
        "from": one.said.author or None,
        "subject": one.said.subject,
        "status": one.said.status or None,
        "said": one.said.said or None,
        "feedback": one.said.feedback or None,
        "why": one.said.why or None,
        "kept": one.kept,
    }
