"""Freezes: the messages that each stops, and the hit that one makes on a message that it stops, or may stop.

A freeze looks at the message, whatever the rules say; if it cannot be excluded that the freeze selects a message, the
message is stopped too. For a held message all is known, and ``stopped_by`` is the one answer to whether it may be
released now. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.mail.address import account_name
from smtpguard.policy.facts import Facts, Unknown
from smtpguard.policy.verdict import Action, Hit, Reason

FREEZE = "freeze"
"""The id of the hit of a freeze; no rule may have it."""
AIM = N_("A freeze is in force")

DEFERRED = Phrase("Mail is being stopped at the moment, and waits until people let it go on.")
HELD = Phrase(
    "Mail like this is being stopped at the moment. It waits until people decide on it, also when other mail goes on again."
)

ITSELF = "smtpguard"
"""The actor that lifts an expired freeze, and that freezes a store that was restored."""
PUT_BACK = N_("The store was put back to an earlier state: what was sent, decided or frozen since then is not in it.")
"""The reason of a freeze by the guard itself."""


class Selector(enum.Enum):
    """The kinds of freezes, by the messages that they stop."""

    ALL = "all"
    LIST = "list"
    SENDER = "sender"
    MAILING = "mailing"
    THREAD = "thread"


class Selectable(NamedTuple):
    """The properties by which a freeze selects a message, a hold or a mailing: the lists that it touches, its
    canonical senders and accounts, the mailing that it is a copy of (None: not known, so any) and its conversation,
    "" for none."""

    lists: frozenset[str] = frozenset()
    senders: frozenset[str] = frozenset()
    mailing: str | None = ""
    thread: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """One freeze; it stops mail until it is lifted, which happens by itself when ``until`` has come. ``value``: the list's
    name, the canonical sender, the mailing or the thread; "" for all. ``defers``: messages that it stops wait at their client, whatever the settings say, so that
    they need no later decision."""

    freeze_id: str
    selector: Selector
    value: str
    reason: Said
    by: str
    at: datetime
    until: datetime | None = None
    defers: bool = False

    @property
    def target(self) -> str:
        return "everything" if self.selector is Selector.ALL else f"the {self.selector.value} {self.value}"

    def in_words(self) -> str:
        """Return "everything (by root since 2026-03-02 09:05 UTC, until 2026-03-02 11:05 UTC: Wrong mail)", on one line that is safe
        on a terminal: an operator of the console writes the reason."""
        until = f", until {self.until:%Y-%m-%d %H:%M} UTC" if self.until is not None else ""
        said = f"{self.target} (by {self.by} since {self.at:%Y-%m-%d %H:%M} UTC{until}: {self.reason})"
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(said.split()))

    def stops(self, what: Selectable) -> bool:
        match self.selector:
            case Selector.ALL:
                return True
            case Selector.LIST:
                return self.value in what.lists
            case Selector.SENDER:
                account = account_name(self.value.rpartition("@")[0])
                return self.value in what.senders or account in what.senders
            case Selector.MAILING:
                return what.mailing is None or (bool(what.mailing) and self.value == what.mailing)
            case Selector.THREAD:
                return bool(what.thread) and self.value == what.thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The state that every process follows: ``generation`` grows with every freeze, thaw and change of policy."""

    generation: int
    policy_sha256: str
    freezes: tuple[Freeze, ...] = ()


_TOLD_BY = {Selector.SENDER: "sender.address", Selector.LIST: "recipients.lists", Selector.THREAD: "sender.address"}
"""The fact that is needed to know whether a freeze of that kind selects a message."""


def stopped_by(freezes: Iterable[Freeze], what: Selectable) -> tuple[Freeze, ...]:
    """Return the freezes that stop this. It is released when all of them are lifted."""
    return tuple(freeze for freeze in freezes if freeze.stops(what))


def freezes_mailings(freezes: Iterable[Freeze]) -> bool:
    return any(freeze.selector is Selector.MAILING for freeze in freezes)


def frozen(facts: Facts, freezes: Iterable[Freeze], answer: Action, *, mailing: str) -> tuple[Freeze, Hit] | None:
    """Return the first freeze that certainly or possibly selects it; the strictest first. ``mailing``: that it is a
    copy of. ``answer``: HOLD or DEFER, if the freeze itself does not say."""
    freezes = sorted(freezes, key=lambda freeze: not freeze.defers)
    if certain := stopped_by(freezes, Selectable(facts.lists, facts.senders, mailing, facts.thread)):
        return certain[0], _hit(certain[0], answer, uncertain=False)
    for freeze in freezes:
        if _may_stop(freeze, facts):
            return freeze, _hit(freeze, answer, uncertain=True)
    return None


def _may_stop(freeze: Freeze, facts: Facts) -> bool:
    name = _TOLD_BY.get(freeze.selector)
    return name is not None and (name not in facts.values or isinstance(facts.values[name], Unknown))


def _hit(freeze: Freeze, answer: Action, *, uncertain: bool) -> Hit:
    """Return the hit of a freeze. A message that it holds waits for people's decision; a thaw does not release it.
    They read the freeze's reason, if it certainly selects the message. A deferred one is retried by its client, whose
    identity is unproven, so its reply gives no reason."""
    answer = Action.DEFER if freeze.defers else answer
    what = " ".join(part for part in (freeze.selector.value, freeze.value) if part)
    # the observed value is chained for good, so a person's address is only in the detail
    named = freeze.selector is Selector.SENDER
    reason = Reason(
        fact=FREEZE,
        observed=freeze.selector.value if named else what,
        limit="",
        public=_held("" if uncertain else freeze.reason) if answer is Action.HOLD else DEFERRED,
        detail=f"frozen ({what}) by {freeze.by} at {freeze.at:%Y-%m-%d %H:%M} UTC: {freeze.reason}",
    )
    return Hit(rule=FREEZE, action=answer, description=Phrase(AIM), reasons=(reason,), uncertain=uncertain)


def _held(reason: Said) -> Phrase:
    if not reason.strip():
        return HELD
    given = reason if isinstance(reason, Phrase) else reason.strip().rstrip(".")
    return Phrase("{held} The reason given: {reason}.", held=HELD, reason=given)
