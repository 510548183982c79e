"""Find who wrote a message, and what proves it; and adjust the reading of the message for its origin.

From is a claim. The user that authenticated proves it, or a listener whose MTA verifies senders, or the origin that an
addressed list or a stream declares (RFC 6376, RFC 8601). The reverse-path (VERP) never says who wrote a message.

List headers are easily forged too. They count only from an origin that the policy names: a signature, client or login that
a list or stream declares, or an expander. A signature check is expensive and text is cheap. So signatures are verified only where
they could make a message look like a mailing that does not, and only where the header claims the right signature.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

from smtpguard.lists.declared import ListInfo, Stream
from smtpguard.lists.names import Names
from smtpguard.lists.recipients import Classified
from smtpguard.lists.registry import Registry
from smtpguard.mail.address import Address, BadAddress, account_name
from smtpguard.mail.constant import changed, computed, constant, maker
from smtpguard.mail.envelope import Transaction, client_network
from smtpguard.mail.fields import DkimResult, list_header, of_field
from smtpguard.policy.facts import Unknown, Value
from smtpguard.reading.looks import (
    Looks,
    Readable,
    Reading,
    from_declared_origin,
    without_list_headers,
)

_NO_STREAM: frozenset[str] = frozenset()
_BESIDE = frozenset({"sender", "resent-from", "resent-sender"})
"""Fields that name the sender of a message, beside From (RFC 5322 sections 3.6.2 and 3.6.6)."""
_MOST_REMEMBERED = 1000  # octets of these fields
_raw = attrgetter("raw")


@constant
class Sender:
    """Who sent a message, as far as its header, its login and the policy say.

    ``claimed``: the one address in From, canonical; None if there is none, or more than one. ``everything``: all canonical
    addresses in From, the fields beside it, reverse-path and login. ``told``: the mailbox to notify. ``login``: the address
    of the login, if it is one. ``account``: the name under which the login's mail is counted. Both are "" without a login of
    the writer. ``unnamed``: the account, if its login is no colleague's address; freezes stop it, and many may write through
    it. ``reports_to``: the customer lists whose address is the reverse-path; everybody on them would get a bounce.
    """

    claimed: str | None
    why_unclear: str
    everything: frozenset[str]
    internal: bool
    authenticated: bool
    told: str | None
    login: str = ""
    account: str = ""
    unnamed: frozenset[str] = frozenset()
    reports_to: tuple[str, ...] = ()

    @classmethod
    def of(cls, transaction: Transaction, registry: Registry) -> Sender:
        delimiters = registry.digester.delimiters
        header, session = transaction.message.header, transaction.session
        named, reverse_path = header.named, transaction.envelope.reverse_path
        froms = tuple(map(_raw, named.get("from", ())))
        beside = () if _BESIDE.isdisjoint(named) else tuple([f.raw for name in _BESIDE for f in named.get(name, ())])
        octets = sum(map(len, froms + beside))
        sender = (_remembered if octets <= _MOST_REMEMBERED else _written)(
            registry.names,
            delimiters,
            froms,
            beside,
            header.broken,
            # a notice would cause a mail loop
            reverse_path is None or ("auto-submitted" in named and list_header(named).auto_submitted != "no"),
            session.auth_user,
            session.senders_verified,
            session.mta_login,
        )
        if reverse_path is None:
            return sender
        path = reverse_path.canonical(delimiters)
        lists = registry.lists_behind(reverse_path, path)
        told = sender.told
        if told is not None and registry.expansions is not None:  # it may be an alias with customers behind it
            mailbox = Address.parse(told)
            told = None if registry.lists_behind(mailbox, mailbox.canonical(delimiters)) else told
        if path in sender.everything and not lists and told is sender.told:
            return sender
        return changed(sender, everything=sender.everything | {path}, told=told, reports_to=lists)

    def read_as(self, from_address: str | None, ambiguous: bool) -> Sender:
        """Return the sender after a second reading of the header. If that finds another From, or an ambiguous one, nobody is
        the claimed writer."""
        if self.claimed is None or (from_address == self.claimed and not ambiguous):
            return self
        shown = self.everything | ({from_address} if from_address else set())
        why = "From can be read in two ways"
        return changed(self, claimed=None, why_unclear=why, everything=shown, authenticated=False)

    def facts(
        self, transaction: Transaction, classified: Classified, registry: Registry, origin: DkimResult | Unknown | None
    ) -> Mapping[str, Value]:
        """Return the facts on the sender, without those that depend on ``origin`` while it is None (not asked for yet)."""
        if self.claimed is None:
            unclear = Unknown(why=self.why_unclear)
            return {"sender.address": unclear, "sender.internal": unclear, "sender.proven": False,
                    "sender.is_writer": not classified.addressed, "stream": frozenset()}  # fmt: skip
        streams = () if classified.list_addresses.high else registry.streams_from(self.claimed)
        if not streams and not classified.touched:  # as with nearly all mail
            return {"sender.address": self.claimed, "sender.internal": self.internal,
                    "sender.proven": self.authenticated, "sender.is_writer": True, "stream": _NO_STREAM}  # fmt: skip
        values: dict[str, Value | None] = {
            "sender.address": self.claimed,
            "sender.internal": self.internal,
        }
        by_stream = {s.name: _proves(s, transaction, origin) for s in streams}
        by_list = {
            name: _proves(registry.lists[name], transaction, origin)
            for name in {*classified.addressed, *classified.lists}
            if self.claimed in registry.lists[name].writers
        }
        values["stream"] = _names(by_stream)
        values["sender.proven"] = (
            True if self.authenticated else _settled((*by_stream.values(), *by_list.values()), by=True)
        )
        values["sender.is_writer"] = self.is_writer_of(classified.addressed, transaction, registry, origin)
        return {name: value for name, value in values.items() if value is not None}

    def is_writer_of(
        self, lists: Iterable[str], transaction: Transaction, registry: Registry, origin: DkimResult | Unknown | None
    ) -> Value | None:
        """Return whether the sender is a writer of every list, None until signatures are asked for. If a list declares an
        origin, only the origin proves it."""
        answers: list[Value | None] = []
        for name in lists:
            info = registry.lists[name]
            if self.claimed not in info.writers:
                return False
            answers.append(_proves(info, transaction, origin) if info.origin.declared else self.authenticated)
        return _settled(answers, by=False)


def _written(
    names: Names,
    delimiters: str,
    froms: tuple[bytes, ...],
    beside: tuple[bytes, ...],
    broken: bool,
    automatic: bool,
    auth_user: str | None,
    senders_verified: bool,
    mta_login: bool,
) -> Sender:
    """Return the sender without the reverse-path. ``froms``: the values of From; ``beside``: those of the fields beside it."""
    written = [address for raw in froms for address in of_field(raw)]
    shown = {a.canonical(delimiters) for a in written}
    claimed = next(iter(shown)) if len(shown) == 1 and len(froms) == 1 and not broken else None
    if beside:
        shown.update([a.canonical(delimiters) for raw in beside for a in of_field(raw)])
    user = _user(auth_user, written, names) if auth_user else None
    proven = None
    if user is not None:
        proven = user.canonical(delimiters)
        shown.add(proven)
    internal = claimed is not None and names.is_internal(written[0])
    authenticated = claimed is not None and ((senders_verified and internal) or proven == claimed)
    if mta_login and authenticated:  # all whose mail comes through that MTA would be one sender
        user, proven, auth_user = None, None, None
    account = names.account(auth_user) if auth_user else ""
    unnamed: frozenset[str] = frozenset()
    if account and "@" not in account:
        account = account_name(account)
        if user is None or not names.is_internal(user):
            unnamed = frozenset({account})
    return _new_sender(
        claimed=claimed,
        why_unclear="" if claimed is not None else _why_unclear(broken, froms, written),
        everything=frozenset(shown),
        internal=internal,
        authenticated=authenticated,
        told=None if automatic else _told(names, delimiters, user, written),
        login=proven or account,
        account=account,
        unnamed=unnamed,
    )


def client_name(client_ip: str) -> str:
    """Return the name under which mail of an unproven sender is counted."""
    return f"client {client_network(client_ip)}"


_new_sender = maker(Sender)
_remembered = lru_cache(maxsize=4096)(_written)
"""The writer of one message usually writes more, though each message may have its own reverse-path."""


def _why_unclear(broken: bool, froms: Sequence[bytes], written: Sequence[Address]) -> str:
    if broken:
        return "the header is broken"
    if len(froms) > 1 or written:
        return "more than one From"
    return "From cannot be read" if froms else "no From"


def _user(auth_user: str, written: Iterable[Address], names: Names) -> Address | None:
    """Return the mailbox of a login. A login without a domain has the internal address in From with that local part, else
    None."""
    try:
        return Address.parse(auth_user)
    except BadAddress:
        return next((a for a in written if a.local.lower() == auth_user.lower() and names.is_internal(a)), None)


def _told(names: Names, delimiters: str, user: Address | None, written: Iterable[Address]) -> str | None:
    """Return the mailbox to notify: that of the login, else the first internal address in From that is not a list's."""
    for address in (user, *written):
        if address is None or not names.is_internal(address):
            continue
        if names.list_at(address, address.canonical(delimiters)) is None:
            return str(address)
    return None


def _proves(declared: ListInfo | Stream, transaction: Transaction, origin: DkimResult | Unknown | None) -> Value | None:
    """Return whether the message comes from the origin that a list or stream declares, None until signatures are asked
    for."""
    where, session = declared.origin, transaction.session
    if isinstance(origin, DkimResult):
        return bool(where.proven(session, origin.domains))
    if not where.may_prove(session):
        return False  # the client or login does not match, or nothing is declared: signatures do not matter
    if not where.dkim:
        return True
    return origin


def _settled(answers: Collection[Value | None], *, by: bool) -> Value | None:
    """Return ``by`` if any answer is that; else the first that is open (None or Unknown); else the opposite."""
    if any(a is by for a in answers):
        return by
    return next((a for a in answers if not isinstance(a, bool)), not by)


def _names(answers: Mapping[str, Value | None]) -> Value | None:
    """Return the proven names. If none is proven and one is undecided, return None or Unknown."""
    proven = frozenset(name for name, answer in answers.items() if answer is True)
    if proven:
        return proven
    return next((a for a in answers.values() if a is not False), frozenset())


_SIGNING_DOMAIN = re.compile(r"(?:^|;)\s*d\s*=\s*([A-Za-z0-9.\-]{1,253})")
_MOST_SIGNATURES = 8
_NO_KEY = "a signature's key could not be looked up"


@dataclass(kw_only=True)
class Provenance:
    """Adjusts the reading of one transaction for its origin. ``weights``: the policy's weights of marks."""

    reading: Reading
    transaction: Transaction
    classified: Classified
    registry: Registry
    weights: Mapping[str, float]

    @computed
    def unproven(self) -> Reading:
        """The reading that holds if no signature is valid."""
        return self.reading if self._of_a_system else without_list_headers(self.reading)

    @property
    def could_matter(self) -> bool:
        """Whether the signatures that the header claims could decide whether the message is a mailing."""
        reading = self.unproven
        if reading.looks is not self.reading.looks and self._system_signed(self._claimed() | reading.vouched):
            return True
        if reading.looks is Looks.MAILING or reading.readable is not Readable.YES:
            return False
        domain = self._declared(self._claimed() | reading.vouched)
        return bool(domain) and self._as_from(reading, domain).looks is Looks.MAILING

    def proven(self, origin: DkimResult | Unknown) -> Reading | Unknown:
        """Return the reading with the verified origin, Unknown if the origin could not be verified and matters."""
        known = self.reading.vouched | (origin.domains if isinstance(origin, DkimResult) else frozenset())
        if domain := self._declared(known):
            return self._as_from(self.reading, domain)
        reading = self.reading if self._system_signed(known) else self.unproven
        if reading.looks is not self.reading.looks:
            asked = self._claimed() if isinstance(origin, Unknown) else origin.unresolved
            if self._system_signed(known | asked):
                why = origin.why if isinstance(origin, Unknown) else _NO_KEY
                return Unknown(why=f"its list headers weigh if it is from where it says: {why}")
        if reading.looks is Looks.MAILING:
            return reading
        if isinstance(origin, Unknown):
            claimed = bool(self._declared(self._claimed() | self.reading.vouched))
            return Unknown(why=f"it may be a mailing from where the list says: {origin.why}") if claimed else reading
        if self._declared(known | origin.unresolved):
            return Unknown(why=f"it may be a mailing from where the list says: {_NO_KEY}")
        return reading

    def _declared(self, signed_by: frozenset[str]) -> str:
        """The signing domain that the lists declare: of every addressed list, else of one list whose members are
        recipients."""
        if not signed_by:
            return ""
        addressed = [self.registry.lists[name] for name in self.classified.addressed]
        touched = addressed or [self.registry.lists[name] for name in sorted(self.classified.lists)]
        found = [self._signer(info, signed_by) for info in touched]
        return next((d for d in found if d), "") if not addressed or all(found) else ""

    def _signer(self, info: ListInfo, signed_by: frozenset[str]) -> str:
        session = self.transaction.session
        if not info.origin.dkim:
            return ""
        return next((d for d in sorted(signed_by) if info.origin.proven(session, frozenset({d}))), "")

    @computed
    def _of_a_system(self) -> bool:
        """Whether it comes from a client or login of a system: an expander, or an origin that the policy names."""
        session = self.transaction.session
        named = any(origin.names(session) for origin in self.registry.origins)
        return named or session.expander or self.registry.is_expander(session.client_ip)

    def _system_signed(self, signed_by: frozenset[str]) -> bool:
        """Whether one of these domains signs for an origin that the policy declares, and colleagues do not write from
        it."""
        session, alone = self.transaction.session, frozenset(d for d in signed_by if not self._shared(d))
        return bool(alone) and any(o.dkim and o.proven(session, alone) for o in self.registry.origins)

    def _claimed(self) -> frozenset[str]:
        signatures = self.transaction.message.header.all("DKIM-Signature")[:_MOST_SIGNATURES]
        return frozenset(d.lower() for f in signatures for d in _SIGNING_DOMAIN.findall(f.text[:4096]))

    def _as_from(self, reading: Reading, domain: str) -> Reading:
        return from_declared_origin(reading, domain, shared=self._shared(domain), weights=self.weights)

    def _shared(self, domain: str) -> bool:
        """Whether colleagues' own mail has the same signature, so that it cannot tell a campaign from a letter."""
        try:
            return self.registry.names.is_internal(Address.parse(f"postmaster@{domain}"))
        except BadAddress:
            return False
