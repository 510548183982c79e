"""Errors of the API as application/problem+json (RFC 9457). Never a traceback, and nothing that the caller may not see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

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


def answer(
    status: int, detail: str = "", *, errors: list[Wrong] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    problem = Problem(title=TITLES.get(status, "Error"), status=status, detail=detail, errors=errors or [])
    content: dict[str, Any] = problem.model_dump(exclude_defaults=True) | {"title": problem.title, "status": status}
    return JSONResponse(content, status, dict(headers or {}), media_type="application/problem+json")
