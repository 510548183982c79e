"""Reply storms: a conversation with too many replies is stopped for a time, and each reply counts once."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from smtpguard.journal.clock import SteadyClock
from smtpguard.policy.freezing import Selector
from smtpguard.policy.rule import STOPPED
from smtpguard.policy.verdict import Disposition, Held, Rejected, Relayed
from tests.guard.house import DOCUMENTS, POLICY, House, house, index

EVERYBODY = "everybody@example.com"
STAFF = [f"colleague{n}@example.com" for n in range(120)]
TEXT = (
    POLICY[: POLICY.index("rules:")]
    + """
rules:
  - id: reply-storm
    description: A conversation of many people that runs hot is calmed
    when: {thread.replies: ">= 5 in 10m", thread.reach: ">= 100 in 10m"}
    then: hold
    stop: 6h
"""
)
STAFF_LIST = """
  staff:
    addresses: [everybody@example.com]
    list_ids: [everybody.example.com]
    members: {csv: staff.csv, column: email}
    audience: colleagues
streams:"""
ROOT = "<root@example.com>"


def policy(text: str = TEXT) -> dict[str, bytes]:
    return {**DOCUMENTS, "policy.yaml": text.replace("\nstreams:", STAFF_LIST, 1).encode()}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    index(tmp_path / "indexes", "staff", STAFF)
    async with house(tmp_path, documents=policy()) as made:
        yield made


NUMBERS = itertools.count()


async def post(home: House, *to: str, **more: Any) -> Disposition:
    n = next(NUMBERS)
    headers = {"Message_ID": f"<{n}@example.com>", "References": ROOT, "body": f"Answer {n}"}
    return await home.send(*(to or (EVERYBODY,)), **headers | more)


async def storm(home: House, n: int = 4, **more: Any) -> None:
    """Send ``n`` replies to all, and assert that they pass."""
    for _ in range(n):
        assert isinstance(await post(home, **more), Relayed)


async def reasons(home: House, done: Disposition) -> list[str]:
    assert isinstance(done, Held)
    hold = await home.hold(done.hold_id)
    return [r.public for h in hold.verdict.hits for r in h.reasons]


async def test_the_fifth_reply_is_held_and_the_first_message_is_not_counted(home: House) -> None:
    assert isinstance(await post(home, Message_ID=ROOT, References=None), Relayed)
    await storm(home)
    done = await post(home)
    assert await reasons(home, done) == [
        "There were 5 replies in this conversation in 10 minutes.",
        "This reply reached 120 people in 10 minutes.",
    ]
    assert isinstance(await post(home, Message_ID=ROOT, References=None, X_Again="1"), Relayed)


async def test_slow_or_small_conversations_are_not_stopped(home: House) -> None:
    for _ in range(12):
        assert isinstance(await post(home), Relayed)
        home.clock.pass_(minutes=3)
        await home.watch.read()
    for _ in range(12):
        assert isinstance(await post(home, *STAFF[:30], References="<few@example.com>"), Relayed)


async def test_a_stopped_conversation_resumes_after_its_time(home: House) -> None:
    await storm(home)
    assert isinstance(await post(home), Held)
    home.clock.pass_(hours=3)
    await home.watch.read()
    assert await reasons(home, await post(home)) == [STOPPED, "This reply reached 120 people in 10 minutes."]
    assert isinstance(await post(home, STAFF[0]), Relayed)  # a reply to one colleague
    assert isinstance(await post(home, References="<another@example.com>"), Relayed)
    home.clock.pass_(hours=3, minutes=1)  # six hours after the stop began, in spite of attempts meanwhile
    await home.watch.read()
    assert isinstance(await post(home), Relayed)


async def test_held_replies_do_not_prolong_the_stop(home: House) -> None:
    await storm(home)
    for _ in range(12):
        assert isinstance(await post(home), Held)
        home.clock.pass_(minutes=30)
        await home.watch.read()
    home.clock.pass_(minutes=1)
    await home.watch.read()
    assert isinstance(await post(home), Relayed)


async def test_a_split_or_retried_reply_counts_once(home: House) -> None:
    for start in range(0, 60, 10):
        assert isinstance(
            await post(home, *STAFF[start : start + 10], Message_ID="<one@example.com>", body="One"), Relayed
        )
    for n in range(3):
        assert isinstance(await post(home, Message_ID="<two@example.com>", body="Two", X_Try=str(n)), Relayed)
    assert isinstance(await post(home), Relayed)
    assert isinstance(await post(home), Relayed)
    assert isinstance(await post(home), Held)


async def test_a_split_reply_without_message_id_counts_once(home: House) -> None:
    for start in range(0, 100, 10):
        done = await post(home, *STAFF[start : start + 10], Message_ID=None, To=EVERYBODY, body="One")
        assert isinstance(done, Relayed)
    await storm(home, 3)
    assert isinstance(await post(home), Held)


async def test_the_reach_of_a_split_reply_is_summed(home: House) -> None:
    await storm(home)
    done = [await post(home, *STAFF[n : n + 40], Message_ID="<split@example.com>", body="Split") for n in (0, 40, 80)]
    assert [type(d) for d in done] == [Relayed, Relayed, Held]


async def test_replies_without_references_are_recognized_otherwise(home: House) -> None:
    """Replies belong to one conversation by References, by Outlook's conversation number, by In-Reply-To, or by the
    subject."""
    subject = {"Subject": "Re: Who has taken my lunch?"}
    for more in (
        {"References": ROOT},
        {"References": ROOT, "X_Conversation": "ab12"},
        {"References": None, "X_Answers": "1", "X_Conversation": "ab12"},
        {"References": "<answer@example.com>"},
    ):
        assert isinstance(await post(home, **subject, **more), Relayed)
    assert isinstance(await post(home, **subject, References="<another@example.com>"), Held)
    assert isinstance(await post(home, Subject="Re: lunch", References="<third@example.com>"), Relayed)


async def test_a_storm_rule_may_reject(tmp_path: Path) -> None:
    index(tmp_path / "indexes", "staff", STAFF)
    async with house(tmp_path, documents=policy(TEXT.replace("then: hold", "then: reject"))) as home:
        await storm(home)
        first = await post(home)
        assert isinstance(first, Rejected)
        assert "A conversation of many people that runs hot is calmed." in first.reply.text
        home.clock.pass_(hours=1)
        await home.watch.read()
        assert isinstance(await post(home), Rejected)
        home.clock.pass_(hours=5, minutes=1)
        await home.watch.read()
        assert isinstance(await post(home), Relayed)


async def test_without_stop_the_rule_ends_when_the_rate_falls(tmp_path: Path) -> None:
    index(tmp_path / "indexes", "staff", STAFF)
    async with house(tmp_path, documents=policy(TEXT.replace("    stop: 6h\n", ""))) as home:
        await storm(home)
        assert isinstance(await post(home), Held)
        home.clock.pass_(minutes=11)
        await home.watch.read()
        assert isinstance(await post(home), Relayed)


async def test_an_observing_rule_records_the_stop_for_its_time(tmp_path: Path) -> None:
    index(tmp_path / "indexes", "staff", STAFF)
    async with house(tmp_path, documents=policy(f"{TEXT}    mode: observe\n")) as home:
        await storm(home, 5)
        home.clock.pass_(hours=2)
        await home.watch.read()
        assert isinstance(await post(home, id="LAST"), Relayed)
        [(_, verdict), *_] = await home.events("LAST")
        assert verdict["observed"] == ["reply-storm"]
        home.clock.pass_(minutes=11)
        await home.put(policy())
        await home.watch.read()
        await storm(home)  # what it stopped while it observed does not count
        assert isinstance(await post(home), Held)


async def test_a_frozen_conversation_stops_at_once(home: House) -> None:
    from smtpguard.freezes.service import Freezes

    freezes = Freezes(home.store, SteadyClock(home.clock), new_id=lambda: "FREEZE")
    await freezes.freeze(Selector.THREAD, ROOT, reason="enough", by="root")
    await home.watch.read()
    assert isinstance(await post(home, STAFF[0]), Held)
    assert isinstance(await post(home, References="<another@example.com>"), Relayed)
