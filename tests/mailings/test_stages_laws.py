"""The laws of a release in stages, for any order of copies, people, freezes, reports, reloads, restarts and time: it
never reaches more people than its limit, nobody gets it twice, and once stopped it stays so until a person resumes it."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.holds.model import Refused
from tests.guard.campaign import EVA, Campaign, approved, documents, kinds
from tests.guard.house import MEMBERS

STAGES = "{steps: [2, 10%, rest], pause: 30m}"
OFTEN = ["copy", "three", "work", "follow", "31 minutes"]
RARELY = ["5 hours", "go on", "stop", "freeze", "thaw", "reports", "reload", "restart"]
STEPS = st.sampled_from(OFTEN * 2 + RARELY)


class Play:
    """``passed``: members whose copy passed at once. ``freezes``: how many there were; ``frozen``: one is in force."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign, self.home = campaign, campaign.home
        self.passed = MEMBERS[:4]
        self.next, self.freezes, self.frozen = 12, 0, False

    def reached(self) -> Counter[str]:
        taken = (str(a) for envelope, _ in self.campaign.office.relay.taken for a in envelope.addresses)
        return Counter([*self.passed, *(address for address in taken if address in MEMBERS)])

    async def step(self, what: str) -> None:
        campaign, home, service = self.campaign, self.home, self.campaign.service
        id = (await campaign.one())["id"]
        match what:
            case "copy" | "three" if self.next < 57:
                to = MEMBERS[self.next : self.next + (3 if what == "three" else 1)]
                done = kinds([await campaign.send(*to)])
                self.passed = [*self.passed, *to] if done == "r" else self.passed
                self.next += len(to) if done != "d" else 0
            case "work":
                for lease in await home.store.outbox.lease("one", 50, 0):
                    await campaign.office.worker.carry_out(lease)
            case "follow":
                await campaign.approvals.follow()
            case "31 minutes" | "5 hours":
                await campaign.office.go(minutes=31 if what == "31 minutes" else 300)
            case "go on":
                await service.go_on(id, approver=EVA, by="test")
            case "stop":
                await service.stop(id, approver=EVA, by="test")
            case "reports":
                await service.feedback(id, bounces=3, by="test")
            case "freeze" if not self.frozen:
                self.freezes, self.frozen = self.freezes + 1, True
                await home.freeze(id=f"F{self.freezes}")
            case "thaw" if self.frozen:
                self.frozen = False
                await home.thaw(f"F{self.freezes}")
            case "reload":
                await home.put(documents(stages="[50, rest]" if self.next % 2 else ""))
                await home.follow()
                await home.watch.read()
            case "restart":
                term, campaign.approvals = campaign.approvals.term, home.approvals()
                campaign.approvals.term = term
                campaign.office.worker = campaign.office.hire("another")


@given(st.lists(STEPS, max_size=24))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_stage_reaches_more_people_than_it_may(tmp_path: Path, steps: list[str]) -> None:
    async def play(folder: Path) -> None:
        async with approved(folder, stages=STAGES) as campaign:
            one = Play(campaign)
            for what in steps:
                before, frozen = (await campaign.one())["stage"], one.frozen
                try:
                    await one.step(what)
                except Refused:
                    continue
                reached, stage = one.reached(), (await campaign.one())["stage"]
                assert max(reached.values()) == 1, "somebody has it twice"
                assert len(reached) <= stage["limit"]
                if before["at"] == "stopped" and what != "go on":
                    assert stage == before, "nobody has resumed it"
                if what == "go on":
                    assert stage["at"] != "stopped"
                if what == "stop" or one.frozen > frozen:
                    assert stage["at"] == "stopped"
            assert (await one.home.store.journal.verify()).ok

    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        asyncio.run(play(Path(folder)))
