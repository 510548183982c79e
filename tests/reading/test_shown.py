"""What approvals compare: whatever some mail program shows counts, and how the same content is sent does not."""

from __future__ import annotations

import base64

from smtpguard.mail.message import Message
from smtpguard.reading.shown import shown_by
from tests.every import every

WORDS = base64.encodebytes(b"Spring has come.\n").decode().strip()
FILE = "Content-Type: application/pdf{type}\r\nContent-Disposition: attachment{disposition}\r\n\r\n%PDF-1.7"


def digest(part: str, *, head: str = "") -> str:
    text = f"From: News <news@example.com>\r\nSubject: Spring\r\n{head}MIME-Version: 1.0\r\n{part}\r\n"
    return shown_by(Message.of(text.encode())).digest


def plain(body: str, encoding: str = "base64") -> str:
    return f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}"


def file(type: str, disposition: str) -> str:
    return FILE.format(type=type, disposition=disposition)


DIFFERENT = {
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
    "an encoding that nobody knows": (plain("Spring", "8bit"), plain("Spring", "x-spring")),
}
SAME = {
    "transfer encodings": (plain(WORDS), plain("Spring has come.", "7bit")),
    "lines of base64": (plain(WORDS), plain(f"{WORDS[:8]}\r\n{WORDS[8:]}")),
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


def test_the_flag_that_outlook_shows_counts() -> None:
    one, other = (digest(plain(WORDS), head=f"X-Message-Flag: {text}\r\n") for text in ("Reply", "Reply, boss"))
    assert len({one, other, digest(plain(WORDS))}) == 3


def test_the_subject_within_a_signed_message_counts() -> None:
    signed = 'Content-Type: multipart/signed; boundary=bb\r\n\r\n--bb\r\n{}Content-Type: text/plain; hp="clear"\r\n\r\nx\r\n--bb--'
    none, same, other = (digest(signed.format(said)) for said in ("", "Subject: Spring\r\n", "Subject: Story\r\n"))
    assert none == same != other
