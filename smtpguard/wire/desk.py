"""What a dialog's commands need around them: the client's connection, and the desk that looks after it.

Protocols of those who use them, so that server and reception may build on the commands and not the other way round.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol

from smtpguard.mail.envelope import Envelope, Session
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import RefusedRecipient, Transaction
from smtpguard.wire.carried import Carried
from smtpguard.wire.incoming import Incoming
from smtpguard.wire.listener import Listener
from smtpguard.wire.login import Logins
from smtpguard.wire.pool import RelayPool
from smtpguard.wire.proxy import Passage
from smtpguard.wire.turned import TurnedAway


class Client(Protocol):
    """The connection that the commands came on. ``peer_ip``: whose it is; ``client_ip``: for whom it speaks (XCLIENT)."""

    client_ip: str
    peer_ip: str
    trusted: bool
    tls: bool
    in_data: bool
    deciding: bool
    incoming: Incoming

    async def flush(self) -> None: ...
    async def more(self) -> None: ...
    async def start_tls(self, context: ssl.SSLContext, handshake_seconds: float) -> None: ...
    def gone(self) -> bool: ...
    def become(self, address: str | None) -> Reply | None: ...
    def part_after(self, last: Reply) -> None: ...


class Desk(Protocol):
    """Where the dialogs are looked after."""

    listener: Listener
    pool: RelayPool
    logins: Logins | None
    greeting: Reply
    new_id: Callable[[], str]
    monotonic: Callable[[], float]

    async def carry(self, transaction: Transaction, passage: Passage) -> Carried: ...
    def turned_away(self, mail: TurnedAway) -> None: ...
    def came_to_nothing(self, session: Session, envelope: Envelope, refused: tuple[RefusedRecipient, ...]) -> None: ...


class Over(Exception):
    """The dialog ends after the replies given so far."""
