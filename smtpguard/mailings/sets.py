"""Sets of people that approvals are bound to: sorted keyed digests in pieces, by the name of the set (model.set_of).

A set never changes. Its pieces are written one by one before anything refers to it, so that a set of millions delays
nobody.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from datetime import datetime

from sqlalchemy import delete, insert, select

from smtpguard.database.batch import Batch
from smtpguard.database.schema import peopleset as table
from smtpguard.journal.chain import microseconds

PIECE = 4096
"""The people of one piece."""
OCTETS = 8


def pieces(people: Collection[bytes]) -> tuple[str, Iterator[bytes]]:
    """The name of a set and its pieces, each of at most ``PIECE`` digests, in order."""
    whole = b"".join(sorted(set(people)))
    step = PIECE * OCTETS
    return hashlib.sha256(whole).hexdigest(), (whole[at : at + step] for at in range(0, len(whole), step))


def put(batch: Batch, name: str, piece: bytes) -> None:
    """Write one piece. A second write only renews its age."""
    first = piece[:OCTETS]
    batch.connection.execute(delete(table).where(table.c.name == name, table.c.first == first))
    batch.connection.execute(insert(table).values(name=name, first=first, people=piece, made_at=batch.now_us))


class Sets:
    """The sets for the items of one run, each piece read once."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._firsts: dict[str, list[bytes]] = {}
        self._pieces: dict[tuple[str, bytes], bytes] = {}

    def has(self, name: str, digest: bytes) -> bool:
        """Whether a person is in the set; False if the set is no longer stored."""
        if name not in self._firsts:
            query = select(table.c.first).where(table.c.name == name).order_by(table.c.first)
            self._firsts[name] = [bytes(first) for first in self._batch.connection.execute(query).scalars()]
        firsts = self._firsts[name]
        at = bisect_right(firsts, digest) - 1
        if at < 0:
            return False
        key = name, firsts[at]
        if key not in self._pieces:
            query = select(table.c.people).where(table.c.name == name, table.c.first == firsts[at])
            self._pieces[key] = bytes(self._batch.connection.execute(query).scalar_one())
        return _in(self._pieces[key], digest)


def _in(piece: bytes, digest: bytes) -> bool:
    n = bisect_left(range(len(piece) // OCTETS), digest, key=lambda n: piece[n * OCTETS : (n + 1) * OCTETS])
    return piece[n * OCTETS : (n + 1) * OCTETS] == digest


def forget(batch: Batch, before: datetime) -> int:
    """Delete pieces made before then; returns their number."""
    return batch.connection.execute(delete(table).where(table.c.made_at < microseconds(before))).rowcount
