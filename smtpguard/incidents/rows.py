"""Read an incident from the journal: the verdicts that match the query, and the entries on what they name.

The database preselects; the case (incidents.report) decides. Entries are read up to the head that the journal had at
the start. The walk that proves the chain meets each of them again, so that a report contains only proved entries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import chain

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from smtpguard.database.access import Progress, sliced
from smtpguard.database.errors import Unavailable
from smtpguard.database.schema import clear, entry
from smtpguard.incidents.intrusion import WATCHED, Usual, usual_ingress
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import DAY, SURROUNDING, Case, Findings, Report
from smtpguard.incidents.statement import Entries
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry, Pair
from smtpguard.journal.distinct import Asked
from smtpguard.journal.event import Kind
from smtpguard.journal.proof import Sources
from smtpguard.journal.scan import Walk, pages
from smtpguard.mailings import rows as mailings
from smtpguard.mailings.model import Mailing

MOST_MAILINGS = 100
"""The most mailings whose figures are given: those with the most messages."""
TRIES = 3
EARLIER = 5000
"""The number of messages before the case among which those of the same writers are searched."""
MOST_NAMED = 10
"""The most ids that ``matching_ids`` returns."""
_LATELY = 5000
"""The number of newest messages whose writers ``writers`` returns."""
_MANY = 500
_SET_BACK = 26 * 3600 * 1_000_000
"""By how much a clock may be set back, a time zone included, without the search missing an entry, in microseconds."""
_CONTENT = re.compile(r"[0-9a-f]{64}\Z")
_VERDICT, _FREEZE = Kind.VERDICT.value, Kind.FREEZE.value
_CAME = (_VERDICT, Kind.REFUSED.value)
"""The kinds of entries that say that a message came, or would have come if the relay had not refused recipients."""
_IDS_OF = (_VERDICT, _FREEZE)


def find(
    walks: Callable[[], Walk],
    query: IncidentQuery,
    now: datetime,
    *,
    prove: bool,
    progress: Progress | None = None,
    asked: Asked | None = None,
    may: Callable[[Report], bool] | None = None,
) -> Findings:
    """Read an incident. ``walks``: begins a walk over the journal. ``asked``: returns whether a person is on a list (as
    in Case). ``may``: returns whether the report may be seen; if not, it is not proved either, so that it takes no
    longer than if nothing matches. Raises TooMany, and Unavailable if retention trims entries during every try."""
    for _ in range(TRIES):
        found = _Search(walks(), query, prove, asked).findings(now, progress, may)
        if found is not None:
            return found
    raise Unavailable("retention is trimming what the report is about: ask again later")


class _Search:
    """One try to read an incident. Entries are read up to the walk's head, so that all of them are of one moment."""

    def __init__(self, walk: Walk, query: IncidentQuery, prove: bool, asked: Asked | None) -> None:
        self._walk, self._open = walk, walk.open
        self._up_to_head = entry.c.seq <= walk.head.seq
        self._query = replace(query, ids=query.ids | self._mailings_of(query.ids)) if query.whole else query
        self._case = Case(self._query, walk.seal, asked)
        self._sources = Sources(walk.seal, walk.renewed) if prove else None
        self._first = walk.head.seq + 1  # of the entries that the report uses

    def findings(
        self, now: datetime, progress: Progress | None, may: Callable[[Report], bool] | None
    ) -> Findings | None:
        """Return the findings, None if retention has trimmed entries of the report meanwhile: it must be made again
        without them."""
        case, head = self._case, self._walk.head
        self._read()
        if self._trimmed():
            return None
        report, proof = case.report(self._usual(), self._watched()) if case.messages else None, None
        if self._sources is not None and report is not None and (may is None or may(report)):
            proof = self._walk.prove(progress, self._sources)
        if proof is not None and proof.ok and self._sources is not None and self._sources.has_trimmed:
            return None
        return Findings(
            report=report,
            mailings=[one for name in case.mailings[:MOST_MAILINGS] if (one := self._mailing(name, now)) is not None],
            journal=head.journal,
            seq=head.seq,
            hash=head.hash,
            checkpoint=self._walk.signed,
            proof=proof,
        )

    def _read(self) -> None:
        case = self._case
        for pair in self._verdicts():
            if case.add_verdict(*pair):
                self._use(*pair)
        if case.messages:
            for pair in self._history(case.ids):
                case.add_entry(*pair)
                self._use(*pair)
            for pair in self._surrounding(*case.period()):
                if case.add_surrounding(*pair):
                    self._use(*pair)

    def _watched(self) -> dict[str, Entries]:
        """Return the events of the guard itself, from a day before the first message to the last entry on any."""
        begin, end = self._case.period()
        found: dict[str, Entries] = {}
        then = entry.c.at.between(begin - DAY, end - DAY)
        query = select(entry.c.kind, entry.c.seq).where(journal.of_kind(*WATCHED), then, self._up_to_head)
        with self._open() as connection:
            for kind, seq in connection.execute(query):
                found.setdefault(kind, Entries()).add(seq)
        return found

    def _usual(self) -> Usual:
        """Return how earlier mail of the same writers came in, among the last messages of anybody before the case."""
        case = self._case
        query = (
            journal.ROWS.where(entry.c.kind == _VERDICT, entry.c.seq < case.first_entry)
            .order_by(entry.c.seq.desc())
            .limit(EARLIER)
        )
        with self._open() as connection:
            rows = connection.execute(query).all()
        some = (journal.pair(row)[0] for row in rows)
        wrote = (one for one in some if not case.writers.isdisjoint(one.content["private"].get("from", ())))
        return usual_ingress(case.traits, wrote)

    def _use(self, one: Entry, clear: Clear | None) -> None:
        self._first = min(self._first, one.seq)
        if self._sources is not None:
            self._sources.add(one, clear)

    def _trimmed(self) -> bool:
        with self._open() as connection:
            first = connection.execute(select(func.min(entry.c.seq))).scalar()
        return first is not None and self._first < first

    def _verdicts(self) -> Iterator[Pair]:
        query = self._query
        wanted: list[ColumnElement[bool]] = [entry.c.kind.in_(_CAME)]
        begin, end = 0, self._walk.head.seq
        with self._open() as connection:
            if query.since is not None:
                begin = journal.first_at(connection, query.since - _SET_BACK) - 1
            if query.until is not None:
                end = min(end, journal.first_at(connection, query.until + _SET_BACK) - 1)
        if query.ids and not any(_CONTENT.match(id) for id in query.ids):  # a content is in no column
            wanted.append(journal.named(query.ids))
        if query.lists:
            wanted.append(journal.touches(query.lists))
        for page in pages(self._open, end, *wanted, after=begin):
            yield from page

    def _history(self, ids: Collection[str]) -> Iterator[Pair]:
        """Yield the entries on these ids, other than verdicts; those of one id in order."""
        for some in sliced(sorted(ids), _MANY):
            yield from self._pairs(entry.c.id.in_(some), entry.c.kind.not_in(_CAME))

    def _surrounding(self, begin: int, end: int) -> list[Pair]:
        """Return the entries that may surround a case of that time: policies of any age, since one of them decided; and
        other entries from the day before on, since a list that was read before the first message may be in use only
        after it."""
        begin -= DAY
        with self._open() as connection:
            first, last = journal.span(connection, begin, end + 1, _SET_BACK)
        then = and_(entry.c.seq.between(first, last), entry.c.at.between(begin, end))
        return self._pairs(journal.of_kind(*map(Kind, SURROUNDING)), or_(entry.c.kind == Kind.POLICY.value, then))

    def _mailings_of(self, ids: Collection[str]) -> set[str]:
        """Return the mailings of these messages, and of those that these freezes stopped."""
        found = self._pairs(entry.c.id.in_(sorted(ids)), entry.c.kind.in_((_VERDICT, _FREEZE)))
        if freezes := {one.id: one.seq for one, _ in found if one.kind == _FREEZE}:
            wanted = entry.c.kind == _VERDICT, journal.named(freezes)
            for page in pages(self._open, self._walk.head.seq, *wanted, after=min(freezes.values())):
                found += page
        return {str(name) for one, _ in found if (name := one.data.get("mailing"))}

    def _pairs(self, *wanted: ColumnElement[bool]) -> list[Pair]:
        """Return the entries that match. All conditions use an index, so that one query reads them."""
        query = journal.ROWS.where(*wanted, self._up_to_head).order_by(entry.c.seq)
        with self._open() as connection:
            rows = connection.execute(query).all()
        return list(map(journal.pair, rows))

    def _mailing(self, name: str, now: datetime) -> Mailing | None:
        """Return a mailing, None if there is none or its figures are erased: its row may stay."""
        with self._open() as connection:
            found = mailings.find(connection, now, name)
        return found if found is not None and found.messages else None


def matching_ids(connection: Connection, word: str) -> list[str]:
    """Return the ids of messages, mailings and freezes that begin with ``word``, at most ten; only the exact match if
    there is one."""
    low = word.strip().upper()
    if not low:
        return []
    for exactly in dict.fromkeys((word, low)):
        if connection.execute(select(entry.c.seq).where(entry.c.id == exactly).limit(1)).first() is not None:
            return [exactly]
    begins = mailings.prefix_condition(entry.c.id, low)
    ids = connection.execute(
        select(entry.c.id).where(*begins, entry.c.kind.in_(_IDS_OF)).distinct().order_by(entry.c.id).limit(MOST_NAMED)
    ).scalars()
    found = sorted({*ids, *mailings.named(connection, low)})
    return [low] if low in found else found[:MOST_NAMED]


def writers(connection: Connection) -> list[str]:
    """Return the writers of the newest messages, unless they are erased."""
    query = select(clear.c.doc).join(entry, entry.c.seq == clear.c.seq).where(entry.c.kind == Kind.VERDICT.value)
    rows = connection.execute(query.order_by(entry.c.seq.desc()).limit(_LATELY)).scalars()
    who = (json.loads(row) for row in rows)
    return list(dict.fromkeys(chain.from_iterable((*one.get("from", ()), *one.get("reverse_path", ())) for one in who)))
