"""Each mark: the table is sound, and one message that has it, with its evidence; marks of the text, and admins' changes."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from smtpguard.locale.phrase import Phrase
from smtpguard.mail.message import Message
from smtpguard.reading import fold, markup, textmarks, unfinished
from smtpguard.reading.fold import letters
from smtpguard.reading.looks import THRESHOLD, Looks, Readable, judge
from smtpguard.reading.marks import KINDS, Mark, Side, veiled
from smtpguard.reading.phrases import _PHRASES
from smtpguard.reading.request import Custom
from smtpguard.reading.textmarks import _phrases
from smtpguard.reading.topics import Topic
from tests.every import every
from tests.reading.letters import GROWN_THREAD, NEW_THREAD, PLATFORM, around, letter, look, names, parts

ICS = "BEGIN:VCALENDAR\nMETHOD:REQUEST\nEND:VCALENDAR"
EXAMPLES: list[tuple[str, Mapping[str, str], str]] = [
    ("outlook-thread", {"Thread-Index": GROWN_THREAD}, "x"),
    ("thread-index", {"Thread-Index": NEW_THREAD}, "x"),
    ("thread-index", {"Thread-Topic": "x"}, "x"),
    ("thread-index", {"Thread-Index": "not base64!"}, "x"),
    ("quoted-headers", {}, "Ja\n\nVon: A\nGesendet: heute\nAn: B\nBetreff: C\n\nx"),
    ("quoted-text", {}, "Ja\n\n> a\n> b\n"),
    ("colleague-quoted", {}, "Ja\n\nFrån: A <a@example.com>\nSkickat: idag\nTill: B\n\nx"),
    ("colleague-referenced", {"In-Reply-To": "<5@mail.example.com>"}, "x"),
    ("references", {"References": "<5@example.org>"}, "x"),
    ("reply-prefix", {"Subject": "=?utf-8?Q?SV=3A_D=C3=A4r?="}, "x"),
    ("forward-prefix", {"Subject": "VB: x"}, "x"),
    ("tool-notice", {"From": "Teams <noreply@email.teams.microsoft.com>"}, "x"),
    ("tool-notice", {"From": "jira@example.com", "X-JIRA-FingerPrint": "1"}, "x"),
    ("exchange-headers", {"X-MS-Has-Attach": ""}, "x"),
    ("our-exchange", {"X-OriginatorOrg": "example.com"}, "x"),
    ("originator-org", {"X-OriginatorOrg": "example.net"}, "x"),
    ("mail-program", {"X-Mailer": "iPhone Mail (21A329)"}, "x"),
    ("mail-program", {"Message-ID": "<CAKx2y0123456789abcdefghijABCDEFGHIJ@mail.gmail.com>"}, "x"),
    ("mail-program", {"Message-ID": "<0A1B2C3D-0000-4000-8000-0123456789AB@example.com>"}, "x"),
    ("mobile-footer", {}, "Ok\n\nSkickat från min iPhone"),
    ("mobile-footer", {}, "Ok\n\nHämta Outlook för iOS"),
    ("mobile-footer", {}, "Ok\n\nGesendet von meinem iPhone"),
    ("one-house", {"To": "bo@example.net", "From": "a@example.net"}, "x"),
    ("colleagues-shown", {"To": "bo@example.com"}, "x"),
    ("copies", {"Cc": "c@example.org, d@example.org"}, "x"),
    ("label-inside", {"MSIP_Labels": "MSIP_Label_1234abcd-0000-4000-8000-0123456789ab_Name=Internal;"}, "x"),
    ("label-inside", {"Sensitivity": "Company-Confidential"}, "x"),
    ("label", {"MSIP_Labels": "MSIP_Label_1234abcd-0000-4000-8000-0123456789ab_Name=General;"}, "x"),
    ("label-public", {"MSIP_Labels": "MSIP_Label_1234abcd-0000-4000-8000-0123456789ab_Name=Public;"}, "x"),
    ("inside-only", {}, "Endast för internt bruk"),
    ("inside-only", {}, "INTERNAL USE ONLY"),
    ("inside-only", {}, "Nur für den internen Gebrauch"),
    ("inside-only", {}, "Vain sisäiseen käyttöön"),
    ("internal-words", {}, "Får ej spridas"),
    ("internal-words", {}, "Strictly confidential"),
    ("confidentiality", {}, "This email and any attachments are for the addressee"),
    ("out-of-office", {"Subject": "Autosvar: semester"}, "Jag är på semester"),
    ("addressed", {}, "Hej Bo,\n\nx"),
    ("addressed", {}, "Chris, the report is late"),
    ("signed", {}, "x\n\nMed vänlig hälsning\nAnna Ek"),
    ("signed", {}, "x\n\nViele Grüße,\nKlaus"),
    ("signed", {}, "Thanks for this.\n\nMark"),
    ("signature-block", {}, "x\n\nAnna Ek\nSäljare\nTel: +46 70 123 45 67"),
    ("work-talk", {}, "Kan du komma på mötet?"),
    ("personal-voice", {}, "I think that I am late"),
    ("short-and-plain", {}, "x"),
    ("plain", {}, "x " * 1000),
    ("no-bulk-signs", {}, "x"),
    ("internal-host", {"Received": "from pc12.example.local ([10.1.2.3]) by mx.example.com; Mon, 3 Mar 2025 09:12:00 +0100"}, "x"),
    ("names-inside", {"To": "'Bo Alm' </O=EXAMPLE/OU=EU/CN=RECIPIENTS/CN=BALM>"}, "x"),
    ("one-click", {"List-Unsubscribe": "<https://x.example/u>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}, "x"),
    ("list-unsubscribe", {"List-Unsubscribe": "<mailto:u@x.example>"}, "x"),
    ("list-id-ours", {"List-Id": "Ramadan <ramadan.lists.example.com>"}, "x"),
    ("list-id", {"List-Id": "<other.example.net>"}, "x"),
    ("precedence", {"Precedence": "Bulk"}, "x"),
    ("feedback-id", {"Feedback-ID": "i1:fastmail-user"}, "x"),
    ("platform-feedback-id", {"Feedback-ID": "1:2:3:mc"}, "x"),
    ("platform", {"X-SG-EID": "abc"}, "x"),
    ("platform", {"X-Mailer": "MailChimp Mailer"}, "x"),
    ("campaign-header", {"X-CampaignID": "17"}, "x"),
    ("platform-links", {}, "https://example.us1.list-manage.com/track/click?u=1"),
    ("campaign-links", {}, "https://x.example/?utm_source=a https://x.example/b?utm_medium=c"),
    ("auto-generated", {"Auto-Submitted": "auto-generated"}, "x"),
    ("auto-generated", {"X-Mailer": "JavaMail"}, "x"),
    ("noreply", {"From": "no-reply@example.com"}, "x"),
    ("noreply", {"From": "svara-inte@example.com"}, "x"),
    ("role-sender", {"From": "nyhetsbrev@example.com"}, "x"),
    ("bounce-address", {"Return-Path": "<bounce-12345-kim=example.org@mail.example.net>"}, "x"),
    ("nobody-shown", {"To": "undisclosed-recipients:;"}, "x"),
    ("machine-to-one", {"From": "noreply@example.com", "To": "kim@customer.example", "Auto-Submitted": "auto-generated"}, "x"),
    ("nobody-shown", {"To": "anna@example.com"}, "x"),
    ("unsubscribe-words", {}, "Klicka här för att avregistrera dig"),
    ("unsubscribe-words", {}, "Pour vous désabonner"),
    ("unsubscribe-words", {}, "لإلغاء الاشتراك"),
    ("unsubscribe-link", {}, "https://x.example/unsubscribe?id=1"),
    ("preferences", {}, "Change your delivery preferences"),
    ("why-you-get-this", {}, "You are receiving this email because you signed up"),
    ("web-version", {}, "Problem? Visa i webbläsaren"),
    ("do-not-reply", {}, "This is an automated message"),
    ("imprint", {}, "Example AB. All rights reserved"),
    ("dear-customer", {}, "Kära kund!"),
    ("placeholder", {}, "Hej *|FNAME|*!"),
    ("placeholder", {}, "Hej {{ first_name }}!"),
    ("secretive", {}, "Säg inget till cheferna"),
    ("secretive", {}, "Bitte dem Chef noch nichts sagen, wir klären das am Montag"),
    ("secretive", {}, "Chefen får inte veta det här"),
    ("newsletter-words", {}, "Nyhetsbrev. Läs mer om rabatten"),
    ("order-words", {}, "Orderbekräftelse: din beställning, ordernummer 12"),
    ("many-links", {}, "https://x.example/ " * 20),
    ("draft", {"Subject": "UTKAST: Våren"}, "x"),
    ("comment", {}, "Våren är här.\n[Lisa: kolla priset]\n"),
    ("test", {"Subject": "test 123"}, "x"),
    ("filler", {}, "Lorem ipsum dolor sit amet"),
    ("empty", {}, ""),
    ("claimed-pass", {"X-Smtpguard": "id=1"}, "x"),
    ("list-post", {"X-Mailman-Version": "3.3", "List-Post": "<mailto:l@x.example>"}, "Jag tror det"),
    ("report", {"Return-Path": "<>"}, "x"),
    ("defect", {"Content-Type": "text/plain; charset=x-klingon"}, "x"),
    ("ambiguous", {"Content-Type": "application/ms-tnef"}, "x"),
    ("contradiction", {"Thread-Index": GROWN_THREAD, "List-Unsubscribe": "<mailto:u@x.example>"}, "x"),
]  # fmt: skip
HTML: list[tuple[str, str]] = [
    ("quoting-markup", '<p>Ja</p><div class="gmail_quote">On Monday A wrote: <blockquote>x</blockquote></div>'),
    ("quoting-markup", '<p>Ja</p><div id="divRplyFwdMsg"><b>From:</b> A</div><p>x</p>'),
    ("quoting-markup", "<p>Ja</p><blockquote type=cite>x</blockquote>"),
    ("composition", '<div dir="ltr">Hi</div>'),
    ("composition", '<div class="WordSection1"><p class=MsoNormal>Hej</p></div>'),
    ("composition", '<div class="elementToProof">Hej</div>'),
    ("composition", '<body style="word-wrap: break-word; -webkit-line-break: after-white-space;">Hej</body>'),
    ("template", "<table><tr><td>a</table>" * 7),
    ("template", '<head><meta name="viewport" content="x"></head><!--[if mso]><![endif]--><table role="presentation"><tr><td>a</table><table></table>'),
    ("tracking-pixel", '<p>x</p><img src="https://x.example/o" width="1" height="1">'),
    ("preheader", '<div style="display:none">Höstens erbjudanden väntar</div><table><tr><td>x</table>'),
    ("hidden-text", "<p>x</p><span hidden>något som ingen ser</span>"),
    ("hidden-text", "<style>.h{display:none}</style><p>x</p><p class=h>något som ingen ser</p>"),
    ("many-links", '<a href="https://x.example/">x</a>' * 12),
]  # fmt: skip


@every(("name", "headers", "body"), EXAMPLES)
def test_a_message_has_the_mark(name: str, headers: Mapping[str, str], body: str) -> None:
    check(name, letter(body, headers))


@every(("name", "html"), HTML)
def test_markup_has_the_mark(name: str, html: str) -> None:
    check(name, letter(html, kind="text/html"))


@every(
    "body",
    [
        "Bitte speichern Sie alles und melden sich um acht ab, also vor dem Update abmelden.", "Tom needs to sign off the budget on Friday.",
        "Old files will be removed from the server; the laptops are to be removed on Monday.", "Gli appuntamenti di domani sono cancellati.",
        "Rezygnacja Piotra z pracy wchodzi w życie w piątek.", "Husk at afmelde frokost senest torsdag.",
        "Vergeet niet om je na het werk af te melden en je pc af te sluiten: afmelden is verplicht.", "Sie können die Einstellungen ändern, wenn Outlook offen ist.",
    ],
)  # fmt: skip
def test_everyday_words_are_none_of_a_mailing(body: str) -> None:
    assert not {"unsubscribe-words", "preferences"} & names(look(letter(body)))


@every(
    ("name", "body"),
    [
        ("unsubscribe-words", "Newsletter abmelden"), ("unsubscribe-words", "Hier abmelden"), ("unsubscribe-words", "Rezygnacja z newslettera"),
        ("unsubscribe-words", "Abonelikten çıkmak için tıklayın"), ("unsubscribe-words", "Afmeld nyhedsbrevet"),
        ("web-version", "Tarayıcıda görüntüle"), ("web-version", "לצפייה בדפדפן"), ("do-not-reply", "本メールは送信専用です"),
        ("dear-customer", "Değerli müşterimiz"), ("inside-only", "Yalnızca şirket içi kullanım içindir"), ("inside-only", "לשימוש פנימי בלבד"),
        ("inside-only", "Liebe Mitarbeiterinnen und Mitarbeiter,"), ("inside-only", "社員各位"), ("addressed", "Szanowni Państwo,\n\ndziś pracujemy."),
        ("signed", "Toplantı yarın.\n\nSaygılarımla\nAyşe Yılmaz"), ("signed", "נתראה מחר\n\nבברכה\nדנה"),
        ("inside-only", "Personalbladet nr 11"), ("inside-only", "社内報 11月号"), ("inside-only", "عدد جديد من نشرة الموظفين"),
        ("do-not-reply", "يرجى عدم الرد على هذه الرسالة"), ("dear-customer", "عملاءنا الكرام،"),
    ],
)  # fmt: skip
def test_words_of_more_languages_are_known(name: str, body: str) -> None:
    assert name in names(look(letter(body)))


@every(
    ("body", "looks"),
    [
        ("Hello,\n\nYour payslip for November is now available. Salaries are paid on the 25th.\n\nThis is an automatically generated message, please do not reply.", Looks.UNCLEAR),
        ("Hej!\n\nPå fredag mellan 18 och 22 uppdateras filservern. Logga ut innan du går hem.\n\nDetta mejl går inte att svara på.", Looks.UNCLEAR),
        ("The printer on floor 3 is out of order until Monday.\n\nPlease do not reply.", Looks.UNCLEAR),
        ("各位\n\n金曜日18時からファイルサーバーを停止します。\n\n本メールには返信できません。", Looks.UNCLEAR),
        ("Dear customer,\n\nyour broadband is interrupted on Saturday from 2 to 6 am.\n\nThis mailbox is not monitored.", Looks.MAILING),
        ("Tack för din beställning! Ordernummer 1182.\n\nDetta mejl går inte att svara på.", Looks.MAILING),
    ],
)  # fmt: skip
@every(
    "more",
    [{}, {"Auto-Submitted": "auto-generated"}, {"Return-Path": "<bounce-12345-kim=example.org@mail.example.net>"}],
)
def test_what_a_machine_sends_is_no_mailing_for_that_alone(body: str, looks: Looks, more: dict[str, str]) -> None:
    """Its address, its header and its words say one thing: nobody reads answers."""
    message = letter(body, {"From": "noreply@example.com", "To": "customers@example.com", **more})
    assert look(message).looks is looks


@every("more", [{"Auto-Submitted": "auto-generated"}, {}])
def test_a_machine_that_writes_to_one_person_outside_writes_to_customers(more: dict[str, str]) -> None:
    body = "Your code is 482913." + ("" if more else "\n\nThis is an automated message, please do not reply.")
    head = {"From": "noreply@example.com", **more}
    assert look(letter(body, {**head, "To": "kim@customer.example"})).looks is Looks.MAILING
    for to in ("customers@example.com", "bo@example.com", "kim@customer.example, ola@other.example"):
        assert look(letter(body, {**head, "To": to})).looks is Looks.UNCLEAR


@every(
    "head",
    [
        {"From": "Microsoft Teams <noreply@email.teams.microsoft.com>"}, {"From": "Slack <notification@slack.com>", "X-SES-Outgoing": "1"},
        {"From": "Bo Alm <notifications@github.com>", "X-GitHub-Reason": "mention", **PLATFORM}, {"From": "comments-noreply@docs.google.com"},
        {"From": "jenkins@example.com", "X-Jenkins-Job": "shop", "Auto-Submitted": "auto-generated"},
        {"From": "Bo Alm via Mattermost <noreply@chat.example.com>", "Precedence": "bulk", "Auto-Submitted": "auto-generated"},
        {"From": '"Bo Alm via Zulip" <noreply@chat.example.com>', "List-Unsubscribe": "<https://chat.example.com/unsubscribe/missed_messages/1>"},
        {"From": "IT <example@service-now.com>"}, {"From": "IT <it@example.com>", "X-ServiceNow-Generated": "true", "Precedence": "bulk"},
        {"From": "YouTrack <noreply@youtrack.cloud>"}, {"From": "noreply@example.com", "X-Mailer": "OTRS Mail Service (6.0.30)"},
        {"From": "noreply@example.com", "X-Powered-By": "Zammad - Helpdesk/Support (https://zammad.org/)"},
        {"From": '"Bo Alm via RT" <rt@example.com>', "X-RT-Loop-Prevention": "example.com", "Precedence": "bulk"},
    ],
)  # fmt: skip
def test_what_colleagues_write_in_a_tool_is_no_mailing(head: dict[str, str]) -> None:
    """The signs of a mailing in its notices are the tool's. To one customer it writes as a help desk."""
    body = "Bo: did you see what their buyer wrote?\n\nThis mailbox is not monitored. Update your email preferences."
    assert look(letter(body, head)).looks is Looks.INTERNAL
    assert look(letter(body, {**head, "To": "bo@example.com"})).looks is Looks.INTERNAL
    helped = look(letter(body, {**head, "To": "kim@customer.example"}))
    assert "tool-notice" not in names(helped)
    assert helped.looks is not Looks.INTERNAL


@every(
    "sender",
    [
        "news@myslack.com",
        "slack.com@shop.example",
        "news@google.com",
        "offers@microsoft.com",
        "Zulipa via Zulu <x@zulip.example>",
    ],
)
def test_an_address_like_a_tools_is_none(sender: str) -> None:
    assert "tool-notice" not in names(look(letter("x", {"From": sender})))


def test_the_maker_of_a_tool_sends_mailings_from_its_domain() -> None:
    ours = replace(around(), domains=frozenset({"trello.com"}))
    assert look(letter("Our offers. Unsubscribe here.", {"From": "news@trello.com"}), ours).looks is Looks.MAILING


@every("body", ["Summary: from 09:12 to 10:47 payments failed.", "Pris: 120 kr", "Datum: 24 november"])
def test_a_label_is_no_salutation(body: str) -> None:
    assert "addressed" not in names(look(letter(body)))


@every("body", ["Anna:\n\nkan du komma?", "Anna, kan du komma?", "Anna och Bo!\nKan ni komma?"])
def test_a_name_with_any_sign_is_a_salutation(body: str) -> None:
    assert "addressed" in names(look(letter(body)))


@every("last", ["Unsubscribe", "Avregistrera", "View Online", "Privacy Policy"])
def test_words_of_a_mailing_at_the_end_are_no_name(last: str) -> None:
    assert "signed" not in names(look(letter(f"Spring has come.\n\nUnsubscribe\n{last}")))
    assert "signed" in names(look(letter(f"{last}\n\nAnna")))


def test_phrases_are_in_the_form_in_which_they_are_looked_for() -> None:
    for languages in _PHRASES.values():
        for phrase in "|".join(languages.values()).replace("*", "").split("|"):
            assert " ".join(fold.fold(phrase).split()) == phrase


def test_hidden_text_elsewhere_is_no_preview() -> None:
    hidden = "<table><tr><td>{}Hej Bo, ses vi?</td></tr></table><p style='mso-hide:all'>{}något som ingen ser</p>"
    assert "preheader" not in names(look(letter(hidden.format("", ""), kind="text/html")))
    first = "<style>p{display:none}</style><div> <!-- x --></div><p>något som ingen ser</p>"
    assert "preheader" in names(look(letter(first + hidden.format("", ""), kind="text/html")))


def test_parts_have_the_mark() -> None:
    check("calendar", parts(("Content-Type: text/plain", "x"), ("Content-Type: text/calendar; method=REQUEST", ICS)))
    check(
        "documents",
        parts(
            ("Content-Type: text/plain", "x"),
            ("Content-Type: application/msword\nContent-Disposition: attachment; filename=a.docx", "x"),
        ),
    )
    check(
        "file",
        parts(
            ("Content-Type: text/plain", "x"),
            ("Content-Type: application/msword\nContent-Disposition: attachment; filename=utkast.docx", "x"),
        ),
    )
    check(
        "attached-mail",
        parts(
            ("Content-Type: text/plain", "x"), ("Content-Type: message/rfc822", "From: k@x.example\nSubject: s\n\nx")
        ),
    )


def check(name: str, message: Message) -> None:
    marks = [m for m in look(message).marks if m.name == name]
    assert marks, f"no {name}"
    assert len(marks[0].evidence) > 8
    assert "\n" not in marks[0].evidence


def test_every_kind_of_mark_has_an_example() -> None:
    shown = {e[0] for e in EXAMPLES} | {e[0] for e in HTML} | {"calendar", "documents", "file", "attached-mail"}
    shown.add("authenticated")
    assert set(KINDS) - shown == {
        "declared-origin",
        "shared-origin",
        "list-unproven",
    }  # these depend on the origin (looks)


def test_trusted_authentication_results_are_read_without_weight() -> None:
    results = "mx.example.com; dkim=pass header.d=News.Example; dmarc=fail header.from=news.example"
    trusting = replace(around(), authserv_ids=frozenset({"mx.example.com"}))
    message = letter("x", {"Authentication-Results": results})
    reading = look(message, trusting)
    assert {m.evidence for m in reading.marks if m.name == "authenticated"} == {
        "mx.example.com says that news.example signed it", "mx.example.com says that From failed its checks (DMARC)"
    }  # fmt: skip
    assert reading.vouched == {"news.example"}
    assert reading.score == look(message).score
    other = letter("x", {"Authentication-Results": results.replace("mx.", "evil.")})
    assert not look(other, trusting).vouched
    assert not look(message).vouched


def test_the_table_of_marks_is_consistent() -> None:
    for kind in KINDS.values():
        assert 0 < kind.weight <= 6
        assert len(kind.reason) > 10
        assert bool(kind.group) == (kind.side is not Side.NEITHER) or kind.group in ("label", "unfinished")


def test_the_same_evidence_is_made_once() -> None:
    says = 'it ends as a letter: "{words}"'
    one, again, other = (KINDS["signed"].mark(says, words=words) for words in ("Anna", "Anna", Phrase("Anna")))
    assert one is again
    assert (type(one.evidence.values["words"]), type(other.evidence.values["words"])) == (str, Phrase)


def test_a_contradiction_has_its_own_phrases_also_if_others_are_the_same_in_english() -> None:
    def evidence(one: Phrase) -> Phrase:
        marks = (
            replace(mark("a", Side.INTERNAL, 4.0), evidence=one), mark("b", Side.MAILING, 4.0)
        )  # fmt: skip
        return judge(marks)[2][-1].evidence

    first = evidence(Phrase('the text says "{words}"', words="Anna"))
    other = evidence(Phrase('the {what} says "Anna"', what="text"))
    assert first == other
    assert (first.quoted, other.quoted) == (("Anna",), ())


def mark(name: str, side: Side, weight: float, group: str = "") -> Mark:
    return Mark(name=name, side=side, weight=weight, evidence=Phrase("because"), group=group)


def test_the_heaviest_mark_of_a_group_counts() -> None:
    looks, score, _ = judge(
        [mark("a", Side.INTERNAL, 1.0, "g"), mark("b", Side.INTERNAL, 1.5, "g"), mark("c", Side.INTERNAL, 1.0, "h")]
    )
    assert (looks, score) == (Looks.INTERNAL, 2.5)


def test_thresholds_decide() -> None:
    assert judge([mark("a", Side.INTERNAL, THRESHOLD)])[0] is Looks.INTERNAL
    assert judge([mark("a", Side.INTERNAL, THRESHOLD - 0.25)])[0] is Looks.UNCLEAR
    assert judge([mark("a", Side.MAILING, THRESHOLD)])[0] is Looks.MAILING
    assert judge([mark("a", Side.MAILING, THRESHOLD)], readable=Readable.UNREADABLE)[0] is Looks.UNCLEAR
    assert judge([mark("a", Side.NEITHER, 9.0)])[:2] == (Looks.UNCLEAR, 0.0)
    assert judge([])[0] is Looks.UNCLEAR


def test_an_internal_announcement_is_no_mailing() -> None:
    body = "Dear customer service, this is our newsletter. Click here to read more. You are receiving this because you are staff."
    assert look(letter(body, {"From": "info@example.com", "To": "bo@example.com"})).looks is not Looks.MAILING


def test_a_quoted_mailing_is_not_the_writers() -> None:
    body = "Hej Bo, ska vi göra något sådant?\n\nFrån: Shop <news@shop.example>\nSkickat: idag\nTill: Anna\nÄmne: Rea\n\nUnsubscribe: https://shop.example/unsubscribe\n"
    reading = look(letter(body, {"Subject": "VB: Rea"}))
    assert reading.looks is Looks.INTERNAL
    assert not {"unsubscribe-words", "unsubscribe-link"} & names(reading)


def topic(word: str, where: str = "text") -> Phrase:
    return Topic(vocabulary="pork", term=word, where=where, word=word).phrase


@every(
    ("evidence", "shown"),
    [
        (topic("bacon"), '"…" (pork, in the text)'),
        (Phrase('it quotes an earlier mail: "{line}"', line='From: "Lotta" <l@example.com>\nSent: today'), 'it quotes an earlier mail: "…"'),
        (Phrase("the quoted mail was written by or to {address}", address="lotta@example.com"), "the quoted mail was written by or to …"),
        (Phrase("{address} and {more} more is shown in To or Cc and is a colleague", address="a@example.com", more=2),
         "… and 2 more is shown in To or Cc and is a colleague"),
        (Phrase("marks of both sides: {one}; yet {other}", one=topic("bacon"), other=Phrase("it shows {n} recipients", n=2)),
         'marks of both sides: "…" (pork, in the text); yet it shows 2 recipients'),
        (Phrase("it shows {n} recipients", n=2), "it shows 2 recipients"),
        (Phrase("written by {address}", address='"lotta l"@example.com'), "written by …"),
        (Phrase("it comes from {who}", who="Lotta, lotta (at) example.com"), "it comes from Lotta, …"),
    ],
)  # fmt: skip
def test_veiled_evidence_has_no_word_of_the_message(evidence: Phrase, shown: str) -> None:
    assert veiled(evidence) == shown


@every(
    ("evidence", "shown"),
    [
        (topic("bacon", where="subject"), '"bacon" (pork, in the subject)'),
        (Phrase('the subject begins with "{spelled}"', spelled="SV:"), 'the subject begins with "SV:"'),
        (topic("ham"), '"…" (pork, in the text)'),
        (Phrase("it comes from {address}, which takes no answers", address="a@example.com"), "it comes from …, which takes no answers"),
    ],
)  # fmt: skip
def test_words_of_the_subject_are_not_veiled(evidence: Phrase, shown: str) -> None:
    assert veiled(evidence, "SV: Bacon a@example.com") == shown


def test_no_examples_evidence_shows_its_text() -> None:
    told = {veiled(m.evidence) for _, headers, body in EXAMPLES for m in look(letter(body, headers)).marks}
    assert len(told) > 40
    assert not [t for t in told if "@" in t or re.search(r'"[^"…]+"', t)]


def test_a_changed_weight_changes_the_result() -> None:
    message = letter(
        "Höstens utställning öppnar på lördag.\n\nhttps://a.example/\nhttps://b.example/\nhttps://c.example/", PLATFORM
    )
    assert look(message).looks is Looks.MAILING
    off = replace(around(), weights=dict.fromkeys(("one-click", "platform-feedback-id", "campaign-header"), 0.0))
    reading = look(message, off)
    assert reading.looks is not Looks.MAILING
    assert "one-click" not in names(reading)


@every(
    ("custom", "evidence"),
    [
        (Custom(name="c", side=Side.INTERNAL, weight=4, header="X-Department"), "the field X-Department is there"),
        (
            Custom(name="c", side=Side.INTERNAL, weight=4, header="X-Department", term="SALES"),
            'the field X-Department says "SALES"',
        ),
        (
            Custom(name="c", side=Side.INTERNAL, weight=4, header="X-Department", pattern="^sa.es$"),
            'the field X-Department says "Sales"',
        ),
        (Custom(name="c", side=Side.INTERNAL, weight=4, term="project tulip"), 'the text says "project tulip"'),
        (Custom(name="c", side=Side.INTERNAL, weight=4, pattern=r"PT-\d+"), 'the text says "PT-17"'),
    ],
)
def test_custom_marks_are_found(custom: Custom, evidence: str) -> None:
    message = letter("Project Tulip, PT-17", {"X-Department": "Sales"})
    (mark,) = [m for m in look(message, replace(around(), customs=(custom,))).marks if m.name == "c"]
    assert mark.evidence == evidence
    assert "c" not in names(look(letter("x"), replace(around(), customs=(custom,))))


def test_patterns_are_linear() -> None:
    custom = Custom(name="c", side=Side.INTERNAL, weight=1, pattern="(a+)+$")
    look(letter("a" * 50_000 + "!"), replace(around(), customs=(custom,)))


def test_half_a_character_does_not_stop_a_pattern() -> None:
    custom = Custom(name="c", side=Side.INTERNAL, weight=1, pattern="tulip")
    message = letter("+2AA- tulip", {"Content-Type": "text/plain; charset=utf-7", "Subject": "=?utf-7?Q?+2AA-?="})
    assert "c" in names(look(message, replace(around(), customs=(custom,))))


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("Bacon och Sprit funkar för mig. Ses vi på mötet\nimorgon? Klicka här för att se", 'Sprit funkar för mig. Ses vi på mötet imorgon? Klicka här för"'),
        ("KLICKA HÄR för att Avregistrera dig", '"KLICKA HÄR för att Avregistrera dig"'),
    ],
)  # fmt: skip
def test_evidence_is_whole_words_in_their_spelling(text: str, evidence: str) -> None:
    assert any(found.endswith(evidence) for _, found in _phrases(text)), dict(_phrases(text))


def test_evidence_of_any_text_is_whole_words() -> None:
    words = "Vi Träffas på Mötet imorgon och pratar om Budgeten. Klicka Här för att Avregistrera dig, Åsa."
    for n in range(40):
        text = f"{'x' * n} {words} {'y' * (40 - n)} Slut"
        for _, found in _phrases(text):
            shown = found.partition(': "')[2].removesuffix('"')
            assert f" {shown} " in f" {text} ", found


def test_plain_words_that_are_searched_first_find_all_that_the_patterns_do() -> None:
    titles = textmarks._TITLED.pattern.removeprefix(r"\b(?:").removesuffix(r")\b").split("|")
    assert all(any(word in title for word in textmarks._TITLES) for title in titles)
    phrases = ("This is a TEST", "please ignore this", "Bortse från det här mejlet", "dies ist ein Test", "tämä on testi", "esto es una prueba")  # fmt: skip
    assert all("test" in dict(unfinished.unfinished_signs("", f"Hello. {phrase}.")) for phrase in phrases)


def test_patterns_tried_at_line_ends_and_brackets_find_all_that_a_search_does() -> None:
    draw = random.Random(0)
    some = ["\n", "Lisa, kolla det", "[check this]", "[insert text here]", "Note to self: ring Bo", "Note to self", "check ", ". ", "! ", "Mvh Anna", "Regards,\nBo Ek", "Thanks", "ord och ord", "("]  # fmt: skip
    met = 0
    for _ in range(500):
        text = "".join(draw.choices(some, k=9))
        closings = list(textmarks._CLOSING.finditer(text))
        assert (textmarks._last_closing(text) or [None])[0] == (closings[-1][0] if closings else None)
        for pattern, words in unfinished._LOOKED_FOR:
            places = [at for at, first in unfinished._SIGNS.iter(text.lower()) if first == words[0]]
            for some_text in (text, f"{text} é"):  # in ASCII only the lines with a sign are looked at
                found = unfinished._search_lines(pattern, some_text, places)
                assert (found or [None])[0] == (pattern.search(some_text) or [None])[0]
            met += (pattern.search(text) is not None) + bool(closings)
            assert pattern.search(text) is None or any(word in text.lower() for word in words)
    assert met > 500
    every = [word.lower() for words in (unfinished._STAMPS, unfinished._REMINDERS, *(words for _, words in unfinished._LOOKED_FOR), unfinished._TESTS, unfinished._FILLERS) for word in words]  # fmt: skip
    assert len(every) == len(set(every)), "each word stands for one tuple"


def test_letters_are_the_same_in_ascii_and_beyond() -> None:
    text = "".join(map(chr, range(128)))
    assert letters(text) == letters(f"{text} é")[:-1] == fold._LETTERS.findall(text)


def test_one_pass_finds_every_sign_of_html() -> None:
    begun = "|".join(sign[:-1] for sign in markup.ALL)
    for source in ("é\0".join(markup.ALL), begun, *(f"\ud800{sign}{begun}" for sign in markup.ALL)):
        assert markup.signs_in(source) == {sign for sign in markup.ALL if sign in source}


@every(
    ("text", "language"),
    [
        ("De kommer i morgon och har med sig underlaget", "sv"), ("La reunión de mañana es de once a doce", "es"), ("A reunião de amanhã é das onze ao meio-dia", "pt"),
        ("De vergadering van de afdeling is om tien uur", "nl"), ("Le rapport de Pierre est de retour", "fr"), ("The report is at www.example.de", "en"),
        ("https://news.example.com/x/1 bo@example.com", ""), ("Merhaba, cuma günü 12.00'de yeni lokantaya gelmek isteyen var mı?", ""), ("שלום https://news.example.com/x/1", ""),
    ],
)  # fmt: skip
def test_the_end_of_an_address_is_no_word_of_a_language(text: str, language: str) -> None:
    assert fold.language_of(text) == language
