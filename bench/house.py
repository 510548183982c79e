"""Figures of the code: its size, its terms, and the calls that a plain message takes from the final dot to its 250.

Distinct messages to one person on no list go through the real proxy part in this process. It has the sample policy, a
SQLite store and a relay that takes everything. Every call of a Python function, of smtpguard and of others, is counted
in the event loop's thread and in the thread that writes. The client and the relay are left out.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import smtpguard
from bench.onthewire import Wire
from bench.sink import Sink
from bench.through import guard_settings
from smtpguard.app.proxy import Proxy
from smtpguard.app.start import prepare
from smtpguard.config.settings import read_settings
from smtpguard.observe import log

_HOUSE = Path(smtpguard.__file__).parent
_ROOT = _HOUSE.parent
_WARM = 20


def sizes(root: Path) -> Iterator[tuple[str, str]]:
    files = sorted(root.rglob("*.py"))
    lines = {file: file.read_text().count("\n") for file in files}
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    classes = sum(isinstance(node, ast.ClassDef) for node in nodes)
    longest = max(lines, key=lambda file: lines[file])
    yield "lines", f"{sum(lines.values()):,}"
    yield "files", f"{len(files)}, of {statistics.median(lines.values()):.0f} lines at the median"
    yield "longest file", f"{longest.relative_to(root)}, {lines[longest]} lines"
    yield "classes", str(classes)


def words() -> tuple[str, str]:
    """A label, and the number of terms in the glossary."""
    rows = re.findall(r"^\| (?!Word |-)", (_ROOT / "docs" / "glossary.md").read_text(), re.M)
    return "words of the glossary", str(len(rows))


class _Calls:
    """A profile function (sys.setprofile), and the calls that it counted."""

    def __init__(self) -> None:
        self.ours = self.all = 0
        self.files: list[str] = []
        self.types: set[str] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        file = frame.f_code.co_filename
        if "/bench/" in file:
            return
        self.all += 1
        if not file.startswith(str(_HOUSE)):
            return
        self.ours += 1
        if not self.files or self.files[-1] != file:
            self.files.append(file)
        owner = frame.f_locals.get("self")
        if owner is not None and type(owner).__module__.startswith("smtpguard"):
            self.types.add(type(owner).__qualname__)


async def _counted(root: Path) -> tuple[_Calls, _Calls]:
    """The calls of the event loop's thread and of the writer's."""
    loop, writing = _Calls(), _Calls()
    async with AsyncExitStack() as undo:
        sink = Sink()
        await sink.start(undo)
        file = guard_settings(root, 1, sink.port, 1)
        settings = read_settings(file)
        await prepare(settings, by="bench", parts=("proxy",))
        part = Proxy(settings)
        await part.start()
        undo.push_async_callback(part.close)
        serving = asyncio.create_task(part.serve())
        undo.callback(serving.cancel)
        wire = Wire(part, sink)
        undo.callback(wire.close)

        async def send(n: int) -> None:
            raw = _MESSAGE.format(n=n).replace("\n", "\r\n").encode()
            answer = await wire.send("192.0.2.7", "anna@example.com", ("bo@example.org",), raw)
            if answer.what != "relayed":
                raise SystemExit(f"bench: {answer.reply}")

        for n in range(_WARM):
            await send(n)
        store = part.line.store
        await store.write(lambda batch: sys.setprofile(writing))
        wire.at_the_dot = lambda: sys.setprofile(loop)
        try:
            await send(_WARM)
        finally:
            sys.setprofile(None)
            await store.write(lambda batch: sys.setprofile(None))
    return loop, writing


_MESSAGE = """\
From: Anna Andersson <anna@example.com>
To: bo@example.org
Subject: The offer we talked about, {n}
Date: Mon, 2 Mar 2026 10:11:12 +0100
Message-ID: <bench-{n}@example.com>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Please find below what we agreed on yesterday, with the figures for each month.
"""


def main(argv: list[str]) -> None:
    argparse.ArgumentParser(prog="python -m bench --house", description=__doc__).parse_args(argv)
    for name, figure in (*sizes(_HOUSE), words()):
        print(f"{name:24} {figure}")
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder, Path(os.devnull).open("w") as nowhere:
        log.configure("json", stream=nowhere)
        loop, writing = asyncio.run(_counted(Path(folder)))
    print("from the final dot to 250, of a plain message:")
    for name, seen in (("in the event loop", loop), ("in the writer", writing)):
        back = len(seen.files) - len(set(seen.files))
        print(
            f"  {name:22} {seen.ours} calls of ours of {seen.all}, in {len(set(seen.files))} files (gone back to {back} times), "
            f"of {len(seen.types)} types"
        )
