"""The journal as a hash chain: how an event becomes an entry, and how a whole chain is proved, or its first bad entry named.

An entry's hash is SHA-256 over a domain tag, the hash before it, and its own fields with their lengths, so that nothing can
be edited, removed, put in or moved without a later hash disagreeing. What names a person (``Event.private``) enters the
chain as keyed digests only: the clear values lie beside it and can be erased without touching it.

Never here: where entries are kept (store), or the signatures that find a recomputed chain (checkpoint).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from smtpguard.audit.checkpoint import Checkpoint
from smtpguard.audit.event import Event

GENESIS = bytes(32)
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
        content: Mapping[str, Mapping[str, Any]] = json.loads(self.body)
        return content

    @property
    def data(self) -> Mapping[str, Any]:
        return self.content["data"]

    @property
    def time(self) -> datetime:
        return instant(self.at)


def instant(at: int) -> datetime:
    """The time of so many microseconds."""
    return _EPOCH + at * _MICROSECOND


def microseconds(at: datetime) -> int:
    """Exact, where a float of seconds is not."""
    return (at - _EPOCH) // _MICROSECOND


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no space, ASCII. Raises TypeError or ValueError for what is not JSON, save
    that a number which JSON has no form for is null."""
    try:
        text = orjson.dumps(value, option=_STRICT).decode()
    except orjson.JSONEncodeError:  # a lone surrogate, a number beyond 64 bits; or what is no JSON at all
        return _encode(value)
    return text if text.isascii() else _encode(value)


class Seal:
    """Keyed digests of private values, of one installation and one journal: two journals cannot be joined by them."""

    def __init__(self, secret: bytes, journal: str) -> None:
        key = hmac.digest(secret, b"smtpguard journal private " + journal.encode(), "sha256")
        self._keyed = hashlib.blake2b(key=key, digest_size=16)

    def of(self, role: str, value: str) -> str:
        """16 bytes in hexadecimal."""
        digest = self._keyed.copy()
        digest.update(f"{role}\0{value}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def all(self, private: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        return {role: [self.of(role, value) for value in values] for role, values in private.items()}


def body_of(event: Event, seal: Seal) -> str:
    if not event.private:
        return f'{{"data":{canonical(dict(event.data))},"private":{{}}}}'
    return canonical({"data": dict(event.data), "private": seal.all(event.private)})


def link(prev: bytes, seq: int, at: int, kind: str, id: str, body: str) -> bytes:
    """The hash of the entry with these fields after the entry whose hash is ``prev``."""
    text = f"{seq} {at} {len(kind)}:{kind} {len(id)}:{id} {len(body)}:{body}"
    return hashlib.sha256(_DOMAIN + prev + text.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """The first entry that is not as it was written, and what is wrong with it."""

    seq: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a walk over the whole chain found. ``entries`` is how many were seen."""

    entries: int
    first_bad: Bad | None = None

    @property
    def ok(self) -> bool:
        return self.first_bad is None


Clear = Mapping[str, Sequence[str]]


def verify(
    entries: Iterable[tuple[Entry, Clear | None]],
    checkpoints: Sequence[Checkpoint],
    seal: Seal,
    *,
    erased_through: int = 0,
) -> Proof:
    """Walk the chain once, in order. ``checkpoints`` are genuine ones (checkpoint.genuine) of this journal.

    Each entry comes with its clear values, or None where they are not there; up to ``erased_through`` they may be gone.
    A chain whose beginning was trimmed by retention begins after a checkpoint that says so (``base``).
    """
    marks = {c.seq: c for c in checkpoints}
    stream = iter(entries)
    seen, seq, prev = 0, 0, GENESIS
    agreed = 0  # the last checkpoint that agreed
    for entry, clear in stream:
        seen += 1
        if seen == 1 and entry.seq != 1:
            base = marks.get(entry.seq - 1)
            if base is not None and base.base and base.hash == entry.prev:
                seq, prev, agreed = base.seq, base.hash, base.seq
        problem = _problem(entry, seq, prev, stream)
        if problem is None and not _clear_fits(entry, clear, seal, erased_through):
            problem = (
                "private values are missing" if clear is None else "edited: private values do not fit their digests"
            )
        if problem is not None:
            at = min(entry.seq, seq + 1) if entry.seq > seq else entry.seq
            return Proof(entries=seen, first_bad=Bad(seq=at, problem=problem))
        seq, prev = entry.seq, entry.hash
        mark = marks.get(seq)
        if mark is not None:
            if mark.hash != entry.hash:
                problem = f"recomputed: the chain differs from its signed checkpoint at {seq}, somewhere after {agreed}"
                return Proof(entries=seen, first_bad=Bad(seq=seq, problem=problem))
            agreed = seq
    last = max(marks, default=0)
    if last > seq:
        problem = f"the tail is cut: a signed checkpoint knows entries up to {last}"
        return Proof(entries=seen, first_bad=Bad(seq=seq + 1, problem=problem))
    return Proof(entries=seen)


def _problem(entry: Entry, seq: int, prev: bytes, rest: Iterator[tuple[Entry, Clear | None]]) -> str | None:
    """What is wrong with ``entry`` after the entry ``seq`` whose hash is ``prev``; None if nothing."""
    whole = link(entry.prev, entry.seq, entry.at, entry.kind, entry.id, entry.body) == entry.hash
    if whole and entry.seq == seq + 1 and entry.prev == prev:
        return None
    if whole and entry.seq > seq + 1:
        one = entry.seq == seq + 2
        return f"missing: entry {seq + 1} is gone" if one else f"missing: entries {seq + 1} to {entry.seq - 1} are gone"
    if whole:
        return "replaced: this entry does not follow the one before it"
    if entry.prev == prev:
        return "edited: the entry does not fit its hash"
    # Moved here from elsewhere? Then some later entry follows it, and under its own number it is whole.
    for other, _ in rest:
        if other.prev == entry.hash:
            own = link(entry.prev, other.seq - 1, entry.at, entry.kind, entry.id, entry.body)
            return "reordered: the entry stood elsewhere" if own == entry.hash else "edited, and moved"
    return "inserted: the entry belongs to no chain"


def _clear_fits(entry: Entry, clear: Clear | None, seal: Seal, erased_through: int) -> bool:
    if clear is None and (entry.seq <= erased_through or entry.body.endswith('"private":{}}')):
        return True
    digests = json.loads(entry.body).get("private", {})
    return bool(digests == ({} if clear is None else seal.all(clear)))
