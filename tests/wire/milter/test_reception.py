"""The answer to an MTA for each decision, and MTAs that connect, wait and leave.

The server runs against an MTA of the tests. For one connection and its limits, see test_connection.
"""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from pathlib import Path

import pytest

from smtpguard.mail import reply
from smtpguard.mail.envelope import Lost, Onward, Recalled, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected, Relayed, Taken
from smtpguard.wire.listener import Limits
from smtpguard.wire.milterpackets import Discard, InsertHeader, Mail, Rcpt, SmtpReply, encode
from tests.wire.milter.speaking import MAIL, Decide, Served, Speaking, relay_all, served
from tests.wire.proxied import Waiting, until
from tests.wire.relayed import fence_fails, fence_holds


def always(disposition: Disposition) -> Decide:
    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        return disposition

    return decide


class TestDispositions:
    async def test_a_relayed_message_is_accepted_with_its_trace(self, world: Served) -> None:
        speaking = await (await world.connect()).begin()
        told = await speaking.send(MAIL)
        assert told.accepted
        # the MTA writes Received itself; a value has its leading space, and LF where it is folded
        assert told.inserted == [InsertHeader(0, b"X-Smtpguard", b" id=1; policy=;\n\tmac=0")]
        assert world.seen[0].message.raw == MAIL

    async def test_the_outcome_names_the_queue_id(self, tmp_path: Path) -> None:
        noted: list[Disposition] = []

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            noted.append(await relay_all(transaction, onward))
            return noted[-1]

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            await speaking.send(MAIL)
            speaking.mta.queue_id = b""
            await speaking.send(MAIL)
        said = [str(reply) for done in noted if isinstance(done, Relayed) for reply in done.replies]
        assert said == [f"250 2.0.0 In the queue of mx.example{named}" for named in (" as 4QUEUE", "")]

    @pytest.mark.parametrize("done", [Held(hold_id="H"), Taken(reply=reply.counted("H", "reject"))])
    async def test_held_and_vote_mail_is_discarded(self, tmp_path: Path, done: Disposition) -> None:
        async with served(tmp_path, always(done)) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.answer == Discard()

    async def test_messages_without_a_verdict_are_reported(self, tmp_path: Path) -> None:
        undecided = always(Deferred(reply=reply.NOT_RECORDED, undecided=True))
        async with served(tmp_path, undecided, name="inside", limits=Limits(message_octets=1000)) as world:
            mta = await (await world.connect()).begin()
            await mta.send(MAIL)
            await mta.send(MAIL + b"x" * 2000 + b"\r\n")
        told = [(mail.why.value, mail.listener, mail.recipients, bool(mail.queue_id)) for mail in world.turned]
        assert told == [("undecided", "inside", 1, True), ("too-large", "inside", 1, True)]

    async def test_recipients_refused_by_the_milter_are_reported(self, tmp_path: Path) -> None:
        """Each message with refused recipients is reported once, whether it passes, has no recipient left, is aborted
        or is refused."""
        undecided = Deferred(reply=reply.NOT_RECORDED, undecided=True)

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            return undecided if len(world.seen) == 2 else await relay_all(transaction, onward)

        bad = b"<@-_->"
        async with served(tmp_path, decide, name="inside", limits=Limits(recipients=2, message_octets=1000)) as world:
            mta = await (await world.connect()).begin()
            assert (await mta.send(MAIL, b"<a@example.net>", bad)).accepted
            await mta.send(MAIL, b"<a@example.net>", bad, bad)
            assert list((await mta.send(MAIL, bad)).refused) == [bad]
            many = [b"<a@example.net>", b"<b@example.net>", b"<c@example.net>", b"<d@example.net>"]
            assert (await mta.send(MAIL, *many)).accepted
            await mta.send(MAIL + b"x" * 2000 + b"\r\n", b"<a@example.net>", bad)
            await mta.send(MAIL, b"<a@example.net>", mail=(b"<a b>",))
            await mta.send(MAIL, b"<a@example.net>")
        told = [(mail.why.value, mail.recipients, mail.refused, mail.queue_id, mail.listener) for mail in world.turned]
        assert told == [
            ("bad-address", 2, 1, "4QUEUE", "inside"),
            ("undecided", 3, 3, "4QUEUE", "inside"),
            ("bad-address", 1, 1, "4QUEUE", "inside"),
            ("too-many-recipients", 4, 2, "4QUEUE", "inside"),
            ("too-large", 2, 2, "4QUEUE", "inside"),
            ("bad-address", 1, 1, "4QUEUE", "inside"),
        ]
        assert str(world.turned[3].reply).startswith("452 ")

    async def test_a_rejection_with_percent_sign_and_lines(self, tmp_path: Path) -> None:
        said = reply.Reply.of(550, "5.7.1", "Not sent: 100 % of the list.", "See https://guard.example/%41")
        async with served(tmp_path, always(Rejected(reply=said))) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.answer == SmtpReply(said)

    async def test_a_deferred_message_gets_its_reply(self, tmp_path: Path) -> None:
        async with served(tmp_path, always(Deferred(reply=reply.BUSY))) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.reply == "451 4.3.2 Busy, try again later"

    @pytest.mark.parametrize(
        ("raised", "said"),
        [
            (Recalled(), "451 4.7.1"),
            (Lost(reply.RELAY_LOST), "451 4.4.2"),
            (RuntimeError("a secret"), "451 4.3.0 Temporary failure here, try again later"),
        ],
    )
    async def test_an_error_gives_451_and_the_connection_continues(
        self, tmp_path: Path, raised: Exception, said: str
    ) -> None:
        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            if len(world.seen) == 1:
                raise raised
            return await relay_all(transaction, onward)

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            assert (await speaking.send(MAIL)).reply.startswith(said)
            assert (await speaking.send(MAIL)).accepted

    async def test_relayed_without_delivery_gives_451(self, tmp_path: Path) -> None:
        async with served(tmp_path, always(Relayed(replies=(reply.OK,)))) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.reply.startswith("451")

    async def test_after_accept_nothing_else_is_sent(self, tmp_path: Path) -> None:
        """No second answer follows an accept: the MTA would take it for the answer to its next message."""

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            await relay_all(transaction, onward)
            return Deferred(reply=reply.INTERNAL_ERROR)

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            assert (await speaking.send(MAIL)).accepted
            assert (await speaking.send(MAIL)).accepted

    async def test_a_failed_fence_gives_451(self, tmp_path: Path) -> None:
        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            with pytest.raises(Recalled):
                await onward.send(b"", fence_fails)
            return Deferred(reply=reply.RECALLED)

        async with served(tmp_path, decide) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.reply.startswith("451 4.7.1")
        assert not told.inserted

    async def test_held_recipients_are_deleted_and_the_rest_accepted(self, tmp_path: Path) -> None:
        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            taken = transaction.envelope.recipients[1:]
            assert transaction.pass_rest is not None
            await transaction.pass_rest(b"X-Smtpguard: x\r\n", fence_holds, taken)
            return Held(hold_id="H", taken=taken)

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            told = await speaking.send(
                MAIL, b"<bo@example.com>", b"<ramadan@lists.example.com> NOTIFY=NEVER", b"C@example.org",
                b"<C@example.org>",
            )  # fmt: skip
        assert told.accepted
        assert told.deleted == [b"<ramadan@lists.example.com>", b"C@example.org", b"<C@example.org>"]

    async def test_no_part_is_passed_on_if_the_mta_may_know_a_recipient_otherwise(self, tmp_path: Path) -> None:
        """Postfix, asked to delete a recipient that was given with a source route, deletes none, and does not say so."""
        apart = list[bool]()

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            apart.append(transaction.pass_rest is not None)
            return Held(hold_id="H")

        paths = b"<@relay:c@example.org>", b'<"c"@example.org>', b"<c@example.org.>", b"<Cia<c@example.org>>"
        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            for path in paths:
                told = await speaking.send(
                    MAIL, b"<bo@example.com>", path, rcpt_macros=[(b"{rcpt_addr}", b"c@example.org")]
                )
                assert isinstance(told.answer, Discard)
        assert apart == [False] * len(paths)


class TestConnections:
    async def test_an_mta_that_disconnects_during_a_decision(self, tmp_path: Path) -> None:
        deciding, go, gone = asyncio.Event(), asyncio.Event(), list[bool]()

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            deciding.set()
            await go.wait()
            gone.append(transaction.gone())
            with pytest.raises(Lost):
                await onward.send(b"", fence_holds)
            return Deferred(reply=reply.RELAY_LOST)

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            sending = asyncio.create_task(speaking.send(MAIL))
            await deciding.wait()
            sending.cancel()
            speaking.close()
            await until(lambda: world.reception.connections == 0)
            go.set()
            await until(lambda: gone)
        assert gone == [True], "recording finishes"

    async def test_idle_mtas_and_partial_packets_time_out(self, world: Served) -> None:
        """An MTA may be silent as long as its client may. After half a packet, the connection is closed sooner."""
        patient, stuck = await (await world.connect()).begin(), await (await world.connect()).begin()
        stuck.say(b"\0\0")
        await until(lambda: any(link._decoder.waiting for link in world.reception._open))
        world.pass_time(300)
        assert await stuck.closed()
        assert (await patient.send(MAIL)).accepted
        await until(lambda: world.reception.connections == 1)
        world.pass_time(3600)
        assert (await patient.send(MAIL)).accepted
        world.pass_time(7300)
        assert await patient.closed()

    async def test_stop_closes_idle_connections_and_finishes_messages(self, tmp_path: Path) -> None:
        decide = Waiting()
        async with served(tmp_path, decide) as world:
            idle, busy = await (await world.connect()).begin(), await (await world.connect()).begin()
            sending = asyncio.create_task(busy.send(MAIL))
            await decide.begun.wait()
            stopping = asyncio.create_task(world.reception.stop(20))
            assert await idle.closed()
            late = await world.connect()
            assert await late.closed()
            decide.go.set()
            assert (await sending).accepted
            assert await busy.closed()
            assert await stopping == 0

    async def test_stop_ends_open_messages_at_last(self, world: Served) -> None:
        speaking = await (await world.connect()).begin()
        speaking.say(encode(Mail(b"<a@example.com>")) + encode(Rcpt(b"<b@example.com>")))
        await speaking.hear()
        assert await world.reception.stop(0.05) == 1
        assert await speaking.closed()

    async def test_the_end_of_a_connection_is_reported_once(self, world: Served) -> None:
        ours, theirs = socket.socketpair()
        over: list[int] = []
        theirs.setblocking(False)
        await world.reception.serve_connection(theirs, lambda: over.append(1))
        ours.close()
        await until(lambda: over)
        assert over == [1]

    async def test_a_thousand_idle_connections_use_little_memory(self, world: Served) -> None:
        connected: list[Speaking] = []
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(4):
            connected += [await (await world.connect()).begin() for _ in range(100)]
        each = (tracemalloc.get_traced_memory()[0] - before) / 400
        tracemalloc.stop()
        assert world.reception.connections == 400
        assert each < 60_000, f"{each:,.0f} octets for both ends"
        assert len(asyncio.all_tasks()) < 20, "no task runs for one that is silent"
        assert (await connected[-1].send(MAIL)).accepted
