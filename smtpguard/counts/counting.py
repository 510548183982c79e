"""Distinct people (or Message-IDs) under a key in a sliding window, exact over all processes: read and written in the batch.

A scope is a fact and its key; a pair is a member of it. Both are keyed digests: the tables name nobody. Of each pair the
newest time is kept. What was counted under a scope already (the same content coming again) adds members that the window does
not have and prolongs none. mailingbatch counts what a mailing reaches; contacts whom a sender knows already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from smtpguard.admission.model import Item
from smtpguard.counts.contacts import KNOWN, Contacts, Reached
from smtpguard.database.batch import Batch
from smtpguard.holds.model import Hold
from smtpguard.mailings.mailingbatch import mailings_of
from smtpguard.policy.counted import Ask, list_of
from smtpguard.policy.facts import FACTS, OF_LETTERS, OF_LISTS, OF_MAILINGS, named

OF_MESSAGES = frozenset({"thread.replies", "thread.rests", "stream.messages"})
"""Facts that count Message-IDs instead of people."""

OF_EVERYBODY = "thread.reach"
"""The fact that counts colleagues and strangers too."""

OF_A_SENDER = ("sender.first_contacts", "sender.answers", "sender.customers")

OF_ONE_MAILING = named(lambda fact: fact.by_mailing)
"""Those that are counted of one mailing, too, where a rule says so."""

OF_ANSWERS = "message.answers"
"""The fact that is told of a message alone: how many of its customers it does not answer."""

USUAL_FROM, USUAL_UNTIL = 35 * 86_400 * 1_000_000, 7 * 86_400 * 1_000_000
"""What was counted between so long ago is what is usual, in microseconds."""

LARGE = 2000  # a sum that is worth keeping
LIFE = 600 * 1_000_000  # microseconds until a kept sum is made anew; pruning waits as long

_MANY = 500  # values in one IN (...)


@dataclass(slots=True)
class _Sum:
    """The weight of a scope's pairs that are newer than ``floor``. ``made``: when it was counted from scratch, if it is kept."""

    floor: int
    total: int = 0
    made: int | None = None
    changed: bool = False


class Tally:
    """The counts of one run of items: read ahead for all of them, then kept as they come.

    A large sum is kept in the database, and what has left its window is taken off: a mailing to 400,000 people is not added
    up for every batch of it.
    """

    def __init__(self, batch: Batch, items: Iterable[Item]) -> None:
        self._batch = batch
        self._key = _count_key(batch.secret)
        self._at: dict[bytes, int] = {}
        self._sums: dict[bytes, dict[int, _Sum]] = {}  # by scope and window
        self._marks: set[bytes] = set()
        self._scopes: dict[tuple[str, str], bytes] = {}
        items = list(items)
        self._mailings = mailings_of(batch)
        self._contacts = Contacts(batch.secret, batch.now_us, self._select, items)
        pairs: set[bytes] = set()
        marks: set[bytes] = set()
        for item in items:
            for ask in item.asks:
                if ask.fact in OF_MAILINGS or ask.fact == OF_ANSWERS:
                    continue
                scope = self._scope(ask, item)
                floor = batch.now_us - ask.window_seconds * 1_000_000
                self._sums.setdefault(scope, {})[ask.window_seconds] = _Sum(floor)
                members = _members(scope, ask, item)
                if members:
                    pairs.update(pair for pair, _ in members)
                    marks.add(_mark(scope, item))
        if self._sums:
            self._read(pairs, marks)

    def _scope(self, ask: Ask, item: Item) -> bytes:
        key = _with_mailing(ask.key, self._mailings.name_of(item)) if ask.same else ask.key
        known = self._scopes.get((ask.fact, key))
        if known is None:
            known = self._scopes[ask.fact, key] = _scope_of(self._key, ask.fact, key)
        return known

    def _sum(self, scope: bytes, ask: Ask, item: Item) -> _Sum:
        """What was read ahead; of a mailing that was not there yet then, what earlier items of the batch have left."""
        sums = self._sums.setdefault(scope, {})
        if ask.window_seconds not in sums:
            made = sums[ask.window_seconds] = _Sum(self._batch.now_us - ask.window_seconds * 1_000_000)
            if self._mailings.has_come(item):
                sql = "SELECT pair, at, weight FROM seen WHERE scope = ? AND at > ?"
                for pair, at, weight in self._batch.select(sql, (scope, made.floor)):
                    self._at.setdefault(bytes(pair), at)
                    made.total += int(weight)
        return sums[ask.window_seconds]

    def _read(self, pairs: set[bytes], marks: set[bytes]) -> None:
        self._sum_up(self._kept())
        for pair, at in self._select("SELECT pair, at FROM seen WHERE pair IN ({})", list(pairs)):
            self._at[bytes(pair)] = at
        sql = "SELECT mark FROM counted WHERE mark IN ({}) AND until > ?"
        self._marks.update(bytes(mark) for (mark,) in self._select(sql, list(marks), self._batch.now_us))

    def _kept(self) -> set[tuple[bytes, int]]:
        """Take the sums that are kept, less what has left their windows. Returns which of those asked for these are."""
        found: set[tuple[bytes, int]] = set()
        now = self._batch.now_us
        sql = "SELECT scope, seconds, floor, total, made FROM tally WHERE scope IN ({}) AND made > ? AND made <= ?"
        for row in self._select(sql, list(self._sums), now - LIFE, now):
            scope, seconds, floor, total, made = row
            asked = self._sums[bytes(scope)].get(seconds)
            kept = _Sum(floor, int(total), made)
            if asked is not None:
                if asked.floor < floor:  # another node's clock is ahead of ours: count anew
                    continue
                sql = "SELECT SUM(weight) FROM seen WHERE scope = ? AND at > ? AND at <= ?"
                [(gone,)] = self._batch.select(sql, (scope, floor, asked.floor))
                kept.total -= int(gone or 0)
                kept.floor = asked.floor
                found.add((bytes(scope), seconds))
            self._sums[bytes(scope)][seconds] = kept
        return found

    def _sum_up(self, known: set[tuple[bytes, int]]) -> None:
        wanted: dict[int, list[bytes]] = {}
        for scope, sums in self._sums.items():
            for seconds, one in sums.items():
                if one.made is None and (scope, seconds) not in known:
                    wanted.setdefault(seconds, []).append(scope)
        sql = "SELECT scope, SUM(weight) FROM seen WHERE scope IN ({}) AND at > ? GROUP BY scope"
        for seconds, scopes in wanted.items():
            for scope, total in self._select(sql, scopes, self._batch.now_us - seconds * 1_000_000):
                one = self._sums[bytes(scope)][seconds]
                one.total = int(total)
                if one.total >= LARGE:
                    one.made, one.changed = self._batch.now_us, True

    def _select(self, sql: str, values: Sequence[bytes], *more: int) -> Iterator[Any]:
        for start in range(0, len(values), _MANY):
            some = values[start : start + _MANY]
            yield from self._batch.select(sql.format(", ".join("?" * len(some))), (*some, *more))

    def counts(self, item: Item) -> dict[Ask, int]:
        """Each ask's count with this very item in it."""
        counts: dict[Ask, int] = {}
        reached = self._contacts.of(item)
        for ask in item.asks:
            if ask.fact in OF_MAILINGS:
                continue
            if ask.fact == OF_ANSWERS:
                counts[ask] = reached.unanswered
                continue
            scope = self._scope(ask, item)
            floor = self._batch.now_us - ask.window_seconds * 1_000_000
            members = self._members(scope, ask, item, reached)
            if ask.fact in OF_LETTERS and not members:  # whoever it goes to, it is nobody's first
                counts[ask] = 0
                continue
            new = sum(w for pair, w in members if self._at.get(pair, floor) <= floor)
            counts[ask] = self._unusual(ask, scope, self._sum(scope, ask, item).total + new)
        return counts

    def _unusual(self, ask: Ask, scope: bytes, count: int) -> int:
        """The count; from the least that matters on only where it is above what is usual, too."""
        if ask.usual is None or count < ask.usual.least:
            return count
        usual = self._usual(scope, ask.window_seconds * 1_000_000)
        return count if count > ask.usual.times * usual else int(ask.usual.least) - 1

    def _usual(self, scope: bytes, window_us: int) -> int:
        """The most that was counted in any window of that length, long enough ago."""
        now = self._batch.now_us
        sql = "SELECT at FROM seen WHERE scope = ? AND at > ? AND at <= ? ORDER BY at"
        times = [at for (at,) in self._batch.select(sql, (scope, now - USUAL_FROM, now - USUAL_UNTIL))]
        most = first = 0
        for n, at in enumerate(times):
            while times[first] <= at - window_us:
                first += 1
            most = max(most, n + 1 - first)
        return most

    def _members(self, scope: bytes, ask: Ask, item: Item, reached: Reached) -> list[tuple[bytes, int]]:
        """Of a letter those alone who are first contacts, or answered."""
        if ask.fact not in OF_LETTERS:
            return _members(scope, ask, item)
        some = reached.quoted if ask.fact == "sender.answers" else reached.new
        return [(_pair(scope, b"p" + person), 1) for person in _letter(ask, item) if person in some]

    def record(self, item: Item, asks: Sequence[Ask]) -> None:
        """Count the item under ``asks``, each of which it asked for."""
        now = self._batch.now_us
        reached = self._contacts.of(item)
        longest: dict[bytes, Ask] = {}
        for ask in asks:
            if ask.fact in OF_MAILINGS or ask.fact == OF_ANSWERS:
                continue
            scope = self._scope(ask, item)
            if scope not in longest or longest[scope].window_seconds < ask.window_seconds:
                longest[scope] = ask
        for scope, ask in longest.items():
            members = self._members(scope, ask, item, reached)
            if not members:  # as ordinary mail has none: nothing that a retry could prolong
                continue
            mark = _mark(scope, item)
            again = mark in self._marks
            until = now + max(ask.window_seconds * 1_000_000, USUAL_FROM if ask.fact in OF_LETTERS else 0)
            rows = self._batch.rows("seen")
            floor = now - ask.window_seconds * 1_000_000
            self._sum(scope, ask, item)
            sums = list(self._sums[scope].values())
            for pair, weight in members:
                before = self._at.get(pair)
                if again and before is not None and before > floor:
                    continue
                rows.append((pair, scope, now, until, weight))
                for one in sums:
                    if before is None or before <= one.floor:
                        one.total += weight
                        one.changed = True
                self._at[pair] = now
                self._batch.counted += 1
            if not again:
                self._marks.add(mark)
                self._batch.rows("counted").append((mark, until))
        if item.letter_from and not OF_LETTERS.isdisjoint(ask.fact for ask in asks):
            pairs = self._contacts.record(item)
            self._batch.rows("contact").extend((pair, now) for pair in pairs)
            self._batch.counted += len(pairs)

    def keep(self) -> None:
        """Write the large sums that have changed."""
        rows = self._batch.rows("tally")
        for scope, sums in self._sums.items():
            for seconds, one in sums.items():
                if one.made is not None and one.changed:
                    rows.append((scope, seconds, one.floor, one.total, one.made))


def _members(scope: bytes, ask: Ask, item: Item) -> list[tuple[bytes, int]]:
    """The item's members of the scope, each once, with its weight: a list's address weighs as much as its people."""
    if ask.fact in OF_MESSAGES:
        split = item.content_sha256 if ask.fact != "stream.messages" else None  # one reply, in however many envelopes
        return [(_pair(scope, b"m" + (item.message_id or split or item.key).encode("utf-8", "surrogatepass")), 1)]
    if ask.fact == OF_EVERYBODY:
        return [(_pair(scope, b"p" + p.digest), p.weight) for p in item.everybody]
    if ask.fact in OF_LISTS:
        return [(_pair(scope, b"p" + p.digest), p.weight) for p in item.everybody if ask.key in p.lists]
    if ask.fact in OF_LETTERS:
        return [(_pair(scope, b"p" + person), 1) for person in _letter(ask, item)]
    if not (item.people or item.lists):
        return []
    people = [(_pair(scope, b"p" + person), 1) for person in dict.fromkeys(item.people)]
    lists = {(name, version): people for name, version, people in item.lists}
    return people + [(_pair(scope, f"l{n}\0{v}".encode()), weight) for (n, v), weight in lists.items()]


def _letter(ask: Ask, item: Item) -> list[bytes]:
    """The single customers whom a count of letters is about, known to the sender or not."""
    people = list(dict.fromkeys(item.people))
    if not FACTS[ask.fact].by_list:
        return people
    on_it = {p.digest for p in item.everybody if list_of(ask.key) in p.lists}
    return [person for person in people if person in on_it]


def _pair(scope: bytes, member: bytes) -> bytes:
    return hashlib.blake2b(member, key=scope, digest_size=16).digest()


def _mark(scope: bytes, item: Item) -> bytes:
    """The same content is the same message coming again, whatever part of the envelope it comes with."""
    return _pair(scope, b"again " + (item.content_sha256 or item.key).encode())


def let_out(batch: Batch, hold: Hold, people: Iterable[bytes]) -> None:
    """A letter that was held goes out: these people know its sender from now on, and who writes the same begins anew. With the one
    that people decided on all counts of its sender do, since they have looked at what was counted."""
    contacts = Contacts.to_write(batch)
    rows = [(pair, batch.now_us) for pair in contacts.pairs(hold.letter_from, people)]
    batch.rows("contact").extend(rows)
    batch.counted += len(rows)
    key = _count_key(batch.secret)
    scopes = [
        (_scope_of(key, fact, _with_mailing(s, hold.mailing_id)),) for s in hold.letter_from for fact in OF_ONE_MAILING
    ]
    if hold.by_sender and not hold.lead:
        scopes += [(_scope_of(key, fact, sender),) for sender in hold.letter_from for fact in OF_A_SENDER]
        scopes += [
            (_scope_of(key, "sender.list_contacts", f"{name}\0{sender}"),)
            for sender in hold.letter_from
            for name in hold.lists
        ]
    batch.flush()
    batch.execute("UPDATE seen SET weight = 0 WHERE scope = ?", scopes)
    batch.execute("DELETE FROM tally WHERE scope = ?", scopes)


def _with_mailing(key: str, mailing_id: str) -> str:
    return f"{key}\0with {mailing_id}"


def _count_key(secret: bytes) -> bytes:
    return hashlib.blake2b(secret, person=b"smtpguard count").digest()


def _scope_of(key: bytes, fact: str, name: str) -> bytes:
    text = f"{fact}\0{name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, key=key, digest_size=16).digest()


def prune(batch: Batch, limit: int) -> None:
    """Forget what no window reaches any more."""
    for table, key, before in (("seen", "pair", batch.now_us - LIFE), ("counted", "mark", batch.now_us)):
        sql = f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE until < ? LIMIT {limit})"
        batch.execute(sql, [(before,)])
    batch.execute("DELETE FROM tally WHERE made < ?", [(batch.now_us - LIFE,)])
    sql = f"DELETE FROM contact WHERE pair IN (SELECT pair FROM contact WHERE at < ? LIMIT {limit})"
    batch.execute(sql, [(batch.now_us - KNOWN,)])
