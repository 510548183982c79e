"""The outcome of a message to a list of 60: all commands and reports agree, and none claims more than is known."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smtpguard.cli import held, main
from smtpguard.cli.mailings import command as mailings
from smtpguard.holds.model import Choice
from smtpguard.mail.envelope import Lost
from smtpguard.mail.reply import RELAY_LOST, Reply
from smtpguard.outbox.asking import report_doubts
from smtpguard.policy.verdict import Action
from tests.cli.installing import install
from tests.cli.stage import ANNA, EVA, Stage
from tests.guard.house import KEY, MEMBERS, RAMADAN, FakePassage, House
from tests.guard.office import LATER, NO, Office

MAIL = {"X_Mailing": "spring", "Message_ID": "<1@example.com>"}


async def _held(home: House, *more: str) -> str:
    return (await home.held(RAMADAN, *more, **MAIL)).hold_id


async def _approved(home: House, *more: str) -> tuple[str, Office]:
    id = await _held(home, *more)
    await home.approve(id)
    return id, Office(home)


async def waiting(home: House) -> None:
    await _held(home)


async def rejected(home: House) -> None:
    await home.approvals().vote(await _held(home), Choice.REJECT, approver=EVA, by="test")


async def withdrawn(home: House) -> None:
    await home.approvals().withdraw(await _held(home), sender=ANNA, by="test")


async def expired(home: House) -> None:
    await home.expire(await _held(home))


async def approved_and_frozen(home: House) -> None:
    _, office = await _approved(home)
    await home.freeze()
    await office.until_quiet(steps=3)


async def approved_and_put_off(home: House) -> None:
    _, office = await _approved(home)
    office.relay.says = {RAMADAN: LATER}
    await office.step()


async def released(home: House) -> None:
    _, office = await _approved(home)
    await office.step()


async def refused_on_release(home: House) -> None:
    _, office = await _approved(home)
    office.relay.says = {RAMADAN: NO}
    await office.step()


async def given_up(home: House) -> None:
    _, office = await _approved(home)
    office.relay.says = {RAMADAN: LATER}
    await office.until_quiet(steps=52)


async def in_doubt_on_release(home: House) -> None:
    _, office = await _approved(home)
    office.relay.raises = Lost(RELAY_LOST, after_dot=True)
    await office.until_quiet(steps=3)
    await home.approvals().ask()


async def an_attempt_under_way(home: House) -> None:
    """The relay has not answered the dot yet; only the mark of the attempt is written."""
    _, office = await _approved(home)
    await office.tell()
    asked, answered = asyncio.Event(), asyncio.Event()

    async def at_the_dot() -> None:
        asked.set()
        await answered.wait()

    office.relay.before_dot = at_the_dot
    attempt = asyncio.create_task(office.step())
    await asked.wait()
    attempt.cancel()  # the journal stays as it was during the attempt
    await asyncio.gather(attempt, return_exceptions=True)


async def killed_at_the_dot_and_frozen(home: House) -> None:
    """The relay has the message, and the worker died before it could record that; the freeze stops any further attempt."""
    _, office = await _approved(home)
    await office.tell()
    office.relay.raises, office.relay.takes_before_raising = asyncio.CancelledError(), True
    with contextlib.suppress(asyncio.CancelledError):
        await office.step()
    assert office.relay.has(RAMADAN) == 1
    await home.freeze()
    office.relay.raises = None
    await office.until_quiet(steps=3)
    assert office.relay.has(RAMADAN) == 1


async def refused_after_a_doubt(home: House) -> None:
    _, office = await _approved(home)
    office.relay.raises = Lost(RELAY_LOST, after_dot=True)
    await office.step()
    await home.approvals().ask()
    await home.approvals().answer_doubt(
        (await home.store.holds.asked_about())[0].hold_id, sent=False, approver=EVA, by="test"
    )
    office.relay.raises, office.relay.says = None, {RAMADAN: NO}
    await office.step(hours=1)


async def said_to_have_been_sent(home: House) -> None:
    await in_doubt_on_release(home)
    await home.approvals().answer_doubt(
        (await home.store.holds.asked_about())[0].hold_id, sent=True, approver=EVA, by="test"
    )


async def rejected_after_a_doubt(home: House) -> None:
    await killed_at_the_dot_and_frozen(home)
    (hold,) = await home.store.holds.newest()
    await home.approvals().vote(hold.hold_id, Choice.REJECT, approver=EVA, by="test", comment="Wrong list")
    await home.thaw()
    await Office(home).until_quiet(steps=3)


async def the_list_alone_is_refused(home: House) -> None:
    _, office = await _approved(home, "bo@example.net")
    office.relay.says = {RAMADAN: NO}
    await office.step()


async def refused_though_the_list_has_changed(home: House) -> None:
    """The list was read again since, and has another version."""
    from tests.guard.house import index

    _, office = await _approved(home)
    index(home.folder, "ramadan", [*MEMBERS[1:], "new@example.net"], at=home.clock.at)
    home.clock.pass_(minutes=1)
    home.in_force.registry.reopen()
    office.relay.says = {RAMADAN: NO}
    await office.step()


def _relayed(*replies: Reply, raises: BaseException | None = None) -> Callable[[House], Awaitable[None]]:
    async def relay(home: House) -> None:
        """Submit a campaign by the list's own writer with the list's DKIM signature, which no rule holds."""
        home.verifier.domains = frozenset({"campaigns.example.com"})
        transaction = home.transaction(
            RAMADAN, sender="campaigns@example.com", reverse_path="campaigns@example.com", X_Looks="mailing", **MAIL
        )
        way = FakePassage(raises=raises)
        if replies:
            way.replies = replies
        await home.intake()(transaction, way)
        await home.store.journal.record([])
        entries = await home.events(transaction.id)
        assert entries[0][1]["action"] == Action.RELAY.word, entries[0]

    return relay


async def killed(home: House) -> None:
    """The process ended between the dot and the relay's answer, so there is no outcome entry."""
    note = home.store.journal.note
    home.store.journal.note = lambda event: None  # type: ignore[method-assign]
    try:
        await _relayed()(home)
    finally:
        home.store.journal.note = note  # type: ignore[method-assign]
    home.clock.pass_(minutes=16)
    assert await report_doubts(home.store, home.clock)


# scenario: state in ``held list``, people of the mailing, ends of the report
NOBODY = {"relayed": 0, "admitted": 0, "doubted": 0, "held": 0, "deferred": 0, "refused": 0, "stopped": 0}
FATES: dict[str, tuple[Callable[[House], Awaitable[None]], str | None, dict[str, int], dict[str, int]]] = {
    "waiting": (waiting, "waiting", {"held": 60}, {"waiting": 60}),
    "rejected": (rejected, "rejected", {"stopped": 60}, {"declined": 60}),
    "withdrawn": (withdrawn, "withdrawn", {"stopped": 60}, {"withdrawn": 60}),
    "expired": (expired, "expired", {"stopped": 60}, {"expired": 60}),
    "approved, and frozen": (approved_and_frozen, "approved", {"admitted": 60}, {"on its way": 60}),
    "approved, and put off": (approved_and_put_off, "releasing", {"admitted": 60}, {"on its way": 60}),
    "released": (released, "released", {"relayed": 60}, {"released": 60}),
    "refused on release": (refused_on_release, "undelivered", {"refused": 60}, {"undelivered": 60}),
    "given up": (given_up, "undelivered", {"refused": 60}, {"undelivered": 60}),
    "in doubt on release": (in_doubt_on_release, "in-doubt", {"doubted": 60}, {"in doubt": 60}),
    "an attempt under way": (an_attempt_under_way, "releasing", {"doubted": 60}, {"in doubt": 60}),
    "killed at the dot, and frozen": (killed_at_the_dot_and_frozen, "releasing", {"doubted": 60}, {"in doubt": 60}),
    "refused after a doubt": (refused_after_a_doubt, "in-doubt", {"doubted": 60}, {"in doubt": 60}),
    "said to have been sent": (said_to_have_been_sent, "released", {"relayed": 60}, {"released": 60}),
    "rejected after a doubt": (rejected_after_a_doubt, "in-doubt", {"doubted": 60}, {"in doubt": 60}),
    "the list alone is refused": (
        the_list_alone_is_refused, "released", {"relayed": 1, "refused": 60}, {"released": 1, "undelivered": 60}
    ),
    "refused, the list has changed": (
        refused_though_the_list_has_changed, "undelivered", {"refused": 60}, {"undelivered": 60}
    ),
    "relayed": (_relayed(), None, {"relayed": 60}, {"delivered": 60}),
    "refused": (_relayed(Reply.of(550, "5.7.1", "No")), None, {"refused": 60}, {"refused": 60}),
    "put off": (_relayed(Reply.of(451, "4.7.1", "Later")), None, {"deferred": 60}, {"deferred": 60}),
    "lost before the dot": (_relayed(raises=Lost(RELAY_LOST)), None, {"deferred": 60}, {"not sent": 60}),
    "lost after it": (_relayed(raises=Lost(RELAY_LOST, after_dot=True)), None, {"doubted": 60}, {"in doubt": 60}),
    "killed": (killed, None, {"doubted": 60}, {"in doubt": 60}),
}  # fmt: skip
WORDS = {"relayed": "sent", "admitted": "on-the-way", "doubted": "in-doubt", "held": "held", "deferred": "waiting",
         "refused": "refused", "stopped": "stopped"}  # fmt: skip


def report(folder: Path, *args: str) -> str:
    result = CliRunner().invoke(
        main, ["-c", str(folder / "smtpguard.yaml"), "incident", "report", "--subject", "lunch", *args]
    )
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", FATES)
def test_all_commands_and_reports_agree_on_the_outcome(stage: Stage, name: str) -> None:
    happens, state, people, ends = FATES[name]
    install(stage.folder, KEY)
    asyncio.run(stage._in(happens))

    assert [row["state"] for row in stage.rows(held.command, "list")] == ([state] if state else [])
    (mailing,) = stage.rows(mailings, "list", "--least", "1")
    assert {key: mailing[key] for key in NOBODY} == NOBODY | people
    text = stage.run(mailings, "show", mailing["id"]).output
    whole = sum(people.values())
    percent = 100 * people.get("relayed", 0) / max(whole, (mailing["approved"] or {"people": 0})["people"])
    assert f"{percent:.0f} % of" in text
    csv = stage.folder / "them.csv"
    csv.write_text("email\n" + "\n".join(MEMBERS) + "\nbo@example.net\n")
    if "changed" not in name:
        told: Counter[str] = Counter()
        # a list's address reaches the people of its list, others are told by a file
        for source in (("--from-list", "ramadan"), ("--from-csv", str(csv), "--column", "email")):
            found = stage.rows(mailings, "people", mailing["id"], *source, "--what", "all")
            told |= Counter(row["what"] for row in found)
        assert told == {word: people[key] for key, word in WORDS.items() if key in people}

    made: dict[str, Any] = json.loads(report(stage.folder, "--json"))
    assert {end["end"]: end["people"] for end in made["ends"]} == ends
    reached = people.get("relayed", 0)
    assert made["reached"]["people"] == reached
    assert made["messages"] == 1
    assert [{key: one[key] for key in NOBODY} for one in made["mailings"]] == [NOBODY | people]
    page = report(stage.folder)
    may = people.get("doubted", 0)
    assert ("went out, to" in page) is bool(reached)
    assert ("No message is known to have been sent." in page) is (bool(may) and not reached)
    assert (f"It may have gone out to {may} people: in doubt." in page) is (bool(may) and not reached)
    assert (f"{reached} got it" in page) is bool(reached)
    if not reached and not may:
        assert "None of it was sent through this guard." in page
        assert "no one received it" in page
