"""What is said of one fact of a message to people who may not know what a list is for: one plain English sentence, from the table of facts.

It says what was observed, never which list or why a list is special: that somebody is on a list for Ramadan greetings is
itself a thing to protect, so lists, audiences, sensitivities and topics are not named here. notices.swedish says it in Swedish.
"""

from __future__ import annotations

from smtpguard.policy.facts import FACTS, NONE, Count, Type, Unknown, Value

UNKNOWN = "Something about it could not be checked, so people have to look at it."


def sentence(fact: str, value: Value, window: str = "") -> str:
    """One sentence. Total: a value that a fact should not have is described as what could not be checked."""
    text = "" if isinstance(value, Unknown) else _observed(fact, value)
    if not text:
        return UNKNOWN
    return f"{text} in {window}." if window else f"{text}."


def _observed(name: str, value: Value) -> str:
    fact = FACTS.get(name)
    if fact is None:
        return ""
    says = fact.says
    match value:
        case bool() if fact.type is Type.TRUTH:
            return says["yes" if value else "no"][0]
        case Count() if fact.number:
            if value == NONE and "none" in says:
                return says["none"][0]
            key = "one" if value == _ONE and "one" in says else "many"
            return says[key][0].replace("#", percent(value) if fact.type is Type.SHARE else number(value))
        case frozenset() if fact.type is Type.WORDS:
            return says["some" if value else "none"][0]
        case str() if fact.type in (Type.WORD, Type.NETWORK):
            return says[value][0] if value in fact.words and value in says else says.get("any", ("",))[0]
    return ""


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


_ONE = Count(1, 1)
