"""Which messages are copies of one mailing, in awkward cases, and which are no mailing."""

from __future__ import annotations

import base64
import random
from email.message import EmailMessage
from typing import Any

import pytest

from bench.campaigns import Person, Template, house, letter, newsletter, paragraph, receipt, sentence
from smtpguard.mail.message import Message
from smtpguard.reading.copies import LEAST, own_text
from smtpguard.reading.fingerprint import Identity, same
from smtpguard.reading.fold import fold
from smtpguard.reading.read import read
from smtpguard.reading.request import Bounds, Depth
from tests.every import every

LANGUAGES = ("en", "sv", "de", "fr", "fi", "ja", "zh", "th")


def identity(raw: bytes, bounds: Bounds | None = None) -> Identity:
    return read(Message.of(raw), bounds=bounds or Bounds()).identity


def copies(template: Template, n: int = 6, seed: int = 3) -> list[Identity]:
    draw = random.Random(seed)
    return [identity(template.copy(Person.drawn(draw), draw)) for _ in range(n)]


def one_mailing(*identities: Identity) -> bool:
    first = identities[0]
    return all((i.exact != "" and i.exact == first.exact) or same(i.sketch, first.sketch) for i in identities)


def strangers(one: Identity, other: Identity) -> bool:
    return not one_mailing(one, other)


def mail(text: str, *, html: str = "", message_id: str = "<1@example.com>", **headers: str) -> bytes:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "eva@example.com", "kund@example.org", "Hello"
    message["Message-ID"] = message_id
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def prose(seed: int, sentences: int = 10, language: str = "en") -> str:
    draw = random.Random(seed)
    return " ".join(sentence(language, draw) for _ in range(sentences))


@every("language", LANGUAGES)
def test_personalised_copies_are_one_mailing_in_every_language(language: str) -> None:
    draw = random.Random(language)
    ours = house(language, draw)
    for template in (newsletter(ours, draw, paragraphs=5), letter(language, draw), receipt(language, draw)):
        assert one_mailing(*copies(template)), template.name


@every("language", LANGUAGES)
def test_different_issues_are_different_mailings(language: str) -> None:
    draw = random.Random(f"{language} issues")
    ours = house(language, draw)
    issues = [copies(newsletter(ours, draw, paragraphs=5), 2) for _ in range(4)]
    assert all(strangers(a, b) for i, one in enumerate(issues) for other in issues[:i] for a in one for b in other)


def test_variants_of_a_paragraph_are_one_mailing() -> None:
    draw = random.Random(8)
    assert one_mailing(*copies(newsletter(house("sv", draw), draw, paragraphs=5, blocks=1), 12))


def test_text_and_html_of_the_same_words_are_one_mailing() -> None:
    text = prose(1)
    plain, both = (
        identity(mail(text)),
        identity(mail("See the HTML.", html=f"<p>{text}</p>", message_id="<2@example.com>")),
    )
    assert one_mailing(plain, both)


def test_pictures_are_compared_by_their_alt_text() -> None:
    def pictures(n: int, seed: int) -> bytes:
        draw = random.Random(seed)
        shown = [sentence("en", draw) for _ in range(6)]
        html = "".join(f'<img src="https://img.example.com/{n}/{i}.png" alt="{alt}">' for i, alt in enumerate(shown))
        return mail("", html=f"<table><tr><td>{html}</td></tr></table>", message_id=f"<{n}@example.com>")

    one, other, another = (identity(pictures(n, seed)) for n, seed in ((1, 1), (2, 1), (3, 2)))
    assert one.sketch
    assert one_mailing(one, other)
    assert strangers(one, another)


def test_pictures_without_alt_text_must_be_identical() -> None:
    """Pictures without text count as copies only if they are identical, since the guard cannot read them."""
    html = '<img src="https://img.example.com/{}.png">'
    one, other = (identity(mail("", html=html.format("sale"), message_id=f"<{n}@example.com>")) for n in (1, 2))
    assert one == other
    assert one.exact.startswith("body ")
    assert strangers(one, identity(mail("", html=html.format("else"), message_id="<3@example.com>")))


THANKS = (
    "Hi Anna,\n\nThanks, see attached.\n\nBest regards,\nEva Berg\n"
    + "Example AB, Main Street 1, 111 22 Stockholm\n" * 8
)


BELOW = "_" * 40 + "\nThis e-mail and any attachments are for the intended recipient. "


@pytest.mark.parametrize(
    "text",
    ["Thanks, see attached.", THANKS, f"Thanks, see attached.\n\n{BELOW}{prose(4)}", "1 200,00\n" * 40, "Sounds good!\n\nSent from my iPhone\n"],
    ids=["short", "signature", "disclaimer", "numbers", "telephone"],
)  # fmt: skip
def test_a_very_short_text_is_compared_with_sender_and_subject(text: str) -> None:
    one, again = (identity(mail(text, message_id=f"<{n}@example.com>")) for n in (1, 2))
    assert one.exact.startswith("text ")
    assert one_mailing(one, again)
    other_sender = mail(text, message_id="<3@example.com>").replace(b"From: eva@", b"From: omar@")
    assert strangers(one, identity(other_sender))
    other_subject = mail(text, message_id="<4@example.com>").replace(b"Subject: Hello", b"Subject: Another thing")
    assert strangers(one, identity(other_subject))


SHORT = "Glöm inte julbordet på fredag, det blir skinka och glögg."


def test_greeting_and_sender_do_not_distinguish_a_short_text() -> None:
    texts = [
        f"Hej {name}!\n\n{SHORT}\n\nMvh\n{sender}\n" for name, sender in (("Anna", "Bo"), ("Christoffer Lind", "Eva"))
    ]
    one, other = (
        identity(
            mail(
                t,
                message_id=f"<{n}@example.com>",
            )
        )
        for n, t in enumerate(texts)
    )
    assert one.exact
    assert one == other
    assert strangers(one, identity(mail(SHORT.replace("fredag", "lördag"))))


def test_a_hundred_short_letters_are_distinct() -> None:
    draw = random.Random(7)
    texts = [
        f"Hej {sentence('sv', draw)[:8]}!\n\n{sentence('sv', draw)} {sentence('sv', draw)}\n\nVänliga hälsningar\nEva\n"
        for _ in range(100)
    ]
    found = [identity(mail(t, message_id=f"<{n}@example.com>", Subject_=str(n))) for n, t in enumerate(texts)]
    assert not any(one_mailing(a, b) for i, a in enumerate(found) for b in found[:i])


DISGUISES = {
    "zero width": lambda t: "\u200b".join(t),
    "soft hyphens": lambda t: t.replace("e", "e\xad"),
    "fillers": lambda t: t.replace("a", "a\u3164"),
    "more fillers": lambda t: t.replace("a", "a\uffa0\u2800"),
    "homoglyphs": lambda t: t.translate(str.maketrans("aeopcx", "аеорсх")),
    "fullwidth": lambda t: "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in t),
    "tags": lambda t: t.replace("n", "n\U000e0041"),
    "marks": lambda t: t.replace("o", "o\u0336"),
}


@every("way", DISGUISES)
@every("text", [prose(40), SHORT, "Se bifogat"])
def test_invisible_changes_do_not_distinguish_copies(way: str, text: str) -> None:
    assert one_mailing(identity(mail(text)), identity(mail(DISGUISES[way](text), message_id="<2@example.com>")))


def test_hidden_html_does_not_distinguish_copies() -> None:
    def hidden(n: int) -> bytes:
        junk = f'<p style="font-size:1px;color:#fff">{prose(1000 + n, 20)}</p>'
        return mail("x", html=f"<p>{prose(41)}</p>{junk}", message_id=f"<{n}@example.com>")

    assert one_mailing(*(identity(hidden(n)) for n in range(5)))


def test_unsubscribe_words_inside_a_paragraph_do_not_cut_it() -> None:
    text = f"{prose(42)} Avregistrera dig här: https://news.example.com/u/{{}}"
    one, other = (identity(mail(text.format(n), message_id=f"<{n}@example.com>")) for n in (1, 2))
    assert one.sketch
    assert one_mailing(one, other)
    assert own_text(fold(prose(42) + " Avregistrera dig här: https://x.example")).strip() == fold(prose(42))


def test_an_early_unsubscribe_word_does_not_cut_the_text() -> None:
    """If an early word about unsubscribing would cut the text to nothing, the whole text counts."""
    text = f"{prose(43, 2)}\nWrite to us to be removed from the list.\n{prose(44, 12)}"
    assert identity(mail(text)).sketch


QUOTED = "\n\nFrån: Bo Alm <bo@example.com>\nSkickat: den 3 mars 2026 09:12\nTill: Eva Berg <eva@example.com>\nÄmne: Dieten\n\n"


@every("own_text", ["", "Kolla här!", "FYI"])
def test_a_forwarded_text_is_compared(own_text: str) -> None:
    story = prose(50, 12)
    found = [identity(mail(f"{own_text}{QUOTED}{story}\n", message_id=f"<{n}@example.com>")) for n in (1, 2)]
    assert found[0].sketch
    assert one_mailing(*found)
    assert strangers(found[0], identity(mail(f"{own_text}{QUOTED}{prose(51, 12)}\n", message_id="<3@example.com>")))


def test_an_attached_message_or_text_is_compared() -> None:
    def with_message(n: int) -> bytes:
        inner, outer = EmailMessage(), EmailMessage()
        inner["From"], inner["Subject"] = "bo@example.com", "Dieten"
        inner.set_content(prose(52, 12))
        outer["From"], outer["To"], outer["Message-ID"] = "eva@example.com", f"k{n}@example.org", f"<{n}@example.com>"
        outer.set_content("Se bifogat")
        outer.add_attachment(inner)
        return outer.as_bytes().replace(b"\n", b"\r\n")

    def with_file(n: int, octets: bytes, kind: tuple[str, str], text: str = "Se bifogat") -> bytes:
        outer = EmailMessage()
        outer["From"], outer["To"], outer["Message-ID"] = "eva@example.com", f"k{n}@example.org", f"<{n}@example.com>"
        outer.set_content(text)
        outer.add_attachment(octets, maintype=kind[0], subtype=kind[1], filename="a.bin")
        return outer.as_bytes().replace(b"\n", b"\r\n")

    pdf, text = ("application", "pdf"), ("text", "plain")
    assert one_mailing(*(identity(with_message(n)) for n in range(3)))
    assert one_mailing(*(identity(with_file(n, prose(53, 12).encode(), text)) for n in range(3)))
    assert one_mailing(*(identity(with_file(n, b"%PDF the same", pdf, f"Hej {n}")) for n in range(3)))
    assert strangers(*(identity(with_file(n, b"%%PDF %d" % n, pdf)) for n in (1, 2)))


def test_inline_pictures_and_signatures_are_ignored() -> None:
    def beside(n: int, kind: str, octets: bytes, **more: Any) -> Identity:
        outer = EmailMessage()
        outer["From"], outer["To"], outer["Message-ID"] = "eva@example.com", "k@example.org", f"<{n}@example.com>"
        outer.set_content(f"{n} {prose(60 + n, 1)[:30]}")
        main, _, sub = kind.partition("/")
        outer.add_attachment(octets, maintype=main, subtype=sub, filename="x", **more)
        return identity(outer.as_bytes().replace(b"\n", b"\r\n"))

    card = ("BEGIN:VCARD\n" + prose(70, 5)).encode()
    for kind, octets, more in (
        ("image/png", b"logo", {"disposition": "inline"}),
        ("application/pkcs7-signature", b"s", {}),
        ("text/x-vcard", card, {}),
    ):
        one, other = (beside(n, kind, octets, **more) for n in (1, 2))
        assert strangers(one, other), kind


def test_an_empty_message_is_compared_by_its_body() -> None:
    empty = b"From: eva@example.com\r\n\r\n"
    assert identity(empty).exact.startswith("body ")
    assert identity(empty) == identity(empty)
    assert identity(empty) != identity(empty + b"\r\n")


def test_an_answer_names_the_quoted_sender() -> None:
    def quotes(quoted: str, to: str = "kund@example.org") -> frozenset[str]:
        raw = mail(f"Ja, tisdag passar.\n\n{quoted}\n> {prose(80, 8)}\n> {prose(81, 8)}\n")
        return read(Message.of(raw.replace(b"To: kund@example.org", f"To: {to}".encode()))).quotes

    assert quotes("On Monday 2 March 2026, Bo <kund@example.org> wrote:") == {"kund@example.org"}
    assert quotes("On Monday 2 March 2026, Bo Lind wrote:", '"Bo Lind" <kund@example.org>') == {"kund@example.org"}
    assert quotes("On Monday 2 March 2026, Bo Lind wrote:") == frozenset()


SIGNATURE = (
    "\n\nMed vänliga hälsningar\nEva Berg\nKundansvarig, Exempelbolaget AB\nStorgatan 1, 111 22 Stockholm\n+46 8 123 45 67 | www.example.com\n"
    + "Exempelbolaget hjälper företag i hela Norden med pumpar, ventiler och service sedan 1957. Följ oss gärna på nätet.\n"
    + "Detta meddelande är avsett för adressaten och kan innehålla konfidentiell information. Tänk på miljön innan du skriver ut.\n"
)


def test_answers_with_the_same_signature_are_distinct() -> None:
    answers = [f"Hej!\n\nTack för ditt meddelande. {prose(n, 5, 'sv')}{SIGNATURE}" for n in range(100)]
    found = [identity(mail(text, message_id=f"<{n}@example.com>")) for n, text in enumerate(answers)]
    assert all(i.sketch for i in found)
    assert not any(one_mailing(a, b) for i, a in enumerate(found) for b in found[:i])


def test_filled_templates_are_one_mailing_and_own_words_are_not() -> None:
    """One text with other numbers is one mailing; letters in different words are not. The policy lets single customers'
    correspondence and systems' streams pass."""
    terms = prose(5, 9)

    def quote(n: int, text: str) -> Identity:
        return identity(
            mail(f"Quote {n}\n\n{text}\n\n{n % 7} x pump P{n}, {n},00 EUR\n\n{terms}", message_id=f"<{n}@example.com>")
        )

    assert one_mailing(*(quote(n, "") for n in range(1000, 1010)))
    assert strangers(quote(1, prose(21, 14)), quote(2, prose(22, 14)))


def test_a_reply_to_a_mailing_is_no_copy_of_it() -> None:
    text = prose(2, 12)
    quoted = "".join(f"> {line}\n" for line in text.split(". "))
    answer = f"{prose(3, 6)}\n\nOn Monday, Eva <eva@example.com> wrote:\n{quoted}"
    assert strangers(identity(mail(text)), identity(mail(answer, message_id="<2@example.com>")))


def test_one_changed_word_per_copy_stays_one_mailing() -> None:
    words = prose(7, 14).split()
    found = []
    for n in range(20):
        changed = list(words)
        changed[n * len(words) // 20] = "".join(random.Random(n).choices("bcdfghklm", k=9))
        found.append(identity(mail(" ".join(changed), message_id=f"<{n}@example.com>")))
    assert one_mailing(*found)


def test_wrapping_and_spaces_do_not_matter() -> None:
    text = prose(9)
    words = text.split()
    narrow = "\n".join(" ".join(words[i : i + 7]) for i in range(0, len(words), 7))
    wide = " \n".join(" ".join(words[i : i + 12]) for i in range(0, len(words), 12))
    assert identity(mail(text)).sketch == identity(mail(narrow)).sketch == identity(mail(wide)).sketch


def test_a_very_long_text_is_compared_by_its_beginning() -> None:
    draw = random.Random(11)
    text = "\n\n".join(paragraph("en", draw) for _ in range(400))
    assert len(text) > 100_000
    assert (
        identity(mail(text)).sketch
        == identity(mail(text + "\n\nPS. One more thing.", message_id="<2@example.com>")).sketch
    )


def test_an_unreadably_long_text_is_compared_by_its_body() -> None:
    text, tight = prose(12, 60), Bounds(text_bytes=2000)
    one, other = (identity(mail(text, message_id=f"<{n}@example.com>", X_Token=str(n)), tight) for n in (1, 2))
    assert one == other
    assert one.exact.startswith("body ")
    assert not one.sketch
    assert one != identity(mail(f"{text}!"), tight)


def test_encrypted_content_must_be_identical() -> None:
    def sealed(content: bytes, boundary: str, message_id: str) -> bytes:
        return (
            f"From: eva@example.com\r\nMessage-ID: {message_id}\r\nMIME-Version: 1.0\r\n"
            f'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary="{boundary}"\r\n\r\n'
            f"--{boundary}\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n--{boundary}\r\n"
            f"Content-Type: application/octet-stream\r\n\r\n{base64.b64encode(content).decode()}\r\n--{boundary}--\r\n"
        ).encode()

    one = identity(sealed(b"secret", "aaa", "<1@example.com>"))
    assert one.exact.startswith("body ")
    assert one == identity(sealed(b"secret", "bbbbbb", "<2@example.com>"))
    assert one != identity(sealed(b"another", "aaa", "<1@example.com>"))


def test_the_header_alone_has_no_identity() -> None:
    assert read(Message.of(mail(prose(1))), depth=Depth.HEADERS).identity == Identity()


@every(
    ("text", "kept"),
    [
        ("Hello there.", "Hello there."),
        ("Hello there.\nKind regards,\nEva", "Hello there.\n"),
        ("Hello there.\nMvh, Eva", "Hello there.\n"),
        ("Hello there.\n--\nEva\nExample AB", "Hello there."),
        ("Hello there.\n==========\nEva\n==========\nA word for the day", "Hello there."),
        ("One.\nTwo.\nThree is the last of them all, and it ends here.\nYou are receiving this because you are a customer.\nUnsubscribe here", "One.\nTwo.\nThree is the last of them all, and it ends here."),
        ("Unsubscribe here\n" + "A line of text that goes on.\n" * 20, "Unsubscribe here\n" + "A line of text that goes on.\n" * 20),
        ("Thanks\n" + "A line of text that goes on.\n" * 80, "Thanks\n" + "A line of text that goes on.\n" * 80),
        ("", ""),
    ],
)  # fmt: skip
def test_own_text_ends_at_signature_and_footer(text: str, kept: str) -> None:
    assert own_text(fold(text)) == fold(kept)


def test_the_minimum_length_is_counted_in_own_characters() -> None:
    text = prose(30, 12)[: LEAST + 60]
    assert identity(mail(text)).sketch
    assert not identity(mail(text[: LEAST - 20])).sketch


@every(
    ("headers", "subject", "campaign"),
    [
        ({"X-Campaign-ID": "spring-26"}, "Spring", ("x-campaign-id spring-26", "subject spring")),
        (
            {"X-Campaign": "a.b", "List-Id": "News <news.example.com>"},
            "Spring",
            ("x-campaign a.b", "news.example.com spring"),
        ),
        ({"Feedback-ID": "11:customer:news:example"}, "Issue 4", ("11:customer:news:example issue 4",)),
        ({"List-Id": "News <news.example.com>"}, "Re: Issue 5", ("news.example.com issue 5",)),
        ({"List-Id": "News <news.example.com>"}, "", ()),
        ({"X-Subscriber-ID": "4711", "X-Mailer": "x"}, "Spring", ()),
    ],
)
def test_declared_campaigns_are_read(headers: dict[str, str], subject: str, campaign: tuple[str, ...]) -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    raw = f"From: a@example.com\r\nSubject: {subject}\r\n{fields}\r\nHello\r\n".encode()
    assert read(Message.of(raw)).campaign == campaign


def test_a_campaign_declared_twice_is_ignored() -> None:
    raw = b"From: a@example.com\r\nX-Campaign: 1\r\nX-Campaign: 2\r\n\r\nHello\r\n"
    assert read(Message.of(raw)).campaign == ()
