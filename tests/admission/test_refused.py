"""Recipients that the relay refused at RCPT are journalled: number and codes for good, addresses as long as addresses
are kept."""

from __future__ import annotations

from pathlib import Path

from smtpguard.incidents.query import IncidentQuery
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.outcome import Outcome
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import RefusedRecipient
from smtpguard.observe.metrics import Counters
from tests.clocks import MONDAY
from tests.guard.house import FakePassage, House, house

NOBODY = RefusedRecipient(address=Address.parse("nobody@example.net"), code="550 5.1.1")
FULL = RefusedRecipient(address=Address.parse("full@example.net"), code="452 4.2.2")


async def refused_at_rcpt(home: House) -> None:
    """A message of which two recipients were refused, and a transaction that ended without a message."""
    intake = home.intake()
    transaction = home.transaction("otto@partner.example", refused=(NOBODY, FULL))
    await intake(transaction, FakePassage())
    nothing = home.transaction("bo@partner.example", id="T000000000000009")
    intake.note_refused(nothing.id, nothing.session, nothing.envelope, (NOBODY,))
    await home.store.journal.record(())


async def test_refused_recipients_are_journalled_and_reported(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await refused_at_rcpt(home)
        [(verdict, clear), *_] = await home.store.journal.history("T000000000000001")
        assert verdict.data["refused_codes"] == {"452 4.2.2": 1, "550 5.1.1": 1}
        assert clear is not None
        assert list(clear["refused"]) == ["nobody@example.net", "full@example.net"]
        assert "nobody" not in verdict.body
        [(nothing, clear)] = await home.store.journal.history("T000000000000009")
        assert (nothing.kind, nothing.data["refused_codes"], nothing.data["accepted"]) == (
            "refused",
            {"550 5.1.1": 1},
            1,
        )
        assert clear is not None
        assert (list(clear["refused"]), list(clear["reverse_path"])) == (["nobody@example.net"], ["anna@example.com"])
        found = await home.store.journal.incident(IncidentQuery(senders=frozenset({"anna@example.com"})), prove=False)
        assert found.report is not None
        assert found.report.refused == {"452 4.2.2": 1, "550 5.1.1": 2}
        assert {end: some.messages for end, some in found.report.ends.items()} == {
            Outcome.DELIVERED: 1,
            Outcome.REFUSED: 1,
        }
        assert found.report.reached.people == (1, 1)


def test_refused_recipients_are_counted_in_the_metrics() -> None:
    tally = Counters()
    data = {"action": "relay", "refused_codes": {"550 5.1.1": 3, "452 4.2.2": 1}}
    tally.add(Event(kind=Kind.VERDICT, id="T1", at=MONDAY, data=data))
    tally.add(Event(kind=Kind.REFUSED, id="T2", at=MONDAY, data={"refused_codes": {"550": 2}}))
    assert tally.numbers()["smtpguard_rcpt_refused_total"] == {("4",): 1, ("5",): 5}
