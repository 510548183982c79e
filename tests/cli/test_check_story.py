"""check plays the story against the policy, and names each shape of it that no rule holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smtpguard.admission.model import Explained
from smtpguard.app.explaining import Explainer
from smtpguard.cli import main
from smtpguard.config.documents import shipped
from smtpguard.mail.message import Message
from tests.cli.installing import running

HEAD = """\
version: 1
organization: {name: Example AB, domains: [example.com], languages: [sv, en]}
groups: {communications: [eva@example.com, omar@example.com]}
approvals: {from: [communications], each: 1}
lists:
  news:
    addresses: [news@lists.example.com]
    members: {csv: news.csv}
    writers: [campaigns@example.com]
    origin: {dkim: campaigns.example.com}
rules:
"""
TO_LIST = "  - {id: to-list, when: {message.looks: [internal, unclear], recipients.list_addresses: any}, then: hold}\n"
HIDDEN = "  - {id: hidden, when: {message.looks: [internal, unclear], recipients.undisclosed: '>= 5'}, then: hold}\n"
MANY = "  - {id: many, when: {message.looks: [internal, unclear], mailing.customers: '>= 20'}, then: hold}\n"
WRITER = "  - {id: writer, when: {recipients.list_addresses: any, sender.is_writer: false}, then: hold}\n"
SAFE = TO_LIST + HIDDEN + MANY + WRITER
LETTER, THREAD, BLIND, SINGLY, CAMPAIGN = (
    "a letter between colleagues to its address", "a thread of colleagues with its address in Cc", "the letter to 60 of its people in Bcc",
    "the letter to 60 of its people one by one", "a campaign that proves no origin",
)  # fmt: skip


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "smtpguard.yaml").write_text(
        'policy: policy.yaml\nnotices: {contact: "it@example.com"}\nalarms: {relay: {host: other.example.com}}\n'
    )
    (tmp_path / "news.csv").write_text("email\n" + "".join(f"c{n}@kund.example\n" for n in range(1000)))
    return tmp_path


def warnings(etc: Path, rules: str, head: str = HEAD, settings: str = "") -> list[str]:
    (etc / "policy.yaml").write_text(head + rules)
    if settings:
        with (etc / "smtpguard.yaml").open("a") as file:
            file.write(settings)
    result = running("check")(etc)
    assert result.exit_code == 0, result.stderr
    return [line.partition("warning: ")[2] for line in result.stderr.splitlines()]


def not_held(*shapes: str) -> list[str]:
    return [f"list news: no rule holds {' or '.join(shapes)}"]


def test_a_policy_that_holds_every_shape_has_no_findings(etc: Path) -> None:
    assert warnings(etc, SAFE) == []


@pytest.mark.parametrize(
    ("rules", "shapes"),
    [
        (TO_LIST, (BLIND, SINGLY, CAMPAIGN)),
        (HIDDEN + MANY + WRITER, ()),
        (MANY + WRITER, ()),
        (TO_LIST + HIDDEN + WRITER, (SINGLY,)),
        (TO_LIST + HIDDEN + MANY, (CAMPAIGN,)),
        (TO_LIST + WRITER + MANY.replace(">= 20", ">= 200"), (BLIND, SINGLY)),
        (TO_LIST + WRITER + MANY.replace(">= 20", ">= 5000"), (BLIND, SINGLY)),
        (SAFE.replace("then: hold", "unless: {sender.internal: true}, then: hold"), (LETTER, THREAD, BLIND, SINGLY, CAMPAIGN)),
    ],
    ids=["only to lists", "other rules hold it", "counted together", "one by one", "unsigned", "too high", "above every list", "true of every colleague"],
)  # fmt: skip
def test_shapes_that_no_rule_holds_are_named(etc: Path, rules: str, shapes: tuple[str, ...]) -> None:
    found = [line for line in warnings(etc, rules) if line.startswith("list news: no rule holds")]
    assert found == (not_held(*shapes) if shapes else [])


def test_an_exception_for_proven_senders_is_named(etc: Path) -> None:
    """On a listener that verifies senders, an exception for proven senders exempts every colleague, and is named."""
    rules = SAFE.replace("then: hold", "unless: {sender.proven: true, sender.internal: true}, then: hold")
    assert warnings(etc, rules) == []
    verified = "listen: {smtp: [{senders_verified: true}]}\n"
    assert warnings(etc, rules, settings=verified) == not_held(LETTER, THREAD, BLIND, SINGLY)


def test_if_every_rule_observes_only_that_is_reported(etc: Path) -> None:
    assert warnings(etc, SAFE.replace("then: hold", "then: hold, mode: observe")) == [
        "every rule only observes: nothing is held"
    ]


def test_its_writer_is_a_colleague_where_domains_are_patterns(etc: Path) -> None:
    head = HEAD.replace("[example.com]", '["*.example.com"]')
    rules = (TO_LIST + HIDDEN + MANY).replace("when: {", "when: {sender.internal: true, ")
    assert [text for text in warnings(etc, rules, head) if LETTER in text] == []


def test_a_list_of_colleagues_is_not_tried(etc: Path) -> None:
    assert warnings(etc, TO_LIST, HEAD.replace("    writers", "    audience: staff\n    writers")) == []


def test_a_rule_for_an_exact_number_is_reported(etc: Path) -> None:
    found = warnings(etc, TO_LIST + WRITER + HIDDEN + MANY.replace("'>= 20'", "20"))
    assert 'rule many hits where mailing.customers is 20, and not where it is more (">= 20")' in found
    assert not_held(SINGLY)[0] in found


def test_a_column_with_one_repeated_person_is_reported(etc: Path) -> None:
    (etc / "news.csv").write_text("email\n" + "anna@kund.example\n" * 6000)
    assert "news.csv: 6,000 rows name 1 person in all: is this the column of addresses?" in warnings(etc, SAFE)


def test_a_domain_of_ours_with_customers_is_reported(etc: Path) -> None:
    (etc / "news.csv").write_text("email\n" + "".join(f"c{n}@bygdens.example\n" for n in range(300)))
    head = HEAD.replace("domains: [example.com]", "domains: [example.com, bygdens.example]")
    (line,) = warnings(etc, SAFE, head)
    assert line.startswith(
        "bygdens.example is one of the organization's domains, and 300 addresses on lists of customers are in it"
    )
    assert warnings(etc, SAFE, head.replace("domains:", "customers_here: true, domains:")) == []
    assert (
        "gmail.com belongs to a mail provider"
        in warnings(etc, SAFE, HEAD.replace("[example.com]", "[example.com, gmail.com]"))[0]
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("trust: [0.0.0.0/0]\n", "0.0.0.0/0 is everybody: whoever connects may say who the client is, and who has logged in"),
        ("expanders: [\"::/0\"]\n", "::/0 is everybody: whoever got a post of a list may send it on as the list server"),
        ("trust: [10.1.2.0/8]\n", '"10.1.2.0/8" has host bits: it is read as 10.0.0.0/8: expected "10.0.0.0/8", or a longer prefix'),
        ("listen: {smtp: [{clients: 10.1.2.0/8}]}\n", '"10.1.2.0/8" has host bits: it is read as 10.0.0.0/8'),
        ("hold: {approve_at: eva@example.com}\n", "eva@example.com is the mailbox of a person in the policy"),
        ("hold: {approve_at: news@lists.example.com}\n", "news@lists.example.com is the address of list news"),
        ("hold: {reply_at: omar@example.com}\n", "omar@example.com is the mailbox of a person in the policy"),
        ("listen: {smtp: [{address: 0.0.0.0, clients: [0.0.0.0/0], senders_verified: true}]}\n",
         "whoever is in 0.0.0.0/0 may send, and is then believed to be whoever From says"),
    ],
)  # fmt: skip
def test_settings_that_trust_everyone_are_reported(etc: Path, settings: str, line: str) -> None:
    assert any(each.startswith(line) for each in warnings(etc, SAFE, settings=settings))


def test_unfindable_terms_are_reported(etc: Path) -> None:
    (etc / "vocabularies").mkdir()
    (etc / "vocabularies/pork.yaml").write_text(
        "groups:\n  - {terms: [bacon, 'ham*'], compound: true}\n  - {terms: a.b baconisar pork, except: [baconisar]}\n"
    )
    found = warnings(etc, SAFE, HEAD.replace("    writers", "    avoid: [pork]\n    writers"))
    assert found == [
        'the term "ham*" can never be found in a text: * stands for itself here, and compound: both finds it in longer words',
        'the term "a.b" can never be found in a text',
        'the term "baconisar" can never be found in a text',
    ]


def test_the_sample_and_the_readmes_policy_have_no_findings(etc: Path) -> None:
    for name in ("policy.yaml", "lists", "vocabularies"):
        source = shipped() / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, etc / name)
    settings = str(etc / "smtpguard.yaml")
    assert CliRunner().invoke(main, ["-c", settings, "check"]).stderr == ""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (etc / "policy.yaml").write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    assert CliRunner().invoke(main, ["-c", settings, "check"]).stderr == ""


def test_similar_lists_are_tried_once(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a hundred lists under the same open rule is named, but only one is played."""
    played: list[object] = []
    explain = Explainer.explain

    async def counting(self: Explainer, message: Message, *rest: Any) -> Explained:
        played.append(message)
        return await explain(self, message, *rest)

    monkeypatch.setattr(Explainer, "explain", counting)
    lists = "".join(
        f"  l{n}: {{addresses: [l{n}@lists.example.com], members: {{csv: news.csv}}}}\n" for n in range(100)
    )
    special = "  special: {addresses: [s@lists.example.com], members: {csv: news.csv}, sensitivity: special-category, approvals: always}\n"
    found = warnings(etc, TO_LIST + HIDDEN + WRITER, HEAD.replace("rules:\n", f"{lists}{special}rules:\n"))
    assert found == not_held(SINGLY) + [
        f"list {name}: no rule holds {SINGLY}" for name in (*(f"l{n}" for n in range(100)), "special")
    ]
    assert len(played) == 15, "news, which has writers, one of the hundred, and the special one, in five shapes"
