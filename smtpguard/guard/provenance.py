"""What a reading becomes where the message provably comes from the origin that its list declares (RFC 6376, RFC 8601).

Signatures are dear and text is cheap, so they are only asked for where they could make a mailing of what does not look like
one, and only where the header claims the right signature. Never here: the verifying (wire.dkim), or the marks (reading).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from smtpguard.lists.declared import ListInfo
from smtpguard.lists.recipients import Classified
from smtpguard.lists.registry import Registry
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.transaction import Transaction
from smtpguard.policy.facts import Unknown
from smtpguard.reading.looks import Looks, Readable, Reading, from_declared_origin
from smtpguard.reading.origin import Origin

_SIGNING_DOMAIN = re.compile(r"(?:^|;)\s*d\s*=\s*([A-Za-z0-9.\-]{1,253})")
_MOST_SIGNATURES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Of one transaction. ``reading``: its text's; ``weights``: what the policy makes of marks."""

    reading: Reading
    transaction: Transaction
    classified: Classified
    registry: Registry
    weights: Mapping[str, float]

    @property
    def could_matter(self) -> bool:
        """Whether the signatures that the header claims would make a mailing of it."""
        reading = self.reading
        if reading.looks is Looks.MAILING or reading.readable is not Readable.YES:
            return False
        domain = self._declared(self._claimed() | reading.vouched)
        return bool(domain) and self._as_from(domain).looks is Looks.MAILING

    def proven(self, origin: Origin | Unknown) -> Reading | Unknown:
        """The reading as it is with what was verified; unknown where that could not be found out."""
        known = self.reading.vouched | (origin.domains if isinstance(origin, Origin) else frozenset())
        if domain := self._declared(known):
            return self._as_from(domain)
        if isinstance(origin, Unknown):
            return Unknown(why=f"it may be a mailing from where the list says: {origin.why}")
        if self._declared(known | origin.unresolved):
            return Unknown(why="it may be a mailing from where the list says: a signature's key could not be looked up")
        return self.reading

    def _declared(self, signed_by: frozenset[str]) -> str:
        """The signing domain among these that the lists declare: every list that is addressed, else one whose members are."""
        addressed = [self.registry.lists[name] for name in self.classified.addressed]
        touched = addressed or [self.registry.lists[name] for name in sorted(self.classified.lists)]
        found = [self._signer(info, signed_by) for info in touched]
        return next((d for d in found if d), "") if not addressed or all(found) else ""

    def _signer(self, info: ListInfo, signed_by: frozenset[str]) -> str:
        ip = self.transaction.session.client_ip
        if not info.origin.dkim:
            return ""
        return next((d for d in sorted(signed_by) if info.origin.proven(client_ip=ip, signed_by=frozenset({d}))), "")

    def _claimed(self) -> frozenset[str]:
        signatures = self.transaction.message.header.all("DKIM-Signature")[:_MOST_SIGNATURES]
        return frozenset(d.lower() for f in signatures for d in _SIGNING_DOMAIN.findall(f.text[:4096]))

    def _as_from(self, domain: str) -> Reading:
        return from_declared_origin(self.reading, domain, shared=self._shared(domain), weights=self.weights)

    def _shared(self, domain: str) -> bool:
        """Whether colleagues' own mail bears the same signature, so that it does not tell a campaign from a letter."""
        try:
            return self.registry.is_internal(Address.parse(f"postmaster@{domain}"))
        except BadAddress:
            return False
