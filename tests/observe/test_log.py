"""Log lines: complete, on one line, without secrets, and masked if the settings say so."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import thread_time

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.journal.event import Event, Kind
from smtpguard.observe import log
from smtpguard.observe.log import mask
from tests.every import every

VERDICT = Event(
    kind=Kind.VERDICT,
    id="01HELD",
    at=datetime(2026, 3, 2, 8, tzinfo=UTC),
    data={
        "action": "hold",
        "reach": 400_000,
        "rules": ["internal-to-list"],
        "reasons": [
            {"rule": "internal-to-list", "fact": "message.looks", "observed": "internal", "uncertain": False},
            {"rule": "not-a-writer", "fact": "message.looks", "observed": "internal", "uncertain": False},
            {"rule": "not-a-writer", "fact": "sender.is_writer", "observed": None, "uncertain": True},
            {"rule": "busy", "fact": "sender.customers", "observed": "unknown (no From)", "uncertain": True},
        ],
        "misses": [{"rule": "reply-storm"}],
        "note": "",
    },
    private={"reverse_path": ("kalle@example.com",), "recipients": tuple(f"k{i}@example.org" for i in range(30))},
)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


class _Writes(io.StringIO):
    """Records what each write got."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, text: str) -> int:
        self.calls.append(text)
        return len(text)


@pytest.mark.parametrize("style", ["json", "text"])
def test_each_line_is_one_write(style: str) -> None:
    """Each line is one write: several threads write to the stream, and another thread's line may come between two
    writes."""
    stream = _Writes()
    log.configure(style, stream=stream)
    structlog.get_logger("smtpguard").warning("turned-away", why="gave-up")
    logging.getLogger("smtpguard").warning("another")
    log.tell(VERDICT)
    assert len(stream.calls) == 3
    assert all(text.endswith("\n") for text in stream.calls)


def test_lines_of_one_commit_are_written_together_up_to_pipe_buf() -> None:
    stream = _Writes()
    log.configure("json", stream=stream)
    broken = replace(VERDICT, data=None)  # type: ignore[arg-type]
    long = replace(VERDICT, data={"action": "hold", "note": "x" * 2 * select.PIPE_BUF})
    log.tell(*[VERDICT] * 10, broken, *[VERDICT] * 90, long, VERDICT)
    lines = "".join(stream.calls).splitlines()
    assert [json.loads(line)["id"] for line in lines] == [VERDICT.id] * 102
    assert 1 < len(stream.calls) < 51
    assert [len(text) > select.PIPE_BUF for text in stream.calls].count(True) == 1, "the long line, alone"
    assert all(text.endswith("\n") for text in stream.calls)


def test_a_file_takes_more_lines_in_one_write_than_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    reader, writer = os.pipe()
    with (tmp_path / "log").open("w") as file, os.fdopen(reader), os.fdopen(writer, "w") as pipe:
        for real in (file, pipe):
            stream = _Writes()
            monkeypatch.setattr(stream, "fileno", real.fileno)
            log.configure("json", stream=stream)
            log.tell(*[VERDICT] * 100)
            calls.append(len(stream.calls))
    assert 1 < calls[0] < calls[1] / 3


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_log_that_nobody_reads_delays_nothing(kind: str) -> None:
    """As by a program behind a pipe, or systemd's journal, that has stopped."""
    if kind == "pipe":
        reads, writes = os.pipe()
    else:
        reads, writes = (end.detach() for end in socket.socketpair())
    with os.fdopen(reads, "rb", buffering=0) as reader, os.fdopen(writes, "w") as stream:
        log.configure("json", stream=stream)
        lines = 1000
        for _ in range(lines):
            structlog.get_logger("smtpguard").info("x" * 2000)
        os.set_blocking(reads, False)
        there = b"".join(iter(lambda: reader.read(1 << 16), None)).count(b"\n")
        assert 0 < there < lines
        structlog.get_logger("smtpguard").info("read again")
        told, again = map(json.loads, reader.read(1 << 16).splitlines())
        assert (told["event"], told["lost"]) == ("nobody read the log", lines - there)
        assert again["event"] == "read again"


JOURNAL = r"""
import os, sys
here = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{here.st_dev}:{here.st_ino}"
from smtpguard.observe import log
assert log.is_for_journal()
assert log.configure("json")
log.take_over()
import asyncio, logging, threading, warnings
warnings.warn("a library's\nwarning")
logging.getLogger("uvicorn.error").error("of a library: %s", "x\ny")
logging.getLogger("library").warning("wrong number of arguments %s")
logging.getLogger("library").warning("%d", "no number")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Ends:
    def __del__(self):
        raise ValueError("at its end")
ends = Ends()
del ends
async def work():
    asyncio.create_task(fails())
    await asyncio.sleep(0)
async def fails():
    raise KeyError("in a task")
asyncio.run(work())
import gc
gc.collect()
log.failure("first line\nsecond line", status=75)
raise RuntimeError("at last")
"""


def test_any_error_is_a_log_entry(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as out:
        done = subprocess.run([sys.executable, "-c", JOURNAL], stderr=out, stdout=out, timeout=120, check=False)
    assert done.returncode == 1
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    told = " ".join(f"{row['event']} {row.get('problem', '')}" for row in rows)
    for word in ("a library's", "of a library: x", "an error ends a thread", "first line", "second line"):
        assert word in told, rows
    traces = " ".join(row.get("exception", "") for row in rows)
    for word in ("ZeroDivisionError", "at its end", "in a task", "RuntimeError: at last"):
        assert word in traces, rows
    assert (rows[-1]["event"], rows[-1]["level"]) == ("an error ends the process", "critical")


@every("stream", ["", "1:2", "nonsense", ":"])
def test_other_streams_are_not_the_systemd_journal(stream: str) -> None:
    assert not log.is_for_journal({"JOURNAL_STREAM": stream})
    assert not log.is_for_journal({})


def line(style: str, addresses: str = "clear") -> str:
    out = io.StringIO()
    log.configure(style, addresses, out)
    log.tell(VERDICT)
    text = out.getvalue()
    assert text.count("\n") == 1
    return text


def test_a_message_is_one_line_of_json() -> None:
    row = json.loads(line("auto"))  # not a terminal: JSON
    assert (row["event"], row["id"], row["action"], row["level"]) == ("verdict", "01HELD", "hold", "info")
    assert row["rules"] == ["internal-to-list"]
    assert row["reasons"] == [
        "message.looks internal",
        "sender.is_writer (unknown)",
        "sender.customers unknown (no From)",
    ]
    assert list(row)[:3] == ["timestamp", "level", "event"]
    assert row["reverse_path"] == "kalle@example.com"
    assert row["recipients"][-1] == "and 10 more"
    assert len(row["recipients"]) == 21
    assert row["timestamp"].endswith("Z")
    assert "misses" not in row
    assert "note" not in row


def test_addresses_are_masked() -> None:
    row = json.loads(line("json", "masked"))
    assert row["reverse_path"] == "k***@example.com"
    assert set(row["recipients"][:20]) == {"k***@example.org"}


@every(
    ("text", "masked"),
    [
        ("<kalle@example.com>: unknown", "<k***@example.com>: unknown"), ("k@a.example,b@c.example", "k***@a.example,b***@c.example"),
        ("d'annabella@example.com", "d***@example.com"), ("of 'kalle@example.com'", "of k***@example.com'"),
        ('"kalle k"@example.com', "k***@example.com"), (r'"k \" <x@y>"@example.com', "k***@example.com"),
        (f"{'k' * 200}@example.com", "k***@example.com"), ("kalle@[192.0.2.1]", "k***@[192.0.2.1]"),
        ("kalle@_x.example", "k***@_x.example"), ("mailto:kalle@example.com", "mailto:k***@example.com"),
        ('say "no" to k@example.com', 'say "no" to k***@example.com'), ('""@example.com', "***@example.com"), ("a @ b", "a @ b"),
        ("why?id=kalle%40example.com&s=1", "w***@example.com&s=1"), ("k%40a.example@b.example", "k***@a.example@b.example"),
        ("no kalle (at) example.com", "no k***@example.com"), ("kalle[AT]example (dot) com", "k***@example (dot) com"),
        ("kalle{at}example.com", "k***@example.com"), ("kalle\uff20example.com", "k***@example.com"),
    ],
)  # fmt: skip
def test_any_address_is_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@every("text", ["@", "a", '"', '"@', '\\"', "@[", "a@", 'a"', "%40", "a%40", "a(at)", "{ at }"])
def test_a_long_text_is_masked_in_linear_time(text: str) -> None:
    def took(octets: int) -> float:
        begun = thread_time()
        mask(text * (octets // len(text)))
        return thread_time() - begun

    assert took(100_000) < 40 * took(10_000) + 1


def test_lines_are_readable_as_text() -> None:
    said = line("text").split(maxsplit=1)[1]
    assert said == (
        'HELD      01HELD  kalle@example.com to k0@example.org, k1@example.org and 28 more "": internal-to-list\n'
    )
    assert "k***@example.com to k***@example.org" in line("text", "masked")


def shown(kind: Kind, data: dict[str, object], **private: tuple[str, ...]) -> str:
    out = io.StringIO()
    log.configure("text", "clear", out)
    log.tell(Event(kind=kind, id="01", at=datetime(2026, 3, 2, 8, tzinfo=UTC), data=data, private=private))
    return out.getvalue().split(maxsplit=1)[1].rstrip("\n")


@every(
    ("data", "said"),
    [
        ({"action": "relay", "outcome": "relayed", "replies": ["250 Ok"]}, 'relayed   01  a@example.com to b@example.org "Hi"'),
        (
            {"action": "relay", "outcome": "refused", "replies": ["552 5.3.4 Too big"], "observed": ["busy"]},
            'refused   01  a@example.com to b@example.org "Hi": would have: busy, 552 5.3.4 Too big',
        ),
        (
            {"action": "hold", "rules": ["r"], "hold": "00", "retry": True, "counts": {"reach": 4000}, "reach_at_least": True},
            'HELD      01  a@example.com to b@example.org "Hi", at least 4,000 people, again as 00: r',
        ),
        (
            {"action": "hold", "rules": ["freeze"], "hold": "01", "with": "00", "freeze": "F1"},
            'HELD      01  a@example.com to b@example.org "Hi", a copy of 00: freeze, frozen by F1',
        ),
        ({"action": "defer", "rules": ["r"]}, 'DEFERRED  01  a@example.com to b@example.org "Hi": r'),
    ],
)  # fmt: skip
def test_a_message_in_text_format(data: dict[str, object], said: str) -> None:
    private = {"reverse_path": ("a@example.com",), "recipients": ("b@example.org",), "subject": ("Hi",)}
    assert shown(Kind.VERDICT, data, **private) == said


def test_a_subject_cannot_fake_a_line() -> None:
    said = shown(Kind.VERDICT, {"action": "relay"}, subject=('Hi", 9 people: none\n08:00  HELD',))
    assert said == 'relay     01  <> to nobody "Hi\\", 9 people: none\\n08:00  HELD"'
    long = shown(Kind.VERDICT, {"action": "relay"}, subject=("å" * 500,))
    assert long.endswith('"' + "å" * 77 + '..."')


def test_other_events_in_text_format() -> None:
    sent = {"notice": "held", "outcome": "sent", "attempt": 1, "code": "250"}
    assert shown(Kind.NOTICE, sent, recipients=("a@example.com",), comment=("250 Ok",)) == (
        "notice    01  held, to a@example.com: sent"
    )
    late = {"outcome": "retry", "attempt": 1}
    assert shown(Kind.RELEASE, late, recipients=("a@example.com",), comment=("450 Busy",)) == (
        "release   01  to a@example.com: retry: 450 Busy"
    )
    assert (
        shown(Kind.LIST, {"people": 1200, "bad_rows": 0, "source": "a.csv"})
        == "list      01  read: 1,200 people of a.csv"
    )
    gone = {"people": 120, "bad_rows": 7, "source": "a.csv", "problem": "a.csv is empty", "stale": True}
    assert shown(Kind.LIST, gone) == (
        "error: list 01  a.csv is empty: 120 people of a.csv, 7 rows that are no address, too old to be relied on"
    )
    erased: dict[str, object] = {"what": "person", "entries": 3, "kept": [{"id": "H"}], "kept_in_all": 1}
    assert shown(Kind.ERASED, erased | {"sealed": ["f" * 32] * 5000}, actor=("root",)) == (
        "erased    01  actor=root what=person entries=3 kept_in_all=1"
    )
    assert (
        shown(Kind.STREAM, {"limit": 3, "of": ["a", "b"], "by": "a b"}) == 'warning: stream 01  limit=3 of=a,b by="a b"'
    )


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    log.configure("auto", "clear", out)
    log.tell(VERDICT)
    assert "\x1b[33;1mHELD     \x1b[0m" in out.getvalue()


@pytest.mark.parametrize("style", ["json", "text"])
def test_each_line_of_a_part_says_which_it_is(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever logs it: a library, another thread. A line about another part names that."""
    monkeypatch.setattr(log, "_part", {})
    out = io.StringIO()
    log.configure(style, stream=out)
    log.speaks("proxy-1")
    lines = [
        lambda: logging.getLogger("asyncio").error("Task exception was never retrieved"),
        lambda: structlog.get_logger("smtpguard").warning("turned-away"),
    ]
    for line in lines:
        thread = threading.Thread(target=line)
        thread.start()
        thread.join()
        said = out.getvalue().splitlines()[-1]
        if style == "text":
            assert f"part=proxy-1 pid={os.getpid()}" in said
        else:
            assert list(json.loads(said))[:5] == ["timestamp", "level", "event", "part", "pid"]
    structlog.get_logger("smtpguard").info("ready", part="proxy-2", pid=7)
    assert "proxy-2" in out.getvalue().splitlines()[-1]


def test_secrets_and_control_characters_are_removed() -> None:
    out = io.StringIO()
    log.configure("json", "clear", out)
    structlog.get_logger().warning("odd", subject="a\r\nforged: line\x1b[2J \u202e", relay_password="hunter2")
    logging.getLogger("somebody.else").warning("two\nlines of %s", "a library")
    text = out.getvalue()
    assert text.count("\n") == 2
    assert "hunter2" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert json.loads(text.splitlines()[0])["subject"] == "a\r\nforged: line\x1b[2J \u202e"
    assert json.loads(text.splitlines()[1])["event"] == "two\nlines of a library"


def test_control_characters_are_escaped_in_text_format() -> None:
    out = io.StringIO()
    log.configure("text", "clear", out)
    structlog.get_logger().warning("o\nd\x1bd", subject="a\r\nforged: line\x1b[2J \u202e\u2028 Å")
    text = out.getvalue()
    assert text.count("\n") == 1
    assert "\\r\\nforged" in text
    assert "o\\nd\\x1bd" in text
    assert text.removesuffix("\n").isprintable()
    assert "Å" in text


@given(st.text())
def test_printable_text_is_unchanged(text: str) -> None:
    shown = log.printable(text)
    assert shown.isprintable()
    assert log.printable(shown) == shown
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_failing_stream_raises_nothing(style: str) -> None:
    """A full disk (OSError) or closed file (ValueError) raises nothing, since neither may end a dialog without a reply."""

    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed):
        log.configure(style, stream=stream)
        log.tell(VERDICT)
        structlog.get_logger("smtpguard").warning("turned-away")
        logging.getLogger("smtpguard.wire").error("an error in a dialog")
    log.configure(style, stream=io.StringIO())
