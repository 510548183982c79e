"""The documents of the people counted under scopes, in a batch.

Documents are read for all items at once, updated as items are admitted, and written at the batch's end. A person counted
again moves from the old time to the new.

A document has the scopes that the person was counted under and when last, as numbers. A number of a person, scope or
content is the first 64 bits of a keyed digest, so it names nobody. An entry is one number as well: its time, and how
long any count can still include it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

from smtpguard.database.batch import Batch

HOUR = 3_600_000_000  # microseconds
LIFE = 600 * 1_000_000
"""Microseconds until a stored sum is counted anew. A row outside every window is stored as long."""
NEVER = -(1 << 62)
"""A number less than any entry."""

_EPOCH = 1_577_836_800_000_000  # 2020: so a time fits beside twelve bits until 2091
_BITS, _HOURS = 12, 0xFFF
_EIGHT = {8}
_PAIR = struct.Struct("<qq")


def number(digest: bytes) -> int:
    """Return the number of a digest, or of other bytes of at least its length."""
    return int.from_bytes(digest[:8], "big", signed=True)


def numbers(digests: Sequence[bytes]) -> Sequence[int]:
    if set(map(len, digests)) == _EIGHT:
        return struct.unpack(f">{len(digests)}q", b"".join(digests))
    return [number(digest) for digest in digests]


def numbered(key: bytes, name: bytes) -> int:
    """Return the number of a name that has no digest yet."""
    return number(hashlib.blake2b(name, key=key, digest_size=8).digest())


def hours(span_us: int) -> int:
    """Return a time span in whole hours, rounded up, as entries have it; at most 170 days."""
    return min(-(-span_us // HOUR), _HOURS)


def entry(at_us: int, for_hours: int) -> int:
    return (at_us - _EPOCH) << _BITS | for_hours


def floor(at_us: int) -> int:
    """Return the greatest entry of that time: every entry of a later time is greater."""
    return (at_us - _EPOCH) << _BITS | _HOURS


def at(entry: int) -> int:
    return (entry >> _BITS) + _EPOCH


def lengthened(entry: int, before: int) -> int:
    """Return the entry that replaces the one ``before``, and lasts at least as long as that one."""
    return max(entry, (entry & ~_HOURS) | (before & _HOURS)) if before != NEVER else entry


def ends(entry: int) -> int:
    """Return the time from which no window reaches an entry."""
    return (entry >> _BITS) + _EPOCH + (entry & _HOURS) * HOUR


def pack(entries: Mapping[int, int]) -> bytes:
    return struct.pack(f"<{2 * len(entries)}q", *chain.from_iterable(entries.items()))


def unpack(doc: bytes) -> dict[int, int]:
    return dict(_PAIR.iter_unpack(doc))


_NOTHING: Final[Mapping[int, int]] = {}


class Documents:
    """The documents of one table, by number; each is bytes until it is first read, then a dict. ``last``: a function that
    returns the time until which a value matters."""

    def __init__(self, batch: Batch, table: str, key: str, last: Callable[[int], int]) -> None:
        self._batch, self._table, self._last = batch, table, last
        self._sql = f"SELECT {key}, doc FROM {table} WHERE {key} {{}}"
        self._known: set[int] = set()
        self.docs: dict[int, bytes | dict[int, int]] = {}
        self.changed: set[int] = set()

    def load(self, numbers: Iterable[int]) -> None:
        wanted = set(numbers) - self._known
        self._known |= wanted
        for number, doc in self._batch.among(self._sql, sorted(wanted)):
            self.docs[number] = doc

    def get(self, number: int) -> Mapping[int, int]:
        """Return the document of this number, which must be loaded; an empty one if there is none."""
        doc = self.docs.get(number)
        if doc is None:
            return _NOTHING
        if not isinstance(doc, dict):
            doc = self.docs[number] = unpack(doc)
        return doc

    def to_change(self, number: int) -> dict[int, int]:
        """Return the document for changes, which ``write`` then writes."""
        self.changed.add(number)
        doc = self.docs.get(number)
        if not isinstance(doc, dict):
            doc = self.docs[number] = unpack(doc) if doc is not None else {}
        return doc

    def write(self) -> None:
        """Add the changed documents to the batch's rows."""
        rows = self._batch.rows(self._table)
        for number in sorted(self.changed):
            doc = self.get(number)
            rows.append((number, max(map(self._last, doc.values())), pack(doc)))
        self.changed.clear()


class Document:
    """The entries of a person, by scope. Immutable, and shared by all people with equal entries, so that what is asked or
    changed for many of them is done once."""

    __slots__ = ("_entries", "_packed")

    def __init__(self, packed: bytes = b"", entries: Mapping[int, int] | None = None) -> None:
        self._packed, self._entries = packed, entries

    @property
    def entries(self) -> Mapping[int, int]:
        if self._entries is None:
            self._entries = unpack(self._packed)
        return self._entries


class People:
    """The scopes that people were counted under. ``docs``: the documents by person, of those who have one. ``weights``: for
    people who count as several or as none, their weight by scope."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._known: set[int] = set()
        self._changed: set[int] = set()
        self._none = Document()
        self.docs: dict[int, Document] = {}
        self.weights: dict[int, dict[int, int]] = {}

    def load(self, people: Iterable[int]) -> None:
        wanted = set(people) - self._known
        self._known |= wanted
        equal: dict[bytes, Document] = {}
        sql = "SELECT person, doc, weights FROM person WHERE person {}"
        for person, doc, weights in self._batch.among(sql, sorted(wanted)):
            found = equal.get(doc)
            if found is None:
                found = equal[doc] = Document(doc)
            self.docs[person] = found
            if weights is not None:
                self.weights[person] = unpack(weights)

    def entries(self, person: int) -> Mapping[int, int]:
        return self.docs.get(person, self._none).entries

    def by_document(self, people: Collection[int]) -> dict[Document, list[int]]:
        """Group those of these people who have a document by it."""
        docs = self.docs
        if docs.keys().isdisjoint(people):
            return {}
        found: dict[Document, list[int]] = {}
        for person in people:
            if (doc := docs.get(person)) is not None:
                found.setdefault(doc, []).append(person)
        return found

    def put(self, people: Iterable[int], entries: Mapping[int, int]) -> None:
        """Give these people these entries."""
        made: dict[Document, Document] = {}
        for person in people:
            doc = self.docs.get(person, self._none)
            after = made.get(doc)
            if after is None:
                after = made[doc] = Document(entries={**doc.entries, **entries})
            self.docs[person] = after
            self._changed.add(person)

    def weight(self, person: int, scope: int) -> int:
        weights = self.weights.get(person)
        return 1 if weights is None else weights.get(scope, 1)

    def weigh(self, person: int, scope: int, weight: int) -> None:
        if weight != 1:
            self.weights.setdefault(person, {})[scope] = weight
        elif person in self.weights:
            self.weights[person].pop(scope, None)

    def write(self) -> None:
        rows, docs, over = self._batch.rows("person"), self.docs, self._batch.now_us - LIFE
        made: dict[Document, tuple[int, bytes, bytes | None] | None] = {}
        for person in sorted(self._changed):
            doc, weights = docs[person], self.weights.get(person)
            if weights:
                row = rewritten(doc.entries, weights, over)
            elif doc in made:
                row = made[doc]
            else:
                row = made[doc] = rewritten(doc.entries, None, over)
            if row is not None:
                rows.append((person, *row))
        self._changed.clear()


def rewritten(
    doc: Mapping[int, int], weights: Mapping[int, int] | None, over: int
) -> tuple[int, bytes, bytes | None] | None:
    """Return the columns of a person without the entries that no window reaches after ``over``; None if nothing is left.

    The columns are the time at which the next entry is to be dropped, the document and its weights.
    """
    due = min(map(ends, doc.values()))
    if due < over:
        doc = {scope: each for scope, each in doc.items() if ends(each) >= over}
        if not doc:
            return None
        due = min(map(ends, doc.values()))
    heavy = {scope: weight for scope, weight in weights.items() if scope in doc} if weights else {}
    return due, pack(doc), pack(heavy) if heavy else None
