"""The customer lists as the policy declares them, and what each recipient is to them: internal, a list, a member, outside.

Here lives the Registry: organisation, lists, streams and expanders of one process, with their indexes. Every spelling of a
mailbox meets its list (mail.address). Never here: what is declared (declared), how members become an index (sync), or
what a class means for the message (policy).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from smtpguard.lists.declared import ListInfo, Stream
from smtpguard.lists.declared import build as build
from smtpguard.lists.digest import Digester
from smtpguard.lists.expansions import Expansion, Expansions
from smtpguard.lists.index import Together
from smtpguard.lists.recipients import INTERNAL, INTERNAL_MEMBER, LIST, MEMBER, OUTSIDE, Classification, Classified
from smtpguard.lists.shelf import Shelf, Standing, State
from smtpguard.lists.summing import summed
from smtpguard.mail.address import Address, BadAddress, delimiters_at, every_delimiter, routes
from smtpguard.mail.client import Network, within

# What a list server keeps beside a list, and what never expands (RFC 2142 section 6, Mailman, Sympa).
_ADMINISTRATIVE = re.compile(
    r"-(?:admin|bounces?|confirm|editor|join|leave|owner|request|subscribe|unsubscribe)(?![a-z0-9])"
)

_HERE = "[]"
"""Stands for every address literal, bare address and bare host name, and for whatever is called localhost: which of them are
the relay's own names is for the relay to say, and a list's local part at one of them is taken for the list."""
_ROUTED = re.compile("[%@!]").search


class Registry:
    """Everything that is known of lists, in one process. Cheap to ask; looks at most once a second whether an index was
    swapped or has grown stale (``look_seconds``)."""

    def __init__(
        self,
        *,
        domains: Iterable[str],
        lists: Mapping[str, ListInfo],
        streams: Mapping[str, Stream] | None = None,
        digester: Digester,
        folder: Path,
        now: Callable[[], datetime],
        host_names: Iterable[str] = (),
        expanders: Iterable[Network] = (),
        expansions: bool = False,
        customers_here: bool = True,
        look_seconds: float = 1.0,
    ) -> None:
        """``domains``: the organisation's; ``*.example.com`` means every name below. ``host_names``: of the relay and the
        list server themselves, at which their mailboxes answer too. ``expansions``: the policy says what else expands.
        ``customers_here``: whether customers have addresses in the domains; else a colleague on a list is a colleague."""
        self.lists = dict(lists)
        self.streams = dict(streams or {})
        self._streams_from: dict[str, tuple[Stream, ...]] = {}
        for stream in self.streams.values():
            for sender in stream.senders:
                self._streams_from[sender] = (*self._streams_from.get(sender, ()), stream)
        self.digester, self.customers_here = digester, customers_here
        self.expanders = tuple(expanders)
        signs = every_delimiter(digester.delimiters)
        self._delimited = re.compile("|".join(map(re.escape, signs))).search if signs else None
        self._now = now
        self._look = timedelta(seconds=look_seconds)
        hosts = [_domain(name) for name in host_names]
        exact = [_domain(d) for d in domains if not d.startswith("*.")]
        self._domains = frozenset((*exact, *hosts))
        self._parents = tuple("." + _domain(d[2:]) for d in domains if d.startswith("*."))
        self._addresses: dict[str, str] = {}
        for info in self.lists.values():
            for address in info.addresses:
                local, _, domain = address.canonical().rpartition("@")
                for host in (domain, *hosts, _HERE):
                    self._addresses.setdefault(f"{local}@{host}", info.name)
        self._list_ids = {list_id.lower(): info.name for info in self.lists.values() for list_id in info.list_ids}
        self._shelf = Shelf(folder, digester.key_id)
        self.expansions = Expansions(folder, digester.key_id) if expansions else None
        self._nested: dict[str, frozenset[str]] = {}
        self.members = Together(())
        self._blind: tuple[str, ...] = ()
        self._looked = self._next_look = now()
        self.reopen()

    def reopen(self) -> bool:
        """Take swapped indexes into use and see which have grown stale. True if anything is different now."""
        now = self._looked = self._now()
        self._next_look = now + self._look
        changed = self._shelf.look(self.lists.values(), now)
        if changed or not self._nested:
            indexes = {n: s.index for n, s in self.standings.items() if s.index is not None}
            self.members = Together((n, i) for n, i in indexes.items() if self.lists[n].of_customers)
            self._blind = tuple(
                n for n, s in self.standings.items()
                if s.state in (State.STALE, State.MISSING) and self.lists[n].of_customers
            )  # fmt: skip
            self._nested = self._nest()
        return (self.expansions is not None and self.expansions.look()) or changed

    @property
    def standings(self) -> Mapping[str, Standing]:
        """Each list's index: its state, size, age, and what is wrong with it."""
        return self._shelf.standings

    def classify(self, addresses: Iterable[Address]) -> Classified:
        """What a message with these recipients reaches. Total: no address and no state of an index makes it raise."""
        if not self._looked <= self._now() < self._next_look:  # a clock that was set back is no reason not to look
            self.reopen()
        seen: dict[str, Classification] = {}
        recipients = []
        for address in addresses:
            canonical = address.canonical(self.digester.delimiters)
            if self.expansions is not None and self.expansions.moves:
                recipients.append(self._moved(address, canonical, seen))
                continue
            name = self._list_at(address, canonical)
            key = f"list:{name}:{canonical}" if name else canonical
            if key not in seen:
                seen[key] = self._of_list(address, canonical, name) if name else self._of_person(address, canonical)
            recipients.append(seen[key])
        return summed(
            recipients,
            seen.values(),
            lists=self.lists,
            standings=self.standings,
            nested=self._nested,
            blind=self._blind,
        )

    def numbers(self) -> dict[int, str]:
        """Of every list's addresses, the digests as integers."""
        here = ((canonical, name) for canonical, name in self._addresses.items() if not canonical.endswith(_HERE))
        return {int.from_bytes(self.digester.of(Address(*_split(canonical))), "big"): name for canonical, name in here}

    def has_members(self, address: Address) -> bool:
        """Whether it is the address of a list whose members the policy knows where to find."""
        info = self.list_at(address)
        return info is not None and bool(info.members)

    def list_at(self, address: Address) -> ListInfo | None:
        """The list that this address expands to."""
        name = self._list_at(address, address.canonical(self.digester.delimiters))
        return self.lists[name] if name else None

    def list_with_id(self, list_id: str) -> ListInfo | None:
        """The list of a List-Id (RFC 2919): the part in angle brackets."""
        name = self._list_ids.get(list_id.strip().lower())
        return self.lists[name] if name else None

    def is_internal(self, address: Address) -> bool:
        """Whether it is in the organisation's domains. A list's address there is internal here, and a list above all."""
        return self._is_ours(address.canonical().rpartition("@")[2])

    def is_expander(self, client_ip: str) -> bool:
        """Whether this client sends us the copies that a list server has expanded."""
        return within(client_ip, self.expanders)

    def streams_from(self, canonical: str) -> tuple[Stream, ...]:
        """Streams that this From may write; their origin is yet to be proven."""
        return self._streams_from.get(canonical, ())

    def _is_ours(self, domain: str) -> bool:
        return domain in self._domains or domain.endswith(self._parents)

    def _list_at(self, address: Address, canonical: str) -> str | None:
        found = self._named(address, canonical)
        return self._routed(address) if found is None and _ROUTED(address.local) else found

    def _routed(self, address: Address) -> str | None:
        """Behind routing to a name without dots, which a relay completes by its own domain; to a whole name it is undone already."""
        for head, tail in routes(address.local):
            if head and tail and "." not in tail:
                try:
                    inner = Address(head, tail)
                    found = self._list_at(inner, inner.canonical(self.digester.delimiters))
                except BadAddress:
                    continue
                if found is not None:
                    return found
        return None

    def _named(self, address: Address, canonical: str) -> str | None:
        """By the whole local part, then by each beginning that a delimiter ends; ``list-request`` is not the list."""
        if self._delimited is None or not self._delimited(address.local):
            return self._find(*_split(canonical))
        local, _, domain = address.canonical().rpartition("@")
        delimiters = delimiters_at(self.digester.delimiters, domain)
        for end in range(len(local), 0, -1):
            if end < len(local) and (local[end] not in delimiters or _ADMINISTRATIVE.match(local, end)):
                continue
            found = self._find(local[:end].rstrip("."), domain)
            if found:
                return found
        if canonical.endswith(f"@{domain}"):
            return None
        return self._find(*_split(canonical))  # routing that came to light only when the sub-address was cut

    def _find(self, local: str, domain: str) -> str | None:
        return self._addresses.get(f"{local}@{_HERE if _is_here(domain) else domain}")

    def _of_list(self, address: Address, canonical: str, name: str) -> Classification:
        return Classification(address, canonical, LIST, tuple(sorted(self._nested[name])))

    def _moved(self, address: Address, canonical: str, seen: dict[str, Classification]) -> Classification:
        """In a domain that may stand for another: as the mailbox there, under its own name."""
        assert self.expansions is not None
        local, domain = _split(canonical)
        there = Address(local, self.expansions.moved(domain))
        where = there.canonical(self.digester.delimiters)
        name = self._list_at(there, where)
        key = f"list:{name}:{where}" if name else where
        if key not in seen:
            found = self._of_list(there, where, name) if name else self._of_person(there, where)
            seen[key] = found._replace(address=address, canonical=canonical)
        return seen[key]

    def _of_person(self, address: Address, canonical: str) -> Classification:
        digest = self.digester.of_canonical(canonical)
        if self.expansions is not None and (behind := self._behind(digest, canonical)) is not None:
            return self._of_crowd(address, canonical, digest, behind)
        ours = self._is_ours(canonical.rpartition("@")[2])
        if ours and not self.customers_here:
            return Classification(address, canonical, INTERNAL, (), (), digest)
        lists = self.members.naming(int.from_bytes(digest, "big"))
        if ours:
            # A colleague whom a blind list cannot place is a colleague: no customer is wronged by reaching one.
            return Classification(address, canonical, INTERNAL_MEMBER if lists else INTERNAL, lists, (), digest)
        doubt = tuple([n for n in self._blind if n not in lists]) if self._blind else ()
        return Classification(address, canonical, MEMBER if lists else OUTSIDE, lists, doubt, digest)

    def _behind(self, digest: bytes, canonical: str) -> Expansion | None:
        """Who gets what is sent there; a domain may have somebody for whoever is not there."""
        assert self.expansions is not None
        found = self.expansions.at(int.from_bytes(digest, "big"))
        if found is None and self.expansions.catches:
            everybody = self.digester.of_canonical("@" + canonical.rpartition("@")[2])
            found = self.expansions.at(int.from_bytes(everybody, "big"))
        return found

    def _of_crowd(self, address: Address, canonical: str, digest: bytes, behind: Expansion) -> Classification:
        """An address behind which many customers stand is a list; few are reached as if they were addressed themselves."""
        lists = tuple(behind.lists)
        if behind.is_list:
            reached = {n for name in behind.addressed for n in self._nested.get(name, ())}
            return Classification(address, canonical, LIST, tuple(sorted({*lists, *reached})), self._blind, b"", behind)
        alone = behind.members[0] if len(behind.members) == 1 else digest
        if self._is_ours(canonical.rpartition("@")[2]):
            kinds = INTERNAL_MEMBER if lists else INTERNAL
        else:
            kinds = MEMBER if lists else OUTSIDE
        return Classification(address, canonical, kinds, lists, self._blind if behind.unplaced else (), alone, behind)

    def _nest(self) -> dict[str, frozenset[str]]:
        """Which lists each list's address reaches: itself, the lists that it is declared to include, and every list whose
        address is a member, however deep."""
        holds: dict[str, set[str]] = {name: set(info.includes) for name, info in self.lists.items()}
        for canonical, inner in self._addresses.items():
            if canonical.endswith(_HERE):
                continue
            digest = self.digester.of(Address(*_split(canonical)))
            for outer, standing in self.standings.items():
                if standing.index is not None and digest in standing.index:
                    holds[outer].add(inner)
        nested = {}
        for name in self.lists:
            reached, ahead = {name}, [name]
            while ahead:
                for inner in holds[ahead.pop()] - reached:
                    reached.add(inner)
                    ahead.append(inner)
            nested[name] = frozenset(reached)
        return nested


def _is_here(domain: str) -> bool:
    bare = "." not in domain or domain[0] == "[" or domain.startswith("localhost.")
    return bare or (domain[-1].isdigit() and domain.rpartition(".")[2].isdigit())


def _domain(name: str) -> str:
    try:
        return Address("x", name.strip()).ascii_domain
    except BadAddress:
        return name.strip().lower()


def _split(canonical: str) -> tuple[str, str]:
    local, _, domain = canonical.rpartition("@")
    return local, domain
