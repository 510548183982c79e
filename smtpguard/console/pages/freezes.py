"""The Freezes page: freeze everything, a list, a sender or a mailing, with a reason; list active freezes, and thaw
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.console.pages.message import done
from smtpguard.console.rendering import UNKNOWN, form, number, page, see_other, services_of, speech, text_of
from smtpguard.console.services import ACTING, ConsoleServices, Routes, person
from smtpguard.database.errors import CommitUnknown, StoreError
from smtpguard.freezes.service import Frozen, Hook, SecondPersonNeeded
from smtpguard.locale.speech import Speech
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mailings.model import NoSuch
from smtpguard.policy.freezing import Freeze, Selector

_HOURS = ("1", "4", "12", "24")

ROUTES = Routes()


@ROUTES.post("/freeze", *ACTING)
async def freeze(request: Request) -> Response:
    here, who, said = services_of(request), person(request), speech(request)
    sent = form(request)
    reason = text_of(sent, "reason", 500)
    try:
        selector = Selector(text_of(sent, "selector"))
    except ValueError:
        return await _shown(request, 422, wrong={"selector": said("Choose what to stop.")})
    value = text_of(sent, selector.value, 500) if selector is not Selector.ALL else ""
    wrong: dict[str, str] = {}
    if selector is Selector.SENDER:
        try:
            value = Address.parse(value).canonical(here.settings.delimiters)
        except BadAddress:
            wrong["sender"] = said("Not an address: {address}", address=value)
    elif (selector is Selector.LIST and value not in here.lists) or (selector is not Selector.ALL and not value):
        wrong[selector.value] = said("Choose what to stop.")
    if not reason:
        wrong["reason"] = said("Give a reason: everyone who sees the banner reads it.")
    if wrong:
        return await _shown(request, 422, wrong=wrong)
    hours = text_of(sent, "hours")
    length = timedelta(hours=int(hours)) if hours in _HOURS else None
    try:
        if selector is Selector.MAILING:
            value = await here.mailings.named(value)
        frozen = await here.freezes.freeze(selector, value, reason=reason, by=who.address, for_=length)
    except NoSuch:
        return await _shown(request, 422, wrong={"mailing": said("There is no mailing with this reference.")})
    except CommitUnknown:
        problem = said(
            "It is not known whether it is frozen: the database was lost meanwhile. Stop the mail server itself."
        )
        return await _shown(request, 503, problem)
    except StoreError:
        return await _shown(
            request, 503, said("NOTHING IS FROZEN: the record cannot be written. Stop the mail server itself.")
        )
    return await _shown(request, frozen=frozen)


@ROUTES.get("/thaw/{freeze_id}", *ACTING)
async def _asking(request: Request, status: int = 200, problem: str = "") -> Response:
    """Show what the thaw would release, before it is done."""
    here, said = services_of(request), speech(request)
    freeze = await _named(request)
    if freeze is None:
        return await _shown(request, 409, said("It is already lifted."))
    two = here.freezes.thaw_two
    return await page(
        request,
        "thaw.html",
        status,
        freeze=freeze,
        goes=await here.freezes.released_by([freeze]),
        only_asks=two
        and await here.freezes.asked_to_thaw(freeze.freeze_id) in ("", *here.addresses_of(person(request).address)),
        problem=problem,
    )


async def _named(request: Request) -> Freeze | None:
    wanted = request.path_params["freeze_id"][:100]
    return next((f for f in await services_of(request).freezes.active() if f.freeze_id == wanted), None)


@ROUTES.post("/thaw/{freeze_id}", *ACTING)
async def thaw(request: Request) -> Response:
    """Needs a look at what it releases; if that would be more by now, the person looks again."""
    here, who, said = services_of(request), person(request), speech(request)
    if (freeze := await _named(request)) is not None:
        seen = number(form(request), "messages")
        if seen is None:
            return await _asking(request, 422)
        if (await here.freezes.released_by([freeze])).messages > seen:
            return await _asking(
                request, 409, said("More messages would be sent now than when you looked. Look again.")
            )
    try:
        hooks = await here.freezes.thaw(
            request.path_params["freeze_id"][:100], by=who.address, addresses_of=here.addresses_of
        )
    except SecondPersonNeeded:
        return see_other("/still", done="thaw-asked")
    except KeyError:
        return await _shown(request, 409, said("It is already lifted."))
    except CommitUnknown:
        return await _shown(request, 503, said(UNKNOWN))
    except StoreError:
        return await _shown(request, 503, said("It is frozen still: the record cannot be written at the moment."))
    if any(hook.problem for hook in hooks):
        return await _shown(
            request,
            200,
            said("It is lifted, but a command after the thaw failed: {what}", what="; ".join(_in_words(hooks, said))),
        )
    return see_other("/still", done="thawed")


@ROUTES.get("/still", *Role)
async def _shown(
    request: Request,
    status: int = 200,
    problem: str = "",
    frozen: Frozen | None = None,
    *,
    wrong: Mapping[str, str] | None = None,
) -> Response:
    here, said = services_of(request), speech(request)
    chosen = request.query_params
    return await page(
        request,
        "still.html",
        status,
        problem=problem or (said("Nothing is frozen: see below what is missing.") if wrong else ""),
        wrong=wrong,
        just=frozen,
        failures=_in_words(frozen.hooks, said) if frozen else [],
        lists=here.choices,
        chosen={name: chosen.get(name, "")[:500] for name in ("selector", "list", "sender", "mailing")},
        done=done(request),
        two=here.freezes.thaw_two,
        asked_for=await _asked_for(here) if here.freezes.thaw_two else {},
    )


def _in_words(hooks: Sequence[Hook], said: Speech) -> list[str]:
    """The hooks that failed, with their own messages."""
    return [
        f"{hook.argv[0]}: {said.say(hook.failed)}" + (f": {hook.said}" if hook.said else "")
        for hook in hooks
        if hook.failed is not None
    ]


async def _asked_for(here: ConsoleServices) -> dict[str, str]:
    """By freeze, who has already asked to thaw it."""
    return {f.freeze_id: await here.freezes.asked_to_thaw(f.freeze_id) for f in await here.freezes.active()}
