"""The relay pool with a scripted relay: limits, fairness, reuse, and a relay that is down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from smtpguard.wire.handshake import Route
from smtpguard.wire.pool import Alone, RelayPool, Routing
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts, Tls
from tests.every import every
from tests.script import BLOCK, CONNECT, DROP, STALL
from tests.scripted_relay import ScriptedRelay
from tests.wire.relayed import MAIL, RCPT, fence_holds


@asynccontextmanager
async def pooled(relay: ScriptedRelay, **target: object) -> AsyncIterator[RelayPool]:
    pool = RelayPool(RelayTarget(**{"port": relay.port, "tls": Tls.NONE, **target}))  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        await pool.close()


async def send(pool: RelayPool) -> None:
    connection = await pool.acquire()
    await connection.pipeline([MAIL, RCPT])
    assert (await connection.data([b"A line\r\n"], fence_holds)).code == 250
    pool.release(connection)


async def until_closed(relay: ScriptedRelay, pool: RelayPool) -> None:
    """Wait until relay and pool both know that no connection is open."""
    await relay.emptied()
    async with asyncio.timeout(120):
        while pool.size:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0)


async def test_a_clean_connection_is_reused() -> None:
    async with ScriptedRelay() as relay, pooled(relay) as pool:
        for _ in range(5):
            await send(pool)
        assert relay.sessions == 1
        assert "RSET" not in relay.verbs()
        assert (pool.size, pool.idle) == (1, 1)
        assert "DSN" in await Routing(pool).extensions()


async def test_an_open_transaction_is_reset_before_the_next() -> None:
    async with ScriptedRelay() as relay, pooled(relay) as pool:
        connection = await pool.acquire()
        await connection.pipeline([MAIL, RCPT])
        pool.release(connection)
        assert pool.idle == 0
        await send(pool)
        assert relay.sessions <= 2
        assert relay.verbs().count("RSET") == 1
        assert relay.messages[0].rcpts == [RCPT]


@every(
    "answer",
    ["421 4.3.2 Going", "500 5.5.2 What", DROP],
)
async def test_a_connection_that_cannot_be_reset_is_discarded(answer: object) -> None:
    async with ScriptedRelay() as relay, pooled(relay) as pool:
        relay.on("RSET", answer)  # type: ignore[arg-type]
        connection = await pool.acquire()
        await connection.command(MAIL)
        pool.release(connection)
        await until_closed(relay, pool)
        assert (pool.size, pool.idle) == (0, 0)
        await send(pool)
        assert relay.sessions == 2


async def test_pending_replies_are_not_read_by_the_next() -> None:
    async with ScriptedRelay() as relay, pooled(relay) as pool:
        relay.on("MAIL", [STALL, "250 2.0.0 of the first"], times=1)
        connection = await pool.acquire()
        task = asyncio.create_task(connection.command(MAIL))
        await relay.saw(b"MAIL")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        pool.release(connection)
        assert pool.idle == 0
        relay.resume()
        again = await pool.acquire()
        reply = await again.command(MAIL)
        assert str(reply) == "250 2.0.0 Ok"
        pool.release(again)


@pytest.mark.parametrize("point", ["DATA", BLOCK])
async def test_a_connection_within_data_is_discarded(point: str) -> None:
    async with ScriptedRelay() as relay, pooled(relay) as pool:
        relay.on(point, STALL)
        connection = await pool.acquire()
        await connection.pipeline([MAIL, RCPT])
        task = asyncio.create_task(connection.data([b"x" * 998 + b"\r\n"] * 50_000, fence_holds))
        await relay.saw(b"DATA")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        pool.release(connection)
        assert pool.size == 0
        relay.resume()
        await relay.emptied()
        assert "RSET" not in relay.verbs()
        assert relay.messages == []


async def test_the_limit_is_exact_and_waiters_are_in_order() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=2) as pool:
        first, second = await pool.acquire(), await pool.acquire()
        order: list[int] = []

        async def use(n: int) -> None:
            connection = await pool.acquire()
            order.append(n)
            await asyncio.sleep(0)
            pool.release(connection)

        tasks = [asyncio.create_task(use(n)) for n in range(8)]
        await asyncio.sleep(0)
        assert order == []
        pool.release(first)
        pool.release(second)
        await asyncio.gather(*tasks)
        assert order == list(range(8))
        assert relay.sessions == 2
        assert pool.idle == 2


async def test_waiting_times_out() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=1) as pool:
        connection = await pool.acquire()
        with pytest.raises(RelayUnavailable) as error:
            await pool.acquire(wait_seconds=0.02)
        assert str(error.value.reply).startswith("451 4.3.2")
        pool.release(connection)
        assert await pool.acquire() is connection
        pool.discard(connection)


async def test_a_cancelled_waiter_takes_no_connection() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=1) as pool:
        connection = await pool.acquire()
        leaver, stayer = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.release(connection)  # given to the leaver ...
        leaver.cancel()  # ... which is cancelled at once
        with pytest.raises(asyncio.CancelledError):
            await leaver
        assert await stayer is connection
        pool.release(connection)


async def test_a_discarded_connection_makes_room() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=1) as pool:
        connection = await pool.acquire()
        waiter = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.discard(connection)
        pool.release(await waiter)
        assert relay.sessions == 2
        assert (pool.size, pool.idle) == (1, 1)


async def test_a_connection_ends_after_a_number_of_messages() -> None:
    async with ScriptedRelay() as relay, pooled(relay, messages_per_connection=2) as pool:
        for _ in range(5):
            await send(pool)
        assert relay.sessions == 3
        assert relay.verbs().count("QUIT") == 2
        assert [m.connection for m in relay.messages] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("needed", [True, False], ids=["last", "another is idle"])
async def test_a_connection_is_replaced_before_the_next_message(needed: bool) -> None:
    async with ScriptedRelay() as relay, pooled(relay, messages_per_connection=2) as pool:
        taken = [await pool.acquire() for _ in range(1 if needed else 2)]
        for connection in taken:
            pool.release(connection)
        await send(pool)
        await send(pool)
        async with asyncio.timeout(120):
            while pool.size != pool.idle or not pool.idle:  # noqa: ASYNC110 - the pool tells nobody
                await asyncio.sleep(0)
        assert (pool.idle, relay.sessions) == (1, 2)
        waited = pool.waits
        await send(pool)
        assert pool.waits == waited


async def test_no_connection_is_opened_ahead_of_others_that_wait() -> None:
    """In another process."""
    allowance = Alone(2)
    async with ScriptedRelay() as relay:
        pool = RelayPool(RelayTarget(port=relay.port, tls=Tls.NONE, messages_per_connection=1), allowance)
        allowance.waited = 1
        await send(pool)
        await until_closed(relay, pool)
        await pool.close()
        assert relay.sessions == 1


async def test_idle_connections_are_closed() -> None:
    async with ScriptedRelay() as relay, pooled(relay, idle_seconds=0.02) as pool:
        await send(pool)
        assert pool.idle == 1
        await until_closed(relay, pool)
        assert pool.idle == 0
        assert relay.verbs()[-1] == "QUIT"
        await send(pool)


async def test_a_connection_closed_by_the_relay_is_noticed() -> None:
    async with ScriptedRelay() as relay, pooled(relay) as pool:
        await send(pool)
        relay.drop_all()
        await until_closed(relay, pool)
        await send(pool)
        assert relay.sessions == 2


async def test_a_fresh_connection_is_new() -> None:
    async with ScriptedRelay() as relay, pooled(relay) as pool:
        await send(pool)
        connection = await pool.acquire(fresh=True)
        assert connection.messages == 0
        pool.release(connection)
        assert relay.sessions == 2


async def test_a_down_relay_fails_at_once_for_a_moment() -> None:
    async with ScriptedRelay() as relay, pooled(relay, down_seconds=1000) as pool:
        await relay.stop()
        for _ in range(3):
            with pytest.raises(RelayUnavailable) as error:
                await pool.acquire()
            assert error.value.reply.code == 451
            assert "connecting" in error.value.why
        with pytest.raises(RelayUnavailable):
            await Routing(pool).extensions()
        await relay.start()
        with pytest.raises(RelayUnavailable):  # the failure is remembered
            await pool.acquire()
        assert relay.sessions == 0
        pool._failed_until = asyncio.get_running_loop().time()  # until now
        await send(pool)


@pytest.mark.parametrize("down_seconds", [0, 60])
async def test_a_refused_connection_fails_at_once(down_seconds: float) -> None:
    """A refused connection fails at once. ``wait_seconds`` applies to a connection that is busy or slow to open."""
    async with ScriptedRelay() as relay, pooled(relay, wait_seconds=600, down_seconds=down_seconds) as pool:
        await send(pool)
        await relay.stop()
        for _ in range(3):
            async with asyncio.timeout(120):
                with pytest.raises(RelayUnavailable):
                    await pool.acquire(fresh=True)


async def test_all_waiters_are_told_that_the_relay_is_down() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=2, wait_seconds=60) as pool:
        relay.on(CONNECT, "421 4.3.2 Full")
        answers = await asyncio.gather(*(pool.acquire() for _ in range(10)), return_exceptions=True)
        assert all(isinstance(a, RelayUnavailable) and "421" in a.why for a in answers)
        assert relay.sessions <= 4


async def test_a_relay_with_one_connection_serves_all() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=5) as pool:
        relay.on(CONNECT, "421 4.7.0 One is enough")
        relay.on(CONNECT, "220 Welcome", times=1)
        await send(pool)
        connection = await pool.acquire()
        waiting = [asyncio.create_task(send(pool)) for _ in range(4)]
        await asyncio.sleep(0.02)
        pool.release(connection)
        await asyncio.gather(*waiting)
        assert {m.connection for m in relay.messages} == {1}


async def test_a_slow_greeting_serves_later_waiters() -> None:
    async with ScriptedRelay() as relay, pooled(relay, wait_seconds=0.02, connections=1) as pool:
        relay.on(CONNECT, [STALL, "220 Finally"])
        with pytest.raises(RelayUnavailable) as error:
            await pool.acquire()
        assert str(error.value.reply).startswith("451 4.4.1")
        relay.resume()
        while not pool.idle:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0.001)
        await send(pool)
        assert relay.sessions == 1


async def test_closing_refuses_waiters_and_returned_connections() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=1, timeouts=Timeouts(quit=0.2)) as pool:
        connection = await pool.acquire()
        waiter = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(RelayUnavailable, match="closed"):
            await waiter
        with pytest.raises(RelayUnavailable, match="closed"):
            await pool.acquire()
        await connection.pipeline([MAIL, RCPT])
        assert (await connection.data([b"A line\r\n"], fence_holds)).code == 250
        pool.release(connection)
        await relay.emptied()
        assert relay.verbs()[-1] == "QUIT"
        assert len(relay.messages) == 1


# order of waiting


async def test_a_connection_counts_until_it_is_closed() -> None:
    """The relay never has more connections than the limit, even while QUIT is unanswered."""
    async with ScriptedRelay() as relay, pooled(relay, connections=1, messages_per_connection=1) as pool:
        relay.on("QUIT", [STALL, "221 2.0.0 Bye"], times=1)
        connection = await pool.acquire()
        await connection.pipeline([MAIL, RCPT])
        await connection.data([b"A line\r\n"], fence_holds)
        waiter = asyncio.create_task(send(pool))
        pool.release(connection)
        await relay.saw(b"QUIT")
        assert (relay.sessions, pool.size) == (1, 1)
        relay.resume()
        await waiter
        assert [m.connection for m in relay.messages] == [1, 2]


async def test_one_client_gets_at_most_its_share() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=4) as pool:
        taken = [await pool.acquire("192.0.2.1") for _ in range(2)]
        third = asyncio.create_task(pool.acquire("192.0.2.1"))
        await asyncio.sleep(0)
        others = [await pool.acquire("192.0.2.2"), await pool.acquire("192.0.2.2")]
        assert relay.sessions == 4
        assert not third.done()
        pool.release(others.pop())
        await asyncio.sleep(0)
        assert not third.done(), "there is an idle one, and it is for others"
        assert (pool.idle, pool.waiting) == (1, 1)
        pool.release(taken.pop())
        for connection in (await third, *taken, *others):
            pool.release(connection)


async def test_a_trusted_client_has_no_share() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=4) as pool:
        for connection in [await pool.acquire("") for _ in range(4)]:
            pool.release(connection)
        assert relay.sessions == 4


async def test_the_client_with_the_fewest_connections_is_next() -> None:
    async with ScriptedRelay() as relay, pooled(relay, connections=3, client_share=1.0) as pool:
        taken = [await pool.acquire("192.0.2.1") for _ in range(3)]
        order: list[str] = []

        async def use(client: str) -> None:
            connection = await pool.acquire(client)
            order.append(client[-1])
            await asyncio.sleep(0)
            pool.release(connection)

        tasks = [asyncio.create_task(use(client)) for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3")]
        await asyncio.sleep(0)
        pool.release(taken.pop())
        await asyncio.gather(*tasks)
        assert order == ["2", "3", "1", "1"]
        for connection in taken:
            pool.release(connection)


async def test_logins_wait_in_the_same_queue() -> None:
    """A login waits in the same queue for a connection of its own. An idle connection is closed to make room."""
    async with ScriptedRelay() as relay, pooled(relay, connections=1) as pool:
        connection = await pool.acquire()
        placed = asyncio.create_task(pool.place("192.0.2.1"))
        later = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.release(connection)
        place = await placed
        assert relay.open == 0
        assert not later.done()
        assert place.belongs_to("login anna")
        place.free()
        place.free()
        pool.release(await later)
        assert pool.size == 1


class Shared:
    """An allowance of connections as a process tree assigns it."""

    def __init__(self, limit: int, places: int, sharers: int = 2) -> None:
        self.limit, self.usable, self.sharers = limit, places, sharers
        self.most: int | None = None
        self.waited = 0
        self.changed: Callable[[], None] = lambda: None
        self.told: list[tuple[int, int]] = []

    def closed(self, used: int) -> None:
        self.waited = max(0, self.waited - 1)
        if self.most is not None and self.usable > max(self.most, used):
            self.usable -= 1

    def tell(self, used: int, wanted: int) -> None:
        self.told.append((used, wanted))


async def test_the_pool_uses_only_its_granted_connections() -> None:
    shared = Shared(20, 0)
    async with ScriptedRelay() as relay:
        pool = RelayPool(RelayTarget(port=relay.port, tls=Tls.NONE), shared)
        tasks = [asyncio.create_task(pool.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        assert shared.told[-1] == (0, 3)
        shared.usable = 2
        shared.changed()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=120)
        assert shared.told[-1] == (2, 1)
        assert relay.sessions <= 2
        shared.most = 1  # other processes have fewer
        pool.release(done.pop().result())
        await relay.saw(b"QUIT")
        assert pool.idle == 0
        tasks[2].cancel()
        await asyncio.wait(tasks, timeout=120)
        await pool.close()


async def test_idle_connections_are_given_to_other_processes() -> None:
    shared = Shared(20, 3)
    async with ScriptedRelay() as relay:
        pool = RelayPool(RelayTarget(port=relay.port, tls=Tls.NONE), shared)
        for connection in [await pool.acquire() for _ in range(3)]:
            pool.release(connection)
        assert (pool.idle, pool.pressed) == (3, False)
        shared.waited = 2
        shared.changed()
        assert (pool.idle, pool.pressed) == (1, True)
        await relay.saw(b"QUIT")
        async with asyncio.timeout(120):
            while pool.size > 1:  # noqa: ASYNC110 - the pool tells nobody
                await asyncio.sleep(0.001)
        assert shared.told[-1][0] == 1
        await pool.close()


async def test_a_slow_failure_is_remembered_until_the_relay_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow failure is remembered for as long as it took, so that not every client waits for the same timeout. Meanwhile
    the relay is tried for nobody."""
    tried = list[asyncio.Future[None]]()
    there = Route.open

    async def slow(route: Route) -> RelayConnection:
        tried.append(asyncio.get_running_loop().create_future())
        try:
            await tried[-1]
        except RelayUnavailable as error:
            error.took_seconds = 25
            raise
        return await there(route)

    def fails() -> None:
        tried[-1].set_exception(RelayUnavailable("looking up the name: timed out"))

    async def refused(pool: RelayPool) -> int:
        """How often it was tried by now."""
        with pytest.raises(RelayUnavailable, match="timed out"):
            await pool.acquire()
        await asyncio.sleep(0)
        return len(tried)

    monkeypatch.setattr(Route, "open", slow)
    async with ScriptedRelay() as relay, pooled(relay, down_seconds=0) as pool:
        first = asyncio.create_task(refused(pool))
        while not tried:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0)
        fails()
        assert await first == 1
        assert [await refused(pool) for _ in range(3)] == [2, 2, 2]
        fails()
        while pool.size:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert [await refused(pool) for _ in range(2)] == [3, 3]
        tried[-1].set_result(None)
        while not pool.idle:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await send(pool)
    assert len(tried) == 3
