"""Log and count mail that is answered without a verdict: one line and one count for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog

from smtpguard.mail.reply import RECALLED
from smtpguard.processes.numbers import PUT_OFF
from smtpguard.wire.turnedaway import TurnedAway, Why

_USUAL = frozenset(
    {
        Why.RECIPIENT_REFUSED,
        Why.BAD_ADDRESS,
        Why.SENDER_REFUSED,
        Why.TOO_MANY_RECIPIENTS,
        Why.OTHER_ROUTE,
        Why.TOO_LARGE,
        Why.BAD_CONTENT,
    }
)
"""Errors of the client: logged as information, not as a warning."""
_CLIENTS = frozenset({Why.TOO_SLOW, Why.TOO_MANY_RECIPIENTS, Why.OTHER_ROUTE, Why.RATE_LIMIT, Why.GAVE_UP})
"""Answered 4xx, but not because of the guard or the relay."""


class Turned:
    """Of one process. ``counts``: for processes.numbers."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("smtpguard")
        self._counts: Counter[Why] = Counter()
        self._put_off = 0

    def __call__(self, mail: TurnedAway) -> None:
        self._counts[mail.why] += 1
        self._put_off += _put_off(mail)
        if mail.why is Why.RATE_LIMIT:  # logged in sum, once a minute (ratelimits)
            return
        tell = self._log.info if mail.why in _USUAL else self._log.warning
        tell("turned-away", **fields(mail))

    @property
    def counts(self) -> Mapping[str, int]:
        return {f"turned-away {why}": count for why, count in self._counts.items()} | {PUT_OFF: self._put_off}


def _put_off(mail: TurnedAway) -> bool:
    """Whether it was answered 4xx for all its recipients, and the guard has not counted that answer itself."""
    if mail.reply is None or mail.reply.code // 100 != 4 or mail.refused < mail.recipients:
        return False
    return mail.why not in _CLIENTS and (mail.why is not Why.UNDECIDED or mail.reply is RECALLED)


def fields(mail: TurnedAway) -> dict[str, Any]:
    """The fields of the line, without unknown ones."""
    shown: dict[str, Any] = {
        "why": mail.why.value,
        "client": mail.client,
        "listener": mail.listener,
    }
    if mail.reply is not None:
        shown["reply"] = str(mail.reply)
    if mail.queue_id:
        shown["queue_id"] = mail.queue_id
    if mail.message_id:
        shown["message_id"] = mail.message_id
    if mail.reverse_path is not None:
        shown |= {"reverse_path": mail.reverse_path, "recipients": mail.recipients, "refused": mail.refused}
    return shown
