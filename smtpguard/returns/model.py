"""Returned mail: its sort, its original message and how that is known, and whether it counts. And what is said outside, in
feeds and media monitoring, as returns without a mailing; the same thing from several sources once. Pure.

Anybody can write a report. Only one counts that carries the trace of a sent message, whose HMAC cannot be forged
(mail.trace), and that is about a recipient of it. Nothing is said of tone: no certain thing can be.
"""

from __future__ import annotations

import enum
import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from smtpguard.locale.phrase import N_
from smtpguard.mail.codec import Codec
from smtpguard.mail.trace import TraceInfo
from smtpguard.reading.fold import fold


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


MOST = 200
"""Entries of one feed, or of one request."""
LEAST_WORDS = 4
"""By a shorter title two things are not taken for the same."""
_MOST_CHARACTERS = 300
_NEVER = (1970, 1, 1, 0, 0, 0)
_MOST_URL = 1_000
_MARKUP = re.compile(r"<[^<>]{0,500}>")
_TRACKING = re.compile(r"utm_\w+|fbclid|gclid|mc_[ce]id|ref|cmpid|at_\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """``source``: who says it, as the settings name them. ``key``: the same for whoever says the same."""

    source: str
    title: str
    url: str
    at: datetime

    @property
    def key(self) -> str:
        words = re.findall(r"\w+", fold(self.title))
        same = " ".join(words) if len(words) >= LEAST_WORDS else plain_url(self.url) or " ".join(words)
        return hashlib.sha256(f"mention {same}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """One thing that is said, and everybody who says it, by name."""

    title: str
    first_at: datetime
    sources: tuple[tuple[str, str], ...]
    """The name of each and where it stands, "" where that is not known."""


def mention(source: str, title: object, url: object, at: datetime | None, now: datetime) -> Mention | None:
    """None of what has no title. A time that is not known, or is still to come, is now."""
    if not isinstance(title, str):
        return None
    # cut to fewer digits than ``int`` takes from a character reference
    said = " ".join(html.unescape(_MARKUP.sub(" ", title[:4_000])).split())[:_MOST_CHARACTERS]
    said = "".join(c for c in said if c.isprintable())
    if not said:
        return None
    return Mention(source=source, title=said, url=web(url), at=at if at is not None and at <= now else now)


def web(url: object) -> str:
    """A link that a browser may follow; "" for any other."""
    if not isinstance(url, str) or len(url) > _MOST_URL or not url.isprintable() or re.search(r"[\s<>\"']", url):
        return ""
    try:
        parts = urlsplit(url)
        return url if parts.scheme in ("http", "https") and parts.hostname and not parts.username else ""
    except ValueError:
        return ""


def plain_url(url: str) -> str:
    """By which two links are the same: without scheme, fragment and what only says where a reader came from."""
    if not url:
        return ""
    parts = urlsplit(url)
    query = urlencode([pair for pair in parse_qsl(parts.query)[:50] if not _TRACKING.fullmatch(pair[0].lower())])
    host = (parts.hostname or "").removeprefix("www.")
    return f"{host}{parts.path.rstrip('/')}{'?' if query else ''}{query}"


def of_feed(source: str, found: Any, now: datetime) -> list[Mention]:
    """Of what feedparser makes of RSS or Atom."""
    made = []
    for entry in found.get("entries", ())[:MOST]:
        when = entry.get("published_parsed") or entry.get("updated_parsed")
        try:
            year, month, day, hour, minute, second = when[:6] if when else _NEVER
            at = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC) if when else None
        except (TypeError, ValueError):
            at = None
        if (one := mention(source, entry.get("title"), entry.get("link"), at, now)) is not None:
            made.append(one)
    return made


def of_request(source: str, body: Any, now: datetime) -> list[Mention]:
    """Of what media monitoring sends: ``{"items": [{"title", "url", "source", "at"}]}``. Raises ValueError."""
    items = body.get("items") if isinstance(body, Mapping) else None
    if not isinstance(items, list) or len(items) > MOST:
        raise ValueError(f"items: a list of at most {MOST}")
    made = []
    for item in items:
        if not isinstance(item, Mapping):
            raise ValueError("each item is an object")
        said, at = item.get("source"), None
        if isinstance(item.get("at"), str):
            at = datetime.fromisoformat(item["at"])
            if at.tzinfo is None:
                raise ValueError("at: a time with its zone")
        name = f"{source}: {said.strip()[:80]}" if isinstance(said, str) and said.strip().isprintable() else source
        if (one := mention(name, item.get("title"), item.get("url"), at, now)) is not None:
            made.append(one)
    return made


def outside(returns: Sequence[Return]) -> tuple[Outside, ...]:
    """Mentions, the newest first, each with its sources in order."""
    by_key: dict[str, list[Return]] = {}
    for one in returns:
        by_key.setdefault(one.mail, []).append(one)
    found = [
        Outside(
            title=next((one.said.subject for one in sorted(several, key=lambda one: one.n) if one.said.subject), ""),
            first_at=min(one.at for one in several),
            sources=tuple(sorted((one.said.author, one.said.said) for one in several)),
        )
        for several in by_key.values()
    ]
    return tuple(sorted(found, key=lambda one: one.first_at, reverse=True))


def by_source(some: Iterable[Outside]) -> tuple[tuple[str, tuple[Outside, ...]], ...]:
    """What each source says, the sources in order; what several say stands with each."""
    found: dict[str, list[Outside]] = {}
    for one in some:
        for name in dict.fromkeys(name for name, _ in one.sources):
            found.setdefault(name, []).append(one)
    return tuple((name, tuple(said)) for name, said in sorted(found.items()))
