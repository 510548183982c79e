"""The whole chain, started once a module: starting three Postfixes takes longer than any test here."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.peers import postfix
from tests.peers.chain import Chain


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path below /tmp: Postfix's user must reach it, and a Unix socket's path has at most 108 characters."""
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def certified(folder: Path) -> Path:
    """The folder with ``ca.pem``, and ``cert.pem`` and ``key.pem`` for servers on loopback."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("localhost", "127.0.0.1", "guard.example.com", "relay.example.com")
    server.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(p.bytes() for p in server.cert_chain_pems))
    return folder


@pytest.fixture(scope="module")
def chain(certified: Path, signing_key: tuple[bytes, bytes]) -> Iterator[Chain]:
    """A chain with TLS on every hop: smtpguard has its own certificate, and the relay's is verified."""
    if why := postfix.missing():
        pytest.skip(why)
    record = signing_key[1].decode()
    keys = {f"s1._domainkey.{domain}": record for domain in ("campaigns.example.com", "shop.example.com")}
    with Chain(certified, settings={"dkim_keys": json.dumps(keys)}) as chain:
        yield chain


@pytest.fixture(scope="session")
def signing_key() -> tuple[bytes, bytes]:
    """A new RSA key: the private key as PEM, and the TXT record of its selector."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
