"""What a reading is asked with: bounds of size, depth, parts and time, past which the answer is "too complex", not a
longer wait; and its context, the organization's domains, the vocabularies, and the admins' changes to marks.

Request and Reading as JSON are for the process that reads large or malformed messages. The answer of that process is
data and never code: the type of every value is checked.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TypeVar

from smtpguard.locale.phrase import Phrase
from smtpguard.mail.address import Address
from smtpguard.mail.codec import Codec
from smtpguard.reading.looks import Reading
from smtpguard.reading.marks import Side
from smtpguard.reading.topics import Vocabularies

PROVIDERS = frozenset(
    """
    126.com 163.com aol.com att.net bredband.net comcast.net comhem.se fastmail.com free.fr freenet.de gmail.com
    gmx.at gmx.ch gmx.de gmx.net googlemail.com hotmail.co.uk hotmail.com hotmail.es hotmail.fr hotmail.se icloud.com
    laposte.net libero.it live.com live.se mac.com mail.ru me.com msn.com online.no orange.fr outlook.com posteo.de
    proton.me protonmail.com qq.com sbcglobal.net sfr.fr spray.se t-online.de tele2.se telia.com verizon.net
    wanadoo.fr web.de yahoo.co.uk yahoo.com yahoo.de yahoo.se yandex.ru ymail.com zoho.com
    """.split()  # noqa: SIM905
)
"""Mailbox providers: anybody can have an address in such a domain, so that it is no sign of a colleague."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """A mark of the admins' own. ``header`` empty: it is for the text; ``pattern`` is re2's, ``term`` a plain phrase."""

    name: str
    side: Side
    weight: float
    header: str = ""
    pattern: str = ""
    term: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The context of a reading. ``domains``: the organization's, in A-labels and lower case; their subdomains count.

    ``list_addresses`` (canonical) and ``list_ids`` are those of customer lists: never colleagues. ``weights`` maps a
    mark's name to the admins' weight, 0 to switch it off. ``authserv_ids``: whose Authentication-Results count (RFC
    8601).
    """

    domains: frozenset[str] = frozenset()
    list_addresses: frozenset[str] = frozenset()
    list_ids: frozenset[str] = frozenset()
    delimiters: str = ""
    vocabularies: Vocabularies = field(default_factory=Vocabularies)
    authserv_ids: frozenset[str] = frozenset()
    weights: Mapping[str, float] = field(default_factory=dict)
    customs: tuple[Custom, ...] = ()

    def is_ours(self, domain: str) -> bool:
        domain = domain.lower().rstrip(".")
        while domain:
            if domain in self.domains:
                return True
            domain = domain.partition(".")[2]
        return False

    def is_colleague(self, canonical: str) -> bool:
        """Return whether an address is the organization's, and no customer list's."""
        return canonical not in self.list_addresses and self.is_ours(canonical.rpartition("@")[2])

    def canonical(self, text: str) -> str | None:
        """Return the canonical spelling of an address in a header, None if it is invalid."""
        return _canonical(text, self.delimiters)


@lru_cache(maxsize=4096)
def _canonical(text: str, delimiters: str) -> str | None:
    """Return what ``Surroundings.canonical`` does, cached, since people write more than one message."""
    address = Address.parse_any(text)
    return None if address is None else address.canonical(delimiters)


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
    ``whole`` more of it is too complex: for a quick reading, which a second one follows. ``looks``: how often a step of a
    selector may look at other elements for each.

    ``clock`` gives seconds that never go back; without it time is unlimited (the caller kills the process instead).
    """

    header_fields: int = 2_000
    parts: int = 1_000
    depth: int = 24
    text_bytes: int = 2 << 20
    attached_bytes: int = 256 << 10
    whole: bool = False
    tags: int = 40_000
    tag_depth: int = 400
    looks: int = 3
    seconds: float = 5.0
    clock: Callable[[], float] | None = None


T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that may pause between its steps. Who reads several messages takes each step for all of them, one right after the
other: it finds the code and the tables of the one before in the processor's caches, which saves a fourth of the time."""


def finished(steps: Steps[T]) -> T:
    """Take all steps, and return the result."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result


class Meter:
    """What is left of the bounds during one reading."""

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

    def pause(self) -> Iterator[None]:
        """Pause between two steps. What others do meanwhile takes none of its time."""
        clock = self.bounds.clock
        began = clock() if clock else 0.0
        yield
        if clock and self._end is not None:
            self._end += clock() - began

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


_READINGS, _AROUND = Codec(Reading, checked=True), Codec(Surroundings, checked=True)
_LIMITS = [f.name for f in fields(Bounds) if f.name != "clock"]


class BadReading(ValueError):
    """Octets are not the output of ``dump_reading`` or the other dump functions."""


def dump_reading(reading: Reading) -> bytes:
    return _READINGS.dumps(reading).encode()


def load_reading(data: bytes) -> Reading:
    """Undo ``dump_reading``. Raises BadReading for any other input."""
    try:
        return _READINGS.back(json.loads(data))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, RecursionError) as wrong:
        raise BadReading(f"not a reading: {type(wrong).__name__}") from None


def dump_request(surroundings: Surroundings | None, depth: Depth, bounds: Bounds) -> bytes:
    """Return the head of a request. Without ``surroundings`` those of the previous request are used. The clock is
    left out."""
    around = None if surroundings is None else _AROUND.to(surroundings)
    limits = {name: getattr(bounds, name) for name in _LIMITS}
    return json.dumps({"surroundings": around, "depth": depth.value, "bounds": limits}, default=_plain).encode()


def load_request(data: bytes) -> tuple[Surroundings | None, Depth, Bounds]:
    """Undo ``dump_request``. Raises BadReading, or topics.BadVocabulary."""
    try:
        v = json.loads(data)
        around, limits, depth = v["surroundings"], v["bounds"], Depth(v["depth"])
        return None if around is None else _AROUND.back(around), depth, Bounds(**limits)
    except (KeyError, TypeError) as wrong:
        raise BadReading(f"not a request: {type(wrong).__name__}") from None


def _plain(value: object) -> object:
    """Make mapping types of a YAML loader plain dicts, for JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
