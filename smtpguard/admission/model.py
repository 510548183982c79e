"""The nouns of the one point where it is decided: what goes into an admission, what is seen there, and what comes out.

Guard makes them, the store carries them out; so they live here, where both may look.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from smtpguard.holds.model import NONE_YET, Hold, Settled
from smtpguard.journal.event import Event
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.mailings.cover import Coming
from smtpguard.mailings.model import Grant, Mailing, Person, Rejection
from smtpguard.mailings.staging import Progress, Stages
from smtpguard.policy.facts import Usual
from smtpguard.policy.verdict import Disposition, Verdict
from smtpguard.reading.fingerprint import Identity

ITSELF = "smtpguard"
"""Who lifts a freeze whose time is over, and who freezes where nobody has yet seen what happened."""
PUT_BACK = "The store was put back to an earlier state: what was sent, decided or frozen since then is not in it."
"""The reason of a freeze by the guard itself."""


class Selector(enum.Enum):
    """What a freeze stops."""

    ALL = "all"
    LIST = "list"
    SENDER = "sender"
    MAILING = "mailing"
    THREAD = "thread"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Stand still. ``value``: the list's name, the canonical sender, the mailing or the thread; "" for all. ``until``: None is until
    lifted. ``defers``: what it stops waits at its client, whatever the settings say, so that nobody has to let it go afterwards."""

    freeze_id: str
    selector: Selector
    value: str
    reason: str
    by: str
    at: datetime
    until: datetime | None = None
    defers: bool = False

    def stops(
        self, *, lists: frozenset[str], senders: frozenset[str], mailing: str, thread: str, now: datetime
    ) -> bool:
        """Whether it stops a message with these properties at ``now``."""
        if self.until is not None and now >= self.until:
            return False
        match self.selector:
            case Selector.ALL:
                return True
            case Selector.LIST:
                return self.value in lists
            case Selector.SENDER:
                return self.value in senders
            case Selector.MAILING:
                return bool(mailing) and self.value == mailing
            case Selector.THREAD:
                return bool(thread) and self.value == thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What every process must follow: ``generation`` grows with every freeze, thaw and change of policy."""

    generation: int
    policy_sha256: str
    freezes: tuple[Freeze, ...] = ()


class Ask(NamedTuple):
    """A count that a plan needs: distinct people (or Message-IDs, for ``thread.replies``) under ``key`` in the window.

    ``key`` is opaque: the canonical sender for ``sender.customers``, the thread, a list. For what is counted of a mailing it is
    empty, or a list of which the share is asked: which mailing that is, the admission finds by the item's identity. ``usual``: the
    count is told only where it is above that, too. ``same``: copies of the item's own mailing are counted alone.
    """

    fact: str
    key: str
    window_seconds: int
    usual: Usual | None = None
    same: bool = False


Questions = Mapping[str, Sequence[Ask]]
"""Of each slot of the rules that is counted, what is asked."""


def list_of(key: str) -> str:
    """Of the key of a count of lists, the list."""
    return key.partition("\0")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What is read in the admission itself. ``counts`` include this very item; ``maybe``: how many more they may be, since a
    list could not say. ``twin``: a hold of the same content and envelope that is live, void, or was released within a day.

    ``mailing``: what the item is a copy of, as it was before it; ``fresh``: how many people it would reach who have nothing of
    it yet; ``grants``: what people allowed of the mailing that takes it in; ``approved``: whether anything does; ``entry``: the
    hold under which people are to decide on it, if one waits. ``queue``: that of other letters of its sender.
    """

    now: datetime
    freezes: tuple[Freeze, ...] = ()
    counts: Mapping[Ask, int] = field(default_factory=dict)
    maybe: Mapping[Ask, int] = field(default_factory=dict)
    mailing: Mailing | None = None
    fresh: int = 0
    grants: tuple[Grant, ...] = ()
    approved: bool = False
    entry: Hold | None = None
    queue: Hold | None = None
    twin: Hold | None = None
    generation: int = 0
    in_doubt: bool = False
    """An earlier verdict to relay of the same key has an IN_DOUBT event, or no outcome: the relay may have it (RFC 1047)."""


class IntentKind(enum.Enum):
    RELEASE = "release"  # the held content, to its recipients
    PART = "part"  # the colleagues' part of a message whose customers' part is held
    NOTICE = "notice"  # to people, rendered when sent; data says which
    DSN = "dsn"  # to the reverse-path, null reverse-path


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """Something for the outbox. ``content_sha256`` for RELEASE and PART; NOTICE and DSN are rendered from ``data`` (JSON).

    An ``intent_id`` that is in the outbox already, settled or not, is not written a second time and is no error: that is how
    a digest is written once a person, whichever of many admissions and processes comes first.
    """

    intent_id: str
    kind: IntentKind
    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    hold_id: str | None = None
    content_sha256: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    not_before: datetime | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of a hold: the new hold, events and intents, in one commit.

    ``cover``: a template that ``grant`` refers to. ``apart``: a copy that is no copy of what was approved waits for people by itself.
    ``grant`` or ``rejection``: what was decided about all of its mailing, and ``stages``: in which it is let through;
    ``at_once``: to how many people it goes at once although its list declares stages. ``ungranted``:
    the hold whose approval stands no more. ``spared``: digests of recipients who will not get it, though others have it.
    """

    hold: Hold | None = None
    grant: Grant | None = None
    rejection: Rejection | None = None
    stages: Stages | None = None
    at_once: int = 0
    ungranted: str = ""
    cover: str = ""
    apart: bool = False
    spared: frozenset[bytes] = frozenset()
    events: tuple[Event, ...] = ()
    intents: tuple[Intent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An outbox entry that this owner may carry out until ``until``. ``token`` fences off an owner that was too slow.

    ``recipients`` are those that are due; ``attempts`` counts earlier ones. ``created_at``: when it entered the outbox.
    """

    lease_id: str
    token: int
    until: datetime
    intent: Intent
    recipients: tuple[Recipient, ...]
    attempts: int
    created_at: datetime
    in_doubt: bool = False
    doubts: tuple[int, ...] = ()
    """Of each of ``recipients`` how many attempts ended without anybody knowing how; empty where all are 0."""
    settled: Settled = NONE_YET
    """Recipients of which it is known by now what became of them."""


class Delivered(enum.Enum):
    """What an attempt has come to for one recipient, or, IN_DOUBT, that it has begun or ended without an answer."""

    SENT = "sent"
    RETRY = "retry"
    FAILED = "failed"
    IN_DOUBT = "in-doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one recipient of a lease. ``reply`` is the relay's, in words; ``next_at`` for RETRY and IN_DOUBT.

    ``doubts``: of how many attempts so far nobody knows how they ended; a later lease says it again. One that FAILED after any
    may have it. ``people``: keyed digests of those behind the recipient; None where that is not said. ``asks``: IN_DOUBT, it is not
    tried again by itself: at ``next_at`` people are asked, unless the answer has come.
    """

    recipient: Recipient
    delivered: Delivered
    reply: str = ""
    next_at: datetime | None = None
    doubts: int = 0
    people: tuple[bytes, ...] | None = None
    asks: bool = False


Over = Callable[[Hold, str], tuple[tuple[Event, ...], tuple[Intent, ...]]]
"""What is journalled and who is told once nothing is to be done about a release any more: of the hold as it is then, and the id of
the release."""


class LedgerError(Exception):
    """The store could not do it; nothing was written, or nobody can know."""


class PolicyMoved(LedgerError):
    """Another policy is in force than the item was planned under: plan again."""


class ContentMissing(LedgerError):
    """The content that the hold refers to is not kept (swept meanwhile): keep it again."""


class ComparisonMissing(LedgerError):
    """Something that people decided may be about this message: say what it shows, and who stands behind it (``Item.coming``).
    ``templates``: by their names, those that it is to be compared with (policy.slots). ``approved``: what people allowed of its mailing,
    of which somebody wants to know why it does not take it in."""

    def __init__(self, why: str, templates: Mapping[str, str] | None = None, approved: Sequence[Grant] = ()) -> None:
        super().__init__(why)
        self.templates = templates or {}
        self.approved = tuple(approved)


class Busy(LedgerError):
    """2,000 are waiting, or this one waited 20 s."""


class Full(LedgerError):
    """No space, or the quota of held content is used up."""


class Unavailable(LedgerError):
    """The database cannot be reached, or answered with an error."""


class Unusable(Unavailable):
    """It answers, and cannot be used as it is: trying again would not help."""


class PolicyUnreadable(Unavailable):
    """The policy in force is one that this version cannot read: nothing is decided until another is in force."""


class Gone(LedgerError):
    """The client had left before its batch: nothing was decided, nothing written."""
