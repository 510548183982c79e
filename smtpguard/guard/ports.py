"""Protocols of what services need from the policy's follower, the reader and the relay. mypy proves in app that those fit."""

from __future__ import annotations

from typing import Protocol

from smtpguard.guard.inforce import InForce
from smtpguard.mail.envelope import Answers, Envelope, Fence
from smtpguard.mail.fields import DkimResult
from smtpguard.mail.message import Message
from smtpguard.policy.facts import Unknown
from smtpguard.reading.looks import Reading
from smtpguard.reading.request import Depth, Steps
from smtpguard.reading.shown import Shown


class PolicyInForce(Protocol):
    """The source of the policy in force. app implements it and replaces the policy when the gate moves."""

    def current(self) -> InForce: ...

    async def follow(self) -> InForce:
        """Read the gate and use the policy that it names from now on. Raises StoreError, or the error of building that
        policy."""


class Reader(Protocol):
    async def read(self, message: Message, depth: Depth) -> Reading | Unknown:
        """Read in this process, or apart if that takes too long. The Reading says what could not be read."""

    def in_steps(self, message: Message, depth: Depth) -> Steps[Reading | None]:
        """Read in this process, in steps. Returns None if that takes too long: then call ``apart``."""

    async def apart(self, message: Message, depth: Depth) -> Reading | Unknown:
        """Read within bounds of time and memory."""

    def shown_at_once(self, message: Message) -> Shown | None:
        """Return what the message shows, None if it takes too long: then call ``shown_apart``."""

    async def shown_apart(self, message: Message) -> Shown:
        """Everything that the message shows or opens, for comparison, within the same bounds."""


class Verifier(Protocol):
    async def origin(self, message: Message) -> DkimResult | Unknown: ...


class Relay(Protocol):
    """What the delivery worker sends through."""

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        """Send a message. Returns for each recipient the refusal of its RCPT, or the reply to the dot. Raises envelope.Lost and
        Recalled."""
