"""The status of lists as rows for programs, and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from smtpguard.cli.context import in_columns
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.expansions import Expansions
from smtpguard.lists.index import IndexStatus
from smtpguard.lists.report import Report, SourceReport
from smtpguard.lists.sources import BadRow
from smtpguard.lists.sync import called

HEAD = ("LIST", "PEOPLE", "READ", "STATE", "SOURCE")


def row(info: ListInfo, status: IndexStatus, report: Report | None, base: Path) -> dict[str, Any]:
    sources = [source_row(s) for s in report.sources] if report else []
    names = [s["source"] for s in sources] or [called(declaration, base) for declaration in info.members]
    return {
        "name": info.name,
        "title": info.title,
        "addresses": [str(a) for a in info.addresses],
        "audience": info.audience,
        "people": status.index.people if status.index else None,
        "checked_at": status.checked_at,
        "state": status.state.value,
        "source": ", ".join(names) or None,
        "sources": sources,
        "rows": report.rows if report else None,
        "bad_rows": report.bad if report else None,
        "problem": status.why or None,
        "failure": report.problem or None if report else None,
        "failing_since": report.failing_since if report else None,
    }


def source_row(source: SourceReport) -> dict[str, Any]:
    return {
        "source": source.label,
        "people": source.people if source.read_at else None,
        "read_at": source.read_at,
        "checked_at": source.checked_at,
        "rows": source.rows,
        "bad_rows": source.bad,
        "unmailed_rows": source.unmailed,
        "ignored_rows": source.ignored,
        "first_bad": [bad_row(bad) for bad in source.shown],
        "problem": source.problem or None,
    }


def bad_row(bad: BadRow) -> dict[str, Any]:
    """The position of a bad row and what is wrong with it, never its content, which is personal data."""
    return {"unit": bad.unit, "line": bad.line, "why": bad.why}


def table(rows: Sequence[dict[str, Any]], now: datetime) -> Iterator[str]:
    """A line for each list; below a list of several sources a line for each source."""
    lines = [HEAD]
    for each in rows:
        state = each["state"] + (", failing" if each["failure"] else "")
        several = len(each["sources"]) > 1
        source = f"{len(each['sources'])} sources" if several else each["source"] or "-"
        lines.append((each["name"], _people(each["people"]), _ago(each["checked_at"], now), state, source))
        for part in each["sources"] if several else ():
            state = "failing" if part["problem"] else "well"
            lines.append(("", _people(part["people"]), _ago(part["checked_at"], now), state, f"  {part['source']}"))
    yield from in_columns(lines, right={1})


def complaints(each: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a list, one sentence a line."""
    if each["problem"] and each["state"] != "unlisted" and not (each["failure"] and each["people"] is None):
        yield f"{each['problem']}."
    if each["failure"]:
        since = f" since {each['failing_since']:%Y-%m-%d %H:%M} UTC" if each["failing_since"] else ""
        yield f"{each['name']} cannot be read{since}: {each['failure']}."
    for source in each["sources"]:
        if source["bad_rows"]:
            yield f"{each['name']}: {source['bad_rows']:,} of {source['rows']:,} rows of {source['source']} hold no address."
            for bad in source["first_bad"][:3]:
                yield f"  {bad['unit']} {bad['line']}: {bad['why']}"


def expansions(known: Expansions, now: datetime) -> str:
    """The expanding addresses besides lists, in one line."""
    if known.why:
        return f"The addresses that expand at the relay are not known: {known.why}."
    return f"Beside the lists, {len(known):,} addresses expand at the relay, read {_ago(known.read_at, now)}."


def _people(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _ago(at: datetime | None, now: datetime) -> str:
    return "never" if at is None else f"{_age(now - at)} ago"


def _age(length: timedelta) -> str:
    minutes = max(0, int(length.total_seconds() // 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
