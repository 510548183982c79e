"""The membership index of one list: an immutable file of sorted 64-bit keyed digests, mapped into memory.

It holds no readable address. Layout, all in the machine's own byte order: a header of 128 octets, the digests, and a
fan-out table of 2**bits + 1 positions by which a look-up begins in a bucket of a few digests. A new index is written
beside the old one and swapped in by rename: who has the old one mapped keeps it until asking again.
Never here: where members come from (sources), or what a member means (registry).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import tempfile
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from heapq import merge
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO

MAGIC = b"smtpgIDX"
LAYOUT = 1
RUN = 1 << 19  # digests sorted in memory at a time
MAX_FAN_BITS = 20

_HEADER = struct.Struct("=8s I I 8s Q q 32s 8s I 16s")  # the last is the checksum of what stands before it
_HEADER_OCTETS = 128


class BadIndex(Exception):
    """The file is no index of ours, is damaged, or was made under another key. Says which."""


class Index:
    """An open index, checked from end to end (CRC-32: 2 ms for 400,000 people). Immutable, and safe in any thread.

    ``people`` is the number of distinct digests; ``version`` names their set: same people, same version.
    """

    __slots__ = ("_bits", "_digests", "_fan", "_map", "built_at", "fingerprint", "people", "version")

    people: int

    def __init__(self, path: Path, key_id: bytes) -> None:
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise BadIndex(f"{path.name} is empty") from None
        header = self._map[: _HEADER.size]
        if len(header) < _HEADER.size or header[:8] != MAGIC:
            raise BadIndex(f"{path.name} is no membership index")
        _, layout, self._bits, made_under, self.people, built_at, self.fingerprint, version, crc, check = (
            _HEADER.unpack(header)
        )
        if _checksum(header[:-16]) != check:
            raise BadIndex(f"{path.name} is damaged: its header does not match its checksum")
        if layout != LAYOUT:
            raise BadIndex(f"{path.name} has layout {layout}, not {LAYOUT}")
        if made_under != key_id:
            raise BadIndex(f"{path.name} was made under another secret or other delimiters")
        end = _HEADER_OCTETS + 8 * self.people
        if len(self._map) != end + 4 * ((1 << self._bits) + 1):
            raise BadIndex(f"{path.name} is damaged: it is cut or has grown")
        whole = memoryview(self._map)
        if zlib.crc32(whole[_HEADER_OCTETS:]) != crc:
            raise BadIndex(f"{path.name} is damaged: it does not match its checksum")
        self._digests = whole[_HEADER_OCTETS:end].cast("Q")
        self._fan = whole[end:].cast("I")
        self.version = version.hex()
        self.built_at = datetime.fromtimestamp(built_at, UTC)

    def __len__(self) -> int:
        return self.people

    def __contains__(self, digest: bytes) -> bool:
        return self.has(int.from_bytes(digest, "big"))

    def has(self, number: int) -> bool:
        """``number``: the digest as a big-endian integer, for those who ask many indexes about one."""
        bucket = number >> (64 - self._bits)
        end = self._fan[bucket + 1]
        at = bisect_left(self._digests, number, self._fan[bucket], end)
        return at < end and self._digests[at] == number


def write(path: Path, digests: Iterable[bytes], *, key_id: bytes, built_at: datetime, fingerprint: bytes) -> Path:
    """Write a new index beside ``path``, whole and on disk, and give its name: ``swap`` puts it in place.

    Memory stays bounded: digests are sorted in runs of half a million, and the runs merged from files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file, tempfile.TemporaryFile(dir=path.parent) as spill:
            file.write(bytes(_HEADER_OCTETS))
            runs = _runs(digests, spill)
            bits = min(max(sum(map(len, runs)).bit_length() - 3, 0), MAX_FAN_BITS)
            people, fan, body = 0, array("I", bytes(4 * ((1 << bits) + 1))), hashlib.blake2b(digest_size=8)
            crc = 0
            for block in _blocks(merge(*runs), 1 << 13):
                file.write(block)
                body.update(block)
                crc = zlib.crc32(block, crc)
                people += len(block)
                for number in block:
                    fan[(number >> (64 - bits)) + 1] += 1
            for bucket in range(1 << bits):
                fan[bucket + 1] += fan[bucket]
            file.write(fan)
            crc = zlib.crc32(fan, crc)
            header = _HEADER.pack(
                MAGIC, LAYOUT, bits, key_id, people, int(built_at.timestamp()), fingerprint, body.digest(), crc, bytes(16)
            )[:-16]  # fmt: skip
            file.seek(0)
            file.write(header + _checksum(header))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink()
        raise
    return draft


def swap(draft: Path, path: Path) -> None:
    """Put a written index in place, durably. Made by root, it belongs to whom the folder belongs, who has to read it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(draft, owner.st_uid, owner.st_gid)
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _checksum(header: bytes) -> bytes:
    return hashlib.blake2b(header, digest_size=16).digest()


def _runs(digests: Iterable[bytes], spill: BinaryIO) -> list[memoryview]:
    """Sorted runs in a file of their own, mapped: what is being sorted is all that memory holds."""
    numbers, ends = (int.from_bytes(d, "big") for d in digests), [0]
    while run := sorted(set(islice(numbers, RUN))):
        spill.write(array("Q", run))
        ends.append(ends[-1] + len(run))
    if ends == [0]:
        return []
    spill.flush()
    whole = memoryview(mmap.mmap(spill.fileno(), 0, access=mmap.ACCESS_READ)).cast("Q")
    return [whole[start:end] for start, end in pairwise(ends)]


def _blocks(numbers: Iterator[int], size: int) -> Iterator[array[int]]:
    """Sorted numbers without repetition, in arrays of ``size``."""
    block, last = array("Q"), -1
    for number in numbers:
        if number == last:
            continue
        last = number
        block.append(number)
        if len(block) == size:
            yield block
            block = array("Q")
    yield block
