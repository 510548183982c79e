"""A restored store, another store, and another secret: the sentence and the exit status of each command."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from smtpguard.app.files import CannotStart, installation_secret
from smtpguard.app.start import prepare
from smtpguard.cli import main
from smtpguard.config.settings import read_settings
from smtpguard.policy.freezing import PUT_BACK
from tests.every import every
from tests.faults.killing import killed

POLICY = """\
version: 1
organization: {name: Example AB, domains: [example.com]}
groups: {some: [eva@example.com, omar@example.com]}
approvals: {from: [some], each: 1}
lists: {}
rules:
  - {id: large, when: {recipients.total: ">= 900"}, then: hold}
"""


class Installation:
    """A complete installation in a folder; commands run in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.config = folder / "smtpguard.yaml"
        (folder / "policy.yaml").write_text(POLICY)
        self.use("guard.db")

    def use(self, database: str) -> None:
        self.config.write_text(
            f'listen: {{smtp: [{{address: 127.0.0.1, port: 0}}]}}\nstore: {{url: "sqlite:///var/{database}"}}\n'
            'notices: {contact: "it@example.com"}\nalarms: {relay: {host: other.example.com}}\n'
        )

    def start(self) -> None:
        """Prepare the store as ``serve`` does before it starts its parts."""
        asyncio.run(prepare(read_settings(self.config), by="root", parts=()))

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error. ``serve`` logs JSON, of which the sentence is given."""
        with pytest.raises(SystemExit) as ended:
            main(["-c", str(self.config), *words])
        told = self._capsys.readouterr()
        err = f"smtpguard: {json.loads(told.err)['problem']}\n" if words == ("serve",) else told.err
        return int(ended.value.code or 0), told.out, err

    @property
    def state(self) -> Path:
        return self.folder / "var"

    @property
    def secret(self) -> Path:
        return self.state / "secret"

    def copy(self) -> Path:
        made = self.folder / "copy.db"
        with closing(sqlite3.connect(self.state / "guard.db")) as source, closing(sqlite3.connect(made)) as target:
            source.backup(target)
        return made

    def put_back(self, copy: Path) -> None:
        for old in self.state.glob("guard.db*"):
            old.unlink()
        shutil.copy(copy, self.state / "guard.db")


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    made = Installation(tmp_path, capsys)
    made.start()
    return made


@pytest.fixture
def restored(here: Installation) -> Iterator[Installation]:
    """An installation with a store restored from before a freeze; nothing was started since."""
    copy = here.copy()
    assert here.run("freeze", "--all", "--reason", "Wrong mail")[0] == 0
    here.put_back(copy)
    yield here
    status, out, _ = here.run("--json", "audit", "verify")
    assert (status, json.loads(out)["ok"], len(json.loads(out)["lost"])) == (0, True, 1)


def test_a_restored_store_is_reported_before_anything_is_written(restored: Installation) -> None:
    status, out, _ = restored.run("held", "list")
    first, second = out.splitlines()
    assert (status, first) == (0, "Nothing is held.")
    assert second.startswith(
        "Nothing is sent until this is thawed: the store was put back to an earlier state: its journal ends at "
    )
    status, out, _ = restored.run("check")
    assert status == 1
    assert "WRONG the store was put back to an earlier state" in out
    status, out, _ = restored.run("audit", "verify")
    assert status == 1
    assert out == (
        "The journal is not what was written. Entry 3: the tail is cut, or this is an older copy: a signed checkpoint knows "
        "entries up to 3.\n"
    )
    restored.start()


def test_a_restored_store_is_frozen_until_it_is_thawed(
    restored: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    restored.start()
    assert "all mail is frozen until it is thawed" in caplog.text
    restored.start()
    first, second = restored.run("held", "list")[1].splitlines()
    assert first == "Nothing is held."
    assert second.startswith("Frozen: everything (by smtpguard since ")
    assert second.endswith(f" UTC: {PUT_BACK}).")
    status, out, _ = restored.run("check")
    assert status == 1
    assert "frozen: everything (by smtpguard since " in out
    assert f" UTC: {PUT_BACK})" in out
    status, out, _ = restored.run("--json", "check")
    states = {row["about"]: row["state"] for row in map(json.loads, out.splitlines())}
    assert (status, states["store"]) == (1, "wrong")
    _, out, _ = restored.run("thaw", "--all")
    assert out.startswith("Lifted: everything, frozen by smtpguard at ")
    status, out, err = restored.run("check")
    assert (status, err) == (0, "")
    assert f"/guard.db is the store that {restored.state} belongs to\n" in out
    restored.start()
    assert restored.run("held", "list") == (0, "Nothing is held.\n", "")
    status, out, _ = restored.run("audit", "verify")
    assert status == 0
    first, second, third = out.splitlines()
    assert first.startswith("The journal is whole: ")
    assert third.startswith("No witness has a checkpoint of it")
    assert second.startswith("The store was put back (entry 3, ")
    assert ": entries up to 3, signed until " in second


def test_the_first_command_that_writes_freezes_a_restored_store(restored: Installation) -> None:
    """The command freezes a restored store first. So with ``freeze`` there are two freezes, and one ``thaw`` lifts
    both."""
    assert restored.run("freeze", "--all", "--reason", "Restored")[0] == 0
    assert restored.run("held", "list")[1].count("Frozen: everything") == 2
    status, out, _ = restored.run("thaw", "--all")
    assert (status, out.count("Lifted")) == (0, 2)


def test_a_report_names_the_time_that_the_journal_lacks(restored: Installation) -> None:
    restored.start()
    status, out, _ = restored.run("incident", "report", "--since", "1d")
    assert (status, out) == (1, ""), "no message fits"


# another store


def foreign_error(here: Installation, database: str) -> str:
    return (
        f"smtpguard: sqlite:///{here.state}/{database} is gone, or never was: {here.state}/checkpoints has the journal "
    )


@every("command", [("serve",), ("held", "list"), ("users", "list"), ("audit", "verify"), ("reload",)])
def test_another_store_url_is_refused(here: Installation, command: tuple[str, ...]) -> None:
    before = (here.state / "checkpoints").read_bytes()
    here.use("gaurd.db")
    status, out, err = here.run(*command)
    assert (status, out) == (2, "")
    assert err.startswith(foreign_error(here, "gaurd.db"))
    assert err.endswith("or correct store.url. To begin anew: docs/operations.md, Another store\n")
    assert err.count("\n") == 1
    assert not list(here.state.glob("gaurd.db*")), "no file of it is left"
    here.use("guard.db")
    assert here.run("audit", "verify")[0] == 0
    assert (here.state / "checkpoints").read_bytes() == before


def test_check_reports_another_store(here: Installation) -> None:
    here.use("gaurd.db")
    status, out, _ = here.run("check")
    assert status == 1
    assert f"WRONG {foreign_error(here, 'gaurd.db').removeprefix('smtpguard: ')}" in out
    (here.state / "checkpoints").rename(here.state / "checkpoints.old")
    assert here.run("check")[0] == 0
    here.start()
    assert here.run("audit", "verify")[0] == 0


def test_check_before_the_first_start_says_nothing_of_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Installation(tmp_path, capsys)
    status, out, err = made.run("check")
    assert (status, err) == (0, "")
    assert "belongs to" not in out
    assert not made.state.exists()


def test_check_by_another_user_says_nothing_of_the_store(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpguard.app.storestatus._is_writable", lambda path: False)
    status, out, _ = here.run("check")
    assert status == 0
    assert "belongs to" not in out


# another secret


def test_another_secret_is_refused(here: Installation) -> None:
    kept = here.secret.read_bytes()
    here.secret.write_bytes(secrets.token_bytes(32))
    for command in (
        ("serve",),
        ("audit", "verify"),
        ("held", "list"),
        ("freeze", "--all", "--reason", "x"),
        ("reload",),
    ):
        status, out, err = here.run(*command)
        assert (status, out) == (2, ""), command
        frozen, way = ("NOTHING IS FROZEN: ", ". Stop the mail server itself.") if command[0] == "freeze" else ("", "")
        assert err == (
            f"smtpguard: {frozen}{here.secret} is another secret: sqlite:///{here.state}/guard.db was written with the secret that "
            f"was there before. Put it back. If it is lost or leaked, smtpguard renew-secret makes a new one{way}\n"
        )
    assert here.run("check")[0] == 1
    here.secret.write_bytes(kept)
    here.start()
    assert here.run("audit", "verify")[0] == 0


def test_a_state_folder_that_is_gone_is_not_taken_for_a_lost_secret(here: Installation) -> None:
    """As with a disk that is not mounted, or a folder that was moved away while it ran: then its last commit is there."""
    away = here.folder / "away"
    here.state.rename(away)
    here.state.mkdir(mode=0o700)
    shutil.copy(away / "checkpoints", here.state)
    gone = f"{here.secret} and {here.state}/guard.db are gone: is their disk mounted?"
    for command in (("serve",), ("held", "list")):
        status, _, err = here.run(*command)
        assert status == 2
        assert err.startswith(f"smtpguard: {gone}")
    status, _, err = here.run("freeze", "--all", "--reason", "x")
    assert (status, err.startswith(f"smtpguard: NOTHING IS FROZEN: {gone}")) == (2, True)


def test_a_missing_secret_is_not_created_again(here: Installation) -> None:
    kept = here.secret.read_bytes()
    here.secret.unlink()
    for command in (("serve",), ("held", "list"), ("audit", "verify")):
        status, _, err = here.run(*command)
        assert status == 2
        assert err.startswith(f"smtpguard: {here.secret} is missing: ")
        assert not here.secret.exists()
    with pytest.raises(CannotStart, match="is missing: "):  # as a part that is started again does
        installation_secret(read_settings(here.config))
    assert not here.secret.exists()
    here.secret.write_bytes(kept)
    assert here.run("audit", "verify")[0] == 0


@pytest.mark.parametrize("lost", [False, True])
def test_a_secret_is_renewed_without_loss(here: Installation, lost: bool) -> None:
    before = here.secret.read_bytes()
    if lost:
        here.secret.unlink()
    status, out, err = here.run("renew-secret")
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    assert first == f"{here.secret} is new" + ("." if lost else f"; the old one is {here.secret}.old-1 now.")
    assert second.startswith("Start smtpguard serve again, on every host")
    assert here.secret.read_bytes() != before
    assert here.secret.stat().st_mode & 0o777 == 0o600
    assert lost or (here.state / "secret.old-1").read_bytes() == before
    here.start()
    assert here.run("held", "list") == (0, "Nothing is held.\n", "")
    status, out, _ = here.run("audit", "verify")
    assert status == 0
    assert out.splitlines()[1:] == [
        "Another secret is in force since entry 3: names in older entries could not be verified.",
        "No witness has a checkpoint of it: root on this host could have rewritten all of it.",
    ]
    status, out, _ = here.run("--json", "renew-secret")
    aside = "secret.old-1" if lost else "secret.old-2"
    assert (status, json.loads(out)) == (0, {"secret_file": str(here.secret), "old": str(here.state / aside)})
    _, out, _ = here.run("--json", "audit", "verify")
    assert (json.loads(out)["ok"], json.loads(out)["renewed"]) == (True, 5)
    entries = [json.loads(line) for line in here.run("audit", "export")[1].splitlines()]
    assert [e["kind"] for e in entries if e["kind"] == "secret"] == ["secret"] * 2


def test_a_new_secret_after_a_restore_freezes_nothing(restored: Installation) -> None:
    restored.start()
    assert restored.run("thaw", "--all")[0] == 0
    assert restored.run("renew-secret")[0] == 0
    restored.start()
    assert restored.run("held", "list") == (0, "Nothing is held.\n", "")


def test_an_interrupted_renewal_is_repeated(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret's file is new and the journal does not know it: ``serve`` is refused until the next renewal."""
    from smtpguard.database.errors import Full
    from smtpguard.store.store import Store

    async def full(*_: object) -> None:
        raise Full("no space left for the database")

    with monkeypatch.context() as cut:
        cut.setattr(Store, "renew", full)
        assert here.run("renew-secret")[0] == 2
    status, _, err = here.run("serve")
    assert status == 2
    assert "Put it back; a renewal has kept secret.old-1 beside it." in err
    assert here.run("renew-secret")[0] == 0
    here.start()
    assert here.run("audit", "verify")[0] == 0


@pytest.mark.parametrize(
    "at",
    [
        "os.fsync",
        "pathlib.Path.replace",
        "smtpguard.config.statefiles.sync_folder",
        "smtpguard.store.store.Store.renew",
    ],
)
def test_a_renewal_that_was_killed_is_repeated(here: Installation, at: str) -> None:
    """The old secret stays in its place until the new one takes it, and is found beside it by the next renewal."""
    before = here.secret.read_bytes()
    copy = here.secret.with_name(".secret.of-2026")
    copy.write_bytes(before)
    killed(at, "-c", str(here.config), "renew-secret")
    serves = at != "smtpguard.store.store.Store.renew"
    assert (here.secret.read_bytes() == before) is serves
    if serves:
        here.start()
    assert here.run("renew-secret")[0] == 0
    here.start()
    assert here.run("audit", "verify")[0] == 0
    entries = [json.loads(line) for line in here.run("audit", "export")[1].splitlines()]
    assert ["signed_by_before" in e["data"] for e in entries if e["kind"] == "secret"] == [True], "it is not lost"
    assert [path.name for path in here.state.glob(".secret.*")] == [copy.name], "files of people stay"


def test_a_secret_that_cannot_be_linked_is_renewed(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of root, which the service may only read: Linux lets no other user link it."""

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    before = here.secret.read_bytes()
    monkeypatch.setattr(os, "link", refused)
    assert here.run("renew-secret")[0] == 0
    assert here.secret.with_name("secret.old-1").read_bytes() == before


def test_a_secret_that_cannot_be_replaced_stays(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refused)
    status, _, err = here.run("renew-secret")
    who = "run it as root, or as the user of smtpguard serve"
    assert (status, err) == (2, f"smtpguard: cannot make {here.secret}: Permission denied; {who}\n")
    assert here.run("audit", "verify")[0] == 0


def test_without_a_store_renewal_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Installation(tmp_path, capsys)
    status, _, err = made.run("renew-secret")
    assert status == 2
    assert "not set up yet" in err
    assert not made.secret.exists()


# # ownership of files


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_files_that_root_creates_get_the_folders_owner(here: Installation) -> None:
    """After a restore, root may run the first command; the service has to read the files that it creates."""
    copy = here.copy()
    for file in here.state.iterdir():
        if file.is_file() and file.name != "secret":
            file.unlink()
    shutil.copy(copy, here.state / "guard.db")
    for file in (here.state, *here.state.rglob("*")):
        os.chown(file, 65534, 65534)
    assert here.run("freeze", "--all", "--reason", "Restored")[0] == 0
    assert {file.name: file.stat().st_uid for file in here.state.rglob("*") if file.stat().st_uid != 65534} == {}
    assert {"checkpoints", "guard.db.lock", "guard.db.next"} <= {file.name for file in here.state.iterdir()}
