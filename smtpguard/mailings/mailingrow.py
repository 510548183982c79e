"""A mailing as a row: its columns and documents, what a batch keeps of it in memory, and the keys by which it is found.

The frequent counts are in one document, written with every batch that has a copy of the mailing; its title and people's
decisions are in another, which changes rarely. The mailing that a message is a copy of is looked for in the process's
cache, then in the table of keys, for many messages at once.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from smtpguard.journal.chain import instant, parsed
from smtpguard.mail.constant import changed
from smtpguard.mailings.model import MAILING, CopyStatus, Mailing, Person, Tally
from smtpguard.reading.fingerprint import Identity, Sketch, apart

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
    unbounded: set[bytes] = field(default_factory=set)
    """Lists by their address that may be more people than they count as."""
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
        kept, mailing = orjson.loads(counts), titled(id, doc)
        known = KnownMailing(n=n, mailing_id=id, exact=_exact(kept["exact"]), sketch=Sketch.unpack(bytes(sketch)))
        return cls(
            known=known, mailing=mailing, as_read=(mailing, doc), first_us=first, last_us=last, floor=kept["floor"],
            sums={int(k): v for k, v in kept["sums"].items()},
            statuses=[*kept["fates"], *[0] * (len(CopyStatus) - len(kept["fates"]))], customers=kept["customers"],
            messages=kept["messages"], crowds=_crowds(kept.get("crowds", {})),
            went_us=None if went_first is None or went_last is None else (went_first, went_last),
            besides=set(kept.get("besides", ())), unbounded=set(map(bytes.fromhex, kept.get("unbounded", ()))),
        )  # fmt: skip

    def written(self) -> tuple[Any, ...]:
        """All columns."""
        counts: dict[str, Any] = {"exact": self.known.exact, "floor": self.floor, "sums": {str(k): v for k, v in self.sums.items() if v},
                  "fates": self.statuses, "customers": self.customers, "messages": self.messages}  # fmt: skip
        if self.crowds:
            counts["crowds"] = {one.hex(): version for one, version in sorted(self.crowds.items())}
        if self.unbounded:
            counts["unbounded"] = sorted(one.hex() for one in self.unbounded)
        if self.besides:
            counts["besides"] = sorted(self.besides)
        mailing, known = self.mailing, self.known
        doc = self.as_read[1] if self.as_read is not None and self.as_read[0] is mailing else document(mailing)
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
            first_at=instant(self.first_us),
            last_at=instant(self.last_us),
            went_first_at=None if self.went_us is None else instant(self.went_us[0]),
            went_last_at=None if self.went_us is None else instant(self.went_us[1]),
            people=Tally.of(self.statuses),
            customers=self.customers,
            messages=self.messages,
        ).as_of(now)  # fmt: skip


def _crowds(kept: Mapping[str, str] | Sequence[str]) -> dict[bytes, str]:
    """Entries of an earlier version have no versions."""
    known = kept if isinstance(kept, Mapping) else dict.fromkeys(kept, "")
    return {bytes.fromhex(one): version for one, version in known.items()}


def document(mailing: Mailing) -> str:
    fields: dict[str, Any] = {"subject": mailing.subject, "reverse_path": mailing.reverse_path, "sender": mailing.sender,
                                "lists": mailing.lists}  # fmt: skip
    decided = mailing.entry or mailing.grant or mailing.rejection or mailing.disclosure
    if decided or mailing.bounces or mailing.complaints or mailing.copies:
        fields |= MAILING.to(mailing)
    try:
        return orjson.dumps(fields).decode()
    except orjson.JSONEncodeError:  # a lone surrogate
        return MAILING.dumps(mailing)


@lru_cache(maxsize=64)
def titled(id: str, doc: str) -> Mailing:
    """Its title and decisions. Cached: the mailing of the moment is read with each batch, and its document rarely changes."""
    return MAILING.back(
        {"first_at": _EPOCH.isoformat(), "last_at": _EPOCH.isoformat(), **parsed(doc), "mailing_id": id}
    )


def _exact(kept: int | list[int] | None) -> tuple[int, ...]:
    """A mailing of an earlier version has one key, or none."""
    return tuple(kept) if isinstance(kept, list) else () if kept is None else (kept,)


NOTHING = "{}"
"""The document of a mailing whose content is erased, all but its number and counts."""
NOBODY = orjson.dumps(
    {"exact": None, "floor": 0, "sums": {}, "fates": [0] * len(CopyStatus), "customers": 0, "messages": 0}
).decode()


MOST = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMailing:
    """The identity of a mailing: its row's number and name, its exact keys, its first message's sketch."""

    n: int
    mailing_id: str
    exact: tuple[int, ...]
    sketch: Sketch

    @property
    def keys(self) -> tuple[int, ...]:
        """In the table."""
        return (*self.exact, *self.sketch.keys)


class Memory:
    """The mailings met last, by key."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, KnownMailing] = OrderedDict()
        self._by_key: dict[int, set[int]] = {}

    def add(self, known: KnownMailing) -> None:
        self.forget(known.n)
        self._known[known.n] = known
        for key in known.keys:
            self._by_key.setdefault(key, set()).add(known.n)
        while len(self._known) > MOST:
            self.forget(next(iter(self._known)))

    def forget(self, n: int) -> None:
        known = self._known.pop(n, None)
        for key in known.keys if known is not None else ():
            there = self._by_key[key]
            there.discard(n)
            if not there:
                del self._by_key[key]

    def find(self, exact: tuple[int, ...], sketch: Sketch) -> KnownMailing | None:
        """The mailing of which this is a copy, if it is cached."""
        for some in (exact, sketch.keys):
            near = {n for key in some for n in self._by_key.get(key, ())}
            found = nearest((self._known[n] for n in near), exact, sketch)
            if found is not None:
                self._known.move_to_end(found.n)
                return found
        return None


def nearest(candidates: Iterable[KnownMailing], exact: tuple[int, ...], sketch: Sketch) -> KnownMailing | None:
    """The candidate that has one of the exact keys; else the one with the nearest sketch, if it is near enough. Among
    about equally near ones the first: otherwise one odd copy would attract others."""
    best: tuple[float, int] | None = None
    found = None
    for one in candidates:
        if any(key in one.exact for key in exact):
            return one
        far = apart(one.sketch, sketch)
        if far is not None and (best is None or (round(far, 1), one.n) < best):
            best, found = (round(far, 1), one.n), one
    return found


CROWDED = 64
"""A key with this number of mailings distinguishes little: new mailings are stored under their other keys."""
_FILED = 3  # ... but under at least this number of keys
_LOOKED_AT = 32
_EXACT = 1 << 61
"""In the numbers of exact names. Those of sketches have 32 bits."""

Select = Callable[..., Iterator[Any]]
"""A statement with ``{}`` for the values of the column before it, any number of values, and those of placeholders
before them (Batch.among)."""


class Finder:
    """For one batch. ``memory`` is the process's. A mailing without messages after ``since_us`` is over: the same text
    begins another."""

    def __init__(self, select: Select, secret: bytes, memory: Memory, since_us: int) -> None:
        self._select = select
        self._secret = secret
        self.since_us = since_us
        self._memory = memory
        self._here = Memory()  # mailings that this batch has begun
        self._crowded: set[int] = set()

    def find(self, identities: Sequence[Identity]) -> list[KnownMailing | None]:
        """For each identity the existing mailing."""
        numbers = [self.numbers(i) for i in identities]
        known = [self._memory.find(ns, i.sketch) for ns, i in zip(numbers, identities, strict=True)]
        keys = {
            k for ns, i, found in zip(numbers, identities, known, strict=True) if found is None for k in keys_of(ns, i)
        }
        if not keys:
            return known
        filed: dict[int, list[int]] = {}
        for key, n in self._select("SELECT key, n FROM mailing_key WHERE key {} ORDER BY n", list(keys)):
            filed.setdefault(key, []).append(n)
        self._crowded |= {key for key, ns in filed.items() if len(ns) >= CROWDED}
        near = [
            _likely(filed, exact, identity) if one is None and filed else []
            for exact, identity, one in zip(numbers, identities, known, strict=True)
        ]
        there = {k.n: k for k in self._candidates({n for ns in near for n in ns}, filed)}
        for at, (exact, identity, ns) in enumerate(zip(numbers, identities, near, strict=True)):
            found = nearest((there[n] for n in ns if n in there), exact, identity.sketch) if ns else None
            if found is not None:
                self._memory.add(found)
                known[at] = found
        return known

    def begun_here(self, identity: Identity) -> KnownMailing | None:
        """The mailing that an earlier item of this batch has begun."""
        return self._here.find(self.numbers(identity), identity.sketch)

    def begin(self, identity: Identity, n: int, now_us: int) -> KnownMailing:
        known = KnownMailing(n=n, mailing_id=self._name(n, now_us), exact=self.numbers(identity), sketch=identity.sketch)  # fmt: skip
        self._here.add(known)
        return known

    def filed_under(self, known: KnownMailing) -> tuple[int, ...]:
        telling = tuple(k for k in known.keys if k not in self._crowded)
        return telling if len(telling) >= _FILED else known.keys

    def numbers(self, identity: Identity) -> tuple[int, ...]:
        """Its exact names."""
        names = (name.encode("utf-8", "surrogatepass") for name in identity.names)
        made = (hashlib.blake2b(n, key=self._secret[:64], digest_size=8, person=b"mailing key") for n in names)
        return tuple(int.from_bytes(each.digest(), "big") >> 2 | _EXACT for each in made)

    def _candidates(self, numbers: set[int], filed: Mapping[int, Sequence[int]]) -> Iterator[KnownMailing]:
        sql = "SELECT n, id, sketch FROM mailing WHERE last_at >= ? AND n {}"
        for n, id, sketch in self._select(sql, list(numbers), (self.since_us,)):
            exact = tuple(key for key, under in filed.items() if key >= _EXACT and n in under)
            yield KnownMailing(n=n, mailing_id=id, exact=exact, sketch=Sketch.unpack(bytes(sketch)))

    def _name(self, n: int, now_us: int) -> str:
        """Sixteen letters and digits that reveal nothing."""
        text = f"{n} {now_us}".encode()
        made = hashlib.blake2b(text, key=self._secret[:64], digest_size=10, person=b"mailing name")
        return base64.b32encode(made.digest()).decode("ascii")


def keys_of(exact: tuple[int, ...], identity: Identity) -> tuple[int, ...]:
    return (*exact, *identity.sketch.keys)


def _likely(filed: Mapping[int, Sequence[int]], exact: tuple[int, ...], identity: Identity) -> list[int]:
    hits: dict[int, int] = {}
    for key in keys_of(exact, identity):
        for n in filed.get(key, ())[-CROWDED:]:
            hits[n] = hits.get(n, 0) + (100 if key in exact else 1)
    return sorted(hits, key=lambda n: (-hits[n], n))[:_LOOKED_AT]
