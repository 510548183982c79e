"""What makes two personalised copies the same mailing: a sketch of the text in 64 numbers.

The text is cut where copies differ (numbers, addresses, links, punctuation), digits dropped; the 64 smallest checksums
of the segments are kept. Two copies share nearly all of them, two mailings nearly none. Never here: what to do about it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

SIZE = 64
SAME = 0.5
"""Up to this distance two texts are the same mailing; measured: copies at most 0.12, strangers at least 0.88."""

# Up to four words in a row, in UTF-8: long segments are cut, so that a name put into a sentence spoils one piece and not the whole.
_PIECE = re.compile(rb"[a-z\x80-\xff]+(?: [a-z\x80-\xff]+){1,3}|[a-z\x80-\xff]{4,}")
MOST = 200_000


def sketch(text: str) -> tuple[int, ...]:
    """The smallest ``SIZE`` checksums of the segments of ``text``, in order. Of a text without segments, none."""
    pieces = set(_PIECE.findall(text[:MOST].lower().encode("utf-8", "surrogatepass")))
    return tuple(sorted(set(map(zlib.crc32, pieces)))[:SIZE])


def distance(one: Sequence[int], other: Sequence[int]) -> float:
    """From 0, the same, to 1, nothing in common. Nothing is alike to an empty sketch, save another."""
    if not one or not other:
        return 0.0 if not one and not other else 1.0
    a, b = set(one), set(other)
    # Only the part of the number line that both cover can be compared.
    smallest = sorted(a | b)[: min(SIZE, max(len(a), len(b)))]
    shared = sum(1 for n in smallest if n in a and n in b)
    return 1.0 - shared / len(smallest)
