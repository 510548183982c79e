"""Standing still: what is frozen and why, on every page; who may freeze and thaw."""

from __future__ import annotations

import pytest

from smtpguard.audit.event import Event, Kind
from smtpguard.policy.admission import ITSELF, PUT_BACK, Freeze, Selector, Unavailable
from smtpguard.policy.people import Role
from tests.console.holding import ANNA, EVA, OMAR, held, text
from tests.console.stage import Browser, Stage


async def standing(here: Stage) -> list[tuple[str, str, str]]:
    return [(f.selector.value, f.value, f.by) for f in (await here.home.store.gate()).freezes]


async def at_still(here: Stage, who: str = EVA, role: Role = Role.APPROVER) -> Browser:
    browser = await here.signed_in(who, role)
    await browser.get("/still")
    return browser


async def test_the_red_button_is_on_every_page(here: Stage) -> None:
    hold = await held(here)
    eva = await here.signed_in(EVA, Role.APPROVER, Role.VIEWER, Role.ADMIN)
    for path in (
        "/held",
        f"/held/{hold.hold_id}",
        "/history",
        "/incident",
        "/mailings",
        "/policy",
        "/policy/try",
        "/still",
        "/me",
        "/people",
    ):
        answer = await eva.get(path)
        assert answer.status_code == 200, path
        assert '<a class="button stop" href="/still">' in answer.text, path


async def test_why_the_guard_itself_stands_still_is_said_in_the_readers_language(here: Stage) -> None:
    freeze = Freeze(
        freeze_id="F1", selector=Selector.ALL, value="", reason=PUT_BACK, by=ITSELF, at=here.home.clock.now(), defers=True
    )  # fmt: skip
    private = {"actor": (ITSELF,), "comment": (PUT_BACK,)}
    told = Event(kind=Kind.FREEZE, id="F1", at=freeze.at, data={"selector": "all", "value": None}, private=private)
    await here.home.store.freeze(freeze, told)
    eva = await here.signed_in(EVA, Role.APPROVER)
    for path in ("/held", "/still", "/history/freezes"):
        assert PUT_BACK in text(await eva.get(path)), path
        answer = await eva.get(path, **{"accept-language": "sv"})
        assert "Databasen har återställts till ett tidigare läge" in text(answer), path
        assert PUT_BACK not in text(answer), path


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"selector": "all"}, ""),
        ({"selector": "list", "list": "ramadan"}, "ramadan"),
        ({"selector": "sender", "sender": " Anna@EXAMPLE.com "}, "anna@example.com"),
        ({"selector": "mailing", "mailing": "M1"}, "M1"),
    ],
)
async def test_freezing_shows_on_every_page_until_it_is_thawed(here: Stage, fields: dict[str, str], value: str) -> None:
    eva = await at_still(here)
    done = await eva.post("/freeze", reason="a wrong link", **fields)
    assert done.status_code == 200
    assert "Nothing of it is sent from now on." in text(done)
    assert await standing(here) == [(fields["selector"], value, EVA)]
    assert "Frozen: " in text(await eva.get("/held"))
    assert "(a wrong link)" in text(await eva.get("/policy"))
    freeze = (await here.home.store.gate()).freezes[0]
    omar = await at_still(here, OMAR)
    gone = await omar.post(f"/thaw/{freeze.freeze_id}")
    assert "It is lifted. Mail goes on." in text(await omar.get(gone.headers["location"]))
    assert await standing(here) == []
    assert "(a wrong link)" not in text(await eva.get("/held"))
    past = text(await eva.get("/history/freezes"))
    assert "Thawed" in past
    assert "a wrong link" in past


async def test_for_a_while(here: Stage) -> None:
    eva = await at_still(here)
    await eva.post("/freeze", selector="all", reason="x", hours="4")
    (freeze,) = (await here.home.store.gate()).freezes
    assert freeze.until is not None
    assert (freeze.until - freeze.at).total_seconds() == 4 * 3600
    here.home.clock.pass_(hours=4)
    await eva.sign_in(EVA)
    assert "Nothing. Mail is going." in text(await eva.get("/still"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Say what is to stand still."),
        ({"selector": "weather"}, "Say what is to stand still."),
        ({"selector": "list", "list": "nowhere"}, "Say what is to stand still."),
        ({"selector": "mailing", "mailing": ""}, "Say what is to stand still."),
        ({"selector": "sender", "sender": "nobody"}, "That is no address: nobody"),
        ({"selector": "all", "reason": " "}, "Say why"),
    ],
)
async def test_what_is_not_said_well_freezes_nothing(here: Stage, fields: dict[str, str], said: str) -> None:
    eva = await at_still(here)
    answer = await eva.post("/freeze", **({"reason": "x"} | fields))
    assert answer.status_code == 422
    assert said in text(answer)
    assert await standing(here) == []


async def test_who_only_looks_on_or_wrote_something_freezes_nothing(here: Stage) -> None:
    viewer = await at_still(here, "vera@example.com", Role.VIEWER)
    anna = await here.signed_in(ANNA)
    await anna.get("/mine")
    for browser in (viewer, anna):
        assert (await browser.post("/freeze", selector="all", reason="x", csrf=browser.csrf)).status_code in (403, 404)
        assert (await browser.post("/thaw/F1", csrf=browser.csrf)).status_code in (403, 404)
    assert await standing(here) == []


async def test_thawed_by_somebody_else_meanwhile(here: Stage) -> None:
    eva = await at_still(here)
    answer = await eva.post("/thaw/NOSUCHFREEZE")
    assert answer.status_code == 409
    assert "That was lifted already." in text(answer)


async def test_a_freeze_that_could_not_be_written_is_said_loudly(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    eva = await at_still(here)

    async def away(*_: object) -> None:
        raise Unavailable("the database is away")

    monkeypatch.setattr(here.home.store, "freeze", away)
    answer = await eva.post("/freeze", selector="all", reason="x")
    assert answer.status_code == 503
    assert "NOTHING IS FROZEN" in text(answer)


async def test_a_link_of_a_message_fills_in_what_to_freeze(here: Stage) -> None:
    eva = await here.signed_in(EVA, Role.APPROVER)
    answer = await eva.get("/still?selector=sender&sender=anna@example.com")
    assert 'name="selector" value="sender" checked' in answer.text
    assert 'value="anna@example.com"' in answer.text
    assert await standing(here) == []
    assert {s.value for s in Selector} >= {"all", "list", "sender", "mailing"}


async def test_where_two_are_needed_the_first_asks_and_another_agrees(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    eva, omar = await at_still(here), await at_still(here, OMAR)
    await eva.post("/freeze", selector="all", reason="a wrong link")
    freeze = (await here.home.store.gate()).freezes[0]
    monkeypatch.setattr(here.app.state.desk.freezes, "thaw_two", True)
    assert "Ask for a thaw: everything" in text(await eva.get("/still"))
    for _ in range(2):  # one who asks twice is one person still
        asked = await eva.post(f"/thaw/{freeze.freeze_id}")
        assert "Somebody else must agree now" in text(await eva.get(asked.headers["location"]))
    assert len(await standing(here)) == 1
    page = text(await omar.get("/still"))
    assert "eva@example.com wants to thaw it" in page
    assert "Thaw: everything" in page
    await omar.post(f"/thaw/{freeze.freeze_id}")
    assert await standing(here) == []
    kinds = [kind for kind, _ in await here.home.events(freeze.freeze_id)]
    assert kinds == ["freeze", "thaw-asked", "thaw"]


async def test_a_command_that_fails_is_told_to_whoever_froze_and_thawed_in_their_language(here: Stage) -> None:
    freezes = here.app.state.desk.freezes
    freezes._freeze_hook = freezes._thaw_hook = (("/bin/sh", "-c", "echo 'no <b>right</b> to' >&2; exit 7"),)
    eva, swedish = await at_still(here), {"Accept-Language": "sv"}
    frozen = await eva.post("/freeze", swedish, selector="all", reason="fel utskick")
    assert "har misslyckats: /bin/sh: det slutade med status 7: no <b>right</b> to" in text(frozen)
    assert "<b>right" not in frozen.text
    [standing] = await freezes.standing()
    thawed = await eva.post(f"/thaw/{standing.freeze_id}", swedish)
    assert "ett kommando som då skulle köras har misslyckats: /bin/sh: det slutade med status 7" in text(thawed)
