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
"""Microseconds until a kept sum is counted anew. A row outside every window is kept as long."""
NEVER = -(1 << 62)
"""Older than any entry."""

_EPOCH = 1_577_836_800_000_000  # 2020: so a time fits beside twelve bits until 2091
_BITS, _HOURS = 12, 0xFFF
_EIGHT = {8}
_PAIR = struct.Struct("<qq")


def number(digest: bytes) -> int:
    """The number of a digest, or of other bytes of at least its length."""
    return int.from_bytes(digest[:8], "big", signed=True)


def numbers(digests: Sequence[bytes]) -> Sequence[int]:
    if set(map(len, digests)) == _EIGHT:
        return struct.unpack(f">{len(digests)}q", b"".join(digests))
    return [number(digest) for digest in digests]


def numbered(key: bytes, name: bytes) -> int:
    """The number of a name without a digest."""
    return number(hashlib.blake2b(name, key=key, digest_size=8).digest())


def hours(span_us: int) -> int:
    """In whole hours, as entries have them; at most 170 days."""
    return min(-(-span_us // HOUR), _HOURS)


def entry(at_us: int, for_hours: int) -> int:
    return (at_us - _EPOCH) << _BITS | for_hours


def floor(at_us: int) -> int:
    """Every entry of a later time is greater than this."""
    return (at_us - _EPOCH) << _BITS | _HOURS


def at(entry: int) -> int:
    return (entry >> _BITS) + _EPOCH


def lengthened(entry: int, before: int) -> int:
    """The entry that replaces another one, and lasts at least as long as that one."""
    return max(entry, (entry & ~_HOURS) | (before & _HOURS)) if before != NEVER else entry


def ends(entry: int) -> int:
    """The time from which no window reaches it."""
    return (entry >> _BITS) + _EPOCH + (entry & _HOURS) * HOUR


def pack(entries: Mapping[int, int]) -> bytes:
    return struct.pack(f"<{2 * len(entries)}q", *chain.from_iterable(entries.items()))


def unpack(doc: bytes) -> dict[int, int]:
    return dict(_PAIR.iter_unpack(doc))
