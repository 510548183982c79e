"""A policy with ``confirm`` rules, and Anna's mail that it asks her about."""

from __future__ import annotations

from typing import Any

from smtpguard.mail.envelope import Transaction
from tests.guard.house import DOCUMENTS, POLICY, House, index

ANNA = "anna@example.com"
NEWS = "news@lists.example.com"
READERS = [f"reader{n}@example.org" for n in range(60)]
LOGIN = {"auth_user": ANNA}
RULES = """
  - id: to-several
    description: To several customers
    when: {mailing.customers: ">= 5"}
    then: confirm
  - id: to-many
    when: {mailing.customers: ">= 30", mailing.approved: false}
    then: hold
  - id: new-customers
    when: {message.looks: unclear, sender.first_contacts: ">= 10 in 1h"}
    then: confirm
  - id: very-many-new-customers
    when: {message.looks: unclear, sender.first_contacts: ">= 14 in 1h"}
    then: hold
"""


def documents(rules: str = RULES, top: str = "") -> dict[str, bytes]:
    policy = POLICY.partition("rules:\n")[0] + top + "rules:" + rules
    return {**DOCUMENTS, "policy.yaml": policy.encode()}


async def put(home: House, rules: str = RULES, top: str = "") -> None:
    """Put the policy in force, with sixty readers on the list news."""
    index(home.folder, "news", READERS)
    await home.put(documents(rules, top))
    await home.follow()


def copy(home: House, *to: str, **more: Any) -> Transaction:
    """A copy of a mailing from Anna, who has logged in."""
    fields = {"session": LOGIN, "X_Looks": "mailing", "X_Mailing": "spring", "Message_ID": f"<{next(home.ids)}@a>"}
    return home.transaction(*to, **fields | more)
