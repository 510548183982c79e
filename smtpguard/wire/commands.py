"""What each SMTP command does, and in what order they may come (RFC 5321 sections 3.3, 4.1 and 4.1.4).

Here lives the state of one client's session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from smtpguard.mail import reply
from smtpguard.mail.envelope import Body, Recipient
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Transaction
from smtpguard.wire import grammar
from smtpguard.wire.data import Arrived, Arriving
from smtpguard.wire.desk import Client, Desk, Over
from smtpguard.wire.ehlo import largest, offer
from smtpguard.wire.identity import Identity
from smtpguard.wire.pipeline import Pipeline
from smtpguard.wire.proxy import Passage
from smtpguard.wire.relay import RelayUnavailable
from smtpguard.wire.turned import TurnedAway, Why


class Commands:
    """One client's. ``pipeline``: its transaction, and the replies that wait."""

    def __init__(self, client: Client, desk: Desk) -> None:
        self._client, self._desk, self._listener = client, desk, desk.listener
        self._limits = desk.listener.limits
        self._errors = 0
        self._identity = Identity(client, desk, self._challenge)
        self.pipeline = Pipeline(self._identity, desk)
        self._offered: Mapping[str, str] = {}
        self._largest = self._limits.message_octets

    # what the dialog asks

    def do(self, line: bytes) -> Awaitable[None] | None:
        """One command; what is returned is to be awaited. Raises grammar.Refused (then nothing was said to it, and nothing
        changed) and Over; so does what is returned."""
        if line[-2:] != b"\r\n" or b"\0" in line or line.find(b"\r") != len(line) - 2:
            raise grammar.Refused(reply.SYNTAX)
        verb, _, argument = line[:-2].partition(b" ")
        verb = verb.upper()
        if len(line) > grammar.MAX_COMMAND and (
            not self._identity.extended or len(line) > grammar.MAX_LINE.get(verb, grammar.MAX_COMMAND)
        ):
            raise grammar.Refused(reply.LINE_TOO_LONG)
        if verb == b"RCPT":
            return self._rcpt(argument)
        method = _METHODS.get(verb)
        if method is None:
            if verb in _ANOTHER_PROTOCOL:
                self.pipeline.say(reply.TOO_MANY_ERRORS)
                raise Over
            raise grammar.Refused(reply.NOT_IMPLEMENTED if verb in _KNOWN else reply.SYNTAX)
        if self.pipeline.asks:
            return self._after_the_relay(method, argument)
        return method(self, argument)

    async def _after_the_relay(self, method: Method, argument: bytes) -> None:
        """What a command means may hang on what the relay answers to those before it."""
        await self.pipeline.settle()
        todo = method(self, argument)
        if todo is not None:
            await todo

    def wrong(self, answer: Reply) -> None:
        """A refusal that the client itself is to blame for; too many of them end the dialog."""
        self._errors += 1
        self.pipeline.say(answer if self._errors <= self._limits.errors else reply.TOO_MANY_ERRORS)
        if self._errors > self._limits.errors:
            raise Over

    def failed(self, *, in_command: bool) -> None:
        """An error of ours. In mid-content the dialog cannot go on."""
        self.pipeline.fail(in_command=in_command)
        if self._client.in_data:
            raise Over

    def end(self) -> None:
        self._identity.log_out()  # first: its QUIT ends its transaction as well
        self.pipeline.reset()

    # the session

    def _greeted(self, helo: str, offered: Mapping[str, str], *, extended: bool) -> None:
        self.pipeline.reset()
        self._identity.greeted(helo, extended=extended)
        self._offered = offered
        self._largest = largest(offered, self._limits.message_octets)

    def _helo_command(self, argument: bytes) -> None:
        self._greeted(grammar.parse_helo(argument), {}, extended=False)
        self.pipeline.say(Reply(250, (self._listener.hostname,)))

    async def _ehlo(self, argument: bytes) -> None:
        helo = grammar.parse_helo(argument)
        try:
            offered = await self._desk.pool.extensions()
        except RelayUnavailable as unavailable:
            # No session with the relay was ever kept, so nobody knows what it offers. To offer less would make
            # clients bounce what needs more, and after a 451 they go on with HELO, which comes to the same. Once it was
            # known it goes on being offered while the relay is down: then RCPT is answered 451.
            self.pipeline.say(reply.NO_RELAY_YET)
            self._desk.turned_away(self._not_served(unavailable.word, reply.NO_RELAY_YET))
            raise Over from None
        self._greeted(helo, offered, extended=True)
        starttls = self._listener.tls is not None and not self._client.tls
        host, trusted, auth = self._listener.hostname, self._client.trusted, self._identity.mechanisms(offered)
        if auth:
            self._client.incoming.longest = grammar.MAX_AUTH_COMMAND
        return self.pipeline.say(
            offer(host, offered, self._limits.message_octets, starttls=starttls, trusted=trusted, auth=auth)
        )

    async def _starttls(self, argument: bytes) -> None:
        tls = self._listener.tls
        if tls is None:
            raise grammar.Refused(reply.NOT_IMPLEMENTED)
        if self._client.tls or self.pipeline.mail is not None or self._identity.user is not None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        if argument:
            raise grammar.Refused(reply.BAD_PARAMETER)
        self.pipeline.say(reply.START_TLS)
        await self._client.flush()
        await self._client.start_tls(tls.context, tls.handshake_seconds)
        self._identity.log_out()
        self._greeted("", {}, extended=False)

    async def _auth(self, argument: bytes) -> None:
        who = self._identity
        if not who.extended or self.pipeline.mail is not None or who.user is not None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        answer = await who.log_in(argument, self._offered)
        if answer.code == 421:
            self.pipeline.say(answer)
            raise Over
        if who.user is None:
            return self.wrong(answer)
        return self.pipeline.say(answer)

    async def _challenge(self, challenge: Reply) -> None:
        self.pipeline.say(challenge)
        await self._client.flush()

    def _xclient(self, argument: bytes) -> None:
        if self._client.trusted and self.pipeline.mail is not None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        refusal = self._identity.speak_for(argument)
        self._greeted("", {}, extended=False)
        self.pipeline.say(refusal or self._desk.greeting)
        if refusal is not None:
            raise Over

    def _xforward_command(self, argument: bytes) -> None:
        if self._client.trusted and (not self._identity.extended or self.pipeline.mail is not None):
            raise grammar.Refused(reply.BAD_SEQUENCE)
        self._identity.forward(argument)
        self.pipeline.say(reply.OK)

    def _noop(self, argument: bytes) -> None:
        self.pipeline.say(reply.OK)

    def _vrfy(self, argument: bytes) -> None:
        if not argument.strip():
            raise grammar.Refused(reply.BAD_PARAMETER)
        self.pipeline.say(reply.CANNOT_VERIFY)

    def _help(self, argument: bytes) -> None:
        self.pipeline.say(reply.HELP)

    def _rset(self, argument: bytes) -> None:
        if argument.strip():
            raise grammar.Refused(reply.BAD_PARAMETER)
        self.pipeline.reset()
        self.pipeline.say(reply.OK)

    def _quit(self, argument: bytes) -> None:
        if argument.strip():
            raise grammar.Refused(reply.BAD_PARAMETER)
        self.pipeline.say(reply.BYE)
        raise Over

    # the transaction

    def _mail_command(self, argument: bytes) -> None:
        pipeline = self.pipeline
        who = self._identity
        lacking = who.lacks()
        if lacking is not None:
            raise grammar.Refused(lacking)
        if not who.helo or pipeline.mail is not None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        mail = grammar.parse_mail(argument, extended=self._identity.extended)
        self._check_offered("SMTPUTF8", mail.smtputf8)
        self._check_offered("8BITMIME", mail.body is Body.EIGHTBITMIME)
        self._check_offered("DSN", mail.ret or mail.envid)
        if mail.size_bytes is not None and mail.size_bytes > self._largest:
            pipeline.say(reply.TOO_BIG)
            pipeline.mail = mail
            pipeline.turn_away(Why.TOO_LARGE, reply.TOO_BIG)
            pipeline.reset()
            return
        if mail.auth is not None and not self._client.trusted:
            mail = replace(mail, auth="<>")  # RFC 4954 section 5
        pipeline.mail = mail
        pipeline.passage = Passage(
            who.line or self._desk.pool,
            who.session,
            mail,
            ident=who.ident,
            client="" if self._client.trusted else self._client.client_ip,
            gone=self._client.gone,
            here=self._listener.here,
        )
        pipeline.deadline = self._desk.monotonic() + self._limits.transaction_seconds
        pipeline.say(reply.SENDER_OK)

    def _rcpt(self, argument: bytes) -> Awaitable[None] | None:
        pipeline = self.pipeline
        if pipeline.mail is None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        recipient, path = grammar.parse_rcpt(
            argument,
            extended=self._identity.extended,
            smtputf8=pipeline.mail.smtputf8,
            here=self._listener.hostname,
        )
        self._check_offered("DSN", recipient.notify or recipient.orcpt)
        if len(pipeline.recipients) + len(pipeline.asks) >= self._limits.recipients:
            return self._rcpt_at_the_limit(recipient, path)
        pipeline.ask((recipient, path))
        return None

    async def _rcpt_at_the_limit(self, recipient: Recipient, path: bytes) -> None:
        """Some of those before may be refused."""
        pipeline = self.pipeline
        await pipeline.settle()
        if pipeline.mail is None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        if len(pipeline.recipients) >= self._limits.recipients:
            pipeline.refuse(Why.TOO_MANY_RECIPIENTS, reply.TOO_MANY_RECIPIENTS)
        else:
            pipeline.ask((recipient, path))

    async def _data(self, argument: bytes) -> None:
        pipeline = self.pipeline
        if pipeline.mail is None or pipeline.passage is None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        if argument.strip():
            raise grammar.Refused(reply.BAD_PARAMETER)
        if pipeline.passage.broken is not None:
            pipeline.say(pipeline.passage.broken)
            pipeline.turn_away(pipeline.passage.why, pipeline.passage.broken)
            return pipeline.reset()
        if not pipeline.recipients:
            raise grammar.Refused(reply.NO_RECIPIENTS)
        if self._client.incoming.pending:
            pipeline.say(reply.TOO_EARLY)
            raise Over  # what came is content, and must not be taken for commands
        pipeline.say(reply.START_MAIL)
        await self._client.flush()
        self._client.in_data = True
        arrived = await self._content()
        if isinstance(arrived, Reply):
            pipeline.turn_away(Why.TOO_LARGE if arrived is reply.TOO_BIG else Why.BAD_CONTENT, arrived)
            self.wrong(arrived)
        else:
            await self._carry(arrived)
        self._client.in_data = False
        pipeline.reset()
        return None

    async def _content(self) -> Arrived | Reply:
        """All that comes, to its true end."""
        arriving = Arriving(self._limits, self._listener.spool)
        incoming = self._client.incoming
        try:
            while True:
                chunk = incoming.take()
                if not chunk:
                    await self._client.more()
                    continue
                rest = arriving.feed(chunk)
                if rest is not None:
                    incoming.put_back(rest)
                    return arriving.refusal or await arriving.finish()
                if arriving.heavy:
                    await arriving.unload()
        finally:
            arriving.close()

    async def _carry(self, arrived: Arrived) -> None:
        """Let the guard decide, and say what it did. A client that goes away meanwhile does not cut that short."""
        pipeline = self.pipeline
        assert pipeline.mail is not None
        assert pipeline.passage is not None
        passage, pipeline.passage = pipeline.passage, None
        refused, pipeline.refused = pipeline.refused, []
        passage.content = arrived
        transaction = Transaction(
            id=self._desk.new_id(),
            session=self._identity.session,
            envelope=replace(pipeline.mail, recipients=tuple(pipeline.recipients)),
            message=arrived.message,
            refused=tuple(refused),
            gone=self._client.gone,
        )
        self._client.deciding = True
        carried = await self._desk.carry(transaction, passage)
        self._client.deciding = False
        pipeline.say(carried.reply)
        self._errors = 0
        if carried.why is not None:
            pipeline.turn_away(carried.why, carried.reply, message=arrived.message)
        if carried.drop:
            raise Over

    def _not_served(self, why: Why, answer: Reply) -> TurnedAway:
        session = self._identity.session
        return TurnedAway(why=why, reply=answer, client=session.client_ip, listener=session.listener)

    def _check_offered(self, keyword: str, used: object) -> None:
        if used and keyword not in self._offered:
            raise grammar.Refused(reply.UNKNOWN_PARAMETER)


Method = Callable[[Commands, bytes], Awaitable[None] | None]
_METHODS: dict[bytes, Method] = {
    b"HELO": Commands._helo_command,
    b"EHLO": Commands._ehlo,
    b"STARTTLS": Commands._starttls,
    b"AUTH": Commands._auth,
    b"XFORWARD": Commands._xforward_command,
    b"XCLIENT": Commands._xclient,
    b"NOOP": Commands._noop,
    b"VRFY": Commands._vrfy,
    b"HELP": Commands._help,
    b"RSET": Commands._rset,
    b"QUIT": Commands._quit,
    b"MAIL": Commands._mail_command,
    b"DATA": Commands._data,
}
_KNOWN = (b"EXPN", b"TURN", b"ETRN", b"BDAT", b"PROXY", b"SEND", b"SOML", b"SAML")
_ANOTHER_PROTOCOL = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT")
"""A browser that was talked into speaking to us: nothing that follows is a command of its user."""
