"""The stage of the demo: a folder with settings, policy and lists of invented people, the guard's real processes, and
calls to them; a message as a mail program would write it (raw bytes, CRLF, UTF-8), and the key that its campaign tool
signs with (RFC 6376); and a relay that accepts every message and forwards none.

The guard is a child process and runs as in production. Its port is handed over as by a service manager, readiness is
awaited through NOTIFY_SOCKET, and its command line is used as people use it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import itertools
import json
import os
import random
import re
import secrets
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from email.utils import format_datetime, make_msgid
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import dkim
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

HOME = "nordhandel.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoMessage:
    """One message and its envelope. ``source``: the loopback address that it comes from."""

    subject: str
    sender: str
    to: str
    body: str
    recipients: tuple[str, ...]
    name: str = ""
    reverse_path: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    signed: bool = False
    source: str = "127.0.0.1"
    message_id: str = field(default_factory=lambda: make_msgid(domain=HOME))
    date: str = field(default_factory=lambda: format_datetime(datetime.now(UTC)))

    @property
    def mail_from(self) -> str:
        return self.sender if self.reverse_path is None else self.reverse_path

    def other(self, **changed: Any) -> DemoMessage:
        """Another message with the same text."""
        return replace(self, message_id=make_msgid(domain=HOME), **changed)

    def content(self) -> bytes:
        shown = f'"{self.name}" <{self.sender}>' if self.name else self.sender
        lines = [
            f"From: {shown}",
            f"To: {self.to}",
            f"Subject: {self.subject}",
            f"Date: {self.date}",
            f"Message-ID: {self.message_id}",
            *(f"{name}: {value}" for name, value in self.headers),
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Transfer-Encoding: 8bit",
            "",
            *self.body.strip().splitlines(),
            "",
        ]
        return "\r\n".join(lines).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """``pem``: PKCS #1. ``record``: the TXT record of the selector in DNS."""

    pem: bytes = field(repr=False)
    record: str

    def sign(self, message: bytes, *, domain: str, selector: str) -> bytes:
        """The DKIM-Signature field."""
        signature: bytes = dkim.sign(
            message,
            selector.encode(),
            domain.encode(),
            self.pem,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=[b"from", b"to", b"subject", b"date", b"message-id", b"list-id"],
        )
        return signature


def make_key(bits: int = 2048) -> Key:
    made = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    plain = serialization.NoEncryption()
    public = made.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(
        pem=made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain),
        record=f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """One message. ``content``: without dot-stuffing, with the guard's trace headers."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes


class RecordingRelay:
    """Listens on loopback between ``up`` and ``down``, always on the same port."""

    def __init__(self) -> None:
        self.taken: list[ReceivedMessage] = []
        self.port = _free_port()
        self._listening: _Listening | None = None

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.taken.append(
            ReceivedMessage(
                reverse_path=envelope.mail_from or "", recipients=tuple(envelope.rcpt_tos), content=envelope.content
            )
        )
        return "250 2.0.0 Ok: recorded"

    def up(self) -> None:
        self._listening = _Listening(self, "127.0.0.1", self.port, server_hostname="relay.demo", enable_SMTPUTF8=True)
        self._listening.start()

    def down(self) -> None:
        if self._listening is not None:
            asyncio.run_coroutine_threadsafe(self._listening.cut(), self._listening.loop).result()
            self._listening.stop()
            self._listening = None


class _Listening(Controller):
    """``sessions``: of the connections so far."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.sessions: list[SMTP] = []

    def factory(self) -> SMTP:
        self.sessions.append(super().factory())  # type: ignore[no-untyped-call]
        return self.sessions[-1]

    async def cut(self) -> None:
        """Close the open connections, as if the relay had died."""
        for each in self.sessions:
            if each.transport is not None:
                each.transport.close()
        await asyncio.sleep(0)  # the loop closes them at its next step


START_SECONDS = 60.0
ADMIN = f"it@{HOME}"
PEOPLE = (f"eva.lind@{HOME}", f"omar.haddad@{HOME}", f"dpo@{HOME}", ADMIN)
"""Accounts of the console: the approvers of the play, and the admin."""

_FIRST = ("amina", "yusuf", "fatima", "omar", "leila", "hassan", "maryam", "ali", "zeynep", "ibrahim", "noor", "sami")
_LAST = ("rahimi", "demir", "haddad", "aziz", "karimi", "saleh", "yilmaz", "osman", "farah", "nasser")
_ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="smtp")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class NotStarted(Exception):
    """The guard did not start; the text is its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The client's final reply."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


def people(n: int, offset: int = 0) -> list[str]:
    """Addresses of invented customers. All first names differ from their neighbours', so that copies differ in a name."""
    names = itertools.product(range(offset, offset + 1 + n // 120), _LAST, _FIRST)
    return [f"{first}.{last}{number}@customer.example" for number, last, first in itertools.islice(names, n)]


class Stage:
    """A guard in its own folder, and a relay behind it."""

    def __init__(self, folder: Path, *, workers: int = 1) -> None:
        self.folder = folder
        self._workers = workers
        self.config = folder / "smtpguard.yaml"
        self.relay = RecordingRelay()
        self.members = people(1200)
        self.others = people(2500, offset=100)
        self.descriptions: dict[str, str] = {"freeze": "A freeze is in force"}
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listening.getsockname()[1]
        self._guard: subprocess.Popen[bytes] | None = None
        self._console_port = _free_port()
        self.console = f"http://127.0.0.1:{self._console_port}"
        self.password = f"demo{secrets.token_hex(4)}"

    @cached_property
    def _key(self) -> Key:
        """The campaign tool's key, pinned in the settings, since these domains are not in DNS."""
        return make_key()

    # Commands.

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``smtpguard -c ... words``."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "smtpguard", "-c", str(self.config), *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """The output of a command with --json."""
        return [json.loads(line) for line in self.command("--json", *words).stdout.splitlines() if line.startswith("{")]

    # Sending mail.

    def send(self, letter: DemoMessage, content: bytes | None = None) -> Answer:
        """One transaction. The answer is the first refusal, else the reply after the dot."""
        try:
            with smtplib.SMTP(
                local_hostname="mail.nordhandel.example", timeout=60, source_address=(letter.source, 0)
            ) as smtp:
                smtp.connect("127.0.0.1", self.port)
                smtp.ehlo()
                code, text = smtp.mail(letter.mail_from, ["BODY=8BITMIME"])
                for recipient in letter.recipients:
                    if code < 300:
                        code, text = smtp.rcpt(recipient)
                if code < 300:
                    code, text = smtp.data(content if content is not None else self.content(letter))
                return Answer(code=code, text=text.decode("utf-8", "replace"))
        except smtplib.SMTPDataError as e:
            return Answer(code=e.smtp_code, text=str(e.smtp_error))
        except (smtplib.SMTPException, OSError) as e:
            return Answer(code=0, text=f"no answer: {e}")

    def content(self, letter: DemoMessage) -> bytes:
        raw = letter.content()
        return self._key.sign(raw, domain=f"campaigns.{HOME}", selector="demo") + raw if letter.signed else raw

    # The guard's processes.

    def start(self) -> None:
        self._write_files()
        self.relay.up()
        synced = self.command("lists", "sync")
        if synced.returncode:
            raise NotStarted(synced.stderr.strip() or synced.stdout.strip())
        with contextlib.ExitStack() as undo:
            notices = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notices.bind(str(self.folder / "notify"))
            log = undo.enter_context((self.folder / "log").open("wb"))
            self._guard = self._serve(log, {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")})
            self._await_ready(notices)
        self._listening.close()
        for address in PEOPLE:
            self._account(address)

    def _serve(self, log: IO[bytes], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _ACTIVATE, str(self._listening.fileno()), "-P", "-m", "smtpguard", "-c", str(self.config), "serve"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[self._listening.fileno()], env=env, start_new_session=True,
        )  # fmt: skip

    def link(self, to: str) -> str:
        """The link in the first notice to a writer of a held message; "" if there is none."""
        for taken in self.relay.taken:
            if to in taken.recipients and self.console.encode() in taken.content:
                text = message_from_bytes(taken.content, policy=default).get_body(("plain",))
                found = re.search(re.escape(self.console) + r"/mine/[\w.~-]+", text.get_content() if text else "")
                if found:
                    return found[0]
        return ""

    def _account(self, address: str) -> None:
        """Make an account for an approver or the admin, with the password of this play."""
        file = self.folder / "password"
        file.write_text(self.password)
        file.chmod(0o600)
        local = address.partition("@")[0]
        name = local.replace(".", " ").title() if "." in local else ""
        role = "admin" if address == ADMIN else "approver"
        made = self.command("users", "add", address, "--role", role, "--role", "viewer", "--name", name,
                            "--password-file", str(file))  # fmt: skip
        file.unlink()
        if made.returncode:
            raise NotStarted(f"no account of {address}: {made.stderr.strip()}")

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._guard is not None
        return self._guard.pid

    def wait(self) -> int:
        """The exit status, once the supervisor has ended."""
        assert self._guard is not None
        return self._guard.wait(START_SECONDS)

    def stop(self) -> None:
        if self._guard is not None:
            self._guard.terminate()
            try:
                self._guard.wait(40)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait()
        self._listening.close()
        self.relay.down()

    def until(self, true: Callable[..., object]) -> bool:
        """Whether ``true()`` becomes true within two minutes."""
        deadline = time.monotonic() + 120
        while not true():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _await_ready(self, notices: socket.socket) -> None:
        assert self._guard is not None
        deadline = time.monotonic() + START_SECONDS
        notices.settimeout(0.1)
        while True:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in notices.recv(4096):
                    return
            if self._guard.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "log").read_text(errors="replace").strip().splitlines()
                raise NotStarted("\n".join(said[-5:]) or "the guard did not become ready")

    def _write_files(self) -> None:
        here = Path(__file__).parent
        policy = (here / "policy.yaml").read_text()
        (self.folder / "policy.yaml").write_text(policy)
        self.descriptions.update((rule["id"], rule["description"]["en"]) for rule in yaml.safe_load(policy)["rules"])
        _write_csv(self.folder / "ramadan.csv", "email", self.members)
        _write_csv(self.folder / "newsletter.csv", "Email Address", self.others)
        self.config.write_text(
            f"""\
listen: {{smtp: [{{address: 127.0.0.1, port: {self.port}}}]}}
relay: {{host: 127.0.0.1, port: {self.relay.port}, tls: none, wait_seconds: 2}}
store: {{url: "sqlite:///smtpguard.db"}}
policy: policy.yaml
state: state
secret_file: state/secret
notices: {{from: "Mail guard <smtpguard@nordhandel.example>", contact: "it@nordhandel.example"}}
dkim_keys: {{"demo._domainkey.campaigns.{HOME}": "{self._key.record}"}}
console: {{address: 127.0.0.1, port: {self._console_port}, url: "{self.console}"}}
hold: {{release_delay: 2s}}
workers: {self._workers}
logging: {{format: json}}
"""
        )
        self.config.chmod(0o600)


def _free_port() -> int:
    """A free port below the range for outgoing connections, so that none of them takes it before the console does."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _write_csv(path: Path, column: str, addresses: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow([column, "First Name"])
        writer.writerows([address, address.partition(".")[0].title()] for address in addresses)


@contextlib.contextmanager
def stage(*, workers: int = 1, kind: type[Stage] = Stage) -> Iterator[Stage]:
    """A running stage; afterwards everything that it wrote is deleted. Raises NotStarted."""
    with tempfile.TemporaryDirectory(prefix="smtpguard-demo-") as folder:
        built = kind(Path(folder), workers=workers)
        try:
            built.start()
            yield built
        finally:
            built.stop()
