"""The connections of one listener: accepted, counted by client, and refused above its limits (RFC 5321 section 3.8).

A connection comes as an accepted socket from the supervisor. The guard's decision runs here, so that it is recorded to
its end even if the client disconnects.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from smtpguard.mail import reply
from smtpguard.mail.envelope import Envelope, Session
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import RefusedRecipient, Transaction
from smtpguard.wire.carried import Admit, Carried, carry
from smtpguard.wire.connections import Connections
from smtpguard.wire.listener import Listener
from smtpguard.wire.login import Logins
from smtpguard.wire.pool import Routing
from smtpguard.wire.proxy import Passage
from smtpguard.wire.server import Dialog
from smtpguard.wire.turnedaway import TurnedAway

log = logging.getLogger("smtpguard.wire")

NoteRefused = Callable[[str, Session, Envelope, tuple[RefusedRecipient, ...]], None]
"""Journals a transaction, under the given id."""
LOOK_SECONDS = 1.0


class Reception(Connections[Dialog]):
    """One listener. Made and used in one event loop."""

    def __init__(
        self,
        listener: Listener,
        routing: Routing,
        admit: Admit,
        *,
        new_id: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
        logins: Logins | None = None,
        turned_away: Callable[[TurnedAway], None] = lambda mail: None,
        note_refused: NoteRefused | None = None,
    ) -> None:
        """``logins``: set if clients may log in; ``turned_away``: called for each message that is answered 4xx or 5xx
        without a verdict. ``note_refused``: called for each transaction without a message after the relay refused
        recipients; nobody waits for it."""
        super().__init__(monotonic, LOOK_SECONDS)
        self.turned_away = turned_away
        self.listener, self.routing, self.new_id, self.logins = listener, routing, new_id, logins
        self.greeting = Reply(220, (f"{listener.hostname} ESMTP",))
        self._admit = admit
        self._note_refused = note_refused
        self._per_client: Counter[str] = Counter()

    # connections

    async def serve_connection(
        self, sock: socket.socket, over: Callable[[], None] | None = None, client: str | None = None
    ) -> None:
        """Take over an accepted connection; returns when it is set up, and calls ``over`` when it has ended.
        ``client``: the client's address, as a proxy in front gave it; "" if it could not.

        Raises OSError if the TLS handshake fails; then ``over`` is not called.
        """
        tls = self.listener.tls
        implicit: dict[str, Any] = {}
        if tls is not None and tls.implicit:
            implicit = {"ssl": tls.context, "ssl_handshake_timeout": tls.handshake_seconds}
        _, dialog = await self.loop.connect_accepted_socket(lambda: Dialog(self, client), sock, **implicit)
        self._calls(dialog, over)

    def arrived(self, one: Dialog) -> None:
        super().arrived(one)
        self._per_client[one.client_ip] += 1

    def parted(self, one: Dialog) -> None:
        if one in self._open:
            super().parted(one)
            self._forget(one.client_ip)

    def renamed(self, dialog: Dialog, before: str) -> Reply | None:
        """Count a client under its new address; returns why it cannot be served, if it cannot."""
        self._forget(before)
        self._per_client[dialog.client_ip] += 1
        return self.refusal(dialog)

    def _forget(self, client: str) -> None:
        self._per_client[client] -= 1
        if not self._per_client[client]:
            del self._per_client[client]

    def refusal(self, dialog: Dialog) -> Reply | None:
        """Why a client that has connected cannot be served now."""
        limits = self.listener.limits
        if self.stopping:
            return reply.SHUTTING_DOWN
        if len(self._open) > limits.connections:
            return reply.TOO_MANY_CONNECTIONS
        if not dialog.trusted and self._per_client[dialog.client_ip] > limits.connections_per_client:
            return reply.TOO_MANY_CONNECTIONS
        return None

    # messages

    def carry(self, transaction: Transaction, passage: Passage) -> Coroutine[Any, Any, Carried]:
        """Let the guard decide and act. The coroutine must run to its end."""
        self._deciding += 1
        return carry(self._admit, transaction, passage, partial(self._carried, passage))

    def _carried(self, passage: Passage) -> None:
        passage.close()
        self._decided()

    def came_to_nothing(self, session: Session, envelope: Envelope, refused: tuple[RefusedRecipient, ...]) -> None:
        """No content followed. ``envelope``: with the recipients that the relay accepted."""
        if self._note_refused is not None:
            self._note_refused(self.new_id(), session, envelope, refused)
