"""Messages a second and added latency: smtp-source -> X -> smtp-sink, where X is nothing, Postfix or smtpguard.

The alternatives take turns in one run, so that a machine whose speed drifts drifts for all of them; what is printed are
medians and ratios. The Postfix proxy-filter hop is the honest peer (it queues nothing and mirrors its relay, as smtpguard
does); the queue hop is timed until its queue is empty, on the same disk as smtpguard's journal. Figures with durability
are as good as the disk's word: the cost of one fdatasync is printed with them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

from tests.peers.postfix import Postfix, free_port, missing
from tests.store.conftest import a_server

EMBEDDED = "sqlite:///var/smtpguard.db"
SAMPLE = Path(__file__).parent.parent / "config"


@dataclass(frozen=True)
class Load:
    """What is sent: ``size`` bytes a message to ``recipients`` each, over kept or new connections."""

    size: int
    recipients: int
    kept: bool
    messages: int

    def __str__(self) -> str:
        return f"{self.size // 1024:>3} KB, {self.recipients:>2} rcpt, {'kept' if self.kept else 'new'}"

    @property
    def plain(self) -> bool:
        """10 KB to one over kept connections, but for one thing at most."""
        return (self.size != 10240) + (self.recipients != 1) + (not self.kept) <= 1


def every_load(n: int) -> list[Load]:
    """``n``: messages of 10 KB to one; fewer where one takes longer."""
    return [
        Load(size, recipients, kept, n // (2 if size > 10240 else 1) // (8 if recipients > 1 else 1))
        for size in (1024, 10240, 102400)
        for recipients in (1, 50)
        for kept in (True, False)
    ]


@dataclass(frozen=True)
class Hop:
    name: str
    port: int
    drained: Callable[[], bool] = lambda: True


def wait_for(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    import socket

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise SystemExit(f"bench: exited with {process.returncode}: {process.args!r}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
                s.recv(512)
                s.sendall(b"QUIT\r\n")
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench: nobody answers on port {port}")


@contextmanager
def running(*argv: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out)
    try:
        wait_for(port, process)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def guard_settings(root: Path, listen: int, relay: int, workers: int, store: str = EMBEDDED) -> Path:
    """The sample policy with its sample lists, on ports of our own."""
    folder = root / f"guard{listen}-{workers}"
    shutil.copytree(SAMPLE, folder)
    settings = folder / "smtpguard.yaml"
    settings.write_text(
        f"""\
listen: {{smtp: [{{address: 127.0.0.1, port: {listen}}}]}}
relay: {{host: 127.0.0.1, port: {relay}, tls: none, connections: 100}}
store: {{url: "{store}"}}
policy: policy.yaml
trust: [127.0.0.1]
workers: {workers}
logging: {{format: json}}
"""
    )
    return settings


def message(size: int) -> bytes:
    """An ordinary mail of ``size`` bytes, dot-stuffed by having no line that begins with a dot."""
    head = (
        b"From: Anna Andersson <anna@example.com>\r\nTo: bo@example.org\r\nSubject: The offer we talked about\r\n"
        b"Date: Mon, 2 Mar 2026 10:11:12 +0100\r\nMessage-ID: <bench-0001@example.com>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    line = b"Please find below what we agreed on yesterday, with the figures for each month.\r\n"
    return (head + line * (size // len(line) + 1))[:size].rstrip(b"\r\n") + b"\r\n"


def send(hop: Hop, load: Load, file: Path) -> float:
    """Seconds until all is accepted and, for a queue, delivered on."""
    argv = ["/usr/sbin/smtp-source", "-s", "10", "-m", str(load.messages), "-F", str(file)]
    argv += ["-f", "anna@example.com", "-t", "bo@example.org", "-r", str(load.recipients)]
    if load.kept:
        argv.append("-d")
    start = time.monotonic()
    # not by run(timeout=...), which looks for the end every 50 ms only
    source = subprocess.Popen([*argv, f"127.0.0.1:{hop.port}"], stdout=subprocess.DEVNULL)
    late = threading.Timer(600, source.kill)
    late.start()
    status = source.wait()
    late.cancel()
    if status:
        raise SystemExit(f"bench: smtp-source through {hop.name} ended with {status}")
    while not hop.drained():
        time.sleep(0.005)
    return time.monotonic() - start


NOTHING, QUEUE, FILTER = "nothing between", "Postfix queue", "Postfix proxy filter"


def table(head: list[str], rows: Iterable[list[str]]) -> None:
    """As Markdown, line by line as the rows come, and straight on a terminal as well."""
    widths = [max(12, len(h)) for h in head]
    for row in chain([head, ["-" * w for w in widths]], rows):
        print("| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) + " |", flush=True)


def throughput(hops: list[Hop], loads: list[Load], runs: int, root: Path) -> None:
    print(
        f"\nMessages/s, medians of {runs} interleaved runs; in brackets times the queue hop, and times the proxy-filter hop.\n"
    )
    table(["".ljust(22), *(h.name.ljust(22) for h in hops)], _rates(hops, loads, runs, root))


def _rates(hops: list[Hop], loads: list[Load], runs: int, root: Path) -> Iterator[list[str]]:
    for load in loads:
        file = root / f"mail{load.size}"
        file.write_bytes(message(load.size).replace(b"\r\n", b"\n"))  # smtp-source writes the CRs
        took: dict[str, list[float]] = {h.name: [] for h in hops}
        for turn in range(runs + 1):
            for hop in hops:
                seconds = send(hop, load, file)
                if turn:  # the first turn warms up
                    took[hop.name].append(load.messages / seconds)
        rate = {name: statistics.median(v) for name, v in took.items()}
        yield [
            str(load),
            *(
                f"{rate[h.name]:,.0f} ({rate[h.name] / rate[QUEUE]:.1f}; {rate[h.name] / rate[FILTER]:.2f})"
                for h in hops
            ),
        ]


async def _paced(port: int, body: bytes, rate: float, seconds: float) -> list[float]:
    """Latency in ms from MAIL to the reply to the dot, of messages sent at ``rate`` a second over 10 kept connections."""
    links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for r, w in links:
        await r.readline()
        w.write(b"EHLO bench\r\n")
        while (await r.readline())[3:4] == b"-":
            pass
        free.put_nowait((r, w))
    took: list[float] = []

    async def one() -> None:
        start = time.perf_counter()
        r, w = await free.get()
        for command in (
            b"MAIL FROM:<anna@example.com>\r\n",
            b"RCPT TO:<bo@example.org>\r\n",
            b"DATA\r\n",
            body + b".\r\n",
        ):
            w.write(command)
            reply = await r.readline()
            if reply[:1] not in b"23":
                raise SystemExit(f"bench: {reply!r}")
        took.append((time.perf_counter() - start) * 1000)
        free.put_nowait((r, w))

    async with asyncio.TaskGroup() as group:
        begin = time.perf_counter()
        for i in range(int(rate * seconds)):
            delay = begin + i / rate - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            group.create_task(one())
    for _, w in links:
        w.close()
    return took


def latency(hops: list[Hop], runs: int, rate: float) -> None:
    """From MAIL to the reply to the dot; what a hop adds is the difference to nothing between, of the same percentile."""
    print(
        f"\nLatency of 10 KB at {rate:g} messages/s, ms, medians of {runs} interleaved runs; in brackets what is added.\n"
    )
    seen: dict[str, list[tuple[float, float]]] = {h.name: [] for h in hops}
    for _ in range(runs):
        for hop in hops:
            took = sorted(asyncio.run(_paced(hop.port, message(10240), rate, 4)))
            seen[hop.name].append((statistics.median(took), took[int(len(took) * 0.99) - 1]))
            while not hop.drained():
                time.sleep(0.01)
    middle = {name: [statistics.median(values) for values in zip(*pairs, strict=True)] for name, pairs in seen.items()}
    table(
        ["".ljust(22), "p50", "p99"],
        (
            [name, *(f"{ms:.2f} ({ms - none:+.2f})" for ms, none in zip(both, middle[NOTHING], strict=True))]
            for name, both in middle.items()
        ),
    )


def fdatasync_ms(folder: Path) -> float:
    fd = os.open(folder / "sync", os.O_CREAT | os.O_WRONLY)
    took = []
    for _ in range(50):
        os.write(fd, b"x" * 4096)
        start = time.perf_counter()
        os.fdatasync(fd)
        took.append((time.perf_counter() - start) * 1000)
    os.close(fd)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=2000, help="of 10 KB to one recipient; others in proportion")
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--quick", action="store_true", help="10 KB alone, three runs")
    parser.add_argument("--all", action="store_true", help="every size with every number of recipients, kept and new")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument(
        "--postgresql", action="store_true", help="the same once more on a PostgreSQL server of its own"
    )
    args = parser.parse_args()
    why = missing()
    if why:
        sys.exit(f"bench: {why}")
    runs = 3 if args.quick else args.runs
    n = args.messages
    loads = [load for load in every_load(n) if args.all or load.plain]
    if args.quick:
        loads = [Load(10240, 1, True, n)]
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp")))
        sink = free_port()
        sink_argv = ("/usr/sbin/smtp-sink", "-u", "postfix", "-R", "/tmp", f"127.0.0.1:{sink}", "1000")
        stack.enter_context(running(*sink_argv, port=sink, log=root / "sink.log"))
        relay = {"relayhost": f"[127.0.0.1]:{sink}"}
        queue = stack.enter_context(Postfix(root, name="queue", main=relay))
        filter_ = stack.enter_context(Postfix(root, name="filter", main={"smtpd_proxy_filter": f"127.0.0.1:{sink}"}))
        hops = [
            Hop(NOTHING, sink),
            Hop(QUEUE, queue.port, lambda: queue.queued() == 0),
            Hop(FILTER, filter_.port),
        ]
        stores = {"": EMBEDDED}
        if args.postgresql:
            stores[", PostgreSQL"] = stack.enter_context(a_server()).get_uri().replace(":@", "@")
        for (where, store), workers in product(stores.items(), (int(w) for w in args.workers.split(",") if w)):
            port = free_port()
            settings = guard_settings(root, port, sink, workers, store)
            guard = (sys.executable, "-m", "smtpguard", "-c", str(settings))
            # or what comes before the lists are known is held, as it must be, and so are all copies of it that follow
            subprocess.run([*guard, "lists", "sync"], check=True, stdout=subprocess.DEVNULL)
            argv = (*guard, "serve", "--only", "proxy", "--only", "delivery")
            stack.enter_context(running(*argv, port=port, log=root / f"guard{port}.log"))
            hops.append(Hop(f"smtpguard, {workers} worker{'s' * (workers > 1)}{where}", port))
        print(f"python -m bench {' '.join(sys.argv[1:])}".rstrip())
        print(f"{os.cpu_count()} cores; one fdatasync of 4 KB takes {fdatasync_ms(root):.2f} ms on this disk")
        throughput(hops, loads, runs, root)
        latency(hops, min(runs, 3), args.rate)
