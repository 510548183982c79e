"""What approvals compare: whatever some mail program shows counts, and how the same content is sent does not."""

from __future__ import annotations

import base64
import random
import re
import time

from smtpguard.mail.message import Message
from smtpguard.reading.markup import read_markup
from smtpguard.reading.request import Bounds, Meter
from smtpguard.reading.shown import shown_by
from tests.every import every

WORDS = base64.encodebytes(b"Spring has come.\n").decode().strip()
TEXT = "Content-Type: text/plain{type}\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\n+BD8EOAQyBD4-"
CALENDAR = "Content-Type: text/calendar; method={}\r\n\r\nBEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n"
FILE = "Content-Type: application/pdf{type}\r\nContent-Disposition: attachment{disposition}\r\n\r\n%PDF-1.7"


def digest(part: str, *, head: str = "") -> str:
    text = f"From: News <news@example.com>\r\nSubject: Spring\r\n{head}MIME-Version: 1.0\r\n{part}\r\n"
    return shown_by(Message.of(text.encode())).digest


def plain(body: str, encoding: str = "base64") -> str:
    return f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}"


def file(type: str, disposition: str) -> str:
    return FILE.format(type=type, disposition=disposition)


def html(body: str) -> str:
    body = body.replace("\r\n", "\n").replace("\n", "\r\n")
    return f"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<!doctype html>{body}"


SHEET = "<style>.h{display:none}</style>"
PIXEL = (
    '<img src="https://a.example/o/{0}/e.gif" alt="" width="1" height="1" border="0" style="height:1px!important;width:1px !important;'
    'border-width:0!important;margin-top:0!important;padding-top:0!important;padding-left:{1}">Spring'
)
DIFFERENT = {
    "a control character in a name": (html("<p hidden>Story</p>"), html("<p hidde\x0bn>Story</p>")),
    "a quotation mark in a name": (html("<p hidden>Story</p>"), html('<p hidden">Story</p>')),
    "a blank before the name of a tag": (html("<p>Story</p>"), html("< p>Story</p>")),
    "an end of a style that is none": (html("<style></style>Story"), html("<style></style\x85>Story")),
    "case in a class": (html(f"{SHEET}<p class=h>Story</p>"), html(f"{SHEET}<p class=H>Story</p>")),
    "a blank that is none in a class": (
        html(f'{SHEET}<p class="a h">Story</p>'),
        html(f'{SHEET}<p class="a\u00a0h">Story</p>'),
    ),
    "a blank that is none in a style": (
        html('<p style="display:none">Story</p>'),
        html('<p style="display:none\u2003">Story</p>'),
    ),
    "the end of a comment in an attribute": (
        html('<!-- <p data-x="a>"> Story -->'),
        html('<!-- <p data-x="-->"> Story -->'),
    ),
    "the end of a quotation in an attribute": (
        html("""<p title="a><i data-x='b'> Story"""),
        html("""<p title="a><i data-x='"'> Story"""),
    ),
    "an open quotation": (html("<p id='x'>Spring</p><p id='y'>"), html("<p id='x>Spring</p><p id='y'>")),
    "the path of a picture that a sheet makes high": (
        html("<style>img{height:9px}</style><img src=https://a.example/1.gif width=1 height=1>Spring"),
        html("<style>img{height:9px}</style><img src=https://a.example/2.gif width=1 height=1>Spring"),
    ),
    "the path of a picture that a sheet makes wide": (
        html("<style>img{height:auto;width:auto}</style><img src=https://a.example/1.gif width=1 height=1>Spring"),
        html("<style>img{height:auto;width:auto}</style><img src=https://a.example/2.gif width=1 height=1>Spring"),
    ),
    "a tag that ends itself": (html("<svg><g/>Story</svg>"), html("<svg><g>Story</svg>")),
    "a control character before the name of a tag": (html("<svg>Story"), html("<\x0bsvg>Story")),
    "a second name of a file": (
        file("; name=spring.pdf", "; filename=spring.pdf"),
        file("; name=story.pdf", "; filename=spring.pdf"),
    ),
    "a name for programs without RFC 2231": (
        file("", "; filename*=utf-8''spring.pdf"),
        file("", "; filename*=utf-8''spring.pdf; filename=story.pdf"),
    ),
    "a name in parentheses": (file("", "; filename=spring.pdf"), file("", "; filename=(story)spring.pdf")),
    "a description": (file("", ""), file("\r\nContent-Description: Story", "")),
    "a second disposition": (
        file("", "; filename=spring.pdf"),
        file("", "; filename=spring.pdf\r\nContent-Disposition: attachment; filename=story.pdf"),
    ),
    "another second disposition": tuple(
        file("", f"; filename=spring.pdf\r\nContent-Disposition: attachment; filename={name}.pdf")
        for name in ("a", "b")
    ),
    "words that only a program without this encoding shows": (
        plain(WORDS, "x-base64"),
        plain(f"\u043f\u0438\u0432\u043e\r\n{WORDS}", "x-base64"),
    ),
    "a charset in which an attached text has other words": (
        TEXT.format(type=""),
        TEXT.format(type="; charset=utf-7"),
    ),
    "a calendar whose type says another method": (CALENDAR.format("REQUEST"), CALENDAR.format("CANCEL")),
    "a calendar with a text that reads like a method": (
        CALENDAR.replace("END", "COMMENT:no METHOD:CANCEL\r\nEND").format("REQUEST"),
        CALENDAR.replace("END", "COMMENT:no METHOD:CANCEL\r\nEND").format("CANCEL"),
    ),
    "an encoding that nobody knows": (plain("Spring", "8bit"), plain("Spring", "x-spring")),
} | {
    f"the path of a picture that is no pixel: {size}": (html(PIXEL.format("1", size)), html(PIXEL.format("2", size)))
    for size in ("0 90px", "9px", "0;padding-inline-start:90px", "0;border-left-width:90px", "0;width:90px!important")
}
SAME = {
    "ids, classes and data that no style names": (
        html(f"{SHEET}<p class='a' id=b data-c='1'>Spring<br></p >"),
        html(f'{SHEET}<p  class="d e"\r\nid="f">Spring<br/></p>'),
    ),
    "the path of a pixel": (
        html(
            "<style>td img{max-width:100%;height:auto}</style><img src=https://a.example/1.gif width=1 height=1>Spring"
        ),
        html(
            "<style>td img{max-width:100%;height:auto}</style><img src=https://a.example/2.gif width=1 height=1>Spring"
        ),
    ),
    "the path of a pixel without border and padding": (
        html(PIXEL.format("1", "0 !important")),
        html(PIXEL.format("2", "0 !important")),
    ),
    "tags that end themselves, outside SVG": (
        html("<!--[if mso]><o:AllowPNG/><![endif]--><p/>Spring"),
        html("<!--[if mso]><o:AllowPNG><![endif]--><p>Spring"),
    ),
    "control characters between tags": (html("<p>Spr\x02ing\x0b</p>"), html("<p>Spring</p>")),
    "a charset with shifts": (
        html("<p>\u6625</p>"),
        html("<p>\x1b$B=U\x1b(B</p>").replace("utf-8", "iso-2022-jp"),
    ),
    "transfer encodings": (plain(WORDS), plain("Spring has come.", "7bit")),
    "lines of base64": (plain(WORDS), plain(f"{WORDS[:8]}\r\n{WORDS[8:]}")),
    "a charset in which the ASCII of an attached text is the same": (
        TEXT.format(type="; charset=us-ascii"),
        TEXT.format(type="; charset=UTF-8"),
    ),
    "the method of a calendar, said twice": (CALENDAR.format("request"), CALENDAR.replace("; method={}", "")),
    "where the one name of a file is": (file("; name=a.pdf", "; filename=a.pdf"), file("", "; filename=a.pdf")),
}


@every("what", DIFFERENT)
def test_what_some_mail_program_shows_counts(what: str) -> None:
    one, other = DIFFERENT[what]
    assert digest(one) != digest(other)


@every("what", SAME)
def test_how_the_same_is_sent_does_not_count(what: str) -> None:
    one, other = SAME[what]
    assert digest(one) == digest(other)


@every("field", ["X-Message-Flag", "Thread-Topic", "Keywords", "Newsgroups", "Followup-To"])
def test_a_field_that_some_program_shows_counts(field: str) -> None:
    one, other = (digest(plain(WORDS), head=f"{field}: {text}\r\n") for text in ("Reply", "Reply, boss"))
    assert len({one, other, digest(plain(WORDS))}) == 3


def test_a_topic_that_repeats_the_subject_does_not_count() -> None:
    assert digest(plain(WORDS), head="Thread-Topic: SV: Spring\r\n") == digest(plain(WORDS))


def test_the_name_of_one_person_in_to_does_not_count() -> None:
    names = ("Bo Ek", "Herrn Prof. Dr. med. Hans von der Tann", "Maria de los Angeles de la Vega")
    assert len({digest(plain(WORDS), head=f'To: "{name}" <a@b.example>\r\n') for name in names}) == 1
    several = 'To: "Bo Ek"<a@b.example>,<c@localhost>, d.e@f-g.example;h@i.example\r\n'
    assert digest(plain(WORDS), head=several) == digest(plain(WORDS))
    said = "Lisa, tell nobody at all of it until next week"
    for shown in (said, f"<{said}>", said.replace(" ", "@ ")):
        assert digest(plain(WORDS), head=f'To: "{shown}" <a@b.example>\r\n') != digest(plain(WORDS))


def test_the_subject_within_a_signed_message_counts() -> None:
    signed = 'Content-Type: multipart/signed; boundary=bb\r\n\r\n--bb\r\n{}Content-Type: text/plain; hp="clear"\r\n\r\nx\r\n--bb--'
    none, same, other = (digest(signed.format(said)) for said in ("", "Subject: Spring\r\n", "Subject: Story\r\n"))
    assert none == same != other


PAGE = """<style>.a{color:red} .h{display:none}</style><div class="a k"><p class=c data-x="1" title="Hej">Buy &amp; save.</p>
<span class="h">unseen</span><p hidden>unseen</p><!-- <i data-x="1">aside</i> --><a href="https://x.example/?b=1&amp;c=2">More</a></div>"""
SIGNS = [*"<>\"'= \t\n\f\v/-&;", "\x1f", "\x85", "\xa0", "\u2028", "\u3000", "<!--", "-->", "--!>", "<!", "</", "<p>", "</p>", "<style>", "</style>",
         " hidden", " class=h", " CLASS=H", " x='", ' x="', " data-x=h", " data-y='>'", "&quot;", "<i data-x='-->'>"]  # fmt: skip


def test_what_compares_equal_has_the_same_words_and_hides_the_same() -> None:
    """Random changes of a page; lexbor parts it as browsers do."""
    drawn = random.Random(7)
    whole, said, equal = digest(html(PAGE)), words(PAGE), 0
    within = [n for found in re.finditer("<[^<>]+>", PAGE) for n in range(found.start() + 1, found.end())]
    for _ in range(2_500):
        at = drawn.choice(within)
        page = PAGE[:at] + drawn.choice(SIGNS) + PAGE[at + drawn.choice((0, 0, 1)) :]
        if digest(html(page)) == whole:
            equal += 1
            assert words(page) == said, page
    assert equal > 30


def words(page: str) -> tuple[str, str]:
    made = read_markup(f"<!doctype html>{page}", Meter(Bounds()))
    return "".join(made.text.split()), "".join(sorted(made.hidden.split()))


def test_tags_that_do_not_end_take_linear_time() -> None:
    began = time.process_time()
    for piece in ("<a ", "<a b=", '<a b="', "<!", "</", "<a =", "<p class='x' ", "<a b = ", "<p x>", "<b c=\"'"):
        digest(html(piece * (180_000 // len(piece))))
    assert time.process_time() - began < 5
