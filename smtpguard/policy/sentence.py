"""One plain sentence on a fact of a message, from the table of facts, for readers who may not know what a list is for.

It says what was observed, never which list or why a list is special. Membership of a list for Ramadan greetings is
itself to be protected, so lists, audiences, sensitivities and topics are not named here.
"""

from __future__ import annotations

from smtpguard.locale.phrase import Amount, Phrase, Span
from smtpguard.policy.facts import FACTS, NONE, Count, Type, Unknown, Value

UNKNOWN = Phrase("Something about it could not be checked, so people have to look at it.")


def sentence(fact: str, value: Value, window_seconds: int = 0) -> Phrase:
    """One sentence. Total: a value that a fact cannot have is described as one that could not be checked."""
    seen = None if isinstance(value, Unknown) else _observed(fact, value)
    if seen is None:
        return UNKNOWN
    if window_seconds:
        return Phrase("{observed} in {time}.", observed=seen, time=Span(window_seconds))
    return Phrase("{observed}.", observed=seen)


def _observed(name: str, value: Value) -> Phrase | None:
    fact = FACTS.get(name)
    if fact is None:
        return None
    says, key = fact.says, ""
    match value:
        case bool() if fact.type is Type.TRUTH:
            key = "yes" if value else "no"
        case Count() if fact.number:
            if value != NONE or "none" not in says:
                return _counted(says["many"], amount(value, share=fact.type is Type.SHARE))
            key = "none"
        case frozenset() if fact.type is Type.WORDS:
            key = "some" if value else "none"
        case str() if fact.type in (Type.WORD, Type.NETWORK):
            key = value if value in fact.words and value in says else "any"
    text = says.get(key)
    return Phrase(text) if isinstance(text, str) else None


def _counted(form: str | tuple[str, str], n: Amount) -> Phrase:
    return Phrase(form, n=n) if isinstance(form, str) else Phrase.counted(*form, n)


def amount(count: Count, *, share: bool) -> Amount:
    """A share as percent."""
    return Amount(100 * count.low, 100 * count.high, percent=True) if share else Amount(count.low, count.high)


def percent(share: Count) -> str:
    """As the observed value of a condition: "25 %", "between 10 and 50 %"."""
    low, high = 100 * share.low, 100 * share.high
    return f"{low:.3g} %" if share.exact else f"between {low:.3g} and {high:.3g} %"
