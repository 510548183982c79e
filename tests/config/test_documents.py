"""A policy of several files is read as one, and each problem names its file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtpguard.config.documents import (
    MAIN_ONLY,
    MAPPINGS,
    SEQUENCES,
    policy_document,
    policy_documents,
    shipped,
    vocabulary_names,
)
from smtpguard.config.problem import Broken
from smtpguard.policy.looser import looser
from smtpguard.policy.models import PolicyModel
from smtpguard.policy.parse import parse
from tests.every import every

OWN = b"""organization: {domains: [example.com]}
groups: {communications: [eva@example.com]}
approvals: {from: communications}
lists:
  news: {addresses: [news@lists.example.com], members: {csv: news.csv}}
rules:
  - {id: one, when: {recipients.list_addresses: any}, then: hold}
"""
DUTY = b"""groups: {duty: [dm@example.com]}
rules:
  - {id: two, when: {recipients.customers: ">= 20"}, then: hold}
"""
OFFERS = b"""title: Offers
addresses: [offers@lists.example.com]
members: {csv: offers.csv}
approvals: {from: [duty]}
"""
WHOLE = {"policy.yaml": OWN, "policy.d/10-duty.yaml": DUTY, "lists.d/offers.yaml": OFFERS}


def test_the_files_of_a_folder_are_the_policy(tmp_path: Path) -> None:
    for name, data in WHOLE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    documents = policy_documents(tmp_path / "policy.yaml")
    assert WHOLE.items() <= documents.items()
    policy = parse(documents)
    assert [rule.rule_id for rule in policy.rules.rules] == ["one", "two"]
    assert sorted(policy.lists) == ["news", "offers"]
    assert policy.lists["offers"].title == "Offers"
    assert sorted(policy.groups) == ["communications", "duty"]


def test_each_part_keeps_its_file_and_line() -> None:
    document = policy_document(WHOLE, "/etc/smtpguard/policy.yaml")
    assert str(document.problem(("rules", 1, "then"), "x")) == "/etc/smtpguard/policy.d/10-duty.yaml:3:60: x"
    assert str(document.problem(("lists", "offers", "title"), "x")) == "/etc/smtpguard/lists.d/offers.yaml:1:8: x"
    assert str(document.problem(("rules", 0, "then"), "x")).startswith("/etc/smtpguard/policy.yaml:7:")


@every(
    ("part", "text", "problems"),
    [
        ("policy.d/a.yaml", b"rules:\n  - {id: two, when: {recipients.customers: any}, then: hodl}\n",
         ["policy.d/a.yaml:2:56: unknown action \"hodl\" (did you mean hold?)"]),
        ("policy.d/a.yaml", b"groups: {communications: [bo@example.com]}\n",
         ["policy.d/a.yaml:1:10: communications of groups is already declared in policy.yaml: expected another name"]),
        ("policy.d/a.yaml", b"approvals: {from: duty}\n",
         ["policy.d/a.yaml:1:1: approvals is allowed only in the policy's main file: expected one of groups, people, previews, lists, streams, marks, own_marks, rules, expansions"]),
        ("policy.d/a.yaml", b"rules: {id: two}\n", ["policy.d/a.yaml:1:8: rules is not a list: expected a list"]),
        ("policy.d/a.yaml", b"- one\n", ["policy.d/a.yaml:1:1: no mapping: expected sections, as in the policy's own file"]),
        ("policy.d/a.yaml", b"rules: [\n", ["policy.d/a.yaml:2:1: "]),
        ("policy.d/a.yaml", b"rules:\n  - {id: one, when: {recipients.customers: any}, then: hold}\n",
         ["policy.d/a.yaml:2:10: duplicate rule \"one\": first in policy.yaml, line 7: expected another id"]),
        ("policy.d/a.yaml", b"ruels: []\n", ["policy.d/a.yaml:1:1: unknown key \"ruels\" (did you mean rules?)"]),
        ("policy.d/a.yaml", b"reply_votes: {people: 9}\n", ["policy.d/a.yaml:1:1: reply_votes is allowed only in the policy's main file"]),
        ("lists.d/news.yaml", b"title: News\n", ["lists.d/news.yaml:1:1: list news is already declared in policy.yaml: expected another name"]),
        ("lists.d/more.yaml", b"adresses: [a@lists.example.com]\n", ["lists.d/more.yaml:1:1: unknown key \"adresses\""]),
    ],
)  # fmt: skip
def test_an_error_is_reported_in_its_own_file(part: str, text: bytes, problems: list[str]) -> None:
    with pytest.raises(Broken) as broken:
        parse({"policy.yaml": OWN, part: text})
    found = [str(problem) for problem in broken.value.problems if problem.fatal]
    assert len(found) >= len(problems)
    for expected in problems:
        assert any(each.startswith(expected) for each in found), found


def test_a_pipe_is_no_part_of_a_policy(tmp_path: Path) -> None:
    """Opening it would wait for somebody to write."""
    (tmp_path / "policy.yaml").write_bytes(OWN)
    (tmp_path / "lists.d").mkdir()
    os.mkfifo(tmp_path / "lists.d/news.yaml")
    with pytest.raises(Broken, match=r"lists\.d/news\.yaml:1:1: a pipe or device: expected a file"):
        policy_documents(tmp_path / "policy.yaml")


def test_every_section_of_a_policy_is_known() -> None:
    assert {*MAPPINGS, *SEQUENCES, *MAIN_ONLY} == PolicyModel.model_fields.keys()


def test_a_looser_change_is_reported_in_its_file() -> None:
    changed = {**WHOLE, "policy.d/10-duty.yaml": DUTY.replace(b">= 20", b">= 200")}
    (found,) = looser(parse(WHOLE), parse(changed), where="policy.yaml")
    assert (found.file, found.line) == ("policy.d/10-duty.yaml", 3)


def test_an_empty_part_is_ignored_and_expansions_are_joined() -> None:
    own = OWN + b"expansions: {aliases: aliases, domains: [example.com]}\n"
    document = policy_document(
        {
            "policy.yaml": own,
            "policy.d/a.yaml": b"# nothing yet\n",
            "policy.d/b.yaml": b"expansions: [{virtual: virtual}]\n",
        }
    )
    assert document.value["expansions"] == [{"aliases": "aliases", "domains": ["example.com"]}, {"virtual": "virtual"}]
    assert str(document.problem(("expansions", 1, "virtual"), "x")).startswith("policy.d/b.yaml:1:24")
    assert str(document.problem(("expansions", 0, "aliases"), "x")).startswith("policy.yaml:8:")


def test_a_vocabulary_beside_the_policy_replaces_the_products(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_bytes(b"version: 1\n")
    (tmp_path / "vocabularies").mkdir()
    (tmp_path / "vocabularies/pork.yaml").write_bytes(b"ours")
    (tmp_path / "vocabularies/weapons.yaml").write_bytes(b"more")
    (tmp_path / "vocabularies/notes.txt").write_bytes(b"no vocabulary")
    documents = policy_documents(tmp_path / "rules.yaml")
    assert documents["policy.yaml"] == b"version: 1\n"
    assert documents["vocabularies/pork.yaml"] == b"ours"
    assert documents["vocabularies/alcohol.yaml"] == (shipped() / "vocabularies/alcohol.yaml").read_bytes()
    product = {path.stem for path in (shipped() / "vocabularies").glob("*.yaml")}
    assert {"alcohol", "pork"} <= product
    assert set(vocabulary_names(documents)) == product | {"weapons"}


def test_a_missing_policy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="cannot be read: No such file"):
        policy_documents(tmp_path / "policy.yaml")
    (tmp_path / "policy.yaml").mkdir()
    with pytest.raises(Broken, match="cannot be read: Is a directory"):
        policy_documents(tmp_path / "policy.yaml")
