"""The log while the relay is down: at once, from time to time, and when it is back."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from smtpguard.wire.handshake import open_connection
from smtpguard.wire.pool import RelayPool
from smtpguard.wire.relay import RelayUnavailable
from smtpguard.wire.target import AGAIN_SECONDS, Reachability, RelayTarget, Tls
from tests.clocks import Seconds
from tests.every import every
from tests.scripted_relay import ScriptedRelay


def test_outages_are_logged_at_intervals_and_when_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "smtpguard")
    time = Seconds()
    relay = Reachability("relay.example.com port 25", time)
    assert relay.found is None
    relay.reached({})
    assert relay.found == (1000.0, True)
    assert not caplog.messages
    for _ in range(5):
        relay.lost("Connection refused")
        time.now += 1
    assert caplog.messages == [
        "the relay relay.example.com port 25 cannot be used, mail is answered 4xx: Connection refused"
    ]
    assert relay.found == (1004.0, False), "logged or not"
    time.now += AGAIN_SECONDS
    relay.lost("timed out")
    assert caplog.messages[1:] == [
        "the relay relay.example.com port 25 cannot be used, mail is answered 4xx: timed out"
    ]
    relay.reached({})
    relay.reached({})
    assert caplog.messages[2:] == ["the relay relay.example.com port 25 answers again, after 305 s"]
    relay.lost("Connection refused")
    assert len(caplog.messages) == 4


async def test_a_pool_notices_loss_and_return(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        target = RelayTarget(port=port, tls=Tls.NONE, down_seconds=0, reachability=Reachability("there"))
        pool = RelayPool(target)
        for _ in range(3):
            with pytest.raises(RelayUnavailable):
                await pool.acquire()
        await pool.close()
    assert [m for m in caplog.messages if "there" in m] == [
        f"the relay there cannot be used, mail is answered 4xx: connecting to 127.0.0.1 port {port}: Connection refused"
    ]
    relay = ScriptedRelay()
    await relay.start()
    try:
        back = RelayTarget(port=relay.port, tls=Tls.NONE, reachability=target.reachability)
        (await open_connection(back)).quit()
    finally:
        await relay.stop()
    assert any("the relay there answers again" in m for m in caplog.messages)


def test_offered_extensions_are_known_to_the_next_process(tmp_path: Path) -> None:
    kept = tmp_path / "relay.json"
    assert Reachability("relay port 25", kept=kept).offered is None
    Reachability("relay port 25", kept=kept).reached({"SIZE": "1000", "DSN": ""})
    assert Reachability("relay port 25", kept=kept).offered == {"SIZE": "1000", "DSN": ""}
    assert Reachability("another port 25", kept=kept).offered is None, "nothing is known of another relay"
    assert [file.name for file in tmp_path.iterdir()] == ["relay.json"]


@every("content", [b"", b"{", b"[]", b'{"relay": "there"}', b'{"relay": "there", "offered": 3}', b"\xff"])
def test_an_invalid_file_is_ignored(content: bytes, tmp_path: Path) -> None:
    kept = tmp_path / "relay.json"
    kept.write_bytes(content)
    relay = Reachability("there", kept=kept)
    assert relay.offered is None
    relay.reached({"DSN": ""})
    assert Reachability("there", kept=kept).offered == {"DSN": ""}


def test_an_unwritable_file_does_not_matter(tmp_path: Path) -> None:
    relay = Reachability("there", kept=tmp_path / "missing" / "relay.json")
    relay.reached({"DSN": ""})
    assert relay.offered == {"DSN": ""}
