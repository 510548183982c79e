"""The story with real processes: ``smtpguard serve``, SQLite, and a relay that only records."""

from __future__ import annotations

import email
import json
import os
import re
import signal
import smtplib
import socket
import threading
from collections.abc import Iterator
from email.policy import default

import pytest

from smtpguard.demo.script import EVA, KALLE, LOTTA, ORDINARY, OUTLOOK, RAMADAN, STORY
from smtpguard.demo.stage import DemoMessage, Stage, stage
from tests.demo.forked import Forked

pytestmark = pytest.mark.xdist_group("story")


@pytest.fixture(scope="module")
def guard() -> Iterator[Stage]:
    with stage(workers=2, kind=Forked) as built:
        yield built


LETTER = DemoMessage(subject="SV: Dieten", sender=KALLE, name="Kalle Berg", to=f"Lotta Ek <{LOTTA}>, {RAMADAN}",
               body=STORY, recipients=(RAMADAN,), headers=OUTLOOK)  # fmt: skip


def ordinary(subject: str = "Drawings") -> DemoMessage:
    return DemoMessage(subject=subject, sender=LOTTA, to="peter@partner.example", body=ORDINARY,
                  recipients=("peter@partner.example",))  # fmt: skip


def arrived(guard: Stage, content: bytes) -> list[bytes]:
    """For each copy that reached the relay, the header lines added in front of it."""
    return [t.content.removesuffix(content) for t in guard.relay.taken if t.content.endswith(content)]


def pids(guard: Stage, part: str) -> list[int]:
    """The pids of a part that have logged ``ready``, newest last."""
    rows = [json.loads(line) for line in (guard.folder / "log").read_text().splitlines() if line.startswith("{")]
    return [row["pid"] for row in rows if row["event"] == "ready" and row["part"].startswith(part)]


def test_the_story_is_held_and_never_reaches_the_relay(guard: Stage) -> None:
    content = LETTER.content()
    answer = guard.send(LETTER, content)
    assert re.fullmatch(r"250 2\.0\.0 Held for review as [0-9A-Z]{16}", str(answer))
    assert arrived(guard, content) == []
    row = next(row for row in guard.rows("held", "list") if answer.text.endswith(row["id"]))
    assert row["state"] == "waiting"
    assert row["reach"] == 1200
    assert "internal-to-list" in row["rules"]
    assert guard.until(lambda: any(KALLE in taken.recipients for taken in guard.relay.taken)), "Kalle got no notice"
    assert not any(RAMADAN in taken.recipients for taken in guard.relay.taken)


def test_notices_name_topics_and_sensitivity_first(guard: Stage) -> None:
    """A notice names first, and never cuts, the topics that the list is to be spared and what the policy says of its
    people."""
    guard.send(LETTER)  # a repeated message adopts the same hold

    def notice_to(address: str) -> str:
        notices = (t.content for t in guard.relay.taken if address in t.recipients)
        plain = (email.message_from_bytes(n, policy=default).get_body(("plain",)) for n in notices)
        return next((text for p in plain if p is not None and "Dieten" in (text := p.get_content())), "")

    for address in (KALLE, EVA):
        assert guard.until(lambda a=address: notice_to(a)), address
        for word in ("bacon", "sprit", "religion", "GDPR", "konfidentiellt"):
            assert word in notice_to(address), (address, word)


def test_one_command_reports_what_happened(guard: Stage) -> None:
    answer = guard.send(LETTER)  # a repeated message adopts the same hold
    [row] = guard.rows("incident", "report", answer.text.split()[-1])
    said = " ".join(one["text"] for one in row["paragraph"])
    for words in (
        "None of it was sent through this guard",
        "It was stopped on arrival",
        "Nothing in the journal points to an intrusion.",
    ):
        assert words in said, (words, said)
    texts = [one["text"] for part in row["sections"] for one in part["statements"]]
    assert any("1,200 people: held" in text for text in texts)
    assert row["proof"]["ok"]


def test_ordinary_mail_passes_unchanged(guard: Stage) -> None:
    letter = ordinary("Drawings, as they are")
    content = letter.content()
    answer = guard.send(letter, content)
    assert str(answer) == "250 2.0.0 Ok: recorded", "the relay's own answer"
    [added] = arrived(guard, content)
    assert re.match(rb"Received: from .*\r\nX-Smtpguard: id=[^\r]*\r\n(\t[^\r]*\r\n)*\Z", added, re.S)


def test_every_verdict_is_journalled_and_the_chain_is_whole(guard: Stage) -> None:
    [row] = guard.rows("audit", "verify")
    assert row["ok"], row
    assert row["entries"] >= 3


def test_every_process_follows_a_reload(guard: Stage) -> None:
    policy = guard.folder / "policy.yaml"
    before = policy.read_text()
    strict = "  - id: no-drawings\n    when: {recipients.outside: any}\n    then: reject\n"
    try:
        policy.write_text(before + strict)
        os.kill(guard.pid, signal.SIGHUP)  # there is no terminal to ask on; a stricter policy needs none
        assert guard.until(lambda: guard.send(ordinary()).code == 550)
        assert "in force already" in guard.command("reload").stdout
        assert guard.until(lambda: [guard.send(ordinary()).code for _ in range(6)] == [550] * 6), (
            "six meet both processes"
        )
        policy.write_text(before + "  - id: broken\n    then: hodl\n")
        done = guard.command("reload")
        assert done.returncode == 1
        assert "did you mean hold?" in done.stderr
        assert "Traceback" not in done.stderr
        assert guard.send(ordinary()).code == 550, "the policy in force stays"
    finally:
        policy.write_text(before)
        refused = guard.command("reload")
        agreed = guard.command("reload", "--yes")
    assert (refused.returncode, "rule no-drawings: removed" in refused.stderr) == (1, True)
    assert agreed.returncode == 0, agreed.stderr
    assert guard.until(lambda: guard.send(ordinary()).code == 250)


def test_a_killed_worker_loses_no_mail(guard: Stage) -> None:
    """If a worker is killed under load, clients send again as MTAs do, and every message arrives."""
    sent: list[bytes] = []
    failures: list[str] = []

    def client(number: int) -> None:
        for n in range(15):
            letter = ordinary(f"load {number} {n}")
            content = letter.content()
            sent.append(content)
            if not guard.until(lambda: guard.send(letter, content).code == 250):  # noqa: B023
                failures.append(letter.subject)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for each in clients:
        each.start()
    victims = pids(guard, "proxy")[-2:]
    assert guard.until(lambda: len(sent) > 4)
    os.kill(victims[0], signal.SIGKILL)
    for each in clients:
        each.join()
    assert failures == []
    missing = [content for content in sent if not arrived(guard, content)]
    assert missing == []
    assert guard.until(lambda: len(pids(guard, "proxy")) >= 3), "it was started again"


def test_a_second_guard_on_the_same_port_fails_in_one_line(guard: Stage) -> None:
    done = guard.command("serve")
    assert done.returncode == 75
    assert f"cannot listen on 127.0.0.1:{guard.port}: the port is in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_graceful_stop_finishes_open_transactions() -> None:
    with stage(kind=Forked) as guard:
        idle = smtplib.SMTP("127.0.0.1", guard.port, "client.example", timeout=120)
        busy = socket.create_connection(("127.0.0.1", guard.port), timeout=120)
        lines = busy.makefile("rb")
        for command in (
            b"EHLO client.example",
            b"MAIL FROM:<%b>" % LOTTA.encode(),
            b"RCPT TO:<peter@partner.example>",
            b"DATA",
        ):
            if command.startswith(b"EHLO"):
                lines.readline()
            busy.sendall(command + b"\r\n")
            while lines.readline()[3:4] == b"-":
                pass
        content = ordinary("Finished").content()
        busy.sendall(content[:100])
        os.kill(guard.pid, signal.SIGTERM)
        code, _ = idle.getreply()
        assert code == 421
        busy.sendall(content[100:] + b".\r\n")
        assert lines.readline().startswith(b"250 ")
        assert guard.wait() == 0
        assert len(arrived(guard, content)) == 1
        idle.close()
        lines.close()
        busy.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", guard.port))
