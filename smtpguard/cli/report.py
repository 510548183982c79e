"""smtpguard report: what passed, what was held and by which rules, what people decided and how fast, since some time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from smtpguard.cli.audit import progress
from smtpguard.cli.context import CannotRun, Context
from smtpguard.cli.times import moment
from smtpguard.incidents.activity import WANTED, Activity, Decided, Share, Sums

_COLUMNS = ("held", "deferred", "rejected", "observed", "decided", "approved", "median")
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


@click.command()
@click.option(
    "--since", default="7d", show_default=True, metavar="TIME", help='"7d", "12h", or 2026-03-02T09:00 (UTC).'
)
@click.option("--until", default=None, metavar="TIME", help="As --since; else now.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(context: Context, since: str, until: str | None, as_json: bool) -> None:
    """Say what passed, what each rule held and what became of that, by rule and by list. It names no person.

    A rule of which people approved more than half of what it held is said to be too strict.
    """
    now = datetime.now(UTC)
    begin = moment("--since", since, now)
    end = now if until is None else moment("--until", until, now)
    if end <= begin:
        raise CannotRun(f"--until: {end:%Y-%m-%dT%H:%M} is not after --since, {begin:%Y-%m-%dT%H:%M}")

    async def work() -> Activity:
        from smtpguard.app.services import opened
        from smtpguard.journal.scan import of_kinds

        sums = Sums()
        async with opened(context.settings(), reads=True) as (store, _):
            with progress("Reading the journal") as moved:
                async for page in of_kinds(store, WANTED, begin, end, moved):
                    for entry, _ in page:
                        sums.add(entry.at, entry.kind, entry.id, entry.data)
        return sums.activity(begin, end)

    found = context.run(work())
    if as_json or context.json:
        context.say(row(found))
        return
    for line in lines(found):
        click.echo(line)


def row(found: Activity) -> dict[str, Any]:
    """The JSON object. Times in seconds; null where nothing was decided."""
    return {
        "since": found.since,
        "until": found.until,
        "messages": {
            "relayed": found.relayed, "held": found.held, "deferred": found.deferred, "rejected": found.rejected,
            "copies": found.copies,
        },
        "customers": found.customers,
        "waiting": found.waiting,
        "decisions": _decided(found.decided),
        "rules": [{"rule": share.name, **_share(share)} for share in found.rules],
        "lists": [{"list": share.name, **_share(share)} for share in found.lists],
    }  # fmt: skip


def _share(share: Share) -> dict[str, Any]:
    return {
        "held": share.held, "deferred": share.deferred, "rejected": share.rejected, "observed": share.observed,
        "decisions": _decided(share.decided), "too_strict": share.decided.too_strict,
    }  # fmt: skip


def _decided(decided: Decided) -> dict[str, Any]:
    return {
        "approved": decided.approved, "rejected": decided.rejected, "withdrawn": decided.withdrawn, "expired": decided.expired,
        "median_seconds": decided.median_seconds, "p90_seconds": decided.p90_seconds,
    }  # fmt: skip


def lines(found: Activity) -> Iterator[str]:
    """As a terminal shows it."""
    days = f"{found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M} UTC, {_span(found.until - found.since)}"
    yield f"{days}: {_many(found.messages, 'message')}."
    yield (
        f"Relayed {found.relayed:,} ({_many(found.customers, 'copy', 'copies')} to customers), held {found.held:,}, "
        f"deferred {found.deferred:,}, rejected {found.rejected:,}."
    )
    if found.held:
        yield from _decisions(found)
    for what, shares in (("Rule", found.rules), ("List", found.lists)):
        if shares:
            yield ""
            yield from _table(what, shares)
    strict = [share for share in found.rules if share.decided.too_strict]
    if strict:
        yield ""
    for share in strict:
        yield (
            f"{share.name}: people approved {share.decided.approved} of {share.decided.total} that it held. "
            "It may be too strict."
        )


def _decisions(found: Activity) -> Iterator[str]:
    decided = found.decided
    beside = f", {_many(found.copies, 'copy', 'copies')} beside them" if found.copies else ""
    yield (
        f"Of {found.held - found.copies:,} to be decided on{beside}: {decided.approved:,} approved, {decided.rejected:,} rejected, "
        f"{decided.withdrawn:,} withdrawn, {decided.expired:,} expired, {found.waiting:,} waiting."
    )
    if decided.median_seconds is not None and decided.p90_seconds is not None:
        half, most = (timedelta(seconds=s) for s in (decided.median_seconds, decided.p90_seconds))
        yield f"Half were decided within {_span(half)}, nine of ten within {_span(most)}."


def _table(what: str, shares: Sequence[Share]) -> Iterator[str]:
    width = max(len(what), *(len(share.name) for share in shares))
    yield f"{what:<{width}}" + "".join(f"{column:>10}" for column in _COLUMNS)
    for share in shares:
        decided = share.decided
        numbers = (share.held, share.deferred, share.rejected, share.observed, decided.total, decided.approved)
        median = "" if decided.median_seconds is None else _span(timedelta(seconds=decided.median_seconds))
        yield f"{share.name:<{width}}" + "".join(f"{n:>10,}" for n in numbers) + f"{median:>10}"


def _many(n: int, one: str, several: str = "") -> str:
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def _span(time: timedelta) -> str:
    """In its largest unit, and in whole ones: "7 d", "12 min"."""
    seconds = round(time.total_seconds())
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{seconds // size} {unit}"
