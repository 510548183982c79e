"""Returns stop the rest of a mailing, by counts that cannot be forged. People can let it continue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from smtpguard.journal.event import Kind
from smtpguard.observe.figures import tripped
from smtpguard.policy.verdict import Held as IsHeld
from smtpguard.policy.verdict import Relayed
from tests.guard.campaign import Campaign
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, house, index
from tests.returns.mails import Out, arf, dsn, letter


@asynccontextmanager
async def outgoing(folder: Path, breakers: str, top: str = "enforce: true") -> AsyncIterator[Out]:
    policy = POLICY.replace("enforce: true", top) + f"breakers: {{{breakers}}}\n"
    async with house(folder, documents={**DOCUMENTS, "policy.yaml": policy.encode()}) as home:
        yield Out(home)


async def trips(out: Out) -> list[dict[str, object]]:
    return [dict(entry.data) for entry, _ in await out.home.store.journal.entries() if entry.kind == Kind.TRIPPED.value]


async def is_relayed(out: Out, to: str) -> bool:
    await out.home.watch.read()
    done = await Campaign(out.home).send(to, Message_ID=f"<more-{to}>", body="Bacon at noon?")
    await out.home.store.journal.record([])
    assert isinstance(done, Relayed | IsHeld)
    return isinstance(done, Relayed)


async def test_complaints_stop_the_rest(tmp_path: Path) -> None:
    async with outgoing(tmp_path, 'complaints: ">= 20% after 8"') as out:
        copies = await out.to_members(0, 7)
        await out.back(arf(copies[0]))
        await out.back(arf(copies[1]))
        assert not await trips(out), "seven have it: too few to say anything"
        copies += await out.to_members(7, 10)
        receipt = await out.back(arf(copies[0]))
        assert not receipt.freezes, "a second complaint of one person does not count"
        out.hooks.append(["sh", "-c", f'echo "$SMTPGUARD_SELECTOR $SMTPGUARD_BY" > {tmp_path}/hook'])
        out.freezes.freeze_hook = tuple(map(tuple, out.hooks))
        receipt = await out.back(arf(copies[2]))
        [stop] = receipt.freezes
        mailing = (await out.mailing()).mailing_id
        assert (stop.selector.value, stop.value, stop.by) == ("mailing", mailing, "smtpguard")
        assert str(stop.reason) == "Of 10 people who have it 3 complained. The policy stops it at >= 20% after 8"
        assert (tmp_path / "hook").read_text() == "mailing smtpguard\n"
        assert await trips(out) == [
            {
                "breaker": "complaints",
                "limit": ">= 20% after 8",
                "counted": 3,
                "people": 10,
                "freezes": ["B1"],
                "observed": False,
            }
        ]
        assert not await is_relayed(out, MEMBERS[11])
        store = out.home.store
        [alarm] = await store.ask(lambda c: tripped(c, {"B1"}, out.home.clock.now()))
        assert (alarm.mailing, alarm.counted, alarm.people) == (mailing, 3, 10)
        assert not (await out.back(arf(copies[3]))).freezes, "it is stopped already"
        # people have thawed it: earlier returns do not count any more
        out.home.clock.pass_(hours=1)
        await out.freezes.thaw("B1", by="eva@example.com")
        assert await store.ask(lambda c: tripped(c, (), out.home.clock.now())) == ()
        out.home.clock.pass_(minutes=1)
        assert not (await out.back(arf(copies[4]))).freezes
        out.home.clock.pass_(minutes=1)
        assert len((await out.back(arf(copies[5]))).freezes) == 1
        assert [one["counted"] for one in await trips(out)] == [3, 2]


async def test_many_replies_at_once_stop_but_not_over_a_week(tmp_path: Path) -> None:
    async with outgoing(tmp_path, 'replies: ">= 3 in 10m"') as out:
        for n in range(6):
            await out.send(MEMBERS[n], Message_ID=f"<copy-to-{n}@example.com>")
        for n in range(6):
            receipt = await out.back(letter(MEMBERS[n], "Re: SV: lunch", f"<copy-to-{n}@example.com>"))
            out.home.clock.pass_(minutes=6 if n < 3 else 1)
            assert len(receipt.freezes) == (n == 4)


async def test_a_breaker_may_stop_the_lists(tmp_path: Path) -> None:
    async with outgoing(tmp_path, 'bounces: ">= 1", stops: lists') as out:
        [copy] = await out.to_members(0, 1)
        [stop] = (await out.back(dsn(copy, MEMBERS[0]))).freezes
        assert (stop.selector.value, stop.value) == ("list", "ramadan")
        assert str(stop.reason) == "Of 1 people to whom it went 1 could not be reached. The policy stops it at >= 1"


async def test_a_list_has_its_own_limit(tmp_path: Path) -> None:
    """Looser than the policy's for mailings to it alone; a mailing to others too stops at theirs."""
    own = POLICY.replace("  ramadan:\n", '  ramadan:\n    breakers: {bounces: ">= 3", stops: lists}\n')
    text = own + 'breakers: {bounces: ">= 2"}\n'
    async with house(tmp_path, documents={**DOCUMENTS, "policy.yaml": text.encode()}) as home:
        out = Out(home)
        copies = await out.to_members(0, 4)
        stops = [(await out.back(dsn(copies[n], MEMBERS[n]))).freezes for n in range(3)]
        assert [[(stop.selector.value, stop.value) for stop in some] for some in stops] == [
            [],
            [],
            [("list", "ramadan")],
        ]
        of = home.in_force.breakers_of
        assert [one.limit.text for one in of(["ramadan", "news"]).each] == [">= 3", ">= 2"]
        assert (of(["ramadan", "news"]).lists, of(["news"]).lists, of([]).lists) == (True, False, False)


async def test_an_observing_breaker_stops_nothing(tmp_path: Path) -> None:
    async with outgoing(tmp_path, 'bounces: ">= 1"', "enforce: false") as out:
        copies = await out.to_members(0, 2)
        for n, copy in enumerate(copies):
            assert not (await out.back(dsn(copy, MEMBERS[n]))).freezes
            out.home.clock.pass_(minutes=1)
        assert [(one["observed"], one["counted"]) for one in await trips(out)] == [(True, 1), (True, 1)]
        assert await is_relayed(out, MEMBERS[3])


async def test_what_tripped_while_it_observed_does_not_count_once_it_is_enforced(tmp_path: Path) -> None:
    """Nobody has let the mailing go on, so the next return stops it."""
    async with outgoing(tmp_path, 'bounces: ">= 2"', "enforce: false") as out:
        copies = await out.to_members(0, 4)
        for n in (0, 1):
            assert not (await out.back(dsn(copies[n], MEMBERS[n]))).freezes
        assert [(one["observed"], one["counted"]) for one in await trips(out)] == [(True, 2)]
        out.home.clock.pass_(minutes=1)
        await out.home.put({**DOCUMENTS, "policy.yaml": f'{POLICY}breakers: {{bounces: ">= 2"}}\n'.encode()})
        await out.home.follow()
        assert len((await out.back(dsn(copies[2], MEMBERS[2]))).freezes) == 1
        assert [(one["observed"], one["counted"]) for one in await trips(out)] == [(True, 2), (False, 3)]
        out.home.clock.pass_(minutes=1)
        assert not (await out.back(dsn(copies[3], MEMBERS[3]))).freezes, "it stands"


@pytest.mark.parametrize("sort", ["bounces", "complaints", "replies"])
async def test_forged_returns_trip_nothing(tmp_path: Path, sort: str) -> None:
    """Sixty returns forged by a person with one copy and all addresses trip no breaker."""
    async with outgoing(tmp_path, 'bounces: ">= 2", complaints: ">= 2", replies: ">= 2"') as out:
        mine = (await out.to_members(0, 40))[0]
        answered = mine.partition(b"\r\nMessage-ID: ")[2].partition(b"\r\n")[0].decode()
        bare = mine.partition(b"\r\nX-Smtpguard:")[2].partition(b"\r\nFrom")[2]
        for n in range(60):
            person = MEMBERS[n % 30]
            match sort:
                case "bounces":
                    mail = dsn(mine if n % 2 else bare, person)
                case "complaints":
                    mail = arf(mine if n % 2 else bare, person)
                case _:
                    mail = letter(person, "Re: SV: lunch", answered, more=f"X-N: {n}\r\n")
            assert not (await out.back(mail)).freezes
        assert not await trips(out)
        assert len(await out.home.store.returns.newest(limit=1000)) == 60


async def test_bounces_trip_exactly_at_the_limit(tmp_path: Path) -> None:
    """Bounces of two hundred copies, each with its own trace, trip exactly at the limit."""
    people = [f"reader{n}@readers.example" for n in range(200)]
    async with outgoing(tmp_path, 'bounces: ">= 5% after 150"') as out:
        index(out.home.folder, "news", people)
        out.home.in_force.registry.reopen()
        copies = [await out.send(person) for person in people]
        frozen = [n for n in range(160) if (await out.back(dsn(copies[n], people[n]))).freezes]
        assert frozen == [9], "the tenth of two hundred"
        assert (await out.mailing()).bounces == 160
