"""Random kills under load: every message is at the relay, held or still with its client, and duplicates are as few as
promised."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from smtpguard.holds.model import State
from tests.faults.machine import ANNA, RAMADAN, Machine, machine
from tests.faults.mta import Mta
from tests.peers.chain import until
from tests.peers.letters import mail, story

PETER = "peter@partner.example"


class Killer:
    """SIGKILL to a part whenever ``progress`` has grown by ``step``, and every fifth time to the whole machine."""

    def __init__(
        self, guard: Machine, chance: random.Random, victims: str, progress: Callable[[], int], step: int
    ) -> None:
        self._guard, self._chance, self._victims = guard, chance, victims
        self._progress, self._step = progress, step
        self._over = threading.Event()
        self.struck = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        due = self._progress() + self._step
        while not self._over.wait(self._chance.random() * 0.05):
            self._guard.keep()
            if self._progress() < due:
                continue
            due = self._progress() + self._step
            if self.struck % 5 == 4:
                self._guard.kill_all()
                self._guard.keep()
            elif parts := self._guard.parts(self._victims):
                os.kill(self._chance.choice(parts), signal.SIGKILL)
            self.struck += 1

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._guard.keep()


def all_at_once(work: Iterable[Callable[[], None]], threads: int = 6) -> None:
    waiting = iter(work)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def run() -> None:
        while True:
            with lock:
                mine = next(waiting, None)
            if mine is None:
                return
            try:
                mine()
            except BaseException as error:
                failures.append(error)

    clients = [threading.Thread(target=run) for _ in range(threads)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if failures:
        raise failures[0]


def test_random_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    with machine(tmp_path, workers=2) as (guard, recorder):
        sent: dict[str, Mta] = {}
        held: dict[str, str] = {}

        def send(n: int) -> None:
            id = f"load-{n}@example.com"
            sent[id] = Mta(guard)
            if n % 3:
                assert sent[id].deliver(mail(to=PETER, message_id=id), ANNA, PETER).code == 250
            else:
                done = sent[id].deliver(story(id, subject=f"SV: {n}"), ANNA, RAMADAN)
                assert "Held" in done.text
                held[id] = done.text.split()[-1]

        answered: list[int] = []

        def one(n: int) -> None:
            send(n)
            answered.append(n)

        def until_struck(killer: Killer) -> Iterator[Callable[[], None]]:
            """150 messages, and more if the guard is quicker than its killer."""
            for n in range(1500):
                if n >= 150 and killer.struck >= 5:
                    return
                yield partial(one, n)

        with Killer(guard, chance, "proxy", lambda: len(answered), 22) as killer:
            all_at_once(until_struck(killer))
        assert killer.struck >= 5
        assert len(sent) == len(answered) >= 150
        holds = {hold.message_id.strip("<>"): hold for hold in guard.holds()}
        assert len(holds) == len(held) == len(guard.holds()), "one hold each"

        for id, client in sent.items():
            copies = len(recorder.with_id(id))
            if id in held:
                assert copies == 0, "a released hold"
                hold = holds[id]
                assert (hold.hold_id, hold.state, hold.acknowledged) == (held[id], State.WAITING, True)
            else:
                assert 1 <= copies <= 1 + client.unheard, "once, and once more for each lost answer"

        some = list(held.items())[:12]
        with Killer(guard, chance, "delivery", lambda: len(recorder.messages), 4) as killer:
            for _, hold_id in some:
                guard.approve(hold_id)
            until(lambda: killer.struck >= 3, "kills")
        guard.hours_pass()

        def states() -> dict[str, State]:
            return {hold_id: guard.state(hold_id) for _, hold_id in some}

        guard.until(lambda: set(states().values()) <= {State.RELEASED, State.IN_DOUBT}, "the releases, or questions")
        for hold_id in [hold_id for hold_id, state in states().items() if state is State.IN_DOUBT]:
            guard.run("held", "settle", hold_id, "--again", "--as", "eva@example.com")
        guard.until(lambda: set(states().values()) == {State.RELEASED}, "the releases")
        for id, hold_id in some:
            releases = recorder.releases(id)
            assert set(releases) == {f"{hold_id}-release".encode()}
            assert len(releases) <= 2, "one duplicate at most, with the same id"
