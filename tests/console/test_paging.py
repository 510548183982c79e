"""Lists of several pages: each item is on exactly one page, and hidden items are on none."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.accounts.model import Role
from smtpguard.console import filters
from smtpguard.console.filters import cursor, parse_cursor
from smtpguard.console.pages import holds, mailings
from smtpguard.lists.index import index_path
from tests.console.api.program import program
from tests.console.holding import ANNA, DPO, EVA, NEWS, held, several, subjects, text
from tests.console.stage import Browser, Stage
from tests.every import every
from tests.guard.house import DOCUMENTS, RAMADAN

OLDER = re.compile(r'href="([^"]+)">Older<')


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the page size to two."""
    for room in (holds, mailings):
        monkeypatch.setattr(room, "PAGE", 2)


async def pages(browser: Browser, path: str) -> list[list[str]]:
    """The subjects of each page, following the links to older ones."""
    found = []
    while path:
        page = (await browser.get(path)).text
        found.append(subjects(page))
        older = OLDER.search(page)
        path = older[1].replace("&amp;", "&") if older else ""
        assert len(found) < 20
    return found


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2999, 1, 1)), st.text("ABC-123", min_size=1))
def test_a_cursor_reads_back(naive: datetime, id: str) -> None:
    at = naive.replace(tzinfo=UTC)
    assert parse_cursor(cursor(at, id)) == (at, id)


@every("given", ["", "-", "1-", "-A", "x-A", "1" * 18 + "-A", "\u0661-A"])
def test_an_invalid_cursor_is_none(given: str) -> None:
    assert parse_cursor(given) is None


@pytest.mark.usefixtures("short")
async def test_every_mailing_is_on_one_page(here: Stage) -> None:
    await several(here, 5)
    eva = await here.signed_in(EVA, Role.APPROVER, Role.VIEWER)
    assert await pages(eva, "/mailings") == [["SV: word4", "SV: word3"], ["SV: word2", "SV: word1"], ["SV: word0"]]
    assert await pages(eva, "/mailings?after=rubbish") == await pages(eva, "/mailings")


async def test_a_mailing_to_no_list_names_none(here: Stage) -> None:
    """Any recipient may be on a list without an index."""
    index_path(here.home.folder, "news").unlink()
    here.home.in_force = here.home.build(DOCUMENTS)
    await held(here, *(f"{n}@partner.example.net" for n in range(30)))
    await held(here, NEWS, Message_ID="<2@x>", Subject="Another", body="Another text altogether")
    ola = await here.signed_in("ola@example.com", Role.OPERATOR)
    for path in ("/mailings", "/incident"):
        said = text(await ola.get(path))
        assert said.count("anna@example.com") == 2, said
        assert said.count("anna@example.com to ") == 1, said


@pytest.mark.usefixtures("short")
async def test_visible_mailings_are_found_behind_invisible_ones(here: Stage) -> None:
    await several(here, 3, RAMADAN)
    await several(here, 4, NEWS, first=3)
    dpo = await here.signed_in(DPO, Role.APPROVER)
    assert await pages(dpo, "/mailings") == [["SV: word2", "SV: word1"], ["SV: word0"]]


@pytest.mark.usefixtures("short")
async def test_a_page_cut_short_links_to_the_next(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_READS", 1)
    await several(here, 1, RAMADAN)
    await several(here, 7, NEWS, first=1)
    dpo = await here.signed_in(DPO, Role.APPROVER)
    first = await dpo.get("/mailings")
    assert "Nothing yet." not in text(first)
    assert await pages(dpo, "/mailings") == [[], [], ["SV: word0"]]


async def test_the_api_pages_through_mailings(here: Stage) -> None:
    await several(here, 5)
    asks = await program(here, EVA, Role.APPROVER)
    found: list[str] = []
    further: str | None = ""
    while further is not None:
        page = (await asks("GET", "/mailings", limit=2, cursor=further)).json()
        found += [row["subject"] for row in page["items"]]
        further = page["next"]
    assert found == [f"SV: word{n}" for n in (4, 3, 2, 1, 0)]
    wrong = await asks("GET", "/mailings", cursor="rubbish")
    assert (wrong.status_code, wrong.json()["errors"][0]["at"]) == (422, "query.cursor")


@pytest.mark.usefixtures("short")
async def test_a_writer_reaches_their_oldest_message(here: Stage) -> None:
    await several(here, 3)
    anna = await here.signed_in(ANNA)
    assert await pages(anna, "/mine") == [["SV: word2", "SV: word1"], ["SV: word0"]]


@pytest.mark.usefixtures("short")
async def test_old_freezes_are_reached(here: Stage) -> None:
    eva = await here.signed_in(EVA, Role.OPERATOR)
    await eva.get("/still")
    for n in range(3):
        here.home.clock.pass_(seconds=1)
        await eva.post("/freeze", selector="all", reason=f"reason {n}")
    said = []
    path = "/history/freezes"
    while path:
        answer = await eva.get(path)
        said.append(re.findall(r"<q>(reason \d)", answer.text))
        older = OLDER.search(answer.text)
        path = older[1] if older else ""
    assert said == [["reason 2", "reason 1"], ["reason 0"]]
    for after in ("rubbish", "9" * 20):
        answer = await eva.get(f"/history/freezes?after={after}")
        assert (answer.status_code, re.findall(r"<q>(reason \d)", answer.text)) == (200, said[0]), after
