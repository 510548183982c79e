"""The milter part: the milter connections of one process, and its guard. It needs no relay: a message that passes stays
in the MTA."""

from __future__ import annotations

from smtpguard.app.clock import ids
from smtpguard.app.files import spool
from smtpguard.app.guardline import Line, MailPart, TurnedAwayLog, limits_of, open_line
from smtpguard.config.settings import Settings
from smtpguard.wire.listener import Listener
from smtpguard.wire.milter import MilterReception


class Milter(MailPart):
    async def start(self) -> None:
        self.line = await open_line(self._settings, self._undo, self._clock)
        self._receptions = [*receptions(self._settings, self.line, self._turned)]

    async def serve(self) -> None:
        await self.line.follow()


def receptions(settings: Settings, line: Line, turned: TurnedAwayLog) -> list[MilterReception]:
    """Return what serves the connections of each milter listener, in their order."""
    new_id, limits = ids(), limits_of(settings)
    return [
        MilterReception(
            Listener(
                name=each.called,
                limits=limits,
                spool=spool(settings),
                hostname=line.hostname,
                expanders=settings.expanders,
                senders_verified=each.senders_verified,
            ),
            line.intake,
            new_id=new_id,
            turned_away=turned,
        )
        for each in settings.listen.milter
    ]
