"""``enforce: false``: all mail passes, no notice is sent about a message, and a report is sent every day."""

from __future__ import annotations

from email import message_from_bytes, policy
from pathlib import Path

import pytest

from tests.catalogue.wholeguard import EVA, RAMADAN, personal_mail, whole_guard
from tests.catalogue.wholeguard import policy as sample


@pytest.mark.parametrize(
    ("languages", "subject", "said"),
    [
        (
            ["sv", "en"],
            "E-postvakten observerar bara: 3 meddelanden skulle ha stoppats",
            "kontrollerade den 4 meddelanden. 3 av dem",
        ),
        (
            ["en"],
            "The mail guard only observes: 3 messages would have been stopped",
            "it checked 4 messages. 3 of them",
        ),
    ],
)
async def test_an_observing_day_ends_with_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, languages: list[str], subject: str, said: str
) -> None:
    organization = {"name": "Example AB", "domains": ["example.com"], "languages": languages, "hours": {"zone": "UTC"}}
    async with whole_guard(tmp_path, monkeypatch, text=sample(enforce=False, organization=organization)) as guard:
        await guard.office._reports.write()
        for n in range(3):
            await guard.passes(personal_mail(message_id=f"<{n}@example.com>", subject=f"SV: {n} \u202e<b>"))
        await guard.passes(personal_mail(to="bob@partner.example"), "bob@partner.example")
        assert await guard.holds() == []
        assert await guard.deliver() == [], "no notice about single messages"
        await guard.pass_(days=1)
        await guard.office._reports.write()
        reports = await guard.deliver()
        assert sorted(m.rcpts[0].split(b"<")[1].split(b">")[0] for m in reports) == [EVA.encode(), b"omar@example.com"]
        report = message_from_bytes(reports[0].content, policy=policy.default)
        assert report["Subject"] == subject
        assert report["Auto-Submitted"] == "auto-generated"
        text, html = (" ".join(part.get_content().split()) for part in report.iter_parts())
        assert said in text
        assert said in html
        assert "internal-to-list" in text
        assert "Ramadan greetings" in text
        assert "<b>" not in html
        assert "\u202e" not in text + html
        assert RAMADAN.encode() not in b"".join(m.rcpts[0] for m in reports)
        await guard.pass_(days=1)
        later = await guard.deliver()
        assert len(later) == 2, "a day without holds is reported too"
