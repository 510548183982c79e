"""smtpguard returns, as an MTA's pipe and at a terminal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.cli.installing import install, running
from tests.guard.house import KEY, MEMBERS, house
from tests.returns.mails import Out, dsn, letter


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """An installation that sent a mailing; in its folder are a bounce of it and an unrelated letter."""
    install(tmp_path, KEY)

    async def work() -> None:
        async with house(tmp_path) as home:
            [copy] = await Out(home).to_members(0, 1)
            (tmp_path / "bounce.eml").write_bytes(bytes(dsn(copy, MEMBERS[0]).raw[:]))
            (tmp_path / "letter.eml").write_bytes(bytes(letter("x@elsewhere.example", "Well").raw[:]))

    asyncio.run(work())
    return tmp_path


run = running("returns")


def test_a_bounce_from_a_pipe_is_recorded_and_found(prepared: Path) -> None:
    mail = (prepared / "bounce.eml").read_bytes().replace(b"\r\n", b"\n")
    assert run(prepared, "take", "--to", "bounces@example.com", input=mail).exit_code == 0
    assert run(prepared, "take", "--to", "bounces@example.com", input=mail).exit_code == 0, "it is stored once"
    assert run(prepared, "take", str(prepared / "letter.eml")).exit_code == 0
    [bounce] = map(json.loads, run(prepared, "list", "--sort", "bounce", "--json").stdout.splitlines())
    assert (bounce["known_by"], bounce["counts"], bounce["address"]) == ("trace", True, MEMBERS[0])
    assert len(run(prepared, "list").stdout.splitlines()) == 2
    [line] = run(prepared, "list", "--mailing", bounce["mailing"][:6]).stdout.splitlines()
    assert f"bounce; of {bounce['mailing']} (by its trace); {MEMBERS[0]}; 5.1.1" in line
    exported = run(prepared, "export", bounce["id"][:8])
    assert exported.stdout_bytes == mail.replace(b"\n", b"\r\n")
    for wrong in ("list --mailing NOSUCH", "export zz", "export :"):
        assert run(prepared, *wrong.split()).exit_code == 1
    kinds = running("audit", "export")(prepared).stdout
    assert kinds.count('"kind": "returned"') == 2
    assert '"what": "returned"' in kinds
    assert kinds.count('"what": "returns"') == 3, "each query with names is journalled"


def test_an_id_prints_the_number_of_returns(prepared: Path) -> None:
    assert run(prepared, "take", str(prepared / "bounce.eml")).exit_code == 0
    [bounce] = map(json.loads, run(prepared, "list", "--json").stdout.splitlines())
    shown = run(prepared, bounce["mailing"][:8])
    assert "Bounces: 1, of which 1 count (100 %)" in shown.stdout
    assert "The first copy went out" in shown.stdout
    found = json.loads(run(prepared, "show", bounce["mailing"], "--json").stdout)
    assert found["sorts"] == [{"sort": "bounce", "returns": 1, "counted": 1, "likely": 0}]
    assert run(prepared, "NOSUCH").exit_code == 1


def test_any_failure_makes_the_mta_retry(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr("smtpguard.returns.service.Returns.take", fails)
        assert run(prepared, "take", input=b"Subject: x\r\n\r\nx\r\n").exit_code == 75
    (prepared / "guard.db").rename(prepared / "elsewhere.db")
    said = run(prepared, "take", input=b"Subject: x\r\n\r\nx\r\n")
    assert said.exit_code == 75
    assert "it is not stored, and stays where it was" in said.stderr
    assert run(prepared, "take", str(prepared / "nosuch.eml")).exit_code == 75
    (prepared / "smtpguard.yaml").write_text("nonsense: [")
    assert run(prepared, "take", input=b"Subject: x\r\n\r\nx\r\n").exit_code == 75
