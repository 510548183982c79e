"""The certificates that we show, each with its key: loaded, or one sentence that says which cannot be used, and why.

``serve`` loads them once before anything starts, so that a mistake is told once. Never here: whom we believe (wire.handshake).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path

from smtpguard.app.files import CannotStart
from smtpguard.config.settings import Settings
from smtpguard.observe.alarms.conditions import Ends


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For the side that answers; TLS 1.2 and later. Raises CannotStart."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    readable(certificate, key)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as e:
        why = "the key is not the certificate's" if e.reason == "KEY_VALUES_MISMATCH" else "not PEM that can be used"
        raise CannotStart(f"{certificate}, {key}: {why}") from None
    return context


def readable(*paths: Path | None) -> None:
    """Tried one by one, since ssl would not say which of them it is. Raises CannotStart."""
    for path in paths:
        if path is None:
            continue
        try:
            path.open("rb").close()
        except OSError as e:
            raise CannotStart(f"{path}: {e.strerror}") from None


def shown(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Every certificate that we show, by its place in the settings."""
    for listener in settings.listen.smtp:
        if listener.tls is not None:
            yield f"listen: smtp: {listener.address} port {listener.port}", listener.tls.certificate
    if settings.console is not None and settings.console.tls is not None:
        yield "console", settings.console.tls.certificate
    if settings.relay.client_certificate is not None:
        yield "relay: client_certificate", settings.relay.client_certificate


def ends(settings: Settings) -> Iterator[Ends]:
    """When each of them ends, as its file says. One that cannot be read is told of elsewhere."""
    from cryptography import x509

    for _, path in shown(settings):
        try:
            chain = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError):
            continue
        yield Ends(what=str(path), at=min(each.not_valid_after_utc for each in chain))


def try_all(settings: Settings, parts: Iterable[str]) -> None:
    """Those that these parts will show. Raises CannotStart."""
    for listener in settings.listen.smtp if "proxy" in parts else ():
        if listener.tls is not None:
            server_context(listener.tls.certificate, listener.tls.key)
    if "console" in parts and settings.console is not None and settings.console.tls is not None:
        server_context(settings.console.tls.certificate, settings.console.tls.key)
