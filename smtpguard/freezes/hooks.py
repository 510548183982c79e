"""Run the commands of a freeze or a thaw: without a shell, with the event in their environment, for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smtpguard.locale.phrase import Phrase
from smtpguard.policy.freezing import Freeze

LAST_OCTETS = 4096
"""How much of the end of standard error is kept."""
LAST_CHARACTERS = 300
"""How much of its last line people see."""
_READS = 64  # enough for a full pipe, when the command has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """The result of a command. ``program``: its first word; the others may hold a secret. ``failed``: why it failed, None for exit
    status 0. ``said``: the last line of its standard error, bounded and printable."""

    program: str
    failed: Phrase | None = None
    said: str = ""

    @property
    def problem(self) -> str | None:
        """What went wrong, None for exit status 0."""
        return f"{self.failed}: {self.said}" if self.failed is not None and self.said else self.failed


async def run(argv: Sequence[str], action: str, freeze: Freeze, by: str, *, seconds: float) -> Hook:
    """Run a command, and kill it after ``seconds``."""
    program, error = argv[0], _LastLine()
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=error.theirs,
                env=_environment(action, freeze, by),
                start_new_session=True,
            )
        except (OSError, ValueError) as e:
            why = str(getattr(e, "strerror", None) or e)
            return Hook(program=program, failed=Phrase("it could not be started: {value}", value=why))
        finally:
            error.begin()
        try:
            async with asyncio.timeout(seconds):
                status = await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            late = Phrase("it took longer than {value} s and was killed", value=f"{seconds:g}")
            return Hook(program=program, failed=late, said=error.text())
        if status == 0:
            return Hook(program=program)
        return Hook(
            program=program, failed=Phrase("it ended with status {value}", value=str(status)), said=error.text()
        )
    finally:
        error.close()


class _LastLine:
    """The last line that a command writes into a pipe. It is no pipe of asyncio's: with that, wait() would wait for every process
    that inherited it."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._kept = b""

    def begin(self) -> None:
        """Begin to read. Call it when the command has its end of the pipe."""
        os.close(self.theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def _read(self) -> bool:
        try:
            some = os.read(self._ours, 65536)
        except BlockingIOError:
            return False
        self._kept = (self._kept + some)[-LAST_OCTETS:]
        if not some:
            asyncio.get_running_loop().remove_reader(self._ours)
        return bool(some)

    def text(self) -> str:
        for _ in range(_READS):
            if not self._read():
                break
        lines = [line for line in self._kept.decode(errors="replace").splitlines() if line.strip()]
        last = lines[-1].strip() if lines else ""
        clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in last)
        return clean if len(clean) <= LAST_CHARACTERS else f"{clean[:LAST_CHARACTERS]}..."

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)


def _environment(action: str, freeze: Freeze, by: str) -> Mapping[str, str]:
    said = {"ACTION": action, "ID": freeze.freeze_id, "SELECTOR": freeze.selector.value, "VALUE": freeze.value,
            "REASON": freeze.reason, "BY": by}  # fmt: skip
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        **{f"SMTPGUARD_{name}": value.replace("\0", "") for name, value in said.items()},
    }
