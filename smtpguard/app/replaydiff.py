"""Compare two policies, apart from their rules, for one recorded message: which of its facts stay known under the other
policy.

The table of facts names the parts of a policy that each fact depends on. Membership comes from the list versions of
then. A list that only the other policy has, or declares differently, is asked as it is today, for recipients whose
addresses are not erased. Which messages are copies of one mailing is taken as recorded.

It also keeps the differences so far that affect later messages: waiting mailings, and counts. A mailing that the policy
would have held counts as still waiting, since the decision of its approvers cannot be known. After MOST entries no more
are kept, and every later result that depends on them is uncertain.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from smtpguard.admission.mailingverdict import OF_REACH
from smtpguard.admission.packedfacts import NOT_FOUND
from smtpguard.admission.recorded import ANY, WAITING, Recorded
from smtpguard.guard.inforce import InForce
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.registry import Registry
from smtpguard.policy.condition import NO, UNKNOWN, YES, Answer
from smtpguard.policy.counted import COUNTED
from smtpguard.policy.facts import FACTS, OF_LETTERS, Count, Part, Source, Type, Unknown, Value, Within
from smtpguard.policy.rule import Rule, Strength
from smtpguard.policy.verdict import Action, Scope
from smtpguard.reading.marks import OF_LIST_HEADERS

WHY: Mapping[Part, str] = {
    Part.MEMBERSHIP: "the lists are declared differently",
    Part.ORGANIZATION: "the colleagues are declared differently",
    Part.TEXT: "the marks are declared differently",
    Part.VOCABULARIES: "the vocabularies differ",
    Part.STREAMS: "the streams are declared differently",
    Part.CONVERSATIONS: "other conversations would have been counted",
    Part.ORIGIN: "the origins are declared differently",
    Part.SHARED: "the shared mailboxes are declared differently",
}
OF_LISTS = "the properties of the lists are declared differently"

_OF_LISTS: Mapping[Part, Callable[[ListInfo], Any]] = {
    Part.WRITERS: lambda info: (info.writers, info.origin),
    Part.ORIGIN: lambda info: info.origin,
    Part.AVOID: lambda info: info.avoid,
    Part.AUDIENCE: lambda info: info.audience,
    Part.SENSITIVITY: lambda info: info.sensitivity,
    Part.LANGUAGE: lambda info: info.language,
}
_ANY_SHARE = Count(0, 1)
_BEFORE = (Source.ENVELOPE, Source.HEADERS)
"""The sources of facts that are known for every message, whatever the rules ask."""
MOST = 500_000
"""The most mailings, contents, writers, lists and streams that are kept, each."""
_SECOND = 1_000_000


@dataclass(frozen=True, eq=False)
class CompiledPolicy:
    """A policy with what is built from it. Its registry has the lists' indexes of today."""

    policy: InForce

    @property
    def registry(self) -> Registry:
        return self.policy.registry

    @property
    def lists(self) -> Mapping[str, ListInfo]:
        return self.registry.lists

    @cached_property
    def asked_slots(self) -> Mapping[str, tuple[str, int]]:
        """The fact and the window in seconds that each slot of its rules asks for."""
        return {c.slot: (c.fact.name, c.window_seconds) for rule in self.policy.rules.rules for c in rule.conditions}

    @cached_property
    def limited(self) -> frozenset[str]:
        """The streams with a limit."""
        streams = self.registry.streams.items()
        return frozenset(name for name, s in streams if s.max is not None or s.max_per_person is not None)

    @cached_property
    def by_id(self) -> Mapping[str, Rule]:
        return {rule.rule_id: rule for rule in self.policy.rules.rules}

    @cached_property
    def by_sense(self) -> Mapping[Any, tuple[Rule, ...]]:
        found: dict[Any, tuple[Rule, ...]] = {}
        for rule in self.policy.rules.rules:
            found[rule.sense] = (*found.get(rule.sense, ()), rule)
        return found

    def answered(self, rule: Rule, message: Recorded) -> Answer | None:
        """Return the answer that a rule of this policy, which was in force, gave. None if it is unknown: the rule may have been
        skipped, since it could not have made the verdict stricter."""
        if rule.rule_id in message.hits:
            return UNKNOWN if rule.rule_id in message.uncertain else YES
        strongest = max((self._strength(name, message) for name in message.own if name in self.by_id), default=None)
        return NO if rule.observes or not message.own or strongest is None or rule.strength() > strongest else None

    def does(self, name: str, message: Recorded) -> tuple[Action | None, Scope | None]:
        """Return the action and scope of a rule that hit while this policy was in force; None for a built-in rule."""
        return (self._strength(name, message)[0], self.by_id[name].scope) if name in self.by_id else (None, None)

    def _strength(self, name: str, message: Recorded) -> Strength:
        return self.by_id[name].strength(UNKNOWN if name in message.uncertain else YES)

    @cached_property
    def conversations(self) -> frozenset[Any]:
        """What decides which conversations are counted: policies that are equal in it count the same. It equals nothing if that
        depends on something that was read only if another rule wanted it."""
        lazy = {slot for slot, (fact, _) in self.asked_slots.items() if fact in COUNTED and COUNTED[fact].lazy}
        found = set()
        for rule in self.policy.rules.rules:
            if lazy.isdisjoint(rule.slots):
                continue
            others = [c for c in rule.conditions if c.fact.name not in COUNTED]
            if any(c.fact.source not in _BEFORE for c in others):
                return frozenset({object()})
            when, unless = (frozenset(c.sense for c in some if c in others) for some in (rule.when, rule.unless))
            stop = (rule.rule_id, rule.stop_seconds) if rule.stop_seconds else ()
            found.add((when, unless, frozenset(lazy & rule.slots), stop))
        return frozenset(found)


@dataclass(eq=False)
class PolicyDiff:
    """The difference between the policy that was in force ``then`` (None if it is no longer kept) and another."""

    then: CompiledPolicy | None
    other: CompiledPolicy
    _last: tuple[Recorded, frozenset[Part]] | None = field(default=None, repr=False)
    """The last message asked about, and its differing parts."""

    @cached_property
    def nothing(self) -> bool:
        """Whether the two differ at most in what their rules ask and do."""
        then, other = self.then, self.other
        same = then is not None and then.lists == other.lists and then.registry.streams == other.registry.streams
        return same and not self._always and not self._shared

    @cached_property
    def _always(self) -> frozenset[Part]:
        """Parts that differ for every message."""
        if self.then is None:
            return frozenset(Part)
        differing: Mapping[Part, Callable[[CompiledPolicy], Any]] = {
            Part.ORGANIZATION: _organization_of,
            Part.TEXT: _text_settings,
            Part.VOCABULARIES: lambda compiled: compiled.policy.vocabularies,
            Part.CONVERSATIONS: lambda compiled: compiled.conversations,
        }
        found = {part for part, of in differing.items() if of(self.then) != of(self.other)}
        return frozenset(found | ({Part.MEMBERSHIP} if Part.ORGANIZATION in found else set()))

    @cached_property
    def _lists(self) -> frozenset[str]:
        """Lists that contain other people, or that only one of the two has."""
        before = self.then.lists if self.then is not None else {}
        return frozenset(
            name
            for name in {*before, *self.other.lists}
            if self.then is None or _list_people(self.then, name) != _list_people(self.other, name)
        )

    def parts(self, message: Recorded) -> frozenset[Part]:
        """Return the parts of the policy that differ for a message."""
        if self.nothing:
            return frozenset()
        if self._last is None or self._last[0] is not message:
            found = {part for part, of in _OF_LISTS.items() if not self._same_lists(message, of)}
            found |= {Part.STREAMS} if not self._same_streams(message) else set()
            found |= {Part.MEMBERSHIP} if self._moved(message) else set()
            found |= {Part.ORIGIN} if self._headers_count_otherwise(message) else set()
            found |= {Part.SHARED} if self._shared_otherwise(message) else set()
            self._last = message, self._always | found
        return self._last[1]

    def moved(self, message: Recorded) -> bool:
        """Return whether the other policy may classify its recipients differently."""
        return Part.MEMBERSHIP in self.parts(message)

    def limits(self, message: Recorded) -> bool:
        """Return whether a stream that it uses has other limits."""
        return any(
            self.then is None or _stream_limits(self.then, name) != _stream_limits(self.other, name)
            for name in message.streams
        )

    def why(self, fact: str, message: Recorded) -> str:
        """Return why the other policy may have known another value of a fact; "" if it knew the same."""
        differs = self.parts(message) & FACTS[fact].parts
        return next((why for part, why in WHY.items() if part in differs), OF_LISTS if differs else "")

    def _moved(self, message: Recorded) -> bool:
        if not self._lists:
            return False
        if message.touches & self._lists or not message.exact:
            return True
        known = message.recipients
        return known is None or not self._lists.isdisjoint(self.other.registry.classify(known).touched)

    def _same_lists(self, message: Recorded, key: Callable[[ListInfo], Any]) -> bool:
        """Return whether the lists that it touches, or may touch, have equal keys."""
        if self.then is None:
            return False
        before, after = self.then.lists, self.other.lists
        names = message.lists if message.exact else {*before, *after}
        return all(name in before and name in after and key(before[name]) == key(after[name]) for name in names)

    def _same_streams(self, message: Recorded) -> bool:
        if self.then is None:
            return False
        if _streams(self.then) == _streams(self.other) or not message.claimed:
            return True
        written = message.names("from")
        before, after = (
            {(s.name, s.origin) for s in g.registry.streams_from(written[0])} if written else None
            for g in (self.then, self.other)
        )
        return before is not None and before == after

    @cached_property
    def _other_origins(self) -> bool:
        return self.then is None or _origins(self.then) != _origins(self.other)

    def _headers_count_otherwise(self, message: Recorded) -> bool:
        """Return whether it may have list headers that count otherwise: they count from any origin that a list or stream declares."""
        marks = message.value("message.marks") if self._other_origins else frozenset[str]()
        return not isinstance(marks, frozenset) or not OF_LIST_HEADERS.isdisjoint(marks)

    def _shared_otherwise(self, message: Recorded) -> bool:
        """Return whether its writer's mailbox may be one in which several people answer, under only one of the two policies."""
        differing = self._shared
        if not differing or message.author is None:
            return bool(differing)
        return message.author.canonical(self.other.policy.delimiters) in differing

    @cached_property
    def _shared(self) -> frozenset[str]:
        before = self.then.policy.organization.shared if self.then is not None else frozenset[str]()
        return before ^ self.other.policy.organization.shared

    def derived(self, fact: str, message: Recorded) -> Value | None:
        """Derive the value that a fact has under the other policy, or bounds of it; None if nothing is known."""
        moved, differs = self.moved(message), self.parts(message) & FACTS[fact].parts
        match fact:
            case "sender.internal":
                return None if message.author is None else self.other.registry.names.is_internal(message.author)
            case "stream":
                return frozenset() if self._uses_none(message) else None
            case "sender.is_writer":
                return False if self._may_not_write(message) else None
            case "recipients.audience" | "recipients.sensitivity" | "list.language" if not moved:
                return self._of_lists(fact, message)
            case "message.unsuitable_topics" if differs == {Part.AVOID}:
                return self._unsuitable(message)
        if FACTS[fact].area == "recipients":
            return self._of_recipients(fact, message)
        if FACTS[fact].number and Part.TEXT not in differs:
            return Within(_ANY_SHARE if FACTS[fact].type is Type.SHARE else ANY)
        return None

    def _uses_none(self, message: Recorded) -> bool:
        """Return whether surely no stream of the other policy has its writer as a sender."""
        written = message.author
        if written is None:
            return False
        return not self.other.registry.streams_from(written.canonical(self.other.policy.delimiters))

    def _may_not_write(self, message: Recorded) -> bool:
        """Return whether it is surely addressed to a list that does not have its writer among its writers."""
        written, known = message.author, message.recipients
        if written is None or known is None or self.other.policy.expansions:
            return False
        writer, registry = written.canonical(self.other.policy.delimiters), self.other.registry
        return any((info := registry.list_at(a)) is not None and writer not in info.writers for a in known)

    def _of_lists(self, fact: str, message: Recorded) -> Value | None:
        """Return a property of its lists, as the other policy declares them."""
        name, lists = fact.partition(".")[2], _known(message.value("recipients.lists"))
        if lists is None or not lists <= self.other.lists.keys():
            return None
        said = [value for n in lists if (value := getattr(self.other.lists[n], name))]
        found = frozenset(word for value in said for word in ([value] if isinstance(value, str) else value))
        return found if message.exact else _partly(found)

    def _unsuitable(self, message: Recorded) -> Value | None:
        """Return its unsuitable topics, if the policies differ only in the topics that lists are to be spared."""
        topics = _known(message.value("message.topics"))
        if topics is None or not message.lists <= self.other.lists.keys():
            return None
        found = topics & frozenset().union(*(self.other.lists[n].avoid for n in message.lists))
        whole = message.exact and message.value("message.readable") == "yes"
        return found if whole else _partly(found)

    def _of_recipients(self, fact: str, message: Recorded) -> Value | None:
        """Return a fact about recipients who may be classified differently: what their addresses say, or bounds."""
        known, registry = message.recipients, self.other.registry
        most = Within(Count(0, message.total))
        if known is None or self.other.policy.expansions:
            addresses, people, internal = None, 0, 0
        else:
            different = {a.canonical(registry.digester.delimiters): a for a in known}.values()
            lists = [a for a in different if registry.list_at(a) is not None]
            addresses, people = len(lists), len(different) - len(lists)
            internal = sum(registry.names.is_internal(a) for a in different if a not in lists)
        match fact:
            case "recipients.list_addresses":
                return most if addresses is None else Count.exactly(addresses)
            case "recipients.internal":
                return most if addresses is None else Count.exactly(internal)
            case "recipients.outside":
                return most
            case "recipients.reach" if addresses == 0:
                return Count.exactly(people)
            case _ if not FACTS[fact].number:
                return None
            case _ if FACTS[fact].type is Type.SHARE:
                return Within(_ANY_SHARE)
        return most if addresses == 0 else Within(ANY)


def _organization_of(compiled: CompiledPolicy) -> Any:
    said = compiled.policy.organization
    people = said.domains, said.customers_here, said.people, said.members
    return people, compiled.policy.expansions, compiled.policy.delimiters


def _text_settings(compiled: CompiledPolicy) -> Any:
    policy = compiled.policy
    list_ids = {i for info in compiled.lists.values() for i in info.list_ids}
    names = frozenset(compiled.registry.names.enumerated())
    return policy.organization.domains, policy.marks, policy.own_marks, names, list_ids


def _known(value: Value | None) -> frozenset[str] | None:
    """Return the words of a set, or of the part of it that is known; None if nothing is."""
    some = value.known if isinstance(value, Unknown) else value
    return some if isinstance(some, frozenset) else None


def _partly(found: frozenset[str]) -> Unknown | None:
    return replace(NOT_FOUND, known=found) if found else None


def _origins(compiled: CompiledPolicy) -> Any:
    return {info.origin for info in compiled.lists.values()} | {s.origin for s in compiled.registry.streams.values()}


def _streams(compiled: CompiledPolicy) -> Any:
    return {s.name: (s.senders, s.origin) for s in compiled.registry.streams.values()}


def _list_people(compiled: CompiledPolicy, name: str) -> Any:
    """Return the addresses and sources of a list, which determine its members; None without such a list."""
    if (info := compiled.lists.get(name)) is None:
        return None
    sources = [members.what() for members in info.members]
    addresses = {address for address, known in compiled.registry.names.enumerated() if known == name}
    return addresses, info.of_customers, info.includes, sources


def _stream_limits(compiled: CompiledPolicy, name: str) -> Any:
    stream = compiled.registry.streams.get(name)
    return None if stream is None else (stream.max, stream.max_per_person)


class Waiting(NamedTuple):
    """A mailing of which a message went differently. ``by_size``: it may wait because of its size, so that its messages to customers
    wait with it; ``by_reach``: it may wait because of its reach, so that all its messages do. ``full``: so many messages may have
    been stored that further ones would be deferred."""

    by_size: bool
    by_reach: bool
    full: bool


class Amount(NamedTuple):
    """The most people (or messages) by which a count may differ. ``at``: when the last of them came, in microseconds."""

    at: int
    most: float


class Drift(NamedTuple):
    """The amounts by which a count may be lower, and higher."""

    fewer: float = 0
    more: float = 0


_NONE = Drift()


@dataclass(slots=True)
class Divergence:
    """What went differently than recorded, as far as it affects later messages. ``copies``: the most copies of one mailing that are
    stored; later ones are deferred, and not counted."""

    copies: int
    lost: bool = False
    """Whether more went differently than MOST."""
    by_reach: bool = False
    """Whether any mailing may wait because of how many people it reaches, colleagues included."""
    _went: Counter[str] = field(default_factory=Counter)
    _by_size: set[str] = field(default_factory=set)
    _by_reach: set[str] = field(default_factory=set)
    _stored: set[bytes] = field(default_factory=set)
    _addressed: set[bytes] = field(default_factory=set)
    _fewer: dict[str, Amount] = field(default_factory=dict)  # by the key of a count
    _more: dict[str, Amount] = field(default_factory=dict)

    def note_otherwise(self, message: Recorded, sizes: Collection[str] | None) -> None:
        """Note that the message, or an earlier one of its mailing, went differently than recorded. ``sizes``: what the rules ask
        about the mailing's size, if the message may have been held; None if it surely was not."""
        by_reach = bool(OF_REACH.intersection(sizes or ()))
        self.by_reach |= by_reach
        if not (mailing := message.mailing):
            return
        # What waits of it so far waits in the record as well, for a reason that is not kept.
        waits = mailing not in self._went and message.stood(WAITING)
        for there, wanted in ((self._by_size, sizes or waits), (self._by_reach, by_reach or waits)):
            if wanted and self._has_room(there, mailing):
                there.add(mailing)
        if (sizes is not None or mailing not in self._went) and self._has_room(self._went, mailing):
            self._went[mailing] += 1

    def counted(self, message: Recorded, *, fewer: bool, more: bool) -> None:
        """Note that a message may be counted although it was not (``more``), or the other way round (``fewer``)."""
        self._count(message, _count_keys(message), fewer=fewer, more=more)

    def note_passed(self, message: Recorded, *, fewer: bool, more: bool) -> None:
        """Note the same for the counts that leave out held messages."""
        self._count(message, _sender_and_list_keys(message), fewer=fewer, more=more)

    def _count(self, message: Recorded, keys: Iterable[str], *, fewer: bool, more: bool) -> None:
        if not (fewer or more):
            return
        people, keys = message.count("reach").high, list(keys)
        for there, known in ((fewer, self._fewer), (more, self._more)):
            for key in keys if there else ():
                self._add(known, key, message.at, people)

    def moved(self, message: Recorded, reach: float) -> None:
        """Note that a message may count elsewhere, since its recipients, at most ``reach`` people, may be classified differently. If
        its mailing is unknown it may belong to any."""
        for known in (self._fewer, self._more):
            for key in (
                *_count_keys(message),
                *_sender_and_list_keys(message),
                *(() if message.mailing else ("mailing",)),
            ):
                self._add(known, key, message.at, max(reach, message.count("reach").high))

    def _add(self, known: dict[str, Amount], key: str, at: int, most: float) -> None:
        if self._has_room(known, key):
            known[key] = Amount(at, most + (known[key].most if key in known else 0))

    def note_arrival(self, message: Recorded, *, held: bool, addressed: bool) -> None:
        """Note whether a message may be stored, and whether it went to a list address."""
        for there, wanted in ((self._stored, held), (self._addressed, addressed)):
            if wanted and self._has_room(there, itself := _retry_digest(message)):
                there.add(itself)

    def waiting(self, message: Recorded) -> Waiting | None:
        """Return how its mailing may wait, if an earlier message of it went differently; else None."""
        mailing = message.mailing
        if mailing and self.lost:
            return Waiting(by_size=True, by_reach=True, full=True)
        if not mailing or mailing not in self._went:
            return None
        full = self._went[mailing] > self.copies
        return Waiting(by_size=mailing in self._by_size, by_reach=mailing in self._by_reach, full=full)

    def may_be_retry(self, message: Recorded) -> bool:
        """Return whether the same message may be held already, so that this is only its retry."""
        return self.lost or _retry_digest(message) in self._stored

    def may_have_gone_to_list(self, message: Recorded) -> bool:
        """Return whether the same message may have gone to a list address before."""
        return self.lost or _retry_digest(message) in self._addressed

    def drift(self, message: Recorded, fact: str, seconds: int) -> Drift:
        """Return the drift of one of its counts. Differences that have left the window do not matter."""
        if fact in OF_LETTERS and message.is_no_letter:
            return _NONE
        if self.lost:
            return Drift(math.inf, math.inf)
        if not (self._fewer or self._more) and not fact.startswith("mailing."):
            return _NONE
        window = COUNTED[fact].window_seconds if fact in COUNTED else 0
        after = message.at - (window or seconds) * _SECOND
        keys = _fact_keys(message, fact)
        fewer, more = (
            sum(known[key].most for key in keys if key in known and known[key].at >= after)
            for known in (self._fewer, self._more)
        )
        if fact.startswith("mailing.") and (waiting := self.waiting(message)) is not None and waiting.full:
            fewer = math.inf
        return Drift(fewer, more)

    def _has_room(self, there: Collection[Any], key: Any) -> bool:
        if len(there) < MOST or key in there:
            return True
        self.lost = True
        return False


def _retry_digest(message: Recorded) -> bytes:
    """Return a digest of content and recipients, which identifies a retry."""
    text = " ".join((message.data.get("content") or message.id, *message.sealed.get("recipients", ())))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _count_keys(message: Recorded) -> Iterable[str]:
    """Yield the keys that a message is counted under."""
    yield "thread"
    if message.mailing:
        yield f"mailing {message.mailing}"
    yield from (f"stream {name}" for name in message.streams)


def _sender_and_list_keys(message: Recorded) -> Iterable[str]:
    """Yield the keys of counts that leave out held messages: those of senders and lists."""
    yield from _senders(message)
    yield from (f"list {name}" for name in message.lists)


def _senders(message: Recorded) -> tuple[str, ...]:
    who = [f"from {message.writer}"] if message.writer else []
    who += [f"login {user.lower()}" for role in ("actor", "from") for user in message.names(role)]  # it may be a From
    if message.value("sender.proven") is not True and (client := message.data.get("client")):
        who.append(f"client {client}")
    return tuple(who)


def _fact_keys(message: Recorded, fact: str) -> tuple[str, ...]:
    area = fact.partition(".")[0]
    if area == "sender" or (fact in OF_LETTERS and area != "list"):
        return _senders(message)
    match area:
        case "mailing":
            return (f"mailing {message.mailing}", "mailing")
        case "list":
            return tuple(f"list {name}" for name in message.lists)
        case "stream":
            return tuple(f"stream {name}" for name in message.streams)
    return ("thread",)
