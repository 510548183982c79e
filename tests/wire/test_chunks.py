"""Content sent by BDAT: intact, refused, lost and recalled as with DATA, and never sent to a relay that would read it
as commands."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.envelope import Lost, Recalled
from smtpguard.mail.message import Content
from smtpguard.wire.relay import RelayConnection
from smtpguard.wire.target import Reachability
from tests.every import every
from tests.script import BLOCK, CHUNK, DOT, DROP, RESET, STALL
from tests.scripted_relay import KEYWORDS, ScriptedRelay
from tests.wire.relayed import begin, connected, fence_fails, fence_holds

TRACE = b"Received: from here\r\n"
BODY = b"Subject: Hello\r\n\r\n.\r\n..two\r\nRSET\r\n"
LARGE = (b"x" * 998 + b"\r\n") * 20_000
"""More than the socket buffers hold, so that a test can act in the middle."""


@asynccontextmanager
async def session(**more: object) -> AsyncIterator[tuple[ScriptedRelay, RelayConnection]]:
    async with (
        ScriptedRelay(keywords=(*KEYWORDS, "CHUNKING"), **more) as relay,  # type: ignore[arg-type]
        connected(relay) as connection,
    ):
        assert connection.chunking
        await begin(connection)
        yield relay, connection


@pytest.mark.parametrize("content", [b"", BODY, LARGE, "mapped"], ids=["empty", "small", "large", "mapped"])
async def test_content_is_sent_unchanged(content: Content | str) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(LARGE)
        file.flush()
        raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if isinstance(content, str) else content
        async with session() as (relay, connection):
            for n in range(2):
                assert (await connection.chunk(TRACE, raw, fence_holds)).lines == (f"2.0.0 Taken as {n + 1}",)
                assert connection.clean
                await begin(connection)
            assert [message.content for message in relay.messages] == [TRACE + raw[:]] * 2
            size, trace = len(raw), len(TRACE)
            said = [line.decode() for line in relay.commands if line.startswith(b"BDAT")]
            assert said == [f"BDAT {trace}", f"BDAT {size} LAST", f"BDAT {trace + size} LAST"]
            assert connection.messages == 2


async def test_chunking_can_be_switched_off() -> None:
    async with ScriptedRelay(keywords=(*KEYWORDS, "CHUNKING")) as relay, connected(relay, chunking=False) as connection:
        assert not connection.chunking


@given(st.lists(st.sampled_from([b"x", b".", b"..", b"\r\n", b"\r\n.\r\n", b"\xe5", b"QUIT\r\n"]), max_size=30))
@settings(max_examples=50)
async def test_any_lines_are_sent_unchanged(pieces: list[bytes]) -> None:
    content = b"".join(pieces) + b"\r\n"
    async with session() as (relay, connection):
        for _ in range(2):
            assert (await connection.chunk(TRACE, content, fence_holds)).code == 250
            await begin(connection)
        assert [message.content for message in relay.messages] == [TRACE + content] * 2


@every("code", [500, 501, 502, 503, 504])
async def test_without_bdat_no_content_is_sent(code: int) -> None:
    known = Reachability("the relay")
    async with ScriptedRelay(keywords=(*KEYWORDS, "CHUNKING")) as relay:
        relay.on("BDAT", f"{code} 5.5.1 What?")
        async with connected(relay, reachability=known) as connection:
            await begin(connection)
            with pytest.raises(Lost) as lost:
                await connection.chunk(TRACE, b"RSET\r\n", fence_holds)
            assert not lost.value.after_dot
            assert not connection.usable
        await relay.emptied()
        assert b"RSET" not in relay.commands
        async with connected(relay, reachability=known) as connection:
            assert not connection.chunking
        assert Reachability("the relay").no_chunks is False, "asked again by the next process"


@pytest.mark.parametrize("answer", ["452 4.3.1 Full", "552 5.3.4 Too big", "421 4.3.2 Going down"])
@pytest.mark.parametrize("point", [CHUNK, DOT])
async def test_a_refusal_is_passed_on(point: str, answer: str) -> None:
    async with session() as (relay, connection):
        relay.on(point, answer)
        assert str(await connection.chunk(TRACE, BODY, fence_holds)) == answer
        assert connection.usable
        assert not connection.clean, "RSET is sent before what comes next"
        assert connection.chunking
        assert relay.messages == []


@pytest.mark.parametrize("point", [CHUNK, DOT])
async def test_a_reply_354_is_an_error(point: str) -> None:
    async with session() as (relay, connection):
        relay.on(point, "354 More")
        with pytest.raises(Lost) as lost:
            await connection.chunk(TRACE, BODY, fence_holds)
        assert lost.value.after_dot is (point == DOT)
        assert not connection.usable


@pytest.mark.parametrize("how", [DROP, RESET], ids=str)
@pytest.mark.parametrize(("point", "after_dot"), [("BDAT", False), (CHUNK, False), (BLOCK, False), (DOT, True)])
async def test_a_lost_connection_tells_whether_the_last_octet_was_sent(
    how: object, point: str, after_dot: bool
) -> None:
    async with session() as (relay, connection):
        relay.on(point, how)  # type: ignore[arg-type]
        with pytest.raises(Lost) as lost:
            await connection.chunk(TRACE, LARGE if point == BLOCK else BODY, fence_holds)
        assert lost.value.after_dot is after_dot
        assert not connection.usable


@pytest.mark.parametrize("content", [BODY, LARGE], ids=["small", "large"])
async def test_a_failed_fence_withholds_the_last_octets(content: bytes) -> None:
    async with session() as (relay, connection):
        with pytest.raises(Recalled):
            await connection.chunk(TRACE, content, fence_fails)
        assert not connection.usable
        await relay.emptied()
        assert relay.messages == []


async def test_buffered_octets_are_recalled() -> None:
    async with session(receive_buffer=4096) as (relay, connection):
        relay.on(BLOCK, STALL)
        assert (await connection.chunk(TRACE, BODY, fence_holds)).code == 250
        await begin(connection)
        answers, commands = iter([True, True]), len(relay.commands)

        async def fence() -> bool:
            assert connection._transport is not None
            if (
                len(relay.commands) == commands
            ):  # the relay stops reading this chunk, so that it fills the socket buffers
                connection._transport.write(b"BDAT 10000000\r\n" + bytes(10_000_000))
            return next(answers, False)

        with pytest.raises(Recalled):
            await connection.chunk(TRACE, b"x" * 60_000 + b"\r\n", fence)
        assert len(relay.messages) == 1


async def test_an_early_reply_counts_only_as_a_refusal() -> None:
    async with session() as (relay, connection):
        relay.on(BLOCK, ["552 5.3.4 Too big", STALL])
        assert str(await connection.chunk(TRACE, LARGE, fence_holds)) == "552 5.3.4 Too big"
        assert not connection.usable
    async with session() as (relay, connection):
        relay.on(BLOCK, ["250 2.0.0 Taken", STALL])
        with pytest.raises(Lost) as lost:
            await connection.chunk(TRACE, LARGE, fence_holds)
        assert not lost.value.after_dot
