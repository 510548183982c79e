"""Data about a person is listed and erased, and the journal verifies before and after."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Any

import pytest
from sqlalchemy import Connection, event, select

from smtpguard.database import engine
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.errors import ContentMissing
from smtpguard.database.schema import mailing, outbox, underway
from smtpguard.holds.model import Choice, State
from smtpguard.incidents import preservation
from smtpguard.journal import rows as journal
from smtpguard.journal import searchindex
from smtpguard.journal.chain import ERASED
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.lists.digest import Digester
from smtpguard.lists.expansions import Expansions, expansions_path, write_expansions
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Lost
from smtpguard.notices.intents import digest
from smtpguard.notices.render import fill
from smtpguard.returns.model import Match, Return, Sort
from smtpguard.store import privacy
from smtpguard.store.privacy import Person
from smtpguard.store.retention import Retention
from tests.app.twoguards import LATER
from tests.clocks import MONDAY
from tests.every import every
from tests.guard.campaign import EVA, approved
from tests.guard.house import DOCUMENTS, KEY, MEMBERS, RAMADAN, FakePassage, House, house
from tests.mailings.test_copystatus import last
from tests.returns.mails import Out, dsn
from tests.store.making import sqlite_url

ANNA, CUSTOMER, OTHER = "anna@example.com", MEMBERS[0], MEMBERS[1]


def whom(address: str) -> Person:
    return Person(Address.parse(address), Digester(KEY, "+"))


async def story(home: House) -> None:
    """A mailing that 25 customers got, a rejected message to one of them and a colleague, and a waiting one."""
    intake = home.intake()
    for n, one in enumerate(MEMBERS[:25]):
        headers = {"X_Looks": "mailing", "X_Mailing": "spring", "Message_ID": f"<{n}@example.com>", "body": f"Copy {n}"}
        await intake(home.transaction(one, **headers), FakePassage())
    topics = {"X_Topics": "pork", "Subject": f"about {CUSTOMER}"}
    done: Any = await intake(
        home.transaction(RAMADAN, CUSTOMER, OTHER, Message_ID="<r@example.com>", **topics), FakePassage()
    )
    await home.approvals().vote(
        done.hold_id, Choice.REJECT, approver="eva@example.com", by="eva", comment=f"not to {ANNA}"
    )
    await intake(home.transaction(RAMADAN, OTHER, Message_ID="<w@example.com>", body="Another"), FakePassage())
    while leases := await home.store.outbox.lease("one", 100, 60):  # notices, which contain the subject
        for lease in leases:
            await home.store.outbox.settle(lease, last(lease, DeliveryEvent.TAKE, home.clock), [])
    await home.store.journal.record([])


async def kinds(home: House, address: str) -> Counter[str]:
    found = await home.store.walk(lambda open: list(privacy.collect(open, whom(address), home.clock.now())))
    return Counter(one.what for one in found)


async def clear(home: House) -> str:
    return json.dumps(
        [(dict(found or {}), entry.body) for entry, found in await home.store.journal.entries(limit=10_000)]
    )


COUNTING = b"""
  - {id: many, when: {sender.customers: ">= 1000 in 1d"}, then: hold}
  - {id: new, when: {sender.first_contacts: ">= 1000 in 1d"}, then: hold}
"""


async def test_a_customers_data_is_listed_and_erased(tmp_path: Path, url: str) -> None:
    documents = {**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"] + COUNTING}
    async with house(tmp_path, url=url, documents=documents) as home:
        await story(home)
        await home.send(CUSTOMER, Message_ID="<l@example.com>", body="A letter")
        found = await kinds(home, CUSTOMER.upper())
        assert (found["entry"], found["hold"], found["mailing"]) == (3, 1, 3), found
        assert found["sending"] > 0
        assert found["count"] == 2, "whom a sender wrote to, and who was sent the letter"
        assert await home.store.walk(lambda open: privacy.digests_only(open, whom(CUSTOMER))) == 3
        assert (await kinds(home, "stranger@example.org")).total() == 0
        done = await privacy.erase(home.store, whom(CUSTOMER), by="root")
        assert (done.values, done.entries, done.holds, done.kept) == (4, 3, 1, [])
        assert (await kinds(home, CUSTOMER)).total() == 0
        assert CUSTOMER not in await clear(home)
        assert OTHER in await clear(home), "data of others stays"
        assert ERASED in await clear(home)
        proof = await home.store.journal.audit("host", alone=True)
        assert (proof.first_bad, proof.beside) == (None, ())
        assert max(m.people.relayed for m in await home.store.mailings.newest()) == 25, "numbers stay"
        [entry] = [dict(e.data) for e, _ in await home.store.journal.entries(limit=10_000) if e.kind == "erased"]
        assert entry["person"] == list(whom(CUSTOMER).hexes)
        again = await privacy.erase(home.store, whom(CUSTOMER), by="root")
        assert (again.values, again.holds) == (0, 0)


async def test_an_interrupted_erasure_is_finished_by_another(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left in the index either, in no spelling."""
    async with house(tmp_path, url=url) as home:
        spelled = CUSTOMER.replace("@", "+a@")
        await story(home)
        await home.send(spelled, body="A letter")
        await index(home)
        assert (len(await found(home, CUSTOMER)), len(await found(home, spelled))) == (2, 1)
        with monkeypatch.context() as patched:
            patched.setattr(privacy, "_delete", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await privacy.erase(home.store, whom(CUSTOMER), by="root")
        again = await privacy.erase(home.store, whom(CUSTOMER), by="root")
        assert (again.values, again.holds) == (0, 1)
        for word in (CUSTOMER, spelled, CUSTOMER.partition("@")[0]):
            assert await found(home, word) == [], word
        assert len(await found(home, OTHER)) == 3, "others are found"


async def test_an_index_that_read_the_names_before_does_not_bring_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as home:
        await story(home)

        def read(connection: Connection) -> searchindex.Words:
            head = read_head(connection)
            unread = journal.unread(connection, 0, head.seq, 1000)
            assert unread is not None
            return searchindex.words_after(unread, 0, KEY, head.journal)

        words, gone = await home.store.ask(read), privacy._delete
        with monkeypatch.context() as patched:
            patched.setattr(privacy, "_delete", lambda b, **more: searchindex.write(b, words, KEY) and gone(b, **more))
            await privacy.erase(home.store, whom(CUSTOMER), by="root")
        assert len(await found(home, OTHER)) == 3, "it was written meanwhile"
        assert await found(home, CUSTOMER) == []


async def test_words_that_are_not_indexed_yet_are_lost_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ``renew-secret`` those of the whole journal are not."""
    async with house(tmp_path) as home:
        await story(home)
        monkeypatch.setattr(privacy, "SOME", 2)
        lost, lose = list[int](), searchindex.lose

        def counted(batch: Batch, words: Sequence[tuple[int, str]]) -> None:
            lost.append(len(words))
            lose(batch, words)

        monkeypatch.setattr(searchindex, "lose", counted)
        done = await privacy.erase(home.store, whom(CUSTOMER), by="root")
        slices = -(-done.entries // 2)
        first, again = lost[:slices], lost[slices:]
        assert sum(first) == sum(again) > 2
        assert max(again) <= 2


async def index(home: House) -> None:
    while await home.store.journal.index():
        pass


async def found(home: House, word: str) -> Sequence[str]:
    return await home.store.journal.find([word], limit=100)


async def test_a_persons_mailings_are_found_by_index(tmp_path: Path, url: str) -> None:
    """Each mailing may have reached hundreds of thousands."""
    statements: list[tuple[str, Any]] = []

    def noted(_: Connection, __: Any, sql: str, values: Any, *___: Any) -> None:
        statements.append((sql, values))

    def asked(connection: Connection) -> list[str]:
        event.listen(connection, "before_cursor_execute", noted)
        list(privacy._mailings(lambda: nullcontext(connection), whom(MEMBERS[0]), lambda id: "", home.clock.now()))
        event.remove(connection, "before_cursor_execute", noted)
        sqlite = connection.dialect.name == "sqlite"
        if not sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = f"EXPLAIN {'QUERY PLAN ' * sqlite}"
        some = [each for each in statements if "reached" in each[0]]
        return [str(connection.exec_driver_sql(explain + sql, values).all()) for sql, values in some]

    async with house(tmp_path, url=url) as home:
        await story(home)
        plans = await home.store.ask(asked)
    assert plans
    assert [plan for plan in plans if re.search(r"SCAN reached|Seq Scan on reached", plan)] == []


async def test_each_statement_of_a_returned_mail_is_found(tmp_path: Path, url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(privacy, "SLICE", 2)  # a page ends between two statements of one mail
    async with house(tmp_path, url=url) as home:
        person = min(whom(CUSTOMER).digests)
        for mail in "abc":
            some = [
                Return(mail=mail * 64, n=n, at=home.clock.now(), sort=Sort.BOUNCE, match=Match(), person=person)
                for n in range(3)
            ]
            await home.store.returns.take(some)
        assert (await kinds(home, CUSTOMER))["returned"] == 9


async def test_the_mail_that_came_back_is_erased_with_its_text(tmp_path: Path, url: str) -> None:
    async with house(tmp_path, url=url) as home:
        out = Out(home)
        copies = await out.to_members(0, 2)
        back = [dsn(copy, person) for copy, person in zip(copies, MEMBERS, strict=False)]
        for mail in back:
            await out.back(mail)
        await privacy.erase(home.store, whom(CUSTOMER), by="root")
        assert [one.mail for one in await home.store.returns.newest() if not one.kept] == [back[0].sha256]
        with pytest.raises(ContentMissing):
            await home.store.contents.load(back[0].sha256)
        assert (await home.store.contents.load(back[1].sha256)).raw == back[1].raw, "that of others stays"


async def test_data_needed_for_a_decision_or_incident_stays(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await story(home)
        rejected, waiting = sorted(hold.hold_id for hold in await home.store.holds.newest())
        needed = await home.store.walk(lambda open: preservation.find(open, rejected))
        assert needed is not None
        await home.store.write(lambda b: preservation.begin(b, rejected, needed, by="root", reason="press"))
        await home.store.write(lambda b: preservation.keep(b, rejected, preservation.ID, sorted(needed.ids)))
        await index(home)
        done = await privacy.erase(home.store, whom(ANNA), by="root")
        why = {one.stays for one in done.kept}
        assert {f"incident {rejected}", f"decision {waiting}"} <= why
        assert await home.store.holds.find(waiting) is not None
        assert done.entries == 25, "the mailing's copies are not needed"
        assert ANNA in await clear(home)
        assert sorted(await found(home, ANNA)) == [rejected, waiting], "what stays is found"
        proof = await home.store.journal.audit("host", alone=True)
        assert (proof.first_bad, proof.beside) == (None, ())


async def test_without_the_secret_nobody_confirms_a_guess_by_the_journal(tmp_path: Path) -> None:
    """Its entries outlive the names, and are exported without them. Those of deliveries have the ids of notices."""
    async with house(tmp_path) as home:
        await story(home)
        guesses = {one.envelope.sha256 for one in await home.store.holds.newest()}
        for person in (ANNA, EVA, "omar@example.com", CUSTOMER, OTHER):
            guesses |= {hashlib.sha256(person.encode()).hexdigest(), hashlib.blake2b(person.encode()).hexdigest()}
        kept = [one.body for one, _ in await home.store.journal.entries(limit=10_000)]
        ids = await home.store.ask(lambda connection: list(connection.execute(select(outbox.c.intent_id)).scalars()))
        assert len(ids) > 5
        assert [guess for guess in guesses if any(guess[:8] in text for text in (*kept, *ids))] == []


async def test_a_hold_that_a_digest_is_to_tell_of_stays_until_then(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await story(home)
        rejected, _ = sorted(hold.hold_id for hold in await home.store.holds.newest())
        now = home.clock.now()
        [told] = digest(ANNA, {"notice": "digest", "role": "sender"}, now, now + timedelta(minutes=10), home.in_force)
        await home.store.journal.record([], [told])
        done = await privacy.erase(home.store, whom(CUSTOMER), by="root")
        assert [one.stays for one in done.kept if one.what == "hold"] == ["a notice of it is to be sent still"]
        filled = await fill(home.store, told.data, home.in_force, told.recipients[0].address)
        assert filled is not None
        assert [one["hold_id"] for one in filled["messages"] if one["state"] == "rejected"] == [rejected]
        home.clock.pass_(minutes=11)
        for lease in await home.store.outbox.lease("one", 100, 60):
            await home.store.outbox.settle(lease, last(lease, DeliveryEvent.TAKE, home.clock), [])
        assert (await privacy.erase(home.store, whom(CUSTOMER), by="root")).holds == 1
        assert (await kinds(home, CUSTOMER)).total() == 0


async def test_a_rejection_keeps_its_writers_while_it_is_in_force(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await story(home)
        [rejected] = [one for one in await home.store.mailings.newest() if one.rejection is not None]
        for _ in range(2):
            done = await privacy.erase(home.store, whom(ANNA), by="root")
            assert rejected.mailing_id not in done.mailings
            assert f"decision on the mailing {rejected.mailing_id}" in {one.stays for one in done.kept}
            kept = await home.store.mailings.find(rejected.mailing_id)
            assert kept is not None
            assert (kept.rejection, kept.sender) == (rejected.rejection, ANNA)
        home.clock.pass_(days=2)
        done = await privacy.erase(home.store, whom(ANNA), by="root")
        assert done.mailings[rejected.mailing_id] == 1
        row = select(mailing.c.state, mailing.c.doc).where(mailing.c.id == rejected.mailing_id)
        [(state, doc)] = await home.store.ask(lambda c: c.execute(row).all())
        assert (state, ANNA in doc) == ("passing", False)


async def test_no_byte_of_what_was_erased_is_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once all processes have ended; by an SQLite that by itself leaves deleted bytes in place."""
    connected = engine._to_file

    def leaving(uri: str) -> sqlite3.Connection:
        connection = connected(uri)
        connection.execute("PRAGMA secure_delete=OFF")
        return connection

    monkeypatch.setattr(engine, "_to_file", leaving)
    async with house(tmp_path, url=sqlite_url(tmp_path / "guard.db")) as home:
        for n in range(20):
            await home.send("someone@example.net", Message_ID=f"<{n}@example.com>", body=f"Letter {n}")
        await index(home)
        await privacy.erase(home.store, whom("someone@example.net"), by="root")
    content = files(tmp_path)
    assert tmp_path / "guard.db" in content
    assert [file for file, octets in content.items() if b"someone@" in octets] == []


def files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


async def test_what_was_read_for_the_index_before_is_not_found(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delivery part has read the entries, and writes their words when the erasure is over."""
    async with house(tmp_path, url=url) as home:
        await story(home)
        ask = home.store.ask

        async def asked(*args: Any, **more: Any) -> Any:
            read = await ask(*args, **more)
            monkeypatch.setattr(home.store, "ask", ask)
            await privacy.erase(home.store, whom(MEMBERS[20]), by="root")
            return read

        monkeypatch.setattr(home.store, "ask", asked)
        await home.store.journal.index()
        assert await found(home, MEMBERS[20]) == []
        assert len(await found(home, MEMBERS[21])) == 1


async def test_a_message_in_doubt_has_no_names_beside_its_entries(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.intake()(home.transaction(CUSTOMER), FakePassage(raises=Lost(LATER, after_dot=True)))
        await home.store.journal.record([])
        await privacy.erase(home.store, whom(ANNA), by="root")
        assert await home.store.ask(lambda c: c.execute(select(underway.c.doubt, underway.c.marks)).all()) == [
            (True, "")
        ]


async def test_a_hold_that_others_follow_stays(tmp_path: Path) -> None:
    """Copies that wait for their stage would never be sent, and never end; nobody could withdraw one in doubt."""
    async with approved(tmp_path, stages="{steps: [5, rest]}") as tool:
        store, lead = tool.home.store, (await tool.home.holds())[0]
        recipient = whom(str(lead.envelope.addresses[0]))
        await tool.office.worker.step()
        await privacy.erase(store, recipient, by="root")
        await store.write(lambda b: b.execute("UPDATE hold SET held_at = 0 WHERE hold_id = ?", [(lead.hold_id,)]))
        await store.retain(Retention())
        await tool.service.go_on(lead.mailing_id, approver=EVA, by="test")
        await tool.approvals.follow()
        await tool.office.worker.step()
        assert {hold.state for hold in await tool.home.holds()} == {State.RELEASED}
        asked = "UPDATE hold SET state = ?, asked = ? WHERE hold_id = (SELECT max(hold_id) FROM hold WHERE lead = ?)"
        for state, at in (("in-doubt", 1), ("released", None)):
            await store.write(partial(Batch.execute, sql=asked, rows=[(state, at, lead.hold_id)]))
            await store.retain(Retention())
            await privacy.erase(store, recipient, by="root")
            assert (await store.holds.find(lead.hold_id) is None) is (at is None)


async def test_a_person_whose_copy_waits_is_counted_to_its_end(tmp_path: Path) -> None:
    """The approval has ended before its copy could follow it, so no decision on the mailing is in force."""
    async with approved(tmp_path, stages="{steps: [5, rest]}") as tool:
        await tool.office.worker.step()
        tool.home.clock.pass_(days=8)
        copy = (await tool.home.holds())[-1]
        done = await privacy.erase(tool.home.store, whom(str(copy.envelope.addresses[0])), by="root")
        assert "mailing" in {one.what for one in done.kept}
        await tool.approvals.follow()
        for hold in await tool.home.store.holds.newest():
            if hold.state is State.WAITING:
                await tool.approvals.vote(hold.hold_id, Choice.REJECT, approver=EVA, by="test", comment="no")
        await tool.approvals.follow()
        (mailing,) = await tool.home.store.mailings.newest()
        assert mailing.people.held == 0


@pytest.mark.parametrize("quick", [True, False])
async def test_a_forged_erasure_is_found(tmp_path: Path, quick: bool) -> None:
    async with house(tmp_path) as home:
        await story(home)
        await privacy.erase(home.store, whom(CUSTOMER), by="root")
        assert (await home.store.journal.verify()).ok

        def forge(batch: Any) -> None:
            batch.connection.exec_driver_sql(f"UPDATE clear SET doc = replace(doc, '{MEMBERS[5]}', '{ERASED}')")

        await home.store.write(forge)
        proof = await (home.store.journal.audit("host", alone=True) if quick else home.store.journal.verify())
        assert proof.first_bad is not None
        assert "private values do not fit" in str(proof.first_bad.problem)


@every(
    ("text", "named"),
    [
        ("Anna <ANNA+list@example.com>", True), ("about anna@example.com.", True), ("joanna@example.com", False),
        ("anna@example.com.evil.example", False), ("anna@example.org", False), ("", False), ("@example.com", False),
        ("Why to anna@example.com?", True), ("not anna@example.com!", True), ("Re:anna@example.com", True),
        ("to=anna@example.com", True), ("mailto:anna@example.com?subject=x", True), ("{anna@example.com}", True),
        ("bo/anna@example.com\u2026", True), ("\u201canna@example.com\u201d", True), ("_anna@example.com_", False),
        ("*anna@example.com_*", True), ("'anna@example.com'", True), ("bo@example.com,anna@example.com", True),
        ("not anna-b@example.com", False), ("not x.anna@example.com", False), ("of b+anna@example.com", False),
        ("anna@example.com-x.example?", False), ("no anna @example.com", False), ("o'anna@example.com", False),
        ("prvs=1234567890=anna@example.com", True), ("SRS0=ab1c=QK=example.com=anna@server.example", True),
        ("SRS1=ab1c=other.example==ab1c=QK=example.com=anna@server.example", True), ("anna=example.com@server.example", True),
        ("news-bounces+anna=example.com@server.example", True), ("news-return-7-anna=example.com@server.example", True),
        ("news-anna=example.com@server.example", True), ("bounces+eva-anna=example.com@server.example", False),
        ("news-return-7-eva-anna=example.com@server.example", False), ("bounce-eva-anna=example.com@server.example", False),
        ("bounces+anna+tag=example.com@server.example", True),
        ("to <news-bounces+anna=example.com@server.example>", True), ("to news-bounces+eva-anna=example.com@server.example.", False),
        ("550 SRS0=ab1c=QK=example.com=anna@server.example: unknown", True),
        ("news+joanna=example.com@server.example", False), ("news+anna=other.example@example.com", False), ("=@example.com", False),
        ("SRS0=ab1c=QK=example.com=joanna@server.example", False), ("anna%example.com@relay.example", True),
        ("not anna (at) example.com", True), ("ask anna[AT]example(dot)com, now", True), ("anna\uff20example.com", True),
        ("joanna (at) example.com", False), ("to anna@\uff45xample.com", True), ("anna@\uff45xample.com", True),
        ("of <anna%example.com@relay.example>", True), ("see why?id=anna%40example.com&ip=1", True), ("id=annb%40example.com", False), ('"Anna" <"anna"@example.com>', True),
    ],
)  # fmt: skip
def test_texts_that_name_a_person(text: str, named: bool) -> None:
    assert whom(ANNA).is_named(text) is named


@every(
    ("address", "text"),
    [
        ("a.nna@gmail.com", "Anna <an.na@googlemail.com>"), ("o'brien@example.com", "o'brien@example.com"),
        ("o'brien@example.com", "not 'o'brien@example.com'"), ("a/b@example.com", "of a/b@example.com"),
        ('"anna b"@example.com', '"anna b"@example.com'), ('"anna b"@example.com', 'Anna <"anna b"@example.com>'),
        (r'"a \" (b@x)"@example.com', r'to "a \" (b@x)"@example.com, now'), ("anna@[192.0.2.1]", "not anna@[192.0.2.1]!"),
        ("anna@[IPv6:::1]", "anna@[ipv6:0:0:0:0:0:0:0:1]"), ("anna@b\u00fccher.example", "not anna@bu\u0308cher.example?"),
        ("anna@[192.0.2.1]", "?id=anna%40[192.0.2.1]"), ("anna@b\u00fccher.example", "anna@xn--bcher-kva.example"), ("anna@xn--bcher-kva.example", "anna@b\u00fccher\u3002example"),
    ],
)  # fmt: skip
def test_spellings_of_one_person_are_recognized(address: str, text: str) -> None:
    assert whom(address).is_named(text)


@every("text", ["@", "a", '"', '"@', '"a" ', '\\"', "@[", "!", "!x@b.c", "a@example.com=", '"@example.com '])
def test_a_long_text_is_searched_in_linear_time(text: str) -> None:
    def took(octets: int) -> float:
        begun = thread_time()
        assert not whom(ANNA).is_named("example " + text * (octets // len(text)))
        return thread_time() - begun

    took(1_000)
    assert took(100_000) < 40 * took(10_000) + 1


async def test_a_colleague_is_found_by_an_address_that_only_the_part_sent_at_once_had(tmp_path: Path) -> None:
    """The domain is an alias of theirs at the relay, so that they are counted by another address."""
    async with house(tmp_path) as home:
        registry = home.in_force.registry
        keys = registry.digester.key_ids
        write_expansions(
            expansions_path(home.folder), {}, domains={"example.se": "example.com"}, catches=False, key_id=keys[0],
            at=MONDAY, namesakes={},
        )  # fmt: skip
        registry.expansions = Expansions(home.folder, *keys)
        registry.expansions.look()
        to = ["ida@example.se", *MEMBERS[:25]]
        hold = await home.held(*to, To=", ".join(to))
        await home.approvals().vote(hold.hold_id, Choice.REJECT, approver=EVA, by="eva")
        while leases := await home.store.outbox.lease("one", 100, 60):
            for lease in leases:
                await home.store.outbox.settle(lease, last(lease, DeliveryEvent.TAKE, home.clock), [])
        done = await privacy.erase(home.store, whom("ida@example.se"), by="root")
        assert (done.holds, await home.holds()) == (1, [])
