"""The proxy and the milter reach the same verdict, for all messages of the tests and each kind of recipient."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from smtpguard.demo import script as demo
from tests.catalogue.proxyandmilter import ProxyAndMilter, envelopes, proxy_and_milter
from tests.catalogue.wholeguard import MEMBERS, RAMADAN, personal_mail, signed
from tests.peers import letters
from tests.reading import specimens


def mail() -> Iterator[tuple[str, bytes]]:
    """(Name, content) of each message."""
    made = (specimens.people(), specimens.mailings(), specimens.small_newsletters(), specimens.posts())
    for n, specimen in enumerate(itertools.chain(*made)):
        if n % 7 == 0:  # every kind of each program, languages in turn
            yield f"specimen {n}", specimen.message.raw[:].rstrip(b"\r\n") + b"\r\n"
    yield "the story", letters.story("1@example.com")
    yield "a campaign", letters.campaign("2@example.com")
    yield "a campaign, signed", signed(letters.campaign("3@example.com"))
    yield "a receipt", letters.receipt("4@example.com", to=MEMBERS[0], number=7)
    yield "an answer", letters.answer("5@example.com", to=MEMBERS[3], about="offert", cc=["bo@example.com"])
    for name, text in (("demo story", demo.STORY), ("demo campaign", demo.CAMPAIGN), ("demo answer", demo.ANSWER),
                       ("demo wine", demo.WINE), ("demo away", demo.AWAY)):  # fmt: skip
        body = text.strip().replace("\n", "\r\n") + "\r\n"
        yield name, personal_mail(body=body, message_id=f"<{name.replace(' ', '-')}@example.com>")
    yield "folded, odd and empty fields", personal_mail(head="X-Odd:x\r\nX-Fold: a\r\n\tb\r\n \r\nX-Empty:\r\n")
    yield "two From", b"From: eva@example.com\r\n" + personal_mail(message_id="<two@example.com>")
    yield "dots", personal_mail(body=".\r\n..\r\n.x\r\n\r\n.\r\n", message_id="<dots@example.com>")
    yield "no body", personal_mail(body="", message_id="<none@example.com>")
    yield "unreadable", personal_mail(mime="Content-Type: multipart/mixed; boundary=x\r\n", body="no part\r\n")
    yield "8 bit in a header", personal_mail(head="X-Raw: sm\xf6rg\xe5s\r\n", message_id="<raw@example.com>")
    yield "a bare CR", personal_mail(body="x\ry\r\n")
    yield "NUL", personal_mail(body="x\0y\r\n")
    yield "a loop", b"Received: by x; y\r\n" * 60 + personal_mail()
    yield "large", personal_mail(body="Hej\r\n" * 300_000, message_id="<large@example.com>")


@pytest.fixture
async def guards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProxyAndMilter]:
    async with proxy_and_milter(tmp_path, monkeypatch) as made:
        yield made


async def test_all_messages_of_the_tests_get_the_same_verdict(guards: ProxyAndMilter) -> None:
    actions = set()
    for (name, content), to in zip(mail(), itertools.cycle(envelopes()), strict=False):
        by_proxy, by_milter = await guards.send(content, *to)
        assert by_proxy == by_milter, f"{name} to {to}"
        actions.add(by_proxy.action)
    assert {"relay", "hold", "550 5.5.2", "550 5.6.0", "554 5.4.6"} <= actions


async def test_the_story_and_its_retry_get_the_same_verdict(guards: ProxyAndMilter) -> None:
    for n, to in enumerate(envelopes()):
        for _ in ("first", "again"):
            by_proxy, by_milter = await guards.send(letters.story(f"{n}@example.com"), *to)
            assert by_proxy == by_milter, to
        assert len(await guards.by_milter.holds()) == len(await guards.proxy.holds()), "a retry gets the same hold"
    by_proxy, by_milter = await guards.send(letters.story("null@example.com"), RAMADAN, sender="")
    assert by_proxy == by_milter
    assert by_proxy.action == "550 5.7.1", "automatic mail to a list"
