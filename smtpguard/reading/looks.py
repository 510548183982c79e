"""What a message looks like: marks, evidence in it for mail between colleagues or for a mailing, reduced to one word,
internal, mailing or unclear. And the Reading of a message as a whole.

The table of marks has the weight of each and the reason for it. Marks of one ``group`` have one cause, so only the
heaviest of a group counts: eight headers of one Exchange server are not eight reasons.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from smtpguard.locale.phrase import N_, Phrase, Said, Value
from smtpguard.mail.constant import changed, constant, maker
from smtpguard.reading.fingerprint import Identity

UNFINISHED = frozenset({"placeholder", "draft", "comment", "test", "filler", "file", "empty"})
"""Marks that the message is not finished: approvers see them first."""
NOT_TO_GO_OUT = frozenset({"label-inside", "label", "inside-only", "internal-words", "secretive"})
"""Marks that it is for internal use: these come next."""


class Side(enum.Enum):
    INTERNAL = "internal"
    MAILING = "mailing"
    NEITHER = "neither"  # informative only: "a post on a mailing list"
    __hash__ = object.__hash__  # Enum's takes the name's, in Python


@constant
class Mark:
    """``evidence`` is a phrase for people: 'the subject begins with "SV:"'. ``weight`` > 0, for its side.

    ``group``: of the marks of one group only the heaviest counts.
    """

    name: str
    side: Side
    weight: float
    evidence: Phrase
    group: str = ""


_new_mark = maker(Mark)
_ADDRESS = re.compile(r"[^\s<>(),;:\"]+@[^\s<>(),;:\"]+")


def veiled(evidence: Phrase, subject: str = "") -> Phrase:
    """The phrase without words or addresses of the message: for readers who may know the reason and not the content.
    Words of the subject, which identifies the message, stay."""
    out_of_it = evidence.quoted_names

    def veil(name: str, value: Value) -> Value:
        if isinstance(value, Phrase):
            return veiled(value, subject)
        if not isinstance(value, str) or (name in out_of_it and value.casefold() in subject.casefold()):
            return value
        return "…" if name in out_of_it else _ADDRESS.sub("…", value)

    return evidence.with_values(**{name: veil(name, value) for name, value in evidence.values.items()})


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of mark. ``reason``: for its weight."""

    name: str
    side: Side
    weight: float
    group: str
    reason: str

    def mark(self, said: str, **values: Value) -> Mark:
        """``said``: the evidence, or the text of a phrase with these ``values``. Evidence with a phrase in it comes as a
        Phrase: the cache compares values, and two phrases may be the same in English alone."""
        return self.saying(said) if isinstance(said, Phrase) else _marked(self.name, said, **values)

    def saying(self, evidence: Phrase) -> Mark:
        return _new_mark(name=self.name, side=self.side, weight=self.weight, evidence=evidence, group=self.group)


@lru_cache(maxsize=512, typed=True)
def _marked(kind: str, msgid: str, /, **values: Value) -> Mark:
    """Cached, since most evidence is the same in all copies of a mailing, and in all mail of one sender."""
    return KINDS[kind].saying(Phrase.of(msgid, "", values))


_I, _M, _N = Side.INTERNAL, Side.MAILING, Side.NEITHER

_TABLE = (
    # A conversation: nobody quotes a colleague in a campaign.
    Kind("outlook-thread", _I, 3.0, "thread", "a Thread-Index that has grown by replies is made only by answering in Outlook"),
    Kind("quoted-headers", _I, 3.0, "thread", "a quoted From/Sent/To/Subject block is somebody's earlier mail"),
    Kind("quoting-markup", _I, 2.5, "thread", "mail programs mark quoted text in HTML; templates do not"),
    Kind("quoted-text", _I, 2.5, "thread", "an attribution line or quoted lines are an answer to somebody"),
    Kind("colleague-quoted", _I, 3.5, "thread", "the quoted mail was written by or to a colleague"),
    Kind("colleague-referenced", _I, 3.0, "thread", "it answers a message that was made in our own domain"),
    Kind("references", _I, 1.5, "thread", "In-Reply-To says it answers something; some platforms thread receipts with it"),
    Kind("reply-prefix", _I, 2.0, "thread", "Re: and its like; faked on a few campaigns in a hundred"),
    Kind("forward-prefix", _I, 2.0, "thread", "Fw: and its like"),
    Kind("attached-mail", _I, 1.5, "attachment", "a message forwarded as an attachment"),
    # Where it was written.
    Kind("thread-index", _I, 1.5, "client", "Outlook and Exchange put it on each new conversation; small senders use them for newsletters too"),
    Kind("exchange-headers", _I, 1.0, "client", "Exchange put it there, maybe on the way in"),
    Kind("our-exchange", _I, 2.0, "client", "X-OriginatorOrg names our own organization"),
    Kind("originator-org", _I, 1.5, "client", "sent from an Exchange Online tenant, where people write mail"),
    Kind("mail-program", _I, 1.5, "client", "a program in which people write mail one by one names itself"),
    Kind("composition", _I, 1.5, "client", "the structure that a mail program gives to what is typed in it"),
    Kind("mobile-footer", _I, 2.0, "client-text", "written on a telephone"),
    # Recipients.
    Kind("one-house", _I, 2.0, "people", "From and everybody shown in To and Cc share a domain that is no mailbox provider's"),
    Kind("colleagues-shown", _I, 2.5, "people", "colleagues are shown in To or Cc"),
    Kind("copies", _I, 1.0, "copies", "Cc, or several people in To: campaigns show one recipient"),
    Kind("names-inside", _I, 1.5, "copies", "recipients as an address book resolves them"),
    # Labels.
    Kind("label-inside", _I, 3.0, "label", "a sensitivity label or header that says internal or confidential; never on a mailing"),
    Kind("label", _I, 2.5, "label", "another sensitivity label or header, such as General: people label what they write"),
    Kind("label-public", _N, 0.5, "label", "a sensitivity label that says public"),
    Kind("inside-only", _I, 3.0, "label", "it says itself that it is for colleagues alone; no mailing does"),
    Kind("secretive", _I, 2.5, "secret", "asks not to be passed on to somebody: bosses, customers, the others"),
    Kind("internal-words", _I, 3.0, "label", "it says itself that it is confidential or for internal use"),
    Kind("confidentiality", _I, 0.75, "disclaimer", "a confidentiality notice below; on receipts and advice too"),
    Kind("calendar", _I, 2.0, "calendar", "an invitation or an answer to one"),
    Kind("out-of-office", _I, 2.0, "calendar", "somebody's automatic answer"),
    # Text.
    Kind("addressed", _I, 0.75, "greeting", "begins with a name, as letters do"),
    Kind("signed", _I, 1.0, "signature", "ends with regards and a name"),
    Kind("signature-block", _I, 0.75, "signature", "ends with a person's telephone and title"),
    Kind("work-talk", _I, 1.0, "talk", "speaks of meetings, tasks and colleagues"),
    Kind("personal-voice", _I, 0.75, "talk", "says I and you, asks and answers"),
    Kind("short-and-plain", _I, 1.0, "plainness", "short, without markup or links"),
    Kind("plain", _I, 0.5, "plainness", "no links and no pictures"),
    Kind("documents", _I, 1.0, "attachment", "documents as colleagues send them; campaigns link"),
    Kind("internal-host", _I, 0.75, "hosts", "it came from a private address or an internal host name"),
    Kind("no-bulk-signs", _I, 0.75, "absence", "none of List-Unsubscribe, List-Id, Precedence, Feedback-ID, and no word on unsubscribing"),
    # Headers of mailings.
    Kind("one-click", _M, 4.5, "list", "List-Unsubscribe-Post (RFC 8058) with a link: what large senders must have"),
    Kind("list-unsubscribe", _M, 4.0, "list", "List-Unsubscribe (RFC 2369): a way off a list"),
    Kind("list-id-ours", _M, 3.0, "list", "List-Id of one of our customer lists"),
    Kind("list-id", _M, 1.5, "list", "List-Id (RFC 2919), of campaigns and of discussions"),
    Kind("precedence", _M, 2.0, "list", "Precedence: bulk or list"),
    Kind("feedback-id", _M, 1.0, "platform", "Feedback-ID; some mailbox providers put it on personal mail"),
    Kind("platform-feedback-id", _M, 2.0, "platform", "Feedback-ID in the form of a marketing platform"),
    Kind("platform", _M, 3.0, "platform", "a header that only a marketing or transactional platform writes"),
    Kind("campaign-header", _M, 2.5, "platform", "a header with the number of a campaign, mailing or template"),
    Kind("platform-links", _M, 2.5, "links", "links that run through a marketing platform"),
    Kind("campaign-links", _M, 1.5, "links", "links with campaign parameters"),
    Kind("auto-generated", _M, 1.5, "machine", "Auto-Submitted: auto-generated, or a mailer for programs"),
    Kind("noreply", _M, 3.0, "machine", "the sender takes no answers: a machine, which writes to customers, and to colleagues"),
    Kind("role-sender", _M, 1.5, "sender", "a mailbox named for news or campaigns, not for a person"),
    Kind("bounce-address", _M, 1.5, "sender", "a return address made for each recipient (VERP)"),
    Kind("nobody-shown", _M, 1.0, "recipients", "To names nobody, a placeholder, or the sender"),
    Kind("machine-to-one", _M, 1.5, "recipients", "a machine's mail to one person outside: notices for colleagues go to colleagues, or to a list by mistake"),
    # Words of mailings.
    Kind("unsubscribe-words", _M, 3.0, "leaving", "tells how to unsubscribe"),
    Kind("unsubscribe-link", _M, 3.0, "leaving", "a link to unsubscribe"),
    Kind("preferences", _M, 2.5, "leaving", "tells how to change what one is sent"),
    Kind("why-you-get-this", _M, 2.0, "subscription", "tells why one is sent it: subscribers are told, colleagues know"),
    Kind("web-version", _M, 2.5, "web", "offers itself as a web page"),
    Kind("do-not-reply", _M, 2.0, "machine", "asks not to be answered, or says that a machine wrote it"),
    Kind("imprint", _M, 1.0, "imprint", "ends with rights reserved or a privacy notice"),
    Kind("dear-customer", _M, 1.5, "salutation", "greets a customer, a member, a subscriber"),
    Kind("newsletter-words", _M, 1.5, "newsletter", "calls itself a newsletter, an issue, an offer"),
    Kind("order-words", _M, 1.5, "newsletter", "tells of an order, a parcel, an account, a password"),
    # The shape of mailings.
    Kind("tracking-pixel", _M, 2.0, "pixel", "a picture of one pixel"),
    Kind("template", _M, 1.5, "shape", "markup of a template: many tables, viewport, conditional comments"),
    Kind("preheader", _M, 1.5, "shape", "a hidden first line for previews"),
    Kind("many-links", _M, 1.0, "amount", "many links and pictures"),
    Kind("declared-origin", _M, 6.0, "origin", "provably sent from where the list says its mailings come from"),
    Kind("shared-origin", _M, 2.5, "shared-origin", "the same, where the domain is one from which colleagues write as well"),
    # Informative only.
    Kind("placeholder", _N, 1.0, "unfinished", "fields of a template left unfilled"),
    Kind("draft", _N, 1.0, "unfinished", "it calls itself a draft"),
    Kind("comment", _N, 1.0, "unfinished", "a reminder, a question to a colleague or a tracked change is left in it"),
    Kind("test", _N, 1.0, "unfinished", "it calls itself a test"),
    Kind("filler", _N, 1.0, "unfinished", "lorem ipsum and its like"),
    Kind("file", _N, 1.0, "unfinished", "an attached file is named like a draft, or is not the one that the text names"),
    Kind("empty", _N, 1.0, "unfinished", "no words but a footer, and no file"),
    Kind("list-post", _N, 1.0, "", "a post on a discussion list: its list headers are the list server's, not the writer's"),
    Kind("list-unproven", _N, 1.0, "", "list headers that come neither from a declared origin nor from one of its clients or logins"),
    Kind("authenticated", _N, 0.5, "", "a trusted server says whose signatures verified, or that From failed its checks"),
    Kind("report", _N, 1.0, "", "a report on a delivery or a complaint: its list headers are another message's"),
    Kind("contradiction", _N, 1.0, "", "strong marks of both sides"),
    Kind("hidden-text", _N, 1.0, "", "text that nobody sees"),
    Kind("defect", _N, 0.5, "", "something malformed, read as far as it goes"),
    Kind("ambiguous", _N, 1.0, "", "programs disagree on what it says"),
    Kind("claimed-pass", _N, 1.0, "", "a header claims that it passed this guard: headers can be forged"),
)  # fmt: skip

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _TABLE}
"""Every kind by its name."""

OF_LIST_HEADERS = frozenset(k.name for k in KINDS.values() if k.side is Side.MAILING and k.group == "list") | {
    "list-unproven"
}
"""Marks of a message that bears list headers, whether they count or not."""


THRESHOLD = 2.0
"""A score from here on is internal, from its negative down a mailing; between them it is unclear."""

# Marks of a reply that no campaign has. "Re:" alone is not one.
CONVERSATION = frozenset(
    {
        "outlook-thread",
        "quoted-headers",
        "quoting-markup",
        "quoted-text",
        "colleague-quoted",
        "colleague-referenced",
        "calendar",
    }
)
# Marks that a message is for colleagues only: no campaign says so.
_FOR_US = frozenset({"label-inside", "inside-only"})
# Marks that a newsletter may have too, from a testimonial, an event or a default label: they do not count against a proven origin.
_IN_NEWSLETTERS = frozenset({"quoted-text", "quoting-markup", "calendar", "label"})
# Marks of a mailing by words only, which anybody can write below a letter.
_WORDS = frozenset({"leaving", "subscription", "web", "imprint", "salutation", "newsletter"})
_WORDS_TOO = frozenset({"do-not-reply"})
WORDS_BELOW_A_LETTER = 1.0
"""The most weight of all words of a mailing against marks of a letter, without support by a header or the origin."""
_BORNE_OUT = frozenset({"list", "platform", "origin", "shared-origin"})
_BORNE_OUT_BY = frozenset({"noreply", "bounce-address", "auto-generated"})
_OF_A_LETTER = frozenset({"thread", "greeting", "signature", "client-text", "secret", "people"})
_SAID = frozenset({"greeting", "signature", "talk", "plainness"})
_MACHINERY = frozenset({"list", "platform", "links", "origin"})
_WAY_OFF = frozenset({"one-click", "list-unsubscribe"})
_STRONG = 2.5


class Looks(enum.Enum):
    INTERNAL = "internal"
    MAILING = "mailing"
    UNCLEAR = "unclear"


class Readable(enum.Enum):
    YES = "yes"
    UNREADABLE = "unreadable"  # encrypted, broken, or in an unknown format
    TOO_COMPLEX = "too-complex"  # beyond the bounds of size, depth, parts or time
    __hash__ = object.__hash__  # Enum's takes the name's, in Python


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A term of a vocabulary that was found. ``where``: subject, text, html, name, alt text or attachment name.

    ``word``: the word in the text ("julskinkan", of which the term is "skink"); ``context``: the words around it.
    """

    vocabulary: str
    term: str
    where: str
    word: str
    context: str = ""

    @property
    def phrase(self) -> Phrase:
        """For people: the word, its topic, and its place."""
        return Phrase(_PLACES.get(self.where, _IN_THE_TEXT), word=self.word, topic=topic_called(self.vocabulary))


_IN_THE_TEXT = N_('"{word}" ({topic}, in the text)')
_PLACES: Mapping[str, str] = {
    "subject": N_('"{word}" ({topic}, in the subject)'),
    "alt text": N_('"{word}" ({topic}, in the text of a picture)'),
    "attachment name": N_('"{word}" ({topic}, in the name of an attachment)'),
    "attached text": N_('"{word}" ({topic}, in an attachment)'),
    "name": N_('"{word}" ({topic}, in a name in From, To or Cc)'),
    "hidden text": N_('"{word}" ({topic}, in text that nobody sees)'),
}
TOPICS: Mapping[str, str] = {
    "alcohol": N_("alcohol"),
    "confidential": N_("confidential"),
    "diets": N_("diets"),
    "gambling": N_("gambling"),
    "health": N_("health"),
    "politics": N_("politics"),
    "pork": N_("pork"),
    "redundancy": N_("redundancy"),
}
"""The product's own vocabularies; an admin's is called by its own name."""


def topic_called(vocabulary: str) -> Said:
    return Phrase(TOPICS[vocabulary]) if vocabulary in TOPICS else vocabulary


@constant
class Reading:
    """The result of reading one message. ``score`` > 0 leans to internal, < 0 to mailing; for a message that is not
    ``readable`` both are from its header only, and no reason to relay it.

    Header facts: ``from_address`` canonical or None; ``shown`` canonical addresses in To and Cc; ``labels``;
    ``automatic`` (RFC 3834); ``thread``: the first Message-ID of References, In-Reply-To or its own; ``conversation``:
    Outlook's number of it; ``answers``: whether it is a reply. ``quotes``: canonical addresses of the quoted writers;
    ``refers_to``: the Message-IDs of In-Reply-To and References, without brackets.
    """

    looks: Looks
    score: float
    marks: tuple[Mark, ...]
    readable: Readable
    why_unreadable: Said = ""
    topics: tuple[Topic, ...] = ()
    subject: str = ""
    from_address: str | None = None
    from_ambiguous: bool = False
    shown: frozenset[str] = frozenset()
    message_id: str = ""
    thread: str = ""
    conversation: str = ""
    answers: bool = False
    quotes: frozenset[str] = frozenset()
    refers_to: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()
    vouched: frozenset[str] = frozenset()
    """Domains whose signatures verified, by a trusted server's Authentication-Results."""
    automatic: bool = False
    forwarded_thread: bool = False  # a thread of colleagues forwarded
    language: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Counts in its text, by the names of facts."""
    excerpt: str = field(default="", repr=False)
    """The first 2,000 characters of the visible text, for approvers."""
    identity: Identity = field(default=Identity(), repr=False)
    """Its identity as a copy, if its text was read."""
    alone: str = ""
    """The name of this one message, used if it answers its recipients; "" if its own text is enough to decide alone."""
    campaign: tuple[str, ...] = ()
    """Names of the campaign that it declares; only for a verified origin."""


def judge(marks: Iterable[Mark], *, readable: Readable = Readable.YES) -> tuple[Looks, float, tuple[Mark, ...]]:
    """The word, the score, and the marks, with a mark for a contradiction if there is one. Of each group the heaviest
    mark counts.

    Marks of a conversation forbid "mailing": a List-Unsubscribe can be forged onto an Outlook thread, or added by a
    list server. So do a label or words that keep the message in the house, from any origin; and colleagues in To, or a
    list server, if nothing shows the machinery of mailings: an announcement may sound like a mailing. For an unreadable
    message the word is by its header, and only a way to unsubscribe makes it a mailing: rules on looks test readability
    first.

    Words of a mailing below a letter weigh little unless a header or the origin supports them. If one does, and it
    tells how to unsubscribe, a greeting and a signature count as a campaign's. Against a declared origin some marks of
    conversations do not count.
    """
    marks = tuple(marks)
    looks, score, contradiction = _judged(tuple(map(_telling, marks)), readable)
    if contradiction is not None:
        one, other = (marks[n].evidence for n in contradiction)
        marks += (KINDS["contradiction"].mark(Phrase("marks of both sides: {one}; yet {other}", one=one, other=other)),)
    return looks, score, marks


class _Telling(NamedTuple):
    """What a mark tells a judge: all but its evidence."""

    name: str
    side: Side
    weight: float
    group: str


_telling = attrgetter(*_Telling._fields)


@lru_cache(maxsize=1024)
def _judged(
    told: tuple[tuple[str, Side, float, str], ...], readable: Readable
) -> tuple[Looks, float, tuple[int, int] | None]:
    """The word, the score, and the places of the two heaviest marks of a contradiction. Cached: copies of a mailing, and
    most letters, have the marks of an earlier one."""
    marks = [_Telling(*each) for each in told]
    ours = [m for m in marks if m.side is Side.INTERNAL]
    theirs = [m for m in marks if m.side is Side.MAILING]
    names = {m.name for m in marks}
    counted = [m for m in ours if m.name not in _IN_NEWSLETTERS] if "declared-origin" in names else ours
    internal, mailing = _weighed(_heaviest(counted), _heaviest(theirs), theirs)
    score = round(internal - mailing, 2)
    talk = any(m.name in CONVERSATION for m in counted)
    for_us = any(m.name in _FOR_US for m in ours)
    among_us = any(m.group == "people" for m in ours)
    posted = "list-post" in names
    sent_by_machine = any(m.group in _MACHINERY for m in theirs)
    by_header = readable is Readable.UNREADABLE and not _WAY_OFF.isdisjoint(names)
    if score >= THRESHOLD:
        looks = Looks.INTERNAL
    elif (
        score <= -THRESHOLD
        and (readable is Readable.YES or by_header)
        and not (talk or for_us)
        and (sent_by_machine or not (among_us or posted))
    ):
        looks = Looks.MAILING
    else:
        looks = Looks.UNCLEAR
    if internal < _STRONG or mailing < _STRONG:
        return looks, score, None
    one, other = (max(some, key=lambda m: m.weight) for some in (ours, theirs))
    return looks, score, (marks.index(one), marks.index(other))


def _heaviest(marks: Iterable[_Telling]) -> dict[str, float]:
    """The weight of the heaviest mark of each group."""
    found: dict[str, float] = {}
    for mark in marks:
        group = mark.group or mark.name
        found[group] = max(found.get(group, 0.0), mark.weight)
    return found


def _weighed(ours: Mapping[str, float], theirs: Mapping[str, float], marks: Sequence[_Telling]) -> tuple[float, float]:
    """The weights for internal mail, and for a mailing. ``marks``: those of mailings."""
    if any(m.group in _BORNE_OUT or m.name in _BORNE_OUT_BY for m in marks):
        return sum(w for group, w in ours.items() if "leaving" not in theirs or group not in _SAID), sum(
            theirs.values()
        )
    only_words = {m.group or m.name for m in marks if m.group in _WORDS or m.name in _WORDS_TOO}
    words = sum(w for group, w in theirs.items() if group in only_words)
    if _OF_A_LETTER & ours.keys():
        words = min(words, WORDS_BELOW_A_LETTER)
    return sum(ours.values()), words + sum(w for group, w in theirs.items() if group not in only_words)


_UNPROVEN = KINDS["list-unproven"].mark("it bears list headers, which weigh nothing from where people write")


def without_list_headers(reading: Reading) -> Reading:
    """The reading of a message whose list headers were written by a person: they do not count."""
    kept = [m for m in reading.marks if m.group != "list" or m.side is not Side.MAILING]
    if len(kept) == len(reading.marks):
        return reading
    kept = [m for m in kept if m.name != "contradiction"]
    kept.append(_UNPROVEN)
    looks, score, marks = judge(kept, readable=reading.readable)
    return changed(reading, looks=looks, score=score, marks=marks)


def from_declared_origin(
    reading: Reading, domain: str, *, shared: bool = False, weights: Mapping[str, float] | None = None
) -> Reading:
    """The reading of a message that provably comes from the origin that the addressed list declares (DKIM).

    ``shared``: colleagues write from that domain too. ``weights``: the admins' weights of marks, 0 to switch one off.
    """
    kept = [m for m in reading.marks if m.name not in ("contradiction", "declared-origin", "shared-origin")]
    kind = KINDS["shared-origin" if shared else "declared-origin"]
    mark = kind.mark("it is signed by {domain}, the origin that the list declares", domain=domain)
    mark = replace(mark, weight=(weights or {}).get(kind.name, mark.weight))
    if mark.weight > 0:
        kept.append(mark)
    looks, score, marks = judge(kept, readable=reading.readable)
    return changed(reading, looks=looks, score=score, marks=marks)
