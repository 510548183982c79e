"""``python -m smtpguard.app PART CHANNEL CONFIG``: one part, as the supervisor starts it. Not for people."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from smtpguard.processes import part, supervisor

_WEB = frozenset({"console", "metrics"})
_COLLECT = (10_000, 20, 20)
"""Objects more than before, and collections of the younger: a message leaves few cycles behind."""


def main(name: str, channel: int, config: Path, style: str) -> int:
    """``style``: of the log until the settings are read. Returns the exit status."""
    # A console that outlives its supervisor would keep its port from the next; the others finish what they have in hand.
    part.die_with_parent(signal.SIGKILL if name in _WEB else signal.SIGTERM)
    from smtpguard.observe import log

    if log.configure(style):
        log.take_over()
    from smtpguard.app.files import CannotStart
    from smtpguard.app.parts import part as built
    from smtpguard.config.problem import Broken
    from smtpguard.policy.admission import LedgerError, Unusable

    try:
        one = built(name, config)
        gc.freeze()  # what is imported stays: not to be gone through again and again
        gc.set_threshold(*_COLLECT)
        with socket.socket(fileno=channel) as sock, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(part.run(one, sock))
    except (CannotStart, Broken, LedgerError) as e:
        passing = (
            e.passing if isinstance(e, CannotStart) else isinstance(e, LedgerError) and not isinstance(e, Unusable)
        )
        status = supervisor.TRY_AGAIN if passing else supervisor.CANNOT_RUN
        told = f"{name}: the store: {e or type(e).__name__}" if isinstance(e, LedgerError) else f"{name}: {e}"
        log.failure(str(e) if isinstance(e, Broken) else told, status=status)
        return status
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]))
