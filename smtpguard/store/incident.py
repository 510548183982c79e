"""What the journal has on an incident: its verdicts by what was asked, and the history of whatever they name.

The database looks for what may fit, the case (audit.report) decides. All is read in one moment's snapshot, together with the
proof that the journal is whole. Never here: what belongs to a case, or what a report says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, and_, or_

from smtpguard.audit.about import About
from smtpguard.audit.chain import Clear, Entry, Proof, Seal, canonical
from smtpguard.audit.checkpoint import Checkpoint
from smtpguard.audit.event import Kind
from smtpguard.audit.report import AROUND, Case, Report
from smtpguard.policy.mailing import Mailing
from smtpguard.store import journal, mailings
from smtpguard.store.batch import read_head
from smtpguard.store.schema import entry

MOST_MAILINGS = 100
"""Of so many the figures are told, those with the most messages."""
_PAGE = 1000
_MANY = 500
_VERDICT = Kind.VERDICT.value
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """``report``: None where no message fits. ``mailings``: as they are now, over all of their time. ``seq``, ``hash``: the
    journal's last entry; ``checkpoint``: the last one signed. ``proof``: None where nobody asked for it."""

    report: Report | None
    mailings: Sequence[Mailing]
    journal: str
    seq: int
    hash: bytes
    checkpoint: Checkpoint | None
    proof: Proof | None


def find(
    connection: Connection,
    about: About,
    secret: bytes,
    lines: Sequence[str],
    now: datetime,
    *,
    prove: bool = True,
    progress: Progress | None = None,
) -> Found:
    """``connection``: a snapshot. ``lines``: the checkpoints of the file, read before it."""
    head = read_head(connection)
    if about.whole:
        about = replace(about, ids=about.ids | _mailings_of(connection, about.ids))
    case = Case(about, Seal(secret, head.journal))
    for pair in _verdicts(connection, about):
        case.judge(*pair)
    if case.messages:
        for pair in _history(connection, case.ids):
            case.add(*pair)
        for pair in _around(connection, *case.period()):
            case.around(*pair)
    marks = journal.marks(connection, secret, head.journal, lines)
    return Found(
        report=case.report() if case.messages else None,
        mailings=[
            one for name in case.mailings[:MOST_MAILINGS] if (one := mailings.find(connection, name, now)) is not None
        ],
        journal=head.journal,
        seq=head.seq,
        hash=head.hash,
        checkpoint=max(marks.genuine, key=lambda mark: mark.seq, default=None),
        proof=journal.prove(connection, secret, lines, progress) if prove else None,
    )


def _verdicts(connection: Connection, about: About) -> Iterator[tuple[Entry, Clear | None]]:
    """Those that may fit, in order."""
    wanted: list[ColumnElement[bool]] = [entry.c.kind == _VERDICT]
    if about.since is not None:
        wanted.append(entry.c.seq >= journal.first_at(connection, about.since))
    if about.until is not None:
        wanted.append(entry.c.seq < journal.first_at(connection, about.until))
    if about.ids:
        wanted.append(or_(entry.c.id.in_(about.ids), *(_says(id) for id in about.ids)))
    if about.lists:
        wanted.append(or_(*(_says(name) for name in about.lists)))
    after = 0
    while rows := connection.execute(
        journal.ROWS.where(*wanted, entry.c.seq > after).order_by(entry.c.seq).limit(_PAGE)
    ).all():
        yield from map(journal.pair, rows)
        after = rows[-1].seq


def _mailings_of(connection: Connection, ids: Collection[str]) -> set[str]:
    query = journal.ROWS.where(entry.c.id.in_(sorted(ids)), entry.c.kind == _VERDICT)
    return {str(name) for one, _ in _pairs(connection, query) if (name := one.data.get("mailing"))}


def _says(text: str) -> ColumnElement[bool]:
    """Whether the body has this string, as JSON writes it."""
    return entry.c.body.contains(canonical(text), autoescape=True)


def _history(connection: Connection, ids: Collection[str]) -> Iterator[tuple[Entry, Clear | None]]:
    """What happened to these, verdicts aside; of one id in order."""
    wanted = sorted(ids)
    for start in range(0, len(wanted), _MANY):
        some = wanted[start : start + _MANY]
        yield from _pairs(connection, journal.ROWS.where(entry.c.id.in_(some), entry.c.kind != _VERDICT))


def _around(connection: Connection, begin: int, end: int) -> Iterator[tuple[Entry, Clear | None]]:
    """What may have happened around a case of that time: policies however old, since one of them decided."""
    then = (entry.c.seq >= journal.first_at(connection, begin), entry.c.seq < journal.first_at(connection, end + 1))
    in_time = or_(entry.c.kind == Kind.POLICY.value, and_(*then))
    yield from _pairs(connection, journal.ROWS.where(journal.of_kind(*map(Kind, AROUND)), in_time))


def _pairs(connection: Connection, query: Select[tuple[object, ...]]) -> Iterator[tuple[Entry, Clear | None]]:
    yield from map(journal.pair, connection.execute(query.order_by(entry.c.seq)).all())
