"""The query of an incident, the verdicts that match it, and the unknown names in it with what was probably meant.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from smtpguard.config.durations import seconds
from smtpguard.config.problem import Broken, Invalid, nearest
from smtpguard.journal.chain import NAMED, Clear, Entry, Seal
from smtpguard.journal.event import Event, Kind, happened
from smtpguard.locale.phrase import N_
from smtpguard.mail.address import Address, BadAddress
from smtpguard.policy.parse import Policy, parse
from smtpguard.reading.fold import searched

NAMES = {"from": N_("From"), "reverse_path": N_("reverse-path"), "actor": N_("logged in as")}
"""The roles of a verdict's private part that name a message's writer."""
EXPECTED = 'one like "2026-11-26 09:30" in UTC, or "2h" for so long ago'


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentQuery:
    """The query of an incident; a verdict must match every given field. ``ids``: transactions, holds, mailings,
    freezes, or contents by their SHA-256, of which one must match. ``senders``: addresses in From, reverse-path or
    login. ``subject``: a part of it. ``since``, ``until``: microseconds since 1970. ``whole``: include every other
    message of the mailings of the messages in ``ids``."""

    ids: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    senders: frozenset[str] = frozenset()
    subject: str = ""
    since: int | None = None
    until: int | None = None
    whole: bool = True

    @property
    def empty(self) -> bool:
        return self == IncidentQuery(whole=self.whole)

    def fits(
        self, entry: Entry, content: Mapping[str, Mapping[str, Any]], clear: Clear | None, digests: Digests
    ) -> bool:
        """Return whether a verdict matches. ``content``: the entry's."""
        data = content["data"]
        at = happened(entry.at, data)
        if (self.since is not None and at < self.since) or (self.until is not None and at >= self.until):
            return False
        named = (data.get(key) for key in (*NAMED, "content"))
        if self.ids and self.ids.isdisjoint([entry.id, *(name for name in named if isinstance(name, str))]):
            return False
        if self.lists and self.lists.isdisjoint(data.get("lists", ())):
            return False
        if self.subject and not any(
            searched(self.subject) in searched(text) for text in (clear or {}).get("subject", ())
        ):
            return False
        return not self.senders or digests.wrote(content["private"], clear)

    def export_event(self, at: datetime, *actors: str) -> Event:
        """Make the event that names were shown to a person."""
        data = {"what": "incident report", "about": sorted(self.ids | self.lists)}
        private = {"actor": actors} | ({"from": tuple(sorted(self.senders))} if self.senders else {})
        return Event(kind=Kind.EXPORTED, id="journal", at=at, data=data, private=private)


class Digests:
    """Find messages of these senders. An erased address is still in the chain as a keyed digest."""

    def __init__(self, senders: Iterable[str], seal: Seal) -> None:
        self._plain = {address.casefold() for address in senders}
        spellings = {spelling for address in senders for spelling in (address, address.lower())}
        self._sealed = {role: {seal.of(role, address) for address in spellings} for role in NAMES}

    def wrote(self, sealed: Mapping[str, Sequence[str]], clear: Clear | None) -> bool:
        """Return whether one of the senders wrote a message. ``sealed``: the verdict's private part as the chain has
        it."""
        if any(value.casefold() in self._plain for role in NAMES for value in (clear or {}).get(role, ())):
            return True
        return any(not known.isdisjoint(sealed.get(role, ())) for role, known in self._sealed.items())


def moment(text: str, now: datetime) -> datetime:
    """Parse a time, in UTC unless it has an offset of its own. Raises ValueError, which says what was expected."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    try:
        return now - timedelta(seconds=seconds(text))
    except (Invalid, OverflowError):
        raise ValueError(f'invalid time "{text}"; expected {EXPECTED}') from None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownNames:
    """The unknown names of a query, each with the nearest known name, "" if there is none. ``lists``: lists that are
    not in the policy. ``senders``: texts that are no address, and addresses from which the journal has no message.
    ``bad``: the senders that are no address."""

    lists: Mapping[str, str]
    senders: Mapping[str, str]
    bad: frozenset[str]


def unknown_names(
    query: IncidentQuery,
    documents: Mapping[str, bytes],
    *,
    delimiters: str,
    lists: Iterable[str] = (),
    writers: Iterable[str] = (),
) -> UnknownNames:
    """Return the unknown names of a query. ``documents``: the policy's. ``lists``: lists known beside the policy's.
    ``writers``: the senders of known mail."""
    try:
        policy: Policy | None = parse(documents, delimiters=delimiters)
    except Broken:  # of a version that this one does not read
        policy = None
    known = {*lists, *(policy.lists if policy is not None else ())}
    wrote = {each.casefold() for each in writers}
    people = wrote | (set().union(*policy.groups.values()) if policy is not None else set())
    domains = [d for d in policy.organization.domains if not d.startswith("*")] if policy is not None else []
    bad = frozenset(sender for sender in query.senders if not _is_address(sender))

    def nearest_sender(sender: str) -> str:
        """Return a person with a similar local part at that domain, with the same one elsewhere, or with the same one
        at a similar domain of ours."""
        local, _, domain = sender.casefold().rpartition("@")
        others = sorted(people - {sender.casefold()})
        there = {each.rpartition("@")[0]: each for each in others if each.rpartition("@")[2] == domain}
        near, home = nearest(local, there), nearest(domain, domains)
        return there.get(near, "") or _person_named(local, others, [home] if home and home != domain else [])

    return UnknownNames(
        lists={name: nearest(name, known) for name in sorted(query.lists - known)},
        senders={
            sender: nearest_sender(sender) if sender not in bad else _person_named(sender, people, domains)
            for sender in sorted(query.senders)
            if sender.casefold() not in wrote
        },
        bad=bad,
    )


def _person_named(word: str, people: Iterable[str], domains: Iterable[str]) -> str:
    """Return the address of a person with the local part of ``word``: a known one, else one at the first of
    ``domains``; "" if there is none."""
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
