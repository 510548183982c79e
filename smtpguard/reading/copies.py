"""Compute the identity by which copies of a message are recognised: a sketch of its own text; if that is too short, a
sketch of the other text that it shows, or an exact key.

As long as a message has enough own text, its signature, disclaimers and quoted text do not count. For "See attached"
and a forwarded story the quoted or attached text counts, or the attached files; else the few words, if they are
identical. An unreadable message is a copy of those with an identical body. All text is folded first, so that invisible
differences do not tell copies apart.

The writer's own text (``own``) is without signature, disclaimers and footers. The text's own words choose the place of the cut, so all
copies of a mailing are cut at the same place. Only the end of a text is looked at, where signatures and footers are.
"""

from __future__ import annotations

import hashlib
import re
import zlib

from smtpguard.mail.decoding import header_text
from smtpguard.mail.fields import ListHeader
from smtpguard.mail.message import Content
from smtpguard.reading.fingerprint import MOST, Identity, Sketch, sketch, twofold
from smtpguard.reading.fold import skeleton
from smtpguard.reading.parts import Index
from smtpguard.reading.phrases import found_in
from smtpguard.reading.text import Text
from smtpguard.reading.thread import without_prefixes

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
# The standard footer of a house, if there is nothing else: words on unsubscribing do not cut the text then.
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


def own_text(text: str, foot: frozenset[str] = _AFTER) -> str:
    """Return ``text`` up to the beginning of a footer or disclaimer with one of these marks, or of a signature."""
    return _without_rules(_without_signature(_without_foot(text, foot)))


def without_footer(text: str) -> str:
    """Return ``text`` up to the beginning of a footer, or of a line of dashes with a signature below it."""
    return _without_rules("\n" + _without_foot(text, _AFTER))


def without_salutation(text: str) -> str:
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


def _without_signature(text: str) -> str:
    """Remove the text after the last closing formula, which is a line of its own or before a name."""
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


ENOUGH = 200
"""The characters of its own text from which nothing else of a message counts."""
LEAST = 100
"""The least characters for a sketch."""
VERY_SHORT = 40
"""The letters of a text below which two people may well write the same: then a copy must have the same sender and
subject."""
_NONE = (Sketch(), Sketch())
_OTHERS = 0x51  # the salt of sketches of text that is not the writer's own
_PIECE = 1 << 20
_DIGITS = 32
_LINK = re.compile(r"\b(?:https?://|www\.)\S++|(?<!\S)\S[^\s@]*+@\S++")
_NO_LETTERS = re.compile(r"[\W\d_]+")


def identity_of(text: Text, sender: str, alone: str) -> tuple[Identity, str]:
    """Return what a readable message is a copy of; and, if its own text is too short to decide alone, the name of
    this one message, used if it answers its recipients: ``alone``, from its Message-ID or ``body_key``."""
    said = skeleton(text.new[: 2 * MOST])
    words = own_text(said)
    if len(words) < ENOUGH and len(whole := own_text(said, _OF_THE_HOUSE)) > len(words):
        words = whole
    if len(words) < ENOUGH and text.markup.alts:
        words = skeleton("\n".join((words, *text.markup.alts)))  # a mailing of pictures only has its words in alt texts
    if len(words) >= ENOUGH and (made := sketch(words)):
        return Identity(sketch=made), ""
    own_words = _by_words(words, sender, text.subject) or Identity(exact=alone)
    return _by_other_content(text, words, own_words, alone) or own_words, alone


def _by_other_content(text: Text, words: str, own_words: Identity, alone: str) -> Identity | None:
    """Return the identity by quoted or attached text, or by files; None if there is neither."""
    instead = own_words.exact or alone
    beside = zlib.crc32(_letters(without_salutation(words)).encode("utf-8", "replace")) or 1
    others = _other_text(text)
    plain, made = twofold(others, _OTHERS) if len(others) >= LEAST else _NONE
    if made:
        return Identity(sketch=made, instead=instead, quoted=plain)
    enclosed = skeleton("\n".join(text.enclosed)[: 2 * MOST]) if text.enclosed else ""
    _, made = twofold(enclosed, _OTHERS) if len(enclosed) >= LEAST else _NONE
    if made:
        return Identity(sketch=made, instead=instead, beside=beside)
    digests = sorted(
        {*_digests(text), *(hashlib.sha256(t.encode("utf-8", "replace")).hexdigest() for t in text.enclosed if t)}
    )
    if digests:
        key = hashlib.blake2b("".join(digests).encode(), digest_size=_DIGITS // 2).hexdigest()
        return Identity(exact=f"files {key}", instead=instead, beside=beside)
    return None


def _other_text(text: Text) -> str:
    return skeleton("\n".join(filter(None, (text.quoted, *text.forwarded)))[: 2 * MOST])


def quoted(text: Text) -> Sketch:
    """Return a sketch of the text that it quotes or returns, as that text had it as a mailing of its own. If it marks
    nothing as another's, it is of all that it says: some servers return a message without a sign of where it begins."""
    others = _other_text(text) or skeleton(text.new[: 2 * MOST])
    return sketch(others) if len(others) >= LEAST else Sketch()


def _by_words(words: str, sender: str, subject: str) -> Identity | None:
    """Return the identity by its few words; None if it has none."""
    words = without_salutation(words)
    whole = _letters(words)
    if len(whole) < VERY_SHORT:
        said = " ".join(f"{skeleton(without_prefixes(subject))} {words}".split())
        if not said:
            return None
        whole = f"{sender} {said}"
    key = hashlib.blake2b(whole.encode("utf-8", "replace"), digest_size=_DIGITS // 2).hexdigest()
    return Identity(exact=f"text {key}", sketch=sketch(words) if len(words) >= LEAST else Sketch())


def _letters(words: str) -> str:
    """Return letters and single spaces, without links, addresses, digits and signs."""
    if "@" in words or "://" in words or "www." in words:
        words = _LINK.sub(" ", words)
    return " ".join(_NO_LETTERS.sub(" ", words).split())


def _digests(text: Text) -> list[str]:
    """Return the digests of the attached files, as they are encoded, regardless of line ends."""
    found = []
    for part in text.files:
        digest = hashlib.blake2b(digest_size=_DIGITS // 2)
        for at in range(part.start, part.end, _PIECE):
            digest.update(bytes(part.raw[at : min(part.end, at + _PIECE)]).translate(None, b"\r\n \t"))
        if part.start < part.end:
            found.append(digest.hexdigest())
    return found


def body_key(raw: Content, start: int, boundaries: list[str]) -> str:
    """Return a key of the body that begins at ``start``. Boundaries are left out, since they are random."""
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    marks = [b"--" + b.encode("utf-8", "surrogateescape") for b in dict.fromkeys(boundaries)]
    position = start
    while position < len(raw):
        found = [(at, len(mark)) for mark in marks if (at := raw.find(mark, position)) >= 0]
        stop, length = min(found, default=(len(raw), 0))
        for piece in range(position, stop, _PIECE):
            digest.update(raw[piece : min(stop, piece + _PIECE)])
        position = stop + length
    return f"body {digest.hexdigest()}"


# The campaign that a message declares. Anybody can write these header fields: they count only from a verified origin.
#
# A field that numbers campaigns names one alone; some tools number each copy in it. Feedback-ID and List-Id (RFC 2919) often
# stay the same from one mailing to the next, so they name one only with the subject, digits included. A message that
# declares a campaign is also of one with all that have its subject. One common name joins two. Fields that number recipients
# or messages name nothing.


_OF_CAMPAIGNS = (
    "x-campaign", "x-campaign-id", "x-campaignid", "x-mailing-id", "x-mailingid", "x-newsletter-id", "x-newsletterid", "x-broadcast-id",
    "x-blast-id", "x-mailin-campaign", "x-mailgun-campaign-id", "x-listmonk-campaign", "x-mass-mailing-id", "x-job-id", "x-jobid",
)  # fmt: skip
CAMPAIGNS = frozenset(_OF_CAMPAIGNS)
_MOST = 200


def campaign_of(fields: Index, lists: ListHeader, subject: str) -> tuple[str, ...]:
    """Return the names of the campaign that a message declares, the most specific first; none if it declares none. A
    field that occurs twice is ignored."""
    if CAMPAIGNS.isdisjoint(fields) and not lists.feedback_id and not lists.list_id:
        return ()
    found = []
    for name in _OF_CAMPAIGNS if not CAMPAIGNS.isdisjoint(fields) else ():
        given = fields.get(name, ())
        if len(given) == 1 and (value := " ".join(header_text(given[0].raw[:_MOST]).split())):
            found.append(f"{name} {value}")
    constant = [value for value in (lists.feedback_id, lists.list_id) if value]
    if not found and not constant:
        return ()
    about = " ".join(without_prefixes(subject).lower().split())
    if not about:
        return tuple(found)
    if found and not constant:
        return (*found, f"subject {about}"[: 2 * _MOST])
    return (*found, *(f"{value} {about}"[: 2 * _MOST] for value in constant))
