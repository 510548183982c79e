"""client Postfix -> smtpguard -> relay Postfix -> a recorder: real servers on loopback."""

from __future__ import annotations

import asyncio
import json
import signal
import smtplib
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests import program
from tests.peers.postfix import Postfix, free_port
from tests.program import Program
from tests.scripted_relay import Message, ScriptedRelay

PATIENCE = 120.0
"""Seconds that a test waits for another process. Each such step is fast on an idle machine."""

POLICY = """\
version: 1
organization: {name: Example AB, domains: [example.com, example.se], languages: [sv, en]}
groups:
  communications: [eva@example.com, omar@example.com]
  compliance: [dpo@example.com]
approvals: {from: [communications], each: 1}
lists:
  ramadan-greetings:
    title: Ramadan greetings
    owner: omar@example.com
    addresses: [ramadan@lists.example.com]
    list_ids: [ramadan.lists.example.com]
    members: {csv: ramadan.csv, column: email}
    audience: customers
    sensitivity: special-category
    writers: [campaigns@example.com]
    origin: {dkim: campaigns.example.com}
    avoid: [pork, alcohol]
    approvals: {from: [communications, compliance], each: 1}
  friends:
    addresses: [friends@lists.example.com]
    list_ids: [friends.lists.example.com]
    members: {csv: friends.csv, column: email}
    audience: customers
    writers: [campaigns@example.com]
    origin: {dkim: campaigns.example.com}
streams:
  receipts:
    from: [noreply@example.com]
    origin: {dkim: shop.example.com}
    max: 20000 in 1h
    max_per_person: 20 in 1d
  support:
    from: [support@example.com]
    origin: {clients: [127.0.0.1]}
    max: 1000 in 1h
"""


def rules() -> str:
    """The rules of config/policy.yaml, as YAML."""
    text = (Path(__file__).parents[2] / "config" / "policy.yaml").read_text()
    return text[text.index("\nrules:") :]


def member(n: int) -> str:
    return f"customer{n}@mailbox{n % 7}.example.org"


def until(true: Callable[[], Any], why: str | Callable[[], str] = "", *, seconds: float = PATIENCE) -> Any:
    """Poll until ``true`` returns a true value, and return it. AssertionError with ``why`` after ``seconds``. Asking takes
    at most half of the time, and ever less of a long wait."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        if found := true():
            return found
        now = time.monotonic()
        if now - began >= seconds:
            raise AssertionError(f"waited {seconds:g} s for {(why if isinstance(why, str) else why()) or true}")
        time.sleep(max(0.02, now - asked, min(0.5, (now - began) / 20)))


def logged(server: Postfix, *words: str) -> str:
    """Wait for a line of its log that has all ``words``; the first one. Another process writes the log, some time after
    what a line tells of."""

    def line() -> str | None:
        return next((line for line in server.lines() if all(word in line for word in words)), None)

    return str(until(line, f"{words} in the log of Postfix"))


class Recorder:
    """The last hop: a scripted relay in its own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.relay = ScriptedRelay()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        self.call(self.relay.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self.relay.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    @property
    def port(self) -> int:
        return self.relay.port

    @property
    def messages(self) -> list[Message]:
        return list(self.relay.messages)

    def with_id(self, message_id: str) -> list[Message]:
        """Messages with this Message-ID. Notices only refer to it."""
        return [m for m in self.messages if f"\r\nMessage-ID: <{message_id}>\r\n".encode() in m.content]

    def releases(self, message_id: str) -> list[bytes]:
        """X-Smtpguard-Release of every copy; empty on a copy that was not released."""
        return [m.field(b"X-Smtpguard-Release") for m in self.with_id(message_id)]

    def go_on(self) -> None:
        """Clear the relay's script, and end its stalls."""

        async def resume() -> None:
            self.relay.forget()
            self.relay.resume()

        self.call(resume())


class Guard:
    """``smtpguard serve`` in its own folder."""

    def __init__(
        self,
        root: Path,
        *,
        relay_port: int,
        policy: str = "",
        settings: Mapping[str, str] | None = None,
        workers: int = 2,
    ) -> None:
        self.root = root / "guard"
        self.root.mkdir()
        self.port = free_port()
        self.log = self.root / "log"
        rows = "\n".join(f"{member(n)},Customer {n}" for n in range(1000))
        (self.root / "ramadan.csv").write_text(f"email,name\n{rows}\n")
        (self.root / "friends.csv").write_text("email\n" + "".join(f"friend{n}@example.net\n" for n in range(120)))
        (self.root / "policy.yaml").write_text(policy or POLICY + rules())
        keys = {
            "listen": f"{{smtp: [{{address: 127.0.0.1, port: {self.port}, tls: {{certificate: ../cert.pem, key: ../key.pem}}}}]}}",
            "trust": "[127.0.0.1]",
            "relay": f"{{host: 127.0.0.1, port: {relay_port}, tls: require, ca_file: ../ca.pem}}",
            "store": '{url: "sqlite:///var/smtpguard.db"}',
            "policy": "policy.yaml",
            "hold": "{release_delay: 0}",
            "notices": '{from: "Mail guard <smtpguard@example.com>", contact: "it@example.com"}',
            "logging": "{format: json}",
            "workers": str(workers),
            **(settings or {}),
        }
        self.config = self.root / "smtpguard.yaml"
        self.config.write_text("".join(f"{k}: {v}\n" for k, v in keys.items()))
        self._process: Program | None = None

    def start(self) -> Guard:
        with self.log.open("ab") as log:
            self._process = Program(["-c", str(self.config), "serve"], stdout=log, stderr=log)
        try:
            until(self._answers, "smtpguard to answer")
        except BaseException:
            self._process.kill()
            self._process.wait(PATIENCE)
            raise
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            with smtplib.SMTP("127.0.0.1", self.port, timeout=120):
                return True
        except OSError:
            return False

    def reaches_relay(self) -> bool:
        """Whether every process reaches the relay. Each remembers a failure for a while; ten connections are spread
        over all processes."""
        with ExitStack() as stack:
            sessions = [stack.enter_context(smtplib.SMTP("127.0.0.1", self.port, timeout=120)) for _ in range(10)]
            for smtp in sessions:
                smtp.ehlo("desk.example.com")
                smtp.mail("anna@example.com")
            return all(smtp.rcpt("you@example.org")[0] == 250 for smtp in sessions)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(PATIENCE)
                raise AssertionError("smtpguard did not stop: " + self.log.read_text()[-3000:]) from None
            finally:
                self._process = None

    def __enter__(self) -> Guard:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *words: str, exits: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = program.run(["-c", str(self.config), *words], timeout=PATIENCE)
        assert exits is None or done.returncode == exits, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run("--json", *words).stdout.splitlines()]

    def held(self, subject: str) -> list[dict[str, Any]]:
        """Holds with this subject, decided ones included."""
        return [h for h in self.json("held", "list") if h["subject"] == subject]


class Chain:
    """The whole chain. ``client``: colleagues submit here. ``relay``: sends to customers. ``lists``: a list server with
    the guard as its relay. ``relay_main``: additional main.cf parameters of the relay."""

    def __init__(self, root: Path, *, relay_main: Mapping[str, str] | None = None, **guard: Any) -> None:
        self._stack = ExitStack()
        self._root = root
        self._relay_main = relay_main or {}
        self._guard = guard

    def __enter__(self) -> Chain:
        enter = self._stack.enter_context
        self.recorder = enter(Recorder())
        self.relay = enter(
            Postfix(
                self._root,
                name="relay",
                main={
                    "relayhost": f"[127.0.0.1]:{self.recorder.port}",
                    "smtpd_authorized_xforward_hosts": "127.0.0.0/8",
                    "smtpd_tls_security_level": "may",
                    "smtpd_tls_cert_file": str(self._root / "cert.pem"),
                    "smtpd_tls_key_file": str(self._root / "key.pem"),
                    "smtpd_tls_loglevel": "1",
                    **self._relay_main,
                },
            )
        )
        self.guard = enter(Guard(self._root, relay_port=self.relay.port, **self._guard))
        onward = {
            "relayhost": f"[127.0.0.1]:{self.guard.port}",
            "smtp_send_xforward_command": "yes",
            "smtp_tls_security_level": "encrypt",
            "smtp_tls_CAfile": str(self._root / "ca.pem"),
            "smtp_tls_loglevel": "1",
        }
        self.client = enter(Postfix(self._root, name="client", main=onward))
        aliases = self._root / "aliases"
        aliases.write_text("inside@lists.example.com " + ", ".join(member(n) for n in range(100, 180)) + "\n")
        self.lists = enter(
            Postfix(self._root, name="lists", main={**onward, "virtual_alias_maps": f"texthash:{aliases}"})
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def submit(self, mail: bytes, sender: str, *recipients: str, to: Postfix | None = None, **options: Any) -> None:
        """Submit to the client Postfix, as a mail client does. ``options``: mail_options, rcpt_options."""
        with smtplib.SMTP("127.0.0.1", (to or self.client).port, timeout=120) as smtp:
            smtp.ehlo("desk.example.com")
            smtp.sendmail(sender, recipients, mail, **options)

    def is_idle(self) -> bool:
        return self.client.queued() == 0 and self.relay.queued() == 0 and self.lists.queued() == 0
