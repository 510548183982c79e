"""Alarms about a total stop reach a person by the second relay, with real processes, while the guarded relay takes
nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import datetime, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path

from tests.faults.machine import ANNA, Machine, synced
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, until
from tests.peers.letters import mail
from tests.peers.postfix import free_port

PETER = "peter@partner.example"
MINUTES = 120  # seconds, on a slow machine


def subjects(contact: Recorder) -> list[str]:
    return [message_from_bytes(m.content, policy=default)["Subject"].partition(" (")[0] for m in contact.messages]


def guarded(tmp_path: Path, relay: Recorder, contact: Recorder) -> Machine:
    alarms = {"alarms": f"{{relay: {{host: 127.0.0.1, port: {contact.port}, tls: none}}}}"}
    built = Machine(tmp_path / "guard", relay.port, settings=alarms)
    synced(built)
    return built


def test_a_freeze_of_all_mail_and_its_end_are_reported_once(tmp_path: Path) -> None:
    """A freeze of all and its end are reported by the second relay while the guarded relay is down, once each."""
    with Recorder() as relay, Recorder() as contact:
        guard = guarded(tmp_path, relay, contact)
        with guard:
            relay.call(relay.relay.stop())
            guard.run("freeze", "--all", "--reason", "Wrong list")
            until(lambda: "Critical: all mail is frozen" in subjects(contact), "the mail; " + guard.said())
            guard.stop()
            guard.start()
            guard.run("thaw", "--all")
            until(lambda: "Over: all mail is frozen" in subjects(contact), "the end; " + guard.said())
            told = [s for s in subjects(contact) if "frozen" in s]
            assert told == ["Critical: all mail is frozen", "Over: all mail is frozen"], "once each, over a restart"
            assert all(m.recipients == ["it@example.com"] for m in contact.messages)
            relay.call(relay.relay.start())


def test_a_restored_store_is_reported_once(tmp_path: Path) -> None:
    with Recorder() as relay, Recorder() as contact:
        guard = guarded(tmp_path, relay, contact)
        with guard:
            var, copy = guard.root / "var", tmp_path / "copy.db"
            subprocess.run(["sqlite3", str(var / "guard.db"), f".backup {copy}"], check=True)
            assert Mta(guard).deliver(mail(to=PETER, message_id="one@example.com"), ANNA, PETER).code == 250
            guard.stop()
            for old in var.glob("guard.db*"):
                old.unlink()
            shutil.copy(copy, var / "guard.db")
            guard.start()
            told = "Critical: the store was put back, all mail waits"
            until(lambda: told in subjects(contact), "the mail, with no mail having come; " + guard.said())
            assert Mta(guard).once(mail(to=PETER, message_id="two@example.com"), ANNA, PETER).code == 451
            guard.run("thaw", "--all")
            over = "Over: the store was put back, all mail waits"
            until(lambda: over in subjects(contact), "the end; " + guard.said())
            assert subjects(contact).count(told) == 1


def test_a_store_that_is_down_at_the_start_is_reported_once(tmp_path: Path) -> None:
    """No part runs, so the failed start itself sends the alarm, once; the first part that runs again sends its end."""
    with Recorder() as relay, Recorder() as contact:
        guard = guarded(tmp_path, relay, contact)
        with guard:
            guard.stop()
            settings = guard.config.read_text()
            away = settings.replace("sqlite:///var/guard.db", f"postgresql://guard@127.0.0.1:{free_port()}/guard")
            guard.config.write_text(away)
            guard.run("serve", exits=75)
            assert subjects(contact) == []
            starts = guard.root / "var" / "starts.json"
            failing = json.loads(starts.read_text())
            failing["since"] = (datetime.fromisoformat(failing["since"]) - timedelta(minutes=2)).isoformat()
            starts.write_text(json.dumps(failing))
            for _ in range(2):
                guard.run("serve", exits=75)
                assert subjects(contact) == ["Critical: smtpguard does not start"], guard.said()
            guard.config.write_text(settings)
            guard.start()
            guard.stop()  # a start lasts for a minute, or until a stop
            guard.start()
            until(lambda: "Over: smtpguard does not start" in subjects(contact), "the end; " + guard.said())
            assert len(subjects(contact)) == 2
