"""Messages a second, processor time and added latency: client -> X -> sink, where X is nothing, Postfix or smtpguard.

The alternatives take turns in one run, so that a drift of the machine's speed affects all of them. Prints medians and
ratios. The Postfix proxy-filter hop is the fair comparison: like smtpguard, it queues nothing and passes on the relay's
replies. The queue hop is timed until its queue is empty, on the same disk as smtpguard's journal. The cost of one
fdatasync is printed too: figures with durability are only as good as the disk's sync. No two messages are alike
(bench.client). One client with ten sessions sends in bursts, which suits a group commit; ten clients are what a site
has.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path

import trustme

from tests.peers.postfix import Postfix, free_port, missing
from tests.store.servers import a_server

EMBEDDED = "sqlite:///var/smtpguard.db"
SAMPLE = Path(__file__).parent.parent / "config"


@dataclass(frozen=True)
class Load:
    """``size``: bytes of a message. ``recipients``: of each message. ``kept``: whether connections are reused. One
    client opens ten connections, or ten ``clients`` open one each."""

    size: int
    recipients: int
    kept: bool
    messages: int
    clients: int = 1
    tls: bool = False

    def __str__(self) -> str:
        words = [f"{self.size // 1024:>3} KB", f"{self.recipients:>2} rcpt", "kept" if self.kept else "new"]
        words += ["10 clients"] if self.clients > 1 else []
        return ", ".join(words + (["TLS"] if self.tls else []))


SESSIONS = 10


def every_load(n: int) -> list[Load]:
    """Every combination. ``n``: messages of 10 KB to one recipient; fewer where one takes longer."""
    return [
        Load(size, recipients, kept, n // (2 if size > 10240 else 1) // (8 if recipients > 1 else 1))
        for size in (1024, 10240, 102400)
        for recipients in (1, 50)
        for kept in (True, False)
    ]


def plain_loads(n: int) -> list[Load]:
    """10 KB to one recipient over kept connections, and variants that each differ in one thing."""
    usual = Load(10240, 1, True, n)
    return [
        usual,
        replace(usual, clients=10),
        replace(usual, size=1024),
        replace(usual, kept=False),
        replace(usual, size=102400, messages=n // 2),
        replace(usual, recipients=50, messages=n // 8),
        replace(usual, tls=True),
    ]


@dataclass(frozen=True)
class Hop:
    """``process``: the root of its process tree, 0 if there is none. ``with_tls``: the same hop with TLS, None if there
    is none."""

    name: str
    port: int
    drained: Callable[[], bool] = lambda: True
    process: int = 0
    with_tls: Hop | None = None

    def processes(self) -> list[int]:
        """The pids of its living processes."""
        found = [self.process] if self.process else []
        for pid in found:
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += [int(child) for child in (task / "children").read_text().split()]
        return found

    def cpu_seconds(self) -> float:
        """Processor time of its process tree, ended processes included."""
        return cpu_seconds(self.processes())

    def memory_mb(self) -> float:
        """Resident memory, where shared pages are divided among the processes that share them (PSS)."""
        return sum(map(pss_mb, self.processes()))


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time of these processes, and of their children that have ended."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0


def wait_for(port: int, process: subprocess.Popen[bytes], *, banner: bool = True) -> None:
    """Until it listens. A milter sends no banner."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"bench: exited with {process.returncode}: {process.args!r}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
                if banner:
                    s.recv(512)
                    s.sendall(b"QUIT\r\n")
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench: no answer on port {port}")


@contextmanager
def running(*argv: str, port: int, log: Path, banner: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out)
    try:
        wait_for(port, process, banner=banner)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def a_sink(root: Path, stack: ExitStack) -> int:
    """The port of a relay that takes everything."""
    port = free_port()
    argv = ("/usr/sbin/smtp-sink", "-u", "postfix", "-R", "/tmp", f"127.0.0.1:{port}", "1000")
    stack.enter_context(running(*argv, port=port, log=root / "sink.log"))
    return port


@contextmanager
def serving(settings: Path, port: int, part: str = "proxy") -> Iterator[subprocess.Popen[bytes]]:
    """A guard with this part and the delivery part. Its lists are known before mail comes: otherwise that would be held, and so would all
    later copies of it."""
    command = (sys.executable, "-m", "smtpguard", "-c", str(settings))
    subprocess.run([*command, "lists", "sync"], check=True, stdout=subprocess.DEVNULL)
    argv = (*command, "serve", "--only", part, "--only", "delivery")
    with running(*argv, port=port, log=settings.parent / "log", banner=part == "proxy") as process:
        yield process


def guard_settings(
    root: Path, listen: int, relay: int, workers: int, store: str = EMBEDDED, certificate: Path | None = None
) -> Path:
    """Write settings with the sample policy and its lists. ``certificate``: TLS on both sides; the relay's certificate
    comes from the same authority, or is not verified."""
    folder = root / f"guard{listen}-{workers}"
    shutil.copytree(SAMPLE, folder)
    settings = folder / "smtpguard.yaml"
    tls = f", tls: {{certificate: {certificate}, key: {certificate}}}" if certificate else ""
    settings.write_text(
        f"""\
listen: {{smtp: [{{address: 127.0.0.1, port: {listen}{tls}}}]}}
relay: {{host: 127.0.0.1, port: {relay}, tls: {"opportunistic" if certificate else "none"}, connections: 100}}
store: {{url: "{store}"}}
policy: policy.yaml
trust: [127.0.0.1]
workers: {workers}
logging: {{format: json}}
"""
    )
    return settings


def send(hop: Hop, load: Load, first: int = 0) -> float:
    """Seconds until everything is accepted and, for a queue, delivered. ``first``: the number of the first message."""
    each = load.messages // load.clients
    with ExitStack() as stack:
        clients: list[Client] = []
        for number in range(load.clients):
            words = ["--sessions", SESSIONS // load.clients, "--messages", each, "--size", load.size]
            words += ["--recipients", load.recipients, "--first", first + number * each]
            words += [*(["--new"] if not load.kept else []), *(["--tls"] if load.tls else [])]
            clients.append(stack.enter_context(client(hop.port, *words)))
        start = time.monotonic()
        for each_client in clients:
            each_client.begin()
        for each_client in clients:
            each_client.took()
        while not hop.drained():
            time.sleep(0.005)
        return time.monotonic() - start


class Client:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._said("ready")

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def took(self, *, stop: bool = False) -> list[float]:
        """Wait until all are sent, or let it ``stop``; return the milliseconds of each."""
        if stop and self._process.stdin is not None:
            self._process.stdin.close()
        took: list[float] = json.loads(self._said("{"))["took"]
        return took

    def _said(self, start: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(start):
            raise SystemExit(f"bench: a client ended with {self._process.wait(60)}")
        return line


@contextmanager
def client(port: int, *words: object, seconds: float = 600) -> Iterator[Client]:
    argv = [sys.executable, "-m", "bench.client", str(port), *map(str, words)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        late = threading.Timer(seconds, process.kill)
        late.start()
        try:
            yield Client(process)
        finally:
            late.cancel()
            process.kill()


NOTHING, QUEUE, FILTER = "nothing between", "Postfix queue", "Postfix proxy filter"


def table(head: list[str], rows: Iterable[list[str]]) -> None:
    """Print as Markdown that is aligned on a terminal, each row as it comes."""
    widths = [max(12, len(h)) for h in head]
    for row in chain([head, ["-" * w for w in widths]], rows):
        print("| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) + " |", flush=True)


def throughput(hops: list[Hop], loads: list[Load], runs: int) -> None:
    print(
        f"\nMessages/s, medians of {runs} interleaved runs; in brackets times the queue hop, times the proxy-filter hop, and"
        " microseconds of processor time a message, of all processes of a hop.\n"
    )
    table(["".ljust(33), *(h.name.ljust(28) for h in hops)], _rates(hops, loads, runs))


def taking_turns(hops: Sequence[Hop | None], load: Load, runs: int, first: int) -> dict[str, tuple[float, float]]:
    """For each hop the medians of its seconds and of its seconds of processor time, for one message. They take turns,
    and the first turn warms up. ``first``: the number of the first message."""
    took: dict[str, list[tuple[float, float]]] = {}
    for turn in range(runs + 1):
        for hop in filter(None, hops):
            before = hop.cpu_seconds()
            seconds = send(hop, load, first)
            if turn:
                took.setdefault(hop.name, []).append((seconds, hop.cpu_seconds() - before))
        first += load.messages
    return {
        name: (statistics.median(all_) / load.messages, statistics.median(cpu) / load.messages)
        for name, (all_, cpu) in ((name, zip(*values, strict=True)) for name, values in took.items())
    }


def _rates(hops: list[Hop], loads: list[Load], runs: int) -> Iterator[list[str]]:
    first = 0
    for load in loads:
        took = taking_turns([hop.with_tls if load.tls else hop for hop in hops], load, runs, first)
        first += load.messages * (runs + 1)
        yield [str(load), *(_cell(hop.name, took) for hop in hops)]


def _cell(name: str, took: dict[str, tuple[float, float]]) -> str:
    if name not in took:
        return "-"
    seconds, cpu = took[name]
    if name == NOTHING:
        return f"{1 / seconds:,.0f}"
    beside = [f"{took[peer][0] / seconds:.2f}" if peer in took else "-" for peer in (QUEUE, FILTER)]
    return f"{1 / seconds:,.0f} ({'; '.join(beside)}; {cpu * 1e6:,.0f} us)"


def latency(hops: list[Hop], runs: int, rate: float) -> None:
    """From MAIL to the reply to the dot. The added latency is the difference to no hop at the same percentile."""
    print(
        f"\nLatency of 10 KB at {rate:g} messages/s, ms, {runs} interleaved runs of 4 s; in brackets what is added.\n"
    )
    seen: dict[str, list[float]] = {h.name: [] for h in hops}
    messages, first = int(rate * 4), 500_000
    for _ in range(runs):
        for hop in hops:
            words = ("--sessions", SESSIONS, "--messages", messages, "--rate", rate, "--first", first)
            with client(hop.port, *words) as sending:
                sending.begin()
                seen[hop.name] += sending.took()
            while not hop.drained():
                time.sleep(0.01)
        first += messages
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    at = {name: [sorted(took)[int(len(took) * share)] for share in shares.values()] for name, took in seen.items()}
    table(
        ["".ljust(22), *shares],
        (
            [name, *(f"{ms:.2f} ({ms - none:+.2f})" for ms, none in zip(all_, at[NOTHING], strict=True))]
            for name, all_ in at.items()
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


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=2000, help="of 10 KB to one recipient; others in proportion")
    parser.add_argument("--rate", default="300,500", help="messages a second at which latency is looked at")
    parser.add_argument("--quick", action="store_true", help="10 KB alone, by one client and by ten, three runs")
    parser.add_argument("--all", action="store_true", help="every size with every number of recipients, kept and new")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument(
        "--postgresql", action="store_true", help="the same once more on a PostgreSQL server of its own"
    )
    args = parser.parse_args(argv)
    why = missing()
    if why:
        sys.exit(f"bench: {why}")
    runs = 3 if args.quick else args.runs
    loads = plain_loads(args.messages)
    if args.all:
        loads += [load for load in every_load(args.messages) if load not in loads]
    if args.quick:
        loads = loads[:2]
    rates = [float(word) for word in args.rate.split(",")]
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp")))
        hops = list(_hops(root, [int(word) for word in args.workers.split(",") if word], args, stack))
        print(f"python -m bench {' '.join(argv)}".rstrip())
        print(f"{os.cpu_count()} cores; one fdatasync of 4 KB takes {fdatasync_ms(root):.2f} ms on this disk")
        idle = {hop.name: hop.memory_mb() for hop in hops if hop.process}
        throughput(hops, loads, runs)
        for rate in rates[:1] if args.quick else rates:
            latency(hops, min(runs, 3), rate)
        print("\nMemory (PSS), MB, at rest before and after all of it.\n")
        rows = ([h.name, f"{idle[h.name]:.0f}", f"{h.memory_mb():.0f}"] for h in hops if h.process)
        table(["".ljust(22), "before", "after"], rows)


def _hops(root: Path, workers: list[int], args: argparse.Namespace, stack: ExitStack) -> Iterator[Hop]:
    """All hops that take turns. They run until ``stack`` is closed."""
    certificate = root / "localhost.pem"
    made = trustme.CA().issue_cert("localhost", "127.0.0.1")
    certificate.write_bytes(b"".join([made.private_key_pem.bytes(), *(pem.bytes() for pem in made.cert_chain_pems)]))
    certificate.chmod(0o644)
    sink, tls_sink = a_sink(root, stack), free_port()
    tls_argv = (sys.executable, "-m", "bench.sink", str(tls_sink), str(certificate))
    stack.enter_context(running(*tls_argv, port=tls_sink, log=root / "tlssink.log"))
    yield Hop(NOTHING, sink, with_tls=Hop(NOTHING, tls_sink))
    tls = {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": str(certificate)}
    queue = Postfix(root, name="queue", main=tls | {"relayhost": f"[127.0.0.1]:{sink}"})
    stack.enter_context(queue)
    over = Hop(QUEUE, queue.port, lambda: queue.queued() == 0, queue.process)
    yield replace(over, with_tls=over)
    filter_ = stack.enter_context(Postfix(root, name="filter", main=tls | {"smtpd_proxy_filter": f"127.0.0.1:{sink}"}))
    over = Hop(FILTER, filter_.port, process=filter_.process)
    yield replace(over, with_tls=over)  # TLS to its client only: Postfix speaks to a proxy filter in clear
    stores = {"": EMBEDDED}
    if args.postgresql:
        stores[", PostgreSQL"] = stack.enter_context(a_server()).get_uri().replace(":@", "@")
    for (where, store), number in product(stores.items(), workers):
        name = f"smtpguard, {number} worker{'s' * (number > 1)}{where}"
        hop = stack.enter_context(_guard(name, root, sink, number, store))
        with_tls = None if args.quick else stack.enter_context(_guard(name, root, tls_sink, number, store, certificate))
        yield replace(hop, with_tls=with_tls)
    for number in workers[:1]:
        yield stack.enter_context(_guard("smtpguard, BDAT to the relay", root, tls_sink, number, EMBEDDED))


@contextmanager
def _guard(
    name: str, root: Path, sink: int, workers: int, store: str, certificate: Path | None = None
) -> Iterator[Hop]:
    port = free_port()
    settings = guard_settings(root, port, sink, workers, store, certificate)
    with serving(settings, port) as process:
        yield Hop(name, port, process=process.pid)
