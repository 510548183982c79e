"""The whole API: every operation in one table, mounted under /api/v1."""

from __future__ import annotations

from starlette.routing import BaseRoute, Mount

from smtpguard.console.api import held, incident, mailings, reference, standing, talking, trying
from smtpguard.console.api.entry import Entry, Operation, Services
from smtpguard.console.api.openapi import document

OPERATIONS: tuple[Operation, ...] = (
    *reference.OPERATIONS,
    *held.OPERATIONS,
    *talking.OPERATIONS,
    *mailings.OPERATIONS,
    *standing.OPERATIONS,
    *trying.OPERATIONS,
    *incident.OPERATIONS,
)


def routes(services: Services) -> list[BaseRoute]:
    described = document(OPERATIONS, services.desk.url)
    return [Mount("/api/v1", Entry(OPERATIONS, described, services).application())]
