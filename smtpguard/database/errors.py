"""Errors of the store, and the log lines about an error that lasts."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from smtpguard.locale.phrase import Phrase, Said

OUTAGE_SECONDS = 300.0
"""The time between two log lines in the same words about one outage."""
MOST_REASONS = 10
"""The most reasons that are logged in that time. Some contain words of a client, and so are many."""


class StoreError(Exception):
    """The store could not do it; nothing was written, or it is unknown whether anything was."""


class PolicyMoved(StoreError):
    """Another policy is in force than the item was planned under: plan again."""


class ContentMissing(StoreError):
    """The content that the hold refers to was swept: store it again."""


class Busy(StoreError):
    """2,000 items are waiting, or this one waited 20 s."""


class Full(StoreError):
    """No space, or the quota of held content is used up."""


class Unavailable(StoreError):
    """The database cannot be reached, or answered with an error."""


class CommitUnknown(Unavailable):
    """The database was lost, or did not answer in time, while it was written: the data may have been written or not."""


class Unusable(Unavailable):
    """The database answers, but is unusable as it is: trying again would not help."""


class PolicyUnreadable(Unavailable):
    """This version cannot read the policy in force: nothing is decided until another is in force."""


class Gone(StoreError):
    """The client disconnected before its batch: nothing was decided or written."""


def reason(error: Exception) -> Said:
    """Return what an error says, as a phrase if it is one."""
    said = error.args[0] if error.args else None
    return said if isinstance(said, Phrase) else str(error)


def no_space(error: OSError) -> bool:
    """Return whether the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Outage:
    """Logs an error that lasts, such as a store that is away: its beginning, the same reason at most every five minutes, and its
    end. ``what``: the beginning of each line."""

    log: logging.Logger
    what: str
    monotonic: Callable[[], float] = time.monotonic
    level: int = logging.WARNING
    logged: dict[str, float] = field(default_factory=dict)
    """When each reason was logged. Outages with the same cause share it: then one of them logs a reason, and its end."""
    _since: float | None = None
    _is_logged: bool = False  # whether a line of this outage is in the log

    def report(self, error: Exception | str, *, trace: bool = False) -> None:
        """Log an error, unless its reason was logged lately. ``trace``: log the traceback of the handled exception, which was
        not foreseen."""
        now, why = self.monotonic(), str(error) or type(error).__name__
        self._since = now if self._since is None else self._since
        for each, at in [*self.logged.items()]:  # a copy: several threads may report
            if now - at >= OUTAGE_SECONDS:
                self.logged.pop(each, None)
        if why not in self.logged and len(self.logged) < MOST_REASONS:
            self.logged[why], self._is_logged = now, True
            self.log.log(self.level, "%s: %s", self.what, why, exc_info=trace)

    def end(self) -> None:
        """Log the end of an outage that was logged. An error that comes and goes is logged as seldom as one that lasts."""
        if self._since is not None and self._is_logged:
            self.log.log(self.level, "%s: over, after %.0f s", self.what, self.monotonic() - self._since)
        self._since, self._is_logged = None, False
