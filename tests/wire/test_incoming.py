"""What has come and nobody has read: lines, bulk, and a client that is not listened to while too much waits."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.wire.incoming import HIGH_OCTETS, LONGEST_LINE, Incoming, Overlong


class Source:
    """A transport, as far as it is asked to keep quiet."""

    def __init__(self) -> None:
        self.paused = self.closing = False

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def is_closing(self) -> bool:
        return self.closing


def incoming() -> tuple[Incoming, Source]:
    heard, source = Incoming(asyncio.get_running_loop()), Source()
    heard.set_transport(source)  # type: ignore[arg-type]
    return heard, source


CHUNKS = st.lists(st.sampled_from([b"NOOP\r\n", b"\n", b"a", b"\r", b"\r\nb", b"x" * 50]), max_size=12)


@given(CHUNKS, st.lists(st.booleans(), min_size=12, max_size=12))
@settings(max_examples=150, deadline=None)
async def test_nothing_is_lost_or_made_up(chunks: list[bytes], reads: list[bool]) -> None:
    heard, _ = incoming()
    out = b""
    for chunk, read in zip(chunks, reads, strict=False):
        heard.feed_data(chunk)
        assert heard.pending
        if read:
            before = heard.has_line
            line = heard.line()
            assert (line is not None) == before
            out += line or b""
    taken = heard.take()
    heard.put_back(taken[3:])
    assert out + taken[:3] + heard.take() == b"".join(chunks)
    assert not heard.pending


async def test_what_is_put_back_comes_first() -> None:
    heard, _ = incoming()
    heard.feed_data(b"content\r\n.\r\nQUIT\r\n")
    heard.take()
    heard.feed_data(b"more\r\n")
    heard.put_back(b"QUIT\r\n")
    assert [heard.line(), heard.line(), heard.line()] == [b"QUIT\r\n", b"more\r\n", None]


async def test_too_much_waits() -> None:
    heard, source = incoming()
    heard.feed_data(b"x\n" * HIGH_OCTETS)
    assert source.paused
    heard.feed_data(b"y\n")
    while source.paused:
        assert heard.line() == b"x\n"
    heard.feed_data(b"x\n" * HIGH_OCTETS)
    assert source.paused
    heard.take()
    assert not source.paused


async def test_a_transport_that_closes_is_left_alone() -> None:
    heard, source = incoming()
    heard.feed_data(b"x\n" * HIGH_OCTETS)
    source.closing = True
    heard.discard()
    assert source.paused


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_line_without_end_is_dropped_whole(pieces: int) -> None:
    heard, _ = incoming()
    for _ in range(pieces):
        heard.feed_data(b"x" * (LONGEST_LINE + 1))
        if pieces > 1:
            assert heard.line() is None
            assert not heard.pending
    heard.feed_data(b"end\r\nNOOP\r\n")
    with pytest.raises(Overlong):
        heard.line()
    assert heard.line() == b"NOOP\r\n"


async def test_waiting() -> None:
    heard, _ = incoming()
    waiting = asyncio.create_task(heard.more())
    await asyncio.sleep(0)
    heard.feed_data(b"x")
    assert await waiting
    waiting = asyncio.create_task(heard.more())
    await asyncio.sleep(0)
    heard.feed_eof()
    assert not await waiting
    assert not await heard.more()
    assert not heard.at_eof()
    heard.discard()
    assert heard.at_eof()


async def test_a_connection_that_breaks() -> None:
    heard, _ = incoming()
    waiting = asyncio.create_task(heard.more())
    await asyncio.sleep(0)
    heard.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await waiting
    with pytest.raises(ConnectionResetError):
        await heard.more()
    assert isinstance(heard.exception(), ConnectionResetError)
