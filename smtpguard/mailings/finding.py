"""Which mailing a message is a copy of: asked of what the process remembers, then of the table of keys, for many at once."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from smtpguard.mailings.mailingcache import Known, Memory, nearest
from smtpguard.reading.fingerprint import Identity, Sketch

CROWDED = 64
"""Mailings under one key, from which on it tells little: a new one is filed under its others."""
_FILED = 3  # ... but under so many at least
_LOOKED_AT = 32

Select = Callable[[str, Sequence[Any]], Iterator[Any]]
"""A statement with ``{}`` where its values go, and these, however many."""


class Finder:
    """Of one batch. ``memory`` is the process's. A mailing of which nothing came ``since_us`` is over: the same text begins
    another."""

    def __init__(self, select: Select, secret: bytes, memory: Memory, since_us: int) -> None:
        self._select = select
        self._secret = secret
        self.since_us = since_us
        self._memory = memory
        self._here = Memory()  # those that this batch has begun
        self._crowded: set[int] = set()

    def find(self, identities: Sequence[Identity]) -> list[Known | None]:
        """Of each the mailing that is there already."""
        numbers = [self.numbers(i) for i in identities]
        known = [self._memory.find(ns, i.sketch) for ns, i in zip(numbers, identities, strict=True)]
        keys = {
            k for ns, i, found in zip(numbers, identities, known, strict=True) if found is None for k in keys_of(ns, i)
        }
        if not keys:
            return known
        filed: dict[int, list[int]] = {}
        for key, n in self._select("SELECT key, n FROM mailing_key WHERE key IN ({}) ORDER BY n", list(keys)):
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

    def begun_here(self, identity: Identity) -> Known | None:
        """The mailing that an earlier item of this batch has begun."""
        return self._here.find(self.numbers(identity), identity.sketch)

    def begin(self, identity: Identity, n: int, now_us: int) -> Known:
        known = Known(n=n, mailing_id=self._name(n, now_us), keys=keys_of(self.numbers(identity), identity), sketch=identity.sketch)  # fmt: skip
        self._here.add(known)
        return known

    def filed_under(self, known: Known) -> tuple[int, ...]:
        """The keys under which it is to be found."""
        telling = tuple(k for k in known.keys if k not in self._crowded)
        return telling if len(telling) >= _FILED else known.keys

    def numbers(self, identity: Identity) -> tuple[int, ...]:
        """Its names as numbers beside those of sketches, which have 32 bits."""
        return tuple(self._number(name.encode("utf-8", "surrogatepass")) for name in identity.names)

    def _number(self, name: bytes) -> int:
        digest = hashlib.blake2b(name, key=self._secret[:64], digest_size=8, person=b"mailing key").digest()
        return int.from_bytes(digest, "big") >> 2 | 1 << 61

    def _candidates(self, ns: set[int], filed: Mapping[int, Sequence[int]]) -> Iterator[Known]:
        keys: dict[int, list[int]] = {}
        for key, under in filed.items():
            for n in under:
                if n in ns:
                    keys.setdefault(n, []).append(key)
        sql = f"SELECT n, id, sketch FROM mailing WHERE n IN ({{}}) AND last_at >= {self.since_us:d}"
        for n, id, sketch in self._select(sql, list(ns)):
            made = Sketch.unpack(bytes(sketch))
            yield Known(n=n, mailing_id=id, keys=tuple({*keys[n], *made.keys}), sketch=made)

    def _name(self, n: int, now_us: int) -> str:
        """Sixteen letters and digits, that tell nothing."""
        text = f"{n} {now_us}".encode()
        made = hashlib.blake2b(text, key=self._secret[:64], digest_size=10, person=b"mailing name")
        return base64.b32encode(made.digest()).decode("ascii")


def keys_of(exact: tuple[int, ...], identity: Identity) -> tuple[int, ...]:
    return (*exact, *identity.sketch.keys)


def _likely(filed: Mapping[int, Sequence[int]], exact: tuple[int, ...], identity: Identity) -> list[int]:
    """The mailings that share most keys with it."""
    hits: dict[int, int] = {}
    for key in keys_of(exact, identity):
        for n in filed.get(key, ())[-CROWDED:]:
            hits[n] = hits.get(n, 0) + (100 if key in exact else 1)
    return sorted(hits, key=lambda n: (-hits[n], n))[:_LOOKED_AT]
