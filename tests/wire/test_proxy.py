"""The way to the relay: its replies passed on, replay on another connection, the fence, and who may keep a connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtpguard.mail import reply
from smtpguard.mail.envelope import Fence, Lost, Onward, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Held, Relayed
from smtpguard.wire.listener import Limits
from smtpguard.wire.session import MOST_REPLIES
from tests.script import BLOCK, DOT, DROP, RESET, STALL
from tests.scripted_relay import KEYWORDS, ScriptedRelay
from tests.wire.proxied import Proxied, proxied, relay_all, until
from tests.wire.relayed import fence_fails, fence_holds

HEAD = ("MAIL FROM:<anna@example.com>", "RCPT TO:<bob@example.net>")


async def test_the_relays_replies_are_passed_on(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    relay.on("RCPT TO:<full@", "452 4.2.2 Mailbox full\nsorry")
    relay.on("RCPT TO:<no@", "550 5.1.1 No such user")
    relay.on(DOT, "250 2.6.0 <1@relay> Queued as 77")
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        assert await client.ask(HEAD[0]) == "250 2.1.0 Ok"
        assert relay.verbs() == ["EHLO"], "it is asked with the first recipient"
        assert await client.ask("RCPT TO:<no@example.net>") == "550 5.1.1 No such user"
        assert await client.ask("RCPT TO:<full@example.net>") == "452-4.2.2 Mailbox full\n452 sorry"
        assert (await client.ask("DATA")).startswith("554 5.5.1")
        assert await client.ask(HEAD[1]) == "250 2.0.0 Ok"
        assert (await client.ask("DATA")).startswith("354")
        client.say(b"x\r\n.\r\n")
        assert await client.hear() == "250 2.6.0 <1@relay> Queued as 77"
        assert [str(a) for a in world.seen[0].envelope.addresses] == ["bob@example.net"]


async def test_a_refused_mail_refuses_each_recipient(tmp_path: Path) -> None:
    """If the relay refuses MAIL, every RCPT is refused, even if the relay says 250 to RCPT. MAIL is sent to the relay
    once."""
    relay = ScriptedRelay()
    relay.on("MAIL", "550 5.7.1 Not you", times=1)
    relay.on("RCPT", "250 Why not", times=1)
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        client.say(b"".join(line.encode() + b"\r\n" for line in (*HEAD, "RCPT TO:<c@example.net>", "DATA")))
        said = [(await client.hear())[:9] for _ in range(4)]
        assert said == ["250 2.1.0", "550 5.7.1", "550 5.7.1", "554 5.5.1"]
        assert await client.ask("RCPT TO:<d@example.net>") == "550 5.7.1 Not you"
        assert relay.verbs().count("MAIL") == 1
        await client.ask("RSET")
        assert (await client.send(b"x\r\n")).startswith("250")


async def test_a_message_too_large_for_the_relay_is_refused_permanently(tmp_path: Path) -> None:
    """The relay's 552 becomes 554, since 552 in answer to RCPT means 452 (RFC 5321, section 4.5.3.1.10)."""
    relay = ScriptedRelay()
    relay.on("MAIL", "552 5.3.4 Too large", times=1)
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        assert await client.ask(*HEAD) == "554 5.3.4 Too large"


async def test_mail_and_first_rcpt_are_one_round_trip(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    relay.on("MAIL", [STALL, "250 2.1.0 Ok"])
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await client.ask(HEAD[0])
        client.say(HEAD[1].encode() + b"\r\n")
        await relay.saw(b"MAIL")
        relay.resume()
        assert (await client.hear()).startswith("250")
        assert relay.verbs() == ["EHLO", "MAIL", "RCPT"]


async def test_without_a_recipient_no_connection_is_used(tmp_path: Path) -> None:
    async with proxied(tmp_path, target={"connections": 1}) as world:
        idle = [await world.connect() for _ in range(5)]
        for client in idle:
            await client.ask(HEAD[0])
        assert (await (await world.connect()).send(b"x\r\n")).startswith("250")
        assert relay_sees(world) == [b"MAIL FROM:<anna@example.com>"]


def relay_sees(world: Proxied) -> list[bytes]:
    return [line for line in world.relay.commands if line.startswith(b"MAIL")]


async def test_mail_refused_on_a_second_connection_defers(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await client.ask(*HEAD)
        relay.drop_all()
        relay.on("MAIL", "550 5.7.1 Not you")
        assert (await client.ask("RCPT TO:<c@example.net>")).startswith("451 4.4.2")
        assert (await client.ask("DATA")).startswith("451 4.4.2")


async def test_pipelined_commands_are_passed_on_together(tmp_path: Path) -> None:
    """Fifty RCPTs in one segment take one round trip to the relay, which withholds its replies to prove it."""
    relay = ScriptedRelay()
    relay.on("RCPT TO:<r0@", [STALL, "250 2.1.5 Ok"])
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        rcpts = [f"RCPT TO:<r{i}@example.net>" for i in range(50)]
        client.say(b"".join(line.encode() + b"\r\n" for line in (HEAD[0], *rcpts, "NOOP", "WHAT", "DATA")))
        await relay.saw(b"RCPT")
        relay.resume()
        said = [await client.hear() for _ in range(54)]
        assert [s[:3] for s in said] == ["250"] * 52 + ["500", "354"]
        client.say(b"x\r\n.\r\n")
        await client.hear()
        assert [line.decode() for line in relay.messages[0].rcpts] == rcpts


async def test_a_relay_without_pipelining(tmp_path: Path) -> None:
    keywords = [k for k in KEYWORDS if k != "PIPELINING"]
    async with proxied(tmp_path, relay=ScriptedRelay(keywords=keywords)) as world:
        client = await world.connect()
        assert (await client.ask(*HEAD, "RCPT TO:<c@example.net>", "DATA")).startswith("354")
        client.say(b"x\r\n.\r\n")
        assert (await client.hear()).startswith("250")


@pytest.mark.parametrize("pipelining", [True, False])
async def test_what_a_relay_said_before_it_closed_stands(pipelining: bool, tmp_path: Path) -> None:
    """A relay that closes after some refusals would close each time, and nobody would ever get the message."""
    keywords = [k for k in KEYWORDS if pipelining or k != "PIPELINING"]
    relay = ScriptedRelay(keywords=keywords, most_refusals=2)
    relay.on("RCPT TO:<bad", "550 5.1.1 No such user")
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        asked = [f"{who}{n}@example.net" for n in range(4) for who in ("good", "bad")]
        client.say(b"".join(f"{line}\r\n".encode() for line in (HEAD[0], *(f"RCPT TO:<{a}>" for a in asked))))
        said = [await client.hear() for _ in range(9)]
        assert [s[:3] for s in said[1:]] == ["250", "550"] * 4
        assert (await client.ask("DATA")).startswith("354")
        client.say(b"x\r\n.\r\n")
        assert (await client.hear()).startswith("250")
        assert relay.messages[0].recipients == [a for a in asked if a.startswith("good")]


async def test_a_relay_that_closes_after_each_refusal(tmp_path: Path) -> None:
    relay = ScriptedRelay(keywords=KEYWORDS, most_refusals=1)
    relay.on("RCPT TO:<bad", "550 5.1.1 No such user")
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        asked = [*(f"bad{n}@example.net" for n in range(600)), "good@example.net"]
        client.say(b"".join(f"{line}\r\n".encode() for line in (HEAD[0], *(f"RCPT TO:<{a}>" for a in asked))))
        said = [await client.hear() for _ in range(602)]
        assert [s[:3] for s in said[1:]] == ["550"] * 600 + ["250"]


async def test_a_slow_relay_keeps_no_reply_back_for_long(tmp_path: Path) -> None:
    """The relay is asked for some recipients at a time, so their replies come before it has answered for all."""
    relay = ScriptedRelay(keywords=KEYWORDS)
    relay.on(f"RCPT TO:<to{MOST_REPLIES}@", [STALL, "250 2.1.5 Ok"])
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        asked = [f"RCPT TO:<to{n}@example.net>" for n in range(2 * MOST_REPLIES + 1)]
        client.say(b"".join(f"{line}\r\n".encode() for line in (HEAD[0], *asked, "DATA")))
        assert [(await client.hear())[:3] for _ in range(MOST_REPLIES)] == ["250"] * MOST_REPLIES
        await relay.saw(f"RCPT TO:<to{MOST_REPLIES}@".encode())
        relay.resume()
        assert [(await client.hear())[:3] for _ in range(MOST_REPLIES + 3)] == ["250"] * (MOST_REPLIES + 2) + ["354"]


async def test_one_connection_serves_several_clients(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        for _ in range(5):
            client = await world.connect()
            await client.send(b"x\r\n")
            await client.ask("QUIT")
        assert world.relay.sessions == 1
        assert len(world.relay.messages) == 5


async def test_a_relay_that_is_down(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay, target={"wait_seconds": 0.5, "down_seconds": 0}) as world:
        client = await world.connect()
        await relay.stop()
        assert (await client.ask(*HEAD)).startswith("451 4.4.1")
        assert (await client.ask("DATA")).startswith("451 4.4.1")
        await relay.start()
        assert (await client.send(b"x\r\n")).startswith("250")


async def test_waiting_for_a_connection_times_out(tmp_path: Path) -> None:
    async with proxied(tmp_path, target={"connections": 1, "wait_seconds": 0.1}) as world:
        one, two = await world.connect(), await world.connect()
        await one.ask(*HEAD)
        assert (await two.ask(*HEAD)).startswith("451 4.3.2")
        await two.ask("RSET")
        assert (await one.ask("DATA")).startswith("354")
        one.say(b"x\r\n.\r\n")
        assert (await one.hear()).startswith("250")
        assert (await two.send(b"x\r\n")).startswith("250")


# replay


@pytest.mark.parametrize("ending", ["drop", "421", "421 and drop"])
async def test_a_dead_pooled_connection_is_replaced(ending: str, tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        ends: dict[str, Any] = {"drop": DROP, "421": "421 4.4.2 Bored", "421 and drop": ["421 4.4.2 Bored", DROP]}
        relay.on("MAIL", ends[ending], times=1)
        assert (await client.send(b"x\r\n")).startswith("250")
        assert relay.sessions == 2


async def test_a_connection_lost_between_commands_is_replaced(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await client.ask(*HEAD)
        relay.drop_all()
        assert (await client.ask("RCPT TO:<c@example.net>", "RCPT TO:<d@example.net>")).startswith("250")
        assert (await client.ask("DATA")).startswith("354")
        client.say(b"x\r\n.\r\n")
        assert (await client.hear()).startswith("250")
        message = relay.messages[0]
        assert message.connection == 2
        assert [r[9:12] for r in message.rcpts] == [b"bob", b"c@e", b"d@e"]


async def test_a_connection_lost_before_data_is_replaced(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    relay.on("DATA", DROP, times=1)
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        assert (await client.send(b"x\r\n", "a@example.net", "b@example.net")).startswith("250")
        assert [m.connection for m in relay.messages] == [2]
        assert len(relay.messages[0].rcpts) == 2


async def test_a_connection_lost_within_content_is_replaced(tmp_path: Path) -> None:
    relay = ScriptedRelay(receive_buffer=1 << 16)
    relay.on(BLOCK, RESET, times=1)
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        assert (await client.send(b"\r\n" + (b"x" * 77 + b"\r\n") * 100_000)).startswith("250")
        assert len(relay.messages) == 1
        assert relay.messages[0].connection == 2


@pytest.mark.parametrize("point", ["DATA", DOT])
async def test_a_relay_that_closes_its_connection_does_not_close_the_clients(point: str, tmp_path: Path) -> None:
    relay = ScriptedRelay()
    relay.on(point, ["421 4.3.2 Going down", DROP], times=1)
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        assert await client.send(b"x\r\n") == "451 4.3.2 Going down"
        assert (await client.send(b"x\r\n")).startswith("250")
        assert len(relay.messages) == 1


async def test_a_client_that_leaves_while_the_relay_is_asked(tmp_path: Path) -> None:
    """The late answer is for nobody, and the connection is for the next."""
    relay = ScriptedRelay()
    relay.on("RCPT", [STALL, "421 4.4.2 Bored"], times=1)
    async with proxied(tmp_path, relay=relay) as world:
        leaving = await world.connect()
        leaving.say("".join(f"{line}\r\n" for line in HEAD).encode())
        await relay.saw(b"RCPT")
        leaving.writer.transport.abort()
        await until(lambda: world.reception.connections == 0)
        relay.resume()
        await relay.saw(b"RSET")
        await until(lambda: world.pool.idle == 1)
        assert (await (await world.connect()).send(b"x\r\n")).startswith("250")
        assert relay.sessions == 1


async def test_a_relay_that_asks_for_more_instead_of_answering_defers(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    relay.on("RCPT", "354 Go on")
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        assert (await client.ask(*HEAD)).startswith("451 4.4.2")
        assert relay.sessions == 2
        relay.forget()
        await client.ask("RSET")
        assert (await client.send(b"x\r\n")).startswith("250")


@pytest.mark.parametrize("answer", ["451 4.7.1 Later", "550 5.1.1 No", "251 2.1.5 Elsewhere"])
async def test_another_reply_on_the_new_connection_defers(answer: str, tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await client.ask(*HEAD)
        relay.drop_all()
        relay.on("RCPT TO:<bob@", answer)
        assert (await client.ask("RCPT TO:<c@example.net>")).startswith("451 4.4.2")
        assert (await client.ask("RCPT TO:<d@example.net>")).startswith("451 4.4.2")
        assert (await client.ask("DATA")).startswith("451 4.4.2"), "no 5xx for our own failure"
        relay.forget()
        assert (await client.send(b"x\r\n")).startswith("250")


async def test_another_reply_before_sending_defers(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    lost: list[Lost] = []

    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        relay.drop_all()
        relay.on("MAIL", "451 4.3.0 Later")
        try:
            return Relayed(replies=await onward.send(b"", fence_holds))
        except Lost as error:
            lost.append(error)
            return Deferred(reply=error.reply)

    async with proxied(tmp_path, decide, relay=relay) as world:
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("451 4.4.2")
        assert not lost[0].after_dot
        assert not relay.messages


async def test_a_relay_that_offers_less_defers(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await client.ask("MAIL FROM:<a@example.com> SMTPUTF8", "RCPT TO:<å@example.net>".encode())
        relay.keywords = ("PIPELINING",)
        relay.drop_all()
        assert (await client.ask("RCPT TO:<b@example.net>")).startswith("451")
        assert (await client.ask("RSET", "MAIL FROM:<a@example.com> RET=HDRS", HEAD[1])).startswith("451")
        assert (await client.ask("RSET", *HEAD)).startswith("250")
        assert (await client.ask("RCPT TO:<c@example.net> NOTIFY=NEVER")).startswith("451"), "it is not left out"


async def test_a_connection_lost_after_the_dot_is_not_replaced(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    relay.on(DOT, DROP)
    lost: list[Lost] = []

    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        try:
            return await relay_all(transaction, onward)
        except Lost as error:
            lost.append(error)
            raise

    async with proxied(tmp_path, decide, relay=relay) as world:
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("451 4.4.2")
        assert lost[0].after_dot
        assert relay.verbs().count("DATA") == 1, "it may have been accepted: it is not sent again"


@pytest.mark.parametrize("answer", ["451 4.3.0 Later", "554 5.7.1 Spam"])
async def test_a_refusal_of_data_or_content_is_passed_on(answer: str, tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        for point in ("DATA", DOT):
            relay.on(point, answer, times=1)
            assert await client.send(b"x\r\n") == answer
        assert (await client.send(b"x\r\n")).startswith("250")
        assert relay.sessions == 1


# the fence, and what the guard may do with the relay


def sends(prepend: bytes, fence: Fence) -> Callable[[Transaction, Onward], object]:
    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        return Relayed(replies=await onward.send(prepend, fence))

    return decide


async def test_the_trace_is_prepended(tmp_path: Path) -> None:
    async with proxied(tmp_path, sends(b"Received: by us\r\n", fence_holds)) as world:  # type: ignore[arg-type]
        client = await world.connect()
        await client.send(b"Subject: x\r\n\r\n..\r\n")
        assert world.relay.messages[0].raw == b"Received: by us\r\nSubject: x\r\n\r\n..\r\n"


async def test_a_failed_fence_sends_nothing(tmp_path: Path) -> None:
    async with proxied(tmp_path, sends(b"", fence_fails)) as world:  # type: ignore[arg-type]
        client = await world.connect()
        assert await client.send(b"x\r\n") == str(reply.RECALLED)
        assert not world.relay.messages
        await until(lambda: not world.relay.open)


async def test_a_held_message_is_reset_at_the_relay(tmp_path: Path) -> None:
    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        return Held(hold_id=transaction.id)

    async with proxied(tmp_path, decide) as world:
        client = await world.connect()
        await client.send(b"x\r\n")
        await world.relay.saw(b"RSET")
        await until(lambda: world.pool.idle == 1)
        assert world.relay.verbs()[-1] == "RSET"


@pytest.mark.parametrize("ends", ["sent", "lost", "refused", "held"])
async def test_the_relay_is_asked_for_content_before_the_verdict(ends: str, tmp_path: Path) -> None:
    """Until the verdict, it gets no more than DATA: a held message ends the connection, which may be lost meanwhile."""
    relay = ScriptedRelay()
    if ends == "lost":
        relay.on("DATA", DROP, times=1)
    elif ends == "refused":
        relay.on("DATA", "451 4.3.0 Later", times=1)

    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        onward.begin()
        await relay.saw(b"DATA")
        if ends == "lost" and relay.sessions == 1:
            await relay.emptied()
        if ends != "held":
            return await relay_all(transaction, onward)
        await onward.abandon()
        return Held(hold_id=transaction.id)

    async with proxied(tmp_path, decide, relay=relay) as world:
        client = await world.connect()
        answer = await client.send(b"x\r\n")
        if ends == "held":
            await relay.emptied()
        assert answer.startswith("451 4.3.0 Later" if ends == "refused" else "250")
        assert [m.connection for m in relay.messages] == {"sent": [1], "lost": [2]}.get(ends, [])
        assert relay.verbs().count("DATA") == (2 if ends == "lost" else 1)
        await client.send(b"y\r\n")
        assert relay.sessions == (1 if ends in ("sent", "refused") else 2), "DATA was sent, and no content"


@pytest.mark.parametrize("end", ["RSET", "QUIT", "EHLO x.example", "gone"])
async def test_an_aborted_transaction_is_reset_at_the_relay(end: str, tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.ask(*HEAD)
        if end == "gone":
            client.writer.transport.abort()
        else:
            await client.ask(end)
        await world.relay.saw(b"RSET")
        await until(lambda: world.pool.idle == 1)


# who may keep a connection


async def test_a_slow_client_gives_up_its_connection(tmp_path: Path) -> None:
    async with proxied(tmp_path, target={"connections": 1, "wait_seconds": 5}) as world:
        slow, quick = await world.connect(), await world.connect()
        await slow.ask(*HEAD)
        world.pass_time(2)
        assert world.pool.idle == 0
        world.pass_time(2)
        assert (await quick.send(b"quick\r\n")).startswith("250")
        assert (await slow.ask("RCPT TO:<c@example.net>")).startswith("250")
        assert (await slow.ask("DATA")).startswith("354")
        for _ in range(3):  # line by line counts as slow too
            slow.say(b"slow\r\n")
            world.pass_time(2)
        assert (await quick.send(b"quick\r\n")).startswith("250")
        slow.say(b".\r\n")
        assert (await slow.hear()).startswith("250")
        contents = [m.content for m in world.relay.messages]
        assert contents == [b"quick\r\n", b"quick\r\n", b"slow\r\n" * 3]
        assert len(world.relay.messages[2].rcpts) == 2


async def test_a_slow_clients_message_can_be_held_without_a_relay(tmp_path: Path) -> None:
    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        return Held(hold_id=transaction.id)

    async with proxied(tmp_path, decide, limits=Limits(dawdle_seconds=1)) as world:
        client = await world.connect()
        await client.begin()
        world.pass_time(2)
        await world.relay.stop()
        client.say(b"x\r\n.\r\n")
        assert (await client.hear()).startswith("250 2.0.0 Held")
