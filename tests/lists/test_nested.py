"""Lists within lists, as the policy declares them: members are combined, and circles end."""

from __future__ import annotations

import pytest

from smtpguard.lists.registry import build
from smtpguard.mail.address import Address
from tests.lists.conftest import House


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
    lists, _ = build(nested.sections, {})
    assert lists["everybody"].includes == {"middle", "buyers", "loyal"}
    assert lists["middle"].includes == {"buyers", "loyal"}
    assert lists["buyers"].includes == frozenset()
    assert [source.get("of") for source in lists["everybody"].members] == [None, "buyers", "loyal"]


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
    lists, _ = build(nested.sections, {})
    assert lists["everybody"].at_least == 1
    assert lists["everybody"].refresh_seconds == 60, "as fresh as its inner lists"
    assert lists["everybody"].stale_after_seconds == 7200
    assert "expects at least 100" in nested.sync("everybody").problem
