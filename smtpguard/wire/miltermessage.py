"""A client and a message as the packets of an MTA tell of them: the macros, the session, the envelope, the content.

The MTA has accepted each command, so parts that it allows and we cannot carry are left out: parameters that we do not
implement, missing brackets. If an address is no mailbox even after the MTA's own rewriting, it is refused, as the proxy
does. The client's identity and login are the MTA's word: it is trusted, since it is our client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from smtpguard.mail import reply
from smtpguard.mail.envelope import Envelope, Recipient, Session, client_address, within
from smtpguard.mail.reply import Reply
from smtpguard.wire import grammar
from smtpguard.wire.data import Arrived, Arriving
from smtpguard.wire.listener import Limits, Listener
from smtpguard.wire.milterpackets import Connect, Family, Macros, Mail, Rcpt
from smtpguard.wire.turnedaway import Refusals, Why

_MAIL_PARAMETERS = frozenset({b"SIZE", b"BODY", b"SMTPUTF8", b"RET", b"ENVID", b"AUTH"})
_RCPT_PARAMETERS = frozenset({b"NOTIFY", b"ORCPT"})
_MESSAGE_COMMANDS = frozenset((b"M", b"R", b"T", b"L", b"N", b"B", b"E"))
MOST_MACROS = 500


class SessionMacros:
    """The macros of a session and, apart from them, those of its current message, so that none outlives its object."""

    def __init__(self) -> None:
        self._session: dict[bytes, bytes] = {}
        self._message: dict[bytes, bytes] = {}
        self._fresh = False  # message macros received now are of a message that has not begun yet

    def learn(self, macros: Macros) -> None:
        if macros.command == b"M":
            self._keep_fresh()
            self._fresh = True
        told = self._message if macros.command in _MESSAGE_COMMANDS else self._session
        for name, value in macros.values:
            if len(told) < MOST_MACROS:
                told[_bare(name)] = value

    def begin_message(self) -> None:
        """At MAIL; its macros came just before."""
        self._keep_fresh()
        self._fresh = False

    def forget_message(self) -> None:
        self._message, self._fresh = {}, False

    def _keep_fresh(self) -> None:
        if not self._fresh:
            self._message = {}

    def get(self, name: bytes) -> str:
        """ "" if it was not given."""
        value = self._message.get(name) or self._session.get(name) or b""
        return value.decode("utf-8", "replace")


def _bare(name: bytes) -> bytes:
    return name[1:-1] if name[:1] == b"{" and name[-1:] == b"}" else name


class Client:
    def __init__(self, mta: str = "") -> None:
        """``mta``: the address of the MTA, "" on a Unix socket."""
        self.known = SessionMacros()
        self.helo = ""
        self._mta = mta
        self._connect = Connect(b"", Family.UNKNOWN)

    def connected(self, connect: Connect) -> None:
        self._connect, self.helo = connect, ""

    def greeted(self, name: bytes) -> None:
        self.helo = name.decode("utf-8", "replace")

    def session(self, listener: Listener) -> Session:
        """Return the session as it is now, with the macros of the current message."""
        ip = self._ip()
        name = self._connect.name.decode("utf-8", "replace")
        return Session(
            client_ip=ip,
            client_name="" if name.startswith("[") or name == "unknown" else name,
            peer=self._mta if self._mta != ip else "",
            listener=listener.name,
            helo=self.helo,
            ident=self.known.get(b"i"),
            auth_user=self.known.get(b"auth_authen") or None,
            tls=bool(self.known.get(b"tls_version")),
            senders_verified=listener.senders_verified,
            proves_senders=listener.senders_verified,
            expander=within(ip, listener.expanders),
        )

    def _ip(self) -> str:
        """ "" for a client without an address, on a Unix socket."""
        inet = self._connect.family in (Family.INET, Family.INET6)
        for told in (self._connect.address.decode("latin-1") if inet else "", self.known.get(b"client_addr")):
            address = client_address(told[5:] if told[:5].upper() == "IPV6:" else told)
            if address is not None:
                return str(address)
        return ""


class MilterMessage:
    """One message, from MAIL on. ``recipients`` beside the ``paths`` by which the MTA knows them. ``refused_in``: the session as it
    was when the first of them was refused, None if none was."""

    def __init__(self, mail: Mail, known: SessionMacros, listener: Listener) -> None:
        self.recipients: list[Recipient] = []
        self.paths: list[bytes] = []
        self.content = Assembling(listener.limits, listener.spool)
        self._known, self._listener = known, listener
        self.refusals = Refusals()
        self.refused_in: Session | None = None
        self._sender_refused: Reply | None = None
        self._envelope = Envelope(reverse_path=None, recipients=())
        try:
            self._envelope = _mail(mail, known.get(b"mail_addr"))
        except grammar.Refused as refused:
            self._sender_refused = refused.reply

    def rcpt(self, rcpt: Rcpt, client: Client) -> Reply | None:
        """Why this recipient cannot be carried; a refusal of the reverse-path is reported here, where it is possible."""
        if self._sender_refused is not None:
            return self._refuse(Why.BAD_ADDRESS, self._sender_refused, client)
        if len(self.recipients) >= self._listener.limits.recipients:
            return self._refuse(Why.TOO_MANY_RECIPIENTS, reply.TOO_MANY_RECIPIENTS, client)
        try:
            recipient = _rcpt(rcpt, self._known.get(b"rcpt_addr"), self._listener.hostname)
        except grammar.Refused as refused:
            return self._refuse(Why.BAD_ADDRESS, refused.reply, client)
        self.refusals.named += 1
        self.recipients.append(recipient)
        self.paths.append(rcpt.path)
        return None

    def _refuse(self, why: Why, answer: Reply, client: Client) -> Reply:
        self.refused_in = self.refused_in or client.session(self._listener)
        self.refusals.refuse(why, answer)
        return answer

    @property
    def envelope(self) -> Envelope:
        beyond_ascii = any(not r.address.is_ascii for r in self.recipients)
        return replace(
            self._envelope,
            recipients=tuple(self.recipients),
            smtputf8=self._envelope.smtputf8 or beyond_ascii,
        )

    @property
    def can_delete(self) -> bool:
        """Whether the MTA surely knows each recipient by the path that it gave. Postfix, asked to delete one that came
        with a source route, deletes none, and does not say so."""
        pairs = zip(self.paths, self.recipients, strict=True)
        return all(path in (b"<%b>" % (known := str(r.address).encode()), known) for path, r in pairs)

    def paths_of(self, some: Sequence[Recipient]) -> list[bytes]:
        """Each path once by which the MTA knows them."""
        theirs = {str(r.address) for r in some}
        pairs = zip(self.recipients, self.paths, strict=True)
        return list(dict.fromkeys(path for r, path in pairs if str(r.address) in theirs))

    async def finish(self) -> Arrived | Reply:
        """The whole content, or why it is refused."""
        try:
            self.content.whole()
            if self.content.refusal is not None:
                return self.content.refusal
            at_once = self.content.at_once()
            return at_once if at_once is not None else await asyncio.to_thread(self.content.finish)
        finally:
            self.content.close()


def _mail(mail: Mail, rewritten: str) -> Envelope:
    given = _ours(mail.parameters, _MAIL_PARAMETERS)
    if not mail.path.isascii() and b"SMTPUTF8" not in {p.upper() for p in given}:
        given.append(b"SMTPUTF8")  # of a local sender, which was not asked for it
    try:
        return grammar.parse_mail(b" ".join((b"FROM:" + _bracketed(mail.path), *given)))
    except grammar.Refused:
        if not rewritten:
            raise
        utf8 = [] if rewritten.isascii() else [b"SMTPUTF8"]
        return grammar.parse_mail(b" ".join((b"FROM:" + _bracketed(rewritten.encode()), *given, *utf8)))


def _rcpt(rcpt: Rcpt, rewritten: str, here: str) -> Recipient:
    given = _ours(rcpt.parameters, _RCPT_PARAMETERS)
    for path in (rcpt.path, rewritten.encode()):
        try:
            return grammar.parse_rcpt(
                b" ".join((b"TO:" + _bracketed(path), *given)), smtputf8=True, here=here
            )[0]  # fmt: skip
        except grammar.Refused:
            if not rewritten or path is not rcpt.path:
                raise
    raise AssertionError("one of them was parsed or refused")


def _ours(parameters: tuple[bytes, ...], known: frozenset[bytes]) -> list[bytes]:
    return [p for p in parameters if p.partition(b"=")[0].upper() in known]


def _bracketed(path: bytes) -> bytes:
    return path if path[:1] == b"<" else b"<" + path + b">"


_FIELD_OVERHEAD = 64
"""Octets that a field counts beside its own: ten thousand empty ones use memory too."""


class Assembling(Arriving):
    """Call ``field`` for each, ``end_of_header``, ``body`` for each piece, ``unload`` while ``heavy``; then ``whole``."""

    def __init__(self, limits: Limits, spool: Path) -> None:
        super().__init__(limits, spool)
        self._tail = b""
        self._fields: list[bytes] = []
        self._header = 0

    def field(self, name: bytes, value: bytes) -> None:
        """``value``: everything after the colon; its folds have LF or CRLF."""
        if self.refusal is not None:
            return
        self._header += len(name) + len(value) + _FIELD_OVERHEAD
        if self._header > self._limits.header_octets + self._limits.header_lines * _FIELD_OVERHEAD:
            self._refuse(reply.HEADER_TOO_BIG)
            return
        if b"\n" in value:
            value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._fields.append(b"%b:%b\r\n" % (name, value))

    def end_of_header(self) -> None:
        self._fields.append(b"\r\n")
        fields, self._fields = self._fields, []
        self._take(b"".join(fields))

    def body(self, piece: bytes) -> None:
        data = self._tail + piece
        cut = len(data) - data.endswith(b"\r")  # never split a CRLF
        self._tail = data[cut:]
        self._take(data[:cut])

    def whole(self) -> None:
        """The end. A last line without an end gets one, as over SMTP."""
        if self._tail or self._line:
            self._tail = b""
            self._take(b"\r\n")

    def close(self) -> None:
        self._fields, self._tail = [], b""
        super().close()
