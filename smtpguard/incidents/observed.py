"""The messages that an observing policy (``enforce: false``) would have held: summed from the journal by rule, by
sender and by list.

A person decides once on a mailing, however many copies it has, so messages and decisions are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from smtpguard.journal.chain import Clear, instant

STRICTNESS = ("hold", "defer", "reject")
EXAMPLES = 3
_WEEK = 7 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """``sender`` and ``subject``: "" if they are erased. ``because``: fact, observed value, condition."""

    id: str
    at: datetime
    sender: str
    subject: str
    recipients: int
    because: Sequence[tuple[str, str, str]]


@dataclass(slots=True, kw_only=True)
class Share:
    """For a rule, a sender or a list. ``customers``: recipients, summed over messages. ``decided``: mailings and messages
    on which a person would decide. ``action``: of a rule, "" otherwise."""

    name: str
    action: str = ""
    messages: int = 0
    customers: int = 0
    decided: set[str] = field(default_factory=set)
    examples: list[Example] = field(default_factory=list)

    @property
    def decisions(self) -> int:
        return len(self.decided)

    def add(self, customers: int, decision: str) -> bool:
        """Whether it needs another decision than those before."""
        self.messages += 1
        self.customers += customers
        other = bool(decision) and decision not in self.decided
        if other:
            self.decided.add(decision)
        return other


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """``weeks``: from the first message to the last, at least a day. ``messages``: all that were judged; ``would``: how
    many of them would have been held, deferred and rejected. ``enforced``: how many in fact were, since the policy did
    not always observe. ``decisions``: on messages that would have been held. Shares: the most first."""

    since: datetime
    until: datetime
    weeks: float
    messages: int
    enforced: int
    would: Mapping[str, int]
    decisions: int
    rules: Sequence[Share]
    senders: Sequence[Share]
    lists: Sequence[Share]


class Sums:
    """``acts``: for each rule its action once it is enforced; "" for those that would then still only observe or call a
    person. A rule that is missing, of an earlier policy, counts as hold."""

    def __init__(self, acts: Mapping[str, str], *, examples: int = EXAMPLES) -> None:
        self._acts, self._examples = acts, examples
        self._messages = self._enforced = self._first = self._last = 0
        self._would = dict.fromkeys(STRICTNESS, 0)
        self._decisions: set[str] = set()
        self._by: dict[str, dict[str, Share]] = {"rules": {}, "senders": {}, "lists": {}}

    def add(self, at: int, id: str, data: Mapping[str, Any], clear: Clear | None) -> None:
        """A verdict of the journal; ``at`` in microseconds. Total: another version's shape counts as far as it is
        understood."""
        if data.get("retry") or data.get("test") or "counts" not in data:
            return
        self._messages += 1
        self._first, self._last = self._first or at, at
        if data.get("action") != "relay":
            self._enforced += 1
            return
        hits = [rule for rule in data.get("observed") or () if self._act(rule)]
        if not hits:
            return
        action = max((self._act(rule) for rule in hits), key=STRICTNESS.index)
        self._would[action] += 1
        decision = str(data.get("mailing") or id) if action == "hold" else ""
        if decision:
            self._decisions.add(decision)
        customers = data["counts"].get("customers") or 0
        sender = next(iter((clear or {}).get("from", ())), "")
        for rule in hits:
            share = self._of("rules", rule, self._act(rule))
            if (share.add(customers, decision) or not decision) and len(share.examples) < self._examples:
                share.examples.append(_example(at, id, data, clear, rule))
        self._of("senders", sender).add(customers, decision)
        for name in data.get("lists") or ():
            self._of("lists", name).add(customers, decision)

    def _act(self, rule: str) -> str:
        return self._acts.get(rule, "hold")

    def _of(self, kind: str, name: str, action: str = "") -> Share:
        return self._by[kind].setdefault(name, Share(name=name, action=action))

    def observed(self, since: datetime, until: datetime) -> Observed:
        return Observed(
            since=since,
            until=until,
            weeks=max((self._last - self._first) / _WEEK, 1 / 7),
            messages=self._messages,
            enforced=self._enforced,
            would=dict(self._would),
            decisions=len(self._decisions),
            **{kind: _most(shares.values()) for kind, shares in self._by.items()},
        )


def acts(rules: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """For rules as the policy file has them, the action of each once ``enforce`` is true."""
    return {str(rule.get("id")): _act(rule) for rule in rules}


def _act(rule: Mapping[str, Any]) -> str:
    then = rule.get("then")
    if rule.get("mode", "enforce") != "enforce" or then == "alarm":
        return ""
    return then if then in STRICTNESS else "hold"


def _most(shares: Iterable[Share]) -> list[Share]:
    return sorted(shares, key=lambda share: (-share.decisions, -share.messages, share.name))


def _example(at: int, id: str, data: Mapping[str, Any], clear: Clear | None, rule: str) -> Example:
    names = clear or {}
    return Example(
        id=id,
        at=instant(at),
        sender=next(iter(names.get("from", ())), ""),
        subject=next(iter(names.get("subject", ())), ""),
        recipients=int(data["counts"].get("total") or 0),
        because=tuple(
            (str(r.get("fact")), str(r.get("observed")), str(r.get("limit")))
            for r in data.get("reasons") or ()
            if r.get("rule") == rule and r.get("observed") is not None
        ),
    )
