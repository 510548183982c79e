"""Messages for these tests: the story, and ordinary mail."""

from __future__ import annotations

import base64
from collections.abc import Iterable

OUTLOOK = """\
Thread-Topic: Bacon och brännvin
Thread-Index: AdpXh2mZ3c1pQm9tT0u1vR7yT0kz1g==
X-MS-Has-Attach:
X-MS-TNEF-Correlator:
X-OriginatorOrg: example.com
Accept-Language: sv-SE, en-US
Content-Language: sv-SE
"""


def mail(
    *,
    sender: str = "Anna Andersson <anna@example.com>",
    to: str = "Bo Berg <bo@example.com>",
    subject: str = "Lunch",
    text: str = "Hej!\n",
    message_id: str,
    headers: str = "",
) -> bytes:
    """One plain message with CRLF line ends, in UTF-8 and 8BITMIME."""
    head = (
        f"From: {sender}\nTo: {to}\nSubject: {encoded(subject)}\nDate: Mon, 2 Mar 2026 10:11:12 +0100\n"
        f"Message-ID: <{message_id}>\n{headers}MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
        "Content-Transfer-Encoding: 8bit\n\n"
    )
    return (head + text).replace("\n", "\r\n").encode()


def encoded(text: str) -> str:
    return text if text.isascii() else f"=?utf-8?B?{base64.b64encode(text.encode()).decode()}?="


DIET = (
    "Jag kör lågkolhydrat nu: bacon till frukost och en snaps brännvin på lördagen, det är hela knepet.\n"
    "Fläsket ska vara knaprigt. Ska vi äta lunch imorgon?"
)


def story(
    message_id: str,
    *,
    to: str = "ramadan@lists.example.com",
    subject: str = "SV: Bacon och brännvin",
    text: str = DIET,
) -> bytes:
    """A colleague answers another about a diet, in Swedish, from Outlook. Equal ``text`` makes copies of one mailing."""
    return mail(
        to=to,
        subject=subject,
        message_id=message_id,
        headers=OUTLOOK + "In-Reply-To: <first@example.com>\nReferences: <first@example.com>\n",
        text=(
            f"Hej Bo!\n\n{text}\n\n"
            "/Anna\n\nFrån: Bo Berg <bo@example.com>\nSkickat: den 2 mars 2026 09:58\nTill: Anna Andersson <{sender}>\n"
            "Ämne: Bacon och brännvin\n\nHur gick det med dieten?\n"
        ),
    )


def campaign(message_id: str, *, to: str = "ramadan@lists.example.com") -> bytes:
    """A mailing of the campaign tool, not signed."""
    return mail(
        sender="Example AB <campaigns@example.com>",
        to=to,
        subject="Ramadan Mubarak from all of us",
        message_id=message_id,
        headers=(
            "List-Unsubscribe: <https://campaigns.example.com/u/1>, <mailto:leave@campaigns.example.com>\n"
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click\nList-Id: <ramadan.lists.example.com>\nPrecedence: bulk\n"
            "Feedback-ID: ramadan:example:campaigns\n"
        ),
        text=(
            "Ramadan Mubarak!\n\nOur shops are open until midnight during the holy month.\n\n"
            "You get this mail because you asked for our greetings. Unsubscribe: https://campaigns.example.com/u/1\n"
            "Example AB, Storgatan 1, 111 22 Stockholm\n"
        ),
    )


def receipt(message_id: str, *, to: str, number: int) -> bytes:
    return mail(
        sender="Example shop <noreply@example.com>",
        to=to,
        subject=f"Your receipt {number}",
        message_id=message_id,
        headers="Auto-Submitted: auto-generated\n",
        text=f"Thank you for your order {number}. The sum of {number % 900} kr was charged to your card.\n",
    )


def answer(message_id: str, *, to: str, about: str, cc: Iterable[str] = (), sender: str = "anna@example.com") -> bytes:
    """A salesperson's answer to one customer, from Outlook: it looks internal, and is ordinary."""
    return mail(
        sender=f"Anna Andersson <{sender}>",
        to=to,
        subject=f"SV: {about}",
        message_id=message_id,
        headers=OUTLOOK
        + "".join(f"Cc: {', '.join(cc)}\n" for _ in [0] if cc)
        + "In-Reply-To: <their-question@example.org>\nReferences: <their-question@example.org>\n",
        text=f"Hej!\n\nTack för frågan om {about}. Vi återkommer med en offert på fredag.\n\nMed vänlig hälsning\nAnna Andersson\nExample AB\n\n"
        f"Från: {to}\nSkickat: den 2 mars 2026 08:12\nTill: Anna Andersson <anna@example.com>\nÄmne: {about}\n\nHej, vad kostar {about}?\n",
    )
