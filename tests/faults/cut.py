"""Run smtpguard, killed at one of its changes to the files of a folder; or the disk of that folder is full from there on."""

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
_FILLS = {"os.link", "os.mkdir", "open"}


def main(folder: str, at: str, what: str, *argv: str) -> None:
    """``at``: the number of the change, from 1, before which it happens. ``what``: ``kill`` or ``full``. An end without it is an end
    of ``argv`` by itself."""
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
        if next(changes) < int(at):
            return
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif event in _FILLS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    sys.addaudithook(watch)
    smtpguard(list(argv))
