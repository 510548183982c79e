"""Hypothesis strategies for packets of every kind."""

from __future__ import annotations

from hypothesis import strategies as st

from smtpguard.mail.reply import Reply
from smtpguard.wire import milterpackets as packet
from smtpguard.wire.milterpackets import Answer, Command

text = st.binary(max_size=40).map(lambda b: b.replace(b"\0", b""))
number = st.integers(0, 2**32 - 1)
stages = st.lists(st.tuples(st.sampled_from(packet.Stage), text), max_size=4).map(tuple)
negotiations = st.builds(packet.Negotiate, number, number, number, stages)
inet = st.sampled_from([f for f in packet.Family if f is not packet.Family.UNKNOWN])
sentence = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)

COMMANDS: st.SearchStrategy[Command] = st.one_of(
    negotiations,
    st.builds(
        packet.Macros,
        st.sampled_from([bytes([c]) for c in b"CHMRTLNEU"]),
        st.lists(st.tuples(text, text), max_size=4).map(tuple),
    ),
    st.builds(packet.Connect, text, inet, st.integers(0, 65535), text),
    st.builds(packet.Connect, text, st.just(packet.Family.UNKNOWN)),
    st.builds(packet.Helo, text),
    st.builds(packet.Mail, text, st.lists(text, max_size=3).map(tuple)),
    st.builds(packet.Rcpt, text, st.lists(text, max_size=3).map(tuple)),
    st.builds(packet.HeaderField, text, text),
    st.builds(packet.Body, st.binary(max_size=200)),
    st.builds(packet.EndOfMessage, st.binary(max_size=20)),
    st.builds(packet.Unknown, text),
    st.sampled_from(
        [packet.Data(), packet.EndOfHeader(), packet.Abort(), packet.Quit(), packet.QuitNext()],
    ),
)
ANSWERS: st.SearchStrategy[Answer] = st.one_of(
    negotiations,
    st.builds(
        packet.SmtpReply,
        st.builds(Reply, st.integers(400, 599), st.lists(sentence, min_size=1, max_size=4).map(tuple)),
    ),
    st.builds(packet.InsertHeader, number, text, text),
    st.builds(packet.DeleteRecipient, text),
    st.sampled_from([packet.Continue(), packet.Accept(), packet.Discard()]),
)
