"""Build the index of a long list in a process beside the one that reads the list.

Two cores take half the time, and the process that also delivers mail is slowed half as long. The reader writes to the
worker's standard input: one line of JSON that says what to build, with the key in it, then blocks. A block is its
length in four octets, big-endian, and so many octets of canonical keys, one a line; an empty block is the end. The
answer is one line: "built" and the draft's name, or "failed" and the reason. An input that ends early builds nothing.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import IO, BinaryIO

from smtpguard.lists.digest import Digester
from smtpguard.lists.writing import write

FEW = 50_000  # for fewer people a process does not pay
BLOCK = 8192  # keys in a block
_LENGTH = struct.Struct(">I")


class CutShort(Exception):
    """The input ended before its end mark."""


def build(path: Path, keys: Iterator[str], digester: Digester, *, built_at: datetime, fingerprint: bytes) -> Path:
    """A draft beside ``path``, as writing.write. Raises what ``keys`` raises, and OSError; then no file is left behind."""
    first = list(islice(keys, FEW))
    if len(first) < FEW:
        return write(path, map(digester.of_canonical, first), key_id=digester.key_id, built_at=built_at, fingerprint=fingerprint)  # fmt: skip
    task = {"path": str(path), "key": digester.key.hex(), "delimiters": digester.delimiters,
            "built_at": built_at.isoformat(), "fingerprint": fingerprint.hex()}  # fmt: skip
    argv = [sys.executable, "-P", "-m", "smtpguard.lists"]
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
        said, _, rest = process.stdout.readline().decode().strip().partition(" ")
    if said != "built":
        raise OSError(rest or "the process that builds it has ended")
    return Path(rest)


def _send(sink: IO[bytes], task: str, keys: Iterator[str]) -> None:
    sink.write(task.encode() + b"\n")
    while block := "\n".join(islice(keys, BLOCK)).encode():
        sink.write(_LENGTH.pack(len(block)) + block)
    sink.write(_LENGTH.pack(0))


def serve(source: BinaryIO, sink: BinaryIO) -> int:
    """Run in the worker process."""
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
    """Raises CutShort."""
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
