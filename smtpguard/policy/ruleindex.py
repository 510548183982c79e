"""Select the rules that a message may hit: rules with a condition of ``when`` that surely says no are skipped at once.

Equal conditions of several rules are evaluated once; words are looked up. So a thousand rules, each for one list, cost
little more than ten. A set of rules is an integer with one bit for each rule, by its place.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from smtpguard.policy.condition import NO, Condition, SomeWord, Word
from smtpguard.policy.facts import Value
from smtpguard.policy.rule import Rule


class _Slot:
    """The conditions on one slot."""

    def __init__(self) -> None:
        self.worded: dict[type, tuple[int, dict[str, int]]] = {}
        """By the type of value: the rules that ask for words, and those for each word."""
        self.others: dict[Hashable, tuple[Condition, int]] = {}

    def add(self, condition: Condition, bit: int) -> None:
        if isinstance(condition, Word | SomeWord):
            kind = str if isinstance(condition, Word) else frozenset
            all_, by_word = self.worded.get(kind, (0, {}))
            for word in condition.words:
                by_word[word] = by_word.get(word, 0) | bit
            self.worded[kind] = (all_ | bit, by_word)
            return
        first, bits = self.others.get(condition.sense, (condition, 0))
        self.others[condition.sense] = (first, bits | bit)

    def missed(self, value: Value) -> int:
        """The rules that surely miss with this value."""
        missed = 0
        worded = self.worded.get(type(value))
        if worded is not None:
            all_, by_word = worded
            for word in (value,) if isinstance(value, str) else value if isinstance(value, frozenset) else ():
                all_ &= ~by_word.get(word, 0)
            missed = all_
        for condition, bits in self.others.values():
            if condition.test(value) is NO:
                missed |= bits
        return missed


class RuleIndex:
    def __init__(self, rules: Sequence[Rule], slots: Sequence[str]) -> None:
        """``slots``: in the order of the values."""
        self._all = (1 << len(rules)) - 1
        made = {slot: _Slot() for slot in slots}
        for n, rule in enumerate(rules):
            for condition in rule.when:
                made[condition.slot].add(condition, 1 << n)
        self._slots = tuple(made.values())

    def left(self, values: Sequence[Value | None]) -> Iterator[int]:
        """The places of the rules that may hit, in order."""
        left = self._all
        for slot, value in zip(self._slots, values, strict=True):
            if value is not None and left:
                left &= ~slot.missed(value)
        while left:
            bit = left & -left
            yield bit.bit_length() - 1
            left ^= bit
