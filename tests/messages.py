"""The messages of code and templates, and updates of the message catalogues.

``python -m tests.messages`` (``make generated``) adds new messages to each catalogue, untranslated, and removes unused
ones.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from smtpguard.locale import file_of, languages

PACKAGE = Path(__file__).parent.parent / "smtpguard"
_METHODS = [("**.py", "python"), ("**.j2", "jinja2"), ("**.html", "jinja2")]
# Functions that mark a message, and which of their arguments is the message.
MARKS: Mapping[str, tuple[int | tuple[int, str], ...] | None] = {
    "_": None,
    "said": None,
    "Phrase": None,
    "saying": None,
    "mark": None,
    "N_": None,
    "gettext": None,
    "counted": (1, 2),
    "ngettext": (1, 2),
    "NN_": (1, 2),
    "pgettext": ((1, "c"), 2),
}

Used = str | tuple[str, str]
"""A message, or its singular and plural."""


@cache
def used() -> tuple[tuple[str, Used, str | None], ...]:
    """(file, message, context) of each use."""
    return tuple(
        (str(file), message if isinstance(message, str) else (message[0], message[1]), context)
        for file, _, message, _, context in extract_from_dir(PACKAGE, _METHODS, keywords=MARKS)
    )


def template() -> Catalog:
    made = Catalog(charset="utf-8")
    for file, message, context in sorted(used(), key=lambda each: (each[0], str(each[1]))):
        made.add(message, locations=[(file, 0)], context=context)
    return made


def parsed(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file)


def updated(path: Path) -> str:
    """The text of the updated catalogue: existing translations unchanged, unused messages removed."""
    catalogue = parsed(path)
    catalogue.update(template(), no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    out = io.BytesIO()
    write_po(out, catalogue, width=120, ignore_obsolete=True, include_lineno=False, omit_header=False)
    head, _, rest = out.getvalue().decode().partition("\n\n")
    stable = [
        line
        for line in head.splitlines()
        if not line.startswith(('"POT-', '"PO-Rev', '"Generated-', '"Project-', '"Report-', '"Last-', '"Language-Team'))
    ]
    return "\n".join(stable) + "\n\n" + rest


if __name__ == "__main__":
    for language in languages()[1:]:
        file_of(language).write_text(updated(file_of(language)))
