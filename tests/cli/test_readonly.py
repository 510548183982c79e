"""An auditor's read-only copy: the database, the checkpoints and the secret, in a folder that cannot be written."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from smtpguard.config.documents import digest
from smtpguard.journal.event import Kind
from smtpguard.store.store import open_store
from tests import program
from tests.cli.installing import install, prepared_installation
from tests.clocks import Clock
from tests.guard.house import House
from tests.store.making import CONTENT, SECRET, a_hold, event, holds, item, relays
from tests.store.servers import new_database

DOCUMENTS = {"policy.yaml": b"version: 1\n"}
POLICY = digest(DOCUMENTS)


def journal(folder: Path, url: str = "", *, live: Path | None = None) -> None:
    """An installation with ten entries, closed. ``live``: where to copy the files while the store is open."""
    install(folder, SECRET, url)

    async def work() -> None:
        at = url or f"sqlite:///{folder}/guard.db"
        async with open_store(at, secret=SECRET, state_dir=folder, clock=Clock(), migrate=True) as store:
            await store.policies.put(POLICY, DOCUMENTS, event(Kind.POLICY, POLICY))
            for n in range(8):
                await store.admit(item(f"T{n}", policy=POLICY), relays(f"T{n}"))
            await store.contents.keep(CONTENT)
            await store.admit(item("H", policy=POLICY), holds(a_hold("H")))
            if live is not None:
                shutil.copytree(folder, live)
                install(live, SECRET)

    asyncio.run(work())


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "evidence"
    folder.mkdir()
    yield folder
    folder.chmod(0o755)


def url_as(url: str, user: str) -> str:
    """The URL as ``user``, without a password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))


def make_read_only(folder: Path) -> dict[str, tuple[int, bytes]]:
    for file in folder.iterdir():
        file.chmod(0o444 if file.is_file() else 0o555)
    folder.chmod(0o555)
    return contents_of(folder)


def contents_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*") if file.is_file()}


def run(folder: Path, *words: str, powerless: bool = True) -> subprocess.CompletedProcess[str]:
    return program.run(["-c", str(folder / "smtpguard.yaml"), *words], timeout=120, powerless=powerless)


def found(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_commands_without_names_work_and_write_nothing(evidence: Path) -> None:
    journal(evidence)
    before = make_read_only(evidence)
    assert run(evidence, "audit", "verify").stdout.startswith("The journal is whole: 10 entries.\n")
    exported = run(evidence, "audit", "export", "--json").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in exported] == list(range(1, 11))
    assert run(evidence, "audit", "policy", POLICY).stdout == "version: 1\n"
    report = found(run(evidence, "incident", "report", "T3", "--no-names", "--json"))
    assert (report["messages"], report["proof"]["ok"]) == (1, True)
    assert contents_of(evidence) == before


def test_what_is_held_is_listed(evidence: Path) -> None:
    """As after an error of the disk, when the kernel has stopped writes."""
    journal(evidence)
    before = make_read_only(evidence)
    assert found(run(evidence, "held", "list", "--json"))["id"] == "H"
    for of in ("mailings", "users", "tokens"):
        done = run(evidence, of, "list")
        assert done.returncode == 0, done.stderr
    for words in (("returns", "list"), ("users", "add", "eva@example.com", "--sso")):  # which must be journalled
        refused = run(evidence, *words)
        assert (refused.returncode, "guard.db can only be read by this user" in refused.stderr) == (2, True)
    assert contents_of(evidence) == before


def test_a_policy_is_tried_on_what_was_held(evidence: Path) -> None:
    async def happens(home: House) -> None:
        await home.held()

    prepared_installation(evidence, happens)
    before = make_read_only(evidence)
    done = run(evidence, "replay")
    assert done.returncode == 0, done.stderr
    assert contents_of(evidence) == before


@pytest.mark.parametrize("words", [("incident", "report", "T3"), ("audit", "export", "--clear")])
def test_names_are_not_shown_if_that_cannot_be_journalled(words: tuple[str, ...], evidence: Path) -> None:
    journal(evidence)
    before = make_read_only(evidence)
    done = run(evidence, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "must be journalled, and" in done.stderr
    assert "guard.db can only be read by this user. To go on, leave the names out" in done.stderr
    assert contents_of(evidence) == before


def test_entries_in_the_wal_are_read_with_its_index(evidence: Path, tmp_path: Path) -> None:
    live = tmp_path / "live"
    journal(evidence, live=live)
    assert (live / "guard.db-wal").stat().st_size > 0
    before = make_read_only(live)
    try:
        assert found(run(live, "audit", "verify", "--json"))["entries"] == 10
        assert contents_of(live) == before
    finally:
        live.chmod(0o755)


def test_a_wal_without_its_index_is_an_error(evidence: Path, tmp_path: Path) -> None:
    live = tmp_path / "live"
    journal(evidence, live=live)
    (live / "guard.db-shm").unlink()
    make_read_only(live)
    try:
        done = run(live, "audit", "verify")
    finally:
        live.chmod(0o755)
    assert done.returncode == 2
    assert "guard.db-wal contains the last writes, and cannot be read" in done.stderr
    assert "without guard.db-shm: copy both with guard.db to a folder that you can write" in done.stderr


@pytest.mark.parametrize("name", ["guard.db", "checkpoints", "secret"])
def test_an_unreadable_file_is_named(name: str, evidence: Path) -> None:
    journal(evidence)
    make_read_only(evidence)
    (evidence / name).chmod(0)
    done = run(evidence, "audit", "verify")
    assert (done.returncode, done.stdout) == (2, "")
    whose = "run it as root, or as the user of smtpguard serve"
    assert f"{evidence / name}: Permission denied; {whose}\n" in done.stderr


@pytest.mark.parametrize("serves", [True, False])
def test_a_key_that_another_user_may_not_read_is_no_alarm(serves: bool, evidence: Path) -> None:
    """Who may not write the state is not the one who serves, and need not be able to read keys."""
    journal(evidence)
    tls = "{certificate: guard.pem, key: guard.key}"
    with (evidence / "smtpguard.yaml").open("a") as settings:
        settings.write(f"listen: {{smtp: [{{address: 127.0.0.1, port: 10025, tls: {tls}}}]}}\n")
    for name in ("guard.pem", "guard.key"):
        (evidence / name).touch(mode=0)
    evidence.chmod(0o755 if serves else 0o555)
    shown = json.loads(run(evidence, "--json", "status").stdout)
    names = [alarm["alarm"] for alarm in shown["alarms"]]
    assert ("certificate-unusable" in names) is serves, shown


@pytest.mark.parametrize(("name", "said"), [("guard.db", "is gone, or never was: "), ("secret", "is missing: ")])
def test_a_missing_file_is_named(name: str, said: str, evidence: Path) -> None:
    journal(evidence)
    (evidence / name).unlink()
    make_read_only(evidence)
    done = run(evidence, "audit", "verify")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{evidence / name} {said}" in done.stderr


def test_without_checkpoints_the_unproven_part_is_named(evidence: Path) -> None:
    journal(evidence)
    (evidence / "checkpoints").unlink()
    make_read_only(evidence)
    done = run(evidence, "audit", "verify")
    assert done.returncode == 0
    assert "The state folder has no checkpoints of this journal: a missing end could not be detected." in done.stdout


def test_a_read_only_user_of_postgresql_can_verify(evidence: Path, postgresql: str) -> None:
    url = new_database(postgresql)
    journal(evidence, url_as(url, "postgres"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS auditor")
        connection.execute("CREATE ROLE auditor LOGIN")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO auditor")
    install(evidence, SECRET, url_as(url, "auditor"))
    before = make_read_only(evidence)
    try:
        assert found(run(evidence, "audit", "verify", "--json", powerless=False))["entries"] == 10
        assert (
            found(run(evidence, "incident", "report", "T3", "--no-names", "--json", powerless=False))["messages"] == 1
        )
        named = run(evidence, "incident", "report", "T3", powerless=False)
        assert (named.returncode, named.stdout) == (2, "")
        assert "the database user lacks a privilege: permission denied for table" in named.stderr
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("REVOKE SELECT ON checkpoint FROM auditor")
        blind = run(evidence, "audit", "verify", powerless=False)
        assert blind.returncode == 2
        assert "lacks a privilege: permission denied for table checkpoint (42501)" in blind.stderr
        assert contents_of(evidence) == before
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY auditor; DROP ROLE auditor")
