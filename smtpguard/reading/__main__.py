"""``python -m smtpguard.reading``: read messages in a process that can be killed.

A request on standard input is two blocks, the head (request.dump_request) and the content; the answer on standard output
is one, request.dump_reading or Shown.pack. A block is its length in four octets, big-endian, and then so many octets.
Requests follow one another until the input ends. The process limits its own memory, processor time and files, so that
a busy machine makes no message unreadable; the parent kills it after a longer time by the wall clock. A request that cannot be parsed, or a limit that is hit, ends the
process; the parent then treats the message as "unreadable".
"""

from __future__ import annotations

import resource
import signal
import struct
import sys
import time
from dataclasses import replace
from typing import BinaryIO

from smtpguard.mail.message import Message
from smtpguard.reading.read import read
from smtpguard.reading.request import Depth, Surroundings, dump_reading, load_request
from smtpguard.reading.shown import shown_by

MEMORY_BYTES = 768 << 20
GRACE_SECONDS = 5  # of processor time beyond the bounds of a request, before the kernel ends the process
_LENGTH = struct.Struct(">I")


def main(source: BinaryIO, sink: BinaryIO) -> int:
    """Serve requests until ``source`` ends."""
    around = Surroundings()
    while True:
        head = _block(source)
        if head is None:
            return 0
        content = _block(source)
        if content is None:
            return 1
        given, depth, bounds = load_request(head)
        around = around if given is None else given
        allow(bounds.seconds)
        message, bounds = Message.of(content), replace(bounds, clock=time.process_time)
        if depth is Depth.SHOWN:
            answer = shown_by(message, bounds).pack()
        else:
            answer = dump_reading(read(message, around, depth, bounds))
        sink.write(_LENGTH.pack(len(answer)) + answer)
        sink.flush()


def _block(source: BinaryIO) -> bytes | None:
    """Return the next block, None at the end of input. A truncated block is the end too."""
    length = source.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(length)
    block = source.read(size)
    return block if len(block) == size else None


def allow(seconds: float) -> None:
    """Raise the limit of processor time for one more request."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + GRACE_SECONDS
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard < 0 else min(limit, hard), hard))


def confine() -> None:
    """Drop what a reader does not need: signals for the whole tree, unlimited memory, files, core dumps."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):  # what ignores them is not inherited through uvloop
        signal.signal(number, signal.SIG_IGN)
    for which, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (value, value) if hard < 0 or value <= hard else (hard, hard))


if __name__ == "__main__":
    confine()
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
