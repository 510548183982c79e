"""The policy for staff: with any account, and without one where the settings allow it."""

from __future__ import annotations

from pathlib import Path

from smtpguard.accounts.model import Role
from tests.console.holding import ANNA, text
from tests.console.stage import Stage, stage


async def test_the_guide_names_writers_and_current_approvers(here: Stage) -> None:
    anna = await here.signed_in(ANNA)
    said = text(await anna.get("/guide"))
    ramadan = said[said.index("Ramadan greetings") :]
    assert "It is working time now." in said
    assert "Who decides now 1 person of communications" in ramadan
    assert "Out of hours 1 person of duty" in ramadan
    assert "How to have a mailing approved beforehand Send it to ok+ramadan@guard.example.com." in ramadan
    assert "Mail between colleagues never goes to a customer list. Otherwise it is held." in said
    here.home.clock.pass_(hours=13)
    anna = here.browser()
    await anna.sign_in(ANNA)
    later = text(await anna.get("/guide"))
    assert "It is out of working hours now." in later
    assert "Who decides now 1 person of duty" in later[later.index("Ramadan greetings") :]


async def test_a_rule_without_a_purpose_is_described_by_its_conditions(here: Stage) -> None:
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    assert "A message is held if " in text(await vera.get("/guide"))
    assert "Ett meddelande hålls kvar om " in text(await vera.get("/guide", **{"Accept-Language": "sv"}))


async def test_without_an_account_only_if_the_settings_allow_it(here: Stage, tmp_path: Path) -> None:
    answer = await here.browser().get("/guide")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/guide")
    (tmp_path / "open").mkdir()
    async with stage(tmp_path / "open", console="{url: 'https://guard.example.com', guide: open}") as there:
        answer = await there.browser().get("/guide")
        assert answer.status_code == 200
        assert "Who decides now" in text(answer)
        assert (await there.browser().get("/policy")).status_code == 303
