"""Two whole guards that get the same messages, one over SMTP and one as a milter. Each has its own store, so neither
knows what the other has seen."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from smtpguard.journal.event import Kind
from smtpguard.mail.reply import Reply
from smtpguard.policy import engine
from smtpguard.wire.milterpackets import Discard, SmtpReply
from tests.catalogue.wholeguard import ANNA, MEMBERS, RAMADAN, READERS, WholeGuard, whole_guard
from tests.wire.milter.mta import MtaResult
from tests.wire.milter.speaking import Speaking, connected

COMPARED = (
    "action",
    "rules",
    "observed",
    "reasons",
    "unknown",
    "counts",
    "lists",
    "looks",
    "size_bytes",
    "content",
    "streams",
)


@dataclass(frozen=True)
class Outcome:
    """``action``: relay, hold or a reply code, as seen on the wire. ``verdict``: the compared keys of its journal
    entry."""

    action: str
    verdict: dict[str, Any]


@dataclass
class Reading:
    """A reader of one guard's journal: the number of verdicts so far, and the last one."""

    guard: WholeGuard
    verdicts: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    _after: int = 0

    async def go_on(self) -> None:
        await self.guard.office._store.journal.take_fronts()
        while entries := await self.guard.office._store.journal.entries(after=self._after):
            self._after = entries[-1][0].seq
            for entry, _ in entries:
                if entry.kind == Kind.VERDICT.value:
                    self.verdicts, self.last = self.verdicts + 1, dict(entry.data)


@dataclass
class ProxyAndMilter:
    proxy: WholeGuard
    by_milter: WholeGuard
    speaking: Speaking

    def __post_init__(self) -> None:
        self._journals = Reading(self.proxy), Reading(self.by_milter)

    async def send(self, content: bytes, *recipients: str, sender: str = ANNA) -> tuple[Outcome, Outcome]:
        """Send the message to both: the outcome at the proxy, and at the milter."""
        said = await self.proxy.send(content, *recipients, sender=sender, mail=" BODY=8BITMIME")
        paths = [f"<{r}>".encode() for r in recipients]
        told = await self.speaking.send(content, *paths, mail=[f"<{sender}>".encode(), b"BODY=8BITMIME"])
        for journal in self._journals:
            await journal.go_on()
        by_proxy, by_milter = self._journals
        return _outcome(by_proxy, _smtp(said)), _outcome(by_milter, _milter(told))


def _outcome(journal: Reading, action: str) -> Outcome:
    return Outcome(action, {key: journal.last.get(key) for key in COMPARED} | {"entries": journal.verdicts})


def _smtp(said: str) -> str:
    if said.startswith("250"):
        return "hold" if "Held" in said else "relay"
    return said[:9]


def _milter(told: MtaResult) -> str:
    if told.accepted:
        return "relay"
    match told.answer:
        case Discard():
            return "hold"
        case SmtpReply(reply=Reply() as said):
            return str(said)[:9]
    return str(next(iter(told.refused.values())))[:9]


def envelopes() -> Sequence[Sequence[str]]:
    """Recipients: a list, one customer, many customers, a colleague, and all together."""
    return (
        [RAMADAN], [MEMBERS[3]], ["bo@example.com"], MEMBERS[:30], ["bo@example.com", *MEMBERS[5:8], RAMADAN],
        ["somebody@example.net"], READERS[:6],
    )  # fmt: skip


@asynccontextmanager
async def proxy_and_milter(
    folder: Path, patch: pytest.MonkeyPatch, *, plainly: bool = False
) -> AsyncIterator[ProxyAndMilter]:
    """``plainly``: the milter has no front, and remembers no plan."""
    async with AsyncExitStack() as undo:
        guards = []
        for name, listen in (("proxy", ""), ("milter", "}], milter: [{port: 10027")):
            (folder / name).mkdir()
            settings = "journal: {front: off}" if plainly and listen else ""
            if settings:
                patch.setattr(engine, "_REMEMBERED", 0)
            made = whole_guard(folder / name, patch, listen=listen, settings=settings)
            guards.append(await undo.enter_async_context(made))
        proxy, beside = guards
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        beside.proxy_part.take(theirs, 1, lambda: None)  # after its one SMTP listener
        speaking = await connected(ours)
        undo.callback(speaking.close)
        await speaking.begin(name=b"unknown", address=b"127.0.0.1", helo=b"client.example")
        yield ProxyAndMilter(proxy, beside, speaking)
