"""The journal's files of lines in the state folder: its signed checkpoints, and an authority's time stamps over them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from smtpguard.config.statefiles import hand_over

CHECKPOINTS = "checkpoints"
TIMESTAMPS = "timestamps"


def write_line(state_dir: Path, name: str, line: str) -> None:
    """Append a line to a file, in one write, so that processes do not mix their lines. It gets a line of its own even if a full disk
    or a power failure has cut the line before. Raises OSError."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(state_dir / name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(file).st_size
        if not size:
            hand_over(state_dir / name, state_dir)
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        octets = ("\n" * torn + line + "\n").encode()
        if os.write(file, octets) < len(octets):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    finally:
        os.close(file)


def lines_of(state_dir: Path, name: str) -> list[str]:
    """Return the lines of a file. Read checkpoints before the snapshot that they are compared with, since a line is written only after
    its entries are committed."""
    path = state_dir / name
    return [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()] if path.exists() else []
