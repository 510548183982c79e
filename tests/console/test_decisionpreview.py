"""The effect of the next vote, the votes that are still missing, and the evidence in the text."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.console import decisionpreview
from smtpguard.console.decisionpreview import needs
from smtpguard.console.evidence import segments
from smtpguard.holds.model import Choice, Vote, missing
from smtpguard.policy.approvals import Absence
from tests.clocks import MONDAY
from tests.console.holding import ANNA, DPO, DUTY, EVA, OMAR, changed, held
from tests.console.stage import Stage

preview = partial(decisionpreview.preview, over=False)

NIGHT = MONDAY + timedelta(hours=13)


def voted(hold: Any, who: str, at: Any = MONDAY, choice: Choice = Choice.APPROVE) -> Any:
    vote = Vote(
        approver=who, choice=choice, content_sha256=hold.content_sha256, envelope_sha256=hold.envelope.sha256, at=at
    )
    return replace(hold, votes=(*hold.votes, vote))


def person(address: str, *roles: str) -> Any:
    return SimpleNamespace(address=address, name="", roles=frozenset(roles or ("approver",)), language="")


async def test_missing_votes_decrease_with_each_vote(here: Stage) -> None:
    hold, in_force = await held(here), here.home.in_force
    (need,) = needs(hold, in_force)
    assert (need.groups, need.late) == (((1, "communications"), (1, "compliance")), ((1, "duty"),))
    (need,) = needs(voted(hold, OMAR), in_force)
    assert need.groups == ((1, "compliance"),)
    assert needs(voted(voted(hold, OMAR), DPO), in_force) == ()
    assert needs(voted(hold, DUTY, NIGHT), in_force) == ()
    (need,) = needs(voted(hold, DUTY, MONDAY), in_force)  # in working hours the night group does not count
    assert need.late == ((1, "duty"),)


@pytest.mark.parametrize(
    ("who", "roles", "why_not"),
    [
        (EVA, ("approver",), ""),
        (ANNA, ("approver",), "own"),
        (EVA, ("viewer",), "role"),
        (DUTY, ("approver",), "group"),
    ],
)
async def test_a_person_who_may_not_vote_gets_the_reason(
    here: Stage, who: str, roles: tuple[str, ...], why_not: str
) -> None:
    ahead = preview(await held(here), person(who, *roles), here.home.in_force, MONDAY)
    assert (ahead.why_not, ahead.may) == (why_not, not why_not)
    assert not ahead.sends


async def test_a_deputy_may_vote_for_an_absent_approver(here: Stage) -> None:
    hold, sten = await held(here), "sten@example.com"
    absence = Absence(person=DPO, since=MONDAY.date(), until=MONDAY.date(), deputy=sten, confirmed=True)
    ahead = preview(hold, person(sten), here.home.in_force.with_people([], [absence]), MONDAY)
    assert (ahead.may, ahead.others) == (True, (EVA, OMAR, sten))
    assert [(one.person, one.deputy) for one in ahead.away] == [(DPO, sten)]
    assert preview(hold, person(sten), here.home.in_force, MONDAY).why_not == "group"
    both, later = voted(voted(hold, DPO), sten), MONDAY + timedelta(days=7)
    assert preview(both, person(sten), here.home.in_force, MONDAY).together == ()
    for at in (MONDAY, later):
        known = here.home.in_force.with_people([], [absence])
        assert preview(both, person(sten), known, at).together == ((DPO, sten),), "also after the absence"
        assert preview(voted(both, DPO, later), person(sten), known, later).together == ()


async def test_repeated_and_late_votes_are_recognized(here: Stage) -> None:
    hold = await held(here)
    assert preview(voted(hold, EVA), person(EVA), here.home.in_force, MONDAY).why_not == "voted"
    assert preview(voted(hold, EVA), person(DPO), here.home.in_force, MONDAY).sends
    done = await changed(here, hold, state=type(hold.state)("rejected"))
    ahead = preview(done, person(EVA), here.home.in_force, MONDAY)
    assert (ahead.why_not, ahead.left, ahead.needs, ahead.others) == ("decided", (), (), ())


async def test_the_addresses_of_a_person_are_one_voter(here: Stage) -> None:
    hold, in_force = await held(here), here.home.in_force
    both = frozenset({EVA, OMAR})
    one = replace(in_force, groups=replace(in_force.groups, aliases=dict.fromkeys(both, both)))
    ahead = preview(voted(hold, EVA), person(OMAR), one, MONDAY)
    assert (ahead.why_not, ahead.others) == ("voted", (DPO,))
    assert preview(replace(hold, senders=frozenset({EVA})), person(OMAR), one, MONDAY).why_not == "own"


async def test_needs_are_empty_exactly_if_no_vote_is_missing(here: Stage) -> None:
    hold, in_force = await held(here), here.home.in_force
    today: Any = {"since": MONDAY.date(), "until": MONDAY.date(), "confirmed": True}
    away = [Absence(person=DPO, deputy=OMAR, **today), Absence(person=EVA, deputy=DUTY, **today)]

    @given(st.lists(st.tuples(st.sampled_from([EVA, OMAR, DPO, DUTY, ANNA]), st.sampled_from([MONDAY, NIGHT]))))
    def agrees(cast: list[tuple[str, Any]]) -> None:
        found = hold
        for who, at in cast:
            found = voted(found, who, at)
        for now in (in_force, in_force.with_people([], away)):
            told = needs(found, now)
            assert len(told) == len(missing(found, now.groups, now.hours.open_at))
            assert all(need.groups and need.late for need in told)

    agrees()


@given(st.text("abc ÅåbaconBACON.<&\n", max_size=80), st.lists(st.text("abcon ", min_size=1, max_size=6), max_size=5))
def test_segments_join_to_the_text(text: str, words: list[str]) -> None:
    found = segments(text, [(word, f"because of {word}") for word in words])
    assert "".join(part for part, _ in found) == text
    for part, why in found:
        if why:
            assert part.lower() in {word.lower() for word in words}


def test_the_longest_whole_words_are_marked() -> None:
    found = segments("Bacon, baconfläsk and bacon pie", [("bacon", "pork"), ("bacon pie", "pie"), ("fläsk", "meat")])
    assert [(part, why) for part, why in found if why] == [("Bacon", "pork"), ("bacon pie", "pie")]
