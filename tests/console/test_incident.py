"""The incident report in the console: permissions, the form, and the page in both languages."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.console import reporting
from smtpguard.console.reporting import Made, NothingFits, Occupied, make_once
from smtpguard.console.services import ConsoleServices
from smtpguard.database.errors import Unavailable
from smtpguard.freezes.service import Freezes
from smtpguard.holds.model import Choice
from smtpguard.incidents import report
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import Findings, TooMany
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.index import index_path
from smtpguard.policy.freezing import Selector
from tests.console.holding import ANNA, EVA, NEWS, held, text
from tests.console.stage import Browser, Stage
from tests.guard.house import DOCUMENTS
from tests.guard.office import Office

OLA = "ola@example.com"
ALL = {"names": "on", "proof": "on"}


def console(here: Stage) -> ConsoleServices:
    found: ConsoleServices = here.app.state.console
    return found


async def at_the_form(here: Stage) -> Browser:
    browser = await here.signed_in(OLA, Role.OPERATOR)
    await browser.get("/incident")
    return browser


async def test_the_page_is_404_without_permission(here: Stage) -> None:
    other = await here.signed_in(OLA, Role.VIEWER)
    await other.get("/me")  # for its token
    assert (await other.get("/incident")).status_code == 404
    assert (await other.post("/incident", subject="lunch")).status_code == 404
    assert 'href="/incident' not in (await other.get("/history")).text


async def test_a_message_a_mailing_and_a_freeze_link_to_the_form(here: Stage) -> None:
    hold = await held(here, NEWS)
    freezes = Freezes(here.home.store, SteadyClock(here.home.clock), new_id=lambda: "F1", recall_seconds=0)
    await freezes.freeze(Selector.LIST, "news", reason="lunch", by="ola")
    browser = await here.signed_in(OLA, Role.OPERATOR)
    assert 'href="/incident"' in (await browser.get("/history")).text
    for path, id in (
        (f"/held/{hold.hold_id}", hold.hold_id),
        (f"/mailings/{hold.mailing_id}", hold.mailing_id),
        ("/incident", hold.mailing_id),
        ("/still", "F1"),
        ("/history/freezes", "F1"),
    ):
        shown = (await browser.get(path)).text
        assert re.search(rf'action="/incident"(?:(?!</form>).)*name="id" value="{id}"', shown, re.S), path
    form = await browser.get(f"/incident?id={hold.hold_id}")
    assert f'value="{hold.hold_id}"' in form.text
    assert form.text.count(" checked") == 2, "with names and with the proof by default"
    assert form.text.index('href="#h-ask"') < form.text.index("/mailings/"), "past the day's mailings"


async def test_an_approver_gets_only_reports_on_their_lists(here: Stage) -> None:
    hold = await held(here, NEWS)
    data = {"action": "relay", "counts": {"reach": 1}, "lists": ["news", "gone"]}
    events = [Event(kind=Kind.VERDICT, id=id, at=here.home.clock.now(), data=data | {"lists": lists})
              for id, lists in (("A" * 16, ["news", "gone"]), ("B" * 16, []))]  # fmt: skip
    await here.home.store.journal.record(events)
    many = [f"Offer {n}" for n in range(101)]
    for offer in many:
        await here.home.send("friend@example.org", Subject=offer, body=offer, Message_ID=f"<{offer[6:]}@example.com>")
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert "What is it about?" not in text(await eva.get("/incident")), "without permission there is no form"
    assert "1 message came" in text(await eva.post("/incident", id=hold.hold_id, **ALL))
    before = await here.home.store.journal.last()
    for id in ("A" * 16, "B" * 16, "nobody", "T0", "anna@example.com"):  # one word, of too many ids or messages
        answer = await eva.post("/incident", id=id, names="on", list="news")
        shown = text(answer)
        assert (answer.status_code, "Nothing in the journal matches." in shown, "T00" in shown) == (404, True, False)
    assert (await eva.post("/incident", list="news", subject="lunch")).status_code == 422, "by id only"
    assert await here.home.store.journal.last() == before, "no view was journalled"


async def test_how_many_got_it_is_open_for_a_list_without_an_index(here: Stage) -> None:
    index_path(here.home.folder, "news").unlink()
    here.home.in_force = here.home.build(DOCUMENTS)
    hold = await held(here, NEWS)
    await here.home.approve(hold.hold_id, EVA)
    await Office(here.home).step()
    browser = await at_the_form(here)
    assert "sent to at least 1 person" in text(await browser.get("/incident"))
    said = text(await browser.post("/incident", subject=hold.subject, **ALL))
    assert f"{hold.mailing_id} " in said
    assert ": at least 1 got it" in said


async def test_the_mailings_of_today_end_with_the_day(here: Stage) -> None:
    await held(here, NEWS)
    operator = await at_the_form(here)
    assert "SV: lunch" in text(await operator.get("/incident"))
    here.home.clock.pass_(minutes=24 * 60)
    next_day = await here.signed_in("otto@example.com", Role.OPERATOR)
    assert "No mailing today." in text(await next_day.get("/incident"))


async def test_the_report_is_downloaded_as_a_file(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = await held(here, NEWS)
    operator = await at_the_form(here)
    page = await operator.post("/incident", id=hold.hold_id, **ALL)
    assert f'name="id" value="{hold.hold_id}"' in page.text
    html = await operator.post("/incident", id=hold.hold_id, format="html", **ALL)
    assert html.headers["content-disposition"].startswith('attachment; filename="incident-2026')
    assert "In short" in html.text
    made = await operator.post("/incident", id=hold.hold_id, format="json", **ALL)
    assert made.json()["messages"] == 1
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    answer = await operator.post("/incident", id=hold.hold_id, format="pdf", **ALL)
    assert (answer.status_code, "pip install 'smtpguard[pdf]'" in text(answer)) == (501, True)


async def test_the_report_is_shown_as_a_page(here: Stage) -> None:
    hold = await held(here, NEWS, Subject="SV: <b>lunch</b>")
    await here.home.approvals().vote(hold.hold_id, Choice.REJECT, approver=EVA, by="a test", comment="Not <i>now</i>")
    operator = await at_the_form(here)
    answer = await operator.post("/incident", id=hold.hold_id, **ALL)
    said = text(answer)
    assert answer.status_code == 200
    for words in (
        "1 message came on Monday 2 March 2026 at 09:00 (UTC). None of it was sent through this guard.",
        "1 message, for 2 people: rejected by people: not sent",
        "the journal is whole: all",
        f"From: {ANNA}",
        "subject: SV: <b>lunch</b>",
        'A vote: reject, by eva@example.com: "Not <i>now</i>"',
        "rule internal-to-list: Mail between colleagues never goes to a customer list",
        f"by {OLA}",
    ):
        assert words in said, words
    assert "<b>lunch" not in answer.text
    assert "<i>now" not in answer.text


async def test_words_on_several_lines_are_shown_on_one(here: Stage) -> None:
    hold = await held(here, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get(f"/held/{hold.hold_id}")
    await eva.post(f"/held/{hold.hold_id}/ask", question="Hello\r\nall\tof\x1b them?")
    answer = await (await at_the_form(here)).post("/incident", id=hold.hold_id, **ALL)
    assert "Hello all of\N{REPLACEMENT CHARACTER} them?" in text(answer)


async def test_the_page_is_in_swedish(here: Stage) -> None:
    hold = await held(here, NEWS)
    operator = await at_the_form(here)
    said = text(await operator.post("/incident", {"Accept-Language": "sv"}, id=hold.hold_id, **ALL))
    assert "1 meddelande kom måndag 2 mars 2026 kl. 09:00 (UTC). Inget av det gick ut genom den här vakten." in said
    assert "Ännu inte avgjort: 1 meddelande, till 2 personer." in said
    assert "Vad som inte är känt" in said


async def test_swedish_numbers_are_formatted(here: Stage) -> None:
    data = {"action": "relay", "counts": {"reach": 412318}, "lists": ["news"]}
    await here.home.store.journal.record([Event(kind=Kind.VERDICT, id="T" * 16, at=here.home.clock.now(), data=data)])
    operator = await at_the_form(here)
    answer = await operator.post("/incident", {"Accept-Language": "sv"}, id="T" * 16)
    assert answer.text.count("412\N{NO-BREAK SPACE}318") >= 4
    assert "\N{REPLACEMENT CHARACTER}" not in answer.text


async def test_without_names_and_without_the_proof(here: Stage) -> None:
    hold = await held(here, NEWS)
    operator = await at_the_form(here)
    before = (await here.home.store.journal.entries())[-1][0].seq
    answer = await operator.post("/incident", id=hold.hold_id)
    report = text(answer).partition("What is it about?")[0]
    assert "the proof was not requested" in report
    assert ANNA not in report
    assert "lunch" not in report
    assert (await here.home.store.journal.entries())[-1][0].seq == before


async def test_a_report_with_names_is_journalled(here: Stage) -> None:
    await held(here, NEWS)
    operator = await at_the_form(here)
    await operator.post("/incident", sender=ANNA, names="on")
    entry, clear = (await here.home.store.journal.entries())[-1]
    assert (entry.kind, entry.data["what"]) == (Kind.EXPORTED.value, "incident report")
    assert clear == {"actor": [OLA], "from": [ANNA]}
    assert ANNA not in entry.body


ASKED: list[tuple[dict[str, str], int, str]] = [
    ({}, 422, "Say what the report is about."),
    ({"alone": "on"}, 422, "Say what the report is about."),
    ({"since": "yesterday"}, 422, "Not a time: write 2026-11-26 09:30, in UTC, or 2h for two hours ago."),
    ({"until": "0001-01-01T00:00+14:00"}, 422, "Not a time"),
    ({"id": "nobody"}, 404, "Nothing in the journal matches. Nothing has the name nobody."),
    (
        {"list": "nws"},
        404,
        "Nothing in the journal matches. The policy in force has no list nws (did you mean news?).",
    ),
    ({"sender": "anna"}, 404, "Nothing in the journal matches. Not an address: anna (did you mean"),
    ({"id": "1@example.com"}, 200, "1 message came"),
    ({"subject": "lunch", "since": "2026-03-03"}, 404, "Nothing in the journal matches."),
    ({"subject": "lunch", "until": "2026-03-03"}, 200, "1 message came"),
    ({"list": "news", "sender": ANNA}, 200, "1 message came"),
    ({"since": "2026-03-02 10:00+01:00"}, 200, "1 message came"),
    ({"since": "2h"}, 200, "1 message came"),
]


async def test_a_refused_query_keeps_its_fields(here: Stage) -> None:
    await held(here, NEWS)
    operator = await at_the_form(here)
    for fields, status, words in ASKED:
        answer = await operator.post("/incident", **fields)
        assert answer.status_code == status, fields
        assert words in text(answer), fields
        for name, value in fields.items():
            assert name == "alone" or value.replace("+", "&#43;") in answer.text or value in answer.text, fields


async def test_only_one_report_is_made_at_a_time(here: Stage) -> None:
    await held(here, NEWS)
    operator = await at_the_form(here)
    async with console(here).reporting:
        answer = await operator.post("/incident", subject="lunch")
    assert answer.status_code == 409
    assert "Another report is being made" in text(answer)


async def test_too_many_messages_are_422(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST", 0)
    await held(here, NEWS)
    operator = await at_the_form(here)
    answer = await operator.post("/incident", subject="lunch")
    assert answer.status_code == 422
    assert "Too many messages match: narrow the search." in text(answer)


async def test_an_unavailable_store_answers_503(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise Unavailable("away")

    operator = await at_the_form(here)
    monkeypatch.setattr(console(here).store.journal, "incident", away)
    answer = await operator.post("/incident", subject="lunch")
    assert answer.status_code == 503
    assert "The record cannot be read at the moment." in text(answer)


async def test_an_altered_journal_is_reported_first(here: Stage) -> None:
    hold = await held(here, NEWS)
    await here.home.store.write(
        lambda b: b.connection.exec_driver_sql("UPDATE entry SET body = replace(body, 'hold', 'gold') WHERE seq = 2")
    )
    operator = await at_the_form(here)
    answer = await operator.post("/incident", id=hold.hold_id, proof="on")
    assert 'role="alert"' in answer.text
    said = text(answer)
    assert said.index("THE JOURNAL WAS ALTERED") < said.index("In short")


OTHER_POLICY = {
    **DOCUMENTS,
    "policy.yaml": DOCUMENTS["policy.yaml"].replace(
        b"Mail between colleagues never goes to a customer list", b"Nobody knows any more"
    ),
}


async def test_rules_are_named_by_the_policy_of_that_time(here: Stage) -> None:
    hold = await held(here, NEWS)
    await here.home.put(OTHER_POLICY)
    await here.home.follow()
    assert here.home.current().rules.purposes()["internal-to-list"] == "Nobody knows any more"
    said = text(await (await at_the_form(here)).post("/incident", id=hold.hold_id))
    assert "rule internal-to-list: Mail between colleagues never goes to a customer list" in said
    assert "Nobody knows any more" not in said
    assert "the purposes of the rules of policy" not in said


async def test_statements_for_the_authority_are_entered_on_the_page(here: Stage) -> None:
    hold = await held(here, NEWS)
    operator = await at_the_form(here)
    first = await operator.post("/incident", id=hold.hold_id, **ALL)
    assert "nobody has said so yet, and the 72 hours do not run" in text(first)
    assert text(first).count("Nobody has written this yet.") == 2
    assert "No message of this has gone out from us." in text(first), "the drafts"
    asked = {"id": hold.hold_id, "incident": hold.hold_id, **ALL}
    here.home.clock.pass_(minutes=1)
    aware = await operator.post("/incident", act="aware", time="2026-03-02 08:30", **asked)
    assert "the 72 hours end at 2026-03-05 08:30:00 UTC. " in text(aware)
    assert "Whether that time is right: the first message came later, at 2026-03-02 09:00:00 UTC" in text(aware)
    assert "71 hours 29 minutes of them are left." in text(aware)
    later = await operator.post("/incident", act="aware", time="2026-03-02 09:00", **asked)
    assert "hether that time is right" not in text(later)
    wrote = await operator.post("/incident", act="write", field="contact", text="Call <b>Dora</b>", **asked)
    assert "Call <b>Dora</b>" in text(wrote)
    assert f"written by {OLA}" in text(wrote)
    assert "<b>Dora" not in wrote.text
    for wrong in (
        {"act": "aware", "time": "2999-01-01"},
        {"act": "write", "field": "fax", "text": "x"},
        {"act": "write", "field": "contact", "text": " "},
    ):
        assert (await operator.post("/incident", **wrong, **asked)).status_code == 422
    refused = await operator.post("/incident", act="aware", time="my guess", **asked)
    assert 'value="my guess"' in refused.text, "the typed text is kept"
    assert len(await here.home.store.preserved()) == 1


async def test_approvers_read_but_do_not_write_statements(here: Stage) -> None:
    hold = await held(here, NEWS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get("/me")
    answer = await eva.post(
        "/incident", id=hold.hold_id, act="aware", incident=hold.hold_id, time="2026-03-02 08:30", **ALL
    )
    assert "nobody has said so yet" in text(answer)
    assert "Journal it" not in text(answer)


LUNCH = IncidentQuery(subject="lunch")


async def made(here: Stage, query: IncidentQuery, **how: Any) -> Made:
    console: ConsoleServices = here.app.state.console
    usual: dict[str, Any] = {"prove": False, "names": True, "by": ("ola", "bot"), "language": "en"}
    return await make_once(console, query, **(usual | how))


async def last(here: Stage) -> tuple[str, Any, Any]:
    entry, clear = (await here.home.store.journal.entries(limit=1000))[-1]
    return entry.kind, entry.data, clear


async def test_a_report_with_names_is_journalled_even_if_empty_or_too_large(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held(here, NEWS)
    await made(here, IncidentQuery(senders=frozenset({ANNA})))
    assert await last(here) == (
        Kind.EXPORTED.value, {"what": "incident report", "about": []}, {"actor": ["ola", "bot"], "from": [ANNA]},
    )  # fmt: skip
    with pytest.raises(NothingFits):
        await made(here, IncidentQuery(ids=frozenset({"nobody"})))
    assert (await last(here))[1]["about"] == ["nobody"]
    monkeypatch.setattr(report, "MOST", 0)
    with pytest.raises(TooMany):
        await made(here, IncidentQuery(lists=frozenset({"news"})))
    assert (await last(here))[1]["about"] == ["news"]


async def test_a_word_of_too_many_messages_is_answered_in_the_terms_of_page_command_and_api(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held(here, NEWS)
    monkeypatch.setattr(reporting, "MOST_FOUND", 0)
    with pytest.raises(TooMany, match=rf"^more than 0 messages are found by {ANNA}: ask by sender and time$"):
        await made(here, IncidentQuery(ids=frozenset({ANNA})), names=False)


async def test_who_may_not_see_a_report_does_not_learn_whether_there_is_one(here: Stage) -> None:
    await held(here, NEWS)
    for word in (ANNA, "nobody@elsewhere.example", "nobody"):
        with pytest.raises(NothingFits, match=r"^nothing in the journal matches$"):
            await made(here, IncidentQuery(ids=frozenset({word})), may=lambda _: False)


async def test_a_report_without_names_is_not_journalled(here: Stage) -> None:
    await held(here, NEWS)
    before = await here.home.store.journal.last()
    await made(here, LUNCH, names=False)
    assert await here.home.store.journal.last() == before


async def test_a_mailing_is_found_by_the_beginning_of_its_id(here: Stage) -> None:
    hold = await held(here, NEWS)
    found = await made(here, IncidentQuery(ids=frozenset({hold.mailing_id[:6].lower()})))
    assert found.query.ids == {hold.mailing_id}
    assert (await last(here))[1]["about"] == [hold.mailing_id]


async def test_one_report_at_a_time_and_a_failed_one_does_not_block(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held(here, NEWS)
    console: ConsoleServices = here.app.state.console
    find = console.store.journal.incident

    async def asks_again(query: IncidentQuery, **_: object) -> Findings:
        with pytest.raises(Occupied):
            await made(here, LUNCH, names=False)
        raise TooMany("too many")

    monkeypatch.setattr(console.store.journal, "incident", asks_again)
    with pytest.raises(TooMany):
        await made(here, LUNCH, names=False)
    monkeypatch.setattr(console.store.journal, "incident", find)
    await made(here, LUNCH, names=False)
