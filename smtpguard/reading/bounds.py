"""The bounds of a reading: size, depth, parts and time. Past a bound the answer is "too complex", not a longer wait."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from smtpguard.locale.phrase import Phrase


class Depth(enum.Enum):
    """How far to read: the header only (tens of microseconds), the text as well, or everything that is shown, to be
    compared."""

    HEADERS = "headers"
    TEXT = "text"
    SHOWN = "shown"
    __hash__ = object.__hash__  # Enum's takes the name's, in Python


class TooComplex(Exception):
    """A bound was passed. ``why`` says which, for people."""

    def __init__(self, why: Phrase) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of one reading. Shown text counts as a whole. Attached text is read up to ``attached_bytes``; with
    ``whole`` more of it is too complex: for a quick reading, which a second one follows.

    ``clock`` gives monotonic seconds; without it time is unlimited (the caller kills the process instead).
    """

    header_fields: int = 2_000
    parts: int = 1_000
    depth: int = 24
    text_bytes: int = 2 << 20
    attached_bytes: int = 256 << 10
    whole: bool = False
    tags: int = 40_000
    tag_depth: int = 400
    seconds: float = 5.0
    clock: Callable[[], float] | None = None


class Meter:
    """The rest of the bounds, during one reading."""

    __slots__ = ("_end", "bounds", "parts", "text_bytes")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.parts = 0
        self.text_bytes = 0
        self._end = bounds.clock() + bounds.seconds if bounds.clock else None

    def look_at_the_clock(self) -> None:
        clock = self.bounds.clock
        if clock and self._end is not None and clock() > self._end:
            raise TooComplex(Phrase("reading it takes more than {seconds} seconds", seconds=f"{self.bounds.seconds:g}"))

    def take_part(self, depth: int) -> None:
        self.parts += 1
        if self.parts > self.bounds.parts:
            raise TooComplex(Phrase("it has more than {n} parts", n=self.bounds.parts))
        if depth > self.bounds.depth:
            raise TooComplex(Phrase("its parts are nested deeper than {n}", n=self.bounds.depth))
        if self._end is not None and not self.parts % 16:
            self.look_at_the_clock()

    def take_text(self, n: int) -> None:
        self.text_bytes += n
        if self.text_bytes > self.bounds.text_bytes:
            raise TooComplex(Phrase("it has more than {n} KiB of text", n=self.bounds.text_bytes >> 10))
        self.look_at_the_clock()
