"""DKIM: verify which domains signed a message, and sign our own notices and DSNs (RFC 6376, RFC 8301, RFC 8463).

dkimpy checks a signature over the header. What must be stricter, or linear in time and size, is done here: which
signatures count at all, the hash of the body, and the keys. Keys are looked up in the event loop, signatures checked in
a thread; both within bounds, since anybody can write a signature header and publish a key. A key that could not be
looked up gives "unknown", never "no".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dkim
import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
from dkim.crypto import UnparsableKeyError, parse_pem_private_key
from dkim.util import InvalidTagValueList, parse_tag_value

from smtpguard.mail.fields import DkimResult, Signature
from smtpguard.mail.message import Header, Message
from smtpguard.policy.facts import Unknown

MAX_SIGNATURES = 8
MAX_SIGNATURE_OCTETS = 4096
MAX_SIGNED_FIELDS = 200
MAX_FIELDS = 1000
MAX_KEY_OCTETS = 2048  # RSA of 8192 bits; its arithmetic is Python's
ALGORITHMS: Mapping[bytes, bytes] = {b"rsa-sha256": b"rsa", b"ed25519-sha256": b"ed25519"}
"""Each with its type of key (RFC 8301: no sha1; RFC 8463)."""

_SILENT = logging.Logger("dkim", logging.CRITICAL + 1)  # dkimpy would log whole signatures

Lookup = Callable[[str], Awaitable[bytes | None]]
"""The TXT record at a name, None if there is none. Raises Unresolved."""


class Unresolved(Exception):
    """The resolver gave no answer."""


class _Fails(Exception):
    """A signature that does not count, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signature:
    """One DKIM-Signature that may count. ``number``: its index among all of them."""

    number: int
    domain: str
    key_name: str
    fields: Mapping[bytes, bytes] = field(repr=False)


class DkimVerifier:
    """Implements guard.ports.Verifier. ``pinned``: name of a key, ``selector._domainkey.domain``, to its TXT record."""

    def __init__(
        self,
        lookup: Lookup | None = None,
        *,
        pinned: Mapping[str, str] | None = None,
        seconds: float = 10,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._lookup = lookup or Resolver().txt
        self._pinned = {name.lower().rstrip("."): record.encode() for name, record in (pinned or {}).items()}
        self._seconds = seconds
        self._now = now
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="dkim")

    async def origin(self, message: Message) -> DkimResult | Unknown:
        """Every domain whose signature verifies. Never raises."""
        header = message.header
        if "DKIM-Signature" not in header:
            return DkimResult()
        if header.broken or len(header.fields) > MAX_FIELDS or len(header.all("From")) != 1:
            # the signed fields and the displayed ones may differ
            return DkimResult(failed=(("", "the header is ambiguous, or has not exactly one From"),))
        signatures, failed = _candidates(header, self._now())
        deadline = time.monotonic() + self._seconds
        keys, unresolved = await self._keys({s.key_name for s in signatures})
        ready = [s for s in signatures if s.key_name in keys]
        waiting = frozenset(s.domain for s in signatures if s.key_name in unresolved)
        if ready:
            loop = asyncio.get_running_loop()
            body = bytes(message.raw[header.size_bytes :]).removeprefix(b"\r\n\r\n")
            check = loop.run_in_executor(self._threads, _check, header, body, ready, keys, deadline)
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                    good, more = await check
            except TimeoutError:
                return Unknown(why=f"the DKIM signatures took longer than {self._seconds:g} s")
            failed += more
        else:
            good = ()
        verified = frozenset(one.domain for one in good)
        if waiting and not verified:
            return Unknown(why="DKIM keys could not be looked up: " + ", ".join(sorted(waiting)))
        return DkimResult(domains=verified, failed=tuple(failed), unresolved=waiting - verified, signatures=good)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _keys(self, names: Iterable[str]) -> tuple[dict[str, bytes | None], set[str]]:
        """The records, and the names that could not be looked up within half the time."""
        keys: dict[str, bytes | None] = {}
        asked: dict[str, asyncio.Task[bytes | None]] = {}
        for name in names:
            if name in self._pinned:
                keys[name] = self._pinned[name]
            else:
                asked[name] = asyncio.ensure_future(self._lookup(name))
        try:
            if asked:
                await asyncio.wait(asked.values(), timeout=self._seconds / 2)
        finally:
            for task in asked.values():
                task.cancel()
            await asyncio.gather(*asked.values(), return_exceptions=True)
        for name, task in asked.items():
            if not task.cancelled() and task.exception() is None:
                keys[name] = task.result()
        return keys, asked.keys() - keys.keys()


class Resolver:
    """TXT records by the system's resolver, with a cache of its own."""

    def __init__(self, resolver: dns.asyncresolver.Resolver | None = None, *, seconds: float = 5) -> None:
        self._given = resolver
        self._systems: dns.asyncresolver.Resolver | None = None
        self._cache = dns.resolver.LRUCache(1000)
        self._seconds = seconds

    async def txt(self, name: str) -> bytes | None:
        """Raises Unresolved."""
        try:
            dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            return None  # such a name cannot exist
        try:
            resolver = self._given or self._systems
            if resolver is None:
                resolver = self._systems = dns.asyncresolver.Resolver()
                resolver.cache = self._cache
            answer = await resolver.resolve(name + ".", dns.rdatatype.TXT, lifetime=self._seconds)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None
        except (dns.exception.DNSException, OSError) as error:
            self._systems = None  # the system may name other servers by now
            raise Unresolved(type(error).__name__) from error
        return b"".join(answer[0].strings)


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimSigner:
    """Signs our own mail. ``key`` is an RSA key in PEM, and never shown. Raises ValueError for any other."""

    domain: str
    selector: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        try:
            parse_pem_private_key(self.key)
        except (UnparsableKeyError, ValueError, IndexError, KeyError, TypeError):
            raise ValueError("not an RSA private key in PEM") from None

    def sign(self, message: bytes) -> bytes:
        """The DKIM-Signature field with its CRLF, to be prepended. From, To, Subject and Date cannot be added a second time."""
        signer = dkim.DKIM(message, logger=_SILENT)
        signer.should_sign |= {b"auto-submitted"}
        signer.add_frozen((b"to", b"subject", b"date", b"message-id", b"reply-to"))
        signature: bytes = signer.sign(
            self.selector.encode("ascii"),
            self.domain.encode("ascii"),
            self.key,
            canonicalize=(b"relaxed", b"relaxed"),
        )
        return signature


def _candidates(header: Header, now: float) -> tuple[list[_Signature], list[tuple[str, str]]]:
    """Signatures worth a look-up of their key, and those that cannot count with any key."""
    found: list[_Signature] = []
    failed: list[tuple[str, str]] = []
    for number, raw in enumerate(f.raw for f in header.all("DKIM-Signature")):
        domain = ""
        try:
            if number >= MAX_SIGNATURES:
                raise _Fails("one signature too many")
            if len(raw) > MAX_SIGNATURE_OCTETS:
                raise _Fails("the signature is too long")
            fields = parse_tag_value(raw)
            domain = fields[b"d"].decode("ascii").lower().rstrip(".")
            selector = fields[b"s"].decode("ascii").lower()
            _must_count(fields, header, now)
            found.append(
                _Signature(number=number, domain=domain, key_name=f"{selector}._domainkey.{domain}", fields=fields)
            )
        except _Fails as why:
            failed.append((domain, str(why)))
        except (InvalidTagValueList, KeyError, ValueError):
            failed.append((domain, "not a DKIM signature"))
    return found, failed


def _must_count(fields: Mapping[bytes, bytes], header: Header, now: float) -> None:
    if fields[b"a"] not in ALGORITHMS:
        raise _Fails("an algorithm that is not accepted")
    signed = [name.strip().lower() for name in fields[b"h"].split(b":")]
    if b"from" not in signed:
        raise _Fails("From is not signed")
    if b"subject" not in signed and "Subject" in header:
        raise _Fails("Subject is not signed")  # any recipient of a mailing could resend it with a Subject of their own
    if len(signed) > MAX_SIGNED_FIELDS:
        raise _Fails("too many fields are signed")
    if b"x" in fields and int(fields[b"x"]) < now:
        raise _Fails("the signature has expired")


def _check(
    header: Header,
    content: bytes,
    signatures: Iterable[_Signature],
    keys: Mapping[str, bytes | None],
    deadline: float,
) -> tuple[tuple[Signature, ...], list[tuple[str, str]]]:
    """Runs in a thread. Total: any signature and key verifies or fails."""
    body = _Body(content)
    verified: list[Signature] = []
    failed: list[tuple[str, str]] = []
    for signature in signatures:
        try:
            if time.monotonic() > deadline:
                raise _Fails("no time left")
            key = keys[signature.key_name]
            if key is None:
                raise _Fails("no key at that name")
            _key_must_count(key, signature)
            body.must_match(signature.fields)
            if not _header_verifies(header, signature, key):
                raise _Fails("the signature does not match the header or the key")
            verified.append(_as_signature(signature))
        except _Fails as why:
            failed.append((signature.domain, str(why)))
        except Exception as error:  # dkimpy raises many kinds of errors on malformed input
            failed.append((signature.domain, f"not a DKIM signature or key ({type(error).__name__})"))
    return tuple(verified), failed


def _as_signature(signature: _Signature) -> Signature:
    fields = signature.fields
    signed = frozenset(name.strip().lower().decode("ascii", "replace") for name in fields[b"h"].split(b":"))
    made = fields.get(b"t", b"").strip()
    at = datetime.fromtimestamp(int(made), UTC) if made.isdigit() and len(made) < 12 else None
    return Signature(domain=signature.domain, fields=signed, at=at, limited=b"l" in fields)


def _key_must_count(key: bytes, signature: _Signature) -> None:
    if len(key) > MAX_KEY_OCTETS:
        raise _Fails("the key record is too long")
    record = parse_tag_value(key)
    if not record.get(b"p"):
        raise _Fails("the key was revoked")
    if record.get(b"k", b"rsa") != ALGORITHMS[signature.fields[b"a"]]:  # dkimpy goes by the key alone
        raise _Fails("the key is of another type than the signature")
    flags = [flag.strip() for flag in record.get(b"t", b"").split(b":")]
    if b"y" in flags:
        raise _Fails("the domain is only testing DKIM")
    identity = signature.fields.get(b"i", b"").rpartition(b"@")[2].decode("ascii").lower()
    if b"s" in flags and identity not in ("", signature.domain):
        raise _Fails("the key does not sign for subdomains")
    if b"h" in record and b"sha256" not in [h.strip() for h in record[b"h"].split(b":")]:
        raise _Fails("the key does not sign with SHA-256")


def _header_verifies(header: Header, signature: _Signature, key: bytes) -> bool:
    verifier: Any = dkim.DKIM(logger=_SILENT)
    verifier.headers = [[f.name.encode("ascii"), f.raw + b"\r\n"] for f in header.fields]
    fields, include, all_signatures = verifier.verify_headerprep(signature.number)
    del fields[b"bh"]  # the body was checked, in linear time
    return bool(verifier.verify_sig(fields, include, all_signatures[signature.number], lambda name, timeout: key))


class _Body:
    """The body in both canonical forms (RFC 6376 section 3.4), each computed once, without dkimpy's quadratic patterns."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._hashed: dict[bytes, tuple[bytes, int]] = {}

    def must_match(self, fields: Mapping[bytes, bytes]) -> None:
        form = fields.get(b"c", b"simple").partition(b"/")[2] or b"simple"
        if form not in self._hashed:
            canonical = canonical_body(self._raw, relaxed=form == b"relaxed")
            self._hashed[form] = hashlib.sha256(canonical).digest(), len(canonical)
        digest, size = self._hashed[form]
        if b"l" in fields and int(fields[b"l"]) != size:
            raise _Fails("l= leaves a part of the body unsigned")
        if base64.b64decode(re.sub(rb"\s+", b"", fields[b"bh"])) != digest:
            raise _Fails("the body was changed")


def canonical_body(body: bytes, *, relaxed: bool) -> bytes:
    """RFC 6376 sections 3.4.3 and 3.4.4, of CRLF lines, in linear time."""
    if relaxed:
        body = body.replace(b"\t", b" ")
        while b"  " in body:
            body = body.replace(b"  ", b" ")
        body = body.replace(b" \r\n", b"\r\n")
    body = body.rstrip(b"\r\n")
    if not body:
        return b"" if relaxed else b"\r\n"
    return body + b"\r\n"
