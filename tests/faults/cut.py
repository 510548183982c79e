"""Run smtpguard, killed at one of its changes to the files of a folder, which is on a disk of its own."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from smtpguard.cli import main as smtpguard

_CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod"}


def main(folder: str, at: str, *argv: str) -> None:
    """``at``: the number of the change, from 1, before which it is killed. If there are fewer, it ends by itself."""
    changes = itertools.count(1)

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not flags & os.O_CREAT:
                return
        elif event in _CHANGES:
            path = args[1] if event in ("os.link", "os.rename") else args[0]
        else:
            return
        if not isinstance(path, (str, os.PathLike)) or not str(Path(path).absolute()).startswith(folder):
            return
        if next(changes) == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        if event == "os.rename" and not str(args[0]).startswith(folder):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    sys.addaudithook(watch)
    smtpguard(list(argv))
