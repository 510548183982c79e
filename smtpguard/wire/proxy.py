"""The passage of one transaction to the relay, cut-through (RFC 5321 section 3.3, RFC 2920, XFORWARD).

MAIL is answered by us. The relay connection is taken when the first RCPT comes, so that a client without recipients
holds none; MAIL goes before that RCPT, in one write if the relay offers PIPELINING. RCPTs are passed on as they come,
several at once if the client sent several, and the relay's answers are the client's. If the relay refuses MAIL, every
recipient is refused, in the relay's words.

The connection may be lost before the content is sent: the relay closed it, or it was given to others while the client
was slow. Then MAIL and the accepted RCPTs are repeated on another one; if any answer differs from what the client saw,
the passage is broken, and the client is told to try again later.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol

from smtpguard.mail import reply
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Body, Envelope, Session
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Fence, Lost
from smtpguard.wire.data import Arrived
from smtpguard.wire.grammar import Rcpt, mail_line, rcpt_line
from smtpguard.wire.listener import RateCheck
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.turnedaway import Why
from smtpguard.wire.xforward import xforward

AFTER_DOT_SECONDS = 30.0
"""The wait for a connection once the client waits for the reply to its final dot. Deciding and the relay's own reply
may take long as well; RFC 5321 section 4.5.3.2.6 has ten minutes for all of it."""


class Lines(Protocol):
    """The source of connections to the relay: the pool, or a logged-in client's own connection."""

    @property
    def pressed(self) -> bool:
        """Whether others wait for an idle connection."""

    async def acquire(
        self, client: str = "", *, fresh: bool = False, wait_seconds: float | None = None
    ) -> RelayConnection: ...
    def release(self, connection: RelayConnection) -> None: ...
    def discard(self, connection: RelayConnection) -> None: ...


class Passage:
    """One transaction at the relay; an ``Onward`` once its content is there. For one task at a time, except ``park``."""

    def __init__(
        self,
        pool: Lines,
        session: Session,
        mail: Envelope,
        *,
        ident: str = "",
        client: str = "",
        gone: Callable[[], bool] = lambda: False,
        here: Callable[[Address], Reply | None] = lambda address: None,
        choose: Callable[[Address], Lines | None] | None = None,
        rate_check: RateCheck | None = None,
    ) -> None:
        """``client``: the client for whom connections are counted, "" for none; ``ident``: the client's id of the message.
        ``choose``: see routing.Choice; None: all recipients go over ``pool``."""
        self._choose, self._rate_check, self._counted = choose, rate_check, False
        self._here, self._client = here, client
        self.why = Why.RECIPIENT_REFUSED
        """Why a recipient was refused."""
        self.broken: Reply | None = None
        """Why the transaction cannot go on."""
        self.refused: Reply | None = None
        """The relay's refusal of MAIL, as the reply for each recipient."""
        self.content: Arrived | None = None
        self._pool, self._session, self._mail, self._ident, self._gone = pool, session, mail, ident, gone
        self._connection: RelayConnection | None = None
        self._accepted: list[tuple[Rcpt, Reply]] = []

    def ask(self, asks: Sequence[Rcpt]) -> Coroutine[Any, Any, list[Reply]]:
        """The relay's replies to RCPTs; a 451 for each without a relay. Addresses of the guard, and recipients above a rate
        limit, are answered here."""
        ours = [self._own(recipient.address) for recipient, _ in asks]
        return self._ask_with_ours(asks, ours) if any(ours) else self._ask_relays(asks)

    async def _ask_with_ours(self, asks: Sequence[Rcpt], ours: Sequence[Reply | None]) -> list[Reply]:
        others = [ask for ask, own in zip(asks, ours, strict=True) if own is None]
        said = iter(await self._ask_relays(others) if others else ())
        return [own if own is not None else next(said) for own in ours]

    def _own(self, address: Address) -> Reply | None:
        said = self._here(address)
        if said is None and self._rate_check is not None:
            said = self._rate_check(self._session, not self._counted)
            self._counted = self._counted or said is None
        return said

    def _ask_relays(self, asks: Sequence[Rcpt]) -> Coroutine[Any, Any, list[Reply]]:
        return self._ask_or_break(asks) if self._choose is None else self._ask_routes(asks, self._choose)

    async def _ask_routes(self, asks: Sequence[Rcpt], choose: Callable[[Address], Lines | None]) -> list[Reply]:
        routes = [choose(recipient.address) for recipient, _ in asks]
        answers = [reply.INTERNAL_ERROR] * len(asks)  # for recipients whose route is unknown
        for route in dict.fromkeys(route for route in routes if route is not None):
            numbers = [n for n, its in enumerate(routes) if its is route]
            if route is not self._pool and not self._accepted:
                self._turn_to(route)
            if route is self._pool:
                answered = await self._ask_or_break([asks[n] for n in numbers])
            else:
                answered = [reply.OTHER_ROUTE] * len(numbers)
            for n, answer in zip(numbers, answered, strict=True):
                answers[n] = answer
        return answers

    @property
    def pressed(self) -> bool:
        """Whether others wait for a connection to its relay."""
        return self._pool.pressed

    def _turn_to(self, route: Lines) -> None:
        """Begin the transaction again at another relay. Only while no recipient is accepted."""
        self.close()
        self._pool = route
        self.broken = self.refused = None
        self.why = Why.RECIPIENT_REFUSED

    async def _ask_or_break(self, asks: Sequence[Rcpt]) -> list[Reply]:
        if self.broken is None and self.refused is None:
            try:
                return await self._ask(asks, fresh=False)
            except RelayUnavailable as unavailable:
                self.broken, self.why = unavailable.reply, unavailable.word
            except Lost:
                try:
                    if self.broken is None:
                        return await self._ask(asks, fresh=True)
                except RelayUnavailable as unavailable:
                    self.broken, self.why = unavailable.reply, unavailable.word
                except Lost as lost:
                    self.broken, self.why = lost.reply, Why.RELAY_LOST
        answer = self.broken or self.refused
        assert answer is not None
        return [answer] * len(asks)

    def park(self) -> None:
        """Give the connection to others while the client is slow. Accepted commands are repeated when needed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)

    close = park
    """The transaction is over, at the relay too."""

    # Onward

    def begin(self) -> None:
        """See mail.transaction.Onward. By BDAT there is nothing to ask."""
        connection = self._connection
        if connection is not None and connection.usable and not connection.chunking:
            connection.begin_data()

    async def send(self, prepend: bytes, fence: Fence) -> tuple[Reply, ...]:
        """See mail.transaction.Onward. If the client has disconnected, the fence counts as refused: nobody would get
        the reply."""

        async def stands() -> bool:
            return await fence() and not self._gone()

        fresh = False
        try:
            while True:
                try:
                    if self.broken is not None:
                        raise Lost(self.broken)
                    if self._connection is None or fresh:
                        await self._ask((), fresh=fresh)
                        if self.refused is not None:
                            return (self.refused,)
                    assert self._connection is not None
                    connection, content = self._connection, self.content
                    if connection.chunking and content is not None:
                        return (await connection.chunk(prepend, content.message.raw, stands),)
                    return (await connection.data(self._octets(prepend), stands),)
                except RelayUnavailable:
                    raise
                except Lost as lost:
                    if fresh or lost.after_dot or self.broken is not None:
                        raise
                    fresh = True  # no dot was sent, so no message was
        finally:
            self.close()

    async def abandon(self) -> None:
        self.close()

    # within

    def _octets(self, prepend: bytes) -> Iterable[bytes]:
        if self.content is None:
            return (prepend,)
        stuffed = self.content.stuffed
        return (prepend, stuffed) if isinstance(stuffed, bytes) else chain((prepend,), self.content.pieces())

    async def _ask(self, asks: Sequence[Rcpt], *, fresh: bool) -> list[Reply]:
        """Raises Lost. On a new connection MAIL and all accepted RCPTs go first."""
        connection = self._connection
        head: tuple[bytes, ...] = ()
        again: list[tuple[Rcpt, Reply]] = []
        if connection is None or fresh:
            if connection is not None:
                self.close()
            wait_seconds = AFTER_DOT_SECONDS if self.content is not None else None
            connection = await self._pool.acquire(self._client, fresh=fresh, wait_seconds=wait_seconds)
            self._connection = connection
            again = self._accepted
            self._check_offer(connection.extensions, [*(ask for ask, _ in again), *asks] if again else asks)
            head = (
                *_xforward(self._session, connection.extensions.get("XFORWARD"), self._ident),
                mail_line(self._mail, connection.extensions),
            )
        lines = list(head)
        for recipient, path in (*(ask for ask, _ in again), *asks) if again else asks:
            lines.append(rcpt_line(recipient, connection.extensions, path))
        try:
            replies = await connection.pipeline(lines)
            for said in replies:
                if said.code == 421:  # the relay closes this connection, not our client's
                    raise Lost(reply.RELAY_LOST)
        except Lost:
            self._pool.discard(connection)
            self._connection = None
            raise
        at = len(head)
        if at and not replies[at - 1].positive:
            return self._refuse(replies[at - 1], asks)
        for _, seen in again:
            if replies[at].code != seen.code:
                self._break()
            at += 1
        if at:
            replies = replies[at:]
        for ask, said in zip(asks, replies, strict=True):
            if said.positive:
                self._accepted.append((ask, said))
        return replies

    def _refuse(self, said: Reply, asks: Sequence[Rcpt]) -> list[Reply]:
        """The relay refuses MAIL. The client is told if none of its recipients was accepted yet; else the passage is
        broken."""
        if self._accepted:
            self._break()
        if said.code == 552:  # as a reply to RCPT it would mean 452, to be retried (RFC 5321 section 4.5.3.1.10)
            said = Reply(554, said.lines)
        self.refused, self.why = said, Why.SENDER_REFUSED
        self.close()
        return [said] * len(asks)

    def _check_offer(self, offered: Mapping[str, str], asks: Sequence[Rcpt]) -> None:
        """The relay must still offer the extensions that the client was offered and uses."""
        mail = self._mail
        if (
            (mail.smtputf8 and "SMTPUTF8" not in offered)
            or (mail.body is Body.EIGHTBITMIME and "8BITMIME" not in offered)
            or ("DSN" not in offered and (mail.ret or mail.envid or any(r.notify or r.orcpt for r, _ in asks)))
        ):
            self._break()

    def _break(self) -> None:
        self.broken, self.why = reply.RELAY_LOST, Why.RELAY_LOST
        self.close()
        raise Lost(self.broken)


@lru_cache(maxsize=256)
def _xforward(session: Session, offered: str | None, ident: str) -> tuple[bytes, ...]:
    """Cached: it precedes every MAIL, and a client sends many messages."""
    return () if offered is None else tuple(xforward(session, {"XFORWARD": offered}, ident))
