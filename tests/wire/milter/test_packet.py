"""Encoding and decoding: packets survive any cut of the octets, and any input gives at most one error."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.reply import Reply
from smtpguard.wire.milterpackets import (
    MOST_OCTETS,
    Body,
    Command,
    Connect,
    Decoder,
    DeleteRecipient,
    EndOfMessage,
    Family,
    HeaderField,
    InsertHeader,
    Macros,
    Mail,
    Negotiate,
    ProtocolError,
    SmtpReply,
    Stage,
    answers,
    commands,
    encode,
)
from tests.every import every
from tests.wire.milter.drawn import ANSWERS, COMMANDS


def decoded(decoder: Decoder[Any], octets: bytes, cuts: list[int]) -> tuple[list[object], str]:
    """The packets in ``octets``, fed in pieces that end at ``cuts``, and the error that ended decoding, if any."""
    packets: list[object] = []
    at = [0, *sorted(cuts), len(octets)]
    error = ""
    for start, end in itertools.pairwise(at):
        decoder.feed(octets[start:end])
        try:
            while (packet := decoder.next()) is not None:
                packets.append(packet)
        except ProtocolError as e:
            assert not error, "one error, and nothing after it"
            error = str(e)
    return packets, error


@given(st.lists(COMMANDS, max_size=8), st.data())
@settings(max_examples=150, deadline=None)
def test_commands_decode_from_any_cut(said: list[Command], data: st.DataObject) -> None:
    octets = b"".join(map(encode, said))
    cuts = data.draw(st.lists(st.integers(0, len(octets)), max_size=5))
    assert decoded(commands(), octets, []) == (said, "")
    assert decoded(commands(), octets, cuts) == (said, "")
    assert decoded(commands(), octets, list(range(len(octets)))) == (said, "")


@given(st.lists(ANSWERS, max_size=8))
@settings(max_examples=100, deadline=None)
def test_answers_encode_and_decode(said: list[object]) -> None:
    octets = b"".join(map(encode, said))  # type: ignore[arg-type]
    assert decoded(answers(), octets, list(range(len(octets)))) == (said, "")


@every(
    ("packet", "octets"),
    [
        (Negotiate(6, 0x109, 0x1FF6FF), b"O\0\0\0\x06\0\0\x01\x09\0\x1f\xf6\xff"),
        (Negotiate(6, 0, 0, ((Stage.MAIL, b"i {auth_authen}"),)), b"O\0\0\0\x06" + bytes(8) + b"\0\0\0\x02i {auth_authen}\0"),
        (Macros(b"M", ((b"{auth_authen}", b"anna"), (b"i", b"4b"))), b"DM{auth_authen}\0anna\0i\x004b\0"),
        (Connect(b"desk.example", Family.INET, 25, b"192.0.2.1"), b"Cdesk.example\x004\0\x19192.0.2.1\0"),
        (Connect(b"localhost", Family.UNKNOWN), b"Clocalhost\0U"),
        (Mail(b"<anna@example.com>", (b"SIZE=9",)), b"M<anna@example.com>\0SIZE=9\0"),
        (HeaderField(b"Subject", b" a\n\tb"), b"LSubject\0 a\n\tb\0"),
        (Body(b"a\0b\r\n"), b"Ba\0b\r\n"),
        (EndOfMessage(), b"E"),
    ],
)  # fmt: skip
def test_commands_as_libmilter_writes_them(packet: Command, octets: bytes) -> None:
    framed = len(octets).to_bytes(4, "big") + octets
    assert encode(packet) == framed
    assert decoded(commands(), framed, []) == ([packet], "")


@every(
    ("packet", "octets"),
    [
        (SmtpReply(Reply.of(550, "5.7.1", "100 %", "no")), b"y550-5.7.1 100 %%\r\n550 5.7.1 no\0"),
        (InsertHeader(1, b"X-Smtpguard", b" a\n\tb"), b"i\0\0\0\x01X-Smtpguard\0 a\n\tb\0"),
        (DeleteRecipient(b"<a@example.com>"), b"-<a@example.com>\0"),
    ],
)
def test_answers_as_libmilter_reads_them(packet: object, octets: bytes) -> None:
    assert encode(packet) == len(octets).to_bytes(4, "big") + octets  # type: ignore[arg-type]


@every(
    ("octets", "why"),
    [
        (b"\0\0\0\0", "a packet of 0 octets"),
        ((MOST_OCTETS + 1).to_bytes(4, "big"), f"a packet of {MOST_OCTETS + 1} octets"),
        (b"\0\0\0\x05Zabcd", "a packet with the letter b'Z'"),
        (b"\0\0\0\x03Hab", "a string without an end"),
        (b"\0\0\0\x01H", "a string without an end"),
        (b"\0\0\0\x05Ha\0b\0", "2 strings"),
        (b"\0\0\0\x01M", "a string without an end"),
        (b"\0\0\0\x03La\0", "1 strings"),
        (b"\0\0\0\x05O\0\0\0\x06", "a negotiation that is cut off"),
        (b"\0\0\0\x0fO" + bytes(12) + b"\0\0", "macros that are cut off"),
        (b"\0\0\0\x13O" + bytes(12) + b"\0\0\0\x09i\0", "macros for a stage 9"),
        (b"\0\0\0\x01D", "macros for no command"),
        (b"\0\0\0\x02D?", "macros for no command"),
        (b"\0\0\0\x04DMi\0", "a macro without a value"),
        (b"\0\0\0\x02Cx", "a string without an end"),
        (b"\0\0\0\x04Cx\0?", "a client of the family b'?'"),
        (b"\0\0\0\x054x", None),
        (b"\0\0\0\x05Cx\x004\0", "a client without an address"),
        (b"\0\0\0\x02Q!", "more than belongs to the packet"),
    ],
)
def test_invalid_packets_are_refused(octets: bytes, why: str | None) -> None:
    packets, error = decoded(commands(), octets + encode(EndOfMessage()), [])
    assert packets == []
    assert error
    if why:
        assert error == why


def test_an_unknown_command_is_refused_before_its_payload() -> None:
    decoder = commands()
    decoder.feed(b"\0\x0f\0\0?")
    with pytest.raises(ProtocolError):
        decoder.next()
    decoder.feed(encode(EndOfMessage()))
    assert decoder.next() is None
    assert decoder.waiting == 0, "later input is discarded"


def test_a_string_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        encode(DeleteRecipient(b"<a\0@example.com>"))


@every("text", [b"250 no\0", b"550\0", b"550 a\r\n551 b\0", b"55x a\0", b"550-a\0"])
def test_an_invalid_smtp_reply_is_refused(text: bytes) -> None:
    octets = (len(text) + 1).to_bytes(4, "big") + b"y" + text
    assert decoded(answers(), octets, []) == ([], "no SMTP reply")
