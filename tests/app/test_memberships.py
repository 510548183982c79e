"""Approver groups from a directory or single sign-on: who counts, and for how long if the directory is away or answers
nonsense."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from smtpguard.accounts.membership import MOST, People, fault_of
from smtpguard.accounts.model import Account, AccountChange, AccountKeys, Role
from smtpguard.app.listrefresh import Memberships
from smtpguard.app.policies import Following
from smtpguard.app.status import Status, directories
from smtpguard.cli.status import lines
from smtpguard.config.settings import settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.database.errors import Unavailable
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.model import Choice, NotEntitled, State
from smtpguard.lists.digest import Digester
from smtpguard.lists.members import LdapMembers
from smtpguard.lists.sources import SourceError
from smtpguard.policy.parse import parse
from smtpguard.policy.verdict import Held
from tests.guard.house import DOCUMENTS, KEY, House, PatchedStore, house

NEWS = "news@lists.example.com"
EVA, STEN, ULLA = "eva@example.com", "sten@example.com", "ulla@example.com"
STENS = (STEN, "s.ek@example.com")


def with_directory(group: str = "cn=guards,dc=example,dc=com") -> dict[str, bytes]:
    named = f"{{addresses: [eva@example.com], directory: {{ldap: 'ldaps://dc1.example.com', group: '{group}'}}}}"
    policy = DOCUMENTS["policy.yaml"].decode().replace("[eva@example.com, omar@example.com]", named)
    policy = policy.replace("approvals: {from: [communications]}", "approvals: {from: [communications], each: 2}")
    return {**DOCUMENTS, "policy.yaml": policy.encode()}


class Directory:
    """A directory with a set answer, which counts its queries."""

    def __init__(self, people: People) -> None:
        self.people, self.wrong, self.asked = people, "", 0

    def __call__(self, model: LdapMembers) -> People:
        self.asked += 1
        if self.wrong:
            raise KeyError(1, 20) if self.wrong == "noise" else SourceError(self.wrong)
        return self.people


@asynccontextmanager
async def asking(folder: Path, directory: Directory) -> AsyncIterator[tuple[House, Any]]:
    documents = with_directory()
    async with house(folder, documents=documents) as home:
        await home.put(documents)
        policies: Any = SimpleNamespace(policy=parse(documents))
        yield home, Memberships(policies, home.store, home.clock, directory)


async def test_status_shows_a_failing_directory(tmp_path: Path) -> None:
    directory = Directory((STENS, (EVA,)))
    async with asking(tmp_path, directory) as (home, memberships):

        async def told() -> list[str]:
            await home.follow()
            found = Status(at=home.clock.now(), groups=await directories(home, home.store))
            return [line.strip() for line in lines(found) if "communications" in line]

        assert await told() == ["Groups      communications: 0 people of its directory, never read"]
        await memberships.step()
        [well] = await told()
        assert "2 people of its directory, read 2026-03-02" in well
        directory.wrong = "it cannot be reached"
        home.clock.pass_(minutes=15)
        await memberships.step()
        [fails] = await told()
        assert "2 people of its directory, read 2026-03-02" in fails
        assert fails.endswith("its directory fails\x1b[0m: it cannot be reached")


async def people(home: House) -> set[str]:
    return set((await home.follow()).groups.of("communications"))


async def test_members_of_a_directory_group_decide_and_count_once(tmp_path: Path) -> None:
    directory = Directory((STENS, (EVA,)))
    async with asking(tmp_path, directory) as (home, memberships):
        generation = (await home.store.gate.read()).generation
        await memberships.step()
        assert await people(home) == {EVA, STEN}
        await memberships.step()
        assert directory.asked == 1, "not before it is due"
        home.clock.pass_(minutes=15)
        await memberships.step()
        assert directory.asked == 2
        assert (await home.store.gate.read()).generation == generation + 1, "an unchanged answer changes nothing"
        done = await home.send(NEWS)
        assert isinstance(done, Held)
        approvals = home.approvals()
        await approvals.vote(done.hold_id, Choice.APPROVE, approver=STEN, by="test")
        with pytest.raises(NotEntitled):
            await approvals.vote(done.hold_id, Choice.APPROVE, approver=ULLA, by="test")
        own = await home.send(NEWS, sender="s.ek@example.com", body="mine")
        assert isinstance(own, Held)
        with pytest.raises(NotEntitled, match="no one decides on their own"):
            await approvals.vote(own.hold_id, Choice.APPROVE, approver=STEN, by="test")
        directory.people = ((ULLA,),)
        home.clock.pass_(minutes=15)
        await memberships.step()
        assert await people(home) == {EVA, ULLA}
        last = await approvals.vote(done.hold_id, Choice.APPROVE, approver=ULLA, by="test")
        assert last.hold.state is State.WAITING, "who has left the group no longer counts"
        assert (await home.store.journal.verify()).ok


@pytest.mark.parametrize(
    "wrong", ["no answer within 30 s (timeout)", "it cannot be reached", "it names nobody", "noise"]
)
async def test_an_unreachable_directory_counts_for_a_day_and_keeps_the_quorum(tmp_path: Path, wrong: str) -> None:
    directory = Directory((STENS,))
    async with asking(tmp_path, directory) as (home, memberships):
        await memberships.step()
        directory.wrong = wrong
        for _ in range(23):
            home.clock.pass_(hours=1)
            await memberships.step()
            assert await people(home) == {EVA, STEN}
        assert directory.asked == 24
        home.clock.pass_(minutes=1)
        await memberships.step()
        assert directory.asked == 25, "it is asked again soon"
        home.clock.pass_(minutes=59)
        await memberships.step()
        assert await people(home) == {EVA}
        done = await home.send(NEWS)
        assert isinstance(done, Held)
        voted = await home.approve(done.hold_id, EVA)
        assert voted.hold.state is State.WAITING, "two are asked for, as before"
        directory.wrong = ""
        home.clock.pass_(minutes=1)
        await memberships.step()
        assert await people(home) == {EVA, STEN}
        kinds = [data["change"] for _, data in await home.events("group-communications")]
        assert kinds == ["directory", "directory-away", "directory"]


async def test_a_sign_on_counts_for_thirty_days_in_every_process(tmp_path: Path) -> None:
    """The gate moves when it is over, since a process reads who is in a group only then."""
    async with asking(tmp_path, Directory((STENS,))) as (home, memberships):
        group = b"[eva@example.com, omar@example.com]", b"{addresses: [eva@example.com], claim: deciders}"
        documents = {**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(*group)}
        await home.put(documents)
        memberships._policies = SimpleNamespace(policy=parse(documents))
        now = home.clock.now()
        ulla = Account(account_id="U", address=ULLA, created_at=now, claims=("deciders",), claimed_at=now)
        await home.store.people.turn(AccountKeys(), lambda found: AccountChange(account=ulla))
        await memberships.step()
        assert await people(home) == {EVA, ULLA}
        generation = (await home.store.gate.read()).generation
        home.clock.pass_(days=29)
        await memberships.step()
        assert (await home.store.gate.read()).generation == generation
        home.clock.pass_(days=1)
        await memberships.step()
        await memberships.step()
        assert (await home.store.gate.read()).generation == generation + 1
        assert await people(home) == {EVA}
        assert [data["groups"] for _, data in await home.events("U")] == [["deciders"], []]


async def test_roles_of_a_sign_on_end_after_thirty_days(tmp_path: Path) -> None:
    """Those that an admin gave do not, and a token has only what its account has."""
    async with asking(tmp_path, Directory((STENS,))) as (home, memberships):
        now, roles = home.clock.now(), (Role.APPROVER,)
        ulla = Account(account_id="U", address=ULLA, created_at=now, roles=roles, subject="i u", claimed_at=now)
        local = Account(account_id="S", address=STEN, created_at=now, roles=roles)
        for one in (ulla, local):
            change = AccountChange(account=one)
            await home.store.people.turn(AccountKeys(), lambda found, made=change: made)  # type: ignore[misc]
        home.clock.pass_(days=29)
        await memberships.step()
        assert await home.store.people.everybody() == [local, ulla]
        home.clock.pass_(days=1)
        await memberships.step()
        await memberships.step()
        assert [one.roles for one in await home.store.people.everybody()] == [roles, ()]
        assert [data for _, data in await home.events("U")] == [
            {"change": "roles", "roles": [], "before": ["approver"]}
        ]


async def test_after_a_day_without_a_delivery_part_an_answer_does_not_count(tmp_path: Path) -> None:
    """At the start of a guard that was off, no approval takes effect by the old answer before the directory is asked."""
    async with asking(tmp_path, Directory((STENS,))) as (home, memberships):
        await memberships.step()
        assert await people(home) == {EVA, STEN}
        home.term = Deadlines(release_delay_seconds=60)
        hold = await home.held()
        done = await home.approve(hold.hold_id, STEN, "dpo@example.com")
        assert done.hold.release_at is not None
        home.clock.pass_(hours=25)
        await home.approvals().enact()
        assert (await home.hold(hold.hold_id)).state is State.WAITING
        assert await people(home) == {EVA}
        await memberships.step()
        assert await people(home) == {EVA, STEN}, "every process reads it anew"


async def test_approvals_wait_for_the_first_answer_of_a_directory(tmp_path: Path) -> None:
    """At a start after more than a day, and after a change of its declaration. The next time they wait for nothing."""
    directory = Directory((STENS,))
    async with asking(tmp_path, directory) as (home, memberships):
        await memberships.step()
        await home.follow()
        home.term = Deadlines(release_delay_seconds=60)
        started = partial(Memberships, read=directory, store=home.store, clock=home.clock)
        for documents, hours in (with_directory(), 25), (with_directory("cn=others,dc=example,dc=com"), 0):
            hold = await home.held(subject=f"after {hours} h")
            await home.approve(hold.hold_id, STEN, "dpo@example.com")
            home.clock.pass_(hours=hours, minutes=1)
            await home.put(documents)
            home.policy = parse(documents)  # type: ignore[attr-defined]
            memberships = started(cast(Any, home)) if hours else memberships
            await memberships.settle()
            await home.approvals().enact()
            assert (await home.hold(hold.hold_id)).state is State.APPROVED
            asked = directory.asked
            await memberships.settle()
            assert directory.asked == asked


async def test_a_process_that_lives_on_counts_no_answer_of_more_than_a_day_ago(tmp_path: Path) -> None:
    """While no delivery part runs nothing moves the gate."""
    async with asking(tmp_path, Directory((STENS,))) as (home, memberships):
        await memberships.step()
        settings = settings_of(load_yaml("{}\n"), tmp_path, {})
        following = Following(home.store, settings, Digester(KEY, "+"), home.clock)
        assert (await following.follow()).groups.of("communications") == {EVA, STEN}
        home.clock.pass_(hours=24)
        assert (await following.follow()).groups.of("communications") == {EVA}


@pytest.mark.parametrize("wrong", ["", "it cannot be reached"])
async def test_a_late_answer_to_one_host_undoes_no_answer_to_another(tmp_path: Path, wrong: str) -> None:
    """Who has left the group would decide again."""
    late, go_on = Directory((STENS,)), threading.Event()

    def read(model: LdapMembers) -> People:
        go_on.wait()
        return late(model)

    async with asking(tmp_path, Directory((STENS,))) as (home, memberships):
        await memberships.step()
        home.clock.pass_(minutes=15)
        late.wrong = wrong
        slow = Memberships(memberships._policies, home.store, home.clock, read)
        await slow.begin()
        memberships._read.people = ((ULLA,),)
        await memberships.step()
        assert await people(home) == {EVA, ULLA}
        go_on.set()
        await asyncio.gather(*slow._asking.values())
        assert await people(home) == {EVA, ULLA}
        home.clock.pass_(minutes=15)
        late.wrong, late.people = "", ((STEN,),)
        await slow.step()
        assert await people(home) == {EVA, STEN}


async def test_a_group_that_leaves_the_policy_leaves_the_store(tmp_path: Path) -> None:
    """When it comes back, an answer of long ago counts for no moment."""
    async with asking(tmp_path, Directory((STENS,))) as (home, memberships):
        await memberships.step()
        await home.put(DOCUMENTS)
        memberships._policies = SimpleNamespace(policy=parse(DOCUMENTS))
        await memberships.step()
        assert await home.store.people.memberships() == []
        home.clock.pass_(days=90)
        await home.put(with_directory())
        assert await people(home) == {EVA}


async def test_a_process_that_has_not_followed_drops_no_answer(tmp_path: Path) -> None:
    """As one of an earlier version, which cannot read the policy in force."""
    async with asking(tmp_path, Directory((STENS,))) as (home, memberships):
        await memberships.step()
        memberships._policies = SimpleNamespace(policy=parse(DOCUMENTS))
        await memberships.step()
        assert await people(home) == {EVA, STEN}
        [kept] = await home.store.people.memberships()
        assert kept.people == (STENS,)


async def test_a_directory_that_hangs_takes_no_thread_of_others(tmp_path: Path) -> None:
    """Such a thread also kept the process from ending."""
    hangs = threading.Event()

    def read(model: LdapMembers) -> People:
        hangs.wait()
        return (STENS,)

    async with asking(tmp_path, Directory(())) as (_, memberships):
        memberships._read = read
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        await memberships.begin()
        try:
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 120) == "done"
        finally:
            hangs.set()
        await memberships.step()


async def test_the_former_directorys_answer_stops_counting(tmp_path: Path) -> None:
    """After a change of the directory, the former's answer stops counting before the new one answers."""
    directory = Directory((STENS,))
    async with asking(tmp_path, directory) as (home, memberships):
        await memberships.step()
        other = with_directory("cn=others,dc=example,dc=com")
        await home.put(other)
        assert await people(home) == {EVA}
        memberships._policies = SimpleNamespace(policy=parse(other))
        directory.people = ((ULLA,),)
        await memberships.step()
        assert await people(home) == {EVA, ULLA}


async def test_an_unavailable_store_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with asking(tmp_path, directory := Directory((STENS,))) as (home, memberships):

        async def away(*made: object) -> None:
            raise Unavailable("no store")

        store, memberships._store = memberships._store, PatchedStore(home.store, {"people.put_membership": away})
        await memberships.step()
        assert await people(home) == {EVA}
        directory.wrong = "it cannot be reached"
        for _ in range(3):
            await memberships.step()
        waits = "members of groups: waiting for the store"
        assert caplog.messages == [f"{waits}: no store"]
        memberships._store = store
        await memberships.step()
        fails = "group communications: it cannot be reached; its last members count for a day"
        assert caplog.messages[1:] == [f"{waits}: over, after 0 s", fails]
        directory.wrong = ""
        home.clock.pass_(minutes=1)
        await memberships.step()
        assert caplog.messages[3:] == ["group communications: its directory answers again"]
        assert await people(home) == {EVA, STEN}


def test_implausible_answers_are_refused() -> None:
    assert "nobody" in fault_of((), 1)
    assert "expects at least 3" in fault_of(((EVA,), (STEN,)), 3)
    assert "more than" in fault_of([(f"a{n}@example.com",) for n in range(MOST + 1)], 1)
    assert "for two people" in fault_of(((EVA, STEN), (STEN,)), 1)
    assert fault_of(((EVA,), (STEN,)), 1) == ""
