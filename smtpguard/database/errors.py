"""Errors of the store: it could not do what it was asked, or the caller has to do something first."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

OUTAGE_SECONDS = 300.0
"""Between two log lines in the same words about one outage."""
MOST_REASONS = 10
"""The most different reasons in that time: some have words of a client in them."""


class StoreError(Exception):
    """The store could not do it; nothing was written, or it is unknown whether anything was."""


class PolicyMoved(StoreError):
    """Another policy is in force than the item was planned under: plan again."""


class ContentMissing(StoreError):
    """The content that the hold refers to is not kept (swept meanwhile): keep it again."""


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


def no_space(error: OSError) -> bool:
    """Whether the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Outage:
    """Logs what goes wrong again and again, such as a store that is away: when it begins, at most every five minutes in the
    same words while it lasts, and when it is over. ``what``: the beginning of each line."""

    log: logging.Logger
    what: str
    monotonic: Callable[[], float] = time.monotonic
    level: int = logging.WARNING
    told: dict[str, float] = field(default_factory=dict)
    """When each reason was logged. Shared by those who wait for the same: one of them says it, and that it is over."""
    _since: float | None = None
    _said: bool = False  # whether a line of this outage is in the log

    def tell(self, error: Exception | str, *, trace: bool = False) -> None:
        """``trace``: with the traceback of the exception that is handled, which nobody foresaw."""
        now, why = self.monotonic(), str(error) or type(error).__name__
        self._since = now if self._since is None else self._since
        for each, at in [*self.told.items()]:  # a copy: several threads may tell
            if now - at >= OUTAGE_SECONDS:
                self.told.pop(each, None)
        if why not in self.told and len(self.told) < MOST_REASONS:
            self.told[why], self._said = now, True
            self.log.log(self.level, "%s: %s", self.what, why, exc_info=trace)

    def over(self) -> None:
        """It went well. One that comes and goes is logged as seldom as one that lasts."""
        if self._since is not None and self._said:
            self.log.log(self.level, "%s: over, after %.0f s", self.what, self.monotonic() - self._since)
        self._since, self._said = None, False
