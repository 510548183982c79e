"""From intents to mail: in the reader's language, signed, and only if there is something to say."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from smtpguard.database.errors import ContentMissing
from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import Hold
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.mail.message import Message
from smtpguard.notices.notice import SAMPLE, NoticeHead, NoticeTemplates
from smtpguard.notices.render import Renderer, Sign
from smtpguard.outbox.model import Intent, IntentKind
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.every import every

RAW = Message.of(b"Subject: Nyheter\r\nMessage-ID: <m1@example.com>\r\n\r\nText\r\n")


class Contents:
    """The part of a store that rendering needs."""

    def __init__(self) -> None:
        self.contents = self.holds = self.journal = self

    async def load(self, sha256: str) -> Message:
        if sha256 != RAW.sha256:
            raise ContentMissing(sha256)
        return RAW

    async def newest(self, **_: Any) -> Sequence[Hold]:
        return ()

    async def noticed(self, since: datetime, until: datetime) -> Sequence[str]:
        return ()

    async def find(self, hold_id: str) -> Hold | None:
        return None


def renderer(sign: Sign | None = None, templates: Path | None = None) -> Renderer:
    head = NoticeHead(sender="smtpguard@example.com", languages=("sv", "en"), templates=templates)
    return Renderer(
        store=cast(Store, Contents()),
        in_force=lambda: cast(InForce, None),
        templates=lambda: NoticeTemplates(head),
        clock=Clock(datetime(2026, 3, 3, 13, 5, tzinfo=UTC)),
        reporting_mta="guard.example.com",
        sign=sign,
    )


def notice(to: str = "anna@example.com", **data: Any) -> Intent:
    return Intent(intent_id="i-1", kind=IntentKind.NOTICE, reverse_path=None,
                  recipients=(Recipient(address=Address.parse(to)),), data={**SAMPLE, **data})  # fmt: skip


def dsn(rows: list[dict[str, Any]], action: str = "failed", sha256: str | None = RAW.sha256, **data: Any) -> Intent:
    return Intent(intent_id="i-2", kind=IntentKind.DSN, reverse_path=None, hold_id="H1", content_sha256=sha256,
                  recipients=(Recipient(address=Address.parse("anna@example.com")),),
                  data={"action": action, "recipients": rows, **data})  # fmt: skip


ROW = {
    "address": "c@kund.se",
    "orcpt": None,
    "reply": "550 5.1.1 no",
    "why": "refused",
    "last_attempt_at": "2026-03-03T13:00:00Z",
}


async def test_a_notice_is_in_its_readers_language() -> None:
    [made] = await renderer().render(notice(**{"from": "Anna <Anna@example.com>", "language": "en"}))
    envelope, raw = made
    assert envelope.reverse_path is None
    assert envelope.recipients == (Recipient(address=Address.parse("anna@example.com"), notify="NEVER"),)
    assert b"Content-Language: en" in raw  # the writer's language
    [made] = await renderer().render(notice("eva@example.com", **{"from": "Neva <neva@example.com>", "language": "en"}))
    assert b"Content-Language: sv" in made[1], "another address that ends alike"
    [made] = await renderer().render(notice("eva@example.com", notice="approve", language="en"))
    assert b"Content-Language: sv" in made[1]  # the organization's language


@every(("chosen", "language"), [("en", b"en"), ("sv", b"sv"), ("", b"sv")])
async def test_a_chosen_language_precedes_the_organizations(chosen: str, language: bytes) -> None:
    """The language chosen in the account comes before the organization's."""
    asked: list[str] = []

    async def of(address: str) -> str:
        asked.append(address)
        return chosen

    templates = NoticeTemplates(NoticeHead(sender="smtpguard@example.com", languages=("sv",)))
    renderer = Renderer(
        store=cast(Store, Contents()),
        in_force=lambda: cast(InForce, SimpleNamespace(registry=SimpleNamespace(digester=Digester(bytes(32), "+")))),
        templates=lambda: templates,
        clock=Clock(datetime(2026, 3, 3, 13, 5, tzinfo=UTC)),
        reporting_mta="guard.example.com",
        chosen=of,
    )
    [made] = await renderer.render(notice("Eva+x@example.com", notice="approve", language="en"))
    assert b"Content-Language: " + language in made[1]
    assert asked == ["eva@example.com"]


async def test_the_signature_precedes_the_signed_message() -> None:
    signed: list[bytes] = []

    def sign(raw: bytes) -> bytes:
        signed.append(raw)
        return b"DKIM-Signature: x\r\n"

    for intent in (notice(), dsn([ROW])):
        [made] = await renderer(sign).render(intent)
        assert made[1] == b"DKIM-Signature: x\r\n" + signed[-1]


async def test_a_non_ascii_address_needs_smtputf8() -> None:
    [made] = await renderer().render(notice("åsa@example.se"))
    assert made[0].smtputf8


async def test_a_notice_to_an_idn_passes_any_relay() -> None:
    [made] = await renderer().render(notice("anna@räksmörgås.example"))
    assert made[1].isascii()
    assert not made[0].smtputf8


async def test_a_non_ascii_dsn_has_a_seven_bit_form() -> None:
    forms = await renderer().render(dsn([ROW | {"address": "jörgen@kund.se"}], smtputf8=True))
    assert [raw.isascii() for _, raw in forms] == [False, True]
    assert [envelope.smtputf8 for envelope, _ in forms] == [True, False]
    for envelope, raw in forms:
        assert [str(r.address) for r in envelope.recipients] == ["anna@example.com"]
        assert b"Message-ID: <i-2.dsn@example.com>\r\n" in raw


async def test_an_empty_digest_is_not_sent() -> None:
    assert await renderer().render(notice(notice="digest", person="anna@example.com")) == ()


async def test_a_dsn_reports_requested_recipients() -> None:
    rows = [
        ROW,
        ROW | {"address": "d@kund.se", "notify": "NEVER"},
        ROW | {"address": "e@kund.se", "notify": "FAILURE", "reply": "", "why": "expired", "status": "4.4.7"},
    ]
    [made] = await renderer().render(
        dsn(rows, envid="e1", ret="FULL", language="en", arrived_at="2026-03-03T12:00:00Z")
    )
    envelope, raw = made
    assert [str(r.address) for r in envelope.recipients] == ["anna@example.com"]
    assert raw.count(b"Final-Recipient:") == 2
    assert b"d@kund.se" not in raw
    assert b"Status: 4.4.7\r\n" in raw
    assert b"Original-Envelope-Id: e1\r\n" in raw
    assert b"Arrival-Date: Tue, 03 Mar 2026 12:00:00 +0000\r\n" in raw
    assert RAW.raw[:] in raw
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["Subject"] == "Not delivered: Nyheter"
    assert await renderer().render(dsn(rows[1:2])) == ()
    assert await renderer().render(dsn(rows, action="relayed")) == ()


async def test_a_delay_has_its_end() -> None:
    [made] = await renderer().render(dsn([ROW], action="delayed", retry_until="2026-03-05T12:00:00Z"))
    assert b"Will-Retry-Until: Thu, 05 Mar 2026 12:00:00 +0000\r\n" in made[1]
    assert "Leveransen är försenad" in email.message_from_bytes(made[1], policy=email.policy.default)["Subject"]


async def test_a_dsn_without_content() -> None:
    for sha256 in (None, "0" * 64):
        [made] = await renderer().render(dsn([ROW], sha256=sha256))
        assert b"rfc822-headers" not in made[1]


async def test_intents_with_content_are_not_rendered() -> None:
    intent = Intent(intent_id="i", kind=IntentKind.RELEASE, reverse_path=None, recipients=())
    with pytest.raises(ValueError, match="content of its own"):
        await renderer().render(intent)
