"""The reader raises for no bytes, and no change of a byte turns a colleague's mail into a mailing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.decoding import decode_charset, decode_transfer, header_text, parse_value
from smtpguard.mail.message import Field, Message
from smtpguard.reading import fold as folding
from smtpguard.reading.fold import fold, undisguised
from smtpguard.reading.looks import Looks
from smtpguard.reading.markup import collapsed
from smtpguard.reading.people import parse_addresses, people_of
from smtpguard.reading.quoting import split
from smtpguard.reading.request import Depth, Surroundings, dump_reading, load_reading
from tests.reading.letters import CAMPAIGN, GROWN_THREAD, OUTLOOK, STORY, around, letter, look, parts

SEEDS = [
    letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten", "Thread-Index": GROWN_THREAD}),
    letter(CAMPAIGN, kind="text/html"),
    parts(
        ("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable", "Fl=C3=A4sk"),
        ("Content-Type: message/rfc822", "From: a@example.com\nSubject: =?utf-8?B?ZmzDpHNr?=\n\nx"),
        ("Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64", "PHA+ZmzDpHNrPC9wPg=="),
        ("Content-Type: text/calendar; method=REQUEST", "BEGIN:VCALENDAR\nSUMMARY:x\nEND:VCALENDAR"),
    ),
]
PIECES = [
    b"\r\n", b"\r\n\r\n", b"--bb", b"--bb--", b"Content-Type: ", b"multipart/mixed; boundary=bb", b"message/rfc822", b"text/html", b"; charset=", b"utf-16",
    b"base64", b"quoted-printable", b"=?utf-8?B?", b"?=", b"<div>", b"</div>", b"<table>", b'<p style="display:none">', b"<blockquote type=cite>", b"<!--",
    b"-->", b"<style>.a{display:none}</style>", b"From: ", b"To: ", b"Subject: SV: ", b"> ", b"@example.com", b"\x00", b"\xff\xfe", b"\xc3", b"bacon", b"&#", b"=", b"\"", b"(", b"<", b";", b"*0*=",
    b'class="gmail_quote"', b'<div id="divRplyFwdMsg">', b"<svg>", b"<template>", b"<frameset>", b"<select>", b'hidden', b"<a href=",
]  # fmt: skip


@given(st.binary(max_size=2_000))
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_read(raw: bytes) -> None:
    reading = look(Message.of(raw))
    assert load_reading(dump_reading(reading)) == reading


@given(st.lists(st.sampled_from(PIECES), max_size=60))
@settings(max_examples=300, deadline=None)
def test_random_structures_are_read(pieces: list[bytes]) -> None:
    raw = b"".join(pieces)
    for head in (
        b"",
        b"Content-Type: text/html\r\n\r\n",
        b"Content-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n",
    ):
        look(Message.of(head + raw))
    look(Message.of(raw), depth=Depth.HEADERS)


NAMED = st.lists(
    st.sampled_from(["Ann", " ", "  ", "\t", "\r\n ", "<", ">", "a.b", "A", "@", "example", ".", "com", "-", "_", "+x", "'", '"', ",", "(", ")", ":", ";", "=?utf-8?Q?=40?=", "é", "\u212a", "\0", "x" * 60]),
    max_size=9,
).map("".join) | st.from_regex(r" ?([A-Za-z .]{0,9}<)?[a-zA-Z0-9.+_-]{1,9}@[a-zA-Z0-9.-]{1,66}>? ?", fullmatch=True)  # fmt: skip


@given(NAMED, st.sampled_from(["", "+", "-", "+ example.com=-_"]))
@settings(max_examples=400, deadline=None)
def test_the_usual_field_of_addresses_is_read_as_any_other(value: str, delimiters: str) -> None:
    raw, near = value.encode(), Surroundings(delimiters=delimiters)
    shown = people_of({"to": [Field("To", raw)]}, near).shown
    assert list(shown) == list(dict.fromkeys(parse_addresses(header_text(raw), near)))


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_truncated_messages_are_read(seed: int) -> None:
    raw = SEEDS[seed].raw[:]
    for n in range(0, len(raw), 7):
        look(Message.of(raw[:n]))


def test_no_changed_byte_turns_the_story_into_a_mailing() -> None:
    raw = bytearray(SEEDS[0].raw[:])
    chosen = random.Random(7)
    for position in range(0, len(raw), 3):
        changed = bytearray(raw)
        changed[position] = chosen.randrange(256)
        assert look(Message.of(bytes(changed))).looks is not Looks.MAILING


@given(
    st.binary(max_size=400),
    st.sampled_from(["base64", "quoted-printable", "uuencode", "7bit", "x"]),
    st.text(max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_decoding_never_raises(raw: bytes, encoding: str, charset: str) -> None:
    decode_charset(decode_transfer(raw, encoding)[0], charset)
    header_text(raw)
    parse_value(raw)


@given(st.text(max_size=600))
@settings(max_examples=150, deadline=None)
def test_any_text_is_folded_and_searched(text: str) -> None:
    folded = fold(text)
    undisguised(folded)
    split(collapsed(text))
    around().vocabularies.find([("text", text)])


@given(st.text(alphabet="abx013@$. -_·•\xa0‐–—åж²½٣\u0301\ud800中,\n", max_size=30))
@settings(max_examples=400, deadline=None)
def test_no_disguise_is_passed_over(text: str) -> None:
    plain = folding._LEET.sub(folding._letter_meant, text)
    assert undisguised(text) == folding._APART.sub(lambda m: folding._SPACED.sub("", m[0]), plain)
