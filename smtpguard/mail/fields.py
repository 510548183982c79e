"""What header fields say: the people that one names, mailing lists and automatic senders, and proven origins.

- People: From, To, Cc and similar (RFC 5322 section 3.4). One pass over the text, without recursion: comments may nest
  without limit, groups and their display names are skipped, and every mailbox is found. Text that no grammar allows is
  read so that it gives more mailboxes rather than fewer.
- Lists and senders: List-* (RFC 2369, RFC 2919), one-click unsubscribing (RFC 8058), Auto-Submitted (RFC 3834),
  Precedence and Feedback-ID (no RFC, common use). All of them can be forged.
- Origins: DKIM signatures that verified here (RFC 6376), and what a server that received the message found out
  (Authentication-Results, RFC 8601). Anybody can write such a field, so only those with an authserv-id that the admins
  configured are read. Even there a sender chooses some of the text, such as the reverse-path: what is in quotes, a
  comment or an encoded word is no result.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from smtpguard.mail.address import Address
from smtpguard.mail.constant import constant
from smtpguard.mail.message import Field, Header, first_text

MAX_OCTETS = 1 << 17
"""The most octets of one field that are read."""
_SPACED = re.compile(r" ?([.@]) ?")
_ROUTE = re.compile(r"@[^:]*:")
_WORD = re.compile(r'(?:"(?:[^"\\]|\\.)*+"|[^\s"])++|"')
_PIECE = re.compile(r'[^\s"]+')
_ORDINARY = re.compile(r'[^"(\[<>,;:\\]+')
_LITERAL = re.compile(r"\[[^\]\s<>,;]{1,80}\]")
_COMMENT_SIGNS = re.compile(r"\\.|[()]", re.S)
_QUOTE_SIGNS = re.compile(r'\\.|"', re.S)


_REMEMBERED = 1000  # octets of a field
# One mailbox, alone or after a plain display name: nearly every From, without need of a grammar.
_USUAL = re.compile(r"""(?:[\w!#$%&'*+/=?^`{|}~ -]*<([\w.+-]+@[\w.-]+)>|([\w.+-]+@[\w.-]+))\Z""", re.ASCII)


def mailboxes(header: Header, *names: str) -> list[Address]:
    """Every mailbox in the fields of these names, with duplicates. Total: text that is no address is left out.

    Encoded words are not decoded: RFC 2047 allows none in addresses, and a decoded display name may look like one.
    """
    return [address for name in names for field in header.all(name) for address in of_field(field.raw)]


def of_field(raw: bytes) -> Sequence[Address]:
    """The mailboxes of one field's value."""
    return _remembered(raw) if len(raw) <= _REMEMBERED else _addresses(raw)


def _addresses(raw: bytes) -> tuple[Address, ...]:
    text = " ".join(raw[:MAX_OCTETS].decode("utf-8", "replace").split())
    usual = _USUAL.match(text)
    words = [usual[1] or usual[2]] if usual else spelled(text)
    return tuple([address for word in words if (address := Address.parse_any(word)) is not None])


_remembered = lru_cache(maxsize=4096)(_addresses)
"""Cached: senders repeat."""


def without_comments(text: str, *, cut: bool = False) -> str:
    """``text`` with a space for each comment, at any depth; of one that never ends only the opening parenthesis is
    replaced. ``cut``: the text ends there."""
    if "(" not in text:
        return text
    return "".join(_pieces(text, comments_only=True, cut=cut))


def spelled(text: str) -> list[str]:
    """Each address as it is written, in order, without surrounding text. Not all of them need be addresses."""
    found: list[str] = []
    element: list[str] = []
    bracketed: list[str] = []

    def end() -> None:
        if bracketed:  # text before the brackets is a name, text after them is ignored
            found.extend(_in_brackets(inner) for inner in bracketed)
        found.extend(word for word in _words(_closed("".join(element))) if "@" in word)
        element.clear()
        bracketed.clear()

    for piece in _pieces(text):
        if piece in (",", ";"):
            end()
        elif piece == ":":  # a group begins; the text before is its name
            if not bracketed:
                element.clear()
        elif piece.startswith("<") and len(piece) > 1:
            bracketed.append(piece[1:].removesuffix(">"))
            element.clear()
        else:
            element.append(piece)
    end()
    return found


def _words(text: str) -> Iterator[str]:
    for word in _WORD.finditer(text):
        if word[0] == '"':  # one that never ends, and so does none after it
            yield from _PIECE.findall(text, word.end())
            return
        yield word[0]


def _closed(text: str) -> str:
    """Return an address without the white space that is allowed around separators."""
    return _SPACED.sub(r"\1", " ".join(text.split()))


def _in_brackets(inner: str) -> str:
    inner = _closed(without_comments(inner))
    route = _ROUTE.match(inner)
    return inner[route.end() :] if route else inner


def _pieces(text: str, *, comments_only: bool = False, cut: bool = False) -> list[str]:
    """Tokens: quoted strings, brackets, separators, and runs of anything else; a space for each comment."""
    found: list[str] = []
    at, end = 0, len(text)
    last_quote, last_bracket = text.rfind('"'), text.rfind(">")
    comments = "(" in text
    while at < end:
        if ordinary := _ORDINARY.match(text, at):
            found.append(ordinary[0])
            at = ordinary.end()
            continue
        sign = text[at]
        if sign == '"' and at < last_quote:
            close = _closing(text, at)
            if close is not None:
                quoted = text[at : close + 1]
                after = text[close + 1 : close + 2]
                # a quoted string is a name, unless "@" or "." next to it makes it a local part
                beside = comments_only or after in ("@", ".") or (found and found[-1][-1:] in ("@", "."))
                found.append(quoted if beside else " ")
                at = close + 1
                continue
            last_quote = -1
        elif sign == "(" and comments:
            close = _comment(text, at)
            if close is None and cut:
                break
            if close is None:
                comments = False
                found.append(" ")
                at += 1
            else:
                found.append(" ")
                at = close + 1
            continue
        elif sign == "[" and not comments_only and (literal := _LITERAL.match(text, at)):
            found.append(literal[0])
            at = literal.end()
            continue
        elif sign == "<" and not comments_only and at < last_bracket:
            close = text.index(">", at)
            found.append(text[at : close + 1])
            at = close + 1
            continue
        found.append(text[at : at + 2] if sign == "\\" and comments_only else sign)
        at += 2 if sign == "\\" and comments_only else 1
    return found


def _closing(text: str, at: int) -> int | None:
    """The end of the quoted string that begins here."""
    return next((sign.start() for sign in _QUOTE_SIGNS.finditer(text, at + 1) if sign[0] == '"'), None)


def _comment(text: str, at: int) -> int | None:
    """The end of the comment that begins here."""
    depth = 0
    for sign in _COMMENT_SIGNS.finditer(text, at):
        if sign[0] in "()":
            depth += 1 if sign[0] == "(" else -1
            if not depth:
                return sign.start()
    return None


_URI = re.compile(r"<([^<>]{1,2000})>")
_LIST_ID = re.compile(r"<\s*([^<>\s]{1,255})\s*>")
_BARE_URI = re.compile(r"(?:mailto:|https?://)[^\s,<>]{1,2000}", re.I)
NAMES = frozenset(
    ("list-id", "list-unsubscribe", "list-unsubscribe-post", "list-post", "precedence", "auto-submitted", "feedback-id",
     "x-auto-response-suppress", "x-autoreply", "x-autorespond", "x-autoreply-from")
)  # fmt: skip


@constant
class ListHeader:
    """``list_id`` in lower case, without brackets. ``unsubscribe``: URIs in order. ``post``: members may post.

    ``auto_submitted`` is the keyword in lower case: "no", "auto-generated", "auto-replied", ...; "no" if absent.
    """

    list_id: str = ""
    unsubscribe: tuple[str, ...] = ()
    one_click: bool = False
    post: bool = False
    precedence: str = ""
    auto_submitted: str = "no"
    feedback_id: str = ""
    auto_reply: bool = False

    @property
    def automatic(self) -> bool:
        """Whether it was sent automatically, so that it must not be answered (RFC 3834 section 5)."""
        return self.auto_reply or self.auto_submitted != "no"


_NONE = ListHeader()


def list_header(fields: Mapping[str, Sequence[Field]]) -> ListHeader:
    """Total. ``fields``: by name in lower case. The first field of a name counts, but every List-Unsubscribe is read."""
    if NAMES.isdisjoint(fields):
        return _NONE
    unsubscribe = [uri for f in fields.get("list-unsubscribe", ()) for uri in uris(f.text)]
    list_id = first_text(fields, "list-id")
    bracketed = _LIST_ID.search(list_id)
    submitted = without_comments(first_text(fields, "auto-submitted")).partition(";")[0].strip().lower()
    precedence = without_comments(first_text(fields, "precedence")).strip().lower()
    return ListHeader(
        list_id=(bracketed[1] if bracketed else list_id.strip()[:255]).lower(),
        unsubscribe=tuple(dict.fromkeys(unsubscribe))[:20],
        one_click="one-click" in first_text(fields, "list-unsubscribe-post").lower(),
        post=any(u.lower().startswith(("mailto:", "http")) for u in uris(first_text(fields, "list-post"))),
        precedence=precedence[:40],
        auto_submitted=submitted[:40] or "no",
        feedback_id=first_text(fields, "feedback-id").strip()[:255],
        auto_reply=precedence == "auto_reply"
        or any(n in fields for n in ("x-autoreply", "x-autorespond", "x-autoreply-from")),
    )


def uris(value: str) -> list[str]:
    """URIs in angle brackets (RFC 2369 section 2), or bare ones, which some senders write."""
    return [u.strip() for u in _URI.findall(value)] or _BARE_URI.findall(value)


MOST = 8_192
_ID = re.compile(r"\s*(\"[^\"]*\"|[^\s;]+)(?:\s+\d+)?\s*(?:;|\Z)")
_RESULT = re.compile(r"\s*([A-Za-z][\w\-]*)(?:/\d+)?\s*=\s*([A-Za-z]+)")
_QUOTED = r'"(?:[^"\\]|\\.?)*+(?:"|\Z)'  # one that never ends goes on to the end of the text
_ONE_RESULT = re.compile(rf'(?:[^;"]|{_QUOTED})+', re.S)
_PROPERTY = re.compile(
    rf'{_QUOTED}|\b(smtp|header|body|policy)\s*\.\s*([A-Za-z][\w\-]*)\s*=\s*({_QUOTED}|[^\s;"]+)', re.S
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthResult:
    """One method's result: ``dkim`` is ``pass``, with properties such as ``header.d``. All in lower case, values as
    spelled."""

    authserv_id: str
    method: str
    result: str
    properties: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        return next((value for key, value in self.properties if key == name), "")


def auth_results(fields: Iterable[Field], trusted: Collection[str]) -> tuple[AuthResult, ...]:
    """The results of every field whose authserv-id is trusted, in order. Total; malformed parts are skipped."""
    if not trusted:
        return ()
    wanted = {t.lower() for t in trusted}
    found: list[AuthResult] = []
    for field in fields:
        if field.name.lower() != "authentication-results":
            continue
        text = field.raw.decode("utf-8", "replace")  # a reverse-path may look like an encoded word: none is decoded
        if len(text) > MOST:
            text = text[:MOST].rpartition(";")[0]  # whole results
        value = without_comments(text, cut=True)
        head = _ID.match(value)
        authserv_id = head[1].strip('"').lower() if head else ""
        if head and authserv_id in wanted:
            found += _results(authserv_id, value[head.end() :])
    return tuple(found)


def _results(authserv_id: str, value: str) -> list[AuthResult]:
    found = []
    for piece in _ONE_RESULT.findall(value):
        result = _RESULT.match(piece)
        if result:
            properties = tuple(
                (f"{kind}.{name}".lower(), text.strip('"'))
                for kind, name, text in _PROPERTY.findall(piece, result.end())
                if kind
            )
            found.append(
                AuthResult(
                    authserv_id=authserv_id, method=result[1].lower(), result=result[2].lower(), properties=properties
                )
            )
    return found


def signed_by(results: Iterable[AuthResult]) -> frozenset[str]:
    """The domains whose DKIM signatures passed (``header.d``, RFC 8601 section 2.7.1), in lower case."""
    return frozenset(
        r.get("header.d").lower() for r in results if r.method == "dkim" and r.result == "pass" and r.get("header.d")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A DKIM signature that verified. ``fields``: the names of the signed fields, in lower case. ``at``: when the signer
    says that it was made (t=), None without that. ``limited``: it says how much of the body it covers (l=), even if that
    is all of it."""

    domain: str
    fields: frozenset[str]
    at: datetime | None = None
    limited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimResult:
    """``domains``: signing domains (d=) in lower case whose signatures verified and covered From. ``failed``: (domain,
    why).

    ``unresolved``: domains whose keys could not be looked up; neither proven nor failed. ``signatures``: those that verified.
    """

    domains: frozenset[str] = frozenset()
    failed: tuple[tuple[str, str], ...] = ()
    unresolved: frozenset[str] = frozenset()
    signatures: tuple[Signature, ...] = ()
