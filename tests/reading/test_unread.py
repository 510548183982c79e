"""Hidden content that a campaign could carry: if it cannot be read, the reading says so; if it can, it is found.

Each message has all header fields of a mailing, so that only its words can stop it. For disguised words, see
test_disguises.
"""

from __future__ import annotations

import base64
import binascii
import time

import pytest

from smtpguard.mail.decoding import decode_charset, header_text, parse_value, transfer_encoding
from smtpguard.mail.message import Message
from smtpguard.reading.fold import fold, undisguised
from smtpguard.reading.looks import Looks, Readable, Reading, from_declared_origin
from smtpguard.reading.markup import read_markup
from smtpguard.reading.quoting import split
from smtpguard.reading.request import Bounds, Meter
from smtpguard.reading.text import calendar_text, embedded_files, enriched_text, format_of, rtf_text
from smtpguard.reading.thread import FORWARD, REPLY, prefix_of
from tests.every import every
from tests.reading.letters import CAMPAIGN, PLATFORM, letter, look, names, parts, topics

PORK = "Bacon and whisky"
PLAIN = ("Content-Type: text/plain; charset=utf-8", "Hello")
UU = "begin 644 {}\n" + binascii.b2a_uu(PORK.encode()).decode() + "`\nend\n"


def packed(octets: bytes | str) -> str:
    return base64.encodebytes(octets.encode() if isinstance(octets, str) else octets).decode()


def alone(body: str, kind: str, **fields: str) -> Reading:
    return look(letter(body, {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in fields.items()}, **PLATFORM}))


def html(body: str) -> Reading:
    return look(letter(f"<html><body><p>Hello</p>{body}</body></html>", PLATFORM, kind="text/html"))


# nothing to read


@every(
    "kind",
    ["image/png", "application/pdf; name=a.pdf", "application/octet-stream", "application/zip", "video/mp4", "foo/bar",
     "application/vnd.openxmlformats-officedocument.wordprocessingml.document; name=a.docx"],
)  # fmt: skip
def test_files_that_may_show_words_are_unreadable(kind: str) -> None:
    body = packed(b"\x89PNG whatever")
    for reading in (
        alone(body, kind, Content_Transfer_Encoding="base64"),
        look(parts(("Content-Type: text/plain", " \n"), (f"Content-Type: {kind}", body), headers=PLATFORM)),
    ):
        assert reading.readable is Readable.UNREADABLE
        assert kind.partition(";")[0] in reading.why_unreadable


def test_a_message_of_pictures_only_is_unreadable() -> None:
    silent = '<p> </p><a href="https://x.example/"><img src="https://x.example/{}.png"{}></a>'
    assert (
        look(letter(silent.format(1, ""), PLATFORM, kind="text/html")).why_unreadable
        == "it has no words of its own, only pictures from elsewhere"
    )
    told = look(letter(silent.format(1, ' alt="Autumn offers"'), PLATFORM, kind="text/html"))
    assert told.readable is Readable.YES
    pixel = '<p></p><img src="https://x.example/o.gif" width="1" height="1">'
    assert look(letter(pixel, kind="text/html")).readable is Readable.YES


def test_a_message_of_hidden_words_only_is_unreadable() -> None:
    said = "<div style='color:transparent;text-shadow:0 0 0 #000'>{}</div>"  # every browser shows it
    reading = look(letter(said.format("Tonight there is bacon for all of you, and more"), kind="text/html"))
    assert "only hidden" in reading.why_unreadable
    assert look(letter(said.format("bacon"), kind="text/html")).readable is Readable.YES


def test_an_empty_message_is_readable() -> None:
    assert look(letter("")).readable is Readable.YES
    assert look(letter(" \n\n")).readable is Readable.YES
    words = "Content-Type: text/plain\nContent-Disposition: attachment; filename=a.txt", "Hello"
    assert look(parts(words)).readable is Readable.YES  # an attachment that was read
    assert look(parts(PLAIN, ("Content-Type: image/png", "x"))).readable is Readable.YES
    message = "Content-Type: application/octet-stream; name=a.eml", "Subject: s\n\nHello"
    assert look(parts(message)).readable is Readable.YES  # as was this


@every(
    "head",
    ["Content-Type: application/vnd.ms-outlook", "Content-Type: application/octet-stream; name=Lunch.msg",
     "Content-Type: application/octet-stream\nContent-Disposition: attachment; filename=LUNCH.MSG"],
)  # fmt: skip
def test_an_outlook_msg_file_is_unreadable(head: str) -> None:
    reading = look(parts(PLAIN, (head, "x"), headers=PLATFORM))
    assert "(.msg)" in reading.why_unreadable


def test_tnef_is_recognized_under_any_name() -> None:
    head = "Content-Type: application/octet-stream; name=att.dat\nContent-Transfer-Encoding: base64"
    assert "TNEF" in look(parts(PLAIN, (head, packed(b"\x78\x9f\x3e\x22rest")), headers=PLATFORM)).why_unreadable


# words that say it is for colleagues only


@every(
    ("headers", "body"),
    [
        ({"Sensitivity": "Company-Confidential"}, CAMPAIGN),
        ({"MSIP_Labels": "MSIP_Label_1234abcd-0000-4000-8000-0123456789ab_Name=Konfidentiell;"}, CAMPAIGN),
        ({"X-Classification": "Intern"}, CAMPAIGN),
        ({}, CAMPAIGN.replace("Kära kund!", "Endast för internt bruk!")),
        ({"Subject": "INTERNAL USE ONLY: prices"}, CAMPAIGN),
    ],
)
def test_internal_words_or_labels_make_no_mailing(headers: dict[str, str], body: str) -> None:
    reading = from_declared_origin(look(letter(body, PLATFORM | headers, kind="text/html")), "campaigns.example.com")
    assert reading.looks is Looks.UNCLEAR


@every(
    "label",
    [
        "General",
        "Public",
        "Allmän",
        "Non-Business",
        "Unrestricted",
        "Not Confidential",
        "Unclassified",
        "International",
    ],
)
def test_other_labels_do_not_matter(label: str) -> None:
    head = {"MSIP_Labels": f"MSIP_Label_1234abcd-0000-4000-8000-0123456789ab_Name={label};"}
    assert look(letter(CAMPAIGN, PLATFORM | head, kind="text/html")).looks is Looks.MAILING


def test_international_is_not_internal() -> None:
    body = CAMPAIGN.replace("Kära kund!", "Endast för internationella kunder! Alleen voor internationale klanten.")
    assert look(letter(body, PLATFORM, kind="text/html")).looks is Looks.MAILING


def test_confidential_answers_of_a_survey_are_no_internal_mail() -> None:
    body = CAMPAIGN.replace("Kära kund!", "Kära kund! Dina svar är strikt konfidentiella. Strictly confidential!")
    assert look(letter(body, PLATFORM, kind="text/html")).looks is Looks.MAILING


# transfer encodings, types and charsets as programs write them


@every(
    "spelled",
    ["base64", "BASE64", '"base64"', "base64;", "base64,", "(7bit) base64", "base64 (or not)", "base64 foo", "x-base64",
     "=?utf-8?q?base64?="],
)  # fmt: skip
def test_base64_is_recognized_in_any_spelling(spelled: str) -> None:
    assert topics(alone(packed(PORK), "text/plain", Content_Transfer_Encoding=spelled)) == {"pork", "alcohol"}


@every("spelled", ["quoted-printable (x)", '"Quoted-Printable"', "quoted-printable;x=y"])
def test_quoted_printable_is_recognized_in_any_spelling(spelled: str) -> None:
    assert topics(alone("b=61con", "text/plain", Content_Transfer_Encoding=spelled)) == {"pork"}
    assert transfer_encoding(spelled.encode()) == "quoted-printable"


@every("end", ["=\r\n", "= \t\r\n", "=\n", "=   \n"])
def test_a_soft_line_break_may_have_white_space_behind_it(end: str) -> None:
    assert topics(alone(f"Tonight ba{end}con", "text/plain", Content_Transfer_Encoding="quoted-printable")) == {"pork"}


@every("spelled", ["7bit", "8-bit", "x-nobody", "", "x-uuencode"])
def test_another_encoding_keeps_its_name(spelled: str) -> None:
    assert transfer_encoding(spelled.encode()) == spelled


@every(
    "kind",
    ['"text/html"', "text / html", "text/html (a \"b\")", "(x) text/html (y (z))", "TEXT/HTML;;charset=utf-8", "text/html (charset=x)",
     "text/html charset=utf-8", "text/html, charset=utf-8", "text/watch-html"],
)  # fmt: skip
def test_a_content_type_is_recognized_in_any_spelling(kind: str) -> None:
    assert topics(alone("<p>Hello</p><p>b&#97;con</p>", kind)) == {"pork"}


@every("kind", ["text", "html", "plain text", "", ";charset=utf-8", "nothing known"])
def test_an_invalid_content_type_is_plain_text(kind: str) -> None:
    """An invalid Content-Type means text/plain (RFC 2045, section 5.2)."""
    assert topics(alone(PORK, kind)) == {"pork", "alcohol"}


def test_quoted_parentheses_are_no_comment() -> None:
    assert parse_value(b'a/b; name="x (1).pdf" (note "q" (in)); c=d').parameters == {"name": "x (1).pdf", "c": "d"}
    assert parse_value(b'a/b; name="x (1).pdf').parameters == {"name": "x (1).pdf"}
    assert parse_value(b"a/b; name=x(1).pdf (of two)").parameters == {"name": "x(1).pdf (of two)"}


@every(
    ("charset", "octets"),
    [
        ("utf-16", PORK.encode("utf-16-be")),
        ("utf-16", PORK.encode("utf-16-le")),
        ("utf-8", PORK.encode("utf-16")),
        ("us-ascii", b"\xfe\xff" + PORK.encode("utf-16-be")),
        ("utf-8", PORK.encode("utf-16-le")),
        ("utf-8", b"Ba\x1b(Bcon and whis\x1b(Bky"),
        ("utf-8", b"\x1b$B#b#a#c#o#n\x1b(B, whisky"),
        ("utf-8", b"Ba\x00con\x07 whi\x7fsky"),
        ("csUnicode11UTF7", b"+AGIAYQBjAG8Abg- whisky"),
    ],
)
def test_a_charset_is_detected_despite_its_label(charset: str, octets: bytes) -> None:
    reading = alone(packed(octets), f"text/plain; charset={charset}", Content_Transfer_Encoding="base64")
    assert topics(reading) == {"pork", "alcohol"}


@every("charset", ["utf-8", "iso-8859-15", "iso-8859-2", "koi8-r", "cp932", "utf-16", "utf-7"])
@every("kind", ["text/plain", "text/html"])
def test_invisible_characters_split_no_word_in_any_charset(charset: str, kind: str) -> None:
    said = "\x07".join("Tonight bacon")
    said = said if charset in ("koi8-r", "cp932", "iso-8859-15", "iso-8859-2") else said.replace("c", "\x85c\uffff")
    octets = packed(said.encode(charset))
    assert topics(alone(octets, f"{kind}; charset={charset}", Content_Transfer_Encoding="base64")) == {"pork"}


@every("kind", ["text/plain", "text/html"])
@every(
    "octets",
    [
        b"\xff\xfeFor internal use only: bacon, tonight ",
        b"\xfe\xffFor internal use only: bacon, tonight",
        b"For internal use only: \x1b$B!!bacon!!\x1b(B",
        b"\x1b$B<template>\x1b(B For internal use only: bacon",
    ],
)
def test_a_text_that_programs_read_in_two_ways_is_read_in_both(octets: bytes, kind: str) -> None:
    """Those that follow the label show words; others see the mark of UTF-16 or Japanese letters. One may be hidden in
    the other."""
    reading = alone(packed(octets), f"{kind}; charset=utf-8", Content_Transfer_Encoding="base64")
    assert "pork" in topics(reading)
    assert "inside-only" in names(reading)


@every("label", ["", "; charset=us-ascii", "; charset=utf-8"])
@every("kind", ["text/plain", "text/html"])
@every(
    ("codec", "text"),
    [
        ("iso2022_jp", "春のセールのお知らせです。今週末まで、すべての商品が二割引になります。"),
        ("iso2022_kr", "봄이 왔습니다. 이번 주말까지 모든 상품을 할인합니다."),
        ("utf-16", "Весна пришла. До воскресенья все товары со скидкой."),
    ],
)
def test_text_under_a_wrong_label_is_read(codec: str, text: str, kind: str, label: str) -> None:
    """As old programs in Japan send it: without a label."""
    reading = alone(packed(f"{text}\nBacon".encode(codec)), kind + label, Content_Transfer_Encoding="base64")
    assert reading.readable is Readable.YES
    assert topics(reading) == {"pork"}


@every(
    ("name", "codec", "text"),
    [
        ("x-cp1251", "cp1251", "Весна пришла"), ("x-mac-cyrillic", "mac_cyrillic", "Весна пришла"), ("koi8", "koi8_r", "Весна пришла"),
        ("iso88595", "iso8859_5", "Весна пришла"), ("windows-949", "cp949", "봄이 왔습니다"), ("x-x-big5", "big5", "春天到了"),
        ("gb_2312-80", "gb2312", "春天到了"), ("x-euc-jp", "euc_jp", "春です"), ("csShiftJIS", "cp932", "①春です"),
    ],
)  # fmt: skip
def test_the_names_of_charsets_that_browsers_know_are_known(name: str, codec: str, text: str) -> None:
    found = decode_charset(text.encode(codec), name)
    assert (found.text, found.defect) == (text, None)


@every("label", ["utf-16", "utf-16le", "utf-32", "cp037"])
@every("codec", ["utf-8", "cp1252"])
def test_text_that_is_nearly_ascii_is_read_as_such(label: str, codec: str) -> None:
    octets = packed("<p>Hej</p><p>Bacon för oss alla på måndag</p>".encode(codec))
    assert topics(alone(octets, f"text/html; charset={label}", Content_Transfer_Encoding="base64")) == {"pork"}


def test_lines_of_ebcdic_stay_lines() -> None:
    octets = packed("Dear all\x85bacon".encode("cp037"))
    assert topics(alone(octets, "text/plain; charset=cp037", Content_Transfer_Encoding="base64")) == {"pork"}


@every(("charset", "octets"), [("IBM278", PORK.encode("cp037")), ("x-cyrillic", "Привет, коллеги".encode("cp1251"))])
def test_text_in_an_unknown_charset_is_unreadable(charset: str, octets: bytes) -> None:
    reading = alone(packed(octets), f"text/plain; charset={charset}", Content_Transfer_Encoding="base64")
    assert "unknown charset" in reading.why_unreadable


@every("charset", ["utf8mb4", "x-unheard-of"])
def test_text_in_an_unknown_charset_that_is_utf_8_or_ascii_is_read(charset: str) -> None:
    for said in ("Привет, коллеги", "Hello, all"):
        octets = packed(said)
        reading = alone(octets, f"text/plain; charset={charset}", Content_Transfer_Encoding="base64")
        assert reading.readable is Readable.YES


@every(
    "subject",
    [
        "=?utf-8?b?//4gYmFjb24h?=",
        "=?iso-8859-1?q?=FE=FFmore_bacon?=",
        "ba\u00adcon",
        "ba\u200bcon",
        "=?utf-8?q?ba=00con?=",
        "=?utf-8?q?b=61con??=",
        "=?utf-8?b?YmHCrWNvbg==?=",
    ],
)
def test_a_disguised_subject_is_read(subject: str) -> None:
    assert topics(look(letter("Hello", {"Subject": subject, **PLATFORM}))) == {"pork"}


def test_broken_encoded_words_are_decoded_in_linear_time() -> None:
    """Broken encoded words take no more time than valid ones, although each "=?" could extend to the end."""
    began = time.process_time()
    header_text(b"=?a?q? " * 50_000)
    header_text(b"=?a?q?x" + b"?" * 200_000)
    assert time.process_time() - began < 5


# text in other formats and files


@every(
    ("head", "body"),
    [
        ("Content-Type: text/csv; name=a.csv\nContent-Disposition: attachment", "bacon,1"),
        ("Content-Type: text/vcard; name=a.vcf", "BEGIN:VCARD\nNOTE:bacon\nEND:VCARD"),
        ("Content-Type: application/octet-stream; name=a.txt", "bacon"),
        ("Content-Type: application/msword; name=a.rtf", "{\\rtf1 b\\'61con}"),
        ("Content-Type: application/x-anything; name=a.html", "<p>b&#97;con"),
        ("Content-Type: application/x-anything; name=a.eml", "Subject: x\nContent-Type: text/html\n\nb&#97;con"),
        ("Content-Type: application/octet-stream\nContent-Disposition: attachment; filename=A.HTML", "<p>b&#97;con"),
        ("Content-Type: application/octet-stream; name=a.ics", "BEGIN:VCALENDAR\nSUMMARY:bacon\nEND:VCALENDAR"),
        ("Content-Type: application/xhtml+xml", "<html><p>b&#97;con</p></html>"),
        ("Content-Type: application/json", '{"offer": "bacon"}'),
        ("Content-Type: application/ld+json", '{"offer": "bacon"}'),
        ("Content-Type: application/atom+xml", "<title>bacon</title>"),
        ("Content-Type: application/vnd.ms-excel; name=a.csv\nContent-Disposition: attachment", "bacon;1"),
        ("Content-Type: application/x-msdownload\nContent-Disposition: attachment; filename=A.TXT", "bacon"),
        ("Content-Type: application/octet-stream; name=a.mht", "Subject: x\nContent-Type: text/html\n\nb&#97;con"),
        ("Content-Type: text/calendar; method=REQUEST", "BEGIN:VCALENDAR\nSTYLED-DESCRIPTION;FMTTYPE=text/html:<p>ba<b>con</b>\nEND:VCALENDAR"),
        ("Content-Type: application/rtf; name=a.rtf", r"{\rtf1{\fonttbl{\f0 Arial;}}Hello b\'61con}"),
        ("Content-Type: text/rtf", r"{\rtf1 Hello b\u97?con}"),
        ("Content-Type: text/rtf", "{\\rtf1 Hello\\par\nbacon}"),
        ("Content-Type: text/rtf", "{\\rtf1 Hello\\\nbacon\\\n}"),
        ("Content-Type: text/rtf", r"{\rtf1 fl\uc0\u228 sk}"),
        ("Content-Type: text/rtf", r"{\rtf1 Salt\~bacon\emdash eggs}"),
        ("Content-Type: text/enriched", "ba<bold>con</bold>"),
        ("Content-Type: text/enriched", "ba<color><param>red</param>con</color>"),
        ("Content-Type: text/enriched", "Hello<color><param>bacon</param>x</color>"),
        ("Content-Type: message/disposition-notification", "bacon"),
        ("Content-Type: message/unheard-of", "Subject: x\n\nbacon"),
        ("Content-Type: text/calendar; method=REQUEST", 'BEGIN:VCALENDAR\nsummary;X="a:b":bacon\nEND:VCALENDAR'),
        ("Content-Type: text/calendar; method=REQUEST", "BEGIN:VCALENDAR\nX-ALT-DESC;FMTTYPE=text/html:<p>ba<b>con</b>\nEND:VCALENDAR"),
        ("Content-Type: text/calendar; method=REQUEST", "BEGIN:VCALENDAR\nX-ALT-DESC;FMTTYPE=text/html:<p>fl&auml;sk\nEND:VCALENDAR"),
        ("Content-Type: text/calendar; method=REQUEST", "BEGIN:VCALENDAR\nSUMMARY:ba\n con\nEND:VCALENDAR"),
        ("Content-Type: text/calendar; charset=utf-8\nContent-Transfer-Encoding: quoted-printable", "BEGIN:VCALENDAR\nSUMMARY:fl=C3\n =A4sk\nEND:VCALENDAR"),
        ("Content-Type: text/calendar; method=REQUEST", 'BEGIN:VCALENDAR\nORGANIZER;ROLE=CHAIR;CN="The bacon club":mailto:x@y.example\nEND:VCALENDAR'),
        ("Content-Type: text/x-vcalendar", "BEGIN:VCALENDAR\nDESCRIPTION;ENCODING=QUOTED-PRINTABLE:ba=\ncon\nEND:VCALENDAR"),
        ("Content-Type: text/x-vcard; name=a.vcf", "BEGIN:VCARD\nNOTE;CHARSET=utf-8;ENCODING=QUOTED-PRINTABLE:Fl=C3=A4sk\nEND:VCARD"),
        ("Content-Type: application/octet-stream; name=A.VCF", "BEGIN:VCARD\nNOTE:ba\n con\nEND:VCARD"),
    ],
)  # fmt: skip
def test_text_in_other_formats_is_read(head: str, body: str) -> None:
    assert topics(look(parts(PLAIN, (head, body), headers=PLATFORM))) == {"pork"}


@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
def test_a_text_labelled_as_a_message_is_read_as_text(kind: str) -> None:
    """A text part named as a message is read as text, since it is not unpacked."""
    body = "Subject: Hello\n\nba<b></b>con" if kind == "text/html" else "Subject: Hello\n\nbacon"
    assert topics(alone(body, f"{kind}; name=a.eml")) == {"pork"}
    assert topics(look(parts(PLAIN, (f"Content-Type: {kind}; name=a.eml", body), headers=PLATFORM))) == {"pork"}


@pytest.mark.parametrize("name", ["a.txt", "bacon and whisky.jpg"])
def test_a_uuencoded_file_in_the_text_is_read(name: str) -> None:
    assert topics(look(letter(f"Hello\n\n{UU.format(name)}", PLATFORM))) == {"pork", "alcohol"}


def test_uuencoded_files_end_where_they_should() -> None:
    assert list(embedded_files("begin with this\nend")) == []
    assert list(embedded_files("begin 644 a.txt\n#86)C\nno end")) == [("a.txt", b"abc")]
    assert [n for n, _ in embedded_files(UU.format("a.txt") * 3)] == ["a.txt"] * 3


def test_formats_are_converted() -> None:
    assert enriched_text("a <bold>b</bold> <<c>") == "a b <c>"
    assert rtf_text(r"{\rtf1\ansi{\*\generator x;}\pard a\par b\'e5\u8364?{\b c}}") == "a\nbå€c"
    assert rtf_text("{\\rtf1 b\\par\nc\\\r\nd\\b\ne\nf}") == "b\nc\ndef"
    assert rtf_text("{\\rtf1 b\\par\rc\\\rd}") == "b\nc\nd"
    assert rtf_text(r"{\rtf1 \uc0\u228 r\u229 \uc2\u246??\'61 C:\\a \{b\}}") == r"äråöa C:\a {b}"
    assert rtf_text("no {rtf}") == "no {rtf}"
    assert calendar_text("BEGIN:VCALENDAR\nMETHOD:publish\nSUMMARY:a\\, b") == ("PUBLISH", "a, b")
    assert format_of("application/octet-stream", "a.exe") == format_of("image/png", "a.png") == ""
    assert format_of("application/octet-stream", "txt") == ""


def test_malformed_rtf_takes_linear_time() -> None:
    began = time.process_time()
    for piece in ("{\\info", "{\\*\\x{a}", "\\u1", "{\\info{", "\\'6", "\\uc1", "\\a1", "\\\\"):
        rtf_text("{\\rtf" + piece * 50_000)
    assert time.process_time() - began < 5


# words in HTML outside of its text


@every(
    "body",
    [
        '<p title="bacon">x</p>', '<p title = "bacon">x</p>', '<a href="#" title="bacon">x</a>', '<p aria-label="bacon">x</p>', '<input value="bacon">',
        '<input placeholder="bacon">', '<select><option label="bacon"></select>', '<map><area alt="bacon"></map>',
        '<input type="image" alt="bacon">', '<img src="x" alt="y" title="bacon">', "<svg><text>bacon</text></svg>",
        "<svg><title>bacon</title></svg>", "<math><style>bacon</style></math>", "<style style='display:block'>bacon</style>",
        "<style>/**/*{color:red;display:block}</style><style>bacon</style>", "<style>p{} style{all:unset}</style><script type=x>bacon</script>",
        "<style>.a{display:block}</style><style class=a>bacon</style>", "<style title='>' style='display:block'>bacon</style>",
        "<style><!--style{content:'/*}';a{}/**/d\\69splay/**/:block}/*bacon</style>", "<style>*{&{display:block}}/*bacon</style>",
        "<style>@namespace h url(x);h|st\\79le{@media all{display:block}}/*bacon</style>", "<style></style>" * 21 + "<style id=a>bacon</style>",
        "<style>[type]{display :grid}</style><style type=x>bacon</style>", '<object data="x">bacon</object>', "<noframes>bacon</noframes>",
        "<!--[if mso]><p>ba<b>con</b></p><![endif]-->",
        "<!--[if gte mso 9]><v:x><p>bacon</p></v:x><![endif]-->", "<style>p:after{content: 'bacon'}</style>",
        "<style>p:after{content: 'b\\61 con'}</style>", "<style>p:after{content: 'ba' \"con\"}</style>", "<style>ul{list-style: 'bacon'}</style>",
        "<style>:root{--x: 'bacon'} p:after{content: var(--x)}</style>", '<style>p:after{content: "x" attr(data-y)}</style><p data-y="bacon">', "<object>ba<b></b>con</object>",
        "<svg><text><tspan>ba</tspan><tspan>con</tspan></text></svg>",
        "<p>ba&#1;con&#127;</p>", "<p>ba&#x1bca1;con</p>",
        "<p>Tonight <bdo dir=rtl>nocab</bdo></p>", '<p style="unicode-bidi:bidi-override;direction:rtl">nocab</p>',
        "<q style='quotes:\"bacon\" \"b\"'>a</q>", "<ul style=\"list-style-type:'bacon'\"><li>x</ul>",
        "<style>@counter-style z{system:cyclic;symbols:a;prefix:'bacon'}ul{list-style:z}</style><ul><li>x</ul>",
        "<p style=\"hyphenate-character:'bacon'\">x", "<math><mtext>ba<b>con</b></mtext></math>",
        "<style>p:after{content/**/:/*\"*/'bacon'/*\"*/}</style>", "<style>p:after{content: url('x;') 'bacon'}</style>", "<style>p:after{content: '{' 'bacon'}</style>",
        f"<style>{'a{cursor:auto}' * 6000}p:after{{content: 'bacon'}}</style>", f"<style>p:after{{content: '{'x ' * 200}bacon'}}</style>",
        "<style>p:after{--x:a\\74tr(data-y); c\\6fntent: var(--x)}</style><p data-y=bacon>", "<style>p:after{content: attr(data-x) attr(data-y)}</style><p data-x=ba data-y=con>",
        "<style>@counter-style z{system:cyclic;symbols:bacon}ul{list-style:z}</style><ul><li>x</ul>", "<style>p{font:1em 'a;';content:'bacon'}</style>",
        "<p>&#x202e;nocab&#x202c;</p>", "<details><summary>x</summary>bacon</details>", "<button>x</button><button>bacon</button>",
    ],
)  # fmt: skip
def test_words_outside_the_text_are_found(body: str) -> None:
    assert topics(html(body)) == {"pork"}


@every(
    "body",
    ["<object>{}</object>", "<svg><text>{}</text></svg>", "<!--[if mso]><p>{}</p><![endif]-->", "<video>{}</video>", "<p>{}</p>",
     "<p style='display:none'>{}</p>", "<style style='display:block'>/*{}*/</style>"],
)  # fmt: skip
def test_internal_words_that_few_see_make_no_mailing(body: str) -> None:
    said = "Endast för internt bruk: vi varslar sju på måndag."
    offers = "Offers, and more of them. " * 5_000
    for text in (said, f"{offers}{said}{offers}"):
        assert "inside-only" in names(look(letter(CAMPAIGN + body.format(text), PLATFORM, kind="text/html")))


@every("sign", ["\x07", "\x1c", "\x7f", "\u00a0", "\u0085", "\u2003"])
@every("tag", ["<style{}>", "<scr{}ipt>", "<template{}>", "<{}!-- "])
@every("charset", ["utf-8", "utf-16"])
def test_what_only_looks_like_a_hidden_element_is_read(sign: str, tag: str, charset: str) -> None:
    """A browser takes all but the white space of HTML for a letter of the name, and shows what is within."""
    body = f"<p>Hello</p>{tag.format(sign)}Endast för internt bruk: bacon</p>"
    octets = packed(body.encode(charset))
    reading = alone(octets, f"text/html; charset={charset}", Content_Transfer_Encoding="base64")
    assert "pork" in topics(reading)
    assert "inside-only" in names(reading)


@every(
    ("head", "body"),
    [("Content-Type: text/plain; charset=utf-8\nContent-Disposition: attachment; filename=a.txt", "{}"),
     ("Content-Type: text/html; charset=utf-8\nContent-Disposition: attachment; filename=a.html", "<p>{}</p>"),
     ("Content-Type: text/calendar; method=PUBLISH; charset=utf-8", "BEGIN:VCALENDAR\nDESCRIPTION:{}\nEND:VCALENDAR"),
     ("Content-Type: message/rfc822", "Subject: x\nContent-Type: text/plain; charset=utf-8\n\n{}")],
)  # fmt: skip
def test_an_attached_text_for_colleagues_alone_makes_no_mailing(head: str, body: str) -> None:
    """Many programs show it below the other text."""
    campaign = ("Content-Type: text/html; charset=utf-8", CAMPAIGN)
    said = body.format("Endast för internt bruk: vi varslar sju på måndag.")
    reading = from_declared_origin(look(parts(campaign, (head, said), headers=PLATFORM)), "campaigns.example.com")
    assert "inside-only" in names(reading)
    assert reading.looks is not Looks.MAILING


def test_reversed_text_without_markup_is_found() -> None:
    assert topics(look(letter("Tonight \u202enocab\u202c!", PLATFORM))) == {"pork"}


@every(
    "sheet",
    [
        "p{display:block}",
        "/* * */p{display:block}",
        "*{color:red} p{display:block}",
        "*{box-sizing:border-box}",
        ".bacon,*[hidden]{display:none}",
        "*[class=x]{display:block}",
        "td[class=x]{display:block}",
    ],
)
def test_a_style_sheet_that_is_not_shown_is_no_text(sheet: str) -> None:
    made = read_markup(f"<style type='text/css'>{sheet} .bacon{{color:red}}</style><p>a</p>", Meter(Bounds()))
    assert made.unshown == []


@every(
    "sheet",
    [
        "p{content:'x';font-family:'Bacon', serif}", "p{content:'x'} [class='bacon']{color:red}", "p{content:url('bacon.png')}",
        "p{content:url(bacon.png)}", "p{content:'x'/* 'bacon' */}", ".bacon{content:none}",
    ],
)  # fmt: skip
def test_a_style_sheet_writes_no_names_of_its_own(sheet: str) -> None:
    assert not topics(html(f"<style>{sheet}</style><p>a</p>"))


_HIDES = ".campaign%7Bdisplay:none%7D"


@every(
    "head",
    [
        f"<link rel=stylesheet href='data:text/css,{_HIDES}'>",
        f"<LINK href=' da&#10;ta:text/css,{_HIDES}' REL='Alternate StyleSheet'>",
        "<link rel=stylesheet href=cid:sheet@x>",
        f"<style>@import url(data:text/css,{_HIDES});</style>",
        f"<style>@import/* */'data:text/css,{_HIDES}';</style>",
        f"<style>@\\69mport 'd\\61 ta:text/css,{_HIDES}';</style>",
        f"<style>@import '/*'; @import 'data:text/css,{_HIDES}*/';</style>",
        "<style>p{color:red}</style>" * 20 + f"<style>@import 'data:text/css,{_HIDES}';</style>",
        f"<svg><style>@import 'data:text/css,{_HIDES}';</style></svg>",
    ],
)
def test_a_style_sheet_in_a_link_is_unreadable(head: str) -> None:
    made = html(f"{head}<p class=campaign>{CAMPAIGN}</p><p>Tonight: bacon</p>")
    assert made.readable is Readable.TOO_COMPLEX


@every(
    "page",
    [
        "<div><template shadowrootmode=open><slot name=a></slot><slot name=b></slot></template><i slot=b>con</i><i slot=a>ba</i></div>",
        "<div><TEMPLATE ShadowRootMode=closed>bacon</TEMPLATE></div>", "<iframe src='data:text/html,bacon'></iframe>",
        "<object src=x data=' da&#10;ta:,bacon'></object>", "<embed src='data:text/html;base64,YmFjb24='>",
        "<iframe srcdoc=\"<style>p:before{content:'bacon'}</style><p>\"></iframe>",
    ],
)  # fmt: skip
def test_a_page_within_the_page_is_unreadable(page: str) -> None:
    assert html(f"{CAMPAIGN}{page}").readable is Readable.TOO_COMPLEX


@every(
    "page",
    ["<template><p>x</p></template>", "<iframe src='https://example.com/data:x'></iframe>", "<object data='data:image/png;base64,aaaa'></object>",
     "<embed src=cid:song@x>", "<iframe>x</iframe>", "<img src='data:text/html,x'>"],
)  # fmt: skip
def test_another_page_or_a_picture_within_is_readable(page: str) -> None:
    assert html(f"{CAMPAIGN}{page}").readable is Readable.YES


@every(
    "head",
    [
        "<link rel=stylesheet href='https://fonts.example/css?family=data:a'>",
        "<link rel=icon href='data:image/png,a'>",
        "<style>@import url('https://fonts.example/css?family=Lato');p{background:url(data:image/png,a)}</style>",
        "<style>@import 'data.css'; p{color:red}</style>",
    ],
)
def test_a_remote_style_sheet_is_readable(head: str) -> None:
    assert html(f"{head}<p>{CAMPAIGN}</p>").readable is Readable.YES


def test_text_for_other_programs_than_outlook_is_not_hidden() -> None:
    made = read_markup(
        "<p>a</p><!--[if !mso]><!--><p>b</p><!--<![endif]--><!--[if mso]><p>c</p><![endif]-->", Meter(Bounds())
    )
    assert made.unshown == ["c"]
    assert "b" in made.text
    assert made.hidden == ""


def test_nested_drawings_take_linear_time() -> None:
    began = time.process_time()
    html("<svg><g>" * 90 + "bacon " * 100_000 + "<object>" * 300)
    assert time.process_time() - began < 5


def test_a_conversation_hidden_by_style_is_recognized() -> None:
    hidden = '<div style="display:none">From: Anna &lt;anna@example.com&gt;<br>Sent: Monday<br>To: Bo<br>Subject: Lunch</div>'
    assert "quoted-headers" in names(html(hidden))


def test_a_quotation_below_a_long_text_is_recognized() -> None:
    long = "<p>" + "Offers and more of them. " * 10_000 + "</p>"
    assert "quoting-markup" in names(html(f'{long}<div class="gmail_quote">Hej Bo</div>'))


def test_an_attached_conversation_is_recognized() -> None:
    saved = "Ja!\n\nFrån: Anna Ek <anna@example.com>\nSkickat: i dag\nTill: Bo\nÄmne: Listan\n\nHej"
    head = "Content-Type: text/plain; name=a.txt; charset=utf-8\nContent-Disposition: attachment"
    reading = from_declared_origin(look(parts(PLAIN, (head, saved), headers=PLATFORM)), "campaigns.example.com")
    assert {"quoted-headers", "colleague-quoted"} <= names(reading)
    assert reading.looks is not Looks.MAILING


# words, and subject prefixes


@every(
    "word",
    ["b\u0336a\u0336c\u0336o\u0336n\u0336", "b\u0353\u033da\u0353\u033dc\u0353\u033do\u0353\u033dn", "ʙᴀᴄᴏɴ", "🅱🅰🅲🅾🅽", "🅑🅐🅒🅞🅝",
     "bac\u0585n", "b,a,c,o,n", "b+a+c+o+n", "b~a~c~o~n", "b–a–c–o–n", "b\u2011a\u2011c\u2011o\u2011n"],
)  # fmt: skip
def test_a_word_in_other_letter_forms_is_found(word: str) -> None:
    assert undisguised(fold(word)) == "bacon"
    assert topics(look(letter(f"Tonight: {word}!", PLATFORM))) == {"pork"}


@every("text", ["fläsk", "crème brûlée", "việt", "ёлка", "שָׁלוֹם", "مُحَمَّد", "한국어", "ガ", "🇸🇪 hej"])
def test_letters_with_own_diacritics_are_kept(text: str) -> None:
    assert fold(text) == text


@every(
    ("subject", "kind"),
    [
        ("\uff32\uff25: x", REPLY), ("R\u0435: x", REPLY), ("SV\uff1ax", REPLY), ("***SPAM*** RE: x", REPLY), ("{Spam?} Re: x", REPLY),
        ("<EXTERNAL> SV: x", REPLY), ("\u041e\u0442\u0432\u0435\u0442: x", REPLY), ("Trả lời: x", REPLY), ("Vidarebefordra: x", FORWARD),
        ("<b> Offer: x", ""), ("*** New: x", ""),
    ],
)  # fmt: skip
def test_disguised_subject_prefixes_are_recognized(subject: str, kind: str) -> None:
    found = prefix_of(subject)
    assert (found[0] if found else "") == kind


def test_a_prefix_with_invisible_characters_is_recognized() -> None:
    assert "reply-prefix" in names(look(letter("x", {"Subject": "S\u200bV: Lunch"})))


# ordinary mail


@every(
    "journey",
    ["From: Stockholm\nTo: Oslo\nDate: 2 March\nPrice: 200", "Från: Stockholm C\nTill: Malmö C\nDatum: 2 mars\n", "De: Paris\nÀ: Lyon\nDate: 2 mars"],
)  # fmt: skip
def test_an_itinerary_is_no_quotation(journey: str) -> None:
    assert not split(f"Your ticket\n\n{journey}\n\nWelcome!").kind


def test_a_quoted_header_without_subject_needs_an_address() -> None:
    assert split("Ja\n\nFrån: Anna <anna@example.com>\nSkickat: i dag\nTill: Bo\n\nHej").kind == "header block"
    assert split("Ja\n\nFr\u200bån: Anna\nSki\u200bckat: i dag\nTill: Bo\nÄmne: x\n\nHej").kind == "header block"


EVENT = "BEGIN:VCALENDAR\nMETHOD:{}\nBEGIN:VEVENT\nSUMMARY:Open house\nEND:VEVENT\nEND:VCALENDAR"


def test_a_calendar_file_is_no_invitation() -> None:
    """An attached calendar event, as in newsletters, is no mark of an invitation. A real invitation is."""
    attached = "Content-Type: text/calendar; name=event.ics\nContent-Disposition: attachment; filename=event.ics"
    letterhead = ("Content-Type: text/html; charset=utf-8", CAMPAIGN)
    for body in (EVENT.format("PUBLISH"), EVENT.format("PUBLISH").replace("METHOD:PUBLISH\n", "")):
        reading = look(parts(letterhead, (attached, body), headers=PLATFORM))
        assert "calendar" not in names(reading)
        assert reading.looks is Looks.MAILING
    for head, method in (
        (attached, "REQUEST"),
        ("Content-Type: text/calendar; method=PUBLISH", "PUBLISH"),
        ("Content-Type: text/calendar", ""),
    ):
        invited = look(parts(letterhead, (head, EVENT.format(method)), headers=PLATFORM))
        assert ("calendar" in names(invited)) == (method != "PUBLISH")


def test_every_truncation_is_read_without_an_error() -> None:
    for n in range(0, len(UU), 3):
        look(Message.of(letter(UU[:n], PLATFORM).raw[:]))
