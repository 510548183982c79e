"""Suggestions from the journal: streams, writers, colleagues on lists, and limits with what each would cost."""

from __future__ import annotations

from typing import Any

from smtpguard.incidents.suggestions import Bound, Evidence, PolicyContents, Suggestions

AT = 1_772_442_000_000_000
DAY = 86_400_000_000
BOUND = Bound(rule="many", path=("rules", 0, "when"), key="mailing.customers", fact="mailing.customers", least=20)


def known(**more: Any) -> PolicyContents:
    return PolicyContents(**{
        "domains": {"example.com"}, "writers": {"news": ()}, "streams": (), "customers_here": True, "bounds": (BOUND,),
        "owner": "it@example.com", **more,
    })  # fmt: skip


class Journal:
    """Verdicts at given days."""

    def __init__(self, of: PolicyContents) -> None:
        self.evidence, self.n = Evidence(of), 0

    def add(self, sender: str, to: str = "x@customer.example", *, days: float = 0, **more: Any) -> None:
        self.n += 1
        data = {
            "action": "relay",
            "looks": "unclear",
            "client": "10.0.0.1",
            "counts": {"total": 1, "customers": 1},
            **more,
        }
        clear = {"from": (sender,), "recipients": (to,)}
        self.evidence.add(AT + int(days * DAY), f"T{self.n}", data, clear)

    def found(self, *, weeks: float = 2, holds: float = 5) -> Suggestions:
        return self.evidence.suggestions(weeks, holds)


def test_a_system_with_its_own_address_is_suggested_as_a_stream() -> None:
    journal = Journal(known())
    for n in range(60):
        journal.add("noreply@shop.example.com", f"x{n}@customer.example", days=n / 5, client="10.1.2.3")
        journal.add("noreply@elsewhere.example", f"x{n}@customer.example", days=n / 5, client="203.0.113.7")
    [one] = journal.found().suggestions
    assert (one.path, one.key, one.looser) == (("streams",), "noreply", True)
    assert one.value == {
        "from": ["noreply@shop.example.com"], "origin": {"clients": ["10.1.2.3"]}, "max": "2 in 1h", "max_per_person": "2 in 1d",
        "owner": "it@example.com",
    }  # fmt: skip
    assert one.reason.startswith("30 letters a week to customers")


def test_a_system_behind_a_shared_server_is_only_mentioned() -> None:
    """A system behind a server that people use is only noted, since anyone who sends through it could use its name."""
    journal = Journal(known())
    for n in range(60):
        journal.add("noreply@example.com", f"x{n}@customer.example", days=n / 5)
    for who in ("anna", "omar", "eva"):
        journal.add(f"{who}@example.com", counts={"total": 5, "customers": 2})
    found = journal.found()
    assert found.suggestions == []
    assert "through 10.0.0.1, which people use as well" in found.notes[0]


def test_a_person_with_many_letters_is_no_stream() -> None:
    journal = Journal(known())
    for n in range(500):
        journal.add("anna@example.com", f"x{n}@customer.example", looks="internal", client="10.1.2.3")
    assert journal.found().suggestions == []


def test_a_declared_stream_is_not_suggested_again() -> None:
    journal = Journal(known(streams=["noreply@example.com"]))
    for n in range(60):
        journal.add("noreply@example.com", f"x{n}@customer.example", client="10.1.2.3")
    assert journal.found().suggestions == []


def test_senders_of_mailings_on_several_days_are_suggested_as_writers() -> None:
    journal = Journal(known(writers={"news": ["eva@example.com"]}))
    to_list: dict[str, Any] = {"counts": {"total": 1, "customers": 1, "list_addresses": 1}, "lists": ["news"]}
    for day in (0, 7):
        journal.add("campaigns@example.com", days=day, looks="mailing", **to_list)
        journal.add("anna@example.com", days=day, looks="internal", **to_list)  # internal mail does not make a writer
    journal.add("omar@example.com", looks="mailing", **to_list)  # only once
    [one] = journal.found().suggestions
    assert (one.path, one.key, one.value) == (
        ("lists", "news"),
        "writers",
        ["eva@example.com", "campaigns@example.com"],
    )
    assert "campaigns@example.com on 2 days" in one.reason


def test_colleagues_on_a_list_are_recognized_by_their_mail() -> None:
    journal = Journal(known())
    for who in ("anna", "omar", "eva"):
        journal.add(f"{who}@example.com", counts={"total": 1, "customers": 0})
        journal.add("kim@example.com", f"{who}@example.com", people=["00ff 0"])
    [one] = journal.found().suggestions
    assert (one.path, one.key, one.value) == (("organization",), "customers_here", False)
    journal.add("kim@example.com", "stranger@example.com", people=["00fe 0"])
    found = journal.found()
    assert found.suggestions == []
    assert "stranger@example.com" in found.notes[0]


def test_a_limit_that_holds_too_much_is_raised() -> None:
    journal = Journal(known())
    for n in range(30):
        observed = 22 if n < 24 else 90
        reasons = [{"rule": "many", "fact": "mailing.customers", "observed": str(observed), "limit": ">= 20"}]
        for _ in range(2):  # copies are one decision
            journal.add("anna@example.com", observed=["many"], mailing=f"M{n}", reasons=reasons)
    [one] = journal.found().suggestions
    assert (one.path, one.key, one.value, one.looser) == (BOUND.path, "mailing.customers", ">= 30", True)
    assert one.reason == "holds a week at mailing.customers >= 20: 15, >= 30: 3, >= 40: 3, >= 60: 3, >= 100: 0"
    assert journal.found(holds=15).suggestions == []


def test_a_limit_far_below_all_traffic_is_only_mentioned() -> None:
    journal = Journal(known())
    for n in range(30):
        reasons = [{"rule": "many", "fact": "mailing.customers", "observed": "at least 4,000", "limit": ">= 20"}]
        journal.add("anna@example.com", observed=["many"], mailing=f"M{n}", reasons=reasons)
    found = journal.found()
    assert found.suggestions == []
    assert "no bound up to 5 times its own helps" in found.notes[0]


def test_no_other_number_is_suggested_for_a_count_that_leaves_out_what_is_held() -> None:
    """Of a sender who goes on after a hold, every message meets the same count."""
    bound = Bound(
        rule="new", path=("rules", 1, "when"), key="sender.first_contacts", fact="sender.first_contacts", least=40
    )
    for action in ("hold", "relay"):
        journal = Journal(known(bounds=[bound]))
        for n in range(30):
            reasons = [{"rule": "new", "fact": "sender.first_contacts", "observed": "40", "limit": ">= 40 in 1h"}]
            journal.add("anna@example.com", action=action, mailing=f"M{n}", reasons=reasons, rules=["new"])
        found = journal.found()
        assert [one.value for one in found.suggestions] == ([] if action == "hold" else [">= 60"])
        assert [note.rpartition(": ")[2] for note in found.notes] == (
            ["sender.first_contacts does not count what is held"] if action == "hold" else []
        )


def test_a_few_minutes_are_no_week_of_such_mail() -> None:
    """They count once, not as often as they would fit into a week."""
    journal = Journal(known())
    for n in range(40):
        journal.add("sara@example.com", f"x{n}@customer.example")
        reasons = [{"rule": "many", "fact": "mailing.customers", "observed": "22", "limit": ">= 20"}]
        journal.add("anna@example.com", observed=["many"], mailing=f"M{n % 4}", reasons=reasons)
    assert journal.found(weeks=1 / 7) == Suggestions(suggestions=[], notes=[])


def test_erased_entries_and_retries_are_no_evidence() -> None:
    journal = Journal(known())
    for _ in range(100):
        journal.evidence.add(AT, "T", {"counts": {"total": 1, "customers": 1}, "client": "10.1.2.3"}, None)
        journal.add("noreply@example.com", retry=True)
    assert journal.found() == Suggestions(suggestions=[], notes=[])


def test_a_limit_in_a_mapping_keeps_its_other_keys() -> None:
    bound = Bound(
        rule="new", path=("rules", 1, "when"), key="sender.first_contacts", fact="sender.first_contacts", least=40,
        more={"at_least": 40, "in": "1h", "usual": "x3"},
    )  # fmt: skip
    journal = Journal(known(bounds=[bound]))
    for n in range(30):
        reasons = [{"rule": "new", "fact": "sender.first_contacts", "observed": "55", "limit": ">= 40 in 1h"}]
        journal.add("anna@example.com", observed=["new"], mailing=f"M{n}", reasons=reasons)
    [one] = journal.found().suggestions
    assert one.value == {"at_least": 60, "in": "1h", "usual": "x3"}


def test_a_costly_rule_without_a_number_is_only_mentioned() -> None:
    journal = Journal(known(holding=["unproven"]))
    for _ in range(30):
        journal.add("anna@example.com", observed=["unproven"])
    found = journal.found()
    assert found.suggestions == []
    assert found.notes[0].startswith("unproven would hold 15 a week, and has no number to raise")
    assert "mode: observe" not in found.notes[0], "no suggestion to switch off the rule against the story"
    assert journal.found(holds=15).notes == []


def test_one_message_suggests_nothing() -> None:
    journal = Journal(known(holding=["unproven"]))
    reasons = [{"rule": "many", "fact": "mailing.customers", "observed": "22", "limit": ">= 20"}]
    journal.add("anna@example.com", observed=["unproven", "many"], reasons=reasons)
    assert journal.found(weeks=1 / 7) == Suggestions(suggestions=[], notes=[])


def test_letters_to_non_customers_do_not_make_a_person() -> None:
    journal = Journal(known())
    for n in range(60):
        journal.add("noreply@example.com", f"x{n}@customer.example", days=n / 5, client="10.1.2.3")
        journal.add("noreply@example.com", "x@partner.example", counts={"total": 1, "customers": 0}, client="10.1.2.3")
    assert [each.key for each in journal.found().suggestions] == ["noreply"]


def test_a_person_at_the_same_address_prevents_a_stream() -> None:
    journal = Journal(known())
    for n in range(60):
        journal.add("noreply@example.com", f"x{n}@customer.example", days=n / 5, client="10.1.2.3")
    journal.add("anna@example.com", looks="internal", client="10.1.2.3")
    found = journal.found()
    assert found.suggestions == []
    assert "which people use as well" in found.notes[0]
