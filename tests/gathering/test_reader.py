"""Reading within bounds: small messages in this process, others in one that can be killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.gathering import reader as module
from smtpguard.gathering.reader import BoundedReader, Pool
from smtpguard.mail.message import Message
from smtpguard.reading.looks import Looks, Readable, Reading
from smtpguard.reading.read import Texts, read_in_steps
from smtpguard.reading.read import read as read_message
from smtpguard.reading.request import Bounds, Depth, Surroundings
from smtpguard.reading.shown import shown_by
from smtpguard.reading.topics import compile_vocabularies

HEAD = b"From: Anna <anna@example.com>\r\nTo: ulf@example.com\r\nSubject: SV: lunch\r\n"
SMALL = Message.of(HEAD + b"\r\nBacon at noon?\r\n")
LARGE = Message.of(HEAD + b"\r\n" + b"A line of text that goes on.\r\n" * 20_000)
PARTS = b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" * 60 + b"--b--\r\n"
COMPLEX = Message.of(HEAD + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n' + PARTS)
AROUND = Surroundings(domains=frozenset({"example.com"}))

Make = Callable[..., BoundedReader]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[BoundedReader] = []

    def reader(**pool: Any) -> BoundedReader:
        made.append(BoundedReader(lambda: ("p1", AROUND), pool=Pool(**pool)))
        return made[-1]

    yield reader
    for each in made:
        await each.close()


def child(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


NOBODY = child("raise SystemExit(3)")


async def read(reader: BoundedReader, message: Message, depth: Depth = Depth.TEXT) -> Reading:
    return await reader.read(message, depth)


async def test_small_messages_are_read_in_this_process(make: Make) -> None:
    reading = await read(make(argv=NOBODY), SMALL)
    assert reading.readable is Readable.YES
    assert reading.from_address == "anna@example.com"
    assert reading.excerpt.startswith("Bacon")


async def test_the_header_of_a_large_message_is_read_in_this_process(make: Make) -> None:
    assert (await read(make(argv=NOBODY), LARGE, Depth.HEADERS)).subject == "SV: lunch"


async def test_large_messages_are_read_by_a_reused_process(make: Make) -> None:
    reader = make()
    first = await read(reader, LARGE)
    assert first.readable is Readable.YES
    assert first.subject == "SV: lunch"
    assert first.looks is Looks.INTERNAL
    [process] = reader._idle
    other = await read(reader, Message.of(bytes(LARGE.raw[:]) + b"One more.\r\n"))
    assert other.from_address == "anna@example.com"  # it still has the vocabularies
    assert reader._idle == [process]


async def test_a_signal_to_the_whole_tree_ends_no_process(make: Make) -> None:
    reader = make()
    await read(reader, LARGE)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        reader._idle[0]._process.send_signal(number)
    assert (await read(reader, Message.of(bytes(LARGE.raw) + b"One more.\r\n"))).readable is Readable.YES


async def test_a_complex_small_message_is_read_by_a_process(make: Make) -> None:
    assert (await read(make(), COMPLEX)).readable is Readable.YES
    assert (await read(make(argv=NOBODY), COMPLEX)).readable is Readable.TOO_COMPLEX


async def test_what_a_message_shows_is_found_in_this_process_unless_it_is_complex(make: Make) -> None:
    reader = make(argv=NOBODY)
    assert reader.shown_at_once(SMALL) == shown_by(SMALL)
    assert reader.shown_at_once(COMPLEX) is None
    assert (await reader.shown_apart(COMPLEX)).opaque
    reader = make()
    found = await reader.shown_apart(COMPLEX)
    assert found == reader.shown_at_once(COMPLEX) == shown_by(COMPLEX)
    assert not found.opaque
    assert await make().shown_apart(SMALL) == shown_by(SMALL)


async def test_a_long_attached_text_is_read_whole(make: Make) -> None:
    """An attached text is read whole: a forwarded mail from Outlook begins with that much markup."""
    term = {"title": "x", "groups": [{"language": "en", "terms": ["bacon"]}]}
    around = replace(AROUND, vocabularies=compile_vocabularies({"pork": term}))
    attached = (
        b"From: bo@example.com\r\nSubject: s\r\n\r\n" + b"A line of text that goes on.\r\n" * 2_000 + b"Bacon\r\n"
    )
    mime = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nHello\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n'
    message = Message.of(HEAD + mime + attached + b"--b--\r\n")
    reader = BoundedReader(lambda: ("p1", around))
    assert message.size_bytes < Pool().small_bytes
    reading = await read(reader, message)
    await reader.close()
    assert reading.readable is Readable.YES
    assert [topic.vocabulary for topic in reading.topics] == ["pork"]


async def test_a_process_that_hangs_is_killed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_SECONDS", 0.2)
    started: list[Any] = []
    start = module._Child.start

    async def remember(argv: Any) -> Any:
        started.append(await start(argv))
        return started[-1]

    monkeypatch.setattr(module._Child, "start", remember)
    reader = make(argv=child("import sys, time; sys.stdin.buffer.read(10); time.sleep(600)"), bounds=Bounds(seconds=0))
    reading = await read(reader, LARGE)
    assert reading.readable is Readable.TOO_COMPLEX
    assert "too long" in reading.why_unreadable
    assert reading.from_address == "anna@example.com"  # the header's facts stay known
    assert started[0]._process.returncode == -9
    assert reader._idle == []


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(3)",
        "import sys; sys.stdin.buffer.read(4); sys.stdout.buffer.write(b'\\0\\0\\0\\5hello'); sys.stdout.flush();"
        " sys.stdin.buffer.read()",
        "import sys; sys.stdout.buffer.write(b'\\xff\\xff\\xff\\xff'); sys.stdout.flush(); sys.stdin.buffer.read()",
    ],
)
async def test_a_process_that_dies_or_answers_nonsense_is_replaced(make: Make, code: str) -> None:
    reading = await read(make(argv=child(code)), LARGE)
    assert reading.readable is Readable.TOO_COMPLEX
    assert reading.looks is Looks.UNCLEAR


async def test_the_pipe_of_a_killed_process_is_closed() -> None:
    answers = await module._Child.start(child("import sys; sys.stdout.buffer.write(bytes(1 << 20))"))
    source = answers._process.stdout
    assert source is not None
    await source.readexactly(1)
    await answers.end()
    assert source.at_eof(), "nothing else closes it"


async def test_a_message_above_the_limit_is_not_read(make: Make) -> None:
    reading = await read(make(argv=NOBODY, small_bytes=100, most_bytes=1000), LARGE)
    assert reading.readable is Readable.TOO_COMPLEX


async def test_a_process_that_cannot_be_started_raises(make: Make) -> None:
    with pytest.raises(OSError):
        await make(argv=("/nonexistent",)).apart(LARGE, Depth.TEXT)


async def test_the_same_content_is_read_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0

    def counting(really: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*a: Any, **k: Any) -> Any:
            nonlocal reads
            reads += 1
            return really(*a, **k)

        return counted

    monkeypatch.setattr(module, "read", counting(read_message))
    monkeypatch.setattr(module, "read_in_steps", counting(read_in_steps))
    reader = make()
    first = await read(reader, SMALL)
    assert await read(reader, SMALL) is first
    assert reads == 1
    await read(reader, SMALL, Depth.HEADERS)  # a header alone is read again, which takes less than to remember it
    await read(reader, Message.of(b"From: x@example.org\r\n\r\n"))
    assert reads == 3


async def test_the_cache_is_bounded(make: Make) -> None:
    reader = make(remembered=3)
    for n in range(10):
        await read(reader, Message.of(HEAD + b"\r\n%d\r\n" % n))
    await read(reader, Message.of(HEAD), Depth.HEADERS)  # not remembered
    assert [depth for *_, depth in reader._known] == [Depth.TEXT] * 3


async def test_a_new_policy_reads_again() -> None:
    policy, around = "p1", AROUND
    reader = BoundedReader(lambda: (policy, around))
    copies = [Message.of(f"X-Copy: {n}\r\n".encode() + SMALL.raw) for n in range(3)]
    first, *_ = [await read(reader, copy) for copy in copies]  # the text is remembered by now
    groups = [{"language": "en", "terms": ["bacon"]}]
    policy, around = "p2", replace(AROUND, vocabularies=compile_vocabularies({"pork": {"groups": groups}}))
    assert first.topics == ()
    assert all([(await read(reader, copy)).topics for copy in copies])


BODIES = (b"Dear Bo,\r\nspring is here. Unsubscribe: https://x.example/u\r\n" * 6, b"Bacon at noon?\r\n\r\nMvh Anna\r\n", b"<p>Hej <b>Bo</b>, TODO</p>", b"",
          b"SGVqIGFsbGE=\r\n", b"=C3=A5r\r\n\r\nOn 3 May Bo <bo@example.com> wrote:\r\n> x\r\n", PARTS)  # fmt: skip
TYPES = (b"", b"Content-Type: text/plain; charset=utf-8\r\n", b"Content-Type: text/html\r\n", b'Content-Type: multipart/mixed; boundary="b"\r\n',
         b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n", b"Content-Disposition: attachment; filename=a.txt\r\n",
         b"Content-Type: text/plain\r\nContent-Type: text/html\r\n")  # fmt: skip
OTHERS = (b"From: a@example.com\r\n", b"From: news@x.example\r\nList-Unsubscribe: <https://x.example/u>\r\n", b"Message-ID: <1@x.example>\r\nTo: bo@x.example\r\n",
          b"X-Mailer: Outlook\r\nReturn-Path: <>\r\n", b"broken\r\n")  # fmt: skip
SUBJECTS = (b"", b"Subject: SV: lunch\r\n", b"Subject: Newsletter\r\n", b"Subject: =?utf-8?q?UTKAST:_v=C3=A5r?=\r\n")
SHARED = Texts(most=8)
sent = st.tuples(*map(st.sampled_from, (OTHERS, SUBJECTS, TYPES)), st.just(b"\r\n"), st.sampled_from(BODIES))


@given(st.lists(sent.map(b"".join), max_size=12))
def test_a_text_that_came_before_is_read_as_if_it_were_new(messages: list[bytes]) -> None:
    for raw in messages:
        message = Message.of(raw)
        for depth in (Depth.TEXT, Depth.TEXT, Depth.TEXT, Depth.HEADERS):  # from the third time on it is remembered
            assert read_message(message, AROUND, depth, texts=SHARED) == read_message(message, AROUND, depth)


@given(st.lists(sent.map(b"".join), max_size=6))
def test_messages_are_read_step_by_step_beside_each_other_as_each_alone(messages: list[bytes]) -> None:
    now = 0.0
    bounds = Bounds(clock=lambda: now)
    some = [Message.of(raw) for raw in messages for _ in range(3)]
    waiting = {n: read_in_steps(message, AROUND, bounds=bounds, texts=SHARED) for n, message in enumerate(some)}
    found: dict[int, Reading] = {}
    while waiting:
        for n, steps in list(waiting.items()):
            now += bounds.seconds  # what others take does not count
            try:
                next(steps)
            except StopIteration as end:
                found[n] = end.value
                del waiting[n]
    assert found == {n: read_message(message, AROUND) for n, message in enumerate(some)}


async def test_a_text_is_remembered_from_the_second_time_on_within_bounds(make: Make) -> None:
    reader, texts = make(), Texts(most=4, octets=4000, hashes=30)
    for n in range(40):
        for _ in range(1 + n % 2):
            read_message(Message.of(HEAD + f"\r\nNumber {n}\r\n".encode()), AROUND, texts=texts)
    assert [one.text.new for one in texts._read.values()] == [f"Number {n}" for n in (33, 35, 37, 39)]
    large = Message.of(HEAD + b"\r\n" + b"A line of text.\r\n" * 400)
    for _ in range(3):
        read_message(large, AROUND, texts=texts)
    assert (len(texts._read), len(texts._once)) == (4, 30)
    for n in range(3):
        await read(reader, Message.of(f"X-Copy: {n}\r\n".encode() + SMALL.raw))
    assert [one.text.new for one in reader._texts[1]._read.values()] == ["Bacon at noon?"]


async def test_a_killed_reading_is_cached_for_a_time() -> None:
    now = 0.0
    reader = BoundedReader(lambda: ("p1", AROUND), pool=Pool(argv=NOBODY), monotonic=lambda: now)
    first = await read(reader, LARGE)
    assert await read(reader, LARGE) is first
    now += module.REMEMBER_KILLED_SECONDS
    assert await read(reader, LARGE) is not first


async def test_a_message_for_a_process_that_ended_while_idle_is_lost(make: Make) -> None:
    reader = make(argv=NOBODY)
    idle = await module._Child.start(NOBODY)
    await idle._process.wait()
    assert idle._process.stdin is not None
    idle._process.stdin.close()  # as the loop does once it has seen the end
    reader._idle.append(idle)
    assert (await read(reader, LARGE)).readable is Readable.TOO_COMPLEX


async def test_concurrent_readings_of_one_content_are_shared(make: Make) -> None:
    reader = make()
    readings = await asyncio.gather(*(read(reader, LARGE) for _ in range(5)))
    assert len({id(r) for r in readings}) == 1
    assert len(reader._idle) == 1


async def test_a_cancelled_caller_does_not_disturb_others(make: Make) -> None:
    reader = make()
    impatient = asyncio.create_task(reader.apart(LARGE, Depth.TEXT))
    patient = asyncio.create_task(read(reader, LARGE))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).readable is Readable.YES
