"""The milter part: the milter connections of one process, and its guard. It needs no relay: a message that passes stays
in the MTA. Beside a proxy part it is within that part, on the same guard."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from smtpguard.app.clock import ids
from smtpguard.app.files import spool
from smtpguard.app.guardline import Line, Turned, counts, settled, straight_line
from smtpguard.config.settings import MilterListener, Settings
from smtpguard.processes.numbers import Said
from smtpguard.processes.part import Part
from smtpguard.wire.listener import Limits
from smtpguard.wire.milter.message import MilterSettings
from smtpguard.wire.milter.reception import MilterReception

log = logging.getLogger(__name__)


class Milter(Part):
    def __init__(self, settings: Settings, turned: Turned | None = None) -> None:
        super().__init__()
        self._settings = settings
        self._turned = turned or Turned()
        self._receptions: list[MilterReception] = []
        self._settling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.begin(await straight_line(self._settings, self._undo))

    def begin(self, line: Line) -> None:
        settings, new_id = self._settings, ids()
        self._line, self._intake = line, line.intake
        self._receptions = [
            MilterReception(
                milter_settings(settings, each, line.hostname), line.intake, new_id=new_id, turned_away=self._turned
            )
            for each in settings.listen.milter
        ]

    async def serve(self) -> None:
        await self._line.follow()

    def take(
        self, connection: socket.socket, listener: int, closed: Callable[[], None], client: str | None = None
    ) -> None:
        serving = self._receptions[listener].serve_connection(connection, closed)
        task = asyncio.create_task(settled(serving, "a milter connection", connection, closed))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def said(self) -> Said:
        return Said(counts={**counts(self._intake), **self._turned.counts})

    async def stop(self, grace_seconds: float) -> None:
        cut_off = sum(await asyncio.gather(*(each.stop(grace_seconds) for each in self._receptions)))
        if cut_off:
            log.warning("%d milter connections were closed after %g s", cut_off, grace_seconds)
        await self._intake.drain()


def milter_settings(settings: Settings, each: MilterListener, hostname: str) -> MilterSettings:
    limits = settings.limits
    return MilterSettings(
        name=each.called,
        limits=Limits(
            recipients=limits.recipients, message_octets=limits.message_mb << 20, line_octets=limits.line_octets
        ),
        spool=spool(settings),
        hostname=hostname,
        expanders=settings.expanders,
        senders_verified=each.senders_verified,
    )
