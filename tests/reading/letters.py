"""Short made-up messages for tests of the reader, with the header fields that each mail program sets."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

from smtpguard.mail.message import Message
from smtpguard.reading.looks import Reading
from smtpguard.reading.read import read
from smtpguard.reading.request import Bounds, Depth, Surroundings
from smtpguard.reading.topics import Vocabularies, compile_vocabularies

FOLDER = Path(__file__).parents[2] / "config" / "vocabularies"
# Thread-Index: 22 octets start a conversation, 27 have one answer.
NEW_THREAD = base64.b64encode(b"\x01" + bytes(21)).decode()
GROWN_THREAD = base64.b64encode(b"\x01" + bytes(26)).decode()

OUTLOOK = {
    "Thread-Topic": "Lunch",
    "Thread-Index": GROWN_THREAD,
    "Message-ID": "<AM0PR01MB1234567890ABCDEF@AM0PR01MB1234.eurprd01.prod.exchangelabs.com>",
    "X-MS-Has-Attach": "",
    "X-OriginatorOrg": "example.com",
    "Accept-Language": "sv-SE, en-US",
}
PLATFORM = {
    "List-Unsubscribe": "<https://news.example.com/u/123>, <mailto:leave-123@news.example.com>",
    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    "Feedback-ID": "1:2:3:mc",
    "X-Campaign": "autumn-17",
}

STORY = """Hej alla,

jag har kört lågkolhydratkost i tre veckor nu och det är fantastiskt: baconsvarv till frukost, julskinkan
som mellanmål och en stor whisky före läggdags. Vem är på en sprit- och fläskkväll på fredag?

Hälsningar
Bo

________________________________
Från: Anna Ek <anna@example.com>
Skickat: den 3 mars 2025 09:12
Till: Bo Alm <bo@example.com>
Ämne: Dieten

Hur går det med dieten?
"""
CAMPAIGN = """<html><head><meta name="viewport" content="width=device-width"><title>Höst</title></head><body>
<table role="presentation"><tr><td><a href="https://news.example.com/v?utm_source=x">Visa i webbläsaren</a></td></tr>
<tr><td><img src="https://news.example.com/h.png" alt="Höstens nyheter"></td></tr></table>
<p>Kära kund! Höstens erbjudanden är här. Läs mer om rabatten.</p>
<p>Du får detta mejl eftersom du är kund. <a href="https://news.example.com/unsubscribe/123">Avprenumerera</a></p>
<img src="https://news.example.com/o.gif" width="1" height="1"></body></html>"""


@cache
def vocabularies() -> Vocabularies:
    return compile_vocabularies(
        {p.stem: yaml.load(p.read_text(), Loader=yaml.CSafeLoader) for p in sorted(FOLDER.glob("*.yaml"))}
    )


@cache
def around() -> Surroundings:
    return Surroundings(
        domains=frozenset({"example.com", "example.se"}),
        list_addresses=frozenset({"ramadan@lists.example.com", "customers@example.com"}),
        list_ids=frozenset({"ramadan.lists.example.com"}),
        delimiters="+",
        vocabularies=vocabularies(),
    )


def letter(
    body: str = "Hej!\n", headers: Mapping[str, str] | None = None, *, kind: str = "text/plain", charset: str = "utf-8"
) -> Message:
    """None as a header's value removes a default field. Line ends of the body become CRLF."""
    fields: dict[str, str] = {
        "From": "Anna Ek <anna@example.com>",
        "To": "customers@example.com",
        "Subject": "Hej",
        "Message-ID": "<1@example.com>",
        "MIME-Version": "1.0",
        "Content-Type": f"{kind}; charset={charset}",
        "Content-Transfer-Encoding": "8bit",
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value != "-")
    return Message.of(head.encode() + b"\r\n" + body.replace("\r\n", "\n").replace("\n", "\r\n").encode(charset))


def parts(*bodies: tuple[str, str], kind: str = "multipart/mixed", headers: Mapping[str, str] | None = None) -> Message:
    """A multipart message of (header lines, body) pairs."""
    inner = "".join(f"--bb\n{head}\n\n{body}\n" for head, body in bodies) + "--bb--\n"
    return letter(inner, {"Content-Type": f'{kind}; boundary="bb"', **(headers or {})})


def look(
    message: Message,
    surroundings: Surroundings | None = None,
    depth: Depth = Depth.TEXT,
    bounds: Bounds | None = None,
    *,
    marked: bool = True,
) -> Reading:
    return read(message, surroundings or around(), depth, bounds or Bounds(), marked=marked)


def names(reading: Reading) -> set[str]:
    return {m.name for m in reading.marks}


def topics(reading: Reading) -> set[str]:
    return {t.vocabulary for t in reading.topics}
