"""Protocols of what services need from the store, the reader, the relay and the clock. mypy proves in app that those
fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import Change, Hold, Over, State
from smtpguard.holds.sending import Outgoing, Sending, Taken
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Event
from smtpguard.journal.fate import End
from smtpguard.mail.envelope import Envelope, Recipient
from smtpguard.mail.message import Message
from smtpguard.mail.transaction import Answers, Fence
from smtpguard.mailings.model import Fate, Mailing
from smtpguard.outbox.model import Intent, Lease, Outcome
from smtpguard.policy.counted import Ask
from smtpguard.policy.facts import Source, Unknown
from smtpguard.policy.freezing import Freeze, Gate
from smtpguard.reading.looks import Reading
from smtpguard.reading.origin import Origin
from smtpguard.reading.shown import Shown


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC: for what is written down and shown to people."""

    def monotonic(self) -> float:
        """Seconds, for time limits."""


class PolicyInForce(Protocol):
    """Where the policy in force comes from; app implements it, and swaps it when the gate moves."""

    def current(self) -> InForce: ...

    async def follow(self) -> InForce:
        """Read the gate and take what is in force there into use, now. Raises LedgerError, or what building it raises."""


class Contents(Protocol):
    """Held content."""

    async def keep(self, message: Message) -> None:
        """Store content by its SHA-256, in chunks; idempotent. Swept after an hour if nothing refers to it."""

    async def load(self, sha256: str) -> Message:
        """Raises ContentMissing."""


class Holds(Protocol):
    """Holds, and what people decide on them."""

    async def find(self, hold_id: str) -> Hold | None: ...

    async def newest(
        self,
        *,
        states: Sequence[State] = (),
        limit: int = 1000,
        before: datetime | None = None,
        after_id: str | None = None,
    ) -> Sequence[Hold]:
        """Newest first. A page goes on where the last one ended: ``before`` its last ``held_at``, ``after_id`` its id."""

    async def due(self, now: datetime) -> Sequence[Hold]:
        """Waiting holds, oldest expiry first, whose expiry or next reminder may be due."""

    async def leaving(self) -> Sequence[Hold]:
        """Holds whose approval takes effect after a delay, the next first."""

    async def asked(self) -> Sequence[Hold]:
        """Holds of which people are asked whether they were sent, the longest first."""

    async def change(self, hold_id: str, step: Callable[[Hold], Change]) -> Change:
        """Read the hold, let ``step`` say what becomes of it, write that. Raises KeyError where there is no such hold."""

    async def take_back(self, hold_id: str, step: Callable[[Hold, Sending | None, Outgoing, bool], Change]) -> Taken:
        """Run ``step(hold, release, totals, is_primary)`` in the write transaction. ``release`` is None if nothing was queued. If the
        primary hold has been delivered, the oldest pending copy is passed instead; ``is_primary`` is False for a copy that follows
        a primary hold which was revoked in part. Raises KeyError and what ``step`` raises."""

    async def outgoing(self, hold_id: str) -> Outgoing:
        """How far it is with what was approved of a hold and the copies under it."""

    async def letters(self, lead_id: str) -> int:
        """How many letters of its sender wait with it."""

    async def shown(self, hold_ids: Collection[str]) -> Mapping[str, Shown]:
        """What held messages show, as far as it is kept."""

    async def under(self, lead_id: str) -> Sequence[tuple[Shown | None, str, frozenset[str]]]:
        """Of a hold, and then of each copy under it in the order in which they came: what it shows (None: an earlier version held it,
        or it is forgotten), its author, and what proves that."""

    async def follow(
        self,
        lead_id: str,
        n: int,
        step: Callable[[Hold, Hold, Mailing | None, int, Sending | None, bool], Change | None],
    ) -> int:
        """Let ``step`` say of each of the oldest ``n`` copies that have not come after a hold what becomes of it, with the mailing,
        how many people the copy would be the first for, how far its release is, if what it is under was taken back, and whether the
        approval covers it; None: nothing yet, nor of those after it. How many there were."""

    async def decided_leads(self) -> Sequence[str]:
        """Ids of holds that were decided on, or taken back, and under which copies have not come after."""

    async def templates(self, names: Collection[str]) -> Mapping[str, str]:
        """What approvals refer to by these names (mailings.slots), as far as it is kept."""


class Mailings(Protocol):
    """Mailings, and what people make of them."""

    async def find(self, mailing_id: str) -> Mailing | None: ...

    async def newest(
        self,
        *,
        least: int = 1,
        state: str | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> Sequence[Mailing]:
        """The latest first: those that came for so many people at least, or of which something waits or was decided. ``before``:
        only those behind the one whose last message came then, and that has this id."""

    async def named(self, prefix: str) -> Sequence[str]:
        """Ids that begin so, at most ten."""

    async def reached_by(self, mailing_id: str, digests: Sequence[bytes]) -> Mapping[bytes, Fate]:
        """What became of the copies of those, among these people, for whom it has come."""

    async def change(self, mailing_id: str, step: Callable[[Mailing], tuple[Mailing, Change]]) -> Mailing:
        """What people make of a mailing; a word instead says why nothing is to change. Raises KeyError."""

    async def take_back(
        self,
        mailing_id: str,
        decide: Callable[[Mailing, Outgoing], tuple[Mailing, Change]],
        step: Callable[[Hold, Sending | None, Outgoing, bool], Change],
    ) -> tuple[Mailing, Taken]:
        """Change a mailing, and revoke what of it was approved and is not sent, in one commit. Raises KeyError and what ``decide``
        raises."""


class Outbox(Protocol):
    """What is to be sent, recipient by recipient."""

    async def lease(self, owner: str, n: int, seconds: int) -> Sequence[Lease]:
        """Up to ``n`` due outbox entries whose holds no freeze stops, marked as this owner's for so long."""

    async def settle(self, lease: Lease, outcomes: Sequence[Outcome], events: Sequence[Event],
                     intents: Sequence[Intent] = (), over: Over | None = None) -> bool:  # fmt: skip
        """Write what became of it, and what that makes of the hold whose content it was and of the people behind its recipients;
        False: the lease was lost meanwhile, nothing was written. ``over``: called where nobody of a release is to be tried any
        more. Raises ValueError for a recipient that was not leased."""

    async def in_doubt(self) -> Sequence[str]:
        """Ids of holds with a recipient in doubt about whom people must now be asked, or whose wait for a late answer has ended."""

    async def ask_about(self, hold_id: str, step: Callable[[Hold, Sequence[Recipient]], Change], over: Over) -> None:
        """Let ``step`` ask about those recipients, if there are any. Raises KeyError."""

    async def say(
        self, hold_id: str, step: Callable[[Hold, Sequence[Recipient]], Change], over: Over, *, sent: bool
    ) -> Change:
        """Let ``step`` say what a person makes of the recipients that are asked about: they have it (``sent``), or it is sent to them
        again. Raises KeyError."""

    async def attempted(self, freeze: Freeze) -> Mapping[str, str]:
        """Map outbox entries to their holds: releases and colleagues' parts that ``freeze`` stops and that have an attempt without
        a known outcome."""

    async def taken(self, intents: Sequence[str]) -> Sequence[str]:
        """Those of these outbox entries that the relay has for somebody, or may have."""


class Gates(Protocol):
    """What stands still, and which policy is in force."""

    async def read(self) -> Gate: ...

    async def freeze(self, freeze: Freeze, event: Event) -> Gate:
        """After it has returned no verdict to relay of what it stops can be committed anywhere."""

    async def thaw(self, freeze_id: str, event: Event) -> Gate:
        """Raises KeyError."""


class Policies(Protocol):
    """The policies that are kept."""

    async def documents(self, sha256: str) -> Mapping[str, bytes]:
        """The documents of a policy. Raises KeyError."""

    async def put(self, sha256: str, documents: Mapping[str, bytes], event: Event, before: str | None = None) -> Gate:
        """Store the documents (file name to text) and put them in force, in one commit; the gate moves. Raises PolicyMoved where
        another policy than ``before`` is in force (None: whatever is)."""


class Journal(Protocol):
    """What was written down, and is found again."""

    async def record(self, events: Sequence[Event], intents: Sequence[Intent] = ()) -> None:
        """Entries (and outbox intents) of their own, committed on return."""

    def note(self, event: Event) -> None:
        """An outcome; nobody waits. Written with a later batch, at most 50 ms on."""

    async def history(self, id: str) -> Sequence[tuple[Entry, Clear | None]]:
        """The journal's entries on one transaction, hold, mailing or freeze, in order."""

    async def in_flight(self, freeze: Freeze, since: datetime) -> Sequence[str]:
        """Ids of verdicts to relay that ``freeze`` would stop, without an outcome yet."""

    async def unsettled(self, before: datetime) -> Sequence[str]:
        """Ids of verdicts to relay older than that, without an outcome and not in doubt yet."""

    async def outcomes(self, ids: Sequence[str]) -> Mapping[str, End]:
        """What became of each of these verdicts to relay, as far as that is known, or known to be in doubt."""

    async def rejected(self, first: str, until: datetime, limit: int) -> Sequence[Event]:
        """Verdicts to reject, from that of the transaction ``first`` up to ``until``, at most ``limit``, with what names
        people as far as it is there still."""

    async def observed(self, since: datetime, until: datetime, limit: int) -> tuple[int, Sequence[Event]]:
        """How many verdicts there were in that time; and those in which a rule only observed, the newest first."""

    async def called(self, word: str) -> Sequence[str]:
        """Ids of messages, mailings and freezes that begin so, at most ten."""

    async def find(self, words: Sequence[str], limit: int) -> Sequence[str]:
        """Ids of messages that have all of these words, the newest first, at most so many: addresses, Message-IDs, queue ids,
        words of the subjects of what was held or counted."""

    async def writers(self) -> Sequence[str]:
        """Who wrote the newest messages, as they were called in From and as reverse-path."""


class Ledger(Protocol):
    """The record, by noun. Every method that writes commits durably before it returns, ``journal.note`` aside."""

    @property
    def contents(self) -> Contents: ...

    @property
    def holds(self) -> Holds: ...

    @property
    def mailings(self) -> Mailings: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def gate(self) -> Gates: ...

    @property
    def policies(self) -> Policies: ...

    @property
    def journal(self) -> Journal: ...

    async def admit(self, item: Item, step: Callable[[Seen], Admission]) -> Admission:
        """The one transaction. ``step`` is pure and cheap and runs in the writer's thread. Within half a minute it returns, or
        raises LedgerError's kinds."""


class Front(Protocol):
    """The journal's front: where a verdict is recorded that nothing else is written with."""

    @property
    def generation(self) -> int | None:
        """The gate's, as it is at this moment; ahead of it while the gate moves. None: nothing is recorded here now."""

    def counts_nobody(self, ask: Ask) -> bool:
        """Whether it is sure that nobody is counted under it, in whatever process."""

    def holds(self, key: str) -> bool:
        """Whether there may be a hold with this key (Item.key)."""

    async def record(self, event: Event, *, key: str, marks: str, generation: int) -> bool:
        """True: on the disk, decided under this generation. False: nothing was written. Raises LedgerError and TimeoutError where
        nobody knows."""


class Reader(Protocol):
    def at_once(self, message: Message, need: frozenset[Source]) -> Reading | None:
        """What can be read here and now; None where that would take too long, and ``apart`` is to be asked."""

    async def apart(self, message: Message, need: frozenset[Source]) -> Reading | Unknown:
        """Within bounds of time and memory: what cannot be read is an answer, which the Reading gives."""

    async def shown(self, message: Message) -> Shown:
        """Everything that it shows or opens, to be compared; within the same bounds."""


class Verifier(Protocol):
    async def origin(self, message: Message) -> Origin | Unknown: ...


class Relay(Protocol):
    """What the delivery worker sends through."""

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        """Of each recipient its RCPT refusal, or the reply to the dot. Raises transaction.Lost and Recalled."""
