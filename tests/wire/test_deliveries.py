"""smtpguard's own messages through the pool to a scripted relay: parameters, refusals, content, loss."""

from __future__ import annotations

import mmap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Answers, Body, Envelope, Lost, Recalled, Recipient
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Unsendable
from smtpguard.wire.deliveries import Deliveries, stuff
from smtpguard.wire.pool import RelayPool
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget, Tls
from smtpguard.wire.turnedaway import Why
from tests.every import every
from tests.script import DOT, DROP
from tests.scripted_relay import KEYWORDS, ScriptedRelay
from tests.wire.relayed import fence_fails, fence_holds

PLAIN = Message.of(b"Subject: Hello\r\n\r\n.a dot\r\n..two\r\n")
EIGHT = Message.of("Subject: Hello\r\n\r\nHej då\r\n".encode())
UTF8_HEADER = Message.of("Subject: Hej då\r\n\r\nHello\r\n".encode())
ANNA = Address("anna", "example.com")


def envelope(*recipients: str, **more: object) -> Envelope:
    to = tuple(Recipient(address=Address.parse(r)) for r in recipients or ("bo@example.net",))
    return Envelope(**{"reverse_path": ANNA, "recipients": to, **more})  # type: ignore[arg-type]


@asynccontextmanager
async def through(relay: ScriptedRelay) -> AsyncIterator[Deliveries]:
    pool = RelayPool(RelayTarget(port=relay.port, tls=Tls.NONE))
    try:
        yield Deliveries(pool)
    finally:
        await pool.close()


def codes(answers: Answers) -> list[str]:
    return [f"{r.code} {r.enhanced}" for r in answers.replies]


def our_codes(answers: Answers) -> list[str]:
    """Enhanced codes of the replies that smtpguard made itself."""
    assert all(isinstance(r, Unsendable) for r in answers.replies)
    return [str(r.enhanced) for r in answers.replies]


async def test_content_arrives_unchanged_after_the_trace() -> None:
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        replies = await deliveries.deliver(envelope(), PLAIN, b"Received: here\r\n", fence_holds)
        assert codes(replies) == ["250 2.0.0"]
        assert relay.messages[0].content == b"Received: here\r\n" + bytes(PLAIN.raw)
        assert relay.messages[0].mail == b"MAIL FROM:<anna@example.com> SIZE=%d" % (16 + PLAIN.size_bytes)


async def test_a_mapped_message_arrives_unchanged(tmp_path: Path) -> None:
    raw = b"Subject: big\r\n\r\n" + b".line\r\n" * 200_000
    path = tmp_path / "spool"
    path.write_bytes(raw)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        async with ScriptedRelay() as relay, through(relay) as deliveries:
            await deliveries.deliver(envelope(), Message.of(content), b"", fence_holds)
            assert relay.messages[0].content == raw


async def test_parameters_are_sent_if_offered() -> None:
    to = Recipient(address=Address("bo", "example.net"), notify="FAILURE,Delay", orcpt="rfc822;Bo+2B@example.net")
    sent = envelope(recipients=(to,), ret="HDRS", envid="QQ+2B1", body=Body.EIGHTBITMIME)
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        assert codes(await deliveries.deliver(sent, EIGHT, b"", fence_holds)) == ["250 2.0.0"]
        mail, (rcpt,) = relay.messages[0].mail, relay.messages[0].rcpts
        assert mail == b"MAIL FROM:<anna@example.com> SIZE=27 BODY=8BITMIME RET=HDRS ENVID=QQ+2B1"
        assert rcpt == b"RCPT TO:<bo@example.net> NOTIFY=FAILURE,Delay ORCPT=rfc822;Bo+2B@example.net"
    async with ScriptedRelay(keywords=["8BITMIME"]) as relay, through(relay) as deliveries:
        await deliveries.deliver(sent, EIGHT, b"", fence_holds)
        assert relay.messages[0].mail == b"MAIL FROM:<anna@example.com> BODY=8BITMIME"
        assert relay.messages[0].rcpts == [b"RCPT TO:<bo@example.net>"]


async def test_success_reports_are_left_to_a_relay_with_dsn() -> None:
    """A relay with DSN reports success itself. For another, smtpguard must (RFC 3461, section 5.2)."""
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        assert (await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)).reports
    async with ScriptedRelay(keywords=["PIPELINING"]) as relay, through(relay) as deliveries:
        assert not (await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)).reports


async def test_a_null_reverse_path_is_sent() -> None:
    async with ScriptedRelay(keywords=[]) as relay, through(relay) as deliveries:
        await deliveries.deliver(envelope(reverse_path=None), PLAIN, b"", fence_holds)
        assert relay.messages[0].mail == b"MAIL FROM:<>"


async def test_eight_bit_content_for_a_seven_bit_relay_is_refused() -> None:
    async with ScriptedRelay(keywords=["PIPELINING"]) as relay, through(relay) as deliveries:
        declared = envelope("bo@example.net", "di@example.net", body=Body.EIGHTBITMIME)
        assert our_codes(await deliveries.deliver(declared, EIGHT, b"", fence_holds)) == ["5.6.3"] * 2
        assert relay.messages == []
        # declared 8-bit but 7-bit, and 8-bit that the client did not declare: both are sent
        assert codes(await deliveries.deliver(declared, PLAIN, b"", fence_holds)) == ["250 2.0.0"] * 2
        assert codes(await deliveries.deliver(envelope(), EIGHT, b"", fence_holds)) == ["250 2.0.0"]
        assert relay.messages[1].content == EIGHT.raw


async def test_smtputf8_is_sent_if_needed() -> None:
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        await deliveries.deliver(envelope("å@example.net"), PLAIN, b"", fence_holds)
        await deliveries.deliver(envelope(smtputf8=True), PLAIN, b"", fence_holds)
        assert all(m.mail.endswith(b" SMTPUTF8") for m in relay.messages)
        assert relay.messages[0].rcpts == ["RCPT TO:<å@example.net>".encode()]
    without = [k for k in KEYWORDS if k != "SMTPUTF8"]
    async with ScriptedRelay(keywords=without) as relay, through(relay) as deliveries:
        mixed = envelope("bo@example.net", "å@example.net", "di@räksmörgås.example", smtputf8=True)
        assert codes(await deliveries.deliver(mixed, PLAIN, b"", fence_holds)) == [
            "250 2.0.0",
            "553 5.6.7",
            "250 2.0.0",
        ]
        said = await deliveries.deliver(mixed, PLAIN, b"", fence_holds)
        assert [isinstance(r, Unsendable) for r in said.replies] == [False, True, False]
        assert relay.messages[0].rcpts[1] == b"RCPT TO:<di@xn--rksmrgs-5wao1o.example>"
        assert "SMTPUTF8" not in relay.messages[0].mail.decode()
        assert our_codes(await deliveries.deliver(mixed, UTF8_HEADER, b"", fence_holds)) == ["5.6.9"] * 3
        utf8_sender = envelope(reverse_path=Address("å", "example.com"))
        assert our_codes(await deliveries.deliver(utf8_sender, PLAIN, b"", fence_holds)) == ["5.6.7"]
        assert our_codes(await deliveries.deliver(envelope("å@example.net"), PLAIN, b"", fence_holds)) == ["5.6.7"]
        assert len(relay.messages) == 2


async def test_each_recipient_has_its_own_reply() -> None:
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        relay.on("RCPT TO:<bad@", "550 5.1.1 No")
        relay.on("RCPT TO:<later@", "452 4.2.2 Full")
        relay.on(DOT, "250 2.6.0 Queued")
        to = ("a@example.net", "bad@example.net", "later@example.net", "b@example.net")
        replies = await deliveries.deliver(envelope(*to), PLAIN, b"", fence_holds)
        assert codes(replies) == ["250 2.6.0", "550 5.1.1", "452 4.2.2", "250 2.6.0"]
        assert len(relay.messages[0].rcpts) == 2
        relay.on(DOT, "554 5.7.1 Spam")
        replies = await deliveries.deliver(envelope(*to), PLAIN, b"", fence_holds)
        assert codes(replies) == ["554 5.7.1", "550 5.1.1", "452 4.2.2", "554 5.7.1"]
        relay.on("MAIL", "451 4.3.0 Later")
        assert codes(await deliveries.deliver(envelope(*to), PLAIN, b"", fence_holds)) == ["451 4.3.0"] * 4


async def test_without_accepted_recipients_there_is_no_data() -> None:
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        relay.on("RCPT", "550 5.1.1 No", times=1)
        assert codes(await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)) == ["550 5.1.1"]
        assert "DATA" not in relay.verbs()
        assert codes(await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)) == ["250 2.0.0"]


@every("bad", [b"a\nb\r\n", b"a\r\n.\n", b"a\rb\r\n", b"x\r\n\r.\r\n", b"x" * 65_535 + b"\r" + b"y\r\n"])
async def test_content_that_a_lenient_relay_might_split_is_refused(bad: bytes) -> None:
    async with ScriptedRelay(lenient=[b"\n.\n", b"\r.\r"]) as relay, through(relay) as deliveries:
        answers = await deliveries.deliver(envelope(), Message.of(b"Subject: x\r\n\r\n" + bad), b"", fence_holds)
        assert our_codes(answers) == ["5.6.0"]
        assert relay.messages == []


@pytest.mark.parametrize("bad", [b"x\r\n\0.\r\ny\r\n", b"x\r\n.\0\r\n"])
async def test_nul_that_might_split_content_is_refused(bad: bytes) -> None:
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        answers = await deliveries.deliver(envelope(), Message.of(b"Subject: x\r\n\r\n" + bad), b"", fence_holds)
        assert our_codes(answers) == ["5.6.0"]
        assert relay.messages == []


@pytest.mark.parametrize("lenient", [(), (b"\n.\n", b"\n.\r\n"), (b"\r.\r", b"\r.\r\n")], ids=["strict", "LF", "CR"])
async def test_dots_and_commands_stay_one_message(lenient: tuple[bytes, ...]) -> None:
    raw = b"Subject: x\r\n\r\n.\r\nMAIL FROM:<evil@example.com>\r\n..\r\n.\r\nQUIT\r\n.\r\n\r\n.\r\n"
    async with ScriptedRelay(lenient=lenient) as relay, through(relay) as deliveries:
        assert codes(await deliveries.deliver(envelope(), Message.of(raw), b"", fence_holds)) == ["250 2.0.0"]
        assert [m.content for m in relay.messages] == [raw]
        assert relay.verbs() == ["EHLO", "MAIL", "RCPT", "DATA"]


async def test_a_connection_lost_while_idle_is_replaced() -> None:
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)
        relay.on("MAIL", DROP, times=1)
        assert codes(await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)) == ["250 2.0.0"]
        relay.on("RCPT", DROP)
        with pytest.raises(Lost) as lost:
            await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)
        assert not lost.value.after_dot


@pytest.mark.parametrize("pipelining", [True, False])
async def test_refusals_before_the_relay_closed_stand(pipelining: bool) -> None:
    keywords = [k for k in KEYWORDS if pipelining or k != "PIPELINING"]
    async with ScriptedRelay(keywords=keywords, most_refusals=1) as relay, through(relay) as deliveries:
        relay.on("RCPT TO:<bad", "550 5.1.1 No such user")
        to = envelope("good@example.net", "bad1@example.net", "bad2@example.net", "bad3@example.net")
        with pytest.raises(Lost) as lost:
            await deliveries.deliver(to, PLAIN, b"", fence_holds)
        assert [said.code for said in lost.value.heard] == [451, 550, 451, 451]
        assert relay.sessions == 1


async def test_a_connection_lost_after_the_dot_is_in_doubt() -> None:
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        relay.on(DOT, DROP)
        with pytest.raises(Lost) as lost:
            await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)
        assert lost.value.after_dot
        assert len(relay.messages) == 1


async def test_recalled_or_unreachable_is_not_in_doubt() -> None:
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        with pytest.raises(Recalled):
            await deliveries.deliver(envelope(), PLAIN, b"", fence_fails)
        await relay.stop()
        assert relay.messages == []
        with pytest.raises(Lost) as lost:
            await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)
        assert not lost.value.after_dot
        assert lost.value.reply.code == 451


async def test_an_invalid_parameter_is_never_sent() -> None:
    async with ScriptedRelay() as relay, through(relay) as deliveries:
        with pytest.raises(ValueError):
            await deliveries.deliver(envelope(envid="x SIZE=1"), PLAIN, b"", fence_holds)
        assert "MAIL" not in relay.verbs()


@given(st.lists(st.sampled_from([b"\r\n", b".", b"..", b"a", b"\r\n.", b"\r\n.\r\n", b"x" * 65_534]), max_size=12))
@settings(max_examples=200, deadline=None)
def test_unstuffing_reverses_stuffing(parts: list[bytes]) -> None:
    raw = b"".join(parts)
    stuffed = b"".join(stuff(b"", raw))
    assert b"\r\n.\r\n" not in b"\r\n" + stuffed
    assert stuffed == b"" or stuffed.endswith(b"\r\n")
    unstuffed = (b"\r\n" + stuffed).replace(b"\r\n.", b"\r\n")[2:]
    assert unstuffed == (raw if raw.endswith(b"\r\n") or not raw else raw + b"\r\n")


async def test_a_relay_that_does_not_greet_is_waited_for_rarely() -> None:
    """Else a backlog for it would keep messages for other relays waiting, notices to approvers among them."""
    now, waits = [0.0], list[float | None]()

    class SilentPool(RelayPool):
        async def acquire(
            self, client: str = "", *, fresh: bool = False, wait_seconds: float | None = None
        ) -> RelayConnection:
            waits.append(wait_seconds)
            if now[0] < 900:
                raise RelayUnavailable("silent", word=Why.RELAY_SLOW)
            return await super().acquire(client, fresh=fresh, wait_seconds=wait_seconds)

    async with ScriptedRelay() as relay:
        pool = SilentPool(RelayTarget(port=relay.port, tls=Tls.NONE))
        deliveries = Deliveries(pool, lambda: now[0])
        for now[0] in (0.0, 1.0, 299.0, 300.0, 301.0):
            with pytest.raises(RelayUnavailable):
                await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)
        assert waits == [60, 1, 1, 60, 1]
        now[0] = 1000.0
        await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)
        now[0] = 500.0
        with pytest.raises(RelayUnavailable):
            await deliveries.deliver(envelope(), PLAIN, b"", fence_holds)
        assert waits[5:] == [60, 60], "it greets again"
        await pool.close()
