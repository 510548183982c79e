"""The input of an admission, what it sees of the store, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from smtpguard.database.errors import LedgerError
from smtpguard.holds.model import Hold
from smtpguard.journal.event import Event
from smtpguard.mailings.model import Coming, Grant, Mailing, Person
from smtpguard.mailings.staging import Progress
from smtpguard.outbox.model import Intent
from smtpguard.policy.counted import Ask, Live
from smtpguard.policy.verdict import Disposition, Verdict
from smtpguard.reading.fingerprint import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen(Live):
    """All that an item sees in its admission: beside what its plan is closed with, what is known of its mailing and of holds.

    ``mailing``: what the item is a copy of, as it was before it; ``fresh``: how many people it would reach who have nothing of
    it yet; ``grants``: what people allowed of the mailing that takes it in; ``entry``: the hold under which people are to decide on it,
    if one waits. ``queue``: that of other letters of its sender. ``twin``: a hold of the same content and envelope that is live, void,
    or was released within a day.
    """

    mailing: Mailing | None = None
    fresh: int = 0
    grants: tuple[Grant, ...] = ()
    entry: Hold | None = None
    queue: Hold | None = None
    twin: Hold | None = None
    generation: int = 0
    in_doubt: bool = False
    """An earlier verdict to relay of the same key has an IN_DOUBT event, or no outcome: the relay may have it (RFC 1047)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One transaction on its way into an admission.

    ``key``: SHA-256 over content and envelope, by which a retry is known. ``people``: 8-byte keyed digests of the single
    customers among its recipients; ``everybody``: each recipient once, list addresses too, for what counts more than
    customers. ``lists``: (name, version, people) of each addressed list. ``policy_sha256``: what it was
    planned under; another policy in force raises PolicyMoved. ``touches``, ``senders``, ``mailing`` and ``thread`` are what
    a freeze looks at, as in Facts. ``identity``: what it is a copy of, None where nothing needed it;
    ``always``: lists whose people no approval for another list covers. ``coming``: the message as approvals look at it, None where it is not known yet that one may apply;
    ``test``: it is only to be looked at, and counts nobody. ``gone``: whether the client has left meanwhile; then it is not admitted.
    ``letter_from``: under whom the first contacts of a letter to customers are counted; ``quoted``: digests of recipients whom it
    quotes by name; ``shared``: its sender is a mailbox in which several answer, whose word for that is taken; ``refers_to``:
    Message-IDs of References and In-Reply-To.
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
    mailing: str = ""
    thread: str = ""
    identity: Identity | None = None
    always: frozenset[str] = frozenset()
    coming: Coming | None = None
    test: bool = False
    letter_from: tuple[str, ...] = ()
    quoted: frozenset[bytes] = frozenset()
    shared: bool = False
    refers_to: tuple[str, ...] = ()
    gone: Callable[[], bool] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What was decided, with everything that is to be written in the same commit.

    ``events`` begins with the verdict. ``hold`` is new, or None. ``disposition`` is None where the way on is the relay's.
    ``adopt``: the id of a void hold that is waiting again. ``mailing``: what it became part of, and ``named``: subject,
    reverse-path and sender, kept of a mailing's first message. ``grown``: the hold that people are to decide on, where this
    message, stored under it or deferred, adds lists, rules or writers to what they decide. ``progress``: of a release in
    stages that this message is part of. ``spared``: digests of those who get it now though it is held (``scope: customers``).
    ``leads``: copies that still come are stored under ``hold``. ``shown``: what the held message shows (reading.shown), packed.
    """

    verdict: Verdict
    events: tuple[Event, ...]
    disposition: Disposition | None = None
    hold: Hold | None = None
    adopt: str | None = None
    counted: tuple[Ask, ...] = ()
    intents: tuple[Intent, ...] = ()
    generation: int = 0
    mailing: str = ""
    named: tuple[str, str, str] = ("", "", "")
    grown: Hold | None = None
    progress: Progress | None = None
    spared: frozenset[bytes] = frozenset()
    leads: bool = True
    shown: bytes | None = None


class ComparisonMissing(LedgerError):
    """Something that people decided may be about this message: say what it shows, and who stands behind it (``Item.coming``).
    ``templates``: by their names, those that it is to be compared with (mailings.slots). ``approved``: what people allowed of its mailing,
    of which somebody wants to know why it does not take it in."""

    def __init__(self, why: str, templates: Mapping[str, str] | None = None, approved: Sequence[Grant] = ()) -> None:
        super().__init__(why)
        self.templates = templates or {}
        self.approved = tuple(approved)
