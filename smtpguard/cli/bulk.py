"""Decide on several held messages at once: select them by filters, count them, and ask for that number as confirmation.

The selected holds are read first, and each decision is bound to what was read. A hold that came or changed since is not
decided on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from smtpguard.cli.context import CannotRun, mailbox, moment, terminal
from smtpguard.config.problem import unknown
from smtpguard.holds.model import Choice, Hold, State
from smtpguard.locale.phrase import many
from smtpguard.policy.verdict import Mode

if TYPE_CHECKING:
    from smtpguard.app.services import Services
    from smtpguard.store.store import Store

F = TypeVar("F", bound=Callable[..., Any])
PAGE = 1000


def filters(command: F) -> F:
    """Options that select messages: all that are given must match."""
    for option in (
        click.option("--since", metavar="TIME", help='Held since then: "2h", or 2026-03-02T09:00 (UTC).'),
        click.option("--rule", metavar="RULE", help="Held by this rule."),
        click.option("--mailing", metavar="ID", help="Of this mailing, by its id or a beginning of it."),
        click.option("--sender", metavar="ADDRESS", help="From this address."),
        click.option("--list", "list_name", metavar="NAME", help="To this list."),
    ):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """None: no condition."""

    list_name: str | None = None
    sender: str | None = None
    mailing: str | None = None
    rule: str | None = None
    since: str | None = None

    def __bool__(self) -> bool:
        return self != Filter()

    def fits(self, services: Services) -> Callable[[Hold], bool]:
        """Raises CannotRun for values that can match nothing."""
        registry = services.policies.current().registry
        if self.list_name is not None and self.list_name not in registry.lists:
            raise CannotRun(unknown("list", self.list_name, registry.lists))
        sender = None
        if self.sender is not None:
            sender = mailbox("--sender", self.sender).canonical(registry.digester.delimiters)
        since = moment("--since", self.since, services.clock.now()) if self.since is not None else None
        mailing = self.mailing.strip().upper() if self.mailing is not None else ""

        def fits(hold: Hold) -> bool:
            rules = {hit.rule for hit in hold.verdict.hits if hit.mode is Mode.ENFORCE}
            return (
                (self.list_name is None or self.list_name in hold.lists)
                and (sender is None or sender in hold.senders)
                and hold.mailing_id.upper().startswith(mailing)
                and (self.rule is None or self.rule in rules)
                and (since is None or hold.held_at >= since)
            )

        return fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """``missing``: ids without a hold."""

    holds: Sequence[Hold] = ()
    missing: Sequence[str] = field(default=())

    @property
    def people(self) -> int:
        return sum(hold.reach for hold in self.holds)


async def meant(services: Services, ids: Sequence[str], chosen: Filter) -> Meant:
    """The holds with these ids, or all waiting ones that match, each once. A copy counts as its primary hold."""
    if not chosen:
        found: dict[str, Hold] = {}
        missing = []
        for id in ids:
            hold = await services.store.holds.find(id)
            if hold is not None and hold.primary:
                hold = await services.store.holds.find(hold.primary)
            if hold is None:
                missing.append(id)
            else:
                found[hold.hold_id] = hold
        return Meant(holds=tuple(found.values()), missing=tuple(dict.fromkeys(missing)))
    fits = chosen.fits(services)
    waiting = every_hold(services.store, [State.WAITING])
    return Meant(holds=tuple([hold async for hold in waiting if not hold.primary and fits(hold)]))


async def every_hold(store: Store, states: Sequence[State] = ()) -> AsyncIterator[Hold]:
    """Newest first; of all states without ``states``."""
    last: Hold | None = None
    more = True
    while more:
        page = await store.holds.newest(
            states=states, limit=PAGE, before=last.held_at if last else None, after_id=last.hold_id if last else None
        )
        for last in page:
            yield last
        more = len(page) == PAGE


def agreed(found: Meant, choice: Choice, count: int | None, *, shown: Callable[[Hold], str]) -> None:
    """Returns if the person has confirmed their number. Raises CannotRun otherwise: nothing is decided then."""
    n = len(found.holds)
    does = {Choice.APPROVE: "approves", Choice.REJECT: "rejects"}[choice]
    at_least = "at least " if any(hold.reach_at_least for hold in found.holds) else ""
    people = many(found.people, "person", "people")
    says = f"This {does} {many(n, 'held message')} for {at_least}{people}."
    if count is not None:
        if count != n:
            raise CannotRun(f"--count {count}: there are now {n}; nothing was decided")
        return
    if not terminal():
        raise CannotRun(f"{says} To agree: --count {n}; nothing was decided")
    for hold in found.holds[:20]:
        click.echo(f"  {shown(hold)}", err=True)
    if n > 20:
        click.echo(f"  and {n - 20:,} more", err=True)
    typed = str(click.prompt(f"{says} Type {n}", err=True, default="", show_default=False))
    if typed.strip().replace(",", "") != str(n):
        raise CannotRun("the number is not the same; nothing was decided")


def failures(found: Meant) -> Iterator[Mapping[str, str]]:
    for id in found.missing:
        yield {"id": id, "problem": f"there is no hold {id}"}
