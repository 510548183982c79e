"""Translate a journaled message's facts to another policy: a fact is unchanged unless the two policies differ in its inputs.

Membership comes from the lists as they were. A list that only the other policy has, or declares differently, is asked as it is today,
for recipients who are still known by name; facts that depend on the others are intervals. Which messages are copies of one mailing is
taken as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from smtpguard.hindsight.compiledpolicy import CompiledPolicy
from smtpguard.hindsight.recalled import ANY, ANY_SHARE, UNCOUNTED, Recalled, Told, Window, vague
from smtpguard.lists.declared import ListInfo
from smtpguard.policy.counted import COUNTED
from smtpguard.policy.facts import FACTS, Count, Source, Unknown, named
from smtpguard.policy.rule import Rule

WHO = "the lists are declared otherwise"
WHOSE = "the streams and the lists' writers are declared otherwise"
WORDS = "what tells how a text is read is declared otherwise"
OF_WHO = {"message.correspondence", "message.unsuitable_topics", *COUNTED} | named(
    lambda fact: fact.area in ("recipients", "list") and fact.name not in ("recipients.total", "recipients.domains")
)
"""Facts that hang on who is on which list."""
_HOW_OFTEN = frozenset({"refresh", "stale_after", "at_least", "max_shrink", "max_bad"})
"""Of a source, what does not say who is on the list."""


@dataclass(eq=False)
class PolicyDiff:
    """From the policy of ``then`` (None: it is not kept any more) to another."""

    then: CompiledPolicy | None
    other: CompiledPolicy
    _asked: tuple[Recalled, bool] | None = field(default=None, repr=False)
    """The last message that was asked about, and whether its recipients may be others."""

    @cached_property
    def alike(self) -> tuple[tuple[Rule, ...], ...]:
        """Of each rule of the other policy those of then that asked the same."""
        then = self.then.of_sense if self.then is not None else {}
        return tuple(then.get(rule.sense, ()) for rule, _ in self.other.rules)

    # what differs at all

    @cached_property
    def nothing(self) -> bool:
        """Whether the two differ in no more than what their rules ask and do."""
        then, other = self.then, self.other
        same = then is not None and then.lists == other.lists and then.registry.streams == other.registry.streams
        return same and self.calm and not (self.people or self.reading or self.topics)

    @cached_property
    def lists(self) -> frozenset[str]:
        """Those that mean other people, or that only one of the two has."""
        before = self.then.lists if self.then is not None else {}
        after = self.other.lists
        return frozenset(
            name
            for name in {*before, *after}
            if self.then is None
            or name not in before
            or name not in after
            or _who(self.then, name) != _who(self.other, name)
        )

    @cached_property
    def people(self) -> bool:
        """Whether it is another question altogether who somebody is."""
        return self.then is None or self._other(
            lambda g: (
                g.policy.organization.domains,
                g.policy.organization.customers_here,
                g.policy.organization.people,
                g.policy.organization.members,
                g.policy.expansions,
                g.policy.delimiters,
            )
        )

    @cached_property
    def reading(self) -> bool:
        """Whether a text would have been read otherwise."""
        return self._other(
            lambda g: (
                g.policy.organization.domains,
                g.policy.marks,
                g.policy.own_marks,
                frozenset(g.registry.names.known()),
                {i for info in g.lists.values() for i in info.list_ids},
            )
        )

    @cached_property
    def topics(self) -> bool:
        return self._other(lambda g: g.policy.vocabularies)

    @cached_property
    def streams(self) -> bool:
        return self._other(lambda g: {s.name: (s.senders, s.origin) for s in g.registry.streams.values()})

    @cached_property
    def calm(self) -> bool:
        """Whether both count the same conversations."""
        return self.then is not None and self.then.calm == self.other.calm

    def _other(self, of: Callable[[CompiledPolicy], Any]) -> bool:
        return self.then is None or of(self.then) != of(self.other)

    def limits(self, message: Recalled) -> bool:
        """Whether a stream that it uses has other limits."""
        return any(
            self.then is None or _limits(self.then, name) != _limits(self.other, name) for name in message.streams
        )

    # what differs for a message

    def moved(self, message: Recalled) -> bool:
        """Whether its recipients may be somebody else to the other policy."""
        if self._asked is None or self._asked[0] is not message:
            self._asked = message, self._moved(message)
        return self._asked[1]

    def _moved(self, message: Recalled) -> bool:
        if self.nothing:
            return False
        if self.people:
            return True
        if not self.lists:
            return False
        if message.lists & self.lists or not message.exact:
            return True
        known = message.recipients
        return known is None or not self.lists.isdisjoint(self.other.registry.classify(known).touched)

    def same(self, asked: Window, message: Recalled) -> bool:
        """Whether the other policy would have known of it exactly what the policy of then knew, known here or not."""
        if self.nothing:
            return True
        fact = asked.fact
        if fact in OF_WHO and self.moved(message):
            return False
        match fact:
            case "recipients.audience":
                return self._alike(message, lambda info: info.audience)
            case "recipients.sensitivity":
                return self._alike(message, lambda info: info.sensitivity)
            case "list.language":
                return self._alike(message, lambda info: info.language)
            case "message.looks":
                return not self.reading and self._alike(message, lambda info: info.origin)
            case "message.readable":
                return True
            case "message.topics":
                return not self.topics
            case "message.unsuitable_topics":
                return not self.topics and self._alike(message, lambda info: info.avoid)
            case "sender.internal":
                return not self.people
            case "sender.is_writer":
                return not self.moved(message) and self._same_writers(message)
            case "stream":
                return not self.moved(message) and self._same_streams(message)
            case "thread.replies" | "thread.reach":
                return self.calm
        match FACTS[fact].source:
            case Source.TEXT:
                return not self.reading
            case Source.ORIGIN:
                return not self.people and self._same_streams(message) and self._same_writers(message)
        return True

    def _alike(self, message: Recalled, of: Callable[[ListInfo], Any]) -> bool:
        """Whether the lists that it touches, or may touch, are alike in this."""
        if self.then is None:
            return False
        names = message.lists if message.exact else {*self.then.lists, *self.other.lists}
        return all(
            name in self.then.lists
            and name in self.other.lists
            and of(self.then.lists[name]) == of(self.other.lists[name])
            for name in names
        )

    def _same_writers(self, message: Recalled) -> bool:
        return self._alike(message, lambda info: (info.writers, info.origin))

    def _same_streams(self, message: Recalled) -> bool:
        if not self.streams or not message.claimed:
            return True
        written = message.names("from")
        if self.then is None or not written:
            return False
        before, after = (
            {(s.name, s.origin) for s in g.registry.streams_from(written[0])} for g in (self.then, self.other)
        )
        return before == after

    # what the other policy would have known

    def told(self, asked: Window, message: Recalled) -> Told:
        fact = asked.fact
        if fact == "sender.internal" and (written := message.author) is not None:
            return Told(self.other.registry.is_internal(written))
        if fact == "stream" and self._uses_none(message):
            return Told(frozenset())
        if fact in OF_WHO and self.moved(message):
            return self._of_others(asked, message)
        if fact in ("recipients.audience", "recipients.sensitivity", "list.language"):
            return self._of_lists(asked, message)
        if self.same(asked, message):
            return message.told(asked)
        if fact == "sender.is_writer" and self._may_not_write(message):
            return Told(False)
        if fact == "message.unsuitable_topics" and not self.topics:
            return self._unsuitable(message)
        if fact in COUNTED:
            return vague(UNCOUNTED, message.of_itself(fact))
        return vague(WORDS if fact.startswith("message.") else WHOSE)

    def _uses_none(self, message: Recalled) -> bool:
        """Whether no stream of the other policy is for who wrote it."""
        written = message.author
        if written is None:
            return False
        return not self.other.registry.streams_from(written.canonical(self.other.policy.delimiters))

    def _may_not_write(self, message: Recalled) -> bool:
        """Whether a list that it is addressed to has other writers."""
        written, known = message.author, message.recipients
        if written is None or known is None or self.other.policy.expansions:
            return False
        writer, registry = written.canonical(self.other.policy.delimiters), self.other.registry
        return any((info := registry.list_at(a)) is not None and writer not in info.writers for a in known)

    def _of_lists(self, asked: Window, message: Recalled) -> Told:
        """What its lists are, the other policy says."""
        name = asked.fact.partition(".")[2]
        lists = message.told(Window("recipients.lists", "recipients.lists"))
        if isinstance(lists.value, frozenset):
            said = [value for n in lists.value if (value := getattr(self.other.lists[n], name))]
            found = frozenset(word for value in said for word in ([value] if isinstance(value, str) else value))
            if found or message.exact:
                return Told(found)
        kept = message.told(asked)
        return kept if isinstance(kept.value, Unknown) and not kept.vague and self.same(asked, message) else vague(WHO)

    def _unsuitable(self, message: Recalled) -> Told:
        """Where only what lists are to be spared is another."""
        topics = message.told(Window("message.topics", "message.topics"))
        if topics.vague or not isinstance(topics.value, frozenset):
            return vague(WORDS)
        certain = topics.value & frozenset().union(*(self.other.lists[n].avoid for n in message.lists))
        return Told(certain) if certain or (message.exact and message.data["looks"] is not None) else vague(WORDS)

    def _of_others(self, asked: Window, message: Recalled) -> Told:
        """Of recipients who may be somebody else: what their addresses say, and bounds."""
        most, known = message.total, message.recipients
        addresses = people = internal = None
        if known is not None and not self.other.policy.expansions:
            registry = self.other.registry
            different = {a.canonical(registry.digester.delimiters): a for a in known}.values()
            lists = [a for a in different if registry.list_at(a) is not None]
            addresses, people = len(lists), len(different) - len(lists)
            internal = sum(registry.is_internal(a) for a in different if a not in lists)
        nobody_more = addresses == 0
        match asked.fact:
            case "recipients.list_addresses":
                return vague(WHO, Count(0, most)) if addresses is None else Told(Count.exactly(addresses))
            case "recipients.internal":
                return vague(WHO, Count(0, most)) if internal is None else Told(Count.exactly(internal))
            case "recipients.reach" if nobody_more and people is not None:
                return Told(Count.exactly(people))
            case "recipients.outside":
                return vague(WHO, Count(0, most))
            case "recipients.members" | "recipients.customers" | "recipients.undisclosed" if nobody_more:
                return vague(WHO, Count(0, most))
            case "recipients.share" | "mailing.share" | "list.share":
                return vague(WHO, ANY_SHARE)
            case "recipients.members" | "recipients.customers" | "recipients.undisclosed" | "recipients.reach":
                return vague(WHO, ANY)
            case fact if fact in COUNTED:
                return vague(WHO, ANY)
        return vague(WHO)


def _who(ground: CompiledPolicy, name: str) -> Any:
    """Whom a list means: what is declared of it that says who is reached, and under which addresses."""
    info = ground.lists[name]
    sources = [{k: v for k, v in source.items() if k not in _HOW_OFTEN} for source in info.members]
    addresses = {address for address, known in ground.registry.names.known() if known == name}
    return addresses, info.of_customers, info.includes, sources


def _limits(ground: CompiledPolicy, name: str) -> Any:
    stream = ground.registry.streams.get(name)
    return None if stream is None else (stream.max, stream.max_per_person)
