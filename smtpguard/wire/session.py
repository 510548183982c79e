"""One client's SMTP session as a state machine: octets in, events and replies out (RFC 5321 sections 3.3, 4.1 and
4.1.4, RFC 2920).

Nothing here reads a socket, waits or starts a task. The caller feeds octets (``receive``), takes one event after
another (``next_event``) until there is none, and then writes ``replies``. An event that asks for something stops the
session until its answer is given; octets that come meanwhile are kept. A command that came alone, and needs no event, has
a shorter way to the same reply (``reply_at_once``).

RCPTs are not answered at once: they wait until no more input is there, or a later command needs their answers, and are
then passed to the relay together. Replies still leave in the order of the commands. MAIL is answered here, and is sent
to the relay with the first RCPT.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf

from smtpguard.mail import reply
from smtpguard.mail.constant import maker
from smtpguard.mail.envelope import Body, Envelope, Recipient, RefusedRecipient
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply
from smtpguard.wire import events, grammar
from smtpguard.wire.data import Arrived, Arriving
from smtpguard.wire.events import Carried, Event
from smtpguard.wire.grammar import MAX_COMMAND, MAX_LINE, RcptTo, largest, offer
from smtpguard.wire.identity import Identity
from smtpguard.wire.listener import Listener
from smtpguard.wire.turnedaway import NOT_FROM_RELAY, Refusals, TurnedAway, Why, why_content

log = logging.getLogger("smtpguard.wire")

MOST_REPLIES = 25
"""The most replies that are written together; other connections have a turn then. The relay is asked for at most so many recipients
at once: a client that waits five minutes for a reply (RFC 5321 section 4.5.3.2.3) gets it from a relay that takes twelve seconds
for each."""
LONGEST_LINE = 1 << 12
"""The longest line that is read, in octets: well over any command of the grammar, except AUTH."""
_COMMAND = re.compile(rb"([^ \r\n\0]*+)(?: ([^\r\n\0]*+))?\r\n").fullmatch
"""A verb and its argument."""


_RESET, _ASK_OFFER, _START_TLS = events.Reset(), events.AskOffer(), events.StartTls()
_new_ask, _new_decide = maker(events.AskRelay), maker(events.Decide)


def log_failure(error: Exception) -> None:
    """Log an internal error, whose text goes nowhere else."""
    log.error("error in an SMTP dialog: %s", type(error).__name__, exc_info=error)


class SmtpSession:
    """One client's session.

    ``who``: the client's identity; ``waits``: an event is unanswered; ``over``: the connection is to be closed after
    ``replies``; ``more``: input is left, and others have a turn first; ``in_data``: content is being received, or
    decided on; ``deciding``: the content is complete and is being decided on.

    Of the transaction, ``mail``: the envelope without recipients, None if there is no transaction; ``recipients``: those
    that were accepted; ``deadline``: the time by which it must be complete.
    """

    # a dict of so many attributes is larger than all else of a connection
    __slots__ = (
        "_again", "_arrived", "_arriving", "_asked", "_at", "_at_relay", "_broken", "_errors", "_events", "_greeting",
        "_held", "_helo", "_largest", "_limits", "_listener", "_longest", "_monotonic", "_offered", "_out", "_rcpts",
        "_refusals", "_responding", "_why", "deadline", "deciding", "in_data", "mail", "more", "over", "recipients",
        "waits", "who",
    )  # fmt: skip

    def __init__(self, listener: Listener, who: Identity, greeting: Reply, *, monotonic: Callable[[], float]) -> None:
        self.who = who
        self.waits = True  # for ``greet``
        self.over = self.more = self.in_data = self.deciding = False
        self.mail: Envelope | None = None
        self.recipients: list[Recipient] = []
        self.deadline = inf
        self._listener, self._limits, self._greeting, self._monotonic = listener, listener.limits, greeting, monotonic
        self._events: list[Event] = []
        self._out: list[Reply | None] = []  # not yet written; None: a reply that the relay has not given yet
        # input that is not processed yet: _held from _at on; if it is empty, _at is 0
        self._held = b""
        self._at = 0
        self._again: bytes | None = None  # a command that waits for the relay's replies to earlier ones
        self._longest = LONGEST_LINE
        self._responding = False
        # the session
        self._errors = 0
        self._offered: Mapping[str, str] = {}
        self._largest = self._limits.message_octets
        self._helo = ""  # of an EHLO that waits for AskOffer
        # the transaction
        self._rcpts: list[RcptTo] = []  # to be passed to the relay
        self._asked: Sequence[RcptTo] = ()  # passed to the relay, unanswered
        self._at_relay = False
        self._broken: Reply | None = None
        self._why = Why.RECIPIENT_REFUSED
        self._refusals = Refusals()
        self._arriving: Arriving | None = None
        self._arrived: Arrived | None = None

    # for the caller

    @property
    def held(self) -> int:
        """Octets received and not processed yet."""
        return len(self._held) - self._at

    def greet(self, refusal: Reply | None = None) -> None:
        """Greet the client. A ``refusal`` is sent instead of the greeting, and ends the session."""
        self.waits = False
        self._say(refusal or self._greeting)
        self.over = refusal is not None

    def receive(self, data: bytes) -> None:
        if self._held:
            self._held = self._held[self._at :] + data
            self._at = 0
        else:
            self._held = data

    def forget(self) -> None:
        """Drop the unprocessed input: plain text before a TLS handshake is not trusted (RFC 3207 section 4.2, CVE-2011-0411)."""
        self._held, self._at = b"", 0

    def next_event(self) -> Event | None:
        """Return the next event. None: the input is processed as far as possible, and ``replies`` are to be written."""
        self.more = False
        pending = self._events
        while not pending and not self.waits:
            if not self._held or self.over:
                if not self._rcpts:
                    return None
                self._ask()
            elif self._arriving is not None:
                self._take_content(self._arriving)
            elif not self._take_lines():
                return None
        return pending.pop(0) if pending else None

    def reply_at_once(self) -> bytes | None:
        """Return the reply to the input, if it is one whole command that needs no event. None: the caller must take events.
        It is called right after ``receive``, if nothing was unprocessed before."""
        line = self._held
        if self._arriving is not None or line.find(b"\n") + 1 != len(line):
            return None
        self._held = b""
        self._take_line(line)
        return None if self._rcpts or self._events or self.over else self.replies()

    def replies(self) -> bytes:
        """Return the octets to be written now. It must not be called while ``AskRelay`` is unanswered."""
        out = self._out
        if not out:
            return b""
        last = out.pop()
        if not out and last is not None:  # nearly always
            return last.octets
        self._out = []
        return b"".join([one.octets for one in (*out, last) if one is not None])

    def turn_away(self, why: Why, answer: Reply) -> None:
        """Note that the transaction ends with this reply, if it has recipients and is not being decided on."""
        if self.recipients and not self.deciding:
            self._turn_away(why, answer)

    def end(self) -> None:
        """End the session, since the connection has ended. The caller must take the remaining events."""
        if self._asked:
            self._refusals.refuse(Why.GAVE_UP, None, recipients=len(self._asked))
        self._asked, self._rcpts = (), []
        self._drop_content()
        self._reset()
        self.over, self.waits, self.deciding = True, False, False

    # answers to events

    def answered(self, answers: Sequence[Reply], why: Why, broken: Reply | None) -> None:
        """Take the relay's replies to the recipients of ``AskRelay``. ``why``: the reason if recipients were refused;
        ``broken``: the reply to DATA if the transaction cannot go on, else None."""
        asked, self._asked = self._asked, ()
        self._why, self._broken = why, broken
        self.waits = False
        if self._again is not None:
            self._held, self._at, self._again = self._again + self._held[self._at :], 0, None
        each = zip(asked, answers, strict=True)
        for n, given in enumerate(self._out):
            if given is None:
                rcpt, answer = next(each)
                self._out[n] = answer
                if answer.positive:
                    self._refusals.named += 1
                    self.recipients.append(rcpt[0])
                else:
                    self._not_accepted(rcpt, answer)

    def offered(self, relay: Mapping[str, str] | Why) -> None:
        """Answer EHLO. ``relay``: the relay's offer, or why there never was a session with it.

        Without an offer the dialog ends. A smaller offer would make clients bounce messages that need more; after a 451
        they would go on with HELO, which has the same effect. A known offer stays while the relay is down: then RCPT is
        answered 451."""
        self.waits = False
        if isinstance(relay, Why):
            self._say(reply.NO_RELAY_YET)
            client, listener = self.who.session.client_ip, self.who.session.listener
            self._events.append(TurnedAway(why=relay, reply=reply.NO_RELAY_YET, client=client, listener=listener))
            self.over = True
            return
        self._greeted(self._helo, relay, extended=True)
        host, starttls = self._listener.hostname, self._listener.tls is not None and not self.who.tls
        auth = self.who.mechanisms(relay)
        if auth:
            self._longest = grammar.MAX_AUTH_COMMAND
        octets, trusted = self._limits.message_octets, self.who.trusted
        self._say(offer(host, relay, octets, starttls=starttls, trusted=trusted, auth=auth))

    def secured(self) -> None:
        """Begin anew after the TLS handshake: earlier commands are forgotten."""
        self.waits = False
        self.who.logged_in(None)
        self.who.secured()
        self._greeted("", {}, extended=False)

    def challenge(self, challenge: Reply) -> None:
        self._say(challenge)
        self.waits, self._responding = False, True

    def logged_in(self, answer: Reply, user: str | None) -> None:
        """Answer AUTH with the relay's answer, or a refusal of ours; 421 ends the dialog. ``user``: None if nobody is logged
        in."""
        self.waits = self._responding = False
        self.who.logged_in(user)
        if answer.code == 421:
            self._say(answer)
            self.over = True
        elif user is None:
            self._wrong(answer)
        else:
            self._say(answer)

    def client_is(self, refusal: Reply | None) -> None:
        """Greet the new client. ``refusal``: why it cannot be served, None if it can."""
        self._greeted("", {}, extended=False)
        self.greet(refusal)

    def unloaded(self, _: None = None) -> None:
        self.waits = False

    def arrived(self, arrived: Arrived | Reply) -> None:
        """Take the complete content, or the reply that refuses it."""
        assert self.mail is not None
        self._drop_content()
        if isinstance(arrived, Reply):
            self.waits = False
            self._turn_away(why_content(arrived), arrived)
            self._wrong(arrived)
            self.in_data = False
            self._reset()
            return
        self._arrived = arrived
        refused = self._refusals.take_by_relay() if self._refusals.by_relay else ()
        self._at_relay = False
        self.deciding = self.waits = True
        self._events.append(_new_decide(envelope=self.mail.to(self.recipients), refused=refused, arrived=arrived))

    def carried(self, carried: Carried) -> None:
        arrived, self._arrived = self._arrived, None
        assert arrived is not None
        self.waits = self.deciding = self.in_data = False
        self._out.append(carried.reply)
        self._errors = 0
        if carried.why is not None:
            self._turn_away(carried.why, carried.reply, message=arrived.message)
        self._reset()

    def failed(self, error: Exception) -> None:
        """Answer everything that a request concerns with 451: it met an internal error, which is logged."""
        in_command = not self._asked or self._again is not None
        self.waits = self._responding = self.deciding = False
        self._again = None
        self._fail(error, in_command=in_command)

    # input

    def _take_lines(self) -> bool:
        """Process the next line. Return False if none is complete and there is nothing to request."""
        held, at = self._held, self._at
        end = held.find(b"\n", at) + 1
        if not end:
            if len(held) - at > self._longest:  # what is kept of it is enough to be too long
                self._held, self._at = held[at : at + self._longest], 0
            return self._ask()
        if end == len(held):
            self._held, self._at = b"", 0
        elif len(self._out) >= MOST_REPLIES:
            self.more = not self._rcpts
            return self._ask()
        else:
            self._at = end
        self._take_line(held[at:end])
        return True

    def _take_line(self, line: bytes) -> None:
        """Process one line: a command, or a response in a login."""
        if self._responding:
            self._responding, self.waits = False, True
            self._events.append(events.Response(line if len(line) <= self._longest else None))
            return
        try:
            found = _COMMAND(line)
            if found is None:
                raise grammar.Refused(reply.SYNTAX if len(line) <= self._longest else reply.LINE_TOO_LONG)
            verb, argument = found.groups(b"")
            if len(line) > MAX_COMMAND and self._exceeds(verb.upper(), len(line)):
                raise grammar.Refused(reply.LINE_TOO_LONG)
            method = _METHODS.get(verb) or _METHODS.get(verb.upper())
            if method is None:
                self._take_unknown(verb.upper())
            elif self._rcpts and method is not _RCPT:  # its meaning may depend on the relay's replies to them
                self._ask_before(line)
            else:
                method(self, argument)
        except grammar.Refused as refused:  # it was not answered, and nothing has changed
            self._wrong(refused.reply)
        except Exception as error:
            self._fail(error, in_command=True)

    def _take_content(self, arriving: Arriving) -> None:
        """Feed the available input to the content."""
        chunk = self._held[self._at :] if self._at else self._held
        self._held, self._at = b"", 0
        try:
            rest = arriving.feed(chunk)
            if rest is None:
                if arriving.heavy:
                    self._wait_for(events.Unload(arriving))
                return
            self._held = rest
            arrived = arriving.refusal or arriving.at_once()
            if arrived is None:
                self._wait_for(events.Finish(arriving))
            else:
                self.arrived(arrived)
        except Exception as error:
            self._fail(error, in_command=True)

    def _take_unknown(self, verb: bytes) -> None:
        answer = _NO_COMMANDS_FOLLOW.get(verb)
        if answer is None:
            raise grammar.Refused(reply.NOT_IMPLEMENTED if verb in _NOT_OURS else reply.SYNTAX)
        self._say(answer)
        self.over = True

    def _exceeds(self, verb: bytes, octets: int) -> bool:
        """Return whether a line of more than MAX_COMMAND octets is too long for its verb."""
        return not self.who.extended or octets > min(MAX_LINE.get(verb, MAX_COMMAND), self._longest)

    # the session

    def _greeted(self, helo: str, offered: Mapping[str, str], *, extended: bool) -> None:
        self._reset()
        self.who.greeted(helo, extended=extended)
        self._offered = offered
        self._largest = largest(offered, self._limits.message_octets)

    def _helo_command(self, argument: bytes) -> None:
        self._greeted(grammar.parse_helo(argument), {}, extended=False)
        self._say(Reply(250, (self._listener.hostname,)))

    def _ehlo_command(self, argument: bytes) -> None:
        self._helo = grammar.parse_helo(argument)
        self._wait_for(_ASK_OFFER)

    def _starttls_command(self, argument: bytes) -> None:
        if self._listener.tls is None:
            raise grammar.Refused(reply.NOT_IMPLEMENTED)
        if self.who.tls or self.mail is not None or self.who.user is not None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        if argument:
            raise grammar.Refused(reply.BAD_PARAMETER)
        self._say(reply.START_TLS)
        self.forget()
        self._wait_for(_START_TLS)

    def _auth_command(self, argument: bytes) -> None:
        if not self.who.extended or self.mail is not None or self.who.user is not None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        self.who.check_may_log_in()
        self._wait_for(events.LogIn(argument, self.who.mechanisms(self._offered)))

    def _xclient_command(self, argument: bytes) -> None:
        if self.who.trusted and self.mail is not None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        before = self.who.client_ip
        renamed = self.who.speak_for(argument)
        self._wait_for(events.NewClient(before, renamed))

    def _xforward_command(self, argument: bytes) -> None:
        if self.who.trusted and (not self.who.extended or self.mail is not None):
            raise grammar.Refused(reply.BAD_SEQUENCE)
        self.who.forward(argument)
        self._say(reply.OK)

    def _noop_command(self, argument: bytes) -> None:
        self._say(reply.OK)

    def _vrfy_command(self, argument: bytes) -> None:
        if not argument.strip():
            raise grammar.Refused(reply.BAD_PARAMETER)
        self._say(reply.CANNOT_VERIFY)

    def _help_command(self, argument: bytes) -> None:
        self._say(reply.HELP)

    def _rset_command(self, argument: bytes) -> None:
        if argument.strip():
            raise grammar.Refused(reply.BAD_PARAMETER)
        self._reset()
        self._say(reply.OK)

    def _quit_command(self, argument: bytes) -> None:
        if argument.strip():
            raise grammar.Refused(reply.BAD_PARAMETER)
        self._say(reply.BYE)
        self.over = True

    # the transaction

    def _mail_command(self, argument: bytes) -> None:
        who = self.who
        lacking = who.lacks()
        if lacking is not None:
            raise grammar.Refused(lacking)
        if not who.helo or self.mail is not None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        mail = grammar.parse_mail(argument, extended=who.extended)
        offered = self._offered
        if (
            ("SMTPUTF8" not in offered and mail.smtputf8)
            or ("8BITMIME" not in offered and mail.body is Body.EIGHTBITMIME)
            or ("DSN" not in offered and (mail.ret or mail.envid))
        ):
            raise grammar.Refused(reply.UNKNOWN_PARAMETER)
        if mail.size_bytes is not None and mail.size_bytes > self._largest:
            self._say(reply.TOO_BIG)
            self.mail = mail
            self._turn_away(Why.TOO_LARGE, reply.TOO_BIG)
            self._reset()
            return
        if mail.auth is not None and not who.trusted:
            mail = replace(mail, auth="<>")  # RFC 4954 section 5
        self.mail = mail
        self.deadline = self._monotonic() + self._limits.transaction_seconds
        self._out.append(reply.SENDER_OK)

    def _rcpt_command(self, argument: bytes) -> None:
        if self.mail is None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        rcpt = grammar.parse_rcpt(
            argument, extended=self.who.extended, smtputf8=self.mail.smtputf8, here=self._listener.hostname
        )
        if (rcpt[0].notify or rcpt[0].orcpt) and "DSN" not in self._offered:
            raise grammar.Refused(reply.UNKNOWN_PARAMETER)
        if max(len(self.recipients), len(self._refusals.by_relay)) + len(self._rcpts) < self._limits.recipients:
            self._rcpts.append(rcpt)
            self._out.append(None)
        elif self._rcpts:  # some of the earlier ones may be refused
            self._ask_before(b"RCPT %b\r\n" % argument)
        else:
            self._say(reply.TOO_MANY_RECIPIENTS)
            self._refusals.refuse(Why.TOO_MANY_RECIPIENTS, reply.TOO_MANY_RECIPIENTS)

    def _data_command(self, argument: bytes) -> None:
        if self._held:
            self._say(reply.TOO_EARLY)
            self.over = True  # the input is content, and must not be taken for commands
            return
        if argument.strip():
            raise grammar.Refused(reply.BAD_PARAMETER)
        if self.mail is None:
            raise grammar.Refused(reply.BAD_SEQUENCE)
        if self._broken is not None:
            self._say(self._broken)
            self._turn_away(self._why, self._broken)
            self._reset()
            return
        if not self.recipients:
            _, first = self._refusals.first or (None, None)
            raise grammar.Refused(first if first is not None and first in NOT_FROM_RELAY else reply.NO_RECIPIENTS)
        self._out.append(reply.START_MAIL)
        self.in_data = True
        self._arriving = Arriving(self._limits, self._listener.spool)

    # internal

    def _say(self, answer: Reply) -> None:
        self._out.append(answer)

    def _wait_for(self, event: Event) -> None:
        self.waits = True
        self._events.append(event)

    def _ask(self) -> bool:
        """Request the relay's replies to the waiting RCPTs. Return whether there were any."""
        if not self._rcpts:
            return False
        assert self.mail is not None
        self._asked, self._rcpts = self._rcpts, []
        self._at_relay = self.waits = True
        self._events.append(_new_ask(mail=self.mail, rcpts=self._asked))
        return True

    def _ask_before(self, line: bytes) -> None:
        """Request the relay's replies, and keep this command until they are there."""
        self._again = line
        self._ask()

    def _not_accepted(self, rcpt: RcptTo, answer: Reply) -> None:
        why = NOT_FROM_RELAY.get(answer) if self._broken is None else self._why
        self._refusals.refuse(why or self._why, answer)
        if why is None:  # the relay refused this recipient
            self._refusals.by_relay.append(RefusedRecipient.of(rcpt[0], answer))

    def _wrong(self, answer: Reply) -> None:
        """Refuse a command for an error of the client. Too many errors end the dialog."""
        self._errors += 1
        if self._errors > self._limits.errors:
            answer, self.over = reply.TOO_MANY_ERRORS, True
        self._say(answer)

    def _fail(self, error: Exception, *, in_command: bool) -> None:
        """Answer what waits for a reply with an internal error, and end the transaction. ``in_command``: a command is being
        processed, and is answered as well. Within content the dialog cannot go on."""
        log_failure(error)
        self._turn_away(Why.FAILED, reply.INTERNAL_ERROR)
        self._out = [given or reply.INTERNAL_ERROR for given in self._out]
        if in_command:
            self._say(reply.INTERNAL_ERROR)
        self._asked, self._rcpts = (), []
        self.over = self.over or self.in_data
        self._drop_content()
        self._reset()

    def _drop_content(self) -> None:
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.close()

    def _reset(self) -> None:
        """End the transaction, at the relay too. Report it if it or some of its recipients were turned away, or if it ends
        without a message after the relay refused recipients."""
        if self.mail is None:
            self.who.transaction_over()
            return
        refusals = self._refusals
        if refusals.by_relay:
            envelope = self.mail.to(self.recipients)
            self._events.append(events.CameToNothing(self.who.session, envelope, refusals.take_by_relay()))
        if self._at_relay:
            self._events.append(_RESET)
            self._at_relay = False
        if refusals.first is not None:
            self._events.append(refusals.report(self.who.session, self.mail))
        refusals.named = 0
        self._broken = None
        self.mail = None
        self.recipients = []
        self.deadline = inf
        self.who.transaction_over()

    def _turn_away(self, why: Why, answer: Reply, *, message: Message | None = None) -> None:
        """Note that the whole transaction, if there is one, ends without a verdict."""
        if self.mail is not None:
            self._refusals.turn_away(why, answer, message)


_METHODS: dict[bytes, Callable[[SmtpSession, bytes], None]] = {
    b"HELO": SmtpSession._helo_command,
    b"EHLO": SmtpSession._ehlo_command,
    b"STARTTLS": SmtpSession._starttls_command,
    b"AUTH": SmtpSession._auth_command,
    b"XFORWARD": SmtpSession._xforward_command,
    b"XCLIENT": SmtpSession._xclient_command,
    b"NOOP": SmtpSession._noop_command,
    b"VRFY": SmtpSession._vrfy_command,
    b"HELP": SmtpSession._help_command,
    b"RSET": SmtpSession._rset_command,
    b"QUIT": SmtpSession._quit_command,
    b"MAIL": SmtpSession._mail_command,
    b"RCPT": SmtpSession._rcpt_command,
    b"DATA": SmtpSession._data_command,
}
_RCPT = SmtpSession._rcpt_command
_NOT_OURS = (b"EXPN", b"TURN", b"ETRN", b"PROXY", b"SEND", b"SOML", b"SAML")
_NO_COMMANDS_FOLLOW = {
    b"BDAT": reply.NOT_IMPLEMENTED,
    **dict.fromkeys((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT"), reply.TOO_MANY_ERRORS),
}
"""The last reply to verbs after which no commands come: content, which the client did not write as commands; or the
request of a browser that was tricked into connecting."""
