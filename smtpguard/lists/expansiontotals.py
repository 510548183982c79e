"""The people behind addresses that expand without being lists of the policy, added to what a message reaches.

Where somebody is both there and addressed alone, it may count too many, never too few.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from smtpguard.lists.expansions import Expansion
from smtpguard.lists.recipients import ONE, Classification, Classified, Kind, Span


def with_crowds(counted: Classified, crowds: Iterable[Classification]) -> Classified:
    """``counted`` has every list of theirs among those it touches, and every address that is a list among its own."""
    internal, outside, members = counted.internal, counted.outside, counted.members
    customers, reach = counted.customers, counted.reach
    touched = dict(counted.touched)
    people = list(counted.people)
    nameless: list[Expansion] = []
    for one in crowds:
        behind = one.behind
        assert behind is not None
        here = Span(one.customers, one.customers + one.perhaps)
        customers += here
        reach += Span(behind.people, behind.people)
        people += behind.members
        if len(behind.members) < behind.customers:
            nameless.append(behind)
        listed = Kind.LIST in one.kinds
        if not listed:
            members += here
            internal += ONE if Kind.INTERNAL in one.kinds else Span(0, 0)
            outside += Span(0 if one.doubt else 1, 1) if Kind.OUTSIDE in one.kinds else Span(0, 0)
        for name in {*behind.lists, *one.doubt}:
            surely = behind.lists.get(name, 0)
            most = surely + (behind.unplaced if name in one.doubt else 0)
            before = touched[name]
            touched[name] = replace(
                before,
                members=before.members + Span(surely, most),
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
