"""Dispatch requests of the API: authenticate the token, limit the rate, check the scope, parse the body, and answer.

An operation is a row of a table (Operation). Both the routes and the OpenAPI document are made from that table, so they
cannot differ. Errors are application/problem+json (RFC 9457): never a traceback, and nothing that the caller may not
see.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from smtpguard.accounts.model import Scope
from smtpguard.console.api.tokens import Holder, NoFactor, Tokens
from smtpguard.console.people.signing import RateLimit
from smtpguard.console.services import ConsoleServices, Person
from smtpguard.database.errors import CommitUnknown, StoreError
from smtpguard.holds.model import NotEntitled, Refused
from smtpguard.journal.proof import Proof

log = logging.getLogger(__name__)

PER_MINUTE = 600
MOST_BODY = 64 << 10
_PIECE = 200  # items of a list
MOST_MESSAGE = 70 << 20  # a message to be explained, as base64


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What operations use besides the pages' services. ``verify``: walks the whole journal."""

    console: ConsoleServices
    tokens: Tokens
    verify: Callable[[], Awaitable[Proof]]
    verifying: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One parsed request. ``query`` and ``body`` are of the operation's models."""

    services: Services
    holder: Holder
    path: Mapping[str, str]
    query: Any = None
    body: Any = None

    @property
    def console(self) -> ConsoleServices:
        return self.services.console

    @property
    def who(self) -> Person:
        return Person.of(self.holder.account)


@dataclass(frozen=True, slots=True)
class Long:
    """An answer that may have many megabytes: a JSON object, encoded and sent in pieces in a thread, so that it blocks
    no other request. An iterator in it becomes a JSON array."""

    values: Mapping[str, Any]

    def pieces(self) -> Iterator[bytes]:
        before = "{"
        for name, value in self.values.items():
            yield f"{before}{json.dumps(name)}:".encode()
            before = ","
            if not isinstance(value, (list, Iterator)):
                yield json.dumps(value).encode()
                continue
            yield b"["
            left, first = iter(value), True
            while some := list(islice(left, _PIECE)):
                yield b"," * (not first) + json.dumps(some)[1:-1].encode()
                first = False
            yield b"]"
        yield b"}" if self.values else b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """``scope``: None if every token may. ``more``: scopes that some of its bodies need as well. ``refuses``: statuses
    beyond those of every operation. ``do`` returns a model's values, or a ``Long`` answer of that model's shape."""

    method: str
    path: str
    name: str
    summary: str
    scope: Scope | None
    answers: type[BaseModel]
    do: Callable[[Call], Awaitable[BaseModel | Long]]
    more: tuple[Scope, ...] = ()
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    refuses: tuple[int, ...] = ()
    most_body: int = MOST_BODY


class Entry:
    """``document``: the OpenAPI document as JSON, made on first request."""

    def __init__(self, operations: Sequence[Operation], document: Callable[[], bytes], services: Services) -> None:
        self._services, self._tokens = services, services.tokens
        self._rate = RateLimit(services.console.clock, most=PER_MINUTE, seconds=60)
        self._document = document
        self._operations = tuple(operations)

    def application(self) -> Starlette:
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in self._operations:
            by_path.setdefault(operation.path, {})[operation.method] = operation
        routes = [
            Route(path, self._endpoint(operations), methods=list(operations)) for path, operations in by_path.items()
        ]
        routes.append(Route("/openapi.json", self._described, methods=["GET"]))
        made = Starlette(
            routes=routes, exception_handlers={HTTPException: _http, Refusal: _refusal, Exception: _broken}
        )
        made.router.redirect_slashes = False  # behind a proxy it would send the token out of TLS
        return made

    async def _described(self, request: Request) -> Response:
        return Response(self._document(), media_type="application/json")

    def _endpoint(self, operations: Mapping[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            operation = operations["GET" if request.method == "HEAD" else request.method]
            try:
                holder = await self._holder(request)
                if operation.scope is not None and not holder.may(operation.scope):
                    raise not_in_scope(operation.scope)
                call = Call(
                    services=self._services,
                    holder=holder,
                    path=request.path_params,
                    query=_understood(operation.query, dict(request.query_params), "query"),
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
                return StreamingResponse(made.pieces(), media_type="application/json")
            return JSONResponse(made.model_dump(mode="json"))

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
        value = json.loads(raw)
        if b"\\ud" in raw or b"\\uD" in raw:  # half a character, alone, is no text
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refusal(400, "Invalid JSON.") from None
    if not isinstance(value, dict):
        raise Refusal(422, "The body must be a JSON object.")
    return _understood(operation.body, value, "body")


def _understood(model: type[BaseModel] | None, value: Mapping[str, Any], where: str) -> BaseModel | None:
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


def not_in_scope(scope: Scope) -> Refusal:
    challenge = f'Bearer error="insufficient_scope", scope="{scope.value}"'
    detail = f"Requires the scope {scope.value}, for the token and for its account."
    return Refusal(403, detail, headers={"www-authenticate": challenge})


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return answer(error.status, error.detail, errors=error.errors, headers=error.headers)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer(error.status_code, headers=error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    if not isinstance(error, ClientDisconnect):
        log.error("the API failed: %s", type(error).__name__, exc_info=error)
    return answer(500)


TITLES: Mapping[int, str] = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Not like this",
    409: "Changed meanwhile",
    413: "Too large",
    415: "Not JSON",
    422: "Not understood",
    429: "Too often",
    500: "An error of smtpguard itself",
    503: "The record cannot be reached",
}


class Wrong(BaseModel):
    """One error in a request."""

    at: str = Field(description="place of the error, like body.comment or query.limit")
    problem: str


class Problem(BaseModel):
    """An error."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    errors: list[Wrong] = []


class Refusal(Exception):
    """The answer to give instead."""

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        errors: list[Wrong] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.errors, self.headers = errors or [], dict(headers or {})


def error_at(at: str, problem: str) -> Refusal:
    """For a request with one error."""
    return Refusal(422, errors=[Wrong(at=at, problem=problem)])


def answer(
    status: int, detail: str = "", *, errors: list[Wrong] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    problem = Problem(title=TITLES.get(status, "Error"), status=status, detail=detail, errors=errors or [])
    content: dict[str, Any] = problem.model_dump(exclude_defaults=True) | {"title": problem.title, "status": status}
    return JSONResponse(content, status, dict(headers or {}), media_type="application/problem+json")
