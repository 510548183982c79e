"""Errors of the store: it could not do what it was asked, or the caller has to do something first."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

OUTAGE_SECONDS = 300.0
"""Between two log lines of one thing that waits for the store."""


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
    """Logs why ``what`` waits for the store. It is tried many times in an outage: a line in the same words follows after
    five minutes at the earliest."""

    log: logging.Logger
    what: str
    monotonic: Callable[[], float] = time.monotonic
    _told: str = ""
    _told_at: float = 0.0

    def tell(self, error: Exception) -> None:
        now, why = self.monotonic(), str(error) or type(error).__name__
        if why != self._told or now - self._told_at >= OUTAGE_SECONDS:
            self._told, self._told_at = why, now
            self.log.warning("%s: waiting for the store: %s", self.what, why)
