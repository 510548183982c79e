"""The input of an admission, what it sees of the store, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from smtpguard.database.errors import StoreError
from smtpguard.holds.model import Hold
from smtpguard.journal.event import Event
from smtpguard.lists.persons import Person
from smtpguard.lists.recipients import Classified
from smtpguard.mail.constant import constant
from smtpguard.mailings.model import Candidate, Grant, Mailing
from smtpguard.mailings.staging import Progress
from smtpguard.outbox.model import Intent
from smtpguard.policy.counted import Ask, Live
from smtpguard.policy.facts import Facts
from smtpguard.policy.verdict import Disposition, Verdict
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.looks import Reading

ADMISSION_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histogram of the time to a verdict. The last is when no further round begins."""


@constant
class Seen(Live):
    """All that an item sees in its admission: the counts that close its plan, and what is known of its mailing and of
    holds.

    ``mailing``: the mailing that the item is a copy of, without the item. ``fresh``: how many of its people have no
    copy yet. ``grants``: approvals of the mailing that cover the item. ``entry``: the primary hold of the mailing, if
    one waits. ``queue``: the hold of other letters of the same sender. ``duplicate``: a hold of the same content and
    envelope that is live, void, or was released within a day.
    """

    mailing: Mailing | None = None
    fresh: int = 0
    grants: tuple[Grant, ...] = ()
    entry: Hold | None = None
    queue: Hold | None = None
    duplicate: Hold | None = None
    generation: int = 0
    astray: int = 0
    """It is a copy of what people allowed for the people of a set alone, and so many of its recipients are none of those, or may have a
    copy; nothing else takes it in."""
    in_doubt: bool = False
    """An earlier verdict to relay with the same key has an IN_DOUBT event, or no outcome: the relay may have the
    message (RFC 1047). Or approvals cover it, and another copy to its list is in doubt."""


@constant
class Item:
    """One transaction on its way into an admission.

    ``key``: SHA-256 over content and envelope, which identifies a retry. ``people``: 8-byte keyed digests of the single
    customers among its recipients. ``everybody``: each recipient once, list addresses too, for counts of more than
    customers. ``lists``: (name, version, people) of each addressed list. ``policy_sha256``: the policy that it was
    planned under; PolicyMoved is raised if another one is in force. ``touches``, ``senders`` and ``thread``: what a
    freeze compares with, as in Facts. ``identity``: what it is a copy of; None if nothing needed it.
    ``always``: lists whose people no approval for another list covers. ``coming``: the message for comparison with
    approvals; None until one may apply. ``test``: a preapproval, which counts nobody. ``gone``: whether the client has
    disconnected; then it is not admitted. ``doubled``: two of its recipients are one person.
    ``sent_by``, ``letter_from``: as in Facts. ``quoted``: as in Gathered. ``shared``: several people use the sender's
    mailbox; what it claims to answer is believed.
    ``refers_to``: Message-IDs of References and In-Reply-To.
    """

    id: str
    key: str
    policy_sha256: str
    content_sha256: str | None = None
    message_id: str = ""
    asks: tuple[Ask, ...] = ()
    people: tuple[bytes, ...] = ()
    everybody: tuple[Person, ...] = ()
    lists: tuple[tuple[str, str, int], ...] = ()
    touches: frozenset[str] = frozenset()
    senders: frozenset[str] = frozenset()
    thread: str = ""
    identity: Identity | None = None
    always: frozenset[str] = frozenset()
    coming: Candidate | None = None
    test: bool = False
    doubled: bool = False
    sent_by: tuple[str, ...] = ()
    letter_from: tuple[str, ...] = ()
    quoted: frozenset[bytes] = frozenset()
    shared: bool = False
    refers_to: tuple[str, ...] = ()
    gone: Callable[[], bool] | None = field(default=None, repr=False, compare=False)


@constant
class Admission:
    """What was decided, with everything that is written in the same commit.

    ``events`` begins with the verdict. ``hold`` is new, or a void hold of the same message as it waits again. ``disposition``
    is None if the message goes to the relay. ``mailing``: the mailing that it became part of. ``under``: the hold that it is
    stored under, or counted with until its client tries again.
    ``named``: subject, reverse-path and sender of a mailing's first message. ``grown``: the primary hold, if this
    message, stored under it or deferred, adds lists, rules or writers to it. ``progress``: of a release in stages that
    this message is part of. ``spared``: digests of those who get the message now although it is held (``scope:
    customers``). ``unfrozen``: lists whose freezes do not stop it. ``shown``: what the held message shows
    (reading.shown), packed.
    """

    verdict: Verdict
    events: tuple[Event, ...]
    disposition: Disposition | None = None
    hold: Hold | None = None
    counted: tuple[Ask, ...] = ()
    intents: tuple[Intent, ...] = ()
    mailing: str = ""
    under: str = ""
    named: tuple[str, str, str] = ("", "", "")
    grown: Hold | None = None
    progress: Progress | None = None
    spared: frozenset[bytes] = frozenset()
    shown: bytes | None = None
    unfrozen: frozenset[str] = frozenset()


class ComparisonMissing(StoreError):
    """An earlier decision or a freeze may be about this message. The caller must find out what it shows, and who wrote it
    (``Item.coming``), and try again. ``templates``: those to compare it with, by name (mailings.slots); None if nothing
    was decided on its mailing, and people are to decide on this message. ``approved``: approvals of its mailing that do
    not cover it, for which the reason is wanted."""

    def __init__(self, why: str, templates: Mapping[str, str] | None = None, approved: Sequence[Grant] = ()) -> None:
        super().__init__(why)
        self.templates = templates
        self.approved = tuple(approved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What would happen to a message. ``reading`` is always there, even if no rule needed it, since people want to see it."""

    verdict: Verdict
    reading: Reading
    recipients: Classified
    facts: Facts
