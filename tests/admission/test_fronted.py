"""Verdicts recorded in the journal's front: only those that no other admission depends on, with the entries that the
admission would write."""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smtpguard.database.errors import Unavailable
from smtpguard.gathering.gather import Gather
from smtpguard.gathering.reader import BoundedReader
from smtpguard.mail.envelope import Lost
from smtpguard.mail.message import Message
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Deferred, Held, Relayed
from smtpguard.reading.read import read
from smtpguard.reading.request import Depth, Surroundings
from tests.app.twoguards import LATER, TwoGuards, documents, sample
from tests.guard.drawing import COLLEAGUES, OUTSIDERS, drawn_policies, letter, play
from tests.guard.house import KEY, MEMBERS, RAMADAN, FakePassage, House, house, index
from tests.store.making import sqlite_url


class RecordingFront:
    """A journal's front that keeps what was recorded in it."""

    def __init__(self, front: Any) -> None:
        self._front = front
        self.recorded: list[str] = []
        self.raises: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front, name)

    async def record(self, event: Any, **more: Any) -> bool:
        if self.raises is not None:
            raise self.raises
        there: bool = await self._front.record(event, **more)
        if there:
            self.recorded.append(event.id)
        return there


@pytest.fixture
async def fronted(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, fronted=True) as made:
        made.front = RecordingFront(made.front)
        yield made


async def sent(home: House, *to: str, **more: Any) -> tuple[str, Any]:
    transaction = home.transaction(*to, **more)
    return transaction.id, await home.intake()(transaction, more.pop("way", None) or FakePassage())


async def test_a_plain_message_is_recorded_in_the_front(fronted: House) -> None:
    way = FakePassage()
    transaction = fronted.transaction("x@example.org")
    done, id = await fronted.intake()(transaction, way), transaction.id
    assert isinstance(done, Relayed)
    assert way.begun == 1
    assert fronted.front.recorded == [id]
    kinds = [kind for kind, _ in await fronted.settled(id)]
    assert kinds == ["verdict", "outcome"]


async def test_an_outage_is_over_when_the_front_records_again(fronted: House, caplog: pytest.LogCaptureFixture) -> None:
    intake = fronted.intake()
    for error in (Unavailable("the disk is away"), None):
        fronted.front.raises = error
        await intake(fronted.transaction("x@example.org"), FakePassage())
    assert caplog.messages == ["not recorded: Unavailable: the disk is away", "not recorded: over, after 0 s"]


@pytest.mark.parametrize("to", [[RAMADAN], [MEMBERS[0]], MEMBERS[:25], ["x@example.org", MEMBERS[0]]])
async def test_mail_to_a_list_is_never_recorded_in_the_front(fronted: House, to: list[str]) -> None:
    await sent(fronted, *to)
    assert fronted.front.recorded == []


@pytest.mark.parametrize(
    ("selector", "value"), [(Selector.ALL, ""), (Selector.LIST, "other"), (Selector.SENDER, "bo@x.org")]
)
@pytest.mark.parametrize("seen", [True, False])
async def test_during_a_freeze_the_front_is_not_used(
    fronted: House, selector: Selector, value: str, seen: bool
) -> None:
    await fronted.freeze(selector, value, seen=seen)
    id, done = await sent(fronted, "x@example.org")
    assert fronted.front.recorded == []
    assert isinstance(done, Held if selector is Selector.ALL else Relayed)
    await fronted.thaw()
    id, done = await sent(fronted, "x@example.org", body="after")
    assert fronted.front.recorded == [id]


async def test_the_front_is_not_used_until_a_new_policy_is_followed(fronted: House) -> None:
    other = documents(sample())
    await fronted.put(other)
    id, done = await sent(fronted, "x@example.org")
    assert isinstance(done, Relayed)
    assert fronted.front.recorded == [], "the admission judged it again"
    await fronted.watch.read()
    id, _ = await sent(fronted, "x@example.org", body="then")
    assert fronted.front.recorded == [id]


async def test_with_a_stale_gate_the_front_is_not_used(fronted: House) -> None:
    fronted.clock.pass_(seconds=2)
    _, done = await sent(fronted, "x@example.org")
    assert fronted.front.recorded == []
    assert done is not None


async def test_a_retry_of_held_mail_gets_its_hold(fronted: House) -> None:
    await fronted.freeze()
    _, first = await sent(fronted, "x@example.org")
    assert isinstance(first, Held)
    await fronted.thaw()
    _, again = await sent(fronted, "x@example.org")
    assert again == first
    assert fronted.front.recorded == []


async def test_senders_that_a_rule_counts_are_not_recorded_in_the_front(tmp_path: Path) -> None:
    async with house(tmp_path, documents=documents(sample()), fronted=True) as home:
        home.front = RecordingFront(home.front)
        first, _ = await sent(home, "x@example.org")
        assert home.front.recorded == [first]
        _, done = await sent(home, MEMBERS[0], X_Looks="mailing")
        assert isinstance(done, Relayed)
        await sent(home, "x@example.org", body="again")
        assert home.front.recorded == [first], "a rule counts her mail"
        other, _ = await sent(home, "x@example.org", sender="ulf@example.com", reverse_path="ulf@example.com")
        assert home.front.recorded == [first, other]


async def test_an_alarm_of_a_plain_message_is_given(tmp_path: Path) -> None:
    """The look whether the front may be used must not count as the alarm."""
    policy = sample()
    policy["rules"].append({"id": "call", "when": {"recipients.total": ">= 1"}, "then": "alarm"})
    async with house(tmp_path, documents=documents(policy), fronted=True) as home:
        home.front = RecordingFront(home.front)
        id, done = await sent(home, "x@example.org")
        assert isinstance(done, Relayed)
        assert [kind for kind, _ in await home.settled(id)] == ["verdict", "alarm", "outcome"]
        assert home.front.recorded == []


async def test_a_freeze_just_before_the_dot_recalls(fronted: House) -> None:
    """The fence reads the gate's generation again, however recently the gate was read, and recalls the message."""
    way = FakePassage(before_dot=lambda: fronted.freeze(seen=False))
    transaction = fronted.transaction("x@example.org")
    done = await fronted.intake()(transaction, way)
    assert way.sent == []
    assert not isinstance(done, Relayed)
    assert fronted.front.recorded == [transaction.id]
    kinds = [(kind, data.get("outcome") or data["action"]) for kind, data in await fronted.settled(transaction.id)]
    assert kinds[:2] == [("verdict", "relay"), ("outcome", "recalled")]
    assert (await fronted.store.journal.verify()).ok


async def test_an_unavailable_front_defers(fronted: House) -> None:
    fronted.front.raises = Unavailable("no")
    way = FakePassage()
    done = await fronted.intake()(fronted.transaction("x@example.org"), way)
    assert isinstance(done, Deferred)
    assert (done.reply.code, way.sent) == (451, [])


async def test_an_error_before_the_record_leaves_it_to_the_admission(
    fronted: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bool:
        raise ValueError("a mistake")

    monkeypatch.setattr("smtpguard.admission.intake.alone", broken)
    id, done = await sent(fronted, "x@example.org")
    assert isinstance(done, Relayed)
    assert fronted.front.recorded == []
    assert [kind for kind, _ in await fronted.settled(id)] == ["verdict", "outcome"]


async def test_a_relay_lost_after_the_dot_is_in_doubt(fronted: House) -> None:
    transaction = fronted.transaction("x@example.org")
    done = await fronted.intake()(transaction, FakePassage(raises=Lost(LATER, after_dot=True)))
    assert isinstance(done, Deferred)
    assert [kind for kind, _ in await fronted.settled(transaction.id)] == ["verdict", "in-doubt"]


async def test_a_disconnected_client_is_not_recorded(fronted: House) -> None:
    _, done = await sent(fronted, "x@example.org", gone=lambda: True)
    assert isinstance(done, Deferred)
    assert fronted.front.recorded == []


# the same entries with and without a front


async def entries(home: House) -> dict[str, list[tuple[str, str, Any]]]:
    """(Kind, body, clear values) of all entries, by id."""
    await home.store.journal.record(())
    found: dict[str, list[tuple[str, str, Any]]] = {}
    for entry, clear in await home.store.journal.entries(limit=100_000):
        found.setdefault(entry.id, []).append((entry.kind, entry.body, clear))
    return found


def _alarmed(policy: Any) -> Any:
    rule = {"id": "call", "when": {"recipients.total": ">= 2"}, "then": "alarm"}
    return policy | {"rules": [*policy["rules"], rule]}


@pytest.mark.parametrize("seed", range(6))
async def test_the_fronts_entries_equal_the_admissions(tmp_path: Path, seed: int) -> None:
    """With a front the entries equal those of the admission, for random policies, messages, freezes and decisions."""
    chance = random.Random(seed)
    policy = sample() if seed % 3 == 0 else drawn_policies(chance)[0]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        index(tmp_path / name / "indexes", "staff", [f"colleague{n}@example.com" for n in range(30)])
        index(tmp_path / name / "indexes", "offers", ["x1@example.org", *MEMBERS[:3]])
        sqlite_url(tmp_path / name / "guard.db")
        with closing(sqlite3.connect(tmp_path / name / "guard.db")) as database, database:
            database.execute("UPDATE head SET journal = '00ff00ff00ff00ff'")
    async with (
        house(tmp_path / "first", documents=documents(_alarmed(policy)), fronted=False) as first,
        house(tmp_path / "second", documents=documents(_alarmed(policy)), fronted=True) as second,
    ):
        second.front = RecordingFront(second.front)
        both = TwoGuards(first, second, policy, deepcopy(policy))

        async def reload(other: Any) -> None:
            for home in (first, second):
                await home.put(documents(_alarmed(other)))
                await home.follow()
                await home.watch.read()

        async def pass_and_look(home: House) -> None:
            await home.watch.read()

        send = both.send

        async def looked(*to: str, **more: Any) -> None:
            await pass_and_look(first)
            await pass_and_look(second)
            await send(*to, **more)
            _, plain = letter(chance, 0)
            some = chance.choice([OUTSIDERS, COLLEAGUES])
            plain |= {"id": f"{more['id']}-plain", "body": f"plain {more['id']}", "To": None}
            await send(*chance.sample(some, chance.choice([1, 1, 2])), **plain)

        both.reload, both.send = reload, looked  # type: ignore[method-assign, assignment]
        await play(both, chance, 60)
        one, two = await entries(first), await entries(second)
        assert one == two
        assert (await second.store.journal.verify()).ok
        assert second.front.recorded, "no case was tried"
        assert "alarm" in {kind for entries in two.values() for kind, *_ in entries}


# what is remembered from one message to the next


class _Never(frozenset[str]):
    def isdisjoint(self, other: Any) -> bool:
        return False


def _forget(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an ordinary message leaves for the next, or takes a shorter way by."""
    monkeypatch.setattr("smtpguard.reading.read._READ_FIELDS", _Never())
    monkeypatch.setattr("smtpguard.lists.registry.of_no_list", lambda recipients, distinct: None)
    for name, module in list(sys.modules.items()):
        if name.startswith("smtpguard."):
            for each in list(vars(module).values()):
                if hasattr(each, "cache_clear"):
                    each.cache_clear()
    monkeypatch.setattr("smtpguard.mail.address.is_plain", lambda text: None)
    rules: Any = home.in_force.rules
    for each in (rules._reckoned, rules._judged):
        each.cache_clear()
    object.__setattr__(rules, "_questions", rules._questions_of_subject)
    object.__setattr__(rules, "_worded", ())
    object.__setattr__(rules, "_sized", ())
    home.front._seal._repeated = frozenset()


def _header(chance: random.Random, n: int, to: list[str]) -> bytes:
    """Of nearly ordinary mail."""
    usual = {
        "From": chance.choice(["Anna <anna@example.com>", "anna@example.com", "Bo <Bo+x@Example.com>", '"B, o" <bo@example.com>', "a@example.com, b@example.org", "", "=?utf-8?Q?=C3=85sa?= <asa@example.com>"]),
        "To": chance.choice([", ".join(to), to[0], f"You <{to[0].upper()}>", "undisclosed-recipients:;", f"(x) {to[-1]}"]),
        "Subject": chance.choice([f"Order {n}", f"SV: lunch {n}", "=?utf-8?Q?M=C3=B6te?=", "", "a\r\n b"]),
        "Message-ID": f"<{n}@example.com>",
        "Date": "Mon, 2 Mar 2026 09:00:00 +0000",
        "Content-Type": chance.choice(["text/plain", "text/plain", "multipart/report; report-type=delivery-status"]),
    }  # fmt: skip
    telling = {
        "References": "<talk@example.com> <2@example.org>",
        "in-reply-to": "<talk@example.com>",
        "Thread-Index": "AdkxbZ8yQwJtQnVhTn2zqk6Zr8vS3A==",
        "Auto-Submitted": "auto-replied",
        "Precedence": "bulk",
        "Return-Path": "<>",
        "Sensitivity": "Company-Confidential",
        "X-Classification": "secret",
        "X-Campaign": "spring",
        "List-Id": "<news.lists.example.com>",
        "Authentication-Results": "mx.example.com; dkim=pass header.d=example.com",
        "Cc": "cc@example.org",
        "Reply-To": "other@example.com",
        "from": "ulf@example.com",
        "X-Smtpguard": "id=1; policy=; mac=0",
        "Received": "from [192.0.2.1] by x",
    }
    more = chance.sample(sorted(telling), chance.choice([0, 0, 0, 1, 1, 2]))
    lines = [
        f"{name}: {value}\r\n" for name, value in {**usual, **{name: telling[name] for name in more}}.items() if value
    ]
    chance.shuffle(lines)
    if chance.random() < 0.05:
        lines.insert(chance.randrange(len(lines)), "no field\r\n")
    return "".join(lines).encode()


async def _played(
    folder: Path, script: list[tuple[Any, ...]], policy: Any, forget: Callable[[House], None] | None
) -> tuple[Any, ...]:
    """What became of each message, the bytes sent, what its header says, all entries with their clear values, and the
    counts."""
    sqlite_url(folder / "guard.db")
    with closing(sqlite3.connect(folder / "guard.db")) as database, database:
        database.execute("UPDATE head SET journal = '00ff00ff00ff00ff'")
    index(folder / "indexes", "staff", [f"colleague{n}@example.com" for n in range(30)])
    index(folder / "indexes", "offers", ["x1@example.org", *MEMBERS[:3]])
    became: list[Any] = []
    async with house(folder, documents=documents(policy)) as home:
        near = Surroundings(domains=frozenset({"example.com"}), list_addresses=frozenset({RAMADAN}), delimiters="+")
        reader = BoundedReader(lambda: (home.in_force.sha256, near))
        home.gather = Gather(reader=reader, verifier=home.verifier, trace_key=KEY)
        intake = home.intake()
        for act, *more in script:
            if act == "reload":
                await home.put(documents(more[0]))
                await home.follow()
            elif act == "sync":
                index(home.folder, more[0], more[1], home.clock.now())
            elif act == "pass":
                home.clock.pass_(seconds=more[0])
            else:
                id, to, raw, session, reverse_path = more
                made = home.transaction(*to, id=id, session=session, reverse_path=reverse_path)
                transaction = replace(made, message=Message.of(raw))
                await home.watch.read()
                if forget is not None:
                    forget(home)
                way = FakePassage()
                seen = read(transaction.message, near, Depth.HEADERS, marked=False)
                became.append((await intake(transaction, way), way.sent, seen))
        written = await entries(home)
        assert (await home.store.journal.verify()).ok
        assert home.front._number, "the front was never used"
        await reader.close()
        with closing(sqlite3.connect(folder / "guard.db")) as database:
            counts = [sorted(database.execute(f"SELECT * FROM {table}")) for table in ("moment", "person")]
    return became, written, counts


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_remembered_changes_nothing(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same verdicts, trace headers, entries, clear values and counts, whether messages leave something to later
    ones or not, with other policies, lists and days between them."""
    chance = random.Random(seed)
    policy, after, _ = drawn_policies(chance)
    script: list[tuple[Any, ...]] = []
    for n in range(100):
        act = chance.random()
        if act < 0.03:
            script.append(("reload", chance.choice([policy, after, sample()])))
        elif act < 0.08:
            script.append(("sync", chance.choice(["ramadan", "news"]), chance.sample([*MEMBERS, *OUTSIDERS], 20)))
        elif act < 0.2:
            script.append(("pass", chance.choice([1, 2, 60, 4000, 90_000])))
        some = chance.choice([OUTSIDERS, OUTSIDERS, COLLEAGUES, MEMBERS, [RAMADAN, *OUTSIDERS]])
        to = chance.sample(some, chance.choice([1, 1, 1, 2, 3]))
        session = chance.choice([{}, {}, {"auth_user": "anna@example.com"}, {"client_ip": "10.1.2.3"}])
        raw = _header(chance, n, to) + f"\r\nHello {n % 7}\r\n".encode()
        script.append(
            ("send", f"T{n:015d}", to, raw, session, chance.choice(["anna@example.com", "bo@example.com", ""]))
        )
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    remembering = await _played(tmp_path / "first", script, policy, None)
    with monkeypatch.context() as patch:
        forgetting = await _played(tmp_path / "second", script, policy, lambda home: _forget(home, patch))
    assert remembering == forgetting
