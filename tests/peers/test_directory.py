"""Members of groups in a real OpenLDAP: nested, circular, in pages, over verified TLS, and failures."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpguard.lists.sources import SourceError, Stop, Tally, addresses
from smtpguard.lists.sources.opening import never, opened
from tests.lists.declaring import source as declared
from tests.peers.directory import (
    PASSWORD,
    READER,
    SUFFIX,
    Directory,
    entries,
    group,
    group_dn,
    missing,
    person,
    person_dn,
)

pytestmark = pytest.mark.xdist_group("directory")

DATA = entries(
    [
        person("Lena", more="mail: lena@kund.se\n"),
        person("Olle", more="objectClass: mailEnabled\nmail: olle@kund.se\nproxyAddresses: SMTP:Olle@kund.se\n"
               "proxyAddresses: smtp:olle.ek@kund.se\nproxyAddresses: x500:/o=Kund/cn=olle\n"),
        person("Two", more="mail: two@kund.se\nmail: second@kund.se\n"),
        person("Nobody"),
        person("Wrong", more="mail: not an address\n"),
        *(person(f"k{n}", more=f"mail: k{n}@kund.se\n") for n in range(25)),
        group("plain", person_dn("Lena"), person_dn("Olle")),
        group("unique", person_dn("Two"), kind="groupOfUniqueNames", attribute="uniqueMember"),
        group("nested", person_dn("Lena"), group_dn("plain"), group_dn("unique"), group_dn("circle")),
        group("circle", group_dn("nested"), person_dn("k1")),
        group("holes", person_dn("Nobody"), person_dn("Gone"), person_dn("Wrong"), person_dn("Lena")),
        group("shouting", person_dn("LENA").upper(), person_dn("Lena")),
        f"dn: {group_dn('names')}\nobjectClass: posixGroup\ncn: names\ngidNumber: 1\nmemberUid: lena\n",
        f"dn: cn=strange \\28\\2A\\29 group,ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: strange (*) group\n"
        f"member: {person_dn('Lena')}\n",
    ]
)  # fmt: skip

Read = Callable[..., tuple[list[str], Tally]]


@pytest.fixture(scope="module")
def directory() -> Iterator[Directory]:
    if why := missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="ldap-") as folder, Directory(Path(folder), ldif=DATA) as running:
        (running.folder / "password").write_text(PASSWORD + "\n")
        (running.folder / "wrong").write_text("guessed")
        yield running


@pytest.fixture
def read(directory: Directory) -> Read:
    def of(stop: Stop = never, **options: Any) -> tuple[list[str], Tally]:
        login = {"bind": READER, "password_file": "password", "ca_file": "ca.pem", "timeout": 60}
        declaration = {"ldap": f"ldap://localhost:{directory.port}", **login, **options}
        tally = Tally()
        source = opened(declared({k: v for k, v in declaration.items() if v is not None}), directory.folder, stop=stop)
        return sorted(str(a) for a in addresses(source, tally)), tally

    return of


def test_a_group_with_all_addresses_of_its_members(read: Read) -> None:
    found, tally = read(group=[group_dn("plain")])
    assert found == ["lena@kund.se", "olle.ek@kund.se", "olle@kund.se"]
    assert (tally.rows, tally.bad) == (3, 0)
    assert read(group=[group_dn("plain")], attributes=["mail"])[0] == ["lena@kund.se", "olle@kund.se"]


def test_nested_and_circular_groups_are_resolved(read: Read) -> None:
    everybody = ["k1@kund.se", "lena@kund.se", "olle.ek@kund.se", "olle@kund.se", "second@kund.se", "two@kund.se"]
    assert read(group=[group_dn("nested")])[0] == everybody
    assert read(group=[group_dn("circle")])[0] == everybody
    assert read(group=[group_dn("unique"), group_dn("plain")])[0] == [e for e in everybody if e != "k1@kund.se"]


def test_a_member_without_an_address_is_reported(read: Read) -> None:
    found, tally = read(group=[group_dn("holes")])
    assert found == ["lena@kund.se"]
    assert (tally.rows, tally.bad) == (4, 3)
    assert sorted(row.why for row in tally.shown) == [
        "a member that the directory does not have",
        "no address in mail or proxyAddresses",
        "not a mailbox: expected local-part@domain",
    ]
    assert str(tally.shown[0]).startswith("entry ")
    assert "Gone" not in str(tally.shown)


def test_a_group_of_names_without_entries_is_reported(read: Read) -> None:
    found, tally = read(group=[group_dn("names"), group_dn("plain")])
    assert "lena@kund.se" in found
    (bad,) = tally.shown
    assert bad.why == "a group that has memberUid alone, which names no entries: expected base and filter"


def test_names_are_case_insensitive(read: Read) -> None:
    assert read(group=[group_dn("shouting")])[0] == ["lena@kund.se"]


def test_a_filter_is_read_in_pages(read: Read) -> None:
    found, _ = read(group=None, base=f"ou=people,{SUFFIX}", filter="(mail=k*@kund.se)", page=4)
    assert len(found) == 25
    assert read(group=None, base=f"ou=people,{SUFFIX}", filter="(mail=nobody@kund.se)")[0] == []


def test_filter_syntax_in_a_groups_name_is_escaped(read: Read) -> None:
    assert read(group=[f"cn=strange (*) group,ou=groups,{SUFFIX}"])[0] == ["lena@kund.se"]


def test_implicit_tls(read: Read, directory: Directory) -> None:
    url = f"ldaps://localhost:{directory.tls_port}"
    assert len(read(ldap=url, group=[group_dn("plain")])[0]) == 3


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("host", "ca", "why"),
    [("localhost", None, "self-signed|unable to get local issuer"), ("127.0.0.1", "ca.pem", "IP address mismatch")],
)
def test_an_unverified_certificate_gets_no_password(
    read: Read, directory: Directory, implicit: bool, host: str, ca: str | None, why: str
) -> None:
    url = f"ldaps://{host}:{directory.tls_port}" if implicit else f"ldap://{host}:{directory.port}"
    with pytest.raises(SourceError, match=rf"not trusted: .*({why}).*\(see ca_file\)") as told:
        read(ldap=url, ca_file=ca, group=[group_dn("plain")])
    assert PASSWORD not in str(told.value)


def test_a_refused_login_is_an_error(read: Read) -> None:
    with pytest.raises(SourceError, match=r"the login is refused \(see bind and password_file\)"):
        read(password_file="wrong", group=[group_dn("plain")])


def test_unreadable_members_are_an_error(read: Read) -> None:
    """Members that the directory hides count as unreadable. Without a login it shows only the group."""
    found, tally = read(bind=None, password_file=None, group=[group_dn("plain")])
    assert found == []
    assert tally.bad == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"group": [group_dn("none")]}, "there is no cn=none"),
        ({"group": ["not a name"]}, "invalidDNSyntax|attribute type not present"),
        ({"group": None, "base": "ou=none,dc=example,dc=com", "filter": "(mail=*)"}, "noSuchObject"),
        ({"group": None, "base": SUFFIX, "filter": "(mail=*"}, "the filter is invalid"),
        ({"group": [group_dn("plain")], "password_file": "none"}, "the secret in .*none cannot be read"),
        ({"group": [group_dn("plain")], "ca_file": "password"}, "no certificates in PEM"),
    ],
)
def test_invalid_options_are_refused(read: Read, options: dict[str, Any], why: str) -> None:
    with pytest.raises(SourceError, match=why):
        read(**options)


def test_a_truncated_answer_is_refused(read: Read) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="ldap-") as folder,
        Directory(Path(folder), ldif=DATA, limit=10) as small,
        pytest.raises(SourceError, match="only a part of the answer: sizeLimitExceeded"),
    ):
        read(ldap=f"ldap://localhost:{small.port}", ca_file=str(small.authority), page=100,
             group=None, base=f"ou=people,{SUFFIX}", filter="(mail=*)")  # fmt: skip


def test_a_silent_or_unreachable_directory_is_an_error(directory: Directory, read: Read) -> None:
    directory.silent(True)
    try:
        with pytest.raises(SourceError, match=r"no answer within 1 s \(timeout\)"):
            read(timeout=1, group=[group_dn("plain")])
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(SourceError, match="stopped before its end"):
            read(timeout=60, ldap=f"ldap://localhost:{directory.port}", starttls=False, bind=None, password_file=None,
                 group=[group_dn("plain")], stop=stop.is_set)  # fmt: skip
    finally:
        directory.silent(False)
    with pytest.raises(SourceError, match="cannot be reached"):
        read(ldap="ldap://localhost:1", group=[group_dn("plain")])
