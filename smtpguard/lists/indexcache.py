"""The open indexes of all lists: which are open, how old they are, and what is wrong with the others.

It has the names of index files, the stat that shows that a file was replaced, and the four states of an index. A file's
mtime says when its sources were last read and unchanged: the oldest such time of any source; INCOMPLETE if one of them
was never read.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from smtpguard.lists.index import BadIndex, Index

INCOMPLETE = 0.0  # as an mtime: a source was never read, so a "no" cannot be relied on


class State(enum.Enum):
    READY = "ready"
    STALE = "stale"  # a "yes" stays a yes; a "no" is not to be relied on
    MISSING = "missing"  # the members are unknown
    UNLISTED = "unlisted"  # no source of members is declared: only its address is known


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatus:
    """One list's index. ``why``: the problem in a phrase, "" if there is none."""

    state: State
    index: Index | None = None
    checked_at: datetime | None = None
    why: str = ""


class Shelved(Protocol):
    """The properties of a list that are needed to find and judge its index."""

    @property
    def name(self) -> str: ...
    @property
    def members(self) -> tuple[Mapping[str, object], ...]: ...
    @property
    def stale_after_seconds(self) -> int: ...


def index_path(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.index"


def sources_folder(folder: Path, name: str) -> Path:
    """The folder with the index and the state of each source of a list."""
    return folder / f"{quote(name, safe='')}.sources"


def report_path(folder: Path, name: str) -> Path:
    """Beside the index: the result of the latest sync (report)."""
    return folder / f"{quote(name, safe='')}.json"


def too_old(checked_at: datetime, now: datetime, info: Shelved) -> bool:
    """Whether a "no" cannot be relied on. A time as far in the future comes from a wrong clock, and counts as too old."""
    return abs(now - checked_at) > timedelta(seconds=info.stale_after_seconds)


class Shelf:
    """The open indexes of one process."""

    def __init__(self, folder: Path, *key_ids: bytes) -> None:
        self._folder = folder
        self._key_ids = key_ids
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self._paths: dict[str, Path] = {}
        self.statuses: dict[str, IndexStatus] = {}

    def look(self, infos: Iterable[Shelved], now: datetime) -> bool:
        """One stat a list; a replaced index is opened. True if any status has changed."""
        statuses = {info.name: self._one(info, now) for info in infos}
        changed = statuses != self.statuses
        self.statuses = statuses
        return changed

    def glance(self, infos: Iterable[Shelved], now: datetime) -> bool:
        """The same for some lists only, whose status is known from before."""
        found = {info.name: self._one(info, now) for info in infos}
        if all(status is self.statuses[name] or status == self.statuses[name] for name, status in found.items()):
            return False
        self.statuses = {**self.statuses, **found}
        return True

    def _one(self, info: Shelved, now: datetime) -> IndexStatus:
        if not info.members:
            return IndexStatus(state=State.UNLISTED, why=f"the list {info.name} declares no members")
        before = self.statuses.get(info.name)
        index = before.index if before else None
        path = self._paths.get(info.name) or self._paths.setdefault(info.name, index_path(self._folder, info.name))
        try:
            stat = path.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            known = before if before is not None and self._stamps.get(info.name) == stamp else None
            checked = known.checked_at if known is not None and known.state is State.READY else None
            if known is not None and checked is not None and not too_old(checked, now, info):
                return known
            if index is None or self._stamps.get(info.name) != stamp:
                index = Index(path, *self._key_ids)
                self._stamps[info.name] = stamp
        except (OSError, BadIndex) as error:
            problem = "it was never synced" if isinstance(error, FileNotFoundError) else _phrase(error)
            if index is None:
                return IndexStatus(state=State.MISSING, why=f"the list {info.name} has no usable index: {problem}")
            # the mapping stays valid until this process ends, but is not refreshed
            checked_at = before.checked_at if before else None
            why = f"the index of {info.name} is gone or damaged, and the one before it is in use: {problem}"
            return IndexStatus(state=State.STALE, index=index, checked_at=checked_at, why=why)
        if stat.st_mtime == INCOMPLETE:
            why = f"the index of {info.name} is not complete: one of its sources could never be read"
            return IndexStatus(state=State.STALE, index=index, why=why)
        checked_at = datetime.fromtimestamp(stat.st_mtime, UTC)
        if too_old(checked_at, now, info):
            why = f"the index of {info.name} is stale: its source was last read {checked_at:%Y-%m-%d %H:%M} UTC"
            return IndexStatus(state=State.STALE, index=index, checked_at=checked_at, why=why)
        return IndexStatus(state=State.READY, index=index, checked_at=checked_at)


def _phrase(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
