"""The prefixes that mail programs put before a subject in replies and forwards, in many languages.

RFC 5322 section 3.6.5 knows only "Re:".
"""

from __future__ import annotations

import re
import unicodedata

from smtpguard.reading.fold import fold

REPLY, FORWARD = "reply", "forward"

_REPLY = (
    "re", "r", "ref", "sv", "svar", "antw", "aw", "antwort", "vs", "vast", "res", "resp", "odp", "ynt", "yan", "atb", "bls",
    "ats", "vl-re", "rv-re", "ré", "rép", "réf", "rif", "ang", "betr", "vá", "va", "odg", "na", "hal", "bals", "回复", "答复",
    "回覆", "返信", "회신", "رد", "تعليق", "השב", "תשובה", "σχετ", "απ", "απάντηση", "отв", "на", "re^2", "tr-re", "ред", "đt",
    "ответ", "odpowiedź", "trả lời",
)  # fmt: skip
_FORWARD = (
    "fw", "fwd", "vb", "vs-fw", "vbf", "vidarebef", "vidarebefordrat", "videresendt", "wg", "wtr", "tr", "trans", "rv", "enc", "i",
    "pd", "vl", "vlw", "fs", "iletim", "i̇lt", "ilt", "doorst", "továbbítás", "továbbított", "tov", "přep", "prz", "转发", "轉寄",
    "転送", "전달", "إعادة توجيه", "הועבר", "πρθ", "пересл", "fyi-fw", "redir", "vidarebefordra",
)  # fmt: skip
_WORDS = {**dict.fromkeys(_REPLY, REPLY), **dict.fromkeys(_FORWARD, FORWARD)}
_TAG = r"(?:\[[^\]\[]{1,60}\]\s*|<[^<>]{1,60}>\s*|\{[^{}]{1,60}\}\s*|\*{2,5}[^*]{1,40}\*{2,5}\s*|\((?:extern\w*|external)\)\s*|(?:extern\w*|external|internt|intern):\s*)"
_PREFIX = re.compile(
    rf"\s*{_TAG}{{0,3}}([^\W\d_]{{1,18}}(?:[ \-^][^\W_]{{1,12}})?)\s*(?:[\[(]\d{{1,3}}[\])])?\s*[:：]", re.I
)


def prefix_of(subject: str) -> tuple[str, str] | None:
    """(REPLY or FORWARD, the prefix as spelled), None if the subject has none. Tags of lists are skipped."""
    begins = subject[:200]
    if not begins.isascii():
        begins = unicodedata.normalize("NFKC", begins)
    found = _PREFIX.match(begins) if ":" in begins or "：" in begins else None
    if not found:
        return None
    kind = _WORDS.get(found[1].lower()) or _WORDS.get(fold(found[1]))
    if kind is None:
        return None
    if len(found[1]) == 1 and found[1] not in ("R", "I"):
        return None
    return kind, f"{found[1]}:"


def bare(subject: str) -> str:
    """The subject without prefixes."""
    for _ in range(12):
        found = _PREFIX.match(subject[:200])
        if not found or found[1].lower() not in _WORDS:
            break
        subject = subject[found.end() :]
    return subject.strip()
