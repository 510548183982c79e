"""The delivery status of one recipient: its table of transitions, and what a journal entry says of it. Pure.

The store, the delivery worker, the report and the pages use this one table. An attempt is recorded before the relay is spoken to.
From then on the relay may have the message for that recipient (RFC 1047), whatever happens to the process, the connection or a
freeze. Only an answer changes the status, or certainty that the final dot was not sent.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smtpguard.journal.event import Kind


class DeliveryStatus(enum.Enum):
    """The known result of a delivery for one recipient."""

    PENDING = "pending"  # not sent: it waits for its attempt, or the last one certainly failed
    ATTEMPTED = "attempted"  # in doubt: at least one attempt has begun without a known result
    DELIVERED = "delivered"  # the relay answered 250, or a person says so
    REFUSED = "refused"  # certainly not accepted, and not tried again
    CANCELLED = "cancelled"  # revoked before it was sent


class DeliveryEvent(enum.Enum):
    """An event in the delivery to one recipient."""

    BEGIN = "begin"  # the mark of an attempt, committed before the final dot
    TAKE = "take"  # the relay answered 2yz
    PUT_OFF = "put off"  # certainly not accepted: 4yz, or the dot was not sent
    REFUSE = "refuse"  # certainly not accepted, and no further attempt is made
    LOSE = "lose"  # no answer came
    CANCEL = "cancel"  # revoked
    CONFIRM = "confirm"  # a person says that it was sent
    REPEAT = "repeat"  # a person says to send it again


_S, _E = DeliveryStatus, DeliveryEvent
TRANSITIONS: Mapping[tuple[DeliveryStatus, DeliveryEvent], DeliveryStatus] = {
    (_S.PENDING, _E.BEGIN): _S.ATTEMPTED,
    (_S.PENDING, _E.TAKE): _S.DELIVERED,
    (_S.PENDING, _E.PUT_OFF): _S.PENDING,  # before any attempt: for example because of a freeze
    (_S.PENDING, _E.REFUSE): _S.REFUSED,  # there is no content to send
    (_S.PENDING, _E.CANCEL): _S.CANCELLED,
    (_S.ATTEMPTED, _E.BEGIN): _S.ATTEMPTED,
    (_S.ATTEMPTED, _E.TAKE): _S.DELIVERED,
    (_S.ATTEMPTED, _E.PUT_OFF): _S.PENDING,
    (_S.ATTEMPTED, _E.REFUSE): _S.REFUSED,
    (_S.ATTEMPTED, _E.LOSE): _S.ATTEMPTED,
    (_S.ATTEMPTED, _E.CANCEL): _S.ATTEMPTED,  # the recipient may still have it; it is not tried again
    (_S.ATTEMPTED, _E.CONFIRM): _S.DELIVERED,
    (_S.ATTEMPTED, _E.REPEAT): _S.ATTEMPTED,  # the first attempt may have arrived
}
"""The status after each status and event. Pairs that are not here are impossible. Delivered, refused and cancelled are final."""

_CERTAIN_OF_THIS_ATTEMPT = frozenset({DeliveryEvent.PUT_OFF, DeliveryEvent.REFUSE})


class NotPossible(ValueError):
    """This event cannot happen in this status."""


def after(status: DeliveryStatus, event: DeliveryEvent, *, earlier: int = 0) -> DeliveryStatus:
    """Return the next status. ``earlier``: the number of other attempts with an unknown result. While there is any, the doubt stays
    even if this attempt certainly failed. Raises NotPossible."""
    to = TRANSITIONS.get((status, event))
    if to is None:
        raise NotPossible(f"a recipient that is {status.value} cannot {event.value}")
    if earlier and event in _CERTAIN_OF_THIS_ATTEMPT:
        return DeliveryStatus.ATTEMPTED
    return to


class Further(enum.Enum):
    """The next step for a recipient."""

    TRY = "try"  # an attempt, at its time
    ASK = "ask"  # if no answer comes by its time, people say whether it was sent
    ANSWER = "answer"  # revoked during an attempt: its answer is written if it comes by its time
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryEntry:
    """A journal entry on some recipients of a release, or of the colleagues' part (``part``). ``over``: no further step is
    taken for them. ``people``: the number behind them; not ``counted``: an earlier version wrote only the number of
    recipients. ``attempt``: its number; ``again``: it follows one that is in doubt. ``in_doubt``: for a put-off, whether an
    earlier attempt may have been accepted; None if an earlier version did not record it."""

    event: DeliveryEvent
    people: int
    counted: bool
    part: bool
    over: bool = False
    attempt: object = None
    again: bool = False
    in_doubt: bool | None = None

    @property
    def status(self) -> DeliveryStatus:
        """The status of its recipients after it."""
        if self.event is DeliveryEvent.PUT_OFF:
            return DeliveryStatus.ATTEMPTED if self.in_doubt else DeliveryStatus.PENDING
        if self.event is DeliveryEvent.CANCEL:
            return DeliveryStatus.CANCELLED
        return TRANSITIONS[DeliveryStatus.ATTEMPTED, self.event]


EVENTS = {
    "attempt": DeliveryEvent.BEGIN,
    "sent": DeliveryEvent.TAKE,
    "failed": DeliveryEvent.REFUSE,
    "in-doubt": DeliveryEvent.LOSE,
    "retry": DeliveryEvent.PUT_OFF,
}
"""The event of each word for an attempt's result in an entry."""
WORDS = {event: word for word, event in EVENTS.items()}
"""The word of each event in an entry."""
_ATTEMPTS = (Kind.RELEASE.value, Kind.IN_DOUBT.value)
_STOPPED, _SETTLED = Kind.STOPPED.value, Kind.SETTLED.value


def delivery_entry(kind: str, data: Mapping[str, Any]) -> DeliveryEntry | None:
    """Return what an entry says of recipients of a delivery; None if it is about no delivery."""
    if kind in (_STOPPED, _SETTLED):
        ordered = DeliveryEvent.CONFIRM if data.get("choice") == "sent" else DeliveryEvent.REPEAT
        ordered = DeliveryEvent.CANCEL if kind == _STOPPED else ordered
        return DeliveryEntry(
            event=ordered, people=int(data.get("people", 0)), counted=True, part=False, over=kind == _STOPPED
        )
    event = EVENTS.get(str(data.get("outcome"))) if kind in _ATTEMPTS else None
    if event is None:
        return None
    lost = event is DeliveryEvent.REFUSE and data.get("why") == "in-doubt"
    return DeliveryEntry(
        event=DeliveryEvent.LOSE if lost else event,
        people=int(data.get("people", data.get("recipients", 0))),
        counted="people" in data,
        # Entries of an earlier version have no "part"; the id's ending says it.
        part=bool(data.get("part")) or str(data.get("intent", "")).endswith("-part"),
        over=lost or event in (DeliveryEvent.TAKE, DeliveryEvent.REFUSE),
        attempt=data.get("attempt"),
        again=data.get("code") == "again",
        in_doubt=data.get("in_doubt"),
    )


@dataclass(slots=True, kw_only=True)
class DeliveryTotals:
    """The numbers of people, over all entries on one release or on one colleagues' part. ``attempted``: in doubt, and not settled
    yet; ``doubted``: in doubt for good; ``waiting``: put off, to be tried again; ``cancelled``: never sent. ``vague``: an
    earlier version did not write the number of people of an attempt. ``over``: no further attempt is made."""

    delivered: int = 0
    refused: int = 0
    attempted: int = 0
    doubted: int = 0
    cancelled: int | None = None
    vague: bool = False
    over: bool = False
    waiting: int = 0
    _begun: object = field(default=None, repr=False)
    _again: bool = field(default=False, repr=False)
    _uncounted: bool = field(default=False, repr=False)

    def add(self, one: DeliveryEntry) -> None:
        """Add the next entry. A repeat that a person ordered changes nothing, since the first attempt may have arrived."""
        people = one.people
        match one.event:
            case DeliveryEvent.BEGIN:
                self._uncounted |= not one.counted
                self._begun, self._again = one.attempt, one.again
                if not self._again:
                    self.attempted += people
                    self.waiting = max(self.waiting - people, 0)
            case DeliveryEvent.TAKE:
                self.vague |= not one.counted
                self._settle(one)
                self.delivered += people
            case DeliveryEvent.LOSE if one.over:
                self.vague |= not one.counted
                self._end_doubt(people)
                self.doubted += people
            case DeliveryEvent.REFUSE:
                self.vague |= not one.counted
                self._settle(one)
                self.refused += people
            case DeliveryEvent.CANCEL:
                self.cancelled = people
            case DeliveryEvent.CONFIRM:
                self._end_doubt(people)
                self.delivered += people
            case DeliveryEvent.PUT_OFF if not (self._again if one.in_doubt is None else one.in_doubt):
                self._settle(one)
                if self.cancelled is None:
                    self.waiting += people
                else:  # it was the last attempt
                    self.cancelled += people

    @property
    def doubt(self) -> int:
        """The number in doubt, for now or for good."""
        return self.attempted + self.doubted

    @property
    def sure(self) -> bool:
        """Whether all numbers are of people, and none of recipients."""
        return not self.vague and not (self._uncounted and self.attempted)

    def _settle(self, one: DeliveryEntry) -> None:
        """Take an answer. A recipient that was not marked in this attempt was not in doubt."""
        if one.attempt == self._begun:
            self._end_doubt(one.people)

    def _end_doubt(self, people: int) -> None:
        self.attempted = max(self.attempted - people, 0)
