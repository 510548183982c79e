"""incident report over the story, as the guard recorded it."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import sys
import zlib
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smtpguard.cli import main
from smtpguard.holds.model import Choice
from smtpguard.incidents import report
from smtpguard.journal.event import Event, Kind
from tests.cli.installing import install, running
from tests.every import every
from tests.guard.house import DOCUMENTS, KEY, MEMBERS, RAMADAN, FakePassage, house
from tests.journal.chaining import NOTHING_ELSE

run = running("incident", "report")

HOLD = "T000000000000001"


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """An installation with a message held for a list of 60, a vote on it, its retry by the client, and an ordinary
    message."""
    install(tmp_path, KEY)

    async def work() -> None:
        async with house(tmp_path) as home:
            intake = home.intake()
            await intake(home.transaction(RAMADAN), FakePassage())
            home.clock.pass_(minutes=5)
            await intake(home.transaction(RAMADAN), FakePassage())
            await intake(
                home.transaction("otto@partner.example", Subject="Drawings", Message_ID="<2@example.com>"),
                FakePassage(),
            )
            await home.approvals().vote(
                HOLD, Choice.REJECT, approver="eva@example.com", by="eva", comment="Not to them, r\udce4ks"
            )

    asyncio.run(work())
    return tmp_path


def people(n: int) -> dict[str, Any]:
    """The JSON of an exact number of people."""
    return {"people": n, "at_least": False, "at_most": False, "least": n, "most": n}


def page(story: Path, *args: str) -> str:
    result = run(story, *args)
    assert result.exit_code == 0, result.output
    return result.stdout


def row(story: Path, *args: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(page(story, *args, "--json"))
    return made


def test_the_page_says_who_what_when_and_to_how_many(story: Path) -> None:
    said = page(story, HOLD)
    for line in (
        f"About: {HOLD}",
        "1 message came on Monday 2 March 2026 between 09:00 and 09:05 (UTC). None of it was sent through this guard.",
        "  1 message, for 60 people: rejected by people: not sent",
        "  one retry of a message that was already held, counted as the same message",
        "  From: anna@example.com",
        f"  what it said: smtpguard held export {HOLD}, kept until 2026-04-01 09:00:00 UTC at least",
        "  subject: SV: lunch",
        "  list: ramadan (Ramadan greetings; audience customers; religion: special category (GDPR Art. 9))",
    ):
        assert any(each.startswith(line) for each in said.splitlines()), f"{line!r} is not in\n{said}"
    assert "the journal is whole: all" in said
    assert f'{HOLD}  A vote: reject, by eva@example.com: "Not to them, r\ufffdks"' in said
    assert "Drawings" not in said


def test_the_report_as_json(story: Path) -> None:
    made = row(story, HOLD)
    assert made["about"] == [HOLD]
    assert made["proof"] == {"ok": True, "entries": made["journal"]["seq"], "first_bad": None, **NOTHING_ELSE}
    assert (made["messages"], made["again"], made["open"]["messages"]) == (1, 1, 0)
    assert made["ends"] == [{"end": "declined", "messages": 1, **people(60)}]
    assert made["writers"][0] == {"role": "From", "address": "anna@example.com", "messages": 1}
    seqs = [step["seq"] for step in made["timeline"]]
    assert seqs == sorted(seqs)
    assert {"verdict", "vote", "rejected"} <= {step["kind"] for step in made["timeline"]}
    assert not any("recipients" in (step["private"] or {}) for step in made["timeline"])


NAMING = ("anna@example.com", "eva@example.com", "lunch", "Not to them", "192.0.2.1", MEMBERS[0])


def test_without_names_no_person_is_named(story: Path) -> None:
    for args in ([HOLD], [HOLD, "--json"], ["--sender", "anna@example.com"], ["--subject", "lunch", "--json"]):
        named, unnamed = page(story, *args), page(story, *args, "--no-names")
        assert "anna@example.com" in named
        assert [name for name in NAMING if name in unnamed] == []
        assert "amadan" in named
        assert not re.search("ramadan|religion", unnamed, re.IGNORECASE), "a list of a special category (GDPR Art. 9)"


def test_a_report_with_names_is_journalled(story: Path) -> None:
    before = row(story, HOLD, "--no-names")["journal"]["seq"]
    assert row(story, HOLD, "--no-names")["journal"]["seq"] == before
    assert row(story, HOLD)["journal"]["seq"] == before + 1
    exported = CliRunner().invoke(
        main, ["-c", str(story / "smtpguard.yaml"), "audit", "export", "--after", str(before)]
    )
    entry = json.loads(exported.stdout)
    assert (entry["kind"], entry["data"]) == ("exported", {"what": "incident report", "about": [HOLD]})


@every(
    ("args", "messages"),
    [
        (["--sender", "ANNA@example.com"], 2),
        (["--subject", "drawings"], 1),
        (["--subject", "LUNCH"], 1),
        (["--list", "ramadan"], 1),
        (["--since", "2026-03-02"], 2),
        (["--since", "2026-03-02 10:03+01:00"], 2),
        (["--until", "2026-03-02T09:01:00"], 1),
        (["--since", "30000d"], 2),
    ],
)
def test_valid_queries_find_messages(story: Path, args: list[str], messages: int) -> None:
    assert row(story, *args)["messages"] == messages


WRONG = {
    (): "give an ID, --list, --sender, --subject, or --since",
    (
        "--since",
        "blah",
    ): '--since: invalid time "blah"; expected one like "2026-11-26 09:30" in UTC, or "2h" for so long ago',
    ("--until", "2026-13-01"): '--until: invalid time "2026-13-01"',
}


@every("args", list(WRONG))
def test_wrong_use_is_an_error(story: Path, args: tuple[str, ...]) -> None:
    result = run(story, *args)
    assert result.exit_code == 2
    assert WRONG[args] in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_too_many_messages_are_an_error(story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST", 1)
    result = run(story, "--since", "2026-03-02")
    assert result.exit_code == 2
    assert result.stderr == "smtpguard: more than 1 messages fit: ask for less at a time\n"


@every("word", [HOLD.lower(), "1@example.com", "<1@example.com>"])
def test_a_message_is_found_by_each_of_its_names(story: Path, word: str) -> None:
    assert row(story, word)["about"] == [HOLD]


@every(
    ("asked", "said"),
    [
        (("T0000000",), f"T0000000 is ambiguous: {HOLD}, T000000000000002, T000000000000003"),
        ((HOLD, "T0000000"), f"T0000000 is ambiguous: {HOLD}, T000000000000002, T000000000000003"),
        (("9@example.com",), "nothing in the journal matches; nothing has the name 9@example.com"),
        (("--list", "ramadn"), "nothing in the journal matches; the policy in force has no list ramadn (did you mean ramadan?)"),
        (("--list", "ramadan", "--list", "ramadn"), "the policy in force has no list ramadn (did you mean ramadan?)"),
        (("--list", "ramadan", "--since", "2026-03-03"), "nothing in the journal matches"),
        (("--sender", "anna"), "nothing in the journal matches; not an address: anna (did you mean anna@example.com?)"),
        (("--sender", "ana@example.com"), "nothing in the journal matches; nothing has come from ana@example.com recently (did you mean "
         "anna@example.com?)"),
        (("--sender", "zz@elsewhere.example"), "nothing in the journal matches"),
        (("--sender", "anna@exmaple.com", "--no-names"), "nothing in the journal matches; nothing has come from anna@exmaple.com recently "
         "(did you mean anna@example.com?)"),
        (("--sender", "anna@example.com", "--since", "2026-03-03"), "nothing in the journal matches"),
    ],
)  # fmt: skip
def test_an_impossible_query_is_explained(story: Path, asked: tuple[str, ...], said: str) -> None:
    result = run(story, *asked)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"smtpguard: {said}\n")


def test_relayed_mail_beside_decided_mail_is_named_as_undecided(story: Path) -> None:
    said = "mail that passed at once needed no decision: no enforced rule stopped it"
    assert said in page(story, "--since", "2026-03-02")
    assert said not in page(story, HOLD)


def test_an_altered_journal_is_reported_first(story: Path) -> None:
    with closing(sqlite3.connect(story / "guard.db")) as connection, connection:
        connection.execute("UPDATE entry SET body = replace(body, 'hold', 'gold') WHERE seq = 2")
    connection.close()
    result = run(story, "--subject", "drawings")
    assert result.exit_code == 1
    assert "Proof: THE JOURNAL WAS ALTERED: entry 2: edited" in result.stdout.splitlines()[2]
    assert run(story, "--subject", "drawings", "--no-proof").exit_code == 0


def test_control_characters_of_a_message_are_not_printed(story: Path) -> None:
    async def work() -> None:
        async with house(story) as home:
            transaction = home.transaction("otto@partner.example", Subject="Red \x1b[31malert", id="X" * 16)
            await home.intake()(transaction, FakePassage())

    asyncio.run(work())
    said = page(story, "X" * 16)
    assert "alert" in said
    assert "\x1b" not in said


def test_a_report_without_the_old_policy_says_so(story: Path) -> None:
    lost = "it is no longer kept, or this version cannot read it"
    assert row(story, HOLD)["rules"][0]["purpose"] == "Mail between colleagues never goes to a customer list"
    assert [policy["known"] for policy in row(story, HOLD)["policies"]] == [True]
    assert lost not in page(story, HOLD)
    for change in ("UPDATE document SET data = x'00'", "DELETE FROM document"):
        with closing(sqlite3.connect(story / "guard.db")) as connection, connection:
            connection.execute(change)
        connection.close()
        said = page(story, HOLD).splitlines()
        assert any(line.startswith("  rule internal-to-list  [fact: ") for line in said)
        assert [line.endswith(f"{lost}  [unknown]") for line in said].count(True) == 1
        made = row(story, HOLD)
        assert made["rules"][0] | {"purpose": None} == made["rules"][0]
        assert [policy["known"] for policy in made["policies"]] == [False]


def test_an_earlier_versions_entry_does_not_show_a_frozen_senders_name(story: Path) -> None:
    """The chained entry cannot be changed, but ``--no-names`` hides the name."""

    async def work() -> None:
        async with house(story) as home:
            why = {"rule": "freeze", "fact": "freeze", "observed": "sender anna@example.com", "limit": ""}
            data = {"action": "hold", "hold": "H" * 16, "rules": ["freeze"], "reasons": [why]}
            await home.store.journal.record([Event(kind=Kind.VERDICT, id="H" * 16, at=home.clock.now(), data=data)])

    asyncio.run(work())
    assert "what is frozen: mail from anna@example.com" in page(story, "H" * 16)
    for args in ([], ["--json"]):
        told = page(story, "H" * 16, "--no-names", *args)
        assert ("sender" if args else "what is frozen: mail from") in told
        assert "anna@" not in told


def test_who_is_named_in_an_earlier_versions_reply_is_not_shown(story: Path) -> None:
    async def work() -> None:
        async with house(story) as home:
            reply = f"550 5.1.1 <{MEMBERS[0]}>: unknown"
            names = {"actor": ("eva@example.com",), "comment": (reply,)}
            for kind, data in (
                (Kind.OUTCOME, {"outcome": "refused", "replies": [reply]}),
                (Kind.RELEASE, {"outcome": "failed"}),
            ):
                one = Event(kind=kind, id=HOLD, at=home.clock.now(), data=data, private=names)
                await home.store.journal.record([one])

    asyncio.run(work())
    told = page(story, HOLD, "--json")
    assert MEMBERS[0] not in told
    outcome, release = (step for step in json.loads(told)["timeline"] if step["kind"] in ("outcome", "release"))
    assert outcome["data"]["replies"] == release["private"]["comment"] == ["550 5.1.1 <...>: unknown"]
    assert release["private"]["actor"] == ["eva@example.com"]


policy = running("audit", "policy")


def test_the_policy_of_that_time_is_printed_verbatim(story: Path) -> None:
    [decided] = row(story, HOLD)["policies"]
    shown = policy(story, decided["sha256"][:8].upper())
    assert (shown.exit_code, shown.stdout) == (0, DOCUMENTS["policy.yaml"].decode())
    made = json.loads(policy(story, decided["sha256"], "--all", "--json").stdout)
    assert made == {"sha256": decided["sha256"], "documents": {n: d.decode() for n, d in DOCUMENTS.items()}}
    assert "# vocabularies/pork.yaml" in policy(story, decided["sha256"], "--all").stdout


@every("wanted", ["0123456789abcdef", "%", ""])
def test_an_unknown_policy_is_an_error(story: Path, wanted: str) -> None:
    result = policy(story, wanted)
    assert (result.exit_code, result.stderr) == (
        1,
        f"smtpguard: no policy is kept under {wanted}: smtpguard policy history lists those that are\n",
    )


def test_the_report_names_deciders_and_lists(story: Path) -> None:
    said = page(story, HOLD)
    who = said.partition("WHO DECIDED\n")[2].partition("\n\n")[0]
    assert 'A vote: reject, by eva@example.com: "Not to them, r\ufffdks"' in who
    assert who.startswith("  2026-03-02 09:05:00 UTC: ")
    assert (
        "\n  list: ramadan (Ramadan greetings; audience customers; religion: special category (GDPR Art. 9))  [fact: "
        in said
    )
    unnamed = page(story, HOLD, "--no-names").partition("WHO DECIDED\n")[2].partition("\n\n")[0]
    assert "A vote: reject" in unnamed
    assert "eva@" not in unnamed
    made = row(story, HOLD)
    assert [step["kind"] for step in made["decisions"]] == ["vote", "rejected"]
    assert made["lists"] == [
        {"name": "ramadan", "messages": 1, "title": "Ramadan greetings", "audience": "customers",
         "sensitivity": "special-category", "category": "religion", "reached": people(0), "perhaps": people(0)}
    ]  # fmt: skip
    assert (made["zone"], made["policies"][0]["enforced"]) == ("UTC", True)


def test_an_observing_guard_is_named_and_times_have_the_local_zone(tmp_path: Path) -> None:
    install(tmp_path, KEY)
    text = (
        DOCUMENTS["policy.yaml"].decode().replace("enforce: true", "enforce: false").replace("UTC", "Europe/Stockholm")
    )

    async def work() -> None:
        async with house(tmp_path, documents={**DOCUMENTS, "policy.yaml": text.encode()}) as home:
            await home.send(RAMADAN)
            await home.store.journal.record([])

    asyncio.run(work())
    said = page(tmp_path, "--subject", "lunch")
    assert "came on Monday 2 March 2026 at 10:00 (CET). 1 message went out, to 60 people." in said
    assert ": it only observed and stopped nothing" in said
    assert "let through, for 60 people, rule internal-to-list (observes)" in said
    assert "WHEN, IN NUMBERS (UTC, EUROPE/STOCKHOLM)" in said
    assert "  2026-03-02 09:00:00  10:00:00  " in said
    assert "no decision was needed: no enforced rule stopped it" in said
    made = row(tmp_path, "--subject", "lunch")
    assert (made["zone"], [one["enforced"] for one in made["policies"]]) == ("Europe/Stockholm", [False])


def test_every_statement_is_marked_fact_or_unknown(story: Path) -> None:
    made = row(story, HOLD)
    every = [*made["paragraph"], *(one for part in made["sections"] for one in part["statements"])]
    assert {one["mark"] for one in every} == {"fact", "unknown"}
    last = made["journal"]["seq"]
    assert all(0 < seq <= last for one in every for seq in one["entries"])
    by_part = {part["key"]: [one["text"] for one in part["statements"]] for part in made["sections"]}
    assert list(by_part) == [
        "became",
        "mailings",
        "who",
        "way",
        "what",
        "decided",
        "speed",
        "why",
        "missed",
        "policy",
        "authority",
        "unknown",
    ]
    said = " ".join(one["text"] for one in made["paragraph"])
    assert (
        "It was stopped on arrival: a rule stopped it, \N{LEFT DOUBLE QUOTATION MARK}Mail between colleagues never goes to a customer list"
        in said
    )
    assert said.endswith("Nothing in the journal points to an intrusion. Nothing proves who wrote it.")
    assert "no login, client 192.0.2.1, HELO mx.example.com, without TLS" in by_part["way"]
    assert (
        "internal-to-hidden-members: customers whom neither To nor Cc shows: 0, and it asks for at least 5: it missed by 5"
        in by_part["missed"]
    )
    assert "it is not on record that eva@example.com had looked at it before" in by_part["decided"]


def test_all_formats_have_the_same_statements(story: Path, tmp_path: Path) -> None:
    plain, made, html = page(story, HOLD), row(story, HOLD), page(story, HOLD, "--format", "html")
    shown = " ".join(re.sub(r"<[^>]*>", " ", unescape(html)).split())
    for part in made["sections"]:
        for one in part["statements"]:
            assert one["text"] in plain
            if "entry" not in one["text"]:  # the proof is of the journal when each report was made
                assert " ".join(one["text"].split()) in shown, one["text"]
    assert not re.search(r"(?:src|href|url)\s*[=(]", html), "it loads nothing from elsewhere"
    again = tmp_path / "report.html"
    assert page(story, HOLD, "--format", "html", "--output", str(again)) == ""
    assert again.stat().st_mode & 0o777 == 0o600
    assert "<h1>Incident report</h1>" in again.read_text()
    refused = run(story, HOLD, "--output", str(again))
    assert (refused.exit_code, "File exists" in refused.stderr) == (2, True)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # for a file that the library leaves to the garbage collector
def test_a_pdf_is_one_archivable_file(story: Path, tmp_path: Path) -> None:
    pytest.importorskip("weasyprint")
    file = tmp_path / "report.pdf"
    page(story, HOLD, "--format", "pdf", "--output", str(file))
    made = file.read_bytes()
    assert made.startswith(b"%PDF-1.7")
    streams = [zlib.decompressobj() for _ in range(made.count(b"\nstream\n"))]
    packed = [part.partition(b"\nendstream")[0] for part in made.split(b"\nstream\n")[1:]]
    plain = b"".join(one.decompress(part) for one, part in zip(streams, packed, strict=True) if part[:1] == b"x")
    assert b"pdfaid:part" in made + plain, "the metadata names PDF/A"
    assert b"/FontFile" in made + plain, "its fonts are embedded"


def test_without_the_pdf_extra_the_package_is_named(story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    result = run(story, HOLD, "--format", "pdf", "--output", str(story / "report.pdf"))
    assert (result.exit_code, result.stderr) == (
        2,
        "smtpguard: a PDF needs the extra pdf: pip install 'smtpguard[pdf]'\n",
    )
    assert not (story / "report.pdf").exists()
