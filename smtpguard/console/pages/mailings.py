"""The Mailings pages: numbers, stages and growth of each mailing, people's decisions on it, and the addresses that got
it, for the two people who agreed on that.

Each list of addresses is journalled first. It is written to an unnamed temporary file, since it may have millions.
"""

from __future__ import annotations

import csv
import logging
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.admission.preapproval import NotAll
from smtpguard.console import labels
from smtpguard.console.chart import drawn, stacked
from smtpguard.console.filters import PAGE, listed, sees
from smtpguard.console.rendering import (
    Streamed,
    form,
    not_done,
    page,
    see_other,
    services_of,
    speech,
    text_of,
    uploaded,
)
from smtpguard.console.reporting import Occupied
from smtpguard.console.services import ConsoleServices, Routes, person
from smtpguard.database.errors import StoreError
from smtpguard.holds import coverage
from smtpguard.holds.model import Conflict, NotEntitled, Refused
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech
from smtpguard.mail.address import Address
from smtpguard.mail.message import Message, with_crlf
from smtpguard.mailings.model import MAY_HAVE, CopyStatus, Mailing, set_of
from smtpguard.mailings.service import Back, NoAddresses, decides, writers
from smtpguard.returns.growth import TRENDS, Deed, Done, Growth
from smtpguard.returns.mentions import by_source
from smtpguard.returns.model import COUNTED, SORTS, By, Sort

if TYPE_CHECKING:  # slow to import
    from smtpguard.mailings.service import Matched

_MOST_OCTETS = 50 << 20

ROUTES = Routes()


@ROUTES.get("/mailings", *Role)
async def mailings(request: Request) -> Response:
    after = request.query_params.get("after", "")[:100]
    found, further = await listed(services_of(request), person(request), limit=PAGE, after=after)
    return await page(request, "mailings.html", mailings=found, further=further)


@ROUTES.post("/mailings/{mailing_id}", Role.APPROVER)
async def act(request: Request) -> Response:
    """Continue, stop, revoke what was decided, or reject what is not sent, with what waits."""
    here, who, said = services_of(request), person(request), speech(request)
    found = await found_of(request)
    sent = form(request)
    comment = text_of(sent, "comment", 500)
    moves: dict[str, Callable[..., Awaitable[Mailing | Back]]] = {
        "go": here.mailings.go_on,
        "stop": here.mailings.stop,
        "reopen": here.mailings.reopen,
        "reject": here.mailings.reject,
        "disclose": here.mailings.disclose,
    }
    move = moves.get(text_of(sent, "move"))
    if move is None:
        raise HTTPException(404)
    if sent.get("move") == "reject" and not comment:
        return await _shown(
            request, 422, wrong={"comment": said("Give a reason for the rejection: its writer reads it.")}
        )
    try:
        made = await move(found.mailing_id, approver=who.address, by=who.by, comment=comment)
        if sent.get("move") == "reject":
            left = await here.approvals.reject_waiting(
                found.mailing_id, approver=who.address, by=who.by, comment=comment
            )
            if any(left.values()):
                problem = said("It is rejected. Some messages of it still wait for others to decide.")
                return await _shown(request, 409, problem)
    except (Conflict, NotEntitled, StoreError) as error:
        return await _shown(request, *not_done(error, said))
    there = made.disclosure if isinstance(made, Mailing) and sent.get("move") == "disclose" else None
    what = "done" if there is None else "people-agreed" if there.agreed_by else "people-asked"
    return see_other(f"/mailings/{found.mailing_id}", done=what)


@ROUTES.post("/mailings/{mailing_id}/people", Role.APPROVER)
async def people(request: Request) -> Response:
    """Serve the list of who got it as CSV, to the two who agreed."""
    here, who, said = services_of(request), person(request), speech(request)
    found, sent = await found_of(request), form(request)
    name, table = text_of(sent, "list"), await uploaded(sent, "file")
    if not name and not table:
        return await _shown(request, 422, wrong={"list": said("Choose a list, or a file.")})
    try:
        got = await listing(
            here,
            found,
            approver=who.address,
            by=who.by,
            name=None if table else name,
            table=table,
            column=text_of(sent, "column", 100),
        )
    except NoAddresses as why:
        return await _shown(request, 422, wrong={"list": said("These addresses cannot be read: {why}.", why=str(why))})
    except OlderVersions as some:
        wrong = said("Not all of them can be matched: it went to {then}. Choose a file exported then.", then=some.older)
        return await _shown(request, 422, wrong={"list": wrong})
    except NotEntitled:
        return await _shown(request, 403, said("No addresses were shown: two approvers must agree first."))
    except Occupied:
        return await _shown(request, 409, said("Another one is being made: ask again in a minute."))
    except StoreError as error:
        return await _shown(request, *not_done(error, said))
    headers = {"Content-Disposition": f'attachment; filename="{found.mailing_id}.csv"', "Cache-Control": "no-store"}
    return Streamed(got.pieces(), "text/csv; charset=utf-8; header=present", close=got.close, headers=headers)


@ROUTES.get("/mailings/{mailing_id}", *Role)
async def _shown(
    request: Request, status: int = 200, problem: str = "", *, wrong: Mapping[str, str] | None = None
) -> Response:
    here, who = services_of(request), person(request)
    found = await found_of(request)
    in_force = here.in_force
    may = Role.APPROVER in who.roles and decides(who.address, found.lists, in_force, here.clock.now())
    progress = found.progress.timely(here.clock.now()) if found.progress is not None else None
    return await page(
        request,
        "mailing.html",
        status,
        mailing=found,
        progress=progress,
        stopped_by=await here.freezes.against(found) if found.grant is not None else (),
        covers=[
            [speech(request).say(each) for each in coverage.sentences(one, blind=True)]
            for one in await here.mailings.covers(found)
        ],
        chart=drawn(await here.store.mailings.growth(found.mailing_id)),
        may=may and who.address not in writers(found, in_force),
        told=here.mailings.may_be_told(found, who.address),
        mine=found.disclosure is not None and found.disclosure.asked_by in in_force.addresses_of(who.address),
        known=_with_members(here, found),
        may_correct=may and found.people.at_most != 0,
        problem=problem,
        wrong=wrong,
    )


@ROUTES.post("/mailings/{mailing_id}/correct", Role.APPROVER)
async def correct(request: Request) -> Response:
    """Begin its correction, to exactly those who got it."""
    here, who, said = services_of(request), person(request), speech(request)
    found, sent = await found_of(request), form(request)
    raw = await uploaded(sent, "file", _MOST_OCTETS + 1)
    if not raw.strip() or len(raw) > _MOST_OCTETS:
        wrong = said("Choose a message of at most 50 MB, saved as a file (.eml).")
        return await _shown(request, 422, wrong={"file": wrong})
    message = Message.of(with_crlf(raw))
    try:
        await here.corrections.begin(found, message, starter=who.address, by=who.by, doubt=bool(sent.get("doubt")))
    except NotAll as some:
        wrong = said(
            "It went to the address of {lists}, and the list has changed since. Whoever runs the guard can begin the correction with an export from then.",
            lists=", ".join(some.lists),
        )
        return await _shown(request, 422, wrong={"file": wrong})
    except (NotEntitled, StoreError) as error:
        return await _shown(request, *not_done(error, said))
    except Refused as why:
        return await _shown(request, 422, wrong={"file": said("No correction was begun: {why}.", why=said(str(why)))})
    return see_other(f"/mailings/{found.mailing_id}", done="correcting")


def _with_members(here: ConsoleServices, found: Mailing) -> list[tuple[str, str]]:
    """Titles and names of lists whose members can be matched; those that the mailing went to come first."""
    matched = [(title, name) for title, name in here.choices if here.lists[name].members]
    return sorted(matched, key=lambda one: one[1] not in found.lists)


async def found_of(request: Request) -> Mailing:
    here, who = services_of(request), person(request)
    try:
        found = await here.mailings.show(request.path_params["mailing_id"][:100])
    except KeyError:
        raise HTTPException(404) from None
    if not sees(who, found, here.in_force, here.clock.now()):
        raise HTTPException(404)
    return found


LATEST = 20
_BOXES = ("held", "late", "passed", "refused")
"""The colours of the bars."""
_DONE: Mapping[Deed, str] = {
    Deed.WENT: N_("The first copy went out"),
    Deed.ENDED: N_("The last copy so far went out"),
    Deed.FIRST: N_("The first thing came back"),
    Deed.FROZEN: N_("Frozen"),
    Deed.THAWED: N_("Thawed"),
    Deed.CHANGED: N_("The mailing"),
}
ONE: Mapping[Sort, str] = {
    Sort.BOUNCE: N_("bounce"),
    Sort.COMPLAINT: N_("complaint"),
    Sort.REPLY: N_("reply"),
    Sort.UNSUBSCRIBE: N_("unsubscribe"),
    Sort.AUTOMATIC: N_("automatic reply"),
    Sort.DELAY: N_("delay"),
    Sort.DELIVERED: N_("delivery report"),
    Sort.MENTION: N_("mention"),
    Sort.UNSORTED: N_("unsorted"),
}
KNOWN: Mapping[By, str] = {
    By.TRACE: N_("the guard's trace"),
    By.ENVID: N_("its envelope id"),
    By.VERP: N_("its reverse-path"),
    By.MESSAGE_ID: N_("its Message-ID"),
    By.LIKENESS: N_("its text or subject: likely"),
    By.NOTHING: N_("nothing"),
}


@ROUTES.get("/mailings/{mailing_id}/returns", *Role)
async def returns(request: Request) -> Response:
    here, said = services_of(request), speech(request)
    mailing = await found_of(request)
    growth = await here.returns.growth(mailing)
    return await page(
        request,
        "returns.html",
        mailing=mailing,
        growth=growth,
        trend=trend(growth, said),
        done=[(one.at, in_words(one, said)) for one in growth.done],
        drawn=stacked([(one.at, [one.of(sort) for sort in COUNTED]) for one in growth.stretches]),
        series=[(box, said(SORTS[sort])) for box, sort in zip(_BOXES, COUNTED, strict=True)],
        sorts=SORTS,
        shown=COUNTED,
        one_words=ONE,
        known=KNOWN,
        daily=growth.width >= timedelta(days=1),
        outside=by_source(await here.returns.outside(mailing.first_at)),
        latest=await here.store.returns.newest(mailing=mailing.mailing_id, limit=LATEST),
    )


def trend(growth: Growth, said: Speech) -> str:
    words = {"span": said.span(growth.span), "now": said.number(growth.now), "before": said.number(growth.before)}
    return said(TRENDS[growth.trend], **words)


def in_words(one: Done, said: Speech) -> str:
    if one.deed in (Deed.STOPPED, Deed.OBSERVED):
        return labels.tripped(one.data, said)
    words = said(_DONE[one.deed])
    if one.deed is Deed.CHANGED:
        return f"{words}: {said(labels.DEEDS.get(one.data['what'], one.data['what']))}"
    return words


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
    """``sent``: number of addresses that have it; ``may``: number that may have it or still get it; ``set``: the id of
    this set of people (mailings.model.set_of). Read it once, and close it."""

    sent: int
    may: int
    set: str
    _file: IO[str]

    def rows(self) -> Iterator[dict[str, str]]:
        """Each address, with SENT or MAY."""
        self._file.seek(0)
        yield from csv.DictReader(self._file)

    def pieces(self) -> Iterator[bytes]:
        """As CSV (RFC 4180), in UTF-8."""
        self._file.seek(0)
        while some := self._file.read(_PIECE):
            yield some.encode()

    def close(self) -> None:
        self._file.close()


async def listing(
    here: ConsoleServices,
    mailing: Mailing,
    *,
    approver: str,
    by: str,
    name: str | None,
    table: bytes,
    column: str,
) -> RecipientList:
    """Match the members of the list ``name``, or the addresses in a CSV ``table``. ``by``: the client as the system
    knows it. Raises NotEntitled if no two people have agreed, or ``approver`` is neither; NoAddresses, OlderVersions, Occupied
    and StoreError."""
    if not here.mailings.may_be_told(mailing, approver):
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


async def _written(here: ConsoleServices, mailing: Mailing, matched: Matched, actors: tuple[str, str]) -> RecipientList:
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
