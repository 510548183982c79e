"""Header fields of mailing lists, bulk senders and automatic senders.

List-* (RFC 2369, RFC 2919), one-click unsubscribing (RFC 8058), Auto-Submitted (RFC 3834), Precedence and Feedback-ID
(no RFC, common use). All of them can be forged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from smtpguard.mail.constant import constant
from smtpguard.mail.mailboxes import without_comments
from smtpguard.mail.message import Field

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

    ``auto_submitted`` is the keyword in lower case: "no", "auto-generated", "auto-replied", ... or empty if absent.
    """

    list_id: str = ""
    unsubscribe: tuple[str, ...] = ()
    one_click: bool = False
    post: bool = False
    precedence: str = ""
    auto_submitted: str = ""
    feedback_id: str = ""
    auto_reply: bool = False

    @property
    def automatic(self) -> bool:
        """Whether it was sent automatically, so that it must not be answered (RFC 3834 section 5)."""
        return self.auto_reply or self.auto_submitted not in ("", "no")


_NONE = ListHeader()


def list_header(fields: Mapping[str, Sequence[Field]]) -> ListHeader:
    """Total. ``fields``: by name in lower case. The first field of a name counts, but every List-Unsubscribe is read."""
    if NAMES.isdisjoint(fields):
        return _NONE
    found = {name: fields[name][0].text for name in NAMES & fields.keys()}
    unsubscribe = [uri for f in fields.get("list-unsubscribe", ()) for uri in uris(f.text)]
    list_id = found.get("list-id", "")
    bracketed = _LIST_ID.search(list_id)
    post = found.get("list-post", "")
    submitted = without_comments(found.get("auto-submitted", "")).partition(";")[0].strip().lower()
    precedence = without_comments(found.get("precedence", "")).strip().lower()
    return ListHeader(
        list_id=(bracketed[1] if bracketed else list_id.strip()[:255]).lower(),
        unsubscribe=tuple(dict.fromkeys(unsubscribe))[:20],
        one_click="one-click" in found.get("list-unsubscribe-post", "").lower(),
        post=any(u.lower().startswith(("mailto:", "http")) for u in uris(post)),
        precedence=precedence[:40],
        auto_submitted=submitted[:40],
        feedback_id=found.get("feedback-id", "").strip()[:255],
        auto_reply=precedence == "auto_reply"
        or any(n in found for n in ("x-autoreply", "x-autorespond", "x-autoreply-from")),
    )


def uris(value: str) -> list[str]:
    """URIs in angle brackets (RFC 2369 section 2), or bare ones, which some senders write."""
    return [u.strip() for u in _URI.findall(value)] or _BARE_URI.findall(value)
