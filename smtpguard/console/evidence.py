"""The evidence for holding a message, in phrases, and its positions in the text; and who wrote it: what is proven, and
what is only claimed. Pure.

A login, or a mail server in front that checks senders, proves the writer. From alone proves nothing. A name of mixed
alphabets may imitate another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import N_, Phrase
from smtpguard.locale.speech import Speech
from smtpguard.reading.looks import Reading, topic_called
from smtpguard.reading.marks import Side, veiled

_MOST_PHRASES = 20
_MOST_WORDS = 60
_MOST_MARKED = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of the text. ``why``: the evidence in it, "" for ordinary text."""

    text: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """``internal``: evidence for mail between colleagues; ``mailing``: evidence for a mailing. ``topics``: those that
    the audience is to be spared; ``others``: other topics. ``words``: what to mark in the text, and why."""

    internal: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    mailing: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()


def evidence(reading: Reading, said: Speech, avoid: Collection[str], *, blind: bool = False) -> Evidence:
    """``avoid``: the topics that the audience is to be spared. ``blind``: for a reader who may not see the text."""

    def phrase(text: Phrase) -> str:
        return said.say(veiled(text, reading.subject) if blind else text)

    heavy = sorted(reading.marks, key=lambda mark: -mark.weight)
    by_side = {
        side: tuple(dict.fromkeys(phrase(m.evidence) for m in heavy if m.side is side))[:_MOST_PHRASES] for side in Side
    }
    found = [(t, phrase(t.phrase)) for t in reading.topics]
    quoted = [
        (word, phrase(m.evidence))
        for m in heavy
        if m.side is Side.INTERNAL
        for word in m.evidence.quoted
        if 2 <= len(word) <= 80
    ]
    return Evidence(
        internal=by_side[Side.INTERNAL],
        topics=tuple(dict.fromkeys(text for t, text in found if t.vocabulary in avoid))[:_MOST_PHRASES],
        others=tuple(dict.fromkeys(text for t, text in found if t.vocabulary not in avoid))[:_MOST_PHRASES],
        mailing=by_side[Side.MAILING],
        words=tuple(dict([*quoted, *((t.word, text) for t, text in found)]).items())[-_MOST_WORDS:],
    )


def topic(name: str, said: Speech) -> str:
    return said.say(topic_called(name))


def segments(text: str, words: Sequence[tuple[str, str]]) -> list[Segment]:
    """Split the text at the words, the longest first; case does not matter."""
    why = {word.lower(): reason for word, reason in words if word.strip()}
    if not why:
        return [Segment(text=text)] if text else []
    longest = sorted(why, key=len, reverse=True)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in longest), re.I)
    found: list[Segment] = []
    end = 0
    for n, match in enumerate(pattern.finditer(text)):
        if n >= _MOST_MARKED:
            break
        if match.start() > end:
            found.append(Segment(text=text[end : match.start()]))
        found.append(Segment(text=match[0], why=why.get(match[0].lower(), "")))
        end = match.end()
    if end < len(text):
        found.append(Segment(text=text[end:]))
    return found


_WORD = re.compile(r"[^\W\d_]+")
_TOGETHER = ({"HIRAGANA", "KATAKANA", "CJK"}, {"HANGUL", "CJK"})
ALPHABETS = {
    "LATIN": N_("Latin"),
    "CYRILLIC": N_("Cyrillic"),
    "GREEK": N_("Greek"),
    "ARMENIAN": N_("Armenian"),
    "HEBREW": N_("Hebrew"),
    "ARABIC": N_("Arabic"),
}


def authorship(hold: Hold, claimed: str, said: Speech) -> str:
    """One or two sentences. ``claimed``: the address in From, "" if there is none or it is unreadable."""
    user, claims = hold.session.auth_user or "", claimed or ""
    if user:
        same = claims and (user.lower() == claims.lower() or user.lower() == claims.rpartition("@")[0].lower())
        if same or not claims:
            return said("{who} wrote this, proven by a login.", who=claims or user)
        return said(
            "{user} sent this, proven by a login. It says it is from {claimed}; nothing proves that.",
            user=user,
            claimed=claims,
        )
    if (
        hold.session.senders_verified
        and hold.sender is not None
        and (not claims or hold.sender.lower() == claims.lower())
    ):
        return said("{who} wrote this, verified by the mail server in front.", who=hold.sender)
    shown = claims or hold.sender or ""
    if shown:
        return said("It says it is from {who}; nothing proves that.", who=shown)
    if hold.envelope.reverse_path is not None:
        return said(
            "Who wrote this is unknown. Its return address is {who}; nothing proves that.",
            who=str(hold.envelope.reverse_path),
        )
    return said("Who wrote this is unknown.")


def mixed(texts: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Words with letters of several alphabets, each with those alphabets."""
    found = {}
    for text in texts:
        for word in _WORD.findall(text):
            scripts = {unicodedata.name(c, "?").split(" ")[0] for c in word}
            if len(scripts) > 1 and not any(scripts <= some for some in _TOGETHER):
                found[word] = sorted(scripts)
    return list(found.items())
