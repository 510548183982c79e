"""The table of facts that a rule may use, and the facts' values for one message.

Everything about a fact is in this table. From it are made: the schema, the reference in docs/policy.md, the sentences
and words in every language, the check of what a rule can hit, the cases of ``smtpguard test``, and the recorded facts
of a verdict.

A value is a truth, a word, a set of words, an address in a network, or a count. A count is an interval, since without a
usable index a recipient is zero or one customer. What could not be found out is Unknown, with the reason; a fact that
was not asked for yet is absent.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from smtpguard.lists.recipients import Count as Count
from smtpguard.locale.phrase import N_, NN_
from smtpguard.mail.constant import constant
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.fold import LANGUAGES, UNCLEAR


class Source(enum.Enum):
    """The source of a fact, in the order of its cost."""

    ENVELOPE = "envelope"  # recipients and lists: known, or unknown, before anything else
    HEADERS = "headers"
    TEXT = "text"
    ORIGIN = "origin"  # DKIM: needs DNS
    LIVE = "live"  # counts, freezes and approvals: read in the admission
    __hash__ = object.__hash__  # Enum's takes the name's, in Python


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
    """A value that could not be found out. ``why``: a phrase for operators: "the list ramadan-greetings has no
    index". ``known``: of a set, the words that are certainly in it."""

    why: str
    known: frozenset[str] = frozenset()


NONE = Count(0, 0)


class Usual(NamedTuple):
    """A count under ``least`` is given as it is. One from there on is given only if it is also ``times`` the usual,
    else as 0. The usual is the most that was counted in any window of that length between 35 and 7 days ago, so that
    nobody can raise it within a week."""

    times: float
    least: float


@dataclass(frozen=True, slots=True)
class Within:
    """Only the bounds of a count are known. A condition that they do not decide is pending, as if it had not been asked
    for."""

    count: Count


Value = bool | str | frozenset[str] | Count | Unknown | Within


class Part(enum.Enum):
    """Parts of a policy, beside its rules, that facts are made from: under a policy with another part the fact may
    differ."""

    ORGANIZATION = "organization"  # who is a colleague
    MEMBERSHIP = "membership"  # which recipient is on which list, or is a list
    TEXT = "text"  # domains, marks and list names by which a text is read
    VOCABULARIES = "vocabularies"
    STREAMS = "streams"
    WRITERS = "writers"  # of the lists touched, as the next five
    ORIGIN = "origin"
    AVOID = "avoid"
    AUDIENCE = "audience"
    SENSITIVITY = "sensitivity"
    LANGUAGE = "language"
    CONVERSATIONS = "conversations"  # which conversations are counted
    SHARED = "shared"  # mailboxes in which several people answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact.

    ``doc``: its meaning, for the schema and the reference. ``label``: its name on a page. ``called``: words for its
    values; they are all its values, unless ``any_word`` may be asked for. ``says``: its sentences for people who may
    not know what a list is for: of a truth ``yes`` and ``no``, of a word by that word or ``any``, of a set ``some`` and
    ``none``, of a number ``many`` (singular and plural, with ``{n}``) and ``none``. All of them are messages of the
    catalogues. ``noun``: the kind of the policy's names that are its words.

    ``windowed``: used with "in 1h". ``usual``: also with the usual of the sender. ``by_list``: counted for each list,
    so that lists may be named. ``by_mailing``: may be narrowed to copies of the message's own mailing. ``of_letters``:
    counts first contacts, of letters only. ``own``: the fact with its value for a message that is the only one.

    ``ordinary``: its value in a letter to one person outside, if not zero or empty. ``at_most``: the fact that it never
    exceeds. ``of_customers``: it counts customers, so it never exceeds the people on all lists. ``personal``: its value
    names a person. ``made_from``: parts of a policy; by default those of its source (``parts``). ``elsewhere``: a
    verdict's entry has it in another form. ``since``: the version of recorded facts (admission.packedfacts) that first has
    it.
    """

    name: str
    type: Type
    source: Source
    doc: str
    label: str
    says: Mapping[str, str | tuple[str, str]]
    called: Mapping[str, str] = field(default_factory=dict)
    any_word: bool = False
    noun: str = ""
    windowed: bool = False
    usual: bool = False
    by_list: bool = False
    by_mailing: bool = False
    of_letters: bool = False
    own: str = ""
    ordinary: Value | None = None
    at_most: str = ""
    of_customers: bool = False
    personal: bool = False
    made_from: tuple[Part, ...] | None = None
    elsewhere: bool = False
    since: int = 1

    @property
    def area(self) -> str:
        return self.name.partition(".")[0]

    @property
    def words(self) -> tuple[str, ...]:
        """Return the closed set of its values; empty if there is none."""
        return () if self.any_word else tuple(self.called)

    @property
    def default(self) -> Value:
        """Return its value in a letter to one person outside. A verdict does not store defaults, so they never
        change."""
        return _NOTHING[self.type] if self.ordinary is None else self.ordinary

    @property
    def parts(self) -> frozenset[Part]:
        """Return the parts of a policy, beside its rules, that it is made from."""
        if self.made_from is not None:
            return frozenset(self.made_from)
        of_lists = self.area in ("recipients", "list")
        return _PARTS[self.source] | ({Part.MEMBERSHIP} if of_lists else frozenset())

    @property
    def number(self) -> bool:
        return self.type in (Type.COUNT, Type.SHARE)


_NOTHING: Mapping[Type, Value] = {
    Type.TRUTH: False,
    Type.WORDS: frozenset(),
    Type.COUNT: NONE,
    Type.SHARE: NONE,
}
_PARTS: Mapping[Source, frozenset[Part]] = {
    Source.ENVELOPE: frozenset(),
    Source.HEADERS: frozenset(),
    Source.TEXT: frozenset({Part.TEXT}),
    Source.ORIGIN: frozenset({Part.ORGANIZATION, Part.STREAMS, Part.WRITERS}),
    Source.LIVE: frozenset({Part.MEMBERSHIP}),
}


_OF_LETTERS = (Part.MEMBERSHIP, Part.TEXT, Part.ORIGIN, Part.STREAMS, Part.SHARED)
"""A letter is to customers, no mailing by its looks, and of no stream."""
E, H, T, O, L = Source.ENVELOPE, Source.HEADERS, Source.TEXT, Source.ORIGIN, Source.LIVE
_UNCLEAR = N_("unclear")
_LANGUAGES: Mapping[str, str] = {
    "ar": N_("Arabic"), "da": N_("Danish"), "de": N_("German"), "en": N_("English"),
    "es": N_("Spanish"), "fi": N_("Finnish"), "fr": N_("French"), "it": N_("Italian"),
    "nl": N_("Dutch"), "no": N_("Norwegian"), "pl": N_("Polish"), "pt": N_("Portuguese"),
    "sv": N_("Swedish"),
}  # fmt: skip
assert tuple(_LANGUAGES) == tuple(LANGUAGES)

_FACTS = (
    Fact(name="client", type=Type.NETWORK, source=E, elsewhere=True, ordinary="192.0.2.1",
         doc="the address of the client, as a trusted MTA or proxy tells it where one stands in front",
         label=N_("the address of the client"),
         says={"any": N_("It comes from an address that a rule names")}),
    Fact(name="listener", type=Type.WORD, source=E, elsewhere=True, ordinary="127.0.0.1:10025",
         doc="the listener that it came through: its name in the settings, or its address and port, like 127.0.0.1:10025",
         label=N_("where it came in"),
         says={"any": N_("It came in where a rule looks")}),
    Fact(name="listener.proves_senders", type=Type.TRUTH, source=E,
         doc="whether the listener that it came through proves who sends: it has `auth`, or `senders_verified`",
         label=N_("it came in where senders are proven"),
         says={"yes": N_("It came in where senders are proven"),
               "no": N_("It came in where senders are not proven")}),
    Fact(name="login", type=Type.WORDS, source=E, elsewhere=True, personal=True,
         doc="the user who logged in, in lower case; none where nobody did",
         label=N_("who logged in"),
         says={"some": N_("Somebody logged in to send it"),
               "none": N_("Nobody logged in to send it")}),
    Fact(name="message.looks", type=Type.WORD, source=T, made_from=(Part.TEXT, Part.ORIGIN), ordinary="unclear",
         doc="internal, mailing or unclear, from marks with evidence",
         label=N_("what the message looks like"),
         called={"internal": N_("mail between colleagues"), "mailing": N_("a mailing"), "unclear": _UNCLEAR},
         says={"internal": N_("It looks like mail between colleagues"),
               "mailing": N_("It looks like a mailing"),
               "unclear": N_("It does not look like a mailing, and may be mail between colleagues")}),
    Fact(name="message.correspondence", type=Type.TRUTH, source=T, made_from=(Part.TEXT, Part.MEMBERSHIP), ordinary=True,
         doc="one-to-one or few: at most 3 customers, all of them in To or Cc, not a thread of colleagues forwarded",
         label=N_("it is correspondence with a few who all stand in To or Cc"),
         says={"yes": N_("It is correspondence with a few people, who all stand in To or Cc"),
               "no": N_("It is more than correspondence with a few people who all stand in To or Cc")}),
    Fact(name="message.topics", type=Type.WORDS, source=T, made_from=(Part.VOCABULARIES,), noun="vocabulary",
         doc="vocabularies with terms in the text",
         label=N_("topics in it"),
         says={"some": N_("Some of its words are on a list of topics to look out for"),
               "none": N_("None of its words are on a list of topics to look out for")}),
    Fact(name="message.unsuitable_topics", type=Type.WORDS, source=T, made_from=(Part.VOCABULARIES, Part.AVOID, Part.MEMBERSHIP), noun="vocabulary",
         doc="topics found that one of the addressed audiences is to be spared",
         label=N_("topics in it that the audience is to be spared"),
         says={"some": N_("Some of its words may not suit everybody it is addressed to"),
               "none": N_("None of its words are known not to suit those it is addressed to")}),
    Fact(name="message.readable", type=Type.WORD, source=T, made_from=(), ordinary="yes",
         doc="whether the text could be read within bounds",
         label=N_("its text can be read"),
         called={"yes": N_("yes"), "unreadable": N_("unreadable"), "too-complex": N_("too complex")},
         says={"yes": N_("Its text could be read"),
               "unreadable": N_("Its text cannot be read: it is encrypted, damaged or in a foreign format"),
               "too-complex": N_("It is too large or too complex to be read")}),
    Fact(name="message.unfinished", type=Type.WORDS, source=T,
         doc="what shows that it is not finished: a field of a template left unfilled, a draft, a colleague's comment, a test, filler text, a file that is named like a draft or is not the one that the text names, no words at all",
         label=N_("signs that it is not finished"),
         called={"placeholder": N_("a field left unfilled"), "draft": N_("a draft"), "comment": N_("a comment left in it"), "test": N_("a test"), "filler": N_("filler text"), "file": N_("a wrong file"), "empty": N_("no words")},
         says={"some": N_("It is not finished: it has no words, fields are left unfilled, it is a draft or a test, or a wrong file is attached"),
               "none": N_("Nothing in it shows that it is not finished")}),
    Fact(name="message.language", type=Type.WORD, source=T, ordinary="unclear",
         doc="the language that its text is in, as two letters, or unclear",
         label=N_("the language that it is in"),
         called={**_LANGUAGES, UNCLEAR: _UNCLEAR},
         says={"any": N_("It is in a language that a rule names")}),
    Fact(name="message.marks", type=Type.WORDS, source=T, made_from=(Part.TEXT, Part.ORIGIN), noun="mark",
         doc="names of the marks that were found, own marks included",
         label=N_("marks found in it"),
         says={"some": N_("Something in it is what a rule looks for"),
               "none": N_("Nothing in it is what a rule looks for")}),
    Fact(name="message.attachments", type=Type.COUNT, source=T,
         doc="files that are attached, as people see them: no pictures within the text, no signatures",
         label=N_("files attached to it"),
         says={"many": NN_("One file is attached to it", "{n} files are attached to it"),
               "none": N_("No file is attached to it")}),
    Fact(name="message.labels", type=Type.WORDS, source=H,
         doc="sensitivity labels and confidentiality headers",
         label=N_("labels of confidentiality"),
         says={"some": N_("It bears a label of confidentiality"),
               "none": N_("It bears no label of confidentiality")}),
    Fact(name="message.automatic", type=Type.TRUTH, source=H, made_from=(Part.ORGANIZATION, Part.STREAMS, Part.WRITERS),
         doc="an automatic reply or generated mail (RFC 3834), with a null reverse-path or from the proven origin of a list or stream",
         label=N_("it is an automatic message"),
         says={"yes": N_("It is an automatic message"),
               "no": N_("It is not an automatic message")}),
    Fact(name="message.answers", type=Type.TRUTH, source=L, of_letters=True, made_from=_OF_LETTERS,
         doc="it answers each customer among its recipients, or its sender wrote to that customer within 90 days",
         label=N_("it answers every customer whom it goes to"),
         says={"yes": N_("It answers the customers whom it goes to, or goes to those who had mail from its sender before"),
               "no": N_("It does not answer every customer whom it goes to")}),
    Fact(name="message.size_mb", type=Type.COUNT, source=E, elsewhere=True,
         doc="size in MiB",
         label=N_("its size in MiB"),
         says={"many": NN_("Its size is {n} MiB", "Its size is {n} MiB")}),
    Fact(name="recipients.total", type=Type.COUNT, source=E, elsewhere=True, made_from=(), ordinary=Count(1, 1),
         doc="RCPTs",
         label=N_("recipients"),
         says={"many": NN_("It has one recipient", "It has {n} recipients")}),
    Fact(name="recipients.internal", type=Type.COUNT, source=E, at_most="recipients.total",
         doc="RCPTs of the organization",
         label=N_("colleagues among the recipients"),
         says={"many": NN_("One recipient is a colleague", "{n} recipients are colleagues"),
               "none": N_("No recipient is a colleague")}),
    Fact(name="recipients.outside", type=Type.COUNT, source=E, at_most="recipients.total", ordinary=Count(1, 1),
         doc="RCPTs that are neither internal, list addresses nor members",
         label=N_("recipients who are on no list"),
         says={"many": NN_("One recipient is outside", "{n} recipients are outside"),
               "none": N_("No recipient is outside")}),
    Fact(name="recipients.list_addresses", type=Type.COUNT, source=E, at_most="recipients.total",
         doc="RCPTs that are a list's address, or expand to a list's address or to more than three customers",
         label=N_("lists that it is addressed to"),
         says={"many": NN_("It is addressed to a customer list", "It is addressed to {n} customer lists"),
               "none": N_("It is addressed to no customer list")}),
    Fact(name="recipients.members", type=Type.COUNT, source=E, of_customers=True,
         doc="RCPTs that are on a customer list themselves, and the customers behind an RCPT that expands to at most three",
         label=N_("recipients who are on a list themselves"),
         says={"many": NN_("One recipient is a customer", "{n} recipients are customers"),
               "none": N_("No recipient is a customer")}),
    Fact(name="recipients.customers", type=Type.COUNT, source=E, of_customers=True,
         doc="customers that this one message reaches: members, and the people behind list addresses",
         label=N_("customers that it reaches"),
         says={"many": NN_("It reaches one customer", "It reaches {n} customers"),
               "none": N_("It reaches no customer")}),
    Fact(name="recipients.undisclosed", type=Type.COUNT, source=H, at_most="recipients.customers",
         doc="members that neither To nor Cc shows, and the people behind an alias that counts as a list",
         label=N_("customers whom neither To nor Cc shows"),
         says={"many": NN_("One customer among its recipients is in neither To nor Cc", "{n} customers among its recipients are in neither To nor Cc"),
               "none": N_("All customers among its recipients stand in To or Cc")}),
    Fact(name="recipients.lists", type=Type.WORDS, source=E, noun="list",
         doc="the lists touched, by address or by member; lists of colleagues by address alone",
         label=N_("lists that it touches"),
         says={"some": N_("It is addressed to customers"),
               "none": N_("It is addressed to no customers")}),
    Fact(name="recipients.audience", type=Type.WORDS, source=E, made_from=(Part.MEMBERSHIP, Part.AUDIENCE), noun="audience",
         doc="the audiences of the lists touched",
         label=N_("audiences that it reaches"),
         says={"some": N_("It is addressed to customers"),
               "none": N_("It is addressed to no customers")}),
    Fact(name="recipients.sensitivity", type=Type.WORDS, source=E, made_from=(Part.MEMBERSHIP, Part.SENSITIVITY), noun="sensitivity",
         doc="the sensitivities of the lists touched",
         label=N_("sensitivity of the lists that it touches"),
         called={"special-category": N_("special category"), "normal": N_("normal")}, any_word=True,
         says={"some": N_("It is addressed to customers"),
               "none": N_("It is addressed to no customers")}),
    Fact(name="recipients.domains", type=Type.WORDS, source=E, elsewhere=True, made_from=(),
         doc="the domains of the RCPTs, in lower case and A-labels; of `user%there@here` both",
         label=N_("domains of the recipients"),
         says={"some": N_("It goes to domains that a rule looks for"),
               "none": N_("It goes to no domain that a rule looks for")}),
    Fact(name="recipients.reach", type=Type.COUNT, source=E, ordinary=Count(1, 1),
         doc="number of people after expansion of list addresses: one RCPT can be 400,000",
         label=N_("people that it reaches"),
         says={"many": NN_("It reaches one person", "It reaches {n} people"),
               "none": N_("It reaches nobody")}),
    Fact(name="recipients.share", type=Type.SHARE, source=E,
         doc="the largest share of any one list that this one message reaches",
         label=N_("share of a list that it reaches"),
         says={"many": N_("It reaches {n} of a customer list")}),
    Fact(name="mailing.customers", type=Type.COUNT, source=L, own="recipients.customers", at_most="mailing.ever", of_customers=True,
         doc="distinct customers sent the same mailing in 24 h, this message included",
         label=N_("customers that the same mailing reaches"),
         says={"many": NN_("The same mailing reaches one customer", "The same mailing reaches {n} customers"),
               "none": N_("The same mailing reaches no customer")}),
    Fact(name="mailing.ever", type=Type.COUNT, source=L, own="recipients.customers", of_customers=True,
         doc="distinct customers sent the same mailing so far, however long ago, this message included; a mailing of few ends after eight days without a copy",
         label=N_("customers whom the same mailing has reached so far"),
         says={"many": NN_("The same mailing has reached one customer so far", "The same mailing has reached {n} customers so far"),
               "none": N_("The same mailing has reached no customer so far")}),
    Fact(name="mailing.reach", type=Type.COUNT, source=L, own="recipients.reach",
         doc="distinct people sent the same mailing in 24 h, this message included",
         label=N_("people that the same mailing reaches"),
         says={"many": NN_("The same mailing reaches one person", "The same mailing reaches {n} people")}),
    Fact(name="mailing.share", type=Type.SHARE, source=L, own="recipients.share",
         doc="the largest share of any one list that this makes",
         label=N_("share of a list that the same mailing reaches"),
         says={"many": N_("The same mailing reaches {n} of a customer list")}),
    Fact(name="mailing.approved", type=Type.TRUTH, source=L, made_from=(),
         doc="approved beforehand or by vote",
         label=N_("the mailing is approved"),
         says={"yes": N_("The mailing was approved"), "no": N_("It was not approved as a mailing")}),
    Fact(name="stream", type=Type.WORDS, source=O, made_from=(Part.MEMBERSHIP, Part.STREAMS), noun="stream",
         doc="the stream whose origin it proved",
         label=N_("a system whose mail is approved beforehand"),
         says={"some": N_("It comes from a system whose mail is approved beforehand"),
               "none": N_("It does not provably come from a system whose mail is approved beforehand")}),
    Fact(name="sender.address", type=Type.WORD, source=H, elsewhere=True, personal=True, ordinary="somebody@example.com",
         doc="the From that it claims, canonical",
         label=N_("its From"),
         says={"any": N_("Its From is one that a rule names")}),
    Fact(name="sender.internal", type=Type.TRUTH, source=H, made_from=(Part.ORGANIZATION,),
         doc="whether From is in the organization's domains",
         label=N_("its From is a colleague's"),
         says={"yes": N_("Its From is a colleague's"),
               "no": N_("Its From is nobody's in the organization")}),
    Fact(name="sender.proven", type=Type.TRUTH, source=O,
         doc="by AUTH, by a listener that verifies senders, or by a declared origin",
         label=N_("its sender is proven"),
         says={"yes": N_("Its sender is proven"), "no": N_("Its sender is not proven")}),
    Fact(name="sender.is_writer", type=Type.TRUTH, source=O, made_from=(Part.MEMBERSHIP, Part.ORGANIZATION, Part.WRITERS),
         doc="From is a writer of every addressed list, and is proven; for a list with an `origin`, by that alone",
         label=N_("its sender may write to every list that it is addressed to"),
         says={"yes": N_("Its sender may write to every list that it is addressed to"),
               "no": N_("Its sender is not proven to be somebody who may write to every list that it is addressed to")}),
    Fact(name="sender.customers", type=Type.COUNT, source=L, windowed=True, of_customers=True, made_from=(Part.MEMBERSHIP, Part.ORIGIN, Part.STREAMS),
         doc="distinct customers that this From wrote to in a window, or, if nothing proves From, its login, or without one the client in mail that looks like a mailing: the most. What is held, of a stream or approved is not counted",
         label=N_("customers that its sender wrote to"),
         says={"many": NN_("Its sender wrote to one customer", "Its sender wrote to {n} customers"),
               "none": N_("Its sender wrote to no customer")}),
    Fact(name="sender.first_contacts", type=Type.COUNT, source=L, windowed=True, usual=True, by_mailing=True, of_letters=True, made_from=_OF_LETTERS,
         doc="distinct customers let through in a window, this message's included, whom its sender had not written to in 90 days and does not provably answer; in mail that is no mailing and of no stream",
         label=N_("customers whom its sender wrote to for the first time in 90 days"),
         says={"many": NN_("Its sender wrote to one customer for the first time in 90 days", "Its sender wrote to {n} customers for the first time in 90 days"),
               "none": N_("Its sender wrote to no customer for the first time in 90 days")}),
    Fact(name="sender.list_contacts", type=Type.COUNT, source=L, windowed=True, usual=True, by_list=True, of_letters=True, made_from=_OF_LETTERS,
         doc="of the sender's first contacts those on any one list touched: the most",
         label=N_("customers of one list whom its sender wrote to for the first time in 90 days"),
         says={"many": NN_("Its sender wrote to one customer of one list for the first time in 90 days", "Its sender wrote to {n} customers of one list for the first time in 90 days"),
               "none": N_("Its sender wrote to no customer of a list for the first time in 90 days")}),
    Fact(name="sender.answers", type=Type.COUNT, source=L, windowed=True, usual=True, of_letters=True, made_from=_OF_LETTERS,
         doc="distinct customers whom the sender had not written to in 90 days and answers by what can be forged; they are among `sender.first_contacts`",
         label=N_("customers whom its sender answered, and had not written to in 90 days"),
         says={"many": NN_("Its sender answered one customer whom they had not written to in 90 days", "Its sender answered {n} customers whom they had not written to in 90 days"),
               "none": N_("Its sender answered no customer whom they had not written to in 90 days")}),
    Fact(name="list.language", type=Type.WORDS, source=E, made_from=(Part.MEMBERSHIP, Part.LANGUAGE),
         doc="the languages that people read of the lists touched, as far as the policy says",
         label=N_("languages that the lists' people read"),
         called=_LANGUAGES,
         says={"some": N_("Those it is addressed to read certain languages"),
               "none": N_("Nobody has said which languages those it is addressed to read")}),
    Fact(name="list.customers", type=Type.COUNT, source=L, windowed=True, by_list=True, of_customers=True,
         doc="distinct people of any one list touched, whoever wrote to them and what, in a window: the most. What is held, of a stream or an approved mailing is not counted",
         label=N_("people of one list who were written to"),
         says={"many": NN_("Mail went to one customer of a list", "Mail went to {n} customers of a list"),
               "none": N_("Mail went to no customer of a list")}),
    Fact(name="list.first_contacts", type=Type.COUNT, source=L, windowed=True, usual=True, by_list=True, of_letters=True, made_from=_OF_LETTERS,
         doc="distinct people of any one list touched who were first contacts of whichever sender: the most",
         label=N_("customers of one list who got a first letter in 90 days"),
         says={"many": NN_("One customer of one list got a first letter in 90 days from somebody here", "{n} customers of one list got a first letter in 90 days from somebody here"),
               "none": N_("No customer of a list got a first letter in 90 days from somebody here")}),
    Fact(name="list.share", type=Type.SHARE, source=L, windowed=True, by_list=True,
         doc="`list.customers` as a share of the list: the largest",
         label=N_("share of one list that was written to"),
         says={"many": N_("Mail went to {n} of a customer list")}),
    Fact(name="thread.replies", type=Type.COUNT, source=L, made_from=(Part.MEMBERSHIP, Part.CONVERSATIONS), windowed=True,
         doc="distinct replies in the conversation in a window, by their Message-IDs; none where it is no reply itself",
         label=N_("replies in the conversation"),
         says={"many": NN_("There was one reply in this conversation", "There were {n} replies in this conversation"),
               "none": N_("There were no replies in this conversation")}),
    Fact(name="thread.reach", type=Type.COUNT, source=L, made_from=(Part.MEMBERSHIP, Part.CONVERSATIONS), windowed=True, own="recipients.reach",
         doc="distinct people whom this very reply reaches in a window, over all transactions that it is split into",
         label=N_("people whom the reply reaches"),
         says={"many": NN_("This reply reached one person", "This reply reached {n} people"),
               "none": N_("This reply reached nobody")}),
)  # fmt: skip
FACTS: Mapping[str, Fact] = {fact.name: fact for fact in _FACTS}
"""Every fact by its name. Another name is an error in the policy, with a suggestion."""


def named(of: Callable[[Fact], bool]) -> frozenset[str]:
    return frozenset(fact.name for fact in FACTS.values() if of(fact))


SIZE = "message.size_mb"
"""The one count that need not be a whole number."""
OF_MAILINGS = named(lambda f: f.area == "mailing" and f.number)
"""Sizes of the mailing that a message is a copy of."""
OF_LETTERS = named(lambda f: f.of_letters)
"""Counts of a sender's first contacts: only of letters, and only of those not held."""
OF_LISTS = named(lambda f: f.area == "list" and f.source is L and not f.of_letters)
"""Counts of all mail to a list, from any sender."""
OF_TOPICS = named(lambda f: f.noun == "vocabulary")
"""Vocabularies that are found in a text."""
OF_SENDERS = named(lambda f: f.area == "sender" and f.number)
"""Counts of the people that a sender writes to."""


@constant
class Facts:
    """The facts of one message. ``values``: those asked for; ``evidence``: the phrases behind a fact, for people.

    ``lists`` and ``senders`` are what freezes are matched against: names of lists touched; canonical From, reverse-path
    and authenticated user. ``quorum`` is what a hold of this message needs. ``thread`` is the name of the conversation
    for a freeze; ``threads``: the keys under which its replies are counted, none if it is no reply, and ``reply``: this
    one's own. ``identity``: what it is a copy of; None if it was not needed. ``sizes``: the number of people on each
    list that it touches, or may touch. ``sent_by``: for mail to single customers that uses no stream, the names of its
    sender, under whose last what is held for their number waits; ``letter_from``: the same names, under which its first
    contacts are counted, none if it is no letter. ``also_from``: the name of the login; without one, of what looks like
    a mailing and proves no From, that of the client. ``shared``: it is from a mailbox in which several people answer."""

    values: Mapping[str, Value] = field(default_factory=dict)
    evidence: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()
    senders: frozenset[str] = frozenset()
    thread: str = ""
    threads: tuple[str, ...] = ()
    reply: str = ""
    identity: Identity | None = None
    sizes: Mapping[str, Count] = field(default_factory=dict)
    sent_by: tuple[str, ...] = ()
    letter_from: tuple[str, ...] = ()
    also_from: str = ""
    shared: bool = False
