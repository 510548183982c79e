"""The writer's DSN about a released message, whatever extensions the relay offers by then."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage

import pytest

from tests.catalogue.wholeguard import ANNA, LETTER, RAMADAN, WholeGuard, personal_mail
from tests.scripted_relay import KEYWORDS

LASTING = "lasse@kund.example.net"
PLAIN = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
MAIL = {
    "ascii": (personal_mail(mime=PLAIN), ""),
    "raw": (personal_mail(subject="SV: Fläsk", mime=PLAIN), ""),
    "8bit": (personal_mail(body=LETTER.replace("frukost", "blåbär")), " BODY=8BITMIME"),
    "utf8": (personal_mail(subject="SV: Fläsk", to="fläsk@kund.example.net"), " SMTPUTF8 BODY=8BITMIME"),
}


async def released(guard: WholeGuard, kind: str, *to: str, parameters: str = "", lost: tuple[str, ...] = ()) -> None:
    """Hold a message while the relay offers all extensions, and approve it when the relay lacks those in ``lost``."""
    content, mail = MAIL[kind]
    hold = await guard.held(content, *(to or (RAMADAN,)), mail=f"{mail}{parameters}")
    await guard.deliver()
    guard.relay.keywords = tuple(k for k in KEYWORDS if k not in lost)
    guard.relay.drop_all()
    await guard.relay.emptied()
    await guard.release(hold)


async def dsn(guard: WholeGuard) -> bytes:
    """The single DSN to the writer."""
    sent = await guard.deliver()
    [one] = [m for m in sent if b"report-type=delivery-status" in m.content]
    assert one.mail.startswith(b"MAIL FROM:<>")
    assert one.recipients == [ANNA]
    assert one.content.isascii() or "8BITMIME" in guard.relay.keywords
    return one.content


def report_recipients(raw: bytes) -> str:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    text = next(message.iter_parts())
    assert isinstance(text, EmailMessage)
    return " ".join(str(text.get_content()).split())


def actions(raw: bytes) -> dict[str, tuple[str, str, str | None]]:
    """Action, status and diagnostic code of each recipient in the delivery-status part."""
    found = re.search(rb"/(?:global-)?delivery-status(?:\r\n[^\r\n]+)*\r\n\r\n(.*?)\r\n--=_", raw, re.S)
    assert found
    blocks = [email.message_from_bytes(block, policy=email.policy.default) for block in found[1].split(b"\r\n\r\n")[1:]]
    return {
        str(b["Final-Recipient"]).partition("; ")[2]: (b["Action"], b["Status"], b["Diagnostic-Code"]) for b in blocks
    }


@pytest.mark.parametrize("lost", [(), ("SMTPUTF8",), ("8BITMIME", "SMTPUTF8", "DSN")])
@pytest.mark.parametrize("kind", list(MAIL))
async def test_the_sender_gets_a_dsn_of_a_failure_with_any_relay(
    guard: WholeGuard, kind: str, lost: tuple[str, ...]
) -> None:
    await released(guard, kind, parameters=" RET=FULL", lost=lost)
    guard.relay.on("RCPT TO:<ramadan@", "550 5.1.1 no such list")
    report = await dsn(guard)
    assert RAMADAN in report_recipients(report)
    [(address, (action, _, _))] = actions(report).items()
    assert (address, action) == (RAMADAN, "failed")


async def test_a_dsn_has_no_diagnostic_code_of_a_relay_not_asked(guard: WholeGuard) -> None:
    """A report has no diagnostic code of a relay that was not asked (RFC 3464 section 2.3.6). The status for a
    non-ASCII address would differ from that for a header (RFC 6531 section 4.2)."""
    await released(guard, "utf8", RAMADAN, "fläsk@kund.example.net", lost=("SMTPUTF8",))
    report = await dsn(guard)
    assert set(actions(report).values()) == {("failed", "5.6.9", None)}
    assert len(actions(report)) == 2
    assert "svarade" not in report_recipients(report)
    assert "mejlhuvuden i UTF-8 (SMTPUTF8)" in report_recipients(report)


async def test_without_dsn_at_the_relay_success_is_reported_as_relayed(guard: WholeGuard) -> None:
    """Without DSN at the relay we report "relayed", only to senders who asked with NOTIFY=SUCCESS (RFC 3461 section
    5.2.2)."""
    client = await guard.connect()
    said = [
        await client.ask(line)
        for line in (
            f"MAIL FROM:<{ANNA}> ENVID=QQ1",
            f"RCPT TO:<{RAMADAN}> NOTIFY=SUCCESS,FAILURE",
            f"RCPT TO:<{LASTING}>",
            "DATA",
        )
    ]
    assert said[-1].startswith("354")
    client.say(MAIL["ascii"][0] + b".\r\n")
    hold = await guard.hold(await client.hear())
    await guard.deliver()
    guard.relay.keywords = tuple(k for k in KEYWORDS if k != "DSN")
    guard.relay.drop_all()
    await guard.relay.emptied()
    await guard.release(hold)
    report = await dsn(guard)
    [(recipient, (action, status, answer))] = actions(report).items()
    assert (recipient, action, status) == (RAMADAN, "relayed", "2.0.0")
    assert answer is not None
    # notices are sent beside the release, and may be taken first
    assert re.fullmatch(r"smtp; 250 2\.0\.0 Taken as \d+", answer)
    assert "något mer besked kommer inte" in report_recipients(report)
