"""Places where a test may kill this process, to prove that what follows is survived. Inert unless the environment names one.

``SMTPGUARD_FAILPOINT=before-commit`` kills at the first pass, ``after-commit:3`` at the third. A folder instead of a name
(``/tmp/armed``) is for several processes that run on: a file in it with the name of a point arms that once, for whoever
passes there first. What it says is the number of the pass and the signal, if others than ``1 SIGKILL``.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_setting = os.environ.get("SMTPGUARD_FAILPOINT", "")
_folder = Path(_setting) if _setting.startswith("/") else None
_name, _, _count = _setting.partition(":")
_left = int(_count or 1)


def failpoint(name: str) -> None:
    global _left
    if _folder is not None:
        _armed(_folder / name)
    elif name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _armed(point: Path) -> None:
    mine = point.with_suffix(f".{os.getpid()}")
    try:
        point.rename(mine)  # of all processes one takes it
    except FileNotFoundError:
        return
    count, _, how = mine.read_text().partition(" ")
    left = int(count or 1) - 1
    if left > 0:
        mine.write_text(f"{left} {how}")
        mine.rename(point)
        return
    mine.unlink()
    os.kill(os.getpid(), signal.Signals[how or "SIGKILL"])
