"""Check that a database is the one that the state folder knows, of this secret, and not older than the checkpoints
beside it.

The file of checkpoints survives when a store is restored to an earlier state, or replaced by another one. So opening a
store reads it first. Another journal, or another secret, is refused before anything is written that would spoil the
proof. A store that was restored to an earlier state is frozen until a person thaws it, since releases, decisions and
freezes of the time between are missing in it.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from smtpguard.database.batch import Batch, read_head
from smtpguard.database.errors import StoreError, Unavailable
from smtpguard.database.statements import rows_of
from smtpguard.freezes.model import event_of
from smtpguard.holds import deciding
from smtpguard.holds import rows as holds
from smtpguard.journal import linefiles
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import instant, readable_time, utc_text
from smtpguard.journal.checkpoint import Agreement, Checkpoint, Disagreement, genuine, readable, sign
from smtpguard.journal.event import Kind
from smtpguard.policy.freezing import ITSELF, PUT_BACK, Freeze, Gate, Selector

log = logging.getLogger(__name__)

_ENDS = "SELECT seq, at FROM entry WHERE seq = (SELECT min(seq) FROM entry) OR seq = (SELECT max(seq) FROM entry) ORDER BY seq"
_NEWEST = "ORDER BY seq DESC LIMIT 1"
_TAIL = 1 << 16  # octets that are read at a time: the checkpoints of some hours, of all processes that write there


class Foreign(StoreError):
    """The checkpoints in the state folder are another journal's: ``journal``, last signed at ``at``, as far as read. ``gone``: there is
    no database at all."""

    def __init__(self, known: Checkpoint, *, gone: bool = False) -> None:
        super().__init__(f"the checkpoints beside the store are of another journal, {known.journal}")
        self.journal, self.at, self.gone = known.journal, instant(known.at), gone


class OtherSecret(StoreError):
    """The journal was signed with another secret."""

    def __init__(self) -> None:
        super().__init__("the secret is not the one that the journal was written with")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """A database of an earlier state. ``agreed``: the chain agrees with checkpoints up to this entry. ``signed``: the newest checkpoint
    with which it disagrees; ``genuine``: whether that was signed here. ``last_at``: the time of the last entry that is left;
    None if there is none."""

    agreed: int
    signed: Checkpoint
    genuine: bool
    last_at: datetime | None

    def __str__(self) -> str:
        ends = "is empty" if self.last_at is None else f"ends at {self.last_at:%Y-%m-%d %H:%M:%S} UTC"
        return (
            f"the store was put back to an earlier state: its journal {ends}, and at "
            f"{readable_time(self.signed.at)} entries up to {self.signed.seq} were signed"
        )


def look(
    connection: Connection,
    secret: bytes,
    state_dir: Path,
    *,
    last: Checkpoint | None = None,
    renewing: bytes | None = None,
    older: bool = False,
) -> Rollback | None:
    """Compare a database with the state folder, and with ``last``, the last commit of this process, in one snapshot.

    ``renewing``: as in open_store; checkpoints of the secret in force are trusted. ``older``: the database may have an earlier
    schema, whose checkpoints have only the line column. Raises Foreign, and OtherSecret unless the secret is being renewed.
    """
    keys = (secret, renewing) if renewing else (secret,)
    lines = _from_the_end(state_dir / linefiles.CHECKPOINTS)
    known = _Known().add(next(lines, []), *keys)  # first, since a line is written only after its entries are committed
    here = read_head(connection).journal
    newest = _Known().add(_lines(connection, _NEWEST), *keys)
    if newest.claimed and renewing is None:
        raise OtherSecret  # the last signer has the right secret
    for more in lines:
        if known.has(here):
            break
        known.add(more, *keys)
    if not known.has(here):
        if known.signed:
            raise Foreign(known.signed[0])
        if known.claimed and not newest.signed and renewing is None:
            raise OtherSecret
    if last is not None:
        if last.journal != here:
            raise Foreign(last)
        known.claimed.append(last)
    return _compare(connection, known, keys, state_dir, here, older)


def in_force(connection: Connection, known: Sequence[bytes]) -> bytes:
    """Return the one of some secrets that signed the last checkpoint of a database, b"" if none did."""
    last = next(map(readable, _lines(connection, _NEWEST)), None)
    return next((each for each in known if last is not None and genuine(each, last)), b"")


def check_uncreated(secret: bytes, state_dir: Path) -> None:
    """Check that no database was there before: in the state folder of one, another must not be created. Raises Foreign and
    OtherSecret."""
    known = _Known()
    for lines in _from_the_end(state_dir / linefiles.CHECKPOINTS):
        known.add(lines, secret)
        if known.signed:
            raise Foreign(known.signed[0], gone=True)
    if known.claimed:
        raise OtherSecret


def freeze_everything(batch: Batch, found: Rollback, *, renewing: bool) -> None:
    """Freeze everything with the reason, and sign it, so that the disagreement is excused from now on. All holds count as
    acknowledged, since their acknowledgements may be lost. ``renewing``: sign by the first key of a new secret, before its
    entry."""
    stop = Freeze(
        freeze_id=secrets.token_hex(8).upper(),
        selector=Selector.ALL,
        value="",
        reason=PUT_BACK,
        by=ITSELF,
        at=batch.now,
        defers=True,
    )
    put_back = {
        "last_at": found.last_at and utc_text(found.last_at),
        "signed": found.signed.seq,
        "signed_at": utc_text(instant(found.signed.at)),
    }
    deciding.freeze(batch, stop, event_of(Kind.FREEZE, stop, ITSELF, batch.now, value=None, put_back=put_back))
    holds.acknowledge_all(batch.connection)
    at = found.signed.at if found.genuine else 0  # it may be from a fast clock
    journal.mark(batch, put_back=found.agreed, at=at, generation=0 if renewing else None)


class RollbackCheck:
    """Looks for a rollback in one process that writes. It checks each new connection, behind which may be another server, or another
    state; and again when the gate has moved, as at a renewal of the secret, or the journal has become shorter, as when a dump is
    restored into the database in use."""

    def __init__(self, secret: bytes, state_dir: Path, *, renewing: bytes | None) -> None:
        self._secret, self._state_dir, self._renewing = secret, state_dir, renewing
        self._connections = 0
        self._last: Checkpoint | None = None
        self._synced: Checkpoint | None = None
        self._filed = 0

    def is_new(self, connections: int) -> bool:
        """Return whether the connection is another than that of the last commit. ``connections``: the number of connections so far."""
        return connections != self._connections

    def look(self, batch: Batch, known: Gate | None) -> None:
        """Check the database before anything is written, and freeze everything after a rollback. ``known``: the cached gate. Raises as
        ``look``, which prevents all writes; and Unavailable if the store was put back behind the same connection, whose cached
        state the next batch drops."""
        if known is not None and self._last is not None and batch.head.seq < self._last.seq:
            self._connections = 0
            raise Unavailable("the store was put back while it was open")
        if known is not None and known.generation == batch.head.generation:
            return
        found = look(batch.connection, self._secret, self._state_dir, last=self._last, renewing=self._renewing)
        if found is not None:
            if (made := self.unfiled()) is not None:  # so that a proof knows up to which entry the journal had gone
                with suppress(OSError):
                    linefiles.write_line(self._state_dir, linefiles.CHECKPOINTS, made.line())
                    self.filed(made)
            freeze_everything(batch, found, renewing=self._renewing is not None)
            log.error("%s: all mail is frozen until it is thawed", found)

    def committed(self, batch: Batch, connections: int, *, synced: bool) -> None:
        """Remember a commit."""
        head = batch.head
        self._last = Checkpoint(journal=head.journal, seq=head.seq, at=batch.now_us, hash=head.hash)
        self._connections = connections
        if synced and batch.has_grown:  # a commit that writes nothing syncs nothing
            self._synced = self._last

    def filed(self, made: Checkpoint) -> None:
        """Note that a checkpoint is in the file."""
        self._filed = made.seq

    def unfiled(self) -> Checkpoint | None:
        """Return a checkpoint of the last commit on disk, if none in the file is as new. It is written there once the store is away: a
        stand-by that takes over may lack that commit, and this process may have ended by then."""
        last = self._synced
        return sign(self._secret, last) if last is not None and last.seq > self._filed else None


@dataclass(slots=True)
class _Known:
    """Checkpoints of any journal, newest first: ``signed`` with one of the secrets, and ``claimed``, which were not."""

    signed: list[Checkpoint] = field(default_factory=list)
    claimed: list[Checkpoint] = field(default_factory=list)

    def add(self, lines: Iterable[str], *secrets: bytes) -> _Known:
        """Add the checkpoints of lines, and return this. A damaged line is left out: it may be cut."""
        for made in filter(None, map(readable, lines)):
            (self.signed if any(genuine(each, made) for each in secrets) else self.claimed).append(made)
        return self

    def has(self, here: str) -> bool:
        """Return whether one is of this journal."""
        return any(made.journal == here for made in itertools.chain(self.signed, self.claimed))


def _from_the_end(path: Path) -> Iterator[list[str]]:
    """Yield the lines of a file, the last first, some at a time."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        end, rest = file.seek(0, os.SEEK_END), b""
        while end > 0:
            start = max(0, end - _TAIL)
            file.seek(start)
            first, *lines = (file.read(end - start) + rest).split(b"\n")
            end, rest = start, first
            yield [line.decode("utf-8", "replace") for line in reversed(lines)]
        yield [rest.decode("utf-8", "replace")]


def _compare(
    connection: Connection, known: _Known, keys: Sequence[bytes], state_dir: Path, here: str, older: bool
) -> Rollback | None:
    """Compare the chain with the last checkpoint; if that disagrees, with those that may excuse it; and only then with all."""
    chain = _Chain(connection)
    if not chain.disagreements(known.signed, known.claimed, here):
        return None
    if not older:
        notable = _Known().add(_lines(connection, "WHERE notable"), *keys).signed
        if not chain.disagreements([*known.signed, *notable], known.claimed, here):
            return None
    everything = _Known(claimed=known.claimed).add(_lines(connection), *keys)
    for lines in _from_the_end(state_dir / linefiles.CHECKPOINTS):
        everything.add(lines, *keys)
    parted = chain.disagreements(everything.signed, everything.claimed, here)
    if not parted:
        return None
    ours = [each.mark for each in parted if each.signed_here]
    signed = max(ours, key=lambda mark: (mark.at, mark.seq), default=parted[-1].mark)
    return Rollback(agreed=parted[0].agreed, signed=signed, genuine=bool(ours), last_at=chain.last_at)


def _lines(connection: Connection, which: str = "") -> Iterator[str]:
    return (line for (line,) in rows_of(connection, f"SELECT line FROM checkpoint {which}"))


class _Chain:
    """The chain of a database, for look-ups of single entries."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        ends = rows_of(connection, _ENDS)
        self._first: int = ends[0][0] if ends else 0
        self._last: int = ends[-1][0] if ends else 0
        self.last_at = instant(ends[-1][1]) if ends else None

    def disagreements(
        self, signed: Iterable[Checkpoint], claimed: Iterable[Checkpoint], here: str
    ) -> Sequence[Disagreement]:
        """Return the checkpoints of journal ``here`` with which it disagrees without excuse, in order. Entries that are missing between
        others are ignored: that is no restored store, and the proof finds it."""
        marks = [dict.fromkeys(m for m in some if m.journal == here) for some in (signed, claimed)]
        seqs = {m.seq for some in marks for m in some if self._first <= m.seq <= self._last}
        hashes = journal.hashes(self._connection, sorted(seqs))
        there = [[m for m in some if not self._first <= m.seq <= self._last or m.seq in hashes] for some in marks]
        agreement = Agreement(*there)
        agreement.skip(self._first - 1)
        for seq in agreement.seqs:
            if seq in hashes:
                agreement.compare(seq, hashes[seq])
        parted, _ = agreement.finish()
        return parted
