"""Proxies in front: HAProxy with PROXY 1 and 2 and over TLS; nginx, Dovecot and swaks with XCLIENT. The guard sees the
real client."""

from __future__ import annotations

import base64
import contextlib
import json
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import fronts, letters
from tests.peers.chain import Guard, Recorder, until
from tests.peers.postfix import free_port
from tests.peers.recipe import recipe

CLIENT = "127.0.0.5"
"""Another address of this machine, so that the client's differs from the proxy's."""


class Fronted:
    """A guard with three listeners: for a proxy in clear, for a proxy with implicit TLS, and for XCLIENT."""

    def __init__(self, root: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._root = root

    def __enter__(self) -> Fronted:
        enter = self._stack.enter_context
        self.recorder = enter(Recorder())
        self.clear, self.tls, self.v1, self.v2, self.through, self.checked = (free_port() for _ in range(6))
        guard = Guard(self._root, relay_port=self.recorder.port, workers=1, settings={
            "trust": "[127.0.0.1]",
            "relay": f"{{host: 127.0.0.1, port: {self.recorder.port}, tls: none}}",
            "limits": "{per_client: 3}",
        })  # fmt: skip
        certificate = "certificate: ../cert.pem, key: ../key.pem"
        listen = [
            f"{{address: 127.0.0.1, port: {guard.port}}}",
            f"{{address: 127.0.0.1, port: {self.clear}, proxy: true, clients: [127.0.0.0/8]}}",
            f"{{address: 127.0.0.1, port: {self.tls}, proxy: true, clients: [127.0.0.0/8], tls: {{{certificate}, mode: implicit}}}}",
        ]
        lines = [line for line in guard.config.read_text().splitlines() if not line.startswith("listen:")]
        guard.config.write_text("\n".join([*lines, f"listen: {{smtp: [{', '.join(listen)}]}}", ""]))
        self.guard = enter(guard)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def haproxy(self) -> Any:
        return fronts.haproxy(
            self._root / "haproxy",
            [
                (self.v1, self.clear, "send-proxy"),
                (self.v2, self.clear, "send-proxy-v2"),
                (self.through, self.tls, "send-proxy-v2"),
                (self.checked, self.clear, "send-proxy-v2 check check-send-proxy inter 200ms"),
            ],
        )

    def client_of(self, message_id: str) -> str:
        """The client in the log, which the Received field names too."""
        [message] = until(lambda: self.recorder.with_id(message_id), why=message_id)
        received = message.content.split(b"X-Smtpguard")[0].decode()
        transaction = received.split(" id ")[1].split()[0].rstrip(";")
        [logged] = until(
            lambda: [line for line in self.log_lines() if line.get("id") == transaction and line["event"] == "verdict"],
            why="its line in the log",
        )
        assert f"[{logged['client']}]" in received
        return str(logged["client"])

    def log_lines(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in self.guard.log.read_text().rpartition("\n")[0].splitlines()
            if line.startswith("{")
        ]


@pytest.fixture(scope="module")
def fronted(certified: Path) -> Iterator[Fronted]:
    with Fronted(certified) as fronted:
        yield fronted


@pytest.fixture(scope="module")
def haproxy(fronted: Fronted) -> Iterator[Fronted]:
    if why := fronts.haproxy_missing():
        pytest.skip(why)
    with fronted.haproxy():
        yield fronted


def connect(port: int) -> smtplib.SMTP:
    """Connect, once the guard has noticed that connections of the test before have ended: it takes 3 of a client."""
    return until(lambda: _greeted(port), "the guard to take a connection")  # type: ignore[no-any-return]


def _greeted(port: int) -> smtplib.SMTP | None:
    with contextlib.suppress(smtplib.SMTPConnectError):
        return attempt(port)
    return None


def attempt(port: int) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port, local_hostname="desk", timeout=120, source_address=(CLIENT, 0))


def send(smtp: smtplib.SMTP, message_id: str) -> None:
    smtp.sendmail("anna@example.com", ["you@example.org"], letters.mail(to="you@example.org", message_id=message_id))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_haproxy_names_the_client(haproxy: Fronted, version: str) -> None:
    with connect(getattr(haproxy, version)) as smtp:
        send(smtp, f"haproxy-{version}@example.com")
    assert haproxy.client_of(f"haproxy-{version}@example.com") == CLIENT


def test_haproxy_passes_tls_through(haproxy: Fronted, certified: Path) -> None:
    context = ssl.create_default_context(cafile=str(certified / "ca.pem"))
    with smtplib.SMTP_SSL("localhost", haproxy.through, local_hostname="desk", timeout=120, context=context,
                          source_address=(CLIENT, 0)) as smtp:  # fmt: skip
        send(smtp, "through@example.com")
    assert haproxy.client_of("through@example.com") == CLIENT


def test_limits_apply_to_the_client_behind_haproxy(haproxy: Fronted) -> None:
    with contextlib.ExitStack() as undo:
        for _ in range(3):
            undo.enter_context(connect(haproxy.v2))
        with pytest.raises(smtplib.SMTPConnectError, match="421"):
            attempt(haproxy.v1)
        with smtplib.SMTP("127.0.0.1", haproxy.v1, timeout=120, source_address=("127.0.0.6", 0)) as other:
            assert other.noop()[0] == 250


def test_haproxys_health_checks_succeed(haproxy: Fronted) -> None:
    """HAProxy's health check (LOCAL) gets an EHLO reply without the keywords of a trusted peer. If it failed, HAProxy
    would close the port."""
    with connect(haproxy.checked) as smtp:
        send(smtp, "checked@example.com")
    assert haproxy.client_of("checked@example.com") == CLIENT
    with socket.create_connection(("127.0.0.1", haproxy.clear), timeout=120) as check:
        check.sendall(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0EHLO check\r\n")
        with check.makefile("rb") as lines:
            offered = [line[4:].strip() for line in iter(lines.readline, b"250 ENHANCEDSTATUSCODES\r\n")]
        assert b"PIPELINING" in offered
        assert not [word for word in offered if word.startswith((b"XCLIENT", b"XFORWARD"))]


def test_a_connection_without_a_header_is_logged(haproxy: Fronted) -> None:
    with socket.create_connection(("127.0.0.1", haproxy.clear), timeout=120) as trusted:
        trusted.sendall(b"EHLO desk\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert trusted.recv(100) == b""
    until(lambda: any(line["event"] == "no PROXY header" for line in haproxy.log_lines()), "its line in the log")
    with pytest.raises(smtplib.SMTPConnectError, match="421"):
        attempt(haproxy.clear)
    until(
        lambda: any(line["event"] == "not from a trusted proxy" for line in haproxy.log_lines()), "its line in the log"
    )


def test_nginx_names_the_client_and_login(fronted: Fronted, tmp_path: Path) -> None:
    if why := fronts.nginx_missing():
        pytest.skip(why)
    port = free_port()
    with fronts.Doorman(fronted.guard.port, "s3cret") as doorman, fronts.nginx(tmp_path / "nginx", port, doorman.port):
        with connect(port) as smtp:
            smtp.ehlo()
            assert smtp.docmd("AUTH", "PLAIN " + _coded("\0anna@example.com\0wrong"))[0] == 535
        with connect(port) as smtp:
            smtp.ehlo()
            assert smtp.docmd("AUTH", "PLAIN " + _coded("\0anna@example.com\0s3cret"))[0] == 235
            send(smtp, "nginx@example.com")
            assert smtp.docmd("XCLIENT", "LOGIN=boss@example.com")[0] == 550, "the client sends it"
    assert fronted.client_of("nginx@example.com") == CLIENT
    [line] = [line for line in fronted.log_lines() if line.get("actor") == "anna@example.com"]
    assert line["event"] == "verdict"


def test_dovecot_names_the_client_and_login(fronted: Fronted, folder: Path) -> None:
    """Dovecot passes the login on, with the relay settings of the page."""
    if why := fronts.dovecot_missing():
        pytest.skip(why)
    port = free_port()
    page = Path(__file__).parents[2] / "docs" / "submission.md"
    lines = recipe("XCLIENT", {"10025": str(fronted.guard.port)}, page)["dovecot.conf"]
    with fronts.dovecot(folder / "dovecot", port, "s3cret", lines), connect(port) as smtp:
        smtp.ehlo()
        assert smtp.docmd("AUTH", "PLAIN " + _coded("\0bo@example.com\0wrong"))[0] == 535
        assert smtp.docmd("AUTH", "PLAIN " + _coded("\0bo@example.com\0s3cret"))[0] == 235
        send(smtp, "dovecot@example.com")
    assert fronted.client_of("dovecot@example.com") == CLIENT
    assert [
        line for line in fronted.log_lines() if line.get("actor") == "bo@example.com" and line["event"] == "verdict"
    ]


def test_swaks_names_the_client_by_xclient(fronted: Fronted) -> None:
    words = ["swaks", "--server", f"127.0.0.1:{fronted.guard.port}", "--from", "anna@example.com", "--to", "you@example.org",
             "--header", "Message-ID: <swaks-xclient@example.com>", "--xclient-addr", "192.0.2.77",
             "--xclient-name", "desk.example.com", "--xclient-login", "anna@example.com"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert fronted.client_of("swaks-xclient@example.com") == "192.0.2.77"
    stranger = subprocess.run([*words, "--local-interface", CLIENT], capture_output=True, text=True, timeout=120)
    assert stranger.returncode != 0
    assert "XCLIENT" not in "".join(line for line in stranger.stdout.splitlines() if line.startswith("<"))


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
