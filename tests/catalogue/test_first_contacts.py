"""Mail one by one, with no common text: it is held by the number of first contacts of its sender, and by nothing else.
Mail of people and systems that write to customers as their work passes."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import yaml

from smtpguard.app import alarms, start
from smtpguard.app.alarms import Observer
from smtpguard.app.files import read_policy
from smtpguard.app.storestatus import State, store_findings
from smtpguard.holds.effects import Seen
from smtpguard.holds.model import Choice
from smtpguard.holds.model import State as Stands
from smtpguard.observe import rounds
from smtpguard.observe.alarms import raised
from tests.catalogue.wholeguard import EVA, MEMBERS, WholeGuard, personal_mail, policy, whole_guard
from tests.observe.receiver import Receiver, receiver

PROVEN = ", senders_verified: true"
CUSTOMERS = tuple(f"customer{n}@shops.example" for n in range(1500))
FRESH = policy(fresh=True)
HOUR, DAY = 3600.0, 86_400.0
SYLLABLES = [a + b + c for a in "bdfgklmnprst" for b in "aeiouy" for c in ("", "l", "n", "r", "s")]


def words(n: int, seed: object) -> str:
    """A text without common content with any other."""
    rng = random.Random(f"{seed}")
    return " ".join("".join(rng.choices(SYLLABLES, k=2 + (m & 1))) for m in range(n)) + ".\r\n"


def plain(sender: str, to: str, seed: object, *, n: int = 60, head: str = "", body: str = "") -> bytes:
    text = body or f"{words(n, seed)}\r\n{words(n, (seed, 2))}"
    return personal_mail(
        sender=sender, to=to, subject=words(2, (seed, "subject")).strip(".\r\n"), head=head, body=text,
        message_id=f"<{abs(hash((sender, str(seed), to)))}@example.com>",
    )  # fmt: skip


@pytest.fixture
async def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WholeGuard]:
    async with whole_guard(tmp_path, monkeypatch, listen=PROVEN, readers=CUSTOMERS, text=FRESH) as made:
        yield made


def reached(guard: WholeGuard, people: Sequence[str] = CUSTOMERS) -> set[str]:
    """Those of ``people`` who have a message from the relay."""
    wanted = set(people)
    return {
        to for m in guard.relay.messages for r in m.rcpts if (to := r.split(b"<")[1].split(b">")[0].decode()) in wanted
    }


async def one_by_one(
    guard: WholeGuard, people: Sequence[str], *, every: float, sender: Callable[[int], str] = lambda n: "anna@example.com",
    each: int = 1, body: Callable[[int], str] = lambda n: "", head: Callable[[int], str] = lambda n: "", seed: object = "",
    shown: bool = True, source: str = "127.0.0.1", login: str = "", told: Callable[[int], str] | None = None,
) -> list[str]:  # fmt: skip
    """The answers to messages to ``each`` people at a time, ``every`` seconds. ``shown``: the people are in To.
    ``login``: told by XCLIENT, if the guard trusts the client. ``told``: the address of the client of each message, told
    by XFORWARD."""
    said = []
    client = await guard.connect(source=source)
    if login and guard.settings.trust:
        assert (await client.ask(f"XCLIENT ADDR={source} LOGIN={login}")).startswith("220")
        assert (await client.ask("EHLO desk.example")).startswith("250")
    for n in range(0, len(people), each):
        some = people[n : n + each]
        who = sender(n)
        content = plain(who, ", ".join(some) if shown else who, (seed, n), head=head(n), body=body(n))
        lines = [f"XFORWARD ADDR={told(n)}"] if told is not None else []
        lines += [f"MAIL FROM:<{who}>", *(f"RCPT TO:<{to}>" for to in some), "DATA"]
        client.say("".join(f"{line}\r\n" for line in lines).encode())
        answers = [await client.hear() for _ in lines]
        assert answers[-1].startswith("354"), answers
        client.say(content + b".\r\n")
        said.append(await client.hear())
        await guard.pass_(seconds=every)
    client.close()
    return said


def held(said: Sequence[str]) -> int:
    return sum("Held" in answer for answer in said)


async def rules_of(guard: WholeGuard) -> set[str]:
    return {h.rule for hold in await guard.holds() for h in hold.verdict.hits}


async def test_fifteen_hundred_within_an_hour_stop_at_thirty_nine(guard: WholeGuard) -> None:
    """At 1,500 an hour, none passes after the thirty-ninth."""
    said = await one_by_one(guard, CUSTOMERS[:50], every=HOUR / 1500)
    assert reached(guard) == set(CUSTOMERS[:39])
    assert held(said) == 50 - 39
    assert "new-customers-in-an-hour" in await rules_of(guard)


async def test_eight_days_stop_at_the_weekly_limit(guard: WholeGuard) -> None:
    """With more first contacts each day than a day allows, fewer than two hundred are reached in any seven days. On the
    eighth day those of the first day count as usual."""
    reached_by = []
    for day, letters in enumerate((65, 65, 9, 9, 9, 9, 9, 65)):
        await one_by_one(guard, CUSTOMERS[190 * day : 190 * day + letters], every=8 * HOUR / 190, seed=day)
        await guard.pass_(seconds=DAY - letters * 8 * HOUR / 190)
        reached_by.append(len(reached(guard)))
    assert reached_by[:7] == [59, 118, *[119] * 5]
    assert reached_by[7] - reached_by[0] < 200


async def test_one_text_to_three_a_day_is_held_after_29_people(guard: WholeGuard) -> None:
    """The same letter to three people a day is held after 29 people, though no count over a week sees it."""
    text = words(60, "the letter")
    said = await one_by_one(guard, CUSTOMERS[:45], every=DAY / 3, body=lambda n: text)
    assert len(reached(guard)) == 29
    assert held(said) == 45 - 29
    assert await rules_of(guard) == {"the-same-letter-to-new-customers"}


async def test_many_outsiders_on_no_list_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule of docs/policy.md holds mail to many outsiders who are on no list. Mail to all colleagues and one
    outsider passes."""
    docs = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    rule = docs.partition("    - id: outside-by-the-hundred\n")
    stated = yaml.safe_load(FRESH)
    stated["rules"] += yaml.safe_load(rule[1] + rule[2].partition("\n\n")[0])
    people = [f"former{n}@elsewhere.example" for n in range(250)]
    async with whole_guard(
        tmp_path, monkeypatch, listen=PROVEN, readers=CUSTOMERS, text=yaml.safe_dump(stated)
    ) as guard:
        said = await one_by_one(guard, people[:120], every=60, each=3, body=lambda n: words(60, "to those of 2019"))
        assert len(reached(guard, people)) == 99
        assert held(said) == 7
        assert held(await one_by_one(guard, people[120:], every=60, each=130, shown=False, seed="all at once")) == 1
        staff = [f"colleague{n}@example.com" for n in range(120)]
        said = await one_by_one(guard, [*staff, people[0]], every=60, each=121, seed="to all colleagues")
        assert len(said) == 1
        assert held(said) == 0
        assert await rules_of(guard) == {"outside-by-the-hundred"}


async def test_a_common_text_to_new_customers_is_sometimes_allowed(guard: WholeGuard) -> None:
    """A clerk who writes to new customers all month may sometimes send a text that colleagues have sent to many."""
    text = words(60, "your goods have arrived")
    of_colleagues = lambda n: f"colleague{n}@example.com"  # noqa: E731
    await one_by_one(guard, CUSTOMERS[:40], every=600, sender=of_colleagues, body=lambda n: text)
    often = lambda n: "" if n % 6 else text  # noqa: E731
    said = await one_by_one(guard, CUSTOMERS[100:160], every=DAY / 3, sender=lambda n: "clerk@example.com", body=often)
    assert held(said) == 0
    assert len(reached(guard)) == 100


async def test_a_template_passes_to_its_senders_known_customers(guard: WholeGuard) -> None:
    """Thirty colleagues may send the text of a template to their own customers."""
    text = words(60, "your goods have arrived")
    said = await one_by_one(
        guard, CUSTOMERS[:90], every=DAY, each=3, body=lambda n: text, sender=lambda n: f"colleague{n // 3}@example.com"
    )
    assert held(said) == 0


@pytest.mark.parametrize("each", [3, 19])
async def test_several_recipients_per_message_are_counted(guard: WholeGuard, each: int) -> None:
    await one_by_one(guard, CUSTOMERS[:76], every=HOUR / 100, each=each)
    assert len(reached(guard)) <= 50


async def test_hidden_recipients_are_counted(guard: WholeGuard) -> None:
    await one_by_one(guard, CUSTOMERS[:80], every=HOUR / 100, each=4, shown=False)
    assert len(reached(guard)) <= 50


def below_footer(n: int) -> str:
    """A text without common content with any other, above words that make a mailing of it by its looks."""
    return f"{words(60, n)}\r\nDu får det här eftersom du är kund. Avregistrera dig: https://x.example/{n}\r\n"


async def test_words_of_a_mailing_below_letters_without_common_text_help_to_199_people(guard: WholeGuard) -> None:
    """A footer makes a mailing of each letter by its looks, so that it is no letter and has no first contacts; and texts
    without common content are no copies of one mailing. Their sender's customers of a day are counted all the same."""
    said = await one_by_one(guard, CUSTOMERS[:210], every=60, body=below_footer, seed="footer")
    assert reached(guard) == set(CUSTOMERS[:199])
    assert held(said) == 11
    assert await rules_of(guard) == {"unapproved-mailings-of-a-sender"}
    [lead] = [hold for hold in await guard.holds() if not hold.primary]
    assert lead.copies == 10, "all that waits needs one decision"
    await guard.office._approvals.vote(lead.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await guard.deliver()
    assert reached(guard) == set(CUSTOMERS[:210])
    said = await one_by_one(guard, CUSTOMERS[300:420], every=60, body=below_footer, seed="after the approval")
    assert held(said) == 0, "whoever approved it has seen what was counted"


@pytest.mark.parametrize(
    ("body", "told", "most"),
    [
        (lambda n: "", "192.0.2.7", 39),
        (lambda n: "", "IPv6:2001:db8::{n:x}", 39),
        (below_footer, "192.0.2.7", 199),
        (below_footer, "IPv6:2001:db8::{n:x}", 199),
    ],
)
async def test_changing_the_from_name_does_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: Callable[[int], str], told: str, most: int
) -> None:
    """Without a proven From, the client counts as the sender, so a new name for each message does not help: neither for
    letters nor for what looks like a mailing, nor with each of the addresses that a host has in IPv6."""
    more: dict[str, Any] = {"text": FRESH, "settings": "trust: [127.0.0.1]"}
    async with whole_guard(tmp_path, monkeypatch, readers=CUSTOMERS, **more) as guard:
        names = random.Random(1)
        await one_by_one(
            guard, CUSTOMERS[: most + 6], every=HOUR / 150, sender=lambda n: f"{names.randbytes(6).hex()}@example.com",
            body=body, told=lambda n: told.format(n=n),
        )  # fmt: skip
        assert len(reached(guard)) == most


@pytest.mark.parametrize(
    ("login", "sender"),
    [
        ("anna@host{n}.example", "anna@host{n}.example"),
        ("anna@host{n}.example", "colleague{n}@example.com"),
        ("anna", "anna@host{n}.example.com"),
    ],
)
async def test_spelling_a_login_another_way_does_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str, sender: str
) -> None:
    """A server may take any domain with a login's name: then one account has many addresses, each of which proves a
    From."""
    stated = yaml.safe_load(FRESH)
    stated["organization"]["domains"] += ["*.example.com"]
    more: dict[str, Any] = {"text": yaml.safe_dump(stated), "settings": "trust: [127.0.0.1]"}
    async with whole_guard(tmp_path, monkeypatch, readers=CUSTOMERS, **more) as guard:
        for n, customer in enumerate(CUSTOMERS[:45]):
            name = lambda _, n=n: sender.format(n=n)  # noqa: E731
            await one_by_one(guard, [customer], every=20, sender=name, seed=n, login=login.format(n=n))
        assert len(reached(guard)) == 39


async def test_letters_of_unproven_colleagues_are_counted_for_none_but_their_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters to customers whom people know do not count for the client's limit of what looks like a mailing."""
    async with whole_guard(tmp_path, monkeypatch, readers=CUSTOMERS, text=FRESH) as guard:
        for day in range(6):
            some = CUSTOMERS[39 * day : 39 * (day + 1)]
            assert held(await one_by_one(guard, some, every=60, seed=day, each=3)) == 0
            await guard.pass_(days=8)
        assert held(await one_by_one(guard, CUSTOMERS[:234], every=60, seed="known", each=3)) == 0
        bo = lambda n: "bo@example.com"  # noqa: E731
        assert held(await one_by_one(guard, CUSTOMERS[:1], every=1, sender=bo, body=below_footer)) == 0


@pytest.mark.parametrize("named", ["anna@example.com", "support@example.com"])
async def test_another_name_lends_no_contacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """Where From is unproven, customers whom the client has written to are new to another From, and those of a From are
    new to another login."""
    more: dict[str, Any] = {"text": FRESH, "settings": "trust: [127.0.0.1]"} if named.startswith("support") else {}
    async with whole_guard(tmp_path, monkeypatch, readers=CUSTOMERS, **more) as guard:
        support = lambda n: "support@example.com"  # noqa: E731
        for day in range(2):
            some = CUSTOMERS[30 * day : 30 * (day + 1)]
            assert (
                held(await one_by_one(guard, some, every=60, sender=support, seed=day, login="support@example.com"))
                == 0
            )
            await guard.pass_(days=1)
        guard.relay.messages.clear()
        name = lambda n: named  # noqa: E731
        await one_by_one(guard, CUSTOMERS[:60], every=20, sender=name, seed="anna", login="anna@example.com")
        assert len(reached(guard)) == 39


async def test_many_accounts_to_a_special_list_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = tuple(f"amina{n}@customers.example" for n in range(234))
    async with whole_guard(tmp_path, monkeypatch, listen=PROVEN, members=people, readers=CUSTOMERS[:50]) as guard:
        for account in range(26):
            mine = people[9 * account : 9 * (account + 1)]
            sender = lambda n, account=account: f"colleague{account}@example.com"  # noqa: E731
            await one_by_one(guard, mine, every=60, each=3, sender=sender, seed=account)
        assert len(reached(guard, people)) <= 200


async def test_an_unsuitable_text_reaches_only_two_of_a_special_list(guard: WholeGuard) -> None:
    bacon = lambda n: f"Hej, i dag blir det bacon. {words(40, n)}"  # noqa: E731
    said = await one_by_one(guard, MEMBERS[:10], every=60, body=bacon)
    assert len(reached(guard, MEMBERS)) == 2
    assert held(said) == 8
    assert "unsuitable-to-new-customers" in await rules_of(guard)


async def test_an_unsuitable_text_below_a_footer_reaches_19_of_a_special_list(guard: WholeGuard) -> None:
    """A footer makes a mailing of each, and each text is another."""
    bacon = lambda n: f"I dag blir det bacon och whisky. {below_footer(n)}"  # noqa: E731
    await one_by_one(guard, MEMBERS[:40], every=60, body=bacon, seed="bacon")
    assert len(reached(guard, MEMBERS)) == 19
    assert await rules_of(guard) == {"unsuitable-from-one-sender"}


async def test_known_recipients_are_no_first_contacts_for_three_months(guard: WholeGuard) -> None:
    """Mail to forty old customers passes within an hour; after three months they are first contacts again."""
    for n in range(4):
        await one_by_one(guard, CUSTOMERS[10 * n : 10 * (n + 1)], every=60, each=5, seed=("first", n))
        await guard.pass_(days=8)
    said = await one_by_one(guard, CUSTOMERS[:40], every=60, each=5, seed="again")
    assert held(said) == 0
    await guard.pass_(days=91)
    said = await one_by_one(guard, CUSTOMERS[:45], every=60, seed="long after")
    assert held(said) == 6


def quoting(customers: Sequence[str]) -> Callable[[int], str]:
    """Bodies that quote each customer as the author."""
    return lambda n: (
        f"{words(30, n)}\r\nFrån: Kund <{customers[n]}>\r\nSkickat: i går\r\nÄmne: En fråga\r\n\r\n{words(20, ('q', n))}"
    )


def refers_elsewhere(n: int) -> str:
    return f"In-Reply-To: <{n}@mail.elsewhere.example>\r\nReferences: <{n}@mail.elsewhere.example>\r\n"


async def test_twenty_answers_a_day_to_new_customers_pass(guard: WholeGuard) -> None:
    """A salesperson may answer twenty new customers a day, for five days."""
    for day in range(5):
        customers = CUSTOMERS[20 * day : 20 * (day + 1)]
        more: dict[str, Any] = {"body": quoting(customers), "head": refers_elsewhere, "seed": ("answers", day)}
        assert held(await one_by_one(guard, customers, every=8 * HOUR / 20, **more)) == 0
        await guard.pass_(seconds=16 * HOUR)


async def test_forged_quotations_reach_no_more_than_first_letters(guard: WholeGuard) -> None:
    """Letters of which every second has a forged quotation reach no more than 119 people in a week."""
    quoted = quoting(CUSTOMERS)
    body = lambda n: "" if n % 2 else quoted(n)  # noqa: E731
    head = lambda n: "" if n % 2 else refers_elsewhere(n)  # noqa: E731
    await one_by_one(guard, CUSTOMERS[:130], every=6 * DAY / 300, body=body, head=head, seed="forged")
    assert len(reached(guard)) == 119
    assert "new-customers-in-a-week" in await rules_of(guard)


async def test_forged_quotations_to_a_special_list_are_stopped(guard: WholeGuard) -> None:
    await one_by_one(guard, MEMBERS[:40], every=2 * HOUR, body=quoting(MEMBERS), head=refers_elsewhere, seed="forged")
    assert len(reached(guard, MEMBERS)) == 11
    assert "new-customers-of-a-special-list" in await rules_of(guard)


async def test_forged_answers_of_a_usual_sender_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender who is used to a hundred first contacts a week may have three hundred; but forged answers are held from
    the sixtieth in a day."""
    async with whole_guard(tmp_path, monkeypatch, listen=PROVEN, readers=CUSTOMERS, text=FRESH) as guard:
        await one_by_one(guard, CUSTOMERS[1000:1039], every=1, each=3, seed="usual")
        await guard.pass_(days=8)
        said = await one_by_one(
            guard, CUSTOMERS[:70], every=60, body=quoting(CUSTOMERS), head=refers_elsewhere, seed="forged"
        )
        assert 70 - held(said) == 59
        assert await rules_of(guard) == {"many-answers-in-a-day"}


async def test_a_reference_to_a_colleagues_message_proves_an_answer(guard: WholeGuard) -> None:
    """A message that refers to one that passed here to that customer is a proven answer, without a limit."""
    for n, customer in enumerate(CUSTOMERS[:39]):
        await guard.passes(personal_mail(sender="anna@example.com", to=customer, head="", subject="Hej", body=words(30, n), message_id=f"<a{n}@example.com>"), customer)  # fmt: skip
    first = lambda n: f"In-Reply-To: <r{n}@shops.invalid>\r\nReferences: <a{n}@example.com> <r{n}@shops.invalid>\r\n"  # noqa: E731
    bo = lambda n: "bo@example.com"  # noqa: E731
    assert held(await one_by_one(guard, CUSTOMERS[:39], every=1, sender=bo, head=first, seed="bo")) == 0
    assert held(await one_by_one(guard, CUSTOMERS[100:140], every=1, sender=bo, seed="new")) == 1, (
        "39 are first contacts"
    )
    other = lambda n: "cia@example.com"  # noqa: E731
    forged = lambda n: "In-Reply-To: <a1@example.com>\r\n"  # noqa: E731
    assert held(await one_by_one(guard, CUSTOMERS[200:245], every=1, sender=other, head=forged, seed="forged")) == 6


async def test_ten_sales_people_pass_with_fifteen_contacts_each(guard: WholeGuard) -> None:
    """Ten people may have fifteen first contacts each in a day, more than one may have in a week."""
    for seller in range(10):
        sender = lambda n, seller=seller: f"seller{seller}@example.com"  # noqa: E731
        mine = CUSTOMERS[seller * 15 : seller * 15 + 15]
        assert held(await one_by_one(guard, mine, every=60, each=3, sender=sender, seed=seller)) == 0
    assert await guard.holds() == []


async def test_a_senders_limit_follows_what_is_usual(guard: WholeGuard) -> None:
    """A sender with thirty first contacts in the weeks before may have eighty-nine in a day; the ninetieth is three
    times as many."""
    await one_by_one(guard, CUSTOMERS[:30], every=0, each=3, seed="usual")
    await guard.pass_(days=8)
    said = await one_by_one(guard, CUSTOMERS[100:200], every=DAY / 200, seed="much")
    assert 100 - held(said) == 90
    assert await rules_of(guard) == {"new-customers-in-a-day"}


async def test_mail_of_a_stream_is_not_counted_as_letters(guard: WholeGuard) -> None:
    """Mail of a stream's declared origin is not counted as letters."""
    said = await one_by_one(
        guard, CUSTOMERS[:130], every=1, each=5, sender=lambda n: "noreply@example.com", source="127.0.0.3"
    )
    assert held(said) == 0
    assert reached(guard) == set(CUSTOMERS[:130])


async def test_held_letters_count_only_when_released(guard: WholeGuard) -> None:
    said = await one_by_one(guard, CUSTOMERS[:60], every=1)
    assert held(said) == 21
    assert held(await one_by_one(guard, CUSTOMERS[:39], every=1, each=3, seed="known")) == 0, (
        "known recipients are allowed"
    )
    await guard.pass_(seconds=HOUR)
    said = await one_by_one(guard, CUSTOMERS[100:130], every=1, seed="an hour later")
    assert 30 - held(said) == 20, "59 in a day: held recipients do not count"


async def test_a_retry_counts_once(guard: WholeGuard) -> None:
    for n in range(0, 39, 3):
        some = CUSTOMERS[n : n + 3]
        content = plain("anna@example.com", ", ".join(some), n)
        guard.relay.on("<dot>", "451 4.3.0 Later", times=2)
        for _ in range(2):
            assert (await guard.send(content, *some)).startswith("451")
        await guard.passes(content, *some)
    await guard.held(plain("anna@example.com", CUSTOMERS[50], 50), CUSTOMERS[50])


async def test_letters_of_one_sender_are_one_decision(guard: WholeGuard) -> None:
    """Six letters are one decision, whatever their texts. Approvers and writer get one notice each."""
    said = await one_by_one(guard, CUSTOMERS[:45], every=1)
    assert held(said) == 6
    [lead] = await guard.holds()
    assert (lead.copies, lead.reach, lead.by_sender) == (5, 6, True)
    assert any(r.fact == "sender.waits" for h in lead.verdict.hits for r in h.reasons)
    notices = await guard.deliver()
    assert sorted(m.rcpts[0].decode() for m in notices) == sorted({m.rcpts[0].decode() for m in notices})
    await guard.office._approvals.vote(lead.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await guard.deliver()
    assert reached(guard) == set(CUSTOMERS[:45])
    assert (await guard.office._store.journal.verify()).ok


async def test_an_approval_covers_only_the_listed_letters(guard: WholeGuard) -> None:
    """An approval releases the letters that were listed. Later ones wait together for another decision."""
    await one_by_one(guard, CUSTOMERS[:45], every=1)
    [lead] = await guard.holds()
    learned = await guard.office._approvals.learned(lead.hold_id)
    assert learned.letters == 5
    listed = await guard.office._store.holds.queued(lead.hold_id, 100)
    assert [str(one.envelope.addresses[0]) for one, _ in listed] == list(CUSTOMERS[40:45])
    assert all(shown is not None and shown.beginning(60) for _, shown in listed)
    await one_by_one(guard, CUSTOMERS[45:49], every=1, seed="later")
    seen = replace(Seen.of(lead), under=learned.letters)
    await guard.office._approvals.vote(lead.hold_id, Choice.APPROVE, approver=EVA, by="test", seen=seen)
    told = [m for m in await guard.deliver() if b"X-Smtpguard-Notice: reminder" in m.content]
    assert reached(guard) == set(CUSTOMERS[:45])
    [later] = [h for h in await guard.holds() if h.state is Stands.WAITING]
    assert (later.primary, later.copies, later.reach, later.by_sender) == ("", 3, 4, True)
    assert {m.rcpts[0].split(b"<")[1].split(b">")[0].decode() for m in told} == {EVA, "omar@example.com"}
    (another,) = await one_by_one(guard, CUSTOMERS[300:301], every=1, seed="another")
    assert "Held" not in another, "the count was reset"
    await one_by_one(guard, CUSTOMERS[301:341], every=1, seed="many")
    [again] = [h for h in await guard.holds() if h.state is Stands.WAITING]
    assert again.hold_id == later.hold_id
    assert again.copies > 3
    await guard.office._approvals.vote(later.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await guard.deliver()
    assert reached(guard) >= set(CUSTOMERS[:49])
    assert (await guard.office._store.journal.verify()).ok


async def test_an_approval_of_letters_covers_no_mailing(guard: WholeGuard) -> None:
    """An approval of letters does not approve a mailing."""
    same = lambda customer: personal_mail(sender="anna@example.com", to=customer, head="", subject="Hej", body=words(60, "same"), message_id=f"<{customer}>")  # fmt: skip  # noqa: E731
    await one_by_one(guard, CUSTOMERS[:39], every=1)
    held_now = await guard.held(same(CUSTOMERS[50]), CUSTOMERS[50])
    assert held_now.by_sender
    await guard.office._approvals.vote(held_now.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await guard.deliver()
    await one_by_one(guard, CUSTOMERS[100:139], every=1, seed="more")
    again = await guard.held(same(CUSTOMERS[51]), CUSTOMERS[51])
    assert again.state is Stands.WAITING


async def test_an_approval_resets_the_count(guard: WholeGuard) -> None:
    await one_by_one(guard, CUSTOMERS[:45], every=1)
    [lead] = await guard.holds()
    await guard.office._approvals.vote(lead.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await guard.deliver()
    assert held(await one_by_one(guard, CUSTOMERS[:45], every=1, each=3, seed="known")) == 0, (
        "approved recipients are known"
    )
    said = await one_by_one(guard, CUSTOMERS[100:145], every=1, seed="more")
    assert 45 - held(said) == 39
    [second] = [h for h in await guard.holds() if h.hold_id != lead.hold_id]
    assert second.copies == 5


async def test_a_rejection_covers_all_letters_of_that_sender_only(guard: WholeGuard) -> None:
    await one_by_one(guard, CUSTOMERS[:45], every=1)
    [lead] = await guard.holds()
    await guard.office._approvals.vote(lead.hold_id, Choice.REJECT, approver=EVA, by="test", comment="Not these")
    await guard.deliver()
    assert len(reached(guard)) == 39
    bo = lambda n: "bo@example.com"  # noqa: E731
    assert held(await one_by_one(guard, CUSTOMERS[40:45], every=1, sender=bo, seed="bo")) == 0


async def test_a_letter_held_by_another_rule_has_its_own_hold(guard: WholeGuard) -> None:
    await one_by_one(guard, CUSTOMERS[:41], every=1)
    text = "Det här är bara för oss kollegor, säg inget till cheferna. " + words(60, "story")
    some = CUSTOMERS[100:108]
    content = plain("anna@example.com", "bo@example.com", "story", body=text)
    story = await guard.held(content, *some)
    assert "internal-to-hidden-members" in {h.rule for h in story.verdict.hits}
    assert (story.primary, story.by_sender) == ("", False)
    assert len(await guard.holds()) == 2


async def test_letters_beyond_the_limit_of_copies_are_deferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more: dict[str, Any] = {"listen": PROVEN, "readers": CUSTOMERS, "settings": "hold: {copies: 4}"}
    async with whole_guard(tmp_path, monkeypatch, **more) as guard:
        said = await one_by_one(guard, CUSTOMERS[:50], every=1)
        assert [s[:3] for s in said[-6:]] == ["451"] * 6
        assert held(said) == 5
        [lead] = await guard.holds()
        assert lead.copies == 4


async def test_an_unproven_sender_cannot_write_to_customers(guard: WholeGuard) -> None:
    strange = personal_mail(
        sender="Kim <kim@elsewhere.example>", to=CUSTOMERS[0], head="", subject="Hej", body=words(30, 1)
    )
    hold = await guard.held(strange, CUSTOMERS[0])
    assert "unproven-to-customers" in {h.rule for h in hold.verdict.hits}
    await guard.passes(
        personal_mail(sender="Kim <kim@elsewhere.example>", to="bo@example.com", head=""), "bo@example.com"
    )


@pytest.mark.parametrize(
    ("sender", "source", "path", "automatic"),
    [
        ("anna@example.com", "127.0.0.1", "anna@example.com", False),
        ("anna@example.com", "127.0.0.1", "", True),
        ("noreply@example.com", "127.0.0.3", "noreply@example.com", True),
        ("noreply@example.com", "127.0.0.1", "noreply@example.com", False),
    ],
)
async def test_auto_submitted_does_not_exempt_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sender: str, source: str, path: str, automatic: bool
) -> None:
    """Auto-Submitted counts with a null reverse-path, and from the origin of a stream, but not from a person."""
    rule = {"id": "by-people", "when": {"message.automatic": False, "recipients.customers": "any"}, "then": "hold"}
    async with whole_guard(tmp_path, monkeypatch, listen=PROVEN, readers=CUSTOMERS, text=policy(rules=[rule])) as guard:
        content = personal_mail(
            sender=sender, to=CUSTOMERS[0], head="Auto-Submitted: auto-generated\r\n", body=words(30, 1)
        )
        said = await guard.send(content, CUSTOMERS[0], sender=path, source=source)
        assert ("Held" in said) is not automatic, said


async def test_many_senders_to_one_list_raise_an_alarm(guard: WholeGuard) -> None:
    """First contacts of many senders on one list raise an alarm with the number, and privately with the senders; none
    is held for them."""
    looking = Observer(guard.settings, guard.office._store, guard.office._policies, guard.clock)
    for account in range(11):
        mine = CUSTOMERS[10 * account : 10 * (account + 1)]
        sender = lambda n, account=account: f"colleague{account}@example.com"  # noqa: E731
        assert held(await one_by_one(guard, mine, every=50, each=5, sender=sender, seed=account)) == 0
        (found,) = [alarm for alarm in raised(await looking.look()) if alarm.condition.name == "rule-calls"] or (None,)
        assert (found is not None) is (account >= 9), f"a hundred after {account + 1} accounts"
    assert found is not None
    assert "newsletter (1" in found.says
    assert "Många skriver till nya personer på en och samma lista samtidigt" in found.says, (
        "in the organization's language"
    )
    assert all(f"colleague{n}@example.com (10)" in str(found.found.private) for n in range(11))
    assert "colleague" not in found.says + found.title
    await guard.pass_(hours=2)
    assert [a for a in raised(await looking.look()) if a.condition.name == "rule-calls"] == []


async def test_the_alarm_about_a_list_arrives_within_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm about a list is delivered within a minute by mail and webhook, also for a second list; only the mail
    names the senders."""
    assert 2 * alarms.LOOK_SECONDS + alarms.STORE_SECONDS + 4 * rounds.PATIENCE_SECONDS < 60
    rule = {
        "id": "few-write",
        "when": {"list.first_contacts": ">= 5 in 1h"},
        "then": "alarm",
        "description": "Several write to a list",
    }
    (tmp_path / "s").write_text("a secret of the receiver")
    async with receiver() as hook:
        more: dict[str, Any] = {
            "settings": f"alarms: {{webhook: {{url: '{hook.url}', secret_file: s}}}}",
            "text": policy(fresh=True, rules=[rule]),
        }
        async with whole_guard(tmp_path, monkeypatch, listen=PROVEN, readers=CUSTOMERS[:9], **more) as guard:
            monkeypatch.setattr(alarms, "LOOK_SECONDS", 0.02)
            part = alarms.Alarms(guard.settings, guard.clock)
            await part.start()
            serving = asyncio.create_task(part.serve())
            try:
                for name, people in (("newsletter", CUSTOMERS), ("ramadan-greetings", MEMBERS)):
                    for n in range(5):
                        assert mails(guard, name) == []
                        sender = f"colleague{n}@example.com"
                        await guard.passes(plain(sender, people[n], (name, n)), people[n], sender=sender)
                        await guard.pass_(seconds=60)
                    async with asyncio.timeout(300):
                        while not (mailed := mails(guard, name)) or f"few-write ({name})" not in times(hook):  # noqa: ASYNC110
                            await asyncio.sleep(0.01)
                    assert f"{name} (5)" in mailed[0]
                    assert all(f"colleague{n}@example.com (" in mailed[0] for n in range(5))
                    at = times(hook)[f"few-write ({name})"]
                    assert (guard.clock.now() - datetime.fromisoformat(at)).total_seconds() <= 60
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                await part.close()
    assert b"colleague" not in b"".join(asked.body for asked in hook.asked)


def mails(guard: WholeGuard, name: str) -> list[str]:
    """Texts of the alarm mails about that list."""
    raw = [m.content for m in guard.relay.messages if m.recipients == ["it@example.com"]]
    texts = [str(message_from_bytes(each, policy=default).get_body(("plain",)).get_content()) for each in raw]  # type: ignore[union-attr]
    return [
        " ".join(text.split())
        for text in texts
        if f"few-write ({name})" in " ".join(text.split()) or f"{name} (" in text
    ]


def times(hook: Receiver) -> dict[str, str]:
    """When the webhook got each alarm, by what it is about."""
    return {asked.json["data"]["about"]: asked.json["at"] for asked in hook.asked}


@pytest.mark.parametrize(("login", "passes"), [("news-robot", True), ("anna", False), ("", False)])
async def test_a_systems_login_proves_its_stream_and_list_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str, passes: bool
) -> None:
    """A login of a declared system, told by a trusted proxy (XCLIENT LOGIN), proves the stream and its list header
    fields; a person's does not."""
    letters = {"when": {"message.looks": ["internal", "unclear"], "recipients.customers": "any"}, "then": "hold"}
    unproven = {"when": {"sender.proven": False, "recipients.customers": "any"}, "then": "hold"}
    stated = yaml.safe_load(policy(rules=[{"id": "letters", **letters}, {"id": "unproven", **unproven}]))
    stated["streams"] = {"news": {"from": ["robot@example.com"], "origin": {"logins": ["News-Robot"]}}}
    more: dict[str, Any] = {"text": yaml.safe_dump(stated), "settings": "trust: [127.0.0.1]"}
    async with whole_guard(tmp_path, monkeypatch, readers=CUSTOMERS[:9], **more) as guard:
        client = await guard.connect()
        if login:
            assert (await client.ask(f"XCLIENT ADDR=127.0.0.9 LOGIN={login}")).startswith("220")
            assert (await client.ask("EHLO desk.example")).startswith("250")
        fields = "List-Unsubscribe: <https://news.example.com/u/1>\r\nPrecedence: bulk\r\n"
        content = personal_mail(
            sender="robot@example.com", to=CUSTOMERS[0], subject="Nyheter", head=fields, body=words(40, 1)
        )
        for line in ("MAIL FROM:<robot@example.com>", f"RCPT TO:<{CUSTOMERS[0]}>", "DATA"):
            assert (await client.ask(line))[:3] in ("250", "354")
        client.say(content + b".\r\n")
        assert ("Held" in await client.hear()) is not passes
        assert await rules_of(guard) == (set() if passes else {"letters", "unproven"})


def forget_contacts(guard: WholeGuard) -> None:
    """As in a store from a version without these counts, or under a new secret."""
    with closing(sqlite3.connect(guard.config.parent / "guard.db")) as database, database:
        for table in ("contact_since", "person", "again", "sent", "moment", "reset", "swept"):
            database.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize(
    "login", ["", "anna@example.com", "bo@example.com", "bo", "anna", "EXAMPLE\\bo", "bo@here.example"]
)
async def test_past_recipients_are_known_under_every_name_of_their_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    more: dict[str, Any] = {"text": FRESH, "settings": "trust: [127.0.0.1]"}
    async with whole_guard(tmp_path, monkeypatch, readers=CUSTOMERS, **more) as guard:
        assert held(await one_by_one(guard, CUSTOMERS[:45], every=180, login=login)) == 0
        forget_contacts(guard)
        await guard.pass_(hours=2)
        await start.prepare(guard.settings, by="test", parts=("proxy",))
        assert held(await one_by_one(guard, CUSTOMERS[:45], every=1, seed="again", login=login)) == 0


async def test_after_an_upgrade_known_recipients_are_read_from_the_journal(guard: WholeGuard) -> None:
    """Past recipients are known from the journal; recipients of mail that was held and never approved are first
    contacts."""
    assert held(await one_by_one(guard, CUSTOMERS[:45], every=1)) == 6
    forget_contacts(guard)
    await guard.pass_(hours=2)
    await start.prepare(guard.settings, by="test", parts=("proxy",))
    assert held(await one_by_one(guard, CUSTOMERS[:39], every=1, each=3, seed="again")) == 0
    assert held(await one_by_one(guard, CUSTOMERS[39:80], every=1, seed="new")) == 2
    found = [f for f in await store_findings(guard.settings, read_policy(guard.settings)) if f.about == "contacts"]
    assert [(f.state, "known since 2026-03-02 only: until 2026-04-01" in f.text) for f in found] == [
        (State.UNKNOWN, True)
    ]
    await guard.pass_(days=30)
    found = [f for f in await store_findings(guard.settings, read_policy(guard.settings)) if f.about == "contacts"]
    assert [(f.state, f.text) for f in found] == [(State.FINE, "recipients of past mail are known since 2026-03-02")]
