"""A client of the API with one person's token, which checks every answer against the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx2
import jsonschema

from smtpguard.accounts.model import Role, Scope
from smtpguard.console.api.tokens import Tokens
from tests.console import holding
from tests.console.holding import NEWS
from tests.console.stage import URL, Stage

EVERYTHING = tuple(Scope)
LETTER = "From: anna@example.com\nTo: ramadan@lists.example.com\nSubject: SV: lunch\n\nBacon at noon?\n"


class Program:
    """``asked``: the (method, path, status) of each answer that was checked against the document."""

    def __init__(self, stage: Stage, token: str) -> None:
        transport = httpx2.ASGITransport(app=stage.app, client=("192.0.2.9", 4000), raise_app_exceptions=False)
        self.http = httpx2.AsyncClient(transport=transport, base_url=f"{URL}/api/v1")
        self.token = token
        self.document: dict[str, Any] = {}
        self.asked: set[tuple[str, str, int]] = set()

    async def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> httpx2.Response:
        if not self.document:
            self.document = (await self.http.get("/openapi.json")).json()
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        more = {} if body is None else {"json": body}
        answer = await self.http.request(method, path, params=query, headers=headers, **more)
        self.check(method, path, answer)
        return answer

    def check(self, method: str, path: str, answer: httpx2.Response) -> None:
        """Assert that path, method, status, media type and body are as the document says."""
        place = next(p for p in self.document["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", p), path))
        operation = self.document["paths"][place][method.lower()]
        described = operation["responses"][str(answer.status_code)]["content"]
        media = answer.headers["content-type"].partition(";")[0]
        schema = described[media]["schema"] | {"components": self.document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer.json())
        self.asked.add((method, place, answer.status_code))


def tokens(stage: Stage) -> Tokens:
    return Tokens(stage.home.store.people, stage.home.clock, new_id=lambda: next(stage.ids))


async def held(stage: Stage, *to: str, **more: Any) -> str:
    """The id, as the API gives it, of a new waiting message to a list on which any approver decides."""
    return (await holding.held(stage, *(to or (NEWS,)), **more)).hold_id


async def program(stage: Stage, address: str, *roles: Role, scopes: Sequence[Scope] = EVERYTHING) -> Program:
    """A client with the token of a new account with these roles; the scopes are cut to what the roles allow."""
    account = await stage.person(address, *roles)
    wanted = [s for s in scopes if account.may(s.asks)]
    _, text = await tokens(stage).add(address, name="test", scopes=wanted, good_for=timedelta(days=30), by="root")
    return Program(stage, text)
