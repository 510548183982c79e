"""Attacks by the order of acts: each message is as it may be, and what was agreed to is less than who gets it."""

from __future__ import annotations

import pytest

from smtpguard.holds.effects import Seen
from smtpguard.holds.model import Choice, Conflict
from tests.catalogue.test_first_contacts import reached, words
from tests.catalogue.wholeguard import EVA, READERS, WholeGuard, personal_mail


async def test_a_vote_counts_for_no_rule_that_a_copy_added_after_the_look(guard: WholeGuard) -> None:
    """The approver looks at a letter to thirty people in To. Before the vote a copy comes for people in Bcc."""
    body = f"{words(120, 'letter')}\r\nVi ses på tisdag, /Anna\r\n"
    for n in (0, 10, 20):
        to = READERS[n : n + 10]
        said = await guard.send(personal_mail(to=", ".join(to), body=body, message_id=f"<{n}@example.com>"), *to)
    hidden = personal_mail(to="undisclosed-recipients:;", body=body, message_id="<hidden@example.com>")
    lead = next(hold for hold in await guard.holds() if not hold.primary)
    looked = Seen.of(lead)
    assert lead.rules == ("internal-to-many-customers",), said
    assert "Held" in await guard.send(hidden, *READERS[30:40])

    with pytest.raises(Conflict, match="under another rule"):
        await guard.office._approvals.vote(lead.hold_id, Choice.APPROVE, approver=EVA, by="test", seen=looked)
    await guard.deliver()
    assert reached(guard, READERS) == set(READERS[:10]), "what passed below the bound"
