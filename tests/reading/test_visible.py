"""Invisible text: it makes no letter a mailing and does not set copies apart, but its topics count."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from dataclasses import replace

import pytest
from selectolax.lexbor import LexborHTMLParser

from smtpguard.gathering.reader import NARROW
from smtpguard.reading.colours import colour_in, of_attribute
from smtpguard.reading.looks import Looks
from smtpguard.reading.markup import read_markup
from smtpguard.reading.request import Bounds, Meter, TooComplex
from smtpguard.reading.sheets import rules_of, select
from tests.every import every
from tests.reading.letters import letter, look, names, topics

FOOTER = "unsubscribe, view in browser, all rights reserved, dear customer, newsletter, bacon"
HIDDEN = {
    "font-size 1px": '<p style="font-size:1px">{}</p>',
    "font-size 2px white": '<div style="font-size: 2px; color: #ffffff">{}</div>',
    "font-size 0.1em": '<span style="font-size:.1em">{}</span>',
    "font-size 5%": '<span style="font-size:5%">{}</span>',
    "em of an em": '<div style="font-size:.4em"><div style="font-size:.4em"><b>{}</b></div></div>',
    "font shorthand": '<span style="font:0/0 Arial">{}</span>',
    "an exclamation mark in a font's name": "<span style=\"font:0/0 'a!'\">{}</span>",
    "an exclamation mark in an address": '<p style="clip-path:url(a.svg?!#b) !important">{}</p>',
    "font-size in a calculation": '<span style="font-size:min(1px,16px)">{}</span>',
    "white on white": '<p style="color:#fff">{}</p>',
    "nearly white": '<p style="color:rgb(250, 250, 252)">{}</p>',
    "font color": '<font color="white">{}</font>',
    "hsl": '<p style="color:hsl(0,0%,99%)">{}</p>',
    "transparent": '<p style="color:transparent">{}</p>',
    "clear": '<p style="color:rgba(0,0,0,0)">{}</p>',
    "fill": '<p style="-webkit-text-fill-color:transparent">{}</p>',
    "black on black": '<table><tr><td style="background:#000;color:#010101">{}</td></tr></table>',
    "default on black": '<div style="background-color:black">{}</div>',
    "bgcolor": '<table bgcolor="#336699"><tr><td style="color:#336699">{}</td></tr></table>',
    "background below the colour": '<div style="color:#eee"><p style="background:#ededed">{}</p></div>',
    "gradient": '<p style="background-image:linear-gradient(#fff,#fff);color:#fff">{}</p>',
    "off the left": '<div style="position:absolute;left:-9999px">{}</div>',
    "off the top": '<div style="position:absolute; top:-1000em">{}</div>',
    "indent": '<p style="text-indent:-5000px">{}</p>',
    "margin": '<p style="margin-left:-9999px">{}</p>',
    "opacity": '<p style="opacity:0.01">{}</p>',
    "opacity in per cent": '<p style="opacity:0%">{}</p>',
    "filter": '<p style="filter:opacity(0)">{}</p>',
    "clip": '<p style="position:absolute;clip:rect(0 0 0 0)">{}</p>',
    "clip-path": '<p style="clip-path:inset(50%)">{}</p>',
    "no height": '<div style="height:0;overflow:hidden">{}</div>',
    "one pixel": '<div style="width:1px;height:1px;overflow:hidden">{}</div>',
    "max-height": '<div style="max-height:0px;overflow:hidden">{}</div>',
    "max-width": '<div style="max-width:0">{}</div>',
    "line-height": '<div style="line-height:0;overflow:hidden">{}</div>',
    "scale": '<div style="transform:scale(0)">{}</div>',
    "translate": '<div style="transform:translateX(-9999px)">{}</div>',
    "mso-hide": '<span style="mso-hide:all">{}</span>',
    "display": '<div style="DISPLAY : none">{}</div>',
    "important": '<div style="display:none !important;display:block">{}</div>',
    "comment": '<div style="display/**/:none">{}</div>',
    "escape": '<div style="d\\69splay:none">{}</div>',
    "visibility": '<div style="visibility:hidden">{}</div>',
    "hidden": "<div hidden>{}</div>",
    "hidden until found": "<div hidden=until-found style='display:block'>{}</div>",
    "popover": "<div popover>{}</div>",
    "an action of a formula": "<math><maction><mi>x</mi><mtext>{}</mtext></maction></math>",
    "class": "<style>.x{{font-size:1px}}</style><p class=x>{}</p>",
    "element": "<style>i{{color:#fff}}</style><i>{}</i>",
    "descendant": "<style>div > .y p {{ display: none }}</style><div><div class=y><p>{}</p></div></div>",
    "media": "<style>@media screen {{ #z {{ opacity: 0 }} }}</style><p id=z>{}</p>",
    "media by width": "<style>@media only screen and (min-width: 30em) {{ #z {{ opacity: 0 }} }}</style><p id=z>{}</p>",
    "media range": "<style>@media (100px <= width) and (width >= 300px) {{ #z {{ opacity: 0 }} }}</style><p id=z>{}</p>",
    "not in print": "<style>@media not print {{ #z {{ opacity: 0 }} }}</style><p id=z>{}</p>",
    "media within media": "<style>@media screen {{ @media print, all {{ #z {{ opacity: 0 }} }} }}</style><p id=z>{}</p>",
    "supports": "<style>@supports (display: none) {{ #z {{ display: none }} }}</style><p id=z>{}</p>",
    "layer": "<style>@layer a, b; @layer a {{ #z {{ display: none }} }}</style><p id=z>{}</p>",
    "a rule within its element's": "<style>@charset 'x'; div, section{{color:red; & p{{display:none}} }}</style><div><p>{}</p></div>",
    "hidden by a stronger rule": "<style>#z{{visibility:hidden}} .x{{visibility:visible}}</style><p class=x id=z>{}</p>",
    "a comment that never ends": "<style>#z{{display:none /* x}}</style><p id=z>{}</p>",
    "brackets in a string": "<style>#z{{content:'}}';display:none}}</style><p id=z>{}</p>",
    "no other value": "<style>#z{{display:none;display:foo}}</style><p id=z>{}</p>",
    "default of a variable": "<p style='display:var(--y, none)'>{}</p>",
    "style behind a commented one": "<!--<style>--><style>#z{{display:none}}</style><p id=z>{}</p>",
    "style for screens": "<style type='text/css' media='print, screen'>#z{{display:none}}</style><p id=z>{}</p>",
    "style with a title": "<style title='a>b'>#z{{display:none}}</style><p id=z>{}</p>",
    "variable": "<style>:root{{--c: #fff}}</style><p style='color:var(--c)'>{}</p>",
    "variable in capitals": "<style>:root{{--C: NONE; --c: block}}</style><p style='display:VAR(--C)'>{}</p>",
    "variable in a rule": "<style>:root{{--C: NONE}} p{{display:Var(--C)}}</style><p>{}</p>",
    "behind a background": '<div style="background:#fff"><p style="position:relative;z-index:-1">{}</p></div>',
    "behind a background, by a class": "<style>.b{{position:absolute;z-index:-5}} td{{background:#eee}}</style><table><tr><td><p class=b>{}</p></td></tr></table>",
    "a colour function": '<p style="color:oklch(100% 0 0)">{}</p>',
    "a mixture of colours": '<p style="color:color-mix(in srgb, white, #fff 30%)">{}</p>',
    "on a colour function": '<p style="background-color:oklch(0% 0 0)">{}</p>',
    "the lighter of two": '<p style="color:light-dark(white, black)">{}</p>',
    "a colour of a colour": '<p style="color:rgb(from white r g b)">{}</p>',
    "a computed colour": '<p style="color:rgb(calc(255),255,255)">{}</p>',
    "a rare name": '<p style="color:papayawhip;background:antiquewhite">{}</p>',
    "pale yellow": '<p style="color:cornsilk">{}</p>',
    "huge numbers": '<p style="color:oklch(1e300 0 1e300)">{}</p>',
    "a background where none is possible": '<div bgcolor=black background=x.png><p bgcolor=black style="color:#fff">{}</p></div>',
    "a link by what it is": "<style>a:link{{display:none}}</style><a href=x>{}</a>",
    "what is not touched": "<style>p:not(:hover){{display:none}}</style><p>{}</p>",
    "one of several": "<style>p:is(b, p){{display:none}}</style><p>{}</p>",
    "in a container": "<style>@container (min-width:1px){{p{{display:none}}}}</style><p>{}</p>",
    "in a scope": "<style>@scope (body){{p{{display:none}}}}</style><p>{}</p>",
    "one of two conditions": "<style>@media (min-width:1px) or (max-width:600px){{p{{display:none}}}}</style><p>{}</p>",
    "little opacity of a filter": '<p style="filter:opacity(.01)">{}</p>',
    "no height by its scale": '<p style="scale:1 0">{}</p>',
    "hardly any height": '<p style="max-height:2px;overflow:hidden">{}</p>',
    "fixed above": '<div style="position:fixed;bottom:900px">{}</div>',
    "a steep skew": '<p style="transform:skew(89.9deg)">{}</p>',
    "a matrix that moves": '<p style="transform:matrix(1,0,0,1,-9999,0)">{}</p>',
    "a system's colour": '<p style="color:Field">{}</p>',
    "a number with an exponent": '<p style="opacity:1e-3">{}</p>',
    "no other colour": '<p style="color:white;color:bogus">{}</p>',
    "no other number": '<p style="opacity:0;opacity:bogus">{}</p>',
    "no importance": '<div style="display:none;display:block!ie">{}</div>',
    "text on its own colour": '<div style="background:currentColor">{}</div>',
    "logical margin": '<p style="margin-inline-start:-9999px">{}</p>',
    "margins on one axis alone": '<p style="margin:-9999px 0;margin-inline:0">{}</p>',
    "insets on one axis alone": '<p style="position:absolute;inset-inline:-9999px;inset-block:0">{}</p>',
    "padding on one axis": '<p style="padding-inline:9999px">{}</p>',
    "overflow on one axis alone": '<div style="height:0;overflow:hidden;overflow-x:visible">{}</div>',
    "logical height": '<div style="block-size:0;overflow:hidden">{}</div>',
    "no height, scrolled": '<div style="height:0;overflow-y:auto">{}</div>',
    "no height, contained": '<div style="height:0;contain:paint">{}</div>',
    "far padding": '<p style="padding-left:9999px">{}</p>',
    "just above": '<div style="position:absolute;top:-150px">{}</div>',
    "fixed below": '<div style="position:fixed;top:200vh">{}</div>',
    "clip far away": '<p style="position:absolute;clip:rect(9999px,9999px,9999px,9999px)">{}</p>',
    "clip-path of no area": "<p style=\"clip-path:path('M0 0')\">{}</p>",
    "mask": '<p style="-webkit-mask-image:linear-gradient(transparent,transparent)">{}</p>',
    "blend": '<p style="mix-blend-mode:screen">{}</p>',
    "inverted": '<p style="filter:invert(1)">{}</p>',
    "matrix": '<div style="transform:matrix(0,0,0,0,0,0)">{}</div>',
    "on its edge": '<div style="transform:rotateY(.25turn)">{}</div>',
    "on its edge, by a property": '<div style="rotate:y 90deg">{}</div>',
    "moved by a property": '<div style="translate:-9999px">{}</div>',
    "moved along a path": "<div style=\"offset-path:path('M-9999 0h1')\">{}</div>",
    "dots": '<p style="-webkit-text-security:disc">{}</p>',
    "a column's": '<div style="display:table-column">{}</div>',
    "a variable within one": '<p style="display:var(--x,var(--y,none))">{}</p>',
    "body": '<body text="#ffffff"><p>{}</p><p style="color:#000">Seen</p></body>',
}  # fmt: skip
SEEN = {
    "plain": "<p>{}</p>",
    "white on blue": '<table><tr><td bgcolor="#003366"><a style="color:#fff">{}</a></td></tr></table>',
    "white on a blue button": '<div style="background:#036"><p style="color:white"><b>{}</b></p></div>',
    "layout": '<table style="font-size:0"><tr><td style="font-size:14px">{}</td></tr></table>',
    "layout by classes": '<style>.t{{font-size:0}} .t td{{font-size:14px}}</style><table class=t><tr><td>{}</td></tr></table>',
    "dark by a colour function": '<p style="color:oklch(0.21 0.034 264.665)">{}</p>',
    "white on a colour function": '<td style="background-color:oklch(37% .013 285);color:#fff">{}',
    "dark in other spaces": '<p style="color:lab(29% 39 20)"><b style="color:color(srgb .1 .2 .3)"><i style="color:hwb(0 0% 60%)">{}</i></b></p>',
    "a mixture with black": '<p style="color:color-mix(in oklab, white, black 70%)">{}</p>',
    "the darker of two": '<p style="color:light-dark(black, white)">{}</p>',
    "white on a colour by name": '<div style="background:steelblue;color:white">{}</div>',
    "fixed": '<div style="position:fixed;top:0;left:50%">{}</div>',
    "skewed": '<a style="transform:skewX(-10deg)">{}</a>',
    "a matrix that changes nothing": '<p style="transform:matrix(1, 0, 0, 1, 0, 0)">{}</p>',
    "half of its opacity": '<p style="filter:opacity(.5)">{}</p>',
    "size of a font": '<td style="font-size:0"><font size=3>{}</font>',
    "for old Internet Explorers": "<style>@media (-ms-high-contrast:none){{p{{display:none}}}}@supports (-ms-ime-align:auto){{p{{display:none}}}}</style><p>{}</p>",
    "without what every browser has": "<style>@supports not (display:grid){{p{{display:none}}}}</style><p>{}</p>",
    "for fingers, and upright": "<style>@media (hover:none),(orientation:portrait){{p{{display:none}}}}</style><p>{}</p>",
    "an attribute of another element": "<p color=white><a color=white href=x>{}</a></p>",
    "grey": '<p style="color:#999">{}</p>',
    "small print": '<p style="font-size:8px">{}</p>',
    "on a picture": '<div style="background-image:url(white.png);color:#fff">{}</div>',
    "for telephones": "<style>@media (max-width:480px){{.x{{display:none}}}}</style><p class=x>{}</p>",
    "for narrow windows": "<style>@media (width < 480px), screen and (max-width: 48em) {{.x{{display:none}}}}</style><p class=x>{}</p>",
    "for very wide screens": "<style>@media (min-width:1400px){{.x{{display:none}}}}</style><p class=x>{}</p>",
    "on dark screens": "<style>@media screen and (prefers-color-scheme: dark){{.x{{display:none}}}}</style><p class=x>{}</p>",
    "on paper": "<style>@media print{{.x{{display:none}}}}@media not all{{.x{{display:none}}}}</style><p class=x>{}</p>",
    "in a style for paper": "<style media=print>.x{{display:none}}</style><style type=text/x>.x{{display:none}}</style><p class=x>{}</p>",
    "shown by a later rule": "<style>.x{{display:none}} p.x{{display:block}}</style><p class=x>{}</p>",
    "shown by a stronger rule": "<style>#z{{display:block}} .x{{display:none}} p{{visibility:visible}}</style><p class=x id=z>{}</p>",
    "visible within what is not": '<div style="visibility:hidden"><p style="visibility:visible">{}</p></div>',
    "a value that is none": '<p style="display:none\\9">{}</p>',
    "a sign too many": "<style>;#z{{display:none}}</style><style>}}#z{{display:none}}</style><p id=z>{}</p>",
    "a rule within another": "<style>i{{color:red; #z{{display:none}} }}</style><p id=z>{}</p>",
    "for one program": "<style>@media yahoo{{.x{{display:none}}}}</style><p class=x>{}</p>",
    "on hovering": "<style>p:hover{{color:#fff}}</style><p>{}</p>",
    "gradient in the letters": '<p style="background:linear-gradient(red,blue);-webkit-background-clip:text;color:transparent">{}</p>',
    "a link in white": '<div style="color:#fff"><a href="https://x.example/">{}</a></div>',
    "line-height of one": '<p style="line-height:1;overflow:hidden">{}</p>',
    "old layout": '<p style="overflow:hidden;height:1%">{}</p>',
    "set back": '<div style="color:#fff"><p style="color:#222">{}</p></div>',
    "dark sheet": "<style>body{{background:#000}} p{{color:#fff}}</style><p>{}</p>",
    "white on a picture in a cell": '<table><tr><td background="dark.jpg"><p style="color:#fff">{}</p></td></tr></table>',
    "white on a picture with a colour": '<table><tr><td bgcolor="#ffffff" background="dark.jpg" style="color:#fff">{}</td></tr></table>',
    "white on a picture by a class": "<style>.hero{{background:#fff url(dark.jpg);color:#fff}}</style><div class=hero><p>{}</p></div>",
    "white on a picture beside it": '<div style="position:relative"><img src="dark.jpg"><h1 style="position:absolute;top:40px;color:#fff">{}</h1></div>',
    "white drawn up onto a picture": '<div><img src="dark.jpg"><p style="margin-top:-80px;color:#fff">{}</p></div>',
    "white on a dark background further out": '<div style="background:#222"><table><tr><td><div><p style="color:#fff">{}</p></div></td></tr></table></div>',
    "white on a dark body": '<body bgcolor="#000000"><table><tr><td><font color="#ffffff">{}</font></td></tr></table></body>',
    "canvas": "<canvas>{}</canvas>",  # without scripts
    "shown though hidden": "<div hidden style='display:block'>{}</div>",
    "a button of a popover": "<button popovertarget=x>{}</button>",
    "details": "<details><summary>More</summary><p>{}</p></details>",
    "aria-hidden": '<p aria-hidden="true">{}</p>',
    "behind nothing": '<div><p style="position:relative;z-index:-1">{}</p></div>',
    "behind the page's own background": '<body style="background:#eee"><p style="position:relative;z-index:-1">{}</p></body>',
    "behind in a layer of its own": '<div style="background:#fff;position:relative;z-index:0"><p style="position:relative;z-index:-1">{}</p></div>',
    "z-index without a place": '<div style="background:#fff"><p style="z-index:-1">{}</p></div>',
    "turned and moved a little": '<div style="transform:translate(-50%,-4px) rotate(3deg) scale(.9)">{}</div>',
    "an initial mask": '<p style="mask:initial;clip-path:unset;mix-blend-mode:inherit">{}</p>',
    "no mask": '<p style="mask:none;filter:none;clip-path:none;mix-blend-mode:normal">{}</p>',
    "before it": '<div style="background:#fff"><p style="position:relative;z-index:5">{}</p></div>',
    "for Outlook alone": "<!--[if mso]><style>.x{{display:none}}</style><![endif]--><p class=x>{}</p>",
}  # fmt: skip


@every(
    "element", ["dialog", "datalist", "noembed", "rp", "progress", "meter", "iframe", "video", "audio", "object", "svg"]
)
def test_what_browsers_do_not_show_makes_no_mailing(element: str) -> None:
    reading = look(letter(f"<p>Hej Bo, ses vi på mötet?</p><{element}>{FOOTER}</{element}>", kind="text/html"))
    assert not {"unsubscribe-words", "web-version", "newsletter-words"} & names(reading)
    assert topics(reading) == {"pork"}
    if element != "rp":
        alone = look(letter(f"<{element}>{FOOTER}</{element}>", kind="text/html"))
        assert "only hidden" in alone.why_unreadable
    nested = look(letter(f"<p>Hej</p><{element}><{element}>{FOOTER}</{element}></{element}>", kind="text/html"))
    assert "unsubscribe-words" not in names(nested)
    if element not in ("iframe", "dialog"):
        assert topics(look(letter(f"<p>Hej ba<{element}>x</{element}>con</p>", kind="text/html"))) == {"pork"}


@every("trick", HIDDEN)
def test_hidden_text_makes_no_mailing_and_its_topics_are_found(trick: str) -> None:
    reading = look(letter(f"<p>Hej Bo, ses vi på mötet?</p>{HIDDEN[trick].format(FOOTER)}", kind="text/html"))
    assert reading.looks is not Looks.MAILING
    assert {"hidden-text"} <= names(reading)
    assert not {"unsubscribe-words", "web-version", "newsletter-words"} & names(reading)
    assert "pork" in topics(reading)
    assert "unsubscribe" not in reading.excerpt


@every("way", SEEN)
def test_visible_text_is_not_taken_for_hidden(way: str) -> None:
    made = read_markup(SEEN[way].format("a word to be seen"), Meter(Bounds()))
    assert "a word to be seen" in made.text
    assert made.hidden == ""


@every(
    "body",
    [
        "<style>i:dir(ltr){display:none}</style>ba<i>x y</i>con", "<style>@container (min-width:0){u{display:none}}</style>ba<u>x</u>con",
        "<link rel=stylesheet href=x.css>ba<span class=h><b>x</b>y</span>con", "b&#97;<i class=a>x</i><i class=b>y</i>&#99;on",
        "<b>ba<span style='display:-none'>x</span></b>con", "ba<em class=h>x</em><!-- y -->con",
    ],
)  # fmt: skip
def test_a_word_is_found_whatever_stands_within_it(body: str) -> None:
    """A style that is not known here may hide it."""
    assert topics(look(letter(f"<p>Hej Bo, {body}?</p>", kind="text/html"))) == {"pork"}


@every("body", ["ba <i>x</i>con", "ba<i>x</i> con", f"ba<i>{'x' * 61}</i>con", "<p>ba<i>x</i></p>con", "ba<p>x</p>con"])
def test_what_stands_between_words_parts_them(body: str) -> None:
    assert not topics(look(letter(f"<div>{body}</div>", kind="text/html")))


@every(
    "body",
    [
        "<div style='float:left;font-size:3em'>B</div>acon", "<table><tr><td style='font-size:3em'>B</td><td>acon</td></table>",
        "<img src=b.gif alt=B>acon", "<p>Hej ba<img src=c.gif alt=con></p>", "<table><tr><td>b<td>a<td>c<td>o<td>n</table>",
        "<ul style='display:flex'><li>ba&zwnj;<li>con</ul>", "<pre>x\ny</pre><p style='display:inline'>ba&#1;</p><p style='display:inline'>con</p>",
        "ba<p style='display:none'>x</p>con", "BA<br style='display:none'>CON", "<ruby>x<rt>bacon</rt></ruby>",
    ],
)  # fmt: skip
def test_a_word_is_found_over_the_edges_of_elements(body: str) -> None:
    """A style may put one beside the other, as that of a large first letter does."""
    assert topics(look(letter(f"<div>{body}</div>", kind="text/html"))) == {"pork"}


@every(
    "body",
    ["<p>ba</p> <p>con</p>", "<p>Ba</p><p>Con</p>", "<p>ba, </p><p>con</p>", "<img alt=Ba>Con", "<pre>ba\ncon</pre>", "ba <img alt=con>"],
)  # fmt: skip
def test_the_edges_of_elements_part_words(body: str) -> None:
    assert not topics(look(letter(f"<div>{body}</div>", kind="text/html")))


def test_words_over_edges_take_linear_time() -> None:
    began = time.process_time()
    read_markup("<p>" + "a&#10;" * 200_000, Meter(Bounds()))
    assert time.process_time() - began < 5


def test_what_stands_within_words_takes_linear_time() -> None:
    began = time.process_time()
    for piece in ("a<i>b</i>c", "a</i><b>", "<i></i>", "x<b>", "a</i><!--"):
        with suppress(TooComplex):
            read_markup("a<i>b</i>c" + piece * (200_000 // len(piece)), Meter(Bounds(tags=40_000)))
    assert time.process_time() - began < 10


def test_style_sheets_take_linear_time() -> None:
    began = time.process_time()
    for piece in ("'", "{", "}", "a{", "a,b{& &,& &{", "@media(", "@media a{b{}", "@x;", "@a", "/*", "a{b:c;"):
        sum(1 for _ in rules_of(piece * (60_000 // len(piece))))
    for piece in (
        "[",
        "['x' ",
        "url(",
        "font:",
        "font ",
        "'",
        "/*",
        "@counter-style",
        "attr(",
        "'a' ",
        "font:'",
        "[a='",
    ):
        read_markup(f"<style>content:{piece * 20_000}</style>", Meter(Bounds()))
    assert time.process_time() - began < 5


@every(
    "value",
    {
        "hsl(0.3turn 50% 50%)": (89, 191, 64), "hwb(200 10% 20%)": (26, 145, 204), "lab(29.2345 39.3825 20.0664)": (125, 35, 41),
        "lch(52.2% 72.2 50)": (205, 86, 26), "oklab(40.1% 0.1143 0.045)": (125, 36, 41), "oklch(.7 50% 200 / .5)": (0, 191, 205),
        "oklch(98.5% 0.002 247.839)": (249, 250, 251), "color(srgb-linear .2 .2 .2)": (124, 124, 124), "rgb(none 20% none)": (0, 51, 0),
        "color-mix(in srgb, red 30%, blue)": (77, 0, 179), "rebeccapurple": (102, 51, 153), "1px solid #abc": (170, 187, 204),
        "rgb(1e308,1e308,-1e308)": (255, 255, 0), "lab(176 0 0)": (255, 255, 255), "hsl(9 -5% 20%)": (51, 51, 51), "oklch(-1e308 1e308 1e308)": None, "lab(1e308 1e308 1e308)": None,
    }.items(),
)  # fmt: skip
def test_colours_are_those_of_browsers(value: tuple[str, tuple[int, int, int] | None]) -> None:
    """As Chromium computes them."""
    text, seen = value
    found = colour_in(text)
    assert found is not None
    assert seen is None or max(abs(a - b) for a, b in zip(found, seen, strict=True)) < 4


def sees(style: str) -> bool:
    return "a word" in read_markup(f'<p style="{style}">a word</p>', Meter(Bounds())).text


@every(
    "value",
    [
        "rgb(1 2)", "rgb(1,2,3,4,5)", "rgb(1,2 3)", "rgb(50%, 2, 3)", "rgb(1px 2 3)", "rgb(1. 2 3)", "rgb(none,2,3)", "rgb(1 2 none%)", "hsl(1, 2, 3)",
        "lab(1,2,3)", "hwb(10% 2% 3%)", "color(nosuch 1 1 1)", "color(srgb 1 1)", "color-mix(in srgb, red, nosuch)", "light-dark(red)",
        "#12345", "#1234567", "red red", "1px red", "r/**/ed", "rgb(1 2 3) red", "rgb(1 2 3))", "nosuch",
    ],
)  # fmt: skip
def test_colours_that_browsers_drop_are_dropped(value: str) -> None:
    """As Chromium does: what was said before stays."""
    assert not sees(f"color:#fff;color:{value}")
    assert sees(f"color:#333;color:{value}")
    assert sees(f"color:{value}")


@every(
    "value",
    {"#FFFFFFF": "#fffff0", "#ffff": "#ffff00", "red red": "#0e00d0", "rgb(255,255,255)": "#005025", "chucknorris": "#c00000", "#fff ": "#fff",
     "steelblue": "steelblue", "transparent": "inherit", "f" * 200: "#ffffff"}.items(),
)  # fmt: skip
def test_colours_of_attributes_are_those_of_browsers(value: tuple[str, str]) -> None:
    """As Chromium computes them."""
    assert of_attribute(value[0]) == value[1]
    assert "a word" not in read_markup("<font color='#FFFFFFF'>a word</font>", Meter(Bounds())).text


@every(
    "value",
    [
        "rgb(from red r g b)", "rgb(calc(1 + 1) 2 3)", "color(xyz 0 0 0)", "contrast-color(white)", "accentcolortext", "color-mix(red, blue)",
        "color-mix(in hsl, red, blue)", "color-mix(in srgb, red 5%, blue 3%)", "light-dark(red, rgb(from red r g b))", "color-mix(in srgb, currentcolor 10%, transparent)", f"rgb(0 0 {'0' * 300})",
    ],
)  # fmt: skip
def test_colours_that_are_not_worked_out_prove_nothing(value: str) -> None:
    assert not sees(f"color:{value}")
    assert not sees(f"background-color:{value}")


def test_a_hidden_link_does_not_count() -> None:
    hidden = (
        '<div style="font-size:1px;color:#fff"><a style="color:#fff" href="https://x.example/unsubscribe">x</a></div>'
    )
    reading = look(letter(f"<p>Hej Bo, ses vi på mötet?</p>{hidden}", kind="text/html"))
    assert "unsubscribe-link" not in names(reading)
    shown = '<div style="font-size:0"><a href="https://x.example/unsubscribe"><img src="a.png"></a></div>'
    assert "unsubscribe-link" in names(look(letter(f"<p>Hej Bo, ses vi?</p>{shown}", kind="text/html")))


def test_a_letter_hidden_in_a_mailing_is_found() -> None:
    shown = "<p>Kära kund! Nyhetsbrev. Läs mer. Avprenumerera här.</p>"
    hidden = '<p style="font-size:1px">Endast för internt bruk: vi varslar sju på måndag.</p>'
    assert "inside-only" in names(look(letter(shown + hidden, kind="text/html")))


def test_too_many_style_rules_are_too_complex() -> None:
    sheet = "".join(f".a{n}{{display:none}}" for n in range(2000))
    with pytest.raises(TooComplex, match="rules"):
        read_markup(f"<style>{sheet}</style><p>x</p>", Meter(Bounds()))


SELECTORS = (
    "div p b", "div > p b", "div>p>b", "div p ~ b", "p + b i", "div p + b ~ i", ".a .b b", "#c * b", "* * * b",
    "div:not(.a) p b", "div :first-child i", "p:nth-child(2n + 1) b", "i ~ i ~ b", "x p b", "div\t>\np  b",
    ":is( p , b, i )", "p:has(> b) > i", ":not(:is(p, b:not(.b)))", "[class~='a'] p > i", "i:nth-of-type( 2 )", "div > p:not(.b", ".\\62  b",
    "b:nth-last-child(-n+2)",
)  # fmt: skip


@every("selector", SELECTORS)
def test_a_selector_of_many_steps_chooses_what_lexbor_does(selector: str) -> None:
    tree = LexborHTMLParser(
        "<div class=a><p>1<b>2</b>3<i>4</i></p><div id=c><p class=b>5<i>6</i><i>7</i><b>8</b></p></div></div>"
        "<p>9</p><b>10<i>11</i></b>text<i class=a>12</i><div><p><b class=b>13</b></p><b>14</b></div>"
    )
    assert {n.mem_id for n in select(tree, selector, lambda: 27, Meter(Bounds()))} == {
        n.mem_id for n in tree.css(selector)
    }


STEPS = "* " * 12
SLOW = (
    f"x {STEPS}p", "x ~ " + "* ~ " * 12 + "p", f":not({STEPS}p)", f":not(:is(x) {STEPS}p)", f":not(:is(x) {STEPS}p",
    f":not([a=')'] {STEPS}p)", f":not(.a\\) {STEPS}p)", ":not(:is(:is(:is(:is(:is(x *) *) *) *) *) p)",
)  # fmt: skip


@every("selector", SLOW)
def test_a_selector_of_many_steps_takes_linear_time(selector: str) -> None:
    """lexbor would try every way to take the steps, for hours."""
    source = f"<style>{selector}{{display:none}}</style>{'<div>' * 100}{'<p>Hej</p>' * 50}"
    with suppress(TooComplex):
        read_markup(source, Meter(Bounds()))


@every(
    "selector",
    [
        ":nth-child(n of:nth-child(n))", ":n\\74 h-child(n of:n\\74h-child(n))", ":nth-child(n of(p))", "p:has(~p~b)", ":has(* b)", ":is(:has(~ b) ~ p)",
        ":not(p:is(x ~ p, y ~ p))", "p:has(:has(b))", "p" + ":nth-child(n)" * 4, "p" + ":only-of-type" * 4, "p ~ p" + ":NTH-child(n)" * 4,
    ],
)  # fmt: skip
def test_a_selector_that_looks_often_at_others_is_too_complex(selector: str) -> None:
    """lexbor would take the square, or the cube, of the number of elements."""
    with pytest.raises(TooComplex, match="selectors"):
        read_markup(f"<style>{selector}{{display:none}}</style>{'<p>Hej' * 4_000}", Meter(Bounds()))


@every("pieces", [4_000, 20_000])
def test_a_selector_that_counts_is_read_in_a_tree_of_some_size(pieces: int) -> None:
    """Lexbor goes through all elements for each, and no other thread runs meanwhile: the console's pages wait."""
    sheet = "<style>p:nth-child(2n):nth-last-child(6n){display:none}</style>"
    with pytest.raises(TooComplex, match="selectors") if pieces > 4_000 else nullcontext():
        read_markup(sheet + "<p>x" * pieces, Meter(Bounds()))


@every("selector", ["tr:nth-child(even)", "td:nth-of-type(3)", "table:has(th) td"])
def test_a_selector_that_counts_is_read_in_a_table_of_a_thousand_rows(selector: str) -> None:
    """Each row is beside the others, but each cell only beside seven: no call takes long."""
    row = f"<tr>{'<td>x</td>' * 8}</tr>"
    read_markup(f"<style>{selector}{{display:none}}</style><table>{row * 1_500}</table>", Meter(Bounds()))


@every("selector", ["[title*='" + "a" * 400 + "b' i] ~ p", ":is(x ~ p)", "p:has(b)"])
def test_a_quick_reading_takes_no_time_that_grows_with_the_square(selector: str) -> None:
    source = f"<style>{selector}{{display:none}}</style><p title={'a' * 150_000}>{'<p>Hej' * 3_500}"
    began = time.process_time()
    with suppress(TooComplex):
        read_markup(source, Meter(replace(NARROW, clock=None)))
    assert time.process_time() - began < 5


def test_a_long_text_is_read_to_its_end() -> None:
    made = read_markup(f"<p>{'a word ' * 40_000}<!--[if mso]><p>bacon</p><![endif]-->ba<i>x</i>con", Meter(Bounds()))
    assert "bacon" in "\n".join(made.unshown)
    assert "bacon" in made.rejoined
