"""The key that signs checkpoints, its rotation with the journal's entries, and the notes that it signs."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, text, true

from smtpguard.database.batch import Batch
from smtpguard.database.schema import RARE, checkpoint, entry
from smtpguard.journal.chain import Entry, parsed
from smtpguard.journal.checkpoint import Checkpoint, Key, Note, Signer, crossing, digest, read, readable, signed_by
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.proof import Bad
from smtpguard.journal.tree import Tree, Unknown
from smtpguard.locale.phrase import Phrase

_CHANGES = (
    select(entry.c.seq, entry.c.kind, entry.c.body)
    .where(entry.c.kind.in_((Kind.KEY.value, Kind.SECRET.value)), text(f"entry.{RARE}"))
    .order_by(entry.c.seq.desc())
)
_LATEST = f"SELECT kind, body FROM entry WHERE kind IN ('key', 'secret') AND {RARE} ORDER BY seq DESC LIMIT 1"
_ALL = true()
_PUT_BACK = "put back to "


@lru_cache(maxsize=1)
def signer(secret: bytes, journal: str, generation: int) -> Signer:
    """Return a signer. One is cached, since to derive it takes as long as to sign."""
    return Signer(secret, journal, generation)


def generation(connection: Connection) -> int:
    """Return the generation of the key that signs now. A new secret begins with 0 again. If the entry of the last change is trimmed,
    the newest checkpoint has the generation."""
    found = connection.exec_driver_sql(_LATEST).one_or_none()
    if found is not None:
        return int(parsed(found[1])["data"].get("generation", 0))
    made = newest_checkpoint(connection)
    return made.generation if made is not None else 0


def newest_checkpoint(connection: Connection, among: ColumnElement[bool] = _ALL) -> Checkpoint | None:
    """Return the newest checkpoint, of all or of those ``among``; None if there is none, or it is damaged, which the verification
    reports."""
    query = select(checkpoint.c.line).where(among).order_by(checkpoint.c.seq.desc()).limit(1)
    return readable(connection.execute(query).scalar())


def sign_note(batch: Batch, made: Checkpoint) -> str:
    """Return the signed note of a checkpoint; "" if entries are missing, which the verification reports. The checkpoint is still
    signed then."""
    batch.flush()
    connection = batch.connection
    tree = Tree(connection, batch.recent)
    try:
        if not made.base:
            tree.extend(made.seq)
        root = tree.root(made.seq)
    except Unknown:
        return ""
    last = newest_checkpoint(connection, checkpoint.c.seq < made.seq)
    note = Note(
        journal=made.journal,
        size=tree.size(made.seq),
        root=root,
        seq=made.seq,
        hash=made.hash,
        at=made.at,
        before=digest(last.note) if last is not None and last.note else "",
        says=made.says,
    )
    return signer(batch.secret, made.journal, made.generation).note(note.body)


def rotate_key(batch: Batch, event: Event) -> Key:
    """Record the change to the next key, which signs from this entry on, and return that key. The caller signs the entry with both."""
    head = batch.head.journal
    old = signer(batch.secret, head, generation(batch.connection))
    new = Signer(batch.secret, head, old.generation + 1)
    data = {**event.data, "generation": new.generation, **cross_sign(old, new)}
    batch.record([replace(event, data=data)])
    return new.key


def renewal(batch: Batch, event: Event, before: bytes) -> Event:
    """Return the event of a new secret, with whose first key the journal goes on. ``before``: the old secret, whose key signs too; b""
    if it is lost."""
    head = batch.head.journal
    new, data = Signer(batch.secret, head), {**event.data, "generation": 0}
    if before:
        data |= cross_sign(Signer(before, head, generation(batch.connection)), new)
    return replace(event, data=data)


def cross_sign(old: Signer, new: Signer) -> dict[str, Any]:
    """Return the data of an entry with both keys, and the signature of each under the same sentence (``crossing``)."""
    text = crossing(old.key, new.key)
    return {
        "key": str(new.key),
        "before": str(old.key),
        "signed_by_before": b64encode(old.sign(text)).decode(),
        "signed_by_key": b64encode(new.sign(text)).decode(),
    }


def crossed_keys(data: Mapping[str, Any]) -> tuple[Key, Key] | None:
    """Return the key before and the one after, if both have signed; else None."""
    try:
        old, new = Key.parse(data["before"]), Key.parse(data["key"])
        text = crossing(old, new)
        signatures = b64decode(data["signed_by_before"]), b64decode(data["signed_by_key"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return (old, new) if old.verifies(text, signatures[0]) and new.verifies(text, signatures[1]) else None


def last_unsigned_renewal(connection: Connection, renewals: Collection[int]) -> int:
    """Return the last of ``renewals``, the entries of new secrets, that the old secret's key has not signed; 0 for none."""
    for seq, _, body in connection.execute(_CHANGES) if renewals else ():
        if seq in renewals and crossed_keys(parsed(body)["data"]) is None:
            return int(seq)
    return 0


def keys(connection: Connection, secret: bytes, journal: str) -> Iterator[Key]:
    """Yield all keys that may have signed checkpoints of this journal: the current one, earlier ones of the same secret, and those by
    which these were cross-signed."""
    last = generation(connection)
    known = [Signer(secret, journal, n).key for n in range(last, -1, -1)]
    yield from known
    trusted = set(known)
    for _, _, body in connection.execute(_CHANGES):
        pair = crossed_keys(parsed(body)["data"])
        if pair is not None and pair[1] in trusted and pair[0] not in trusted:
            trusted.add(pair[0])
            yield pair[0]


SignedRoots = Mapping[int, Sequence[tuple[bytes, bytes]]]
"""By entry, its hash and the signed root of the tree up to it, once for each note."""


def check_notes(marks: Iterable[Checkpoint], keys: Sequence[Key]) -> tuple[SignedRoots, Bad | None]:
    """Check the notes of checkpoints that were signed here. Each names the one before, so that none in the middle can be missing.
    Returns what they sign; or nothing, and the first note with a problem."""
    roots: dict[int, list[tuple[bytes, bytes]]] = {}
    noted = sorted({mark.note: mark for mark in marks if mark.note}.values(), key=lambda mark: (mark.seq, mark.at))
    replaced = any(mark.put_back is not None or mark.renewed or mark.base for mark in noted)
    known: set[str] = set()
    for mark in noted:
        try:
            note = read(mark.note)
        except ValueError:
            note = None
        says = (mark.journal, mark.seq, mark.hash, mark.at, mark.says)
        if note is None or (note.journal, note.seq, note.hash, note.at, note.says) != says:
            return {}, Bad(seq=mark.seq, problem=Phrase("a checkpoint and its signed note do not say the same"))
        if signed_by(mark.note, keys) is None:
            return {}, Bad(seq=mark.seq, problem=Phrase("a checkpoint is not signed by a key of this journal"))
        if known and note.before not in known and not replaced:
            return {}, Bad(seq=mark.seq, problem=Phrase("removed: the checkpoint before this one, which it names, is gone"))  # fmt: skip
        known.add(digest(mark.note))
        roots.setdefault(mark.seq, []).append((note.hash, note.root))
    return roots, None


def checkpoint_of(note: str, keys: Sequence[Key], journal: str) -> Checkpoint | None:
    """Return the checkpoint of a note that somebody else kept; None unless it is of this journal and signed by one of its keys."""
    try:
        content = read(note)
    except ValueError:
        return None
    if content.journal != journal or signed_by(note, keys) is None:
        return None
    back = next((word for word in content.says if word.startswith(_PUT_BACK)), None)
    return Checkpoint(
        journal=journal,
        seq=content.seq,
        at=content.at,
        hash=content.hash,
        base="base" in content.says,
        put_back=None if back is None else int(back.removeprefix(_PUT_BACK)),
        renewed="renewed" in content.says,
        note=note,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """Proof that ``entry`` is leaf ``n`` of the tree of ``size`` leaves that ``note`` signs: its audit path, from the
    leaf up."""

    entry: Entry
    n: int
    size: int
    path: tuple[bytes, ...]
    note: str


def inclusion(connection: Connection, seq: int) -> Inclusion | None:
    """Return the proof of an entry in the tree of the newest checkpoint; None if no tree has it, or it does not exist any more."""
    found = connection.execute(
        select(*(entry.c[name] for name in Entry.__slots__)).where(entry.c.seq == seq)
    ).one_or_none()
    made = newest_checkpoint(connection, checkpoint.c.seq >= seq)
    if found is None or made is None or not made.note:
        return None
    tree = Tree(connection)
    if seq < tree.begin:
        return None
    one = Entry(**{**found._mapping, "prev": bytes(found.prev), "hash": bytes(found.hash)})
    return Inclusion(
        entry=one, n=seq - tree.begin, size=tree.size(made.seq), path=tuple(tree.path(seq, made.seq)), note=made.note
    )
