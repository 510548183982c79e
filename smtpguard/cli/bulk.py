"""Decide on several held messages at once: select them by filters, count them, and ask for that number as confirmation.

The selected holds are read first, and each decision is bound to what was read. A hold that came or changed since is not
decided on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from smtpguard.cli.context import CannotRun, mailbox, moment, terminal
from smtpguard.config.problem import unknown
from smtpguard.holds.model import Choice, Hold, State
from smtpguard.locale.phrase import many
from smtpguard.policy.verdict import Mode

if TYPE_CHECKING:
    from smtpguard.app.services import Services

F = TypeVar("F", bound=Callable[..., Any])


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


Given = Mapping[str, str | None]
"""What ``filters`` gave, by option; None: no condition."""


def fitting(
    services: Services,
    *,
    list_name: str | None = None,
    sender: str | None = None,
    mailing: str | None = None,
    rule: str | None = None,
    since: str | None = None,
) -> Callable[[Hold], bool]:
    """Raises CannotRun for values that can match nothing."""
    if list_name is not None:
        lists = services.policies.current().registry.lists
        if list_name not in lists:
            raise CannotRun(unknown("list", list_name, lists))
    who = None if sender is None else mailbox("--sender", sender).canonical(services.digester.delimiters)
    after = None if since is None else moment("--since", since, services.clock.now())
    begins = mailing.strip().upper() if mailing is not None else ""

    def fits(hold: Hold) -> bool:
        return (
            (list_name is None or list_name in hold.lists)
            and (who is None or who in hold.senders)
            and hold.mailing_id.upper().startswith(begins)
            and (rule is None or rule in {hit.rule for hit in hold.verdict.hits if hit.mode is Mode.ENFORCE})
            and (after is None or hold.held_at >= after)
        )

    return fits


async def meant(services: Services, ids: Sequence[str], chosen: Given | None) -> tuple[list[Hold], list[str]]:
    """The holds with these ids, or all waiting ones that are ``chosen``, each once; and the ids without one. A copy counts as its
    primary hold."""
    if chosen:
        fits = fitting(services, **chosen)
        waiting = services.store.holds.every([State.WAITING])
        return [hold async for hold in waiting if not hold.primary and fits(hold)], []
    found: dict[str, Hold] = {}
    missing = []
    for id in dict.fromkeys(ids):
        hold = await services.store.holds.find(id)
        if hold is not None and hold.primary:
            hold = await services.store.holds.find(hold.primary)
        if hold is None:
            missing.append(id)
        else:
            found[hold.hold_id] = hold
    return list(found.values()), missing


def agreed(holds: Sequence[Hold], choice: Choice, count: int | None, *, shown: Callable[[Hold], str]) -> None:
    """Returns if the person has confirmed their number. Raises CannotRun otherwise: nothing is decided then."""
    n = len(holds)
    does = {Choice.APPROVE: "approves", Choice.REJECT: "rejects"}[choice]
    at_least = "at least " if any(hold.reach_at_least for hold in holds) else ""
    people = many(sum(hold.reach for hold in holds), "person", "people")
    says = f"This {does} {many(n, 'held message')} for {at_least}{people}."
    if count is not None:
        if count != n:
            raise CannotRun(f"--count {count}: there are now {n}; nothing was decided")
        return
    if not terminal():
        raise CannotRun(f"{says} To agree: --count {n}; nothing was decided")
    for hold in holds[:20]:
        click.echo(f"  {shown(hold)}", err=True)
    if n > 20:
        click.echo(f"  and {n - 20:,} more", err=True)
    typed = str(click.prompt(f"{says} Type {n}", err=True, default="", show_default=False))
    if typed.strip().replace(",", "") != str(n):
        raise CannotRun("the number is not the same; nothing was decided")
