"""The story to so many people, with a stop after 412 of them and kill -9 meanwhile: what the report says is what a relay counts that
knows nothing else. ``make story N=10000`` prints the figures."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.machine import ANNA, POLICY, Machine, machine, members
from tests.faults.mta import Mta
from tests.faults.test_load import all_at_once
from tests.peers.chain import Recorder, member
from tests.peers.letters import story

PEOPLE = int(os.environ.get("STORY", "150"))
STOP = min(412, PEOPLE // 2)
KILLS = (STOP // 4, STOP // 2, STOP)
"""So many people have it when a part is killed, the last time just before the stop."""
MANY = 50 if PEOPLE >= 1000 else 10
REPORT_SECONDS = 60
HELD = {"direct": "recipients.list_addresses: any", "released": 'recipients.customers: ">= 1"'}
"""What is held: nothing of the story, since it goes to single people; or all of it."""


class Count:
    """Who has the story, by nothing but what the relay was sent."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder, self._read = recorder, 0
        self.people: set[str] = set()

    def now(self) -> int:
        taken = self._recorder.relay.messages
        for message in taken[self._read :]:
            self._read += 1
            if message.field(b"Message-ID").startswith(b"<story-"):
                self.people.update(message.recipients)
        return len(self.people)


@contextmanager
def meanwhile(work: Sequence[Callable[[], None]], clients: int) -> Iterator[None]:
    """All of it is done beside what comes within, and waited for at the end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            all_at_once(work, clients)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


def strike(guard: Machine, count: Count, part: str) -> None:
    """Kill a process of that part at each number of people."""
    chance = random.Random(412)
    for n in KILLS:
        guard.until(lambda n=n: count.now() >= n, f"{n} people to have it")  # type: ignore[misc]
        guard.until(lambda: guard.parts(part), f"a {part} to kill")
        os.kill(chance.choice(guard.parts(part)), signal.SIGKILL)
        if part == "delivery" and n < STOP:  # what it was at work on is in doubt for half an hour
            guard.hours_pass()


def rows(guard: Machine, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in guard.run("--json", *words).stdout.splitlines()]


def look(guard: Machine, count: Count, when: str, *, sending: bool = False) -> str:
    """Make the report, and compare it with what the relay had just before and just after; the mailing's id. ``sending``: its clients
    still do."""
    [mailing] = rows(guard, "mailings", "list", "--least", "1")
    before = count.now()
    begun = time.monotonic()
    [said] = rows(guard, "incident", "report", mailing["id"])
    seconds = time.monotonic() - begun
    after = count.now()
    reached, perhaps, unreached = said["reached"], said["perhaps"], said["unreached"]
    ends = {one["end"]: one["messages"] for one in said["ends"]}
    print(f"  {when}: {seconds:.1f} s. The relay: {before}..{after} people. The report: {reached['people']} have it, {perhaps['people']}"
          f" may, {unreached['people']} have not; messages: {ends}")  # fmt: skip
    assert seconds < REPORT_SECONDS
    assert said["proof"]["ok"]
    assert reached["least"] <= after, "everyone reported as reached has it"
    assert before <= reached["most"] + perhaps["most"], "everyone who has it is reported as reached or possibly reached"
    if not sending:
        assert unreached["least"] <= PEOPLE - before, "no one reported as not reached has it"
        assert PEOPLE - after <= unreached["most"] + perhaps["most"], (
            "everyone without it is reported as not reached or possibly reached"
        )
        assert reached["people"] + perhaps["people"] + unreached["people"] == PEOPLE
    [listed] = said["lists"]
    assert {key: listed["reached"][key] for key in reached if key != "messages"} == {
        key: reached[key] for key in reached if key != "messages"
    }
    assert listed["perhaps"] == perhaps
    return str(mailing["id"])


@pytest.mark.parametrize("each", [MANY, 1])
@pytest.mark.parametrize("how", HELD)
def test_reported_numbers_equal_the_relays_count(tmp_path: Path, how: str, each: int) -> None:
    root = tmp_path / "guard"
    root.mkdir()
    (root / "policy.yaml").write_text(f"{POLICY}rules:\n  - {{id: held, when: {{{HELD[how]}}}, then: hold}}\n")
    (root / "ramadan.csv").write_text(members(PEOPLE))
    settings = {"hold": f"{{release_delay: 0, copies: {PEOPLE}}}"}
    print(f"\n{PEOPLE} people, {how}, {each} in an envelope, stopped after {STOP}:")
    with machine(tmp_path, workers=2, settings=settings) as (guard, recorder):
        count = Count(recorder)
        heard: list[str] = []

        def send(n: int) -> None:
            to = [member(i) for i in range(n, min(n + each, PEOPLE))]
            done = Mta(guard).deliver(story(f"story-{n}@example.com", to=to[0]), ANNA, *to, seconds=1800)
            assert done.code == 250
            heard.append(done.text)

        def stop(part: str, *, sending: bool) -> int:
            """Returns how many messages could not be called back any more, by what the command said."""
            strike(guard, count, part)
            [frozen] = rows(guard, "freeze", "--all", "--reason", "Wrong mail")
            look(guard, count, "at once", sending=sending)
            return int(frozen["past_recall"])

        with meanwhile([partial(send, n) for n in range(0, PEOPLE, each)], clients=2 if each > 1 else 8):
            if how == "direct":
                past = stop("proxy", sending=True)
        if how == "released":
            assert count.now() == 0
            guard.approve(heard[0].split()[-1])
            past = stop("delivery", sending=False)
        guard.until(lambda: guard.parts("delivery"), "somebody who delivers")
        there = count.now()
        guard.hours_pass()
        mailing = look(guard, count, "31 minutes later")
        assert count.now() - there <= past * each, "it is stopped"

        def named(what: str) -> set[str]:
            words = ("mailings", "people", mailing, "--from-list", "ramadan-greetings", "--what", what)
            return {str(row["address"]) for row in rows(guard, *words)}

        have, may = named("sent"), named("in-doubt") | named("on-the-way")
        assert have <= count.people <= have | may, "each is named"
