"""Reading disguised content: encodings, charsets, markup, parts and names. Unreadable content is named.

For how a message looks, see test_story.
"""

from __future__ import annotations

import base64
import quopri

import pytest

from smtpguard.mail.decoding import body_text
from smtpguard.reading.looks import Looks, Readable
from smtpguard.reading.request import Bounds
from smtpguard.reading.shown import shown_by
from tests.every import every
from tests.reading.letters import CAMPAIGN, OUTLOOK, PLATFORM, STORY, letter, look, names, parts, topics

_LONG = " ".join(CAMPAIGN.split())
_SECRET = "bacon for everybody, and do not tell the boss"


@every(
    ("tag", "encoding"),
    [
        (tag, encoding)
        for tag in ("<!-- {} -->", '<p data-x="{}">x</p>', "<script>/* {} */</script>")
        for encoding in ("8bit", "quoted-printable")
    ],
)
def test_what_a_break_of_a_long_line_shows_is_read(tag: str, encoding: str) -> None:
    """Postfix breaks a line behind its 998th octet: behind the first sign of the tag, which is a text then."""
    before, kind, behind = _LONG.partition("<p>")

    def with_tag(at: int) -> set[str]:
        coded = (before, tag.format(_SECRET) + kind + behind)
        first, rest = (one.replace("=", "=3D") if encoding == "quoted-printable" else one for one in coded)
        html = first.encode().ljust(at).decode() + rest
        reading = look(letter(html, PLATFORM | {"Content-Transfer-Encoding": encoding}, kind="text/html"))
        assert reading.looks is Looks.MAILING
        return topics(reading) | (names(reading) & {"hidden-text", "secretive"})

    assert with_tag(997) == {"pork", "hidden-text", "secretive"}
    assert with_tag(980) == set()


def test_no_more_of_an_attached_text_is_read_for_its_long_lines() -> None:
    attached = "Content-Type: text/html\nContent-Disposition: attachment; filename=report.html"
    mail = parts(("Content-Type: text/plain", "See the report."), (attached, "<p>" + "<b>1</b>" * 1000))
    assert look(mail, bounds=Bounds(attached_bytes=4000, tags=1500)).readable is Readable.YES


@every(
    "twice",
    ["From: x@example.org", "Subject: again", "Sender: x@example.org\r\nSender: y@example.org", "Message-ID: <2@x>"],
)
def test_a_repeated_field_is_unreadable_and_still_read(twice: str) -> None:
    message = letter(STORY)
    reading = look(type(message).of(twice.encode() + b"\r\n" + message.raw[:]))
    assert reading.readable is Readable.UNREADABLE
    assert "more than one" in reading.why_unreadable
    assert topics(reading) == {"pork", "alcohol", "diets"}


@pytest.mark.parametrize("line", [b"no field at all", b"X-Field : for some programs the header ends before it"])
def test_a_broken_header_is_unreadable_and_still_read(line: bytes) -> None:
    message = letter(STORY)
    reading = look(type(message).of(line + b"\r\n" + message.raw[:]))
    assert reading.readable is Readable.UNREADABLE
    assert topics(reading) == {"pork", "alcohol", "diets"}


@every(
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
        ("application/octet-stream; name=smime.p7m", "S/MIME"),
        ("multipart/mixed; boundary=aa; boundary=bb", "two boundaries"),
        ("multipart/mixed; boundary*=us-ascii''aa; boundary=bb", "two boundaries"),
        ('multipart/mixed; boundary="b\\b"', "two boundaries"),
        ("text/plain; charset=utf-16be; charset=utf-8", "two charsets"),
        ("multipart/mixed", "cannot be told apart"),
        ("multipart/mixed; boundary=other", "cannot be told apart"),
    ],
)
def test_unreadable_content_is_named(content_type: str, why: str) -> None:
    reading = look(letter("--bb\n\nBacon\n--bb--\n", {"Content-Type": content_type, **PLATFORM}))
    assert reading.readable is Readable.UNREADABLE
    assert why in reading.why_unreadable


def test_an_unreadable_message_is_a_mailing_only_by_its_unsubscribe() -> None:
    sealed = {"Content-Type": "application/pkcs7-mime; smime-type=enveloped-data"}
    assert look(letter("x", {**sealed, **PLATFORM})).looks is Looks.MAILING  # its header looks like a mailing
    assert look(letter("x", {**sealed, "Precedence": "bulk", "X-MC-User": "1"})).looks is Looks.UNCLEAR
    assert look(letter("x", {**sealed, **PLATFORM, **OUTLOOK})).looks is not Looks.MAILING


def test_inline_pgp_is_unreadable() -> None:
    assert (
        look(letter("-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----\n")).readable is Readable.UNREADABLE
    )


def test_a_multipart_with_a_wrong_boundary_is_read_as_text() -> None:
    assert topics(look(letter("Bacon\n", {"Content-Type": "multipart/mixed; boundary=other"}))) == {"pork"}


@every(
    ("inside", "readable"),
    [
        ("--bbx\nContent-Transfer-Encoding: base64\n\nQmFjb24=", Readable.UNREADABLE),
        ("--bb--x", Readable.UNREADABLE),
        ("x --bbx", Readable.YES),
        ("--bb\nContent-Type: multipart/mixed; boundary=bb2\n\n--bb2\n\nHello\n--bb2--", Readable.YES),
    ],
)
def test_lines_that_only_begin_with_a_boundary_are_unreadable(inside: str, readable: Readable) -> None:
    """A server that follows RFC 2046 to the letter, such as Dovecot, parts a message at them."""
    reading = look(letter(f"--bb\n\nHello\n{inside}\n--bb--\n", {"Content-Type": "multipart/mixed; boundary=bb"}))
    assert reading.readable is readable


def test_two_different_content_types_are_unreadable() -> None:
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
        "Vmkgw=" + base64.b64encode("Vi äter fläsket".encode()).decode()[5:],
    ],
    ids=["right", "junk in it", "padding in the middle", "cut off", "padding where none can be"],
)
def test_valid_and_invalid_base64_is_read(body: str) -> None:
    reading = look(letter(body, {"Content-Transfer-Encoding": "base64"}))
    assert topics(reading) == {"pork"}


def test_text_that_is_said_to_be_base64_is_read() -> None:
    """Python's email package shows it as it is."""
    head = {"Content-Type": "text/plain; charset=utf-8", "Content-Transfer-Encoding": "base64"}
    reading = look(letter("Dear friends, tonight we have bacon for all of you.", head))
    assert [(t.vocabulary, t.where) for t in reading.topics] == [("pork", "hidden text")]
    message = "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64"
    body = "Content-Transfer-Encoding: quoted-printable\n\nTonight there is b=61con for all of you."
    assert topics(look(parts((message, body)))) == {"pork"}


@every(
    ("encoding", "body"),
    [
        ("base64", "Hej vi har bacon till alla"), ("base64", "Hej\nbacon\nidag"), ("7bit\n base64", "Hej vi har bacon till alla"),
        ("x-uuencode", "Hej, vi har bacon."), ("uue", "begin 644 a.txt\nHej, vi har bacon.\nend"),
    ],
)  # fmt: skip
def test_words_that_are_said_to_be_encoded_are_read(encoding: str, body: str) -> None:
    """Programs that do not know the encoding, or see that it is none, show them as they are."""
    message = letter(body, {"Content-Type": "text/plain; charset=utf-8", "Content-Transfer-Encoding": encoding})
    assert topics(look(message)) == {"pork"}
    other = letter(body.replace(" ", "", 2), {"Content-Type": "text/plain", "Content-Transfer-Encoding": encoding})
    assert (shown_by(message).digest != shown_by(other).digest) == (" " in body)


@every(
    ("content_type", "body"),
    [
        ("multipart/mixed; boundary=bb", "--bb\nContent-Type: multipart/mixed; boundary=bb--\n\n--bb--\n\nBacon\n--bb----\n--bb--\n"),
        ("text=mixed/; boundary=bb", "--bb\nContent-Transfer-Encoding: base64\n\nQmFjb24=\n--bb--\n"),
        ("text/plain; boundary=bb", "--bb\nContent-Transfer-Encoding: base64\n\nQmFjb24=\n--bb--\n"),
        ("; boundary=bb", "--bb\nContent-Transfer-Encoding: base64\n\nQmFjb24=\n--bb--\n"),
    ],
)  # fmt: skip
def test_parts_that_programs_cut_differently_are_unreadable(content_type: str, body: str) -> None:
    """mailparser and postal-mime show what the guard would not see."""
    assert look(letter(body, {"Content-Type": content_type})).readable is Readable.UNREADABLE


@every(
    "kind",
    [
        "=?utf-8?q?text/html?=",
        "=text/",
        "text\\/",
        "image/",
        "text/html/x",
        "text;charset=500",
        "text/plain;charset=037",
    ],
)
def test_a_type_that_is_none_is_text(kind: str) -> None:
    assert topics(look(letter("Vi har bacon för alla", {"Content-Type": kind}))) == {"pork"}


def test_what_is_said_to_be_a_calendar_is_read() -> None:
    assert topics(look(letter("Bacon till alla\nidag", {"Content-Type": "text/calendar"}))) == {"pork"}


def test_a_part_right_behind_a_last_boundary_is_read() -> None:
    reading = look(letter("--bb\n--bb--\n\nBacon\n--bb--\n", {"Content-Type": "multipart/mixed; boundary=bb"}))
    assert topics(reading) == {"pork"}


@every("charset", ["utf-8", "iso-8859-1", "windows-1252", "utf-16", "utf-7", "mac-roman", "cp850"])
def test_charsets_are_decoded(charset: str) -> None:
    body = base64.encodebytes("Vi äter fläsket".encode(charset)).decode()
    message = letter(body, {"Content-Type": f"text/plain; charset={charset}", "Content-Transfer-Encoding": "base64"})
    assert topics(look(message)) == {"pork"}


@every("octets", [b"\xff", b"\xc3", "\n--\nÄrende f\u00f6r Bo".encode("iso-8859-1")])
@pytest.mark.parametrize("charset", ["utf-8", "us-ascii", "x-unknown", "unknown-8bit"])
def test_octets_that_are_not_utf_8_leave_the_rest_of_the_text_readable(charset: str, octets: bytes) -> None:
    for body in ("Vi äter fläsk ".encode() + octets, octets + " Vi äter fläsk".encode()):
        message = letter(
            base64.encodebytes(body).decode(),
            {"Content-Type": f"text/plain; charset={charset}", "Content-Transfer-Encoding": "base64"},
        )
        assert topics(look(message)) == {"pork"}
    word = base64.b64encode("fläsk ".encode() + octets).decode()
    assert topics(look(letter("Hej", {"Subject": f"=?{charset}?B?{word}?="}))) == {"pork"}


@every("charset", ["iso-8859-1", "windows-1252", "iso-8859-9"])
def test_utf_8_under_a_latin_label_is_read(charset: str) -> None:
    message = letter("Vi äter fläsk", {"Content-Type": f"text/plain; charset={charset}"})
    assert topics(look(message)) == {"pork"}


@every(
    ("charset", "text"),
    [
        ("windows-1256", "لحم الخنزير"),
        ("shift_jis", "Ｂａｃｏｎ"),
        ("iso-8859-1", "fläsk"),
        ("utf-16", "fläsk"),
        ("cp037", "bacon"),
    ],
)
def test_html_may_name_its_own_charset(charset: str, text: str) -> None:
    """It counts only where a browser would follow it."""
    coded = "ascii" if charset in ("utf-16", "cp037") else charset
    page = f'<html><head><META http-equiv=x content="text/html; charset = {charset}"><body>{text}'
    body = base64.encodebytes(page.encode(coded, "xmlcharrefreplace")).decode()
    message = letter(body, {"Content-Type": "text/html", "Content-Transfer-Encoding": "base64"})
    assert topics(look(message)) == {"pork"}


@every(
    ("body", "said"),
    [
        ("Vi äter fl \näsk\n", "Vi äter fläsk"), ("> Vi äter fl \n> äsk\n", "> Vi äter fläsk"), ("Vi äter fl \n äsk", "Vi äter fläsk"),
        ("> Vi äter fl \näsk", "> Vi äter fl\näsk"), ("Hej\n-- \nBo", "Hej\n-- \nBo"),
    ],
)  # fmt: skip
def test_soft_line_breaks_within_words_are_undone(body: str, said: str) -> None:
    """As Apple's mail programs send it (RFC 3676 section 4)."""
    flowed = {"charset": "utf-8", "format": "flowed", "delsp": "Yes"}
    assert body_text(body.encode(), "text/plain", flowed).text.strip() == said
    assert body_text(body.encode(), "text/plain", flowed | {"delsp": "no"}).text == body
    message = letter(body, {"Content-Type": "text/plain; charset=utf-8; format=flowed; DelSp=YES"})
    assert topics(look(message)) == ({"pork"} if "fläsk" in said else set())


@every("charset", ["x-klingon", "punycode", "zlib", "idna", "base64", "unicode_escape", "\x00"])
def test_an_unknown_charset_is_named_and_the_text_read(charset: str) -> None:
    reading = look(letter("Vi äter fläsket", {"Content-Type": f'text/plain; charset="{charset}"'}))
    assert topics(reading) == {"pork"}
    if charset != "\x00":
        assert "unknown charset" in next(m.evidence for m in reading.marks if m.name == "defect")


def test_an_encoded_word_cut_in_mid_character_is_read() -> None:
    first, second = (base64.b64encode(piece).decode() for piece in (b"fl\xc3", b"\xa4sk"))
    reading = look(letter("Hej", {"Subject": f"=?utf-8?B?{first}?=\r\n =?utf-8?B?{second}?="}))
    assert reading.subject == "fläsk"
    assert topics(reading) == {"pork"}


@every(
    "html",
    [
        "<p>fl&auml;sk</p>", "<p>fl&#228;<b></b>sk</p>", "<p>f<i>l</i>ä<span>sk</span></p>", "<p>fl\u00adä\u200bsk</p>", "<p>fla\u0308sk</p>",
        '<p style="display:none">fläsk</p>', "<p>f l ä s k</p>", '<img alt="fläsk">', "<!-- --><p>fläsk", "<p>ｆläsk</p>", "<p>b\u0430con</p>", "<p>b4c0n</p>",
        "<textarea>fläsk</textarea>", "<noscript>fläsk</noscript>", "<table><td>fläsk", "<svg></svg><p>fläsk", "<title>x</title><h1>FLÄSK</h1>",
    ],
)  # fmt: skip
def test_disguised_words_in_html_are_read(html: str) -> None:
    assert topics(look(letter(html, kind="text/html"))) == {"pork"}


def test_quoted_printable_in_mid_word_is_read() -> None:
    body = quopri.encodestring("Vi äter fläsket".encode()).decode().replace("fl", "f=\nl")
    assert topics(look(letter(body, {"Content-Transfer-Encoding": "quoted-printable"}))) == {"pork"}


def test_attached_messages_and_text_files_are_read() -> None:
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


def test_attachment_names_are_read_in_every_spelling() -> None:
    for name in (
        'filename="fläsk.pdf"',
        "filename*=utf-8''fl%C3%A4sk.pdf",
        "filename*0=fl; filename*1*=%C3%A4sk.pdf",
        'filename*0="=?utf-8?Q?fl=C3"; filename*1="=A4sk.pdf?="',
        'filename="=?utf-8?Q?fl=C3=A4sk.pdf?="',
    ):
        reading = look(
            parts(
                ("Content-Type: text/plain", "x"),
                (f"Content-Type: application/pdf\nContent-Disposition: attachment; {name}", "%PDF"),
            )
        )
        assert [(t.vocabulary, t.where) for t in reading.topics] == [("pork", "attachment name")], name


@every(
    "head",
    [
        'Content-Type: application/pdf; name="fläsk.pdf"\nContent-Disposition: attachment; filename="a.pdf"',
        "Content-Type: application/pdf\nContent-Disposition: attachment; filename*=utf-8''a.pdf; filename=bacon.pdf",
        "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf; filename=bacon.pdf",
        "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a(bacon).pdf",
        "Content-Type: application/pdf\nContent-Description: Bacon",
    ],
)
def test_every_name_of_an_attachment_is_read(head: str) -> None:
    """Programs differ in which one they show."""
    assert topics(look(parts(("Content-Type: text/plain", "x"), (head, "%PDF")))) == {"pork"}


@pytest.mark.parametrize("within", ["", "Content-Type: multipart/mixed; boundary=cc\n\n--cc\n"])
def test_the_subject_within_a_signed_message_is_read(within: str) -> None:
    """Mail programs show it instead of the other (RFC 9788)."""
    head = f'Subject: Bacon\n{within}Content-Type: text/plain; hp="clear"'
    reading = look(parts((head, "Hello"), kind="multipart/signed"))
    assert [(t.vocabulary, t.where) for t in reading.topics] == [("pork", "hidden text")]
    assert look(parts((head.replace("Bacon", "Hello"), "Hello"), headers={"Subject": "Hello"})).topics == ()


@every(
    ("field", "value", "found"),
    [
        ("From", '"Bacon, and more" <anna@example.com>', True), ("From", "anna@example.com (bacon)", True),
        ("From", "=?utf-8?q?Fl=C3=A4sk?= <anna@example.com>", True), ("Sender", "Bacon <x@news.example>", True),
        ("Reply-To", "Bacon <x@news.example>", True), ("Resent-From", "Bacon <x@news.example>", True),
        ("Bcc", "Bacon fans <customers@example.com>", True), ("Resent-To", "Bacon fans <customers@example.com>", True), ("To", "Bacon fans <customers@example.com>", True),
        ("To", "Bacon fans:;", True), ("Cc", '"Per (bacon)" <per@example.com>', True), ("To", "a@x.example, Bacon <lotta@example.com>", True),
        ("To", "Anna Bacon <anna@x.example>", False), ("To", '"Bacon, Anna" <anna@x.example>, b@x.example', False),
        ("To", "=?utf-8?q?Bacon=2C?= Anna <anna@x.example>", False), ("To", "bacon@example.com", False), ("From", "bacon@example.com", False),
        ("From", "Kevin Bacon <kevin@example.com>", False), ("X-From", "Bacon <x@news.example>", False),
    ],
)  # fmt: skip
def test_names_beside_addresses_are_read(field: str, value: str, found: bool) -> None:
    """A customer's own name is no text."""
    reading = look(letter("Hej", {field: value}))
    assert [(t.vocabulary, t.where) for t in reading.topics] == [("pork", "name")] * found


def test_a_word_of_the_text_is_not_found_again_in_a_name() -> None:
    reading = look(letter("Bacon", {"From": "Bacon and whisky <anna@example.com>"}))
    assert [(t.vocabulary, t.where) for t in reading.topics] == [("pork", "text"), ("alcohol", "name")]


@every("field", ["X-Message-Flag", "Thread-Topic", "Keywords", "Newsgroups", "Followup-To"])
def test_a_field_that_some_program_shows_is_read(field: str) -> None:
    reading = look(letter("Hej", {field: "=?utf-8?q?Fl=C3=A4sk?= till alla"}))
    assert [(t.vocabulary, t.where) for t in reading.topics] == [("pork", "text")]


def test_both_alternatives_are_read() -> None:
    html = "Content-Type: text/html; charset=utf-8", "<p>Hej</p>"
    reading = look(parts(("Content-Type: text/plain; charset=utf-8", "Bacon"), html, kind="multipart/alternative"))
    assert topics(reading) == {"pork"}


def test_hidden_text_makes_no_mailing() -> None:
    hidden = '<div style="DISPLAY: none">unsubscribe, view in browser, all rights reserved, dear customer</div>'
    reading = look(letter(f"<p>Hej Bo, ses vi på mötet?</p>{hidden}", kind="text/html"))
    assert reading.looks is not Looks.MAILING
    assert "hidden-text" in names(reading)
    assert "unsubscribe-words" not in names(reading)
