"""Render a page from its values, in the reader's language, and read the fields of forms.

Pages are Jinja templates. Values are escaped. Every page has the elements of base.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, tzinfo
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from smtpguard.console import labels
from smtpguard.console.services import ConsoleServices, Person
from smtpguard.database.errors import CommitUnknown, StoreError
from smtpguard.holds.model import Choice, Conflict, NoAnswer, NotEntitled, PolicyChanged
from smtpguard.holds.summary import reach_of
from smtpguard.locale.phrase import N_, Said
from smtpguard.locale.speech import Speech, choose
from smtpguard.policy.freezing import Freeze, Selector

_MOST_GIVEN_BACK = 1 << 20  # characters of a field of a refused form
_TEMPLATES = Path(__file__).parent / "templates"
CHANGED = N_("Nothing was done: it has changed since you looked. This is its present state.")
POLICY_CHANGED = N_("Nothing was done: the policy has changed since you looked. Look again, and decide.")
NO_ANSWER = N_(
    "Nothing was done: its client has had no answer yet, and may have to send it again. Try again in a quarter of an hour."
)
UNKNOWN = N_(
    "It is not known whether it was done: the database was lost meanwhile. Look at it again before you repeat it."
)
_CONFLICTS = {NoAnswer: NO_ANSWER, PolicyChanged: POLICY_CHANGED}
"""The sentences for conflicts; CHANGED for any other."""


@cache
def environment() -> Environment:
    """Return the environment of all templates, one for each process. ``StrictUndefined``: a value that a page forgot is an error in a
    test, not a gap."""
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def services_of(request: Request) -> ConsoleServices:
    found: ConsoleServices = request.app.state.console
    return found


def speech(request: Request) -> Speech:
    """Return a Speech in the language that the reader chose, else of their browser, else of the organization."""
    who: Person | None = getattr(request.state, "person", None)
    language = choose(who.language if who else "", request.headers.get("accept-language", ""))
    try:
        zone: tzinfo = services_of(request).in_force.hours.zone
    except StoreError:  # the policy in force cannot be read: the page says so
        zone = UTC
    return Speech(language, zone, services_of(request).clock.now().astimezone(zone).year)


class Streamed(StreamingResponse):
    """A response that sends ``pieces``, then calls ``close``, also if the client has gone before the first one."""

    def __init__(
        self,
        pieces: Iterator[bytes],
        media_type: str,
        *,
        close: Callable[[], None],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


class FilledForm:
    """The fields of a form. If it was sent and refused, they keep what was typed, with errors beside them. If it was not sent, or was
    accepted, they are empty. Passwords and codes are never sent back."""

    def __init__(self, sent: FormData | None, wrong: Mapping[str, str]) -> None:
        self._sent, self._wrong = sent, wrong

    @property
    def refused(self) -> bool:
        return self._sent is not None

    def __call__(self, name: str, otherwise: str = "") -> str:
        """Return the text that was typed into a field, ``otherwise`` if the form was not sent."""
        if self._sent is None:
            return otherwise
        value = self._sent.get(name, "")
        return value[:_MOST_GIVEN_BACK] if isinstance(value, str) else ""

    def ticked(self, name: str, value: str, otherwise: bool = False) -> bool:
        return otherwise if self._sent is None else value in self._sent.getlist(name)

    def wrong(self, name: str) -> str:
        return self._wrong.get(name, "")


async def page(
    request: Request, template: str, status: int = 200, *, wrong: Mapping[str, str] | None = None, **values: Any
) -> Response:
    """Return a whole page, with a banner if anything is frozen. ``wrong``: errors of a refused form (4xx) by field name; the form
    comes back as it was filled in."""
    here, said = services_of(request), speech(request)
    try:
        frozen: Sequence[Freeze] | None = await here.freezes.active()
    except StoreError:
        frozen = None
    titles = here.titles
    shown = {
        "_": said,
        "ngettext": said.ngettext,
        "titles": titles,
        "labels": labels,
        "titled": lambda names: ", ".join(titles.get(name, name) for name in names),
        "what_of": lambda freeze: what_of(freeze.selector.value, freeze.value, said, titles),
        "reach_of": reach_of,
        "freezes_in_words": partial(freezes_in_words, said, titles),
        "freeze_reason": lambda freeze: labels.freeze_reason(freeze.reason, said),
        "person": getattr(request.state, "person", None),
        "signed_in": getattr(request.state, "account", None) is not None,
        "csrf": getattr(request.state, "csrf", ""),
        "frozen": frozen,
        "path": request.url.path,
        "posted": request.method == "POST",
        # what was done before this page; only one of our own messages, whatever the URL says
        "done": said(done) if (done := labels.DONE.get(request.query_params.get("done", ""))) else "",
        "filled": lambda action: _filled(request, action, status, wrong or {}),
        "wrong": wrong,
        "now": here.clock.now(),
        "deadline_now": here.approvals.clock.passed(),  # what deadlines go by
    }
    text = environment().get_template(template).render(shown | values)
    # Half a character, as an argument of the command line could leave it in a reason, must not take the page away.
    return HTMLResponse(text.encode(errors="replace"), status_code=status)


def _filled(request: Request, action: str, status: int, wrong: Mapping[str, str]) -> FilledForm:
    """Return the fields of the form whose target is ``action``."""
    mine = request.method == "POST" and status >= 400 and request.url.path == action
    return FilledForm(getattr(request.state, "form", None) if mine else None, wrong if mine else {})


def what_of(selector: str, name: str, said: Speech, titles: Mapping[str, str]) -> str:
    """Return what a freeze stops, in words. ``name``: its value."""
    if selector == Selector.LIST.value:
        name = titles.get(name, name)
    elif selector == Selector.MAILING.value:
        name = name[:12]
    return said(labels.SELECTORS.get(selector, selector), name=name)


def freezes_in_words(
    said: Speech, titles: Mapping[str, str], freezes: Iterable[Freeze], named: Collection[str] | None = None
) -> str:
    """Return which freezes must be thawed first, with who set them and when. ``named``: titles of the lists that may be named to this
    reader; None for all."""

    def one(freeze: Freeze) -> str:
        hidden = freeze.selector is Selector.LIST and named is not None and titles.get(freeze.value) not in named
        what = said("a list") if hidden else what_of(freeze.selector.value, freeze.value, said, titles)
        frozen = said("frozen by {who}, {time}", who=freeze.by, time=said.when(freeze.at))
        until = said("until {time}", time=said.when(freeze.until)) if freeze.until is not None else ""
        return f"{what} ({frozen}{', ' if until else ''}{until})"

    return "; ".join(map(one, freezes))


class WrongField(Exception):
    """A field of a form cannot be accepted. ``field``: its name; ``why``: in English, to be translated."""

    def __init__(self, field: str, why: Said) -> None:
        super().__init__(str(why))
        self.field, self.why = field, why


def form(request: Request) -> FormData:
    """Return the form of a POST, as the middleware read it."""
    found: FormData = request.state.form
    return found


def text_of(sent: FormData, name: str, most: int = 2_000) -> str:
    """Return the text of a field, stripped and with at most ``most`` characters; "" if there is no such field."""
    value = sent.get(name, "")
    return value.replace("\r\n", "\n").strip()[:most] if isinstance(value, str) else ""


def not_done(error: Conflict | NotEntitled | StoreError, said: Speech) -> tuple[int, str]:
    """Return the status and the sentence for people, if a service did nothing."""
    if isinstance(error, Conflict):
        return 409, said(_CONFLICTS.get(type(error), CHANGED))
    if isinstance(error, NotEntitled):
        return 403, said("Nothing was done: you have no right to do this.")
    if isinstance(error, CommitUnknown):
        return 503, said(UNKNOWN)
    return 503, said("Nothing was done: the record cannot be written at the moment. Try again.")


def digits(text: str) -> int | None:
    """Return the number that consists of these digits; None for other text, and for a number that is too long to be meant."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else None


def number_of(text: str) -> int | None:
    """Return a number with any grouping of its digits: 412,318 or 412 318 or 412318. Return None for other text."""
    return digits(re.sub(r"[\s.,\u00a0\u202f']", "", text))


def number(sent: FormData, name: str) -> int | None:
    return number_of(text_of(sent, name))


def choice_of(sent: FormData) -> Choice:
    """Return the choice of a decision's button. Raises HTTPException if the form has none."""
    try:
        return Choice(text_of(sent, "choice"))
    except ValueError:
        raise HTTPException(400) from None


async def uploaded(sent: FormData, name: str, most: int = -1) -> bytes:
    """Return the file in a field, at most ``most`` octets of it; b"" if there is none."""
    upload = sent.get(name)
    return await upload.read(most) if isinstance(upload, UploadFile) else b""


def see_other(path: str, **query: str) -> Response:
    """Redirect, after a POST, to the page that shows what it did (RFC 9110 section 15.4.4). ``path``: one of ours."""
    tail = "&".join(f"{name}={quote(value)}" for name, value in query.items())
    return RedirectResponse(f"{path}?{tail}" if tail else path, status_code=303)
