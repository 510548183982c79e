"""Marks from what a message says: phrases, greetings, signatures, links, and the mail that it quotes.

The new part counts; quoted text has another writer: a colleague who forwards a newsletter has not written one.

Marks of the structure are what mail programs write around typed text, and what templates have. The admins change weights, switch marks
off, and add marks of their own (a field, a pattern, a term): patterns are re2's, so that no pattern and no message together can take more
than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from urllib.parse import urlsplit

import re2

from smtpguard.locale.phrase import N_, Phrase
from smtpguard.reading.copies import without_footer
from smtpguard.reading.fold import fold, letters, skeleton
from smtpguard.reading.marks import KINDS, Mark, Side
from smtpguard.reading.markup import TEMPLATE, TYPED, WORDS_TOO
from smtpguard.reading.parts import Index
from smtpguard.reading.people import parse_addresses
from smtpguard.reading.phrases import found_in
from smtpguard.reading.request import Custom, Surroundings
from smtpguard.reading.text import Text
from smtpguard.reading.unfinished import another_file, named_like_a_draft, unfinished_signs

_GREETING = re.compile(
    r"\s*(?:hi|hello|hey|dear|good (?:morning|afternoon|evening)|hej(?:san)?|hallå|tjena|tja|god(?: ?morgon|dag)|bästa|käre?|kära|hei|halla|moi|terve"
    r"|hyvää? \w+|hallo|guten (?:tag|morgen)|liebe[r]?|sehr geehrte[r]?|moin|servus|bonjour|salut|coucou|chère?|hola|buenos días|buenas|estimad[oa]|querid[oa]"
    r"|ciao|buongiorno|gentile|beste|dag|hoi|olá|oi|caro|cara|cześć|witam|dzień dobry|szanown[aiy]|ahoj|szia|merhaba|selam|sayın|שלום|היי|привет|добрый день|здравствуйте|مرحبا|السلام عليكم)"
    r"\b[ ,]*(?:[^\W\d_][\w\-'.]*[ ,]*(?:(?:and|och|og|ja|und|et|y|e|en|&)\s)?){0,4}[,!.:\-–]?\s*(?:\n|\Z)",
    re.I,
)
# Within a paragraph: a greeting and one or two names.
_INLINE = re.compile(
    r"\s*(?:Hi|Hello|Hey|Dear|Hej(?:san)?|Hallå|Tjena|Hei|Moi|Hallo|Liebe[r]?|Bonjour|Salut|Chère?|Hola|Ciao|Beste)"
    r" (?:[A-ZÅÄÖÆØÉÜ][\w'\-]{1,20}|alla|all|everyone|everybody|team|kaikki|zusammen|tous|todos)(?: (?:och|and|og|ja|und|et|y|&) [A-ZÅÄÖÆØÉÜ][\w'\-]{1,20})?[,!.:–-]"
)
_BY_NAME = re.compile(
    r"\s*[A-ZÅÄÖÆØÉÜ][\w'\-]{1,15}(?:(?:,| and| och| &|/) ?[A-ZÅÄÖÆØÉÜ][\w'\-]{1,15}){0,5}(?:[,;!\-–]|:?\s*\n)"
)
_FORMULA = (
    r"(?:^|\n|[.!?] )[ \t]*(?:(?:best|kind|warm|many|with (?:kind|best)) ?(?:regards|wishes)|regards|cheers|thanks(?: again)?|thank you|thx|best|br|sincerely(?: yours)?"
    r"|yours (?:sincerely|truly|faithfully)|talk soon|see you|take care|med vänlig(?:a)? hälsning(?:ar)?|vänlig(?:a)? hälsning(?:ar)?|(?:varma |många |bästa |hjärtliga )?hälsningar|hälsar|mvh|vh"
    r"|tack(?: på förhand)?|kram(?:ar)?|ha det(?: bra| gott)?|trevlig helg|vi ses|hej då|med vennlig hilsen|vennlig hilsen|hilsen|mvh\.?|med venlig hilsen|venlig hilsen|mange hilsner|de bedste hilsner|beste hilsener"
    r"|ystävällisin terveisin|terveisin|terv\.?|yst\.? ?terv\.?|kiitos|t\.|mit freundlichen grüßen|freundliche grüße|viele grüße|liebe grüße|beste grüße|herzliche grüße|mfg|lg|vg|gruß|grüße|gruss"
    r"|cordialement|bien cordialement|bien à (?:vous|toi)|cdt|amicalement|sincères salutations|bonne journée|merci(?: d'avance)?|saludos(?: cordiales)?|un saludo|atentamente|un abrazo|gracias"
    r"|cordiali saluti|saluti|distinti saluti|a presto|grazie|met vriendelijke groet(?:en)?|groet(?:en|jes)?|mvg|atenciosamente|abraços?|obrigad[oa]|pozdrawiam|z poważaniem|selamlar|sevgiler|saygılar(?:ım|ımız)la|iyi çalışmalar|teşekkürler|בברכה|תודה(?: רבה)?|בכבוד רב|pozdrav(?:y)?|s pozdravem|üdvözlettel|с уважением|مع التحية|تحياتي)"
)
_CLOSING = re.compile(
    _FORMULA + r"[ \t]*[,.!\-–]*[ \t]*(?:\n+|,? )[ \t]*(?:[^\W\d_][\w'.\-]*[ ,]*){1,5}(?:\n|\Z)",
    re.I,
)
_BEFORE_CLOSING = re.compile(r"\n|[.!?] ")
# re2 says in a tenth of the time that ASCII has none; of other letters it knows other pairs.
_MAY_CLOSE = re2.compile(f"(?i){_FORMULA}" + r"[ \t]*[,.!\-–]*[ \t]*[\n ,]").search
_INITIALS = re.compile(r"\n[ \t]*[-–/~]{0,2}[ \t]*[A-ZÅÄÖÆØ][\w'.\-]{0,14}(?: [A-ZÅÄÖÆØ][\w'.\-]{0,18})?[ \t]*\Z")
_TELEPHONE = re.compile(
    r"(?:\b(?:tel|tfn|telefon|telephone|phone|ph|mobil|mobile|mob|cell|direct|direkt|puh|gsm|fax|växel|office|t|m|p)\b[.:]?\s*)?\+?\(?\d[\d \-().]{6,16}\d",
    re.I,
)
_TITLES = "tel tfn telefon phone mobil mobile cell direct direkt puh gsm växel handy téléphone móvil".split()  # noqa: SIM905
_TITLED = re.compile(rf"\b(?:{'|'.join(_TITLES)})\b", re.I)
_TOKEN = re.compile(r"[^\W\d_]+(?:'[a-z]{1,2})?")
_VOICE = frozenset(
    """
    i i'm i'll i've i'd me my jag mig min mitt mina jeg meg minä mulla minun ich mir mich mein meine je j'ai moi mon ma mes yo mi mis io mio mia ik mij
    eu meu minha я мне мой أنا
    """.split()  # noqa: SIM905
)
_URL = re.compile(r"\bhttps?://|\bwww\.", re.I)
_LEAVING_LINK = re.compile(
    r"unsub|opt-?out|optin-?out|avprenumerer|avregistrer|avmeld|afmeld|frameld|abmeld|abbestell|desabon|desinscri|desinscription|baja\b|cancelar|disiscri|uitschrijv|wypisz"
    r"|/remove\b|removeme|leave-list|listmanager|list-manage\.com/(?:unsub|profile)|preference|/unsub|manage[_\-]?(?:subscription|preference|email)|subscription-?center|mailto:[^?]*(?:unsubscribe|leave|remove)|subject=(?:unsub|remove)",
    re.I,
)
_PLATFORM_HOST = re.compile(
    r"(?:^|\.)(?:list-manage\d*\.com|mailchi\.mp|mcusercontent\.com|campaign-archive\d?\.com|mandrillapp\.com|sendgrid\.net|ct\.sendgrid\.net|mailgun\.(?:org|net)|sparkpostmail\.com|hubspotlinks\.com|hs-sites\.com|hubspotemail\.net"
    r"|klclick\d*\.com|klaviyomail\.com|cmail\d*\.com|createsend\d*\.com|rs6\.net|constantcontact\.com|exct\.net|exacttarget\.com|emlnk\d*\.com|activehosted\.com|acemlna\.com|sendibm\d\.com|sendinblue\.com|brevo\.com|mailjet\.com|mjt\.lu|mktoweb\.com"
    r"|marketo\.com|eloqua\.com|en25\.com|aweber\.com|getresponse\.com|mailerlite\.com|mlsend\d*\.com|emailsys\d*[a-z]?\.net|rmh\d\.net|cleverreach\.com|inxmail\.com|inx\d+\.com|emarsys\.net|substack\.com|beehiiv\.com|convertkit-mail\d*\.com|ck\.page|paloma\.se|anpdm\.com"
    r"|apsis(?:one|forms)?\.com|getanewsletter\.com|ungapped\.com|rule\.io|mailup\.com|doppler\w*\.com|sailthru\.com|bluehornet\.com|responsys\.net|rsys\d\.net|cheetahmail\.com|chtah\.com|bfi0\.com|p0\.com|m0\.net|lyris\w*\.com|sparklist\.com|roving\.com|ixs1\.net|flonetwork\.com|awstrack\.me|customeriomail\.com|iterable\.com|braze\.com|moosend\.com|sender\.net|sendpulse\.com|mailpoet\.com|elasticemail\.com|zcsend\.net|zohocampaigns\w*\.com|maillist-manage\.\w+|ebm\.cheetahmail\.com)\Z",
    re.I,
)
_CAMPAIGN_LINK = re.compile(
    r"[?&](?:utm_(?:source|medium|campaign)|mc_[ce]id|mkt_tok|cmpid|cid=em|_hsenc|trk_|ecid|elqTrackId|campaign(?:_?id)?|mailing_?id|subscriber_?id|eid|s_cid|ncid|sourceid)=",
    re.I,
)
_DOCUMENT = re.compile(
    r"\.(?:docx?|docm|xlsx?|xlsm|xlsb|pptx?|pptm|odt|ods|odp|rtf|msg|eml|vsdx?|mpp|one|pages|numbers|key|csv|txt|tiff?|dwg|sketch|fig|zip)\Z",
    re.I,
)
_EVIDENCE = 70


def text_marks(text: Text, around: Surroundings) -> Iterator[Mark]:
    yield from _quoted_marks(text, around)
    own = text.new
    plain = "" if text.split.kind else text.plain
    phrases: dict[str, Phrase] = {}
    # what few or none see is no evidence for a mailing; its own signs count
    for said, only in (
        (own, None), (plain, None), (text.markup.hidden, _OF_ITSELF), (text.unshown, _OF_ITSELF), (text.attached, _OF_ATTACHED),
        (f"{text.subject}\n{own[:400]}", _OF_A_BEGINNING)
    ):  # fmt: skip
        for name, evidence in _phrases(said) if said else ():
            if only is None or name in only:
                phrases.setdefault(name, evidence)
    for name, evidence in phrases.items():
        yield KINDS[name].mark(evidence)
    yield from _link_marks(text)
    left = dict(unfinished_signs(text.subject, own, text.markup.signs))
    if text.markup.hidden or text.markup.alts:  # shown in the list of messages, or in place of pictures
        aside = unfinished_signs("", "\n".join((text.markup.hidden, *text.markup.alts)))
        left |= {kind: found for kind, found in aside if kind in _OF_TEMPLATES and kind not in left}
    for kind, found in left.items():
        yield KINDS[kind].mark(_UNFINISHED[kind], words=found)
    yield from _wrong_file(text, own)
    if _is_empty(text):
        yield KINDS["empty"].mark("it has no words")
    greets_customers = "dear-customer" in phrases and "dear-customer" in dict(_phrases(own.lstrip()[:60]))
    yield from _letter_marks(text, own, greets_customers=greets_customers)
    yield from _attachment_marks(text, around)


def _phrases(text: str) -> Iterator[tuple[str, Phrase]]:
    """Yield each mark once, with the words around the first phrase. Very common words count only if two different
    ones occur."""
    parts = fold(text).replace("’", "'").split()
    folded, own = " ".join(parts), list[str]()
    seen: dict[str, set[str]] = {}
    for name, start, end in found_in(folded):
        so_far = seen.setdefault(name, set())
        needed = 2 if name in _COMMON else 1
        if len(so_far) >= needed:
            continue
        if name == "mobile-footer" and end < len(folded) - _FOOTER:
            continue
        if name == "why-you-get-this" and _IN_ERROR.search(folded, end, end + 60):
            continue
        so_far.add(folded[start:end])
        if len(so_far) == needed:
            own = own or text.split()
            around = _in_context(own if len(own) == len(parts) else [], folded, start, end)
            yield name, Phrase(_SAYS[name], words=around)


def _in_context(words: list[str], folded: str, start: int, end: int) -> str:
    """Return a phrase and whole words around it, as in the text. ``words``: those of ``folded`` one by one, or none."""
    low = 0 if start <= 25 else folded.find(" ", start - 26, start) + 1 or start
    high = len(folded) if end + 35 >= len(folded) else max(end, folded.rfind(" ", end, end + 36))
    shown = folded[low:high].strip()
    if words:
        first = folded.count(" ", 0, low)
        own = " ".join(words[first : first + shown.count(" ") + 1])
        if own.lower() == shown or folded[start:end] in " ".join(fold(own).replace("’", "'").split()):
            return own
    return shown


_OF_ITSELF = frozenset({"inside-only", "internal-words", "work-talk", "secretive"})
_OF_ATTACHED = frozenset({"inside-only", "secretive"})
"""Marks that count in an attached text too, which many programs show below the other."""
_OF_A_BEGINNING = frozenset({"newsletter-words", "order-words", "out-of-office", "internal-words", "inside-only"})
_OF_TEMPLATES = frozenset({"placeholder", "filler"})
_COMMON = frozenset({"work-talk", "newsletter-words", "order-words"})
_FOOTER = 1_500
_ONLY_A_FOOTER = 400
_IN_ERROR = re.compile(
    r"in error|by mistake|by accident|av misstag|ved en fe[ij]l|par erreur|por error|irrtümlich|per errore|erehdyksessä"
)
_UNFINISHED = {
    "placeholder": N_('a field of a template is left unfilled: "{words}"'),
    "draft": N_('it calls itself a draft: "{words}"'),
    "comment": N_('a comment of its writer is left in it: "{words}"'),
    "test": N_('it calls itself a test: "{words}"'),
    "filler": N_('it holds filler text: "{words}"'),
}
_SAYS = {
    "work-talk": N_('it speaks of work: "{words}"'),
    "unsubscribe-words": N_('it tells how to unsubscribe: "{words}"'),
    "preferences": N_('it tells how to change what one is sent: "{words}"'),
    "web-version": N_('it offers itself as a web page: "{words}"'),
    "why-you-get-this": N_('it tells why one is sent it: "{words}"'),
    "do-not-reply": N_('it says that a machine wrote it or that nobody reads answers: "{words}"'),
    "imprint": N_('it ends with rights or privacy notices: "{words}"'),
    "dear-customer": N_('it speaks to customers: "{words}"'),
    "newsletter-words": N_('it speaks as newsletters and offers do: "{words}"'),
    "order-words": N_('it speaks of an order, a parcel or an account: "{words}"'),
    "secretive": N_('it asks to keep it from somebody: "{words}"'),
    "inside-only": N_('it says that it is for colleagues alone: "{words}"'),
    "internal-words": N_('it says that it is for internal use: "{words}"'),
    "confidentiality": N_('it carries a confidentiality notice: "{words}"'),
    "mobile-footer": N_('it was written on a telephone: "{words}"'),
    "out-of-office": N_('it is an automatic answer of somebody away: "{words}"'),
}


def _quoted_marks(text: Text, around: Surroundings) -> Iterator[Mark]:
    kind, opening = text.split.kind, text.split.opening
    whole = " ".join(opening.split())
    line = whole[:_EVIDENCE]
    if kind in ("header block", "rule"):
        yield KINDS["quoted-headers"].mark('it quotes an earlier mail: "{line}"', line=line)
    elif kind:
        yield KINDS["quoted-text"].mark('it quotes what somebody wrote: "{line}"', line=line)
    if text.markup.quoting:
        yield KINDS["quoting-markup"].mark("a mail program marked quoted text in it ({sign})", sign=text.markup.quoting)
    block = f"{opening}\n{text.quoted[:3000]}"[:4000] if kind and around.domains else ""
    # Searching for our domains first is many times faster than parsing addresses.
    if block and (not block.isascii() or any(domain in block.lower() for domain in around.domains)):
        named = ", ".join(line for line in block.split("\n") if "@" in line)
        ours = next((a for a in parse_addresses(named, around) if around.is_colleague(a)), None)
        if ours:
            yield KINDS["colleague-quoted"].mark("the quoted mail was written by or to {address}", address=ours)


# Each has one of these words: to search for them first is many times faster.
_LEAVING_WORDS = ("sub", "optout", "opt-out", "optinout", "optin-out", "avpren", "avreg", "meld", "abbestell", "desabon", "desinscri", "baja", "cancelar", "disiscri",
                  "uitschrijv", "wypisz", "remove", "leave", "list", "preference", "manage")  # fmt: skip


def _may_leave(link: str) -> bool:
    return not link.isascii() or any(map(link.lower().__contains__, _LEAVING_WORDS))


_LONGEST_HOST = 255  # RFC 1035 section 2.3.4


@lru_cache(maxsize=1024)
def _is_of_platform(host: str) -> bool:
    return _PLATFORM_HOST.search(host) is not None


_PLAIN_HOST = re.compile(r"https?://([a-zA-Z0-9.-]+)(?=[/?#]|\Z)", re.I)


def _link_marks(text: Text) -> Iterator[Mark]:
    for link in text.links:
        if _may_leave(link := link[:600]) and _LEAVING_LINK.search(link):
            yield KINDS["unsubscribe-link"].mark(
                "a link to unsubscribe or to change preferences, at {host}", host=_host(link)
            )
            break
    hosts = {_host(link) for link in text.links[:500]}
    platform = sorted(h for h in hosts if 0 < len(h) <= _LONGEST_HOST and _is_of_platform(h))
    if platform:
        yield KINDS["platform-links"].mark("links that run through {host}", host=platform[0])
    tagged = sum(1 for link in text.links if _CAMPAIGN_LINK.search(link[:2000]))
    if tagged >= 2:
        yield KINDS["campaign-links"].mark("{n} links with campaign parameters", n=tagged)
    links, images = len(text.links), text.markup.images
    if links >= 12 or (links >= 6 and images >= 4):
        yield KINDS["many-links"].mark("{links} links and {pictures} pictures", links=links, pictures=images)


def _host(link: str) -> str:
    if (plain := _PLAIN_HOST.match(link)) is not None:
        return plain[1].lower()
    try:
        return (urlsplit(link.strip()[:2000]).hostname or link.strip()[:40]).lower()
    except ValueError:
        return "an address that is none"


def _urls(text: str) -> int:
    return len(_URL.findall(text)) if "://" in text or "www." in text.lower() else 0


def _letter_marks(text: Text, own: str, *, greets_customers: bool) -> Iterator[Mark]:
    """Marks of personal letters: a greeting by name, regards, a voice. Shortness and plain text support them."""
    body = own.strip()
    if not greets_customers and (_GREETING.match(body) or _BY_NAME.match(body[:200]) or _INLINE.match(body[:200])):
        yield KINDS["addressed"].mark('it begins as a letter: "{words}"', words=body.splitlines()[0][:40])
    tail = body[-1200:]
    if (closing := _last_closing(tail)) is not None:
        yield KINDS["signed"].mark('it ends as a letter: "{words}"', words=" ".join(closing[0].split())[:50])
    elif _INITIALS.search(tail) and not _of_a_mailing(last := tail.splitlines()[-1]):
        yield KINDS["signed"].mark('it ends with a name: "{name}"', name=last.strip()[:30])
    end = tail[-500:]
    titled = any(map(end.lower().__contains__, _TITLES))  # many times faster than the expression
    if titled and _TITLED.search(end) and _TELEPHONE.search(end):
        yield KINDS["signature-block"].mark("it ends with somebody's telephone number")
    sample = body[:2000]
    small = sample.lower()
    spoken = filter(_VOICE.__contains__, _TOKEN.findall(small) if "'" in small else letters(small))
    if next(spoken, None) and ("?" in sample or next(spoken, None)):
        yield KINDS["personal-voice"].mark("it speaks in the first person")
    images = text.markup.images
    urls = len(text.links) or _urls(own[:20_000])
    if body and not images and not urls and len(body) < 1500:
        yield KINDS["short-and-plain"].mark("it is short, without links or pictures")
    elif body and images <= 1 and urls <= 2:
        yield KINDS["plain"].mark("it has hardly any links or pictures")


def _of_a_mailing(line: str) -> bool:
    """Return whether a line has words of a mailing, as its last one may: "Unsubscribe", "Privacy Policy"."""
    return any(KINDS[name].side is Side.MAILING for name, _ in _phrases(line))


def _last_closing(tail: str) -> re.Match[str] | None:
    """It begins with the text, or behind the end of a line or sentence: to try only these takes a fifth of the time."""
    if tail.isascii() and not _MAY_CLOSE(tail):
        return None
    last, end = _CLOSING.match(tail), 0
    for place in _BEFORE_CLOSING.finditer(tail):
        if last is not None:
            end = last.end()
        if place.start() >= end and (found := _CLOSING.match(tail, place.start())) is not None:
            last = found
    return last


def _is_empty(text: Text) -> bool:
    """Return whether it shows no words but a footer, and has no file: perhaps pictures that no text stands for."""
    if len(text.new) > _ONLY_A_FOOTER or any((text.quoted, text.attached, text.attachments, text.files, text.calendar)):
        return False
    shown = (text.new, text.plain, *text.markup.alts)
    return not any(any(map(str.isalnum, without_footer(skeleton(words)))) for words in shown if words)


def _wrong_file(text: Text, own: str) -> Iterator[Mark]:
    files = [a.name for a in text.attachments if a.name and not a.nested]
    if draft := named_like_a_draft(files):
        yield KINDS["file"].mark('a file is named like a draft: "{file}"', file=draft[:60])
    elif (names := another_file(own, files, text.markup.source[:200_000])) != ("", ""):
        yield KINDS["file"].mark(
            'the text names "{named}", and "{attached}" is attached', named=names[0][:60], attached=names[1][:60]
        )


def _attachment_marks(text: Text, around: Surroundings) -> Iterator[Mark]:
    if text.calendar:
        yield KINDS["calendar"].mark("it carries an invitation ({method})", method=text.calendar)
    for sender, subject in text.nested[:1]:
        who = next(iter(parse_addresses(sender, around)), "")
        if who and around.is_colleague(who):
            yield KINDS["colleague-quoted"].mark("a message from {address} is attached", address=who)
        else:
            yield KINDS["attached-mail"].mark('a message is attached: "{subject}"', subject=subject[:50])
    documents = [a.name for a in text.attachments if _DOCUMENT.search(a.name)]
    if documents:
        yield KINDS["documents"].mark('a document is attached: "{file}"', file=documents[0][:60])


_GMAIL = re.compile(r'\A\s*<div dir="(?:ltr|auto)">')
_BOUNDARIES = (
    (re.compile(r"Apple-Mail[=_\-]"), "Apple Mail"),
    (re.compile(r"_?_\d{3}_[0-9A-Za-z]{20,}.*_\Z"), "Exchange or Outlook"),
    (re.compile(r"----=_NextPart_\d{3}_[0-9A-F]{4}_[0-9A-F]{8}\.[0-9A-F]{8}\Z"), "Outlook"),
    (re.compile(r"0000000000[0-9a-f]{16,20}\Z"), "Gmail"),
    (re.compile(r"[0-9a-f]{2,12}001a[0-9a-f]{12,24}\Z"), "Gmail"),
    (re.compile(r"-{12}[0-9A-Za-z]{24}\Z"), "Thunderbird"),
    (re.compile(r"=_[0-9a-f]{32}\Z"), "Roundcube"),
)


def shape_marks(text: Text) -> Iterator[Mark]:
    """Marks of a mail program, of templates, and of hidden text."""
    typed = ""
    for boundary in text.boundaries[:3]:
        typed = typed or next((name for pattern, name in _BOUNDARIES if pattern.match(boundary)), "")
    markup = text.markup
    typed = next((name for sign, name in TYPED if sign in markup.signs), "") or typed
    if not typed and _GMAIL.match(markup.source):
        typed = "Gmail"
    looked_for = TEMPLATE if "msonormal" in markup.signs else (*TEMPLATE, *WORDS_TOO)
    signs = sum(1 for spellings in looked_for if not markup.signs.isdisjoint(spellings))
    if markup.tables >= 6 or (markup.tables >= 2 and signs >= 2) or signs >= 3:
        yield KINDS["template"].mark(
            "it is made from a template ({tables} tables, {pictures} pictures)",
            tables=markup.tables,
            pictures=markup.images,
        )
    if markup.pixels:
        yield KINDS["tracking-pixel"].mark("it holds a picture of one pixel, as those who count readers use")
    hidden, line = " ".join(markup.hidden.split()), markup.preheader
    if len(hidden) > 12:
        if markup.tables and 12 < len(line) < 600:
            yield KINDS["preheader"].mark('a hidden line for previews: "{words}"', words=line[:50])
        yield KINDS["hidden-text"].mark('it holds text that nobody sees: "{words}"', words=hidden[:50])
    if typed:
        yield KINDS["composition"].mark("it is put together as {typed} does it", typed=typed)


SEARCHED = 200_000


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re2._Regexp:
    """It compiles: the policy was checked (policy.grammar)."""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    return re2.compile(pattern, options)


def adjusted(marks: Iterable[Mark], around: Surroundings) -> list[Mark]:
    """Return the marks with the admins' weights, without those of weight 0."""
    if not around.weights:
        return list(marks)
    weighed = [replace(m, weight=around.weights.get(m.name, m.weight)) for m in marks]
    return [m for m in weighed if m.weight > 0]


def custom_marks(fields: Index, text: Text, around: Surroundings) -> Iterator[Mark]:
    for custom in around.customs:
        if (evidence := _evidence(custom, fields, text)) is not None:
            yield Mark(name=custom.name, side=custom.side, weight=custom.weight, evidence=evidence)


def _evidence(custom: Custom, fields: Index, text: Text) -> Phrase | None:
    values = [text.subject, text.shown[:SEARCHED]]
    if custom.header:
        values = [f.text for f in fields.get(custom.header.lower(), ())]
        if values and not custom.pattern and not custom.term:
            return Phrase("the field {field} is there", field=custom.header)
    for value in values:
        if custom.term and fold(custom.term) in fold(value):
            words = custom.term
        elif custom.pattern and (found := _compiled(custom.pattern).search(value)):
            words = found[0][:60]
        else:
            continue
        if custom.header:
            return Phrase('the field {field} says "{words}"', field=custom.header, words=words)
        return Phrase('the text says "{words}"', words=words)
    return None
