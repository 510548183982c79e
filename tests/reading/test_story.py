"""How the reader sees the story, campaigns and ordinary mail: what each looks like, and its marks.

For disguised content, see test_disguises.
"""

from __future__ import annotations

from smtpguard.reading.looks import Looks, from_declared_origin
from smtpguard.reading.request import Surroundings
from tests.every import every
from tests.reading.letters import (
    CAMPAIGN,
    GROWN_THREAD,
    NEW_THREAD,
    OUTLOOK,
    PLATFORM,
    STORY,
    around,
    letter,
    look,
    names,
    parts,
    topics,
)


def test_the_story_looks_internal() -> None:
    reading = look(letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten", "To": "ramadan@lists.example.com"}))
    assert reading.looks is Looks.INTERNAL
    assert topics(reading) == {"pork", "alcohol", "diets"}
    assert {"outlook-thread", "reply-prefix", "colleague-quoted", "our-exchange"} <= names(reading)
    assert reading.language == "sv"
    assert 'the subject begins with "SV:"' in {m.evidence for m in reading.marks}


def test_the_story_in_english_html_and_alt_text() -> None:
    html = '<div class="WordSection1"><p class="MsoNormal">Low carb works! Eat b<b>ac</b>on.</p><img src="cid:1" alt="A bottle of liquor"></div>'
    reading = look(letter(html, {**OUTLOOK, "Subject": "RE: Diet", "Thread-Index": GROWN_THREAD}, kind="text/html"))
    assert reading.looks is Looks.INTERNAL
    assert {(t.vocabulary, t.where) for t in reading.topics} == {
        ("diets", "subject"),
        ("diets", "html"),
        ("pork", "html"),
        ("alcohol", "alt text"),
    }


def test_the_story_without_outlook_headers() -> None:
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


def test_a_campaign_without_bulk_headers_is_not_internal() -> None:
    reading = look(letter(CAMPAIGN, {"From": "Example <news@example.com>", "Subject": "Höst"}, kind="text/html"))
    assert reading.looks is not Looks.INTERNAL


def test_a_newsletter_written_in_outlook_is_not_internal() -> None:
    body = "<p class=MsoNormal>Hej kund!</p><p>Läs mer om våra erbjudanden.</p><p>Vill du inte ha fler brev? Avregistrera dig här.</p>"
    fields = {"Thread-Index": NEW_THREAD, "X-Mailer": "Microsoft Outlook 16.0"}
    assert look(letter(body, fields, kind="text/html")).looks is not Looks.INTERNAL
    assert look(letter(body, {**fields, **PLATFORM}, kind="text/html")).looks is Looks.MAILING


def test_a_forged_list_unsubscribe_makes_no_mailing() -> None:
    reading = look(letter(STORY, {**OUTLOOK, **PLATFORM, "Subject": "SV: Dieten"}))
    assert reading.looks is not Looks.MAILING
    assert "contradiction" in names(reading)


def test_all_marks_of_a_mailing_do_not_outweigh_a_conversation() -> None:
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


@every("field", ["X-Smtpguard", "DKIM-Signature", "Auto-Submitted", "List-Unsubscribe"])
def test_no_single_field_makes_a_mailing(field: str) -> None:
    value = {"Auto-Submitted": "auto-generated", "List-Unsubscribe": "<https://x.example/u>"}.get(field, "id=1; mac=2")
    assert look(letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten", field: value})).looks is not Looks.MAILING


def test_our_own_trace_is_noted_and_exempts_nothing() -> None:
    reading = look(letter(STORY, {"X-Smtpguard": "id=1; policy=2; mac=3"}))
    assert "claimed-pass" in names(reading)
    assert reading.looks is Looks.INTERNAL


def test_a_post_on_a_list_is_no_mailing() -> None:
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


def test_internal_mail_expanded_by_our_list_server_is_no_mailing() -> None:
    fields = {
        **OUTLOOK, "Subject": "SV: Dieten", "List-Id": "<ramadan.lists.example.com>", "List-Unsubscribe": "<mailto:x@lists.example.com>",
        "List-Post": "<mailto:ramadan@lists.example.com>", "X-BeenThere": "ramadan@lists.example.com", "Precedence": "list",
    }  # fmt: skip
    assert look(letter(STORY, fields)).looks is Looks.INTERNAL


def test_the_declared_origin_makes_unclear_mail_a_mailing() -> None:
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


# Ordinary mail. The policy lets it pass; here it only has to look like what it is.


def test_an_answer_to_a_customer_is_no_forwarded_conversation() -> None:
    body = "Hej Kim,\n\noffert bifogas.\n\nMvh\nAnna\n\nFrån: Kim <kim@customer.example>\nSkickat: idag\nTill: Anna Ek\nÄmne: Offert\n\nHej!\n"
    reading = look(letter(body, {**OUTLOOK, "Subject": "SV: Offert", "To": "kim@customer.example"}))
    assert reading.looks is Looks.INTERNAL
    assert not reading.forwarded_thread
    assert reading.shown == {"kim@customer.example"}


def test_a_forwarded_conversation_is_recognized() -> None:
    reading = look(letter("FYI\n" + STORY, {**OUTLOOK, "Subject": "VB: Dieten", "To": "kim@customer.example"}))
    assert reading.forwarded_thread


def test_a_password_reset_is_a_mailing() -> None:
    body = "You asked to reset your password. Your account: https://shop.example.com/r/9\nIf you didn't request this, ignore this message.\nPlease do not reply.\n"
    reading = look(
        letter(body, {"From": "noreply@example.com", "To": "kim@customer.example", "Auto-Submitted": "auto-generated"})
    )
    assert reading.looks is Looks.MAILING
    assert reading.automatic


def test_an_invitation_is_recognized() -> None:
    ics = "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:Vinprovning\nEND:VEVENT\nEND:VCALENDAR"
    reading = look(
        parts(("Content-Type: text/plain", "Välkomna"), ("Content-Type: text/calendar; method=REQUEST", ics))
    )
    assert "calendar" in names(reading)
    assert topics(reading) == {"alcohol"}


def test_a_letter_with_a_topic_is_internal() -> None:
    reading = look(letter("Hi Kim,\n\nwine at six?\n\nAnna\n", {"To": "kim@customer.example"}))
    assert topics(reading) == {"alcohol"}
    assert reading.looks is Looks.INTERNAL


def test_no_surroundings_are_needed() -> None:
    assert look(letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten"}), Surroundings()).looks is Looks.INTERNAL
    assert around().is_colleague("anna@sub.example.com")
    assert not around().is_colleague("customers@example.com")
