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
from smtpguard.journal.chain import instant, moment, utc_text
from smtpguard.journal.checkpoint import Agreement, Checkpoint, Disagreement, genuine, readable, sign
from smtpguard.journal.event import Kind
from smtpguard.policy.freezing import ITSELF, PUT_BACK, Freeze, Gate, Selector

log = logging.getLogger(__name__)

_ENDS = "SELECT seq, at FROM entry WHERE seq = (SELECT min(seq) FROM entry) OR seq = (SELECT max(seq) FROM entry) ORDER BY seq"
_TAIL = 1 << 16  # octets: the checkpoints of some hours, of all processes that write there


class Foreign(StoreError):
    """The checkpoints are another journal's. ``journal``, ``at``: which one's, and when it was signed last, as far as
    read. ``gone``: there is no database at all."""

    def __init__(self, known: Checkpoint, *, gone: bool = False) -> None:
        super().__init__(f"the checkpoints beside the store are of another journal, {known.journal}")
        self.journal, self.at, self.gone = known.journal, instant(known.at), gone


class OtherSecret(StoreError):
    """The journal was signed with another secret."""

    def __init__(self) -> None:
        super().__init__("the secret is not the one that the journal was written with")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """``agreed``: the last entry up to which the chain agrees with checkpoints. ``signed``: the newest checkpoint that
    it disagrees with; ``genuine`` if it was signed here. ``last_at``: the time of the last entry that is left, None for
    none."""

    agreed: int
    signed: Checkpoint
    genuine: bool
    last_at: datetime | None

    def __str__(self) -> str:
        ends = "is empty" if self.last_at is None else f"ends at {self.last_at:%Y-%m-%d %H:%M:%S} UTC"
        return (
            f"the store was put back to an earlier state: its journal {ends}, and at "
            f"{moment(self.signed.at)} entries up to {self.signed.seq} were signed"
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
    """Compare a migrated database with the state folder, and with the last commit of this process (``last``), in one
    snapshot. ``renewing``: as in open_store; what the secret in force has signed is trusted. ``older``: it may be of an
    earlier schema, whose checkpoints have only the line column. Raises Foreign; and OtherSecret, unless the secret is
    being renewed."""
    keys = (secret, renewing) if renewing else (secret,)
    lines = _from_the_end(state_dir / linefiles.CHECKPOINTS)
    known = _Known().told(next(lines, []), *keys)  # first, since a line is written only after its entries are committed
    here = read_head(connection).journal
    newest = _Known().told(_lines(connection, "ORDER BY seq DESC LIMIT 1"), *keys)
    if newest.claimed and renewing is None:
        raise OtherSecret  # the last signer has the right secret
    for more in lines:
        if known.of(here):
            break
        known.told(more, *keys)
    if not known.of(here):
        if known.signed:
            raise Foreign(known.signed[0])
        if known.claimed and not newest.signed and renewing is None:
            raise OtherSecret
    if last is not None:
        if last.journal != here:
            raise Foreign(last)
        known.claimed.append(last)
    return _compared(connection, known, keys, state_dir, here, older)


def check_uncreated(secret: bytes, state_dir: Path) -> None:
    """The same without a database: a state folder that knows one is no place to create another."""
    known = _Known()
    for lines in _from_the_end(state_dir / linefiles.CHECKPOINTS):
        known.told(lines, secret)
        if known.signed:
            raise Foreign(known.signed[0], gone=True)
    if known.claimed:
        raise OtherSecret


def freeze_everything(batch: Batch, found: Rollback, *, renewing: bool) -> None:
    """Freeze everything with the reason, and sign it, so that the disagreement is explained from now on. What has just been
    held counts as answered, since that may be among what is lost. ``renewing``: by the first key of a new secret, before its
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
    at = found.signed.at if found.genuine else 0  # which may come from a fast clock
    journal.mark(batch, put_back=found.agreed, at=at, generation=0 if renewing else None)


class RollbackCheck:
    """For one process that writes. It checks every new connection, since there may be another server behind it, or
    another state of it; and again when the gate has moved, as when the secret is renewed, or the journal has become
    shorter, as when a dump is restored into the database in use."""

    def __init__(self, secret: bytes, state_dir: Path, *, renewing: bytes | None) -> None:
        self._secret, self._state_dir, self._renewing = secret, state_dir, renewing
        self._connections = 0
        self._last: Checkpoint | None = None
        self._synced: Checkpoint | None = None
        self._filed = 0

    def elsewhere(self, connections: int) -> bool:
        """Whether cached state comes from another connection. ``connections``: how many there have been."""
        return connections != self._connections

    def look(self, batch: Batch, known: Gate | None) -> None:
        """Before anything is written. ``known``: the gate as cached. Raises what then prevents all writes; and Unavailable if
        the store was put back behind the same connection: what is cached of it is dropped with the next batch."""
        if known is not None and self._last is not None and batch.head.seq < self._last.seq:
            self._connections = 0
            raise Unavailable("the store was put back while it was open")
        if known is not None and known.generation == batch.head.generation:
            return
        found = look(batch.connection, self._secret, self._state_dir, last=self._last, renewing=self._renewing)
        if found is not None:
            if (made := self.unfiled()) is not None:  # the proof then says up to which entry the journal had gone
                with suppress(OSError):
                    linefiles.write_line(self._state_dir, linefiles.CHECKPOINTS, made.line())
                    self.filed(made)
            freeze_everything(batch, found, renewing=self._renewing is not None)
            log.error("%s: all mail is frozen until it is thawed", found)

    def committed(self, batch: Batch, connections: int, *, synced: bool) -> None:
        head = batch.head
        self._last = Checkpoint(journal=head.journal, seq=head.seq, at=batch.now_us, hash=head.hash)
        self._connections = connections
        if synced and batch.has_grown:  # a commit that writes nothing syncs nothing of what was written before
            self._synced = self._last

    def filed(self, made: Checkpoint) -> None:
        """This checkpoint is in the file."""
        self._filed = made.seq

    def unfiled(self) -> Checkpoint | None:
        """The last commit that is on disk, signed, if no checkpoint in the file is as new. To be written there once the
        store is away: a stand-by that takes over may lack it, and this process may have ended by then."""
        last = self._synced
        return sign(self._secret, last) if last is not None and last.seq > self._filed else None


@dataclass(slots=True)
class _Known:
    """Checkpoints of a file, of any journal: ``signed`` with one of the secrets, and ``claimed``, which were not. Newest
    first."""

    signed: list[Checkpoint] = field(default_factory=list)
    claimed: list[Checkpoint] = field(default_factory=list)

    def told(self, lines: Iterable[str], *secrets: bytes) -> _Known:
        for made in filter(None, map(readable, lines)):  # one may be cut
            (self.signed if any(genuine(each, made) for each in secrets) else self.claimed).append(made)
        return self

    def of(self, here: str) -> bool:
        return any(made.journal == here for made in itertools.chain(self.signed, self.claimed))


def _from_the_end(path: Path) -> Iterator[list[str]]:
    """Lines, the last first, some at a time."""
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


def _compared(
    connection: Connection, known: _Known, keys: Sequence[bytes], state_dir: Path, here: str, older: bool
) -> Rollback | None:
    """First with the last checkpoint; if that disagrees, with what may excuse it; and only then with all."""
    chain = _Chain(connection)
    if not chain.parted(known.signed, known.claimed, here):
        return None
    if not older:
        notable = _Known().told(_lines(connection, "WHERE notable"), *keys).signed
        if not chain.parted([*known.signed, *notable], known.claimed, here):
            return None
    everything = _Known(claimed=known.claimed).told(_lines(connection), *keys)
    for lines in _from_the_end(state_dir / linefiles.CHECKPOINTS):
        everything.told(lines, *keys)
    parted = chain.parted(everything.signed, everything.claimed, here)
    if not parted:
        return None
    ours = [each.mark for each in parted if each.signed_here]
    signed = max(ours, key=lambda mark: (mark.at, mark.seq), default=parted[-1].mark)
    return Rollback(agreed=parted[0].agreed, signed=signed, genuine=bool(ours), last_at=chain.last_at)


def _lines(connection: Connection, which: str = "") -> Iterator[str]:
    return (line for (line,) in rows_of(connection, f"SELECT line FROM checkpoint {which}"))


class _Chain:
    """The chain as it is, for look-ups of single entries."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        ends = rows_of(connection, _ENDS)
        self._first: int = ends[0][0] if ends else 0
        self._last: int = ends[-1][0] if ends else 0
        self.last_at = instant(ends[-1][1]) if ends else None

    def parted(self, signed: Iterable[Checkpoint], claimed: Iterable[Checkpoint], here: str) -> Sequence[Disagreement]:
        """The checkpoints of this journal that it disagrees with and that nothing excuses, in order. Entries missing
        between others are ignored: that is no restored store, and the proof finds it."""
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
