"""A message that was decided on, as its verdict's entry in the journal has it: what was done, and what the guard knew of it then.

The content of what passed is not kept, so many a fact is not either: ``Told`` says so, with bounds where there are some. Values
that are not vague are those that the rules of then had, intervals and unknowns too. What is left out of ``data.facts`` is as
usual (guard.recordedfacts); an entry that is older than those is read with what its counts and lists allow.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from smtpguard.admission.recordedfacts import (
    usual_correspondence,
    usual_share,
    usual_unsuitable,
    value_of,
)
from smtpguard.gathering.values import FEW
from smtpguard.hindsight.passed import Passed
from smtpguard.journal.chain import Clear, Entry
from smtpguard.policy.condition import SAME
from smtpguard.policy.counted import COUNTED
from smtpguard.policy.facts import FACTS as ALL_FACTS
from smtpguard.policy.facts import NONE, OF_LETTERS, OF_MAILINGS, OF_TOPICS, Count, Source, Type, Unknown, Value, named
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.rule import FIXED

MIB = 1 << 20
ANY = Count(0, math.inf)
ANY_SHARE = Count(0, 1)
OLD = "it was not kept then"
UNREAD = "the text was not read then"
UNCOUNTED = "no rule counted it then"
ERASED = "the address is erased"
NOT_KEPT = frozenset({OLD, UNREAD, UNCOUNTED, ERASED})
_THEN = "it could not be found out then"
_NOTHING: frozenset[str] = frozenset()
_OF_LISTS = named(lambda fact: fact.by_list) | {"mailing.share"}


class Told(NamedTuple):
    """``vague``: why the value is not known as the guard knew it, and what stands here is its bounds, or Unknown; "" where it is."""

    value: Value
    vague: str = ""


def vague(why: str, value: Value | None = None) -> Told:
    return Told(Unknown(why=why) if value is None else value, why)


class Window(NamedTuple):
    """What a rule asks: a fact, and over which time where it is counted over one."""

    slot: str
    fact: str
    seconds: int = 0


class Recalled(Passed):
    """What the guard of then knew of a message."""

    def __init__(self, entry: Entry, clear: Clear | None) -> None:
        super().__init__(entry, clear)
        self._expands = True
        self._asked: Mapping[str, Window] = {}
        self._avoid: Mapping[str, frozenset[str]] = {}
        self.come = math.inf
        """To how many customers its mailing had come at most, where its own entry does not say."""

    def under(self, *, expands: bool, asked: Mapping[str, Window], avoid: Mapping[str, frozenset[str]]) -> None:
        """The policy of then is known. ``expands``: whether it knew of addresses that expand; ``asked``: what it counted, by slot;
        ``avoid``: what each of its lists is to be spared."""
        self._expands, self._asked, self._avoid = expands, asked, avoid

    # what was known of it

    def told(self, asked: Window) -> Told:
        """What the guard of then knew of it. Total."""
        if (seen := self._seen.get(asked.slot)) is not None:
            return Told(seen)
        if asked.fact in COUNTED:
            return self._of_count(asked)
        if (kept := self._kept(asked.fact)) is not None:
            return kept
        area, _, name = asked.fact.partition(".")
        match area:
            case "client" | "listener" | "login":
                return self._of_session(asked.fact)
            case "recipients":
                return self._of_recipients(name)
            case "message":
                return self._of_message(name)
            case "list" if name == "language":
                lists = self.told(Window("recipients.lists", "recipients.lists"))
                return Told(_NOTHING) if lists == Told(_NOTHING) else vague(OLD)
        return self._of_sender(asked.fact)

    def count(self, name: str) -> Count:
        """Of ``recipients.*``; bounds where it is not known better."""
        value = self.told(Window(f"recipients.{name}", f"recipients.{name}")).value
        return value if isinstance(value, Count) else ANY

    def _kept(self, name: str) -> Told | None:
        if self.facts is None or name not in self.facts:
            return None
        value = value_of(self.facts[name])
        if value is None:
            return vague(OLD)
        if isinstance(value, Unknown):
            return Told(Unknown(why=self._whys.get(name, _THEN)))
        return Told(value)

    @cached_property
    def _whys(self) -> Mapping[str, str]:
        return dict(self.data.get("unknown", ()))

    @cached_property
    def _seen(self) -> Mapping[str, Value]:
        """What the reasons of its rules say that they saw."""
        found: dict[str, Value] = {}
        for reason in self.data.get("reasons", ()):
            name = reason["fact"]
            value = _observed(name, reason.get("observed")) if reason["rule"] in self._ruled else None
            slots = [slot for slot, asked in self._asked.items() if asked.fact == name] if name in COUNTED else [name]
            if value is not None and len(slots) == 1:  # which time was meant, a reason does not say
                found[slots[0]] = value
        return found

    @cached_property
    def _ruled(self) -> frozenset[str]:
        """The policy's own rules that hit: the fixed ones call by the names of facts what is not quite those."""
        return self.hits - FIXED - {FREEZE}

    # recipients

    @cached_property
    def _left(self) -> int:
        """Of an old entry: how many recipients its counts do not explain, of whom a list may not have known."""
        counts = self.data["counts"]
        both = int(min(counts["internal"], counts["members"]))
        explained = sum(int(counts[name]) for name in ("internal", "outside", "list_addresses", "members")) - both
        return max(0, int(counts["total"]) - explained)

    @cached_property
    def exact(self) -> bool:
        """Whether every list could say who among its recipients is on it, as far as can be told."""
        if self.facts is not None:
            doubted = (
                "recipients.members",
                "recipients.customers",
                "recipients.outside",
                "recipients.lists",
                "recipients.sensitivity",
            )
            return not any(name in self.facts for name in doubted) and not self.data.get("expanded_from")
        return not (self._left or self._expands or self.data.get("reach_at_least") or self.data.get("expanded_from"))

    def _of_recipients(self, name: str) -> Told:
        counts = self.data["counts"]
        if name in counts:
            return self._of_recipient_counts(name, int(counts[name]))
        match name:
            case "domains":
                known = self.recipients
                return Told(frozenset(a.domain for a in known)) if known is not None else vague(ERASED)
            case "lists":
                return Told(self.lists) if self.lists or self.exact else vague(OLD)
            case "share":
                addresses = self.count("list_addresses").low if self.facts is not None or not self._expands else 0
                usual = usual_share(addresses, self.lists) if self.exact or addresses else None
                return Told(usual) if usual is not None else vague(OLD, ANY_SHARE)
            case "undisclosed":
                most = self.count("customers").high
                if self.facts is not None or not most:
                    return Told(NONE)
                return vague(OLD, Count(0, most))
        return vague(OLD)  # what a list is, its declaration says

    def _of_recipient_counts(self, name: str, low: int) -> Told:
        if self.facts is not None or name == "total":
            return Told(Count.exactly(low))
        if self.data.get("expanded_from"):  # those whom the post does not explain
            return vague(OLD, Count(0, math.inf if self.data.get("reach_at_least") and name != "internal" else low))
        match name:
            case "internal" | "list_addresses":
                return Told(Count.exactly(low))
            case "reach":
                return Told(Count(low, math.inf if self.data.get("reach_at_least") else low))
        if self.exact:
            return Told(Count.exactly(low))
        if name == "outside":
            return vague(OLD, Count(low, low + self._left)) if not self._expands else vague(OLD, Count(low, self.total))
        return vague(OLD, Count(low, max(low, self.count("reach").high)))

    # text and header

    @property
    def _read(self) -> bool:
        """Whether its text was asked for."""
        return self.data.get("looks") is not None or (self.facts is not None and "message.looks" in self.facts)

    def _of_message(self, name: str) -> Told:
        match name:
            case "size_mb":
                return Told(Count.exactly(self.data["size_bytes"] / MIB))
            case "automatic":
                return Told(False) if self.facts is not None else vague(OLD)
            case "labels":
                return Told(_NOTHING) if self.facts is not None else vague(OLD)
            case "correspondence" if self.count("list_addresses").low or self.count("customers").low > FEW:
                return Told(False) if self._read else vague(UNREAD)
        if not self._read and ALL_FACTS[f"message.{name}"].source is Source.TEXT:
            return vague(UNREAD)
        return self._of_text(name)

    def _of_text(self, name: str) -> Told:
        match name:
            case "looks":
                return Told(str(self.data["looks"]))
            case "readable":  # what cannot be read looks like nothing
                return Told("yes") if self.data.get("looks") is not None else vague(OLD)
            case "unsuitable_topics" if self.exact and not self.lists and self.data.get("looks") is not None:
                return Told(_NOTHING)
        if self.facts is None:
            return vague(OLD)
        match name:
            case "topics" | "unfinished":
                return Told(_NOTHING)
            case "unsuitable_topics":
                topics = self.told(Window("message.topics", "message.topics"))
                lists = self.told(Window("recipients.lists", "recipients.lists")).value
                known = lists if isinstance(lists, frozenset) else _NOTHING
                if topics.value and (lists is not known or not known <= self._avoid.keys()):
                    return vague(OLD)
                return Told(usual_unsuitable(topics.value, _NOTHING.union(*(self._avoid[n] for n in known))))
            case "correspondence":
                undisclosed = self.told(Window("recipients.undisclosed", "recipients.undisclosed")).value
                addresses, customers = self.count("list_addresses").low, self.count("customers").low
                return Told(usual_correspondence(addresses, customers, undisclosed))
        return vague(OLD)

    # session

    def _of_proof(self) -> Told:
        """Whether its listener proves senders, which is kept where a sender was not proven."""
        proven = self.told(Window("sender.proven", "sender.proven")).value
        return Told(False) if self.facts is not None and self.claimed and proven is not True else vague(OLD)

    def _of_session(self, fact: str) -> Told:
        match fact:
            case "client":
                client = self.data.get("client")
                return Told(str(client)) if client else Told(Unknown(why=self._whys.get(fact, _THEN)))
            case "listener":
                listener = self.data.get("listener")
                return Told(str(listener)) if listener is not None else vague(OLD)
            case "listener.proves_senders":
                return self._of_proof()
            case "login":
                users = self.names("actor")
                told = Told(frozenset({users[0].lower()})) if users else vague(ERASED)
                return told if "actor" in self.sealed else Told(_NOTHING)
        return vague(OLD)

    # sender

    @property
    def claimed(self) -> bool:
        """Whether one From claims to have written it."""
        return "from" in self.sealed

    def _of_sender(self, fact: str) -> Told:
        addresses = self.count("list_addresses")
        unclear = Unknown(why=self._whys.get("sender.address", "nobody can say who wrote it"))
        match fact:
            case "sender.is_writer" if not addresses.exact or not addresses.high:
                return vague(OLD) if addresses.high else Told(True)
            case "stream" if addresses.low or not self.claimed:
                return Told(_NOTHING)
            case "stream" if self.streams or self.facts is not None:
                return Told(frozenset(self.streams))
            case "sender.proven" | "sender.is_writer" if not self.claimed:
                return Told(False)
            case "sender.address" | "sender.internal" if not self.claimed:
                return Told(unclear)
            case "sender.address":
                written = self.names("from")
                return Told(written[0]) if written else vague(ERASED)
            case _ if self.facts is None:
                return vague(OLD)
            case "sender.internal":
                return Told(True)
            case "sender.proven":
                return Told("actor" in self.sealed)
            case "sender.is_writer":
                return Told(False)
        return vague(OLD)

    # counts

    def _of_count(self, asked: Window) -> Told:
        own = self.of_itself(asked.fact)
        if ALL_FACTS[asked.fact].own == "recipients.customers" and not self.count("customers").high:
            return Told(NONE)
        if asked.fact in OF_LETTERS and self.is_no_letter:
            return Told(False if asked.fact == "message.answers" else NONE)
        if asked.fact in _OF_LISTS and self.exact and not self.lists:
            return Told(NONE)
        if asked.fact == "sender.customers" and not self.claimed:
            return self._of_sender("sender.address")
        if asked.slot not in self._asked:
            return vague(UNCOUNTED, self._from_other_times(asked, own))
        if (kept := self._kept(asked.slot)) is not None:
            return kept
        if self.facts is None:
            return vague(OLD, own)
        fact = ALL_FACTS[asked.fact]
        if few := fact.kept_from:
            return vague(f"fewer than {few}: not kept", Count(own.low, max(own.low, few - 1)))
        if self.mailing and fact.name in OF_MAILINGS:
            return self.told(Window(fact.own, fact.own))
        return vague(OLD, own)

    @cached_property
    def is_no_letter(self) -> bool:
        """Whether it surely is no letter to a customer, of which alone first contacts are counted."""
        return not self.count("customers").high or bool(self.streams) or self.data.get("looks") == "mailing"

    def of_itself(self, fact: str) -> Count:
        """At least what the message comes to alone, at most anything."""
        match fact:
            case "mailing.customers":
                low = self.count("customers").low
                return Count(low, max(low, self.come))
            case "sender.customers":
                return Count(self.count("customers").low, math.inf)
            case "mailing.share":
                share = self.told(Window("recipients.share", "recipients.share")).value
                sized = isinstance(share, Count) and self.exact and self.count("reach").exact
                return Count(share.low if sized and isinstance(share, Count) else 0, 1)
        match ALL_FACTS[fact].own, ALL_FACTS[fact].type:
            case "recipients.customers" | "recipients.reach" as own, _:
                return Count(self.count(own.partition(".")[2]).low, math.inf)
            case _, Type.SHARE:
                return ANY_SHARE
        return ANY

    def _from_other_times(self, asked: Window, own: Count) -> Count:
        """Of the same count over longer and shorter times, what is known bounds it."""
        low, high = own
        for other in self._asked.values():
            if other.fact != asked.fact or other.slot == asked.slot:
                continue
            if other.slot.endswith(SAME) != asked.slot.endswith(SAME):
                continue
            value = self._of_count(other).value
            if isinstance(value, Count):
                if other.seconds < asked.seconds:
                    low = max(low, value.low)
                else:
                    high = min(high, value.high)
        return Count(low, max(low, high))


def _observed(name: str, text: object) -> Value | None:
    """What a reason says that was seen, where it says it exactly."""
    fact = ALL_FACTS.get(name)
    if fact is None or not isinstance(text, str) or text.startswith("unknown ("):
        return None
    match fact.type:
        case Type.TRUTH if text in ("true", "false"):
            return text == "true"
        case Type.COUNT:
            low, _, high = text.partition(" to ")
            try:
                return Count(float(low), float(high or low))
            except ValueError:  # "at rest"
                return None
        case Type.WORD if fact.words:
            return text
        case Type.WORDS if name in OF_TOPICS:  # names, which have no comma
            return frozenset() if text == "none" else frozenset(text.split(", "))
    return None
