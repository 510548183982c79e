"""An incident report as one file: JSON for programs, self-contained HTML, and PDF made from that HTML.

Nothing is fetched: drawings are inside the file, and the PDF contains its fonts (PDF/A-3u, ISO 19005-3).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from smtpguard.console.api.reference import Verified
from smtpguard.console.incident import (
    ReportText,
    hiding,
    in_numbers,
    query_in_words,
    report_in_words,
    what_is_frozen,
)
from smtpguard.console.incidentsections import LANE_TITLES
from smtpguard.console.journalwords import entry_in_words as in_words
from smtpguard.console.journalwords import is_decision
from smtpguard.console.rendering import environment
from smtpguard.console.reporting import Made
from smtpguard.incidents.query import NAMES
from smtpguard.incidents.statement import MARKS, Statement, Step
from smtpguard.journal.chain import instant, utc_text, utc_text_or_none
from smtpguard.journal.distinct import NOBODY, Interval
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import Sum
from smtpguard.journal.proof import Proof
from smtpguard.lists.declared import ListInfo
from smtpguard.locale.phrase import Phrase, Said
from smtpguard.locale.speech import Speech
from smtpguard.mail.reply import nameless
from smtpguard.mailings.service import row as mailing_row
from smtpguard.policy.freezing import FREEZE

TYPES = {"html": "text/html; charset=utf-8", "json": "application/json", "pdf": "application/pdf"}
VARIANT = "pdf/a-3u"
PANGO = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core"
_ENGLISH = Speech()
_NAMING = frozenset({"reverse_path", "from", "subject", "by", "sentence", "client", "replies"})
"""The keys in a mailing's row and an entry's data that name people, or may."""
_DIGESTS = {
    Kind.VERDICT.value: frozenset({"people", "crowds", "apart_at"}),
    Kind.RELEASE.value: frozenset({"behind"}),
    Kind.IN_DOUBT.value: frozenset({"behind"}),
}
"""The keys in an entry's data for counting its people, by kind, which a reader does not need."""

_OF_RELAY = frozenset(kind.value for kind in (Kind.OUTCOME, Kind.IN_DOUBT, Kind.RELEASE, Kind.NOTICE))
"""The kinds whose entries have the relay's replies."""


class MissingExtra(Exception):
    """A library for PDF is not installed; ``why`` says what to install."""

    def __init__(self, why: Said) -> None:
        super().__init__(str(why))
        self.why = why


def to_file(form: str, made: Made, page: ReportText, said: Speech) -> bytes:
    """Return the report as a file. ``form``: html, json or pdf. Ten pages of PDF take a second of processor time. Raises
    MissingExtra."""
    if form == "json":
        return json.dumps(row(made, page), ensure_ascii=False).encode(errors="replace") + b"\n"
    template = environment().get_template("incident-file.html")
    html = template.render(_=said, ngettext=said.ngettext, **template_values(page, said)).encode(errors="replace")
    if form != "pdf":
        return html
    pdf: bytes = pdf_library().HTML(string=html.decode(), url_fetcher=_refuse).write_pdf(pdf_variant=VARIANT)
    return pdf


def template_values(page: ReportText, said: Speech) -> dict[str, Any]:
    """Return the values of the report's template, for the page and for a file."""
    return {
        "made": page,
        "marks": {mark.value: said(text) for mark, text in MARKS.items()},
        "numbers": lambda entries: in_numbers(entries, said),
        "lane_titles": [said(title) for title in LANE_TITLES],
    }


def pdf_library() -> Any:
    """Import the library for PDF. Raises MissingExtra."""
    try:
        return import_module("weasyprint")
    except ImportError:
        raise MissingExtra(
            Phrase("a PDF needs the extra pdf: {command}", command="pip install 'smtpguard[pdf]'")
        ) from None
    except OSError as error:  # Pango is not a Python package
        why = Phrase(
            "a PDF needs Pango and a font: {command} ({error})", command=f"apt-get install {PANGO}", error=str(error)
        )
        raise MissingExtra(why) from None


def _refuse(url: str, *_: object, **__: object) -> Any:
    raise ValueError("nothing is fetched")


def row(made: Made, page: ReportText | None = None) -> dict[str, Any]:
    """Return the report as a JSON object. Its last three values come from the statements that every format is made of (``page``).
    ``mailings`` has the shape of ``mailings list``, ``timeline`` that of ``audit export``. Texts are English."""
    found, report, purposes, names = made.found, made.report, made.purposes, made.names
    proof, hide = found.proof, hiding(made, _ENGLISH)
    page = page or report_in_words(made, _ENGLISH)
    return {
        "about": [hide(text) for text in query_in_words(made.query, _ENGLISH, names)],
        "made_at": utc_text(made.at),
        "journal": {
            "id": found.journal,
            "seq": found.seq,
            "hash": found.hash.hex(),
            "signed_seq": found.checkpoint.seq if found.checkpoint is not None else None,
            "signed_at": utc_text(instant(found.checkpoint.at)) if found.checkpoint is not None else None,
        },
        "proof": None if proof is None else proof_row(proof),
        "first_at": utc_text(report.first),
        "last_at": utc_text(report.last),
        "went_first_at": utc_text_or_none(report.went_first),
        "went_last_at": utc_text_or_none(report.went_last),
        "messages": report.messages,
        "again": report.again,
        "refused": [{"code": code, "recipients": n} for code, n in sorted(report.refused.items())],
        "reached": _sum(report.reached),
        "open": _sum(report.open),
        "perhaps": people_row(report.perhaps),
        "unreached": people_row(report.unreached),
        "ends": [{"end": end.value, **_sum(some)} for end, some in report.ends.items()],
        "shown": report.shown or None,
        "copies": [{"end": end.value, "messages": n} for end, n in report.copies.items()],
        "undelivered": report.undelivered,
        "parts": report.parts,
        "held": [{"id": id, "kept_until": utc_text(at + made.keeps)} for id, at in report.held],
        "zone": purposes.zone or None,
        "lists": [{"name": hide(name), "messages": n, **_list(purposes.lists.get(name), hide, names), "reached": people_row(report.of_lists.get(name, NOBODY)),
                   "perhaps": people_row(report.perhaps_of_lists.get(name, NOBODY))} for name, n in report.lists.most_common()],
        "decisions": [_step(step, names, hide) for step in report.steps if is_decision(step.entry)],
        "mailings": [_unnamed(mailing_row(one), names, hide) for one in found.mailings],
        "writers": [{"role": NAMES[role], "address": a, "messages": n} for (role, a), n in report.writers.most_common()] * names,
        "clients": _counts("address", report.clients) * names,
        "subjects": _counts("text", report.subjects) * names,
        "contents": _counts("sha256", report.contents),
        "rules": [{"rule": hide(rule), "mode": mode, "messages": n, "purpose": hide(purposes.of.get(rule, "")) or None}
                  for (rule, mode), n in report.rules.most_common()],
        "policies": [{"sha256": sha256, "messages": n, "known": sha256 not in purposes.lost,
                      "enforced": None if sha256 in purposes.lost else sha256 not in purposes.watching}
                     for sha256, n in report.policies.most_common()],
        "erased": report.erased,
        "unsettled": list(report.unsettled),
        "timeline": [_step(step, names, hide) for step in report.steps],
        "language": page.language,
        "paragraph": _statements(page.paragraph),
        "sections": [{"key": part.key, "title": part.title, "statements": _statements(part.statements)} for part in page.parts],
    }  # fmt: skip


def _statements(some: Iterable[Statement]) -> list[dict[str, Any]]:
    return [
        {"text": one.text.strip(), "mark": one.mark.value, "entries": list(one.entries.named), "entries_in_all": one.entries.many}
        for one in some
    ]  # fmt: skip


def _list(one: ListInfo | None, hide: Callable[[str], str], names: bool) -> dict[str, str | None]:
    if one is None:
        return dict.fromkeys(("title", "audience", "sensitivity", "category"))
    category = one.category if names else None
    return {"title": hide(one.title), "audience": one.audience, "sensitivity": one.sensitivity, "category": category}


def proof_row(proof: Proof) -> dict[str, Any]:
    return Verified.model_validate(proof, from_attributes=True).model_dump(mode="json")


def _sum(some: Sum) -> dict[str, Any]:
    return {"messages": some.messages, **people_row(some.people)}


def people_row(some: Interval) -> dict[str, Any]:
    """Return a number of distinct people as JSON. ``people``: a lower bound if ``at_least``, an upper bound if ``at_most``. ``most``:
    null if no upper bound is known."""
    at_most = not some.low and bool(some.high)
    return {
        "people": some.high if at_most else some.low,
        "at_least": not some.exact and not at_most,
        "at_most": at_most,
        "least": some.low,
        "most": some.high,
    }


def _counts(name: str, counter: Counter[str]) -> list[dict[str, Any]]:
    return [{name: value, "messages": n} for value, n in counter.most_common()]


def _unnamed(value: Any, names: bool, hide: Callable[[str], str]) -> Any:
    """Return the value without what names people or has their words, and without special lists' names, at any depth."""
    if names:
        return value
    if isinstance(value, (list, tuple)):
        return [_unnamed(some, names, hide) for some in value]
    if isinstance(value, str):
        return hide(value)
    if not isinstance(value, Mapping):
        return value
    shown = {key: None if key in _NAMING else _unnamed(some, names, hide) for key, some in value.items()}
    if isinstance(by_list := value.get("lists"), Mapping):
        shown["lists"] = sum((Counter({hide(name): n}) for name, n in by_list.items()), Counter())
    if value.get("fact") == FREEZE:
        shown["observed"] = what_is_frozen(str(value.get("observed") or ""))
    return shown


def _step(step: Step, names: bool, hide: Callable[[str], str]) -> dict[str, Any]:
    entry, clear = step.entry, step.clear
    data = {k: v for k, v in entry.data.items() if k not in _DIGESTS.get(entry.kind, ())}
    # without recipients, who had no part in it: their number is enough
    private = {role: list(v) for role, v in (clear or {}).items() if role not in ("recipients", "refused")}
    if entry.kind in _OF_RELAY:  # earlier versions kept who is named in its replies
        for kept, role in ((data, "replies"), (private, "comment")):
            if role in kept:
                kept[role] = [nameless(said) for said in kept[role]]
    return {
        "seq": entry.seq,
        "at": utc_text(entry.time),
        "kind": entry.kind,
        "id": hide(entry.id),
        "data": _unnamed(data, names, hide),
        "private": private if names and clear is not None else None,
        "text": hide(in_words(entry, clear, _ENGLISH).text),
        "hash": entry.hash.hex(),
        "left_out": step.left_out,
    }
