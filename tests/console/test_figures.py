"""Random histories: each figure of Overview leads to as many rows as it says, and the figures fit the holds."""

from __future__ import annotations

import html
import random
import re
from collections import Counter
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from smtpguard.accounts.model import Role
from smtpguard.admission.preapproval import Preapproval
from smtpguard.console.filters import ENDS
from smtpguard.holds.effects import TEST
from smtpguard.holds.model import LET_GO, Choice, Refused, State
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Lost
from smtpguard.reading.fingerprint import Sketch
from tests.console.holding import ANNA, DPO, EVA
from tests.console.stage import Browser, Stage, stage
from tests.guard.campaign import UNAPPROVED
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, RAMADAN, FakePassage
from tests.guard.office import LATER, NO, OK, Office

RULES = "".join(
    f"  - id: to-{name}\n    when: {{recipients.domains: [{name}.example]}}\n    then: {action}\n"
    for name, action in (("held", "hold"), ("ask", "confirm"), ("no", "reject"), ("late", "defer"))
)
POLICIES = {**DOCUMENTS, "policy.yaml": (POLICY + UNAPPROVED + RULES).encode()}


class History:
    """Mail of two people, copies of two mailings among it, and decisions on what is held."""

    def __init__(self, here: Stage, chance: random.Random) -> None:
        assert here.console is not None
        self.home, self.chance, self.office = here.home, chance, Office(here.home)
        self.approvals, self.intake, self.mailings = here.console.approvals, here.home.intake(), here.console.mailings
        self.beforehand = Preapproval(
            address=Address.parse("approve@guard.example.com"),
            store=self.home.store,
            policies=self.home,
            gather=self.home.gather,
            term=self.home.term,
            notices=self.home.notices,
        )
        self._number = count()

    async def send(self) -> None:
        kind = self.chance.choice(["copy", "copy", "one", RAMADAN, "held", "ask", "no", "late"])
        mailing = self.chance.choice(["spring", "summer"])
        for _ in range(self.chance.choice([1, 4]) if kind == "copy" else 1):
            await self._send(kind, mailing)

    async def _send(self, kind: str, mailing: str) -> None:
        chance, n = self.chance, next(self._number)
        more = {
            "Message_ID": f"<{n}@example.com>",
            "body": f"Bacon {n}?",
            "sender": chance.choice([ANNA, "bo@example.com"]),
        }
        to = [kind if kind == RAMADAN else f"x@{kind}.example"]
        if kind == "copy":
            to = [*chance.sample(MEMBERS[:20], chance.choice([1, 1, 5])), *chance.choice([(), (), ("x@held.example",)])]
            more |= {"X_Looks": "mailing", "X_Mailing": mailing}
        elif kind == "one":
            to = [chance.choice(MEMBERS)]
        asked = {"session": {"auth_user": ANNA}, "sender": ANNA} if kind == "ask" else {}
        way = FakePassage(replies=(chance.choice([OK, OK, OK, NO]),))
        if chance.random() < 0.1:
            way.raises = Lost(LATER, after_dot=True)
        gone = chance.random() < 0.1
        await self.intake(self.home.transaction(*to, gone=lambda: gone, **more | asked), way)

    async def ask_before(self) -> None:
        n = next(self._number)
        more = {"Message_ID": f"<{n}@example.com>", "X_Looks": "mailing", "X_Mailing": "autumn", "body": f"Bacon {n}?"}
        self.home.reader.sketch = Sketch(tuple(range(200, 264)))
        to = f"approve+{self.chance.choice(['ramadan', 'news'])}@guard.example.com"
        await self.beforehand(self.home.transaction(to, **more), FakePassage())
        self.home.reader.sketch = Sketch()

    async def decide(self) -> None:
        chance = self.chance
        waiting = [hold for hold in await self.home.holds() if hold.state is State.WAITING and not hold.primary]
        if not waiting:
            return
        hold = chance.choice(waiting)
        try:
            if hold.confirm is not None and hold.asks_writer:
                await self.approvals.confirm(hold.hold_id, writer=ANNA, by="test", people=hold.reach, way="link")
            elif chance.random() < 0.2:
                await self.approvals.withdraw(hold.hold_id, sender=min(hold.senders), by="test")
            else:
                for who in (EVA, DPO):
                    choice = Choice.APPROVE if chance.random() < 0.8 else Choice.REJECT
                    await self.approvals.vote(
                        hold.hold_id, choice, approver=who, by="test", people=chance.choice([0, 5, 60])
                    )
        except Refused:
            return

    async def take_back(self) -> None:
        """What is approved, as far as it is not sent: then a copy may be what waits, or what is rejected."""
        chance = self.chance
        approved = [
            hold for hold in await self.home.holds() if hold.state in LET_GO and hold.copies and not hold.primary
        ]
        if not approved:
            return
        hold = chance.choice(approved)
        try:
            if hold.mailing_id and chance.random() < 0.3:
                back = chance.choice([self.mailings.reopen, self.mailings.reject])
                await back(hold.mailing_id, approver=EVA, by="test", comment="Wrong list")
            elif chance.random() < 0.3:
                await self.approvals.withdraw(hold.hold_id, sender=min(hold.senders), by="test", comment="Wrong list")
            else:
                await self.approvals.vote(hold.hold_id, Choice.REJECT, approver=EVA, by="test", comment="Wrong list")
        except Refused:
            return

    async def go_on(self) -> None:
        self.office.relay.says = {member: LATER for member in MEMBERS[:20] if self.chance.random() < 0.3}
        await self.office.step(minutes=self.chance.choice([1, 30, 200]))
        await self.approvals.sweep()
        await self.approvals.follow()
        if self.chance.random() < 0.3:
            await self.home.store.journal.index()


async def rows(browser: Browser, path: str) -> int:
    page = (await browser.get(path)).text
    further = re.search(r'<a class="button plain" href="([^"]*)">(?:Older|More)', page)
    main = page.partition("<main")[2]
    found = len(
        re.findall(
            r"^<li>", "".join(re.findall(r'<ul class="rows (?:compact|plainly)">.*?^</ul>', main, re.S | re.M)), re.M
        )
    )
    return found + (await rows(browser, html.unescape(further[1])) if further else 0)


@pytest.mark.parametrize("seed", range(2))
async def test_figures_lead_to_what_they_count(tmp_path: Path, url: str, seed: int) -> None:
    async with stage(tmp_path, url=url) as here:
        home, chance = here.home, random.Random(seed)
        await home.put(POLICIES)
        await home.follow()
        history = History(here, chance)
        for _ in range(60):
            steps = [history.send, history.send, history.decide, history.decide, history.go_on, history.take_back]
            await chance.choice([*steps, history.ask_before])()
        await home.store.journal.record([])
        viewer = await here.signed_in("vera@example.com", Role.VIEWER, Role.OPERATOR)
        page = (await viewer.get("/")).text
        figures = re.findall(r'<a href="(/(?:journal|history|held)\?[^"]*)">(\d+)</a>', page)
        assert len(figures) > 12
        for path, figure in dict.fromkeys(figures):
            assert await rows(viewer, html.unescape(path)) == int(figure), path
        counted = await home.store.journal.activity(datetime(2026, 1, 1, tzinfo=UTC), None, UTC)
        holds = Counter(hold.state for hold in await home.holds() if not hold.primary and hold.kind != TEST)
        decided = counted.decided
        assert counted.waiting == holds[State.WAITING]
        assert decided.approved + decided.confirmed == sum(holds[state] for state in ENDS["approved"])
        for state in (State.REJECTED, State.WITHDRAWN, State.EXPIRED):
            assert getattr(decided, state.value) == holds[state], state
