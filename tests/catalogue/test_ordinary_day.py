"""Ordinary mail passes byte for byte: nothing is held, and no notice is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from smtpguard.mailings.model import State
from tests.catalogue.wholeguard import (
    MEMBERS,
    OUTLOOK,
    RAMADAN,
    READERS,
    WholeGuard,
    personal_mail,
    policy,
    whole_guard,
)

SARA = "Sara <sara@example.com>"


async def nothing_happened(guard: WholeGuard) -> None:
    assert await guard.holds() == []
    assert await guard.deliver() == [], "no notice, least of all one that names a list"


async def test_a_hundred_answers_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within an hour, from Outlook, each quoting the customer, from a mailbox that several people share."""
    stated = policy().replace("organization:\n", "organization:\n  shared: [sara@example.com]\n", 1)
    async with whole_guard(tmp_path, monkeypatch, listen=", senders_verified: true", text=stated) as guard:
        await answering_a_hundred(guard)
        await nothing_happened(guard)


async def answering_a_hundred(guard: WholeGuard) -> None:
    for n, customer in enumerate((*MEMBERS[:50], *READERS[:50])):
        body = f"Hej,\r\n\r\nDin beställning {n} skickades i går.\r\n\r\nVänligen\r\nSara\r\n\r\nFrån: Kund {n} <{customer}>\r\nSkickat: i går\r\nÄmne: Var är mitt paket?\r\n\r\nVar är det?\r\n"
        content = personal_mail(
            sender=SARA,
            to=customer,
            subject="SV: Var är mitt paket?".replace("ä", "a"),
            body=body,
            message_id=f"<{n}@example.com>",
        )
        await guard.passes(content, customer, sender="sara@example.com")


async def test_an_offer_with_colleagues_in_cc_passes(guard: WholeGuard) -> None:
    cc = ("bo@example.com", "di@example.com", "eva@example.com")
    content = personal_mail(
        sender=SARA, to=MEMBERS[0], head=f"{OUTLOOK}Cc: {', '.join(cc)}\r\n", subject="Offert", body="Bifogat.\r\n"
    )
    await guard.passes(content, MEMBERS[0], *cc, sender="sara@example.com")
    await nothing_happened(guard)


async def test_password_resets_and_receipts_pass(guard: WholeGuard) -> None:
    """One template to each of many customers of both lists."""
    for n, customer in enumerate((*MEMBERS, *READERS[:170])):
        content = personal_mail(sender="noreply@example.com", to=customer, subject="Your new password", head="Auto-Submitted: auto-generated\r\n",
                         body=f"Choose it here: https://www.example.com/reset/{n:06x}\r\n", message_id=f"<reset{n}@example.com>")  # fmt: skip
        await guard.passes(content, customer, sender="noreply@example.com", source="127.0.0.3")
    await nothing_happened(guard)


RECEIPT = """\
Hi {name}!\r
\r
Thank you for shopping with us. This is your receipt, and a proof of purchase if anything should have to be changed.\r
\r
    {n} x coffee beans, dark roast      {n},90 EUR\r
    Order {n}, paid on {n} March by card ending in {n}\r
\r
Your parcel leaves our warehouse tomorrow morning and can be followed at https://shop.example.com/parcel/{n:06x}. You may\r
return what you have not opened within thirty days, in any of our shops or by post. Keep this receipt until then.\r
"""


async def test_three_hundred_receipts_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over kept connections, to three hundred customers of one list: a mailing by its text, with a standing approval by
    its origin."""
    customers = [f"shopper{n}@customers.example" for n in range(300)]

    async def shop(guard: WholeGuard, mine: list[str]) -> None:
        client = await guard.connect(source="127.0.0.3")
        for customer in mine:
            n = customers.index(customer)
            text = RECEIPT.format(name=customer.partition("@")[0], n=n)
            client.say(f"MAIL FROM:<noreply@example.com>\r\nRCPT TO:<{customer}>\r\nDATA\r\n".encode())
            assert [(await client.hear())[:3] for _ in range(3)] == ["250", "250", "354"]
            content = personal_mail(sender="noreply@example.com", to=customer, subject=f"Receipt {n}", body=text,
                             head="Auto-Submitted: auto-generated\r\n", message_id=f"<receipt{n}@example.com>")  # fmt: skip
            client.say(content + b".\r\n")
            assert (await client.hear()).startswith("250"), customer

    async with whole_guard(tmp_path, monkeypatch, readers=customers) as guard:
        await asyncio.gather(*(shop(guard, customers[n::10]) for n in range(10)))
        assert len(guard.relay.messages) == len(customers)
        await nothing_happened(guard)
        [mailing] = await guard.office._store.mailings.newest(least=20)
        assert (mailing.customers, mailing.people.relayed + mailing.people.admitted) == (300, 300)
        assert mailing.state is State.PASSING
        stranger = customers[0]
        lookalike = personal_mail(sender="sara@example.com", to=stranger, subject="Receipt", body=RECEIPT.format(name="you", n=1),
                           head="", message_id="<forged@example.com>")  # fmt: skip
        await guard.held(lookalike, stranger)  # the same text from elsewhere has no standing approval


async def test_an_invitation_passes(guard: WholeGuard) -> None:
    invitation = (
        "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART:20260302T090000Z\r\nSUMMARY:Visit\r\n"
        "END:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    mime = "MIME-Version: 1.0\r\nContent-Type: text/calendar; method=REQUEST; charset=utf-8\r\n"
    content = personal_mail(sender=SARA, to=", ".join(MEMBERS[:3]), subject="Visit", body=invitation, mime=mime)
    await guard.passes(content, *MEMBERS[:3], sender="sara@example.com")
    await nothing_happened(guard)


async def test_a_letter_with_topic_words_passes(guard: WholeGuard) -> None:
    content = personal_mail(
        sender=SARA, to=MEMBERS[0], subject="Wine at six?", body="A glass of wine, and bacon?\r\n\r\nSara\r\n"
    )
    await guard.passes(content, MEMBERS[0], sender="sara@example.com")
    await nothing_happened(guard)


async def test_a_reply_in_ten_transactions_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule on hot conversations counts a reply once, even if an MTA splits it into ten transactions."""
    storm = {"id": "storm", "when": {"thread.replies": ">= 2 in 10m"}, "then": "hold"}
    async with whole_guard(tmp_path, monkeypatch, text=policy(rules=[storm])) as guard:
        everybody = [f"colleague{n}@example.com" for n in range(500)]
        content = personal_mail(to="everybody@example.com", message_id="<reply@example.com>")
        for start in range(0, 500, 50):
            await guard.passes(content, *everybody[start : start + 50])
        await nothing_happened(guard)


async def test_a_retry_after_451_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = {"id": "busy", "when": {"sender.customers": ">= 3 in 1h"}, "then": "hold"}
    storm = {"id": "storm", "when": {"thread.replies": ">= 2 in 10m"}, "then": "hold"}
    async with whole_guard(tmp_path, monkeypatch, text=policy(rules=[busy, storm])) as guard:
        content = personal_mail(to=MEMBERS[0])
        guard.relay.on("<dot>", "451 4.3.0 Later", times=4)
        for _ in range(4):
            assert (await guard.send(content, MEMBERS[0])).startswith("451 4.3.0")
        await guard.passes(content, MEMBERS[0])
        await nothing_happened(guard)
        await guard.passes(
            personal_mail(to=MEMBERS[1], head="", message_id="<2@example.com>", subject="Another"), MEMBERS[1]
        )
        third = await guard.held(
            personal_mail(to=MEMBERS[2], head="", message_id="<3@example.com>", subject="A third"), MEMBERS[2]
        )
        assert [h.rule for h in third.verdict.hits if h.rule == "busy"] == ["busy"]


STAFF = tuple(f"colleague{n}@example.com" for n in range(40))


async def test_colleagues_on_the_newsletter_count_as_colleagues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail to colleagues who are on the newsletter passes: through an expanded alias, shown or not, and one by one."""
    sample = yaml.safe_load(policy())
    text = policy(organization={**sample["organization"], "customers_here": False})
    async with whole_guard(tmp_path, monkeypatch, text=text, readers=(*READERS, *STAFF)) as guard:
        afterwork = "Vin och bacon i fikarummet klockan fem, alla kollegor är välkomna dit.\r\n"
        for n, to in enumerate(("all@example.com", ", ".join(STAFF))):
            await guard.passes(personal_mail(to=to, body=afterwork, message_id=f"<{n}@example.com>"), *STAFF)
        for colleague in STAFF:
            await guard.passes(
                personal_mail(to="all@example.com", body=afterwork, message_id="<3@example.com>"), colleague
            )
        team = personal_mail(to=READERS[0], head=f"{OUTLOOK}Cc: team@example.com\r\n", message_id="<4@example.com>")
        await guard.passes(team, READERS[0], *STAFF[:6])
        await nothing_happened(guard)
        await guard.held(personal_mail(to="team@example.com", message_id="<5@example.com>"), *STAFF[:6], *READERS[:6])


async def test_with_an_expired_index_only_possible_mailings_are_held(guard: WholeGuard) -> None:
    """With an index older than the policy allows, possible mailings are held, and a letter passes."""
    await guard.pass_(days=14)
    await guard.passes(personal_mail(to=MEMBERS[0]), MEMBERS[0])
    await guard.passes(personal_mail(to="bob@partner.example", message_id="<2@example.com>"), "bob@partner.example")
    await guard.held(personal_mail(message_id="<3@example.com>"), RAMADAN)
