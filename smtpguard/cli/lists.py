"""smtpguard lists: read the sources of customer lists, show their status, and say which lists an address is on.

Works on the policy file and on the indexes in the state folder, without a running guard. A sync is journalled where
there is a store. A running guard uses a new index within a second.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from smtpguard.cli.context import CannotRun, Context, Group, NotFine, in_columns, mailbox, sentence_of
from smtpguard.config.problem import unknown
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.expanding import Expander
from smtpguard.lists.expansions import EXPANSIONS, Expansion, Expansions
from smtpguard.lists.index import Index, IndexStatus
from smtpguard.lists.registry import Registry
from smtpguard.lists.sources import BadRow, Tally
from smtpguard.lists.sync import Refresher, Report, SourceReport, overlaps, source_label, sources_with, stored_report
from smtpguard.locale.phrase import many
from smtpguard.policy.parse import Policy

command = Group(help="Customer lists: sync, show, match, overlap.")


@command.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--force", is_flag=True, help="Read the source even if it has not changed.")
@click.option("--accept-shrink", is_flag=True, help="Accept the list although it has lost many people.")
def sync(context: Context, names: Sequence[str], force: bool, accept_shrink: bool) -> None:
    """Read members from their sources into indexes: all lists, or those named."""
    from smtpguard.app.lists import built_expander, built_refresher, digester_of, open_registry

    settings, policy = context.settings(), context.policy()
    infos = policy.declared_lists
    named = [_list_info(name, infos) for name in names]
    for info in named:
        if not info.members:
            raise CannotRun(f"the list {info.name} has no members to sync")
    refresher = built_refresher(settings, policy, digester_of(settings))
    wanted = named or [info for info in infos.values() if info.members]
    chosen: list[tuple[ListInfo, Refresher | Expander]] = [(info, refresher) for info in wanted]
    if not names and policy.expansions:
        expander = built_expander(settings, policy, open_registry(settings, policy))
        chosen.append((expander.info, expander))  # after the lists, since it needs to know who is on them
    reports = []
    for info, reader in chosen:
        with _progress(info.name) as progress:
            report = reader.sync(info, datetime.now(UTC), force=force, accept_shrink=accept_shrink, progress=progress)
        reports.append(report)
        if context.json:
            context.print_json(_row(report))
        else:
            _print_report(report)
    _journal(context, policy, reports)
    if not all(report.ok for report in reports):
        raise click.exceptions.Exit(1)


@command.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
def show(context: Context, names: Sequence[str]) -> None:
    """Show all lists, or those named: the number of people, when the sources were last read, the state, and problems."""
    from smtpguard.app.files import indexes

    settings, registry = context.settings(), _registry(context)
    infos = [_list_info(name, registry.lists) for name in names] or list(registry.lists.values())
    rows = [
        status_row(
            info, registry.statuses[info.name], stored_report(indexes(settings), info.name), settings.policy.parent
        )
        for info in infos
    ]
    context.answers(rows, table(rows, datetime.now(UTC)) if rows else ["The policy declares no lists."])
    if context.json or not rows:
        return
    if registry.expansions is not None and not names:
        click.echo(expansions(registry.expansions, datetime.now(UTC)))
        expanding = stored_report(indexes(settings), EXPANSIONS)
        if expanding is not None and expanding.problem:
            click.echo(f"{EXPANSIONS}: {expanding.problem}", err=True)
    for row in rows:
        for complaint in complaints(row):
            click.echo(complaint, err=True)


@command.command()
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
def match(context: Context, addresses: Sequence[str]) -> None:
    """Say whether each address is internal, a list, a member of lists (and by which source), or outside, as the policy file declares it."""
    from smtpguard.app.files import indexes

    parsed = [mailbox("ADDRESS", text) for text in addresses]
    settings, registry = context.settings(), _registry(context)
    classified = registry.classify(parsed)
    for text, one in zip(addresses, classified.recipients, strict=True):
        sources = {
            name: sources_with(registry.lists[name], dict.fromkeys((one.digest, *registry.digester.every(one.address))), folder=indexes(settings),
                            base=settings.policy.parent, key_ids=registry.digester.key_ids)
            for name in one.lists if one.digest
        }  # fmt: skip
        row: dict[str, Any] = {"address": text, "canonical": one.canonical, "class": one.kind.word, "lists": list(one.lists),
               "sources": sources}  # fmt: skip
        said = [name + (f", by {' and '.join(sources[name])}" if sources.get(name) else "") for name in one.lists]
        if (behind := one.behind) is not None:
            row["behind"] = {"people": behind.people, "customers": behind.customers, "lists": list(behind.addressed)}
            said.append(f"expands to {_crowd(behind)}")
        context.answer(row, f"{text}: {one.kind.word}" + (f" ({'; '.join(said)})" if said else ""))
    for why in classified.unsure.values():
        click.echo(f"Not certain: {why}.", err=True)


@command.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
def overlap(context: Context, names: Sequence[str]) -> None:
    """Count the people who are on two lists: of each pair of the named lists; of one named list and each other; of all pairs."""
    registry = _registry(context)
    for name in names:
        _list_info(name, registry.lists)
    chosen = list(dict.fromkeys(names)) if len(set(names)) > 1 else list(registry.lists)
    indexes: dict[str, Index] = {}
    blind = []
    for name in chosen:
        where = registry.statuses[name]
        if where.index is not None:
            indexes[name] = where.index
        elif registry.lists[name].members or name in names:
            blind.append(where.why)
    rows = [
        {"lists": pair, "both": both, "people": [indexes[name].people for name in pair]}
        for pair, both in overlaps(indexes).items()
        if len(set(names)) != 1 or names[0] in pair
    ]
    context.answers(rows, _overlapping(rows) if rows or blind else ["There are fewer than two lists to compare."])
    if blind:
        raise NotFine("not compared: " + "; ".join(blind))


def _crowd(behind: Expansion) -> str:
    """Write whom an address leads to: "the list news and 5 people, of whom 1 is a customer"."""
    people = many(behind.people, "person", "people")
    people += f", of whom {many(behind.customers, 'is a customer', 'are customers')}" if behind.people else ""
    lists = [f"the list {name}" for name in behind.addressed]
    return " and ".join([*lists, *([people] if behind.people or not lists else [])])


def _overlapping(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of an overlap, the largest first. Lists without an overlap are only counted."""
    apart = 0
    for row in sorted(rows, key=lambda row: (-row["both"], row["lists"])):
        if not row["both"]:
            apart += 1
            continue
        shares = []
        for name, people in zip(row["lists"], row["people"], strict=True):
            share = row["both"] / people
            shares.append(f"{'less than 1%' if share < 0.01 else f'{share:.0%}'} of {name}")
        yield f"{' and '.join(row['lists'])}: {many(row['both'], 'person', 'people')} on both ({', '.join(shares)})"
    if apart:
        yield f"{many(apart, 'pair of lists has', 'pairs of lists have')} no one in common"


def _registry(context: Context) -> Registry:
    from smtpguard.app.lists import open_registry

    return open_registry(context.settings(), context.policy())


def _journal(context: Context, policy: Policy, reports: Sequence[Report]) -> None:
    """Journal each index that was replaced, or could not be. Before the first start there is no journal, and nothing is done."""
    from smtpguard.app.listrefresh import record_reports

    said = [report for report in reports if report.news]
    if not said:
        return
    try:
        asyncio.run(record_reports(context.settings(), policy, said, by=context.user))
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        click.echo(f"This could not be journalled: {sentence}", err=True)


def _list_info(name: str, infos: Mapping[str, ListInfo]) -> ListInfo:
    if name in infos:
        return infos[name]
    raise CannotRun(unknown("list", name, infos))


@contextmanager
def _progress(name: str) -> Iterator[Callable[[Tally], None] | None]:
    """Show progress on a terminal while a source is read: the share, if its size is known, and the number of rows."""
    if not sys.stderr.isatty():
        yield None
        return
    rows = [-1]
    bar: Any
    with click.progressbar(
        length=1,
        label=name,
        file=sys.stderr,
        item_show_func=lambda _: many(max(rows[0], 0), "row", "rows"),
        show_eta=False,
    ) as bar:

        def step(tally: Tally) -> None:
            rows[0] = tally.rows
            bar.length = tally.size or None
            bar.update((min(tally.done, tally.size) if tally.size else tally.rows) - bar.pos, "rows")
            bar.render_progress()

        yield step
    if rows[0] < 0:  # unchanged, or unreadable: remove the empty bar
        click.echo("\033[1A\033[2K", nl=False, err=True)


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
        "first_bad": [bad_row(row) for row in report.shown],
        "sources": [source_row(source) for source in report.sources],
        "problem": report.problem or None,
        "at": report.at,
    }


def _print_report(report: Report) -> None:
    if not report.ok:
        click.echo(f"{report.list}: {report.problem}", err=True)
    else:
        said = "" if report.changed else ", as before"
        nouns = ("address", "addresses") if report.list == EXPANSIONS else ("person", "people")
        click.echo(f"{report.list}: {many(report.people, *nouns)} from {report.source}{said}")
    for source in report.sources:
        if len(report.sources) > 1 and not source.problem and report.list != EXPANSIONS:
            click.echo(f"  {source.label}: {many(source.people, 'person', 'people')}")
        if source.unmailed:
            click.echo(f"  {source.label}: {source.unmailed:,} rows of people who are not mailed were left out")
        if source.bad:
            click.echo(f"  {source.label}: {source.bad:,} of {source.rows:,} rows hold no address", err=True)
        for row in source.shown:
            click.echo(f"    {row}", err=True)
        if source.bad > len(source.shown):
            click.echo(f"    and {source.bad - len(source.shown):,} more", err=True)


HEAD = ("LIST", "PEOPLE", "READ", "STATE", "SOURCE")


def status_row(info: ListInfo, status: IndexStatus, report: Report | None, base: Path) -> dict[str, Any]:
    sources = [source_row(s) for s in report.sources] if report else []
    names = [s["source"] for s in sources] or [source_label(members, base) for members in info.members]
    return {
        "name": info.name,
        "title": info.title,
        "addresses": [str(a) for a in info.addresses],
        "audience": info.audience,
        "people": status.people,
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
    """Return the position of a bad row and what is wrong with it, never its content, which is personal data."""
    return {"unit": bad.unit, "line": bad.line, "why": bad.why}


def table(rows: Sequence[dict[str, Any]], now: datetime) -> Iterator[str]:
    """Yield a line for each list; below a list of several sources a line for each source."""
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
    """Yield what is wrong with a list, one sentence a line."""
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
    """Return a line on the addresses that expand beside the lists."""
    if known.why:
        return f"The addresses that expand at the relay are not known: {known.why}."
    return f"Beside the lists, {len(known.known):,} addresses expand at the relay, read {_ago(known.read_at, now)}."


def _people(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _ago(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "never"
    minutes = max(0, int((now - at).total_seconds() // 60))
    if minutes < 120:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // 1440} days ago"
