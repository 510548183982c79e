"""Lists whose sources fail: the last good index is used, then membership is unknown. Possible mailings are held, and
ordinary mail passes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpguard.app.files import indexes
from smtpguard.cli.holdrow import reach
from smtpguard.lists.index import index_path
from smtpguard.lists.sources import Cell, Tally
from smtpguard.lists.sources.files import FileSource
from tests.catalogue.wholeguard import MEMBERS, RAMADAN, READERS, WholeGuard, personal_mail, policy, whole_guard
from tests.scripted_relay import Message

OMAR = "omar@example.com"  # the list's owner


async def synced(guard: WholeGuard, **passed: float) -> list[Message]:
    """The messages sent after the time has passed and the delivery part has looked at the lists."""
    await guard.pass_(**passed)
    await guard.office._freshness.step()
    return await guard.deliver()


def notices(messages: list[Message]) -> list[tuple[str, str]]:
    """(Recipient, kind) of each notice."""
    return [
        (
            m.rcpts[0].decode().partition("<")[2].partition(">")[0],
            m.content.split(b"X-Smtpguard-Notice: ")[1].split(b"\r\n")[0].decode(),
        )
        for m in messages
    ]


async def journalled(guard: WholeGuard) -> list[dict[str, Any]]:
    entries = await guard.office._store.journal.entries(limit=10_000)
    return [dict(entry.data) for entry, _ in entries if entry.kind == "list"]


async def the_ordinary_day(guard: WholeGuard, mark: str) -> None:
    """One customer who is on the list, an unknown customer, three at once, and a partner, each with a text of their
    own."""
    for n, (people, body) in enumerate(
        (
            ([MEMBERS[0]], "Hej!\r\n\r\nPumpen kan hämtas på torsdag.\r\n\r\n/Anna\r\n"),
            (["new.customer@customers.example"], "Hej!\r\n\r\nVilken färg skulle dörren ha?\r\n\r\n/Anna\r\n"),
            (MEMBERS[1:4], "Hej!\r\n\r\nVi ses på bygget klockan åtta, ta med ritningen.\r\n\r\n/Anna\r\n"),
            (["bob@partner.example"], "Hej!\r\n\r\nJag ringer efter lunchen om fakturan.\r\n\r\n/Anna\r\n"),
        )
    ):
        subject = f"SV: {body.split()[1]} {n}"
        await guard.passes(
            personal_mail(
                to=", ".join(people), subject=subject, body=f"{body}{mark}\r\n", message_id=f"<{mark}{n}@example.com>"
            ),
            *people,
        )


@pytest.mark.parametrize("broken", ["gone", "empty", "header alone", "half", "rubbish", "a folder"])
async def test_a_failed_export_ends_in_a_stale_list(guard: WholeGuard, broken: str) -> None:
    """The export fails on Friday. The last good index serves the weekend. On Monday it is stale: ordinary mail passes,
    possible mailings are held. A good export ends that."""
    await guard.office._freshness.step()
    source = guard.settings.policy.parent / "ramadan.csv"
    good = source.read_text()
    if broken in ("gone", "a folder"):
        source.unlink()
        if broken == "a folder":
            source.mkdir()
    else:
        lines = good.splitlines(keepends=True)
        source.write_text(
            {"empty": "", "header alone": lines[0], "half": "".join(lines[:41]), "rubbish": good + "?\n" * 20}[broken]
        )

    told = await synced(guard, minutes=20)
    assert notices(told) == [(OMAR, "list-failed")]
    assert b"Ramadan greetings" in told[0].content
    assert (await journalled(guard))[-1]["problem"].endswith("the last good index stays in use")
    for _ in range(5):
        assert await synced(guard, hours=3) == [], "once per outage, not per attempt"
    await the_ordinary_day(guard, "friday")
    hold = await guard.held(personal_mail(message_id="<f@example.com>"), RAMADAN)
    assert hold.reach == len(MEMBERS)
    assert not hold.verdict.unknown

    assert notices([m for m in await synced(guard, hours=48) if b"list-" in m.content]) == [(OMAR, "list-stale")]
    assert (await journalled(guard))[-1]["stale"]
    await the_ordinary_day(guard, "monday")
    hidden = [f"stranger{n}@elsewhere.example" for n in range(30)]
    assert (
        await guard.held(personal_mail(to="anna@example.com", message_id="<h@example.com>"), *hidden)
    ).verdict.unknown
    yes = await guard.held(personal_mail(to="anna@example.com", message_id="<y@example.com>"), *MEMBERS[:30])
    assert yes.lists == ("ramadan-greetings",), "a member of a stale list stays a member"

    if source.is_dir():
        source.rmdir()
    source.write_text(good)
    assert notices([m for m in await synced(guard, hours=1) if b"list-" in m.content]) == [(OMAR, "list-well")]
    await guard.passes(personal_mail(to="anna@example.com", message_id="<w@example.com>"), *hidden)
    assert [e["news"] for e in await journalled(guard)] == [["failed"], ["stale"], ["well"]]


async def test_without_any_index_possible_mailings_are_held(guard: WholeGuard) -> None:
    """If no index ever existed, ordinary mail passes, and possible mailings are held."""
    index_path(indexes(guard.settings), "ramadan-greetings").unlink()
    await guard.pass_(seconds=5)
    guard.proxy_part.line.intake.policies.current().registry._indexes.statuses.clear()  # as in a new process
    await the_ordinary_day(guard, "cold")
    hold = await guard.held(personal_mail(message_id="<l@example.com>"), RAMADAN)
    assert (hold.reach, hold.reach_at_least) == (1, True), "at least so many: the number is unknown"
    asked = next(m for m in await guard.deliver() if b"Notice: approve" in m.content)
    assert b"minst 1 person" in asked.content
    assert reach(hold) == "at least 1"
    hidden = [f"stranger{n}@elsewhere.example" for n in range(30)]
    assert (
        await guard.held(personal_mail(to="anna@example.com", message_id="<h@example.com>"), *hidden)
    ).verdict.unknown


async def test_a_restart_does_not_repeat_a_notice(guard: WholeGuard) -> None:
    (guard.settings.policy.parent / "ramadan.csv").unlink()
    assert notices(await synced(guard, minutes=20)) == [(OMAR, "list-failed")]
    guard.office._freshness._under = ""  # as in a new process
    assert await synced(guard, minutes=1) == []
    assert len(await journalled(guard)) == 1


async def test_notices_about_a_list_without_owner_go_to_approvers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = policy().replace("    owner: eva@example.com\n", "")
    async with whole_guard(tmp_path, monkeypatch, text=text) as guard:
        (tmp_path / "newsletter.csv").write_text("email\n" + "\n".join(READERS[:10]) + "\n")
        told = notices(await synced(guard, minutes=20))
        assert {kind for _, kind in told} == {"list-failed"}
        assert {who for who, _ in told} == {"eva@example.com", "omar@example.com"}


async def test_a_slow_refresh_keeps_the_old_index_in_use(guard: WholeGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow source: the last good index decides mail until the new one is complete, and other lists are refreshed
    meanwhile. A second later the new index counts."""
    reading, go_on = threading.Event(), threading.Event()
    cells = FileSource.cells

    def slowly(source: FileSource, tally: Tally) -> Iterator[Cell]:
        for number, cell in enumerate(cells(source, tally)):
            if source.label == "ramadan.csv" and number == 50:
                reading.set()
                assert go_on.wait(120)
            yield cell

    monkeypatch.setattr(FileSource, "cells", slowly)
    folder = guard.settings.policy.parent
    for name, people in (("ramadan", MEMBERS), ("newsletter", READERS)):
        (folder / f"{name}.csv").write_text("email\n" + "\n".join((*people, f"new.{name}@customers.example")) + "\n")
    await guard.pass_(minutes=20)
    step = asyncio.create_task(guard.office._freshness.step())
    try:
        assert await asyncio.to_thread(reading.wait, 120)
        hold = await guard.held(personal_mail(message_id="<1@example.com>"), RAMADAN)
        assert (hold.reach, hold.reach_at_least) == (len(MEMBERS), False)
        async with asyncio.timeout(120):
            while not await journalled(guard):  # the other list does not wait
                await guard.office._freshness._record()
                await asyncio.sleep(0.01)
        assert (await journalled(guard))[-1]["news"] == ["replaced"]
        assert not step.done()
    finally:
        go_on.set()
    await step
    await guard.pass_(seconds=2)
    assert (await guard.held(personal_mail(message_id="<2@example.com>", subject="SV: Middag"), RAMADAN)).reach == len(
        MEMBERS
    ) + 1


async def test_a_hanging_source_is_reported_and_delays_no_other(
    guard: WholeGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file on a dead server, whose read never ends. The owner gets a notice, another when the index is stale, and one
    when the list is well. Other lists are refreshed."""
    await guard.office._freshness.step()
    hang, go_on = threading.Event(), threading.Event()
    fingerprint = FileSource.fingerprint

    def hangs(source: FileSource) -> bytes:
        if source.label == "ramadan.csv":
            hang.set()
            assert go_on.wait(120)
        return fingerprint(source)

    monkeypatch.setattr(FileSource, "fingerprint", hangs)

    wait, reading = asyncio.wait, guard.office._freshness._reading

    def waits(some: Any, *, timeout: float | None = None, **more: Any) -> Any:
        hanging = asyncio.current_task() is reading.get("ramadan-greetings")
        return wait(some, timeout=0.05 if hanging else timeout, **more)

    monkeypatch.setattr(asyncio, "wait", waits)
    guard.office._freshness._few = asyncio.Semaphore(1)
    newsletter = guard.settings.policy.parent / "newsletter.csv"
    newsletter.write_text("email\n" + "\n".join((*READERS, "new.reader@customers.example")) + "\n")
    await guard.pass_(minutes=20)
    step = asyncio.create_task(guard.office._freshness.step())
    try:
        assert await asyncio.to_thread(hang.wait, 120)
        async with asyncio.timeout(120):
            while len(await journalled(guard)) < 2:
                await guard.office._freshness._record()
                await asyncio.sleep(0.01)
        assert {tuple(e["news"]) for e in await journalled(guard)} == {("failed",), ("replaced",)}
        assert notices(await guard.deliver()) == [(OMAR, "list-failed")]
        await guard.pass_(hours=48)
        async with asyncio.timeout(120):
            while len(await journalled(guard)) < 3:
                await guard.office._freshness._record()
                await asyncio.sleep(0.01)
        assert notices([m for m in await guard.deliver() if b"list-" in m.content]) == [(OMAR, "list-stale")]
    finally:
        go_on.set()
    await step
    (problem,) = {e["problem"] for e in await journalled(guard) if e["problem"]}
    assert problem.startswith("ramadan-greetings has been read since ")
    assert problem.endswith(" UTC, without an end; the last good index stays in use")
    assert (await journalled(guard))[-1]["news"] == ["well"]
