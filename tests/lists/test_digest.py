"""Digests are equal for every spelling, differ by key, and the key is created once."""

from __future__ import annotations

import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtpguard.lists.digest import BadKey, Digester, installation_key
from smtpguard.mail.address import Address, BadAddress


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


@pytest.mark.parametrize("spelling", ["anna.b@gmail.com", "A.n.n.a.B+x@GMail.com", "annab@googlemail.com"])
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
@example("anna@kund.se", "+")
@example("anna@kund-vagn.se", "-")
def test_the_fast_path_equals_the_full_parser(text: str, delimiters: str) -> None:
    """``plainly`` gives the same key as the full parser, and none for an invalid mailbox."""
    quick = Digester(b"k" * 32, delimiters).plainly(text)
    if quick is not None:
        assert Address.parse(text).canonical(delimiters) == quick


@given(st.from_regex(r"[A-Za-z][a-z]{0,9}\.[a-z0-9_\-]{1,9}@[a-z0-9]{1,9}\.(se|com)", fullmatch=True))
def test_the_fast_path_is_used_for_plain_addresses(text: str) -> None:
    assert Digester(b"k" * 32, "+").plainly(text) == text.lower()
    with pytest.raises(BadAddress):
        Address.parse(f"{text}@")
    assert Digester(b"k" * 32, "+").plainly(f"{text}@") is None
