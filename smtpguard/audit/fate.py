"""What has become of one message of an incident, and for how many people: one may have several ends, since the relay answers for
each recipient, and colleagues may have had their part.

Of a list's address the relay's word is that of all behind it: refused, nobody of them has it; taken, all, as far as is known.
Pure. Never here: which messages belong to an incident, or what they add up to (report).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtpguard.audit.event import Kind, outcome_of


class End(enum.Enum):
    """What has become of a message."""

    DELIVERED = "delivered"  # the relay took it: its 250
    RELEASED = "released"  # held, approved, and delivered then
    IN_DOUBT = "in doubt"  # nobody knows whether the relay took it
    ON_ITS_WAY = "on its way"  # approved, not delivered yet
    WAITING = "waiting"  # held, for people to decide
    UNDELIVERED = "undelivered"  # approved, and it could not be delivered
    GRANTED = "granted"  # a test that was approved, of which nothing is sent
    DECLINED = "declined"  # held, and people decided that it does not go out
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    VOID = "void"  # held, but its client was told to try again
    REJECTED = "rejected"  # by a rule
    DEFERRED = "deferred"  # its client keeps it, and tries again
    REFUSED = "refused"  # by the relay
    NOT_SENT = "not sent"  # decided to relay, and stopped before the final dot


REACHED = (End.DELIVERED, End.RELEASED)
OPEN = (End.IN_DOUBT, End.ON_ITS_WAY, End.WAITING)
"""What may still reach people, or may have."""

_FIRST = {"relay": End.IN_DOUBT, "hold": End.WAITING, "defer": End.DEFERRED, "reject": End.REJECTED}
_OUTCOMES = {"relayed": End.DELIVERED, "refused": End.REFUSED, "deferred": End.DEFERRED}
_OF_A_HOLD = {
    Kind.APPROVED.value: End.ON_ITS_WAY,
    Kind.REJECTED.value: End.DECLINED,
    Kind.WITHDRAWN.value: End.WITHDRAWN,
    Kind.EXPIRED.value: End.EXPIRED,
    Kind.VOIDED.value: End.VOID,
    Kind.ADOPTED.value: End.WAITING,
    Kind.REOPENED.value: End.WAITING,
}


@dataclass(slots=True, kw_only=True)
class Sum:
    """``people``: as each message counted its own, so that one who got two is counted twice. ``at_least``: a list could not say
    who is on it; ``at_most``: it is not known how many of a message's people were behind the recipients that had it."""

    messages: int = 0
    people: int = 0
    at_least: bool = False
    at_most: bool = False

    def add(self, share: Share, *, another: bool = True) -> None:
        """``another``: of a message that is not counted yet."""
        self.messages += another
        self.people += share.people
        self.at_least |= share.at_least
        self.at_most |= share.at_most


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Those of a message's people for whom it has come to one end."""

    end: End
    people: int
    at_least: bool = False
    at_most: bool = False


@dataclass(slots=True, kw_only=True)
class _Recipients:
    """What the relay said, attempt by attempt: people by what it came to. ``vague``: an earlier version wrote down recipients alone.
    ``unknown``: the last attempt ended without an answer. ``over``: there is no other. ``spared``: those who do not get it, since it
    was taken back then; None where it was not."""

    sent: int = 0
    failed: int = 0
    doubted: int = 0
    vague: bool = False
    unknown: bool = False
    over: bool = False
    spared: int | None = None

    def add(self, data: Mapping[str, Any]) -> None:
        outcome = data.get("outcome")
        people = int(data.get("people", data.get("recipients", 0)))
        self.unknown = outcome == "in-doubt" or (self.unknown and outcome not in ("attempt", "sent", "failed", "retry"))
        if outcome not in ("sent", "failed"):
            return
        self.vague |= "people" not in data
        if outcome == "sent":
            self.sent += people
        elif data.get("why") == "in-doubt":
            self.doubted += people
        else:
            self.failed += people

    def shares(self, people: int, done: End, lost: End, *, at_least: bool) -> Iterator[Share]:
        """Of so many ``people``. Where all recipients came to one thing, so did all people; else those of whom something was said
        are taken off, since the number of all is the surest."""
        if self.spared is not None:
            told = [(lost, self.failed), (End.IN_DOUBT, self.doubted), (End.DECLINED, self.spared)]
            yield from self._told(people, told, End.IN_DOUBT if self.unknown or not self.sent else done, at_least)
            return
        if self.over and not self.failed and not self.doubted:
            yield Share(end=done, people=people, at_least=at_least, at_most=not self.sent)
            return
        if self.over and not self.sent and not (self.failed and self.doubted):
            yield Share(end=End.IN_DOUBT if self.doubted else lost, people=people, at_least=at_least)
            return
        told = [(lost, self.failed), (End.IN_DOUBT, self.doubted)]
        rest = done
        if not self.over:
            told.append((done, self.sent))
            rest = End.IN_DOUBT if self.unknown else End.ON_ITS_WAY
        elif not self.sent:  # some failed, of the others nobody knows
            told, rest = [(lost, self.failed)], End.IN_DOUBT
        yield from self._told(people, told, rest, at_least)

    def _told(self, left: int, told: Sequence[tuple[End, int]], rest: End, at_least: bool) -> Iterator[Share]:
        for end, n in told:
            if n and left:
                yield Share(end=end, people=min(n, left), at_least=self.vague)
                left -= min(n, left)
        if left:
            yield Share(end=rest, people=left, at_least=at_least, at_most=self.vague)


@dataclass(slots=True, kw_only=True)
class Message:
    """``people``: whom it was for. ``apart``: the colleagues among them who get it whatever becomes of the rest; None where an
    earlier version did not say how many. ``shown``: addresses in To and Cc, as far as that is known."""

    people: int
    at_least: bool
    end: End
    held: bool
    test: bool = False
    shown: int = 0
    apart: int | None = None
    part: End | _Recipients | None = None
    release: _Recipients | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Message:
        """By its verdict."""
        counts, action = data.get("counts", {}), str(data.get("action"))
        test = any(reason.get("fact") == "approval.asked" for reason in data.get("reasons", ()))
        apart = data.get("apart")
        return cls(
            people=0 if test else int(counts.get("reach", 0)),
            at_least=bool(data.get("reach_at_least")) and not test,
            end=_FIRST.get(action, End.DEFERRED),
            held=action == "hold",
            test=test,
            shown=int(counts.get("shown", 0)),
            apart=None if apart is None else int(apart),
            part=End.ON_ITS_WAY if apart else None,
        )

    def add(self, kind: str, data: Mapping[str, Any]) -> None:
        """Something that happened to it, in order."""
        if not self.held:
            if kind == Kind.IN_DOUBT.value:
                self.end = End.IN_DOUBT
            elif kind == Kind.OUTCOME.value:
                self.end = _OUTCOMES.get(outcome_of(data), End.NOT_SENT)
        elif kind == Kind.OUTCOME.value:  # of the part that the wire passed on itself
            self.part = _OUTCOMES.get(outcome_of(data), End.DEFERRED)
        elif kind in (Kind.RELEASE.value, Kind.IN_DOUBT.value):
            self._attempted(data)
        elif kind == Kind.RELEASED.value:
            self.release = self.release or _Recipients()
            self.release.over = True
        elif kind == Kind.STOPPED.value:
            self.release = self.release or _Recipients()
            self.release.spared = int(data.get("people", 0))
        elif kind in _OF_A_HOLD:
            self.end = End.GRANTED if self.test and kind == Kind.APPROVED.value else _OF_A_HOLD[kind]

    def _attempted(self, data: Mapping[str, Any]) -> None:
        if not str(data.get("intent", "")).endswith("-part"):
            self.release = self.release or _Recipients()
            self.release.add(data)
            return
        if not isinstance(self.part, _Recipients):
            self.part = _Recipients()
        self.part.add(data)
        if self.apart is None and data.get("outcome") in ("sent", "failed"):  # each is one person
            self.apart = self.part.sent + self.part.failed + self.part.doubted

    @property
    def got_part(self) -> bool:
        """Whether colleagues got it whatever became of the rest."""
        return self.part.sent > 0 if isinstance(self.part, _Recipients) else self.part is End.DELIVERED

    def shares(self) -> Iterator[Share]:
        """All its people, each in one of them; one share at least."""
        apart = min(self.apart or 0, self.people)
        if self.release is not None and self.end is End.ON_ITS_WAY:
            yield from self.release.shares(self.people - apart, End.RELEASED, End.UNDELIVERED, at_least=self.at_least)
        else:
            yield Share(end=self.end, people=self.people - apart, at_least=self.at_least)
        if isinstance(self.part, _Recipients):
            over = self.part.sent + self.part.failed + self.part.doubted >= apart
            self.part.over = over
            yield from self.part.shares(apart, End.DELIVERED, End.REFUSED, at_least=False) if apart else ()
        elif self.part is not None and apart:
            end = self.end if self.end is End.VOID and self.part is End.ON_ITS_WAY else self.part
            yield Share(end=end, people=apart)
