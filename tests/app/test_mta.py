"""The check that our milter answers, made as an MTA would."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from smtpguard.app import probe
from smtpguard.app.finding import State
from smtpguard.config.settings import MilterListener
from tests.wire.milter.speaking import served


async def test_a_milter_that_answers_is_fine(tmp_path: Path) -> None:
    async with served(tmp_path) as world:
        found = await probe.milter_answers(MilterListener(unix=world.path))
        assert (found.about, found.state) == ("milter", State.FINE)
        assert found.text == f"the milter on {world.path} answers, in version 6 of the protocol"
        assert not world.seen


async def test_a_missing_milter_is_wrong(tmp_path: Path) -> None:
    found = await probe.milter_answers(MilterListener(unix=tmp_path / "no.sock"))
    assert found.state is State.WRONG
    assert found.text.endswith("does not answer: No such file or directory")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = await probe.milter_answers(MilterListener(port=taken.getsockname()[1]))
    assert found.state is State.WRONG
    assert "port" in found.text


@pytest.mark.parametrize(
    ("says", "text"),
    [(b"", "closes the connection"), (b"220 mail\r\n", "a packet of"), (b"\0\0\0\x01c", "it does not negotiate"),
     (None, "does not answer for")],
)  # fmt: skip
async def test_another_server_in_its_place_is_wrong(
    tmp_path: Path, says: bytes | None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100 if says is not None else -1)
        writer.write(says or b"")
        writer.close()

    if says is None:
        monkeypatch.setattr(probe, "MILTER_SECONDS", 0.05)
    server = await asyncio.start_unix_server(other, tmp_path / "other.sock")
    async with server:
        found = await probe.milter_answers(MilterListener(unix=tmp_path / "other.sock"))
    assert found.state is State.WRONG
    assert text in found.text
