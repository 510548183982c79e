"""Remove the invalid places from a document, so that the rest can be checked in the same run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from smtpguard.config.problem import Problem, ordered
from smtpguard.config.validation import place_of, problem_of
from smtpguard.config.yaml import Document, Mark, Place

M = TypeVar("M", bound=BaseModel)
_ROUNDS = 4


def validate_rest(
    document: Document, model: type[M], context: Mapping[str, Any] | None = None
) -> tuple[M | None, Document, list[Problem]]:
    """The model of the valid part, the document of that part with its old positions, and the problems of the rest.

    None if nothing valid is left.
    """
    problems: list[Problem] = []
    rest = document
    for _ in range(_ROUNDS):
        try:
            value = {} if rest.value is None else rest.value
            return model.model_validate(value, context=dict(context or {})), rest, list(ordered(problems))
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
