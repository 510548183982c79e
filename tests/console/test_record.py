"""The pages of the history, mailings and the policy, and a message tried against the policy."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.console.chart import growth_chart
from smtpguard.holds.model import Change, Choice, State
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.mailings.model import GrowthPoint, Mailing
from tests.clocks import MONDAY
from tests.console.api.program import held as held_by_program
from tests.console.api.program import program
from tests.console.holding import ANNA, DPO, EVA, NEWS, OMAR, held, text
from tests.console.stage import Stage
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN, FakePassage, mail
from tests.mailings.test_copystatus import last
from tests.returns.mails import dsn, letter


async def journal_of(here: Stage) -> int:
    return (await here.home.store.journal.entries())[-1][0].seq


async def test_the_history_shows_decisions_and_deciders(here: Stage) -> None:
    hold = await held(here, NEWS)
    await here.home.approvals().vote(hold.hold_id, Choice.REJECT, approver=EVA, by="a test", comment="No")
    viewer = await here.signed_in("vera@example.com", Role.VIEWER)
    said = text(await viewer.get("/history"))
    assert "SV: lunch" in said
    assert "rejected 2 people" in said
    assert "eva@example.com rejected it" in said
    assert "Nothing matches." in text(await viewer.get("/history?q=nothing+like+it"))
    assert "SV: lunch" in text(await viewer.get("/history?list=news"))


async def test_an_approver_sees_the_history_of_their_lists(here: Stage) -> None:
    hold = await held(here, NEWS)
    await here.home.approvals().withdraw(hold.hold_id, sender=ANNA, by="a test")
    dpo = await here.signed_in(DPO, Role.APPROVER)
    assert "Nothing yet." in text(await dpo.get("/history"))
    assert (await dpo.get(f"/history/{hold.hold_id}")).status_code == 404


async def test_the_journal_of_a_message_is_a_timeline(here: Stage) -> None:
    hold = await held(here, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get(f"/held/{hold.hold_id}")
    await here.home.approvals().vote(hold.hold_id, Choice.REJECT, approver=OMAR, by="a test", comment="Not <b>now</b>")
    answer = await eva.get(f"/history/{hold.hold_id}")
    said = text(answer)
    told = [
        "Received and judged: held",
        "Viewed: all of it eva@example.com",
        "A vote: reject omar@example.com Not <b>now</b>",
        "Rejected",
    ]
    places = [said.index(words) for words in told]
    assert places == sorted(places)
    assert "<b>now" not in answer.text


# mailings


async def mailing(here: Stage, n: int = 3) -> str:
    """The id of a mailing with one text in ``n`` messages to twenty members each; from the second message on it is
    held."""
    for number in range(n):
        here.home.clock.pass_(minutes=1)
        transaction = here.home.transaction(
            *MEMBERS[20 * number : 20 * number + 20], X_Mailing="eid", Subject="SV: Eid"
        )
        await here.home.intake()(transaction, FakePassage())
    (found,) = await here.home.store.mailings.newest(least=1, state=None, limit=5)
    return str(found.mailing_id)


async def test_a_mailing_is_one_row_with_numbers_and_a_chart(here: Stage) -> None:
    mailing_id = await mailing(here)
    eva = await here.signed_in(EVA, Role.APPROVER, Role.VIEWER)
    waiting = await eva.get("/held")
    assert len(re.findall(r'class="subject"', waiting.text)) == 1
    assert "3 messages" in text(waiting)
    assert "SV: Eid" in text(await eva.get("/mailings"))
    answer = await eva.get(f"/mailings/{mailing_id}")
    said = text(answer)
    assert "It waits for a decision." in said
    assert "held for 60 people" in said
    assert '<path class="held" d="M' in answer.text
    lead = re.search(r'href="/held/(\w+)">Look at it', answer.text)
    assert lead
    page = text(await eva.get(f"/held/{lead[1]}"))
    assert "It stands for 3 messages of one mailing" in page


async def test_an_uncertain_number_is_shown_as_an_interval(here: Stage) -> None:
    mailing_id = await mailing(here)
    entry = (await here.home.store.mailings.find(mailing_id)).entry  # type: ignore[union-attr]
    await here.home.approve(entry)
    eva = await here.signed_in(EVA, Role.APPROVER, Role.VIEWER)
    assert "sent to 0 people" in text(await eva.get(f"/mailings/{mailing_id}"))
    first = next(one for one in await here.home.store.outbox.lease("one", 100, 60) if one.intent.content_sha256)
    await here.home.store.outbox.settle(first, last(first, DeliveryEvent.BEGIN, here.home.clock, 1), [])
    page = text(await eva.get(f"/mailings/{mailing_id}"))
    assert "sent to at least 0, at most 20 people" in page
    assert "at least 0, at most 20 people have it; its copies came between" in page
    assert "first and last copy came" in page
    assert "copy went out" not in page, "one of them is in doubt"
    assert "at least 0, at most 20 sent" in text(await eva.get("/mailings"))
    assert "minst 0, högst 20 skickat" in text(await eva.get("/mailings", **{"Accept-Language": "sv"}))
    assert "minst 0, högst 20 personer har det; exemplaren kom mellan" in text(
        await eva.get(f"/mailings/{mailing_id}", **{"Accept-Language": "sv"})
    )
    await here.home.store.outbox.settle(first, last(first, DeliveryEvent.TAKE, here.home.clock), [])
    page = text(await eva.get(f"/mailings/{mailing_id}"))
    assert "its copies went out between" in page
    assert "first and last copy went out" in page


async def test_a_mailing_to_other_peoples_lists_is_404(here: Stage) -> None:
    mailing_id = await mailing(here)
    sven = await here.signed_in("sven@example.com", Role.APPROVER)
    assert "SV: Eid" not in text(await sven.get("/mailings"))
    assert (await sven.get(f"/mailings/{mailing_id}")).status_code == 404
    assert (await sven.get("/mailings/NOSUCH")).status_code == 404


async def test_each_approval_of_a_mailing_is_shown_with_its_lists_and_number(here: Stage) -> None:
    mailing_id = await mailing(here)
    entry = (await here.home.store.mailings.find(mailing_id)).entry  # type: ignore[union-attr]
    await here.home.approve(entry)

    def for_another_list(found: Mailing) -> tuple[Mailing, Change]:
        assert found.grant is not None
        other = replace(found.grant, hold_id="OTHER", lists=frozenset({"news"}), people=5, by=(OMAR,))
        return found.granted(other, None, 10, here.home.clock.now()), Change()

    await here.home.store.mailings.change(mailing_id, for_another_list)
    eva = await here.signed_in(EVA, Role.APPROVER)
    page = text(await eva.get(f"/mailings/{mailing_id}"))
    assert "approved by omar@example.com: 5 people, and up to 65 in all (News) covers" in page
    assert (
        "approved by dpo@example.com, eva@example.com: 60 people, and up to 65 in all (Ramadan greetings) covers"
        in page
    )


async def test_a_decision_on_a_mailing_can_be_taken_back(here: Stage) -> None:
    mailing_id = await mailing(here)
    entry = (await here.home.store.mailings.find(mailing_id)).entry  # type: ignore[union-attr]
    await here.home.approve(entry)
    eva, viewer = await here.signed_in(EVA, Role.APPROVER), await here.signed_in("vera@example.com", Role.VIEWER)
    assert "Take back the decision" not in text(await viewer.get(f"/mailings/{mailing_id}"))
    assert "approved by dpo@example.com, eva@example.com" in text(await eva.get(f"/mailings/{mailing_id}"))
    wrong = await eva.post(f"/mailings/{mailing_id}", move="go")
    assert wrong.status_code == 409
    assert (await eva.post(f"/mailings/{mailing_id}", move="fly")).status_code == 404
    await here.home.freeze()
    page = text(await eva.get(f"/mailings/{mailing_id}"))
    assert "The rest is sent when this is thawed: everything (frozen by root, Mon 2 Mar at 09:0" in page
    assert "once thawed, to" in page
    assert "on its way to" not in page
    assert "Approved copies that are not sent yet are held again" in page
    done = await eva.post(f"/mailings/{mailing_id}", move="reopen")
    page = text(await eva.get(done.headers["location"]))
    assert "It is done." in page
    assert "It waits for a decision." in page
    assert (await here.home.store.mailings.find(mailing_id)).grant is None  # type: ignore[union-attr]
    assert (await eva.post(f"/mailings/{mailing_id}", move="reopen")).status_code == 409
    await here.home.approve(entry)
    assert (await eva.post(f"/mailings/{mailing_id}", move="reject", comment=" ")).status_code == 422
    done = await eva.post(f"/mailings/{mailing_id}", move="reject", comment="The wrong text")
    assert "It is rejected. Further copies are refused." in text(await eva.get(done.headers["location"]))
    assert (await here.home.store.holds.find(entry)).state is State.REJECTED  # type: ignore[union-attr]


async def test_rejecting_a_mailing_rejects_its_waiting_texts(here: Stage) -> None:
    marks = {"X_Looks": "mailing", "X_Mailing": "spring", "Subject": "Spring is here"}
    bodies = {"1": "To all of you", "2": "To all of you, again"}
    approved, waits = [await held(here, Message_ID=f"<{n}@example.com>", body=b, **marks) for n, b in bodies.items()]
    assert approved.mailing_id == waits.mailing_id
    await here.home.approve(approved.hold_id)
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert "What waits is rejected too" in text(await eva.get(f"/mailings/{waits.mailing_id}"))
    await eva.post(f"/mailings/{waits.mailing_id}", move="reject", comment="The wrong text")
    assert [(await here.home.hold(hold.hold_id)).state for hold in (approved, waits)] == [State.REJECTED] * 2


def test_the_chart_rises_in_steps_within_its_frame() -> None:
    points = [GrowthPoint(at=MONDAY + timedelta(minutes=n), sent=n * 100, held=n) for n in range(5)]
    chart = growth_chart(points)
    assert chart is not None
    assert [n for _, n in chart.across] == [0, 250, 500]
    assert chart.along[0][1] == MONDAY
    numbers = [float(n) for n in re.findall(r"[\d.]+", chart.sent)]
    assert all(0 <= n <= chart.width for n in numbers)
    assert growth_chart([]) is None
    assert growth_chart([GrowthPoint(at=MONDAY, sent=0, held=0)]) is not None


# the policy


async def test_the_policy_page_shows_rules_and_list_sizes(here: Stage) -> None:
    viewer = await here.signed_in("vera@example.com", Role.VIEWER)
    answer = await viewer.get("/policy")
    assert "(not-a-writer)" not in text(answer), "it has no description, and is named once"
    said = text(answer)
    assert "Mail between colleagues never goes to a customer list" in said
    assert (
        "A message is held if all of this is so: what the message looks like: mail between colleagues or unclear"
        in said
    )
    assert "customers that the same mailing reaches: at least 20" in said
    assert "A message is refused if all of this is so:" in said
    assert "Ramadan greetings ramadan@lists.example.com" in said
    assert "60 people" in said
    swedish = text(await viewer.get("/policy", **{"Accept-Language": "sv"}))
    assert "kunder som samma utskick når: minst 20" in swedish


async def test_an_unreliable_list_gives_the_reason(here: Stage) -> None:
    here.home.clock.pass_(days=3)
    here.home.in_force.registry.reopen()
    viewer = await here.signed_in("vera@example.com", Role.VIEWER)
    assert "Not to be relied on: the index of ramadan is stale" in text(await viewer.get("/policy"))
    swedish = text(await viewer.get("/policy", **{"Accept-Language": "sv"}))
    assert re.search(r"indexet för ramadan är för gammalt: källan lästes senast \w+", swedish)


async def tried(here: Stage, **fields: Any) -> Any:
    viewer = await here.signed_in("vera@example.com", Role.VIEWER)
    await viewer.get("/policy/try")
    return await viewer.post("/policy/try", **fields)


async def test_trying_a_message_has_no_effect(here: Stage) -> None:
    viewer = await here.signed_in("vera@example.com", Role.VIEWER)
    await viewer.get("/policy/try")
    before = await journal_of(here)
    raw = mail(RAMADAN, X_Topics="pork").decode()
    answer = await viewer.post("/policy/try", text=raw)
    said = text(answer)
    assert "Such a message is held." in said
    assert "It would reach 60 people: Ramadan greetings. 1 recipient." in said
    assert "Mail between colleagues never goes to a customer list." in said
    assert '"bacon" (pork, in the text)' in said
    assert await journal_of(here) == before
    assert await here.home.store.holds.newest() == []
    assert await here.home.outbox() == []


async def test_trying_takes_another_envelope(here: Stage) -> None:
    answer = await tried(here, text=mail("bo@example.org").decode(), to=f"{RAMADAN}, {NEWS};\n x@example.org")
    assert "3 recipients." in text(answer)
    assert "News, Ramadan greetings" in text(answer)
    calm = await tried_again(here, text=mail("bo@example.org").decode())
    assert "Such a message is relayed." in text(calm)
    assert "No rule applies to it." in text(calm)


async def tried_again(here: Stage, **fields: Any) -> Any:
    browser = await here.signed_in("ulla@example.com", Role.OPERATOR)
    await browser.get("/policy/try")
    return await browser.post("/policy/try", **fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": "  "}, "Paste a message, or choose a file."),
        ({"text": "Subject: nobody\n\nx"}, "There are no recipients"),
        ({"text": "Subject: x\n\nx", "to": "no<body"}, "Not an address: no<body"),
        ({"text": "From: a@example.com\nTo: b@example.com\n\n" + "x" * (10 << 20)}, "It is larger than 10 MB."),
    ],
    ids=["nothing", "nobody", "no address", "too large"],
)
async def test_an_invalid_message_to_try_gives_the_reason(here: Stage, fields: dict[str, str], said: str) -> None:
    answer = await tried(here, **fields)
    assert answer.status_code == 422
    assert said in text(answer)


async def test_the_pages_follow_a_new_policy(here: Stage) -> None:
    changed = DOCUMENTS["policy.yaml"].replace(b"Contracts never go to a list", b"No contract goes to a list")
    await here.home.put({**DOCUMENTS, "policy.yaml": changed})
    await here.home.follow()
    viewer = await here.signed_in("vera@example.com", Role.VIEWER)
    assert "No contract goes to a list" in text(await viewer.get("/policy"))


async def test_a_rule_that_calls_a_person_is_not_said_to_observe(here: Stage) -> None:
    rule = b"rules:\n  - {id: call, description: A call, when: {recipients.list_addresses: any}, then: alarm}\n"
    await here.home.put({**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(b"rules:\n", rule)})
    await here.home.follow()
    viewer = await here.signed_in("vera@example.com", Role.VIEWER)
    for language, said in (("en", "A message alerts a person if all"), ("sv", "Ett meddelande larmar någon om allt")):
        page = text(await viewer.get("/policy", **{"Accept-Language": language}))
        own = page[page.index("(call)") :]
        assert said in own
        assert "bserve" not in own[: own.index("internal-to-list")]


async def test_the_page_shows_number_and_rate_without_names(here: Stage) -> None:
    await held_by_program(here, NEWS)
    asks = await program(here, EVA, Role.APPROVER)
    [mailing] = (await asks("GET", "/mailings")).json()["items"]
    assert here.console is not None
    page = f"/mailings/{mailing['id']}/returns"
    omar = await here.signed_in(OMAR, Role.APPROVER)
    assert "Nothing came back in the last" in (await omar.get(page)).text
    for n in range(12):
        original = f"Message-ID: <nothing-{n}@x>\r\nSubject: {mailing['subject']} and more\r\n\r\n".encode()
        await here.console.returns.take(dsn(original, f"kim{n}@example.net"))
    await here.console.returns.take(letter("reader@example.org", f"SV: {mailing['subject']}", "<1@example.com>"))
    text = (await omar.get(page)).text
    assert re.search(r"<rect class=\"passed\"", text)
    assert "1 came back in the last 10 minutes, 0 in the 10 minutes before: too few to tell." in text
    for name in ("reader@example.org", "kim0@example.net"):
        assert name not in text
    answer = await asks("GET", page)
    assert "reader@example.org" not in answer.text
    found = answer.json()
    assert (found["trend"], [one["sort"] for one in found["items"]]) == ("too few to tell", ["reply"])
    assert page in (await omar.get(f"/mailings/{mailing['id']}")).text


async def test_the_page_is_404_without_permission(here: Stage) -> None:
    await held_by_program(here, NEWS)
    omar = await program(here, OMAR, Role.VIEWER)
    mailing_id = (await omar("GET", "/mailings")).json()["items"][0]["id"]
    dpo = await here.signed_in(DPO, Role.APPROVER)
    assert (await dpo.get(f"/mailings/{mailing_id}/returns")).status_code == 404


async def test_a_return_is_not_said_to_be_of_a_mailing_that_the_caller_may_not_see(here: Stage) -> None:
    await held_by_program(here, NEWS, Subject="SV: lunch on Friday")
    others, decides, viewer = [
        await program(here, who, Role.APPROVER, *more) for who, more in ((DPO, ()), (EVA, ()), (OMAR, (Role.VIEWER,)))
    ]
    [mailing] = (await decides("GET", "/mailings")).json()["items"]
    for n, (asks, known) in enumerate(((others, False), (decides, True), (viewer, True))):
        guessed = f"From: {n}@example.org\nSubject: Re: {mailing['subject']}\n\nNo\n"
        [one] = (await asks("POST", "/returns", {"message": guessed})).json()["items"]
        assert (one["mailing"], one["known_by"]) == ((mailing["id"], "likeness") if known else (None, "nothing")), n
    items = (await decides("GET", f"/mailings/{mailing['id']}/returns")).json()["items"]
    assert len(items) == 3, "it is stored with what it is about"
