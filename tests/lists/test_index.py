"""The index holds whom it was given and nobody else, tells damage, and can be swapped under those who read it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.lists import writing
from smtpguard.lists.index import BadIndex, Index

KEY_ID = b"key-id-8"
AT = datetime(2026, 3, 2, tzinfo=UTC)


def make(path: Path, digests: Iterable[bytes]) -> Index:
    writing.swap(writing.write(path, digests, key_id=KEY_ID, built_at=AT, fingerprint=b"f" * 32), path)
    return Index(path, KEY_ID)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=8, max_size=8), max_size=300), st.lists(st.binary(min_size=8, max_size=8), max_size=50)
)
def test_holds_whom_it_was_given_and_nobody_else(
    tmp_path_factory: pytest.TempPathFactory, digests: list[bytes], others: list[bytes]
) -> None:
    opened = make(tmp_path_factory.getbasetemp() / "law.index", digests)
    assert len(opened) == len(set(digests))
    assert all(d in opened for d in digests)
    assert all((d in opened) == (d in digests) for d in [*others, b"\0" * 8, b"\xff" * 8])


def test_runs_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "KEPT", 10)
    digests = [(i * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") for i in range(95)]
    opened = make(tmp_path / "a.index", [*digests, *digests[:40]])
    assert opened.people == 95
    assert all(d in opened for d in digests)


def test_says_what_it_is(tmp_path: Path) -> None:
    opened = make(tmp_path / "a.index", [b"12345678"])
    assert (opened.people, opened.built_at, opened.fingerprint) == (1, AT, b"f" * 32)
    assert (tmp_path / "a.index").stat().st_mode & 0o777 == 0o600


def test_the_version_is_of_the_people_alone(tmp_path: Path) -> None:
    one = make(tmp_path / "a.index", [b"12345678", b"abcdefgh"])
    same = make(tmp_path / "b.index", [b"abcdefgh", b"12345678", b"12345678"])
    other = make(tmp_path / "c.index", [b"12345678"])
    assert one.version == same.version != other.version


def test_every_damaged_octet_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    make(path, [bytes([i]) * 8 for i in range(40)])
    good = path.read_bytes()
    for at in [*range(0, 100, 3), *range(128, len(good), 5)]:
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        with pytest.raises(BadIndex):
            Index(path, KEY_ID).verify()


@pytest.mark.parametrize("keep", [0, 1, 50, 103, 104, 127, 200, -1])
def test_a_file_cut_short_is_refused_at_once(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.index"
    make(path, [bytes([i]) * 8 for i in range(40)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadIndex):
        Index(path, KEY_ID)


def test_another_key_is_said_to_be_another(tmp_path: Path) -> None:
    make(tmp_path / "a.index", [b"12345678"])
    with pytest.raises(BadIndex, match="another secret"):
        Index(tmp_path / "a.index", b"8-di-yek")


def test_a_swap_leaves_the_old_one_to_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    old = make(path, [b"12345678"])
    new = make(path, [b"abcdefgh"])
    assert b"12345678" in old
    assert b"12345678" not in new
    assert [p.name for p in tmp_path.iterdir()] == ["a.index"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing() -> Iterable[bytes]:
        yield b"12345678"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        make(tmp_path / "a.index", failing())
    assert list(tmp_path.iterdir()) == []


def test_no_readable_address(tmp_path: Path) -> None:
    from smtpguard.lists.digest import Digester
    from smtpguard.mail.address import Address

    digester = Digester(b"k" * 32)
    make(tmp_path / "a.index", [digester.of(Address.parse("anna@example.se"))])
    raw = (tmp_path / "a.index").read_bytes()
    assert b"anna" not in raw
    assert b"example" not in raw
