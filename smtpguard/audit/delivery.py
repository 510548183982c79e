"""The status of one recipient of what is sent on, what moves it, and what the journal's entries on it add up to.

The one table that the store, the delivery worker, the report and the pages go by. An attempt is written down before the relay is
spoken to. From then on the relay may have the message for that recipient (RFC 1047), whatever becomes of the process, the
connection or a freeze; only an answer, or that the final dot was certainly not sent, moves it on.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class DeliveryStatus(enum.Enum):
    """What became of it for one recipient, as far as is known."""

    PENDING = "pending"  # not sent: it waits for its attempt, or the last one was certainly not taken
    ATTEMPTED = (
        "attempted"  # in doubt: an attempt has begun, and of one at least nobody knows whether the relay took it
    )
    DELIVERED = "delivered"  # the relay's 250, or a person says so
    REFUSED = "refused"  # certainly not taken, and not tried again
    CANCELLED = "cancelled"  # people took it back before it went


class DeliveryEvent(enum.Enum):
    """What can happen. ``earlier`` (see ``after``) tells of the attempts before this one."""

    BEGIN = "begin"  # the mark, committed before the relay is spoken to
    TAKE = "take"  # the relay said 2yz
    PUT_OFF = "put off"  # certainly not taken: 4yz, or the dot was not sent
    REFUSE = "refuse"  # certainly not taken, and there is no other attempt
    LOSE = "lose"  # no answer came
    CANCEL = "cancel"  # people took it back
    CONFIRM = "confirm"  # a person says that it was sent
    REPEAT = "repeat"  # a person says to send it again


TRANSITIONS: Mapping[tuple[DeliveryStatus, DeliveryEvent], DeliveryStatus] = {
    (DeliveryStatus.PENDING, DeliveryEvent.BEGIN): DeliveryStatus.ATTEMPTED,
    (DeliveryStatus.PENDING, DeliveryEvent.TAKE): DeliveryStatus.DELIVERED,
    (DeliveryStatus.PENDING, DeliveryEvent.PUT_OFF): DeliveryStatus.PENDING,  # before any attempt: a freeze stood, say
    (DeliveryStatus.PENDING, DeliveryEvent.REFUSE): DeliveryStatus.REFUSED,  # there is nothing that could be sent
    (DeliveryStatus.PENDING, DeliveryEvent.CANCEL): DeliveryStatus.CANCELLED,
    (DeliveryStatus.ATTEMPTED, DeliveryEvent.BEGIN): DeliveryStatus.ATTEMPTED,
    (DeliveryStatus.ATTEMPTED, DeliveryEvent.TAKE): DeliveryStatus.DELIVERED,
    (DeliveryStatus.ATTEMPTED, DeliveryEvent.PUT_OFF): DeliveryStatus.PENDING,
    (DeliveryStatus.ATTEMPTED, DeliveryEvent.REFUSE): DeliveryStatus.REFUSED,
    (DeliveryStatus.ATTEMPTED, DeliveryEvent.LOSE): DeliveryStatus.ATTEMPTED,
    (
        DeliveryStatus.ATTEMPTED,
        DeliveryEvent.CANCEL,
    ): DeliveryStatus.ATTEMPTED,  # who may have it may have it; it is not tried again
    (DeliveryStatus.ATTEMPTED, DeliveryEvent.CONFIRM): DeliveryStatus.DELIVERED,
    (
        DeliveryStatus.ATTEMPTED,
        DeliveryEvent.REPEAT,
    ): DeliveryStatus.ATTEMPTED,  # the first may have arrived all the same
}
"""What is not here cannot happen. Delivered, refused and cancelled are ends."""

_CERTAIN_OF_THIS_ATTEMPT = frozenset({DeliveryEvent.PUT_OFF, DeliveryEvent.REFUSE})


class NotPossible(ValueError):
    """A status that this event cannot happen to."""


def after(status: DeliveryStatus, event: DeliveryEvent, *, earlier: int = 0) -> DeliveryStatus:
    """The next status. ``earlier``: of how many other attempts than this one nobody knows how they ended; as long as there is any,
    that this one was not taken does not clear the doubt. Raises NotPossible."""
    to = TRANSITIONS.get((status, event))
    if to is None:
        raise NotPossible(f"a recipient that is {status.value} cannot {event.value}")
    if earlier and event in _CERTAIN_OF_THIS_ATTEMPT:
        return DeliveryStatus.ATTEMPTED
    return to


class Further(enum.Enum):
    """What is still to be done about a recipient."""

    TRY = "try"  # an attempt, once its time has come
    ASK = "ask"  # if no answer has come by its time, people say whether it was sent
    ANSWER = (
        "answer"  # people took it back while an attempt was being made: its answer is written if it comes by its time
    )
    NOTHING = "nothing"


@dataclass(slots=True, kw_only=True)
class Account:
    """What the journal's entries on one release, or on one colleagues' part, add up to, in people. ``attempted``: in doubt, and not
    settled yet; ``doubted``: in doubt for good; ``waiting``: put off, and to be tried again. ``spared``: taken back. ``vague``: an earlier version did not write down how many
    people an attempt was for. ``over``: nobody is to be tried any more."""

    delivered: int = 0
    refused: int = 0
    attempted: int = 0
    doubted: int = 0
    spared: int | None = None
    vague: bool = False
    over: bool = False
    waiting: int = 0
    _begun: object = field(default=None, repr=False)
    _again: bool = field(default=False, repr=False)
    _unsaid: bool = field(default=False, repr=False)

    def add(self, data: Mapping[str, Any]) -> None:
        """An entry of the worker, in order: the mark of an attempt, or what came of it for some of the recipients."""
        people = int(data.get("people", data.get("recipients", 0)))
        match data.get("outcome"):
            case "attempt":
                self._unsaid |= "people" not in data
                self._begun, self._again = data.get("attempt"), data.get("code") == "again"
                if not self._again:
                    self.attempted += people
                    self.waiting = max(self.waiting - people, 0)
            case "sent":
                self.vague |= "people" not in data
                self._answered(data, people)
                self.delivered += people
            case "failed" if data.get("why") == "in-doubt":
                self.vague |= "people" not in data
                self._no_more_in_doubt(people)
                self.doubted += people
            case "failed":
                self.vague |= "people" not in data
                self._answered(data, people)
                self.refused += people
            case "retry" if not data.get("in_doubt", self._again):
                self._answered(data, people)
                if self.spared is None:
                    self.waiting += people
                else:  # it was the last attempt
                    self.spared += people

    def said(self, data: Mapping[str, Any]) -> None:
        """A person said what became of what was in doubt. What is sent again may have arrived the first time all the same."""
        if data.get("choice") == "sent":
            people = int(data.get("people", 0))
            self._no_more_in_doubt(people)
            self.delivered += people

    @property
    def doubt(self) -> int:
        """Of whom nobody knows, now or ever."""
        return self.attempted + self.doubted

    @property
    def sure(self) -> bool:
        """Whether the numbers are of people, and not of recipients."""
        return not self.vague and not (self._unsaid and self.attempted)

    def _answered(self, data: Mapping[str, Any], people: int) -> None:
        """Whoever was not marked in this attempt was not in doubt."""
        if data.get("attempt") == self._begun:
            self._no_more_in_doubt(people)

    def _no_more_in_doubt(self, people: int) -> None:
        self.attempted = max(self.attempted - people, 0)
