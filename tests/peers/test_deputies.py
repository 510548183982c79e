"""Deputies and undo with real servers: swaks, Postfix, the guard, its notices, Postfix, the recipient."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from tests.console.holding import ANNA, EVA
from tests.peers.chain import Chain, until
from tests.peers.postfix import missing

OMAR = "omar@example.com"
POLICY = """\
version: 1
organization: {{name: Example AB, domains: [example.com], languages: [en]}}
groups: {{communications: [eva@example.com]}}
people: {{eva: {{away: {away}, deputy: omar@example.com}}}}
approvals: {{from: [communications]}}
lists:
  friends: {{title: Friends, addresses: [friends@lists.example.com], members: {{csv: friends.csv, column: email}}, writers: [anna@example.com]}}
rules:
  - {{id: to-lists, description: Nothing goes to a list unseen, when: {{recipients.list_addresses: any}}, then: hold}}
"""


@pytest.fixture(scope="module")
def chain(certified: Path) -> Iterator[Chain]:
    """Eva is away, and Omar is her deputy. An approval takes effect an hour later."""
    if why := missing():
        pytest.skip(why)
    today = datetime.now(UTC).date()
    away = f"{today - timedelta(days=3)}..{today + timedelta(days=3)}"
    with Chain(certified, policy=POLICY.format(away=away), settings={"hold": "{release_delay: 1h}"}) as made:
        made.guard.run("lists", "sync")
        yield made


def held(chain: Chain, subject: str) -> dict[str, Any]:
    words = ["swaks", "--server", f"127.0.0.1:{chain.client.port}", "--from", ANNA, "--to", "friends@lists.example.com",
             "--header", f"Subject: {subject}", "--header", f"Message-ID: <{subject}@example.com>", "--body", f"Dear friends, {subject}."]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    [hold] = until(lambda: chain.guard.held(subject), "the hold")
    return dict(hold)


def asked(chain: Chain, subject: str) -> set[str]:
    """Who got the notice that asks for a decision."""
    parsed = (message_from_bytes(one.content, policy=default) for one in chain.recorder.messages)
    return {str(m["To"]) for m in parsed if subject in str(m["Subject"]) and str(m["Subject"]).startswith("Held")}


def test_the_deputy_is_asked_and_decides(chain: Chain) -> None:
    hold = held(chain, "lunch")
    until(lambda: any(OMAR in to for to in asked(chain, "lunch")), "the notice to the deputy")
    assert not any(EVA in to for to in asked(chain, "lunch"))
    refused = chain.guard.run("held", "approve", hold["id"], "--as", "sten@example.com", exits=1)
    assert "sten@example.com" in refused.stderr
    chain.guard.run("held", "reject", hold["id"], "--as", OMAR, "--comment", "Not to customers")
    assert chain.guard.held("lunch")[0]["state"] == "rejected"
    assert chain.recorder.with_id("lunch@example.com") == []


def test_an_undone_approval_sends_nothing(chain: Chain) -> None:
    hold = held(chain, "news")
    chain.guard.run("held", "approve", hold["id"], "--as", OMAR)
    [waiting] = chain.guard.held("news")
    assert waiting["state"] == "waiting"
    assert waiting["release_at"]
    chain.guard.run("held", "unvote", hold["id"], "--as", OMAR)
    [again] = chain.guard.held("news")
    assert again["state"] == "waiting"
    assert not again["release_at"]
    assert chain.recorder.with_id("news@example.com") == []
    chain.guard.run("audit", "verify")
