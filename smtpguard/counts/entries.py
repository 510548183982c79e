"""The document of a counted person: the scopes they were counted under and when last, and the numbers of people, scopes
and contents.

A number is the first 64 bits of a keyed digest, so it names nobody. An entry is one number as well: its time, and how
long any count can still include it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from itertools import chain

HOUR = 3_600_000_000
"""In microseconds."""
LIFE = 600 * 1_000_000
"""Microseconds until a sum that is kept is made anew; what is out of every window stays as long."""
NEVER = -(1 << 62)
"""An entry that is older than any."""

_EPOCH = 1_577_836_800_000_000  # 2020, so that a time has room beside twelve bits until 2091
_BITS, _HOURS = 12, 0xFFF
_EIGHT = {8}
_PAIR = struct.Struct("<qq")


def number(digest: bytes) -> int:
    """Of a digest, or of what is as short."""
    return int.from_bytes(digest[:8], "big", signed=True)


def numbers(digests: Sequence[bytes]) -> Sequence[int]:
    """Of as many."""
    if set(map(len, digests)) == _EIGHT:
        return struct.unpack(f">{len(digests)}q", b"".join(digests))
    return [number(digest) for digest in digests]


def numbered(key: bytes, name: bytes) -> int:
    """Of what has no digest yet."""
    return number(hashlib.blake2b(name, key=key, digest_size=8).digest())


def hours(span_us: int) -> int:
    """As an entry has them: whole ones, at most 170 days of them."""
    return min(-(-span_us // HOUR), _HOURS)


def entry(at_us: int, for_hours: int) -> int:
    return (at_us - _EPOCH) << _BITS | for_hours


def floor(at_us: int) -> int:
    """Greater than this is each entry that is later."""
    return (at_us - _EPOCH) << _BITS | _HOURS


def at(entry: int) -> int:
    return (entry >> _BITS) + _EPOCH


def lengthened(entry: int, before: int) -> int:
    """The entry that takes the place of another, which lasts as long as that was to at least."""
    return max(entry, (entry & ~_HOURS) | (before & _HOURS)) if before != NEVER else entry


def ends(entry: int) -> int:
    """From then on nothing reaches it."""
    return (entry >> _BITS) + _EPOCH + (entry & _HOURS) * HOUR


def pack(entries: Mapping[int, int]) -> bytes:
    return struct.pack(f"<{2 * len(entries)}q", *chain.from_iterable(entries.items()))


def unpack(doc: bytes) -> dict[int, int]:
    return dict(_PAIR.iter_unpack(doc))
