"""A part for tests: it greets with its pid, and does what one word over the connection says.

``python toy.py LISTENERS PARTS [TIMING JSON]`` runs a supervisor of such parts, so that signals and deaths are real.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path

from smtpguard.processes import part as life
from smtpguard.processes import proxyheader
from smtpguard.processes.child import Timing
from smtpguard.processes.connections import Connections
from smtpguard.processes.listeners import Wanted, inherited, open_all
from smtpguard.processes.numbers import ProcessNumbers
from smtpguard.processes.statusfile import Notifier, StatusFile
from smtpguard.processes.supervisor import CANNOT_RUN, TRY_AGAIN, Supervisor

STUBBORN = bool(os.environ.get("TOY_STUBBORN"))


class Toy(life.Part):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.busy: set[asyncio.Task[None]] = set()
        self.stopping = asyncio.Event()
        self.slow = 0
        self.words = 0
        self.found: dict[str, tuple[float, int]] = {}

    async def start(self) -> None:
        if self.name == "broken" or (self.name == "shows" and os.environ.get("TOY_NUMBERS") == "broken"):
            os._exit(3)
        if self.name == "late":
            time.sleep(2.5)  # noqa: ASYNC251 - as a machine that is busy
        if self.name == "booting":
            time.sleep(60)  # noqa: ASYNC251 - it will not be ready in this life
        if self.name == "refused":
            with open(os.environ["TOY_TRIES"], "a+") as tries:  # noqa: ASYNC230, PTH123
                before = tries.tell()
                tries.write(".")
            why = (["the port is in use"] * 5 + ["no certificate " * 9_000] * 3 + [""])[before]
            if why:
                raise PermissionError(why)
        if self.name == "away" and not os.path.exists(os.environ["TOY_AWAY"]):  # noqa: ASYNC240, PTH110
            os._exit(TRY_AGAIN)
        if self.name == "wrong" and not os.path.exists(os.environ.get("TOY_RIGHT", "")):  # noqa: ASYNC240, PTH110
            os._exit(CANNOT_RUN)

    async def serve(self) -> None:
        if self.name == "ending":
            return
        await asyncio.Event().wait()

    def take(
        self, connection: socket.socket, listener: int, closed: Callable[[], None], client: str | None = None
    ) -> None:
        task = asyncio.create_task(self.talk(connection, closed, client))
        self.busy.add(task)
        task.add_done_callback(self.busy.discard)

    async def talk(self, connection: socket.socket, closed: Callable[[], None], client: str | None) -> None:
        loop = asyncio.get_running_loop()
        with connection:
            await loop.sock_sendall(
                connection, f"220 {os.getpid() if client is None else f'for {client}'}\r\n".encode()
            )
            while True:
                read = asyncio.create_task(loop.sock_recv(connection, 100))
                stop = asyncio.create_task(self.stopping.wait())
                await asyncio.wait({read, stop}, return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
                if not read.done():
                    read.cancel()
                    await loop.sock_sendall(connection, b"421 stopping\r\n")
                    break
                word = read.result().strip()
                self.words += bool(word)
                if word in (b"up", b"down"):
                    self.found["relay"] = time.monotonic(), word == b"up"
                if word == b"hang":
                    time.sleep(60)  # noqa: ASYNC251 - that is the fault
                elif word == b"freeze":
                    os.kill(os.getpid(), signal.SIGSTOP)
                elif word == b"slow":
                    await loop.sock_sendall(connection, b"150 begun\r\n")
                    await self.stopping.wait()
                    await asyncio.sleep(0.3)
                    await loop.sock_sendall(connection, b"250 done\r\n")
                elif word:
                    await loop.sock_sendall(connection, b"250 " + word + b"\r\n")
                else:
                    break
        closed()

    def said(self) -> ProcessNumbers:
        return ProcessNumbers(counts={"words": self.words} if self.name == "proxy" else {}, found=self.found)

    def told(self, numbers: Mapping[str, object]) -> None:
        """Write the numbers to a file that the test reads."""
        new = Path(os.environ["TOY_NUMBERS"] + ".new")
        new.write_text(json.dumps(numbers))
        new.rename(os.environ["TOY_NUMBERS"])

    async def stop(self, grace_seconds: float) -> None:
        self.stopping.set()
        if self.busy:
            await asyncio.wait(self.busy, timeout=grace_seconds)

    async def close(self) -> None:
        if self.name == "proxy" and STUBBORN:
            await asyncio.Event().wait()


def child(name: str, _: str, channel: int, said: str) -> int:
    if STUBBORN:
        life.GRACE_SECONDS = life.LAST_SECONDS = 0.5
    with socket.socket(fileno=channel) as sock:
        try:
            asyncio.run(life.run(Toy(name), sock))
        except PermissionError as e:
            if not said or not str(e).startswith(said):
                os.write(1, f"cannot run {str(e)[:20]}\n".encode())  # whole, among lines of the supervisor
            return TRY_AGAIN
    return 0


async def serve(ports: list[int], parts: list[str], options: dict[str, object]) -> int:
    connections = Connections(
        total=int(str(options.pop("total", 1000))),
        per_client=int(str(options.pop("per_client", 1000))),
        trusted=[ip_network(str(options.pop("trust")))] if "trust" in options else [],
    )
    reload = options.pop("reload", ["true"])
    shows, pages = str(options.pop("shows", "")), str(options.pop("pages", ""))
    monotonic = (lambda: 0.0) if options.pop("still", False) else time.monotonic
    proxy = bool(options.pop("proxy", False))
    proxyheader.HEADER_SECONDS = float(str(options.pop("proxy_seconds", proxyheader.HEADER_SECONDS)))
    clients = [ip_network(text) for text in options.pop("clients")] if "clients" in options else None  # type: ignore[attr-defined]
    part = str(options.pop("part", "proxy"))
    address = str(options.pop("address", "127.0.0.1"))
    wanted = [Wanted(address=address, port=port, proxy=proxy, clients=clients, part=part, taker=part) for port in ports]
    if "unix" in options:
        taker = "milter" if "milter" in parts else "proxy"
        wanted.append(Wanted(part="milter", taker=taker, unix=Path(str(options.pop("unix")))))
    listeners = open_all(wanted, inherited())
    if options.pop("told", False):  # while it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        os.kill(os.getpid(), signal.SIGHUP)
    print(json.dumps([each.socket.getsockname()[1] for each in listeners[: len(ports)]]), flush=True)
    return await Supervisor(
        parts=parts,
        life=child,
        listeners=listeners,
        connections=connections,
        notifier=Notifier(),
        reload=reload,  # type: ignore[arg-type]
        shows=(shows,) if shows else (),
        pages=(pages,) if pages else (),
        monotonic=monotonic,
        timing=Timing(**options),  # type: ignore[arg-type]
        status_file=StatusFile(Path(os.environ["NOTIFY_SOCKET"]).parent),
        started=lambda: print("started", flush=True),
    ).run()


if __name__ == "__main__":
    status = asyncio.run(serve(json.loads(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])))
    os.kill(os.getpid(), signal.SIGHUP)  # while its end is journalled
    sys.exit(status)
