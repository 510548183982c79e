"""Tables of the docs that are written by hand name what the code has."""

from __future__ import annotations

import re
from collections.abc import Iterator

from smtpguard.accounts.model import Scope
from smtpguard.console.api import held, incident, mailings, reference
from smtpguard.observe.alarms import CONDITIONS
from smtpguard.wire.turnedaway import Why
from tests.manual.made import ROOT


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """The cells of each row of the tables below this heading that begins with code."""
    [text] = re.findall(rf"^##+ {heading}\n(.*?)(?=^##)", (ROOT / "docs" / page).read_text(), re.M | re.S)
    for row in re.findall(r"^\| (`.*) \|$", text, re.M):
        yield [cell.strip() for cell in row.split(" | ")]


def test_alarms() -> None:
    def after(seconds: float) -> str:
        return {0: "at once", 30: "30 s", 90: "90 s"}.get(int(seconds), f"{seconds / 60:g} min")

    told = {re.findall(r"`([\w-]+)`", name)[0]: rest for name, *rest in rows("operations.md", "Alarms")}
    assert told == {
        one.name: [one.severity.value, after(one.after_seconds), "installation" if one.shared else "host"]
        for one in CONDITIONS
    }


def test_reasons_of_mail_that_is_turned_away() -> None:
    told = [
        word
        for cells in rows("operations.md", "Mail that is turned away")
        for word in re.findall(r"`([\w-]+)`", cells[0])
    ]
    assert sorted(told) == sorted([*Why, "why"])


def test_operations_of_the_api() -> None:
    told = set()
    for cells in rows("api.md", "Operations"):
        method, parent = "", ""
        for code in re.findall(r"`([^`]+)`", cells[0]):
            if " " in code:
                method, path = code.split("?")[0].split()
                parent = path if path.endswith("ID") else path.rpartition("/")[0]
            else:  # beside the one before
                path = parent + code
            told.add((method, path))
    has = [*held.OPERATIONS, *incident.OPERATIONS, *mailings.OPERATIONS, *reference.OPERATIONS]
    assert told == {(one.method, re.sub(r"{\w+}", "ID", one.path)) for one in has}


def test_scopes_of_tokens() -> None:
    told = [scope for cells in rows("api.md", "Tokens") for scope in re.findall(r"`(\w+:\w+)`", cells[0])]
    assert sorted(told) == sorted(one.value for one in Scope)
