"""Count distinct people (or Message-IDs) under a key in a sliding window, exactly over all processes: read and written
in the batch.

A scope is a fact and its key; its members are people. Both are numbers of keyed digests: the tables name nobody. A
person's document has the scopes that they were counted under, with the newest time of each; how many were counted under
a scope at which time is in moments (sums). The same content counted again under a scope adds only members that the window does
not have, and prolongs none. mailingbatch counts whom a mailing reaches; contacts records whom a sender has written to.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter

from smtpguard.admission.model import Item
from smtpguard.counts import contacts
from smtpguard.counts.contacts import Contacts, PastMessage, Reached
from smtpguard.counts.people import (
    NEVER,
    Document,
    Documents,
    People,
    at,
    ends,
    entry,
    floor,
    hours,
    lengthened,
    number,
    numbered,
    numbers,
)
from smtpguard.counts.sums import USUAL_FROM, USUAL_UNTIL, Moments, Sum, Sums, most_in_a_window, reset
from smtpguard.database.batch import Batch
from smtpguard.database.fronts import scope_key
from smtpguard.holds.model import Hold
from smtpguard.mailings.mailingbatch import mailings_of
from smtpguard.policy.confirming import FACT as CONFIRMS
from smtpguard.policy.confirming import MEANT
from smtpguard.policy.counted import Ask, list_of, sender_of
from smtpguard.policy.facts import FACTS, OF_LETTERS, OF_LISTS, OF_MAILINGS, named

OF_MESSAGES = frozenset({"thread.replies", "thread.rests", "stream.messages"})
"""Facts that count Message-IDs instead of people."""

_OF_QUESTIONS = frozenset({CONFIRMS, MEANT})
"""Facts that count messages by their content and envelope, whatever their Message-IDs."""

OF_EVERYBODY = "thread.reach"
"""The fact that counts colleagues and strangers too."""

OF_A_SENDER = ("sender.first_contacts", "sender.answers", "sender.customers")
"""The facts whose counts under a sender are reset when approvers have seen what was counted."""

OF_ONE_MAILING = named(lambda fact: fact.by_mailing)
"""Facts that can also be counted within one mailing, if a rule asks for that."""

OF_ANSWERS = "message.answers"
"""The fact of one message alone: how many of its customers it does not answer."""

OF_CUSTOMERS = frozenset({"sender.customers"})
"""Facts that count customers only. A message without customers adds nobody to them, but still reads the count."""

_COUNTED_ELSEWHERE = OF_MAILINGS | {OF_ANSWERS}

_LETTER, _CUSTOMERS = "letter", "customers"
"""Two kinds of members: single customers, and customers with list addresses."""

_WINDOW = attrgetter("window_seconds")
_SINGLE = {1}
_MOST_SENDERS = 10_000
"""The most senders whose keys are cached."""

Members = Mapping[int, int]
"""The members of a scope: the number of each, and how many people it counts as."""


class _Group:
    """The members that an item has under some scopes. ``single``: each member counts as one; ``whole``: the weight of all.

    ``known``: the members who have a document, by document; ``weights``: what those of each document weigh; ``changes``: the
    entries that change in each. ``new``: the members without a document, who get one with ``entries``; ``weight``: what they
    weigh.
    """

    def __init__(self, members: Members, people: People) -> None:
        self.members, self.entries = members, dict[int, int]()
        self.whole, n = sum(members.values()), len(members)
        self.single = self.whole == n and (n == 1 or set(members.values()) == _SINGLE)
        self.known = people.by_document(members)
        self.changes: dict[Document, dict[int, int]] = {doc: {} for doc in self.known}
        self.weights = {doc: sum(map(members.__getitem__, some)) for doc, some in self.known.items()}
        self.new: Collection[int] = members if not self.known else members.keys() - set().union(*self.known.values())
        self.weight = self.whole - sum(self.weights.values())


class WindowCounts:
    """The counts of one run of items: read ahead for all of them, then updated as items are admitted."""

    def __init__(self, batch: Batch, items: Iterable[Item]) -> None:
        self._batch = batch
        self._key = _count_key(batch.secret)
        self._scopes: dict[tuple[str, str], int] = {}
        self._contents: dict[str, int] = {}
        self._usuals: dict[tuple[int, int], int] = {}
        self._mailings = mailings_of(batch)
        self._people, self._moments = People(batch), Moments(batch)
        # by content, the scopes it was counted under, and until when the same content is a retry
        self._again = Documents(batch, "again", "content", int)
        self._sums, self._contacts = Sums(batch, self._moments), Contacts(batch, self._people)
        self._turn_to(None)
        self._read([item for item in items if item.asks])

    def _read(self, items: Sequence[Item]) -> None:
        people: set[int] = set()
        contents: set[int] = set()
        windows: dict[int, set[int]] = {}  # by scope, in seconds
        for item in items:
            self._turn_to(item)
            if item.letter_from:
                people.update(numbers(item.people))
            for ask, *others in _together(item.asks):
                wanted = windows.setdefault(self._scope(ask, item), set())
                wanted.update(each.window_seconds for each in (ask, *others))
                members = self._all(ask, item)
                if members:
                    people.update(members)
                    contents.add(self._content(item))
        self._people.load(people)
        self._again.load(contents)
        self._contacts.load(items)
        self._sums.read(windows)

    # -- scopes and their members

    def _scope(self, ask: Ask, item: Item) -> int:
        key = _with_mailing(ask.key, self._mailings.name_of(item)) if ask.same else ask.key
        known = self._scopes.get((ask.fact, key))
        if known is None:
            known = self._scopes[ask.fact, key] = _scope_of(self._key, ask.fact, key)
        return known

    def _content(self, item: Item) -> int:
        """Return the number of an item's content. With whatever part of the envelope, it is the same message again."""
        name = item.content_sha256 or item.key
        known = self._contents.get(name)
        if known is None:
            known = self._contents[name] = numbered(self._key, b"again " + name.encode())
        return known

    def _turn_to(self, item: Item | None) -> None:
        """Let the calls that follow be about this item; None for none."""
        self._item = item
        self._members_by_kind: dict[object, Members] = {}
        self._groups: dict[int, _Group] = {}  # by the identity of the members
        self._reached_by: dict[str, Reached] = {}  # by sender

    def _all(self, ask: Ask, item: Item) -> Members:
        """Return the item's members of the scope; for a letter its customers, known to the sender or not."""
        made, kind = self._members_by_kind, _kind(ask)
        if kind not in made:
            if kind == _LETTER or (kind == _CUSTOMERS and not item.lists):
                made[kind] = made.setdefault(_LETTER, dict.fromkeys(numbers(item.people), 1))
            else:
                made[kind] = self._weighed(ask, item)
        return made[kind]

    def _members(self, ask: Ask, item: Item) -> Members:
        """Return the members whom the ask counts: of a letter only first contacts, or those whom it claims to answer."""
        if ask.fact not in OF_LETTERS:
            return self._all(ask, item)
        made, sender = self._members_by_kind, sender_of(ask.key)
        reached = self._reached(item, sender)
        answers = ask.fact == "sender.answers"
        some = reached.quoted if answers else reached.new
        kind = (_kind(ask), answers, sender)
        if kind not in made:
            all_of_them = self._all(ask, item)
            made[kind] = (
                all_of_them
                if all_of_them.keys() <= some
                else {n: weight for n, weight in all_of_them.items() if n in some}
            )
        return made[kind]

    def _group(self, members: Members) -> _Group:
        group = self._groups.get(id(members))
        if group is None:
            group = self._groups[id(members)] = _Group(members, self._people)
        return group

    def _reached(self, item: Item, sender: str = "") -> Reached:
        """Return the customers of an item who are new to this name of its sender, or for "" to any name of its sender.

        It is as before the item is recorded.
        """
        if sender not in self._reached_by:
            self._reached_by[sender] = self._contacts.reached(item, (sender,) if sender else item.letter_from)
        return self._reached_by[sender]

    def _weighed(self, ask: Ask, item: Item) -> Members:
        """Return an item's members. A list address weighs as much as the list has people."""
        if ask.fact in _OF_QUESTIONS:
            return {numbered(self._key, b"m" + item.key.encode()): 1}
        if ask.fact in OF_MESSAGES:
            # one reply, in however many envelopes
            split = item.content_sha256 if ask.fact != "stream.messages" else None
            name = (item.message_id or split or item.key).encode("utf-8", "surrogatepass")
            return {numbered(self._key, b"m" + name): 1}
        if ask.fact == OF_EVERYBODY:
            return {number(p.digest): p.weight for p in item.everybody}
        if ask.fact in OF_LISTS:
            return {number(p.digest): p.weight for p in item.everybody if ask.key in p.lists}
        if ask.fact in OF_LETTERS:  # by list
            on_it = {p.digest for p in item.everybody if list_of(ask.key) in p.lists}
            return {number(person): 1 for person in item.people if person in on_it}
        lists = {numbered(self._key, f"l{name}\0{version}".encode()): people for name, version, people in item.lists}
        return dict.fromkeys(numbers(item.people), 1) | lists

    # -- what an item sees

    def counts(self, item: Item) -> dict[Ask, int]:
        """Return the count for each ask, this item included."""
        self._turn_to(item)
        counts: dict[Ask, int] = {}
        for asks in _together(item.asks):
            members = self._members(asks[0], item)
            if asks[0].fact in OF_LETTERS and not members:  # no recipient is a first contact
                counts.update(dict.fromkeys(asks, 0))
                continue
            scope = self._scope(asks[0], item)
            found: dict[int, int] = {}  # by window
            for ask in asks:
                if ask.window_seconds not in found:
                    before = self._sum(scope, ask, item)
                    found[ask.window_seconds] = before.total + self._new(members, scope, before.floor)
                counts[ask] = self._unusual(ask, scope, found[ask.window_seconds])
        for ask in item.asks:
            if ask.fact == OF_ANSWERS:
                counts[ask] = self._reached(item).unanswered
        return counts

    def _sum(self, scope: int, ask: Ask, item: Item) -> Sum:
        has_come = self._mailings.has_messages(item)
        return self._sums.get(scope, ask.window_seconds, has_come=has_come)

    def _new(self, members: Members, scope: int, since_us: int) -> int:
        """Return the weight of the item's members that the window does not have."""
        group, since = self._group(members), floor(since_us)
        counted = [group.weights[doc] for doc in group.known if doc.entries.get(scope, NEVER) > since]
        return group.whole - sum(counted)

    def _unusual(self, ask: Ask, scope: int, count: int) -> int:
        """Return the count that the rule sees. From ``usual.least`` on that is the count only if it is also above the usual
        amount; else it is one less than ``least``."""
        if ask.usual is None or count < ask.usual.least:
            return count
        usual = self._usual(scope, ask.window_seconds * 1_000_000)
        return count if count > ask.usual.times * usual else int(ask.usual.least) - 1

    def _usual(self, scope: int, window_us: int) -> int:
        """Return the highest count in a window of that length between 35 and 7 days ago. It is read once for all items, since
        what they change is written at the end."""
        key = scope, window_us
        if key not in self._usuals:
            since, until = self._batch.now_us - USUAL_FROM, self._batch.now_us - USUAL_UNTIL
            sql = "SELECT at, n FROM moment WHERE scope = ? AND at > ? AND at <= ?"
            self._usuals[key] = most_in_a_window(self._batch.select(sql, (scope, since, until)), window_us)
        return self._usuals[key]

    # -- what is written

    def record(self, item: Item, asks: Sequence[Ask], *, known: bool = True) -> None:
        """Count the item under ``asks``, which must be among its own. ``known``: whether its sender counts as known to
        its people from now on."""
        if self._item is not item:
            self._turn_to(item)
        for some in _together(tuple(asks)):
            ask, scope = max(some, key=_WINDOW), self._scope(some[0], item)
            members = self._members(ask, item)
            if not members:  # as with ordinary mail: a retry could prolong nothing
                continue
            self._sum(scope, ask, item)
            self._record(item, scope, ask, self._group(members))
        if known and item.letter_from and not OF_LETTERS.isdisjoint(ask.fact for ask in asks):
            known_now = self._make_known(item)
            self._groups[id(known_now.members)] = known_now
        for group in self._groups.values():
            for doc, entries in group.changes.items():
                if entries:
                    self._people.put(group.known[doc], entries)
            if group.entries:
                self._people.put(group.new, group.entries)
            for person in group.new if not group.single else ():
                for scope in group.entries:
                    self._people.weigh(person, scope, group.members[person])
        self._turn_to(None)

    def _record(self, item: Item, scope: int, ask: Ask, group: _Group) -> None:
        """Count the members in sums and moments, and note what changes in their documents."""
        now, content = self._batch.now_us, self._content(item)
        window = ask.window_seconds * 1_000_000
        span = max(window, USUAL_FROM if ask.fact in OF_LETTERS else 0)
        when = max(now, self._sums.reset_at(scope) + 1)
        made = group.entries[scope] = entry(when, hours(span))
        sums = list(self._sums.all_of(scope))
        again = self._again.get(content).get(scope, NEVER) > now
        if not again:
            self._again.to_change(content)[scope] = now + span
        since = floor(self._sums.floor(scope, ask.window_seconds))
        for doc, some in group.known.items():
            if not again or doc.entries.get(scope, NEVER) <= since:
                group.changes[doc][scope] = self._recount(scope, made, doc, group, some, sums)
        if group.new:
            self._moments.add(scope, when, when + span, len(group.new), group.weight)
            for each in sums:
                each.total += group.weight
                each.changed = True

    def _recount(
        self, scope: int, made: int, doc: Document, group: _Group, some: Sequence[int], sums: Sequence[Sum]
    ) -> int:
        """Count people with this document under the new time, and remove them from the old one. Return their entry."""
        people, members = self._people, group.members
        before = doc.entries.get(scope, NEVER)
        longer = lengthened(made, before)
        alike = {(1, 1): len(some)}  # (weight before, weight now) -> how many people
        if people.weights or not group.single:
            alike = Counter((people.weight(person, scope), members[person]) for person in some)
            for person in some:
                people.weigh(person, scope, members[person])
        for (was, weight), n in alike.items():
            if before != NEVER:
                self._moments.add(scope, at(before), ends(before), -n, -n * was)
            self._moments.add(scope, at(made), ends(longer), n, n * weight)
            for each in sums:
                each.total += n * (weight - was if before > floor(each.floor) else weight)
                each.changed = True
        return longer

    def _make_known(self, item: Item) -> _Group:
        """Record that the sender has written to the item's customers. Return these with their new entries."""
        group = _Group(dict.fromkeys(numbers(item.people), 1), self._people)
        group.entries = self._contacts.entries(item.letter_from, self._batch.now_us)
        group.changes = dict.fromkeys(group.known, group.entries)
        self._contacts.record(item.message_id, group.members, self._batch.now_us)
        return group

    def write(self) -> None:
        """Write what has changed, at the batch's end."""
        self._people.write()
        self._again.write()
        self._contacts.write()
        self._moments.write()
        self._sums.write()


@lru_cache(maxsize=1024)
def _together(asks: tuple[Ask, ...]) -> tuple[tuple[Ask, ...], ...]:
    """Group the asks by scope, whatever their windows, and leave out those that are counted elsewhere. Cached, since a
    sender's messages have the same asks."""
    found: dict[tuple[str, str, bool], list[Ask]] = {}
    for ask in asks:
        if ask.fact not in _COUNTED_ELSEWHERE:
            found.setdefault((ask.fact, ask.key, ask.same), []).append(ask)
    return tuple(map(tuple, found.values()))


@lru_cache(maxsize=1024)
def _kind(ask: Ask) -> object:
    """Return the kind of an ask. Asks of the same kind have the same members for one item."""
    if ask.fact in OF_LETTERS:
        return ("letter", list_of(ask.key)) if FACTS[ask.fact].by_list else _LETTER
    if ask.fact in _OF_QUESTIONS:
        return ("message", "itself")
    if ask.fact in OF_MESSAGES:
        return ("message", ask.fact == "stream.messages")
    return (ask.fact, ask.key) if ask.fact in OF_LISTS else "everybody" if ask.fact == OF_EVERYBODY else _CUSTOMERS


def reset_for_release(batch: Batch, hold: Hold, people: Iterable[bytes], *, anew: bool = True) -> None:
    """Record that a held letter goes out: these people know its sender from now on.

    With ``anew`` the sender's counts of this mailing are reset, and for the primary hold all counts of the sender, since the
    approvers have seen what was counted. A letter that its writer confirmed was seen by no approver: its counts stay, the
    letter included.
    """
    contacts.record(batch, [PastMessage(senders=hold.letter_from, people=list(people), at_us=batch.now_us)])
    if not anew:
        return
    key = _count_key(batch.secret)
    scopes = [
        _scope_of(key, fact, _with_mailing(s, hold.mailing_id)) for s in hold.letter_from for fact in OF_ONE_MAILING
    ]
    if hold.queue:
        scopes += [_scope_of(key, fact, sender) for sender in hold.letter_from for fact in OF_A_SENDER]
        scopes += [
            _scope_of(key, "sender.list_contacts", f"{name}\0{sender}")
            for sender in hold.letter_from
            for name in hold.lists
        ]
    reset(batch, scopes)


def record_confirmed(batch: Batch, hold: Hold, seconds: int) -> None:
    """Record that the writer confirmed letters to new customers, so that the rules that asked do not ask again for so long."""
    if hold.confirm is None or not hold.queue:
        return
    key, found = _count_key(batch.secret), Moments(batch)
    for hit in hold.verdict.hits:
        scope = _scope_of(key, MEANT, f"{hold.confirm.writer} {hit.rule}")
        found.add(scope, batch.now_us, batch.now_us + seconds * 1_000_000, 1, 1)
    found.write()


def _with_mailing(key: str, mailing_id: str) -> str:
    return f"{key}\0with {mailing_id}"


class FrontKeys:
    """The keys of scopes in the shared page of the fronts, cached for frequent senders."""

    def __init__(self, secret: bytes) -> None:
        self._key = _count_key(secret)
        self._known: dict[tuple[str, str], bytes] = {}

    def key_of(self, fact: str, name: str) -> bytes:
        scope = self._known.get((fact, name))
        if scope is None:
            if len(self._known) >= _MOST_SENDERS:
                self._known.clear()
            scope = self._known[fact, name] = scope_key(_scope_of(self._key, fact, name))
        return scope


def _count_key(secret: bytes) -> bytes:
    return hashlib.blake2b(secret, person=b"smtpguard count").digest()


def _scope_of(key: bytes, fact: str, name: str) -> int:
    text = f"{fact}\0{name}".encode("utf-8", "surrogatepass")
    return number(hashlib.blake2b(text, key=key, digest_size=16).digest())
