"""The people counted under scopes, in a batch: the document of each, how many were last counted under a scope at each time,
and the sum under each scope in each window. So a window is summed up without reading each person.

Documents and sums are read for all items at once, updated as items are admitted, and written at the batch's end. A
person counted again moves from the old time to the new. Every window of a scope begins at its last reset at the earliest.
A large sum is kept in the database, and what has left its window is subtracted: so a mailing to 400,000 people is not
summed up again in every batch.

A document has the scopes that the person was counted under and when last, as numbers. A number of a person, scope or
content is the first 64 bits of a keyed digest, so it names nobody. An entry is one number as well: its time, and how
long any count can still include it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from smtpguard.database.batch import Batch

HOUR = 3_600_000_000
"""In microseconds."""
LIFE = 600 * 1_000_000
"""Microseconds until a kept sum is counted anew. A row outside every window is kept as long."""
NEVER = -(1 << 62)
"""Older than any entry."""

_EPOCH = 1_577_836_800_000_000  # 2020: so a time fits beside twelve bits until 2091
_BITS, _HOURS = 12, 0xFFF
_EIGHT = {8}
_PAIR = struct.Struct("<qq")


def number(digest: bytes) -> int:
    """The number of a digest, or of other bytes of at least its length."""
    return int.from_bytes(digest[:8], "big", signed=True)


def numbers(digests: Sequence[bytes]) -> Sequence[int]:
    if set(map(len, digests)) == _EIGHT:
        return struct.unpack(f">{len(digests)}q", b"".join(digests))
    return [number(digest) for digest in digests]


def numbered(key: bytes, name: bytes) -> int:
    """The number of a name without a digest."""
    return number(hashlib.blake2b(name, key=key, digest_size=8).digest())


def hours(span_us: int) -> int:
    """In whole hours, as entries have them; at most 170 days."""
    return min(-(-span_us // HOUR), _HOURS)


def entry(at_us: int, for_hours: int) -> int:
    return (at_us - _EPOCH) << _BITS | for_hours


def floor(at_us: int) -> int:
    """Every entry of a later time is greater than this."""
    return (at_us - _EPOCH) << _BITS | _HOURS


def at(entry: int) -> int:
    return (entry >> _BITS) + _EPOCH


def lengthened(entry: int, before: int) -> int:
    """The entry that replaces another one, and lasts at least as long as that one."""
    return max(entry, (entry & ~_HOURS) | (before & _HOURS)) if before != NEVER else entry


def ends(entry: int) -> int:
    """The time from which no window reaches it."""
    return (entry >> _BITS) + _EPOCH + (entry & _HOURS) * HOUR


def pack(entries: Mapping[int, int]) -> bytes:
    return struct.pack(f"<{2 * len(entries)}q", *chain.from_iterable(entries.items()))


def unpack(doc: bytes) -> dict[int, int]:
    return dict(_PAIR.iter_unpack(doc))


_NOTHING: Final[Mapping[int, int]] = {}


class Documents:
    """The documents of one table. ``docs``: by number, as bytes until it is first read, then as a dict; absent if there
    is none. ``last``: the time until which a value matters."""

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

    def of(self, number: int) -> Mapping[int, int]:
        doc = self.docs.get(number)
        if doc is None:
            return _NOTHING
        if not isinstance(doc, dict):
            doc = self.docs[number] = unpack(doc)
        return doc

    def to_change(self, number: int) -> dict[int, int]:
        self.changed.add(number)
        doc = self.docs.get(number)
        if not isinstance(doc, dict):
            doc = self.docs[number] = unpack(doc) if doc is not None else {}
        return doc

    def write(self) -> None:
        """Add the changed documents to the batch's rows."""
        rows = self._batch.rows(self._table)
        for number in sorted(self.changed):
            doc = self.of(number)
            rows.append((number, max(map(self._last, doc.values())), pack(doc)))
        self.changed.clear()


class Document:
    """The entries of a person by scope; immutable, and one for all people who have equal ones, so that what is asked or
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
    """By person, the scopes they were counted under. ``docs``: by number; absent if there is none. ``weights``: by
    scope, of people who count as several or as none."""

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

    def of(self, person: int) -> Mapping[int, int]:
        return self.docs.get(person, self._none).entries

    def by_document(self, people: Collection[int]) -> dict[Document, list[int]]:
        """Those of them who have one."""
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
    """The time it is due, the document and its weights, without entries that no window reaches after ``over``; None if
    nothing is left."""
    due = min(map(ends, doc.values()))
    if due < over:
        doc = {scope: one for scope, one in doc.items() if ends(one) >= over}
        if not doc:
            return None
        due = min(map(ends, doc.values()))
    heavy = {scope: weight for scope, weight in weights.items() if scope in doc} if weights else {}
    return due, pack(doc), pack(heavy) if heavy else None


USUAL_FROM, USUAL_UNTIL = 35 * 86_400 * 1_000_000, 7 * 86_400 * 1_000_000
"""The period that the usual amount is taken from, in microseconds before now."""
_EMPTIED = "DELETE FROM moment WHERE n <= 0 AND (scope, at) IN (SELECT c0, c1 FROM {})"


class Moments:
    """The changes of one run, until they are written."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._found: dict[tuple[int, int], list[int]] = {}

    def add(self, scope: int, at: int, until: int, n: int, weight: int) -> None:
        """Add to a time; negative numbers subtract."""
        one = self._found.get((scope, at))
        if one is None:
            self._found[scope, at] = [until, n, weight]
        else:
            one[0] = max(one[0], until)
            one[1] += n
            one[2] += weight

    def later(self, scope: int, floor: int) -> int:
        """The weight in a window that is not written yet."""
        return sum(one[2] for (of, at), one in self._found.items() if of == scope and at > floor)

    def write(self) -> None:
        rows = [(scope, at, *one) for (scope, at), one in sorted(self._found.items()) if one[1] or one[2]]
        self._batch.rows("moment").extend(rows)
        left = [(scope, at) for scope, at, _, n, _ in rows if n < 0]
        if left:
            self._batch.flush()
            self._batch.execute_with(_EMPTIED, left)
        self._found.clear()


def most_in_a_window(times: Iterable[tuple[int, int]], window_us: int) -> int:
    """The highest count in a window of that length, from times with their counts."""
    ordered = sorted(times)
    most = within = first = 0
    for at, n in ordered:
        within += n
        while ordered[first][0] <= at - window_us:
            within -= ordered[first][1]
            first += 1
        most = max(most, within)
    return most


def reset(batch: Batch, scopes: Iterable[int]) -> None:
    """Start these scopes anew: nobody counted so far is in a window of theirs."""
    batch.flush()
    for scope in scopes:
        [(last,)] = batch.select("SELECT MAX(at) FROM moment WHERE scope = ?", (scope,))
        batch.rows("reset").append((scope, max(batch.now_us, last or 0)))
    batch.flush()


LARGE = 2000  # a smaller sum is not worth keeping


@dataclass(slots=True)
class Sum:
    """The weight of those counted under a scope later than ``floor``. ``made``: when it was last counted from scratch,
    if it is kept."""

    floor: int
    total: int = 0
    made: int | None = None
    changed: bool = False


class Sums:
    def __init__(self, batch: Batch, moments: Moments) -> None:
        self._batch, self._moments = batch, moments
        self._resets: dict[int, int] = {}
        self._sums: dict[int, dict[int, Sum]] = {}  # by scope and window

    def read(self, wanted: Mapping[int, Iterable[int]]) -> None:
        """``wanted``: by scope, windows in seconds."""
        for scope, at in self._batch.among("SELECT scope, at FROM reset WHERE scope {}", list(wanted)):
            self._resets[scope] = at
        for scope, windows in wanted.items():
            self._sums[scope] = {seconds: Sum(self.floor(scope, seconds)) for seconds in windows}
        known = self._kept()
        alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for scope, windows in wanted.items():
            sums = self._sums[scope]
            some = [(seconds, sums[seconds].floor) for seconds in windows if (scope, seconds) not in known]
            if some:
                alike.setdefault(tuple(sorted(some)), []).append(scope)
        for windows_of, scopes in alike.items():
            self._sum_up(windows_of, scopes)

    def of(self, scope: int, seconds: int, *, has_come: bool) -> Sum:
        """The sum that was read ahead; for a mailing that did not exist then, the sum of the batch's earlier items."""
        sums = self._sums.setdefault(scope, {})
        if seconds not in sums:
            made = sums[seconds] = Sum(self.floor(scope, seconds))
            if has_come:
                self._sum_up([(seconds, made.floor)], [scope])
                made.total += self._moments.later(scope, made.floor)
        return sums[seconds]

    def all_of(self, scope: int) -> Iterable[Sum]:
        return self._sums[scope].values()

    def keep(self) -> None:
        rows = self._batch.rows("tally")
        for scope, sums in self._sums.items():
            for seconds, one in sums.items():
                if one.made is not None and one.changed:
                    rows.append((scope, seconds, one.floor, one.total, one.made))

    def reset_at(self, scope: int) -> int:
        return self._resets.get(scope, 0)

    def floor(self, scope: int, seconds: int) -> int:
        """The time after which a window of the scope begins."""
        return max(self._batch.now_us - seconds * 1_000_000, self.reset_at(scope))

    def _kept(self) -> set[tuple[int, int]]:
        """Read the kept sums and subtract what has left their windows. Returns which of the wanted sums these are."""
        found: set[tuple[int, int]] = set()
        now = self._batch.now_us
        sql = "SELECT scope, seconds, floor, total, made FROM tally WHERE made > ? AND made <= ? AND scope {}"
        for scope, seconds, floor, total, made in self._batch.among(sql, list(self._sums), (now - LIFE, now)):
            asked = self._sums[scope].get(seconds)
            kept = Sum(floor, int(total), made)
            if asked is not None:
                if asked.floor < floor:  # another node's clock is ahead of ours: count anew
                    continue
                sql_gone = "SELECT SUM(weight) FROM moment WHERE scope = ? AND at > ? AND at <= ?"
                [(gone,)] = self._batch.select(sql_gone, (scope, floor, asked.floor))
                kept.total -= int(gone or 0)
                kept.floor = asked.floor
                found.add((scope, seconds))
            self._sums[scope][seconds] = kept
        return found

    def _sum_up(self, windows: Sequence[tuple[int, int]], scopes: list[int]) -> None:
        """Count from scratch. ``windows``: their lengths, ascending, with their floors, which all the scopes have."""
        *floors, least = [floor for _, floor in windows]
        each = ["SUM(CASE WHEN at > ? THEN weight ELSE 0 END)"] * len(floors)
        sql = (
            f"SELECT scope, {', '.join([*each, 'SUM(weight)'])} FROM moment WHERE at > ? AND scope {{}} GROUP BY scope"
        )
        for scope, *totals in self._batch.among(sql, scopes, (*floors, least)):
            for (seconds, _), total in zip(windows, totals, strict=True):
                self._sums[scope][seconds].total += int(total)
        for scope in scopes:
            for seconds, _ in windows:
                one = self._sums[scope][seconds]
                if one.total >= LARGE:
                    one.made, one.changed = self._batch.now_us, True
