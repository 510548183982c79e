"""The console under a user of its own, who cannot read the relay's password and the DKIM key: it never reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
SETTINGS = """
console: {address: 127.0.0.1, port: 0}
relay: {host: 127.0.0.1, port: 9, tls: require, auth: {user: guard, password_file: ../secrets/relay}}
dkim_sign: {domain: example.com, selector: s, key_file: ../secrets/dkim}
webhooks: [{url: "https://chat.example.com/x", secret_file: ../secrets/hook, events: [message.held]}]
"""
POLICY = """
version: 1
organization: {name: Example AB, domains: [example.com]}
groups: {some: [eva@example.com]}
approvals: {from: [some]}
rules:
  - {id: many, when: {recipients.total: ">= 100"}, then: hold}
"""
LIFE = """
import asyncio, os, sys
from pathlib import Path

from smtpguard.app import start
from smtpguard.app.console import Console
from smtpguard.config.settings import read_settings


async def life(folder):
    settings = read_settings(folder / "smtpguard.yaml")
    await start.prepare(settings, by="test", parts=("console",))
    part = Console(settings)
    await part.start()
    try:
        port = part._server.listener.getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /login HTTP/1.1\\r\\nHost: 127.0.0.1:%d\\r\\nConnection: close\\r\\n\\r\\n" % port)
        answer = await reader.read()
        writer.close()
        assert b'name="password"' in answer, answer
        await part.stop(1)
    finally:
        await part.close()


folder = Path(sys.argv[1])
asyncio.run(life(folder / "warm"))  # whatever is imported late is there, even if this interpreter is root's alone
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
for secret in ("relay", "dkim", "hook"):
    try:
        (folder / "secrets" / secret).read_text()
    except PermissionError:
        continue
    sys.exit(f"{secret} is no secret")
asyncio.run(life(folder / "alone"))
print("served as", os.getuid(), (folder / "alone" / "var" / "secret").stat().st_uid)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # a folder that other users may enter, unlike those of pytest
    made = Path(tempfile.mkdtemp(prefix="smtpguard-alone-"))
    try:
        made.chmod(0o755)
        for name in ("warm", "alone", "secrets"):
            (made / name).mkdir(mode=0o700)
        for name in ("relay", "dkim", "hook"):
            (made / "secrets" / name).write_text("a secret that is root's alone")
        for name in ("warm", "alone"):
            (made / name / "smtpguard.yaml").write_text(SETTINGS)
            (made / name / "policy.yaml").write_text(POLICY)
        for path in (made / "alone", *(made / "alone").iterdir()):
            os.chown(path, NOBODY, NOBODY)
        yield made
    finally:
        shutil.rmtree(made)


def test_the_console_reads_no_secret_of_the_relay(folder: Path) -> None:
    argv = [sys.executable, "-c", LIFE, str(folder), str(NOBODY)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"served as {NOBODY} {NOBODY}\n"
