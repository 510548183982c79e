"""All operations of the API in one table, mounted under /api/v1, and the OpenAPI 3.1 document that is made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from operator import attrgetter
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, Mount

from smtpguard import __version__
from smtpguard.accounts.model import Scope
from smtpguard.console.api import freezes, held, incident, mailings, reference
from smtpguard.console.api.entry import TITLES, Entry, Operation, Problem, Services

OPERATIONS: tuple[Operation, ...] = (
    *reference.OPERATIONS,
    *held.OPERATIONS,
    *mailings.OPERATIONS,
    *freezes.OPERATIONS,
    *incident.OPERATIONS,
)


def routes(services: Services) -> list[BaseRoute]:
    return [Mount("/api/v1", Entry(OPERATIONS, partial(_described, services.console.url), services).application())]


@cache
def _described(url: str) -> bytes:
    return json.dumps(document(OPERATIONS, url), ensure_ascii=False, indent=1).encode()


EVERY = (401, 403, 429, 503)
_REF = "#/components/schemas/{model}"


def document(operations: Sequence[Operation], url: str = "") -> dict[str, Any]:
    models = {m for o in operations for m in (o.answers, o.body) if m is not None} | {Problem}
    ways = [
        (m, "validation" if m in {o.body for o in operations} else "serialization")
        for m in sorted(models, key=attrgetter("__name__"))
    ]
    schemas, definitions = models_json_schema(ways, ref_template=_REF)  # type: ignore[arg-type]
    refs: dict[Any, Any] = {model: schema for (model, _), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "smtpguard",
            "version": __version__,
            "description": "Held mail, freezes, lists and the journal of a mail guard. A token acts as a person.",
        },
        "servers": [{"url": f"{url}/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Made by smtpguard tokens add. Scopes: "
                          + ", ".join(scope.value for scope in Scope)}
            },
        },
    }  # fmt: skip


def _operation(operation: Operation, refs: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*in_path, *_in_query(operation.query)],
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": refs[operation.answers]}}}
        }
        | {
            str(status): {
                "description": TITLES[status],
                "content": {"application/problem+json": {"schema": refs[Problem]}},
            }
            for status in sorted({*EVERY, *operation.refuses, *_of_body(operation)})
        },
    }
    if operation.scope is not None:
        more = "".join(f" Some of what may be asked takes `{scope.value}` as well." for scope in operation.more)
        found["description"] = f"Scope: `{operation.scope.value}`.{more}"
        found["security"] = [{"token": [operation.scope.value]}]
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": refs[operation.body]}}}
    return found


def _of_body(operation: Operation) -> Iterable[int]:
    if operation.body is not None:
        yield from (400, 413, 415)
    yield 422


def _in_query(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema()
    return [
        {"name": name, "in": "query", "required": False, "schema": {k: v for k, v in each.items() if k != "title"}}
        for name, each in schema["properties"].items()
    ]
