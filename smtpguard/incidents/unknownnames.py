"""Check the query of an incident against the policy in force: report unknown names, and suggest what was probably
meant. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from smtpguard.config.problem import Broken, nearest
from smtpguard.incidents.query import IncidentQuery
from smtpguard.mail.address import Address, BadAddress
from smtpguard.policy.parse import Policy, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownName:
    """An unknown name. ``meant``: the nearest known one, "" if there is none."""

    word: str
    meant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownNames:
    """``lists`` that the policy does not know; ``senders`` that are no address or from whom nothing came; ``bad``:
    those that are no address."""

    lists: tuple[UnknownName, ...]
    senders: tuple[UnknownName, ...]
    bad: frozenset[str]


def unknown_names(
    query: IncidentQuery,
    documents: Mapping[str, bytes],
    *,
    delimiters: str,
    lists: Iterable[str] = (),
    writers: Iterable[str] = (),
) -> UnknownNames:
    """``documents``: the policy's. ``lists``: known beside the policy's. ``writers``: senders of known mail."""
    try:
        policy: Policy | None = parse(documents, delimiters=delimiters)
    except Broken:  # of a version that this one does not read
        policy = None
    known = {*lists, *(policy.lists if policy is not None else ())}
    wrote = {each.casefold() for each in writers}
    people = wrote | (set().union(*policy.groups.values()) if policy is not None else set())
    domains = [d for d in policy.organization.domains if not d.startswith("*")] if policy is not None else []
    bad = frozenset(sender for sender in query.senders if not _is_address(sender))

    def meant(sender: str) -> str:
        """A person with a similar local part at that domain, with the same one elsewhere, or with the same one at a
        similar domain of ours."""
        local, _, domain = sender.casefold().rpartition("@")
        others = sorted(people - {sender.casefold()})
        there = {each.rpartition("@")[0]: each for each in others if each.rpartition("@")[2] == domain}
        near, home = nearest(local, there), nearest(domain, domains)
        return there.get(near, "") or _at_home(local, others, [home] if home and home != domain else [])

    return UnknownNames(
        lists=tuple(UnknownName(word=name, meant=nearest(name, known)) for name in sorted(query.lists - known)),
        senders=tuple(
            UnknownName(word=sender, meant=meant(sender) if sender not in bad else _at_home(sender, people, domains))
            for sender in sorted(query.senders)
            if sender.casefold() not in wrote
        ),
        bad=bad,
    )


def _at_home(word: str, people: Iterable[str], domains: Iterable[str]) -> str:
    """The address of the person with this local part."""
    local = word.strip("<> @").casefold().partition("@")[0]
    if not local:
        return ""
    whole = sorted(each for each in people if each.partition("@")[0] == local)
    return next(iter(whole), "") or next((f"{local}@{domain}" for domain in sorted(domains) if " " not in local), "")


def _is_address(text: str) -> bool:
    try:
        Address.parse(text)
    except BadAddress:
        return False
    return True
