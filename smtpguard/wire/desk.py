"""What a dialog's commands need around them: the client's connection, the desk that looks after it, and who the client is.

Protocols of those who use them, so that server and reception may build on the commands and not the other way round; and the
client as the guard sees it (mail.envelope.Session). Never here: what a command does (commands).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Protocol

from smtpguard.mail.envelope import Session
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Transaction
from smtpguard.wire.incoming import Incoming
from smtpguard.wire.listener import Listener, client_address, within
from smtpguard.wire.login import Logins
from smtpguard.wire.pool import RelayPool
from smtpguard.wire.proxy import Passage


class Client(Protocol):
    """The connection that the commands came on."""

    client_ip: str
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

    async def carry(self, transaction: Transaction, passage: Passage) -> tuple[Reply, bool]: ...


class Over(Exception):
    """The dialog ends after the replies given so far."""


def identify(
    client: Client,
    listener: Listener,
    helo: str,
    said: Mapping[str, str],
    *,
    extended: bool,
    auth_user: str | None = None,
) -> Session:
    """The client as it is known. What a trusted peer ``said`` of it with XFORWARD or XCLIENT goes before what we see ourselves."""
    address = client_address(said.get("ADDR", "").upper().removeprefix("IPV6:"))
    ip = str(address or client.client_ip)
    return Session(
        client_ip=ip,
        client_name=said.get("NAME", ""),
        helo=said.get("HELO") or helo,
        auth_user=auth_user,
        tls=client.tls,
        esmtp=said["PROTO"].upper() == "ESMTP" if said.get("PROTO") else extended,
        senders_verified=listener.senders_verified,
        expander=within(ip, listener.expanders),
    )
