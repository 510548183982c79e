"""Marks: evidence in a message for mail between colleagues, or for a mailing.

The table has the weight of each kind of mark and the reason for it. Marks of one ``group`` have one cause, so only
the heaviest of a group counts: eight headers of one Exchange server are not eight reasons.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from smtpguard.locale.phrase import Phrase, Value
from smtpguard.mail.address import IN_TEXT
from smtpguard.mail.constant import constant, maker

UNFINISHED = frozenset({"placeholder", "draft", "comment", "test", "filler", "file", "empty"})
"""Marks of a message that is not finished. Approvers see them first."""
NOT_TO_GO_OUT = frozenset({"label-inside", "label", "inside-only", "internal-words", "secretive"})
"""Marks of a message that is for internal use. Approvers see them next."""


class Side(enum.Enum):
    INTERNAL = "internal"
    MAILING = "mailing"
    NEITHER = "neither"  # informative only: "a post on a mailing list"
    __hash__ = object.__hash__  # Enum's takes the name's, in Python


@constant
class Mark:
    """A mark of one message. ``evidence``: a phrase for people: 'the subject begins with "SV:"'. ``weight``: above 0,
    for its side. ``group``: of the marks of one group only the heaviest counts."""

    name: str
    side: Side
    weight: float
    evidence: Phrase
    group: str = ""


_new_mark = maker(Mark)


def veiled(evidence: Phrase, subject: str = "") -> Phrase:
    """Return a phrase without words or addresses of the message, for readers who may know the reason and not the
    content. Words of the subject, which identifies the message, stay."""
    out_of_it = evidence.quoted_names

    def veil(name: str, value: Value) -> Value:
        if isinstance(value, Phrase):
            return veiled(value, subject)
        if not isinstance(value, str) or (name in out_of_it and value.casefold() in subject.casefold()):
            return value
        return "…" if name in out_of_it else IN_TEXT.sub("…", value)

    return evidence.with_values(**{name: veil(name, value) for name, value in evidence.values.items()})


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of mark. ``reason``: why it has this weight."""

    name: str
    side: Side
    weight: float
    group: str
    reason: str

    def mark(self, evidence: str, **values: Value) -> Mark:
        """Make a mark. ``evidence``: a phrase, or the text of one with these ``values``. Evidence that contains a
        phrase must be a Phrase: the cache compares values, and two phrases may be the same in English alone."""
        if not isinstance(evidence, Phrase):
            return _cached_mark(self.name, evidence, **values)
        return _new_mark(name=self.name, side=self.side, weight=self.weight, evidence=evidence, group=self.group)


@lru_cache(maxsize=512, typed=True)
def _cached_mark(kind: str, msgid: str, /, **values: Value) -> Mark:
    """Make a mark, cached: most evidence is the same in all copies of a mailing, and in all mail of one sender."""
    return KINDS[kind].mark(Phrase.of(msgid, "", values))


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
    Kind("tool-notice", _I, 3.0, "thread", "a tool in which colleagues write, such as Teams, Slack or Jira, sent it to them"),
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
"""Every kind of mark by its name."""

OF_LIST_HEADERS = frozenset(k.name for k in KINDS.values() if k.side is Side.MAILING and k.group == "list") | {
    "list-unproven"
}
"""Marks of a message that bears list headers, whether they count or not."""
