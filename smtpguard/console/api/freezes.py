"""API operations on freezes: list, freeze, lift."""

from __future__ import annotations

from datetime import timedelta

from smtpguard.accounts.model import Scope
from smtpguard.console.api.entry import Call, Operation, Refusal, error_at
from smtpguard.console.api.models import FreezeLifted, FreezeRow, Freezes, FreezeSet, SetFreeze
from smtpguard.freezes.service import UNCOUNTED, Hook, SecondPersonNeeded
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mailings.model import NoSuch
from smtpguard.policy.freezing import Selector


async def listed(call: Call) -> Freezes:
    return Freezes.model_validate({"items": await call.console.freezes.active()}, from_attributes=True)


async def freeze(call: Call) -> FreezeSet:
    """A repeated request makes another freeze: a caller in doubt repeats it, and that must not fail."""
    body: SetFreeze = call.body
    selector = Selector(body.selector)
    made = await call.console.freezes.freeze(
        selector,
        await _value(call, selector, body.value.strip()),
        reason=body.reason,
        by=call.holder.by,
        for_=timedelta(minutes=body.minutes) if body.minutes else None,
    )
    return FreezeSet(
        freeze=FreezeRow.model_validate(made.freeze, from_attributes=True),
        recalled=len(made.recalled),
        past_recall=len(made.past_recall),
        problems=_problems(made.hooks) + ([] if made.counted else [UNCOUNTED]),
    )


async def lift(call: Call) -> FreezeLifted:
    """If two people must agree, the first one's consent is recorded. Two programs of one person count as one person."""
    freeze_id = call.path["freeze_id"][:100]
    try:
        hooks = await call.console.freezes.thaw(
            freeze_id,
            by=call.holder.by,
            person=call.who.address,
            addresses_of=call.console.addresses_of,
        )
    except KeyError:
        raise Refusal(404, "There is no such freeze.") from None
    except SecondPersonNeeded:
        return FreezeLifted(id=freeze_id, lifted=False, problems=[])
    return FreezeLifted(id=freeze_id, lifted=True, problems=_problems(hooks))


async def _value(call: Call, selector: Selector, value: str) -> str:
    registry = call.console.in_force.registry
    if selector is Selector.ALL and value:
        raise error_at("body.value", "must be empty if the selector is all")
    if selector is not Selector.ALL and not value:
        raise error_at("body.value", f"is required: the {selector.value} to freeze")
    if selector is Selector.LIST and value not in registry.lists:
        raise error_at("body.value", "the policy has no list of this name")
    if selector is Selector.SENDER:
        try:
            return Address.parse(value).canonical(registry.digester.delimiters)
        except BadAddress:
            raise error_at("body.value", "no address") from None
    if selector is Selector.MAILING:
        try:
            return await call.console.mailings.named(value)
        except NoSuch:
            raise error_at("body.value", "there is no mailing of this id") from None
    return value


def _problems(hooks: tuple[Hook, ...]) -> list[str]:
    return [f"{hook.argv[0]}: {hook.problem}" for hook in hooks if hook.problem]


OPERATIONS = (
    Operation(method="GET", path="/freezes", name="listFreezes", summary="List the freezes in force",
              scope=Scope.FREEZES_READ, answers=Freezes, do=listed),
    Operation(method="POST", path="/freezes", name="freeze", summary="Freeze everything, a list, a sender, a mailing or a thread",
              scope=Scope.FREEZES_SET, body=SetFreeze, answers=FreezeSet, do=freeze),
    Operation(method="DELETE", path="/freezes/{freeze_id}", name="liftFreeze", summary="Lift a freeze",
              scope=Scope.FREEZES_LIFT, answers=FreezeLifted, do=lift, refuses=(404,)),
)  # fmt: skip
