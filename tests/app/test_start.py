"""What a start loads: a process tree has only the code that its parts use at rest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy import event as listening

from smtpguard.app import start
from smtpguard.app.console import Console
from smtpguard.app.delivery import Deliverer
from smtpguard.app.milter import Milter
from smtpguard.app.proxy import Proxy
from smtpguard.app.relay import Relays
from smtpguard.app.services import deadlines, services
from smtpguard.cli.serve import processes
from smtpguard.config.settings import Settings, read_settings
from smtpguard.holds.deadlines import Deadlines
from smtpguard.policy.freezing import Selector
from smtpguard.store.retention import Erased, Retention
from tests.cli.installing import install
from tests.guard.house import KEY

ROOT = Path(__file__).parents[2]
_START = """
import asyncio, sys
from contextlib import nullcontext
from pathlib import Path
from smtpguard.app import start
from smtpguard.cli import serve
from smtpguard.config.settings import read_settings
settings = read_settings(Path(sys.argv[1]))
start.migrate_apart(settings, nullcontext)
for some in sys.argv[2:]:
    serve.load(some.split(","))
    asyncio.run(start.prepare(settings, by="a test", parts=("proxy",)))
    print(*sys.modules)
"""
ALWAYS = "proxy,delivery,alarms"
RARE = {"alembic", "cryptography", "httpx2", "joserfc", "ldap3", "segno", "sqlalchemy.orm"}
"""Only some installations, or some steps, need these. The store is migrated in a process of its own, and checkpoints are
signed without cryptography (8 MB)."""
PAGES = {
    "anyio",
    "argon2",
    "jinja2",
    "nh3",
    "pyotp",
    "starlette",
    "uvicorn",
    "multiprocessing",
    "smtpguard.console.app",
}


def test_a_start_loads_what_its_parts_need(tmp_path: Path) -> None:
    install(tmp_path, KEY)
    (tmp_path / "policy.yaml").write_text(
        "version: 1\norganization: {name: Example AB, domains: [example.com]}\n"
        "groups: {desk: [eva@example.com]}\napprovals: {from: [desk], each: 1}\n"
    )
    argv = [sys.executable, "-c", _START, str(tmp_path / "smtpguard.yaml"), ALWAYS, "milter,console,metrics"]
    for _ in ("the first start", "another"):
        loaded = subprocess.run(argv, check=True, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
        always, all_ = (set(line.split()) for line in loaded)
        assert "smtpguard.app.proxy" in always
        assert "smtpguard.app.console" in all_
        assert (always & (RARE | PAGES), all_ & RARE) == (set(), set())


POLICY = """\
organization: {name: Example AB, domains: [example.com]}
groups: {some: [eva@example.com]}
approvals: {from: [some], each: 1}
rules: [{id: any, when: {recipients.total: any}, then: hold}]
"""
HOOK = """\
import json, os, sys
with open(sys.argv[1], "a") as file:
    print(json.dumps({k[10:]: v for k, v in os.environ.items() if k.startswith("SMTPGUARD_")}), file=file)
"""


def read(tmp_path: Path, more: str = "state: var\n") -> Settings:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "smtpguard.yaml").write_text(more)
    return read_settings(tmp_path / "smtpguard.yaml")


def test_deadlines_of_holds_come_from_the_settings(tmp_path: Path) -> None:
    assert deadlines(read(tmp_path)) == Deadlines()
    said = read(tmp_path, "hold: {expires: 2h, escalate_after: 20m}\n")
    assert deadlines(said) == Deadlines(seconds=7200, working=False, escalate_after_seconds=1200)


async def test_a_proxy_reads_its_store_at_a_start_past_sqlalchemy(tmp_path: Path) -> None:
    """What is made and compiled there would be written by each process, and not shared (statements.rows_of)."""
    settings = read(tmp_path)
    await start.prepare(settings, by="root", parts=())
    statements: list[str] = []

    def noted(_: Connection, __: object, sql: str, *___: object) -> None:
        statements.append(sql)

    proxy = Proxy(settings)
    listening.listen(Engine, "before_cursor_execute", noted)
    try:
        await proxy.start()
    finally:
        listening.remove(Engine, "before_cursor_execute", noted)
        await proxy.close()
    assert statements == []


async def test_freeze_and_thaw_run_their_hooks(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(HOOK)
    command = json.dumps([sys.executable, str(tmp_path / "hook.py"), str(tmp_path / "said")])
    settings = read(tmp_path, f"freeze_hook: [{command}]\nthaw_hook: [{command}]\n")
    await start.prepare(settings, by="root", parts=())
    async with services(settings) as opened:
        frozen = await opened.freezes.freeze(Selector.ALL, "", reason="Wrong mail", by="anna")
        hooks = await opened.freezes.thaw(frozen.freeze.freeze_id, by="omar")
    assert [hook.problem for hook in (*frozen.hooks, *hooks)] == [None, None]
    first, second = (json.loads(line) for line in (tmp_path / "said").read_text().splitlines())
    same = {"ID": frozen.freeze.freeze_id, "SELECTOR": "all", "VALUE": "", "REASON": "Wrong mail"}
    assert first == same | {"ACTION": "freeze", "BY": "anna"}
    assert second == same | {"ACTION": "thaw", "BY": "omar"}


def test_two_pairs_of_parts_share_their_processes() -> None:
    assert processes(["proxy", "milter", "metrics", "alarms"], 2) == ["proxy", "proxy", "alarms"]
    assert processes(["milter", "delivery", "alarms"], 2) == ["milter", "milter", "delivery", "alarms"]
    assert processes(["metrics"], 2) == ["metrics"]


async def test_nothing_is_erased_while_the_clock_has_jumped() -> None:
    made: Any = Deliverer(Settings())
    made._clock, made._store = SimpleNamespace(jumped=True), None
    await made._retain()


async def test_nothing_more_is_erased_after_the_clock_has_jumped() -> None:
    made: Any = Deliverer(Settings())
    slices = []

    async def agree(wanted: Retention, by: str) -> Retention:
        return wanted

    async def retain(keep: Retention) -> Erased:
        slices.append(keep)
        made._clock.jumped = len(slices) == 2
        return Erased(more=len(slices) < 9)

    made._clock, made._store = SimpleNamespace(jumped=False), SimpleNamespace(agree=agree, retain=retain)
    await made._retain()
    assert len(slices) == 2


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
    made._store, made._relays = SimpleNamespace(fails="it is read-only", problem="it is read-only"), relays
    made._clock = SimpleNamespace(jumped=True, ahead=timedelta(days=800, microseconds=1))
    made.line = SimpleNamespace(intake=INTAKE, store=made._store, watch=SimpleNamespace(age_seconds=0.1))
    said = made.said()
    assert said.found == {}, "nothing, before anybody has asked the relay"
    waits = {"relay waits": 0, "relay wait ms": 0} if asks else {}
    tls = {} if part is Milter else {"certificates refused": 0}
    assert said.counts == {**counts, **waits, **tls}
    assert said.store == ("" if part is Console else "it is read-only")
    fails = {"store serves": 0} if counts else {}
    ahead = {"clock ahead": 800 * 86_400} if part is Deliverer else {}
    assert said.levels == {
        **fails,
        **ahead,
        **({"relay idle": 0, "relay in use": 0, "relay waiting": 0} if asks else {}),
    }
    assert pool.target.reachability is not None
    pool.target.reachability.lost("Connection refused")
    found = made.said().found
    assert [value for _, value in found.values()] == [0] * asks
    pool.target.reachability.reached({})
    later = made.said().found
    assert [value for _, value in later.values()] == [1] * asks
    assert not asks or later["relay"] > found["relay"]
    made._store.fails = ""
    assert made.said().levels.get("store serves", 0) == 0, "half a minute later nobody has tried"
    made._store.problem = ""
    assert made.said().levels.get("store serves", 1) == 1
    made.line.watch.age_seconds = 10
    assert made.said().levels.get("store serves", 0) == 0
    await relays.close()
