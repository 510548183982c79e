"""The list of waiting holds: visibility, filters, pages, and decisions on many."""

from __future__ import annotations

import re
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.holds.model import State
from tests.console.holding import ANNA, DPO, EVA, NEWS, OMAR, changed, held, several, subjects, text, views
from tests.console.stage import Browser, Stage
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN


async def test_holds_are_ordered_by_sensitivity_people_and_deadline(here: Stage) -> None:
    """Holds are ordered: a sensitive list before many people, many before few, then the earliest deadline."""
    news = await several(here, 2, NEWS)
    (big,) = await several(here, 1, NEWS, "otto@partner.example", first=2)
    sensitive = await held(
        here, RAMADAN, Subject="SV: greetings", X_Topics="pork alcohol", Message_ID="<r@example.com>"
    )
    eva = await here.signed_in(EVA, Role.APPROVER)
    answer = await eva.get("/held")
    assert subjects(answer.text) == [sensitive.subject, big.subject, *(hold.subject for hold in news)]
    said = text(answer)
    assert "Sensitive A reply between colleagues, on its way to 60 people on Ramadan greetings. 0 of 2" in said
    assert "SV: greetings pork" in said
    assert "A reply between colleagues, on its way to 3 people on News and other addresses." in said
    assert re.search(r"\d+ (?:hours|days) left", said)
    assert said.startswith("(4) Waiting")
    assert '<span role="status">4 messages wait for you.</span>' in answer.text, (
        "the time, ever another, is not read out"
    )
    await here.home.approve(sensitive.hold_id, EVA)
    assert "1 of 2 votes, yours too" in text(await eva.get("/held"))
    swedish = text(await eva.get("/held", **{"Accept-Language": "sv"}))
    assert "1 av 2 röster, även din" in swedish
    assert "Ett svar mellan kollegor, på väg till 60 personer på Ramadan greetings." in swedish
    assert "på väg till 3 personer på News och andra adresser." in swedish
    assert "fläsk" in swedish


async def test_out_of_hours_the_deciding_group_is_named(here: Stage) -> None:
    await held(here, RAMADAN)
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert "out of hours:" not in text(await eva.get("/held"))
    here.home.clock.pass_(hours=13)
    eva = await here.signed_in(OMAR, Role.APPROVER)
    assert "out of hours: 1 of duty" in text(await eva.get("/held"))


async def test_an_empty_list_says_so(here: Stage) -> None:
    viewer = await here.signed_in("vera@example.com", Role.VIEWER)
    assert "Nothing waits. All is well." in text(await viewer.get("/held"))


async def test_an_approver_sees_the_holds_of_their_groups(here: Stage) -> None:
    await held(here, NEWS, Subject="SV: news")
    await held(here, RAMADAN, Subject="SV: greetings", Message_ID="<2@example.com>")
    dpo = await here.signed_in(DPO, Role.APPROVER)
    assert subjects((await dpo.get("/held")).text) == ["SV: greetings"]
    eva = await here.signed_in(EVA, Role.APPROVER, Role.VIEWER)
    assert len(subjects((await eva.get("/held")).text)) == 2
    stranger = await here.signed_in("sven@example.com", Role.APPROVER)  # in no group
    assert subjects((await stranger.get("/held")).text) == []


async def test_an_approver_in_no_group_is_told_so(here: Stage) -> None:
    stranger = await here.signed_in("sven@example.com", Role.APPROVER)
    assert "Nothing waits. All is well." in text(await stranger.get("/held"))
    await held(here, NEWS, Subject="SV: news")
    said = text(await stranger.get("/held"))
    assert "sven@example.com is in none of the policy's groups" in said
    assert "1 message waits." in said
    assert "All is well" not in said
    dpo = await here.signed_in(DPO, Role.APPROVER)  # of a group that is not asked
    said = text(await dpo.get("/held"))
    assert "Nothing waits for you. 1 message waits for others." in said
    assert "none of the policy's groups" not in said


FILTERS: list[tuple[str, list[str]]] = [
    ("q=WORD1", ["SV: word1"]),
    ("q=anna+word", ["SV: word0", "SV: word1"]),
    ("q=100%25", []),
    ("q=_", []),
    ("list=news", ["SV: news"]),
    ("list=ramadan&q=word0", ["SV: word0"]),
    ("list=nowhere", []),
    ("mine=1", ["SV: word0", "SV: word1"]),
    ("rule=internal-to-list", ["SV: word0", "SV: word1", "SV: news"]),
    ("rule=internal", []),
    ("q=T000000000000002", ["SV: word1"]),
    ("state=new", ["SV: word1", "SV: news"]),
    ("state=voted", ["SV: word0"]),
    ("since=2026-03-02&until=2026-03-02", ["SV: word0", "SV: word1", "SV: news"]),
    ("until=2026-03-01", []),
    ("since=2026-03-03", []),
    ("since=never&until=9999-12-31", ["SV: word0", "SV: word1", "SV: news"]),
]


async def test_filters_narrow_the_list(here: Stage) -> None:
    first, _ = await several(here, 2)
    await here.home.approve(first.hold_id, EVA)
    here.home.clock.pass_(seconds=1)
    await held(here, NEWS, Subject="SV: news", body="Something else, about a word", Message_ID="<n@example.com>")
    who = await here.signed_in(DPO, Role.APPROVER, Role.VIEWER)
    for query, found in FILTERS:
        assert subjects((await who.get(f"/held?{query}")).text) == found, query
    for path, empty in (("/held", "Nothing that waits matches."), ("/history", "Nothing matches.")):
        page = await who.get(f"{path}?list=nowhere")
        assert '<option value="nowhere" selected>' in page.text, "it is no more in the policy: the page still says so"
        assert empty in text(page)
    assert "Nothing yet." in text(await who.get("/history"))


async def test_every_hold_is_on_one_page(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpguard.console.pages.holds.PAGE", 3)
    made = await several(here, 8)
    who = await here.signed_in(EVA, Role.VIEWER)
    seen: list[str] = []
    path = "/held"
    for _ in range(3):
        answer = await who.get(path)
        seen += subjects(answer.text)
        further = re.search(r'href="(/held\?after=[^"]+)"', answer.text)
        path = further[1] if further else ""
    assert seen == [hold.subject for hold in made], "the earliest deadline comes first, over all pages"
    assert path == ""


async def test_the_order_covers_all_pages(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order covers all waiting holds: the oldest, for a sensitive list, is first though it is beyond the newest."""
    monkeypatch.setattr("smtpguard.console.pages.holds.PAGE", 2)
    sensitive = await held(here, RAMADAN, Subject="SV: greetings", Message_ID="<r@example.com>")
    await several(here, 4, NEWS)
    who = await here.signed_in(EVA, Role.APPROVER)
    answer = await who.get("/held")
    assert subjects(answer.text)[0] == sensitive.subject
    assert len(subjects(answer.text)) == 2
    assert "5 messages wait for you." in text(answer)
    assert text(answer).startswith("(5) Waiting")


async def test_an_invalid_cursor_shows_the_first_page(here: Stage) -> None:
    await held(here)
    who = await here.signed_in(EVA, Role.VIEWER)
    for after in (
        "x",
        "1-2-3",
        "1-2-3-",
        "1--2-3-H",
        "9" * 30 + "-2-3-H",
        "99999999999999999999-y",
        "-",
        "1-%27",
    ):
        assert (await who.get(f"/held?after={after}")).status_code == 200, after


async def test_a_refresh_returns_only_the_rows(here: Stage) -> None:
    await held(here)
    who = await here.signed_in(EVA, Role.VIEWER)
    answer = await who.get("/held", **{"HX-Request": "true", "HX-Target": "rows"})
    assert answer.text.lstrip().startswith("<title>(1) Waiting")  # htmx sets the tab's title from it
    assert '<div id="rows"' in answer.text
    assert "<html" not in answer.text


async def test_markup_in_a_subject_is_escaped(here: Stage) -> None:
    await held(here, Subject='<script>alert("x")</script>')
    who = await here.signed_in(EVA, Role.VIEWER)
    answer = await who.get("/held")
    assert "<script>alert" not in answer.text
    assert '<script>alert("x")</script>' in text(answer)


# # decisions on many


async def chosen(who: Browser, choice: str, holds: list[Any]) -> Any:
    await who.get("/held")
    return await who.post("/decide", choice=choice, hold=[hold.hold_id for hold in holds])


def bound(page: str) -> list[str]:
    return re.findall(r'name="seen" value="([^"]+)"', page)


async def confirmed(who: Browser, **fields: Any) -> Any:
    return await who.post("/decided", seen=bound(who.page), policy=who.hidden("policy"), **fields)


async def test_many_are_rejected_after_a_confirmation(here: Stage) -> None:
    holds = await several(here, 3)
    eva = await here.signed_in(EVA, Role.APPROVER)
    asked = await chosen(eva, "reject", holds)
    assert "Reject 3 messages?" in text(asked)
    assert [(await here.home.hold(h.hold_id)).state for h in holds] == [State.WAITING] * 3
    without = await confirmed(eva, choice="reject", comment=" ")
    assert without.status_code == 422
    done = await confirmed(eva, choice="reject", comment="Wrong list")
    assert "3 messages are rejected." in text(done)
    assert [(await here.home.hold(h.hold_id)).state for h in holds] == [State.REJECTED] * 3


async def test_approving_many_needs_their_number(here: Stage) -> None:
    holds = await several(here, 2, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await chosen(eva, "approve", holds)
    wrong = await confirmed(eva, choice="approve", number="3")
    assert wrong.status_code == 422
    assert "Type how many messages it is" in text(wrong)
    done = await confirmed(eva, choice="approve", number="2")
    assert "Your approval of 2 messages counts. Back to" in text(done)
    assert [(await here.home.hold(h.hold_id)).state for h in holds] == [State.APPROVED] * 2


async def test_approving_many_says_how_many_need_others(here: Stage) -> None:
    holds = [await held(here), *await several(here, 1, NEWS)]
    eva = await here.signed_in(EVA, Role.APPROVER)
    await chosen(eva, "approve", holds)
    done = text(await confirmed(eva, choice="approve", number="2"))
    assert "Your approval of 2 messages counts. 1 of them still needs the votes of others." in done
    assert [(await here.home.hold(h.hold_id)).state for h in holds] == [State.WAITING, State.APPROVED]


async def test_approving_many_to_many_people_needs_the_number_of_people(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Approving messages to many people requires their number; otherwise one message to everyone would be confirmed
    with a "1"."""
    monkeypatch.setattr("smtpguard.console.pages.holds.LARGE", 3)
    holds = await several(here, 2, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    asked = await chosen(eva, "approve", holds)
    assert "How many people do they reach together?" in text(asked)
    wrong = await confirmed(eva, choice="approve", number="2", comment="as agreed")
    assert wrong.status_code == 422
    assert "Type how many people they reach together" in text(wrong)
    assert "as agreed" in text(wrong)
    assert [(await here.home.hold(h.hold_id)).state for h in holds] == [State.WAITING] * 2
    await confirmed(eva, choice="approve", number="4")
    assert [(await here.home.hold(h.hold_id)).state for h in holds] == [State.APPROVED] * 2


async def test_a_hold_with_a_new_list_is_not_decided(here: Stage) -> None:
    (hold,) = await several(here, 1, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await chosen(eva, "approve", [hold])
    await changed(here, hold, lists=("newsletter", "ramadan"))
    done = text(await confirmed(eva, choice="approve", number="1"))
    assert "it has changed since you looked" in done
    assert (await here.home.hold(hold.hold_id)).state is State.WAITING


async def test_a_hold_with_more_people_is_not_decided(here: Stage) -> None:
    def copy(n: int) -> Any:
        return held(here, *MEMBERS[20 * n : 20 * n + 20], X_Mailing="eid", Message_ID=f"<{n}@x>")

    hold = await copy(0)
    await here.home.approve(hold.hold_id, DPO)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await chosen(eva, "approve", [hold])
    await copy(1)
    assert "it has changed since you looked" in text(await confirmed(eva, choice="approve", number="1"))
    assert (await here.home.hold(hold.hold_id)).state is State.WAITING


async def test_several_seen_under_another_policy_are_not_decided(here: Stage) -> None:
    (hold,) = await several(here, 1, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await chosen(eva, "approve", [hold])
    await here.home.put({**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"] + b"\n# another one\n"})
    await here.home.follow()
    assert "the policy has changed since you looked" in text(await confirmed(eva, choice="approve", number="1"))
    assert (await here.home.hold(hold.hold_id)).state is State.WAITING


async def test_changed_holds_are_named_and_not_decided(here: Stage) -> None:
    one, other = await several(here, 2, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await chosen(eva, "approve", [one, other])
    await changed(here, one, content_sha256="0" * 64)
    done = text(await confirmed(eva, choice="approve", number="2"))
    assert "Your approval of 1 message counts." in done
    assert "1 was not decided" in done
    assert (await here.home.hold(one.hold_id)).state is State.WAITING
    assert (await here.home.hold(other.hold_id)).state is State.APPROVED


async def test_a_number_that_is_too_long_to_be_meant_is_none(here: Stage) -> None:
    (hold,) = await several(here, 1, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await chosen(eva, "approve", [hold])
    id, content, envelope, _, lists = bound(eva.page)[0].split(":")
    seen = ":".join((id, content, envelope, "9" * 5_000, lists))
    answer = await eva.post("/decided", choice="approve", number="1", seen=seen, policy=eva.hidden("policy"))
    assert (answer.status_code, "it has changed since you looked" in text(answer)) == (200, True)
    assert (await here.home.hold(hold.hold_id)).state is State.WAITING


async def test_a_repeated_approval_is_reported_in_the_readers_language(here: Stage) -> None:
    (hold,) = await several(here, 1)
    await here.home.approve(hold.hold_id, EVA)
    eva = await here.signed_in(EVA, Role.APPROVER)
    eva.http.headers["Accept-Language"] = "sv"
    await chosen(eva, "approve", [hold])
    assert "Du har godkänt det." in text(await confirmed(eva, choice="approve", number="1"))
    await chosen(eva, "reject", [hold])
    assert "1 meddelande är avslaget." in text(await confirmed(eva, choice="reject", comment="Fel lista"))


async def test_an_empty_or_foreign_selection_leads_back(here: Stage) -> None:
    hold = await held(here, NEWS)
    dpo = await here.signed_in(DPO, Role.APPROVER)
    for holds in ([], [hold]):
        answer = await chosen(dpo, "approve", holds)
        assert "Nothing is decided: choose at least one message" in text(await dpo.get(answer.headers["location"]))
    assert (await here.home.hold(hold.hold_id)).state is State.WAITING


async def test_the_confirmation_shows_lists_and_first_lines(here: Stage) -> None:
    first, second = await several(here, 2, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get("/held")
    answer = await eva.post("/decide", choice="approve", hold=[first.hold_id, second.hold_id])
    said = text(answer)
    assert "anna@example.com to News" in said
    assert "Bacon word0" in said
    assert "Bacon word1" in said
    assert await views(here, first) == [(EVA, "text")], "her view is journalled"
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    await vera.get("/held")
    assert (await vera.post("/decide", choice="approve", hold=first.hold_id)).status_code == 404


async def test_a_large_message_is_shown_without_its_text(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpguard.console.pages.holds.MOST_OPENED", 10)
    (hold,) = await several(here, 1, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get("/held")
    said = text(await eva.post("/decide", choice="reject", hold=hold.hold_id))
    assert "to News" in said
    assert "Bacon word0" not in said
    assert await views(here, hold) == []


async def test_a_page_lists_for_a_deputy_only_what_they_decide_on(here: Stage) -> None:
    """Not what the absent person wrote. The number of those to decide leaves out one's own messages, too."""
    away = f"people: {{{EVA}: {{away: 2026-03-01..2026-03-09, deputy: {DPO}}}}}\n".encode()
    await here.home.put(
        {**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(b"rules:\n", away + b"rules:\n", 1)}
    )
    await here.home.follow()
    for writer in (ANNA, EVA, DPO):
        await held(here, NEWS, Subject=f"SV: {writer}", body=f"Bacon by {writer}", sender=writer, reverse_path=writer)
    holds, shown, hidden = await here.home.holds(), {}, []
    for who in (EVA, OMAR, DPO):
        browser = await here.signed_in(who, Role.APPROVER)
        waiting, mine = [await browser.get(path) for path in ("/held", "/held?mine=1")]
        for id in re.findall(r'href="/held/(\w+)"', waiting.text):
            assert (await browser.get(f"/held/{id}")).status_code == 200, (who, id)
        number = re.search(r"(\d) messages? waits? for you", text(waiting))
        shown[who] = len(subjects(waiting.text)), len(subjects(mine.text)), number and int(number[1])
        listed = (await browser.get("/mailings")).text
        for hold in holds:
            report = await browser.post("/incident", id=hold.hold_id, names="on")
            page = await browser.get(f"/mailings/{hold.mailing_id}")
            if (report.status_code, page.status_code, hold.mailing_id in listed) != (200, 200, True):
                assert (report.status_code, page.status_code, hold.mailing_id in listed) == (404, 404, False)
                hidden.append((who, hold.sender))
    assert shown == {EVA: (3, 2, 2), OMAR: (3, 3, 3), DPO: (2, 1, 1)}
    assert hidden == [(DPO, EVA)]
