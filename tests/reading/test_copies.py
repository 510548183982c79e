"""Which messages are copies of one mailing, case by unhelpful case; and what is no mailing at all."""

from __future__ import annotations

import base64
import random
from email.message import EmailMessage

import pytest

from bench.campaigns import House, Person, Template, house, letter, newsletter, paragraph, receipt, sentence
from smtpguard.mail.message import Message
from smtpguard.reading.bounds import Bounds, Depth
from smtpguard.reading.copies import LEAST
from smtpguard.reading.fingerprint import Identity, covers, same
from smtpguard.reading.own import own
from smtpguard.reading.read import read

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


@pytest.mark.parametrize("language", LANGUAGES)
def test_personalised_copies_are_one_mailing_in_every_language(language: str) -> None:
    draw = random.Random(language)
    ours = house(language, draw)
    for template in (newsletter(ours, draw, paragraphs=5), letter(language, draw), receipt(language, draw)):
        assert one_mailing(*copies(template)), template.name


@pytest.mark.parametrize("language", LANGUAGES)
def test_issues_and_mailings_of_one_house_are_different(language: str) -> None:
    draw = random.Random(f"{language} issues")
    ours = house(language, draw)
    issues = [copies(newsletter(ours, draw, paragraphs=5), 2) for _ in range(4)]
    assert all(strangers(a, b) for i, one in enumerate(issues) for other in issues[:i] for a in one for b in other)


def test_three_variants_of_a_paragraph_are_one_mailing() -> None:
    draw = random.Random(8)
    assert one_mailing(*copies(newsletter(house("sv", draw), draw, paragraphs=5, blocks=1), 12))


def test_without_a_text_part_or_without_html_it_is_the_same_text() -> None:
    text = prose(1)
    plain, both = (
        identity(mail(text)),
        identity(mail("See the HTML.", html=f"<p>{text}</p>", message_id="<2@example.com>")),
    )
    assert one_mailing(plain, both)


def test_a_mailing_of_pictures_is_known_by_what_they_are_said_to_show() -> None:
    def pictures(n: int, seed: int) -> bytes:
        draw = random.Random(seed)
        shown = [sentence("en", draw) for _ in range(6)]
        html = "".join(f'<img src="https://img.example.com/{n}/{i}.png" alt="{alt}">' for i, alt in enumerate(shown))
        return mail("", html=f"<table><tr><td>{html}</td></tr></table>", message_id=f"<{n}@example.com>")

    one, other, another = (identity(pictures(n, seed)) for n, seed in ((1, 1), (2, 1), (3, 2)))
    assert one.sketch
    assert one_mailing(one, other)
    assert strangers(one, another)


def test_pictures_that_nothing_is_said_of_are_copies_by_their_very_body() -> None:
    """Nobody here can read them, and so a hundred of them are a hundred copies of what nobody has read."""
    html = '<img src="https://img.example.com/{}.png">'
    one, other = (identity(mail("", html=html.format("sale"), message_id=f"<{n}@example.com>")) for n in (1, 2))
    assert one == other
    assert one.exact.startswith("body ")
    assert strangers(one, identity(mail("", html=html.format("else"), message_id="<3@example.com>")))


THANKS = (
    "Hi Anna,\n\nThanks, see attached.\n\nBest regards,\nEva Berg\n"
    + "Example AB, Main Street 1, 111 22 Stockholm\n" * 8
)


@pytest.mark.parametrize(
    "text",
    [
        "Thanks, see attached.",
        THANKS,
        "Thanks, see attached.\n\n"
        + "_" * 40
        + "\nThis e-mail and any attachments are for the intended recipient. "
        + prose(4),
        "Yes, Tuesday suits us.\n\nOn Monday, Bo <bo@example.org> wrote:\n"
        + "".join(f"> {prose(n, 1)}\n" for n in range(12)),
        "1 200,00\n" * 40,
        "Sounds good!\n\nSent from my iPhone\n" + "\n" * 5,
    ],
    ids=["short", "signature", "disclaimer", "quoted", "numbers", "telephone"],
)
def test_little_text_of_its_own_is_no_mailing(text: str) -> None:
    one, other = (identity(mail(text, message_id=f"<{n}@example.com>")) for n in (1, 2))
    assert one == Identity(exact="message <1@example.com>")
    assert strangers(one, other)
    assert one_mailing(one, identity(mail(text)))  # its own retry


def test_a_message_without_message_id_is_a_copy_of_what_has_its_body() -> None:
    def bare(text: str, subject: str) -> bytes:
        return f"From: eva@example.com\r\nSubject: {subject}\r\n\r\n{text}\r\n".encode()

    assert identity(bare("Thanks!", "one")) == identity(bare("Thanks!", "two"))
    assert identity(bare("Thanks!", "one")) != identity(bare("Thank you!", "one"))


SIGNATURE = (
    "\n\nMed vänliga hälsningar\nEva Berg\nKundansvarig, Exempelbolaget AB\nStorgatan 1, 111 22 Stockholm\n+46 8 123 45 67 | www.example.com\n"
    + "Exempelbolaget hjälper företag i hela Norden med pumpar, ventiler och service sedan 1957. Följ oss gärna på nätet.\n"
    + "Detta meddelande är avsett för adressaten och kan innehålla konfidentiell information. Tänk på miljön innan du skriver ut.\n"
)


def test_a_hundred_answers_with_one_greeting_and_one_long_signature_are_a_hundred() -> None:
    answers = [f"Hej!\n\nTack för ditt meddelande. {prose(n, 5, 'sv')}{SIGNATURE}" for n in range(100)]
    found = [identity(mail(text, message_id=f"<{n}@example.com>")) for n, text in enumerate(answers)]
    assert all(i.sketch for i in found)
    assert not any(one_mailing(a, b) for i, a in enumerate(found) for b in found[:i])


def test_quotes_of_one_template_are_one_mailing_and_quotes_in_words_of_their_own_are_not() -> None:
    """What is written once and sent to a hundred with other numbers in it is one mailing: it is the policy that lets letters
    to one customer each pass (correspondence), and systems their streams."""
    terms = prose(5, 9)

    def quote(n: int, text: str) -> Identity:
        return identity(
            mail(f"Quote {n}\n\n{text}\n\n{n % 7} x pump P{n}, {n},00 EUR\n\n{terms}", message_id=f"<{n}@example.com>")
        )

    assert one_mailing(*(quote(n, "") for n in range(1000, 1010)))
    assert strangers(quote(1, prose(21, 14)), quote(2, prose(22, 14)))


def test_a_reply_to_a_mailing_is_none_of_it() -> None:
    text = prose(2, 12)
    quoted = "".join(f"> {line}\n" for line in text.split(". "))
    answer = f"{prose(3, 6)}\n\nOn Monday, Eva <eva@example.com> wrote:\n{quoted}"
    assert strangers(identity(mail(text)), identity(mail(answer, message_id="<2@example.com>")))


def test_a_word_changed_in_each_copy_stays_one_mailing() -> None:
    words = prose(7, 14).split()
    found = []
    for n in range(20):
        changed = list(words)
        changed[n * len(words) // 20] = "".join(random.Random(n).choices("bcdfghklm", k=9))
        found.append(identity(mail(" ".join(changed), message_id=f"<{n}@example.com>")))
    assert one_mailing(*found)


def test_a_text_wrapped_otherwise_or_with_spaces_at_its_ends_is_the_same() -> None:
    text = prose(9)
    words = text.split()
    narrow = "\n".join(" ".join(words[i : i + 7]) for i in range(0, len(words), 7))
    wide = " \n".join(" ".join(words[i : i + 12]) for i in range(0, len(words), 12))
    assert identity(mail(text)).sketch == identity(mail(narrow)).sketch == identity(mail(wide)).sketch


def test_what_is_longer_than_is_looked_at_is_known_by_its_beginning() -> None:
    draw = random.Random(11)
    text = "\n\n".join(paragraph("en", draw) for _ in range(400))
    assert len(text) > 100_000
    assert (
        identity(mail(text)).sketch
        == identity(mail(text + "\n\nPS. One more thing.", message_id="<2@example.com>")).sketch
    )


def test_what_is_too_much_to_read_is_a_copy_of_what_has_its_body() -> None:
    text, tight = prose(12, 60), Bounds(text_bytes=2000)
    one, other = (identity(mail(text, message_id=f"<{n}@example.com>", X_Token=str(n)), tight) for n in (1, 2))
    assert one == other
    assert one.exact.startswith("body ")
    assert not one.sketch
    assert one != identity(mail(f"{text}!"), tight)


def test_what_is_encrypted_is_a_copy_of_the_same_octets_alone() -> None:
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


def test_the_header_alone_says_nothing_of_it() -> None:
    assert read(Message.of(mail(prose(1))), depth=Depth.HEADERS).identity == Identity()


def test_what_is_approved_is_its_text_and_no_campaigns_name() -> None:
    draw = random.Random(14)
    first, second = (newsletter(House("sv", "", ()), draw, paragraphs=5) for _ in range(2))
    mine, theirs = copies(first, 3), copies(second, 1)[0]
    assert all(covers(mine[0], copy) for copy in mine)
    assert not covers(mine[0], theirs)
    assert not covers(
        Identity(exact="campaign 1", sketch=mine[0].sketch), Identity(exact="campaign 1", sketch=theirs.sketch)
    )
    assert covers(Identity(exact="campaign 1"), Identity(exact="campaign 1"))
    assert not covers(Identity(exact="campaign 1"), Identity(exact="campaign 1", sketch=theirs.sketch))
    assert not covers(Identity(), Identity())


@pytest.mark.parametrize(
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
def test_own_text_ends_where_signature_and_footer_begin(text: str, kept: str) -> None:
    assert own(text) == kept


def test_the_least_is_counted_in_its_own_characters() -> None:
    text = prose(30, 12)[: LEAST + 20]
    assert identity(mail(text)).sketch
    assert not identity(mail(text[: LEAST - 20])).sketch


@pytest.mark.parametrize(
    ("headers", "subject", "campaign"),
    [
        ({"X-Campaign-ID": "spring-26"}, "Spring", "x-campaign-id spring-26"),
        ({"X-Campaign": "a.b", "List-Id": "News <news.example.com>"}, "Spring", "x-campaign a.b"),
        ({"Feedback-ID": "11:customer:news:example"}, "Issue 4", "11:customer:news:example issue 4"),
        ({"List-Id": "News <news.example.com>"}, "Re: Issue 5", "news.example.com issue 5"),
        ({"List-Id": "News <news.example.com>"}, "", ""),
        ({"X-Subscriber-ID": "4711", "X-Mailer": "x"}, "Spring", ""),
    ],
)
def test_campaigns_that_are_declared(headers: dict[str, str], subject: str, campaign: str) -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    raw = f"From: a@example.com\r\nSubject: {subject}\r\n{fields}\r\nHello\r\n".encode()
    assert read(Message.of(raw)).campaign == campaign


def test_a_campaign_that_is_declared_twice_is_none() -> None:
    raw = b"From: a@example.com\r\nX-Campaign: 1\r\nX-Campaign: 2\r\n\r\nHello\r\n"
    assert read(Message.of(raw)).campaign == ""
