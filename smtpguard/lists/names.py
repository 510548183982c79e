"""Which addresses are a list's: those that are declared, and every other name under which a relay may accept the same mailbox.

A relay answers at its own names and, by default, at every domain that it is responsible for. So a list's local part is
the list at each domain of the organization, at each domain of any list's address, and at the relay's names. There are
two exceptions: addresses that the policy declares to be something else (``addresses_elsewhere``), and mailboxes of
people in the policy. The auxiliary addresses of a list server (``list-request``, ``list-owner``, ``list-bounces``) are
not the list at its own address. Where "-" is a delimiter, they are at every other: a relay without a list server expands
them as any sub-address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from smtpguard.lists.declared import ListInfo
from smtpguard.mail.address import Address, BadAddress, cuts_plain, delimiters_at, every_delimiter, login_name

# Auxiliary addresses of list servers, which never expand (RFC 2142 section 6, Mailman, Sympa).
_ADMINISTRATIVE = re.compile(
    r"-(?:admin|bounces?|confirm|editor|join|leave|owner|request|subscribe|unsubscribe)(?![a-z0-9])"
)
_SIGNS = re.compile("[%@!:,]")
"""The signs of source routing in a local part."""
_ROUTED = _SIGNS.search
_AROUND = " \t."
"""Characters around a name in a routed address that are no part of it."""
_MOST_NAMES = 4
"""The most names of one address at which the relay is taken to answer."""


class Names:
    """The addresses of the lists of one policy. Immutable; a question takes microseconds."""

    def __init__(
        self,
        lists: Mapping[str, ListInfo],
        *,
        domains: Iterable[str],
        host_names: Iterable[str] = (),
        mailboxes: Iterable[Address] = (),
        elsewhere: Iterable[Address] = (),
        delimiters: str = "",
    ) -> None:
        """``domains``: the organization's; ``*.example.com`` means every name below. ``host_names``: those of the relay and the
        list server. ``mailboxes``: those of people whom the policy names. ``elsewhere``: further addresses that are no list,
        beside those of ``lists``."""
        written = list(domains)
        hosts = [ascii_domain(name) for name in host_names]
        exact = [ascii_domain(d) for d in written if not d.startswith("*.")]
        self._delimiters = delimiters
        self._cuts_plain = cuts_plain(delimiters)
        self._domains = frozenset((*exact, *hosts))
        self._parents = tuple("." + ascii_domain(d[2:]) for d in written if d.startswith("*."))
        signs = every_delimiter(delimiters)
        self._delimited = re.compile("|".join(map(re.escape, signs))).search if signs else None
        self._declared: dict[str, str] = {}
        self._locals: dict[str, str] = {}
        self._on_servers: set[str] = set()
        beside: set[str] = set()
        apart = [*mailboxes, *elsewhere]
        for info in lists.values():
            apart += info.addresses_elsewhere
            for address in info.addresses:
                canonical = address.canonical()
                self._declared.setdefault(canonical, info.name)
                if info.on_server:
                    self._on_servers.add(canonical)
                local, domain = split(canonical)
                self._locals.setdefault(local, info.name)
                beside.add(domain)
        self._of_lists = frozenset(beside)
        self._apart = frozenset(address.canonical() for address in apart)

    def is_ours(self, domain: str) -> bool:
        """Return whether a domain, in A-labels, is one of the organization's or a name of the relay."""
        return domain in self._domains or domain.endswith(self._parents)

    def is_internal(self, address: Address) -> bool:
        """Return whether an address is in the organization's domains. So is a list address there: callers test for lists
        first."""
        return self.is_ours(address.domain if address.plain else split(address.canonical())[1])

    def account(self, login: str) -> str:
        """Return the account of a login: its address, if that is in the organization's domains; else its name alone.

        A server may take any domain with the name (``eva``, ``EXAMPLE\\eva``, ``eva@anything.example``).
        """
        address = Address.parse_any(login)
        if address is not None and self.is_internal(address):
            return address.canonical(self._delimiters)
        return login_name(login)

    def answers(self, domain: str) -> bool:
        """Return whether the relay may accept a domain as its own, under any name."""
        return self.is_ours(domain) or domain in self._of_lists or _is_here(domain)

    def is_apart(self, canonical: str) -> bool:
        """Return whether an address is known to be something other than a list of this name."""
        return canonical in self._apart

    def implied(self) -> Iterator[tuple[str, str]]:
        """Yield the canonical addresses that are a list's without being declared, each with its list.

        They are at each domain and name that is fully known.
        """
        for local, name in self._locals.items():
            for domain in sorted(self._domains | self._of_lists):
                key = f"{local}@{domain}"
                if key not in self._declared and key not in self._apart:
                    yield key, name

    def enumerated(self) -> Iterator[tuple[str, str]]:
        """Yield the canonical addresses that are a list's, as far as they can be enumerated, each with its list."""
        yield from self._declared.items()
        yield from self.implied()

    def list_at(self, address: Address, canonical: str) -> str | None:
        """Return the name of the list with this address, None for none. ``canonical``: the address without its sub-address."""
        if address.plain and not self._cuts_plain:  # as nearly every one: it has no delimiter, and nothing is routed
            return self._find(canonical) if address.local in self._locals else None
        found = self._at(address, canonical)
        if found is None and (_ROUTED(address.local) or not canonical.startswith(f"{address.local}@")):
            inner = self.routed_to(address)
            found = next(filter(None, (self._at(one, one.canonical(self._delimiters)) for one in inner)), None)
        return found

    def _at(self, address: Address, canonical: str) -> str | None:
        delimited = self._delimited is not None and self._delimited(address.local)
        return self._prefixed(address, canonical) if delimited else self._find(canonical)

    def routed_to(self, address: Address) -> Iterator[Address]:
        """Yield the other addresses to which a relay may route this one. ``Address.canonical`` follows only one order.

        A relay appends its own domain to a name without dots, and where the name is missing. If the address has several
        kinds of routing (``%``, ``!``, ``@a:``), relays differ in which they resolve first. So each name in it may be the
        mailbox, at each of the other names where the relay answers.
        """
        local, domain = split(address.canonical())
        written = [name.strip(_AROUND) for name in _SIGNS.split(address.local.lower())]
        dropped = any(name != domain and self.answers(name) for name in written)  # a host of ours within the route
        if not _ROUTED(local) and len(written) < 3 and not dropped:
            return
        names = dict.fromkeys(
            name.strip(_AROUND) for name in (*_SIGNS.split(local), *written, domain, address.ascii_domain)
        )
        here = [name for name in names if name and self.answers(name)][:_MOST_NAMES]
        for name in filter(None, names):
            for host in (other for other in here if other != name):
                inner = Address(name, host)
                with suppress(BadAddress):  # a piece of an address literal
                    inner.canonical(self._delimiters)
                    yield inner

    def _prefixed(self, address: Address, canonical: str) -> str | None:
        """Return the list of the whole local part, else of the longest prefix that a delimiter ends."""
        whole = address.canonical()
        if whole in self._apart and whole not in self._declared:
            return None
        local, domain = split(whole)
        delimiters = delimiters_at(self._delimiters, domain)
        for end in range(len(local), 0, -1):
            if end < len(local) and local[end] not in delimiters:
                continue
            before = f"{local[:end].rstrip(_AROUND)}@{domain}"
            found = self._find(before)
            if found and not (before in self._on_servers and _ADMINISTRATIVE.match(local, end)):
                return found
        if canonical.endswith(f"@{domain}"):
            return None
        return self._find(canonical)  # routing that shows only when the sub-address is cut

    def _find(self, canonical: str) -> str | None:
        if (declared := self._declared.get(canonical)) is not None:
            return declared
        local, _, domain = canonical.rpartition("@")
        name = self._locals.get(local)
        return name if name is not None and self.answers(domain) and canonical not in self._apart else None


def ascii_domain(name: str) -> str:
    """Return a domain in A-labels, if it has them."""
    try:
        return Address("x", name.strip()).ascii_domain
    except BadAddress:
        return name.strip().lower()


def _is_here(domain: str) -> bool:
    """Return whether a domain is an address literal, empty, a bare host name, or a name of localhost.

    Only the relay knows which of them are its own names, so a list's local part at any of them is taken for the list.
    """
    bare = "." not in domain or domain[0] == "[" or domain.startswith("localhost.")
    return bare or (domain[-1].isdigit() and domain.rpartition(".")[2].isdigit())


def split(canonical: str) -> tuple[str, str]:
    local, _, domain = canonical.rpartition("@")
    return local, domain
