"""Connections to the relay with real processes: one limit for all, a slow greeting, a greedy client, a killed worker;
and a log line and a count for each message that is turned away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from tests.faults.machine import Machine, synced
from tests.peers.chain import Recorder, until
from tests.peers.postfix import free_port
from tests.script import CONNECT, DOT, STALL

pytestmark = pytest.mark.xdist_group("relay connections")

LIMIT = 20
ROUTED = 2
RATED = 7
MTA = "127.0.0.1"  # trusted
GREEDY = "127.0.0.9"
ESTABLISHED = ("01", "02")  # or in the handshake (proc(5), the kernel's tcp_states.h)


class Guard:
    def __init__(self, guard: Machine, recorder: Recorder, other: Recorder, metrics: int, rated: int) -> None:
        self.rated = rated
        """The port of a listener that takes RATED recipients of a client."""
        self.guard, self.recorder, self.relay, self._metrics = guard, recorder, recorder.relay, metrics
        self.other = other.relay
        """The relay of a route."""

    def metric(self, name: str, **labels: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=120) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in parsed(text)
            for sample in family.samples
            if sample.name == f"smtpguard_{name}" and labels.items() <= sample.labels.items()
        )

    def connections(self, worker: int) -> int:
        """The number of the worker's connections to the relay."""
        open_files = {str(file.readlink()) for file in Path(f"/proc/{worker}/fd").iterdir()}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return len(
            {row[9] for row in rows if _port(row[2]) == self.recorder.port and f"socket:[{row[9]}]" in open_files}
        )

    def quiet(self) -> bool:
        return not self.metric("relay_connections", state="in-use") and not self.metric("relay_waiting")

    def lines(self) -> list[dict[str, Any]]:
        """The log lines of mail that was turned away."""
        told = [json.loads(line) for line in self.guard.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in told if line["event"] == "turned-away"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    metrics = free_port()
    with Recorder() as recorder, Recorder() as other:
        relay = f"{{host: 127.0.0.1, port: {recorder.port}, tls: none, connections: {LIMIT}}}"
        routed = f"{{host: 127.0.0.1, port: {other.port}, tls: none, connections: {ROUTED}}}"
        route = f"[{{name: other, domains: [other.example], relay: {routed}}}]"
        guard = Machine(
            tmp_path_factory.mktemp("connections"),
            recorder.port,
            workers=2,
            settings={"relay": relay, "routes": route, "metrics": f"{{port: {metrics}}}"},
        )
        synced(guard)
        rated = free_port()
        listener = f"{{address: 127.0.0.1, port: {rated}, rates: {{client: {{recipients: {RATED} in 1h}}}}}}"
        guard.config.write_text(guard.config.read_text().replace("smtp: [", f"smtp: [{listener}, ", 1))
        with guard:
            found = Guard(guard, recorder, other, metrics, rated)
            until(lambda: _up(found), "both workers and the metrics")
            yield found
            guard.verified()


def _port(address: str) -> int:
    """The port of an address in /proc/net/tcp."""
    return int(address.rpartition(":")[2], 16)


def _up(found: Guard) -> bool:
    try:
        return found.metric("part_processes", part="proxy") == 2
    except OSError:
        return False


@pytest.fixture
def whole(running: Guard) -> Iterator[Guard]:
    """The guard after the previous test's clients have ended, whose connections would be dropped or counted."""
    until(running.quiet, "nothing to be open or asked for at the relay")
    yield running
    running.recorder.go_on()


@contextmanager
def counted(port: int) -> Iterator[Callable[[], int]]:
    """The most connections to this port at one time, by the kernel: a relay that is busy or stalled notices late that a
    connection has ended. The table changes while it is read, so only what two looks in a row show was there at one time."""
    seen, over = [0], threading.Event()

    def look() -> None:
        before = set[str]()
        while not over.wait(0.01):
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            now = {row[1] for row in rows if _port(row[2]) == port and row[3] in ESTABLISHED}
            seen.append(len(now & before))
            before = now

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: max(seen)
    finally:
        over.set()
        looking.join()


class Client:
    """``name`` is in the sender's address, and identifies the message at the relay."""

    def __init__(self, port: int, name: str, source: str = MTA) -> None:
        self._port, self.name, self._source = port, name, source

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._source, 0))
        assert (await self.hear()).startswith("220")
        assert (await self.ask("EHLO client.example")).startswith("250")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def hear(self) -> str:
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), 120)).decode()
            if line[3:4] != "-":
                return line.strip()

    async def ask(self, *lines: str) -> str:
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())
        said = ""
        for _ in lines:
            said = await self.hear()
        return said

    async def begin(self) -> str:
        return await self.ask(f"MAIL FROM:<{self.name}@example.com>", "RCPT TO:<peter@partner.example>")

    async def finish(self) -> str:
        said = await self.ask("DATA")
        if not said.startswith("354"):
            return said
        self.writer.write(f"Message-ID: <{self.name}@example.com>\r\nSubject: x\r\n\r\nx\r\n.\r\n".encode())
        return await self.hear()


async def send(port: int, name: str, source: str = MTA) -> str:
    async with Client(port, name, source) as client:
        said = await client.begin()
        return await client.finish() if said.startswith("250") else said


def test_a_rate_limit_is_exact_over_all_workers(whole: Guard) -> None:
    """What is beyond it is put off, and what was accepted arrives."""

    async def many(source: str) -> list[str]:
        return await asyncio.gather(*(send(whole.rated, f"rated-{source}-{n}", source) for n in range(40)))

    for source in ("127.0.0.7", "127.0.0.8"):
        said = asyncio.run(many(source))
        assert sum(one.startswith("250") for one in said) == RATED
        assert {one[:9] for one in said if not one.startswith("250")} == {"451 4.7.1"}
        assert sum(f"rated-{source}-".encode() in m.mail for m in whole.relay.messages) == RATED
    assert {one[:3] for one in asyncio.run(many(MTA))} == {"250"}, "an MTA in trust has no limit"
    until(lambda: whole.metric("turned_away_total", why="rate-limit") == 2 * (40 - RATED), "all to be counted")
    assert not [line for line in whole.lines() if line["why"] == "rate-limit"]
    until(
        lambda: '"event":"rate-limited"' in whole.guard.log.read_text().replace(" ", ""), "the line that sums them up"
    )


def test_each_relay_has_its_own_limit(whole: Guard) -> None:
    """Over all workers; and one that is silent keeps no mail of the other."""
    whole.relay.on("EHLO", STALL)

    async def one(name: str) -> str:
        async with Client(whole.guard.port, name) as client:
            said = await client.ask(f"MAIL FROM:<{name}@example.com>", "RCPT TO:<peter@other.example>")
            return await client.finish() if said.startswith("250") else said

    async def many() -> list[str]:
        return await asyncio.gather(*(one(f"routed-{n}") for n in range(40)))

    with counted(whole.other.port) as most:
        assert [said[:3] for said in asyncio.run(many())] == ["250"] * 40
    assert len({m.mail for m in whole.other.messages}) == 40
    assert most() <= ROUTED
    whole.recorder.go_on()
    until(lambda: whole.metric("relay_up", route="other") == 1, "the route to be found up")
    assert whole.metric("relay_connections_limit", route="other") == ROUTED


def test_messages_beyond_the_limit_all_pass(whole: Guard) -> None:
    """120 messages at once over 20 connections of two processes all pass, and the relay never has 21."""
    before = whole.metric("turned_away_total", why="relay-busy")
    whole.relay.on(DOT, [STALL, "250 2.0.0 Ok"])

    async def all_at_once() -> list[str]:
        sending = [asyncio.create_task(send(whole.guard.port, f"many{n}")) for n in range(120)]
        while whole.relay.verbs().count("DATA") < LIMIT:  # noqa: ASYNC110 - the relay is another thread's
            await asyncio.sleep(0.02)
        assert whole.metric("relay_connections", state="in-use") <= LIMIT
        await asyncio.to_thread(until, lambda: whole.metric("relay_waiting") >= 90, "the others to wait")
        whole.recorder.go_on()
        return await asyncio.gather(*sending)

    with counted(whole.recorder.port) as most:
        said = asyncio.run(all_at_once())
    assert {answer[:3] for answer in said} == {"250"}
    assert most() <= LIMIT
    assert whole.metric("turned_away_total", why="relay-busy") == before
    until(lambda: whole.metric("relay_waits_total") >= 100, "the waits to be counted")
    assert whole.metric("relay_wait_seconds_total") > 0


def test_connections_of_a_killed_worker_are_freed(whole: Guard) -> None:
    """A worker is killed with connections in use: the others get the whole limit, and no more."""
    whole.relay.on(DOT, [STALL, "250 2.0.0 Ok"])

    async def killed() -> list[str]:
        seen = whole.relay.verbs().count("DATA")
        doomed = [asyncio.create_task(send(whole.guard.port, f"doomed{n}")) for n in range(60)]
        while whole.relay.verbs().count("DATA") < seen + LIMIT:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        # either may have accepted all clients, so the one with connections is killed
        worker = max(whole.guard.parts("proxy"), key=whole.connections)
        os.kill(worker, signal.SIGKILL)
        await asyncio.to_thread(until, lambda: worker not in whole.guard.parts("proxy"), "its end")
        after = [asyncio.create_task(send(whole.guard.port, f"after{n}")) for n in range(60)]
        await asyncio.to_thread(until, lambda: whole.relay.verbs().count("DATA") > seen + LIMIT, "its places")
        whole.recorder.go_on()
        await asyncio.gather(*doomed, return_exceptions=True)
        return await asyncio.gather(*after)

    with counted(whole.recorder.port) as most:
        said = asyncio.run(killed())
    assert {answer[:3] for answer in said} == {"250"}
    assert most() <= LIMIT
    until(lambda: len(whole.guard.parts("proxy")) == 2, "the worker to be back")


def test_a_greedy_client_leaves_room_for_others(whole: Guard) -> None:
    """One client keeps 99 transactions open, and the mail of all others passes."""

    async def beside() -> list[str]:
        greedy = [Client(whole.guard.port, f"greedy{n}", GREEDY) for n in range(99)]
        for client in greedy:
            await client.__aenter__()
        opening = [asyncio.create_task(client.begin()) for client in greedy]
        said = await asyncio.gather(
            *(send(whole.guard.port, f"other{n}", f"127.0.0.{20 + n}") for n in range(40)),
            *(send(whole.guard.port, f"mta{n}") for n in range(20)),
        )
        for task in opening:
            task.cancel()
        for client in greedy:
            client.writer.transport.abort()
        return said

    assert {answer[:3] for answer in asyncio.run(beside())} == {"250"}


def test_a_slow_greeting_delays_only_messages(whole: Guard) -> None:
    """EHLO is answered meanwhile from what is known of the relay, and the message waits for the relay."""
    whole.recorder.call(drop(whole))
    whole.relay.on(CONNECT, [STALL, "220 relay.example, at last"])

    async def patient() -> str:
        sessions = whole.relay.sessions
        async with Client(whole.guard.port, "patient") as client:
            begun = asyncio.create_task(client.begin())
            while whole.relay.sessions == sessions:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            assert not begun.done()
            whole.recorder.go_on()
            assert (await begun).startswith("250")
            return await client.finish()

    assert asyncio.run(patient()).startswith("250")


async def drop(whole: Guard) -> None:
    whole.relay.drop_all()


def test_each_refused_message_is_logged_and_counted(whole: Guard) -> None:
    before = whole.metric("turned_away_total", why="recipient-refused")
    whole.relay.on("RCPT TO:<peter@", "550 5.1.1 No such user", times=1)

    async def refused() -> str:
        async with Client(whole.guard.port, "refused") as client:
            await client.ask("XFORWARD IDENT=4F1Q NAME=desk.example ADDR=192.0.2.7")
            await client.begin()
            await client.ask("RCPT TO:<anna@partner.example>")
            return await client.finish()

    assert asyncio.run(refused()).startswith("250")
    until(lambda: whole.metric("turned_away_total", why="recipient-refused") == before + 1, "the count")
    [line] = [line for line in whole.lines() if line["why"] == "recipient-refused"]
    assert {name: line[name] for name in line if name not in ("timestamp", "level", "event", "listener", "part", "pid")} == {
        "why": "recipient-refused", "client": "192.0.2.7", "queue_id": "4F1Q", "reply": "550 5.1.1 No such user",
        "reverse_path": "refused@example.com", "recipients": 2, "refused": 1,
    }  # fmt: skip
    assert line["listener"]


def test_each_message_refused_for_a_down_relay_is_counted(whole: Guard, tmp_path: Path) -> None:
    before = whole.metric("turned_away_total", why="relay-down")
    whole.recorder.call(whole.relay.stop())
    try:
        said = asyncio.run(send(whole.guard.port, "down"))
        assert said.startswith("451 4.4.1")
        until(lambda: whole.metric("turned_away_total", why="relay-down") == before + 1, "the count")
    finally:
        whole.recorder.call(whole.relay.start())
