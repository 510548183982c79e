"""Customer lists of millions: time to read, size, and time of a lookup, beside the goals.

Addresses are generated. ``smtpguard lists sync`` reads the list in its own process, as in use. Private memory is that
of a process that only opens an index and looks addresses up. Reading is measured in wall time, with processor time
beside it, since other work on the machine stretches the former. Times of milliseconds are processor time.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.through import table
from smtpguard.config.documents import POLICY as POLICY_FILE
from smtpguard.config.statefiles import swap
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import Index, index_path
from smtpguard.lists.members import CsvMembers
from smtpguard.lists.names import Names
from smtpguard.lists.registry import Registry
from smtpguard.lists.writing import write
from smtpguard.mail.address import Address
from smtpguard.policy.counted import Live
from smtpguard.policy.facts import Count, Facts, Value
from smtpguard.policy.parse import parse

BATCH = 100
KEY = b"k" * 32
POLICY = """\
organization: {name: Example AB, domains: [example.com]}
groups: {communications: [eva@example.com]}
approvals: {from: [communications]}
lists: {large: {addresses: [large@lists.example.com], members: {csv: large.csv, column: email}}}
rules: [{id: r, when: {recipients.list_addresses: any}, then: hold}]
"""


@dataclass(frozen=True)
class Goal:
    """A figure beside its goal. The ratio is above 1 if the goal is reached."""

    what: str
    figure: float
    goal: float
    unit: str
    more: bool = False  # True: higher is better

    @property
    def ratio(self) -> float:
        return self.figure / self.goal if self.more else self.goal / max(self.figure, self.goal / 1000)

    def row(self) -> list[str]:
        sign = "at least" if self.more else "at most"
        return [f"{self.what:<52}", f"{self.figure:,.6g} {self.unit}", f"{sign} {self.goal:,.6g}", f"{self.ratio:.2f}"]


def person(number: int, list_number: int = 0) -> str:
    """An address; one in fifty is spelled so that the fast parser does not take it."""
    if number % 50:
        return f"{_FIRST[number % len(_FIRST)]}.{number:x}@mail{(number * 7919 + list_number) % 5000}.customers.example"
    return f"{_FIRST[number % len(_FIRST)].title()}.O'Neil{number:x}.{list_number}+shop@Customers{number % 97}.Example"


_FIRST = ("anna", "bo", "cecilia", "david", "elin", "fredrik", "gunilla", "hassan", "ingrid", "johan", "karin")


def write_csv(path: Path, people: int) -> None:
    with path.open("w") as file:
        file.write("id,email,name,city\n")
        for start in range(0, people, 10_000):
            file.writelines(f"{n},{person(n)},Customer {n},Lund\n" for n in range(start, min(start + 10_000, people)))


def built(root: Path, people: int) -> tuple[Path, list[Goal]]:
    """Build the index of a list with ``people`` members by the command. Goals are in proportion to ten million."""
    (root / "smtpguard.yaml").write_text("policy: policy.yaml\n")
    (root / "policy.yaml").write_text(POLICY)
    (root / "var").mkdir()
    (root / "var" / "secret").write_bytes(KEY)
    write_csv(root / "large.csv", people)
    began = time.perf_counter()
    argv = [sys.executable, "-m", "smtpguard", "-c", str(root / "smtpguard.yaml"), "lists", "sync", "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    peaks: dict[str, int] = {}
    while not select.select([process.stdout], [], [], 0.1)[0]:
        peaks |= _peaks(process.pid)
    said = json.loads(process.stdout.read())
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    if status or said["people"] != people:
        raise SystemExit(f"bench: {said}")
    (root / "large.csv").unlink()
    path = index_path(root / "var" / "indexes", "large")
    share = people / 10_000_000
    return path, [
        Goal(f"{people:,} addresses from CSV to index", took, 40 * share, "s"),
        Goal("  of the processor's time", used.ru_utime + used.ru_stime, 40 * share, "s"),
        Goal("  memory: the peaks of both processes together", sum(peaks.values()) / 1024, 400, "MB"),
        Goal("  on disk, an address", path.stat().st_size / people, 8.1, "octets"),
    ]


def _peaks(pid: int) -> dict[str, int]:
    """Process name -> peak resident KB, of a process and its children."""
    found = {}
    with suppress(OSError):
        for each in [str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]:
            status = Path(f"/proc/{each}/status").read_text()
            found[each] = int(status.partition("VmHWM:")[2].split()[0])
    return found


def kept_private(path: Path) -> tuple[float, float]:
    """In a process of its own: milliseconds to open the index, and private KB after lookups."""
    code = f"""
import gc, random, time
from pathlib import Path
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import Index
key = Digester({KEY!r}, "+").key_id
def private():
    gc.collect()
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_Dirty"))
random.seed(1)
questions = [random.getrandbits(64) for _ in range(100_000)]
sum(n & 1 for n in questions)
before = private()
began = time.perf_counter()
index = Index(Path({str(path)!r}), key)
opened = time.perf_counter() - began
for number in questions:
    index.has(number)
print(opened * 1000, private() - before)
"""
    opened, private = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    return float(opened), float(private)


def index_of(path: Path, addresses: Iterator[str], digester: Digester) -> Index:
    keys = (digester.plain_key(text) or Address.parse(text).canonical(digester.delimiters) for text in addresses)
    digests = map(digester.of_canonical, keys)
    swap(write(path, digests, key_id=digester.key_id, built_at=datetime.now(UTC), fingerprint=bytes(32)), path)
    return Index(path, digester.key_id)


def registry_of(folder: Path, digester: Digester, lists: int, people: int, now: Callable[[], datetime]) -> Registry:
    """So many lists of so many people each, with an index and an address."""
    infos = {}
    for n in range(lists):
        name = f"list{n}"
        index_of(index_path(folder, name), (person(i, n) for i in range(people)), digester)
        address = Address.parse(f"{name}@lists.example.com")
        infos[name] = ListInfo(name=name, addresses=(address,), members=(CsvMembers(csv="x"),))
    names = Names(infos, domains=["example.com"])
    return Registry(names=names, lists=infos, digester=digester, folder=folder, now=now)


def best(work: Callable[[list[Any]], object], values: list[Any]) -> float:
    """Seconds of processor time a batch, each of other people: the median of the means of five runs."""
    batches, took = [values[start : start + BATCH] for start in range(0, len(values), BATCH)], []
    for _ in range(5):
        gc.collect()
        began = time.process_time()
        for batch in batches:
            work(batch)
        took.append((time.process_time() - began) / len(batches))
    return sorted(took)[2]


def asked(path: Path, people: int) -> Iterator[Goal]:
    """Look up batches in one index; every second address is on the list."""
    digester = Digester(KEY, "+")
    index = Index(path, digester.key_id)
    rng = random.Random(2)
    texts = [person(rng.randrange(people)) if n % 2 else f"nobody{n}@elsewhere.example" for n in range(200 * BATCH)]
    addresses = [Address.parse(text) for text in texts]
    numbers = [int.from_bytes(digester.of(address), "big") for address in addresses]
    assert [index.has(number) for number in numbers] == [bool(n % 2) for n in range(len(numbers))]

    def digests(batch: list[int]) -> None:
        for number in batch:
            index.has(number)

    def whole(batch: list[Address]) -> None:
        for address in batch:
            index.has(int.from_bytes(digester.of(address), "big"))

    yield Goal("membership tests a second, in batches of 100", BATCH / best(digests, numbers), 500_000, "/s", True)
    yield Goal("  with the way from address to digest", BATCH / best(whole, addresses), 500_000, "/s", True)


def twenty(root: Path, people: int, lists: int = 20) -> Iterator[Goal]:
    """Look up a batch of recipients in many lists; half of them are on one list each."""
    digester, rng = Digester(KEY, "+"), random.Random(3)
    registry = registry_of(root / "twenty", digester, lists, people, lambda: datetime.now(UTC))
    texts = [
        person(rng.randrange(people), rng.randrange(lists)) if n % 2 else f"nobody{n}@elsewhere.example"
        for n in range(200 * BATCH)
    ]
    addresses = [Address.parse(text) for text in texts]
    numbers = [int.from_bytes(digester.of(address), "big") for address in addresses]
    naming = registry.members.names_with
    assert all(bool(naming(number)) == bool(n % 2) for n, number in enumerate(numbers))

    def digests(batch: list[int]) -> None:
        for number in batch:
            naming(number)

    what = f"{BATCH} recipients against {lists} lists of {people:,}"
    yield Goal(what, best(digests, numbers) * 1000, 1, "ms")
    yield Goal("  addresses read, classified and counted as well", best(registry.classify, addresses) * 1000, 1, "ms")


def many_rules(root: Path) -> Iterator[Goal]:
    """A verdict under ten rules and ten lists, and under a thousand rules and five hundred lists, each message with
    another sender and list: classifying the recipients, the rules, and the check of the lists' state, which runs
    once a second."""
    few, many = (_verdicts(root / f"rules{rules}", rules, lists) for rules, lists in ((10, 10), (1000, 500)))
    yield Goal("a verdict by 10 rules and 10 lists", few[0] * 1000, 1, "ms")
    yield Goal("  by 1,000 rules and 500 lists, how much more", (many[0] - few[0]) * 1000, 1, "ms")
    yield Goal("  where the lists are looked at as well, how much more", (many[1] - few[1]) * 1000, 1, "ms")


def _verdicts(folder: Path, rules: int, lists: int) -> tuple[float, float]:
    """Median seconds of processor time of a verdict, without and with the check of the lists' state."""
    names = [f"list{n}" for n in range(lists)]
    documents = {
        "organization": {"name": "Example AB", "domains": ["example.com"]},
        "groups": {"communications": ["eva@example.com"]},
        "approvals": {"from": ["communications"]},
        "lists": {name: {"addresses": [f"{name}@lists.example.com"]} for name in names},
        "rules": [
            {
                "id": f"r{n}",
                "when": {"message.looks": ["internal", "unclear"], "recipients.lists": [names[n % lists]], "mailing.customers": f">= {20 + n}"},
                "unless": {"sender.address": f"somebody{n}@example.com"},
                "then": "hold",
            }
            for n in range(rules)
        ],
    }  # fmt: skip
    rule_set = parse({POLICY_FILE: json.dumps(documents).encode()}).rules
    now = [datetime.now(UTC)]
    registry = registry_of(folder, Digester(KEY, "+"), lists, 200, lambda: now[0])

    def verdict(n: int) -> float:
        recipient = Address.parse(person(n % 200, n % lists))
        began = time.process_time()
        found = registry.classify([recipient])
        values: dict[str, Value] = {
            "message.looks": "unclear",
            "recipients.customers": Count._make(found.customers),
            "recipients.lists": found.lists,
            "sender.address": f"somebody{n % 7}@example.com",
        }
        plan = rule_set.plan(Facts(values=values, lists=found.lists))
        plan.close(Live(now=now[0], counts=dict.fromkeys(plan.asks, 1)))
        return time.process_time() - began

    alone = sorted(verdict(n) for n in range(600))[300]
    looks = []
    for n in range(100):
        now[0] += timedelta(seconds=2)
        looks.append(verdict(n))
    return alone, sorted(looks)[50]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench --lists", description=__doc__)
    parser.add_argument("--people", type=int, default=10_000_000, help="on the large list")
    parser.add_argument("--each", type=int, default=1_000_000, help="on each of twenty lists")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-lists-", dir="/var/tmp") as name:
        root = Path(name)
        print(f"python -m bench --lists {' '.join(argv)}".rstrip())
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; a ratio above 1 is a goal reached\n")

        def rows() -> Iterator[list[str]]:
            path, goals = built(root, args.people)
            yield from (goal.row() for goal in goals)
            opened, private = kept_private(path)
            small = index_of(root / "small.index", (person(n) for n in range(args.people // 100)), Digester(KEY, "+"))
            yield Goal("opening", opened, 10, "ms").row()
            yield Goal("  what a process keeps to itself, asked 100,000 times", private, 1024, "KB").row()
            yield Goal(f"  the same of {small.people:,}", kept_private(root / "small.index")[1], 1024, "KB").row()
            yield from (goal.row() for goal in asked(path, args.people))
            yield from (goal.row() for goal in twenty(root, args.each))
            yield from (goal.row() for goal in many_rules(root))

        table([" " * 52, "measured".ljust(22), "goal".ljust(18), "ratio".ljust(8)], rows())
