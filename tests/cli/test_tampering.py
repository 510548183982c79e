"""Edits of the store outside smtpguard: ``audit verify`` names each kind, and exits 1."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smtpguard.config.documents import digest
from smtpguard.holds.model import Choice
from smtpguard.journal.chain import Seal, canonical, link
from smtpguard.journal.event import Event, Kind
from tests.cli.installing import install, running
from tests.guard.campaign import Campaign, documents
from tests.guard.house import KEY, MEMBERS, RAMADAN, House, house

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after a morning: a held mailing, a changed policy, mail to a list, one freeze in force and one lifted."""
    folder = tmp_path_factory.mktemp("lived")
    install(folder, KEY)

    async def work() -> None:
        async with house(folder, documents=documents()) as home:
            await _morning(home)

    gc.disable()  # garbage collection would leave part of the database in the WAL: the copied file has to be all of it
    try:
        asyncio.run(work())
        assert not (folder / "guard.db-wal").exists()
    finally:
        gc.enable()
    return folder


async def _morning(home: House) -> None:
    campaign = Campaign(home, copies=50)
    start = {"host": socket.gethostname(), "version": "1"}
    await home.store.journal.record([Event(kind=Kind.START, id="1", at=home.clock.now(), data=start)])
    for n in range(40):
        await campaign.send(MEMBERS[n])
        home.clock.pass_(seconds=20)
    await campaign.send(RAMADAN, mailing="greetings")
    (*_, entry) = await home.store.holds.newest()
    await campaign.decide(entry.hold_id, Choice.REJECT)
    for id in ("F1", "F2"):
        home.clock.pass_(minutes=2)
        await home.freeze(id=id)
    await home.thaw("F1")
    home.clock.pass_(minutes=2)
    for name in (b"Greetings", b"Our greetings"):
        text = documents()["policy.yaml"].replace(b"Ramadan greetings", name)
        sha256 = digest(made := {**documents(), "policy.yaml": text})
        put = Event(kind=Kind.POLICY, id=sha256[:16], at=home.clock.now(), data={"sha256": sha256})
        await home.store.policies.put(sha256, made, put)
    await home.follow()
    for _ in range(12):
        home.clock.pass_(minutes=1)
        await campaign.noted()
        await home.store.journal.record([Event(kind=Kind.LIST, id="news", at=home.clock.now(), data={"people": 2})])


@dataclass
class Intruder:
    """An attacker with the database and the state folder, but without the secret."""

    folder: Path
    connection: sqlite3.Connection

    def run(self, *statements: str) -> None:
        for statement in statements:
            assert self.connection.execute(statement).rowcount != 0, statement

    def one(self, query: str) -> Any:
        [value] = self.connection.execute(query).fetchone()
        return value

    @property
    def last(self) -> int:
        return int(self.one("SELECT MAX(seq) FROM entry"))

    def of(self, kind: Kind) -> int:
        return int(self.one(f"SELECT MIN(seq) FROM entry WHERE kind = '{kind.value}'"))

    def recompute(self, since: int = 1) -> None:
        """Recompute every hash from that entry on, and the head."""
        prev = self.connection.execute("SELECT hash FROM entry WHERE seq < ? ORDER BY seq DESC", [since]).fetchone()
        hash = prev[0] if prev else bytes(32)
        rows = self.connection.execute(
            "SELECT seq, at, kind, id, body FROM entry WHERE seq >= ? ORDER BY seq", [since]
        ).fetchall()
        for seq, at, kind, id, body in rows:
            before, hash = hash, link(hash, seq, at, kind, id, body)
            self.connection.execute("UPDATE entry SET prev = ?, hash = ? WHERE seq = ?", [before, hash, seq])
        self.connection.execute("UPDATE head SET hash = ?, seq = ?", [hash, self.last])

    def forget(self, since: int) -> None:
        """Remove the checkpoints from that entry on, in the database and in the file."""
        self.connection.execute("DELETE FROM checkpoint WHERE seq >= ?", [since])
        lines = self.file.read_text().splitlines()
        self.file.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["seq"] < since))

    @property
    def file(self) -> Path:
        return self.folder / "checkpoints"

    def cut(self, since: int) -> None:
        for table in ("entry", "clear"):
            self.connection.execute(f"DELETE FROM {table} WHERE seq >= ?", [since])
        self.connection.execute(
            "UPDATE head SET seq = ?, hash = (SELECT hash FROM entry WHERE seq = ?)", [since - 1] * 2
        )

    def append(self, kind: Kind, id: str, at: int, data: dict[str, Any]) -> None:
        seq, prev = self.connection.execute("SELECT seq, hash FROM head").fetchone()
        body = canonical({"data": data, "private": {}})
        hash = link(prev, seq + 1, at, kind.value, id, body)
        self.connection.execute(
            "INSERT INTO entry (seq, at, kind, id, body, prev, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [seq + 1, at, kind.value, id, body, prev, hash],
        )
        self.connection.execute("UPDATE head SET seq = ?, hash = ?", [seq + 1, hash])


verify = running("audit", "verify")


def copied(prepared: Path, folder: Path) -> Path:
    for name in ("guard.db", "checkpoints", "secret"):
        shutil.copyfile(prepared / name, folder / name)
    install(folder, KEY)
    return folder


def tampered(prepared: Path, folder: Path, do: Callable[[Intruder], object]) -> list[str]:
    """The problems that ``audit verify`` names, each as ``entry N: ...`` or ``mailing: ...``."""
    copied(prepared, folder)
    with closing(sqlite3.connect(folder / "guard.db")) as connection, connection:
        do(Intruder(folder, connection))
    result = verify(folder, "--json")
    found = json.loads(result.stdout)
    named = [f"{one['about']}: {one['problem']}" for one in found["beside"]]
    if found["first_bad"] is not None:
        named.append(found["first_bad"]["problem"])
    assert result.exit_code == (1 if named else 0), result.output
    assert found["ok"] is not bool(named)
    told = verify(folder)
    assert told.exit_code == result.exit_code
    return named


def _edit(do: Intruder) -> None:
    do.run(f"UPDATE entry SET body = replace(body, 'hold', 'held') WHERE seq = {do.of(Kind.VERDICT) + 6}")


def _edit_and_recompute(do: Intruder) -> None:
    _edit(do)
    do.recompute(7)


def _edit_recompute_forget(do: Intruder) -> None:
    _edit_and_recompute(do)
    do.forget(7)


def _forged_freeze(do: Intruder, before: int = DAY) -> None:
    do.append(Kind.FREEZE, "F9", do.one(f"SELECT at FROM entry WHERE seq = {do.last}") - before, {"selector": "all"})


def _forged_freeze_and_gate(do: Intruder) -> None:
    _forged_freeze(do)
    do.run("INSERT INTO freeze SELECT 'F9', FALSE, replace(doc, 'F2', 'F9') FROM freeze WHERE freeze_id = 'F2'")


def _other_id(do: Intruder) -> None:
    do.run(f"UPDATE entry SET id = 'X' WHERE seq = {do.of(Kind.VERDICT)}")


def _reorder(do: Intruder) -> None:
    do.run("UPDATE entry SET seq = -1 WHERE seq = 9", "UPDATE entry SET seq = 9 WHERE seq = 20",
           "UPDATE entry SET seq = 20 WHERE seq = -1")  # fmt: skip
    do.connection.execute("DELETE FROM clear WHERE seq IN (9, 20)")


def _insert(do: Intruder) -> None:
    do.run("UPDATE entry SET seq = -seq WHERE seq >= 9", "UPDATE entry SET seq = 1 - seq WHERE seq < 0")
    do.connection.execute("UPDATE clear SET seq = -seq WHERE seq >= 9")
    do.connection.execute("UPDATE clear SET seq = 1 - seq WHERE seq < 0")
    do.connection.execute(
        "INSERT INTO entry SELECT 9, at, kind, 'X', body, zeroblob(32), zeroblob(32), NULL, NULL, NULL, NULL FROM entry WHERE seq = 8"
    )


def _beside_the_secret(do: Intruder) -> None:
    """Insert a name with digests of another key, recompute the chain, and remove the checkpoints."""
    seq = do.of(Kind.VERDICT)
    body = json.loads(do.one(f"SELECT body FROM entry WHERE seq = {seq}"))
    body["private"]["from"] = [Seal(b"another", "journal").of("from", "otto@example.com")]
    do.connection.execute("UPDATE entry SET body = ? WHERE seq = ?", [canonical(body), seq])
    do.recompute(seq)
    do.connection.execute("DELETE FROM checkpoint")
    do.file.write_text("")


def _counts(do: Intruder, **changed: Any) -> None:
    [(n, counts)] = do.connection.execute("SELECT n, counts FROM mailing WHERE people = 40").fetchall()
    do.connection.execute("UPDATE mailing SET counts = ? WHERE n = ?", [json.dumps(json.loads(counts) | changed), n])


def _fewer_counted(do: Intruder) -> None:
    """466 people become 266."""
    _counts(do, fates=[0, 0, 0, 10, 4, 0, 0, 0, 0])


def _file_forged(do: Intruder) -> None:
    *_, last = do.file.read_text().splitlines()
    fields = json.loads(last)
    do.file.write_text(do.file.read_text() + json.dumps(fields | {"seq": fields["seq"] + 5}) + "\n")


def _policy_edited(do: Intruder) -> None:
    do.run(
        "UPDATE document SET data = CAST(replace(CAST(data AS TEXT), 'then: hold', 'then: relay') AS BLOB) WHERE name = 'policy.yaml'"
    )


def _reach_of_list(do: Intruder) -> None:
    do.run("UPDATE reached SET weight = weight + 200 WHERE n = (SELECT MAX(n) FROM mailing)")
    [(n, counts)] = do.connection.execute("SELECT n, counts FROM mailing ORDER BY n DESC LIMIT 1").fetchall()
    made = json.loads(counts)
    made["fates"] = [each + 200 if each else 0 for each in made["fates"]]
    do.connection.execute("UPDATE mailing SET counts = ?, people = people + 200 WHERE n = ?", [json.dumps(made), n])


def _cut_with_words(do: Intruder) -> None:
    do.connection.execute("INSERT INTO terms VALUES ('key', ?)", [do.last])
    since = do.last - 6
    do.cut(since)
    do.forget(since)


def _cut_with_hook(do: Intruder) -> None:
    do.connection.execute("INSERT INTO hook VALUES ('audit log', ?, 0, 0, 0, 0, 0)", [do.last])
    since = do.last - 6
    do.cut(since)
    do.forget(since)


def _cut_with_hold(do: Intruder) -> None:
    since = do.one("SELECT MAX(seq) FROM entry WHERE kind = 'verdict'")
    do.cut(since)
    do.forget(since)


def _cut_in_the_database(do: Intruder) -> None:
    do.cut(do.last - 5)
    do.run(f"DELETE FROM checkpoint WHERE seq > {do.last}")


def _hold_put_in(do: Intruder) -> None:
    do.connection.execute("CREATE TEMP TABLE copy AS SELECT * FROM hold LIMIT 1")
    do.run("UPDATE copy SET hold_id = 'X'", "INSERT INTO hold SELECT * FROM copy")


def _trim_without_a_word(do: Intruder) -> None:
    for table in ("entry", "clear"):
        do.connection.execute(f"DELETE FROM {table} WHERE seq < 12")


WAYS: dict[str, tuple[Callable[[Intruder], object], str]] = {
    "an entry edited": (_edit, "edited: the entry does not fit its hash"),
    "an entry's id edited": (_other_id, "edited: the entry does not fit its hash"),
    "an entry's time edited": (lambda do: do.run("UPDATE entry SET at = at - 1 WHERE seq = 9"), "edited: the entry does not fit"),
    "an entry's kind edited": (lambda do: do.run("UPDATE entry SET kind = 'outcome' WHERE seq = 9"), "edited: the entry does not fit"),
    "an entry's hash edited": (lambda do: do.run("UPDATE entry SET hash = prev WHERE seq = 9"), "edited: the entry does not fit"),
    "an entry removed": (lambda do: do.run("DELETE FROM entry WHERE seq = 9"), "missing: entry 9 is gone"),
    "several removed": (lambda do: do.run("DELETE FROM entry WHERE seq BETWEEN 9 AND 12"), "missing: entries 9 to 12 are gone"),
    "two swapped": (_reorder, "reordered: the entry stood elsewhere"),
    "one inserted": (_insert, "inserted: the entry belongs to no chain"),
    "the beginning cut": (_trim_without_a_word, "missing: entries 1 to 11 are gone"),
    "the tail cut": (lambda do: do.run(f"DELETE FROM entry WHERE seq > {do.last - 5}"), "the tail is cut, or this is an older copy"),
    "the tail cut, and the head": (lambda do: do.cut(do.last - 5), "the tail is cut, or this is an older copy"),
    "the tail, the head and the database's checkpoints": (_cut_in_the_database, "the tail is cut, or this"),
    "the head changed": (lambda do: do.run("UPDATE head SET hash = zeroblob(32)"), "replaced: the journal's head is another"),
    "edited and recomputed": (_edit_and_recompute, "recomputed, or put back and gone on"),
    "edited, recomputed, newer checkpoints removed": (_edit_recompute_forget, "unsigned: no checkpoint covers the entries up to"),
    "checkpoints between removed": (lambda do: do.forget(4), "unsigned: no checkpoint covers"),
    "tail and checkpoint file cut, search terms left": (_cut_with_words, "journal: the tail is cut: the index of words"),
    "tail and checkpoint file cut, webhook cursor left": (_cut_with_hook, "journal: the tail is cut: audit log was sent"),
    "tail and checkpoint file cut, hold left": (_cut_with_hold, "hold: the store knows it, and the journal has no entry"),
    "a name edited": (lambda do: do.run("UPDATE clear SET doc = replace(doc, 'anna', 'otto') WHERE seq = 9"), "edited: private values do not fit"),
    "a name removed": (lambda do: do.run("DELETE FROM clear WHERE seq = 9"), "private values are missing"),
    "a name inserted under another key": (_beside_the_secret, "edited: private values do not fit their digests"),
    "a column emptied": (lambda do: do.run("UPDATE entry SET action = NULL WHERE action = 'hold'"), "edited: the columns by which"),
    "a freeze forged": (lambda do: _forged_freeze(do, 0), "freeze: the journal says that it is in force, and the gate does not"),
    "a freeze forged and backdated": (_forged_freeze, "backdated: it says 2026-03-01"),
    "a freeze forged, backdated, and in the gate": (_forged_freeze_and_gate, "backdated: it says 2026-03-01"),
    "a freeze put in the gate alone": (
        lambda do: do.run("INSERT INTO freeze SELECT 'F9', FALSE, replace(doc, 'F2', 'F9') FROM freeze WHERE freeze_id = 'F2'"),
        "freeze: it is in force, and the journal has no entry",
    ),
    "a freeze lifted in the gate alone": (lambda do: do.run("UPDATE freeze SET lifted = TRUE WHERE freeze_id = 'F2'"), "freeze: it was lifted"),
    "a freeze set again": (lambda do: do.run("UPDATE freeze SET lifted = FALSE WHERE freeze_id = 'F1'"), "freeze: it is in force, and the journal says that"),
    "an old policy edited": (_policy_edited, "policy: edited: its text does not fit the SHA-256"),
    "an old policy removed": (lambda do: do.run("DELETE FROM document WHERE policy <> (SELECT policy FROM head)"), "policy: missing: the journal"),
    "another policy put in force": (
        lambda do: do.run("UPDATE head SET policy = (SELECT policy FROM document WHERE policy <> head.policy LIMIT 1)"), "policy: it is in force, and",
    ),
    "a mailing's counts edited": (_fewer_counted, "mailing: edited: its counts say 40 people, and 40 are there"),
    "a mailing's messages edited": (lambda do: _counts(do, messages=466), "mailing: edited: its counts say 466 messages, and the journal has 40"),
    "a mailing's people edited": (
        lambda do: do.run("UPDATE reached SET person = zeroblob(8) WHERE person = (SELECT MAX(person) FROM reached WHERE n = 1)"),
        "mailing: edited: of 1 of its people the journal has no message",
    ),
    "a mailing's column edited": (lambda do: do.run("UPDATE mailing SET people = 466 WHERE people = 40"), "mailing: edited: its counts say 466 people, and 40"),
    "a list's size edited in a mailing": (_reach_of_list, "mailing: edited: it counts"),
    "a hold inserted": (_hold_put_in, "hold: the store knows it, and the journal has no entry of it"),
    "a checkpoint forged in the file": (_file_forged, "a checkpoint that does not agree was not signed here"),
    "a checkpoint damaged in the database": (lambda do: do.run("UPDATE checkpoint SET line = '?'"), "a checkpoint in the database cannot be read"),
    "the file of checkpoints removed": (lambda do: do.file.unlink(), "checkpoints: missing: the guard was started on this host"),
    "the file of checkpoints emptied": (lambda do: do.file.write_text(""), "checkpoints: missing: the guard was started on this host"),
}  # fmt: skip
"""Each edit, and the text that names it."""


def test_an_untouched_journal_is_whole(prepared: Path, tmp_path: Path) -> None:
    assert tampered(prepared, tmp_path, lambda do: None) == []
    assert verify(tmp_path).stdout.startswith("The journal is whole: ")


def test_the_name_of_another_journal_is_refused(prepared: Path, tmp_path: Path) -> None:
    copied(prepared, tmp_path)
    with closing(sqlite3.connect(tmp_path / "guard.db")) as connection, connection:
        connection.execute("UPDATE head SET journal = 'another'")
    result = verify(tmp_path)
    assert (result.exit_code, "is not the store that" in result.stderr) == (2, True), result.output


@pytest.mark.parametrize("way", WAYS)
def test_each_kind_of_tampering_is_reported(prepared: Path, tmp_path: Path, way: str) -> None:
    do, name = WAYS[way]
    named = tampered(prepared, tmp_path, do)
    assert any(one.startswith(name) for one in named), named
