"""smtpguard incident report: who sent what, when, to how many, what became of it and who decided, with its proof.

Never here: what belongs to an incident (audit.report), where it is read (store.incident), or how it is told (console.incident).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from smtpguard.audit.about import About
from smtpguard.audit.chain import microseconds
from smtpguard.audit.report import TooMany
from smtpguard.cli.audit import progress
from smtpguard.cli.context import CannotRun, Context, NotFine
from smtpguard.cli.times import moment
from smtpguard.config.problem import Broken
from smtpguard.console.incident import Told, told
from smtpguard.console.incidentrow import row
from smtpguard.console.speech import LANGUAGES, Speech
from smtpguard.guard.mailings import whole_ids

if TYPE_CHECKING:
    from smtpguard.store.incident import Found
    from smtpguard.store.store import Store


@click.group()
def command() -> None:
    """The facts of an incident, from the journal."""


@command.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--list", "lists", multiple=True, metavar="NAME", help="What touched this list.")
@click.option("--sender", "senders", multiple=True, metavar="ADDRESS", help="What this address wrote or sent.")
@click.option("--subject", default="", metavar="TEXT", help="What has this in its subject.")
@click.option("--since", metavar="WHEN", help='From then on: "2026-11-26 09:30" in UTC, or "2h" ago.')
@click.option("--until", metavar="WHEN", help="Before then.")
@click.option("--alone", is_flag=True, help="Without the other messages of the mailings that the IDs are part of.")
@click.option("--no-names", is_flag=True, help="Without addresses, subjects and what people wrote: to be passed on.")
@click.option(
    "--no-proof", is_flag=True, help="Without the walk over the whole journal, which takes a while in a large one."
)
@click.option("--language", type=click.Choice(LANGUAGES), default="en", show_default=True, help="Of the page.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def report(
    context: Context,
    ids: tuple[str, ...],
    lists: tuple[str, ...],
    senders: tuple[str, ...],
    subject: str,
    since: str | None,
    until: str | None,
    alone: bool,
    no_names: bool,
    no_proof: bool,
    language: str,
    as_json: bool,
) -> None:
    """Who sent what, when, to how many, what became of it, who decided; and the proof that the journal is whole.

    An ID is that of a held message, of any other as the log has it, of a mailing, of a freeze, or the SHA-256 of a content.
    Whatever is given must all fit. Exit 1 where nothing does, or the journal is not whole. That names were shown is journalled.
    """  # fmt: skip
    now = datetime.now(UTC)
    asked = About(
        ids=frozenset(ids),
        lists=frozenset(lists),
        senders=frozenset(senders),
        subject=subject,
        since=None if since is None else microseconds(moment("--since", since, now)),
        until=None if until is None else microseconds(moment("--until", until, now)),
        whole=not alone,
    )
    if asked == About(whole=not alone):
        raise click.UsageError("say what it is about: an ID, --list, --sender, --subject, or --since")

    async def work() -> tuple[About, Found, Mapping[str, str]]:
        from smtpguard.app.services import opened

        settings = context.settings()
        async with opened(settings) as (store, _):
            if not no_names:
                await store.record([asked.exported(context.user, store.now())])
            named = replace(asked, ids=await whole_ids(store, asked.ids))
            with progress("Proving the journal") as moved:
                try:
                    found = await store.incident(named, prove=not no_proof, progress=moved)
                except TooMany as error:
                    raise CannotRun(str(error)) from None
            policies = found.report.policies if found.report is not None else ()
            return named, found, await _purposes(store, policies, settings.delimiters, language)

    about, found, purposes = context.run(work())
    if found.report is None:
        raise NotFine("nothing in the journal fits")
    if as_json or context.json:
        context.say(row(found, found.report, about, now, names=not no_names))
    else:
        said = Speech(language)
        page = told(found, found.report, about, purposes, said, names=not no_names)
        for line in _page(page, said, now, context.user):
            click.echo(line)
    if found.proof is not None and not found.proof.ok:
        raise click.exceptions.Exit(1)


def _page(page: Told, said: Speech, made: datetime, by: str) -> Iterator[str]:
    yield said("INCIDENT REPORT, made {when} by {who}", when=f"{made:%Y-%m-%d %H:%M:%S} UTC", who=by)
    yield said("About: {what}", what=page.about)
    yield said("Proof: {what}", what=page.proof)
    yield ""
    yield page.short
    for title, lines in page.sections:
        yield ""
        yield title.upper()
        yield from (f"  {line}" for line in lines)


async def _purposes(store: Store, policies: Iterable[str], delimiters: str, language: str) -> dict[str, str]:
    """Rule to what it is for, in this language where its admin wrote that: by the policies that decided, as they were put in force."""
    from smtpguard.policy.parse import parse

    purposes: dict[str, str] = {}
    for sha256 in policies:
        try:
            rules = parse(await store.policy(sha256), delimiters=delimiters).rules
        except (KeyError, Broken):  # not kept any more, or written for a version of long ago
            continue
        purposes |= rules.purposes(language)
    return purposes
