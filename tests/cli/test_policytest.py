"""smtpguard test: cases of messages, names that the policy lacks, and the formats of results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from smtpguard.cli import main
from smtpguard.config.documents import shipped
from tests.every import every
from tests.reading.letters import OUTLOOK, STORY, letter

CASES = """\
cases:
  - name: The story, from a file
    message: story.eml
    expect: hold
    hits: [internal-to-list]
    found: {message.looks: internal, recipients.lists: ramadan-greetings, message.unsuitable_topics: [pork, alcohol]}
    quorum: [communications, compliance]
  - name: A few lines of it
    message:
      from: Anna <anna@example.com>
      to: ramadan@lists.example.com
      subject: "SV: Diet"
      text: |
        Hej alla, vem vill ha bacon?

        Den 3 mars skrev Bo <bo@example.com>:
        > Hur går det?
    expect: hold
  - name: The same to one customer
    message: {from: anna@example.com, to: kim@customer.example, text: Hej Kim}
    envelope: {from: bounce@example.com, to: [kim@customer.example], client: 10.0.0.5, login: anna@example.com}
    expect: relay
    found: {sender.proven: true, recipients.lists: []}
  - name: Facts
    facts: {recipients.list_addresses: 1, message.looks: internal, recipients.lists: [newsletter]}
    expect: hold
"""
Run = Callable[..., Result]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    etc = Path(shutil.copytree(shipped(), tmp_path / "etc"))
    (etc / "cases.yaml").write_text(CASES)
    (etc / "story.eml").write_bytes(
        letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten", "To": "ramadan@lists.example.com"}).raw[:]
    )
    return etc


@pytest.fixture
def run(etc: Path) -> Run:
    def run(*words: str, cases: str = "") -> Result:
        if cases:
            (etc / "cases.yaml").write_text(cases)
        return CliRunner().invoke(main, ["-c", str(etc / "smtpguard.yaml"), "test", str(etc / "cases.yaml"), *words])

    return run


def test_cases_with_messages_are_read_as_mail(run: Run) -> None:
    result = run("-v")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-2] == "4 cases, all as expected."
    assert "The story, from a file: hold" in result.stdout


def test_a_policy_alone_needs_no_settings(etc: Path) -> None:
    (etc / "smtpguard.yaml").unlink()
    result = CliRunner().invoke(
        main, ["-c", str(etc / "none.yaml"), "test", "--policy", str(etc / "policy.yaml"), str(etc / "cases.yaml")]
    )
    assert result.exit_code == 0, result.output


@every(
    ("old", "new", "failure"),
    [
        ("expect: relay", "expect: hold", "expected hold, but the verdict is relay (no rule hit)"),
        ("sender.proven: true", "sender.proven: false", "expected sender.proven to be false, but it is true"),
        ("lists: ramadan-greetings", "lists: newsletter", "expected recipients.lists to be newsletter, but it is ramadan-greetings"),
        ("story.eml", "gone.eml", "gone.eml: no such file"),
        ("client: 10.0.0.5", "client: ten", 'client: "ten" is no address'),
        ("to: [kim@customer.example]", "listener: cellar, to: [kim@customer.example]", 'unknown listener "cellar"'),
    ],
)  # fmt: skip
def test_a_failing_case_is_reported(run: Run, old: str, new: str, failure: str) -> None:
    assert old in CASES
    result = run(cases=CASES.replace(old, new, 1))
    assert result.exit_code == 1
    assert failure in result.stdout


@every(
    ("case", "problem"),
    [
        ("facts: {recipients.lists: [newsleter]}", 'unknown list "newsleter" (did you mean newsletter?)'),
        ("facts: {recipients.audience: customer}", 'unknown audience "customer" (did you mean customers?)'),
        ("facts: {message.topics: [prok]}", 'unknown vocabulary "prok" (did you mean pork?)'),
        ("facts: {stream: receipt}", 'unknown stream "receipt" (did you mean receipts?)'),
        ("frozen: {list: newsleter}", 'unknown list "newsleter" (did you mean newsletter?)'),
        ("frozen: {thread: <1@example.com>}", 'unknown key "thread": expected one of list, sender'),
        ("frozen: {}", "frozen names nothing: expected all, {list: NAME} or {sender: ADDRESS}"),
        ("quorum: [comunications]", 'unknown group "comunications" (did you mean communications?)'),
        ("found: {message.looks: internal}", "found is of a message, and there is none"),
        ("message: story.eml, facts: {sender.proven: true}", "a message has facts of its own"),
        ("message: {from: a@example.com, text: a, html: b}", "a text and HTML"),
        ("message: story.eml, counted: {message.looks: 3}", "message.looks is not a count"),
    ],
)
def test_names_that_the_policy_lacks_are_refused(run: Run, case: str, problem: str) -> None:
    result = run(cases=f"cases:\n  - {{name: one, expect: relay, {case}}}\n")
    assert result.exit_code == 2
    assert "cases.yaml:2:" in result.stderr
    assert problem in result.stderr


def test_run_selects_cases(run: Run) -> None:
    assert "1 cases, all as expected." in run("--run", "facts").stdout
    assert "1 cases, all as expected." in run("--run", "the story*").stdout
    result = run("--run", "nothing of the kind")
    assert result.exit_code == 2
    assert 'no case matches "nothing of the kind"' in result.stderr


def test_coverage_names_rules_that_no_case_hits(run: Run) -> None:
    lines = run("--coverage").stdout.splitlines()
    assert "  internal-to-list: 3 cases" in lines
    assert "  reply-storm: 0 cases" in lines
    assert "reply-storm" in lines[-1].partition("never: ")[2]


def test_results_as_json_and_junit(run: Run, etc: Path) -> None:
    broken = CASES.replace("expect: relay", "expect: hold", 1)
    rows = [json.loads(line) for line in run("--format", "json", cases=broken).stdout.splitlines()]
    assert [row["ok"] for row in rows] == [True, True, False, True]
    (line,) = [line for line in run("--format", "github").stdout.splitlines() if line.startswith("::error")]
    assert line == (
        f"::error file={etc}/cases.yaml,line=19,title=The same to one customer::"
        "expected hold%2C but the verdict is relay (no rule hit)"
    )
    run("--junit", str(etc / "results.xml"), "--sarif", str(etc / "results.sarif"))
    (result,) = json.loads((etc / "results.sarif").read_text())["runs"][0]["results"]
    assert result["message"]["text"].startswith("The same to one customer: expected hold")
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 19}
    assert run("--junit", str(etc / "no" / "such.xml")).exit_code == 2
    root = ElementTree.parse(etc / "results.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("4", "1")
    (failure,) = root.iter("failure")
    assert failure.get("message") == "expected hold, but the verdict is relay (no rule hit)"
