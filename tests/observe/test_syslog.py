"""Checkpoints sent to a syslog server in the format of RFC 5424 prove the journal."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from urllib.parse import quote

import pytest

from smtpguard.config.problem import Broken
from smtpguard.config.settings import settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.journal.checkpoint import notes_in, read
from smtpguard.observe.witnessing import Syslog
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.observe.test_witnessing import signed

_MESSAGE = re.compile(
    r"<109>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z guard\.example\.com smtpguard \d+ checkpoint - checkpoint of entry \d+: "
)


def sending(store: Store, clock: Clock, url: str) -> Syslog:
    return Syslog(store, clock, url, "guard.example.com")


@pytest.mark.parametrize("kind", ["unix", "udp"])
async def test_each_checkpoint_is_one_datagram(store: Store, clock: Clock, tmp_path: Path, kind: str) -> None:
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log") if kind == "unix" else ("127.0.0.1", 0))
        server.settimeout(60)
        place = quote(str(tmp_path / "log")) if kind == "unix" else f"127.0.0.1:{server.getsockname()[1]}"
        one = sending(store, clock, f"{kind}://{place}")
        await signed(store)
        assert await one.give() == 1
        await signed(store)
        assert await one.give() == 1
        got = [server.recv(65536).decode() for _ in range(2)]
    assert all(_MESSAGE.match(each) for each in got), got
    assert [read(note).seq for each in got for note in notes_in(each)] == [4, 7]
    proof = await store.journal.audit("host", alone=True, against=[n for each in got for n in notes_in(each)])
    assert proof.first_bad is None
    assert proof.witnessed is not None
    assert proof.witnessed[0] == 7


async def test_a_stream_uses_octet_counting_and_reconnects(store: Store, clock: Clock) -> None:
    got: list[bytes] = []
    left = asyncio.Event()

    async def heard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int(await reader.readuntil(b" "))
        got.append(await reader.readexactly(size))
        writer.close()  # after one message
        left.set()

    server = await asyncio.start_server(heard, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = sending(store, clock, f"tcp://127.0.0.1:{port}")
    async with server:
        await signed(store)
        assert await one.give() == 1
        await left.wait()
        left.clear()
        assert await one._reader.read() == b"", "the client has noticed that the server closed"
        await signed(store)
        assert await one.give() == 0
        assert await one.give() == 1
        await left.wait()
    await one.close()
    assert [read(note).seq for each in got for note in notes_in(each.decode())] == [4, 7]


async def test_an_unreachable_server_gets_it_later(
    store: Store, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = sending(store, clock, f"unix://{tmp_path}/log")
    await signed(store)
    assert await one.give() == 0
    assert "the syslog server did not take a checkpoint: No such file or directory" in caplog.text
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        assert await one.give() == 1


@pytest.mark.parametrize("url", ["log.example.com", "http://log.example.com", "unix://", "udp://", "tcp://x:port"])
def test_an_unusable_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(Broken, match="is no syslog server"):
        settings_of(load_yaml(f"audit: {{syslog: '{url}'}}\n"), tmp_path, {})
