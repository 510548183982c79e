"""kill -9 around the journal's front: no message is relayed without its verdict, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from smtpguard.policy.freezing import Selector
from smtpguard.store.store import Store
from tests.faults.machine import ANNA, Machine, fired, machine
from tests.faults.mta import Mta
from tests.faults.test_load import Killer, all_at_once
from tests.peers.chain import Recorder
from tests.peers.letters import mail
from tests.scripted_relay import Message

PETER = "peter@partner.example"
KILLS = int(os.environ.get("KILLS", "100"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Recorder]]:
    with machine(tmp_path_factory.mktemp("front")) as made:
        yield made


def letter(id: str) -> bytes:
    return mail(to=PETER, message_id=id, text=f"Hello {id}\n" * 20)


def verdicts(guard: Machine) -> Counter[str]:
    """The number of verdicts to relay in the chain, by transaction, after the fronts were moved."""

    async def read(store: Store) -> Counter[str]:
        await store.journal.catch_up()
        found: Counter[str] = Counter()
        last = 0
        while page := await store.journal.entries(after=last):
            found.update(e.id for e, _ in page if e.kind == "verdict" and e.data["action"] == "relay")
            last = page[-1][0].seq
        return found

    return guard.ask(read)


def check_all_messages(guard: Machine, recorder: Recorder, sent: dict[str, Mta]) -> None:
    """Assert that the relay has every message that got 250, unchanged and with one verdict each, and a second copy only
    if the client could not know."""
    known = verdicts(guard)
    assert set(known.values()) <= {1}
    arrived = defaultdict[str, list[Message]](list)
    for message in recorder.messages:
        arrived[message.field(b"Message-ID").decode()].append(message)
    for id, mta in sent.items():
        copies = arrived[f"<{id}>"]
        assert 1 <= len(copies) <= 1 + mta.unheard
        for copy in copies:
            assert copy.content.endswith(letter(id)), "the content is unchanged"
            transaction = copy.field(b"X-Smtpguard").split(b";")[0].split(b"=")[-1].strip().decode()
            assert known[transaction] == 1, transaction
    guard.verified()


@pytest.mark.parametrize(
    ("when", "step"),
    [("before-sync", "front"), ("after-sync", "front"), ("before-commit", "moved"), ("after-commit", "moved")],
)
def test_killed_at_each_step_around_the_front(home: tuple[Machine, Recorder], when: str, step: str) -> None:
    guard, recorder = home
    id = f"{when}-{step}@example.com"
    point = guard.arm(when, step, f"<{id}>")
    mta = Mta(guard)
    assert mta.deliver(letter(id), ANNA, PETER).code == 250
    guard.until(lambda: fired(point), "somebody to be killed")
    if step == "front":  # else it is the delivery part, which no client notices
        assert mta.attempts[0].code == 0, "it was killed before the final dot"
        assert len(recorder.with_id(id)) == 1
    guard.until(lambda: guard.parts("proxy"), "another proxy")
    check_all_messages(guard, recorder, {id: mta})


def test_mail_goes_on_while_nobody_moves_the_fronts(home: tuple[Machine, Recorder]) -> None:
    """The delivery part is stopped, perhaps within a commit, which then ends with it. The proxy moves its front itself."""
    guard, recorder = home
    guard.until(lambda: guard.parts("delivery"), "the delivery part")
    stopped = guard.parts("delivery")
    sent: dict[str, Mta] = {}
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        for n in range(30):
            id = f"alone-{n}@example.com"
            sent[id] = Mta(guard)
            assert sent[id].deliver(letter(id), ANNA, PETER).code == 250
            assert len(sent[id].attempts) == 1

        def there() -> int:
            found = guard.ask(lambda store: store.journal.entries(limit=100_000))
            return sum(e.kind == "verdict" and "alone-" in str(clear) for e, clear in found)

        guard.until(lambda: there() == 30, "the verdicts in the chain")
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):  # the supervisor may have ended it
                os.kill(pid, signal.SIGCONT)
    check_all_messages(guard, recorder, sent)


def test_random_kills_lose_no_verdict(tmp_path: Path) -> None:
    chance = random.Random(11)
    with machine(tmp_path, workers=2) as (guard, recorder):
        sent: dict[str, Mta] = {}
        answered: list[int] = []

        def send(n: int) -> None:
            id = f"front-{n}@example.com"
            sent[id] = Mta(guard)
            assert sent[id].deliver(letter(id), ANNA, PETER).code == 250
            answered.append(n)

        def until_struck(killer: Killer) -> Iterator[Callable[[], None]]:
            n = 0
            while killer.struck < KILLS:
                yield partial(send, n)
                n += 1

        with Killer(guard, chance, "", lambda: len(answered), 4) as killer:
            all_at_once(until_struck(killer))
        check_all_messages(guard, recorder, sent)
        folder = guard.root / "var" / "front-guard-db"
        guard.ask(lambda store: store.journal.take_fronts())
        assert list(folder.glob("*.aside")) == []


def test_a_freeze_is_exact_under_load(tmp_path: Path) -> None:
    """Two processes relay at full speed: verdicts before the freeze are journalled before it, and none follows."""
    with machine(tmp_path, workers=2) as (guard, recorder):
        over = threading.Event()
        codes: list[str] = []

        def send(n: int) -> None:
            i = 0
            while not over.is_set():
                done = Mta(guard).once(letter(f"f{n}-{i}@example.com"), ANNA, PETER)
                codes.append(done.text)
                i += 1

        clients = [threading.Thread(target=send, args=(n,)) for n in range(6)]
        for client in clients:
            client.start()
        try:
            for turn in range(4):
                guard.until(lambda: len(recorder.messages) > 15 * (turn + 1), "mail")  # noqa: B023
                frozen = guard.with_services(lambda s: s.freezes.freeze(Selector.ALL, "", reason="a test", by="root"))
                there = {m.field(b"X-Smtpguard") for m in recorder.messages}
                before = len(codes)
                guard.until(lambda: len(codes) > before + 12, "mail that is stopped")  # noqa: B023
                late = [m for m in recorder.messages if b"\r\nMessage-ID: <f" in m.content]  # without notices
                late = [m for m in late if m.field(b"X-Smtpguard") not in there]
                known = {id.encode() for id in frozen.past_recall}
                assert [m for m in late if not any(id in m.field(b"X-Smtpguard") for id in known)] == []
                guard.with_services(lambda s: s.freezes.thaw(frozen.freeze.freeze_id, by="root"))  # noqa: B023
        finally:
            over.set()
            for client in clients:
                client.join()
        guard.verified()  # which refuses a verdict behind the end of its generation

        async def held_and_relayed(store: Store) -> Counter[str]:
            return Counter(
                e.data["action"] for e, _ in await store.journal.entries(limit=100_000) if e.kind == "verdict"
            )

        found = guard.ask(held_and_relayed)
        assert found["hold"] > 0
        assert found["relay"] > 60


def test_reports_include_entries_of_the_fronts(tmp_path: Path) -> None:
    """incident and audit move the fronts of all processes into the chain first."""
    with machine(tmp_path) as (guard, recorder):
        assert Mta(guard).deliver(letter("asked@example.com"), ANNA, PETER).code == 250
        said = guard.run("incident", "report", "--sender", ANNA, "--json").stdout
        assert "asked" in said or recorder.with_id("asked@example.com")
        assert '"ok": true' in guard.run("audit", "verify", "--json").stdout
