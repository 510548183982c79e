"""The page of one message: what each person sees, that each view is journalled, and what the writer sees."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.console.evidence import authorship
from smtpguard.locale.speech import Speech
from smtpguard.notices.noticedata import UNSAID
from tests.console.holding import ANNA, DPO, EVA, NEWS, OMAR, changed, held, hostile, text, views
from tests.console.stage import Stage
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN
from tests.guard.office import NO, Office


async def governed(here: Stage, old: str, new: str) -> None:
    """Put the policy in force with ``old`` replaced by ``new``."""
    policy = DOCUMENTS["policy.yaml"].decode()
    assert old in policy
    await here.home.put({**DOCUMENTS, "policy.yaml": policy.replace(old, new).encode()})
    await here.home.follow()


async def test_the_page_shows_reasons_recipients_and_marked_evidence(here: Stage) -> None:
    hold = await held(here, X_Topics="pork", body="Shall we have bacon at noon?")
    eva = await here.signed_in(EVA, Role.APPROVER)
    answer = await eva.get(f"/held/{hold.hold_id}")
    said = text(answer)
    assert "Mail between colleagues never goes to a customer list." in said
    assert "Ramadan greetings : 60 people on the list" in said
    assert "Sensitive: religion: special category" in said
    assert '"bacon" (pork, in the text)' in said
    assert re.search(r'<mark title="[^"]*pork[^"]*">bacon</mark>', answer.text)
    assert "It needs 1 of communications and 1 of compliance" in said
    assert RAMADAN in said


async def test_the_vote_of_an_approver_who_left_is_said_not_to_count(here: Stage) -> None:
    hold = await held(here)
    await here.home.approve(hold.hold_id, EVA)
    omar = await here.signed_in(OMAR, Role.APPROVER)
    idle = "It does not count now: the voter is in no group that decides, or wrote one of the messages."
    said = text(await omar.get(f"/held/{hold.hold_id}"))
    assert idle not in said
    assert "It needs 1 of compliance" in said
    await governed(here, "[eva@example.com, omar@example.com]", "[omar@example.com]")
    said = text(await omar.get(f"/held/{hold.hold_id}"))
    assert idle in said
    assert "It needs 1 of communications and 1 of compliance" in said


async def test_every_view_is_journalled_first(here: Stage) -> None:
    hold = await held(here)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get(f"/held/{hold.hold_id}")
    await eva.get(f"/held/{hold.hold_id}")
    assert await views(here, hold) == [(EVA, "full"), (EVA, "full")]


@pytest.mark.parametrize("who", [(DPO, (Role.APPROVER,)), ("sven@example.com", ()), (EVA, ())])
async def test_an_invisible_message_answers_as_a_missing_one(here: Stage, who: tuple[str, tuple[Role, ...]]) -> None:
    """A message that a person may not see gets the same answers as an id that never existed."""
    hold = await held(here, NEWS)
    browser = await here.signed_in(who[0], *who[1])
    for tail in ("", "/html", "/part/0"):
        there = await browser.get(f"/held/{hold.hold_id}{tail}")
        nowhere = await browser.get(f"/held/NOSUCHHOLD000000{tail}")
        assert there.status_code == nowhere.status_code == 404
        assert there.text == nowhere.text.replace("NOSUCHHOLD000000", hold.hold_id)
    assert (await browser.get(f"/history/{hold.hold_id}")).status_code == 404
    assert await views(here, hold) == []


@pytest.mark.parametrize(
    ("level", "text_there", "header_there"), [("reasons", False, False), ("text", True, False), ("full", True, True)]
)
async def test_the_policy_sets_how_much_is_shown(here: Stage, level: str, text_there: bool, header_there: bool) -> None:
    await governed(here, "    avoid: [pork]\n", f"    avoid: [pork]\n    preview: {level}\n")
    hold = await held(here, body="A sentence that is only in the text")
    eva = await here.signed_in(EVA, Role.APPROVER)
    answer = await eva.get(f"/held/{hold.hold_id}")
    assert ("A sentence that is only in the text" in text(answer)) is text_there
    assert ("Mon, 2 Mar 2026 09:00:00 +0000" in text(answer)) is header_there
    assert (await eva.get(f"/held/{hold.hold_id}/part/0")).status_code == 404
    assert await views(here, hold) == [(EVA, level)]


@pytest.mark.parametrize("language", ["en", "sv"])
async def test_without_the_text_matched_words_are_hidden(here: Stage, language: str) -> None:
    """An approver without the text sees the names of marks, but not the words that matched."""
    await governed(here, "    avoid: [pork]\n", "    avoid: [pork]\n    preview: reasons\n")
    hold = await held(here, X_Topics="pork", body="Shall we have bacon at noon?")
    eva = await here.signed_in(EVA, Role.APPROVER)
    answer = await eva.get(f"/held/{hold.hold_id}", **{"Accept-Language": language})
    assert "bacon" not in answer.text
    assert {"en": '"…" (pork, in the text)', "sv": '"…" (fläsk, i texten)'}[language] in text(answer)
    assert {"en": 'the subject begins with "SV:"', "sv": 'ämnesraden börjar med "SV:"'}[language] in text(answer)


async def test_the_strictest_level_of_list_and_group_applies(here: Stage) -> None:
    await governed(
        here,
        "approvals: {from: [communications]}\n",
        "approvals: {from: [communications]}\npreviews: {communications: text, compliance: reasons}\n",
    )
    hold = await held(here)
    for who, saw in ((EVA, "text"), (DPO, "reasons")):
        await (await here.signed_in(who, Role.APPROVER)).get(f"/held/{hold.hold_id}")
        assert (await views(here, hold))[-1] == (who, saw)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
async def test_a_viewer_sees_the_reasons(here: Stage, role: Role) -> None:
    hold = await held(here, body="A sentence that is only in the text")
    browser = await here.signed_in("vera@example.com", role)
    answer = await browser.get(f"/held/{hold.hold_id}")
    assert "A sentence that is only in the text" not in answer.text
    assert "You can view it; others decide." in text(answer)
    assert await views(here, hold) == [("vera@example.com", "reasons")]


async def test_single_members_are_counted_with_samples(here: Stage) -> None:
    hold = await held(here, *MEMBERS[:30], "bo@example.net", "berit@example.com")
    eva = await here.signed_in(EVA, Role.APPROVER)
    said = text(await eva.get(f"/held/{hold.hold_id}"))
    assert "30 people who are on it, addressed singly" in said
    assert "and 25 more" in said
    assert "1 colleague berit@example.com" in said
    assert "1 person on no list bo@example.net" in said


async def test_without_content_the_reasons_are_shown(here: Stage) -> None:
    hold = await held(here)
    await changed(here, hold, content_sha256="f" * 64)
    eva = await here.signed_in(EVA, Role.APPROVER)
    said = text(await eva.get(f"/held/{hold.hold_id}"))
    assert "Its text is not kept any more." in said
    assert "Why it is held" in said


async def test_an_attachment_is_only_a_download(here: Stage) -> None:
    hold = await hostile(here)
    eva = await here.signed_in(EVA, Role.APPROVER)
    page = await eva.get(f"/held/{hold.hold_id}")
    assert "<img src=http" not in page.text
    found = re.findall(rf'href="(/held/{hold.hold_id}/part/\d+)" download>', page.text)
    answer = await eva.get(found[-1])
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''%3Cimg")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert (await views(here, hold))[-1] == (EVA, f"attachment {found[-1].rpartition('/')[2]}")


async def test_the_html_frame_has_its_own_closed_policy(here: Stage) -> None:
    hold = await hostile(here)
    eva = await here.signed_in(EVA, Role.APPROVER)
    page = await eva.get(f"/held/{hold.hold_id}")
    assert re.search(rf'<iframe src="/held/{hold.hold_id}/html" sandbox ', page.text)
    frame = await eva.get(f"/held/{hold.hold_id}/html")
    assert frame.headers["content-security-policy"] == (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data: cid:; form-action 'none'; "
        "frame-ancestors 'self'"
    )
    assert "canary" not in frame.text
    assert "<b>good</b>" in frame.text
    assert "data:image/png;base64,iVBOR" in frame.text
    assert (await views(here, hold))[-1] == (EVA, "html")


async def test_the_writer_sees_the_reasons_and_not_the_decision_page(here: Stage) -> None:
    hold = await held(here)
    anna = await here.signed_in(ANNA, Role.APPROVER, Role.VIEWER)
    said = text(await anna.get(f"/held/{hold.hold_id}"))
    assert "Your message: SV: lunch" in said
    assert "It has not been sent. It waits for approval." in said
    assert "Mail between colleagues never goes to a customer list" in said
    assert "Your decision" not in said
    assert "Colleagues among the recipients were sent it at once." not in said
    assert await views(here, hold) == []


async def test_the_writer_does_not_see_sensitive_topics(here: Stage) -> None:
    """The writer's page does not show topics that single people should be spared, as the notice does not."""
    rule = b"  - {id: no-pork, description: No pork for them, when: {message.unsuitable_topics: any}, then: hold}\n"
    await here.home.put(DOCUMENTS | {"policy.yaml": DOCUMENTS["policy.yaml"] + rule})
    await here.home.follow()
    hold = await held(here, MEMBERS[0], X_Topics="pork")
    anna = await here.signed_in(ANNA, Role.APPROVER)
    said = text(await anna.get(f"/held/{hold.hold_id}"))
    assert "Your message: SV: lunch" in said
    assert UNSAID in said
    assert "pork" not in said
    assert "words" not in said
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert "No pork for them" in text(await eva.get(f"/held/{hold.hold_id}"))


async def test_the_writer_of_a_part_sees_that_colleagues_have_it(here: Stage) -> None:
    hold = await held(here, "ulf@example.com", *MEMBERS[:25], To=", ".join(MEMBERS[:25]))
    anna = await here.signed_in(ANNA, Role.VIEWER)
    assert "Colleagues among the recipients were sent it at once." in text(await anna.get(f"/held/{hold.hold_id}"))
    swedish = await anna.get(f"/held/{hold.hold_id}", **{"Accept-Language": "sv"})
    assert "Till kollegor bland mottagarna skickades det genast." in text(swedish)


async def test_the_page_is_in_the_readers_language(here: Stage) -> None:
    hold = await held(here)
    omar = await here.signed_in(OMAR, Role.APPROVER)
    answer = await omar.get(f"/held/{hold.hold_id}", **{"Accept-Language": "sv-SE,sv;q=0.9,en;q=0.5"})
    assert '<html lang="sv">' in answer.text
    assert "Varför det hålls kvar" in text(answer)
    assert "Det ser ut som e-post mellan kollegor." in text(answer)


async def test_a_failing_reader_leaves_the_reasons(here: Stage) -> None:
    hold = await held(here)
    from smtpguard.policy.facts import Unknown

    here.home.reader.fails = Unknown(why="the reader is gone")
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert "Why it is held" in text(await eva.get(f"/held/{hold.hold_id}"))


async def test_a_partly_failed_release_names_the_recipients(here: Stage) -> None:
    hold = await held(here, NEWS, "bo@example.net")
    await here.home.approve(hold.hold_id, EVA)
    office = Office(here.home)
    office.relay.says = {NEWS: NO}
    await office.step()
    eva = await here.signed_in(EVA, Role.APPROVER)
    said = text(await eva.get(f"/held/{hold.hold_id}"))
    assert "It has been sent." in said
    assert "1 recipient has it, 1 recipient could not be reached." in said
    anna = await here.signed_in(ANNA)
    assert "1 recipient has it, 1 recipient could not be reached." in text(await anna.get(f"/held/{hold.hold_id}"))
    told = text(await eva.get(f"/history/{hold.hold_id}"))
    assert "Delivery completed: 1 recipient has it, 1 recipient could not be reached" in told


async def test_an_undelivered_message_is_not_shown_as_sent(here: Stage) -> None:
    hold = await held(here, NEWS)
    await here.home.approve(hold.hold_id, EVA)
    office = Office(here.home)
    office.relay.says = {NEWS: NO}
    await office.step()
    eva = await here.signed_in(EVA, Role.APPROVER)
    for language, words in (("en", "no one received it"), ("sv", "ingen fick det")):
        said = text(await eva.get(f"/held/{hold.hold_id}", **{"Accept-Language": language}))
        assert words in said
    assert "not delivered" in text(await eva.get("/history"))


@pytest.mark.parametrize(
    ("session", "sender", "said"),
    [
        ({"auth_user": "anna@example.com"}, ANNA, "anna@example.com wrote this, proven by a login."),
        ({"auth_user": "anna"}, ANNA, "anna@example.com wrote this, proven by a login."),
        (
            {"auth_user": "berit@example.com"},
            ANNA,
            "berit@example.com sent this, proven by a login. It says it is from anna@example.com; nothing proves that.",
        ),
        ({"senders_verified": True}, ANNA, "anna@example.com wrote this, verified by the mail server in front."),
        ({}, ANNA, "It says it is from anna@example.com; nothing proves that."),
        ({}, "x@example.org", "It says it is from x@example.org; nothing proves that."),
    ],
)
async def test_the_writer_is_shown_as_proven_or_claimed(
    here: Stage, session: dict[str, Any], sender: str, said: str
) -> None:
    hold = await held(here, RAMADAN, session=session, sender=sender)
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert said in text(await eva.get(f"/held/{hold.hold_id}"))


async def test_a_signature_is_said_of_a_claimed_writer(here: Stage) -> None:
    hold = replace(await held(here, RAMADAN), proofs=frozenset({"dkim example.com", "dkim bulk.example"}))
    said = authorship(hold, ANNA, Speech())
    assert said == "It says it is from anna@example.com; signed (DKIM) by bulk.example, example.com."


async def test_words_of_mixed_alphabets_are_marked(here: Stage) -> None:
    hold = await held(here, RAMADAN, Subject="Раypal pays, Москва and Αθήνα do not")
    eva = await here.signed_in(EVA, Role.APPROVER)
    said = text(await eva.get(f"/held/{hold.hold_id}"))
    assert "“Раypal” mixes letters of several alphabets (Cyrillic, Latin)" in said
    assert said.count("mixes letters") == 1


async def letters(here: Stage, texts: list[str], previews: str = "") -> list[str]:
    """The ids of messages from Anna to one customer each; the first is the primary hold."""
    await governed(
        here,
        "rules:\n",
        f"""{previews}rules:
  - id: new-customers
    when: {{message.looks: [internal, unclear], sender.first_contacts: ">= 1 in 1h"}}
    then: hold
""",
    )
    ids = []
    for n, (to, said) in enumerate(zip(MEMBERS, texts, strict=False)):
        here.home.clock.pass_(seconds=1)
        more = {"Subject": f"About {n}", "Message_ID": f"<l{n}@example.com>"}
        ids.append((await held(here, to, body=said, **more)).hold_id)
    return ids


async def test_letters_decided_as_one_are_listed_with_their_text(here: Stage) -> None:
    same = "This is the very same text, of some length, so that everybody knows what it is about."
    first, *others = await letters(
        here, ["Say nothing to the boss about the money.", same, "Lunch at noon, then.", same]
    )
    eva = await here.signed_in(EVA, Role.APPROVER)
    answer = await eva.get(f"/held/{first}")
    said = text(answer)
    assert all(f'href="/held/{one}"' in answer.text for one in others), "each can be opened"
    assert said.count("This is the very same text") == 1, "each text once"
    assert "Lunch at noon, then." in said
    assert "To approve it is to approve this letter and the 3 others that wait with it and are listed here" in said
    assert "A letter that comes later, or is not listed, waits anew." in said
    assert eva.hidden("copies") == "3"
    copy = await eva.get(f"/held/{others[0]}")
    assert f'<a href="/held/{first}">It is decided on with {first}</a>' in copy.text
    assert "Nobody has decided yet." not in text(copy)
    for one in others:
        assert (await eva.get(f"/held/{one}")).status_code == 200


async def test_without_the_text_letters_are_listed_by_subject(here: Stage) -> None:
    some = ["Say nothing to the boss.", "Lunch at noon, then."]
    first, *_ = await letters(here, some, "previews: {communications: reasons}\n")
    eva = await here.signed_in(EVA, Role.APPROVER)
    said = text(await eva.get(f"/held/{first}"))
    assert "About 1" in said
    assert "Lunch" not in said
