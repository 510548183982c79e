"""A first start and an upgrade leave no module of Alembic in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cli.installing import install
from tests.guard.house import KEY

ROOT = Path(__file__).parents[2]
_START = """
import asyncio, sys
from pathlib import Path
from smtpguard.app import start
from smtpguard.config.settings import read_settings
settings = read_settings(Path(sys.argv[1]))
start.migrate_apart(settings)
asyncio.run(start.prepare(settings, by="a test", parts=("proxy",)))
assert "alembic" not in sys.modules, "it was migrated here"
"""


def test_the_store_is_prepared_in_a_separate_process(tmp_path: Path) -> None:
    install(tmp_path, KEY)
    (tmp_path / "policy.yaml").write_text(
        "version: 1\norganization: {name: Example AB, domains: [example.com]}\n"
        "groups: {desk: [eva@example.com]}\napprovals: {from: [desk], each: 1}\n"
    )
    for _ in ("the first start", "another"):
        subprocess.run([sys.executable, "-c", _START, str(tmp_path / "smtpguard.yaml")], check=True, cwd=ROOT)
