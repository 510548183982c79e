"""Postfix in front of smtpguard, once for every recipe of docs/postfix.md, set up from that page.

Each recipe: ordinary mail passes and the relay gets the client's address; the story is held; nothing is lost while
smtpguard is down; and a refusal reaches the writer.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers import letters, postfix
from tests.peers.chain import POLICY, Guard, Recorder, logged, rules, until
from tests.peers.postfix import Postfix, free_port
from tests.peers.recipe import parameters, recipe
from tests.script import DOT, STALL
from tests.scripted_relay import Message

SECRET = "hunter2"
REFUSED = """
  - id: never
    description: This is never sent
    when: {message.looks: mailing}
    then: reject
"""
BEFORE_THE_QUEUE = ("Before the queue", "... reading the message first")
QUEUED = ("Between two Postfixes", "Only mail to some domains", "After the queue")


class Behind:
    """Behind every front: a guard whose relay is at port ``back``, and the last hop."""

    def __init__(self, root: Path) -> None:
        self._stack = ExitStack()
        self.root, self.back = root, free_port()

    def __enter__(self) -> Behind:
        self.recorder = self._stack.enter_context(Recorder())
        policy, settings = POLICY + rules() + REFUSED, {"relay": f"{{host: 127.0.0.1, port: {self.back}}}"}
        self.guard = Guard(self.root, relay_port=self.back, policy=policy, workers=1, settings=settings)
        self._stack.enter_context(self.guard)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Front:
    """One recipe in use. ``port``: where colleagues submit. ``name``: marks its messages."""

    def __init__(self, behind: Behind, heading: str) -> None:
        self._stack = ExitStack()
        self.heading, self.name = heading, heading.strip(" .").replace(" ", "-")
        self.root = behind.root / self.name
        self.guard, self.recorder, self._back = behind.guard, behind.recorder, behind.back
        self.login: str | None = None

    def __enter__(self) -> Front:
        self.root.mkdir()
        last = {
            "relayhost": f"[127.0.0.1]:{self.recorder.port}",
            "virtual_alias_maps": f"inline:{{{{{FRIENDS} = {OWNER}}}}}",
        }
        (self.root / "checks").write_text(f"/^From:/ PREPEND {CHECKED.decode().strip()}\n")
        checks = {"header_checks": f"regexp:{self.root / 'checks'}"}
        submission = free_port()
        files = recipe(
            self.heading,
            {
                "127.0.0.1]:10025": f"127.0.0.1]:{self.guard.port}",
                "127.0.0.1:10025": f"127.0.0.1:{self.guard.port}",
                "127.0.0.1:10026": f"127.0.0.1:{self._back}",
                "submission inet": f"127.0.0.1:{submission} inet",
            },
        )
        if "main.cf of the Postfix in front" in files:
            relay = {**last, **parameters(files.get("main.cf of the relay", XFORWARD))}
            self.relay = Postfix(self.root, name="relay", main=relay, port=self._back)
            front = {"relayhost": last["relayhost"], **checks, **parameters(files["main.cf of the Postfix in front"])}
            self.front = Postfix(self.root, name="front", main=front)
            self._stack.enter_context(self.relay)
        else:
            main = {**last, **checks, **parameters(files.get("main.cf", ""))}
            if "sasl_auth" in files["master.cf"]:
                main |= postfix.sasl(self.root, {"anna@example.com": SECRET})
                self.login = "anna@example.com"
            self.relay = self.front = Postfix(self.root, name="front", main=main, master=files["master.cf"])
        self.port = submission if self.login else self.front.port
        self._stack.enter_context(self.front)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def submit(self, mail: bytes, to: str) -> None:
        """Submit as a mail client does. Raises SMTPException if refused."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=120, local_hostname="desk.example.com") as smtp:
            if self.login:
                smtp.login(self.login, SECRET)
            smtp.sendmail("anna@example.com", [to], mail)

    def with_id(self, what: str) -> list[Message]:
        return self.recorder.with_id(f"{what}-{self.name}@example.com")

    def is_idle(self) -> bool:
        return self.front.queued() == 0 and self.relay.queued() == 0


CHECKED = b"X-Checked: by Postfix\r\n"
XFORWARD = "smtpd_authorized_xforward_hosts = 127.0.0.0/8"


@pytest.fixture(scope="module")
def behind(certified: Path) -> Iterator[Behind]:
    if why := postfix.sasl_missing():
        pytest.skip(why)
    with Behind(certified) as behind:
        yield behind


@pytest.fixture(scope="module", params=[*QUEUED, *BEFORE_THE_QUEUE])
def front(request: pytest.FixtureRequest, behind: Behind) -> Iterator[Front]:
    with Front(behind, request.param) as front:
        yield front


LIST = "ramadan@lists.example.com"
FRIENDS = "friends@lists.example.com"
"""A list's address that the Postfix behind smtpguard expands, which may be the one in front."""
OWNER = "owner@lists.example.com"
"""An outside address whose mail passes smtpguard in every recipe, also in those for the list's domain only."""


def code(told: smtplib.SMTPException) -> int:
    if isinstance(told, smtplib.SMTPRecipientsRefused):
        return min(code for code, _ in told.recipients.values())
    assert isinstance(told, smtplib.SMTPResponseException)
    return told.smtp_code


def a_mail(front: Front, what: str, to: str = OWNER) -> bytes:
    text = f"Går det bra på fredag? {front.name}\n"
    return letters.mail(to=to, subject="Fråga", text=text, message_id=f"{what}-{front.name}@example.com")


def test_a_short_timeout_in_front_sends_twice(behind: Behind) -> None:
    """With a proxy timeout of one second, Postfix answers 451 for a message that arrives nevertheless; hence 900 s in
    the recipe. This test comes first in the file, before a front starts its Postfix at port ``back``."""
    guard, recorder, port = behind.guard, behind.recorder, free_port()
    impatient = f"127.0.0.1:{port} inet n - n - - smtpd -o smtpd_proxy_filter=127.0.0.1:{guard.port} -o smtpd_proxy_timeout=1s\n"
    with ScriptedInProcess(behind.back) as slow, Postfix(behind.root, name="impatient", master=impatient):
        slow.call(_stall(slow))

        def sent_and_refused() -> bool:
            """On a busy machine the second may be over before the final dot."""
            with smtplib.SMTP("127.0.0.1", port, timeout=120) as smtp, pytest.raises(smtplib.SMTPException) as told:
                smtp.sendmail("anna@example.com", [OWNER], letters.mail(to=OWNER, message_id="twice@example.com"))
            assert code(told.value) == 451
            return bool(slow.with_id("twice@example.com"))

        until(sent_and_refused, why="what Postfix believes was not sent")
        slow.call(_resume(slow))
    assert not recorder.with_id("twice@example.com")


def test_ordinary_mail_passes_with_its_client(front: Front) -> None:
    front.submit(a_mail(front, "ordinary"), OWNER)
    [got] = until(lambda: front.with_id("ordinary"), why="the mail")
    assert b"(smtpguard)" in got.content
    assert got.content.count(CHECKED) == 1, "the checks of the header change it once"
    logged(front.relay, "orig_client=")


def test_the_story_is_held(front: Front) -> None:
    subject = f"SV: Bacon, {front.name}"
    front.submit(letters.story(f"held-{front.name}@example.com", subject=subject), LIST)
    [hold] = until(lambda: front.guard.held(subject), why="the hold")
    assert hold["state"] == "waiting"
    until(front.is_idle, why="the queues to empty")
    assert not front.with_id("held")


def test_a_list_that_the_same_postfix_expands_is_held(front: Front) -> None:
    subject = f"SV: Alias, {front.name}"
    front.submit(letters.story(f"alias-{front.name}@example.com", to=FRIENDS, subject=subject), FRIENDS)
    [hold] = until(lambda: front.guard.held(subject), why="the hold")
    assert hold["recipients"] == [FRIENDS]
    assert not front.with_id("alias")


def test_a_refusal_becomes_a_bounce(front: Front) -> None:
    mail = letters.campaign(f"refused-{front.name}@example.com", to=OWNER)
    if front.heading in BEFORE_THE_QUEUE:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            front.submit(mail, OWNER)
        assert refused.value.smtp_code == 550
        assert b"This is never sent" in refused.value.smtp_error
        until(front.is_idle, why="Postfix to forget it")
    else:
        front.submit(mail, OWNER)
        until(lambda: front.with_id("refused"), why="the bounce, with the message in it")
        logged(front.front, "status=bounced", "This is never sent")
    assert all(m.mail.startswith(b"MAIL FROM:<>") for m in front.with_id("refused")), "only in the bounce"


def test_a_nul_is_refused_while_the_client_is_connected(front: Front) -> None:
    """smtpguard refuses it, and would refuse a bounce that contains it."""
    with pytest.raises(smtplib.SMTPDataError) as refused:
        front.submit(a_mail(front, "nul").replace(b"fredag", b"fre\0dag"), OWNER)
    assert refused.value.smtp_code == 550
    until(front.is_idle, why="Postfix to forget it")


def test_while_smtpguard_is_down_mail_stays_queued(front: Front) -> None:
    mail = a_mail(front, "down")
    until(front.is_idle, why="the queues to empty")
    front.guard.stop()
    try:
        if front.heading in BEFORE_THE_QUEUE:
            with pytest.raises(smtplib.SMTPException) as told:
                front.submit(mail, OWNER)
            assert 400 <= code(told.value) < 500, "the mail client keeps it"
            until(front.is_idle, why="Postfix to forget what it did not take")
        else:
            there = len(front.front.lines())
            front.submit(mail, OWNER)
            until(lambda: any("status=deferred" in line for line in front.front.lines()[there:]), why="the deferral")
            assert front.front.queued() == 1
    finally:
        front.guard.start()
    if front.heading in BEFORE_THE_QUEUE:
        front.submit(mail, OWNER)
    front.front.flush()
    until(lambda: front.with_id("down"), why="the mail, once smtpguard is back")
    until(front.is_idle, why="the queues to empty")
    assert len(front.with_id("down")) == 1


def test_a_recipient_refused_behind_the_guard_is_bounced(front: Front) -> None:
    """The Postfix behind the guard bounces a recipient that the last hop refuses, since it has queued the message by
    then."""
    front.recorder.relay.on("RCPT TO:<nobody@lists.example.com>", "550 5.1.1 No such user")
    front.submit(a_mail(front, "nobody", "nobody@lists.example.com"), "nobody@lists.example.com")
    logged(front.relay, "status=bounced", "No such user")


class ScriptedInProcess(Recorder):
    """A recorder on the port that the guard has as its relay."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.relay.port = port


async def _stall(recorder: Recorder) -> None:
    recorder.relay.on(DOT, [STALL, "250 2.0.0 Taken at last"])


async def _resume(recorder: Recorder) -> None:
    recorder.relay.resume()
