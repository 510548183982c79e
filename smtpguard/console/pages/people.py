"""The People page: admins create and change accounts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Account, Role
from smtpguard.console import labels
from smtpguard.console.people.credentials import NotPossible
from smtpguard.console.rendering import form, page, see_other, services_of, speech, text_of
from smtpguard.console.services import Routes, person
from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.mail.address import BadAddress

CHANGES = ("roles", "disable", "enable", "password", "factor-off", "delete", "sso")
"""The changes of an account, by their names in the URL."""
_LETTERS = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKMNPQRSTUVWXYZ23456789"

ROUTES = Routes()


def new_password() -> str:
    """Return a first password, which the owner then changes. It has 95 bits, and no ambiguous letters."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))


@ROUTES.post("/people", Role.ADMIN)
async def add(request: Request) -> Response:
    sent = form(request)
    address, sso = text_of(sent, "address"), sent.get("sso") == "yes"
    password = "" if sso else new_password()
    try:
        made = await services_of(request).accounts.add(
            address, roles=_chosen(request), password=password, name=text_of(sent, "name", 200),
            by=person(request).address,
        )  # fmt: skip
    except BadAddress:
        return await people_page(request, 400, wrong={"address": speech(request)(N_("Not an address."))})
    except NotPossible as why:
        return await people_page(request, 409, wrong={"address": speech(request).say(why.why)})
    return await _answer(request, made, password)


async def change(change: str, request: Request) -> Response:
    everybody = await services_of(request).accounts.people.everybody()
    account = next((a for a in everybody if a.account_id == request.path_params["account_id"]), None)
    if account is None:
        raise HTTPException(404)
    try:
        password = await _change_account(change, account, request)
    except NotPossible as why:
        return await people_page(request, 409, problem=why.why)
    return await _answer(request, account, password)


for _change in CHANGES:
    ROUTES.post(f"/people/{{account_id}}/{_change}", Role.ADMIN)(partial(change, _change))


async def _answer(request: Request, account: Account, password: str) -> Response:
    """Show a generated password; else redirect, as after any change."""
    if password:
        return await people_page(request, made=account, password=password)
    return see_other("/people", done="done")


async def _change_account(change: str, account: Account, request: Request) -> str:
    """Return the password that was generated for the account, "" if none was. Raises NotPossible."""
    here, by, roles = services_of(request), person(request).address, _chosen(request)
    accounts = here.accounts
    own = account.address == by
    match change:
        case "roles":
            if own and Role.ADMIN not in roles:
                raise NotPossible(Phrase("You cannot take the admin's role from yourself: another admin must do it."))
            await accounts.set_roles(account, roles, by=by)
        case "disable":
            if own:
                raise NotPossible(Phrase("You cannot disable your own account: another admin must do it."))
            await accounts.disable(account, by=by)
        case "enable":
            await accounts.enable(account, by=by)
        case "password":
            password = new_password()
            await accounts.set_password(account, password, by=by)
            return password
        case "factor-off":
            await accounts.drop_factor(account, by=by)
        case "delete":
            if own:
                raise NotPossible(Phrase("You cannot delete your own account: another admin must do it."))
            if form(request).get("sure") != "yes":
                raise NotPossible(Phrase("Confirm it: a deleted account cannot be restored."))
            await accounts.delete(account, by=by)
        case "sso":
            if here.provider is None:
                raise NotPossible(Phrase("There is no single sign-on here."))
            await accounts.to_single_sign_on(account, by=by)
    return ""


@ROUTES.get("/people", Role.ADMIN)
async def people_page(
    request: Request, status: int = 200, *, problem: Said = "",
    made: Account | None = None, password: str = "", wrong: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    here = services_of(request)
    everybody = await here.accounts.people.everybody()
    gaps = [(labels.GAPS[each.gap.value], each) for each in here.in_force.unseated(everybody)]
    return await page(
        request, "people.html", status, everybody=everybody, roles=list(Role), sso=here.provider is not None, gaps=gaps,
        problem=problem, wrong=wrong, made=made, password=password, mine=person(request).address,
    )  # fmt: skip


def _chosen(request: Request) -> list[Role]:
    wanted = form(request).getlist("roles")
    return [role for role in Role if role.value in wanted]
