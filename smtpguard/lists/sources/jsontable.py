"""Addresses at a path in JSON (RFC 8259), read as a stream: memory holds one value, whatever the size of the text.

A path is keys and ``[]`` for every element: ``members[].email``, ``data.customers[].emails[]``, ``[]``. An element without an address is
a bad row. JSON that is cut or malformed anywhere is refused as a whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from smtpguard.lists.sources import Cell, SourceError, Tally

CHUNK = 1 << 16  # octets
LONGEST = 1 << 20
"""The most characters of one value."""
DEEPEST = 100
"""The most levels of arrays and objects."""
_TOKEN = re.compile(
    r'[\s]*(?:(?P<mark>[\[\]{},:])|(?P<string>"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+")|(?P<other>[^\s\[\]{},:"]+)(?=[\s\[\]{},:"]))'
)
_BLANK = re.compile(r"\s*\Z")
_OTHER = re.compile(r"(?:true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\Z")


@dataclass(frozen=True, slots=True)
class JsonTable:
    """The format of members at a path in JSON."""

    path: str

    unit: ClassVar[str] = "element"

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        steps = tuple(re.findall(r"\[\]|[^\[\].]+", self.path))
        return _Walk(steps, name, tally).cells(_tokens(raw, name))


def _tokens(raw: BinaryIO, name: str) -> Iterator[str]:
    """Yield the tokens of one text, as they are read. Raises SourceError."""
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    text, at, ended = "", 0, False
    while True:
        found = _TOKEN.match(text, at)
        if found is not None and (found.end() < len(text) or ended):
            at = found.end()
            yield found[found.lastindex or 0]
        elif ended:
            if _BLANK.match(text, at):
                return
            raise SourceError.saying("{name}: not JSON, or truncated JSON", name=name)
        elif len(text) - at > LONGEST:
            raise SourceError(f"{name}: a value longer than {LONGEST} characters")
        else:
            octets = raw.read(CHUNK)
            ended = not octets
            try:
                text = text[at:] + decode(octets, final=ended) + "\n" * ended  # which ends a top-level number
            except UnicodeDecodeError:
                raise SourceError(f"{name}: the JSON is not UTF-8") from None
            at = 0


class _Walk:
    """A walk through one text. ``_number``: the number of addresses so far, good and bad; ``_met``: whether the path has matched
    at all."""

    def __init__(self, steps: tuple[str, ...], name: str, tally: Tally) -> None:
        self._steps, self._name, self._tally = steps, name, tally
        self._number = 0
        self._met = False

    def cells(self, ahead: Iterator[str]) -> Iterator[Cell]:
        yield from self._value(ahead, self._next(ahead), 0, 0)
        if next(ahead, None) is not None:
            raise SourceError(f"{self._name}: something else follows the JSON")
        if not self._met:
            raise SourceError(f"{self._name}: the JSON has no value at {''.join(self._path())}")

    def _value(self, ahead: Iterator[str], token: str, depth: int, matched: int) -> Iterator[Cell]:
        """Yield the addresses in a value. ``matched``: the number of steps of the path matched so far, -1 outside the path."""
        if depth > DEEPEST:
            raise SourceError(f"{self._name}: JSON nested deeper than {DEEPEST}")
        if token == "[":
            yield from self._array(ahead, depth, self._step(matched, "[]"))
        elif token == "{":
            yield from self._object(ahead, depth, matched)
        elif token[0] == '"':
            text = self._string(token)
            if matched == len(self._steps):
                self._met = True
                yield self._count(), text
        elif not _OTHER.match(token):
            raise SourceError(f"{self._name}: not JSON: expected a value")

    def _array(self, ahead: Iterator[str], depth: int, inside: int) -> Iterator[Cell]:
        self._met = self._met or inside > 0
        token = self._next(ahead)
        while token != "]":
            before = self._number
            yield from self._value(ahead, token, depth + 1, inside)
            if inside > 0 and self._number == before:
                self._tally.reject(self._count(), "no address")
            token = self._further(ahead, "]", "bracket")

    def _count(self) -> int:
        self._number += 1
        self._tally.rows += 1
        return self._number

    def _object(self, ahead: Iterator[str], depth: int, matched: int) -> Iterator[Cell]:
        token = self._next(ahead)
        while token != "}":
            if token[0] != '"' or self._next(ahead) != ":":
                raise SourceError(f"{self._name}: not JSON: expected a key and a colon")
            inside = self._step(matched, self._string(token))
            yield from self._value(ahead, self._next(ahead), depth + 1, inside)
            token = self._further(ahead, "}", "brace")

    def _further(self, ahead: Iterator[str], end: str, noun: str) -> str:
        """Return the first token of the next element, or ``end``. ``noun``: the name of ``end`` in error messages."""
        token = self._next(ahead)
        if token == ",":
            token = self._next(ahead)
            if token == end:
                raise SourceError(f"{self._name}: not JSON: a comma before a {noun}")
        elif token != end:
            raise SourceError(f"{self._name}: not JSON: expected a comma or a {noun}")
        return token

    def _step(self, matched: int, step: str) -> int:
        return matched + 1 if 0 <= matched < len(self._steps) and self._steps[matched] == step else -1

    def _next(self, ahead: Iterator[str]) -> str:
        token = next(ahead, None)
        if token is None:
            raise SourceError.saying("{name}: not JSON, or truncated JSON", name=self._name)
        return token

    def _string(self, token: str) -> str:
        try:
            text: str = json.loads(token)
        except ValueError:
            raise SourceError(f"{self._name}: not JSON: a text with a wrong escape") from None
        return text

    def _path(self) -> Iterator[str]:
        for n, step in enumerate(self._steps):
            yield step if step == "[]" or not n else f".{step}"
