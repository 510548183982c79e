"""``/healthz`` and ``/readyz`` for balancers and orchestrators: whether this process lives, and whether it should be
given work.

They need no password and answer with fixed words. A request asks neither the store nor the relay: the answer was found
out before, so that frequent requests cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

LIVES, READY = "/healthz", "/readyz"

Checks = Callable[[], Mapping[str, str]]
"""What must be well, by name: "" if it is, else what is wrong, in words that may be public."""


class Health:
    """Wraps an application, and answers these two paths itself."""

    def __init__(self, application: ASGIApp, checks: Checks) -> None:
        self._application, self._checks = application, checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (LIVES, READY):
            await self._application(scope, receive, send)
            return
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("GET or HEAD\n", 405, {"allow": "GET, HEAD"})
        checks = dict(self._checks()) if request.url.path == READY else {}
        wrong = {name: why for name, why in checks.items() if why}
        status = 503 if wrong else 200
        headers = {"cache-control": "no-store", "connection": "close"}
        if "application/json" in request.headers.get("accept", ""):
            row = {"ok": not wrong, **({"checks": checks} if request.url.path == READY else {})}
            return Response(json.dumps(row) + "\n", status, headers, "application/json")
        said = "".join(f"{name}: {why}\n" for name, why in wrong.items()) or "ok\n"
        return PlainTextResponse(said, status, headers)
