"""Postfix with smtpguard as its milter, as in docs/milter.md: submission with logins, sendmail(1), XCLIENT, a release
port.

Another milter follows smtpguard, as a signing milter would. It only adds a header field.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.policy.verdict import Disposition, Relayed
from smtpguard.wire.listener import Listener
from smtpguard.wire.milter import MilterReception
from smtpguard.wire.milterpackets import Negotiate, Quit, encode
from tests.peers import postfix
from tests.peers.chain import POLICY, Guard, Recorder
from tests.peers.postfix import Postfix, free_port
from tests.peers.recipe import parameters, recipe
from tests.wire.relayed import fence_holds

PAGE = Path(__file__).parents[2] / "docs" / "milter.md"
ANNA, SECRET = "anna@example.com", "hunter2"
CHECKED = b"X-Checked: by Postfix\r\n"
"""What the checks of Postfix prepend to mail with ``held-1`` in its Message-ID."""
CUSTOMERS = ["customer1@mailbox1.example.org", "customer2@mailbox2.example.org"]
EXPANDED = "eid@lists.example.com"
"""A second address of the list, which the MTA itself expands."""
NEWS = """\
  news:
    addresses: [news@lists.example.com]
    members: {csv: ramadan.csv, column: email}
    writers: [anna@example.com]
"""
LONG = " ".join(f"This is the {n}th reason why it was not sent." for n in range(4, 30))
RULES = """\
rules:
  - id: internal-to-list
    when: {message.looks: [internal, unclear], recipients.lists: ramadan-greetings}
    then: hold
    scope: customers
  - id: not-a-writer
    when: {recipients.list_addresses: any, sender.is_writer: false}
    unless: {recipients.lists: ramadan-greetings}
    then: hold
  - id: asks-first
    when: {recipients.lists: news, recipients.list_addresses: any, recipients.outside: 2}
    then: confirm
  - id: never
    description: "100 % of this is never sent"
    when: {recipients.outside: 3}
    then: reject
  - id: at-length
    description: "DESCRIPTION"
    when: {recipients.outside: ">= 4"}
    then: reject
""".replace("DESCRIPTION", LONG)


def policy(expanded: str = EXPANDED) -> str:
    """The policy of these tests."""
    text = POLICY.replace("[ramadan@lists.example.com]", f"[ramadan@lists.example.com, {expanded}]")
    return text.replace("streams:", NEWS + "streams:") + RULES


class OtherMilter:
    """A milter after smtpguard, in the recorder's event loop. It adds ``X-Other`` to every message."""

    def __init__(self, root: Path, recorder: Recorder) -> None:
        self.port = free_port()
        self._root, self._recorder = root, recorder

    def __enter__(self) -> OtherMilter:
        self._recorder.call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._recorder.call(self._stop())

    async def _start(self) -> None:
        numbers = itertools.count(1)

        async def sign(transaction: Transaction, onward: Onward) -> Disposition:
            return Relayed(replies=await onward.send(b"X-Other: seen\r\n", fence_holds))

        self._reception = MilterReception(Listener(spool=self._root), sign, new_id=lambda: str(next(numbers)))
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._listening.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())

    async def _accept(self) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self._listening)
            await self._reception.serve_connection(sock)

    async def _stop(self) -> None:
        self._accepting.cancel()
        await asyncio.wait({self._accepting})
        self._listening.close()
        await self._reception.stop(0.5)


class MilterGuard(Guard):
    """``smtpguard serve`` that listens only as a milter: on ``milter_port`` and on the Unix socket ``unix``."""

    def __init__(self, root: Path, *, relay_port: int, unix: Path, **more: Any) -> None:
        self.milter_port, self.unix = free_port(), unix
        [text] = [text for name, text in recipe("Postfix", {}, PAGE).items() if name == "smtpguard.yaml"]
        assert "milter: [{address: 127.0.0.1, port: 10027}]" in text
        group = "" if postfix.missing() else ", group: postfix"
        places = f"{{address: 127.0.0.1, port: {self.milter_port}}}, {{unix: {unix}{group}}}"
        settings: Mapping[str, str] = {
            "listen": f"{{smtp: [], milter: [{places}]}}",
            "relay": f"{{host: 127.0.0.1, port: {relay_port}, tls: none}}",
            **more.pop("settings", {}),
        }
        super().__init__(root, relay_port=relay_port, settings=settings, **more)

    @property
    def part(self) -> int:
        """The pid of the milter part."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        [pid] = [
            int(pid) for pid in children if Path(f"/proc/{pid}/cmdline").read_text().startswith("smtpguard: milter")
        ]
        return pid

    @property
    def pids(self) -> tuple[int, int]:
        """The pids of supervisor and milter part."""
        assert self._process is not None
        return self._process.pid, self.part

    def unread(self) -> int:
        """Octets that Postfix has sent over TCP and the milter has not read yet."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        port, established = f":{self.milter_port:04X}", "01"
        return sum(int(r[4].split(":")[1], 16) for r in rows if r[1].endswith(port) and r[3] == established)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            with socket.create_connection(("127.0.0.1", self.milter_port), timeout=120) as mta:
                mta.sendall(encode(Negotiate(6, 0x1FF, 0x1FFFFF)) + encode(Quit()))
                return bool(mta.recv(1))
        except OSError:
            return False


class MilterChain:
    """``mta``: Postfix, where all mail is submitted. ``release``: its port for releases. ``login``: its submission
    port. ``hasty``: a port that waits one second for what a milter says of content."""

    def __init__(self, root: Path) -> None:
        self._stack = ExitStack()
        self._root = root

    def __enter__(self) -> MilterChain:
        enter, root = self._stack.enter_context, self._root
        self.recorder = enter(Recorder())
        self.other = enter(OtherMilter(root, self.recorder))
        self.release, self.login, self.hasty = free_port(), free_port(), free_port()
        unix = root / "mta" / "spool" / "smtpguard" / "milter.sock"
        self.guard = MilterGuard(
            root,
            relay_port=self.release,
            unix=unix,
            policy=policy(),
            workers=1,
        )
        ports = {"10027": str(self.guard.milter_port), "10026": str(self.release), "8891": str(self.other.port)}
        files = recipe("Postfix", ports, PAGE)
        aliases = root / "aliases"
        aliases.write_text(
            "team@example.com bo@example.com, cia@example.com\n"
            f"{EXPANDED} customer1@mailbox1.example.org, customer2@mailbox2.example.org\n"
        )
        (root / "checks").write_text(f"/^Message-ID: <held-1@/ PREPEND {CHECKED.decode().strip()}\n")
        main = {
            "relayhost": f"[127.0.0.1]:{self.recorder.port}",
            "header_checks": f"regexp:{root / 'checks'}",
            "inet_protocols": "all",  # otherwise XCLIENT accepts no IPv6 address
            "mynetworks": "127.0.0.0/8 [2001:db8::]/32",
            "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
            "virtual_alias_maps": f"texthash:{aliases}",
            **parameters(files["main.cf"]),
        }
        submission = (
            f"127.0.0.1:{self.login} inet n - n - - smtpd\n    -o smtpd_milters=unix:smtpguard/milter.sock\n"
            "    -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n    -o smtpd_sasl_auth_enable=yes\n"
            f"127.0.0.1:{self.hasty} inet n - n - - smtpd\n    -o milter_content_timeout=1s\n"
        )
        sasl = postfix.sasl(root, {ANNA: SECRET}) | {"smtpd_sasl_auth_enable": "no"}
        self.mta = Postfix(root, name="mta", main=main | sasl, master=submission + files["master.cf"])
        unix.parent.mkdir()
        enter(self.guard)
        enter(self.mta)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sendmail(self, mail: bytes, sender: str, *recipients: str) -> subprocess.CompletedProcess[bytes]:
        """Submit as a local program does."""
        words = ["/usr/sbin/sendmail", "-C", str(self.mta.config), "-i", "-f", sender, *recipients]
        return subprocess.run(words, input=mail.replace(b"\r\n", b"\n"), capture_output=True, timeout=120, check=False)

    def wake_pickup(self) -> None:
        """Otherwise pickup looks into the maildrop once a minute."""
        words = ["/usr/sbin/postkick", "-c", str(self.mta.config), "public", "pickup", "W"]
        subprocess.run(words, check=True, timeout=120, capture_output=True)
