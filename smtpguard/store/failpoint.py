"""Places where a test may kill this process, to prove that what follows is survived. Inert unless the environment names one.

``SMTPGUARD_FAILPOINT=before-commit`` kills at the first pass, ``after-commit:3`` at the third.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("SMTPGUARD_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def failpoint(name: str) -> None:
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
