"""held over a real store: list, decide, show and export."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from smtpguard.cli import held
from smtpguard.cli.context import Context
from smtpguard.cli.freeze import command as freeze
from smtpguard.cli.freeze import thaw
from smtpguard.cli.holdrow import Known, print_hold
from smtpguard.holds.model import Change, Confirmation, State
from smtpguard.holds.service import Decided
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.journal.event import Event, Kind
from smtpguard.outbox.model import AttemptResult, IntentKind
from smtpguard.store.store import Store
from tests.cli.stage import ANNA, DPO, EVA, Stage
from tests.clocks import MONDAY
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN

ID = "T000000000000001"
DUTY = {"from": ["duty"], "each": 1, "out_of_hours": None}


def test_held_messages_are_listed(stage: Stage) -> None:
    assert "Nothing is held" in stage.run(held.command, "list").output
    stage.hold()
    [row] = stage.rows(held.command, "list")
    assert row == {
        "id": ID,
        "state": "waiting",
        "frozen": [],
        "stopped": False,
        "reverse_path": ANNA,
        "recipients": [RAMADAN],
        "reach": 60,
        "reach_at_least": False,
        "lists": ["ramadan"],
        "subject": "SV: lunch",
        "rules": ["internal-to-list", "internal-to-many-customers", "not-a-writer"],
        "held_at": "2026-03-02T09:00:00Z",
        "expires_at": row["expires_at"],
        "mailing": row["mailing"],
        "copies": 0,
        "part_of": None,
        "test": False,
        "release_at": None,
        "settled": None,
        "asked_at": None,
        "confirm": None,
        "votes": [],
    }
    assert row["expires_at"].endswith("Z")
    text = stage.run(held.command, "list").output
    assert ID in text
    assert ANNA in text
    assert stage.rows(held.command, "list", "--state", "released") == []
    assert stage.run(held.command, "list", "--state", "nonsense").exit_code == 2


def test_approval_needs_the_whole_quorum(stage: Stage) -> None:
    stage.hold()
    first = stage.run(held.command, "approve", ID, "--as", "Eva@Example.com", "--comment", "fine")
    assert first.exit_code == 0
    assert first.output == (
        f"{ID}: the vote is counted. It needs 1 of communications and 1 of compliance, or out of hours 1 of duty, and has eva@example.com.\n"
    )
    assert stage.state() == ["waiting"]
    [row] = stage.rows(held.command, "approve", ID, "--as", DPO)
    assert row["state"] == "approved"
    assert row["missing"] == []
    assert [(v["approver"], v["choice"], v["comment"]) for v in row["votes"]] == [
        (EVA, "approve", "fine"),
        (DPO, "approve", ""),
    ]


def test_a_refused_action_is_one_line_with_status_1(stage: Stage) -> None:
    stage.hold()
    for args, says in (
        (("approve", ID, "--as", ANNA), "wrote it"),
        (("approve", ID, "--as", "stranger@example.com"), "not an approver"),
        (("approve", ID, "--as", "nobody"), "invalid address"),
        (("reject", ID, "--as", "stranger@example.com"), "not an approver"),
        (("withdraw", ID, "--as", EVA), "did not write it"),
        (("approve", "T9", "--as", EVA), "there is no hold T9"),
        (("show", "T9"), "there is no hold T9"),
        (("export", "T9"), "there is no hold T9"),
    ):
        result = stage.run(held.command, *args)
        lines = result.stderr.splitlines()
        assert (result.exit_code, len(lines), says in lines[0]) == (1, 1, True), (args, lines)
    assert stage.state() == ["waiting"]


def test_reject_and_withdraw(stage: Stage) -> None:
    stage.hold()
    assert "rejected" in stage.run(held.command, "reject", ID, "--as", DPO).output
    assert stage.state() == ["rejected"]
    again = stage.run(held.command, "withdraw", ID, "--as", ANNA)
    assert again.exit_code == 1
    assert "already rejected" in again.stderr
    stage.hold(id="T2", Message_ID="<2@example.com>", body="Another")
    assert "withdrawn" in stage.run(held.command, "withdraw", "T2", "--as", "anna+x@example.com").output


def test_an_approval_is_taken_back_before_the_quorum(stage: Stage) -> None:
    stage.hold()
    stage.run(held.command, "approve", ID, "--as", EVA)
    said = stage.run(held.command, "unvote", ID, "--as", EVA).output
    assert "the vote is taken back. It needs" in said
    assert stage.state() == ["waiting"]
    [row] = stage.rows(held.command, "list")
    assert row["votes"] == []
    again = stage.run(held.command, "unvote", ID, "--as", EVA)
    assert again.exit_code == 1
    assert "eva@example.com has not voted on it" in again.stderr


def test_an_approval_prints_the_release_time_and_is_undone(stage: Stage) -> None:
    stage.release_delay = 60
    said = approved(stage)
    due = f"approved, to be released at 2026-03-02 09:06:00 UTC; until then undo it with smtpguard held unvote {ID} --as ADDRESS"
    assert due in said
    [row] = stage.rows(held.command, "list")
    assert (row["state"], row["release_at"]) == ("waiting", "2026-03-02T09:06:00Z")
    assert "waiting, to be released at 09:06:00 UTC" in stage.run(held.command, "list").output
    assert f"Decided:  {due}\n" in stage.run(held.command, "show", ID).output
    stage.run(freeze, *FREEZE)
    assert "waiting, approved, frozen" in stage.run(held.command, "list").output
    kept = f"approved; until 2026-03-02 09:06:00 UTC undo it with smtpguard held unvote {ID} --as ADDRESS"
    assert f"Decided:  {kept}\n" in stage.run(held.command, "show", ID).output
    assert stage.run(held.command, "unvote", ID, "--as", "mallory@example.com").exit_code == 1
    undone = stage.run(held.command, "unvote", ID, "--as", "omar@example.com")
    assert undone.exit_code == 0, undone.output
    assert "It needs 1 of communications and 1 of compliance" in undone.output
    [row] = stage.rows(held.command, "list")
    assert (row["state"], row["release_at"]) == ("waiting", None)


FREEZE = ("--all", "--reason", "Wrong mail")


def approved(stage: Stage) -> str:
    """Hold a message and approve it by all groups; the output of the last approval."""
    stage.hold()
    stage.run(held.command, "approve", ID, "--as", EVA)
    last = stage.run(held.command, "approve", ID, "--as", DPO)
    assert last.exit_code == 0, last.output
    return last.output


def test_during_a_freeze_show_says_when_it_is_sent(stage: Stage) -> None:
    stage.run(freeze, *FREEZE)
    [row] = stage.rows(freeze, "--list", "ramadan", "--reason", "Ask Omar", "--for", "2h")
    by = row["by"]
    when = (
        f"when this is thawed: everything (by {by} since 2026-03-02 09:05 UTC: Wrong mail); "
        f"the list ramadan (by {by} since 2026-03-02 09:05 UTC, until 2026-03-02 11:05 UTC: Ask Omar)"
    )
    stage.hold()
    assert f"Frozen:   once approved, it is sent {when}\n" in stage.run(held.command, "show", ID).output
    assert "Covers:   To approve it is to approve this message only" in stage.run(held.command, "show", ID).output
    first, covers = approved(stage).splitlines()
    assert first == f"{ID}: approved; it goes out {when}"
    assert covers.startswith("  To approve it is to approve this message only")
    assert f"Frozen:   it goes out {when}\n" in stage.run(held.command, "show", ID).output
    table = stage.run(held.command, "list").output.splitlines()
    assert table[1].split("  ")[1] == "approved, frozen"
    assert table[2].startswith("Frozen: everything (by ")
    assert table[3].startswith("Frozen: the list ramadan (by ")
    [row] = stage.rows(held.command, "list")
    assert [(f["selector"], f["value"]) for f in row["frozen"]] == [("all", None), ("list", "ramadan")]
    stage.run(thaw, "--all")
    stage.run(thaw, "--list", "ramadan")
    [row] = stage.rows(held.command, "list")
    assert (row["state"], row["frozen"]) == ("approved", [])
    assert "Frozen:" not in stage.run(held.command, "show", ID).output


def test_an_approved_message_is_rejected_with_a_reason(stage: Stage) -> None:
    stage.run(freeze, *FREEZE)
    approved(stage)
    silent = stage.run(held.command, "reject", ID, "--as", EVA)
    assert (silent.exit_code, silent.stderr) == (
        1, "smtpguard: give a reason: its writer and the approvers are told\n",
    )  # fmt: skip
    back = stage.run(held.command, "reject", ID, "--as", EVA, "--comment", "Wrong list")
    assert back.output == f"{ID}: rejected, taken back before anything was sent\n"
    [row] = stage.rows(held.command, "list")
    assert (row["state"], row["votes"][-1]["comment"]) == ("rejected", "Wrong list")


def begun(stage: Stage, *, asks: bool = False) -> None:
    """Mark each recipient as attempted without an answer."""

    async def attempt(store: Store) -> None:
        [one] = [lease for lease in await store.outbox.lease("me", 100, 60) if lease.intent.kind is IntentKind.RELEASE]
        marks = [
            AttemptResult(recipient=r, event=DeliveryEvent.BEGIN, next_at=store.now(), doubts=1, asks=asks)
            for r in one.recipients
        ]
        assert await store.outbox.settle(one, marks, [])

    stage.ask(attempt)


def test_a_release_in_doubt_is_not_sent_again_after_a_rejection(stage: Stage) -> None:
    approved(stage)
    begun(stage)
    text = stage.run(held.command, "show", ID).output
    assert (
        "In doubt: it may have been sent to 60 people: an attempt has begun, and the relay's answer is not known\n"
        in text
    )
    [row] = stage.rows(held.command, "show", ID)
    assert row["sending"] == {"under_way": False, "has": 0, "in_doubt": 1, "left": 0}
    back = stage.run(held.command, "reject", ID, "--as", EVA, "--comment", "Wrong list")
    assert back.output == f"{ID}: in-doubt, stopped: 0 have it, 1 is in doubt, 0 do not get it\n"


@pytest.mark.parametrize(("said", "state"), [("--sent", "released"), ("--again", "releasing")])
def test_a_release_in_doubt_is_settled_by_a_person(stage: Stage, said: str, state: str) -> None:
    approved(stage)
    begun(stage, asks=True)

    async def sweep() -> None:
        async with stage.services() as services:
            await services.approvals.ask()

    asyncio.run(sweep())
    listed = stage.run(held.command, "list").output
    assert listed.splitlines()[1].startswith(f"{ID}  in-doubt")
    assert f"{ID}: it is in doubt whether it was sent, and it is not retried automatically." in listed
    assert "Asked:    It is not retried automatically" in stage.run(held.command, "show", ID).output
    assert stage.run(held.command, "settle", ID, "--as", EVA).exit_code == 2, "the number is not given"
    refused = stage.run(held.command, "settle", ID, said, "--as", ANNA)
    assert (refused.exit_code, "no one decides on their own message" in refused.stderr) == (1, True)
    [row] = stage.rows(held.command, "settle", ID, said, "--as", EVA, "--comment", "The log has it")
    assert (row["state"], row["asked_at"]) == (state, None)
    late = stage.run(held.command, "settle", ID, said, "--as", DPO)
    assert (late.exit_code, late.stderr) == (1, "smtpguard: no one is asked whether it was sent\n")


def test_a_partly_sent_release_is_stopped_with_numbers(stage: Stage) -> None:
    stage.hold(RAMADAN, "bo@example.net", "di@example.net")
    stage.run(held.command, "approve", ID, "--as", EVA)
    stage.run(held.command, "approve", ID, "--as", DPO)

    async def half(store: Store) -> None:
        leases = await store.outbox.lease("me", 100, 60)
        [one] = [lease for lease in leases if lease.intent.kind is IntentKind.RELEASE]
        later = store.now() + timedelta(minutes=1)
        outcomes = [
            AttemptResult(recipient=r, event=what, next_at=later if what is DeliveryEvent.PUT_OFF else None)
            for r, what in zip(
                one.recipients, (DeliveryEvent.TAKE, DeliveryEvent.PUT_OFF, DeliveryEvent.PUT_OFF), strict=True
            )
        ]
        assert await store.outbox.settle(one, outcomes, [])

    stage.ask(half)
    back = stage.run(held.command, "reject", ID, "--as", EVA, "--comment", "Wrong list")
    assert back.output == f"{ID}: released, stopped: 1 has it, 2 do not get it\n"
    assert "State:    released (stopped before all had received it)\n" in stage.run(held.command, "show", ID).output


def test_show_says_that_its_writer_is_asked(stage: Stage) -> None:
    stage.hold()
    asked = Confirmation(writer=ANNA, until=MONDAY + timedelta(hours=4))
    stage.ask(lambda store: store.holds.change(ID, lambda hold: Change(hold=replace(hold, confirm=asked))))
    text = stage.run(held.command, "show", ID).output
    assert "until 2026-03-02 13:00 UTC\n" in text
    assert re.findall("Waits for .*", text) == ["Waits for its writer to confirm it"]
    own = stage.run(held.command, "approve", ID, "--as", ANNA)
    assert "only its writer can let it go until 2026-03-02 13:00 UTC (smtpguard held confirm)" in own.stderr


def test_a_confirmation_is_not_printed_as_an_approval(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.hold()
    asked = Confirmation(writer=ANNA, until=MONDAY + timedelta(hours=4), at=MONDAY, people=60)
    [only] = stage.ask(lambda store: store.holds.find_all([ID]))
    hold = replace(only, confirm=asked, state=State.APPROVED)
    held._print_decision(Context(config=Path("none")), Decided(hold=hold))
    held._print_decision(Context(config=Path("none")), Decided(hold=replace(hold, state=State.WITHDRAWN)))
    assert capsys.readouterr().out == f"{ID}: confirmed\n{ID}: withdrawn\n"


def test_show_prints_a_hold(stage: Stage) -> None:
    stage.hold(Subject="SV: \x1b[31mred")
    text = stage.run(held.command, "show", ID).output
    assert "internal-to-list: Mail between colleagues never goes to a customer list" in text
    assert "Waits for 1 of communications and 1 of compliance, or out of hours 1 of duty\n" in text
    assert text.rstrip().endswith("UTC  verdict hold")
    assert "\x1b" not in text
    [row] = stage.rows(held.command, "show", ID)
    assert row["sender"] == ANNA
    assert row["missing"] == [{"from": ["communications", "compliance"], "each": 1, "out_of_hours": DUTY}]
    assert [e["what"] for e in row["history"]] == ["verdict"]
    assert row["reasons"][0]["rule"] == "internal-to-list"
    sent = Event(
        kind=Kind.NOTICE, id=ID, at=MONDAY, data={"notice": "held", "outcome": "sent"}, private={"recipients": (ANNA,)}
    )
    doubt = Event(kind=Kind.IN_DOUBT, id=ID, at=MONDAY, data={"outcome": "in-doubt", "code": "lost"})
    undone = {"choice": "approve", "release_at": "2026-03-02T09:10:05Z"}
    voted = Event(kind=Kind.VOTE, id=ID, at=MONDAY, data=undone, private={"actor": (EVA,)})
    stage.ask(lambda store: store.journal.record([sent, doubt, voted]))
    stage.run(held.command, "reject", ID, "--as", EVA, "--comment", "No")
    text = stage.run(held.command, "show", ID).output
    assert "UTC  in-doubt lost\n" in text
    assert f"UTC  vote approve (can be undone until 2026-03-02 09:10:05 UTC) by {EVA}\n" in text
    assert f"UTC  notice held sent to {ANNA}\n" in text
    assert f"UTC  vote reject by {EVA}\n" in text


def test_one_person_is_written_in_the_singular(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.hold()
    hold = stage.ask(lambda store: store.holds.find(ID))
    assert hold is not None
    print_hold(Known(hold=replace(hold, reach=1, lists=())), {})
    assert "Reaches:  1 person\n" in capsys.readouterr().out
    print_hold(Known(hold=replace(hold, reach=63, lists=(), copies=1, by_address=True)), {})
    assert "Reaches:  at most 63 people\n" in capsys.readouterr().out


def test_show_says_how_a_writer_confirmed_and_not_what_proves_the_message(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.hold()
    hold = stage.ask(lambda store: store.holds.find(ID))
    assert hold is not None
    confirmed = {"at": MONDAY, "what": "confirmed", "data": {"people": 63, "way": "link", "proof": "login"}}
    print_hold(Known(hold=hold, history=[(confirmed, f"by {ANNA}")]), {})
    assert f"UTC  confirmed link by {ANNA}\n" in capsys.readouterr().out


def test_show_is_in_english(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """show gives a rule's purpose in English, whatever the language of notices, and each piece of evidence on its own
    line."""

    stage.hold()
    hold = stage.ask(lambda store: store.holds.find(ID))
    assert hold is not None
    print_hold(Known(hold=hold), {"internal-to-list": "Never to a list"})
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("Rule:     internal-to-list: Never to a list")
    assert lines[at + 1].startswith("          message.looks is ")
    assert lines[at + 2].startswith("            ")
    assert lines[at + 2].strip() not in lines[at + 3 :]


def test_content_is_shown_and_exported_unchanged_and_journalled(stage: Stage, tmp_path: Path) -> None:
    stage.hold()
    assert stage.run(held.command, "show", ID, "--content").stdout_bytes == stage.raw
    assert stage.run(held.command, "export", ID).stdout_bytes == stage.raw
    file = tmp_path / "held.eml"
    assert stage.run(held.command, "export", ID, "-o", str(file)).exit_code == 0
    assert file.read_bytes() == stage.raw
    again = stage.run(held.command, "export", ID, "-o", str(file))
    assert (again.exit_code, again.stderr) == (2, f"smtpguard: {file}: is there already\n")
    [row] = stage.rows(held.command, "show", ID)
    assert [e["what"] for e in row["history"]] == ["verdict", "viewed", "exported", "exported"]


def test_an_export_has_the_message_and_its_metadata(stage: Stage, tmp_path: Path) -> None:
    stage.hold()
    stage.run(held.command, "export", ID, "-o", str(tmp_path / "held.eml"))
    written = tmp_path / "held.json"
    known = json.loads(written.read_text())
    assert (known["id"], known["state"], known["recipients"]) == (ID, "waiting", ["ramadan@lists.example.com"])
    assert known["content_sha256"] == hashlib.sha256((tmp_path / "held.eml").read_bytes()).hexdigest()
    assert [e["what"] for e in known["history"]] == ["verdict", "exported"]
    assert {path.stat().st_mode & 0o077 for path in (written, tmp_path / "held.eml")} == {0}
    [row] = stage.rows(held.command, "export", ID)
    assert base64.b64decode(row["content"]) == stage.raw


@pytest.mark.parametrize(
    ("name", "says"),
    [("none/held.eml", "there is no such folder"), ("held.json", "the message itself is not JSON; name it FILE.eml")],
)
def test_an_export_to_an_unusable_path_is_refused(stage: Stage, tmp_path: Path, name: str, says: str) -> None:
    stage.hold()
    result = stage.run(held.command, "export", ID, "-o", str(tmp_path / name))
    assert (result.exit_code, result.stderr) == (2, f"smtpguard: {tmp_path / name}: {says}\n")
    [row] = stage.rows(held.command, "show", ID)
    assert [e["what"] for e in row["history"]] == ["verdict"]


STAGED = DOCUMENTS | {
    "policy.yaml": DOCUMENTS["policy.yaml"].replace(
        b"    avoid: [pork]\n", b'    avoid: [pork]\n    stages: [5, "20%", rest]\n'
    )
}


def test_a_message_to_a_list_address_needs_all_at_once_to_approve(tmp_path: Path) -> None:
    staged = Stage(tmp_path, STAGED)
    staged.hold()
    assert "--all-at-once 60" in staged.run(held.command, "show", ID).output
    [known] = staged.rows(held.command, "show", ID)
    assert known["at_once"] == {"lists": ["ramadan"], "people": 60, "at_least": False, "may": True}
    assert staged.run(held.command, "approve", ID, "--as", EVA).exit_code == 0
    refused = staged.run(held.command, "approve", ID, "--as", DPO)
    assert refused.exit_code == 1
    assert "60 people at once" in refused.output
    assert staged.state() == ["waiting"]
    assert staged.run(held.command, "approve", ID, "--as", DPO, "--all-at-once", "60").exit_code == 0
    assert staged.state() == ["approved"]


def test_letters_of_a_sender_are_shown_each_with_its_text(tmp_path: Path) -> None:
    rule = b"""rules:
  - id: new-customers
    when: {message.looks: [internal, unclear], sender.first_contacts: ">= 1 in 1h"}
    then: hold
"""
    stage = Stage(tmp_path, {**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(b"rules:\n", rule)})
    same = "This is the very same text, of some length, so that everybody knows what it is about."
    for n, said in enumerate(["Say nothing to the boss.", same, "Lunch at noon, then.", same], 1):
        stage.hold(MEMBERS[n], n=n, body=said, Subject=f"About {n}", Message_ID=f"<l{n}@example.com>")
    ids = [f"T{n:015d}" for n in range(1, 5)]
    shown = stage.run(held.command, "show", ids[0]).output
    assert f"Letter:   {ids[1]} to {MEMBERS[2]}: About 2\n          This is the very same text" in shown
    assert f"Letter:   {ids[3]} to {MEMBERS[4]}: About 4\n          the same text as {ids[1]}\n" in shown
    assert "Covers:   To approve it is to approve this letter and the 3 others that wait with it" in shown
    [row] = stage.rows(held.command, "show", ids[0])
    assert [(one["id"], one["same_as"]) for one in row["letters"]] == [
        (ids[1], None), (ids[2], None), (ids[3], ids[1]),
    ]  # fmt: skip
    assert row["covers"]["letters"] == 3
    assert not row["covers"]["only"]
    assert [e["what"] for e in row["history"]].count("viewed") == 1, "the text was viewed before"
