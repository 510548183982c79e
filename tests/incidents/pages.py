"""All pages of the console, and what the API lists, of a history: none fails, and what they count and list is the same."""

from __future__ import annotations

import html
import re

from smtpguard.accounts.model import Role
from smtpguard.console.filters import PAGE
from smtpguard.holds.model import State
from tests.console.api.program import Program, program
from tests.console.holding import text
from tests.console.stage import Browser, staged
from tests.guard.history import History

VERA, ROLES = "vera@example.com", (Role.VIEWER, Role.APPROVER)


async def read(history: History) -> None:
    """As somebody who sees everything, and decides on nothing."""
    async with staged(history.home, history.folder, []) as here:
        await here.person(VERA, *ROLES)
        browser = here.browser()
        assert (await browser.sign_in(VERA)).status_code == 303
        if not (history.erases or history.forgets):
            await _figures(browser, history)
        await _waiting(browser, history)
        await _each(browser, history)
        await _asked(await program(here, "wilma@example.com", Role.VIEWER, Role.APPROVER), history)


async def _page(browser: Browser, path: str) -> str:
    answer = await browser.get(path)
    assert answer.status_code == 200, (path, answer.status_code, text(answer)[:500])
    return answer.text


async def _figures(browser: Browser, history: History) -> None:
    """Behind each figure of Overview are as many messages. Requests for an approval count in no figure. A held message
    counts for the rules of its copies, and is found by those of copies that the client keeps too."""
    for days in (1, 30):
        overview = await _page(browser, f"/?days={days}")
        for path, n in re.findall(r'<td class="n"><a href="([^"]+)">(\d+)</a>', overview):
            found = await _page(browser, html.unescape(path))
            if "/journal" in path:
                rows = len(re.findall(r'<li><div class="what">', found))
            else:
                ids = set(re.findall(r'href="/(?:held|history)/([A-Z0-9]+)"', found))
                rows = sum(not hold.kind for hold in await history.store.holds.find_all(sorted(ids)))
            more = "/journal" not in path and re.search("rule=|list=", path)
            assert rows == min(int(n), PAGE) or (more and rows > int(n)), (path, n, rows)


async def _waiting(browser: Browser, history: History) -> None:
    holds = [hold for hold in await history.home.holds() if hold.state is State.WAITING and not hold.primary]
    overview, waiting = await _page(browser, "/"), await _page(browser, "/held")
    assert re.findall(r'class="big"><a href="/held">(\d+)<', overview) == [str(len(holds))]
    titles = [re.findall(r"<title>(?:\((\d+)\) )?", one)[0] for one in (overview, waiting)]
    assert titles == [str(len(holds) or "")] * 2


async def _each(browser: Browser, history: History) -> None:
    """A message, a mailing, the history, an incident."""
    holds = await history.home.holds()
    for hold in history.chance.sample(holds, min(len(holds), 5)):
        await _page(browser, f"/held/{hold.hold_id}")
        await _page(browser, f"/history/{hold.hold_id}")
    for one in await history.mailings.list(least=1):
        await _page(browser, f"/mailings/{one.mailing_id}")
    for path in ("/history", "/history/freezes", "/mailings", "/policy", "/still"):
        await _page(browser, path)


async def _asked(asks: Program, history: History) -> None:
    """Every answer of the API is as its document says. It lists first what people are asked about."""
    assert (await asks("GET", "/lists")).status_code == 200
    holds = [hold for hold in await history.home.holds() if not hold.primary]
    asked = await history.store.holds.asked_about()
    for state in State:
        listed: list[str] = []
        more: dict[str, str] = {"state": state.value, "limit": "2"}
        while more:
            answer = (await asks("GET", "/held", **more)).json()
            listed += [row["id"] for row in answer["items"]]
            more = {**more, "cursor": answer["next"]} if answer["next"] else {}
        doubted = {hold.hold_id for hold in asked} if state in (State.WAITING, State.IN_DOUBT) else set()
        those = {hold.hold_id for hold in holds if hold.state is state and hold.asked_at is None}
        assert sorted(listed) == sorted(those | doubted), state
    for name in {name for hold in holds for name in hold.lists} & {*history.home.in_force.registry.lists}:
        rows = (await asks("GET", "/held", state="waiting", list=name, limit="100")).json()["items"]
        wait = {hold.hold_id for hold in holds if hold.state is State.WAITING and name in hold.lists}
        assert {row["id"] for row in rows} - {hold.hold_id for hold in asked} == wait, name
    for hold in history.chance.sample(holds, min(len(holds), 5)):
        shown = (await asks("GET", f"/held/{hold.hold_id}")).json()
        assert (shown["state"], shown["reach"]) == (hold.state.value, hold.reach)
        assert (await asks("GET", f"/held/{hold.hold_id}/history")).status_code == 200
    for one in (await asks("GET", "/mailings", least="1")).json()["items"]:
        shown = (await asks("GET", f"/mailings/{one['id']}")).json()
        assert {name: shown[name] for name in one} == one
