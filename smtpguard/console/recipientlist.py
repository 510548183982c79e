"""The addresses that got a mailing, for the two people who agreed on that.

Each list of addresses is journalled first. It is written to an unnamed temporary file, since it may have millions.
"""

from __future__ import annotations

import csv
import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from smtpguard.console.reporting import Occupied
from smtpguard.console.services import ConsoleServices
from smtpguard.holds.model import NotEntitled
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import Address
from smtpguard.mailings.matching import Matching, NoAddresses
from smtpguard.mailings.model import MAY_HAVE, CopyStatus, Mailing, set_of

log = logging.getLogger(__name__)
SENT, MAY = "sent", "may have"
_PIECE = 64 << 10


class OlderVersions(Exception):
    """Some recipients are unknown: the mailing went to earlier versions of lists (``older``), whose export is needed."""

    def __init__(self, older: str) -> None:
        super().__init__(f"not all of them: it went to {older}. Match an export from then")
        self.older = older


@dataclass(slots=True)
class RecipientList:
    """The addresses that got a mailing, in a temporary file. ``sent``: how many have it; ``may``: how many may have it or may still
    get it; ``set``: the id of this set of people (mailings.model.set_of). Read it once, and close it."""

    sent: int
    may: int
    set: str
    _file: IO[str]

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield each address, with SENT or MAY."""
        self._file.seek(0)
        yield from csv.DictReader(self._file)

    def pieces(self) -> Iterator[bytes]:
        """Yield the list as CSV (RFC 4180), in UTF-8."""
        self._file.seek(0)
        while some := self._file.read(_PIECE):
            yield some.encode()

    def close(self) -> None:
        self._file.close()


async def list_recipients(
    here: ConsoleServices,
    mailing: Mailing,
    *,
    approver: str,
    by: str,
    name: str | None,
    table: bytes,
    column: str,
) -> RecipientList:
    """List who got the mailing, of the members of the list ``name`` or of the addresses in a CSV ``table``, and journal it. ``by``:
    the client as the system knows it. Raises NotEntitled if no two people have agreed, or ``approver`` is neither; NoAddresses,
    OlderVersions, Occupied and StoreError."""
    if not here.mailings.may_see_recipients(mailing, approver):
        raise NotEntitled("two of those who decide on it agree first, and are told then")
    if here.reporting.locked():
        raise Occupied
    async with here.reporting:
        with tempfile.NamedTemporaryFile(suffix=".csv") as file:  # readable for its owner only
            file.write(table)
            file.flush()
            given = None if name is not None else Path(file.name)
            matched = here.matching(mailing.mailing_id, name=name, file=given, column=column or None)
            try:
                return await _written(here, mailing, matched, (approver, by))
            except NoAddresses as why:  # it names files and servers, which are not for the reader of a page
                if given is not None:
                    raise NoAddresses(str(why).replace(str(given), "the file")) from None
                log.warning("who got mailing %s cannot be listed: %s", mailing.mailing_id, why)
                raise NoAddresses(f"a source of the list {name} fails, and smtpguard's log says how") from None


async def _written(
    here: ConsoleServices, mailing: Mailing, matched: Matching, actors: tuple[str, str]
) -> RecipientList:
    digester = here.in_force.registry.digester
    with ExitStack() as undo:
        made: IO[str] = undo.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", newline=""))
        writer = csv.writer(made)
        writer.writerow(("address", "what"))
        numbers, people = {SENT: 0, MAY: 0}, set[bytes]()
        async for address, status in matched.people():
            what = SENT if status is CopyStatus.RELAYED else MAY if status in MAY_HAVE else ""
            if what:
                writer.writerow((address, what))
                numbers[what] += 1
                people.add(digester.of(Address.parse(address)))
        if matched.older:
            raise OlderVersions("; ".join(matched.older))
        data = {"what": "people", "people": numbers[SENT], "may": numbers[MAY], "set": (whose := set_of(people))}
        event = Event(
            kind=Kind.EXPORTED, id=mailing.mailing_id, at=here.clock.now(), data=data, private={"actor": actors}
        )
        await here.store.journal.record([event])
        undo.pop_all()
        return RecipientList(numbers[SENT], numbers[MAY], whose, made)
