"""The number of attached files: counted in the text, usable in rules, and known to check, explain and replay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from smtpguard.mail.message import Message
from smtpguard.policy.facts import Source
from smtpguard.reading.looks import Reading
from tests.cli.installing import change, prepared_installation, running
from tests.every import every
from tests.guard.house import MEMBERS, FakePassage, House
from tests.guard.sources import FakeReader
from tests.reading.letters import look, parts

run = running()

Part = tuple[str, str]
TEXT = ("Content-Type: text/plain", "Here they are.")
PICTURE = "Content-Type: image/png; name=image001.png\nContent-ID: <1@x>\nContent-Transfer-Encoding: base64"
MAIL = "From: kim@x.example\nSubject: s\nContent-Type: multipart/mixed; boundary=cc\n\n--cc\nContent-Type: text/plain\n\nx\n--cc\nContent-Type: application/pdf; name=a.pdf\n\nx\n--cc--"
UUENCODED = "Here it is.\n\nbegin 644 sums.txt\n#0V%T\n`\nend\n"


def file(name: str, kind: str = "application/pdf") -> Part:
    return f"Content-Type: {kind}\nContent-Disposition: attachment; filename={name}", "eA=="


@every(
    ("several", "files"),
    [
        ([TEXT], 0),
        ([TEXT, file("a.pdf")], 1),
        ([TEXT, file("a.pdf"), file("b.xlsx"), file("c.txt", "text/plain")], 3),
        ([TEXT, ("Content-Type: application/pdf", "eA==")], 1),
        ([TEXT, file("holiday.jpg", "image/jpeg")], 1),
        ([TEXT, (f"{PICTURE}\nContent-Disposition: inline; filename=image001.png", "eA==")], 0),
        ([TEXT, ("Content-Type: message/rfc822", MAIL)], 1),
        ([TEXT, file("smime.p7s", "application/pkcs7-signature")], 0),
        ([TEXT, ("Content-Type: text/calendar; method=REQUEST", "BEGIN:VCALENDAR\nEND:VCALENDAR")], 0),
        ([("Content-Type: text/plain", UUENCODED)], 1),
    ],
)
def test_attached_files_are_counted(several: Sequence[Part], files: int) -> None:
    assert look(parts(*several)).numbers["attachments"] == files


def test_an_inline_picture_is_no_attachment() -> None:
    page = ("Content-Type: text/html", '<p>Hi</p><img src="cid:1@x">')
    shown = (f"{PICTURE}\nContent-Disposition: attachment; filename=image001.png", "eA==")
    assert look(parts(page, shown, kind="multipart/related")).numbers["attachments"] == 0


RULE = '  - id: many-files\n    when: {message.attachments: ">= 3", recipients.customers: any}\n    then: hold\n'
FILES = [TEXT, *(file(f"{n}.pdf") for n in range(3))]
SEALED = ("Content-Type: application/pkcs7-mime; smime-type=enveloped-data", "eA==")


def to_kim(*several: Part) -> Message:
    return parts(
        *several, headers={"To": MEMBERS[0], "Subject": "Offer", "Message-ID": f"<{len(several)}@example.com>"}
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation in which three messages to a customer passed: with three files, with one, and encrypted."""

    async def read(self: FakeReader, message: Message, need: frozenset[Source]) -> Reading:
        return look(message)

    async def a_day(home: House) -> None:
        for n, several in enumerate((FILES, FILES[:2], [SEALED])):
            letter = replace(home.transaction(MEMBERS[0], id=f"T{n}"), message=to_kim(*several))
            await home.intake()(letter, FakePassage())
            home.clock.pass_(hours=1)

    monkeypatch.setattr(FakeReader, "apart", read)
    return prepared_installation(tmp_path, a_day)


def test_replay_knows_the_number_of_attachments(installed: Path) -> None:
    change(installed, more=RULE)
    rows = run(installed, "replay", "--passed", "--since", "2026-03-01", "--json").stdout.splitlines()
    told = {
        row["message"]: (row["answer"], row["file"]["action"], row["file"]["rules"]) for row in map(json.loads, rows)
    }
    assert told == {"T0": ("otherwise", "hold", ["many-files"]), "T2": ("otherwise", "hold", ["many-files"])}


@pytest.mark.parametrize(("several", "action"), [(FILES, "hold"), (FILES[:3], "relay"), ([SEALED], "hold")])
def test_a_rule_on_attachments_holds(installed: Path, several: Sequence[Part], action: str) -> None:
    change(installed, more=RULE)
    (installed / "mail.eml").write_bytes(bytes(to_kim(*several).raw[:]))
    result = run(
        installed, "explain", "--from", "anna@example.com", "--to", MEMBERS[0], "--json", str(installed / "mail.eml")
    )
    told = json.loads(result.stdout)
    assert told["action"] == action, result.output
    assert [hit["rule"] for hit in told["hits"]] == ["many-files"] or action == "relay"


def test_check_knows_the_fact(installed: Path) -> None:
    change(installed, more=RULE.replace("attachments", "atachments"))
    result = run(installed, "check")
    assert 'unknown fact "message.atachments"' in result.output
    assert "message.attachments" in result.output
