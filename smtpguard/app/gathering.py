"""Build what reads a message, verifies its signature and gathers its facts: for real mail, the console and ``explain`` alike."""

from __future__ import annotations

from contextlib import AsyncExitStack

import dns.asyncresolver

from smtpguard.app.files import installation_secret
from smtpguard.config.settings import Settings
from smtpguard.gathering.gather import Gather
from smtpguard.gathering.reader import Around, BoundedReader
from smtpguard.wire.dkim import DkimVerifier, Resolver


def gathering(settings: Settings, around: Around, undo: AsyncExitStack, *, key: bytes | None = None) -> Gather:
    """``undo`` closes its reader and verifier. ``key``: of traces, instead of the installation's secret."""
    reader, verifier = BoundedReader(around), _verifier(settings)
    undo.push_async_callback(reader.close)
    undo.push_async_callback(verifier.close)
    return Gather(reader=reader, verifier=verifier, trace_key=key or installation_secret(settings))


def _verifier(settings: Settings) -> DkimVerifier:
    resolver = None
    if settings.resolver.nameservers:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = list(settings.resolver.nameservers)
    lookup = Resolver(resolver, seconds=settings.resolver.timeout_seconds).txt
    return DkimVerifier(lookup, pinned=settings.dkim_keys)
