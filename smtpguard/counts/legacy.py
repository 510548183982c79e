"""Read the counts of an earlier version: a row for each scope and person, keyed by a digest of both.

These tables get no new rows. The rows that a message asks for are moved into the new tables; the others are forgotten
in their time. Empty tables are no longer read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from smtpguard.counts.people import Moments, People, entry, hours
from smtpguard.database.batch import Batch


class Earlier:
    """The tables of an earlier version. ``counts``, ``contacts``, ``marks``: whether the table has rows."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        tables = ("seen", "contact", "counted")
        [found] = batch.select("SELECT " + ", ".join(f"EXISTS (SELECT 1 FROM {table})" for table in tables))
        self.counts, self.contacts, self.marks = map(bool, found)

    def take_counts(self, members: Iterable[tuple[int, bytes, int, bytes]], people: People, moments: Moments) -> None:
        """Move the rows of these members: scope and person as numbers, and as bytes of the pair."""
        pairs = {paired(long, raw): (scope, person) for scope, long, person, raw in members}
        found = list(self._batch.among("SELECT pair, at, until, weight FROM seen WHERE pair {}", list(pairs)))
        for pair, at, until, weight in found:
            scope, person = pairs[bytes(pair)]
            people.put([person], {scope: entry(at, hours(until - at))})
            people.weigh(person, scope, weight)
            moments.add(scope, at, until, 1, weight)
        self._gone("seen", [row[0] for row in found])
        moments.write()
        self._batch.flush()

    def take_contacts(self, members: Iterable[tuple[int, bytes, int, bytes]], people: People, span_us: int) -> None:
        """The same for contacts."""
        pairs = {paired(long, raw): (scope, person) for scope, long, person, raw in members}
        found = list(self._batch.among("SELECT pair, at FROM contact WHERE pair {}", list(pairs)))
        for pair, at in found:
            scope, person = pairs[bytes(pair)]
            one = entry(at, hours(span_us))
            if people.of(person).get(scope, one) <= one:
                people.put([person], {scope: one})
        self._gone("contact", [row[0] for row in found])

    def were_sent(self, members: Mapping[bytes, tuple[int, int]], since_us: int) -> list[tuple[int, int]]:
        """The pairs of a Message-ID and a person that exist and are later than ``since_us``."""
        sql = "SELECT pair FROM contact WHERE at > ? AND pair {}"
        return [members[bytes(pair)] for (pair,) in self._batch.among(sql, list(members), (since_us,))]

    def marked(self, marks: Mapping[bytes, tuple[int, int]]) -> list[tuple[int, int, int]]:
        """The content, scope and end of those marks that exist."""
        sql = "SELECT mark, until FROM counted WHERE mark {}"
        return [(*marks[bytes(mark)], until) for mark, until in self._batch.among(sql, list(marks))]

    def sums(self, scopes: Mapping[bytes, int], floor: int) -> list[tuple[int, int]]:
        """The weight of each scope, of rows later than ``floor``."""
        sql = "SELECT scope, SUM(weight) FROM seen WHERE at > ? AND scope {} GROUP BY scope"
        return [(scopes[bytes(scope)], int(total)) for scope, total in self._batch.among(sql, list(scopes), (floor,))]

    def times(self, scope: bytes, since: int, until: int) -> list[tuple[int, int]]:
        """At which time how many were last counted under the scope, in this period."""
        sql = "SELECT at, COUNT(*) FROM seen WHERE scope = ? AND at > ? AND at <= ? GROUP BY at"
        return [(at, n) for at, n in self._batch.select(sql, (scope, since, until))]

    def gone(self, scope: bytes, since: int, until: int) -> int:
        sql = "SELECT SUM(weight) FROM seen WHERE scope = ? AND at > ? AND at <= ?"
        [(weight,)] = self._batch.select(sql, (scope, since, until))
        return int(weight or 0)

    def reset(self, scopes: Sequence[bytes]) -> None:
        if self.counts:
            self._batch.execute("UPDATE seen SET weight = 0 WHERE scope = ?", [(scope,) for scope in scopes])

    def _gone(self, table: str, pairs: Sequence[bytes]) -> None:
        if pairs:
            self._batch.execute(f"DELETE FROM {table} WHERE pair = ?", [(pair,) for pair in pairs])


def paired(scope: bytes, member: bytes) -> bytes:
    return hashlib.blake2b(member, key=scope, digest_size=16).digest()


def prune(batch: Batch, before: int, known_since: int, limit: int) -> None:
    """Delete some rows that no window reaches any more."""
    for table, key, column, when in (
        ("seen", "pair", "until", before),
        ("counted", "mark", "until", batch.now_us),
        ("contact", "pair", "at", known_since),
    ):
        some = f"SELECT {key} FROM {table} WHERE {column} < ? LIMIT {limit:d}"
        batch.execute(f"DELETE FROM {table} WHERE {key} IN ({some})", [(when,)])
