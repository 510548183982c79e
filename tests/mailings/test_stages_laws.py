"""The laws of a release in stages, for any order of copies, people, freezes, reports, reloads, restarts and time, on two
machines with one store: it never reaches more people than its limit, nobody gets it twice, and once stopped it stays so
until a person resumes it."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.holds.model import Refused
from tests.guard.campaign import EVA, Campaign, approved, beside, documents, kinds
from tests.guard.house import MEMBERS
from tests.store.making import sqlite_url
from tests.store.servers import a_database

STAGES = "{steps: [2, 10%, rest], pause: 30m}"
OFTEN = ["copy", "three", "six at once", "work", "follow", "31 minutes"]
RARELY = ["5 hours", "go on", "stop", "freeze", "thaw", "reports", "reload", "restart"]
STEPS = st.tuples(st.sampled_from(OFTEN * 2 + RARELY), st.integers(0, 1))


class Play:
    """``passed``: members whose copy passed at once. ``freezes``: how many there were; ``frozen``: one is in force."""

    def __init__(self, *machines: Campaign) -> None:
        self.machines, self.home = machines, machines[0].home
        self.passed = MEMBERS[:4]
        self.next, self.freezes, self.frozen = 12, 0, False

    def reached(self) -> Counter[str]:
        taken = (str(a) for envelope, _ in self.machines[0].office.relay.taken for a in envelope.addresses)
        return Counter([*self.passed, *(address for address in taken if address in MEMBERS)])

    async def step(self, what: str, at: int) -> None:
        """At this machine. All follow the policy and the freezes, as they do within a moment."""
        campaign = self.machines[at]
        home, service = campaign.home, campaign.service
        id = (await campaign.one())["id"]
        match what:
            case "copy" | "three" if self.next < 57:
                to = MEMBERS[self.next : self.next + (3 if what == "three" else 1)]
                done = kinds([await campaign.send(*to)])
                self.passed = [*self.passed, *to] if done == "r" else self.passed
                self.next += len(to) if done != "d" else 0
            case "six at once" if self.next < 54:
                to = MEMBERS[self.next : self.next + 6]
                sent = [self.machines[n % 2].send(one) for n, one in enumerate(to)]
                given = [kinds([one]) for one in await asyncio.gather(*sent)]
                self.passed = [*self.passed, *(one for one, done in zip(to, given, strict=True) if done == "r")]
                self.next += 6
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
            case "restart":
                term, campaign.approvals = campaign.approvals.term, home.approvals()
                campaign.approvals.term = term
                campaign.office.worker = campaign.office.hire("another")
        for one in self.machines:
            await one.home.follow()
            await one.home.watch.read()


@pytest.mark.parametrize(("engine", "examples"), [("sqlite", 25), ("postgresql", 8)])
def test_no_stage_reaches_more_people_than_it_may(
    request: pytest.FixtureRequest, tmp_path: Path, engine: str, examples: int
) -> None:
    server = request.getfixturevalue("postgresql") if engine == "postgresql" else ""

    async def play(folder: Path, url: str, steps: list[tuple[str, int]]) -> None:
        async with approved(folder, stages=STAGES, url=url) as campaign, beside(campaign, folder / "beside") as other:
            one = Play(campaign, other)
            for what, at in steps:
                before, frozen = (await campaign.one())["stage"], one.frozen
                try:
                    await one.step(what, at)
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

    @given(st.lists(STEPS, max_size=24))
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    def plays(steps: list[tuple[str, int]]) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as name, ExitStack() as stack:
            folder = Path(name)
            (folder / "beside").mkdir()
            url = stack.enter_context(a_database(server)) if server else sqlite_url(folder / "guard.db")
            asyncio.run(play(folder, url, steps))

    plays()
