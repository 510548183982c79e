"""A relay that is silent, down, or accepts some recipients only; and two delivery processes that compete for a release."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from smtpguard.holds.model import State
from smtpguard.journal.event import Kind
from tests.faults.machine import ANNA, CAMPAIGNS, RAMADAN, Machine, machine
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, member, until
from tests.peers.letters import campaign, mail, story
from tests.script import DOT, DROP

Home = tuple[Machine, Recorder]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with machine(tmp_path_factory.mktemp("relay")) as made:
        yield made


@pytest.mark.parametrize("to", ["peter@partner.example", RAMADAN])
def test_a_dot_without_a_reply(home: Home, to: str) -> None:
    """A dot without a reply is answered 451. A retry to a list's address is held for people, to others it is relayed
    again."""
    guard, recorder = home
    guard.idle()
    id = f"silent-{to}"
    letter, sender = (campaign(id), CAMPAIGNS) if to == RAMADAN else (mail(to=to, message_id=id), ANNA)
    recorder.relay.on(DOT, DROP, times=1)
    first = Mta(guard).once(letter, sender, to)
    assert first.code == 451
    assert len(recorder.with_id(id)) == 1, "the relay took it without answering"
    again = Mta(guard).once(letter, sender, to)
    assert again.code == 250
    if to == RAMADAN:
        assert "Held" in again.text
        assert len(recorder.with_id(id)) == 1
    else:
        assert len(recorder.with_id(id)) == 2


def test_a_relay_down_for_hours(home: Home) -> None:
    """New mail stays with its client, approved mail stays queued, and nothing expires or is reported for it."""
    guard, recorder = home
    letter = story("down@example.com")
    hold_id = Mta(guard).deliver(letter, ANNA, RAMADAN).text.split()[-1]
    guard.idle()
    recorder.call(recorder.relay.stop())
    try:
        mta = Mta(guard)
        assert (
            mta.once(
                mail(to="peter@partner.example", message_id="later@example.com"), ANNA, "peter@partner.example"
            ).code
            == 451
        )
        guard.approve(hold_id)

        def hours(n: int) -> bool:
            guard.waits_pass()
            return len(attempts(guard, hold_id)) >= n

        until(lambda: hours(4), "attempts")
        assert guard.state(hold_id) is State.APPROVED, "nothing of it was ever at the relay"
        assert {d["outcome"] for d in attempts(guard, hold_id)} == {"retry"}
    finally:
        recorder.call(recorder.relay.start())

    def all_settled() -> bool:
        guard.waits_pass()
        return guard.outbox() == 0

    guard.until(all_settled, "the relay to have everything")
    guard.until(lambda: guard.state(hold_id) is State.RELEASED, "the release to be over")
    assert len(recorder.releases("down@example.com")) == 1
    assert (
        mta.deliver(
            mail(to="peter@partner.example", message_id="later@example.com"), ANNA, "peter@partner.example"
        ).code
        == 250
    )
    assert Kind.EXPIRED not in [k for k, _ in guard.history(hold_id)]


def attempts(guard: Machine, hold_id: str) -> list[dict[str, object]]:
    """The outcomes of attempts, without the marks before them."""
    return [dict(d) for k, d in guard.history(hold_id) if k is Kind.RELEASE and d["outcome"] != "attempt"]


def test_a_relay_that_accepts_some_recipients(home: Home) -> None:
    """By recipient: 4xx is retried, 5xx goes into a DSN to the sender, and an accepted copy is never sent again."""
    guard, recorder = home
    guard.idle()
    to = [member(n) for n in range(30)]
    good, later, never = to[0], to[1], to[2]
    id = "some@example.com"
    done = Mta(guard).deliver(story(id, to="undisclosed@example.com"), ANNA, *to)
    assert "Held" in done.text
    hold_id = done.text.split()[-1]
    guard.idle()
    recorder.relay.on(f"RCPT TO:<{later}>", "451 4.2.1 Later", times=1)
    recorder.relay.on(f"RCPT TO:<{never}>", "550 5.1.1 Nobody of that name")
    guard.approve(hold_id)
    until(lambda: {"sent", "retry", "failed"} <= {d["outcome"] for d in attempts(guard, hold_id)}, "the first attempt")
    guard.waits_pass()
    guard.until(lambda: guard.state(hold_id) is State.RELEASED, "the release")
    recorder.go_on()
    # a DSN contains its header too
    copies = [m for m in recorder.with_id(id) if m.mail.startswith(b"MAIL FROM:<anna@")]
    got = [r.decode().partition("<")[2].partition(">")[0] for m in copies for r in m.rcpts]
    assert sorted(got) == sorted(set(to) - {never}), "everybody once"
    assert got[-1] == later
    assert good in got[:-1]
    guard.idle()
    dsns = [m for m in recorder.messages if b"report-type=delivery-status" in m.content and id.encode() in m.content]
    [dsn] = dsns
    assert dsn.mail.startswith(b"MAIL FROM:<>")
    assert dsn.rcpts[0].startswith(b"RCPT TO:<anna@example.com>")
    assert f"Final-Recipient: rfc822; {never}".encode() in dsn.content
    assert later.encode() not in dsn.content.split(b"message/delivery-status")[1].split(b"\r\n--")[0]
