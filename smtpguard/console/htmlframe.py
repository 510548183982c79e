"""The HTML of a held message, as a page for a sandboxed frame.

The HTML is untrusted. Three independent defences make it safe: nh3 cleans the markup down to what shows text; a
Content-Security-Policy on the response loads nothing and sends nothing; the frame is sandboxed. Links lose their targets. Only
images inside the message are shown (RFC 2392), within bounds.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from urllib.parse import unquote

import nh3

from smtpguard.console.messageview import content_id, is_html, parts
from smtpguard.mail.decoding import body_text, decode_transfer
from smtpguard.mail.message import Message
from smtpguard.reading.parts import Part
from smtpguard.reading.request import TooComplex

_MOST_FRAMED = 1 << 20  # characters of all HTML of a message
_MOST_IMAGE = 512 << 10  # octets of one image
_MOST_IMAGES = 2 << 20  # octets of all images
_MOST_SHOWN = 8 << 20  # characters of all images, each as often as it is shown
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_TAGS = set(
    """
    a abbr address article aside b big blockquote br caption center cite code col colgroup dd del details div dl dt em
    figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark ol p pre q s samp section small
    span strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var
    """.split()  # noqa: SIM905
)
_ATTRIBUTES: dict[str, set[str]] = {
    "*": {"style", "align", "valign", "dir", "lang", "title", "width", "height", "bgcolor", "color"},
    "img": {"src", "alt"},
    "font": {"face", "size"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "table": {"border", "cellpadding", "cellspacing"},
    "ol": {"start", "type"},
}
_STYLES = set(
    """
    background-color border border-bottom border-collapse border-color border-left border-radius border-right border-spacing
    border-style border-top border-width color direction display font font-family font-size font-style font-variant
    font-weight height letter-spacing line-height list-style-type margin margin-bottom margin-left margin-right margin-top
    max-height max-width min-height min-width opacity padding padding-bottom padding-left padding-right padding-top
    text-align text-decoration text-indent text-transform vertical-align visibility white-space width word-break
    """.split()  # noqa: SIM905
)
_FRAME = """<!doctype html>
<html><head><meta charset="utf-8"><title></title>
<style>body{{margin:12px;font-family:system-ui,sans-serif;color:#111;background:#fff;overflow-wrap:anywhere}}
img{{max-width:100%;height:auto}}a{{text-decoration:underline}}</style></head><body>
{}
</body></html>
"""


def html_page(message: Message) -> str | None:
    """Return the message's HTML as a page of its own, None if it has none or too much. It is slow: call it in a thread."""
    try:
        found = list(parts(message))
    except (TooComplex, RecursionError):
        return None
    texts = [_html_text(part) for part in found if is_html(part)]
    if not texts or sum(map(len, texts)) > _MOST_FRAMED:
        return None
    kept = attribute_filter(_images(found))
    return _FRAME.format("\n<hr>\n".join(sanitized(text, kept) for text in texts))


def sanitized(html: str, kept: Callable[[str, str, str], str | None]) -> str:
    """Return the HTML with what shows text, and nothing that loads anything. ``kept``: of attribute_filter()."""
    return nh3.clean(
        html,
        tags=_TAGS,
        clean_content_tags={"script", "style", "title", "template", "noscript", "object", "iframe", "svg", "math"},
        attributes=_ATTRIBUTES,
        attribute_filter=kept,
        url_schemes={"cid", "data"},
        filter_style_properties=_STYLES,
        strip_comments=True,
        link_rel=None,
    )


def attribute_filter(images: Mapping[str, str]) -> Callable[[str, str, str], str | None]:
    """Return what says which value an attribute keeps, for all texts of a page. ``images``: data: URLs by Content-ID."""
    left = _MOST_SHOWN

    def kept(tag: str, name: str, value: str) -> str | None:
        nonlocal left
        if name == "src":
            image = images.get(unquote(value[4:]).strip("<> "), "") if value[:4].lower() == "cid:" else ""
            if not image or len(image) > left:
                return None
            left -= len(image)
            return image
        if name == "style" and ("url" in value.lower() or "\\" in value):
            return None  # no attribute here needs a URL, or a disguised form of one
        return value

    return kept


def _images(found: list[Part]) -> dict[str, str]:
    """Return the images inside the message as data: URLs by Content-ID, as many as fit."""
    images: dict[str, str] = {}
    left = _MOST_IMAGES
    for part in found:
        name = content_id(part)
        if not name or part.kind not in _IMAGES or part.end - part.start > 2 * _MOST_IMAGE:
            continue
        data = decode_transfer(part.body, part.encoding)[0]
        if len(data) > min(_MOST_IMAGE, left):
            continue
        left -= len(data)
        images.setdefault(name, f"data:{part.kind};base64,{base64.b64encode(data).decode('ascii')}")
    return images


def _html_text(part: Part) -> str:
    if part.end - part.start > 2 * _MOST_FRAMED:
        return " " * (_MOST_FRAMED + 1)
    return body_text(decode_transfer(part.body, part.encoding)[0], part.kind, part.parameters).text
