"""Verify the chain, and that names fit their digests, as fast as possible: over plain rows, and in several processes
for a large journal.

The answer is yes or no. After a no the caller walks over all of it again (scan.Walk.prove), which is slower and says
what is wrong. The answer is also no if retention trims or erases entries during the walk.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import func, select

from smtpguard.database.access import Open, Progress
from smtpguard.database.engine import Database
from smtpguard.database.schema import entry
from smtpguard.journal.chain import NAMELESS, NO_COLUMNS, Seal, columns_of, parsed, runs_on
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.event import Kind
from smtpguard.journal.merkle import Roots
from smtpguard.journal.timecheck import TimeCheck

if TYPE_CHECKING:
    from concurrent.futures import Future

STRETCH = 5_000
LARGE = 200_000
"""The number of entries from which a second process pays."""
_POLL_SECONDS = 0.2
_ROWS = (
    "SELECT e.seq, e.at, e.kind, e.id, e.body, e.prev, e.hash, c.doc, e.action, e.observed, e.lists, e.names"
    " FROM entry e LEFT JOIN clear c ON c.seq = e.seq WHERE e.seq > {} AND e.seq <= {} ORDER BY e.seq"
)
_VERDICT = Kind.VERDICT.value

Met = Callable[[int, bytes], None]
"""Called with number and hash of each entry, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Entries ``after`` + 1 to ``until`` of a chain. ``marks``: the checkpoints among them. ``latest``: the time of the
    entry before. ``roots``, ``begin``, ``stack``: the tree (merkle.Roots) before them."""

    after: int
    until: int
    marks: tuple[Checkpoint, ...]
    latest: int
    now: int
    roots: Mapping[int, Sequence[tuple[bytes, bytes]]]
    begin: int
    stack: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """A part whose entries follow each other: their number, the hashes at its ends, and its course."""

    entries: int
    prev: bytes
    hash: bytes
    course: TimeCheck
    stack: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Data to compare names with digests. ``through``: up to which entry retention has erased them. ``gates``: the
    entries that moved the gate, in order, each with the generation that it began. ``erased``: digests of values that were erased for a
    person. ``bypasses``: the first entry about each."""

    secret: bytes
    journal: str
    renewed: int
    through: int
    gates: tuple[tuple[int, int], ...] = ()
    bypasses: Mapping[str, int] = field(default_factory=dict)
    erased: frozenset[str] = frozenset()


def walk(open: Open, count: Callable[[int], None], part: Part, named: Named, met: Met | None = None) -> Walked | None:
    """``count`` gets the numbers of entries. None if an entry does not follow the one before it, or names do not fit."""
    names = _Names(named)
    course = TimeCheck(part.marks, part.now, part.latest)
    roots = Roots(part.roots, part.begin, part.after - part.begin + 1, part.stack)
    first, prev, seq, seen = b"", b"", part.after, 0
    for rows in _stretches(open, count, part.after, part.until):
        if not prev:
            first = prev = bytes(rows[0][5])
        last = runs_on(rows, seq, prev)
        if last is None or not names.fit(rows):
            return None
        course.meets(rows)
        roots.meets(rows)
        if met is not None:
            for row in rows:
                met(row[0], row[6])
        seq, prev, seen = rows[-1][0], last, seen + len(rows)
    if seq != part.until or roots.wrong:
        return None
    return Walked(entries=seen, prev=first, hash=prev, course=course, stack=roots.stack)


class _Names:
    """Whether clear values fit their digests, and the columns beside each entry its body; entries in order."""

    def __init__(self, named: Named) -> None:
        self._seal = Seal(named.secret, named.journal, named.erased.__contains__)
        self._named, self._gates, self._generation = named, deque(named.gates), 0

    def fit(self, rows: Sequence[Any]) -> bool:
        gates, generation, named, fits = self._gates, self._generation, self._named, self._seal.fits
        for seq, _, kind, id, body, _, _, doc, *beside in rows:
            nameless = body.endswith(NAMELESS)
            if kind != _VERDICT and nameless and doc is None:
                if beside != _NOTHING:
                    return False
                continue
            try:
                content = parsed(body)
                while gates and gates[0][0] < seq:
                    generation = gates.popleft()[1]
                data = content["data"]
                late = kind == _VERDICT and data.get("generation", generation) < generation
                if late and named.bypasses.get(data.get("bypass"), seq) >= seq:
                    return False
                if tuple(beside) != columns_of(kind, id, data):
                    return False
                if doc is None:
                    if not nameless and seq > named.through:
                        return False
                elif seq >= named.renewed and not fits(content["private"], orjson.loads(doc)):
                    return False
            except (ValueError, TypeError, KeyError, AttributeError):
                return False
        self._generation = generation
        return True


_NOTHING = list(NO_COLUMNS)


def _stretches(open: Open, count: Callable[[int], None], after: int, until: int) -> Iterator[Sequence[Any]]:
    """Rows, a stretch in a transaction. ``count`` gets their number."""
    while after < until:
        with open() as connection:
            first = connection.execute(select(func.min(entry.c.seq)).where(entry.c.seq > after)).scalar()
            if first is None or first > until:
                return
            end = min(first + STRETCH - 1, until)
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(_ROWS.format(int(first) - 1, int(end)))
                rows = cursor.fetchall()
        after = end
        count(len(rows))
        yield rows


def walked(
    open: Open,
    url: str,
    parts: Sequence[Part],
    named: Named,
    progress: Progress | None,
    met: Met | None = None,
) -> list[Walked] | None:
    """Each part, in a process of its own if there are several; None if they do not form one chain that holds, or names do
    not fit."""
    found = _each(open, url, parts, named, progress, met)
    made = [one for one in found if isinstance(one, Walked)]
    if len(made) < len(parts) or any(b.prev != a.hash for a, b in itertools.pairwise(made)):
        return None
    if any(next.stack != one.stack for one, next in zip(made, parts[1:], strict=False)):
        return None
    return made


def middle(after: int, until: int, marks: Sequence[Checkpoint]) -> int:
    """The checkpoint near the middle of a large journal at which it is split, so that no stretch between two
    checkpoints is split; 0 for one process."""
    half, quarter = (after + until) // 2, (until - after) // 4
    near = min((mark.seq for mark in marks), key=lambda seq: abs(seq - half), default=0)
    return near if until - after >= LARGE and cores() > 1 and after + quarter < near < until - quarter else 0


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_counter: Any = None


def _begin(counter: Any) -> None:
    global _counter
    _counter = counter


def _elsewhere(url: str, part: Part, named: Named) -> Walked | None:
    """In a process of its own."""

    def count(n: int) -> None:
        with _counter.get_lock():
            _counter.value += n

    database = Database(url, reads=True)
    try:
        return walk(lambda: database.read(snapshot=True), count, part, named)
    finally:
        database.close()


def _each(
    open: Open, url: str, parts: Sequence[Part], named: Named, progress: Progress | None, met: Met | None
) -> list[Walked | None]:
    total = parts[-1].until - parts[0].after
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, total)

    if len(parts) < 2 or not url:
        return [walk(open, count, part, named, met) for part in parts]
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    context = get_context("spawn")
    counter = context.Value("q", 0)
    with ProcessPoolExecutor(len(parts), context, _begin, (counter,)) as pool:
        running = [pool.submit(_elsewhere, url, part, named) for part in parts]
        for one in running:
            _wait(one, counter, total, progress)
        return [one.result() for one in running]


def _wait(one: Future[Any], counter: Any, total: int, progress: Progress | None) -> None:
    while not one.done():
        try:
            one.exception(_POLL_SECONDS)
        except TimeoutError:
            pass
        if progress is not None:
            progress(counter.value, total)
