"""Votes by mail at the guard's own address: what counts, what is refused, and who is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from smtpguard.accounts.model import Role
from smtpguard.admission.intake import Intake
from smtpguard.admission.mailvote import MOST_OCTETS, VotesByMail
from smtpguard.gathering.reader import BoundedReader
from smtpguard.holds.model import Change, Choice, Confirmation, Hold, State
from smtpguard.holds.replying import Tokens, Uncounted, binding_digest
from smtpguard.mail.address import Address
from smtpguard.mail.fields import DkimResult, Signature
from smtpguard.mail.message import Message
from smtpguard.policy.facts import Unknown
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected, Taken
from smtpguard.reading.request import Surroundings
from tests.guard.house import DOCUMENTS, KEY, POLICY, FakePassage, House, PatchedStore, house, index, mail

ANNA, EVA, OMAR, NEWS = "anna@example.com", "eva@example.com", "omar@example.com", "news@lists.example.com"
ALLOWED = "reply_votes: {people: 60, senders_verified: [example.com]}\n"


@dataclass
class Signing:
    """A verifier that finds what it is told."""

    found: DkimResult | Unknown = field(default_factory=DkimResult)

    async def origin(self, message: Message) -> DkimResult | Unknown:
        return self.found


@dataclass
class Desk:
    """A house that takes votes by mail, with one message for sixty readers that waits in it."""

    home: House
    signing: Signing
    votes: VotesByMail
    intake: Intake
    hold_id: str = ""

    async def hold(self) -> Hold:
        return await self.home.hold(self.hold_id)

    async def address(self, notice: str = "approve", person: str = EVA) -> str:
        hold = await self.hold()
        return f"votes+{self.votes.tokens.local(hold.hold_id, binding_digest(hold), person, notice)}@guard.example.com"

    async def say(self, words: str, *, to: str = "", login: str = "", sender: str = EVA, **more: Any) -> Disposition:
        at, way = to or await self.address(), FakePassage()
        done = await self.intake(
            self.home.transaction(
                at, sender=sender, body=words, session={"auth_user": login or None}, reverse_path=sender, **more
            ),
            way,
        )
        assert (way.sent, way.abandoned) == ([], 1), "an answer is never relayed"
        return done

    async def told(self) -> list[tuple[str, str]]:
        """Whom mail about their vote goes to, and why it does not count."""
        there = [i for i in await self.home.outbox() if (i.data or {}).get("notice") == "voted"]
        return [(str(i.recipients[0].address), str(i.data["refused"])) for i in there]

    async def grow(self) -> None:
        """A rule of a copy is new."""

        def grows(hold: Hold) -> Any:
            more = replace(hold.verdict.hits[0], rule="another", description="Another rule")
            return Change(hold=replace(hold, verdict=replace(hold.verdict, hits=(*hold.verdict.hits, more))))

        await self.home.store.holds.change(self.hold_id, grows)

    async def notices(self, kind: str) -> list[tuple[str, str, Any]]:
        """Those about the hold as it is now."""
        bound, there = binding_digest(await self.hold()), [i for i in await self.home.outbox() if i.data is not None]
        these = [i for i in there if i.data["notice"] == kind and i.data.get("bound") == bound]
        return [(str(i.recipients[0].address), i.intent_id, i.data) for i in these]

    async def votes_of(self) -> list[tuple[str, str, str]]:
        return [
            (kind, data["choice"], data["why"] if kind == "vote-refused" else data["proof"])
            for kind, data in await self.home.events(self.hold_id)
            if kind in ("vote", "vote-refused")
        ]


def documents(top: str) -> dict[str, bytes]:
    policy = POLICY.replace("groups:\n", f"{top}groups:\n", 1)
    return {**DOCUMENTS, "policy.yaml": policy.encode()}


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with house(tmp_path, documents=documents(ALLOWED)) as home:
        index(home.folder, "news", [f"reader{n}@example.org" for n in range(60)])
        await home.follow()
        reader, signing = BoundedReader(lambda: ("p", Surroundings())), Signing()
        votes = VotesByMail(
            address=Address.parse("votes@guard.example.com"), tokens=Tokens(KEY), store=home.store, policies=home,
            reader=reader, verifier=signing, approvals=home.approvals(), notices=home.notices, clock=home.clock,
            required=frozenset({Role.ADMIN}),
        )  # fmt: skip
        intake = home.intake()
        intake.own = [votes]
        made = Desk(home, signing, votes, intake)
        done = await intake(home.transaction(NEWS), FakePassage())
        assert isinstance(done, Held)
        made.hold_id = done.hold_id
        yield made
        await reader.close()


def signed(desk: Desk) -> DkimResult:
    fields = frozenset({"from", "to", "subject"})
    made = Signature(domain="example.com", fields=fields, at=desk.home.clock.now())
    return DkimResult(domains=frozenset({"example.com"}), signatures=(made,))


def said(done: Disposition) -> str:
    assert isinstance(done, Rejected), done
    return str(done.reply)


@pytest.mark.asyncio
async def test_anyone_with_the_notice_may_reject_once(desk: Desk) -> None:
    done = await desk.say("REJECT\nWrong list\n\nEva")
    assert isinstance(done, Taken)
    assert str(done.reply) == f"250 2.0.0 Counted: reject {desk.hold_id}"
    hold = await desk.hold()
    assert (hold.state, [(v.approver, v.comment) for v in hold.votes]) == (State.REJECTED, [(EVA, "Wrong list")])
    assert "answered already" in said(await desk.say("REJECT"))
    assert await desk.votes_of() == [("vote", "reject", "token"), ("vote-refused", "reject", "used")]
    assert await desk.told() == [(EVA, "")], "no reply to the second answer, whose sender is not proven"


@pytest.mark.asyncio
async def test_approving_needs_proof_of_the_writer(desk: Desk) -> None:
    assert "Nothing proves who wrote" in said(await desk.say("APPROVE"))
    assert "Nothing proves who wrote" in said(await desk.say("APPROVE", login=OMAR))
    assert "Only the person who got the notice" in said(await desk.say("APPROVE", login=OMAR, sender=OMAR))
    assert (await desk.hold()).votes == ()
    assert await desk.told() == []
    assert isinstance(await desk.say("APPROVE", login=EVA), Taken)
    assert (await desk.hold()).state is State.APPROVED
    assert await desk.told() == [(EVA, "")]


@pytest.mark.asyncio
async def test_a_signature_must_cover_the_notices_address(desk: Desk) -> None:
    other = await desk.address("reminder")
    desk.signing.found = Unknown(why="no answer")
    done = await desk.say("APPROVE")
    assert isinstance(done, Deferred)
    assert done.reply.code == 451
    desk.signing.found = signed(desk)
    again = desk.home.transaction(await desk.address(), sender=EVA, body="APPROVE", reverse_path=EVA)
    again = replace(again, message=Message.of(mail(other, sender=EVA, body="APPROVE")))
    assert "Nothing proves" in said(await desk.intake(again, FakePassage())), "an answer to another notice, sent again"
    assert isinstance(await desk.say("APPROVE"), Taken)
    assert (await desk.hold()).state is State.APPROVED


@pytest.mark.asyncio
async def test_a_used_notice_cannot_repeat_a_vote_taken_back(desk: Desk) -> None:
    desk.home.term = replace(desk.home.term, release_delay_seconds=60)
    later = replace(desk.votes, approvals=desk.home.approvals())
    desk.intake.own = [later]
    assert isinstance(await desk.say("APPROVE", login=EVA), Taken)
    stale = await desk.hold()
    await desk.home.approvals().unvote(desk.hold_id, approver=EVA, by=EVA)
    assert "answered already" in said(await desk.say("APPROVE", login=EVA))
    assert (await desk.hold()).votes == ()

    async def found(hold_id: str) -> Hold:
        return replace(stale, answered=())  # as it was before another process counted the first

    patched: Any = PatchedStore(desk.home.store, {"holds.find": found})
    desk.intake.own = [replace(later, store=patched)]
    assert "answered already" in said(await desk.say("APPROVE", login=EVA))
    assert (await desk.hold()).votes == ()
    assert await desk.told() == [(EVA, ""), (EVA, "This notice was answered already.")], (
        "one reply for repeated answers"
    )


@pytest.mark.asyncio
async def test_a_changed_hold_refuses_answers_to_an_older_notice(desk: Desk) -> None:
    before = await desk.address()

    def grows(hold: Hold) -> Any:
        return Change(hold=replace(hold, lists=(*hold.lists, "ramadan")))

    await desk.home.store.holds.change(desk.hold_id, grows)
    assert "the message has changed since" in said(await desk.say("REJECT", to=before))
    assert await desk.votes_of() == []
    assert (await desk.hold()).state is State.WAITING
    nobodys = before.replace("votes+", "votes+x")
    assert "the message has changed since" in said(await desk.say("REJECT", to=nobodys))


@pytest.mark.asyncio
@pytest.mark.parametrize("proof", ["login", "dkim", ""])
async def test_an_answer_to_an_older_notice_brings_one_that_can_be_answered(desk: Desk, proof: str) -> None:
    """With what is new in it; only to somebody who is asked, and proves that they wrote the answer."""
    before, login = await desk.address(), EVA if proof == "login" else ""
    if proof == "dkim":
        desk.signing.found = signed(desk)
    await desk.grow()
    for _ in range(2):
        assert "the message has changed since" in said(await desk.say("APPROVE", to=before, login=login))
    bo = "bo@example.com"
    assert "the message has changed since" in said(await desk.say("APPROVE", to=before, login=bo, sender=bo))
    assert await desk.told() == ([(EVA, str(Uncounted.TOKEN.value))] if proof else [])
    new = await desk.notices("approve")
    assert [(to, data["reasons"][-1]["description"]) for to, _, data in new] == [(EVA, "Another rule")] * bool(proof)
    for _, id, _ in new:
        assert isinstance(await desk.say("APPROVE", to=await desk.address(id), login=login), Taken)
    refused = [("vote-refused", "approve", "token")] * 2
    assert await desk.votes_of() == ([*refused, ("vote", "approve", proof)] if proof else [])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("top", "changed", "why"),
    [
        ("", {}, "off"),
        (ALLOWED.replace("60", "59"), {}, "off"),
        (ALLOWED, {"reach_at_least": True}, "off"),
        (ALLOWED, {"senders": frozenset({EVA})}, "writer"),
    ],
)
async def test_some_holds_cannot_be_approved_by_mail(desk: Desk, top: str, changed: dict[str, Any], why: str) -> None:
    await desk.home.put(documents(top))
    await desk.home.follow()
    await desk.home.store.holds.change(desk.hold_id, lambda hold: Change(hold=replace(hold, **changed)))
    said(await desk.say("APPROVE", login=EVA))
    assert await desk.votes_of() == [("vote-refused", "approve", why)]
    assert [who for who, _ in await desk.told()] == [EVA]


@pytest.mark.asyncio
async def test_an_approval_by_mail_is_limited_in_people(desk: Desk) -> None:
    large = lambda hold: Change(hold=replace(hold, kind="test", reach=2))  # noqa: E731
    await desk.home.store.holds.change(desk.hold_id, large)
    await desk.home.put(documents(ALLOWED.replace("60", "10")))
    (await desk.home.follow()).registry.classify((Address.parse(NEWS),))  # its indexes are read
    assert isinstance(await desk.say("APPROVE", login=EVA), Taken)
    [vote] = (await desk.hold()).votes
    assert (vote.choice, vote.people) == (Choice.APPROVE, 10), "the list has sixty"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("words", "more", "reply"),
    [
        ("APPROVE", {"Auto_Submitted": "auto-replied"}, "550 5.7.1 An automatic mail"),
        ("I am away until Monday", {}, "550 5.7.1 The answer must begin with one word"),
        ("x" * MOST_OCTETS, {}, "552 5.3.4"),
        ("REJECT", {"From": f"{EVA}, {OMAR}"}, "550 5.7.1 Only the person who got the notice"),
    ],
)
async def test_automatic_and_unclear_answers_are_refused(
    desk: Desk, words: str, more: dict[str, str], reply: str
) -> None:
    assert reply in said(await desk.say(words, login=EVA, **more))
    assert (await desk.hold()).votes == ()


@pytest.mark.asyncio
async def test_a_null_sender_or_other_recipients_are_refused(desk: Desk) -> None:
    at = await desk.address()
    bounce = desk.home.transaction(at, sender=EVA, body="REJECT", reverse_path="")
    assert "automatic" in said(await desk.intake(bounce, FakePassage()))
    both = desk.home.transaction(at, "reader1@example.org", sender=EVA, body="REJECT", reverse_path=EVA)
    way = FakePassage()
    assert "no other recipient" in said(await desk.intake(both, way))
    assert way.sent == []
    assert await desk.told() == []
    assert (await desk.hold()).state is State.WAITING


@pytest.mark.asyncio
async def test_the_decider_is_named_only_to_a_proven_approver(desk: Desk) -> None:
    await desk.home.approvals().vote(desk.hold_id, Choice.APPROVE, approver=OMAR, by=OMAR)
    desk.home.clock.pass_(minutes=1)
    assert OMAR not in said(await desk.say("APPROVE"))
    assert "approved by omar@example.com" in said(await desk.say("APPROVE", login=EVA))


@pytest.mark.asyncio
async def test_an_invalid_vote_address_is_refused_at_rcpt(desk: Desk) -> None:
    at = Address.parse(await desk.address())
    taken = desk.votes.reply_to(at)
    assert taken is not None
    assert taken.code == 250
    hold_id = desk.hold_id.lower()
    for local in ("votes", "votes+x", "VOTES+a.b.c", f"votes+{hold_id}.0123456.c", f"votes+{hold_id}.0123456å.c"):
        text = f"{local}@guard.example.com"
        refused = desk.votes.reply_to(Address.parse(text))
        assert refused is not None
        assert refused.code == 550
    for text in ("votesx@guard.example.com", f"{at.local}@example.com"):
        assert desk.votes.reply_to(Address.parse(text)) is None


@pytest.mark.asyncio
async def test_the_writer_confirms_from_their_own_login(desk: Desk) -> None:
    at = desk.home.clock.now()
    asked = Confirmation(writer=ANNA, until=at + timedelta(hours=4), proof="login")
    await desk.home.store.holds.change(desk.hold_id, lambda hold: Change(hold=replace(hold, confirm=asked)))
    to = await desk.address("confirm", ANNA)
    assert "CONFIRM and the number" in said(await desk.say("Yes, please", to=to, login=ANNA, sender=ANNA))
    assert "answer from their own login" in said(await desk.say("CONFIRM 60", to=to, sender=ANNA))
    assert "the number given is 59" in said(await desk.say("CONFIRM 59", to=to, login=ANNA, sender=ANNA))
    assert "Only the person who got the notice" in said(await desk.say("CONFIRM 60", to=to, login=EVA))
    assert "the message has changed since" in said(await desk.say("REJECT", to=await desk.address()))
    assert (await desk.hold()).asks_writer
    await desk.grow()
    assert "the message has changed since" in said(await desk.say("CONFIRM 60", to=to, login=ANNA, sender=ANNA))
    [(reader, id, _)] = await desk.notices("confirm")
    assert reader == ANNA
    to = await desk.address(id, ANNA)
    done = await desk.say("Confirm 60\n\nAnna", to=to, login=ANNA, sender=ANNA)
    assert isinstance(done, Taken)
    [told] = [data for kind, data in await desk.home.events(desk.hold_id) if kind == "confirmed"]
    assert (told["way"], told["people"], (await desk.hold()).state) == ("mail", 60, State.APPROVED)
