"""Settings reach the services: the deadlines of holds, and the hooks of freezes and thaws."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from smtpguard.app import start
from smtpguard.app.services import services, term
from smtpguard.config.settings import Settings, read_settings
from smtpguard.holds.deadlines import Deadlines
from smtpguard.policy.freezing import Selector

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


def read(tmp_path: Path, more: str = "") -> Settings:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "smtpguard.yaml").write_text(more)
    return read_settings(tmp_path / "smtpguard.yaml")


def test_deadlines_of_holds_come_from_the_settings(tmp_path: Path) -> None:
    assert term(read(tmp_path)) == Deadlines()
    said = read(tmp_path, "hold: {expires: 2h, escalate_after: 20m}\n")
    assert term(said) == Deadlines(seconds=7200, working=False, escalate_after_seconds=1200)


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
