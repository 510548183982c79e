"""The client's identity: its HELO, what a trusted peer says of it (XFORWARD, XCLIENT), and its login (AUTH).

They are combined into what the guard sees (mail.envelope.Session). XFORWARD is for one transaction, XCLIENT until the
next one, a login until the end or STARTTLS.

The relay gets XFORWARD too, so that it logs the client instead of us (Postfix's XFORWARD_README). Since it is for one
transaction, every transaction sends all attributes again, also that one is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smtpguard.mail import reply
from smtpguard.mail.envelope import Session, client_address, client_network, within
from smtpguard.mail.reply import Reply
from smtpguard.wire import sasl
from smtpguard.wire.grammar import Refused
from smtpguard.wire.listener import Listener
from smtpguard.wire.xforward import parse_xclient, parse_xforward, xforward_lines


class Identity:
    """One client's identity. ``peer_ip``: the address that connected; ``client_ip``: the address it speaks for
    (XCLIENT). ``helo``: its name, "" before HELO; ``extended``: it said EHLO. ``trusted``: it may use XFORWARD and
    XCLIENT."""

    def __init__(
        self, listener: Listener, address: str, *, trusted: bool, tls: bool = False, logins: bool = False
    ) -> None:
        """``logins``: clients can log in at all."""
        self.client_ip = self.peer_ip = address
        self.trusted, self.tls = trusted, tls
        self.helo, self.extended = "", False
        self._listener, self._logins = listener, logins
        self._forwarded: dict[str, str] = {}
        self._xclient: dict[str, str] = {}
        self._xclient_user: str | None = None
        self._login_user: str | None = None
        self._session: Session | None = None
        self._xforward: tuple[Session | None, str, Sequence[bytes]] = None, "", ()

    # queries

    @property
    def session(self) -> Session:
        """The session as the guard sees it. A trusted peer's statements win over our own observation."""
        if self._session is None:
            said = {**self._xclient, **self._forwarded}
            address = client_address(said.get("ADDR", ""))
            ip = str(address or self.client_ip)
            self._session = Session(
                client_ip=ip,
                client_name=said.get("NAME", ""),
                peer=self.peer_ip if self.peer_ip != ip else "",
                listener=self._listener.name,
                helo=said.get("HELO") or self.helo,
                ident=self._forwarded.get("IDENT", ""),
                auth_user=self.user,
                tls=self.tls,
                esmtp=said["PROTO"].upper() == "ESMTP" if said.get("PROTO") else self.extended,
                senders_verified=self._listener.senders_verified,
                mta_login=self._listener.senders_verified and self._login_user is not None,
                proves_senders=self._listener.senders_verified or self._listener.auth is not None,
                expander=within(ip, self._listener.expanders),
            )
        return self._session

    def xforward(self, offered: str) -> Sequence[bytes]:
        """Return the lines of ``xforward_lines``. They are kept: it precedes every MAIL, and a client sends many messages."""
        session, kept_for, lines = self._xforward
        if session is not self.session or kept_for != offered:
            lines = xforward_lines(self.session, offered)
            self._xforward = self.session, offered, lines
        return lines

    @property
    def user(self) -> str | None:
        return self._login_user or self._xclient_user

    @property
    def counted_as(self) -> str:
        """The client under which relay connections are counted, "" for none."""
        return "" if self.trusted else client_network(self.client_ip)

    def lacks(self) -> Reply | None:
        """Return the reply that asks for what must come before mail; None if nothing is missing."""
        tls, auth = self._listener.tls, self._listener.auth
        in_clear = tls is not None and not self.tls
        if tls is not None and tls.required and in_clear:
            return reply.TLS_FIRST
        if auth is None or not auth.required or self.user is not None:
            return None
        return reply.TLS_FIRST if in_clear and not auth.without_tls else reply.LOGIN_FIRST

    def mechanisms(self, relay: Mapping[str, str]) -> tuple[str, ...]:
        """Return the mechanisms with which the client may log in now, at a relay that offers this."""
        auth = self._listener.auth
        if auth is None or not self._logins or self.user is not None:
            return ()
        if not self.tls and not auth.without_tls:
            return ()
        return sasl.mechanisms(relay.get("AUTH", ""))

    def check_may_log_in(self) -> None:
        """Raise Refused if the client may not log in."""
        auth = self._listener.auth
        if not self.tls and (auth is None or not auth.without_tls):
            raise Refused(reply.ENCRYPTION_FOR_AUTH)
        if auth is None or not self._logins:  # the MTA in front knows who sends
            raise Refused(reply.NOT_IMPLEMENTED)

    # commands

    def greeted(self, helo: str, *, extended: bool) -> None:
        self.helo, self.extended, self._session = helo, extended, None

    def secured(self) -> None:
        self.tls, self._session = True, None

    def logged_in(self, user: str | None) -> None:
        self._login_user, self._session = user, None

    def forward(self, argument: bytes) -> None:
        """XFORWARD. Raises Refused."""
        if not self.trusted:
            raise Refused(reply.NOT_AUTHORIZED)
        self._forwarded |= parse_xforward(argument)
        self._session = None

    def transaction_over(self) -> None:
        if self._forwarded:
            self._forwarded, self._session = {}, None

    def speak_for(self, argument: bytes) -> bool:
        """XCLIENT: the session is another client's from now on, with that client's rights. Returns whether it is
        another's. Raises Refused."""
        if not self.trusted:
            raise Refused(reply.NOT_AUTHORIZED)
        address, login, session = parse_xclient(argument)
        self.logged_in(None)
        if address is not None:  # another client: earlier attributes do not apply to it
            self._xclient, self._xclient_user = {}, None
            self.client_ip = str(client_address(address) or "")
        self._xclient |= session
        if login is not None:
            self._xclient_user = login or None
        if address is None and login is None:
            return False
        self.trusted = bool(address) and within(self.client_ip, self._listener.trust)
        return True
