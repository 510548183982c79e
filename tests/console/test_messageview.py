"""Opening a message and framing its HTML, whatever its content."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.console import htmlframe
from smtpguard.console.htmlframe import attribute_filter, html_page, sanitized
from smtpguard.console.messageview import attachment_of, view_of
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.decoding import decode_transfer
from smtpguard.mail.message import Message
from tests.console.holding import HOSTILE
from tests.every import every

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 40).decode()


def message(body: str, head: str = "From: a@example.com\nSubject: s\n") -> Message:
    return Message.of((head + body).replace("\n", "\r\n").encode())


def related(image: str, html: str = '<img src="cid:a@b" alt="x">') -> Message:
    return message(
        f"Content-Type: multipart/related; boundary=b\n\n--b\nContent-Type: text/html\n\n{html}\n--b\n{image}\n--b--\n"
    )


def test_visible_quoted_and_hidden_text_are_separate() -> None:
    letter = view_of(
        message(
            'Content-Type: text/html\n\n<p>Seen</p><p style="display:none">Unseen</p><blockquote type="cite">Old</blockquote>'
        )
    )
    assert letter.new == "Seen"
    assert "Unseen" in letter.hidden
    assert "Old" in letter.quoted
    assert letter.has_html


def alternatives(plain: str, html: str) -> Message:
    return message(
        "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\n\n"
        f"{plain}\n--b\nContent-Type: text/html; charset=utf-8\n\n{html}\n--b--\n"
    )


def test_differing_alternatives_are_both_shown() -> None:
    """Alternatives with different text are both shown; otherwise an approver agrees to text that was not shown."""
    letter = view_of(alternatives("Who comes for bacon and whisky on Friday?", "<p>A blessed month to you all!</p>"))
    assert letter.new == "A blessed month to you all!"
    assert letter.plain == "Who comes for bacon and whisky on Friday?"


@pytest.mark.parametrize("long", ["plain", "hidden"])
def test_an_approver_is_told_that_a_text_is_longer_than_is_shown(long: str) -> None:
    words = "Who comes for bacon and whisky on Friday? " * 3_000
    letter = {
        "plain": alternatives(words, "<p>A blessed month to you all!</p>"),
        "hidden": message(f'Content-Type: text/html\n\n<p>Seen</p><p style="display:none">{words}</p>'),
    }[long]
    assert view_of(letter).cut


def test_equal_alternatives_are_shown_once() -> None:
    html = '<table><tr><td><img src="x" alt="Our logo"></td></tr></table><h1>Autumn is here</h1><p>Read <a href="https://x.example/a">more</a> of it.</p>'
    plain = "Our logo\n\nAUTUMN IS HERE\n\nRead more [https://x.example/a] of it."
    assert view_of(alternatives(plain, html)).plain == ""
    assert view_of(alternatives(plain, "")).plain == ""  # the HTML is shown then


def test_rarely_shown_text_is_listed_as_hidden() -> None:
    shown = '<p title="on hovering">Seen</p><!--[if mso]><p>in Outlook</p><![endif]-->'
    assert view_of(message(f"Content-Type: text/html\n\n{shown}")).hidden.split("\n") == ["on hovering", "in Outlook"]


def test_bidirectional_controls_are_removed() -> None:
    letter = view_of(message("Content-Type: text/plain; charset=utf-8\n\nevil\u202egpj.exe\u2066 \x07bell"))
    assert letter.new.split() == ["evilgpj.exe", "bell"]


@pytest.mark.parametrize(
    "body",
    [
        "Content-Type: multipart/mixed; boundary=b\n\n" + "--b\n\nx\n" * 1500,
        "Content-Type: text/html\n\n" + "<div>" * 50_000,
        "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(60)),
    ],
    ids=["parts", "tags", "depth"],
)
def test_beyond_the_limits_the_header_and_the_reason_are_shown(body: str) -> None:
    letter = view_of(message(body))
    assert letter.why
    assert letter.new == ""
    assert ("Subject", "s") in letter.fields


def test_attachments_have_name_size_and_type() -> None:
    data = base64.encodebytes(b"x" * 5000).decode()
    whole = message(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nText\n--b\nContent-Type: application/pdf; name=r.pdf\n"
        f"Content-Transfer-Encoding: base64\nContent-Disposition: attachment\n\n{data}\n--b\n"
        "Content-Type: message/rfc822\n\nFrom: b@example.com\nSubject: inner\n\nInner text\n--b--\n"
    )
    pdf, inner = view_of(whole).attachments
    assert (pdf.name, pdf.kind) == ("r.pdf", "application/pdf")
    assert 4900 < pdf.size_bytes < 5100
    assert inner.kind == "message/rfc822"
    found = attachment_of(whole, pdf.n)
    assert found is not None
    assert found[1] == b"x" * 5000
    assert attachment_of(whole, inner.n) == (inner, b"From: b@example.com\r\nSubject: inner\r\n\r\nInner text")
    assert attachment_of(whole, 0) is None  # it is shown inline as text
    assert attachment_of(whole, 99) is None


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_message_can_be_opened(raw: bytes) -> None:
    whole = Message.of(b"From: a@example.com\r\nContent-Type: multipart/mixed; boundary=b\r\n" + raw)
    letter = view_of(whole)
    html_page(whole)
    for each in letter.attachments:
        assert attachment_of(whole, each.n) is not None


# # framed HTML


def test_hostile_html_loads_nothing() -> None:
    page = html_page(message(HOSTILE.replace("CANARY", "http://canary.example.net")))
    assert page is not None
    assert "canary" not in page
    assert "http" not in page
    assert "script" not in page
    assert "<b>good</b>" in page
    assert page.count("data:image/png;base64,") == 1


_PIECES = st.sampled_from(
    ["<a href='http://x.example'>", "<img src=http://x.example/a>", "<p style='background:url(http://x.example)'>", "</p>", "<svg>",
     "<math>", "<style>@import 'http://x.example'", "</style>", "<!--", "-->", "<![CDATA[", "]]>", "<table background=http://x.example>",
     "<noscript>", "</noscript>", "<template>", "<form action=http://x.example>", "<input src=http://x.example type=image>", "\x00", "&#x3c;img src=http://x.example&gt;",
     "<title>", "</title>", "<textarea>", "</textarea>", "<iframe srcdoc='<img src=http://x.example>'>", "<meta http-equiv=refresh content='0;http://x.example'>",
     "<p style=\"background:\\75rl('http://x.example')\">", "<base href=http://x.example>", "<a ping=http://x.example>", "<img srcset='http://x.example 1x'>", "text "]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_markup_keeps_a_remote_address(pieces: list[str]) -> None:
    kept = sanitized("".join(pieces), attribute_filter({}))
    assert not re.search(r"<[^>]*x\.example", kept)
    assert not re.search(r"<\s*(?:script|style|iframe|svg|meta|base|form|input|object|embed|link)\b", kept, re.I)


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (f"Content-Type: image/png\nContent-ID: <a@b>\nContent-Transfer-Encoding: base64\n\n{PNG}", True),
        (f"Content-Type: image/svg+xml\nContent-ID: <a@b>\nContent-Transfer-Encoding: base64\n\n{PNG}", False),
        (f"Content-Type: text/html\nContent-ID: <a@b>\nContent-Transfer-Encoding: base64\n\n{PNG}", False),
        (f"Content-Type: image/png\nContent-ID: <other@b>\nContent-Transfer-Encoding: base64\n\n{PNG}", False),
        ("Content-Type: image/png\nContent-ID: <a@b>\nContent-Transfer-Encoding: base64\n\n" + "A" * 800_000, False),
    ],
    ids=["png", "svg", "html", "another", "too large"],
)
def test_only_small_embedded_pictures_are_shown(image: str, shown: bool) -> None:
    page = html_page(related(image))
    assert page is not None
    assert ("data:image/png;base64," in page) is shown


def test_a_picture_is_decoded_once_for_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts and pictures are bounded each by themselves: to decode all pictures for each text would take a minute."""
    decoded: list[bytes] = []

    def decode(body: bytes, encoding: str) -> tuple[bytes, Phrase | None]:
        decoded.append(body)
        return decode_transfer(body, encoding)

    monkeypatch.setattr(htmlframe, "decode_transfer", decode)
    image = f"Content-Type: image/png\nContent-ID: <a@b>\nContent-Transfer-Encoding: base64\n\n{PNG}"
    page = html_page(related(image + "\n--b\nContent-Type: text/html\n\n<p>second</p>"))
    assert page is not None
    assert "second" in page
    assert len(decoded) == 3


def test_a_picture_that_is_shown_again_and_again_counts_each_time() -> None:
    """The HTML and its pictures are bounded each by themselves: a picture shown 60,000 times would fill the memory."""
    body = base64.b64encode(bytes(390 << 10)).decode()
    image = f"Content-Type: image/png\nContent-ID: <a@b>\nContent-Transfer-Encoding: base64\n\n{body}"
    again = '<img src="cid:a@b">' * 10
    page = html_page(
        related(image + f"\n--b\nContent-Type: text/html\n\n{again}\n--b\nContent-Type: text/html\n\n{again}")
    )
    assert page is not None
    assert page.count("data:image/png;base64,") == 15
    assert page.count("<img") >= 20


@pytest.mark.parametrize(
    "body", ["\n\nplain text", "Content-Type: text/html\n\n" + "x" * (1 << 20) + "y", "Content-Type: multipart/mixed; boundary=b\n\n" + "--b\n\nx\n" * 1500],
    ids=["no html", "too large", "too many parts"],
)  # fmt: skip
def test_without_html_there_is_no_frame(body: str) -> None:
    assert html_page(message(body)) is None


@every(("html", "shown"), [('<img src="cid:a@b">', 1), ("<p>cid:a@b</p>", 0), ("<img src=CID:A%40B>", 1)])
def test_a_picture_inside_the_text_is_no_attachment(html: str, shown: int) -> None:
    image = "Content-Type: image/png; name=x.png\nContent-ID: <a@b>\nContent-Transfer-Encoding: base64\n\niVBORw0KGgo="
    letter = view_of(related(image, html))
    assert (len(letter.pictures), len(letter.attachments)) == (shown, 1 - shown)
