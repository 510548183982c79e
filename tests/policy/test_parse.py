"""Parsing the sample policy, and the objects that a policy's documents become, breakers among them."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import BaseModel

from smtpguard.config.documents import digest, policy_documents, shipped
from smtpguard.config.problem import Broken
from smtpguard.config.yaml import load_yaml
from smtpguard.policy.counted import Live
from smtpguard.policy.facts import FACTS, Facts, Source
from smtpguard.policy.grammar import limit
from smtpguard.policy.looser import looser
from smtpguard.policy.models import (
    ApprovalsModel,
    ListModel,
    MarkModel,
    OrganizationModel,
    OriginModel,
    PolicyModel,
    RuleModel,
    StreamModel,
)
from smtpguard.policy.parse import Policy, parse
from smtpguard.policy.schema import policy_schema
from smtpguard.policy.suite import ORDINARY, Case, cases
from smtpguard.policy.verdict import Action, Mode, Quorum
from smtpguard.reading.marks import Side
from tests.every import every
from tests.guard.house import DOCUMENTS, POLICY
from tests.policy.drawn import NOW

SAMPLE = shipped() / "policy.yaml"
SUITES = Path(__file__).parent.parent / "policies"

SMALL = b"""
organization: {domains: [Example.com, "*.example.se"]}
groups: {communications: ["Eva+work@Example.com", omar@example.com], duty: duty@example.com}
approvals: {from: communications, out_of_hours: {from: duty}}
lists:
  news:
    addresses: news@lists.example.com
    members: {csv: news.csv, refresh: 1h}
streams:
  receipts: {from: noreply@example.com, origin: {dkim: shop.example.com}, max: 20 000 in 1h}
rules:
  - {id: one, when: {recipients.list_addresses: any}, then: reject}
"""


def small(text: bytes = SMALL) -> Policy:
    return parse({"policy.yaml": text})


def of_facts(suite: Path, policy: Policy) -> list[Case]:
    return [case for case in cases(load_yaml(suite), policy.rules) if case.model.message is None]


def test_the_sample_policy_passes_its_cases() -> None:
    policy = parse(policy_documents(SAMPLE))
    assert policy.warnings == ()
    observing = {r.rule_id for r in policy.rules.rules if r.mode is Mode.OBSERVE and not r.alarm}
    assert observing == {"very-busy-writer", "labelled-to-private-mailboxes", "several-new-customers-in-an-hour"}
    for suite in sorted(SUITES.glob("*.yaml")):
        failures = {case.name: case.failures(case.verdict(policy.rules)) for case in of_facts(suite, policy)}
        assert not any(failures.values()), failures


def test_every_rule_of_the_sample_is_hit_by_a_case() -> None:
    policy = parse(policy_documents(SAMPLE))
    hit = {
        h.rule
        for suite in SUITES.glob("*.yaml")
        for case in of_facts(suite, policy)
        for h in case.verdict(policy.rules).hits
    }
    assert {r.rule_id for r in policy.rules.rules} <= hit


def test_groups_and_domains_are_canonical() -> None:
    policy = small()
    assert policy.groups.people == {
        "communications": {"eva@example.com", "omar@example.com"},
        "duty": {"duty@example.com"},
    }
    assert policy.organization.domains == {"example.com", "*.example.se"}
    assert policy.organization.name == "example.com"
    assert policy.rules.approvals == Quorum(groups=("communications",), out_of_hours=Quorum(groups=("duty",)))


def test_lists_and_streams_are_declared() -> None:
    lists, streams = small().declared_lists, small().declared_streams
    assert lists["news"].refresh_seconds == 3600
    assert str(lists["news"].addresses[0]) == "news@lists.example.com"
    assert streams["receipts"].max is not None
    assert (streams["receipts"].max.count, streams["receipts"].max.window_seconds) == (20_000, 3600)


def test_networks_of_an_origin_are_as_clients_are_known() -> None:
    """An IPv4 client has its own address, also where the policy writes it as IPv6 maps it."""
    streams = small(
        SMALL.replace(b"{dkim: shop.example.com}", b'{clients: ["::ffff:10.1.2.0/120", 10.0.0.5]}')
    ).declared_streams
    clients = streams["receipts"].origin.clients
    assert clients == (ip_network("10.1.2.0/24"), ip_network("10.0.0.5/32"))


def test_enforce_false_makes_every_rule_observe() -> None:
    policy = small(SMALL + b"enforce: false\n")
    assert not policy.enforce
    assert {r.mode for r in policy.rules.rules} == {Mode.OBSERVE}


def test_the_freeze_answer_comes_from_the_settings() -> None:
    assert parse({"policy.yaml": SMALL}, freeze_answer=Action.DEFER).rules.freeze_answer is Action.DEFER


def test_the_digest_covers_every_document_and_name() -> None:
    one = {"policy.yaml": SMALL, "vocabularies/pork.yaml": b"groups: [{terms: bacon}]"}
    assert parse(one).sha256 == parse(dict(reversed(one.items()))).sha256 == digest(one)
    assert parse(one).rules.sha256 == digest(one)
    others = (
        {**one, "policy.yaml": SMALL + b"#"},
        {**one, "vocabularies/ham.yaml": b"groups: [{terms: ham}]"},
        {"policy.yaml": SMALL},
    )
    assert len({digest(o) for o in (one, *others)}) == 4
    assert digest({"a": b"bc"}) != digest({"ab": b"c"})


def test_an_invalid_vocabulary_is_reported_with_its_place() -> None:
    with pytest.raises(Broken) as found:
        parse(
            {"policy.yaml": SMALL, "vocabularies/pork.yaml": b"groups:\n  - terms: [bacon]\n    inflects: [s]\n"},
            where="etc/policy.yaml",
        )
    (problem,) = found.value.problems
    assert (problem.file, problem.line, problem.column) == ("etc/vocabularies/pork.yaml", 3, 15)


def test_a_vocabulary_with_invalid_yaml_is_one_error() -> None:
    avoiding = SMALL.replace(b"    members:", b"    avoid: [pork]\n    members:")
    with pytest.raises(Broken) as found:
        parse({"policy.yaml": avoiding, "vocabularies/pork.yaml": b"groups: ["})
    assert [p.file for p in found.value.problems] == ["vocabularies/pork.yaml"]


def test_a_policy_of_five_thousand_rules() -> None:
    lines = [
        b"  - {id: r%d, when: {recipients.customers: '>= %d', message.looks: internal}, then: hold}\n" % (n, n + 1)
        for n in range(5000)
    ]
    policy = small(SMALL + b"".join(lines))
    assert len(policy.rules.rules) == 5001


def test_custom_weights_and_marks() -> None:
    text = b"""
marks: {reply-prefix: 0, thread-index: 2.5}
own_marks:
  project-names: {side: internal, weight: 2, pattern: '\\bproject (falcon|heron)\\b'}
"""
    policy = small(SMALL + text)
    assert policy.marks == {"reply-prefix": 0, "thread-index": 2.5}
    (own,) = policy.own_marks
    assert (own.name, own.side, own.weight, own.pattern) == (
        "project-names",
        Side.INTERNAL,
        2,
        r"\bproject (falcon|heron)\b",
    )


def test_an_exception_for_all_is_not_the_condition_on_any() -> None:
    """``unless`` needs all lists: with [news] and another, the condition holds and the exception does not. So the rule
    can hit."""
    text = b"  - {id: two, when: {recipients.lists: news}, unless: {recipients.lists: news}, then: hold}\n"
    assert small(SMALL + text).warnings == ()
    text = b"  - {id: two, when: {recipients.lists: any}, unless: {recipients.lists: any}, then: hold}\n"
    assert ["can never hit" in w.text for w in small(SMALL + text).warnings] == [True]


def test_a_count_that_only_the_usual_bounds_is_warned_about() -> None:
    """Another rule bounds it that is as strict, hits at least that mail, and counts at least these customers."""
    looks, usual = "message.looks: internal", "{at_least: 40, in: 1h, usual: x3}"

    def warned(*rules: str) -> list[str]:
        lines = [f"  - {{id: r{n}, when: {{{when}}}, then: {then}}}\n" for n, rule in enumerate(rules)
                 for when, _, then in [rule.rpartition(" -> ")]]  # fmt: skip
        return [w.text.split()[3] for w in small(SMALL + "".join(lines).encode()).warnings]

    one = f"{looks}, sender.first_contacts: {usual} -> hold"
    assert warned(one, one.replace("1h", "1d")) == ["sender.first_contacts"], "once"
    of_list = f"sender.list_contacts: {usual}, sender.answers: {usual} -> hold"
    assert warned(one, of_list) == ["sender.first_contacts", "sender.list_contacts", "sender.answers"]
    assert warned(f"list.first_contacts: {usual} -> hold") == [], "of all senders"
    for bound in (
        f'{looks}, sender.first_contacts: ">= 200 in 7d" -> hold',
        'sender.first_contacts: ">= 2 in 1d" -> reject',
    ):
        assert warned(one, bound) == []
        assert warned(f"{looks}, {of_list}", bound) == []
    for no_bound in (
        "sender.first_contacts: {at_least: 200, in: 7d, mailing: same} -> hold",
        'sender.list_contacts: ">= 200 in 7d" -> hold',
        'sender.first_contacts: ">= 200 in 7d" -> confirm',
        'message.unfinished: any, sender.first_contacts: ">= 200 in 7d" -> hold',
        'sender.first_contacts: ">= 200 in 7d", mode: observe -> hold',
    ):
        assert warned(one, no_bound.replace(", mode: observe", "}, mode: observe, unless: {stream: any")) == [
            "sender.first_contacts"
        ], no_bound


def test_the_schema_has_every_fact_and_matches_the_models() -> None:
    schema = policy_schema()
    conditions = schema["$defs"]["conditions"]["properties"]
    assert conditions["message.looks"]["anyOf"][0]["enum"] == ["internal", "mailing", "unclear"]
    assert schema["$defs"]["RuleModel"]["properties"]["when"]["$ref"] == "#/$defs/conditions"
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"organization", "approvals"}


def test_the_sample_reads_text_only_if_lists_or_many_are_addressed() -> None:
    """For ordinary mail to an outside address, the sample policy needs only envelope and header."""
    rules = parse(policy_documents(SAMPLE)).rules
    cheap = {n: v for n, v in ORDINARY.items() if FACTS[n].source in (Source.ENVELOPE, Source.HEADERS)}
    plan = rules.plan(Facts(values=cheap))
    assert plan.pending == frozenset()
    assert plan.close(Live(now=NOW)).action is Action.RELAY, "the verdict needs no count"


@every(
    "model", [PolicyModel, OrganizationModel, ApprovalsModel, OriginModel, ListModel, StreamModel, MarkModel, RuleModel]
)
def test_the_reference_names_every_key(model: type[BaseModel]) -> None:
    reference = (Path(__file__).parents[2] / "docs/policy.md").read_text()
    keys = {field.alias or name for name, field in model.model_fields.items()}
    assert [key for key in keys if not re.search(rf"`{key}`|\b{key}:", reference)] == []


@every(
    ("text", "counted", "people", "trips"),
    [
        (">= 0.1% after 500", 1, 499, False), (">= 0.1% after 500", 1, 500, True), (">= 0.1% after 500", 1, 1000, True),
        (">= 0.1% after 500", 1, 1001, False), (">= 0.1%", 400, 400_000, True), (">= 0.1%", 399, 400_000, False),
        (">= 20 in 10m", 19, 10, False), (">= 20 in 10m", 20, 0, True), (">= 20 after 5", 20, 4, False), (">= 5%", 0, 0, False),
        (">= 20 in 2h 30m after 5", 20, 5, True), (">= 20 in 10 minutes", 20, 5, True),
    ],
)  # fmt: skip
def test_a_limit_is_exact(text: str, counted: int, people: int, trips: bool) -> None:
    assert limit(text).trips(counted, people) is trips


@every(
    ("before", "after", "told"),
    [
        ("complaints: '>= 0.1% after 500'", "complaints: '>= 0.05% after 400'", []),
        ("complaints: '>= 20 in 10m'", "complaints: '>= 20'", []),
        ("complaints: '>= 20'", "complaints: '>= 20 in 10m'", ["breakers.complaints: >= 20 in 10m, where it was >= 20"]),
        ("complaints: '>= 20'", "complaints: '>= 5%'", ["breakers.complaints: >= 5%, where it was >= 20"]),
        ("complaints: '>= 20'", "bounces: '>= 20'", ["breakers.complaints: removed"]),
        ("complaints: '>= 20', stops: lists", "complaints: '>= 20'", ["breakers.stops: mailing, where it was lists"]),
        ("stops: lists", "replies: '>= 3'", []),
    ],
)  # fmt: skip
def test_a_breaker_that_trips_later_is_looser(before: str, after: str, told: list[str]) -> None:
    old, new = (
        parse({**DOCUMENTS, "policy.yaml": f"{POLICY}breakers: {{{text}}}\n".encode()}) for text in (before, after)
    )
    assert [each.text for each in looser(old, new)] == told


@every(
    ("before", "after", "told"),
    [
        ("{bounces: '>= 5%'}", "{bounces: '>= 3%'}", []),
        ("{bounces: '>= 5%'}", "", ["list ramadan: breakers.bounces: >= 50%, where it was >= 5%"]),
        ("", "{bounces: '>= 60%'}", ["list ramadan: breakers.bounces: >= 60%, where it was >= 50%"]),
        ("{stops: lists}", "{stops: mailing}", ["list ramadan: breakers.stops: mailing, where it was lists"]),
        ("{replies: '>= 3'}", "{bounces: '>= 50%'}", ["list ramadan: breakers.replies: removed"]),
    ],
)
def test_a_lists_breaker_that_trips_later_is_looser(before: str, after: str, told: list[str]) -> None:
    old, new = (parse({**DOCUMENTS, "policy.yaml": of_a_list(text).encode()}) for text in (before, after))
    assert [each.text for each in looser(old, new)] == told


def of_a_list(text: str) -> str:
    own = f"  ramadan:\n    breakers: {text}\n" if text else "  ramadan:\n"
    return POLICY.replace("  ramadan:\n", own) + "breakers: {bounces: '>= 50%'}\n"


def test_a_lists_breaker_replaces_the_policys() -> None:
    policy = parse({**DOCUMENTS, "policy.yaml": of_a_list("{replies: '>= 3', stops: lists}").encode()})
    own = policy.breakers_of(["ramadan"])
    assert [(one.name, one.limit.text) for one in own.each] == [("bounces", ">= 50%"), ("replies", ">= 3")]
    assert (own.lists, policy.breakers.lists) == (True, False)
