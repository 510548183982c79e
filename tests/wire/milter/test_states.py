"""Every cell of the state table: which command may come when, which answers it may have, and what is negotiated."""

from __future__ import annotations

import itertools

import pytest

from smtpguard.mail.reply import BUSY
from smtpguard.wire import milterpackets as packet
from smtpguard.wire.conversation import ANSWERS, CHANGES, NEXT, QUIET, Conversation, State, agree
from smtpguard.wire.milterpackets import Actions, Answer, Command, Negotiate, ProtocolError, Steps
from tests.every import every

ALL = Negotiate(6, 0x1FF, 0x1FFFFF)
EXAMPLES: dict[type[Command], Command] = {
    type(c): c
    for c in (
        ALL, packet.Macros(b"M"), packet.Connect(b"x", packet.Family.UNKNOWN), packet.Helo(b"x"), packet.Mail(b"<>"),
        packet.Rcpt(b"<a@x.se>"), packet.Data(), packet.HeaderField(b"a", b" b"), packet.EndOfHeader(), packet.Body(b"x"),
        packet.EndOfMessage(), packet.Abort(), packet.Quit(), packet.QuitNext(), packet.Unknown(b"x"),
    )
}  # fmt: skip
SAID: list[Answer] = [
    ALL, packet.Continue(), packet.Accept(), packet.Discard(), packet.SmtpReply(BUSY), packet.InsertHeader(0, b"a", b"b"),
    packet.DeleteRecipient(b"<a@x.se>"),
]  # fmt: skip

# The next state by state and command; "-" is illegal.
COLUMNS = [
    "Negotiate",
    "Connect",
    "Helo",
    "Mail",
    "Rcpt",
    "Data",
    "HeaderField",
    "EndOfHeader",
    "Body",
    "EndOfMessage",
    "Abort",
    "QuitNext",
]
ROWS = """
NEW      AGREED     -        -     -     -     -     -            -            -     -             -      -
AGREED   AGREED     IDLE     -     -     -     -     -            -            -     -             AGREED AGREED
IDLE     AGREED     -        IDLE  MAIL  -     -     -            -            -     -             IDLE   AGREED
MAIL     -          -        IDLE  MAIL  RCPT  -     -            -            -     -             IDLE   AGREED
RCPT     -          -        IDLE  MAIL  RCPT  DATA  HEADER       BODY         -     -             IDLE   AGREED
DATA     -          -        IDLE  MAIL  -     -     HEADER       BODY         -     -             IDLE   AGREED
HEADER   -          -        IDLE  MAIL  -     -     HEADER       BODY         -     -             IDLE   AGREED
BODY     -          -        IDLE  MAIL  -     -     -            -            BODY  IDLE          IDLE   AGREED
OVER     -          -        -     -     -     -     -            -            -     -             -      -
"""


def at(state: State) -> Conversation:
    conversation = Conversation()
    conversation.agreed = agree(ALL)
    conversation.state = state
    return conversation


def test_each_command_has_the_next_state_of_the_protocol() -> None:
    for line in filter(None, ROWS.splitlines()):
        name, *cells = line.split()
        for column, cell in zip(COLUMNS, cells, strict=True):
            there = NEXT[State[name]].get(getattr(packet, column))
            assert (there.name if there else "-") == cell, (name, column)


@every(("state", "kind"), itertools.product(State, EXAMPLES))
def test_every_command_in_every_state(state: State, kind: type[Command]) -> None:
    conversation = at(state)
    following = NEXT[state].get(kind)
    if following is None:
        with pytest.raises(ProtocolError, match=f"{kind.__name__} in the state {state.value}"):
            conversation.hear(EXAMPLES[kind])
        assert conversation.state is state
    else:
        due = conversation.hear(EXAMPLES[kind])
        assert conversation.state is following
        assert due is (kind in (packet.Negotiate, packet.Rcpt, packet.EndOfMessage)), "an answer is due only to these"


def test_every_command_is_in_both_tables() -> None:
    assert set(EXAMPLES) == set(ANSWERS) == {kind for row in NEXT.values() for kind in row}
    assert set(NEXT) == set(State)


@every(("kind", "answer"), itertools.product(EXAMPLES, SAID))
def test_every_answer_to_every_command(kind: type[Command], answer: Answer) -> None:
    conversation = at(next(state for state in State if kind in NEXT[state]))
    conversation.agreed = Negotiate(6, 0, 0)  # no step is left out, so every command that can be answered must be
    conversation.hear(EXAMPLES[kind])
    if kind is packet.Negotiate:
        conversation.agreed = ALL
    legal = type(answer) in ANSWERS[kind] or (kind is packet.EndOfMessage and isinstance(answer, CHANGES))
    if legal:
        conversation.say(answer)
    else:
        with pytest.raises(AssertionError):
            conversation.say(answer)


def test_an_answer_is_due_before_the_next_command() -> None:
    conversation = at(State.MAIL)
    assert conversation.hear(packet.Rcpt(b"<a@x.se>"))
    with pytest.raises(ProtocolError):
        conversation.hear(packet.Rcpt(b"<b@x.se>"))
    conversation.say(packet.Continue())
    with pytest.raises(AssertionError, match="where nobody asked"):
        conversation.say(packet.Continue())


@pytest.mark.parametrize("answer", [packet.Discard(), packet.SmtpReply(BUSY)])
def test_after_a_change_only_accept_is_allowed(answer: Answer) -> None:
    """After a change only accept is allowed: otherwise the MTA would change a message that it then refuses."""
    conversation = at(State.BODY)
    conversation.hear(packet.EndOfMessage())
    conversation.say(packet.DeleteRecipient(b"<a@x.se>"))
    with pytest.raises(AssertionError, match="after a change"):
        conversation.say(answer)
    conversation.say(packet.Accept())


class TestNegotiation:
    def test_only_used_features_are_negotiated(self) -> None:
        agreed = agree(ALL)
        assert agreed.actions == Actions.ADD_HEADERS | Actions.DELETE_RECIPIENTS | Actions.SET_MACROS
        steps = Steps(agreed.steps)
        assert Steps.LEADING_SPACE | Steps.NO_DATA | Steps.NO_UNKNOWN in steps
        for step in QUIET.values():
            assert step in steps
        for unwanted in (
            Steps.NO_CONNECT, Steps.NO_HELO, Steps.NO_MAIL, Steps.NO_RCPT, Steps.NO_BODY, Steps.NO_HEADERS,
            Steps.NO_END_OF_HEADER, Steps.QUIET_RCPT, Steps.SKIP, Steps.REJECTED_RCPTS,
        ):  # fmt: skip
            assert unwanted not in steps, unwanted
        assert b"{auth_authen}" in dict(agreed.macros)[packet.Stage.MAIL]

    def test_only_offered_features_are_negotiated(self) -> None:
        least = Negotiate(6, int(Actions.ADD_HEADERS | Actions.DELETE_RECIPIENTS), 0)
        assert agree(least) == least

    @pytest.mark.parametrize(
        ("offered", "why"),
        [
            (Negotiate(2, 0x1FF, 0x7F), "version 2"),
            (Negotiate(6, int(Actions.ADD_HEADERS), 0), "delete a recipient"),
            (Negotiate(6, int(Actions.DELETE_RECIPIENTS), 0), "add a header field"),
        ],
    )
    def test_insufficient_offers_are_refused(self, offered: Negotiate, why: str) -> None:
        with pytest.raises(ProtocolError, match=why):
            agree(offered)

    def test_a_newer_version_is_answered_with_ours(self) -> None:
        assert agree(Negotiate(7, 0x1FF, 0x1FFFFF)).version == 6
