"""Distinct people (or Message-IDs) under a key in a sliding window, exact over all processes: read and written in the batch.

A scope is a fact and its key; a pair is a member of it. Both are keyed digests: the tables name nobody. Of each pair the
newest time is kept. What was counted under a scope already (the same content coming again) adds members that the window does
not have and prolongs none. Never here: what a count means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from smtpguard.policy.admission import Ask, Item
from smtpguard.store.batch import Batch

OF_MESSAGES = frozenset({"thread.replies", "stream.messages"})
"""Facts that count Message-IDs instead of people."""

_MANY = 500  # values in one IN (...)


class Tally:
    """The counts of one run of items: read ahead for all of them, then kept as they come."""

    def __init__(self, batch: Batch, items: Iterable[Item]) -> None:
        self._batch = batch
        self._key = hashlib.blake2b(batch.secret, person=b"smtpguard count").digest()
        self._at: dict[bytes, int] = {}
        self._sums: dict[tuple[bytes, int], int] = {}
        self._marks: set[bytes] = set()
        self._scopes: dict[tuple[str, str], bytes] = {}
        pairs: set[bytes] = set()
        marks: set[bytes] = set()
        for item in items:
            for ask in item.asks:
                scope = self._scope(ask)
                self._sums[scope, ask.window_seconds] = 0
                pairs.update(pair for pair, _ in _members(scope, ask, item))
                marks.add(_mark(scope, item))
        if self._sums:
            self._read(pairs, marks)

    def _scope(self, ask: Ask) -> bytes:
        known = self._scopes.get((ask.fact, ask.key))
        if known is None:
            text = f"{ask.fact}\0{ask.key}".encode("utf-8", "surrogatepass")
            known = hashlib.blake2b(text, key=self._key, digest_size=16).digest()
            self._scopes[ask.fact, ask.key] = known
        return known

    def _read(self, pairs: set[bytes], marks: set[bytes]) -> None:
        now = self._batch.now_us
        for window in {window for _, window in self._sums}:
            scopes = [scope for scope, w in self._sums if w == window]
            floor = now - window * 1_000_000
            sql = "SELECT scope, SUM(weight) FROM seen WHERE scope IN ({}) AND at > ? GROUP BY scope"
            for scope, total in self._select(sql, scopes, floor):
                self._sums[bytes(scope), window] = int(total)
        for pair, at in self._select("SELECT pair, at FROM seen WHERE pair IN ({})", list(pairs)):
            self._at[bytes(pair)] = at
        sql = "SELECT mark FROM counted WHERE mark IN ({}) AND until > ?"
        self._marks.update(bytes(mark) for (mark,) in self._select(sql, list(marks), now))

    def _select(self, sql: str, values: Sequence[bytes], *more: int) -> Iterator[Any]:
        for start in range(0, len(values), _MANY):
            some = values[start : start + _MANY]
            yield from self._batch.select(sql.format(", ".join("?" * len(some))), (*some, *more))

    def counts(self, item: Item) -> dict[Ask, int]:
        """Each ask's count with this very item in it."""
        counts: dict[Ask, int] = {}
        for ask in item.asks:
            scope = self._scope(ask)
            floor = self._batch.now_us - ask.window_seconds * 1_000_000
            new = sum(w for pair, w in _members(scope, ask, item) if self._at.get(pair, floor) <= floor)
            counts[ask] = self._sums[scope, ask.window_seconds] + new
        return counts

    def record(self, item: Item, asks: Sequence[Ask]) -> None:
        """Count the item under ``asks``, each of which it asked for."""
        now = self._batch.now_us
        longest: dict[bytes, Ask] = {}
        for ask in asks:
            scope = self._scope(ask)
            if scope not in longest or longest[scope].window_seconds < ask.window_seconds:
                longest[scope] = ask
        for scope, ask in longest.items():
            mark = _mark(scope, item)
            again = mark in self._marks
            until = now + ask.window_seconds * 1_000_000
            rows = self._batch.rows("seen")
            floor = now - ask.window_seconds * 1_000_000
            windows = [w for s, w in self._sums if s == scope]
            for pair, weight in _members(scope, ask, item):
                before = self._at.get(pair)
                if again and before is not None and before > floor:
                    continue
                rows.append((pair, scope, now, until, weight))
                for window in windows:
                    if before is None or before <= now - window * 1_000_000:
                        self._sums[scope, window] += weight
                self._at[pair] = now
                self._batch.counted += 1
            if not again:
                self._marks.add(mark)
                self._batch.rows("counted").append((mark, until))


def _members(scope: bytes, ask: Ask, item: Item) -> list[tuple[bytes, int]]:
    """The item's members of the scope, each once, with its weight: a list's address weighs as much as its people."""
    if ask.fact in OF_MESSAGES:
        return [(_pair(scope, b"m" + (item.message_id or item.key).encode("utf-8", "surrogatepass")), 1)]
    people = [(_pair(scope, b"p" + person), 1) for person in dict.fromkeys(item.people)]
    lists = {(name, version): people for name, version, people in item.lists}
    return people + [(_pair(scope, f"l{n}\0{v}".encode()), weight) for (n, v), weight in lists.items()]


def _pair(scope: bytes, member: bytes) -> bytes:
    return hashlib.blake2b(member, key=scope, digest_size=16).digest()


def _mark(scope: bytes, item: Item) -> bytes:
    """The same content is the same message coming again, whatever part of the envelope it comes with."""
    return _pair(scope, b"again " + (item.content_sha256 or item.key).encode())


def prune(batch: Batch, limit: int) -> None:
    """Forget what no window reaches any more."""
    for table, key in (("seen", "pair"), ("counted", "mark")):
        sql = f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE until < ? LIMIT {limit})"
        batch.execute(sql, [(batch.now_us,)])
