"""The context of a reading: the organization's domains, the vocabularies, and the admins' changes to marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from smtpguard.mail.address import Address, BadAddress
from smtpguard.reading.marks import Side
from smtpguard.reading.topics import Vocabularies

PROVIDERS = frozenset(
    """
    126.com 163.com aol.com att.net bredband.net comcast.net comhem.se fastmail.com free.fr freenet.de gmail.com
    gmx.at gmx.ch gmx.de gmx.net googlemail.com hotmail.co.uk hotmail.com hotmail.es hotmail.fr hotmail.se icloud.com
    laposte.net libero.it live.com live.se mac.com mail.ru me.com msn.com online.no orange.fr outlook.com posteo.de
    proton.me protonmail.com qq.com sbcglobal.net sfr.fr spray.se t-online.de tele2.se telia.com verizon.net
    wanadoo.fr web.de yahoo.co.uk yahoo.com yahoo.de yahoo.se yandex.ru ymail.com zoho.com
    """.split()  # noqa: SIM905
)
"""Mailbox providers: anybody can have an address in such a domain, so that it is no sign of a colleague."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """A mark of the admins' own. ``header`` empty: it is for the text; ``pattern`` is re2's, ``term`` a plain phrase."""

    name: str
    side: Side
    weight: float
    header: str = ""
    pattern: str = ""
    term: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """``domains``: the organization's, in A-labels and lower case; their subdomains count.

    ``list_addresses`` (canonical) and ``list_ids`` are those of customer lists: never colleagues. ``weights`` maps a
    mark's name to the admins' weight, 0 to switch it off. ``authserv_ids``: whose Authentication-Results count (RFC
    8601).
    """

    domains: frozenset[str] = frozenset()
    list_addresses: frozenset[str] = frozenset()
    list_ids: frozenset[str] = frozenset()
    delimiters: str = ""
    vocabularies: Vocabularies = field(default_factory=Vocabularies)
    authserv_ids: frozenset[str] = frozenset()
    weights: Mapping[str, float] = field(default_factory=dict)
    customs: tuple[Custom, ...] = ()

    def is_ours(self, domain: str) -> bool:
        domain = domain.lower().rstrip(".")
        while domain:
            if domain in self.domains:
                return True
            domain = domain.partition(".")[2]
        return False

    def is_colleague(self, canonical: str) -> bool:
        """An address of the organization that is no customer list's."""
        return canonical not in self.list_addresses and self.is_ours(canonical.rpartition("@")[2])

    def canonical(self, text: str) -> str | None:
        """The canonical spelling of an address in a header, None if it is invalid."""
        return _canonical(text, self.delimiters)


@lru_cache(maxsize=4096)
def _canonical(text: str, delimiters: str) -> str | None:
    """Cached, since people write more than one message."""
    try:
        return Address.parse(text).canonical(delimiters)
    except BadAddress:
        return None
