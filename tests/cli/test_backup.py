"""smtpguard backup and restore: what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import zstandard

from smtpguard.app import archive, backup
from smtpguard.app.services import opened
from smtpguard.config.settings import read_settings
from smtpguard.journal.linefiles import CHECKPOINTS
from smtpguard.policy.freezing import Freeze
from tests.cli.test_another_store import Installation
from tests.cli.test_readonly import url_as
from tests.faults.killing import killed
from tests.faults.test_recipes import create, server_tools
from tests.peers.chain import until
from tests.store.servers import a_server, new_database, several


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    folder = tmp_path / "home"
    folder.mkdir()
    made = Installation(folder, capsys)
    made.start()
    return made


def freezes(home: Installation) -> list[Freeze]:
    async def work() -> list[Freeze]:
        async with opened(read_settings(home.config)) as (store, _):
            return list((await store.gate.read()).freezes)

    return asyncio.run(work())


def restores(home: Installation) -> list[Freeze]:
    return [freeze for freeze in freezes(home) if str(freeze.reason).startswith("Restored, as it was on ")]


def test_the_newest_backups_stay_in_a_folder(home: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    for old in ("smtpguard-20200101T000000Z.tar.zst", "smtpguard-20200102T000000Z.tar.zst"):
        (folder / old).write_text("old")
    (folder / "notes.txt").write_text("mine")
    status, out, err = home.run("--json", "backup", "--keep", "2", str(folder))
    assert status == 0, err
    told = json.loads(out)
    assert told["entries"] > 0
    assert [Path(path).name for path in told["removed"]] == ["smtpguard-20200101T000000Z.tar.zst"]
    assert {path.name for path in folder.iterdir()} == {
        "notes.txt",
        "smtpguard-20200102T000000Z.tar.zst",
        Path(told["file"]).name,
    }
    assert Path(told["file"]).stat().st_mode & 0o077 == 0


def test_a_folder_that_does_not_exist_is_named(home: Installation, tmp_path: Path) -> None:
    status, _, err = home.run("backup", str(tmp_path / "nowhere" / "x"))
    assert (status, err) == (1, f"smtpguard: {tmp_path}/nowhere is no folder: make it first\n")


def test_what_a_killed_backup_left_is_removed_after_a_day(home: Installation, tmp_path: Path) -> None:
    killed, running = tmp_path / ".smtpguard-backup-killed", tmp_path / ".smtpguard-backup-running"
    for folder in (killed, running):
        folder.mkdir()
        (folder / "secret").write_bytes(b"x")
    os.utime(killed, (0, 0))
    assert home.run("backup", str(tmp_path / "guard.tar.zst"))[0] == 0
    assert (killed.exists(), running.exists()) == (False, True)


def test_what_a_killed_restore_left_is_removed_by_the_next(home: Installation, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file))[0] == 0
    killed, running = home.state / ".smtpguard-restore-killed", home.state / ".smtpguard-restore-running"
    for folder in (killed, running):
        folder.mkdir()
        (folder / "secret").write_bytes(b"x")
    with backup._locked(running):
        assert home.run("restore", "--yes", str(file))[0] == 0
    assert (killed.exists(), running.exists()) == (False, True)


@pytest.mark.parametrize("went", [(), ("",), ("", "-wal")])
def test_a_killed_restore_keeps_the_earlier_database_with_its_log(
    home: Installation, tmp_path: Path, went: tuple[str, ...]
) -> None:
    """The last writes of a database that nobody closed are in its log. ``went``: what a later kill has found removed."""
    file, database = tmp_path / "guard.tar.zst", home.state / "guard.db"
    assert home.run("backup", str(file))[0] == 0
    writes = "import os, sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE last (x)'); os._exit(0)"
    subprocess.run([sys.executable, "-c", writes, database], check=True)
    assert Path(f"{database}-wal").stat().st_size
    killed("smtpguard.app.backup.sync_folder", "-c", str(home.config), "restore", "--yes", str(file))
    assert database.stat().st_nlink == 1, (
        "it may be used again, and a second name with the log of today would damage it"
    )
    for end in went:
        Path(f"{database}{end}").rename(home.state / "before-restore-1" / f"{database.name}{end}")
    status, out, _ = home.run("--json", "restore", "--yes", str(file))
    assert (status, json.loads(out)["before"]) == (0, str(home.state / "before-restore-1"))
    assert len([*home.state.glob("before-restore-*")]) == 1
    with closing(sqlite3.connect(home.state / "before-restore-1" / "guard.db")) as before:
        assert before.execute("SELECT count(*) FROM last").fetchone() == (0,)


def test_a_restore_writes_through_no_planted_link(home: Installation, tmp_path: Path) -> None:
    file, other = tmp_path / "guard.tar.zst", tmp_path / "other"
    assert home.run("backup", str(file))[0] == 0
    (home.state / CHECKPOINTS).unlink()
    (home.state / CHECKPOINTS).symlink_to(other)
    assert home.run("restore", "--yes", str(file))[0] == 0
    assert (other.exists(), (home.state / CHECKPOINTS).is_symlink()) == (False, False)


def test_a_full_disk_is_named(home: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write(2): of no file

    with pytest.raises(archive.BadBackup, match=f"^{tmp_path}: No such file or directory$"):  # not the database's disk
        backup._copy_sqlite(home.state / "guard.db", tmp_path / "gone" / "copy.db")
    file = tmp_path / "guard.tar.zst"
    monkeypatch.setattr(backup, "pack", full)
    assert home.run("backup", str(file)) == (2, "", f"smtpguard: {tmp_path}: No space left on device\n")
    assert [*tmp_path.glob("*guard.tar*"), *tmp_path.glob(".smtpguard-*")] == []


def test_the_first_error_is_named_also_if_cleaning_up_fails(
    home: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "here"))

    def read_only(path: str, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(backup, "pack", full)
    monkeypatch.setattr(os, "rmdir", read_only)
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file)) == (2, "", f"smtpguard: {tmp_path}/here: No space left on device\n")


def test_only_an_older_backup_is_replaced(home: Installation, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file))[0] == 0
    first = archive.manifest_of(file)
    assert home.run("backup", "--without-secret", str(file))[0] == 0
    second = archive.manifest_of(file)
    assert second.made_at >= first.made_at
    assert set(first.members) - set(second.members) == {"secret"}
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear all")
    status, _, err = home.run("backup", str(letter))
    assert (status, letter.read_text()) == (1, "Dear all")
    assert f"{letter} is not a backup of smtpguard" in err


def test_an_edited_journal_keeps_the_older_backup(home: Installation, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file))[0] == 0
    before = file.read_bytes()
    with closing(sqlite3.connect(home.state / "guard.db")) as connection, connection:
        connection.execute("UPDATE entry SET body = replace(body, 'root', 'toor') WHERE seq = 2")
        connection.execute("UPDATE entry SET at = at + 1 WHERE seq = 2")
    status, _, err = home.run("backup", str(file))
    assert status == 1
    assert "the journal was altered: entry 2" in err
    assert file.read_bytes() == before
    assert not list(tmp_path.glob(".smtpguard-*")), "no temporary copy is left"
    assert home.run("backup", "--no-verify", str(file))[0] == 0


def test_a_truncated_file_restores_nothing(home: Installation, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file))[0] == 0
    data, there = file.read_bytes(), (home.state / "guard.db").stat()
    for at in (0.01, 0.1, 0.5, 0.9):
        file.write_bytes(data[: max(1, int(len(data) * at) - 1)])
        status, _, err = home.run("restore", "--yes", str(file))
        assert (status, str(file) in err) == (1, True), err
        assert (home.state / "guard.db").stat().st_ino == there.st_ino


def packed(file: Path, *members: tuple[str, bytes]) -> None:
    unpacked = io.BytesIO()
    with tarfile.open(fileobj=unpacked, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    file.write_bytes(zstandard.compress(unpacked.getvalue()))


def test_a_member_outside_the_folder_is_refused(home: Installation, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file))[0] == 0
    manifest = json.loads(archive.manifest_of(file).dumps())
    data = b"root::0:0::/:/bin/sh\n"
    digest = "9f0ad9f2a0ad9d6b0f1f2f7e5e1f6bb7b6b0f3b2a1b7d2b9d0d0c8f8b7d6a5e4"
    for name in ("../escaped", "/tmp/escaped", "etc/../../escaped"):
        manifest["members"] = {name: [len(data), digest]}
        packed(file, (archive.MANIFEST, json.dumps(manifest).encode()), (name, data))
        status, _, err = home.run("restore", str(file), "--extract", str(tmp_path / "out"))
        assert (status, list(tmp_path.rglob("escaped"))) == (1, []), err
    packed(file, ("other", b""))
    assert home.run("restore", "--yes", str(file))[0] == 1


def test_a_backup_of_a_newer_version_or_other_database_is_refused(home: Installation, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file))[0] == 0
    manifest = json.loads(archive.manifest_of(file).dumps())
    for change, said in (
        ({"schema": "9999"}, "which is newer than this one"),
        ({"engine": "postgresql"}, "another kind of database"),
        ({"format": 2}, "made by a newer smtpguard"),
    ):
        packed(file, (archive.MANIFEST, json.dumps(manifest | {"members": {}} | change).encode()))
        status, _, err = home.run("restore", "--yes", str(file))
        assert status == 1
        assert said in err


@contextmanager
def in_use(home: Installation) -> Iterator[None]:
    """The database is open in another process."""
    import subprocess
    import sys

    program = (
        f"import sqlite3, sys\nc = sqlite3.connect({str(home.state / 'guard.db')!r})\n"
        "c.execute('SELECT * FROM head').fetchall(); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        try:
            yield
        finally:
            other.communicate()


def test_a_store_in_use_is_not_restored_over(home: Installation, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file))[0] == 0
    with in_use(home):
        status, _, err = home.run("restore", "--yes", str(file))
        assert status == 2
        assert "is in use: stop smtpguard, and its sockets" in err
    assert freezes(home) == []
    status, _, err = home.run("restore", "--yes", str(file))
    assert status == 0, err
    [stop] = restores(home)
    assert stop.selector.value == "all"


def test_the_secret_of_a_store_in_use_is_not_renewed(home: Installation) -> None:
    before = (home.state / "secret").read_bytes()
    with in_use(home):
        status, out, err = home.run("renew-secret")
        assert (status, out) == (2, "")
        assert "is in use: stop smtpguard, and its sockets" in err
    assert (home.state / "secret").read_bytes() == before
    assert not (home.state / "secret.old-1").exists()
    assert home.run("audit", "verify")[0] == 0
    assert home.run("renew-secret")[0] == 0


def test_the_secret_of_a_server_in_use_is_not_renewed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], postgresql: str
) -> None:
    url = new_database(postgresql)
    made = Installation(tmp_path, capsys)
    made.config.write_text(re.sub(r'url: "[^"]*"', f'url: "{url_as(url, "postgres")}"', made.config.read_text()))
    made.start()
    with psycopg.connect(url):
        # the server forgets the connections of the start a moment after their end
        until(lambda: "is in use by 1 connections: stop smtpguard on every host first" in made.run("renew-secret")[2])
        assert made.run("renew-secret")[:2] == (2, "")
    assert made.run("audit", "verify")[0] == 0
    until(lambda: made.run("renew-secret")[0] == 0, "the server to forget the connection")


def test_commands_work_on_the_one_of_several_servers_that_can_be_written(
    on_a_server: Installation, tmp_path: Path
) -> None:
    """Backup, restore, and a new secret, while the server that is named first is down."""
    home, file = on_a_server, tmp_path / "guard.tar.zst"
    config = home.config.read_text()
    one = re.search(r'url: "([^"]*)"', config)
    assert one is not None
    with several(one[1]) as both:
        home.config.write_text(config.replace(one[1], both))
        status, _, err = home.run("backup", str(file))
        assert status == 0, err
        until(lambda: home.run("restore", "--yes", str(file))[0] == 0, "the server to forget the connections")
        assert len(restores(home)) == 1
        until(lambda: home.run("renew-secret")[0] == 0, "the server to forget the connections")
        assert home.run("audit", "verify")[0] == 0


class Killed(BaseException):
    """Ends a command as a kill would: nothing after it runs."""


@pytest.mark.parametrize("new_machine", [False, True])
def test_a_restore_that_is_cut_off_leaves_everything_frozen(
    home: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_machine: bool
) -> None:
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file))[0] == 0
    if new_machine:
        shutil.rmtree(home.state)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(backup, "_journal_freeze", killed)
        with pytest.raises(Killed):
            backup.restore(read_settings(home.config), file, by="root's o'clock")
    home.start()
    [stop] = restores(home)
    assert (stop.selector.value, stop.by) == ("all", "root's o'clock")
    status, out, _ = home.run("audit", "verify")
    assert status == 1
    assert "it is in force, and the journal has no entry of it" in out
    assert home.run("restore", "--yes", str(file))[0] == 0, "once more, whole"
    assert len(restores(home)) == 1
    assert home.run("audit", "verify")[0] == 0


@pytest.fixture
def on_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    with a_server() as server:
        tools = tmp_path / "bin"
        tools.mkdir()
        for name, tool in server_tools(server).items():
            (tools / name).symlink_to(tool)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        made = Installation(tmp_path, capsys)
        url = create(server, "guarded")
        made.config.write_text(re.sub(r'url: "[^"]*"', f'url: "{url}"', made.config.read_text()))
        made.start()
        yield made


def test_a_restore_of_a_server_that_is_cut_off_changes_nothing_or_freezes(
    on_a_server: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, tools = on_a_server, tmp_path / "bin"
    file = tmp_path / "guard.tar.zst"
    status, _, err = home.run("backup", str(file))
    assert status == 0, err
    shutil.rmtree(home.state)
    whole = (tools / "pg_restore").readlink()
    (tools / "pg_restore").unlink()
    (tools / "pg_restore").write_text(f'#!/bin/sh\n{whole} "$@" | head -n 60\necho "it broke" >&2\nexit 1\n')
    (tools / "pg_restore").chmod(0o755)

    def restored() -> tuple[int, str, str]:
        done = (0, "", "")

        def free() -> bool:  # the server forgets connections a moment after their end
            nonlocal done
            done = home.run("restore", "--yes", str(file))
            return "is in use by" not in done[2]

        until(free, "the server to forget its connections")
        return done

    status, _, err = restored()
    assert (status, err) == (1, "smtpguard: pg_restore failed: it broke\n")
    (tools / "pg_restore").unlink()
    (tools / "pg_restore").symlink_to(whole)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(backup, "_journal_freeze", killed)
        with pytest.raises(Killed):
            restored()
    home.start()
    assert len(restores(home)) == len(freezes(home)) == 1
    status, _, err = restored()
    assert status == 0, err
    assert len(restores(home)) == 1
    assert home.run("audit", "verify")[0] == 0


def test_the_backup_of_another_installation_is_refused(
    home: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    other = Installation(tmp_path / "other", capsys)
    other.start()
    file = tmp_path / "other.tar.zst"
    assert other.run("backup", str(file))[0] == 0
    status, _, err = home.run("restore", "--yes", str(file))
    assert status == 1
    assert f"{home.state / 'secret'} is not the secret in {file}" in err
    (home.state / "secret").rename(home.state / "mine")
    status, _, err = home.run("restore", "--yes", str(file))
    assert status == 2
    assert f"{file} is of another installation than the one whose checkpoints are in {home.state}" in err
    (home.state / "mine").rename(home.state / "secret")
    assert home.run("audit", "verify")[0] == 0


def test_the_replaced_files_are_kept(home: Installation, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.zst"
    assert home.run("backup", str(file))[0] == 0
    status, _, err = home.run("restore", str(file))
    assert (status, "--yes" in err) == (2, True), "no terminal to ask at"
    for n in (1, 2):
        status, out, err = home.run("--json", "restore", "--yes", str(file))
        assert status == 0, err
        assert json.loads(out)["before"] == str(home.state / f"before-restore-{n}")
        assert (home.state / f"before-restore-{n}" / "guard.db").exists()
    assert home.run("audit", "verify")[0] == 0


def test_a_restore_on_another_host_is_signed(
    home: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No newer checkpoint is there: the journal says so all the same, and a witness's checkpoints of the lost time agree
    with it."""
    file, witness = tmp_path / "guard.tar.zst", tmp_path / "witness"
    assert home.run("backup", str(file))[0] == 0
    for n in range(3):
        assert home.run("freeze", "--all", "--reason", f"Wrong mail {n}")[0] == 0
    shutil.copy(home.state / "checkpoints", witness)
    (tmp_path / "other").mkdir()
    other = Installation(tmp_path / "other", capsys)
    assert other.run("restore", "--yes", str(file))[0] == 0
    assert other.run("thaw", "--all")[0] == 0
    status, out, _ = other.run("audit", "verify")
    assert (status, "it is not known how many entries are missing" in out) == (0, True), out
    status, out, _ = other.run("--json", "audit", "verify", "--against", str(witness))
    proof = json.loads(out)
    [lost] = proof["lost"]
    assert (status, lost["through"]) == (0, proof["witnessed"]["seq"]), out
