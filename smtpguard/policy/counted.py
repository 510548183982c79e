"""Facts that are counted over transactions: the keys under which each is counted, and the value of the answer.

One table. A fact is asked of the store (Ask), once or, for a share of lists, once for each list; the store's answer
(Live.counts) gives its value. A fact that needs no count, since this message adds nobody, is answered here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from smtpguard.lists.recipients import EXACT, largest, share
from smtpguard.mail.constant import constant
from smtpguard.policy.condition import Condition
from smtpguard.policy.facts import NONE, OF_LETTERS, OF_LISTS, OF_SENDERS, Count, Facts, Unknown, Usual, Value
from smtpguard.policy.freezing import Freeze

DAY = 86_400
"""The window of a mailing's counts, in seconds."""


class Ask(NamedTuple):
    """A count that a plan needs: distinct people (or Message-IDs, for ``thread.replies``) under ``key`` in the window.

    ``key`` is opaque: a name of the sender for ``sender.customers``, the thread, a list. For a mailing's counts it is
    empty, or a list whose share is asked: the admission finds the mailing by the item's identity. ``usual``: the count
    is given only if it is above that too. ``same``: only copies of the item's own mailing are counted.
    """

    fact: str
    key: str
    window_seconds: int
    usual: Usual | None = None
    same: bool = False


Asks = Mapping[str, Sequence[Ask]]
"""The asks of each counted slot of the rules."""


def list_of(key: str) -> str:
    return key.partition("\0")[0]


def sender_of(key: str) -> str:
    """Return the sender in the key of a count of letters, "" if it counts those of all senders."""
    return key.rpartition("\0")[2]


@constant
class Live:
    """The values that close a plan, read in the admission itself. ``counts`` include this item; ``maybe``: how many
    more they may be, since a list was unavailable. ``mailing_id``: of the mailing that it is a copy of; ``approved``:
    whether an approval of that covers it."""

    now: datetime
    freezes: tuple[Freeze, ...] = ()
    counts: Mapping[Ask, int] = field(default_factory=dict)
    maybe: Mapping[Ask, float] = field(default_factory=dict)
    mailing_id: str = ""
    approved: bool = False


class Subject(NamedTuple):
    """The part of a message that gives the keys under which it is counted, and nothing else: many messages have equal
    ones. ``sizes``: the lists that it touches, or may touch; ``sender``, ``customers``, ``reach``: values of facts,
    None if not asked for yet."""

    sender: Value | None
    customers: Value | None
    reach: Value | None
    lists: tuple[str, ...]
    letter_from: tuple[str, ...]
    also_from: str
    threads: tuple[str, ...]
    reply: str
    shared: bool

    @classmethod
    def of(cls, facts: Facts) -> Subject:
        get, lists = facts.values.get, tuple(sorted(facts.sizes)) if facts.sizes else ()
        given = (
            get("sender.address"), get("recipients.customers"), get("recipients.reach"), lists,
            facts.letter_from, facts.also_from, facts.threads, facts.reply, facts.shared,
        )  # fmt: skip
        return tuple.__new__(cls, given)


Keys = Callable[[Subject], "list[str] | Value | None"]
"""The keys of a count; a value if it is known without counting; None if the keys are not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """``lazy``: asked and counted only for messages for which a rule still needs it. ``everybody``: each recipient must
    be known to count it; else customers are enough."""

    keys: Keys
    answer: Callable[[Mapping[str, Count], Facts], Value]
    window_seconds: int = 0
    lazy: bool = False
    everybody: bool = False


def _sender(subject: Subject) -> list[str] | Value | None:
    address = subject.sender
    if address is None or isinstance(address, Unknown):
        return address
    if not isinstance(address, str) or not address:
        return Unknown(why="the message has no sender")
    return list(dict.fromkeys((address, subject.also_from))) if subject.also_from else [address]


def _mailing(subject: Subject) -> list[str] | Value | None:
    """A message that can reach no customer is no part of a mailing to customers."""
    return NONE if isinstance(subject.customers, Count) and not subject.customers.high else [""]


def _lists(subject: Subject) -> list[str] | Value | None:
    """Return the keys of each list that it touches, or may touch."""
    return list(subject.lists) or NONE


def _letter(subject: Subject) -> list[str] | Value | None:
    """Return the names under which the first contacts of a letter are counted; none if it is no letter."""
    return list(subject.letter_from) or NONE


def _answers(subject: Subject) -> list[str] | Value | None:
    return NONE if subject.shared else _letter(subject)


def _letter_to_lists(subject: Subject) -> list[str] | Value | None:
    """Return the keys of a letter for each list that it touches, or may touch."""
    return [f"{name}\0{sender}" for sender in subject.letter_from for name in subject.lists] or NONE


def _letter_of_lists(subject: Subject) -> list[str] | Value | None:
    return [f"{name}\0" for name in subject.lists] if subject.letter_from and subject.lists else NONE


def _unanswered(subject: Subject) -> list[str] | Value | None:
    if subject.letter_from:
        return [""]
    return None if subject.customers is None else False


def _thread(subject: Subject) -> list[str] | Value | None:
    if subject.sender is None:
        return None  # the header was not asked yet
    return list(subject.threads) or NONE


def _reply(subject: Subject) -> list[str] | Value | None:
    """A message that is no reply reaches only its own recipients."""
    if subject.sender is None:
        return None
    return [subject.reply] if subject.reply else subject.reach


def _only(counts: Mapping[str, Count], facts: Facts) -> Value:
    [count] = counts.values()
    return count


def _most(counts: Mapping[str, Count], facts: Facts) -> Value:
    return _only(counts, facts) if len(counts) == 1 else largest(counts.values())


def _none(counts: Mapping[str, Count], facts: Facts) -> Value:
    """Return whether it answers all of its recipients."""
    count = _only(counts, facts)
    return not count.high if isinstance(count, Count) else count


def _reached(counts: Mapping[str, Count], facts: Facts) -> Value:
    """Return at least the people that this transaction reaches by itself. With a list without an index that may be
    anybody."""
    count, own = _only(counts, facts), facts.values.get("recipients.reach")
    if not isinstance(count, Count) or not isinstance(own, Count):
        return count
    return Count(max(count.low, own.low), max(count.high, own.high))


def _share(counts: Mapping[str, Count], facts: Facts) -> Value:
    """Return the largest share of any one list; up to all of a list of unknown size."""
    return largest(share(count, facts.sizes.get(name, NONE)) for name, count in counts.items())


COUNTED: Mapping[str, Counted] = {
    "mailing.customers": Counted(keys=_mailing, answer=_only, window_seconds=DAY),
    "mailing.ever": Counted(keys=_mailing, answer=_only, window_seconds=30 * DAY),
    "mailing.reach": Counted(keys=lambda subject: [""], answer=_only, window_seconds=DAY),
    "mailing.share": Counted(keys=_lists, answer=_share, window_seconds=DAY),
    "list.customers": Counted(keys=_lists, answer=_most, everybody=True),
    "list.share": Counted(keys=_lists, answer=_share, everybody=True),
    "thread.replies": Counted(keys=_thread, answer=_most, lazy=True),
    "thread.reach": Counted(keys=_reply, answer=_reached, lazy=True, everybody=True),
    "sender.customers": Counted(keys=_sender, answer=_most),
    "sender.first_contacts": Counted(keys=_letter, answer=_most, everybody=True),
    "sender.list_contacts": Counted(keys=_letter_to_lists, answer=_most, everybody=True),
    "list.first_contacts": Counted(keys=_letter_of_lists, answer=_most, everybody=True),
    "sender.answers": Counted(keys=_answers, answer=_most, everybody=True),
    "message.answers": Counted(keys=_unanswered, answer=_none, window_seconds=DAY, everybody=True),
}
OF_EACH_RECIPIENT = frozenset(fact for fact, count in COUNTED.items() if count.everybody)
"""Counts for which each recipient must be known."""

LET_THROUGH = OF_LETTERS | OF_LISTS | OF_SENDERS
"""Counts of senders and lists that leave out held messages."""

UNDECIDED = OF_LISTS | {"sender.customers"}
"""Those of them that leave out streams and what was approved too."""

RESTS = "thread.rests"
"""The count of a stopped conversation: the reply at which a rule with ``stop`` took effect."""

APPROVED = "mailing.approved"
"""The one live fact that is no count."""


def questions_of(
    conditions: Iterable[Condition], subject: Subject
) -> tuple[Mapping[str, tuple[Ask, ...]], Mapping[str, Value]]:
    """Return two mappings by slot: the asks for the store, and the values that need none. A slot in neither depends
    on facts that are not known yet."""
    asks: dict[str, tuple[Ask, ...]] = {}
    known: dict[str, Value] = {}
    for c in conditions:
        name, counted = c.fact.name, COUNTED[c.fact.name]
        keys = counted.keys(subject)
        if isinstance(keys, list):
            seconds = counted.window_seconds or c.window_seconds
            if c.lists is not None:
                keys = [key for key in keys if list_of(key) in c.lists]
            if keys:
                asks[c.slot] = tuple(Ask(name, key, seconds, c.usual, c.same) for key in keys)
                continue
            keys = NONE
        if keys is not None:
            known[c.slot] = keys
    return asks, known


def value_of(questions: Sequence[Ask], live: Live, facts: Facts) -> Value:
    """Return the value of a fact from the store's answers."""
    counts: dict[str, Count] = {}
    maybe = live.maybe
    for question in questions:
        low = live.counts.get(question)
        if low is None:
            return Unknown(why="it was not counted")
        counts[question.key] = Count(low, low + maybe.get(question, 0)) if maybe else EXACT[low]
    return COUNTED[questions[0].fact].answer(counts, facts)
