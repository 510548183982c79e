"""All mailboxes of a header field, in any spelling, however deep its comments nest."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.fields import spelled, without_comments
from tests.every import every


@every(
    ("text", "names"),
    [
        ("anna@example.com", "anna@example.com"),
        ("Anna <anna@example.com>", "anna@example.com"),
        ('"Andersson, Anna" <anna@example.com>', "anna@example.com"),
        ("Andersson, Anna <anna@example.com>", "anna@example.com"),
        ("anna@example.com (Anna)", "anna@example.com"),
        ("(" * 5000 + ")" * 5000 + " anna@example.com", "anna@example.com"),
        ("(" * 5000 + " anna@example.com", "anna@example.com"),
        ("(x (y) bo@example.com) anna@example.com", "anna@example.com"),
        ("anna (at work) @ (the) example . com", "anna@example.com"),
        ("Team: anna@example.com, Bo <bo@example.com>;", "anna@example.com bo@example.com"),
        ("Team:;", ""),
        ("A: anna@example.com;, B: bo@example.com;", "anna@example.com bo@example.com"),
        ("anna@example.com, bo@example.com", "anna@example.com bo@example.com"),
        ("anna@example.com bo@example.com", "anna@example.com bo@example.com"),
        ("<anna@example.com> <bo@example.com>", "anna@example.com bo@example.com"),
        ("Anna <anna@example.com> bo@example.com", "anna@example.com bo@example.com"),
        ("bo@example.com <anna@example.com>", "anna@example.com"),
        ('"bo@example.com" <anna@example.com>', "anna@example.com"),
        ("<@relay.example,@b.example:anna@example.com>", "anna@example.com"),
        ('"anna b"@example.com', '"anna b"@example.com'),
        ('"Anna <anna@example.com>', "anna@example.com"),
        ("x@[IPv6:::1], y@[192.0.2.1]", "x@[IPv6:::1] y@[192.0.2.1]"),
        ("=?utf-8?q?=C3=85sa?= <asa@example.com>", "asa@example.com"),
        ("nobody", ""),
        ("", ""),
    ],
)
def test_every_mailbox_is_found(text: str, names: str) -> None:
    expected = [names] if names.startswith('"') else names.split()
    assert spelled(text) == expected


def test_comments_are_removed_and_quotes_kept() -> None:
    assert without_comments('a (b (c) d) "(e)" \\(f').split() == ["a", '"(e)"', "\\(f"]


@settings(max_examples=200, deadline=None)
@given(st.text('()<>"\\,;:@. ab[]'), st.integers(1, 50))
def test_any_text_is_read(text: str, times: int) -> None:
    assert all("@" in one or "<" in text for one in spelled(text * times))


@every("piece", ["(", "(a)", '"', '"a"', "<", "<a>", "\\", "[", ":", "a@b,", "( ", '("', '"\\'])
def test_time_is_linear_in_length(piece: str) -> None:
    began = time.process_time()
    spelled(piece * (100_000 // len(piece)))
    assert time.process_time() - began < 3
