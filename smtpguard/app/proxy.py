"""The proxy part: the listeners, relay pools and guard of one process.

It takes milter connections too, if the process tree has both.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace

from smtpguard.app.certificates import RENEWAL_SECONDS, Renewals, of_listener, server_context
from smtpguard.app.clock import every, ids
from smtpguard.app.files import spool
from smtpguard.app.guardline import MailPart, limits_of, open_line
from smtpguard.app.ratelimits import RateLimits
from smtpguard.app.relay import Relays
from smtpguard.config.listeners import SmtpListener
from smtpguard.config.settings import Settings
from smtpguard.journal.clock import Clock
from smtpguard.mail.address import Address
from smtpguard.mail.reply import Reply
from smtpguard.processes.numbers import ProcessNumbers
from smtpguard.wire.listener import Listener, ServerAuth, ServerTls
from smtpguard.wire.server import Reception


class Proxy(MailPart):
    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        super().__init__(settings, clock)
        self._renewals = Renewals()

    async def start(self) -> None:
        settings, clock = self._settings, self._clock
        new_id = ids() if clock is None else ids(lambda: int(clock.now().timestamp() * 1000))
        self.line = line = await open_line(settings, self._undo, clock)
        self._relays = relays = Relays(settings, self.places)
        self._undo.push_async_callback(relays.close)
        logins = relays.logins()
        routings = [relays.routing(each.called, line.policies.list_at) for each in settings.listen.smtp]
        self._rates = RateLimits(settings)
        self._undo.callback(self._rates.close)
        listeners = [
            replace(listener(settings, each, line.hostname, line.intake.here), rate_check=self._rates.of(each))
            for each in settings.listen.smtp
        ]
        self._receptions = [
            Reception(
                each,
                routing,
                line.intake,
                new_id=new_id,
                logins=logins.get(routing.first),
                turned_away=self._turned,
                note_refused=line.intake.note_refused,
            )
            for each, routing in zip(listeners, routings, strict=True)
        ]
        for each, where in zip(listeners, settings.listen.smtp, strict=True):
            self._renewals.watch(of_listener(where), each.tls.context if each.tls is not None else None)
        relays.watch(self._renewals, logins)

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.line.follow())
            tasks.create_task(every(RENEWAL_SECONDS, "certificates", self._renewals.look))
            tasks.create_task(self._rates.run())

    def take(
        self, connection: socket.socket, listener: int, closed: Callable[[], None], client: str | None = None
    ) -> None:
        if listener >= len(self._receptions):  # the first connection of an MTA
            from smtpguard.app.milter import receptions

            self._receptions += receptions(self._settings, self.line, self._turned)
        super().take(connection, listener, closed, client)

    def said(self) -> ProcessNumbers:
        said, mail = self._relays.said(), super().said()
        return replace(
            said,
            counts={**said.counts, **mail.counts, **self._renewals.counts},
            levels={**said.levels, **mail.levels},
            store=mail.store,
        )


def listener(
    settings: Settings, each: SmtpListener, hostname: str, here: Callable[[Address], Reply | None]
) -> Listener:
    """Build a listener from its settings. ``here``: the answer to RCPT for an address of the guard's own. Raises CannotStart if
    certificate or key cannot be used."""
    return Listener(
        name=each.called,
        hostname=hostname,
        spool=spool(settings),
        tls=ServerTls(
            context=server_context(each.tls), implicit=each.tls.mode == "implicit", required=each.tls.required
        )
        if each.tls
        else None,
        auth=ServerAuth(required=each.auth.required, without_tls=each.auth.without_tls) if each.auth else None,
        trust=settings.trust,
        expanders=settings.expanders,
        senders_verified=each.senders_verified,
        here=here,
        limits=limits_of(settings),
    )
