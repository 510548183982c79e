"""The facts that a verdict's entry keeps, beside its counts, lists and looks, for `replay --passed` (recalled reads them back).

``data.facts`` maps a fact, or a fact and its window, to its value. Values equal to the defaults (``usual_*``, from the rest of the
entry) are omitted. A value is as in JSON; a set is a list, an
interval ``[low, high]`` with null for no end; null: it could not be found out. NOT_KEPT: it was not asked for, or it is
people's own words, which never enter the chain. An entry without ``facts`` is from before they were kept.

Cheap, since it runs in the store's writer while others wait. The ordinary message adds ``"facts":{}``, and one whose text was read the
facts that the table keeps whole. Nothing is ever asked for to be kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from smtpguard.admission.model import Seen
from smtpguard.admission.standing import is_anothers_letter, refused_by
from smtpguard.gathering.gather import Gathered
from smtpguard.gathering.values import FEW
from smtpguard.holds.model import State
from smtpguard.lists.recipients import Span, Touched
from smtpguard.policy import counted
from smtpguard.policy.counted import Ask, Questions
from smtpguard.policy.facts import FACTS as TABLE
from smtpguard.policy.facts import NONE, OF_MAILINGS, Count, Kept, Source, Unknown, Value

FACTS = "facts"
NOT_KEPT = "?"
WAITING, REJECTED = "mailing.waiting", "mailing.rejected"
"""Of the mailing that it is part of: a hold of it waits; people have refused it. Nobody asks for these as facts."""
BUSY = 20
"""Counts of a conversation that reaches fewer people are not kept. The table of facts says of which others too few are as everybody's."""
WHOLE = tuple(fact.name for fact in TABLE.values() if fact.kept is Kept.WHOLE and fact.source is not Source.LIVE)
EXACT = ("internal", "outside", "list_addresses", "members", "customers", "reach")
"""What ``data.counts`` has at the least of it; usually that is all."""
ALL = Count.exactly(1)

_NOTHING: frozenset[str] = frozenset()


def usual_share(list_addresses: float, lists: Collection[str]) -> Value | None:
    """All of a list at its address, and nothing of none. A share that a few customers are is not kept (None)."""
    if list_addresses:
        return ALL
    return None if lists else NONE


def usual_correspondence(list_addresses: float, customers: float, undisclosed: Value) -> bool:
    """A few customers, whom To or Cc shows."""
    return not list_addresses and customers <= FEW and undisclosed == NONE


def usual_unsuitable(topics: Value, avoided: Collection[str]) -> Value:
    """Of the topics found those that one of the lists is to be spared."""
    return topics & frozenset(avoided) if isinstance(topics, frozenset) else topics


def kept(gathered: Gathered, questions: Questions, live: Seen) -> dict[str, Any]:
    """What stands in the entry. ``questions``: of the plan that was closed with ``live``."""
    found: dict[str, Any] = {}
    values, everyone, sender = gathered.facts.values, gathered.everyone, gathered.sender
    if everyone.touched or gathered.post is not None:
        _add_lists(found, gathered)
    if automatic := values["message.automatic"]:
        found["message.automatic"] = _plain(automatic)
        if isinstance(automatic, Unknown):  # the header could not be read
            found["recipients.undisclosed"] = None
    if labels := values["message.labels"]:
        found["message.labels"] = None if isinstance(labels, Unknown) else NOT_KEPT
    if sender.claimed is not None:
        if not sender.internal:
            found["sender.internal"] = False
        proven = values.get("sender.proven")
        if proven is not (gathered.transaction.session.auth_user is not None):
            found["sender.proven"] = _plain(proven)
        if proven is not True and gathered.transaction.session.proves_senders:
            found["listener.proves_senders"] = True
        if type(stream := values.get("stream")) is not frozenset:
            found["stream"] = _plain(stream)
    if gathered.text is not None:
        _add_text(found, gathered)
    for name in WHOLE:  # an entry without one is from before it was kept, or nobody asked
        if (value := values.get(name)) is not None:
            found[name] = _plain(value)
    for slot, asks in questions.items():
        if max(live.counts.get(ask, 0) for ask in asks) < TABLE[asks[0].fact].kept_from:
            continue  # of nearly all mail
        if not _is_own(asks, gathered, live):
            found[slot] = _plain(counted.answered(asks, live, gathered.facts))
    if live.mailing is not None:
        if live.approved:
            found[counted.APPROVED] = True
        entry = live.entry
        if entry is not None and entry.state is State.WAITING and not is_anothers_letter(gathered, entry.senders):
            found[WAITING] = True
        if refused_by(gathered, live) is not None:
            found[REJECTED] = True
    return found


def _add_lists(found: dict[str, Any], gathered: Gathered) -> None:
    """Of a message that touches lists, or perhaps; and of copies of a post, which are judged beside it."""
    values, everyone, judged = gathered.facts.values, gathered.everyone, gathered.counted
    addresses = judged.list_addresses.low
    if gathered.post is not None or everyone.unsure or everyone.reach.high > everyone.reach.low:
        for name in EXACT:
            span: Span = getattr(everyone, name)
            value = values[f"recipients.{name}"]
            if value != (span.low, span.low):
                found[f"recipients.{name}"] = _plain(value)
        for name in ("recipients.lists", "recipients.audience", "recipients.sensitivity"):
            value = values[name]
            if isinstance(value, Unknown) or (name == "recipients.lists" and value != everyone.lists):
                found[name] = _plain(value)
    if addresses or judged.customers.low > FEW or everyone.unsure:
        usually = usual_share(addresses, judged.lists)
        if (share := values["recipients.share"]) != usually:
            found["recipients.share"] = _plain(share)
    if (undisclosed := values["recipients.undisclosed"]) != NONE:
        found["recipients.undisclosed"] = _plain(undisclosed)
    if (writer := values.get("sender.is_writer")) is not (not addresses):
        found["sender.is_writer"] = _plain(writer)


def _add_text(found: dict[str, Any], gathered: Gathered) -> None:
    """Of a text that was asked for, whether it could be read or not."""
    values, judged = gathered.facts.values, gathered.counted
    if type(values["message.looks"]) is not str:
        found["message.looks"] = None
    if (readable := values["message.readable"]) != "yes":
        found["message.readable"] = _plain(readable)
    if unfinished := values["message.unfinished"]:
        found["message.unfinished"] = _plain(unfinished)
    topics, unsuitable = values["message.topics"], values["message.unsuitable_topics"]
    if topics or unsuitable:
        found["message.topics"] = _plain(topics)
        lists = gathered.in_force.registry.lists
        avoided = _NOTHING.union(*(lists[name].avoid for name in judged.lists))
        if unsuitable != usual_unsuitable(topics, avoided):
            found["message.unsuitable_topics"] = _plain(unsuitable)
    usually = usual_correspondence(judged.list_addresses.low, judged.customers.low, values["recipients.undisclosed"])
    if (correspondence := values["message.correspondence"]) is not usually:
        found["message.correspondence"] = _plain(correspondence)


def _is_first(gathered: Gathered, live: Seen) -> bool:
    """Whether nobody else has anything of its mailing yet, and it goes to single people: then it alone is what counts."""
    everyone = gathered.everyone
    return (
        (live.mailing is None or not live.mailing.messages)
        and not everyone.list_addresses.low
        and not everyone.unsure
        and not everyone.crowds
        and gathered.post is None
    )


def _is_own(asks: Sequence[Ask], gathered: Gathered, live: Seen) -> bool:
    """Whether what was counted is what the message comes to by itself, or too little to be kept."""
    fact = asks[0].fact
    if fact in OF_MAILINGS and _is_first(gathered, live):
        return True
    match TABLE[fact].area, TABLE[fact].own:
        case "thread", _:
            return gathered.everyone.reach.low < BUSY
        case _, "recipients.customers":
            return _counts(asks[0], gathered.counted.customers, live)
        case _, "recipients.reach":
            return _counts(asks[0], gathered.counted.reach, live)
        case _, "recipients.share":
            touched = gathered.counted.touched
            return all(_counts(ask, _of_list(touched[ask.key]), live) for ask in asks)
    return False


def _of_list(touched: Touched) -> Span:
    return touched.size if touched.by_address else touched.members


def _counts(ask: Ask, own: Span, live: Seen) -> bool:
    count = live.counts.get(ask)
    return count == own.low and count + live.maybe.get(ask, 0) == own.high


def _plain(value: Value | None) -> Any:
    match value:
        case None:
            return NOT_KEPT
        case Unknown():
            return None
        case Count(low=low, high=high):
            return _figure(low) if low == high else [_figure(low), None if high == float("inf") else _figure(high)]
        case frozenset():
            return sorted(value)
    return value


def _figure(n: float) -> float:
    return int(n) if n == n // 1 else n


def value_of(plain: Any) -> Value | None:
    """As it was, from what is kept of it; None for what is not. Where nothing could be found out, Unknown says so without why."""
    match plain:
        case None:
            return Unknown(why="")
        case bool():
            return plain
        case int() | float():
            return Count.exactly(plain)
        case [int() | float() as low, None | int() | float() as high]:
            return Count(low, float("inf") if high is None else high)
        case list():
            return frozenset(map(str, plain))
        case str() if plain != NOT_KEPT:
            return plain
    return None
