"""Each checkpoint is sent to the witness in order, at least once, and again if the witness refuses it."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import update

from smtpguard.database.batch import Batch
from smtpguard.database.schema import checkpoint
from smtpguard.journal.checkpoint import WITNESS, read
from smtpguard.journal.linefiles import TIMESTAMPS, lines_of, write_line
from smtpguard.journal.proof import Bad
from smtpguard.journal.rows import signed_after, witnessed
from smtpguard.journal.timestamp import Timestamp, Unproven, checked, request, stamped_at
from smtpguard.observe.figures import hooks_behind
from smtpguard.observe.webhooks import Sender
from smtpguard.observe.witnessing import AGAIN_SECONDS, WARN_SECONDS, Timestamping, Witnessing
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.journal.test_rows import filled
from tests.observe.authority import DAY, Authority
from tests.store.making import on_sqlite

URL = "https://witness.example.org/guard?for=us"


class Witness:
    """Keeps what it gets. ``status``: its HTTP status."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.headers: list[httpx2.Headers] = []
        self.status = 200

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.headers.append(request.headers)
        if self.status < 300:
            self.kept.append((await request.aread()).decode())
        return httpx2.Response(self.status)


@pytest.fixture
def witness() -> Witness:
    return Witness()


def giving(store: Store, clock: Clock, witness: Witness) -> Witnessing:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(witness))
    return Witnessing(store, clock, URL, token="sesame", http=http)


async def signed(store: Store, times: int = 1) -> None:
    for _ in range(times):
        await filled(store, 3)
        assert await store.journal.checkpoint() is not None


async def test_each_checkpoint_is_sent_once_in_order(store: Store, clock: Clock, witness: Witness) -> None:
    one = giving(store, clock, witness)
    assert await one.give() == 0
    await signed(store, 2)
    assert await one.give() == 1
    assert await store.ask(witnessed) is not None
    await signed(store, 2)
    assert await one.give() == 2
    assert await one.give() == 0
    assert [read(note).seq for note in witness.kept] == [7, 10, 13], "the newest covers all before it"
    assert witness.headers[0]["authorization"] == "Bearer sesame"
    assert witness.headers[0]["content-type"] == "text/plain; charset=utf-8"
    made = await store.ask(witnessed)
    assert made is not None
    assert (made.seq, made.note) == (13, witness.kept[-1])
    await one.close()


@on_sqlite
async def test_checkpoints_of_an_earlier_version_without_notes_are_passed_over(store: Store) -> None:
    await signed(store, 4)
    every = await store.ask(lambda c: signed_after(c, 0, 9))
    assert len(every) == 4

    def earlier(batch: Batch) -> None:
        for made in every[:2]:
            line = replace(made, note="").line()
            batch.connection.execute(update(checkpoint).where(checkpoint.c.seq == made.seq).values(line=line))

    await store.write(earlier)
    assert await store.ask(lambda c: [signed_after(c, 0, most) for most in (1, 2, 9)]) == [
        every[2:3],
        every[2:],
        every[2:],
    ]


@on_sqlite
async def test_a_refused_checkpoint_is_sent_again(
    store: Store, clock: Clock, witness: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "smtpguard")
    one = giving(store, clock, witness)
    await signed(store)
    await one.give()
    await signed(store, 2)
    witness.status = 503
    for _ in range(3):
        assert await one.give() == 0
        clock.pass_(minutes=3)
    assert len([r for r in caplog.records if "did not take" in r.message]) == 1
    clock.pass_(seconds=WARN_SECONDS)
    assert await one.give() == 0
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 2
    assert "HTTP 503" in warned[0]
    assert sum("checkpoint of entry 7" in line for line in caplog.messages) == 1, (
        "in the log once, however often it is sent"
    )
    assert "witness.example.org" not in caplog.text, "its address may have a password in it"
    made = await store.ask(witnessed)
    assert made is not None
    assert made.seq == 4
    refused = (await store.ask(hooks_behind))[WITNESS]
    assert (refused.told, clock.now() - (refused.failing_since or clock.now())) == (4, timedelta(minutes=19))
    witness.status = 204
    clock.pass_(minutes=3)
    assert await one.give() == 2
    assert (await store.ask(hooks_behind))[WITNESS].failing_since is None
    await one.close()


async def test_a_second_process_sends_nothing_twice(store: Store, clock: Clock, witness: Witness) -> None:
    first, second = giving(store, clock, witness), giving(store, clock, witness)
    await first.give()
    await signed(store)

    async def meanwhile(request: httpx2.Request) -> httpx2.Response:
        assert await second.give() == 0
        return await witness(request)

    first._sender = Sender(http=httpx2.AsyncClient(transport=httpx2.MockTransport(meanwhile)))
    assert await first.give() == 1
    assert len(witness.kept) == 1
    await first.close()
    await second.close()


@on_sqlite
async def test_the_log_has_each_checkpoint(store: Store, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    one = Witnessing(store, clock, "")
    await one.give()
    await signed(store)
    with caplog.at_level(logging.INFO):
        assert await one.give() == 1
    [line] = [record.message for record in caplog.records if "checkpoint of entry 4" in record.message]
    assert read(line.partition(": ")[2].replace("\\n", "\n")).seq == 4
    assert await store.ask(witnessed) is None, (
        "a log counts as a witness only if it is kept elsewhere, which is unknown here"
    )


async def test_verify_reports_the_last_witnessed_checkpoint(store: Store, clock: Clock, witness: Witness) -> None:
    one = giving(store, clock, witness)
    await one.give()
    await signed(store)
    assert (await store.journal.verify()).witnessed is None
    await one.give()
    proof = await store.journal.verify()
    assert proof.witnessed is not None
    assert proof.witnessed[0] == 4
    assert (await store.journal.audit("elsewhere", against=witness.kept)).witnessed == proof.witnessed
    await one.close()


pytest.importorskip("rfc3161_client")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def asking(store: Store, clock: Clock, authority: Authority, state: Path, **more: object) -> Timestamping:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(authority))
    roots = [more.pop("root", authority.root)]
    return Timestamping(store, clock, "http://tsa.example.org/", roots, state, every_seconds=3600, http=http)  # type: ignore[arg-type]


async def note_of(store: Store) -> str:
    await signed(store)
    [made] = await store.ask(lambda c: signed_after(c, -1, 1))
    return str(made.note)


@on_sqlite
async def test_the_newest_checkpoint_is_stamped_once_an_hour(
    store: Store, clock: Clock, authority: Authority, tmp_path: Path
) -> None:
    one = asking(store, clock, authority, tmp_path)
    assert await one.give() == 0, "there is none"
    await signed(store, 2)
    assert await one.give() == 1
    clock.pass_(minutes=59)
    await signed(store)
    assert await one.give() == 0
    clock.pass_(minutes=1)
    assert await one.give() == 1
    clock.pass_(hours=2)
    assert await one.give() == 0, "there is nothing new"
    asked = authority.asked[0]
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/timestamp-query")
    found = checked(lines_of(tmp_path, TIMESTAMPS), [authority.root])
    assert [len(found.notes), found.bad] == [2, ()]
    assert found.latest is not None
    assert abs(datetime.now(UTC) - found.latest[1]) < DAY
    proof = await store.journal.audit("host", stamped=found.notes)
    assert proof.first_bad is None
    assert proof.witnessed is None, "it is kept by this host"
    await one.close()


@on_sqlite
async def test_while_it_is_away_it_is_asked_each_minute_and_the_log_says_so(
    store: Store, clock: Clock, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = asking(store, clock, authority, tmp_path)
    await signed(store)
    authority.status = 503
    for _ in range(3):
        assert await one.give() == 0
        assert await one.give() == 0, "not before a minute"
        clock.pass_(seconds=int(AGAIN_SECONDS))
    assert len(authority.asked) == 3
    said = [record.message for record in caplog.records if "did not take" in record.message]
    assert said == ["the time-stamp authority did not take a checkpoint: HTTP 503; it is sent again"]
    clock.pass_(seconds=int(WARN_SECONDS))
    authority.status = 200
    with caplog.at_level(logging.INFO):
        assert await one.give() == 1
    assert "the time-stamp authority takes checkpoints again" in caplog.text
    assert len(lines_of(tmp_path, TIMESTAMPS)) == 1


REPLIES = {
    "an earlier reply": "the reply has another nonce: it may answer an earlier request",
    "of another checkpoint": "the time stamp is over something else",
    "over another hash": "the time stamp is not over SHA-256",
    "no reply": "the reply cannot be read",
    "refused": "rejected",
    "too long": "its reply is too long",
}


@on_sqlite
@pytest.mark.parametrize("how", REPLIES)
async def test_a_reply_that_proves_nothing_is_not_kept(
    store: Store, clock: Clock, authority: Authority, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    note = await note_of(store)
    if how == "over another hash":
        query = TimestampRequestBuilder().data(note.encode()).hash_algorithm(HashAlgorithm.SHA512).build().as_bytes()
    else:
        query = request(note if how == "an earlier reply" else f"another {note}").octets
    authority.replies = [
        {
            "no reply": b"<html>",
            "too long": b"." * 200_000,
            "refused": bytes.fromhex("30053003020102"),  # TimeStampResp with PKIStatus rejection, and no token
        }.get(how)
        or authority.reply(query)
    ]
    assert await asking(store, clock, authority, tmp_path).give() == 0
    assert f"did not take a checkpoint: {REPLIES[how]}" in caplog.text
    assert lines_of(tmp_path, TIMESTAMPS) == []


@on_sqlite
@pytest.mark.parametrize("which", ["expired", "not yet valid", "of another root"])
async def test_a_certificate_that_does_not_count(
    store: Store, clock: Clock, tmp_path: Path, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    more = {"expired": {"begins": -3 * DAY, "ends": -DAY}, "not yet valid": {"begins": DAY, "ends": 2 * DAY}}.get(
        which, {}
    )
    authority = Authority(tmp_path / "authority", **more)
    other = Authority(tmp_path / "other").root
    await signed(store)
    root = other if which == "of another root" else authority.root
    assert await asking(store, clock, authority, tmp_path, root=root).give() == 0
    assert "not signed under a certificate of ca_file that was valid at its time" in caplog.text
    assert lines_of(tmp_path, TIMESTAMPS) == []


@on_sqlite
async def test_a_clock_that_was_set_back_is_said_and_the_stamp_kept(
    store: Store, clock: Clock, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await signed(store)
    assert clock.now() < datetime.now(UTC) - DAY, "tests live in the past"
    assert await asking(store, clock, authority, tmp_path).give() == 1
    assert "behind that of the time-stamp authority" in caplog.text


@on_sqlite
async def test_what_was_changed_in_the_file_is_found(store: Store, authority: Authority, tmp_path: Path) -> None:
    note = await note_of(store)
    asked = request(note)
    one = Timestamp(seq=4, note=note, nonce=asked.nonce, reply=authority.reply(asked.octets))
    assert stamped_at(one, [authority.root]) <= datetime.now(UTC) + DAY
    for changed in (replace(one, note=note.replace("time 2", "time 1")), replace(one, nonce=1),
                    replace(one, reply=one.reply[:-9] + bytes(9)), replace(one, reply=b"")):  # fmt: skip
        with pytest.raises(Unproven):
            stamped_at(changed, [authority.root])
    write_line(tmp_path, TIMESTAMPS, one.line())
    write_line(tmp_path, TIMESTAMPS, '{"seq": 4')
    found = checked(lines_of(tmp_path, TIMESTAMPS), [authority.root])
    assert (found.notes, found.bad) == ((note,), ((0, "the line cannot be read"),))


@on_sqlite
async def test_a_journal_that_was_made_anew_contradicts_its_time_stamps(
    store: Store, authority: Authority, tmp_path: Path
) -> None:
    """Root has every key of this host, and none of the authority."""
    note = await note_of(store)
    forged = note.replace(f"\n{note.splitlines()[2]}\n", f"\n{'A' * 43}=\n")
    proof = await store.journal.audit("host", stamped=[forged])
    assert isinstance(proof.first_bad, Bad)
    other = note.replace(note.splitlines()[0], f"smtpguard/{'0' * 16}")
    assert (await store.journal.audit("host", stamped=[note, other])).first_bad is None, (
        "of another store, used here before"
    )
