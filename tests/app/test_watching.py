"""Operational numbers of a real installation: read, and kept in memory while the store is away."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from smtpguard import __version__
from smtpguard.app import alarms, metrics, policycheck, start
from smtpguard.app.alarmchannels import FileMemory
from smtpguard.app.alarms import Alarms, Observer
from smtpguard.app.files import indexes
from smtpguard.app.lists import built_refresher
from smtpguard.app.metrics import OLD_SECONDS, Watching
from smtpguard.app.policies import Following
from smtpguard.app.services import opened
from smtpguard.app.status import Status, status
from smtpguard.cli.status import lines
from smtpguard.config.documents import shipped
from smtpguard.config.settings import Settings, read_settings
from smtpguard.database.engine import Database
from smtpguard.database.errors import Unavailable, reason
from smtpguard.holds.rows import add, row_of
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.linefiles import CHECKPOINTS
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import index_path
from smtpguard.locale.phrase import dump
from smtpguard.locale.speech import Speech
from smtpguard.observe.alarms import Alarm, RaisedAlarm, Seen, raised
from smtpguard.observe.metrics import BY_NAME, Spread
from smtpguard.observe.witnessing import SYSLOG, Sending
from smtpguard.policy.verdict import Action, Hit, Verdict
from smtpguard.processes.numbers import CLOCK_AHEAD, STORE_SERVES, Numbers, ProcessNumbers
from smtpguard.processes.statusfile import StatusFile, Tree
from smtpguard.store.store import Store
from smtpguard.wire.target import RelayTarget
from tests.clocks import Clock
from tests.peers.postfix import free_port
from tests.store.making import a_freeze, a_hold

LIST = "ramadan-greetings"


@dataclass
class Here:
    settings: Settings
    store: Store
    digester: Digester
    policies: Following
    clock: Clock
    watching: Watching

    async def look(self) -> None:
        await self.watching.look(self.store, self.policies)

    def number(self, name: str, *labels: str) -> float | None:
        """The value of a metric; None if it has no such labels."""
        number = self.watching.numbers().get(f"smtpguard_{name}", {}).get(labels)
        assert number is None or isinstance(number, (int, float))
        return number

    async def happens(self, kind: Kind, id: str = "H1", **data: object) -> None:
        await self.store.journal.record([Event(kind=kind, id=id, at=self.clock.now(), data=data)])

    def sync(self) -> None:
        refresher = built_refresher(self.settings, self.policies.policy, self.digester)
        for info in self.policies.current().registry.lists.values():
            refresher.sync(info, self.clock.now())


@asynccontextmanager
async def installation(
    folder: Path, webhooks: str = "[]", routes: str = "[]", audit: str = "{}"
) -> AsyncIterator[Here]:
    """A prepared sample installation, with its lists just read."""
    config = Path(shutil.copytree(shipped(), folder / "etc")) / "smtpguard.yaml"
    text = config.read_text().replace("webhooks: []", f"webhooks: {webhooks}")
    text = text.replace("port: 10026", f"port: {free_port()}")  # a machine may have a relay at the sample's
    config.write_text(text.replace("routes: []", f"routes: {routes}").replace("\naudit: {}", f"\naudit: {audit}"))
    settings = read_settings(config)
    await start.prepare(settings, by="root", parts=("proxy",))
    clock = Clock(datetime.now(UTC))
    async with opened(settings) as (store, digester):
        policies = Following(store, settings, digester, clock)
        yield Here(settings, store, digester, policies, clock, Watching(settings, clock))


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with installation(tmp_path) as made:
        yield made


async def test_the_state_of_the_policy_file_is_measured(here: Here) -> None:
    def told() -> tuple[float | None, ...]:
        return tuple(
            here.number(n) for n in ("policy_unreadable", "policy_file_differs", "policy_file_differed_at_start")
        )

    assert told() == (None, None, None)
    await here.look()
    assert told() == (0, 0, 0)
    file, text = here.settings.policy, here.settings.policy.read_text()
    file.write_text(text.replace("enforce: true", "enforce: false"))
    await here.look()
    assert told() == (0, 1, 0)
    await start.prepare(here.settings, by="root", parts=("console",))
    await here.look()
    assert (*told(), here.number("policy_enforced")) == (0, 1, 1, 1)
    file.write_text(text)
    await here.look()
    assert told() == (0, 0, 0)
    event = Event(kind=Kind.POLICY, id="P", at=here.clock.now(), data={"sha256": "f" * 64})
    await here.store.policies.put("f" * 64, {"policy.yaml": b"version: 2\n"}, event)
    await here.look()
    assert (told(), here.number("store_up")) == ((1, 1, 0), 1)


async def test_before_the_first_look_only_build_and_unknown_store_are_known(here: Here) -> None:
    numbers = here.watching.numbers()
    assert numbers["smtpguard_build_info"] == {(__version__,): 1}
    assert numbers["smtpguard_store_up"] == {(): 0}
    assert "smtpguard_holds_waiting" not in numbers
    assert not any(numbers[name] for name in numbers if name.startswith("smtpguard_list_"))


async def test_every_number_is_in_the_table_of_metrics(here: Here) -> None:
    await here.look()
    here.watching.told(TREE)
    numbers = here.watching.numbers()
    assert set(numbers) == set(BY_NAME)
    for name, series in numbers.items():
        of = BY_NAME[name].labels
        # the default relay has no route
        assert all(len(labels) in (len(of), len(of) - (of[-1:] == ("route",))) for labels in series), name


async def test_counters_of_the_policy_begin_at_zero(here: Here) -> None:
    await here.look()
    assert here.number("rule_messages_total", "internal-to-list", "hold") == 0
    assert here.number("rule_messages_total", "very-busy-writer", "observed") == 0
    assert here.number("list_news_total", "newsletter", "failed") == 0
    assert here.number("policy_info", here.policies.policy.sha256) == 1
    assert here.number("policy_enforced") == 1


async def test_decisions_count_by_rule_even_for_earlier_holds(here: Here) -> None:
    hit = Hit(rule="internal-to-list", action=Action.HOLD, reasons=())
    hold = a_hold("H1", at=here.clock.now(), verdict=Verdict(action=Action.HOLD, hits=(hit,)))
    await here.store.write(lambda batch: add(batch.connection, row_of(hold, "")))
    await here.look()
    assert here.number("rule_hold_ends_total", "internal-to-list", "approved") == 0
    here.clock.pass_(hours=3)
    await here.happens(Kind.APPROVED, "H1")
    await here.look()
    assert here.number("rule_hold_ends_total", "internal-to-list", "approved") == 1
    spread = here.watching.numbers()["smtpguard_decision_seconds"]["approved",]
    assert isinstance(spread, Spread)
    assert (spread.counts[-1], spread.total) == (1, 3 * 3600)


async def test_counters_begin_at_the_first_look(here: Here) -> None:
    await here.happens(Kind.EXPIRED)
    await here.look()
    assert here.number("hold_ends_total", "expired", "no") == 0
    await here.happens(Kind.EXPIRED, "H2")
    await here.happens(Kind.SIGN_IN_REFUSED, "A1", why="wrong password")
    await here.look()
    await here.look()
    assert here.number("hold_ends_total", "expired", "no") == 1
    assert here.number("events_total", "sign-in-refused") == 1
    assert here.number("journal_unread_entries") == 0


async def test_a_long_journal_is_read_in_several_looks(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PAGE", 2)
    monkeypatch.setattr(metrics, "PAGES", 2)
    await here.look()
    for n in range(7):
        await here.happens(Kind.EXPIRED, f"H{n}")
    await here.look()
    assert (here.number("hold_ends_total", "expired", "no"), here.number("journal_unread_entries")) == (4, 3)
    await here.look()
    assert (here.number("hold_ends_total", "expired", "no"), here.number("journal_unread_entries")) == (7, 0)


async def test_a_restored_journal_is_followed_from_its_end(here: Here) -> None:
    await here.happens(Kind.EXPIRED)
    await here.look()

    def put_back(b: Any) -> None:
        b.connection.exec_driver_sql("DELETE FROM entry WHERE seq > 2")
        b.head.seq = 2

    await here.store.write(put_back)
    await here.look()
    assert here.number("journal_entry") == 2
    await here.store.write(lambda b: b.record([Event(kind=Kind.EXPIRED, id="H3", at=here.clock.now())]))
    await here.look()
    assert here.number("hold_ends_total", "expired", "no") == 1


async def test_without_the_store_known_numbers_are_given_with_their_age(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.store.gate.freeze(a_freeze(), Event(kind=Kind.FREEZE, id="F1", at=here.clock.now()))
    await here.look()
    assert (here.number("store_up"), here.number("freezes", "all")) == (1, 1)
    stood = here.number("freezes_oldest_seconds")

    async def away(*_: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(here.store, "ask", away)
        here.clock.pass_(seconds=5)
        index_path(indexes(here.settings), "newsletter").unlink()
        with pytest.raises(Unavailable):
            await here.look()
        here.watching.failed()
    assert here.number("list_stale", "newsletter") == 1, "lists are still looked at"
    assert (here.number("store_up"), here.number("store_looked_seconds")) == (0, 5)
    assert here.number("freezes", "all") == 1
    assert here.number("freezes_oldest_seconds") == pytest.approx((stood or 0) + 5)
    await here.look()
    assert (here.number("store_up"), here.number("store_looked_seconds")) == (1, 0)


async def test_a_hanging_look_counts_as_a_store_that_is_down(here: Here) -> None:
    await here.look()
    here.clock.pass_(seconds=OLD_SECONDS - 1)
    assert here.number("store_up") == 1
    here.clock.pass_(seconds=1)
    assert here.number("store_up") == 0


async def test_a_database_that_takes_no_entry_is_not_up(here: Here) -> None:
    """A part finds it out: the queries of this one are answered."""
    await here.look()
    for fails in (1, 0):
        here.watching.told({**Numbers().told({}, [], {}, {}), "store": "it is full" if fails else ""})
        assert here.number("store_up") == 1 - fails
        assert here.watching.ready()["store"] == ("takes no entry" if fails else ""), (
            "a balancer then turns to another host"
        )


async def test_a_host_is_ready_as_long_as_those_who_take_mail_use_the_store(here: Here) -> None:
    """At a full number of connections only those who have one, and this part has none."""
    here.watching.told({**Numbers().told({}, [], {}, {}), "levels": {STORE_SERVES: 1}})
    assert not any(here.watching.ready().values()), "nor when it began"
    await here.look()
    here.watching.failed()
    here.watching.told({**Numbers().told({}, [], {}, {}), "store": "it is full"})
    assert here.watching.ready()["store"] == "does not answer"
    here.watching.told({**Numbers().told({}, [], {}, {}), "store": "it is full", "levels": {STORE_SERVES: 1}})
    assert here.watching.ready()["store"] == ""


async def test_list_numbers_describe_this_host(here: Here) -> None:
    await here.look()
    assert here.number("list_people", LIST) == 60
    assert (here.number("list_stale", LIST), here.number("list_failing", LIST)) == (0, 0)
    checked = here.number("list_checked_seconds", LIST)
    assert checked is not None
    here.clock.pass_(seconds=30)
    assert here.number("list_checked_seconds", LIST) == pytest.approx(checked + 30)
    source = here.settings.policy.parent / "lists" / "ramadan.csv"
    source.rename(source.with_suffix(".away"))
    here.sync()
    await here.look()
    assert (here.number("list_failing", LIST), here.number("list_stale", LIST), here.number("list_people", LIST)) == (
        1,
        0,
        60,
    )
    assert here.number("list_failing", "newsletter") == 0
    here.clock.pass_(days=30)
    await here.look()
    assert (here.number("list_stale", LIST), here.number("list_people", LIST)) == (1, 60)
    source.with_suffix(".away").rename(source)
    here.sync()
    await here.look()
    assert (here.number("list_failing", LIST), here.number("list_stale", LIST)) == (0, 0)


async def test_a_list_that_was_never_read_is_stale(here: Here) -> None:
    index_path(indexes(here.settings), LIST).unlink()
    await here.look()
    assert (here.number("list_stale", LIST), here.number("list_people", LIST)) == (1, None)
    assert here.number("list_checked_seconds", LIST) is None
    assert here.number("list_stale", "newsletter") == 0


async def test_a_new_policy_is_followed(here: Here) -> None:
    await here.look()
    path = here.settings.policy
    path.write_text(path.read_text().replace("enforce: true", "enforce: false"))
    before = here.policies.policy.sha256
    async with opened(here.settings) as (store, digester):
        put = await policycheck.propose_file(here.settings, store, digester)
        await policycheck.put(store, put, by="root", how="reload")
    await here.look()
    assert here.number("policy_enforced") == 0
    assert here.number("policy_info", put.sha256) == 1
    assert here.number("policy_info", before) is None
    assert here.number("events_total", "policy") == 1


async def test_lag_is_given_for_webhooks_in_the_settings_only(tmp_path: Path) -> None:
    """The lag is given for webhooks in the settings only: one that was removed must raise no alarm."""
    webhooks = '[{url: "https://chat.example.com/secret", name: chat, secret_file: s, events: [freeze.set]}]'
    async with installation(tmp_path, webhooks) as here:
        cursors = here.store.cursors
        place = await cursors.at("chat")
        await cursors.at("gone")
        await here.look()
        assert (here.number("webhook_lag_entries", "chat"), here.number("webhook_lag_seconds", "chat")) == (0, 0)
        await here.happens(Kind.FREEZE)
        await here.happens(Kind.THAW)
        here.clock.pass_(seconds=700)
        await here.look()
        assert (here.number("webhook_lag_entries", "chat"), here.number("webhook_lag_seconds", "chat")) == (2, 700)
        assert here.number("webhook_lag_entries", "gone") is None
        assert await cursors.pass_over("chat", place, place.told + 2)
        await here.look()
        assert (here.number("webhook_lag_entries", "chat"), here.number("webhook_lag_seconds", "chat")) == (0, 0)


async def test_a_receiver_that_takes_no_checkpoints(tmp_path: Path) -> None:
    """The metric, the alarm's figure, and what `status` shows, of one that has taken some and refuses since."""
    async with installation(tmp_path, audit='{syslog: "tcp://127.0.0.1:514"}') as here:
        answers = ["", "refused"]

        class Answering(Sending):
            async def _send(self, made: Checkpoint) -> str:
                return answers.pop(0)

        sending = Answering(here.store, here.clock, SYSLOG, "the syslog server")
        for _ in range(2):
            await here.happens(Kind.FREEZE)
            await here.store.journal.checkpoint()
            await sending.give()
        here.clock.pass_(seconds=1000)
        await here.look()
        assert here.number("checkpoints_refused_seconds", "syslog") == 1000
        seen = await Observer(here.settings, here.store, here.policies, here.clock).look()
        assert seen.refusing == {"syslog": 1000.0}
        found = await status(here.settings)
    [row] = found.receivers
    assert found.checkpoint is not None
    assert (row["receiver"], row["entry"]) == ("syslog", found.checkpoint["entry"] - 1)
    at, since = (f"{row[key]:%Y-%m-%d %H:%M} UTC" for key in ("at", "failing_since"))
    line = f"audit: syslog has those up to entry {row['entry']}, signed {at}; has taken none since {since}"
    assert line in [each.strip() for each in lines(found)]


async def test_status_says_that_the_quota_of_held_content_is_nearly_used_up(here: Here) -> None:
    found = await status(here.settings)
    assert found.waiting is not None
    assert found.quota == 20 << 30
    for kept, full in ((9, False), (91, True), (100, True)):
        found.waiting = replace(found.waiting, kept_bytes=kept * found.quota // 100)
        assert (f"held content fills {kept} % of hold: {{quota_gb}}" in "\n".join(lines(found))) is full


@pytest.mark.parametrize("schema", ["0000", "9999"])
async def test_a_schema_of_another_version_says_nothing_of_mail(tmp_path: Path, schema: str) -> None:
    """Between the installation of a version and its start, and after going back, another version decides on mail."""
    async with installation(tmp_path) as here:
        settings = here.settings
    with closing(sqlite3.connect(settings.state / "smtpguard.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (schema,))
    found = await status(settings)
    assert "store-away" not in [alarm.condition.name for alarm, _ in found.alarms]
    found.trees, found.alarms = [Tree(path=tmp_path, alive=True, row={"at": 0, "parts": []})], []
    said = list(lines(found))
    assert (found.fine, found.critical) == (False, 0)
    assert "the store is of another version, so that most is not known" in said[0]
    assert any(f"the database has schema {schema}" in line for line in said)


async def test_status_says_that_the_store_does_not_answer_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with installation(tmp_path) as here:
        settings = here.settings
    monkeypatch.setattr("smtpguard.app.status.STORE_SECONDS", 0.0)
    store = (await status(settings)).store
    assert store is not None
    assert store["problem"] == "no answer within 0 s"


async def test_an_empty_store_under_a_guard_that_serves_is_critical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with installation(tmp_path) as here:
        settings = here.settings
    serving: list[Tree] = []
    monkeypatch.setattr("smtpguard.app.status.trees", lambda state: serving)
    for file in settings.state.glob("smtpguard.db*"):
        file.unlink()
    (settings.state / CHECKPOINTS).unlink(missing_ok=True)
    found = await status(settings)
    assert (found.new, "store-away" in [alarm.condition.name for alarm, _ in found.alarms]) == (True, False)
    serving.append(Tree(path=tmp_path, alive=True, row={"at": 0, "parts": []}))
    found = await status(settings)
    assert (found.new, "store-away" in [alarm.condition.name for alarm, _ in found.alarms]) == (False, True)


async def test_a_store_that_takes_no_entry_is_seen_at_once(tmp_path: Path) -> None:
    """It can be read, and a transaction that writes nothing succeeds, as while the disk of a server is full."""
    async with installation(tmp_path) as here:
        file, numbers = StatusFile(here.settings.state), Numbers()
        full = psycopg.errors.DiskFull("could not extend file: No space left on device")
        why = reason(Database("postgresql://db/guard").translate(full))
        for now, fails in enumerate((False, True, False)):
            numbers.heard("proxy", ProcessNumbers(store=dump(why) if fails else ""))
            file.write(now * 10.0, file.row(now * 10.0, (), numbers, stopping=False))
            found = await status(here.settings)
            assert ("store-away" in [alarm.condition.name for alarm, _ in found.alarms]) is fails
            assert Alarms(here.settings).seen().store == (why if fails else None)
            assert found.store is not None
            assert found.store["problem"] == (why if fails else None)
            said = [Speech("sv").say(alarm.says) for alarm, _ in found.alarms if alarm.condition.name == "store-away"]
            assert bool(said) is fails
            assert all(
                "databasen har inget utrymme kvar: could not extend file: No space left on device (53100). Gör plats"
                in one
                for one in said
            )


def watching(settings: Settings, monkeypatch: pytest.MonkeyPatch, ready: bool) -> None:
    """A tree is alive whose alarms part is ``ready``, or is not."""
    tree = Tree(path=settings.state, alive=True, row={"at": 0, "parts": [{"part": "alarms", "ready": ready}]})
    monkeypatch.setattr("smtpguard.app.status.trees", lambda state: [tree])


async def test_a_relay_that_answers_the_command_alone_is_away(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a change of its password, which those who serve have read before."""

    async def answers(target: RelayTarget) -> str:
        return ""

    monkeypatch.setattr("smtpguard.app.status.relay_problem", answers)
    memory, sent = (
        FileMemory(here.settings.state),
        RaisedAlarm(key="relay-away", began=here.clock.now(), told=here.clock.now()),
    )
    for before, after, watched, away in (
        (None, sent, True, True),
        (sent, sent, False, False),  # nothing ends it: it may be a year old
        (sent, None, True, False),
    ):
        assert await memory.swap(before, after)
        watching(here.settings, monkeypatch, watched)
        found = await status(here.settings)
        assert ("relay-away" in [alarm.condition.name for alarm, _ in found.alarms]) is away


async def test_status_says_of_no_relay_that_it_answers_if_it_could_not_ask(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: Settings) -> Mapping[str, RelayTarget]:
        raise PermissionError(13, "Permission denied", "relay-password")

    monkeypatch.setattr("smtpguard.app.status.probe_targets", unreadable)
    watching(here.settings, monkeypatch, True)
    now = here.clock.now()
    assert await FileMemory(here.settings.state).swap(None, RaisedAlarm(key="relay-away", began=now, told=now))
    found = await status(here.settings)
    [away] = [alarm for alarm, _ in found.alarms if alarm.condition.name == "relay-away"]
    assert str(away.found.words["said"]).startswith("it does not answer the running guard")


async def test_a_clock_that_jumped_is_seen(tmp_path: Path) -> None:
    async with installation(tmp_path) as here:
        file, numbers = StatusFile(here.settings.state), Numbers()
        for now, ahead in enumerate((0, 86_400)):
            numbers.heard("delivery", ProcessNumbers(levels={CLOCK_AHEAD: ahead}))
            file.write(now * 10.0, file.row(now * 10.0, (), numbers, stopping=False))
            found = await status(here.settings)
            assert ("clock-jumped" in [alarm.condition.name for alarm, _ in found.alarms]) is bool(ahead)
            assert Alarms(here.settings).seen().clock_ahead == ahead


def test_every_part_of_a_tree_is_missed(tmp_path: Path) -> None:
    """That of the alarms too: it cannot tell of itself, but status and other trees can."""
    parts = [{"part": part, "ready": part == "proxy"} for part in ("proxy", "alarms")]
    stops, runs = (
        Tree(path=tmp_path, alive=True, row={"stopping": True, "parts": parts}),
        Tree(path=tmp_path, alive=True, row={"parts": parts}),
    )
    assert (alarms.absent_parts([stops]), alarms.absent_parts([runs])) == ((), ("alarms",))
    others = Tree(path=tmp_path, alive=True, row={"parts": [{"part": "alarms", "ready": True}]})
    assert alarms.absent_parts([runs, others]) == ()


async def test_on_a_read_only_disk_the_store_alone_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the tree's state stays as it was. The alarms know from their supervisor that its processes run; the command
    says that it cannot know."""
    async with installation(tmp_path) as here:
        settings, file = here.settings, StatusFile(here.settings.state)
        proxy = {"name": "proxy", "part": "proxy", "pid": 1, "ready": True}
        row = {**file.row(0.0, (), Numbers(), stopping=False), "parts": [proxy]}
        file.write(0.0, {**row, "at": row["at"] - 60})
    for module in ("smtpguard.app.files", "smtpguard.database.files"):
        monkeypatch.setattr(f"{module}.read_only", lambda folder: True)
    monkeypatch.setattr("smtpguard.processes.statusfile._is_ours", lambda row: True)
    found = await status(settings)
    assert {alarm.condition.name for alarm, _ in found.alarms} == {"store-away", "relay-away"}, "no relay is here"
    said = "\n".join(lines(found))
    assert "smtpguard.db is on a read-only file system" in said
    assert f"smtpguard serve (process {row['pid']}) has not written" in said
    assert "proxy (not known)" in said
    watching = Alarms(settings)
    watching.told({"tree": {**row, "store": "it is full"}})
    seen = watching.seen()
    assert (seen.absent, seen.store) == ((), "it is full")


async def test_a_state_folder_that_nobody_may_read_stops_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with installation(tmp_path) as here:
        settings = here.settings
    within = Path.glob

    def denied(path: Path, pattern: str) -> Iterator[Path]:
        if path == settings.state / "bypass":
            raise PermissionError(13, "Permission denied", str(path))
        yield from within(path, pattern)

    def locked(path: Path) -> None:
        raise PermissionError(13, "Permission denied", f"{path}.lock")

    monkeypatch.setattr(Path, "glob", denied)
    assert Alarms(settings).seen().bypass == ()
    monkeypatch.setattr("smtpguard.database.engine.FairLock", locked)
    found = await status(settings)
    assert found.store is not None
    assert found.store["problem"].endswith("smtpguard.db.lock: Permission denied")

    def hidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", hidden)
    found = await status(settings)
    said = list(lines(found))
    assert f"serves: {settings.state}/trees: Permission denied; run status as root" in said[1]
    assert "Parts       not known" in said
    assert not found.fine
    assert not any("nothing" in line for line in said)


async def test_a_state_folder_whose_disk_fails_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call fails there, as on XFS after an error of the disk."""
    async with installation(tmp_path) as here:
        settings = here.settings

    def failing(call: Any) -> Any:
        def called(path: Any = ".", *given: Any, **more: Any) -> Any:
            if str(path).startswith(str(settings.state)):
                raise OSError(errno.EIO, "Input/output error", str(path))
            return call(path, *given, **more)

        return called

    for name in ("stat", "scandir", "open"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    found = await status(settings)
    said = list(lines(found))
    assert said[1].endswith(f"it is not known whether it serves: {settings.state}/trees: Input/output error")
    assert found.store is not None
    assert found.store["problem"].endswith("Input/output error")
    assert not any("gone" in line or "set up" in line for line in said)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_database_that_cannot_be_looked_at_is_not_called_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    database, stat = Database(f"sqlite:///{tmp_path}/guard.db"), os.stat

    def denied(path: object, **more: Any) -> os.stat_result:
        if path == str(tmp_path / "guard.db"):
            raise OSError(number, os.strerror(number))
        return stat(path, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", denied)
        with pytest.raises(Unavailable, match=rf"guard\.db: {os.strerror(number)}"), database.read():
            pass
    database.close()


def test_a_suppressed_alarm_is_shown_and_not_critical(tmp_path: Path) -> None:
    alarms: list[tuple[Alarm, datetime | None]] = [
        (alarm, None) for alarm in raised(Seen(at=datetime(2026, 11, 30, tzinfo=UTC), enforced=False))
    ]
    trees = [Tree(path=tmp_path, alive=True, row={"at": 0, "parts": []})]
    for quiet, verdict, mark in ((), "one thing is critical", "critical"), (("not-enforced",), "all is well", "quiet"):
        found = Status(at=datetime.now(UTC), trees=trees, alarms=alarms, quiet=frozenset(quiet))
        said, alarm = list(lines(found))[:2]
        assert said.endswith(verdict)
        assert mark in alarm
        assert found.fine is bool(quiet)


async def test_webhooks_are_labelled_by_host_and_digest(tmp_path: Path) -> None:
    webhooks = '[{url: "https://chat.example.com/secret", secret_file: s, events: [freeze.set]}]'
    async with installation(tmp_path, webhooks) as here:
        await here.look()
        (labels,) = here.watching.numbers()["smtpguard_webhooks_given_up_total"]
        assert labels[0].startswith("chat.example.com ")
        assert "secret" not in labels[0]


TREE = {
    "connections": {"127.0.0.1:10025": 3},
    "accepted": {"127.0.0.1:10025": 40},
    "refused": {"127.0.0.1:10025": 2},
    "strangers": {"127.0.0.1:10025": 7},
    "without_descriptor": {"127.0.0.1:10025": 1},
    "ready": {"proxy": 2, "metrics": 1},
    "memory": {"supervisor": 40 << 20, "proxy": 200 << 20, "metrics": 80 << 20},
    "deaths": {"proxy": 1, "metrics": 0},
    "counts": {
        "admission 2": 3,
        "admission 4": 2,
        "admission us": 62500,
        "undecided store": 5,
        "turned-away relay-busy": 4,
        "relay waits": 6,
        "relay wait ms": 1500,
    },
    "levels": {"relay idle": 2, "relay in use": 3, "relay waiting": 1},
    "found": {"relay": [990.0, 0]},
}


async def test_the_supervisors_numbers_are_given(here: Here) -> None:
    assert here.number("connections_limit") is None
    here.watching.told(TREE)
    where = "127.0.0.1:10025"
    assert (here.number("connections", where), here.number("connections_limit")) == (3, 2000)
    assert here.number("connections_accepted_total", where) == 40
    assert here.number("connections_refused_total", where, "limit") == 2
    assert here.number("connections_refused_total", where, "client") == 7
    assert here.number("part_memory_bytes", "proxy") == 200 << 20
    spread = here.watching.numbers()["smtpguard_admission_seconds"][()]
    assert isinstance(spread, Spread)
    assert dict(zip(spread.bounds, spread.counts, strict=False)) == {
        bound: 0 if bound < 0.005 else 3 if bound < 0.025 else 5 for bound in spread.bounds
    }
    assert (spread.counts[-1], spread.total) == (5, 0.0625)
    assert (here.number("part_processes", "proxy"), here.number("part_deaths_total", "proxy")) == (2, 1)
    assert (here.number("undecided_total", "store"), here.number("undecided_total", "busy")) == (5, 0)
    assert (here.number("turned_away_total", "relay-busy"), here.number("turned_away_total", "relay-slow")) == (4, 0)
    assert here.number("turned_away_total", "connections") == 2, "the supervisor refuses most of them"
    assert (here.number("relay_connections", "idle"), here.number("relay_connections", "in-use")) == (2, 3)
    assert (here.number("relay_connections_limit"), here.number("relay_waiting")) == (20, 1)
    assert (here.number("relay_waits_total"), here.number("relay_wait_seconds_total")) == (6, 1.5)
    assert (here.number("relay_up"), here.number("relay_tried_seconds")) == (0, 10)
    here.clock.pass_(seconds=3)
    assert here.number("relay_tried_seconds") == 13


async def test_each_route_has_its_own_numbers(tmp_path: Path) -> None:
    route = "[{name: bulk, lists: [newsletter], relay: {host: bulk.example.com, connections: 3}}]"
    async with installation(tmp_path, routes=route) as here:
        here.watching.told(
            {
                **TREE,
                "counts": {"relay waits": 6, "relay waits bulk": 2, "relay wait ms bulk": 500},
                "levels": {"relay idle": 2, "relay idle bulk": 1, "relay waiting bulk": 4},
                "found": {"relay bulk": [5.0, 1]},
            }
        )
        assert (here.number("relay_connections", "idle"), here.number("relay_connections", "idle", "bulk")) == (2, 1)
        assert (here.number("relay_connections_limit"), here.number("relay_connections_limit", "bulk")) == (20, 3)
        assert (here.number("relay_waits_total"), here.number("relay_waits_total", "bulk")) == (6, 2)
        assert (here.number("relay_wait_seconds_total", "bulk"), here.number("relay_waiting", "bulk")) == (0.5, 4)
        assert (here.number("relay_up"), here.number("relay_up", "bulk")) == (None, 1)


async def test_without_mail_parts_their_numbers_are_absent(here: Here) -> None:
    alone = {"connections": {}, "accepted": {}, "refused": {}, "strangers": {}, "without_descriptor": {}, "ready": {"metrics": 1}, "memory": {"metrics": 9}, "deaths": {"metrics": 0},
             "counts": {}, "levels": {}, "found": {}}  # fmt: skip
    here.watching.told(alone)
    for name in ("connections_limit", "relay_up", "undecided_total", "turned_away_total", "relay_connections_limit"):
        assert here.number(name) is None
    assert "smtpguard_undecided_total" not in here.watching.numbers()
