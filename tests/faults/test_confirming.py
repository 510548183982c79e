"""kill -9 around each commit of a question to the writer: it is asked once, and the message is sent once."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from smtpguard.holds.model import State
from smtpguard.journal.event import Kind
from tests.faults.machine import ANNA, Machine, fired, machine
from tests.faults.mta import Mta
from tests.peers.chain import Recorder

NEWS = "news@lists.example.com"
POLICY = """\
version: 1
organization: {name: Example AB, domains: [example.com], languages: [en]}
groups: {communications: [eva@example.com, omar@example.com]}
approvals: {from: [communications], each: 1}
confirm: {a_person: 50 in 7d}
lists:
  news: {addresses: [news@lists.example.com], members: {csv: ramadan.csv, column: email}, writers: [anna@example.com], origin: {clients: [127.0.0.1/32]}}
rules:
  - {id: to-the-news, when: {recipients.list_addresses: any}, then: confirm}
"""
PEOPLE = 150
Home = tuple[Machine, Recorder]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("confirming")
    (root / "guard").mkdir()
    (root / "guard" / "policy.yaml").write_text(POLICY)
    with machine(root) as made:
        yield made


def letter(id: str) -> bytes:
    return (
        f"From: Anna <{ANNA}>\r\nTo: {NEWS}\r\nSubject: The news of {id}\r\nMessage-ID: <{id}>\r\n"
        f"Date: Mon, 2 Mar 2026 09:00:00 +0000\r\n\r\nDear readers, this is {id}.\r\n"
    ).encode()


def asked(guard: Machine, id: str) -> str:
    """The hold of a message whose writer has got the question."""
    done = Mta(guard).deliver(letter(id), ANNA, NEWS)
    assert (done.code, "Held" in done.text) == (250, True)
    guard.idle()
    [hold] = guard.holds(id)
    assert hold.asks_writer
    return hold.hold_id


def confirms(hold_id: str, people: int = PEOPLE) -> tuple[str, ...]:
    return ("held", "confirm", hold_id, "--people", str(people), "--as", ANNA)


@pytest.mark.parametrize("commit", ["admission", "acknowledgement"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_holding_a_question(home: Home, when: str, commit: str) -> None:
    guard, recorder = home
    id = f"{when}-{commit}@example.com"
    point = guard.arm(f"{when}-commit", commit, f"<{id}>")
    done = Mta(guard).deliver(letter(id), ANNA, NEWS)
    assert fired(point)
    assert done.code == 250
    [hold] = guard.holds(id)
    assert hold.acknowledged
    assert hold.asks_writer
    guard.idle()
    assert recorder.releases(id) == []
    guard.run(*confirms(hold.hold_id))
    guard.until(lambda: guard.state(hold.hold_id) is State.RELEASED, "the release")
    assert recorder.releases(id) == [f"{hold.hold_id}-release".encode()]
    assert [kind for kind, _ in guard.history(hold.hold_id)].count(Kind.CONFIRMED) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_the_writer_confirms(home: Home, when: str) -> None:
    guard, recorder = home
    id = f"confirm-{when}@example.com"
    hold_id = asked(guard, id)
    assert "and the number given is 7" in guard.run(*confirms(hold_id, 7), exits=1).stderr
    guard.arm(f"{when}-commit", Kind.CONFIRMED.value, hold_id)
    killed = guard.run(*confirms(hold_id), exits=None)
    assert killed.returncode == -signal.SIGKILL
    if when == "before":
        assert guard.state(hold_id) is State.WAITING
        assert guard.holds(id)[0].asks_writer
        guard.run(*confirms(hold_id))
    guard.until(lambda: guard.state(hold_id) is State.RELEASED, "the release")
    assert recorder.releases(id) == [f"{hold_id}-release".encode()]
    assert [kind for kind, _ in guard.history(hold_id)].count(Kind.CONFIRMED) == 1
    assert "already released" in guard.run(*confirms(hold_id), exits=1).stderr
