"""Which addresses are a list's: those that the policy declares, and every other name under which a relay may accept the
same mailbox.

A relay answers at its own names and, by default, at every domain that it is responsible for. So a list's local part is
the list at each domain of the organization and at the relay's names. There are two exceptions: addresses that the
policy declares to be something else (``addresses_elsewhere``), and a mailbox of a person whom the policy names. The
auxiliary addresses of a list server (``list-request``, ``list-owner``, ``list-bounces``) are never the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from smtpguard.lists.declared import ListInfo
from smtpguard.mail.address import Address, BadAddress, delimiters_at, every_delimiter, routes

# Auxiliary addresses of list servers, which never expand (RFC 2142 section 6, Mailman, Sympa).
_ADMINISTRATIVE = re.compile(
    r"-(?:admin|bounces?|confirm|editor|join|leave|owner|request|subscribe|unsubscribe)(?![a-z0-9])"
)
_ROUTED = re.compile("[%@!]").search


class Names:
    """The names of one policy. Cheap to ask; immutable."""

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
        """``domains``: the organization's; ``*.example.com`` means every name below. ``host_names``: the relay's and
        the list server's own. ``mailboxes``: of people whom the policy names. ``elsewhere``: further addresses that are
        no list, beside those of ``lists``."""
        written = list(domains)
        hosts = [ascii_domain(name) for name in host_names]
        exact = [ascii_domain(d) for d in written if not d.startswith("*.")]
        self._delimiters = delimiters
        self._domains = frozenset((*exact, *hosts))
        self._parents = tuple("." + ascii_domain(d[2:]) for d in written if d.startswith("*."))
        signs = every_delimiter(delimiters)
        self._delimited = re.compile("|".join(map(re.escape, signs))).search if signs else None
        self._declared: dict[str, str] = {}
        self._locals: dict[str, str] = {}
        apart = [*mailboxes, *elsewhere]
        for info in lists.values():
            apart += info.addresses_elsewhere
            for address in info.addresses:
                canonical = address.canonical()
                self._declared.setdefault(canonical, info.name)
                self._locals.setdefault(split(canonical)[0], info.name)
        self._apart = frozenset(address.canonical() for address in apart)

    def is_ours(self, domain: str) -> bool:
        """``domain`` in A-labels: one of the organization's, or a name of the relay's."""
        return domain in self._domains or domain.endswith(self._parents)

    def is_internal(self, address: Address) -> bool:
        """Whether it is in the organization's domains. A list address there is internal here; callers test for lists
        first."""
        return self.is_ours(address.canonical().rpartition("@")[2])

    def answers(self, domain: str) -> bool:
        """Whether the relay may accept it as its own, under any name."""
        return self.is_ours(domain) or _is_here(domain)

    def is_apart(self, canonical: str) -> bool:
        """Whether it is known to be something other than a list of this name."""
        return canonical in self._apart

    def implied(self) -> Iterator[tuple[str, str]]:
        """Canonical addresses that are not declared and are a list's all the same, each with its list: at each domain
        and name that is fully known."""
        for local, name in self._locals.items():
            for domain in sorted(self._domains):
                key = f"{local}@{domain}"
                if key not in self._declared and key not in self._apart:
                    yield key, name

    def known(self) -> Iterator[tuple[str, str]]:
        """Every canonical address that is a list's, as far as they can be enumerated."""
        yield from self._declared.items()
        yield from self.implied()

    def list_at(self, address: Address, canonical: str) -> str | None:
        """The name of the list with this address. ``canonical``: of ``address``, its sub-address cut."""
        found = self._named(address, canonical)
        return self._routed(address) if found is None and _ROUTED(address.local) else found

    def _routed(self, address: Address) -> str | None:
        """Routing to a name without dots, which a relay completes by its own domain; ``canonical`` has undone routing
        to a full name."""
        for head, tail in routes(address.local):
            if head and tail and "." not in tail:
                try:
                    inner = Address(head, tail)
                    found = self.list_at(inner, inner.canonical(self._delimiters))
                except BadAddress:
                    continue
                if found is not None:
                    return found
        return None

    def _named(self, address: Address, canonical: str) -> str | None:
        """By the whole local part, then by each prefix that a delimiter ends; ``list-request`` is not the list."""
        if self._delimited is None or not self._delimited(address.local):
            return self._find(*split(canonical))
        whole = address.canonical()
        if whole in self._apart and whole not in self._declared:
            return None
        local, domain = split(whole)
        delimiters = delimiters_at(self._delimiters, domain)
        for end in range(len(local), 0, -1):
            if end < len(local) and (local[end] not in delimiters or _ADMINISTRATIVE.match(local, end)):
                continue
            found = self._find(local[:end].rstrip("."), domain)
            if found:
                return found
        if canonical.endswith(f"@{domain}"):
            return None
        return self._find(*split(canonical))  # routing that shows only when the sub-address is cut

    def _find(self, local: str, domain: str) -> str | None:
        key = f"{local}@{domain}"
        if (declared := self._declared.get(key)) is not None:
            return declared
        name = self._locals.get(local)
        return name if name is not None and self.answers(domain) and key not in self._apart else None


def ascii_domain(name: str) -> str:
    """In A-labels, if it has them."""
    try:
        return Address("x", name.strip()).ascii_domain
    except BadAddress:
        return name.strip().lower()


def _is_here(domain: str) -> bool:
    """An address literal, no domain, a bare host name, or a name of localhost. Only the relay knows which of them are
    its own names, so a list's local part at any of them is taken for the list."""
    bare = "." not in domain or domain[0] == "[" or domain.startswith("localhost.")
    return bare or (domain[-1].isdigit() and domain.rpartition(".")[2].isdigit())


def split(canonical: str) -> tuple[str, str]:
    local, _, domain = canonical.rpartition("@")
    return local, domain
