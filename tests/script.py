"""Scripted answers of a test relay, by points of a session. Without a rule, the relay accepts.

    script.on("RCPT TO:<bob@", "550 5.1.1 No such user")     # by the beginning of a command, in any case
    script.on("MAIL", "451 4.3.0 Later", times=1)            # once, then as usual
    script.on(DOT, DROP)                                     # take the content, then drop the connection

Steps: str (a reply; \\n separates its lines), bytes (sent as they are), DROP (FIN), RESET (RST), STALL (silence until
``resume()``), or a list of these. Points: the beginning of a command, CONNECT, DOT, BLOCK (each piece of content before
the dot), and CHUNK (each BDAT chunk before the last, which is DOT).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

CONNECT = "<connect>"
DOT = "<dot>"
CHUNK = "<chunk>"
BLOCK = "<block>"


class _Silent:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


DROP = _Silent("DROP")
RESET = _Silent("RESET")
STALL = _Silent("STALL")

Step = str | bytes | _Silent
Answer = Step | Sequence[Step]


@dataclass
class _Rule:
    point: str
    answer: Answer
    left: float


class Script:
    def __init__(self) -> None:
        self._rules: list[_Rule] = []
        self._resumed = asyncio.Event()

    def on(self, point: str, answer: Answer, *, times: float = float("inf")) -> None:
        """Add a rule. The newest rule that matches wins."""
        if STALL in _steps(answer):
            self._resumed.clear()
        self._rules.insert(0, _Rule(point, answer, times))

    def forget(self) -> None:
        """Remove all rules."""
        self._rules.clear()

    def resume(self) -> None:
        """End every STALL, those to come included, until a new rule has a STALL."""
        self._resumed.set()

    async def resumed(self) -> None:
        await self._resumed.wait()

    def answer(self, point: str, usual: str) -> list[Step]:
        """The steps of the newest rule that matches, or the usual reply. A rule with ``times`` is used up by it."""
        for rule in self._rules:
            if rule.left > 0 and point.upper().startswith(rule.point.upper()):
                rule.left -= 1
                return _steps(rule.answer)
        return [usual]


def _steps(answer: Answer) -> list[Step]:
    return [answer] if isinstance(answer, str | bytes | _Silent) else list(answer)


def wire(step: str | bytes) -> bytes:
    """Encode a reply with line ends; the code may be on each line or only on the first. Bytes stay as they are."""
    if isinstance(step, bytes):
        return step
    if not step:
        return b""
    lines = step.split("\n")
    code = lines[0][:3]
    texts = [line.removeprefix(code)[1:] if line.startswith(code) else line for line in lines]
    return b"".join(f"{code}{' ' if i == len(texts) - 1 else '-'}{text}\r\n".encode() for i, text in enumerate(texts))
