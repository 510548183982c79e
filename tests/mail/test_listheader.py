"""List-*, Precedence, Auto-Submitted and Feedback-ID, in the forms of the RFCs and in others."""

from __future__ import annotations

from smtpguard.mail.fields import ListHeader, list_header, uris
from smtpguard.mail.message import parse_header
from tests.every import every


def read(text: str) -> ListHeader:
    return list_header(parse_header(text.replace("\n", "\r\n").encode() + b"\r\n\r\n").named)


def test_an_ordinary_header_is_empty() -> None:
    assert read("Subject: x") == ListHeader()
    assert not ListHeader().automatic


def test_all_fields_are_read() -> None:
    found = read(
        'List-Id: "News, monthly" <News.Lists.Example.COM>\nList-Unsubscribe: (Use this)\n <https://x.example/u?a=1,2>, <mailto:u@x.example>\n'
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\nList-Post: <mailto:news@lists.example.com>\nPrecedence: Bulk (really)\nFeedback-ID: 1:2:3:mc"
    )
    assert found.list_id == "news.lists.example.com"
    assert found.unsubscribe == ("https://x.example/u?a=1,2", "mailto:u@x.example")
    assert found.one_click
    assert found.post
    assert found.precedence == "bulk"
    assert found.feedback_id == "1:2:3:mc"


@every(
    ("value", "found"),
    [
        ("NO (posting not allowed)", False),
        ("NO", False),
        ("<mailto:a@b.example>", True),
        ("mailto:a@b.example", True),
        ("<ftp://x>", False),
    ],
)
def test_list_post_is_read(value: str, found: bool) -> None:
    assert read(f"List-Post: {value}").post is found


@every(
    ("text", "automatic"),
    [
        ("Auto-Submitted: no", False),
        ("Auto-Submitted: No (a person wrote it)", False),
        ("Auto-Submitted: auto-replied (vacation)", True),
        ('Auto-Submitted: auto-generated; type="x"', True),
        ("Auto-Submitted: auto-notified", True),
        ("Precedence: auto_reply", True),
        ("X-Autoreply: yes", True),
        ("Precedence: bulk", False),
    ],
)
def test_automatic_mail_is_recognized(text: str, automatic: bool) -> None:
    assert read(text).automatic is automatic


def test_bare_and_many_uris_are_read() -> None:
    assert uris("mailto:a@b.example, https://c.example/u") == ["mailto:a@b.example", "https://c.example/u"]
    assert uris("<>") == uris("") == uris("<" * 10_000) == []
    assert len(read("List-Unsubscribe: " + ", ".join(f"<https://x.example/{i}>" for i in range(100))).unsubscribe) == 20


def test_a_list_id_without_brackets_and_two_unsubscribe_fields() -> None:
    found = read("List-Id: plain.example\nList-Unsubscribe: <https://a.example>\nList-Unsubscribe: <https://b.example>")
    assert found.list_id == "plain.example"
    assert found.unsubscribe == ("https://a.example", "https://b.example")
