"""The journal as a hash chain: how an event becomes an entry.

An entry's hash is SHA-256 over a domain tag, the hash before it, and its own fields with their lengths. So nothing can
be edited, removed, inserted or moved without a later hash disagreeing. What names a person (``Event.private``) enters
the chain as keyed digests only: the clear values are stored beside it and can be erased without touching the chain.

The columns by which SQL selects verdicts are derived from the body of their entry. The walk that proves the chain compares
them with it: emptying a column does not hide a verdict from a report. For a relayed message that is of no list and no
mailing, all of them are empty.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

import orjson

from smtpguard.journal.event import Event, Kind
from smtpguard.mail.constant import sha256

GENESIS = bytes(32)
Clear = Mapping[str, Sequence[str]]
"""Private values in clear, by role."""
_DOMAIN = b"smtpguard journal entry 1\n"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STRICT = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A link of the chain. ``at``: microseconds since 1970 in UTC; ``body``: canonical JSON of data and private digests."""

    seq: int
    at: int
    kind: str
    id: str
    body: str
    prev: bytes
    hash: bytes

    @property
    def content(self) -> Mapping[str, Mapping[str, Any]]:
        """The content of the body: ``data``, and ``private`` as keyed digests."""
        content: Mapping[str, Mapping[str, Any]] = parsed(self.body)
        return content

    @property
    def data(self) -> Mapping[str, Any]:
        return self.content["data"]

    @property
    def time(self) -> datetime:
        return instant(self.at)


Pair = tuple[Entry, Clear | None]
"""An entry, and its private values in clear; None if it has none, or they are erased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The position of a receiver of entries. ``told``: the last entry that it accepted, or that was skipped. ``attempts``: the number of
    attempts at the next one, which have failed since ``failing_since`` and go on at ``next_at``. ``lease``: the number of the
    last lease, which fences off a process that was too slow."""

    told: int
    attempts: int = 0
    failing_since: datetime | None = None
    next_at: datetime | None = None
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """All entries of the wanted kinds up to entry ``through``, in order. ``end``: the journal's last entry."""

    entries: Sequence[Pair]
    through: int
    end: int


def instant(at: int) -> datetime:
    """Return the time of microseconds since 1970."""
    return _EPOCH + at * _MICROSECOND


def microseconds(at: datetime) -> int:
    """Return microseconds since 1970. They are exact, as a float of seconds is not."""
    return (at - _EPOCH) // _MICROSECOND


def instant_or_none(at: int | None) -> datetime | None:
    """Return the time in a column in which 0 or NULL means none."""
    return instant(at) if at else None


def microseconds_or_0(at: datetime | None) -> int:
    return 0 if at is None else microseconds(at)


def utc_text(at: datetime, timespec: str = "seconds") -> str:
    """Return a time as ISO 8601, in UTC, with Z."""
    return at.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def utc_text_or_none(at: datetime | None) -> str | None:
    return None if at is None else utc_text(at)


def readable_time(at: int) -> str:
    """Return the time of microseconds since 1970 as people read it."""
    return f"{instant(at):%Y-%m-%d %H:%M:%S} UTC"


def canonical(value: object) -> str:
    """Return the canonical JSON text of a value: sorted keys, no space, ASCII. A number without a JSON form (NaN) is null. Raises
    TypeError or ValueError for a value that is not JSON."""
    try:
        text = orjson.dumps(value, option=_STRICT).decode()
    except orjson.JSONEncodeError:  # a lone surrogate, a number beyond 64 bits, or no JSON value
        return _encode(value)
    return text if text.isascii() else _encode(value)


def parsed(text: str) -> Any:
    """Return the value of a text that ``canonical`` has made. Raises ValueError for text that is not JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # it may be a lone surrogate
        return json.loads(text)


ERASED = "(erased)"
"""Stands for a clear value that was erased for the person whom it named. The journal has its digest (Seal.fits)."""
_REPEATED = frozenset({"reverse_path", "from", "actor", "helo", "facts"})
"""The roles whose values are often those of an earlier message."""


class Seal:
    """Makes keyed digests of private values. The key is of one installation and one journal, so that digests cannot join two journals.
    ``erased``: returns whether the journal says that the value of a digest was erased for a person. ``remembers``: cache the
    digests of values that many messages repeat."""

    def __init__(
        self,
        secret: bytes,
        journal: str,
        erased: Callable[[str], bool] = lambda digest: False,
        *,
        remembers: bool = False,
    ) -> None:
        self._erased = erased
        self._repeated = _REPEATED if remembers else frozenset()
        key = hmac.digest(secret, b"smtpguard journal private " + journal.encode(), "sha256")
        self._keyed = hashlib.blake2b(key=key, digest_size=16)
        self._remembered = lru_cache(maxsize=1024)(self.of) if remembers else self.of

    def of(self, role: str, value: str) -> str:
        """Return the digest of a value, 16 octets in hexadecimal."""
        digest = self._keyed.copy()
        digest.update(f"{role}\0{value}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def all(self, private: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Return the digests of all private values, by role."""
        remembered, often = self._remembered, self._repeated
        sealed = {}
        for role, values in private.items():
            of = remembered if role in often else self.of
            sealed[role] = [of(role, values[0])] if len(values) == 1 else [*map(of, repeat(role), values)]
        return sealed

    def fits(self, sealed: object, private: Mapping[str, Sequence[str]]) -> bool:
        """Return whether clear values are those of the digests, or were erased. Raises TypeError and AttributeError if they have another
        shape."""
        made = self.all(private)
        if made == sealed:
            return True
        if not isinstance(sealed, dict) or sealed.keys() != made.keys():
            return False
        return all(
            len(digests) == len(values)
            and all(
                of == digest or (value == ERASED and self._erased(digest))
                for digest, of, value in zip(digests, made[role], values, strict=True)
            )
            for role, values in private.items()
            for digests in [sealed[role]]
        )


def body_of(event: Event, seal: Seal) -> str:
    """Return the body of an event's entry."""
    if not event.private:
        return f'{{"data":{canonical(dict(event.data))},"private":{{}}}}'
    return canonical({"data": dict(event.data), "private": seal.all(event.private)})


def may_say(body: str, name: str, value: str = "") -> bool:
    """Return whether a body may have this name with a value that begins so. It saves decoding the entries of nearly all mail.

    It is never wrong when it is False: in a canonical body each name is in quotes, and a colon follows without a space. A text
    with the same characters is only decoded in vain.
    """
    return f'"{name}":{value}' in body


def says_only(body: str, name: str, value: str) -> bool:
    """Return whether this name surely has no other value anywhere in a body, as ``may_say`` does."""
    return body.count(f'"{name}":') == body.count(f'"{name}":{value}')


NAMELESS = '"private":{}}'
"""The end of the body of an entry without private values."""


def clear_of(event: Event) -> str | None:
    """Return the private values of an event in clear, as they are stored beside its entry; None if it has none."""
    return canonical(dict(event.private)) if event.private else None


def clear_from(doc: str) -> Clear:
    """Return stored private values. Text that is not JSON was not written here; it fits no digests, which the verification reports."""
    try:
        clear: Clear = parsed(doc)
    except ValueError:
        return {"": (doc,)}
    return clear


def first_of(private: Clear | None, role: str) -> str:
    """Return the first value of a role; "" if there is none, or it is erased."""
    return next(iter((private or {}).get(role, ())), "")


def event_from(kind: str, id: str, at: datetime, body: str, clear: str | None) -> Event:
    """Return the event of an entry, from its columns."""
    private = parsed(clear) if clear is not None else {}
    return Event(
        kind=Kind(kind),
        id=id,
        at=at,
        data=parsed(body)["data"],
        private={role: tuple(values) for role, values in private.items()},
    )


def link(prev: bytes, seq: int, at: int, kind: str, id: str, body: str) -> bytes:
    """Return the hash of the entry with these fields that follows the entry with hash ``prev``."""
    text = f"{seq} {at} {len(kind)}:{kind} {len(id)}:{id} {len(body)}:{body}"
    return sha256(_DOMAIN + prev + text.encode("utf-8", "surrogatepass")).digest()


def runs_on(rows: Sequence[Any], seq: int, prev: bytes) -> tuple[int, bytes]:
    """Return how many rows follow entry ``seq`` with hash ``prev`` one after the other, and the hash of the last of them. Each row
    begins with number, time, kind, id, body, the hash before it and its own. It is ``link`` for many."""
    digest, first = hashlib.sha256, seq + 1
    for n, at, kind, id, body, before, hash, *_ in rows:
        text = f"{n} {at} {len(kind)}:{kind} {len(id)}:{id} {len(body)}:{body}"
        if n != seq + 1 or before != prev:
            break
        if digest(b"%b%b%b" % (_DOMAIN, prev, text.encode("utf-8", "surrogatepass"))).digest() != hash:
            break
        seq, prev = n, hash
    return seq + 1 - first, prev


NAMED = ("hold", "mailing", "with", "freeze")
"""The keys of a verdict's data that have further ids of the message."""
_KIND = Kind.VERDICT.value
_RELAY = "relay"


class Columns(NamedTuple):
    """The columns by which verdicts are selected. ``action``: of a verdict that does not relay. ``observed``: True if a rule only
    observed. ``lists``: the lists that the message touches, and ``names``: the ids of its hold, mailing and freeze, both as
    ``lines``."""

    action: str | None = None
    observed: bool | None = None
    lists: str | None = None
    names: str | None = None


NO_COLUMNS = Columns()


def columns_of(kind: str, id: str, data: Mapping[str, Any]) -> Columns:
    """Return the columns of an entry with this ``data``; all are empty if it is no verdict."""
    if kind != _KIND:
        return NO_COLUMNS
    get = data.get
    action, lists = get("action"), get("lists")
    if action == _RELAY and not lists and not get("observed") and not any(map(get, NAMED)):
        return NO_COLUMNS  # nearly all mail
    names = [name for key in NAMED if isinstance(name := get(key), str) and name and name != id]
    return Columns(
        action=action if isinstance(action, str) and action != _RELAY else None,
        observed=True if data.get("observed") else None,
        lists=lines(lists) if lists and isinstance(lists, (list, tuple)) else None,
        names=lines(dict.fromkeys(names)) if names else None,
    )


def lines(names: Collection[str]) -> str:
    """Return the names, each on a line of its own between line ends."""
    return "".join(("\n", *(f"{_line(name)}\n" for name in names)))


def _line(name: object) -> str:
    return name if isinstance(name, str) and name.isprintable() else ascii(name)
