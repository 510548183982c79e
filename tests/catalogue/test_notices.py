"""Notices: their content, their recipients, and their number, however much is held."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from tests.catalogue.wholeguard import ANNA, DPO, EVA, MEMBERS, OUTLOOK, RAMADAN, WholeGuard, personal_mail
from tests.scripted_relay import Message

OMAR, LEGAL = "omar@example.com", "legal@example.com"
DECIDERS = {EVA, OMAR, DPO, LEGAL}


def notices_by_person(sent: list[Message]) -> dict[str, list[str]]:
    """The kinds of notice that each recipient got."""
    found: dict[str, list[str]] = {}
    for message in sent:
        kind = parsed(message)["X-Smtpguard-Notice"]
        for rcpt in message.rcpts:
            found.setdefault(rcpt.split(b"<")[1].split(b">")[0].decode(), []).append(str(kind))
    return found


def parsed(message: Message) -> EmailMessage:
    found = message_from_bytes(message.content, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


async def test_every_notice_has_the_required_header_fields(guard: WholeGuard) -> None:
    await guard.held(personal_mail(message_id="<about@example.com>"))
    sent = await guard.deliver()
    assert len(sent) == 5
    for message in sent:
        notice = parsed(message)
        assert message.mail.startswith(b"MAIL FROM:<> ") or message.mail == b"MAIL FROM:<>"
        assert notice["Auto-Submitted"] == "auto-generated"
        assert notice["X-Auto-Response-Suppress"] == "All"
        assert notice["X-Smtpguard-Notice"] in ("held", "approve")
        assert notice["In-Reply-To"] == notice["References"] == "<about@example.com>"
        assert b"NOTIFY=NEVER" in message.rcpts[0]
        assert {part.get_content_type() for part in notice.iter_parts()} == {"text/plain", "text/html"}
        assert RAMADAN not in [str(a) for a in str(notice["To"]).split(",")]


async def test_a_reply_to_a_notice_causes_no_notice(guard: WholeGuard) -> None:
    """A bounce of the notice, an automatic answer, and the notice itself: refused to a list, and held without a notice
    to members."""
    await guard.held(personal_mail())
    sent = await guard.deliver()
    notice = sent[0].content
    bounce = personal_mail(
        sender="Mailer <mailer-daemon@example.com>", head="Auto-Submitted: auto-replied\r\n", subject="Undelivered"
    )
    answer = personal_mail(
        head="Auto-Submitted: auto-replied\r\nIn-Reply-To: <x.notice@example.com>\r\n", subject="Out of office"
    )
    for content, sender in ((notice, ""), (bounce, ""), (answer, ANNA)):
        assert (await guard.send(content, RAMADAN, sender=sender)).startswith("550 5.7.1")
        assert await guard.deliver() == []
        said = await guard.send(content, *MEMBERS[:30], sender=sender)
        assert not said.startswith("5")
        assert "held" not in {kind for kinds in notices_by_person(await guard.deliver()).values() for kind in kinds}


async def test_mail_in_a_loop_is_refused(guard: WholeGuard) -> None:
    hops = "".join(f"Received: from a.example by b{n}.example; Mon, 2 Mar 2026 09:00:00 +0000\r\n" for n in range(51))
    assert (await guard.send(hops.encode() + personal_mail())).startswith("554 5.4.6")


@pytest.mark.parametrize(
    ("writer", "reverse_path"),
    [
        ("Anna <anna@example.com>", ANNA),
        ("Anna <anna@example.com>", "bounces+amina.rahimi1=customers.example@example.com"),
        ("Anna <anna@example.com>", MEMBERS[3]),
        ("Anna <anna@example.com>", "somebody@else.example"),
    ],
)
async def test_the_writer_is_notified_and_not_the_reverse_path(
    guard: WholeGuard, writer: str, reverse_path: str
) -> None:
    await guard.held(
        personal_mail(sender=writer, to="lotta@example.com"),
        RAMADAN,
        "lotta@example.com",
        *MEMBERS[:6],
        sender=reverse_path,
    )
    assert notices_by_person(await guard.deliver()) == {ANNA: ["held"]} | {person: ["approve"] for person in DECIDERS}


@pytest.mark.parametrize(
    ("writer", "reverse_path"),
    [
        ("Stranger <stranger@else.example>", "stranger@else.example"),
        ("Stranger <stranger@else.example>", ANNA),
        ("The list <ramadan@lists.example.com>", ANNA),
        (f"Amina <{MEMBERS[0]}>", MEMBERS[0]),
        ("not an address", ANNA),
    ],
)
async def test_an_outside_writer_gets_no_notice_but_the_owner_does(
    guard: WholeGuard, writer: str, reverse_path: str
) -> None:
    """If no writer may get a notice, the list's owner gets one digest."""
    await guard.held(personal_mail(sender=writer), sender=reverse_path)
    assert set(notices_by_person(await guard.deliver())) == DECIDERS
    await guard.pass_(hours=2)
    assert notices_by_person(await guard.deliver()) == {OMAR: ["owner-digest"]}


async def test_of_two_authors_the_sender_is_notified(guard: WholeGuard) -> None:
    await guard.held(personal_mail(sender="Anna <anna@example.com>, Bo <bo@example.com>"), sender=ANNA)
    assert notices_by_person(await guard.deliver()) == {ANNA: ["held"]} | {person: ["approve"] for person in DECIDERS}


async def test_refused_automatic_mail_is_reported_to_the_list_owner(guard: WholeGuard) -> None:
    assert (await guard.send(personal_mail(), sender="")).startswith("550 5.7.1")
    assert await guard.deliver() == []
    await guard.pass_(hours=2)
    [digest] = await guard.deliver()
    assert notices_by_person([digest]) == {OMAR: ["owner-digest"]}
    assert "SV: Lunch" in digest.content.decode()


async def test_many_holds_make_few_notices_and_one_digest_each(guard: WholeGuard) -> None:
    for n in range(40):
        await guard.held(personal_mail(message_id=f"<{n}@example.com>", subject=f"SV: {n}"))
    first = notices_by_person(await guard.deliver())
    assert first == {ANNA: ["held"] * 3} | {person: ["approve"] * 3 for person in DECIDERS}
    await guard.pass_(minutes=11)
    digests = await guard.deliver()
    assert notices_by_person(digests) == {person: ["digest"] for person in (ANNA, *DECIDERS)}
    assert all("40" in str(parsed(m)["Subject"]) for m in digests)


@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?a=0D=0ABcc:_victim@else.example=0D=0A=0D=0Ainjected?=",
        "=?utf-8?b?4oCubm9jYWI=?= \u202egnp.exe",
        "=?utf-8?q?=1B[2Jclear=07?=",
        "<script>alert(1)</script> <img src=x onerror=alert(1)>",
    ],
)
async def test_a_subject_is_escaped_in_notices(guard: WholeGuard, subject: str) -> None:
    await guard.held(personal_mail(subject=subject))
    sent = await guard.deliver()
    assert set(notices_by_person(sent)) == {ANNA, *DECIDERS}
    for message in sent:
        notice = parsed(message)
        assert notice["Bcc"] is None
        said = [str(notice["Subject"]), *(part.get_content().replace("\r\n", "\n") for part in notice.iter_parts())]
        assert not any(c in text for c in "\u202e\x1b\x07\r" for text in said)
        assert "<script" not in said[2]
        assert "<img" not in said[2]


async def test_a_subject_is_escaped_in_digests(guard: WholeGuard) -> None:
    for n in range(6):
        await guard.held(
            personal_mail(
                message_id=f"<{n}@example.com>", subject=f"{n} =?utf-8?q?a=0D=0ABcc:_b@c?= \u202e<b>", head=OUTLOOK
            )
        )
    await guard.deliver()
    await guard.pass_(minutes=11)
    digests = await guard.deliver()
    assert digests
    for message in digests:
        notice = parsed(message)
        assert notice["Bcc"] is None
        assert not any("\u202e" in part.get_content() for part in notice.iter_parts())
