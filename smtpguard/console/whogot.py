"""Who got a mailing, by their addresses: told to the two people who agreed on that, and journalled before it is told.

For the pages and the API. What is told is made in a file without a name, since it may be of millions.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from smtpguard.console.reporting import Occupied
from smtpguard.holds.model import NotEntitled
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import Address
from smtpguard.mailings.model import MAY_HAVE, Fate, Mailing, set_of

if TYPE_CHECKING:
    from smtpguard.console.desk import ConsoleServices

SENT, MAY = "sent", "may have"
_PIECE = 64 << 10


class NotAll(Exception):
    """Some cannot be told: it went to lists as they were then (``older``), of which an export is needed."""

    def __init__(self, older: str) -> None:
        super().__init__(f"not all of them: it went to {older}. Match an export from then")
        self.older = older


@dataclass(slots=True)
class WhoGot:
    """``sent``: so many addresses have it; ``may``: so many may have it or get it still; ``set``: the name of these people as a set
    (mailings.model.set_of). It is read once."""

    sent: int
    may: int
    set: str
    _file: IO[str]

    def rows(self) -> Iterator[dict[str, str]]:
        """Each address, and which of the two."""
        with self._file as file:
            file.seek(0)
            yield from csv.DictReader(file)

    def pieces(self) -> Iterator[bytes]:
        """As CSV (RFC 4180), in UTF-8."""
        with self._file as file:
            file.seek(0)
            while some := file.read(_PIECE):
                yield some.encode()


async def told(
    here: ConsoleServices,
    mailing: Mailing,
    *,
    approver: str,
    by: str,
    name: str | None = None,
    table: bytes = b"",
    column: str = "",
) -> WhoGot:
    """Of the members of the list ``name``, or of the addresses in a CSV ``table``. ``by``: who the system says they are. Raises
    NotEntitled where no two people agree, or this is none of them; NoAddresses, NotAll, Occupied and LedgerError."""
    if not here.mailings.may_be_told(mailing, approver):
        raise NotEntitled("two of those who decide on it agree first, and are told then")
    if here.reporting.locked():
        raise Occupied
    async with here.reporting:
        if name is not None:
            return await _matched(here, mailing, approver, by, name, None, None)
        with tempfile.NamedTemporaryFile(suffix=".csv") as file:  # for its owner alone
            file.write(table)
            file.flush()
            return await _matched(here, mailing, approver, by, None, Path(file.name), column or None)


async def _matched(
    here: ConsoleServices,
    mailing: Mailing,
    approver: str,
    by: str,
    name: str | None,
    file: Path | None,
    column: str | None,
) -> WhoGot:
    matched = here.matching(mailing.mailing_id, name=name, file=file, column=column)
    digester = here.policies.current().registry.digester
    made: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", newline="")  # noqa: SIM115 - whoever reads it closes it
    try:
        writer = csv.writer(made)
        writer.writerow(("address", "what"))
        numbers, people = {SENT: 0, MAY: 0}, set[bytes]()
        async for address, fate in matched.people():
            what = SENT if fate is Fate.RELAYED else MAY if fate in MAY_HAVE else ""
            if what:
                writer.writerow((address, what))
                numbers[what] += 1
                people.add(digester.of(Address.parse(address)))
        if matched.older:
            raise NotAll("; ".join(matched.older))
        found = WhoGot(numbers[SENT], numbers[MAY], set_of(people), made)
        data = {"what": "people", "people": found.sent, "may": found.may, "set": found.set}
        event = Event(
            kind=Kind.EXPORTED,
            id=mailing.mailing_id,
            at=here.clock.now(),
            data=data,
            private={"actor": (approver, by)},
        )
        await here.ledger.journal.record([event])
    except BaseException:
        made.close()
        raise
    return found
