"""smtpguard tokens: API tokens, each for one account and some scopes.

A token is shown once, when it is made; only its hash is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from smtpguard.accounts.model import Scope, Token
from smtpguard.cli.context import CannotRun, Context, Group, NotFine, in_columns

if TYPE_CHECKING:
    from smtpguard.console.api.entry import Tokens

SCOPES = [scope.value for scope in Scope]
MOST_DAYS = 730


command = Group(help="Tokens of the API: add, revoke, list.")


@command.command()
@click.argument("name")
@click.option("--as", "address", metavar="ADDRESS", required=True, help="The account that it acts as.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="May be repeated.")
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=90, show_default=True,
              help="The number of days for which it is valid.")  # fmt: skip
async def add(context: Context, name: str, address: str, scopes: Sequence[str], days: int) -> None:
    """Make a token and print it; it is not shown again. NAME says what it is for.

    All that it does is done and journalled as this account: its votes are that person's votes.
    """
    async with _tokens(context, address) as tokens:
        token, text = await tokens.add(
            address, name=name, scopes=[Scope(s) for s in scopes], good_for=timedelta(days=days), by=context.user
        )
        if context.json:
            context.say(_row(token, address) | {"token": text})
        else:
            click.echo(text)
            click.echo(f"Good until {token.expires_at:%Y-%m-%d}. It is not shown again.", err=True)


@command.command(json=None)
@click.argument("token_id", metavar="ID")
async def revoke(context: Context, token_id: str) -> None:
    """Revoke a token at once."""
    async with _tokens(context) as tokens:
        token = await tokens.revoke(token_id, by=context.user)
        click.echo(f"{token.token_id} ({token.name}) is revoked.")


@command.command("list")
async def list_(context: Context) -> None:
    """List the tokens and their accounts."""
    async with _tokens(context) as tokens:
        found = await tokens.people.tokens()
        rows = [_row(token, account.address, tokens.state(token, account)) for token, account in found]
    table = [("ID", "NAME", "AS", "GOOD UNTIL", "STATE", "SCOPES")]
    for row in rows:
        until = f"{row['expires_at']:%Y-%m-%d}"
        table.append((row["id"], row["name"], row["as"], until, row["state"], ", ".join(row["scopes"])))
    context.answers(rows, in_columns(table) if rows else ["There are no tokens: smtpguard tokens add"])


@asynccontextmanager
async def _tokens(context: Context, address: str = "") -> AsyncIterator[Tokens]:
    from smtpguard.app.clock import SystemClock, ids
    from smtpguard.app.services import second_factor_for
    from smtpguard.console.api.entry import NoToken, Tokens
    from smtpguard.mail.address import BadAddress

    settings, delimiters = context.settings(), context.settings().delimiters
    try:
        async with context.store() as store:
            required = second_factor_for(settings)
            yield Tokens(store.people, SystemClock(), new_id=ids(), delimiters=delimiters, required=required)
    except NoToken as refused:
        raise NotFine(str(refused)) from None
    except BadAddress as bad:
        raise CannotRun(f"{address}: {bad}") from None


def _row(token: Token, address: str, state: str = "good") -> dict[str, Any]:
    return {
        "id": token.token_id,
        "name": token.name,
        "as": address,
        "scopes": [scope.value for scope in token.scopes],
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "state": state,
    }
