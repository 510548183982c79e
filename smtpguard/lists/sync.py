"""Build a list's index from its sources, atomically: the new one replaces the old as a whole, or the last good one
stays. Say when each list is due, and answer offline questions about indexes: which source has an address, which
addresses two lists share.

Each source has an index of its own. The list's index is the same file if there is one source, and the merge of all of
them if there are several. A source that cannot be read, is empty, has shrunk too far or has too many bad rows keeps its
last good index; the others are refreshed, since a person who was added to one of them this morning is a customer
even if another one failed. The list is as old as the source that was read the longest ago. A list with a source
that was never read keeps the index that it has, or else gets one of the others, which is never taken for complete.

The result of a sync, and of each source, is written beside the index for later readers: one small JSON file a list. It
names sources, lines and reasons, and no address.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import combinations
from pathlib import Path

from smtpguard.config.statefiles import hand_over, replace_file, swap
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import (
    INCOMPLETE,
    BadIndex,
    Index,
    changed,
    index_path,
    report_path,
    sources_folder,
    too_old,
    walk,
)
from smtpguard.lists.members import Members
from smtpguard.lists.sources import (
    BadRow,
    Source,
    SourceError,
    Stop,
    Tally,
    cell_address,
    log_unexpected,
    why_implausible,
)
from smtpguard.lists.sources.opening import never, opened
from smtpguard.lists.writing import build, link, merge
from smtpguard.locale.phrase import N_, Listed, Moment, Phrase, Said
from smtpguard.mail.address import BadAddress
from smtpguard.mail.codec import Codec

DRAFT_SECONDS = 86_400
"""The age at which a draft belongs to a sync that died."""
MAX_RETRY_SECONDS = 3600
_LAST = N_("the last good index stays in use")
_NOTHING = N_("no index is in use")


class News(enum.Enum):
    """What a sync found new since the one before."""

    REPLACED = "replaced"  # the members in use have changed
    FAILED = "failed"  # an outage has begun
    OTHERWISE = "otherwise"  # the outage goes on, with another problem
    STALE = "stale"  # the index has become too old
    WELL = "well"  # an outage has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """The report of one source. It had ``people`` when it was last read, at ``read_at``; it was found unchanged at ``checked_at``.
    ``problem``: why it cannot be used now, "" if it can.

    ``bad`` rows of ``rows`` had no address, and ``shown`` names the first of them; ``unmailed`` are those of people to
    whom the list server does not send.
    """

    key: str
    label: str
    people: int = 0
    read_at: datetime | None = None
    checked_at: datetime | None = None
    problem: Said = ""
    rows: int = 0
    bad: int = 0
    unmailed: int = 0
    ignored: int = 0
    shown: tuple[BadRow, ...] = ()

    def with_counts(self, tally: Tally) -> SourceReport:
        """Return this report with the counts of a pass."""
        return replace(self, rows=tally.rows, bad=tally.bad, unmailed=tally.unmailed, ignored=tally.ignored,
                       shown=tuple(tally.shown))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of one list's sync. ``problem``: a sentence for its owner, "" if there is none; ``failing_since``: when the
    outage began.

    ``people`` are in use, even after a failure. All sources were found right at ``checked_at``; ``stale``: that is too long ago,
    or never was, for a "no" to be relied on. ``ended``: the beginning of an outage that has ended with this sync. ``before``: the
    version that this sync replaced, "" for none; ``added``, ``removed``: how many people came and left with it. ``host``: whose
    index it is about; each host has its own.
    """

    list: str
    at: datetime
    people: int
    sources: tuple[SourceReport, ...] = ()
    problem: Said = ""
    failing_since: datetime | None = None
    checked_at: datetime | None = None
    stale: bool = False
    version: str = ""
    news: frozenset[News] = frozenset()
    ended: datetime | None = None
    before: str = ""
    added: int | None = None
    removed: int | None = None
    host: str = field(default_factory=socket.gethostname)

    @property
    def ok(self) -> bool:
        return not self.problem

    @property
    def changed(self) -> bool:
        """Return whether this sync changed the members."""
        return News.REPLACED in self.news

    @property
    def source(self) -> str:
        return ", ".join(source.label for source in self.sources)

    @property
    def rows(self) -> int:
        return sum(source.rows for source in self.sources)

    @property
    def bad(self) -> int:
        return sum(source.bad for source in self.sources)

    @property
    def unmailed(self) -> int:
        return sum(source.unmailed for source in self.sources)

    @property
    def shown(self) -> tuple[BadRow, ...]:
        return tuple(row for source in self.sources for row in source.shown)

    def after(self, before: Report | None, *, changed: bool) -> Report:
        """Return this report with what is new since the one ``before``, and since when an outage lasts."""
        failing = before.failing_since if before is not None else None
        news = {News.REPLACED} if changed else set()
        if self.problem and failing is None:
            news.add(News.FAILED)
        elif self.problem and before is not None and before.problem != self.problem:
            news.add(News.OTHERWISE)
        if self.stale and not (before is not None and before.stale):
            news.add(News.STALE)
        if self.ok and failing is not None:
            news.add(News.WELL)
        return replace(
            self,
            failing_since=(failing or self.at) if self.problem else None,
            ended=None if self.problem else failing,
            news=frozenset(news),
        )

    def source_report(self, key: str) -> SourceReport | None:
        return next((source for source in self.sources if source.key == key), None)


_REPORTS = Codec(Report)


def store_report(folder: Path, report: Report) -> None:
    """Replace the stored report of a list, without what is news only right after the sync.

    A folder that cannot be written is ignored: then there is only the report that the sync returns.
    """
    kept = replace(report, news=frozenset(), ended=None, before="", added=None, removed=None)
    with contextlib.suppress(OSError):
        replace_file(report_path(folder, report.list), _REPORTS.dumps(kept), durable=False)


def stored_report(folder: Path, name: str) -> Report | None:
    """Return the stored report of a list's last sync, None if there is none, or it cannot be read."""
    try:
        return _REPORTS.loads(report_path(folder, name).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return None


Progress = Callable[[Tally], None]


def source_key(members: Members) -> str:
    """Return the key of a source, by what is read, not by what is expected of it: another limit makes no other source."""
    return hashlib.blake2b(json.dumps(members.what(), sort_keys=True).encode(), digest_size=8).hexdigest()


def source_path(folder: Path, name: str, key: str) -> Path:
    return sources_folder(folder, name) / f"{key}.index"


@dataclass(slots=True)
class _Part:
    """A source, and its index if it has a valid one."""

    report: SourceReport
    path: Path
    index: Index | None


@dataclass(frozen=True)
class _ListSync:
    """One sync of one list."""

    info: ListInfo
    folder: Path
    base: Path
    digester: Digester
    now: datetime
    force: bool = False
    accept_shrink: bool = False
    progress: Progress | None = None
    stop: Stop = never

    def report(self) -> Report:
        if not self.info.members:
            none = Phrase("the list {name} declares no members; no index is in use", name=self.info.name)
            return Report(list=self.info.name, at=self.now, people=0, problem=none)
        parts = [self._synced_part(members) for members in self.info.members]
        problems = [part.report.problem for part in parts if part.report.problem]
        old = self._sound_index(self._path)
        new = old
        try:
            new = self._joined(parts, old)
        except (OSError, BadIndex, SourceError) as error:
            problems.append(self._why(error))
        self._tidy(parts)
        problem: Said = ""
        if problems:
            why = Listed(tuple(dict.fromkeys(problems)), "; ")
            problem = Phrase("{why}; {kept}", why=why, kept=_in_use(parts, old, new))
        is_new = new is not None and (old is None or old.version != new.version)
        report = self._reported(tuple(part.report for part in parts), new, problem, changed=is_new)
        if is_new and new is not None and old is not None:
            added, removed = changed(old, new)
            report = replace(report, before=old.version, added=added, removed=removed)
        return report

    def unfinished(self, began: datetime) -> Report:
        """Return the report of a list that is still being read, by a thread that cannot be stopped: for example from a server that
        has gone away."""
        index = self._sound_index(self._path)
        problem = Phrase(
            "{name} has been read since {time}, without an end; {kept}",
            name=self.info.name,
            time=Moment(began),
            kept=Phrase(_LAST if index is not None else _NOTHING),
        )
        return self._reported(self._before.sources if self._before is not None else (), index, problem, changed=False)

    def _reported(
        self, sources: tuple[SourceReport, ...], index: Index | None, problem: Said, *, changed: bool
    ) -> Report:
        checked = self._checked_at() if index is not None else None
        report = Report(
            list=self.info.name,
            at=self.now,
            people=index.people if index else 0,
            sources=sources,
            problem=problem,
            checked_at=checked,
            stale=checked is None or too_old(checked, self.now, self.info),
            version=index.version if index else "",
        )
        # the latest: while it was read, it may have been reported as unfinished
        return report.after(stored_report(self.folder, self.info.name), changed=changed)

    @cached_property
    def _before(self) -> Report | None:
        return stored_report(self.folder, self.info.name)

    @property
    def _path(self) -> Path:
        return index_path(self.folder, self.info.name)

    def _checked_at(self) -> datetime | None:
        at = self._path.stat().st_mtime
        return datetime.fromtimestamp(at, UTC) if at != INCOMPLETE else None

    # one source

    def _synced_part(self, members: Members) -> _Part:
        key = source_key(members)
        path = source_path(self.folder, self.info.name, key)
        current = self._sound_index(path)
        known = self._before.source_report(key) if self._before is not None else None
        part = _Part(known or SourceReport(key=key, label=source_label(members, self.base)), path, current)
        tally = Tally()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            hand_over(path.parent, self.folder)
            with closing(opened(members, self.base, state=path.parent, stop=self.stop)) as source:
                part.report = replace(part.report, label=members.label_for(source.label), problem="")
                failed = known is not None and known.problem  # its counts are those of that read
                if failed or not self._same(source, part):
                    self._read(source, part, tally, members)
        except (SourceError, OSError, BadIndex) as error:
            # the counts are of this failed read, not of the last good one
            part.report = replace(part.report, problem=self._why(error)).with_counts(tally)
        except Exception as error:  # an error of a library or ours is an outage too
            part.report = replace(part.report, problem=log_unexpected(part.report.label, error)).with_counts(tally)
        return part

    def _same(self, source: Source, part: _Part) -> bool:
        """Return whether the source says that nothing has changed since it was last read. Then it counts as checked now."""
        if part.index is None or self.force or part.index.header.key_id != self.digester.key_id:
            return False  # an index of the older form is built again
        if part.index.header.fingerprint != source.fingerprint():
            return False
        self._touch(part.path, self.now.timestamp())
        part.report = replace(part.report, people=part.index.people, checked_at=self.now)
        return True

    def _read(self, source: Source, part: _Part, tally: Tally, members: Members) -> None:
        """Read a source and put its new index in place. Raises SourceError, OSError and BadIndex; then the old index stays."""
        fingerprint = source.fingerprint()
        label, keys = part.report.label, self._keys(source, part.report.label, tally)
        draft = build(part.path, keys, self.digester, built_at=self.now, fingerprint=fingerprint)
        try:
            if source.fingerprint() != fingerprint:
                raise SourceError.saying("{name} changed while it was read", name=label)
            new = Index(draft, self.digester.key_id)
            if wrong := why_implausible(label, new.people, tally, members):
                raise SourceError(wrong[0])
            self._check_size(label, new.people, part.index, members.max_shrink)
            self._touch(draft, self.now.timestamp())
            if (newer := self._newer(part)) is not None:
                new = newer
            else:
                swap(draft, part.path)
        finally:
            draft.unlink(missing_ok=True)
        part.index, at = new, max(self.now, new.header.built_at)
        part.report = replace(part.report, people=new.people, read_at=at, checked_at=at).with_counts(tally)

    def _newer(self, part: _Part) -> Index | None:
        """Return the index that another sync, which began after this one, has put in place meanwhile; None if there is none."""
        there = self._sound_index(part.path)
        if there is None or (part.index is not None and there.header == part.index.header):
            return None
        return there if there.header.built_at > self.now else None

    def _keys(self, source: Source, label: str, tally: Tally) -> Iterator[str]:
        """Yield the canonical key of every member, and count rows without an address in ``tally``."""
        plain_key, delimiters, progress = self.digester.plain_key, self.digester.delimiters, self.progress
        for place, text in source.cells(tally):
            if not tally.rows & 0xFFF:
                if self.stop():
                    raise SourceError.saying("{name}: {why}", name=label, why=Phrase("stopped before its end"))
                if progress is not None:
                    progress(tally)
            key = plain_key(text)
            if key is None:
                try:
                    key = cell_address(text).canonical(delimiters)
                except BadAddress as error:
                    tally.reject(place, str(error))
                    continue
            yield key
        if progress is not None:
            progress(tally)

    def _check_size(self, label: str, people: int, current: Index | None, max_shrink: float) -> None:
        """Raise SourceError if an index would lose more than the share ``max_shrink`` of its people."""
        if current is not None and not self.accept_shrink and people < current.people * (1 - max_shrink):
            lost = 1 - people / current.people
            raise SourceError.saying(
                "{name} holds {people}, {share} fewer than the {before} before (to accept it: {command})",
                name=label,
                people=Phrase.counted("{n} person", "{n} people", people),
                share=f"{lost:.0%}",
                before=current.people,
                command=f"smtpguard lists sync {self.info.name} --accept-shrink",
            )

    # the list

    def _joined(self, parts: list[_Part], old: Index | None) -> Index | None:
        """Put the index of the list in place if it has changed, and return it. Raises SourceError, OSError and BadIndex."""
        # opened anew: another sync may have put newer ones in place
        there = [(Index(part.path, *self.digester.key_ids), part.path) for part in parts if part.index is not None]
        complete = len(there) == len(parts)
        if not there or (not complete and old is not None):
            return old
        indexes = [index for index, _ in there]
        if len(parts) > 1:
            versions = "".join(sorted(index.version for index in indexes))
            fingerprint = hashlib.blake2b(versions.encode(), digest_size=32).digest()
            forms = {index.header.key_id for index in indexes}
            # with a part of the older form, which look-ups try too, it has that form; it is built again once all are read
            key_id = next(iter(forms - {self.digester.key_id}), self.digester.key_id)
            if old is None or old.header.fingerprint != fingerprint or old.header.key_id != key_id:
                draft = merge(self._path, indexes, key_id=key_id, built_at=self.now, fingerprint=fingerprint)
                old = self._into_use(draft, old)
        elif old is None or not self._path.samefile(there[0][1]):
            old = self._into_use(link(there[0][1], self._path), old)
        checked = min(path.stat().st_mtime for _, path in there)
        self._touch(self._path, checked if complete else INCOMPLETE)
        return old

    def _into_use(self, draft: Path, old: Index | None) -> Index:
        try:
            new = Index(draft, *self.digester.key_ids)
            self._check_size(f"the list {self.info.name}", new.people, old, self.info.max_shrink)
            swap(draft, self._path)
        finally:
            draft.unlink(missing_ok=True)
        return new

    def _sound_index(self, path: Path) -> Index | None:
        """Return the index in use, None if it is damaged: it is not used as the last good one."""
        try:
            index = Index(path, *self.digester.key_ids)
            index.verify()
        except (OSError, BadIndex):
            return None
        return index

    def _why(self, error: Exception) -> Said:
        if isinstance(error, SourceError):
            return error.said
        why = str(getattr(error, "strerror", None) or error)
        return Phrase("the index of {name} cannot be written: {why}", name=self.info.name, why=why)

    def _touch(self, path: Path, at: float) -> None:
        """Set the time when an index's sources were last found unchanged."""
        if path.stat().st_mtime != at:
            os.utime(path, (at, at))

    def _tidy(self, parts: list[_Part]) -> None:
        """Delete indexes of sources that the policy no longer declares, and drafts of syncs that died."""
        declared = {part.path for part in parts}
        with suppress(OSError):
            sources = sources_folder(self.folder, self.info.name)
            for path in sources.glob("*.index"):
                if path not in declared and all(part.index is not None for part in parts):
                    path.unlink()
            for folder in (self.folder, sources):
                for draft in (*folder.glob(".*.index.*"), *folder.glob(".*.json.*")):
                    found = draft.stat()
                    # a hard link has the mtime of its index; it may belong to a running sync of another list
                    made = found.st_mtime if found.st_nlink == 1 else found.st_ctime
                    if made < time.time() - DRAFT_SECONDS:
                        draft.unlink()


def source_label(members: Members, base: Path) -> str:
    """Return a source's label without reading the source. If it cannot be opened, its declaration is the label, without the query of a
    url, which may contain unknown secrets."""
    try:
        with closing(opened(members, base)) as source:
            return members.label_for(source.label)
    except (SourceError, OSError):
        return members.label_for(str(getattr(members, members.source)).partition("?")[0])


def _in_use(parts: list[_Part], old: Index | None, new: Index | None) -> Phrase:
    """Return which index is in use after a problem."""
    if new is None:
        return Phrase(_NOTHING)
    if len(parts) == 1:
        return Phrase(_LAST)
    if all(part.index is not None for part in parts):
        return Phrase("its last good members stay in use, and its other sources are fresh")
    return Phrase(_LAST) if old is not None else Phrase("an index of its other sources is in use")


def sources_with(
    info: ListInfo, digests: Collection[bytes], *, folder: Path, base: Path, key_ids: Sequence[bytes]
) -> tuple[str, ...]:
    """Return the labels of this list's sources that have this person, by any of ``digests``. There are none if no source has an
    index of its own."""
    report = stored_report(folder, info.name)
    names = []
    for members in info.members:
        key = source_key(members)
        try:
            index = Index(source_path(folder, info.name, key), *key_ids)
        except (OSError, BadIndex):
            continue
        if any(digest in index for digest in digests):
            known = report.source_report(key) if report is not None else None
            names.append(known.label if known is not None else source_label(members, base))
    return tuple(names)


def overlaps(indexes: Mapping[str, Index]) -> Mapping[tuple[str, str], int]:
    """Return how many people each two lists have in common. Memory holds one octet's range of all indexes at a time."""
    found = dict.fromkeys(combinations(indexes, 2), 0)
    for arrays in walk(indexes.values()):
        once: set[int] = set()
        twice: set[int] = set()
        for numbers in arrays:
            these = set(numbers)
            twice |= once & these
            once |= these
        if not twice:
            continue
        shared = {name: twice.intersection(numbers) for name, numbers in zip(indexes, arrays, strict=True)}
        for one, other in found:
            found[one, other] += len(shared[one] & shared[other])
    return found


class Refresher:
    """The schedule of syncs. Each list is read every ``refresh``; after a failure sooner, then at growing intervals up to an hour.

    ``folder`` holds the indexes; paths of sources are relative to ``base``. One caller at a time.
    """

    def __init__(
        self, lists: Mapping[str, ListInfo], *, folder: Path, base: Path, digester: Digester, stop: Stop = never
    ) -> None:
        self._lists = {name: info for name, info in lists.items() if info.members}
        self._folder, self._base, self._digester, self._stop = folder, base, digester, stop
        self._waits: dict[str, tuple[datetime, datetime]] = {}  # from, until
        self._failures: dict[str, int] = {}

    def due(self, now: datetime) -> list[ListInfo]:
        """Return the lists to sync now. At the first call these are all: an unchanged source costs one check. They are all, too, after
        the clock was set back, so that no list waits for a time of the old clock."""
        waiting = {name for name, (begun, until) in self._waits.items() if begun <= now < until}
        return [info for name, info in self._lists.items() if name not in waiting]

    def sync(self, info: ListInfo, now: datetime, *, force: bool = False, accept_shrink: bool = False,
             progress: Progress | None = None) -> Report:  # fmt: skip
        """Read the sources that have changed (with ``force``, all), and take the new index into use if it is plausible.
        ``accept_shrink``: a person has confirmed the smaller number. Blocks while it reads: call it in a thread. Never
        raises for a problem of a source or an index.
        """
        how = _ListSync(info, self._folder, self._base, self._digester, now, force, accept_shrink, progress, self._stop)
        report = how.report()
        if report.ok or not self._stop():  # a cancelled sync is no outage
            store_report(self._folder, report)
        failures = self._failures[info.name] = 0 if report.ok else self._failures.get(info.name, 0) + 1
        wait = info.refresh_seconds
        if failures:
            wait = min(wait, 30 * 2 ** min(failures - 1, 10), MAX_RETRY_SECONDS)
        self._waits[info.name] = now, now + timedelta(seconds=wait)
        return report

    def unfinished(self, info: ListInfo, began: datetime, now: datetime) -> Report:
        """Return the report of a sync that began then and has not ended."""
        report = _ListSync(info, self._folder, self._base, self._digester, now).unfinished(began)
        store_report(self._folder, report)
        return report
