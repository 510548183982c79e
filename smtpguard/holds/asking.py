"""What people are asked about, and what they say: a list's post in doubt, written in one commit.

Also the end of waiting for an answer to what was taken back while it was being sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smtpguard.database.batch import Batch
from smtpguard.holds import deciding
from smtpguard.holds import rows as holds
from smtpguard.holds.model import Change, Hold, Over
from smtpguard.mail.envelope import Recipient
from smtpguard.outbox import rows as outboxes

Step = Callable[[Hold, Sequence[Recipient]], Change]
"""A hold, and the recipients of its release about whom people are asked."""


def ask(batch: Batch, hold_id: str, step: Step, over: Over) -> None:
    """Let ``step`` ask about all of a hold that is to be asked about by now. Raises KeyError where there is no such hold."""
    held = _find(batch, hold_id)
    for intent_id, some in outboxes.unanswered(batch.connection, hold_id, batch.now_us).items():
        held = deciding.written(batch, held, intent_id, some, over)
    doubts = outboxes.asked(batch.connection, hold_id, batch.now_us)
    if doubts and held.asked_at is None:
        deciding.apply(batch, held, step(held, [one.recipient for one in doubts]))


def say(batch: Batch, hold_id: str, step: Step, over: Over, *, sent: bool) -> Change:
    """What a person says of all that is asked about. Raises KeyError where there is no such hold."""
    held = _find(batch, hold_id)
    doubts = outboxes.asked(batch.connection, hold_id, batch.now_us)
    made = deciding.apply(batch, held, step(held, [one.recipient for one in doubts]))
    if made.hold is None:
        return made
    if sent:
        for intent_id in {one.intent_id for one in doubts}:
            some = outboxes.confirmed([one for one in doubts if one.intent_id == intent_id])
            deciding.written(batch, made.hold, intent_id, some, over)
    else:
        outboxes.repeat(batch, doubts)
    after = holds.find(batch.connection, hold_id)
    return Change(hold=after, events=made.events, intents=made.intents)


def _find(batch: Batch, hold_id: str) -> Hold:
    batch.flush()
    held = holds.find(batch.connection, hold_id)
    if held is None:
        raise KeyError(hold_id)
    return held
