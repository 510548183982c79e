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
"""Private values, by role."""
_DOMAIN = b"smtpguard journal entry 1\n"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STRICT = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One link. ``at`` is microseconds since 1970 in UTC; ``body`` is canonical JSON of data and private digests."""

    seq: int
    at: int
    kind: str
    id: str
    body: str
    prev: bytes
    hash: bytes

    @property
    def content(self) -> Mapping[str, Mapping[str, Any]]:
        """``data``, and ``private`` as keyed digests."""
        content: Mapping[str, Mapping[str, Any]] = parsed(self.body)
        return content

    @property
    def data(self) -> Mapping[str, Any]:
        return self.content["data"]

    @property
    def time(self) -> datetime:
        return instant(self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """``told``: the last entry that was accepted, or skipped. ``attempts`` at the next one, failing since
    ``failing_since``, to be repeated at ``next_at``. ``lease``: fences off a process that was too slow."""

    told: int
    attempts: int = 0
    failing_since: datetime | None = None
    next_at: datetime | None = None
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """``entries`` of the wanted kinds, in order: all up to entry ``through``. ``end``: the journal's last entry."""

    entries: Sequence[tuple[Entry, Clear | None]]
    through: int
    end: int


def instant(at: int) -> datetime:
    """The time of microseconds since 1970."""
    return _EPOCH + at * _MICROSECOND


def microseconds(at: datetime) -> int:
    """Exact, where a float of seconds is not."""
    return (at - _EPOCH) // _MICROSECOND


def instant_or_none(at: int | None) -> datetime | None:
    """Of a column in which 0 or NULL is no time."""
    return instant(at) if at else None


def microseconds_or_0(at: datetime | None) -> int:
    return 0 if at is None else microseconds(at)


def utc_text(at: datetime, timespec: str = "seconds") -> str:
    """The time as documents have it: ISO 8601, in UTC, with Z."""
    return at.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def moment(at: int) -> str:
    """The time of microseconds since 1970 as people read it."""
    return f"{instant(at):%Y-%m-%d %H:%M:%S} UTC"


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no space, ASCII. A number without a JSON form (NaN) is null. Raises
    TypeError or ValueError for a value that is not JSON."""
    try:
        text = orjson.dumps(value, option=_STRICT).decode()
    except orjson.JSONEncodeError:  # a lone surrogate, a number beyond 64 bits, or no JSON value
        return _encode(value)
    return text if text.isascii() else _encode(value)


def parsed(text: str) -> Any:
    """The value of a text by ``canonical``. Raises ValueError for text that is not JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # it may be a lone surrogate
        return json.loads(text)


ERASED = "(erased)"
"""In place of a clear value that was erased for the person whom it named. The journal has its digest (Seal.fits)."""


_REPEATED = frozenset({"reverse_path", "from", "actor", "helo", "facts"})
"""Roles whose values are often those of an earlier message."""


class Seal:
    """Keyed digests of private values, of one installation and one journal: they cannot join two journals. ``erased``: whether the
    value of a digest was erased for a person, by the journal. ``remembers``: it keeps digests of values that many messages
    repeat."""

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
        """16 bytes in hexadecimal."""
        digest = self._keyed.copy()
        digest.update(f"{role}\0{value}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def all(self, private: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        remembered, often = self._remembered, self._repeated
        sealed = {}
        for role, values in private.items():
            of = remembered if role in often else self.of
            sealed[role] = [of(role, values[0])] if len(values) == 1 else [*map(of, repeat(role), values)]
        return sealed

    def fits(self, sealed: object, private: Mapping[str, Sequence[str]]) -> bool:
        """Whether clear values are those of the digests, or were erased. Raises TypeError and AttributeError if they are no such values."""
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
    if not event.private:
        return f'{{"data":{canonical(dict(event.data))},"private":{{}}}}'
    return canonical({"data": dict(event.data), "private": seal.all(event.private)})


def may_say(body: str, name: str, value: str = "") -> bool:
    """Whether a body may have this name, with a value that begins so: a look at nearly all mail that is not decoded for
    it. Sound, since a canonical body has each name in quotes and a colon after it, without a space; a text in which the
    same stands is only decoded in vain."""
    return f'"{name}":{value}' in body


def says_only(body: str, name: str, value: str) -> bool:
    """Whether this name surely has no other value anywhere in a body. As ``may_say``."""
    return body.count(f'"{name}":') == body.count(f'"{name}":{value}')


NAMELESS = '"private":{}}'
"""The end of the body of an entry without private values."""


def clear_of(event: Event) -> str | None:
    """Its private values in clear, as stored beside the entry; None if it has none."""
    return canonical(dict(event.private)) if event.private else None


def clear_from(doc: str) -> Clear:
    """Text that is not JSON was not written here: it fits no digests, which the verification reports."""
    try:
        clear: Clear = parsed(doc)
    except ValueError:
        return {"": (doc,)}
    return clear


def event_from(kind: str, id: str, at: datetime, body: str, clear: str | None) -> Event:
    private = parsed(clear) if clear is not None else {}
    return Event(
        kind=Kind(kind),
        id=id,
        at=at,
        data=parsed(body)["data"],
        private={role: tuple(values) for role, values in private.items()},
    )


def link(prev: bytes, seq: int, at: int, kind: str, id: str, body: str) -> bytes:
    """The hash of the entry with these fields after the entry whose hash is ``prev``."""
    text = f"{seq} {at} {len(kind)}:{kind} {len(id)}:{id} {len(body)}:{body}"
    return sha256(_DOMAIN + prev + text.encode("utf-8", "surrogatepass")).digest()


def runs_on(rows: Sequence[Any], seq: int, prev: bytes) -> tuple[int, bytes]:
    """How many entries follow entry ``seq``, whose hash is ``prev``, one after the other, and the hash of the last. Each
    row begins with number, time, kind, id, body, the hash before it and its own. ``link``, for many."""
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
"""Keys of a verdict's data that contain further ids of the message."""
_KIND = Kind.VERDICT.value
_RELAY = "relay"


class Columns(NamedTuple):
    """``action``: of a verdict that does not relay. ``observed``: True if a rule only observed. ``lists``: those that
    it touches, and ``names``: the hold, mailing and freeze ids in it; each on a line of its own between line ends."""

    action: str | None = None
    observed: bool | None = None
    lists: str | None = None
    names: str | None = None


NO_COLUMNS = Columns()


def columns_of(kind: str, id: str, data: Mapping[str, Any]) -> Columns:
    """The columns of an entry with this ``data``; all empty if it is no verdict."""
    if kind != _KIND:
        return NO_COLUMNS
    get = data.get
    action, lists = get("action"), get("lists")
    if action == _RELAY and not lists and not get("observed") and not any(map(get, NAMED)):
        return NO_COLUMNS  # as for nearly all mail
    names = [name for key in NAMED if isinstance(name := get(key), str) and name and name != id]
    return Columns(
        action=action if isinstance(action, str) and action != _RELAY else None,
        observed=True if data.get("observed") else None,
        lists=lines(lists) if lists and isinstance(lists, (list, tuple)) else None,
        names=lines(dict.fromkeys(names)) if names else None,
    )


def lines(names: Collection[str]) -> str:
    """Each on a line of its own between line ends."""
    return "".join(("\n", *(f"{_line(name)}\n" for name in names)))


def _line(name: object) -> str:
    return name if isinstance(name, str) and name.isprintable() else ascii(name)
