"""``python -m bench --journal [ENTRIES]``: read the whole journal, alone and beside a guard that writes as fast as it
can.

A store on disk gets that many generated entries, verdicts and outcomes. Then ``audit verify`` and ``incident report``
read it in their own process: first alone, then while this process records verdicts. Prints how long each takes, how
fast the journal grows meanwhile, and the largest size of SQLite's write-ahead log. A large log takes disk space from
the mail and slows every read.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.through import table
from smtpguard.app.services import opened
from smtpguard.config.settings import read_settings
from smtpguard.journal.event import Event, Kind
from smtpguard.store.store import Store

_CLIENTS = 64
_SLICE = 2_000
_RUNS = 3
_SUBJECT = "Greetings"


def made(first: int, many: int, now: datetime) -> Iterator[Event]:
    """The entries of relayed messages: the verdict, and the relay's reply."""
    for n in range(first, first + many, 2):
        at, id = now + timedelta(milliseconds=n), f"{n:016X}"
        yield Event(
            kind=Kind.VERDICT,
            id=id,
            at=at,
            data={
                "action": "relay", "rules": [], "observed": [], "approved": [], "reasons": [], "lists": [], "streams": [],
                "counts": {"total": 2, "internal": 0, "outside": 2, "members": 0, "reach": 2}, "policy": "9f" * 32,
                "content": f"{n:064x}", "size": 10_240, "client": "192.0.2.25", "looks": "mailing", "mailing": None,
            },
            private={
                "from": (f"clerk{n % 300}@example.com",),
                "reverse_path": (f"clerk{n % 300}@example.com",),
                "recipients": (f"reader{n}@example.org", f"reader{n + 1}@example.net"),
                "subject": (_SUBJECT if n % 20_000 == 0 else f"Your order {n}",),
            },
        )  # fmt: skip
        yield Event(kind=Kind.OUTCOME, id=id, at=at, data={"outcome": "relayed", "replies": ["250 2.0.0 Ok: queued"]})


async def _write(store: Store, numbers: Iterator[int]) -> None:
    """Record verdicts until cancelled."""
    while True:
        await store.journal.record(list(made(next(numbers), 2, datetime.now(UTC))))


async def _watch(log: Path, sizes: list[int]) -> None:
    while True:
        sizes.append(_size(log))
        await asyncio.sleep(0.01)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


async def _beside(store: Store, log: Path, numbers: Iterator[int], command: Sequence[str]) -> tuple[float, float, int]:
    """Seconds that the command took, entries a second meanwhile, and the largest size of the log in octets."""
    sizes: list[int] = []
    work = [asyncio.create_task(_write(store, numbers)) for _ in range(_CLIENTS)]
    work.append(asyncio.create_task(_watch(log, sizes)))
    before, started = next(numbers), time.monotonic()
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    if await process.wait():
        raise SystemExit(f"bench: {' '.join(command)}: {process.returncode}")
    seconds, after = time.monotonic() - started, next(numbers)
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    return seconds, (after - before) / seconds, max(sizes)


def _alone(command: Sequence[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main(argv: Sequence[str]) -> None:
    options = argparse.ArgumentParser(prog="python -m bench --journal", description=__doc__)
    options.add_argument("entries", nargs="?", type=int, default=200_000)
    options.add_argument("--store", default="", help="of a database that is empty; SQLite on disk by default")
    chosen = options.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        root = Path(folder)
        (root / "smtpguard.yaml").write_text(
            f'store: {{url: "{chosen.store or f"sqlite:///{root}/guard.db"}"}}\nstate: {root}\nsecret_file: {root}/secret\n'
        )
        print(f"python -m bench --journal {chosen.entries}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        asyncio.run(_measured(root, chosen.entries))


async def _measured(root: Path, entries: int) -> None:
    command = (sys.executable, "-m", "smtpguard", "-c", str(root / "smtpguard.yaml"))
    reads = {
        "audit verify": (*command, "audit", "verify"),
        "incident report": (*command, "incident", "report", "--subject", _SUBJECT),
        "audit export": (*command, "audit", "export"),
    }
    async with opened(read_settings(root / "smtpguard.yaml"), migrate=True, hot=True) as (store, _):
        yesterday = datetime.now(UTC) - timedelta(days=1)
        for begin in range(0, entries, _SLICE):
            await store.journal.record(list(made(begin, min(_SLICE, entries - begin), yesterday)))
        await store.journal.checkpoint()
        alone = {
            name: statistics.median([await asyncio.to_thread(_alone, read) for _ in range(_RUNS)])
            for name, read in reads.items()
        }
        log, rows = root / "guard.db-wal", []
        numbers = itertools.count(entries + 2, 2)
        for name, read in {"nobody": ("sleep", str(round(alone["audit verify"]) or 1)), **reads}.items():
            took, pace, most = await _beside(store, log, numbers, read)
            first = f"{alone[name]:.2f}" if name in alone else ""
            rows.append([name.ljust(16), first, f"{took:.2f}" if first else "", f"{pace:,.0f}", f"{most >> 20:,}"])
    table(["who reads".ljust(16), "s alone", "s beside mail", "entries/s written", "log, MB at most"], rows)
