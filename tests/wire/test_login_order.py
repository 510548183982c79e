"""The reply to each command in each state of a session in which clients must log in, over TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from smtpguard.wire.listener import ServerAuth, ServerTls
from tests.wire.proxied import Client
from tests.wire.submitting import plain, start_tls, submission

RIGHT, WRONG = f"AUTH PLAIN {plain()}", f"AUTH PLAIN {plain(password='wrong')}"
COMMANDS = {
    "EHLO": "EHLO x.example", "HELO": "HELO x.example", "STARTTLS": "STARTTLS", "AUTH": RIGHT, "AUTH wrong": WRONG,
    "MAIL": "MAIL FROM:<anna@example.com>", "RCPT": "RCPT TO:<bob@example.net>", "DATA": "DATA", "RSET": "RSET", "NOOP": "NOOP",
    "XCLIENT": "XCLIENT LOGIN=anna@example.com", "XFORWARD": "XFORWARD ADDR=192.0.2.7", "QUIT": "QUIT",
}  # fmt: skip
# state -> the commands that lead to it ("<tls>": the handshake).
STATES = {
    "new": (),
    "greeted": ("EHLO x.example",),
    "encrypted": ("EHLO x.example", "<tls>"),
    "greeted over TLS": ("EHLO x.example", "<tls>", "EHLO x.example"),
    "HELO over TLS": ("EHLO x.example", "<tls>", "HELO x.example"),
    "refused": ("EHLO x.example", "<tls>", "EHLO x.example", WRONG),
    "logged in": ("EHLO x.example", "<tls>", "EHLO x.example", RIGHT),
    "logged in, HELO": ("EHLO x.example", "<tls>", "EHLO x.example", RIGHT, "HELO x.example"),
    "in a transaction": ("EHLO x.example", "<tls>", "EHLO x.example", RIGHT, "MAIL FROM:<anna@example.com>"),
}
TABLE = {
    #                    EHLO HELO TLS  AUTH wrong MAIL RCPT DATA RSET NOOP XCL  XFWD QUIT
    "new":              "250  250  220  503  503   530  503  503  250  250  550  550  221",
    "greeted":          "250  250  220  538  538   530  503  503  250  250  550  550  221",
    "encrypted":        "250  250  503  503  503   530  503  503  250  250  550  550  221",
    "greeted over TLS": "250  250  503  235  535   530  503  503  250  250  550  550  221",
    "HELO over TLS":    "250  250  503  503  503   530  503  503  250  250  550  550  221",
    "refused":          "250  250  503  235  535   530  503  503  250  250  550  550  221",
    "logged in":        "250  250  503  503  503   250  503  503  250  250  550  550  221",
    "logged in, HELO":  "250  250  503  503  503   250  503  503  250  250  550  550  221",
    "in a transaction": "250  250  503  503  503   503  250  554  250  250  550  550  221",
}  # fmt: skip


async def come_to(state: str, client: Client, context: ssl.SSLContext) -> None:
    for line in STATES[state]:
        if line == "<tls>":
            await start_tls(client, context)
        else:
            await client.ask(line)


def test_the_table_is_complete() -> None:
    assert TABLE.keys() == STATES.keys()
    assert {len(row.split()) for row in TABLE.values()} == {len(COMMANDS)}


@pytest.mark.parametrize("state", STATES)
async def test_every_command_in_every_state(
    state: str, tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext
) -> None:
    async with submission(tmp_path, tls=server_tls, auth=ServerAuth()) as world:
        answered = []
        for command in COMMANDS.values():
            client = await world.connect(greeted=False)
            await client.hear()
            await come_to(state, client, client_tls)
            answered.append((await client.ask(command))[:3])
            client.close()
        assert dict(zip(COMMANDS, answered, strict=True)) == dict(zip(COMMANDS, TABLE[state].split(), strict=True))
        assert {"MAIL", "RCPT"}.isdisjoint(world.relay.verbs()) or (RIGHT in STATES[state]), (
            "nothing is sent without a login"
        )
