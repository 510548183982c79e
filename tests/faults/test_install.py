"""The commands of docs/install.md, run as written: install from a wheel, start on a manager's socket, upgrade while
mail comes, and go back.

Replaced are folders, users and ``systemctl``. The wheel's dependencies are the suite's own (tests/wheel.sh installs
them).
"""

from __future__ import annotations

import atexit
import compileall
import importlib.util
import json
import os
import re
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

import pytest
import trustme

from smtpguard.database.migrate import Newer
from smtpguard.database.schema import SCHEMA
from tests.faults.machine import ANNA, RAMADAN, ROOT, members, policy
from tests.faults.mta import Mta
from tests.faults.test_recipes import PETER
from tests.peers.chain import Recorder
from tests.peers.letters import mail, story
from tests.peers.postfix import free_port

NEXT = f"{int(SCHEMA) + 1:04}"
STEP = f'''
def to_{NEXT}() -> None:
    """Another column."""
    op.add_column("freeze", sa.Column("more", sa.Integer))


STEPS = {{**STEPS, "{NEXT}": to_{NEXT}}}
'''

TOOLS = {
    # makes an environment as usual, with the suite's pip and packages
    "python3": """\
[ "$1 $2" = "-m venv" ] || exit 2
"{python}" -m venv --without-pip "$3"
printf '#!/bin/bash\\n[ "$5" != requirements.lock ] || exit 0  # it is empty\\nexec "{python}" -m pip --disable-pip-version-check --python "%s/bin/python" "$@" --no-compile\\n' "$3" >"$3/bin/pip"
chmod 755 "$3/bin/pip"
echo "{packages}" >"$(echo "$3"/lib/python3*/site-packages)/packages.pth"
""",
    "apt-get": "exit 0\n",
    "systemd-sysusers": 'grep -q "^u smtpguard " {root}/etc/sysusers.d/smtpguard.conf\n',
    "chgrp": '[ "$1 $2" = "-R smtpguard" ]\n',
    "install": """\
words=()
while [ $# -gt 0 ]; do
  case "$1" in -o | -g) [ "$2" = smtpguard ] || exit 1; shift 2;; *) words+=("$1"); shift;; esac
done
exec /usr/bin/install "${{words[@]}}"
""",
    "runuser": '[ "$1 $2 $3" = "-u smtpguard --" ] || exit 1\nshift 3\nexec "$@"\n',
    # one guard, by its unit; descriptor 3 is the manager's socket
    "systemctl": """\
stop() {{
  [ -e {root}/pid ] || return 0
  kill "$(cat {root}/pid)"
  while kill -0 "$(cat {root}/pid)" 2>/dev/null; do sleep 0.05; done
  rm {root}/pid
}}
start() {{
  [ ! -e {root}/pid ] || return 0
  run=$(sed -n 's/^ExecStart=//p' {root}/etc/systemd/system/smtpguard.service | sed 's|/opt/|{root}/opt/|; s|/etc/|{root}/etc/|')
  grep -q '^Sockets=smtpguard.socket$' {root}/etc/systemd/system/smtpguard.service || exit 1
  grep -q '^ListenStream=127.0.0.1:{port}$' {root}/etc/systemd/system/smtpguard.socket.d/place.conf || exit 1
  setsid bash -c "export LISTEN_PID=\\$\\$ LISTEN_FDS=1; exec $run" </dev/null >>{root}/log 2>&1 &
  echo $! >{root}/pid
  exec 3<&-
  exec 4<>/dev/tcp/127.0.0.1/{port}
  until read -t 0.1 -r -u 4 line; do kill -0 "$(cat {root}/pid)" 2>/dev/null || {{ rm {root}/pid; exit 1; }}; done
}}
case "$*" in
  daemon-reload) ;;
  "enable --now smtpguard.socket smtpguard.service" | "start smtpguard.socket smtpguard") start;;
  "restart smtpguard") stop; start;;
  "stop smtpguard.socket smtpguard"*) stop;;
  *) exit 5;;
esac
""",
}


def blocks(page: str, heading: str) -> list[str]:
    [text] = [
        each
        for each in re.split(r"^##+ ", (ROOT / "docs" / page).read_text(), flags=re.M)
        if each.startswith(f"{heading}\n")
    ]
    found = re.findall(r"(?:^    .*\n)+", text, flags=re.M)
    return ["".join(line[4:] for line in block.splitlines(keepends=True)) for block in found]


@cache
def compiled() -> Path:
    """The package with bytecode that is valid whatever the time of its source."""
    folder = tempfile.TemporaryDirectory(prefix="smtpguard-compiled-")
    atexit.register(folder.cleanup)
    package = Path(folder.name, "smtpguard")
    shutil.copytree(ROOT / "smtpguard", package, ignore=shutil.ignore_patterns("__pycache__"))
    assert compileall.compile_dir(package, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    return package


def changed(file: Path, text: str) -> None:
    """Write another text, and remove the old bytecode."""
    Path(importlib.util.cache_from_source(str(file))).unlink()
    file.write_text(text)


def built(tree: Path, version: str, *, step: str = "") -> None:
    """A source tree of this version with its wheel, as ``pip wheel`` makes it. ``step``: one more migration."""
    for name in ("systemd", "config", "docs", "README.md", "CHANGELOG.md"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        tree.mkdir(exist_ok=True)
        copy(ROOT / name, tree / name)
    (tree / "pyproject.toml").write_text(f'[project]\nname = "smtpguard"\nversion = "{version}"\n')
    (tree / "requirements.lock").write_text("")
    package = shutil.copytree(compiled(), tree / "smtpguard")
    init = package / "__init__.py"
    changed(init, re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', init.read_text()))
    if step:
        schema = package / "database" / "schema.py"
        changed(schema, schema.read_text().replace(f'SCHEMA = "{SCHEMA}"', f'SCHEMA = "{NEXT}"'))
        steps = package / "database" / "migrations.py"
        changed(steps, steps.read_text() + step)
    about = tree / f"smtpguard-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: smtpguard\nVersion: {version}\n")
    (about / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (about / "entry_points.txt").write_text("[console_scripts]\nsmtpguard = smtpguard.cli:main\n")
    files = [path for top in (package, about) for path in sorted(top.rglob("*")) if path.is_file()]
    (about / "RECORD").write_text("".join(f"{path.relative_to(tree)},,\n" for path in [*files, about / "RECORD"]))
    (tree / "dist").mkdir()
    with zipfile.ZipFile(tree / "dist" / f"smtpguard-{version}-py3-none-any.whl", "w") as wheel:
        for path in [*files, about / "RECORD"]:
            wheel.write(path, str(path.relative_to(tree)))


class Server:
    """The host of the installation. ``port``: of a socket that stays open without the guard."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lib, self.etc = root / "var/lib/smtpguard", root / "etc/smtpguard"
        self.port = free_port()
        self._manager = socket.create_server(("127.0.0.1", self.port), backlog=100)
        packages = root / "packages"
        packages.mkdir()
        for each in Path(site.getsitepackages()[0]).iterdir():
            if "smtpguard" not in each.name and each.suffix != ".pth":
                (packages / each.name).symlink_to(each)
        for folder in ("tools", "opt", "usr/local/bin", "usr/share/doc", "etc/systemd/system", "var/lib"):
            (root / folder).mkdir(parents=True)
        for name, text in TOOLS.items():
            tool = root / "tools" / name
            kept = {"root": root, "python": sys.executable, "packages": packages, "port": self.port}
            tool.write_text("#!/bin/bash\nset -e\n" + text.format(**kept))
            tool.chmod(0o755)

    def type(self, text: str, cwd: Path, *, status: int = 0) -> str:
        for there in ("/opt/", "/etc/", "/usr/local/bin/", "/usr/share/doc/", "/var/lib/", "/backup/"):
            text = re.sub(rf"(?<![\w}}]){there}", f"{self.root}{there}", text)
        text = text.replace(":10025", f":{self.port}")
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env["PATH"] = f"{self.root}/tools:{self.root}/usr/local/bin:{os.environ['PATH']}"
        env["SMTPGUARD_CONFIG"] = str(self.etc / "smtpguard.yaml")
        listening = os.dup(self._manager.fileno())
        try:
            done = subprocess.run(
                ["bash", "-c", f"exec 3<&{listening}\nset -eu -o pipefail\n{text}"],
                capture_output=True, text=True, timeout=120, cwd=cwd, env=env, pass_fds=[listening],
            )  # fmt: skip
        finally:
            os.close(listening)
        assert done.returncode == status, f"{text}\n{done.returncode}\n{done.stdout}\n{done.stderr}\n{self.said()}"
        return done.stdout

    def said(self) -> str:
        log = self.root / "log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else ""

    def lines(self) -> list[dict[str, Any]]:
        """The complete lines of the log."""
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def keep(self) -> None:
        """Nothing: the recipe starts the guard."""

    def close(self) -> None:
        pid = self.root / "pid"
        if pid.exists():
            os.killpg(int(pid.read_text()), signal.SIGKILL)
        self._manager.close()

    def configure(self, relay_port: int) -> None:
        """Settings that the page leaves to the administrator."""
        file = self.etc / "smtpguard.yaml"
        text = re.sub(r"port: 10025", f"port: {self.port}", file.read_text())
        text = re.sub(
            r"\{host: 127.0.0.1, port: 10026, tls: opportunistic",
            f"{{host: 127.0.0.1, port: {relay_port}, tls: none",
            text,
        )
        file.write_text(text.replace("trust: []", "trust: [127.0.0.1]"))
        (self.etc / "policy.yaml").write_text(policy())
        (self.etc / "ramadan.csv").write_text(members())

    def passes(self, recorder: Recorder, id: str) -> None:
        assert Mta(self).deliver(mail(to=PETER, message_id=id), ANNA, PETER).code == 250, self.said()  # type: ignore[arg-type]
        assert len(recorder.with_id(id)) == 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "machine"
    root.mkdir()
    with closing(Server(root)) as there:
        yield there


def modes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): oct(p.stat().st_mode & 0o777) for p in (folder, *folder.rglob("*"))}


def test_installed_upgraded_and_downgraded(server: Server, tmp_path: Path) -> None:
    old, broken, new = tmp_path / "9.1.0", tmp_path / "9.1.9", tmp_path / "9.2.0"
    built(old, "9.1.0")
    built(broken, "9.1.9", step=STEP.replace('"freeze", ', '"freezes", '))
    built(new, "9.2.0", step=STEP)
    with Recorder() as recorder:
        # install
        program, folders, first_check = blocks("install.md", "Install")
        server.type(program + folders, old)
        assert set(modes(server.lib).values()) == {"0o700"}
        found = modes(server.etc)
        assert found["."] == "0o750"
        assert {found["smtpguard.yaml"], found["policy.yaml"], found["lists/ramadan.csv"]} == {"0o640"}
        server.configure(recorder.port)
        assert f"relays to 127.0.0.1 port {recorder.port}" in server.type(first_check.splitlines()[0], old)

        # start
        [start] = blocks("install.md", "Start")
        server.type(start, old)
        assert server.type("smtpguard --version", old) == "smtpguard 9.1.0\n"
        server.passes(recorder, "first@example.com")
        held = Mta(server).deliver(story("waits@example.com"), ANNA, RAMADAN).text.split()[-1]  # type: ignore[arg-type]
        assert {name: mode for name, mode in modes(server.lib).items() if mode[-2:] != "00"} == {}, "it is private"

        # units of parts, and the log, as far as they are files
        _, with_metrics = blocks("install.md", "Parts in units of their own")
        units = server.etc.parent / "systemd"
        server.type(with_metrics + "".join(blocks("install.md", "The log")[0].splitlines(keepends=True)[:2]), old)
        for name in ("smtpguard.service", "smtpguard.socket", "smtpguard-proxy.service", "smtpguard-proxy.socket"):
            well_formed(units / "system", name)
        parts = (units / "system/smtpguard-proxy.service.d/metrics.conf").read_text()
        assert re.findall(r"--only (\w+)", parts) == ["proxy", "metrics"]
        assert (units / "journald.conf.d/smtpguard.conf").read_text().startswith("[Journal]\nStorage=persistent\n")

        # a migration that fails leaves the previous version as it was
        install, switch = blocks("install.md", "Upgrade")
        server.type(install, broken)
        server.type("version=9.1.9\n" + switch, broken, status=1)
        [said] = [line["problem"] for line in server.lines() if line["event"] == "cannot run"]
        assert f"could not be migrated from schema {SCHEMA} to {NEXT}: " in said
        assert "freezes" in said
        back = blocks("install.md", "Going back")[0].splitlines(keepends=True)[1].replace("VERSION", "9.1.0")
        server.type(back + "systemctl restart smtpguard", old)
        server.passes(recorder, "still@example.com")
        assert "The journal is whole: " in server.type("smtpguard audit verify", old)

        # upgrade
        server.type(blocks("operations.md", "Backup")[0], old)
        assert f"the database has schema {SCHEMA}, this smtpguard needs {NEXT}" in server.type(install, new)
        heard = ConnectingClients(server.port)
        said = server.type("version=9.2.0\n" + switch, new)
        heard.stop()
        assert "smtpguard 9.2.0\n" in said
        assert "The journal is whole: " in said
        assert heard.answers, "no client connected"
        assert {answer[:3] for answer in heard.answers} <= {"220", "421"}, heard.answers
        server.passes(recorder, "second@example.com")
        assert held in server.type("smtpguard held list", new)

        # a renewed certificate
        [renewed] = blocks("install.md", "Certificates")
        issued, lineage = trustme.CA().issue_cert("guard.example.com"), tmp_path / "renewed"
        lineage.mkdir()
        issued.cert_chain_pems[0].write_to_path(lineage / "fullchain.pem")
        issued.private_key_pem.write_to_path(lineage / "privkey.pem")
        server.type(f"RENEWED_LINEAGE={lineage}\n{renewed}", new)
        assert modes(server.etc)["guard.key"] == "0o640"

        # going back is refused with a newer schema
        _, link, restart = blocks("install.md", "Going back")[0].splitlines(keepends=True)
        assert set(blocks("install.md", "Going back")[0].splitlines()[0].split()) == {"ls", "-d", "/opt/smtpguard-*"}
        link = link.replace("VERSION", "9.1.0")
        server.type(link + restart, new, status=1)
        assert f"the store: {Newer(NEXT)}".replace(f"knows {NEXT}", f"knows {SCHEMA}") in server.said()
        assert f"the database has schema {NEXT}" in server.type("smtpguard check", new, status=1)
        assert " ".join(re.findall(r"^> (.*)$", (ROOT / "docs" / "install.md").read_text(), flags=re.M)) == re.sub(
            r"\d{4}", lambda m: {NEXT: "0009", SCHEMA: "0008"}[m[0]], str(Newer(NEXT))
        )

        # forward again, with all data
        server.type(link.replace("9.1.0", "9.2.0") + restart, new)
        server.passes(recorder, "third@example.com")

        # or back with the backup, which begins frozen
        server.type(blocks("operations.md", "Restore")[0].replace("systemctl", link + "systemctl", 1), new)
        assert server.type("smtpguard --version", new) == "smtpguard 9.1.0\n"
        server.type("systemctl start smtpguard.socket smtpguard\nsmtpguard thaw --all", new)
        rows = [json.loads(line) for line in server.type("smtpguard --json held list", new).splitlines()]
        assert [row["id"] for row in rows] == [held]
        server.passes(recorder, "fourth@example.com")
        server.type(blocks("install.md", "Stop")[0], new)
        assert not (server.root / "pid").exists()


def well_formed(units: Path, name: str) -> None:
    """Assert that systemd accepts the unit with its drop-ins."""
    if not shutil.which("systemd-analyze"):
        return
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(units / name)],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    )  # fmt: skip
    said = [line for line in told.stderr.splitlines() if "smtpguard" in line and "is not executable" not in line]
    assert said == [], name


class ConnectingClients:
    """Clients that connect continuously and wait for a greeting; ``answers``: what they got."""

    def __init__(self, port: int) -> None:
        self.answers: list[str] = []
        self._port, self._stopped = port, threading.Event()
        self._threads = [threading.Thread(target=self._connect) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> None:
        while not self._stopped.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=120) as client:
                    self.answers.append(client.recv(200).decode() or "closed without a word")
            except OSError as e:
                self.answers.append(type(e).__name__)
            self._stopped.wait(0.02)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
