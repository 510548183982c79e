"""The end of the demonstration, and the parts of its stage that could report a wrong outcome."""

from __future__ import annotations

import re
import signal
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dkim
import pytest

from smtpguard.cli import main
from smtpguard.cli.demo import _ends_tidily, _stay
from smtpguard.demo.script import KALLE, Disposition, Scene, play
from smtpguard.demo.stage import PEOPLE, Answer, DemoMessage, ReceivedMessage, RecordingRelay, Stage, make_key, people
from tests.peers.chain import until
from tests.program import Door, Program


@pytest.fixture
def python(tmp_path: Path) -> Iterator[str]:
    """A Python that forks the demonstration's commands; its guard is a real process. tests/wheel.sh plays all of it for
    real, and tests/test_metrics.py its scenes."""
    with closing(Door(tmp_path / "python")):
        yield str(tmp_path / "python")


def test_a_closed_terminal_ends_it_as_a_signal_does() -> None:
    for told in (signal.SIGHUP, signal.SIGTERM):
        before = signal.getsignal(told)
        with pytest.raises(KeyboardInterrupt), _ends_tidily():
            signal.raise_signal(told)
        assert signal.getsignal(told) == before


def test_no_process_remains_after_a_signal(python: str, tmp_path: Path) -> None:
    with (tmp_path / "said").open("wb") as said:
        demo = Program(["demo"], stdout=said, stderr=said, executable=python)
    line = until(lambda: re.search(r"^The guard listens on port (\d+)", (tmp_path / "said").read_text(), re.M))
    port = int(line[1])
    socket.create_connection(("127.0.0.1", port), 120).close()
    demo.send_signal(signal.SIGTERM)
    demo.wait(120)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 120)


def test_a_guard_that_does_not_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "smtpguard.demo.stage.Stage.command", lambda *_: subprocess.CompletedProcess([], 2, "", "no lists")
    )
    with pytest.raises(SystemExit) as ended:
        main(["demo"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "smtpguard: the guard did not start: no lists\n"


class _Broken(Stage):
    """A stage with a set answer, whose relay gets each message (``through``) or none."""

    def __init__(self, folder: Path, answer: Answer, *, through: bool) -> None:
        super().__init__(folder)
        self._listening.close()
        self.answer, self.through = answer, through

    def send(self, message: DemoMessage, content: bytes | None = None) -> Answer:
        if self.through and content is not None:
            self.relay.taken.append(_taken(message, content))
        return self.answer

    def rows(self, *words: str) -> list[dict[str, object]]:
        return []


def _taken(message: DemoMessage, content: bytes) -> ReceivedMessage:
    return ReceivedMessage(reverse_path=message.mail_from, recipients=message.recipients, content=content)


LETTER = DemoMessage(subject="s", sender="a@b.example", to="c@d.example", body="x", recipients=("c@d.example",))


def outcome(stage: Stage, disposition: Disposition) -> str | None:
    [result] = play(stage, iter([Scene(title="t", disposition=disposition, message=LETTER)]))
    return result.wrong


def test_a_wrong_outcome_is_detected(tmp_path: Path) -> None:
    held = Answer(code=250, text="2.0.0 Held for review as 01ABC")
    assert outcome(_Broken(tmp_path, held, through=False), Disposition.HELD) is None
    assert outcome(_Broken(tmp_path, held, through=True), Disposition.HELD) is not None
    taken = Answer(code=250, text="2.0.0 Ok")
    assert outcome(_Broken(tmp_path, taken, through=True), Disposition.RELAYED) is None
    assert outcome(_Broken(tmp_path, taken, through=False), Disposition.RELAYED) is not None
    assert outcome(_Broken(tmp_path, taken, through=True), Disposition.HELD) is not None
    refused = Answer(code=550, text="5.7.1 no")
    assert outcome(_Broken(tmp_path, refused, through=False), Disposition.REJECTED) is None
    assert outcome(_Broken(tmp_path, refused, through=True), Disposition.REJECTED) is not None
    assert outcome(_Broken(tmp_path, refused, through=False), Disposition.DEFERRED) is not None


def test_the_relay_records_mail_and_can_be_stopped() -> None:
    relay = RecordingRelay()
    relay.up()
    smtp = smtplib.SMTP("127.0.0.1", relay.port, "client.example", timeout=120)
    smtp.sendmail("a@b.example", ["c@d.example", "e@f.example"], b"Subject: x\r\n\r\n.dot\r\n..two\r\n")
    [taken] = relay.taken
    assert taken.recipients == ("c@d.example", "e@f.example")
    assert taken.content == b"Subject: x\r\n\r\n.dot\r\n..two\r\n"
    relay.down()
    with pytest.raises(smtplib.SMTPServerDisconnected):  # open connections are closed too
        smtp.noop()
    smtp.close()
    relay.up()
    with smtplib.SMTP("127.0.0.1", relay.port, "client.example", timeout=120) as again:
        assert again.noop()[0] == 250
    relay.down()


def test_signatures_of_the_key_verify() -> None:
    key = make_key()
    message = b"From: a@x.example\r\nTo: b@x.example\r\nSubject: hi\r\n\r\nhello\r\n"
    signature = key.sign(message, domain="x.example", selector="demo")
    assert dkim.verify(signature + message, dnsfunc=lambda name, timeout=5: key.record.encode())
    assert not dkim.verify(
        signature + message.replace(b"hello", b"hellO"), dnsfunc=lambda name, timeout=5: key.record.encode()
    )
    assert "PRIVATE" not in repr(key)


def test_recipients_are_distinct() -> None:
    assert len(set(people(1200))) == 1200
    assert not set(people(1200)) & set(people(2500, offset=100))


def test_at_a_terminal_addresses_and_commands_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal the demonstration prints each address and command on its own line, ready to copy."""
    built = _Broken(tmp_path, Answer(code=250, text=""), through=False)
    notice = (
        f"To: {KALLE}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        f"See why:=0A{built.console}/mine/abc=\r\ndef-_1\r\n"
    )
    built.relay.taken.append(ReceivedMessage(reverse_path="", recipients=(KALLE,), content=notice.encode()))
    monkeypatch.setattr(
        "smtpguard.cli.demo.threading.Event.wait", lambda self: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    monkeypatch.setattr("smtpguard.cli.demo.signal.signal", lambda *_: None)
    _stay(built)
    said = capsys.readouterr().out
    for line in (built.console, f"{built.console}/mine/abcdef-_1"):
        assert f"\n  {line}\n" in said
    for address in PEOPLE:
        assert re.search(rf"^  {address} +{built.password}( |$)", said, re.M)
    assert re.search(r"^  \S+.* -c \S+smtpguard\.yaml held list$", said, re.M)
