"""The gate, the fence before the final dot, the service that freezes and thaws, and its commands."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.database.errors import Unavailable
from smtpguard.freezes.gatewatch import GateWatch
from smtpguard.freezes.hooks import LAST_CHARACTERS, Hook, run
from smtpguard.freezes.service import Freezes
from smtpguard.journal.clock import SteadyClock
from smtpguard.locale.speech import Speech
from smtpguard.mail.envelope import Answers, Lost, Recalled
from smtpguard.mail.reply import RELAY_LOST
from smtpguard.policy.freezing import Freeze, Gate, Selectable, Selector
from smtpguard.policy.verdict import Held, Relayed
from tests.clocks import Clock
from tests.every import every
from tests.guard.house import MEMBERS, FakePassage, House
from tests.guard.office import OK, Office


class Gates:
    """A gate without a store."""

    def __init__(self) -> None:
        self.now = Gate(generation=1, policy_sha256="p")
        self.fails: Exception | None = None

    async def read(self) -> Gate:
        if self.fails:
            raise self.fails
        return self.now


def stop(selector: Selector = Selector.ALL, value: str = "", **more: Any) -> Freeze:
    return Freeze(
        freeze_id="F", selector=selector, value=value, reason="", by="", at=Clock().at, until=more.get("until")
    )


@every(
    ("gate", "passed", "holds"),
    [
        (Gate(generation=1, policy_sha256="p"), 0.0, True),
        (Gate(generation=1, policy_sha256="p"), 0.9, True),
        (Gate(generation=1, policy_sha256="p"), 1.0, False),  # not read for a second
        (Gate(generation=2, policy_sha256="q"), 0.0, False),  # another policy
        (Gate(generation=2, policy_sha256="p", freezes=(stop(),)), 0.0, False),
        (Gate(generation=2, policy_sha256="p", freezes=(stop(Selector.SENDER, "anna@example.com"),)), 0.0, False),
        (Gate(generation=2, policy_sha256="p", freezes=(stop(Selector.LIST, "news"),)), 0.0, False),
        (Gate(generation=2, policy_sha256="p", freezes=(stop(Selector.MAILING, "m"),)), 0.0, False),
        (Gate(generation=2, policy_sha256="p", freezes=(stop(Selector.THREAD, "<t>"),)), 0.0, False),
        (Gate(generation=2, policy_sha256="p", freezes=(stop(Selector.LIST, "other"),)), 0.0, True),
        (Gate(generation=2, policy_sha256="p", freezes=(stop(until=Clock().at),)), 0.0, False),  # not lifted yet
        (Gate(generation=9, policy_sha256="p"), 0.0, True),  # another freeze was thawed
    ],
)
async def test_the_fence_by_gate_and_time(gate: Gate, passed: float, holds: bool) -> None:
    gates, clock = Gates(), Clock()
    watch = GateWatch(gates, clock)  # type: ignore[arg-type]
    fence = watch.fence(Selectable(frozenset({"news"}), frozenset({"anna@example.com"}), "m", "<t>"), policy_sha256="p")
    gates.fails = Unavailable()
    assert not await fence()  # never read
    gates.now, gates.fails = gate, None
    await watch.read()
    gates.fails = Unavailable()
    clock.pass_(seconds=passed)
    assert await fence() is holds


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_stale_gate_is_read_again_at_the_dot(stopped: bool) -> None:
    """A gate that was not read in time on a busy machine is read at the dot. That alone recalls no message; a freeze
    does."""
    gates, clock = Gates(), Clock()
    watch = GateWatch(gates, clock)  # type: ignore[arg-type]
    await watch.read()
    clock.pass_(seconds=3)
    gates.now = Gate(generation=2, policy_sha256="p", freezes=(stop(),) if stopped else ())
    assert await watch.fence(Selectable())() is not stopped


async def test_a_slow_read_is_repeated() -> None:
    clock, reads = Clock(), 0

    class Slow(Gates):
        async def read(self) -> Gate:
            nonlocal reads
            reads += 1
            clock.pass_(seconds=2 if reads < 3 else 0)
            return self.now

    watch = GateWatch(Slow(), clock)  # type: ignore[arg-type]
    assert await watch.fence(Selectable())()
    assert reads == 3


async def test_a_gate_that_does_not_answer_recalls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Gates):
        async def read(self) -> Gate:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("smtpguard.freezes.gatewatch.LOOK_SECONDS", 0.0)
    watch = GateWatch(Silent(), Clock())  # type: ignore[arg-type]
    assert not await watch.fence(Selectable())()


async def test_a_gate_that_cannot_be_read_is_logged_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not four times a second."""
    monkeypatch.setattr("smtpguard.freezes.gatewatch.POLL_SECONDS", 0.0)
    clock = Clock()
    said = [*("refused",) * 3, "no answer", None, "no answer", "later", "no answer", RuntimeError("the end")]

    class Away(Gates):
        async def read(self) -> Gate:
            match said.pop(0):
                case None:
                    return self.now
                case RuntimeError() as end:
                    raise end
                case "later":
                    clock.pass_(minutes=5)
                    raise TimeoutError
                case why:
                    raise Unavailable(why)

    with pytest.raises(RuntimeError, match="the end"):
        await GateWatch(Away(), clock).run()  # type: ignore[arg-type]
    gate = "the gate: waiting for the store:"
    told = ["refused", "no answer", "over, after 0 s", "TimeoutError", "no answer"]
    assert caplog.messages == [f"{gate} {why}" for why in told]


async def test_a_release_is_not_stopped_by_a_new_policy() -> None:
    gates, clock = Gates(), Clock()
    watch = GateWatch(gates, clock)  # type: ignore[arg-type]
    gates.now = Gate(generation=2, policy_sha256="another")
    await watch.read()
    assert await watch.fence(Selectable())()


async def test_the_fence_fails_if_the_client_disconnected() -> None:
    watch = GateWatch(Gates(), Clock())  # type: ignore[arg-type]
    await watch.read()
    gone = False
    fence = watch.fence(Selectable(), gone=lambda: gone)
    assert await fence()
    gone = True
    assert not await fence()


async def test_an_unreadable_gate_becomes_stale_and_recovers() -> None:
    gates, clock = Gates(), Clock()
    watch = GateWatch(gates, clock)  # type: ignore[arg-type]
    await watch.read()
    fence = watch.fence(Selectable(), policy_sha256="p")
    gates.fails = Unavailable()
    clock.pass_(seconds=2)
    with pytest.raises(Unavailable):
        await watch.read()
    assert not await fence()
    gates.fails = None
    await watch.read()
    assert await fence()


async def test_an_overtaken_read_is_ignored() -> None:
    """Reads overlap (four in a second, and before each dot): a slow answer is older than a quick one to a later read."""
    before, after = Gate(generation=1, policy_sha256="p"), Gate(generation=2, policy_sha256="q")
    answers: list[asyncio.Future[Gate]] = [asyncio.Future(), asyncio.Future()]
    asked = iter(answers)

    class Slow:
        async def read(self) -> Gate:
            return await next(asked)

    clock, heard = Clock(), list[Gate]()
    watch = GateWatch(Slow(), clock, moved=heard.append)  # type: ignore[arg-type]
    first = asyncio.create_task(watch.read())
    await asyncio.sleep(0)
    clock.pass_(seconds=10)
    second = asyncio.create_task(watch.read())
    await asyncio.sleep(0)
    answers[1].set_result(after)
    assert await second == after
    answers[0].set_result(before)
    assert await first == after
    assert watch.gate == after
    assert watch.age_seconds == 0
    assert heard == []


async def test_subscribers_are_called_once_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    gates, reads = Gates(), 0
    heard: list[Any] = []
    watch = GateWatch(gates, Clock(), moved=heard.append)  # type: ignore[arg-type]

    async def turn(_: float) -> None:
        nonlocal reads
        reads += 1
        if reads == 2:
            gates.fails = Unavailable()
        elif reads == 3:
            gates.fails, gates.now = None, Gate(generation=2, policy_sha256="q")
        elif reads == 6:
            raise asyncio.CancelledError

    monkeypatch.setattr("smtpguard.freezes.service.asyncio.sleep", turn)
    with pytest.raises(asyncio.CancelledError):
        await watch.run()
    assert [g.generation for g in heard] == [2]


# -- the service


def service(home: House, **more: Any) -> Freezes:
    return Freezes(home.store, SteadyClock(home.clock), new_id=lambda: next(home.ids), **more)


async def test_freeze_and_thaw(home: House) -> None:
    freezes = service(home)
    frozen = await freezes.freeze(Selector.SENDER, "anna@example.com", reason="taken over", by="root")
    assert (frozen.recalled, frozen.past_recall, frozen.hooks) == ((), (), ())
    [(kind, data)] = await home.events(frozen.freeze.freeze_id)
    assert (kind, data["selector"], data["value"]) == ("freeze", "sender", None)
    [(entry, clear)] = await home.store.journal.history(frozen.freeze.freeze_id)
    assert "anna" not in entry.body
    assert clear is not None
    assert clear["from"] == ["anna@example.com"]
    assert clear["comment"] == ["taken over"]
    assert await freezes.active(Selector.SENDER, "anna@example.com") == (frozen.freeze,)
    assert await freezes.active(Selector.ALL) == ()
    assert await freezes.thaw(frozen.freeze.freeze_id, by="root") == ()
    assert await freezes.active() == ()
    with pytest.raises(KeyError):
        await freezes.thaw(frozen.freeze.freeze_id, by="root")


async def test_chained_entries_do_not_name_a_frozen_sender(home: House) -> None:
    """No chained entry names a frozen sender: entries stay as long as the journal, names only as long as addresses are
    kept."""
    ids = iter(("F1", "F2"))
    freezes = Freezes(home.store, SteadyClock(home.clock), new_id=lambda: next(ids), recall_seconds=0)
    await freezes.freeze(Selector.SENDER, "anna@example.com", reason="taken over", by="root")
    held = await home.send("otto@partner.example")
    assert isinstance(held, Held)
    entries = await home.store.journal.entries()
    assert [entry.kind for entry, _ in entries][-2:] == ["freeze", "verdict"]
    assert "anna@example.com" not in "".join(entry.body for entry, _ in entries)
    hold = await home.hold(held.hold_id)
    assert "sender anna@example.com" in hold.verdict.hits[0].reasons[0].detail, "people are named in the clear part"


@pytest.mark.parametrize(
    ("reason", "said", "swedish_said"),
    [
        ("An account was taken over.", " The reason given: An account was taken over.", " Skälet som angavs: An account was taken over."),
        ("", "", ""),
    ],
)  # fmt: skip
async def test_the_writer_reads_why_mail_is_frozen(home: House, reason: str, said: str, swedish_said: str) -> None:
    await service(home).freeze(Selector.ALL, "", reason=reason, by="root")
    assert isinstance(await home.send("otto@partner.example"), Held)
    [told] = [i.data for i in await home.outbox() if i.data.get("notice") == "held"]
    [sentence] = told["reasons"][0]["sentences"]
    assert sentence.endswith(f"It waits until people decide on it, also when other mail goes on again.{said}")
    assert Speech("sv").say(sentence).endswith(f"även när annan e-post går fram igen.{swedish_said}")


async def test_a_freeze_stops_until_it_is_lifted(home: House) -> None:
    freezes = service(home)
    frozen = await freezes.freeze(Selector.ALL, "", reason="x", by="root", for_=timedelta(hours=2))
    assert frozen.freeze.until == home.clock.at + timedelta(hours=2)
    assert len(await freezes.active()) == 1
    home.clock.pass_(hours=2)
    assert await freezes.active() == (frozen.freeze,)
    await freezes.lift_ended()
    assert await freezes.active() == ()
    await home.watch.read()
    assert isinstance(await home.send("ulf@example.com"), Relayed)


async def comes(true: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait for it, and fail after two minutes, which no machine needs."""
    try:
        async with asyncio.timeout(120):
            while not await true():  # noqa: ASYNC110
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"waited for {what}") from None


async def test_recalled_and_past_recall_messages_are_reported(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A freeze recalls the message before its final dot, and reports the one after it as past recall."""
    waiting, past, looked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Past(FakePassage):
        async def send(self, prepend: bytes, fence: Any) -> Any:
            assert await fence()
            self.sent.append(prepend)
            await past.wait()
            return self.replies

    intake = home.intake()
    before = home.transaction("ulf@example.com")
    after = home.transaction(MEMBERS[0])
    elsewhere = home.transaction("ulf@example.com", sender="ida@example.com", reverse_path="ida@example.com")
    calls = [
        asyncio.create_task(intake(before, FakePassage(before_dot=waiting.wait))),
        asyncio.create_task(intake(after, Past())),
        asyncio.create_task(intake(elsewhere, Past())),
    ]
    freezes = service(home, recall_seconds=0.3)
    stopped = Freeze(freeze_id="", selector=Selector.ALL, value="", reason="", by="", at=home.clock.at)

    async def all_in_flight() -> bool:
        return len(await in_flight(stopped, home.clock.at - timedelta(minutes=1))) == 3

    in_flight = home.store.journal.in_flight
    await comes(all_in_flight, "three transactions in flight")

    async def look(*asked: Any) -> Any:
        found = await in_flight(*asked)
        looked.set()
        return found

    monkeypatch.setattr(home.store.journal, "in_flight", look)

    async def recall() -> None:
        """After the transactions in flight were read: let the fences fall, wait for the outcomes, and end the recall's
        time."""
        await looked.wait()

        async def frozen() -> bool:
            return bool((await home.watch.read()).freezes)

        await comes(frozen, "the freeze in the gate")
        waiting.set()
        await comes(lambda: home.store.journal.outcomes([before.id]), "the outcome of the recalled message")
        home.clock.ticks += 1

    recalling = asyncio.create_task(recall())
    frozen = await freezes.freeze(Selector.SENDER, "anna@example.com", reason="x", by="root")
    await recalling
    assert frozen.recalled == (before.id,)
    assert frozen.past_recall == (after.id,)
    past.set()
    await asyncio.gather(*calls)


async def test_a_release_is_past_recall_once_its_attempt_is_recorded(office: Office) -> None:
    """A release is past recall once its attempt is marked: at the dot or in doubt. An untried one is neither, and one
    before its dot is recalled."""
    home, relay = office.home, office.relay
    doubted = await office.approved(MEMBERS[0])
    relay.raises, relay.takes_before_raising = Lost(RELAY_LOST, after_dot=True), True
    await office.step()
    relay.raises = None
    at_dot = await office.approved(MEMBERS[1], MEMBERS[2])
    fenced = await office.approved(MEMBERS[3])
    asked = {name: asyncio.Event() for name in (MEMBERS[1], MEMBERS[3])}
    frozen, answer = asyncio.Event(), asyncio.Event()

    class Slow:
        async def deliver(self, envelope: Any, content: Any, prepend: bytes, fence: Any) -> Answers:
            for_dot = MEMBERS[2] in map(str, envelope.addresses)
            assert await fence()
            asked[MEMBERS[1] if for_dot else MEMBERS[3]].set()
            await (answer if for_dot else frozen).wait()
            if not for_dot and not await fence():
                raise Recalled
            return Answers(replies=[OK for _ in envelope.recipients])

    worker = asyncio.create_task(office.hire("two", relay=Slow()).step())
    for event in asked.values():
        await event.wait()
    untried = await office.approved(MEMBERS[4])
    attempted, calls = home.store.outbox.attempted, 0

    async def look(stop: Freeze) -> Any:
        nonlocal calls
        calls += 1
        await home.watch.read()
        found = await attempted(stop)
        frozen.set()  # after the release in flight was seen
        if calls > 1 and len(found) == 2:  # the fence has fallen and its outcome is noted, so the time may end
            home.clock.ticks += 1
        return found

    home.store.outbox.attempted = look  # type: ignore[method-assign]
    made = await service(home, recall_seconds=0.3).freeze(Selector.ALL, "", reason="x", by="root")
    assert set(made.past_recall) == {doubted, at_dot}
    assert made.recalled == (fenced,)
    assert untried not in {*made.recalled, *made.past_recall}
    answer.set()
    await worker


async def test_hooks_get_the_freeze_in_their_environment(home: House, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"import os; open({str(out)!r}, 'a').write(' '.join(sorted(k + '=' + v for k, v in os.environ.items() if 'GUARD' in k)))"
    freezes = service(home, freeze_hook=[(sys.executable, "-c", code)], thaw_hook=[("/bin/true",)])
    frozen = await freezes.freeze(Selector.LIST, "news", reason="an incident", by="root")
    assert [h.problem for h in frozen.hooks] == [None]
    assert out.read_text() == (
        f"SMTPGUARD_ACTION=freeze SMTPGUARD_BY=root SMTPGUARD_ID={frozen.freeze.freeze_id} "
        "SMTPGUARD_REASON=an incident SMTPGUARD_SELECTOR=list SMTPGUARD_VALUE=news"
    )
    assert [h.problem for h in await freezes.thaw(frozen.freeze.freeze_id, by="root")] == [None]


async def test_an_expired_freeze_is_lifted_with_its_hooks(home: House, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"import os; open({str(out)!r}, 'a').write(os.environ['SMTPGUARD_ACTION'] + ' by ' + os.environ['SMTPGUARD_BY'])"
    freezes = service(home, thaw_hook=[(sys.executable, "-c", code)])
    ended = await freezes.freeze(Selector.LIST, "news", reason="x", by="root", for_=timedelta(minutes=5))
    for_ever = await freezes.freeze(Selector.ALL, "", reason="x", by="root")
    assert await freezes.lift_ended() == ()
    home.clock.pass_(seconds=301)
    assert [h.problem for h in await freezes.lift_ended()] == [None]
    assert out.read_text() == "thaw by smtpguard"
    assert [kind for kind, _ in await home.events(ended.freeze.freeze_id)] == ["freeze", "thaw"]
    assert await freezes.active() == (for_ever.freeze,)
    assert await freezes.lift_ended() == (), "it is lifted once"


async def test_what_another_freeze_stops_is_not_let_go(home: House) -> None:
    freezes = service(home, thaw_hook=[("/bin/true",)])
    for for_ in (timedelta(minutes=5), None):
        await freezes.freeze(Selector.ALL, "", reason="x", by="root", for_=for_)
    other = await freezes.freeze(Selector.LIST, "news", reason="x", by="root")
    home.clock.pass_(minutes=5)
    assert await freezes.lift_ended() == ()
    [left, _] = await freezes.active()
    assert [hook.problem for hook in await freezes.thaw(left.freeze_id, by="root")] == [None]
    assert await freezes.active() == (other.freeze,)


async def test_a_slow_command_keeps_no_other_freeze(home: House, tmp_path: Path) -> None:
    """It ends once the other freeze is lifted."""
    go_on = tmp_path / "lifted"
    wait = ("/bin/sh", "-c", f"until [ -e {go_on} ]; do sleep 0.05; done")
    freezes = service(home, thaw_hook=[wait], hook_seconds=600.0)
    for name in ("news", "friends"):
        await freezes.freeze(Selector.LIST, name, reason="x", by="root", for_=timedelta(minutes=5))
    home.clock.pass_(minutes=5)
    lifting = asyncio.create_task(freezes.lift_ended())

    async def lifted() -> bool:
        return not await freezes.active()

    await comes(lifted, "both freezes to be lifted")
    go_on.touch()
    assert [hook.problem for hook in await lifting] == [None, None]


async def test_a_wrong_clock_lifts_no_freeze(home: House) -> None:
    """What is frozen under that clock ends by it."""
    freezes = service(home)
    before = await freezes.freeze(Selector.ALL, "", reason="x", by="root", for_=timedelta(hours=2))
    home.clock.at += timedelta(days=800)
    await freezes.lift_ended()
    await freezes.freeze(Selector.LIST, "news", reason="x", by="root", for_=timedelta(hours=1))
    assert len(await freezes.active()) == 2
    home.clock.pass_(hours=1)
    await freezes.lift_ended()
    assert await freezes.active() == (before.freeze,)
    home.clock.at -= timedelta(days=800)
    await freezes.lift_ended()
    assert await freezes.active() == (before.freeze,)
    home.clock.pass_(hours=1)
    await freezes.lift_ended()
    assert await freezes.active() == ()


async def test_a_failing_hook_at_expiry_is_logged(home: House, caplog: pytest.LogCaptureFixture) -> None:
    hook = ("/bin/sh", "-c", "echo no right to >&2; exit 7", "--token=hunter2")
    freezes = service(home, thaw_hook=[hook])
    await freezes.freeze(Selector.ALL, "", reason="x", by="root", for_=timedelta(minutes=5))
    home.clock.pass_(seconds=301)
    assert [h.problem for h in await freezes.lift_ended()] == ["it ended with status 7: no right to"]
    assert caplog.text.count("/bin/sh, run at a thaw: it ended with status 7: no right to") == 1
    assert "hunter2" not in caplog.text
    assert await freezes.active() == ()


async def test_failing_hooks_are_reported_and_the_freeze_stays(home: House) -> None:
    freezes = service(home, freeze_hook=[("/bin/sh", "-c", "exit 7"), ("/nonexistent",), ("/bin/true",)])
    frozen = await freezes.freeze(Selector.ALL, "", reason="x", by="root")
    problems = [h.problem or "fine" for h in frozen.hooks]
    assert problems[0] == "it ended with status 7"
    assert "No such file" in problems[1]
    assert problems[2] == "fine"
    assert await freezes.active() == (frozen.freeze,)


async def test_a_hook_that_hangs_is_reported_and_the_freeze_stays(home: House) -> None:
    freezes = service(home, freeze_hook=[("/bin/sleep", "600"), ("/nonexistent",)], hook_seconds=0.1)
    frozen = await freezes.freeze(Selector.ALL, "", reason="x", by="root")
    hangs, missing = [h.problem or "fine" for h in frozen.hooks]
    assert "was killed" in hangs
    assert "No such file" in missing
    assert await freezes.active() == (frozen.freeze,)


async def test_a_freeze_that_cannot_be_stored_raises(home: House) -> None:
    class Down:
        def __init__(self) -> None:
            self.gate = self

        async def freeze(self, *_: Any) -> Any:
            raise Unavailable

    with pytest.raises(Unavailable):
        await Freezes(Down(), SteadyClock(home.clock), new_id=lambda: "F").freeze(Selector.ALL, "", reason="", by="")  # type: ignore[arg-type]


FREEZE = Freeze(
    freeze_id="F", selector=Selector.ALL, value="", reason="x", by="root", at=datetime(2026, 3, 2, tzinfo=UTC)
)


async def shell(script: str, seconds: float = 30) -> Hook:
    return await run(("/bin/sh", "-c", script), "freeze", FREEZE, "root", seconds=seconds)


async def python(code: str) -> Hook:
    return await run((sys.executable, "-c", code), "freeze", FREEZE, "root", seconds=30)


@every(
    ("script", "problem"),
    [
        ("true", None),
        ("echo a warning >&2", None),
        ("exit 7", "it ended with status 7"),
        ("echo on out; echo one >&2; echo 'main.cf: denied' >&2; echo >&2; exit 1", "it ended with status 1: main.cf: denied"),
    ],
)  # fmt: skip
async def test_the_last_line_of_standard_error_of_a_failing_hook_is_reported(script: str, problem: str | None) -> None:
    assert (await shell(script)).problem == problem


async def test_control_characters_and_invalid_octets_are_removed() -> None:
    hook = await python(r"import os; os.write(2, b'a\x1b[31m\xff\xe2\x80\xaeb\n'); raise SystemExit(1)")
    assert hook.said.isprintable() or "\N{REPLACEMENT CHARACTER}" in hook.said
    assert not set("\x1b\u202e") & set(hook.said)
    assert hook.said.startswith("a")


async def test_the_reported_output_is_bounded() -> None:
    hook = await python("import sys; sys.stderr.write('x' * 5_000_000 + 'END\\n'); sys.exit(1)")
    assert hook.said.startswith("xxx")
    assert len(hook.said) == LAST_CHARACTERS + 3


async def test_a_hook_that_takes_too_long_is_killed() -> None:
    for seconds in (0.5, 5, 50):  # until this machine has time to start it
        hook = await shell("echo waiting for the queue >&2; exec sleep 600", seconds=seconds)
        if hook.said:
            break
    assert hook.problem == f"it took longer than {seconds:g} s and was killed: waiting for the queue"


async def test_a_hook_that_cannot_be_started_is_reported() -> None:
    hook = await run(("/nonexistent",), "freeze", FREEZE, "root", seconds=5)
    assert hook.problem == "it could not be started: No such file or directory"


async def test_background_processes_of_a_hook_are_not_waited_for() -> None:
    async with asyncio.timeout(120):
        hook = await shell("sleep 30 & echo gone >&2; exit 1")
    assert hook.said == "gone"


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_file_descriptor_stays_open() -> None:
    await shell("true")  # opens what asyncio keeps
    gc.collect()  # closes what earlier tests left open, before the first count
    before = opened()
    await asyncio.gather(*(shell("echo x >&2; exit 1") for _ in range(5)), run(("/no",), "thaw", FREEZE, "", seconds=1))
    assert opened() == before
