"""The sender of a message, its proof, its stream, and who gets notices about it."""

from __future__ import annotations

from typing import Any

from smtpguard.policy.facts import Unknown
from tests.every import every
from tests.guard.house import MEMBERS, RAMADAN, House

CAMPAIGN = {"sender": "Campaigns <campaigns@example.com>"}


@every(
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
        # if a list declares an origin, nothing else proves it
        (RAMADAN, CAMPAIGN | {"session": {"auth_user": "campaigns@example.com"}}, "", True, False),
        ("news@lists.example.com", {"sender": "eva@example.com"}, "", False, False),
        (
            "news@lists.example.com",
            {"sender": "eva@example.com", "session": {"senders_verified": True}},
            "",
            True,
            True,
        ),
        # a writer of one of two lists is not a writer
        (f"{RAMADAN} news@lists.example.com", CAMPAIGN, "campaigns.example.com", True, False),
        # one by one to members of a list that the sender may write to
        (MEMBERS[0], CAMPAIGN, "campaigns.example.com", True, True),
    ],
)
async def test_proof_by_signature_client_and_login(
    home: House, to: str, more: dict[str, Any], signed: str, proven: bool, writer: bool
) -> None:
    home.verifier.domains = frozenset(signed.split())
    values = await home.facts(*to.split(), **more)
    assert values["sender.proven"] is proven
    assert values["sender.is_writer"] is writer


@every(
    ("login", "named"),
    [
        ("bo@example.com", {"bo@example.com"}),
        ("bo", {"login bo"}),
        ("EXAMPLE\\Bo", {"login bo"}),
        ("bo@anything.example", {"bo@anything.example", "login bo"}),
        ("anna", set()),
        ("anna@example.com", set()),
    ],
)
async def test_freezes_know_the_account_whatever_from_says(home: House, login: str, named: set[str]) -> None:
    sender = home.sender(home.transaction(session={"auth_user": login}))
    assert (sender.everything | sender.unnamed) - {"anna@example.com"} == named


@every(
    "more",
    [
        {"sender": "anna@example.com, campaigns@example.com"},
        {"sender": "anna@example.com\r\nFrom: campaigns@example.com"},
        {"From": None},
        {"sender": "nobody"},
        {"sender": "campaigns@example.com\r\nbroken line"},
    ],
)
async def test_an_ambiguous_from_has_no_address(home: House, more: dict[str, Any]) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com"})
    session = {"auth_user": "campaigns@example.com", "senders_verified": True}
    values = await home.facts(RAMADAN, session=session, **more)
    assert isinstance(values["sender.address"], Unknown)
    assert values["sender.proven"] is False
    assert values["sender.is_writer"] is False


@every(
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
async def test_spellings_of_from(home: House, sender: str, expected: str) -> None:
    transaction = home.transaction(RAMADAN, sender=sender)
    found, registry = home.sender(transaction), home.in_force.registry
    assert found.claimed == expected
    assert found.facts(transaction, registry.classify(transaction.envelope.addresses), registry, None)


async def test_a_from_read_in_two_ways_has_no_address(home: House) -> None:
    values = await home.facts(RAMADAN, sender="=?utf-8?q?<eva=40example.com>?= <campaigns@example.com>")
    assert values["sender.address"] in (  # depends on how strictly this Python parses addresses
        "campaigns@example.com",
        Unknown(why="From can be read in two ways"),
        Unknown(why="From cannot be read"),
    )
    sender = home.sender(home.transaction(RAMADAN))
    read = sender.read_as("eva@example.com", False)
    assert read.claimed is None
    assert not read.authenticated
    assert {"anna@example.com", "eva@example.com"} <= read.everything
    assert sender.read_as("anna@example.com", False) is sender


async def test_signatures_are_not_verified_if_they_cannot_matter(home: House) -> None:
    values = await home.facts(RAMADAN, ask=frozenset())
    assert values["sender.is_writer"] is False  # Anna is no writer, whatever the signatures say
    assert "sender.is_writer" not in await home.facts(RAMADAN, ask=frozenset(), **CAMPAIGN)


@every(
    ("to", "ip", "signed", "expected"),
    [
        (MEMBERS[0], "10.1.2.3", "shop.example.com", {"receipts"}),
        (MEMBERS[0], "10.1.2.3", "", set()),
        (MEMBERS[0], "10.9.9.9", "shop.example.com", set()),
        (RAMADAN, "10.1.2.3", "shop.example.com", set()),  # never for a list's address
    ],
)
async def test_streams_by_origin(home: House, to: str, ip: str, signed: str, expected: set[str]) -> None:
    home.verifier.domains = frozenset(signed.split())
    values = await home.facts(to, sender="noreply@example.com", session={"client_ip": ip})
    assert values["stream"] == frozenset(expected)


@every(
    ("more", "told"),
    [
        ({}, "anna@example.com"),
        ({"session": {"auth_user": "ulf@example.com"}}, "ulf@example.com"),
        ({"session": {"auth_user": "ulf@elsewhere.example"}}, "anna@example.com"),
        ({"session": {"auth_user": "ulf"}}, "anna@example.com"),
        (
            {"session": {"auth_user": "ulf@example.com", "senders_verified": True, "mta_login": True}},
            "anna@example.com",
        ),
        ({"sender": "x@example.org"}, None),  # never an outsider
        ({"sender": "x@example.org", "reverse_path": "anna@example.com"}, None),  # never the reverse-path
        ({"reverse_path": ""}, None),
        ({"Auto_Submitted": "auto-generated"}, None),
        ({"Auto_Submitted": "no"}, "anna@example.com"),
        ({"Auto_Submitted": "No (a person; really) ; x=y"}, "anna@example.com"),
        ({"Auto_Submitted": "(a person;) auto-replied"}, None),
        ({"sender": RAMADAN}, None),  # never a list
    ],
)
async def test_the_address_that_gets_notices(home: House, more: dict[str, Any], told: str | None) -> None:
    assert home.sender(home.transaction(RAMADAN, **more)).told == told


async def test_all_addresses_of_the_writer(home: House) -> None:
    transaction = home.transaction(
        RAMADAN,
        Sender="Secretary+x@example.com",
        Resent_From="Forwarder@example.com, other@example.org",
        Resent_Sender="robot@example.com",
        reverse_path="bounces+anna=x@example.com",
        session={"auth_user": "SMTP-user@example.com"},
    )
    expected = {"anna@example.com", "secretary@example.com", "bounces@example.com", "smtp-user@example.com",
                "forwarder@example.com", "other@example.org", "robot@example.com"}  # fmt: skip
    assert home.sender(transaction).everything == expected
    assert (await home.gathered(transaction)).facts.senders == expected


@every(
    "sender",
    [
        "(" * 5000 + ")" * 5000 + " anna@example.com, bo@example.com",
        "Team: anna@example.com, Bo <bo@example.com>;",
        "(" + "x" * 30_000 + ") anna@example.com, bo@example.com",
        "Anna <anna@example.com> <bo@example.com>",
        "anna@example.com bo@example.com",
    ],
)
async def test_every_address_in_from_is_a_writer(home: House, sender: str) -> None:
    gathered = await home.gathered(home.transaction(RAMADAN, sender=sender))
    assert isinstance(gathered.facts.values["sender.address"], Unknown)
    assert gathered.behind >= {"anna@example.com", "bo@example.com"}
    assert gathered.sender.told == "anna@example.com"
