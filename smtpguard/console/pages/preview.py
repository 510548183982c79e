"""Serve the HTML of a message for its frame, and its attachments for download. Both are untrusted bytes, each with
headers that isolate them."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from smtpguard.console.access import Visibility, for_roles
from smtpguard.console.framed import HEADERS, framed
from smtpguard.console.messageview import attached
from smtpguard.console.pages.message import looked_up, record_view
from smtpguard.console.rendering import services_of
from smtpguard.database.errors import ContentMissing
from smtpguard.holds.model import Hold
from smtpguard.mail.message import Message
from smtpguard.reading.bounds import TooComplex


@for_roles()
async def frame(request: Request) -> Response:
    hold, content = await _whole(request)
    text = await asyncio.to_thread(framed, content)
    if text is None:
        raise HTTPException(404)
    await record_view(request, hold, "html")
    return HTMLResponse(text, headers=dict(HEADERS))


@for_roles()
async def part(request: Request) -> Response:
    hold, content = await _whole(request)
    try:
        found = await asyncio.to_thread(attached, content, request.path_params["n"])
    except (TooComplex, RecursionError):
        found = None
    if found is None:
        raise HTTPException(404)
    listed, data = found
    await record_view(request, hold, f"attachment {listed.n}")
    name = quote(listed.name.replace("/", "_").replace("\\", "_") or f"part-{listed.n}", safe="")
    headers = dict(HEADERS) | {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}  # RFC 6266, RFC 8187
    return Response(data, media_type="application/octet-stream", headers=headers)


async def _whole(request: Request) -> tuple[Hold, Message]:
    """For people who may see all of it; 404 for others."""
    hold, seen = await looked_up(request)
    if seen < Visibility.FULL:
        raise HTTPException(404)
    try:
        return hold, await services_of(request).ledger.contents.load(hold.content_sha256)
    except ContentMissing:
        raise HTTPException(404) from None


ROUTES = [
    Route("/held/{hold_id}/html", frame, methods=["GET"]),
    Route("/held/{hold_id}/part/{n:int}", part, methods=["GET"]),
]
