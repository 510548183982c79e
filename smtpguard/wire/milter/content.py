"""Assemble a message from what the MTA passes to a milter: header fields, then the body in pieces (RFC 5322 section
2.1).

The MTA passes header fields without CRLF, and content without dot-stuffing. The result has CRLF line ends, as the
proxy's content has; it is checked and spooled in the same way (wire.data).
"""

from __future__ import annotations

from pathlib import Path

from smtpguard.mail import reply
from smtpguard.wire.data import Arriving
from smtpguard.wire.listener import Limits

_FIELD_OVERHEAD = 64
"""Octets that a field counts beside its own: ten thousand empty ones use memory too."""


class Assembling(Arriving):
    """Call ``field`` for each, ``end_of_header``, ``body`` for each piece, ``unload`` while ``heavy``; then ``whole``."""

    def __init__(self, limits: Limits, spool: Path) -> None:
        super().__init__(limits, spool)
        self._tail, self._lead = b"", 0
        self._fields: list[bytes] = []
        self._header = 0

    def field(self, name: bytes, value: bytes) -> None:
        """``value``: everything after the colon; its folds have LF or CRLF."""
        if self.refusal is not None:
            return
        self._header += len(name) + len(value) + _FIELD_OVERHEAD
        if self._header > self._limits.header_octets + self._limits.header_lines * _FIELD_OVERHEAD:
            self._refuse(reply.HEADER_TOO_BIG)
            return
        if b"\n" in value:
            value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._fields.append(b"%b:%b\r\n" % (name, value))

    def end_of_header(self) -> None:
        self._fields.append(b"\r\n")
        fields, self._fields = self._fields, []
        self._take(b"".join(fields))

    def body(self, piece: bytes) -> None:
        data = self._tail + piece
        cut = len(data) - data.endswith(b"\r")  # never split a CRLF
        self._tail = data[cut:]
        self._take(data[:cut])

    def whole(self) -> None:
        """The end. A last line without an end gets one, as over SMTP."""
        if self._tail or self._line:
            self._tail = b""
            self._take(b"\r\n")

    def close(self) -> None:
        self._fields, self._tail = [], b""
        super().close()

    def _stuffing(self, piece: bytes) -> int:
        return 0
