"""The policy as a guide for staff, in each language."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from click.testing import CliRunner

from smtpguard.accounts.model import Role
from smtpguard.app.files import parse_policy
from smtpguard.cli import main
from smtpguard.config.documents import policy_documents
from smtpguard.config.durations import Span
from smtpguard.config.settings import read_settings
from smtpguard.console.rulewords import guide
from smtpguard.locale import languages
from smtpguard.policy.parse import parse
from tests.console.holding import ANNA, text
from tests.console.stage import Stage, stage
from tests.every import every
from tests.guard.house import DOCUMENTS, POLICY

SAMPLE = Path(__file__).parents[2] / "config" / "smtpguard.yaml"
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def made(language: str, *, working: bool = True, approve_at: str = "approve@guard.example.com") -> str:
    settings = read_settings(SAMPLE)
    policy = parse_policy(settings, policy_documents(settings.policy))
    waits = Span(24 * 3600, working=working)
    page = guide(policy, language, NOW, approve_at=approve_at, waits=waits)
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S).split())


def test_it_names_writers_and_approvers() -> None:
    said = made("en")
    ramadan = said[said.index("Ramadan greetings") :]
    for words in (
        "Address ramadan@lists.example.com",
        "Sensitive religion: special category",
        "Who may write campaigns@example.com",
        "From where signed (DKIM) by campaigns.example.com",
        "What to avoid alcohol, pork",
        "Who decides 1 person of communications (eva@example.com, omar@example.com); 1 person of compliance",
        "Out of hours 1 person of duty (duty-manager@example.com)",
        "Send it to approve+ramadan-greetings@guard.example.com.",
        "within 24 hours of working time",
    ):
        assert words in ramadan
    assert "Mail between colleagues never goes to a customer list. Otherwise it is held." in said


def test_it_names_absences_within_a_month_and_deputies() -> None:
    settings = read_settings(SAMPLE)
    documents = policy_documents(settings.policy)
    people = b"""
people:
  eva: {away: [2026-02-20..2026-03-01, 2026-03-30..2026-04-10, 2026-07-01..2026-07-31], deputy: omar}
  omar: {away: 2026-03-05}
"""
    policy = parse_policy(settings, {**documents, "policy.yaml": documents["policy.yaml"] + people})
    page = guide(policy, "en", NOW, waits=Span(24 * 3600, working=True))
    said = " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S).split())
    assert (
        "Away omar@example.com is away 5 March; eva@example.com is away 30 March to 10 April: "
        "omar@example.com decides for them"
    ) in said
    assert "Jul" not in said
    assert "1 Mar" not in said


def test_absent_features_are_not_mentioned() -> None:
    said = made("en", working=False, approve_at="")
    assert "beforehand" not in said[: said.index("The rules")]
    assert "within 24 hours, it is not sent" in said
    assert "hundreds of customers in an hour" not in said, "a rule that only observes stops nothing"


@every("language", sorted(languages()))
def test_it_is_one_self_contained_page_in_every_language(language: str) -> None:
    settings = read_settings(SAMPLE)
    policy = parse_policy(settings, policy_documents(settings.policy))
    page = guide(policy, language, NOW, waits=Span(24 * 3600, working=True))
    assert f'<html lang="{language}">' in page
    assert not re.search(r"<(script|img|link|a|iframe)\b|https?:|url\(", page), "the page loads nothing"


def test_text_of_the_policy_is_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "smtpguard.yaml").write_text("policy: policy.yaml\n")
    (folder / "policy.yaml").write_text(
        "version: 1\norganization: {domains: [example.com]}\ngroups: {a: [eva@example.com]}\napprovals: {from: [a]}\n"
        'lists: {news: {title: "<b>News</b>", addresses: [news@lists.example.com]}}\n'
        "rules: [{id: one, when: {recipients.list_addresses: any}, then: hold}]\n"
    )
    said = CliRunner().invoke(main, ["-c", str(folder / "smtpguard.yaml"), "policy", "guide"])
    assert said.exit_code == 0, said.output
    assert "&lt;b&gt;News&lt;/b&gt;" in said.stdout
    assert "<b>News" not in said.stdout


def test_the_language_defaults_to_the_organizations(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert '<html lang="sv">' in run(main, ["-c", str(SAMPLE), "policy", "guide"]).stdout
    assert '<html lang="en">' in run(main, ["-c", str(SAMPLE), "policy", "guide", "--language", "en"]).stdout
    wrong = run(main, ["-c", str(SAMPLE), "policy", "guide", "--language", "xx"])
    assert wrong.exit_code == 2
    assert "--language: xx is not a language of smtpguard: en, sv" in wrong.stderr


def test_it_names_what_stops_a_mailing_in_progress() -> None:
    breakers = 'breakers: {complaints: ">= 0.1% after 500", replies: ">= 20 in 10m"}\n'
    of_a_list = POLICY.replace("  news:\n", '  news:\n    breakers: {replies: ">= 7 in 10m"}\n')
    policy = parse({**DOCUMENTS, "policy.yaml": f"{of_a_list}{breakers}".encode()})
    page = guide(policy, "sv", NOW, waits=Span(24 * 3600, working=True))
    assert page.count("klagar") == 1
    assert "vid utskick till News: 7 personer svarar inom 10 minuter" in page
    assert "0,1 % av dem som har fått det klagar, när 500 personer har fått det" in page
    assert "20 personer svarar inom 10 minuter" in page


async def test_the_guide_names_writers_and_current_approvers(here: Stage) -> None:
    anna = await here.signed_in(ANNA)
    said = text(await anna.get("/guide"))
    ramadan = said[said.index("Ramadan greetings") :]
    assert "It is working time now." in said
    assert "Who decides now 1 person of communications" in ramadan
    assert "Out of hours 1 person of duty" in ramadan
    assert "Who decides 1 person of communications" in said[: said.index("Ramadan greetings")]  # the same at any hour
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
