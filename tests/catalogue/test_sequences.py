"""Attacks by the order of acts: each message is as it may be, and what was agreed to is less than who gets it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from smtpguard.app.files import indexes
from smtpguard.holds.effects import Seen
from smtpguard.holds.model import Choice, Conflict, State
from smtpguard.holds.service import Decided
from smtpguard.journal.event import Kind
from smtpguard.lists.index import index_path
from tests.catalogue.test_approval_coverage import CAMPAIGNS, differences, newsletter
from tests.catalogue.test_first_contacts import reached, words
from tests.catalogue.test_lists_fail import synced
from tests.catalogue.test_notices import notices_by_person
from tests.catalogue.wholeguard import DPO, EVA, MEMBERS, NEWSLETTER, RAMADAN, READERS, WholeGuard, personal_mail
from tests.scripted_relay import Message

BODY = f"{words(120, 'letter')}\r\nVi ses på tisdag, /Anna\r\n"


async def send(guard: WholeGuard, people: Sequence[str], *firsts: int) -> None:
    """Send one letter to ten people from each of these numbers on."""
    for n in firsts:
        to = people[n : n + 10]
        await guard.send(personal_mail(to=", ".join(to), body=BODY, message_id=f"<{n}@example.com>"), *to)


async def test_a_vote_counts_for_no_rule_that_a_copy_added_after_the_look(guard: WholeGuard) -> None:
    """The approver looks at a letter to thirty people in To. Before the vote a copy comes for people in Bcc."""
    await send(guard, READERS, 0, 10, 20)
    hidden = personal_mail(to="undisclosed-recipients:;", body=BODY, message_id="<hidden@example.com>")
    lead = next(hold for hold in await guard.holds() if not hold.primary)
    looked = Seen.of(lead)
    assert lead.rules == ("internal-to-many-customers",)
    assert "Held" in await guard.send(hidden, *READERS[30:40])

    with pytest.raises(Conflict, match="under another rule"):
        await guard.office._approvals.vote(lead.hold_id, Choice.APPROVE, approver=EVA, by="test", seen=looked)
    await guard.deliver()
    assert reached(guard, READERS) == set(READERS[:10]), "what passed below the bound"


async def test_copies_that_come_between_two_votes_go_to_no_more_than_the_first_was_for(guard: WholeGuard) -> None:
    await send(guard, MEMBERS, 0, 10, 20)
    lead = next(hold for hold in await guard.holds() if not hold.primary)
    vote = guard.office._approvals.vote
    await vote(lead.hold_id, Choice.APPROVE, approver=EVA, by="test", people=30)
    await guard.pass_(minutes=10)
    await send(guard, MEMBERS, 30, 40, 50)
    await vote(lead.hold_id, Choice.APPROVE, approver=DPO, by="test", people=30)
    await guard.deliver()
    assert reached(guard, MEMBERS) == set(MEMBERS[:30])
    assert [hold.reach for hold in await guard.holds() if hold.state is State.WAITING and not hold.primary] == [30]


async def test_nobody_approves_for_fewer_people_than_get_it(guard: WholeGuard) -> None:
    post = await guard.held(newsletter(), NEWSLETTER, sender=CAMPAIGNS)
    with pytest.raises(Conflict, match="it goes to 400 people, and cannot be approved for fewer"):
        await guard.office._approvals.vote(post.hold_id, Choice.APPROVE, approver=EVA, by="test", people=10)


async def test_who_has_a_mailing_counts_in_the_least_that_it_is_approved_for(guard: WholeGuard) -> None:
    """Ten people have it, and thirty wait. By an approval for thirty in all, forty had it."""
    await send(guard, MEMBERS, 0, 10, 20, 30)
    lead = next(hold for hold in await guard.holds() if not hold.primary)
    vote = partial(guard.office._approvals.vote, lead.hold_id, Choice.APPROVE, by="test")
    with pytest.raises(Conflict, match="it goes to 40 people, with the 10 who have it or are to get it, and cannot be"):
        await vote(approver=EVA, people=30)
    await vote(approver=EVA, people=40)
    await vote(approver=DPO)
    await guard.deliver()
    assert reached(guard, MEMBERS) == set(MEMBERS[:40])


async def grow(guard: WholeGuard, name: str, people: int = 3000) -> list[Message]:
    """Let people come to a list. Returns what was sent then."""
    with (guard.settings.policy.parent / f"{name}.csv").open("a") as source:
        source.writelines(f"new{n}@readers.example\n" for n in range(people))
    return await synced(guard, minutes=20)


async def looked_at(guard: WholeGuard, post: bytes, delay: int) -> Callable[..., Awaitable[Decided]]:
    """Hold a post to the newsletter. If an approval takes effect only after some seconds, one person approves it. Returns
    the vote."""
    guard.office._approvals.term = replace(guard.office._approvals.term, release_delay_seconds=delay)
    hold = await guard.held(post, NEWSLETTER, sender=CAMPAIGNS)
    vote = partial(guard.office._approvals.vote, hold.hold_id, Choice.APPROVE, by="test")
    if delay:
        await vote(approver=EVA)
    return vote


@pytest.mark.parametrize("delay", [0, 60])
async def test_a_list_that_grew_after_the_look_is_looked_at_again(guard: WholeGuard, delay: int) -> None:
    """The post was held for 400 people. Before it is approved, or before that takes effect, the list gets 3,000 more."""
    post = newsletter()
    vote = await looked_at(guard, post, delay)
    await grow(guard, "newsletter")
    if not delay:
        with pytest.raises(Conflict, match="it reaches 3,400 people by now"):
            await vote(approver=EVA)
    await guard.office._approvals.enact()
    await guard.deliver()
    assert not guard.arrived(post)
    [hold] = await guard.holds()
    assert (hold.state, hold.reach, hold.votes) == (State.WAITING, 3400, ())
    await vote(approver=EVA)
    await guard.pass_(minutes=2)
    await guard.office._approvals.enact()
    await guard.deliver()
    assert len(guard.arrived(post)) == 1


async def test_a_list_that_grew_after_the_approval_took_effect_is_looked_at_again(guard: WholeGuard) -> None:
    """A freeze, or a relay that is away, can keep a release for days."""
    post = newsletter()
    vote = await looked_at(guard, post, 0)
    await vote(approver=EVA)
    told = notices_by_person(await grow(guard, "newsletter"))
    assert not guard.arrived(post)
    assert told[EVA] == ["decided"]
    [hold] = await guard.holds()
    [mailing] = await guard.office._store.mailings.newest()
    assert (hold.state, hold.reach, hold.votes, mailing.grants) == (State.WAITING, 3400, (), ())
    await vote(approver=EVA)
    await guard.deliver()
    assert len(guard.arrived(post)) == 1


async def test_a_list_that_grew_by_a_few_after_the_approval_stops_nothing(guard: WholeGuard) -> None:
    post = newsletter()
    vote = await looked_at(guard, post, 0)
    await vote(approver=EVA)
    await grow(guard, "newsletter", 40)
    assert len(guard.arrived(post)) == 1


async def test_who_voted_is_told_that_the_vote_is_void_since_the_list_has_grown(guard: WholeGuard) -> None:
    hold = await guard.held(personal_mail(to=RAMADAN), RAMADAN)
    vote = partial(guard.office._approvals.vote, hold.hold_id, Choice.APPROVE, by="test")
    await vote(approver=EVA)
    await grow(guard, "ramadan")
    with pytest.raises(Conflict, match="it reaches 3,080 people by now"):
        await vote(approver=DPO)
    told = notices_by_person(await guard.deliver())
    assert told[EVA] == told[DPO] == ["decided"]
    entries = await guard.office._store.journal.entries(limit=10_000)
    choices = [entry.data["choice"] for entry, _ in entries if entry.kind == Kind.VOTE.value]
    assert sorted(choices) == ["approve", "lapsed"]


@pytest.mark.parametrize("delay", [0, 60])
async def test_a_list_that_reaches_another_one_by_now_is_asked_about_there_too(guard: WholeGuard, delay: int) -> None:
    """The post was held for the newsletter. Then the address of a list that is always asked becomes a member."""
    post = newsletter()
    vote = await looked_at(guard, post, delay)
    with (guard.settings.policy.parent / "newsletter.csv").open("a") as source:
        source.write(f"{RAMADAN}\n")
    await synced(guard, minutes=20)
    if delay:
        await guard.office._approvals.enact()
    else:
        with pytest.raises(Conflict, match="it reaches 481 people by now \\(newsletter, ramadan-greetings\\)"):
            await vote(approver=EVA)
    assert notices_by_person(await guard.deliver())[DPO] == ["decided" if delay else "approve"]
    [hold] = await guard.holds()
    assert (hold.lists, hold.reach, hold.votes) == (("newsletter", "ramadan-greetings"), 481, ())
    await vote(approver=EVA)
    await guard.deliver()
    assert not guard.arrived(post)
    await vote(approver=DPO)
    await guard.pass_(minutes=2)
    await guard.office._approvals.enact()
    await guard.deliver()
    assert len(guard.arrived(post)) == 1


def lose(guard: WholeGuard, name: str) -> None:
    """Remove the index of a list, as it is for a process that starts then."""
    index_path(indexes(guard.settings), name).unlink()
    guard.proxy_part.line.intake.policies.current().registry._indexes.statuses.clear()


async def test_an_approval_covers_nobody_who_may_be_on_another_list_alone(guard: WholeGuard) -> None:
    """The newsletter is approved. Then the index of a list that is always asked is lost, and later its own."""
    lead = await guard.hold(await guard.send(newsletter(), *READERS[:250], sender=CAMPAIGNS))
    await guard.office._approvals.vote(lead.hold_id, Choice.APPROVE, approver=EVA, by="test", people=400)
    await guard.deliver()
    lose(guard, "ramadan-greetings")
    await guard.pass_(seconds=5)
    assert "Taken" in await guard.send(newsletter(number=2), *READERS[250:300], sender=CAMPAIGNS)
    hold = await guard.hold(await guard.send(newsletter(number=3), *MEMBERS[:70], sender=CAMPAIGNS))
    assert reached(guard, MEMBERS) == set()
    assert "ramadan-greetings" in differences(hold)["lists"]

    await guard.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test", people=400)
    await guard.deliver()
    assert "Taken" in await guard.send(newsletter(number=4), *MEMBERS[70:], sender=CAMPAIGNS)


async def test_an_approval_for_a_list_goes_on_while_this_list_has_no_index(guard: WholeGuard) -> None:
    """Whether a person is on it or on none, they are covered."""
    lead = await guard.hold(await guard.send(newsletter(), *READERS[:250], sender=CAMPAIGNS))
    await guard.office._approvals.vote(lead.hold_id, Choice.APPROVE, approver=EVA, by="test", people=400)
    await guard.deliver()
    lose(guard, "newsletter")
    await guard.pass_(seconds=5)
    assert "Taken" in await guard.send(newsletter(number=2), *READERS[250:300], sender=CAMPAIGNS)
