"""One policy with all that is built of it, as it is looked back at: its rules by what they ask, and what they answered then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from smtpguard.guard.inforce import InForce
from smtpguard.hindsight.recalled import Recalled, Window
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.registry import Registry
from smtpguard.policy.condition import NO, UNKNOWN, YES, Answer
from smtpguard.policy.counted import COUNTED
from smtpguard.policy.facts import Source
from smtpguard.policy.parse import Policy
from smtpguard.policy.rule import Rule, Strength
from smtpguard.policy.verdict import Action

_BEFORE = (Source.ENVELOPE, Source.HEADERS)
"""What is known of every message, whatever the rules want to know."""


@dataclass(frozen=True, eq=False)
class CompiledPolicy:
    """One policy with what is built of it. ``in_force.registry`` has the lists' indexes as they are today."""

    policy: Policy
    in_force: InForce

    @property
    def registry(self) -> Registry:
        return self.in_force.registry

    @property
    def lists(self) -> Mapping[str, ListInfo]:
        return self.registry.lists

    @cached_property
    def rules(self) -> tuple[tuple[Rule, tuple[Window, ...]], ...]:
        """Each with all that it asks."""
        return tuple(
            (rule, tuple(Window(c.slot, c.fact.name, c.window_seconds) for c in rule.conditions))
            for rule in self.in_force.rules.rules
        )

    @cached_property
    def counts(self) -> Mapping[str, Window]:
        """By slot, what it counts."""
        return {asked.slot: asked for _, all in self.rules for asked in all if asked.fact in COUNTED}

    @cached_property
    def limited(self) -> frozenset[str]:
        """Its streams with a limit."""
        streams = self.registry.streams.items()
        return frozenset(name for name, s in streams if s.max is not None or s.max_per_person is not None)

    @cached_property
    def avoid(self) -> Mapping[str, frozenset[str]]:
        return {name: info.avoid for name, info in self.lists.items()}

    @cached_property
    def of_sense(self) -> Mapping[Any, tuple[Rule, ...]]:
        found: dict[Any, tuple[Rule, ...]] = {}
        for rule in self.in_force.rules.rules:
            found[rule.sense] = (*found.get(rule.sense, ()), rule)
        return found

    @cached_property
    def by_id(self) -> Mapping[str, Rule]:
        return {rule.rule_id: rule for rule in self.in_force.rules.rules}

    def answered(self, rule: Rule, message: Recalled) -> Answer | None:
        """What this rule of the policy of then did answer. None where nobody can say: it may have been left unasked, since it could
        not have made the verdict stricter."""
        if rule.rule_id in message.hits:
            return UNKNOWN if rule.rule_id in message.uncertain else YES
        return NO if rule.observes or not message.own or rule.strength() > self._strongest(message) else None

    def action(self, name: str, message: Recalled) -> Action | None:
        """What a rule of the policy of then wanted, as it hit; None of one that stands in no policy."""
        return self._strength(name, message)[0] if name in self.by_id else None

    def _strength(self, name: str, message: Recalled) -> Strength:
        return self.by_id[name].strength(UNKNOWN if name in message.uncertain else YES)

    def _strongest(self, message: Recalled) -> Strength:
        strengths = (self._strength(name, message) for name in message.own if name in self.by_id)
        return max(strengths, default=(Action.RELAY, False))

    @cached_property
    def calm(self) -> frozenset[Any]:
        """Of the rules that look at what is counted only where a rule wants to know, what decides whether they do: two policies that
        are alike in it count the same messages. None of it where that hangs on what was read only if another rule wanted it."""
        lazy = {slot for slot, asked in self.counts.items() if COUNTED[asked.fact].lazy}
        found = set()
        for rule in self.in_force.rules.rules:
            if lazy.isdisjoint(rule.slots):
                continue
            others = [c for c in rule.conditions if c.fact.name not in COUNTED]
            if any(c.fact.source not in _BEFORE for c in others):
                return frozenset({object()})  # like nothing else
            when, unless = (frozenset(c.sense for c in some if c in others) for some in (rule.when, rule.unless))
            stop = (rule.rule_id, rule.stop_seconds) if rule.stop_seconds else ()
            found.add((when, unless, frozenset(lazy & rule.slots), stop))
        return frozenset(found)
