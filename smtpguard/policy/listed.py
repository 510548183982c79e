"""The lists and streams of a policy, as mail is compared with them and as their sources are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from smtpguard.lists.declared import ListInfo, Origin, Stream
from smtpguard.lists.members import ListMembers, Members
from smtpguard.mail.address import Address
from smtpguard.policy.models import ListModel, OriginModel, StreamModel

Declared = tuple[Mapping[str, ListInfo], Mapping[str, Stream]]


def declared(lists: Mapping[str, ListModel], streams: Mapping[str, StreamModel], delimiters: str) -> Declared:
    return (
        {name: _list(name, lists, delimiters) for name in lists},
        {name: _stream(name, model, delimiters) for name, model in streams.items()},
    )


def _list(name: str, lists: Mapping[str, ListModel], delimiters: str) -> ListInfo:
    model = lists[name]
    sources, includes = _sources(name, lists)
    return ListInfo(
        name=name,
        title=model.title or name,
        owner=model.owner,
        addresses=tuple(map(Address.parse, model.addresses)),
        addresses_elsewhere=tuple(map(Address.parse, model.addresses_elsewhere)),
        list_ids=frozenset(list_id.strip("<> ").lower() for list_id in model.list_ids),
        audience=model.audience,
        sensitivity=model.sensitivity,
        category=model.category,
        preview=model.preview,
        writers=_canonical(model.writers, delimiters),
        origin=_origin(model.origin) if model.origin is not None else Origin(),
        avoid=frozenset(model.avoid),
        language=frozenset(model.language),
        members=sources,
        includes=includes,
        at_least=max((own.at_least for own in model.members), default=1),
        max_shrink=min((own.max_shrink for own in model.members), default=0.2),
        refresh_seconds=min((each.refresh for each in sources), default=900),
        stale_after_seconds=min((each.stale_after_seconds for each in sources), default=86_400),
    )


def _sources(name: str, lists: Mapping[str, ListModel]) -> tuple[tuple[Members, ...], frozenset[str]]:
    """The sources of a list, with those of the lists within it, and the names of these lists, at any depth. Each list
    once, so cycles end."""
    sources: list[Members] = []
    seen, ahead = [name], [name]
    while ahead:
        here = ahead.pop(0)
        for members in lists[here].members:
            if not isinstance(members, ListMembers):
                sources.append(members if here == name else members.within(here))
            elif members.list in lists and members.list not in seen:
                seen.append(members.list)
                ahead.append(members.list)
    return tuple(sources), frozenset(seen[1:])


def _stream(name: str, model: StreamModel, delimiters: str) -> Stream:
    return Stream(
        name=name,
        senders=_canonical(model.from_, delimiters),
        origin=_origin(model.origin),
        max=model.max,
        max_per_person=model.max_per_person,
        owner=model.owner,
    )


def _origin(model: OriginModel) -> Origin:
    return Origin(
        dkim=frozenset(model.dkim), clients=tuple(map(ip_network, model.clients)), logins=frozenset(model.logins)
    )


def _canonical(addresses: Iterable[str], delimiters: str) -> frozenset[str]:
    return frozenset(Address.parse(address).canonical(delimiters) for address in addresses)
