"""The facts of one message from its recipients, header and text. Pure.

What a list cannot say becomes an interval, or Unknown with its reason. A fact that no list touches costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from smtpguard.lists.declared import ListInfo
from smtpguard.lists.recipients import EXACT, LIST, ONE, Classification, Classified, largest, share
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.envelope import Transaction
from smtpguard.policy.facts import FACTS, NONE, Count, Source, Type, Unknown, Value
from smtpguard.reading.fold import UNCLEAR
from smtpguard.reading.looks import Readable, Reading
from smtpguard.reading.marks import NOT_TO_GO_OUT, UNFINISHED, Side

FEW = 3  # customers of a letter
OF_HEADER = tuple(f.name for f in FACTS.values() if f.source is Source.HEADERS and f.area != "sender")
OF_TEXT = tuple(f.name for f in FACTS.values() if f.source is Source.TEXT)
NUMBERS = tuple(f.name for f in FACTS.values() if f.source is Source.TEXT and f.type is Type.COUNT)
_NOTHING: frozenset[str] = frozenset()
_NO_ADDRESS = Unknown(why="the MTA names no address of its client")
_NO_LIST: Mapping[str, Value] = {
    "recipients.share": NONE,
    "recipients.lists": _NOTHING,
    "recipients.audience": _NOTHING,
    "recipients.sensitivity": _NOTHING,
    "list.language": _NOTHING,
}


def of_envelope(
    transaction: Transaction, counted: Classified, total: int, lists: Mapping[str, ListInfo]
) -> dict[str, Value]:
    """Return the facts from envelope and session. ``counted``: the recipients to judge; ``total``: the number of RCPTs."""
    session, size_mb = transaction.session, len(transaction.message.raw) / (1 << 20)
    domains: set[str] = set()
    for r in counted.recipients:
        if r.address.plain:
            domains.add(r.address.domain)
        else:
            domains.update(r.address.domains(r.canonical))
    return {
        "client": session.client_ip or _NO_ADDRESS,
        "listener": session.listener,
        "listener.proves_senders": session.proves_senders,
        "login": frozenset({session.auth_user.lower()}) if session.auth_user else _NOTHING,
        "message.size_mb": Count(size_mb, size_mb),
        "recipients.total": EXACT[total],
        "recipients.internal": counted.internal,
        "recipients.outside": counted.outside,
        "recipients.list_addresses": counted.list_addresses,
        "recipients.members": counted.members,
        "recipients.customers": counted.customers,
        "recipients.reach": counted.reach,
        "recipients.domains": frozenset(domains),
        **(_of_lists(counted, lists) if counted.touched else _NO_LIST),
    }


def of_header(reading: Reading, counted: Classified, *, bears_out: bool) -> dict[str, Value]:
    """Return the facts from the header. ``bears_out``: more than the header proves that the message is automatic."""
    undisclosed = NONE
    if counted.touched or counted.crowds:
        hidden = [r for r in _distinct(counted) if r.canonical not in reading.shown or r.kind is LIST]
        certain = sum(r.customers for r in hidden)
        undisclosed = Count(certain, certain + sum(r.perhaps for r in hidden))
    return {
        "message.labels": reading.labels,
        "message.automatic": reading.automatic and bears_out,
        "recipients.undisclosed": undisclosed,
    }


def of_text(
    reading: Reading, counted: Classified, lists: Mapping[str, ListInfo], looks_unknown: Unknown | None
) -> dict[str, Value]:
    """Return the facts from the text. ``looks_unknown``: why the looks are unknown although the text was read."""
    values: dict[str, Value] = {"message.readable": reading.readable.value}
    found = frozenset(t.vocabulary for t in reading.topics)
    certain = found & frozenset().union(*(lists[n].avoid for n in counted.lists))
    possible = found & frozenset().union(*(lists[n].avoid for n in counted.touched))
    marks = frozenset([m.name for m in reading.marks])
    unfinished = marks & UNFINISHED
    if reading.readable is not Readable.YES:
        unread = Unknown(why=reading.why_unreadable or f"the message is {reading.readable.value}")
        return {
            **dict.fromkeys(OF_TEXT, unread),
            **values,
            "message.topics": replace(unread, known=found),
            "message.unsuitable_topics": replace(unread, known=certain),
            "message.unfinished": replace(unread, known=unfinished),
            "message.marks": replace(unread, known=marks),
        }
    return values | {
        **_numbers(reading),
        "message.looks": looks_unknown or reading.looks.value,
        "message.correspondence": _correspondence(reading, counted),
        "message.topics": found,
        "message.unfinished": unfinished,
        "message.language": reading.language or UNCLEAR,
        "message.marks": marks,
        "message.unsuitable_topics": certain if certain == possible else Unknown(why=_doubt(counted), known=certain),
    }


def evidence_of(reading: Reading) -> dict[str, tuple[Phrase, ...]]:
    """Return the evidence in the text, as phrases. Marks of unfinished text come first, then those of text not meant for others,
    then those of internal mail, the heaviest first."""
    marks = sorted(
        reading.marks,
        key=lambda m: (
            m.name not in UNFINISHED,
            m.name not in NOT_TO_GO_OUT,
            m.side is not Side.INTERNAL,
            m.side is Side.NEITHER,
            -m.weight,
        ),
    )
    return {
        "message.looks": tuple([m.evidence for m in marks]),
        "message.unfinished": tuple([m.evidence for m in marks if m.name in UNFINISHED]),
        "message.unsuitable_topics": topics_of(reading),
    }


def topics_of(reading: Reading, first: Collection[str] = ()) -> tuple[Phrase, ...]:
    """Return each word of a topic and where it stands; those of the vocabularies ``first`` come first."""
    found = sorted(reading.topics, key=lambda t: t.vocabulary not in first)
    return tuple(dict.fromkeys(t.phrase for t in found))


def _numbers(reading: Reading) -> dict[str, Value]:
    """Return the numbers that the reading counts in a text, by the name of their fact."""
    found = {name: reading.numbers.get(name.partition(".")[2]) for name in NUMBERS}
    return {name: Unknown(why="it was not counted") if n is None else Count.exactly(n) for name, n in found.items()}


def _of_lists(counted: Classified, lists: Mapping[str, ListInfo]) -> dict[str, Value]:
    certain = counted.lists
    touched = [lists[name] for name in certain]
    maybe = [lists[name] for name in counted.touched.keys() - certain]

    def words(of: Callable[[ListInfo], Iterable[str]]) -> Value:
        sure = frozenset(word for info in touched for word in of(info))
        more = frozenset(word for info in maybe for word in of(info))
        return sure if more <= sure else Unknown(why=_doubt(counted), known=sure)

    return {
        "recipients.share": largest(
            ONE if t.by_address else share(t.members, t.size) for t in counted.touched.values()
        ),
        "recipients.lists": words(lambda info: (info.name,)),
        "recipients.audience": words(lambda info: (info.audience,)),
        "list.language": words(lambda info: info.language),
        "recipients.sensitivity": words(lambda info: (info.sensitivity,) if info.sensitivity else ()),
    }


def _distinct(counted: Classified) -> list[Classification]:
    return list({r.canonical: r for r in counted.recipients}.values())


def _correspondence(reading: Reading, counted: Classified) -> Value:
    """Return whether the message is a letter: to at most three customers, all in To or Cc, and no forwarded thread of
    colleagues."""
    if counted.list_addresses.high or reading.forwarded_thread:
        return False
    members = [r for r in _distinct(counted) if r.customers]
    possible = [r for r in _distinct(counted) if r.customers or r.perhaps]
    if sum(r.customers for r in members) > FEW or any(r.canonical not in reading.shown for r in members):
        return False
    if sum(r.customers + r.perhaps for r in possible) <= FEW and all(r.canonical in reading.shown for r in possible):
        return True
    return Unknown(why=_doubt(counted))


def _doubt(counted: Classified) -> str:
    return "; ".join(sorted(set(counted.unsure.values()))) or "a list cannot say who is on it"
