"""The writer's own text of a message: without signature, disclaimers and footers.

Input is folded (``fold``) and has no quoted text (quoting). The text's own words choose the place of the cut, so all
copies of a mailing are cut at the same place. Only the end of a text is looked at, where signatures and footers are.
"""

from __future__ import annotations

import re

from smtpguard.reading.phrases import found_in

_CLOSINGS = frozenset(
    line.strip()
    for line in """
    best regards|kind regards|warm regards|regards|best wishes|many thanks|thanks|thank you|thx|cheers|best|br|sincerely|yours sincerely|yours truly
    |yours faithfully|take care|all the best|with best regards|with kind regards|thanks in advance|thanks again|warmly|respectfully
    |med vänlig hälsning|med vänliga hälsningar|vänliga hälsningar|vänlig hälsning|hälsningar|bästa hälsningar|varma hälsningar|många hälsningar|mvh|vh
    |hälsar|tack på förhand|tack|kram|ha det bra|ha det gott|trevlig helg|allt gott|med vennlig hilsen|vennlig hilsen|beste hilsen|hilsen|mvh.
    |med venlig hilsen|venlig hilsen|de bedste hilsner|mange hilsner|hilsner|på forhånd tak|ystävällisin terveisin|terveisin|terv|yst. terv.|kiitos
    |parhain terveisin|mit freundlichen grüßen|mit freundlichen grüssen|freundliche grüße|freundliche grüsse|viele grüße|liebe grüße|beste grüße
    |herzliche grüße|schöne grüße|mit besten grüßen|mfg|lg|vg|gruß|grüße|cordialement|bien cordialement|bien à vous|bien à toi|cdt|amicalement
    |sincères salutations|salutations distinguées|bonne journée|merci d'avance|merci|saludos|saludos cordiales|un saludo|un cordial saludo|atentamente
    |un abrazo|gracias|muchas gracias|cordiali saluti|distinti saluti|saluti|a presto|grazie|un caro saluto|met vriendelijke groet
    |met vriendelijke groeten|vriendelijke groet|groet|groeten|groetjes|mvg|alvast bedankt|atenciosamente|cumprimentos|com os melhores cumprimentos|abraço
    |abraços|obrigado|obrigada|pozdrawiam|z poważaniem|pozdrowienia|s pozdravem|pozdrav|pozdravy|s pozdravom|lep pozdrav|üdvözlettel|tisztelettel
    |saygılarımla|teşekkürler|iyi çalışmalar|с уважением|с наилучшими пожеланиями|з повагою|με εκτίμηση|φιλικά|مع التحية|تحياتي|وتفضلوا بقبول فائق الاحترام
    |בברכה|よろしくお願いいたします。|以上、よろしくお願いいたします。|敬具|此致|敬礼|祝好|顺祝商祺|감사합니다|ขอแสดงความนับถือ|trân trọng|salam|hormat kami
    """.replace("\n", "").split("|")
)
_AFTER = frozenset(
    ("unsubscribe-words", "preferences", "web-version", "why-you-get-this", "imprint", "confidentiality", "mobile-footer", "do-not-reply")
)  # fmt: skip
# The standard footer of a house, if there is nothing else.
_OF_THE_HOUSE = frozenset({"imprint", "confidentiality", "mobile-footer"})
_FLOWING = 120  # with this number of characters before a footer's sentence, the line is a paragraph, not a footer
_SENTENCE = re.compile(r"[.!?:…](?=\s)")
_SALUTATION = re.compile(
    r"\s*(?:hi|hello|hey|dear|good (?:morning|afternoon|evening)|hej(?:san)?|hallå|tjena|god (?:morgon|dag)|bästa|kära?|hei|halla|moi|terve|hyvä"
    r"|hallo|guten (?:tag|morgen)|liebe[rs]?|sehr geehrte[rs]?|moin|servus|bonjour|salut|chère?|hola|buenos días|estimad[oa]|querid[oa]|ciao|buongiorno"
    r"|beste|geachte|olá|caro|cara|cześć|witam|dzień dobry|ahoj|merhaba|привет|здравствуйте|مرحبا)\b[^,!.:\n]{0,60}[,!.:\n]+"
)
_FOOT = 6_000  # characters from the end in which footers begin
_SIGNATURE = 1_500
_RULED = 600  # characters below a line of dashes that may be a signature, or its second half
_RULE = re.compile(r"\n[ \t]*(?:--|__|—|[-_=*~─]{5,})[ \t]*\n")


def own(text: str) -> str:
    """``text`` up to the beginning of a footer, a disclaimer or a signature."""
    return _without_rules(_unsigned(_without_foot(text, _AFTER)))


def uncut(text: str) -> str:
    """``text`` without signature and the house's standard footer; words on unsubscribing do not cut it."""
    return _without_rules(_unsigned(_without_foot(text, _OF_THE_HOUSE)))


def unaddressed(text: str) -> str:
    """``text`` without its salutation."""
    found = _SALUTATION.match(text)
    return text[found.end() :] if found else text


def _without_foot(text: str, foot: frozenset[str]) -> str:
    start = text.rfind("\n", 0, max(len(text) * 2 // 5, len(text) - _FOOT)) + 1
    tail = text[start:].replace("’", "'").replace("\n", " ")
    first = min((at for name, at, _ in found_in(tail) if name in foot), default=-1)
    if first < 0:
        return text
    first += start
    line = max(text.rfind("\n", 0, first), 0)
    if first - line <= _FLOWING:
        return text[:line]
    ends = [found.end() for found in _SENTENCE.finditer(text, line, first)]
    return text[: ends[-1]] if ends else text[:first]


def _unsigned(text: str) -> str:
    """Without the text after the last closing formula, which is a line of its own or before a name."""
    start = text.rfind("\n", 0, max(len(text) - _SIGNATURE, 0)) + 1
    end = len(text)
    for line in reversed(text[start:].split("\n")):
        end -= len(line)
        words = line.strip()
        if len(words) < 60 and (words.rstrip(" ,.!-") in _CLOSINGS or words.partition(",")[0].rstrip() in _CLOSINGS):
            return text[:end]
        end -= 1
    return text


def _without_rules(text: str) -> str:
    for _ in range(2):
        rules = list(_RULE.finditer(text, max(0, len(text) - _RULED)))
        if not rules:
            break
        text = text[: rules[-1].start()]
    return text
