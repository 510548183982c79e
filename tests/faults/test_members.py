"""A list's source that is missing, empty, halved or no file: the last good index stays in use, with a notice.

If there never was an index, mail that may be a mailing is held, and ordinary mail to few people passes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpguard.journal.event import Kind
from tests.faults.machine import ANNA, Machine, machine, members
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, member, until
from tests.peers.letters import mail

FIFTY = [member(n) for n in range(50)]


def breakage(csv: Path) -> dict[str, tuple[Callable[[], object], str]]:
    def folder() -> None:
        csv.unlink()
        csv.mkdir()

    return {
        "missing": (csv.unlink, "No such file"),
        "empty": (lambda: csv.write_text(""), ""),
        "half the size": (lambda: csv.write_text(members(75)), "75"),
        "not to be read": (folder, "directory"),
    }


@pytest.mark.parametrize("how", ["missing", "empty", "half the size", "not to be read"])
def test_the_last_good_index_stays_in_use(home: tuple[Machine, Recorder], how: str) -> None:
    guard, recorder = home
    csv = guard.root / "ramadan.csv"
    before = listed(guard)
    breaks, why = breakage(csv)[how]
    breaks()
    try:
        done = guard.run("lists", "sync", exits=1)
        assert why.lower() in done.stderr.lower()
        shown = listed(guard)
        assert shown["people"] == before["people"] == 150
        assert shown["failure"]
        id = f"fifty-{how.replace(' ', '-')}@example.com"
        assert "Held" in Mta(guard).deliver(mail(to="all@example.com", message_id=id), ANNA, *FIFTY).text
        one = mail(to=FIFTY[0], subject=how, text=f"Hej!\n\nPumpen är {how} på torsdag.\n", message_id=f"one-{id}")
        assert Mta(guard).deliver(one, ANNA, FIFTY[0]).code == 250
        assert recorder.with_id(f"one-{id}")
    finally:
        if csv.is_dir():
            shutil.rmtree(csv)
        csv.write_text(members())
        guard.run("lists", "sync")
    assert not listed(guard)["failure"]


def listed(guard: Machine) -> dict[str, object]:
    import json

    row = json.loads(guard.run("--json", "lists", "show", exits=None).stdout)
    assert isinstance(row, dict)
    return row


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with machine(tmp_path_factory.mktemp("members")) as made:
        yield made


def test_without_any_index_unknown_facts_take_effect(tmp_path: Path) -> None:
    """The export and its index are gone at a start: the guard runs, and unknown facts take effect."""
    with Recorder() as recorder:
        guard = Machine(tmp_path / "guard", recorder.port)
        with guard:
            pass  # the first start puts the policy in force
        (guard.root / "ramadan.csv").unlink()
        for index in (guard.root / "var" / "indexes").rglob("*"):
            if index.is_file():
                index.unlink()
        with guard:
            one = Mta(guard).deliver(mail(to=FIFTY[0], message_id="one@example.com"), ANNA, FIFTY[0])
            assert one.code == 250
            assert recorder.with_id("one@example.com"), "ordinary mail passes"
            many = Mta(guard).deliver(mail(to="all@example.com", message_id="fifty@example.com"), ANNA, *FIFTY)
            assert "Held" in many.text
            assert not recorder.with_id("fifty@example.com")
            alarm = lambda: [d for k, d in guard.history("ramadan-greetings") if k is Kind.LIST and d["problem"]]  # noqa: E731
            until(alarm, "the word that the list cannot be read")
            (guard.root / "ramadan.csv").write_text(members())
            guard.run("lists", "sync")
            guard.verified()
