"""A Merkle tree over the hashes of the journal's entries (RFC 6962). Subtrees of 1,024 leaves and more are kept.

They are made of the entries that exist. In a journal that was trimmed before, the first remaining entry is the first
leaf.
"""

from __future__ import annotations

from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_LEVEL = 10
_LEAVES = 1 << _LEVEL
_BLOCKS = 20  # at a time


def upgrade() -> None:
    table = op.create_table(
        "merkle",
        sa.Column("level", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("n", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    entry = sa.table("entry", sa.column("seq", sa.BigInteger()), sa.column("hash", sa.LargeBinary()))
    first, last = connection.execute(sa.select(sa.func.min(entry.c.seq), sa.func.max(entry.c.seq))).one()
    if first is None:
        return
    if first > 1:
        connection.execute(sa.insert(table).values(level=-1, n=first, hash=b""))
    made: dict[tuple[int, int], bytes] = {}
    start = first
    while last - start + 1 >= _LEAVES:
        end = min(start + _BLOCKS * _LEAVES, last + 1)
        query = sa.select(entry.c.hash).where(entry.c.seq >= start, entry.c.seq < end).order_by(entry.c.seq)
        hashes = [bytes(hash) for hash in connection.execute(query).scalars()]
        if len(hashes) != end - start:  # entries are missing; verifying reports it
            return
        rows = []
        for at in range(0, len(hashes) - _LEAVES + 1, _LEAVES):
            level, n = _LEVEL, (start - first + at) >> _LEVEL
            made[level, n] = _root([sha256(b"\0" + hash).digest() for hash in hashes[at : at + _LEAVES]])
            rows.append({"level": level, "n": n, "hash": made[level, n]})
            while n & 1:
                level, n = level + 1, n >> 1
                made[level, n] = _parent(made.pop((level - 1, 2 * n)), made.pop((level - 1, 2 * n + 1)))
                rows.append({"level": level, "n": n, "hash": made[level, n]})
        start += len(hashes) // _LEAVES * _LEAVES
        connection.execute(sa.insert(table), rows)


def _root(nodes: list[bytes]) -> bytes:
    while len(nodes) > 1:
        nodes = [_parent(left, right) for left, right in zip(nodes[::2], nodes[1::2], strict=True)]
    return nodes[0]


def _parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()
