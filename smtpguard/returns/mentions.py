"""Mentions outside: what feeds and media monitoring report, as returns without a mailing. Pure.

The same thing from several sources is one mention. Nothing is said of tone, since nothing certain can be said.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from smtpguard.reading.fold import fold
from smtpguard.returns.model import Return

MOST = 200
"""The most mentions that are taken from one feed or one request."""
LEAST_WORDS = 4
"""The fewest words of a title by which two mentions are the same; with fewer, their links decide."""
_MOST_CHARACTERS = 300
_NO_TIME = (1970, 1, 1, 0, 0, 0)
_MOST_URL_CHARACTERS = 1_000
_TAG = re.compile(r"<[^<>]{0,500}>")
_TRACKING = re.compile(r"utm_\w+|fbclid|gclid|mc_[ce]id|ref|cmpid|at_\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """One thing that one source says. ``source``: its name in the settings."""

    source: str
    title: str
    url: str
    at: datetime

    @property
    def key(self) -> str:
        """The key that mentions of the same thing share: a SHA-256 of the title's words, or of the link."""
        words = re.findall(r"\w+", fold(self.title))
        same = " ".join(words) if len(words) >= LEAST_WORDS else plain_url(self.url) or " ".join(words)
        return hashlib.sha256(f"mention {same}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """One thing that is said outside, and every source that says it. ``sources``: the name and link of each; "" for an
    unknown link."""

    title: str
    first_at: datetime
    sources: tuple[tuple[str, str], ...]


def mention(source: str, title: object, url: object, at: datetime | None, now: datetime) -> Mention | None:
    """Make a mention from untrusted values. Returns None without a title. An unknown or future time becomes ``now``."""
    if not isinstance(title, str):
        return None
    # cut to fewer digits than ``int`` takes from a character reference
    said = " ".join(html.unescape(_TAG.sub(" ", title[:4_000])).split())[:_MOST_CHARACTERS]
    said = "".join(c for c in said if c.isprintable())
    if not said:
        return None
    return Mention(source=source, title=said, url=web(url), at=at if at is not None and at <= now else now)


def web(url: object) -> str:
    """Return ``url`` if it is a link that a browser may follow, "" for any other."""
    if (
        not isinstance(url, str)
        or len(url) > _MOST_URL_CHARACTERS
        or not url.isprintable()
        or re.search(r"[\s<>\"']", url)
    ):
        return ""
    try:
        parts = urlsplit(url)
        return url if parts.scheme in ("http", "https") and parts.hostname and not parts.username else ""
    except ValueError:
        return ""


def plain_url(url: str) -> str:
    """Return ``url`` without scheme, fragment and tracking parameters, so that equal links compare equal."""
    if not url:
        return ""
    parts = urlsplit(url)
    query = urlencode([pair for pair in parse_qsl(parts.query)[:50] if not _TRACKING.fullmatch(pair[0].lower())])
    host = (parts.hostname or "").removeprefix("www.")
    return f"{host}{parts.path.rstrip('/')}{'?' if query else ''}{query}"


def of_feed(source: str, found: Any, now: datetime) -> list[Mention]:
    """Make mentions from the result of feedparser, for RSS and Atom."""
    made = []
    for entry in found.get("entries", ())[:MOST]:
        when = entry.get("published_parsed") or entry.get("updated_parsed")
        try:
            year, month, day, hour, minute, second = when[:6] if when else _NO_TIME
            at = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC) if when else None
        except (TypeError, ValueError):
            at = None
        if (one := mention(source, entry.get("title"), entry.get("link"), at, now)) is not None:
            made.append(one)
    return made


def of_request(source: str, body: Any, now: datetime) -> list[Mention]:
    """Make mentions from a request of media monitoring: ``{"items": [{"title", "url", "source", "at"}]}``. Raises ValueError."""
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
    """Join mentions of the same thing, the newest first, each with its sources in order."""
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
    """Group by source, in order of their names. What several sources say stands with each of them."""
    found: dict[str, list[Outside]] = {}
    for one in some:
        for name in dict.fromkeys(name for name, _ in one.sources):
            found.setdefault(name, []).append(one)
    return tuple((name, tuple(said)) for name, said in sorted(found.items()))
