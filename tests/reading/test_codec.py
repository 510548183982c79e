"""Readings and requests as JSON, the reader process, and input that is neither."""

from __future__ import annotations

import io
import itertools
import json
import struct
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.reading import __main__ as child
from smtpguard.reading.looks import Readable
from smtpguard.reading.marks import Side
from smtpguard.reading.request import (
    BadReading,
    Bounds,
    Custom,
    Depth,
    Surroundings,
    dump_reading,
    dump_request,
    load_reading,
    load_request,
)
from tests.every import every
from tests.reading.letters import OUTLOOK, PLATFORM, STORY, around, letter, look


def block(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def unblock(data: bytes) -> list[bytes]:
    found = []
    while data:
        (size,) = struct.unpack(">I", data[:4])
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def test_a_reading_reads_back() -> None:
    reading = look(letter(STORY, {**OUTLOOK, **PLATFORM, "MSIP_Labels": "MSIP_Label_0a_Name=Internal;"}))
    assert load_reading(dump_reading(reading)) == reading


def test_a_request_reads_back() -> None:
    custom = Custom(name="project", side=Side.INTERNAL, weight=2.0, term="Project Tulip")
    given_ = Surroundings(
        domains=around().domains, list_ids=frozenset({"l.example.com"}), vocabularies=around().vocabularies, delimiters="+",
        weights={"plain": 0.0}, customs=(custom,), authserv_ids=frozenset({"mx.example.com"}), list_addresses=around().list_addresses,
    )  # fmt: skip
    got, depth, bounds = load_request(dump_request(given_, Depth.HEADERS, Bounds(parts=7, clock=lambda: 0.0)))
    assert got == given_
    assert got is not None
    assert got.vocabularies.find([("text", "bacon")])
    assert (depth, bounds) == (Depth.HEADERS, Bounds(parts=7))
    assert load_request(dump_request(None, Depth.TEXT, Bounds()))[0] is None


@every("data", [b"", b"{}", b"[]", b"null", b"\xff", b'{"looks": "nice"}', b"[" * 100_000])
def test_an_invalid_reading_is_refused(data: bytes) -> None:
    with pytest.raises(BadReading):
        load_reading(data)


@every(
    ("field", "value"),
    [
        ("marks", [{"name": "thread", "side": "internal", "weight": 1, "evidence": "no phrase", "group": ""}]),
        ("identity", {"sketch": [float("inf")]}),
    ],
)
def test_a_reading_with_a_value_of_another_type_is_refused(field: str, value: object) -> None:
    data = json.loads(dump_reading(look(letter(STORY)))) | {field: value}
    with pytest.raises(BadReading):
        load_reading(json.dumps(data).encode())


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_reading_with_a_changed_byte_is_read_or_refused(data: st.DataObject) -> None:
    dumped = bytearray(dump_reading(look(letter(STORY))))
    dumped[data.draw(st.integers(0, len(dumped) - 1))] = data.draw(st.integers(0, 255))
    try:
        load_reading(bytes(dumped))
    except BadReading:
        pass


@every("data", [b"{}", b"[]", b'{"surroundings": null, "bounds": {"much": 1}, "depth": "text"}'])
def test_an_invalid_request_is_refused(data: bytes) -> None:
    with pytest.raises(BadReading):
        load_request(data)


def test_the_process_answers_several_requests() -> None:
    message = letter(STORY, {**OUTLOOK, "Subject": "SV: Dieten"})
    asked = block(dump_request(around(), Depth.TEXT, Bounds())) + block(message.raw[:])
    asked += block(dump_request(None, Depth.HEADERS, Bounds())) + block(message.raw[:])
    done = subprocess.run(
        [sys.executable, "-m", "smtpguard.reading"], input=asked, capture_output=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    first, second = (load_reading(b) for b in unblock(done.stdout))
    assert first == look(message)
    assert second == look(message, depth=Depth.HEADERS)


@pytest.mark.parametrize(("clock", "readable"), [("monotonic", Readable.YES), ("process_time", Readable.TOO_COMPLEX)])
def test_only_the_processors_time_counts(clock: str, readable: Readable, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that others keep busy, ordinary mail stays readable."""
    minutes = itertools.count(step=60)
    monkeypatch.setattr(child, "allow", lambda seconds: None)
    monkeypatch.setattr(time, clock, lambda: float(next(minutes)))
    sink = io.BytesIO()
    child.main(io.BytesIO(block(dump_request(around(), Depth.TEXT, Bounds())) + block(letter(STORY).raw[:])), sink)
    [answer] = unblock(sink.getvalue())
    assert load_reading(answer).readable is readable


def test_the_process_ends_at_a_truncated_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "allow", lambda seconds: None)
    head = block(dump_request(None, Depth.TEXT, Bounds()))
    for data, status in ((b"", 0), (b"\0\0", 0), (head, 1), (head + b"\0\0\0\x05abc", 1)):
        assert child.main(io.BytesIO(data), io.BytesIO()) == status


def test_the_process_limits_its_resources() -> None:
    program = (
        "import resource, smtpguard.reading.__main__ as m; m.confine(); m.allow(2.0)\n"
        "print(*(resource.getrlimit(r)[0] for r in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)))\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)[0] < 20)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, check=True)
    assert done.stdout.split() == [str(child.MEMORY_BYTES).encode(), b"0", b"0", b"True"]
