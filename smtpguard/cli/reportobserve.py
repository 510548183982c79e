"""smtpguard report observe: what would have been held while the policy only observes, and what that would have cost
people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import yaml

from smtpguard.cli.audit import may_name, progress
from smtpguard.cli.context import Context, a_since, an_until, as_json, awaited, period
from smtpguard.cli.holdrow import plain
from smtpguard.incidents.observed import EXAMPLES, Example, Observed, Share, Sums, acts
from smtpguard.policy.parse import Policy

SHOWN = 10


@click.command("observe")
@a_since("14d")
@an_until
@click.option(
    "--examples",
    type=click.IntRange(0),
    default=EXAMPLES,
    show_default=True,
    help="The number of examples for each rule.",
)
@click.option("--no-names", is_flag=True, help="Leave out senders and subjects.")
@as_json("One JSON object.")
@click.pass_obj
@awaited
async def command(context: Context, since: str, until: str | None, examples: int, no_names: bool) -> None:
    """Report what enforce: true would have held, by rule, sender and list, and how many decisions it would have needed.

    A mailing is one decision, however many copies it has. A report with names is journalled.
    """
    begin, end = period(since, until, datetime.now(UTC))
    from smtpguard.app.services import opened
    from smtpguard.journal.scan import verdicts

    settings = context.settings()
    sums = Sums(acts(rules_of(context.policy())), examples=examples)
    async with opened(settings, reads=True) as (store, _):
        if not no_names:
            may_name(store)
        await store.journal.catch_up()
        with progress("Reading the journal") as moved:
            async for page in verdicts(store, begin, end, moved):
                for entry, clear in page:
                    sums.add(entry.at, entry.id, entry.data, None if no_names else clear)
        if not no_names:
            await context.journal_export(store, what="observe")
    found = sums.observed(begin, end)
    if context.json:
        context.say(row(found, names=not no_names))
        return
    for line in lines(found, names=not no_names):
        click.echo(line)


def rules_of(policy: Policy) -> Iterator[Mapping[str, Any]]:
    """Rules as written in its files: ``enforce: false`` does not hide a rule's own mode there."""
    for name, document in policy.documents.items():
        if "/" not in name or name.startswith("policy.d/"):
            yield from (yaml.safe_load(document) or {}).get("rules") or ()


def row(found: Observed, *, names: bool) -> dict[str, Any]:
    """The JSON object."""
    return {
        "since": found.since,
        "until": found.until,
        "messages": found.messages,
        "enforced": found.enforced,
        "would": dict(found.would),
        "decisions": found.decisions,
        "decisions_a_week": round(found.decisions / found.weeks, 1),
        "rules": [
            {"rule": share.name, "action": share.action, **_share(share), "examples": [_one(e, names) for e in share.examples]}
            for share in found.rules
        ],
        "senders": [{"sender": share.name or None, **_share(share)} for share in found.senders] if names else [],
        "lists": [{"list": share.name, **_share(share)} for share in found.lists],
    }  # fmt: skip


def _share(share: Share) -> dict[str, Any]:
    return {"messages": share.messages, "decisions": share.decisions, "customers": share.customers}


def _one(example: Example, names: bool) -> dict[str, Any]:
    return {
        "message": example.id, "at": example.at, "recipients": example.recipients,
        "sender": example.sender or None if names else None, "subject": example.subject or None if names else None,
        "because": [{"fact": fact, "observed": observed, "limit": limit} for fact, observed, limit in example.because],
    }  # fmt: skip


def lines(found: Observed, *, names: bool) -> Iterator[str]:
    """For a terminal."""
    days = (found.until - found.since) / timedelta(days=1)
    yield f"{found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M} UTC, {days:.3g} days: {found.messages:,} messages."
    if found.enforced:
        yield f"{found.enforced:,} of them were held, deferred or rejected: the policy did not only observe."
    total = sum(found.would.values())
    if not total:
        yield "Nothing would have been held."
        return
    would = ", ".join(
        f"{n:,} {word}" for word, n in zip(("held", "deferred", "rejected"), found.would.values(), strict=True) if n
    )
    yield f"With enforce: true {would}; a person would have had to decide {found.decisions:,} times, {found.decisions / found.weeks:.3g} a week."
    yield from _table("Rule", found.rules)
    if names:
        yield from _table("Sender", found.senders)
    yield from _table("List", found.lists)
    for share in found.rules:
        if share.examples:
            yield ""
            yield f"{share.name}, for example:"
        for example in share.examples:
            who = (
                f' "{example.subject}" from {example.sender or "no sender"}'
                if names and (example.subject or example.sender)
                else ""
            )
            yield plain(f"  {example.at:%Y-%m-%d %H:%M} {example.id}{who}, to {example.recipients:,}")
            yield from (
                plain(f"    {fact} is {observed}, the condition {limit}") for fact, observed, limit in example.because
            )
    yield ""
    yield "For changes to the policy that fit this traffic: smtpguard suggest"


def _table(what: str, shares: Sequence[Share]) -> Iterator[str]:
    if not shares:
        return
    shown = shares[:SHOWN]
    width = max(len(what), *(len(share.name or "no sender") for share in shown))
    yield ""
    yield f"{what:<{width}}{'messages':>10}{'decisions':>11}{'customers':>11}"
    for share in shown:
        yield plain(
            f"{share.name or 'no sender':<{width}}{share.messages:>10,}{share.decisions:>11,}{share.customers:>11,}"
        )
    if len(shares) > SHOWN:
        yield f"and {len(shares) - SHOWN:,} more: --json has all"
