"""Protocols of what services need from the store, the reader, the relay and the clock. mypy proves in app that those
fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from smtpguard.accounts.model import Account as Person
from smtpguard.accounts.model import Membership
from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import Change, Hold, Over, State
from smtpguard.holds.sending import Outgoing, RevocationResult, Sending
from smtpguard.journal.bypass import Bypass
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.event import Event
from smtpguard.journal.outcome import Outcome
from smtpguard.mail.authres import DkimResult
from smtpguard.mail.envelope import Envelope, Recipient
from smtpguard.mail.message import Message
from smtpguard.mail.transaction import Answers, Fence
from smtpguard.mailings.model import Account, CopyStatus, Mailing
from smtpguard.outbox.model import AttemptResult, Intent, Lease
from smtpguard.policy.absences import Absence
from smtpguard.policy.counted import Ask
from smtpguard.policy.facts import Source, Unknown
from smtpguard.policy.freezing import Freeze, Gate
from smtpguard.reading.fingerprint import Sketch
from smtpguard.reading.looks import Reading
from smtpguard.reading.shown import Shown


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC, for the journal and for people."""

    def monotonic(self) -> float:
        """Seconds, for timeouts."""


class PolicyInForce(Protocol):
    """The source of the policy in force. app implements it and replaces the policy when the gate moves."""

    def current(self) -> InForce: ...

    async def follow(self) -> InForce:
        """Read the gate and use the policy that it names from now on. Raises LedgerError, or the error of building that
        policy."""


class Contents(Protocol):
    """Held content."""

    async def keep(self, message: Message) -> None:
        """Store content by its SHA-256, in chunks; idempotent. Swept after an hour if nothing refers to it."""

    async def load(self, sha256: str) -> Message:
        """Raises ContentMissing."""


class Holds(Protocol):
    """Holds, and the decisions on them."""

    async def find(self, hold_id: str) -> Hold | None: ...

    async def several(self, ids: Sequence[str]) -> Sequence[Hold]:
        """In the order of the ids; ids that do not exist are left out."""

    async def newest(
        self,
        *,
        states: Sequence[State] = (),
        limit: int = 1000,
        before: datetime | None = None,
        after_id: str | None = None,
    ) -> Sequence[Hold]:
        """Newest first. For the next page ``before`` and ``after_id`` are the ``held_at`` and the id of the last hold."""

    async def counts(self) -> Mapping[State, int]:
        """The number of holds in each state, a mailing as one."""

    async def queued(self, hold_id: str, limit: int) -> Sequence[tuple[Hold, Shown | None]]:
        """The holds under this one, oldest first, and what each shows."""

    async def due(self, now: datetime) -> Sequence[Hold]:
        """Waiting holds whose expiry or next reminder may be due, oldest expiry first."""

    async def leaving(self) -> Sequence[Hold]:
        """Holds whose approval takes effect after a delay, the next one first."""

    async def asked(self) -> Sequence[Hold]:
        """Holds for which people are asked whether the release was sent, the oldest question first."""

    async def change(self, hold_id: str, step: Callable[[Hold], Change]) -> Change:
        """Read the hold, run ``step`` on it, and write the change that it returns. Raises KeyError if there is no such
        hold."""

    async def take_back(
        self, hold_id: str, step: Callable[[Hold, Sending | None, Outgoing, bool], Change]
    ) -> RevocationResult:
        """Run ``step(hold, release, totals, is_primary)`` in the write transaction. ``release`` is None if nothing was queued. If the
        primary hold has been delivered, the oldest pending copy is passed instead; ``is_primary`` is False for a copy that follows
        a primary hold which was revoked in part. Raises KeyError and what ``step`` raises."""

    async def outgoing(self, hold_id: str) -> Outgoing:
        """How far the release of a hold and of its approved copies has come."""

    async def letters(self, lead_id: str) -> int:
        """How many letters of the same sender wait under this hold."""

    async def shown(self, hold_ids: Collection[str]) -> Mapping[str, Shown]:
        """What held messages show, as far as it is kept."""

    async def under(self, lead_id: str) -> Sequence[tuple[Shown | None, str, frozenset[str]]]:
        """The hold, then each copy under it in the order of arrival: what it shows (None if an earlier version held it,
        or it is forgotten), its author, and what proves the author."""

    async def follow(
        self,
        lead_id: str,
        n: int,
        step: Callable[[Hold, Hold, Mailing | None, int, Sending | None, bool], Change | None],
    ) -> int:
        """Run ``step(primary, copy, mailing, new_people, release, covered)`` on the oldest ``n`` copies that have not
        followed their primary hold. ``new_people``: for how many people the copy is the first. ``release``: its
        delivery so far, if its primary hold was revoked. ``covered``: whether the approval covers the copy. If ``step``
        returns None, this copy and the later ones wait. Returns the number of copies that were processed."""

    async def decided_leads(self) -> Sequence[str]:
        """Ids of decided or revoked holds with copies that have not followed."""

    async def templates(self, names: Collection[str]) -> Mapping[str, str]:
        """The templates with the names that approvals refer to (mailings.slots), as far as they are kept."""


class Mailings(Protocol):
    """Mailings, and the decisions on them."""

    async def find(self, mailing_id: str) -> Mailing | None: ...

    async def newest(
        self,
        *,
        least: int = 1,
        state: str | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> Sequence[Mailing]:
        """Latest first: mailings with at least ``least`` people, and those with something held or decided. ``before``:
        time of the last message, and id, of the last mailing on the page before."""

    async def named(self, prefix: str) -> Sequence[str]:
        """Ids with this prefix, at most ten."""

    async def like(self, sketch: Sketch, since: datetime) -> str:
        """The mailing with messages since then whose text is nearest, if it is near enough; "" for none."""

    async def reached_by(self, mailing_id: str, digests: Sequence[bytes]) -> Mapping[bytes, CopyStatus]:
        """The status of the copies for those of these people whom the mailing has come for."""

    async def account(self, mailing_id: str) -> Account:
        """Whom it has reached by now."""

    async def keep_set(self, people: Collection[bytes]) -> str:
        """Keep a set of people, as keyed digests, for an approval that is bound to it. Its name (mailings.model.set_of)."""

    async def change(self, mailing_id: str, step: Callable[[Mailing], tuple[Mailing, Change]]) -> Mailing:
        """Change a mailing. Raises KeyError, and what ``step`` raises to refuse."""

    async def take_back(
        self,
        mailing_id: str,
        decide: Callable[[Mailing, Outgoing], tuple[Mailing, Change]],
        step: Callable[[Hold, Sending | None, Outgoing, bool], Change],
    ) -> tuple[Mailing, RevocationResult]:
        """Change a mailing, and revoke what of it is approved and not sent, in one commit. Raises KeyError and what
        ``decide`` raises."""


class Outbox(Protocol):
    """What smtpguard itself sends, recipient by recipient."""

    async def lease(self, owner: str, n: int, seconds: int) -> Sequence[Lease]:
        """Lease up to ``n`` due outbox entries, whose holds no freeze stops, to this owner for so many seconds."""

    async def settle(self, lease: Lease, outcomes: Sequence[AttemptResult], events: Sequence[Event],
                     intents: Sequence[Intent] = (), over: Over | None = None) -> bool:  # fmt: skip
        """Write the outcomes, and what follows from them for the hold and for the people behind the recipients. False:
        the lease was lost meanwhile, and nothing was written. ``over``: called when no recipient of a release is to be
        tried any more. Raises ValueError for a recipient that was not leased."""

    async def in_doubt(self) -> Sequence[str]:
        """Ids of holds with a recipient in doubt about whom people must now be asked, or whose wait for a late answer
        has ended."""

    async def ask_about(self, hold_id: str, step: Callable[[Hold, Sequence[Recipient]], Change], over: Over) -> None:
        """Let ``step`` ask people about those recipients, if there are any. Raises KeyError."""

    async def say(
        self, hold_id: str, step: Callable[[Hold, Sequence[Recipient]], Change], over: Over, *, sent: bool
    ) -> Change:
        """Let ``step`` apply a person's answer to the recipients that were asked about: they have the message
        (``sent``), or it is sent to them again. Raises KeyError."""

    async def attempted(self, freeze: Freeze) -> Mapping[str, str]:
        """Map outbox entries to their holds: releases and colleagues' parts that ``freeze`` stops and that have an attempt without
        a known outcome."""

    async def taken(self, intents: Sequence[str]) -> Sequence[str]:
        """Those of these outbox entries that the relay has, or may have, for at least one recipient."""


class Gates(Protocol):
    """Active freezes, and the policy in force."""

    async def read(self) -> Gate: ...

    async def freeze(self, freeze: Freeze, event: Event) -> Gate:
        """After it returns, no verdict to relay a message that the freeze stops can be committed anywhere."""

    async def thaw(self, freeze_id: str, event: Event) -> Gate:
        """Raises KeyError."""


class Policies(Protocol):
    """The kept policies."""

    async def documents(self, sha256: str) -> Mapping[str, bytes]:
        """The documents of a policy. Raises KeyError."""

    async def put(self, sha256: str, documents: Mapping[str, bytes], event: Event, before: str | None = None) -> Gate:
        """Store the documents (file name to text) and put them in force, in one commit; the gate moves. Raises
        PolicyMoved if another policy than ``before`` is in force. With ``before`` None any may be."""

    async def absences(self) -> Sequence[Absence]:
        """The absences that people have reported themselves. The gate moves with each change, and with those of the
        two below."""

    async def memberships(self) -> Sequence[Membership]:
        """The members of groups that directories named last."""

    async def put_membership(self, made: Membership) -> None: ...

    async def accounts(self) -> Sequence[Person]:
        """All accounts, with the groups of their last sign-on."""


class Journal(Protocol):
    """The journal: record and find entries."""

    async def record(self, events: Sequence[Event], intents: Sequence[Intent] = ()) -> None:
        """Record entries and outbox intents without an admission; committed on return."""

    def note(self, event: Event) -> None:
        """Record an outcome without waiting. It is written with a later batch, within 50 ms."""

    async def history(self, id: str) -> Sequence[tuple[Entry, Clear | None]]:
        """The journal's entries on one transaction, hold, mailing or freeze, in order."""

    async def in_flight(self, freeze: Freeze, since: datetime) -> Sequence[str]:
        """Ids of verdicts to relay without an outcome that ``freeze`` would stop."""

    async def unsettled(self, before: datetime) -> Sequence[str]:
        """Ids of verdicts to relay before this time, without an outcome and not yet in doubt."""

    async def outcomes(self, ids: Sequence[str]) -> Mapping[str, Outcome]:
        """The outcome of each of these verdicts to relay, as far as it is known, or known to be in doubt."""

    async def rejected(self, first: str, until: datetime, limit: int) -> Sequence[Event]:
        """Verdicts to reject, from the transaction ``first`` up to ``until``, at most ``limit``, with names and
        addresses that are not erased."""

    async def noticed(self, since: datetime, until: datetime) -> Sequence[str]:
        """Ids of holds of which something happened in that period that people get notices of, oldest first."""

    async def observed(self, since: datetime, until: datetime, limit: int) -> tuple[int, Sequence[Event]]:
        """The number of verdicts in that period, and those in which a rule only observed, newest first."""

    async def called(self, word: str) -> Sequence[str]:
        """Ids of messages, mailings and freezes with this prefix, at most ten."""

    async def find(self, words: Sequence[str], limit: int) -> Sequence[str]:
        """Ids of messages that have all of these words, newest first, at most ``limit``. Words are addresses,
        Message-IDs, queue ids, and words of the subjects of held or counted messages."""

    async def checkpoints(self, after: int, limit: int) -> Sequence[Checkpoint]:
        """Those with a signed note, in order, after that of entry ``after``; if it is negative, the newest."""

    async def writers(self) -> Sequence[str]:
        """The writers of the newest messages, by their addresses in From and reverse-path."""


class Ledger(Protocol):
    """The store, by noun. Every method that writes commits durably before it returns, except ``journal.note``."""

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
        """Admit one message in one transaction. ``step`` is pure and cheap, and runs in the writer's thread. Within
        half a minute it returns, or raises a subclass of LedgerError."""


class Front(Protocol):
    """The journal's front, for a verdict that is written without anything else."""

    @property
    def generation(self) -> int | None:
        """The gate's generation at this moment; ahead of the gate while the gate moves. None: the front takes no
        verdicts now."""

    def counts_nobody(self, ask: Ask) -> bool:
        """True if it is certain that no process has counted anybody under this."""

    def holds(self, key: str) -> bool:
        """Whether a hold with this key (Item.key) may exist."""

    async def record(self, event: Event, *, key: str, marks: str, generation: int) -> bool:
        """True: on disk, decided under this generation. False: nothing was written. Raises LedgerError and TimeoutError
        if it is unknown whether it was written."""


class Bypassed(Protocol):
    """The emergency bypass of this host, under which verdicts are recorded while the store is away."""

    def in_force(self) -> Bypass | None: ...

    @property
    def generation(self) -> int:
        """The gate's newest generation that this host knows. Raises OSError."""

    async def record(self, bypass: Bypass, event: Event, *, key: str, marks: str, generation: int) -> bool:
        """As Front.record. False also if this bypass is over, or the gate has moved since this generation."""

    def note(self, event: Event) -> None:
        """Record the outcome of such a verdict without waiting."""


class Reader(Protocol):
    def at_once(self, message: Message, need: frozenset[Source]) -> Reading | None:
        """What can be read at once in this process; None if it would take too long, then call ``apart``."""

    async def apart(self, message: Message, need: frozenset[Source]) -> Reading | Unknown:
        """Read within bounds of time and memory. The Reading says what could not be read."""

    def shown_at_once(self, message: Message) -> Shown | None:
        """As ``at_once``; None: call ``shown_apart``."""

    async def shown_apart(self, message: Message) -> Shown:
        """Everything that the message shows or opens, for comparison, within the same bounds."""


class Verifier(Protocol):
    async def origin(self, message: Message) -> DkimResult | Unknown: ...


class Relay(Protocol):
    """What the delivery worker sends through."""

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        """By recipient, the refusal of its RCPT or the reply to the dot. Raises transaction.Lost and Recalled."""
