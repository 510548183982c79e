"""The text of header fields, and the cost of decoding it."""

from __future__ import annotations

import mmap
import re
import tempfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.mail import message
from smtpguard.mail.message import Field, Message, in_crlf_lines, parse_header
from tests.every import every


@every(
    ("raw", "text"),
    [
        (b" Hej\r\n du", "Hej du"),
        (b" =?utf-8?q?Hej_d=C3=A5?=", "Hej då"),
        (b" =?iso-8859-1?q?Hej?=\r\n =?utf-8?b?IGTDpQ==?=", "Hej då"),
        (b" =?x-nobody?q?Hej?=", "Hej"),
        (b" =?punycode?q?Hej-?=", "Hej-"),
        (b" =?raw_unicode_escape?q?=5Cu0041?=", "\\u0041"),
        (b" =?utf-7?q?+2AA-a?=", "\ufffda"),
        (b" =?utf-8\xc2\xa0?q?Hej?=", "Hej"),
        (b" a\x00b\x1b[31m\tc", "ab[31m c"),
        (b" =?utf-8?q?Hej?= =?utf-8?q?d=C3=A5", "Hej =?utf-8?q?d=C3=A5"),
    ],
)
def test_encoded_text_is_decoded(raw: bytes, text: str) -> None:
    assert Field("Subject", raw).text == text


@every("charset", [b"punycode", b"PunyCode", b"idna", b"utf-7", b"hz", b"unicode_escape"])
@every(
    "coded",
    [
        b"-" + b"9" * 19_000 + b"?=",
        b"b-" + b"a" * 19_000 + b"?=",
        b"a" * 19_000 + b"?=",
        b"a=?utf-8?q?" * 1_700,
        b"=?" + b" " * 19_000 + b"=",
    ],
)
def test_decoding_is_bounded_for_every_charset(charset: bytes, coded: bytes) -> None:
    """Decoding is bounded for every charset: the server reads headers of 64 KiB while it serves others, and some fields
    more than once."""
    message = Message.of((b"List-Unsubscribe: =?" + charset + b"?q?" + coded + b"\r\n") * 50 + b"\r\n")
    began = time.process_time()
    for field in message.header.fields:
        assert field.text
    assert time.process_time() - began < 3


_LINES = st.lists(
    st.sampled_from([b"From: a", b"To:b", b"Subject : x", b"X:", b" folded", b"\tmore", b"no field", b": x", b"N: \0", b"R: a\rb", b"L: a\nb", b"", b"\xe5: x"]),
    max_size=8,
)  # fmt: skip


@given(_LINES, st.sampled_from([b"", b"\r\n", b"\r\n\r\ntext\r\n"]))
def test_a_header_is_the_same_whether_it_is_matched_or_read_by_line(lines: list[bytes], end: bytes) -> None:
    raw = b"\r\n".join(lines) + end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(message, "_WHOLE_FIELD", re.compile(b"(?!)"))
        by_line = parse_header(raw)
    found = parse_header(raw)
    assert found == by_line
    assert {name: [*given] for name, given in found.named.items()} == by_line.named


@every("line", [b"x" * 1_000_000 + b"\r\n", b"X: " + b"x" * 900_000 + b"\0\r\n", b"X: " + b"x" * 900_000])
def test_a_header_is_parsed_in_linear_time(line: bytes) -> None:
    """A line without a field was searched from each of its octets: 1 MB of them took minutes."""
    began = time.process_time()
    assert parse_header(b"From: anna@example.com\r\n" + line).fields[0].name == "From"
    assert time.process_time() - began < 10


BLOCK = message._BLOCK_OCTETS


@every(
    ("content", "fine"),
    [
        (b"", True),
        (b"x\r\n", True),
        (b"x" * (BLOCK - 1) + b"\r\n", True),
        (b"x" * (BLOCK - 1) + b"\rx\n", False),
        (b"x" * (BLOCK - 1) + b"\r", False),
        (b"x" * BLOCK + b"\n\r", False),
        (b"x" * (BLOCK - 1) + b"\n\r\n", False),
    ],
)
def test_a_bare_cr_or_lf_is_found_in_any_content(content: bytes, fine: bool) -> None:
    assert in_crlf_lines(content) is fine
    if content:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            assert in_crlf_lines(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) is fine


def test_a_mapped_content_takes_about_as_long_as_one_in_memory() -> None:
    content = (b"x" * 76 + b"\r\n") * 100_000
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    took = []
    for each in (content, mapped):
        began = time.process_time()
        assert in_crlf_lines(each)
        took.append(time.process_time() - began)
    assert took[1] < 5 * took[0] + 0.05
