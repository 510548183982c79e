"""``python -m bench --milter``: what a milter costs a message: smtp-source -> Postfix -> smtp-sink, with none, an idle
one, and smtpguard.

The idle one is a minimal pymilter (Debian's python3-milter on libmilter) that gets what smtpguard gets and answers
"continue". All Postfixes are alike and take turns in one run. A message counts when the sink has it. Prints medians,
the cost of a message above that with no milter, and ratios.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.through import Hop, Load, a_sink, fdatasync_ms, guard_settings, running, serving, table, taking_turns
from tests.peers.postfix import Postfix, free_port, missing

NONE, NOTHING = "no milter", "pymilter, nothing"
PYTHON = "/usr/bin/python3"  # Debian's own: python3-milter is built for it
PYMILTER = """\
import sys
import Milter

class Nothing(Milter.Milter):
    def connect(self, *_): return Milter.CONTINUE
    def hello(self, *_): return Milter.CONTINUE
    def envfrom(self, *_): return Milter.CONTINUE
    def envrcpt(self, *_): return Milter.CONTINUE
    def header(self, *_): return Milter.CONTINUE
    def eoh(self): return Milter.CONTINUE
    def body(self, *_): return Milter.CONTINUE
    def eom(self): return Milter.CONTINUE

Milter.factory = Nothing
Milter.runmilter("nothing", sys.argv[1], 300)
"""


def hops(root: Path, workers: Sequence[int], stack: ExitStack) -> Iterator[Hop]:
    sink = a_sink(root, stack)

    def mta(name: str, milter: str) -> Hop:
        main = {"relayhost": f"[127.0.0.1]:{sink}", "smtpd_milters": milter, "milter_default_action": "tempfail"}
        postfix = stack.enter_context(Postfix(root, name=name.replace(" ", "-").replace(",", ""), main=main))
        return Hop(name, postfix.port, lambda: postfix.queued() == 0)

    yield mta(NONE, "")
    if subprocess.run([PYTHON, "-c", "import Milter"], capture_output=True, check=False).returncode:
        why = "no python3-milter here (apt-get install python3-milter)"
        print(f"bench: {why}: the milter that does nothing is left out", file=sys.stderr)
    else:
        script, port = root / "nothing.py", free_port()
        script.write_text(PYMILTER)
        where = f"inet:{port}@127.0.0.1"
        stack.enter_context(running(PYTHON, str(script), where, port=port, log=root / "nothing.log", banner=False))
        yield mta(NOTHING, f"inet:127.0.0.1:{port}")
    for number in workers:
        port = free_port()
        settings = guard_settings(root, 0, sink, number)
        text = settings.read_text().replace("smtp: [{address: 127.0.0.1, port: 0}]", "smtp: []")
        settings.write_text(text.replace("smtp: []", f"smtp: [], milter: [{{address: 127.0.0.1, port: {port}}}]"))
        stack.enter_context(serving(settings, port, "milter"))
        yield mta(f"smtpguard, {number} worker" + "s" * (number > 1), f"inet:127.0.0.1:{port}")


def rates(hops: Sequence[Hop], loads: Sequence[Load], runs: int) -> Iterator[list[str]]:
    first = 0
    for load in loads:
        each = {name: seconds * 1000 for name, (seconds, _) in taking_turns(hops, load, runs, first).items()}
        first += load.messages * (runs + 1)
        for name, ms in each.items():
            beside = f"{ms / each[NOTHING]:.2f}" if NOTHING in each else "-"
            yield [str(load), name, f"{ms:.2f}", f"{ms - each[NONE]:+.2f}", f"{ms / each[NONE]:.2f}", beside]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench --milter", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--workers", default="1,2")
    args = parser.parse_args(arguments)
    if why := missing():
        sys.exit(f"bench: {why}")
    n = args.messages
    loads = [
        Load(10240, 1, True, n),
        Load(1024, 1, True, n),
        Load(102400, 1, True, n // 2),
        Load(10240, 50, True, n // 8),
    ]
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp")))
        every = list(hops(root, [int(word) for word in args.workers.split(",") if word], stack))
        print(f"python -m bench --milter {' '.join(arguments)}".rstrip())
        print(f"{os.cpu_count()} cores; one fdatasync of 4 KB takes {fdatasync_ms(root):.2f} ms on this disk")
        print(f"\nms a message, ten clients at once, until the sink has it; medians of {args.runs} interleaved runs.\n")
        head = ["".ljust(22), "milter".ljust(20), "ms", "more than none", "times none", "times nothing"]
        table(head, rates(every, loads, args.runs))
