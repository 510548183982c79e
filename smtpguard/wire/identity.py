"""Who the client is: what it says of itself, what a trusted peer says of it, and who it has logged in as.

Here this is gathered, from HELO, XFORWARD, XCLIENT and AUTH, into what the guard sees (mail.envelope.Session). XFORWARD is for
one transaction, XCLIENT until another, a login until the end or STARTTLS.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from smtpguard.mail import reply
from smtpguard.mail.client import client_address, within
from smtpguard.mail.envelope import Session
from smtpguard.mail.reply import Reply
from smtpguard.wire import grammar, sasl
from smtpguard.wire.desk import Client, Desk
from smtpguard.wire.grammar import CLIENT_VALUE, Refused, parse_attributes
from smtpguard.wire.login import Login
from smtpguard.wire.proxy import Lines


class Identity:
    """One client's. ``helo``: its name, "" before any; ``extended``: it said EHLO."""

    def __init__(self, client: Client, desk: Desk, challenge: Callable[[Reply], Awaitable[None]]) -> None:
        self.helo, self.extended = "", False
        self._client, self._desk, self._listener, self._challenge = client, desk, desk.listener, challenge
        self._forwarded: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._told_user: str | None = None
        self._login: Login | None = None
        self._session: Session | None = None

    # what is known

    @property
    def session(self) -> Session:
        """As the guard sees it. What a trusted peer has said goes before what we see ourselves."""
        if self._session is None:
            said = {**self._told, **self._forwarded}
            address = client_address(said.get("ADDR", "").upper().removeprefix("IPV6:"))
            ip = str(address or self._client.client_ip)
            peer = self._client.peer_ip
            self._session = Session(
                client_ip=ip,
                client_name=said.get("NAME", ""),
                peer=peer if peer != ip else "",
                listener=self._listener.name,
                helo=said.get("HELO") or self.helo,
                ident=self.ident,
                auth_user=self.user,
                tls=self._client.tls,
                esmtp=said["PROTO"].upper() == "ESMTP" if said.get("PROTO") else self.extended,
                senders_verified=self._listener.senders_verified,
                proves_senders=self._listener.senders_verified or self._listener.auth is not None,
                expander=within(ip, self._listener.expanders),
            )
        return self._session

    @property
    def ident(self) -> str:
        """By which name the peer knows the message."""
        return self._forwarded.get("IDENT", "")

    @property
    def user(self) -> str | None:
        """Who it is for certain."""
        return self._told_user if self._login is None else self._login.user

    @property
    def line(self) -> Lines | None:
        """The relay connection that it has to itself, if it has."""
        return None if self._login is None else self._login.line

    def lacks(self) -> Reply | None:
        """What must come before mail may."""
        tls, auth = self._listener.tls, self._listener.auth
        in_clear = tls is not None and not self._client.tls
        if tls is not None and tls.required and in_clear:
            return reply.TLS_FIRST
        if auth is None or not auth.required or self.user is not None:
            return None
        return reply.TLS_FIRST if in_clear and not auth.without_tls else reply.LOGIN_FIRST

    def mechanisms(self, relay: Mapping[str, str]) -> tuple[str, ...]:
        """What it may log in with, here and now, at a relay that offers this."""
        auth = self._listener.auth
        if auth is None or self._desk.logins is None or self.user is not None:
            return ()
        if not self._client.tls and not auth.without_tls:
            return ()
        return sasl.mechanisms(relay.get("AUTH", ""))

    # what comes

    def greeted(self, helo: str, *, extended: bool) -> None:
        self.helo, self.extended, self._session = helo, extended, None

    def forward(self, argument: bytes) -> None:
        """XFORWARD. Raises Refused."""
        if not self._client.trusted:
            raise grammar.Refused(reply.NOT_AUTHORIZED)
        self._forwarded |= grammar.parse_xforward(argument)
        self._session = None

    def transaction_over(self) -> None:
        if self._forwarded:
            self._forwarded, self._session = {}, None

    def speak_for(self, argument: bytes) -> Reply | None:
        """XCLIENT: the session is another's from now on. Why that client cannot be served, if it cannot. Raises Refused."""
        if not self._client.trusted:
            raise grammar.Refused(reply.NOT_AUTHORIZED)
        told = parse_xclient(argument)
        self.log_out()
        if told.address is not None:  # somebody else: nothing of what was said before is said of them
            self._told, self._told_user = {}, None
        self._told |= told.session
        if told.login is not None:
            self._told_user = told.login or None
        if told.address is None and told.login is None:
            return None
        return self._client.become(told.address)

    async def log_in(self, argument: bytes, relay: Mapping[str, str]) -> Reply:
        """AUTH: the relay's answer. Raises Refused."""
        auth, logins = self._listener.auth, self._desk.logins
        if not self._client.tls and (auth is None or not auth.without_tls):
            raise grammar.Refused(reply.ENCRYPTION_FOR_AUTH)
        if auth is None or logins is None:  # who sends is for the MTA in front to know
            raise grammar.Refused(reply.NOT_IMPLEMENTED)
        if self._login is None:
            self._login = Login(self._client, logins, ask=self._challenge, lost=self._relay_parted)
        answer = await self._login.attempt(argument, self.mechanisms(relay))
        self._session = None
        return answer

    def log_out(self) -> None:
        if self._login is not None:
            self._login.close()
            self._login = self._session = None

    def _relay_parted(self) -> None:
        """From a client that logged in: as the relay itself would have."""
        self._client.part_after(reply.RELAY_PARTED)


# XCLIENT, as a trusted peer says it of the client that it speaks for (Postfix's XCLIENT_README).
#
# From there on the connection is that client's, with that client's rights: what it says itself must not be taken for the
# peer's word. So an XCLIENT that names an address or a login is the last, unless that address is trusted as well.


_VALUE = CLIENT_VALUE | {
    "LOGIN": re.compile(r"[^\x00-\x20\ufffd]{1,255}\Z"),
    "DESTADDR": CLIENT_VALUE["ADDR"],
    "DESTPORT": CLIENT_VALUE["PORT"],
}
_SESSION = ("NAME", "HELO", "PROTO")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """``address`` and ``login``: None where nothing was said of it, "" where it is not known. ``session``: the attributes that
    identify it besides, as XFORWARD has them."""

    address: str | None
    login: str | None
    session: dict[str, str]


def parse_xclient(argument: bytes) -> Told:
    """Raises grammar.Refused."""
    given = parse_attributes(argument, _VALUE)
    address, login = given.get("ADDR"), given.get("LOGIN")
    if login is not None and not login.isprintable():
        raise Refused(reply.BAD_PARAMETER)
    return Told(
        address=address.upper().removeprefix("IPV6:").lower() if address is not None else None,
        login=login,
        session={name: given[name] for name in _SESSION if name in given},
    )
