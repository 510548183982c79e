"""Digests are equal for every spelling, from a list's file and from RCPT TO, differ by key, and the key is created once."""

from __future__ import annotations

import hashlib
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtpguard.lists.digest import BadKey, Digester, installation_key
from smtpguard.lists.sources import cell_address
from smtpguard.mail.address import Address, BadAddress, delimiters_at, parse_path
from tests.every import every


def test_spellings_of_one_mailbox_are_equal() -> None:
    digester = Digester(b"k" * 32, "+")
    anna = digester.of(Address.parse("anna@example.se"))
    assert len(anna) == 8
    assert digester.of(Address.parse('"ANNA"+shop@Example.SE.'.replace('"+shop', '+shop"'))) == anna
    assert digester.of(Address.parse("anne@example.se")) != anna


def test_another_key_or_other_delimiters_give_other_digests() -> None:
    one = Digester(b"k" * 32, "+")
    anna = Address.parse("anna@example.se")
    assert Digester(b"j" * 32, "+").of(anna) != one.of(anna)
    assert len({Digester(k * 32, d).key_id for k in (b"j", b"k") for d in ("", "+", "+-")}) == 6


@every("spelling", ["anna.b@gmail.com", "A.n.n.a.B+x@GMail.com", "annab@googlemail.com"])
def test_a_provider_that_ignores_dots_gives_one_digest(spelling: str) -> None:
    digester = Digester(b"k" * 32, "+")
    anna = digester.of(Address.parse("annab@gmail.com"))
    address = Address.parse(spelling)
    assert digester.of(address) == anna
    assert address.canonical("+") != "annab@gmail.com", "senders and approvers go by the address"
    assert digester.every(address)[0] == anna
    assert len(digester.every(address)) == 2
    assert digester.of(Address.parse("anna.b@example.se")) != digester.of(Address.parse("annab@example.se"))


def test_the_key_id_names_the_form() -> None:
    digester = Digester(b"k" * 32, "+")
    before = hashlib.blake2b(b"+", digest_size=8, key=b"k" * 32, person=b"key id").digest()
    assert digester.key_ids == (digester.key_id, before)
    assert digester.key_id != before


def test_the_key_is_never_printed() -> None:
    assert "secretkey" not in repr(Digester(b"secretkey" * 4, "+"))
    assert b"secretkey"[:4] not in Digester(b"secretkey" * 4, "+").key_id


def test_the_installation_key_is_created_once_with_private_mode(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(installation_key, [path] * 8))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["secret"]


def test_an_invalid_key_raises(tmp_path: Path) -> None:
    short = tmp_path / "secret"
    short.write_bytes(b"short")
    with pytest.raises(BadKey, match="32 octets"):
        installation_key(short)
    with pytest.raises(BadKey, match="cannot read or make"):
        installation_key(short / "below")
    with pytest.raises(BadKey):
        Digester(b"short")


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.text(max_size=70), st.from_regex(r"[A-Za-z\u212a0-9_\-.+ ]{1,66}@[a-zA-Z\u212a.\-]{1,66}", fullmatch=True)
    ),
    st.sampled_from(["", "+", "-", "+-", "._", "a", "+ x.se=- *.y=_"]),
)
@example("0@00--\u212a", "")
@example("anna@kund.se", "+")
@example("anna@kund-vagn.se", "-")
def test_the_fast_path_equals_the_full_parser(text: str, delimiters: str) -> None:
    """``plainly`` gives the same key as the full parser, and none for an invalid mailbox."""
    quick = Digester(b"k" * 32, delimiters).plain_key(text)
    if quick is not None:
        assert Address.parse(text).canonical(delimiters) == quick


@given(st.from_regex(r"[A-Za-z][a-z]{0,9}\.[a-z0-9_\-]{1,9}@[a-z0-9]{1,9}\.(se|com)", fullmatch=True))
def test_the_fast_path_is_used_for_plain_addresses(text: str) -> None:
    assert Digester(b"k" * 32, "+").plain_key(text) == text.lower()
    with pytest.raises(BadAddress):
        Address.parse(f"{text}@")
    assert Digester(b"k" * 32, "+").plain_key(f"{text}@") is None


DOMAINS = {"kund.se": "kund.se", "bücher.example": "xn--bcher-kva.example", "qmail.example": "qmail.example",
           "a.wild.example": "a.wild.example", "b.a.wild.example": "b.a.wild.example"}  # fmt: skip
DELIMITERS = "+ *.wild.example=_ b.a.wild.example= qmail.example=-+"
DIGESTER = Digester(b"k" * 32, DELIMITERS)

atoms = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
locals_ = st.lists(atoms, min_size=1, max_size=3).map(".".join)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, bytes]:
    """A mailbox, and a path that spells it as an attacker could."""
    local, domain = draw(locals_), draw(st.sampled_from(sorted(DOMAINS)))
    plainly = f"{local}@{domain}"
    signs = delimiters_at(DELIMITERS, DOMAINS[domain])
    if signs and draw(st.booleans()):
        local += draw(st.sampled_from(signs)) + draw(st.from_regex(r"[a-z0-9=._+-]{0,6}[a-z0-9]", fullmatch=True))
        local = re.sub(r"\.+", ".", local)
    local = "".join(c.upper() if draw(st.booleans()) else c for c in local)
    domain = draw(st.sampled_from([domain, domain.upper(), DOMAINS[domain], domain.replace(".", "。")]))
    if draw(st.booleans()):
        domain += "."
    quoted = draw(st.sampled_from(["", '"', '" ', '".']))
    if quoted:
        local = "".join(f"\\{c}" if draw(st.booleans()) else c for c in local)
        local = quoted + local + '"'
    elif draw(st.booleans()):
        local, domain = f"{local}%{domain.removesuffix('.')}", "relay.example.com"
    route = draw(st.sampled_from(["", "@relay.example:", "@a.example,@b.example:"]))
    return plainly, f"<{route}{local}@{domain}>".encode()


@settings(max_examples=400, deadline=None)
@given(spellings())
def test_every_spelling_of_a_path_gives_one_digest(case: tuple[str, bytes]) -> None:
    plainly, path = case
    address = parse_path(path, smtputf8=True)
    assert address is not None
    assert DIGESTER.of(address) == DIGESTER.of(Address.parse(plainly))


@settings(max_examples=200, deadline=None)
@given(
    locals_, st.sampled_from(sorted(DOMAINS)), st.sampled_from(["{}", " {} ", "Anna <{}>", "mailto:{}", "\ufeff{};"])
)
def test_every_spelling_in_a_file_gives_the_same_digest(local: str, domain: str, cell: str) -> None:
    text = cell.format(f"{local.title()}@{domain}")
    there = DIGESTER.plain_key(text) or cell_address(text).canonical(DELIMITERS)
    assert there == Address.parse(f"{local}@{domain}").canonical(DELIMITERS)


def test_delimiters_depend_on_the_domain() -> None:
    def key(text: str) -> str:
        return Address.parse(text).canonical(DELIMITERS)

    assert key("anna+x@kund.se") == "anna@kund.se"
    assert key("anna-x@kund.se") == "anna-x@kund.se"
    assert key("anna-x+y@Qmail.Example.") == "anna@qmail.example"
    assert key("anna_x+y@a.wild.example") == "anna@a.wild.example"
    assert key("anna+y@a.wild.example") == "anna+y@a.wild.example"
    assert key("anna_x@b.a.wild.example") == "anna_x@b.a.wild.example", "the longest counts"
    assert key("anna-x%qmail.example@kund.se") == "anna@qmail.example", "those of the domain that it is routed to"
    assert key("anna_x@wild.example") == "anna_x@wild.example", "names below, not the name itself"


@settings(max_examples=200, deadline=None)
@given(st.from_regex(r"[A-Za-z0-9_\-.]{1,12}", fullmatch=True), st.sampled_from(sorted(DOMAINS)))
def test_the_fast_path_knows_the_domains_delimiters(local: str, domain: str) -> None:
    quick = DIGESTER.plain_key(f"{local}@{domain}")
    if quick is not None:
        assert quick == Address.parse(f"{local}@{domain}").canonical(DELIMITERS)
