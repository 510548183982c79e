"""Validate a document against a model: every error at once, each with its position in the file, in plain words.

pydantic finds the errors. Here they get a position, a noun, what was expected, and a suggestion. Values are never
echoed unless a word of a closed set was expected there: a text in the wrong place may be a secret.
``validate_rest`` leaves the invalid places out, so that the rest can be checked in the same run.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from smtpguard.config.problem import Invalid, Problem, Severity, Undeclared, did_you_mean, one_of, ordered
from smtpguard.config.yaml import Document, Mark, Place

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
        return list(ordered(problem_of(document, model, error) for error in e.errors(include_url=False)))


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
        return document.problem(place, f"{_described(found)} for {noun}", _WANTED[kind])
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        sign, bound = next((w, ctx[k]) for k, w in _BOUNDS.items() if k in ctx)
        return document.problem(place, f"{found} for {noun}", f"{sign} {bound:g}")
    if kind in ("too_short", "string_too_short"):
        return document.problem(place, f"{noun} is empty", f"at least {ctx.get('min_length', 1)}")
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
            return f"the number {found:g}"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return type(found).__name__


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
            title = part
    return title or names[-1]


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
                problems = [problem_of(document, model, error) for error in errors]
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
