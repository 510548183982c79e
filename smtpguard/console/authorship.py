"""Who wrote a held message: what is proven, and what is only claimed. Pure.

A login, or a mail server in front that checks senders, proves the writer. From alone proves nothing. A name of mixed
alphabets may imitate another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech

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
