"""The recipients of a message as people to count: each by a keyed digest, a list address by the version of the list."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from smtpguard.lists.recipients import LIST, MEMBERS, Classification, Classified
from smtpguard.mail.constant import constant

if TYPE_CHECKING:
    from smtpguard.lists.registry import Registry


@constant
class Person:
    """One recipient as counts know it, by a keyed digest of 8 octets.

    ``lists``: those that it is on. ``doubt``: those that could not say whether it is, if it is on no other; then it may be a customer.
    ``weight``: the number of people behind a list address, at that ``version`` of its index. ``unbounded``: ``weight`` is the
    least number, since there is no index, or a stale one.
    """

    digest: bytes
    customer: bool = False
    lists: tuple[str, ...] = ()
    doubt: tuple[str, ...] = ()
    weight: int = 1
    version: str = ""
    unbounded: bool = False

    @property
    def several(self) -> bool:
        """Whether it may be more than one person."""
        return self.weight > 1 or bool(self.version) or self.unbounded


_NOW: Mapping[str, str] = {}
"""No earlier versions: each list counts at its version of today."""


def persons(counted: Classified, registry: Registry, versions: Mapping[str, str] = _NOW) -> tuple[Person, ...]:
    """Return the people behind all recipients, each once. ``versions``: as for ``behind``."""
    return each_once(person for one in counted.recipients for person in behind(one, counted, registry, versions))


def each_once(people: Iterable[Person]) -> tuple[Person, ...]:
    return tuple({person.digest: person for person in people}.values())


def behind(
    one: Classification, counted: Classified, registry: Registry, versions: Mapping[str, str] = _NOW
) -> Iterator[Person]:
    """Yield the people behind one recipient of ``counted``. A list address counts as the people on the list, at its version.

    ``versions``: for lists whose people were counted before, the version under which that was.
    """
    if one.behind is not None:
        yield from _crowd(one, registry)
    elif one.digest:
        member = one.kind in MEMBERS
        yield Person(digest=one.digest, customer=member, lists=one.lists, doubt=() if member else one.doubt)
    if one.kind is not LIST:
        return
    for name in registry.addressed(one):
        if (touched := counted.touched.get(name)) is None:
            continue  # another index was taken into use meanwhile
        info = registry.lists[name]
        version = versions.get(name, touched.version)
        digest = registry.digester.of_canonical(f"list {name} {version}")
        yield Person(digest=digest, customer=info.of_customers, lists=(name,), weight=max(1, int(touched.size.low)), version=version, unbounded=math.isinf(touched.size.high))  # fmt: skip


def as_journalled(everyone: Classified) -> dict[str, Any]:
    """Return the part of a verdict's entry that its people are counted by (journal.distinct).

    ``people`` has an element for each recipient, in order: the digest of a single person with the numbers of their lists
    ("?" if a list could not say), or what is behind an address that expands. ``crowds`` has the lists by name, in the order of
    those numbers: the version of the index, and the least and most people on it.
    """
    single = [one.digest.hex() for one in everyone.recipients if one.behind is None]
    if not everyone.touched and len(single) == len(everyone.recipients):  # as with nearly all mail
        return {"people": single}
    crowds = {
        name: [one.version, int(one.size.low), None if math.isinf(one.size.high) else int(one.size.high)]
        for name, one in everyone.touched.items()
    }
    numbers = {name: n for n, name in enumerate(sorted(crowds))}
    whole = {name for name, one in everyone.touched.items() if one.by_address}
    people: list[str | dict[str, Any]] = []
    for one in everyone.recipients:
        behind = one.behind
        if expands(one):
            lists = [numbers[name] for name in one.lists if name in whole]
            beside = {} if behind is None else {"behind": behind.key.hex(), "people": behind.people}
            people.append({"lists": lists, **beside})
        else:
            on = [str(numbers[name]) for name in one.lists if name in numbers]
            people.append(" ".join([one.digest.hex(), *on, *(["?"] if one.doubt else [])]))
    return {"people": people} | ({"crowds": crowds} if crowds else {})


def expands(one: Classification) -> bool:
    """Return whether a recipient is not one person: a list's address, or another that expands."""
    return one.kind is LIST or (one.behind is not None and one.behind.people != 1)


def _crowd(one: Classification, registry: Registry) -> Iterator[Person]:
    """Yield the people behind an address that expands: known customers one by one, and the others as one weight."""
    behind = one.behind
    assert behind is not None
    for member in behind.members:
        yield Person(digest=member, customer=True, lists=registry.members.names_with(int.from_bytes(member, "big")))
    if not behind.members and behind.customers:
        yield Person(digest=behind.key, customer=True, lists=tuple(behind.lists), weight=behind.customers)
    if behind.people > behind.customers:
        others = registry.digester.of_canonical(f"others behind {behind.key.hex()}")
        yield Person(digest=others, doubt=one.doubt if one.perhaps else (), weight=behind.people - behind.customers)
