"""Connections that are handed to a part that takes mail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from smtpguard.app.proxy import Proxy
from smtpguard.config.settings import settings_of
from smtpguard.config.yaml import load_yaml


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
