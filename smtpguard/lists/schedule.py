"""When each list is due to be read again: used by the delivery process and by a manual sync."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from smtpguard.lists.declared import ListInfo
from smtpguard.lists.digest import Digester
from smtpguard.lists.report import Report
from smtpguard.lists.sources import Stop
from smtpguard.lists.sources.opening import never
from smtpguard.lists.sync import Progress, sync, unfinished

MAX_RETRY_SECONDS = 3600


class Refresher:
    """When each list is to be read again: every ``refresh``; after a failure sooner, then at growing intervals up to an
    hour.

    ``folder`` holds the indexes; paths of sources are relative to ``base``. One caller at a time.
    """

    def __init__(
        self, lists: Mapping[str, ListInfo], *, folder: Path, base: Path, digester: Digester, stop: Stop = never
    ) -> None:
        self._lists = {name: info for name, info in lists.items() if info.members}
        self._folder, self._base, self._digester, self._stop = folder, base, digester, stop
        self._began: dict[str, datetime] = {}
        self._next: dict[str, datetime] = {}
        self._failures: dict[str, int] = {}

    def due(self, now: datetime) -> list[ListInfo]:
        """Lists to sync now. At the first call all of them: an unchanged source costs one check. All too after the
        clock was set back, so that no list waits for a time of the old clock."""
        began, at = self._began, self._next
        return [info for name, info in self._lists.items() if name not in at or not began[name] <= now < at[name]]

    def sync(self, info: ListInfo, now: datetime, *, force: bool = False, accept_shrink: bool = False,
             progress: Progress | None = None) -> Report:  # fmt: skip
        """As sync.sync, recorded for ``due``. Blocks while it reads: call it in a thread."""
        report = sync(info, folder=self._folder, base=self._base, digester=self._digester, now=now, force=force,
                      accept_shrink=accept_shrink, progress=progress, stop=self._stop)  # fmt: skip
        failures = self._failures[info.name] = 0 if report.ok else self._failures.get(info.name, 0) + 1
        wait = info.refresh_seconds
        if failures:
            wait = min(wait, 30 * 2 ** min(failures - 1, 10), MAX_RETRY_SECONDS)
        self._began[info.name], self._next[info.name] = now, now + timedelta(seconds=wait)
        return report

    def unfinished(self, info: ListInfo, began: datetime, now: datetime) -> Report:
        """The report of a sync that began then and has not ended."""
        return unfinished(info, began, folder=self._folder, base=self._base, digester=self._digester, now=now)

    def next_at(self) -> datetime | None:
        """The earliest time at which one is due; None if there is nothing to do, or all are due at once."""
        return min(self._next.values(), default=None)
