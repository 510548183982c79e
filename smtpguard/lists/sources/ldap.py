"""Members of groups in a directory (RFC 4511): Active Directory, OpenLDAP and others.

Groups within groups are followed, and cycles end. Active Directory is asked for all members at once, by its matching
rule for memberships in a chain; others are asked member by member. Certificates are verified; referrals to other
servers are not followed.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from smtpguard.lists.members import LdapMembers
from smtpguard.lists.sources import (
    Cell,
    Source,
    SourceError,
    SourceTimeouts,
    Stop,
    Tally,
    secret,
    shut_down,
    tls_context,
    too_late,
    why_untrusted,
)
from smtpguard.locale.phrase import Phrase, Said

PAGED = "1.2.840.113556.1.4.319"  # RFC 2696
IN_CHAIN = "1.2.840.113556.1.4.1941"
"""The matching rule of Active Directory for memberships in a chain of groups."""
ACTIVE_DIRECTORY = "1.2.840.113556.1.4.800"
"""The capability by which Active Directory is recognised."""
MEMBERS = ("member", "uniqueMember")
NAMES_ALONE = "memberUid"  # RFC 2307
_SCHEMES = ("smtp:", "mailto:")  # of proxyAddresses; others (x500:, sip:) are no mailboxes


class LdapSource(Source):
    """Members of groups, or the entries that a filter finds below a base. It is always read: a directory has no cheap way
    to say whether a group has changed."""

    def __init__(self, members: LdapMembers, base: Path, stop: Stop) -> None:
        url = urlsplit(members.ldap)
        self._tls = url.scheme == "ldaps"
        self._host, self._port = url.hostname or "", url.port or (636 if self._tls else 389)
        self._verify = tls_context(members.ca_file, base)
        self._password = secret(members.password_file, base) if members.password_file else None
        self.members, self.patience = members, SourceTimeouts(members, stop)
        self._groups = members.group or []

    @property
    def label(self) -> str:
        what = " and ".join(self._groups) or f"{self.members.filter} below {self.members.base}"
        return f"{what} in the directory {self._host}"

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, "entry")
        with self._connected() as directory:
            if self.members.filter is not None:
                found: Iterator[_Found] = directory.below(self.members.base or "", self.members.filter)
            elif directory.is_active:
                found = (entry for group in self._groups for entry in directory.in_chain(group))
            else:
                found = directory.in_groups(self._groups)
            for number, entry in enumerate(found, 1):
                tally.rows += max(len(entry.addresses), 1)
                for address in entry.addresses:
                    yield number, address
                if not entry.addresses:
                    tally.reject(number, entry.wrong or f"no address in {' or '.join(self.members.attributes)}")

    @contextmanager
    def _connected(self) -> Iterator[_Directory]:
        """Open a bound connection. The bind is sent only when the connection is secure."""
        try:
            import ldap3
            from ldap3.core.exceptions import LDAPException
        except ModuleNotFoundError:
            raise SourceError(f'{self.label}: ldap3 is not installed: pip install "smtpguard[ldap]"') from None
        seconds = max(round(self.patience.wait_seconds), 1)
        connection = None
        try:
            server = ldap3.Server(self._host, self._port, use_ssl=self._tls, get_info=ldap3.NONE,
                                  connect_timeout=seconds, tls=_tls(self._verify, self._host))  # fmt: skip
            connection = ldap3.Connection(server, self.members.bind, self._password, auto_referrals=False, raise_exceptions=True,
                                          receive_timeout=seconds, read_only=True)  # fmt: skip
            with self.patience.cutting(lambda: shut_down(connection.socket.fileno())):
                connection.open(read_server_info=False)
                if self.members.starttls and not self._tls and not connection.start_tls(read_server_info=False):
                    raise SourceError.saying(
                        "{name}: it does not start TLS: expected a server that does, or ldaps://", name=self.label
                    )
                connection.bind(read_server_info=False)
                yield _Directory(self, connection)
        except (LDAPException, OSError) as error:
            raise SourceError.saying(
                "{name}: {why}", name=self.label, why=self.patience.spent() or _why(error, seconds)
            ) from None
        finally:
            if connection is not None:
                with suppress(LDAPException, OSError):
                    connection.unbind()
                if connection.socket is not None:  # one that failed to open
                    connection.socket.close()


@dataclass(frozen=True, slots=True)
class _Found:
    """The addresses of one entry. ``wrong``: why there is none, if known."""

    addresses: tuple[str, ...] = ()
    wrong: str = ""


class _Directory:
    """A bound connection, and three ways to ask it for people."""

    def __init__(self, source: LdapSource, connection: Any) -> None:
        self._source, self._connection = source, connection
        self._wanted = [*source.members.attributes, "objectClass", *MEMBERS, NAMES_ALONE]
        root = next(self._entries("", "(objectClass=*)", "BASE", ["supportedCapabilities", "defaultNamingContext"]), {})
        self.is_active = ACTIVE_DIRECTORY in _values(root, "supportedCapabilities")
        self._context = next(iter(_values(root, "defaultNamingContext")), "")

    def below(self, base: str, wanted: str) -> Iterator[_Found]:
        """Yield everybody whom a filter finds below a base."""
        for entry in self._entries(base, wanted, "SUBTREE", self._wanted):
            yield self._person(entry)

    def in_chain(self, group: str) -> Iterator[_Found]:
        """Yield everybody in a group of Active Directory and in the groups within it, which the directory itself resolves."""
        from ldap3.utils.conv import escape_filter_chars

        if self._entry(group) is None:
            raise SourceError.saying("{name}: there is no {group}", name=self._source.label, group=group)
        wanted = f"(&(memberOf:{IN_CHAIN}:={escape_filter_chars(group)})(!(objectClass=group)))"
        yield from self.below(self._source.members.base or self._context, wanted)

    def in_groups(self, groups: Iterable[str]) -> Iterator[_Found]:
        """Yield everybody in these groups and in the groups within them, one entry after the other."""
        for group in groups:
            if self._entry(group) is None:
                raise SourceError.saying("{name}: there is no {group}", name=self._source.label, group=group)
        ahead = list(groups)
        seen = {name.casefold() for name in ahead}
        while ahead:
            entry = self._entry(ahead.pop())
            if entry is None:
                yield _Found(wrong="a member that the directory does not have")
                continue
            members = [name for kind in MEMBERS for name in _values(entry, kind)]
            if not members and _values(entry, NAMES_ALONE):  # RFC 2307
                yield _Found(
                    wrong=f"a group that has {NAMES_ALONE} alone, which names no entries: expected base and filter"
                )
            elif not members and not _is_group(entry):
                yield self._person(entry)
            for name in members:
                if name.casefold() not in seen:
                    seen.add(name.casefold())
                    ahead.append(name)

    def _person(self, entry: Mapping[str, Any]) -> _Found:
        found: dict[str, str] = {}
        for kind in self._source.members.attributes:
            for value in _values(entry, kind):
                address = _mailbox(value)
                if address:
                    found.setdefault(address.casefold(), address)
        return _Found(tuple(found.values()))

    def _entry(self, name: str) -> Mapping[str, Any] | None:
        from ldap3.core.exceptions import LDAPNoSuchObjectResult

        try:
            return next(self._entries(name, "(objectClass=*)", "BASE", self._wanted), None)
        except LDAPNoSuchObjectResult:
            return None

    def _entries(self, base: str, wanted: str, scope: str, attributes: list[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the raw attributes of the results, which are asked for a page at a time if there may be many."""
        cookie: bytes | None = None
        paged = None if scope == "BASE" else self._source.members.page
        while cookie != b"":
            self._source.patience.check(self._source.label)
            self._connection.search(base, wanted, scope, attributes=attributes, paged_size=paged, paged_cookie=cookie)
            for answer in self._connection.response or []:
                if answer["type"] == "searchResEntry":  # not a referral to another server
                    yield answer["raw_attributes"]
            result = self._connection.result
            if result["result"] != 0:  # results for which ldap3 does not raise: limits of size and time, a referral
                raise SourceError.saying(
                    "{name}: it gives only a part of the answer: {why}",
                    name=self._source.label,
                    why=result["description"],
                )
            cookie = result.get("controls", {}).get(PAGED, {}).get("value", {}).get("cookie", b"")


def _tls(context: ssl.SSLContext, host: str) -> Any:
    """Return ldap3's TLS, but with certificates and names verified as Python's own library does it."""
    import ldap3

    class Verified(ldap3.Tls):  # type: ignore[misc]
        def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
            connection.socket = context.wrap_socket(connection.socket, server_hostname=host)

    return Verified(validate=ssl.CERT_REQUIRED)


def _values(entry: Mapping[str, Any], kind: str) -> list[str]:
    """Return the values of an attribute. Its name is case-insensitive."""
    found: list[bytes] = next((values for name, values in entry.items() if name.casefold() == kind.casefold()), [])
    return [value.decode("utf-8", "surrogateescape") for value in found]


def _is_group(entry: Mapping[str, Any]) -> bool:
    return any(value.casefold().startswith("group") for value in _values(entry, "objectClass"))


def _mailbox(value: str) -> str:
    """Return the mailbox of ``SMTP:anna@example.com`` or of a plain address; "" for other kinds of address."""
    scheme, colon, rest = value.partition(":")
    if not colon or "@" in scheme:
        return value.strip()
    return rest.strip() if f"{scheme.lower()}:" in _SCHEMES else ""


def _why(error: Exception, seconds: float) -> Said:
    """Return why a directory cannot be read, by ldap3's error. ``seconds``: the time limit for one answer."""
    from ldap3.core import exceptions as ldap

    said = " ".join(str(error).split())
    if why := why_untrusted(said):
        return why
    if isinstance(error, ldap.LDAPInvalidCredentialsResult):
        return Phrase("the login is refused (see bind and password_file)")
    if isinstance(error, ldap.LDAPInsufficientAccessRightsResult | ldap.LDAPInappropriateAuthenticationResult):
        return Phrase("access is denied (see bind and password_file)")
    if isinstance(error, ldap.LDAPSocketReceiveError | ldap.LDAPResponseTimeoutError | TimeoutError):
        return too_late(seconds)
    if isinstance(error, ldap.LDAPSocketOpenError):
        return Phrase("it cannot be reached: {why}", why=said)
    if isinstance(error, ldap.LDAPInvalidFilterError):
        return Phrase("the filter is invalid (RFC 4515)")
    return said or type(error).__name__
