"""``python -m bench.reading FOLDER LABELS``: the production reader over a folder of labelled mail.

LABELS has lines of ``path<TAB>label``; the set is the first folder of the path. Prints, by label and by set, the shares
read as internal, unclear and mailing; the confusion table; the most frequent marks; the slowest messages; the misread
files.

``--hold-out`` and a seed set a part aside. It is counted separately and its files are never named, so that one can tune
on the rest. No content is printed. Each message is read twice, once for the time and once for the memory that Python
allocates; the HTML parser's memory shows in the peak of the process. Two runs print the same, except for times and
memory. The vocabularies of the product are in use, as in production.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import statistics
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smtpguard.config.documents import VOCABULARIES, shipped
from smtpguard.config.yaml import load_yaml
from smtpguard.mail.message import Message
from smtpguard.reading.looks import Looks, Readable, Reading
from smtpguard.reading.read import read
from smtpguard.reading.request import Surroundings
from smtpguard.reading.topics import Vocabularies, compile_vocabularies

# The right reading of a label. Other labels have none.
EXPECTED = {"internal": Looks.INTERNAL, "reply": Looks.INTERNAL, "bulk": Looks.MAILING}
FORBIDDEN = {"internal": Looks.MAILING, "reply": Looks.MAILING, "list": Looks.MAILING, "bulk": Looks.INTERNAL}
LIMIT_MS = 250.0
LIMIT_MB = 50.0


@dataclass(frozen=True, slots=True)
class Case:
    path: str
    label: str
    held_out: bool
    reading: Reading
    milliseconds: float
    size_bytes: int
    unsubscribe: bool
    bulk_header: bool
    raised: str
    megabytes: float


def content_of(path: Path) -> bytes:
    """The file as SMTP would carry it: with CRLF line ends, and without the mbox separator."""
    raw = path.read_bytes().replace(b"\r\n", b"\n")
    if raw.startswith(b"From "):
        raw = raw.partition(b"\n")[2]
    return raw.replace(b"\n", b"\r\n")


def measure(folder: Path, labels: Path, share: float, seed: int, domains: Sequence[str]) -> list[Case]:
    rows = sorted(tuple(line.split("\t", 1)) for line in labels.read_text().splitlines() if "\t" in line)
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    held_out = {path for path, _ in shuffled[: int(len(shuffled) * share)]}
    around = Surroundings(domains=frozenset(domains), vocabularies=vocabularies())
    cases = []
    for path, label in rows:
        message = Message.of(content_of(folder / path))
        gc.collect(0)
        started = time.process_time()
        reading, raised = tried(message, around)
        spent = (time.process_time() - started) * 1000
        header = message.header
        bulk = any(n in header for n in ("list-unsubscribe", "list-id", "precedence", "feedback-id", "list-post"))
        cases.append(
            Case(
                path,
                label,
                path in held_out,
                reading,
                spent,
                len(message.raw),
                "list-unsubscribe" in header,
                bulk,
                raised,
                0.0,
            )
        )
    tracemalloc.start()
    weighed = []
    for case in cases:
        message = Message.of(content_of(folder / case.path))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        tried(message, around)
        weighed.append(replace(case, megabytes=(tracemalloc.get_traced_memory()[1] - before) / (1 << 20)))
    tracemalloc.stop()
    return weighed


def vocabularies() -> Vocabularies:
    files = sorted((shipped() / VOCABULARIES).glob("*.yaml"))
    return compile_vocabularies({f.stem: load_yaml(f.read_bytes(), f.name).value for f in files})


def tried(message: Message, around: Surroundings) -> tuple[Reading, str]:
    """The reading, and the name of the exception that it raised, which is a bug."""
    try:
        return read(message, around), ""
    except Exception as error:
        return Reading(looks=Looks.UNCLEAR, score=0, marks=(), readable=Readable.UNREADABLE), type(error).__name__


def shares(cases: Iterable[Case]) -> str:
    counted = Counter(c.reading.looks for c in cases)
    total = sum(counted.values()) or 1
    return "  ".join(f"{looks.value} {counted[looks]:5d} ({100 * counted[looks] / total:5.1f} %)" for looks in Looks)


def report(cases: list[Case], *, names: bool) -> None:
    by_label: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_label[case.label].append(case)
    print("\nPer label")
    for label, those in sorted(by_label.items()):
        print(f"  {label:10}{len(those):6}  {shares(those)}")
    print("\nPer set and label")
    by_set: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        by_set[case.path.split("/")[0], case.label].append(case)
    for (name, label), those in sorted(by_set.items()):
        print(f"  {name:18}{label:10}{len(those):6}  {shares(those)}")
    print("\nConfusion: labelled (down), read as (across)")
    print("  " + " " * 10 + "".join(f"{looks.value:>10}" for looks in Looks) + "  unreadable  too complex")
    for label, those in sorted(by_label.items()):
        counted = Counter(c.reading.looks for c in those)
        readable = Counter(c.reading.readable for c in those)
        row = "".join(f"{counted[looks]:10d}" for looks in Looks)
        print(f"  {label:10}{row}  {readable[Readable.UNREADABLE]:10d}  {readable[Readable.TOO_COMPLEX]:11d}")
    goals(cases)
    print("\nMost frequent marks")
    for label, those in sorted(by_label.items()):
        marks = Counter(name for c in those for name in {m.name for m in c.reading.marks})
        ranked = sorted(marks.items(), key=lambda each: (-each[1], each[0]))
        print(f"  {label}: " + ", ".join(f"{name} {100 * n // len(those)} %" for name, n in ranked[:14]))
    if names:
        print("\nSlowest")
        for case in sorted(cases, key=lambda c: -c.milliseconds)[:8]:
            print(f"  {case.milliseconds:7.1f} ms  {case.size_bytes >> 10:6} KiB  {case.path}")
        print("\nMisreadings (the forbidden ones first, then the unclear)")
        for case in sorted(cases, key=lambda c: (c.reading.looks is Looks.UNCLEAR, c.label, c.path)):
            wanted = EXPECTED.get(case.label)
            wrong = case.reading.looks is FORBIDDEN.get(case.label) or (wanted and case.reading.looks is not wanted)
            if wrong:
                print(f"  {case.label:9} read as {case.reading.looks.value:9}{case.reading.score:7.2f}  {case.path}")


def goals(cases: list[Case]) -> None:
    print("\nGoals")

    def line(text: str, those: list[Case], looks: Looks) -> None:
        n = sum(1 for c in those if c.reading.looks is looks)
        print(f"  {text:66}{n:5d} of {len(those):5d} ({100 * n / max(1, len(those)):6.2f} %)")

    bulk = [c for c in cases if c.label == "bulk"]
    line("internal read as mailing (at most 0.1 %)", [c for c in cases if c.label == "internal"], Looks.MAILING)
    line("mailings with List-Unsubscribe read as mailing (99 %)", [c for c in bulk if c.unsubscribe], Looks.MAILING)
    line(
        "mailings without a bulk header read as internal (at most 10 %)",
        [c for c in bulk if not c.bulk_header],
        Looks.INTERNAL,
    )
    line("people's posts on lists read as mailing (none)", [c for c in cases if c.label == "list"], Looks.MAILING)
    for those, whose in (([c for c in cases if c.label == "nasty"], "nasty"), (cases, "all")):
        if not those:
            continue
        raised = sum(1 for c in those if c.raised)
        slow = sum(1 for c in those if c.milliseconds > LIMIT_MS)
        large = sum(1 for c in those if c.megabytes > LIMIT_MB)
        print(f"  {whose}, {len(those)}: {raised} raise; {slow} take more than {LIMIT_MS:.0f} ms (slowest {max(c.milliseconds for c in those):.1f}); "
              f"{large} take more than {LIMIT_MB:.0f} MB (largest {max(c.megabytes for c in those):.1f})")  # fmt: skip
    ordinary = [c.milliseconds for c in cases if 5_000 <= c.size_bytes <= 15_000]
    if ordinary:
        print(
            f"  processor time of messages of 5 to 15 KB: median {statistics.median(ordinary):.2f} ms, mean {statistics.mean(ordinary):.2f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.reading", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--hold-out", type=float, default=0.5, help="the share that is held out (0 to 1)")
    parser.add_argument("--seed", type=int, default=20260101)
    parser.add_argument("--domain", action="append", default=[], help="a domain of the organization's own")
    chosen = parser.parse_args()
    cases = measure(chosen.folder, chosen.labels, chosen.hold_out, chosen.seed, chosen.domain)
    for held_out in (False, True):
        those = [c for c in cases if c.held_out is held_out]
        if those:
            print(f"\n=== {'Held out' if held_out else 'Tuned on'}: {len(those)} messages")
            report(those, names=not held_out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"\nPeak memory of the process: {peak} MB")


if __name__ == "__main__":
    main()
