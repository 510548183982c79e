"""Pass a mail client's login on to the relay, and give the client that relay connection for itself (RFC 4954).

The client is asked for everything that its mechanism takes. Then the relay is asked, and its answer goes to the client
word for word. If the relay accepts, the client's mail goes over that connection, under that name.

Nothing of a login is kept once it is answered. So a connection that the relay ends is not opened again in the client's
name: the client gets 421, as it would from the relay itself, and logs in again. A password that is not stored cannot
leak, a token may have expired, and a login happens only if the client asks for it. Secrets are in buffers that are
overwritten; the copies of the line reader, of TLS and of the command to the relay are left to Python's memory
management. No error and no log line contains a name or a secret.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from smtpguard.mail import reply
from smtpguard.mail.envelope import Lost
from smtpguard.mail.reply import Reply
from smtpguard.wire import sasl
from smtpguard.wire.grammar import Refused
from smtpguard.wire.guesses import Guesses
from smtpguard.wire.handshake import Route
from smtpguard.wire.identity import Identity
from smtpguard.wire.pool import RelayPool, Reservation
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.turnedaway import Why

log = logging.getLogger("smtpguard.wire")

_ROUNDS = 2  # challenges in which a relay gives the reason for refusing a token


class Logins:
    """Shared by the logins of one process. Reads the TLS files when made.

    Their connections count in the pool's limit; each belongs to its client until it is closed.
    """

    def __init__(
        self,
        pool: RelayPool,
        guesses: Guesses,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.guesses, self.sleep = guesses, sleep
        self._pool = pool
        self._target = pool.target.for_clients()
        self._route = Route(self._target)
        self.context = self._route.context

    async def connect(self, client: str = "") -> tuple[RelayConnection, Reservation]:
        """A connection for one client, over which its credentials may go, and its place, to be freed when it is closed.
        ``client``: the client it is counted for, "" for none. Raises Lost."""
        place, seconds = await self._pool.place(client), self._target.wait_seconds
        try:
            async with asyncio.timeout(seconds):
                connection = await self._route.open()
        except TimeoutError:
            place.free()
            raise RelayUnavailable(f"no connection within {seconds:g} s", word=Why.RELAY_SLOW) from None
        except BaseException:
            place.free()
            raise
        connection.on_lost = lambda _: place.free()
        if not connection.usable:
            place.free()
        return connection, place


class OwnLine:
    """One client's connection to the relay, for one transaction after another (proxy.Lines). It is not replaced when
    lost."""

    pressed = False

    def __init__(self, connection: RelayConnection) -> None:
        self._connection = connection
        self._reset = asyncio.Event()
        self._reset.set()

    def at_once(self, client: str = "") -> RelayConnection | None:
        return self._connection if self._connection.clean else None

    async def acquire(
        self, client: str = "", *, fresh: bool = False, wait_seconds: float | None = None
    ) -> RelayConnection:
        """Raises RelayUnavailable once it is lost."""
        await self._reset.wait()
        if fresh or not self._connection.usable:
            raise RelayUnavailable("the client's own connection was lost", reply.RELAY_LOST, word=Why.RELAY_LOST)
        return self._connection

    def release(self, connection: RelayConnection) -> None:
        if connection.in_data:
            self.discard(connection)
        elif connection.usable and not connection.clean:
            self._reset.clear()
            connection.reset(self._was_reset)

    def discard(self, connection: RelayConnection) -> None:
        connection.abort("discarded")

    def _was_reset(self, clean: bool) -> None:
        if not clean:
            self._connection.abort("would not be reset")
        self._reset.set()


@dataclass(slots=True)
class _Credentials:
    """``responses`` as sent over the line, in Base64."""

    mechanism: str
    user: str = field(repr=False)
    responses: list[bytearray] = field(repr=False)

    @property
    def secret(self) -> bytearray:
        return self.responses[-1]


class Login:
    """One client's logins. ``user``: whom the relay has accepted, over ``line``.

    ``respond``: returns the client's response to a challenge, a line with its end, None if it is too long. ``lost`` is
    called once if the relay ends the connection of a logged-in client.
    """

    def __init__(
        self, who: Identity, respond: Callable[[Reply], Awaitable[bytes | None]], logins: Logins, *,
        lost: Callable[[], None],
    ) -> None:  # fmt: skip
        self.user: str | None = None
        self.line: OwnLine | None = None
        self._who, self._respond, self._logins, self._lost = who, respond, logins, lost
        self._connection: RelayConnection | None = None
        self._place: Reservation | None = None

    async def attempt(self, argument: bytes, offered: tuple[str, ...]) -> Reply:
        """The answer to AUTH with this argument: the relay's, 421 if it closes the connection; or a refusal of ours."""
        try:
            mechanism, initial = sasl.parse_auth(argument)
            if mechanism not in offered:
                raise Refused(reply.UNKNOWN_MECHANISM)
            credentials = await self._read_credentials(mechanism, initial)
        except Refused as refused:
            return refused.reply
        try:
            return await self._answer(credentials)
        finally:
            sasl.wipe(credentials.responses)

    def close(self) -> None:
        """The client has disconnected, or is another one now."""
        self.user = self.line = None
        self._part()

    def _part(self) -> None:
        connection, place, self._connection = self._connection, self._place, None
        if connection is not None and place is not None:
            connection.on_lost = lambda _: place.free()
            connection.quit()

    # the client's side

    async def _read_credentials(self, mechanism: str, initial: bytes | None) -> _Credentials:
        responses: list[bytearray] = []
        try:
            responses.append(
                bytearray(initial)
                if initial is not None
                else await self._ask_client(b"VXNlcm5hbWU6" if mechanism == "LOGIN" else b"")
            )
            plain = sasl.decoded(bytes(responses[0]))
            try:
                user = sasl.who(mechanism, plain)
            finally:
                sasl.wipe((plain,))
            if mechanism == "LOGIN":
                responses.append(await self._ask_client(b"UGFzc3dvcmQ6"))
                sasl.wipe((sasl.decoded(bytes(responses[1])),))
        except BaseException:
            sasl.wipe(responses)
            raise
        return _Credentials(mechanism, user, responses)

    async def _ask_client(self, challenge: bytes) -> bytearray:
        """The client's response, in Base64. Raises Refused, also if it cancels."""
        line = await self._respond(Reply(334, (challenge.decode("ascii"),)))
        if line == b"*\r\n":
            raise Refused(reply.AUTH_CANCELLED)
        if line is None or len(line) > sasl.MAX_RESPONSE:
            raise Refused(reply.AUTH_LINE_TOO_LONG)
        if not line.endswith(b"\r\n"):
            raise Refused(reply.BAD_BASE64)
        return bytearray(line[:-2])

    # the relay's side

    async def _answer(self, credentials: _Credentials) -> Reply:
        guesses = self._logins.guesses
        address = self._who.counted_as
        seconds = guesses.wait(address, credentials.user)
        if seconds is None:
            log.warning("too many failed logins: one from %s is not passed on", self._who.client_ip)
            return reply.TOO_MANY_LOGINS
        if seconds:
            await self._logins.sleep(seconds)
        try:
            answer = await self._pass_on(credentials, address)
        except Lost as lost:
            log.warning("a login could not be passed on: %s", lost.why if isinstance(lost, RelayUnavailable) else lost)
            self._drop()
            return reply.AUTH_UNAVAILABLE
        if answer.code == 235:
            guesses.right(address, credentials.user)
            assert self._place is not None
            if self._place.belongs_to(f"login {credentials.user}"):
                self._accepted(credentials.user)
                return answer
            log.warning(
                "one login has its share of the relay's connections: one from %s is refused", self._who.client_ip
            )
            self._part()
            return reply.AUTH_UNAVAILABLE
        self._part()  # connections to the relay are limited: a failed login must not keep one
        if answer.permanent:
            guesses.wrong(address, credentials.user, credentials.secret)
            log.info("the relay refuses a login from %s: %d", self._who.client_ip, answer.code)
        return answer

    async def _pass_on(self, credentials: _Credentials, address: str) -> Reply:
        """The relay's answer. Raises Lost."""
        connection, self._place = await self._logins.connect(address)
        self._connection = connection
        if credentials.mechanism not in sasl.mechanisms(connection.extensions.get("AUTH", "")):
            raise RelayUnavailable(f"the relay does not offer AUTH {credentials.mechanism} now")
        said = await self._exchange(connection, credentials)
        if said.code == 235 or said.transient or said.permanent:
            return said
        raise RelayUnavailable(f"the relay answers AUTH with {said.code}")

    async def _exchange(self, connection: RelayConnection, credentials: _Credentials) -> Reply:
        command = b"AUTH " + credentials.mechanism.encode("ascii")
        rest = [bytes(response) for response in credentials.responses]
        if credentials.mechanism != "LOGIN" and sasl.fits(credentials.mechanism, rest[0]):
            command += b" " + rest.pop()
        said = await connection.command(command)
        for response in rest:
            if said.code == 334:
                said = await connection.command(response)
        for _ in range(_ROUNDS):
            if said.code == 334 and credentials.mechanism in sasl.TOKENS:
                said = await connection.command(await self._pass_reason(said))
        if said.code == 334:  # it asks for more than there is
            await connection.command(b"*")
        return said

    async def _pass_reason(self, said: Reply) -> bytes:
        """The relay's challenge with the reason of a refusal goes to the client, which answers it."""
        try:
            coded = said.text.encode("ascii", "replace")
            sasl.decoded(coded)
            response = bytes(await self._ask_client(coded))
            sasl.decoded(response)
            return response
        except Refused:
            return b"*"

    def _accepted(self, user: str) -> None:
        assert self._connection is not None
        self._connection.begun(self._connection.extensions)
        self._connection.on_lost = self._was_lost
        self.user, self.line = user, OwnLine(self._connection)

    def _was_lost(self, _: RelayConnection) -> None:
        self._connection = None
        if self._place is not None:
            self._place.free()
        self._lost()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort("lost in a login")
