"""Webhooks: sent in order, at least once, signed, to a real server that fails, hangs and disconnects; and what is never
sent."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from smtpguard.app.delivery import teller
from smtpguard.app.files import CannotStart
from smtpguard.config.settings import settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.freezes.service import Freezes
from smtpguard.holds.model import Choice
from smtpguard.journal import cursors
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.journal.event import Event, Kind
from smtpguard.mailings.service import Mailings
from smtpguard.observe import webhooks
from smtpguard.observe.webhooks import (
    GIVE_UP,
    LEASE_SECONDS,
    LONGEST_PAUSE,
    Dispatcher,
    Format,
    Hook,
    Sender,
    Topic,
    genuine,
    shaped,
    signed,
)
from smtpguard.outbox.model import AttemptResult
from smtpguard.policy.freezing import Selector
from tests.every import every
from tests.guard.house import RAMADAN, House, house
from tests.mailings.test_revoking import releases
from tests.observe import receiver as does
from tests.observe.receiver import Receiver, receiver

SECRET = b"a secret of the receiver"
NEWS = "news@lists.example.com"
ALL = frozenset(Topic)


class Here:
    """A guard with events to send, a receiver, and the dispatcher between them."""

    def __init__(self, home: House, to: Receiver) -> None:
        self.home, self.to = home, to
        self.sender = Sender(seconds=120)
        self.cursors = home.store.cursors

    def hook(self, topics: frozenset[Topic] = ALL, **more: Any) -> Hook:
        known: dict[str, Any] = {"nameable": lambda name: name != "ramadan", "console": "https://guard.example.com"}
        return Hook(name="chat", url=self.to.url, secret=SECRET, topics=topics, **(known | more))

    def teller(self, *hooks: Hook) -> Dispatcher:
        return Dispatcher(hooks, self.home.store, self.sender, self.home.clock)

    async def tell(self, hook: Hook | None = None) -> int:
        hook = hook or self.hook()
        return await self.teller(hook).tell(hook)

    async def held(self, *to: str, **more: Any) -> str:
        return (await self.home.held(*(to or (NEWS,)), **more)).hold_id

    async def journalled(self) -> list[dict[str, Any]]:
        entries = await self.home.store.journal.entries(limit=1000)
        return [dict(e.data) for e, _ in entries if e.kind == Kind.WEBHOOK.value]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with house(tmp_path) as home, receiver() as to:
        made = Here(home, to)
        await made.tell()  # a new hook begins at the end of the journal
        assert to.asked == []
        yield made
        await made.sender.close()


async def test_a_chat_message_is_signed(here: Here) -> None:
    hold = await here.held()
    assert await here.tell(replace(here.hook(), form="slack")) == 1
    [asked] = here.to.asked
    assert list(asked.json) == ["text", "blocks"]
    assert f"<https://guard.example.com/held/{hold}|Look at it>" in asked.json["text"]
    assert genuine(SECRET, asked.headers["smtpguard-signature"], asked.body, int(here.home.clock.now().timestamp()))


async def test_all_events_are_sent_in_order(here: Here) -> None:
    home = here.home
    first, second = await here.held(), await here.held(body="Liquor", Message_ID="<2@example.com>")
    await home.approve(first, "eva@example.com")
    await home.approvals().vote(second, Choice.REJECT, approver="eva@example.com", by="test", comment="No")
    freezes = Freezes(home.store, SteadyClock(home.clock), new_id=lambda: "F1", recall_seconds=0)
    await freezes.freeze(Selector.LIST, "news", reason="Wait", by="omar")
    await freezes.thaw("F1", by="omar")
    at = home.clock.now()
    await home.store.journal.record(
        [Event(kind=Kind.LIST, id="news", at=at, data={"problem": "its source is not there"})]
    )
    await home.store.journal.record([Event(kind=Kind.LIST, id="news", at=at, data={"problem": None, "people": 2})])
    assert await here.tell() == 7
    assert here.to.types == ["message.held", "message.held", "message.decided", "message.decided", "freeze.set",
                             "freeze.lifted", "list.stale"]  # fmt: skip
    outcomes = [asked.json["data"].get("outcome") for asked in here.to.asked]
    assert outcomes[2:4] == ["approved", "rejected"]
    assert await here.tell() == 0
    assert len(here.to.asked) == 7


async def test_only_selected_topics_are_sent(here: Here) -> None:
    await here.held()
    freezes = Freezes(here.home.store, SteadyClock(here.home.clock), new_id=lambda: "F1", recall_seconds=0)
    await freezes.freeze(Selector.ALL, "", reason="Wait", by="omar")
    assert await here.tell(here.hook(frozenset({Topic.FROZEN}))) == 1
    assert here.to.types == ["freeze.set"]


async def test_a_retry_of_a_held_message_is_not_sent(here: Here) -> None:
    await here.held()
    await here.held()
    await here.tell()
    assert here.to.types == ["message.held"]


async def test_a_mailing_is_sent_once_and_its_decision_once(here: Here) -> None:
    first = await here.held()
    copy = await here.held(NEWS, reverse_path="omar@example.com", id="COPY")
    hold = await here.home.hold(copy)
    assert hold.primary == first
    await here.home.approvals().vote(first, Choice.REJECT, approver="eva@example.com", by="test", comment="No")
    await here.tell()
    assert [(asked.json["type"], asked.json["data"]["hold"]) for asked in here.to.asked] == [
        ("message.held", first), ("message.decided", first),
    ]  # fmt: skip
    decided = await here.home.hold(copy)
    assert decided.state.value == "rejected"


async def test_a_revoked_approval_is_sent(here: Here) -> None:
    """Approval and revocation are sent in order, and once each, however many messages the mailing has."""
    first = await here.held()
    await here.held(NEWS, reverse_path="omar@example.com", id="COPY")
    approvals, home = here.home.approvals(), here.home
    mailings = Mailings(home.store, home, home.clock)
    hold = await home.hold(first)
    await approvals.vote(first, Choice.APPROVE, approver="eva@example.com", by="test")
    await mailings.reopen(hold.mailing_id, approver="eva@example.com", by="test", comment="Once more")
    await approvals.vote(first, Choice.APPROVE, approver="eva@example.com", by="test")
    await approvals.vote(first, Choice.REJECT, approver="eva@example.com", by="test", comment="No")
    await here.tell(here.hook(frozenset({Topic.DECIDED}), persons=True))
    told = [(a.json["data"]["hold"], a.json["data"]["outcome"], a.json["data"]["comment"]) for a in here.to.asked]
    assert told == [
        (first, "approved", None), (first, "reopened", "Once more"), (first, "approved", None), (first, "rejected", "No"),
    ]  # fmt: skip


async def test_the_decision_on_the_rest_of_a_mailing_is_sent(here: Here) -> None:
    """Once the first message is sent, a copy is what is decided on."""
    first = await here.held()
    copy = await here.held(NEWS, reverse_path="omar@example.com", id="COPY")
    approvals, home = here.home.approvals(), here.home
    await approvals.vote(first, Choice.APPROVE, approver="eva@example.com", by="test")
    for lease in await releases(home):
        sent = lease.recipients if lease.intent.hold_id == first else ()
        answers = [AttemptResult(recipient=one, event=DeliveryEvent.TAKE) for one in sent]
        await home.store.outbox.settle(lease, answers, [])
    await approvals.vote(first, Choice.REJECT, approver="eva@example.com", by="test", comment="No")
    await here.tell(here.hook(frozenset({Topic.DECIDED})))
    told = [(asked.json["data"]["hold"], asked.json["data"]["outcome"]) for asked in here.to.asked]
    assert told == [(first, "approved"), (copy, "rejected")]


async def test_time_and_body_are_signed(here: Here) -> None:
    await here.held()
    await here.tell()
    asked = here.to.asked[0]
    now = int(here.home.clock.now().timestamp())
    given = asked.headers["smtpguard-signature"]
    right = hmac.new(SECRET, f"{now}.".encode() + asked.body, "sha256").hexdigest()
    assert given == f"t={now},v1={right}"
    assert genuine(SECRET, given, asked.body, now)
    assert asked.headers["smtpguard-id"] == asked.json["id"]
    assert asked.headers["content-type"] == "application/json"


@every("what", ["body", "secret", "time", "old", "no time", "nothing"])
def test_a_receiver_recognizes_forgeries(what: str) -> None:
    body, now = b'{"id":"1"}', 1_767_225_600
    header = signed(SECRET, now, body)
    wrong: dict[str, tuple[bytes, str, bytes, int]] = {
        "body": (SECRET, header, b'{"id":"2"}', now),
        "secret": (b"another secret", header, body, now),
        "time": (SECRET, header.replace(str(now), str(now + 1)), body, now),
        "old": (SECRET, header, body, now + 301),
        "no time": (SECRET, header.partition(",")[2], body, now),
        "nothing": (SECRET, "", body, now),
    }
    assert genuine(SECRET, header, body, now)
    assert genuine(
        SECRET, f"t={now},v1=00,{header.partition(',')[2]}", body, now
    )  # two signatures, while the secret is changed
    assert not genuine(*wrong[what])


# -- what is never sent


async def test_without_permission_no_personal_data_is_sent(here: Here) -> None:
    hold_id = await here.held(RAMADAN, NEWS)
    await here.home.approvals().vote(hold_id, Choice.REJECT, approver="eva@example.com", by="test", comment="Shame")
    freezes = Freezes(
        here.home.store, SteadyClock(here.home.clock), new_id=iter(["F1", "F2"]).__next__, recall_seconds=0
    )
    await freezes.freeze(Selector.LIST, "ramadan", reason="Careful", by="omar@example.com")
    await freezes.freeze(Selector.SENDER, "anna@example.com", reason="Her", by="omar@example.com")
    await here.tell()
    said = b"".join(asked.body for asked in here.to.asked).decode()
    for private in ("anna", "eva", "omar", "lunch", "Bacon", "Shame", "Careful", "ramadan", "@"):
        assert private not in said, private
    first = here.to.asked[0].json["data"]
    assert (first["hold"], first["lists"], first["unnamed_lists"]) == (hold_id, ["news"], 1)
    assert first["url"] == f"https://guard.example.com/held/{hold_id}"
    assert first["reach"] == 62


async def test_permitted_personal_data_is_sent(here: Here) -> None:
    hold_id = await here.held(RAMADAN)
    await here.home.approvals().vote(hold_id, Choice.REJECT, approver="eva@example.com", by="test", comment="Shame")
    freezes = Freezes(here.home.store, SteadyClock(here.home.clock), new_id=lambda: "F1", recall_seconds=0)
    await freezes.freeze(Selector.SENDER, "anna@example.com", reason="Her", by="omar@example.com")
    await here.tell(here.hook(persons=True, nameable=lambda name: True))
    held, decided, frozen = [asked.json["data"] for asked in here.to.asked]
    assert (held["from"], held["subject"], held["lists"]) == ("anna@example.com", "SV: lunch", ["ramadan"])
    assert (decided["by"], decided["comment"], decided["outcome"]) == ("eva@example.com", "Shame", "rejected")
    assert (frozen["by"], frozen["reason"], frozen["value"]) == ("omar@example.com", "Her", "anna@example.com")
    assert b"Bacon at noon" not in b"".join(asked.body for asked in here.to.asked)


# -- a receiver that fails


@pytest.mark.parametrize("problem", [does.FAILS, does.HANGS, does.CUTS, does.ELSEWHERE, b"rubbish\r\n\r\n"])
async def test_a_failed_event_is_retried_before_the_next(here: Here, problem: bytes) -> None:
    await here.sender.close()
    here.sender = Sender(seconds=0.5 if problem == does.HANGS else 120)
    await here.held()
    await here.held(body="Liquor", Message_ID="<2@example.com>")
    here.to.script = [problem]
    assert await here.tell() == 0
    assert len(here.to.asked) == 1
    await here.sender.close()
    here.sender = Sender(seconds=120)
    assert await here.tell() == 0  # too early
    assert len(here.to.asked) == 1
    here.home.clock.pass_(seconds=6)
    assert await here.tell() == 2
    ids = [asked.json["id"] for asked in here.to.asked]
    assert ids[0] == ids[1] != ids[2]
    assert {asked.path for asked in here.to.asked} == {"/hook?key=of-the-receiver"}  # the redirect was not followed


async def test_a_reply_is_not_unpacked(here: Here) -> None:
    """A few octets that are packed several times are so many that unpacking them takes hours."""
    packed = gzip.compress(b"a reply")
    here.to.script = [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed]
    assert (await here.sender.post(here.to.url, b"", {}, most=1_000)).reply == packed
    assert here.to.asked[0].headers["accept-encoding"] == "identity"


async def test_the_body_of_an_answer_is_not_read(here: Here) -> None:
    await here.held()
    here.to.script = [does.ENDLESS]
    assert await here.tell() == 1


async def test_pauses_grow_to_an_hour_and_end_after_a_day(here: Here) -> None:
    await here.held()
    here.to.usual = does.FAILS
    start = here.home.clock.now()
    pauses: list[float] = []
    while not await here.journalled():
        before = len(here.to.asked)
        await here.tell()
        if len(here.to.asked) == before:
            here.home.clock.pass_(seconds=1 if len(pauses) < 8 else 300)
            continue
        pauses.append((here.home.clock.now() - start).total_seconds())
    gaps = [round(b - a) for a, b in pairwise(pauses)]
    assert gaps[:5] == [5, 10, 20, 40, 80]
    assert max(gaps) <= LONGEST_PAUSE + 300
    assert timedelta(seconds=pauses[-1]) >= GIVE_UP
    dead = (await here.journalled())[0]
    assert (dead["hook"], dead["type"], dead["problem"], dead["attempts"]) == (
        "chat",
        "message.held",
        "HTTP 500",
        len(pauses),
    )
    here.to.usual = does.OK
    await here.held(body="Liquor", Message_ID="<2@example.com>")
    assert await here.tell() == 1  # it continues with the next


async def test_an_event_answered_410_is_not_retried(here: Here) -> None:
    await here.held()
    await here.held(body="Liquor", Message_ID="<2@example.com>")
    here.to.script = [does.GONE]
    await here.tell()
    assert len(here.to.asked) == 2
    assert [dead["problem"] for dead in await here.journalled()] == ["HTTP 410"]


async def test_retry_after_is_honoured(here: Here) -> None:
    await here.held()
    here.to.script = [does.BUSY]
    await here.tell()
    here.home.clock.pass_(seconds=899)
    assert await here.tell() == 0
    here.home.clock.pass_(seconds=1)
    assert await here.tell() == 1


async def test_an_unreachable_receiver_is_retried(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    await here.held()
    hook = here.hook()
    nowhere = Hook(name="chat", url="http://127.0.0.1:9/", secret=SECRET, topics=ALL)
    assert await here.teller(nowhere).tell(nowhere) == 0
    here.home.clock.pass_(seconds=6)
    assert await here.teller(hook).tell(hook) == 1
    fails = "webhook chat: it cannot be reached: All connection attempts failed, again in 5 s"
    assert caplog.messages == [fails, "webhook chat takes entries again"]


# -- several processes, and crashes


async def test_two_nodes_send_an_event_once(here: Here) -> None:
    for n in range(5):
        await here.held(body=f"Bacon {n}", Message_ID=f"<{n}@example.com>")
    hook = here.hook()
    tellers = [here.teller(hook) for _ in range(3)]
    for _ in range(10):
        await asyncio.gather(*(teller.tell(hook) for teller in tellers))
    assert len(here.to.asked) == 5


async def test_an_event_is_sent_again_after_a_kill(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill between sending and recording, the event is sent again. The receiver recognises it by its id."""
    await here.held()

    async def dies(*_: object, **__: object) -> bool:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(here.cursors, "settle", dies)
        with pytest.raises(RuntimeError):
            await here.tell()
    assert await here.tell() == 0  # the dead process still has the lease
    here.home.clock.pass_(seconds=LEASE_SECONDS)
    assert await here.tell() == 1
    ids = [asked.json["id"] for asked in here.to.asked]
    assert ids[0] == ids[1]


async def test_without_the_lease_nothing_is_settled(here: Here) -> None:
    await here.held()
    now = here.home.clock.now()
    mine = await here.cursors.lease("chat", await here.cursors.at("chat"), now + timedelta(seconds=1))
    assert mine is not None
    here.home.clock.pass_(seconds=2)
    other = await here.cursors.lease("chat", mine, here.home.clock.now() + timedelta(seconds=60))
    assert other is not None
    event = Event(kind=Kind.WEBHOOK, id="x", at=now)
    assert await here.cursors.settle("chat", mine, [event]) is False
    assert await here.journalled() == []


async def copies(here: Here, n: int) -> None:
    """``n`` copies of one mailing, held under the first."""
    first = await here.held(reverse_path="bounce+lead@example.com", id="LEAD")
    for k in range(n):
        await here.held(reverse_path=f"bounce+{k}@example.com", id=f"COPY{k}")
    last = await here.home.hold(f"COPY{n - 1}")
    assert last.primary == first


async def all_of_it(here: Here) -> None:
    """As the delivery part does: at once again, as long as something was sent."""
    while await here.tell():
        pass


async def test_copies_of_a_mailing_do_not_delay_other_events(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """More copies than one poll reads, whose entries are not sent, do not hide later events."""
    monkeypatch.setattr(webhooks, "SCAN", 50)
    await copies(here, 120)
    other = await here.held(body="Liquor", Message_ID="<2@example.com>")
    await all_of_it(here)
    assert [asked.json["data"]["hold"] for asked in here.to.asked] == ["LEAD", other]
    later = await here.held(body="Bacon again", Message_ID="<3@example.com>")
    await all_of_it(here)
    assert [asked.json["data"]["hold"] for asked in here.to.asked] == ["LEAD", other, later]


@pytest.mark.parametrize("crowd", [49, 50, 120])
async def test_the_cursor_skips_entries_without_an_event(
    here: Here, crowd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor passes any number of entries that are not sent, and a second dispatcher continues from there."""
    monkeypatch.setattr(webhooks, "SCAN", 50)
    await copies(here, crowd)
    await here.tell()
    at = here.home.clock.now()
    for n in range(crowd):
        await here.home.store.journal.record([Event(kind=Kind.OUTCOME, id=f"T{n}", at=at, data={"outcome": "relayed"})])
        await here.home.store.journal.record(
            [Event(kind=Kind.LIST, id="news", at=at, data={"problem": None, "people": 2})]
        )
    assert await here.tell() == 0
    end = (await here.home.store.journal.entries(limit=10_000))[-1][0].seq
    assert (await here.cursors.at("chat")).told == end
    await here.held(body="Liquor", Message_ID="<2@example.com>")
    assert await here.tell() == 1


async def test_a_long_journal_is_read_in_stretches(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "STRETCH", 5)
    at = here.home.clock.now()
    for n in range(23):
        await here.home.store.journal.record([Event(kind=Kind.OUTCOME, id=f"T{n}", at=at, data={"outcome": "relayed"})])
    await here.held()
    assert await here.tell() == 1
    assert here.to.types == ["message.held"]


async def test_a_cursor_leased_by_another_is_not_moved(here: Here) -> None:
    """A cursor that a node has leased is not moved by another node that has read further."""
    await here.held()
    place = await here.cursors.at("chat")
    leased = await here.cursors.lease("chat", place, here.home.clock.now() + timedelta(seconds=60))
    assert leased is not None
    assert not await here.cursors.pass_over("chat", place, place.told + 1)
    assert not await here.cursors.pass_over("chat", leased, place.told + 1)
    assert (await here.cursors.at("chat")).told == place.told
    here.home.clock.pass_(seconds=61)
    assert not await here.cursors.pass_over("chat", place, place.told + 1), "its lease has been replaced"
    assert await here.tell() == 1


async def test_an_entry_that_fails_is_given_up_and_the_next_sent(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """An internal error with one entry does not stop the hook. The entry is journalled as given up."""
    await here.held()
    await here.held(body="Liquor", Message_ID="<2@example.com>")
    whole = webhooks.payload
    broken = iter([True])

    def payload(*given: Any) -> dict[str, Any]:
        if next(broken, False):
            raise KeyError("reach")
        return whole(*given)

    monkeypatch.setattr(webhooks, "payload", payload)
    assert await here.tell() == 2
    assert len(here.to.asked) == 1
    assert [gone["problem"] for gone in await here.journalled()] == ["KeyError"]


async def test_a_lag_is_logged(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    """The log says from time to time that a hook is behind, how far and since when."""
    await here.held()
    teller = here.teller(here.hook())
    here.home.clock.pass_(seconds=webhooks.BEHIND_SECONDS + 1)
    here.to.usual = does.FAILS
    for _ in range(20):
        await teller.tell(here.hook())
        here.home.clock.pass_(seconds=10)
    behind = [r.getMessage() for r in caplog.records if "behind" in r.getMessage()]
    assert len(behind) == 1
    assert behind[0].startswith("webhook chat is behind: ")
    assert "since 2026-03-02 09:00:00+00:00" in behind[0]


async def test_several_leases_send_everything(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpguard.observe.webhooks.SCAN", 2)
    for n in range(5):
        await here.held(body=f"Bacon {n}", Message_ID=f"<{n}@example.com>")
    assert [await here.tell() for _ in range(4)] == [2, 2, 1, 0]


# -- from the settings


def from_settings(
    tmp_path: Path, home: House, secret: str = "a secret of the receiver", more: str = "special: false"
) -> Dispatcher | None:
    (tmp_path / "hook.secret").write_text(secret + "\n")
    text = f"webhooks: [{{url: 'https://chat.example.com/T0/SECRETPATH', secret_file: hook.secret, events: [message.held], {more}}}]\n"
    settings = settings_of(load_yaml(text), tmp_path, {})
    return teller(settings, home.store, home, home.clock)


async def test_the_settings_configure_the_hooks(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        made = from_settings(tmp_path, home)
        assert made is not None
        hook = made._hooks[0]
        assert hook.name.startswith("chat.example.com ")
        assert "SECRETPATH" not in f"{hook.name}{hook!r}"
        assert "receiver" not in repr(hook)
        assert hook.topics == {Topic.HELD}
        assert not hook.nameable("ramadan")
        assert hook.nameable("news")
        assert not hook.nameable("a list that is gone")
        special = from_settings(tmp_path, home, more="special: true")
        assert special is not None
        assert special._hooks[0].nameable("ramadan")
        with pytest.raises(CannotStart, match="at least 16 characters"):
            from_settings(tmp_path, home, "short")


HELD = {"hold": "T1", "reach": 412318, "rules": ["internal-to-list"], "lists": ["news"], "unnamed_lists": 1,
        "url": "https://guard.example.com/held/T1"}  # fmt: skip
PERSONAL = HELD | {"from": "anna@example.com", "subject": "SV: Dieten"}
FREEZE = {"freeze": "F1", "selector": "all", "value": None, "until": None}


def payload(type_: str, data: Mapping[str, Any], form: Format) -> Mapping[str, Any]:
    return shaped({"id": "7-a3", "type": type_, "at": "2026-11-25T04:31:17.683Z", "data": data}, form)


def slack(type_: str, data: Mapping[str, Any]) -> list[str]:
    body = payload(type_, data, "slack")
    [block] = body["blocks"]
    assert block["text"] == {"type": "mrkdwn", "text": body["text"], "verbatim": True}
    return str(body["text"]).split("\n")


def teams(type_: str, data: Mapping[str, Any]) -> tuple[list[str], list[Mapping[str, Any]]]:
    [attachment] = payload(type_, data, "teams")["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}, "plain text has no Markdown"
    return ["".join(run["text"] for run in block["inlines"]) for block in card["body"]], card.get("actions", [])


@every(
    ("type_", "data", "lines"),
    [
        ("message.held", HELD, ["Held: 412,318 people, news, 1 list of a special category", "Rules: internal-to-list"]),
        ("message.held", HELD | {"reach": 1, "lists": [], "unnamed_lists": 0, "rules": []}, ["Held: 1 person"]),
        ("message.held", PERSONAL, ["Held: 412,318 people, news, 1 list of a special category",
                                    "From anna@example.com: “SV: Dieten”", "Rules: internal-to-list"]),
        ("message.decided", PERSONAL | {"outcome": "rejected", "by": "eva@example.com", "comment": "Wrong list"},
         ["Rejected by eva@example.com: 412,318 people, news, 1 list of a special category",
          "From anna@example.com: “SV: Dieten”", "Rules: internal-to-list", "“Wrong list”"]),
        ("message.decided", {"hold": "T1", "outcome": "expired"}, ["Expired: 0 people"]),
        ("freeze.set", FREEZE | {"by": "eva@example.com", "reason": "It goes wrong", "until": "2026-11-25T06:00:00Z"},
         ["Frozen by eva@example.com: all mail", "It goes wrong", "Until 2026-11-25T06:00:00Z"]),
        ("freeze.lifted", FREEZE | {"selector": "list", "value": "news"}, ["Lifted: list news"]),
        ("freeze.set", FREEZE | {"selector": "list"}, ["Frozen: a list"]),
        ("list.stale", {"lists": ["news"], "unnamed_lists": 0, "stale": True, "problem": None}, ["news is out of date"]),
        ("list.stale", {"lists": [], "unnamed_lists": 1, "stale": False, "problem": "no answer"},
         ["1 list of a special category could not be read", "no answer"]),
        ("alarm", {"title": "The relay is away", "severity": "critical", "phase": "begins", "says": "No answer.", "does": None, "host": "mx1"},
         ["Critical: The relay is away", "No answer.", "mx1"]),
        ("alarm", {"title": "The relay is away", "severity": "critical", "phase": "ends", "host": "mx1"},
         ["Over: The relay is away", "mx1"]),
    ],
)  # fmt: skip
def test_an_event_is_shown_in_each_chats_format(type_: str, data: Mapping[str, Any], lines: list[str]) -> None:
    url = data.get("url")
    assert slack(type_, data) == [f"*{lines[0]}*", *lines[1:], *([f"<{url}|Look at it>"] if url else [])]
    said, actions = teams(type_, data)
    assert said == lines
    assert [(action["type"], action["url"], action["title"]) for action in actions] == (
        [("Action.OpenUrl", url, "Look at it")] if url else []
    )


@every("form", get_args(Format))
def test_json_is_sent_unchanged(form: Format) -> None:
    payload = {"id": "7-a3", "type": "message.held", "at": "x", "data": HELD}
    body = shaped(payload, form)
    assert json.loads(json.dumps(body)) == body
    assert (body == payload) is (form == "json")


@every(
    "words", ["<!channel>", "<https://evil.example|Approve>", "*bold* _it_ ~no~ `code`", "a & b", "two\nlines\r\nof it"]
)
def test_text_of_a_message_makes_no_link_mention_or_markup(words: str) -> None:
    text = "\n".join(slack("message.held", PERSONAL | {"subject": words})[1:2])
    assert "<" not in text
    assert ">" not in text
    assert "\n" not in text
    for mark in "*_~`":
        assert mark not in text.replace(f"\u200b{mark}", "")
    said, _ = teams("message.held", PERSONAL | {"subject": words})
    assert said[1] == f"From anna@example.com: “{' '.join(words.split())}”"


def test_a_long_word_is_cut() -> None:
    [_, about, *_] = slack("message.held", PERSONAL | {"subject": "x" * 10_000})
    assert len(about) < 600
