"""Who got a mailing, by address: for two people who agree, on the page and through the API."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import httpx2
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from smtpguard.accounts.model import Role
from smtpguard.console.recipientlist import RecipientList
from smtpguard.console.rendering import Streamed
from smtpguard.holds.model import State
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Lost
from smtpguard.mail.reply import RELAY_LOST
from smtpguard.mailings.matching import Matching
from smtpguard.mailings.model import set_of
from tests.console.api.program import program
from tests.console.holding import ANNA, DPO, EVA, OMAR, changed, text
from tests.console.stage import Browser, Stage
from tests.guard.house import DOCUMENTS, KEY, MEMBERS, RAMADAN, FakePassage
from tests.guard.house import mail as raw
from tests.mailings.correcting import SORRY, TEXT


async def sent(here: Stage, *to: str, way: FakePassage | None = None) -> str:
    """The id of a mailing with one copy to each address."""
    intake = here.home.intake()
    for n, one in enumerate(to):
        headers = {"X_Looks": "mailing", "X_Mailing": "spring", "Message_ID": f"<{one}@example.com>", "body": f"C{n}"}
        await intake(here.home.transaction(one, **headers), way or FakePassage())
    await here.home.store.journal.record([])  # outcomes are written with a later batch
    [mailing] = await here.home.store.mailings.newest()
    return mailing.mailing_id


async def mailing(here: Stage) -> str:
    """The id of a mailing that four members have, and one may have."""
    (here.home.folder / "ramadan.csv").write_text("email\n" + "\n".join(MEMBERS) + "\nno address\n")
    await sent(here, *MEMBERS[:4])
    return await sent(here, MEMBERS[4], way=FakePassage(raises=Lost(RELAY_LOST, after_dot=True)))


async def save(browser: Browser, id: str, **fields: str) -> tuple[int, list[list[str]]]:
    await browser.get("/still")  # which has a form
    answer = await browser.post(f"/mailings/{id}/people", **fields)
    whole = answer.headers["content-type"].startswith("text/csv")
    return answer.status_code, list(csv.reader(io.StringIO(answer.text))) if whole else [[text(answer)]]


async def ask(browser: Browser, id: str) -> tuple[int, str]:
    await browser.get("/still")
    answer = await browser.post(f"/mailings/{id}", move="disclose", comment="To say sorry")
    return answer.status_code, text(await browser.get(f"/mailings/{id}"))


async def test_two_people_must_agree_to_see_recipients(here: Stage) -> None:
    id = await mailing(here)
    eva, omar, dpo = [await here.signed_in(who, Role.APPROVER) for who in (EVA, OMAR, DPO)]
    assert (await save(eva, id, list="ramadan"))[0] == 403, "nobody agreed"
    assert "Another approver must agree" in (await ask(eva, id))[1]
    assert (await ask(eva, id))[0] == 409, "not one alone"
    assert (await save(eva, id, list="ramadan"))[0] == 403
    assert "eva@example.com asks for the addresses of the recipients" in text(await omar.get(f"/mailings/{id}"))
    status, said = await ask(omar, id)
    assert (status, "eva@example.com and omar@example.com agree" in said) == (303, True)
    assert (await save(dpo, id, list="ramadan"))[0] == 403, "the third person has not agreed"
    assert (await ask(dpo, id))[0] == 409

    told = [[m, "sent"] for m in MEMBERS[:4]] + [[MEMBERS[4], "may have"]]
    for browser in (eva, omar):
        assert await save(browser, id, list="ramadan") == (200, [["address", "what"], *told])
    entries = await here.home.store.journal.history(id)
    people = set_of(Digester(KEY, "+").of(Address.parse(m)) for m in MEMBERS[:5])
    exports = [dict(entry.data) for entry, _ in entries if entry.kind == "exported"]
    assert exports == [{"what": "people", "people": 4, "may": 1, "set": people}] * 2
    actors = [(entry.data["what"], list((clear or {})["actor"])) for entry, clear in entries if entry.kind != "verdict"]
    assert [(what, who) for what, (who, *_) in actors] == [
        ("people asked", EVA), ("people agreed", OMAR), ("people", EVA), ("people", OMAR)
    ]  # fmt: skip
    assert MEMBERS[0] not in str(entries)

    here.home.clock.pass_(days=1)
    assert here.console is not None
    service = here.console.mailings
    assert not service.may_see_recipients(await service.show(id), EVA), "a day is over"


async def test_who_decides_no_more_sees_no_recipients_and_agrees_for_nobody(here: Stage) -> None:
    """Also with another role, by which they still see the mailing."""
    id, home = await mailing(here), here.home
    await here.person(EVA, Role.APPROVER, Role.OPERATOR)
    await (eva := here.browser()).sign_in(EVA)
    omar = await here.signed_in(OMAR, Role.APPROVER)
    without = {**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(b"[eva@example.com, omar", b"[omar")}
    await ask(eva, id)
    await home.put(without)
    await home.follow()
    assert "Another approver must agree" in (await ask(omar, id))[1], "it is as if nobody had asked"
    await home.put(DOCUMENTS)
    await home.follow()
    await ask(eva, id)
    assert (await save(eva, id, list="ramadan"))[0] == 200
    await home.put(without)
    await home.follow()
    assert (await save(eva, id, list="ramadan"))[0] == 403
    assert (await save(omar, id, list="ramadan"))[0] == 200


async def test_the_file_is_closed_if_the_reader_has_gone() -> None:
    async def asked() -> Message:
        return {"type": "http.request", "body": b""}

    async def gone(_: Message) -> None:
        raise OSError

    for begun in (False, True):
        got = RecipientList(1, 0, "s", io.StringIO("address,what\r\n"))
        pieces = got.pieces()
        if begun:
            next(pieces)
        answer = Streamed(pieces, "text/csv", close=got.close)
        with pytest.raises(ClientDisconnect):
            await answer({"type": "http", "asgi": {"spec_version": "2.4"}}, asked, gone)
        assert got._file.closed


async def test_its_writer_cannot_ask_from_an_alias(here: Stage) -> None:
    id = await mailing(here)
    aliases = f"hours: {{zone: UTC}}, aliases: {{{EVA}: [{ANNA}]}}}}".encode()
    policy = DOCUMENTS["policy.yaml"].replace(b"hours: {zone: UTC}}", aliases)
    await here.home.put({**DOCUMENTS, "policy.yaml": policy})
    await here.home.follow()
    eva, omar = [await here.signed_in(who, Role.APPROVER) for who in (EVA, OMAR)]
    assert (await ask(eva, id))[0] == 403
    assert ['value="disclose"' in (await one.get(f"/mailings/{id}")).text for one in (eva, omar)] == [False, True]


async def test_a_file_is_matched_or_refused_with_a_reason(here: Stage, caplog: pytest.LogCaptureFixture) -> None:
    id = await mailing(here)
    eva, omar = [await here.signed_in(who, Role.APPROVER) for who in (EVA, OMAR)]
    await ask(eva, id)
    await ask(omar, id)
    await eva.get(f"/mailings/{id}")
    table = f"mail;name\n{MEMBERS[1].upper()};One\nstranger@example.org;Nobody\n"

    async def upload(column: str) -> httpx2.Response:
        form = {"csrf": eva.csrf, "list": "ramadan", "column": column}
        return await eva.http.post(
            f"/mailings/{id}/people", data=form, files={"file": ("crm.csv", table.encode())},
            headers={"Origin": eva.origin, "Sec-Fetch-Site": "same-origin"},
        )  # fmt: skip

    assert (await upload("mail")).text.split() == ["address,what", f"{MEMBERS[1].upper()},sent"]
    assert 'These addresses cannot be read: the file: no column "post"' in text(await upload("post"))
    for fields, says in (
        ({}, "Choose a list, or a file."),
        ({"list": "ramadam"}, "did you mean ramadan?"),
        ({"list": "news"}, "These addresses cannot be read"),
    ):
        status, [[said]] = await save(eva, id, **fields)
        assert (status, says in said) == (422, True)
    assert 'id="list-wrong"' in eva.page
    here_only = str(here.home.folder / "news.csv")
    assert (here_only in eva.page, here_only in caplog.text) == (False, True), "its path is for the log"
    assert here.console is not None
    async with here.console.reporting:
        assert (await save(eva, id, list="ramadan"))[0] == 409


async def test_a_match_against_a_changed_list_is_refused(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A match is refused if a list that was addressed has changed since: it needs an export from then."""

    async def look_back(matched: Matching, names: object) -> None:
        matched.older.append("the list ramadan as it was")

    monkeypatch.setattr(Matching, "_look_back", look_back)
    id = await mailing(here)
    asks = await program(here, EVA, Role.APPROVER)
    omar = await here.signed_in(OMAR, Role.APPROVER)
    await asks("POST", f"/mailings/{id}/people/agree", {})
    await ask(omar, id)
    status, [[said]] = await save(omar, id, list="ramadan")
    assert (status, "it went to the list ramadan as it was" in said) == (422, True)
    got = await asks("POST", f"/mailings/{id}/people", {"list": "ramadan"})
    assert (got.status_code, "Match an export from then" in got.text) == (422, True)
    assert await here.kinds("exported") == []


async def test_a_correction_is_begun_on_the_page(here: Stage) -> None:
    id = await mailing(here)
    eva = await here.signed_in(EVA, Role.APPROVER)
    here.home.reader.sketch = SORRY
    assert "Apologize to exactly those people" in text(await eva.get(f"/mailings/{id}"))

    async def send(content: bytes, **fields: str) -> httpx2.Response:
        return await eva.http.post(
            f"/mailings/{id}/correct", data={"csrf": eva.csrf} | fields, files={"file": ("sorry.eml", content)},
            headers={"Origin": eva.origin, "Sec-Fetch-Site": "same-origin"},
        )  # fmt: skip

    for content, says in (
        (b" ", "Choose a message"),
        (raw(RAMADAN, **(TEXT | {"X_Mailing": "spring"})), "it reads like the mailing that it corrects"),
    ):
        answer = await send(content)
        assert (answer.status_code, says in text(answer)) == (422, True)
        assert 'id="correction-wrong"' in answer.text
    answer = await send(raw(RAMADAN, **TEXT), doubt="yes")
    assert answer.status_code == 303
    assert "The correction waits until others have approved it" in text(await eva.get(answer.headers["location"]))
    [hold] = await here.home.store.holds.newest()
    assert hold.correction is not None
    assert (hold.correction.sent, hold.correction.may, hold.correction.by) == (4, 1, EVA)
    dpo = await here.signed_in(DPO, Role.APPROVER)
    said = text(await dpo.get(f"/held/{hold.hold_id}"))
    assert "The correction of a mailing, for 5 people on Ramadan greetings" in said
    assert "4 who have it and 1 who may have it" in said
    assert "4 people who got another mailing 1 person who may have got it" in said
    await changed(here, hold, lists=(), envelope=replace(hold.envelope, recipients=()))  # of lists that are no more
    for path in ("/held", "/history?state=any"):
        assert "5 people" in text(await dpo.get(path)), path
    assert "to 5 people" in text(await dpo.post("/decide", choice="approve", hold=[hold.hold_id]))
    assert "once you have approved it" in said
    await changed(here, hold, state=State.GRANTED)
    over = text(await dpo.get(f"/held/{hold.hold_id}"))
    assert "See the mailing that it corrects" in over
    assert "once you have approved it" not in over
    await changed(here, hold, lists=(), envelope=replace(hold.envelope, recipients=()), asked_at=hold.held_at)
    said = text(await dpo.get("/held"))
    assert "Was it sent?" in said
    assert "to 5 people" in said


async def test_recipients_are_read_through_the_api(here: Stage) -> None:
    id = await mailing(here)
    asks, other, writer = [await program(here, who, Role.APPROVER) for who in (EVA, DPO, ANNA)]
    path = f"/mailings/{id}/people"
    assert (await asks("POST", path, {"list": "ramadan"})).status_code == 403
    assert (await writer("POST", f"{path}/agree", {})).status_code == 404
    for one in (asks, other):
        assert (await one("POST", f"{path}/agree", {"comment": "To say sorry"})).status_code == 200
    got = (await asks("POST", path, {"list": "ramadan"})).json()
    assert (got["sent"], got["may_have"], len(got["people"])) == (4, 1, 5)
    assert {"address": MEMBERS[4], "what": "may have"} in got["people"]
    some = (await other("POST", path, {"csv": f"address\n{MEMBERS[2]}\n"})).json()
    assert some["people"] == [{"address": MEMBERS[2], "what": "sent"}]
    assert (await asks("POST", path, {})).status_code == 422
    assert (await asks("POST", path, {"list": "nothing"})).status_code == 422
