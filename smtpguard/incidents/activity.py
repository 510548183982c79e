"""What the guard and its people did in a period, by rule and by list: the journal added up.

Decisions are those on what was held within the period, as they stand at its end, and people's and time's alike. A copy of a
mailing goes the way of the hold that it is stored under, so that it is counted apart and is no decision.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from smtpguard.journal.event import DECISIONS, Kind

WANTED = frozenset({Kind.VERDICT, *DECISIONS})
"""The kinds of entries that are added up."""
OFTEN = 5
"""Decisions on what a rule held, from which on it can be said whether the rule fits."""
_ACTIONS: Mapping[str, str] = {"relay": "relayed", "hold": "held", "defer": "deferred", "reject": "rejected"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """On messages that were held: how many ended so, and seconds from the hold to its end."""

    approved: int = 0
    rejected: int = 0
    withdrawn: int = 0
    expired: int = 0
    seconds: Sequence[float] = ()

    @property
    def total(self) -> int:
        return self.approved + self.rejected + self.withdrawn + self.expired

    @property
    def median_seconds(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def p90_seconds(self) -> float | None:
        return sorted(self.seconds)[int(0.9 * len(self.seconds) - 0.5)] if self.seconds else None

    @property
    def too_strict(self) -> bool:
        """Whether people approved more than half of what was held, so that it should not have been."""
        return self.total >= OFTEN and 2 * self.approved > self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one rule did, or what was meant for one list: messages, and decisions on those that were held."""

    name: str
    held: int = 0
    deferred: int = 0
    rejected: int = 0
    observed: int = 0
    decided: Decided = Decided()


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """``copies``: of mailings, among the ``held``; ``waiting``: of those that are no copies. ``customers``: recipients of what was
    relayed, each message for itself. ``rules`` and ``lists`` begin with those that held most."""

    since: datetime
    until: datetime
    relayed: int
    held: int
    deferred: int
    rejected: int
    copies: int
    customers: int
    waiting: int
    decided: Decided
    rules: Sequence[Share]
    lists: Sequence[Share]

    @property
    def messages(self) -> int:
        return self.relayed + self.held + self.deferred + self.rejected


@dataclass(slots=True)
class _Counts:
    did: dict[str, int] = field(default_factory=dict)
    ends: list[tuple[str, float]] = field(default_factory=list)

    def count(self, did: str) -> None:
        self.did[did] = self.did.get(did, 0) + 1

    def decided(self) -> Decided:
        by_end = {end: sum(e == end for e, _ in self.ends) for end in ("approved", "rejected", "withdrawn", "expired")}
        return Decided(**by_end, seconds=tuple(seconds for _, seconds in self.ends))

    def share(self, name: str) -> Share:
        known = {did: n for did, n in self.did.items() if did in ("held", "deferred", "rejected", "observed")}
        return Share(name=name, decided=self.decided(), **known)


@dataclass(frozen=True, slots=True)
class _Held:
    at: int
    rules: Sequence[str]
    lists: Sequence[str]


class Sums:
    """Entries are added in the order of the journal. Total: an entry of another version's shape counts as far as it is understood."""

    def __init__(self) -> None:
        self._did = _Counts()
        self._copies = self._customers = 0
        self._rules: dict[str, _Counts] = {}
        self._lists: dict[str, _Counts] = {}
        self._held: dict[str, _Held] = {}
        self._ends: dict[str, tuple[str, int]] = {}

    def add(self, at: int, kind: str, id: str, data: Mapping[str, Any]) -> None:
        """An entry of the journal (journal.chain.Entry); ``at`` in microseconds."""
        if kind == Kind.VERDICT.value:
            self._verdict(at, id, data)
        elif id in self._held and (end := _ENDS.get(kind)) is not None:
            if end == "waiting":  # taken back: it is decided on again
                self._ends.pop(id, None)
            elif end == "void":  # its client never got an answer, and sends it again
                del self._held[id]
            else:
                self._ends[id] = end, at

    def _verdict(self, at: int, id: str, data: Mapping[str, Any]) -> None:
        did = _ACTIONS.get(str(data.get("action")))
        if did is None or data.get("retry") or data.get("test"):
            return
        self._did.count(did)
        rules, lists = _words(data.get("rules")), _words(data.get("lists"))
        for rule in rules:
            self._rules.setdefault(rule, _Counts()).count(did)
        for rule in _words(data.get("observed")):
            self._rules.setdefault(rule, _Counts()).count("observed")
        if did == "relayed":
            counts = data.get("counts")
            customers = counts.get("customers") if isinstance(counts, Mapping) else None
            self._customers += customers if isinstance(customers, int) else 0
            return
        for name in lists:
            self._lists.setdefault(name, _Counts()).count(did)
        if did == "held" and "with" in data:
            self._copies += 1
        elif did == "held":
            self._held[id] = _Held(at, rules, lists)

    def activity(self, since: datetime, until: datetime) -> Activity:
        """What they come to."""
        everything = _Counts()
        for id, (end, at) in self._ends.items():
            if (held := self._held.get(id)) is None:
                continue
            told = end, max(0, at - held.at) / 1e6  # a clock may be set back
            everything.ends.append(told)
            for name in held.rules:
                self._rules[name].ends.append(told)
            for name in held.lists:
                self._lists[name].ends.append(told)
        did = self._did.did
        return Activity(
            since=since,
            until=until,
            relayed=did.get("relayed", 0),
            held=did.get("held", 0),
            deferred=did.get("deferred", 0),
            rejected=did.get("rejected", 0),
            copies=self._copies,
            customers=self._customers,
            waiting=len(self._held) - len(everything.ends),
            decided=everything.decided(),
            rules=_sorted(counts.share(name) for name, counts in self._rules.items()),
            lists=_sorted(counts.share(name) for name, counts in self._lists.items()),
        )


_ENDS: Mapping[str, str] = {kind.value: state for kind, state in DECISIONS.items()}


def _sorted(shares: Iterable[Share]) -> list[Share]:
    return sorted(
        shares, key=lambda share: (-share.held, -share.rejected, -share.deferred, -share.observed, share.name)
    )


def _words(value: Any) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []
