"""Delivery status notifications as a mail program parses them, with the sender's parameters and non-ASCII addresses."""

from __future__ import annotations

import email
import email.policy
import quopri
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Body, Envelope, Recipient
from smtpguard.mail.message import Message
from smtpguard.notices.dsn import MAX_RETURNED_OCTETS, Action, Dsn, Report, render
from smtpguard.notices.notice import NoticeHead
from tests.every import every

AT = datetime(2026, 3, 3, 13, 5, tzinfo=UTC)
HEAD = NoticeHead(sender="Mail guard <smtpguard@example.com>", organization="Example AB", contact="it@example.com")
RAW = (
    b"From: anna@example.com\r\nTo: ramadan@lists.example.com\r\nSubject: Nyheter\r\nMessage-ID: <m1@example.com>\r\n"
    b"\r\nThe body of it.\r\n"
)


def recipient(address: str = "ramadan@lists.example.com", **more: Any) -> Recipient:
    return Recipient(address=Address.parse(address), **more)


def make(*reports: Report, raw: bytes | None = RAW, sender: str | None = "anna+bounce@example.com", language: str = "en",
         retry_until: datetime | None = None, part: bool = False, seven_bit: bool = False,
         **envelope: Any) -> tuple[Envelope, bytes]:  # fmt: skip
    reports = reports or (Report(recipient=recipient(), action=Action.FAILED, reply="550 5.1.1 No such user", at=AT),)
    return render(
        Dsn(
            id="0HXK-dsn-1",
            envelope=Envelope(
                reverse_path=Address.parse(sender) if sender else None,
                recipients=tuple(r.recipient for r in reports),
                **envelope,
            ),
            reports=reports,
            original=Message.of(raw) if raw is not None else None,
            arrived_at=AT,
            at=AT,
            reporting_mta="guard.example.com",
            hold_id="0HXK3J9QZ2M4T7AB",
            language=language,
            retry_until=retry_until,
            subject="Nyheter",
            part=part,
        ),
        HEAD,
        seven_bit=seven_bit,
    )


def read(raw: bytes) -> tuple[EmailMessage, list[EmailMessage], list[EmailMessage]]:
    """The message, its parts, and the blocks of the status part."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    parts = list(message.iter_parts())
    blocks = parts[1].get_payload()
    assert isinstance(blocks, list)
    return message, parts, blocks  # type: ignore[return-value]


def test_a_failure_is_reported() -> None:
    envelope, raw = make(
        Report(
            recipient=recipient(orcpt="rfc822;Ramadan+2Bx@lists.example.com"),
            action=Action.FAILED,
            reply="550 5.1.1 No such user",
            at=AT,
        ),
        envid="QQ+2B314",
    )
    assert envelope.reverse_path is None
    assert envelope.recipients == (recipient("anna+bounce@example.com", notify="NEVER"),)
    assert (envelope.smtputf8, envelope.body) == (False, None)
    message, parts, (whole, one) = read(raw)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["To"] == "anna+bounce@example.com"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["X-Smtpguard-Notice"] == "dsn"
    assert message["In-Reply-To"] == "<m1@example.com>"
    assert message["Message-ID"] == "<0HXK-dsn-1.dsn@example.com>"
    assert [p.get_content_type() for p in parts] == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert whole["Original-Envelope-Id"] == "QQ+314"
    assert whole["Reporting-MTA"] == "dns; guard.example.com"
    assert whole["Arrival-Date"] == "Tue, 03 Mar 2026 13:05:00 +0000"
    assert one["Original-Recipient"] == "rfc822;Ramadan+x@lists.example.com"
    assert one["Final-Recipient"] == "rfc822; ramadan@lists.example.com"
    assert one["Action"] == "failed"
    assert one["Status"] == "5.1.1"
    assert one["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"
    assert one["Last-Attempt-Date"] == "Tue, 03 Mar 2026 13:05:00 +0000"
    assert b"The body of it" not in raw
    assert b"Subject: Nyheter\r\n" in raw
    text = parts[0].get_content()
    assert "ramadan@lists.example.com" in text
    assert "The receiving server said: 550 5.1.1 No such user" in text
    assert "0HXK3J9QZ2M4T7AB" in text


@every(
    ("action", "ret", "kind"),
    [
        (Action.FAILED, "FULL", "message/rfc822"),
        (Action.FAILED, "full", "message/rfc822"),
        (Action.FAILED, "HDRS", "text/rfc822-headers"),
        (Action.FAILED, None, "text/rfc822-headers"),
        (Action.DELAYED, "FULL", "text/rfc822-headers"),
        (Action.RELAYED, "FULL", "text/rfc822-headers"),
    ],
)
def test_the_returned_content_follows_ret(action: Action, ret: str | None, kind: str) -> None:
    _, raw = make(Report(recipient=recipient(), action=action), ret=ret)
    _, parts, (_, one) = read(raw)
    assert parts[2].get_content_type() == kind
    assert (RAW in raw) is (kind == "message/rfc822")
    assert one["Action"] == action.value


def test_a_large_message_is_returned_as_its_header() -> None:
    _, raw = make(ret="FULL", raw=RAW + b"x" * MAX_RETURNED_OCTETS)
    assert len(raw) < 10_000


def test_without_content_nothing_is_returned() -> None:
    _, parts, _ = read(make(raw=None)[1])
    assert len(parts) == 2
    assert "Subject: Nyheter" in parts[0].get_content()


def test_a_delay_has_its_end() -> None:
    _, raw = make(Report(recipient=recipient(), action=Action.DELAYED, reply="451 later"), retry_until=AT)
    _, (said, *_), (_, one) = read(raw)
    assert "We go on trying until Tuesday 3 March 2026 at 13:05 (UTC), so you need not" in said.get_content()
    assert (one["Action"], one["Status"]) == ("delayed", "4.0.0")
    assert one["Will-Retry-Until"] == "Tue, 03 Mar 2026 13:05:00 +0000"


@every(
    ("action", "reply", "status"),
    [
        (Action.FAILED, "550 5.7.1 No", "5.7.1"),
        (Action.FAILED, "550 No 5.7", "5.0.0"),
        (Action.FAILED, "452 4.2.2 Full, for days", "4.2.2"),
        (Action.FAILED, "connection lost", "5.0.0"),
        (Action.DELAYED, "", "4.0.0"),
        (Action.RELAYED, "250 2.6.0 queued", "2.6.0"),
        (Action.RELAYED, "", "2.0.0"),
        (Action.FAILED, "550 host 10.5.1.1 said no", "5.0.0"),
    ],
)
def test_the_status_follows_action_and_reply(action: Action, reply: str, status: str) -> None:
    assert Report(recipient=recipient(), action=action, reply=reply).status == status


@pytest.mark.parametrize("language", ["sv", "en"])
@pytest.mark.parametrize(
    ("why", "status", "said"),
    [
        ("expired", "4.4.7", ("as long as it is sensible", "så länge som det är rimligt")),
        ("in-doubt", "4.4.2", ("may have arrived all the same", "kan ha kommit fram ändå")),
        ("unsendable", "5.3.0", ("cannot be sent to the next mail server", "Det går inte att skicka")),
        ("missing", "5.3.0", ("no longer has it as you wrote it", "har det inte kvar så som du skrev det")),
        ("refused", "5.0.0", ()),
    ],
)
def test_a_failure_without_a_reply_gives_the_reason(
    why: str, status: str, said: tuple[str, ...], language: str
) -> None:
    _, raw = make(Report(recipient=recipient(), action=Action.FAILED, why=why), language=language)
    _, parts, (_, one) = read(raw)
    assert one["Status"] == status
    assert one["Diagnostic-Code"] is None
    text = parts[0].get_content()
    assert not said or any(words in text for words in said)
    given = Report(recipient=recipient(), action=Action.FAILED, why=why, given_status="5.6.7")
    assert given.status == "5.6.7"


@every(
    ("language", "subject", "said", "not_said"),
    [
        (
            "en",
            "Perhaps not delivered: Nyheter",
            "It is not known whether this was delivered to:",
            "could not be delivered",
        ),
        ("sv", "Kanske inte levererat: Nyheter", "Det är inte känt om det levererades till:", "gick inte att leverera"),
    ],
)
def test_what_is_in_doubt_is_not_said_to_be_undelivered(language: str, subject: str, said: str, not_said: str) -> None:
    doubted = Report(recipient=recipient(), action=Action.FAILED, why="in-doubt")
    message, parts, (_, one) = read(make(doubted, language=language)[1])
    assert (message["Subject"], one["Action"]) == (subject, "failed")
    assert said in parts[0].get_content()
    assert not_said not in parts[0].get_content()
    both = read(make(doubted, Report(recipient=recipient("b@example.com"), action=Action.FAILED))[1])
    assert both[0]["Subject"] == "Not delivered: Nyheter"
    failed, in_doubt = both[1][0].get_content().split("It is not known")
    assert "b@example.com" in failed
    assert "ramadan@" in in_doubt


@pytest.mark.parametrize("language", ["sv", "en"])
@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("5.6.0", ("cannot be sent to the next mail server", "går inte att skicka till nästa")),
        ("5.6.3", ("takes no 8-bit text", "tar inte emot 8-bitars text")),
        ("5.6.7", ("takes no address with letters", "tar inte emot adresser med andra bokstäver")),
        ("5.6.9", ("takes no headers in UTF-8", "tar inte emot mejlhuvuden i UTF-8")),
    ],
)
def test_no_diagnostic_code_of_a_server_that_was_not_asked(status: str, said: tuple[str, ...], language: str) -> None:
    """The report has a diagnostic code only if the other server issued one (RFC 3464, section 2.3.6)."""
    report = Report(recipient=recipient(), action=Action.FAILED, why="unsendable", given_status=status)
    _, parts, (_, one) = read(make(report, language=language)[1])
    assert (one["Status"], one["Diagnostic-Code"]) == (status, None)
    text = parts[0].get_content()
    assert any(words in " ".join(text.split()) for words in said)
    assert "The receiving server said" not in text
    assert "svarade" not in text


@pytest.mark.parametrize(
    ("language", "said"), [("sv", "En del av ett meddelande från dig"), ("en", "A part of a message of yours")]
)
def test_a_report_on_the_colleagues_part_does_not_say_held(language: str, said: str) -> None:
    text = read(make(part=True, language=language)[1])[1][0].get_content()
    assert said in text
    assert not {"released", "släpptes"} & set(text.replace(".", " ").split())


@every(
    ("notify", "failed", "delayed", "relayed"),
    [
        (None, True, True, False),
        ("NEVER", False, False, False),
        ("success,delay", False, True, True),
        ("FAILURE", True, False, False),
    ],
)
def test_notify_selects_reports(notify: str | None, failed: bool, delayed: bool, relayed: bool) -> None:
    one = recipient(notify=notify)
    assert [a.wanted_by(one) for a in (Action.FAILED, Action.DELAYED, Action.RELAYED)] == [failed, delayed, relayed]


def test_several_recipients_are_grouped() -> None:
    _, raw = make(
        Report(recipient=recipient("a@kund.se"), action=Action.RELAYED, reply="250 2.0.0 ok"),
        Report(recipient=recipient("b@kund.se"), action=Action.FAILED, reply="550 5.1.1 no"),
        language="sv",
    )
    message, parts, blocks = read(raw)
    assert message["Subject"] == "Kunde inte levereras: Nyheter"
    assert [b["Action"] for b in blocks[1:]] == ["relayed", "failed"]
    text = parts[0].get_content()
    assert text.index("Det gick inte att leverera till:") < text.index("b@kund.se") < text.index("a@kund.se")


def test_non_ascii_is_used_if_the_sender_can_read_it() -> None:
    raw_original = "From: åsa@example.se\r\nSubject: Nyheter för påsk\r\n\r\nHej på dig\r\n".encode()
    envelope, raw = make(
        Report(recipient=recipient("jörgen@kund.se", orcpt="utf-8;jörgen@kund.se"), action=Action.FAILED, reply="550 5.1.1 nej å"),
        sender="åsa@example.se", raw=raw_original, smtputf8=True, ret="FULL",
    )  # fmt: skip
    assert (envelope.smtputf8, envelope.body) == (True, Body.EIGHTBITMIME)
    _, parts, _ = read(raw)
    assert [p.get_content_type() for p in parts] == ["text/plain", "message/global-delivery-status", "message/global"]
    assert "Final-Recipient: utf-8; jörgen@kund.se\r\n".encode() in raw
    assert "Original-Recipient: utf-8;jörgen@kund.se\r\n".encode() in raw
    assert b"Diagnostic-Code: smtp; 550 5.1.1 nej ?\r\n" in raw
    assert raw_original in raw
    assert "To: <åsa@example.se>\r\n".encode() in raw
    _, raw = make(sender="åsa@example.se", raw=raw_original, smtputf8=True)
    assert read(raw)[1][2].get_content_type() == "message/global-headers"


def test_non_ascii_is_encoded_if_the_sender_cannot_read_it() -> None:
    envelope, raw = make(Report(recipient=recipient("jörgen@kund.se"), action=Action.FAILED, reply="550 5.1.1 no"))
    assert not envelope.smtputf8
    _, parts, (_, one) = read(raw)
    assert parts[1].get_content_type() == "message/delivery-status"
    assert one["Final-Recipient"] == "utf-8; j\\x{F6}rgen@kund.se"


def test_an_eight_bit_body_needs_only_8bitmime() -> None:
    envelope, raw = make(raw=RAW + "Hej på dig\r\n".encode(), ret="FULL")
    assert (envelope.smtputf8, envelope.body) == (False, Body.EIGHTBITMIME)
    assert b"Content-Transfer-Encoding: 8bit\r\n" in raw.partition(b"\r\n\r\n")[0] + b"\r\n"


UTF8 = "From: åsa@example.se\r\nSubject: Nyheter för påsk = slut\r\n\r\nHej på dig\r\n".encode()


@pytest.mark.parametrize("ret", ["FULL", "HDRS", None])
@pytest.mark.parametrize(("smtputf8", "kind"), [(True, b"message/global-headers"), (False, b"text/rfc822-headers")])
def test_a_seven_bit_report_has_an_encoded_header(smtputf8: bool, kind: bytes, ret: str | None) -> None:
    """For a relay without 8BITMIME, the returned header is encoded (RFC 6522, section 4; RFC 6533, section 4)."""
    one = recipient("jörgen@kund.se", orcpt="utf-8;jörgen+2B\\x{E4}@kund.se")
    report = Report(recipient=one, action=Action.FAILED, reply="550 5.1.1 nej å")
    envelope, raw = make(report, raw=UTF8, smtputf8=smtputf8, ret=ret, seven_bit=True)
    assert raw.isascii()
    assert (envelope.smtputf8, envelope.body) == (False, None)
    assert b"Final-Recipient: utf-8; j\\x{F6}rgen@kund.se\r\n" in raw
    assert b"Original-Recipient: utf-8;j\\x{F6}rgen+2B\\x{E4}@kund.se\r\n" in raw
    assert b"message/delivery-status\r\n" in raw
    head, _, returned = raw.rpartition(b"Content-Type: " + kind)[2].partition(b"\r\n\r\n")
    assert b"Content-Transfer-Encoding: quoted-printable" in head
    assert quopri.decodestring(returned.partition(b"\r\n--=_")[0]) == UTF8.partition(b"\r\n\r\n")[0] + b"\r\n"


def test_a_seven_bit_message_is_returned_whole_in_seven_bits() -> None:
    _, raw = make(ret="FULL", seven_bit=True)
    assert RAW in raw


def test_raw_octets_in_a_header_need_no_extension() -> None:
    """A returned header in raw octets needs no SMTPUTF8."""
    envelope, raw = make(raw=UTF8)
    assert raw.isascii()
    assert (envelope.smtputf8, envelope.body) == (False, None)


def test_a_sender_at_an_idn_needs_no_smtputf8() -> None:
    envelope, raw = make(sender="anna@räksmörgås.example")
    assert raw.isascii()
    assert not envelope.smtputf8
    assert b"To: anna@xn--rksmrgs-5wao1o.example\r\n" in raw
    envelope, _ = make(sender="åsa@example.se", seven_bit=True)
    assert envelope.smtputf8


@settings(max_examples=80, deadline=None)
@given(
    header=st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=400),
    body=st.text(st.characters(blacklist_categories=["Cs"]), max_size=200),
    orcpt=st.text(st.characters(blacklist_categories=["Cs"]), max_size=80), wide=st.booleans(), ret=st.sampled_from(["FULL", "HDRS"]),
)  # fmt: skip
def test_a_seven_bit_report_is_ascii(header: str, body: str, orcpt: str, wide: bool, ret: str) -> None:
    raw = f"Subject: {header}\r\n\r\n{body}\r\n".encode()
    report = Report(recipient=recipient(orcpt=f"utf-8;{orcpt}"), action=Action.FAILED, reply=f"550 {header}")
    envelope, made = make(report, raw=raw, smtputf8=wide, ret=ret, seven_bit=True)
    assert made.isascii()
    assert (envelope.smtputf8, envelope.body) == (False, None)


def test_a_null_reverse_path_gets_no_report() -> None:
    with pytest.raises(ValueError, match="null reverse-path"):
        make(sender=None)


@settings(max_examples=80, deadline=None)
@given(reply=st.text(max_size=200), envid=st.text(max_size=60), orcpt=st.text(max_size=80), wide=st.booleans())
def test_no_text_breaks_out_of_its_field(reply: str, envid: str, orcpt: str, wide: bool) -> None:
    for text in (envid, "a+0D+0AAction:+20delivered"):
        for original in (orcpt, f"rfc822;{orcpt}", "rfc822;a+0D+0AX:+20y", "utf-8;a\r\nX: y"):
            _, raw = make(
                Report(recipient=recipient(orcpt=original), action=Action.FAILED, reply="550 " + reply),
                envid=text,
                smtputf8=wide,
            )
            status = raw.partition(b"delivery-status\r\n")[2].partition(b"\r\n--=_")[0]
            names = [line.partition(b":")[0] for line in status.split(b"\r\n") if line and line[:1] != b" "]
            assert set(names) <= {b"Content-Transfer-Encoding", b"Original-Envelope-Id", b"Reporting-MTA", b"Arrival-Date",
                                  b"Original-Recipient", b"Final-Recipient", b"Action", b"Status", b"Diagnostic-Code"}  # fmt: skip
            assert names.count(b"Action") == 1
            assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
