"""SHA-256 beside other threads. For 2 KB and more hashlib lets go of the interpreter's lock, and then waits for it until
another thread gives it back; that takes longer than to hash some ten KB."""

from __future__ import annotations

import hashlib
import mmap

_PIECE = 2047
_MOST = 32 << 10  # from here on the pieces take longer than the wait


def sha256(octets: bytes | mmap.mmap) -> hashlib._Hash:
    if len(octets) > _MOST:
        return hashlib.sha256(octets)
    digest = hashlib.sha256(octets[:_PIECE])
    for start in range(_PIECE, len(octets), _PIECE):
        digest.update(octets[start : start + _PIECE])
    return digest
