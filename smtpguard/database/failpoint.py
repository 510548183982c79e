"""Points around a commit where a test kills a process, to prove that smtpguard survives it.

Inert unless ``SMTPGUARD_FAILPOINT`` names a folder. A file in it arms one point for all processes that were given the
folder; its text is ``WHEN STEP ITEM``, such as ``before-commit lease 01ABC-release``. STEP is the kind of a journal entry
with its id as the ITEM, or what a transaction calls ``passes`` with. The process whose transaction passed that step with
that item removes the file and gets SIGKILL. No other transaction can, whichever commits first.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

_folder = Path(os.environ["SMTPGUARD_FAILPOINT"]) if os.environ.get("SMTPGUARD_FAILPOINT") else None


class _Passed(threading.local):
    def __init__(self) -> None:
        self.steps: set[tuple[str, str]] = set()


_passed = _Passed()
"""The steps that this thread's open transaction has passed."""


def traced() -> bool:
    """Return whether steps are noted. Callers ask first where naming a step takes time."""
    return _folder is not None


def passes(step: str, item: str) -> None:
    """Note that this thread's open transaction does ``step`` to ``item``."""
    if _folder is not None:
        _passed.steps.add((step, item))


def failpoint(when: str) -> None:
    """Kill the process if a point is armed for ``when`` and a step of this transaction. ``begin`` begins a transaction, and forgets
    the steps of the one before."""
    if _folder is None:
        return
    if when == "begin":
        _passed.steps.clear()
        return
    for point in sorted(_folder.iterdir()):
        try:
            at, step, item = point.read_text().split()
        except (FileNotFoundError, ValueError):  # another process has taken it
            continue
        if at == when and (step, item) in _passed.steps:
            try:
                point.unlink()
            except FileNotFoundError:  # only one process takes it
                continue
            os.kill(os.getpid(), signal.SIGKILL)
