"""The fingerprint of a mailing: a sketch of the text, by which personalised copies match, or an exact key.

The text is cut into pieces at places that its own words choose, so that an inserted name changes only the pieces around
it. Numbers, addresses and links are dropped; the 64 smallest checksums of the pieces are kept. Two copies share nearly
all of them, two mailings nearly none. A store of mailings finds candidates by ``Sketch.keys`` in an indexed table, and
``same`` decides: no scan.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from smtpguard.mail.constant import constant

SIZE = 64
KEYS = 8
SAME = 0.42
"""Up to this distance two texts are the same mailing; ``SAME_SHORT`` if both have fewer than ``SHORT`` pieces, since a
name and a number change a larger share of these. Measured (bench.mailings): copies 0.1 to 0.3, issues of one template
from 0.5 on."""
SAME_SHORT = 0.55
SHORT = 32
SAME_LITTLE = 0.4
LITTLE = 16
"""Different letters of one kind with so few pieces share a third or more, and copies with another name all but one or
two."""
FEWEST = 8
"""A text with fewer pieces has no sketch: tables of numbers, a line of thanks."""
MOST = 65_536
"""The most characters of a text that are used."""

_PIECE = 10  # the least octets of a piece
_URL = re.compile(rb"://[!-~]*")
# White space is a space, every other character that is no letter ends a piece; non-ASCII octets count as letters.
_SPACES = b" \t\r\n\f\v"
_PLAIN = bytes(c if c >= 0x80 or 0x61 <= c <= 0x7A else 0x20 if c in _SPACES else 0x7C for c in range(256))
# A word ends a piece by its own ending, about one in four words: so all copies are cut at the same words. The text is
# cut twice, at different endings, since one cut of a short text makes too few pieces.
_ENDS = ((b"e ", b"n ", b"a "), (b"t ", b"s ", b"r ", b"i ", b"d "))
_ENDS_BEYOND = tuple(
    tuple(bytes((c, 0x20)) for c in several)
    for several in ((0x86, 0x94, 0xA4, 0xA9, 0xB0, 0xB1, 0xB5, 0xB8), (0x80, 0x82, 0x85, 0x8A, 0xAA, 0xB6, 0xBE, 0xBD))
)
_GENERAL = (
    (b"\xc2\xa0", b" "),
    (b"\xe2\x80", b"|"),
    (b"\xe3\x80", b"|"),
    (b"\xef\xbc", b"|"),
)  # spaces and punctuation
# Scripts without spaces (Thai, Lao, Burmese, Khmer, kana, Han) are cut after one in five of their characters.
_UNSPACED = re.compile(rb"[\xe3-\xe9]|\xe0[\xb8-\xbb]|\xe1[\x80-\x82\x9e\x9f]")
_BETWEEN = tuple(
    re.compile(rb"(?<=[" + b"".join(b"\\x%02x" % c for c in range(first, 0xC0, 5)) + rb"])(?=[\xe0\xe1\xe3-\xe9])")
    for first in (0x80, 0x82)
)


@dataclass(frozen=True, slots=True)
class Sketch:
    """The smallest checksums of a text's pieces, ascending and distinct, each of 32 bits; at most ``SIZE`` of them."""

    numbers: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """Return at most 256 octets, for a table."""
        return struct.pack(f">{len(self.numbers)}I", *self.numbers)

    @classmethod
    def unpack(cls, data: bytes) -> Sketch:
        """Undo ``pack``. Raises ValueError for other octets."""
        numbers = [n for (n,) in struct.iter_unpack(">I", data)] if len(data) % 4 == 0 else [1, 0]
        return cls.of(numbers)

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Sketch:
        """Make a sketch of these numbers. Raises ValueError."""
        made = tuple(numbers)
        if len(made) > SIZE or any(a >= b for a, b in pairwise(made)):
            raise ValueError("no sketch: at most 64 numbers, each greater than the one before it")
        return cls(made)

    def as_json(self) -> tuple[int, ...]:
        return self.numbers

    @classmethod
    def from_json(cls, kept: Iterable[float] | Mapping[str, Iterable[float]]) -> Sketch:
        """Undo ``as_json``. Raises ValueError. Schemas up to 0034 kept the numbers under their name."""
        return cls.of(map(int, kept.get("numbers", ()) if isinstance(kept, Mapping) else kept))

    @property
    def keys(self) -> tuple[int, ...]:
        """Return the keys to look a mailing up by, and to store it under: two copies share one with near certainty."""
        return self.numbers[:KEYS]

    def __bool__(self) -> bool:
        return bool(self.numbers)


@constant
class Identity:
    """The identity of a message as a copy. Two messages are of one mailing if they share one of ``names``, or have
    similar sketches.

    ``exact``: a campaign that a verified origin declares; for a message with too little own text a digest of that text
    or of the attached files, its Message-ID or a digest of its body. ``also``: further names of the same kind. A
    message may have a name and a sketch; names are looked up first.

    For a message that shows another's text, or a file, instead of own text: ``instead`` is its identity if that does
    not count; ``quoted`` is the sketch that the text would have as a mailing of its own: if that mailing was sent,
    quoting it is no copy. ``beside`` is a checksum of the few words beside a file: a file that comes with many texts is
    no mailing."""

    exact: str = ""
    sketch: Sketch = Sketch()
    also: tuple[str, ...] = ()
    instead: str = ""
    quoted: Sketch = Sketch()
    beside: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return (self.exact, *self.also) if self.exact else self.also


def sketch(text: str) -> Sketch:
    """Return the sketch of a text, an empty one for a text with fewer than ``FEWEST`` pieces."""
    return _sketch(pieces(text))


def checksums(text: str) -> tuple[int, ...]:
    """Return the checksums of all its pieces, ascending, however few they are."""
    return tuple(sorted(set(map(zlib.crc32, pieces(text)))))


def twofold(text: str, salt: int) -> tuple[Sketch, Sketch]:
    """Return the sketch of a text, and one with this ``salt``, which differs from all sketches without it."""
    found = pieces(text)
    return _sketch(found), _sketch(found, salt)


def _sketch(found: list[bytes], salt: int = 0) -> Sketch:
    numbers = {zlib.crc32(piece, salt) for piece in found} if salt else set(map(zlib.crc32, found))
    return Sketch(tuple(sorted(numbers)[:SIZE])) if len(numbers) >= FEWEST else Sketch()


def pieces(text: str) -> list[bytes]:
    """Return pieces of a few consecutive words each, in UTF-8 and lower case; some more than once."""
    data = text[:MOST].lower().encode("utf-8", "surrogatepass")
    if b"://" in data:
        data = _URL.sub(b"|", data)
    beyond = not data.isascii()
    for found, instead in _GENERAL if beyond else ():
        data = data.replace(found, instead)
    data = b" ".join(data.translate(_PLAIN).split())
    unspaced = beyond and _UNSPACED.search(data) is not None
    made: list[bytes] = []
    for way in range(2):
        cut = data
        for end in (*_ENDS[way], *(_ENDS_BEYOND[way] if beyond else ())):
            cut = cut.replace(end, end[:1] + b"|")
        if unspaced:
            cut = _BETWEEN[way].sub(b"|", cut)
        made += [piece for piece in cut.split(b"|") if len(piece) >= _PIECE]
    return made


def distance(one: Sketch, other: Sketch) -> float:
    """Return a number from 0 (equal) to 1 (nothing in common). An empty sketch is 1 from everything."""
    if not one.numbers or not other.numbers:
        return 1.0
    a, b = set(one.numbers), set(other.numbers)
    # Only the range that both cover can be compared.
    smallest = sorted(a | b)[: min(SIZE, max(len(a), len(b)))]
    return 1.0 - len((a & b).intersection(smallest)) / len(smallest)


def same(one: Sketch, other: Sketch) -> bool:
    """Return whether these are copies of one mailing, so that they are counted together."""
    return apart(one, other) is not None


def apart(one: Sketch, other: Sketch) -> float | None:
    """Return the distance of two copies of one mailing; None if they are not."""
    most = max(len(one.numbers), len(other.numbers))
    found = distance(one, other)
    return found if found <= (SAME_LITTLE if most < LITTLE else SAME_SHORT if most < SHORT else SAME) else None
