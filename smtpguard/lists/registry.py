"""Classify the recipients of a message (internal, a list, a member, outside), and sum them up: how many people of each kind, each
counted once, and which lists.

The Registry has the organization, lists, streams and expanders of one process, with their indexes. Every spelling of a
mailbox finds its list (mail.address).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from smtpguard.lists.declared import PEOPLE, ListInfo, Stream
from smtpguard.lists.digest import Digester, person
from smtpguard.lists.expansions import Expansion, Expansions, moved
from smtpguard.lists.index import Index, IndexGroup, IndexStatus, OpenIndexes, State
from smtpguard.lists.names import Names, split
from smtpguard.lists.recipients import (
    INTERNAL,
    INTERNAL_MEMBER,
    LIST,
    MEMBER,
    NOBODY,
    OUTSIDE,
    Classification,
    Classified,
    Count,
    Kind,
    Touched,
    new_classified,
    of_no_list,
    with_crowds,
)
from smtpguard.mail.address import Address
from smtpguard.mail.constant import changed
from smtpguard.mail.envelope import Network, within

_NONE: frozenset[str] = frozenset()
_MOST_ALIKE = 1024
"""The most sums for one recipient that are cached."""
AT_ONCE = 50
"""The most lists that are checked for new indexes before a message is decided, so that no message waits for hundreds."""
_classification = partial(tuple.__new__, Classification)  # its own is in Python


def _touched(info: ListInfo, status: IndexStatus, by_address: bool, members: Count) -> Touched:
    index = status.index
    if index is None:
        size = Count(info.at_least, math.inf)
    else:
        size = Count(index.people, index.people if status.state is State.READY else math.inf)
    return Touched(
        name=info.name, by_address=by_address, members=members, size=size, version=index.version if index else ""
    )


class Registry:
    """All lists, in one process. It checks at most once in ``look_seconds`` whether an index was replaced or has become stale."""

    def __init__(
        self,
        *,
        names: Names,
        lists: Mapping[str, ListInfo],
        streams: Mapping[str, Stream] | None = None,
        digester: Digester,
        folder: Path,
        now: Callable[[], datetime],
        expanders: Iterable[Network] = (),
        expansions: bool = False,
        customers_here: bool = True,
        people: Iterable[str] = (),
        look_seconds: float = 1.0,
    ) -> None:
        """``expansions``: whether the policy declares what else expands. ``customers_here``: whether customers have addresses in
        the domains; else a colleague on a list is only a colleague. ``people``: canonical addresses outside that are colleagues
        among recipients, beside those of the list PEOPLE."""
        self.lists = dict(lists)
        self.streams = dict(streams or {})
        declaring: tuple[ListInfo | Stream, ...] = (*self.lists.values(), *self.streams.values())
        self.origins = tuple(dict.fromkeys(one.origin for one in declaring if one.origin.declared))
        """Every declared origin once. Each message is compared with all of them, and hundreds of lists may share one."""
        self._streams_from: dict[str, tuple[Stream, ...]] = {}
        for stream in self.streams.values():
            for sender in stream.senders:
                self._streams_from[sender] = (*self._streams_from.get(sender, ()), stream)
        self.digester, self.customers_here = digester, customers_here
        self.expanders = tuple(expanders)
        self._now = now
        self._look = timedelta(seconds=look_seconds)
        self.names = names
        self._list_ids = {list_id.lower(): info.name for info in self.lists.values() for list_id in info.list_ids}
        self._indexes = OpenIndexes(folder, *digester.key_ids)
        self.expansions = Expansions(folder, *digester.key_ids) if expansions else None
        self._nested: dict[str, frozenset[str]] = {}
        self._alike: dict[tuple[Kind, tuple[str, ...], tuple[str, ...]], Classified] = {}
        """Sums for one recipient, by kind and lists."""
        self.members = IndexGroup(())
        self._blind: tuple[str, ...] = ()
        self._looked = self._next_look = now()
        self._ours = frozenset(int.from_bytes(digester.of_canonical(person(one)), "big") for one in people)
        self._people = bool(self._ours) or PEOPLE in self.lists
        """Whether anybody outside is a colleague."""
        self._order, self._at = tuple(self.lists.values()), 0
        self._digests = [
            (self.digester.of(Address(*split(canonical))), inner) for canonical, inner in self.names.enumerated()
        ]
        self._holding: dict[str, tuple[Index | None, frozenset[str]]] = {}
        """For each list, the lists whose addresses are members of it, by this index."""
        self.reopen()

    def reopen(self) -> bool:
        """Take replaced indexes into use and find stale ones. Return whether anything has changed."""
        return self._look_at(self._order)

    def _glance(self) -> None:
        """Reopen the indexes of the next lists, AT_ONCE at a time."""
        self._look_at(self._order[self._at : self._at + AT_ONCE])
        self._at = self._at + AT_ONCE if self._at + AT_ONCE < len(self._order) else 0

    def _look_at(self, some: Iterable[ListInfo]) -> bool:
        now = self._looked = self._now()
        self._next_look = now + self._look
        changed = self._indexes.look(some, now)
        if changed or not self._nested:
            indexes = {n: s.index for n, s in self.statuses.items() if s.index is not None}
            self.members = IndexGroup((n, i) for n, i in indexes.items() if self.lists[n].of_customers)
            self._blind = tuple(
                n for n, s in self.statuses.items()
                if s.state in (State.STALE, State.MISSING) and self.lists[n].of_customers
            )  # fmt: skip
            self._nested = self._nest()
            self._alike.clear()
        return (self.expansions is not None and self.expansions.look()) or changed

    @property
    def statuses(self) -> Mapping[str, IndexStatus]:
        return self._indexes.statuses

    def classify(self, addresses: Iterable[Address]) -> Classified:
        """Classify the recipients of a message. No address and no state of an index makes it raise."""
        if not self._looked <= self._now() < self._next_look:  # also after a clock was set back
            self._glance()
        seen: dict[str, Classification] = {}
        recipients = []
        delimiters, list_at = self.digester.delimiters, self.names.list_at
        moves = self.expansions.domains if self.expansions is not None else None
        for address in addresses:
            mailbox, canonical = address, address.canonical(delimiters)
            if moves:  # its domain may be an alias of another: it is the mailbox there
                local, domain = split(canonical)
                mailbox = Address(local, moved(domain, moves))
                canonical = mailbox.canonical(delimiters)
            name = list_at(mailbox, canonical)
            key = f"list:{name}:{canonical}" if name else person(canonical)
            found = seen.get(key)
            if found is None:
                found = self._of_list(mailbox, canonical, name) if name else self._of_person(mailbox, canonical, key)
                if moves:
                    found = found._replace(address=address, canonical=address.canonical(delimiters))
                seen[key] = found
            recipients.append(found)
        if (nobody := of_no_list(recipients, seen.values())) is not None:
            return nobody
        if len(recipients) == 1 and recipients[0].behind is None:  # as a copy of a mailing has
            return self._of_one(recipients[0])
        return self._summed(recipients, seen.values())

    def _of_one(self, one: Classification) -> Classified:
        """Return the sum for one recipient: that of another with the same lists, until an index changes."""
        alike = one.kind, one.lists, one.doubt
        known = self._alike.get(alike)
        if known is None:
            if len(self._alike) >= _MOST_ALIKE:
                self._alike.clear()
            known = self._alike[alike] = self._summed((one,), (one,))
        person = (one.digest,)
        return changed(
            known,
            recipients=(one,),
            people=person if known.people else (),
            doubtful=person if known.doubtful else (),
        )

    def of_lists(self, names: Iterable[str]) -> Classified:
        """Return the result for a message to all members of these lists, whether they have an address or not."""
        infos = [self.lists[name] for name in names]
        found = [self._of_list(a := self.address_of(i), a.canonical(self.digester.delimiters), i.name) for i in infos]
        return self._summed(found, found)

    def _summed(self, recipients: Sequence[Classification], distinct: Collection[Classification]) -> Classified:
        """Sum recipients up. ``recipients``: one for each RCPT; ``distinct``: each of their mailboxes once."""
        statuses = self.statuses
        internal = outside = list_addresses = 0
        addressed: set[str] = set()
        people: list[Classification] = []
        known: list[Classification] = []  # certain customers; then possible ones
        doubtful: list[Classification] = []
        surely: dict[str, int] = {}
        perhaps: dict[str, int] = {}
        crowds: list[Classification] = []
        for one in distinct:
            if one.behind is not None:
                crowds.append(one)
                for name in one.lists:
                    surely.setdefault(name, 0)
                for name in one.doubt:
                    perhaps.setdefault(name, 0)
                if one.kind is LIST:
                    list_addresses += 1
                    addressed.update(self.addressed(one))
                continue
            if one.kind is LIST:
                list_addresses += 1
                addressed.update(one.lists)
                continue
            people.append(one)
            if one.kind is INTERNAL or one.kind is INTERNAL_MEMBER:
                internal += 1
            if one.lists:
                known.append(one)
                for name in one.lists:
                    surely[name] = surely.get(name, 0) + 1
            elif one.doubt:
                doubtful.append(one)
            elif one.kind is OUTSIDE:
                outside += 1
            for name in one.doubt:
                perhaps[name] = perhaps.get(name, 0) + 1
        touched: dict[str, Touched] = {}
        for n in sorted({*addressed, *surely, *perhaps}):
            certain = surely.get(n, 0)
            members = Count(certain, certain + perhaps.get(n, 0))
            touched[n] = _touched(self.lists[n], statuses[n], n in addressed, members)
        # A member of an addressed list is counted there, once.
        there = sum(not addressed.isdisjoint(one.lists) for one in known) if addressed else 0
        beside, single, unsure = len(people) - there, len(known) - there, len(doubtful)
        customers, reach = Count(single, single + unsure), Count(beside, beside)
        for name in addressed:
            reach += touched[name].size
            customers += touched[name].size if self.lists[name].of_customers else NOBODY
        counted = new_classified(
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
            unsure={n: statuses[n].why for n in self._blind if n in touched} if touched else {},
        )
        return with_crowds(counted, crowds) if crowds else counted

    def addressed(self, one: Classification) -> Iterable[str]:
        """Return the lists that a list address reaches by their own address, nested ones included."""
        if one.behind is None:
            return one.lists
        return sorted({n for name in one.behind.addressed for n in self._nested.get(name, ())})

    @staticmethod
    def address_of(info: ListInfo) -> Address:
        """Return a list's first address; for a list without one, a reserved name (RFC 2606)."""
        return info.addresses[0] if info.addresses else Address(info.name, "lists.invalid")

    def numbers(self) -> dict[int, str]:
        """Return the digests of all lists' addresses, as integers, each with the name of its list."""
        return {int.from_bytes(digest, "big"): name for digest, name in self._digests}

    def list_at(self, address: Address) -> ListInfo | None:
        name = self.names.list_at(address, address.canonical(self.digester.delimiters))
        return self.lists[name] if name else None

    def lists_behind(self, address: Address, canonical: str) -> tuple[str, ...]:
        """Return the lists of customers that get what is sent to this address."""
        if self.expansions is not None:
            [one] = self.classify([address]).recipients
            reached: Iterable[str] = (*one.lists, *one.doubt) if one.kind is LIST else ()
        else:
            name = self.names.list_at(address, canonical)
            reached = self._nested[name] if name else ()
        return tuple([name for name in sorted(reached) if self.lists[name].of_customers]) if reached else ()

    def list_with_id(self, list_id: str) -> ListInfo | None:
        """Return the list of a List-Id (RFC 2919), of which ``list_id`` is the part in angle brackets."""
        name = self._list_ids.get(list_id.strip().lower())
        return self.lists[name] if name else None

    def is_one_of_ours(self, number: int) -> bool:
        """Return whether a person outside, by digest, counts as a colleague among recipients. They are not internal as
        senders."""
        if number in self._ours:
            return True
        status = self.statuses.get(PEOPLE)
        return status is not None and status.index is not None and status.index.has(number)

    def is_expander(self, client_ip: str) -> bool:
        """Return whether this client sends us copies that a list server has expanded."""
        return within(client_ip, self.expanders)

    def streams_from(self, canonical: str) -> tuple[Stream, ...]:
        """Return the streams that this From may write. Their origin is not proven here."""
        return self._streams_from.get(canonical, ())

    def _of_list(self, address: Address, canonical: str, name: str) -> Classification:
        return Classification(address, canonical, LIST, tuple(sorted(self._nested[name])))

    def _of_person(self, address: Address, canonical: str, who: str) -> Classification:
        """Classify the address of a person. ``who``: the one spelling of the person."""
        digest = self.digester.of_person(who)
        if self.expansions is not None and (behind := self._behind(address, digest, canonical)) is not None:
            return self._of_crowd(address, canonical, digest, behind)
        ours = self.names.is_ours(address.domain if address.plain else canonical.rpartition("@")[2])
        if ours and not self.customers_here:
            return Classification(address, canonical, INTERNAL, (), (), digest)
        number = int.from_bytes(digest, "big")
        if not ours and self._people and self.is_one_of_ours(number):
            return Classification(address, canonical, INTERNAL, (), (), digest)
        lists = self.members.names_with(number)
        if who != canonical:  # an index may still have the older form
            before = self.members.names_with(int.from_bytes(self.digester.of_person(canonical), "big"))
            lists = tuple(dict.fromkeys((*lists, *before))) if before else lists
        if ours:
            # A colleague who may be on a list without an index is a colleague: reaching one harms no customer.
            return _classification(
                (address, canonical, INTERNAL_MEMBER if lists else INTERNAL, lists, (), digest, None)
            )
        doubt = tuple([n for n in self._blind if n not in lists]) if self._blind else ()
        return _classification((address, canonical, MEMBER if lists else OUTSIDE, lists, doubt, digest, None))

    def _behind(self, address: Address, digest: bytes, canonical: str) -> Expansion | None:
        """Return the people behind an address, if it expands; its domain may have a catch-all."""
        found = self._expanding(digest, canonical)
        if found is None:
            for inner in self.names.routed_to(address):
                there = inner.canonical(self.digester.delimiters)
                if (found := self._expanding(self.digester.of_canonical(there), there)) is not None:
                    break
        return found

    def _expanding(self, digest: bytes, canonical: str) -> Expansion | None:
        assert self.expansions is not None
        found = self.expansions.known.get(int.from_bytes(digest, "big"))
        if found is None and self.names.answers(canonical.rpartition("@")[2]) and not self.names.is_apart(canonical):
            namesake = self.digester.of_canonical(canonical.rpartition("@")[0] + "@")
            found = self.expansions.namesake(int.from_bytes(namesake, "big"))
        if found is None and self.expansions.catches:
            everybody = self.digester.of_canonical("@" + canonical.rpartition("@")[2])
            found = self.expansions.known.get(int.from_bytes(everybody, "big"))
        return found

    def _of_crowd(self, address: Address, canonical: str, digest: bytes, behind: Expansion) -> Classification:
        """Classify an address that expands. With many customers behind it it is a list; few of them count as if they were addressed
        themselves."""
        lists = tuple(behind.lists)
        if behind.is_list:
            reached = {n for name in behind.addressed for n in self._nested.get(name, ())}
            return Classification(address, canonical, LIST, tuple(sorted({*lists, *reached})), self._blind, b"", behind)
        alone = behind.members[0] if len(behind.members) == 1 else digest
        if self.names.is_ours(canonical.rpartition("@")[2]):
            kind = INTERNAL_MEMBER if lists else INTERNAL
        else:
            kind = MEMBER if lists else OUTSIDE
        return Classification(address, canonical, kind, lists, self._blind if behind.unplaced else (), alone, behind)

    def _nest(self) -> dict[str, frozenset[str]]:
        """Return the lists that each list's address reaches, at any depth: itself, the lists that it is declared to include, and
        every list whose address is a member."""
        holds: dict[str, frozenset[str]] = {}
        for outer, status in self.statuses.items():
            index = status.index
            before = self._holding.get(outer)
            if before is None or before[0] is not index:
                on_it = (
                    frozenset(inner for digest, inner in self._digests if digest in index)
                    if index is not None
                    else _NONE
                )
                before = self._holding[outer] = index, on_it
            holds[outer] = before[1] | self.lists[outer].includes
        nested = {}
        for name in self.lists:
            reached, ahead = {name}, [name]
            while ahead:
                for inner in holds[ahead.pop()] - reached:
                    reached.add(inner)
                    ahead.append(inner)
            nested[name] = frozenset(reached)
        return nested
