"""A client that disconnects at any byte and at any time: the store has the whole message or nothing of it."""

from __future__ import annotations

import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from smtpguard.holds.model import State
from smtpguard.store.store import Store
from tests.faults.machine import ANNA, RAMADAN, Machine, machine
from tests.faults.mta import Mta, replies
from tests.peers.chain import until
from tests.peers.letters import story


def reset_at(guard: Machine, letter: bytes, octets: int, wait: Callable[[], object] = lambda: None) -> None:
    """The dialogue up to DATA, then ``octets`` of the content and its dot, ``wait``, and RST."""
    with socket.create_connection(("127.0.0.1", guard.port), timeout=120) as s:
        lines = replies(s)
        next(lines)
        for command in ("EHLO x.example.com", f"MAIL FROM:<{ANNA}> BODY=8BITMIME", f"RCPT TO:<{RAMADAN}>", "DATA"):
            s.sendall(f"{command}\r\n".encode())
            assert next(lines)[0] < 400
        s.sendall((letter + b".\r\n")[:octets])
        wait()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def recorded(guard: Machine, id: str) -> None:
    until(lambda: guard.holds(id), "the hold")


def test_a_client_reset_at_any_octet_leaves_a_whole_hold_or_none(tmp_path: Path) -> None:
    with machine(tmp_path) as (guard, recorder):
        letters = {}
        before_dot, after_dot = [], []
        for n in range(60):
            id = f"cut-{n}@example.com"
            letters[id] = story(id)
            whole = len(letters[id]) + 3
            reset_at(guard, letters[id], (n * 31) % (whole - 8) if n < 50 else whole - 1 - n % 6)
            before_dot.append(id)
        for n in range(40):
            id = f"gone-{n}@example.com"
            letters[id] = story(id)
            moment = partial(time.sleep, n * 0.0005)
            reset_at(guard, letters[id], len(letters[id]) + 3, moment if n < 39 else partial(recorded, guard, id))
            after_dot.append(id)

        by_id = defaultdict(list)
        for hold in guard.holds():
            by_id[hold.message_id.strip("<>")].append(hold)
        assert not [id for id in before_dot if by_id[id]], "a partial message is not stored"
        assert all(len(by_id[id]) <= 1 for id in after_dot)
        assert [id for id in after_dot if by_id[id]], "at least one was recorded before the reset"
        there = [(id, hold) for id in after_dot for hold in by_id[id]]

        async def contents(store: Store) -> list[bytes]:
            return [bytes((await store.contents.load(hold.content_sha256)).raw[:]) for _, hold in there]

        assert guard.ask(contents) == [letters[id] for id, _ in there], "whole"
        assert all(hold.state is State.WAITING for _, hold in there)

        for id in (*before_dot[::12], *after_dot):
            done = Mta(guard).deliver(letters[id], ANNA, RAMADAN)
            assert "Held" in done.text
            if by_id[id]:
                assert done.text.split()[-1] == by_id[id][0].hold_id, "the same hold"
        assert all(len(guard.holds(id)) == 1 for id in after_dot[::8])
        assert recorder.with_id("gone-0@example.com") == []
