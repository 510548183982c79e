"""Proof without the secret: exports and single entries checked by docs/verify.py, renewed keys, and a witness's
checkpoints."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from smtpguard.journal.checkpoint import Key, digest, notes_in, read, signed_by
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.linefiles import TIMESTAMPS, write_line
from smtpguard.journal.timestamp import Timestamp, request
from smtpguard.store.store import Store, open_store
from tests.cli.installing import install, running
from tests.cli.test_tampering import Intruder
from tests.clocks import Clock
from tests.observe.authority import Authority
from tests.store.making import POLICY, SECRET, event, item, relays

run = running("audit")

VERIFY = Path(__file__).parents[2] / "docs" / "verify.py"


def within(folder: Path, work: Callable[[Store], Awaitable[object]], clock: Clock | None = None) -> None:
    async def run() -> None:
        url = f"sqlite:///{folder}/guard.db"
        async with open_store(url, secret=SECRET, state_dir=folder, clock=clock or Clock(), migrate=True) as store:
            await work(store)

    asyncio.run(run())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lived")
    install(folder, SECRET)

    async def some(store: Store) -> None:
        await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
        for n in range(30):
            await store.admit(item(f"T{n}"), relays(f"T{n}"))
            if n % 7 == 0:
                await store.journal.checkpoint()

    within(folder, some)
    return folder


@pytest.fixture
def installed(prepared: Path, tmp_path: Path) -> Path:
    for name in ("guard.db", "checkpoints"):
        shutil.copyfile(prepared / name, tmp_path / name)
    install(tmp_path, SECRET)
    return tmp_path


def output(installed: Path, *args: str) -> str:
    result = run(installed, *args)
    assert result.exit_code == 0, result.output
    return result.stdout


def verified(key: str, text: str, folder: Path, *notes: str) -> tuple[int, str]:
    """Exit status and output of the auditor's program, which imports nothing of smtpguard."""
    (folder / "export.jsonl").write_text(text)
    more = []
    if notes:
        (folder / "notes").write_text("\n".join(notes))
        more = [str(folder / "notes")]
    made = subprocess.run(
        [sys.executable, "-I", str(VERIFY), key.strip(), str(folder / "export.jsonl"), *more],
        capture_output=True,
        text=True,
    )
    return made.returncode, made.stdout + made.stderr


def test_the_program_is_short_and_imports_nothing_of_smtpguard() -> None:
    text = VERIFY.read_text()
    assert len(text.splitlines()) <= 160
    assert "import smtpguard" not in text
    assert "from smtpguard" not in text


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    for words, said in (
        ([], "usage: verify.py KEY FILE [NOTES]"),
        (["key", str(tmp_path / "none")], "verify: FileNotFoundError: "),
    ):
        made = subprocess.run([sys.executable, VERIFY, *words], capture_output=True, text=True, check=False)
        assert (made.returncode, made.stderr.count("\n")) == (1, 1)
        assert made.stderr.startswith(said)


def test_a_whole_export_is_verified_without_a_secret(installed: Path, tmp_path: Path) -> None:
    export = output(installed, "export", "--signed")
    status, said = verified(output(installed, "key"), export, tmp_path)
    assert (
        status,
        said.startswith("31 entries follow each other; signed up to entry 31, at 2026-03-02T09:00:00Z"),
    ) == (0, True), said
    rows = [json.loads(line) for line in export.splitlines()]
    assert [n for n, row in enumerate(rows) if "checkpoint" in row] == [2, 10, 18, 26, 34, 36]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_a_time_stamp_of_an_export_must_be_over_its_checkpoint(installed: Path, tmp_path: Path) -> None:
    """The program compares what is stamped; the command that it prints proves who stamped it."""
    pytest.importorskip("rfc3161_client")
    rows = [json.loads(line) for line in output(installed, "export", "--signed").splitlines()]
    first, *_, last = [row["checkpoint"] for row in rows if "checkpoint" in row]
    authority = Authority(tmp_path / "authority")
    for note in (first, last):
        asked = request(note)
        made = Timestamp(seq=read(note).seq, note=note, nonce=asked.nonce, reply=authority.reply(asked.octets))
        write_line(installed, TIMESTAMPS, made.line())
    export, key = output(installed, "export", "--signed"), output(installed, "key")
    status, said = verified(key, export, tmp_path)
    lines = said.splitlines()
    stamps = [line.split(": ")[0] for line in lines if line.startswith("time stamp")]
    assert (status, stamps) == (0, [f"time stamp over the checkpoint of entry {seq}" for seq in (2, 31)]), said
    openssl = lines[-2].partition(": ")[2] + "\n" + lines[-1]
    (tmp_path / "authority.pem").write_bytes(authority.root.public_bytes(Encoding.PEM))
    by_hand = subprocess.run(["sh", "-ec", openssl], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verification: OK" in by_hand.stdout + by_hand.stderr, by_hand.stderr
    for n, changed in enumerate(({"checkpoint": first}, {"timestamp": "MAA="}, {"timestamp": "=", "checkpoint": last})):
        broken = _line(export, -1, **changed)
        status, said = verified(key, broken, tmp_path)
        assert (status, "is over something else, or cannot be read" in said) == (1, True), (n, said)


def test_the_export_of_a_trimmed_journal_has_its_checkpoints(installed: Path) -> None:
    """The last checkpoint of what was trimmed has no entry any more."""
    with closing(sqlite3.connect(installed / "guard.db")) as connection, connection:
        connection.execute("DELETE FROM entry WHERE seq <= 2")
    rows = map(json.loads, output(installed, "export", "--signed").splitlines())
    assert [read(row["checkpoint"]).seq for row in rows if "checkpoint" in row] == [2, 9, 16, 23, 30, 31]


def _line(text: str, n: int, **changed: Any) -> str:
    lines = text.splitlines()
    lines[n] = json.dumps(json.loads(lines[n]) | changed)
    return "".join(f"{line}\n" for line in lines)


TAMPERINGS: dict[str, tuple[Callable[[str], str], str]] = {
    "edited": (lambda t: _line(t, 4, body='{"data":{},"private":{}}'), "entry 4 was edited"),
    "its time": (lambda t: _line(t, 4, at_microseconds=1), "entry 4 was edited"),
    "what people read": (lambda t: t.replace('"data": {"action": "relay"', '"data": {"action": "hold"', 1), "at or data, which people read"),
    "the time that people read": (lambda t: t.replace('"at": "2026', '"at": "2025', 1), "entry 1 was edited: at or data"),
    "a key twice": (lambda t: t.replace('"data":', '"data": {}, "data":', 1), "a line has the same key twice"),
    "everything removed": (lambda t: "", "there is no entry"),
    "a line removed": (lambda t: "".join(line for n, line in enumerate(t.splitlines(True)) if n != 4), "does not follow entry 3"),
    "the beginning cut": (lambda t: "".join(t.splitlines(True)[3:]).replace('"seq": 3', '"seq": 1'), "entry 1 "),
    "the end cut, checkpoints kept": (
        lambda t: "".join(line for line in t.splitlines(True) if '"checkpoint"' in line or json.loads(line)["seq"] < 20),
        "the end is cut: entries up to 31 were signed",
    ),
    "no checkpoints": (lambda t: "".join(line for line in t.splitlines(True) if '"checkpoint"' not in line), "no checkpoint signs"),
    "a checkpoint edited": (lambda t: t.replace("time 2026", "time 2025"), "not signed by this key"),
}  # fmt: skip


@pytest.mark.parametrize("way", TAMPERINGS)
def test_a_tampered_export_is_refused(installed: Path, tmp_path: Path, way: str) -> None:
    do, name = TAMPERINGS[way]
    status, said = verified(output(installed, "key"), do(output(installed, "export", "--signed")), tmp_path)
    assert (status, name in said) == (1, True), said


def test_a_rebuilt_chain_does_not_match_the_signatures(installed: Path, tmp_path: Path) -> None:
    export, key = output(installed, "export", "--signed"), output(installed, "key")
    notes = [row["checkpoint"] for row in map(json.loads, export.splitlines()) if "checkpoint" in row]
    with closing(sqlite3.connect(installed / "guard.db")) as connection, connection:
        do = Intruder(installed, connection)
        do.run("UPDATE entry SET body = replace(body, 'relay', 'hold') WHERE seq = 9", "DELETE FROM checkpoint")
        do.recompute()
        do.file.write_text("")
    again = output(installed, "export", "--signed")
    status, said = verified(key, again, tmp_path, *(json.dumps({"event": note.replace("\n", "\\n")}) for note in notes))
    assert (status, "is not the one that was signed at" in said) == (1, True), said


def test_every_entry_is_proved_separately(installed: Path, tmp_path: Path) -> None:
    key = output(installed, "key")
    for seq in (1, 2, 16, 30, 31):
        proof = output(installed, "prove", str(seq))
        assert len(json.loads(proof)["path"]) <= 5
        status, said = verified(key, proof, tmp_path)
        assert (status, said) == (0, f"entry {seq} is in the journal that was signed at 2026-03-02T09:00:00Z\n"), said
    for edited, why in (
        (_line(proof, 0, leaf=3), "not in the tree"),
        (proof.replace('"data": {', '"data": {"x": 1, '), "at or data"),
    ):
        status, said = verified(key, edited, tmp_path)
        assert (status, why in said) == (1, True), said
    assert run(installed, "prove", "32").exit_code == 2


def test_a_new_key_is_signed_by_the_old_one(installed: Path, tmp_path: Path) -> None:
    first = output(installed, "key")
    second = output(installed, "key", "rotate")
    assert second != first
    assert output(installed, "key") == second
    assert json.loads(output(installed, "verify", "--json"))["ok"]
    export = output(installed, "export", "--signed")
    for key in (first, second):
        assert verified(key, export, tmp_path)[0] == 0
    forged = export.replace(json.dumps(Key.parse(second).name)[1:-1], "x")
    assert verified(first, forged, tmp_path)[0] == 1


def test_each_checkpoint_names_its_predecessor(installed: Path) -> None:
    rows = map(json.loads, output(installed, "export", "--signed").splitlines())
    notes = [row["checkpoint"] for row in rows if "checkpoint" in row]
    assert [read(note).before for note in notes] == ["", *map(digest, notes[:-1])]
    key = Key.parse(output(installed, "key"))
    assert all(signed_by(note, [key]) == key for note in notes)
    assert notes_in("\n".join(f"Mar 2 guard: \n{note}\nmore" for note in notes)) == notes
    logged = [json.dumps({"event": "checkpoint: " + note.replace("\n", "\\n")}) for note in notes]
    assert notes_in("\n".join(logged)) == notes, "as the log has them, in JSON"
    assert notes_in("".join(f"guard[7]: checkpoint: {note!r}\n" for note in notes)) == notes


def test_a_witness_exposes_a_rebuilt_store(installed: Path) -> None:
    """A witness's checkpoint exposes a journal that was rebuilt with the secret, whose signatures are valid."""
    rows = map(json.loads, output(installed, "export", "--signed").splitlines())
    notes = "\n".join(row["checkpoint"] for row in rows if "checkpoint" in row)
    (installed / "kept").write_text(notes)
    assert "A witness has a checkpoint of entry 31" in output(installed, "verify", "--against", str(installed / "kept"))
    (installed / "checkpoints").unlink()
    with closing(sqlite3.connect(installed / "guard.db")) as connection, connection:
        do = Intruder(installed, connection)
        do.run("DELETE FROM checkpoint", "DELETE FROM underway")
        do.cut(20)

    async def continues(store: Store) -> None:
        await store.journal.record([Event(kind=Kind.START, id=str(n), at=store.now(), data={}) for n in range(10)])

    within(installed, continues)
    alone = run(installed, "verify")
    assert alone.exit_code == 0, "only this host's own signature"
    assert "No witness has a checkpoint of it" in alone.stdout
    result = run(installed, "verify", "--against", "-", input=notes)
    assert result.exit_code == 1
    assert "recomputed, or put back" in result.stdout
    assert run(installed, "verify", "--against", "-", input="nothing").exit_code == 2


def test_a_replaced_key_is_reported(installed: Path) -> None:
    rows = map(json.loads, output(installed, "export", "--signed").splitlines())
    notes = "\n".join(row["checkpoint"] for row in rows if "checkpoint" in row)
    other = notes.replace("\u2014 smtpguard/", "\u2014 smtpguard/0")
    result = run(installed, "verify", "--against", "-", input=other)
    assert (result.exit_code, "not signed by a key of this journal" in result.stdout) == (1, True)


def test_a_note_edited_beside_its_checkpoint_is_reported(installed: Path) -> None:
    with closing(sqlite3.connect(installed / "guard.db")) as connection, connection:
        for seq, line in connection.execute("SELECT seq, line FROM checkpoint ORDER BY seq DESC LIMIT 1").fetchall():
            fields = json.loads(line)
            made = fields["note"].replace("time 2026", "time 2025")
            connection.execute(
                "UPDATE checkpoint SET line = ? WHERE seq = ?", [json.dumps(fields | {"note": made}), seq]
            )
    result = run(installed, "verify", "--json")
    assert "do not say the same" in json.loads(result.stdout)["first_bad"]["problem"]


def test_an_edited_tree_is_reported(installed: Path) -> None:
    def checkpoint_gone(do: Intruder) -> None:
        middle = do.one("SELECT seq FROM checkpoint ORDER BY seq LIMIT 1 OFFSET 2")
        do.run(f"DELETE FROM checkpoint WHERE seq = {middle}")
        do.file.write_text(
            "".join(f"{x}\n" for x in do.file.read_text().splitlines() if json.loads(x)["seq"] != middle)
        )

    with closing(sqlite3.connect(installed / "guard.db")) as connection, connection:
        checkpoint_gone(Intruder(installed, connection))
    found = json.loads(run(installed, "verify", "--json").stdout)
    assert found["first_bad"]["problem"].startswith("removed: the checkpoint before this one")
