"""Find the mailing that a message is a copy of: in the process's cache, then in the table of keys, for many messages at
once.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtpguard.reading.fingerprint import Identity, Sketch, apart

MOST = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMailing:
    """The identity of a mailing: its row's number and name, its keys in the table, its first message's sketch."""

    n: int
    mailing_id: str
    keys: tuple[int, ...]
    sketch: Sketch


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
        keys = (exact, sketch.keys)
        for some in keys:
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
        if any(key in one.keys for key in exact):
            return one
        far = apart(one.sketch, sketch)
        if far is not None and (best is None or (round(far, 1), one.n) < best):
            best, found = (round(far, 1), one.n), one
    return found


CROWDED = 64
"""A key with this number of mailings distinguishes little: new mailings are stored under their other keys."""
_FILED = 3  # ... but under at least this number of keys
_LOOKED_AT = 32

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
        known = KnownMailing(n=n, mailing_id=self._name(n, now_us), keys=keys_of(self.numbers(identity), identity), sketch=identity.sketch)  # fmt: skip
        self._here.add(known)
        return known

    def filed_under(self, known: KnownMailing) -> tuple[int, ...]:
        """The keys under which it is stored."""
        telling = tuple(k for k in known.keys if k not in self._crowded)
        return telling if len(telling) >= _FILED else known.keys

    def numbers(self, identity: Identity) -> tuple[int, ...]:
        """Its exact names as numbers beside those of sketches, which have 32 bits."""
        return tuple(self._number(name.encode("utf-8", "surrogatepass")) for name in identity.names)

    def _number(self, name: bytes) -> int:
        digest = hashlib.blake2b(name, key=self._secret[:64], digest_size=8, person=b"mailing key").digest()
        return int.from_bytes(digest, "big") >> 2 | 1 << 61

    def _candidates(self, numbers: set[int], filed: Mapping[int, Sequence[int]]) -> Iterator[KnownMailing]:
        keys: dict[int, list[int]] = {}
        for key, under in filed.items():
            for n in under:
                if n in numbers:
                    keys.setdefault(n, []).append(key)
        sql = "SELECT n, id, sketch FROM mailing WHERE last_at >= ? AND n {}"
        for n, id, sketch in self._select(sql, list(numbers), (self.since_us,)):
            made = Sketch.unpack(bytes(sketch))
            yield KnownMailing(n=n, mailing_id=id, keys=tuple({*keys[n], *made.keys}), sketch=made)

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
