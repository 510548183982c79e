"""Framing: one message in is one message when it is relayed, kept and released, whatever its bytes."""

from __future__ import annotations

import random
import re
from pathlib import Path

import dkim
import pytest

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session, Transaction
from smtpguard.mail.message import Message
from smtpguard.policy.verdict import Held
from tests.catalogue.wholeguard import ANNA, KEY, RAMADAN, WholeGuard, personal_mail, signed, whole_guard
from tests.guard.house import FakePassage
from tests.scripted_relay import ScriptedRelay

FALSE_ENDS = (
    b"\n.\n", b"\r.\r", b"\r\n.\n", b"\n.\r\n", b"\r\n.\r", b"\r.\r\n", b"\r.\n", b"\n.\r", b"\r\n\0.\r\n",
    b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n",
)  # fmt: skip
SECOND = b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: second\r\n\r\nsecond\r\n"
RELAYS = {
    "strict": (),
    "lenient about LF": (b"\n.\n", b"\r\n.\n", b"\n.\r\n"),
    "lenient about CR": (b"\r.\r", b"\r\n.\r", b"\r.\r\n"),
}


@pytest.mark.parametrize("lenient", RELAYS.values(), ids=RELAYS)
async def test_a_false_end_of_data_makes_no_second_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenient: tuple[bytes, ...]
) -> None:
    async with whole_guard(tmp_path, monkeypatch, relay=ScriptedRelay(lenient=lenient)) as guard:
        for false_end in FALSE_ENDS:
            for to in (RAMADAN, "bob@partner.example"):
                said = await guard.send(personal_mail(to=to) + b"first" + false_end + SECOND, to, stuff=False)
                assert said.startswith(("550 5.5.2", "550 5.6.0")), (false_end, said)
        assert guard.relay.messages == []
        assert not any(b"evil" in line for line in guard.relay.commands)
        assert await guard.holds() == []


@pytest.mark.parametrize("lenient", RELAYS.values(), ids=RELAYS)
async def test_a_released_message_is_one_message_to_any_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenient: tuple[bytes, ...]
) -> None:
    """Valid lines with dots and commands are released as exactly one message, byte for byte."""
    async with whole_guard(tmp_path, monkeypatch, relay=ScriptedRelay(lenient=lenient)) as guard:
        for n, text in enumerate((b".\r\n" + SECOND, b"..\r\n.\r\n" + SECOND, b"\r\n.\r\n.\r\nQUIT\r\n")):
            content = personal_mail(message_id=f"<{n}@example.com>") + text
            hold = await guard.held(content)
            await guard.release(hold)
            await guard.deliver()
            [there] = guard.arrived(content)
            assert there.rcpts == [f"RCPT TO:<{RAMADAN}>".encode()]
        assert not any(b"evil" in line for line in guard.relay.commands)


@pytest.mark.parametrize("lenient", RELAYS.values(), ids=RELAYS)
async def test_content_that_a_relay_might_split_is_not_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenient: tuple[bytes, ...]
) -> None:
    """The SMTP side refuses such bytes. A message with them that is held by another way is not sent, and the sender
    gets a DSN."""
    async with whole_guard(tmp_path, monkeypatch, relay=ScriptedRelay(lenient=lenient)) as guard:
        for n, false_end in enumerate(FALSE_ENDS):
            content = personal_mail(message_id=f"<{n}@example.com>") + b"first" + false_end + SECOND
            transaction = Transaction(
                id=f"{n:016d}",
                session=Session(client_ip="127.0.0.1", helo="mx.example.com"),
                envelope=Envelope(
                    reverse_path=Address.parse(ANNA), recipients=(Recipient(address=Address.parse(RAMADAN)),)
                ),
                message=Message.of(content),
            )
            assert await guard.proxy_part.line.intake(transaction, FakePassage()) == Held(hold_id=transaction.id)
            hold = await guard.office._store.holds.find(transaction.id)
            assert hold is not None
            await guard.release(hold)
            sent = await guard.deliver()
            assert not any(f"RCPT TO:<{RAMADAN}>".encode() in m.rcpts for m in sent), false_end
            assert any(b"multipart/report" in m.content for m in sent), "the sender gets a DSN"
        assert not any(b"evil" in line for line in guard.relay.commands)


def some_bytes(random: random.Random) -> bytes:
    """Lines of all bytes that a line may contain, many beginning with dots or commands."""
    alphabet = bytes(n for n in range(1, 256) if n not in b"\r\n")
    lines = []
    for _ in range(random.randrange(30)):
        start = random.choice([b"", b".", b"..", b". ", b"MAIL FROM:<x@y>", b"From ", b"--b", b"\t"])
        lines.append(start + bytes(random.choices(alphabet, k=random.choice([0, 0, 1, 5, 78, 998]))))
    return b"".join(line + b"\r\n" for line in lines)


async def test_content_is_stored_and_sent_unchanged(guard: WholeGuard) -> None:
    """Relayed, held and released content is identical behind the trace headers."""
    drawn = random.Random(3)
    for n in range(160):
        content = personal_mail(to="bob@partner.example", message_id=f"<{n}@example.com>") + some_bytes(drawn)
        if n % 8:
            await guard.passes(content, "bob@partner.example")
            [there] = guard.arrived(content)
        else:
            content = personal_mail(subject=f"SV: {n}", message_id=f"<{n}@example.com>") + some_bytes(drawn)
            hold = await guard.held(content)
            assert bytes((await guard.office._store.contents.load(hold.content_sha256)).raw) == content
            await guard.release(hold)
            await guard.deliver()
            [there] = guard.arrived(content)
        trace = there.content.removesuffix(content)
        assert trace.startswith(b"Received: from ")
        names = re.findall(rb"^([^\s:]+):", trace, re.M)
        assert names == [b"Received", b"X-Smtpguard", b"X-Smtpguard-Release"][: 2 if n % 8 else 3]


async def test_dkim_signatures_still_verify(guard: WholeGuard) -> None:
    """The DKIM signature verifies on relayed and on released messages."""
    record = {b"demo._domainkey.campaigns.example.com.": KEY.record.encode()}
    passing = signed(personal_mail(to="bob@partner.example"))
    waiting = signed(personal_mail())
    await guard.passes(passing, "bob@partner.example")
    await guard.release(await guard.held(waiting))
    await guard.deliver()
    for content in (passing, waiting):
        [there] = guard.arrived(content)
        assert dkim.verify(there.content, dnsfunc=lambda name, timeout=5: record.get(name))
