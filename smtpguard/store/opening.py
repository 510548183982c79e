"""Open a store: the right database, at this version; or one sentence that says why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection

from smtpguard.database.access import Clock
from smtpguard.database.engine import Database, is_there
from smtpguard.database.migrate import NotSetUp, bring, check, revision
from smtpguard.database.schema import SCHEMA
from smtpguard.store import rollbackcheck
from smtpguard.store.rollbackcheck import Rollback
from smtpguard.store.store import Store
from smtpguard.store.writer import Committed


def _known(connection: Connection, secret: bytes, state_dir: Path, *, renewing: bytes | None) -> Rollback | None:
    """Check the database against the state folder before it is migrated."""
    found = revision(connection)
    if found is not None:
        return rollbackcheck.look(connection, secret, state_dir, renewing=renewing, older=found != SCHEMA)
    rollbackcheck.check_uncreated(secret, state_dir)
    return None


def _close(opening: asyncio.Future[tuple[Database, Rollback | None]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


@asynccontextmanager
async def open_store(
    url: str,
    *,
    secret: bytes,
    state_dir: Path,
    clock: Clock,
    quota_bytes: int = 0,
    migrate: bool = False,
    hot: bool = False,
    renewing: bytes | None = None,
    reads: bool = False,
    committed: Committed | None = None,
) -> AsyncIterator[Store]:
    """Open the store at ``url`` (sqlite:///path or postgresql://...). ``quota_bytes`` of held content, 0 for no limit.

    With ``migrate`` the database is created, or migrated to this version; else SchemaError says what to do. ``hot``:
    mail waits for its writes. Raises Foreign and OtherSecret, before anything is written, if ``state_dir`` or
    ``secret`` is another store's. ``renewing``: the secret in force, b"" if it is lost; ``secret`` is a new one, to be put
    in force by ``renew``. ``reads``: nothing will be written, so a read-only store is enough. ``committed`` is called
    with the events of each commit made here, in the writer thread.
    """

    def connect() -> tuple[Database, Rollback | None]:
        if not is_there(url):
            rollbackcheck.check_uncreated(secret, state_dir)
            if not migrate:
                raise NotSetUp
        database = Database(url, hot=hot, reads=reads)
        try:
            with database.read() as connection:
                put_back = _known(connection, secret, state_dir, renewing=renewing)
            if migrate:
                bring(database)
            with database.read() as connection:
                check(connection)
        except BaseException:
            database.close()
            raise
        return database, put_back

    opening = asyncio.get_running_loop().run_in_executor(None, connect)
    try:
        database, put_back = await asyncio.shield(opening)
    except asyncio.CancelledError:  # the thread goes on; close the database once it is open
        opening.add_done_callback(_close)
        raise
    store = Store(
        database, secret=secret, state_dir=state_dir, clock=clock, quota_bytes=quota_bytes, put_back=put_back,
        renewing=renewing, committed=committed,
    )  # fmt: skip
    try:
        yield store
    finally:
        await store.close()
