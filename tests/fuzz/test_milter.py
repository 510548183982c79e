"""Any octets from an MTA parse as packets or raise one ProtocolError, and the server survives them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtpguard.wire.milterpackets import (
    Abort,
    Body,
    Command,
    Connect,
    Decoder,
    EndOfHeader,
    EndOfMessage,
    Family,
    HeaderField,
    Helo,
    Macros,
    Mail,
    ProtocolError,
    QuitNext,
    Rcpt,
    Unknown,
    answers,
    commands,
    encode,
)
from tests.wire.milter.mta import POSTFIX
from tests.wire.milter.speaking import served

SESSION = b"".join(
    map(
        encode,
        [
            POSTFIX, Connect(b"x", Family.INET, 1, b"192.0.2.1"), Mail(b"<a@example.com>"), Rcpt(b"<b@example.com>"),
            HeaderField(b"Subject", b" x\n y"), EndOfHeader(), Body(b"Hej\r\n"), EndOfMessage(),
        ],
    )
)  # fmt: skip
SEEDS = [
    b"", b"\0", b"\0\0\0\0", b"\0\0\0\x01", b"\xff" * 9, b"\0\0\0\x01O", b"\0\0\0\x05O\0\0\0", b"\0\0\0\x02C4",
    b"\0\0\0\x05Cx\x004\0", b"\0\0\0\x04DMi\0", b"\0\0\0\x03y%\0", b"GET / HTTP/1.1\r\n\r\n", b"EHLO x\r\n", SESSION, SESSION[:-1],
]  # fmt: skip


def drained(decoder: Decoder[object], octets: bytes, chunk: int) -> int:  # type: ignore[type-var]
    errors = 0
    for start in range(0, len(octets), chunk):
        decoder.feed(octets[start : start + chunk])
        try:
            while decoder.next() is not None:
                assert not errors, "nothing comes after an error"
        except ProtocolError:
            errors += 1
    return errors


@pytest.mark.parametrize("make", [commands, answers])
@given(octets=st.binary(max_size=300), chunk=st.integers(1, 50))
@example(octets=SESSION, chunk=1)
@settings(max_examples=150, deadline=None)
def test_random_octets_raise_at_most_one_error(make: type, octets: bytes, chunk: int) -> None:
    assert drained(make(), octets, chunk) <= 1


@pytest.mark.parametrize("make", [commands, answers])
@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_mutated_sessions_raise_at_most_one_error(make: type, seed: bytes) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        octets = bytearray(seed)
        for _ in range(chance.randint(0, 3)):
            at = chance.randrange(len(octets) + 1)
            octets[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 3))
        assert drained(make(), bytes(octets), chance.randint(1, 20)) <= 1


ODD: list[list[Command]] = [
    [Helo(b"\xff\xfe"), Macros(b"M", ((b"{auth_authen}", b"\xff"),)), Unknown(b"x"), QuitNext(), Abort()],
    [
        Mail(b"<>"),
        Mail(b""),
        Mail("<å@x.se>".encode(), (b"SMTPUTF8", b"SIZE=9999999999999999999", b"ENVID=+00", b"RET=x")),
    ],
    [
        Rcpt(b"<b@example.com>"),
        Rcpt(b""),
        Rcpt(b"<\xff@x.se>"),
        Rcpt(b"<c@x.se>", (b"NOTIFY=NEVER,SUCCESS", b"ORCPT=x")),
    ],
    [HeaderField(b"", b""), HeaderField(b"A:B\r\n\r\n", b"\n\n\nx\r"), HeaderField(b"From", b"\xff\xfe <\n")],
    [EndOfHeader()],
    [Body(b"Hej\r\n"), Body(b"\r"), Body(b""), Body(b"\0\r\n")],
    [EndOfMessage(), EndOfMessage(b"the last line")],
]
"""Odd packets, in the order of a session."""


def sessions(chance: random.Random) -> Iterator[bytes]:
    """Valid sessions with changed octets, and odd packets mostly in order."""
    for n in range(120):
        octets = bytearray(SESSION)
        for _ in range(1 + n % 4):
            octets[chance.randrange(len(octets))] = chance.randrange(256)
        yield bytes(octets)
        said = [packet for kind in ODD for packet in chance.choices(kind, k=chance.randint(0, 3) or 1)]
        if n % 3 == 0:
            chance.shuffle(said)
        client = Connect(b"x", chance.choice((Family.INET, Family.INET6, Family.UNIX)), 0, b"IPv6:\xff")
        yield b"".join(map(encode, (POSTFIX, client, *said)))


async def test_the_server_survives_all_sessions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(tmp_path) as world:
        for octets in sessions(random.Random(7)):
            mta = await world.connect()
            mta.say(octets)
            mta.writer.write_eof()
            with suppress(ConnectionError):
                await asyncio.wait_for(mta.reader.read(), 120)
            mta.close()
        good = await (await world.connect()).begin()
        assert (await good.send(b"A: b\r\n\r\nx\r\n")).accepted
        assert len(world.seen) > 20, "some sessions have a message"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
