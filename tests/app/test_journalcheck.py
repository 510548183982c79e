"""Findings from the journal: a tool that sends mailings without a declared stream, and people at a listener that proves
no sender."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.app import storestatus
from smtpguard.app.files import read_policy
from smtpguard.app.storestatus import store_findings
from tests.catalogue.test_first_contacts import words
from tests.catalogue.wholeguard import READERS, WholeGuard, personal_mail, policy, whole_guard

FRESH = policy(fresh=True)
NEWS = "Hej! Nu är vårens blommor här, och allt annat som en trädgård behöver: fröer, lökar, rosor och redskap.\r\n"


async def found(guard: WholeGuard, about: str) -> list[str]:
    return [f.text for f in await store_findings(guard.settings, read_policy(guard.settings)) if f.about == about]


async def news(
    guard: WholeGuard, sender: str, people: tuple[str, ...], *, source: str = "127.0.0.1", text: str = NEWS
) -> None:
    for n, customer in enumerate(people):
        head = "List-Unsubscribe: <https://news.example.com/u/1>\r\nPrecedence: bulk\r\n"
        content = personal_mail(
            sender=sender,
            to=customer,
            subject="Våren".replace("å", "a"),
            head=head,
            body=text,
            message_id=f"<{sender}{n}>",
        )
        await guard.send(content, customer, sender=sender, source=source)


@pytest.mark.parametrize("origin", ["", "{clients: [127.0.0.5]}", "{clients: [127.0.0.9]}", "{dkim: news.example.com}"])
async def test_a_tool_without_a_stream_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    """A tool is reported unless a declared stream may cover it. The journal has no signatures, so any DKIM origin may."""
    stream = f"streams:\n  news: {{from: news@example.com, origin: {origin}}}\n" if origin else "streams:\n"
    async with whole_guard(tmp_path, monkeypatch, text=FRESH.replace("streams:\n", stream, 1)) as guard:
        await news(guard, "news@example.com", READERS[:19], source="127.0.0.5")
        assert await found(guard, "tool") == []
        await news(guard, "news@example.com", READERS[19:21], source="127.0.0.5")
        await news(guard, "anna@example.com", READERS[30:40], text=words(40, "anna"))
        said = await found(guard, "tool")
        declared = origin in ("{clients: [127.0.0.5]}", "{dkim: news.example.com}")
        assert [text.split(" and the policy")[0] for text in said] == (
            [] if declared else ["news@example.com at 127.0.0.5 sent 21 messages of mailings to customers in 30 days,"]
        )
        await guard.pass_(days=31)
        assert await found(guard, "tool") == []


@pytest.mark.parametrize("listen", ["", ", senders_verified: true"])
async def test_people_at_a_listener_without_proof_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: str
) -> None:
    async with whole_guard(tmp_path, monkeypatch, listen=listen, text=FRESH) as guard:
        for n in range(4):
            await guard.passes(
                personal_mail(
                    sender="anna@example.com", to=READERS[n], head="", body=words(30, n), message_id=f"<{n}@x>"
                ),
                READERS[n],
            )
        assert await found(guard, "listener") == []
        await guard.passes(
            personal_mail(sender="bo@example.com", to=READERS[9], head="", body=words(30, 9)), READERS[9]
        )
        said = await found(guard, "listener")
        assert [text.split(" in 30 days")[0] for text in said] == (
            [] if listen else ["2 people wrote 5 personal messages to customers through listener 127.0.0.1:10025"]
        )
        assert all("rule unproven-to-customers" in text for text in said)


async def test_only_a_bounded_number_of_entries_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with whole_guard(tmp_path, monkeypatch, text=FRESH) as guard:
        await news(guard, "news@example.com", READERS[:21], source="127.0.0.5")
        assert await found(guard, "tool") != []
        monkeypatch.setattr(storestatus, "MOST", 20)
        assert await found(guard, "tool") == []
