"""Parsing MAIL, RCPT, HELO and XFORWARD from raw bytes: what is accepted, what is refused, and no other exception."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail import reply
from smtpguard.mail.address import Address, parse_path
from smtpguard.mail.envelope import Body, Envelope
from smtpguard.mail.reply import Reply
from smtpguard.wire import grammar
from smtpguard.wire.grammar import (
    NotOffered,
    Refused,
    mail_line,
    parse_helo,
    parse_mail,
    parse_rcpt,
    rcpt_line,
)
from smtpguard.wire.xforward import parse_xforward
from tests.every import every

ALL = {"SIZE": "", "8BITMIME": "", "SMTPUTF8": "", "DSN": "", "AUTH": "PLAIN"}


def refusal(parse: object, raw: bytes, **how: object) -> Reply:
    with pytest.raises(Refused) as refused:
        parse(raw, **how)  # type: ignore[operator]
    return refused.value.reply


def test_mail_with_all_parameters() -> None:
    mail = parse_mail(
        b"FROM:<anna@example.com> SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=hdrs ENVID=QQ314+2Bx AUTH=anna+40example.com"
    )
    assert mail == Envelope(
        reverse_path=Address("anna", "example.com"),
        recipients=(),
        size_bytes=1234,
        smtputf8=True,
        body=Body.EIGHTBITMIME,
        ret="HDRS",
        envid="QQ314+2Bx",
        auth="anna+40example.com",
    )
    line = mail_line(mail, ALL)
    assert line.startswith(
        b"MAIL FROM:<anna@example.com> SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314+2Bx AUTH="
    )
    assert parse_mail(line.removeprefix(b"MAIL ")) == mail
    for extension in ("8BITMIME", "SMTPUTF8", "DSN"):
        with pytest.raises(NotOffered):
            mail_line(mail, {name: "" for name in ALL if name != extension})
    small = parse_mail(b"FROM:<anna@example.com> SIZE=1234 BODY=7BIT AUTH=anna+40example.com")
    assert mail_line(small, {}) == b"MAIL FROM:<anna@example.com>"


@every(
    ("raw", "reverse_path"),
    [
        (b"FROM:<>", None),
        (b"from: <anna@example.com>", Address("anna", "example.com")),
        (b"From:<anna@example.com>  ", Address("anna", "example.com")),
        (b"FROM:<@one.example,@two.example:anna@example.com>", Address("anna", "example.com")),
        (b'FROM:<"an>na \\" b"@example.com>', Address('an>na " b', "example.com")),
        ("FROM:<ånna@exämple.com> SMTPUTF8".encode(), Address("ånna", "exämple.com")),
        (b"FROM:<anna@[192.0.2.1]>", Address("anna", "[192.0.2.1]")),
    ],
)
def test_reverse_paths_are_parsed(raw: bytes, reverse_path: Address | None) -> None:
    assert parse_mail(raw).reverse_path == reverse_path


@every("auth", [b"<>", b"anna+40example.com", b"anna@example.com"])
def test_the_auth_parameter_is_decoded(auth: bytes) -> None:
    assert parse_mail(b"FROM:<anna@example.com> AUTH=" + auth).auth == auth.decode()


@every(
    ("raw", "answer"),
    [
        (b"", reply.BAD_PARAMETER),
        (b"TO:<anna@example.com>", reply.BAD_PARAMETER),
        (b"FROM:anna@example.com", reply.BAD_REVERSE_PATH),
        (b"FROM:<anna@example.com", reply.BAD_REVERSE_PATH),
        (b"FROM:<a@x", reply.BAD_REVERSE_PATH),
        (b"FROM:<anna>", reply.BAD_REVERSE_PATH),
        (b"FROM:<anna@example.com>SIZE=1", reply.BAD_REVERSE_PATH),
        (b"FROM:<an\0na@example.com>", reply.BAD_REVERSE_PATH),
        (b"FROM:<anna@example.com\r\nRCPT>", reply.BAD_REVERSE_PATH),
        (b'FROM:<"an\rna"@example.com>', reply.BAD_REVERSE_PATH),
        (b"FROM:<=?utf-8?q?anna=40example=2Ecom=3E=0D=0ADATA?=@example.com>", reply.BAD_REVERSE_PATH),
        (b"FROM:<" + b"a" * 256 + b"@example.com>", reply.BAD_REVERSE_PATH),
        (b"FROM:<anna@example.com (comment)>", reply.BAD_REVERSE_PATH),
        ("FROM:<ånna@example.com>".encode(), reply.NEEDS_SMTPUTF8),
        (b"FROM:<\xff@example.com> SMTPUTF8", reply.BAD_REVERSE_PATH),
        (b"FROM:<anna@example.com> SIZE=", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> SIZE", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> SIZE=-1", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> SIZE=" + b"9" * 21, reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> SIZE=1 SIZE=1", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> BODY=BINARYMIME", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> SMTPUTF8=yes", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> RET=ALL", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> ENVID", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> ENVID=a+0D+0Ab", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> ENVID=a+00", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> ENVID=a+zz", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> ENVID==?utf-8?q?x?=", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> ENVID=" + b"x" * 101, reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> AUTH==?utf-8?q?x?=", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> AUTH=+3D?utf-8?q?x?+3D@example.com", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> AUTH=anna+0D+0A@example.com", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> AUTH=anna", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> -X=1", reply.BAD_PARAMETER),
        (b"FROM:<anna@example.com> HOLDFOR=60", reply.UNKNOWN_PARAMETER),
    ],
)
def test_invalid_mail_commands_are_refused(raw: bytes, answer: Reply) -> None:
    assert refusal(parse_mail, raw) == answer


def test_parameters_need_ehlo() -> None:
    assert refusal(parse_mail, b"FROM:<a@example.com> SIZE=1", extended=False) == reply.UNKNOWN_PARAMETER
    assert refusal(parse_rcpt, b"TO:<a@example.com> NOTIFY=NEVER", extended=False) == reply.UNKNOWN_PARAMETER
    assert parse_mail(b"FROM:<a@example.com>", extended=False).reverse_path == Address("a", "example.com")


def test_rcpt_keeps_the_spelling() -> None:
    recipient, path = parse_rcpt(b"TO:<Bob.B@Example.NET> NOTIFY=Success,DELAY ORCPT=rfc822;Bob+2BX@Example.NET")
    assert recipient.address == Address("Bob.B", "Example.NET")
    assert recipient.notify == "Success,DELAY"
    assert recipient.orcpt == "rfc822;Bob+2BX@Example.NET"
    line = rcpt_line(recipient, ALL, path)
    assert line == b"RCPT TO:<Bob.B@Example.NET> NOTIFY=Success,DELAY ORCPT=rfc822;Bob+2BX@Example.NET"
    with pytest.raises(NotOffered):
        rcpt_line(recipient, {}, path)


def test_the_relay_gets_the_parsed_path() -> None:
    for raw in (b"TO:<@hop.example:bob@example.net>", b'TO:<"bob"@example.net.>', b"to: <bob@example.net> "):
        assert parse_rcpt(raw)[1] == b"<bob@example.net>"


def test_orcpt_in_utf8() -> None:
    raw = "TO:<b@example.net> ORCPT=utf-8;å@example.net".encode()
    assert parse_rcpt(raw, smtputf8=True)[0].orcpt == "utf-8;å@example.net"
    assert refusal(parse_rcpt, raw) == reply.BAD_PARAMETER
    assert refusal(parse_rcpt, b"TO:<b@example.net> ORCPT=utf-8;\xff", smtputf8=True) == reply.BAD_PARAMETER


@every("name", [b"Postmaster", b"POSTMASTER", b"postmaster"])
def test_postmaster_without_a_domain(name: bytes) -> None:
    recipient, path = parse_rcpt(b"TO:<" + name + b">", here="guard.example")
    assert recipient.address == Address(name.decode(), "guard.example")
    assert path == b"<" + name + b">"


@every(
    ("raw", "answer"),
    [
        (b"TO:<>", reply.BAD_RECIPIENT),
        (b"TO:<bob>", reply.BAD_RECIPIENT),
        (b"TO:bob@example.net", reply.BAD_RECIPIENT),
        (b"FROM:<bob@example.net>", reply.BAD_PARAMETER),
        (b"TO:<bob@example.net><eve@example.net>", reply.BAD_RECIPIENT),
        (b"TO:<bob@example.net>, <eve@example.net>", reply.BAD_RECIPIENT),
        (b"TO:<bob@example.net> ORCPT=rfc822", reply.BAD_PARAMETER),
        (b"TO:<bob@example.net> ORCPT=rfc822;bob+0D+0A@example.net", reply.BAD_PARAMETER),
        (b"TO:<bob@example.net> ORCPT=rfc 822;bob@example.net", reply.BAD_PARAMETER),
        (b"TO:<bob@example.net> ORCPT=rfc822;=?utf-8?q?x?=", reply.BAD_PARAMETER),
        (b"TO:<bob@example.net> ORCPT=rfc822;" + b"x" * 500, reply.BAD_PARAMETER),
        (b"TO:<bob@example.net> NOTIFY=NEVER,SUCCESS", reply.BAD_PARAMETER),
        (b"TO:<bob@example.net> NOTIFY=SUCCESS,SUCCESS", reply.BAD_PARAMETER),
        (b"TO:<bob@example.net> NOTIFY=", reply.BAD_PARAMETER),
        (b"TO:<bob@example.net> NOTIFY=\xc5\xbfUCCESS", reply.BAD_PARAMETER),
        (b"TO:<bob@example.net> X=1", reply.UNKNOWN_PARAMETER),
        ("TO:<bøb@example.net>".encode(), reply.NEEDS_SMTPUTF8),
    ],
)
def test_invalid_rcpt_commands_are_refused(raw: bytes, answer: Reply) -> None:
    assert refusal(parse_rcpt, raw) == answer


@every("raw", [b"client.example", b"localhost", b"under_score", b"[192.0.2.1]", b"[IPv6:2001:db8::1]"])
def test_helo_is_parsed(raw: bytes) -> None:
    assert parse_helo(raw + b" ") == raw.decode()


@every(
    "raw",
    [b"", b"  ", b"a b", b"=?utf-8?q?x?=", b"a\0b", b"a\rb", b"\xc3\xa5.example", b"<x>", b"a" * 256, b"[1.2.3.4"],
)
def test_invalid_helo_is_refused(raw: bytes) -> None:
    assert refusal(parse_helo, raw) == reply.BAD_PARAMETER


def test_xforward_is_parsed() -> None:
    said = parse_xforward(
        b"NAME=spike.example ADDR=192.0.2.7 helo=a+2Bb PROTO=ESMTP IDENT=4F1 SOURCE=[UNAVAILABLE] PORT=25"
    )
    assert said == {
        "NAME": "spike.example", "ADDR": "192.0.2.7", "HELO": "a+b", "PROTO": "ESMTP", "IDENT": "4F1", "SOURCE": "", "PORT": "25"
    }  # fmt: skip
    assert parse_xforward(b"ADDR=IPv6:2001:db8::1 NAME=[TEMPUNAVAIL]") == {"ADDR": "2001:db8::1", "NAME": ""}


@every(
    "raw",
    [
        b"", b"NAME", b"NAME=", b"LOGIN=anna", b"ADDR=example", b"ADDR=999.1.1.1", b"ADDR=192.0.2.256",
        b"ADDR=IPV6:192.0.2.7", b"ADDR=IPV6::::", b"ADDR=IPV6:1:2:3:4:5:6:7:8:9", b"PORT=65536", b"PROTO=HTTP", b"NAME=a NAME=b", b"HELO=a+0D+0AMAIL",
        b"HELO=a+00", b"NAME==?utf-8?q?x?=", b"HELO=+3D?utf-8?q?x?+3D", b"HELO=\xff", b"PORT=port", b"HELO=" + b"x" * 256,
    ],
)  # fmt: skip
def test_invalid_xforward_is_refused(raw: bytes) -> None:
    assert refusal(parse_xforward, raw) == reply.BAD_PARAMETER


def test_line_limits_fit_every_extension() -> None:
    longest = (
        b"FROM:<" + b"a" * 64 + b"@" + b"d" * 180 + b".example> SIZE=" + b"9" * 20 + b" BODY=8BITMIME SMTPUTF8 RET=FULL"
    )
    assert len(longest) + len(b" ENVID=") + 100 + len(b" AUTH=") + 500 < grammar.MAX_MAIL
    assert grammar.MAX_LINE[b"RCPT"] == grammar.MAX_RCPT > grammar.MAX_COMMAND


PIECES = st.sampled_from(
    [b"FROM:", b"TO:", b"<", b">", b"@", b"anna", b"example.com", b'"', b"\\", b" ", b"SIZE=", b"ENVID=", b"ORCPT=rfc822;",
     b"NOTIFY=", b"AUTH=", b"+0D", b"\r", b"\n", b"\0", b"=?utf-8?q?x?=", b"\xc3\xa5", b"\xff", b"1", b"SMTPUTF8", b".", b":"]
)  # fmt: skip
LINES = st.lists(PIECES, max_size=14).map(b"".join) | st.binary(max_size=80)


@given(LINES, st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_input_is_refused_or_harmless(raw: bytes, utf8: bool) -> None:
    codes: set[int] = set()
    for parse in (parse_mail, lambda r: parse_rcpt(r, smtputf8=utf8)):
        for beginning in (b"", b"FROM:<a@example.com> ", b"TO:<a@example.com> "):
            try:
                taken = parse(beginning + raw)
            except Refused as refused:
                codes.add(refused.reply.code)
                continue
            line = mail_line(taken, ALL) if isinstance(taken, Envelope) else rcpt_line(taken[0], ALL, taken[1])
            assert not set(line) & set(b"\r\n\0")
            assert (utf8 or isinstance(taken, Envelope)) or line.isascii()
    assert codes <= {501, 553, 555}
    for parse_other in (parse_helo, parse_xforward):
        try:
            said = parse_other(raw)
        except Refused:
            continue
        assert str(said).isprintable()


LOCAL = st.from_regex(r"[a-z0-9!#$%&'*+/=^_`{|}~.-]{1,20}", fullmatch=True).filter(
    lambda s: not s.startswith(".") and not s.endswith(".") and ".." not in s
) | st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12)


@given(LOCAL, st.sampled_from(["example.com", "a.b.example", "[192.0.2.1]"]))
@settings(max_examples=200, deadline=None)
def test_addresses_read_back_the_same(local: str, domain: str) -> None:
    address = Address(local, domain)
    if "=?" in str(address) and "?=" in str(address):
        return
    recipient, path = parse_rcpt(f"TO:<{address}>".encode())
    assert recipient.address == address
    assert parse_rcpt(b"TO:" + path)[0].address == address


PLAIN = st.text(st.sampled_from("aB9_+-.@<> x"), max_size=20) | st.from_regex(
    r"[a-z+_-]{1,9}(\.[a-z]{0,3}){0,2}@[a-z0-9-]{0,6}(\.[a-z0-9-]{0,4}){0,2}", fullmatch=True
)


@given(PLAIN)
@settings(max_examples=400, deadline=None)
def test_the_fast_path_equals_the_full_parser(text: str) -> None:
    found = grammar._RCPT.match(f"TO:<{text}>".encode())
    if found is not None and found[2] is not None:  # parameters may follow the path
        assert parse_path(found[1]) == Address(found[2].decode(), found[3].decode())
        assert f"<{parse_path(found[1])}>".encode() == found[1]
