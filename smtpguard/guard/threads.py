"""Under which keys a reply's conversation is counted, from what was read of it and whom it is for.

Programs differ in what they keep of a conversation, so a reply is counted under each name that it gives it, and the largest
count is the conversation's. Its subject is a name only among replies to the same list's address, and only if it is long
enough to be one.
"""

from __future__ import annotations

from smtpguard.lists.recipients import Classified
from smtpguard.mail.transaction import Transaction
from smtpguard.policy.facts import Unknown
from smtpguard.reading.looks import Reading
from smtpguard.reading.prefixes import bare

SUBJECT = 12  # characters that a subject has at least to name a conversation


def threads_of(reading: Reading | Unknown | None, counted: Classified) -> tuple[str, ...]:
    """None of what is no reply, as far as its header says."""
    if not isinstance(reading, Reading) or not reading.answers:
        return ()
    names = [reading.thread, f"number {reading.conversation}" if reading.conversation else ""]
    subject = " ".join(bare(reading.subject).lower().split())
    if counted.addressed and len(subject) >= SUBJECT:
        names.append(f"subject {' '.join(counted.addressed)} {subject[:200]}")
    return tuple(dict.fromkeys(filter(None, names)))


def reply_of(reading: Reading | Unknown | None, transaction: Transaction) -> str:
    """What one reply is known by, in however many envelopes it comes; "" of what is none."""
    if not isinstance(reading, Reading) or not reading.answers:
        return ""
    return reading.message_id or transaction.message.sha256
