"""smtpguard users: console accounts and their roles; and smtpguard tokens: API tokens, each for one account and some
scopes.

A password is typed at the terminal or read from a file. It is never a command-line argument, which every process can
see. A token is shown once, when it is made; only its hash is kept.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from smtpguard.accounts.model import Account, Role, Scope, Token
from smtpguard.app import services
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.files import installation_secret
from smtpguard.app.policies import Following
from smtpguard.cli.context import CannotRun, Context, Group, NotFine, in_columns, terminal
from smtpguard.console.api.tokens import NoToken, Tokens
from smtpguard.console.people.accounts import Accounts
from smtpguard.console.people.credentials import NotPossible
from smtpguard.database.errors import StoreError
from smtpguard.mail.address import BadAddress

ROLES = [role.value for role in Role]
SCOPES = [scope.value for scope in Scope]
MOST_DAYS = 730
"""The longest that a token is valid."""

an_address = click.argument("address", metavar="ADDRESS")
a_password_file = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="A file with the password on one line; - is standard input. Default: ask at the terminal.",
)


command = Group(help="People of the console: add, passwd, roles, disable, enable, totp, link, delete, list.")


@command.command()
@an_address
@click.option("--role", "roles", type=click.Choice(ROLES), multiple=True, help="May be repeated.")
@click.option("--name", default="", metavar="TEXT", help="The name that others see.")
@click.option("--sso", is_flag=True, help="No password: the person signs in by single sign-on.")
@a_password_file
async def add(
    context: Context, address: str, roles: Sequence[str], name: str, sso: bool, password_file: Path | None
) -> None:
    """Make an account.

    A role says what the person may do in the console. The policy's groups, which know people by address, say on which messages an
    approver decides.
    """
    if sso and password_file is not None:
        raise CannotRun("give either --sso or --password-file")
    password = "" if sso else _password(password_file)

    async with _accounts(context, address, about=True) as accounts:
        made = await accounts.add(
            address, roles=[Role(r) for r in roles], password=password, name=name, by=context.user
        )
        _print_account(context, made, "has an account" if not sso else "has an account, and signs in by single sign-on")
        if not roles:
            click.echo("It has no role yet, and so no rights: smtpguard users roles", err=True)


@command.command()
@an_address
@a_password_file
async def passwd(context: Context, address: str, password_file: Path | None) -> None:
    """Set the password of an account. All its sessions end."""
    password = _password(password_file)

    async with _accounts(context, address) as accounts:
        done = await accounts.set_password(await accounts.get(address), password, by=context.user)
        _print_account(context, done, "has another password")


@command.command()
@an_address
@click.argument("roles", nargs=-1, type=click.Choice(ROLES), metavar="[viewer|approver|operator|admin]...")
async def roles(context: Context, address: str, roles: Sequence[str]) -> None:
    """Set the roles of an account: exactly these, or none. All its sessions end."""
    async with _accounts(context, address, about=True) as accounts:
        done = await accounts.set_roles(await accounts.get(address), [Role(r) for r in roles], by=context.user)
        _print_account(context, done, f"is {', '.join(r.value for r in done.roles) or 'nothing'} now")


@command.command()
@an_address
async def disable(context: Context, address: str) -> None:
    """Disable an account. All its sessions end, and its tokens are not accepted."""
    async with _accounts(context, address, about=True) as accounts:
        _print_account(context, await accounts.disable(await accounts.get(address), by=context.user), "is disabled")


@command.command()
@an_address
async def enable(context: Context, address: str) -> None:
    """Enable an account again."""
    async with _accounts(context, address, about=True) as accounts:
        _print_account(context, await accounts.enable(await accounts.get(address), by=context.user), "is enabled")


@command.command()
@an_address
@click.option("--off", is_flag=True, help="Remove the second factor, for a person who has lost it.")
async def totp(context: Context, address: str, off: bool) -> None:
    """Give an account a second factor, and print its QR code and recovery codes, once."""
    async with _accounts(context, address) as accounts:
        account = await accounts.get(address)
        if off:
            _print_account(
                context, await accounts.drop_factor(account, by=context.user), "has no second factor any more"
            )
            return
        sealed = accounts.factors.new_secret()
        codes = await accounts.set_factor(account, sealed, by=context.user)
        uri = accounts.factors.uri(sealed, address=account.address, issuer="smtpguard")
        from smtpguard.console.people.credentials import qr_text

        row = {"address": account.address, "uri": uri, "recovery_codes": codes}
        shown = [
            f"Secret: {accounts.factors.unsealed(sealed)}",
            "Recovery codes; each works once:",
            *(f"  {code}" for code in codes),
        ]
        context.answer(row, [qr_text(uri), *shown])


@command.command()
@an_address
@click.option("--yes", is_flag=True, help="Do not ask.")
async def delete(context: Context, address: str, yes: bool) -> None:
    """Delete an account, with its sessions and tokens. The journal keeps what the person did; if the policy asks them to decide, they are
    still asked by mail."""
    if not yes and terminal():
        click.confirm(f"Delete the account of {address}?", abort=True, err=True)

    async with _accounts(context, address, about=True) as accounts:
        _print_account(
            context, await accounts.delete(await accounts.get(address), by=context.user), "has no account any more"
        )


@command.command()
@an_address
async def link(context: Context, address: str) -> None:
    """Move an account from a password to single sign-on, at the next single sign-on with this address. Password and second factor are
    removed now."""
    if (console := context.settings().console) is None or console.oidc is None:
        raise CannotRun("there is no single sign-on: console: {oidc: ...} in the settings")

    async with _accounts(context, address, about=True) as accounts:
        done = await accounts.to_single_sign_on(await accounts.get(address), by=context.user)
        _print_account(context, done, "signs in by single sign-on from now on")


@command.command("list")
async def list_(context: Context) -> None:
    """List the accounts."""
    async with _accounts(context, everybody=True) as accounts:
        rows = list(map(_row, await accounts.people.everybody()))
        table = [("ADDRESS", "ROLES", "SIGNS IN WITH", "STATE")]
        for row in rows:
            signs_in = f"{row['with']} + code" if row["second_factor"] else row["with"]
            state = "disabled" if row["disabled"] else "enabled"
            table.append((row["address"], ", ".join(row["roles"]) or "-", signs_in, state))
        context.answers(rows, in_columns(table) if rows else ["There are no accounts: smtpguard users add"])


@asynccontextmanager
async def _accounts(
    context: Context, address: str = "", *, about: bool = False, everybody: bool = False
) -> AsyncIterator[Accounts]:
    """Open what changes accounts. Afterwards report where this account, or with ``everybody`` any account, does not fit the policy's
    groups. ``about``: the change is one that may not fit them."""
    settings = context.settings()
    try:
        async with context.opened(reads=True) as (store, digester):
            clock = SystemClock()
            service = services.accounts(settings, store, clock, secret=installation_secret(settings), new_id=ids())
            yield service
            if not about and not everybody:
                return
            try:
                in_force = await Following(store, settings, digester, clock).follow()
            except StoreError:  # the guard has never served
                return
            for gap in in_force.unseated(await service.people.everybody()):
                if everybody or gap.address == service.canonical(address):
                    click.echo(f"smtpguard: {gap}", err=True)
    except NotPossible as refused:
        raise NotFine(str(refused)) from None
    except BadAddress as bad:
        raise CannotRun(f"{address}: {bad}") from None


def _password(file: Path | None) -> str:
    if file is not None:
        text = sys.stdin.readline() if str(file) == "-" else _first_line(file)
        if not text.strip("\r\n"):
            raise CannotRun(f"{file}: it contains no password")
        return text.rstrip("\r\n")
    if not terminal():
        raise CannotRun("no terminal to type a password at: --password-file FILE, or - for standard input")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise CannotRun("the two passwords are not the same")
    return first


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.readline(4096)
    except UnicodeDecodeError:
        raise CannotRun(f"{file}: is not UTF-8") from None


def _row(account: Account) -> dict[str, Any]:
    return {
        "address": account.address,
        "name": account.name,
        "roles": [role.value for role in account.roles],
        "with": "sso" if account.subject else "password" if account.password else "sso (not yet)",
        "second_factor": bool(account.totp),
        "disabled": account.disabled,
        "created_at": account.created_at,
    }


def _print_account(context: Context, account: Account, what: str) -> None:
    context.answer(_row(account), f"{account.address} {what}.")


tokens = Group(help="Tokens of the API: add, revoke, list.")


@tokens.command("add")
@click.argument("name")
@click.option("--as", "address", metavar="ADDRESS", required=True, help="The account that it acts as.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="May be repeated.")
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=90, show_default=True,
              help="The number of days for which it is valid.")  # fmt: skip
async def add_token(context: Context, name: str, address: str, scopes: Sequence[str], days: int) -> None:
    """Make a token and print it; it is not shown again. NAME says what it is for.

    All that it does is done and journalled as this account: its votes are that person's votes.
    """
    async with _tokens(context, address) as tokens:
        token, text = await tokens.add(
            address, name=name, scopes=[Scope(s) for s in scopes], good_for=timedelta(days=days), by=context.user
        )
        if context.json:
            context.print_json(_token_row(token, address) | {"token": text})
        else:
            click.echo(text)
            click.echo(f"Good until {token.expires_at:%Y-%m-%d}. It is not shown again.", err=True)


@tokens.command("revoke", json=None)
@click.argument("token_id", metavar="ID")
async def revoke_token(context: Context, token_id: str) -> None:
    """Revoke a token at once."""
    async with _tokens(context) as tokens:
        token = await tokens.revoke(token_id, by=context.user)
        click.echo(f"{token.token_id} ({token.name}) is revoked.")


@tokens.command("list")
async def list_tokens(context: Context) -> None:
    """List the tokens and their accounts."""
    async with _tokens(context) as tokens:
        found = await tokens.people.tokens()
        rows = [_token_row(token, account.address, tokens.state(token, account)) for token, account in found]
    table = [("ID", "NAME", "AS", "GOOD UNTIL", "STATE", "SCOPES")]
    for row in rows:
        until = f"{row['expires_at']:%Y-%m-%d}"
        table.append((row["id"], row["name"], row["as"], until, row["state"], ", ".join(row["scopes"])))
    context.answers(rows, in_columns(table) if rows else ["There are no tokens: smtpguard tokens add"])


@asynccontextmanager
async def _tokens(context: Context, address: str = "") -> AsyncIterator[Tokens]:
    settings, delimiters = context.settings(), context.settings().delimiters
    try:
        async with context.store(reads=True) as store:
            required = services.second_factor_for(settings)
            yield Tokens(store.people, SystemClock(), new_id=ids(), delimiters=delimiters, required=required)
    except NoToken as refused:
        raise NotFine(str(refused)) from None
    except BadAddress as bad:
        raise CannotRun(f"{address}: {bad}") from None


def _token_row(token: Token, address: str, state: str = "good") -> dict[str, Any]:
    return {
        "id": token.token_id,
        "name": token.name,
        "as": address,
        "scopes": [scope.value for scope in token.scopes],
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "state": state,
    }
