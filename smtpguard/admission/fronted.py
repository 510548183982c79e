"""Which verdicts are recorded in the journal's front instead of by an admission.

A verdict is plain if it and all other admissions are independent of each other. Every rule has answered and lets the
message pass. It touches no list, is a copy of no mailing, and adds to no count. Every count that its rules ask for is
zero. No freeze is active, and no hold has its key. Its place in the order of admissions is the moment of this check. It
adds to nothing, so no other admission can tell.
"""

from __future__ import annotations

import hashlib

from smtpguard.gathering.gather import Gathered
from smtpguard.journal.chain import canonical
from smtpguard.mail.envelope import Transaction
from smtpguard.policy.engine import Plan
from smtpguard.policy.facts import Facts


def is_plain(gathered: Gathered, plan: Plan) -> bool:
    """Return whether nothing of a message is counted or compared, and its rules let it pass whatever their counts are."""
    facts, everyone = gathered.facts, gathered.everyone
    if (
        everyone.touched
        or everyone.crowds
        or everyone.unsure
        or everyone.customers.high
        or everyone.list_addresses.high
    ):
        return False
    if facts.identity is not None or facts.letter_from or gathered.post is not None or gathered.coming is not None:
        return False
    if gathered.streams or facts.lists or gathered.counted.people or plan.pending or plan.pauses:
        return False
    return plan.lets_pass


def key_of(transaction: Transaction) -> str:
    """Return a digest of content and envelope, which a retry has too."""
    return hashlib.sha256(f"{transaction.message.sha256} {transaction.envelope.sha256}".encode()).hexdigest()


def marks_of(facts: Facts) -> str:
    """Return what a freeze compares with while the message is under way, in the form that an admission writes."""
    return canonical([sorted(facts.lists), sorted(facts.senders), "", facts.thread])
