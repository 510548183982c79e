"""Metrics of real processes that play the whole demo. They agree with the journal and contain no personal data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from smtpguard.database.engine import Database
from smtpguard.demo.script import KALLE, LOTTA, ORDINARY, RAMADAN, Script, play
from smtpguard.demo.stage import HOME, PEOPLE, DemoMessage
from smtpguard.observe.metrics import FAMILIES
from tests.demo.forked import Forked
from tests.peers.chain import until
from tests.peers.postfix import free_port

pytestmark = pytest.mark.xdist_group("metrics")


class Watched(Forked):
    """A guard that serves metrics."""

    metrics_port = 0

    def _write_files(self) -> None:
        super()._write_files()
        self.metrics_port = free_port()
        with self.config.open("a") as file:
            file.write(f"metrics: {{port: {self.metrics_port}}}\n")

    def scrape(self, accept: str = "*/*") -> str:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.metrics_port}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(asked, timeout=120) as answer:
            text: str = answer.read().decode()
            return text

    def metrics(self) -> dict[tuple[str, ...], float]:
        """(name, label values...) -> value."""
        return values(self.scrape())

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.command("--json", "audit", "export").stdout.splitlines()]

    def counted(self) -> tuple[str, list[dict[str, Any]]] | None:
        """The metrics and the journal, if the metrics include all of it."""
        text, journal = self.scrape(), self.journal()
        told = values(text)
        whole = told[("smtpguard_journal_entry",)] == journal[-1]["seq"]
        return (text, journal) if whole and not told[("smtpguard_journal_unread_entries",)] else None


def values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parsed(text)
        for sample in family.samples
    }


@dataclass(frozen=True)
class Played:
    """``text``: the metrics. ``entries``: what they counted of the journal."""

    guard: Watched
    text: str
    entries: list[dict[str, Any]]


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    with tempfile.TemporaryDirectory(prefix="smtpguard-metrics-") as folder:
        guard = Watched(Path(folder))
        try:
            guard.start()
            assert guard.until(lambda: guard.metrics().get(("smtpguard_store_up",)) == 1)
            text, journal = until(guard.counted, "the metrics to include what a start journals")
            counted = sum(n for k, n in values(text).items() if k[0] == "smtpguard_events_total")
            before = journal[-1]["seq"] - counted  # entries, before the metrics began to count
            wrong = [result.wrong for result in play(guard, Script(guard).scenes()) if result.wrong]
            assert wrong == []
            text, journal = until(guard.counted, "the metrics to include the journal")
            yield Played(guard, text, [entry for entry in journal if entry["seq"] > before])
        finally:
            guard.stop()


def test_metrics_agree_with_the_journal(played: Played) -> None:
    told = values(played.text)
    entries = played.entries
    kinds = Counter(entry["kind"] for entry in entries)
    assert kinds["verdict"] > 20
    found = {kind: told[("smtpguard_events_total", kind)] for kind in kinds}
    assert found == {kind: float(n) for kind, n in kinds.items()}
    actions = Counter(entry["data"]["action"] for entry in entries if entry["kind"] == "verdict")
    assert {"relay", "hold", "reject", "defer"} >= actions.keys() >= {"relay", "hold", "reject"}
    assert {action: told[("smtpguard_verdicts_total", action)] for action in actions} == {
        k: float(n) for k, n in actions.items()
    }
    outcomes = Counter(entry["data"]["outcome"] for entry in entries if entry["kind"] == "outcome")
    assert {outcome: told[("smtpguard_outcomes_total", outcome)] for outcome in outcomes} == {
        k: float(n) for k, n in outcomes.items()
    }
    assert told[("smtpguard_outcome_seconds_count",)] == sum(outcomes.values())
    reached = {entry["id"]: entry["data"]["counts"]["customers"] for entry in entries
               if entry["kind"] == "verdict" and entry["data"]["action"] == "relay"}  # fmt: skip
    relayed = [entry["id"] for entry in entries if entry["kind"] == "outcome" and entry["data"]["outcome"] == "relayed"]
    assert told[("smtpguard_customers_reached_total",)] == sum(reached[id] for id in relayed) > 0


def test_metrics_agree_with_held_list(played: Played) -> None:
    told = values(played.text)
    rows = played.guard.rows("held", "list")
    assert told[("smtpguard_holds_waiting",)] == sum(row["state"] == "waiting" for row in rows)
    assert told[("smtpguard_list_people", "ramadan-greetings")] == len(played.guard.members)
    assert told[("smtpguard_part_processes", "proxy")] == 1
    assert told[("smtpguard_relay_up",)] in (0, 1), "the relay is down for a while at the end"
    assert told[("smtpguard_rule_messages_total", "hold", "internal-to-list")] >= 1


def test_every_family_is_scraped(played: Played) -> None:
    names = {family.name for family in parsed(played.text)}
    expected = {
        family.name.removesuffix("_total") if family.kind.value == "counter" else family.name for family in FAMILIES
    }
    without = ("webhooks_given_up", "webhook_lag_entries", "webhook_lag_seconds", "checkpoints_refused_seconds", "certificate_usable",
               "certificate_end_timestamp_seconds")  # fmt: skip
    there = expected - {f"smtpguard_{name}" for name in without}
    assert names == there, "no webhook, no receiver of checkpoints and no certificate is configured"


def test_metrics_name_no_person(played: Played) -> None:
    """Metrics contain no address of a sender, recipient, member or approver, no word of a message, and no id of a hold."""
    for text in (played.text, played.guard.scrape("application/openmetrics-text; version=1.0.0")):
        assert "@" not in text
        samples = [line for line in text.splitlines() if not line.startswith("#")]
        people = (*PEOPLE, RAMADAN, KALLE, *played.guard.members, *played.guard.others)
        words = [
            "Dieten",
            "mubarak",
            HOME,
            *people,
            *(local for one in people if "." in (local := one.partition("@")[0])),
        ]
        words += [row["id"] for row in played.guard.rows("held", "list")]
        assert [word for word in set(words) if any(word in line for line in samples)] == []


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_has_no_complaints(played: Played) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=played.text, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_mail_that_cannot_be_recorded_is_counted(played: Played) -> None:
    guard = played.guard
    before = guard.metrics()[("smtpguard_undecided_total", "store")]
    letter = DemoMessage(subject="Drawings", sender=LOTTA, to="peter@partner.example", body=ORDINARY,
                    recipients=("peter@partner.example",))  # fmt: skip
    database = Database(f"sqlite:///{guard.folder}/smtpguard.db")
    try:
        with database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE entry RENAME TO away")
        try:
            assert guard.until(lambda: guard.send(letter).code == 451), "once its front cannot be moved"
            assert guard.until(lambda: guard.metrics()[("smtpguard_undecided_total", "store")] == before + 1)
        finally:
            with database.write() as connection:
                connection.exec_driver_sql("ALTER TABLE away RENAME TO entry")
    finally:
        database.close()
    assert guard.until(lambda: guard.send(letter).code == 250)
    assert guard.until(lambda: guard.metrics()[("smtpguard_relay_up",)] == 1)


def test_each_parts_death_is_counted(played: Played) -> None:
    guard = played.guard
    deaths = {part: guard.metrics()[("smtpguard_part_deaths_total", part)] for part in ("proxy", "alarms")}
    for part in ("proxy", "alarms"):
        rows = [json.loads(line) for line in (guard.folder / "log").read_text().splitlines() if line.startswith("{")]
        os.kill([row["pid"] for row in rows if row["event"] == "ready" and row["part"] == part][-1], signal.SIGKILL)

        def counted(part: str = part) -> bool:
            try:
                told = guard.metrics()
            except OSError:  # while the part that serves them restarts
                return False
            ready = told.get(("smtpguard_part_processes", part)) == 1
            return ready and told[("smtpguard_part_deaths_total", part)] == deaths[part] + 1

        assert guard.until(counted)
