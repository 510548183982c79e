"""Validate a document against a model: every error at once, each with its position in the file, in plain words.

pydantic finds the errors. Here they get a position, a noun, what was expected, and a suggestion. A value is never echoed
unless a word of a closed set was expected there: a text in the wrong place may be a secret.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from smtpguard.config.problem import Broken, Invalid, Problem, Undeclared, did_you_mean, one_of, ordered
from smtpguard.config.yaml import Document, Mark, Place
from smtpguard.locale.phrase import many

M = TypeVar("M", bound=BaseModel)

_QUOTED = re.compile(r"'([^']*)'")
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
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
    """Return the tag of a section in a union, which a key of the file chooses. A tag is never a key."""
    return f"<{name}>"


def validate(document: Document, model: type[M], context: Mapping[str, Any] | None = None) -> M:
    """``context``: for the model's validators. Raises Broken with every problem."""
    value = {} if document.value is None else document.value
    try:
        return model.model_validate(value, context=context)
    except ValidationError as e:
        raise Broken(_problems(document, model, e.errors(include_url=False))) from None


def _problems(document: Document, model: type[BaseModel], errors: Collection[ErrorDetails]) -> Iterator[Problem]:
    """Yield the problems, without a missing key that a misspelt one beside it means."""
    found = [(error, problem_of(document, model, error)) for error in errors]
    meant = {(error["loc"][:-1], problem.hint) for error, problem in found}
    for error, problem in found:
        *around, name = error["loc"] or ("",)
        if error["type"] != "missing" or ((*around,), f"did you mean {name}?") not in meant:
            yield problem


def problem_of(document: Document, model: type[BaseModel], error: ErrorDetails) -> Problem:
    """Return the problem of an error of pydantic."""
    place, _ = _place_and_path(document, error["loc"])
    kind, ctx, found = error["type"], error.get("ctx", {}), error["input"]
    noun = _noun(model, place)
    if kind == "extra_forbidden":
        key = str(place[-1]) if place else "?"
        _, path = _place_and_path(document, error["loc"][:-1])
        keys = _keys(model, path)
        if f"{key}_file" in keys:  # a secret must not be in a file that is shown and stored
            return document.problem(
                place, f"{key} must not be in this file", f"{key}_file: the path of a file that holds it", key=True
            )
        hint = did_you_mean(key, keys) or _belongs(model, path, key)
        return document.problem(place, f'unknown key "{key}"', one_of(keys), hint, key=True)
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
    """Return the type of a value in words, never its text."""
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
    """Return a hint for a truth in quotes or in a word of YAML 1.1, and for a share in per cent, else "". It names no text."""
    if not isinstance(found, str):
        return ""
    meant = _TRUTHS.get(found.lower(), "") if wanted == "true or false" else ""
    if wanted == "a number" and (share := _PER_CENT.fullmatch(found)):
        meant = f"{float(share[1]) / 100:g}"
    return meant and f"did you mean {meant}?"


_TRUTHS = dict.fromkeys(("yes", "on", "true"), "true") | dict.fromkeys(("no", "off", "false"), "false")
_PER_CENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%")


def _place_and_path(document: Document, loc: tuple[int | str, ...]) -> tuple[Place, Place]:
    """Return the parts of pydantic's ``loc`` that are in the file, without names of union members and the like; and these with the
    tags of the chosen sections."""
    place: Place = ()
    path: Place = ()
    for part in loc:
        if (*place, part) in document.values:
            place, path = (*place, part), (*path, part)
        elif part == "[key]":
            break
        elif _is_tag(part):
            path = (*path, part)
    return place, path


def _is_tag(part: int | str) -> bool:
    return isinstance(part, str) and part.startswith("<")


def _noun(model: type[BaseModel], place: Place) -> str:
    """Return what is expected at ``place``, in a word or two: a field's title, else the key."""
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
    """Return the title of a type, "" if it has none."""
    named = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is typing.Annotated else ()
    return next((each.title for each in named if isinstance(each, FieldInfo) and each.title), "")


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    """Return the keys that are allowed at ``place``."""
    here: Any = model
    for part in place:
        _, here = _step(here, part)
    return list(_fields(here))


def _fields(section: Any) -> dict[str, FieldInfo]:
    models = _models(section) or _models(_inside(section))
    return {field.alias or name: field for m in models for name, field in m.model_fields.items()}


def _belongs(model: type[BaseModel], place: Place, key: str) -> str:
    """Return a hint at the section that has this key, if it is the one nearest below ``place``, or is around it; else ""."""
    around: list[Any] = [model]
    for part in place:
        around.append(_step(around[-1], part)[1])
    below: list[tuple[tuple[str, ...], Any]] = [((), around[-1])]
    for _ in range(_DEEPEST):
        below = [((*names, name), f.annotation) for names, section in below for name, f in _fields(section).items()]
        if found := {names for names, section in below if key in _fields(section)}:
            return f"it belongs in {'.'.join(found.pop())}" if len(found) == 1 else ""
    for part, section in zip(reversed(place), reversed(around[:-1]), strict=True):
        if isinstance(part, str) and not _is_tag(part) and key in _fields(section):
            return f"it belongs beside {part}"
    return ""


_DEEPEST = 3


def _step(here: Any, part: str | int) -> tuple[FieldInfo | None, Any]:
    """Return the field that ``part`` names, and its type. A mapping may stand where a list of mappings is expected."""
    if _is_tag(part):
        return None, _tagged(here, part) or _tagged(_inside(here), part) or here
    if isinstance(part, str):
        for m in _models(here) or _models(_inside(here)):
            for name, field in m.model_fields.items():
                if part in (name, field.alias):
                    return field, field.annotation
    return None, _inside(here)


def _tagged(annotation: Any, part: int | str) -> Any:
    """Return the member of a union with this tag."""
    arguments = typing.get_args(annotation)
    if any(isinstance(a, Tag) and a.tag == part for a in arguments[1:]):
        return annotation
    return next((found for a in arguments if (found := _tagged(a, part)) is not None), None)


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [c for c in _choices(annotation) if isinstance(c, type) and issubclass(c, BaseModel)]


def _choices(annotation: Any) -> list[Any]:
    """Return the members of a union, without None and Annotated."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _choices(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [c for member in typing.get_args(annotation) for c in _choices(member)]
    return [] if annotation is type(None) else [annotation]


def _inside(annotation: Any) -> Any:
    """Return the item type of a list, a tuple or a mapping."""
    for choice in _choices(annotation):
        arguments = [a for a in typing.get_args(choice) if a is not Ellipsis]
        if arguments:
            return arguments[-1]
    return None


@dataclass(slots=True, kw_only=True)
class Findings:
    """Collects problems of a document. ``sound``: no section that declares names was left out as invalid. If one was, an
    unknown name may be declared there, and is not reported."""

    document: Document
    sound: bool
    problems: list[Problem] = field(default_factory=list)

    def problem(self, place: Place, text: str, expected: str = "", hint: str = "", *, key: bool = False) -> None:
        self.problems.append(self.document.problem(place, text, expected, hint, key=key))

    def warn(self, place: Place, text: str, hint: str = "", *, key: bool = False) -> None:
        self.problems.append(self.document.problem(place, text, hint=hint, key=key, fatal=False))

    def invalid(self, error: Invalid, place: Place, *, key: bool = False) -> None:
        if self.sound or not isinstance(error, Undeclared):
            self.problem(place, error.text, error.expected, error.hint, key=key)


_ROUNDS = 4  # leaving out a place may make another one invalid


def validate_rest(document: Document, model: type[M]) -> tuple[M | None, Document, list[Problem]]:
    """Return the model of the valid part (None if nothing is left), the document of that part with its old positions, and the
    problems of the rest. So the valid part can be checked in the same run."""
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
            places = {_place_and_path(rest, error["loc"])[0] for error in errors}
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
