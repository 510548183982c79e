"""Finding holds: the words and marks that stand beside each one's document, and the pages of a list of them.

Words are of subject and sender, for people who search; marks say in full what it touches: "list:NAME", "from:ADDRESS",
"group:NAME" of those who may decide. All that a list asks is in one index, so that a page of it costs the same however large
the documents are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from heapq import merge
from itertools import islice

from sqlalchemy import ColumnElement, Connection, or_, select, tuple_

from smtpguard.database.schema import hold as table
from smtpguard.holds.model import Hold, State
from smtpguard.journal.chain import microseconds
from smtpguard.policy.verdict import Quorum

# An entry of an index has to be smaller than a third of a page on PostgreSQL.
_MOST_WORDS = 400
_MOST_MARKS = 600
_MOST_SUBJECT = 200


def words_of(hold: Hold) -> str:
    said = " ".join((hold.subject[:_MOST_SUBJECT], hold.sender or "", *sorted(hold.senders)))
    return said.casefold()[:_MOST_WORDS]


def marks_of(hold: Hold) -> str:
    """Each on a line of its own; whole ones, as many as fit."""
    groups = sorted({group for quorum in hold.verdict.quorum for group in _groups(quorum)})
    kept = "\n"
    for mark in (
        *(f"list:{name}" for name in hold.lists),
        *(f"from:{address}" for address in sorted(hold.senders)),
        *(f"group:{group}" for group in groups),
    ):
        if len(kept) + len(mark) < _MOST_MARKS:
            kept += f"{mark}\n"
    return kept


def ids(
    connection: Connection,
    *,
    states: Sequence[State],
    words: Sequence[str],
    marks: Sequence[Sequence[str]],
    limit: int,
    before: datetime | None,
    after_id: str | None,
) -> list[str]:
    """Ids of holds that lead, newest first. A state at a time, since so the index gives them in order."""
    found = []
    narrow = _narrowed(words, marks)
    if before is not None:
        narrow.append(tuple_(table.c.held_at, table.c.hold_id) < tuple_(microseconds(before), after_id or ""))
    for state in states:
        query = (
            select(table.c.held_at, table.c.hold_id)
            .where(table.c.state == state.value, table.c.lead.is_(None), *narrow)
            .order_by(table.c.held_at.desc(), table.c.hold_id.desc())
            .limit(limit)
        )
        found.append([(int(at), str(id)) for at, id in connection.execute(query)])
    return [id for _, id in islice(merge(*found, reverse=True), limit)]


def _narrowed(words: Sequence[str], marks: Sequence[Sequence[str]]) -> list[ColumnElement[bool]]:
    each_word = [table.c.sought.contains(word, autoescape=True) for word in words]
    one_mark = [or_(*(table.c.marks.contains(f"\n{mark}\n", autoescape=True) for mark in any_of)) for any_of in marks]
    return [*each_word, *one_mark]


def _groups(quorum: Quorum) -> Iterator[str]:
    yield from quorum.groups
    if quorum.out_of_hours is not None:
        yield from _groups(quorum.out_of_hours)
