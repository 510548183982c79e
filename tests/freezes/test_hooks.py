"""Running hooks: the problem of each that fails, its output, and what it leaves running."""

from __future__ import annotations

import asyncio
import gc
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smtpguard.freezes.service import LAST_CHARACTERS, Hook, run
from smtpguard.policy.freezing import Freeze, Selector

FREEZE = Freeze(
    freeze_id="F", selector=Selector.ALL, value="", reason="x", by="root", at=datetime(2026, 3, 2, tzinfo=UTC)
)


async def shell(script: str, seconds: float = 30) -> Hook:
    return await run(("/bin/sh", "-c", script), "freeze", FREEZE, "root", seconds=seconds)


async def python(code: str) -> Hook:
    return await run((sys.executable, "-c", code), "freeze", FREEZE, "root", seconds=30)


async def test_the_last_line_of_standard_error_is_reported() -> None:
    hook = await shell(
        "echo on out; echo first >&2; echo 'fatal: open main.cf: Permission denied' >&2; echo >&2; exit 1"
    )
    assert hook.problem == "it ended with status 1: fatal: open main.cf: Permission denied"


@pytest.mark.parametrize("said", ["true", "echo a warning >&2"])
async def test_output_of_a_successful_hook_is_not_reported(said: str) -> None:
    assert (await shell(said)).problem is None


async def test_a_failing_hook_without_output_is_reported_by_status() -> None:
    assert (await shell("exit 7")).problem == "it ended with status 7"


async def test_control_characters_and_invalid_octets_are_removed() -> None:
    hook = await python(r"import os; os.write(2, b'a\x1b[31m\xff\xe2\x80\xaeb\n'); raise SystemExit(1)")
    assert hook.said.isprintable() or "\N{REPLACEMENT CHARACTER}" in hook.said
    assert not set("\x1b\u202e") & set(hook.said)
    assert hook.said.startswith("a")


async def test_the_reported_output_is_bounded() -> None:
    hook = await python("import sys; sys.stderr.write('x' * 5_000_000 + 'END\\n'); sys.exit(1)")
    assert hook.said.startswith("xxx")
    assert len(hook.said) == LAST_CHARACTERS + 3


async def test_a_hook_that_takes_too_long_is_killed() -> None:
    hook = await shell("echo waiting for the queue >&2; exec sleep 600", seconds=0.5)
    assert hook.problem == "it took longer than 0.5 s and was killed: waiting for the queue"


async def test_a_hook_that_cannot_be_started_is_reported() -> None:
    hook = await run(("/nonexistent",), "freeze", FREEZE, "root", seconds=5)
    assert hook.problem == "it could not be started: No such file or directory"


async def test_background_processes_of_a_hook_are_not_waited_for() -> None:
    async with asyncio.timeout(120):
        hook = await shell("sleep 30 & echo gone >&2; exit 1")
    assert hook.said == "gone"


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_file_descriptor_stays_open() -> None:
    await shell("true")  # opens what asyncio keeps
    gc.collect()  # closes what earlier tests left open, before the first count
    before = opened()
    await asyncio.gather(*(shell("echo x >&2; exit 1") for _ in range(5)), run(("/no",), "thaw", FREEZE, "", seconds=1))
    assert opened() == before
