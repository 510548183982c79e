"""API tokens: stored as hashes, limited to what their account may do, and invalid after they end."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.accounts.model import Account, Role, Scope
from smtpguard.console.api.tokens import NoToken, Tokens
from smtpguard.console.people.credentials import Factors
from tests.console.api.program import Program, program, tokens
from tests.console.holding import EVA, OMAR
from tests.console.stage import Stage, stage
from tests.every import every
from tests.guard.house import KEY

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


async def test_a_token_is_stored_as_a_hash(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    assert re.fullmatch(r"smtpguard_[0-9A-Z]{16}_[\w-]{43}", asks.token)
    secret = asks.token.split("_", 2)[2]  # the secret may contain the separator
    docs = await here.home.store.ask(lambda c: [str(row) for row in c.exec_driver_sql("SELECT * FROM token")])
    entries = await here.home.store.journal.entries()
    assert secret not in f"{docs}{entries}"


async def test_an_invalid_token_is_refused_without_details(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    right = asks.token
    altered = (f"{right[:-1]}x", right.replace("A0", "A1", 1), f"{right}x", "", "rubbish")
    for given in ("", "Bearer", "Basic dXNlcjp3b3Jk", *(f"Bearer {token}" for token in altered)):
        answer = await asks.http.get("/me", headers={"Authorization": given})
        assert answer.status_code == 401, given
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert EVA not in answer.text


async def test_a_revoked_token_is_refused_at_once(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    token_id = asks.token.split("_")[1]
    await tokens(here).revoke(token_id, by="root")
    assert (await asks("GET", "/me")).status_code == 401
    with pytest.raises(NoToken, match="already"):
        await tokens(here).revoke(token_id, by="root")
    with pytest.raises(NoToken, match="no token"):
        await tokens(here).revoke("NOSUCH", by="root")


async def test_tokens_of_a_disabled_account_are_refused(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    await here.accounts.disable(await here.accounts.get(EVA), by="root")
    assert (await asks("GET", "/me")).status_code == 401
    await here.accounts.enable(await here.accounts.get(EVA), by="root")
    assert (await asks("GET", "/me")).status_code == 200


async def test_a_token_cannot_exceed_its_account(here: Stage) -> None:
    await here.person(EVA, Role.VIEWER)
    month = timedelta(days=30)
    with pytest.raises(NoToken, match="has no role for: held:decide"):
        await tokens(here).add(EVA, name="x", scopes=[Scope.HELD_DECIDE], good_for=month, by="root")
    with pytest.raises(NoToken, match="no account"):
        await tokens(here).add(OMAR, name="x", scopes=[Scope.HELD_READ], good_for=month, by="root")


async def test_a_token_is_refused_until_a_required_second_factor_is_set(tmp_path: Path) -> None:
    """A token is refused until its account has the second factor that a role requires. An account with single sign-on
    alone is asked by its provider."""
    async with stage(tmp_path) as here:
        asks = await program(here, EVA, Role.VIEWER)
        other = await program(here, OMAR, Role.APPROVER, Role.VIEWER)
    wanted = "{url: 'https://guard.example.com', second_factor: {required_for: [approver]}}"
    async with stage(tmp_path, console=wanted) as here:
        again, asks = (Program(here, one.token) for one in (other, asks))
        assert (await asks("GET", "/me")).status_code == 200
        refused = await again("GET", "/me")
        assert (refused.status_code, "sign in at the console and set one up" in refused.text) == (403, True)
        theirs = Tokens(here.home.store.people, here.home.clock, new_id=lambda: next(here.ids),
                        required=frozenset({Role.APPROVER}))  # fmt: skip
        with pytest.raises(NoToken, match="asks for a second factor, and it has none"):
            await theirs.add(OMAR, name="x", scopes=[Scope.HELD_READ], good_for=timedelta(days=1), by="root")
        assert sorted(theirs.state(*each) for each in await theirs.people.tokens()) == ["good", "no-second-factor"]
        account = await here.accounts.get(OMAR)
        await here.accounts.set_factor(account, Factors(KEY).new_secret(), by="root")
        assert (await again("GET", "/me")).status_code == 200


@every(
    ("more", "lacks"),
    [
        ({"password": "hash"}, True),
        ({}, True),
        ({"password": "hash", "subject": "them"}, True),
        ({"subject": "them"}, False),
        ({"password": "hash", "totp": "sealed"}, False),
        ({"password": "hash", "roles": (Role.VIEWER,)}, False),
    ],
)
def test_a_missing_second_factor_is_detected(more: dict[str, Any], lacks: bool) -> None:
    account = Account(account_id="A", address=EVA, created_at=NOW, **{"roles": (Role.APPROVER,), **more})
    assert account.lacks_factor(frozenset({Role.APPROVER, Role.ADMIN})) is lacks
    assert not account.lacks_factor(frozenset())


async def test_a_browser_session_is_refused(here: Stage) -> None:
    """A browser's session is not accepted, since a form of another site could use it."""
    browser = await here.signed_in(EVA, *Role)
    assert (await browser.http.get("/api/v1/me")).status_code == 401
    assert (await browser.http.post("/api/v1/freezes", json={"selector": "all", "reason": "x"})).status_code == 401
