"""kill -9 at each commit of hold, approve and release: nothing is lost, and mail to a list's address is sent again only
on a person's decision (RFC 1047)."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from smtpguard.holds.model import State
from smtpguard.journal.event import Kind
from smtpguard.mail.message import Message
from smtpguard.policy.verdict import Mode
from tests.faults.machine import ANNA, CAMPAIGNS, RAMADAN, Machine, fired, machine
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, until
from tests.peers.letters import campaign, mail, story
from tests.script import DOT, STALL

Home = tuple[Machine, Recorder]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with machine(tmp_path_factory.mktemp("killed")) as made:
        yield made


def held(guard: Machine, message_id: str) -> str:
    """The id of a new hold, with all its notices sent."""
    done = Mta(guard).deliver(story(message_id), ANNA, RAMADAN)
    assert done.code == 250
    assert "Held" in done.text
    guard.idle()
    return done.text.split()[-1]


# The commits of a held message, in order; the last one records that its client was answered.
HOLDING = ("content", "chunk", "admission", "acknowledgement")
RELEASING = ("lease", "mark", "settle")


@pytest.mark.parametrize("commit", HOLDING)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_holding(home: Home, when: str, commit: str) -> None:
    guard, recorder = home
    id = f"{when}-{commit}@example.com"
    letter = story(id)
    of_content = commit in ("content", "chunk")
    point = guard.arm(f"{when}-commit", commit, Message.of(letter).sha256 if of_content else f"<{id}>")
    seen: list[str] = []

    def look() -> None:
        if seen:
            return
        there = guard.holds(id)
        seen.extend(h.hold_id for h in there)
        answered = (when, commit) == ("after", "acknowledgement")
        assert [h.acknowledged for h in there] in ([], [answered]), "a client without 250 still has it"
        assert bool(there) == (commit == "acknowledgement" or (when, commit) == ("after", "admission"))

    mta = Mta(guard)
    done = mta.deliver(letter, ANNA, RAMADAN, between=look)
    assert fired(point)
    assert mta.attempts[0].code == 0, "it was killed before it could answer"
    assert done.code == 250
    assert "Held" in done.text, (mta.attempts, guard.said())
    [hold] = guard.holds(id)
    assert hold.acknowledged
    assert done.text.endswith(hold.hold_id)
    assert not seen or seen == [hold.hold_id], "the same hold"
    guard.idle()
    assert recorder.releases(id) == []
    guard.approve(hold.hold_id)
    guard.until(lambda: guard.state(hold.hold_id) is State.RELEASED, "the release")
    assert recorder.releases(id) == [f"{hold.hold_id}-release".encode()]
    kinds = [k for k, _ in guard.history(hold.hold_id)]
    assert (kinds.count(Kind.APPROVED), kinds.count(Kind.RELEASED)) == (1, 1), "one decision"


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_approving(home: Home, when: str) -> None:
    guard, recorder = home
    id = f"approve-{when}@example.com"
    hold_id = held(guard, id)
    guard.run("held", "approve", hold_id, "--as", "eva@example.com")
    last = ("held", "approve", hold_id, "--as", "dpo@example.com")
    guard.arm(f"{when}-commit", Kind.APPROVED.value, hold_id)
    killed = guard.run(*last, exits=None)
    assert killed.returncode == -signal.SIGKILL
    if when == "before":
        assert guard.state(hold_id) is State.WAITING
        guard.run(*last)
    guard.until(lambda: guard.state(hold_id) is State.RELEASED, "the release")
    assert recorder.releases(id) == [f"{hold_id}-release".encode()]
    assert [k for k, _ in guard.history(hold_id)].count(Kind.APPROVED) == 1
    assert "it is already released" in guard.run(*last, exits=1).stderr


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_when_a_release_delay_ends(tmp_path: Path, when: str) -> None:
    """Between the end of the release delay and the release: the message is sent once, and not before."""
    with machine(tmp_path, settings={"hold": "{release_delay: 3s}"}) as (guard, recorder):
        id = f"enact-{when}@example.com"
        hold_id = held(guard, id)
        point = guard.arm(f"{when}-commit", "enact", hold_id)
        guard.approve(hold_id)
        until(lambda: fired(point), "somebody to be killed")
        guard.until(lambda: guard.state(hold_id) is State.RELEASED, "the release")
        assert recorder.releases(id) == [f"{hold_id}-release".encode()]
        history = guard.history(hold_id)
        assert [k for k, _ in history].count(Kind.APPROVED) == 1
        due = next(datetime.fromisoformat(data["release_at"]) for k, data in history if "release_at" in data)
        [approved] = [e.time for e in guard.entries(hold_id) if e.kind == Kind.APPROVED.value]
        assert approved >= due


@pytest.mark.parametrize("commit", RELEASING)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_releasing(home: Home, when: str, commit: str) -> None:
    guard, recorder = home
    id = f"release-{when}-{commit}@example.com"
    hold_id = held(guard, id)
    point = guard.arm(f"{when}-commit", commit, f"{hold_id}-release")
    guard.approve(hold_id)
    until(lambda: fired(point), "somebody to be killed")
    if (when, commit) != ("before", "lease"):  # else the next part has its lease at once
        guard.hours_pass()
    guard.until(lambda: guard.state(hold_id) in (State.RELEASED, State.IN_DOUBT), "the release, or a question")
    assert len(recorder.releases(id)) <= 1, "without a person it is sent once"
    doubted = guard.state(hold_id) is State.IN_DOUBT
    assert doubted == ((when, commit) in {("after", "mark"), ("before", "settle")})
    if doubted:
        guard.run("held", "settle", hold_id, "--again", "--as", "eva@example.com")
    guard.until(lambda: guard.state(hold_id) is State.RELEASED, "the release")
    copies = recorder.releases(id)
    assert set(copies) == {f"{hold_id}-release".encode()}
    assert len(copies) == (2 if (when, commit) == ("before", "settle") else 1)
    kinds = [k for k, _ in guard.history(hold_id)]
    assert kinds.count(Kind.RELEASED) == 1
    assert (Kind.IN_DOUBT in kinds) is doubted


def essay(topic: str, message_id: str) -> bytes:
    """A text that is long enough for a fingerprint: messages of one topic are copies of one mailing."""
    chance = random.Random(topic)
    words = " ".join("".join(chance.choices("aeioubdklmnrst", k=7)) for _ in range(80))
    return mail(to=RAMADAN, subject=f"SV: {topic}", message_id=message_id, text=f"Hej!\n\n{words}\n\n/Anna\n")


def copies(guard: Machine, topic: str) -> list[str]:
    """Three copies held as one; the ids of the primary hold and of its copies."""
    ids = []
    for n in range(3):
        done = Mta(guard).deliver(essay(topic, f"{topic}-{n}@example.com"), ANNA, RAMADAN)
        assert "Held" in done.text
        ids.append(done.text.split()[-1])
    found = [guard.ask(lambda store, id=id: store.holds.find(id)) for id in ids]  # type: ignore[misc]
    assert [hold.primary for hold in found if hold is not None] == ["", ids[0], ids[0]]
    guard.idle()
    return ids


# Revoking approvals during a freeze: of one message, and of a mailing of three, where the decision is the first commit,
# and the copies follow in another.
@pytest.mark.parametrize(
    "words", [("held", "reject"), ("held", "withdraw"), ("mailings", "reopen"), ("mailings", "reject")]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_revoking(home: Home, when: str, words: tuple[str, str]) -> None:
    guard, recorder = home
    topic = f"{when}-{words[1]}-{words[0]}"
    kind = {"reject": Kind.REJECTED, "withdraw": Kind.WITHDRAWN, "reopen": Kind.REOPENED}[words[1]]
    ids = copies(guard, topic)
    lead = guard.ask(lambda store: store.holds.find(ids[0]))
    assert lead is not None
    guard.run("freeze", "--all", "--reason", "Wrong mail")
    try:
        guard.approve(ids[0])
        assert [guard.state(id) for id in ids] == [State.APPROVED] * 3
        who = ANNA if words[1] == "withdraw" else "eva@example.com"
        named = ids[0] if words[0] == "held" else lead.mailing_id
        back = (*words, named, "--as", who, "--comment", "Wrong text")
        guard.arm(f"{when}-commit", kind.value, ids[0])
        killed = guard.run(*back, exits=None)
        assert killed.returncode == -signal.SIGKILL
        if when == "before":
            assert [guard.state(id) for id in ids] == [State.APPROVED] * 3, "all of it, or nothing"
            guard.run(*back)
    finally:
        guard.run("thaw", "--all")
    state = {"reject": State.REJECTED, "withdraw": State.WITHDRAWN, "reopen": State.WAITING}[words[1]]
    assert guard.state(ids[0]) is state
    guard.until(lambda: [guard.state(id) for id in ids] == [state] * 3, "the copies to come after")
    guard.idle()
    guard.hours_pass()
    assert [recorder.releases(f"{topic}-{n}@example.com") for n in range(3)] == [[], [], []], "nothing is sent"
    assert [[k for k, _ in guard.history(id)].count(kind) for id in ids] == [1, 1, 1], "one decision"


# The commits of a release again; then the approval is revoked, however far the release is.
@pytest.mark.parametrize("commit", RELEASING)
@pytest.mark.parametrize("when", ["before", "after"])
def test_revoked_after_the_sending_process_was_killed(home: Home, when: str, commit: str) -> None:
    guard, recorder = home
    id = f"taken-{when}-{commit}@example.com"
    hold_id = held(guard, id)
    point = guard.arm(f"{when}-commit", commit, f"{hold_id}-release")
    guard.approve(hold_id)
    until(lambda: fired(point), "somebody to be killed")
    guard.run("freeze", "--all", "--reason", "Wrong mail")
    try:
        if (when, commit) != ("before", "lease"):  # else the next part has its lease at once
            guard.hours_pass()
        there = len(recorder.releases(id))
        guard.run("held", "reject", hold_id, "--as", "eva@example.com", "--comment", "Wrong list", exits=None)
        state = guard.state(hold_id)
    finally:
        guard.run("thaw", "--all")
    guard.idle()
    guard.hours_pass()
    guard.idle()
    assert guard.state(hold_id) is state, "it is over"
    assert len(recorder.releases(id)) == there, "a revoked release was not sent again"
    assert state in (State.REJECTED, State.RELEASED, State.IN_DOUBT)
    if state is State.REJECTED:
        assert there == 0, "a release reported as unsent was not sent"
    if there:
        assert state is not State.REJECTED


def test_killed_between_the_relays_250_and_the_record(home: Home) -> None:
    guard, recorder = home
    id = "mark@example.com"
    hold_id = held(guard, id)
    recorder.relay.on(DOT, [STALL, "250 2.0.0 Taken"])
    guard.approve(hold_id)
    until(lambda: recorder.releases(id), "the release")
    point = guard.arm("before-commit", "settle", f"{hold_id}-release")
    recorder.go_on()
    until(lambda: fired(point), "somebody to be killed")
    guard.until(lambda: guard.state(hold_id) is State.IN_DOUBT, "people to be asked, once the part is there again")
    guard.hours_pass()
    guard.idle()
    assert recorder.releases(id) == [f"{hold_id}-release".encode()], "once"
    guard.run("held", "settle", hold_id, "--sent", "--as", "eva@example.com")
    assert guard.state(hold_id) is State.RELEASED
    guard.idle()
    assert recorder.releases(id) == [f"{hold_id}-release".encode()], "once"
    assert [d["outcome"] for k, d in guard.history(hold_id) if k is Kind.IN_DOUBT] == ["asked"]


def test_killed_between_the_dot_and_the_reply(home: Home) -> None:
    """A relayed message to one person is sent again, since its client still has it. To a list's address, people decide."""
    guard, recorder = home
    guard.idle()
    for id, letter, sender, to in (
        (
            "to-one@example.com",
            mail(to="peter@partner.example", message_id="to-one@example.com"),
            ANNA,
            "peter@partner.example",
        ),
        ("to-all@example.com", campaign("to-all@example.com"), CAMPAIGNS, RAMADAN),
    ):
        recorder.relay.on(DOT, [STALL, "250 2.0.0 Taken"])
        mta = Mta(guard)

        def strike(id: str = id) -> None:
            until(lambda: recorder.with_id(id), "the dot")
            for pid in guard.parts("proxy"):
                os.kill(pid, signal.SIGKILL)

        striking = threading.Thread(target=strike)
        striking.start()
        done = mta.deliver(letter, sender, to, between=recorder.go_on)
        striking.join()
        assert mta.unheard == 1
        assert done.code == 250
        if to == RAMADAN:
            assert "Held" in done.text
            assert len(recorder.with_id(id)) == 1, "400,000 people get it once"
            [hold] = guard.holds(id)
            enforced = [h.rule for h in hold.verdict.hits if h.mode is Mode.ENFORCE]
            assert enforced == ["in-doubt-retry"]
        else:
            assert len(recorder.with_id(id)) == 2
