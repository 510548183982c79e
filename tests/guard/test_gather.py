"""The facts of a message: every one of them, from rooms that are there, that are not, and that lie."""

from __future__ import annotations

import os
from typing import Any

import pytest

from smtpguard.guard.gather import Gathering
from smtpguard.lists.shelf import index_path
from smtpguard.mail.trace import prepend
from smtpguard.mail.transaction import Transaction
from smtpguard.policy.facts import FACTS, Count, Source, Unknown, Value
from smtpguard.reading.fingerprint import Sketch, sketch
from tests.guard.house import KEY, MEMBERS, MONDAY, RAMADAN, House, mail

ALL = frozenset({Source.HEADERS, Source.TEXT, Source.ORIGIN})
ENVELOPE = [f.name for f in FACTS.values() if f.source is Source.ENVELOPE]
HEADERS = [f.name for f in FACTS.values() if f.source is Source.HEADERS]


async def facts(home: House, *to: str, ask: frozenset[Source] = ALL, **more: Any) -> dict[str, Value]:
    gathering = home.gathering(home.transaction(*to, **more))
    await gathering.open()
    return dict((await gathering.ask(ask)).values) if ask else dict(gathering.facts.values)


def blind(home: House, name: str = "ramadan") -> None:
    """The list's index is gone."""
    index_path(home.folder, name).unlink()
    home.in_force = home.build(home_documents())


def home_documents() -> dict[str, bytes]:
    from tests.guard.house import DOCUMENTS

    return DOCUMENTS


async def test_every_fact_is_given_by_its_source(home: House) -> None:
    values = await facts(home, RAMADAN, MEMBERS[0], "ulf@example.com", "x@example.org")
    asked = {f.name for f in FACTS.values() if f.source is not Source.LIVE}
    assert asked <= values.keys()
    opened = await facts(home, "x@example.org", ask=frozenset())
    assert {*ENVELOPE, *HEADERS} <= opened.keys()
    assert "message.looks" not in opened


async def test_of_what_may_reach_a_customer_the_text_is_read_with_the_header(home: House) -> None:
    assert "message.looks" in await facts(home, RAMADAN, ask=frozenset())
    home.reader.asked.clear()
    home.reader.text_fails = RuntimeError("cannot")
    opened = await facts(home, RAMADAN, ask=frozenset())
    assert isinstance(opened["message.looks"], Unknown)
    assert opened["message.automatic"] is False  # what the header says still stands
    assert home.reader.asked == [frozenset({Source.HEADERS, Source.TEXT}), frozenset({Source.HEADERS})]


async def test_recipients(home: House) -> None:
    values = await facts(home, RAMADAN, MEMBERS[0], "reader@example.org", "ulf@example.com", "x@example.org")
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
    assert (await facts(home, *MEMBERS[:15]))["recipients.share"] == Count(0.25, 0.25)
    assert (await facts(home, "x@example.org"))["recipients.share"] == Count(0, 0)


async def test_undisclosed_members_are_those_whom_neither_to_nor_cc_shows(home: House) -> None:
    hidden = await facts(home, *MEMBERS[:6], To=MEMBERS[0], Cc=f"Somebody <{MEMBERS[1]}>")
    assert hidden["recipients.undisclosed"] == Count(4, 4)
    assert (await facts(home, "x@example.org", To="y@example.org"))["recipients.undisclosed"] == Count(0, 0)


@pytest.mark.parametrize(
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
async def test_correspondence(home: House, to: list[str], more: dict[str, str], expected: bool) -> None:
    assert (await facts(home, *to, **more))["message.correspondence"] is expected


async def test_unsuitable_topics_are_those_that_an_addressed_list_is_to_be_spared(home: House) -> None:
    pork = {"X_Topics": "pork weather"}
    assert (await facts(home, MEMBERS[0], **pork))["message.topics"] == frozenset({"pork", "weather"})
    assert (await facts(home, MEMBERS[0], **pork))["message.unsuitable_topics"] == frozenset({"pork"})
    assert (await facts(home, "reader@example.org", **pork))["message.unsuitable_topics"] == frozenset()


# -- what cannot be found out


async def test_with_no_index_counts_are_intervals_and_ordinary_mail_is_few(home: House) -> None:
    blind(home)
    values = await facts(home, "a@example.org", "b@example.org", "ulf@example.com", X_Topics="pork")
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


async def test_with_no_index_a_list_address_still_is_one(home: House) -> None:
    blind(home)
    values = await facts(home, RAMADAN)
    assert values["recipients.list_addresses"] == Count(1, 1)
    assert values["recipients.lists"] == frozenset({"ramadan"})
    reach = values["recipients.reach"]
    assert isinstance(reach, Count)
    assert reach.high == float("inf")


async def test_with_no_index_many_strangers_may_be_a_mailing(home: House) -> None:
    blind(home)
    values = await facts(home, *(f"p{n}@example.org" for n in range(30)), To="x@example.org")
    assert values["recipients.undisclosed"] == Count(0, 30)
    assert isinstance(values["message.correspondence"], Unknown)


async def test_what_cannot_be_read_is_unknown_with_its_reason(home: House) -> None:
    values = await facts(home, RAMADAN, X_Readable="unreadable")
    assert values["message.readable"] == "unreadable"
    for name in ("message.looks", "message.topics", "message.unsuitable_topics", "message.correspondence"):
        value = values[name]
        assert isinstance(value, Unknown)
        assert value.why == "it is encrypted"


async def test_what_was_found_in_the_subject_of_what_cannot_be_read_counts(home: House) -> None:
    values = await facts(home, RAMADAN, X_Readable="unreadable", X_Topics="pork")
    assert values["message.unsuitable_topics"] == frozenset({"pork"})


async def test_a_verifier_that_fails(home: House) -> None:
    home.verifier.fails = OSError("no network")
    values = await facts(home, RAMADAN, sender="campaigns@example.com")
    assert isinstance(values["sender.is_writer"], Unknown)
    assert isinstance(values["sender.proven"], Unknown)
    assert "no network" not in values["sender.proven"].why


# -- who wrote it


CAMPAIGN = {"sender": "Campaigns <campaigns@example.com>"}


@pytest.mark.parametrize(
    ("to", "more", "signed", "proven", "writer"),
    [
        ("ulf@example.com", {}, "", False, True),
        ("ulf@example.com", {"session": {"auth_user": "anna@example.com"}}, "", True, True),
        ("ulf@example.com", {"session": {"auth_user": "Anna+x@EXAMPLE.com"}}, "", True, True),
        ("ulf@example.com", {"session": {"auth_user": "anna"}}, "", True, True),
        ("ulf@example.com", {"session": {"auth_user": "ulf@example.com"}}, "", False, True),
        ("ulf@example.com", {"session": {"senders_verified": True}}, "", True, True),
        ("ulf@example.com", {"sender": "x@example.org", "session": {"senders_verified": True}}, "", False, True),
        (RAMADAN, {"session": {"auth_user": "anna@example.com"}}, "", True, False),
        (RAMADAN, CAMPAIGN, "", False, False),
        (RAMADAN, CAMPAIGN, "campaigns.example.com", True, True),
        (RAMADAN, CAMPAIGN, "example.com", False, False),
        # where a list says from where its mail must come, nothing else proves it
        (RAMADAN, CAMPAIGN | {"session": {"auth_user": "campaigns@example.com"}}, "", True, False),
        ("news@lists.example.com", {"sender": "eva@example.com"}, "", False, False),
        (
            "news@lists.example.com",
            {"sender": "eva@example.com", "session": {"senders_verified": True}},
            "",
            True,
            True,
        ),
        # a writer of one of two lists is none
        (f"{RAMADAN} news@lists.example.com", CAMPAIGN, "campaigns.example.com", True, False),
        # one by one to members of a list that it may write to
        (MEMBERS[0], CAMPAIGN, "campaigns.example.com", True, True),
    ],
)
async def test_proof(home: House, to: str, more: dict[str, Any], signed: str, proven: bool, writer: bool) -> None:
    home.verifier.domains = frozenset(signed.split())
    values = await facts(home, *to.split(), **more)
    assert values["sender.proven"] is proven
    assert values["sender.is_writer"] is writer


@pytest.mark.parametrize(
    "more",
    [
        {"sender": "anna@example.com, campaigns@example.com"},
        {"sender": "anna@example.com\r\nFrom: campaigns@example.com"},
        {"From": None},
        {"sender": "nobody"},
        {"sender": "campaigns@example.com\r\nbroken line"},
    ],
)
async def test_a_from_that_is_not_one_is_nobodys(home: House, more: dict[str, Any]) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com"})
    session = {"auth_user": "campaigns@example.com", "senders_verified": True}
    values = await facts(home, RAMADAN, session=session, **more)
    assert isinstance(values["sender.address"], Unknown)
    assert values["sender.proven"] is False
    assert values["sender.is_writer"] is False


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("anna@example.com", "anna@example.com"),
        ("Anna Andersson <Anna+x@EXAMPLE.com>", "anna@example.com"),
        ('"Andersson, Anna" <anna@example.com>', "anna@example.com"),
        ("Andersson, Anna <anna@example.com>", "anna@example.com"),
        ("=?utf-8?q?=C3=85sa?= <asa@example.com>", "asa@example.com"),
        ("anna@example.com (Anna)", "anna@example.com"),
        ("<anna@example.com>", "anna@example.com"),
        ('"anna b"@example.com', "anna b@example.com"),
        ("Åsa <åsa@exämple.com>", "åsa@xn--exmple-cua.com"),
    ],
)
async def test_how_from_is_spelled(home: House, sender: str, expected: str) -> None:
    gathering = home.gathering(home.transaction(RAMADAN, sender=sender))
    assert gathering.sender.claimed == expected
    assert gathering.sender.facts(gathering.transaction, gathering.counted, home.in_force.registry, None)


async def test_a_from_that_two_readings_take_for_two_is_nobodys(home: House) -> None:
    values = await facts(home, RAMADAN, sender="=?utf-8?q?<eva=40example.com>?= <campaigns@example.com>")
    assert values["sender.address"] in (  # by how strict this Python's reading of addresses is
        "campaigns@example.com",
        Unknown(why="From can be read in two ways"),
        Unknown(why="From cannot be read"),
    )
    gathering = home.gathering(home.transaction(RAMADAN))
    read = gathering.sender.read_as("eva@example.com", False)
    assert read.claimed is None
    assert not read.authenticated
    assert {"anna@example.com", "eva@example.com"} <= read.everything
    assert gathering.sender.read_as("anna@example.com", False) is gathering.sender


async def test_origin_is_not_asked_where_it_cannot_matter(home: House) -> None:
    values = await facts(home, RAMADAN, ask=frozenset())
    assert values["sender.is_writer"] is False  # Anna is no writer, whatever the signatures say
    assert "sender.is_writer" not in await facts(home, RAMADAN, ask=frozenset(), **CAMPAIGN)


@pytest.mark.parametrize(
    ("to", "ip", "signed", "expected"),
    [
        (MEMBERS[0], "10.1.2.3", "shop.example.com", {"receipts"}),
        (MEMBERS[0], "10.1.2.3", "", set()),
        (MEMBERS[0], "10.9.9.9", "shop.example.com", set()),
        (RAMADAN, "10.1.2.3", "shop.example.com", set()),  # never for a list's address
    ],
)
async def test_streams(home: House, to: str, ip: str, signed: str, expected: set[str]) -> None:
    home.verifier.domains = frozenset(signed.split())
    values = await facts(home, to, sender="noreply@example.com", session={"client_ip": ip})
    assert values["stream"] == frozenset(expected)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "anna@example.com"),
        ({"session": {"auth_user": "ulf@example.com"}}, "ulf@example.com"),
        ({"session": {"auth_user": "ulf@elsewhere.example"}}, "anna@example.com"),
        ({"session": {"auth_user": "ulf"}}, "anna@example.com"),
        ({"sender": "x@example.org"}, None),  # never an outsider
        ({"sender": "x@example.org", "reverse_path": "anna@example.com"}, None),  # never the reverse-path
        ({"reverse_path": ""}, None),
        ({"Auto_Submitted": "auto-generated"}, None),
        ({"Auto_Submitted": "no"}, "anna@example.com"),
        ({"sender": RAMADAN}, None),  # never a list
    ],
)
async def test_who_is_told(home: House, more: dict[str, Any], told: str | None) -> None:
    assert home.gathering(home.transaction(RAMADAN, **more)).sender.told == told


async def test_every_address_of_its_writer(home: House) -> None:
    transaction = home.transaction(
        RAMADAN,
        Sender="Secretary+x@example.com",
        reverse_path="bounces+anna=x@example.com",
        session={"auth_user": "SMTP-user@example.com"},
    )
    gathering = home.gathering(transaction)
    expected = {"anna@example.com", "secretary@example.com", "bounces@example.com", "smtp-user@example.com"}
    assert gathering.sender.everything == expected
    assert (await gathering.open()).senders == expected


# -- what comes back from a list server


def expanded(home: House, *to: str, lists: tuple[str, ...] = ("ramadan",), **more: Any) -> Transaction:
    """A copy of a post that was admitted, as the list server sends it to members."""
    post = home.transaction(RAMADAN)
    trace = prepend(post, "a" * 64, more.pop("key", KEY), "guard", MONDAY, lists, more.pop("text", ()))
    list_id = more.pop("list_id", "Ramadan <ramadan.lists.example.com>")
    session = more.pop("session", {"expander": True})
    copy = home.transaction(*to, reverse_path="ramadan-bounces@lists.example.com", session=session)
    raw = f"List-Id: {list_id}\r\n".encode() + trace + mail(RAMADAN, **more)
    return Transaction(id=copy.id, session=copy.session, envelope=copy.envelope, message=type(copy.message).of(raw))


async def customers(home: House, transaction: Transaction) -> Value | None:
    gathering = home.gathering(transaction)
    return (await gathering.open()).get("recipients.customers")


async def test_copies_of_an_admitted_post_belong_to_it(home: House) -> None:
    copy = expanded(home, *MEMBERS[:50])
    assert await customers(home, copy) == Count(0, 0)
    gathering = home.gathering(copy)
    assert (await gathering.open()).get("recipients.undisclosed") == Count(0, 0)
    assert gathering.facts.lists == frozenset({"ramadan"})  # a freeze of the list still stops it
    assert gathering.facts.get("recipients.total") == Count(50, 50)


async def test_whom_the_list_does_not_explain_is_judged(home: House) -> None:
    assert await customers(home, expanded(home, *MEMBERS[:5], "reader@example.org")) == Count(1, 1)


async def test_copies_with_no_index_belong_to_the_post_as_well(home: House) -> None:
    copy = expanded(home, *MEMBERS[:50])
    blind(home)
    assert await customers(home, copy) == Count(0, 0)


@pytest.mark.parametrize(
    "more",
    [
        {"session": {}},  # not from the expander
        {"key": b"x" * 32},  # a trace of somebody's own
        {"lists": ("news",)},  # admitted to another list
        {"lists": ()},  # admitted to an address that nobody knew to be a list
        {"list_id": "Other <other.lists.example.com>"},
        {"list_id": "ramadan.lists.example.com\r\nList-Id: <ramadan.lists.example.com>"},
        {"Message_ID": "<2@example.com>\r\nMessage-ID: <1@example.com>"},
    ],
)
async def test_what_only_looks_like_a_copy_is_judged_as_it_is(home: House, more: dict[str, Any]) -> None:
    assert await customers(home, expanded(home, *MEMBERS[:50], **more)) == Count(50, 50)


async def test_another_text_under_the_trace_of_a_post_is_judged_as_it_is(home: House) -> None:
    """Whoever is on the list has the trace of every post to it."""
    own = sketch(
        " ".join(
            f"the {word} garden opens at noon"
            for word in ["rose", "herb", "wild", "moon", "stone", "walled", "kitchen"]
        )
    )
    assert len(own.numbers) >= 8
    home.reader.sketch = own
    assert await customers(home, expanded(home, *MEMBERS[:50], text=own.numbers)) == Count(0, 0)
    home.reader.sketch = Sketch(
        (*own.numbers[: len(own.numbers) // 2 + 1], 1 << 31, (1 << 31) + 1)
    )  # with a footer, say
    assert await customers(home, expanded(home, *MEMBERS[:50], text=own.numbers)) == Count(0, 0)
    for another in (Sketch((1, 2, 3, 4, 5, 6, 7, 8, 9)), Sketch()):
        home.reader.sketch = another
        gathering = home.gathering(expanded(home, *MEMBERS[:50], text=own.numbers))
        assert (await gathering.open()).get("recipients.customers") == Count(50, 50)
    home.reader.text_fails = RuntimeError("no reader")
    assert await customers(home, expanded(home, *MEMBERS[:50], text=own.numbers)) == Count(50, 50)


async def test_a_gathering_asks_each_source_once(home: House) -> None:
    gathering: Gathering = home.gathering(home.transaction(RAMADAN, **CAMPAIGN))
    await gathering.open()
    for _ in range(3):
        await gathering.ask(ALL)
    assert len(home.reader.asked) == 1
    assert home.verifier.asked == 1


async def test_a_stale_index_keeps_its_yes(home: House) -> None:
    old = MONDAY.timestamp() - 3 * 86_400
    os.utime(index_path(home.folder, "ramadan"), (old, old))
    home.clock.pass_(seconds=2)
    values = await facts(home, MEMBERS[0], "x@example.org")
    assert values["recipients.members"] == Count(1, 2)
    assert values["recipients.lists"] == frozenset({"ramadan"})
