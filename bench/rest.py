"""``python -m bench --rest``: the memory of each process of an idle guard with the sample policy, and the processor time of a start."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.through import Hop, guard_settings, pss_mb, running, table
from tests.peers.postfix import free_port


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench --rest", description=__doc__)
    parser.add_argument("--all", action="store_true", help="with milter, console and metrics")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        root, port, log = Path(folder), free_port(), Path(folder) / "log"
        settings = guard_settings(root, port, free_port(), chosen.workers)
        if chosen.all:
            text = settings.read_text().replace("listen: {", f"listen: {{milter: [{{port: {free_port()}}}], ")
            web = "".join(f"{part}: {{address: 127.0.0.1, port: {free_port()}}}\n" for part in ("console", "metrics"))
            settings.write_text(text + web)
        argv = [sys.executable, "-m", "smtpguard", "serve", "--config", str(settings)]
        starts = []
        for number in range(6):  # the first makes the store
            log.write_bytes(b"")
            with running(*argv, port=port, log=log) as process:
                guard = Hop("smtpguard", port, process=process.pid)
                while b'"serving"' not in log.read_bytes():
                    time.sleep(0.02)
                starts.append(guard.cpu_seconds())
                if number < 5:
                    continue
                time.sleep(10)  # what is done once after a start is done
                print(
                    f"processor time of a start: {statistics.median(starts[1:]):.2f} s (the first: {starts[0]:.2f} s)\n"
                )
                rows = []
                for pid in guard.processes():
                    title = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
                    name = title.rpartition("smtpguard: ")[2] if pid != process.pid else "supervisor"
                    rows.append([name, f"{pss_mb(pid):.0f}"])
                table(["process".ljust(22), "PSS, MB"], [*rows, ["all", f"{guard.memory_mb():.0f}"]])
