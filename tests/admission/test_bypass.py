"""The emergency bypass: what it relays while the store is away, everything that it does not, and what the store takes
over from it later."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from smtpguard.admission.bypass import AWAY_SECONDS, BypassPath
from smtpguard.database.batch import read_head
from smtpguard.database.errors import Unavailable
from smtpguard.journal import bypass as files
from smtpguard.journal.bypass import Bypass, Bypasses, Front
from smtpguard.journal.front import Fronted
from smtpguard.mail.envelope import Lost
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Deferred, Disposition, Relayed
from smtpguard.store.bypassed import Bypassed
from tests.app.twoguards import LATER, documents
from tests.every import every
from tests.guard.house import KEY, MEMBERS, POLICY, RAMADAN, FakePassage, House, PatchedStore, house, index

PEOPLE = ("eva@example.com", "omar@example.com")
OUTSIDE = "peter@partner.example"
LETTER: dict[str, Any] = {"X_Looks": "mailing"}


def lenient() -> dict[str, bytes]:
    """The house's policy without rules that count over messages."""
    policy = yaml.safe_load(POLICY)
    policy["rules"] = [rule for rule in policy["rules"] if "mailing.customers" not in rule["when"]]
    return documents(policy)


class Away:
    """A house whose store is away, with a bypass in force."""

    def __init__(self, home: House, folder: Bypasses, journal: str) -> None:
        self.home, self.folder, self._journal = home, folder, journal
        self.kept = self._opened()

    def _opened(self) -> Bypassed:
        home = self.home
        kept = Bypassed(
            self.folder, path=home.store.file, journal=self._journal, secret=KEY, now=home.clock.now,
            take=home.store.journal.take_fronts, note=home.store.journal.note,
        )  # fmt: skip
        home.bypass = BypassPath(kept, home.store, home.watch, home.clock, trace_key=KEY, hostname="guard.example.com")
        return kept

    def begin(self, id: str = "B1", minutes: int = 30) -> Bypass:
        now = self.home.clock.now()
        made = Bypass(
            id=id, people=PEOPLE, user="root", host="here", reason="A fire", begins=now,
            ends=now + timedelta(minutes=minutes),
        )  # fmt: skip
        self.folder.begin(made)
        return made

    def leave(self) -> None:
        """The store goes away."""
        self.home.clock.pass_(seconds=AWAY_SECONDS)

        async def away(*_: Any) -> Any:
            raise Unavailable("no connection")

        self.home.given_store = PatchedStore(self.home.store, {"admit": away})

    async def back(self) -> None:
        """It is back; what was recorded is taken over, twice."""
        self.home.given_store = self.home.store
        await self.home.watch.read()
        self.kept.close()
        for _ in range(2):
            await self.home.store.journal.take_fronts()

    async def sent(self, *to: str, way: FakePassage | None = None, **more: Any) -> tuple[str, Disposition]:
        transaction = self.home.transaction(*to, **more)
        return transaction.id, await self.home.intake()(transaction, way or FakePassage())

    async def events(self, id: str) -> list[tuple[str, dict[str, Any]]]:
        return await self.home.settled(id)

    def verdicts(self) -> list[Fronted]:
        """Those that are recorded beside the store."""
        found = [read for path in self.folder.fronts() if (read := files.read(path)) is not None]
        return [line for each in found for line in each.lines if line.key]


@asynccontextmanager
async def away(tmp_path: Path, **more: Any) -> AsyncIterator[Away]:
    async with house(tmp_path, fronted=more.pop("fronted", False), **more) as home:
        made = Away(home, Bypasses(tmp_path), (await home.store.ask(read_head)).journal)
        try:
            yield made
        finally:
            made.kept.close()


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Away]:
    async with away(tmp_path, documents=lenient()) as made:
        await made.home.bypass.look()
        made.begin()
        made.leave()
        yield made


async def test_mail_is_recorded_before_the_dot_and_taken_over_once(there: Away) -> None:
    seen: list[str] = []
    way = FakePassage(before_dot=lambda: seen.extend(line.kind for line in there.verdicts()))
    id, done = await there.sent(OUTSIDE, way=way)
    assert isinstance(done, Relayed)
    assert (seen, len(way.sent)) == (["verdict"], 1)
    await there.back()
    assert [kind for kind, _ in await there.events(id)] == ["verdict", "outcome"]
    assert (await there.events(id))[0][1]["bypass"] == "B1"
    begun, adopted = await there.events("B1")
    assert (begun[1]["change"], adopted[1]["change"], adopted[1]["messages"]) == ("begun", "adopted", 1)
    proof = await there.home.store.journal.verify()
    assert (proof.ok, proof.bypassed) == (True, {"B1": 1})
    there.home.clock.pass_(minutes=30)
    await there.home.store.journal.take_fronts()
    assert [data["change"] for _, data in await there.events("B1")] == ["begun", "adopted", "ended"]
    assert not there.folder.has_files, "all of it is in the journal, so the files are gone"


async def test_people_on_lists_get_letters(there: Away) -> None:
    for to in (MEMBERS[:1], MEMBERS[:3]):
        assert isinstance((await there.sent(*to, **LETTER))[1], Relayed)


async def refused(there: Away, *to: str, **more: Any) -> None:
    way = more.pop("way", None) or FakePassage()
    before = len(there.verdicts())
    _, done = await there.sent(*(to or (OUTSIDE,)), way=way, **more)
    assert isinstance(done, Deferred)
    assert done.reply.code == 451
    assert (way.sent, len(there.verdicts())) == ([], before)


@every(
    ("to", "more"),
    [
        ([RAMADAN], LETTER),
        ([OUTSIDE, "news@lists.example.com"], LETTER),
        (MEMBERS[:4], LETTER),
        (MEMBERS[:2], LETTER | {"To": OUTSIDE}),  # hidden: no correspondence
        (MEMBERS[:1], LETTER | {"X_Forwarded_Thread": "yes"}),
        ([OUTSIDE], LETTER | {"reverse_path": RAMADAN}),
    ],
)
async def test_what_needs_the_store_waits(there: Away, to: list[str], more: dict[str, Any]) -> None:
    await refused(there, *to, **more)


async def test_a_stream_with_a_limit_waits(there: Away) -> None:
    there.home.verifier.domains = frozenset({"shop.example.com"})
    await refused(there, sender="noreply@example.com", session={"client_ip": "10.1.2.3"})


async def test_a_list_that_cannot_answer_counts_at_its_worst(there: Away) -> None:
    index(there.home.folder, "news", ["reader@example.org"], at=there.home.clock.now() - timedelta(days=90))
    there.home.in_force = there.home.build(lenient())
    assert isinstance((await there.sent("a@example.org", **LETTER))[1], Relayed)
    await refused(there, *(f"{name}@example.org" for name in "abcd"), **LETTER)


async def test_a_rule_that_counts_over_messages_takes_effect(tmp_path: Path) -> None:
    policy = yaml.safe_load(POLICY)
    policy["rules"].append({"id": "busy", "when": {"sender.customers": ">= 25 in 1h"}, "then": "defer"})
    async with away(tmp_path, documents=documents(policy)) as there:
        there.begin()
        there.leave()
        await refused(there, MEMBERS[0], **LETTER)
        await refused(there, OUTSIDE, **LETTER)


@every(
    ("selector", "value", "to"),
    [
        (Selector.ALL, "", OUTSIDE),
        (Selector.LIST, "ramadan", MEMBERS[0]),
        (Selector.SENDER, "anna@example.com", OUTSIDE),
        (Selector.THREAD, "<1@example.com>", OUTSIDE),
        (Selector.MAILING, "SOMEOTHERMAILING", OUTSIDE),
    ],
)
async def test_what_a_freeze_last_seen_concerns_waits(
    tmp_path_factory: pytest.TempPathFactory, selector: Selector, value: str, to: str
) -> None:
    async with away(tmp_path_factory.mktemp("frozen"), documents=lenient()) as there:
        await there.home.freeze(selector, value)
        await there.home.bypass.look()
        there.begin()
        there.leave()
        await refused(there, to, **LETTER)
        if selector is Selector.LIST:
            assert isinstance((await there.sent(OUTSIDE, **LETTER))[1], Relayed), "it is for others"


async def test_letters_of_those_who_wrote_what_waits_wait(tmp_path: Path) -> None:
    async with away(tmp_path, documents=lenient()) as there:
        await there.sent(RAMADAN, X_Looks="internal")
        assert len(await there.home.holds()) == 1
        await refused_letters(there, looked=False)
        await there.home.bypass.look()
        there.home.given_store = there.home.store
        await refused_letters(there, looked=True)


async def refused_letters(there: Away, *, looked: bool) -> None:
    """``looked``: it is known who wrote what waits."""
    there.begin(id=f"B{looked}")
    there.leave()
    await refused(there, MEMBERS[0], **LETTER)
    other = LETTER | {"sender": "ulf@example.com", "reverse_path": "ulf@example.com", "body": "Hello"}
    if looked:
        assert isinstance((await there.sent(MEMBERS[0], **other))[1], Relayed)
    else:
        await refused(there, MEMBERS[0], **other)
    there.folder.end(there.home.clock.now(), "root")
    await there.home.watch.read()


def _nothing(there: Away) -> None:
    there.folder.end(there.home.clock.now(), "eva")


def _late(there: Away) -> None:
    there.home.clock.pass_(minutes=30)


def _unreadable(there: Away) -> None:
    (there.folder.folder / "B1.json").write_text("{")


def _moved(there: Away) -> None:
    there.folder.begin_generation(1000)


def _another_file(there: Away) -> None:
    path = Path(there.home.store.file)
    path.rename(path.with_name("elsewhere.db"))


@every("change", [_nothing, _late, _unreadable, _moved, _another_file])
async def test_without_a_bypass_mail_waits(
    tmp_path_factory: pytest.TempPathFactory, change: Callable[[Away], None]
) -> None:
    async with away(tmp_path_factory.mktemp("none"), documents=lenient()) as there:
        there.begin()
        there.leave()
        change(there)
        await refused(there)


async def test_while_the_store_is_there_the_admission_decides(tmp_path: Path) -> None:
    async with away(tmp_path, documents=lenient()) as there:
        there.begin()
        id, done = await there.sent(OUTSIDE)
        assert isinstance(done, Relayed)
        assert there.verdicts() == []
        assert "bypass" not in (await there.events(id))[0][1]


@pytest.mark.parametrize("earlier", [False, True])
async def test_mail_waits_while_its_record_cannot_be_written(
    there: Away, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    """``earlier``: a message was recorded before, so the file is there."""
    if earlier:
        await there.sent(OUTSIDE, body="earlier")

    def fails(file: int, octets: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fails)
        way = FakePassage()
        _, done = await there.sent(OUTSIDE, way=way)
    assert isinstance(done, Deferred)
    assert (done.reply.code, way.sent) == (452, [])
    id, done = await there.sent(OUTSIDE)
    assert isinstance(done, Relayed), "there is room again"
    await there.back()
    assert [kind for kind, _ in await there.events(id)] == ["verdict", "outcome"]
    assert there.folder.aside() == []


def test_an_outcome_follows_its_verdict_after_a_failed_write(there: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    front, now, bypass = Front(there.folder, "journal"), there.home.clock.now, there.folder.all()[0]

    def line(kind: str, id: str) -> Fronted:
        return Fronted(number=0, marks="", kind=kind, id=id, at=1, body="{}", clear=None, key="k", generation=1000)

    for n in range(8):
        assert front.record(bypass, line("verdict", f"{n}"), now)
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", Mock(side_effect=OSError(28, "no room")))
            with pytest.raises(OSError, match="no room"):
                front.record(bypass, line("verdict", "failed"), now)
        with pytest.raises(OSError, match="closed"):
            front.note(line("outcome", f"{n}"))
    assert front.record(bypass, line("verdict", "8"), now)
    front.note(line("outcome", "0"))
    front.close()
    found = [read.lines for path in there.folder.fronts() if (read := files.read(path)) is not None]
    assert [[one.id for one in lines] for lines in found] == [*([str(n)] for n in range(8)), ["8", "0"]]


async def test_ended_before_the_dot_it_is_recalled(there: Away) -> None:
    way = FakePassage(before_dot=lambda: there.folder.end(there.home.clock.now(), "root"))
    id, done = await there.sent(OUTSIDE, way=way)
    assert isinstance(done, Deferred)
    assert way.sent == []
    await there.back()
    assert [data.get("outcome") for _, data in await there.events(id)] == [None, "recalled"]


async def test_what_the_relay_may_have_is_in_doubt(there: Away) -> None:
    id, done = await there.sent(OUTSIDE, way=FakePassage(raises=Lost(LATER, after_dot=True)))
    assert isinstance(done, Deferred)
    await there.back()
    assert [kind for kind, _ in await there.events(id)] == ["verdict", "in-doubt"]


async def test_one_in_doubt_leaves_the_outcomes_of_others(there: Away) -> None:
    await there.sent(OUTSIDE)
    await there.sent(OUTSIDE, body="another", way=FakePassage(raises=Lost(LATER, after_dot=True)))
    await there.back()
    there.home.clock.pass_(hours=1)
    assert await there.home.store.journal.doubt(there.home.clock.now()) == ()


async def test_a_freeze_later_stops_the_rest_and_the_journal_holds(there: Away) -> None:
    """The freeze is entered behind what was relayed; a process that has not seen it records nothing more."""
    id, _ = await there.sent(OUTSIDE)
    await there.home.freeze(seen=False)
    await refused(there, body="later")
    entries = [e for e, _ in await there.home.store.journal.entries()]
    assert [e.kind for e in entries if (e.kind, e.id) == ("verdict", id) or e.kind == "freeze"] == ["verdict", "freeze"]
    assert (await there.home.store.journal.verify()).ok


@pytest.mark.parametrize("begun", [True, False])
async def test_a_verdict_behind_a_later_freeze_is_right_under_a_bypass_alone(
    there: Away, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the freeze was made on another host, while this one could not reach the store."""
    await there.sent(OUTSIDE)
    aside = there.folder.folder.rename(there.folder.folder.with_name("hidden"))
    await there.home.freeze()
    aside.rename(there.folder.folder)
    if not begun:
        beginning = Bypass.beginning
        monkeypatch.setattr(Bypass, "beginning", lambda self, at: beginning(replace(self, id="another"), at))
    await there.back()
    assert (await there.home.store.journal.verify()).ok is begun
    assert (await there.home.store.journal.audit("elsewhere")).ok is begun


async def test_another_process_takes_over_what_one_that_was_killed_recorded(there: Away) -> None:
    id, _ = await there.sent(OUTSIDE)
    there.kept.close()
    [path] = there.folder.fronts()
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])  # the outcome was being written
    await there.back()
    assert [kind for kind, _ in await there.events(id)] == ["verdict"]
    assert await there.home.store.journal.unsettled(there.home.clock.now() + timedelta(seconds=1)) == [id]
    path.write_bytes(whole)  # put back, as from a backup: only what is not known yet enters the journal
    await there.back()
    assert [kind for kind, _ in await there.events(id)] == ["verdict", "outcome"]
    assert (await there.home.store.journal.verify()).bypassed == {"B1": 1}


async def test_a_damaged_line_is_kept_and_the_others_are_taken_over(there: Away) -> None:
    await there.sent(OUTSIDE)
    second, _ = await there.sent(OUTSIDE, body="again")
    there.kept.close()
    [path] = there.folder.fronts()
    head, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join((head, b"x" + lines[0][1:], *lines[1:])))
    await there.back()
    assert [kind for kind, _ in await there.events(second)] == ["verdict", "outcome"]
    assert [file.name for file in there.home.store.journal.fronts_aside()] == [f"{path.name}.aside"]


async def test_a_front_of_another_journal_is_set_aside(there: Away) -> None:
    front = Front(there.folder, "another journal")
    now = there.home.clock.now
    line = Fronted(number=0, marks="", kind="verdict", id="X", at=1, body="{}", clear=None, key="k", generation=1000)
    assert front.record(there.folder.all()[0], line, now)
    front.close()
    await there.back()
    assert len(there.folder.aside()) == 1
    assert await there.events("X") == []


def test_a_bypass_whose_file_is_damaged_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every process looks for it every few seconds."""
    bypasses = Bypasses(tmp_path)
    bypasses.folder.mkdir()
    (bypasses.folder / "B1.json").write_text("?")
    assert [bypasses.newest() for _ in range(3)] == [None] * 3
    assert len(caplog.messages) == 1


async def test_only_the_newest_bypass_counts_and_an_earlier_one_is_told_too(there: Away) -> None:
    there.folder.end(there.home.clock.now(), "root")
    there.begin(id="B2")
    id, _ = await there.sent(OUTSIDE)
    await there.back()
    assert (await there.events(id))[0][1]["bypass"] == "B2"
    assert [(data["change"], data.get("early")) for _, data in await there.events("B1")] == [
        ("begun", None), ("ended", True),
    ]  # fmt: skip
