"""The differences that a replayed policy has made so far, as far as they affect later messages: waiting mailings, and
counts.

A mailing that the policy would have held counts as still waiting, since the decision of its approvers cannot be known.
Memory is bounded: after MOST entries no more are kept, and every later result that depends on them is uncertain.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from smtpguard.admission.mailingverdict import OF_REACH
from smtpguard.admission.recorded import WAITING, Recorded
from smtpguard.policy.counted import COUNTED
from smtpguard.policy.facts import OF_LETTERS

MOST = 500_000
"""The most mailings, contents, writers, lists and streams that are kept, each."""
_SECOND = 1_000_000


class Waiting(NamedTuple):
    """A mailing of which something went differently. ``by_size``: it may wait because of its size, so that its messages
    to customers wait with it; ``by_reach``: so that all its messages do. ``full``: so many messages may have been
    stored that further ones would be deferred."""

    by_size: bool
    by_reach: bool
    full: bool


class Amount(NamedTuple):
    """At most how many people (or messages), and when the last of them came, in microseconds."""

    at: int
    most: float


class Drift(NamedTuple):
    """By how much a count may be lower, and higher."""

    fewer: float = 0
    more: float = 0


_NONE = Drift()


@dataclass(slots=True)
class Divergence:
    """``copies``: the most copies of one mailing that are stored; later ones are deferred, and not counted."""

    copies: int
    lost: bool = False
    """Whether more went differently than MOST."""
    by_reach: bool = False
    """Whether any mailing may wait because of how many people it reaches, colleagues included."""
    _went: Counter[str] = field(default_factory=Counter)
    _by_size: set[str] = field(default_factory=set)
    _by_reach: set[str] = field(default_factory=set)
    _stored: set[bytes] = field(default_factory=set)
    _addressed: set[bytes] = field(default_factory=set)
    _fewer: dict[str, Amount] = field(default_factory=dict)  # by the key of a count
    _more: dict[str, Amount] = field(default_factory=dict)

    # Input: what went differently.

    def otherwise(self, message: Recorded, sizes: Collection[str] | None) -> None:
        """The message, or an earlier one of its mailing, went differently than recorded. ``sizes``: what the rules ask
        about the mailing's size, if the message may have been held; None if it surely was not."""
        by_reach = bool(OF_REACH.intersection(sizes or ()))
        self.by_reach |= by_reach
        if not (mailing := message.mailing):
            return
        # What waits of it so far waits in the record as well, for a reason that is not kept.
        waits = mailing not in self._went and message.stood(WAITING)
        for there, wanted in ((self._by_size, sizes or waits), (self._by_reach, by_reach or waits)):
            if wanted and self._room(there, mailing):
                there.add(mailing)
        if (sizes is not None or mailing not in self._went) and self._room(self._went, mailing):
            self._went[mailing] += 1

    def counted(self, message: Recorded, *, fewer: bool, more: bool) -> None:
        """It may have been counted although it was not (``more``), or the other way round (``fewer``)."""
        self._count(message, _keys(message), fewer=fewer, more=more)

    def let_through(self, message: Recorded, *, fewer: bool, more: bool) -> None:
        """The same for counts that leave out held messages."""
        self._count(message, _keys_of_who(message), fewer=fewer, more=more)

    def _count(self, message: Recorded, keys: Iterable[str], *, fewer: bool, more: bool) -> None:
        if not (fewer or more):
            return
        people, keys = message.count("reach").high, list(keys)
        for there, known in ((fewer, self._fewer), (more, self._more)):
            for key in keys if there else ():
                self._add(known, key, message.at, people)

    def moved(self, message: Recorded, reach: float) -> None:
        """Its recipients may be classified differently, at most ``reach`` people, so it counts elsewhere. If its
        identity is unknown it may belong to any mailing."""
        for known in (self._fewer, self._more):
            for key in (*_keys(message), *_keys_of_who(message), *(() if message.mailing else ("mailing",))):
                self._add(known, key, message.at, max(reach, message.count("reach").high))

    def _add(self, known: dict[str, Amount], key: str, at: int, most: float) -> None:
        if self._room(known, key):
            known[key] = Amount(at, most + (known[key].most if key in known else 0))

    def came(self, message: Recorded, *, held: bool, addressed: bool) -> None:
        """Note whether it may be stored, and whether it went to a list address."""
        for there, wanted in ((self._stored, held), (self._addressed, addressed)):
            if wanted and self._room(there, itself := _itself(message)):
                there.add(itself)

    # Output: what follows for a later message.

    def waiting(self, message: Recorded) -> Waiting | None:
        """Whether its mailing went differently before."""
        mailing = message.mailing
        if mailing and self.lost:
            return Waiting(by_size=True, by_reach=True, full=True)
        if not mailing or mailing not in self._went:
            return None
        full = self._went[mailing] > self.copies
        return Waiting(by_size=mailing in self._by_size, by_reach=mailing in self._by_reach, full=full)

    def repeats(self, message: Recorded) -> bool:
        """Whether the same message may be held already, so that this is only its retry."""
        return self.lost or _itself(message) in self._stored

    def tried(self, message: Recorded) -> bool:
        """Whether the same message went to a list address before."""
        return self.lost or _itself(message) in self._addressed

    def drift(self, message: Recorded, fact: str, seconds: int) -> Drift:
        """The drift of one of its counts. Differences that have left the window do not matter."""
        if fact in OF_LETTERS and message.is_no_letter:
            return _NONE
        if self.lost:
            return Drift(math.inf, math.inf)
        if not (self._fewer or self._more) and not fact.startswith("mailing."):
            return _NONE
        window = COUNTED[fact].window_seconds if fact in COUNTED else 0
        after = message.at - (window or seconds) * _SECOND
        keys = _keys_of(message, fact)
        fewer, more = (
            sum(known[key].most for key in keys if key in known and known[key].at >= after)
            for known in (self._fewer, self._more)
        )
        if fact.startswith("mailing.") and (waiting := self.waiting(message)) is not None and waiting.full:
            fewer = math.inf
        return Drift(fewer, more)

    def _room(self, there: Collection[Any], key: Any) -> bool:
        if len(there) < MOST or key in there:
            return True
        self.lost = True
        return False


def _itself(message: Recorded) -> bytes:
    """A digest of content and recipients, which identifies a retry."""
    text = " ".join((message.data.get("content") or message.id, *message.sealed.get("recipients", ())))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _keys(message: Recorded) -> Iterable[str]:
    """The keys that it is counted under."""
    yield "thread"
    if message.mailing:
        yield f"mailing {message.mailing}"
    yield from (f"stream {name}" for name in message.streams)


def _keys_of_who(message: Recorded) -> Iterable[str]:
    """The keys of counts that leave out held messages: those of senders and lists."""
    yield from _senders(message)
    yield from (f"list {name}" for name in message.lists)


def _senders(message: Recorded) -> tuple[str, ...]:
    who = [f"from {message.writer}"] if message.writer else []
    who += [f"login {user.lower()}" for user in message.names("actor") or ()]
    if message.value("sender.proven") is not True and (client := message.data.get("client")):
        who.append(f"client {client}")
    return tuple(who)


def _keys_of(message: Recorded, fact: str) -> tuple[str, ...]:
    area = fact.partition(".")[0]
    if fact in OF_LETTERS and area != "list":
        return _senders(message)
    match area:
        case "sender":
            return (f"from {message.writer}",)
        case "mailing":
            return (f"mailing {message.mailing}", "mailing")
        case "list":
            return tuple(f"list {name}" for name in message.lists)
        case "stream":
            return tuple(f"stream {name}" for name in message.streams)
    return ("thread",)
