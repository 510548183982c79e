"""Delivery of alarms over real SMTP and HTTP on loopback, in both languages, and by the second relay if the first
fails."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from smtpguard.admission.model import ADMISSION_SECONDS
from smtpguard.app.alarmchannels import AlarmChannels, FileMemory
from smtpguard.app.alarms import Alarms, Answers, Observer, relay_problem
from smtpguard.app.files import no_room, no_spool, spool
from smtpguard.app.guardline import TurnedAwayLog
from smtpguard.app.policies import Following
from smtpguard.app.relay import relay_target
from smtpguard.app.services import opened
from smtpguard.cli.offline import second_way
from smtpguard.config.settings import Settings, settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.database import engine
from smtpguard.locale.phrase import dump
from smtpguard.mail import reply
from smtpguard.mail.reply import Reply
from smtpguard.observe.alarms import SLOW_SECONDS, RaisedAlarm, raised
from smtpguard.observe.rounds import AlarmMessage, Phase
from smtpguard.observe.webhooks import genuine
from smtpguard.policy.hours import Hours
from smtpguard.policy.parse import Organization
from smtpguard.processes.numbers import PUT_OFF, Numbers, ProcessNumbers
from smtpguard.wire.turnedaway import TurnedAway, Why
from tests.clocks import Clock
from tests.observe.receiver import FAILS, Receiver, receiver
from tests.observe.test_conditions import ALL, NOW, WELL
from tests.scripted_relay import ScriptedRelay

FROZEN = next(raised(replace(WELL, frozen=(ALL,))))
SECRET = "a secret of the receiver"


@dataclass
class Here:
    guarded: ScriptedRelay
    other: ScriptedRelay
    hook: Receiver
    folder: Path
    language: str = "en"

    def settings(self, *, relay: bool = True, webhook: bool = False, contact: str = "it@example.com") -> Settings:
        (self.folder / "s").write_text(SECRET)
        alarms = f"relay: {{host: 127.0.0.1, port: {self.other.port}, tls: none}}, " if relay else ""
        alarms += f"webhook: {{url: '{self.hook.url}', secret_file: s}}" if webhook else ""
        text = (
            f"relay: {{host: 127.0.0.1, port: {self.guarded.port}, tls: none}}\n"
            f'notices: {{from: "Mail guard <guard@example.com>", contact: "{contact}"}}\n'
            f"alarms: {{{alarms}}}\n"
        )
        return settings_of(load_yaml(text), self.folder, {})

    async def tell(self, settings: Settings, phase: Phase = Phase.BEGINS) -> bool:
        hours = Hours(days=frozenset(range(5)), opens=time(8), closes=time(17), zone=UTC)
        organization = Organization(
            name="Example AB",
            domains=frozenset(),
            customers_here=False,
            languages=(self.language,),
            hours=hours,
        )
        ways = AlarmChannels(settings, lambda: organization)
        try:
            return await ways.send(AlarmMessage(alarm=FROZEN, phase=phase, began=ALL.at, at=NOW))
        finally:
            await ways.sender.close()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with ScriptedRelay() as guarded, ScriptedRelay() as other, receiver() as hook:
        yield Here(guarded, other, hook, tmp_path)


def read(relay: ScriptedRelay) -> tuple[str, str]:
    """Subject and text of the relay's only message."""
    (message,) = relay.messages
    assert message.mail.startswith(b"MAIL FROM:<>")
    assert message.recipients == ["it@example.com"]
    parsed = message_from_bytes(message.content, policy=default)
    assert parsed["Auto-Submitted"] == "auto-generated"
    body = parsed.get_body(("plain",))
    assert body is not None
    return parsed["Subject"], body.get_content()


async def test_an_alarm_is_mailed_by_the_second_relay(here: Here) -> None:
    assert await here.tell(here.settings())
    subject, text = read(here.other)
    assert subject.startswith("Critical: all mail is frozen (")
    for said in (
        "All mail has been frozen since",
        "By eva@example.com: Wrong list",
        "smtpguard thaw --all, by two people if freeze: thaw",
        'smtpguard incident ack "frozen"',
        "Example AB",
    ):
        assert said in " ".join(text.split()), said
    assert here.guarded.messages == []


async def test_an_alarm_is_in_swedish_if_the_organization_is(here: Here) -> None:
    here.language = "sv"
    assert await here.tell(here.settings())
    subject, text = read(here.other)
    assert subject.startswith("Kritiskt: all e-post är stoppad (")
    for said in (
        "All e-post är stoppad sedan måndag 2 mars 2026 kl.",
        "Av eva@example.com: Wrong list",
        "Att göra",
        "smtpguard thaw --all",
    ):
        assert said in " ".join(text.split()), said


async def test_the_end_of_an_alarm_is_mailed(here: Here) -> None:
    assert await here.tell(here.settings(), Phase.ENDS)
    subject, text = read(here.other)
    assert subject.startswith("Over: all mail is frozen (")
    assert "It is over" in text
    assert "thaw" not in text


async def test_without_a_working_second_relay_the_first_one_is_used(here: Here) -> None:
    assert await here.tell(here.settings(relay=False))
    read(here.guarded)
    here.guarded.messages.clear()
    here.other.on("MAIL", "450 4.3.2 Not now")
    assert await here.tell(here.settings())
    read(here.guarded)
    assert here.other.messages == []


async def test_an_alarm_that_no_relay_takes_is_logged(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    for relay in (here.guarded, here.other):
        relay.on("RCPT", "550 5.1.1 Nobody")
    assert not await here.tell(here.settings())
    assert "could not be sent" in caplog.text


async def test_a_webhook_gets_the_alarm_without_personal_data(here: Here) -> None:
    assert await here.tell(here.settings(webhook=True))
    (asked,) = here.hook.asked
    assert genuine(SECRET.encode(), asked.headers["smtpguard-signature"], asked.body, int(NOW.timestamp()))
    data = asked.json["data"]
    assert (asked.json["type"], data["alarm"], data["phase"], data["severity"]) == (
        "alarm", "frozen", "begins", "critical",
    )  # fmt: skip
    assert data["says"].startswith("All mail has been frozen")
    assert b"eva" not in asked.body
    assert b"Wrong list" not in asked.body


async def test_delivery_by_mail_or_webhook_is_enough(here: Here) -> None:
    for relay in (here.guarded, here.other):
        relay.on("MAIL", "450 4.3.2 Not now")
    assert await here.tell(here.settings(webhook=True))
    here.hook.usual = FAILS
    assert not await here.tell(here.settings(webhook=True))


async def test_a_telephone_contact_gets_no_mail(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    """If the contact is a telephone number, no mail is sent, and the alarm is logged."""
    assert await here.tell(here.settings(contact="+46 8 123 456"))
    assert here.guarded.messages == here.other.messages == []
    assert "alarm frozen: All mail has been frozen" in caplog.text


async def test_a_quiet_alarm_is_not_sent(here: Here) -> None:
    settings = here.settings()
    quiet = settings.model_copy(update={"alarms": settings.alarms.model_copy(update={"quiet": ["frozen"]})})
    assert await here.tell(quiet)
    assert here.other.messages == []


def test_missing_alarm_settings_are_named(tmp_path: Path) -> None:
    def missing(text: str) -> str:
        return second_way(settings_of(load_yaml(text), tmp_path, {}))[0]

    hook = "webhook: {url: 'https://pager.example.com/x', secret_file: s}"
    mails = 'notices: {contact: "it@example.com"}\n'
    assert missing(mails + "alarms: {relay: {host: other.example.com}}\n") == ""
    assert missing(f"alarms: {{{hook}}}\n") == ""
    assert missing(mails).startswith("no one receives alarms while the relay cannot be used")
    assert missing(mails + "alarms: {relay: {host: 127.0.0.1, port: 10026}}\n").startswith(
        "no one receives alarms while"
    )
    assert missing('notices: {contact: "+46 8 1"}\nalarms: {relay: {host: other.example.com}}\n').startswith(
        "no one receives alarms: notices: contact is not a mailbox"
    )


# -- the answer of the relay


async def test_the_relay_is_probed(here: Here) -> None:
    settings = here.settings()
    target = relay_target(settings)
    assert await relay_problem(target) == ""
    assert target.reachability is not None
    assert target.reachability.found is not None
    assert target.reachability.found[1] is True
    here.guarded.on("EHLO", "421 4.3.2 Going down")
    assert "421" in await relay_problem(target)
    assert target.reachability.found[1] is False
    here.guarded.forget()
    await here.guarded.stop()
    assert "connecting to 127.0.0.1" in await relay_problem(target)


# -- the share of deferred mail


def test_recent_answers_are_computed_across_counter_resets() -> None:
    answers = Answers()
    for at, taken, deferred in ((0, 100, 7), (5, 103, 7), (10, 103, 9), (15, 2, 0), (20, 2, 3)):
        answers.add(at, {"answered taken": taken, "answered deferred": deferred, "undecided store": 99})
    assert answers.recent == (3 + 2 + 3, 2 + 3, 0)
    answers.add(612, {"answered taken": 2, "answered deferred": 4})
    assert answers.recent == (3 + 1, 3 + 1, 0)


def test_slow_verdicts_are_counted_from_their_bound_on() -> None:
    answers, intake = Answers(), Counter[str]()
    answers.add(0, {})
    for seconds in (0.01, SLOW_SECONDS, SLOW_SECONDS + 0.001, 5, 1000):
        intake[f"admission {bisect_left(ADMISSION_SECONDS, seconds)}"] += 1
        answers.add(1, intake)  # its verdict is there, and the relay has not answered
        intake["answered taken"] += 1
        answers.add(5, intake)
    assert answers.recent == (5, 0, 3)


def test_the_share_of_4xx_includes_messages_without_a_verdict() -> None:
    """Each message counts once: answers of the guard are not counted again, and failures of the client or a recipient
    do not count."""
    turned = TurnedAwayLog()

    def away(why: Why, answer: Reply | None, *, recipients: int = 1, refused: int | None = None) -> None:
        turned(TurnedAway(why=why, reply=answer, client="192.0.2.1", listener="smtp", recipients=recipients,
                          refused=recipients if refused is None else refused))  # fmt: skip

    greylisted = Reply.of(450, "4.2.0", "Greylisted")
    for why in (Why.RELAY_DOWN, Why.RELAY_SLOW, Why.RELAY_BUSY, Why.RELAY_LOST, Why.FAILED, Why.STOPPING):
        away(why, reply.RELAY_LOST)
    away(Why.CONNECTIONS, reply.SHUTTING_DOWN, recipients=0)
    away(Why.RECIPIENT_REFUSED, greylisted, recipients=2)
    away(Why.UNDECIDED, reply.RECALLED)
    counted = 9
    away(Why.UNDECIDED, reply.NOT_RECORDED)
    away(Why.RECIPIENT_REFUSED, greylisted, recipients=2, refused=1)
    away(Why.RECIPIENT_REFUSED, Reply.of(550, "5.1.1", "Nobody"))
    away(Why.TOO_SLOW, reply.TIMED_OUT)
    away(Why.GAVE_UP, None)
    numbers = Numbers()
    numbers.heard("proxy", ProcessNumbers(counts={**turned.counts, "answered taken": 3, "answered deferred": 1}))
    numbers.refused["smtp"] = 2
    numbers.without_descriptor["smtp"] = 1
    answers = Answers()
    answers.add(0, {})
    answers.add(5, numbers.with_refusals)
    assert answers.recent == (4 + counted + 3, 1 + counted + 3, 0)
    assert PUT_OFF not in Numbers().told({}, [], {}, {})["counts"]


# -- the memory of a host


async def test_the_folder_keeps_alarms_across_processes(tmp_path: Path) -> None:
    known = RaisedAlarm(key="relay-away", began=datetime(2026, 3, 2, 9, 0, 0, 5, tzinfo=UTC))
    claims = [replace(known, claimed_until=NOW + timedelta(seconds=n)) for n in range(8)]
    won = await asyncio.gather(*(FileMemory(tmp_path).swap(None, claim) for claim in claims))
    assert won.count(True) == 1
    claimed = claims[won.index(True)]
    assert await FileMemory(tmp_path).known() == {"relay-away": claimed}
    assert not await FileMemory(tmp_path).swap(known, None)
    with (tmp_path / "alarms.json.lock").open("w") as other:  # another process holds the lock, and may be stopped
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not await FileMemory(tmp_path).swap(claimed, None)
    assert await FileMemory(tmp_path).swap(claimed, None)
    assert await FileMemory(tmp_path).known() == {}


async def test_alarms_of_one_round_are_all_remembered(tmp_path: Path) -> None:
    """That of another thread is no lock of another process: an alarm would be sent again a minute later."""
    memory, claims = FileMemory(tmp_path), [RaisedAlarm(key=f"certificate-ends {n}", began=NOW) for n in range(20)]
    assert all(await asyncio.gather(*(memory.swap(None, claim) for claim in claims)))
    assert all(await asyncio.gather(*(memory.swap(claim, replace(claim, told=NOW)) for claim in claims)))


async def test_reading_the_memory_creates_no_file(tmp_path: Path) -> None:
    """Reading the memory creates no file: one of root's would be unreadable for the service."""
    assert await FileMemory(tmp_path).known() == {}
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


async def test_an_unwritable_folder_does_not_repeat_the_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = FileMemory(tmp_path / "gone")
    known = RaisedAlarm(key="relay-away", began=NOW, told=NOW)
    assert await memory.swap(None, known)
    assert await memory.known() == {"relay-away": known}
    assert await memory.swap(known, known)
    assert len(caplog.messages) == 1


async def test_a_database_that_can_only_be_read_is_away(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0)
    settings = settings_of(load_yaml('store: {url: "sqlite:///guard.db"}\n'), tmp_path, {})
    async with opened(settings, migrate=True) as (store, digester):
        alarms = Alarms(settings, clock)
        looking = Observer(settings, store, Following(store, settings, digester, clock), clock)
        with closing(sqlite3.connect(tmp_path / "guard.db", isolation_level=None)) as other:
            for statement, said in (
                ("BEGIN", ""),
                ("COMMIT", ""),
                ("BEGIN IMMEDIATE", "is locked by another"),
                ("COMMIT", ""),
            ):
                other.execute(statement)
                clock.pass_(minutes=1)
                await alarms._look_once(looking)
                found = alarms.seen().store
                assert found is not None
                assert said in found if said else not found, statement
                assert alarms.said().store == dump(found)
    why, over = (line for line in caplog.messages if line.startswith("alarms: "))
    assert why.startswith(f"alarms: looking at the store: {tmp_path / 'guard.db'} is locked by another program")
    assert over == "alarms: looking at the store: over, after 60 s"


def test_a_full_disk_of_the_state_folder_is_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own, unless it is the disk of the database, of which another alarm tells."""
    full = {tmp_path / "state"}

    why = 0

    def refused(**_: object) -> None:
        raise OSError(why, os.strerror(why))

    def room(folder: Path) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 100, 0, 0 if folder in full else 100, 9, 9, 9, 0, 255))

    monkeypatch.setattr("smtpguard.app.files.os.statvfs", room)
    for url, said in ((f"sqlite:///{tmp_path}/guard.db", "state"), ("postgresql://db/guard", "state")):
        settings = settings_of(load_yaml(f"state: state\nstore: {{url: '{url}'}}\n"), tmp_path, {})
        assert no_spool(settings) == f"no space left in {tmp_path / said}"
        assert [alarm.key for alarm in raised(replace(WELL, spool=Alarms(settings, Clock(NOW)).seen().spool))] == [
            "state-full"
        ]
    full.add(tmp_path)
    assert (
        no_spool(
            settings_of(load_yaml(f"state: state\nstore: {{url: 'sqlite:///{tmp_path}/guard.db'}}\n"), tmp_path, {})
        )
        == ""
    )
    full.clear()
    assert no_spool(settings) == f"{spool(settings)}: {os.strerror(errno.ENOENT)}", "somebody removed it"
    spool(settings).mkdir(parents=True)
    assert no_spool(settings) == ""
    with monkeypatch.context() as patched:
        patched.setattr("smtpguard.config.statefiles.tempfile.TemporaryFile", refused)
        for number in (errno.EDQUOT, errno.EROFS, errno.EACCES):
            why = number
            assert no_spool(settings) == f"{spool(settings)}: {os.strerror(number)}"
        patched.setattr("smtpguard.app.files.os.access", lambda path, mode: False)
        assert no_spool(settings) == "", "another user may not write there"
    full.add(tmp_path / "a folder")
    encoded = f"store: {{url: 'sqlite:///{tmp_path}/a%20folder/guard.db'}}\n"
    said = f"no space left for {tmp_path}/a folder/guard.db. Make room on its disk"
    assert no_room(settings_of(load_yaml(encoded), tmp_path, {})) == said


@pytest.mark.parametrize("there", [False, True])
async def test_what_a_full_disk_does_not_take_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Else an alarm would be sent again in every round."""
    memory, other = FileMemory(tmp_path), RaisedAlarm(key="frozen", began=NOW, told=NOW)
    if there:
        assert await memory.swap(None, other)
    known = RaisedAlarm(key="state-full", began=NOW)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("smtpguard.app.alarmchannels.replace_file", full)
        assert await memory.swap(None, known)
        assert await memory.swap(known, replace(known, told=NOW))
        assert (await memory.known())["state-full"].told == NOW
    assert await memory.swap(replace(known, told=NOW), None)
    assert await FileMemory(tmp_path).known() == ({"frozen": other} if there else {})
