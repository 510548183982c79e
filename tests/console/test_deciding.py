"""Decisions on one message: votes bound to the version that was seen, questions and answers, withdrawal, the writer's
signed link."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from starlette.datastructures import FormData

from smtpguard.accounts.model import Role
from smtpguard.console.rendering import number
from smtpguard.database.errors import CommitUnknown, Unavailable
from smtpguard.holds.deadlines import REMINDERS
from smtpguard.holds.effects import TEST
from smtpguard.holds.model import Change, Choice, Conflict, State
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.lists.index import index_path
from smtpguard.mailings.service import Mailings
from smtpguard.notices.links import Link, Links
from smtpguard.outbox.model import AttemptResult, IntentKind
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Action, Hit
from tests.console.holding import ANNA, DPO, EVA, NEWS, OMAR, changed, held, text
from tests.console.stage import Browser, Stage
from tests.every import every
from tests.guard.house import DOCUMENTS, KEY, MEMBERS
from tests.guard.office import Office


async def open_hold(here: Stage, who: str, hold: Any) -> Browser:
    browser = await here.signed_in(who, Role.APPROVER)
    answer = await browser.get(f"/held/{hold.hold_id}")
    assert answer.status_code == 200
    return browser


async def votes(browser: Browser, hold: Any, choice: str, **fields: str) -> Any:
    bound = {name: browser.hidden(name) for name in ("content", "envelope", "policy", "scope")}
    bound |= {"sure": "yes"}
    bound |= {"people": browser.hidden("people")} if 'name="people"' in browser.page else {}
    return await browser.post(f"/held/{hold.hold_id}/vote", choice=choice, **(bound | fields))


async def test_the_vote_that_completes_the_quorum_releases(here: Stage) -> None:
    hold = await held(here)
    eva, dpo = await open_hold(here, EVA, hold), await open_hold(here, DPO, hold)
    assert "Approve" in text(await eva.get(f"/held/{hold.hold_id}"))
    first = await votes(eva, hold, "approve")
    assert (first.status_code, first.headers["location"]) == (303, f"/held/{hold.hold_id}?done=approve")
    assert "Your approval counts." in text(await eva.get(first.headers["location"]))
    assert (await here.home.hold(hold.hold_id)).state is State.WAITING
    assert "Send to 60 people" in text(await dpo.get(f"/held/{hold.hold_id}"))
    await votes(dpo, hold, "approve")
    released = await here.home.hold(hold.hold_id)
    assert released.state is State.APPROVED
    assert [v.approver for v in released.votes] == [EVA, DPO]


async def test_a_form_without_a_choice_decides_nothing(here: Stage) -> None:
    hold = await held(here)
    eva = await open_hold(here, EVA, hold)
    forms = {name: eva.hidden(name) for name in ("content", "envelope", "policy", "scope")} | {"sure": "yes"}
    seen = ":".join([hold.hold_id, forms["content"], forms["envelope"], "", forms["scope"]])
    for path in (f"/held/{hold.hold_id}/vote", "/decide", "/decided"):
        for choice in ({}, {"choice": "later"}):
            answer = await eva.post(path, **forms, **choice, hold=hold.hold_id, seen=seen, number="1")
            assert (path, answer.status_code) == (path, 400)
    assert (await here.home.hold(hold.hold_id)).votes == ()


async def test_an_approval_is_taken_back_before_the_quorum(here: Stage) -> None:
    hold = await held(here)
    eva = await open_hold(here, EVA, hold)
    assert "Take your approval back" not in eva.page
    await votes(eva, hold, "approve")
    assert "Take your approval back" in text(await eva.get(f"/held/{hold.hold_id}"))
    answer = await eva.post(f"/held/{hold.hold_id}/unvote")
    said = text(await eva.get(answer.headers["location"]))
    assert "Your approval is taken back." in said
    assert "Nobody has decided yet." in said
    assert (await here.home.hold(hold.hold_id)).votes == ()
    await votes(eva, hold, "reject", comment="Wrong list")
    assert (await here.home.hold(hold.hold_id)).state is State.REJECTED


async def copy(here: Stage, n: int) -> Any:
    """The primary hold of a copy to twenty of sixty members."""
    here.home.clock.pass_(minutes=1)
    hold = await held(here, *MEMBERS[20 * n : 20 * n + 20], X_Mailing="eid", Subject="SV: Eid", Message_ID=f"<{n}@x>")
    return await here.home.hold(hold.primary or hold.hold_id)


async def test_the_button_shows_how_many_people_the_mailing_reaches(here: Stage) -> None:
    await copy(here, 0)
    hold = await copy(here, 1)
    assert (hold.copies, hold.reach) == (1, 40)
    eva, dpo = await open_hold(here, EVA, hold), await open_hold(here, DPO, hold)
    await votes(eva, hold, "approve")
    said = text(await dpo.get(f"/held/{hold.hold_id}"))
    assert "The held copies are for 40 people. Further copies of the mailing may come" in said
    assert "Send to up to 60 people" in said
    assert (await votes(dpo, hold, "approve")).status_code == 303
    assert await granted(here, hold) == 60


@pytest.mark.parametrize(
    ("typed", "people"), [("40", 40), ("50", 50), ("60", 60), ("39", None), ("61", None), ("", None)]
)
async def test_approving_a_large_mailing_needs_a_number_of_people(
    here: Stage, monkeypatch: pytest.MonkeyPatch, typed: str, people: int | None
) -> None:
    for page in ("deciding", "message"):
        monkeypatch.setattr(f"smtpguard.console.pages.{page}.LARGE", 50)
    await copy(here, 0)
    hold = await copy(here, 1)
    await votes(await open_hold(here, EVA, hold), hold, "approve")
    dpo = await open_hold(here, DPO, hold)
    answer = await votes(dpo, hold, "approve", number=typed)
    assert answer.status_code == (303 if people else 422)
    assert ("type a number from 40 to 60" in text(answer)) is (people is None)
    assert await granted(here, hold) == people


async def test_the_typed_number_includes_those_who_have_it(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in ("deciding", "message"):
        monkeypatch.setattr(f"smtpguard.console.pages.{page}.LARGE", 50)
    await here.home.send(*MEMBERS[:10], X_Mailing="eid", Subject="SV: Eid", Message_ID="<passed@x>")
    hold = await held(here, *MEMBERS[10:30], X_Mailing="eid", Subject="SV: Eid")
    await votes(await open_hold(here, EVA, hold), hold, "approve")
    dpo = await open_hold(here, DPO, hold)
    answer = await votes(dpo, hold, "approve", number="20")
    assert "type a number from 30 to 60" in text(answer)
    assert (await votes(dpo, hold, "approve", number="30")).status_code == 303
    assert await granted(here, hold) == 30


async def granted(here: Stage, hold: Any) -> int | None:
    mailing = await here.home.store.mailings.find(hold.mailing_id)
    return mailing.grant.people if mailing is not None and mailing.grant is not None else None


async def test_more_people_than_the_button_showed_is_a_conflict(here: Stage) -> None:
    hold = await copy(here, 0)
    await votes(await open_hold(here, EVA, hold), hold, "approve")
    dpo = await open_hold(here, DPO, hold)
    assert "Send to 20 people" in text(await dpo.get(f"/held/{hold.hold_id}"))
    assert (await copy(here, 1)).hold_id == hold.hold_id
    assert (await votes(dpo, hold, "approve")).status_code == 409
    assert (await here.home.hold(hold.hold_id)).state is State.WAITING


async def test_after_a_conflict_the_typed_text_is_kept(here: Stage) -> None:
    hold = await held(here)
    eva = await open_hold(here, EVA, hold)
    await changed(here, hold, content_sha256="0" * 64)
    answer = await votes(eva, hold, "reject", comment="A long reason & more")
    assert answer.status_code == 409
    assert "A long reason & more" in text(answer)


async def test_a_large_message_needs_the_number(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in ("deciding", "message"):
        monkeypatch.setattr(f"smtpguard.console.pages.{page}.LARGE", 2)
    hold = await held(here, NEWS)
    assert hold.reach == 2
    eva = await open_hold(here, EVA, hold)
    assert "Send to 2 people" in text(await eva.get(f"/held/{hold.hold_id}"))
    for typed in ("", "3", "2.5", "people"):
        wrong = await votes(eva, hold, "approve", number=typed)
        assert wrong.status_code == 422
        assert "It was not sent: the number that was typed is not 2." in text(wrong)
    assert (await here.home.hold(hold.hold_id)).state is State.WAITING
    assert (await votes(eva, hold, "approve", number=" 2 ")).status_code == 303
    assert (await here.home.hold(hold.hold_id)).state is State.APPROVED


@every("typed", ["412318", "412,318", "412 318", "412.318", "412\u00a0318", "412\u202f318", " 412'318 "])
def test_a_number_may_be_grouped_in_any_way(typed: str) -> None:
    assert number(FormData({"number": typed}), "number") == 412318


def test_a_number_that_is_too_long_is_none() -> None:
    assert number(FormData({"number": "9" * 5000}), "number") is None


async def test_the_writer_sees_the_reason_of_a_rejection(here: Stage) -> None:
    hold, other = await held(here), await held(here, NEWS)
    eva = await open_hold(here, EVA, other)
    await votes(eva, other, "reject", comment="  ")
    assert (await here.home.hold(other.hold_id)).state is State.REJECTED
    await eva.get(f"/held/{hold.hold_id}")
    await votes(eva, hold, "reject", comment="Not to this list,\r\nplease")
    rejected = await here.home.hold(hold.hold_id)
    assert (rejected.state, rejected.votes[-1].comment) == (State.REJECTED, "Not to this list,\nplease")
    anna = await here.signed_in(ANNA)
    assert "rejected it" in text(own := await anna.get(f"/held/{hold.hold_id}"))
    assert "Not to this list, please" in text(own)
    told = [i.data for i in await here.home.outbox() if i.data.get("notice") == "decided"]
    assert "Not to this list,\nplease" in [data["comment"] for data in told]


@pytest.mark.parametrize("what", ["policy", "lists", "rules", "decided", "no answer"])
async def test_a_hold_that_changed_since_is_409(here: Stage, what: str) -> None:
    hold = await held(here, NEWS)
    eva = await open_hold(here, EVA, hold)
    if what == "lists":
        await changed(here, hold, lists=("news", "ramadan"))
    elif what == "rules":
        more = Hit(rule="a-copy-hit-it", action=Action.HOLD, reasons=())
        await changed(here, hold, verdict=replace(hold.verdict, hits=(*hold.verdict.hits, more)))
    elif what == "policy":
        await here.home.put({**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"] + b"\n# another one\n"})
        await here.home.follow()
    elif what == "no answer":
        await here.home.store.write(lambda b: b.execute("UPDATE hold SET acknowledged = false", [()]))
    else:
        await here.home.approve(hold.hold_id, OMAR)
    before = await here.home.hold(hold.hold_id)
    answer = await votes(eva, hold, "approve")
    assert answer.status_code == 409
    said = {"no answer": "its client has had no answer yet", "policy": "the policy has changed since you looked"}
    assert f"Nothing was done: {said.get(what, 'it has changed since you looked')}" in text(answer)
    assert (await here.home.hold(hold.hold_id)) == before


async def test_under_another_policy_too_a_late_vote_names_who_decided(here: Stage) -> None:
    hold = await held(here, NEWS)
    eva = await open_hold(here, EVA, hold)
    await here.home.put({**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"] + b"\n# another one\n"})
    await here.home.follow()
    await changed(here, hold, release_at=here.home.clock.now() + timedelta(minutes=1))
    said = text(await votes(eva, hold, "approve"))
    assert "Nothing was done: it has changed since you looked." in said


@pytest.mark.parametrize("end", [State.REJECTED, State.EXPIRED, State.RELEASED])
async def test_a_late_rejection_without_a_reason_is_late(here: Stage, end: State) -> None:
    """A reason would not help, and there is no field for one any more."""
    hold = await held(here, NEWS)
    eva = await open_hold(here, EVA, hold)
    await changed(here, hold, state=end)
    answer = await votes(eva, hold, "reject")
    assert answer.status_code == 409
    assert "Nothing was done: it has changed since you looked." in text(answer)


async def test_holds_that_are_decided_on_at_once_are_read_at_once(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    holds = [await held(here, NEWS, Message_ID=f"<{n}@example.com>", body=str(n)) for n in range(3)]
    eva = await open_hold(here, EVA, holds[0])
    read: list[str] = []

    async def find(_: object, hold_id: str) -> None:
        read.append(hold_id)

    monkeypatch.setattr(type(here.home.store.holds), "find", find)
    many = await eva.post("/decide", choice="approve", hold=[hold.hold_id for hold in holds])
    assert len(re.findall(r'name="seen" value="', many.text)) == 3
    assert read == []


async def test_a_late_vote_names_who_decided(here: Stage) -> None:
    holds = [await held(here, NEWS, Message_ID=f"<{n}@example.com>", body=str(n)) for n in range(2)]
    eva, omar = await open_hold(here, EVA, holds[0]), await open_hold(here, OMAR, holds[0])
    many = await eva.post("/decide", choice="approve", hold=[hold.hold_id for hold in holds])
    await eva.get(f"/held/{holds[0].hold_id}")
    await votes(omar, holds[0], "reject", comment="The wrong list")
    late = await votes(eva, holds[0], "approve")
    assert late.status_code == 409
    assert "This is its present state. omar@example.com rejected it, Mon 2 Mar at" in text(late)
    eva.page = many.text
    seen = [html.unescape(v) for v in re.findall(r'name="seen" value="([^"]*)"', many.text)]
    done = await eva.post("/decided", choice="approve", seen=seen, policy=eva.hidden("policy"), number="2")
    assert "omar@example.com rejected it" in text(done)
    with pytest.raises(Conflict, match=r"it is already rejected, rejected by omar@example\.com"):
        await here.home.approve(holds[0].hold_id, EVA)


async def test_of_two_in_one_instant_the_faster_is_named(here: Stage) -> None:
    hold = await held(here)
    dpo = await open_hold(here, DPO, hold)
    await here.home.approve(hold.hold_id, EVA)
    await here.home.approvals().vote(hold.hold_id, Choice.REJECT, approver=OMAR, by="test", comment="The wrong list")
    assert "present state. omar@example.com rejected it" in text(await votes(dpo, hold, "approve"))


async def test_once_its_time_is_over_nobody_is_asked(here: Stage) -> None:
    """Also before the sweep says so."""
    hold = await held(here, NEWS)
    await changed(here, hold, expires_at=here.home.clock.now(), reminded=len(REMINDERS))
    eva, anna = await open_hold(here, EVA, hold), await here.signed_in(ANNA)
    assert "Your decision Its time is over: it is not sent." in text(await eva.get(f"/held/{hold.hold_id}"))
    assert 'value="approve"' not in eva.page
    said = text(await anna.get(f"/held/{hold.hold_id}"))
    assert "It has not been sent. It waits for approval. Its time is over: it is not sent." in said


async def test_before_its_last_reminder_nothing_is_said_to_expire(here: Stage) -> None:
    """As no sweep has come yet: whoever decides is told that it counts, and its writer too."""
    hold = await held(here, NEWS)
    await changed(here, hold, expires_at=here.home.clock.now())
    eva, anna = await open_hold(here, EVA, hold), await here.signed_in(ANNA)
    said = "Its time is over, but its last reminder is still due: a decision counts."
    assert said in text(await eva.get(f"/held/{hold.hold_id}"))
    assert said in text(await anna.get(f"/held/{hold.hold_id}"))
    assert "a last reminder is due" in text(await eva.get("/held"))
    await changed(here, hold, reminded=len(REMINDERS))
    assert "expires now" in text(await eva.get("/held"))
    assert said not in text(await eva.get(f"/held/{hold.hold_id}"))


async def test_a_clock_that_jumped_ends_no_decision(here: Stage) -> None:
    """As the guard, the pages do not believe it for a day; an approval is asked back."""
    hold = await held(here, NEWS)
    here.home.clock.at += timedelta(days=30)
    eva, anna = await open_hold(here, EVA, hold), await here.signed_in(ANNA)
    assert "Its time is over" not in text(await anna.get(f"/held/{hold.hold_id}"))
    for sure, state in (("", State.WAITING), ("yes", State.APPROVED)):
        await votes(eva, hold, "approve", sure=sure)
        assert (await here.home.hold(hold.hold_id)).state is state


async def test_writers_cannot_decide_on_their_own_message(here: Stage) -> None:
    hold = await held(here, NEWS, sender="Eva <eva@example.com>", reverse_path="eva@example.com")
    eva = await here.signed_in(EVA, Role.APPROVER, Role.ADMIN)
    page = await eva.get(f"/held/{hold.hold_id}")
    assert "Your decision" not in text(page)
    fields = {
        "content": hold.content_sha256,
        "envelope": hold.envelope.sha256,
        "policy": here.home.in_force.sha256,
        "scope": hold.scope_text,
    }
    answer = await eva.post(f"/held/{hold.hold_id}/vote", choice="approve", **fields)
    assert answer.status_code == 403
    assert (await here.home.hold(hold.hold_id)).votes == ()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unavailable("the database is away"), "Nothing was done: the record cannot be written"),
        (
            CommitUnknown("the database is away"),
            "It is not known whether it was done: the database was lost meanwhile.",
        ),
    ],
)
async def test_a_store_that_cannot_be_written_is_reported(
    here: Stage, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    hold = await held(here, NEWS)
    eva = await open_hold(here, EVA, hold)

    async def away(*_: object) -> None:
        raise error

    monkeypatch.setattr(here.home.store.holds, "change", away)
    answer = await votes(eva, hold, "approve")
    assert answer.status_code == 503
    assert said in text(answer)


# questions and answers


async def test_a_question_and_its_answer_are_on_both_pages_and_mailed(here: Stage) -> None:
    hold = await held(here)
    eva, anna = await open_hold(here, EVA, hold), await here.signed_in(ANNA)
    assert (await eva.post(f"/held/{hold.hold_id}/ask", question="")).status_code == 422
    asked = await eva.post(f"/held/{hold.hold_id}/ask", question="Did you mean the <b>list</b>?")
    assert asked.headers["location"].endswith("?done=asked")
    page = await anna.get(f"/held/{hold.hold_id}")
    assert "Its writer was asked eva@example.com Did you mean the <b>list</b>?" in text(page)
    assert (await anna.post(f"/held/{hold.hold_id}/answer", words=" ")).status_code == 422
    await anna.post(f"/held/{hold.hold_id}/answer", words="Yes, it is the Eid greeting")
    assert "Its writer says anna@example.com Yes, it is the Eid greeting" in text(
        await eva.get(f"/held/{hold.hold_id}")
    )
    notices = [(str(i.recipients[0].address), i.data) for i in await here.home.outbox()]
    questions = [(to, d["comment"]) for to, d in notices if d.get("notice") == "question"]
    assert questions == [(ANNA, "Did you mean the <b>list</b>?")]
    assert sorted(to for to, d in notices if d.get("notice") == "answer") == [DPO, EVA, OMAR]


async def test_an_answer_is_no_request_for_release(here: Stage) -> None:
    """A writer's answer is no request for release, and no notice says that it is ("The wrong list, reject it")."""
    hold = await held(here)
    eva, anna = await open_hold(here, EVA, hold), await here.signed_in(ANNA)
    await anna.get(f"/held/{hold.hold_id}")
    await anna.post(f"/held/{hold.hold_id}/answer", words="It has a typing error")  # no question was asked
    await eva.post(f"/held/{hold.hold_id}/ask", question="Is this for that list?")
    page = await anna.get(f"/held/{hold.hold_id}")
    assert "eva@example.com asks: Is this for that list?" in text(page)
    assert "Answer the question, or withdraw the message." in text(page)
    assert "You need not do anything." not in text(page)
    refused = await anna.post(f"/held/{hold.hold_id}/answer", words=" ")
    assert refused.status_code == 422
    assert 'aria-describedby="words-wrong"' in refused.text
    assert "Write your message." in text(refused)
    await anna.post(f"/held/{hold.hold_id}/answer", words="The wrong list, reject it")
    assert "eva@example.com asks:" not in text(await anna.get(f"/held/{hold.hold_id}"))
    assert (await anna.post(f"/held/{hold.hold_id}/plea", words="")).status_code == 422
    done = await anna.post(f"/held/{hold.hold_id}/plea", words="The other one, and today")
    assert done.headers["location"].endswith("?done=pleaded")
    assert "Its writer asks that it be sent anna@example.com The other one, and today" in text(
        await eva.get(f"/held/{hold.hold_id}")
    )
    told = [dict(i.data) for i in await here.home.outbox() if str(i.recipients[0].address) == EVA]
    said = {(d["notice"], d.get("question"), d.get("asked_by"), d["comment"]) for d in told if "comment" in d}
    assert said == {
        ("answer", "", "", "It has a typing error"),
        ("answer", "Is this for that list?", EVA, "The wrong list, reject it"),
        ("plea", None, None, "The other one, and today"),
    }


async def test_a_message_without_a_writer_cannot_be_asked_about(here: Stage) -> None:
    hold = await changed(here, await held(here), sender=None)
    eva = await open_hold(here, EVA, hold)
    answer = await eva.post(f"/held/{hold.hold_id}/ask", question="Who are you?")
    assert answer.status_code == 409
    assert "this message has no writer to ask" in text(answer)


async def test_only_approvers_ask_and_only_the_writer_answers(here: Stage) -> None:
    hold = await held(here, NEWS)
    dpo = await here.signed_in(DPO, Role.APPROVER, Role.VIEWER)
    await dpo.get("/still")  # a page with a form
    refused = await dpo.post(f"/held/{hold.hold_id}/ask", question="x")
    assert refused.status_code == 403
    assert "you have no right to do this" in text(refused)
    assert (await dpo.post(f"/held/{hold.hold_id}/answer", words="x")).status_code == 404
    assert (await dpo.post(f"/held/{hold.hold_id}/withdraw")).status_code == 404
    anna = await here.signed_in(ANNA)
    await anna.get(f"/held/{hold.hold_id}")
    assert (await anna.post(f"/held/{hold.hold_id}/ask", question="x")).status_code == 404
    assert (await here.home.hold(hold.hold_id)) == hold


async def test_the_writer_withdraws(here: Stage) -> None:
    hold = await held(here)
    anna = await here.signed_in(ANNA)
    await anna.get(f"/held/{hold.hold_id}")
    answer = await anna.post(f"/held/{hold.hold_id}/withdraw")
    said = text(await anna.get(answer.headers["location"]))
    assert "It is withdrawn. It will not be sent." in said
    assert (await here.home.hold(hold.hold_id)).state is State.WITHDRAWN
    late = await anna.post(f"/held/{hold.hold_id}/withdraw")
    assert late.status_code == 409


# the writer's signed link


def link_of(here: Stage, hold: Any, **more: Any) -> str:
    link = Link(hold_id=hold.hold_id, address=ANNA, until=here.home.clock.now() + timedelta(days=2))
    return Links(KEY).sign(link, **more)


async def test_the_link_in_the_notice_lets_its_writer_withdraw(here: Stage) -> None:
    hold = await held(here)
    browser = here.browser()
    path = f"/mine/{link_of(here, hold)}"
    page = await browser.get(path)
    assert "It has not been sent. It waits for approval." in text(page)
    assert (await here.home.hold(hold.hold_id)) == hold
    told = await browser.post(f"{path}/answer", words="It is meant for them")
    assert told.headers["location"] == f"{path}?done=answered"
    done = await browser.post(f"{path}/withdraw")
    assert "It is withdrawn." in text(await browser.get(done.headers["location"]))
    assert (await here.home.hold(hold.hold_id)).state is State.WITHDRAWN


# freezes and revoking


async def frozen(here: Stage, selector: Selector = Selector.ALL, value: str = "") -> None:
    await here.home.freeze(selector, value)


@pytest.mark.parametrize(
    ("language", "button", "beside", "sentence", "after"),
    [
        (
            "en",
            "once thawed",
            "It is not sent at once. It is sent, exactly as it was written, when this is thawed: everything (frozen by root, Mon 2 Mar at 09:00). Until then it can be taken back.",
            "It has not gone yet. It goes out when this is thawed: everything (frozen by root, Mon 2 Mar at 09:00).",
            "Your approval counts.",
        ),
        (
            "sv",
            "när det tinats upp",
            "Det skickas inte genast. Det skickas, precis som det skrevs, när detta tinas upp: allt (fryst av root, mån 2 mars kl. 09:00). Tills dess kan det tas tillbaka.",
            "Det har inte gått iväg än. Det skickas när detta tinas upp: allt (fryst av root, mån 2 mars kl. 09:00).",
            "Ditt godkännande är räknat.",
        ),
    ],
)
async def test_during_a_freeze_the_page_says_it_is_sent_later(
    here: Stage, language: str, button: str, beside: str, sentence: str, after: str
) -> None:
    hold = await held(here, NEWS)
    await frozen(here)
    eva = await open_hold(here, EVA, hold)
    page = text(await eva.get(f"/held/{hold.hold_id}", **{"accept-language": language}))
    assert button in page
    assert beside in page
    assert "at once" not in page.replace("not sent at once", "")
    done = await votes(eva, hold, "approve")
    page = text(await eva.get(done.headers["location"], **{"accept-language": language}))
    assert after in page
    assert sentence in page
    assert "being sent" not in page
    await here.home.thaw()
    page = text(await eva.get(f"/held/{hold.hold_id}"))
    assert "It is being sent." in page
    assert "thawed" not in page


async def test_a_decision_on_several_says_which_are_sent_later(here: Stage) -> None:
    one = await held(here, NEWS)
    other = await held(here, MEMBERS[0], *MEMBERS[1:30], body="another", To="x@example.com", Message_ID="<2@x>")
    await frozen(here, Selector.LIST, "news")
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get("/held")
    confirm = await eva.post("/decide", choice="approve", hold=[one.hold_id, other.hold_id])
    what = "the list News (frozen by root, Mon 2 Mar at 09:00)"
    assert f"they are sent when this is thawed: {what}." in text(confirm), (
        "only that one of the two needs no other vote"
    )
    seen = [html.unescape(v) for v in re.findall(r'name="seen" value="([^"]*)"', confirm.text)]
    done = await eva.post("/decided", choice="approve", seen=seen, number="2", policy=eva.hidden("policy"))
    assert f"1 of them goes out when this is thawed: {what}." in text(done).replace("# of", "1 of")


async def test_an_approved_message_is_rejected_with_a_reason(here: Stage) -> None:
    hold = await held(here, NEWS)
    await frozen(here)
    eva = await open_hold(here, EVA, hold)
    await votes(eva, hold, "approve")
    page = text(await eva.get(f"/held/{hold.hold_id}"))
    assert "Take the approval back Nothing of it has gone." in page
    assert "Reject it after all, send to nobody" in page
    bound = {name: eva.hidden(name) for name in ("content", "envelope", "policy")}
    silent = await eva.post(f"/held/{hold.hold_id}/vote", choice="reject", comment=" ", **bound)
    assert silent.status_code == 422
    assert re.search('id="comment-wrong">[^<]*Give a reason for the rejection', silent.text), (
        "the error is beside the field"
    )
    done = await eva.post(f"/held/{hold.hold_id}/vote", choice="reject", comment="The wrong list", **bound)
    assert done.status_code == 303
    page = text(await eva.get(done.headers["location"]))
    assert "It is rejected, and its writer is told." in page
    assert "It was rejected. It is not sent, and never will be." in page
    assert "Take the approval back" not in page
    await here.home.thaw()
    assert [i for i in await here.home.outbox() if i.kind.value == "release"] == []
    anna = await here.signed_in(ANNA)
    assert "The wrong list" in text(await anna.get(f"/held/{hold.hold_id}"))


async def test_only_those_who_may_stop_a_release_see_the_button(here: Stage) -> None:
    hold = await held(here, NEWS)
    await votes(await open_hold(here, EVA, hold), hold, "approve")
    for who, role in ((DPO, Role.APPROVER), (OMAR, Role.VIEWER)):
        browser = await here.signed_in(who, role)
        answer = await browser.get(f"/held/{hold.hold_id}")
        assert "Take the approval back" not in text(answer)
        fields = {"content": hold.content_sha256, "envelope": hold.envelope.sha256, "comment": "no"}
        refused = await browser.post(
            f"/held/{hold.hold_id}/vote", choice="reject", policy=here.home.in_force.sha256, **fields
        )
        assert refused.status_code in (403, 404)
    assert (await here.home.hold(hold.hold_id)).state is State.APPROVED


async def test_during_an_attempt_the_page_says_how_many_may_have_it(here: Stage) -> None:
    hold = await held(here, NEWS)
    eva = await open_hold(here, EVA, hold)
    await votes(eva, hold, "approve")
    page = await eva.get(f"/held/{hold.hold_id}")
    bound = {name: eva.hidden(name) for name in ("content", "envelope", "policy")}
    assert "Take the approval back" in text(page)
    await mark_attempted(here, asks=False)
    may = f"It may have gone out to {hold.reach} people: an attempt to send it has begun"
    page = await eva.get(f"/held/{hold.hold_id}")
    assert may in text(page)
    assert "1 message may have gone, nobody knows. It would not be sent again." in text(page)
    anna = await here.signed_in(ANNA)
    assert may in text(await anna.get(f"/held/{hold.hold_id}"))
    done = await eva.post(f"/held/{hold.hold_id}/vote", choice="reject", comment="Too late", **bound)
    assert done.status_code == 303
    now = await here.home.hold(hold.hold_id)
    assert (now.state, now.stopped) == (State.IN_DOUBT, True)
    page = await eva.get(f"/held/{hold.hold_id}")
    assert f"It may have reached {hold.reach} people, nobody knows. It is not sent again." in text(page)


async def mark_attempted(here: Stage, *, asks: bool) -> None:
    """Mark each recipient as attempted without an answer."""
    store = here.home.store
    [lease] = [x for x in await store.outbox.lease("me", 100, 60) if x.intent.kind is IntentKind.RELEASE]
    marks = [
        AttemptResult(recipient=r, event=DeliveryEvent.BEGIN, next_at=store.now(), doubts=1, asks=asks)
        for r in lease.recipients
    ]
    assert await store.outbox.settle(lease, marks, [])


@pytest.mark.parametrize("choice", ["sent", "again"])
async def test_a_list_message_in_doubt_is_first_with_two_choices(here: Stage, choice: str) -> None:
    hold = await held(here, NEWS)
    eva = await open_hold(here, EVA, hold)
    await votes(eva, hold, "approve")
    await mark_attempted(here, asks=True)
    await here.home.approvals().ask()
    waiting = text(await eva.get("/held"))
    assert "It is unknown whether these were sent. They are not sent again automatically." in waiting
    assert f"It may have gone out to {hold.reach} people" in waiting
    assert "All is well" not in waiting
    page = await eva.get(f"/held/{hold.hold_id}")
    assert "It was sent" in text(page)
    assert "Send it again: who has it gets it twice" in text(page)
    for other in (await here.signed_in(ANNA), await here.signed_in(DPO)):  # its writer, and a person who is not asked
        answer = await other.get(f"/held/{hold.hold_id}")
        assert "Send it again: who has it gets it twice" not in text(answer)
        assert (await other.post(f"/held/{hold.hold_id}/settle", choice=choice)).status_code in (403, 404)
    assert (await eva.get(f"/held/{hold.hold_id}/settle")).status_code == 303, "a view changes nothing"
    assert (await eva.post(f"/held/{hold.hold_id}/settle", choice="")).status_code == 422
    forged = await eva.post(f"/held/{hold.hold_id}/settle", csrf="x", choice=choice)
    assert forged.status_code == 403
    assert (await here.home.hold(hold.hold_id)).state is State.IN_DOUBT
    await eva.get(f"/held/{hold.hold_id}")
    done = await eva.post(f"/held/{hold.hold_id}/settle", choice=choice, comment="The log has it")
    assert done.status_code == 303
    expected = State.RELEASED if choice == "sent" else State.RELEASING
    assert (await here.home.hold(hold.hold_id)).state is expected
    assert "Was it sent?" not in text(await eva.get("/held"))


async def test_a_partly_sent_release_is_stopped_for_the_rest(here: Stage) -> None:
    hold = await held(here, NEWS, "gone@example.net", "bo@example.net", "di@example.net")
    eva = await open_hold(here, EVA, hold)
    await votes(eva, hold, "approve")
    [lease] = [x for x in await here.home.store.outbox.lease("me", 100, 60) if x.intent.kind is IntentKind.RELEASE]
    later = here.home.clock.now() + timedelta(minutes=1)
    outcomes = [
        AttemptResult(recipient=r, event=what, next_at=later if what is DeliveryEvent.PUT_OFF else None)
        for r, what in zip(
            lease.recipients,
            (DeliveryEvent.TAKE, DeliveryEvent.REFUSE, DeliveryEvent.PUT_OFF, DeliveryEvent.PUT_OFF),
            strict=True,
        )
    ]
    assert await here.home.store.outbox.settle(lease, outcomes, [])
    page = text(await eva.get(f"/held/{hold.hold_id}"))
    assert (
        "1 recipient has it. 1 recipient could not be reached. 2 have not got it, and would not get it any more."
        in page
    )
    assert "Reject what has not gone" in page
    anna = await here.signed_in(ANNA)
    assert "Withdraw what has not gone" in text(await anna.get(f"/held/{hold.hold_id}"))
    assert (await anna.post(f"/held/{hold.hold_id}/withdraw")).status_code == 303
    stopped = "It was stopped before everyone had received it. The others will not receive it."
    for browser in (anna, eva):
        said = text(await browser.get(f"/held/{hold.hold_id}"))
        assert stopped in said
        assert "is sent" not in said
    for browser, path in ((anna, "/mine"), (eva, "/history")):
        assert "stopped before all had it" in text(await browser.get(path))
    assert "1 recipient has it" in text(await eva.get("/history")), "and not how many it would have reached"


async def test_the_writer_withdraws_an_approved_message_by_the_link(here: Stage) -> None:
    hold = await held(here, NEWS)
    await frozen(here)
    await votes(await open_hold(here, EVA, hold), hold, "approve")
    until = here.home.clock.now() + timedelta(days=1)
    link = Links(KEY).sign(Link(hold_id=hold.hold_id, address=ANNA, until=until))
    anna = here.browser()
    page = text(await anna.get(f"/mine/{link}"))
    assert (
        "It was approved, and has not been sent yet. It goes out when this is thawed: everything (frozen by root"
        in page
    )
    assert "Withdraw it: it is never sent" in page
    assert (await anna.post(f"/mine/{link}/withdraw")).status_code == 303
    assert "It was withdrawn." in text(await anna.get(f"/mine/{link}"))
    assert (await here.home.hold(hold.hold_id)).state is State.WITHDRAWN


async def test_the_writer_does_not_see_the_list_of_a_single_recipient(here: Stage) -> None:
    """The writer is not told of the frozen list that a single recipient is on."""
    hold = await held(here, *MEMBERS[:30], To="x@example.com")
    await frozen(here, Selector.LIST, "ramadan")
    for who in (EVA, DPO):
        await votes(await open_hold(here, who, hold), hold, "approve")
    lead = re.search(
        r'<p class="lead">(.*?)</p>', (await (await here.signed_in(ANNA)).get(f"/held/{hold.hold_id}")).text, re.S
    )
    assert lead
    assert "a list (frozen by root" in lead[1]
    assert "Ramadan" not in lead[1]
    dpo = await here.signed_in("omar@example.com", Role.APPROVER)
    assert "the list Ramadan greetings (frozen by root" in text(await dpo.get(f"/held/{hold.hold_id}"))


async def test_frozen_messages_are_marked_in_all_lists(here: Stage) -> None:
    hold = await held(here, NEWS)
    await votes(await open_hold(here, EVA, hold), hold, "approve")
    omar, anna = await here.signed_in(OMAR, Role.APPROVER), await here.signed_in(ANNA)
    assert "to be sent , frozen" not in text(await omar.get("/history"))
    await frozen(here)
    assert "to be sent , frozen" in text(await omar.get("/history"))
    assert "to be sent , frozen" in text(await anna.get("/mine"))


STAGED = {
    **DOCUMENTS,
    "policy.yaml": DOCUMENTS["policy.yaml"].replace(
        b"    avoid: [pork]\n", b'    avoid: [pork]\n    stages: [5, "20%", rest]\n    BY'
    ),
}


async def staged(here: Stage, by_address: bytes) -> None:
    """Put a policy in force that sends the list's mailings in stages."""
    policy = STAGED["policy.yaml"].replace(b"BY", b"stages_by_address: " + by_address + b"\n")
    await here.home.put(STAGED | {"policy.yaml": policy})
    await here.home.follow()


async def test_a_message_to_a_list_address_is_not_described_as_staged(here: Stage) -> None:
    await staged(here, b"confirm")
    hold = await held(here)
    await votes(await open_hold(here, EVA, hold), hold, "approve")
    dpo = await open_hold(here, DPO, hold)
    said = text(await dpo.get(f"/held/{hold.hold_id}"))
    assert "It is sent to all 60 people at once, not in stages." in said
    assert "It is sent in stages" not in said
    refused = await votes(dpo, hold, "approve")
    assert refused.status_code == 422
    assert "you did not confirm that it goes to everyone at once" in text(refused)
    assert (await votes(dpo, hold, "approve", at_once=dpo.hidden("people"))).status_code == 303
    assert (await here.home.hold(hold.hold_id)).state is State.APPROVED


async def test_single_copies_are_not_described_as_sent_at_once(here: Stage) -> None:
    await staged(here, b"confirm")
    await copy(here, 0)
    hold = await copy(here, 1)
    await votes(await open_hold(here, EVA, hold), hold, "approve")
    dpo = await open_hold(here, DPO, hold)
    said = text(await dpo.get(f"/held/{hold.hold_id}"))
    stages = "It is sent in stages: 5 people, 20 % of all, the rest, with pauses of 30 minutes."
    assert f"{stages} It is sent exactly as it was written." in said
    assert "at once" not in said
    await dpo.get(f"/held/{hold.hold_id}")
    said = text(await votes(dpo, hold, "approve", sure=""))
    assert "Send it to up to 60 people?" in said
    assert f"{stages} It is sent exactly as it was written." in said
    assert "at once" not in said
    said = text(await dpo.post("/decide", choice="approve", hold=hold.hold_id))
    assert "What goes to Ramadan greetings is sent in stages." in said
    await dpo.get(f"/held/{hold.hold_id}")
    await votes(dpo, hold, "approve")
    told = [i.data for i in await here.home.outbox() if i.kind is IntentKind.NOTICE and i.data["notice"] == "decided"]
    assert {str(data["stages"]) for data in told} == {stages}
    await Office(here.home).step()
    anna = await here.signed_in(ANNA)
    for reader, whose in ((dpo, "sent"), (anna, "sent exactly as you wrote it")):
        said = text(await reader.get(f"/held/{hold.hold_id}"))
        assert f"has been {whose}. 1 message that was let go with it has not gone yet." in said
    assert "Nothing waits. All is well." in text(await dpo.get("/held")), "the pause ends by itself"
    assert "approved it · It is approved, and pauses between two stages." in text(await dpo.get("/history"))
    assert " · It is approved, and pauses between two stages. sent" in text(await anna.get("/mine"))
    mailings = Mailings(here.home.store, here.home, here.home.clock)
    await mailings.stop(hold.mailing_id, approver=EVA, by="test", comment="A wrong link.")
    assert "It is stopped. Why: A wrong link. " in text(await dpo.get(f"/mailings/{hold.mailing_id}"))
    said = text(await dpo.get("/held"))
    assert "The rest of these mailings is sent once somebody lets it go on. SV: Eid" in said
    assert "Nothing waits" not in said
    assert "1 mailing is to be let go on" in (overview := text(await dpo.get("/")))
    assert "none for you" not in overview
    bo = await here.signed_in("bo@example.com", Role.APPROVER)
    assert "SV: Eid" not in text(await bo.get("/held"))


async def test_a_test_is_not_described_as_sent(here: Stage) -> None:
    """To approve it lets its mailing pass."""
    await staged(here, b"confirm")
    hold = await held(here)
    await here.home.store.holds.change(hold.hold_id, lambda one: Change(hold=replace(one, kind=TEST)))
    await votes(await open_hold(here, EVA, hold), hold, "approve")
    dpo = await open_hold(here, DPO, hold)
    for said in (
        text(await dpo.get(f"/held/{hold.hold_id}")),
        text(await votes(dpo, hold, "approve", sure="")),
        text(await dpo.post("/decide", choice="approve", hold=hold.hold_id)),
    ):
        assert "The test itself is not sent." in said
        assert "It is sent" not in said
        assert "are sent" not in said
        assert "votes of others" not in said
        assert "60 people?" not in said
        assert "Send to" not in said
        assert "on its way" not in said
    other = await held(here, Message_ID="<2@x>", Subject="Another", body="Something else")
    await dpo.get("/held")
    said = text(await dpo.post("/decide", choice="approve", hold=[hold.hold_id, other.hold_id]))
    assert "Together they reach up to 60 people. 1 of them still needs the votes of others." in said
    await here.home.store.holds.change(hold.hold_id, lambda one: Change(hold=replace(one, state=State.GRANTED)))
    said = text(await (await here.signed_in(ANNA)).get(f"/held/{hold.hold_id}"))
    assert "It was approved, and so was its mailing." in said
    assert "Was it right to stop it?" not in said


async def test_a_message_that_the_policy_refuses_cannot_be_approved(here: Stage) -> None:
    await staged(here, b"refuse")
    hold = await held(here)
    eva = await open_hold(here, EVA, hold)
    said = text(await eva.get(f"/held/{hold.hold_id}"))
    assert "It cannot be approved." in said
    assert "Its writer has to send it as single copies." in said
    assert 'value="approve"' not in eva.page


async def test_several_that_need_further_votes_are_not_said_to_be_sent(here: Stage) -> None:
    both, alone = await held(here), await held(here, NEWS, Message_ID="<2@x>", Subject="Another", body="Something else")
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get("/held")
    said = text(await eva.post("/decide", choice="approve", hold=both.hold_id))
    assert "This sends none of them. After your approval they still need the votes of others." in said
    assert "they are sent" not in said
    said = text(await eva.post("/decide", choice="approve", hold=[both.hold_id, alone.hold_id]))
    assert (
        "they are sent at once. Together they reach up to 2 people. 1 of them still needs the votes of others." in said
    )


async def test_several_of_which_one_reaches_an_unknown_number_say_so(here: Stage) -> None:
    index_path(here.home.folder, "news").unlink()
    here.home.in_force = here.home.build(DOCUMENTS)
    hold = await held(here, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get("/held")
    said = text(await eva.post("/decide", choice="approve", hold=hold.hold_id))
    assert "How many people it reaches is not known" in said
    assert "Together they reach" not in said
