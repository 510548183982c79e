"""The report that each part sends with its beats: messages without a verdict, answers, and the relay's last answer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smtpguard.app.console import Console
from smtpguard.app.delivery import Deliverer
from smtpguard.app.milter import Milter
from smtpguard.app.parts import processes
from smtpguard.app.proxy import Proxy
from smtpguard.app.relay import Relays
from smtpguard.config.settings import Settings


def test_two_pairs_of_parts_share_their_processes() -> None:
    assert processes(["proxy", "milter", "metrics", "alarms"], 2) == ["proxy", "proxy", "alarms"]
    assert processes(["milter", "delivery", "alarms"], 2) == ["milter", "milter", "delivery", "alarms"]
    assert processes(["metrics"], 2) == ["metrics"]


INTAKE = SimpleNamespace(
    undecided=Counter(busy=2, store=1),
    answered=Counter(taken=3),
    admissions=[0, 4],
    admission_microseconds=900,
    bypass=None,
)
WIRE = {
    "undecided busy": 2, "undecided store": 1, "answered taken": 3, "admission 1": 4, "admission us": 900, "turned away 4xx": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "counts", "asks"),
    [(Proxy, WIRE, True), (Milter, WIRE, False), (Deliverer, {}, True), (Console, {}, False)],
)
async def test_the_report_has_each_parts_numbers(part: Any, counts: dict[str, int], asks: bool, tmp_path: Path) -> None:
    made = part(Settings())
    relays = Relays(Settings(state=tmp_path))
    pool = relays.pools[""]
    made._intake, made._relays = INTAKE, relays
    said = made.said()
    assert said.found == {}, "nothing, before anybody has asked the relay"
    waits = {"relay waits": 0, "relay wait ms": 0} if asks else {}
    tls = {} if part is Milter else {"certificates refused": 0}
    assert said.counts == {**counts, **waits, **tls}
    assert said.levels == ({"relay idle": 0, "relay in use": 0, "relay waiting": 0} if asks else {})
    assert pool.target.reachability is not None
    pool.target.reachability.lost("Connection refused")
    found = made.said().found
    assert [value for _, value in found.values()] == [0] * asks
    pool.target.reachability.reached({})
    later = made.said().found
    assert [value for _, value in later.values()] == [1] * asks
    assert not asks or later["relay"] > found["relay"]
    await relays.close()
