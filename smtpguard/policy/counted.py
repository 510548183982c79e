"""Facts that are counted over transactions: under which key each is counted, and what stands in for it meanwhile.

One table. A fact with a ``key`` is asked of the ledger (Ask) and answered in the admission (Live.counts). A fact without
one counts this message alone, and its reasons say so. Never here: the counting (store).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from smtpguard.policy.admission import Ask, Live
from smtpguard.policy.facts import Count, Facts, Unknown, Value

ALONE = "this message alone is counted"

Key = Callable[[Facts], "str | Unknown | None"]
"""The key of a count: None where it is not known yet, Unknown where it cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """``own``: what this message alone comes to, from its other facts. ``key``: None where only that is counted."""

    own: Callable[[Facts], Value | None]
    key: Key | None = None

    @property
    def note(self) -> str:
        return "" if self.key else ALONE


def _fact(name: str) -> Callable[[Facts], Value | None]:
    return lambda facts: facts.get(name)


def _sender(facts: Facts) -> str | Unknown | None:
    address = facts.get("sender.address")
    if address is None or isinstance(address, Unknown):
        return address
    return address if isinstance(address, str) and address else Unknown(why="the message names no sender")


def _one(facts: Facts) -> Value | None:
    return Count(1, 1)


COUNTED: Mapping[str, Counted] = {
    "mailing.customers": Counted(own=_fact("recipients.customers")),
    "mailing.reach": Counted(own=_fact("recipients.reach")),
    "mailing.share": Counted(own=_fact("recipients.share")),
    "thread.replies": Counted(own=_one),
    "sender.customers": Counted(own=_fact("recipients.customers"), key=_sender),
}
APPROVED = "mailing.approved"
"""The one live fact that is no count."""

NOTES: Mapping[str, str] = {name: counted.note for name, counted in COUNTED.items() if counted.note}


def ask(fact: str, window_seconds: int, facts: Facts) -> Ask | Value | None:
    """What to ask the ledger, or the value where it is known already. None: the key is not known yet."""
    counted = COUNTED.get(fact)
    if counted is None:
        return None
    if counted.key is None:
        own = counted.own(facts)
        return Unknown(why="it was not gathered") if own is None else own
    key = counted.key(facts)
    return Ask(fact=fact, key=key, window_seconds=window_seconds) if isinstance(key, str) else key


def answered(question: Ask, live: Live) -> Value:
    """The ledger's answer."""
    count = live.counts.get(question)
    return Unknown(why="the ledger did not count it") if count is None else Count(count, count)
