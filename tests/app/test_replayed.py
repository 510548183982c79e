"""A replay is certain only of what a guard under the other policy does; else it names the facts that are unknown.

Tested with random policies, changes and days of mail: two guards get the same mail, one under each policy, and the
replay of the first's journal is compared with the second.
"""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from smtpguard.app import replaydiff
from smtpguard.app.replayed import COPIES, PEOPLE, Judgement
from smtpguard.holds.model import Choice
from smtpguard.policy.verdict import Action, Mode
from tests.app.twoguards import Plain, TwoGuards, sample, two_guards
from tests.guard.drawing import drawn_policies, play
from tests.guard.house import MEMBERS, RAMADAN

OUTSIDER = "peter@partner.example"


async def broken(both: TwoGuards, thoughts: dict[str, Judgement]) -> list[str]:
    return [
        f"{id}: {[a.word for a in thought.actions]} {thought.depends_on}, but it was {really.word}"
        for id, thought in thoughts.items()
        if (really := await both.really(id)) not in thought.actions
    ]


@pytest.mark.parametrize("seed", range(6))
async def test_certain_actions_are_those_of_a_real_guard(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    before, after, _ = drawn_policies(chance)
    async with two_guards(tmp_path, before, after) as both:
        await play(both, chance)
        thoughts = await both.foreseen()
        assert len(thoughts) > 30
        assert await broken(both, thoughts) == []


@pytest.mark.parametrize("seed", range(100, 102))
async def test_certain_actions_stay_right_with_erased_names_and_facts(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    before, after, _ = drawn_policies(chance)
    async with two_guards(tmp_path, before, after) as both:
        await play(both, chance)
        assert await broken(both, await both.foreseen(full=False)) == []


@pytest.mark.parametrize("seed", range(200, 202))
async def test_certain_actions_stay_right_without_the_old_policy(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    before, after, _ = drawn_policies(chance)
    async with two_guards(tmp_path, before, after) as both:
        await play(both, chance)
        assert await broken(both, await both.foreseen(kept=False)) == []


@pytest.mark.parametrize("seed", range(300, 302))
async def test_under_its_own_policy_a_message_keeps_its_verdict(tmp_path: Path, seed: int) -> None:
    """The replay gives that verdict or none. With erased names it is certain of less, but never of anything else."""
    chance = random.Random(seed)
    before, _, _ = drawn_policies(chance)
    async with two_guards(tmp_path, before, before) as both:
        await play(both, chance)
        whole, erased = await both.foreseen(), await both.foreseen(full=False)
        assert await broken(both, whole) == []
        assert sum(thought.certain for thought in whole.values()) / len(whole) > 0.9
        for id, thought in whole.items():
            [verdict] = [data for kind, data in await both.first.settled(id) if kind == "verdict"]
            assert verdict["action"] in {a.word for a in thought.actions} or "mailing-stored" in verdict["rules"]
            assert thought.actions <= erased[id].actions
            assert thought.rules.keys() >= erased[id].rules.keys()


CHANGES = {"stricter": 0.9, "lowered": 0.85, "enforced": 0.85}
"""Changes of a policy, with the least share of messages for which the replay is certain. tests/catalogue/test_replay.py has more."""


def changed(policy: Plain, how: str) -> Plain:
    after = deepcopy(policy)
    rules = {rule["id"]: rule for rule in after["rules"]}
    match how:
        case "stricter":
            rules["unsuitable-for-list"]["then"] = "reject"
        case "lowered":
            rules["internal-to-many-customers"]["when"]["mailing.customers"] = ">= 8"
        case "enforced":
            after["enforce"] = True
    return after


@pytest.mark.parametrize("how", CHANGES)
async def test_most_messages_stay_certain_when_a_rule_changes(tmp_path: Path, how: str) -> None:
    before = sample()
    before["enforce"] = how != "enforced"
    async with two_guards(tmp_path, before, changed(before, how)) as both:
        await play(both, random.Random(7), messages=60)
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
        assert sum(thought.certain for thought in thoughts.values()) / len(thoughts) > CHANGES[how]


# # single cases


def policy(*rules: Plain) -> Plain:
    return {**sample(), "rules": list(rules)}


HOLD: Plain = {"then": "hold"}
OF_COLLEAGUES: Plain = {"id": "looks", "when": {"message.looks": "internal"}, **HOLD}


async def one(folder: Path, before: Plain, after: Plain, *to: str, days: int = 0, **more: Any) -> Judgement:
    async with two_guards(folder, before, after) as both:
        both.pass_(days=days)
        await both.send(*to, id="T1", **more)
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
        return thoughts["T1"]


async def test_an_unread_text_is_named_as_unknown(tmp_path: Path) -> None:
    thought = await one(tmp_path, policy(), policy(OF_COLLEAGUES), OUTSIDER)
    assert thought.actions == {Action.RELAY, Action.HOLD}
    assert thought.depends_on == {"message.looks": "the text was not read then"}
    assert [perhaps.rule.rule_id for perhaps in thought.perhaps] == ["looks"]


async def test_an_unchanged_condition_has_a_certain_answer(tmp_path: Path) -> None:
    """A condition that a rule had then has a certain answer, whatever the rule's id and mode, and without the text."""
    observing = {**OF_COLLEAGUES, "mode": "observe"}
    thought = await one(tmp_path, policy(observing), policy({**OF_COLLEAGUES, "id": "other"}), OUTSIDER)
    assert thought.actions == {Action.HOLD}
    assert {rule: effect.mode for rule, effect in thought.rules.items()} == {"other": Mode.ENFORCE}


async def test_a_fact_not_asked_beside_a_stricter_rule_is_unknown(tmp_path: Path) -> None:
    strict = {"id": "strict", "when": {"recipients.outside": "any"}, "then": "reject"}
    thought = await one(tmp_path, policy(strict, OF_COLLEAGUES), policy(OF_COLLEAGUES), OUTSIDER)
    assert thought.actions == {Action.RELAY, Action.HOLD}
    assert set(thought.depends_on) == {"message.looks"}


async def test_a_fact_unknown_then_takes_effect_in_the_replay(tmp_path: Path) -> None:
    """With a list that was stale then, the unknown fact takes effect in the replay too."""
    customers = {"id": "customers", "when": {"recipients.customers": "any"}, **HOLD}
    thought = await one(tmp_path, policy(), policy(customers), OUTSIDER, days=14)
    assert thought.actions == {Action.HOLD}


async def test_an_origin_elsewhere_decides_whether_list_headers_count(tmp_path: Path) -> None:
    """A mailing's headers count from where any stream or list says that a system writes, whoever gets it."""
    before = policy(OF_COLLEAGUES)
    after = deepcopy(before)
    after["streams"]["alerts"] = {"from": ["alerts@example.com"], "origin": {"clients": ["192.0.2.1"]}}
    headers: dict[str, Any] = {"X_Looks": "mailing", "X_Marks": "one-click list-unsubscribe"}
    thought = await one(tmp_path, before, after, MEMBERS[0], **headers)
    assert thought.actions == {Action.RELAY, Action.HOLD}
    assert thought.depends_on == {"message.looks": "the origins are declared differently"}
    without = await one(tmp_path / "without", before, after, MEMBERS[0], X_Looks="internal")
    assert without.actions == {Action.HOLD}


FIRST = {"id": "first", "when": {"sender.first_contacts": ">= 2 in 1h"}, **HOLD}
ANSWERED = {"id": "answered", "when": {"sender.answers": ">= 1 in 1h"}, **HOLD}


@pytest.mark.parametrize(
    ("rule", "path", "value", "hangs"),
    [
        (FIRST, ("marks",), {"signature-block": 0}, {"sender.first_contacts": "the marks are declared differently"}),
        (FIRST, ("streams", "receipts", "from"), ["anna@example.com"], {"sender.first_contacts": "the streams are declared differently"}),
        (ANSWERED, ("organization", "shared"), ["anna@example.com"], {"sender.answers": "the shared mailboxes are declared differently"}),
        (ANSWERED, ("organization", "shared"), ["bo@example.com"], {}),
        (FIRST, ("streams", "receipts", "from"), ["bo@example.com"], {}),
    ],
)  # fmt: skip
async def test_what_is_a_letter_depends_on_marks_streams_and_shared_mailboxes(
    tmp_path: Path, rule: Plain, path: tuple[str, ...], value: Any, hangs: dict[str, str]
) -> None:
    before = policy(rule)
    after = deepcopy(before)
    section = after
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    letter: dict[str, Any] = {
        "sender": "anna@example.com",
        "session": {"auth_user": "anna@example.com"},
        "References": "<x@example.net>",
    }
    thought = await one(tmp_path, before, after, MEMBERS[0], MEMBERS[1], **letter)
    assert {fact: why for fact, why in thought.depends_on.items() if fact in hangs} == hangs
    assert thought.certain is (not hangs)


async def test_a_stricter_rule_makes_the_unknown_irrelevant(tmp_path: Path) -> None:
    reach = {"id": "reach", "when": {"recipients.reach": "any"}, **HOLD}
    thought = await one(tmp_path, policy(), policy(OF_COLLEAGUES, reach), OUTSIDER)
    assert thought.actions == {Action.HOLD}
    assert thought.depends_on == {}


COPY: dict[str, Any] = {"X_Mailing": "wine", "X_Looks": "mailing"}
FROM_THREE = {"id": "many", "when": {"mailing.customers": ">= 3"}, **HOLD}


async def test_copies_after_a_new_hold_are_uncertain(tmp_path: Path) -> None:
    async with two_guards(tmp_path, policy(), policy(FROM_THREE)) as both:
        for n in range(5):
            await both.send(MEMBERS[n], id=f"T{n}", **{**COPY, "Message_ID": f"<{n}>", "body": str(n)})
        both.pass_(days=1.2)  # the copies have left the window, and the hold still waits
        await both.send(MEMBERS[9], id="T9", **{**COPY, "Message_ID": "<9>", "body": "9"})
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    # if no rule counted them, the count is known only from the message itself
    assert [set(thoughts[f"T{n}"].depends_on) for n in (0, 4)] == [{"mailing.customers"}, {"mailing.customers", COPIES}]
    counted = {**FROM_THREE, "when": {"mailing.customers": ">= 30"}}
    async with two_guards(tmp_path / "counted", policy(counted), policy(FROM_THREE)) as both:
        for n in range(5):
            await both.send(MEMBERS[n], id=f"T{n}", **{**COPY, "Message_ID": f"<{n}>", "body": str(n)})
        both.pass_(days=1.2)
        await both.send(MEMBERS[9], id="T9", **{**COPY, "Message_ID": "<9>", "body": "9"})
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    said = [thoughts[f"T{n}"].actions for n in range(5)]
    assert said == [{Action.RELAY}] * 2 + [{Action.HOLD}] * 3
    assert thoughts["T9"].actions == {Action.RELAY, Action.HOLD}
    assert set(thoughts["T9"].depends_on) == {COPIES}


async def test_decisions_under_another_policy_are_unknown(tmp_path: Path) -> None:
    before = policy({**FROM_THREE, "when": {"mailing.customers": ">= 4"}})
    async with two_guards(tmp_path, before, policy(FROM_THREE)) as both:
        for n in range(4):
            await both.send(MEMBERS[n], id=f"T{n}", **{**COPY, "Message_ID": f"<{n}>", "body": str(n)})
        await both.decide("T3", Choice.APPROVE)
        await both.send(MEMBERS[9], id="T9", **{**COPY, "Message_ID": "<9>", "body": "9"})
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    assert thoughts["T2"].actions == {Action.HOLD}
    assert set(thoughts["T9"].depends_on) == {PEOPLE}


EXCEPTED = {"message.labels": "secret"}
TWO_RULES = (FROM_THREE, {"id": "twelve", "when": {"mailing.reach": ">= 3"}, **HOLD})


async def copies(both: TwoGuards, *numbers: int, **more: Any) -> None:
    for n in numbers:
        await both.send(MEMBERS[n], id=f"T{n}", **{**COPY, "Message_ID": f"<{n}>", "body": str(n), **more})


async def test_an_approval_covers_the_rules_that_approvers_saw(tmp_path: Path) -> None:
    after = policy(TWO_RULES[0], {**TWO_RULES[1], "unless": EXCEPTED})
    async with two_guards(tmp_path, policy(*TWO_RULES), after) as both:
        await copies(both, 0, 1, 2)
        await both.decide("T2", Choice.APPROVE)
        await copies(both, 3, X_Labels="secret")
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    assert [thoughts[f"T{n}"].actions for n in (2, 3)] == [{Action.HOLD}, {Action.RELAY}]


async def test_a_rule_that_approvers_did_not_see_holds(tmp_path: Path) -> None:
    more = {"id": "labels", "when": {"message.labels": "secret"}, **HOLD}
    async with two_guards(
        tmp_path, policy(FROM_THREE, {**more, "mode": "observe"}), policy(FROM_THREE, {**more, "id": "new"})
    ) as both:
        await copies(both, 0, 1, 2)
        await both.decide("T2", Choice.APPROVE)
        await copies(both, 3, X_Labels="secret")
        await copies(both, 4)
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    assert thoughts["T3"].actions == {Action.HOLD}
    assert thoughts["T4"].depends_on.keys() == {PEOPLE}


async def test_a_rejected_mailing_stays_rejected(tmp_path: Path) -> None:
    async with two_guards(tmp_path, policy(FROM_THREE), policy({**FROM_THREE, "unless": EXCEPTED})) as both:
        await copies(both, 0, 1, 2)
        await both.decide("T2", Choice.REJECT)
        await copies(both, 3, X_Labels="secret")
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    assert thoughts["T3"].actions == {Action.REJECT}


async def test_a_retry_may_be_held_already(tmp_path: Path) -> None:
    unproven = {"id": "unproven", "when": {"sender.proven": False}, **HOLD}
    async with two_guards(tmp_path, policy(), policy(unproven)) as both:
        await both.send(OUTSIDER, id="T1")
        await both.send(OUTSIDER, id="T2", session={"auth_user": "anna@example.com"})
        await both.send(OUTSIDER, id="T3", session={"auth_user": "anna@example.com"}, Message_ID="<3@example.com>")
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    assert thoughts["T2"].depends_on == {COPIES: "the same message may be held already"}
    assert thoughts["T3"].actions == {Action.RELAY}


async def test_a_message_in_doubt_may_be_held(tmp_path: Path) -> None:
    strict = {"id": "strict", "when": {"recipients.list_addresses": "any"}, "then": "reject"}
    async with two_guards(tmp_path, policy(strict), policy()) as both:
        await both.send(RAMADAN, id="T1", lost=True)
        await both.send(RAMADAN, id="T2")
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    assert [thoughts[f"T{n}"].actions for n in (1, 2)] == [{Action.RELAY}, {Action.RELAY, Action.HOLD}]


async def test_beyond_the_limit_of_memory_nothing_is_certain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaydiff, "MOST", 2)
    alone = policy({"id": "one", "when": {"recipients.customers": 1, "message.topics": "pork"}, "then": "reject"})
    busy = policy(*alone["rules"], {"id": "busy", "when": {"sender.customers": ">= 2 in 1h"}, **HOLD})
    before = {**busy, "rules": busy["rules"][1:]}
    async with two_guards(tmp_path, before, busy) as both:
        for n in range(4):
            more: dict[str, Any] = {
                "X_Topics": "pork",
                "sender": f"writer{n}@example.com",
                "Message_ID": f"<{n}>",
                "body": str(n),
            }
            await both.send(MEMBERS[n], id=f"T{n}", **more)
        await both.send(MEMBERS[9], id="T9", Message_ID="<9>", body="9")
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    assert thoughts["T0"].actions == {Action.REJECT}
    assert "sender.customers" in thoughts["T9"].depends_on


async def test_a_message_sent_for_preapproval_is_never_relayed(tmp_path: Path) -> None:
    """A message sent for approval beforehand is never relayed."""
    async with two_guards(tmp_path, policy(), policy(OF_COLLEAGUES)) as both:
        home = both.first
        await home.store.journal.record([asked_beforehand(home)])
        thoughts = await both.foreseen()
    assert thoughts["T1"].actions == {Action.HOLD}


def asked_beforehand(home: Any) -> Any:
    from smtpguard.journal.event import Event, Kind

    counts = dict.fromkeys(("total", "internal", "outside", "members", "list_addresses", "customers", "reach"), 1)
    data = {"action": "hold", "rules": ["approval-asked"], "observed": [], "reasons": [], "unknown": [], "counts": counts,
            "lists": ["ramadan"], "looks": "internal", "size_bytes": 1, "policy": home.in_force.sha256, "streams": []}  # fmt: skip
    return Event(kind=Kind.VERDICT, id="T1", at=home.clock.now(), data=data)


async def test_a_list_of_the_new_policy_alone_is_read_as_it_is_today(tmp_path: Path) -> None:
    after = policy({"id": "customers", "when": {"recipients.customers": "any"}, **HOLD})
    after["lists"]["offers"] = {"addresses": ["offers@lists.example.com"], "members": {"csv": "offers.csv"}}
    async with two_guards(tmp_path, policy(), after) as both:
        await both.send("x1@example.org", id="T1")  # a member of the list
        await both.send("x2@example.org", id="T2", Message_ID="<2>")
        await both.send("offers@lists.example.com", id="T3", Message_ID="<3>")
        thoughts = await both.foreseen()
        assert await broken(both, thoughts) == []
    assert [thoughts[f"T{n}"].actions for n in (2, 3)] == [{Action.RELAY}, {Action.RELAY, Action.HOLD}]
    assert thoughts["T1"].depends_on.keys() == {"recipients.customers"}


async def test_a_sender_who_is_no_writer_is_recognized_by_address(tmp_path: Path) -> None:
    rule = {"id": "not-a-writer", "when": {"recipients.list_addresses": "any", "sender.is_writer": False}, **HOLD}
    after = policy(rule)
    after["lists"]["ramadan"]["writers"] = ["eva@example.com"]
    thought = await one(tmp_path, policy(rule), after, RAMADAN, sender="campaigns@example.com")
    assert thought.actions == {Action.HOLD}
