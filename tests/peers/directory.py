"""A real OpenLDAP: a slapd on a free loopback port, with the package's schema and its data in a temporary folder."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import trustme

from tests.peers.chain import until
from tests.peers.postfix import free_port

SUFFIX = "dc=example,dc=com"
READER = f"cn=reader,{SUFFIX}"
PASSWORD = "read only, of tests"
_SCHEMA = Path("/etc/ldap/schema")


def missing() -> str:
    """Why slapd cannot run here, "" if it can."""
    if not Path("/usr/sbin/slapd").exists():
        return "no slapd here: apt install slapd"
    return "" if (_SCHEMA / "inetorgperson.schema").exists() else "slapd's package has no schema here"


class Directory:
    """``starts_tls``: whether it has a certificate. ``limit``: how many entries it returns at most."""

    def __init__(self, folder: Path, *, ldif: str, limit: int = 100_000) -> None:
        self.folder = folder
        self.port, self.tls_port = free_port(), free_port()
        self.authority = folder / "ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        (folder / "data").mkdir()
        (folder / "slapd.conf").write_text(_configuration(folder, limit))
        (folder / "data.ldif").write_text(ldif)

    def __enter__(self) -> Directory:
        conf = ["-f", str(self.folder / "slapd.conf")]
        subprocess.run(
            ["/usr/sbin/slapadd", *conf, "-l", str(self.folder / "data.ldif")], check=True, capture_output=True
        )
        urls = f"ldap://127.0.0.1:{self.port}/ ldaps://127.0.0.1:{self.tls_port}/"
        log = (self.folder / "log").open("wb")
        with log:
            self._process = subprocess.Popen(["/usr/sbin/slapd", *conf, "-h", urls, "-d", "0"], stdout=log, stderr=log)
        for port in (self.port, self.tls_port):
            until(lambda port=port: self._answers(port), "slapd to answer")  # type: ignore[misc]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        self._process.wait(120)

    def silent(self, silent: bool) -> None:
        """Stop or continue the process. While stopped, it accepts connections and does not answer."""
        self._process.send_signal(signal.SIGSTOP if silent else signal.SIGCONT)
        if silent:
            until(self._stands_still, "all threads to be stopped: one could still answer")

    def _stands_still(self) -> bool:
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        return all((each / "stat").read_text().rpartition(")")[2].split()[0] == "T" for each in threads)

    def _answers(self, port: int) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=120):
            return True
        return False


def entries(people: Iterable[str]) -> str:
    """The base of the directory and ``people``, as LDIF."""
    root = f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n"
    reader = f"dn: {READER}\nobjectClass: person\ncn: reader\nsn: reader\nuserPassword: {PASSWORD}\n"
    units = (f"dn: ou={unit},{SUFFIX}\nobjectClass: organizationalUnit\nou: {unit}\n" for unit in ("people", "groups"))
    return "\n".join((root, reader, *units, *people))


def person(name: str, *, more: str = "") -> str:
    return f"dn: {person_dn(name)}\nobjectClass: inetOrgPerson\ncn: {name}\nsn: {name}\n{more}"


def group(name: str, *members: str, kind: str = "groupOfNames", attribute: str = "member") -> str:
    rows = "".join(f"{attribute}: {member}\n" for member in members)
    return f"dn: {group_dn(name)}\nobjectClass: {kind}\ncn: {name}\n{rows}"


def person_dn(name: str) -> str:
    return f"cn={name},ou=people,{SUFFIX}"


def group_dn(name: str) -> str:
    return f"cn={name},ou=groups,{SUFFIX}"


def _configuration(folder: Path, limit: int) -> str:
    schema = "".join(f"include {_SCHEMA / name}.schema\n" for name in ("core", "cosine", "inetorgperson", "nis"))
    return f"""{schema}
attributetype ( 1.2.840.113556.1.2.210 NAME 'proxyAddresses' EQUALITY caseIgnoreMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.3.6.1.4.1.4203.666.11.99 NAME 'mailEnabled' SUP top AUXILIARY MAY proxyAddresses )
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
TLSCertificateFile {folder}/cert.pem
TLSCertificateKeyFile {folder}/key.pem
sizelimit size.soft={limit} size.hard={limit} size.prtotal={limit}
database mdb
suffix "{SUFFIX}"
directory {folder}/data
maxsize 67108864
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=people,{SUFFIX}" by users read by * none
access to * by * read
"""
