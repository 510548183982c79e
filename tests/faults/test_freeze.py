"""A freeze under load: once ``freeze`` has returned, the relay gets nothing that it stops, except what it said was past
recall."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from smtpguard.store.store import Store
from tests.faults.machine import ANNA, CAMPAIGNS, RAMADAN, Machine, machine
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, until
from tests.peers.letters import campaign, mail
from tests.script import DOT, STALL
from tests.scripted_relay import Message

Home = tuple[Machine, Recorder]
PETER = "peter@partner.example"
BO = "bo@example.com"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with machine(tmp_path_factory.mktemp("freeze"), workers=2) as made:
        yield made


class Load:
    """Clients that send continuously, to both workers."""

    def __init__(self, guard: Machine, sender: str, *, to: str, clients: int = 3, headers: str = "") -> None:
        self._guard, self._sender, self._to, self._headers = guard, sender, to, headers
        self._over = threading.Event()
        self._numbers = itertools.count()
        self.answers: list[tuple[float, int, str]] = []
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def _send(self) -> None:
        while not self._over.is_set():
            id = f"load-{time.monotonic_ns()}-{next(self._numbers)}@example.com"
            letter = (
                campaign(id)
                if self._sender == CAMPAIGNS
                else mail(sender=self._sender, to=self._to, message_id=id, headers=self._headers)
            )
            began = time.monotonic()
            done = Mta(self._guard).once(letter, self._sender, self._to)
            self.answers.append((began, done.code, done.text))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        until(lambda: len(self.answers) > 10, "load")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def count(recorder: Recorder, sender: str) -> list[Message]:
    return [m for m in recorder.messages if m.mail.startswith(f"MAIL FROM:<{sender}>".encode())]


def transaction_of(message: Message) -> str:
    """The id in the trace header."""
    return message.field(b"X-Smtpguard").split(b";")[0].removeprefix(b"id=").decode()


def frozen(guard: Machine, *words: str) -> dict[str, object]:
    row = json.loads(guard.run("--json", "freeze", *words, "--reason", "a test").stdout)
    assert isinstance(row, dict)
    return row


@pytest.mark.parametrize(
    ("words", "sender", "to"),
    [
        (("--all",), ANNA, PETER),
        (("--list", "ramadan-greetings"), CAMPAIGNS, RAMADAN),
        (("--sender", "Anna@Example.com"), ANNA, PETER),
        (("--mailing",), CAMPAIGNS, RAMADAN),
        (("--thread", "root@example.com"), ANNA, PETER),
    ],
)
def test_after_freeze_returns_nothing_passes(home: Home, words: tuple[str, ...], sender: str, to: str) -> None:
    guard, recorder = home
    headers = "References: <root@example.com>\n" if "--thread" in words else ""
    with Load(guard, sender, to=to, headers=headers) as load:
        if words == ("--mailing",):
            newest = guard.run("--json", "mailings", "list", "--least", "1").stdout.splitlines()[0]
            words = ("--mailing", json.loads(newest)["id"][:9])
        said = frozen(guard, *words)
        returned = time.monotonic()
        there = len(count(recorder, sender))
        assert there, "it passed before the freeze"
        before = len(load.answers)
        until(lambda: len(load.answers) >= before + 30, "answers to what came after")
        late = {transaction_of(m) for m in count(recorder, sender)[there:]}
        assert late <= set(said["past_recall_ids"]), "those were named"  # type: ignore[call-overload]
        after = [(code, text) for began, code, text in load.answers if began > returned]
        assert after
        assert all(code == 250 and "Held" in text for code, text in after), after[:3]
        if words != ("--all",):
            other = Mta(guard).once(mail(sender=f"Bo <{BO}>", to=PETER, message_id=f"bo-{sender}"), BO, PETER)
            assert other.code == 250
            assert recorder.with_id(f"bo-{sender}"), "other mail passes"
        guard.run("thaw", *words)
        n = len(count(recorder, sender))
        until(lambda: len(count(recorder, sender)) > n + 5, "mail to flow again")


def test_a_message_past_recall_is_named_and_others_are_recalled(home: Home) -> None:
    """A message whose dot the relay has without an answer is past recall, and named; its client gets the relay's
    answer."""
    guard, recorder = home

    async def settled(store: Store) -> bool:
        await store.journal.catch_up()
        return not await store.journal.unsettled(store.now())

    guard.until(lambda: guard.ask(settled), "the outcomes of what other tests sent")
    recorder.relay.on(DOT, [STALL, "250 2.0.0 Taken"], times=1)
    client = Mta(guard)
    sending = threading.Thread(target=client.once, args=(mail(to=PETER, message_id="past@example.com"), ANNA, PETER))
    sending.start()
    try:
        until(lambda: recorder.with_id("past@example.com"), "the dot")
        said = frozen(guard, "--all")
        assert said["past_recall_ids"] == [transaction_of(recorder.with_id("past@example.com")[0])]
        assert said["past_recall"] == 1
    finally:
        recorder.go_on()
        sending.join()
        guard.run("thaw", "--all")
    assert client.attempts[0].code == 250, "the relay's own reply"


def test_a_freeze_with_an_end_is_lifted(home: Home) -> None:
    guard, recorder = home

    def held(id: str) -> bool:
        return "Held" in Mta(guard).once(mail(to=PETER, message_id=id), ANNA, PETER).text

    for seconds in (2, 4, 8, 16, 32, 64):  # until one lasts longer than this machine needs for a command and a message
        end = datetime.fromisoformat(str(frozen(guard, "--all", "--for", f"{seconds}s")["until"]))
        if held(id := f"while-{seconds}@example.com"):
            break
        assert datetime.now(UTC) >= end, "it is in force until its end"
        assert recorder.with_id(id)
    until(lambda: not held(f"w{time.monotonic_ns()}@example.com"), "the freeze to end")
    assert datetime.now(UTC) >= end
    assert not recorder.with_id(id)


def test_releases_are_frozen(home: Home) -> None:
    guard, recorder = home
    done = Mta(guard).deliver(mail(to=RAMADAN, message_id="stand@example.com"), ANNA, RAMADAN)
    hold_id = done.text.split()[-1]
    frozen(guard, "--list", "ramadan-greetings")
    guard.approve(hold_id)
    until(lambda: any("decided" in str(d) for _, d in guard.history(hold_id)), "the word that it is decided")
    until(lambda: guard.outbox() == 1, "whatever else is in the outbox to be sent")
    assert not recorder.with_id("stand@example.com")
    guard.run("thaw", "--list", "ramadan-greetings")
    until(lambda: recorder.with_id("stand@example.com"), "the release")
