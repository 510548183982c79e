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

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Protocol

from smtpguard.mail import reply
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Fence, Lost
from smtpguard.mail.reply import Reply
from smtpguard.wire.data import Arrived, pieces
from smtpguard.wire.grammar import NotOffered, RcptTo, mail_line, rcpt_line
from smtpguard.wire.identity import Identity
from smtpguard.wire.listener import Listener
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.turnedaway import Why

AFTER_DOT_SECONDS = 30.0
"""The wait for a connection once the client waits for the reply to its final dot. Deciding and the relay's own reply
may take long as well; RFC 5321 section 4.5.3.2.6 has ten minutes for all of it."""


Asking = Coroutine[Any, Any, list[Reply]]
"""Waits for the relay's replies."""


class Lines(Protocol):
    """The source of connections to the relay: the pool, or a logged-in client's own connection."""

    @property
    def pressed(self) -> bool:
        """Whether others wait for an idle connection."""

    def at_once(self, client: str = "") -> RelayConnection | None:
        """One that is free, without waiting."""

    async def acquire(
        self, client: str = "", *, fresh: bool = False, wait_seconds: float | None = None
    ) -> RelayConnection: ...
    def release(self, connection: RelayConnection) -> None: ...
    def discard(self, connection: RelayConnection) -> None: ...


class Passage:
    """One transaction at the relay; an ``Onward`` once its content is there. For one task at a time; ``release`` is
    for any."""

    def __init__(
        self,
        pool: Lines,
        who: Identity,
        mail: Envelope,
        listener: Listener,
        choose: Callable[[Address], Lines | None] | None,
    ) -> None:
        """``choose``: see routing.Choice; None: all recipients go over ``pool``."""
        self.why = Why.RECIPIENT_REFUSED
        """Why a recipient was refused."""
        self.broken: Reply | None = None
        """Why the transaction cannot go on."""
        self.refused: Reply | None = None
        """The relay's refusal of MAIL, as the reply for each recipient."""
        self.content: Arrived | None = None
        self._pool, self._who, self._mail, self._listener, self._choose = pool, who, mail, listener, choose
        self._counted = False  # by the rate limits
        self._connection: RelayConnection | None = None
        self._begun = False  # MAIL is on its way over this connection
        self._accepted: list[tuple[RcptTo, Reply]] = []

    def ask(self, asks: Sequence[RcptTo], answered: Callable[[list[Reply] | Asking], None]) -> Asking | None:
        """The relay's replies to RCPTs; a 451 for each without a relay. Addresses of the guard, and recipients above a rate
        limit, are answered here.

        None: a connection was there, and the relay was asked at once. ``answered`` gets the replies; or what to wait for
        instead, since the connection was lost. It gets nothing if the transaction ends before.
        """
        ours = list(map(self._our_reply, asks))
        if any(ours) or self._choose is not None:
            return self._ask_each(asks, ours)
        if self.broken is None and self.refused is None:
            if self._connection is None:
                self._connection, self._begun = self._pool.at_once(self._who.counted_as), False
            connection = self._connection
            if connection is not None and connection.pipelining:
                try:
                    lines = self._lines(connection, asks)
                    connection.ask(lines, partial(self._take_replies, connection, asks, len(lines), answered))
                except Lost:
                    return self._ask_or_break(asks)
                return None
        return self._ask_or_break(asks)

    def _take_replies(
        self,
        connection: RelayConnection,
        asks: Sequence[RcptTo],
        lines: int,
        answered: Callable[[list[Reply] | Asking], None],
        replies: list[Reply] | None,
    ) -> None:
        if self._connection is not connection:
            return
        heard: list[Reply] | Asking
        try:
            heard = self._replies_to(connection, asks, lines, connection.heard if replies is None else replies)
        except Lost as lost:
            heard = self._ask_or_break(asks, lost.heard, fresh=True)
        except Exception:  # an error of ours comes again, to whoever waits
            heard = self._ask_or_break(asks, fresh=True)
        answered(heard)

    def _our_reply(self, ask: RcptTo) -> Reply | None:
        said, rate_check = self._listener.here(ask[0].address), self._listener.rate_check
        if said is None and rate_check is not None:
            said = rate_check(self._who.session, not self._counted)
            self._counted = self._counted or said is None
        return said

    async def _ask_each(self, asks: Sequence[RcptTo], ours: Sequence[Reply | None]) -> list[Reply]:
        """Each recipient without an answer of ``ours`` at its own relay."""
        routes: list[Lines | None] = [None] * len(asks)
        answers = [own or reply.INTERNAL_ERROR for own in ours]  # that for recipients whose route is unknown
        for n, (recipient, _) in enumerate(asks):
            if ours[n] is None:
                routes[n] = self._pool if self._choose is None else self._choose(recipient.address)
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
        self.release()
        self._pool = route
        self.broken = self.refused = None
        self.why = Why.RECIPIENT_REFUSED

    async def _ask_or_break(
        self, asks: Sequence[RcptTo], heard: Sequence[Reply] = (), *, fresh: bool = False
    ) -> list[Reply]:
        """The relay's replies to ``asks``; ``heard``: those to the first of them, before a connection was lost. Each connection that is
        lost is followed by another, for the asks behind those replied to; a new one that gives no reply is the last. ``fresh``: begin
        with a new one."""
        said = list(heard)
        while len(said) < len(asks) and self.broken is None and self.refused is None:
            try:
                said += await self._ask(asks[len(said) :], fresh=fresh)
            except RelayUnavailable as unavailable:
                self.broken, self.why = unavailable.reply, unavailable.word
            except Lost as lost:
                if fresh and not lost.heard:
                    self.broken, self.why = lost.reply, Why.RELAY_LOST
                said += lost.heard
                fresh = True
        if (answer := self.broken or self.refused) is not None:
            said += [answer] * (len(asks) - len(said))
        return said

    def release(self) -> None:
        """Give the connection to others: the transaction is over, or its client is slow. Accepted commands are repeated
        when needed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)

    # Onward

    def begin(self) -> None:
        """See mail.envelope.Onward. By BDAT there is nothing to ask."""
        connection = self._connection
        if connection is not None and connection.usable and not connection.chunking:
            connection.begin_data()

    async def send(self, prepend: bytes, fence: Fence) -> tuple[Reply, ...]:
        """See mail.envelope.Onward."""
        content, fresh = self.content, False
        assert content is not None
        try:
            while True:
                try:
                    if self.broken is not None:
                        raise Lost(self.broken)
                    if self._connection is None or fresh:
                        await self._ask((), fresh=fresh)
                        if self.refused is not None:
                            return (self.refused,)
                    connection = self._connection
                    assert connection is not None
                    if connection.chunking:
                        said = await connection.chunk(prepend, content.message.raw, fence)
                    else:
                        said = await connection.data(chain((prepend,), pieces(content.stuffed)), fence)
                    # after 421 it closes this connection, not our client's
                    return (replace(said, code=451) if said.code == 421 else said,)
                except RelayUnavailable:
                    raise
                except Lost as lost:
                    if fresh or lost.after_dot or self.broken is not None:
                        raise
                    fresh = True  # no dot was sent, so no message was
        finally:
            self.release()

    async def abandon(self) -> None:
        self.release()

    # within

    async def _ask(self, asks: Sequence[RcptTo], *, fresh: bool) -> list[Reply]:
        """Raises Lost."""
        if fresh:
            self.release()
        connection = self._connection
        if connection is None:
            wait_seconds = AFTER_DOT_SECONDS if self.content is not None else None
            connection = await self._pool.acquire(self._who.counted_as, fresh=fresh, wait_seconds=wait_seconds)
            self._connection, self._begun = connection, False
        lines = self._lines(connection, asks)
        try:
            replies: Sequence[Reply] = await connection.pipeline(lines)
        except Lost as lost:
            replies = lost.heard
        return self._replies_to(connection, asks, len(lines), replies)

    def _lines(self, connection: RelayConnection, asks: Sequence[RcptTo]) -> list[bytes]:
        """The commands for ``asks``; on a new connection MAIL and all accepted RCPTs go first. The relay must offer what the
        client was offered and uses. Raises Lost."""
        offered, lines = connection.extensions, list[bytes]()
        try:
            if not self._begun:
                self._begun = True
                if self._accepted:
                    asks = [*(ask for ask, _ in self._accepted), *asks]
                if "XFORWARD" in offered:
                    lines += self._who.xforward(offered["XFORWARD"])
                lines.append(mail_line(self._mail, offered))
            for recipient, path in asks:
                lines.append(rcpt_line(recipient, offered, path))
        except NotOffered:
            self._break()
        return lines

    def _replies_to(
        self, connection: RelayConnection, asks: Sequence[RcptTo], lines: int, replies: Sequence[Reply]
    ) -> list[Reply]:
        """The replies to ``asks``, of those to all ``_lines``; if these are fewer, the connection is lost. Raises Lost, with the
        replies to the first asks."""
        for n, said in enumerate(replies):
            # after 421 it closes this connection, not our client's; 3yz has accepted nothing (RFC 5321 section 4.2.1)
            if said.intermediate or said.code == 421:
                replies = replies[:n]
                break
        first = lines - len(asks)
        lost = len(replies) < lines
        if lost:
            self._pool.discard(connection)
            self._connection = None
            if len(replies) <= first:
                raise Lost(reply.RELAY_LOST)
        if first:  # MAIL was sent
            repeated = first - len(self._accepted)
            if not replies[repeated - 1].positive:
                return self._refuse(replies[repeated - 1], asks)
            if repeated < first:
                for (_, seen), said in zip(self._accepted, replies[repeated:first], strict=True):
                    if said.code != seen.code:
                        self._break()
            replies = replies[first:]
        for ask, said in zip(asks, replies, strict=not lost):
            if said.positive:
                self._accepted.append((ask, said))
        if lost:
            raise Lost(reply.RELAY_LOST, heard=replies)
        return list(replies)

    def _refuse(self, said: Reply, asks: Sequence[RcptTo]) -> list[Reply]:
        """The relay refuses MAIL. The client is told if none of its recipients was accepted yet; else the passage is
        broken."""
        if self._accepted:
            self._break()
        if said.code == 552:  # as a reply to RCPT it would mean 452, to be retried (RFC 5321 section 4.5.3.1.10)
            said = Reply(554, said.lines)
        self.refused, self.why = said, Why.SENDER_REFUSED
        self.release()
        return [said] * len(asks)

    def _break(self) -> None:
        self.broken, self.why = reply.RELAY_LOST, Why.RELAY_LOST
        self.release()
        raise Lost(self.broken)
