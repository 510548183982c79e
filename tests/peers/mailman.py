"""A real Mailman core: only its REST runner, on a free loopback port, with SQLite and all files in a temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2

from tests.peers.chain import until
from tests.peers.postfix import free_port

RUNNER = Path("/usr/lib/mailman3/bin/runner")
PASSWORD = "rest admin, of tests"
DOMAIN = "lists.example.com"


def missing() -> str:
    """Why Mailman cannot run here, "" if it can."""
    return "" if RUNNER.exists() and shutil.which("mailman") else "no Mailman core here: apt install mailman3"


class Mailman:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.root = f"http://127.0.0.1:{self.port}/3.1"
        (folder / "mailman.cfg").write_text(_CONFIGURATION.format(folder=folder, port=self.port, password=PASSWORD))
        (folder / "password").write_text(f"{PASSWORD}\n")

    def __enter__(self) -> Mailman:
        command = [str(RUNNER), "-C", str(self.folder / "mailman.cfg"), "-r", "rest:0:1"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        self._client = httpx2.Client(base_url=self.root, auth=("restadmin", PASSWORD), timeout=120)
        until(self._answers, "Mailman to answer")
        self.post("/domains", mail_host=DOMAIN)
        return self

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()
        with suppress(httpx2.HTTPError):
            return self._client.get("/system/versions").status_code == 200
        return False

    def __exit__(self, *_: object) -> None:
        self._client.close()
        with suppress(ProcessLookupError):  # its process group: the runner and its workers
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(120)

    def list(self, name: str) -> str:
        """Create a list; return its List-Id."""
        self.post("/lists", fqdn_listname=f"{name}@{DOMAIN}")
        return f"{name}.{DOMAIN}"

    def subscribe(self, list_id: str, email: str, role: str = "member", **more: str) -> str:
        """Subscribe; return the membership's URL."""
        sure = dict.fromkeys(("pre_verified", "pre_confirmed", "pre_approved"), "1")
        answer = self.post("/members", list_id=list_id, subscriber=email, role=role, send_welcome_message="false",
                           **sure, **more)  # fmt: skip
        return answer.headers.get("Location", "")

    def post(self, path: str, **form: str) -> httpx2.Response:
        return self._fine(self._client.post(path, data=form))

    def change(self, url: str, path: str, values: Mapping[str, Any]) -> None:
        self._fine(self._client.patch(f"{url}{path}", data=dict(values)))

    def _fine(self, answer: httpx2.Response) -> httpx2.Response:
        assert answer.is_success, f"{answer.request.url}: {answer.status_code} {answer.text}"
        return answer


_CONFIGURATION = """[mailman]
site_owner: owner@example.com
layout: here

[paths.here]
var_dir: {folder}/var
bin_dir: /usr/lib/mailman3/bin
queue_dir: $var_dir/queue
list_data_dir: $var_dir/lists
log_dir: $var_dir/logs
lock_dir: $var_dir/locks
data_dir: $var_dir/data
cache_dir: $var_dir/cache
etc_dir: $var_dir/etc
messages_dir: $var_dir/messages
archive_dir: $var_dir/archives
template_dir: $var_dir/templates
pid_file: $var_dir/master.pid
lock_file: $lock_dir/master.lck
ext_dir: $var_dir/ext

[database]
class: mailman.database.sqlite.SQLiteDatabase
url: sqlite:///{folder}/mailman.db

[webservice]
hostname: 127.0.0.1
port: {port}
admin_user: restadmin
admin_pass: {password}
workers: 1

[mta]
incoming: mailman.mta.null.NullMTA
"""
