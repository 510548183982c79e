"""The result of a list's sync, and of each of its sources. The process that syncs writes it beside the index, for later
readers.

It is one small JSON file a list. It names sources, lines and reasons, and no address.
"""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from smtpguard.config.statefiles import replace_file
from smtpguard.lists.index import report_path
from smtpguard.lists.sources import BadRow, Tally
from smtpguard.locale.phrase import Said
from smtpguard.mail.codec import Codec


class News(enum.Enum):
    """Changes that a sync found since the one before."""

    REPLACED = "replaced"  # the members in use have changed
    FAILED = "failed"  # an outage has begun
    OTHERWISE = "otherwise"  # the outage goes on, with another problem
    STALE = "stale"  # the index has become too old
    WELL = "well"  # an outage has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """One source. It had ``people`` when it was last read, at ``read_at``; it was found unchanged at ``checked_at``.
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

    def counted(self, tally: Tally) -> SourceReport:
        return replace(self, rows=tally.rows, bad=tally.bad, unmailed=tally.unmailed, ignored=tally.ignored,
                       shown=tuple(tally.shown))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One list. ``problem`` is a sentence for its owner, "" if there is none; ``failing_since``: when the outage began.
    ``people`` are in use, even after a failure; all sources were found right at ``checked_at``; ``stale``: too long
    ago, or never, for a "no" to be relied on. ``ended``: the beginning of an outage that has ended with this sync.
    ``before``: the version that this sync replaced, "" for none; ``added``, ``removed``: how many people came and left
    with it."""

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

    @property
    def ok(self) -> bool:
        return not self.problem

    @property
    def changed(self) -> bool:
        """Whether this sync changed the members."""
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
        """The report with its news, and since when."""
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

    def of(self, key: str) -> SourceReport | None:
        return next((source for source in self.sources if source.key == key), None)


_REPORTS = Codec(Report)


def keep(folder: Path, report: Report) -> None:
    """Replace the stored report, without what is news only right after the sync. If the folder cannot be written, only
    the returned one exists."""
    kept = replace(report, news=frozenset(), ended=None, before="", added=None, removed=None)
    with contextlib.suppress(OSError):
        replace_file(report_path(folder, report.list), _REPORTS.dumps(kept), durable=False)


def latest(folder: Path, name: str) -> Report | None:
    """The last sync's report, None if there is none, or it cannot be read."""
    try:
        return _REPORTS.loads(report_path(folder, name).read_text())
    except (OSError, ValueError, TypeError):
        return None
