"""``explain`` gathers what the guard gathers, so both come to one verdict."""

from __future__ import annotations

import pytest

from smtpguard.admission.model import Explained
from smtpguard.app.explaining import Explainer
from smtpguard.policy.verdict import Action
from smtpguard.reading.request import Surroundings
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, House

BY_DKIM = POLICY.replace("{clients: [10.1.2.0/24], dkim: shop.example.com}", "{dkim: shop.example.com}")
MANY = "  - {id: many, when: {sender.first_contacts: '>= 100 in 1h'}, then: hold}\n"


@pytest.mark.parametrize(("signed", "action"), [("shop.example.com", Action.DEFER), ("other.example", Action.RELAY)])
async def test_the_origin_that_makes_a_letter_mail_of_a_stream_is_proven(
    home: House, signed: str, action: Action
) -> None:
    """Only its signature says for whom the message counts: the stream, which is above its limit, or its sender."""
    home.in_force = home.build({**DOCUMENTS, "policy.yaml": f"{BY_DKIM}{MANY}".encode()})
    home.verifier.domains = frozenset({signed})
    sent = home.transaction(MEMBERS[0], sender="noreply@example.com", X_Looks="unclear")
    to, counted = sent.envelope.addresses, {"stream.messages": 9}
    explained: Explained = await Explainer(home.in_force, home.gather, Surroundings()).explain(
        sent.message, sent.envelope.reverse_path, to, sent.session, counted
    )
    assert explained.verdict.action is action
