"""What came back: of which sort it is, which message it is about and how that is known, and what of it may trip a breaker.

Anybody can write a report. What is counted is one that carries the trace of a message that went out, whose HMAC nobody can make
(mail.trace), and that is about somebody who got it. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from smtpguard.database.codec import Codec
from smtpguard.locale.phrase import N_
from smtpguard.mail.trace import TraceInfo


class Sort(enum.Enum):
    """What something that came back says."""

    BOUNCE = "bounce"  # it does not arrive (RFC 3464, "failed")
    DELAY = "delay"  # it has not arrived yet
    DELIVERED = "delivered"  # it has arrived, or was passed on to where nobody reports
    COMPLAINT = "complaint"  # somebody calls it abuse (RFC 5965)
    REPLY = "reply"
    UNSUBSCRIBE = "unsubscribe"
    AUTOMATIC = "automatic"  # a machine answered: somebody is away
    UNSORTED = "unsorted"  # nobody here can say what it is


SORTS: Mapping[Sort, str] = {
    Sort.BOUNCE: N_("Bounces"),
    Sort.COMPLAINT: N_("Complaints"),
    Sort.REPLY: N_("Replies"),
    Sort.UNSUBSCRIBE: N_("Unsubscribes"),
    Sort.AUTOMATIC: N_("Automatic replies"),
    Sort.DELAY: N_("Delays"),
    Sort.DELIVERED: N_("Delivery reports"),
    Sort.UNSORTED: N_("Unsorted"),
}
"""In the order in which they are shown."""


class By(enum.Enum):
    """How the message that it is about is known, the surest first."""

    TRACE = "trace"  # it carries the trace that went out with it
    ENVID = "envid"  # the envelope id of its sender (RFC 3461 section 4.4)
    VERP = "verp"  # it came to the reverse-path of that one copy
    MESSAGE_ID = "message-id"
    LIKENESS = "likeness"  # it has its subject: likely, no more
    NOTHING = "nothing"


CERTAIN = frozenset({By.TRACE, By.ENVID, By.VERP, By.MESSAGE_ID})


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Somebody that a report is about, as it says. ``status``: an enhanced code (RFC 3463)."""

    sort: Sort
    address: str = ""
    status: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a mail that came back says. ``trace``: of the original in it, None where it carries none of ours; ``envid``,
    ``message_ids``: by which it names the original; ``about``: at least one. ``rest``: of how many more people it tells than are told
    here. ``why``: why it is unsorted."""

    about: tuple[About, ...]
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
    """The message that it is about. ``message``: the id of a transaction or hold; ``mailing``: that it is a copy of; "" where not known."""

    by: By = By.NOTHING
    message: str = ""
    mailing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What names people, erased with ``retention: addresses``."""

    subject: str = ""
    author: str = ""
    address: str = ""
    status: str = ""
    said: str = ""
    feedback: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """One thing that came back, about one person. ``mail``: the SHA-256 of the mail that says so; ``n``: which of those that it says.
    ``person``: by whom it is counted, None where nobody can be named for certain. ``sure``: it carries what only who got a copy has,
    and is about somebody who did. ``counts``: and it is the first of its sort of this person. ``kept``: whether the mail is there still."""

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


SAID = Codec(Said)
