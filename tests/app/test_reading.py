"""The settings of the policy that a reader gets."""

from __future__ import annotations

from pathlib import Path

from smtpguard.app.files import parse_policy
from smtpguard.app.policies import surroundings
from smtpguard.config.settings import settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.mail.message import Message
from smtpguard.reading.looks import Looks
from smtpguard.reading.read import read

POLICY = """
organization: {domains: [example.com]}
groups: {communications: [eva@example.com]}
approvals: {from: communications}
own_marks:
  project: {side: internal, weight: 6, term: project heron}
  tool: {side: internal, weight: 6, header: X-Our-Tool}
rules: []
"""


def test_marks_of_the_policy_are_looked_for(tmp_path: Path) -> None:
    settings = settings_of(load_yaml(b"hostname: guard.example.com\n", "smtpguard.yaml"), tmp_path, {})
    policy = parse_policy(settings, {"policy.yaml": POLICY.encode()})
    around = surroundings(settings, policy)
    for head, body, name in (("", "About Project Heron.", "project"), ("X-Our-Tool: 1\r\n", "Hello.", "tool")):
        found = read(Message.of(f"From: a@example.net\r\n{head}Subject: x\r\n\r\n{body}\r\n".encode()), around)
        assert name in {m.name for m in found.marks}
        assert found.looks is Looks.INTERNAL
