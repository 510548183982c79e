"""Content of DATA: only CRLF.CRLF ends it, however it is cut; forbidden octets are refused; nothing is changed."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail import reply
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply
from smtpguard.wire import data
from smtpguard.wire.data import Arrived, Arriving, header_refusal, pieces
from smtpguard.wire.listener import Limits
from tests.every import every
from tests.wire.proxied import files_in

SMALL = Limits(spool_octets=64)


def arrive(octets: bytes, spool: Path, limits: Limits | None = None, size: int = 0) -> tuple[Arrived | Reply, bytes]:
    """Feed ``octets`` in chunks of ``size`` until the end. Returns the result, and the octets behind the end."""
    arriving = Arriving(limits or Limits(), spool)
    size = size or len(octets)
    try:
        for start in range(0, len(octets), size):
            rest = arriving.feed(octets[start : start + size])
            if rest is not None:
                return arriving.refusal or arriving.finish(), rest + octets[start + size :]
            if arriving.heavy:
                arriving.unload()
        raise AssertionError("no end")
    finally:
        arriving.close()


FALSE_ENDS = {
    "LF.LF": b"\n.\n", "CR.CR": b"\r.\r", "CRLF.LF": b"\r\n.\n", "LF.CRLF": b"\n.\r\n", "CRLF.CR": b"\r\n.\r",
    "CR.CRLF": b"\r.\r\n", "CR.LF": b"\r.\n", "LF.CR": b"\n.\r", "CRLF NUL.CRLF": b"\r\n\0.\r\n",
    "CRLF.NUL CRLF": b"\r\n.\0\r\n", "CRLF.CRCRLF": b"\r\n.\r\r\n", "CRCRLF.CRCRLF": b"\r\r\n.\r\r\n",
}  # fmt: skip
SECOND = (
    b"MAIL FROM:<x@example.com>\r\nRCPT TO:<customers@example.com>\r\nDATA\r\nSubject: second\r\n\r\nhello\r\n.\r\n"
)


@every("end", FALSE_ENDS.values())
@every("size", [1, 2, 3, 4, 5, 7, 0])
def test_no_false_end_of_data(end: bytes, size: int, tmp_path: Path) -> None:
    content = b"Subject: first\r\n\r\nhello" + end + SECOND
    arrived, rest = arrive(content + b"QUIT\r\n", tmp_path, size=size)
    assert arrived == (reply.NUL_IN_MESSAGE if b"\0" in end else reply.BARE_LINE_END)
    assert rest == b"QUIT\r\n"


@every("bare", [b"a\rb", b"a\nb", b"\r", b"\n", b"a\r\r\nb", b"a\n\r\nb", b"a\r\n\nb"])
@every("size", [1, 3, 0])
def test_bare_line_ends_are_refused(bare: bytes, size: int, tmp_path: Path) -> None:
    assert (arrive(bare + b"\r\n.\r\n", tmp_path, size=size))[0] == reply.BARE_LINE_END


def test_nul_is_refused(tmp_path: Path) -> None:
    assert (arrive(b"a\0b\r\n.\r\n", tmp_path))[0] == reply.NUL_IN_MESSAGE


LINES = st.lists(
    st.sampled_from([b"", b".", b"..", b"...", b". x", b"x", b"x.", b"\xc3\xa5", b"a" * 40]) | st.binary(max_size=6),
    max_size=12,
).map(lambda lines: [line.translate(None, b"\r\n\0") for line in lines])


@given(LINES, st.binary(max_size=8), st.integers(1, 9), st.sampled_from([16, 1 << 20]))
@settings(max_examples=250, deadline=None)
def test_any_content_survives_any_cut(lines: list[bytes], behind: bytes, size: int, spool_octets: int) -> None:
    """Content that is stuffed as by a client, cut anywhere, in memory or spooled, arrives intact, and so do the octets
    behind it."""
    said = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    with tempfile.TemporaryDirectory() as spool:
        limits = Limits(spool_octets=spool_octets)
        arrived, rest = arrive(stuffed + b".\r\n" + behind, Path(spool), limits, size)
        assert isinstance(arrived, Arrived)
        assert arrived.message.raw[:] == said
        assert b"".join(pieces(arrived.stuffed)) == stuffed
        assert rest == behind
        assert not files_in(Path(spool)), "a spool file has no name"


@pytest.mark.parametrize("size", range(1, 8))
def test_an_empty_message_arrives(size: int, tmp_path: Path) -> None:
    arrived, rest = arrive(b".\r\nNOOP\r\n", tmp_path, size=size)
    assert isinstance(arrived, Arrived)
    assert (arrived.message.raw, arrived.stuffed, rest) == (b"", b"", b"NOOP\r\n")


def test_without_dot_stuffing_one_copy_is_kept(tmp_path: Path) -> None:
    arrived, _ = arrive(b"A: b\r\n\r\nc\r\n.\r\n", tmp_path)
    assert isinstance(arrived, Arrived)
    assert arrived.stuffed is arrived.message.raw


def test_large_content_is_in_a_private_file(tmp_path: Path) -> None:
    line = b"..all work and no play\r\n"
    many = b"\r\n" + line * 50_000
    arriving = Arriving(Limits(spool_octets=1 << 16), tmp_path)
    for start in range(0, len(many), 10_007):
        assert arriving.feed(many[start : start + 10_007]) is None
        if arriving.heavy:
            arriving.unload()
    assert arriving._file is not None
    assert os.fstat(arriving._file.fileno()).st_mode & 0o777 == 0o600
    assert arriving.feed(b".\r\n") == b""
    arrived = arriving.finish()
    arriving.close()
    assert isinstance(arrived, Arrived)
    assert not isinstance(arrived.message.raw, bytes)
    assert b"".join(pieces(arrived.stuffed)) == many
    assert arrived.message.raw[:] == b"\r\n" + line[1:] * 50_000


@pytest.mark.parametrize(("number", "answer"), [(errno.ENOSPC, reply.DISK_FULL), (errno.EDQUOT, reply.DISK_FULL), (errno.EIO, reply.INTERNAL_ERROR)])  # fmt: skip
def test_a_failing_disk_refuses_the_message(
    number: int, answer: Reply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    arrived, rest = arrive(b"x\r\n" * 100 + b".\r\nRSET\r\n", tmp_path, SMALL, 50)
    assert (arrived, rest) == (answer, b"RSET\r\n")
    assert answer.transient


def test_a_disk_that_fails_at_the_end_refuses_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arriving = Arriving(SMALL, tmp_path)
    arriving.feed(b"..x\r\n" * 100)
    arriving.unload()
    arriving.feed(b".\r\n")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    assert arriving.finish() == reply.DISK_FULL
    arriving.close()


def test_the_file_stays_open_while_a_thread_writes_for_a_client_that_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving = Arriving(SMALL, tmp_path)
    arriving.feed(b"x\r\n" * 100)
    files: list[IO[bytes]] = []

    def write(file: IO[bytes], octets: bytes) -> None:
        arriving.close()
        files.append(file)
        assert file.write(octets) == len(octets)

    monkeypatch.setattr(data, "_write_all", write)
    arriving.unload()
    assert [file.closed for file in files] == [True]
    arriving.unload()  # one that began too late
    assert len(files) == 1


@pytest.mark.parametrize("size", [1, 100, 0])
def test_the_size_limit_excludes_dot_stuffing(size: int, tmp_path: Path) -> None:
    content = b"..x\r\n" * 20  # 80 octets after unstuffing
    limits = Limits(message_octets=80)
    assert isinstance((arrive(content + b".\r\n", tmp_path, limits, size))[0], Arrived)
    assert (arrive(content + b"y\r\n.\r\n", tmp_path, limits, size))[0] == reply.TOO_BIG


@pytest.mark.parametrize("size", [1, 7, 64, 0])
@pytest.mark.parametrize("before", [0, 1, 5])
def test_the_line_limit(size: int, before: int, tmp_path: Path) -> None:
    limits = Limits(line_octets=50)
    fine = b"short\r\n" * before + b"x" * 48 + b"\r\n" + b"short\r\n.\r\n"
    assert isinstance((arrive(fine, tmp_path, limits, size))[0], Arrived)
    assert (arrive(b"x" + fine if not before else fine.replace(b"xx", b"xxx", 1), tmp_path, limits, size))[0] == (
        reply.LINE_TOO_LONG
    )


@pytest.mark.parametrize(("content", "answer"), [(b"x" * 10_000_000 + b"\r\n", reply.LINE_TOO_LONG), (b"x" * 100 + b"\n" + b"y" * 10_000_000 + b"\r\n", reply.BARE_LINE_END)], ids=["long", "bare"])  # fmt: skip
def test_refused_content_takes_no_memory(content: bytes, answer: Reply, tmp_path: Path) -> None:
    arriving = Arriving(Limits(), tmp_path)
    tracemalloc.start()
    try:
        for start in range(0, len(content), 1 << 16):
            arriving.feed(content[start : start + (1 << 16)])
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert arriving.feed(b".\r\n") == b""
    assert arriving.refusal == answer


def test_many_short_lines_take_no_memory(tmp_path: Path) -> None:
    chunk = b"\r\n" * (1 << 17)
    arriving = Arriving(Limits(line_octets=1000), tmp_path)
    tracemalloc.start()
    try:
        for _ in range(128):  # 32 MB in all
            arriving.feed(chunk)
            if arriving.heavy:
                arriving.unload()
        arriving.feed(b".\r\n")
        arrived = arriving.finish()
        assert tracemalloc.get_traced_memory()[1] < 32_000_000
    finally:
        tracemalloc.stop()
        arriving.close()
    assert isinstance(arrived, Arrived)
    assert arrived.message.size_bytes == 128 << 18


@every(
    ("header", "answer"),
    [
        (b"Received: x\r\n" * 50, None),
        (b"Received: x\r\n" * 51, reply.LOOP),
        (b"rEcEived : x\r\n by y\r\n" * 51, reply.LOOP),
        (b"X-Received: x\r\n" * 60, None),
        (b"Subject: received received\r\n" * 60, None),
        (b"X: y\r\n" * 10_001, reply.HEADER_TOO_BIG),
        (b"X: " + b"y" * (1 << 20) + b"\r\n", reply.HEADER_TOO_BIG),
        (b"", None),
        (b"\r\n" + b"x" * (1 << 20) + b"\r\n", None),
    ],
)
def test_limits_of_the_header(header: bytes, answer: Reply | None) -> None:
    assert header_refusal(Message.of(header + b"\r\nReceived: in the body\r\n" * 60), Limits()) == answer


def test_a_header_without_a_body() -> None:
    assert header_refusal(Message.of(b"Received: x\r\n" * 51), Limits()) == reply.LOOP
    assert header_refusal(Message.of(b"x\r\n" * 400_000), Limits()) == reply.HEADER_TOO_BIG


def test_tiny_packets_take_no_more_memory_than_their_octets(tmp_path: Path) -> None:
    """A client may write two octets at a time; each as an object of its own would take twenty times as much."""
    arriving = Arriving(Limits(), tmp_path)
    lines = b"abcdef\r\n" * 5000
    tracemalloc.start()
    try:
        for start in range(0, len(lines), 2):
            arriving.feed(lines[start : start + 2])
        assert tracemalloc.get_traced_memory()[0] < 3 * len(lines)
    finally:
        tracemalloc.stop()
        arriving.close()


def test_spool_files_are_closed(tmp_path: Path) -> None:
    for _, stuffed in itertools.product(range(5), (b"x\r\n" * 100, b"..x\r\n" * 100)):
        arrived, _ = arrive(stuffed + b".\r\n", tmp_path, SMALL, 30)
        assert isinstance(arrived, Arrived)
        del arrived
    gc.collect()
    links = [link.readlink() for link in files_in(Path("/proc/self/fd")) if link.is_symlink()]
    assert not [link for link in links if link.is_relative_to(tmp_path)]
