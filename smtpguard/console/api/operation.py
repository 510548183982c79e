"""What an operation of the API is made of: its call, its row in the table, the types of its models, and its errors.

Errors are application/problem+json (RFC 9457): never a traceback, and nothing that the caller may not see. In all JSON times
are UTC with Z, and absent values are null.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from starlette.responses import JSONResponse

from smtpguard.accounts.model import Scope
from smtpguard.console.api.tokens import Holder, Tokens
from smtpguard.console.services import ConsoleServices, Person
from smtpguard.journal.chain import utc_text
from smtpguard.journal.proof import Proof

MOST_BODY = 64 << 10
"""The most octets of a body."""
MOST_MESSAGE = 70 << 20
"""The most octets of a body with a message as base64."""
_PIECE = 200  # items of a list that are encoded at once
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
"""The titles of problems, by HTTP status."""
T = TypeVar("T")
Time = Annotated[datetime, PlainSerializer(utc_text, return_type=str, when_used="json")]
OrNone = BeforeValidator(lambda value: value or None)
"""Take a value that is 0 or "" as null."""
ByValue = BeforeValidator(lambda member: member.value)
"""Take the value of an enum's member."""
Comment = Annotated[str, Field(max_length=2000)]


class Sent(BaseModel):
    """A query or body of a request. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[T]):
    """Newest first. ``next``: the cursor of the next page, null on the last."""

    items: list[T]
    next: str | None = None


class PageQuery(Sent):
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str = Field(default="", max_length=200)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """The services that operations use. ``verify``: walks the whole journal; ``verifying``: lets one caller verify at a time."""

    console: ConsoleServices
    tokens: Tokens
    verify: Callable[[], Awaitable[Proof]]
    verifying: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One parsed request. ``query`` and ``body`` are of the operation's models."""

    services: ApiServices
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
    """A JSON object of perhaps many megabytes. It is encoded and sent in pieces in a thread, so that it blocks no other request.
    An iterator in it becomes a JSON array. ``close``: called after the answer was sent, or the client has gone."""

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
    """One operation of the API.

    ``scope``: None if every token may do it. ``more``: scopes that some of its bodies need as well. ``refuses``: statuses beyond
    those of every operation. ``do`` returns a value of ``answers``, or a ``Long`` answer of that model's shape.
    """

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


def not_in_scope(scope: Scope) -> Refusal:
    challenge = f'Bearer error="insufficient_scope", scope="{scope.value}"'
    detail = f"Requires the scope {scope.value}, for the token and for its account."
    return Refusal(403, detail, headers={"www-authenticate": challenge})


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
    """An error to answer with."""

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
        self.errors, self.headers = errors, headers


def as_sentence(error: Exception) -> str:
    """Return what an error says as a sentence."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def error_at(at: str, problem: str) -> Refusal:
    """Return the refusal of a request with one error."""
    return Refusal(422, errors=[Wrong(at=at, problem=problem)])


def answer(
    status: int, detail: str = "", *, errors: list[Wrong] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    problem = Problem(title=TITLES.get(status, "Error"), status=status, detail=detail, errors=errors or [])
    content = problem.model_dump(exclude_defaults=True)
    return JSONResponse(content, status, dict(headers or {}), media_type="application/problem+json")
