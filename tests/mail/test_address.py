"""The grammar of paths on raw bytes, and the key that all spellings of a mailbox share."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtpguard.mail.address import MAX_LABEL_OCTETS, Address, BadAddress, _canonical, is_plain, parse_path
from tests.every import every

quick = settings(max_examples=150, deadline=None)

atoms = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=10)
locals_ = st.lists(atoms, min_size=1, max_size=3).map(".".join)
domains = st.tuples(atoms, st.sampled_from(["se", "com", "example"])).map(".".join)


@every(
    "spelling",
    [
        b"<ramadan@lists.example.com>",
        b"<RAMADAN@Lists.Example.COM>",
        b"<ramadan@lists.example.com.>",
        b'<"ramadan"@lists.example.com>',
        b'<"r\\amadan"@lists.example.com>',
        b'<" ramadan "@lists.example.com>',
        b'<"ramadan."@lists.example.com>',
        b'<"..ramadan"@lists.example.com>',
        b"<ramadan+eid@lists.example.com>",
        b"<ramadan+anna=example.se@lists.example.com>",
        b'<"ramadan+a b"@lists.example.com>',
        b"<@relay.example:ramadan@lists.example.com>",
        b"<@a.example,@b.example:ramadan@lists.example.com>",
        b"<ramadan%lists.example.com@relay.example>",
        b'<"ramadan%lists.example.com."@relay.example>',
        b"<ramadan%lists.example.com%b.example@relay.example>",
        b"<ramadan+x%lists.example.com@relay.example>",
        b"<ramadan%lists.example.com+x@relay.example>",
        b"<lists.example.com!ramadan@relay.example>",
        b"<ramadan%lists.example.com%localhost@relay.example>",
        b"<ramadan%lists.example.com%@relay.example>",
        b"<localhost!lists.example.com!ramadan@relay.example>",
        b"<relay.example!ramadan%lists.example.com@relay.example>",
        b'<"lists.example.com!ramadan%[127.0.0.1]"@relay.example>',
        b"<localhost!ramadan%lists.example.com@relay.example>",
        b'<"ramadan@lists.example.com@localhost"@relay.example>',
        b"<b.example!lists.example.com!ramadan@relay.example>",
        b'<"ramadan@lists.example.com"@relay.example>',
        b'<"@relay.example:ramadan@lists.example.com"@relay.example>',
        b"<IMCEASMTP-ramadan+40lists+2Eexample+2Ecom@exchange.example.com>",
        b"<imceasmtp-Ramadan+2Beid+40lists+2eexample+2ecom@example.com>",
        b"<prvs=1234567890=ramadan@lists.example.com>",
        b"<PRVS=5338ABCDEF=Ramadan+eid@lists.example.com>",
        b"<msprvs1=18xyz8eKqXyS6=ramadan@lists.example.com>",
        b"<btv1==1234567890a==ramadan@lists.example.com>",
        b"<prvs=1234567890=ramadan%lists.example.com@relay.example>",
        b"<SRS0=ab1c=QK=lists.example.com=ramadan@relay.example>",
        b"<srs0+a/1+=QK=Lists.example.com.=ramadan+eid@relay.example>",
        b"<SRS0=ab1c=QK==ramadan@lists.example.com>",
        b"<SRS1=ab1c=other.example==ab1c=QK=lists.example.com=ramadan@relay.example>",
        b"<prvs=1234567890=SRS0=ab1c=QK=lists.example.com=ramadan@relay.example>",
        "<ramadan@lists。example。com>".encode(),
        "<ramadan@lists.example.com。>".encode(),
        "<ramadan@ＬＩＳＴＳ.example.com>".encode(),
        "<ｒａｍａｄａｎ@lists.example.com>".encode(),
        "<ramadan＋x@lists.example.com>".encode(),
    ],
)
def test_every_spelling_of_a_mailbox_has_one_key(spelling: bytes) -> None:
    address = parse_path(spelling, smtputf8=True)
    assert address is not None
    assert address.canonical("+") == "ramadan@lists.example.com"


@every(
    ("one", "other"),
    [
        ("info@bücher.example", "info@xn--bcher-kva.example"),
        ("info@BÜCHER.example", "INFO@XN--BCHER-KVA.EXAMPLE"),
        ("info@bu\u0308cher.example", "info@bücher.example"),
        ("Åsa@example.se", "åsa@example.se"),
        ("a\u030asa@example.se", "åsa@example.se"),
        ("x@[IPv6:0:0:0:0:0:0:0:1]", "x@[ipv6:::1]"),
        ("a.b@example.se", '"a.b"@example.se'),
    ],
)
def test_equal_pairs(one: str, other: str) -> None:
    assert Address.parse(one).canonical("+") == Address.parse(other).canonical("+")


@every(
    ("one", "other"),
    [
        ("info@example.com", "info@exаmple.com"),  # a Cyrillic а
        ("anna@example.com", "аnna@example.com"),
        ("info@straße.example", "info@strasse.example"),  # two names since IDNA 2008
        ("a.b@example.se", "ab@example.se"),
        ("user%localhost@example.se", "user@localhost"),  # a bare host is no mailbox elsewhere
        ("anna-lena@example.se", "anna@example.se"),
        ("prvs=anna@example.se", "anna@example.se"),
        ("bounces=7=anna@example.se", "anna@example.se"),
    ],
)
def test_different_pairs(one: str, other: str) -> None:
    assert Address.parse(one).canonical("+") != Address.parse(other).canonical("+")


def test_look_alikes_have_different_a_labels() -> None:
    assert Address.parse("info@exаmple.com").ascii_domain == "xn--exmple-4nf.com"


def test_each_delimiter_cuts_but_never_the_whole_local_part() -> None:
    assert Address.parse("anna-x+y@example.se").canonical("+-") == "anna@example.se"
    assert Address.parse("+x@example.se").canonical("+") == "+x@example.se"
    assert Address.parse("anna+x@example.se").canonical("") == "anna+x@example.se"


@every(
    "bad",
    [
        b"anna@example.se",
        b"<anna@example.se",
        b"<anna>",
        b"<@example.se>",
        b"<anna@>",
        b"<anna@.se>",
        b"<anna@example..se>",
        b"<.anna@example.se>",
        b"<anna.@example.se>",
        b"<a..b@example.se>",
        b"<anna@-example.se>",
        b"<anna@example-.se>",
        b"<an na@example.se>",
        b"<anna (comment)@example.se>",
        b"<anna@example.se\r\n>",
        b"<anna\r\n@example.se>",
        b"<anna\x00@example.se>",
        b'<"anna\r\nRCPT TO:<x@example.se>"@example.se>',
        b'<"anna\\\r"@example.se>',
        b'<"anna\x7f"@example.se>',
        b"<=?utf-8?q?anna=0D=0A?=@example.se>",
        b'<"=?utf-8?q?anna?="@example.se>',
        b"<anna@example.se><bo@example.se>",
        b"<<anna@example.se>>",
        b"<anna@[300.1.1.1]>",
        b"<anna@[IPv6:::1::2]>",
        b"<anna@[IPv6:1.2.3]>",
        b"<" + b"a" * 256 + b"@example.se>",
        b"<anna@" + b"a" * 64 + b".se>",
        b"<anna@" + b"a." * 130 + b"se>",
        "<åsa@example.se>".encode("latin-1"),
    ],
)
@every("smtputf8", [False, True])
def test_invalid_paths_are_refused(bad: bytes, smtputf8: bool) -> None:
    with pytest.raises(BadAddress):
        parse_path(bad, smtputf8=smtputf8)


@every("octets", [64, 65, 100, 255])
def test_a_local_part_may_have_255_octets(octets: int) -> None:
    """Local parts may have 255 octets: VERP makes return addresses longer than the 64 octets of RFC 5321."""
    local = "bounces+" + "k" * (octets - 8)
    found = parse_path(f"<{local}@example.se>".encode())
    assert found == Address(local, "example.se")
    assert found.canonical("+") == "bounces@example.se"


@every(
    "bad",
    [
        "an\u202ena@example.se",  # bidi override
        "an\u200bna@example.se",  # zero width
        "anna@exam\u00adple.se",  # soft hyphen
        "anna\u2028@example.se",
        "anna\ud800@example.se",
        "anna@example.se\r\n",
        "anna@xn--ü.example",
        "anna@\u0301.example",
    ],
)
def test_invisible_characters_are_refused(bad: str) -> None:
    with pytest.raises(BadAddress):
        Address.parse(bad)


def test_the_null_path_and_smtputf8() -> None:
    assert parse_path(b"<>") is None
    with pytest.raises(BadAddress, match="SMTPUTF8"):
        parse_path("<åsa@example.se>".encode())
    address = parse_path("<åsa@example.se>".encode(), smtputf8=True)
    assert address == Address("åsa", "example.se")
    assert address is not None
    assert not address.is_ascii


def test_an_address_is_written_as_in_smtp() -> None:
    for text in ("anna@example.se", '"a b"@example.se', '"a\\"b\\\\c"@example.se', '""@example.se', "x@[192.0.2.1]"):
        assert str(Address.parse(text)) == text
    assert str(Address.parse('"anna"@example.se')) == "anna@example.se"


def test_long_input_is_refused_fast() -> None:
    with pytest.raises(BadAddress):
        Address.parse("a" * 10_000_000 + "@example.se")


@quick
@given(st.text(max_size=80) | st.text('a.@"\\ %!+-[]:1xn=?é。\u202e', max_size=40))
def test_parse_raises_only_bad_address(text: str) -> None:
    try:
        address = Address.parse(text)
    except BadAddress:
        return
    assert Address.parse(str(address)) == address
    assert not any(c in "\r\n\0" for c in str(address))


@quick
@given(st.binary(max_size=60).map(lambda b: b"<" + b + b">"), st.booleans())
def test_parse_path_raises_only_bad_address(raw: bytes, smtputf8: bool) -> None:
    try:
        address = parse_path(raw, smtputf8=smtputf8)
    except BadAddress:
        return
    assert address is None or not any(c in "\r\n\0" for c in str(address))


@quick
@given(st.text(min_size=1, max_size=30) | st.text('a.@"% !+-:xn.example', min_size=1, max_size=40), domains)
@example("a.-b", "example.se")
def test_the_key_is_total_and_stable(local: str, domain: str) -> None:
    once = Address(local, domain).canonical("+-")
    head, _, tail = once.rpartition("@")
    assert Address(head, tail).canonical("+-") == once


@quick
@given(locals_, domains, atoms, domains)
def test_combined_disguises_have_one_key(local: str, domain: str, detail: str, relay: str) -> None:
    plain = Address(local, domain).canonical("+")
    upper = f"{local.upper()}+{detail}"
    for spelling in (
        f"{upper}@{domain}.",
        f'"{upper}"@{domain.upper()}',
        f"{upper}%{domain}@{relay}",
        f"{domain}!{upper}@{relay}",
        f'"{upper}@{domain}"@{relay}',
        f"prvs=1234567890={upper}@{domain}",
        f"SRS0=ab1c=QK={domain}={upper}@{relay}",
    ):
        assert Address.parse(spelling).canonical("+") == plain


nearly_plain = st.from_regex(
    r"[A-Za-z0-9_.\-+'ÅßK\"% ]{0,66}@?[A-Za-z0-9_.\-ÅK\[]{0,70}@[A-Za-z0-9_.\-ÅßK\]]{0,70}", fullmatch=True
)


@settings(max_examples=600, deadline=None)
@given(st.one_of(nearly_plain, st.text(max_size=30), st.builds("{}@{}".format, locals_, domains)))
@example("A-@x")
@example(f"a@{'b' * 61}")
@example(f"a@{'b' * 64}.se")
@example(f"{'a' * 65}@b.se")
@example("a@b.")
@example("a@b-")
@example("a@-b")
@example("\u212a@b")
@example("a@b\n")
def test_a_plain_mailbox_is_its_own_key(text: str) -> None:
    """``is_plain`` accepts only mailboxes that are their own key."""
    text = text.lower()
    if len(text) <= MAX_LABEL_OCTETS and is_plain(text):
        address = Address.parse(text)
        assert address.plain
        assert str(address) == text
        for delimiters in ("", "+", "+-", "+ example.com=_."):
            assert address.canonical(delimiters) == _canonical(address.local, address.domain, delimiters)
        if (loud := text.upper()) != text:  # which takes the long way
            assert Address.parse(loud).canonical() == text


@given(st.builds("{}@{}".format, locals_, domains))
def test_common_mailboxes_are_plain(text: str) -> None:
    assert is_plain(text)
