"""Signed links: only what was signed is read."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.holds.links import Link, Links
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.notices.notice import SAMPLE, NoticeHead, NoticeTemplates
from smtpguard.notices.render import MOST_LINK, Renderer
from smtpguard.outbox.model import Intent, IntentKind
from tests.guard.house import RAMADAN, FakePassage, House, house

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LINKS = Links(b"k" * 32)
LINK = Link(hold_id="T000000000000001", address="anna@example.com", until=NOW + timedelta(days=1))


@settings(max_examples=100, deadline=None)
@given(
    hold_id=st.text("0123456789ABCDEF", min_size=1, max_size=16),
    address=st.text(min_size=1, max_size=80).filter(lambda t: t.isprintable()),
)
def test_a_signed_link_is_read(hold_id: str, address: str) -> None:
    link = Link(hold_id=hold_id, address=address, until=NOW + timedelta(days=1))
    text = LINKS.sign(link)
    assert LINKS.read(text, NOW) == link
    assert all(c.isalnum() or c in "-_" for c in text)


def test_a_link_expires() -> None:
    assert LINKS.read(LINKS.sign(LINK), LINK.until - timedelta(seconds=1)) == LINK
    assert LINKS.read(LINKS.sign(LINK), LINK.until) is None


def test_a_link_has_one_purpose() -> None:
    assert LINKS.read(LINKS.sign(LINK, "something else"), NOW) is None


def test_a_link_of_another_installation_is_refused() -> None:
    assert Links(b"j" * 32).read(LINKS.sign(LINK), NOW) is None


def test_one_changed_character_invalidates_a_link() -> None:
    text = LINKS.sign(LINK)
    for n, letter in enumerate(text):
        other = text[:n] + ("A" if letter != "A" else "B") + text[n + 1 :]
        assert LINKS.read(other, NOW) is None, n


@pytest.mark.parametrize(
    "text", ["", "A", "====", "å" * 40, "A" * 5000, LINKS.sign(LINK) + "=", LINKS.sign(LINK)[:-4], "A" * 22]
)
def test_other_text_is_no_link(text: str) -> None:
    assert LINKS.read(text, NOW) is None


@pytest.mark.parametrize(
    ("kind", "linked"), [("held", True), ("question", True), ("approve", False), ("decided", False)]
)
async def test_the_writers_notices_have_a_link(tmp_path: Path, kind: str, linked: bool) -> None:
    async with house(tmp_path) as home:
        raw = await rendered(home, "Anna+x@Example.com", kind)
    found = [line for line in raw.splitlines() if "https://guard.example.com/mine/" in line]
    assert bool(found) is linked
    if linked:
        text = found[0].split("/mine/")[1].split('"')[0].strip()
        assert LINKS.read(text, datetime(2026, 1, 8, tzinfo=UTC)) == Link(
            hold_id="T000000000000001", address="anna@example.com", until=datetime(2026, 1, 9, tzinfo=UTC)
        )


async def test_with_a_too_long_address_the_notice_has_the_sign_in_page(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        raw = await rendered(home, f"{'a' * 60}@{'.'.join(['b' * 60] * 3)}.example.com", "held")
    assert "/mine/" not in raw
    assert "https://guard.example.com/held/T000000000000001" in raw
    assert MOST_LINK == 300


async def test_only_the_writers_notices_have_a_link(home: House) -> None:
    for kind in ("decided", "expired"):
        assert "/mine/" in await rendered(home, "anna@example.com", kind, writer=True, asked=False)
        assert "/mine/" not in await rendered(home, "eva@example.com", kind, writer=False, asked=False)
    await home.intake()(home.transaction(RAMADAN), FakePassage())
    window = {"since": "2020-01-01T00:00:00Z", "until": "2036-01-01T00:00:01Z", "person": "anna@example.com"}
    text = await rendered(home, "anna@example.com", "digest", **window, role="sender", hold_id=None)
    assert text.count("https://guard.example.com/mine/") == 1
    other = await rendered(
        home, "eva@example.com", "digest", **window | {"person": "eva@example.com"}, role="approver", hold_id=None
    )
    assert "/mine/" not in other
    assert "https://guard.example.com/held/T" in other


async def rendered(home: House, to: str, kind: str, **more: Any) -> str:
    templates = NoticeTemplates(
        NoticeHead(sender="smtpguard@example.com", languages=("en",), console_url="https://guard.example.com")
    )
    renderer = Renderer(
        ledger=home.store,
        in_force=home.current,
        templates=lambda: templates,
        clock=home.clock,
        reporting_mta="guard.example.com",
        links=LINKS,
    )
    data = {**SAMPLE, "notice": kind, "hold_id": "T000000000000001", "said_at": "2026-01-01T00:00:00Z", **more}
    intent = Intent(
        intent_id="i-1", kind=IntentKind.NOTICE, reverse_path=None, data=data,
        recipients=(Recipient(address=Address.parse(to)),),
    )  # fmt: skip
    [made] = await renderer.render(intent)
    message = email.message_from_bytes(made[1], policy=email.policy.default)
    text = message.get_body(("plain",))
    assert text is not None
    return str(text.get_content())
