"""Build the DKIM verifier of the settings. Separate from the guard, since ``explain`` opens no store."""

from __future__ import annotations

import dns.asyncresolver

from smtpguard.config.settings import Settings
from smtpguard.wire.dkim import DkimVerifier, Resolver


def dkim_verifier(settings: Settings) -> DkimVerifier:
    resolver = None
    if settings.resolver.nameservers:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = list(settings.resolver.nameservers)
    lookup = Resolver(resolver, seconds=settings.resolver.timeout_seconds).txt
    return DkimVerifier(lookup, pinned=settings.dkim_keys)
