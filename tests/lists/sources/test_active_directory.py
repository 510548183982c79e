"""Groups of Active Directory: the server is asked for all members of nested groups, in pages, with escaped names.

There is no Active Directory here: a server on loopback answers like one (RFC 4511), and keeps the queries. Real
directories are tested in tests/peers/test_directory.py.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpguard.lists.sources import SourceError
from tests.lists.sources.conftest import Members, dripping

pytest.importorskip("ldap3", reason="the extra ldap is not installed")


PAGED = "1.2.840.113556.1.4.319"
GROUP = r"CN=Kunder (alla) *\, AB,OU=Grupper,DC=example,DC=com"
PEOPLE = [
    {"mail": ["lena@kund.se"], "proxyAddresses": ["SMTP:lena@kund.se", "smtp:lena.ek@kund.se", "X500:/o=x", "sip:lena@kund.se"]},
    {"mail": ["olle@kund.se"]},
    {"displayName": ["A service without a mailbox"]},
]  # fmt: skip


def tlv(tag: int, *parts: bytes) -> bytes:
    """One BER element (X.690), with a length in at most four octets."""
    body = b"".join(parts)
    length = bytes([len(body)]) if len(body) < 128 else b"\x84" + len(body).to_bytes(4, "big")
    return bytes([tag]) + length + body


def text(value: str | bytes, tag: int = 0x04) -> bytes:
    return tlv(tag, value.encode() if isinstance(value, str) else value)


def number(value: int, tag: int = 0x02) -> bytes:
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))  # ldap3 counts message ids over all connections


def read(octets: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and the rest. Raises IndexError if it is incomplete."""
    length, at = octets[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(octets[2:at], "big")
    if len(octets) < at + length:
        raise IndexError
    return octets[0], octets[at : at + length], octets[at + length :]


def parts(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        tag, part, body = read(body)
        found.append((tag, part))
    return found


def entry(name: str, attributes: dict[str, list[str]]) -> bytes:
    rows = [tlv(0x30, text(kind), tlv(0x31, *map(text, values))) for kind, values in attributes.items()]
    return tlv(0x64, text(name), tlv(0x30, *rows))


def done(code: int = 0, tag: int = 0x65) -> bytes:
    return tlv(tag, number(code, 0x0A), text(""), text(""))


class Directory(socketserver.ThreadingTCPServer):
    """``asked``: base, filter and page of each search."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.asked: list[tuple[str, str, bytes | None]] = []
        self.bound: list[str] = []


class _Talk(socketserver.BaseRequestHandler):
    server: Directory

    def handle(self) -> None:
        heard = b""
        while more := self.request.recv(65536):
            heard += more
            while heard:
                try:
                    _, message, heard = read(heard)
                except IndexError:
                    break
                self.answer(parts(message))

    def answer(self, message: list[tuple[int, bytes]]) -> None:
        (_, place), (kind, operation), *controls = message
        if kind == 0x60:
            self.server.bound.append(parts(operation)[1][1].decode())
            self.say(int.from_bytes(place, "big"), done(tag=0x61))
        elif kind == 0x63:
            fields = parts(operation)
            base, wanted, cookie = fields[0][1].decode(), fields[6][1].decode("latin-1"), None
            for _, control in (c for _, body in controls for c in parts(body)):
                (_, name), *_, (_, value) = parts(control)
                if name.decode() == PAGED:
                    cookie = parts(parts(value)[0][1])[1][1]
            self.server.asked.append((base, wanted, cookie))
            self.found(int.from_bytes(place, "big"), base, cookie)

    def found(self, place: int, base: str, cookie: bytes | None) -> None:
        if base == "":
            root = {"supportedCapabilities": ["1.2.840.113556.1.4.800"], "defaultNamingContext": ["DC=example,DC=com"]}
            self.say(place, entry("", root), done())
        elif base.startswith("CN=none"):
            self.say(place, done(32))
        elif cookie is None:
            self.say(place, entry(base, {"objectClass": ["top", "group"], "mail": ["kunder@example.com"]}), done())
        else:
            at = int(cookie or b"0")
            self.say(place, entry(f"CN={at},{base}", PEOPLE[at]), tlv(0x73, text("ldap://other.example.com/DC=other")))
            onward = str(at + 1).encode() if at + 1 < len(PEOPLE) else b""
            control = tlv(0x30, text(PAGED), text(tlv(0x30, number(0), text(onward))))
            self.say(place, done(), controls=tlv(0xA0, control))

    def say(self, place: int, *answers: bytes, controls: bytes = b"") -> None:
        for n, answer in enumerate(answers, 1):
            self.request.sendall(tlv(0x30, number(place), answer, controls if n == len(answers) else b""))


@pytest.fixture
def directory() -> Iterator[Directory]:
    with Directory() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


def declared(directory: Directory, **more: Any) -> dict[str, Any]:
    port = directory.server_address[1]
    return {"ldap": f"ldap://127.0.0.1:{port}", "starttls": False, "group": [GROUP], "timeout": 5, **more}


def test_nested_groups_are_resolved_by_the_directory(directory: Directory, members: Members, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("of tests")
    found, tally = members(declared(directory, bind="reader@example.com", password_file="password"))
    assert found == ["lena@kund.se", "lena.ek@kund.se", "olle@kund.se"]
    assert [str(row) for row in tally.shown] == ["entry 3: no address in mail or proxyAddresses"]
    assert directory.bound == ["reader@example.com"]
    (_, _, _), (group, _, _), *pages = directory.asked
    assert group == GROUP
    assert [(base, cookie) for base, _, cookie in pages] == [("DC=example,DC=com", c) for c in (b"", b"1", b"2")]
    asked = pages[0][1]
    assert "1.2.840.113556.1.4.1941" in asked
    assert GROUP in asked, "every character of the name is escaped"


def test_the_search_is_limited_to_the_declared_base(directory: Directory, members: Members) -> None:
    assert members(declared(directory, base="OU=Kunder,DC=example,DC=com"))[0][0] == "lena@kund.se"
    assert directory.asked[-1][0] == "OU=Kunder,DC=example,DC=com"


def test_a_missing_group_is_an_error(directory: Directory, members: Members) -> None:
    with pytest.raises(SourceError, match="there is no CN=none"):
        members(declared(directory, group=["CN=none,DC=example,DC=com"]))


def test_a_truncated_answer_is_an_error(
    directory: Directory, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: _Talk, place: int, base: str, cookie: bytes | None) -> None:
        if cookie is None:
            whole(self, place, base, cookie)
        else:
            self.say(place, entry(f"CN=1,{base}", PEOPLE[0]))
            self.request.shutdown(socket.SHUT_RDWR)

    whole = _Talk.found
    monkeypatch.setattr(_Talk, "found", cut)
    with pytest.raises(SourceError, match=r"no answer within|ended|closed|terminated"):
        members(declared(directory, timeout=1))


@pytest.mark.parametrize("starttls", [False, True])
def test_a_directory_that_drips_its_first_answer_is_cut_off(members: Members, starttls: bool) -> None:
    """The answer to StartTLS too: a message of 1 MB of which an octet comes now and then."""
    with dripping(then=b"\x30\x84\x00\x10\x00\x00") as port:
        url = f"ldap://127.0.0.1:{port}"
        with pytest.raises(SourceError, match=r"no end within 0.3 s \(time_limit\)"):
            members({"ldap": url, "group": ["cn=all"], "starttls": starttls, "time_limit": 0.3})
