"""A policy's own test cases: the message of a failed one, and errors in a file of cases."""

from __future__ import annotations

import pytest

from smtpguard.config.problem import Broken
from smtpguard.config.yaml import load_yaml
from smtpguard.policy import suite
from smtpguard.policy.parse import parse
from tests.every import every

RULES = parse({
    "policy.yaml": b"""
organization: {domains: [example.com]}
groups: {communications: eva@example.com}
approvals: {from: communications}
rules:
  - {id: list, when: {recipients.list_addresses: any}, then: hold}
  - {id: busy, when: {sender.customers: ">= 3 in 1h"}, then: hold, mode: observe}
  - {id: unapproved, when: {mailing.approved: false, recipients.customers: ">= 10"}, then: reject}
"""
}).rules  # fmt: skip


def cases(text: str) -> list[suite.Case]:
    return suite.cases(load_yaml(text, "cases.yaml"), RULES)


def failures(case: suite.Case) -> tuple[str, ...]:
    return case.failures(case.verdict(RULES))


def only(case: str) -> suite.Case:
    (one,) = cases(f"cases:\n  - {case}\n")
    return one


def test_a_passing_case() -> None:
    outcome = only(
        "{name: to a list, facts: {recipients.list_addresses: 1}, expect: hold, hits: [list], misses: [busy], quorum: [communications]}"
    )
    assert failures(outcome) == ()
    assert (outcome.name, outcome.line) == ("to a list", 2)


@every(
    ("case", "failure"),
    [
        ("{name: a, facts: {recipients.list_addresses: 1}, expect: relay}", "expected relay, but the verdict is hold (list hit)"),
        ("{name: a, expect: hold}", "expected hold, but the verdict is relay (no rule hit)"),
        ("{name: a, expect: relay, hits: [list]}", "list did not hit: recipients.list_addresses is 0, the condition any"),
        ("{name: a, facts: {sender.customers: 3}, expect: relay, misses: [busy]}", "busy hit"),
        ("{name: a, expect: relay, observed: hold}", "expected observing rules to say hold, but they say relay"),
        ("{name: a, facts: {recipients.list_addresses: 1}, expect: hold, quorum: [duty]}", "expected duty to decide, but it would be communications"),
        ("{name: a, expect: relay, quorum: [duty]}", "expected duty to decide, but it would be nobody"),
    ],
)  # fmt: skip
def test_a_failing_case_gives_its_message(case: str, failure: str) -> None:
    assert failures(only(case)) == (failure,)


def test_intervals_unknowns_approval_and_shared_facts() -> None:
    outcomes = cases("""
facts: {recipients.customers: 12}
cases:
  - {name: unapproved, expect: reject, hits: [unapproved]}
  - {name: approved, facts: {mailing.approved: true}, expect: relay}
  - {name: doubt, facts: {recipients.customers: 9 to 12}, expect: defer}
  - {name: nobody knows, facts: {recipients.customers: unknown}, expect: defer}
  - {name: few, facts: {recipients.customers: 0 to 9}, expect: relay}
  - {name: frozen, facts: {recipients.customers: 0}, frozen: {sender: somebody@example.com}, expect: hold, hits: [freeze]}
  - {name: frozen otherwise, facts: {recipients.customers: 0}, frozen: {sender: another@example.com}, expect: relay}
""")
    assert [(o.name, failures(o)) for o in outcomes if failures(o)] == []
    assert len(outcomes) == 7


def test_all_errors_of_a_file_are_reported_at_once() -> None:
    with pytest.raises(Broken) as found:
        cases(f"""
facts: {{recipient.customers: 5, recipients.total: 9 to 3}}
cases:
  - {{name: a, expect: relay, hits: [lst], facts: {{message.looks: internl, sender.proven: 5}}}}
  - {{name: b, expect: relay, facts: {{mailing.customers: x, message.topics: 3}}}}
  - {{name: c, expect: relay, facts: {{recipients.lists: [[list]], recipients.total: {"9" * 400}}}}}
""")
    assert [str(p).partition("yaml:")[2] for p in found.value.problems] == [
        '2:9: unknown fact "recipient.customers" (did you mean recipients.customers?)',
        '2:51: invalid value for recipients.total: expected a number, an interval like "0 to 3", or unknown',
        '4:37: unknown rule "lst" (did you mean list?)',
        '4:66: unknown word "internl" (did you mean internal?)',
        "4:90: invalid value for sender.proven: expected true, false or unknown",
        '5:57: invalid value for mailing.customers: expected a number, an interval like "0 to 3", or unknown',
        "5:76: invalid value for message.topics: expected a list of words, or unknown",
        "6:56: invalid value for recipients.lists: expected a list of words, or unknown",
        '6:84: invalid value for recipients.total: expected a number, an interval like "0 to 3", or unknown',
    ]


def test_a_file_without_cases_is_refused() -> None:
    for text in ("", "cases: []", "cases: [{name: a}]", "cases: [{name: a, expect: hodl}]"):
        with pytest.raises(Broken):
            cases(text)
