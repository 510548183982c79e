"""The mailboxes of a header field that names people: From, To, Cc and similar (RFC 5322 section 3.4).

One pass over the text, without recursion: comments may nest without limit, groups and their display names are skipped,
and every mailbox is found. Text that no grammar allows is read so that it gives more mailboxes rather than fewer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.message import Header

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
    found = []
    for one in [usual[1] or usual[2]] if usual else spelled(text):
        try:
            found.append(Address.parse(one))
        except BadAddress:
            continue
    return tuple(found)


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
    """Without the white space allowed around separators."""
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
