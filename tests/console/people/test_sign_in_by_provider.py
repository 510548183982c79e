"""Accounts and roles of people who sign in by single sign-on: created, updated and kept apart by the provider's claims.
The checks of its tokens are in test_oidc."""

from __future__ import annotations

from smtpguard.accounts.model import Role
from tests.console.holding import EVA, OMAR, text
from tests.console.people.signon import SignOn
from tests.guard.house import DOCUMENTS


async def test_a_person_known_to_the_provider_signs_in(sso: SignOn) -> None:
    browser = sso.stage.browser()
    answer = await sso.signs_on(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/me")
    assert EVA in (await browser.get("/me")).text
    account = await sso.eva()
    assert (account.roles, account.name, account.password) == ((Role.APPROVER,), "Eva", "")
    assert account.subject == f"{sso.at.issuer} u-17"
    assert (await sso.stage.kinds("account"))[0]["change"] == "added"
    assert (await sso.stage.kinds("signed-in")) == [{"how": "sso", "second_factor": False}]


async def test_the_sign_in_page_offers_the_provider(sso: SignOn) -> None:
    text = (await sso.stage.browser().get("/login?next=/held")).text
    assert 'href="/login/sso?next=/held"' in text
    assert "Example ID" in text


async def test_roles_follow_groups_at_every_sign_on(sso: SignOn) -> None:
    first = sso.stage.browser()
    await sso.signs_on(first)
    sso.at.claims = {"groups": ["bosses", "guards", "others"]}
    await sso.signs_on()
    assert (await sso.eva()).roles == (Role.APPROVER, Role.OPERATOR, Role.ADMIN)
    assert (await first.get("/me")).status_code == 303  # with other roles, people sign in again
    sso.at.claims = {"groups": "guards"}
    await sso.signs_on()
    assert (await sso.eva()).roles == (Role.APPROVER,)


async def test_unchanged_groups_end_no_session(sso: SignOn) -> None:
    first = sso.stage.browser()
    await sso.signs_on(first)
    await sso.signs_on()
    assert (await first.get("/me")).status_code == 200


async def test_the_subject_identifies_an_account_and_the_address_may_change(sso: SignOn) -> None:
    await sso.signs_on()
    sso.at.claims = {"email": "eva.berg@example.com"}
    await sso.signs_on()
    assert (await sso.stage.accounts.get("eva.berg@example.com")).subject == f"{sso.at.issuer} u-17"
    made = [event for event in await sso.stage.events() if event.data.get("change") == "address"]
    assert [event.private["account"] for event in made] == [("eva.berg@example.com", EVA)]


async def test_a_prepared_account_is_bound_at_first_sign_on(sso: SignOn) -> None:
    await sso.stage.accounts.add(EVA, roles=[Role.VIEWER], by="root")
    assert (await sso.stage.browser().sign_in(EVA, "")).status_code == 401
    assert (await sso.signs_on()).status_code == 303
    assert (await sso.eva()).roles == (Role.APPROVER,)
    assert len(await sso.stage.accounts.people.everybody()) == 1


async def test_an_account_with_a_password_is_not_taken_over(sso: SignOn) -> None:
    await sso.stage.person(EVA, Role.ADMIN)
    answer = await sso.signs_on()
    assert (answer.status_code, "Single sign-on did not sign you in." in text(answer)) == (401, True)
    assert (await sso.eva()).subject == ""
    assert (await sso.stage.kinds("sign-in-refused"))[-1]["why"] == "the address is another account's"


async def test_another_subject_with_the_same_address_is_refused(sso: SignOn) -> None:
    await sso.signs_on()
    sso.at.claims = {"sub": "u-18"}
    assert (await sso.signs_on()).status_code == 401


async def test_a_disabled_account_is_refused(sso: SignOn) -> None:
    await sso.signs_on()
    await sso.stage.accounts.disable(await sso.eva(), by="root")
    assert (await sso.signs_on()).status_code == 401
    assert (await sso.stage.kinds("sign-in-refused"))[-1]["why"] == "disabled"


async def test_a_claim_may_make_a_person_an_approver(sso: SignOn) -> None:
    """A claim of the last sign-in puts a person in a group, for less than 30 days, if the policy names that claim."""
    home = sso.stage.home
    claims = b"[eva@example.com, omar@example.com]", b"{addresses: [omar@example.com], claim: deciders}"
    await home.put({**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(*claims)})
    await home.follow()
    await sso.signs_on()
    assert (await home.follow()).groups.of("communications") == {OMAR}
    sso.at.claims = {"groups": ["guards", "deciders", "others"]}
    await sso.signs_on()
    assert (await sso.eva()).claims == ("deciders",)
    assert (await home.follow()).groups.of("communications") == {EVA, OMAR}
    moved = (await home.store.gate.read()).generation
    await sso.signs_on()
    assert (await home.store.gate.read()).generation == moved, "unchanged groups change nothing"
    home.clock.pass_(days=30)
    assert (await home.follow()).groups.of("communications") == {OMAR}, "that was too long ago"
    await sso.signs_on()
    assert (await home.follow()).groups.of("communications") == {EVA, OMAR}
    await sso.stage.accounts.disable(await sso.eva(), by="root")
    assert (await home.follow()).groups.of("communications") == {OMAR}
    assert [event["groups"] for event in await sso.stage.kinds("group")] == [["deciders"], ["deciders"], []]
    assert (await home.store.journal.verify()).ok


async def test_a_person_without_a_role_at_the_provider_loses_what_they_had(sso: SignOn) -> None:
    """Their sign-on is refused, and their roles, groups, sessions and tokens end with it."""
    home, provider = sso.stage.home, sso.at
    claims = b"[eva@example.com, omar@example.com]", b"{addresses: [omar@example.com], claim: deciders}"
    await home.put({**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(*claims)})
    await home.follow()
    provider.claims = {"groups": ["guards", "deciders"]}
    await sso.signs_on(first := sso.stage.browser())
    assert EVA in (await home.follow()).groups.of("communications")
    hold = await home.held()
    await home.approve(hold.hold_id, EVA)
    provider.claims = {"groups": ["others"]}
    assert (await sso.signs_on()).status_code == 401
    account = await sso.eva()
    assert (account.roles, account.claims, account.subject != "") == ((), (), True)
    assert (await first.get("/held")).status_code == 303, "the session has ended"
    assert EVA not in (await home.follow()).groups.of("communications")
    assert (await home.approve(hold.hold_id, "dpo@example.com")).missing, "the vote counts no more"
    assert (await sso.stage.kinds("account"))[-1] == {"change": "roles", "roles": [], "before": ["approver"]}
    assert (await sso.stage.kinds("sign-in-refused"))[-1]["why"] == "no group of theirs gives a role"
    provider.claims = {"groups": ["guards", "deciders"]}
    assert (await sso.signs_on()).status_code == 303
    assert (await sso.eva()).roles == (Role.APPROVER,)


async def test_a_prepared_account_is_not_bound_without_a_role(sso: SignOn) -> None:
    await sso.stage.accounts.add(EVA, roles=[Role.VIEWER], by="root")
    sso.at.claims = {"groups": ["others"]}
    assert (await sso.signs_on()).status_code == 401
    assert ((await sso.eva()).roles, (await sso.eva()).subject) == ((Role.VIEWER,), "")


async def test_a_refused_person_keeps_no_role_that_the_provider_gives_no_more(sso: SignOn) -> None:
    """Nor gets one, while their new address is another account's."""
    sso.at.claims = {"groups": ["bosses", "guards"]}
    await sso.signs_on(first := sso.stage.browser())
    await sso.stage.accounts.add(OMAR, roles=[Role.VIEWER], password="correct horse battery", by="root")
    sso.at.claims = {"email": OMAR, "groups": ["guards"]}
    assert (await sso.signs_on()).status_code == 401
    assert ((await sso.eva()).roles, (await first.get("/me")).status_code) == ((Role.APPROVER,), 303)
    sso.at.claims = {"email": OMAR, "groups": ["bosses", "guards"]}
    assert (await sso.signs_on()).status_code == 401
    assert (await sso.eva()).roles == (Role.APPROVER,)
