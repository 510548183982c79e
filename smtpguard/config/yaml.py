"""Parse YAML 1.2 (core schema) within bounds, with the position of every key and value. All problems are found in one pass.

``no``, ``08:00`` and dates stay text. A key occurs once. Aliases, tags and merge keys are errors.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from smtpguard.config.problem import Broken, Problem

MAX_BYTES = 4 << 20
MAX_DEPTH = 40
MAX_VALUES = 500_000

Place = tuple[str | int, ...]
"""A path into a document: keys and indexes."""

_Event = Any  # the stubs declare less than the parser gives
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OTHER_INT = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: Mapping[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


_MENDS = (
    ("mapping values are not allowed", "quotes around a text with a colon, or the indentation of the lines around it"),
    ("did not find expected key", "the indentation of the lines around it"),
    ("did not find expected '-' indicator", "the indentation of the lines around it"),
    ("could not find expected ':'", "a colon and a space after the key"),
    ("did not find expected <document start>", "one document in each file"),
    ("did not find expected ',' or", "a comma, or the closing bracket"),
    ("found unexpected end of stream", "the closing quote"),
    ("tab character", "spaces, not a tab"),
)
"""Messages of the parser, and what usually helps."""

_BREAK = re.compile(r"\r\n|\r|\n")
_UNSEEN = re.compile("[\x85\u2028\u2029]")
"""Line breaks of YAML 1.1, and of the parser, that YAML 1.2 and editors do not take for any: what follows one in a comment would be in force
unseen."""
_MOST_SIGNS = 20


@dataclass(frozen=True, slots=True)
class Mark:
    """A position; both numbers count from 1. ``file``: if it differs from the document's."""

    line: int
    column: int
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One file's value, with the marks of its keys and values by place; the root's place is ``()``."""

    file: str
    value: Any
    values: dict[Place, Mark] = field(repr=False)
    keys: dict[Place, Mark] = field(repr=False)

    def mark(self, place: Place, *, key: bool = False) -> Mark:
        """Return the mark of ``place``, or of the nearest place around it."""
        if key and place in self.keys:
            return self.keys[place]
        while place not in self.values:
            place = place[:-1]
        return self.values[place]

    def problem(
        self, place: Place, text: str, expected: str = "", hint: str = "", *, key: bool = False, fatal: bool = True
    ) -> Problem:
        mark = self.mark(place, key=key)
        return Problem(mark.file or self.file, mark.line, mark.column, text, expected, hint, fatal)


def load_yaml(source: Path | bytes | str, file: str | None = None) -> Document:
    """Read a file (Path) or a text. ``file``: its name in problems. Raises Broken, and OSError for a file."""
    if isinstance(source, Path):
        file = file or str(source)
        with source.open("rb") as stream:
            octets = stream.read(MAX_BYTES + 1)
    else:
        octets = source.encode() if isinstance(source, str) else source
    name = file or "<text>"
    if len(octets) > MAX_BYTES:
        raise Broken([Problem(name, 1, 1, f"the file is larger than {MAX_BYTES >> 20} MiB")])
    return _Builder(name, octets).document()


class _Builder:
    """Turns events into a value and problems. Stops only if it cannot go on."""

    def __init__(self, file: str, octets: bytes) -> None:
        self.file = file
        self.octets = octets
        self.problems: list[Problem] = []
        self.values: dict[Place, Mark] = {}
        self.keys: dict[Place, Mark] = {}

    def document(self) -> Document:
        value: Any = None
        self._unseen()
        if self.problems:  # the parser would count other lines
            raise Broken(self.problems)
        try:
            events = iter(yaml.parse(self.octets, Loader=_LOADER))
            documents = 0
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents == 2:
                        self._report(event, "a second document", "one document in each file")
                        break
                elif isinstance(event, yaml.NodeEvent):
                    value = self._node(event, events, (), 0)
        except _TooMuch:
            pass
        except yaml.MarkedYAMLError as e:
            self._syntax(e)
        except yaml.reader.ReaderError as e:
            self._unreadable(e)
        if self.problems:
            raise Broken(self.problems)
        self.values.setdefault((), Mark(1, 1))
        return Document(file=self.file, value=value, values=self.values, keys=self.keys)

    def _node(self, event: _Event, events: Iterator[_Event], place: Place, depth: int) -> Any:
        mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        self.values[place] = mark
        if depth > MAX_DEPTH:
            self._report(event, f"nested deeper than {MAX_DEPTH} levels")
            raise _TooMuch
        if len(self.values) > MAX_VALUES:
            self._report(event, f"more than {MAX_VALUES} values")
            raise _TooMuch
        if isinstance(event, yaml.AliasEvent):
            self._report(event, f"an alias, *{event.anchor}", "the value itself, written out")
            return None
        if event.tag is not None:
            self._report(event, f"a tag, {event.tag}", "a value without a tag")
        if event.anchor is not None:
            self._report(event, f"an anchor, &{event.anchor}", "the value without it")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(following := next(events), yaml.SequenceEndEvent):
                items.append(self._node(following, events, (*place, len(items)), depth + 1))
            return items
        return self._mapping(events, place, depth)

    def _mapping(self, events: Iterator[_Event], place: Place, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        unmarked = False  # another entry of a list begins in it, without a hyphen
        while not isinstance(key_event := next(events), yaml.MappingEndEvent):
            key: str | None = None
            if isinstance(key_event, yaml.ScalarEvent):
                key = key_event.value  # a key is text, whatever it looks like: 5 is "5"
            else:
                self._report(key_event, "a key that is not a scalar", "a word before the colon")
                self._node(key_event, events, (*place, "?"), depth + 1)
            if key is not None and key in mapping and not unmarked:
                first = self.keys[(*place, key)].line
                unmarked = isinstance(place[-1] if place else "", int) and key == next(iter(mapping))
                expected = "a hyphen before it, if it begins another entry" if unmarked else ""
                self._report(key_event, f'duplicate key "{key}": first on line {first}', expected)
            here = (*place, "?" if key is None else key)
            self.keys.setdefault(here, Mark(key_event.start_mark.line + 1, key_event.start_mark.column + 1))
            value = self._node(next(events), events, here, depth + 1)
            if key is not None:
                mapping.setdefault(key, value)
        return mapping

    def _report(self, event: _Event, text: str, expected: str = "") -> None:
        mark = event.start_mark
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, text, expected))

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        begun = error.context_mark
        since = f" (from line {begun.line + 1})" if error.context and begun and begun.line + 1 < line else ""
        what = ", ".join(part for part in (f"{error.context or ''}{since}", error.problem) if part)
        expected = next((mend for sign, mend in _MENDS if sign in what), "")
        if "cannot start any token" in what:
            sign = self._lines()[line - 1][column - 1 : column]
            expected = "spaces, not a tab" if sign == "\t" else "quotes around it"
        self.problems.append(Problem(self.file, line, column, f"not YAML: {what}", expected))

    def _unseen(self) -> None:
        if self.octets.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self.problems.append(Problem(self.file, 1, 1, "text in UTF-16", "a file in UTF-8"))
        elif _UNSEEN.search(self.octets.decode("utf-8", "replace")):
            self._report_signs(_UNSEEN, "a line break that editors do not show", "a space, or a new line")

    def _report_signs(self, sign: re.Pattern[str], text: str, expected: str = "") -> None:
        """Report the first characters that it finds."""
        signs = ((n, found) for n, line in enumerate(self._lines(), 1) for found in sign.finditer(line))
        for n, found in islice(signs, _MOST_SIGNS):
            what = f"{text}, U+{ord(found[0]):04X}"
            self.problems.append(Problem(self.file, n, found.start() + 1, what, expected))

    def _lines(self) -> list[str]:
        return _BREAK.split(self.octets.decode("utf-8", "replace"))

    def _unreadable(self, error: yaml.reader.ReaderError) -> None:
        """Report the position of what is not UTF-8: the parser knows only how far it had read."""
        try:
            self.octets.decode("utf-8")
        except UnicodeDecodeError as e:
            before = self.octets[: e.start]
            line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8")) + 1
            problem = f"an octet that is not UTF-8, 0x{self.octets[e.start]:02X}"
            self.problems.append(Problem(self.file, line, column, problem, "a file in UTF-8"))
        else:
            what = f"not text that YAML knows: {error.reason}"
            self._report_signs(yaml.reader.Reader.NON_PRINTABLE, what)
            if not self.problems:
                self.problems.append(Problem(self.file, 1, 1, what))


class _TooMuch(Exception):
    """A bound was exceeded: the rest is not read."""


def _scalar(event: _Event) -> Any:
    text = event.value
    if not event.implicit[0]:  # quoted or a block: text, whatever it looks like
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text) or _OTHER_INT.match(text):
        return int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) < 20 else text
    if _FLOAT.match(text):
        return float(text)
    return text


def on_a_line(value: Any) -> str:
    """A value as YAML that can stand in a flow mapping."""
    made = yaml.safe_dump([value], default_flow_style=True, width=1_000_000, allow_unicode=True, sort_keys=False)
    return str(made).strip()[1:-1]
