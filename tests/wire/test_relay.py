"""One transaction with a scripted relay: replies, content, the fence, loss."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.envelope import Lost, Recalled
from smtpguard.mail.reply import Reply
from smtpguard.wire.relay import AT_ONCE, RelayConnection
from smtpguard.wire.replies import MAX_LINE_OCTETS, MAX_REPLY_LINES, BadReply, Replies
from smtpguard.wire.target import Timeouts
from tests.every import every
from tests.script import BLOCK, DOT, DROP, RESET, STALL
from tests.scripted_relay import ScriptedRelay
from tests.wire.relayed import BODY, MAIL, RCPT, begin, connected, fence_fails, fence_holds

# replies


def test_replies_are_parsed_from_any_pieces() -> None:
    sent = b"250-mx.example\r\n250-SIZE 10\r\n250 HELP\r\n451 4.7.1 Later\r\n250\r\n"
    for cut in range(len(sent)):
        replies = Replies()
        got = [*replies.feed(sent[:cut]), *replies.feed(sent[cut:])]
        assert got == [
            Reply(250, ("mx.example", "SIZE 10", "HELP")),
            Reply(451, ("4.7.1 Later",)),
            Reply(250, ("",)),
        ]
        assert got[1].enhanced == "4.7.1"


@every(
    "sent",
    [
        b"hello\r\n",
        b"250 Ok\n",
        b"250-a\r\n251 b\r\n",
        b"25 Ok\r\n",
        b"199 Ok\r\n",
        b"600 Ok\r\n",
        b"2500 Ok\r\n",
        b"250_Ok\r\n",
        b"250 a\rb\r\n",
        b"250 a\x00b\r\n",
        b"250 " + b"x" * MAX_LINE_OCTETS + b"\r\n",
        b"250 " + b"x" * MAX_LINE_OCTETS,
        b"250-x\r\n" * (MAX_REPLY_LINES + 1),
        b"\r\n",
    ],
)
def test_invalid_replies_are_refused(sent: bytes) -> None:
    with pytest.raises(BadReply):
        Replies().feed(sent)


@given(st.lists(st.binary(max_size=40), max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_replies_or_refused(pieces: list[bytes]) -> None:
    replies = Replies()
    try:
        for piece in pieces:
            for reply in replies.feed(piece):
                assert 200 <= reply.code < 600
                assert all(len(line.encode()) <= 1500 and "\r" not in line for line in reply.lines)
    except BadReply:
        pass


def test_control_characters_and_long_texts_are_removed() -> None:
    (reply,) = Replies().feed(b"550 5.1.1 \x1b[2Jgone \xff" + b"x" * 1000 + b"\r\n")
    assert reply.lines[0].startswith("5.1.1  [2Jgone ")
    assert len(reply.octets) <= 512


# one transaction


async def test_content_is_sent_unchanged() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        assert connection.extensions["SIZE"] == "52428800"
        await begin(connection)
        assert not connection.clean
        assert (await connection.data([BODY[:7], memoryview(BODY)[7:]], fence_holds)).code == 250
        assert connection.clean
        assert relay.messages[0].raw == BODY
        assert relay.messages[0].content == BODY.replace(b"\r\n..", b"\r\n.")
        assert relay.messages[0].mail == MAIL
        assert relay.messages[0].rcpts == [RCPT]
        await begin(connection)
        assert (await connection.data([], fence_holds)).code == 250
        assert relay.messages[1].raw == b""
        assert connection.messages == 2


async def test_without_pipelining_commands_wait() -> None:
    async with ScriptedRelay(keywords=["SIZE 10"]) as relay, connected(relay) as connection:
        relay.on("MAIL", STALL)
        task = asyncio.create_task(connection.pipeline([MAIL, RCPT]))
        await relay.saw(b"MAIL")
        await asyncio.sleep(0)
        assert "RCPT" not in relay.verbs()
        relay.forget()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not connection.clean  # a reply is still due


async def test_a_slow_relay_has_time_for_each_25_recipients(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[float] = []
    async with ScriptedRelay() as relay, connected(relay, timeouts=Timeouts(command=77)) as connection:
        monkeypatch.setattr(connection, "_arm", armed.append)
        lines = [MAIL, *(b"RCPT TO:<to%d@example.net>" % n for n in range(2 * AT_ONCE))]
        assert [reply.code for reply in await connection.pipeline(lines)] == [250] * len(lines)
    assert armed.count(77) == 3


async def test_each_recipient_has_its_reply() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        relay.on("RCPT TO:<bad@", "550 5.1.1 No such user\n550 5.1.1 here")
        relay.on("RCPT TO:<later@", "451 4.2.1 Later")
        lines = [MAIL, b"RCPT TO:<bad@example.net>", b"RCPT TO:<later@example.net>", RCPT]
        replies = await connection.pipeline(lines)
        assert [str(r) for r in replies] == [
            "250 2.0.0 Ok",
            "550 5.1.1 No such user here",
            "451 4.2.1 Later",
            "250 2.0.0 Ok",
        ]


@every("line", [b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>", b"RCPT\n", b"MAIL\x00", b"NOOP\r"])
async def test_a_command_with_a_line_end_is_refused(line: bytes) -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        with pytest.raises(ValueError):
            await connection.command(line)
        assert (await connection.command(b"NOOP")).code == 250
        assert relay.commands[-1] == b"NOOP"


async def test_content_without_a_final_line_end_is_refused() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        await begin(connection)
        with pytest.raises(ValueError):
            await connection.data([b"no line end"], fence_holds)
        assert not connection.usable
        assert relay.messages == []


async def test_a_refusal_of_data_is_passed_on() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        await begin(connection)
        relay.on("DATA", "451 4.3.0 Disk", times=1)
        assert str(await connection.data([BODY], fence_holds)) == "451 4.3.0 Disk"
        assert connection.usable
        assert not connection.clean


async def test_a_250_to_data_is_an_error() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        await begin(connection)
        relay.on("DATA", "250 2.0.0 Sure")
        with pytest.raises(Lost) as lost:
            await connection.data([BODY], fence_holds)
        assert not lost.value.after_dot
        assert not connection.usable


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "<dot>"])
@pytest.mark.parametrize("asks", ["354 More", "334 ", "300 More"])
async def test_a_354_without_more_to_send_is_an_error(command: str, asks: str) -> None:
    async def whole_of_it(connection: RelayConnection) -> None:
        await connection.pipeline([b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@partner.example>"])
        await connection.data([BODY], fence_holds)

    async with ScriptedRelay() as relay, connected(relay) as connection:
        relay.on(command, asks)
        with pytest.raises(Lost) as lost:
            await whole_of_it(connection)
        assert lost.value.after_dot is (command == "<dot>")
        assert not connection.usable


async def test_an_extra_reply_does_not_change_the_last_one() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        await begin(connection)
        relay.on("<dot>", b"250-2.0.0 Taken\r\n250 2.0.0 as 1\r\n250 2.0.0 And again\r\n")
        assert (await connection.data([BODY], fence_holds)).lines == ("2.0.0 Taken", "2.0.0 as 1")
        assert not connection.usable


# the fence


async def test_a_failed_fence_withholds_the_final_dot() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        await begin(connection)
        with pytest.raises(Recalled):
            await connection.data([BODY * 10_000], fence_fails)
        assert not connection.usable
        await relay.emptied()
        assert relay.messages == []


async def test_the_fence_is_checked_after_all_content() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        await begin(connection)
        asked: list[int] = []
        given_out = 0

        def parts() -> Iterator[bytes]:
            nonlocal given_out
            for _ in range(50):
                given_out += 1
                yield b"x" * 9_998 + b"\r\n"

        async def fence() -> bool:
            asked.append(given_out)
            return True

        assert (await connection.data(parts(), fence)).code == 250
        assert set(asked) == {50}
        assert relay.messages[0].raw == (b"x" * 9_998 + b"\r\n") * 50


async def test_a_buffered_dot_is_recalled() -> None:
    async with ScriptedRelay(receive_buffer=4096) as relay, connected(relay) as connection:
        await begin(connection)
        relay.on(BLOCK, STALL)
        answers = iter([True, True])

        async def fence() -> bool:
            return next(answers, False) and fill(connection)

        with pytest.raises(Recalled):
            # one block that the sockets cannot hold: it goes out together with the final dot, and waits here
            await connection.data([memoryview(b"x" * 998 + b"\r\n")] * 60, fence)
        assert relay.messages == []


def fill(connection: RelayConnection) -> bool:
    """Fill the socket, as when a relay has stopped reading."""
    assert connection._transport is not None
    connection._transport.write((b"x" * 998 + b"\r\n") * 10_000)
    return True


# loss


@pytest.mark.parametrize("how", [DROP, RESET], ids=str)
@pytest.mark.parametrize(
    ("point", "after_dot"), [("MAIL", False), ("RCPT", False), ("DATA", False), (BLOCK, False), (DOT, True)]
)
async def test_a_lost_connection_tells_whether_the_dot_was_sent(how: object, point: str, after_dot: bool) -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        relay.on(point, how)  # type: ignore[arg-type]
        gone: list[RelayConnection] = []
        connection.on_lost = gone.append
        parts = slow_parts() if point == BLOCK else [BODY]
        with pytest.raises(Lost) as lost:
            await transact(connection, parts)
        assert lost.value.after_dot is after_dot
        assert lost.value.reply.code == 451
        assert not connection.usable
        assert gone == [connection]
        with pytest.raises(Lost):
            await connection.command(b"NOOP")


async def transact(connection: RelayConnection, parts: Iterable[bytes]) -> Reply:
    await connection.pipeline([MAIL, RCPT])
    return await connection.data(parts, fence_holds)


def slow_parts() -> Iterator[bytes]:
    """More than the socket buffers hold, so that the loss happens in the middle."""
    for _ in range(2_000):
        yield b"x" * 9_998 + b"\r\n"


async def test_an_early_refusal_ends_the_connection() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        await begin(connection)
        relay.on(BLOCK, ["552 5.3.4 Too big", STALL])
        reply = await connection.data(slow_parts(), fence_holds)
        assert str(reply) == "552 5.3.4 Too big"
        assert not connection.usable


async def test_an_early_250_is_an_error() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        await begin(connection)
        relay.on(BLOCK, ["250 2.0.0 Taken", STALL])
        with pytest.raises(Lost):
            await connection.data(slow_parts(), fence_holds)
        assert not connection.usable


async def test_an_unexpected_reply_ends_the_connection() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        relay.on("NOOP", b"250 Ok\r\n421 4.3.2 Going down\r\n")
        assert (await connection.command(b"NOOP")).code == 250
        assert not connection.usable


async def test_a_silent_relay_times_out() -> None:
    brief = Timeouts(command=0.05, data=0.05, final=0.1)
    async with ScriptedRelay() as relay:
        async with connected(relay, timeouts=brief) as connection:
            relay.on("MAIL", STALL)
            with pytest.raises(Lost) as lost:
                await connection.command(MAIL)
            assert not lost.value.after_dot
            assert "timed out" in str(lost.value.__cause__)
        relay.forget()
        relay.on(DOT, STALL)
        async with connected(relay, timeouts=brief) as connection:
            await begin(connection)
            with pytest.raises(Lost) as lost:
                await connection.data([BODY], fence_holds)
            assert lost.value.after_dot


async def test_a_relay_that_stops_reading_times_out() -> None:
    async with ScriptedRelay() as relay, connected(relay, timeouts=Timeouts(block=0.05)) as connection:
        await begin(connection)
        relay.on(BLOCK, STALL)
        with pytest.raises(Lost) as lost:
            await connection.data(slow_parts(), fence_holds)
        assert not lost.value.after_dot


async def test_a_cancelled_transfer_is_no_message() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        await begin(connection)
        relay.on(BLOCK, STALL)
        task = asyncio.create_task(connection.data(slow_parts(), fence_holds))
        await relay.saw(b"DATA")
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not connection.usable


async def test_quit_closes_the_connection() -> None:
    async with ScriptedRelay() as relay, connected(relay) as connection:
        connection.quit()
        assert not connection.usable
        await relay.emptied()
        assert relay.verbs() == ["EHLO", "QUIT"]
