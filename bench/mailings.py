"""``python -m bench --mailings [FOLDER]``: which copies count as one mailing, and at what cost.

Copies of each template are made, read, fingerprinted and filed as the store files them: by the few smallest numbers of
their sketch. Counts copies that were *split* (not in the largest mailing of their template) and *merged* (in a mailing
that another template founded). Then it measures what an approval covers (covers).

FOLDER holds real mail, in which hardly two messages are of one mailing. It prints how many joined an earlier one. It
names those that did so under another subject, with the share of equal words in equal order, for a person to check. It
prints no content.
"""

from __future__ import annotations

import argparse
import difflib
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.campaigns import Person, Template, templates
from bench.covers import lines
from bench.reading import content_of
from smtpguard.mail.message import Message
from smtpguard.reading.copies import identity_of
from smtpguard.reading.fingerprint import KEYS, Identity, Sketch, apart
from smtpguard.reading.read import read
from smtpguard.reading.request import Bounds, Meter
from smtpguard.reading.text import Text, extract

ALIKE = 2 / 3
MOST_TRUE = 1_000
"""Copies of each template that are tried on an approval."""
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(slots=True)
class OpenIndexes:
    """Mailings by their search keys, as a table with an index."""

    exact: dict[str, int] = field(default_factory=dict)
    sketches: list[Sketch] = field(default_factory=list)
    by_key: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def file(self, identity: Identity) -> tuple[int, bool]:
        """The mailing's number, and whether it is new."""
        if identity.exact in self.exact:
            return self.exact[identity.exact], False
        candidates = {n for key in identity.sketch.keys for n in self.by_key.get(key, ())}
        near = [(round(far, 1), n) for n in candidates if (far := apart(self.sketches[n], identity.sketch)) is not None]
        if near:
            return min(near)[1], False
        n = len(self.sketches)
        self.sketches.append(identity.sketch)
        if identity.exact:
            self.exact[identity.exact] = n
        for key in identity.sketch.keys:
            self.by_key[key].append(n)
        return n, True


@dataclass(slots=True)
class Cost:
    """Seconds of this process, by step."""

    reading: float = 0.0
    fingerprints: float = 0.0
    filing: float = 0.0
    messages: int = 0
    octets: int = 0

    def said(self) -> str:
        each = 1e6 / max(1, self.messages)
        return (
            f"a message of {self.octets / max(1, self.messages) / 1024:.1f} KB: {self.reading * each:.0f} us to take its text, "
            f"{self.fingerprints * each:.0f} us for its fingerprint, {self.filing * each:.1f} us to find its mailing"
        )


def main(argv: Sequence[str]) -> None:
    options = argparse.ArgumentParser(prog="python -m bench --mailings", description=__doc__)
    options.add_argument("folder", nargs="?", type=Path, help="a folder of real mail, *.eml")
    options.add_argument("--copies", type=int, default=10_000, help="of each template (10000)")
    options.add_argument("--waiting", type=int, default=500, help="copies that wait when it is approved (500)")
    options.add_argument(
        "--altered", type=int, default=10_000, help="altered copies, of all templates together (10000)"
    )
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args(argv)
    made_up(templates(chosen.seed), chosen.copies, chosen.seed)
    for line in lines(
        templates(chosen.seed), min(chosen.copies, MOST_TRUE), chosen.seed, chosen.waiting, chosen.altered
    ):
        print(line)
    if chosen.folder is not None:
        real(chosen.folder)


def made_up(all_of_them: Sequence[Template], copies: int, seed: int) -> tuple[int, int]:
    """How many copies were split from their mailing, and how many were merged into another."""
    shelf, cost = OpenIndexes(), Cost()
    founder: dict[int, str] = {}
    split = merged = total = 0
    missed: Counter[int] = Counter()
    for template in all_of_them:
        draw = random.Random(f"{seed} {template.name}")
        filed: Counter[int] = Counter()
        first: Sketch | None = None
        for _ in range(copies):
            identity = _identity(Message.of(template.copy(Person.drawn(draw), draw)), cost)
            first = first or identity.sketch
            for size in range(1, KEYS + 1):
                missed[size] += set(first.keys[:size]).isdisjoint(identity.sketch.keys[:size])
            started = time.process_time()
            n, new = shelf.file(identity)
            cost.filing += time.process_time() - started
            if new:
                founder[n] = template.name
            filed[n] += 1
        apart = copies - max(filed.values())
        foreign = sum(count for n, count in filed.items() if founder[n] != template.name)
        if apart or foreign:
            print(f"  {template.name}: {len(filed)} mailings, {apart} split, {foreign} merged")
        split, merged, total = split + apart, merged + foreign, total + copies
    print(
        f"{len(all_of_them)} templates, {copies} copies each: {100 * split / total:.3f} % split, {100 * merged / total:.3f} % merged"
    )
    print(f"  {cost.said()}")
    print("  copies that share none of so many keys with the first: "
          + ", ".join(f"{size}: {100 * missed[size] / total:.3f} %" for size in range(1, KEYS + 1)))  # fmt: skip
    return split, merged


def _identity(message: Message, cost: Cost) -> Identity:
    begun = time.process_time()
    text = _text(message)
    between = time.process_time()
    identity, _ = identity_of(text, "", message.header.get("Message-ID") or "")
    cost.fingerprints += time.process_time() - between
    cost.reading += between - begun
    cost.messages += 1
    cost.octets += message.size_bytes
    return identity


def _text(message: Message) -> Text:
    start = message.raw.find(b"\r\n\r\n") + 4
    return extract(message.raw, message.header.named, start, Meter(Bounds()))


def real(folder: Path) -> None:
    """Each message is its own mailing, unless it was sent several times. So joins are few, and each needs an
    explanation."""
    shelf = OpenIndexes()
    first: dict[int, tuple[Path, str, str]] = {}
    seen = sketched = again = alike = 0
    strange: list[tuple[Path, Path]] = []
    for path in sorted(folder.rglob("*.eml")):
        reading = read(Message.of(content_of(path)))
        n, new = shelf.file(reading.identity)
        seen += 1
        sketched += bool(reading.identity.sketch)
        subject = " ".join(_LETTERS.findall(reading.subject.lower()))
        if new:
            first[n] = (path, subject, reading.message_id)
        elif (
            reading.identity.exact or reading.message_id == first[n][2] or reading.identity.sketch == shelf.sketches[n]
        ):
            again += 1
        elif subject == first[n][1]:
            alike += 1
        else:
            strange.append((first[n][0], path))
    print(
        f"{folder}: {seen} messages, {sketched} with a sketch; {again} came again, {alike} joined one of the same subject,"
    )
    print(f"  {len(strange)} ({100 * len(strange) / max(1, seen):.2f} %) one of another subject:")
    pairs = [(_alike(one, other), one, other) for one, other in strange]
    for share, one, other in pairs:
        print(f"    {one.relative_to(folder)} <- {other.relative_to(folder)}: {share:.2f} alike")
    merged = sum(share < ALIKE for share, _, _ in pairs)
    print(f"  {merged} ({100 * merged / max(1, seen):.2f} %) with less than two thirds alike: merged")


def _alike(one: Path, other: Path) -> float:
    """The share of words that both have in the same order."""
    words: list[list[str]] = [
        _LETTERS.findall(_text(Message.of(content_of(path))).shown.lower()) for path in (one, other)
    ]
    return difflib.SequenceMatcher(None, words[0], words[1], autojunk=False).ratio()


if __name__ == "__main__":
    main(sys.argv[1:])
