"""API operations that look things up: the caller's account, lists, the policy in force, and verification of the
journal."""

from __future__ import annotations

import asyncio

from smtpguard.accounts.model import Scope
from smtpguard.console.api.entry import Call, Operation
from smtpguard.console.api.models import ListRow, Lists, Me, PolicyRule, PolicyShown, Verified
from smtpguard.console.api.problems import Refusal
from smtpguard.console.incidentrow import proof_row


async def me(call: Call) -> Me:
    holder = call.holder
    return Me(
        address=holder.account.address,
        name=holder.account.name,
        roles=[role.value for role in holder.account.roles],
        token=holder.token.token_id,
        scopes=[scope.value for scope in holder.token.scopes if holder.may(scope)],
        expires_at=holder.token.expires_at,
    )


async def lists(call: Call) -> Lists:
    registry = call.desk.policies.current().registry
    await asyncio.to_thread(registry.reopen)
    rows = []
    for name, info in registry.lists.items():
        standing = registry.standings[name]
        rows.append(
            ListRow(
                name=name,
                title=info.title or name,
                audience=info.audience,
                sensitivity=info.sensitivity,
                category=info.category,
                people=standing.index.people if standing.index else None,
                checked_at=standing.checked_at,
                state=standing.state.value,
                problem=standing.why or None,
            )
        )
    return Lists(items=rows)


async def policy(call: Call) -> PolicyShown:
    in_force = call.desk.policies.current()
    return PolicyShown(
        sha256=in_force.policy_sha256,
        enforce=in_force.enforce,
        rules=[
            PolicyRule(
                id=rule.rule_id, action=rule.then.name.lower(), mode=rule.mode.value, description=rule.description
            )
            for rule in in_force.rules.rules
        ],
        groups={name: len(people) for name, people in in_force.groups.items()},
    )


async def verify(call: Call) -> Verified:
    """Walks the whole journal: one at a time, since it may take a while."""
    running = call.services.verifying
    if running.locked():
        raise Refusal(409, "The journal is being verified already: ask again later.")
    async with running:
        proof = await call.services.verify()
    return Verified.model_validate(proof_row(proof))


OPERATIONS = (
    Operation(method="GET", path="/me", name="showMe", summary="Show the token's account and scopes",
              scope=None, answers=Me, do=me),
    Operation(method="GET", path="/lists", name="showLists", summary="List the customer lists with the number of people and the age of each index",
              scope=Scope.LISTS_READ, answers=Lists, do=lists),
    Operation(method="GET", path="/policy", name="showPolicy", summary="Show the rules in force",
              scope=Scope.POLICY_READ, answers=PolicyShown, do=policy),
    Operation(method="GET", path="/audit/verify", name="verifyJournal", summary="Verify that no journal entry was edited, removed or inserted",
              scope=Scope.AUDIT_READ, answers=Verified, do=verify, refuses=(409,)),
)  # fmt: skip
