"""The classified recipients of one message, counted: the result of Registry.classify, which sums up most of it.

Counts are intervals, since without a usable index a recipient is zero or one customer.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from smtpguard.mail.address import Address
from smtpguard.mail.constant import constant, maker

if TYPE_CHECKING:
    from smtpguard.lists.expansions import Expansion


class Count(NamedTuple):
    """A count of at least ``low`` and at most ``high``, both inclusive. A share is a count between 0 and 1.

    A tuple, since each message has a dozen, which are the keys of a cache.
    """

    low: float
    high: float

    @classmethod
    def exactly(cls, n: float) -> Count:
        return cls(n, n)

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def __add__(self, other: object) -> Count:
        assert isinstance(other, Count)
        return Count(self.low + other.low, self.high + other.high)

    def __str__(self) -> str:
        return f"{self.low:.12g}" if self.exact else f"{self.low:.12g} to {self.high:.12g}"


def share(some: Count, size: Count) -> Count:
    """Return which share of a list of this size some people are: up to all of a list of unknown size."""
    low = min(1.0, some.low / size.high) if size.high else 0.0
    most = min(1.0, some.high / size.low) if size.low else 1.0
    return Count(low, max(low, most if some.high else 0.0))


def largest(counts: Iterable[Count]) -> Count:
    """Return the largest of one or more counts."""
    low, high = zip(*counts, strict=True)
    return Count(max(low), max(high))


class _Exact(dict[int, Count]):
    def __missing__(self, n: int) -> Count:
        return Count(n, n)


EXACT = _Exact({n: Count(n, n) for n in range(101)})
"""Exact counts, the small ones shared."""
NOBODY, ONE = EXACT[0], EXACT[1]
_NONE: frozenset[str] = frozenset()


class Kind(enum.Enum):
    """The kind of a recipient."""

    INTERNAL = "internal"
    LIST = "list"
    MEMBER = "member"
    OUTSIDE = "outside"
    INTERNAL_MEMBER = "internal member"
    """A colleague who is on a list of customers; people are told that it is a member."""
    __hash__ = object.__hash__  # Enum's takes the name's, in Python

    @property
    def word(self) -> str:
        return "member" if self is Kind.INTERNAL_MEMBER else self.value


INTERNAL, LIST, MEMBER, OUTSIDE, INTERNAL_MEMBER = Kind
MEMBERS = MEMBER, INTERNAL_MEMBER


class Classification(NamedTuple):
    """One recipient, classified. A tuple, since a message may have a thousand.

    ``lists``: those that it addresses, or is known to be on. ``doubt``: lists whose membership could not be tested. ``digest``
    is empty for a list address. ``behind``: the people behind it, if it expands without being a list of the policy.
    """

    address: Address
    canonical: str
    kind: Kind
    lists: tuple[str, ...] = ()
    doubt: tuple[str, ...] = ()
    digest: bytes = b""
    behind: Expansion | None = None

    @property
    def customers(self) -> int:
        """The number of customers that it certainly reaches, without those of the policy's own lists, which Touched has."""
        return self.behind.customers if self.behind is not None else int(self.kind in MEMBERS)

    @property
    def perhaps(self) -> int:
        """The number of further people that it may reach who may be customers."""
        if not self.doubt:
            return 0
        return self.behind.unplaced if self.behind is not None else int(self.kind not in MEMBERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A list that a message reaches by its address or through members. ``size``: the number of people on it. ``expanded``: it is
    reached through an address that is no list of the policy, and that many of its members are behind."""

    name: str
    by_address: bool
    expanded: bool = False
    members: Count
    size: Count
    version: str


@constant
class Classified:
    """The recipients of one message, classified. ``total`` counts RCPTs, everything else distinct mailboxes or people.

    ``people``: the digests of the single customers; ``doubtful``: the digests of those who may be customers. ``unsure``: why a
    list could not answer, by list, if that left any recipient in doubt. ``crowds``: expansions whose customers are too many to
    be in ``people``. ``addressed``: lists reached by their address, nested ones included, or by another address that expands
    to their members, by name. ``lists``: lists certainly touched, by address or by a member.
    """

    recipients: tuple[Classification, ...]
    total: int
    internal: Count
    outside: Count
    list_addresses: Count
    members: Count
    customers: Count
    reach: Count
    touched: Mapping[str, Touched]
    people: tuple[bytes, ...]
    doubtful: tuple[bytes, ...]
    unsure: Mapping[str, str]
    crowds: tuple[Expansion, ...] = ()
    addressed: tuple[str, ...] = field(init=False, default=())
    lists: frozenset[str] = field(init=False, default=_NONE)

    def __post_init__(self) -> None:
        if touched := self.touched.values():
            by_address = sorted([t.name for t in touched if t.by_address or t.expanded])
            object.__setattr__(self, "addressed", tuple(by_address))
            object.__setattr__(self, "lists", frozenset([t.name for t in touched if t.by_address or t.members.low]))


new_classified = maker(Classified)
_NONE_TOUCHED: Mapping[str, Touched] = {}
_NONE_UNSURE: Mapping[str, str] = {}


def of_no_list(recipients: Sequence[Classification], distinct: Collection[Classification]) -> Classified | None:
    """Return the sum for nearly all mail, which touches no list; None if any recipient touches one, or may."""
    outside = 0
    for one in distinct:
        if one.lists or one.doubt or one.behind is not None:
            return None
        if one.kind is OUTSIDE:
            outside += 1
    return new_classified(
        recipients=tuple(recipients),
        total=len(recipients),
        internal=EXACT[len(distinct) - outside],
        outside=EXACT[outside],
        list_addresses=NOBODY,
        members=NOBODY,
        customers=NOBODY,
        reach=EXACT[len(distinct)],
        touched=_NONE_TOUCHED,
        people=(),
        doubtful=(),
        unsure=_NONE_UNSURE,
    )


def with_crowds(counted: Classified, crowds: Iterable[Classification]) -> Classified:
    """Return ``counted`` with the people behind addresses that expand without being lists of the policy.

    ``counted`` already has all of their lists among those it touches, and every list address among its own. A person both there
    and addressed singly may count twice, never not at all.
    """
    internal, outside, members = counted.internal, counted.outside, counted.members
    customers, reach = counted.customers, counted.reach
    touched = dict(counted.touched)
    people = list(counted.people)
    nameless: list[Expansion] = []
    for one in crowds:
        behind = one.behind
        assert behind is not None
        here = Count(one.customers, one.customers + one.perhaps)
        customers += here
        reach += Count(behind.people, behind.people)
        people += behind.members
        if len(behind.members) < behind.customers:
            nameless.append(behind)
        listed = one.kind is LIST
        if not listed:
            members += here
            internal += ONE if one.kind in (INTERNAL, INTERNAL_MEMBER) else NOBODY
            outside += Count(0 if one.doubt else 1, 1) if one.kind is OUTSIDE else NOBODY
        for name in {*behind.lists, *one.doubt}:
            surely = behind.lists.get(name, 0)
            most = surely + (behind.unplaced if name in one.doubt else 0)
            before = touched[name]
            touched[name] = replace(
                before,
                members=before.members + Count(surely, most),
                expanded=before.expanded or (listed and surely > 0),
            )
    return replace(
        counted,
        internal=internal,
        outside=outside,
        members=members,
        customers=customers,
        reach=reach,
        touched=touched,
        people=tuple(dict.fromkeys(people)),
        crowds=tuple(nameless),
    )
