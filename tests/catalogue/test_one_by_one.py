"""The story to one customer after the other, in each shape that people and scripts send: held at the sample policy's
limit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.catalogue.wholeguard import ANNA, MEMBERS, READERS, WholeGuard, personal_mail, signed, whole_guard

BOUND = 20  # of 80 people on the list: the part that the rule internal-to-much-of-a-list holds
FIRST = ("Anna", "Bo", "Cecilia", "David", "Elsa", "Christoffer", "Greta", "Hassan")
STORY = (
    "Hej,\r\n\r\nnu har jag ätit lågkolhydratkost i tre veckor och gått ner fyra kilo: bacon till frukost, skinka till lunch och en whisky\r\n"
    "när barnen har somnat. Någon som vill vara med på en fläskfest på fredag? Jag tar med mig en flaska rom och Bosse fixar grillen.\r\n\r\n/Anna\r\n"
)
QUOTED = "Från: Bo Alm <bo@example.com>\r\nSkickat: den 2 mars 2026 09:12\r\nTill: Anna Ek <anna@example.com>\r\nÄmne: Dieten\r\n\r\n"
TEXT = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
MIXED = 'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n'
HTML = "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"


def mixed(text: str, head: str, body: str) -> tuple[str, str]:
    return f"--b\r\n{TEXT}\r\n{text}\r\n--b\r\n{head}\r\n{body}\r\n--b--\r\n", MIXED


def noise(n: int, characters: int) -> str:
    return "".join(random.Random(n).choices("bcdfghjklmnpqrstvwx ", k=characters))


def zero_width(n: int) -> str:
    draw = random.Random(n)
    return "".join(
        c + (draw.choice("\u200b\u200c\u2060\u3164\xad") if c.isalpha() and draw.random() < 0.05 else "") for c in STORY
    )


def typos(n: int) -> str:
    """The story with one letter in two hundred changed."""
    draw = random.Random(n)
    return "".join(draw.choice("abcdefgh") if c.isalpha() and draw.random() < 0.005 else c for c in STORY)


def homoglyphs(n: int) -> str:
    draw = random.Random(n)
    return "".join({"a": "а", "e": "е", "o": "о"}.get(c, c) if draw.random() < 0.3 else c for c in STORY)


SHAPES: dict[str, Callable[[int], tuple[str, str]]] = {
    "long": lambda n: (STORY.replace("Hej", f"Hej {FIRST[n % 8]}"), ""),
    "under 200 characters": lambda n: (f"Hej {FIRST[n % 8]}!\r\n\r\nBacon och whisky hos Bosse på fredag, ta med skinka. Säg inget till cheferna.\r\n\r\n/Anna\r\n", ""),
    "very short": lambda n: ("Fläskfest fredag!\r\n", ""),
    "a reply with the thread quoted": lambda n: (f"Ja!\r\n\r\n{QUOTED}{STORY}", ""),
    "forwarded with nothing added": lambda n: (f"{QUOTED}{STORY}", ""),
    "forwarded with a word": lambda n: (f"Kolla {FIRST[n % 8]}!\r\n\r\n{QUOTED}{STORY}", ""),
    "see attached, with a PDF": lambda n: mixed("Se bifogat", 'Content-Type: application/pdf; name="a.pdf"\r\n', "%PDF fläsk"),
    "see attached, greeted, with a PDF": lambda n: mixed(f"Hej {FIRST[n % 8]}, se bifogat", 'Content-Type: application/pdf; name="a.pdf"\r\n', "%PDF fläsk"),
    "a message attached": lambda n: mixed("Se bifogat", "Content-Type: message/rfc822\r\n", f"From: bo@example.com\r\nSubject: Dieten\r\n{TEXT}\r\n{STORY}"),
    "a text attached": lambda n: mixed("Se bifogat", f'{TEXT}Content-Disposition: attachment; filename="a.txt"\r\n', STORY),
    "one paragraph that ends with a way off a list": lambda n: (f"{' '.join(STORY.split())} Avregistrera dig här: https://x.example/{n}\r\n", ""),
    "with a footer of a mailing": lambda n: (f"{STORY}\r\nAvregistrera dig här: https://x.example/{n}\r\n", ""),
    "with junk that nobody sees": lambda n: (f'<p>{STORY}</p><p style="font-size:1px;color:#fff">{noise(n, 1500)}</p>', HTML),
    "zero-width letters": lambda n: (zero_width(n), ""),
    "homoglyphs": lambda n: (homoglyphs(n), ""),
    "typos": lambda n: (typos(n), ""),
}  # fmt: skip


async def _reached(guard: WholeGuard, shape: Callable[[int], tuple[str, str]], of: int = 60) -> int:
    """The number of customers who got it before it was held."""
    for n, member in enumerate(MEMBERS[:of]):
        body, mime = shape(n)
        body = body if body.endswith("\r\n") else f"{body}\r\n"
        content = personal_mail(
            to=member, subject="Dieten", body=body, mime=mime, head="", message_id=f"<{n}@example.com>"
        )
        if "Held" in await guard.send(content, member, sender=ANNA):
            return n
    return of


@pytest.mark.parametrize("shape", SHAPES)
def test_the_story_one_by_one_stops_at_the_limit(shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> int:
        async with whole_guard(tmp_path, monkeypatch) as guard:
            return await _reached(guard, SHAPES[shape])

    assert asyncio.run(play()) < BOUND


# ordinary mail is no mailing because of its quotations or attachments


FEW = 35
"""Below the sample's limit of first contacts of a person in an hour."""


async def _all_pass(guard: WholeGuard, letters: list[tuple[str, str, str]]) -> None:
    for n, (member, body, mime) in enumerate(letters):
        content = personal_mail(
            to=member, subject=f"SV: Order {n % 3}", body=body, mime=mime, head="", message_id=f"<{n}@example.com>"
        )
        answer = await guard.send(content, member, sender=ANNA)
        assert "Held" not in answer, (n, answer)


def _run(play: Callable[[WholeGuard], object], folder: Path, patch: pytest.MonkeyPatch) -> None:
    async def all_of_it() -> None:
        async with whole_guard(folder, patch) as guard:
            await play(guard)  # type: ignore[misc]

    asyncio.run(all_of_it())


def test_answers_with_quotations_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each customer answered the newsletter, and gets a few words above their own mail."""

    def answer(member: str) -> str:
        return f"Tack, vi återkommer!\r\n\r\nFrån: Kund <{member}>\r\nSkickat: den 2 mars 2026 09:12\r\nTill: Anna <anna@example.com>\r\nÄmne: Order\r\n\r\nHej,\r\n{STORY}"

    _run(lambda guard: _all_pass(guard, [(m, answer(m), "") for m in READERS[:FEW]]), tmp_path, monkeypatch)


def test_a_shared_attachment_makes_no_mailing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_prices(n: int) -> tuple[str, str]:
        return mixed(
            f"Här är priset på {noise(n, 12)}", 'Content-Type: application/pdf; name="priser.pdf"\r\n', "%PDF priser"
        )

    _run(
        lambda guard: _all_pass(guard, [(m, *with_prices(n)) for n, m in enumerate(READERS[:FEW])]),
        tmp_path,
        monkeypatch,
    )


def test_quoting_a_newsletter_makes_no_mailing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    news = (
        "Kära kund,\r\n\r\nvåren har kommit till våra butiker och med den allt som en trädgård behöver: lökar, rosor, frön och redskap.\r\n"
        "Till och med söndag kostar allt en femtedel mindre, och den som har med sig det här brevet får en säck jord på köpet.\r\n"
        "Välkommen till oss i helgen, vi har öppet mellan nio och sju och bjuder på kaffe.\r\n"
    )

    async def play(guard: WholeGuard) -> None:
        for n in range(25):
            campaign = personal_mail(
                to=READERS[n], sender="News <campaigns@example.com>", subject="Våren", body=news, message_id=f"<c{n}@example.com>",
                head=f"List-Unsubscribe: <https://news.example.com/{n}>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
            )  # fmt: skip
            assert "Held" not in await guard.send(signed(campaign), READERS[n], sender="campaigns@example.com")
        head = "Från: Nyheter <campaigns@example.com>\r\nSkickat: den 2 mars 2026 09:12\r\nTill: Alla <alla@kunder.example>\r\nÄmne: Våren\r\n\r\n"
        await _all_pass(
            guard, [(m, f"Har du sett {noise(n, 9)}?\r\n\r\n{head}{news}", "") for n, m in enumerate(READERS[:FEW])]
        )

    _run(play, tmp_path, monkeypatch)
