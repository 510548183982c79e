"""A verdict's entry in the journal, as one that went before: what was done with the message, and what it is.

Pure, and total for entries of every version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from smtpguard.admission.recordedfacts import FACTS
from smtpguard.journal.chain import Clear, Entry, instant, parsed
from smtpguard.mail.address import Address, BadAddress
from smtpguard.policy.counted import DAY
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.rule import COPIES, FIXED
from smtpguard.policy.verdict import Action

_ACTIONS = {action.word: action for action in Action}
_DAY = DAY * 1_000_000


class Passed:
    """One verdict. ``clear``: what names people, None where it is erased."""

    def __init__(self, entry: Entry, clear: Clear | None) -> None:
        content = parsed(entry.body)
        self.id, self.at = entry.id, entry.at
        self.data: Mapping[str, Any] = content["data"]
        self.sealed: Mapping[str, Sequence[str]] = content["private"]
        self.clear = clear
        self.facts: Mapping[str, Any] | None = self.data.get(FACTS)
        """What was kept beside its counts; None of an entry from before that."""

    # what was done

    @property
    def time(self) -> datetime:
        return instant(self.at)

    @property
    def policy(self) -> str:
        """Its SHA-256."""
        return self.data.get("policy") or ""

    @property
    def decided(self) -> bool:
        """Whether rules decided on it. What failed inside the guard has an entry too."""
        return "counts" in self.data

    @property
    def again(self) -> bool:
        """Whether it was held before, and its client has only asked once more."""
        return bool(self.data.get("retry"))

    @property
    def action(self) -> Action:
        """Of a mailing of which enough is stored the rest waits at its client: that is held all the same."""
        return Action.HOLD if COPIES in self.enforced else _ACTIONS[self.data["action"]]

    @property
    def counted(self) -> bool:
        """Whether it was counted in what is counted over time."""
        return _ACTIONS[self.data["action"]] <= Action.HOLD

    @cached_property
    def enforced(self) -> frozenset[str]:
        return frozenset(self.data.get("rules", ()))

    @cached_property
    def approved(self) -> frozenset[str]:
        """The rules that hit, and on which people had decided."""
        return frozenset(self.data.get("approved", ()))

    @cached_property
    def observed(self) -> frozenset[str]:
        return frozenset(self.data.get("observed", ()))

    @cached_property
    def hits(self) -> frozenset[str]:
        return self.enforced | self.approved | self.observed

    @cached_property
    def own(self) -> frozenset[str]:
        """Of those that were enforced, or approved, the policy's own."""
        return (self.enforced | self.approved) - FIXED - {FREEZE}

    @cached_property
    def uncertain(self) -> frozenset[str]:
        """The rules that took effect since something was not known."""
        return frozenset(r["rule"] for r in self.data.get("reasons", ()) if r.get("uncertain"))

    # what it is

    @property
    def mailing(self) -> str:
        return self.data.get("mailing") or ""

    def stood(self, name: str) -> bool | None:
        """Of what people had decided about its mailing, or were to decide: WAITING, REJECTED or APPROVED. None: not kept."""
        if not self.mailing:
            return False
        return None if self.facts is None else bool(self.facts.get(name))

    @property
    def lists(self) -> frozenset[str]:
        return frozenset(self.data.get("lists", ()))

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.data.get("streams", ()))

    @property
    def total(self) -> int:
        return int(self.data["counts"]["total"])

    @property
    def writer(self) -> str:
        """Who claims to have written it, as a key for counts: the keyed digest in the chain."""
        return next(iter(self.sealed.get("from", ())), "")

    def names(self, role: str) -> Sequence[str]:
        """In clear, as far as that is still there."""
        return (self.clear or {}).get(role, ())

    @cached_property
    def author(self) -> Address | None:
        """Who claims to have written it."""
        return next(iter(_addresses(self.names("from"))), None)

    @cached_property
    def recipients(self) -> Sequence[Address] | None:
        """All of them, where they are still known by name."""
        found = _addresses(self.names("recipients"))
        return found if len(found) == self.total else None


class Sums:
    """For entries without facts: how many customers the mailings of late have come to at most, added up from their entries. Of two
    days, whatever of the first has left the window."""

    def __init__(self) -> None:
        self._today: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._since = 0

    def add(self, mailing: str, customers: float, at: int) -> float:
        """Of one more message of it. Returns what it comes to with this one; entries are given in order, from a day before the first
        that is asked about."""
        if at - self._since >= _DAY:
            self._before = self._today if at - self._since < 2 * _DAY else {}
            self._today, self._since = {}, at
        self._today[mailing] = self._today.get(mailing, 0) + customers
        return self._today[mailing] + self._before.get(mailing, 0)


def _addresses(texts: Iterable[str]) -> list[Address]:
    found = []
    for text in texts:
        try:
            found.append(Address.parse(text))
        except BadAddress:
            continue
    return found
