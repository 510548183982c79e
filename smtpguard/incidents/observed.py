"""Sums of what an observing policy (``enforce: false``) would have held, by rule, sender and list. Pure.

A person decides once on a mailing, however many copies it has, so messages and decisions are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from smtpguard.journal.chain import Clear, first_of, instant

STRICTNESS = ("hold", "defer", "reject")
"""The actions that stop a message, the strictest last."""
EXAMPLES = 3
"""The most examples of a rule."""
_WEEK = 7 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A message that a rule would have held. ``sender`` and ``subject``: "" if they are erased. ``because``: fact,
    observed value and condition of each reason."""

    id: str
    at: datetime
    sender: str
    subject: str
    recipients: int
    because: Sequence[tuple[str, str, str]]


@dataclass(slots=True, kw_only=True)
class ObservedShare:
    """What would have been held of one rule, sender or list. ``action``: the rule's, else "". ``customers``:
    recipients, summed over messages. ``decided``: the mailings and messages on which a person would decide."""

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
        """Count a message. Returns whether it needs another decision than those before."""
        self.messages += 1
        self.customers += customers
        other = bool(decision) and decision not in self.decided
        if other:
            self.decided.add(decision)
        return other


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What an observing policy would have stopped. ``weeks``: from the first message to the last, at least one.
    ``messages``: all with a verdict; ``would``: how many of them would have been held, deferred and rejected.
    ``enforced``: how many in fact were, since the policy did not always observe. ``decisions``: the number of decisions
    on messages that would have been held. ``rules``, ``senders``, ``lists``: shares, those with the most decisions
    first."""

    since: datetime
    until: datetime
    weeks: float
    messages: int
    enforced: int
    would: Mapping[str, int]
    decisions: int
    rules: Sequence[ObservedShare]
    senders: Sequence[ObservedShare]
    lists: Sequence[ObservedShare]


class ObservedSums:
    """The sums of verdicts. ``actions``: for each rule its action once it is enforced, "" for those that would then
    still only observe or call a person. A rule that is missing, of an earlier policy, counts as hold."""

    def __init__(self, actions: Mapping[str, str], *, examples: int = EXAMPLES) -> None:
        self._actions, self._examples = actions, examples
        self._messages = self._enforced = self._first = self._last = 0
        self._would = dict.fromkeys(STRICTNESS, 0)
        self._decisions: set[str] = set()
        self._by: dict[str, dict[str, ObservedShare]] = {"rules": {}, "senders": {}, "lists": {}}

    def add(self, at: int, id: str, data: Mapping[str, Any], clear: Clear | None) -> None:
        """Add a verdict of the journal. ``at``: in microseconds. A verdict of another version counts as far as it is
        understood."""
        if data.get("retry") or data.get("test") or "counts" not in data:
            return
        self._messages += 1
        self._first, self._last = self._first or at, at
        if data.get("action") != "relay":
            self._enforced += 1
            return
        hits = [rule for rule in data.get("observed") or () if self._action(rule)]
        if not hits:
            return
        action = max((self._action(rule) for rule in hits), key=STRICTNESS.index)
        self._would[action] += 1
        decision = str(data.get("mailing") or id) if action == "hold" else ""
        if decision:
            self._decisions.add(decision)
        customers = data["counts"].get("customers") or 0
        sender = first_of(clear, "from")
        for rule in hits:
            share = self._share("rules", rule, self._action(rule))
            if (share.add(customers, decision) or not decision) and len(share.examples) < self._examples:
                share.examples.append(_example(at, id, data, clear, rule))
        self._share("senders", sender).add(customers, decision)
        for name in data.get("lists") or ():
            self._share("lists", name).add(customers, decision)

    def _action(self, rule: str) -> str:
        return self._actions.get(rule, "hold")

    def _share(self, kind: str, name: str, action: str = "") -> ObservedShare:
        return self._by[kind].setdefault(name, ObservedShare(name=name, action=action))

    def totals(self, since: datetime, until: datetime) -> Observed:
        return Observed(
            since=since,
            until=until,
            weeks=max((self._last - self._first) / _WEEK, 1.0),
            messages=self._messages,
            enforced=self._enforced,
            would=dict(self._would),
            decisions=len(self._decisions),
            **{
                kind: sorted(shares.values(), key=lambda share: (-share.decisions, -share.messages, share.name))
                for kind, shares in self._by.items()
            },
        )


def enforced_actions(rules: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the action of each rule once ``enforce`` is true. ``rules``: as the policy file has them."""
    return {str(rule.get("id")): _enforced_action(rule) for rule in rules}


def _enforced_action(rule: Mapping[str, Any]) -> str:
    then = rule.get("then")
    if rule.get("mode", "enforce") != "enforce" or then == "alarm":
        return ""
    return then if then in STRICTNESS else "hold"


def _example(at: int, id: str, data: Mapping[str, Any], clear: Clear | None, rule: str) -> Example:
    return Example(
        id=id,
        at=instant(at),
        sender=first_of(clear, "from"),
        subject=first_of(clear, "subject"),
        recipients=int(data["counts"].get("total") or 0),
        because=tuple(
            (str(r.get("fact")), str(r.get("observed")), str(r.get("limit")))
            for r in data.get("reasons") or ()
            if r.get("rule") == rule and r.get("observed") is not None
        ),
    )
