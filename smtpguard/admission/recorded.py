"""A verdict's facts and its journal entry: the facts as its entry keeps them (``pack``), and the entry read back as the
message it was about, with what was done and the facts that are known (Recorded). Pure.

Reading is total: entries of every version. Earlier versions kept facts in ``data`` and left out values that are the same
for nearly all mail. From those entries only the recipient counts and the facts that are named are known.

Packed facts are one line of JSON, written and read by the table of facts. ``since`` is the version; ``read``: the first
letters of the sources that were asked. A fact of these sources that is not named had its default; ``not_asked`` names
those that were not asked. Facts newer than the version, and those of other sources, are not known. Counts, and people's
decisions on the mailing, are always named, if they were asked for. Values are as in JSON: a set is a list; an interval
``[low, high]`` with null for no end; null: it could not be found out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import orjson

from smtpguard.journal.chain import Clear, Entry, instant, parsed
from smtpguard.mail.address import Address, BadAddress
from smtpguard.policy.counted import Subject
from smtpguard.policy.facts import FACTS as TABLE
from smtpguard.policy.facts import Count, Source, Unknown, Value, Within, named
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.rule import COPIES, FIXED
from smtpguard.policy.verdict import Action

VERSION = max(fact.since for fact in TABLE.values())
SINCE, READ, NOT_ASKED = "since", "read", "not_asked"
NOT_FOUND = Unknown(why="it could not be found out then")
TEXT = "t"

_ascii = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode

_LETTERS = {source: source.value[0] for source in Source if source is not Source.LIVE}
_BY_LETTER = tuple(
    (letter, tuple(fact for fact in TABLE.values() if fact.source is source and not fact.elsewhere))
    for source, letter in _LETTERS.items()
)
_NAMES = tuple(fact.name for _, facts in _BY_LETTER for fact in facts)


def pack(values: Mapping[str, Value], counted: Mapping[str, Value], *, text: bool) -> str:
    """``counted``: by slot, the admission's values. ``text``: whether facts of the text may be stored."""
    told = tuple(map(values.get, _NAMES))
    return _written(told, counted, text) if text and counted else _packed(told, tuple(counted.items()), text)


@lru_cache(maxsize=1024)
def _packed(told: tuple[Value | None, ...], counted: tuple[tuple[str, Value], ...], text: bool) -> str:
    """Cached, since most messages have the same values as an earlier one. Copies of a mailing have other counts each."""
    return _written(told, dict(counted), text)


def _written(told: tuple[Value | None, ...], counted: Mapping[str, Value], text: bool) -> str:
    return _encoded({**_kept(told, text), **{slot: _plain(value) for slot, value in counted.items()}})


def _encoded(kept: Mapping[str, Any]) -> str:
    try:
        text = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:  # a lone surrogate
        return _ascii(kept)
    return text if text.isascii() else _ascii(kept)


@lru_cache(maxsize=1024)
def _kept(values: tuple[Value | None, ...], text: bool) -> Mapping[str, Any]:
    kept: dict[str, Any] = {SINCE: VERSION, READ: ""}
    not_asked: list[str] = []
    told = dict(zip(_NAMES, values, strict=True))
    for letter, facts in _BY_LETTER:
        missing = [fact.name for fact in facts if told[fact.name] is None]
        if len(missing) == len(facts) or (letter == TEXT and not text):
            continue
        kept[READ] += letter
        not_asked += missing
        for fact in facts:
            value = told[fact.name]
            if value is not None and value != fact.default:
                kept[fact.name] = _plain(value)
    if not_asked:
        kept[NOT_ASKED] = not_asked
    return kept


@lru_cache(maxsize=1024)
def unpack(text: str) -> Mapping[str, Value]:
    """Every value that was known, by slot. Total: none for text that is no such line."""
    try:
        kept = json.loads(text)
        since, read = int(kept.pop(SINCE)), str(kept.pop(READ))
        not_asked = frozenset(kept.pop(NOT_ASKED, ()))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}
    known: dict[str, Value] = {
        fact.name: fact.default
        for letter, facts in _BY_LETTER
        if letter in read
        for fact in facts
        if fact.since <= since and fact.name not in not_asked
    }
    for slot, plain in kept.items():
        value = value_of(plain)
        if value is None:
            known.pop(slot, None)
        else:
            known[slot] = value
    return known


def _plain(value: Value) -> Any:
    match value:
        case Unknown() | Within():
            return None
        case Count(low=low, high=high):
            return _figure(low) if low == high else [_figure(low), None if high == float("inf") else _figure(high)]
        case frozenset():
            return sorted(value)
    return value


def _figure(n: float) -> float:
    return int(n) if n == n // 1 else n


def value_of(plain: Any) -> Value | None:
    """From JSON; None for anything else."""
    match plain:
        case None:
            return NOT_FOUND
        case bool():
            return plain
        case int() | float():
            return Count.exactly(plain)
        case [int() | float() as low, None | int() | float() as high]:
            return Count(low, float("inf") if high is None else high)
        case list():
            return frozenset(map(str, plain))
        case str():
            return plain
    return None


FACTS = "facts"
"""The role, in an entry's private part, of the packed facts; and in ``data`` of what earlier versions kept."""
DECIDED = "decided"
"""In ``data``: those of WAITING, REJECTED, CONFIRMED and APPROVED that were true of the message's mailing. They name
nobody, and are not erased."""
WAITING, REJECTED, CONFIRMED = "mailing.waiting", "mailing.rejected", "mailing.confirmed"
"""A hold of the mailing waits; people have rejected it; its writer has confirmed it. No rule asks for these as facts.
"""
REPLY = "message.reply"
"""Whether it is a reply in a conversation. No rule asks for this as a fact either."""
ANY = Count(0, math.inf)

OLD = "it was not recorded then"
UNREAD = "the text was not read then"
UNSAID = "facts of the text are recorded only for mail that reaches a list or counts as a copy"
UNCOUNTED = "no rule counted it then"
ERASED = "the address is erased"
NOT_KEPT = frozenset({OLD, UNREAD, UNSAID, UNCOUNTED, ERASED})
"""Reasons why a fact is not known."""

_SOMEBODY = "somebody"
_ACTIONS = {action.word: action for action in Action}
_MIB = 1 << 20
_OF_RECIPIENTS = named(lambda fact: fact.area == "recipients" and fact.source is Source.ENVELOPE)
_WINDOW = re.compile(r"(\S+)(?: in (\d+))?\Z")


class Recorded:
    """One verdict. ``clear``: names and addresses, None once erased."""

    def __init__(self, entry: Entry, clear: Clear | None) -> None:
        content = parsed(entry.body)
        self.id, self.at = entry.id, entry.at
        self.data: Mapping[str, Any] = content["data"]
        self.sealed: Mapping[str, Sequence[str]] = content["private"]
        self.clear = clear
        self._sparse: Mapping[str, Any] | None = self.data.get(FACTS)
        packed = next(iter(self.names(FACTS)), None)
        self.facts: Mapping[str, Value] | None = None if packed is None else unpack(packed)
        """The known values, by slot; None for an entry of an earlier version, or once erased."""

    # Disposition.

    @property
    def time(self) -> datetime:
        return instant(self.at)

    @property
    def policy(self) -> str:
        return self.data.get("policy") or ""

    @property
    def decided(self) -> bool:
        """Whether rules decided on it. Internal errors have an entry too."""
        return "counts" in self.data

    @property
    def again(self) -> bool:
        """Whether it was held before, and the client only retried."""
        return bool(self.data.get("retry"))

    @property
    def action(self) -> Action:
        """The action. A message of a mailing of which enough copies are stored counts as held, although its client was
        told to wait."""
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
        """The rules that hit, but that people had already decided on."""
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
        """Those of its recipients."""
        return self.touches.difference(self.data.get("reports_to", ()))

    @property
    def touches(self) -> frozenset[str]:
        """Those too that only reports on it would reach."""
        return frozenset(self.data.get("lists", ()))

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.data.get("streams", ()))

    @property
    def tellable(self) -> bool:
        """Whether its writer has a mailbox to be told at."""
        return bool(self.data.get("tellable"))

    @property
    def total(self) -> int:
        return int(self.data["counts"]["total"])

    @property
    def writer(self) -> str:
        """The claimed writer as a key for counts: the keyed digest in the chain."""
        return next(iter(self.sealed.get("from", ())), "")

    @property
    def claimed(self) -> bool:
        """Whether it has exactly one From."""
        return "from" in self.sealed

    def names(self, role: str) -> Sequence[str]:
        """Clear values of a role, as far as they are not erased."""
        return (self.clear or {}).get(role, ())

    @cached_property
    def author(self) -> Address | None:
        return next(iter(_addresses(self.names("from"))), None)

    @cached_property
    def recipients(self) -> Sequence[Address] | None:
        """All recipients, if their addresses are not erased."""
        found = _addresses(self.names("recipients"))
        return found if len(found) == self.total else None

    # Facts.

    def value(self, slot: str) -> Value | None:
        """The value that the guard knew. None if it is not known here; ``why_not`` has the reason."""
        found = self._of(slot)
        if found is NOT_FOUND:
            return Unknown(why=self._whys.get(slot.partition(" ")[0], NOT_FOUND.why))
        return found

    def _of(self, slot: str) -> Value | None:
        """NOT_FOUND without the reason."""
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
        """The value from the recipient counts, if facts are erased, or an earlier version kept none."""
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
        """Whether every list could say who is on it, and no address expands elsewhere: then the counts are exact."""
        people = self.data.get("people")
        return (
            people is not None
            and not self.data.get("reach_at_least")
            and not self.data.get("expanded_from")
            and not any("behind" in one if isinstance(one, dict) else one.endswith("?") for one in people)
        )

    def why_not(self, fact: str) -> str:
        """The reason why the value is not known."""
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
        """The count of a fact ``recipients.*``; bounds if it is not known better."""
        value = self.value(f"recipients.{name}")
        return value if isinstance(value, Count) else ANY

    def stood(self, name: str) -> bool:
        """Whether WAITING, REJECTED or APPROVED was true of its mailing."""
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
        """Whether it surely is not a letter to a customer; first contacts are counted for those letters only."""
        return not self.count("customers").high or bool(self.streams) or self.data.get("looks") == "mailing"

    def subject(self, lists: Iterable[str]) -> Subject:
        """The keys that it is counted under, as far as they are known without a count. ``lists``: all that exist."""
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
        """By window in seconds, the count over all lists and mailings."""
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


def _readable(message: Recorded) -> Value | None:
    """ "yes" if the text had looks, else unknown: unreadable text has none."""
    return "yes" if message.data.get("looks") is not None else None


def _login(message: Recorded) -> Value | None:
    if "actor" not in message.sealed:
        return frozenset()
    users = message.names("actor")
    return frozenset({users[0].lower()}) if users else None


def _domains(message: Recorded) -> Value | None:
    """The domains of the judged recipients. None for a copy from a list server, some of whose recipients were judged
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
    "message.readable": _readable,
    "message.size_mb": lambda message: Count.exactly(message.data["size_bytes"] / _MIB),
    "recipients.domains": _domains,
    "recipients.total": lambda message: Count.exactly(message.total),
    "sender.address": _sender,
}
"""Facts from other parts of the entry. Those of a text are used if its facts are not kept."""
