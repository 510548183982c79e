"""Serve the HTML of a message for its frame, and its attachments for download. Both are untrusted bytes, each with
headers that isolate them.

Three independent defences make the HTML safe: nh3 cleans the markup down to what shows text; a Content-Security-Policy
on the response loads nothing and sends nothing; the frame is sandboxed. Links lose their targets. Only images inside the
message are shown (RFC 2392), within bounds.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from urllib.parse import quote, unquote

import nh3
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from smtpguard.console.messageview import attached, content_id, is_html, parts
from smtpguard.console.pages.message import looked_up, record_view
from smtpguard.console.rendering import services_of
from smtpguard.console.services import Visibility, for_roles
from smtpguard.database.errors import ContentMissing
from smtpguard.holds.model import Hold
from smtpguard.mail.message import Message
from smtpguard.reading.parts import Part, body_text, transfer
from smtpguard.reading.request import TooComplex


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
        return hold, await services_of(request).store.contents.load(hold.content_sha256)
    except ContentMissing:
        raise HTTPException(404) from None


ROUTES = [
    Route("/held/{hold_id}/html", frame, methods=["GET"]),
    Route("/held/{hold_id}/part/{n:int}", part, methods=["GET"]),
]


POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data: cid:; form-action 'none'; frame-ancestors 'self'"
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",
    "Cache-Control": "no-store",
}

_MOST_HTML = 1 << 20
_MOST_IMAGE = 512 << 10
_MOST_IMAGES = 2 << 20
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_TAGS = frozenset(
    """
    a abbr address article aside b big blockquote br caption center cite code col colgroup dd del details div dl dt em
    figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark ol p pre q s samp section small
    span strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var
    """.split()  # noqa: SIM905
)
_EVERYWHERE = frozenset({"style", "align", "valign", "dir", "lang", "title", "width", "height", "bgcolor", "color"})
_ATTRIBUTES: dict[str, set[str]] = {
    "*": set(_EVERYWHERE),
    "img": {"src", "alt"},
    "font": {"face", "size"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "table": {"border", "cellpadding", "cellspacing"},
    "ol": {"start", "type"},
}
_STYLES = frozenset(
    """
    background-color border border-bottom border-collapse border-color border-left border-radius border-right border-spacing
    border-style border-top border-width color direction display font font-family font-size font-style font-variant
    font-weight height letter-spacing line-height list-style-type margin margin-bottom margin-left margin-right margin-top
    max-height max-width min-height min-width opacity padding padding-bottom padding-left padding-right padding-top
    text-align text-decoration text-indent text-transform vertical-align visibility white-space width word-break
    """.split()  # noqa: SIM905
)
_PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><title></title>
<style>body{{margin:12px;font-family:system-ui,sans-serif;color:#111;background:#fff;overflow-wrap:anywhere}}
img{{max-width:100%;height:auto}}a{{text-decoration:underline}}</style></head><body>
{}
</body></html>
"""


def framed(message: Message) -> str | None:
    """A page of its own; None without HTML, or with too much of it. Slow: not for the event loop."""
    try:
        found = list(parts(message))
    except (TooComplex, RecursionError):
        return None
    texts = [_text(part) for part in found if is_html(part)]
    if not texts or sum(map(len, texts)) > _MOST_HTML:
        return None
    return _PAGE.format("\n<hr>\n".join(cleaned(text, _images(found)) for text in texts))


def cleaned(html: str, images: Mapping[str, str]) -> str:
    """Keep what shows text, and nothing that loads anything. ``images``: Content-ID -> data: URL."""
    return nh3.clean(
        html,
        tags=set(_TAGS),
        clean_content_tags={"script", "style", "title", "template", "noscript", "object", "iframe", "svg", "math"},
        attributes=_ATTRIBUTES,
        attribute_filter=_filter(images),
        url_schemes={"cid", "data"},
        filter_style_properties=set(_STYLES),
        strip_comments=True,
        link_rel=None,
    )


def _filter(images: Mapping[str, str]) -> Callable[[str, str, str], str | None]:
    def kept(tag: str, name: str, value: str) -> str | None:
        if name == "src":
            return images.get(unquote(value[4:]).strip("<> ")) if value[:4].lower() == "cid:" else None
        if name == "style" and ("url" in value.lower() or "\\" in value):
            return None  # no attribute here needs a URL, or a disguised form of one
        return value

    return kept


def _images(found: list[Part]) -> dict[str, str]:
    """Content-ID -> data: URL of the images inside the message, as many as fit."""
    images: dict[str, str] = {}
    left = _MOST_IMAGES
    for part in found:
        name = content_id(part)
        if not name or part.kind not in _IMAGES or part.end - part.start > 2 * _MOST_IMAGE:
            continue
        data = transfer(part.body, part.encoding)[0]
        if len(data) > min(_MOST_IMAGE, left):
            continue
        left -= len(data)
        images.setdefault(name, f"data:{part.kind};base64,{base64.b64encode(data).decode('ascii')}")
    return images


def _text(part: Part) -> str:
    if part.end - part.start > 2 * _MOST_HTML:
        return " " * (_MOST_HTML + 1)
    return body_text(transfer(part.body, part.encoding)[0], part.kind, part.parameters).text
