"""The metrics part: serve GET /metrics, /healthz and /readyz. It writes nothing, and mail does not depend on it.

While its port is taken or the database is away it goes on without, and tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.app.clock import SystemClock
from smtpguard.app.files import CannotStart
from smtpguard.app.operationsnumbers import LOOK_SECONDS, Watching
from smtpguard.app.policies import Following
from smtpguard.app.services import opened
from smtpguard.app.webserver import Health, Server, configured
from smtpguard.config.settings import Settings
from smtpguard.database.errors import LedgerError
from smtpguard.observe.metrics.exposition import Exposition
from smtpguard.processes.listeners import CannotListen, Wanted, open_all
from smtpguard.processes.part import Part
from smtpguard.store.store import Store

log = logging.getLogger(__name__)

CONNECTIONS = 20
EACH = 10  # connections of one address
LASTS_SECONDS = 30.0  # a client that has not read its answer by then is disconnected
PORT_SECONDS = 5.0  # between attempts to bind it


class Metrics(Part):
    def __init__(self, settings: Settings) -> None:
        if settings.metrics is None:
            raise CannotStart("not in the settings; an address and a port are needed")
        self._settings, self._wanted = settings, settings.metrics
        self._clock = SystemClock()
        self._watching = Watching(settings, self._clock)
        self._undo = AsyncExitStack()
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._stopping = False
        self._said: dict[str, str] = {}

    async def start(self) -> None:
        self._listen()

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            while self._serving is None and not self._listen():  # noqa: ASYNC110 - nobody tells when a port is free
                await asyncio.sleep(PORT_SECONDS)
            assert self._serving is not None
            await self._serving
            if not self._stopping:
                raise RuntimeError("the web server ended by itself")

    def told(self, numbers: Mapping[str, Any]) -> None:
        self._watching.told(numbers)

    async def stop(self, grace_seconds: float) -> None:
        self._stopping = True
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait({self._serving}, timeout=min(grace_seconds, 5))

    async def close(self) -> None:
        await self._undo.aclose()

    def _listen(self) -> bool:
        """False: the port cannot be bound now."""
        try:
            listener = open_all([Wanted(address=self._wanted.address, port=self._wanted.port)])[0].socket
        except CannotListen as e:
            self._say("port", f"no metrics: {e}")
            return False
        self._undo.callback(listener.close)
        how = configured(application(self._watching), connections=CONNECTIONS, each=EACH, lasts=LASTS_SECONDS)
        self._server = Server(how)
        self._serving = asyncio.create_task(self._server.serve([listener]))
        return True

    async def _look(self) -> None:
        while True:
            try:
                async with opened(self._settings) as (store, digester):
                    policies = Following(store, self._settings, digester, self._clock)
                    while True:
                        await self._once(store, policies)
                        await asyncio.sleep(LOOK_SECONDS)
            except (LedgerError, CannotStart) as e:
                self._watching.failed()
                self._say("store", f"metrics: the store cannot be opened: {e}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _once(self, store: Store, policies: Following) -> None:
        try:
            await self._watching.look(store, policies)
        except LedgerError as e:
            self._watching.failed()
            self._say("store", f"metrics: the store does not answer: {type(e).__name__}")
        except Exception as e:  # an internal error: earlier numbers are served all the same
            self._say("store", f"metrics: {type(e).__name__}", e)
        else:
            self._said.pop("store", None)

    def _say(self, about: str, text: str, error: Exception | None = None) -> None:
        """Log a problem once while it lasts."""
        if text != self._said.get(about):
            log.warning("%s", text, exc_info=error)
        self._said[about] = text


def application(watching: Watching) -> Health:
    """Each scrape has its own connection, so a limit on how long one lasts cuts off no other."""

    async def metrics(request: Request) -> Response:
        text, kind = Exposition(watching.numbers()).text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind, "connection": "close"})

    return Health(Starlette(routes=[Route("/metrics", metrics, methods=["GET"])]), watching.ready)
