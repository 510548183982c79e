"""Bounds: anything too big, too deep or too slow becomes "too complex", and quickly."""

from __future__ import annotations

import time
from dataclasses import replace

from smtpguard.reading.looks import Looks, Readable
from smtpguard.reading.request import Bounds, Depth
from smtpguard.reading.shown import shown_by
from tests.every import every
from tests.reading.letters import OUTLOOK, PLATFORM, letter, look, names, parts

SECONDS = 20
"""Of processor time, forty times what the slowest of these takes. Work that grows with the square of the text takes minutes."""


def nested_multiparts(n: int) -> str:
    lines = []
    for i in range(n):
        lines.append(f"--b{i}\nContent-Type: multipart/mixed; boundary=b{i + 1}\n")
    return "\n".join(lines) + f"\n--b{n}\n\nBacon\n"


@every(
    ("body", "headers", "why"),
    [
        ("<div>" * 50_000 + "bacon" + "</div>" * 50_000, {"Content-Type": "text/html"}, "tags"),
        ("<div>" * 2_000 + "bacon", {"Content-Type": "text/html"}, "deeper"),
        ("<b>" * 3_000 + "bacon", {"Content-Type": "text/html"}, "deeper"),
        (nested_multiparts(2_000), {"Content-Type": "multipart/mixed; boundary=b0"}, "nested"),
        ("--bb\nContent-Type: message/rfc822\n\n" + "Content-Type: message/rfc822\n\n" * 2_000 + "x", {"Content-Type": "multipart/mixed; boundary=bb"}, "nested"),
        ("--bb\n\nx\n" * 100_000 + "--bb--\n", {"Content-Type": "multipart/mixed; boundary=bb"}, "parts"),
        ("bacon " * 500_000, {}, "text"),
        ("--bb\nX: " + "y" * 100_000 + "\n\nx\n--bb--\n", {"Content-Type": "multipart/mixed; boundary=bb"}, "header"),
    ],
)  # fmt: skip
def test_too_complex_messages_are_recognized(body: str, headers: dict[str, str], why: str) -> None:
    message = letter(body, {**PLATFORM, **headers})
    started = time.process_time()
    reading = look(message)
    assert time.process_time() - started < SECONDS
    assert reading.readable is Readable.TOO_COMPLEX
    assert "empty" not in names(reading), "nobody knows"
    assert why in reading.why_unreadable
    assert reading.looks is not Looks.MAILING


def test_many_header_fields_are_too_complex() -> None:
    message = letter()
    reading = look(type(message).of(b"X-A: 1\r\n" * 20_000 + message.raw[:]))
    assert reading.readable is Readable.TOO_COMPLEX


def test_a_large_attachment_is_skipped() -> None:
    message = parts(
        ("Content-Type: text/plain", "Bacon"),
        ("Content-Type: application/zip\nContent-Transfer-Encoding: base64", "QUJD" * 2_000_000),
    )
    started = time.process_time()
    reading = look(message)
    assert time.process_time() - started < SECONDS
    assert reading.readable is Readable.YES


def test_a_large_text_file_is_read_in_part() -> None:
    message = parts(
        ("Content-Type: text/plain", "x"),
        ("Content-Type: text/plain\nContent-Disposition: attachment; filename=a.log", "bacon " * 600_000),
    )
    reading = look(message)
    assert reading.readable is Readable.YES
    assert reading.topics


def test_reading_is_limited_in_time() -> None:
    ticks = iter(range(1_000_000))
    reading = look(letter("x"), bounds=Bounds(seconds=0.5, clock=lambda: float(next(ticks))))
    assert reading.readable is Readable.TOO_COMPLEX
    assert "0.5 seconds" in reading.why_unreadable


def test_unclosed_markup_is_not_too_complex() -> None:
    html = "<table><tr><td><font size=2><p>x<br>" * 100 + "<li>y<p>" * 1_000
    assert look(letter(html, kind="text/html")).readable is Readable.YES


def test_the_header_can_be_read_alone() -> None:
    reading = look(
        letter("Bacon", {**OUTLOOK, "Subject": "SV: Dieten", "Cc": "Bo <bo+x@example.com>"}), depth=Depth.HEADERS
    )
    assert "outlook-thread" in names(reading)
    assert reading.shown == {"customers@example.com", "bo@example.com"}
    assert reading.topics == ()
    assert reading.excerpt == ""


@every("headers", [{**OUTLOOK, "Subject": "SV: Dieten"}, {"List-Id": "<x.example.com>", "Precedence": "bulk"}, {}])
def test_an_unjudged_header_has_the_same_fields(headers: dict[str, str]) -> None:
    message = letter("Bacon", headers)
    judged, quick = (look(message, depth=Depth.HEADERS, marked=marked) for marked in (True, False))
    assert (quick.looks, quick.score, quick.marks) == (Looks.UNCLEAR, 0.0, ())
    assert replace(judged, looks=Looks.UNCLEAR, score=0.0, marks=()) == quick


@every(
    "value",
    [
        "a" * 100_000, "<" * 50_000, '"' * 50_000, "(" * 50_000, "a@b," * 25_000, "=?utf-8?Q?" * 10_000, "=?a?b?" + "=" * 50_000, ";x=" * 30_000,
        "Re: " * 20_000, "[x] " * 20_000, "<a@b> " * 20_000, "((((" + ")" * 50_000, "* =?utf-8?B?" + "QUJD" * 10_000 + "?=",
        '"\\' * 50_000, "<" + " " * 50_000 + "a", "x;" + " ;" * 25_000,
    ]
)  # fmt: skip
@every(
    "field",
    [
        "From",
        "To",
        "Subject",
        "Content-Type",
        "References",
        "Thread-Index",
        "List-Unsubscribe",
        "Return-Path",
        "MSIP_Labels",
        "X-Mailer",
    ],
)
def test_no_header_value_takes_long(field: str, value: str) -> None:
    started = time.process_time()
    look(letter("x", {field: value}))
    assert time.process_time() - started < SECONDS


@every(
    "body",
    [
        "\n" * 80_000, " " * 200_000, ">" * 200_000, "> \n" * 80_000, "From: " * 50_000, "From: x\n" * 100_000, "On a@b wrote: " * 60_000,
        "Hej " * 200_000, "Hej, " * 50_000 + "\n", "a@" * 100_000, "1 " * 100_000, "a b c d " * 100_000, "a1" * 100_000, "--" * 100_000, "-\n" * 80_000, "http://" * 100_000,
        "{{ " * 200_000, "*|" * 80_000, "gris*" * 50_000, "a\u0308" * 50_000, "mvh\n" * 50_000, "Tel 1 " * 50_000, "\u0430a" * 200_000, "x" * 200_000,
        "x@y " + "a" * 180_000, "a" + "\u0301\u0316" * 90_000, "\u0301\uff9e" * 90_000, "\u0f73\u0301" * 90_000,
    ]
)  # fmt: skip
@every("kind", ["text/plain", "text/html"])
def test_no_text_takes_long(body: str, kind: str) -> None:
    """Nor to take the message apart, for people and to compare it: both happen beside other clients' mail."""
    message = letter(body, kind=kind)
    started = time.process_time()
    look(message)
    shown_by(message, Bounds())
    assert time.process_time() - started < SECONDS


def test_a_character_reference_of_thousands_of_digits_is_compared_as_octets() -> None:
    assert shown_by(letter(f"&#{'9' * 5_000};", kind="text/html"), Bounds()).opaque


_SHEET = "<p style='font-size:1px'>x</p><style>a{font-size:1px}</style>"


@every(
    "body",
    [
        _SHEET + "<!--[if" * 25_000, "<style " * 25_000, "<style></x>" * 2_000 + "x" * 100_000, _SHEET + "<link " * 30_000,
        "<style>" + "/*" * 80_000 + "</style>", "<style>" + "content:'" * 18_000 + "</style>", "<style>" + "a " * 80_000 + "</style>",
    ]
)  # fmt: skip
def test_no_style_sheet_takes_long(body: str) -> None:
    message = letter(f"{_SHEET}{body}", kind="text/html")
    started = time.process_time()
    look(message)
    shown_by(message, Bounds())
    assert time.process_time() - started < SECONDS
