"""The digest is the same in pieces."""

from __future__ import annotations

import hashlib

from smtpguard.mail.constant import sha256


def test_the_digest_is_that_of_all_octets() -> None:
    for size in (0, 1, 2046, 2047, 2048, 4094, 10_000, 32 << 10, 32769, 100_000):
        octets = bytes(n % 251 for n in range(size))
        assert sha256(octets).digest() == hashlib.sha256(octets).digest()
