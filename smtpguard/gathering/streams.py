"""Streams: one-by-one mail of systems with a standing approval and limits. Count them, and raise an alarm above the
limits.

A stream above its limits is deferred, never held: its mail is wanted, only less of it. Its owner gets one notice a window, and the
journal one entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from smtpguard.config.durations import Rate
from smtpguard.gathering.gather import Gathered
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.declared import Stream
from smtpguard.policy.counted import Ask, Live

FACT = "stream.messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimit:
    """A limit of a stream that a message counts against. ``person``: it limits messages to one recipient."""

    stream: Stream
    limit: Rate
    ask: Ask
    person: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceeded:
    """A limit that a message would exceed. ``count``: with this message."""

    watched: StreamLimit
    count: int


def watched(gathered: Gathered) -> tuple[StreamLimit, ...]:
    """Return the limits of the streams whose standing approval a message uses: for all messages, and for messages to each
    recipient."""
    found = []
    for stream in gathered.streams:
        if stream.max is not None:
            found.append(StreamLimit(stream=stream, limit=stream.max, ask=_ask(stream.name, stream.max)))
        if stream.max_per_person is not None:
            for recipient in {r.canonical: r for r in gathered.counted.recipients if r.digest}.values():
                ask = _ask(f"{stream.name} {recipient.digest.hex()}", stream.max_per_person)
                found.append(StreamLimit(stream=stream, limit=stream.max_per_person, ask=ask, person=True))
    return tuple(found)


def exceeded(limits: Sequence[StreamLimit], live: Live) -> Exceeded | None:
    """Return the first limit that the message would exceed, None if there is none. ``live``: the counts with this message."""
    for one in limits:
        count = live.counts.get(one.ask, 0)
        if count > one.limit.count:
            return Exceeded(watched=one, count=count)
    return None


@dataclass(slots=True)
class Alarms:
    """Reports each exceeded limit once a window. Each process has its own alarms. The notice has the same id in all processes,
    so the owner gets one; the journal may have an entry of each process."""

    _said: dict[tuple[str, bool], float] = field(default_factory=dict)

    def first(self, over: Exceeded, now: datetime) -> Event | None:
        """Return the journal's entry, None if the limit was reported in this window already."""
        one = over.watched
        since = window_of(now, one.limit.window_seconds)
        if self._said.get((one.stream.name, one.person)) == since.timestamp():
            return None
        self._said[one.stream.name, one.person] = since.timestamp()
        data = {
            "limit": one.limit.count,
            "window_seconds": one.limit.window_seconds,
            "per_person": one.person,
            "count": over.count,
        }
        return Event(kind=Kind.STREAM, id=one.stream.name, at=now, data=data)


def window_of(now: datetime, seconds: float) -> datetime:
    """Return the start of the window of ``seconds`` that ``now`` is in, counted from 1970."""
    return datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)


def _ask(key: str, limit: Rate) -> Ask:
    return Ask(fact=FACT, key=key, window_seconds=limit.window_seconds)
