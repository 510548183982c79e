"""Write an index file: from digests in any order or from other indexes, beside the old one, then swapped in.

Memory stays bounded however long a list is. Digests go into 256 piles by their first octet, which spill to a file at
half a million; then pile by pile is sorted, which needs a 256th of them at a time and no merging. The sorted digests go
to a second file, since the sections of an index can be laid out only when the number of people is known. Python sorts
the 64-bit integers; slices and casts, which run in C, move the octets (piles to numbers, numbers to heads and tails).

The index of a long list is built in a process beside the one that reads the list (``build``): two cores take half the time, and the
process that also delivers mail is slowed half as long. The reader writes to the worker's standard input: one line of JSON that says what
to build, with the key in it, then blocks. A block is its length in four octets, big-endian, and so many octets of canonical keys, one a
line; an empty block is the end. The answer is one line: "built" and the draft's name, or "failed" and the reason. An input that ends
early builds nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from itertools import chain, islice
from operator import eq
from pathlib import Path
from typing import IO, BinaryIO

from smtpguard.lists.digest import Digester
from smtpguard.lists.index import HEADER_OCTETS, LOW_END, OCTETS, Header, Index, tail_bits, walk

KEPT = 1 << 19
"""The digests in memory before they spill to a file."""
FEW = 4096
"""Fewer digests than these need no piles."""
BLOCK = 1 << 16
"""The octets of sorted digests that are laid out at a time."""
WORKER_FROM = 50_000
"""For fewer people a process beside this one does not pay."""
KEYS = 8192
"""The keys of one block to the process beside."""
_LENGTH = struct.Struct(">I")
_VERSION = 8  # octets
_SPOOL = 4 << 20
"""The octets that stay in memory, so that a small list needs no temporary files."""


def write(path: Path, digests: Iterable[bytes], *, key_id: bytes, built_at: datetime, fingerprint: bytes) -> Path:
    """Write a new index beside ``path``, complete and on disk, and return its name: ``swap`` puts it in place.

    Raises what ``digests`` raises, and OSError; then no file is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _spooled(path.parent) as spill:
        return _write(path, _sorted(digests, spill), key_id, built_at, fingerprint)


def write_temporary(path: Path, numbers: Iterable[int], *, key_id: bytes, built_at: datetime) -> None:
    """Write a temporary index of few people, in place at once and not synced. ``numbers``: digests as integers."""
    ordered = [array("Q", sorted(set(numbers)))]
    _write(path, ordered, key_id, built_at, bytes(32), durable=False).replace(path)


def merge(path: Path, indexes: Sequence[Index], *, key_id: bytes, built_at: datetime, fingerprint: bytes) -> Path:
    """Write an index of everybody who is in one of these, as ``write`` does."""
    together = (array("Q", sorted(set().union(*parts))) for parts in walk(indexes))
    return _write(path, together, key_id, built_at, fingerprint)


def link(index: Path, path: Path) -> Path:
    """Make a draft beside ``path`` that is a hard link to ``index``, or a copy if files cannot be linked. Return its name."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.hardlink_to(index)
    except OSError:
        shutil.copyfile(index, draft)
    return draft


def version_of(digests: Iterable[bytes]) -> str:
    """Return the version of an index with exactly these people."""
    version = hashlib.blake2b(digest_size=_VERSION)
    with tempfile.SpooledTemporaryFile(_SPOOL) as spill:
        for numbers in _sorted(digests, spill):
            version.update(numbers)
    return version.hexdigest()


def _spooled(folder: Path) -> tempfile.SpooledTemporaryFile[bytes]:
    return tempfile.SpooledTemporaryFile(_SPOOL, dir=str(folder))


def _sorted(digests: Iterable[bytes], spill: IO[bytes]) -> Iterator[array[int]]:
    """Yield distinct digests as big-endian numbers, in order, pile by pile."""
    digests = iter(digests)
    few = list(islice(digests, FEW))
    if len(few) < FEW:
        yield _in_order(b"".join(few))
        return
    digests = chain(few, digests)
    piles: list[list[bytes]] = [[] for _ in range(OCTETS)]
    put = [pile.append for pile in piles]
    spilt: list[list[tuple[int, int]]] = [[] for _ in range(OCTETS)]
    while True:
        before = sum(map(len, piles))
        for digest in islice(digests, KEPT):
            put[digest[0]](digest)
        if sum(map(len, piles)) - before < KEPT:
            break
        for pile, chunks in zip(piles, spilt, strict=True):
            chunk = b"".join(pile)
            chunks.append((spill.tell(), len(chunk)))
            spill.write(chunk)
            pile.clear()
    for pile, chunks in zip(piles, spilt, strict=True):
        octets = bytearray()
        for position, length in chunks:
            spill.seek(position)
            octets += spill.read(length)
        octets += b"".join(pile)
        pile.clear()
        yield _in_order(octets)


def _in_order(octets: bytes | bytearray) -> array[int]:
    numbers = array("Q", octets)
    if sys.byteorder == "little":
        numbers.byteswap()
    ordered = sorted(numbers)
    if any(map(eq, ordered, islice(ordered, 1, None))):  # duplicates, which few lists have
        ordered = sorted(set(ordered))
    return array("Q", ordered)


def _write(
    path: Path,
    ordered: Iterable[array[int]],
    key_id: bytes,
    built_at: datetime,
    fingerprint: bytes,
    *,
    durable: bool = True,
) -> Path:
    """Write a draft beside ``path`` and return its name. ``ordered``: distinct digests, in order."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    draft = Path(name)
    try:
        with ExitStack() as stack:
            file = stack.enter_context(os.fdopen(descriptor, "wb"))
            digests, table, tails, marks = (stack.enter_context(_spooled(path.parent)) for _ in range(4))
            people, version = 0, hashlib.blake2b(digest_size=_VERSION)
            for numbers in ordered:
                digests.write(numbers)
                version.update(numbers)
                people += len(numbers)
            digests.seek(0)
            file.write(bytes(HEADER_OCTETS))
            bits, marks_bits = _proportions(people)
            _lay_out(digests, bits, marks_bits, heads=file, table=table, tails=tails, marks=marks)
            table_crc = _crc(table)
            for section in (table, tails, marks):
                section.seek(0)
                shutil.copyfileobj(section, file, 1 << 20)
            file.flush()
            with draft.open("rb") as written:
                body_crc = _crc(written, HEADER_OCTETS)
            header = Header(bits=bits, marks_bits=marks_bits, key_id=key_id, people=people, built_at=built_at, fingerprint=fingerprint,
                            version=version.digest(), table_crc=table_crc, body_crc=body_crc)  # fmt: skip
            file.seek(0)
            file.write(header.packed())
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        draft.unlink()
        raise
    return draft


def _proportions(people: int) -> tuple[int, int]:
    """Return the bits of the table and of the marks. From a quarter of a million people on the table gives 16 bits of each digest;
    a place of it has 4 to 8 people, and up to 64 only in lists of millions. There are 0.7 to 1.4 octets of marks a
    person: they alone answer for four of five to seven of eight people who are not on the list."""
    size = people.bit_length()
    return min(max(size - 3, 0), max(16, size - 6)), (people * 7 // 10).bit_length()


def _lay_out(digests: IO[bytes], bits: int, marks_bits: int, *, heads: IO[bytes], table: IO[bytes], tails: IO[bytes],
             marks: IO[bytes]) -> None:  # fmt: skip
    """Write the sections of an index, each from front to back. ``digests``: all of them, sorted."""
    end, shift, tail = 64 - bits, 64 - marks_bits, tail_bits(bits)
    place, done = 0, 0  # the next place of the table; the number of digests before this block
    row, start = bytearray(), 0  # octets of marks that are not written yet, and the number of the first
    while block := array("Q", digests.read(BLOCK)):
        low = memoryview(block).cast("B").cast("H" if tail == 16 else "I")
        if tail == 16:
            tails.write(low[LOW_END[0] :: 4].tobytes())
            middle = array("I", bytes(4 * len(block)))
            halves = memoryview(middle).cast("B").cast("H")
            first, second = LOW_END[1:3] if sys.byteorder == "little" else (LOW_END[2], LOW_END[1])
            halves[::2], halves[1::2] = low[first::4], low[second::4]
            heads.write(middle)
        else:
            first, second = (0, 1) if sys.byteorder == "little" else (1, 0)
            tails.write(low[first::2].tobytes())
            heads.write(low[second::2].tobytes())
        places, at = array("I"), 0
        while place << end <= block[-1]:
            at = bisect_left(block, place << end, at)
            places.append(done + at)
            place += 1
        table.write(places)
        done += len(block)
        last = (block[-1] >> shift) - start
        row.extend(bytes(last + 1 - len(row)))
        for number in block:
            row[(number >> shift) - start] |= 1 << (number & 7)
        marks.write(row[:last])
        row, start = row[last:], start + last
    table.write(array("I", [done]) * ((1 << bits) + 1 - place))
    marks.write(row.ljust((1 << marks_bits) - start, b"\0"))


def _crc(file: IO[bytes], start: int = 0) -> int:
    crc = 0
    file.seek(start)
    while block := file.read(1 << 20):
        crc = zlib.crc32(block, crc)
    return crc


class CutShort(Exception):
    """The input ended before its end mark."""


def build(path: Path, keys: Iterator[str], digester: Digester, *, built_at: datetime, fingerprint: bytes) -> Path:
    """Write a draft beside ``path``, as ``write`` does, from canonical keys; for a long list in a process beside this one.

    Raises what ``keys`` raises, and OSError; then no file is left behind.
    """
    first = list(islice(keys, WORKER_FROM))
    if len(first) < WORKER_FROM:
        return write(path, map(digester.of_canonical, first), key_id=digester.key_id, built_at=built_at, fingerprint=fingerprint)  # fmt: skip
    task = {"path": str(path), "key": digester.key.hex(), "delimiters": digester.delimiters,
            "built_at": built_at.isoformat(), "fingerprint": fingerprint.hex()}  # fmt: skip
    argv = [sys.executable, "-P", "-m", "smtpguard.lists.writing"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it ended early, and has reported the reason if it could
                _send(process.stdin, json.dumps(task), chain(first, keys))
                process.stdin.close()
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
        answer, _, rest = process.stdout.readline().decode().strip().partition(" ")
    if answer != "built":
        raise OSError(rest or "the process that builds it has ended")
    return Path(rest)


def _send(sink: IO[bytes], task: str, keys: Iterator[str]) -> None:
    sink.write(task.encode() + b"\n")
    while block := "\n".join(islice(keys, KEYS)).encode():
        sink.write(_LENGTH.pack(len(block)) + block)
    sink.write(_LENGTH.pack(0))


def serve(source: BinaryIO, sink: BinaryIO) -> int:
    """Build an index in the worker process. Return its exit status."""
    task = json.loads(source.readline())
    digester = Digester(bytes.fromhex(task["key"]), task["delimiters"])
    try:
        draft = write(
            Path(task["path"]),
            map(digester.of_canonical, _keys(source)),
            key_id=digester.key_id,
            built_at=datetime.fromisoformat(task["built_at"]),
            fingerprint=bytes.fromhex(task["fingerprint"]),
        )
    except CutShort:
        return 1
    except OSError as error:
        sink.write(f"failed {error.strerror or error}\n".encode())
        return 1
    sink.write(f"built {draft}\n".encode())
    return 0


def _keys(source: BinaryIO) -> Iterator[str]:
    """Yield the keys of all blocks. Raises CutShort."""
    while True:
        length = source.read(_LENGTH.size)
        if len(length) < _LENGTH.size:
            raise CutShort
        (size,) = _LENGTH.unpack(length)
        if not size:
            return
        block = source.read(size)
        if len(block) < size:
            raise CutShort
        yield from block.decode().split("\n")


if __name__ == "__main__":
    sys.exit(serve(sys.stdin.buffer, sys.stdout.buffer))
