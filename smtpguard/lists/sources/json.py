"""Addresses at a path in JSON (RFC 8259), read as a stream: memory holds one value, whatever the answer's size.

A path is keys and ``[]`` for every element: ``members[].email``, ``data.customers[].emails[]``, ``[]``. An element
without an address is a bad row; JSON that is cut or malformed anywhere is refused as a whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from smtpguard.lists.sources import Cell, SourceError, Tally

CHUNK = 1 << 16
LONGEST = 1 << 20  # characters of one value
DEEPEST = 100
_TOKEN = re.compile(
    r'[\s]*(?:(?P<mark>[\[\]{},:])|(?P<string>"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+")|(?P<other>[^\s\[\]{},:"]+)(?=[\s\[\]{},:"]))'
)
_BLANK = re.compile(r"\s*\Z")
_OTHER = re.compile(r"(?:true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\Z")


@dataclass(frozen=True, slots=True)
class JsonTable:
    path: str

    unit: ClassVar[str] = "element"

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        steps = tuple(re.findall(r"\[\]|[^\[\].]+", self.path))
        return _Walk(steps, name, tally).cells(_Tokens(raw, name))


class _Tokens:
    """The tokens of one text, as they are read."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self._raw, self._name = raw, name
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False

    def __iter__(self) -> Iterator[str]:
        while True:
            found = _TOKEN.match(self._text, self._at)
            if found is not None and (found.end() < len(self._text) or self._ended):
                self._at = found.end()
                yield found[found.lastindex or 0]
            elif not self._ended:
                self._more()
            elif _BLANK.match(self._text, self._at):
                return
            else:
                raise SourceError(f"{self._name}: not JSON, or truncated JSON")

    def _more(self) -> None:
        if len(self._text) - self._at > LONGEST:
            raise SourceError(f"{self._name}: a value longer than {LONGEST} characters")
        octets = self._raw.read(CHUNK)
        try:
            self._text = self._text[self._at :] + self._decode.decode(octets, final=not octets)
        except UnicodeDecodeError:
            raise SourceError(f"{self._name}: the JSON is not UTF-8") from None
        self._at = 0
        if not octets:
            self._ended = True
            self._text += "\n"  # ends a top-level number


class _Walk:
    """The current position, and whether it matches the path. ``_number`` counts the addresses, good and bad."""

    def __init__(self, steps: tuple[str, ...], name: str, tally: Tally) -> None:
        self._steps, self._name, self._tally = steps, name, tally
        self._number = 0
        self._met = False  # whether the path has matched at all

    def cells(self, tokens: _Tokens) -> Iterator[Cell]:
        ahead = iter(tokens)
        yield from self._value(ahead, self._next(ahead), 0, 0)
        if next(ahead, None) is not None:
            raise SourceError(f"{self._name}: something else follows the JSON")
        if not self._met:
            raise SourceError(f"{self._name}: the JSON has no value at {''.join(self._shown())}")

    def _value(self, ahead: Iterator[str], token: str, depth: int, matched: int) -> Iterator[Cell]:
        """``matched``: the number of steps of the path matched so far, -1 outside the path."""
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
            token = self._next(ahead)
            if token == ",":
                token = self._next(ahead)
                if token == "]":
                    raise SourceError(f"{self._name}: not JSON: a comma before a bracket")
            elif token != "]":
                raise SourceError(f"{self._name}: not JSON: expected a comma or a bracket")

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
            token = self._next(ahead)
            if token == ",":
                token = self._next(ahead)
                if token == "}":
                    raise SourceError(f"{self._name}: not JSON: a comma before a brace")
            elif token != "}":
                raise SourceError(f"{self._name}: not JSON: expected a comma or a brace")

    def _step(self, matched: int, step: str) -> int:
        return matched + 1 if 0 <= matched < len(self._steps) and self._steps[matched] == step else -1

    def _next(self, ahead: Iterator[str]) -> str:
        token = next(ahead, None)
        if token is None:
            raise SourceError(f"{self._name}: not JSON, or truncated JSON")
        return token

    def _string(self, token: str) -> str:
        try:
            text: str = json.loads(token)
        except ValueError:
            raise SourceError(f"{self._name}: not JSON: a text with a wrong escape") from None
        return text

    def _shown(self) -> Iterator[str]:
        for n, step in enumerate(self._steps):
            yield step if step == "[]" or not n else f".{step}"
