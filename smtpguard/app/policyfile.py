"""Compare this host's policy file with the policy in force: the same, different, or unusable.

The policy in force is in the store. The file is what the next ``smtpguard reload`` would put in force.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from smtpguard import __version__
from smtpguard.app.files import parse_policy, store_url
from smtpguard.config.documents import (
    LISTS,
    PARTS,
    VOCABULARIES,
    PolicyFile,
    digest,
    policy_documents,
    policy_files,
    shipped,
)
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings

if TYPE_CHECKING:
    from smtpguard.guard.policies import CurrentPolicy
    from smtpguard.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The policy in force and this host's file. ``current``: the policy in force, and since when. ``unreadable``: why
    this version cannot read it, "" if it can. ``started_beside``: a part of this host was started while the file
    differed from the policy in force."""

    file: PolicyFile
    current: CurrentPolicy
    unreadable: str = ""
    started_beside: bool = False

    def in_words(self) -> str:
        """The state of the file, with the policy in force and since when, in one sentence."""
        put = self.current.put
        by = f", by {put.by}" if put is not None and put.by else ""
        since = f", since {put.at:%Y-%m-%d %H:%M} UTC{by}" if put is not None else ""
        return f"policy {self.current.sha256[:12]} is in force{since}; {self.file}"

    @property
    def since(self) -> datetime | None:
        """Since when the file differs from the policy in force; None if it does not, or if unknown."""
        return self.file.since(self.current.put.at if self.current.put is not None else None)


class Following:
    """Looks again only if the files or the policy in force have changed."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self.store = settings, store
        self._found: Look | None = None
        self._read: object = None

    async def look(self) -> Look | None:
        """Raises StoreError."""
        now = await self.store.policies.current(), stamps(self._settings)
        if now != self._read:
            self._found, self._read = await look(self._settings, self.store), now
        return self._found


async def look(settings: Settings, store: Store) -> Look | None:
    """For reports to people. None if no policy is in force yet. Raises StoreError."""
    current = await store.policies.current()
    if not current.sha256:
        return None
    try:
        documents: Mapping[str, bytes] = await store.policies.documents(current.sha256)
    except KeyError:
        documents = {}
    return await asyncio.to_thread(looked, settings, current, documents)


def look_before_upgrade(settings: Settings) -> Look | None:
    """Like ``look``, for a store that an earlier version may have written, and without what a running guard needs. None
    if there is no store, or no policy is in force. Raises StoreError, and the database's errors."""
    from smtpguard.database.engine import Database, is_there
    from smtpguard.database.migrate import revision
    from smtpguard.guard import policies  # imports a database driver, which reading a policy does not need

    url = store_url(settings)
    if not is_there(url):
        return None
    database = Database(url, reads=True)
    try:
        with database.read() as connection:
            if revision(connection) is None:
                return None
            current = policies.current(connection)
            try:
                documents = policies.policy(connection, current.sha256)
            except KeyError:
                documents = {}
    finally:
        database.close()
    return looked(settings, current, documents) if current.sha256 else None


def looked(settings: Settings, current: CurrentPolicy, documents: Mapping[str, bytes]) -> Look:
    """``documents``: of the policy in force, {} if they are lost. Reads the files of this host."""
    problem = ""
    try:
        parse_policy(settings, documents)
    except (Broken, KeyError) as e:
        problem = unreadable(current.sha256, e)
    file = compare(settings, documents)
    beside = file.differs and socket.gethostname() in current.beside
    return Look(file=file, current=current, unreadable=problem, started_beside=beside)


def unreadable(sha256: str, error: Exception) -> str:
    """One sentence on a policy in force that this version cannot read."""
    why = str(error.problems[0]) if isinstance(error, Broken) else "its text is not in the store"
    return (
        f"the policy in force, {sha256[:12]}, cannot be read by smtpguard {__version__}: {why}. Mail is answered 451 until smtpguard "
        "reload puts a policy in force that can be read"
    )


def compare(settings: Settings, in_force: Mapping[str, bytes]) -> PolicyFile:
    """Reads the files; ``in_force``: the documents of the policy in force. Never raises."""
    path = settings.policy
    found = PolicyFile(path=path, changed_at=_changed_at(path))
    try:
        documents = policy_documents(path)
    except Broken as e:
        return replace(found, problem=str(e.problems[0]))
    names = sorted({*documents, *in_force})
    others = [name for name in names if documents.get(name) != in_force.get(name)]
    product = tuple(name for name in others if _is_the_products(path, name))
    differing = tuple(name for name in others if name not in product)
    found = replace(found, sha256=digest(documents), differing=differing, product=product)
    try:
        if differing:
            parse_policy(settings, documents, where=str(path))
    except Broken as e:
        return replace(found, problem=str(e.problems[0]))
    return found


def _is_the_products(path: Path, name: str) -> bool:
    """Whether this document of the policy at ``path`` is a shipped one, of this or an earlier version."""
    own = path.parent / VOCABULARIES
    folder, _, file = name.partition("/")
    if folder != VOCABULARIES or own.resolve() == (shipped() / VOCABULARIES).resolve():
        return False
    return not (own / file).exists()


def stamps(settings: Settings) -> tuple[tuple[str, int, int, int], ...]:
    """Shows a change of any of the files without reading them."""
    found = []
    for path in policy_files(settings.policy).values():
        with suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_ino, stat.st_ctime_ns, stat.st_size))
    return tuple(found)


def _changed_at(path: Path) -> datetime | None:
    """By ``ctime``, which no copy keeps and no user sets. An upgrade changes the shipped files."""
    times = []
    for file in (*policy_files(path).values(), *(path.parent / folder for folder in (PARTS, LISTS, VOCABULARIES))):
        with suppress(OSError):
            times.append(file.stat().st_ctime)
    return datetime.fromtimestamp(max(times), UTC) if times else None
