"""A new index replaces the old one only if it is complete and plausible; otherwise the last good one stays, with a report. An outage is
reported once, and its end once.
"""

from __future__ import annotations

import errno
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from smtpguard.lists.index import Index, index_path
from smtpguard.lists.sources import Cell, Tally
from smtpguard.lists.sources.files import FileSource
from smtpguard.lists.sources.opening import opened
from smtpguard.lists.sync import News, Refresher, Report, stored_report
from smtpguard.locale.speech import Speech
from tests.every import every
from tests.lists.conftest import House
from tests.lists.declaring import lists_of, source

PEOPLE = [f"p{i}@kund.se" for i in range(100)]


def index(house: House, name: str = "news") -> Index:
    return Index(index_path(house.folder, name), house.digester.key_id)


def test_a_first_sync_and_an_unchanged_one(house: House) -> None:
    house.list("news", PEOPLE)
    first = house.sync("news")
    assert (first.ok, first.changed, first.people, first.rows, first.source) == (True, True, 100, 100, "news.csv")
    assert first.version == index(house).version
    inode = index_path(house.folder, "news").stat().st_ino
    house.clock.pass_(hours=1)
    again = house.sync("news")
    assert (again.ok, again.changed, again.people, again.sources[0].read_at) == (True, False, 100, first.at)
    assert again.sources[0].checked_at == again.at
    stat = index_path(house.folder, "news").stat()
    assert (stat.st_ino, stat.st_mtime) == (
        inode,
        house.clock.now().timestamp(),
    )  # not read again, and known to be fresh
    assert house.sync("news", force=True).sources[0].read_at == house.clock.now()


def test_an_unchanged_file_that_can_no_longer_be_read_is_an_outage(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.list("news", PEOPLE)
    house.sync("news")

    def denied(path: Path) -> BinaryIO:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("smtpguard.lists.sources.files.open_file", denied)  # a test may be root, who may read all
    report = house.sync("news")
    assert (set(report.news), report.people) == ({News.FAILED}, 100)
    assert str(report.problem).endswith("news.csv: Permission denied; the last good index stays in use")


def test_new_people_are_added(house: House) -> None:
    house.list("news", PEOPLE)
    house.sync("news")
    house.list("news", [*PEOPLE, "new@kund.se"])
    report = house.sync("news")
    assert (report.people, report.changed) == (101, True)


def test_the_number_of_added_and_removed_people_is_reported(house: House) -> None:
    house.list("news", PEOPLE)
    first = house.sync("news")
    assert (first.before, first.added, first.removed) == ("", None, None)
    house.list("news", [*PEOPLE[3:], "new@kund.se", "newer@kund.se"])
    report = house.sync("news")
    assert (report.before, report.added, report.removed) == (first.version, 2, 3)
    again = house.sync("news")
    assert (again.before, again.added, again.removed) == ("", None, None)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([], "no column name|has no members"),
        (PEOPLE[:79], "79 people, 21% fewer than the 100 before"),
        ([*PEOPLE, *["rubbish"] * 6], "6 of 106 rows hold no address"),
        (None, "No such file"),
    ],
)
def test_an_implausible_source_keeps_the_last_good_index(house: House, members: list[str] | None, problem: str) -> None:
    house.list("news", PEOPLE)
    house.sync("news")
    before = index(house).version
    house.clock.pass_(hours=1)
    if members is None:
        (house.path / "news.csv").unlink()
    else:
        house.list("news", members)
    report = house.sync("news")
    assert not report.ok
    assert not report.changed
    assert report.people == 100
    assert report.problem.endswith("the last good index stays in use")

    assert re.search(problem, report.problem)
    assert index(house).version == before == report.version
    assert index_path(house.folder, "news").stat().st_mtime < house.clock.now().timestamp()
    assert sorted(p.name for p in house.folder.iterdir()) == ["news.index", "news.json", "news.sources"]
    assert len(list((house.folder / "news.sources").iterdir())) == 1, "no draft is left behind"


def test_a_shrunken_list_is_accepted_by_a_person(house: House) -> None:
    house.list("news", PEOPLE)
    house.sync("news")
    house.list("news", PEOPLE[:10])
    assert not house.sync("news").ok
    assert house.sync("news", accept_shrink=True).people == 10


def test_a_list_below_its_minimum_is_refused(house: House) -> None:
    house.list("news", PEOPLE, options={"at_least": 1000})
    report = house.sync("news")
    assert report.problem == "news.csv holds 100 people, and the policy expects at least 1,000; no index is in use"
    assert not index_path(house.folder, "news").exists()


def test_the_problem_is_a_sentence_in_the_reader_s_language(house: House) -> None:
    house.list("news", PEOPLE)
    house.sync("news")
    for members, swedish in (
        (
            PEOPLE[:50],
            "news.csv har 50 personer, 50% färre än de 100 tidigare (för att godta det: smtpguard lists sync",
        ),
        ([], "news.csv har inga medlemmar"),
        (["nobody"] * 9, "news.csv: 9 av 9 rader har ingen adress (den första: line 2"),
    ):
        house.list("news", members)
        house.sync("news")
        kept = stored_report(house.folder, "news")
        assert kept is not None
        said = Speech("sv").say(kept.problem)
        assert said.startswith(swedish)
        assert said.endswith("; det senaste fungerande indexet används vidare")
    (house.path / "news.csv").unlink()
    report = house.sync("news")
    assert report.problem == f"{house.path}/news.csv: No such file or directory; the last good index stays in use"
    assert "filen eller mappen finns inte" in Speech("sv").say(report.problem)


def test_bad_rows_are_those_of_the_last_read(house: House) -> None:
    """Also if it failed before its first row, and once it goes on without a change."""
    house.list("news", [*PEOPLE, "nobody"])
    assert house.sync("news").bad == 1
    path = house.path / "news.csv"
    path.rename(path.with_suffix(".away"))
    failed = house.sync("news")
    assert (failed.ok, failed.people, failed.rows, failed.bad, failed.shown) == (False, 100, 0, 0, ())
    path.with_suffix(".away").rename(path)
    again = house.sync("news")
    assert (again.ok, again.changed, again.rows, again.bad) == (True, False, 101, 1)


def test_a_few_bad_rows_are_reported_and_tolerated(house: House) -> None:
    house.list("news", [*PEOPLE, "rubbish", "rubbish"])
    report = house.sync("news")
    assert report.ok
    assert (report.bad, report.people, report.shown[0].line) == (2, 100, 102)


def test_several_sources_are_one_list(house: House) -> None:
    house.list("news", PEOPLE)
    (house.path / "more.txt").write_text("p1@kund.se\nextra@kund.se\n")
    house.sections["news"]["members"] = [house.sections["news"]["members"], {"text": "more.txt"}]
    report = house.sync("news")
    assert (report.people, report.source) == (101, "news.csv, more.txt")
    assert [source.people for source in report.sources] == [100, 2]


def test_a_file_that_changes_while_read_is_not_used(house: House) -> None:
    house.list("news", PEOPLE)

    def touch(_: object) -> None:
        (house.path / "news.csv").write_text("email\nx@kund.se\n")

    report = house.sync("news", progress=touch)
    assert report.problem.startswith("news.csv changed while it was read")


@pytest.mark.parametrize("moment", [1, 2])
def test_a_sync_that_began_earlier_replaces_no_newer_index(
    house: House, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """As while a web server answers late."""
    monkeypatch.setattr(FileSource, "fingerprint", lambda _: bytes(32))
    house.list("news", PEOPLE)
    (house.path / "more.txt").write_text("extra@kund.se\n")
    several = [house.sections["news"]["members"], {"text": "more.txt"}]
    house.sections["news"]["members"] = several
    assert house.sync("news").people == 101
    moments = itertools.count(1)

    def elsewhere(_: object) -> None:
        if next(moments) == moment:
            house.clock.pass_(minutes=1)
            house.list("news", [*PEOPLE, "new@kund.se"])
            house.sections["news"]["members"] = several
            assert house.sync("news", force=True).people == 102

    assert house.sync("news", force=True, progress=elsewhere).people == 102
    house.clock.at -= timedelta(days=1)
    house.list("news", PEOPLE)
    house.sections["news"]["members"] = several
    assert house.sync("news", force=True).people == 101, "also after the clock was set back"


@pytest.mark.parametrize("damage", [lambda raw: raw[:300], lambda raw: raw[:200] + b"?" + raw[201:]])
def test_a_damaged_index_is_rebuilt(house: House, damage: Callable[[bytes], bytes]) -> None:
    """An index that cannot be opened, or that ``verify`` finds damaged, is built again."""
    house.list("news", PEOPLE)
    house.sync("news")
    path = index_path(house.folder, "news")
    good = path.read_bytes()
    path.write_bytes(damage(good))
    report = house.sync("news")
    assert (report.ok, report.changed, report.people) == (True, True, 100)
    assert path.read_bytes() == good


def test_a_new_secret_rebuilds_the_index(house: House) -> None:
    from smtpguard.lists.digest import Digester

    house.list("news", PEOPLE)
    house.sync("news")
    house.digester = Digester(b"j" * 32, "+")
    assert house.sync("news").changed


def test_an_unwritable_folder_is_reported(house: House) -> None:
    house.list("news", PEOPLE)
    house.folder.write_text("a file in its place")
    report = house.sync("news")
    assert report.problem.startswith("the index of news cannot be written")


def test_a_list_with_an_unusual_name_stays_in_its_folder(house: House) -> None:
    house.list("news", PEOPLE)
    house.sections["../up"] = house.sections.pop("news")
    house.sync("../up")
    assert sorted(p.name for p in house.folder.iterdir()) == ["..%2Fup.index", "..%2Fup.json", "..%2Fup.sources"]
    assert not list(house.path.glob("*.index"))


def test_missing_members_are_reported(house: House) -> None:
    house.list("news")
    assert "declares no members" in house.sync("news").problem


def test_a_stopped_sync_is_no_outage(house: House) -> None:
    """A sync that was stopped is reported as no outage, since a guard may stop while it reads a long list."""
    house.list("news", PEOPLE)
    assert house.sync("news").ok
    house.list("news", [f"p{i}@kund.se" for i in range(5000)])
    report = house.sync("news", stop=lambda: True)
    assert (report.people, "stopped before its end" in report.problem) == (len(PEOPLE), True)
    assert house.sync("news").news == {News.REPLACED}


def test_an_unexpected_error_is_an_outage(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house.list("news", PEOPLE)
    assert house.sync("news").ok

    def cells(self: FileSource, tally: Tally) -> Iterator[Cell]:
        raise KeyError(PEOPLE[0])

    monkeypatch.setattr(FileSource, "cells", cells)
    report = house.sync("news", force=True)
    assert (report.people, report.problem) == (
        len(PEOPLE),
        "news.csv cannot be read: KeyError (see the log); the last good index stays in use",
    )
    assert News.FAILED in report.news
    assert "KeyError while reading news.csv" in caplog.text
    assert "in cells" in caplog.text
    assert PEOPLE[0] not in caplog.text


def test_lists_are_due_by_their_refresh_time(house: House) -> None:
    house.list("news", PEOPLE, options={"refresh": 600})
    house.list("quiet")
    lists, _ = lists_of(house.sections)
    refresher = Refresher(lists, folder=house.folder, base=house.path, digester=house.digester)
    now = house.clock.now()

    assert [i.name for i in refresher.due(now)] == ["news"]
    assert refresher.sync(lists["news"], now).ok
    assert refresher.due(now + timedelta(seconds=599)) == []
    assert len(refresher.due(now + timedelta(seconds=600))) == 1
    (house.path / "news.csv").rename(house.path / "away.csv")
    for wait in (30, 60, 120, 240, 480, 600, 600):  # sooner than usual, and never later
        assert not refresher.sync(lists["news"], now).ok
        assert refresher.due(now + timedelta(seconds=wait - 1)) == []
        assert len(refresher.due(now + timedelta(seconds=wait))) == 1
    (house.path / "away.csv").rename(house.path / "news.csv")
    assert refresher.sync(lists["news"], now).ok
    assert refresher.due(now + timedelta(seconds=599)) == []
    assert [i.name for i in refresher.due(now - timedelta(days=2))] == ["news"], "the clock was set back"


def test_a_daily_list_is_not_stale_every_day(house: House) -> None:
    for refresh, stale_after in ((900, 86_400), (86_400, 3 * 86_400)):
        house.list("news", PEOPLE, options={"refresh": refresh, "stale_after": None})
        lists, _ = lists_of(house.sections)
        assert lists["news"].stale_after_seconds == stale_after


def test_the_fingerprint_depends_on_the_declaration(house: House) -> None:
    house.list("news", PEOPLE)
    one = opened(source({"csv": "news.csv"}), house.path).fingerprint()
    assert opened(source({"csv": "news.csv"}), house.path).fingerprint() == one
    assert opened(source({"csv": "news.csv", "statuses": "all"}), house.path).fingerprint() != one


BEGAN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
NOW = BEGAN + timedelta(hours=1)
WELL = Report(list="news", at=NOW, people=100, version="v1")
FAILING = replace(WELL, problem="gone")
OTHER = replace(WELL, problem="empty")
STALE = replace(FAILING, stale=True)
MISSING = replace(STALE, people=0, version="")

BEFORE = {
    "none": None,
    "well": replace(WELL, at=BEGAN),
    "failing": replace(FAILING, at=BEGAN, failing_since=BEGAN),
    "stale": replace(STALE, at=BEGAN, failing_since=BEGAN),
}
TABLE = {
    ("none", "well"): set(),
    ("none", "failing"): {News.FAILED},
    ("none", "other"): {News.FAILED},
    ("none", "stale"): {News.FAILED, News.STALE},
    ("none", "missing"): {News.FAILED, News.STALE},
    ("well", "well"): set(),
    ("well", "failing"): {News.FAILED},
    ("well", "other"): {News.FAILED},
    ("well", "stale"): {News.FAILED, News.STALE},
    ("well", "missing"): {News.FAILED, News.STALE},
    ("failing", "well"): {News.WELL},
    ("failing", "failing"): set(),
    ("failing", "other"): {News.OTHERWISE},
    ("failing", "stale"): {News.STALE},
    ("failing", "missing"): {News.STALE},
    ("stale", "well"): {News.WELL},
    ("stale", "failing"): set(),  # one of several sources was read again: the outage goes on
    ("stale", "other"): {News.OTHERWISE},
    ("stale", "stale"): set(),
    ("stale", "missing"): set(),
}
AFTER = {"well": WELL, "failing": FAILING, "other": OTHER, "stale": STALE, "missing": MISSING}


def test_the_table_has_every_case() -> None:
    assert set(TABLE) == {(before, after) for before in BEFORE for after in AFTER}


@every(("before", "after", "changed"), [(*pair, changed) for pair in sorted(TABLE) for changed in (False, True)])
def test_news_by_previous_and_new_state(before: str, after: str, changed: bool) -> None:
    said = AFTER[after].after(BEFORE[before], changed=changed)
    assert said.news == TABLE[before, after] | ({News.REPLACED} if changed else set())
    assert said.changed is changed
    began = BEGAN if before in ("failing", "stale") else NOW
    assert said.failing_since == (None if after == "well" else began), "an outage has the time at which it began"
    assert said.ended == (BEGAN if News.WELL in said.news else None)
