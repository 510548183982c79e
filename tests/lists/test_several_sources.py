"""A list with several sources and lists within lists, each with its last data when it fails; and circles end."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest

from smtpguard.lists.index import Index, IndexStatus, OpenIndexes, State, index_path, report_path, sources_folder
from smtpguard.lists.sync import source_key, stored_report
from smtpguard.lists.writing import link
from smtpguard.mail.address import Address
from tests.lists.conftest import House
from tests.lists.declaring import lists_of, source

ONE = [f"one{i}@kund.se" for i in range(40)]
TWO = [f"two{i}@kund.se" for i in range(40)]


@pytest.fixture
def both(house: House) -> House:
    """A list of two files with two members in common."""
    house.list("news", [*ONE, *TWO[:2]])
    (house.path / "more.txt").write_text("\n".join(TWO))
    house.sections["news"]["members"] = [house.sections["news"]["members"], {"text": "more.txt"}]
    return house


def has_member(house: House, text: str) -> bool:
    index = Index(index_path(house.folder, "news"), house.digester.key_id)
    return house.digester.of(Address.parse(text)) in index


def index_status(house: House) -> IndexStatus:
    lists, _ = lists_of(house.sections)
    shelf = OpenIndexes(house.folder, house.digester.key_id)
    shelf.look(lists.values(), house.clock.now())
    return shelf.statuses["news"]


def test_people_in_several_sources_count_once(both: House) -> None:
    report = both.sync("news")
    assert (report.ok, report.people) == (True, 80)
    assert [(s.label, s.people, s.rows) for s in report.sources] == [("news.csv", 42, 42), ("more.txt", 40, 40)]
    assert has_member(both, ONE[0])
    assert has_member(both, TWO[39])
    assert not both.sync("news").changed


def test_a_failing_source_keeps_its_last_good_index(both: House) -> None:
    both.sync("news")
    began = both.clock.now()
    both.clock.pass_(hours=20)
    (both.path / "more.txt").unlink()
    both.list("news", [*ONE, *TWO[:2], "new@kund.se"])
    both.sections["news"]["members"] = [both.sections["news"]["members"], {"text": "more.txt"}]
    report = both.sync("news")
    assert (
        "more.txt: No such file or directory; its last good members stay in use, and its other sources are fresh"
        in report.problem
    )
    assert (report.changed, report.people) == (True, 81)
    assert has_member(both, "new@kund.se"), "people of the fresh source are members, although the other failed"
    assert has_member(both, TWO[39])
    assert (index_status(both).state, index_status(both).checked_at) == (State.READY, began), "as old as the oldest"
    both.clock.pass_(hours=5)
    both.sync("news")
    assert index_status(both).state is State.STALE


def test_the_time_of_the_first_failure_is_kept(both: House) -> None:
    both.sync("news")
    (both.path / "more.txt").rename(both.path / "away.txt")
    both.clock.pass_(hours=1)
    first = both.sync("news").at
    both.clock.pass_(hours=1)
    both.sync("news")
    kept = stored_report(both.folder, "news")
    assert kept is not None
    assert (kept.failing_since, kept.at) == (first, first + timedelta(hours=1))
    (both.path / "away.txt").rename(both.path / "more.txt")
    assert both.sync("news").failing_since is None


def test_a_source_never_read_leaves_the_list_incomplete(both: House) -> None:
    (both.path / "more.txt").rename(both.path / "away.txt")
    report = both.sync("news")
    assert report.problem.endswith("an index of its other sources is in use")
    assert index_status(both).state is State.STALE, "membership is certain, non-membership is not"
    assert "not complete" in index_status(both).why
    assert has_member(both, ONE[0])
    (both.path / "away.txt").rename(both.path / "more.txt")
    assert both.sync("news").ok
    whole = index_status(both)
    assert whole.index is not None
    assert (whole.state, whole.index.people) == (State.READY, 80)


def test_a_new_failing_source_keeps_the_existing_members(both: House) -> None:
    both.sync("news")
    both.sections["news"]["members"] = [{"text": "more.txt"}, {"csv": "typo.csv"}]
    report = both.sync("news")
    assert (report.ok, report.people) == (False, 80)
    assert report.problem.endswith("the last good index stays in use")
    assert has_member(both, ONE[0])


def test_a_removed_source_is_forgotten_if_a_person_accepts(both: House) -> None:
    both.sync("news")
    both.sections["news"]["members"] = [{"text": "more.txt"}]
    report = both.sync("news")
    assert "the list news holds 40 people, 50% fewer than the 80 before" in report.problem
    assert has_member(both, ONE[0])
    assert both.sync("news", accept_shrink=True).people == 40
    assert not has_member(both, ONE[0])
    key = source_key(source({"text": "more.txt"}))
    assert [p.name for p in sources_folder(both.folder, "news").iterdir()] == [f"{key}.index"]


def test_limits_do_not_change_a_sources_key() -> None:
    key = source_key(source({"csv": "a.csv"}))
    assert source_key(source({"csv": "a.csv", "at_least": 5, "max_shrink": 0.5, "refresh": 60, "column": None})) == key
    assert source_key(source({"csv": "a.csv", "column": "email"})) != key


def test_a_single_source_and_its_list_share_one_file(house: House) -> None:
    house.list("news", ONE)
    house.sync("news")
    [source] = sources_folder(house.folder, "news").iterdir()
    assert source.samefile(index_path(house.folder, "news")), "it is on disk once"


def test_files_of_a_dead_sync_are_removed(house: House) -> None:
    house.list("news", ONE)
    house.sync("news")
    left, report, fresh = (house.folder / f".news.{end}" for end in ("index.dead", "json.dead", "index.alive"))
    for draft in (left, report, fresh):
        draft.touch()
    for draft in (left, report):
        os.utime(draft, (1, 1))
    house.sync("news")
    assert (left.exists(), report.exists(), fresh.exists()) == (False, False, True)


def test_a_new_link_of_another_sync_is_not_removed(house: House) -> None:
    """A link of another list's sync is not removed as old: it has the time of its index, which is when the source was
    last checked."""
    house.list("news", ONE)
    house.list("offers", TWO)
    house.sync("news")
    index = index_path(house.folder, "news")
    os.utime(index, (1, 1))
    draft = link(index, index)
    house.sync("offers")
    assert draft.exists()


def test_bad_rows_are_reported_by_source_and_line_without_content(both: House) -> None:
    (both.path / "more.txt").write_text("\n".join([*TWO, "rubbish.of.anna", "anna svensson@kund.se"]))
    both.sync("news")
    kept = stored_report(both.folder, "news")
    assert kept is not None
    assert [(row.source, str(row)) for row in kept.shown] == [
        ("more.txt", "line 41: not a mailbox: expected local-part@domain"),
        ("more.txt", "line 42: not a mailbox: expected local-part@domain"),
    ]
    assert "anna" not in report_path(both.folder, "news").read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"list": "news"}', '{"sources": [{"shown": [{}]}]}'])
def test_an_unreadable_report_is_ignored(house: House, text: str) -> None:
    house.list("news", ONE)
    house.sync("news")
    report_path(house.folder, "news").write_text(text)
    assert stored_report(house.folder, "news") is None
    assert house.sync("news").ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_that_root_syncs_get_the_folders_owner(both: House) -> None:
    both.folder.mkdir()
    os.chown(both.folder, 12345, 12346)
    assert both.sync("news").ok
    made = list(both.folder.rglob("*"))
    assert len(made) == 5
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 12346)}
    roots = both.folder.parent / "shadow"
    roots.write_text("root's")
    (both.folder / "news.sources" / "a link").symlink_to(roots)
    assert both.sync("news", force=True).ok
    assert roots.stat().st_uid == 0, "a file of root's is not given to the service's user"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_sync_by_root_that_is_killed_leaves_no_folder_of_roots(both: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard could not write its own indexes there until root syncs again. Nor while root's sync runs."""
    both.folder.mkdir()
    os.chown(both.folder, 12345, 12346)
    monkeypatch.setattr("smtpguard.lists.sync.build", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        both.sync("news")
    [made] = both.folder.iterdir()
    assert (made.name, made.stat().st_uid, made.stat().st_gid) == ("news.sources", 12345, 12346)


def test_without_hard_links_files_are_copied(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    house.list("news", ONE)
    assert house.sync("news").ok
    house.clock.pass_(hours=30)
    report = house.sync("news")
    assert (report.ok, report.changed, report.stale) == (True, False, False)
    assert has_member(house, ONE[0])
    assert index_status(house).state is State.READY


@pytest.fixture
def nested(house: House) -> House:
    house.list("buyers", ["a@kund.se", "b@kund.se"], addresses=["buyers@lists.example.com"])
    house.list("loyal", ["b@kund.se", "c@kund.se"])
    (house.path / "own.csv").write_text("email\nd@kund.se\n")
    sources = [{"csv": "own.csv"}, {"list": "middle"}]
    house.sections["everybody"] = {"addresses": ["everybody@lists.example.com"], "members": sources}
    house.sections["middle"] = {"members": [{"list": "buyers"}, {"list": "loyal"}]}
    return house


def test_a_list_has_the_people_of_its_inner_lists(nested: House) -> None:
    report = nested.sync("everybody")
    assert (report.ok, report.people) == (True, 4)
    assert report.source == "own.csv, buyers: buyers.csv, loyal: loyal.csv"
    lists, _ = lists_of(nested.sections)
    assert lists["everybody"].includes == {"middle", "buyers", "loyal"}
    assert lists["middle"].includes == {"buyers", "loyal"}
    assert lists["buyers"].includes == frozenset()
    assert [each.label_for("x") for each in lists["everybody"].members] == ["x", "buyers: x", "loyal: x"]


def test_mail_to_the_outer_list_reaches_the_inner_ones(nested: House) -> None:
    for name in nested.sections:
        assert nested.sync(name).ok
    counted = nested.registry().classify([Address.parse("everybody@lists.example.com")])
    assert set(counted.addressed) == {"everybody", "middle", "buyers", "loyal"}
    counted = nested.registry().classify([Address.parse("buyers@lists.example.com")])
    assert counted.addressed == ("buyers",)
    counted = nested.registry().classify([Address.parse("b@kund.se")])
    assert counted.lists == {"everybody", "middle", "buyers", "loyal"}


def test_a_loop_of_lists_ends(house: House) -> None:
    """Syncing lists in a circle ends, although a policy with one cannot be put in force."""
    house.list("one", ["a@kund.se"])
    house.list("two", ["b@kund.se"])
    for name, inner in (("one", "two"), ("two", "one")):
        house.sections[name]["members"] = [house.sections[name]["members"], {"list": inner}, {"list": name}]
    assert house.sync("one").people == 2
    assert house.sync("two").people == 2


def test_a_failing_inner_source_keeps_its_last_data(nested: House) -> None:
    assert nested.sync("everybody").people == 4
    (nested.path / "buyers.csv").unlink()
    (nested.path / "own.csv").write_text("email\nd@kund.se\ne@kund.se\n")
    report = nested.sync("everybody")
    assert not report.ok
    assert report.people == 5


def test_limits_apply_to_the_list_that_declares_them(nested: House) -> None:
    nested.sections["buyers"]["members"] |= {"at_least": 100, "refresh": 60, "stale_after": 7200, "max_bad": 0.5}
    lists, _ = lists_of(nested.sections)
    assert lists["everybody"].at_least == 1
    assert lists["everybody"].refresh_seconds == 60, "as fresh as its inner lists"
    assert lists["everybody"].stale_after_seconds == 7200
    assert "expects at least 100" in nested.sync("everybody").problem
