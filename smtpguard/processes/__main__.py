"""``python -m smtpguard.processes PART CHANNEL CONFIG``: one part, as the supervisor starts it. Not for people."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from smtpguard.processes import part, supervisor


def main(name: str, channel: int, config: Path) -> int:
    from smtpguard import app

    try:
        built = app.part(name, config)
    except app.CannotStart as e:
        print(f"smtpguard {name}: {e}", file=sys.stderr)
        return supervisor.CANNOT_RUN
    with socket.socket(fileno=channel) as sock, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(part.run(built, sock))
        except app.CannotStart as e:
            print(f"smtpguard {name}: {e}", file=sys.stderr)
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
