"""Disguised content to a list's address through SMTP: it is still recognised, or it is unreadable, and held.

Signed messages come from the list's writer with the list's DKIM signature, so only their content can hold them.
Messages of a colleague are held as internal, whatever their header claims.
"""

from __future__ import annotations

import base64
import itertools
import quopri
import random
from pathlib import Path

import pytest

from smtpguard.holds.model import Hold
from tests.catalogue.wholeguard import (
    ANNA,
    LETTER,
    OUTLOOK,
    RAMADAN,
    WholeGuard,
    personal_mail,
    policy,
    signed,
    whole_guard,
)
from tests.every import every

PORK = "Tonight we offer you bacon and whisky at half price"
CAMPAIGN = (
    "List-Id: <ramadan.lists.example.com>\r\nList-Unsubscribe: <https://www.example.com/leave>\r\n"
    "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nPrecedence: bulk\r\nFeedback-ID: a:b:c:example\r\n"
)
FOOTER = "\r\nYou get this letter since you asked for it.\r\nUnsubscribe: https://www.example.com/leave\r\n"
WRITER = "Example <campaigns@example.com>"


def campaign(body: str = "", mime: str = "", subject: str = "Ramadan mubarak!", head: str = "") -> bytes:
    return signed(personal_mail(sender=WRITER, subject=subject, head=CAMPAIGN + head, body=body + FOOTER, mime=mime))


def parts(*each: str) -> str:
    """The body of a multipart; each part has its own header."""
    return "".join(f"--=_b\r\n{part}\r\n" for part in each) + "--=_b--\r\n"


def mixed(kind: str = "multipart/mixed") -> str:
    return f'MIME-Version: 1.0\r\nContent-Type: {kind}; boundary="=_b"\r\n'


def rules(hold: Hold) -> set[str]:
    return {hit.rule for hit in hold.verdict.hits}


async def test_the_campaign_itself_passes(guard: WholeGuard) -> None:
    """The list's own campaign passes; otherwise the tests below would prove nothing."""
    await guard.passes(campaign("We wish you a blessed month.\r\n"), sender="bounces@campaigns.example.com")


HTML = 'MIME-Version: 1.0\r\nContent-Type: text/html; charset="utf-8"\r\n'
PLAIN = "Content-Type: text/plain; charset=utf-8\r\n\r\n"
base64_of = base64.encodebytes(PORK.encode()).decode().replace("\n", "\r\n")
FOUND = {
    "as it is": campaign(PORK),
    "in the subject": campaign("Hello", subject="Bacon at half price"),
    "in an encoded word": campaign("Hello", subject="=?utf-8?b?" + base64.b64encode(b"Bacon").decode() + "?="),
    "in encoded words split in mid-word": campaign("Hello", subject="=?utf-8?q?Ba?= =?utf-8?q?con?="),
    "in base64": campaign(
        base64_of, "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n"
    ),
    "in quoted-printable": campaign(
        quopri.encodestring(PORK.encode(), quotetabs=True).decode().replace("bacon", "b=61c=\r\non"),
        "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n",
    ),
    "in an unknown charset": campaign(PORK, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=x-nobody\r\n"),
    "in an unknown encoding": campaign(
        PORK, "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: x-nobody\r\n"
    ),
    "in bad base64": campaign(
        "!" + base64_of.replace("=", "")[:-5] + "\r\n*",
        "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n",
    ),
    "in UTF-7": campaign(
        "Tonight +AGIAYQBjAG8Abg- for all", "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-7\r\n"
    ),
    "in UTF-16": campaign(
        base64.encodebytes(PORK.encode("utf-16")).decode().replace("\n", "\r\n"),
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n",
    ),
    "in HTML alone": campaign(f"<html><body><p>{PORK}</p></body></html>", HTML),
    "in entities": campaign("<p>Tonight: &#98;&#x61;con and whisky</p>", HTML),
    "in tags in mid-word": campaign("<p>Tonight: b<b>ac</b>on</p>", HTML),
    "in an alt text": campaign('<p><img src="x" alt="bacon"></p>', HTML),
    "in hidden text": campaign('<p>Hello</p><div style="display:none">bacon and whisky</div>', HTML),
    "in white on white": campaign('<p>Hello</p><p style="color:#fff;font-size:1px">bacon and whisky</p>', HTML),
    "with a soft hyphen": campaign("Tonight: ba\u00adcon"),
    "with a zero width space": campaign("Tonight: ba\u200bcon"),
    "in full width": campaign("Tonight: ｂａｃｏｎ"),
    "in one alternative only": campaign(
        parts(PLAIN + "Hello", "Content-Type: text/html\r\n\r\n<p>bacon</p>"), mixed("multipart/alternative")
    ),
    "in an attached message": campaign(
        parts(PLAIN + "Hello", f"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\n{PORK}"), mixed()
    ),
    "in an attached text": campaign(
        parts(PLAIN + "Hello", f'Content-Type: text/plain; name="a.txt"\r\nContent-Disposition: attachment\r\n\r\n{PORK}'),
        mixed(),
    ),
    "in the name of an attachment": campaign(
        parts(PLAIN + "Hello", 'Content-Type: application/pdf; name="bacon.pdf"\r\nContent-Disposition: attachment\r\n\r\nx'),
        mixed(),
    ),
    "in a multipart in a multipart": campaign(
        parts('Content-Type: multipart/mixed; boundary="=_c"\r\n\r\n--=_c\r\n' + PLAIN + PORK + "\r\n--=_c--"), mixed()
    ),
    "to Outlook alone": campaign("<p>Hello</p><!--[if mso]><p>bacon</p><![endif]-->", HTML),
    "on hovering": campaign('<p title="bacon">Hello</p>', HTML),
    "turned round": campaign('<p>Hello <bdo dir="rtl">nocab</bdo></p>', HTML),
    "struck through": campaign("Tonight: b\u0336a\u0336c\u0336o\u0336n\u0336"),
    "in RTF": campaign(parts(PLAIN + "Hello", "Content-Type: application/rtf; name=a.rtf\r\n\r\n{\\rtf1 b\\'61con}"), mixed()),
    "in a file of octets that is text by its name": campaign(
        parts(PLAIN + "Hello", f"Content-Type: application/octet-stream; name=a.txt\r\n\r\n{PORK}"), mixed()
    ),
    "in base64 with a comment": campaign(
        base64_of, "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64 (text)\r\n"
    ),
    "in UTF-16 that calls itself UTF-8": campaign(
        base64.encodebytes(PORK.encode("utf-16")).decode().replace("\n", "\r\n"),
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n",
    ),
    "in the preamble of nothing": campaign("no parts here\r\n" + PORK, mixed()),
}  # fmt: skip


@every("how", FOUND)
async def test_disguised_text_is_found(guard: WholeGuard, how: str) -> None:
    hold = await guard.held(FOUND[how], sender="bounces@campaigns.example.com")
    assert "unsuitable-for-list" in rules(hold)
    assert (
        not any(hit.uncertain for hit in hold.verdict.hits if hit.rule == "unsuitable-for-list") or hold.verdict.unknown
    )


def wordless(kind: str) -> bytes:
    """A signed message of the list's writer that consists of a file only."""
    mime = f"MIME-Version: 1.0\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n"
    return signed(
        personal_mail(sender=WRITER, subject="Ramadan mubarak!", head=CAMPAIGN, body="aGVsbG8gd29ybGQ=\r\n", mime=mime)
    )


UNREADABLE = {
    "two boundaries": campaign("--=_b\r\n\r\nHello\r\n--=_b--\r\n", 'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="=_b"; boundary="=_c"\r\n'),
    "two content types": campaign("Hello", 'MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Type: text/html\r\n'),
    "message/partial": campaign("Hello", 'MIME-Version: 1.0\r\nContent-Type: message/partial; id="1"; number=1; total=2\r\n'),
    "an external body": campaign("Content-Type: text/plain\r\n\r\n", "MIME-Version: 1.0\r\nContent-Type: message/external-body; access-type=URL; URL=\"https://x.example/\"\r\n"),
    "TNEF": campaign(parts(PLAIN + "Hello", 'Content-Type: application/ms-tnef; name="winmail.dat"\r\n\r\nx'), mixed()),
    "S/MIME": campaign("aGVsbG8=\r\n", "MIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n"),
    "PGP/MIME": campaign(parts("Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1", "Content-Type: application/octet-stream\r\n\r\nx"), mixed('multipart/encrypted; protocol="application/pgp-encrypted"')),
    "a picture alone": wordless("image/png"),
    "a PDF alone": wordless("application/pdf; name=offer.pdf"),
    "a document alone": wordless("application/vnd.openxmlformats-officedocument.wordprocessingml.document; name=a.docx"),
    "a message in Outlook's own format": campaign(parts(PLAIN + "Hello", "Content-Type: application/octet-stream; name=Lunch.msg\r\n\r\nx"), mixed()),
    "PGP in the text": campaign("-----BEGIN PGP MESSAGE-----\r\n\r\nhQEMA\r\n-----END PGP MESSAGE-----\r\n"),
    "nesting of 2,000": campaign("".join(f'Content-Type: multipart/mixed; boundary="{n}"\r\n\r\n--{n}\r\n' for n in range(2000)), 'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="x"\r\n'),
    "parts without end": campaign("--=_b\r\n\r\nx\r\n" * 20_000, mixed()),
}  # fmt: skip


@every("how", UNREADABLE)
async def test_unreadable_content_is_held(guard: WholeGuard, how: str) -> None:
    hold = await guard.held(UNREADABLE[how], sender="bounces@campaigns.example.com")
    assert hold.verdict.unknown, "the hold says that it could not be read"


@every(
    ("how", "body", "mime"),
    [
        ("nothing", "\r\n", ""),
        ("only a footer", "\r\nUnsubscribe: https://www.example.com/leave\r\n", ""),
        ("only a picture in the background", "<table background=http://x.example/1.png height=400><tr><td></td></tr></table>", HTML),
        ("only a picture of a form", "<input type=image src=http://x.example/1.png>", HTML),
    ],
)  # fmt: skip
async def test_mail_without_words_is_held_even_if_signed(guard: WholeGuard, how: str, body: str, mime: str) -> None:
    """A signed campaign that was sent by mistake before anything was written in it, or whose words are all in pictures."""
    content = signed(
        personal_mail(sender=WRITER, subject="Ramadan mubarak!", head=CAMPAIGN, body=f"{body}\r\n", mime=mime)
    )
    hold = await guard.held(content, sender="bounces@campaigns.example.com")
    assert rules(hold) == {"unfinished-to-list", "unfinished-to-many"}


INSIDE = {
    "a label": "MSIP_Labels: MSIP_Label_1234abcd-0000-4000-8000-0123456789ab_Name=Confidential;\r\n",
    "a field": "Sensitivity: Company-Confidential\r\n",
    "its words": "",
}


@every("how", INSIDE)
async def test_mail_marked_internal_is_held_even_if_signed(guard: WholeGuard, how: str) -> None:
    words = "Endast för internt bruk!" if how == "its words" else "We wish you a blessed month."
    hold = await guard.held(campaign(words, head=INSIDE[how]), sender="bounces@campaigns.example.com")
    assert "internal-to-list" in rules(hold)


TWICE = {
    "From": ("From: Example <campaigns@example.com>\r\n", "From: Anna <anna@example.com>\r\n"),
    "Subject": ("Subject: Ramadan mubarak!\r\n", "Subject: Bacon\r\n"),
    "Message-ID": ("Message-ID: <1@example.com>\r\n", "Message-ID: <2@example.com>\r\n"),
    "Sender": ("Sender: campaigns@example.com\r\n", "Sender: anna@example.com\r\n"),
}


@every(("name", "first"), itertools.product(TWICE, [0, 1]))
async def test_repeated_header_fields_are_held(guard: WholeGuard, name: str, first: int) -> None:
    """Mail with a repeated field is held, since readers differ in which one they show: the sender counts as no writer,
    or the message as unreadable."""
    one, other = TWICE[name][first], TWICE[name][1 - first]
    raw = personal_mail(sender=WRITER, subject="Ramadan mubarak!", head=CAMPAIGN, body="Hello" + FOOTER).decode()
    rest = "".join(line for line in raw.splitlines(keepends=True) if not line.startswith(f"{name}: "))
    await guard.held(signed((one + other + rest).encode()), sender="bounces@campaigns.example.com")


async def test_a_broken_header_block_is_held(guard: WholeGuard) -> None:
    raw = personal_mail(
        sender=WRITER, subject="Ramadan mubarak!", head="this is no field\r\n" + CAMPAIGN, body="Hello" + FOOTER
    )
    await guard.held(raw, sender="bounces@campaigns.example.com")


FORGED = {
    "List-Unsubscribe": "List-Unsubscribe: <https://www.example.com/leave>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
    "List-Id": "List-Id: <ramadan.lists.example.com>\r\nPrecedence: bulk\r\n",
    "Auto-Submitted": "Auto-Submitted: auto-generated\r\n",
    "Feedback-ID": "Feedback-ID: a:b:c:example\r\nX-Mailer: Mailchimp\r\n",
    "X-Smtpguard": "X-Smtpguard: id=0123456789ABCDEF; policy=0123456789ab; mac=0123456789abcdef0123456789abcdef\r\n",
    "X-Smtpguard-Release": "X-Smtpguard-Release: 0123456789ABCDEF-release\r\nX-Smtpguard-Notice: held\r\n",
    "DKIM-Signature": "DKIM-Signature: v=1; a=rsa-sha256; d=campaigns.example.com; s=demo; h=from:to; bh=AAAA; b=AAAA\r\n",
    "Authentication-Results": "Authentication-Results: guard.example.com; dkim=pass header.d=campaigns.example.com\r\n",
}


@every(("name", "sender"), itertools.product([*FORGED, "all of them"], ["Anna <anna@example.com>", WRITER]))
async def test_a_forged_field_exempts_nothing(guard: WholeGuard, name: str, sender: str) -> None:
    """A conversation between colleagues stays internal, whatever its From."""
    head = OUTLOOK + (FORGED[name] if name in FORGED else "".join(FORGED.values()))
    assert "internal-to-list" in rules(await guard.held(personal_mail(sender=sender, head=head)))


@every("name", FORGED)
async def test_the_writer_needs_the_lists_signature(guard: WholeGuard, name: str) -> None:
    """A message From the list's writer without the list's signature is held, however much it looks like the list's
    mailing."""
    head = CAMPAIGN + FORGED[name]
    hold = await guard.held(personal_mail(sender=WRITER, subject="Ramadan mubarak!", head=head, body="Hello" + FOOTER))
    assert "not-a-writer" in rules(hold)


async def test_a_copied_trace_exempts_nothing(guard: WholeGuard) -> None:
    """The trace of another message does not let a message pass."""
    await guard.passes(personal_mail(to="bob@partner.example"), "bob@partner.example")
    trace = guard.relay.messages[0].content.split(b"From: ")[0]
    hold = await guard.held(trace + personal_mail(message_id="<2@example.com>"))
    assert "internal-to-list" in rules(hold)


async def test_the_envelope_decides_and_not_the_to_field(guard: WholeGuard) -> None:
    """A list in the envelope holds the message, even if it is not in To; a list in To alone does not."""
    hold = await guard.held(personal_mail(to="Lotta <lotta@example.com>"), RAMADAN)
    assert "internal-to-list" in rules(hold)
    await guard.passes(personal_mail(to=RAMADAN, message_id="<2@example.com>"), "bob@partner.example")


async def test_random_changes_of_a_held_message_never_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random changes of bytes: each mutation is held, or refused for its bytes; none causes an error, and none passes.

    The policy looks at content alone, since the sample's rule ``not-a-writer`` holds all mail of others to the list.
    """
    content_alone = policy()
    text = (
        content_alone[: content_alone.index("- id: not-a-writer")]
        + content_alone[content_alone.index("- id: unapproved-mailing") :]
    )
    drawn = random.Random(21)
    original = personal_mail(head=OUTLOOK, body=LETTER)
    async with whole_guard(tmp_path, monkeypatch, text=text) as guard:
        await guard.held(original)
        for n in range(150):
            mutated = bytearray(original)
            for _ in range(drawn.choice([1, 1, 1, 2, 5])):
                at = drawn.randrange(len(mutated) - 2)
                match drawn.randrange(3):
                    case 0:
                        mutated[at] = drawn.randrange(256)
                    case 1:
                        del mutated[at]
                    case _:
                        mutated.insert(at, drawn.randrange(256))
            said = await guard.send(bytes(mutated), sender=ANNA)
            assert said.startswith(("250 2.0.0 Held", "550 5.5.2", "550 5.6.0")), (n, said, bytes(mutated))
        assert guard.relay.messages == []
