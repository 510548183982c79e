"""The journal as rows: its entries in order, and its signed checkpoints, compared with those in the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, insert, or_, select, text, update

from smtpguard.database.access import Open, among, either, first_and_last
from smtpguard.database.batch import Batch
from smtpguard.database.schema import RARE, checkpoint, clear, entry, hook
from smtpguard.database.statements import rows_among, rows_of
from smtpguard.journal import signing
from smtpguard.journal.chain import Entry, Pair, clear_from, instant, lines, may_say, microseconds, parsed
from smtpguard.journal.checkpoint import WITNESS, Checkpoint, body_of, genuine, parse, readable, sign
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import STAYED, Outcome, relayed
from smtpguard.journal.proof import Bad
from smtpguard.locale.phrase import Phrase

STRETCH = 2000
"""The number of entries that are read in one transaction."""
_SIGNED = 5000  # checkpoints that are signed anew at a time
_SIGN_ANEW = update(checkpoint).where(checkpoint.c.seq == bindparam("at_seq"))
_LINK = [entry.c[name] for name in ("seq", "at", "kind", "id", "body", "prev", "hash")]
ROWS = select(*_LINK, clear.c.doc).select_from(entry.outerjoin(clear, clear.c.seq == entry.c.seq))
"""Entries with their clear values. Each row is one for ``pair``; further columns may follow."""
NOTABLE = checkpoint.c.notable.is_(True)
"""The condition for checkpoints with rare fields."""
LATE = 300 * 1_000_000
"""The longest time, in microseconds, between a verdict's decision and its entry in the chain. A front is moved at once; that of a
process that died is moved by another."""
SET_BACK = 2 * 3600 * 1_000_000
"""The most, in microseconds, by which a clock that was set back hides no entry from ``happened_to``."""
VERDICT = entry.c.kind == Kind.VERDICT.value
IN_SQL = (
    "SELECT entry.seq, at, kind, id, body, prev, hash, doc, action, observed, lists, names"
    " FROM entry LEFT JOIN clear ON clear.seq = entry.seq"
)
"""``ROWS`` with the columns by which verdicts are selected, for reads at rest and large ones: SQLAlchemy would take as long again to
convert each value."""
_BETWEEN = f"{IN_SQL} WHERE entry.seq BETWEEN ? AND ? ORDER BY entry.seq"
_COMMON = frozenset({Kind.VERDICT, Kind.OUTCOME})


def read(connection: Connection, *, after: int = 0, until: int | None = None, limit: int = 1000) -> list[Pair]:
    """Return the entries after ``after`` in order, with their clear values."""
    query = ROWS.where(entry.c.seq > after).order_by(entry.c.seq).limit(limit)
    if until is not None:
        query = query.where(entry.c.seq <= until)
    return list(map(pair, connection.execute(query)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """Entries up to ``through``, each a row of ``IN_SQL``. ``more``: whether entries follow them."""

    through: int
    more: bool
    rows: Sequence[Any]


def unread(connection: Connection, after: int, last: int, length: int) -> Unread | None:
    """Return the next entries after ``after``, up to the end of a stretch of ``length`` entries; None if there is none. ``last``: the
    newest entry."""
    first = next_after(connection, after)
    if first is None:
        return None
    through = min((first // length + 1) * length - 1, last)
    return Unread(through=through, more=through < last, rows=between(connection, first, through))


def next_after(connection: Connection, after: int) -> int | None:
    """Return the number of the first entry after ``after``; None if there is none."""
    [(first,)] = rows_of(connection, "SELECT MIN(seq) FROM entry WHERE seq > ?", (after,))
    return None if first is None else int(first)


def between(connection: Connection, first: int, last: int) -> list[Any]:
    """Return the entries ``first`` to ``last``, each a row of ``IN_SQL``."""
    return rows_of(connection, _BETWEEN, (first, last))


def back(open: Open, before: int, least: int, *wanted: ColumnElement[bool]) -> Iterator[list[Pair]]:
    """Yield the wanted entries before entry ``before``, not below ``least``, newest first, a list for each stretch. A list may be
    empty."""
    while before > least:
        first = max(least, before - STRETCH)
        query = ROWS.where(entry.c.seq.between(first, before - 1), *wanted).order_by(entry.c.seq.desc())
        with open() as connection:
            rows = connection.execute(query).all()
        yield list(map(pair, rows))
        before = first


def history(connection: Connection, id: str, *kinds: Kind) -> list[Pair]:
    """Return the entries on one transaction, hold or freeze, in order; only those of ``kinds`` if any are given."""
    query = ROWS.where(entry.c.id == id).order_by(entry.c.seq)
    if kinds:
        query = query.where(entry.c.kind.in_([kind.value for kind in kinds]))
    return list(map(pair, connection.execute(query)))


def of_kind(*kinds: Kind) -> ColumnElement[bool]:
    """Return the condition for entries of these kinds. It uses the partial index of rare kinds if all of them are rare."""
    return and_(text(which(*kinds)))


def which(*kinds: Kind) -> str:
    """Return the condition of ``of_kind`` as SQL."""
    condition = f"entry.kind IN ({', '.join(sorted(repr(kind.value) for kind in kinds))})"
    return condition if _COMMON.intersection(kinds) else f"{condition} AND entry.{RARE}"


def of_kinds(connection: Connection, kinds: Sequence[Kind], limit: int, before: int | None = None) -> list[Pair]:
    """Return the newest entries of these kinds, of those before entry ``before``."""
    earlier = "" if before is None else f" AND entry.seq < {int(before)}"
    sql = f"{IN_SQL} WHERE {which(*kinds)}{earlier} ORDER BY entry.seq DESC LIMIT {int(limit)}"
    return list(map(pair, rows_of(connection, sql)))


def freezes(connection: Connection, limit: int, before: int | None = None) -> list[Pair]:
    """Return the newest entries of freezes and thaws, of those before entry ``before``."""
    return of_kinds(connection, (Kind.FREEZE, Kind.THAW_ASKED, Kind.THAW), limit, before)


def happened_to(connection: Connection, kinds: Sequence[Kind], since: int, until: int) -> list[Entry]:
    """Return the entries of rare kinds in a time, without their clear values. It looks at entries from two hours before on, so that a
    clock that was set back hides none."""
    here = entry.c.seq >= first_at(connection, since - SET_BACK), entry.c.at >= since, entry.c.at < until
    found = connection.execute(ROWS.where(of_kind(*kinds), *here).order_by(entry.c.seq))
    return [pair(row)[0] for row in found]


def outcomes(connection: Connection, ids: Sequence[str]) -> dict[str, Outcome]:
    """Return the outcomes of verdicts to relay, by id, as far as entries have them."""
    kinds = [Kind.OUTCOME.value, Kind.IN_DOUBT.value]
    found: dict[str, Outcome] = {}
    query = select(entry.c.id, entry.c.kind, entry.c.body).where(entry.c.kind.in_(kinds)).order_by(entry.c.seq)
    for id, kind, body in among(connection, query, entry.c.id, ids):
        if (end := relayed(kind, parsed(body)["data"])) is not None:
            found[id] = end
    return found


def stayed(connection: Connection, ids: Sequence[str]) -> list[tuple[int, Entry]]:
    """Return the verdicts to relay on messages that the relay does not have (outcome.STAYED), each after the number of the entry that
    says so. A message that was recalled may have been admitted again: each verdict has an outcome of its own, and they are in
    the same order."""
    kinds = [Kind.VERDICT.value, Kind.OUTCOME.value]
    ends = select(entry.c.id, entry.c.body).where(entry.c.kind == Kind.OUTCOME.value)
    some = {
        id for id, body in among(connection, ends, entry.c.id, ids) if may_stay(body) and stays(parsed(body)["data"])
    }
    verdicts, outcomes = dict[str, list[Entry]](), dict[str, list[int]]()
    for row in among(connection, ROWS.where(entry.c.kind.in_(kinds)).order_by(entry.c.seq), entry.c.id, sorted(some)):
        one, _ = pair(row)
        if one.kind == Kind.VERDICT.value and one.data.get("action") == "relay":
            verdicts.setdefault(one.id, []).append(one)
        elif one.kind == Kind.OUTCOME.value and stays(one.data):
            outcomes.setdefault(one.id, []).append(one.seq)
    return [pair for id in sorted(some) for pair in zip(outcomes[id], verdicts.get(id, ()), strict=False)]


def may_stay(body: str) -> bool:
    """Return whether ``stays`` may hold for the body of an outcome, by a search for the outcome of nearly all."""
    return not may_say(body, "outcome", '"relayed"')


def stays(data: Mapping[str, Any]) -> bool:
    """Return whether an outcome of a verdict to relay says that the relay does not have the message."""
    return not data.get("part") and relayed(Kind.OUTCOME.value, data) in STAYED


def first_at(connection: Connection, at: int) -> int:
    """Return the first entry at a time or later, by bisection: entries are in the order of time, and have no index on it. Missing
    entries are skipped."""
    low, high = first_and_last(connection, entry.c.seq)
    if low is None:
        return 0
    high += 1
    while low < high:
        middle = (low + high) // 2
        there = select(entry.c.seq, entry.c.at).where(entry.c.seq >= middle, entry.c.seq < high)
        found = connection.execute(there.order_by(entry.c.seq).limit(1)).one_or_none()
        if found is not None and found.at < at:
            low = found.seq + 1
        else:
            high = middle
    return int(low)


def newest_at(connection: Connection, before: datetime, since: datetime) -> tuple[datetime | None, datetime | None]:
    """Return the time of the newest entry before ``before``, and that of the first entry after it, if it is needed.

    If bisection finds no entry since ``since``, all that follow are read: entries of a clock that was ahead for a time mislead
    bisection. Only then is the second time returned; else it is None.
    """
    end, begun = microseconds(before), None
    first = first_at(connection, end)
    at = connection.execute(
        select(entry.c.at).where(entry.c.seq < first).order_by(entry.c.seq.desc()).limit(1)
    ).scalar()
    if at is not None and at < microseconds(since):
        later = select(func.max(entry.c.at)).where(entry.c.seq >= first, entry.c.at < end)
        at = max(at, connection.execute(later).scalar() or at)
        begun = connection.execute(select(func.min(entry.c.at)).where(entry.c.seq >= first, entry.c.at >= end)).scalar()
    return None if at is None else instant(at), None if begun is None else instant(begun)


def span(connection: Connection, since: int, until: int, late: int = LATE) -> tuple[int, int]:
    """Return the first and the last entry of the range that has all entries of a time, also those that are up to ``late`` microseconds
    late, and those of a clock that was set back by no more."""
    return first_at(connection, since - late), first_at(connection, until + late) - 1


def spans(connection: Connection, since: int, until: int) -> list[tuple[int, int]]:
    """Return the range of ``span``, and the ranges of entries that a bypass recorded in that time and that entered the chain later
    (``event.happened``). The ranges are in order and do not overlap."""
    sql = f"SELECT at, body FROM entry WHERE {which(Kind.BYPASS)} AND at >= ?"
    adopted = [at for at, body in rows_of(connection, sql, (since,)) if parsed(body)["data"]["change"] == "adopted"]
    found = sorted([span(connection, since, until), *(span(connection, at, at + 1) for at in adopted)])
    apart = [found[0]]
    for first, last in found[1:]:
        if first <= apart[-1][1] + 1:
            apart[-1] = apart[-1][0], max(apart[-1][1], last)
        else:
            apart.append((first, last))
    return apart


def hashes(connection: Connection, seqs: Sequence[int]) -> dict[int, bytes]:
    """Return the hashes of those of these entries that exist, in order."""
    rows = rows_among(connection, "SELECT seq, hash FROM entry WHERE seq {}", seqs)
    return dict(sorted(rows))


def signed(connection: Connection) -> tuple[int, datetime | None]:
    """Return the last entry, and when the last checkpoint was signed; None without a checkpoint."""
    last = connection.execute(select(func.max(entry.c.seq))).scalar() or 0
    made = signing.newest_checkpoint(connection)
    return int(last), instant(made.at) if made is not None else None


def pair(row: Any) -> Pair:
    """Return the entry of a row of ``ROWS`` or ``IN_SQL``, and its clear values."""
    seq, at, kind, id, body, prev, hash, doc, *_ = row
    made = Entry(seq=seq, at=at, kind=kind, id=id, body=body, prev=bytes(prev), hash=bytes(hash))
    return made, None if doc is None else clear_from(doc)


def mark(
    batch: Batch,
    *,
    base: Checkpoint | None = None,
    put_back: int | None = None,
    renewed: bool = False,
    at: int = 0,
    generation: int | None = None,
) -> Checkpoint | None:
    """Sign the chain's head, or ``base``; its line is written to the file after the commit. Returns None if nothing is new.
    ``put_back``, ``renewed``: as in Checkpoint, for the last entry. ``at``: the earliest time of the checkpoint.
    ``generation``: of the key; None for the one that signs now."""
    made = base or Checkpoint(
        journal=batch.head.journal,
        seq=batch.head.seq,
        at=max(batch.now_us, at),
        hash=batch.head.hash,
        put_back=put_back,
        renewed=renewed,
    )
    if made.seq == 0:
        return None
    known = batch.connection.execute(select(checkpoint.c.line).where(checkpoint.c.seq == made.seq)).scalar()
    if known is not None and base is None and put_back is None and not renewed:
        return None
    if known is not None and base is not None:  # rare fields of that entry are kept
        before = parse(known)
        made = replace(made, put_back=before.put_back, renewed=before.renewed)
    if generation is None:
        generation = signing.generation(batch.connection)
    made = replace(made, generation=generation)
    made = sign(batch.secret, replace(made, note=signing.sign_note(batch, made)))
    batch.connection.execute(checkpoint.delete().where(checkpoint.c.seq == made.seq))
    notable = True if made.put_back is not None or made.renewed else None
    batch.connection.execute(insert(checkpoint).values(seq=made.seq, line=made.line(), notable=notable))
    batch.signed.append(made)
    return made


def sign_anew(batch: Batch, before: bytes) -> int:
    """Sign the checkpoints of the secret ``before`` with the batch's secret, so that they prove the same once it is replaced:
    restores that were noticed, what was trimmed, and times. Returns their number. If ``before`` is lost (b""), only the
    checkpoint after which the trimmed chain begins is signed, since nothing is left to prove the others.

    Their notes stay: the entry of the renewal has both keys. Notes with rare fields, which outlive that entry, are signed anew
    too.
    """
    key = signing.signer(batch.secret, batch.head.journal, 0)
    first = batch.connection.execute(select(entry.c.seq, entry.c.prev).order_by(entry.c.seq).limit(1)).one_or_none()
    done, last = 0, -1
    while rows := batch.connection.execute(
        select(checkpoint.c.seq, checkpoint.c.line)
        .where(checkpoint.c.seq > last)
        .order_by(checkpoint.c.seq)
        .limit(_SIGNED)
    ).all():
        last = rows[-1].seq
        again: list[dict[str, object]] = []
        for seq, line in rows:
            made = readable(line)
            if made is None or made.journal != batch.head.journal:
                continue
            if before and not genuine(before, made):
                continue
            if not before and not (made.base and first and (made.seq, made.hash) == (first.seq - 1, bytes(first.prev))):
                continue
            if made.says and made.note:
                made = replace(made, generation=0, note=key.note(body_of(made.note)))
            again.append({"at_seq": seq, "line": sign(batch.secret, made).line()})
        if again:
            batch.connection.execute(_SIGN_ANEW, again)
        done += len(again)
    return done


def signed_until(batch: Batch) -> int:
    """Return the last entry with a checkpoint; 0 if there is none."""
    [(seq,)] = batch.select("SELECT MAX(seq) FROM checkpoint WHERE seq <= ?", (batch.head.seq,))
    return seq or 0


def signed_after(connection: Connection, seq: int, limit: int) -> list[Checkpoint]:
    """Return the checkpoints after that of entry ``seq`` that have a note, in order; if ``seq`` is negative, the newest one."""
    if seq < 0:
        newest = select(checkpoint.c.line).order_by(checkpoint.c.seq.desc()).limit(1)
        return [made for line in connection.execute(newest).scalars() if (made := parse(line)).note]
    query = select(checkpoint.c.line).order_by(checkpoint.c.seq).limit(limit)
    found: list[Checkpoint] = []
    while len(found) < limit and (read := connection.execute(query.where(checkpoint.c.seq > seq)).scalars().all()):
        page = [parse(line) for line in read]
        seq, found = page[-1].seq, found + [made for made in page if made.note]
    return found[:limit]


def witnessed(connection: Connection) -> Checkpoint | None:
    """Return the last checkpoint that the witness has accepted, by the cursor; None without a witness, or before the first."""
    told = select(hook.c.told).where(hook.c.name == WITNESS).scalar_subquery()
    return signing.newest_checkpoint(connection, checkpoint.c.seq <= told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The checkpoints that name a journal: ``genuine``, signed here, and ``claimed``, not signed here. ``others``: other journals in
    the file; ``unreadable``: the number of lines there that are no checkpoint; ``filed``: whether a genuine one is there.
    ``bad``: a problem that does not depend on the chain."""

    genuine: Sequence[Checkpoint]
    claimed: Sequence[Checkpoint]
    others: tuple[str, ...]
    unreadable: int
    filed: bool
    bad: Bad | None


def trusted(line: str | None, secret: bytes, journal: str) -> Checkpoint | None:
    """Return the checkpoint of a line if it was signed here for this journal; else None, also without a line."""
    made = readable(line)
    return made if made is not None and genuine(secret, made) and made.journal == journal else None


def marks(secret: bytes, journal: str, rows: Sequence[str], lines: Sequence[str]) -> Marks:
    """Sort the checkpoints in the database (``rows``) and in the file (``lines``). A line in the file that is no checkpoint proves no
    tampering: power may have failed. Nor does a younger checkpoint of another journal: another store was used beside the file
    for a while."""
    ours: dict[Checkpoint, bool] = {}
    others: list[Checkpoint] = []
    bad, unreadable, found = None, 0, False
    for line, filed in [(line, False) for line in rows] + [(line, True) for line in lines]:
        try:
            made = parse(line)
        except ValueError:
            unreadable += filed
            bad = bad if filed else bad or Bad(seq=0, problem=Phrase("a checkpoint in the database cannot be read"))
            continue
        if made.journal == journal:
            ours[made] = genuine(secret, made)
            found = found or (filed and ours[made])
        elif filed:
            others.append(made)
        else:
            bad = bad or Bad(
                seq=made.seq, problem=Phrase("the journal was replaced: a checkpoint in the database knows another one")
            )
    signed = [made for made, here in ours.items() if here]
    first = min((made.at for made in signed), default=None)
    if any(genuine(secret, made) and (first is None or made.at < first) for made in others):
        bad = bad or Bad(
            seq=0, problem=Phrase("the journal was replaced, or the state folder was another store's before")
        )
    return Marks(
        genuine=signed,
        claimed=[made for made, here in ours.items() if not here],
        others=tuple(dict.fromkeys(made.journal for made in others)),
        unreadable=unreadable,
        filed=found,
        bad=bad,
    )


def touches(lists: Collection[str]) -> ColumnElement[bool]:
    """Return the condition for verdicts on a message to any of these lists."""
    return either(entry.c.lists.contains(lines([name]), autoescape=True) for name in sorted(lists))


def named(ids: Collection[str]) -> ColumnElement[bool]:
    """Return the condition for entries that have one of these ids, or name one."""
    wanted = sorted(ids)
    return or_(entry.c.id.in_(wanted), either(entry.c.names.contains(lines([id]), autoescape=True) for id in wanted))
