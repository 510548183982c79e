"""Signs of an unfinished message, and what only resembles them."""

from __future__ import annotations

import unicodedata
from base64 import b64encode

from smtpguard.gathering.values import evidence_of
from smtpguard.reading.looks import Looks
from smtpguard.reading.marks import UNFINISHED
from smtpguard.reading.unfinished import another_file, named_like_a_draft, unfinished_signs
from tests.every import every
from tests.reading.letters import CAMPAIGN, PLATFORM, letter, look, names

FOUND: dict[str, list[tuple[str, str]]] = {
    "placeholder": [("", t) for t in (
        "Hej {{first_name}}!", "Hi %%NAME%%,", "Hello *|FNAME|*", "Kära ${kund.namn}", "Hej [Förnamn],", "Dear <<First Name>>,", "Hej «Förnamn», välkommen", "Hej {$name}",
        "Dear ##NAME##", "{% if vip %}Hej", "Hallo {Vorname},", "Hej ,\nvåren är här", "Dear undefined,\nspring", "Hi null, spring", "%recipient.first% hej", "Bonjour [Prénom]",
        "Sehr geehrter Herr ,\nder Frühling", "Guten Tag Frau ,", "Sehr geehrte/r ,", "Dear Mr. ,\nspring", "Bästa fru ,", "Hej FÖRNAMN,\nvåren", "Dear Name,", "Hello (null),", "Hallo #NV,",
        "Hej #SAKNAS!,", "Ihr Guthaben beträgt #BEZUG! Punkte", "Hi [object Object],", "Att betala: NaN kr", "Due on Invalid Date", 'Hej {{contact.FIRSTNAME | default : ""}},',
    )] + [("Nyheter till {{ city }}", "Våren")],
    "draft": [("UTKAST: Våren", "x"), ("Draft - spring", "x"), ("[Entwurf] Frühling", "x"), ("Re: utkast till brev", "x"), ("Luonnos: kevät", "x"), ("", "UTKAST\nVåren är här"), ("", "Spring (DRAFT) news"), ("Brouillon : printemps", "x")],
    "comment": [("", t) for t in (
        "Våren är här. TODO: länk", "FIXME price", "Priset är TBD.", "Lisa check this\nSpring is here", "Vår!\n[Lisa: kolla detta]\n", "(Anna, stämmer det här?)", "Köp [infoga bild] nu", "Look <insert link> now",
        "@Omar kan du kolla priset\n", "Läs mer (länk hit)", "[kolla priset]", "Kommentar: byt bild\n", "(please check the price)",
    )],
    "test": [("test", "x"), ("Test 123", "x"), ("Testutskick: våren", "Hej"), ("[TEST] Spring", "Hello"), ("", "test"), ("", "Testar, testar"), ("Spring", "This is a test, please ignore"), ("Våren", "Det här är bara ett test"), ("Testmail", ""), ("List", "Please ignore this mail. If it works, we go live."), ("List", "Hi all,\nI try the list: please ignore this."), ("Våren", "Bortse från detta mejl.\n\nHar du frågor?"), ("List", "Does it arrive? Please ignore this mail."), ("Ignore this message", "x"), ("x", "Ignore this e-mail, it is a trial"), ("Lista", "Jag provar, bortse från det här utskicket!")],
    "filler": [("", "Lorem ipsum dolor sit amet"), ("", "asdfasdf"), ("", "Hier steht Blindtext"), ("", "bla bla bla")],
}  # fmt: skip
FINISHED: list[tuple[str, str]] = [
    ("Våren är här", "Kära kund, våren är här. Läs mer på vår sida."),
    ("Test drive the new car", "Book a test drive of our new car today. We have tested it for you, and the test results are in: best in test!"),
    ("Bäst i test", "Vår dammsugare blev bäst i test. Testa den du också!"),
    ("A draft beer evening", "We look at drafts of the new law. The draft was sent out in May."),
    ("Todos los días", "Todo está listo para la primavera. Hasta luego, amigos."),
    ("Offert", "Hej Lisa, kan du kolla det här förslaget och återkomma till mig? Jag har räknat om priset per meter enligt vad vi sa i telefon i går."),
    ("Priser", "Pris per st: 12 kr [exkl. moms]. Kontrollera alltid varan (vid leverans)."),
    ("Code", "Our API takes {name: value} and <b> tags."),
    ("Bonjour", "Bonjour ! Le printemps est là « comme prévu » dans nos magasins."),
    ("Namn", "Hej Namnlösa förening, välkommen. Dear Namrata, hi Nullarbor! Sehr geehrter Herr Ek, liebe Frau Ek, nanny gesucht."),
    ("Frau", "Sehr geehrte Frau Vorn-Müller, #NVIDIA und #name? sind da. Naan bread for 20 kr."),
    ("Invoice 88123", "If you have paid already, please ignore this reminder. It is due on 24 December."),
    ("Invoice 88123", "Please ignore this reminder."),
    ("Invoice 88123", "Please ignore this email if you have paid."),
    ("Your password", "You asked for a new one. If it was not you,\nignore this message; your password stays as it is."),
    ("Your password", "Did you not ask for it? You can safely ignore this email."),
    ("Påminnelse", "Fakturan förföll i går. Bortse från detta mejl om du redan har betalat."),
    ("Lösenord", "Någon har begärt ett nytt lösenord. Var det inte du kan du bortse från det här mejlet."),
    ("Last chance", "Do not ignore this message! Don't ignore this email."),
    ("Reminder", "Have you paid? Then please ignore this message."),
    ("Invitation", "Dear Sir or Madam, the date will be announced. Dear Anna , hello"),
]  # fmt: skip


@every(("kind", "subject", "text"), [(k, s, t) for k, those in FOUND.items() for s, t in those])
def test_unfinished_messages_are_recognized(kind: str, subject: str, text: str) -> None:
    assert kind in dict(unfinished_signs(subject, text)), dict(unfinished_signs(subject, text))


@every(("subject", "text"), FINISHED)
def test_finished_messages_are_not(subject: str, text: str) -> None:
    assert dict(unfinished_signs(subject, text)) == {}


@every(
    ("text", "files", "named"),
    [
        ("Priserna står i prislista-2026.pdf.", ["kundlista.xlsx"], "prislista-2026.pdf"),
        ("Bifogat finner ni prislista-2026.pdf.", ["logo.png", "prislista-2025.pdf"], "prislista-2026.pdf"),
        ("Bilaga: Prislista våren 2026.pdf", ["Kundlista 2026.xlsx"], "2026.pdf"),
        ("Our terms are in Terms_EN.docx (attached).", ["Terms_SV.docx"], "Terms_EN.docx"),
        ("Please see the attached file (pricelist.pdf)", ["salaries.pdf"], "pricelist.pdf"),
        ("Anbei das Angebot_März.pdf, wie im letzten Gespräch erwähnt.", ["Gehälter.xlsx"], "Angebot_März.pdf"),
        ("Im Anhang: preise.pdf und agb.pdf", ["Mitarbeiter.csv"], "preise.pdf"),
    ],
)
def test_a_differing_attachment_is_named(text: str, files: list[str], named: str) -> None:
    assert another_file(text, files) == (named, next(f for f in files if not f.endswith("png")))


@every(
    ("text", "files"),
    [
        ("See the attached offer.", ["Scan0001.pdf"]),
        ("See offer_v2.docx and terms.pdf", ["offer_v2.docx"]),
        ("See Offer.PDF", ["offer.pdf", "logo.zip"]),
        ("Bilaga: Prislista våren 2026.pdf", ["Prislista våren 2026.pdf"]),
        ("Bilaga: Prislista våren\n2026.pdf", ["Prislista_våren_2026.pdf"]),
        ("Bilaga: Prislista våren 2026.pdf", [unicodedata.normalize("NFD", "Prislista våren 2026.pdf")]),
        ("Bilaga: prislista.pdf", ["20260302 Prislista (1).pdf"]),
        ("(See attached file: Schedule 11-05 through 11-07.xls)", ["Schedule 11-05 through 11-07.xls"]),
        ("Anbei Änderungsmitteilung.docx", ["Aenderungsmitteilung.pdf"]),
        ("Läs mer: https://example.com/priser.pdf eller skriv till priser.pdf@example.com", ["villkor.pdf"]),
        ("Allt finns på www.example.com/a+b/våra~priser.pdf", ["villkor.pdf"]),
        ("Priser.pdf <https://share.example.com/x?y=1>", ["villkor.pdf"]),
        ("Ladda ner blanketten ansökan.pdf från vår hemsida.", ["villkor.pdf"]),
        ("Ich habe gestern Angebot.docx an Sie geschickt, heute der Rest.", ["Rest.docx"]),
        ("Thanks for contract.docx. My comments are in the file.", ["comments.docx"]),
        ("Som jag skrev i offert.pdf", []),
        ("Som jag skrev i offert.pdf", ["image001.png", "smime.p7s", "ATT00001.htm"]),
        ("Filerna heter a.pdf och b.pdf", ["allt.zip"]),
        ("Version 2.0 i .pdf-format. Kontakta oss.", ["villkor.pdf"]),
        ("Bygg i ASP.NET, se node.js och example.docs", ["villkor.pdf"]),
    ],
)
def test_a_matching_or_missing_attachment_is_not(text: str, files: list[str]) -> None:
    assert another_file(text, files) == ("", "")


@every(
    ("name", "is_draft"),
    [
        ("nyhetsbrev_utkast.pdf", True), ("Utkast 3.docx", True), ("Entwurf 3.docx", True), ("2026-03 Angebot (Entwurf).pdf", True),
        ("Spring-letter-DRAFT2.docx", True), ("draft.zip", True), ("brev ej klart.docx", True), ("prislista_arbetsmaterial.xlsx", True),
        ("offer_not_final.pdf", True), ("draftbeer-menu.pdf", False), ("Draft beer menu.pdf", False), ("beers-on-draft.pdf", False),
        ("Kundbrev våren.pdf", False), ("Gesetzentwurf.pdf", False), ("Untitled attachment 00012.pdf", False), ("Namnlös.pdf", False),
        ("banner_draft.png", False), ("draft-ietf-httpbis-00.txt", False), ("Overdraft.pdf", False), ("", False),
    ],
)  # fmt: skip
def test_draft_names_are_recognized(name: str, is_draft: bool) -> None:
    assert named_like_a_draft(["villkor.pdf", name]) == (name if is_draft else "")


def with_files(text: str, *files: tuple[str, str, bytes], kind: str = "text/plain") -> list[str]:
    """The signs found in a message with these attachments: (type, name, content)."""
    body = f"--b\r\nContent-Type: {kind}; charset=utf-8\r\n\r\n{text}\r\n"
    for its, name, content in files:
        body += f'--b\r\nContent-Type: {its}; name="{name}"\r\nContent-Disposition: attachment; filename="{name}"\r\n'
        plain = its == "message/rfc822"
        body += (
            "\r\n" + content.decode()
            if plain
            else f"Content-Transfer-Encoding: base64\r\n\r\n{b64encode(content).decode()}"
        )
        body += "\r\n"
    reading = look(letter(body + "--b--\r\n", kind='multipart/mixed; boundary="b"'))
    return [mark.evidence for mark in reading.marks if mark.name == "file"]


PDF = b"%PDF-1.4\n"


def test_a_wrong_file_of_a_real_message() -> None:
    instead = 'the text names "priser.pdf", and "kunder.pdf" is attached'
    kunder = ("application/pdf", "kunder.pdf", PDF)
    assert with_files("Priserna står i priser.pdf", kunder) == [instead]
    assert with_files("<p>Priserna står i <b>priser.pdf</b></p>", kunder, kind="text/html") == [instead]
    assert with_files("Se bifogat", ("application/pdf", "utkast_1.pdf", PDF)) == [
        'a file is named like a draft: "utkast_1.pdf"'
    ]
    assert with_files("Priserna står i priser.pdf", ("application/pdf", "priser.pdf", PDF)) == []


def test_a_link_to_a_file_is_no_attachment() -> None:
    link = '<p>Våra <a href="https://klick.example/x1">priser.pdf</a></p>'
    assert with_files(link, ("application/pdf", "villkor.pdf", PDF), kind="text/html") == []


def test_files_of_quoted_or_forwarded_mail_are_ignored() -> None:
    quoted = "Hej!\r\n\r\nDen 2026-03-02 skrev Eva <eva@kund.example>:\r\n> Här är underlag.docx\r\n"
    assert with_files(quoted, ("application/pdf", "svar.pdf", PDF)) == []
    head = "Från: Eva <eva@kund.example>\r\nSkickat: den 2 mars 2026 09:12\r\nTill: Bo <bo@example.com>\r\nÄmne: Underlag\r\n\r\n"
    block = f"________________________________\r\n{head}Bifogat: underlag.docx\r\n"
    assert with_files(block, ("application/pdf", "svar.pdf", PDF)) == []
    inner = b"From: eva@kund.example\r\nSubject: Utkast\r\nContent-Type: application/pdf; name=utkast.pdf\r\n\r\n%PDF-1.4\r\n"
    assert with_files("Se nedan", ("message/rfc822", "Utkast.docx", inner)) == []


def test_tracked_changes_in_the_markup() -> None:
    html = '<p>Våren <span class="MsoCommentReference">[LE1]</span> är här</p>'
    assert "comment" in names(look(letter(html, kind="text/html")))


@every("body", ["<div style='display:none'>Hej {}</div>", "<img src=x alt='{}'>"])
def test_what_previews_show_is_unfinished(body: str) -> None:
    """The hidden first line is shown in the list of messages, the text of a picture in its place."""
    for left, kind in (
        ("{{first_name}}", "placeholder"),
        ("*|MC_PREVIEW_TEXT|*", "placeholder"),
        ("Lorem ipsum", "filler"),
    ):
        assert kind in names(look(letter(f"{body.format(left)}{CAMPAIGN}", PLATFORM, kind="text/html")))
    for words in ("test", "Utkast", "DRAFT"):
        assert not UNFINISHED & names(look(letter(f"{body.format(words)}{CAMPAIGN}", PLATFORM, kind="text/html")))


@every(
    ("body", "kind"),
    [
        ("", "text/plain"),
        ("\u00a0\n.\n", "text/plain"),
        ("-- \nAnna Ek\nExample AB\n", "text/plain"),
        ("Unsubscribe: https://www.example.com/leave\n", "text/plain"),
        ("<p>&nbsp;</p><!-- Hej -->", "text/html"),
        ("<img src=http://x.example/1.png alt=''>", "text/html"),
        ("<table background=http://x.example/1.png height=400><tr><td></td></tr></table>", "text/html"),
        ("<div style='background:url(http://x.example/1.png);height:400px'></div>", "text/html"),
        ("<input type=image src=http://x.example/1.png>", "text/html"),
    ],
)
def test_a_message_without_words_is_unfinished(body: str, kind: str) -> None:
    assert "empty" in names(look(letter(body, kind=kind)))


@every(
    ("body", "kind"),
    [
        ("Tack!\n", "text/plain"),
        ("Mvh\nAnna\n", "text/plain"),
        ("١٢\n", "text/plain"),
        ("祝好\n", "text/plain"),
        ("> Kommer du?\n", "text/plain"),
        ("Hej\n-- \nAnna\n", "text/plain"),
        ("<img src=http://x.example/1.png alt='Rea'>", "text/html"),
    ],
)
def test_a_message_with_words_is_not_empty(body: str, kind: str) -> None:
    assert "empty" not in names(look(letter(body, kind=kind)))


def test_an_unfilled_field_does_not_change_what_it_looks_like() -> None:
    unfilled = CAMPAIGN.replace("Kära kund!", "Kära {{first_name}}!")
    assert look(letter(unfilled, PLATFORM, kind="text/html")).looks is Looks.MAILING
    assert look(letter("Hej {{first_name}}, ses vi på mötet?\n/Bo\n")).looks is not Looks.MAILING


def test_unfinished_parts_come_first_in_the_evidence() -> None:
    reading = look(
        letter(
            "Hej {{first_name}}!\n\nTODO: byt bild. Endast för internt bruk.\n\nLorem ipsum\n\nMvh\nBo\n",
            {"Subject": "SV: test"},
        )
    )
    told = evidence_of(reading)
    assert UNFINISHED & names(reading) == {"placeholder", "comment", "filler"}
    assert len(told["message.unfinished"]) == 3
    assert told["message.looks"][:3] == told["message.unfinished"]
    assert "for colleagues alone" in told["message.looks"][3]
