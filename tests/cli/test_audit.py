"""audit verify and audit export, over a real store."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.serialization import Encoding

from smtpguard.cli import audit
from smtpguard.journal.chain import link
from smtpguard.journal.event import Kind
from smtpguard.journal.linefiles import TIMESTAMPS, write_line
from smtpguard.journal.rows import signed_after
from smtpguard.journal.timestamp import Timestamp, request
from smtpguard.store.journal import Journal
from smtpguard.store.store import Store, open_store
from tests.cli.installing import install, printed, running
from tests.clocks import Clock
from tests.journal.chaining import NOTHING_ELSE
from tests.observe.authority import Authority
from tests.store.making import POLICY, SECRET, event, item, relays

run = running("audit")

NO_STAMPS: dict[str, Any] = {"timestamped": None, "timestamps_bad": []}


def within(tmp_path: Path, work: Callable[[Store], Awaitable[object]]) -> None:
    async def run() -> None:
        url = f"sqlite:///{tmp_path}/guard.db"
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock(), migrate=True) as store:
            await work(store)

    asyncio.run(run())


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    install(tmp_path, SECRET)

    async def some(store: Store) -> None:
        await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
        for n in range(9):
            await store.admit(item(f"T{n}"), relays(f"T{n}"))

    within(tmp_path, some)
    return tmp_path


def rows(result: Result) -> list[dict[str, object]]:
    return list(map(json.loads, printed(result)))


def test_verify_reports_a_whole_journal(installed: Path) -> None:
    result = run(installed, "verify", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"ok": True, "entries": 10, "first_bad": None, **NOTHING_ELSE, **NO_STAMPS}
    alone = "No witness has a checkpoint of it: root on this host could have rewritten all of it.\n"
    assert run(installed, "verify").stdout == f"The journal is whole: 10 entries.\n{alone}"


def test_verify_writes_nothing(installed: Path) -> None:
    before = (installed / "checkpoints").read_text()
    run(installed, "verify")
    assert (installed / "checkpoints").read_text() == before
    assert len(rows(run(installed, "export"))) == 10


def test_verify_reports_an_edited_entry(installed: Path) -> None:
    with closing(sqlite3.connect(installed / "guard.db")) as connection, connection:
        connection.execute("UPDATE entry SET body = replace(body, 'relay', 'hold') WHERE seq = 7")
    connection.close()
    result = run(installed, "verify", "--json")
    assert result.exit_code == 1
    problem = "edited: the entry does not fit its hash"
    assert json.loads(result.stdout) == {
        "ok": False, "entries": 7, "first_bad": {"seq": 7, "problem": problem}, **NOTHING_ELSE, **NO_STAMPS,
    }  # fmt: skip
    told = run(installed, "verify")
    assert told.exit_code == 1
    assert told.stdout == f"The journal is not what was written. Entry 7: {problem}.\n"


def test_without_a_store_verify_fails(installed: Path) -> None:
    (installed / "guard.db").unlink()
    (installed / "checkpoints").unlink()
    result = run(installed, "verify")
    assert result.exit_code == 2
    assert "not set up yet" in result.stderr
    assert not (installed / "guard.db").exists()


def test_an_export_can_be_verified_independently(installed: Path) -> None:
    found = rows(run(installed, "export"))
    prev = bytes(32)
    for row in found:
        fields = (row["seq"], row["at_microseconds"], row["kind"], row["id"], row["body"])
        prev = link(prev, *fields)  # type: ignore[arg-type]
        assert prev.hex() == row["hash"]
    assert all(row["private"] is None for row in found)
    assert "anna" not in json.dumps(found)
    assert [row["seq"] for row in rows(run(installed, "export", "--after", "8"))] == [9, 10]


def test_an_export_in_clear_is_journalled(installed: Path) -> None:
    found = rows(run(installed, "export", "--id", "T3", "--clear"))
    assert [row["kind"] for row in found] == ["verdict", "exported"]
    assert found[0]["private"] == {"from": ["anna@example.com"]}
    assert rows(run(installed, "export", "--after", "10"))[0]["kind"] == "exported"
    assert run(installed, "verify").exit_code == 0


def test_an_export_ends_at_the_last_entry_of_its_start(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 4)
    read = Journal.entries

    async def busy(journal: Journal, **which: Any) -> Any:
        await journal.record([event(Kind.START, "here") for _ in range(10)])
        return await read(journal, **which)

    monkeypatch.setattr(Journal, "entries", busy)
    assert [row["seq"] for row in rows(run(installed, "export"))] == list(range(1, 11))


def test_an_export_reports_entries_trimmed_during_it(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 4)
    read = Journal.entries

    async def trimmed(journal: Journal, **which: Any) -> Any:
        if which["after"] == 4:
            await journal._access.write(
                lambda batch: batch.connection.exec_driver_sql("DELETE FROM entry WHERE seq < 8")
            )
        return await read(journal, **which)

    monkeypatch.setattr(Journal, "entries", trimmed)
    result = run(installed, "export")
    assert [row["seq"] for row in rows(result)] == [1, 2, 3, 4, 8, 9, 10]
    assert result.stderr.startswith("smtpguard: entries 5 to 7 are gone")
    assert run(installed, "export", "--after", "2").stderr == "", "a later start has no missing entries"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_verify_says_what_an_authority_has_stamped(installed: Path) -> None:
    pytest.importorskip("rfc3161_client")
    authority = Authority(installed / "authority")
    (installed / "ca.pem").write_bytes(authority.root.public_bytes(Encoding.PEM))
    with (installed / "smtpguard.yaml").open("a") as file:
        file.write("audit: {timestamps: {ca_file: ca.pem}}\n")
    assert "There is no time stamp yet." in run(installed, "verify").stdout
    notes: list[str] = []

    async def sign(store: Store) -> None:
        await store.journal.checkpoint()
        [made] = await store.ask(lambda c: signed_after(c, -1, 1))
        notes.append(made.note)

    within(installed, sign)
    asked = request(notes[0])
    stamp = Timestamp(seq=1, note=notes[0], nonce=asked.nonce, reply=authority.reply(asked.octets))
    write_line(installed, TIMESTAMPS, stamp.line())
    result = run(installed, "verify")
    assert result.exit_code == 0, result.output
    assert re.search(r"\nA time-stamp authority proves that the entries up to 1\d existed at 20\d\d-", result.stdout)
    row = json.loads(run(installed, "verify", "--json").stdout)
    assert (row["ok"], row["timestamped"]["seq"], row["timestamps_bad"]) == (True, stamp.parse(stamp.line()).seq, [])
    write_line(installed, TIMESTAMPS, replace(stamp, nonce=7).line())
    result = run(installed, "verify")
    assert result.exit_code == 1
    assert re.search(r"\nA time stamp of entry 1\d is not valid: the reply has another nonce", result.stdout)
    other = Authority(installed / "other").root.public_bytes(Encoding.PEM)
    (installed / "ca.pem").write_bytes(other)
    assert "not signed under a certificate of ca_file" in run(installed, "verify").stdout
    (installed / "ca.pem").write_text("no certificate")
    result = run(installed, "verify")
    assert (result.exit_code, "no certificates in PEM" in result.stderr) == (2, True)
