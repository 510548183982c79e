"""From a list's sources to its index, atomically: the new one is taken into use whole, or the last good one stays.

A source that cannot be read, is empty, has shrunk too far or holds too many bad rows changes nothing and is reported.
Here lives also who is due (the delivery process asks). Never here: reading files of members (sources), telling people.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from smtpguard.lists.declared import ListInfo
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import BadIndex, Index
from smtpguard.lists.shelf import failure_path, index_path
from smtpguard.lists.sources import BadRow, Source, SourceError, Tally, addresses
from smtpguard.lists.sources.opening import opened as opened
from smtpguard.lists.writing import swap, write

MAX_BAD_SHARE = 0.05
MIN_BAD = 3  # bad rows that any file may have
MAX_RETRY_SECONDS = 3600

Progress = Callable[[Tally], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of one list's sync. ``problem`` is a sentence for its owner, "" if all went well: then ``people`` are in use.

    ``bad`` rows of ``rows`` held no address, and ``shown`` names the first of them. ``changed``: other people than before.
    """

    list: str
    at: datetime
    source: str
    people: int
    problem: str = ""
    changed: bool = False
    version: str = ""
    rows: int = 0
    bad: int = 0
    unmailed: int = 0
    shown: tuple[BadRow, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problem


def sync(
    info: ListInfo,
    *,
    folder: Path,
    base: Path,
    digester: Digester,
    now: datetime,
    force: bool = False,
    accept_shrink: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Read the list's sources if they have changed (or by ``force``), and take the new index into use if it can be right.

    ``accept_shrink``: a person has said that so few are right. Blocks while it reads: call it in a thread. Never raises
    for what is wrong with a source or an index.
    """
    path = index_path(folder, info.name)
    current = _current(path, digester.key_id)
    label, tally = "", Tally()

    def report(*, people: int, problem: str = "", changed: bool = False, version: str = "") -> Report:
        _remember(failure_path(folder, info.name), problem)
        return Report(
            list=info.name, at=now, source=label, people=people, problem=problem, changed=changed, version=version,
            rows=tally.rows, bad=tally.bad, unmailed=tally.unmailed, shown=tuple(tally.shown),
        )  # fmt: skip

    try:
        sources = [opened(declaration, base) for declaration in info.members]
        if not sources:
            raise SourceError(f"the list {info.name} declares no members")
        label = ", ".join(source.label for source in sources)
        fingerprint = _fingerprint(sources)
        if current is not None and current.fingerprint == fingerprint and not force:
            os.utime(path, (now.timestamp(), now.timestamp()))
            return report(people=current.people, version=current.version)
        digests = _digests(sources, digester, tally, progress)
        draft = write(path, digests, key_id=digester.key_id, built_at=now, fingerprint=fingerprint)
        try:
            if _fingerprint(sources) != fingerprint:
                raise SourceError(f"{label} changed while it was read")
            new = Index(draft, digester.key_id)
            _judge(info, new.people, None if accept_shrink else current, tally, label)
            os.utime(draft, (now.timestamp(), now.timestamp()))
            swap(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except SourceError as error:
        return report(people=current.people if current else 0, problem=_kept(str(error), current),
                      version=current.version if current else "")  # fmt: skip
    except (OSError, BadIndex) as error:
        why = f"the index of {info.name} cannot be written: {getattr(error, 'strerror', None) or error}"
        return report(people=current.people if current else 0, problem=_kept(why, current),
                      version=current.version if current else "")  # fmt: skip
    return report(people=new.people, changed=current is None or current.version != new.version, version=new.version)


class Refresher:
    """When each list is to be read again: every ``refresh``, and after a failure sooner, then ever later, up to an hour.

    ``folder`` holds the indexes; paths of sources are relative to ``base``. One caller at a time.
    """

    def __init__(self, lists: Mapping[str, ListInfo], *, folder: Path, base: Path, digester: Digester) -> None:
        self._lists = {name: info for name, info in lists.items() if info.members}
        self._folder, self._base, self._digester = folder, base, digester
        self._next: dict[str, datetime] = {}
        self._failures: dict[str, int] = {}

    def due(self, now: datetime) -> Sequence[ListInfo]:
        """Lists to sync now. At the first call all of them: what is unchanged costs a stat."""
        return [info for name, info in self._lists.items() if name not in self._next or self._next[name] <= now]

    def sync(self, info: ListInfo, now: datetime, *, force: bool = False, accept_shrink: bool = False,
             progress: Progress | None = None) -> Report:  # fmt: skip
        """``sync`` of this module, remembered for ``due``. Blocks while it reads: call it in a thread."""
        report = sync(info, folder=self._folder, base=self._base, digester=self._digester, now=now, force=force,
                      accept_shrink=accept_shrink, progress=progress)  # fmt: skip
        failures = self._failures[info.name] = 0 if report.ok else self._failures.get(info.name, 0) + 1
        wait = info.refresh_seconds
        if failures:
            wait = min(wait, 30 * 2 ** min(failures - 1, 10), MAX_RETRY_SECONDS)
        self._next[info.name] = now + timedelta(seconds=wait)
        return report

    def next_at(self) -> datetime | None:
        """The earliest time at which one is due; None if there is nothing to do, or all are due at once."""
        return min(self._next.values(), default=None)


def _current(path: Path, key_id: bytes) -> Index | None:
    """The index in use; a damaged one does not pass for the last good one."""
    try:
        return Index(path, key_id)
    except (OSError, BadIndex):
        return None


def _fingerprint(sources: Sequence[Source]) -> bytes:
    joint = hashlib.blake2b(digest_size=32)
    for source in sources:
        joint.update(source.fingerprint())
    return joint.digest()


def _digests(sources: Sequence[Source], digester: Digester, tally: Tally, progress: Progress | None) -> Iterator[bytes]:
    for source in sources:
        for number, address in enumerate(addresses(source, tally)):
            if progress is not None and not number % 1024:
                progress(tally)
            yield digester.of(address)
        if progress is not None:
            progress(tally)


def _judge(info: ListInfo, people: int, current: Index | None, tally: Tally, label: str) -> None:
    """Raises SourceError if this cannot be the list."""
    if tally.bad > max(MIN_BAD, tally.rows * MAX_BAD_SHARE):
        first = f" (the first: {tally.shown[0]})" if tally.shown else ""
        raise SourceError(f"{label}: {tally.bad} of {tally.rows} rows hold no address{first}")
    if not people:
        raise SourceError(f"{label} holds nobody")
    if people < info.at_least:
        raise SourceError(f"{label} holds {people} people, and the policy expects at least {info.at_least}")
    if current is not None and people < current.people * (1 - info.max_shrink):
        lost = 1 - people / current.people
        raise SourceError(f"{label} holds {people} people, {lost:.0%} fewer than the {current.people} before")


def _remember(path: Path, problem: str) -> None:
    """For whoever looks at the list before it is read again. In a folder that cannot be written the report must do."""
    with contextlib.suppress(OSError):
        if problem:
            path.write_text(problem + "\n", "utf-8")
        else:
            path.unlink(missing_ok=True)


def _kept(problem: str, current: Index | None) -> str:
    return f"{problem}; " + ("the last good index stays in use" if current is not None else "no index is in use")
