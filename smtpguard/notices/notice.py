"""Render notices: what was held or decided, why, who decides, until when, and what the reader can do (RFC 5322, RFC
3834).

Text and simple HTML come from one template for each kind and language (``templates/KIND.LANGUAGE.j2``). Admins may
replace it by a file of the same name in a folder of theirs. A template gets ``d``, the notice's data as in the table of
noticedata, with every string made safe to show; ``to``; ``head`` (a NoticeHead); and ``f``, the form: paragraphs, rows,
items, commands.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from email.utils import format_datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smtpguard.journal.event import NOTICES
from smtpguard.locale import languages
from smtpguard.locale.phrase import N_, Listed, Phrase, span
from smtpguard.locale.speech import Speech
from smtpguard.mail import compose
from smtpguard.mail.address import Address, BadAddress

if TYPE_CHECKING:
    from jinja2 import Environment

LOOP_FIELD = "X-Smtpguard-Notice"
"""The field that every notice and DSN of ours has. It proves nothing; it makes loops visible, and keeps automatic
answers unanswered."""
WIDTH = 72
"""The most characters of a line of text."""
_OURS = Path(__file__).parent / "templates"
_SEVERAL_LINES = frozenset({"excerpt", "comment", "question"})
_ADDRESSES = frozenset(
    {"voters", "from", "by", "asked_by", "people", "senders", "recipients_shown", "person", "deputy"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeHead:
    """The sender, and what every notice shows. ``languages``: the organization's, its main one first. ``contact``: whom
    to call, in the admins' words; an address in it becomes Reply-To. ``console_url``: without a trailing slash, "" for
    no console. ``templates``: the admins' folder."""

    sender: str = "Mail guard <smtpguard@localhost>"
    organization: str = ""
    languages: tuple[str, ...] = ("en",)
    contact: str = ""
    console_url: str = ""
    zone: tzinfo = UTC
    templates: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One notice to one person. ``id``: the intent's, so that the same intent always gets the same Message-ID."""

    id: str
    to: Address
    data: Mapping[str, Any]
    language: str
    at: datetime


class NoticeTemplates:
    """The templates, loaded once, when a notice is rendered: the product's, and the admins' replacements."""

    def __init__(self, head: NoticeHead) -> None:
        self.head = head
        self._name, self._address = compose.mailbox_of(head.sender)

    @cached_property
    def _theirs(self) -> _Forms:
        theirs = self.head.templates
        return _Forms.of(theirs, _OURS) if theirs else _forms()

    def render(self, notice: Notice) -> bytes:
        """Return the whole message. If an admin's template fails, the product's own is used, since people must be told
        of holds. Raises KeyError for an unknown kind."""
        if notice.data["notice"] not in NOTICES:
            raise KeyError(notice.data["notice"])
        try:
            return self._render(notice, self._theirs)
        except Exception:
            if self._theirs is _forms():
                raise
            return self._render(notice, _forms())

    def check(self) -> tuple[str, ...]:
        """Render every kind in every language. Returns the problems of the admins' templates, a sentence each."""
        from jinja2 import TemplateError

        problems = []
        at = datetime(2026, 1, 1, tzinfo=UTC)
        for kind in NOTICES:
            for language in languages():
                data = {**SAMPLE, "notice": kind}
                try:
                    self._render(
                        Notice(id="check", to=self._address, data=data, language=language, at=at), self._theirs
                    )
                except Exception as error:
                    where = error.name if isinstance(error, TemplateError) and hasattr(error, "name") else None
                    problems.append(f"{where or f'{kind}.{language}.j2'}: {error}")
        return tuple(problems)

    def _render(self, notice: Notice, forms: _Forms) -> bytes:
        language = notice.language if notice.language in languages() else "en"
        head = self.head
        speech = Speech(language, head.zone)
        data = _template_data(notice.data, speech)
        kind = data["notice"]
        values = {
            "d": data,
            "to": compose.shown_address(str(notice.to)),
            "head": head,
            "answers": _reply_address(head.contact) is not None and not data.get("answer_to"),
            "_": speech,
            "ngettext": speech.ngettext,
            "number": lambda n: speech.number(n) if isinstance(n, int | float) else "?",
            "people": lambda n: speech.ngettext("{n} person", "{n} people", n) if isinstance(n, int) else "?",
            "people_at_least": lambda n: speech.ngettext("at least {n} person", "at least {n} people", n),
            "span": lambda minutes: span(60 * minutes, speech) if minutes else "?",
            "when": lambda text: _when(text, speech),
            "day": lambda text: speech.day(date.fromisoformat(text)),
            "clock": lambda text: speech.clock_in_zone(datetime.fromisoformat(text)),
            "language": language,
            "subject_shown": data.get("subject") or speech(N_("(no subject)")),
        }
        subject, text = forms.text(kind, values)
        html = forms.html(kind, values | {"title": subject})
        content_type, body = compose.multipart(
            "multipart/alternative", (compose.text_part("plain", text), compose.text_part("html", html))
        )
        thread = compose.message_ids(str(notice.data.get("message_id") or ""))
        answers = Address.parse(data["answer_to"]) if data.get("answer_to") else _reply_address(head.contact)
        return compose.message(
            (
                ("From", compose.mailbox_field(self._address, self._name)),
                ("To", compose.mailbox_field(notice.to)),
                ("Reply-To", compose.mailbox_field(answers) if answers else ""),
                ("Subject", compose.unstructured(subject)),
                ("Date", format_datetime(notice.at)),
                ("Message-ID", compose.message_id(notice.id, "notice", self._address)),
                ("In-Reply-To", thread),
                ("References", thread),
                ("Auto-Submitted", "auto-generated"),
                ("X-Auto-Response-Suppress", "All"),
                ("Content-Language", language),
                (LOOP_FIELD, kind),
            ),
            content_type,
            body,
        )


@dataclass(frozen=True, slots=True)
class _Forms:
    """The templates as text (``plain``), and escaped as HTML (``markup``)."""

    plain: Environment
    markup: Environment

    @classmethod
    def of(cls, *folders: Path) -> _Forms:
        """Load templates, each from the first folder that has it."""
        from jinja2 import Environment, FileSystemLoader

        loader = FileSystemLoader(folders)

        def environment(escaped: bool) -> Environment:
            made = Environment(loader=loader, autoescape=escaped, trim_blocks=True, lstrip_blocks=True)
            made.filters |= {"fill": _fill, "quoted": _quoted, "flat": _flat}
            made.globals["form"] = "html.j2" if escaped else "text.j2"
            return made

        return cls(environment(False), environment(True))

    def text(self, kind: str, values: Mapping[str, Any]) -> tuple[str, str]:
        module = self.plain.select_template(_template_names(kind, values)).make_module(dict(values))
        subject = _flat(str(getattr(module, "subject", "")))
        return subject, re.sub(r"\n{3,}", "\n\n", str(module)).strip("\n") + "\n"

    def html(self, kind: str, values: Mapping[str, Any]) -> str:
        body = self.markup.select_template(_template_names(kind, values)).render(values)
        return self.markup.get_template("layout.html.j2").render(**values, body=body)


@cache
def _forms() -> _Forms:
    """Return the product's templates. They are compiled once, since they do not depend on the head."""
    return _Forms.of(_OURS)


def _template_names(kind: str, values: Mapping[str, Any]) -> list[str]:
    """Return the names of the template for the language, and of the one for all languages."""
    return [f"{kind}.{values['language']}.j2", f"{kind}.j2"]


def _when(text: Any, speech: Speech) -> str:
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return compose.one_line(str(text), 40)
    return speech.whole(at)


def choose_language(wanted: str, organization: Sequence[str]) -> str:
    """Return the wanted language if the organization uses it, else the organization's main one; always one with a
    catalogue."""
    spoken = [language for language in organization if language in languages()] or ["en"]
    return wanted[:2].lower() if wanted[:2].lower() in spoken else spoken[0]


def _template_data(data: Mapping[str, Any], speech: Speech) -> dict[str, Any]:
    """Return the data for the templates, safe to show and rendered in the language. It adds ``why`` and ``seen``: the
    descriptions of the rules and what they saw, each once, since several rules often see the same."""
    said: dict[str, Any] = {name: _safe(name, value, speech) for name, value in data.items()}

    def described(reasons: Any) -> list[dict[str, Any]]:
        return [
            {"description": _description(each, speech.language), "sentences": list(each.get("sentences") or ())}
            for each in reasons or ()
        ]

    said["reasons"] = described(said.get("reasons"))
    for line in said.get("messages") or ():
        told = [text for each in described(line.get("reasons")) for text in (each["description"], *each["sentences"])]
        line["why"] = next(filter(None, told), "")
    said["why"] = _distinct(reason["description"] for reason in said["reasons"])
    said["seen"] = _distinct(s for reason in said["reasons"] for s in reason["sentences"])
    return said


def _description(reason: Mapping[str, Any], language: str) -> str:
    """Return the rule's description as a sentence, in the language if it has one."""
    text = str((reason.get("descriptions") or {}).get(language) or reason.get("description") or "")
    return f"{text}." if text and text[-1] not in ".!?" else text


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, texts)))


def _safe(name: str, value: Any, speech: Speech) -> Any:
    if isinstance(value, str):
        if name in _ADDRESSES:
            return compose.shown_address(value)
        if isinstance(value, Phrase):
            return speech.say(_clean(value))
        return compose.some_lines(value) if name in _SEVERAL_LINES else compose.one_line(value)
    if isinstance(value, Mapping):
        return {str(key): _safe(str(key), inner, speech) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_safe(name, inner, speech) for inner in value]
    return value


def _clean(value: Any) -> Any:
    """Return a phrase without active characters. Its message is ours; its values may be a stranger's."""
    if isinstance(value, Phrase):
        return value.with_values(**{name: _clean(each) for name, each in value.values.items()})
    if isinstance(value, Listed):
        return value._replace(texts=tuple(map(_clean, value.texts)))
    return compose.one_line(value) if isinstance(value, str) else value


def _reply_address(contact: str) -> Address | None:
    """Return the address in a contact, None without one, and for an address that would make every notice need
    SMTPUTF8."""
    try:
        address = compose.mailbox_of(contact)[1]
    except BadAddress:
        return None
    return address if address.local.isascii() else None


def _flat(text: str) -> str:
    """Return text on one line. Non-breaking spaces stay."""
    return re.sub(r"[ \t\r\n]+", " ", text).strip(" ")


def _fill(text: str, indent: str = "", first: str | None = None) -> str:
    return textwrap.fill(_flat(str(text)), WIDTH, initial_indent=indent if first is None else first,
                         subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _quoted(text: str) -> str:
    lines = [wrapped for line in str(text).split("\n") for wrapped in (textwrap.wrap(line, WIDTH - 2) or [""])]
    return "\n".join(f"> {line}".rstrip() for line in lines)


SAMPLE: Mapping[str, Any] = {
    "phase": "begins", "severity": "critical", "title": "all mail is frozen", "says": "All mail is frozen.", "host": "guard.example.com",
    "private": "By eva", "does": "smtpguard thaw --all", "alarm": "frozen", "key": "frozen",
    "notice": "held", "hold_id": "0000000000000000", "subject": "Sample", "message_id": "<sample@example.com>",
    "from": "anna@example.com", "language": "en", "recipients": 1, "reach": 1000, "lists": ["Sample list"],
    "held_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z", "expired_at": "2026-01-02T00:00:00Z",
    "reasons": [{"rule": "sample", "description": "Sample", "sentences": [Phrase.counted("It reaches one person", "It reaches {n} people", 1000)]}], "marks": ["sample"], "more_marks": 1, "summary": "Sample.", "sensitive": [{"list": "Sample list", "category": "religion"}],
    "seq": 1000, "note": ["sample"],
    "question": "Sample", "asked_by": "eva@example.com",
    "deciders": [{"each": 1, "groups": [{"group": "sample", "people": ["eva@example.com"], "away": [{"person": "eva@example.com", "until": "2026-01-02", "deputy": "omar@example.com"}]}], "out_of_hours": None}], "in_place_of": [{"person": "eva@example.com", "until": "2026-01-02"}], "away": False, "decides": "now", "part": True, "excerpt": "Sample",
    "recipients_shown": ["list@example.com"], "senders": ["anna@example.com"], "outcome": "approved",
    "by": "eva@example.com", "voters": ["eva@example.com"], "stages": "Sample.", "comment": "Sample", "back": 1, "gone": 0, "has": 1, "doubt": 1, "left": 1, "asked": True, "confirmed": False, "longer": False, "apart": "", "sent": True,
    "people": 1000, "doubt_since": "2026-01-01T00:00:00Z", "again": False, "contact": False,
    "test": False, "correction": False, "frozen": [{"selector": "list", "list": "Sample list", "by": "root", "since": "2026-01-01T00:00:00Z",
                               "until": "2026-01-02T00:00:00Z"}], "decided_at": "2026-01-01T00:00:00Z", "said_at": "2026-01-01T00:00:00Z", "percent": 50,
    "at": "2026-01-01T00:00:00Z", "role": "sender", "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T01:00:00Z",
    "judged": 10, "at_least": False, "rules": [{"rule": "sample", "description": "Sample", "would": "hold", "count": 1}],
    "stream": "receipts", "limit": 20000, "window_minutes": 60, "per_person": False,
    "list_name": "sample", "problem": "sample.csv holds nobody; the last good index stays in use", "size": 1000, "stale": False,
    "checked_at": "2026-01-01T00:00:00Z",
    "person": "eva@example.com", "list": "Sample list", "total": 1, "states": {"waiting": 1}, "undecided": 1, "earlier": 0,
    "messages": [{"hold_id": "0000000000000000", "subject": "Sample", "from": "anna@example.com", "state": "waiting",
                  "held_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z", "reach": 1000, "lists": [], "mine": "sample", "reasons": [{"rule": "sample", "description": "Sample", "sentences": []}]}],
    "first": "2026-01-01", "last": "2026-01-02", "deputy": "omar@example.com", "groups": ["sample"], "choice": "approve", "proof": "token", "refused": "", "answer_to": "", "may_approve": True,
    "mailing": "SAMPLE", "stopped": True, "cause": Phrase("a freeze"), "waits": 1000,
    "writer": False, "expires": False, "unconfirmed": False,
}  # fmt: skip
"""Sample data to test every template."""
