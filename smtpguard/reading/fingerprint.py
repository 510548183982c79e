"""What makes two personalised copies the same mailing: a sketch of their own text, or a key that both bear exactly.

The text is cut into pieces at places that its own words choose, so that a name put into a sentence spoils the pieces around
it and no others; numbers, addresses and links are dropped; the 64 smallest checksums of the pieces are kept. Two copies
share nearly all of them, two mailings nearly none. Whoever keeps mailings finds the likely ones by ``Sketch.keys`` in a
table with an index, and lets ``same`` decide: no scan.
Never here: which text is a message's own (own), or what is counted of a mailing (store).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

SIZE = 64
KEYS = 8
SAME = 0.5
"""Up to this distance two texts are the same mailing."""
COVERED = 0.35
"""Up to this distance a text is what people approved: nearer than to be counted together."""
MOST = 65_536
"""Characters of a text that are looked at."""

# Up to four words in a row, in UTF-8: long segments are cut, so that a name put into a sentence spoils one piece and not the whole.
_PIECE = re.compile(rb"[a-z\x80-\xff]+(?: [a-z\x80-\xff]+){1,3}|[a-z\x80-\xff]{4,}")


@dataclass(frozen=True, slots=True)
class Sketch:
    """The smallest checksums of a text's pieces, ascending and distinct, each of 32 bits; at most ``SIZE`` of them."""

    numbers: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """At most 256 octets, for a table."""
        return struct.pack(f">{len(self.numbers)}I", *self.numbers)

    @classmethod
    def unpack(cls, data: bytes) -> Sketch:
        """Raises ValueError for what ``pack`` did not make."""
        numbers = [n for (n,) in struct.iter_unpack(">I", data)] if len(data) % 4 == 0 else [1, 0]
        return cls.of(numbers)

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Sketch:
        """Raises ValueError."""
        made = tuple(numbers)
        if len(made) > SIZE or any(a >= b for a, b in pairwise(made)):
            raise ValueError("no sketch: at most 64 numbers, each greater than the one before it")
        return cls(made)

    @property
    def keys(self) -> tuple[int, ...]:
        """What to look a mailing up by, and to file it under: two copies share one of these with near certainty."""
        return self.numbers[:KEYS]

    def __bool__(self) -> bool:
        return bool(self.numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a message is a copy of. Two messages are of one mailing if they bear the same ``exact``, or alike sketches.

    ``exact``: a campaign that a verified origin declares; of what has too little text of its own, or none that can be read,
    its Message-ID or a digest of its body. ``sketch`` is empty there. A message may have both; ``exact`` is looked up first.
    """

    exact: str = ""
    sketch: Sketch = Sketch()


def sketch(text: str) -> Sketch:
    """Of a text without pieces, an empty one."""
    pieces = set(_PIECE.findall(text[:MOST].lower().encode("utf-8", "surrogatepass")))
    return Sketch(tuple(sorted(set(map(zlib.crc32, pieces)))[:SIZE]))


def distance(one: Sketch, other: Sketch) -> float:
    """From 0, the same, to 1, nothing in common. An empty sketch is like nothing at all."""
    if not one.numbers or not other.numbers:
        return 1.0
    a, b = set(one.numbers), set(other.numbers)
    # Only the part of the number line that both cover can be compared.
    smallest = sorted(a | b)[: min(SIZE, max(len(a), len(b)))]
    shared = sum(1 for n in smallest if n in a and n in b)
    return 1.0 - shared / len(smallest)


def same(one: Sketch, other: Sketch) -> bool:
    """Whether these are copies of one mailing, so that they are counted together."""
    return distance(one, other) <= SAME


def covers(approved: Identity, this: Identity) -> bool:
    """Whether what people approved is this: its text where both have one, whatever campaign they say they are of."""
    if approved.sketch and this.sketch:
        return distance(approved.sketch, this.sketch) <= COVERED
    return bool(approved.exact) and approved.exact == this.exact and not approved.sketch and not this.sketch
