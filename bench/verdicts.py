"""``python -m bench.verdicts FOLDER...``: compare the verdicts of proxy and milter on every message in the folders.

Two whole guards in this process, with the tests' lists and the sample policy, get the same mail in the same order: one
over SMTP, the other from a scripted MTA of the tests. Mail that a client cannot send as it is (bare line ends, no
header) is counted separately.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import structlog

from tests.catalogue.proxyandmilter import ProxyAndMilter, envelopes, proxy_and_milter
from tests.wire.milter.mta import split


def messages(folders: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    """Each file that begins like a message, complete, with CRLF line ends."""
    for folder in folders:
        for path in sorted(p for p in ([folder] if folder.is_file() else folder.rglob("*")) if p.is_file()):
            raw = path.read_bytes()
            if raw[:5] == b"From ":
                raw = raw.partition(b"\n")[2]
            content = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            fields, _ = split(content)
            if fields:
                yield path, content if content.endswith(b"\r\n") else content + b"\r\n"


def exact(content: bytes) -> bool:
    """Whether an MTA passes it on as the client sent it: an MTA drops a header with NUL, and header lines that are no
    field."""
    fields, body = split(content)
    if any(b"\0" in name + value for name, value in fields):
        return False
    head = b"".join(name + b":" + value.replace(b"\n", b"\r\n") + b"\r\n" for name, value in fields)
    return head + b"\r\n" + body == content


async def compare(folders: Sequence[Path], most: int) -> int:
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="verdicts-") as name, pytest.MonkeyPatch.context() as patch:
        async with proxy_and_milter(Path(name), patch) as guards:
            ways = itertools.cycle(envelopes())
            for path, content in itertools.islice(messages(folders), most):
                found[await _one(guards, path, content, next(ways))] += 1
    print(", ".join(f"{count} {what}" for what, count in sorted(found.items())))
    return 1 if found["differ"] else 0


async def _one(guards: ProxyAndMilter, path: Path, content: bytes, to: Sequence[str]) -> str:
    if not exact(content):
        return "not as an MTA has it"
    by_proxy, by_milter = await guards.send(content, *to)
    if by_proxy == by_milter:
        return f"the same: {by_proxy.action}"
    print(f"{path}: {by_proxy} is not {by_milter}", file=sys.stderr)
    return "differ"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.verdicts", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=1_000_000)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # log lines would show senders and subjects
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sys.exit(asyncio.run(compare(args.folders, args.most)))


if __name__ == "__main__":
    main()
