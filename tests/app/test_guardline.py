"""Connections that are handed to a part that takes mail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from smtpguard.admission.mailvote import ReturnedMail
from smtpguard.app.guardline import open_line
from smtpguard.app.proxy import Proxy
from smtpguard.app.start import prepare
from smtpguard.config.settings import settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.mail.message import Message
from smtpguard.policy.freezing import ITSELF, Freeze, Selector
from smtpguard.returns.service import Returns

NOW = datetime(2026, 11, 30, tzinfo=UTC)
POLICY = """\
organization: {name: Example, domains: [example.com]}
approvals: {from: [eva]}
groups: {eva: [eva@example.com]}
rules: [{id: any, when: {recipients.total: ">= 100"}, then: hold}]
"""


async def test_a_command_that_fails_at_a_breakers_freeze_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What came back by mail has tripped it: nobody else hears of a queue that still sends."""
    written = (
        "returns: {addresses: [bounces@guard.example.com]}\nfreeze_hook: [/bin/false]\nstate: .\nsecret_file: secret\n"
        f"store: {{url: 'sqlite:///{tmp_path}/guard.db'}}\n"
    )
    settings = settings_of(load_yaml(written, "smtpguard.yaml"), tmp_path, {})
    stop = Freeze(freeze_id="F", selector=Selector.ALL, value="", reason="complaints", by=ITSELF, at=NOW)

    async def take(self: Returns, message: Message, *, to: Sequence[str]) -> object:
        return await self.freezes.told(stop)

    monkeypatch.setattr(Returns, "take", take)
    settings.policy.write_text(POLICY)
    await prepare(settings, by="test", parts=("proxy",))
    async with AsyncExitStack() as undo:
        line = await open_line(settings, undo, None)
        [own] = line.intake.own
        assert isinstance(own, ReturnedMail)
        await own.take(Message.of(b"\r\n"), ["bounces@guard.example.com"])
    assert "/bin/false, run at a freeze: " in caplog.text


class Never:
    async def serve_connection(self, sock: socket.socket, over: Callable[[], None], client: str | None) -> None:
        raise AssertionError("the part has ended")


async def test_a_part_that_ends_as_a_connection_comes_leaves_no_work(tmp_path: Path) -> None:
    """Before the first step of the connection's task: a coroutine that nobody awaits is a warning."""
    part = Proxy(settings_of(load_yaml(b"state: .\nsecret_file: secret\n", "smtpguard.yaml"), tmp_path, {}))
    part._receptions.append(cast(Any, Never()))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        part.take(theirs, 0, lambda: None)
        [task] = part._connections
        task.cancel()
        await asyncio.wait({task})
