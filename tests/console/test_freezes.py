"""The page of freezes, the banner on every page, and who may freeze and thaw."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.database.errors import CommitUnknown, Unavailable
from smtpguard.freezes.model import event_of
from smtpguard.freezes.service import UNCOUNTED, Freezes
from smtpguard.holds.effects import Seen
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.notices.links import Link, Links
from smtpguard.policy.freezing import ITSELF, PUT_BACK, Freeze, Selector
from tests.clocks import MONDAY
from tests.console.api.program import program
from tests.console.holding import ANNA, DPO, DUTY, EVA, OMAR, held, text
from tests.console.stage import Browser, Stage
from tests.guard.house import DOCUMENTS, KEY, RAMADAN


async def active_freezes(here: Stage) -> list[tuple[str, str, str]]:
    return [(f.selector.value, f.value, f.by) for f in (await here.home.store.gate.read()).freezes]


async def freeze_page(here: Stage, who: str = EVA) -> Browser:
    browser = await here.signed_in(who, Role.APPROVER)
    await browser.get("/still")
    return browser


async def confirm_thaw(who: Browser, freeze_id: str) -> Any:
    """The answer to the thaw, confirmed with the number of messages that it lets out."""
    await who.get(f"/thaw/{freeze_id}")
    return await who.post(f"/thaw/{freeze_id}", messages=who.hidden("messages"))


async def test_half_a_character_in_a_reason_takes_no_page_away(here: Stage) -> None:
    """As commands of earlier versions stored it, of octets in another encoding than the terminal's."""
    now = here.home.clock.now()
    frozen = Freeze(freeze_id="F9", selector=Selector.ALL, value="", reason="r\udce4ks", by=EVA, at=now, until=None)
    await here.home.store.gate.freeze(frozen, event_of(Kind.FREEZE, frozen, EVA, now))
    hold = await held(here)
    eva = await here.signed_in(EVA, Role.APPROVER, Role.VIEWER, Role.ADMIN)
    for path in ("/held", f"/held/{hold.hold_id}", "/history", "/still", "/thaw/F9"):
        answer = await eva.get(path)
        assert answer.status_code == 200, path
        assert "r?ks" in answer.text, path
    asks = await program(here, OMAR, Role.OPERATOR)
    assert "r?ks" in (await asks("GET", "/freezes")).text


async def test_the_freeze_button_is_on_every_page(here: Stage) -> None:
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


async def test_an_automatic_freeze_is_explained_in_the_readers_language(here: Stage) -> None:
    freeze = Freeze(
        freeze_id="F1", selector=Selector.ALL, value="", reason=PUT_BACK, by=ITSELF, at=here.home.clock.now(), defers=True
    )  # fmt: skip
    private = {"actor": (ITSELF,), "comment": (PUT_BACK,)}
    told = Event(kind=Kind.FREEZE, id="F1", at=freeze.at, data={"selector": "all", "value": None}, private=private)
    await here.home.store.gate.freeze(freeze, told)
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
        ({"selector": "mailing"}, ""),
    ],
)
async def test_a_freeze_is_shown_on_every_page_until_thawed(here: Stage, fields: dict[str, str], value: str) -> None:
    if fields["selector"] == "mailing":
        value = (await held(here, RAMADAN)).mailing_id
        fields = fields | {"mailing": f" {value[:6].lower()} "}
    eva = await freeze_page(here)
    done = await eva.post("/freeze", reason="a wrong link", **fields)
    assert done.status_code == 200
    assert "Nothing of it is sent from now on." in text(done)
    assert await active_freezes(here) == [(fields["selector"], value, EVA)]
    assert "Frozen: " in text(await eva.get("/held"))
    assert "(a wrong link)" in text(await eva.get("/policy"))
    freeze = (await here.home.store.gate.read()).freezes[0]
    omar = await freeze_page(here, OMAR)
    gone = await confirm_thaw(omar, freeze.freeze_id)
    assert "It is lifted. What was approved goes out, unless another freeze stops it." in text(
        await omar.get(gone.headers["location"])
    )
    assert await active_freezes(here) == []
    assert "(a wrong link)" not in text(await eva.get("/held"))
    past = text(await eva.get("/history/freezes"))
    what = {"all": "everything", "list": "the list Ramadan greetings", "sender": f"mail from {value}"}.get(
        fields["selector"], f"the mailing {value[:12]}"
    )
    assert f"Frozen: {what} {EVA} a wrong link" in past
    assert f"Thawed: {what} {OMAR}" in past


async def test_a_freeze_may_have_an_end(here: Stage) -> None:
    eva = await freeze_page(here)
    await eva.post("/freeze", selector="all", reason="x", hours="4")
    (freeze,) = (await here.home.store.gate.read()).freezes
    assert freeze.until is not None
    assert (freeze.until - freeze.at).total_seconds() == 4 * 3600
    here.home.clock.pass_(hours=4)
    await Freezes(here.home.store, SteadyClock(here.home.clock), new_id=str).lift_ended()
    await eva.sign_in(EVA)
    assert "Nothing. Mail is going." in text(await eva.get("/still"))


async def test_an_invalid_freeze_freezes_nothing(here: Stage) -> None:
    eva = await freeze_page(here)
    invalid: list[tuple[dict[str, str], str]] = [
        ({}, "Choose what to stop."),
        ({"selector": "weather"}, "Choose what to stop."),
        ({"selector": "list", "list": "nowhere"}, "Choose what to stop."),
        ({"selector": "mailing", "mailing": ""}, "Choose what to stop."),
        ({"selector": "mailing", "mailing": "NOSUCH"}, "There is no mailing with this reference."),
        ({"selector": "sender", "sender": "nobody"}, "Not an address: nobody"),
        ({"selector": "all", "reason": " "}, "Give a reason"),
    ]
    for fields, said in invalid:
        answer = await eva.post("/freeze", **({"reason": "x"} | fields))
        assert (answer.status_code, said in text(answer)) == (422, True), fields
    assert await active_freezes(here) == []


async def test_a_refused_freeze_is_returned_filled_in(here: Stage) -> None:
    """A refused freeze comes back filled in. Above all it does not fall back to "everything", which would stop all
    mail."""
    eva = await freeze_page(here)
    filled = {"selector": "sender", "sender": "anna@@example.com", "reason": "her <account> is taken", "hours": "4"}
    answer = await eva.post("/freeze", **filled)
    assert answer.status_code == 422
    page = answer.text
    assert re.findall(r'name="selector" value="(\w+)" checked', page) == ["sender"]
    assert 'name="sender"' in page
    assert 'value="anna@@example.com"' in page
    assert 'aria-invalid="true" aria-describedby="f-sender-wrong"' in page
    assert '<small class="wrong" id="f-sender-wrong">Not an address: anna@@example.com</small>' in page
    assert 'value="her &lt;account&gt; is taken"' in page
    assert '<option value="4" selected>' in page
    assert await active_freezes(here) == []
    both = await eva.post("/freeze", selector="list", list="", reason=" ", hours="")
    assert text(both).count("Choose what to stop.") == 1
    assert "Give a reason: everyone who sees the banner reads it." in text(both), "all errors at once"
    done = await eva.post("/freeze", **(filled | {"sender": "anna@example.com"}))
    assert 'value="anna@example.com"' not in done.text, "after success the form is empty"
    assert re.findall(r'name="selector" value="(\w+)" checked', done.text) == ["all"]


async def test_a_thaw_shows_what_it_releases_and_asks(here: Stage) -> None:
    eva = await freeze_page(here)
    waits = await held(here, RAMADAN, Subject="SV: waits", Message_ID="<1@example.com>")
    goes = await held(here, RAMADAN, Subject="SV: goes", Message_ID="<2@example.com>", body="goes")
    await eva.post("/freeze", selector="list", list="ramadan", reason="a wrong link")
    freeze = (await here.home.store.gate.read()).freezes[0]
    empty = text(await eva.get(f"/thaw/{freeze.freeze_id}"))
    assert "Nothing that is approved waits for this alone." in empty
    assert "2 messages that it stops wait for a decision still" in empty
    seen = Seen.of(goes)
    await here.home.approve(goes.hold_id, seen=seen)
    late = await eva.post(f"/thaw/{freeze.freeze_id}", messages="0")
    assert late.status_code == 409
    assert "More messages would be sent now than when you looked." in text(late)
    unseen = await eva.post(f"/thaw/{freeze.freeze_id}")
    assert unseen.status_code == 422
    said = text(unseen)
    assert "1 approved message goes out at once. Together up to 60 people." in said
    assert "To Ramadan greetings" in said
    assert "SV: goes" in said
    assert "SV: waits" not in said
    assert "1 message that it stops waits for a decision still" in said
    assert "Thaw, and send 1 message" in said
    assert len(await active_freezes(here)) == 1, "a view thaws nothing"
    assert (await eva.post(f"/thaw/{freeze.freeze_id}", messages="1")).status_code == 303
    assert await active_freezes(here) == []
    assert waits.hold_id != goes.hold_id


async def test_a_freeze_lifted_meanwhile_is_a_conflict(here: Stage) -> None:
    eva = await freeze_page(here)
    answer = await eva.post("/thaw/NOSUCHFREEZE")
    assert answer.status_code == 409
    assert "It is already lifted." in text(answer)


async def test_a_failed_freeze_is_reported_prominently(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    eva = await freeze_page(here)
    for error, said in (
        (Unavailable("away"), "NOTHING IS FROZEN"),
        (CommitUnknown("away"), "It is not known whether it is frozen"),
    ):

        async def away(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(here.home.store.gate, "freeze", away)
        answer = await eva.post("/freeze", selector="all", reason="x")
        assert (answer.status_code, said in text(answer)) == (503, True)


@pytest.mark.parametrize("two", [False, True])
async def test_a_page_without_the_store_does_not_say_that_mail_is_going(
    here: Stage, monkeypatch: pytest.MonkeyPatch, two: bool
) -> None:
    eva = await freeze_page(here)
    await here.home.freeze()
    monkeypatch.setattr(here.app.state.console.freezes, "thaw_two", two)

    async def away(*_: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(here.home.store.gate, "freeze", away)
    monkeypatch.setattr(here.home.store.gate, "read", away)
    said = text(await eva.post("/freeze", selector="all", reason="x"))
    assert "NOTHING IS FROZEN" in said
    assert "That cannot be read at the moment." in said
    assert "Mail is going" not in said


async def test_a_freeze_whose_messages_cannot_be_counted_is_a_freeze(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was lost after the commit: the page said that nothing was frozen."""
    eva, asks = await freeze_page(here), await program(here, OMAR, Role.OPERATOR)

    async def away(*_: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(here.home.store.journal, "in_flight", away)
    answer = await eva.post("/freeze", selector="all", reason="x")
    assert answer.status_code == 200
    assert "Nothing of it is sent from now on. How many messages were stopped on their way is not known" in text(answer)
    made = (await asks("POST", "/freezes", {"selector": "all", "reason": "x"})).json()
    assert made["problems"] == [UNCOUNTED]
    assert len(await here.app.state.console.freezes.active()) == 2


async def test_a_messages_link_prefills_the_freeze(here: Stage) -> None:
    eva = await here.signed_in(EVA, Role.APPROVER)
    answer = await eva.get("/still?selector=sender&sender=anna@example.com")
    assert 'name="selector" value="sender" checked' in answer.text
    assert 'value="anna@example.com"' in answer.text
    assert await active_freezes(here) == []
    assert {s.value for s in Selector} >= {"all", "list", "sender", "mailing"}


async def test_a_thaw_by_two_is_asked_and_confirmed(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    eva, omar = await freeze_page(here), await freeze_page(here, OMAR)
    await eva.post("/freeze", selector="all", reason="a wrong link")
    freeze = (await here.home.store.gate.read()).freezes[0]
    monkeypatch.setattr(here.app.state.console.freezes, "thaw_two", True)
    assert "Ask for a thaw: everything" in text(await eva.get("/still"))
    for _ in range(2):  # two requests of one person count as one person
        asked = await confirm_thaw(eva, freeze.freeze_id)
        assert "Another person must agree" in text(await eva.get(asked.headers["location"]))
    assert len(await active_freezes(here)) == 1
    page = text(await omar.get("/still"))
    assert "eva@example.com wants to thaw it" in page
    assert "Thaw: everything" in page
    await confirm_thaw(omar, freeze.freeze_id)
    assert await active_freezes(here) == []
    kinds = [kind for kind, _ in await here.home.events(freeze.freeze_id)]
    assert kinds == ["freeze", "thaw-asked", "thaw"]


async def test_a_request_to_thaw_counts_for_a_day_and_with_the_right_to_thaw(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    eva, omar = await freeze_page(here), await freeze_page(here, OMAR)
    await eva.post("/freeze", selector="all", reason="a wrong link")
    freeze = (await here.home.store.gate.read()).freezes[0]
    monkeypatch.setattr(here.app.state.console.freezes, "thaw_two", True)
    await confirm_thaw(eva, freeze.freeze_id)
    account = await here.accounts.get(EVA)
    await here.accounts.set_roles(account, [Role.VIEWER], by="root")
    assert "Ask for a thaw: everything" in text(await omar.get("/still")), "it is as if nobody had asked"
    await confirm_thaw(omar, freeze.freeze_id)
    assert len(await active_freezes(here)) == 1
    await here.accounts.set_roles(account, account.roles, by="root")
    here.home.clock.pass_(hours=24)
    await confirm_thaw(await freeze_page(here, "ulla@example.com"), freeze.freeze_id)
    assert len(await active_freezes(here)) == 1, "Omar's request was too long ago"
    await confirm_thaw(await freeze_page(here, "sten@example.com"), freeze.freeze_id)
    assert await active_freezes(here) == []
    kinds = [kind for kind, _ in await here.home.events(freeze.freeze_id)]
    assert kinds == ["freeze", "thaw-asked", "thaw-asked", "thaw-asked", "thaw"]


async def test_two_addresses_of_one_person_do_not_thaw(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    eva, also = await freeze_page(here), await freeze_page(here, "eva.ek@example.com")
    await eva.post("/freeze", selector="all", reason="a wrong link")
    freeze = (await here.home.store.gate.read()).freezes[0]
    monkeypatch.setattr(here.app.state.console.freezes, "thaw_two", True)
    both = frozenset({EVA, "eva.ek@example.com"})
    groups = replace(here.home.in_force.groups, aliases=dict.fromkeys(both, both))
    here.home.in_force = replace(here.home.in_force, groups=groups)
    for browser in (eva, also):
        await confirm_thaw(browser, freeze.freeze_id)
        assert "Ask for a thaw" in text(await browser.get(f"/thaw/{freeze.freeze_id}"))
    assert len(await active_freezes(here)) == 1
    await confirm_thaw(await freeze_page(here, OMAR), freeze.freeze_id)
    assert await active_freezes(here) == []


async def test_a_failed_hook_is_reported_in_the_readers_language(here: Stage) -> None:
    freezes = here.app.state.console.freezes
    freezes.freeze_hook = freezes.thaw_hook = (("/bin/sh", "-c", "echo 'no <b>right</b> to' >&2; exit 7"),)
    eva, swedish = await freeze_page(here), {"Accept-Language": "sv"}
    frozen = await eva.post("/freeze", swedish, selector="all", reason="fel utskick")
    assert "misslyckades: /bin/sh: det slutade med status 7: no <b>right</b> to" in text(frozen)
    assert "<b>right" not in frozen.text
    [standing] = await freezes.active()
    thawed = await eva.post(f"/thaw/{standing.freeze_id}", swedish, messages="0")
    assert "ett kommando efter upptiningen misslyckades: /bin/sh: det slutade med status 7" in text(thawed)


TODAY = MONDAY.date().isoformat()
LATER = (MONDAY + timedelta(days=4)).date().isoformat()


async def submit_absence(browser: Browser, **fields: str) -> str:
    await browser.get("/away")
    answer = await browser.post("/away", **{"since": TODAY, "until": LATER, "deputy": ""} | fields)
    return text(await browser.get("/away")) if answer.status_code == 303 else f"{answer.status_code} {text(answer)}"


async def test_a_deputy_of_the_same_group_decides_at_once(here: Stage) -> None:
    await here.home.put(DOCUMENTS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    said = await submit_absence(eva, deputy="Omar@example.com")
    assert "You are away 2 March to 6 March. omar@example.com is the deputy (communications)." in said
    omar = await here.signed_in(OMAR, Role.APPROVER)
    assert "You decide for eva@example.com until 6 March." in text(await omar.get("/away"))
    hold = await held(here)
    page = text(await omar.get(f"/held/{hold.hold_id}"))
    assert "Can decide: dpo@example.com, omar@example.com" in page
    assert "eva@example.com is away until 6 March, and omar@example.com decides for them." in page
    assert "omar@example.com decides for them" in text(await omar.get("/guide"))
    for who in (EVA, OMAR):
        await here.home.approve(hold.hold_id, who)
    page = text(await omar.get(f"/held/{hold.hold_id}"))
    assert "eva@example.com, omar@example.com have one vote together" in page
    await eva.get("/away")
    await eva.post("/away/back")
    assert "You are away" not in text(await eva.get("/away"))
    assert (await eva.post("/away/back")).status_code == 409
    assert [event["change"] for event in await here.kinds("absence")] == ["away", "back"]


async def test_another_deputy_decides_after_an_admin_confirms(here: Stage) -> None:
    await here.home.put(DOCUMENTS)
    hold = await held(here)
    dpo = await here.signed_in(DPO, Role.APPROVER, Role.ADMIN)
    sten = await here.signed_in("sten@example.com", Role.APPROVER)
    admin = await here.signed_in("admin@example.com", Role.ADMIN)
    said = await submit_absence(dpo, deputy="sten@example.com")
    await submit_absence(dpo, deputy="sten@example.com")
    [told] = [i for i in await here.home.outbox() if (i.data or {}).get("notice") == "deputy"]
    assert str(told.recipients[0].address) == "admin@example.com", "once, and not to the admin who is away"
    assert (told.data["person"], told.data["deputy"], told.data["groups"]) == (DPO, "sten@example.com", ["compliance"])
    assert "sten@example.com is not in compliance, and can decide there only once an admin agrees." in said
    assert (await sten.get(f"/held/{hold.hold_id}")).status_code == 404
    both = {"person": DPO, "deputy": "sten@example.com"}
    answer = await dpo.post("/away/agree", **both)
    assert (answer.status_code, "another admin must do it" in text(answer)) == (409, True)
    await sten.get("/away")
    assert (await sten.post("/away/agree", **both)).status_code == 404, "for admins only"
    assert "dpo@example.com" in text(await admin.get("/away"))
    assert (await admin.post("/away/agree", **both | {"deputy": DUTY})).status_code == 409, "not the deputy she named"
    assert (await admin.post("/away/agree", **both)).status_code == 303
    assert (await sten.get(f"/held/{hold.hold_id}")).status_code == 200
    said = await submit_absence(dpo, deputy="sten@example.com", until=(MONDAY + timedelta(days=9)).date().isoformat())
    assert "only once an admin agrees" in said, "a longer absence needs a new confirmation"
    await admin.get("/away")
    assert (await admin.post("/away/refuse", **both)).status_code == 303
    assert "No deputy: the notices are not passed on." in text(await dpo.get("/away"))


async def test_an_invalid_absence_is_reported_beside_its_field(here: Stage) -> None:
    await here.home.put(DOCUMENTS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    for fields, said in (
        ({"until": "2026-02-27"}, "The last day is before the first one."),
        ({"since": "2026-02-01", "until": "2026-02-27"}, "The last day is in the past."),
        ({"until": "2027-12-31"}, "The absence is longer than a year."),
        ({"until": "soon"}, "Not a day."),
        ({"deputy": EVA}, "You cannot be your own deputy"),
        ({"deputy": "stranger@example.org"}, "This person is in no group"),
        ({"deputy": "@"}, "Not an address."),
    ):
        answer = await submit_absence(eva, **fields)
        assert answer.startswith("400 ")
        assert said in answer
    assert await here.kinds("absence") == []
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    assert (await vera.get("/away")).status_code == 404


async def test_writers_read_no_reason_and_no_other_senders_address(here: Stage) -> None:
    """Neither by a link of a notice nor with an account without a role."""
    hold = await held(here)
    await here.home.freeze(Selector.SENDER, "bo@example.com")
    link = Links(KEY).sign(Link(hold_id=hold.hold_id, address=ANNA, until=here.home.clock.now() + timedelta(days=1)))
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert "mail from bo@example.com (a fire)" in text(await eva.get("/held"))
    for reader, path in ((here.browser(), f"/mine/{link}"), (await here.signed_in(ANNA), "/mine")):
        answer = await reader.get(path)
        assert answer.status_code == 200
        for private in ("bo@example.com", "a fire"):
            assert private not in answer.text, path


async def test_buttons_of_several_freezes_have_names_of_their_own(here: Stage) -> None:
    await here.home.freeze(Selector.SENDER, ANNA, id="F1")
    await here.home.freeze(Selector.SENDER, OMAR, id="F2")
    admin = await here.signed_in(EVA, Role.ADMIN)
    said = text(await admin.get("/still"))
    assert "Incident report : mail from anna@example.com" in said
    assert "Incident report : mail from omar@example.com" in said
