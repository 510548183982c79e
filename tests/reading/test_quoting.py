"""Subject prefixes, attribution lines, header blocks and footers, in the languages of mail programs."""

from __future__ import annotations

import pytest

from smtpguard.reading.looks import Looks, from_declared_origin, without_list_headers
from smtpguard.reading.quoting import split
from smtpguard.reading.thread import FORWARD, REPLY, prefix_of, without_prefixes
from tests.every import every
from tests.reading.letters import CAMPAIGN, OUTLOOK, PLATFORM, STORY, letter, look, names, parts

REPLIES = "Re: x|RE: x|SV: x|Sv: x|VS: x|AW: x|Aw: x|Antw: x|RES: x|Odp: x|YNT: x|Svar: x|Re[2]: x|RE : x|[list] Re: x|[EXTERN] SV: x|Re：x|回复: x|رد: x|R: x|Ré: x"
FORWARDS = (
    "Fw: x|FW: x|Fwd: x|FWD: x|VB: x|WG: x|TR: x|RV: x|VL: x|ENC: x|Doorst: x|[ext] Fwd: x|转发: x|PD: x|Videresendt: x"
)


@every("subject", REPLIES.split("|"))
def test_reply_prefixes_are_recognized(subject: str) -> None:
    found = prefix_of(subject)
    assert found
    assert found[0] == REPLY
    assert without_prefixes(subject) == "x"


@every("subject", FORWARDS.split("|"))
def test_forward_prefixes_are_recognized(subject: str) -> None:
    found = prefix_of(subject)
    assert found
    assert found[0] == FORWARD


@every(
    "subject",
    [
        "",
        "x",
        "Report: x",
        "Regarding: x",
        "I: you",
        "Svarta byxor",
        "re",
        "News: re: x",
        "12: x",
        ": x",
        "Ledigt: nu",
        "a: b",
        "na: b" * 0 + "Bra: x",
    ],
)
def test_other_words_are_no_prefix(subject: str) -> None:
    assert prefix_of(subject) is None or subject == "I: you"


def test_several_prefixes_are_removed() -> None:
    assert without_prefixes("SV: Re: [x] VB: Dieten") == "Dieten"


BLOCKS = [
    "Från: Anna <anna@example.com>\nSkickat: den 3 mars 2025 09:12\nTill: Bo\nÄmne: Dieten",
    "Fra: Anna\nSendt: mandag 3. mars 2025 09:12\nTil: Bo\nEmne: Dietten",
    "Lähettäjä: Anna\nLähetetty: maanantai 3. maaliskuuta 2025\nVastaanottaja: Bo\nAihe: Dieetti",
    "Von: Anna\nGesendet: Montag, 3. März 2025 09:12\nAn: Bo\nBetreff: Diät",
    "De : Anna\nEnvoyé : lundi 3 mars 2025 09:12\nÀ : Bo\nObjet : Régime",
    "De: Anna\nEnviado el: lunes, 3 de marzo de 2025\nPara: Bo\nAsunto: Dieta",
    "From: Anna\nSent: Monday, March 3, 2025 9:12 AM\nTo: Bo\nSubject: Diet",
    "*From:* Anna\n*Sent:* Monday\n*To:* Bo\n*Subject:* Diet",
    "> From: Anna\n> Date: Monday\n> To: Bo\n> Subject: Diet",
    "Da: Anna\nInviato: lunedì\nA: Bo\nOggetto: Dieta",
    "Van: Anna\nVerzonden: maandag\nAan: Bo\nOnderwerp: Dieet",
    "Od: Anna\nWysłano: poniedziałek\nDo: Bo\nTemat: Dieta",
    "От: Анна\nОтправлено: понедельник\nКому: Бо\nТема: Диета",
    "من: Anna\nالتاريخ: اليوم\nإلى: Bo\nالموضوع: حمية",
    "发件人: Anna\n发送时间: 2025年\n收件人: Bo\n主题: x",
]


@every("block", BLOCKS)
def test_header_blocks_begin_a_quotation(block: str) -> None:
    found = split(f"Hej!\n\n{block}\n\nHur går det?")
    assert found.kind == "header block"
    assert found.new.strip() == "Hej!"
    assert "Hur går det?" in found.quoted


ATTRIBUTIONS = [
    "On Mon, 3 Mar 2025 at 09:12, Anna <anna@example.com> wrote:",
    "Den mån 3 mars 2025 kl 09:12 skrev Anna <anna@example.com>:",
    "3 mars 2025 kl. 09:12 skrev Anna <anna@example.com>:",
    "Am Mo., 3. März 2025 um 09:12 Uhr schrieb Anna <anna@example.com>:",
    "Le lun. 3 mars 2025 à 09:12, Anna <anna@example.com> a écrit :",
    "El lun, 3 mar 2025 a las 9:12, Anna (<anna@example.com>) escribió:",
    "man. 3. mar. 2025 kl. 09:12 skrev Anna <anna@example.com>:",
    "ma 3. maalisk. 2025 klo 9.12 Anna (anna@example.com) kirjoitti:",
    "Il giorno lun 3 mar 2025 alle ore 09:12 Anna <anna@example.com> ha scritto:",
    "Op ma 3 mrt 2025 om 09:12 schreef Anna <anna@example.com>:",
    "pon., 3 mar 2025 o 09:12 Anna <anna@example.com> napisał(a):",
    'D. 03/03/2025 09.12 skrev "Anna" <anna@example.com>:',
    "-----Original Message-----",
    "-----Ursprungligt meddelande-----",
    "-------- Vidarebefordrat meddelande --------",
    "---------- Forwarded message ---------",
    "Begin forwarded message:",
    "Vidarebefordrat mejl:",
    "-----Ursprüngliche Nachricht-----",
    "-------- Message d'origine --------",
    "-------- Alkuperäinen viesti --------",
    "-----Opprinnelig melding-----",
]


@every("line", ATTRIBUTIONS)
def test_attributions_and_rules_begin_a_quotation(line: str) -> None:
    found = split(f"Ja gärna!\n\n{line}\n\nSka vi äta?")
    assert found.kind, line
    assert found.new.strip() == "Ja gärna!"


def test_an_attribution_on_two_lines() -> None:
    found = split("Ja\n\nOn Mon, 3 Mar 2025 at 09:12, Anna with a very long name\n<anna@example.com> wrote:\n> Ska vi?")
    assert found.kind == "attribution"
    assert found.new.strip() == "Ja"


def test_answers_between_quotations_are_new_text() -> None:
    found = split("On 3 Mar 2025, a@example.com wrote:\n> One?\nYes.\n> Two?\nNo.")
    assert found.new.split("\n")[-2:] == ["Yes.", "No."]
    assert "One?" in found.quoted


@every(
    "text",
    [
        "", "Hej!", "From: here to there\nis not far", "Till: dig", "He wrote: nothing", ">> Read the news\n\n>> Read more", "> Shop\n\n> Sale\n\n> Help",
        "Pris: 12 kr\nDatum: 3 mars\nTill: alla", "Date: Monday\nTo: everybody\nSubject to change",
    ],
)  # fmt: skip
def test_text_without_a_quotation(text: str) -> None:
    assert split(text).kind == ""


def test_a_list_servers_footer_is_removed() -> None:
    text = (
        "Hello\n"
        + "_" * 47
        + "\ntest mailing list -- test@lists.example.net\nTo unsubscribe send an email to test-leave@lists.example.net"
    )
    assert split(text).new == "Hello"


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


@every("foot", FOOT)
@every("kind", LETTERS)
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
        letter(CAMPAIGN, {"From": "Butiken <no-reply@zoom.us>"}, kind="text/html"),
    ],
    ids=["testimonial", "invitation", "default label", "tool"],
)  # fmt: skip
def test_a_proven_newsletter_is_a_mailing(message: object) -> None:
    reading = from_declared_origin(look(message), "campaigns.example.com")  # type: ignore[arg-type]
    assert reading.looks is Looks.MAILING, (reading.score, names(reading))


def test_a_conversation_from_the_declared_origin_is_no_mailing() -> None:
    for message in (letter(STORY), letter(STORY, OUTLOOK), letter(STORY, {"Sensitivity": "Company-Confidential"})):
        assert from_declared_origin(look(message), "campaigns.example.com").looks is not Looks.MAILING
    shared = from_declared_origin(look(letter(TESTIMONIAL, kind="text/html")), "example.com", shared=True)
    assert shared.looks is not Looks.MAILING
