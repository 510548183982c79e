"""Compressed member files: whole, in pieces, cut at every octet, and small files that unpack to huge ones."""

from __future__ import annotations

import gzip
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.lists.sources import SourceError, Tally, addresses
from smtpguard.lists.sources.csv import CsvTable
from smtpguard.lists.sources.files import FileSource, TextTable

Pack = Callable[[bytes], bytes]

ROWS = b"email\n" + b"".join(b"k%d@kund.se\n" % n for n in range(3000))
PACKERS = pytest.mark.parametrize(
    "pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress], ids=["gzip", "zstd"]
)


def read(path: Path, table: CsvTable | TextTable | None = None) -> tuple[int, Tally]:
    tally = Tally()
    return sum(1 for _ in addresses(FileSource(path, table or CsvTable()), tally)), tally


@PACKERS
def test_compressed_files_are_read_like_others(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members.csv"  # the name does not matter
    path.write_bytes(pack(ROWS))
    found, tally = read(path)
    assert (found, tally.bad) == (3000, 0)
    assert tally.done == tally.size == path.stat().st_size
    path.write_bytes(pack(b"lena@kund.se\nolle@kund.se\n"))
    assert read(path, TextTable())[0] == 2


@PACKERS
def test_concatenated_members_are_read(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members"
    path.write_bytes(pack(ROWS) + pack(b"one@kund.se\n") + pack(b"") + pack(b"two@kund.se\n"))
    assert read(path)[0] == 3002


@PACKERS
def test_a_truncated_file_is_refused(tmp_path: Path, pack: Pack) -> None:
    whole = pack(ROWS[:2000])
    path = tmp_path / "members"
    for end in range(4, len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(SourceError, match="ends in the middle"):
            read(path)


@PACKERS
def test_damage_and_trailing_data_are_refused(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members"
    whole = bytearray(pack(ROWS))
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(SourceError, match=r"damaged|ends in the middle|a quote"):
        read(path)
    path.write_bytes(pack(ROWS) + b"and more")
    with pytest.raises(SourceError, match="something else follows"):
        read(path)


@PACKERS
def test_an_empty_compressed_file_is_empty(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members"
    path.write_bytes(pack(b""))
    with pytest.raises(SourceError, match="empty"):
        read(path)


def test_zstd_with_too_large_a_window_is_refused(tmp_path: Path) -> None:
    """zstd with too large a window is refused: its header alone claims the memory (RFC 8878 section 3.1.1.1.2)."""
    path = tmp_path / "members"
    last_block = b"\x01\x00\x00"
    for exponent, fine in ((17, True), (18, False)):
        path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes([0, exponent << 3]) + last_block)
        with pytest.raises(SourceError, match="empty" if fine else "damaged zstd data"):
            read(path)


@PACKERS
def test_a_file_that_unpacks_to_much_takes_little_memory(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "members"
    line = b"x" * 60 + b"@kund.se\n"
    path.write_bytes(pack(line * 400_000))  # 28 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in FileSource(path, TextTable()).cells(Tally())) == 400_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([gzip.compress, zstandard.compress, bytes]), st.integers(0, 500))
def test_any_compressed_content_reads_like_plain_content(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, pack: Pack, flip: int
) -> None:
    """Compressed content reads like plain content; a damaged file raises SourceError or is read, but raises nothing
    else."""
    path = tmp_path_factory.getbasetemp() / "packed"

    def outcome(octets: bytes) -> object:
        path.write_bytes(octets)
        try:
            return [text for _, text in FileSource(path, TextTable()).cells(Tally())]
        except SourceError:
            return SourceError

    if not content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        assert outcome(pack(content)) == outcome(content)
    packed = bytearray(pack(content))
    if packed:
        packed[flip % len(packed)] ^= 1 << flip % 8
        outcome(bytes(packed))
