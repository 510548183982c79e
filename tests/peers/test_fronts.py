"""Postfix in front of smtpguard in every way that docs/postfix.md has a recipe for, set up from that page.

For each: ordinary mail passes and the relay is told whose client it was; the story is held; nothing is lost while
smtpguard is down; and what a refusal looks like to who wrote.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.peers import letters, postfix
from tests.peers.chain import POLICY, Guard, Recorder, rules, until
from tests.peers.postfix import Postfix, free_port
from tests.peers.recipe import parameters, recipe
from tests.scripted_relay import DOT, STALL

SECRET = "hunter2"
REFUSED = """
  - id: never
    description: This is never sent
    when: {message.looks: mailing}
    then: reject
"""
BEFORE_THE_QUEUE = ("Before the queue", "... reading the message first")
QUEUED = ("Between two Postfixes", "Only mail to some domains", "After the queue")


class Front:
    """One recipe, built. ``port``: where colleagues submit."""

    def __init__(self, root: Path, heading: str) -> None:
        self._stack = ExitStack()
        self.heading, self.root = heading, root / heading.split("(")[0].strip(" .").replace(" ", "-")
        self.login: str | None = None

    def __enter__(self) -> Front:
        enter = self._stack.enter_context
        _with_certificates(self.root)
        self.recorder = enter(Recorder())
        last = {"relayhost": f"[127.0.0.1]:{self.recorder.port}"}
        self.port, back = free_port(), free_port()
        self.guard = Guard(self.root, relay_port=back, policy=POLICY + rules() + REFUSED, workers=1, settings={
            "relay": f"{{host: 127.0.0.1, port: {back}}}",
        })  # fmt: skip
        ports = {"127.0.0.1:10025": f"127.0.0.1:{self.guard.port}", "[127.0.0.1]:10025": f"[127.0.0.1]:{self.guard.port}",
                 "127.0.0.1:10026": f"127.0.0.1:{back}", "submission inet": f"127.0.0.1:{self.port} inet"}  # fmt: skip
        files = recipe(self.heading, ports)
        if "main.cf of the Postfix in front" in files:
            self.relay = Postfix(
                self.root, name="relay", main={**last, **parameters(files.get("main.cf of the relay", XFORWARD))}
            )
            self.relay.config.joinpath("master.cf").write_text(
                self.relay.config.joinpath("master.cf").read_text().replace(f":{self.relay.port} ", f":{back} ", 1)
            )
            self.relay.port = back
            self.front = Postfix(
                self.root, name="front", main={**last, **parameters(files["main.cf of the Postfix in front"])}
            )
            enter(self.relay)
            self.port = self.front.port
        else:
            main = {**last, **parameters(files.get("main.cf", ""))}
            if "sasl_auth" in files["master.cf"]:
                main |= postfix.sasl(self.root, {"anna@example.com": SECRET})
                self.login = "anna@example.com"
            self.relay = self.front = Postfix(self.root, name="front", main=main, master=files["master.cf"])
            self.port = self.port if self.login else self.front.port
        enter(self.front)
        enter(self.guard)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def submit(self, mail: bytes, to: str) -> dict[str, Any]:
        """As a mail client; raises what it is told."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60, local_hostname="desk.example.com") as smtp:
            if self.login:
                smtp.login(self.login, SECRET)
            return smtp.sendmail("anna@example.com", [to], mail)

    def settled(self) -> bool:
        return self.front.queued() == 0 and self.relay.queued() == 0


XFORWARD = "smtpd_authorized_xforward_hosts = 127.0.0.0/8"


@pytest.fixture(scope="module", params=[*QUEUED, *BEFORE_THE_QUEUE])
def front(request: pytest.FixtureRequest, certified: Path) -> Iterator[Front]:
    if why := postfix.sasl_missing():
        pytest.skip(why)
    with Front(certified, request.param) as front:
        yield front


LIST = "ramadan@lists.example.com"


def code(told: smtplib.SMTPException) -> int:
    if isinstance(told, smtplib.SMTPRecipientsRefused):
        return min(code for code, _ in told.recipients.values())
    assert isinstance(told, smtplib.SMTPResponseException)
    return told.smtp_code


def a_mail(message_id: str) -> tuple[bytes, str]:
    """To somebody outside in all recipes, also where only the list's domain goes through smtpguard."""
    to = "owner@lists.example.com"
    return letters.mail(to=to, subject="Fråga", text="Går det bra på fredag?\n", message_id=message_id), to


def test_ordinary_mail_passes_and_the_relay_knows_the_client(front: Front) -> None:
    mail, to = a_mail("ordinary@example.com")
    front.submit(mail, to)
    [got] = until(lambda: front.recorder.with_id("ordinary@example.com"), why="the mail")
    assert b"(smtpguard)" in got.content
    assert any("orig_client=" in line for line in front.relay.lines()), front.relay.lines()


def test_the_story_is_held(front: Front) -> None:
    front.submit(letters.story("held@example.com"), LIST)
    [hold] = until(lambda: front.guard.held("SV: Bacon och brännvin"), why="the hold")
    assert hold["state"] == "waiting"
    until(front.settled, why="the queues to empty")
    assert not front.recorder.with_id("held@example.com")


def test_a_refusal(front: Front) -> None:
    mail = letters.campaign("refused@example.com", to="owner@lists.example.com")
    if front.heading in BEFORE_THE_QUEUE:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            front.submit(mail, "owner@lists.example.com")
        assert refused.value.smtp_code == 550
        assert b"This is never sent" in bytes(refused.value.smtp_error)
        assert not front.front.queued()
    else:
        front.submit(mail, "owner@lists.example.com")
        until(
            lambda: any("status=bounced" in line and "This is never sent" in line for line in front.front.lines()),
            why="550",
        )
        until(lambda: any(b"Undelivered Mail" in m.content for m in front.recorder.messages), why="the bounce")
    got = front.recorder.with_id("refused@example.com")
    assert all(m.mail.startswith(b"MAIL FROM:<>") for m in got), "in the bounce alone"


def test_nothing_is_lost_while_smtpguard_is_down(front: Front) -> None:
    mail, to = a_mail("down@example.com")
    front.guard.stop()
    try:
        if front.heading in BEFORE_THE_QUEUE:
            with pytest.raises(smtplib.SMTPException) as told:
                front.submit(mail, to)
            assert 400 <= code(told.value) < 500, "the mail client keeps it"
            until(front.settled, why="Postfix to forget what it did not take")
        else:
            front.submit(mail, to)
            until(
                lambda: any(f"to=<{to}>" in x and "status=deferred" in x for x in front.front.lines()),
                why="the deferral",
            )
            assert front.front.queued() == 1
    finally:
        front.guard.start()
    if front.heading in BEFORE_THE_QUEUE:
        front.submit(mail, to)
    until(lambda: front.recorder.with_id("down@example.com"), 60, why="the mail, once smtpguard is back")
    until(front.settled, why="the queues to empty")
    assert len(front.recorder.with_id("down@example.com")) == 1


def test_a_relay_that_refuses_a_recipient(front: Front) -> None:
    front.recorder.relay.on("RCPT TO:<nobody@lists.example.com>", "550 5.1.1 No such user")
    mail = letters.mail(to="nobody@lists.example.com", message_id="nobody@example.com")
    front.submit(mail, "nobody@lists.example.com")  # the Postfix behind has it in its queue: its own bounce
    until(
        lambda: any("status=bounced" in line and "No such user" in line for line in front.relay.lines()),
        why="its bounce",
    )


def test_a_timeout_that_is_too_short_sends_twice(certified: Path) -> None:
    """Why the recipe has 900 s: with a second's patience, Postfix says 451 of a message that arrives all the same."""
    if why := postfix.sasl_missing():
        pytest.skip(why)
    with ExitStack() as undo:
        recorder = undo.enter_context(Recorder())
        root = certified / "impatient"
        _with_certificates(root)
        guard = undo.enter_context(
            Guard(
                root,
                relay_port=recorder.port,
                workers=1,
                settings={"relay": f"{{host: 127.0.0.1, port: {recorder.port}}}"},
            )
        )
        port = free_port()
        undo.enter_context(
            Postfix(
                root,
                name="front",
                master=f"127.0.0.1:{port} inet n - n - - smtpd"
                f" -o smtpd_proxy_filter=127.0.0.1:{guard.port} -o smtpd_proxy_timeout=1s\n",
            )
        )
        recorder.call(_stalls(recorder))
        with smtplib.SMTP("127.0.0.1", port, timeout=60) as smtp, pytest.raises(smtplib.SMTPDataError) as told:
            smtp.sendmail("anna@example.com", ["you@example.org"], letters.mail(message_id="twice@example.com"))
        assert told.value.smtp_code == 451
        recorder.call(_goes_on(recorder))
        until(lambda: recorder.with_id("twice@example.com"), why="what Postfix believes was not sent")


def _with_certificates(root: Path) -> None:
    root.mkdir()
    for name in ("cert.pem", "key.pem"):
        (root / name).symlink_to(root.parent / name)


async def _stalls(recorder: Recorder) -> None:
    recorder.relay.on(DOT, [STALL, "250 2.0.0 Taken at last"])


async def _goes_on(recorder: Recorder) -> None:
    recorder.relay.resume()
