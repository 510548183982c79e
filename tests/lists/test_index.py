"""The index contains the given digests and no others, detects damage, and can be replaced while it is read. A process beside the reader
builds the same one, and none after any failure.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.config.statefiles import swap
from smtpguard.lists import index, writing
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import BadIndex, Index
from smtpguard.lists.sources import SourceError
from smtpguard.lists.sync import overlaps
from smtpguard.lists.writing import build, serve
from tests.every import every

KEY_ID = b"key-id-8"
AT = datetime(2026, 3, 2, tzinfo=UTC)


def make(path: Path, digests: Iterable[bytes]) -> Index:
    swap(writing.write(path, digests, key_id=KEY_ID, built_at=AT, fingerprint=b"f" * 32), path)
    return Index(path, KEY_ID)


@pytest.fixture(params=[None, (16, 3), (18, 12)], ids=["small", "tails of 16 bits", "a wide table"])
def proportions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of a small list's index, and layouts that only lists of a quarter of a million have."""
    if request.param is not None:
        monkeypatch.setattr(writing, "_proportions", lambda people: request.param)


def test_digests_are_found_for_any_distribution(tmp_path: Path, proportions: None) -> None:
    """Digests that differ only in their first or last bits are distinguished; the walk gives all in order."""
    near = [
        n << 48 | 0xABCD_0000_0000 | low for n in (0, 1, 0x7FFF, 0xFFFF) for low in (0, 1, 0xFFFF, 0x1_0000, 0x1_0001)
    ]
    digests = [n.to_bytes(8, "big") for n in (*near, 0, 2**64 - 1, *(n << 56 for n in range(256)))]
    opened = make(tmp_path / "a.index", digests)
    opened.verify()
    assert all(d in opened for d in digests)
    others = {n ^ bit for n in near for bit in (1, 2, 1 << 16, 1 << 40, 1 << 47, 1 << 63)}.difference(
        int.from_bytes(d, "big") for d in digests
    )
    assert not any(opened.has(n) for n in others)
    walked = [number for numbers in index.walk([opened]) for number in numbers[0]]
    assert walked == sorted({int.from_bytes(d, "big") for d in digests})


def test_several_indexes_are_merged_and_searched_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [i * 0x9E3779B97F4A7C15 % 2**64 for i in range(600)]
    opened = []
    for n, bits in enumerate([(3, 5), (16, 9), (17, 5)]):
        monkeypatch.setattr(writing, "_proportions", lambda people, bits=bits: bits)
        part = [number.to_bytes(8, "big") for number in numbers[n * 150 : n * 150 + 300]]
        opened.append(make(tmp_path / f"{n}.index", part))
    monkeypatch.undo()
    draft = writing.merge(tmp_path / "all.index", opened, key_id=KEY_ID, built_at=AT, fingerprint=b"f" * 32)
    whole = Index(draft, KEY_ID)
    assert whole.people == 600
    assert whole.version == make(tmp_path / "b.index", [n.to_bytes(8, "big") for n in numbers]).version
    together = index.IndexGroup(zip("abc", opened, strict=True))
    assert [together.names_with(n) for n in (numbers[0], numbers[200], numbers[400], numbers[599], 12345)] == [
        ("a",), ("a", "b"), ("b", "c"), ("c",), ()
    ]  # fmt: skip
    assert overlaps(dict(zip("abc", opened, strict=True))) == {("a", "b"): 150, ("a", "c"): 0, ("b", "c"): 150}


@every("people", [0, 1, 7, 8, 9, 1000, 2**18 - 1, 2**18, 10**6, 10**7, 10**8])
def test_size_per_address_is_bounded(people: int) -> None:
    """From half a million addresses on each takes at most 8.1 octets; with ten million, seven."""
    bits, marks_bits = writing._proportions(people)
    header = index.Header(bits=bits, marks_bits=marks_bits, key_id=KEY_ID, people=people, built_at=AT, fingerprint=b"f" * 32,
                          version=b"v" * 8, table_crc=0, body_crc=0)  # fmt: skip
    octets = header.sections()[-1] / max(people, 1)
    assert octets <= (8.1 if people >= 500_000 else 300 if people < 50 else 11)
    assert people != 10**7 or octets < 7
    assert index.Header.read(header.packed(), "a.index") == header


def test_damage_found_late_raises_nothing(tmp_path: Path) -> None:
    """Opening an index does not verify all of it. A damaged digest must not raise; ``verify`` finds it."""
    path = tmp_path / "a.index"
    digests = [(i * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") for i in range(300)]
    good = make(path, digests).header
    raw = bytearray(path.read_bytes())
    for start, end in ((index.HEADER_OCTETS, good.sections()[0]), (good.sections()[1], len(raw))):
        raw[start:end] = bytes(255 - octet for octet in raw[start:end])
    path.write_bytes(raw)
    damaged = Index(path, KEY_ID)
    assert not all(d in damaged for d in digests)
    with pytest.raises(BadIndex, match="damaged"):
        damaged.verify()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=8, max_size=8), max_size=300),
    st.lists(st.binary(min_size=8, max_size=8), max_size=50),
    st.sampled_from([0, 100, writing.FEW]),
)
def test_it_contains_the_given_digests_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, digests: list[bytes], others: list[bytes], few: int
) -> None:
    with patch.object(writing, "FEW", few):
        opened = make(tmp_path_factory.getbasetemp() / "law.index", digests)
    assert len(opened) == len(set(digests))
    assert all(d in opened for d in digests)
    assert all((d in opened) == (d in digests) for d in [*others, b"\0" * 8, b"\xff" * 8])


def test_sorted_runs_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "KEPT", 10)
    monkeypatch.setattr(writing, "FEW", 10)
    digests = [(i * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") for i in range(95)]
    opened = make(tmp_path / "a.index", [*digests, *digests[:40]])
    assert opened.people == 95
    assert all(d in opened for d in digests)


def test_the_header_is_read_back(tmp_path: Path) -> None:
    opened = make(tmp_path / "a.index", [b"12345678"])
    assert (opened.people, opened.header.built_at, opened.header.fingerprint) == (1, AT, b"f" * 32)
    assert (tmp_path / "a.index").stat().st_mode & 0o777 == 0o600


def test_the_version_depends_on_the_people_only(tmp_path: Path) -> None:
    one = make(tmp_path / "a.index", [b"12345678", b"abcdefgh"])
    same = make(tmp_path / "b.index", [b"abcdefgh", b"12345678", b"12345678"])
    other = make(tmp_path / "c.index", [b"12345678"])
    assert one.version == same.version != other.version


def test_every_damaged_octet_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    make(path, [bytes([i]) * 8 for i in range(40)])
    good = path.read_bytes()
    for at in [*range(0, 100, 3), *range(128, len(good), 5)]:
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        with pytest.raises(BadIndex):
            Index(path, KEY_ID).verify()


@every("keep", [0, 1, 50, 103, 104, 127, 200, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.index"
    make(path, [bytes([i]) * 8 for i in range(40)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadIndex):
        Index(path, KEY_ID)


def test_an_index_of_another_key_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "a.index", [b"12345678"])
    with pytest.raises(BadIndex, match="another secret"):
        Index(tmp_path / "a.index", b"8-di-yek")


def test_a_replaced_index_stays_open_for_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    old = make(path, [b"12345678"])
    new = make(path, [b"abcdefgh"])
    assert b"12345678" in old
    assert b"12345678" not in new
    assert [p.name for p in tmp_path.iterdir()] == ["a.index"]


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Iterable[bytes]:
        yield b"12345678"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        make(tmp_path / "a.index", failing())
    assert list(tmp_path.iterdir()) == []


def test_it_contains_no_readable_address(tmp_path: Path) -> None:
    from smtpguard.lists.digest import Digester
    from smtpguard.mail.address import Address

    digester = Digester(b"k" * 32)
    make(tmp_path / "a.index", [digester.of(Address.parse("anna@example.se"))])
    raw = (tmp_path / "a.index").read_bytes()
    assert b"anna" not in raw
    assert b"example" not in raw


DIGESTER = Digester(b"k" * 32, "+ qmail.example=-")
KEYS = [f"person{n}@kund.se" for n in range(1000)] + ["\u00e5sa o'neil@b\u00fccher.example"]


def built(path: Path, keys: Iterator[str]) -> Path:
    return build(path, keys, DIGESTER, built_at=AT, fingerprint=b"f" * 32)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "WORKER_FROM", 10)
    monkeypatch.setattr(writing, "KEYS", 64)


def test_the_subprocess_builds_the_same_index(tmp_path: Path, long: None, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = built(tmp_path / "a.index", iter(KEYS))
    monkeypatch.setattr(writing, "WORKER_FROM", 10_000)
    here = built(tmp_path / "b.index", iter(KEYS))
    assert beside.read_bytes() == here.read_bytes()
    index = Index(beside, DIGESTER.key_id)
    assert (index.people, index.header.built_at, index.header.fingerprint) == (1001, AT, b"f" * 32)
    assert all(DIGESTER.of_canonical(key) in index for key in KEYS)


def test_a_source_that_fails_midway_leaves_no_file(tmp_path: Path, long: None) -> None:
    def failing() -> Iterator[str]:
        yield from KEYS[:500]
        raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"):
        built(tmp_path / "a.index", failing())
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_folder_or_dead_process_leaves_no_index(
    tmp_path: Path, long: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        built(tmp_path / "file" / "a.index", iter(KEYS))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="has ended"):
        built(tmp_path / "a.index", iter(KEYS * 1000))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_truncated_input_builds_no_index(tmp_path: Path) -> None:
    task = {
        "path": str(tmp_path / "a.index"),
        "key": "6b" * 32,
        "delimiters": "+",
        "built_at": AT.isoformat(),
        "fingerprint": "66" * 32,
    }
    whole = json.dumps(task).encode() + b"\n" + b"\0\0\0\x07a@x\nb@x" + b"\0\0\0\0"
    for end in range(whole.index(b"\n") + 1, len(whole)):
        answer = io.BytesIO()
        assert serve(io.BytesIO(whole[:end]), answer) == 1
        assert not answer.getvalue()
        assert list(tmp_path.iterdir()) == []
    answer = io.BytesIO()
    assert serve(io.BytesIO(whole), answer) == 0
    assert Index(Path(answer.getvalue().decode().split()[1]), Digester(b"k" * 32, "+").key_id).people == 2


def test_the_key_is_not_in_the_command_line(tmp_path: Path, long: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    popen = subprocess.Popen

    def watched(argv: list[str], **more: Any) -> object:
        seen.append(argv)
        return popen(argv, **more)

    monkeypatch.setattr("smtpguard.lists.writing.subprocess.Popen", watched)
    built(tmp_path / "a.index", iter(KEYS))
    assert seen == [[sys.executable, "-P", "-m", "smtpguard.lists.writing"]]
