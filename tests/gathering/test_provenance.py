"""Mail that provably comes from its list's declared origin is read as a mailing; if it cannot be verified, that is
unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smtpguard.gathering.gather import Gathered
from smtpguard.gathering.sender import Provenance
from smtpguard.mail.fields import DkimResult
from smtpguard.policy.facts import Source, Unknown
from smtpguard.reading.looks import Looks, Reading
from tests.every import every
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN, House

SIGNED = {"DKIM_Signature": "v=1; a=rsa-sha256; d=campaigns.example.com; s=s; h=from; bh=x; b=y"}
NEWS = "news@lists.example.com"
TEXT = frozenset({Source.HEADERS, Source.TEXT})


async def gather(home: House, *to: str, **more: Any) -> Gathered:
    more = {"sender": "campaigns@example.com", **more}
    return await home.gathered(home.transaction(*to, **more), TEXT)


def looks(gathered: Gathered) -> object:
    return gathered.facts.values["message.looks"]


async def test_signed_mail_of_the_declared_origin_looks_like_a_mailing(home: House) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com"})
    gathered = await gather(home, RAMADAN, **SIGNED, body="Eid mubarak")
    assert looks(gathered) == "mailing"
    assert any("campaigns.example.com" in e for e in gathered.facts.evidence["message.looks"])
    gathered = await home.gather.ask(gathered, frozenset({Source.ORIGIN}))
    assert home.in_force.rules.plan(gathered.facts).certain[0].word == "relay"


async def test_signed_mail_to_single_members_looks_like_a_mailing(home: House) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com"})
    assert looks(await gather(home, *MEMBERS[:30], **SIGNED)) == "mailing"


async def test_an_unverified_claim_has_no_effect(home: House) -> None:
    assert looks(await gather(home, RAMADAN, **SIGNED)) == "internal"
    assert home.verifier.asked == 1


@every(
    ("to", "more"),
    [
        (RAMADAN, {}),  # no signature
        (RAMADAN, {"DKIM_Signature": "v=1; d=elsewhere.example; s=s; b=d=campaigns.example.com"}),
        (RAMADAN, {**SIGNED, "X_Looks": "mailing"}),
        (RAMADAN, {**SIGNED, "X_Readable": "unreadable"}),
        (NEWS, SIGNED),  # declares no origin
        ("x@example.org", SIGNED),  # on no list
    ],
)
async def test_signatures_are_not_verified_if_they_cannot_matter(home: House, to: str, more: dict[str, Any]) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com", "elsewhere.example"})
    await gather(home, to, **more)
    assert home.verifier.asked == 0


async def test_every_addressed_list_must_declare_the_origin(home: House) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com"})
    assert looks(await gather(home, RAMADAN, NEWS, **SIGNED)) == "internal"


async def test_an_unverifiable_signature_is_unknown_and_held(home: House) -> None:
    home.verifier.fails = OSError()
    gathered = await gather(home, RAMADAN, **SIGNED)
    assert isinstance(looks(gathered), Unknown)
    plan = home.in_force.rules.plan(gathered.facts)
    assert plan.certain[0].word == "hold"


async def reading_of(home: House, **more: Any) -> tuple[Reading, Provenance]:
    gathered = await gather(home, RAMADAN, **more)
    assert isinstance(gathered.text, Reading)
    return gathered.text, Provenance(
        reading=gathered.text, transaction=gathered.transaction, classified=gathered.counted,
        registry=home.in_force.registry, weights={},
    )  # fmt: skip


async def test_a_failed_key_lookup_is_unknown(home: House) -> None:
    _, provenance = await reading_of(home)
    assert isinstance(provenance.proven(DkimResult(unresolved=frozenset({"campaigns.example.com"}))), Unknown)
    assert isinstance(provenance.proven(DkimResult(unresolved=frozenset({"elsewhere.example"}))), Reading)


async def test_a_trusted_servers_result_counts_as_a_signature(home: House) -> None:
    reading, provenance = await reading_of(home)
    vouched = replace(provenance, reading=replace(reading, vouched=frozenset({"campaigns.example.com"})))
    assert vouched.could_matter
    proven = vouched.proven(Unknown(why="no resolver"))
    assert isinstance(proven, Reading)
    assert proven.looks is Looks.MAILING


async def test_the_mark_of_the_origin_can_be_weighted_and_switched_off(home: House) -> None:
    reading, provenance = await reading_of(home)
    off = replace(
        provenance,
        reading=replace(reading, vouched=frozenset({"campaigns.example.com"})),
        weights={"declared-origin": 0.0},
    )
    assert not off.could_matter


async def test_a_domain_shared_with_colleagues_weighs_less(home: House) -> None:
    origin = b"{dkim: [campaigns.example.com, example.com]}"
    policy = {k: v.replace(b"{dkim: campaigns.example.com}", origin) for k, v in DOCUMENTS.items()}
    home.in_force = home.build(policy)
    reading, provenance = await reading_of(home)
    vouched = replace(provenance, reading=replace(reading, vouched=frozenset({"example.com"})))
    proven = vouched.proven(DkimResult())
    assert isinstance(proven, Reading)
    assert {"shared-origin"} == {m.name for m in proven.marks} & {"shared-origin", "declared-origin"}


# list headers: their origin

LIST = {"X_Looks": "mailing", "X_Marks": "list-unsubscribe"}


async def test_list_headers_of_a_person_have_no_weight(home: House) -> None:
    gathered = await gather(home, RAMADAN, **LIST)
    assert looks(gathered) == "internal"
    assert home.verifier.asked == 0


async def test_list_headers_count_from_any_declared_origin(home: House) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com"})
    assert looks(await gather(home, NEWS, **LIST, **SIGNED)) == "mailing"
    # declared by a stream
    assert looks(await gather(home, RAMADAN, **LIST, session={"client_ip": "10.1.2.3"})) == "mailing"


@every(
    ("session", "weigh"),
    [
        ({"auth_user": "News-Robot"}, True),
        ({"auth_user": "anna"}, False),
        ({}, False),
        ({"auth_user": "news-robot", "client_ip": "192.0.2.99"}, False),
    ],
)
async def test_list_headers_count_from_a_declared_login(home: House, session: dict[str, Any], weigh: bool) -> None:
    """List header fields count from a login that no person uses; if clients are declared too, only from those."""
    origin = b"{clients: [192.0.2.1], logins: [news-robot]}"
    policy = {k: v.replace(b"{dkim: campaigns.example.com}", origin) for k, v in DOCUMENTS.items()}
    home.in_force = home.build(policy)
    assert looks(await gather(home, NEWS, **LIST, session=session)) == ("mailing" if weigh else "internal")
    assert home.verifier.asked == 0


async def test_list_headers_with_an_invalid_signature_have_no_weight(home: House) -> None:
    assert looks(await gather(home, NEWS, **LIST, **SIGNED)) == "internal"
    home.verifier.fails = OSError()
    assert isinstance(looks(await gather(home, NEWS, **LIST, **SIGNED, body="x")), Unknown)
