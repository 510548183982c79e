"""smtpguard explain for people and as JSON: of files, folders, mboxes and standard input; without any effect."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from smtpguard.config.documents import shipped
from tests.cli.installing import running
from tests.cli.stage import rows
from tests.reading.letters import OUTLOOK, STORY, letter

KEYS = {
    "file", "action", "hits", "misses", "skipped", "unknown", "looks", "score", "marks", "recipients", "topics", "quorum", "policy_sha256",
}  # fmt: skip
RAMADAN = "ramadan@lists.example.com"
Run = Callable[..., Result]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A folder with the shipped configuration and a resolver that never answers."""
    folder = Path(shutil.copytree(shipped(), tmp_path / "etc"))
    with (folder / "smtpguard.yaml").open("a") as file:
        file.write("\nresolver: {nameservers: [127.0.0.1], timeout_seconds: 1}\n")
    return folder


@pytest.fixture
def run(etc: Path) -> Run:
    return partial(running("explain"), etc)


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.eml"
    path.write_bytes(letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten", "To": RAMADAN}).raw[:])
    return path


@pytest.fixture
def quote(tmp_path: Path) -> Path:
    path = tmp_path / "quote.eml"
    path.write_bytes(
        letter("Hej Kim,\n\noffert bifogas.\n\nMvh\nAnna\n", {**OUTLOOK, "To": "kim@customer.example"}).raw[:]
    )
    return path


def test_the_story_is_explained_in_words(run: Run, story: Path) -> None:
    result = run(str(story))
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"{story}: HOLD"
    assert "It would reach 60 people, on ramadan-greetings." in lines[2]
    in_english = "  Rule internal-to-list (hold): Mail between colleagues never goes to a customer list"
    assert in_english in lines
    at = lines[lines.index(in_english) + 1].strip()
    file, _, line = at.removeprefix("at ").rpartition(":")
    assert "id: internal-to-list" in Path(file).read_text().splitlines()[int(line) - 1]
    assert any(line.strip().startswith("+3.5") and "colleague-quoted" in line for line in lines)
    assert any('Topic pork: "baconsvarv" in the text: ' in line and "baconsvarv till frukost" in line for line in lines)
    assert any("1 of communications and 1 of compliance" in line for line in lines)


@pytest.mark.parametrize("name", ["iftar", "few"])
def test_what_expands_at_the_relay_is_known_before_the_first_start(run: Run, etc: Path, story: Path, name: str) -> None:
    """A list under another name, and one name for three of its people."""
    people = [line for line in (etc / "lists/ramadan.csv").read_text().splitlines() if "@" in line]
    three = ", ".join(line.split(",")[1] for line in people[:3])
    (etc / "aliases").write_text(f"iftar: {RAMADAN}\nfew: {three}\n")
    with (etc / "policy.yaml").open("a") as policy:
        policy.write("\nexpansions: [{aliases: aliases, domains: [example.com]}]\n")
    (row,) = rows(run("--json", "--to", f"{name}@example.com", str(story)))
    assert row["recipients"]["reach"] == {"iftar": 60, "few": 3}[name]
    assert ("internal-to-list" in {hit["rule"] for hit in row["hits"]}) is (name == "iftar")


def test_lists_in_use_are_used_beside_what_has_no_index_yet(run: Run, etc: Path, story: Path) -> None:
    """As when ``expansions`` is new in the file, and a list's source is away."""
    assert running("lists")(etc, "sync").exit_code == 0
    (etc / "lists/ramadan.csv").unlink()
    (etc / "aliases").write_text(f"iftar: {RAMADAN}\n")
    with (etc / "policy.yaml").open("a") as policy:
        policy.write("\nexpansions: [{aliases: aliases, domains: [example.com]}]\n")
    before = {file: file.stat().st_mtime_ns for file in (etc / "var").rglob("*")}
    (row,) = rows(run("--json", "--to", "iftar@example.com", str(story)))
    assert row["recipients"]["reach"] == 60
    assert {file: file.stat().st_mtime_ns for file in (etc / "var").rglob("*")} == before


def test_the_story_is_explained_as_json(run: Run, story: Path) -> None:
    (row,) = rows(run("--json", str(story)))
    assert row.keys() == KEYS
    assert row["action"] == "hold"
    assert row["looks"] == "internal"
    assert {"rule", "at", "action", "mode", "reason"} == row["hits"][0].keys()
    assert {t["vocabulary"] for t in row["topics"]} >= {"pork", "alcohol"}
    assert row["recipients"] == {
        "total": 1, "internal": 0, "outside": 0, "members": 0, "list_addresses": 1, "undisclosed": 0, "reach": 60, "lists": ["ramadan-greetings"],
    }  # fmt: skip
    assert row["quorum"] == [{"from": ["communications", "compliance"], "each": 1}]


def test_an_ordinary_mail_passes(run: Run, quote: Path) -> None:
    (row,) = rows(run("--json", "--expect", "relay", str(quote)))
    assert row["action"] == "relay"
    assert row["hits"] == []
    assert row["quorum"] == []


def test_an_unexpected_verdict_fails(run: Run, story: Path, quote: Path) -> None:
    assert run("--expect", "hold", str(story)).exit_code == 0
    result = run("--expect", "hold", str(story), str(quote))
    assert result.exit_code == 1
    assert result.stderr == "1 of 2 have another verdict than hold.\n"


def test_mail_of_a_stream_with_limits_is_explained(run: Run, etc: Path, quote: Path) -> None:
    policy = etc / "policy.yaml"
    policy.write_text(policy.read_text().replace(", dkim: shop.example.com}", "}", 1))
    quote.write_bytes(quote.read_bytes().replace(b"anna@example.com", b"noreply@example.com"))
    (row,) = rows(run("--json", "--client", "10.1.2.3", "--from", "noreply@example.com", str(quote)))
    assert (row["action"], row["hits"]) == ("relay", [])


def test_the_envelope_can_be_given(run: Run, quote: Path) -> None:
    (row,) = rows(
        run("--json", "--from", "bo@example.com", "--to", RAMADAN, "--to", "kim@customer.example", str(quote))
    )
    assert row["action"] == "hold"
    assert row["recipients"]["total"] == 2
    (row,) = rows(run("--json", "--from", "<>", "--to", RAMADAN, str(quote)))
    assert row["action"] == "reject"  # a list gets no bounce


def test_client_and_listener_can_be_given(run: Run, etc: Path, quote: Path) -> None:
    policy, settings = etc / "policy.yaml", etc / "smtpguard.yaml"
    text = policy.read_text()
    policy.write_text(f"{text}\n"
        "  - {id: far, when: {client: [198.51.100.0/24]}, then: hold}\n"
        "  - {id: outer, when: {listener: outside}, then: hold}\n"
        "  - {id: robot, when: {login: robot}, then: hold}\n")  # fmt: skip
    said = settings.read_text()
    settings.write_text(
        said.replace("smtp:\n", "smtp:\n    - {port: 25, name: inside}\n    - {port: 26, name: outside}\n", 1)
    )

    def hits(*words: str) -> list[str]:
        (row,) = rows(run("--json", *words, str(quote)))
        return [hit["rule"] for hit in row["hits"]]

    assert hits() == []
    assert hits("--client", "198.51.100.7") == ["far"]
    assert hits("--listener", "outside") == ["outer"]
    assert hits("--listener", "inside", "--login", "Robot") == ["robot"]
    settings.write_text(settings.read_text().replace("name: outside}", "name: outside, senders_verified: true}"))
    policy.write_text(
        f"{policy.read_text()}\n  - {{id: known, when: {{sender.proven: true, listener.proves_senders: true}}, then: hold}}\n"
    )
    assert hits("--listener", "inside") == []
    assert hits("--listener", "outside") == ["outer", "known"]
    unknown = run("--listener", "nowhere", str(quote))
    assert unknown.exit_code == 2
    assert 'unknown listener "nowhere": expected one of 127.0.0.1:10025, inside, outside' in unknown.stderr
    assert 'unknown listener "outsid" (did you mean outside?)' in run("--listener", "outsid", str(quote)).stderr
    assert run("--client", "nowhere", str(quote)).exit_code == 2


def test_envelope_fields_of_the_header_are_used_first(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bcc.eml"
    path.write_bytes(
        letter(
            STORY,
            {
                **OUTLOOK,
                "To": "kim@customer.example",
                "X-Envelope-To": f"<{RAMADAN}>",
                "Return-Path": "<bo@example.com>",
            },
        ).raw[:]
    )
    (row,) = rows(run("--json", str(path)))
    assert row["recipients"]["list_addresses"] == 1
    assert row["action"] == "hold"


def test_folders_mboxes_and_standard_input_are_read(run: Run, tmp_path: Path, story: Path, quote: Path) -> None:
    folder = tmp_path / "mail"
    (folder / "in").mkdir(parents=True)
    shutil.copy(story, folder / "in" / "a.eml")
    shutil.copy(quote, folder / "b.eml")
    (folder / ".hidden").write_text("not mail")
    assert [r["file"] for r in rows(run("--json", str(folder)))] == [
        str(folder / "b.eml"),
        str(folder / "in" / "a.eml"),
    ]
    mbox = tmp_path / "box"
    mails = [p.read_bytes().replace(b"\r\n", b"\n") for p in (story, quote)]
    mbox.write_bytes(
        b"".join(b"From a@example.com Mon Mar  3 09:12:00 2025\n" + m + b"\n>From here on\n\n" for m in mails)
    )
    assert [(r["file"], r["action"]) for r in rows(run("--json", str(mbox)))] == [
        (f"{mbox}:1", "hold"),
        (f"{mbox}:2", "relay"),
    ]
    assert [(r["file"], r["action"]) for r in rows(run("--json", "-", input=story.read_bytes()))] == [("-", "hold")]


def test_an_unreadable_message_is_null_and_held(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "sealed.eml"
    path.write_bytes(
        letter("MIAG", {"To": RAMADAN, "Content-Type": "application/pkcs7-mime; smime-type=enveloped-data"}).raw[:]
    )
    (row,) = rows(run("--json", str(path)))
    assert row["action"] == "hold"
    assert row["looks"] is None
    assert "message.looks" in {u["fact"] for u in row["unknown"]}
    assert "It cannot be read completely" in run(str(path)).stdout


def test_control_characters_are_not_printed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "esc.eml"
    path.write_bytes(
        letter("Hej \x1b[31mBo,\n\nbacon \x1b]0;x\x07\n", {"Subject": "SV: \x1b[2J", "To": RAMADAN}).raw[:]
    )
    assert "\x1b" not in run(str(path)).stdout


def test_explain_leaves_no_file_behind(run: Run, etc: Path, story: Path) -> None:
    before = sorted(etc.rglob("*"))
    assert run(str(story)).exit_code == 0
    assert sorted(etc.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("missing.eml",), "smtpguard: missing.eml: no such file\n"),
        (
            ("--from", "nobody at all", "-"),
            'smtpguard: --from: "nobody at all" is no address: not a mailbox: expected local-part@domain\n',
        ),
        (("-",), "smtpguard: there is no message in -\n"),
    ],
)
def test_wrong_use_is_an_error(run: Run, words: tuple[str, ...], line: str) -> None:
    result = run(*words, input=b"")
    assert (result.exit_code, result.stderr) == (2, line)


def test_an_unreadable_message_does_not_stop_the_others(
    run: Run, tmp_path: Path, quote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nested comments, an unreadable file, and a message that fails: each is reported, and the others are explained."""
    from smtpguard.app.explaining import Explainer

    folder = tmp_path / "mail"
    folder.mkdir()
    deep = "From: " + "(" * 5000 + ")" * 5000 + " anna@example.com\r\nTo: kim@customer.example\r\n\r\nHej\r\n"
    (folder / "1-deep.eml").write_text(deep)
    (folder / "2-memory.eml").symlink_to("/proc/self/mem")
    (folder / "3-fails.eml").write_text(
        "From: anna@example.com\r\nTo: kim@customer.example\r\nX-Fails: yes\r\n\r\nHej\r\n"
    )
    shutil.copy(quote, folder / "4-quote.eml")
    explain = Explainer.explain

    async def failing(self: Explainer, message: Any, *rest: Any) -> Any:
        if "X-Fails" in message.header:
            raise RecursionError("too deep")
        return await explain(self, message, *rest)

    monkeypatch.setattr(Explainer, "explain", failing)
    result = run("--json", str(folder))
    assert result.exit_code == 1
    found = {Path(str(row["file"])).name: row for row in map(json.loads, result.stdout.splitlines())}
    assert found["1-deep.eml"]["action"] == found["4-quote.eml"]["action"] == "relay"
    assert "error" in found["2-memory.eml"]
    assert "too deep" in found["3-fails.eml"]["error"]
    assert "2 of 4 could not be judged." in result.stderr
    assert f"{folder}/3-fails.eml: " in run(str(folder)).stderr
