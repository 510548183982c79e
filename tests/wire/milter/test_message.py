"""Building a message from the MTA's commands: content octet by octet, envelope and session."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.envelope import Body as BodyType
from smtpguard.mail.reply import Reply
from smtpguard.wire.data import Arrived
from smtpguard.wire.listener import Limits, Listener
from smtpguard.wire.miltermessage import Assembling, Client, MilterMessage, SessionMacros
from smtpguard.wire.milterpackets import Connect, Family, Macros, Mail, Rcpt
from tests.wire.milter.mta import split


def assembled(content: bytes, spool: Path, *, chunk: int = 65_535, limits: Limits | None = None) -> Any:
    assembling = Assembling(limits or Limits(), spool)
    try:
        fields, body = split(content)
        for name, value in fields:
            assembling.field(name, value)
        assembling.end_of_header()
        for start in range(0, len(body), chunk):
            assembling.body(body[start : start + chunk])
            if assembling.heavy:
                assembling.unload()
        assembling.whole()
        arrived = assembling.refusal or assembling.finish()
        return arrived if isinstance(arrived, Reply) else arrived.message.raw[:]
    finally:
        assembling.close()


EXACT = [
    b"Subject: x\r\n\r\nHej\r\n",
    b"Subject:x\r\nX-Empty:\r\nX-Space: \r\nX-Tab:\ty \r\n\r\n",
    b"Subject: one\r\n two\r\n\tthree\r\n \r\nTo: a@example.com\r\n\r\nx\r\n",
    "Subject: smörgås\r\n\r\nsmörgås\r\n".encode(),
    b"A: b\r\n\r\n.\r\n..\r\n.x\r\n\r\n\r\n",
    b"\r\nno header\r\n",
    b"DKIM-Signature: v=1; b=a\r\n b\r\n\tc;\r\n\r\n",
    b"A: b\r\n\r\n" + b"x" * 200_000 + b"\r\n",
]


@pytest.mark.parametrize("content", EXACT, ids=range(len(EXACT)))
@pytest.mark.parametrize("chunk", [1, 7, 65_535])
async def test_content_is_assembled_octet_by_octet(content: bytes, chunk: int, tmp_path: Path) -> None:
    if len(content) < 10_000 or chunk > 1:
        assert assembled(content, tmp_path, chunk=chunk, limits=Limits(spool_octets=1000)) == content


_LINE = st.binary(max_size=30).map(lambda b: b.translate(None, b"\r\n\0"))
_FIELD = st.tuples(st.from_regex(rb"[!-9;-~]{1,10}", fullmatch=True), st.lists(_LINE, min_size=1, max_size=3))


@given(fields=st.lists(_FIELD, max_size=5), lines=st.lists(_LINE, max_size=8), chunk=st.integers(1, 40))
@settings(max_examples=100, deadline=None)
async def test_any_content_is_assembled(
    fields: list[tuple[bytes, list[bytes]]], lines: list[bytes], chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    head = b"".join(name + b":" + b"\r\n ".join(value) + b"\r\n" for name, value in fields)
    content = head + b"\r\n" + b"".join(line + b"\r\n" for line in lines)
    spool = tmp_path_factory.getbasetemp()
    assert assembled(content, spool, chunk=chunk, limits=Limits(spool_octets=50)) == content


async def test_a_missing_line_end_is_added(tmp_path: Path) -> None:
    assert assembled(b"A: b\r\n\r\nlast", tmp_path) == b"A: b\r\n\r\nlast\r\n"
    assert assembled(b"A: b\r\n\r\nlast\r", tmp_path, chunk=1) == b"A: b\r\n\r\nlast\r\n"


def letter(mail: Mail, *rcpts: Rcpt, known: SessionMacros | None = None, tmp: Path = Path("/nowhere")) -> MilterMessage:
    made = MilterMessage(mail, known or SessionMacros(), Listener(spool=tmp, hostname="guard.example"))
    for rcpt in rcpts:
        refused = made.rcpt(rcpt, Client())
        assert refused is None, refused
    return made


class TestEnvelope:
    def test_esmtp_parameters_are_read(self) -> None:
        made = letter(
            Mail(b"<anna@example.com>", (b"SIZE=1234", b"body=8bitmime", b"RET=HDRS", b"ENVID=Case+2B1", b"XVERP", b"REQUIRETLS")),
            Rcpt(b"<bob@example.net>", (b"NOTIFY=SUCCESS,FAILURE", b"ORCPT=rfc822;Bob@example.net", b"XWHO=1")),
        ).envelope  # fmt: skip
        assert (made.size_bytes, made.body, made.ret, made.envid) == (1234, BodyType.EIGHTBITMIME, "HDRS", "Case+2B1")
        assert (made.recipients[0].notify, made.recipients[0].orcpt) == ("SUCCESS,FAILURE", "rfc822;Bob@example.net")
        assert not made.smtputf8

    @pytest.mark.parametrize(
        ("path", "address"),
        [
            (b"<>", None), (b"<Anna@Example.com>", "Anna@Example.com"), (b"anna@example.com", "anna@example.com"),
            (b"<@a.example,@b.example:anna@example.com>", "anna@example.com"), (b'<"a b"@example.com>', '"a b"@example.com'),
            ("<jörgen@example.com>".encode(), "jörgen@example.com"),
        ],
    )  # fmt: skip
    def test_reverse_paths_are_read(self, path: bytes, address: str | None) -> None:
        made = letter(Mail(path), Rcpt(b"<b@example.com>")).envelope
        assert (str(made.reverse_path) if made.reverse_path else None) == address
        assert made.smtputf8 is (not path.isascii())

    def test_non_ascii_recipients_are_read(self) -> None:
        made = letter(Mail(b"<>"), Rcpt("<åsa@bücher.example>".encode())).envelope
        assert made.smtputf8
        assert str(made.addresses[0]) == "åsa@bücher.example"

    def test_the_mtas_own_form_is_used_for_unparsable_addresses(self) -> None:
        known = SessionMacros()
        known.learn(Macros(b"M", ((b"{mail_addr}", b"anna@example.com"),)))
        known.learn(Macros(b"R", ((b"{rcpt_addr}", "åsa@example.com".encode()),)))
        made = letter(Mail(b"<anna>"), Rcpt(b"<asa (at home)>"), known=known)
        assert str(made.envelope.reverse_path) == "anna@example.com"
        assert [str(a) for a in made.envelope.addresses] == ["åsa@example.com"]
        assert made.paths == [b"<asa (at home)>"], "the path as the MTA sent it"

    def test_postmaster_gets_the_local_host(self) -> None:
        made = letter(Mail(b"<>"), Rcpt(b"<postmaster>")).envelope
        assert [str(a) for a in made.addresses] == ["postmaster@guard.example"]

    @pytest.mark.parametrize("path", [b"<>", b"<a b>", b"", b"<\xff@example.com>", b"<a@-_->"])
    def test_an_invalid_recipient_is_refused(self, path: bytes) -> None:
        made = letter(Mail(b"<>"))
        refused = made.rcpt(Rcpt(path), Client())
        assert refused is not None
        assert refused.permanent


def session(connect: Connect, *macros: Macros, helo: bytes = b"", **house: Any) -> Any:
    client = Client()
    client.connected(connect)
    if helo:
        client.greeted(helo)
    for each in macros:
        client.known.learn(each)
    return client.session(Listener(spool=Path("/nowhere"), **house))


class TestSession:
    @pytest.mark.parametrize(
        ("connect", "macros", "ip", "name"),
        [
            (Connect(b"desk.example", Family.INET, 1, b"192.0.2.1"), (), "192.0.2.1", "desk.example"),
            (Connect(b"[192.0.2.1]", Family.INET, 1, b"192.0.2.1"), (), "192.0.2.1", ""),
            (Connect(b"unknown", Family.INET6, 1, b"IPv6:2001:db8::1"), (), "2001:db8::1", ""),
            (Connect(b"unknown", Family.INET6, 1, b"2001:DB8::0:1"), (), "2001:db8::1", ""),
            (Connect(b"localhost", Family.UNKNOWN), ((b"{client_addr}", b"127.0.0.1"),), "127.0.0.1", "localhost"),
            (Connect(b"localhost", Family.UNIX, 0, b"/run/x"), (), "", "localhost"),
            (Connect(b"x", Family.INET, 1, b"no address"), ((b"client_addr", b"nor this"),), "", "x"),
        ],
    )
    def test_client_address_name_and_helo(self, connect: Connect, macros: Any, ip: str, name: str) -> None:
        made = session(connect, Macros(b"C", macros), helo="dänk".encode("latin-1"))
        assert (made.client_ip, made.client_name, made.helo) == (ip, name, "d\ufffdnk")

    def test_the_login_comes_from_the_macro(self) -> None:
        here = Connect(b"x", Family.INET, 1, b"192.0.2.1")
        made = session(
            here, Macros(b"H", ((b"{tls_version}", b"TLSv1.3"),)), Macros(b"M", ((b"{auth_authen}", b"anna"),))
        )
        assert (made.auth_user, made.tls) == ("anna", True)
        assert session(here).auth_user is None
        assert not session(here).tls
        assert session(here, Macros(b"M", ((b"{auth_authen}", b""),))).auth_user is None

    def test_listener_peer_and_queue_id(self) -> None:
        here = Connect(b"x", Family.INET, 1, b"192.0.2.1")
        client = Client("192.0.2.25")
        client.connected(here)
        client.known.learn(Macros(b"M", ((b"i", b"4bXyz"),)))
        made = client.session(Listener(spool=Path("/nowhere"), name="postfix"))
        assert (made.listener, made.peer, made.client_ip, made.ident) == ("postfix", "192.0.2.25", "192.0.2.1", "4bXyz")
        assert session(here).peer == ""

    def test_settings_are_copied_to_the_session(self) -> None:
        here = Connect(b"x", Family.INET, 1, b"192.0.2.1")
        made = session(here, senders_verified=True, expanders=(ip_network("192.0.2.0/30"),))
        assert made.senders_verified
        assert made.expander

    def test_macros_are_bounded(self) -> None:
        known = SessionMacros()
        for n in range(2000):
            known.learn(Macros(b"M", ((b"x%d" % n, b"y"),)))
        assert known.get(b"x0") == "y"
        assert known.get(b"x1999") == ""


async def test_finish_closes_all_files(tmp_path: Path) -> None:
    made = letter(Mail(b"<>"), Rcpt(b"<a@x.se>"), tmp=tmp_path)
    made.content.field(b"A", b" b")
    made.content.end_of_header()
    made.content.body(b"x\r\n")
    arrived = await made.finish()
    assert isinstance(arrived, Arrived)
    assert arrived.message.raw == b"A: b\r\n\r\nx\r\n"
