"""Run a command of smtpguard that is killed when it calls a function."""

from __future__ import annotations

import os
import signal
from pkgutil import resolve_name

from tests import program
from tests.peers.chain import PATIENCE


def killed(at: str, *argv: str) -> None:
    """Run ``smtpguard *argv`` until it calls ``at``, such as ``os.link``, with SIGKILL in its place."""
    done = program.run([at, *argv], timeout=PATIENCE, module="tests.faults.killing")
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stdout, done.stderr)


def main(at: str, *argv: str) -> None:
    """In the process that is killed."""
    from smtpguard.cli import main as command

    owner, _, name = at.rpartition(".")
    setattr(resolve_name(owner), name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    command([*argv])
