"""Every spelling of a mailbox gives the same digest, from a list's file and from RCPT TO."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.lists.digest import Digester
from smtpguard.lists.sources import cell_address
from smtpguard.mail.address import Address, delimiters_at, parse_path

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
    there = DIGESTER.plainly(text) or cell_address(text).canonical(DELIMITERS)
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
    quick = DIGESTER.plainly(f"{local}@{domain}")
    if quick is not None:
        assert quick == Address.parse(f"{local}@{domain}").canonical(DELIMITERS)
