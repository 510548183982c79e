"""Sum the recipients of one message: how many people of each kind, each counted once, and which lists."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from smtpguard.lists.declared import ListInfo
from smtpguard.lists.expansions import Expansion
from smtpguard.lists.indexcache import IndexStatus, State
from smtpguard.lists.recipients import (
    INTERNAL,
    INTERNAL_MEMBER,
    LIST,
    NOBODY,
    ONE,
    OUTSIDE,
    Classification,
    Classified,
    Count,
    Kind,
    Touched,
)


def summed(
    recipients: Sequence[Classification],
    distinct: Iterable[Classification],
    *,
    lists: Mapping[str, ListInfo],
    statuses: Mapping[str, IndexStatus],
    nested: Mapping[str, frozenset[str]],
    blind: Sequence[str],
) -> Classified:
    """``recipients``: one for each RCPT; ``distinct``: each of their mailboxes once. ``nested``: the lists that each
    list's address reaches; ``blind``: lists without a usable index."""
    internal = outside = list_addresses = 0
    addressed: set[str] = set()
    people: list[Classification] = []
    known: list[Classification] = []  # certain customers; then possible ones
    doubtful: list[Classification] = []
    surely: dict[str, int] = {}
    perhaps: dict[str, int] = {}
    crowds: list[Classification] = []
    for one in distinct:
        kinds = one.kinds  # one of a few objects: testing for membership is what takes time
        if one.behind is not None:
            crowds.append(one)
            for name in one.lists:
                surely.setdefault(name, 0)
            for name in one.doubt:
                perhaps.setdefault(name, 0)
            if kinds is LIST:
                list_addresses += 1
                addressed.update(n for name in one.behind.addressed for n in nested.get(name, ()))
            continue
        if kinds is LIST:
            list_addresses += 1
            addressed.update(one.lists)
            continue
        people.append(one)
        if kinds is INTERNAL or kinds is INTERNAL_MEMBER:
            internal += 1
        if one.lists:
            known.append(one)
            for name in one.lists:
                surely[name] = surely.get(name, 0) + 1
        elif one.doubt:
            doubtful.append(one)
        elif kinds is OUTSIDE:
            outside += 1
        for name in one.doubt:
            perhaps[name] = perhaps.get(name, 0) + 1
    touched: dict[str, Touched] = {}
    for n in sorted({*addressed, *surely, *perhaps}):
        certain = surely.get(n, 0)
        members = Count(certain, certain + perhaps.get(n, 0))
        touched[n] = _touched(lists[n], statuses[n], n in addressed, members)
    # A member of an addressed list is counted there, once.
    there = sum(not addressed.isdisjoint(one.lists) for one in known) if addressed else 0
    beside, single, unsure = len(people) - there, len(known) - there, len(doubtful)
    customers, reach = Count(single, single + unsure), Count(beside, beside)
    for name in addressed:
        reach += touched[name].size
        customers += touched[name].size if lists[name].of_customers else NOBODY
    counted = Classified(
        recipients=tuple(recipients),
        total=len(recipients),
        internal=Count(internal, internal),
        outside=Count(outside, outside + unsure),
        list_addresses=Count(list_addresses, list_addresses),
        members=Count(len(known), len(known) + unsure),
        customers=customers,
        reach=reach,
        touched=touched,
        people=tuple([one.digest for one in known]) if known else (),
        doubtful=tuple([one.digest for one in doubtful]) if doubtful else (),
        unsure={n: statuses[n].why for n in blind if n in touched} if touched else {},
    )
    return with_crowds(counted, crowds) if crowds else counted


def _touched(info: ListInfo, status: IndexStatus, by_address: bool, members: Count) -> Touched:
    index = status.index
    if index is None:
        size = Count(info.at_least, math.inf)
    else:
        size = Count(index.people, index.people if status.state is State.READY else math.inf)
    return Touched(
        name=info.name, by_address=by_address, members=members, size=size, version=index.version if index else ""
    )


# Add the people behind addresses that expand without being lists of the policy.
#
# A person both there and addressed singly may count twice, never not at all.


def with_crowds(counted: Classified, crowds: Iterable[Classification]) -> Classified:
    """``counted`` already has all of their lists among those it touches, and every list address among its own."""
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
        listed = Kind.LIST in one.kinds
        if not listed:
            members += here
            internal += ONE if Kind.INTERNAL in one.kinds else Count(0, 0)
            outside += Count(0 if one.doubt else 1, 1) if Kind.OUTSIDE in one.kinds else Count(0, 0)
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
