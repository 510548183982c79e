"""Two delivery processes on one database: one is stopped beyond its lease, the other takes over, and the first wakes
up.

Its lease token is old by then, so it can neither mark nor settle, and sends nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smtpguard.holds.model import State
from smtpguard.journal.event import Kind
from tests.faults.machine import ANNA, RAMADAN, Machine, machine
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, until
from tests.peers.letters import story
from tests.script import DOT, STALL
from tests.store.servers import new_database


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, postgresql: str) -> Iterator[tuple[Machine, Recorder, str]]:
    url = new_database(postgresql, empty=True).replace(":@", "@")
    with machine(tmp_path_factory.mktemp("owners"), store=url, only=["proxy"]) as (guard, recorder):
        yield guard, recorder, url


@contextmanager
def node(beside: tuple[Machine, Recorder, str]) -> Iterator[Machine]:
    guard, recorder, url = beside
    with Machine(guard.root, recorder.port, store=url, only=["delivery"]) as another:
        yield another


def stop(another: Machine) -> list[int]:
    """Stop the part and its supervisor."""
    pids = [*another.parts(), another.pid]
    for pid in reversed(pids):
        os.kill(pid, signal.SIGSTOP)
    return pids


def wake(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def stopped_for_hours(another: Machine, guard: Machine) -> list[int]:
    """Stop it between two transactions: within one it would block all writers."""

    def stopped() -> list[int]:
        pids = stop(another)
        if guard.hours_passed():
            return pids
        wake(pids)
        until(guard.written, "the end of its transaction")
        return []

    return list(until(stopped, "a moment between two transactions"))


def held(guard: Machine, id: str) -> str:
    return Mta(guard).deliver(story(id), ANNA, RAMADAN).text.split()[-1]


def released(guard: Machine, hold_id: str) -> None:
    until(lambda: guard.state(hold_id) is State.RELEASED, f"the release; {guard.said()}")


def test_stopped_after_the_final_dot(proxy: Any) -> None:
    guard, recorder, _ = proxy
    with node(proxy) as first:
        hold_id = held(guard, "dot@example.com")
        guard.idle()
        recorder.relay.on(DOT, [STALL, "250 2.0.0 Taken"])
        guard.approve(hold_id)
        until(lambda: recorder.releases("dot@example.com"), "the dot")
        stopped = stopped_for_hours(first, guard)
        try:
            recorder.go_on()
            with node(proxy):
                until(lambda: guard.state(hold_id) is State.IN_DOUBT, "the other to ask people")
                wake(stopped)
                stopped = []
                released(guard, hold_id)
                guard.idle()
        finally:
            wake(stopped)
    copies = recorder.releases("dot@example.com")
    assert copies == [f"{hold_id}-release".encode()], "it is not sent again, and the late answer counts"
    history = guard.history(hold_id)
    assert [k for k, _ in history].count(Kind.RELEASED) == 1
    assert [d["outcome"] for k, d in history if k is Kind.IN_DOUBT] == ["asked"]
