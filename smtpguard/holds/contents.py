"""Store the content of held messages in chunks, by SHA-256. Content is stored before a hold refers to it, and its hash
is checked when it is read.

Each chunk is written in a transaction of its own, so that a large message does not make others wait. Content that no
row refers to one hour after it was stored is deleted.

Beside content are the rows for what held messages show, and for the templates that approvals of copies refer to.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, func, insert, or_, select, update

from smtpguard.database.batch import Batch
from smtpguard.database.errors import ContentMissing, Full
from smtpguard.database.failpoint import passes
from smtpguard.database.schema import chunk, content, cover, hold, outbox, returned
from smtpguard.database.statements import rows_of
from smtpguard.holds.model import State
from smtpguard.mail.message import Content, Message
from smtpguard.mailings.slots import Template
from smtpguard.reading.shown import Shown

CHUNK_BYTES = 512 * 1024
SPOOL_BYTES = 2 * 1024 * 1024
"""The size above which content is read into a file and mapped."""
ORPHAN_SECONDS = 3600
SWEPT = 50
"""The most orphans that are deleted at a time."""
DROPPED_BYTES = 4 << 20
"""The most octets of content that are deleted at a time. Each page is overwritten in the database's log, and mail that
is to be held waits for it."""
_GONE = [state.value for state in (State.VOID, State.WITHDRAWN)]
_WHOLE = select(content.c.sha256).where(content.c.sha256 == bindparam("sha256"), content.c.whole.is_(True))


def reserve(batch: Batch, sha256: str, size: int, quota: int) -> bool:
    """Reserve room for content. Returns False if it is stored already; its age then starts anew. Raises Full."""
    row = batch.connection.execute(select(content.c.whole).where(content.c.sha256 == sha256)).one_or_none()
    if row is None:
        if quota and batch.head.kept_bytes + size > quota:
            raise Full("the quota for held content is exhausted")
        batch.connection.execute(insert(content).values(sha256=sha256, size=size, whole=False, kept_at=batch.now_us))
        batch.head.kept_bytes += size
        passes("content", sha256)
        return True
    batch.connection.execute(update(content).where(content.c.sha256 == sha256).values(kept_at=batch.now_us))
    return not row.whole


def add(batch: Batch, sha256: str, n: int, data: bytes, *, last: bool) -> None:
    batch.rows("chunk").append((sha256, n, data))
    passes("chunk", sha256)
    if last:
        batch.flush()
        batch.connection.execute(update(content).where(content.c.sha256 == sha256).values(whole=True))


def pieces(raw: Content) -> Iterator[tuple[int, bytes, bool]]:
    """Yield the chunks of content: number, octets, and whether it is the last. Empty content has one empty chunk."""
    size = len(raw)
    for n, start in enumerate(range(0, max(size, 1), CHUNK_BYTES)):
        yield n, bytes(raw[start : start + CHUNK_BYTES]), start + CHUNK_BYTES >= size


def is_kept(connection: Connection, sha256: str) -> bool:
    return connection.execute(_WHOLE, {"sha256": sha256}).first() is not None


def load(connection: Connection, sha256: str, spool: Path) -> Message:
    """Read content and check its hash. ``spool``: the folder for large content. Raises ContentMissing, also if it is
    damaged."""
    found = rows_of(connection, "SELECT size FROM content WHERE sha256 = ? AND whole", (sha256,))
    if not found:
        raise ContentMissing("the content is not kept")
    [(size,)] = found
    digest = hashlib.sha256()
    parts = max(1, -(-size // CHUNK_BYTES))

    def chunks() -> Iterator[bytes]:
        for n in range(parts):
            stored = rows_of(connection, "SELECT data FROM chunk WHERE sha256 = ? AND n = ?", (sha256, n))
            if not stored:
                raise ContentMissing("a chunk of the content is missing")
            [(data,)] = stored
            digest.update(data)
            yield bytes(data)

    raw: Content
    if size <= SPOOL_BYTES:
        raw = b"".join(chunks())
    else:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=spool) as file:
            for data in chunks():
                file.write(data)
            file.flush()
            raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if digest.hexdigest() != sha256 or len(raw) != size:
        raise ContentMissing("the content is damaged: it does not have its SHA-256")
    return Message(raw=raw, sha256=sha256)


def drop(batch: Batch, sha256s: list[str]) -> None:
    if not sha256s:
        return
    size = batch.connection.execute(select(func.sum(content.c.size)).where(content.c.sha256.in_(sha256s))).scalar() or 0
    batch.connection.execute(delete(chunk).where(chunk.c.sha256.in_(sha256s)))
    batch.connection.execute(delete(content).where(content.c.sha256.in_(sha256s)))
    batch.head.kept_bytes = max(0, batch.head.kept_bytes - int(size))


def droppable(batch: Batch, *which: ColumnElement[bool], most: int) -> tuple[list[str], bool]:
    """Return as many of the contents that match ``which`` as are dropped at a time, at least one, and whether there may
    be more."""
    found, size = list[str](), 0
    query = select(content.c.sha256, content.c.size).where(*which).limit(most)
    for sha256, octets in batch.connection.execute(query).all():
        size += octets
        if found and size > DROPPED_BYTES:
            return found, True
        found.append(sha256)
    return found, len(found) == most


def sweep(batch: Batch) -> bool:
    """Delete some content, complete or not, that no row refers to one hour after it was stored. Returns whether there
    may be more."""
    referred = or_(
        exists().where(hold.c.content == content.c.sha256),
        exists().where(outbox.c.content == content.c.sha256, outbox.c.done.is_(False)),
        exists().where(returned.c.mail == content.c.sha256),
    )
    old = batch.now_us - ORPHAN_SECONDS * 1_000_000
    orphans, more = droppable(batch, content.c.kept_at < old, ~referred, most=SWEPT)
    drop(batch, orphans)
    return more


def keep_template(batch: Batch, document: str) -> None:
    """Store a template under its name. To store it again only renews its age."""
    name = Template.loads(document).name
    batch.connection.execute(delete(cover).where(cover.c.cover == name))
    batch.connection.execute(insert(cover).values(cover=name, made_at=batch.now_us, doc=document))


def templates(connection: Connection, names: Collection[str]) -> dict[str, str]:
    """Return the documents of the templates with these names (mailings.slots), as far as they are kept."""
    query = select(cover.c.cover, cover.c.doc).where(cover.c.cover.in_(list(names)))
    return {name: doc for name, doc in connection.execute(query).all()}  # noqa: C416


def shown_of_each(connection: Connection, hold_ids: Collection[str]) -> dict[str, Shown]:
    """Return what held messages show, except for those that an earlier version held, or whose content is erased."""
    query = select(hold.c.hold_id, hold.c.shown).where(hold.c.hold_id.in_(list(hold_ids)), hold.c.shown.is_not(None))
    return {id: Shown.unpack(bytes(shown)) for id, shown in connection.execute(query)}


def shown_under(connection: Connection, lead_id: str) -> list[tuple[Shown | None, str, frozenset[str]]]:
    """Return a row for a hold, and then for each copy under it in order of arrival: what it shows, None if unknown; its
    author; and the proofs of that author."""
    mailing = select(hold.c.mailing).where(hold.c.hold_id == lead_id).scalar_subquery()
    first = select(hold.c.shown, hold.c.doc).where(hold.c.hold_id == lead_id)
    copies = select(hold.c.shown, hold.c.doc).where(
        hold.c.lead == lead_id, hold.c.mailing == mailing, hold.c.state.not_in(_GONE)
    )
    rows = [*connection.execute(first), *connection.execute(copies.order_by(hold.c.held_at, hold.c.hold_id))]
    found = []
    for shown, doc in rows:
        document = json.loads(doc)
        made = Shown.unpack(bytes(shown)) if shown is not None else None
        found.append((made, document.get("author", ""), frozenset(document.get("proofs", ()))))
    return found


def is_learned_from(connection: Connection, name: str, hold_id: str) -> bool:
    """Return whether a held copy is one of those that the template ``name`` was learned from."""
    document, shown = templates(connection, [name]).get(name), shown_of_each(connection, [hold_id]).get(hold_id)
    return document is not None and shown is not None and Template.loads(document).matches(shown)


def erase_shown(batch: Batch, contents: Sequence[str]) -> None:
    """Erase what the messages with these contents show."""
    if contents:
        batch.connection.execute(update(hold).where(hold.c.content.in_(contents)).values(shown=None))
