"""Members of groups in a real OpenLDAP, each entry one person; directories that are silent, gone, or speak another
protocol."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from smtpguard.accounts.membership import People
from smtpguard.app.listrefresh import directory_reader
from smtpguard.lists.members import LdapMembers
from smtpguard.lists.sources import SourceError
from tests.peers.directory import PASSWORD, READER, Directory, entries, group, group_dn, missing, person, person_dn

pytestmark = pytest.mark.xdist_group("directory")

DATA = entries(
    [
        person(
            "Olle", more="objectClass: mailEnabled\nmail: Olle@example.com\nproxyAddresses: smtp:olle.ek@example.com\n"
        ),
        person("Lena", more="mail: lena+x@example.com\n"),
        person("Clash", more="mail: olle.ek@example.com\n"),
        group("guards", person_dn("Olle"), person_dn("Lena")),
        group("clash", person_dn("Olle"), person_dn("Clash")),
    ]
)


@contextmanager
def nonsense() -> Iterator[int]:
    """A port with a server that does not speak LDAP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    with server.accept()[0] as one:
                        one.recv(1024)
                        one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_members_and_failures_of_a_group() -> None:
    if why := missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="ldap-") as folder, Directory(Path(folder), ldif=DATA) as directory:
        (directory.folder / "password").write_text(PASSWORD + "\n")

        def ask(**options: Any) -> People:
            asked = {"ldap": f"ldap://localhost:{directory.port}", "group": group_dn("guards"), "bind": READER,
                     "password_file": "password", "ca_file": "ca.pem", "timeout": "60s", **options}  # fmt: skip
            declared = LdapMembers.model_validate({k: v for k, v in asked.items() if v is not None})
            return directory_reader(directory.folder, "+")(declared)

        assert sorted(ask()) == [("lena@example.com",), ("olle@example.com", "olle.ek@example.com")]
        for options, why in (
            ({"group": group_dn("clash")}, "one address for two people"),
            ({"group": group_dn("gone")}, "there is no"),
            ({"at_least": 3}, "expects at least 3"),
            ({"ldap": "ldap://localhost:1"}, "cannot be reached"),
        ):
            with pytest.raises(SourceError, match=why):
                ask(**options)
        with nonsense() as port, pytest.raises((SourceError, LookupError, ValueError)):
            ask(ldap=f"ldap://localhost:{port}", starttls=False, bind=None, password_file=None, timeout="1s")
        directory.silent(True)
        try:
            with pytest.raises(SourceError, match="no answer within 1 s"):
                ask(timeout="1s")
        finally:
            directory.silent(False)
