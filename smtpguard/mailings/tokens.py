"""The tokens of a block: words, links and pictures; which words are a name, a number or a code; and the parts of a link."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Collection, Container, Iterable, Sequence
from functools import lru_cache
from urllib.parse import unquote

from smtpguard.reading.shown import LINK, PICTURE, POINT, Shown

OWN = f"{LINK}mailto:"
"""The token for a link to the address of a copy's own recipient."""
ITSELF = "recipient@"
"""The token for that address in the text; the address follows it while slots are learned (``unmarked``)."""
MOST_WORDS = 6
"""The most words of one slot."""
MOST_OF_CODE = 64
"""The most characters of a code, or of a name in a slot."""
_SEGMENT = 600  # characters
_TARGET = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//[^/?#]*|[a-z][a-z0-9+.-]*:", re.I)
_PLAIN_SEGMENT = re.compile(r"[\w\-.~%+*,:@!$|()'’]*\Z")
_ELSEWHERE = re.compile(r"://|%3a(?:%2f|//)|\bwww\.|%252f", re.I)
_NESTED = re.compile(r"https?%3a%2f%2f", re.I)
_SERIAL = re.compile(r"(?:[\da-f]{8}-(?:[\da-f]{4}-){3}[\da-f]{12}|[\da-f]{16,64})(?:\.[a-z]{2,4})?\Z")
_DETAIL = re.compile(r"(?<=[\w.-])\+[\w.=+-]{1,64}(?=@[\w.-]+>?(?:;|\Z))")
_CODED = re.compile(r"[\w@./+:#=~%-]{1,64}\Z")
_SITE = re.compile(r"(?<=[\w-])\.(?:[^\W\d_]{2,18}|xn--[\w-]++)(?!\w|[.-]++\w)", re.I)
_ADDRESS = re.compile(r"[^@/:?#]+@[\w.-]+\Z")
_INITIALS = re.compile(
    r"(?:(?:[^\W\d_]|chr|dr|fr|frau|fru|herr|hr|ing|mag|mme|mr|mrs|ms|ph|prof|sr|sra|st|th)\.)+"
    r"(?!(?:app|biz|cc|co|com|dev|icu|io|me|net|org|pro|top|vip|xyz)\b)[^\W\d_]{2,}(?:-[^\W\d_]+)*['’]?s?\Z",
    re.I,
)
"""A name after initials or titles ("A.Ek", "Mr.Lee"). What anybody can register under a short top-level domain is none."""
_CURRENCY = r"(?:(?:A|AU|C|CA|HK|MX|NZ|R|S|US)?\$|[£¥€₡-₿]|AUD|CAD|CHF|CNY|CZK|DKK|EUR|GBP|INR|JPY|NOK|PLN|SEK|USD|[Kk]r\.?|Rs\.?|zł)"
_NUMBER = re.compile(rf"[-+−]?{_CURRENCY}?[-+−]?[\d.,:/%'’-]*\d[\d.,:/%'’-]*{_CURRENCY}?\Z")
_IN_CURRENCY = re.compile(_CURRENCY)
_ISOLATES = "\u200e\u200f\u2066\u2067\u2068\u2069"
"""Marks of direction that tools put around a value; those that turn the order of letters are none of them."""
PARTICLES = frozenset([
    "af", "av", "von", "van", "de", "der", "den", "del", "della", "di", "da", "do", "dos", "du", "la", "le", "el", "al",
    "bin", "bint", "ibn", "ben", "y", "e", "och", "and", "und", "et", "ja"
])  # fmt: skip
MONTHS = frozenset([
    "januari", "februari", "mars", "april", "maj", "juni", "juli", "augusti", "september", "oktober", "november",
    "december", "januar", "februar", "marts", "mai", "august", "desember", "janvier", "février", "avril", "juin", "juillet",
    "août", "septembre", "octobre", "novembre", "décembre", "enero", "febrero", "marzo", "mayo", "junio", "julio", "agosto",
    "septiembre", "octubre", "noviembre", "diciembre", "gennaio", "aprile", "maggio", "giugno", "luglio", "settembre",
    "ottobre", "dicembre", "januari", "maart", "mei", "augustus", "tammikuuta", "helmikuuta", "maaliskuuta", "huhtikuuta",
    "toukokuuta", "kesäkuuta", "heinäkuuta", "elokuuta", "syyskuuta", "lokakuuta", "marraskuuta", "joulukuuta", "kl", "uhr"
])  # fmt: skip
JOINERS = frozenset((".", ",", "-", "'", "’", "&", "/", ":", "(", ")", "+", "#", "№", "€", "$", "£"))
Words = tuple[tuple[str, ...], frozenset[int]]
"""The tokens of a block, and the indexes of those that begin a line."""


def kind_of(words: Sequence[str], known: Sequence[str] = ()) -> str:
    """Return "number", "code" or "name" if all words of a value are of that kind, and "" otherwise. ``known``: words that may be
    in a name."""
    if not isolated(words):
        return ""
    words = [bare for word in words if (bare := word.strip(_ISOLATES))]
    if not 0 < len(words) <= MOST_WORDS:
        return ""
    if all(is_number(word) for word in words):
        return "number"
    if len(words) == 1 and is_coded(words[0]):
        return "code"
    unspaced = sum(
        len(word) for word in words if word not in known and not word.isascii() and word.lower() == word.upper()
    )
    free = all(is_free(w) or w in known or (n and w.lower() in PARTICLES) for n, w in enumerate(words))
    return "name" if unspaced <= 8 and free and not all(w in JOINERS for w in words) else ""


def isolated(words: Sequence[str]) -> bool:
    """Return whether each directional isolate is closed after its beginning, so that it changes nothing around the words."""
    text = "".join(words)
    if text.isascii():
        return True
    open_isolates = list(itertools.accumulate((c in "\u2066\u2067\u2068") - (c == "\u2069") for c in text))
    return min(open_isolates) == open_isolates[-1] == 0


def is_number(word: str) -> bool:
    return len(word) <= 20 and _NUMBER.match(word) is not None


def currencies_in(words: Iterable[str]) -> frozenset[str]:
    return frozenset(found for word in words for found in _IN_CURRENCY.findall(word))


def is_coded(word: str) -> bool:
    return _CODED.match(word) is not None and (any(c.isdigit() for c in word) or "@" in word)


def is_free(word: str) -> bool:
    """Return whether a word is a number, a code, or a possible name: in scripts with capitals it has one (also "iZettle")."""
    if is_markup(word) or len(word) > MOST_OF_CODE:
        return False
    word = word.strip(_ISOLATES)
    if not word or word in JOINERS or word in MONTHS or is_number(word) or is_coded(word):
        return True
    letters = word.strip(".'’-")
    if not letters or not all(is_letter(c) or c in "-'’.&" for c in letters):
        return False
    return letters != letters.lower() or letters[0].lower() == letters[0].upper()


def links_in(words: Iterable[str]) -> frozenset[str]:
    """Return the kinds of words, "site" and "address", that mail programs make links of without markup, also if they are
    percent-encoded."""
    return frozenset(filter(None, map(_link_in, words)))


def _link_in(word: str) -> str:
    if word == ITSELF:
        return "address"
    if "%" in word:
        word = unquote(unquote(word))
    if "." not in word or not _SITE.search(word) or (word[0].isupper() and _INITIALS.match(word)):
        return ""
    return "address" if _ADDRESS.match(word) else "site"


def is_letter(character: str) -> bool:
    """Return whether a character is a letter, or a mark on one."""
    return unicodedata.category(character)[0] in "LM"


def units_of(words: Sequence[str]) -> list[str]:
    """Return the words, with adjacent characters of scripts without spaces joined."""
    made: list[str] = []
    joined = False
    for word in words:
        alone = len(word) == 1 and not word.isascii() and is_letter(word) and word.lower() == word.upper()
        if alone and joined:
            made[-1] += word
        else:
            made.append(word)
        joined = alone
    return made


def is_markup(token: str) -> bool:
    return token.startswith("<") or is_target(token)


def is_target(token: str) -> bool:
    return token.startswith((LINK, PICTURE, POINT))


def key_of(token: str) -> str:
    """Return the key by which tokens of two copies are aligned: for links the parts that never differ."""
    return parts_of(token)[0] if is_target(token) else unmarked(token)


@lru_cache(maxsize=4096)
def parts_of(token: str) -> tuple[str, tuple[str, ...]]:
    """Split a link or picture into its base (kind, scheme and host) and the parts of path and query.

    The "=" that pad a code are left out. The base of a mailto link has the domain, and its local part is a part.
    """
    kind, _, target = token.partition(" ")
    found = _TARGET.match(target)
    base = found[0] if found else ""
    rest = target[len(base) :]
    if base.lower() == "mailto:":
        local, at, behind = rest.partition("@")
        domain, query, more = behind.partition("?")
        base, rest = f"{base}{at}{domain.lower()}", f"/{local}{query}{more}"
    parts = re.split(r"([/?&=#;])", re.sub(r"(?:=|%3D)+(?=&|#|\Z)", "", rest.replace(" ", "%20")))
    return f"{kind} {base.lower()}", tuple(parts)


def is_segment(part: str) -> bool:
    return len(part) <= _SEGMENT and _PLAIN_SEGMENT.match(part) is not None and _ELSEWHERE.search(part) is None


def nested(part: str) -> str:
    """Return a link to the encoded address in a part of another link, as trackers have it; "" if the part is none."""
    return f"{LINK}{unquote(part)}" if _NESTED.match(part) else ""


def is_serial(part: str) -> bool:
    """Return whether a part is a code that a tool made, such as no person gives to a picture."""
    return _SERIAL.match(part) is not None


def in_query(parts: Sequence[str], n: int) -> bool:
    return "?" in parts[:n]


def blocks_of(shown: Shown, own: Collection[str], word: str = "") -> list[str]:
    """Return the subject and the blocks under it, with OWN for a link to an address of ``own``, and ``word`` for the address
    of the copy's recipient."""
    blocks = ["\n".join(("<subject>", shown.subject)) if shown.subject else "<subject>", *shown.blocks]
    text = "\n".join(blocks)
    if OWN in text and (mine := frozenset(own) - {""}):
        blocks = [with_own(block, mine) for block in blocks]
    if word and shown.recipient and shown.recipient in text.lower():
        blocks = [with_itself(block, shown.recipient, word) for block in blocks]
    return blocks


def with_own(block: str, own: Container[str]) -> str:
    """Return the block with OWN for each link to an address of ``own``."""
    if OWN not in block:
        return block
    return "\n".join(OWN if mailbox(token) in own else token for token in block.split("\n"))


def with_itself(block: str, address: str, word: str = ITSELF) -> str:
    """Return the block with ``word`` for this address in the text, in any case."""
    if address not in block.lower():
        return block
    return "\n".join(word if token.lower() == address else token for token in block.split("\n"))


def unmarked(block: str) -> str:
    """Return the block without the addresses that follow ITSELF."""
    if ITSELF not in block:
        return block
    return "\n".join(ITSELF if token.startswith(ITSELF) else token for token in block.split("\n"))


def mailbox(token: str) -> str:
    """Return the address that a mailto link is to, if it says nothing else, and "" otherwise."""
    return unquote(token[len(OWN) :]).lower() if token.startswith(OWN) else ""


def linked_in(blocks: Iterable[str]) -> frozenset[str]:
    """Return the addresses that mailto links of these blocks are to."""
    return frozenset(mailbox(token) for block in blocks if OWN in block for token in block.split("\n")) - {""}


def mailboxes(sender: str) -> str:
    """Return ``Shown.sender`` without the sub-addresses in Sender and Reply-To, in which tools number their copies."""
    own, field, others = re.split(r"(; (?:sender|reply-to): |\Z)", sender, maxsplit=1)
    return own + field + _DETAIL.sub("+", others)


@lru_cache(maxsize=1024)
def split(block: str) -> Words:
    """Return the tokens of a block, and which of them begin a line."""
    parts = block.split("\n")
    begins: set[int] = set()
    at = -1
    for n in range(parts.count("")):
        at = parts.index("", at + 1)
        begins.add(at - n)
    return tuple(filter(None, parts)), frozenset(begins)


def plain(block: str) -> str:
    return "\n".join(split(block)[0])


def is_tag(token: str) -> bool:
    return token.startswith(("<", "@"))


def readable(blocks: Sequence[str]) -> str:
    said = (token for block in blocks for token in block.split("\n") if token and not token.startswith("<"))
    return " ".join("…@…" if token == ITSELF else token for token in said)
