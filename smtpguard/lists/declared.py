"""Lists and streams as the policy declares them, as frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Network, Session, within

COLLEAGUES = frozenset({"colleagues", "employees", "internal", "staff"})
"""Audiences that are no customers: such a list counts in reach, never in customers or members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The declared origin of mail: of each kind that is declared, one must match. ``logins``: login names of systems,
    in lower case."""

    dkim: frozenset[str] = frozenset()  # signing domains, in lower case; ``*.example.com`` is every name below
    clients: tuple[Network, ...] = ()
    logins: frozenset[str] = frozenset()

    @property
    def declared(self) -> bool:
        return bool(self.dkim or self.clients or self.logins)

    def proven(self, session: Session, signed_by: frozenset[str]) -> bool:
        """Whether a message of this session with valid signatures of ``signed_by`` has this origin."""
        if not self.declared or (self.dkim and not any(map(self._signs, signed_by))):
            return False
        return self._brought_by(session)

    def names(self, session: Session) -> bool:
        """Whether the session is a system's by its declared client and login, whatever signs its mail."""
        return bool(self.clients or self.logins) and self._brought_by(session)

    def _brought_by(self, session: Session) -> bool:
        if self.logins and (session.auth_user or "").lower() not in self.logins:
            return False
        return not self.clients or within(session.client_ip, self.clients)

    def _signs(self, domain: str) -> bool:
        return domain in self.dkim or any(d.startswith("*.") and domain.endswith(d[1:]) for d in self.dkim)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInfo:
    """One customer list. ``writers`` are canonical addresses; ``approvals`` is the policy's own, and opaque here.
    ``addresses_elsewhere``: addresses with its local part that are something else.

    ``members``: declarations of sources (sources.opening), with those of ``includes``, the lists within it; none if its
    members are unknown. An index is not taken into use if it has fewer than ``at_least`` people, or has lost more than
    the share ``max_shrink`` at once; nor that of a source with more than the share ``max_bad`` of bad rows."""

    name: str
    title: str = ""
    owner: str | None = None
    addresses: tuple[Address, ...] = ()
    addresses_elsewhere: tuple[Address, ...] = ()
    list_ids: frozenset[str] = frozenset()
    audience: str = "customers"
    sensitivity: str | None = None
    category: str | None = None
    preview: str | None = None
    writers: frozenset[str] = frozenset()
    origin: Origin = field(default_factory=Origin)
    avoid: frozenset[str] = frozenset()
    language: frozenset[str] = frozenset()
    """The languages of its members, as codes of two letters."""
    approvals: Any = None
    members: tuple[Mapping[str, Any], ...] = ()
    includes: frozenset[str] = frozenset()
    at_least: int = 1
    max_shrink: float = 0.2
    max_bad: float = 0.05
    refresh_seconds: int = 900
    stale_after_seconds: int = 86_400

    @property
    def of_customers(self) -> bool:
        return self.audience not in COLLEAGUES


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most ``count`` in any ``window_seconds``."""

    count: int
    window_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Standing approval for one-by-one mail of a system; never for a list address. ``owner`` gets a notice above the
    limit."""

    name: str
    senders: frozenset[str]  # canonical From
    origin: Origin
    max: Limit | None = None
    max_per_person: Limit | None = None
    owner: str | None = None


def build(
    lists: Mapping[str, Mapping[str, Any]], streams: Mapping[str, Mapping[str, Any]], *, delimiters: str = ""
) -> tuple[Mapping[str, ListInfo], Mapping[str, Stream]]:
    """From the policy's checked sections, as plain values under the names of the YAML; durations in seconds.

    Raises BadAddress and ValueError only for errors that the policy's own check should have found.
    """
    return (
        {name: _list(name, lists, delimiters) for name in lists},
        {name: _stream(name, section, delimiters) for name, section in streams.items()},
    )


def _list(name: str, lists: Mapping[str, Mapping[str, Any]], delimiters: str) -> ListInfo:
    section = lists[name]
    own = _several(section.get("members"))
    sources, includes = _sources(name, lists)
    return ListInfo(
        name=name,
        title=section.get("title") or name,
        owner=section.get("owner"),
        addresses=tuple(_address(a) for a in _several(section.get("addresses"))),
        addresses_elsewhere=tuple(_address(a) for a in _several(section.get("addresses_elsewhere"))),
        list_ids=frozenset(str(i).strip("<> ").lower() for i in _several(section.get("list_ids"))),
        audience=section.get("audience") or "customers",
        sensitivity=section.get("sensitivity"),
        category=section.get("category"),
        preview=section.get("preview"),
        writers=_canonical(section.get("writers"), delimiters),
        origin=_origin(section.get("origin")),
        avoid=frozenset(_several(section.get("avoid"))),
        language=frozenset(_several(section.get("language"))),
        approvals=section.get("approvals"),
        members=sources,
        includes=includes,
        at_least=max(_given(own, "at_least"), default=1),
        max_shrink=min(_given(own, "max_shrink"), default=0.2),
        max_bad=min(_given(own, "max_bad"), default=0.05),
        refresh_seconds=int(min(_given(sources, "refresh"), default=900)),
        stale_after_seconds=int(min(map(_stale_after, sources), default=86_400)),
    )


def _sources(name: str, lists: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[Mapping[str, Any], ...], frozenset[str]]:
    """The sources of a list, with those of the lists within it, and the names of these lists, at any depth. Each list
    once, so cycles end. A source of another list has its name, as ``of``."""
    sources: list[Mapping[str, Any]] = []
    seen, ahead = [name], [name]
    while ahead:
        here = ahead.pop(0)
        for declared in _several(lists[here].get("members")):
            inner = declared.get("list")
            if inner is None:
                sources.append(declared if here == name else {**declared, "of": here})
            elif inner in lists and inner not in seen:
                seen.append(inner)
                ahead.append(inner)
    return tuple(sources), frozenset(seen[1:])


def _stream(name: str, section: Mapping[str, Any], delimiters: str) -> Stream:
    return Stream(
        name=name,
        senders=_canonical(section.get("from", section.get("from_")), delimiters),
        origin=_origin(section.get("origin")),
        max=_limit(section.get("max")),
        max_per_person=_limit(section.get("max_per_person")),
        owner=section.get("owner"),
    )


def _origin(section: Mapping[str, Any] | None) -> Origin:
    section = section or {}
    return Origin(
        dkim=frozenset(Address("x", str(d).strip()).ascii_domain for d in _several(section.get("dkim"))),
        clients=tuple(ip_network(str(c), strict=False) for c in _several(section.get("clients"))),
        logins=frozenset(str(name).strip().lower() for name in _several(section.get("logins"))),
    )


def _limit(value: Any) -> Limit | None:
    """A pair of count and seconds, or a mapping that names them."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        value = (value["count"], value["window_seconds"])
    return Limit(count=int(value[0]), window_seconds=int(value[1]))


def _several(value: Any) -> list[Any]:
    """One or many, as YAML allows."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def _given(sources: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    return [s[name] for s in sources if s.get(name) is not None]


def _stale_after(source: Mapping[str, Any]) -> float:
    """By default a day, or three times the refresh interval if that is longer."""
    given = source.get("stale_after")
    return float(given if given is not None else max(86_400, 3 * (source.get("refresh") or 0)))


def _address(value: Any) -> Address:
    return value if isinstance(value, Address) else Address.parse(str(value))


def _canonical(value: Any, delimiters: str) -> frozenset[str]:
    return frozenset(_address(a).canonical(delimiters) for a in _several(value))
