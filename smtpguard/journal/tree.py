"""The Merkle tree over the journal as rows: the stored subtrees, and the rest computed again from entries.

Writing an entry does no work for it. Signing a checkpoint hashes the entries since the last block, in the same
transaction.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select

from smtpguard.database.schema import entry, merkle
from smtpguard.journal.merkle import BLOCK, LEAVES, Recent, cover, leaf, levels, parent, path, root

BEGINS = -1
"""The level of the one row that has the entry of the first leaf. There is one if the journal was trimmed before it had a tree;
else entry 1 is the first leaf."""


class Unknown(KeyError):
    """A subtree cannot be computed: entries of it do not exist any more."""


class Tree:
    """The tree over the entries that a transaction sees. ``begin``: the entry of its first leaf. ``recent``: hashes that need not
    be read."""

    def __init__(self, connection: Connection, recent: Recent | None = None) -> None:
        self._connection, self._recent = connection, recent or Recent()
        self.begin = connection.execute(select(merkle.c.n).where(merkle.c.level == BEGINS)).scalar() or 1
        self._known: dict[tuple[int, int], bytes] = {}
        self._block = -1  # the block whose subtrees are in memory
        self._levels: list[list[bytes]] = []
        self._lower: dict[tuple[int, int], bytes] = {}

    def size(self, seq: int) -> int:
        """Return the number of leaves of the tree up to entry ``seq``."""
        return max(seq - self.begin + 1, 0)

    def root(self, seq: int) -> bytes:
        """Return the root of the tree up to entry ``seq``. Raises Unknown."""
        return root(self.node, self.size(seq))

    def stack(self, seq: int) -> list[bytes]:
        """Return the complete subtrees that cover the tree up to entry ``seq``, the largest first. Raises Unknown."""
        return [self.node(level, n) for level, n in cover(0, self.size(seq))]

    def path(self, seq: int, last: int) -> list[bytes]:
        """Return the audit path of entry ``seq`` in the tree up to entry ``last``. Raises Unknown."""
        return path(self.node, seq - self.begin, self.size(last))

    def node(self, level: int, n: int) -> bytes:
        """Return the hash of a complete subtree. Raises Unknown."""
        found = self._known.get((level, n))
        if found is None:
            found = self._known[level, n] = self._read(level, n) if level >= BLOCK else self._compute(level, n)
        return found

    def _read(self, level: int, n: int) -> bytes:
        hash = self._connection.execute(select(merkle.c.hash).where(merkle.c.level == level, merkle.c.n == n)).scalar()
        if hash is not None:
            return bytes(hash)
        if level == BLOCK:  # it is complete now, and not stored yet
            return self._compute(level, n)
        return parent(self.node(level - 1, 2 * n), self.node(level - 1, 2 * n + 1))

    def _compute(self, level: int, n: int) -> bytes:
        block = n >> (BLOCK - level)
        if block != self._block:
            self._load(block)
        if level < len(self._levels):
            at = n - (block << (BLOCK - level))
            if at < len(self._levels[level]):
                return self._levels[level][at]
        found = self._lower.get((level, n))
        if found is None:
            if level == 0:
                raise Unknown(f"entry {n + self.begin} is not there any more")
            found = parent(self._compute(level - 1, 2 * n), self._compute(level - 1, 2 * n + 1))
        return found

    def _load(self, block: int) -> None:
        """Load the subtrees of a block from its entries, and those that were stored when its first entries were trimmed."""
        first = block << BLOCK
        seq = first + self.begin
        self._lower, self._levels, self._block = {}, [], block
        if known := self._recent.since(seq, LEAVES):
            self._levels = levels(list(map(leaf, known)))
            return
        rows = self._connection.execute(
            select(entry.c.seq, entry.c.hash)
            .where(entry.c.seq >= seq, entry.c.seq < seq + LEAVES)
            .order_by(entry.c.seq)
        ).all()
        if any(type(hash) is not bytes for _, hash in rows):  # SQLite stores any type in any column
            raise Unknown(f"an entry after {seq - 1} has no hash")
        leaves = [leaf(hash) for _, hash in rows]
        if rows and rows[0][0] == seq and rows[-1][0] == seq + len(rows) - 1:
            self._levels = levels(leaves)
            return
        self._lower = {(0, n - self.begin): made for (n, _), made in zip(rows, leaves, strict=True)}
        kept = select(merkle.c.level, merkle.c.n, merkle.c.hash).where(merkle.c.level >= 0, merkle.c.level < BLOCK)
        for level, n, hash in self._connection.execute(kept):
            if n >> (BLOCK - level) == block:
                self._lower[level, n] = bytes(hash)

    def extend(self, seq: int) -> None:
        """Store the blocks that are complete up to entry ``seq``, and the levels above them."""
        most = select(func.max(merkle.c.n)).where(merkle.c.level == BLOCK)
        last = self._connection.execute(most).scalar()
        for block in range(0 if last is None else last + 1, self.size(seq) >> BLOCK):
            self._store(BLOCK, block, self.node(BLOCK, block))
            level, n = BLOCK, block
            while n & 1:
                level, n = level + 1, n >> 1
                self._store(level, n, parent(self.node(level - 1, 2 * n), self.node(level - 1, 2 * n + 1)))

    def trim(self, seq: int) -> None:
        """Store the subtrees over the entries up to ``seq``. Call it before these are erased."""
        self.extend(seq)
        end = self.size(seq)
        first = end >> BLOCK << BLOCK
        there = {(level, n): self.node(level, n) for level, n in cover(first, end)}
        lower = merkle.c.level >= 0, merkle.c.level < BLOCK
        self._connection.execute(merkle.delete().where(*lower))
        for (level, n), hash in there.items():
            self._store(level, n, hash)

    def _store(self, level: int, n: int, hash: bytes) -> None:
        self._known[level, n] = hash
        self._connection.execute(insert(merkle).values(level=level, n=n, hash=hash))
