"""Adjust a reading for the message's origin: one that its list declares (RFC 6376, RFC 8601), or none.

List headers are easily forged. They count only from an origin that the policy names: a signature, client or login that
a list or stream declares, or an expander.

A signature check is expensive and text is cheap. So signatures are verified only where they could make a message look
like a mailing that does not, and only where the header claims the right signature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from smtpguard.lists.declared import ListInfo
from smtpguard.lists.declared import Origin as Declared
from smtpguard.lists.recipients import Classified
from smtpguard.lists.registry import Registry
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.authres import DkimResult
from smtpguard.mail.transaction import Transaction
from smtpguard.policy.facts import Unknown
from smtpguard.reading.looks import (
    Looks,
    Readable,
    Reading,
    from_declared_origin,
    has_list_headers,
    without_list_headers,
)

_SIGNING_DOMAIN = re.compile(r"(?:^|;)\s*d\s*=\s*([A-Za-z0-9.\-]{1,253})")
_MOST_SIGNATURES = 8
_NO_KEY = "a signature's key could not be looked up"


@dataclass(kw_only=True)
class Provenance:
    """The origin of one transaction. ``reading``: of its text; ``weights``: the policy's weights of marks."""

    reading: Reading
    transaction: Transaction
    classified: Classified
    registry: Registry
    weights: Mapping[str, float]

    @cached_property
    def unproven(self) -> Reading:
        """The reading if no signature is valid."""
        return self.reading if self._of_a_system else without_list_headers(self.reading)

    @property
    def could_matter(self) -> bool:
        """Whether the signatures that the header claims could make the message a mailing, or keep it one."""
        reading = self.reading
        if has_list_headers(reading) and not self._of_a_system:
            reading = self.unproven
            if reading.looks is not self.reading.looks and self._system_signed(self._claimed() | reading.vouched):
                return True
        if reading.looks is Looks.MAILING or reading.readable is not Readable.YES:
            return False
        domain = self._declared(self._claimed() | reading.vouched)
        return bool(domain) and self._as_from(reading, domain).looks is Looks.MAILING

    def proven(self, origin: DkimResult | Unknown) -> Reading | Unknown:
        """The reading with the verified origin; unknown if the origin could not be verified."""
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
        addressed = [self.registry.lists[name] for name in self.classified.addressed]
        touched = addressed or [self.registry.lists[name] for name in sorted(self.classified.lists)]
        found = [self._signer(info, signed_by) for info in touched]
        return next((d for d in found if d), "") if not addressed or all(found) else ""

    def _signer(self, info: ListInfo, signed_by: frozenset[str]) -> str:
        session = self.transaction.session
        if not info.origin.dkim:
            return ""
        return next((d for d in sorted(signed_by) if info.origin.proven(session, frozenset({d}))), "")

    @cached_property
    def _of_a_system(self) -> bool:
        """Whether it comes from a client or login of a system: an expander, or an origin that the policy names."""
        session = self.transaction.session
        named = any(origin.names(session) for origin in self._origins())
        return named or session.expander or self.registry.is_expander(session.client_ip)

    def _system_signed(self, signed_by: frozenset[str]) -> bool:
        """Whether one of these domains signs for an origin that the policy declares, and colleagues do not write from
        it."""
        session, alone = self.transaction.session, frozenset(d for d in signed_by if not self._shared(d))
        return bool(alone) and any(o.dkim and o.proven(session, alone) for o in self._origins())

    def _origins(self) -> Iterator[Declared]:
        yield from (info.origin for info in self.registry.lists.values())
        yield from (stream.origin for stream in self.registry.streams.values())

    def _claimed(self) -> frozenset[str]:
        signatures = self.transaction.message.header.all("DKIM-Signature")[:_MOST_SIGNATURES]
        return frozenset(d.lower() for f in signatures for d in _SIGNING_DOMAIN.findall(f.text[:4096]))

    def _as_from(self, reading: Reading, domain: str) -> Reading:
        return from_declared_origin(reading, domain, shared=self._shared(domain), weights=self.weights)

    def _shared(self, domain: str) -> bool:
        """Whether colleagues' own mail has the same signature, so that it cannot tell a campaign from a letter."""
        try:
            return self.registry.is_internal(Address.parse(f"postmaster@{domain}"))
        except BadAddress:
            return False
