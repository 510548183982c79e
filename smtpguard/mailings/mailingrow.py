"""A mailing as a row: its columns and documents, and what a batch keeps of it in memory.

The frequent counts are in one document, written with every batch that has a copy of the mailing; its title and people's
decisions are in another, which changes rarely.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from smtpguard.mail.constant import changed
from smtpguard.mailings.finding import KnownMailing
from smtpguard.mailings.model import MAILING, CopyStatus, Mailing, Person, Tally
from smtpguard.reading.fingerprint import Sketch

# The kind of a mailing's recipient as one number: a customer, perhaps a customer, and the lists.
#
# Two bits, then one for each list of the mailing, in the order in which it touched them; kinds are in the table of people
# reached and in the sums of a mailing's row.


CUSTOMER, MAYBE = 1, 2
CUSTOMERS = CUSTOMER | MAYBE
_FIRST_LIST = 2
_MOST_LISTS = 60  # beyond these, lists share the last bit


def kinds(lists: list[str], people: Iterable[Person]) -> Iterator[tuple[Person, int]]:
    """Each person with its kind; lists new to the mailing are appended to ``lists``."""
    known: dict[tuple[bool, bool, tuple[str, ...]], int] = {}  # most people of a large mailing are equal in this
    for person in people:
        what = person.customer, person.maybe, person.lists
        kind = known.get(what)
        if kind is None:
            kind = (CUSTOMER if person.customer else 0) | (MAYBE if person.maybe else 0)
            for name in person.lists:
                if name not in lists:
                    lists.append(name)
                kind |= on_list(lists, name)
            known[what] = kind
        yield person, kind


def list_of(lists: Sequence[str], bit: int) -> str:
    """The one list of this bit; "" if it is shared by several, or by none."""
    at = bit.bit_length() - 1 - _FIRST_LIST
    return lists[at] if bit == 1 << (_FIRST_LIST + at) and 0 <= at < min(len(lists), _MOST_LISTS - 1) else ""


def renewed(before: int, kind: int) -> int:
    """A person's kind after another copy. A customer, or a member of a list, stays that. MAYBE follows the newest copy,
    since a list whose index is back no longer leaves doubt."""
    return kind | (before & ~MAYBE)


def on_list(lists: Sequence[str], name: str) -> int:
    """The bit of this list; 0 if the mailing has touched no such list."""
    at = min(lists.index(name), _MOST_LISTS - 1) if name in lists else 0
    return 1 << (_FIRST_LIST + at) if name in lists else 0


COLUMNS = "n, id, first_at, last_at, sketch, counts, doc, went_first, went_last"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOBODY = Tally()


@dataclass(slots=True)
class Copy:
    """A person's copy, shared by people with equal values; immutable. ``at``: when it was last counted, 0 for never;
    ``content``: the beginning of the last one's digest. ``went``: when the first copy was sent, 0 for never; in flight,
    when it was decided."""

    at: int
    kind: int
    weight: int
    status: CopyStatus
    content: bytes
    went: int


@dataclass(slots=True, kw_only=True)
class Row:
    """A mailing's row during a batch. ``mailing``: its title and decisions; its counts are in the other fields.

    ``sums``: people in the window by their kind, those later than ``floor``; ``statuses``: people by status; ``went_us``:
    when the first and the last copy were sent.
    """

    known: KnownMailing
    exact: tuple[int, ...]
    mailing: Mailing
    first_us: int
    last_us: int
    floor: int
    sums: dict[int, int]
    statuses: list[int]
    customers: int = 0
    messages: int = 0
    crowds: dict[bytes, str] = field(default_factory=dict)
    """Entries of several people each, lists by their address, with the version of the index, "" if unknown."""
    besides: set[int] = field(default_factory=set)
    """For a mailing known by its files: checksums of the texts beside them, as many as matter."""
    new: bool = False
    changed: bool = False
    went_us: tuple[int, int] | None = None
    as_read: tuple[Mailing, str] | None = None
    """The mailing, and the document that it was read from: no other need be made unless it changes."""
    people: dict[bytes, Copy | None] = field(default_factory=dict)
    """People who were looked up; None: no row."""

    @classmethod
    def read(cls, n: int, id: str, first: int, last: int, sketch: bytes, counts: str, doc: str,
             went_first: int | None, went_last: int | None) -> Row:  # fmt: skip
        made, kept = Sketch.unpack(bytes(sketch)), orjson.loads(counts)
        exact, mailing = _exact(kept["exact"]), _called(id, doc)
        known = KnownMailing(
            n=n, mailing_id=id, keys=(*exact, *made.keys), sketch=made
        )  # fmt: skip
        return cls(
            known=known, exact=exact, mailing=mailing, as_read=(mailing, doc), first_us=first, last_us=last, floor=kept["floor"],
            sums={int(k): v for k, v in kept["sums"].items()},
            statuses=[*kept["fates"], *[0] * (len(CopyStatus) - len(kept["fates"]))], customers=kept["customers"],
            messages=kept["messages"], crowds=_crowds(kept.get("crowds", {})),
            went_us=None if went_first is None or went_last is None else (went_first, went_last),
            besides=set(kept.get("besides", ())),
        )  # fmt: skip

    def written(self) -> tuple[Any, ...]:
        """All columns."""
        counts: dict[str, Any] = {"exact": self.exact, "floor": self.floor, "sums": {str(k): v for k, v in self.sums.items() if v},
                  "fates": self.statuses, "customers": self.customers, "messages": self.messages}  # fmt: skip
        if self.crowds:
            counts["crowds"] = {one.hex(): version for one, version in sorted(self.crowds.items())}
        if self.besides:
            counts["besides"] = sorted(self.besides)
        mailing, known = self.mailing, self.known
        doc = self.as_read[1] if self.as_read is not None and self.as_read[0] is mailing else _doc(mailing)
        return (
            known.n, known.mailing_id, self.first_us, self.last_us, mailing.state.value, sum(self.statuses[1:]),
            True, known.sketch.pack(), orjson.dumps(counts).decode(), doc,
            *(self.went_us or (None, None)),
        )  # fmt: skip

    def went(self, at: int) -> None:
        """A copy of it was sent then."""
        first, last = self.went_us or (at, at)
        if self.went_us != (made := (min(first, at), max(last, at))):
            self.went_us, self.changed = made, True

    def view(self, now: datetime) -> Mailing:
        """As it is now, earlier items of the batch included: a pause that is over has ended, and expired decisions are
        dropped."""
        return changed(
            self.mailing,
            first_at=_moment(self.first_us),
            last_at=_moment(self.last_us),
            went_first_at=None if self.went_us is None else _moment(self.went_us[0]),
            went_last_at=None if self.went_us is None else _moment(self.went_us[1]),
            people=Tally.of(self.statuses),
            customers=self.customers,
            messages=self.messages,
        ).as_of(now)  # fmt: skip


@lru_cache(maxsize=64)
def _moment(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)


def _crowds(kept: Mapping[str, str] | Sequence[str]) -> dict[bytes, str]:
    """Entries of an earlier version have no versions."""
    known = kept if isinstance(kept, Mapping) else dict.fromkeys(kept, "")
    return {bytes.fromhex(one): version for one, version in known.items()}


def _doc(mailing: Mailing) -> str:
    document: dict[str, Any] = {"subject": mailing.subject, "reverse_path": mailing.reverse_path, "sender": mailing.sender,
                                "lists": mailing.lists}  # fmt: skip
    decided = mailing.entry or mailing.grant or mailing.rejection or mailing.disclosure
    if decided or mailing.bounces or mailing.complaints or mailing.copies:
        document |= MAILING.to(mailing)
    try:
        return orjson.dumps(document).decode()
    except orjson.JSONEncodeError:  # a lone surrogate
        return MAILING.dumps(mailing)


@lru_cache(maxsize=64)
def _called(id: str, doc: str) -> Mailing:
    """Cached: the mailing of the moment is read with each batch, and its document rarely changes."""
    return MAILING.back(
        {"first_at": _EPOCH.isoformat(), "last_at": _EPOCH.isoformat(), **orjson.loads(doc), "mailing_id": id}
    )


def called(id: str, at: datetime) -> Mailing:
    """A mailing that has just begun."""
    return Mailing(mailing_id=id, first_at=at, last_at=at, people=_NOBODY)


def _exact(kept: int | list[int] | None) -> tuple[int, ...]:
    """A mailing of an earlier version has one key, or none."""
    return tuple(kept) if isinstance(kept, list) else () if kept is None else (kept,)


NOTHING = "{}"
"""The document of a mailing whose content is erased, all but its number and counts."""
NOBODY = orjson.dumps(
    {"exact": None, "floor": 0, "sums": {}, "fates": [0] * len(CopyStatus), "customers": 0, "messages": 0}
).decode()
