"""The story, the ordinary day and the catalogue's disguises, as the reader sees them."""

from __future__ import annotations

import base64
import quopri

import pytest

from smtpguard.reading.looks import Looks, Readable, from_declared_origin
from tests.reading.letters import (
    GROWN_THREAD,
    NEW_THREAD,
    OUTLOOK,
    PLATFORM,
    around,
    letter,
    look,
    names,
    parts,
    topics,
)

STORY = """Hej alla,

jag har kört lågkolhydratkost i tre veckor nu och det är fantastiskt: baconsvarv till frukost, julskinkan
som mellanmål och en stor whisky före läggdags. Vem är på en sprit- och fläskkväll på fredag?

Hälsningar
Bo

________________________________
Från: Anna Ek <anna@example.com>
Skickat: den 3 mars 2025 09:12
Till: Bo Alm <bo@example.com>
Ämne: Dieten

Hur går det med dieten?
"""
CAMPAIGN = """<html><head><meta name="viewport" content="width=device-width"><title>Höst</title></head><body>
<table role="presentation"><tr><td><a href="https://news.example.com/v?utm_source=x">Visa i webbläsaren</a></td></tr>
<tr><td><img src="https://news.example.com/h.png" alt="Höstens nyheter"></td></tr></table>
<p>Kära kund! Höstens erbjudanden är här. Läs mer om rabatten.</p>
<p>Du får detta mejl eftersom du är kund. <a href="https://news.example.com/unsubscribe/123">Avprenumerera</a></p>
<img src="https://news.example.com/o.gif" width="1" height="1"></body></html>"""


def test_the_story() -> None:
    reading = look(letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten", "To": "ramadan@lists.example.com"}))
    assert reading.looks is Looks.INTERNAL
    assert topics(reading) == {"pork", "alcohol", "diets"}
    assert {"outlook-thread", "reply-prefix", "colleague-quoted", "our-exchange"} <= names(reading)
    assert reading.language == "sv"
    assert 'the subject begins with "SV:"' in {m.evidence for m in reading.marks}


def test_the_story_in_english_html_and_in_an_alt_text() -> None:
    html = '<div class="WordSection1"><p class="MsoNormal">Low carb works! Eat b<b>ac</b>on.</p><img src="cid:1" alt="A bottle of liquor"></div>'
    reading = look(letter(html, {**OUTLOOK, "Subject": "RE: Diet", "Thread-Index": GROWN_THREAD}, kind="text/html"))
    assert reading.looks is Looks.INTERNAL
    assert {(t.vocabulary, t.where) for t in reading.topics} == {
        ("diets", "subject"),
        ("diets", "html"),
        ("pork", "html"),
        ("alcohol", "alt text"),
    }


def test_the_story_without_any_header_of_outlook() -> None:
    reading = look(letter(STORY, {"Subject": "Dieten", "To": "ramadan@lists.example.com"}))
    assert reading.looks is Looks.INTERNAL


def test_a_campaign_is_a_mailing() -> None:
    reading = look(
        letter(
            CAMPAIGN,
            {**PLATFORM, "From": "Example <nyhetsbrev@example.com>", "Subject": "Höstens nyheter"},
            kind="text/html",
        )
    )
    assert reading.looks is Looks.MAILING
    assert {"one-click", "unsubscribe-link", "web-version", "tracking-pixel"} <= names(reading)
    assert reading.topics == ()


def test_a_campaign_without_any_bulk_header_is_not_internal() -> None:
    reading = look(letter(CAMPAIGN, {"From": "Example <news@example.com>", "Subject": "Höst"}, kind="text/html"))
    assert reading.looks is not Looks.INTERNAL


def test_a_newsletter_written_in_outlook_is_a_mailing_or_unclear() -> None:
    body = "<p class=MsoNormal>Hej kund!</p><p>Läs mer om våra erbjudanden.</p><p>Vill du inte ha fler brev? Avregistrera dig här.</p>"
    fields = {"Thread-Index": NEW_THREAD, "X-Mailer": "Microsoft Outlook 16.0"}
    assert look(letter(body, fields, kind="text/html")).looks is not Looks.INTERNAL
    assert look(letter(body, {**fields, **PLATFORM}, kind="text/html")).looks is Looks.MAILING


def test_delivery_preferences_are_a_way_to_leave() -> None:
    body = "This week's digest\n\nYou are receiving this because you signed up. Change your delivery preferences: https://d.example.net/p\n"
    assert look(letter(body, {"From": "digest@example.net", "To": "kim@example.org"})).looks is Looks.MAILING


def test_a_forged_list_unsubscribe_on_an_outlook_thread_makes_no_mailing() -> None:
    reading = look(letter(STORY, {**OUTLOOK, **PLATFORM, "Subject": "SV: Dieten"}))
    assert reading.looks is not Looks.MAILING
    assert "contradiction" in names(reading)


def test_signs_of_every_mailing_do_not_outweigh_a_conversation() -> None:
    body = STORY + "\nUnsubscribe: https://x.list-manage.com/unsubscribe?u=1\nView in browser. All rights reserved.\n"
    fields = {
        **OUTLOOK,
        **PLATFORM,
        "Subject": "Dieten",
        "X-MC-User": "1",
        "Precedence": "bulk",
        "Auto-Submitted": "auto-generated",
    }
    assert look(letter(body, fields)).looks is not Looks.MAILING


@pytest.mark.parametrize("field", ["X-Smtpguard", "DKIM-Signature", "Auto-Submitted", "List-Unsubscribe"])
def test_no_field_alone_exempts_a_colleagues_mail(field: str) -> None:
    value = {"Auto-Submitted": "auto-generated", "List-Unsubscribe": "<https://x.example/u>"}.get(field, "id=1; mac=2")
    assert look(letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten", field: value})).looks is not Looks.MAILING


def test_our_own_trace_is_no_exemption_and_is_told() -> None:
    reading = look(letter(STORY, {"X-Smtpguard": "id=1; policy=2; mac=3"}))
    assert "claimed-pass" in names(reading)
    assert reading.looks is Looks.INTERNAL


def test_a_persons_post_on_a_list_is_no_mailing() -> None:
    fields = {
        "From": "Kim <kim@example.org>", "To": "discuss@lists.example.net", "Subject": "[discuss] Re: parsers", "In-Reply-To": "<9@example.org>",
        "List-Id": "<discuss.lists.example.net>", "List-Unsubscribe": "<mailto:discuss-leave@lists.example.net>",
        "List-Post": "<mailto:discuss@lists.example.net>", "Precedence": "list", "X-Mailman-Version": "3.3.9",
    }  # fmt: skip
    body = (
        "On Mon, 3 Mar 2025, Lo wrote:\n> which one?\n> the fast one?\n\nI'd take the small one.\n\n/Kim\n"
        + "_" * 47
        + ("\ndiscuss mailing list\nTo unsubscribe send an email to discuss-leave@lists.example.net\n")
    )
    reading = look(letter(body, fields))
    assert reading.looks is not Looks.MAILING
    assert "Mailman" in next(m.evidence for m in reading.marks if m.name == "list-post")


def test_a_colleagues_mail_that_our_list_server_expanded_is_no_mailing() -> None:
    fields = {
        **OUTLOOK, "Subject": "SV: Dieten", "List-Id": "<ramadan.lists.example.com>", "List-Unsubscribe": "<mailto:x@lists.example.com>",
        "List-Post": "<mailto:ramadan@lists.example.com>", "X-BeenThere": "ramadan@lists.example.com", "Precedence": "list",
    }  # fmt: skip
    assert look(letter(STORY, fields)).looks is Looks.INTERNAL


def test_a_delivery_report_is_neither_whatever_list_headers_it_carries() -> None:
    message = parts(
        ("Content-Type: text/plain", "Your mail could not be delivered."),
        ("Content-Type: message/delivery-status", "Reporting-MTA: dns; mx.example.net"),
        ("Content-Type: text/rfc822-headers", "Subject: SV: Dieten"),
        kind="multipart/report; report-type=delivery-status",
        headers={**PLATFORM, "From": "MAILER-DAEMON@mx.example.net"},
    )
    reading = look(message)
    assert reading.looks is Looks.UNCLEAR
    assert reading.score == 0
    assert reading.automatic
    assert "report" in names(reading)


def test_the_declared_origin_makes_an_unclear_mail_a_mailing_and_spares_no_conversation() -> None:
    plain = look(
        letter(
            "Hej!\n\nHöstens utställning öppnar på lördag kl. 12.\n\nhttps://example.com/host\nhttps://example.com/karta\n",
            {"From": "campaigns@example.com"},
        )
    )
    assert plain.looks is not Looks.MAILING
    assert from_declared_origin(plain, "campaigns.example.com").looks is Looks.MAILING
    story = look(letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten"}))
    assert from_declared_origin(story, "campaigns.example.com").looks is not Looks.MAILING


# The ordinary day. That it passes is the policy's doing; here, that it is what it is.


def test_an_answer_to_one_customer_is_internal_looking_and_no_colleagues_thread() -> None:
    body = "Hej Kim,\n\noffert bifogas.\n\nMvh\nAnna\n\nFrån: Kim <kim@customer.example>\nSkickat: idag\nTill: Anna Ek\nÄmne: Offert\n\nHej!\n"
    reading = look(letter(body, {**OUTLOOK, "Subject": "SV: Offert", "To": "kim@customer.example"}))
    assert reading.looks is Looks.INTERNAL
    assert not reading.forwarded_thread
    assert reading.shown == {"kim@customer.example"}


def test_a_forwarded_thread_of_colleagues_is_told() -> None:
    reading = look(letter("FYI\n" + STORY, {**OUTLOOK, "Subject": "VB: Dieten", "To": "kim@customer.example"}))
    assert reading.forwarded_thread


def test_a_password_reset_is_not_internal() -> None:
    body = "You asked to reset your password. Your account: https://shop.example.com/r/9\nIf you didn't request this, ignore this message.\nPlease do not reply.\n"
    reading = look(
        letter(body, {"From": "noreply@example.com", "To": "kim@customer.example", "Auto-Submitted": "auto-generated"})
    )
    assert reading.looks is Looks.MAILING
    assert reading.automatic


def test_an_invitation_is_told() -> None:
    ics = "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:Vinprovning\nEND:VEVENT\nEND:VCALENDAR"
    reading = look(
        parts(("Content-Type: text/plain", "Välkomna"), ("Content-Type: text/calendar; method=REQUEST", ics))
    )
    assert "calendar" in names(reading)
    assert topics(reading) == {"alcohol"}


def test_wine_at_six_is_found_and_internal() -> None:
    reading = look(letter("Hi Kim,\n\nwine at six?\n\nAnna\n", {"To": "kim@customer.example"}))
    assert topics(reading) == {"alcohol"}
    assert reading.looks is Looks.INTERNAL


# Content in disguise.


@pytest.mark.parametrize(
    "twice",
    ["From: x@example.org", "Subject: again", "Sender: x@example.org\r\nSender: y@example.org", "Message-ID: <2@x>"],
)
def test_a_field_that_stands_twice_is_unreadable_and_read_anyway(twice: str) -> None:
    message = letter(STORY)
    reading = look(type(message).of(twice.encode() + b"\r\n" + message.raw[:]))
    assert reading.readable is Readable.UNREADABLE
    assert "more than one" in reading.why_unreadable
    assert topics(reading) == {"pork", "alcohol", "diets"}


def test_a_broken_header_block_is_unreadable_and_the_text_is_read() -> None:
    message = letter(STORY)
    reading = look(type(message).of(b"no field at all\r\n" + message.raw[:]))
    assert reading.readable is Readable.UNREADABLE
    assert topics(reading) == {"pork", "alcohol", "diets"}


@pytest.mark.parametrize(
    ("content_type", "why"),
    [
        ('multipart/encrypted; protocol="application/pgp-encrypted"; boundary=bb', "encrypted"),
        ("application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m", "S/MIME"),
        ("application/x-pkcs7-mime; name=smime.p7m", "S/MIME"),
        ("application/pkcs7-mime; smime-type=signed-data", "S/MIME"),
        ("application/ms-tnef; name=winmail.dat", "TNEF"),
        ('application/octet-stream; name="winmail.dat"', "TNEF"),
        ('message/partial; id="1"; number=1', "fragment"),
        ("message/external-body; access-type=URL", "elsewhere"),
        ("multipart/mixed; boundary=aa; boundary=bb", "two boundaries"),
        ("multipart/mixed", "cannot be told apart"),
        ("multipart/mixed; boundary=other", "cannot be told apart"),
    ],
)
def test_what_nobody_here_can_read_is_named(content_type: str, why: str) -> None:
    reading = look(letter("--bb\n\nBacon\n--bb--\n", {"Content-Type": content_type, **PLATFORM}))
    assert reading.readable is Readable.UNREADABLE
    assert why in reading.why_unreadable


def test_an_unreadable_message_is_a_mailing_by_its_way_off_a_list_alone_and_never_by_more() -> None:
    sealed = {"Content-Type": "application/pkcs7-mime; smime-type=enveloped-data"}
    assert look(letter("x", {**sealed, **PLATFORM})).looks is Looks.MAILING  # what its header looks like
    assert look(letter("x", {**sealed, "Precedence": "bulk", "X-MC-User": "1"})).looks is Looks.UNCLEAR
    assert look(letter("x", {**sealed, **PLATFORM, **OUTLOOK})).looks is not Looks.MAILING


def test_pgp_within_the_text_is_unreadable() -> None:
    assert (
        look(letter("-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----\n")).readable is Readable.UNREADABLE
    )


def test_a_multipart_whose_parts_cannot_be_found_is_read_as_it_stands() -> None:
    assert topics(look(letter("Bacon\n", {"Content-Type": "multipart/mixed; boundary=other"}))) == {"pork"}


def test_two_content_types_that_differ_are_unreadable() -> None:
    message = letter(STORY)
    reading = look(type(message).of(b"Content-Type: text/html\r\n" + message.raw[:]))
    assert "two Content-Type" in reading.why_unreadable


@pytest.mark.parametrize(
    "body",
    [
        base64.encodebytes("Vi äter fläsket".encode()).decode(),
        base64.encodebytes("Vi äter fläsket".encode()).decode().replace("\n", "!\n*"),
        base64.b64encode(b"Vi ").decode() + "=" + base64.b64encode("äter fläsket".encode()).decode(),
        base64.b64encode("Vi äter fläsket".encode()).decode().rstrip("=") + "A",
    ],
    ids=["right", "junk in it", "padding in the middle", "cut off"],
)
def test_base64_good_and_bad_is_read(body: str) -> None:
    reading = look(letter(body, {"Content-Transfer-Encoding": "base64"}))
    assert topics(reading) == {"pork"}


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "windows-1252", "utf-16", "utf-7", "mac-roman", "cp850"])
def test_charsets(charset: str) -> None:
    body = base64.encodebytes("Vi äter fläsket".encode(charset)).decode()
    message = letter(body, {"Content-Type": f"text/plain; charset={charset}", "Content-Transfer-Encoding": "base64"})
    assert topics(look(message)) == {"pork"}


@pytest.mark.parametrize("charset", ["x-klingon", "punycode", "zlib", "idna", "base64", "unicode_escape", "\x00"])
def test_an_unknown_charset_is_named_and_the_text_is_read(charset: str) -> None:
    reading = look(letter("Vi äter fläsket", {"Content-Type": f'text/plain; charset="{charset}"'}))
    assert topics(reading) == {"pork"}
    if charset != "\x00":
        assert "unknown charset" in next(m.evidence for m in reading.marks if m.name == "defect")


def test_an_encoded_word_cut_in_mid_character_is_read() -> None:
    first, second = (base64.b64encode(piece).decode() for piece in (b"fl\xc3", b"\xa4sk"))
    reading = look(letter("Hej", {"Subject": f"=?utf-8?B?{first}?=\r\n =?utf-8?B?{second}?="}))
    assert reading.subject == "fläsk"
    assert topics(reading) == {"pork"}


@pytest.mark.parametrize(
    "html",
    [
        "<p>fl&auml;sk</p>", "<p>fl&#228;<b></b>sk</p>", "<p>f<i>l</i>ä<span>sk</span></p>", "<p>fl\u00adä\u200bsk</p>", "<p>fla\u0308sk</p>",
        '<p style="display:none">fläsk</p>', "<p>f l ä s k</p>", '<img alt="fläsk">', "<!-- --><p>fläsk", "<p>ｆläsk</p>", "<p>b\u0430con</p>", "<p>b4c0n</p>",
        "<textarea>fläsk</textarea>", "<noscript>fläsk</noscript>", "<table><td>fläsk", "<svg></svg><p>fläsk", "<title>x</title><h1>FLÄSK</h1>",
    ],
)  # fmt: skip
def test_a_word_in_disguise_in_html(html: str) -> None:
    assert topics(look(letter(html, kind="text/html"))) == {"pork"}


def test_quoted_printable_in_mid_word_is_read() -> None:
    body = quopri.encodestring("Vi äter fläsket".encode()).decode().replace("fl", "f=\nl")
    assert topics(look(letter(body, {"Content-Transfer-Encoding": "quoted-printable"}))) == {"pork"}


def test_text_in_an_attached_message_and_in_a_file_is_read() -> None:
    inner = "From: Bo <bo@example.com>\nSubject: Lunch\nContent-Type: text/plain; charset=utf-8\n\nBacon"
    reading = look(parts(("Content-Type: text/plain", "Se nedan"), ("Content-Type: message/rfc822", inner)))
    assert [(t.vocabulary, t.where) for t in reading.topics] == [("pork", "attached text")]
    assert "colleague-quoted" in names(reading)
    file = look(
        parts(
            ("Content-Type: text/plain", "x"),
            ("Content-Type: text/plain\nContent-Disposition: attachment; filename=a.txt", "Bacon"),
        )
    )
    assert topics(file) == {"pork"}
    eml = look(
        parts(("Content-Type: text/plain", "x"), ('Content-Type: application/octet-stream; name="m.eml"', inner))
    )
    assert topics(eml) == {"pork"}


def test_the_name_of_an_attachment_is_read_in_every_spelling() -> None:
    for name in (
        'filename="fläsk.pdf"',
        "filename*=utf-8''fl%C3%A4sk.pdf",
        "filename*0=fl; filename*1*=%C3%A4sk.pdf",
        'filename="=?utf-8?Q?fl=C3=A4sk.pdf?="',
    ):
        reading = look(
            parts(
                ("Content-Type: text/plain", "x"),
                (f"Content-Type: application/pdf\nContent-Disposition: attachment; {name}", "%PDF"),
            )
        )
        assert [(t.vocabulary, t.where) for t in reading.topics] == [("pork", "attachment name")], name


def test_both_alternatives_are_read() -> None:
    html = "Content-Type: text/html; charset=utf-8", "<p>Hej</p>"
    reading = look(parts(("Content-Type: text/plain; charset=utf-8", "Bacon"), html, kind="multipart/alternative"))
    assert topics(reading) == {"pork"}


def test_hidden_text_does_not_make_a_mailing() -> None:
    hidden = '<div style="DISPLAY: none">unsubscribe, view in browser, all rights reserved, dear customer</div>'
    reading = look(letter(f"<p>Hej Bo, ses vi på mötet?</p>{hidden}", kind="text/html"))
    assert reading.looks is not Looks.MAILING
    assert "hidden-text" in names(reading)
    assert "unsubscribe-words" not in names(reading)


def test_the_surroundings_may_be_empty() -> None:
    from smtpguard.reading.surroundings import Surroundings

    assert look(letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten"}), Surroundings()).looks is Looks.INTERNAL
    assert around().is_colleague("anna@sub.example.com")
    assert not around().is_colleague("customers@example.com")
