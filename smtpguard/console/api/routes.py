"""All operations of the API in one table, mounted under /api/v1."""

from __future__ import annotations

import json
from functools import cache, partial

from starlette.routing import BaseRoute, Mount

from smtpguard.console.api import freezes, held, incident, mailings, reference, returns
from smtpguard.console.api.entry import Entry, Operation, Services
from smtpguard.console.api.openapi import document

OPERATIONS: tuple[Operation, ...] = (
    *reference.OPERATIONS,
    *held.OPERATIONS,
    *mailings.OPERATIONS,
    *returns.OPERATIONS,
    *freezes.OPERATIONS,
    *incident.OPERATIONS,
)


def routes(services: Services) -> list[BaseRoute]:
    return [Mount("/api/v1", Entry(OPERATIONS, partial(_described, services.console.url), services).application())]


@cache
def _described(url: str) -> bytes:
    return json.dumps(document(OPERATIONS, url), ensure_ascii=False, indent=1).encode()
