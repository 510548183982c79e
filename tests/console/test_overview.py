"""The Overview page: waiting holds, freezes, figures of today and the last 30 days, how the rules fit, and the link of
each figure."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, timedelta

import pytest

from smtpguard.accounts.model import Role
from smtpguard.console import chart
from smtpguard.console.pages import overview
from smtpguard.console.pages.overview import Figure
from smtpguard.holds.model import Choice
from smtpguard.journal.event import Event, Kind
from smtpguard.notices.links import Link, Links
from smtpguard.observe.alarms import RaisedAlarm
from tests.console.holding import ANNA, DPO, EVA, NEWS, OMAR, held, several, subjects, text
from tests.console.stage import Stage
from tests.guard.house import KEY, RAMADAN, FakePassage


async def story(here: Stage) -> None:
    """Six holds for News (four approved, one rejected), one for a sensitive list, and a message that passed."""
    holds = await several(here, 6, NEWS)
    for n, hold in enumerate(holds[:5]):
        here.home.clock.pass_(minutes=10)
        choice = Choice.REJECT if n == 4 else Choice.APPROVE
        await here.home.approvals().vote(hold.hold_id, choice, approver=EVA, by="root", comment="no")
    await held(here, RAMADAN, Subject="SV: greetings", Message_ID="<r@example.com>")
    passed = here.home.transaction("x@example.org", Message_ID="<p@example.com>", Subject="To one outside")
    await here.home.intake()(passed, FakePassage())
    await here.home.settled(passed.id)


async def test_a_figure_of_nothing_takes_no_time_for_a_link(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most figures of a thousand rules are 0."""
    await story(here)
    made: list[str] = []

    def counted(figure: Figure, *args: str) -> str:
        made.append(link(figure, *args))
        return made[-1]

    link = overview._link
    monkeypatch.setattr(overview, "_link", counted)
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    page = html.unescape((await vera.get("/")).text)
    assert made
    assert len(made) == sum(page.count(f'<a href="{one}">') for one in set(made))


async def test_the_overview_shows_holds_figures_and_strict_rules(here: Stage) -> None:
    await story(here)
    automatic = Event(
        kind=Kind.VERDICT,
        id="A1",
        at=here.home.clock.now(),
        data={"action": "reject", "rules": ["automatic-to-list"], "lists": []},
    )
    await here.home.store.journal.record([automatic])
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    answer = await vera.get("/")
    said = text(answer)
    assert said.startswith("(2) Overview")
    assert "Automatic replies and bounces never go to a list automatic-to-list" in said
    assert "Waiting 2 Frozen nothing Lists all 2 are well Relay no alarm Store" in said
    assert said.endswith("Time zone: UTC")
    assert "passed 1 1 held 7 7" in said
    assert "approved 4 4 rejected 1 1 writers' feedback: right / mistake – – Median time to decide" in said
    assert "People approve most of what this rule holds: it is too strict." in said
    rules = said[said.index("Do the rules fit?") :]
    assert "withdrawn expired waiting refused deferred Median time" in rules  # no columns without a figure
    assert '<svg class="chart bars"' in answer.text
    assert "<script" not in answer.text.split("<main")[1]


async def test_each_figure_links_to_its_messages(here: Stage) -> None:
    await story(here)
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    page = (await vera.get("/")).text
    links = {html.unescape(path): int(n) for path, n in re.findall(r'<td class="n"><a href="([^"]+)">(\d+)</a>', page)}
    assert len(links) > 12
    for path, n in links.items():
        found = (await vera.get(path)).text
        rows = re.findall(r"<li><div class=\"what\">", found) if "/held" not in path else subjects(found)
        assert len(rows) == n, path


async def test_an_approver_sees_how_many_wait_for_them(here: Stage) -> None:
    await story(here)
    dpo = await here.signed_in(DPO, Role.APPROVER)
    answer = await dpo.get("/")
    assert "Waiting 2 1 for you" in text(answer)
    assert "/journal" not in answer.text
    assert "behind their links stand those that you are asked to decide" in text(answer)
    assert (await dpo.get("/journal")).status_code == 404


async def test_problems_are_named(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    since = here.home.clock.now() - timedelta(hours=1)

    async def alarms() -> Sequence[RaisedAlarm]:
        return [
            RaisedAlarm(key="relay-away", began=since, told=since),
            RaisedAlarm(key="part-away milter", began=since, told=since),
        ]

    console = here.app.state.console
    object.__setattr__(console, "alarms", alarms)
    omar = await here.signed_in(OMAR, Role.OPERATOR)
    await omar.get("/still")
    await omar.post("/still/freeze", selector="all", reason="stop", confirm="1")
    said = text(await omar.get("/"))
    assert "Relay the relay cannot be used, since Mon 2 Mar at" in said
    assert "no milter process runs" in said


async def test_a_shorter_period_can_be_chosen(here: Stage) -> None:
    at = here.home.clock.now() - timedelta(days=20)
    data = {"action": "hold", "rules": ["old-rule"], "observed": ["tried-rule"], "lists": ["news"], "hold": "OLD"}
    await here.home.store.journal.record([Event(kind=Kind.VERDICT, id="OLD", at=at, data=data)])
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    said = text(await vera.get("/"))
    assert "old-rule" in said
    assert "only observed Median time" in said
    assert "old-rule" not in text(await vera.get("/?days=7"))
    assert (await vera.get("/?days=nonsense")).status_code == 200


async def test_entries_not_counted_yet_are_mentioned(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpguard.console.pages.overview.UNCOUNTED", 2)
    await several(here, 3, NEWS)
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    assert "entries of the journal are not counted yet" in text(await vera.get("/"))
    while await here.home.store.journal.index():
        pass
    assert "not counted yet" not in text(await vera.get("/"))


async def test_a_person_without_a_role_is_sent_to_their_own_messages(here: Stage) -> None:
    anna = await here.signed_in(ANNA)
    answer = await anna.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/mine")


async def test_the_page_is_in_swedish(here: Stage) -> None:
    await story(here)
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    said = text(await vera.get("/", **{"Accept-Language": "sv"}))
    assert "Det mesta som regeln håller kvar blir godkänt: den är för sträng." in said
    assert "Mediantid till beslut" in said


async def test_the_journal_page_lists_rejected_messages(here: Stage) -> None:
    at = here.home.clock.now()
    private = {"from": (ANNA,), "subject": ("<b>Offer</b>",), "recipients": ("kim@customer.example", "x@y.example")}
    data = {"action": "reject", "rules": ["not-a-writer", "automatic-to-list"], "lists": []}
    await here.home.store.journal.record(
        [Event(kind=Kind.VERDICT, id="R1", at=at, data=data, private=private),
         Event(kind=Kind.VERDICT, id="R2", at=at, data=data),
         Event(kind=Kind.VERDICT, id="R3", at=at, data=data, private={"subject": ("",)})]
    )  # fmt: skip
    omar = await here.signed_in(OMAR, Role.OPERATOR)
    answer = await omar.get("/journal?state=rejected&rule=not-a-writer")
    assert "&lt;b&gt;Offer" in answer.text
    assert "· Automatic replies and bounces never go to a list" in text(answer)
    assert "anna@example.com to kim@customer.example and 1 more" in text(answer)
    assert 'name="id" value="R1"' in answer.text, "it links to a report"
    assert answer.text.count("<strong>(no subject)</strong>") == 2, "one has none, the names of another are erased"
    assert "Nothing matches." in text(await omar.get("/journal?state=rejected&rule=none"))


def test_bars_are_stacked() -> None:
    days = [(date(2026, 3, day), (day, 0, 1)) for day in (1, 2, 3)]
    made = chart.stacked_bars(days)
    assert made is not None
    assert [series for series, *_ in made.pieces] == [0, 2] * 3
    (_, x, y, *_), (_, x_above, y_above, _, height) = made.pieces[-2:]
    assert (x, y) == (x_above, y_above + height)
    assert [n for _, n in made.across] == [0, 2, 4]
    assert chart.stacked_bars([(date(2026, 3, 1), (0, 0))]) is None


async def test_the_writer_rates_a_hold_with_one_click(here: Stage) -> None:
    hold, other = await several(here, 2, NEWS)
    link = Links(KEY).sign(Link(hold_id=hold.hold_id, address=ANNA, until=here.home.clock.now() + timedelta(days=1)))
    anna = here.browser()
    assert "Was it right to stop it?" not in text(await anna.get(f"/mine/{link}")), "it waits"
    assert (await anna.post(f"/mine/{link}/judge", said="right")).status_code == 409
    await here.home.approve(hold.hold_id, EVA)
    await anna.get(f"/mine/{link}")
    assert (await anna.post(f"/mine/{link}/judge", said="nonsense")).status_code == 422
    await anna.get(f"/mine/{link}")
    answer = await anna.post(f"/mine/{link}/judge", said="right")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/mine/{link}?done=judged")
    await anna.post(f"/mine/{link}/judge", said="mistake")
    said = text(await anna.get(f"/mine/{link}?done=judged"))
    assert "Thank you. It is counted." in said
    assert "You said: it was a mistake to stop it." in said
    eva = await here.signed_in(EVA, Role.APPROVER, Role.VIEWER)
    await eva.get(f"/held/{hold.hold_id}")
    assert (await eva.post(f"/held/{hold.hold_id}/judge", said="right")).status_code == 404, "she did not write it"
    found = await here.home.store.journal.activity(here.home.clock.now() - timedelta(days=1), None, UTC)
    assert (found.decided.right, found.decided.mistaken) == (0, 1), "the last answer counts"
    while await here.home.store.journal.index():
        pass
    summed = await here.home.store.journal.activity(here.home.clock.now() - timedelta(days=1), None, UTC)
    assert summed.rules == found.rules
    assert {share.name: share.decided.mistaken for share in found.rules}["internal-to-list"] == 1
    assert "0 / 1" in text(await eva.get("/"))
    assert "Its writer's judgement" in text(await eva.get(f"/history/{hold.hold_id}"))
    assert other.hold_id != hold.hold_id


async def test_an_alarm_is_acknowledged_with_one_click(here: Stage) -> None:
    taken: list[tuple[str, str]] = []
    stands = RaisedAlarm(key="frozen", began=here.home.clock.now())

    async def alarms() -> Sequence[RaisedAlarm]:
        return [replace(stands, taken_by=who, taken_at=stands.began) for _, who in taken[:1]] or [stands]

    async def take(key: str, by: str) -> bool:
        taken.append((key, by))
        return key == "frozen"

    console = here.app.state.console
    object.__setattr__(console, "alarms", alarms)
    object.__setattr__(console, "take_alarm", take)
    viewer = await here.signed_in("vera@example.com", Role.VIEWER)
    assert "I take it" not in (await viewer.get("/")).text
    await viewer.get("/me")  # for its token
    assert (await viewer.post("/alarms/take", key="frozen")).status_code == 404
    operator = await here.signed_in("ola@example.com", Role.OPERATOR)
    assert "all mail is frozen" in (await operator.get("/")).text
    assert (await operator.post("/alarms/take", key="frozen")).status_code == 303
    assert taken == [("frozen", "ola@example.com")]
    assert "I take it" not in (await operator.get("/")).text
    assert (await operator.post("/alarms/take", key="gone")).status_code == 404


async def test_how_each_approver_decides_is_for_auditors_if_allowed(here: Stage) -> None:
    await story(here)
    admin = await here.signed_in("admin@example.com", Role.ADMIN)
    assert (await admin.get("/approvers")).status_code == 404
    assert "How each approver decides" not in text(await admin.get("/"))
    here.show_approvers()
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert (await eva.get("/approvers")).status_code == 404
    assert "How each approver decides" not in text(await eva.get("/"))
    assert await here.kinds("exported") == []
    assert "How each approver decides" in text(await admin.get("/"))
    assert "eva@example.com 5 80 % 30 minutes" in text(await admin.get("/approvers"))
    assert [event["what"] for event in await here.kinds("exported")] == ["approvers"]
