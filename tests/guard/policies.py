"""Random policies of one house: how mail to its lists is approved, what else stops it, its time zone, and one rule of any
kind."""

from __future__ import annotations

import re
from random import Random

import yaml

from smtpguard.config.problem import Broken
from smtpguard.policy.parse import parse
from tests.guard import drawing
from tests.guard.campaign import UNAPPROVED
from tests.guard.house import DOCUMENTS, POLICY

STAGES = ["{steps: [2, 10%, rest], pause: 30m}", "{steps: [3, rest], pause: 2h}", "{steps: [1, 5, rest]}"]
CONFIRM = '  - {id: to-several, when: {mailing.customers: ">= 3"}, then: confirm}\n'
BUSY = '  - {{id: busy, when: {{sender.customers: ">= {} in 1d"}}, then: {}}}\n'
BREAKERS = 'breakers: {complaints: ">= 2", bounces: ">= 3", replies: ">= 4 in 1h"}\n'
VOTES = [
    "",
    "reply_votes: {people: 60, sensitivity: special-category}\n",
    "reply_votes: {people: 60, sensitivity: special-category, senders_verified: [example.com]}\n",
]
ZONES = {
    "UTC": "2026-03-02 09:00",
    "Europe/Stockholm": "2026-03-28 21:00",
    "America/Santiago": "2026-04-04 12:00",
    "America/Sao_Paulo": "2026-12-30 20:00",
    "Asia/Kolkata": "2026-02-28 15:00",
    "Australia/Lord_Howe": "2026-10-03 09:00",
    "Pacific/Apia": "2026-05-31 08:00",
}
"""And when a history begins in UTC: in most, a border of a month, or of the summer time, is soon to come."""


def documents(chance: Random) -> dict[str, bytes]:
    policy = POLICY.replace("zone: UTC", f"zone: {chance.choice(list(ZONES))}")
    policy = before("groups:\n", chance.choice(VOTES), policy)
    if chance.random() < 0.4:
        policy = before("groups:\n", BREAKERS, policy)
    if chance.random() < 0.5:
        policy = before("    approvals: {from: [comm", f"    stages: {chance.choice(STAGES)}\n", policy)
    if chance.random() < 0.2:
        policy = policy.replace("[dpo@example.com]", "[dpo@example.com, new@example.com]")
    if chance.random() < 0.2:
        policy = policy.replace("  news:\n", "  nyheter:\n")
    if chance.random() < 0.1:
        policy = re.sub(r"  (news|nyheter):\n(    .*\n)+", "", policy)
    if chance.random() < 0.1:
        policy = policy.replace("[eva@example.com, omar@example.com]", "[eva@example.com, new@example.com]")
    if chance.random() < 0.1:
        policy = re.sub(r"  - id: (internal-to-hidden-members|no-contracts)\n(    .*\n)+", "", policy, count=1)
    policy += UNAPPROVED.replace(">= 5", f">= {chance.choice([3, 5, 5, 5, 12])}")
    policy += CONFIRM if chance.random() < 0.3 else ""
    busy = BUSY.format(chance.choice([2, 3, 12]), chance.choice(["hold", "hold", "confirm"]))
    policy += busy if chance.random() < 0.5 else ""
    return with_any_rule(chance, policy) if chance.random() < 0.3 else documents_of(policy)


def before(line: str, more: str, policy: str) -> str:
    return policy.replace(line, more + line, 1)


def documents_of(policy: str) -> dict[str, bytes]:
    return {**DOCUMENTS, "policy.yaml": policy.encode()}


def with_any_rule(chance: Random, policy: str) -> dict[str, bytes]:
    """With one more rule, on facts as they come."""
    while True:
        rule = yaml.safe_dump([drawing.rule(chance, "any")], default_flow_style=True, width=1000)
        made = documents_of(f"{policy}  - {rule[1:-2]}\n")
        try:
            parse(made)
        except Broken:  # it names a list that this house does not have
            continue
        return made
