"""A store of the previous version gets the hash tree that it would have had."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from smtpguard.database import migrations
from smtpguard.database.engine import Database
from smtpguard.database.migrate import migrate
from smtpguard.journal.merkle import leaf, parent
from smtpguard.journal.tree import Tree


def hash_of(n: int) -> bytes:
    return n.to_bytes(32, "big")


def mth(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962, section 2.1, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return parent(mth(leaves[:k]), mth(leaves[k:]))


@pytest.mark.parametrize(("first", "last"), [(1, 0), (1, 700), (1, 1024), (1, 5000), (300, 4395)])
def test_old_entries_get_the_blocks_of_the_tree(tmp_path: Path, first: int, last: int) -> None:
    url = f"sqlite:///{tmp_path}/guard.db"
    database = Database(url)
    with database.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0024")
    database.close()
    with closing(sqlite3.connect(tmp_path / "guard.db")) as before, before:
        rows = [(n, n, "outcome", "T", "{}", hash_of(n - 1), hash_of(n)) for n in range(first, last + 1)]
        before.executemany("INSERT INTO entry (seq, at, kind, id, body, prev, hash) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    migrate(url)
    database = Database(url)
    try:
        with database.write() as connection:
            tree = Tree(connection)
            kept = connection.exec_driver_sql(
                "SELECT level, n, hash FROM merkle WHERE level >= 0 ORDER BY level, n"
            ).all()
            assert tree.begin == first
            if last:
                assert tree.root(last) == mth([leaf(hash_of(n)) for n in range(first, last + 1)])
            connection.exec_driver_sql("DELETE FROM merkle WHERE level >= 0")
            Tree(connection).extend(last)
            again = connection.exec_driver_sql(
                "SELECT level, n, hash FROM merkle WHERE level >= 0 ORDER BY level, n"
            ).all()
            assert kept == again
    finally:
        database.close()
