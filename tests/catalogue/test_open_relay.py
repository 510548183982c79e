"""An open relay by a single setting is refused by check and at the start; a real guard answers strangers with 554."""

from __future__ import annotations

import json
import os
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpguard.app import ownports
from smtpguard.config.settings import Relay
from smtpguard.mail import reply
from tests.loopback import needs_ipv6
from tests.peers.chain import Guard, Recorder
from tests.peers.postfix import free_port
from tests.processes.tree import ACTIVATE

LETTER = "Subject: Hello\r\n\r\nHello\r\n"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as running:
        yield running


def guard(root: Path, recorder: Recorder, listener: str, trust: str = "[127.0.0.0/8]") -> Guard:
    """A guard with ``listener``, in which ``PORT`` is replaced."""
    made = Guard(root, relay_port=recorder.port, workers=1, settings={
        "relay": f"{{host: 127.0.0.1, port: {recorder.port}, tls: none}}",
        "trust": trust,
    })  # fmt: skip
    lines = [line for line in made.config.read_text().splitlines() if not line.startswith("listen:")]
    listen = listener.replace("PORT", str(made.port))
    made.config.write_text("\n".join([*lines, f"listen: {{smtp: [{listen}]}}", ""]))
    return made


def send(port: int, source: str, host: str = "127.0.0.1") -> None:
    with smtplib.SMTP(host, port, timeout=120, source_address=(source, 0)) as client:
        client.sendmail("anna@example.com", ["somebody@example.org"], LETTER)


@needs_ipv6
def test_a_strangers_mail_is_not_relayed(tmp_path: Path, recorder: Recorder) -> None:
    made = guard(tmp_path, recorder, '{address: "::", port: PORT, name: inside, clients: [127.0.0.1]}')
    with made:
        send(made.port, "127.0.0.1")
        assert len(recorder.messages) == 1, "an IPv4 client on a dual-stack socket"
        for source, host in (("127.0.0.2", "127.0.0.1"), ("::1", "::1")):
            with pytest.raises(smtplib.SMTPConnectError) as told:
                send(made.port, source, host)
            assert told.value.smtp_code == 554
        there = ("127.0.0.1", made.port)
        with (
            socket.create_connection(there, timeout=120, source_address=("127.0.0.2", 0)) as sock,
            sock.makefile("rb") as lines,
        ):
            assert lines.readline() == reply.NOT_A_CLIENT.octets
            sock.sendall(b"EHLO x\r\nXCLIENT ADDR=127.0.0.1\r\n")
            assert lines.readline() == reply.BAD_SEQUENCE.octets, (
                "whatever client it names, and although trust includes it"
            )
            assert lines.readline() == reply.BAD_SEQUENCE.octets
            sock.sendall(b"QUIT\r\n")
            assert lines.readline() == reply.BYE.octets
            assert lines.readline() == b""
        assert len(recorder.messages) == 1
        found = [json.loads(line) for line in made.run("check", "--live", "--json", exits=None).stdout.splitlines()]
        said = [row["text"] for row in found if row.get("about") == "clients"]
        assert any(text.startswith("closed: inside refuses 127.0.0.2, which is not a client: 554") for text in said), (
            said
        )
        assert any(
            text.startswith("not known: whether inside takes mail from other machines. Test from one") for text in said
        )
        assert [row for row in found if row.get("about") == "clients" and row["state"] == "open"] == []
    log = made.log.read_text()
    assert '"event":"strangers refused"' in log
    assert "127.0.0.2 (" in log


def test_check_reports_an_open_relay(tmp_path: Path, recorder: Recorder) -> None:
    made = guard(tmp_path, recorder, '{address: "::", port: PORT, clients: ["0.0.0.0/0", "::/0"]}', trust="[]")
    with made:
        result = made.run("check", "--live", exits=1)
    assert f"open relay: [::]:{made.port} takes mail to the outside from 127.0.0.2" in result.stdout
    assert "is a network of the Internet" in result.stderr


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_trusted_network_that_opens_the_relay_is_refused(tmp_path: Path, recorder: Recorder, command: str) -> None:
    made = guard(tmp_path, recorder, '{address: "::", port: PORT}', trust='["192.0.2.7"]')
    result = made.run(command, exits=None)
    assert result.returncode in (1, 2)
    assert (
        f"other machines reach [::]:{made.port}, and it has neither clients nor auth, so anyone could send"
        in result.stderr
    )
    said = result.stderr.replace('\\"', '"')  # in a JSON log
    assert 'expected clients: ["192.0.2.7"], or auth: {}' in said


def activated(made: Guard, given: socket.socket) -> list[str]:
    """The command of a guard to which a service manager hands over a socket."""
    serve = [sys.executable, "-m", "smtpguard", "-c", str(made.config), "serve"]
    return [sys.executable, "-c", ACTIVATE, str(given.fileno()), *serve]


def test_a_systemd_socket_counts_by_its_bound_address(tmp_path: Path, recorder: Recorder) -> None:
    made = guard(tmp_path, recorder, "{address: 127.0.0.1, port: PORT}", trust="[]")
    with socket.create_server(("::", made.port), family=socket.AF_INET6, dualstack_ipv6=True) as given:
        argv = activated(made, given)
        result = subprocess.run(
            argv, pass_fds=[given.fileno()], capture_output=True, text=True, timeout=120, env=os.environ, check=False
        )
    assert result.returncode == 2
    assert f"systemd has bound 127.0.0.1:{made.port} to [::]:{made.port}, so other machines reach it" in result.stderr


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_relay_that_is_the_guard_itself_is_refused(tmp_path: Path, recorder: Recorder, command: str) -> None:
    made = guard(tmp_path, recorder, "{address: 127.0.0.1, port: PORT}")
    text = made.config.read_text().replace(
        f"host: 127.0.0.1, port: {recorder.port}", f"host: localhost, port: {made.port}"
    )
    made.config.write_text(text)
    result = made.run(command, exits=None)
    assert result.returncode in (1, 2)
    assert "the relay is this guard itself: mail would loop" in result.stderr


@needs_ipv6
@pytest.mark.parametrize(("listens", "bound"), [("0.0.0.0", "127.0.0.2"), ("::", "::")])
def test_a_relay_at_another_address_than_systemd_has_bound_is_not_the_guard(
    tmp_path: Path, recorder: Recorder, listens: str, bound: str
) -> None:
    """The settings name all addresses, as the socket unit advises, and the relay has the same port. A socket of systemd may take IPv6
    alone."""
    made = guard(tmp_path, recorder, f'{{address: "{listens}", port: {recorder.port}, clients: [127.0.0.1, "::1"]}}')
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.create_server((bound, recorder.port), family=family) as given:
        running = subprocess.Popen(activated(made, given), pass_fds=[given.fileno()], stdout=subprocess.DEVNULL)
    try:
        send(recorder.port, *(("::1", "::1") if ":" in bound else ("127.0.0.1", bound)))
    finally:
        running.terminate()
        running.wait(120)
    assert len(recorder.messages) == 1


@pytest.mark.parametrize("alone", [True, False])
def test_a_socket_for_all_addresses_takes_each_of_its_families(monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    """Not every machine of the tests has an IPv6 address beside ::1."""
    monkeypatch.setattr(ownports, "_can_be_bound", lambda address: True)
    bound = ownports.Bound(("listen", "smtp", 0), "::", 25, alone)
    found = {
        host: ownports.own_socket(Relay(host=host, port=25), [bound], ask=False) is not None
        for host in ("::1", "fd00::5", "127.0.0.1", "192.0.2.1")
    }
    assert found == {"::1": True, "fd00::5": True, "127.0.0.1": not alone, "192.0.2.1": not alone}


def test_a_milter_on_the_network_must_name_its_mtas(tmp_path: Path, recorder: Recorder) -> None:
    made = guard(tmp_path, recorder, "{address: 127.0.0.1, port: PORT}", trust="[192.0.2.7]")
    made.config.write_text(
        made.config.read_text().replace("listen: {", f"listen: {{milter: [{{address: 0.0.0.0, port: {free_port()}}}], ")
    )
    result = made.run("check", exits=1)
    assert (
        'and it has no clients, so any host could connect; trust does not allow a client to connect: expected clients: ["192.0.2.7"]'
        in result.stderr
    )


def test_check_live_finds_a_milter_open_to_strangers(tmp_path: Path, recorder: Recorder) -> None:
    """``check --live`` tells a milter listener that accepts any client from one for the local MTA."""
    made = guard(tmp_path, recorder, "{address: 127.0.0.1, port: PORT}")
    inside, everybody = free_port(), free_port()
    listeners = (
        f"{{address: 0.0.0.0, port: {inside}, name: inside, clients: [127.0.0.1]}}, "
        f'{{address: 127.0.0.1, port: {everybody}, name: everybody, clients: ["0.0.0.0/0"]}}'
    )
    made.config.write_text(made.config.read_text().replace("listen: {", f"listen: {{milter: [{listeners}], "))
    with made:
        result = made.run("check", "--live", "--json", exits=1)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    said = {row["text"]: row["state"] for row in found if row.get("about") == "clients"}
    assert said["closed: the milter inside does not accept 127.0.0.2, which is not its MTA"] == "fine"
    opened = (
        "open: the milter everybody accepts 127.0.0.2, which is not its MTA, and could send messages to it as our MTA"
    )
    assert said[opened] == "open"
    for name in ("inside", "everybody"):
        assert any(text.startswith(f"not known: whether the milter {name} accepts other machines.") for text in said)
    assert '"event":"strangers refused"' in made.log.read_text()
