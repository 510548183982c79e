"""Time stamps of an authority over signed checkpoints (RFC 3161): make requests, and check replies."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from smtpguard.journal.checkpoint import read

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MISSING = "audit: {timestamps} needs rfc3161-client: pip install smtpguard[timestamps]"
APART = timedelta(minutes=5)
"""The greatest difference between this host's clock and the authority's that is not logged."""
_SHA256 = "2.16.840.1.101.3.4.2.1"
_STATUS = {2: "rejected", 3: "waiting", 4: "a revocation is imminent", 5: "revoked"}
"""PKIStatus (RFC 3161 section 2.4.2)."""


class Unproven(Exception):
    """A time stamp proves nothing; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for a time stamp. ``octets``: a TimeStampReq (RFC 3161 section 2.4.1) over the SHA-256 of a whole note, with its
    signatures."""

    octets: bytes
    nonce: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timestamp:
    """A time stamp. ``reply``: the authority's whole TimeStampResp over ``note``, the checkpoint of entry ``seq``."""

    seq: int
    note: str
    nonce: int
    reply: bytes

    def line(self) -> str:
        """Return its line of the file, without the line end."""
        reply = b64encode(self.reply).decode()
        return json.dumps({"seq": self.seq, "note": self.note, "nonce": f"{self.nonce:x}", "reply": reply})

    @classmethod
    def parse(cls, line: str) -> Timestamp:
        """Return the time stamp of a line. Raises Unproven."""
        try:
            fields = json.loads(line)
            note, reply = str(fields["note"]), b64decode(fields["reply"], validate=True)
            made = cls(seq=read(note).seq, note=note, nonce=int(fields["nonce"], 16), reply=reply)
        except (KeyError, TypeError, ValueError):
            raise Unproven("the line cannot be read") from None
        return made


def request(note: str) -> Request:
    """Make a request for a note. Raises ImportError without the extra."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    builder = TimestampRequestBuilder().data(note.encode()).hash_algorithm(HashAlgorithm.SHA256)
    made = builder.nonce(nonce=True).cert_request(cert_request=True).build()
    assert made.nonce is not None
    return Request(octets=made.as_bytes(), nonce=made.nonce)


def stamped_at(one: Timestamp, roots: Sequence[Certificate]) -> datetime:
    """Return when the authority had the note. The reply must be granted, be for this note and this nonce, and be signed by a
    certificate for time stamps that was valid then and leads to one of ``roots``. Raises Unproven, and ImportError without
    the extra."""
    from rfc3161_client import VerifierBuilder, decode_timestamp_response
    from rfc3161_client.errors import VerificationError

    try:
        reply = decode_timestamp_response(one.reply)
        status = int(reply.status)
    except ValueError as error:
        raise Unproven(f"the reply cannot be read: {str(error)[:200]}") from None
    if status not in (0, 1):
        why = "".join(reply.status_string or ())
        raise Unproven(f"{_STATUS.get(status, f'status {status}')}{f': {why[:200]}' if why else ''}")
    try:
        said = reply.tst_info
        if said.message_imprint.hash_algorithm.dotted_string != _SHA256:
            raise Unproven("the time stamp is not over SHA-256")
        if said.message_imprint.message != hashlib.sha256(one.note.encode()).digest():
            raise Unproven("the time stamp is over something else")
        if said.nonce != one.nonce:
            raise Unproven("the reply has another nonce: it may answer an earlier request")
        builder = VerifierBuilder(nonce=one.nonce)
        for root in dict.fromkeys(roots):
            builder = builder.add_root_certificate(root)
        builder.build().verify_message(reply, one.note.encode())
    except (VerificationError, ValueError) as error:
        raise Unproven(
            f"not signed under a certificate of ca_file that was valid at its time: {str(error)[:200]}"
        ) from None
    at: datetime = said.gen_time
    return at


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """The result of ``checked``. ``notes``: those with a valid time stamp. ``latest``: the last entry that a valid time stamp covers, and the time of that. ``bad``:
    entry and problem of each invalid one; entry 0 for a line that cannot be read."""

    notes: tuple[str, ...] = ()
    latest: tuple[int, datetime] | None = None
    bad: tuple[tuple[int, str], ...] = ()


def checked(lines: Iterable[str], roots: Sequence[Certificate]) -> Stamped:
    """Check all time stamps of a file. Raises ImportError without the extra."""
    notes: list[str] = []
    bad: list[tuple[int, str]] = []
    latest: tuple[int, datetime] | None = None
    for line in lines:
        seq = 0
        try:
            one = Timestamp.parse(line)
            seq = one.seq
            at = stamped_at(one, roots)
        except Unproven as problem:
            bad.append((seq, str(problem)))
            continue
        notes.append(one.note)
        latest = max(latest or (seq, at), (seq, at))
    return Stamped(notes=tuple(notes), latest=latest, bad=tuple(bad))
