"""Everything that a rule may ask, and nothing else: one table of facts, and the values of one message.

The table is all that is said of a fact in one place. The schema, the reference in docs/policy.md, the sentences and words in every language,
what a rule can possibly meet, the cases of ``smtpguard test`` and what a verdict's entry keeps are made from it.

A value is a truth, a word, a set of words, an address in a network, or a count. A count is an interval, since with no usable index a recipient is
nobody or one customer. What could not be found out is Unknown, and says why; what has not been asked yet is absent.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
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


@dataclass(frozen=True, slots=True)
class Within:
    """Only the bounds of a count are known. A condition that they do not decide is pending, as if nobody had asked yet."""

    count: Count


Value = bool | str | frozenset[str] | Count | Unknown | Within


class Part(enum.Enum):
    """Of a policy, beside its rules, what a fact is made from: under a policy that differs in it the fact may be another."""

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


Said = tuple[str, str]
"""A text in English and in Swedish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What may be asked.

    ``doc``: what it means, for the schema and the reference. ``label``: what it is called on a page. ``called``: words for its values; they
    are all that it can be, save where ``any_word`` may be asked for. ``says``: what is said of it to people who may not know what a list is
    for: of a truth ``yes`` and ``no``, of a word by that word or ``any``, of a set ``some`` and ``none``, of a number ``one``, ``many`` and
    ``none``, with ``#`` for the number. ``noun``: what a policy declares as its words.

    ``windowed``: asked with "in 1h". ``usual``: also with what is usual for the sender. ``by_list``: counted of each list, so that lists may
    be named. ``by_mailing``: may be narrowed to copies of the message's own mailing. ``of_letters``: counts first contacts, of letters alone. ``own``: the fact that it is of a message that is the only one.

    ``ordinary``: its value in a letter to one person outside, where it is not nothing. ``at_most``: the fact that it never exceeds.
    ``of_customers``: it counts customers, so it never exceeds the people on all lists. ``personal``: its value names somebody.
    ``made_from``: parts of a policy; where it says nothing, those of its source (``parts``). ``elsewhere``: a verdict's entry has it in
    another form. ``since``: the version of recorded facts (policy.recorded) in which a verdict keeps it first.
    """

    name: str
    type: Type
    source: Source
    doc: str
    label: Said
    says: Mapping[str, Said]
    called: Mapping[str, Said] = field(default_factory=dict)
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
        """The closed set of its values; empty where there is none."""
        return () if self.any_word else tuple(self.called)

    @property
    def default(self) -> Value:
        """Its value in a letter to one person outside. A verdict keeps no value that is the default, so it never changes."""
        return _NOTHING[self.type] if self.ordinary is None else self.ordinary

    @property
    def parts(self) -> frozenset[Part]:
        """What of a policy, beside its rules, it is made from."""
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


def _facts(*facts: Fact) -> Mapping[str, Fact]:
    return {f.name: f for f in facts}


E, H, T, O, L = Source.ENVELOPE, Source.HEADERS, Source.TEXT, Source.ORIGIN, Source.LIVE
_UNCLEAR = ("unclear", "oklart")
_LANGUAGES: Mapping[str, Said] = {
    "ar": ("Arabic", "arabiska"), "da": ("Danish", "danska"), "de": ("German", "tyska"), "en": ("English", "engelska"),
    "es": ("Spanish", "spanska"), "fi": ("Finnish", "finska"), "fr": ("French", "franska"), "it": ("Italian", "italienska"),
    "nl": ("Dutch", "nederländska"), "no": ("Norwegian", "norska"), "pl": ("Polish", "polska"), "pt": ("Portuguese", "portugisiska"),
    "sv": ("Swedish", "svenska"),
}  # fmt: skip
assert tuple(_LANGUAGES) == tuple(LANGUAGES)

FACTS: Mapping[str, Fact] = _facts(
    Fact(name="client", type=Type.NETWORK, source=E, elsewhere=True, ordinary="192.0.2.1",
         doc="the address of the client, as a trusted MTA or proxy tells it where one stands in front",
         label=("the address of the client", "klientens nätverksadress"),
         says={"any": ("It comes from an address that a rule names", "Det kommer från en nätverksadress som nämns i en regel")}),
    Fact(name="listener", type=Type.WORD, source=E, elsewhere=True, ordinary="127.0.0.1:10025",
         doc="the listener that it came through: its name in the settings, or its address and port, like 127.0.0.1:10025",
         label=("where it came in", "var det kom in"),
         says={"any": ("It came in where a rule looks", "Det kom in på ett ställe som nämns i en regel")}),
    Fact(name="listener.proves_senders", type=Type.TRUTH, source=E,
         doc="whether the listener that it came through proves who sends: it has `auth`, or `senders_verified`",
         label=("it came in where senders are proven", "det kom in där avsändare bekräftas"),
         says={"yes": ("It came in where senders are proven", "Det kom in där avsändare bekräftas"),
               "no": ("It came in where senders are not proven", "Det kom in där avsändare inte bekräftas")}),
    Fact(name="login", type=Type.WORDS, source=E, elsewhere=True, personal=True,
         doc="the user who logged in, in lower case; none where nobody did",
         label=("who logged in", "vem som loggade in"),
         says={"some": ("Somebody logged in to send it", "Någon loggade in för att skicka det"),
               "none": ("Nobody logged in to send it", "Ingen loggade in för att skicka det")}),
    Fact(name="message.looks", type=Type.WORD, source=T, made_from=(Part.TEXT, Part.ORIGIN), ordinary="unclear",
         doc="internal, mailing or unclear, from marks with evidence",
         label=("what the message looks like", "vad meddelandet ser ut som"),
         called={"internal": ("mail between colleagues", "e-post mellan kollegor"), "mailing": ("a mailing", "ett utskick"), "unclear": _UNCLEAR},
         says={"internal": ("It looks like mail between colleagues", "Det ser ut som e-post mellan kollegor"),
               "mailing": ("It looks like a mailing", "Det ser ut som ett utskick"),
               "unclear": ("It does not look like a mailing, and may be mail between colleagues", "Det ser inte ut som ett utskick och kan vara e-post mellan kollegor")}),
    Fact(name="message.correspondence", type=Type.TRUTH, source=T, made_from=(Part.TEXT, Part.MEMBERSHIP), ordinary=True,
         doc="one-to-one or few: at most 3 customers, all of them in To or Cc, not a thread of colleagues forwarded",
         label=("it is correspondence with a few who all stand in To or Cc", "det är brevväxling med några få som alla står i Till eller Kopia"),
         says={"yes": ("It is correspondence with a few people, who all stand in To or Cc", "Det är brevväxling med några få personer, som alla står i Till eller Kopia"),
               "no": ("It is more than correspondence with a few people who all stand in To or Cc", "Det är mer än brevväxling med några få personer som alla står i Till eller Kopia")}),
    Fact(name="message.topics", type=Type.WORDS, source=T, made_from=(Part.VOCABULARIES,), noun="vocabulary",
         doc="vocabularies with terms in the text",
         label=("topics in it", "ämnen i det"),
         says={"some": ("Some of its words are on a list of topics to look out for", "En del av orden finns på en lista över ämnen att se upp med"),
               "none": ("None of its words are on a list of topics to look out for", "Inget av orden finns på en lista över ämnen att se upp med")}),
    Fact(name="message.unsuitable_topics", type=Type.WORDS, source=T, made_from=(Part.VOCABULARIES, Part.AVOID, Part.MEMBERSHIP), noun="vocabulary",
         doc="topics found that one of the addressed audiences is to be spared",
         label=("topics in it that the audience is to be spared", "ämnen i det som mottagarna ska slippa"),
         says={"some": ("Some of its words may not suit everybody it is addressed to", "En del av orden passar kanske inte alla som det är adresserat till"),
               "none": ("None of its words are known not to suit those it is addressed to", "Inget av orden är känt för att inte passa dem som det är adresserat till")}),
    Fact(name="message.readable", type=Type.WORD, source=T, made_from=(), ordinary="yes",
         doc="whether the text could be read within bounds",
         label=("its text can be read", "texten går att läsa"),
         called={"yes": ("yes", "ja"), "unreadable": ("unreadable", "oläsligt"), "too-complex": ("too complex", "för invecklat")},
         says={"yes": ("Its text could be read", "Texten gick att läsa"),
               "unreadable": ("Its text cannot be read: it is encrypted, damaged or in a foreign format", "Texten går inte att läsa: den är krypterad, skadad eller i ett främmande format"),
               "too-complex": ("It is too large or too complex to be read", "Det är för stort eller för invecklat för att läsas")}),
    Fact(name="message.unfinished", type=Type.WORDS, source=T,
         doc="what shows that it is not finished: a field of a template left unfilled, a draft, a colleague's comment, a test, filler text, a file that is named like a draft or is not the one that the text names",
         label=("signs that it is not finished", "tecken på att det inte är färdigt"),
         called={"placeholder": ("a field left unfilled", "ett fält som inte är ifyllt"), "draft": ("a draft", "ett utkast"), "comment": ("a comment left in it", "en kommentar som är kvar"), "test": ("a test", "ett test"), "filler": ("filler text", "utfyllnadstext"), "file": ("a wrong file", "fel fil")},
         says={"some": ("It is not finished: fields are left unfilled, it is a draft or a test, or a wrong file is attached", "Det är inte färdigt: fält är inte ifyllda, det är ett utkast eller ett test, eller fel fil är bifogad"),
               "none": ("Nothing in it shows that it is not finished", "Inget i det tyder på att det inte är färdigt")}),
    Fact(name="message.language", type=Type.WORD, source=T, ordinary="unclear",
         doc="the language that its text is in, as two letters, or unclear",
         label=("the language that it is in", "språket som det är skrivet på"),
         called={**_LANGUAGES, UNCLEAR: _UNCLEAR},
         says={"any": ("It is in a language that a rule names", "Det är skrivet på ett språk som nämns i en regel")}),
    Fact(name="message.marks", type=Type.WORDS, source=T, noun="mark",
         doc="names of the marks that were found, own marks included",
         label=("marks found in it", "kännetecken som hittades i det"),
         says={"some": ("Something in it is what a rule looks for", "Det innehåller något som en regel letar efter"),
               "none": ("Nothing in it is what a rule looks for", "Det innehåller inget som en regel letar efter")}),
    Fact(name="message.attachments", type=Type.COUNT, source=T,
         doc="files that are attached, as people see them: no pictures within the text, no signatures",
         label=("files attached to it", "bifogade filer"),
         says={"one": ("One file is attached to it", "En fil är bifogad"), "many": ("# files are attached to it", "# filer är bifogade"),
               "none": ("No file is attached to it", "Ingen fil är bifogad")}),
    Fact(name="message.labels", type=Type.WORDS, source=H,
         doc="sensitivity labels and confidentiality headers",
         label=("labels of confidentiality", "märkning som konfidentiellt"),
         says={"some": ("It bears a label of confidentiality", "Det är märkt som konfidentiellt"),
               "none": ("It bears no label of confidentiality", "Det är inte märkt som konfidentiellt")}),
    Fact(name="message.automatic", type=Type.TRUTH, source=H, made_from=(Part.ORGANIZATION, Part.STREAMS, Part.WRITERS),
         doc="an automatic reply or generated mail (RFC 3834), with a null reverse-path or from the proven origin of a list or stream",
         label=("it is an automatic message", "det är ett automatiskt meddelande"),
         says={"yes": ("It is an automatic message", "Det är ett automatiskt meddelande"),
               "no": ("It is not an automatic message", "Det är inget automatiskt meddelande")}),
    Fact(name="message.answers", type=Type.TRUTH, source=L, of_letters=True,
         doc="it answers each customer among its recipients, or its sender wrote to that customer within 90 days",
         label=("it answers every customer whom it goes to", "det svarar alla kunder som det går till"),
         says={"yes": ("It answers the customers whom it goes to, or goes to those who had mail from its sender before", "Det svarar de kunder som det går till, eller går till dem som har fått post av avsändaren förut"),
               "no": ("It does not answer every customer whom it goes to", "Det är inte ett svar till alla kunder som det går till")}),
    Fact(name="message.size_mb", type=Type.COUNT, source=E, elsewhere=True,
         doc="size in MiB",
         label=("its size in MiB", "storleken i MiB"),
         says={"one": ("Its size is # MiB", "Det är # MiB stort"), "many": ("Its size is # MiB", "Det är # MiB stort")}),
    Fact(name="recipients.total", type=Type.COUNT, source=E, elsewhere=True, made_from=(), ordinary=Count(1, 1),
         doc="RCPTs",
         label=("recipients", "mottagare"),
         says={"one": ("It has one recipient", "Det har en mottagare"), "many": ("It has # recipients", "Det har # mottagare")}),
    Fact(name="recipients.internal", type=Type.COUNT, source=E, at_most="recipients.total",
         doc="RCPTs of the organization",
         label=("colleagues among the recipients", "kollegor bland mottagarna"),
         says={"one": ("One recipient is a colleague", "En mottagare är en kollega"),
               "many": ("# recipients are colleagues", "# mottagare är kollegor"),
               "none": ("No recipient is a colleague", "Ingen mottagare är en kollega")}),
    Fact(name="recipients.outside", type=Type.COUNT, source=E, at_most="recipients.total", ordinary=Count(1, 1),
         doc="RCPTs that are neither internal, list addresses nor members",
         label=("recipients who are on no list", "mottagare som inte står på någon lista"),
         says={"one": ("One recipient is outside", "En mottagare finns utanför organisationen"),
               "many": ("# recipients are outside", "# mottagare finns utanför organisationen"),
               "none": ("No recipient is outside", "Ingen mottagare finns utanför organisationen")}),
    Fact(name="recipients.list_addresses", type=Type.COUNT, source=E, at_most="recipients.total",
         doc="RCPTs that are a list's address, or another address that expands to several customers",
         label=("lists that it is addressed to", "listor som det är adresserat till"),
         says={"one": ("It is addressed to a customer list", "Det är adresserat till en kundlista"),
               "many": ("It is addressed to # customer lists", "Det är adresserat till # kundlistor"),
               "none": ("It is addressed to no customer list", "Det är inte adresserat till någon kundlista")}),
    Fact(name="recipients.members", type=Type.COUNT, source=E, at_most="recipients.total", of_customers=True,
         doc="RCPTs that are themselves on a customer list",
         label=("recipients who are on a list themselves", "mottagare som själva står på en lista"),
         says={"one": ("One recipient is a customer", "En mottagare är kund"),
               "many": ("# recipients are customers", "# mottagare är kunder"),
               "none": ("No recipient is a customer", "Ingen mottagare är kund")}),
    Fact(name="recipients.customers", type=Type.COUNT, source=E, of_customers=True,
         doc="customers that this one message reaches: members, and the people behind list addresses",
         label=("customers that it reaches", "kunder som det når"),
         says={"one": ("It reaches one customer", "Det når en kund"),
               "many": ("It reaches # customers", "Det når # kunder"),
               "none": ("It reaches no customer", "Det når ingen kund")}),
    Fact(name="recipients.undisclosed", type=Type.COUNT, source=H, at_most="recipients.customers",
         doc="members that neither To nor Cc shows",
         label=("customers whom neither To nor Cc shows", "kunder som varken Till eller Kopia visar"),
         says={"one": ("One customer among its recipients stands neither in To nor in Cc", "En kund bland mottagarna står varken i Till eller Kopia"),
               "many": ("# customers among its recipients stand neither in To nor in Cc", "# kunder bland mottagarna står varken i Till eller Kopia"),
               "none": ("All customers among its recipients stand in To or Cc", "Alla kunder bland mottagarna står i Till eller Kopia")}),
    Fact(name="recipients.lists", type=Type.WORDS, source=E, noun="list",
         doc="the lists touched, by address or by member",
         label=("lists that it touches", "listor som det rör"),
         says={"some": ("It is addressed to customers", "Det är adresserat till kunder"),
               "none": ("It is addressed to no customers", "Det är inte adresserat till kunder")}),
    Fact(name="recipients.audience", type=Type.WORDS, source=E, made_from=(Part.MEMBERSHIP, Part.AUDIENCE), noun="audience",
         doc="the audiences of the lists touched",
         label=("audiences that it reaches", "målgrupper som det når"),
         says={"some": ("It is addressed to customers", "Det är adresserat till kunder"),
               "none": ("It is addressed to no customers", "Det är inte adresserat till kunder")}),
    Fact(name="recipients.sensitivity", type=Type.WORDS, source=E, made_from=(Part.MEMBERSHIP, Part.SENSITIVITY), noun="sensitivity",
         doc="the sensitivities of the lists touched",
         label=("sensitivity of the lists that it touches", "hur känsliga listorna är som det rör"),
         called={"special-category": ("special category", "känsliga personuppgifter"), "normal": ("normal", "vanlig")}, any_word=True,
         says={"some": ("It is addressed to customers", "Det är adresserat till kunder"),
               "none": ("It is addressed to no customers", "Det är inte adresserat till kunder")}),
    Fact(name="recipients.domains", type=Type.WORDS, source=E, elsewhere=True, made_from=(),
         doc="the domains of the RCPTs, in lower case and A-labels",
         label=("domains of the recipients", "mottagarnas domäner"),
         says={"some": ("It goes to domains that a rule looks for", "Det går till domäner som nämns i en regel"),
               "none": ("It goes to no domain that a rule looks for", "Det går inte till någon domän som nämns i en regel")}),
    Fact(name="recipients.reach", type=Type.COUNT, source=E, ordinary=Count(1, 1),
         doc="people after expansion: one RCPT can be 400,000",
         label=("people that it reaches", "personer som det når"),
         says={"one": ("It reaches one person", "Det når en person"),
               "many": ("It reaches # people", "Det når # personer"),
               "none": ("It reaches nobody", "Det når ingen")}),
    Fact(name="recipients.share", type=Type.SHARE, source=E,
         doc="the largest share of any one list that this one message reaches",
         label=("share of a list that it reaches", "andel av en lista som det når"),
         says={"many": ("It reaches # of a customer list", "Det når # av en kundlista")}),
    Fact(name="mailing.customers", type=Type.COUNT, source=L, own="recipients.customers", at_most="mailing.ever", of_customers=True,
         doc="distinct customers sent the same mailing in 24 h, this message included",
         label=("customers that the same mailing reaches", "kunder som samma utskick når"),
         says={"one": ("The same mailing reaches one customer", "Samma utskick når en kund"),
               "many": ("The same mailing reaches # customers", "Samma utskick når # kunder"),
               "none": ("The same mailing reaches no customer", "Samma utskick når ingen kund")}),
    Fact(name="mailing.ever", type=Type.COUNT, source=L, own="recipients.customers", of_customers=True,
         doc="distinct customers sent the same mailing so far, however long ago, this message included; a mailing of few ends after eight days without a copy",
         label=("customers whom the same mailing has reached so far", "kunder som samma utskick har nått hittills"),
         says={"one": ("The same mailing has reached one customer so far", "Samma utskick har hittills nått en kund"),
               "many": ("The same mailing has reached # customers so far", "Samma utskick har hittills nått # kunder"),
               "none": ("The same mailing has reached no customer so far", "Samma utskick har hittills inte nått någon kund")}),
    Fact(name="mailing.reach", type=Type.COUNT, source=L, own="recipients.reach",
         doc="distinct people sent the same mailing in 24 h, this message included",
         label=("people that the same mailing reaches", "personer som samma utskick når"),
         says={"one": ("The same mailing reaches one person", "Samma utskick når en person"),
               "many": ("The same mailing reaches # people", "Samma utskick når # personer")}),
    Fact(name="mailing.share", type=Type.SHARE, source=L, own="recipients.share",
         doc="the largest share of any one list that this makes",
         label=("share of a list that the same mailing reaches", "andel av en lista som samma utskick når"),
         says={"many": ("The same mailing reaches # of a customer list", "Samma utskick når # av en kundlista")}),
    Fact(name="mailing.approved", type=Type.TRUTH, source=L, made_from=(),
         doc="approved beforehand or by vote",
         label=("the mailing is approved", "utskicket är godkänt"),
         says={"yes": ("The mailing was approved", "Utskicket är godkänt"), "no": ("Nobody has approved it as a mailing", "Ingen har godkänt det som utskick")}),
    Fact(name="stream", type=Type.WORDS, source=O, made_from=(Part.MEMBERSHIP, Part.STREAMS), noun="stream",
         doc="the stream whose origin it proved",
         label=("a system whose mail is approved beforehand", "ett system vars e-post är godkänd på förhand"),
         says={"some": ("It comes from a system whose mail is approved beforehand", "Det kommer från ett system vars e-post är godkänd på förhand"),
               "none": ("It does not provably come from a system whose mail is approved beforehand", "Det kommer inte bevisligen från ett system vars e-post är godkänd på förhand")}),
    Fact(name="sender.address", type=Type.WORD, source=H, elsewhere=True, personal=True, ordinary="somebody@example.com",
         doc="the From that it claims, canonical",
         label=("its From", "avsändaren i Från"),
         says={"any": ("Its From is one that a rule names", "Avsändaren nämns i en regel")}),
    Fact(name="sender.internal", type=Type.TRUTH, source=H, made_from=(Part.ORGANIZATION,),
         doc="whether From is in the organization's domains",
         label=("its From is a colleague's", "avsändaren i Från är en kollega"),
         says={"yes": ("Its From is a colleague's", "Avsändaren är en kollega"),
               "no": ("Its From is nobody's in the organization", "Avsändaren är ingen i organisationen")}),
    Fact(name="sender.proven", type=Type.TRUTH, source=O,
         doc="by AUTH, by a listener that verifies senders, or by a declared origin",
         label=("its sender is proven", "avsändaren är bekräftad"),
         says={"yes": ("Its sender is proven", "Avsändaren är bekräftad"), "no": ("Its sender is not proven", "Avsändaren är inte bekräftad")}),
    Fact(name="sender.is_writer", type=Type.TRUTH, source=O, made_from=(Part.MEMBERSHIP, Part.ORGANIZATION, Part.WRITERS),
         doc="From is a writer of every addressed list, and is proven",
         label=("its sender may write to every list that it is addressed to", "avsändaren får skriva till alla listor som det är adresserat till"),
         says={"yes": ("Its sender may write to every list that it is addressed to", "Avsändaren får skriva till alla listor som det är adresserat till"),
               "no": ("Its sender is not proven to be somebody who may write to every list that it is addressed to", "Det är inte bekräftat att avsändaren får skriva till alla listor som det är adresserat till")}),
    Fact(name="sender.customers", type=Type.COUNT, source=L, windowed=True, of_customers=True,
         doc="distinct customers that this From wrote to in a window",
         label=("customers that its sender wrote to", "kunder som avsändaren har skrivit till"),
         says={"one": ("Its sender wrote to one customer", "Avsändaren har skrivit till en kund"),
               "many": ("Its sender wrote to # customers", "Avsändaren har skrivit till # kunder"),
               "none": ("Its sender wrote to no customer", "Avsändaren har inte skrivit till någon kund")}),
    Fact(name="sender.first_contacts", type=Type.COUNT, source=L, windowed=True, usual=True, by_mailing=True, of_letters=True,
         doc="distinct customers let through in a window, this message's included, whom its sender had not written to in 90 days and does not provably answer; in mail that is no mailing and of no stream",
         label=("customers whom its sender wrote to for the first time in 90 days", "kunder som avsändaren har skrivit till för första gången på 90 dagar"),
         says={"one": ("Its sender wrote to one customer for the first time in 90 days", "Avsändaren har skrivit till en kund för första gången på 90 dagar"),
               "many": ("Its sender wrote to # customers for the first time in 90 days", "Avsändaren har skrivit till # kunder för första gången på 90 dagar"),
               "none": ("Its sender wrote to no customer for the first time in 90 days", "Avsändaren har inte skrivit till någon kund för första gången på 90 dagar")}),
    Fact(name="sender.list_contacts", type=Type.COUNT, source=L, windowed=True, usual=True, by_list=True, of_letters=True,
         doc="of the sender's first contacts those on any one list touched: the most",
         label=("customers of one list whom its sender wrote to for the first time in 90 days", "kunder på en och samma lista som avsändaren har skrivit till för första gången på 90 dagar"),
         says={"one": ("Its sender wrote to one customer of one list for the first time in 90 days", "Avsändaren har skrivit till en kund på en och samma lista för första gången på 90 dagar"),
               "many": ("Its sender wrote to # customers of one list for the first time in 90 days", "Avsändaren har skrivit till # kunder på en och samma lista för första gången på 90 dagar"),
               "none": ("Its sender wrote to no customer of a list for the first time in 90 days", "Avsändaren har inte skrivit till någon kund på en lista för första gången på 90 dagar")}),
    Fact(name="sender.answers", type=Type.COUNT, source=L, windowed=True, usual=True, of_letters=True,
         doc="distinct customers whom the sender had not written to in 90 days and answers by what can be forged; they are among `sender.first_contacts`",
         label=("customers whom its sender answered, and had not written to in 90 days", "kunder som avsändaren har svarat och inte hade skrivit till på 90 dagar"),
         says={"one": ("Its sender answered one customer whom they had not written to in 90 days", "Avsändaren har svarat en kund som inte hade fått post därifrån på 90 dagar"),
               "many": ("Its sender answered # customers whom they had not written to in 90 days", "Avsändaren har svarat # kunder som inte hade fått post därifrån på 90 dagar"),
               "none": ("Its sender answered no customer whom they had not written to in 90 days", "Avsändaren har inte svarat någon kund som inte hade fått post därifrån på 90 dagar")}),
    Fact(name="list.language", type=Type.WORDS, source=E, made_from=(Part.MEMBERSHIP, Part.LANGUAGE),
         doc="the languages that people read of the lists touched, as far as the policy says",
         label=("languages that the lists' people read", "språk som de på listorna läser"),
         called=_LANGUAGES,
         says={"some": ("Those it is addressed to read certain languages", "De som det är adresserat till läser vissa språk"),
               "none": ("Nobody has said which languages those it is addressed to read", "Ingen har sagt vilka språk de som det är adresserat till läser")}),
    Fact(name="list.customers", type=Type.COUNT, source=L, windowed=True, by_list=True, of_customers=True,
         doc="distinct people of any one list touched, whoever wrote to them and what, in a window: the most. What is held, of a stream or an approved mailing is not counted",
         label=("people of one list who were written to", "personer på en lista som har fått post"),
         says={"one": ("Mail went to one customer of a list", "E-post gick till en kund på en lista"),
               "many": ("Mail went to # customers of a list", "E-post gick till # kunder på en lista"),
               "none": ("Mail went to no customer of a list", "E-post gick till ingen kund på en lista")}),
    Fact(name="list.first_contacts", type=Type.COUNT, source=L, windowed=True, usual=True, by_list=True, of_letters=True,
         doc="distinct people of any one list touched who were first contacts of whichever sender: the most",
         label=("customers of one list who got a first letter in 90 days", "kunder på en och samma lista som har fått ett första brev på 90 dagar"),
         says={"one": ("One customer of one list got a first letter in 90 days from somebody here", "En kund på en och samma lista har fått ett första brev på 90 dagar av någon här"),
               "many": ("# customers of one list got a first letter in 90 days from somebody here", "# kunder på en och samma lista har fått ett första brev på 90 dagar av någon här"),
               "none": ("No customer of a list got a first letter in 90 days from somebody here", "Ingen kund på en lista har fått ett första brev på 90 dagar av någon här")}),
    Fact(name="list.share", type=Type.SHARE, source=L, windowed=True, by_list=True,
         doc="`list.customers` as a share of the list: the largest",
         label=("share of one list that was written to", "andel av en lista som har fått post"),
         says={"many": ("Mail went to # of a customer list", "E-post gick till # av en kundlista")}),
    Fact(name="thread.replies", type=Type.COUNT, source=L, made_from=(Part.MEMBERSHIP, Part.CONVERSATIONS), windowed=True,
         doc="distinct replies in the conversation in a window, by their Message-IDs; none where it is no reply itself",
         label=("messages in the conversation", "meddelanden i konversationen"),
         says={"one": ("There was one reply in this conversation", "Det har kommit ett svar i den här konversationen"),
               "many": ("There were # replies in this conversation", "Det har kommit # svar i den här konversationen"),
               "none": ("There were no replies in this conversation", "Det har inte kommit något svar i den här konversationen")}),
    Fact(name="thread.reach", type=Type.COUNT, source=L, made_from=(Part.MEMBERSHIP, Part.CONVERSATIONS), windowed=True, own="recipients.reach",
         doc="distinct people whom this very reply reaches in a window, over all transactions that it is split into",
         label=("people that the conversation reaches", "personer som konversationen når"),
         says={"one": ("This reply reached one person", "Svaret har nått en person"),
               "many": ("This reply reached # people", "Svaret har nått # personer"),
               "none": ("This reply reached nobody", "Svaret har inte nått någon")}),
)  # fmt: skip
"""Every fact by its name. A name that is not here is an error in the policy, with a suggestion."""


def named(of: Callable[[Fact], bool]) -> frozenset[str]:
    """The names of some facts."""
    return frozenset(fact.name for fact in FACTS.values() if of(fact))


OF_MAILINGS = named(lambda f: f.area == "mailing" and f.number)
"""Sizes of the mailing that a message is a copy of."""
OF_LETTERS = named(lambda f: f.of_letters)
"""Counts of whom a sender writes to for the first time: what was let through is counted alone, and of letters alone."""
OF_LISTS = named(lambda f: f.area == "list" and f.source is L and not f.of_letters)
"""Counts of all that goes to a list, whoever writes it."""
OF_TOPICS = named(lambda f: f.noun == "vocabulary")
"""Vocabularies that are found in a text."""
OF_SENDERS = named(lambda f: f.area == "sender" and f.number)
"""Counts of whom a sender writes to."""


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
