"""An incident report as one file: JSON for programs, self-contained HTML, and PDF made from that HTML.

Nothing is fetched: drawings are inside the file, and the PDF contains its fonts (PDF/A-3u, ISO 19005-3).
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from smtpguard.console.incident import LANE_TITLES, ReportText, in_numbers
from smtpguard.console.incidentrow import row
from smtpguard.console.rendering import environment
from smtpguard.console.reporting import Made
from smtpguard.incidents.statement import MARKS
from smtpguard.locale.phrase import Phrase, Said
from smtpguard.locale.speech import Speech

TYPES = {"html": "text/html; charset=utf-8", "json": "application/json", "pdf": "application/pdf"}
VARIANT = "pdf/a-3u"
PANGO = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core"


class MissingExtra(Exception):
    """A library for PDF is not installed; ``why`` says what to install."""

    def __init__(self, why: Said) -> None:
        super().__init__(str(why))
        self.why = why


def written(form: str, made: Made, page: ReportText, said: Speech) -> bytes:
    """``form``: html, json or pdf. Raises MissingExtra. Ten pages of PDF take a second of processor time."""
    if form == "json":
        return json.dumps(row(made, page), ensure_ascii=False).encode() + b"\n"
    page_html = html(page, said)
    return pdf(page_html) if form == "pdf" else page_html.encode()


def shown(page: ReportText, said: Speech) -> dict[str, Any]:
    """The values of the report's template, for the page and for a file."""
    return {
        "made": page,
        "marks": {mark.value: said(text) for mark, text in MARKS.items()},
        "numbers": lambda entries: in_numbers(entries, said),
        "lane_titles": [said(title) for title in LANE_TITLES],
    }


def html(page: ReportText, said: Speech) -> str:
    template = environment().get_template("incident-file.html")
    return template.render(_=said, ngettext=said.ngettext, **shown(page, said))


def can_make_pdf() -> None:
    """Raises MissingExtra."""
    _library()


def pdf(page: str) -> bytes:
    """Raises MissingExtra."""
    made: bytes = _library().HTML(string=page, url_fetcher=_nothing).write_pdf(pdf_variant=VARIANT)
    return made


def _library() -> Any:
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


def _nothing(url: str, *_: object, **__: object) -> Any:
    raise ValueError("nothing is fetched")
