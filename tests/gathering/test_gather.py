"""All facts of a message, with sources that answer, fail or lie. Facts about its sender are in test_sender."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from typing import Any

import pytest

from smtpguard.gathering.gather import trace_text
from smtpguard.gathering.turns import Turns
from smtpguard.lists.expansions import Expansion, Expansions, expansions_path, write_expansions
from smtpguard.lists.index import index_path
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Transaction
from smtpguard.mail.trace import prepend
from smtpguard.policy.facts import FACTS, Count, Source, Unknown, Value
from smtpguard.policy.implication import _possible
from smtpguard.policy.rule import NOT_ASKED
from smtpguard.reading.fingerprint import FEWEST, Sketch, sketch
from smtpguard.reading.request import Depth, Steps
from tests.clocks import MONDAY
from tests.every import every
from tests.guard.house import DOCUMENTS, EVERYTHING, KEY, MEMBERS, RAMADAN, House, index, mail

ENVELOPE = [f.name for f in FACTS.values() if f.source is Source.ENVELOPE]
HEADERS = [f.name for f in FACTS.values() if f.source is Source.HEADERS]


def blind(home: House, name: str = "ramadan") -> None:
    """Remove the list's index."""
    index_path(home.folder, name).unlink()
    home.in_force = home.build(DOCUMENTS)


async def test_every_fact_has_its_source(home: House) -> None:
    values = await home.facts(RAMADAN, MEMBERS[0], "ulf@example.com", "x@example.org")
    asked = {f.name for f in FACTS.values() if f.source is not Source.LIVE}
    assert [name for name in asked if isinstance(values.get(name, NOT_ASKED), Unknown)] == []
    opened = await home.facts("x@example.org", ask=frozenset())
    assert {*ENVELOPE, *HEADERS} <= opened.keys()
    assert "message.looks" not in opened


@every(
    ("to", "domains"),
    [
        ("x@GMail.com.", ["gmail.com"]),
        ("x@bücher.example", ["xn--bcher-kva.example"]),
        ("x%GMAIL.com@relay.example", ["gmail.com", "relay.example"]),
        ('"x@gmail.com"@relay.example', ["gmail.com", "relay.example"]),
    ],
)
async def test_no_spelling_hides_the_domain_of_a_recipient(home: House, to: str, domains: list[str]) -> None:
    assert (await home.facts(to))["recipients.domains"] == frozenset(domains)


async def test_text_is_read_with_the_header_if_it_may_reach_a_customer(home: House) -> None:
    assert "message.looks" in await home.facts(RAMADAN, ask=frozenset())
    home.reader.asked.clear()
    home.reader.text_fails = RuntimeError("cannot")
    opened = await home.facts(RAMADAN, ask=frozenset())
    assert isinstance(opened["message.looks"], Unknown)
    assert opened["message.automatic"] is False  # the header's facts stay known
    assert home.reader.asked == [Depth.TEXT, Depth.HEADERS]


async def test_impossible_conditions_are_never_true(home: House) -> None:
    """Conditions that policy.implication calls impossible are false for random messages."""
    anybody = [
        RAMADAN,
        "news@lists.example.com",
        "reader@example.org",
        "ulf@example.com",
        "x@example.org",
        *MEMBERS[:5],
    ]
    drawn = random.Random(7)
    for _ in range(150):
        to = drawn.choices(anybody, k=drawn.randint(1, 9))
        values = await home.facts(*to, To=drawn.choice(to))
        assert _possible(values), to


async def test_recipients_are_classified(home: House) -> None:
    values = await home.facts(RAMADAN, MEMBERS[0], "reader@example.org", "ulf@example.com", "x@example.org")
    assert values["recipients.total"] == Count(5, 5)
    assert values["recipients.list_addresses"] == Count(1, 1)
    assert values["recipients.members"] == Count(2, 2)
    assert values["recipients.internal"] == Count(1, 1)
    assert values["recipients.outside"] == Count(1, 1)
    assert values["recipients.customers"] == Count(61, 61)  # the first member is on the list already
    assert values["recipients.reach"] == Count(63, 63)
    assert values["recipients.share"] == Count(1, 1)
    assert values["recipients.lists"] == frozenset({"ramadan", "news"})
    assert values["recipients.audience"] == frozenset({"customers"})
    assert values["recipients.sensitivity"] == frozenset({"special-category"})


async def test_share_of_a_list_by_single_members(home: House) -> None:
    assert (await home.facts(*MEMBERS[:15]))["recipients.share"] == Count(0.25, 0.25)
    assert (await home.facts("x@example.org"))["recipients.share"] == Count(0, 0)


async def test_undisclosed_members_are_in_neither_to_nor_cc(home: House) -> None:
    hidden = await home.facts(*MEMBERS[:6], To=MEMBERS[0], Cc=f"Somebody <{MEMBERS[1]}>")
    assert hidden["recipients.undisclosed"] == Count(4, 4)
    assert (await home.facts("x@example.org", To="y@example.org"))["recipients.undisclosed"] == Count(0, 0)


@every(
    ("to", "more", "expected"),
    [
        (MEMBERS[:1], {}, True),
        (MEMBERS[:3], {}, True),
        ([*MEMBERS[:3], "ulf@example.com", "ida@example.com", "x@example.org"], {}, True),
        (MEMBERS[:4], {}, False),
        (MEMBERS[:1], {"To": "somebody@example.org"}, False),  # in Bcc
        (MEMBERS[:1], {"X_Forwarded_Thread": "yes"}, False),
        ([RAMADAN], {}, False),
        (["ulf@example.com"], {}, True),
    ],
)
async def test_correspondence_by_recipients_and_headers(
    home: House, to: list[str], more: dict[str, Any], expected: bool
) -> None:
    assert (await home.facts(*to, **more))["message.correspondence"] is expected


async def test_unsuitable_topics_are_those_that_an_addressed_list_avoids(home: House) -> None:
    pork: dict[str, Any] = {"X_Topics": "pork weather"}
    assert (await home.facts(MEMBERS[0], **pork))["message.topics"] == frozenset({"pork", "weather"})
    assert (await home.facts(MEMBERS[0], **pork))["message.unsuitable_topics"] == frozenset({"pork"})
    assert (await home.facts("reader@example.org", **pork))["message.unsuitable_topics"] == frozenset()


# -- unknown facts


async def test_without_an_index_counts_are_intervals(home: House) -> None:
    blind(home)
    values = await home.facts("a@example.org", "b@example.org", "ulf@example.com", X_Topics="pork")
    assert values["recipients.customers"] == Count(0, 2)
    assert values["recipients.members"] == Count(0, 2)
    assert values["recipients.undisclosed"] == Count(0, 0)
    assert isinstance(values["recipients.lists"], Unknown)
    assert "ramadan" in values["recipients.lists"].why
    assert isinstance(values["message.unsuitable_topics"], Unknown)
    assert values["message.correspondence"] is True
    share = values["recipients.share"]
    assert isinstance(share, Count)
    assert share.low == 0
    assert share.high > 0


async def test_without_an_index_a_list_address_counts_as_the_list(home: House) -> None:
    blind(home)
    values = await home.facts(RAMADAN)
    assert values["recipients.list_addresses"] == Count(1, 1)
    assert values["recipients.lists"] == frozenset({"ramadan"})
    reach = values["recipients.reach"]
    assert isinstance(reach, Count)
    assert reach.high == float("inf")


async def test_without_an_index_many_outsiders_may_be_a_mailing(home: House) -> None:
    blind(home)
    values = await home.facts(*(f"p{n}@example.org" for n in range(30)), To="x@example.org")
    assert values["recipients.undisclosed"] == Count(0, 30)
    assert isinstance(values["message.correspondence"], Unknown)


async def test_unreadable_facts_are_unknown_with_their_reason(home: House) -> None:
    values = await home.facts(RAMADAN, X_Readable="unreadable")
    assert values["message.readable"] == "unreadable"
    for name in ("message.looks", "message.topics", "message.unsuitable_topics", "message.correspondence"):
        value = values[name]
        assert isinstance(value, Unknown)
        assert value.why == "it is encrypted"


async def test_topics_in_the_subject_of_an_unreadable_message_count(home: House) -> None:
    values = await home.facts(RAMADAN, X_Readable="unreadable", X_Topics="pork")
    assert values["message.unsuitable_topics"] == Unknown(why="it is encrypted", known=frozenset({"pork"}))


async def test_a_failing_verifier_makes_proof_unknown(home: House) -> None:
    home.verifier.fails = OSError("no network")
    values = await home.facts(RAMADAN, sender="campaigns@example.com")
    assert isinstance(values["sender.is_writer"], Unknown)
    assert isinstance(values["sender.proven"], Unknown)
    assert "no network" not in values["sender.proven"].why


# -- copies from a list server


def expanded(home: House, *to: str, lists: tuple[str, ...] = ("ramadan",), **more: Any) -> Transaction:
    """A copy of an admitted post, as the list server sends it to members."""
    post = home.transaction(RAMADAN)
    trace = prepend(post, "a" * 64, more.pop("key", KEY), "guard", MONDAY, lists, more.pop("text", ()))
    list_id = more.pop("list_id", "Ramadan <ramadan.lists.example.com>")
    session = more.pop("session", {"expander": True})
    copy = home.transaction(*to, reverse_path="ramadan-bounces@lists.example.com", session=session)
    raw = f"List-Id: {list_id}\r\n".encode() + trace + mail(RAMADAN, **more)
    return Transaction(id=copy.id, session=copy.session, envelope=copy.envelope, message=type(copy.message).of(raw))


async def customers(home: House, transaction: Transaction) -> Value | None:
    return (await home.gathered(transaction)).facts.values.get("recipients.customers")


async def test_expanded_copies_of_an_admitted_message_are_not_counted(home: House) -> None:
    copy = expanded(home, *MEMBERS[:50])
    assert await customers(home, copy) == Count(0, 0)
    facts = (await home.gathered(copy)).facts
    assert facts.values.get("recipients.undisclosed") == Count(0, 0)
    assert facts.lists == frozenset({"ramadan"})  # a freeze of the list still stops it
    assert facts.values.get("recipients.total") == Count(50, 50)


async def test_reports_on_a_copy_of_an_admitted_post_go_where_the_list_server_says(home: House) -> None:
    path = Address.parse("ramadan+x=example.net@lists.example.com")
    for copy, lists in (
        (expanded(home, *MEMBERS[:5]), frozenset()),
        (expanded(home, *MEMBERS[:5], session={}), frozenset({"ramadan"})),
    ):
        known = await home.gathered(replace(copy, envelope=replace(copy.envelope, reverse_path=path)))
        assert known.reports_to == lists


async def test_recipients_that_the_list_does_not_explain_are_counted(home: House) -> None:
    assert await customers(home, expanded(home, *MEMBERS[:5], "reader@example.org")) == Count(1, 1)


async def test_without_an_index_expanded_copies_are_not_counted(home: House) -> None:
    copy = expanded(home, *MEMBERS[:50])
    blind(home)
    assert await customers(home, copy) == Count(0, 0)


@every(
    "more",
    [
        {"session": {}},  # not from the expander
        {"key": b"x" * 32},  # a forged trace
        {"lists": ("news",)},  # admitted to another list
        {"lists": ()},  # admitted to an address that was not known as a list
        {"list_id": "Other <other.lists.example.com>"},
        {"list_id": "ramadan.lists.example.com\r\nList-Id: <ramadan.lists.example.com>"},
        {"Message_ID": "<2@example.com>\r\nMessage-ID: <1@example.com>"},
    ],
)
async def test_a_message_that_resembles_a_copy_is_judged_alone(home: House, more: dict[str, Any]) -> None:
    assert await customers(home, expanded(home, *MEMBERS[:50], **more)) == Count(50, 50)


async def test_another_text_with_a_copied_trace_is_judged_alone(home: House) -> None:
    """A copy with a post's trace and another text is judged by itself: every member has the trace and could reuse it."""
    own = sketch(
        " ".join(
            f"the {word} garden opens at noon"
            for word in ["rose", "herb", "wild", "moon", "stone", "walled", "kitchen"]
        )
    )
    assert len(own.numbers) >= 8
    home.reader.sketch = own
    assert await customers(home, expanded(home, *MEMBERS[:50], text=own.numbers)) == Count(0, 0)
    home.reader.sketch = Sketch((*own.numbers[: len(own.numbers) // 2 + 1], 1 << 31, (1 << 31) + 1))  # such as a footer
    assert await customers(home, expanded(home, *MEMBERS[:50], text=own.numbers)) == Count(0, 0)
    much = Sketch.of(sorted((*own.numbers, *range(60 - len(own.numbers)))))  # the post's text below five times as much
    for another in (Sketch((1, 2, 3, 4, 5, 6, 7, 8, 9)), much, Sketch()):
        home.reader.sketch = another
        assert await customers(home, expanded(home, *MEMBERS[:50], text=own.numbers)) == Count(50, 50)
    home.reader.text_fails = RuntimeError("no reader")
    assert await customers(home, expanded(home, *MEMBERS[:50], text=own.numbers)) == Count(50, 50)


async def test_the_trace_of_a_short_post_admits_no_other_text(home: House) -> None:
    """A post without a sketch: a greeting, a picture, or one admitted by an earlier version."""
    greeting, footer = "A blessed Ramadan to all our friends.", "You are on the list ramadan. To leave it, write to us."
    party = "Tonight we meet for bacon and liquor in the kitchen behind the shop. " * 2
    long = "; ".join(f"{what}, {where}" for what in ("a ham", "pork roast", "red wine", "cold beer", "rum punch")
                     for where in ("by the window", "under a table", "behind doors", "after six", "at the bank", "in the yard"))  # fmt: skip
    home.reader.sketch = Sketch()
    home.reader.excerpt = greeting
    post = trace_text(await home.reader.apart(home.transaction(RAMADAN).message, Depth.TEXT))
    assert 0 < len(post) < FEWEST
    for text, copies in (
        (greeting, True),
        (f"{greeting}\n{footer}", True),
        (party, False),
        (f"{greeting} {long}", False),
        (long, False),
    ):
        home.reader.excerpt = text
        assert await customers(home, expanded(home, *MEMBERS[:50], text=post)) == Count(*[0 if copies else 50] * 2)
    assert await customers(home, expanded(home, *MEMBERS[:50])) == Count(
        50, 50
    )  # a trace that says nothing of the text
    home.reader.excerpt = greeting
    assert await customers(home, expanded(home, *MEMBERS[:50])) == Count(0, 0)


async def test_each_source_is_asked_once(home: House) -> None:
    await home.gathered(home.transaction(RAMADAN, sender="Campaigns <campaigns@example.com>"), *[EVERYTHING] * 3)
    assert len(home.reader.asked) == 1
    assert home.verifier.asked == 1


async def test_members_of_a_stale_index_stay_members(home: House) -> None:
    old = MONDAY.timestamp() - 3 * 86_400
    os.utime(index_path(home.folder, "ramadan"), (old, old))
    home.clock.pass_(seconds=2)
    values = await home.facts(MEMBERS[0], "x@example.org")
    assert values["recipients.members"] == Count(1, 2)
    assert values["recipients.lists"] == frozenset({"ramadan"})


async def test_client_listener_and_login_are_facts(home: House) -> None:
    values = await home.facts(
        "x@example.org", ask=frozenset(), session={"listener": "inside", "auth_user": "Anna@Example.com"}
    )
    assert (values["client"], values["listener"], values["login"]) == (
        "192.0.2.1",
        "inside",
        frozenset({"anna@example.com"}),
    )
    nobody = await home.facts("x@example.org", ask=frozenset(), session={"client_ip": ""})
    assert isinstance(nobody["client"], Unknown)
    assert nobody["login"] == frozenset()


async def test_a_proven_campaign_is_identified_by_all_its_declared_names(home: House) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com"})
    gathered = await home.gathered(
        home.transaction(
            RAMADAN, sender="campaigns@example.com", X_Campaign="copy-4711 spring", X_Mailing="text of it",
            DKIM_Signature="v=1; a=rsa-sha256; d=campaigns.example.com; s=s; h=from; bh=x; b=y",
        ),
        frozenset({Source.TEXT, Source.ORIGIN}),
    )  # fmt: skip
    assert gathered.facts.identity is not None
    names = gathered.facts.identity.names
    assert names[:2] == ("campaign campaigns@example.com copy-4711", "campaign campaigns@example.com spring")
    assert names[2] == "text of it"


async def test_a_short_answer_to_its_recipients_is_one_message(home: House) -> None:
    async def names(quoted: str) -> tuple[str, ...]:
        shown = home.transaction(MEMBERS[0], X_Mailing="shown text", X_Little="yes", X_Quotes=quoted)
        identity = (await home.gathered(shown)).facts.identity
        assert identity is not None
        return identity.names

    assert await names(MEMBERS[0]) == ("message alone",)
    assert await names("somebody@example.org") == ("shown text",)


@pytest.mark.parametrize(("seconds", "rounds"), [(0, ["0", "1", "3", "4"]), (60, ["0", "134"])])
async def test_of_many_who_wait_some_are_served_in_each_round_of_the_loop(
    monkeypatch: pytest.MonkeyPatch, seconds: float, rounds: list[str]
) -> None:
    monkeypatch.setattr("smtpguard.gathering.turns.AT_ONCE_SECONDS", seconds)
    turns, done = Turns(), list[str]()

    def work(name: str) -> Steps[str]:
        done.append(name)
        if name == "3":
            raise ValueError(name)
        return name
        yield

    waiting = [asyncio.ensure_future(turns.of(work(str(n)))) for n in range(5)]
    await asyncio.sleep(0)
    waiting[2].cancel()
    while not all(map(asyncio.Future.done, waiting)):
        done.append(".")
        await asyncio.sleep(0)
    assert [said for said in "".join(done).replace("0", "0.").split(".") if said] == rounds
    assert [one.result() for one in waiting if not one.cancelled() and one.exception() is None] == ["0", "1", "4"]
    assert isinstance(waiting[3].exception(), ValueError)
    for _ in range(5):
        await asyncio.sleep(0)
    assert await turns.of(work("5")) == "5"
    assert done[-1] == "5"


async def test_each_step_is_taken_for_some_who_wait_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpguard.gathering.turns.AT_ONCE_SECONDS", 60)
    monkeypatch.setattr("smtpguard.gathering.turns.TOGETHER", 2)
    turns, done = Turns(), list[str]()

    def work(name: str) -> Steps[str]:
        done.append(f"{name}a")
        yield
        done.append(f"{name}b")
        if name == "1":
            raise ValueError(name)
        yield
        done.append(f"{name}c")
        return name

    found = await asyncio.gather(*(turns.of(work(str(n))) for n in range(5)), return_exceptions=True)
    assert " ".join(done) == "0a 0b 0c 1a 2a 1b 2b 2c 3a 4a 3b 4b 3c 4c"
    assert [str(one) for one in found] == ["0", "1", "2", "3", "4"]
    assert isinstance(found[1], ValueError)


@pytest.mark.parametrize(
    ("to", "shown", "another"),
    [
        (MEMBERS[:1], MEMBERS[1], True),
        (MEMBERS[:1], MEMBERS[0], False),
        (MEMBERS[:1], ", ".join(MEMBERS[:2]), False),
        (MEMBERS[:1], ", ".join(MEMBERS[1:3]), False),
        (MEMBERS[:1], RAMADAN, False),
        (MEMBERS[:1], "somebody@elsewhere.example", False),
        (MEMBERS[:1], None, False),
        (MEMBERS[:2], MEMBERS[2], False),
        ([], MEMBERS[0], False),
        (["somebody@elsewhere.example"], MEMBERS[0], False),
        (["anna@example.com"], MEMBERS[0], False),  # a colleague, who is on a list too
        (MEMBERS[:1], "anna@example.com", False),
        (["bo.ek@gmail.com"], "boek@googlemail.com", False),  # one mailbox
        (["bo.ek@gmail.com"], MEMBERS[0], True),
    ],
)
async def test_a_copy_names_another_customer_than_it_goes_to(
    home: House, to: list[str], shown: str | None, another: bool
) -> None:
    index(home.folder, "ramadan", [*MEMBERS, "bo.ek@gmail.com"])
    home.in_force = home.build(DOCUMENTS)
    gathered = await home.gathered(home.transaction(*to, To=shown), EVERYTHING)
    assert gathered.names_another is another


async def test_a_copy_for_a_member_of_the_group_in_to_names_nobody_else(home: House) -> None:
    """As a server sends it on that the guard does not know."""
    group, registry = "office@customer.example", home.in_force.registry
    [key, *members] = (registry.digester.of(Address.parse(one)) for one in (group, *MEMBERS[:2]))
    found = Expansion(key=key, people=2, customers=2, lists={"ramadan": 2}, members=tuple(members))
    known, here = {int.from_bytes(key, "big"): found}, expansions_path(home.folder)
    key_id, at = registry.digester.key_id, home.clock.now()
    write_expansions(here, known, domains={}, catches=False, key_id=key_id, at=at, namesakes={})
    registry.expansions = Expansions(home.folder, *registry.digester.key_ids)
    registry.reopen()
    [behind] = registry.classify([Address.parse(group)]).recipients
    assert behind.behind == found
    gathered = await home.gathered(home.transaction(MEMBERS[0], To=group), EVERYTHING)
    assert not gathered.names_another
