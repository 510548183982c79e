"""Returns are matched to their mailing, stored before the acknowledgement, and counted once a person."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.database.errors import ContentMissing, Full, Unavailable
from smtpguard.mail.message import Message
from smtpguard.reading.fingerprint import Sketch, sketch
from smtpguard.reading.fold import skeleton
from smtpguard.reading.text import extract
from smtpguard.returns import report
from smtpguard.returns.model import By, Sort, row
from smtpguard.returns.report import quoted_text
from smtpguard.returns.service import Receipt
from smtpguard.store.nouns import Contents
from smtpguard.store.retention import Retention
from tests.guard.house import MEMBERS, PatchedStore, index
from tests.returns.mails import Out, arf, dsn, letter


async def test_a_bounce_with_our_trace_is_matched_and_counted(out: Out) -> None:
    first, second = await out.to_members(0, 2)
    mailing = await out.mailing()
    [one] = (await out.back(dsn(first, MEMBERS[0]))).returns
    assert (one.sort, one.match.by, one.match.mailing, one.counts) == (Sort.BOUNCE, By.TRACE, mailing.mailing_id, True)
    assert (one.said.status, one.said.said) == ("5.1.1", "550 no such person here")
    [one] = (await out.back(arf(second))).returns
    assert (one.sort, one.counts) == (Sort.COMPLAINT, True), "the copy names the recipient if the complaint does not"
    mailing = await out.mailing()
    assert (mailing.bounces, mailing.complaints) == (1, 1), "which also stop a release in stages"


async def test_each_person_counts_once_and_the_same_mail_is_stored_once(out: Out) -> None:
    [copy] = await out.to_members(0, 1)
    report = dsn(copy, MEMBERS[0])
    first, again = await out.back(report), await out.back(report)
    assert (first.again, again.again, again.returns) == (False, True, ())
    counted = [(await out.back(dsn(copy, MEMBERS[0]))).returns[0].counts for _ in range(3)]
    assert counted == [False] * 3
    assert len(await out.home.store.returns.newest()) == 4


async def test_forged_returns_are_matched_but_not_counted(out: Out) -> None:
    copy, _ = await out.to_members(0, 2)
    bare = copy.partition(b"\r\nX-Smtpguard:")[2].partition(b"\r\n")[
        2
    ]  # without the trace, as an outsider would write it
    mailing = (await out.mailing()).mailing_id
    forged = [
        dsn(b"Message-ID: <copy-1@example.com>\r\n" + bare, MEMBERS[1]),
        dsn(copy.replace(b"mac=", b"mac=0"), MEMBERS[0]),  # a wrong HMAC
        dsn(copy.replace(b"X-Smtpguard: id=", b"X-Smtpguard: id=0"), MEMBERS[0]),  # of another message
        arf(bare, MEMBERS[0]),
        letter("stranger@elsewhere.example", "Re: SV: lunch", "<nobodys@example.com>"),
    ]
    for each in forged:
        assert [one.counts for one in (await out.back(each)).returns] == [False]
    # a recipient of one copy has its trace, but it counts only for that recipient
    told = (await out.back(dsn(copy, *MEMBERS[10:20]))).returns
    assert [one.counts for one in told] == [True] + [False] * 9
    assert {one.match.mailing for one in told} == {mailing}


async def test_a_bounce_of_list_mail_counts_for_members(out: Out) -> None:
    index(out.home.folder, "news", MEMBERS[:20])
    out.home.in_force.registry.reopen()
    eva = "eva@example.com"
    post = await out.send("news@lists.example.com", session={"auth_user": eva}, sender=eva, reverse_path=eva)
    told = (await out.back(dsn(post, MEMBERS[3], MEMBERS[30], "stranger@elsewhere.example"))).returns
    assert [one.counts for one in told] == [True, False, False]


@pytest.mark.parametrize("how", ["envid", "verp", "message-id"])
async def test_without_a_trace_other_evidence_matches(out: Out, how: str) -> None:
    path = "bounces+customer0=example.net@campaigns.example"
    await out.send(MEMBERS[0], reverse_path=path, Message_ID="<the-copy@example.com>", envid="spring+2Bone")
    nothing = b"Subject: unlike\r\n\r\n"
    report, to = {
        "envid": (dsn(nothing, MEMBERS[0], envid="spring+one"), ()),
        "verp": (dsn(nothing, MEMBERS[0], to=path), (path,)),
        "message-id": (dsn(b"Message-ID: <the-copy@example.com>\r\n\r\n", MEMBERS[0]), ()),
    }[how]
    [one] = (await out.back(report, *to)).returns
    assert (one.match.by.value, one.match.mailing, one.counts) == (how, (await out.mailing()).mailing_id, False)


async def test_a_reply_is_matched_by_its_reference(out: Out) -> None:
    await out.send(MEMBERS[0], Message_ID="<a@example.com>")
    [one] = (await out.back(letter(MEMBERS[0], "Re: SV: lunch", "<a@example.com>"))).returns
    assert (one.sort, one.match.by, one.counts) == (Sort.REPLY, By.MESSAGE_ID, True)
    [one] = (await out.back(letter("journalist@paper.example", "Re: SV: lunch", "<a@example.com>"))).returns
    assert (one.match.mailing, one.counts) == ((await out.mailing()).mailing_id, False)


async def test_a_similar_subject_matches_as_likely(out: Out) -> None:
    await out.send(MEMBERS[0], Subject="Bacon and beer at noon")
    [one] = (await out.back(letter("x@elsewhere.example", "SV: Bacon and beer at noon"))).returns
    assert (one.match.by, one.match.mailing, one.counts) == (By.LIKENESS, (await out.mailing()).mailing_id, False)
    [one] = (await out.back(letter("x@elsewhere.example", "Bacon"))).returns
    assert one.match.by is By.NOTHING, "one common word is no match"
    out.home.clock.pass_(days=31)
    [one] = (await out.back(letter("y@elsewhere.example", "SV: Bacon and beer at noon"))).returns
    assert one.match.by is By.NOTHING


WINE = "\n".join(
    f"Our {n} wine of the {n} month comes from a small {n} garden, and keeps the taste of its {n} summer for years."
    for n in ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
)


@pytest.mark.parametrize("how", ["quoted", "returned", "in no form", "other"])
async def test_a_similar_text_matches_as_likely_and_trips_nothing(out: Out, how: str) -> None:
    """The text of another copy, with another name in it: as people quote it, and as servers return it."""
    out.home.reader.sketch = sketch(skeleton(f"Dear Kim,\n{WINE}"))
    await out.send(MEMBERS[0], body=f"Dear Kim,\n{WINE}")
    text = "\r\n".join(["Dear Robin,", *WINE.splitlines()])
    if how == "other":
        text = text.translate(str.maketrans("aeiou", "uoaei"))
    original = f"From: anna@example.com\r\nSubject: unlike\r\n\r\n{text}\r\n".encode()
    report = {
        "quoted": letter(MEMBERS[0], "Re:", body="No, thank you.\r\n\r\nOn Monday Anna <anna@example.com> wrote:\r\n> " + text.replace("\r\n", "\r\n> ")),
        "returned": dsn(original, MEMBERS[0], whole=True),
        "in no form": letter("MAILER-DAEMON@mx.example.net", "failure", body="Hi. This is the program.\r\n\r\n" + text),
        "other": arf(original, MEMBERS[0]),
    }[how]  # fmt: skip
    [one] = (await out.back(report)).returns
    expected = (By.NOTHING, "") if how == "other" else (By.LIKENESS, (await out.mailing()).mailing_id)
    assert (one.match.by, one.match.mailing, one.counts) == (*expected, False)


async def test_a_return_is_acknowledged_only_once_stored(out: Out) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("gone")

    for broken in ("returns.take", "returns.contents"):
        instead = away if broken == "returns.take" else PatchedStore(out.home.store.returns.contents, {"keep": away})
        service = out.service_on(PatchedStore(out.home.store, {broken: instead}))
        with pytest.raises(Unavailable):
            await service.take(letter("x@elsewhere.example", "Re: hello"))
    assert not await out.home.store.returns.newest()


async def test_many_returns_leave_room_for_held_content(out: Out) -> None:
    store = out.home.store
    store.returns.contents = Contents(store, out.home.folder, 5_000)
    letters = [letter("x@elsewhere.example", f"Re: {n}", body="x" * 500) for n in range(40)]
    said = await asyncio.gather(*(out.back(each) for each in letters), return_exceptions=True)
    assert {type(one) for one in said} == {Receipt, Full}
    await store.contents.keep(Message.of(b"Subject: held\r\n\r\n" + b"x" * 4_000))


async def test_parts_of_a_return_are_erased_in_turn(out: Out) -> None:
    [copy] = await out.to_members(0, 1)
    report = dsn(copy, MEMBERS[0])
    await out.back(report)
    keep, clock, store = Retention(), out.home.clock, out.home.store
    clock.pass_(hours=2)
    await store.retain(keep)
    assert (await store.contents.load(report.sha256)).raw == report.raw, "its content is still referenced"
    clock.pass_(days=31)
    await store.retain(keep)
    with pytest.raises(ContentMissing):
        await store.contents.load(report.sha256)
    [one] = await out.home.store.returns.newest()
    assert (one.kept, one.said.address) == (False, MEMBERS[0])
    clock.pass_(days=60)
    await store.retain(keep)
    [one] = await out.home.store.returns.newest()
    assert (one.said.address, row(one)["sort"], one.counts) == ("", "bounce", True)
    clock.at += timedelta(days=400)
    await store.retain(keep)
    assert not await out.home.store.returns.newest()


async def test_a_return_is_journalled_with_its_match(out: Out) -> None:
    [copy] = await out.to_members(0, 1)
    receipt = await out.back(dsn(copy, MEMBERS[0]))
    [(entry, clear)] = await out.home.store.journal.history(receipt.mail[:16])
    mailing = (await out.mailing()).mailing_id
    assert (
        dict(entry.data).items() >= {"sort": "bounce", "known_by": "trace", "mailing": mailing, "counts": True}.items()
    )
    assert clear is not None
    assert list(clear["recipients"]) == [MEMBERS[0]]
    assert MEMBERS[0] not in entry.body


async def test_concurrent_returns_count_one_person_once(out: Out) -> None:
    [copy] = await out.to_members(0, 1)
    both = await asyncio.gather(*(out.back(dsn(copy, MEMBERS[0])) for _ in range(4)))
    assert sum(one.counts for receipt in both for one in receipt.returns) == 1


async def test_what_comes_back_after_its_mailing_is_forgotten_is_stored(out: Out) -> None:
    """A letter to one person is forgotten after two days, and a report on it may come later."""
    [copy] = await out.to_members(0, 1)
    mailing = await out.mailing()
    await out.campaign.send(MEMBERS[1], mailing="another")
    out.home.clock.pass_(days=3)
    await out.home.store.retain(Retention())
    assert await out.home.store.mailings.find(mailing.mailing_id) is None
    [one] = (await out.back(dsn(copy, MEMBERS[0]))).returns
    assert (one.sort, one.match.mailing, one.counts) == (Sort.BOUNCE, mailing.mailing_id, True)
    assert len(await out.home.store.returns.newest()) == 1


def test_the_text_of_a_mail_that_comes_back_is_read_in_bounded_time() -> None:
    """It is read in a thread, but the whole process waits while a selector is looked for in the tree."""
    sheet = "<style>p:nth-child(2n):nth-last-child(3n){display:none}</style>"
    head = "From: kim@example.net\r\nSubject: Re: x\r\nContent-Type: text/html\r\n\r\n"
    began = time.process_time()
    assert quoted_text(Message.of(f"{head}{sheet}\r\n{'<p>Hej' * 39_000}".encode())) == Sketch()
    assert time.process_time() - began < 2


def test_text_that_waits_for_the_processor_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a reading is its thread's own: on a busy machine too an answer is known by what it quotes."""

    def late(*args: Any) -> Any:
        time.sleep(0.25)
        return extract(*args)

    monkeypatch.setattr(report, "extract", late)
    monkeypatch.setattr(report, "_BOUNDS", replace(report._BOUNDS, seconds=0.25))
    assert quoted_text(letter(MEMBERS[0], "Re: x", body=WINE)) != Sketch()
