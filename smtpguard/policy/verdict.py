"""Verdicts (what was decided) and dispositions (what was done). Every reason gives the rule, the observed value and the
limit.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from operator import attrgetter

from smtpguard.locale.phrase import Said
from smtpguard.mail.constant import constant
from smtpguard.mail.envelope import Recipient
from smtpguard.mail.reply import Reply

_code = attrgetter("code")


class Action(enum.Enum):
    """The decision on a message, ordered by strictness, as listed here: the strictest wins. DEFER is for doubt and
    freezes. The values are those that stores have kept since before CONFIRM existed."""

    RELAY = 0
    CONFIRM = 4  # it waits, and its writer is asked
    HOLD = 1
    DEFER = 2
    REJECT = 3

    __hash__ = object.__hash__  # Enum's takes the name's, in Python
    word: str
    waits: bool
    """Whether the message is accepted and waits here for a person, its writer or another."""

    def __init__(self, _: int) -> None:
        self.word = self._name_.lower()
        self.waits = self._name_ in ("CONFIRM", "HOLD")

    def __lt__(self, other: Action) -> bool:
        return _STRICTNESS[self] < _STRICTNESS[other]

    def __le__(self, other: Action) -> bool:
        return _STRICTNESS[self] <= _STRICTNESS[other]

    def __gt__(self, other: Action) -> bool:
        return _STRICTNESS[self] > _STRICTNESS[other]

    def __ge__(self, other: Action) -> bool:
        return _STRICTNESS[self] >= _STRICTNESS[other]


_STRICTNESS = {action: n for n, action in enumerate(Action)}


class Mode(enum.Enum):
    ENFORCE = "enforce"
    OBSERVE = "observe"
    APPROVED = "approved"  # it hit, and people have decided on it


class Scope(enum.Enum):
    """The part of a message that a hold takes: all of it, or only the customers' part while the colleagues' part is
    relayed."""

    ALL = "all"
    CUSTOMERS = "customers"


@constant
class Reason:
    """The reason for the answer of one condition.

    ``public`` is a sentence for the sender (never names a special category in connection with single members);
    ``detail`` is for the journal, operators and approvers.
    """

    fact: str
    observed: str
    limit: str
    public: Said
    detail: Said = ""


@constant
class Hit:
    """A rule that took effect, or would have (observe). ``uncertain``: because a fact was unknown."""

    rule: str
    action: Action
    mode: Mode = Mode.ENFORCE
    description: Said = ""
    scope: Scope = Scope.ALL
    reasons: tuple[Reason, ...] = ()
    uncertain: bool = False
    explain: bool = False  # explain a rejection to an internal sender, as a notice would


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    rule: str
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quorum:
    """Who must approve: ``each`` distinct people of every group in ``groups``. ``out_of_hours`` replaces it outside
    working hours."""

    groups: tuple[str, ...]
    each: int = 1
    out_of_hours: Quorum | None = None
    list: str | None = None

    def __str__(self) -> str:
        """ "1 of communications and 1 of compliance", in working hours."""
        return " and ".join(f"{self.each} of {group}" for group in self.groups)

    @property
    def all_groups(self) -> frozenset[str]:
        """Return the groups for working hours and for others."""
        late = self.out_of_hours.all_groups if self.out_of_hours is not None else frozenset()
        return frozenset(self.groups) | late


@constant
class Verdict:
    """A verdict. ``action``: the decision; ``observed``: the strictest action of observing rules.

    ``unknown`` maps a fact to the reason. ``quorum``: all of them must be satisfied to release a hold.
    """

    action: Action
    hits: tuple[Hit, ...] = ()
    misses: tuple[Miss, ...] = ()
    skipped: tuple[str, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()
    policy_sha256: str = ""
    quorum: tuple[Quorum, ...] = ()
    observed: Action = Action.RELAY
    freeze_id: str | None = None

    @property
    def scope(self) -> Scope:
        """Return the scope: CUSTOMERS only if every enforcing hit says so."""
        scopes = {h.scope for h in self.hits if h.mode is Mode.ENFORCE}
        return Scope.CUSTOMERS if scopes == {Scope.CUSTOMERS} else Scope.ALL

    @property
    def all_groups(self) -> frozenset[str]:
        """Return the groups of all its quorums, for working hours and for others."""
        return frozenset().union(*(quorum.all_groups for quorum in self.quorum))


@constant
class Relayed:
    """The relay's own replies to the message: one over SMTP."""

    replies: tuple[Reply, ...]

    @property
    def code(self) -> int:
        """Return the best of the reply codes; 500 if there is none."""
        return min(map(_code, self.replies), default=500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The message waits. ``taken``: the recipients that wait, if the wire itself passes the message on to the rest;
    empty for all, or if the outbox does. ``released``: it was sent already; its client tries again."""

    hold_id: str
    taken: tuple[Recipient, ...] = ()
    released: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Mail to the guard itself was taken: a vote by mail, or a return."""

    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """The message is deferred. ``undecided``: there is no verdict, and so no entry of the journal."""

    reply: Reply
    undecided: bool = field(default=False)


Disposition = Relayed | Held | Taken | Rejected | Deferred
