"""Words in HTML outside its text: titles, form fields, drawings, Outlook's conditional comments, reversed text.

Mail programs differ in what they render, so topics are matched in all of it. It does not count for what a message looks like.
"""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser

_MOST = 60_000  # characters of each kind
_TOLD = ("title", "aria-label", "placeholder", "value", "label", "alt")
_TOLD_SIGNS = ("title=", "aria-label=", "placeholder=", "value=", "label=", "<area", "<input")
_TOLD_BY = "[title],[aria-label],[placeholder],[value],[label],area[alt],input[alt]"
_DRAWN = ("<svg", "<object", "<noframes", "srcdoc")
_CONTENT = re.compile(r"content\s{0,20}:\s{0,20}(?:\"([^\"\n]{2,300})\"|'([^'\n]{2,300})')")
_APART = re.compile(r"<(?=/?(?:p|div|br|tr|t[dh]|li|h[1-6]|table|center|v:|w:|o:))", re.I)
_BACKWARDS = ("<bdo", "bidi-override", "isolate-override")
_OVERRIDES = ("\u202e", "\u202d")


def unshown(html: str, source: str, tree: LexborHTMLParser) -> list[str]:
    """``source``: the beginning of ``html`` in lower case; ``tree``: its complete tree."""
    found: list[str] = []
    if any(sign in source for sign in _TOLD_SIGNS):
        for node in tree.css(_TOLD_BY)[:2_000]:
            attributes = node.attributes
            image = node.tag == "img"
            found += [v[:500] for name in _TOLD if not (image and name == "alt") and (v := attributes.get(name))]
    if any(sign in source for sign in _DRAWN):
        left = 4 * _MOST  # they may nest, and inner ones would be read again
        for node in tree.css("svg,object,noframes,iframe[srcdoc]"):
            inner = node.attributes.get("srcdoc")
            found.append(_words(inner) if inner else node.text(separator=" ")[:_MOST])
            left -= len(inner or found[-1]) + 100
            if left < 0:
                break
    if "<!--[if" in source:
        found.append(_words("\n".join(_to_outlook(html))))
    if "content" in source and "<style" in source:
        found += [one or other for one, other in _CONTENT.findall(source[:_MOST])]
    return [text for text in found if text and not text.isspace()]


def backwards(text: str, source: str = "") -> str:
    """The text reversed, if characters or markup reverse some of it (CVE-2021-42574); else ""."""
    turned = any(sign in source for sign in _BACKWARDS) or any(sign in text for sign in _OVERRIDES)
    return text[:_MOST][::-1] if turned else ""


def _to_outlook(html: str) -> list[str]:
    """The text of conditional comments: only Outlook on Windows shows it."""
    found: list[str] = []
    at = size = 0
    while size < _MOST and (begin := html.find("<!--[if", at)) >= 0:
        end = html.find("<![endif]", begin)
        if end < 0:
            break
        inner = html[begin:end].partition("]>")[2]
        if not inner.lstrip().startswith("<!"):  # else every program shows it
            found.append(inner[:_MOST])
            size += len(inner)
        at = end + 9
    return found


def _words(html: str) -> str:
    body = LexborHTMLParser(_APART.sub("\n<", html[:_MOST])).body
    return body.text(separator="").strip() if body is not None else ""
