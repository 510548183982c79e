"""What is said to a sender about one fact of the message: one plain English sentence, made from fact and observed value.

It says what was observed, never which list or why a list is special: that somebody is on a list for Ramadan greetings is
itself a thing to protect, so lists, audiences, sensitivities and topics are not named here. Other languages are
notices.notice's, from the same fact and value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from smtpguard.policy.facts import Count, Unknown, Value

UNKNOWN = "Something about it could not be checked, so people have to look at it."


def sentence(fact: str, value: Value, window: str = "") -> str:
    """One sentence. Total: a value that a fact should not have is described as what could not be checked."""
    if isinstance(value, Unknown):
        return UNKNOWN
    said = _SAID.get(fact)
    text = said(value) if said is not None else ""
    if not text:
        return UNKNOWN
    return f"{text} in {window}." if window else f"{text}."


def number(count: Count) -> str:
    """A count for people: "400,000", "between 0 and 3"."""
    if count.exact:
        return _figure(count.low)
    if count.high == float("inf"):
        return f"at least {_figure(count.low)}"
    return f"between {_figure(count.low)} and {_figure(count.high)}"


def percent(share: Count) -> str:
    low, high = 100 * share.low, 100 * share.high
    return f"{low:.3g} %" if share.exact else f"between {low:.3g} and {high:.3g} %"


def _figure(n: float) -> str:
    return f"{n:,.0f}" if n == n // 1 else f"{n:,.1f}"


Saying = Callable[[Value], str]


def _counted(one: str, many: str, none: str = "") -> Saying:
    """``one`` and ``many`` with ``#`` where the number goes; ``none`` for zero."""

    def say(value: Value) -> str:
        if not isinstance(value, Count):
            return ""
        if value == Count(0, 0) and none:
            return none
        return (one if value == Count(1, 1) else many).replace("#", number(value))

    return say


def _shared(text: str) -> Saying:
    return lambda value: text.replace("#", percent(value)) if isinstance(value, Count) else ""


def _truth(yes: str, no: str) -> Saying:
    return lambda value: (yes if value else no) if isinstance(value, bool) else ""


def _word(table: Mapping[str, str]) -> Saying:
    return lambda value: table.get(value, "") if isinstance(value, str) else ""


def _some(some: str, none: str) -> Saying:
    return lambda value: (some if value else none) if isinstance(value, frozenset) else ""


_CUSTOMERS = _some("It is addressed to customers", "It is addressed to no customers")

_SAID: Mapping[str, Saying] = {
    "client": lambda value: "It comes from an address that a rule names" if isinstance(value, str) else "",
    "listener": lambda value: "It came in where a rule looks" if isinstance(value, str) else "",
    "listener.proves_senders": _truth("It came in where senders are proven", "It came in where senders are not proven"),
    "login": _some("Somebody logged in to send it", "Nobody logged in to send it"),
    "message.looks": _word({
        "internal": "It looks like mail between colleagues",
        "mailing": "It looks like a mailing",
        "unclear": "It does not look like a mailing, and may be mail between colleagues",
    }),
    "message.correspondence": _truth(
        "It is correspondence with a few people, who all stand in To or Cc",
        "It is more than correspondence with a few people who all stand in To or Cc",
    ),
    "message.topics": _some("Some of its words are on a list of topics to look out for",
                            "None of its words are on a list of topics to look out for"),
    "message.unsuitable_topics": _some("Some of its words may not suit everybody it is addressed to",
                                       "None of its words are known not to suit those it is addressed to"),
    "message.readable": _word({
        "yes": "Its text could be read",
        "unreadable": "Its text cannot be read: it is encrypted, damaged or in a foreign format",
        "too-complex": "It is too large or too complex to be read",
    }),
    "message.labels": _some("It bears a label of confidentiality", "It bears no label of confidentiality"),
    "message.unfinished": _some("It is not finished: fields are left unfilled, or it is a draft or a test",
                                "Nothing in it shows that it is not finished"),
    "message.language": lambda value: "It is in a language that a rule names" if isinstance(value, str) else "",
    "message.marks": _some("Something in it is what a rule looks for", "Nothing in it is what a rule looks for"),
    "recipients.domains": _some("It goes to domains that a rule looks for", "It goes to no domain that a rule looks for"),
    "list.language": _some("Those it is addressed to read certain languages",
                           "Nobody has said which languages those it is addressed to read"),
    "message.automatic": _truth("It is an automatic message", "It is not an automatic message"),
    "message.answers": _truth("It answers the customers whom it goes to, or goes to those who had mail from its sender before",
                              "It does not answer every customer whom it goes to"),
    "message.size_mb": _counted("Its size is # MiB", "Its size is # MiB"),
    "recipients.total": _counted("It has one recipient", "It has # recipients"),
    "recipients.internal": _counted("One recipient is a colleague", "# recipients are colleagues", "No recipient is a colleague"),
    "recipients.outside": _counted("One recipient is outside", "# recipients are outside", "No recipient is outside"),
    "recipients.list_addresses": _counted("It is addressed to a customer list", "It is addressed to # customer lists",
                                          "It is addressed to no customer list"),
    "recipients.members": _counted("One recipient is a customer", "# recipients are customers", "No recipient is a customer"),
    "recipients.customers": _counted("It reaches one customer", "It reaches # customers", "It reaches no customer"),
    "recipients.undisclosed": _counted("One customer among its recipients stands neither in To nor in Cc",
                                       "# customers among its recipients stand neither in To nor in Cc",
                                       "All customers among its recipients stand in To or Cc"),
    "recipients.lists": _CUSTOMERS,
    "recipients.audience": _CUSTOMERS,
    "recipients.sensitivity": _CUSTOMERS,
    "recipients.reach": _counted("It reaches one person", "It reaches # people", "It reaches nobody"),
    "recipients.share": _shared("It reaches # of a customer list"),
    "mailing.customers": _counted("The same mailing reaches one customer", "The same mailing reaches # customers",
                                  "The same mailing reaches no customer"),
    "mailing.ever": _counted("The same mailing has reached one customer so far", "The same mailing has reached # customers so far",
                             "The same mailing has reached no customer so far"),
    "mailing.reach": _counted("The same mailing reaches one person", "The same mailing reaches # people"),
    "mailing.share": _shared("The same mailing reaches # of a customer list"),
    "mailing.approved": _truth("The mailing was approved", "Nobody has approved it as a mailing"),
    "stream": _some("It comes from a system whose mail is approved beforehand",
                    "It does not provably come from a system whose mail is approved beforehand"),
    "sender.address": lambda value: "Its From is one that a rule names" if isinstance(value, str) else "",
    "sender.internal": _truth("Its From is a colleague's", "Its From is nobody's in the organization"),
    "sender.proven": _truth("Its sender is proven", "Its sender is not proven"),
    "sender.is_writer": _truth("Its sender may write to every list that it is addressed to",
                               "Its sender is not proven to be somebody who may write to every list that it is addressed to"),
    "sender.customers": _counted("Its sender wrote to one customer", "Its sender wrote to # customers", "Its sender wrote to no customer"),
    "sender.first_contacts": _counted("Its sender wrote to one customer for the first time in 90 days",
                                      "Its sender wrote to # customers for the first time in 90 days",
                                      "Its sender wrote to no customer for the first time in 90 days"),
    "sender.list_contacts": _counted("Its sender wrote to one customer of one list for the first time in 90 days",
                                     "Its sender wrote to # customers of one list for the first time in 90 days",
                                     "Its sender wrote to no customer of a list for the first time in 90 days"),
    "list.first_contacts": _counted("One customer of one list got a first letter in 90 days from somebody here",
                                    "# customers of one list got a first letter in 90 days from somebody here",
                                    "No customer of a list got a first letter in 90 days from somebody here"),
    "sender.answers": _counted("Its sender answered one customer whom they had not written to in 90 days",
                               "Its sender answered # customers whom they had not written to in 90 days",
                               "Its sender answered no customer whom they had not written to in 90 days"),
    "list.share": _shared("Mail went to # of a customer list"),
    "list.customers": _counted("Mail went to one customer of a list", "Mail went to # customers of a list",
                               "Mail went to no customer of a list"),
    "thread.replies": _counted("There was one reply in this conversation", "There were # replies in this conversation",
                               "There were no replies in this conversation"),
    "thread.reach": _counted("This reply reached one person", "This reply reached # people", "This reply reached nobody"),
}  # fmt: skip
