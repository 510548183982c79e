"""Open a session with the relay: greeting, EHLO, STARTTLS, AUTH (RFC 5321 section 3.2, RFC 3207, RFC 4954).

If a configured step is impossible, nothing is sent: TLS that is required, a certificate that does not verify, a login
that fails. No error contains a user name or a password.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address

from smtpguard.mail.envelope import Lost
from smtpguard.mail.reply import Reply
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget, Tls

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""The longest wait for a session with one host while there is another host to try."""
AVOID_SECONDS = 60.0
"""For so long a host that failed is tried only after all others."""


class _NoTls(Exception):
    """STARTTLS was offered and failed: this connection is unusable, but another one without TLS may work."""


def tls_context(target: RelayTarget) -> ssl.SSLContext | None:
    """The TLS context for the relay, None for no TLS. Reads the files, so call it once for a target."""
    if target.tls is Tls.NONE:
        return None
    if _must_encrypt(target) or target.ca_file is not None:
        context = ssl.create_default_context(cafile=target.ca_file)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities, which take 1 MB
    if not _must_encrypt(target):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # RFC 7435: unverified TLS is better than plain text
    if target.client_certificate is not None:
        context.load_cert_chain(target.client_certificate, target.client_key)
    return context


class Route:
    """The relay and its fallbacks: a session is opened with the first host that answers (RFC 5321 section 5.1).

    Reads the TLS files when it is made; raises OSError.
    """

    def __init__(self, target: RelayTarget) -> None:
        self._reachability, self._chunking = target.reachability, target.chunking
        self._hosts = [(host, tls_context(host)) for host in (target, *target.fallbacks)]
        self.context = self._hosts[0][1]
        """The TLS context of the relay itself."""
        self._avoided = dict.fromkeys(range(len(self._hosts)), 0.0)

    async def open(self) -> RelayConnection:
        """A session ready for MAIL. Raises the last host's RelayUnavailable."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            connection = await self._first(loop)
        except RelayUnavailable as error:
            error.took_seconds = loop.time() - began
            if self._reachability is not None:
                self._reachability.lost(error.why)
            raise
        connection.chunking = self._chunking and "CHUNKING" in connection.extensions
        if (known := self._reachability) is not None:
            known.reached(connection.extensions)
            connection.chunking &= not known.no_chunks
            connection.on_chunk_refused = known.refuses_chunks
        return connection

    async def _first(self, loop: asyncio.AbstractEventLoop) -> RelayConnection:
        *others, last = sorted(self._avoided, key=lambda n: (self._avoided[n] > loop.time(), n))
        for n in others:
            target, context = self._hosts[n]
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    return await _try_host(target, context)
            except (RelayUnavailable, TimeoutError) as error:
                if self._avoided[n] <= loop.time():
                    why = error.why if isinstance(error, RelayUnavailable) else f"not ready in {PATIENCE_SECONDS:g} s"
                    log.warning("%s port %d cannot be used, the next relay is tried: %s", target.host, target.port, why)
                self._avoided[n] = loop.time() + AVOID_SECONDS
        return await _try_host(*self._hosts[last])


async def open_connection(target: RelayTarget) -> RelayConnection:
    """A single session, ready for MAIL. Raises RelayUnavailable, and OSError for a TLS file."""
    return await Route(target).open()


async def _try_host(target: RelayTarget, context: ssl.SSLContext | None) -> RelayConnection:
    try:
        try:
            return await _open_session(target, context)
        except _NoTls as error:
            if _must_encrypt(target):
                raise RelayUnavailable(f"TLS failed: {error}") from error
            return await _open_session(target, None)
    except RelayUnavailable:
        raise
    except Lost as lost:
        raise RelayUnavailable(f"opening a session: {lost.__cause__}") from lost
    except (OSError, ValueError) as error:  # ValueError: no host name
        raise RelayUnavailable(f"connecting to {target.host} port {target.port}: {_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    """Return the error in words. asyncio adds the address to the text of connect(2)'s error; the caller logs it already."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else error.strerror or str(error)  # below 0: of getaddrinfo
    return str(error) or ("the connection was lost" if isinstance(error, ConnectionError) else "timed out")


async def _open_session(target: RelayTarget, context: ssl.SSLContext | None) -> RelayConnection:
    connection = await _connect_host(target)
    try:
        await _introduce(connection, target, context)
    except BaseException:
        connection.abort("the session could not be opened")
        raise
    return connection


async def _connect_host(target: RelayTarget) -> RelayConnection:
    """Connect to the first address of the host that takes a connection; each may take its share of the time that is
    left. The name is looked up here: create_connection, once it is cancelled, leaves the question behind, whose error is then logged as
    one that nobody handled."""
    time, refused = asyncio.get_running_loop().time, OSError(f"{target.host} has no address")
    until = time() + target.timeouts.connect
    try:
        async with asyncio.timeout_at(until):
            found = await _addresses(target.host, target.port)
    except TimeoutError:
        raise RelayUnavailable(f"looking up the name {target.host}: timed out") from None
    for left, address in zip(range(len(found), 0, -1), found, strict=True):
        try:
            return await _connect(target, address, (until - time()) / left)
        except OSError as error:
            refused = error
    raise refused


async def _connect(target: RelayTarget, address: str, seconds: float) -> RelayConnection:
    """Raises OSError."""
    async with asyncio.timeout(seconds):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: RelayConnection(target.timeouts, deaf=target.tls is Tls.IMPLICIT), address, target.port
        )
    return connection


async def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a name, or the address itself: uvloop would drop its zone, as in fe80::1%eth0. Raises OSError."""
    with suppress(ValueError):
        return [str(ip_address(host))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def _introduce(connection: RelayConnection, target: RelayTarget, context: ssl.SSLContext | None) -> None:
    if target.tls is Tls.IMPLICIT and context is not None:
        await _encrypt(connection, target, context)
    greeting = await connection.greeting()
    if greeting.code != 220:
        raise RelayUnavailable(f"the relay greets with {greeting}")
    _note_name(connection, greeting)
    offered = await _hello(connection, target)
    if context is not None and not connection.tls and "STARTTLS" in offered:
        try:
            reply = await connection.ready_for_tls()
        except Lost as lost:
            raise _NoTls(str(lost.__cause__)) from lost
        if reply.code == 220:
            await _encrypt(connection, target, context)
            offered = await _hello(connection, target)  # RFC 3207 section 4.2: the offer in plain text is discarded
        elif _must_encrypt(target):
            raise RelayUnavailable(f"the relay answers STARTTLS with {reply}")
    if not connection.tls and _must_encrypt(target):
        raise RelayUnavailable("TLS is required and the relay does not offer STARTTLS")
    if target.user is not None and target.password is not None:
        await _log_in(connection, offered, target.user, target.password)
    connection.begun(offered)


async def _encrypt(connection: RelayConnection, target: RelayTarget, context: ssl.SSLContext) -> None:
    transport = connection.take_transport()
    try:
        secured = await asyncio.get_running_loop().start_tls(
            transport,
            connection,
            context,
            server_hostname=target.server_name or target.host,
            ssl_handshake_timeout=target.timeouts.connect,
        )
    except OSError as error:  # ssl.SSLError and TimeoutError among them
        if isinstance(error, ssl.SSLCertVerificationError) and target.ca_file is not None:
            with suppress(OSError):  # it may name another authority by now: the next connection trusts it
                context.load_verify_locations(target.ca_file)
        raise _NoTls(_in_words(error)) from error
    if secured is None:
        raise _NoTls("the connection was lost")
    connection.secured(secured)


async def _hello(connection: RelayConnection, target: RelayTarget) -> Mapping[str, str]:
    helo = target.helo.encode("ascii")
    reply = await connection.command(b"EHLO " + helo)
    if reply.code == 250:
        _note_name(connection, reply)
        return _keywords(reply)
    if reply.permanent:  # RFC 5321 section 3.2: a relay of 1982
        reply = await connection.command(b"HELO " + helo)
        if reply.code == 250:
            return {}
    raise RelayUnavailable(f"the relay answers EHLO with {reply}")


def _note_name(connection: RelayConnection, reply: Reply) -> None:
    """Note the name of the relay, which is the first word of this reply (RFC 5321 section 4.2)."""
    name = next(iter(reply.lines[0].split()), "").rstrip(".").lower() if reply.lines else ""
    if name and name not in connection.announced:
        connection.announced = (*connection.announced, name)


def _keywords(reply: Reply) -> Mapping[str, str]:
    offered: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.strip().replace("=", " ", 1).partition(" ")  # "AUTH=LOGIN": before RFC 4954
        if keyword:
            known = offered.get(keyword.upper(), "")
            offered[keyword.upper()] = f"{known} {parameters}".strip()
    return offered


async def _log_in(connection: RelayConnection, offered: Mapping[str, str], user: str, password: str) -> None:
    mechanisms = offered.get("AUTH", "").upper().split()
    if "PLAIN" in mechanisms:
        reply = await connection.command(b"AUTH PLAIN " + _base64(f"\x00{user}\x00{password}"))
    elif "LOGIN" in mechanisms:
        reply = await connection.command(b"AUTH LOGIN")
        for secret in (user, password):
            if reply.code == 334:
                reply = await connection.command(_base64(secret))
    else:
        raise RelayUnavailable("the relay offers neither AUTH PLAIN nor AUTH LOGIN")
    if reply.code != 235:
        raise RelayUnavailable(f"the relay refuses the login with {reply.code}")


def _base64(text: str) -> bytes:
    return base64.b64encode(text.encode())


def _must_encrypt(target: RelayTarget) -> bool:
    return target.tls in (Tls.REQUIRE, Tls.IMPLICIT) or target.password is not None
