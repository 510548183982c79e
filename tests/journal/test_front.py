"""The octets of a front: complete writes are read back, a torn one ends it, and what does not fit is an error."""

from __future__ import annotations

import json
import random
import struct
import zlib
from typing import Any

import pytest

from smtpguard.journal.front import FIRST, Fronted, Head, follows, head_of, tail

HEAD = Head(journal="j1", name="a", seq=7, hash="00" * 32)


def fronted(number: int, **more: object) -> Fronted:
    values = {
        "number": number, "generation": 3, "at": 1_000_000 + number, "id": f"T{number}", "key": "ab" * 32, "marks": '[[],["a@x"],"",""]',
        "body": '{"data":{"action":"relay","subject":"\\u00e5"},"private":{}}', "clear": '{"subject":["\\u00e5"]}' if number % 2 else None,
    }  # fmt: skip
    return Fronted(**{**values, **more})  # type: ignore[arg-type]


def written(*numbers: int, together: int = 1) -> bytes:
    """Frames with these numbers, ``together`` in each write."""
    data, synced = b"", numbers[0] - 1
    for start in range(0, len(numbers), together):
        some = numbers[start : start + together]
        data += b"".join(fronted(n).frame(synced) for n in some)
        synced = some[-1]
    return data


def numbers(frames: bytes, moved: int = 0) -> list[int]:
    return [each.number for each in tail(frames, moved).fronted]


def test_written_frames_are_found() -> None:
    found = tail(written(1, 2, 3) + bytes(500), 0)
    assert list(found.fronted) == [fronted(1), fronted(2), fronted(3)]
    assert (found.problem, found.last) == ("", 3)
    assert tail(bytes(4096), 0).fronted == []
    assert tail(b"", 9).problem == ""


def test_an_outcome_is_a_short_frame() -> None:
    verdict, outcome = fronted(1), Fronted(
        number=2, generation=3, at=9, id="T1", key="", marks="", body='{"data":{"outcome":"relayed"},"private":{}}',
        clear=None, kind="outcome",
    )  # fmt: skip
    data = verdict.frame(0) + outcome.frame(1)
    assert tail(data, 0).fronted == [verdict, outcome]
    assert len(outcome.frame(1)) < len(verdict.frame(0)) / 2


def test_frames_in_json_of_earlier_versions_are_found() -> None:
    data = b""
    for number, row in ((1, [7, "T1", "ab", "[]", "{}", '{"a":["\n"]}']), (2, [7, "T2", "ab", "[]", "{}", None]), (3, [8, "T1", "outcome", "{}"])):  # fmt: skip
        text = json.dumps(row).encode()
        crc = zlib.crc32(text, zlib.crc32(struct.pack("<QQQI", number, 0, 3, len(text))))
        data += struct.pack("<4sQQQII", b"\xf1sgf", number, 0, 3, len(text), crc) + text
    of: dict[str, Any] = {"generation": 3, "at": 7, "key": "ab", "marks": "[]", "body": "{}", "clear": None}
    assert list(tail(data, 0).fronted) == [
        Fronted(**{**of, "number": 1, "id": "T1", "clear": '{"a":["\n"]}'}),
        Fronted(**{**of, "number": 2, "id": "T2"}),
        Fronted(**{**of, "number": 3, "id": "T1", "at": 8, "key": "", "marks": "", "kind": "outcome"}),
    ]


def test_frames_are_read_on_from_any_of_them() -> None:
    data, some = written(1, 2, 3), written(1, 2)
    for at, moved, wanted in ((0, 0, [1, 2, 3]), (0, 2, [3]), (len(some), 2, [3]), (len(some), 1, []), (0, 3, [])):
        found, size = follows(data[at:] + bytes(50), moved)
        assert ([each.number for each in found], at + size) == (wanted, len(data) if wanted or moved == 3 else at)
    assert follows(data[9:], 0) == ([], 0)
    assert [each.number for each in follows(data[:-1], 0)[0]] == [1, 2], "a torn one is left"


def test_moved_frames_are_left_out() -> None:
    assert numbers(written(1, 2, 3), moved=2) == [3]
    assert numbers(written(1, 2, 3), moved=3) == []
    assert numbers(written(1, 2, 3), moved=9) == []


def test_frames_of_the_previous_round_are_ignored() -> None:
    before = written(*range(1, 9))
    now = written(9, 10)
    assert numbers(now + before[len(now) :], moved=8) == [9, 10]
    torn = now[: len(now) // 2 + 9]
    assert numbers(torn + before[len(torn) :], moved=8) == [9]
    assert tail(torn + before[len(torn) :], 8).problem == ""
    nothing = now[:11]
    assert tail(nothing + before[len(nothing) :], 8) == tail(b"", 8)


@pytest.mark.parametrize("together", [1, 3])
def test_a_truncated_file_ends_with_its_last_whole_frame(together: int) -> None:
    data, ends = written(*range(1, 7), together=together), []
    for n in range(1, 7):
        ends.append(len(written(*range(1, n + 1), together=together)))
    for cut in range(len(data) + 1):
        found = tail(data[:cut] + bytes(64), 0)
        assert len(found.fronted) == sum(end <= cut for end in ends)
        assert found.problem == ""


def test_a_damaged_octet_ends_the_file() -> None:
    data, chance = written(1, 2, 3, together=3), random.Random(7)
    for at in range(len(data)):
        torn = bytearray(data)
        torn[at] ^= 1 << chance.randrange(8)
        found = tail(bytes(torn), 0)
        assert list(found.fronted) == [fronted(n) for n in range(1, len(found.fronted) + 1)]
        assert found.problem == "", "all of one write that was not acknowledged"


def test_any_part_of_one_write_may_be_on_disk() -> None:
    one, two = written(1), fronted(2).frame(1)
    last = b"".join(fronted(n).frame(1) for n in (3, 4))
    assert numbers(one + bytes(len(two)) + last) == [1]
    assert tail(one + bytes(len(two)) + last, 0).problem == ""


def test_a_synced_but_unreadable_frame_is_reported() -> None:
    data = written(1, 2, 3, 4)
    at = len(written(1)) + 40
    found = tail(data[:at] + b"?" + data[at + 1 :], 0)
    assert [each.number for each in found.fronted] == [1]
    assert found.problem == "frame 2 cannot be read, and was synced"
    first = b"?" + data[1:]
    assert tail(first, 0).problem == "frame 1 cannot be read, and was synced"
    assert tail(first, 4).problem == "", "it is in the chain"


def test_a_gap_is_reported() -> None:
    found = tail(written(5, 6), 2)
    assert (found.fronted, found.problem) == ((), "frames 3 to 4 are missing")


def test_a_head_is_whole_or_absent() -> None:
    data = HEAD.octets()
    assert len(data) < FIRST
    assert head_of(data + bytes(FIRST)) == HEAD
    for version, known in ((1, True), (2, True), (4, False)):
        text = data[8:].replace(b'"version": 3', b'"version": %d' % version)
        assert (head_of(struct.pack("<II", len(text), zlib.crc32(text)) + text) == HEAD) is known
    for cut in range(len(data)):
        assert head_of(data[:cut]) is None
        assert head_of(data[:cut] + bytes(FIRST - cut)) is None
    assert head_of(bytes(FIRST)) is None
