"""The conversation of an MTA and a milter, without input or output: which command may come in which state, which answers
each may have, and the negotiation."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from smtpguard.wire import milterpackets as packet
from smtpguard.wire.milterpackets import Actions, Answer, Command, Negotiate, ProtocolError, Stage, Steps


class State(enum.Enum):
    """The state of a conversation: named after the last command."""

    NEW = "new"
    AGREED = "agreed"
    IDLE = "idle"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    HEADER = "header"
    BODY = "body"
    OVER = "over"


CHANGES: tuple[type[Answer], ...] = (packet.InsertHeader, packet.DeleteRecipient)
"""Allowed before the answer to EndOfMessage, if that is Accept."""

QUIET: Mapping[type[Command], Steps] = {
    packet.Connect: Steps.QUIET_CONNECT,
    packet.Helo: Steps.QUIET_HELO,
    packet.Mail: Steps.QUIET_MAIL,
    packet.Data: Steps.QUIET_DATA,
    packet.HeaderField: Steps.QUIET_HEADERS,
    packet.EndOfHeader: Steps.QUIET_END_OF_HEADER,
    packet.Body: Steps.QUIET_BODY,
    packet.Unknown: Steps.QUIET_UNKNOWN,
}
"""Commands that need no answer of ours. Not RCPT: a single recipient over the limit is refused there."""

ANSWERS: Mapping[type[Command], tuple[type[Answer], ...]] = {
    Negotiate: (Negotiate,),
    **dict.fromkeys(QUIET, (packet.Continue,)),
    packet.Rcpt: (packet.Continue, packet.SmtpReply),
    packet.EndOfMessage: (packet.Accept, packet.Discard, packet.SmtpReply),
    **dict.fromkeys((packet.Macros, packet.Abort, packet.Quit, packet.QuitNext), ()),
}
"""The allowed answers to each command; an empty set: no answer."""

_TABLE = """
                NEW     AGREED  IDLE    MAIL    RCPT    DATA    HEADER  BODY    OVER
Negotiate       AGREED  AGREED  AGREED  -       -       -       -       -       -
Macros          -       AGREED  IDLE    MAIL    RCPT    DATA    HEADER  BODY    -
Connect         -       IDLE    -       -       -       -       -       -       -
Helo            -       -       IDLE    IDLE    IDLE    IDLE    IDLE    IDLE    -
Mail            -       -       MAIL    MAIL    MAIL    MAIL    MAIL    MAIL    -
Rcpt            -       -       -       RCPT    RCPT    -       -       -       -
Data            -       -       -       -       DATA    -       -       -       -
HeaderField     -       -       -       -       HEADER  HEADER  HEADER  -       -
EndOfHeader     -       -       -       -       BODY    BODY    BODY    -       -
Body            -       -       -       -       -       -       -       BODY    -
EndOfMessage    -       -       -       -       -       -       -       IDLE    -
Abort           -       AGREED  IDLE    IDLE    IDLE    IDLE    IDLE    IDLE    -
QuitNext        -       AGREED  AGREED  AGREED  AGREED  AGREED  AGREED  AGREED  -
Unknown         -       -       IDLE    MAIL    RCPT    -       -       -       -
Quit            OVER    OVER    OVER    OVER    OVER    OVER    OVER    OVER    -
"""
_columns, *_rows = [line.split() for line in _TABLE.strip().splitlines()]
_kinds = {kind.__name__: kind for kind in ANSWERS}
NEXT: Mapping[State, Mapping[type[Command], State]] = {
    State[state]: {_kinds[kind]: State[cells[n]] for kind, *cells in _rows if cells[n] != "-"}
    for n, state in enumerate(_columns)
}
"""The allowed commands in each state, each with the next state. Everything else is a ProtocolError. Helo and Mail abort
the message in progress: Sendmail does not report a client's RSET otherwise."""

NEEDED = Actions.ADD_HEADERS | Actions.DELETE_RECIPIENTS
WELCOME = Steps.NO_DATA | Steps.NO_UNKNOWN | Steps.LEADING_SPACE
"""Accepted if offered, with all that is QUIET."""

MACROS: tuple[tuple[Stage, bytes], ...] = (
    (Stage.CONNECT, b"j {client_addr}"), (Stage.HELO, b"{tls_version}"),
    (Stage.MAIL, b"{auth_authen} {mail_addr} {tls_version}"), (Stage.RCPT, b"{rcpt_addr}"), (Stage.END_OF_MESSAGE, b"i"),
)  # fmt: skip
"""The macros that are requested if the MTA allows it, so that its own settings for macros do not matter."""


def agree(offered: Negotiate) -> Negotiate:
    """Return our side of the negotiation: the part of the offer that is used. Raises ProtocolError if the offer is not enough."""
    if offered.version < packet.VERSION:
        raise ProtocolError(f"the MTA speaks version {offered.version} of the protocol, and {packet.VERSION} is needed")
    if NEEDED & ~offered.actions:
        raise ProtocolError("the MTA does not let us add a header field and delete a recipient")
    quiet = WELCOME
    for step in QUIET.values():
        quiet |= step
    asks = bool(offered.actions & Actions.SET_MACROS)
    actions = NEEDED | (Actions.SET_MACROS if asks else Actions.NONE)
    return Negotiate(packet.VERSION, int(actions), offered.steps & int(quiet), MACROS if asks else ())


class Conversation:
    """One connection of an MTA, by its place in the table: negotiated once, then a client's session with any number of
    messages, perhaps another client after it. ``agreed``: the negotiation's result, None before."""

    def __init__(self) -> None:
        self.state = State.NEW
        self.agreed: Negotiate | None = None
        self._awaited: type[Command] | None = None
        self._changed = False

    @property
    def leading_space(self) -> bool:
        """Whether the white space after a header field's colon is part of its value."""
        return self.agreed is not None and bool(self.agreed.steps & Steps.LEADING_SPACE)

    def hear(self, command: Command) -> bool:
        """Take a command, and return whether an answer is due. Raises ProtocolError if the command is not allowed now."""
        kind = type(command)
        following = NEXT[self.state].get(kind)
        if following is None or self._awaited is not None:
            raise ProtocolError(f"{kind.__name__} in the state {self.state.value}")
        if isinstance(command, Negotiate):
            self.agreed = agree(command)
        self.state = following
        quiet = self.agreed is not None and bool(self.agreed.steps & QUIET.get(kind, Steps.NONE))
        due = bool(ANSWERS[kind]) and not quiet
        self._awaited, self._changed = kind if due else None, False
        return due

    def say(self, answer: Answer) -> None:
        """Note an answer, before it is sent. An AssertionError is an internal error."""
        assert self._awaited is not None, f"{answer} where nobody asked"
        if isinstance(answer, CHANGES):
            assert self._awaited is packet.EndOfMessage, f"{answer} before the end of the message"
            self._changed = True
            return
        assert type(answer) in ANSWERS[self._awaited], f"{answer} to {self._awaited.__name__}"
        assert not self._changed or isinstance(answer, packet.Accept), f"{answer} after a change"
        self._awaited = None
