"""Disguised recipients: however a list or its members are spelled, the message is held or refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.catalogue.wholeguard import (
    MEMBERS,
    NEWSLETTER,
    RAMADAN,
    READERS,
    WholeGuard,
    personal_mail,
    policy,
    whole_guard,
)
from tests.every import every


def spellings(address: str) -> dict[str, str]:
    """Other spellings of the same mailbox, as a sender who wants to hide it may use."""
    local, _, domain = address.partition("@")
    full_width = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x21, 0x7F)})
    return {
        "upper case": address.upper(),
        "mixed case": "".join(c.upper() if n % 2 else c for n, c in enumerate(address)),
        "quoted": f'"{local}"@{domain}',
        "quoted pairs": '"' + "".join(f"\\{c}" for c in local) + f'"@{domain}',
        "quoted, with white space": f'" {local} "@{domain}',
        "quoted, with a comment": f'"(the list) {local}"@{domain}',
        "quoted, with angle brackets": f'"<{local}>"@{domain}',
        "quoted, with angle brackets behind others": f'"<lotta><{local}>"@{domain}',
        "quoted, behind angle brackets": f'"<lotta>{local}"@{domain}',
        "a trailing dot": f"{address}.",
        "a dot after the local part": f'"{local}."@{domain}',
        "a comment": f"{local}(the list)@{domain}",
        "a comment in the domain": f"{local}@(really){domain}",
        "white space": f"{local} @ {domain}",
        "a tab": f"{local}\t@{domain}",
        "a source route": f"@relay.example.com:{address}",
        "two source routes": f"@a.example,@b.example:{address}",
        "sub-addressing": f"{local}+everybody@{domain}",
        "sub-addressing, quoted": f'"{local}+all of you"@{domain}',
        "VERP": f"{local}+anna=example.com@{domain}",
        "BATV": f"prvs=1234567890={address}",
        "SRS": f"SRS0=ab1c=QK={domain}={local}@relay.example.com",
        "percent routing": f"{local}%{domain}@relay.example.com",
        "percent routing through somebody": f"{local}%{domain}%a.example@b.example",
        "percent routing through a host without dots": f"{local}%{domain}%localhost@relay.example.com",
        "percent routing through nothing": f"{local}%{domain}%@relay.example.com",
        "bang routing through a host without dots": f"localhost!{domain}!{local}@relay.example.com",
        "percent routing within bang routing": f"relay.example.com!{local}%{domain}@relay.example.com",
        "bang routing": f"{domain}!{local}@relay.example.com",
        "bang routing, quoted": f'"b.example!{domain}!{local}"@relay.example.com',
        "an address within quotes": f'"{address}"@relay.example.com',
        "a route within quotes": f'"@relay.example.com:{address}"@relay.example.com',
        "full width": f"{local.translate(full_width)}@{domain}",
        "a domain in full width": f"{local}@{domain.translate(full_width)}",
        "ideographic dots": f"{local}@{domain.replace('.', '。')}",
        "an encoded word": f"=?utf-8?q?{local}?=@{domain}",
        "angle brackets within": f"<{address}>",
        "no domain": local,
        "nothing around the domain": f"{local}@{domain}@",
    }


AT_THE_RELAY = {
    "the relay's own name": "ramadan@relay.example.com",
    "our own name": "ramadan@guard.example.com",
    "an address literal": "ramadan@[127.0.0.1]",
    "an address literal in IPv6": "ramadan@[IPv6:::1]",
    "a name without dots": "ramadan@localhost",
    "the list's name without its domain": "ramadan@lists",
    "what Postfix takes for itself": "ramadan@localhost.example.com",
    "an address without brackets": "ramadan@127.0.0.1",
    "percent routing to a name without dots": "ramadan%lists@relay.example.com",
    "percent routing to a name without dots, sub-addressed": "ramadan+x%lists%a@b.example",
    "bang routing to a name without dots": "lists!ramadan@relay.example.com",
    "a name without dots within quotes": '"ramadan@lists"@relay.example.com',
    "bang routing within percent routing": "lists.example.com!ramadan%x@relay.example.com",
}


@every("spelling", [*spellings(RAMADAN).values(), *AT_THE_RELAY.values()])
async def test_a_list_is_recognized_in_every_spelling(guard: WholeGuard, spelling: str) -> None:
    said = await guard.send(personal_mail(), f"<{spelling}>", mail="" if spelling.isascii() else " SMTPUTF8")
    if said.startswith("250"):
        hold = await guard.hold(said)
        assert hold.lists == ("ramadan-greetings",)
        assert hold.reach == len(MEMBERS)
    else:
        assert re.match(r"50[01] |55[03] ", said), said
    assert guard.relay.messages == []


@every("way", spellings(MEMBERS[0]))
async def test_members_are_recognized_in_every_spelling(guard: WholeGuard, way: str) -> None:
    """Six members not shown in To are held, in every spelling of their addresses."""
    spelled = [spellings(member)[way] for member in MEMBERS[:6]]
    mail = "" if "".join(spelled).isascii() else " SMTPUTF8"
    said = await guard.send(personal_mail(to="lotta@example.com"), *(f"<{s}>" for s in spelled), mail=mail)
    if said.startswith("250"):
        hold = await guard.hold(said)
        assert {h.rule for h in hold.verdict.hits} >= {"internal-to-hidden-members"}
    else:
        assert re.match(r"50[01] |55[03] ", said), said
    assert guard.relay.messages == []


@pytest.mark.parametrize("delimiter", ["-", "+-", "=", "_"])
async def test_each_configured_delimiter_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delimiter: str
) -> None:
    async with whole_guard(tmp_path, monkeypatch, settings=f'delimiters: "{delimiter}"') as guard:
        for sign in delimiter:
            await guard.held(personal_mail(), f"ramadan{sign}all@lists.example.com")
            hidden = [m.replace("@", f"{sign}x@") for m in MEMBERS[:6]]
            await guard.held(personal_mail(to="lotta@example.com"), *hidden)


async def test_another_spelling_in_to_is_no_disguise(guard: WholeGuard) -> None:
    """Another spelling of a member in To than in the envelope is no disguise: an ordinary letter passes."""
    member = MEMBERS[0]
    await guard.passes(personal_mail(to=member.upper()), f"<{member}>")


async def test_one_list_in_several_spellings_counts_once(guard: WholeGuard) -> None:
    hold = await guard.held(
        personal_mail(), RAMADAN, RAMADAN.upper(), '"ramadan"@lists.example.com', "ramadan+a@lists.example.com"
    )
    assert hold.reach == len(MEMBERS)


async def test_look_alike_addresses_are_other_addresses(guard: WholeGuard) -> None:
    """An address that looks like a list's is another address, and notices show its domain as Punycode."""
    await guard.passes(personal_mail(), "<r\u0430madan@lists.example.com>", mail=" SMTPUTF8")
    look_alike = "ramadan@lists.ex\u0430mple.com"
    hold = await guard.held(personal_mail(message_id="<2@example.com>"), f"<{look_alike}>", RAMADAN, mail=" SMTPUTF8")
    await guard.deliver()
    asked = [m.content for m in guard.relay.messages if b"X-Smtpguard-Notice: approve" in m.content]
    assert asked
    assert all(b"xn--" in m and "ex\u0430mple".encode() not in m for m in asked)
    assert hold.lists == ("ramadan-greetings",)


async def test_a_null_sender_to_a_list_is_refused_and_to_members_held(guard: WholeGuard) -> None:
    assert (await guard.send(personal_mail(), RAMADAN, sender="")).startswith("550 5.7.1")
    hold = await guard.held(personal_mail(to="lotta@example.com"), *MEMBERS[:6], sender="")
    assert "internal-to-hidden-members" in {h.rule for h in hold.verdict.hits}


async def test_nested_and_circular_lists_count_each_person_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail to one of two lists that contain each other reaches both, and each person counts."""
    circle: dict[str, Any] = {
        "members": (*MEMBERS, "NEWSLETTER@lists.example.com"),
        "readers": (*READERS, "Ramadan+x@LISTS.example.com."),
    }
    async with whole_guard(tmp_path, monkeypatch, **circle) as guard:
        for to in (RAMADAN, NEWSLETTER):
            hold = await guard.held(personal_mail(to=to), to)
            assert set(hold.lists) == {"ramadan-greetings", "newsletter"}
            assert hold.reach >= len(MEMBERS) + len(READERS)


@every(
    "odd",
    [
        "\"' OR '1'='1\"@partner.example",
        "x'--@partner.example",
        "*@partner.example",
        "\"*)(uid=*))(|(uid=*\"@partner.example",
        "%@partner.example",
        "\"\\\\\"@partner.example",
        "_@partner.example",
        "a{{7*7}}@partner.example",
    ],
)  # fmt: skip
async def test_an_address_with_query_syntax_is_only_an_address(guard: WholeGuard, odd: str) -> None:
    """An address with characters of SQL, LDAP or templates is on no list, and the journal stays verifiable."""
    await guard.passes(personal_mail(to="bob@partner.example"), f"<{odd}>")
    hold = await guard.held(personal_mail(), f"<{odd}>", RAMADAN)
    assert [str(a) for a in hold.envelope.addresses][1:] == [RAMADAN]
    assert hold.reach in (len(MEMBERS), len(MEMBERS) + 1)
    assert (await guard.office._store.journal.verify()).ok


async def test_a_member_in_several_spellings_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member counts once, however many spellings the envelope has."""
    crowd = {"id": "crowd", "when": {"recipients.members": ">= 2"}, "then": "reject"}
    async with whole_guard(tmp_path, monkeypatch, text=policy(rules=[crowd])) as guard:
        member = MEMBERS[0]
        local, _, domain = member.partition("@")
        await guard.passes(
            personal_mail(to=member), member, member.upper(), f"{local}+a@{domain}", f'"{local}"@{domain}'
        )
