"""Parse YAML 1.2 (core schema) within bounds, with the position of every key and value; and validate a document against a
model: every error at once, each with its position in the file, in plain words.

``no``, ``08:00`` and dates stay text. A key occurs once. Aliases, tags and merge keys are errors. All problems are
found in one pass. pydantic finds the errors of a model. Here they get a position, a noun, what was expected, and a
suggestion. Values are never echoed unless a word of a closed set was expected there: a text in the wrong place may be a
secret.
``validate_rest`` leaves the invalid places out, so that the rest can be checked in the same run.
"""

from __future__ import annotations

import codecs
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from smtpguard.config.problem import Broken, Invalid, Problem, Severity, Undeclared, did_you_mean, one_of, ordered
from smtpguard.locale.phrase import many

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
_UNSEEN_OCTETS = re.compile(b"|".join(c.encode() for c in "\x85\u2028\u2029"))


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
    values: Mapping[Place, Mark] = field(repr=False)
    keys: Mapping[Place, Mark] = field(repr=False)

    def mark(self, place: Place, *, key: bool = False) -> Mark:
        """The mark of ``place``, or of the nearest place around it."""
        if key and place in self.keys:
            return self.keys[place]
        while place not in self.values:
            place = place[:-1]
        return self.values[place]

    def problem(self, place: Place, text: str, expected: str = "", hint: str = "", *, key: bool = False) -> Problem:
        mark = self.mark(place, key=key)
        return Problem(mark.file or self.file, mark.line, mark.column, text, expected, hint)


def load_yaml(source: Path | bytes | str, file: str | None = None) -> Document:
    """Read a file (Path) or a text. ``file``: its name in problems. Raises Broken, and OSError for a file."""
    if isinstance(source, Path):
        file = file or str(source)
        with source.open("rb") as stream:
            text: bytes | str = stream.read(MAX_BYTES + 1)
    else:
        text = source
    name = file or "<text>"
    if len(text) > MAX_BYTES:
        raise Broken([Problem(name, 1, 1, f"the file is larger than {MAX_BYTES >> 20} MiB")])
    return _Builder(name, text).document()


class _Builder:
    """Turns events into a value and problems. Stops only if it cannot go on."""

    def __init__(self, file: str, text: bytes | str) -> None:
        self.file = file
        self.text = text
        self.problems: list[Problem] = []
        self.values: dict[Place, Mark] = {}
        self.keys: dict[Place, Mark] = {}

    def document(self) -> Document:
        value: Any = None
        self._unseen()
        if self.problems:  # the parser would count other lines
            raise Broken(self.problems)
        try:
            events = iter(yaml.parse(self.text, Loader=_LOADER))
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
        if isinstance(self.text, bytes) and self.text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self.problems.append(Problem(self.file, 1, 1, "text in UTF-16", "a file in UTF-8"))
            return
        if not (_UNSEEN_OCTETS if isinstance(self.text, bytes) else _UNSEEN).search(self.text):  # type: ignore[arg-type]
            return
        self._report_signs(_UNSEEN, "a line break that editors do not show", "a space, or a new line")

    def _report_signs(self, sign: re.Pattern[str], text: str, expected: str = "") -> None:
        """Report the first characters that it finds."""
        signs = ((n, found) for n, line in enumerate(self._lines(), 1) for found in sign.finditer(line))
        for n, found in islice(signs, _MOST_SIGNS):
            what = f"{text}, U+{ord(found[0]):04X}"
            self.problems.append(Problem(self.file, n, found.start() + 1, what, expected))

    def _lines(self) -> list[str]:
        text = self.text.decode("utf-8", "replace") if isinstance(self.text, bytes) else self.text
        return _BREAK.split(text)

    def _unreadable(self, error: yaml.reader.ReaderError) -> None:
        """Report the position of what is not UTF-8: the parser knows only how far it had read."""
        octets = self.text if isinstance(self.text, bytes) else b""
        try:
            octets.decode("utf-8")
        except UnicodeDecodeError as e:
            before = octets[: e.start]
            line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8")) + 1
            problem = f"an octet that is not UTF-8, 0x{octets[e.start]:02X}"
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


M = TypeVar("M", bound=BaseModel)

_QUOTED = re.compile(r"'([^']*)'")
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


class Section(BaseModel):
    """Base of all models of configuration files: closed, immutable, strict about types."""

    model_config = ConfigDict(
        defer_build=True,
        extra="forbid",
        frozen=True,
        strict=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )


def tag(name: str) -> str:
    """The tag of a section in a union that is chosen by a key of the file. A tag is never a key itself."""
    return f"<{name}>"


def validate(document: Document, model: type[M], context: Mapping[str, Any] | None = None) -> M | list[Problem]:
    """The model, or every problem. ``context`` is passed to the model's validators."""
    value = {} if document.value is None else document.value
    try:
        return model.model_validate(value, context=dict(context or {}))
    except ValidationError as e:
        return list(ordered(_problems(document, model, e.errors(include_url=False))))


def _problems(document: Document, model: type[BaseModel], errors: Collection[ErrorDetails]) -> Iterator[Problem]:
    """Leave out the error of a missing key if a misspelt one beside it was meant for it."""
    found = [(error, problem_of(document, model, error)) for error in errors]
    meant = {(error["loc"][:-1], problem.hint) for error, problem in found}
    for error, problem in found:
        *around, name = error["loc"] or ("",)
        if error["type"] != "missing" or ((*around,), f"did you mean {name}?") not in meant:
            yield problem


def problem_of(document: Document, model: type[BaseModel], error: ErrorDetails) -> Problem:
    place = place_of(document, error["loc"])
    kind, ctx, found = error["type"], error.get("ctx", {}), error["input"]
    noun = _noun(model, place)
    if kind == "extra_forbidden":
        key = str(place[-1]) if place else "?"
        keys = _keys(model, _path_of(document, error["loc"][:-1]))
        if f"{key}_file" in keys:  # a secret must not be in a file that is shown and stored
            return document.problem(
                place, f"{key} must not be in this file", f"{key}_file: the path of a file that holds it", key=True
            )
        return document.problem(place, f'unknown key "{key}"', one_of(keys), did_you_mean(key, keys), key=True)
    if kind == "missing":
        return document.problem(place, f"{error['loc'][-1]} is missing")
    if kind in ("literal_error", "enum"):
        words = _QUOTED.findall(str(ctx["expected"])) or [str(ctx["expected"])]
        if not isinstance(found, str):
            return document.problem(place, f"{_described(found)} for {noun}", one_of(words))
        return document.problem(place, f'unknown {noun} "{found}"', one_of(words), did_you_mean(found, words))
    if kind == "value_error" and isinstance(invalid := ctx.get("error"), ValueError):
        if isinstance(invalid, Invalid):
            return document.problem(place, invalid.text, invalid.expected, invalid.hint)
        return document.problem(place, str(invalid))
    if kind in _WANTED:
        return document.problem(place, f"{_described(found)} for {noun}", _WANTED[kind], _meant(found, _WANTED[kind]))
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        sign, bound = next((w, ctx[k]) for k, w in _BOUNDS.items() if k in ctx)
        return document.problem(place, f"{found} for {noun}", f"{sign} {bound:g}")
    if kind in ("too_short", "string_too_short"):
        return document.problem(place, f"{noun} is empty", f"at least {ctx.get('min_length', 1)}")
    if kind in ("too_long", "string_too_long"):
        of = ("character", "characters") if kind == "string_too_long" else ("entry", "entries")
        return document.problem(place, f"{noun} is too long", f"at most {many(ctx['max_length'], *of)}")
    return document.problem(place, f"{noun}: {error['msg']}")


_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _described(found: object) -> str:
    """The type of the value, never its text."""
    match found:
        case None:
            return "nothing"
        case bool():
            return "true" if found else "false"
        case int() | float():
            return f"the number {found}"  # 1e3 is 1000.0, and no whole number
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return type(found).__name__


def _meant(found: object, wanted: str) -> str:
    """A hint for a truth in a word of YAML 1.1 or in quotes, and for a share in per cent; or "". It names no text."""
    if not isinstance(found, str):
        return ""
    meant = _TRUTHS.get(found.lower(), "") if wanted == "true or false" else ""
    if wanted == "a number" and (share := _PER_CENT.fullmatch(found)):
        meant = f"{float(share[1]) / 100:g}"
    return meant and f"did you mean {meant}?"


_TRUTHS = dict.fromkeys(("yes", "on", "true"), "true") | dict.fromkeys(("no", "off", "false"), "false")
_PER_CENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%")


def place_of(document: Document, loc: tuple[int | str, ...]) -> Place:
    """The parts of pydantic's ``loc`` that are in the file, without names of union members and the like."""
    place: Place = ()
    for part in loc:
        if (*place, part) in document.values:
            place = (*place, part)
        elif part == "[key]":
            break
    return place


def _path_of(document: Document, loc: tuple[int | str, ...]) -> Place:
    """The place, with the tags of the chosen sections."""
    path: Place = ()
    place: Place = ()
    for part in loc:
        if (*place, part) in document.values:
            path, place = (*path, part), (*place, part)
        elif _is_tag(part):
            path = (*path, part)
    return path


def _is_tag(part: int | str) -> bool:
    return isinstance(part, str) and part.startswith("<")


def _noun(model: type[BaseModel], place: Place) -> str:
    """What is expected at ``place``, in a word or two: a field's title, else the key itself."""
    names = [part for part in place if isinstance(part, str)]
    if not names:
        return "the file" if not place else "an entry"
    here: Any = model
    title = ""
    for part in place:
        field, here = _step(here, part)
        if field is not None:
            title = field.title or str(part)
        elif isinstance(part, str):  # a name from the file
            title = _titled(here) or part
    return title or names[-1]


def _titled(annotation: Any) -> str:
    """The title of a type itself."""
    named = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is typing.Annotated else ()
    return next((each.title for each in named if isinstance(each, FieldInfo) and each.title), "")


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that are allowed at ``place``."""
    here: Any = model
    for part in place:
        _, here = _step(here, part)
    return [
        field.alias or name for m in _models(here) or _models(_inside(here)) for name, field in m.model_fields.items()
    ]


def _step(here: Any, part: str | int) -> tuple[FieldInfo | None, Any]:
    """The field named by ``part``, and its type. A single mapping is allowed where a list of them is."""
    if _is_tag(part):
        return None, _tagged(here, part) or _tagged(_inside(here), part) or here
    if isinstance(part, str):
        for m in _models(here) or _models(_inside(here)):
            for name, field in m.model_fields.items():
                if part in (name, field.alias):
                    return field, field.annotation
    return None, _inside(here)


def _tagged(annotation: Any, part: int | str) -> Any:
    """The member of a union with this tag."""
    arguments = typing.get_args(annotation)
    if any(isinstance(a, Tag) and a.tag == part for a in arguments[1:]):
        return annotation
    return next((found for a in arguments if (found := _tagged(a, part)) is not None), None)


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [c for c in _choices(annotation) if isinstance(c, type) and issubclass(c, BaseModel)]


def _choices(annotation: Any) -> list[Any]:
    """The members of a union, without None and Annotated."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _choices(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [c for member in typing.get_args(annotation) for c in _choices(member)]
    return [] if annotation is type(None) else [annotation]


def _inside(annotation: Any) -> Any:
    """The item type of a list, a tuple or a mapping."""
    for choice in _choices(annotation):
        arguments = [a for a in typing.get_args(choice) if a is not Ellipsis]
        if arguments:
            return arguments[-1]
    return None


@dataclass(slots=True, kw_only=True)
class Findings:
    """``sound``: nothing that declares a name was dropped from the document as invalid. Otherwise an unknown name may
    have been declared there, and is not reported."""

    document: Document
    sound: bool
    problems: list[Problem] = field(default_factory=list)

    def problem(self, place: Place, text: str, expected: str = "", hint: str = "", *, key: bool = False) -> None:
        self.problems.append(self.document.problem(place, text, expected, hint, key=key))

    def warn(self, place: Place, text: str, hint: str = "", *, key: bool = False) -> None:
        problem = self.document.problem(place, text, hint=hint, key=key)
        self.problems.append(replace(problem, severity=Severity.WARNING))

    def invalid(self, error: Invalid, place: Place, *, key: bool = False) -> None:
        if self.sound or not isinstance(error, Undeclared):
            self.problem(place, error.text, error.expected, error.hint, key=key)


_ROUNDS = 4


def validate_rest(document: Document, model: type[M]) -> tuple[M | None, Document, list[Problem]]:
    """The model of the valid part, the document of that part with its old positions, and the problems of the rest.

    None if nothing valid is left.
    """
    problems: list[Problem] = []
    rest = document
    for _ in range(_ROUNDS):
        try:
            value = {} if rest.value is None else rest.value
            return model.model_validate(value), rest, list(ordered(problems))
        except ValidationError as e:
            errors = e.errors(include_url=False)
            if rest is document:
                problems = [*_problems(document, model, errors)]
            places = {place_of(rest, error["loc"]) for error in errors}
        if () in places:
            break
        rest = _without(rest, places)
    return None, rest, list(ordered(problems))


def _without(document: Document, places: Collection[Place]) -> Document:
    values: dict[Place, Mark] = {}
    keys: dict[Place, Mark] = {}

    def keep(value: Any, old: Place, new: Place) -> Any:
        values[new] = document.values[old]
        if old in document.keys:
            keys[new] = document.keys[old]
        if isinstance(value, dict):
            return {k: keep(v, (*old, k), (*new, k)) for k, v in value.items() if (*old, k) not in places}
        if isinstance(value, list):
            kept = [(n, v) for n, v in enumerate(value) if (*old, n) not in places]
            return [keep(v, (*old, n), (*new, m)) for m, (n, v) in enumerate(kept)]
        return value

    return Document(file=document.file, value=keep(document.value, (), ()), values=values, keys=keys)
