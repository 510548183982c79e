"""Repeated failed starts: one alarm, whatever the state of its file, and again each day."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from smtpguard.app import start
from smtpguard.app.alarmchannels import FileMemory
from smtpguard.app.alarms import Alarms
from smtpguard.app.start import FILE, OCTETS, failing_starts, note_failed_start, note_lasting_start
from smtpguard.app.status import status
from smtpguard.config.settings import Settings, settings_of
from smtpguard.config.yaml import load_yaml
from tests.clocks import Clock
from tests.guard.house import DOCUMENTS
from tests.scripted_relay import ScriptedRelay

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
WHY = "the store: it does not answer"


@dataclass
class Here:
    relay: ScriptedRelay
    settings: Settings
    now: datetime = NOW

    async def fail(self, **passes: float) -> None:
        self.now += timedelta(**passes)
        await note_failed_start(self.settings, WHY, self.now)

    @property
    def alarms(self) -> list[str]:
        return [message_from_bytes(m.content, policy=default)["Subject"] for m in self.relay.messages]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with ScriptedRelay() as relay:
        text = (
            "relay: {host: 127.0.0.1, port: 1, tls: none}\n"
            'notices: {from: "Mail guard <guard@example.com>", contact: "it@example.com"}\n'
            f"alarms: {{relay: {{host: 127.0.0.1, port: {relay.port}, tls: none}}}}\n"
            "state: state\n"
        )
        (tmp_path / "state").mkdir()
        yield Here(relay, settings_of(load_yaml(text), tmp_path, {}))


async def test_the_alarm_is_in_the_language_of_the_organization(here: Here) -> None:
    (here.settings.policy.parent / "vocabularies").mkdir()
    for name, text in DOCUMENTS.items():
        (here.settings.policy.parent / name).write_bytes(text)
    await note_failed_start(here.settings, WHY, NOW, last=True)
    (subject,) = here.alarms
    assert subject.startswith("Kritiskt: smtpguard startar inte ("), subject


async def test_an_alarm_is_sent_after_a_minute_and_every_quarter_hour(here: Here) -> None:
    for _ in range(12):
        await here.fail(seconds=5)
    assert here.alarms == [], "the first was 55 s ago"
    for _ in range(50):
        await here.fail(seconds=5)
    (subject,) = here.alarms
    assert subject.startswith("Critical: smtpguard does not start (")
    (message,) = here.relay.messages
    assert WHY in message.content.decode()
    assert list(await FileMemory(here.settings.state).known()) == ["start-fails"], "whoever reports the end knows of it"
    for _ in range(24 * 12):
        await here.fail(minutes=5)
    assert len(here.alarms) == 1 + 24 * 4, "again every quarter of an hour, until it is acknowledged"


async def test_failed_starts_by_hand_raise_no_alarm(here: Here) -> None:
    for _ in range(5):
        await here.fail(hours=1)
    assert here.alarms == []


async def test_a_successful_start_resets_the_alarm(here: Here) -> None:
    await here.fail()
    note_lasting_start(here.settings)
    assert failing_starts(here.settings.state, here.now) is None
    await here.fail(seconds=70)
    assert here.alarms == []
    await here.fail(seconds=70)
    assert len(here.alarms) == 1


async def test_a_failure_without_a_retry_alarms_at_once(here: Here) -> None:
    await note_failed_start(here.settings, WHY, NOW, last=True)
    await note_failed_start(here.settings, WHY, NOW + timedelta(seconds=5), last=True)
    assert len(here.alarms) == 1


async def test_an_alarm_that_was_not_delivered_is_sent_at_the_next_failure(here: Here) -> None:
    here.relay.on("MAIL", "450 4.3.2 Not now", times=1)
    for _ in range(3):
        await here.fail(seconds=70)
    assert len(here.alarms) == 1


async def test_if_another_process_sends_alarms_none_is_sent(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "has_alarms_part", lambda running: True)
    for _ in range(3):
        await here.fail(seconds=70)
    assert here.alarms == []


async def test_its_file_has_a_constant_size_so_that_a_full_disk_takes_it(here: Here) -> None:
    note_lasting_start(here.settings)
    file = here.settings.state / FILE
    before = file.stat()
    await here.fail()
    after = file.stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size) == (after.st_ino, OCTETS)
    assert json.loads(file.read_text())["why"] == WHY


async def test_without_its_file_no_alarm_is_sent_which_is_logged(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    (here.settings.state / FILE).mkdir()
    for _ in range(3):
        await here.fail(seconds=70)
    assert here.alarms == []
    await note_failed_start(here.settings, WHY, here.now, last=True)
    assert "the alarm about failed starts is not sent" in caplog.text


async def test_an_unreadable_file_counts_as_no_failure_yet(here: Here) -> None:
    for text in ("", "[]", "{", '{"since": 1}', '{"since": "x", "last": "y", "why": "", "told": null}'):
        (here.settings.state / FILE).write_text(text)
        assert failing_starts(here.settings.state, NOW) is None
        await note_failed_start(here.settings, WHY, NOW)
        assert failing_starts(here.settings.state, NOW) is not None


async def test_a_start_that_has_not_lasted_yet_does_not_end_the_alarm(here: Here) -> None:
    """Else one whose parts die again and again would be reported at each start, and as over before it."""
    alarms = Alarms(here.settings, Clock(NOW))
    assert alarms.seen().starts == ""
    await here.fail()
    assert alarms.seen().starts is None
    note_lasting_start(here.settings)
    assert alarms.seen().starts == ""


def test_status_shows_failed_starts(here: Here) -> None:
    asyncio.run(note_failed_start(here.settings, WHY, datetime.now(UTC)))
    found = asyncio.run(status(here.settings))
    assert ("start-fails", WHY) in [(a.condition.name, a.found.words.get("said")) for a, _ in found.alarms]
