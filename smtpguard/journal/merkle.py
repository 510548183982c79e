"""The journal as a Merkle tree (RFC 6962, section 2.1): one entry is proved by some twenty hashes and a signed root.

Leaf n is the hash of the entry n places after the first. Complete subtrees of 1,024 leaves and more are stored; smaller
ones are computed again from their entries. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

BLOCK = 10
"""The level of the smallest subtrees that are stored."""
LEAVES = 1 << BLOCK
"""The number of leaves of a stored block."""
EMPTY = sha256().digest()
_RECENT = 8 * LEAVES  # hashes that are kept at least
Node = Callable[[int, int], bytes]
"""Returns the hash of a complete subtree, by its level and number: subtree n has 2**level leaves."""


def leaf(hash: bytes) -> bytes:
    return sha256(b"\0" + hash).digest()


def parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Return the complete subtrees over the leaves of a block, a list for each level from the leaves up."""
    made = [list(leaves)]
    digest = sha256
    while len(below := made[-1]) > 1:
        pairs = zip(below[::2], below[1::2], strict=False)
        made.append([digest(b"\1" + left + right).digest() for left, right in pairs])
    return made


def root(node: Node, size: int) -> bytes:
    """Return the root of the first ``size`` leaves (MTH of RFC 6962)."""
    return _hash(node, 0, size) if size else EMPTY


def _hash(node: Node, first: int, end: int) -> bytes:
    size = end - first
    if not size & (size - 1):  # a power of two; the ranges begin at a multiple of it
        level = size.bit_length() - 1
        return node(level, first >> level)
    left = _left(size)
    return parent(_hash(node, first, first + left), _hash(node, first + left, end))


def _left(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def path(node: Node, n: int, size: int) -> list[bytes]:
    """Return the audit path of leaf ``n`` in a tree of ``size`` leaves, from the leaf up (PATH of RFC 6962)."""
    found: list[bytes] = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _left(end - first)
        if n < middle:
            found.append(_hash(node, middle, end))
            end = middle
        else:
            found.append(_hash(node, first, middle))
            first = middle
    return found[::-1]


def cover(begin: int, end: int) -> list[tuple[int, int]]:
    """Return the complete subtrees, by level and number, that cover the leaves ``begin`` to ``end`` - 1. ``begin`` begins a
    block."""
    found = []
    while begin < end:
        level = min((begin & -begin).bit_length() - 1 if begin else 63, (end - begin).bit_length() - 1)
        found.append((level, begin >> level))
        begin += 1 << level
    return found


@dataclass(slots=True, kw_only=True)
class Recent:
    """The hashes of the newest entries, without a gap, that one process has written itself. ``last``: the entry of the last
    hash."""

    last: int = 0
    hashes: list[bytes] = field(default_factory=list)

    def follow(self, last: int, before: bytes, hashes: Sequence[bytes]) -> None:
        """Add the hashes of entries up to ``last``, of which the first follows the entry with the hash ``before``. Hashes that
        are known already are kept only if ``before`` is the last of them: other processes write too."""
        if self.hashes and self.hashes[-1] != before:
            self.hashes.clear()
        self.hashes += hashes
        self.last = last
        if len(self.hashes) > 2 * _RECENT:
            del self.hashes[:-_RECENT]

    def followed(self, last: int, before: bytes, hashes: Sequence[bytes]) -> Recent:
        """Return a copy with these hashes, added as by ``follow``."""
        made = Recent(last=self.last, hashes=self.hashes.copy())
        made.follow(last, before, hashes)
        return made

    def since(self, seq: int, most: int) -> Sequence[bytes]:
        """Return the hashes of entry ``seq`` and those after it, at most ``most``; none if that of ``seq`` is not known."""
        start = seq - self.last + len(self.hashes) - 1
        return self.hashes[start : start + most] if start >= 0 else ()


class Roots:
    """Compares roots while leaves come in order. ``size`` and ``stack``: the tree so far, as its size and the complete subtrees
    that cover it, the largest first. ``expected``: by entry, the hashes and roots that were signed for it; a root with another
    hash than the entry's is ignored. ``begin``: the entry of leaf 0."""

    def __init__(
        self,
        expected: Mapping[int, Collection[tuple[bytes, bytes]]],
        begin: int,
        size: int = 0,
        stack: Sequence[bytes] = (),
    ) -> None:
        self._expected, self._begin = expected, begin
        self._size, self._stack = size, list(stack)
        self._whole = True
        self.wrong = 0
        """The first entry at which the tree has another root than a signed one; 0 for none."""

    def add(self, rows: Sequence[Any]) -> None:
        """Add further entries. In each row the number is first, and the hash seventh."""
        if not self._whole or not rows:
            return
        if rows[0][0] != self._begin + self._size:  # the walk reports missing entries
            self._whole = False
            return
        stack, size, digest, expected = self._stack, self._size, sha256, self._expected
        for row in rows:
            made = digest(b"\0" + row[6]).digest()
            size += 1
            n = size
            while not n & 1:
                made = digest(b"\1" + stack.pop() + made).digest()
                n >>= 1
            stack.append(made)
            if (
                row[0] in expected
                and not self.wrong
                and any(hash == row[6] and signed != self.root for hash, signed in expected[row[0]])
            ):
                self.wrong = row[0]
        self._size = size

    @property
    def stack(self) -> tuple[bytes, ...]:
        """The complete subtrees that cover the tree so far, the largest first."""
        return tuple(self._stack)

    @property
    def root(self) -> bytes:
        """The root of the tree so far."""
        *rest, made = self._stack
        for left in reversed(rest):
            made = parent(left, made)
        return made
