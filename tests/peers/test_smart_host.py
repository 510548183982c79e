"""Sendmail and Exim with smtpguard as their smart host, set up from their pages: what passes, is held, and waits in
their queue."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers import exim, letters, sendmail
from tests.peers.chain import Guard, Recorder, until
from tests.peers.exim import Exim
from tests.peers.recipe import recipe
from tests.peers.sendmail import Sendmail

DOCS = Path(__file__).parents[2] / "docs"
FILTERS = ", InputMailFilters=smtpguard;other"


def of_sendmail(root: Path, port: int) -> Sendmail:
    lines = recipe("Sendmail", {"10025": str(port), "guard.example.com": "127.0.0.1"}, DOCS / "sendmail.md")
    mta = Sendmail(root, relay=1, recipe=lines["sendmail.mc"])  # the page's recipe names the smart host later
    assert FILTERS in mta.mc
    mta.mc = mta.mc.replace(FILTERS, "")
    return mta


def of_exim(root: Path, port: int) -> Exim:
    """An Exim on the same machine, as on the page."""
    here = {"10025": str(port), "guard.example.com": "127.0.0.1", "  no_more": "  self = send\n  no_more"}
    files = recipe("Exim", here, DOCS / "exim.md")
    return Exim(
        recipe=files["exim4.conf: before the other routers"],
        data=files["exim4.conf: in the ACL that acl_smtp_data names"],
    )


FRONTS: dict[str, tuple[Callable[[], str | None], Callable[[Path, int], Sendmail | Exim]]] = {
    "sendmail": (sendmail.missing, of_sendmail),
    "exim": (exim.missing, of_exim),
}


class Fronted:
    def __init__(self, root: Path, name: str, enter: ExitStack) -> None:
        self.recorder = enter.enter_context(Recorder())
        self.name = name
        relay = f"{{host: 127.0.0.1, port: {self.recorder.port}, tls: none}}"
        self.guard = Guard(root / name, relay_port=self.recorder.port, workers=1, settings={"relay": relay})
        self.mta = FRONTS[name][1](root / name, self.guard.port)
        enter.enter_context(self.guard)
        enter.enter_context(self.mta)

    def submit(self, recipient: str, message_id: str, subject: str, text: str) -> None:
        mail = letters.mail(to=recipient, subject=subject, message_id=message_id, text=text)
        with smtplib.SMTP("127.0.0.1", self.mta.port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            smtp.sendmail("anna@example.com", [recipient], mail)

    def passes(self, message_id: str) -> None:
        until(lambda: self.recorder.with_id(message_id), why=f"{message_id} to pass")


@pytest.fixture(scope="module", params=sorted(FRONTS))
def fronted(request: pytest.FixtureRequest, certified: Path) -> Iterator[Fronted]:
    name = str(request.param)
    if why := FRONTS[name][0]():
        pytest.skip(why)
    root = certified / name
    root.mkdir()
    root.chmod(0o755)
    for file in ("cert.pem", "key.pem"):
        (root / file).write_bytes((certified / file).read_bytes())
    with ExitStack() as enter:
        yield Fronted(certified, name, enter)


def test_ordinary_mail_passes_and_the_story_is_held(fronted: Fronted) -> None:
    fronted.submit("you@example.org", "front-1@example.com", "Drawings", "The drawings are in the usual place.\n")
    fronted.passes("front-1@example.com")
    to, bacon = "ramadan@lists.example.com", "Hej, bacon och sprit i morgon? /Anna\n"
    fronted.submit(to, "front-2@example.com", "SV: Dieten", bacon)
    until(lambda: fronted.guard.held("SV: Dieten"), why="the post to be held")
    assert fronted.recorder.with_id("front-2@example.com") == []


def test_a_nul_is_refused_while_the_client_is_connected(fronted: Fronted) -> None:
    """smtpguard refuses it, and would refuse a bounce that contains it."""
    with pytest.raises(smtplib.SMTPDataError) as refused:
        fronted.submit("you@example.org", "front-nul@example.com", "Drawings", "a\0b\n")
    assert refused.value.smtp_code in (550, 554)


def test_while_smtpguard_is_down_mail_stays_queued(fronted: Fronted) -> None:
    fronted.guard.stop()
    fronted.submit("you@example.org", "front-3@example.com", "Later", "It can wait.\n")
    assert fronted.recorder.with_id("front-3@example.com") == []
    fronted.guard.start()
    fronted.passes("front-3@example.com")
