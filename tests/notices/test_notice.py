"""Notices as people and mail programs see them: every kind in both languages, and nothing that outsiders wrote is
active."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.journal.event import NOTICES
from smtpguard.locale import languages
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.address import Address
from smtpguard.notices.notice import SAMPLE, Notice, NoticeHead, NoticeTemplates, choose_language
from smtpguard.policy.condition import sentence as said_of
from smtpguard.policy.facts import Count
from tests.every import every

AT = datetime(2026, 3, 3, 13, 5, tzinfo=UTC)
HOUSE: dict[str, Any] = {
    "sender": "Brevvakten <smtpguard@example.com>",
    "organization": "Example AB",
    "languages": ("sv", "en"),
    "contact": "it@example.com",
    "zone": ZoneInfo("Europe/Stockholm"),
}
DATA: dict[str, Any] = {
    **SAMPLE,
    "hold_id": "0HXK3J9QZ2M4T7AB",
    "subject": "SV: Fredagsmys med bacon",
    "message_id": "<" + "A" * 90 + "@mail.example.com>",
    "from": "anna@example.com",
    "reach": 400000,
    "summary": Phrase.counted(
        "{what}, on its way to {n} person on {lists}.",
        "{what}, on its way to {n} people on {lists}.",
        400_000,
        what=Phrase("A reply between colleagues"),
        lists="Ramadan greetings",
    ),
    "recipients": 24,
    "lists": ["Ramadan greetings"],
    "held_at": "2026-03-03T13:05:00Z",
    "expires_at": "2026-03-06T10:05:00Z",
    "reasons": [
        {
            "rule": "internal-to-list",
            "description": "Mail between colleagues never goes to a customer list",
            "sentences": [said_of("message.looks", "internal"), said_of("recipients.list_addresses", Count.exactly(1))],
        }
    ],
    "marks": [
        Phrase('the subject begins with "{spelled}"', spelled="SV:"),
        Phrase('"{word}" ({topic}, in the text)', word="bacon", topic=Phrase("pork")),
    ],
    "deciders": [
        {
            "each": 2,
            "groups": [{"group": "communications", "people": ["eva@example.com", "omar@example.com"]}],
            "out_of_hours": None,
        },
    ],
    "part": False,
    "excerpt": "Hej Bo!\n\nVi ses på fredag. <b>Skål</b>",
    "comment": "Not for customers.\nCall me!",
}


def render(kind: str = "held", language: str = "sv", *, to: str = "eva@example.com", house: Mapping[str, Any] | None = None,
           **data: Any) -> bytes:  # fmt: skip
    templates = NoticeTemplates(NoticeHead(**(HOUSE | dict(house or {}))))
    notice = Notice(id="0HXK-held", to=Address.parse(to), data=DATA | data | {"notice": kind}, language=language, at=AT)
    return templates.render(notice)


def read(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def texts(raw: bytes) -> tuple[str, str]:
    message = read(raw)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    return plain.get_content().replace("\r\n", "\n"), html.get_content().replace("\r\n", "\n")


@pytest.mark.parametrize("language", languages())
@every("kind", NOTICES)
def test_every_kind_in_every_language(kind: str, language: str) -> None:
    raw = render(kind, language)
    message = read(raw)
    assert message.get_content_type() == "multipart/alternative"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["X-Smtpguard-Notice"] == kind
    assert message["Message-ID"] == "<0HXK-held.notice@example.com>"
    assert message["In-Reply-To"] == message["References"] == DATA["message_id"]
    assert message["Reply-To"] == "it@example.com"
    assert message["Content-Language"] == language
    assert message["From"] == "Brevvakten <smtpguard@example.com>"
    assert message["Date"].datetime == AT
    plain, html = texts(raw)
    for text in (plain, html):
        assert "Example AB" in " ".join(text.split())
        assert "{{" not in text
        assert not re.search(r"\bNone\b(?! of)", text)
        assert "Undefined" not in text
    assert plain.endswith("\n")
    assert "\n\n\n" not in plain
    assert max(len(line) for line in plain.splitlines() if "smtpguard held" not in line) <= 76
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    assert raw.isascii()
    assert b"\n" not in raw.replace(b"\r\n", b"")
    if kind not in (
        "alarm",
        "checkpoint",
        "deputy",
        "digest",
        "observed",
        "owner-digest",
        "stream",
    ) and not kind.startswith("list-"):
        assert "Fredagsmys" in message["Subject"]


def test_the_writers_notice() -> None:
    plain, html = texts(render("held", "sv"))
    for said in (
        "Ditt meddelande har inte skickats.",
        "Ett svar mellan kollegor, på väg till 400\u00a0000 personer på Ramadan greetings.",
        "Väntar till: fredag 6 mars 2026 kl. 11:05 (CET)",
        "Mail between colleagues never goes to a customer list.",
        "- Det ser ut som e-post mellan kollegor.",
        '- ämnesraden börjar med "SV:"',
        "- 2 av communications: eva@example.com, omar@example.com",
        "Frågor: it@example.com",
    ):
        assert said in re.sub(r"[ \n]+", " ", plain)
    subject = read(render())["Subject"].replace("\u00a0", " ")
    assert subject == "Hålls kvar: 400 000 personer, Ramadan greetings – SV: Fredagsmys med bacon"
    assert "Hej Bo" not in plain + html  # only approvers get the excerpt
    assert "smtpguard held" not in plain
    assert "has gone to your colleagues" in texts(render("held", "en", part=True))[0]


def test_the_approvers_notice() -> None:
    plain, html = texts(render("approve", "en"))
    assert plain.startswith("A reply between colleagues, on its way to 400,000 people")
    assert "    smtpguard held approve 0HXK3J9QZ2M4T7AB --as eva@example.com\n" in plain
    assert "> Vi ses på fredag. <b>Skål</b>" in plain
    assert "<b>Skål" not in html
    assert "&lt;b&gt;Skål" in html
    assert "and 23 more" in plain
    plain, html = texts(render("approve", "en", house={"console_url": "https://guard.example.com"}))
    assert "https://guard.example.com/held/0HXK3J9QZ2M4T7AB" in plain
    assert 'href="https://guard.example.com/held/0HXK3J9QZ2M4T7AB"' in html
    assert "smtpguard held approve" not in plain


def test_a_decision_with_its_reason() -> None:
    message = read(render("decided", "en", outcome="rejected", by="eva@example.com"))
    assert message["Subject"] == "Rejected: 400,000 people, Ramadan greetings – SV: Fredagsmys med bacon"
    plain = texts(render("decided", "en", outcome="rejected", by="eva@example.com"))[0]
    assert "> Not for customers.\n> Call me!" in plain
    assert "Decided by: eva@example.com" in plain
    plain = texts(render("decided", "sv", outcome="withdrawn", by=None, comment=""))[0]
    assert "tagits tillbaka" in plain
    assert "Beslut av" not in plain
    for outcome, who in (("withdrawn", "Withdrawn by"), ("reopened", "Taken back by"), ("stopped", "Stopped by")):
        assert f"{who}: eva@example.com" in texts(render("decided", "en", outcome=outcome, by="eva@example.com"))[0]


FROZEN = [
    {"selector": "all", "list": None, "by": "root", "since": "2026-03-03T12:00:00Z", "until": "2026-03-03T14:00:00Z"},
    {
        "selector": "list",
        "list": "Ramadan greetings",
        "by": "eva@example.com",
        "since": "2026-03-03T12:30:00Z",
        "until": None,
    },
]


@every(
    ("data", "english", "swedish"),
    [
        ({"outcome": "approved", "frozen": []}, "The held message was approved and is being sent", "är godkänt och skickas nu"),
        ({"outcome": "approved", "frozen": [], "sent": True}, "was approved and has been sent", "är godkänt och har skickats"),
        ({"outcome": "approved", "frozen": [], "test": True}, "The test was approved", "Testet är godkänt"),
        ({"outcome": "approved", "frozen": FROZEN}, "all mail: stopped by root since Tuesday 3 March 2026 at 13:00 (CET), until Tuesday 3 March 2026 at 15:00 (CET)",
         "all e-post: stoppat av root sedan tisdag 3 mars 2026 kl. 13:00 (CET), till tisdag 3 mars 2026 kl. 15:00 (CET)"),
        ({"outcome": "approved", "frozen": FROZEN}, "mail to the list Ramadan greetings: stopped by eva@example.com since", "e-post till listan Ramadan greetings: stoppat av eva@example.com sedan"),
        ({"outcome": "released"}, "has now been sent", "är nu skickat"),
        ({"outcome": "confirmed", "frozen": FROZEN}, "You confirmed it. It has not been sent yet, since a freeze stops it.", "Du har bekräftat det. Det har inte skickats än"),
        ({"outcome": "confirmed", "sent": True}, "You confirmed it, and it has been sent exactly as you wrote it.", "Du har bekräftat det, och det har skickats"),
        ({"outcome": "stopped", "has": 1, "doubt": 2, "left": 3}, "1 recipient has it. For 2 it is unknown whether they have it. 3 will not get it.",
         "1 mottagare har det. För 2 är det ovisst om de har fått det. 3 får det inte."),
        ({"outcome": "stopped", "has": 4, "doubt": 0, "left": 1}, "4 recipients have it. 1 will not get it.", "4 mottagare har det. 1 får det inte."),
        ({"outcome": "reopened", "gone": 0}, "The approval was taken back before anything had been sent. The held message waits for a decision again, until", "Godkännandet togs tillbaka innan något hade skickats. Meddelandet som hölls kvar väntar på beslut igen, till"),
        ({"outcome": "reopened", "gone": 2}, "The approval was taken back. The held message waits", "Godkännandet togs tillbaka. Meddelandet"),
        ({"outcome": "reopened", "writer": False}, "it is not sent. Your own approval still counts.", "skickas det inte. Ditt eget godkännande gäller fortfarande."),
        ({"outcome": "rejected", "gone": 1}, "What had not been sent of the mailing was rejected, and will not be sent. 1 message that had been let go with it had been sent before that, or was being sent.",
         "Det av utskicket som inte hade skickats avslogs och kommer inte att skickas. 1 meddelande som släppts tillsammans med det hade skickats innan dess, eller höll på att skickas."),
        ({"outcome": "withdrawn", "gone": 5}, "What had not been sent of the mailing was withdrawn and will not be sent. 5 messages", "Det av utskicket som inte hade skickats har tagits tillbaka och kommer inte att skickas. 5 meddelanden"),
    ],
)  # fmt: skip
def test_an_outcome_states_only_facts(data: dict[str, Any], english: str, swedish: str) -> None:
    usual: dict[str, Any] = dict.fromkeys(("frozen", "sent", "test", "gone", "asked"), False) | {"stages": "In stages."}
    for language, said in (("en", english), ("sv", swedish)):
        plain, html = (" ".join(text.split()) for text in texts(render("decided", language, **usual | data)))
        assert said in plain
        assert ("In stages." in plain) == (data["outcome"] == "approved" and "test" not in data), "a test is not sent"
        assert "None" not in plain + html


@every(
    ("kind", "data", "english", "swedish"),
    [
        ("held", {}, "has gone to your colleagues", "har gått till dina kollegor"),
        ("question", {}, "The held part still waits", "Den del som hölls kvar väntar"),
        ("expired", {}, "send it again to them alone", "skicka det sedan igen till bara dem"),
        ("decided", {"outcome": "approved"}, "The held part of the message was approved", "Den del av meddelandet som hölls kvar är godkänd"),
        ("decided", {"outcome": "rejected"}, "The held part of the message was rejected. It has not", "hölls kvar avslogs. Den har inte"),
        ("decided", {"outcome": "withdrawn"}, "The held part of the message was withdrawn. It has not", "hölls kvar har tagits tillbaka. Den har inte"),
    ],
)  # fmt: skip
def test_a_notice_about_a_part_says_so(kind: str, data: dict[str, Any], english: str, swedish: str) -> None:
    for language, said, have in (("en", english, "Colleagues among the recipients were sent the message at once."),
                                 ("sv", swedish, "Till kollegorna bland mottagarna skickades meddelandet genast.")):  # fmt: skip
        part, whole = (" ".join(texts(render(kind, language, part=p, **data))[0].split()) for p in (True, False))
        assert said in part
        assert said not in whole
        assert (have in part) is (kind in ("expired", "decided"))
        assert have not in whole


@every(
    ("kind", "data", "english", "swedish"),
    [
        ("held", {"test": True}, "Your test of a mailing waits for approval.", "Ditt test av ett utskick väntar på godkännande."),
        ("held", {"correction": True}, "one copy of it passes for each of those people", "ett exemplar igenom till var och en av dem"),
        ("approve", {}, "If nobody decides, nothing is approved.", "Om ingen beslutar godkänns inget."),
        ("reminder", {}, "If nobody decides, nothing is approved.", "Om ingen beslutar godkänns inget."),
        ("question", {}, "before this can be approved. It still waits.", "innan det här kan godkännas. Det väntar fortfarande."),
        ("plea", {}, "The writer of this held message asks for its approval.", "ber om att det godkänns."),
        ("expired", {}, "Nothing is approved.", "Inget är godkänt."),
        ("expired", {"correction": True}, "and begin it again.", "påbörja den sedan igen."),
        ("decided", {"outcome": "approved"}, "The test was approved: the mailing itself passes from now on.", "Testet är godkänt"),
        ("decided", {"outcome": "rejected"}, "The test was rejected. It approves no mailing.", "Testet avslogs. Inget utskick godkänns genom det."),
        ("decided", {"outcome": "withdrawn"}, "The test was withdrawn.", "Testet har tagits tillbaka."),
        ("decided", {"outcome": "revoked"}, "The approval of this test was taken back. It lets no further copy of its mailing pass.", "Godkännandet av det här testet togs tillbaka."),
        ("decided", {"outcome": "revoked", "correction": True}, "The approval of this correction was taken back.", "Godkännandet av den här rättelsen togs tillbaka."),
        ("decided", {"outcome": "approved", "correction": True}, "one copy of it passes for each of those people, and none for anybody else.", "och inget till någon annan."),
        ("decided", {"outcome": "rejected", "correction": True}, "The correction was rejected. It lets no copy pass.", "Rättelsen avslogs."),
        ("decided", {"outcome": "withdrawn", "correction": True}, "The correction was withdrawn.", "Rättelsen har tagits tillbaka."),
    ],
)  # fmt: skip
def test_no_test_or_correction_is_said_to_be_sent(kind: str, data: dict[str, Any], english: str, swedish: str) -> None:
    usual = dict.fromkeys(("gone", "asked", "correction", "differs"), False) | {"test": True}
    for language, said, sent in (
        ("en", english, "It has not been sent|is not sent, and|it is not sent|Would reach|Reaches:|release"),
        ("sv", swedish, "Det har inte skickats|skickas det|Skulle nå|Når:|be om att det skickas"),
    ):
        plain = " ".join(texts(render(kind, language, **usual | data))[0].split())
        assert said in plain
        assert not re.search(sent, plain)
        if data.get("correction"):
            assert not re.search(r"\b[Tt]est", plain)


def test_what_waits_longer_or_by_itself_says_so() -> None:
    said = " ".join(texts(render("held", "en", longer=True))[0].split())
    assert "You need not do anything, but you can withdraw it or ask for its release." in said
    assert "It waits longer than you were told, until Friday 6 March 2026 at 11:05 (CET)" in said
    said = " ".join(texts(render("held", "en", apart="differs"))[0].split())
    assert "Other copies of your mailing were let go. This one differs from them" in said
    said = " ".join(texts(render("reminder", "en", differs=True, confirmed=True))[0].split())
    assert "The writer of a mailing confirmed it. This copy of it differs" in said
    assert "approved" not in said
    said = " ".join(texts(render("decided", "en", outcome="reopened", confirmed=True, gone=0))[0].split())
    assert said.startswith("What its writer confirmed was taken back before anything had been sent.")
    for confirmed, sentence in (
        (
            False,
            "The approval of this mailing was taken back. It lets no further copy pass. What has been sent stays sent.",
        ),
        (
            True,
            "What its writer confirmed was taken back. No further copy of the mailing passes by it. What has been sent",
        ),
    ):
        said = " ".join(texts(render("decided", "en", outcome="revoked", confirmed=confirmed, gone=0))[0].split())
        assert said.startswith(sentence)
        assert "Would reach" not in said


def test_each_paragraph_of_a_quote_has_its_own_direction() -> None:
    html = texts(render("approve", "en", excerpt="مرحبا\n\nHello <b>"))[1]
    assert '<div dir="auto">مرحبا</div><div dir="auto"><br></div><div dir="auto">Hello &lt;b&gt;</div>' in html


def test_a_digest_lists_messages_and_omissions() -> None:
    tests = [{**SAMPLE["messages"][0], "test": True}]
    plain = texts(render("digest", "en", role="sender", total=1, states={"waiting": 1}, messages=tests))[0]
    assert "\nFor: 1,000 people\n" in plain, "a test reaches nobody"
    console = {"console_url": "https://guard.example.com"}
    plain = texts(render("digest", "en", role="owner", total=2, states={"waiting": 2}, undecided=2, house=console))[0]
    assert "Look at them, if you have access to the console:\nhttps://guard.example.com/held\n" in plain
    message = read(
        render("digest", "sv", role="approver", total=73, states={"waiting": 70, "rejected": 3}, undecided=60)
    )
    assert message["Subject"] == "60 meddelanden som behöver ditt beslut"
    plain = texts(render("digest", "en", role="sender", total=73, states={"waiting": 73}, message_id=None))[0]
    assert "And 72 more." in plain
    assert "Reference: 0000000000000000" in plain
    assert read(render("digest", "en", message_id=None))["In-Reply-To"] is None
    own: dict[str, Any] = {"role": "sender", "total": 5, "message_id": None}
    some = read(render("digest", "en", states={"waiting": 2, "rejected": 3}, **own))
    assert some["Subject"] == "2 held messages of yours", "a rejected message is no longer held"
    none = read(render("digest", "en", states={"rejected": 5}, **own))
    assert none["Subject"] == "5 messages that were held: none waits any more"


def test_a_digest_asks_only_for_what_waits() -> None:
    for role, asks in (
        ("approver", "Look at them and decide"),
        ("owner", "Please make sure that an approver decides."),
        ("sender", "What still waits has not been sent."),
    ):
        for waiting in (0, 2):
            states, house = {"waiting": waiting, "rejected": 1}, {"console_url": "https://guard.example.com"}
            message = render("digest", "en", role=role, total=3, states=states, undecided=waiting, house=house)
            assert (asks in " ".join(texts(message)[0].split())) is bool(waiting), (role, waiting)


LINE = {
    "hold_id": "0HXK3J9QZ2M4T7AB", "subject": "SV: Dieten", "from": "anna@example.com", "state": "waiting",
    "held_at": "2026-03-03T13:05:00Z", "expires_at": "2026-03-06T10:05:00Z", "reach": 60, "lists": [],
    "reasons": [{"rule": "r", "description": "Mail between colleagues never goes to a customer list", "sentences": []}],
}  # fmt: skip


@pytest.mark.parametrize(("mine", "link"), [(None, "/held/0HXK3J9QZ2M4T7AB"), ("signed-link", "/mine/signed-link")])
def test_a_digest_has_a_reason_and_a_link_for_each_message(mine: str | None, link: str) -> None:
    where = {"console_url": "https://guard.example.com"}
    lines = [{**LINE, "mine": mine}, {**LINE, "hold_id": None, "reasons": []}]
    plain, html = texts(render("digest", "en", role="approver", total=2, house=where, messages=lines, message_id=None))
    assert "Mail between colleagues never goes to a customer list." in " ".join(plain.split())
    assert plain.count("https://guard.example.com" + link) == 1
    assert f'href="https://guard.example.com{link}"' in html
    [sv] = [texts(render("digest", "sv", role="approver", total=2, house=where, messages=lines, message_id=None))[0]]
    assert "Varför det hölls kvar" in sv


@pytest.mark.parametrize("kind", ["decided", "expired"])
def test_an_outcome_has_numbers_list_and_link(kind: str) -> None:
    where = {"console_url": "https://guard.example.com"}
    for to_writer, link in ((None, "/held/0HXK3J9QZ2M4T7AB"), ("signed-link", "/mine/signed-link")):
        plain = texts(
            render(kind, "en", house=where, outcome="rejected", mine=to_writer, writer=bool(to_writer), asked=False)
        )[0]
        assert "Would have reached: 400,000 people (Ramadan greetings)" in " ".join(plain.split())
        assert "https://guard.example.com" + link in plain


HOSTILE = [
    "a\r\nBcc: victim@example.net\r\n\r\nbody",
    "a\u202egnp.exe",
    "<script>alert(1)</script>",
    "x" * 5000,
    "=?utf-8?q?a=0D=0ABcc:_x?=",
    "{{ 7 * 7 }}",
    "\x00\x07\x1b[31m",
    "\ud800",
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
@every("kind", NOTICES)
def test_text_of_outsiders_is_escaped(kind: str, text: str) -> None:
    hostile: dict[str, Any] = {
        "subject": text, "from": text, "message_id": text, "marks": [text], "comment": text, "excerpt": text,
        "lists": [text], "senders": [text], "recipients_shown": [text], "list": text,
        "messages": [{**SAMPLE["messages"][0], "subject": text, "from": text}],
    }  # fmt: skip
    raw = render(kind, "en", **hostile)
    message = read(raw)
    assert message["Bcc"] is None
    assert len(message.get_all("Subject", [])) == 1
    plain, html = texts(raw)
    for shown in (plain, html, str(message["Subject"])):
        assert "\u202e" not in shown
        assert "49" not in shown
        assert not re.search(r"[\x00-\x08\x1b]", shown)
    assert "<script>" not in html
    assert len(plain) < 60_000


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=120), st.text(max_size=300), st.sampled_from(NOTICES))
def test_any_text_makes_one_valid_message(subject: str, comment: str, kind: str) -> None:
    more: dict[str, Any] = {"from": comment}
    raw = render(kind, "sv", subject=subject, comment=comment, message_id=subject, **more)
    header, _, _ = raw.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in header.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert set(names) <= {b"From", b"To", b"Reply-To", b"Subject", b"Date", b"Message-ID", b"In-Reply-To", b"References",
                          b"Auto-Submitted", b"X-Auto-Response-Suppress", b"Content-Language", b"X-Smtpguard-Notice",
                          b"MIME-Version", b"Content-Type"}  # fmt: skip
    assert len(names) == len(set(names))


def test_look_alikes_are_shown_as_punycode_or_escapes() -> None:
    plain, html = texts(render("approve", "en", senders=["anna@exаmple.com", "аnna@example.com", "åsa@bücher.example"]))
    for text in (plain, html):
        assert "anna@xn--exmple-4nf.com" in text
        assert "\\u0430nna@example.com" in text
        assert "åsa@xn--bcher-kva.example" in text


def test_the_same_intent_gives_the_same_message() -> None:
    assert render() == render()
    odd = Notice(
        id="odd id\r\n<x>", to=Address.parse("eva@example.com"), data=DATA | {"notice": "held"}, language="sv", at=AT
    )
    found = read(NoticeTemplates(NoticeHead(**HOUSE)).render(odd))["Message-ID"]
    assert re.fullmatch(r"<[0-9a-f]{64}\.notice@example\.com>", found)


def test_replies_go_to_the_contact() -> None:
    assert read(render(house={"contact": "+46 8 123 456"}))["Reply-To"] is None
    plain = texts(render("held", "en", house={"contact": "+46 8 123 456"}))[0]
    assert "write to the approvers" in plain
    assert "Questions: +46 8 123 456." in plain
    assert "Questions" not in texts(render("held", "en", house={"contact": ""}))[0]


def test_a_non_ascii_address_gets_its_notice() -> None:
    raw = render(to="åsa@example.se")
    assert "To: <åsa@example.se>\r\n".encode() in raw


@every("kind", NOTICES)
def test_a_notice_needs_neither_8bitmime_nor_smtputf8(kind: str) -> None:
    """A notice passes any relay: non-ASCII domains become A-labels, and all text is encoded."""
    swedish = "Räksmörgås <vakt@räksmörgås.example>"
    raw = render(kind, to="eva@räksmörgås.example", house={"sender": swedish, "contact": swedish, "organization": "Å AB"},
                 subject="Fläsk på fredag 🥓", **{"from": "åsa@räksmörgås.example"}, message_id="<å@räksmörgås.example>")  # fmt: skip
    assert raw.isascii()
    assert read(raw)["To"] == "eva@xn--rksmrgs-5wao1o.example"
    assert "<vakt@xn--rksmrgs-5wao1o.example>" in read(raw)["From"]
    assert read(raw)["Reply-To"] == "vakt@xn--rksmrgs-5wao1o.example"
    assert render(kind, house={"contact": "vård@example.com"}).isascii()


def test_custom_templates_replace_single_ones(tmp_path: Path) -> None:
    (tmp_path / "held.sv.j2").write_text(
        '{% import form as f with context %}{% set subject %}Stopp: {{ d.subject }}{% endset %}'
        "{% call f.p() %}Ring växeln. {{ d.subject }}{% endcall %}"
    )  # fmt: skip
    house = {"templates": tmp_path}
    raw = render("held", "sv", subject="<i>", house=house)
    assert read(raw)["Subject"] == "Stopp: <i>"
    plain, html = texts(raw)
    assert plain == "Ring växeln. <i>\n"
    assert ">Ring växeln. &lt;i&gt;</p>" in html
    assert "Your message has not been sent" in texts(render("held", "en", house=house))[0]
    assert NoticeTemplates(NoticeHead(**(HOUSE | house))).check() == ()


@pytest.mark.parametrize("broken", ["{% if %}", "{{ 1 // 0 }}", "{% import 'nowhere.j2' as x %}"])
def test_a_broken_template_is_reported_and_ignored(tmp_path: Path, broken: str) -> None:
    (tmp_path / "held.en.j2").write_text(broken)
    house = {"templates": tmp_path}
    assert "Your message has not been sent" in texts(render("held", "en", house=house))[0]
    (problem,) = NoticeTemplates(NoticeHead(**(HOUSE | house))).check()
    assert problem.startswith(("held.en.j2: ", "nowhere.j2: "))


def test_an_unknown_kind_raises() -> None:
    with pytest.raises(KeyError):
        render("gossip")


@every(
    ("wanted", "organization", "chosen"),
    [("en", ("sv", "en"), "en"), ("de", ("sv", "en"), "sv"), ("", ("sv",), "sv"), ("en", ("sv",), "sv"), ("et", ("et",), "en"),
     ("sv-FI", ("en", "sv"), "sv")],
)  # fmt: skip
def test_the_readers_language_precedes_the_organizations(
    wanted: str, organization: tuple[str, ...], chosen: str
) -> None:
    assert choose_language(wanted, organization) == chosen


def test_common_reasons_of_several_rules_are_given_once() -> None:
    reasons = [
        {"rule": "a", "description": "Not to a list", "descriptions": {"sv": "Inte till en lista", "en": "Not to a list"},
         "sentences": [said_of("message.looks", "internal"), said_of("recipients.list_addresses", Count.exactly(1))]},
        {"rule": "b", "description": "Only writers write", "descriptions": {},
         "sentences": [said_of("recipients.list_addresses", Count.exactly(1))]},
        {"rule": "freeze", "description": Phrase("A freeze is in force"), "sentences": []},
    ]  # fmt: skip
    for plain in (texts(render(language="sv", reasons=reasons))[0], texts(render("approve", "sv", reasons=reasons))[0]):
        assert plain.count("Det är adresserat till en kundlista.") == 1
        assert "- Inte till en lista.\n" in plain
        assert "- Only writers write.\n" in plain  # the policy has no Swedish text for it
        assert "- Någon har stoppat all sådan e-post tills vidare.\n" in plain
    assert "- Not to a list.\n" in texts(render(language="en", reasons=reasons))[0]


def test_deciders_are_listed_by_group_and_out_of_hours() -> None:
    deciders = [{
        "each": 1,
        "groups": [{"group": "communications", "people": ["eva@example.com", "omar@example.com"]},
                   {"group": "compliance", "people": []}],
        "out_of_hours": {"each": 2, "groups": [{"group": "duty", "people": ["a@example.com"]}], "out_of_hours": None},
    }]  # fmt: skip
    said = texts(render(language="en", deciders=deciders))[0].replace("\n  ", " ")
    assert "- one of communications: eva@example.com, omar@example.com\n" in said
    assert "- and one of compliance: nobody is in this group now\n" in said
    assert "- or, out of hours, 2 of duty: a@example.com\n" in said
    said = texts(render(language="sv", deciders=deciders))[0].replace("\n  ", " ")
    assert "- och en av compliance: ingen är med i gruppen just nu\n" in said
    assert "- eller, utanför arbetstid, 2 av duty: a@example.com\n" in said


@pytest.mark.parametrize("own", [True, False])
def test_if_too_few_can_approve_the_reason_is_given(own: bool) -> None:
    deciders = [{
        "each": 2,
        "groups": [{"group": "communications", "people": ["eva@example.com"], "short": True, "own": own},
                   {"group": "compliance", "people": [], "short": True, "own": own}],
        "out_of_hours": None,
    }]  # fmt: skip
    said = texts(render(language="en", deciders=deciders, nobody=True))[0].replace("\n  ", " ").replace("\n", " ")
    assert "- 2 of communications: eva@example.com: too few" in said
    assert ("nobody but its writer" in said) is own
    assert ("nobody is in this group now" in said) is not own
    because = ", since the writer of a message does not decide on it" if own else ""
    assert f"Too few people can approve it now{because}. it@example.com can change who decides." in said
    said = texts(render(language="sv", deciders=deciders, nobody=True))[0].replace("\n  ", " ").replace("\n", " ")
    assert "- 2 av communications: eva@example.com: för få" in said
    assert ("ingen annan än den som skrev" in said) is own
    because = ", eftersom den som har skrivit ett meddelande inte beslutar om det" if own else ""
    assert f"För få kan godkänna det nu{because}. it@example.com kan ändra vem som beslutar." in said


@pytest.mark.parametrize(
    ("language", "subject", "words"),
    [
        ("en", "Nobody can decide: ", "You get this because you are the contact of the mail guard."),
        ("sv", "Ingen kan besluta: ", "Du får det här för att du är kontaktperson för e-postvakten."),
    ],
)
def test_the_contact_is_told_to_change_deciders(language: str, subject: str, words: str) -> None:
    made = render("escalation", language, contact=True, nobody=True)
    assert str(email.message_from_bytes(made, policy=email.policy.default)["Subject"]).startswith(subject)
    plain = texts(made)[0].replace("\n", " ")
    assert words in plain
    assert "held approve" not in plain
    assert not re.search(r"can change who decides|kan ändra vem som beslutar", plain), "the reader is the one who can"


@pytest.mark.parametrize("url", ["", "https://guard.example.com"])
def test_an_owner_who_does_not_decide_is_told_whom_to_ask(url: str) -> None:
    """Commands, and links to decide, are for those who may."""
    for decides in ("now", "out-of-hours", ""):
        plain = texts(render("escalation", "en", decides=decides, contact=False, house={"console_url": url}))[0]
        assert ("held approve" in plain) is bool(decides and not url)
        assert ("Look at it and decide" in plain) is bool(decides and url)
        assert ("ask one of those named below" in plain.replace("\n", " ")) is (decides == "")
    for role in ("approver", "owner"):
        several = texts(render("digest", "en", role=role, total=2, house={"console_url": url}))[0]
        assert ("Look at them" in several) is bool(url)
        plain = texts(render("digest", "en", role=role, house={"console_url": url}))[0]
        assert "Look at them" not in plain
        assert "they" not in plain
        assert ("smtpguard held list" in plain) is (role == "approver" and not url)


def test_all_who_approved_are_named() -> None:
    for voters, named in (
        (["eva@example.com", "dpo@example.com"], "eva@example.com, dpo@example.com"),
        ([], "dpo@example.com"),
    ):
        plain = texts(render("decided", "en", outcome="approved", by="dpo@example.com", voters=voters))[0]
        assert f"Decided by: {named} When:" in " ".join(plain.split())


def test_what_nobody_decided_says_who_decides() -> None:
    deciders = [
        {"each": 1, "groups": [{"group": "communications", "people": ["eva@example.com"]}], "out_of_hours": None}
    ]
    for unconfirmed in (False, True):
        plain = texts(render("expired", "en", deciders=deciders, unconfirmed=unconfirmed))[0]
        assert ("one of communications: eva@example.com" in plain) is not unconfirmed


@every(
    ("data", "english", "swedish"),
    [
        ({"stopped": True, "cause": Phrase("the mail server refused {n} of {tried} people", n=3, tried=20)}, "has stopped. The rest is not sent until a person lets it go on. Why: the mail server refused 3 of 20 people.", "har stoppats. Resten skickas inte förrän en person låter det gå vidare. Skäl: e-postservern avvisade 3 av 20 personer."),
        ({"stopped": False, "cause": ""}, "one of them is complete. The rest is not sent until a person lets it go on. On the server", "och en av dem är klar. Resten skickas inte förrän en person låter det gå vidare. På servern"),
        ({"writer": True}, "Those named below decide whether it goes on.", "De som nämns nedan avgör om det går vidare."),
    ],
)  # fmt: skip
def test_stages_that_wait_say_why_and_how_to_go_on(data: dict[str, Any], english: str, swedish: str) -> None:
    figures: dict[str, Any] = {"mailing": "M2", "has": 50, "waits": 399_950, "since": "2026-03-03T13:05:00Z"}
    for language, said in (("en", english), ("sv", swedish)):
        plain = " ".join(texts(render("stages", language, **figures | data))[0].split())
        assert said in plain
        assert ("smtpguard mailings go-on M2 --as eva@example.com" in plain) is not data.get("writer", False)
        assert {"en": "399,950 people", "sv": "399 950 personer"}[language] in plain


@every("kind", ["answer", "plea", "question", "reminder", "escalation", "doubt", "expired", "decided"])
def test_a_notice_begins_with_its_sentence_and_link(kind: str) -> None:
    data: dict[str, Any] = {
        **SAMPLE,
        "notice": kind,
        "part": False,
        "reach": 412_318,
        "lists": ["News"],
        "asked": False,
        "mine": "m",
    }
    templates = NoticeTemplates(NoticeHead(sender="guard@example.com", console_url="https://guard.example.com"))
    raw = templates.render(
        Notice(
            id="n", to=Address.parse("eva@example.com"), data=data, language="en", at=datetime(2026, 3, 2, tzinfo=UTC)
        )
    )
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert "412,318 people, News – Sample" in str(message["Subject"])
    part = message.get_body(("html",))
    assert part is not None
    html = part.get_content()
    assert html.index("<a href") < html.index("<table role"), "the link comes before the particulars"


def test_the_writer_of_a_test_reads_that_it_is_not_sent() -> None:
    (plain, _), (other, _) = (texts(render("held", "en", test=test)) for test in (True, False))
    assert "The test itself is not sent." in " ".join(plain.split())
    assert "exactly as you wrote it" not in " ".join(plain.split())
    assert "exactly as you wrote it" in " ".join(other.split())


def test_the_writer_is_asked_to_rate_the_hold() -> None:
    templates = NoticeTemplates(NoticeHead(sender="guard@example.com", console_url="https://guard.example.com"))
    for outcome, test, asked in (
        ("approved", False, True), ("rejected", False, True), ("rejected", True, False), ("reopened", False, False),
    ):  # fmt: skip
        data: dict[str, Any] = {
            **SAMPLE,
            "notice": "decided",
            "outcome": outcome,
            "test": test,
            "asked": False,
            "mine": "LINK",
        }
        raw = templates.render(
            Notice(
                id="n", to=Address.parse("a@example.com"), data=data, language="en", at=datetime(2026, 3, 2, tzinfo=UTC)
            )
        )
        text = email.message_from_bytes(raw, policy=email.policy.default).get_body(("plain",))
        assert text is not None
        assert ("https://guard.example.com/mine/LINK#h-judge" in text.get_content()) is asked
