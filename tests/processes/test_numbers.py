"""The tree's numbers: counts summed over processes, dead ones included, and the newest of shared findings; and a real
tree's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.processes.child import resident_bytes
from smtpguard.processes.numbers import Numbers, ProcessNumbers
from tests.processes.tree import PATIENCE, Grow, ask

STEPS = st.lists(
    st.tuples(st.sampled_from(["proxy-1", "proxy-2"]), st.sampled_from(["counts", "beats", "ends", "dies"])),
    max_size=20,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])  # the machine has other work
@given(STEPS)
def test_counts_include_dead_processes(steps: list[tuple[str, str]]) -> None:
    numbers = Numbers()
    counted: dict[str, int] = {}
    said: dict[str, int] = {}
    kept = died = 0
    for process, step in steps:
        if step == "counts":
            counted[process] = counted.get(process, 0) + 1
        elif step == "beats":
            said[process] = counted.get(process, 0)
            numbers.heard(process, ProcessNumbers(counts={"words": said[process]}))
        else:  # what it has not reported is lost, and its successor starts at zero
            kept += said.pop(process, 0)
            counted.pop(process, None)
            numbers.ended(process, "proxy", died=step == "dies")
            died += step == "dies"
    told = numbers.told({}, [], {"proxy": 2}, {})
    assert told["counts"].get("words", 0) == kept + sum(said.values())
    assert told["deaths"] == {"proxy": died}


def test_levels_are_those_of_live_processes() -> None:
    numbers = Numbers()
    for process, idle in (("proxy-1", 3), ("proxy-2", 4), ("proxy-1", 1)):
        numbers.heard(process, ProcessNumbers(levels={"idle": idle}))
    assert numbers.told({}, [], {}, {})["levels"] == {"idle": 5}
    numbers.ended("proxy-2", "proxy", died=True)
    assert numbers.told({}, [], {}, {})["levels"] == {"idle": 1}


def test_the_newest_finding_counts() -> None:
    numbers = Numbers()
    numbers.heard("proxy-1", ProcessNumbers(found={"relay": (5.0, 0)}))
    numbers.heard("proxy-2", ProcessNumbers(found={"relay": (7.0, 1)}))
    numbers.heard("proxy-1", ProcessNumbers(found={"relay": (5.0, 0)}))
    numbers.ended("proxy-2", "proxy", died=True)
    assert numbers.told({}, [], {}, {})["found"] == {"relay": (7.0, 1)}
    numbers.heard("delivery", ProcessNumbers(found={"relay": (9.0, 0)}))
    assert numbers.told({}, [], {}, {})["found"] == {"relay": (9.0, 0)}


def test_every_listener_and_part_has_a_number_from_the_start() -> None:
    numbers = Numbers()
    numbers.accepted["gone:25"] += 1
    told = numbers.told({"smtp:25": 0}, ["smtp:25"], {"proxy": 0}, {"proxy": 9})
    assert told == {
        "connections": {"smtp:25": 0}, "accepted": {"smtp:25": 0}, "refused": {"smtp:25": 0},
        "strangers": {"smtp:25": 0}, "without_descriptor": {"smtp:25": 0}, "ready": {"proxy": 0},
        "memory": {"proxy": 9}, "deaths": {"proxy": 0}, "counts": {}, "levels": {}, "found": {}, "store": "",
    }  # fmt: skip


def test_a_report_survives_json() -> None:
    said = ProcessNumbers(counts={"words": 3}, levels={"idle": 2}, found={"relay": (5.5, 1)})
    assert ProcessNumbers.of(json.loads(json.dumps(asdict(said)))) == said
    assert ProcessNumbers.of({}) == ProcessNumbers()


def test_the_memory_of_a_dead_process_is_zero() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert resident_bytes(gone.pid) == 0
    assert resident_bytes(os.getpid()) > 1 << 20


class TestTree:
    """What a part gets from a real tree."""

    def test_a_real_tree_reports_its_numbers(self, grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOY_NUMBERS", str(tmp_path / "numbers"))
        tree = grow(
            ["proxy", "proxy", "shows"], shows="shows", silence_seconds=4, first_pause_seconds=0.01, per_client=3
        )
        name = f"127.0.0.1:{tree.port}"

        def told() -> dict[str, object]:
            return json.loads((tmp_path / "numbers").read_text()) if (tmp_path / "numbers").exists() else {}

        def until(**numbers: object) -> None:
            deadline = time.monotonic() + PATIENCE
            while {key: told().get(key) for key in numbers} != numbers:
                assert time.monotonic() < deadline, told()
                time.sleep(0.02)  # one process has to reach another through the supervisor

        tree.until("READY=1")
        until(connections={name: 0}, accepted={name: 0}, refused={name: 0}, deaths={"proxy": 0, "shows": 0},
              ready={"proxy": 2, "shows": 1})  # fmt: skip
        first, victim = tree.connect()
        second, _ = tree.connect()
        third, _ = tree.connect()
        for sock, word in ((first, "down"), (second, "up"), (third, "hello")):
            assert ask(sock, word).startswith(b"250")
        one_too_many, _ = tree.connect()
        one_too_many.close()
        until(connections={name: 3}, accepted={name: 3}, refused={name: 1}, counts={"words": 3})
        assert told()["found"]["relay"][1] == 1  # type: ignore[index]
        memory = told()["memory"]
        assert isinstance(memory, dict)
        assert memory.keys() == {"supervisor", "proxy", "shows"}
        assert min(memory.values()) > 1 << 20, "a process of Python, in bytes"
        os.kill(victim, signal.SIGKILL)
        until(deaths={"proxy": 1, "shows": 0}, ready={"proxy": 2, "shows": 1}, counts={"words": 3})
        for sock in (first, second, third):
            sock.close()
        until(connections={name: 0}, accepted={name: 3})

    def test_a_broken_metrics_part_affects_no_other(self, grow: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOY_NUMBERS", "broken")
        tree = grow(["proxy", "shows"], shows="shows", deaths=2, first_pause_seconds=0.001, longest_pause_seconds=0.01)
        tree.until("READY=1\nSTATUS=proxy ready; ")
        died = 0
        assert tree.process.stdout is not None
        while died < 6:
            line = tree.process.stdout.readline()
            assert line, "it has ended"
            died += "part died" in line
        sock, pid = tree.connect()
        with sock:
            assert pid
        tree.process.send_signal(signal.SIGTERM)
        assert tree.wait() == 0

    def test_a_metrics_part_alone_is_ready_at_once(
        self, grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A part that is alone in its unit is ready at once."""
        monkeypatch.setenv("TOY_NUMBERS", str(tmp_path / "numbers"))
        tree = grow(["shows"], shows="shows", ports=[])
        tree.until("READY=1\nSTATUS=shows ready")
        tree.process.send_signal(signal.SIGTERM)
        assert tree.wait() == 0
