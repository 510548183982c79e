"""A time-stamp authority (RFC 3161): OpenSSL's, which signs with certificates for time stamps only."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
CONFIG = """\
[tsa]
serial = {folder}/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
ess_cert_id_alg = sha256
"""


class Authority:
    """``begins``, ``ends``: of its certificate, from now."""

    def __init__(self, folder: Path, *, begins: timedelta = -DAY, ends: timedelta = DAY) -> None:
        folder.mkdir()
        self.folder, now = folder, datetime.now(UTC)
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateBuilder().not_valid_before(now - 9 * DAY).not_valid_after(now + 9 * DAY)
        ca = builder.issuer_name(named("Root")).subject_name(named("Root")).public_key(root_key.public_key())
        ca = ca.serial_number(1).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.root = ca.sign(root_key, hashes.SHA256())
        builder = x509.CertificateBuilder().not_valid_before(now + begins).not_valid_after(now + ends)
        own = builder.issuer_name(named("Root")).subject_name(named("Authority")).public_key(key.public_key())
        own = own.serial_number(2).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True
        )
        (folder / "own.pem").write_bytes(own.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM))
        (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "serial").write_text("01")
        (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
        self.asked: list[httpx2.Request] = []
        self.status = 200
        self.replies: list[bytes] = []
        """What it answers, before it makes replies of its own."""

    def reply(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        argv = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-section", "tsa", "-queryfile", "query", "-signer", "own.pem",
                "-inkey", "key.pem", "-out", "reply"]  # fmt: skip
        subprocess.run(argv, cwd=self.folder, check=True, capture_output=True, timeout=120)
        return (self.folder / "reply").read_bytes()

    async def __call__(self, asked: httpx2.Request) -> httpx2.Response:
        self.asked.append(asked)
        query = await asked.aread()
        reply = self.replies.pop(0) if self.replies else self.reply(query)
        return httpx2.Response(self.status, stream=httpx2.ByteStream(reply))


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
