"""What a start loads: a process tree has only the code that its parts use at rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.installing import install
from tests.guard.house import KEY

ROOT = Path(__file__).parents[2]
_START = """
import asyncio, sys
from pathlib import Path
from smtpguard.app import parts, start
from smtpguard.cli import serve
from smtpguard.config.settings import read_settings
settings = read_settings(Path(sys.argv[1]))
start.migrate_apart(settings)
asyncio.run(start.prepare(settings, by="a test", parts=("proxy",)))
parts.load(sys.argv[2].split(","))
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


@pytest.mark.parametrize(("parts", "absent"), [(ALWAYS, RARE | PAGES), (f"{ALWAYS},milter,console,metrics", RARE)])
def test_a_start_loads_what_its_parts_need(tmp_path: Path, parts: str, absent: set[str]) -> None:
    install(tmp_path, KEY)
    (tmp_path / "policy.yaml").write_text(
        "version: 1\norganization: {name: Example AB, domains: [example.com]}\n"
        "groups: {desk: [eva@example.com]}\napprovals: {from: [desk], each: 1}\n"
    )
    argv = [sys.executable, "-c", _START, str(tmp_path / "smtpguard.yaml"), parts]
    for _ in ("the first start", "another"):
        loaded = subprocess.run(argv, check=True, cwd=ROOT, capture_output=True, text=True).stdout.split()
        assert "smtpguard.app.proxy" in loaded
        assert not absent & set(loaded)
