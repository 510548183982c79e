"""A footer does not make a letter a mailing. Mail with a proven origin is a mailing, whatever a newsletter contains."""

from __future__ import annotations

import pytest

from smtpguard.reading.looks import Looks, from_declared_origin, without_list_headers
from tests.reading.letters import CAMPAIGN, OUTLOOK, PLATFORM, STORY, letter, look, names, parts

FOOT = {
    "sv": "Avregistrera dig här: https://x.example/u/1",
    "en": "You are receiving this because you are a customer. Unsubscribe: https://x.example/unsubscribe",
    "de": "Sie erhalten diesen Newsletter, weil Sie sich angemeldet haben. Newsletter abbestellen. Datenschutz. Alle Rechte vorbehalten.",
    "all": "Kära prenumerant! Nyhetsbrev. Läs mer om rabatten. Visa i webbläsaren. Du får detta mejl eftersom du är kund. Avprenumerera här. Svara inte på detta mejl.",
}
DIET = "jag har ätit bacon i tre veckor nu och känner mig toppen, ska vi ta en whisky på fredag"
LETTERS = {
    "a greeting": f"Hej Anna!\n\n{DIET}.\n\n",
    "a greeting in a line": f"Hej Anna, {DIET}. ",
    "everybody greeted": f"Hej alla,\n\n{DIET}\n\n",
    "a signature": f"{DIET}.\n\nMvh\nBo Alm\n\n",
    "a telephone": f"{DIET}\n\nSkickat från min iPhone\n\n",
    "a quotation": f"{DIET}\n\nDen 3 mars skrev Anna Ek <anna@example.com>:\n> Hur går det?\n> Hälsningar Anna\n\n",
    "a secret": f"{DIET}. Säg inget till cheferna.\n\n",
    "a secret in English": "I have had bacon for three weeks. Say nothing to the bosses.\n\n",
    "a secret in German": "Drei Wochen Speck. Sagt nichts dem Chef!\n\n",
}  # fmt: skip


@pytest.mark.parametrize("foot", FOOT)
@pytest.mark.parametrize("kind", LETTERS)
def test_a_footer_makes_no_mailing_of_a_letter(kind: str, foot: str) -> None:
    reading = look(letter(f"{LETTERS[kind]}{FOOT[foot]}\n"))
    assert reading.looks is not Looks.MAILING, (reading.score, names(reading))


def test_a_header_of_a_platform_confirms_a_mailing() -> None:
    text = f"{LETTERS['a greeting']}Mvh\nBo\n\n{FOOT['all']}\n"
    assert look(letter(text, PLATFORM)).looks is Looks.MAILING
    assert look(letter(text, {"From": "noreply@example.com", "X-Mailgun-Sid": "1"})).looks is Looks.MAILING


def test_unproven_list_headers_have_no_weight() -> None:
    head = {
        "List-Unsubscribe": "<https://x.example/u>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Precedence": "bulk",
    }
    reading = without_list_headers(look(letter(f"{LETTERS['a greeting']}{FOOT['all']}\n", head)))
    assert reading.looks is not Looks.MAILING
    assert "list-unproven" in names(reading)
    assert without_list_headers(look(letter(STORY))) == look(letter(STORY))


TESTIMONIAL = CAMPAIGN.replace(
    "<p>Du får", '<p>Anna Ek skrev 2026-03-02:</p><blockquote type="cite">Bästa butiken!</blockquote><p>Du får'
)
INVITED = (
    ("Content-Type: text/html; charset=utf-8", CAMPAIGN),
    (
        "Content-Type: text/calendar; method=REQUEST",
        "BEGIN:VCALENDAR\nMETHOD:REQUEST\nSUMMARY:Öppet hus\nEND:VCALENDAR",
    ),
)


@pytest.mark.parametrize(
    "message",
    [
        letter(TESTIMONIAL, kind="text/html"),
        parts(*INVITED, headers={}),
        letter(CAMPAIGN, {"MSIP_Labels": "MSIP_Label_1234abcd-0000-4000-8000-0123456789ab_Name=General;"}, kind="text/html"),
    ],
    ids=["testimonial", "invitation", "default label"],
)  # fmt: skip
def test_a_proven_newsletter_is_a_mailing(message: object) -> None:
    reading = from_declared_origin(look(message), "campaigns.example.com")  # type: ignore[arg-type]
    assert reading.looks is Looks.MAILING, (reading.score, names(reading))


def test_a_conversation_from_the_declared_origin_is_no_mailing() -> None:
    for message in (letter(STORY), letter(STORY, OUTLOOK), letter(STORY, {"Sensitivity": "Company-Confidential"})):
        assert from_declared_origin(look(message), "campaigns.example.com").looks is not Looks.MAILING
    shared = from_declared_origin(look(letter(TESTIMONIAL, kind="text/html")), "example.com", shared=True)
    assert shared.looks is not Looks.MAILING
