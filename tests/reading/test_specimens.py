"""Today's mail by client and platform, nine facts about it that detection has to cope with, and its evidence in Swedish."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from smtpguard.locale.speech import Speech
from smtpguard.reading.looks import Looks, Reading, from_declared_origin, without_list_headers
from smtpguard.reading.marks import KINDS
from smtpguard.reading.request import Surroundings
from tests.every import every
from tests.reading import specimens
from tests.reading.letters import GROWN_THREAD, NEW_THREAD, PLATFORM, around, letter, look, names, parts
from tests.reading.specimens import EXCHANGE, ONE_CLICK, WORDS, Specimen, message
from tests.reading.test_marks import EXAMPLES, HTML, ICS

LETTERS = [*specimens.people(), *specimens.people(to="kim@customer.example")]
STRANGERS = Surroundings()  # an organization without known people or domains
NOTE = "Hi Kim,\n\nI think we should meet on Friday. Could you send me the draft?\n\nLisa\n"


def by_name(specimen: Specimen) -> str:
    return specimen.name


@pytest.mark.parametrize("known", [around(), STRANGERS], ids=["at home", "among strangers"])
def test_letters_between_people_look_internal(known: Surroundings) -> None:
    wrong = [s.name for s in LETTERS if look(s.message, known).looks is not Looks.INTERNAL]
    assert len(LETTERS) > 500
    assert wrong == []


@pytest.mark.parametrize("known", [around(), STRANGERS], ids=["at home", "among strangers"])
def test_campaigns_of_platforms_look_like_mailings(known: Surroundings) -> None:
    made = list(specimens.mailings())
    wrong = [s.name for s in made if look(s.message, known).looks is not Looks.MAILING]
    assert len({s.name.partition("-")[0] for s in made}) >= 9
    assert wrong == []


@every("specimen", list(specimens.small_newsletters()))
def test_newsletters_from_mail_programs_are_not_internal(specimen: Specimen) -> None:
    reading = look(specimen.message, STRANGERS)
    wanted = {Looks.MAILING, Looks.UNCLEAR} if specimen.traits["leaving"] else {Looks.UNCLEAR}
    assert reading.looks in wanted, reading.marks


@every("specimen", list(specimens.posts()))
def test_posts_on_lists_are_no_mailings(specimen: Specimen) -> None:
    reading = look(specimen.message, STRANGERS)
    assert reading.looks is not Looks.MAILING
    assert "a person's post on a discussion list" in next(m.evidence for m in reading.marks if m.name == "list-post")


def test_marks_of_mail_programs_are_found() -> None:
    for s in LETTERS:
        found = names(look(s.message))
        assert found & {"mail-program", "our-exchange", "exchange-headers", "composition", "thread-index"}, s.name
        if s.traits["how"] == "reply":
            assert found & {"outlook-thread", "quoted-text", "quoted-headers", "quoting-markup", "colleague-quoted"}, (
                s.name
            )


# the facts


def test_1_a_new_message_is_internal_without_reply_marks() -> None:
    for s in LETTERS:
        if s.traits["how"] == "new":
            assert not names(look(s.message)) & {"reply-prefix", "references", "quoted-text"}
            assert look(s.message).looks is Looks.INTERNAL


def test_2_exchange_online_without_a_client_name() -> None:
    fields = {**EXCHANGE, "Thread-Index": NEW_THREAD, "Thread-Topic": "x", "X-OriginatorOrg": "example.com"}
    reading = look(letter(NOTE, {**fields, "To": "kim@customer.example"}))
    assert "mail-program" not in names(reading)
    assert {"our-exchange", "thread-index", "exchange-headers"} <= names(reading)
    assert reading.looks is Looks.INTERNAL


def test_3_authas_internal_has_no_weight() -> None:
    scores = {
        look(letter(NOTE, {**EXCHANGE, "X-MS-Exchange-CrossTenant-AuthAs": value})).score
        for value in ("Internal", "Anonymous")
    }
    assert len(scores) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"Feedback-ID": "i1234567:Fastmail"},
        {"Feedback-ID": "quickmail:ssl:bgforeign:bgweb:qybgforeign43a1"},
        {"List-Unsubscribe-Post": "List-Unsubscribe=One-Click", "X-Mailin-Client": "9"},
    ],
    ids=["Fastmail", "QQ", "Brevo"],
)
def test_4_headers_of_providers_make_no_mailing(fields: dict[str, str]) -> None:
    reading = look(letter(NOTE, {"From": "Lisa <lisa@example.org>", "To": "kim@example.net", **fields}), STRANGERS)
    assert reading.looks is not Looks.MAILING


@every("language", WORDS)
def test_5_a_campaign_without_bulk_headers_is_not_internal(language: str) -> None:
    words = WORDS[language]
    fields = {"From": "Example <hello@shop.example>", "To": "kim@customer.example", "Subject": words.subject}
    assert look(message(fields, "", specimens.campaign(words)), STRANGERS).looks is Looks.MAILING
    assert look(message(fields, specimens.campaign_text(words)), STRANGERS).looks is not Looks.INTERNAL


def test_6_a_digest_with_delivery_preferences_is_a_mailing() -> None:
    text = "This week\n\n1. A new parser\n2. A faster index\n\nChange your delivery preferences: https://e.example/p\n"
    fields = {"From": "Digest <digest@e.example>", "To": "kim@customer.example", "Subject": "Your weekly digest"}
    assert look(message(fields, text), STRANGERS).looks is Looks.MAILING


def test_7_replies_on_a_list_are_personal_and_faked_ones_are_not() -> None:
    replies = [s for s in specimens.posts() if s.traits["how"] == "reply"]
    assert all(look(s.message, STRANGERS).looks is Looks.INTERNAL for s in replies)
    faked = [s for s in specimens.mailings() if "reply-prefix" in names(look(s.message, STRANGERS))]
    assert faked
    assert all(look(s.message, STRANGERS).looks is Looks.MAILING for s in faked)


def test_7_a_newsletter_through_a_list_server_is_a_mailing() -> None:
    fields = {
        "From": "News <newsletter@example.org>", "To": "announce@lists.example.org", "Subject": WORDS["en"].subject,
        **ONE_CLICK, **specimens.SERVERS["mailman3"],
    }  # fmt: skip
    reading = look(message(fields, "", specimens.campaign(WORDS["en"])), STRANGERS)
    assert reading.looks is Looks.MAILING
    assert "list-post" not in names(reading)


def test_8_a_report_is_recognized_by_its_type() -> None:
    report = parts(
        ("Content-Type: text/plain", "It could not be delivered."),
        ("Content-Type: message/delivery-status", "Reporting-MTA: dns; mx.example.net"),
        kind="multipart/report; report-type=delivery-status",
        headers={**ONE_CLICK, "Precedence": "list", "List-Id": "<talk.lists.example.org>"},
    )
    reading = look(report, STRANGERS)
    assert (reading.looks, reading.score) == (Looks.UNCLEAR, 0)
    assert reading.automatic
    assert "report" in names(reading)


def test_9_missing_bulk_headers_prove_no_colleague() -> None:
    text = "Winter tyres are here. https://tyres.example/ https://tyres.example/2 https://tyres.example/3\n"
    reading = look(message({"From": "tyres@tyres.example", "To": "kim@customer.example", "Subject": "Tyres"}, text))
    assert "no-bulk-signs" in names(reading)
    assert reading.looks is Looks.UNCLEAR


# other mail of colleagues


def test_a_sensitivity_label_and_a_meeting() -> None:
    label = "MSIP_Label_0a1b2c3d-1111-4222-8333-0123456789ab_Enabled=True;MSIP_Label_0a1b2c3d-1111-4222-8333-0123456789ab_Name=Confidential;"
    reading = look(letter("Se bifogat.", {"msip_labels": label, "Thread-Index": GROWN_THREAD}))
    assert reading.labels == {"Confidential"}
    assert reading.looks is Looks.INTERNAL


@every("name", ["budget.xlsx", "protokoll.docx", "fw.msg", "fw.eml"])
def test_documents_and_attached_messages_have_marks(name: str) -> None:
    reading = look(
        parts(
            ("Content-Type: text/plain", "Bifogat."),
            (f'Content-Type: application/octet-stream; name="{name}"', "From: Bo <bo@example.com>\n\nx"),
        )
    )
    assert names(reading) & {"documents", "colleague-quoted"}


def readings() -> Iterator[Reading]:
    trusting = replace(around(), authserv_ids=frozenset({"mx.example.com"}))
    for _, headers, body in EXAMPLES:
        yield look(letter(body, headers))
    for _, html in HTML:
        yield look(letter(html, kind="text/html"))
    for made in (specimens.people(), specimens.mailings(), specimens.small_newsletters(), specimens.posts()):
        yield from (look(s.message, trusting) for s in made)
    results = "mx.example.com; dkim=pass header.d=news.example; dmarc=fail header.from=news.example"
    yield look(letter("x", {"Authentication-Results": results}), trusting)
    yield from_declared_origin(look(letter("x")), "campaigns.example.com")
    yield from_declared_origin(look(letter("x")), "example.com", shared=True)
    yield without_list_headers(look(letter("x", PLATFORM)))
    one = "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf"
    yield look(parts(("Content-Type: text/plain", "Priser: b.pdf"), (one, "x")))
    docx = "Content-Type: application/msword\nContent-Disposition: attachment; filename=utkast.docx"
    for head, body in ((docx, "x"), ("Content-Type: text/calendar; method=REQUEST", ICS),
                       ("Content-Type: message/rfc822", "From: k@x.example\nSubject: s\n\nx"),
                       ("Content-Type: message/rfc822", "From: bo@example.com\nSubject: s\n\nx")):  # fmt: skip
        yield look(parts(("Content-Type: text/plain", "x"), (head, body)))
    post = {
        "X-Mailman-Version": "3",
        "List-Post": "<mailto:l@x.example>",
        "From": "root@x.example",
        "To": "l@x.example",
    }
    yield look(letter(".", {**post, "Message-ID": "-"}))
    yield look(letter("x", {"Return-Path": "<>"}))
    yield look(letter("hej", {"To": "bo@example.com, ulf@example.com"}))


def test_all_evidence_is_translated() -> None:
    swedish = Speech("sv")
    told: set[str] = set()
    left: set[str] = set()
    for reading in readings():
        for mark in reading.marks:
            told.add(mark.name)
            if swedish.say(mark.evidence) == mark.evidence:
                left.add(f"{mark.name}: {mark.evidence}")
    assert left == set()
    assert told == set(KINDS)
