"""The evidence for holding a message, where it stands in the text, and what is proven of the writer.

A login, or a mail server in front that checks senders, proves the writer. From alone proves nothing. A name of mixed alphabets
may imitate another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import N_, Phrase
from smtpguard.locale.speech import Speech
from smtpguard.reading.looks import Reading
from smtpguard.reading.marks import Side, veiled

_MOST_PHRASES = 20  # of each kind of evidence
_MOST_WORDS = 60  # to mark
_MOST_MARKED = 400  # places in a text
_LETTERS = re.compile(r"[^\W\d_]+")
_TOGETHER = ({"HIRAGANA", "KATAKANA", "CJK"}, {"HANGUL", "CJK"})  # alphabets that one language mixes
ALPHABETS = {
    "LATIN": N_("Latin"),
    "CYRILLIC": N_("Cyrillic"),
    "GREEK": N_("Greek"),
    "ARMENIAN": N_("Armenian"),
    "HEBREW": N_("Hebrew"),
    "ARABIC": N_("Arabic"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The evidence in a message, in sentences. ``internal``: for mail between colleagues; ``mailing``: for a mailing. ``topics``:
    those that the audience is to be spared; ``others``: other topics. ``words``: what to mark in the text, each with the reason."""

    internal: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    mailing: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()


def evidence(reading: Reading, said: Speech, avoid: Collection[str], *, blind: bool = False) -> Evidence:
    """Return the evidence that a reading found. ``avoid``: the topics that the audience is to be spared. ``blind``: whether the
    reader may not see the text."""

    def phrase(text: Phrase) -> str:
        return said.say(veiled(text, reading.subject) if blind else text)

    heavy = sorted(reading.marks, key=lambda mark: -mark.weight)

    def few(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(texts))[:_MOST_PHRASES]

    found = [(t, phrase(t.phrase)) for t in reading.topics]
    quoted = [
        (word, phrase(m.evidence))
        for m in heavy
        if m.side is Side.INTERNAL
        for word in m.evidence.quoted
        if 2 <= len(word) <= 80
    ]
    return Evidence(
        internal=few(phrase(m.evidence) for m in heavy if m.side is Side.INTERNAL),
        topics=few(text for t, text in found if t.vocabulary in avoid),
        others=few(text for t, text in found if t.vocabulary not in avoid),
        mailing=few(phrase(m.evidence) for m in heavy if m.side is Side.MAILING),
        words=tuple(dict([*quoted, *((t.word, text) for t, text in found)]).items())[-_MOST_WORDS:],
    )


def segments(text: str, words: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Split the text into stretches, each with the reason why it is marked, "" for ordinary text. Of words that begin at one place, the
    longest is marked. Case does not matter."""
    why = {word.lower(): reason for word, reason in words if word.strip()}
    if not why:
        return [(text, "")] if text else []
    longest = sorted(why, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest))})(?!\w)", re.I)
    parts = enumerate(pattern.split(text, _MOST_MARKED))  # words at odd places
    return [(part, why.get(part.lower(), "") if n % 2 else "") for n, part in parts if part]


def authorship(hold: Hold, claimed: str, said: Speech) -> str:
    """Return who wrote the message, in one or two sentences: what is proven, and what is only claimed. ``claimed``: the address in
    From, "" if there is none or it is unreadable."""
    user, sender, claims = hold.session.auth_user or "", hold.sender, claimed.lower()
    if user:
        if not claims or user.lower() in (claims, claims.rpartition("@")[0]):
            return said("{who} wrote this, proven by a login.", who=claimed or user)
        text = N_("{user} sent this, proven by a login. It says it is from {claimed}; nothing proves that.")
        return said(text, user=user, claimed=claimed)
    if hold.session.senders_verified and sender is not None and claims in ("", sender.lower()):
        return said("{who} wrote this, verified by the mail server in front.", who=sender)
    if shown := claimed or sender:
        if signers := sorted(proof.removeprefix("dkim ") for proof in hold.proofs if proof.startswith("dkim ")):
            return said("It says it is from {who}; signed (DKIM) by {domains}.", who=shown, domains=", ".join(signers))
        return said("It says it is from {who}; nothing proves that.", who=shown)
    if (path := hold.envelope.reverse_path) is not None:
        return said("Who wrote this is unknown. Its return address is {who}; nothing proves that.", who=path)
    return said("Who wrote this is unknown.")


def mixed_alphabets(texts: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return the words with letters of several alphabets, each with those alphabets."""
    found = {}
    for text in texts:
        for word in _LETTERS.findall(text):
            scripts = {unicodedata.name(c, "?").split(" ")[0] for c in word}
            if len(scripts) > 1 and not any(scripts <= some for some in _TOGETHER):
                found[word] = sorted(scripts)
    return list(found.items())
