"""smtpguard as the milter of a real Sendmail, set up from docs/milter.md, followed by another milter."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers import letters, sendmail
from tests.peers.chain import Recorder, until
from tests.peers.milter import ANNA, CUSTOMERS, LONG, PAGE, MilterGuard, OtherMilter, policy
from tests.peers.postfix import free_port
from tests.peers.recipe import recipe
from tests.peers.sendmail import Sendmail

RAMADAN = "ramadan@lists.example.com"
EXPANDED = "eid@mx.example.com"
"""A second address of the list, which Sendmail itself expands."""


class World:
    def __init__(self, root: Path, enter: ExitStack) -> None:
        self.recorder = enter.enter_context(Recorder())
        other = enter.enter_context(OtherMilter(root, self.recorder))
        released = free_port()
        self.guard = MilterGuard(
            root, relay_port=released, unix=root / "milter.sock", policy=policy(EXPANDED), workers=1
        )
        ports = {"10027": str(self.guard.milter_port), "10026": str(released), "8891": str(other.port)}
        lines = recipe("Sendmail", ports, PAGE)["sendmail.mc"]
        aliases = f"eid: {', '.join(CUSTOMERS)}\n"
        self.mta = Sendmail(root, relay=self.recorder.port, recipe=lines, aliases=aliases)
        enter.enter_context(self.guard)
        enter.enter_context(self.mta)

    def submit(self, mail: bytes, *recipients: str) -> None:
        with smtplib.SMTP("127.0.0.1", self.mta.port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            smtp.sendmail(ANNA, recipients, mail)

    def passed(self, message_id: str) -> bytes:
        [got] = until(lambda: self.recorder.with_id(message_id), why=f"{message_id} to pass")
        return bytes(got.content)


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[World]:
    if why := sendmail.missing():
        pytest.skip(why)
    with ExitStack() as enter:
        yield World(folder, enter)


def test_relayed_unchanged(world: World) -> None:
    mail = letters.mail(to="you@example.org", subject="Bytes", message_id="s-bytes@example.com",
                        headers="X-Fold: a\n\tb\n", text=".dot\n..\ntab\there \n\n\n")  # fmt: skip
    world.submit(mail, "you@example.org")
    content = world.passed("s-bytes@example.com")
    assert content.endswith(mail)
    added = content.removesuffix(mail).decode()
    assert re.search(r"^X-Smtpguard: id=[0-9A-Z]{16}; policy=[0-9a-f]{12};\r\n\tmac=[0-9a-f]{32}\r\n", added, re.M)
    assert added.count("Received:") == 1
    assert "X-Other: seen" in added
    said = until(
        lambda: next((line for line in world.guard.log.read_text().split("\n")[:-1] if '"Bytes"' in line), None),
        why="its line in the log",
    )
    assert re.search(r"250 2.0.0 In the queue of mx.example.com as [0-9A-Za-z]{14}", said), "both macros came"
    assert f'"size_bytes":{len(mail)}' in said.replace(": ", ":")


def test_held_and_released_past_the_milter(world: World) -> None:
    mail = letters.story("s-held@example.com", subject="SV: Sendmail")
    world.submit(mail, RAMADAN)
    [hold] = until(lambda: world.guard.held("SV: Sendmail"), why="the hold")
    assert not world.recorder.with_id("s-held@example.com")
    for person in ("eva@example.com", "dpo@example.com"):
        world.guard.run("held", "approve", str(hold["id"]), "--as", person)
    content = world.passed("s-held@example.com")
    assert content.endswith(mail)
    assert b"X-Other: seen" in content


def test_a_rejection_has_its_text(world: World) -> None:
    with pytest.raises(smtplib.SMTPDataError) as refused:
        world.submit(letters.mail(message_id="s-never@example.com"), "a@example.net", "b@example.net", "c@example.net")
    assert refused.value.smtp_code == 550
    assert b"5.7.1 This message was not sent. 100 % of this is never sent." in refused.value.smtp_error


def test_a_long_rejection_has_all_its_lines(world: World) -> None:
    """The client gets all lines of a long reply."""
    four = [f"{who}@example.net" for who in "abcd"]
    with pytest.raises(smtplib.SMTPDataError) as refused:
        world.submit(letters.mail(message_id="s-never-2@example.com"), *four)
    assert isinstance(refused.value.smtp_error, bytes)
    lines = refused.value.smtp_error.decode().splitlines()
    assert len(lines) == 3
    assert LONG in " ".join(line.removeprefix("5.7.1 ") for line in lines)


@pytest.mark.parametrize("listed", [RAMADAN, EXPANDED])
def test_customers_are_held_and_colleagues_get_it(world: World, listed: str) -> None:
    """The list's recipients wait, and colleagues get the message. If Sendmail expanded an alias, the addresses in its
    place are deleted."""
    message_id, subject = f"s-part-{listed}", f"SV: Delat, {listed}"
    world.submit(letters.story(message_id, to=f"bo@example.com, {listed}", subject=subject), "bo@example.com", listed)
    [hold] = until(lambda: world.guard.held(subject), why="the hold")
    assert hold["recipients"] == [listed]
    [got] = until(lambda: world.recorder.with_id(message_id), why="the colleague's part")
    assert got.recipients == ["bo@example.com"]
    for person in ("eva@example.com", "dpo@example.com"):
        world.guard.run("held", "approve", str(hold["id"]), "--as", person)
    both = until(lambda: len(found := world.recorder.with_id(message_id)) == 2 and found, why="the release")
    assert both[1].recipients == ([RAMADAN] if listed == RAMADAN else CUSTOMERS)


def test_several_messages_in_one_connection(world: World) -> None:
    with smtplib.SMTP("127.0.0.1", world.mta.port, timeout=120) as smtp:
        smtp.ehlo("desk.example.com")
        for n in range(3):
            mail = letters.mail(to="you@example.org", message_id=f"s-many-{n}@example.com")
            smtp.sendmail(ANNA, ["you@example.org"], mail)
            smtp.docmd("MAIL", "FROM:<other@example.com>")
            smtp.docmd("RCPT", "TO:<nobody@example.org>")
            smtp.rset()
    for n in range(3):
        world.passed(f"s-many-{n}@example.com")


def test_without_the_milter_sendmail_defers(world: World) -> None:
    world.guard.stop()
    with smtplib.SMTP("127.0.0.1", world.mta.port, timeout=120) as smtp:
        smtp.ehlo("desk.example.com")
        code, text = smtp.docmd("MAIL", f"FROM:<{ANNA}>")
    assert code == 451, text
