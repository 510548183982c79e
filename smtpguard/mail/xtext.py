"""xtext (RFC 3461 section 4): printable ASCII, and other octets as ``+`` with two hexadecimal digits."""

from __future__ import annotations

import re

MAX_ENVID = 100
"""The most octets of an envelope id (RFC 3461 section 4.4)."""
XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+\Z")
_HEX = re.compile(rb"\+([0-9A-F]{2})")
_PLAIN = re.compile(r"[!-*,-<>-~]*")


def decode_xtext(xtext: bytes) -> str:
    return _HEX.sub(lambda m: bytes([int(m[1], 16)]), xtext).decode("utf-8", "replace")


def encode_xtext(text: str, most: int) -> bytes:
    """Encode a text, truncated to this number of octets."""
    if len(text) <= most and _PLAIN.fullmatch(text):
        return text.encode()
    coded = b""
    for octet in text.encode("utf-8", "replace"):
        word = b"%c" % octet if 33 <= octet <= 126 and octet not in b"+=" else b"+%02X" % octet
        if len(coded) + len(word) > most:
            break
        coded += word
    return coded
