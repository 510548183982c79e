"""After a mailing is approved, anything else from the same origin is held: content that was not seen reaches no one."""

from __future__ import annotations

import base64
import quopri
from collections.abc import AsyncIterator
from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
import yaml

from smtpguard.holds import coverage
from smtpguard.holds.effects import Seen
from smtpguard.holds.model import Choice, Hold
from smtpguard.mailings import slots
from smtpguard.mailings.differences import FACT
from tests.catalogue.wholeguard import (
    ANNA,
    DPO,
    EVA,
    LETTER,
    MEMBERS,
    NEWSLETTER,
    RAMADAN,
    READERS,
    WholeGuard,
    personal_mail,
    policy,
    signed,
    whole_guard,
)
from tests.every import every
from tests.script import DOT, DROP

CAMPAIGNS = "campaigns@example.com"
SPRING = (
    "spring has come to our shops, and with it everything that makes a garden: bulbs, roses, seeds and tools",
    "until Sunday all of it costs a fifth less, and whoever brings this letter gets a bag of soil for nothing",
    "we are open from nine to seven on every day of the week, and have coffee for those who have to wait",
    "our gardeners show on Saturday how roses are cut, and answer whatever you want to know about moss and lice",
    "whoever orders more than forty pounds of soil gets it brought home, within the ring road and at no cost",
    "we look forward to seeing you, and wish you a spring with much sun and just enough rain",
)
INTERNAL = (
    "Lisa, the complaints about the Ramadan customers stay between us until the board has met; tell nobody downstairs"
)
FOOT = (
    '<p style="color:#888">You get this since you are a customer. '
    '<a href="https://news.example.com/u/1">Unsubscribe here</a></p>'
)
BOUNDARY = "=_between"


def page(*paragraphs: str, above: str = "", below: str = "", foot: str = FOOT, link: str = "spring") -> str:
    texts = "".join(f"<p>{text}.</p>\r\n" for text in paragraphs or SPRING)
    return (
        f'<html><body>{above}<h1>Spring in the shops</h1>\r\n{texts}<p><a href="https://shop.example.com/{link}">'
        f"Look at all of it</a></p><p>Kind regards<br>Your garden shop</p>{foot}{below}</body></html>\r\n"
    )


def newsletter(
    source: str = "", *parts: tuple[str, str, bytes], sender: str = f"Campaigns <{CAMPAIGNS}>", to: str = NEWSLETTER,
    subject: str = "Spring in the shops", number: int = 1, head: str = "",
) -> bytes:  # fmt: skip
    """An issue as a campaign tool writes it. ``parts``: type, name and content of each attachment. ``head``: more header
    fields."""
    head += (
        "List-Unsubscribe: <https://news.example.com/u/1>\r\n"
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nPrecedence: bulk\r\n"
    )
    mime, body = "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n", source or page()
    if parts:
        attached = "".join(
            f"--{BOUNDARY}\r\nContent-Type: {kind}; name={name}\r\nContent-Transfer-Encoding: base64\r\n"
            f"Content-Disposition: attachment; filename={name}\r\n\r\n{base64.encodebytes(data).decode()}\r\n"
            for kind, name, data in parts
        ).replace("\r\n", "\n").replace("\n", "\r\n")  # fmt: skip
        body = f"--{BOUNDARY}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{body}\r\n{attached}--{BOUNDARY}--\r\n"
        mime = f'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="{BOUNDARY}"\r\n'
    made = personal_mail(
        sender=sender, to=to, subject=subject, head=head, mime=mime, body=body,
        message_id=f"<{number}@campaigns.example.com>",
    )  # fmt: skip
    return signed(made)


XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "kundlista.xlsx", b"PK\x03\x04" + bytes(600)
PDF = "application/pdf", "story.pdf", b"%PDF-1.7 " + bytes(range(256))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
PICTURE = f'<img src="data:image/png;base64,{base64.b64encode(PNG).decode()}" width="1200" height="1800">'
WHITE = f'<p style="font-size:2px;color:#ffffff">{INTERNAL}</p>'
ALTERED = {
    "a file attached": newsletter(page(), XLSX),
    "a PDF attached": newsletter(page(), PDF),
    "a picture attached": newsletter(page(), ("image/png", "story.png", PNG)),
    "one of six paragraphs replaced": newsletter(page(*SPRING[:3], INTERNAL, *SPRING[4:])),
    "an internal paragraph first": newsletter(page(INTERNAL, *SPRING)),
    "a paragraph less": newsletter(page(*SPRING[:5])),
    "small white text above": newsletter(page(above=WHITE)),
    "a large picture on top": newsletter(page(above=PICTURE)),
    "a picture from elsewhere on top": newsletter(page(above='<img src="https://cdn.example.com/story.png">')),
    "text below the signature and the way off": newsletter(page(below=f"<p>{INTERNAL}</p>")),
    "text between signature and way off": newsletter(page(foot=f"<p>{INTERNAL}</p>{FOOT}")),
    "another link": newsletter(page(link="autumn")),
    "the way off goes elsewhere": newsletter(page(foot=FOOT.replace("news.example.com", "news.elsewhere.example"))),
    "another subject": newsletter(subject="Re: the Ramadan customers"),
    "one word": newsletter(page(SPRING[0].replace("roses", "whisky"), *SPRING[1:])),
    "what was shown is hidden": newsletter(page().replace("<p>until", '<p style="display:none">until')),
    "another From": newsletter(sender="Eva <eva@example.com>"),
    "another name in From": newsletter(sender=f"The board <{CAMPAIGNS}>"),
    "a reader sends it on to the list": newsletter(head="Resent-From: Anna <anna@example.com>\r\n"),
    "each reader is asked for a receipt": newsletter(head="Disposition-Notification-To: kim@elsewhere.example\r\n"),
    "each reader is asked for a receipt of the older form": newsletter(
        head="Return-Receipt-To: kim@elsewhere.example\r\n"
    ),
    "answers to the list go elsewhere": newsletter(head="Mail-Followup-To: kim@elsewhere.example\r\n"),
    "answers to its writer go elsewhere": newsletter(head="Mail-Reply-To: kim@elsewhere.example\r\n"),
    "another base of its links": newsletter(head="Content-Location: https://elsewhere.example/\r\n"),
    "text for a recipient's name": newsletter(to=f'"{INTERNAL}" <{NEWSLETTER}>'),
    "a few words for the list's name": newsletter(to=f'"Tell the bosses nothing" <{NEWSLETTER}>'),
    "a few words for a stranger's name in Cc": newsletter(
        head="Cc: Tell the bosses nothing <kim@elsewhere.example>\r\n"
    ),
    "words in the form of addresses": newsletter(
        to=f'"newsletter tell@the.bosses nothing@until.friday newsletter" <{NEWSLETTER}>'
    ),
    "text that Outlook shows above the message": newsletter(head=f"X-Message-Flag: {INTERNAL}\r\n"),
    "text that Outlook shows over the conversation": newsletter(head=f"Thread-Topic: {INTERNAL}\r\n"),
    "text for a recipient's name in Bcc": newsletter(head="Bcc: Tell the bosses nothing <kim@elsewhere.example>\r\n"),
    "text in quotation marks as an address": newsletter(to='"Tell the bosses nothing"@elsewhere.example'),
}


async def approved(guard: WholeGuard, content: bytes, *to: str, sender: str = CAMPAIGNS) -> Hold:
    """Hold a message, approve it by all groups, and release it."""
    hold = await guard.held(content, *(to or (NEWSLETTER,)), sender=sender)
    await approve(guard, hold)
    sent = await guard.deliver()
    assert any(m.content.endswith(content) for m in sent)
    return hold


async def approve(guard: WholeGuard, hold: Hold) -> None:
    for quorum in hold.verdict.quorum:
        for group in quorum.groups:
            voter = {"communications": EVA if EVA not in hold.senders else "omar@example.com", "compliance": DPO}[group]
            await guard.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=voter, by="test")


DIFFERS = {
    "a file attached": ("file", "kundlista.xlsx"),
    "a PDF attached": ("file", "story.pdf"),
    "a picture attached": ("picture", "story.png"),
    "one of six paragraphs replaced": ("paragraph", INTERNAL[:40]),
    "an internal paragraph first": ("paragraph", INTERNAL[:40]),
    "a paragraph less": ("paragraph-missing", SPRING[5][:40]),
    "small white text above": ("paragraph", INTERNAL[:40]),
    "a large picture on top": ("picture", "data:"),
    "a picture from elsewhere on top": ("picture", "https://cdn.example.com/story.png"),
    "text below the signature and the way off": ("paragraph", INTERNAL[:40]),
    "text between signature and way off": ("paragraph", INTERNAL[:40]),
    "another link": ("link", "https://shop.example.com/autumn"),
    "the way off goes elsewhere": ("link", "https://news.elsewhere.example/u/1"),
    "another subject": ("subject", "Spring in the shops"),
    "one word": ("words", "whisky"),
    "what was shown is hidden": ("markup", ""),
    "another From": ("sender", "eva@example.com"),
    "another name in From": ("sender", "The board"),
    "a reader sends it on to the list": ("sender", "resent-from: A"),
    "each reader is asked for a receipt": ("sender", "disposition-notific"),
    "each reader is asked for a receipt of the older form": ("sender", "return-receipt-to"),
    "answers to the list go elsewhere": ("sender", "mail-followup-to"),
    "answers to its writer go elsewhere": ("sender", "mail-reply-to"),
    "another base of its links": ("markup", ""),
    "text for a recipient's name": ("paragraph", INTERNAL[:4]),
    "a few words for the list's name": ("paragraph", "Tell the bosses nothing"),
    "a few words for a stranger's name in Cc": ("paragraph", "Tell the bosses nothing"),
    "words in the form of addresses": ("paragraph", "tell the bosses nothing until friday"),
    "text that Outlook shows above the message": ("paragraph", INTERNAL[:40]),
    "text that Outlook shows over the conversation": ("paragraph", INTERNAL[:40]),
    "text for a recipient's name in Bcc": ("paragraph", "Tell the bosses nothing"),
    "text in quotation marks as an address": ("paragraph", "Tell the bosses nothing"),
}


def differences(hold: Hold) -> dict[str, str]:
    """The differences from the approved content, by kind."""
    return {r.observed: r.detail for h in hold.verdict.hits for r in h.reasons if r.fact == FACT}


@pytest.fixture
async def one_approved(guard: WholeGuard) -> WholeGuard:
    await approved(guard, newsletter())
    return guard


async def test_a_retry_in_doubt_waits_although_an_approval_covers_the_rules_that_hold_it(guard: WholeGuard) -> None:
    letter = personal_mail(body=LETTER + "\r\n".join((*SPRING, "")))
    await approved(guard, letter, RAMADAN, sender=ANNA)
    again = letter.replace(b"<1@example.com>", b"<2@example.com>")
    guard.relay.on(DOT, DROP, times=1)
    assert (await guard.send(again, RAMADAN)).startswith("451")
    hold = await guard.hold(await guard.send(again, RAMADAN))
    assert "in-doubt-retry" in {h.rule for h in hold.verdict.hits}


@pytest.mark.parametrize("way", ["released", "settled", "passed", "to one reader"])
async def test_an_approved_post_in_doubt_that_is_sent_anew_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The relay's answer to an approved post to a list was lost: the same content with another Message-ID waits too,
    until people say what came of it. ``passed``: under an approval beforehand."""
    settings = "hold: {approve_at: approve@guard.example.com}"
    beforehand, readers = way in ("passed", "to one reader"), READERS[: 1 if way == "to one reader" else None]
    async with whole_guard(tmp_path, monkeypatch, settings=settings, readers=readers) as guard:
        first = "approve+newsletter@guard.example.com" if beforehand else NEWSLETTER
        hold = await guard.held(newsletter(), first, sender=CAMPAIGNS)
        await approve(guard, hold)
        guard.relay.on(DOT, DROP)
        if beforehand:
            assert (await guard.send(newsletter(), NEWSLETTER, sender=CAMPAIGNS)).startswith("451")
        else:
            await guard.deliver()
            assert await guard.office._approvals.ask() == 1
        guard.relay.forget()
        if way == "settled":
            await guard.office._approvals.answer_doubt(hold.hold_id, sent=True, approver=EVA, by="test")
            await guard.passes(newsletter(number=2), NEWSLETTER, sender=CAMPAIGNS)
            return
        anew = await guard.held(newsletter(number=2), NEWSLETTER, sender=CAMPAIGNS)
        assert "in-doubt-retry" in {h.rule for h in anew.verdict.hits}


@every("what", ALTERED)
async def test_an_altered_message_to_a_list_is_held_and_the_reason_names_the_difference(
    one_approved: WholeGuard, what: str
) -> None:
    hold = await one_approved.held(ALTERED[what], NEWSLETTER, sender=CAMPAIGNS)
    assert not hold.primary, "it has its own decision"
    said = differences(hold)
    kind, quoted = DIFFERS[what]
    assert next(iter(said)) == kind, said
    assert quoted in said[kind]
    assert len(said) <= 3


@every(
    "shown",
    [
        f"Newsletter <{NEWSLETTER}>", f'"Example AB: newsletter" <{NEWSLETTER}>', "undisclosed-recipients:;", "kim@elsewhere.example",
        f"Campaigns <{CAMPAIGNS}>", f"'{NEWSLETTER}' <{NEWSLETTER}>", '"kim@elsewhere.example" <kim@elsewhere.example>',
        "kim@räksmörgås.example",
    ],
)  # fmt: skip
async def test_the_names_of_list_house_and_writer_in_to_hold_nothing(one_approved: WholeGuard, shown: str) -> None:
    await one_approved.passes(newsletter(to=shown, number=2), NEWSLETTER, sender=CAMPAIGNS)


async def test_what_a_client_adds_to_a_lists_address_names_nothing(one_approved: WholeGuard) -> None:
    """``list+more@here`` is the list's address, and more is any text."""
    told = newsletter(to=f"Tell the bosses nothing <{NEWSLETTER}>", number=2)
    hold = await one_approved.held(told, NEWSLETTER.replace("@", "+tell.the.bosses.nothing@"), sender=CAMPAIGNS)
    assert "Tell the bosses nothing" in differences(hold)["paragraph"]


@pytest.mark.parametrize(("shown", "to"), [("Our dear customers", NEWSLETTER), ("Kim Berg", READERS[0])])
async def test_a_name_in_to_that_was_approved_beforehand_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, to: str
) -> None:
    """To the list's address; and copies to single people show their own names. No other name was seen."""
    settings = "hold: {approve_at: approve@guard.example.com}"
    async with whole_guard(tmp_path, monkeypatch, settings=settings) as guard:
        test = newsletter(to=f"Our dear customers <{NEWSLETTER}>")
        await approve(guard, await guard.held(test, "approve+newsletter@guard.example.com", sender=CAMPAIGNS))
        other = newsletter(to=f"Tell the bosses nothing <{NEWSLETTER}>", number=2)
        said = differences(await guard.held(other, NEWSLETTER, sender=CAMPAIGNS))
        assert said.keys() == {"paragraph"}, "not that copies to single people alone were approved"
        assert "Tell the bosses nothing" in said["paragraph"]
        await guard.passes(newsletter(to=f"{shown} <{to}>", number=3), to, sender=CAMPAIGNS)


async def test_the_same_message_passes_in_any_encoding(guard: WholeGuard) -> None:
    await approved(guard, newsletter())
    await guard.passes(newsletter(number=2), NEWSLETTER, sender=CAMPAIGNS)
    wrapped = page().replace("everything that makes a garden: ", "everything that\r\nmakes a garden: ")
    await guard.passes(newsletter(wrapped, number=3), NEWSLETTER, sender=CAMPAIGNS)
    boundary = newsletter(page(), XLSX, number=4)
    assert (await guard.held(boundary, NEWSLETTER, sender=CAMPAIGNS)).state.value == "waiting"


def made_by_a_tool(source: str, n: int) -> str:
    """The page with new ids, classes and tracking pixel, and inline styles in another order."""
    pixel = (
        f'<img src="https://news.example.com/o/{n:x}{"/open" * (n % 2)}.gif?u={n * 7919}" width="1" height="1" alt="">'
    )
    style = "color:#888;font-size:11px" if n % 2 else "font-size:11px; color:#888"
    marked = source.replace('style="color:#888"', f'style="{style}"')
    marked = marked.replace("<p>", f'<p id="m_{n * 7919}" class="MsoNormal x{n}" data-copy="{n}">')
    return marked.replace("</body>", f"{pixel}</body>")


async def test_values_that_a_tool_generates_per_copy_hold_nothing(guard: WholeGuard) -> None:
    await approved(guard, newsletter(made_by_a_tool(page(), 1)))
    await guard.passes(newsletter(made_by_a_tool(page(), 2), number=2), NEWSLETTER, sender=CAMPAIGNS)
    other = made_by_a_tool(page(), 3).replace("https://news.example.com/o/", "https://elsewhere.example/o/")
    await guard.held(newsletter(other, number=3), NEWSLETTER, sender=CAMPAIGNS)


async def test_generated_values_in_personal_copies_hold_nothing(campaign: WholeGuard) -> None:
    def copy(n: int) -> bytes:
        text = f"dear {NAMES[n % 10]}, your customer number is {1000 + n * 37}"
        return personal(n, source=made_by_a_tool(page(text, *SPRING, link=f"spring?c={n * 7919:06x}"), n))

    for n in range(MANY + 8):
        await to_person(campaign, n, copy(n))
    (hold,) = await campaign.holds()
    await campaign.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await campaign.deliver()
    for n in range(20, 26):
        await campaign.passes(copy(n), READERS[n], sender=CAMPAIGNS)


async def test_the_same_message_without_proof_of_origin_is_held(guard: WholeGuard) -> None:
    await approved(guard, newsletter())
    unsigned = newsletter(number=7).partition(b"From:")
    await guard.held(unsigned[1] + unsigned[2], NEWSLETTER, sender=CAMPAIGNS)


async def test_approving_a_non_writer_covers_that_sender_only(guard: WholeGuard) -> None:
    first = newsletter(sender="Anna <anna@example.com>")
    hold = await approved(guard, first, sender=ANNA)
    assert "not-a-writer" in {h.rule for h in hold.verdict.hits}
    for number, sender in enumerate(("Mallory <mallory@elsewhere.example>", "Bo <bo@example.com>"), 2):
        await guard.held(newsletter(sender=sender, number=number), NEWSLETTER, sender="bounce@elsewhere.example")
    await guard.passes(newsletter(sender="Anna <anna@example.com>", number=9), NEWSLETTER, sender=ANNA)


BLESSED = (*SPRING[:4], "we wish you a blessed month")
GREETING_ALTERED = {
    "a PDF": newsletter(page(*BLESSED), PDF, to=RAMADAN),
    "a picture of the story": newsletter(page(*BLESSED, above=PICTURE), to=RAMADAN),
    "brand names": newsletter(page(*BLESSED[:4], "we wish you a blessed month with Absolut"), to=RAMADAN),
    "a name of the list": newsletter(page(*BLESSED), to=f"Friends of bacon <{RAMADAN}>"),
    "a name of a group": newsletter(page(*BLESSED), to=f"Friends of bacon: {RAMADAN};"),
}


@pytest.mark.parametrize("what", GREETING_ALTERED)
async def test_an_altered_message_to_a_special_list_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    every = {
        "id": "every-mailing",
        "when": {"recipients.list_addresses": "any", "mailing.approved": False},
        "then": "hold",
    }
    async with whole_guard(tmp_path, monkeypatch, text=policy(rules=[every])) as guard:
        await approved(guard, newsletter(page(*BLESSED), to=RAMADAN), RAMADAN)
        await guard.held(GREETING_ALTERED[what], RAMADAN, sender=CAMPAIGNS)


async def test_another_waiting_message_is_not_released(guard: WholeGuard) -> None:
    """Of two different messages that wait, only the approved one is sent."""
    seen = await guard.held(newsletter(), NEWSLETTER, sender=CAMPAIGNS)
    other = await guard.held(ALTERED["a file attached"], NEWSLETTER, sender=CAMPAIGNS)
    await guard.office._approvals.vote(seen.hold_id, Choice.APPROVE, approver=EVA, by="test")
    sent = [m for m in await guard.deliver() if b"Spring in the shops" in m.content and b"Notice" not in m.content]
    assert [b"kundlista.xlsx" in m.content for m in sent] == [False]
    waits = await guard.office._store.holds.find(other.hold_id)
    assert waits is not None
    assert (waits.state.value, waits.primary) == ("waiting", "")


ARRIVED = (
    "Your goods have arrived at our shop by the harbour, and are kept there for you until the end of next week.\r\n"
    "Bring this letter and something that says who you are, and ask for the parcel at the counter on the first floor.\r\n"
    "Whoever comes by car may stop in the yard behind the house for a quarter of an hour, and need not pay for it.\r\n"
)


def arrived(to: str, sender: str, number: int, *, many: int = 0) -> bytes:
    body = f"Hello,\r\n\r\n{ARRIVED}\r\n/{sender}\r\n"
    return personal_mail(
        to=to, sender=f"{sender} <{sender.lower()}@example.com>", subject="Your goods", head="", body=body, message_id=f"<{number}.{many}@example.com>"
    )  # fmt: skip


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WholeGuard]:
    """A guard with a rule that holds mail to four customers."""
    few = {
        "id": "a-few", "then": "hold", "when": {"mailing.customers": ">= 4"}, "unless": {"message.correspondence": True},
    }  # fmt: skip
    async with whole_guard(tmp_path, monkeypatch, text=policy(rules=[few])) as made:
        yield made


async def test_a_held_text_does_not_stop_letters_of_others(shop: WholeGuard) -> None:
    to_four = arrived(", ".join(READERS[:4]), "Anna", 1)
    hold = await shop.held(to_four, *READERS[:4], sender=ANNA)
    await shop.passes(arrived(READERS[9], "Bo", 2), READERS[9], sender="bo@example.com")
    again = await shop.hold(await shop.send(arrived(READERS[10], "Anna", 3), READERS[10], sender=ANNA))
    assert again.primary == hold.hold_id, "later letters of its writer wait with it"
    await shop.office._approvals.vote(hold.hold_id, Choice.REJECT, approver=EVA, by="test", comment="Not to them.")
    await shop.passes(arrived(READERS[11], "Bo", 4), READERS[11], sender="bo@example.com")
    said = await shop.send(arrived(READERS[12], "Anna", 5), READERS[12], sender=ANNA)
    assert said.startswith("550"), said
    assert 'People have already rejected this mailing: "Not to them".' in said


async def test_a_held_text_does_not_stop_letters_of_others_behind_one_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in front logs in by one name, which is nobody's."""
    few = {
        "id": "a-few", "then": "hold", "when": {"mailing.customers": ">= 4"}, "unless": {"message.correspondence": True},
    }  # fmt: skip
    async with whole_guard(tmp_path, monkeypatch, text=policy(rules=[few]), settings="trust: [127.0.0.1]") as shop:
        client = await shop.connect()
        assert (await client.ask("XCLIENT LOGIN=gateway")).startswith("220")
        said = []
        for name, who, to in (("Anna", ANNA, READERS[:4]), ("Bo", "bo@example.com", READERS[9:10])):
            for line in ("EHLO gateway.example", f"MAIL FROM:<{who}>", *(f"RCPT TO:<{one}>" for one in to), "DATA"):
                await client.ask(line)
            client.say(arrived(", ".join(to), name, len(to)) + b".\r\n")
            said.append(await client.hear())
        assert ["Held" in one for one in said] == [True, False], said


async def test_a_rejection_to_a_list_address_covers_that_content_only(guard: WholeGuard) -> None:
    first = await guard.held(newsletter(), NEWSLETTER, sender=CAMPAIGNS)
    await guard.office._approvals.vote(first.hold_id, Choice.REJECT, approver=EVA, by="test", comment="A typo.")
    said = await guard.send(newsletter(number=2), NEWSLETTER, sender=CAMPAIGNS)
    assert said.startswith("550"), said
    assert 'People have already rejected this mailing: "A typo".' in said
    await approved(guard, newsletter(page(SPRING[0].replace("garden", "good garden"), *SPRING[1:]), number=3))
    said = await guard.send(newsletter(number=4), NEWSLETTER, sender=CAMPAIGNS)
    assert said.startswith("550"), "a rejected message stays rejected"


NAMES = ("Anna", "Bo", "Cecilia", "David", "Elsa", "Fredrik", "Greta", "Hassan", "Ida", "Johan")
MANY = 6


def personal(n: int, *, source: str = "", name: str = "", sender: str = f"Campaigns <{CAMPAIGNS}>") -> bytes:
    """A copy for one person: name, number, links and Message-ID differ."""
    who = name or NAMES[n % 10]
    said = source or page(
        f"dear {who}, your customer number is {1000 + n * 37}", *SPRING, link=f"spring?c={n * 7919:06x}"
    )
    return newsletter(said, to=READERS[n], subject=f"{who}: spring in the shops", number=100 + n, sender=sender)


@pytest.fixture
async def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WholeGuard]:
    """A guard whose rule requires approval of a mailing to more than a few customers."""
    rule = {"id": "a-mailing", "then": "hold", "when": {"mailing.customers": f">= {MANY}", "mailing.approved": False}}
    settings = "hold: {approve_at: approve@guard.example.com}"
    async with whole_guard(tmp_path, monkeypatch, text=policy(rules=[rule]), settings=settings) as made:
        yield made


async def to_person(guard: WholeGuard, n: int, content: bytes) -> str:
    return await guard.send(content, READERS[n], sender=CAMPAIGNS)


async def held_copies(guard: WholeGuard) -> Hold:
    """The primary hold of a mailing of which the first copies passed."""
    for n in range(MANY + 8):
        await to_person(guard, n, personal(n))
    (hold,) = await guard.holds()
    assert hold.copies == 8
    return hold


PERSONAL_ALTERED = {
    "a paragraph replaced": lambda n: personal(
        n, source=page(f"dear Bo, your customer number is {n}", *SPRING[:3], INTERNAL, *SPRING[4:], link="spring?c=0a")
    ),
    "a paragraph more": lambda n: personal(
        n, source=page(f"dear Bo, your customer number is {n}", *SPRING, INTERNAL, link="spring?c=0a")
    ),
    "words in the place of the name": lambda n: personal(n, name="Bo, the boss is drunk again"),
    "one word": lambda n: personal(n).replace(b"roses", b"whisky", 1),
    "another host": lambda n: personal(n).replace(b"https://shop.example.com", b"https://shop.elsewhere.example"),
    "a link within the link": lambda n: personal(n).replace(b"?c=", b"?c=https://elsewhere.example/"),
    "another From": lambda n: personal(n, sender="Bo <bo@example.com>"),
    "hidden text": lambda n: personal(n).replace(b"<h1>", WHITE.encode() + b"<h1>"),
    "the addresses of all before": lambda n: personal(n).replace(
        b"Subject:", b"".join(f"To: {one}\r\n".encode() for one in READERS[:9]) + b"Subject:", 1
    ),
    "the copy of the next in the list": lambda n: personal(n + 1),
}


def unsigned(content: bytes) -> bytes:
    return content[content.index(b"From:") :]


async def test_copies_may_differ_from_the_approved_one_only_in_slots(campaign: WholeGuard) -> None:
    hold = await held_copies(campaign)
    learned = await campaign.office._approvals.learned(hold.hold_id)
    assert learned.template is not None
    assert [(before, slot.kind) for before, slot in learned.template.slots] == [
        ("", "name"),
        ("dear", "name"),
        ("customer number is", "number"),
    ]
    await campaign.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test")
    assert len(await campaign.deliver()) >= 9
    for n in range(20, 30):
        await campaign.passes(personal(n), READERS[n], sender=CAMPAIGNS)
    for n, (what, make) in enumerate(PERSONAL_ALTERED.items(), 40):
        content = signed(unsigned(make(n)))
        said = await to_person(campaign, n, content)
        assert "Held" in said, (what, said)
        assert not campaign.arrived(content)
    other = [h for h in await campaign.holds() if h.state.value == "waiting"]
    assert [h.copies for h in other] == [len(PERSONAL_ALTERED) - 1], "they wait as one hold"


async def test_an_altered_waiting_copy_is_not_released(campaign: WholeGuard) -> None:
    """An altered copy that came after the approver's look is not released, and approvers get a notice about it."""
    hold = await held_copies(campaign)
    seen = replace(Seen.of(hold), under=hold.copies)
    altered = signed(unsigned(PERSONAL_ALTERED["a paragraph more"](30)))
    assert "Held" in await to_person(campaign, 30, altered)
    await campaign.deliver()
    await campaign.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test", seen=seen)
    sent = await campaign.deliver()
    assert sum(b"Spring in the shops</h1>" in m.content for m in sent) == 9
    assert not campaign.arrived(altered)
    [waits] = [h for h in await campaign.holds() if h.state.value == "waiting"]
    assert (waits.primary, waits.copies) == ("", 0)
    told = [m for m in sent if b"X-Smtpguard-Notice: reminder" in m.content]
    assert {m.rcpts[0].split(b"<")[1].split(b">")[0].decode() for m in told} == {EVA, "omar@example.com"}
    assert any(b"skiljer sig" in quopri.decodestring(m.content).lower() for m in told)
    assert (await campaign.office._store.journal.verify()).ok


async def test_before_slots_are_learned_a_few_words_may_differ(campaign: WholeGuard) -> None:
    test = personal(1).replace(READERS[1].encode(), b"approve@guard.example.com")
    hold = await campaign.hold(await campaign.send(test, "approve+newsletter@guard.example.com", sender=CAMPAIGNS))
    await campaign.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test", people=100)
    for n in range(2, 2 + MANY + 4):
        await campaign.passes(personal(n), READERS[n], sender=CAMPAIGNS)
    altered = signed(unsigned(PERSONAL_ALTERED["a paragraph more"](30)))
    assert "Held" in await to_person(campaign, 30, altered)


def with_own_link(n: int, to: str, link: str = "") -> bytes:
    """A copy whose footer links to the address that it was sent to, as many tools write it."""
    text = page(
        f"dear {NAMES[n % 10]}, your customer number is {1000 + n * 37}",
        *SPRING,
        foot=f'<p>This was sent to <a href="mailto:{link or to}">{link or to}</a></p>',
    )
    return signed(unsigned(personal(n, source=text).replace(READERS[n].encode(), to.encode(), 1)))


@pytest.mark.parametrize("way", ["copies", "beforehand"])
async def test_a_copy_may_link_to_its_recipients_address(campaign: WholeGuard, way: str) -> None:
    if way == "copies":
        for n in range(MANY + 8):
            await to_person(campaign, n, with_own_link(n, READERS[n]))
        (hold,) = await campaign.holds()
    else:
        test = "approve+newsletter@guard.example.com"
        hold = await campaign.hold(await campaign.send(with_own_link(1, test), test, sender=CAMPAIGNS))
    await campaign.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test", people=100)
    sent = await campaign.deliver()
    assert len(sent) >= (9 if way == "copies" else 0)
    for n in range(20, 20 + MANY + 4):
        await campaign.passes(with_own_link(n, READERS[n]), READERS[n], sender=CAMPAIGNS)
    mallory = "mallory@elsewhere.example"
    said = differences(await campaign.hold(await to_person(campaign, 40, with_own_link(40, READERS[40], mallory))))
    assert said["link"].endswith(f'"mailto:{mallory}".')
    assert "Held" in await to_person(campaign, 41, with_own_link(41, READERS[41], READERS[300]))


OFFERS = (
    "this week every rose costs a quarter less, and whoever takes three gets a fourth one of the same kind for nothing",
    "this week every apple tree costs a third less, and we plant it in your garden without asking for anything more",
    "this week every bag of soil costs a tenth less, and on Saturday our gardeners show what else may be done with it",
)


def offered(n: int, offer: str, *, to: str = "") -> bytes:
    text = page(
        f"dear {NAMES[n % 10]}, your customer number is {1000 + n * 37}", *SPRING, offer, link=f"s?c={n * 7919:06x}"
    )
    made = personal(n, source=text)
    return made if not to else made.replace(READERS[n].encode(), to.encode())


def test_all_that_was_seen_and_is_covered_is_said() -> None:
    """Each of 20 alternatives, also one that differs late in a long text, or stands behind many names."""
    long = " ".join(f"word{n}" for n in range(60))
    texts = (*(f"{long} and offer {n} of them" for n in range(18)), "", f"{long} and more of it")
    numbers = tuple(slots.Slot(kind="number", values=(str(n),)) for n in range(15))
    words = slots.Slot(kind="words", values=tuple(f"{'rose ' * 50}{n}" for n in range(20)))
    items = tuple(item for n, slot in enumerate((*numbers, words)) for item in (f"place{n}", slot))
    template = slots.Template(
        senders=("x",), files=(), elements=(slots.Block(items=items), slots.Choice(alternatives=tuple((one,) for one in texts))), learned=40
    )  # fmt: skip
    (told, _) = coverage.sentences(coverage.Coverage(template=template, copies=40))
    assert all(f"and offer {n} of them" in told for n in range(18))
    assert "and more of it" in told
    assert all(f"rose {n}" in told for n in range(20))
    assert "and 3 more" in told


async def test_preapproved_versions_are_learned_together(campaign: WholeGuard) -> None:
    """Copies with one of two offers pass, as both were approved; a third offer is held."""
    approvals = campaign.office._approvals
    for n, offer in enumerate(OFFERS[:2], 1):
        test = offered(n, offer, to="approve@guard.example.com")
        hold = await campaign.hold(await campaign.send(test, "approve+newsletter@guard.example.com", sender=CAMPAIGNS))
        learned = await approvals.learned(hold.hold_id)
        assert learned.copies == n - 1
        await approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test", people=100)
    assert learned.template is not None
    told = coverage.sentences(coverage.of_hold(hold, learned))
    assert "So is one that is as the 2 versions that were approved, with this one" in told[0]
    assert "rose costs a quarter less" in told[0].replace("“", "").replace("”", "") or "apple tree" in told[0]
    for n in range(3, 3 + 2 * MANY):
        await campaign.passes(offered(n, OFFERS[n % 2]), READERS[n], sender=CAMPAIGNS)
    for n, offer in ((40, OFFERS[2]), (41, f"{OFFERS[0]} {OFFERS[1]}"), (42, INTERNAL)):
        assert "Held" in await to_person(campaign, n, offered(n, offer)), offer


async def test_a_version_approved_for_another_list_is_not_learned(overlapping: WholeGuard) -> None:
    approvals = overlapping.office._approvals
    for n, name in ((1, "club"), (2, "newsletter")):
        test = offered(n, OFFERS[n], to="approve@guard.example.com")
        hold = await overlapping.hold(
            await overlapping.send(test, f"approve+{name}@guard.example.com", sender=CAMPAIGNS)
        )
        assert (await approvals.learned(hold.hold_id)).copies == 0
        await approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test", people=100)


@pytest.fixture
async def overlapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WholeGuard]:
    """A guard where half of the readers are also on a list without an address, and some on the list that always needs
    approval."""
    rule = {"id": "a-mailing", "then": "hold", "when": {"mailing.customers": f">= {MANY}", "mailing.approved": False}}
    made = yaml.safe_load(policy(rules=[rule]))
    made["lists"]["club"] = {"title": "Club", "members": {"csv": "club.csv", "column": "email"}}
    assert made["lists"]["ramadan-greetings"]["approvals"]["always"] is True
    (tmp_path / "club.csv").write_text("email\n" + "\n".join(READERS[::2]) + "\n")
    text, settings = yaml.safe_dump(made, sort_keys=False), "hold: {approve_at: approve@guard.example.com}"
    async with whole_guard(
        tmp_path, monkeypatch, text=text, settings=settings, members=(*MEMBERS, *READERS[30:40])
    ) as guard:
        yield guard


async def approved_for(guard: WholeGuard, *lists: str) -> Hold:
    test = personal(399).replace(READERS[399].encode(), b"approve@guard.example.com")
    to = [f"approve+{name}@guard.example.com" for name in lists]
    hold = await guard.hold(await guard.send(test, *to, sender=CAMPAIGNS))
    await guard.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test", people=1000)
    return hold


async def test_members_of_the_approved_list_are_covered_even_if_on_others(overlapping: WholeGuard) -> None:
    await approved_for(overlapping, "newsletter")
    for n in range(20):
        await overlapping.passes(personal(n), READERS[n], sender=CAMPAIGNS)
    for n in (30, 35):
        hold = await overlapping.hold(await to_person(overlapping, n, personal(n)))
        assert "ramadan-greetings" in hold.lists, "a list with approve: always needs its own approval"


async def test_a_list_without_address_can_be_named_for_preapproval(overlapping: WholeGuard) -> None:
    hold = await approved_for(overlapping, "club")
    assert (hold.lists, hold.reach, hold.kind) == (("club",), len(READERS[::2]), "test")
    await overlapping.passes(personal(0), READERS[0], sender=CAMPAIGNS)
    for n in (1, *range(3, 3 + 2 * MANY, 2)):
        said = await to_person(overlapping, n, personal(n))
    assert "Held" in said, "on the newsletter only, which was not approved"


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("approve+newsletr@guard.example.com", "550 5.1.1 Not accepted for approval: there is no such list"),
        ("approve@guard.example.com", "550 5.1.1 Not accepted for approval: the address must name a list: "),
    ],
)
async def test_a_misspelt_list_is_refused_at_rcpt(overlapping: WholeGuard, to: str, said: str) -> None:
    client = await overlapping.connect()
    assert (await client.ask(f"MAIL FROM:<{CAMPAIGNS}>")).startswith("250")
    assert (await client.ask(f"RCPT TO:<{to}>")).startswith(said)
    assert (await client.ask("RCPT TO:<approve+Newsletter@guard.example.com>")).startswith("250")


# -- the reasons that an approval does not cover a copy


async def test_the_reason_names_another_proof_of_origin(guard: WholeGuard) -> None:
    await approved(guard, newsletter())
    hold = await guard.held(unsigned(newsletter(number=7)), NEWSLETTER, sender=CAMPAIGNS)
    assert list(differences(hold)) == ["proof"]


COPY_DIFFERS = {
    "one word": ("words", "whisky"),
    "a paragraph more": ("paragraph", INTERNAL[:40]),
    "words in the place of the name": ("words", "the boss"),
    "another host": ("link", "shop.elsewhere.example"),
    "another From": ("sender", "bo@example.com"),
    "the addresses of all before": ("shown", "To or Cc"),
    "the copy of the next in the list": ("another", "another customer"),
}


@pytest.mark.parametrize("what", COPY_DIFFERS)
async def test_the_reason_names_differences_outside_the_slots(campaign: WholeGuard, what: str) -> None:
    hold = await held_copies(campaign)
    await campaign.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await campaign.deliver()
    kind, quoted = COPY_DIFFERS[what]
    altered = signed(unsigned(PERSONAL_ALTERED[what](40)))
    said = differences(await campaign.hold(await to_person(campaign, 40, altered)))
    assert next(iter(said)) == kind, said
    assert quoted in said[kind], said
    assert said.keys() <= {kind, "subject"}, "nothing else is different"


async def test_the_reason_names_a_list_it_was_not_approved_for(overlapping: WholeGuard) -> None:
    await approved_for(overlapping, "newsletter")
    for n in range(20):
        await overlapping.passes(personal(n), READERS[n], sender=CAMPAIGNS)
    hold = await overlapping.hold(await to_person(overlapping, 30, personal(30)))
    assert "ramadan-greetings" in differences(hold)["lists"]
    public = [r.public for h in hold.verdict.hits for r in h.reasons if r.fact == FACT]
    assert not any("amadan" in said for said in public), "the writer does not learn on which list a recipient is"


async def test_approvers_and_writer_get_the_difference(guard: WholeGuard) -> None:
    await approved(guard, newsletter())
    await guard.deliver()
    hold = await guard.held(ALTERED["a file attached"], NEWSLETTER, sender=CAMPAIGNS)
    notices = {
        m.rcpts[0].split(b"<")[1].split(b">")[0].decode(): " ".join(text_of(m.content).split())
        for m in await guard.deliver()
        if hold.hold_id.encode() in m.content
    }
    swedish = "En fil har tillkommit eller ändrats sedan det godkändes"
    assert f'{swedish}: "kundlista.xlsx".' in notices[EVA], notices[EVA]
    assert "A file has been added to what was approved, or changed." in notices[CAMPAIGNS], notices[CAMPAIGNS]
    hits = [r for h in hold.verdict.hits for r in h.reasons if r.fact == FACT]
    assert [r.observed for r in hits] == ["file"], "nothing else is different"


def text_of(content: bytes) -> str:
    part = message_from_bytes(content, policy=default).get_body(("plain",))
    assert part is not None
    return str(part.get_content())
