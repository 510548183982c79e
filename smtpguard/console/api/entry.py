"""The entry of the API: its bearer tokens (RFC 6750), and its requests: authenticate the token, limit the rate, check the
scope, parse the body, and answer. A token acts as one account, within both its scopes and that account's roles.

An operation is a row of a table (Operation). Both the routes and the OpenAPI 3.1 document are made from that table, so
they cannot differ. Errors are application/problem+json (RFC 9457): never a traceback, and nothing that the caller may not
see. In all JSON times are UTC with Z, and absent values are null.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import islice
from operator import attrgetter
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from smtpguard import __version__
from smtpguard.accounts.model import SCOPE_ASKS, Account, AccountKeys, Role, Scope, Token
from smtpguard.console.people.middleware import RateLimit, has_nul, hashed
from smtpguard.console.rendering import Streamed
from smtpguard.console.services import ConsoleServices, Person
from smtpguard.database.errors import CommitUnknown, StoreError
from smtpguard.holds.model import NotEntitled, Refused
from smtpguard.journal.chain import utc_text
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.proof import Proof
from smtpguard.mail.address import Address
from smtpguard.store.nouns import People

PREFIX = "smtpguard"
"""The prefix of every token, so that scanners of repositories and logs can find a leaked one."""

NO_FACTOR = "no-second-factor"
_FORM = re.compile(rf"{PREFIX}_([0-9A-Z]{{16}})_([A-Za-z0-9_-]{{43}})", re.ASCII)


T = TypeVar("T")
Time = Annotated[datetime, PlainSerializer(utc_text, return_type=str, when_used="json")]
OrNone = BeforeValidator(lambda value: value or None)
"""From a value that is 0 or "" for none."""
ByValue = BeforeValidator(lambda member: member.value)
"""From a member of an enum."""
Comment = Annotated[str, Field(max_length=2000)]


class Sent(BaseModel):
    """A request body. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[T]):
    """Newest first. ``next``: the cursor of the next page, null on the last."""

    items: list[T]
    next: str | None = None


class PageQuery(Sent):
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str = Field(default="", max_length=200)


class NoFactor(Exception):
    """The token is right, but its account may do nothing until it has a second factor."""

    def __init__(self) -> None:
        super().__init__(
            "A role of the token's account asks for a second factor, and it has none: sign in at the console and set one up."
        )


class NoToken(Exception):
    """Nothing changed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The caller: a program that acts as a person."""

    token: Token
    account: Account

    def may(self, scope: Scope) -> bool:
        return scope in self.token.scopes and self.account.may(SCOPE_ASKS[scope])

    @property
    def by(self) -> str:
        """For the journal, beside the person's address."""
        return f"{self.account.address} (token {self.token.token_id}: {self.token.name})"


@dataclass(frozen=True, slots=True)
class Tokens:
    """``required``: the roles that must have a second factor."""

    people: People
    clock: Clock
    new_id: Callable[[], str]
    delimiters: str = "+"
    required: frozenset[Role] = frozenset()

    async def add(
        self, address: str, *, name: str, scopes: Sequence[Scope], good_for: timedelta, by: str
    ) -> tuple[Token, str]:
        """The token, and its text, which is not stored. Raises NoToken, BadAddress, StoreError."""
        account = await self.people.account(AccountKeys(address=Address.parse(address).canonical(self.delimiters)))
        if account is None:
            raise NoToken(f"there is no account of {address}: smtpguard users add")
        if account.lacks_factor(self.required):
            raise NoToken(
                f"a role of {account.address} asks for a second factor, and it has none: it is set up at the console, under its account"
            )
        idle = [scope.value for scope in scopes if not account.may(SCOPE_ASKS[scope])]
        if idle:
            raise NoToken(f"{account.address} has no role for: {', '.join(idle)}")
        secret, now = secrets.token_urlsafe(32), self.clock.now()
        token = Token(
            token_id=self.new_id(),
            account_id=account.account_id,
            name=" ".join(name.split())[:100],
            secret=hashed(secret),
            scopes=tuple(scope for scope in Scope if scope in scopes),
            created_at=now,
            expires_at=now + good_for,
        )
        await self.people.put_token(token, self._event(token, account, "added", by))
        return token, f"{PREFIX}_{token.token_id}_{secret}"

    async def revoke(self, token_id: str, *, by: str) -> Token:
        found = await self.people.token(token_id)
        if found is None:
            raise NoToken(f"there is no token {token_id}: smtpguard tokens list shows their ids")
        token, account = found
        if token.revoked:
            raise NoToken(f"{token_id} is revoked already")
        token = replace(token, revoked=True)
        await self.people.put_token(token, self._event(token, account, "revoked", by))
        return token

    async def holder(self, text: str) -> Holder | None:
        """The holder of this token; None for one that is wrong, revoked, expired, or of a disabled account. Raises
        NoFactor, StoreError."""
        form = _FORM.fullmatch(text)
        if form is None:
            return None
        found = await self.people.token(form[1])
        right = hmac.compare_digest(found[0].secret if found else "", hashed(form[2]))
        state = self.state(*found) if found is not None and right else "wrong"
        if state == NO_FACTOR:
            raise NoFactor
        if found is None or state != "good":
            return None
        return Holder(token=found[0], account=found[1])

    def state(self, token: Token, account: Account) -> str:
        if token.revoked:
            return "revoked"
        if account.disabled:
            return "disabled"
        if not token.is_valid(self.clock.now()):
            return "expired"
        return NO_FACTOR if account.lacks_factor(self.required) else "good"

    def _event(self, token: Token, account: Account, change: str, by: str) -> Event:
        return Event(
            kind=Kind.TOKEN,
            id=token.token_id,
            at=self.clock.now(),
            data={"change": change, "name": token.name, "scopes": [scope.value for scope in token.scopes]},
            private={"account": (account.address,), "actor": (by,)},
        )


log = logging.getLogger(__name__)

PER_MINUTE = 600
MOST_BODY = 64 << 10
_PIECE = 200  # items of a list
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # in JSON; PostgreSQL refuses it, as if it were away
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
    query: Any
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
    no other request. An iterator in it becomes a JSON array. ``close``: called when it was sent, or the client has
    gone."""

    values: Mapping[str, Any]
    close: Callable[[], None] = lambda: None

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
    def __init__(self, operations: Sequence[Operation], services: Services) -> None:
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
        routes.append(Route("/openapi.json", self._described, methods=["GET"]))
        made = Starlette(
            routes=routes, exception_handlers={HTTPException: _http, Refusal: _refusal, Exception: _broken}
        )
        made.router.redirect_slashes = False  # behind a proxy it would send the token out of TLS
        return made

    async def _described(self, request: Request) -> Response:
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


_EVERY, _OF_BODY = (401, 403, 422, 429, 503), (400, 413, 415)
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
            for status in sorted({*_EVERY, *operation.refuses, *(_OF_BODY if operation.body is not None else ())})
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
