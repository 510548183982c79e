"""smtpguard report: what passed, what was held and by which rules, and people's decisions and their speed, since a given time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import click
import yaml

from smtpguard.cli.context import (
    AtLeast,
    CannotRun,
    Context,
    Group,
    a_since,
    an_until,
    judged,
    may_name,
    period,
    progress,
    roughly,
)
from smtpguard.cli.holdrow import plain
from smtpguard.database.errors import StoreError
from smtpguard.incidents.activity import Activity, ApproverShare, Counts, Decided, NamedCounts, approver_shares
from smtpguard.incidents.observed import EXAMPLES, Example, Observed, ObservedShare, ObservedSums, enforced_actions
from smtpguard.locale.phrase import many
from smtpguard.policy.parse import Policy

if TYPE_CHECKING:
    from smtpguard.config.settings import Settings
    from smtpguard.lists.digest import Digester
    from smtpguard.policy.freezing import Freeze
    from smtpguard.store.store import Store


_COLUMNS = (
    "asked", "held", "deferred", "rejected on arrival", "observed", "waiting", "confirmed", "approved", "rejected", "withdrawn", "expired", "mistaken", "share", "median",
)  # fmt: skip
WATCHES = "this needs audit: {approvers: true}, since it monitors employees (docs/privacy.md)"
ERASED = "(erased)"


@click.group(cls=Group, invoke_without_command=True, json="One JSON object.")
@a_since("7d")
@an_until
async def command(context: Context, since: str, until: str | None) -> None:
    """Report what passed, what each rule held, and what people decided, by rule and by list. It names no person.

    A rule is reported as too strict if people approved more than half of what it held, of five or more. report observe: what would have been held.
    """
    begin, end = period(since, until, datetime.now(UTC))

    from smtpguard.app.alarmchannels import active_alarms

    settings = context.settings()
    async with context.opened(reads=True) as (store, digester):
        zone = await _zone(settings, store, digester)
        with progress("Reading the journal") as moved:
            found = await store.journal.activity(begin, None if until is None else end, zone, progress=moved)
        gate = await store.gate.read()
        now = {
            "waiting": await store.holds.count_waiting(),
            "frozen": [f"{each.selector.value} {each.value}".strip() for each in gate.freezes],
            "alarms": [str(each.title) for each in await active_alarms(settings, store)],
        }
    context.answer(row(found, now), lines(found, now, gate.freezes))


@command.command("approvers")
@a_since("30d")
@an_until
async def approvers(context: Context, since: str, until: str | None) -> None:
    """Report the votes of each approver: how many, the approved share, and the median time from hold to vote.

    It monitors employees, so it needs audit: {approvers: true}. Each report is journalled.
    """
    begin, end = period(since, until, datetime.now(UTC))
    if not context.settings().audit.approvers:
        raise CannotRun(WATCHES)

    async with context.store(reads=True) as store:
        may_name(store)
        await context.journal_export(store, what="approvers")
        found = approver_shares(await store.journal.votes(begin, end))
    rows = (
        {
            "approver": one.approver or None, "approved": one.approved, "rejected": one.rejected,
            "share_approved": one.share_approved, "median_seconds": one.median_seconds,
        }
        for one in found
    )  # fmt: skip
    context.answers(rows, _approver_lines(found, begin, end))


def _approver_lines(found: Sequence[ApproverShare], begin: datetime, end: datetime) -> Iterator[str]:
    yield f"{_period(begin, end)}: {many(sum(one.total for one in found), 'vote')}."
    rows = []
    for one in found:
        took = "" if one.median_seconds is None else roughly(one.median_seconds)
        cells = (f"{one.total:,}", f"{one.approved:,}", f"{one.rejected:,}", f"{one.share_approved:.0%}", took)
        rows.append((one.approver or ERASED, cells))
    if rows:
        yield from _figures("Approver", ("votes", "approved", "rejected", "share", "median"), rows)


async def _zone(settings: Settings, store: Store, digester: Digester) -> tzinfo:
    """Return the organization's time zone, in which days begin; UTC if no policy in force can be read."""
    from smtpguard.app.clock import SystemClock
    from smtpguard.app.policies import Following

    try:
        policies = Following(store, settings, digester, SystemClock())
        await policies.begin()
        return policies.current().hours.zone
    except StoreError:
        return UTC


def row(found: Activity, now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON object of a report. Times are in seconds, null if nothing was decided. ``now``: the state at the time of the
    report, whatever its period; its alarms are those that a person was told of."""
    return {
        "since": found.since,
        "until": found.until,
        "messages": {**_counts(found), "copies": found.copies},
        "customers": found.customers,
        "waiting": found.waiting,
        "decisions": _decided(found.decided),
        "rules": [{"rule": share.name, **_share(share)} for share in found.rules],
        "lists": [{"list": share.name, "relayed": share.relayed, **_share(share)} for share in found.lists],
        "days": [{"day": day.day.isoformat(), **_counts(day)} for day in found.days],
        "now": now,
    }  # fmt: skip


def _counts(counts: Counts) -> dict[str, int]:
    return {each.name: getattr(counts, each.name) for each in fields(Counts)}


def _share(share: NamedCounts) -> dict[str, Any]:
    return {
        "asked": share.asked, "held": share.held, "deferred": share.deferred, "rejected": share.rejected, "observed": share.observed,
        "waiting": share.waiting, "decisions": _decided(share.decided), "too_strict": share.decided.too_strict,
    }  # fmt: skip


def _decided(decided: Decided) -> dict[str, Any]:
    return {
        "approved": decided.approved, "confirmed": decided.confirmed, "rejected": decided.rejected, "withdrawn": decided.withdrawn, "expired": decided.expired,
        "share_approved": decided.share_approved, "right": decided.right, "mistaken": decided.mistaken,
        "median_seconds": decided.median_seconds, "p90_seconds": decided.p90_seconds,
    }  # fmt: skip


def lines(found: Activity, now: Mapping[str, Any], freezes: Sequence[Freeze]) -> Iterator[str]:
    yield f"{_period(found.since, found.until)}: {many(found.messages, 'message')}."
    asked = f"asked the writers of {found.asked:,}, " if found.asked else ""
    yield (
        f"Passed {found.relayed:,} ({many(found.customers, 'copy', 'copies')} to customers), {asked}held {found.held:,}, "
        f"deferred {found.deferred:,}, rejected on arrival {found.rejected:,}."
    )
    if found.held or found.asked:
        yield from _decisions(found)
    if found.decided.right or found.decided.mistaken:
        yield (
            f"Their writers say that it was right to stop {found.decided.right:,}, and a mistake to stop {found.decided.mistaken:,}."
        )
    frozen = ", ".join(freeze.target for freeze in freezes) or "nothing"
    waiting = now["waiting"]
    yield f"Now {many(waiting, 'message')} {'waits' if waiting == 1 else 'wait'}; frozen: {frozen}."
    for alarm in now["alarms"]:
        yield f"Alarm: {alarm}."
    for what, shares in (("Rule", found.rules), ("List", found.lists)):
        if shares:
            yield ""
            yield from _table(what, shares)
    if len(found.days) > 1:
        yield ""
        rows = [(str(d.day), [f"{n:,}" for n in (d.relayed, d.held, d.deferred, d.rejected)]) for d in found.days]
        yield from _figures("Day", ("passed", "held", "deferred", "rejected on arrival"), rows)
    strict = [share for share in found.rules if share.decided.too_strict]
    if strict:
        yield ""
    for share in strict:
        yield (
            f"{share.name}: people approved {share.decided.approved} of {share.decided.total - share.decided.confirmed} that it held: "
            "the rule is too strict."
        )


def _decisions(found: Activity) -> Iterator[str]:
    decided = found.decided
    beside = f", {many(found.copies, 'copy', 'copies')} beside them" if found.copies else ""
    confirmed = f"{decided.confirmed:,} confirmed by their writers, " if found.asked else ""
    yield (
        f"Of {found.asked + found.held - found.copies:,} to be decided on{beside}: {decided.approved:,} approved, {confirmed}{decided.rejected:,} rejected, "
        f"{decided.withdrawn:,} withdrawn, {decided.expired:,} expired, {found.waiting:,} waiting."
    )
    if decided.median_seconds is not None and decided.p90_seconds is not None:
        half, most = roughly(decided.median_seconds), roughly(decided.p90_seconds)
        yield f"Half were decided within {half}, nine of ten within {most}."


def _table(what: str, shares: Sequence[NamedCounts]) -> Iterator[str]:
    """Yield the lines of a table of rules or lists, without columns that have no figure."""
    passed = what == "List"
    columns = ["passed", *_COLUMNS] if passed else _COLUMNS
    rows = []
    for share in shares:
        decided = share.decided
        numbers = [
            share.asked, share.held, share.deferred, share.rejected, share.observed, share.waiting,
            decided.confirmed, decided.approved, decided.rejected, decided.withdrawn, decided.expired, decided.mistaken,
        ]  # fmt: skip
        if passed:
            numbers.insert(0, share.relayed)
        part, seconds = decided.share_approved, decided.median_seconds
        cells = [f"{n:,}" for n in numbers]
        cells += ["" if part is None else f"{part:.0%}", "" if seconds is None else roughly(seconds)]
        rows.append((share.name, cells))
    shown = [n for n in range(len(columns)) if any(cells[n] not in ("0", "") for _, cells in rows)]
    figures = [(name, [cells[n] for n in shown]) for name, cells in rows]
    yield from _figures(what, [columns[n] for n in shown], figures)


def _figures(what: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str]:
    """Yield the lines of a table of numbers by name. ``what``: its title."""
    width = max(len(what), *(len(name) for name, _ in rows))
    for name, cells in ((what, columns), *rows):
        aligned = (f"{cell:>{max(10, len(column) + 2)}}" for column, cell in zip(columns, cells, strict=True))
        yield plain(f"{name:<{width}}{''.join(aligned)}")


def _period(since: datetime, until: datetime) -> str:
    return f"{since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC, {roughly((until - since).total_seconds())}"


SHOWN = 10


@command.command("observe", json="One JSON object.")
@a_since("14d")
@an_until
@click.option("--examples", type=AtLeast(0), default=EXAMPLES, show_default=True,
              help="The number of examples for each rule.")  # fmt: skip
@click.option("--no-names", is_flag=True, help="Leave out senders and subjects.")
async def observe(context: Context, since: str, until: str | None, examples: int, no_names: bool) -> None:
    """Report what enforce: true would have held, by rule, sender and list, and how many decisions it would have needed.

    A mailing is one decision, however many copies it has. A report with names is journalled.
    """
    begin, end = period(since, until, datetime.now(UTC))

    sums = ObservedSums(enforced_actions(rules_of(context.policy())), examples=examples)
    async with context.store(reads=True) as store:
        if not no_names:
            may_name(store)
        async for entry, clear in judged(store, begin, end):
            sums.add(entry.at, entry.id, entry.data, None if no_names else clear)
        if not no_names:
            await context.journal_export(store, what="observe")
    found = sums.totals(begin, end)
    context.answer(_observed_row(found, names=not no_names), _observed_lines(found, names=not no_names))


def rules_of(policy: Policy) -> Iterator[Mapping[str, Any]]:
    """Yield the rules as they are written in the policy's files: ``enforce: false`` does not hide a rule's own mode there."""
    for name, document in policy.documents.items():
        if "/" not in name or name.startswith("policy.d/"):
            yield from (yaml.safe_load(document) or {}).get("rules") or ()


def _observed_row(found: Observed, *, names: bool) -> dict[str, Any]:
    return {
        "since": found.since,
        "until": found.until,
        "messages": found.messages,
        "enforced": found.enforced,
        "would": dict(found.would),
        "decisions": found.decisions,
        "decisions_a_week": round(found.decisions / found.weeks, 1),
        "rules": [
            {"rule": share.name, "action": share.action, **_observed_share(share), "examples": [_one(e, names) for e in share.examples]}
            for share in found.rules
        ],
        "senders": [{"sender": share.name or None, **_observed_share(share)} for share in found.senders] if names else [],
        "lists": [{"list": share.name, **_observed_share(share)} for share in found.lists],
    }  # fmt: skip


def _observed_share(share: ObservedShare) -> dict[str, Any]:
    return {"messages": share.messages, "decisions": share.decisions, "customers": share.customers}


def _one(example: Example, names: bool) -> dict[str, Any]:
    return {
        "message": example.id, "at": example.at, "recipients": example.recipients,
        "sender": example.sender or None if names else None, "subject": example.subject or None if names else None,
        "because": [{"fact": fact, "observed": observed, "limit": limit} for fact, observed, limit in example.because],
    }  # fmt: skip


def _observed_lines(found: Observed, *, names: bool) -> Iterator[str]:
    yield f"{_period(found.since, found.until)}: {many(found.messages, 'message')}."
    if found.enforced:
        yield f"{found.enforced:,} of them were held, deferred or refused: the policy did not only observe."
    total = sum(found.would.values())
    if not total:
        yield "Nothing would have been held."
        return
    would = ", ".join(
        f"{n:,} {word}" for word, n in zip(("held", "deferred", "refused"), found.would.values(), strict=True) if n
    )
    yield f"With enforce: true {would}; a person would have had to decide {found.decisions:,} times, {found.decisions / found.weeks:.3g} a week."
    yield from _observed_table("Rule", found.rules)
    if names:
        yield from _observed_table("Sender", found.senders)
    yield from _observed_table("List", found.lists)
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


def _observed_table(what: str, shares: Sequence[ObservedShare]) -> Iterator[str]:
    if not shares:
        return
    rows = [
        (share.name or "no sender", [f"{n:,}" for n in (share.messages, share.decisions, share.customers)])
        for share in shares[:SHOWN]
    ]
    yield ""
    yield from _figures(what, ("messages", "decisions", "customers"), rows)
    if len(shares) > SHOWN:
        yield f"and {len(shares) - SHOWN:,} more: --json has all"
