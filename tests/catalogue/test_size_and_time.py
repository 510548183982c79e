"""Too large or too complex messages are refused or held, and delay no others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.catalogue.wholeguard import MEMBERS, RAMADAN, WholeGuard, personal_mail, whole_guard


async def test_one_recipient_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipient over the limit gets 452, and the message is decided for the others."""
    async with whole_guard(tmp_path, monkeypatch, settings="limits: {recipients: 10}") as guard:
        client = await guard.connect()
        await client.ask("MAIL FROM:<anna@example.com>")
        for member in MEMBERS[:10]:
            assert (await client.ask(f"RCPT TO:<{member}>")).startswith("250")
        assert (await client.ask(f"RCPT TO:<{RAMADAN}>")).startswith("452 4.5.3")
        assert (await client.ask("DATA")).startswith("354")
        client.say(personal_mail(to="lotta@example.com") + b".\r\n")
        hold = await guard.hold(await client.hear())
        assert [str(a) for a in hold.envelope.addresses] == list(MEMBERS[:10])


async def test_a_hundred_thousand_fields_are_refused_or_held(guard: WholeGuard) -> None:
    fields = "".join(f"X-{n}: y\r\n" for n in range(100_000))
    said = await guard.send(personal_mail(head=fields))
    assert said.startswith(("552 5.3.4", "250 2.0.0 Held"))
    assert guard.relay.messages == []


def hostile(n: int) -> bytes:
    """A message with 100,000 parts, 2,000 levels of nesting, or unclosed tags."""
    mixed = 'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n'
    nested = "".join(f'Content-Type: multipart/mixed; boundary="{n}"\r\n\r\n--{n}\r\n' for n in range(2000))
    bodies = (
        ("--b\r\n\r\nx\r\n" * 100_000, mixed),
        ("--b\r\n" + nested, mixed),
        ("<div><b><a href=x>\r\n" * 60_000, "MIME-Version: 1.0\r\nContent-Type: text/html\r\n"),
    )
    body, mime = bodies[n % len(bodies)]
    return personal_mail(body=f"{body}\r\n{n}\r\n", mime=mime, message_id=f"<{n}@example.com>")


@pytest.mark.parametrize("n", range(3), ids=["parts", "nesting", "tags"])
async def test_too_complex_content_is_held(guard: WholeGuard, n: int) -> None:
    hold = await guard.held(hostile(n))
    assert hold.verdict.unknown
    reasons = {why for fact, why in hold.verdict.unknown if fact == "message.looks"}
    assert len(reasons) == 1
    assert ("more than" in (why := reasons.pop())) or "deeper than" in why, why


async def test_complex_messages_do_not_delay_others(guard: WholeGuard) -> None:
    """Ordinary mail passes while such messages are read."""
    await guard.passes(personal_mail(to="bob@partner.example"), "bob@partner.example")
    reading = [asyncio.create_task(guard.send(hostile(n))) for n in range(6)]
    meanwhile, n = 0, 0
    while not all(task.done() for task in reading) and n < 200:
        n += 1
        said = await guard.send(
            personal_mail(to="bob@partner.example", message_id=f"<o{n}@example.com>"), "bob@partner.example"
        )
        assert said.startswith("250")
        meanwhile += not all(task.done() for task in reading)
    for answer in await asyncio.gather(*reading):
        assert answer.startswith("250 2.0.0 Held")
    assert meanwhile
