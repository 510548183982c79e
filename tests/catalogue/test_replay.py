"""``replay --passed`` of a changed policy over an ordinary day, by the journal alone, equals a guard with that policy
in force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from smtpguard.app import explaining
from smtpguard.app.files import installation_secret, read_policy
from smtpguard.cli import replaypassed
from smtpguard.cli.replaypassed import Compared
from smtpguard.lists.digest import Digester
from smtpguard.policy.parse import parse
from smtpguard.policy.verdict import Action
from tests.catalogue.wholeguard import (
    MEMBERS,
    OUTLOOK,
    RAMADAN,
    READERS,
    WholeGuard,
    personal_mail,
    policy,
    whole_guard,
)

SARA = "sara@example.com"


def day() -> Iterator[tuple[bytes, tuple[str, ...], dict[str, Any]]]:
    """Answers, offers, a system's receipts, meetings, drawings for outsiders, and once the story."""
    for n, customer in enumerate((*MEMBERS[:10], *READERS[:14])):
        body = f"Hej,\r\n\r\nDin beställning {n} skickades i går.\r\n\r\nVänligen\r\nSara\r\n"
        content = personal_mail(
            sender=SARA, to=customer, subject="SV: Paket", body=body, message_id=f"<answer{n}@example.com>"
        )
        yield content, (customer,), {"sender": SARA}
    for n, customer in enumerate(READERS[:8]):
        content = personal_mail(sender="noreply@example.com", to=customer, subject="Your new password", head="Auto-Submitted: auto-generated\r\n",
                         body=f"Choose it here: https://www.example.com/reset/{n:06x}\r\n", message_id=f"<reset{n}@example.com>")  # fmt: skip
        yield content, (customer,), {"sender": "noreply@example.com", "source": "127.0.0.3"}
    for n in range(8):
        colleagues = tuple(f"colleague{m}@example.com" for m in range(n, n + 3))
        content = personal_mail(
            to=", ".join(colleagues), subject=f"Meeting {n}", message_id=f"<meeting{n}@example.com>"
        )
        yield content, colleagues, {}
    for n in range(8):
        outsider = f"peter{n}@partner.example"
        yield (
            personal_mail(to=outsider, subject="Drawings", head="", message_id=f"<drawing{n}@example.com>"),
            (outsider,),
            {},
        )
    three = MEMBERS[20:23]
    yield (
        personal_mail(
            to=", ".join(three),
            subject="Visit",
            head="",
            body="Välkomna på besök.\r\n",
            message_id="<visit@example.com>",
        ),
        three,
        {},
    )
    everybody = tuple(f"colleague{n}@example.com" for n in range(120))
    yield personal_mail(to="everybody@example.com", subject="Coffee", message_id="<coffee@example.com>"), everybody, {}
    yield personal_mail(head=OUTLOOK, message_id="<story@example.com>"), (RAMADAN,), {}


async def lived(guard: WholeGuard) -> list[Action]:
    for content, to, more in day():
        await guard.send(content, *to, **more)
    await guard.pass_(seconds=1)  # a comparison covers only earlier messages
    return [Action[verdict["action"].upper()] for verdict in await guard.verdicts()]


def changed(how: str) -> str:
    plain = yaml.safe_load(policy())
    rules = {rule["id"]: rule for rule in plain["rules"]}
    match how:
        case "a threshold lowered":
            rules["internal-to-many-customers"]["when"]["mailing.customers"] = ">= 3"
        case "a rule removed":
            plain["rules"] = [rule for rule in plain["rules"] if rule["id"] not in ("internal-to-list", "not-a-writer")]
        case "a rule on reach":
            plain["rules"].append({"id": "to-many", "when": {"recipients.reach": ">= 3"}, "then": "hold"})
        case "a rule that observed":
            rules["very-busy-writer"] |= {"mode": "enforce", "when": {"sender.customers": ">= 20 in 1h"}}
        case "a rule that rejects":
            rules["internal-to-list"]["then"] = "reject"
        case "an exception":
            rules["unsuitable-for-list"]["unless"] = {"message.labels": "any"}
    return yaml.safe_dump(plain, sort_keys=False)


CHANGES = {
    "a threshold lowered": 0.98,
    "a rule removed": 0.98,
    "a rule on reach": 0.98,
    "a rule that observed": 0.9,
    "a rule that rejects": 0.98,
    "an exception": 0.98,
}
"""Changes of the policy, with the least share of messages for which the comparison is certain."""


@pytest.mark.parametrize("how", CHANGES)
async def test_the_replay_equals_a_guard_with_the_changed_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folders = [tmp_path / "now", tmp_path / "then"]
    for folder in folders:
        folder.mkdir()
    async with whole_guard(folders[1], monkeypatch, text=changed(how)) as other:
        really = await lived(other)
    async with whole_guard(folders[0], monkeypatch) as guard:
        for module in (replaypassed, explaining):
            monkeypatch.setattr(module, "SystemClock", lambda: guard.clock)
        now = await lived(guard)
        found = await compared(guard, changed(how))
    assert [set(one.was.actions) for one in found] == [{action} for action in now]
    wrong = [
        (one.message.names("subject"), one.will, action)
        for one, action in zip(found, really, strict=True)
        if action not in one.will.actions
    ]
    assert wrong == []
    assert sum(one.will.certain for one in found) / len(found) >= CHANGES[how]


async def compared(guard: WholeGuard, text: str) -> list[Compared]:
    settings, until = guard.settings, guard.clock.now()
    in_force = read_policy(settings)
    other = parse({**in_force.documents, "policy.yaml": text.encode()}, delimiters=settings.delimiters)
    digester = Digester(installation_secret(settings), settings.delimiters)
    period = until - timedelta(days=1), until
    async with AsyncExitStack() as undo:
        walk = replaypassed.Replaying(guard.office._store, settings, digester, in_force, other, *period, undo)
        return [one async for one in walk.passed()]
