"""``python -m bench --flood [PEOPLE]``: one mailing as that many transactions with one recipient each, through the
whole guard.

The same client sends in turn: ordinary mail to PEOPLE who are on no list; distinct messages to as many who are on one,
which are read like the mailing and counted by sender; the mailing to everybody on a list, of which all but the first
copies are to be held or deferred; and, after an approval, the mailing again, as deferred clients do. Prints how many
were relayed, held and deferred, messages a second and processor time of each, and resident memory of each process.
Beside each, another client sends ordinary letters of 10 KB at ``--beside`` a second, as it does before all of them: the
last columns are how many a second it got through, and the milliseconds that they took, at the median and the
99th percentile. 400000 is the story's size and takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.through import a_sink, client, cpu_seconds, guard_settings, serving, table
from tests.peers.postfix import free_port, missing

THRESHOLD = 200
"""The limit of the sample policy's rule unapproved-mailing."""
COPIES = 500
"""Copies that are stored of a waiting mailing, by default."""
_CLIENTS = 20
_ALONE_SECONDS = 5
_OF_SENDERS = re.compile(r"_contacts|sender\.answers")
_SENDER = b"campaigns@example.com"
_TEXT = """\
From: Example AB <campaigns@example.com>
To: {to}
Subject: Spring in the shops, {name}
Date: Mon, 02 Mar 2026 09:00:00 +0000
Message-ID: <{n}.{turn}@campaigns.example.com>
List-Unsubscribe: <https://news.example.com/u/{n:x}>
List-Unsubscribe-Post: List-Unsubscribe=One-Click
Precedence: bulk
Feedback-ID: spring:example:campaigns
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Dear {name},

spring has come to our shops, and with it everything that makes a garden: bulbs, roses, seeds and tools.
Until Sunday all of it costs a fifth less, and whoever brings this letter gets a bag of soil for nothing.
We are open from nine to seven on every day of the week, and have coffee for those who have to wait a little.
Your customer number is {n}. Look at what we have for you: https://shop.example.com/spring?c={n:06x}

We look forward to seeing you!

You get this letter because you asked for it. Unsubscribe: https://news.example.com/u/{n:x}
""".replace("\n", "\r\n")
_NAMES = ("Anna", "Bo", "Cecilia", "David", "Elsa", "Fredrik", "Greta", "Hassan", "Ida", "Johan")


def reader(n: int) -> str:
    return f"reader{n}@mailbox{n % 7}.example.org"


def stranger(n: int) -> str:
    return f"stranger{n}@mailbox{n % 7}.example.net"


def letter(n: int, to: str, turn: int) -> bytes:
    """A message unlike all others."""
    draw = random.Random(n)
    words = ("".join(draw.choices("aeinorst", k=draw.randrange(3, 9))) for _ in range(100))
    head = _TEXT.format(n=n, to=to, name=_NAMES[n % 10], turn=turn).partition("\r\n\r\n")[0]
    return f"{head}\r\n\r\n{textwrap.fill(' '.join(words), 72)}\n".replace("\r\n", "\n").replace("\n", "\r\n").encode()


def copy(n: int, to: str, turn: int) -> bytes:
    """A copy of the mailing: name, number, links, tokens and Message-ID differ."""
    return _TEXT.format(n=n, to=to, name=_NAMES[n % 10], turn=turn).encode()


@dataclass(frozen=True, slots=True)
class Kind:
    """What is sent, and to whom."""

    name: str
    to: Callable[[int], str]
    mail: Callable[[int, str, int], bytes] = copy


KINDS = (
    Kind("ordinary mail", stranger),
    Kind("letters to customers", reader, letter),
    Kind("the mailing, unapproved", reader),
    Kind("and once approved", reader),
)
_UNAPPROVED, _APPROVED = 2, 3


async def _client(port: int, numbers: Iterator[int], kind: Kind, turn: int, said: Counter[str]) -> None:
    reader_, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader_.readline()
    writer.write(b"EHLO bench\r\n")
    while (await reader_.readline())[3:4] == b"-":
        pass
    for n in numbers:
        who = kind.to(n)
        writer.write(b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n" % (_SENDER, who.encode()))
        replies = [await reader_.readline() for _ in range(3)]
        if replies[2][:3] != b"354":
            raise SystemExit(f"bench: {replies!r}")
        writer.write(kind.mail(n, who, turn) + b".\r\n")
        answer = await reader_.readline()
        said["held" if b"Held for review" in answer else answer[:3].decode()] += 1
    writer.close()


async def _sent(port: int, people: int, kind: Kind, turn: int) -> tuple[Counter[str], float]:
    """The count of each kind of reply, and the seconds that it took."""
    said: Counter[str] = Counter()
    numbers = iter(range(people))
    started = time.monotonic()
    await asyncio.gather(*(_client(port, numbers, kind, turn, said) for _ in range(_CLIENTS)))
    return said, time.monotonic() - started


def used(pid: int) -> tuple[str, float]:
    """Resident MB of each part of a supervisor by name, and the seconds of processor time of all together."""
    found, parts = [], Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in parts:
        name = Path(f"/proc/{child}/cmdline").read_text().strip("\0").removeprefix("smtpguard: ")
        pages = int(Path(f"/proc/{child}/statm").read_text().split()[1])
        found.append(f"{name} {pages * os.sysconf('SC_PAGE_SIZE') >> 20}")
    return ", ".join(found), cpu_seconds(map(int, parts))


def _observe(policy: Path) -> None:
    """Let the rules about first contacts be evaluated and counted, but hold nothing: one sender sends too many messages
    for them."""
    before, *rules = policy.read_text().split("\n  - id: ")
    told = [
        f"{rule.rstrip()}\n    mode: observe\n" if _OF_SENDERS.search(rule) and "\n    mode:" not in rule else rule
        for rule in rules
    ]
    policy.write_text("\n  - id: ".join([before, *told]))


def main(argv: Sequence[str]) -> None:
    options = argparse.ArgumentParser(prog="python -m bench --flood", description=__doc__)
    options.add_argument("people", nargs="?", type=int, default=5_000, help="on the list (5000)")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--beside", type=float, default=50, help="letters a second beside it (50); 0: none")
    chosen = options.parse_args(argv)
    if why := missing():
        sys.exit(f"bench: {why}")
    people: int = chosen.people
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp")))
        sink, port = a_sink(root, stack), free_port()
        settings = guard_settings(root, port, sink, chosen.workers)
        _observe(settings.parent / "policy.yaml")
        with settings.open("a") as file:
            file.write("hold: {release_delay: 0}\n")  # release as soon as it is approved
        rows = "\n".join(map(reader, range(people)))
        (settings.parent / "lists" / "newsletter.csv").write_text(f"Email Address\n{rows}\n")
        guard = (sys.executable, "-m", "smtpguard", "-c", str(settings))
        process = stack.enter_context(serving(settings, port))
        print(f"python -m bench --flood {people} --workers {chosen.workers}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
        table(
            ["".ljust(26), "messages/s", "CPU us each", "relayed", "held", "deferred", "letters/s; ms", "MB"],
            _turns(guard, process.pid, port, people, chosen.beside),
        )
        rows_ = subprocess.run([*guard, "mailings", "list", "--json"], check=True, capture_output=True, text=True)
        seen = json.loads(rows_.stdout.splitlines()[0])
        print(
            f"\nThe mailing came for {seen['customers']:,} people and reached {seen['relayed'] + seen['admitted']:,}."
        )
        size, log = ((settings.parent / "var" / name).stat().st_size for name in ("smtpguard.db", "smtpguard.db-wal"))
        print(f"The database has {size / people:.0f} octets a person, and a write-ahead log of {log >> 20} MB.")


@contextmanager
def _beside(port: int, rate: float, first: int) -> Iterator[list[str]]:
    """Letters at this rate until the block ends; then how they fared. None at the rate 0."""
    fared: list[str] = []
    if not rate:
        yield [""]
        return
    with client(port, "--messages", 0, "--rate", rate, "--first", first, seconds=36_000) as letters:
        letters.begin()
        started = time.monotonic()
        yield fared
        took = sorted(letters.took(stop=True))
        middle, most = took[len(took) // 2], took[len(took) * 99 // 100]
        fared.append(f"{len(took) / (time.monotonic() - started):.0f}; {middle:.1f}, {most:.1f}")


def _turns(guard: Sequence[str], pid: int, port: int, people: int, rate: float) -> Iterator[list[str]]:
    with _beside(port, rate, 0) as fared:
        time.sleep(_ALONE_SECONDS if rate else 0)
    resident, cpu = used(pid)
    yield ["before", "", "", "", "", "", *fared, resident]
    for turn, kind in enumerate(KINDS):
        if turn == _APPROVED:
            shown = subprocess.run([*guard, "mailings", "list", "--json"], check=True, capture_output=True, text=True)
            hold = json.loads(shown.stdout.splitlines()[0])["hold"]
            vote = ("held", "approve", hold, "--as", "eva@example.com", "--people", str(people))
            subprocess.run([*guard, *vote], check=True, stdout=subprocess.DEVNULL)
        with _beside(port, rate, (turn + 1) * 10_000_000) as fared:
            said, seconds = asyncio.run(_sent(port, people, kind, turn))
        passed = people if turn != _UNAPPROVED else min(people, THRESHOLD - 1)
        if (said["250"], said["held"]) != (passed, min(people - passed, COPIES + 1)):
            raise SystemExit(f"bench: {kind.name}: {dict(said)}")
        resident, after = used(pid)
        each, cpu = (after - cpu) / people * 1e6, after
        yield [kind.name, f"{people / seconds:,.0f}", f"{each:,.0f}", f"{said['250']:,}", f"{said['held']:,}", f"{said['451']:,}", *fared, resident]  # fmt: skip
