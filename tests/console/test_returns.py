"""The page of returns of a mailing."""

from __future__ import annotations

import re

from smtpguard.accounts.model import Role
from tests.console.api.program import held, program
from tests.console.holding import DPO, EVA, NEWS, OMAR
from tests.console.stage import Stage
from tests.returns.mails import dsn, letter


async def test_the_page_shows_number_and_rate_without_names(here: Stage) -> None:
    await held(here, NEWS)
    asks = await program(here, EVA, Role.APPROVER)
    [mailing] = (await asks("GET", "/mailings")).json()["items"]
    assert here.console is not None
    page = f"/mailings/{mailing['id']}/returns"
    omar = await here.signed_in(OMAR, Role.APPROVER)
    assert "Nothing came back in the last" in (await omar.get(page)).text
    for n in range(12):
        original = f"Message-ID: <nothing-{n}@x>\r\nSubject: {mailing['subject']} and more\r\n\r\n".encode()
        await here.console.returns.take(dsn(original, f"kim{n}@example.net"))
    await here.console.returns.take(letter("reader@example.org", f"SV: {mailing['subject']}", "<1@example.com>"))
    text = (await omar.get(page)).text
    assert re.search(r"<rect class=\"passed\"", text)
    assert "1 came back in the last 10 minutes, 0 in the 10 minutes before: too few to tell." in text
    for name in ("reader@example.org", "kim0@example.net"):
        assert name not in text
    answer = await asks("GET", page)
    assert "reader@example.org" not in answer.text
    found = answer.json()
    assert (found["trend"], [one["sort"] for one in found["items"]]) == ("too few to tell", ["reply"])
    assert page in (await omar.get(f"/mailings/{mailing['id']}")).text


async def test_the_page_is_404_without_permission(here: Stage) -> None:
    await held(here, NEWS)
    omar = await program(here, OMAR, Role.VIEWER)
    mailing_id = (await omar("GET", "/mailings")).json()["items"][0]["id"]
    dpo = await here.signed_in(DPO, Role.APPROVER)
    assert (await dpo.get(f"/mailings/{mailing_id}/returns")).status_code == 404
