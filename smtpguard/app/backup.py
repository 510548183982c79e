"""Back up an installation into one file (app.archive), and restore it.

The file has ``checkpoints``, ``timestamps``, the database (``smtpguard.db``, or ``smtpguard.dump`` of pg_dump), ``secret``, and
``etc/`` with the settings and the policy's files. The checkpoints are copied before the database, so that the database copy is
never older than a checkpoint beside it: an older one is taken for a store that was rolled back.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import secrets
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from typing import IO
from urllib.parse import quote

from smtpguard import __version__
from smtpguard.app.archive import SUFFIX, BadBackup, Manifest, manifest_of, members_in, pack, read
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.files import CannotStart, make_state, store_url
from smtpguard.app.services import migrate, opened, services
from smtpguard.config.documents import POLICY, policy_documents
from smtpguard.config.fields import read_secret
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import (
    drafted,
    hand_over,
    naming,
    refusal,
    remove_drafts,
    sqlite_file,
    swap,
    sync_folder,
)
from smtpguard.database.access import Progress
from smtpguard.database.batch import FREEZE, Batch, read_head
from smtpguard.database.engine import Database, for_libpq
from smtpguard.database.errors import Unavailable
from smtpguard.database.files import FairLock
from smtpguard.database.migrate import SchemaError
from smtpguard.database.schema import SCHEMA
from smtpguard.database.statements import rows_of
from smtpguard.freezes.model import event_of
from smtpguard.freezes.rows import forget
from smtpguard.holds import deciding
from smtpguard.journal import rows
from smtpguard.journal.checkpoint import readable
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.linefiles import CHECKPOINTS, TIMESTAMPS, lines_of
from smtpguard.journal.proof import Proof
from smtpguard.journal.signing import newest_checkpoint
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.store.rollbackcheck import Foreign, OtherSecret
from smtpguard.store.store import Store, open_store

SQLITE, POSTGRESQL, SECRET, ETC = "smtpguard.db", "smtpguard.dump", "secret", "etc"
_LEFT_SECONDS = 86_400
"""The age from which a folder that a killed backup has left is removed."""
_BUSY_SECONDS = 60.0
"""The timeout of SQLite's locks."""
_DMS_BYTE = 128
"""The byte of the file -shm on which every process that has a SQLite database open in WAL mode holds a shared lock
(os_unix.c, UNIX_SHM_DMS)."""
_OTHERS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def back_up(
    settings: Settings,
    config: Path,
    target: Path,
    *,
    by: str,
    secret: bool = True,
    verify: bool = True,
    keep: int = 0,
    progress: Progress | None = None,
) -> tuple[Path, Manifest, Sequence[Path]]:
    """Write the file ``target``. If it is a folder, write a new file there, and keep the newest ``keep`` (0: all).
    ``config``: the settings file. ``serve`` may run meanwhile. ``progress`` gets the state of verification: entries
    done, entries in all. Returns the new file with its manifest, and the older files that were removed.

    Raises BadBackup, CannotStart, StoreError and OSError; an existing file then stays.
    """
    now = SystemClock().now()
    folder = target.is_dir()
    file = target / f"smtpguard-{now:%Y%m%dT%H%M%SZ}{SUFFIX}" if folder else target
    if not file.parent.is_dir():
        raise BadBackup(f"{file.parent} is no folder: make it first")
    if file.exists():
        manifest_of(file)  # only a backup is replaced
    with _workplace("backup", file.parent) as work:
        journal, entries = asyncio.run(_copy(settings, work, now, by=by, verify=verify, progress=progress))
        if secret:
            shutil.copyfile(settings.secret_file, work / SECRET)
        _copy_configuration(settings, config, work / ETC)
        manifest = Manifest(
            version=__version__,
            made_at=now,
            engine="postgresql" if (work / POSTGRESQL).exists() else "sqlite",
            schema=SCHEMA,
            journal=journal,
            entries=entries,
            members=members_in(work),
        )
        part = work / SUFFIX
        pack(work, manifest, part)
        read(part)
        part.replace(file)
    sync_folder(file.parent)
    removed = _prune(target, keep, but=file) if folder and keep else ()
    return file, manifest, removed


async def _copy(
    settings: Settings, work: Path, now: datetime, *, by: str, verify: bool, progress: Progress | None
) -> tuple[str, int | None]:
    """Copy checkpoints and database, in this order. Returns the id of the journal, and how many of its entries were verified. With
    SQLite the copy is verified. With a server its own journal is verified, and every octet of the dump is read back."""
    database = sqlite_file(settings.store.url)
    proof: Proof | None = None
    async with opened(settings) as (store, _):
        event = Event(kind=Kind.EXPORTED, id="backup", at=now, data={"what": "backup"}, private={"actor": (by,)})
        await store.journal.record([event])
        await store.journal.take_fronts()
        journal = await store.ask(lambda connection: read_head(connection).journal)
        for name in (CHECKPOINTS, TIMESTAMPS):
            if (settings.state / name).exists():
                shutil.copyfile(settings.state / name, work / name)
        if database is None:
            _pg_dump(settings, work / POSTGRESQL)
            proof = await store.journal.verify(progress) if verify else None
    if database is not None:
        _copy_sqlite(database, work / SQLITE)
        if verify:
            secret = settings.secret_file.read_bytes()
            async with _opened_alone(work, secret, work) as copy:
                proof = await copy.journal.verify(progress)
    if proof is None:
        return journal, None
    if proof.first_bad is not None:
        bad = proof.first_bad
        raise BadBackup(
            f"the journal was altered: entry {bad.seq}: {bad.problem}. --no-verify makes a backup nevertheless"
        )
    return journal, proof.entries


def _copy_sqlite(database: Path, copy: Path) -> None:
    """Copy a database in one read transaction, while others may write. Raises BadBackup."""
    source = sqlite3.connect(
        f"file:{quote(str(database))}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
    )
    try:
        source.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.Error as e:
        refused = refusal(copy.parent)  # which SQLite calls an error of the disk, if it is a quota
        raise BadBackup(
            f"{database} cannot be copied: {e}" if refused is None else f"{copy.parent.parent}: {refused.strerror}"
        ) from e
    finally:
        source.close()
    copy.chmod(0o600)
    made = sqlite3.connect(copy)
    try:
        [said] = made.execute("PRAGMA quick_check(1)").fetchone()
    finally:
        made.close()
    if said != "ok":
        raise BadBackup(f"{database} is damaged: {said}")


def _copy_configuration(settings: Settings, config: Path, etc: Path) -> None:
    """Copy the settings and the policy's files. A policy that cannot be read is left out."""
    etc.mkdir()
    shutil.copyfile(config, etc / config.name)
    try:
        documents = policy_documents(settings.policy)
    except Broken:
        return
    for name, data in documents.items():
        file = etc / (settings.policy.name if name == POLICY else name)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)


def _prune(folder: Path, keep: int, *, but: Path) -> tuple[Path, ...]:
    """Remove all but the newest ``keep`` backups of a folder. Their names contain the time, so they sort by it."""
    there = sorted(path for path in folder.glob(f"smtpguard-????????T??????Z{SUFFIX}") if path != but)
    removed = tuple(there[: max(0, len(there) - keep + 1)])
    for path in removed:
        path.unlink()
    return removed


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A restored installation. ``aside``: the folder with the earlier database files; None if there were none. ``freeze_id``: the
    freeze of everything that the store starts with."""

    manifest: Manifest
    aside: Path | None
    freeze_id: str


def restore(settings: Settings, file: Path, *, by: str) -> Restored:
    """Restore the database, and checkpoints and secret if they are missing: an existing file of checkpoints may know
    later entries than the backup. Settings and policy files stay as they are. Everything is frozen in the database
    before anybody can open it.

    Raises BadBackup, CannotStart, StoreError and OSError; up to the last step nothing has changed then, save that a
    missing secret is there.
    """
    database = sqlite_file(settings.store.url)
    make_state(settings)
    with _workplace("restore", settings.state if database is None else database.parent) as work:
        manifest = read(file, work)
        if manifest.engine != ("sqlite" if database is not None else "postgresql"):
            raise BadBackup(f"{file} is of {manifest.engine}, but store.url names another kind of database")
        if manifest.schema > SCHEMA:
            raise BadBackup(f"{file} was made by smtpguard {manifest.version}, which is newer than this one")
        _agree_on_the_secret(settings, work, file)
        known = {mark.journal for mark in map(readable, lines_of(settings.state, CHECKPOINTS)) if mark is not None}
        if known and manifest.journal not in known:
            raise CannotStart(
                f"{file} is of another installation than the one whose checkpoints are in {settings.state}"
            )
        stop = Freeze(
            freeze_id=ids()(),
            selector=Selector.ALL,
            value="",
            reason=f"Restored, as it was on {manifest.made_at:%Y-%m-%d %H:%M} UTC",
            by=by,
            at=SystemClock().now(),
        )
        if database is not None:
            asyncio.run(_check_journal(settings, work))
            with closing(sqlite3.connect(work / SQLITE)) as connection, connection:
                connection.execute(_freeze_sql(stop))
        else:
            check_unused(settings)
        _put(settings, work / SECRET, settings.secret_file)  # without it nobody could open the database
        aside = None
        if database is not None:
            aside = _swap(database, work / SQLITE)
        else:
            _pg_put_back(settings, work / POSTGRESQL, then=_freeze_sql(stop))
        for name in (CHECKPOINTS, TIMESTAMPS):
            _put(settings, work / name, settings.state / name)
    asyncio.run(_journal_freeze(settings, stop))
    return Restored(manifest=manifest, aside=aside, freeze_id=stop.freeze_id)


def _put(settings: Settings, kept: Path, place: Path) -> None:
    """Put a file of the backup in its place if none is there, as a whole: the place may be on another file system. Only the
    owner of the state folder can read it."""
    if place.exists() or not kept.exists():
        return
    remove_drafts(place)  # of a restore that was killed
    with drafted(place, kept.read_bytes()) as draft:
        hand_over(draft, settings.state)
        draft.replace(place)
        sync_folder(place.parent)


def _freeze_sql(stop: Freeze) -> str:
    """Return the SQL for the row of a freeze, in every schema that a backup can have, on both engines. It is part of the restore: if
    that is killed, everything is frozen, even if no checkpoints show that the store was put back. The freeze's entry follows once
    the store is migrated."""
    quoted = FREEZE.dumps(stop).replace("'", "''")
    return f"""INSERT INTO "freeze" (freeze_id, lifted, doc) VALUES ('{stop.freeze_id}', FALSE, '{quoted}')"""


async def _journal_freeze(settings: Settings, stop: Freeze) -> None:
    """Migrate the store to this version's schema, and journal the freeze. A checkpoint signs that the store was put back, also if
    none here is newer: a witness may have newer ones."""
    await migrate(settings)

    def freeze(batch: Batch) -> None:
        last = newest_checkpoint(batch.connection)
        noticed = last is not None and last.put_back is not None and last.seq == batch.head.seq
        forget(batch, stop.freeze_id)
        deciding.freeze(batch, stop, event_of(Kind.FREEZE, stop, stop.by, SystemClock().now()))
        if not noticed:
            rows.mark(batch, put_back=last.seq if last is not None else 0)

    async with services(settings) as at_hand:
        await at_hand.store.write(freeze)
        await at_hand.freezes.told(stop)


def _agree_on_the_secret(settings: Settings, work: Path, file: Path) -> None:
    there, kept = settings.secret_file.exists(), (work / SECRET).exists()
    if not there and not kept:
        raise BadBackup(f"{file} has no secret, and {settings.secret_file} is not there: put it there first")
    if there and kept and not secrets.compare_digest(settings.secret_file.read_bytes(), (work / SECRET).read_bytes()):
        raise BadBackup(
            f"{settings.secret_file} is not the secret in {file}: move it away to restore the one in the backup"
        )


async def _check_journal(settings: Settings, work: Path) -> None:
    """Check that the state folder knows this journal. Raises CannotStart."""
    secret = (settings.secret_file if settings.secret_file.exists() else work / SECRET).read_bytes()
    try:
        async with _opened_alone(work, secret, settings.state):
            pass
    except (Foreign, OtherSecret) as e:
        raise CannotStart(f"the backup is of another installation than {settings.state}: {e}") from None
    except SchemaError:
        pass  # of an earlier version, which is migrated later


def _swap(database: Path, restored: Path) -> Path | None:
    """Put the restored file in the place of the database. Returns the folder with the earlier files, None if there were
    none. Raises CannotStart if a process has the database open."""
    there = [path for end in ("", "-wal", "-shm") if (path := Path(f"{database}{end}")).exists()]
    aside = None
    with ExitStack() as locked:
        if database.exists():
            lock = locked.enter_context(closing(FairLock(database)))
            locked.enter_context(lock)
        _check_unused_file(database)
        if there:
            names = (database.parent / f"before-restore-{n}" for n in itertools.count(1))
            aside = next(folder for folder in names if not folder.exists() or _has_begun(folder, there))
            aside.mkdir(mode=0o700, exist_ok=True)
            hand_over(aside, database.parent)
            logs = [path for path in there if path != database]
            for path in logs:  # first these: the database lacks the last writes without its log
                if not (aside / path.name).exists():
                    os.link(path, aside / path.name)
            sync_folder(aside)
            if database in there:  # moved, never linked: two names of a database in use, each with a log, damage it
                database.rename(aside / database.name)
            for path in logs:
                path.unlink()
        swap(restored, database)
    return aside


def _has_begun(aside: Path, there: Sequence[Path]) -> bool:
    """Return whether a restore that was killed has begun to put these files, and no others, into the folder."""
    kept = [(aside / path.name).samefile(path) for path in there if (aside / path.name).exists()]
    return bool(kept) and all(kept)


def check_unused(settings: Settings) -> None:
    """Check that no process has the store open, on any host. Do not call it while this process has. Raises CannotStart."""
    database = sqlite_file(settings.store.url)
    if database is not None:
        _check_unused_file(database)
    else:
        _check_unused_server(settings)


def _check_unused_file(database: Path) -> None:
    with suppress(FileNotFoundError), Path(f"{database}-shm").open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _DMS_BYTE)
        except BlockingIOError:
            raise CannotStart(
                f"{database} is in use: stop smtpguard, and its sockets, which would start it again "
                f"(systemctl stop smtpguard.socket smtpguard, or the units of its parts)"
            ) from None


def _check_unused_server(settings: Settings) -> None:
    try:
        with closing(Database(store_url(settings))) as database, database.read() as connection:
            [(others,)] = rows_of(connection, _OTHERS)
    except Unavailable as e:
        raise CannotStart(f"{settings.store.url} cannot be reached: {e}") from None
    if others:
        raise CannotStart(f"{settings.store.url} is in use by {others} connections: stop smtpguard on every host first")


@contextmanager
def _workplace(what: str, parent: Path) -> Iterator[Path]:
    """Make a new folder, which is removed at the end. Those that a killed process has left are removed: each may have a copy of all
    held mail, and of the secret. One in use is locked, which is not seen on another host: a folder for backups may be on several."""
    prefix = f".smtpguard-{what}-"
    for left in parent.glob(f"{prefix}*"):
        with suppress(OSError), _locked(left):
            if what == "restore" or left.stat().st_mtime < time.time() - _LEFT_SECONDS:
                shutil.rmtree(left)
    with naming(parent):
        folder = Path(mkdtemp(prefix=prefix, dir=parent))
        try:
            with _locked(folder):
                yield folder
        except BaseException:  # its reason is told, also if cleaning up fails
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises OSError if another process has it."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)


def _opened_alone(folder: Path, secret: bytes, state_dir: Path) -> AbstractAsyncContextManager[Store]:
    """Open the copy of a SQLite database in ``folder``."""
    return open_store(
        f"sqlite:///{folder / SQLITE}", secret=secret, state_dir=state_dir, clock=SystemClock(), reads=True
    )


def _pg_dump(settings: Settings, file: Path) -> None:
    """Write a dump, and read it back. Raises BadBackup."""
    client, environment = _client(settings, "pg_dump")
    _run([*client, "--format=custom", f"--file={file}"], environment)
    _run(["pg_restore", f"--file={os.devnull}", str(file)])


def _pg_put_back(settings: Settings, dump: Path, *, then: str) -> None:
    """Replace the tables by those of a dump and execute the statement ``then``, in one transaction. Raises BadBackup.

    psql commits only when it is told to: if this process or pg_restore dies, it comes to the end of its input, and the
    server rolls back."""
    client, environment = _client(settings, "psql")
    failed: BadBackup | None = None
    with _running(
        [*client, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"], subprocess.DEVNULL, environment, subprocess.PIPE
    ) as psql:
        assert psql.stdin is not None
        with suppress(BrokenPipeError), psql.stdin as script:
            script.write(b"BEGIN;\n")
            script.flush()
            try:
                _run(["pg_restore", "--clean", "--if-exists", "--no-owner", "--file=-", str(dump)], output=script)
                script.write(f"RESET search_path;\n{then};\nCOMMIT;\n".encode())  # pg_restore has emptied it
            except BadBackup as e:  # also if psql has ended; then psql's message is the reason
                failed = e
    if failed is not None:
        raise failed


def _client(settings: Settings, program: str) -> tuple[list[str], Mapping[str, str]]:
    """Return the command of a client program, and its environment. The password goes into the environment, which no other user can
    read."""
    file = settings.store.password_file
    password = {"PGPASSWORD": read_secret(file)} if file is not None else {}
    return [program, f"--dbname={for_libpq(settings.store.url)}"], {**os.environ, **password}


def _run(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | int = subprocess.DEVNULL,
) -> None:
    with _running(command, output, environment):
        pass


@contextmanager
def _running(
    command: Sequence[str],
    output: IO[bytes] | int,
    environment: Mapping[str, str] | None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, and wait for its end after the block. Raises BadBackup."""
    with TemporaryFile() as said:
        try:
            running = subprocess.Popen(command, stdin=stdin, stdout=output, stderr=said, env=environment)
        except FileNotFoundError:
            raise BadBackup(f"{command[0]} is not installed: it comes with PostgreSQL's client programs") from None
        with running:
            yield running
        if running.returncode:
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").splitlines()
            reason = next((line for line in lines if line.strip()), f"exit {running.returncode}")
            raise BadBackup(f"{command[0]} failed: {reason}")
