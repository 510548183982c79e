"""Everything that a rule may ask, and nothing else: one table of facts, and the values of one message.

A value is a truth, a word, a set of words, an address in a network, or a count. A count is an interval, since with no usable index a recipient is
nobody or one customer. What could not be found out is Unknown, and says why; what has not been asked yet is absent.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.language import LANGUAGES, UNCLEAR


class Source(enum.Enum):
    """Where a fact comes from, in the order of what it costs to ask."""

    ENVELOPE = "envelope"  # recipients and lists: always known, or unknown, before anything else
    HEADERS = "headers"
    TEXT = "text"
    ORIGIN = "origin"  # DKIM: needs DNS
    LIVE = "live"  # counts, freezes and approvals: read in the admission


ONLY_HEADERS, ONLY_TEXT, ONLY_ORIGIN = (frozenset({s}) for s in (Source.HEADERS, Source.TEXT, Source.ORIGIN))


class Type(enum.Enum):
    TRUTH = "truth"
    WORD = "word"
    WORDS = "words"
    NETWORK = "network"
    COUNT = "count"
    SHARE = "share"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Could not be found out. ``why`` is a phrase for operators: "the list ramadan-greetings has no index"."""

    why: str


class Count(NamedTuple):
    """At least ``low``, at most ``high`` (both inclusive). Shares are counts between 0 and 1. A tuple, since each message has a
    dozen, by which what the rules made of them is remembered."""

    low: float
    high: float

    @classmethod
    def exactly(cls, n: float) -> Count:
        return cls(n, n)

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def __str__(self) -> str:
        return f"{self.low:.12g}" if self.exact else f"{self.low:.12g} to {self.high:.12g}"


NONE = Count(0, 0)


class Usual(NamedTuple):
    """A count under ``least`` is told as it is; one from there on only if it is also ``times`` what is usual, else as 0: the most
    that was counted in any window of that length between 35 and 7 days ago, so that nobody makes it usual within a week."""

    times: float
    least: float


Value = bool | str | frozenset[str] | Count | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What may be asked. ``words``: the closed set of values, where there is one. ``windowed``: asked with "in 1h"."""

    name: str
    type: Type
    source: Source
    doc: str
    words: tuple[str, ...] = ()
    windowed: bool = False


def _facts(*facts: Fact) -> Mapping[str, Fact]:
    return {f.name: f for f in facts}


E, H, T, O, L = Source.ENVELOPE, Source.HEADERS, Source.TEXT, Source.ORIGIN, Source.LIVE

FACTS: Mapping[str, Fact] = _facts(
    Fact(name="client", type=Type.NETWORK, source=E,
         doc="the address of the client, as a trusted MTA or proxy tells it where one stands in front"),
    Fact(name="listener", type=Type.WORD, source=E,
         doc="the listener that it came through: its name in the settings, or its address and port, like 127.0.0.1:10025"),
    Fact(name="listener.proves_senders", type=Type.TRUTH, source=E,
         doc="whether the listener that it came through proves who sends: it has `auth`, or `senders_verified`"),
    Fact(name="login", type=Type.WORDS, source=E,
         doc="the user who logged in, in lower case; none where nobody did"),
    Fact(name="message.looks", type=Type.WORD, source=T, words=("internal", "mailing", "unclear"),
         doc="internal, mailing or unclear, from marks with evidence"),
    Fact(name="message.correspondence", type=Type.TRUTH, source=T,
         doc="one-to-one or few: at most 3 customers, all of them in To or Cc, not a thread of colleagues forwarded"),
    Fact(name="message.topics", type=Type.WORDS, source=T, doc="vocabularies with terms in the text"),
    Fact(name="message.unsuitable_topics", type=Type.WORDS, source=T,
         doc="topics found that one of the addressed audiences is to be spared"),
    Fact(name="message.readable", type=Type.WORD, source=T, words=("yes", "unreadable", "too-complex"),
         doc="whether the text could be read within bounds"),
    Fact(name="message.unfinished", type=Type.WORDS, source=T, words=("placeholder", "draft", "comment", "test", "filler"),
         doc="what shows that it is not finished: a field of a template left unfilled, a draft, a colleague's comment, a test, filler text"),
    Fact(name="message.language", type=Type.WORD, source=T, words=(*LANGUAGES, UNCLEAR),
         doc="the language that its text is in, as two letters, or unclear"),
    Fact(name="message.marks", type=Type.WORDS, source=T, doc="names of the marks that were found, own marks included"),
    Fact(name="message.labels", type=Type.WORDS, source=H, doc="sensitivity labels and confidentiality headers"),
    Fact(name="message.automatic", type=Type.TRUTH, source=H, doc="an automatic reply or generated mail (RFC 3834), with a null reverse-path or from the proven origin of a list or stream"),
    Fact(name="message.answers", type=Type.TRUTH, source=L,
         doc="every customer whom it goes to is answered, or had mail from its sender within 90 days"),
    Fact(name="message.size_mb", type=Type.COUNT, source=E, doc="size in MiB"),
    Fact(name="recipients.total", type=Type.COUNT, source=E, doc="RCPTs"),
    Fact(name="recipients.internal", type=Type.COUNT, source=E, doc="RCPTs of the organization"),
    Fact(name="recipients.outside", type=Type.COUNT, source=E, doc="RCPTs that are neither internal, list addresses nor members"),
    Fact(name="recipients.list_addresses", type=Type.COUNT, source=E, doc="RCPTs that are a list's address, or another address that expands to several customers"),
    Fact(name="recipients.members", type=Type.COUNT, source=E, doc="RCPTs that are themselves on a customer list"),
    Fact(name="recipients.customers", type=Type.COUNT, source=E,
         doc="customers that this one message reaches: members, and the people behind list addresses"),
    Fact(name="recipients.undisclosed", type=Type.COUNT, source=H, doc="members that neither To nor Cc shows"),
    Fact(name="recipients.lists", type=Type.WORDS, source=E, doc="the lists touched, by address or by member"),
    Fact(name="recipients.audience", type=Type.WORDS, source=E, doc="the audiences of the lists touched"),
    Fact(name="recipients.sensitivity", type=Type.WORDS, source=E, doc="the sensitivities of the lists touched"),
    Fact(name="recipients.domains", type=Type.WORDS, source=E, doc="the domains of the RCPTs, in lower case and A-labels"),
    Fact(name="recipients.reach", type=Type.COUNT, source=E, doc="people after expansion: one RCPT can be 400,000"),
    Fact(name="recipients.share", type=Type.SHARE, source=E, doc="the largest share of any one list that this one message reaches"),
    Fact(name="mailing.customers", type=Type.COUNT, source=L, doc="distinct customers sent the same mailing in 24 h, this message included"),
    Fact(name="mailing.ever", type=Type.COUNT, source=L,
         doc="distinct customers sent the same mailing so far, however long ago, this message included; a mailing of few ends after eight days without a copy"),
    Fact(name="mailing.reach", type=Type.COUNT, source=L, doc="distinct people sent the same mailing in 24 h, this message included"),
    Fact(name="mailing.share", type=Type.SHARE, source=L, doc="the largest share of any one list that this makes"),
    Fact(name="mailing.approved", type=Type.TRUTH, source=L, doc="approved beforehand or by vote"),
    Fact(name="stream", type=Type.WORDS, source=O, doc="the stream whose origin it proved"),
    Fact(name="sender.address", type=Type.WORD, source=H, doc="the From that it claims, canonical"),
    Fact(name="sender.internal", type=Type.TRUTH, source=H, doc="whether From is in the organization's domains"),
    Fact(name="sender.proven", type=Type.TRUTH, source=O, doc="by AUTH, by a listener that verifies senders, or by a declared origin"),
    Fact(name="sender.is_writer", type=Type.TRUTH, source=O, doc="From is a writer of every addressed list, and is proven"),
    Fact(name="sender.customers", type=Type.COUNT, source=L, windowed=True, doc="distinct customers that this From wrote to in a window"),
    Fact(name="sender.first_contacts", type=Type.COUNT, source=L, windowed=True,
         doc="distinct customers let through in a window, this message's included, whom its sender had not written to in 90 days and does not provably answer; in mail that is no mailing and of no stream"),
    Fact(name="sender.list_contacts", type=Type.COUNT, source=L, windowed=True,
         doc="of the sender's first contacts those on any one list touched: the most"),
    Fact(name="sender.answers", type=Type.COUNT, source=L, windowed=True,
         doc="distinct customers whom the sender had not written to in 90 days and answers by what can be forged; they are among `sender.first_contacts`"),
    Fact(name="list.language", type=Type.WORDS, source=E, words=LANGUAGES, doc="the languages that people read of the lists touched, as far as the policy says"),
    Fact(name="list.customers", type=Type.COUNT, source=L, windowed=True,
         doc="distinct people of any one list touched, whoever wrote to them and what, in a window: the most. What is held, of a stream or an approved mailing is not counted"),
    Fact(name="list.first_contacts", type=Type.COUNT, source=L, windowed=True,
         doc="distinct people of any one list touched who were first contacts of whichever sender: the most"),
    Fact(name="list.share", type=Type.SHARE, source=L, windowed=True,
         doc="`list.customers` as a share of the list: the largest"),
    Fact(name="thread.replies", type=Type.COUNT, source=L, windowed=True,
         doc="distinct replies in the conversation in a window, by their Message-IDs; none where it is no reply itself"),
    Fact(name="thread.reach", type=Type.COUNT, source=L, windowed=True,
         doc="distinct people whom this very reply reaches in a window, over all transactions that it is split into"),
)  # fmt: skip
"""Every fact by its name. A name that is not here is an error in the policy, with a suggestion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one message. ``values`` holds what was asked; ``evidence`` the phrases behind a fact, for people.

    ``lists`` and ``senders`` are what freezes are matched against: names of lists touched; canonical From, reverse-path and
    authenticated user. ``quorum`` is what a hold of this message needs. ``thread`` is what a freeze of a
    conversation names; ``threads``: the keys under which its replies are counted, none where it is no reply, and ``reply``:
    this one's own.
    ``identity``: what it is a copy of; None where nothing has needed it. ``sizes``: how many people are on each list that it
    touches, or may touch. ``letter_from``: under whom its first contacts are counted, none where it is no letter to customers;
    ``shared``: it is from a mailbox in which several answer.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    evidence: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()
    senders: frozenset[str] = frozenset()
    thread: str = ""
    threads: tuple[str, ...] = ()
    reply: str = ""
    identity: Identity | None = None
    sizes: Mapping[str, Count] = field(default_factory=dict)
    letter_from: tuple[str, ...] = ()
    shared: bool = False

    def get(self, name: str) -> Value | None:
        """The value, Unknown, or None where it has not been asked yet."""
        return self.values.get(name)
