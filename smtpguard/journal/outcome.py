"""The outcome of one message, for each recipient and for how many people. One message may have several, since the relay
answers for each recipient, and colleagues may have received their part. Pure.

This is the one reduction of the journal's events to an outcome: the report, the pages, the store and the metrics use
it. Entries on a release name its recipients, by sealed digests, so each has an outcome (``Message.ends``). Entries of
earlier versions may not, and then only numbers are known (``Message.shares``). The relay's answer for a list address
counts for everybody behind it: refused, none of them has the message; accepted, all have it, as far as is known.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from smtpguard.journal.deliverystatus import DeliveryEntry, DeliveryStatus, DeliveryTotals, delivery_entry
from smtpguard.journal.distinct import NOBODY, Interval
from smtpguard.journal.event import DECISIONS, Kind


class Outcome(enum.Enum):
    """The outcome of a message, or for one of its recipients."""

    DELIVERED = "delivered"  # the relay accepted it: its 250
    RELEASED = "released"  # held, approved, and delivered then
    IN_DOUBT = "in doubt"  # it is unknown whether the relay accepted it
    ON_ITS_WAY = "on its way"  # approved, not delivered yet
    WAITING = "waiting"  # held, for people to decide
    UNDELIVERED = "undelivered"  # approved, and it could not be delivered
    GRANTED = "granted"  # a test that was approved; it is not sent
    DECLINED = "declined"  # rejected by people: itself while it was held, or its mailing before it came
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    VOID = "void"  # held, but its client was told to try again
    REJECTED = "rejected"  # by a rule
    DEFERRED = "deferred"  # its client keeps it, and tries again
    REFUSED = "refused"  # by the relay
    NOT_SENT = "not sent"  # decided to relay or to release, and stopped before the final dot


Sealed = Mapping[str, Sequence[str]]
"""The private part of an entry: keyed digests by role."""
REACHED = (Outcome.DELIVERED, Outcome.RELEASED)
OPEN = (Outcome.IN_DOUBT, Outcome.ON_ITS_WAY, Outcome.WAITING)
"""Outcomes after which it may still reach people, or may have reached them."""
STAYED = frozenset({Outcome.NOT_SENT, Outcome.REFUSED, Outcome.DEFERRED})
"""Outcomes of a verdict to relay that prove that the relay does not have the message."""

_FIRST = {
    "relay": Outcome.IN_DOUBT,
    "confirm": Outcome.WAITING,
    "hold": Outcome.WAITING,
    "defer": Outcome.DEFERRED,
    "reject": Outcome.REJECTED,
}
_BY_STATE = {
    "approved": Outcome.ON_ITS_WAY,
    "rejected": Outcome.DECLINED,
    "withdrawn": Outcome.WITHDRAWN,
    "expired": Outcome.EXPIRED,
    "void": Outcome.VOID,
    "waiting": Outcome.WAITING,
}
_BY_KIND = {kind.value: _BY_STATE[state] for kind, state in DECISIONS.items()}
_UNDONE = ("taken-back", "lapsed")
"""Choices in the entry of a vote after which a hold waits for people, even if it was approved and about to go out."""
_OUTCOME, _IN_DOUBT = Kind.OUTCOME.value, Kind.IN_DOUBT.value
_ASKED = "approval.asked"
"""The fact in the verdict of a message that was sent to be approved beforehand."""
_MAILING_REJECTED = "mailing.rejected"
"""The fact in the verdict of a copy of a mailing that people had rejected."""


def relayed(kind: str, data: Mapping[str, Any]) -> Outcome | None:
    """Return the outcome of a message that is relayed at once, from an entry; None for an entry without one. Of several entries
    the last one counts.

    REFUSED: the relay refused it for good. DEFERRED: it answered 4xx, so the client keeps it. NOT_SENT: it was not sent.
    """
    word = data.get("outcome")
    if kind == _IN_DOUBT and "intent" not in data and word != "asked":  # with these it is of a release
        return Outcome.IN_DOUBT
    if kind != _OUTCOME:
        return None
    if word == "relayed":
        return Outcome.DELIVERED
    if word != "refused":
        return Outcome.NOT_SENT
    put_off = all(str(reply).startswith("4") for reply in data.get("replies", ("",)))
    return Outcome.DEFERRED if put_off else Outcome.REFUSED


def delivered(status: DeliveryStatus, *, part: bool) -> Outcome:
    """Return the outcome for a recipient with this status, of a release, or of the colleagues' part (``part``)."""
    match status:
        case DeliveryStatus.PENDING:
            return Outcome.ON_ITS_WAY
        case DeliveryStatus.ATTEMPTED:
            return Outcome.IN_DOUBT
        case DeliveryStatus.DELIVERED:
            return Outcome.DELIVERED if part else Outcome.RELEASED
        case DeliveryStatus.REFUSED:
            return Outcome.REFUSED if part else Outcome.UNDELIVERED
        case DeliveryStatus.CANCELLED:
            return Outcome.NOT_SENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A number of messages, and of the distinct people of all of them."""

    messages: int = 0
    people: Interval = NOBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The people of a message with one outcome. ``at_least``, ``at_most``: ``people`` is such a bound; neither: it is exact."""

    end: Outcome
    people: int
    at_least: bool = False
    at_most: bool = False


def _shares(totals: DeliveryTotals, people: int, *, part: bool, at_least: bool) -> Iterator[Share]:
    """Divide ``people`` into shares. If all recipients have one result, so do all people. If not, people with a known result are
    subtracted, since the total is the most reliable number."""
    done, lost = (delivered(one, part=part) for one in (DeliveryStatus.DELIVERED, DeliveryStatus.REFUSED))
    sent, failed, doubt = totals.delivered, totals.refused, totals.doubt
    known = [(lost, failed), (Outcome.IN_DOUBT, doubt)]
    if totals.cancelled is not None:
        known.append((Outcome.NOT_SENT, totals.cancelled))
        yield from _divide(people, known, done if sent else Outcome.IN_DOUBT, not totals.sure, at_least)
    elif totals.over and not failed and not doubt:
        yield Share(end=done, people=people, at_least=at_least, at_most=not sent)
    elif totals.over and not sent and not (failed and doubt):
        yield Share(end=Outcome.IN_DOUBT if doubt else lost, people=people, at_least=at_least)
    elif totals.over:  # if some failed, the result of the others is unknown
        yield from _divide(
            people, known if sent else [(lost, failed)], done if sent else Outcome.IN_DOUBT, not totals.sure, at_least
        )
    else:
        known.append((done, sent))
        rest = Outcome.IN_DOUBT if doubt and not totals.waiting else Outcome.ON_ITS_WAY
        yield from _divide(people, known, rest, not totals.sure, at_least)


def _divide(
    left: int, known: Sequence[tuple[Outcome, int]], rest: Outcome, vague: bool, at_least: bool
) -> Iterator[Share]:
    """Give each of ``known`` its number of the people that are left, and ``rest`` all others."""
    for end, n in known:
        if n and left:
            yield Share(end=end, people=min(n, left), at_least=vague)
            left -= min(n, left)
    if left:
        yield Share(end=rest, people=left, at_least=at_least, at_most=vague)


_ONE = ("",)
_NOBODY: frozenset[int] = frozenset()


@dataclass(slots=True, kw_only=True)
class Message:
    """One message, from its entries. ``people``: the number that it was for. ``apart``: the number of colleagues among them who get
    it in any case; None if an earlier version did not record it; ``apart_at``: the numbers of their recipients. ``shown``: the
    number of addresses in To and Cc, if known. ``recipients``: their sealed digests; _ONE if there is only one recipient, so
    that an entry that names any means that one; () if they are unknown."""

    people: int
    at_least: bool
    end: Outcome
    held: bool
    test: bool = False
    shown: int = 0
    apart: int | None = None
    apart_at: frozenset[int] = _NOBODY
    part: Outcome | DeliveryTotals | None = None
    release: DeliveryTotals | None = None
    recipients: tuple[str, ...] = ()
    _ends: list[Outcome | None] | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any], sealed: Sealed) -> Message:
        """Make it from the data of its verdict, or of the entry of a transaction whose recipients the relay had refused.
        ``sealed``: the entry's private part as the chain has it."""
        if "accepted" in data:
            return cls(people=0, at_least=False, end=Outcome.REFUSED, held=False)
        counts, action = data.get("counts", {}), str(data.get("action"))
        facts = {reason.get("fact") for reason in data.get("reasons", ())}
        test = bool(data.get("test")) or _ASKED in facts
        end = _FIRST.get(action, Outcome.DEFERRED)
        apart, recipients = data.get("apart"), sealed.get("recipients", ())
        return cls(
            people=0 if test else int(counts.get("reach", 0)),
            at_least=bool(data.get("reach_at_least")) and not test,
            end=Outcome.DECLINED if end is Outcome.REJECTED and _MAILING_REJECTED in facts else end,
            held=action in ("hold", "confirm"),
            test=test,
            shown=int(counts.get("shown", 0)),
            apart=None if apart is None else int(apart),
            apart_at=frozenset(data["apart_at"]) if "apart_at" in data else _NOBODY,
            part=Outcome.ON_ITS_WAY if apart else None,
            recipients=_ONE if len(recipients) == 1 else tuple(recipients),
        )

    def add(self, kind: str, data: Mapping[str, Any], sealed: Sealed) -> None:
        """Take its next entry."""
        at_once = relayed(kind, data)
        if not self.held:
            self.end = at_once or self.end
        elif kind == _OUTCOME:
            if at_once is Outcome.NOT_SENT and not data.get("part"):
                return  # it is of an earlier verdict on it, to relay, which was recalled
            self.part = Outcome.DEFERRED if at_once is Outcome.NOT_SENT else at_once
        elif (one := delivery_entry(kind, data)) is not None:
            self._add_totals(one)
            self._add_ends(one, sealed)
        elif kind == Kind.RELEASED.value:
            self.release = self.release or DeliveryTotals()
            self.release.over = True
        elif kind == Kind.VOTE.value:
            if "release_at" in data:  # the last vote: it goes out when the time to undo it is over
                self.end = Outcome.ON_ITS_WAY
            elif data.get("choice") in _UNDONE:
                self.end = Outcome.WAITING
        elif kind in _BY_KIND:
            self.end = Outcome.GRANTED if self.test and kind == Kind.APPROVED.value else _BY_KIND[kind]

    def _add_totals(self, one: DeliveryEntry) -> None:
        """Add an entry on a delivery to the totals of the release, or of the colleagues' part."""
        if not one.part:
            self.release = self.release or DeliveryTotals()
            self.release.add(one)
            return
        if not isinstance(self.part, DeliveryTotals):
            self.part = DeliveryTotals()
        self.part.add(one)
        if self.apart is None and one.over:  # each recipient is one person
            self.apart = self.part.delivered + self.part.refused + self.part.doubted

    def _add_ends(self, one: DeliveryEntry, sealed: Sealed) -> None:
        """Set the outcome of the recipients that an entry names. A recipient that waits for another attempt has none."""
        end = None if one.status is DeliveryStatus.PENDING else delivered(one.status, part=one.part)
        for n in self.named_in(sealed):
            self._ends = self._ends if self._ends is not None else [None] * len(self.recipients)
            self._ends[n] = end

    def named_in(self, sealed: Sealed) -> Mapping[int, int]:
        """Return the numbers of its recipients that an entry names, each with its place among the entry's."""
        named = sealed.get("recipients", ())
        if self.recipients is _ONE:
            return dict.fromkeys(range(min(1, len(named))), 0)
        places = {one: n for n, one in enumerate(named)}
        return {n: places[one] for n, one in enumerate(self.recipients) if one in places}

    @property
    def got_part(self) -> bool:
        """Whether colleagues got their part, whatever happened to the rest."""
        return self.part.delivered > 0 if isinstance(self.part, DeliveryTotals) else self.part is Outcome.DELIVERED

    @property
    def outcomes(self) -> Set[Outcome]:
        """All its outcomes; at least one."""
        ends = self.ends()
        return {share.end for share in self.shares()} if ends is None else set(ends)

    def ends(self) -> Sequence[Outcome] | None:
        """Return the outcome for each recipient; None if no entry names single recipients."""
        if self._ends is None and not (self.apart_at and self.recipients):
            return None
        stopped = self.release is not None and self.release.cancelled is not None
        rest = Outcome.NOT_SENT if stopped and self.end is Outcome.ON_ITS_WAY else self.end
        of = [self._end_of_part if n in self.apart_at else rest for n in range(len(self.recipients))]
        return [known or usual for known, usual in zip(self._ends or of, of, strict=True)]

    @property
    def _end_of_part(self) -> Outcome:
        """The outcome for colleagues whom no entry on a delivery names."""
        if not isinstance(self.part, Outcome):
            return Outcome.ON_ITS_WAY
        return Outcome.VOID if self.end is Outcome.VOID and self.part is Outcome.ON_ITS_WAY else self.part

    def shares(self) -> Iterator[Share]:
        """Divide all its people into shares, by numbers alone. There is at least one share."""
        apart = min(self.apart or 0, self.people)
        if self.release is not None and self.end is Outcome.ON_ITS_WAY:
            yield from _shares(self.release, self.people - apart, part=False, at_least=self.at_least)
        else:
            yield Share(end=self.end, people=self.people - apart, at_least=self.at_least)
        if isinstance(self.part, DeliveryTotals):
            over = self.part.delivered + self.part.refused + self.part.doubted >= apart
            self.part.over = over
            yield from _shares(self.part, apart, part=True, at_least=False) if apart else ()
        elif self.part is not None and apart:
            yield Share(end=self._end_of_part, people=apart)
