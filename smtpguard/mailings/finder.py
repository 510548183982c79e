"""Find the mailing that a message is a copy of: in the process's cache, then in the table of keys, for many messages at once."""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtpguard.reading.fingerprint import Identity, Sketch, apart

MOST = 5_000
"""The most mailings that a process caches."""
CROWDED = 64
"""A key with this number of mailings distinguishes little: new mailings are stored under their other keys."""
_FEWEST_KEYS = 3
"""A mailing is stored under at least this number of keys, crowded ones included."""
_MOST_CANDIDATES = 32
"""The most mailings that one message is compared with."""
_EXACT = 1 << 61
"""The bit that numbers of exact names have. Those of sketches have 32 bits."""

Select = Callable[..., Iterator[Any]]
"""A function like Batch.among. It gets a statement with ``{}`` for the values of the column before it, these values, and those
of the placeholders before them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMailing:
    """What a mailing is known by: its row's number and id, its exact keys, and its first message's sketch."""

    n: int
    mailing_id: str
    exact: tuple[int, ...]
    sketch: Sketch

    @property
    def keys(self) -> tuple[int, ...]:
        """All keys, as the table of keys has them."""
        return (*self.exact, *self.sketch.keys)


class Memory:
    """The cache of the mailings that were found last, by key."""

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
            numbers = self._by_key[key]
            numbers.discard(n)
            if not numbers:
                del self._by_key[key]

    def find(self, exact: tuple[int, ...], sketch: Sketch) -> KnownMailing | None:
        """Return the mailing of which this is a copy, if it is cached."""
        for keys in (exact, sketch.keys):
            near = {n for key in keys for n in self._by_key.get(key, ())}
            found = nearest((self._known[n] for n in near), exact, sketch)
            if found is not None:
                self._known.move_to_end(found.n)
                return found
        return None


def nearest(candidates: Iterable[KnownMailing], exact: tuple[int, ...], sketch: Sketch) -> KnownMailing | None:
    """Return the candidate that has one of the exact keys; else the one with the nearest sketch, if it is near enough.

    Of about equally near ones it is the first: otherwise one odd copy would attract others.
    """
    best: tuple[float, int] | None = None
    found = None
    for one in candidates:
        if any(key in one.exact for key in exact):
            return one
        far = apart(one.sketch, sketch)
        if far is not None and (best is None or (round(far, 1), one.n) < best):
            best, found = (round(far, 1), one.n), one
    return found


class Finder:
    """The search for mailings in one batch. ``memory``: the process's cache. ``since_us``: a mailing without messages after this
    time is over, and the same text begins another."""

    def __init__(self, select: Select, secret: bytes, memory: Memory, since_us: int) -> None:
        self._select = select
        self._secret = secret
        self.since_us = since_us
        self._memory = memory
        self._here = Memory()  # mailings that this batch has begun
        self._crowded: dict[int, int] = {}  # the oldest mailing that is looked at, by key

    def find(self, identities: Sequence[Identity]) -> list[KnownMailing | None]:
        """Return the existing mailing of each identity, None for none."""
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
        self._crowded |= {key: ns[-CROWDED] for key, ns in filed.items() if len(ns) >= CROWDED}
        near = [
            _likely(filed, exact, identity) if one is None and filed else []
            for exact, identity, one in zip(numbers, identities, known, strict=True)
        ]
        candidates = {k.n: k for k in self._candidates({n for ns in near for n in ns}, filed)}
        for at, (exact, identity, ns) in enumerate(zip(numbers, identities, near, strict=True)):
            found = nearest((candidates[n] for n in ns if n in candidates), exact, identity.sketch) if ns else None
            if found is not None:
                self._memory.add(found)
                known[at] = found
        return known

    def begun_here(self, identity: Identity) -> KnownMailing | None:
        """Return the mailing of this identity that an earlier item of this batch has begun, if any."""
        return self._here.find(self.numbers(identity), identity.sketch)

    def begin(self, identity: Identity, n: int, now_us: int) -> KnownMailing:
        """Begin a mailing under this row number."""
        known = KnownMailing(n=n, mailing_id=self._name(n, now_us), exact=self.numbers(identity), sketch=identity.sketch)  # fmt: skip
        self._here.add(known)
        return known

    def stored_keys(self, known: KnownMailing) -> tuple[int, ...]:
        """Return the keys to store a new mailing under: those that are not crowded, if they are enough."""
        keys = tuple(k for k in known.keys if k not in self._crowded)
        return keys if len(keys) >= _FEWEST_KEYS else known.keys

    def passed_over(self, keys: Iterable[int]) -> list[tuple[int, int]]:
        """Return those of these keys that are crowded, each with the oldest mailing that is looked at: earlier ones only take time."""
        return [(key, self._crowded[key]) for key in keys if key in self._crowded]

    def numbers(self, identity: Identity) -> tuple[int, ...]:
        """Return the exact keys of an identity: digests of its names."""
        names = (name.encode("utf-8", "surrogatepass") for name in identity.names)
        made = (hashlib.blake2b(n, key=self._secret[:64], digest_size=8, person=b"mailing key") for n in names)
        return tuple(int.from_bytes(each.digest(), "big") >> 2 | _EXACT for each in made)

    def _candidates(self, numbers: set[int], filed: Mapping[int, Sequence[int]]) -> Iterator[KnownMailing]:
        sql = "SELECT n, id, sketch FROM mailing WHERE last_at >= ? AND n {}"
        for n, id, sketch in self._select(sql, list(numbers), (self.since_us,)):
            exact = tuple(key for key, under in filed.items() if key >= _EXACT and n in under)
            yield KnownMailing(n=n, mailing_id=id, exact=exact, sketch=Sketch.unpack(bytes(sketch)))

    def _name(self, n: int, now_us: int) -> str:
        """Return a new mailing's id: sixteen letters and digits that reveal nothing."""
        text = f"{n} {now_us}".encode()
        made = hashlib.blake2b(text, key=self._secret[:64], digest_size=10, person=b"mailing name")
        return base64.b32encode(made.digest()).decode("ascii")


def keys_of(exact: tuple[int, ...], identity: Identity) -> tuple[int, ...]:
    return (*exact, *identity.sketch.keys)


def _likely(filed: Mapping[int, Sequence[int]], exact: tuple[int, ...], identity: Identity) -> list[int]:
    """Return the mailings that share keys with the identity, those with exact keys and then with most keys first. If too many share
    as many, as letters with one long footer, the oldest are left out: most copies come while their mailing is new."""
    hits: dict[int, int] = {}
    for key in keys_of(exact, identity):
        for n in filed.get(key, ())[-CROWDED:]:
            hits[n] = hits.get(n, 0) + (100 if key in exact else 1)
    likely = sorted(hits, key=lambda n: (hits[n], n))[-_MOST_CANDIDATES:]
    return sorted(likely, key=lambda n: (-hits[n], n))
