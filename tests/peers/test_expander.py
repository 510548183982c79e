"""A list server behind the relay expands a post and sends the copies back through the guard: decided once, counted
once."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import postfix
from tests.peers.chain import POLICY, Chain, member, until
from tests.peers.postfix import Postfix, free_port

EXPANDER = "127.0.0.5"
LIST = "ramadan@lists.example.com"
MEMBERS = [member(n) for n in range(80)]
RULES = """\
rules:
  - id: many-at-once
    when: {recipients.members: ">= 5"}
    then: hold
  - id: over-and-over
    when: {mailing.customers: "> 1000"}
    then: hold
"""

pytestmark = pytest.mark.xdist_group("expander")


@pytest.fixture(scope="module")
def chain(certified: Path) -> Iterator[Chain]:
    """The relay sends mail for the list to a third Postfix, which expands it and has the guard as its relay."""
    if why := postfix.missing():
        pytest.skip(why)
    port, routes, aliases = free_port(), certified / "routes", certified / "members"
    routes.write_text(f"lists.example.com smtp:[127.0.0.1]:{port}\n")
    aliases.write_text(f"{LIST} {', '.join(MEMBERS)}\n")
    (certified / "marks").write_text("/^Subject:/ PREPEND List-Id: Ramadan <ramadan.lists.example.com>\n")
    with (
        Chain(
            certified,
            relay_main={"transport_maps": f"texthash:{routes}"},
            policy=POLICY + RULES,
            settings={"expanders": f"[{EXPANDER}]"},
        ) as chain,
        Postfix(
            certified,
            name="expander",
            port=port,
            main={
                "relayhost": f"[127.0.0.1]:{chain.guard.port}",
                "smtp_bind_address": EXPANDER,
                "virtual_alias_maps": f"texthash:{aliases}",
                "virtual_alias_domains": "lists.example.com",
                "header_checks": f"regexp:{certified / 'marks'}",
                "smtp_destination_recipient_limit": "10",
            },
        ),
    ):
        yield chain


def post(message_id: str, text: str) -> bytes:
    return (
        f"From: Campaigns <campaigns@example.com>\r\nTo: {LIST}\r\nSubject: Eid greetings\r\nMessage-ID: <{message_id}>\r\n"
        f"Date: Mon, 2 Mar 2026 09:00:00 +0100\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    ).encode()


TEXT = "\r\n".join(
    f"{what} in our shops during the holidays, with our warm greetings to you and to everybody in your family."
    for what in ("Dates and figs are waiting", "There is tea and coffee for all guests", "We keep our doors open until late", "Children get a small present")
)  # fmt: skip


def straight(chain: Chain, content: bytes, *recipients: str) -> tuple[int, bytes]:
    """Send directly to the guard, from the expander's address."""
    with smtplib.SMTP("127.0.0.1", chain.guard.port, timeout=120, source_address=(EXPANDER, 0)) as smtp:
        smtp.ehlo("lists.example.com")
        smtp.mail("list-bounces@lists.example.com")
        for recipient in recipients:
            smtp.rcpt(recipient)
        return smtp.data(content)


def test_expanded_copies_pass_and_a_forged_one_is_held(chain: Chain) -> None:
    chain.submit(post("post@example.com", TEXT), "campaigns@example.com", LIST)
    copies = until(
        lambda: [m for m in chain.recorder.with_id("post@example.com") if len(m.rcpts) > 0],
        why="the copies to arrive",
    )
    until(
        lambda: sum(len(m.rcpts) for m in chain.recorder.with_id("post@example.com")) == len(MEMBERS), why="all of them"
    )
    until(chain.is_idle, why="the queues to empty")
    assert chain.guard.json("held", "list") == []
    mailing = until(
        lambda: [m for m in chain.guard.json("mailings", "list") if m["relayed"]], why="the outcome to be noted"
    )
    assert [(m["messages"], m["customers"]) for m in mailing] == [
        (1, 1000)
    ]  # the reach of the list's address, with no person counted twice

    traces = re.findall(rb"(?m)^X-Smtpguard: [^\r]*(?:\r\n[ \t][^\r]*)*\r\n", copies[0].content)
    trace = traces[-1]  # the trace of the post; the copy's own trace is above it
    bearing = b"List-Id: Ramadan <ramadan.lists.example.com>\r\n"
    same = straight(chain, bearing + trace + post("post@example.com", TEXT), *MEMBERS[:6])
    assert same[0] == 250
    assert b"Held" not in same[1]
    for forged in (
        bearing + trace + post("another@example.com", TEXT),
        bearing + re.sub(rb"mac=[0-9a-f]{4}", b"mac=0000", trace) + post("post@example.com", TEXT),
        trace + post("post@example.com", TEXT),
        b"List-Id: <other.lists.example.com>\r\n" + trace + post("post@example.com", TEXT),
    ):
        code, said = straight(chain, forged, *MEMBERS[:6])
        assert (code, b"Held for review" in said) == (250, True)
