"""``python -m smtpguard.app PART CHANNEL CONFIG``: one part, as the supervisor starts it. Not for people."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from smtpguard.processes import part, supervisor

_COLLECT = (10_000, 20, 20)
"""Objects more than before, and collections of the younger: a message leaves few cycles behind."""


def main(name: str, channel: int, config: Path) -> int:
    from smtpguard.app.files import CannotStart
    from smtpguard.app.parts import part as built
    from smtpguard.config.problem import Broken

    try:
        one = built(name, config)
        gc.freeze()  # what is imported stays: not to be gone through again and again
        gc.set_threshold(*_COLLECT)
        with socket.socket(fileno=channel) as sock, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(part.run(one, sock))
    except (CannotStart, Broken) as e:
        print(e if isinstance(e, Broken) else f"smtpguard {name}: {e}", file=sys.stderr)
        return supervisor.CANNOT_RUN
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
