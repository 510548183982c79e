"""The short ways and the full one do the same with any mail: short reading and whole reading; proxy, journal's front and remembered
plans, and milter, admission and plans made anew.

``make fuzz N=100`` tries so many seeds; ``FUZZ="7 8"`` repeats seed 7.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from smtpguard.lists.names import Names
from smtpguard.mail.address import BadAddress, parse_path
from smtpguard.mail.message import Message
from smtpguard.reading.looks import Looks
from smtpguard.reading.request import Depth
from tests.catalogue.proxyandmilter import proxy_and_milter
from tests.catalogue.wholeguard import ANNA, KEY, MEMBERS, NEWSLETTER, RAMADAN, READERS
from tests.fuzz.test_reading import PIECES
from tests.lists.declaring import lists_of
from tests.reading.letters import CAMPAIGN, GROWN_THREAD, STORY, look

SEEDS = range(*map(int, os.environ.get("FUZZ", "0 2").split()))
MESSAGES = 40
"""To one pair of guards: what is counted, held and approved of the first meets the last."""

COLLEAGUES = ("bo@example.com", "lotta@example.com", "Bo.Berg@EXAMPLE.com", "it@guard.example.com")
STRANGERS = ("bob@partner.example", "BOB+x@Partner.example", '"b..b"@partner.example', "bob@[192.0.2.1]")
WRITERS = ("anna@example.com", "Anna <anna@example.com>", '"Anna, E" <ANNA@example.com>', "anna@example.com, eva@example.com",
           "=?utf-8?q?Anna_=C3=85?= <anna@example.com>", "campaigns@example.com", "noreply@example.com", "staff: anna@example.com;",
           "anna@example.com (bob@partner.example)", "nobody", "", '"anna@example.com" <bob@partner.example>', "<@a,@b:anna@example.com>")  # fmt: skip
SUBJECTS = ("SV: Lunch", "Lunch", "", "Re: [list] FW: hej", "=?utf-8?b?U1Y6IEzDqW5jaA==?=", "=?x-none?q?a?=", "=?utf-8?q?never",
            "VB:\r\n SV: Lunch", "Ramadan mubarak", "K\xf6p", "\t")  # fmt: skip
FIELDS = (
    "References: <a@example.com> <b@customers.example>", "In-Reply-To: <c81f4e@exchange.example.com>", f"Thread-Index: {GROWN_THREAD}",
    "Thread-Index: x", "Auto-Submitted: auto-generated", "Auto-Submitted: no (really)", "List-Id: Ramadan <ramadan.lists.example.com>",
    "List-Unsubscribe: <https://news.example.com/u>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click", "Precedence: bulk",
    "X-Campaign: a", "Feedback-ID: 1:2:3:mc", "X-Smtpguard: id=1; policy=2; mac=3", "DKIM-Signature: v=1; d=campaigns.example.com",
    "Sensitivity: Company-Confidential", "MSIP_Labels: MSIP_Label_0_Name=Internal;", "Return-Path: <>", "Sender: eva@example.com",
    "Resent-From: bo@example.com", "Reply-To: noreply@example.com", "From: eva@example.com", "Subject: second", "X-MS-Has-Attach:",
    "Authentication-Results: guard.example.com; dkim=pass header.d=campaigns.example.com", "X-Odd:\r\n\tfolded\r\n \r\n", "X-8: \xe5\xff",
    "Content-Type: text/plain", "Message-ID: <2@example.com>", "Bcc: x@y.example", "X-Mailer: PHPMailer", "Received: by a.example; now",
)  # fmt: skip
KINDS = ("text/plain; charset=utf-8", "text/html", "text/plain; charset=utf-16", "multipart/mixed; boundary=bb", "multipart/alternative; boundary=\"bb\"",
         "message/rfc822", "multipart/report; boundary=bb; report-type=delivery-status", "application/pdf; name=a.pdf", "text/calendar; method=REQUEST", "x")  # fmt: skip


RELAYS = (
    "relay.example.com",
    "RELAY.Example.com.",
    "a.example",
    "localhost",
    "[127.0.0.1]",
    "lists",
    "xn--bcher-kva.example",
)


def spelled(chance: Random, local: str, domain: str) -> tuple[str, str]:
    """Another spelling of the same mailbox; ``local`` without quotation marks."""
    bare, at = domain.strip("."), chance.choice(RELAYS)
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in local)
    ways = [
        (local.upper(), domain), (local, domain.title()), (wide, domain), (local, f"{bare}."), (f" {local} ", domain),
        (f"{local}%{bare}", at), (f"{bare}!{local}", at), (f"{local}@{bare}", at), (f"@relay.example.com:{local}@{bare}", at),
    ]  # fmt: skip
    return chance.choice(ways if set("%@!") & set(local) else [*ways, (f"{local}+x", domain)])


def written(chance: Random, local: str, domain: str) -> str:
    if chance.random() < 0.5 and re.fullmatch(r"[\w!%+.-]+", local) and not local.endswith("."):
        return f"{local}@{domain}"
    return f'"{local}"@{domain}'


@pytest.mark.parametrize("seed", SEEDS)
def test_a_list_is_the_list_in_any_mixture_of_spellings(seed: int) -> None:
    chance = Random(seed)
    lists, _ = lists_of({"ramadan": {"addresses": [RAMADAN]}}, delimiters="+")
    hosts = ["relay.example.com", "guard.example.com"]
    names = Names(lists, domains=["example.com", "*.corp.example"], host_names=hosts, delimiters="+")
    for _ in range(50 * MESSAGES):
        local, domain = (
            "ramadan",
            chance.choice(["lists.example.com", "example.com", "it.corp.example", *hosts, "localhost"]),
        )
        for _ in range(chance.randint(1, 4)):
            local, domain = spelled(chance, local, domain)
        path = written(chance, local, domain)
        try:
            address = parse_path(f"<{path}>".encode(), smtputf8=True)
        except BadAddress:
            continue
        assert address is not None
        assert names.list_at(address, address.canonical("+")) == "ramadan", path


def envelope(chance: Random) -> list[str]:
    crowd = chance.choice([MEMBERS, READERS, COLLEAGUES, STRANGERS, (RAMADAN, NEWSLETTER)])
    some = chance.sample(crowd, chance.randint(1, min(len(crowd), chance.choice([1, 2, 4, 30]))))
    some += chance.choices([*COLLEAGUES, *STRANGERS, *MEMBERS[:3], RAMADAN], k=chance.choice([0, 0, 0, 1, 3]))
    return [one if chance.random() < 0.6 or set('"[') & set(one) else respelled(chance, one) for one in some]


def respelled(chance: Random, address: str) -> str:
    path = written(chance, *spelled(chance, *address.split("@")))
    return path if path.isascii() and " " not in path else address  # those of the tests split at spaces


def content(chance: Random, to: Sequence[str], number: int) -> bytes:
    """A message that some program could send, or nearly."""
    kind = chance.choice(KINDS) if chance.random() < 0.6 else KINDS[0]
    fields = [f"From: {chance.choice(WRITERS)}", f"To: {', '.join(chance.sample(to, chance.randint(0, min(3, len(to)))))}",
              f"Subject: {chance.choice(SUBJECTS)}", f"Message-ID: <{number}@example.com>", "MIME-Version: 1.0", f"Content-Type: {kind}",
              *chance.sample(FIELDS, chance.choice([0, 0, 1, 2, 5]))]  # fmt: skip
    if chance.random() < 0.3:
        del fields[chance.randrange(len(fields))]
    if chance.random() < 0.2:
        chance.shuffle(fields)
    body = chance.choice(
        [STORY, CAMPAIGN, "Hej!\n", "", "Hej,\n\nwine at six?\n\n/Anna\n", f"Offert {number}.\n.\n..x\n"]
    ).encode()
    if chance.random() < 0.5:
        made = b"".join(chance.choices([*PIECES, b"bacon ", b"\r\n", body], k=chance.randint(1, 40)))
        body = made.replace(b"\0", b"")
    body = body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if chance.random() < 0.2:
        fields.append("Content-Transfer-Encoding: base64")
        body = base64.encodebytes(body).replace(b"\n", b"\r\n")
    made = "\r\n".join(fields).encode("latin-1") + b"\r\n\r\n" + body + b"\r\n"
    return KEY.sign(made, domain="campaigns.example.com", selector="demo") + made if chance.random() < 0.1 else made


@pytest.mark.parametrize("seed", SEEDS)
def test_a_header_read_shortly_is_read_as_ever(seed: int) -> None:
    chance = Random(seed)
    for number in range(4 * MESSAGES):
        message = Message.of(content(chance, envelope(chance), number))
        quick, judged = (look(message, depth=Depth.HEADERS, marked=marked) for marked in (False, True))
        whole = look(message)
        assert quick == replace(judged, looks=Looks.UNCLEAR, score=0.0, marks=()), message.raw[:]
        for name in (
            "subject",
            "from_address",
            "from_ambiguous",
            "shown",
            "message_id",
            "thread",
            "conversation",
            "answers",
            "labels",
            "automatic",
        ):
            assert getattr(quick, name) == getattr(whole, name), (name, message.raw[:])


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_way_has_the_same_verdict(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(seed)
    seen = set()
    async with proxy_and_milter(tmp_path, monkeypatch, plainly=True) as guards:
        for number in range(MESSAGES):
            to = envelope(chance)
            sent = content(chance, to, number)
            there = len(guards.proxy.relay.messages)
            by_proxy, by_milter = await guards.send(
                sent, *to, sender=chance.choice([ANNA, ANNA, "", "campaigns@example.com", "b-1@lists.example.com"])
            )
            assert by_proxy == by_milter, (seed, number, to, sent)
            arrived = [m.content.endswith(sent) for m in guards.proxy.relay.messages[there:]]
            assert arrived == [True] * (by_proxy.action == "relay"), (seed, number, to, sent)
            seen.add(by_proxy.action)
    assert {"relay", "hold"} <= seen
