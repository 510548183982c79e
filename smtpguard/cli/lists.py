"""smtpguard lists: read the customer lists' sources, show how they stand, and say what an address is to them.

Works on the policy file as it is and on the indexes in the state folder; needs no running guard. What was synced is journalled where there is a store. A guard
that runs takes a swapped index into use within a second. Never here: how an index is made (lists.sync).
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from smtpguard.cli.context import CannotRun, Context, sentence_of
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.registry import Registry
from smtpguard.lists.report import Report, latest
from smtpguard.lists.sources import Tally
from smtpguard.lists.sync import Refresher
from smtpguard.mail.address import Address, BadAddress

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group()
def command() -> None:
    """Customer lists: sync, show, match."""


@command.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--force", is_flag=True, help="Read the source even if it has not changed.")
@click.option("--accept-shrink", is_flag=True, help="The list is right although it has lost many people.")
@as_json
@click.pass_obj
def sync(context: Context, names: Sequence[str], force: bool, accept_shrink: bool, as_json: bool) -> None:
    """Read members from their sources into indexes: all lists, or those named."""
    infos, refresher = _refresher(context)
    for name in names:
        if name not in infos:
            raise CannotRun(_unknown(name, infos))
        if not infos[name].members:
            raise CannotRun(f"the list {name} declares no members to sync")
    reports = []
    for info in [infos[name] for name in names] if names else [i for i in infos.values() if i.members]:
        with _progress(info.name) as progress:
            report = refresher.sync(
                info, datetime.now(UTC), force=force, accept_shrink=accept_shrink, progress=progress
            )
        reports.append(report)
        if as_json or context.json:
            context.say(_row(report))
        else:
            _tell(report)
    _journal(context, reports)
    if not all(report.ok for report in reports):
        raise click.exceptions.Exit(1)


@command.command()
@as_json
@click.pass_obj
def show(context: Context, as_json: bool) -> None:
    """Every list, with the people on it, when its source was last read, and its state."""
    from smtpguard.app.files import indexes

    registry, folder = _registry(context), indexes(context.settings())
    rows = [_standing(registry, info, latest(folder, info.name)) for info in registry.lists.values()]
    if as_json or context.json:
        for row in rows:
            context.say(row)
        return
    if not rows:
        click.echo("The policy declares no lists.")
        return
    now = datetime.now(UTC)
    table = [("LIST", "PEOPLE", "READ", "STATE", "SOURCE")]
    for row in rows:
        people = "?" if row["people"] is None else f"{row['people']:,}"
        read = "never" if row["checked_at"] is None else f"{_age(now - row['checked_at'])} ago"
        table.append((row["name"], people, read, row["state"], row["source"] or "-"))
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    for name, people, read, state, source in table:
        click.echo(f"{name:<{widths[0]}}  {people:>{widths[1]}}  {read:<{widths[2]}}  {state:<{widths[3]}}  {source}")
    for row in rows:
        if row["problem"] and row["state"] != "unlisted":
            click.echo(row["problem"], err=True)
        if row["failure"]:
            click.echo(f"The latest sync of {row['name']} failed: {row['failure']}", err=True)


@command.command()
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@as_json
@click.pass_obj
def match(context: Context, addresses: Sequence[str], as_json: bool) -> None:
    """Say whether each address is internal, a list, a member of lists, or outside."""
    parsed = []
    for text in addresses:
        try:
            parsed.append(Address.parse(text))
        except BadAddress as error:
            raise CannotRun(f"{text}: {error}") from None
    classified = _registry(context).classify(parsed)
    for text, one in zip(addresses, classified.recipients, strict=True):
        if as_json or context.json:
            context.say(
                {"address": text, "canonical": one.canonical, "class": one.kind.value, "lists": list(one.lists)}
            )
        else:
            on = f" ({', '.join(one.lists)})" if one.lists else ""
            click.echo(f"{text}: {one.kind.value}{on}")
    for why in classified.unsure.values():
        click.echo(f"Not certain: {why}.", err=True)


def _registry(context: Context) -> Registry:
    from smtpguard.app.lists import open_registry

    return open_registry(context.settings(), context.policy())


def _refresher(context: Context) -> tuple[Mapping[str, ListInfo], Refresher]:
    from smtpguard.app.lists import open_refresher, open_registry

    settings, policy = context.settings(), context.policy()
    return open_registry(settings, policy).lists, open_refresher(settings, policy)


def _journal(context: Context, reports: Sequence[Report]) -> None:
    """An entry for each index that was replaced or could not be. A guard that was never started has no journal yet."""
    from smtpguard.app.synced import journal

    said = [report for report in reports if report.news]
    if not said:
        return
    try:
        context.run(journal(context.settings(), context.policy(), said, by=context.user))
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        click.echo(f"This is not in the journal: {sentence}", err=True)


def _unknown(name: str, infos: Mapping[str, ListInfo]) -> str:
    near = difflib.get_close_matches(name, infos, 1)
    return f'no list is called "{name}"' + (f" (did you mean {near[0]}?)" if near else "")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[Tally], None] | None]:
    """A bar while a long file is read, if somebody is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=name, file=sys.stderr) as bar:

        def step(tally: Tally) -> None:
            bar.length = max(tally.size, 1)
            bar.update(tally.done - bar.pos)

        yield step


def _row(report: Report) -> dict[str, Any]:
    return {
        "list": report.list,
        "ok": report.ok,
        "people": report.people,
        "changed": report.changed,
        "source": report.source,
        "rows": report.rows,
        "bad_rows": report.bad,
        "unmailed_rows": report.unmailed,
        "first_bad": [{"line": row.line, "why": row.why} for row in report.shown],
        "problem": report.problem or None,
        "at": report.at,
    }


def _tell(report: Report) -> None:
    if not report.ok:
        click.echo(f"{report.list}: {report.problem}", err=True)
    else:
        said = "" if report.changed else ", as before"
        click.echo(f"{report.list}: {report.people:,} people from {report.source}{said}")
    if report.unmailed:
        click.echo(f"  {report.unmailed:,} rows of people who are not mailed were left out")
    for row in report.shown:
        click.echo(f"  {report.source}: {row}", err=True)
    if report.bad > len(report.shown):
        click.echo(f"  and {report.bad - len(report.shown):,} more rows without an address", err=True)


def _standing(registry: Registry, info: ListInfo, report: Report | None) -> dict[str, Any]:
    standing = registry.standings[info.name]
    sources = [str(declared.get("csv") or declared.get("text")) for declared in info.members]
    return {
        "name": info.name,
        "title": info.title,
        "addresses": [str(a) for a in info.addresses],
        "audience": info.audience,
        "people": standing.index.people if standing.index else None,
        "checked_at": standing.checked_at,
        "state": standing.state.value,
        "source": ", ".join(sources) or None,
        "problem": standing.why or None,
        "failure": report.problem or None if report else None,
    }


def _age(length: timedelta) -> str:
    minutes = max(0, int(length.total_seconds() // 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
