"""The classified recipients of one message, counted: the result of Registry.classify.

Counts are intervals, since without a usable index a recipient is zero or one customer.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from smtpguard.lists.expansions import Expansion
from smtpguard.mail.address import Address


class Span(NamedTuple):
    """At least ``low``, at most ``high``: with no usable index a recipient is nobody or one customer."""

    low: float
    high: float

    def __add__(self, other: object) -> Span:
        assert isinstance(other, Span)
        return Span(self.low + other.low, self.high + other.high)


NOBODY = Span(0, 0)
_NONE: frozenset[str] = frozenset()
ONE = Span(1, 1)


class Kind(enum.Enum):
    INTERNAL = "internal"
    LIST = "list"
    MEMBER = "member"
    OUTSIDE = "outside"


INTERNAL = frozenset({Kind.INTERNAL})
LIST = frozenset({Kind.LIST})
MEMBER = frozenset({Kind.MEMBER})
OUTSIDE = frozenset({Kind.OUTSIDE})
INTERNAL_MEMBER = frozenset({Kind.INTERNAL, Kind.MEMBER})
"""What ``kinds`` of a recipient may be, each one and the same object: to ask what is in it is what would take the time."""


class Classification(NamedTuple):
    """One recipient: a tuple, since one is made for each of a thousand. ``kinds`` has one, or both INTERNAL and MEMBER. ``lists``: that it addresses, or is known to be on.

    ``doubt``: lists that could not say whether it is on them. ``digest`` is empty for a list's address. ``behind``: who gets
    what is sent there, where it expands without being a list of the policy.
    """

    address: Address
    canonical: str
    kinds: frozenset[Kind]
    lists: tuple[str, ...] = ()
    doubt: tuple[str, ...] = ()
    digest: bytes = b""
    behind: Expansion | None = None

    @property
    def customers(self) -> int:
        """Customers whom it certainly reaches, those of the policy's own lists aside, of which Touched knows more."""
        return self.behind.customers if self.behind is not None else int(Kind.MEMBER in self.kinds)

    @property
    def perhaps(self) -> int:
        """Whom else it may reach who may be a customer."""
        if not self.doubt:
            return 0
        return self.behind.unplaced if self.behind is not None else int(Kind.MEMBER not in self.kinds)

    @property
    def kind(self) -> Kind:
        """The one word for it: what it is to a list comes first."""
        return next(k for k in (Kind.LIST, Kind.MEMBER, Kind.INTERNAL, Kind.OUTSIDE) if k in self.kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A list that a message reaches: by its address, or through members. ``size``: people on it. ``expanded``: through an address
    that is no list of the policy, and behind which many of its members stand."""

    name: str
    by_address: bool
    expanded: bool = False
    members: Span
    size: Span
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """The recipients of one message. ``total`` counts RCPTs, everything else distinct mailboxes or people.

    ``people``: digests of the single customers; ``doubtful``: of those who may be customers. ``unsure``: list -> why it
    could not answer, where that left somebody in doubt. ``crowds``: the customers behind addresses that expand, where they
    are too many to be among ``people``.
    """

    recipients: tuple[Classification, ...]
    total: int
    internal: Span
    outside: Span
    list_addresses: Span
    members: Span
    customers: Span
    reach: Span
    touched: Mapping[str, Touched]
    people: tuple[bytes, ...]
    doubtful: tuple[bytes, ...]
    unsure: Mapping[str, str]
    crowds: tuple[Expansion, ...] = ()

    @property
    def addressed(self) -> tuple[str, ...]:
        """Lists reached by their address, nested ones included, or by another that expands to their members; by name."""
        if not self.touched:
            return ()
        return tuple(sorted(t.name for t in self.touched.values() if t.by_address or t.expanded))

    @property
    def lists(self) -> frozenset[str]:
        """Lists certainly touched, by address or by a member."""
        if not self.touched:
            return _NONE
        return frozenset(t.name for t in self.touched.values() if t.by_address or t.members.low)
