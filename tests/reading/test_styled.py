"""The digest of HTML covers everything that can change what is shown, and nothing that tools vary for each copy."""

from __future__ import annotations

from smtpguard.mail.message import Message
from smtpguard.reading.shown import Shown, in_order, shown_by
from tests.every import every

SHEET = "<style>.low{color:red} #m1 p{margin:0} @media screen{.hide{display:none}}</style>"
PIXEL = '<img src="https://t.example.com/o/1.gif" width="1" height="1" alt="">'


def shown(body: str, sheet: str = SHEET) -> Shown:
    text = (
        "From: News <news@example.com>\r\nSubject: Spring\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
        f"<html><head>{sheet}</head><body>{body}</body></html>\r\n"
    )
    return shown_by(Message.of(text.encode()))


SAME = {
    "an id": ('<p id="a1">Hello</p>', '<p id="b2">Hello</p>'),
    "no id": ('<p id="a1">Hello</p>', "<p>Hello</p>"),
    "a class that no style sheet knows": ('<p class="x-123 low">Hello</p>', '<p class="low y-456">Hello</p>'),
    "data": ('<p data-id="1">Hello</p>', '<p data-id="2">Hello</p>'),
    "the order of what is said inline": (
        '<p style="color:red; font-size:12px">Hello</p>', '<p style="font-size:12px;color: red;">Hello</p>',
    ),
    "where a pixel is": (PIXEL, PIXEL.replace("/o/1.gif", "/track/open/2.gif?u=77&amp;k=1")),
    "a pixel by its style": (
        '<img src="https://t.example.com/1" style="width:1px;height:1px">',
        '<img src="https://t.example.com/2" style="height:1px;width:1px">',
    ),
}  # fmt: skip


@every("what", SAME)
def test_invisible_differences_do_not_count(what: str) -> None:
    one, other = SAME[what]
    assert shown(one).digest == shown(other).digest


def test_names_of_classes_and_ids_do_not_count() -> None:
    one = shown('<p class="low">Hello</p><div id="m1"><p>you</p></div>')
    renamed = SHEET.replace("low", "c77").replace("m1", "m99")
    assert one.digest == shown('<p class="c77">Hello</p><div id="m99"><p>you</p></div>', renamed).digest
    assert one.digest != shown('<p class="c77">Hello</p><div id="m99"><p>you</p></div>').digest


OTHER = {
    "a class that hides": ('<p class="low">Hello</p>', '<p class="low hide">Hello</p>'),
    "an id that a style sheet knows": ("<div><p>Hello</p></div>", '<div id="m1"><p>Hello</p></div>'),
    "a class by which programs fold": ("<p>Hello</p>", '<p class="gmail_quote">Hello</p>'),
    "what is said inline": ('<p style="color:red">Hello</p>', '<p style="color:white">Hello</p>'),
    "which of two is said last": (
        '<p style="font-size:12px;font:0 x">Hello</p>', '<p style="font:0 x;font-size:12px">Hello</p>',
    ),
    "the host of a pixel": (PIXEL, PIXEL.replace("t.example.com", "t.elsewhere.example")),
    "a pixel that is large": (PIXEL, PIXEL.replace('width="1"', 'width="1200"')),
    "a pixel that is large by its style": (
        PIXEL.replace("1.gif", "story.png"),
        PIXEL.replace('alt=""', 'style="width:900px;height:1200px"').replace("1.gif", "story.png"),
    ),
    "one more pixel": (PIXEL, PIXEL + PIXEL),
    "a picture": ('<img src="https://t.example.com/1">', '<img src="https://t.example.com/2">'),
    "text that looks like a tag": ('< p class="Hello">', '< p class="the boss is drunk">'),
    "text in a field": ('<textarea><p class="Hello"></textarea>', '<textarea><p class="the boss"></textarea>'),
}  # fmt: skip


@every("what", OTHER)
def test_visible_differences_count(what: str) -> None:
    one, other = OTHER[what]
    assert shown(one).digest != shown(other).digest


@every("what", ["size", "class", "star"])
def test_a_pixel_that_may_be_enlarged_counts(what: str) -> None:
    """All of a pixel's URL counts if a style sheet or style attribute may make it large."""
    sheet, more = {
        "size": ("", 'style="width:900px;height:1200px"'),
        "class": ("<style>.big{width:900px}</style>", 'class="big"'),
        "star": ("<style>td img{width:900px}</style>", ""),
    }[what]
    one = PIXEL.replace('alt=""', more)
    assert shown(one, sheet).digest != shown(one.replace("1.gif", "story.png"), sheet).digest


@every(
    "sheet",
    [
        "<style>@import url(https://s.example.com/x.css)</style>",
        '<link rel="stylesheet" href="https://s.example.com/x.css">',
        '<style>[class="x-1"]{display:none}</style>',
        "<style>p::after{content:attr(class)}</style>",
        r"<style>.\68ide{display:none}</style>",
    ],
)
def test_with_attribute_selectors_all_attributes_count(sheet: str) -> None:
    assert shown('<p class="x-1">Hello</p>', sheet).digest != shown('<p class="x-2">Hello</p>', sheet).digest


def test_order_of_related_declarations_is_kept() -> None:
    assert (
        in_order("color:red;background:#fff;background-color:#000") == "background:#fff;background-color:#000;color:red"
    )
    assert (
        in_order("background-color:#000;color:red;background:#fff") == "background-color:#000;background:#fff;color:red"
    )
    assert in_order("all:unset;color:red") == "all:unset;color:red"
    assert in_order("b:url(data:a;b,c);a:1") == "b:url(data:a;b,c);a:1"
