"""Delivery status notifications: the outcome of a released message, sent to its reverse-path. Pure.

They follow RFC 3464 (the report), RFC 3461 (what the sender asked for: NOTIFY, RET, ENVID, ORCPT), RFC 3462
(multipart/report), RFC 3463 (status codes) and RFC 6533 (addresses beyond ASCII), and are always sent with a null
reverse-path.
"""

from __future__ import annotations

import enum
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from smtpguard.locale.phrase import N_, filled
from smtpguard.locale.speech import Speech
from smtpguard.mail import compose
from smtpguard.mail.compose import Part
from smtpguard.mail.envelope import Body, Envelope, Recipient
from smtpguard.mail.message import Message
from smtpguard.mail.xtext import XTEXT, decode_xtext
from smtpguard.notices.notice import LOOP_FIELD, NoticeHead

MAX_RETURNED_OCTETS = 10 << 20
"""The size above which only the header of a message is returned, whatever RET says."""
_ORDER = ("failed", "doubted", "delayed", "relayed")
_ENHANCED = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_CODE = re.compile(r"[245]\d\d")
_TYPED = re.compile(r"([A-Za-z0-9\-]{1,20});(.*)\Z", re.S)


class Action(enum.Enum):
    """The result for one recipient (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"  # to a relay that sends no DSN of success itself

    def wanted_by(self, recipient: Recipient) -> bool:
        """Return whether the sender wants to be told (RFC 3461 section 4.1): without NOTIFY, of failures and delays."""
        if recipient.notify is None:
            return self is not Action.RELAYED
        return _NOTIFY[self] in recipient.notify.upper().split(",")


_STATUS_OF_WHY = {"expired": "4.4.7", "in-doubt": "4.4.2", "unsendable": "5.3.0", "missing": "5.3.0"}
_STATUS_OF_ACTION = {Action.FAILED: "5.0.0", Action.DELAYED: "4.0.0", Action.RELAYED: "2.0.0"}
_NOTIFY = {Action.FAILED: "FAILURE", Action.DELAYED: "DELAY", Action.RELAYED: "SUCCESS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result for one recipient. ``reply``: the relay's, with its code, "" if there was none. ``at``: the last
    attempt.

    ``given_status``: an enhanced code that is more precise than the reply's. ``why``: refused, expired, in-doubt,
    unsendable (no reply: the relay was not asked) or missing (the content is no longer stored).
    """

    recipient: Recipient
    action: Action
    reply: str = ""
    given_status: str = ""
    why: str = ""
    at: datetime | None = None

    @property
    def status(self) -> str:
        """The given code, else the enhanced code of the reply, else one of its class (RFC 3463)."""
        if _ENHANCED.fullmatch(self.given_status):
            return self.given_status
        if found := _ENHANCED.search(self.reply[:60]):
            return found[1]
        if found := _CODE.match(self.reply):
            return f"{found[0][0]}.0.0"
        return _STATUS_OF_WHY.get(self.why) or _STATUS_OF_ACTION[self.action]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """One notification. ``envelope`` is the original's; its reverse-path must not be null (RFC 3461 section 5.2.3).

    ``id`` is the intent's. ``original``: None if the content is erased. ``part``: it is about the colleagues' part of a
    message whose other part is held.
    """

    id: str
    envelope: Envelope
    reports: tuple[Report, ...]
    original: Message | None
    arrived_at: datetime
    at: datetime
    reporting_mta: str
    hold_id: str
    language: str
    retry_until: datetime | None
    subject: str = ""
    part: bool = False


def render(dsn: Dsn, head: NoticeHead, *, seven_bit: bool = False) -> tuple[Envelope, bytes]:
    """Return the envelope and the content of a notification. Raises ValueError for a null reverse-path.

    ``seven_bit``: for a relay without 8BITMIME or SMTPUTF8 (RFC 6522 section 4, RFC 6533 sections 3 and 4): addresses
    are in their 7-bit form, the original's header is encoded, and there is no 8-bit body. Then only a local part of
    ours or the sender's can still need SMTPUTF8, and such a sender cannot be reached without it.
    """
    sender = dsn.envelope.reverse_path
    if sender is None:
        raise ValueError("a null reverse-path gets no DSN")
    name, address = compose.mailbox_of(head.sender)
    wide = dsn.envelope.smtputf8 and not seven_bit
    said = Speech(dsn.language, head.zone)
    says = {key: said(text) for key, text in _WORDS.items()}
    if dsn.retry_until is not None:
        says["delayed"] = said(_UNTIL, time=said.whole(dsn.retry_until))
    parts = [compose.text_part("plain", _explanation(dsn, head, says)), _status_part(dsn, wide)]
    if dsn.original is not None:
        parts.append(_returned_part(dsn, dsn.original, seven_bit=seven_bit))
    content_type, body = compose.multipart(
        "multipart/report; report-type=delivery-status", parts, preamble="This is a delivery status notification."
    )
    first = min(map(_outcome_of, dsn.reports), key=_ORDER.index)
    subject = compose.one_line(dsn.subject)
    thread = compose.message_ids(dsn.original.header.get("Message-ID") or "") if dsn.original else ""
    raw = compose.message(
        (
            ("From", compose.mailbox_field(address, name)),
            ("To", compose.mailbox_field(sender)),
            ("Subject", compose.unstructured(": ".join(filter(None, (says[f"subject {first}"], subject))))),
            ("Date", format_datetime(dsn.at)),
            ("Message-ID", compose.message_id(dsn.id, "dsn", address)),
            ("In-Reply-To", thread),
            ("References", thread),
            ("Auto-Submitted", "auto-replied"),
            ("X-Auto-Response-Suppress", "All"),
            (LOOP_FIELD, "dsn"),
        ),
        content_type,
        body,
    )
    header, _, content = raw.partition(b"\r\n\r\n")
    envelope = Envelope(
        reverse_path=None,
        recipients=(Recipient(address=sender, notify="NEVER"),),
        smtputf8=not header.isascii() or (wide and not content.isascii()),
        body=None if raw.isascii() else Body.EIGHTBITMIME,
    )
    return envelope, raw


def _status_part(dsn: Dsn, wide: bool) -> Part:
    """Return the part for machines: fields of the message, and a block of fields for each recipient."""
    blocks = [
        [
            ("Original-Envelope-Id", _from_xtext(dsn.envelope.envid or "")),
            ("Reporting-MTA", f"dns; {dsn.reporting_mta}"),
            ("Arrival-Date", format_datetime(dsn.arrived_at)),
        ]
    ]
    for report in dsn.reports:
        block = [
            ("Original-Recipient", _original(report.recipient.orcpt, wide)),
            ("Final-Recipient", _typed(str(report.recipient.address), wide)),
            ("Action", report.action.value),
            ("Status", report.status),
            ("Diagnostic-Code", f"smtp; {_ascii(report.reply)}" if _CODE.match(report.reply) else ""),
            ("Last-Attempt-Date", format_datetime(report.at) if report.at else ""),
        ]
        if report.action is Action.DELAYED and dsn.retry_until is not None:
            block.append(("Will-Retry-Until", format_datetime(dsn.retry_until)))
        blocks.append(block)
    text = "\r\n".join("".join(f"{name}: {value}\r\n" for name, value in block if value) for block in blocks)
    if text.isascii():
        return Part((("Content-Type", "message/delivery-status"),), text.encode())
    fields = (("Content-Type", "message/global-delivery-status"), ("Content-Transfer-Encoding", "8bit"))
    return Part(fields, text.encode())


def _returned_part(dsn: Dsn, original: Message, *, seven_bit: bool) -> Part:
    """Return the part with the message or its header: for a failure the whole message if it was asked for (RFC 3461
    section 4.3), else the header. A whole message is never encoded (RFC 2046 section 5.2.1), a header may be."""
    failed = any(r.action is Action.FAILED for r in dsn.reports)
    whole = failed and (dsn.envelope.ret or "").upper() == "FULL" and original.size_bytes <= MAX_RETURNED_OCTETS
    whole = whole and not (seven_bit and not original.raw[:].isascii())
    header = original.raw[: original.header.size_bytes]
    content = original.raw[:] if whole else header + b"\r\n"
    wide = dsn.envelope.smtputf8 and not header.isascii()
    kind = ("message/global" if wide else "message/rfc822") if whole else (
        "message/global-headers" if wide else "text/rfc822-headers"
    )  # fmt: skip
    fields = [("Content-Type", kind), ("Content-Disposition", "attachment")]
    if content.isascii():
        return Part(tuple(fields), content)
    if whole or (wide and not seven_bit):
        return Part((*fields, ("Content-Transfer-Encoding", "8bit")), content)
    return Part((*fields, ("Content-Transfer-Encoding", "quoted-printable")), compose.quoted_printable(content))


def _original(orcpt: str | None, wide: bool) -> str:
    """Return Original-Recipient from ORCPT (RFC 3461 section 4.2): the same type, and the address decoded; "" if it is
    malformed."""
    found = _TYPED.match(orcpt or "")
    if not found:
        return ""
    unencoded = found[1].lower() == "utf-8"  # RFC 6533 section 3: no xtext
    address = (found[2] if wide else _seven_bit(found[2])) if unencoded else _from_xtext(found[2])
    return f"{found[1]};{address}" if address and address.isprintable() and len(address) <= 500 else ""


def _typed(address: str, wide: bool) -> str:
    """Return an address with its type (RFC 3464 section 2.3.2, RFC 6533 section 3)."""
    if address.isascii():
        return f"rfc822; {address}"
    return "utf-8; " + (address if wide else _seven_bit(address, signs="\\+="))


def _seven_bit(address: str, signs: str = "") -> str:
    """Return an address in the 7-bit form of RFC 6533 section 3. ``signs``: the ASCII characters that are encoded
    too."""
    return "".join(c if c.isascii() and c not in signs else f"\\x{{{ord(c):X}}}" for c in address)


def _from_xtext(text: str) -> str:
    """Decode xtext (RFC 3461 section 4). Returns "" if it is malformed, or has characters that a field must not
    have."""
    octets = text.encode("utf-8", "surrogatepass")
    decoded = decode_xtext(octets) if XTEXT.match(octets) else ""
    return decoded if decoded.isascii() and decoded.isprintable() else ""


def _ascii(reply: str) -> str:
    """Return a reply as the value of a field, folded so that no line is too long."""
    text = compose.one_line(reply, 900).encode("ascii", "replace").decode()
    return "\r\n ".join(textwrap.wrap(text, 70, break_long_words=False, break_on_hyphens=False))


def _outcome_of(report: Report) -> str:
    """Return the outcome that people read. Programs read "failed" also of what is in doubt."""
    return "doubted" if report.why == "in-doubt" else report.action.value


def _explanation(dsn: Dsn, head: NoticeHead, says: Mapping[str, str]) -> str:
    opening = says["opening part" if dsn.part else "opening"]
    lines = [filled(opening, {"organization": head.organization or dsn.reporting_mta}), ""]
    for said in _ORDER:
        reports = [r for r in dsn.reports if _outcome_of(r) == said]
        if not reports:
            continue
        lines += [says[said], ""]
        for report in reports:
            lines.append(f"  {compose.shown_address(str(report.recipient.address))}")
            if report.why in _STATUS_OF_WHY:
                lines.append(f"    {says.get(report.given_status) or says[report.why]}")
            elif report.reply and report.action is not Action.RELAYED:
                lines.append(f"    {says['answer']} {compose.one_line(report.reply, 400)}")
        lines.append("")
    if dsn.subject:
        lines.append(f"{says['subject']}: {compose.one_line(dsn.subject)}")
    if dsn.hold_id:
        lines.append(f"{says['reference']}: {dsn.hold_id}")
    if head.contact:
        lines.append(f"{says['questions']}: {compose.one_line(head.contact)}")
    return "\n".join(lines).strip() + "\n"


_UNTIL = N_("We go on trying until {time}, so you need not send it again. It could not be delivered yet to:")
_WORDS: Mapping[str, str] = {
    "subject failed": N_("Not delivered"),
    "subject delayed": N_("Delivery is delayed"),
    "subject doubted": N_("Perhaps not delivered"),
    "subject relayed": N_("Sent on"),
    "opening": N_("This is the mail guard of {organization}. A message of yours was held, and then released."),
    "opening part": N_(
        "This is the mail guard of {organization}. A part of a message of yours was held. What goes to colleagues was not."
    ),
    "failed": N_("It could not be delivered to:"),
    "delayed": N_("It could not be delivered yet, and we go on trying, to:"),
    "doubted": N_("It is not known whether this was delivered to:"),
    "relayed": N_("It was sent on, and no further report is to be expected, to:"),
    "expired": N_("It was tried for as long as it is sensible to try."),
    "in-doubt": N_(
        "The connection broke as it was handed over: it may have arrived all the same. Ask before you send it again."
    ),
    "unsendable": N_("It cannot be sent to the next mail server as it is."),
    "5.6.3": N_("The next mail server takes no 8-bit text, and the message is written in it."),
    "5.6.7": N_("The next mail server takes no address with letters other than a to z before the @."),
    "5.6.9": N_(
        "The next mail server takes no headers in UTF-8 (SMTPUTF8), which addresses with letters other than a to z need."
    ),
    "missing": N_("The mail guard no longer has it as you wrote it, and so did not send it. Please send it again."),
    "answer": N_("The receiving server said:"),
    "subject": N_("Subject"),
    "reference": N_("Reference"),
    "questions": N_("Questions"),
}
