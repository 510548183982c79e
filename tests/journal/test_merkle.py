"""The tree is that of RFC 6962, whichever nodes are kept. The path of an entry leads to the root."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest

from smtpguard.database.batch import Batch
from smtpguard.journal import merkle, tree
from smtpguard.journal.merkle import cover, leaf, parent, path, root
from smtpguard.journal.tree import Tree
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.journal.test_rows import filled

LEAVES = [leaf(bytes([n]) * 32) for n in range(70)]


def node(level: int, n: int) -> bytes:
    return LEAVES[n] if level == 0 else parent(node(level - 1, 2 * n), node(level - 1, 2 * n + 1))


def mth(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962, section 2.1, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return parent(mth(leaves[:k]), mth(leaves[k:]))


def root_of(leaf: bytes, n: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root of the tree of ``size`` leaves in which leaf ``n`` has this path (RFC 9162, section 2.1.3.2). Raises
    ValueError."""
    if not 0 <= n < size:
        raise ValueError("no leaf of this tree")
    at, last, made = n, size - 1, leaf
    for hash in path:
        if last == 0:
            raise ValueError("the path is too long")
        if at & 1 or at == last:
            made = parent(hash, made)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            made = parent(made, hash)
        at, last = at >> 1, last >> 1
    if last:
        raise ValueError("the path is too short")
    return made


def test_root_and_path_of_every_tree() -> None:
    assert root(node, 0) == sha256().digest()
    for size in range(1, len(LEAVES) + 1):
        assert root(node, size) == mth(LEAVES[:size])
        for n in range(size):
            assert root_of(LEAVES[n], n, size, path(node, n, size)) == root(node, size)


def test_a_path_of_another_leaf_or_tree_does_not_verify() -> None:
    found = path(node, 5, 12)
    assert root_of(LEAVES[6], 5, 12, found) != root(node, 12)
    with pytest.raises(ValueError):
        root_of(LEAVES[5], 5, 12, found[:-1])
    with pytest.raises(ValueError):
        root_of(LEAVES[5], 5, 12, [*found, found[0]])
    with pytest.raises(ValueError):
        root_of(LEAVES[5], 12, 12, found)


def test_complete_subtrees_cover_every_range() -> None:
    for begin in (0, 8, 16):
        for end in range(begin, begin + 30):
            leaves = [n for level, at in cover(begin, end) for n in range(at << level, (at + 1) << level)]
            assert leaves == list(range(begin, end))


async def test_the_tree_is_the_same_after_trimming(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (merkle, tree):
        monkeypatch.setattr(module, "BLOCK", 3)
        monkeypatch.setattr(module, "LEAVES", 8)
    for _ in range(5):
        await filled(store, 9)
        await store.journal.checkpoint()
    hashes = [entry.hash for entry, _ in await store.journal.entries()]
    leaves = [leaf(hash) for hash in hashes]
    size = len(leaves)

    def roots(batch: Batch) -> list[bytes]:
        return [Tree(batch.connection).root(seq) for seq in (20, 29, 30, size)]

    expected = [mth(leaves[:n]) for n in (20, 29, 30, size)]
    assert await store.write(roots) == expected
    clock.pass_(days=390)
    await filled(store, 3)
    clock.pass_(days=20)
    assert (await store.retain(Retention())).entries == size
    size = await store.journal.last()
    assert await store.write(lambda b: Tree(b.connection).root(46)) == mth(leaves)

    def proof(batch: Batch) -> bytes:
        grown = Tree(batch.connection)
        path = grown.path(48, size)
        [(hash,)] = batch.select("SELECT hash FROM entry WHERE seq = 48")
        assert root_of(leaf(bytes(hash)), 47, size, path) == grown.root(size)
        return grown.root(size)

    assert len(await store.write(proof)) == 32
    assert (await store.journal.verify()).ok
