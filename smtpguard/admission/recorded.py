"""A verdict's journal entry, read back as the message that it was about: what was done, and the facts that are known. Pure.

Entries of every version are read. Earlier versions kept facts in ``data`` and left out values that are the same for nearly
all mail. From those entries only the recipient counts and the facts that are named are known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from smtpguard.admission.packedfacts import NOT_FOUND, unpack, value_of
from smtpguard.journal.chain import Clear, Entry, first_of, instant, parsed
from smtpguard.mail.address import Address, BadAddress
from smtpguard.policy.counted import Subject
from smtpguard.policy.facts import FACTS as TABLE
from smtpguard.policy.facts import Count, Source, Unknown, Value, named
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.rule import COPIES, FIXED
from smtpguard.policy.verdict import Action

FACTS = "facts"
"""The role of the packed facts in an entry's private part, and the key in ``data`` of what earlier versions kept."""
DECIDED = "decided"
"""The key in ``data`` of the decisions on the message's mailing: WAITING, REJECTED, CONFIRMED and APPROVED. They name nobody, and
are not erased."""
WAITING, REJECTED, CONFIRMED = "mailing.waiting", "mailing.rejected", "mailing.confirmed"
"""A hold of the mailing waits; people have rejected it; its writer has confirmed it. No rule asks for these."""
REPLY = "message.reply"
"""The message is a reply in a conversation. No rule asks for this."""
ANY = Count(0, math.inf)

OLD = "it was not recorded then"
UNREAD = "the text was not read then"
UNSAID = "facts of the text are recorded only for mail that reaches a list or counts as a copy"
UNCOUNTED = "no rule counted it then"
ERASED = "the address is erased"
NOT_KEPT = frozenset({OLD, UNREAD, UNSAID, UNCOUNTED, ERASED})
"""The reasons why a fact is not known."""

_SOMEBODY = "somebody"
_ACTIONS = {action.word: action for action in Action}
_MIB = 1 << 20
_OF_RECIPIENTS = named(lambda fact: fact.area == "recipients" and fact.source is Source.ENVELOPE)
_WINDOW = re.compile(r"(\S+)(?: in (\d+))?\Z")


class Recorded:
    """A verdict's entry as a message. ``clear``: names and addresses, None once erased. ``facts``: the known values, by slot, None
    for an entry of an earlier version, or once erased."""

    def __init__(self, entry: Entry, clear: Clear | None) -> None:
        content = parsed(entry.body)
        self.id, self.at = entry.id, entry.at
        self.data: Mapping[str, Any] = content["data"]
        self.sealed: Mapping[str, Sequence[str]] = content["private"]
        self.clear = clear
        self._sparse: Mapping[str, Any] | None = self.data.get(FACTS)
        packed = next(iter(self.names(FACTS)), None)
        self.facts: Mapping[str, Value] | None = None if packed is None else unpack(packed)

    # Disposition.

    @property
    def time(self) -> datetime:
        return instant(self.at)

    @property
    def policy(self) -> str:
        return self.data.get("policy") or ""

    @property
    def decided(self) -> bool:
        """Whether rules decided on it. An internal error has an entry too."""
        return "counts" in self.data

    @property
    def again(self) -> bool:
        """Whether it is a client's retry of a message that was held before."""
        return bool(self.data.get("retry"))

    @property
    def action(self) -> Action:
        """The action. A copy beyond those that are stored counts as held, although its client was told to wait."""
        return Action.HOLD if COPIES in self.enforced else _ACTIONS[self.data["action"]]

    @property
    def counted(self) -> bool:
        """Whether it was added to counts over time."""
        return _ACTIONS[self.data["action"]] <= Action.HOLD

    @cached_property
    def enforced(self) -> frozenset[str]:
        return frozenset(self.data.get("rules", ()))

    @cached_property
    def approved(self) -> frozenset[str]:
        """The rules that hit, and on which people had decided already."""
        return frozenset(self.data.get("approved", ()))

    @cached_property
    def observed(self) -> frozenset[str]:
        return frozenset(self.data.get("observed", ()))

    @cached_property
    def hits(self) -> frozenset[str]:
        return self.enforced | self.approved | self.observed

    @cached_property
    def own(self) -> frozenset[str]:
        """The policy's own rules among those that were enforced or approved."""
        return (self.enforced | self.approved) - FIXED - {FREEZE}

    @cached_property
    def uncertain(self) -> frozenset[str]:
        """The rules that took effect because a fact was unknown."""
        return frozenset(r["rule"] for r in self.data.get("reasons", ()) if r.get("uncertain"))

    # The message.

    @property
    def mailing(self) -> str:
        return self.data.get("mailing") or ""

    @property
    def lists(self) -> frozenset[str]:
        """The lists of its recipients."""
        return self.touches.difference(self.data.get("reports_to", ()))

    @property
    def touches(self) -> frozenset[str]:
        """The lists of its recipients, and those that only reports on it would reach."""
        return frozenset(self.data.get("lists", ()))

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.data.get("streams", ()))

    @property
    def tellable(self) -> bool:
        """Whether its writer has a mailbox for notices."""
        return bool(self.data.get("tellable"))

    @property
    def total(self) -> int:
        return int(self.data["counts"]["total"])

    @property
    def writer(self) -> str:
        """The keyed digest of the claimed writer, which identifies it in counts."""
        return first_of(self.sealed, "from")

    @property
    def claimed(self) -> bool:
        """Whether it has exactly one From."""
        return "from" in self.sealed

    def names(self, role: str) -> Sequence[str]:
        """Return the clear values of a role, none once erased."""
        return (self.clear or {}).get(role, ())

    @cached_property
    def author(self) -> Address | None:
        return next(iter(_addresses(self.names("from"))), None)

    @cached_property
    def recipients(self) -> Sequence[Address] | None:
        """All recipients, None if addresses are erased."""
        found = _addresses(self.names("recipients"))
        return found if len(found) == self.total else None

    # Facts.

    def value(self, slot: str) -> Value | None:
        """Return the value that the guard knew, None if it is not known here; ``why_not`` has the reason."""
        found = self._of(slot)
        if isinstance(found, Unknown):
            return replace(found, why=self._whys.get(slot.partition(" ")[0], found.why))
        return found

    def _of(self, slot: str) -> Value | None:
        """Return the value, an unknown one without the reason."""
        if self.facts is not None and slot in self.facts:
            return self.facts[slot]
        if slot in _IN_ENTRY:
            return _IN_ENTRY[slot](self)
        if self.facts is not None:
            return None
        if self._sparse is not None and slot in self._sparse:
            plain = self._sparse[slot]
            return None if plain == "?" else value_of(plain)
        return self._by_counts(slot) if self._sure else None

    def _by_counts(self, slot: str) -> Value | None:
        """Return the value from the recipient counts, for an entry whose facts are erased or were not kept."""
        name, counts = slot.partition(".")[2], self.data["counts"]
        if slot in _OF_RECIPIENTS and name in counts:
            return Count.exactly(counts[name])
        if slot == "recipients.lists":
            return self.lists
        if slot == "recipients.share" and (counts["list_addresses"] or not self.lists):
            return Count.exactly(bool(counts["list_addresses"]))
        return None

    @cached_property
    def _sure(self) -> bool:
        """Whether the counts are exact: every list could say who is on it, and no address expands elsewhere."""
        people = self.data.get("people")
        return (
            people is not None
            and not self.data.get("reach_at_least")
            and not self.data.get("expanded_from")
            and not any("behind" in one if isinstance(one, dict) else one.endswith("?") for one in people)
        )

    def why_not(self, fact: str) -> str:
        """Return the reason why a value is not known."""
        source = TABLE[fact].source
        if self.clear is None:
            return ERASED
        if self.facts is None:
            return OLD
        if source is Source.LIVE:
            return UNCOUNTED
        if source is Source.TEXT and not any(TABLE[s].source is source for s in self.facts if s in TABLE):
            return UNREAD if self.data.get("looks") is None else UNSAID
        return OLD

    @cached_property
    def _whys(self) -> Mapping[str, str]:
        return dict(self.data.get("unknown", ()))

    def count(self, name: str) -> Count:
        """Return the count of a fact ``recipients.*``, or bounds of it."""
        value = self.value(f"recipients.{name}")
        return value if isinstance(value, Count) else ANY

    def stood(self, name: str) -> bool:
        """Return whether a decision (DECIDED) was true of its mailing."""
        return name in self.data.get(DECIDED, ()) or bool((self._sparse or {}).get(name))

    @cached_property
    def exact(self) -> bool:
        """Whether every list could say who of its recipients is on it."""
        if self.data.get("expanded_from"):
            return False
        counts = (self.value(f"recipients.{name}") for name in ("members", "customers", "outside", "reach"))
        lists = self.value("recipients.lists")
        return all(isinstance(n, Count) and n.exact for n in counts) and isinstance(lists, frozenset)

    @cached_property
    def is_no_letter(self) -> bool:
        """Whether it certainly is no letter to a customer. First contacts are counted for such letters only."""
        return not self.count("customers").high or bool(self.streams) or self.data.get("looks") == "mailing"

    def subject(self, lists: Iterable[str]) -> Subject:
        """Return the keys under which it is counted, as far as they are known. ``lists``: all that exist."""
        some = (_SOMEBODY,)
        return Subject(
            sender=_SOMEBODY if self.claimed else NOT_FOUND,
            customers=self.value("recipients.customers"),
            reach=self.value("recipients.reach"),
            lists=tuple(sorted(self.lists if self.exact else lists)),
            letter_from=() if self.is_no_letter else some,
            also_from="",
            threads=() if self.is_no_reply else some,
            reply="" if self.is_no_reply else _SOMEBODY,
            shared=False,
        )

    @property
    def is_no_reply(self) -> bool:
        return self.facts is not None and REPLY not in self.facts

    def windows(self, fact: str) -> Iterable[tuple[int, Count]]:
        """Yield the count of each window (seconds), over all lists and mailings."""
        for slot, value in (self.facts or {}).items():
            found = _WINDOW.match(slot)
            if found is not None and found[1] == fact and isinstance(value, Count):
                yield int(found[2] or 0), value


def _addresses(texts: Iterable[str]) -> list[Address]:
    found = []
    for text in texts:
        try:
            found.append(Address.parse(text))
        except BadAddress:
            continue
    return found


def _login(message: Recorded) -> Value | None:
    if "actor" not in message.sealed:
        return frozenset()
    users = message.names("actor")
    return frozenset({users[0].lower()}) if users else None


def _domains(message: Recorded) -> Value | None:
    """Return the domains of the judged recipients, None for a copy from a list server: some of its recipients were judged
    before."""
    known = message.recipients if not message.data.get("expanded_from") else None
    return None if known is None else frozenset(d for one in known for d in one.domains(one.canonical()))


def _sender(message: Recorded) -> Value | None:
    if not message.claimed:
        return NOT_FOUND
    return next(iter(message.names("from")), None)


_IN_ENTRY: Mapping[str, Callable[[Recorded], Value | None]] = {
    "client": lambda message: message.data.get("client") or NOT_FOUND,
    "listener": lambda message: message.data.get("listener"),
    "login": _login,
    "message.looks": lambda message: message.data.get("looks"),
    # unreadable text has no looks
    "message.readable": lambda message: "yes" if message.data.get("looks") is not None else None,
    "message.size_mb": lambda message: Count.exactly(message.data["size_bytes"] / _MIB),
    "recipients.domains": _domains,
    "recipients.total": lambda message: Count.exactly(message.total),
    "sender.address": _sender,
}
"""Facts from other parts of the entry. Those of the text are used if its facts are not kept."""
