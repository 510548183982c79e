"""The tree's numbers: added up over processes and their lives, and the newest of what several have found."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from smtpguard.processes.numbers import Numbers, Said

STEPS = st.lists(
    st.tuples(st.sampled_from(["proxy-1", "proxy-2"]), st.sampled_from(["counts", "beats", "ends", "dies"]))
)


@given(STEPS)
def test_counts_are_those_of_the_living_and_the_dead(steps: list[tuple[str, str]]) -> None:
    numbers = Numbers()
    counted: dict[str, int] = {}
    said: dict[str, int] = {}
    kept = died = 0
    for process, step in steps:
        if step == "counts":
            counted[process] = counted.get(process, 0) + 1
        elif step == "beats":
            said[process] = counted.get(process, 0)
            numbers.heard(process, Said(counts={"words": said[process]}))
        else:  # what it has not said is lost with it, and the next process of that name begins anew
            kept += said.pop(process, 0)
            counted.pop(process, None)
            numbers.ended(process, "proxy", died=step == "dies")
            died += step == "dies"
    told = numbers.told({}, [], {"proxy": 2})
    assert told["counts"].get("words", 0) == kept + sum(said.values())
    assert told["deaths"] == {"proxy": died}


def test_the_newest_is_believed_whoever_says_it() -> None:
    numbers = Numbers()
    numbers.heard("proxy-1", Said(found={"relay": (5.0, 0)}))
    numbers.heard("proxy-2", Said(found={"relay": (7.0, 1)}))
    numbers.heard("proxy-1", Said(found={"relay": (5.0, 0)}))
    numbers.ended("proxy-2", "proxy", died=True)
    assert numbers.told({}, [], {})["found"] == {"relay": (7.0, 1)}
    numbers.heard("delivery", Said(found={"relay": (9.0, 0)}))
    assert numbers.told({}, [], {})["found"] == {"relay": (9.0, 0)}


def test_every_listener_and_part_is_told_of_from_the_first_on() -> None:
    numbers = Numbers()
    numbers.accepted["gone:25"] += 1
    told = numbers.told({"smtp:25": 0}, ["smtp:25"], {"proxy": 0})
    assert told == {
        "connections": {"smtp:25": 0}, "accepted": {"smtp:25": 0}, "refused": {"smtp:25": 0}, "ready": {"proxy": 0},
        "deaths": {"proxy": 0}, "counts": {}, "found": {},
    }  # fmt: skip


def test_a_beat_says_it_as_json_or_says_nothing() -> None:
    said = Said(counts={"words": 3}, found={"relay": (5.5, 1)})
    assert Said.of(json.loads(json.dumps({"counts": said.counts, "found": said.found}))) == said
    assert Said.of({}) == Said()
