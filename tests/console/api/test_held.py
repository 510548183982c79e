"""Held messages through the API: visibility, decisions, and in whose name."""

from __future__ import annotations

from typing import Any

import pytest

from smtpguard.accounts.model import Role, Scope
from smtpguard.holds.model import State
from smtpguard.journal.event import Kind
from smtpguard.notices.noticedata import UNSAID
from smtpguard.policy.freezing import Selector
from tests.console.api.program import Program, held, program
from tests.console.holding import ANNA, DPO, EVA, NEWS, OMAR, views
from tests.console.stage import Stage
from tests.console.test_deciding import mark_attempted
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN, index


async def looked(asks: Program, hold_id: str) -> dict[str, Any]:
    answer = await asks("GET", f"/held/{hold_id}")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def test_a_program_lists_shows_and_decides_as_its_owner(here: Stage) -> None:
    hold_id = await held(here)
    asks = await program(here, EVA, Role.APPROVER)
    listed = (await asks("GET", "/held")).json()
    assert [row["id"] for row in listed["items"]] == [hold_id]
    assert listed["items"][0]["url"] == f"https://guard.example.com/held/{hold_id}"
    shown = await looked(asks, hold_id)
    assert (shown["may_decide"], shown["approval_sends"], shown["why_not"]) == (True, True, "")
    assert shown["missing"] == [{"groups": ["communications"], "each": 1, "out_of_hours": None}]
    done = await asks("POST", f"/held/{hold_id}/approve", {"seen": shown["seen"], "comment": "Fine"})
    assert (done.status_code, done.json()["state"]) == (200, "approved")
    hold = await here.home.hold(hold_id)
    assert [(v.approver, v.comment) for v in hold.votes] == [(EVA, "Fine")]
    clear = [c for entry, c in await here.home.store.journal.history(hold_id) if entry.kind == Kind.VOTE.value]
    assert clear[0] is not None
    assert clear[0]["actor"][0] == EVA
    assert "token" in clear[0]["actor"][1]


async def test_a_view_is_journalled_with_the_token(here: Stage) -> None:
    hold_id = await held(here)
    asks = await program(here, EVA, Role.APPROVER)
    await looked(asks, hold_id)
    seen = [(e.data, c) for e, c in await here.home.store.journal.history(hold_id) if e.kind == Kind.VIEWED.value]
    assert seen[0][0]["by"] == "api"
    assert seen[0][1] is not None
    assert seen[0][1]["actor"][0] == EVA


@pytest.mark.parametrize("choice", ["approve", "reject"])
async def test_a_repeated_vote_counts_once(here: Stage, choice: str) -> None:
    hold_id = await held(here, RAMADAN)
    asks = await program(here, EVA, Role.APPROVER)
    body = {"seen": (await looked(asks, hold_id))["seen"], "comment": "Viewed"}
    first, second = [await asks("POST", f"/held/{hold_id}/{choice}", body) for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json()["votes"] == first.json()["votes"]
    votes = [e for e, _ in await here.home.store.journal.history(hold_id) if e.kind == Kind.VOTE.value]
    assert len(votes) == 1


async def test_an_approval_is_taken_back_before_the_quorum(here: Stage) -> None:
    hold_id = await held(here, RAMADAN)
    asks = await program(here, EVA, Role.APPROVER)
    body = {"seen": (await looked(asks, hold_id))["seen"]}
    assert (await asks("POST", f"/held/{hold_id}/approve", body)).json()["why_not"] == "voted"
    for _ in range(2):  # a program that got no answer tries again
        back = await asks("POST", f"/held/{hold_id}/unvote", {"comment": "Too fast"})
        assert (back.status_code, back.json()["votes"], back.json()["may_decide"]) == (200, [], True)
    assert (await asks("POST", f"/held/{hold_id}/reject", body | {"comment": "Wrong list"})).status_code == 200
    assert (await asks("POST", f"/held/{hold_id}/unvote", {})).status_code == 409


async def test_an_approval_is_undone_during_the_release_delay(here: Stage) -> None:
    here.delay(60)
    hold_id = await held(here, RAMADAN)
    asks = {one: await program(here, one, Role.APPROVER) for one in (EVA, DPO, OMAR)}
    for one in (EVA, DPO):
        seen = (await looked(asks[one], hold_id))["seen"]
        done = (await asks[one]("POST", f"/held/{hold_id}/approve", {"seen": seen, "reach": 60})).json()
    assert (done["state"], done["release_at"], done["may_undo"]) == ("waiting", "2026-03-02T09:01:00Z", True)
    assert (await looked(asks[OMAR], hold_id))["why_not"] == "leaving"
    assert (await asks[OMAR]("POST", f"/held/{hold_id}/approve", {"seen": seen, "reach": 60})).status_code == 409
    back = await asks[OMAR]("POST", f"/held/{hold_id}/unvote", {"comment": "Look again"})
    assert (back.status_code, back.json()["state"], back.json()["release_at"]) == (200, "waiting", None)
    again = await asks[OMAR]("POST", f"/held/{hold_id}/unvote", {})
    assert (again.status_code, again.json()["votes"]) == (200, back.json()["votes"])
    here.home.clock.pass_(minutes=2)
    assert await here.home.approvals().enact() == 0


async def test_an_approved_message_is_stopped_before_it_is_sent(here: Stage) -> None:
    hold_id = await held(here)
    await here.home.freeze()
    asks = await program(here, EVA, Role.APPROVER)
    shown = await looked(asks, hold_id)
    assert (shown["may_take_back"], shown["sending"]) == (False, None)
    assert [(f["selector"], f["by"]) for f in shown["frozen_by"]] == [("all", "root")]
    done = (await asks("POST", f"/held/{hold_id}/approve", {"seen": shown["seen"]})).json()
    assert (done["state"], done["may_take_back"], done["why_not"]) == ("approved", True, "decided")
    assert done["sending"] == {"under_way": False, "has": 0, "in_doubt": 0, "left": 1}
    assert [f["id"] for f in done["frozen_by"]] == ["F1"]
    await here.home.thaw()
    assert [lease.intent.hold_id for lease in await here.home.store.outbox.lease("me", 10, 60)].count(hold_id)
    shown = await looked(asks, hold_id)
    assert (shown["may_take_back"], shown["sending"]["under_way"]) == (True, True)
    assert (await asks("POST", f"/held/{hold_id}/reject", {"seen": shown["seen"], "comment": ""})).status_code == 422
    back = await asks("POST", f"/held/{hold_id}/reject", {"seen": shown["seen"], "comment": "Wrong list"})
    assert (back.status_code, back.json()["state"], back.json()["sending"]) == (200, "rejected", None)
    again = await asks("POST", f"/held/{hold_id}/reject", {"seen": shown["seen"], "comment": "Wrong list"})
    assert (again.status_code, again.json()["votes"]) == (200, back.json()["votes"])


async def test_a_hold_that_changed_since_is_409(here: Stage) -> None:
    hold_id = await held(here)
    asks = await program(here, EVA, Role.APPROVER)
    for which in ("content_sha256", "envelope_sha256", "policy_sha256"):
        seen = (await looked(asks, hold_id))["seen"] | {which: "0" * 64}
        assert (await asks("POST", f"/held/{hold_id}/approve", {"seen": seen})).status_code == 409, which
    hold = await here.home.hold(hold_id)
    assert (hold.state, hold.votes) == (State.WAITING, ())


async def test_a_new_list_or_rule_conflicts_with_an_approval_but_not_a_rejection(here: Stage) -> None:
    hold_id = await held(here)
    asks = await program(here, EVA, Role.APPROVER)
    seen = (await looked(asks, hold_id))["seen"]
    for fewer in ({"lists": ["another"]}, {"rules": ["another"]}):
        assert (await asks("POST", f"/held/{hold_id}/approve", {"seen": seen | fewer})).status_code == 409
    seen |= {"lists": ["another"], "rules": ["another"]}
    assert (await asks("POST", f"/held/{hold_id}/reject", {"seen": seen, "comment": "No"})).status_code == 200


async def test_another_policy_in_force_is_409(here: Stage) -> None:
    hold_id = await held(here)
    asks = await program(here, EVA, Role.APPROVER)
    seen = (await looked(asks, hold_id))["seen"]
    other = {**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(b"pork]", b"pork] ")}
    await here.home.put(other)
    await here.home.follow()
    assert (await asks("POST", f"/held/{hold_id}/approve", {"seen": seen})).status_code == 409


async def test_writers_cannot_approve_their_own_message(here: Stage) -> None:
    """A writer cannot approve their own message, under any of their addresses."""
    hold_id = await held(here, RAMADAN, sender="Eva <eva+sales@example.com>", reverse_path="eva@example.com")
    asks = await program(here, EVA, Role.APPROVER)
    shown = await looked(asks, hold_id)
    assert (shown["may_decide"], shown["why_not"]) == (False, "own")
    for choice in ("approve", "reject"):
        answer = await asks("POST", f"/held/{hold_id}/{choice}", {"seen": shown["seen"], "comment": "mine"})
        assert answer.status_code == 403
    done = await asks("POST", f"/held/{hold_id}/withdraw", {"comment": "Sorry"})
    assert (done.status_code, done.json()["state"]) == (200, "withdrawn")
    again = await asks("POST", f"/held/{hold_id}/withdraw", {})
    assert (again.status_code, again.json()["state"]) == (200, "withdrawn")


async def test_the_writer_sees_no_more_than_the_notice_has(here: Stage) -> None:
    """The writer reads neither which single people are on a list, nor which topics these people should be spared."""
    rule = b"  - {id: no-pork, description: No pork for them, when: {message.unsuitable_topics: any}, then: hold}\n"
    await here.home.put(DOCUMENTS | {"policy.yaml": DOCUMENTS["policy.yaml"] + rule})
    await here.home.follow()
    hold_id = await held(here, MEMBERS[0], X_Topics="pork")
    anna = await program(here, ANNA, Role.APPROVER)
    shown = await looked(anna, hold_id)
    assert (shown["lists"], shown["seen"]["lists"], shown["rules"]) == ([], [], [])
    assert [reason["sentences"] for reason in shown["reasons"]] == [[UNSAID]]
    await here.home.freeze(Selector.LIST, "ramadan")
    shown = await looked(anna, hold_id)
    assert [(f["selector"], f["value"], f["reason"]) for f in shown["frozen_by"]] == [("list", "", "")]
    shown = await looked(await program(here, EVA, Role.APPROVER), hold_id)
    assert [(f["selector"], f["value"], f["reason"]) for f in shown["frozen_by"]] == [("list", "ramadan", "a fire")]
    assert [one["name"] for one in shown["lists"]] == ["ramadan"]
    assert shown["rules"] == ["no-pork"]


async def test_an_invisible_hold_answers_as_a_missing_one(here: Stage) -> None:
    """A hold that a person may not see gets the same answers as one that does not exist."""
    hold_id = await held(here, NEWS)
    asks = await program(here, DPO, Role.APPROVER)
    for method, tail, body in [
        ("GET", "", None), ("POST", "/approve", {"seen": SEEN}), ("POST", "/reject", {"seen": SEEN, "comment": "x"}),
        ("POST", "/withdraw", {}),
    ]:  # fmt: skip
        there = await asks(method, f"/held/{hold_id}{tail}", body)
        nowhere = await asks(method, f"/held/NOSUCHHOLD{tail}", body)
        assert (there.status_code, there.content) == (nowhere.status_code, nowhere.content) == (404, nowhere.content)
    assert (await asks("GET", "/held")).json()["items"] == []


SEEN = {"content_sha256": "0" * 64, "envelope_sha256": "0" * 64, "policy_sha256": "0" * 64, "lists": []}


async def test_a_person_who_left_the_group_cannot_decide(here: Stage) -> None:
    hold_id = await held(here)
    asks = await program(here, EVA, Role.APPROVER, Role.VIEWER)
    here.home.in_force = here.home.build(
        {**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(b"[eva@example.com, omar", b"[omar")}
    )
    shown = await looked(asks, hold_id)
    assert shown["why_not"] == "group"
    assert (await asks("POST", f"/held/{hold_id}/approve", {"seen": shown["seen"]})).status_code in (403, 409)


async def test_a_large_approval_needs_the_number_of_people(here: Stage) -> None:
    index(here.home.folder, "news", [f"reader{n}@example.org" for n in range(1234)])
    here.home.in_force.registry.reopen()
    hold_id = await held(here)
    asks = await program(here, EVA, Role.APPROVER)
    shown = await looked(asks, hold_id)
    assert (shown["reach"], shown["reach_must_be_said"]) == (1234, True)
    for reach in (None, 1233):
        answer = await asks("POST", f"/held/{hold_id}/approve", {"seen": shown["seen"], "reach": reach})
        assert answer.status_code == 422
        assert "1234" in answer.text
    done = await asks("POST", f"/held/{hold_id}/approve", {"seen": shown["seen"], "reach": 1234})
    assert done.json()["state"] == "approved"


@pytest.mark.parametrize(
    ("said", "people"), [({}, 40), ({"people": 60}, 60), ({"people": 61}, None), ({"people": 39}, None)]
)
async def test_an_approval_limits_the_people_of_a_mailing(
    here: Stage, said: dict[str, int], people: int | None
) -> None:
    for n in (0, 1):
        last = await held(here, *MEMBERS[20 * n : 20 * n + 20], X_Mailing="eid", Message_ID=f"<{n}@x>")
    copy = await here.home.hold(last)
    await here.home.approve(copy.primary, EVA)
    asks = await program(here, DPO, Role.APPROVER)
    shown = await looked(asks, copy.primary)
    assert (shown["reach"], shown["people_at_most"]) == (40, 60)
    answer = await asks("POST", f"/held/{copy.primary}/approve", {"seen": shown["seen"]} | said)
    assert answer.status_code == (200 if people else 422), answer.text
    mailing = await here.home.store.mailings.find(copy.mailing_id)
    assert mailing is not None
    assert (mailing.grant.people if mailing.grant is not None else None) == people


@pytest.mark.parametrize(("said", "people"), [({}, 30), ({"people": 30}, 30), ({"people": 29}, None)])
async def test_an_approval_is_for_no_fewer_than_have_it_and_wait(
    here: Stage, said: dict[str, int], people: int | None
) -> None:
    await here.home.send(*MEMBERS[:10], X_Mailing="eid", Message_ID="<passed@x>")
    hold_id = await held(here, *MEMBERS[10:30], X_Mailing="eid")
    await here.home.approve(hold_id, EVA)
    asks = await program(here, DPO, Role.APPROVER)
    shown = await looked(asks, hold_id)
    assert shown["reach"] == 20
    answer = await asks("POST", f"/held/{hold_id}/approve", {"seen": shown["seen"]} | said)
    assert answer.status_code == (200 if people else 422), answer.text
    assert ("must be between 30 and 60" in answer.text) is (people is None)
    hold = await here.home.hold(hold_id)
    mailing = await here.home.store.mailings.find(hold.mailing_id)
    assert mailing is not None
    assert (mailing.grant.people if mailing.grant is not None else None) == people


async def test_a_cursor_continues_after_the_last_page(here: Stage) -> None:
    ids = []
    for n in range(7):
        here.home.clock.pass_(seconds=n % 2)
        ids.append(await held(here, Message_ID=f"<{n}@example.com>", body=f"Bacon {n}"))
    asks = await program(here, EVA, Role.VIEWER)
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await asks("GET", "/held", limit=3, cursor=cursor)).json()
        found += [row["id"] for row in page["items"]]
        cursor = page["next"]
    assert found == sorted(ids, reverse=True)


async def test_filters_select_and_invalid_ones_are_422(here: Stage) -> None:
    ramadan, news = await held(here, RAMADAN), await held(here, NEWS)
    asks = await program(here, EVA, Role.APPROVER)
    body = {"seen": (await looked(asks, news))["seen"], "comment": "No"}
    await asks("POST", f"/held/{news}/reject", body)
    for query, expected in [
        ({}, [ramadan]), ({"state": "rejected"}, [news]), ({"list": "news", "state": "rejected"}, [news]),
        ({"list": "news"}, []),
    ]:  # fmt: skip
        assert [row["id"] for row in (await asks("GET", "/held", **query)).json()["items"]] == expected
    assert (await asks("GET", "/held", state="lost")).status_code == 422
    assert (await asks("GET", "/held", cursor="rubbish")).status_code == 422
    assert (await asks("GET", "/held", colour="red")).status_code == 422
    assert (await asks("GET", "/mailings", least=2**63)).status_code == 422, "beyond what SQLite can count"


@pytest.mark.parametrize(
    ("roles", "scopes", "status"),
    [
        ((Role.APPROVER,), (Scope.HELD_READ,), 403),
        ((Role.VIEWER,), (Scope.HELD_READ, Scope.HELD_DECIDE), 403),
        ((Role.ADMIN,), (Scope.HELD_READ, Scope.HELD_DECIDE), 403),
        ((Role.APPROVER,), (Scope.HELD_READ, Scope.HELD_DECIDE), 200),
    ],
)
async def test_scope_and_role_must_both_allow_a_call(
    here: Stage, roles: tuple[Role, ...], scopes: tuple[Scope, ...], status: int
) -> None:
    hold_id = await held(here)
    asks = await program(here, EVA, *roles, scopes=scopes)
    body = {"seen": (await looked(asks, hold_id))["seen"]}
    answer = await asks("POST", f"/held/{hold_id}/approve", body)
    assert answer.status_code == status
    if status == 403:
        assert 'error="insufficient_scope", scope="held:decide"' in answer.headers["www-authenticate"]


async def test_a_held_part_names_its_list(here: Stage) -> None:
    hold_id = await held(here, *MEMBERS[:25])
    asks = await program(here, EVA, Role.VIEWER)
    assert (await looked(asks, hold_id))["lists"] == [{"name": "ramadan", "title": "Ramadan greetings"}]


@pytest.mark.parametrize("choice", ["sent", "again"])
async def test_a_list_message_in_doubt_is_listed_first_and_settled(here: Stage, choice: str) -> None:
    hold_id = await held(here)
    await held(here, NEWS, Message_ID="<2@example.com>", Subject="SV: another")
    asks = await program(here, EVA, Role.APPROVER)
    seen = (await looked(asks, hold_id))["seen"]
    assert (await asks("POST", f"/held/{hold_id}/approve", {"seen": seen})).status_code == 200
    assert (await asks("POST", f"/held/{hold_id}/settle", {"choice": choice})).status_code == 409, "no one is asked"
    await mark_attempted(here, asks=True)
    shown = await looked(asks, hold_id)
    assert shown["sending"] == {"under_way": False, "has": 0, "in_doubt": 1, "left": 0}
    await here.home.approvals().ask()
    for query in ({}, {"state": "in-doubt"}):
        first = (await asks("GET", "/held", **query)).json()["items"][0]
        assert (first["id"], first["state"], first["asked_at"] is not None) == (hold_id, "in-doubt", True)
    writer = await program(here, ANNA, Role.APPROVER)
    assert (await writer("POST", f"/held/{hold_id}/settle", {"choice": choice})).status_code == 403
    assert (await asks("POST", f"/held/{hold_id}/settle", {"choice": "perhaps"})).status_code == 422
    done = await asks("POST", f"/held/{hold_id}/settle", {"choice": choice, "comment": "The log has it"})
    expected = "released" if choice == "sent" else "releasing"
    assert (done.status_code, done.json()["state"], done.json()["asked_at"]) == (200, expected, None)
    assert [row["state"] for row in (await asks("GET", "/held")).json()["items"]] == ["waiting"]


async def test_reading_the_text_is_allowed_by_the_policy_and_journalled(here: Stage) -> None:
    hold_id = await held(here, RAMADAN, body="A sentence that is only in the text")
    eva = await program(here, EVA, Role.APPROVER)
    read = await eva("GET", f"/held/{hold_id}/text")
    assert read.json()["text"].strip() == "A sentence that is only in the text"
    assert await views(here, await here.home.hold(hold_id)) == [(EVA, "text")]


@pytest.mark.parametrize(
    ("who", "role"), [("vera@example.com", Role.VIEWER), (ANNA, Role.VIEWER), (DPO, Role.APPROVER)]
)
async def test_the_text_is_404_without_permission(here: Stage, who: str, role: Role) -> None:
    policy = DOCUMENTS["policy.yaml"].replace(
        b"approvals: {from: [communications]}\n",
        b"approvals: {from: [communications]}\npreviews: {compliance: reasons}\n",
    )
    await here.home.put({**DOCUMENTS, "policy.yaml": policy})
    await here.home.follow()
    hold_id = await held(here, RAMADAN)
    asks = await program(here, who, role)
    assert (await asks("GET", f"/held/{hold_id}/text")).status_code == 404
    assert await views(here, await here.home.hold(hold_id)) == []


async def test_a_question_is_asked_answered_and_in_the_history(here: Stage) -> None:
    hold_id = await held(here, RAMADAN)
    eva, anna = await program(here, EVA, Role.APPROVER), await program(here, ANNA, Role.VIEWER)
    asked = await eva("POST", f"/held/{hold_id}/ask", {"question": "Did you mean the list?"})
    assert [(one["who"], one["words"]) for one in asked.json()["items"]] == [(EVA, "Did you mean the list?")]
    assert (await eva("POST", f"/held/{hold_id}/answer", {"words": "Yes"})).status_code == 403
    assert (await anna("POST", f"/held/{hold_id}/ask", {"question": "?"})).status_code == 403
    answered = await anna("POST", f"/held/{hold_id}/answer", {"words": "No, Lotta alone"})
    assert [one["words"] for one in answered.json()["items"]] == ["Did you mean the list?", "No, Lotta alone"]
    assert (await anna("POST", f"/held/{hold_id}/withdraw", {})).status_code == 200
    assert (await eva("POST", f"/held/{hold_id}/ask", {"question": "And now?"})).status_code == 409
    kinds = [one["kind"] for one in (await eva("GET", f"/held/{hold_id}/history")).json()["items"]]
    assert kinds[0] == "verdict"
    assert [kind for kind in kinds if kind in ("asked", "answered", "withdrawn")] == ["asked", "answered", "withdrawn"]
