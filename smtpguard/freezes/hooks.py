"""Run the commands of a freeze and a thaw: without a shell, with the event in their environment, and report their
failures."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smtpguard.locale.phrase import N_
from smtpguard.policy.freezing import Freeze

LAST_OCTETS = 4096  # of standard error, kept while the command runs
LAST_CHARACTERS = 300  # of its last line, for people
_READS = 64  # covers what a full pipe can still hold when the command has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """The result of a command that holds other mail queues. ``failed``: "" for exit status 0, else a key of FAILURES,
    whose text takes ``value``. ``said``: the last line of its standard error, bounded and printable."""

    argv: tuple[str, ...]
    failed: str = ""
    value: str = ""
    said: str = ""

    @property
    def problem(self) -> str | None:
        """None for exit status 0."""
        if not self.failed:
            return None
        words = FAILURES[self.failed].format(value=self.value)
        return f"{words}: {self.said}" if self.said else words


FAILURES: Mapping[str, str] = {
    "start": N_("it could not be started: {value}"),
    "time": N_("it took longer than {value} s and was killed"),
    "status": N_("it ended with status {value}"),
}


async def run(argv: Sequence[str], action: str, freeze: Freeze, by: str, *, seconds: float) -> Hook:
    """Run one command, and kill it after ``seconds``."""
    argv = tuple(argv)
    error = _LastLine()
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
            return Hook(argv=argv, failed="start", value=str(getattr(e, "strerror", None) or e))
        finally:
            error.begin()
        try:
            async with asyncio.timeout(seconds):
                status = await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            return Hook(argv=argv, failed="time", value=f"{seconds:g}", said=error.text())
        return (
            Hook(argv=argv) if status == 0 else Hook(argv=argv, failed="status", value=str(status), said=error.text())
        )
    finally:
        error.close()


class _LastLine:
    """Read a pipe and keep its end. Not a pipe of asyncio's: with that, wait() would wait for every process that
    inherited it."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._kept = b""

    def begin(self) -> None:
        """Call when the command has its end of the pipe."""
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
