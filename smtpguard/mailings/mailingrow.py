"""A mailing as a row: its columns and documents, and what a batch has of it in memory.

The frequent counts are in one document, written with every batch that has a copy of the mailing; its title and people's
decisions are in another, which changes rarely.

The kind of a recipient is one number: two bits say whether they are a customer or perhaps one, then there is a bit for each list of
the mailing, in the order in which it touched them. Kinds are in the table of people reached and in the sums of a mailing's row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from smtpguard.journal.chain import instant, parsed
from smtpguard.lists.persons import Person
from smtpguard.mail.constant import changed
from smtpguard.mailings.finder import KnownMailing
from smtpguard.mailings.model import MAILING, CopyStatus, Mailing, PeopleCounts
from smtpguard.reading.fingerprint import Sketch

CUSTOMER, MAYBE = 1, 2
CUSTOMERS = CUSTOMER | MAYBE
_FIRST_LIST = 2
_MOST_LISTS = 60
"""The most bits for lists: further lists share the last one."""

COLUMNS = "n, id, first_at, last_at, sketch, counts, doc, went_first, went_last"
ERASED = "{}"
"""The document of a mailing whose content is erased, all but its number and counts."""
NO_COUNTS = orjson.dumps(
    {"exact": None, "floor": 0, "sums": {}, "fates": [0] * len(CopyStatus), "customers": 0, "messages": 0}
).decode()
"""The counts of a mailing whose content is erased."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def kinds(lists: list[str], people: Iterable[Person]) -> Iterator[tuple[Person, int]]:
    """Yield each person with their kind. Lists that are new to the mailing are appended to ``lists``."""
    known: dict[tuple[bool, bool, tuple[str, ...]], int] = {}  # most people of a large mailing are equal in this
    for person in people:
        what = person.customer, bool(person.doubt), person.lists
        kind = known.get(what)
        if kind is None:
            kind = (CUSTOMER if person.customer else 0) | (MAYBE if person.doubt else 0)
            for name in person.lists:
                if name not in lists:
                    lists.append(name)
                kind |= list_bit(lists, name)
            known[what] = kind
        yield person, kind


def list_with_bit(lists: Sequence[str], bit: int) -> str:
    """Return the list of this bit; "" if no list has it, or several share it."""
    at = bit.bit_length() - 1 - _FIRST_LIST
    return lists[at] if bit == 1 << (_FIRST_LIST + at) and 0 <= at < min(len(lists), _MOST_LISTS - 1) else ""


def kind_after(before: int, kind: int) -> int:
    """Return a person's kind after another copy. A customer, or a member of a list, stays that. MAYBE follows the newest copy,
    since a list whose index is back no longer leaves doubt."""
    return kind | (before & ~MAYBE)


def list_bit(lists: Sequence[str], name: str) -> int:
    """Return the bit of this list; 0 if the mailing has touched no such list."""
    if name not in lists:
        return 0
    return 1 << (_FIRST_LIST + min(lists.index(name), _MOST_LISTS - 1))


@dataclass(slots=True)
class Copy:
    """A person's copy of a mailing. Immutable, and shared by people with equal values.

    ``at``: when it was last counted, in microseconds, 0 for never. ``content``: the beginning of the digest of the last copy's
    content. ``went``: when the first copy was sent, or was decided on if it is in flight; 0 for never.
    """

    at: int
    kind: int
    weight: int
    status: CopyStatus
    content: bytes
    went: int


@dataclass(slots=True, kw_only=True)
class MailingRow:
    """A mailing's row during a batch. ``mailing`` has its title and decisions; the other fields have its counts.

    ``sums``: the people in the window by their kind, those later than ``floor``. ``statuses``: the people by status, in the order
    of CopyStatus. ``crowds``: the digests of recipients who are several people each, as list addresses are, with the version of
    the index, "" if unknown. ``unbounded``: the digests of list addresses that may be more people than they count as.
    ``besides``: for a mailing known by its files, checksums of the texts beside them, as many as matter. ``went_us``: when the
    first and the last copy were sent. ``as_read``: the mailing and the document that it was read from, which is written again
    unless the mailing changes. ``people``: the copies of the people who were looked up, None for no row.
    """

    known: KnownMailing
    mailing: Mailing
    first_us: int
    last_us: int
    floor: int
    sums: dict[int, int]
    statuses: list[int]
    customers: int = 0
    messages: int = 0
    crowds: dict[bytes, str] = field(default_factory=dict)
    unbounded: set[bytes] = field(default_factory=set)
    besides: set[int] = field(default_factory=set)
    new: bool = False
    changed: bool = False
    went_us: tuple[int, int] | None = None
    as_read: tuple[Mailing, str] | None = None
    people: dict[bytes, Copy | None] = field(default_factory=dict)

    @classmethod
    def read(cls, n: int, id: str, first: int, last: int, sketch: bytes, counts: str, doc: str,
             went_first: int | None, went_last: int | None) -> MailingRow:  # fmt: skip
        kept, mailing = orjson.loads(counts), mailing_of(id, doc)
        known = KnownMailing(n=n, mailing_id=id, exact=_exact(kept["exact"]), sketch=Sketch.unpack(bytes(sketch)))
        return cls(
            known=known, mailing=mailing, as_read=(mailing, doc), first_us=first, last_us=last, floor=kept["floor"],
            sums={int(k): v for k, v in kept["sums"].items()},
            statuses=[*kept["fates"], *[0] * (len(CopyStatus) - len(kept["fates"]))], customers=kept["customers"],
            messages=kept["messages"], crowds=_crowds(kept.get("crowds", {})),
            went_us=None if went_first is None or went_last is None else (went_first, went_last),
            besides=set(kept.get("besides", ())), unbounded=set(map(bytes.fromhex, kept.get("unbounded", ()))),
        )  # fmt: skip

    def columns(self) -> tuple[Any, ...]:
        """Return the values of all columns, in the order of the table."""
        counts: dict[str, Any] = {"exact": self.known.exact, "floor": self.floor, "sums": {str(k): v for k, v in self.sums.items() if v},
                  "fates": self.statuses, "customers": self.customers, "messages": self.messages}  # fmt: skip
        if self.crowds:
            counts["crowds"] = {digest.hex(): version for digest, version in sorted(self.crowds.items())}
        if self.unbounded:
            counts["unbounded"] = sorted(digest.hex() for digest in self.unbounded)
        if self.besides:
            counts["besides"] = sorted(self.besides)
        mailing, known = self.mailing, self.known
        doc = self.as_read[1] if self.as_read is not None and self.as_read[0] is mailing else document_of(mailing)
        return (
            known.n, known.mailing_id, self.first_us, self.last_us, mailing.state.value, sum(self.statuses[1:]),
            True, known.sketch.pack(), orjson.dumps(counts).decode(), doc,
            *(self.went_us or (None, None)),
        )  # fmt: skip

    def note_sent(self, at: int) -> None:
        """Note that a copy of it was sent at this time."""
        first, last = self.went_us or (at, at)
        if self.went_us != (made := (min(first, at), max(last, at))):
            self.went_us, self.changed = made, True

    def view(self, now: datetime) -> Mailing:
        """Return the mailing as it is now, earlier items of the batch included. A pause that is over has ended, and expired
        decisions are dropped."""
        return changed(
            self.mailing,
            first_at=instant(self.first_us),
            last_at=instant(self.last_us),
            went_first_at=None if self.went_us is None else instant(self.went_us[0]),
            went_last_at=None if self.went_us is None else instant(self.went_us[1]),
            people=PeopleCounts.of(self.statuses),
            customers=self.customers,
            messages=self.messages,
        ).as_of(now)  # fmt: skip


def _crowds(kept: Mapping[str, str] | Sequence[str]) -> dict[bytes, str]:
    """Read the stored crowds. An earlier version stored no versions of indexes."""
    known = kept if isinstance(kept, Mapping) else dict.fromkeys(kept, "")
    return {bytes.fromhex(one): version for one, version in known.items()}


def document_of(mailing: Mailing) -> str:
    """Return the document of a mailing's title and decisions. Without a decision, a hold or reports it has the title alone."""
    fields: dict[str, Any] = {"subject": mailing.subject, "reverse_path": mailing.reverse_path, "sender": mailing.sender,
                                "lists": mailing.lists}  # fmt: skip
    decided = mailing.entry or mailing.grants or mailing.rejection or mailing.disclosure
    if decided or mailing.bounces or mailing.complaints:
        fields |= MAILING.to(mailing)
    try:
        return orjson.dumps(fields).decode()
    except orjson.JSONEncodeError:  # a lone surrogate
        return MAILING.dumps(mailing)


@lru_cache(maxsize=64)
def mailing_of(id: str, doc: str) -> Mailing:
    """Return a mailing with the title and decisions of its document.

    Cached, since the mailing of the moment is read with each batch, and its document rarely changes. An earlier version
    stored the last approval apart from those before it.
    """
    document = parsed(doc)
    grants = [one for one in (document.get("grant"), *document.get("earlier", ())) if one is not None]
    return MAILING.back(
        {"first_at": _EPOCH.isoformat(), "last_at": _EPOCH.isoformat(), "grants": grants, **document, "mailing_id": id}
    )


def _exact(kept: int | list[int] | None) -> tuple[int, ...]:
    """Read the stored exact keys. An earlier version stored one key, or none."""
    return tuple(kept) if isinstance(kept, list) else () if kept is None else (kept,)
