"""Send messages of our own: releases, notices, DSNs (RFC 5321 section 3.3, RFC 1870, 6152, 6531, 3461).

There is one transaction a message, and one reply a recipient. Extensions that the relay does not offer are not used. A
message that cannot be sent without one is refused here, and not in the relay's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Answers, Body, Envelope, Fence, Lost, Recipient
from smtpguard.mail.message import Content, Message, in_crlf_lines
from smtpguard.mail.reply import Reply, Unsendable
from smtpguard.wire.data import pieces
from smtpguard.wire.grammar import mail_line, rcpt_line
from smtpguard.wire.pool import RelayPool
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.turnedaway import Why

WAIT_SECONDS = 60.0
"""The wait for a connection. A message that is not sent now is retried soon."""
SILENT_WAIT_SECONDS = 1.0
SILENT_SECONDS = 300.0
"""For SILENT_SECONDS after a relay has not greeted in time, other messages wait only SILENT_WAIT_SECONDS for it, since
messages for other relays wait behind them. A greeting may take that long (RFC 5321 section 4.5.3.2.1), and the pool goes
on waiting for it."""
NEEDS_8BITMIME = Unsendable.of(554, "5.6.3", "The message is 8-bit and the relay does not offer 8BITMIME")
NEEDS_SMTPUTF8 = Unsendable.of(553, "5.6.7", "The address needs SMTPUTF8, which the relay does not offer")
UTF8_HEADER = Unsendable.of(554, "5.6.9", "The header needs SMTPUTF8, which the relay does not offer")
BARE_LINE_END = Unsendable.of(554, "5.6.0", "Bare CR or LF in the message")
NUL_IN_MESSAGE = Unsendable.of(554, "5.6.0", "NUL in the message")


class Deliveries:
    """Delivers through a pool (guard.ports.Relay)."""

    def __init__(self, pool: RelayPool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._monotonic = pool, monotonic
        self._silent_until = 0.0

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        """Send a message. Return for each recipient its own refusal, or the reply to the message.

        Raises Lost (RelayUnavailable if no connection can be had) and Recalled. A connection lost before DATA, as an
        idle one may be, is replaced once, unless it has answered.
        """
        if not in_crlf_lines(content.raw):
            return _all(envelope, BARE_LINE_END)  # a lenient relay could see another message in it
        if content.raw.find(b"\0") >= 0:
            return _all(envelope, NUL_IN_MESSAGE)  # so could a relay that drops NUL, as some do
        for fresh in (False, True):
            connection = await self._acquire(fresh=fresh)
            try:
                try:
                    answers = await _open_transaction(connection, envelope, content, len(prepend))
                except Lost as lost:
                    if fresh or lost.heard:
                        raise
                    continue
                if not any(reply.positive for reply in answers.replies):
                    return answers
                final = await connection.data(stuff(prepend, content.raw), fence)
                return replace(answers, replies=[final if reply.positive else reply for reply in answers.replies])
            finally:
                self._pool.release(connection)
        raise AssertionError("the second attempt returns or raises")

    async def _acquire(self, *, fresh: bool) -> RelayConnection:
        silent = self._monotonic() < self._silent_until
        try:
            seconds = SILENT_WAIT_SECONDS if silent else WAIT_SECONDS
            connection = await self._pool.acquire(fresh=fresh, wait_seconds=seconds)
        except RelayUnavailable as unavailable:
            if unavailable.word is Why.RELAY_SLOW and not silent:
                self._silent_until = self._monotonic() + SILENT_SECONDS
            raise
        self._silent_until = 0.0
        return connection


async def _open_transaction(
    connection: RelayConnection, envelope: Envelope, content: Message, prepended: int
) -> Answers:
    """Send MAIL and every RCPT. Return the reply for each recipient so far."""
    offered = connection.extensions
    eight_bit = not _is_ascii(content.raw)
    if eight_bit and envelope.body is Body.EIGHTBITMIME and "8BITMIME" not in offered:
        return _all(envelope, NEEDS_8BITMIME)
    utf8 = "SMTPUTF8" in offered
    header_needs = envelope.smtputf8 and not _is_ascii(content.raw[: content.header.size_bytes])
    if not utf8 and header_needs:
        return _all(envelope, UTF8_HEADER)
    if not utf8 and not _sendable(envelope.reverse_path):
        return _all(envelope, NEEDS_SMTPUTF8)
    mail = _mail(envelope, offered, size_bytes=content.size_bytes + prepended, eight_bit=eight_bit)
    asked = [r for r in envelope.recipients if utf8 or _sendable(r.address)]
    lines = [mail_line(mail, offered), *(rcpt_line(_rcpt(r, offered), offered) for r in asked)]
    try:
        answered = await connection.pipeline(lines)
    except Lost as lost:
        of = {
            id(r): said for r, said in zip(asked, lost.heard[1:], strict=False) if said.code >= 400 and said.code != 421
        }
        lost.heard = [of.get(id(r), lost.reply) for r in envelope.recipients] if of else ()
        raise
    if not answered[0].positive:
        return _all(envelope, answered[0])
    of = dict(zip(map(id, asked), answered[1:], strict=True))
    return Answers(replies=[of.get(id(r), NEEDS_SMTPUTF8) for r in envelope.recipients], reports="DSN" in offered)


def _all(envelope: Envelope, reply: Reply) -> Answers:
    return Answers(replies=[reply] * len(envelope.recipients))


def _mail(envelope: Envelope, offered: Mapping[str, str], *, size_bytes: int, eight_bit: bool) -> Envelope:
    """Return the envelope for MAIL, without the parameters that the relay does not offer."""
    addresses = [a for a in (*envelope.addresses, envelope.reverse_path) if a is not None]
    return replace(
        envelope,
        reverse_path=_spelled(envelope.reverse_path, offered) if envelope.reverse_path is not None else None,
        size_bytes=size_bytes,
        body=Body.EIGHTBITMIME if eight_bit and "8BITMIME" in offered else None,
        smtputf8="SMTPUTF8" in offered and (envelope.smtputf8 or not all(a.is_ascii for a in addresses)),
        ret=_word(envelope.ret, offered),
        envid=_word(envelope.envid, offered),
        auth=None,
    )


def _rcpt(recipient: Recipient, offered: Mapping[str, str]) -> Recipient:
    """Return the recipient for RCPT, without the parameters that the relay does not offer."""
    return Recipient(
        address=_spelled(recipient.address, offered),
        notify=_word(recipient.notify, offered),
        orcpt=_word(recipient.orcpt, offered),
    )


def stuff(*contents: Content) -> Iterator[bytes]:
    """Yield the contents as one, dot-stuffed (RFC 5321 section 4.5.2), in pieces; a CRLF at the end if there is none."""
    tail = b"\r\n"
    for content in contents:
        for piece in pieces(content):
            yield (tail + piece).replace(b"\r\n.", b"\r\n..")[len(tail) :]
            tail = (tail + piece)[-2:]
    if tail != b"\r\n":
        yield b"\n" if tail.endswith(b"\r") else b"\r\n"


def _word(parameter: str | None, offered: Mapping[str, str]) -> str | None:
    """Return a parameter of DSN, None if the relay does not offer DSN. Raises ValueError if it is more than one word."""
    if not parameter or "DSN" not in offered:
        return None
    if not parameter.isprintable() or " " in parameter:
        raise ValueError("a parameter is one word")
    return parameter


def _spelled(address: Address, offered: Mapping[str, str]) -> Address:
    return address if address.is_ascii or "SMTPUTF8" in offered else Address(address.local, address.ascii_domain)


def _sendable(address: Address | None) -> bool:
    """Return whether an address can be sent without SMTPUTF8: a domain has A-labels, a local part has none (RFC 6531
    section 3.2)."""
    return address is None or address.local.isascii()


def _is_ascii(content: Content) -> bool:
    return all(piece.isascii() for piece in pieces(content))
