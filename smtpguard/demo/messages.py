"""The messages of the demo, as mail programs would write them: raw bytes, CRLF, UTF-8; and the key
that its campaign tool signs with (RFC 6376)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime, make_msgid
from typing import Any

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

HOME = "nordhandel.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoMessage:
    """One message and its envelope. ``source``: the loopback address that it comes from."""

    subject: str
    sender: str
    to: str
    body: str
    recipients: tuple[str, ...]
    name: str = ""
    reverse_path: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    signed: bool = False
    source: str = "127.0.0.1"
    message_id: str = field(default_factory=lambda: make_msgid(domain=HOME))
    date: str = field(default_factory=lambda: format_datetime(datetime.now(UTC)))

    @property
    def mail_from(self) -> str:
        return self.sender if self.reverse_path is None else self.reverse_path

    def other(self, **changed: Any) -> DemoMessage:
        """Another message with the same text."""
        return replace(self, message_id=make_msgid(domain=HOME), **changed)

    def content(self) -> bytes:
        shown = f'"{self.name}" <{self.sender}>' if self.name else self.sender
        lines = [
            f"From: {shown}",
            f"To: {self.to}",
            f"Subject: {self.subject}",
            f"Date: {self.date}",
            f"Message-ID: {self.message_id}",
            *(f"{name}: {value}" for name, value in self.headers),
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Transfer-Encoding: 8bit",
            "",
            *self.body.strip().splitlines(),
            "",
        ]
        return "\r\n".join(lines).encode()


OUTLOOK = (
    ("Thread-Topic", "Dieten"),
    ("Thread-Index", "AdsT3m0q1v0Q8cU8R0mY6g3p2k9aXw=="),
    ("In-Reply-To", f"<c81f4e@exchange.{HOME}>"),
    ("References", f"<c81f4e@exchange.{HOME}>"),
    ("Accept-Language", "sv-SE, en-US"),
    ("Content-Language", "sv-SE"),
    ("X-MS-Has-Attach", ""),
    ("X-MS-TNEF-Correlator", ""),
    ("X-Originating-IP", "[10.1.4.22]"),
)

STORY = """
Hej!

Jo, jag kör på bacon till frukost och en flaska sprit på fredagen, och vågen rör sig inte.
Läkaren säger att det är fläsket. Jag säger att det är läkaren.

Säg inget till cheferna. Vi ses vid kaffet!

/Kalle

Kalle Berg
Inköp, Nordhandel AB
Detta meddelande är konfidentiellt och endast avsett för internt bruk.

Från: Lotta Ek <lotta.ek@nordhandel.example>
Skickat: den 2 mars 2026 09:12
Till: Kalle Berg <kalle.berg@nordhandel.example>
Ämne: Dieten

Hur går det med dieten? Du ser ju ut som förut.
/Lotta
"""

CAMPAIGN = """
Ramadan mubarak!

We wish you and your family a blessed month. Dates, lentils and rose water are at half price in all our shops
from today until Eid, and our shops are open until midnight.

With warm greetings from all of us at Nordhandel

You get this letter since you asked for our Ramadan greetings.
Unsubscribe: https://www.nordhandel.example/unsubscribe
Nordhandel AB, Storgatan 1, Stockholm
"""

CAMPAIGN_HEADERS = (
    ("List-Id", "Ramadan greetings <ramadan.lists.nordhandel.example>"),
    ("List-Unsubscribe", "<https://www.nordhandel.example/unsubscribe>, <mailto:leave@nordhandel.example>"),
    ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ("Precedence", "bulk"),
    ("Feedback-ID", "ramadan:campaigns:nordhandel"),
)

NEWSLETTER = """
Dear {name},

spring has come to our shops, and with it everything that a garden asks for: bulbs, roses, seeds, soil and tools to last a lifetime.
Until Sunday all of it costs a fifth less, and whoever shows this letter at the desk gets a bag of compost for nothing.
Your customer number is {number}; what we have put aside for you is at https://www.nordhandel.example/spring?c={number:x}

We look forward to seeing you,
all of us at Nordhandel

Unsubscribe: https://www.nordhandel.example/unsubscribe?c={number:x}
"""

NEWSLETTER_HEADERS = (
    ("List-Unsubscribe", "<https://www.nordhandel.example/unsubscribe>"),
    ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ("Precedence", "bulk"),
)

ANSWER = """
Hej Amina,

Tack för ditt mejl. Din beställning skickades i går och bör vara hos dig på torsdag. Säg till om den inte kommer.

Med vänlig hälsning
Sara Nyman
Kundtjänst, Nordhandel AB

Från: Amina
Skickat: den 2 mars 2026 08:40
Till: Kundtjänst
Ämne: Var är mitt paket?

Hej, jag undrar var mitt paket är?
"""

RESET = """
Somebody, probably you, asked for a new password for your account.

Choose it here within an hour: https://www.nordhandel.example/reset/8Kq2
If it was not you, nothing has happened, and you need do nothing.
"""

COLLEAGUES = """
Hej alla,

Mötet i morgon börjar tio i stället för nio. Det blir bacon och ägg efteråt, som vanligt.

/Lotta
"""

WINE = """
Hi Yusuf,

Good to see you at the fair. Shall we have a glass of wine at six and talk about the autumn order?

Best regards
Sara
"""

EVERYBODY = """
Please do not answer to all. I do it only to say that nobody should.

/Kalle
"""

AWAY = """
I am away until Monday. In urgent matters please write to sales@partner.example.
"""

ORDINARY = """
Hello Peter,

The drawings are attached next time, promised. Friday works.

Sara
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """``pem``: PKCS #1. ``record``: the TXT record of the selector in DNS."""

    pem: bytes = field(repr=False)
    record: str

    def sign(self, message: bytes, *, domain: str, selector: str) -> bytes:
        """The DKIM-Signature field."""
        signature: bytes = dkim.sign(
            message,
            selector.encode(),
            domain.encode(),
            self.pem,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=[b"from", b"to", b"subject", b"date", b"message-id", b"list-id"],
        )
        return signature


def make_key(bits: int = 2048) -> Key:
    made = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    plain = serialization.NoEncryption()
    public = made.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(
        pem=made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain),
        record=f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}",
    )
