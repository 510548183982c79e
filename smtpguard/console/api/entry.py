"""The entry of the API: authenticate the token, limit the rate, check the scope, parse the body, and answer.

An operation is a row of a table (Operation). Both the routes and the OpenAPI 3.1 document are made from that table, so they
cannot differ.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard import __version__
from smtpguard.accounts.model import Scope
from smtpguard.console.api.operation import (
    TITLES,
    ApiServices,
    Call,
    Long,
    Operation,
    Problem,
    Refusal,
    Wrong,
    answer,
    not_in_scope,
)
from smtpguard.console.api.tokens import Holder, NoFactor
from smtpguard.console.people.middleware import has_nul
from smtpguard.console.people.signing import RateLimit
from smtpguard.console.rendering import Streamed
from smtpguard.database.errors import CommitUnknown, StoreError
from smtpguard.holds.model import NotEntitled, Refused

log = logging.getLogger(__name__)

PER_MINUTE = 600
"""The most requests a minute with one token."""
_STATUSES = (401, 403, 422, 429, 503)  # of every operation
_BODY_STATUSES = (400, 413, 415)  # of every operation with a body
_REF = "#/components/schemas/{model}"
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # in JSON; PostgreSQL refuses it, as if it were away


class Api:
    def __init__(self, operations: Sequence[Operation], services: ApiServices) -> None:
        self._services, self._tokens = services, services.tokens
        self._rate = RateLimit(services.console.clock, most=PER_MINUTE, seconds=60)
        self._operations = operations

    def application(self) -> Starlette:
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in self._operations:
            by_path.setdefault(operation.path, {})[operation.method] = operation
        routes = [
            Route(path, self._endpoint(operations), methods=list(operations)) for path, operations in by_path.items()
        ]
        routes.append(Route("/openapi.json", self._openapi, methods=["GET"]))
        made = Starlette(
            routes=routes,
            exception_handlers={HTTPException: _http_error, Refusal: _refusal, Exception: _internal_error},
        )
        made.router.redirect_slashes = False  # behind a proxy it would send the token out of TLS
        return made

    async def _openapi(self, request: Request) -> Response:
        return Response(self._document, media_type="application/json")

    @cached_property
    def _document(self) -> bytes:
        url = self._services.console.settings.console_url
        return json.dumps(document(self._operations, url), ensure_ascii=False, indent=1).encode()

    def _endpoint(self, operations: Mapping[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            operation = operations["GET" if request.method == "HEAD" else request.method]
            try:
                holder = await self._holder(request)
                if operation.scope is not None and not holder.may(operation.scope):
                    raise not_in_scope(operation.scope)
                if has_nul(request.scope):
                    raise Refusal(422, "No address has a NUL.")
                call = Call(
                    services=self._services,
                    holder=holder,
                    path=request.path_params,
                    query=_validated(operation.query, dict(request.query_params), "query"),
                    body=await _body(request, operation),
                )
                made = await operation.do(call)
            except NotEntitled as refused:
                raise Refusal(403, str(refused)) from None
            except Refused as refused:
                raise Refusal(409, str(refused)) from None
            except StoreError as error:
                unknown = isinstance(error, CommitUnknown)
                said = (
                    "It is not known whether it was done, look before you repeat it" if unknown else "Nothing was done"
                )
                raise Refusal(503, f"{said}: {type(error).__name__}.", headers={"retry-after": "5"}) from None
            if isinstance(made, Long):
                return Streamed(made.pieces(), "application/json", close=made.close)
            text = json.dumps(made.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
            return Response(text.encode(errors="replace"), media_type="application/json")

        return endpoint

    async def _holder(self, request: Request) -> Holder:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        try:
            holder = await self._tokens.holder(text.strip()) if kind.lower() == "bearer" else None
        except NoFactor as why:
            raise Refusal(403, str(why)) from None
        if holder is None:
            error = ' error="invalid_token"' if text else ""
            raise Refusal(
                401, "This needs a token: Authorization: Bearer ...", headers={"www-authenticate": f"Bearer{error}"}
            )
        wait = self._rate.wait(holder.token.token_id)
        if wait > 0:
            raise Refusal(
                429, f"The limit is {PER_MINUTE} requests a minute.", headers={"retry-after": str(math.ceil(wait))}
            )
        self._rate.take(holder.token.token_id)
        return holder


async def _body(request: Request, operation: Operation) -> BaseModel | None:
    if operation.body is None:
        return None
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "The body must be application/json.")
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > operation.most_body:
            raise Refusal(413, f"The body may have at most {operation.most_body} octets.")
    try:
        # What follows looks at octets, and UTF-16 is no JSON (RFC 8259 section 8.1).
        value = json.loads(raw.decode("utf-8-sig"))
        if b"\\ud" in raw or b"\\uD" in raw:  # half a character, alone, is no text
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refusal(400, "Invalid JSON.") from None
    if b"\\u0000" in raw and _NUL.search(raw):
        raise Refusal(422, "No text has a NUL.")
    if not isinstance(value, dict):
        raise Refusal(422, "The body must be a JSON object.")
    return _validated(operation.body, value, "body")


def _validated(model: type[BaseModel] | None, value: Mapping[str, Any], where: str) -> BaseModel | None:
    if model is None:
        if value:
            raise Refusal(422, errors=[Wrong(at=f"{where}.{name}", problem="unknown field") for name in value])
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        wrong = [
            Wrong(at=".".join((where, *map(str, each["loc"]))), problem=each["msg"])
            for each in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise Refusal(422, errors=wrong) from None


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return answer(error.status, error.detail, errors=error.errors, headers=error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer(error.status_code, headers=error.headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ClientDisconnect):
        log.error("the API failed: %s", type(error).__name__, exc_info=error)
    return answer(500)


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
            for status in sorted(
                {*_STATUSES, *operation.refuses, *(_BODY_STATUSES if operation.body is not None else ())}
            )
        },
    }
    if operation.scope is not None:
        more = "".join(f" Some of what may be asked takes `{scope.value}` as well." for scope in operation.more)
        found["description"] = f"Scope: `{operation.scope.value}`.{more}"
        found["security"] = [{"token": [operation.scope.value]}]
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": refs[operation.body]}}}
    return found


def _in_query(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema()
    return [
        {"name": name, "in": "query", "required": False, "schema": {k: v for k, v in each.items() if k != "title"}}
        for name, each in schema["properties"].items()
    ]
