"""What shows that a message is not finished, and what only looks so."""

from __future__ import annotations

import pytest

from smtpguard.guard.values import evidence_of
from smtpguard.reading.looks import Looks
from smtpguard.reading.unfinished import KINDS, unfinished
from tests.reading.letters import CAMPAIGN, PLATFORM, letter, look, names

FOUND: dict[str, list[tuple[str, str]]] = {
    "placeholder": [("", t) for t in (
        "Hej {{first_name}}!", "Hi %%NAME%%,", "Hello *|FNAME|*", "Kära ${kund.namn}", "Hej [Förnamn],", "Dear <<First Name>>,", "Hej «Förnamn», välkommen", "Hej {$name}",
        "Dear ##NAME##", "{% if vip %}Hej", "Hallo {Vorname},", "Hej ,\nvåren är här", "Dear undefined,\nspring", "Hi null, spring", "%recipient.first% hej", "Bonjour [Prénom]",
    )] + [("Nyheter till {{ city }}", "Våren")],
    "draft": [("UTKAST: Våren", "x"), ("Draft - spring", "x"), ("[Entwurf] Frühling", "x"), ("Re: utkast till brev", "x"), ("Luonnos: kevät", "x"), ("", "UTKAST\nVåren är här"), ("", "Spring (DRAFT) news"), ("Brouillon : printemps", "x")],
    "comment": [("", t) for t in (
        "Våren är här. TODO: länk", "FIXME price", "Priset är TBD.", "Lisa check this\nSpring is here", "Vår!\n[Lisa: kolla detta]\n", "(Anna, stämmer det här?)", "Köp [infoga bild] nu", "Look <insert link> now",
        "@Omar kan du kolla priset\n", "Läs mer (länk hit)", "[kolla priset]", "Kommentar: byt bild\n", "(please check the price)",
    )],
    "test": [("test", "x"), ("Test 123", "x"), ("Testutskick: våren", "Hej"), ("[TEST] Spring", "Hello"), ("", "test"), ("", "Testar, testar"), ("Spring", "This is a test, please ignore"), ("Våren", "Det här är bara ett test"), ("Testmail", "")],
    "filler": [("", "Lorem ipsum dolor sit amet"), ("", "asdfasdf"), ("", "Hier steht Blindtext"), ("", "bla bla bla")],
}  # fmt: skip
NOT: list[tuple[str, str]] = [
    ("Våren är här", "Kära kund, våren är här. Läs mer på vår sida."),
    ("Test drive the new car", "Book a test drive of our new car today. We have tested it for you, and the test results are in: best in test!"),
    ("Bäst i test", "Vår dammsugare blev bäst i test. Testa den du också!"),
    ("A draft beer evening", "We look at drafts of the new law. The draft was sent out in May."),
    ("Todos los días", "Todo está listo para la primavera. Hasta luego, amigos."),
    ("Offert", "Hej Lisa, kan du kolla det här förslaget och återkomma till mig? Jag har räknat om priset per meter enligt vad vi sa i telefon i går."),
    ("Priser", "Pris per st: 12 kr [exkl. moms]. Kontrollera alltid varan (vid leverans)."),
    ("Code", "Our API takes {name: value} and <b> tags."),
    ("Bonjour", "Bonjour ! Le printemps est là « comme prévu » dans nos magasins."),
    ("Invitation", "Dear Sir or Madam, the date will be announced. Dear Anna , hello"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "subject", "text"), [(k, s, t) for k, those in FOUND.items() for s, t in those])
def test_what_is_not_finished(kind: str, subject: str, text: str) -> None:
    assert kind in dict(unfinished(subject, text)), dict(unfinished(subject, text))


@pytest.mark.parametrize(("subject", "text"), NOT)
def test_what_is(subject: str, text: str) -> None:
    assert dict(unfinished(subject, text)) == {}


@pytest.mark.parametrize(
    ("text", "files", "found"),
    [
        (
            "Priserna står i prislista-2026.pdf.",
            ["kundlista.xlsx"],
            "prislista-2026.pdf, and kundlista.xlsx is attached",
        ),
        ("See offer_v2.docx and terms.pdf", ["offer_v2.docx"], ""),
        ("See Offer.PDF", ["offer.pdf", "logo.zip"], ""),
        ("Våren är här", ["nyhetsbrev_utkast.pdf"], "nyhetsbrev_utkast.pdf"),
        ("Frühling", ["Entwurf 3.docx"], "Entwurf 3.docx"),
        ("Spring", ["draftbeer-menu.pdf"], ""),
        ("Spring", ["Kundbrev våren.pdf"], ""),
        ("Läs mer: https://example.com/priser.pdf eller skriv till priser.pdf@example.com", ["villkor.pdf"], ""),
        ("Som jag skrev i offert.pdf i går", [], ""),
        ("Version 2.0. Kontakta oss.", ["villkor.pdf"], ""),
    ],
)
def test_a_file_that_is_not_the_one(text: str, files: list[str], found: str) -> None:
    assert dict(unfinished("Våren", text, files=files)).get("file", "") == found


def test_a_wrong_file_is_read_of_a_message_as_it_comes() -> None:
    body = (
        '--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nPriserna står i priser.pdf\r\n--b\r\nContent-Type: application/pdf; name="kunder.pdf"\r\n'
        'Content-Disposition: attachment; filename="kunder.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQK\r\n--b--\r\n'
    )
    assert "file" in names(look(letter(body, kind='multipart/mixed; boundary="b"')))


def test_tracked_changes_are_left_in_the_markup() -> None:
    html = '<p>Våren <span class="MsoCommentReference">[LE1]</span> är här</p>'
    assert "comment" in names(look(letter(html, kind="text/html")))


def test_a_mailing_with_an_unfilled_field_is_a_mailing_no_more_and_no_less() -> None:
    unfilled = CAMPAIGN.replace("Kära kund!", "Kära {{first_name}}!")
    assert look(letter(unfilled, PLATFORM, kind="text/html")).looks is Looks.MAILING
    assert look(letter("Hej {{first_name}}, ses vi på mötet?\n/Bo\n")).looks is not Looks.MAILING


def test_whoever_decides_reads_first_what_is_not_finished() -> None:
    reading = look(
        letter(
            "Hej {{first_name}}!\n\nTODO: byt bild. Endast för internt bruk.\n\nLorem ipsum\n\nMvh\nBo\n",
            {"Subject": "SV: test"},
        )
    )
    told = evidence_of(reading)
    assert set(KINDS) & names(reading) == {"placeholder", "comment", "filler"}
    assert len(told["message.unfinished"]) == 3
    assert told["message.looks"][:3] == told["message.unfinished"]
    assert "for colleagues alone" in told["message.looks"][3]
