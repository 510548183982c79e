"""A real Postfix in its own folder, on loopback, stopped by its process id.

Several run side by side. Each has its own configuration, queue and log, and none touches the machine's Postfix.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SBIN = Path("/usr/lib/postfix/sbin")

# qmgr looks every second, not every 300, at incoming: there it puts a message that it finds still being delivered.
SERVICES = """\
pickup    unix n - n 60   1 pickup
cleanup   unix n - n -    0 cleanup
qmgr      unix n - n 1    1 qmgr
rewrite   unix - - n -    - trivial-rewrite
bounce    unix - - n -    0 bounce
defer     unix - - n -    0 bounce
trace     unix - - n -    0 bounce
verify    unix - - n -    1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n -    - proxymap
proxywrite unix - - n -   1 proxymap
smtp      unix - - n -    - smtp
relay     unix - - n -    - smtp
showq     unix n - n -    - showq
error     unix - - n -    - error
retry     unix - - n -    - error
discard   unix - - n -    - discard
local     unix - n n -    - local
virtual   unix - n n -    - virtual
anvil     unix - - n -    1 anvil
scache    unix - - n -    1 scache
tlsmgr    unix - - n 1000? 1 tlsmgr
postlog   unix-dgram n - n - 1 postlogd
"""


def missing() -> str | None:
    """Why Postfix cannot run here, or None."""
    if not (SBIN / "master").exists():
        return "postfix is not installed"
    if os.geteuid() != 0:
        return "postfix starts as root only"
    return None


def free_port() -> int:
    """A port without a listener, below the ephemeral ports and above those that the sample settings name. No test process
    gets the same one: the process that took it keeps an abstract Unix socket with its number bound until it ends."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0smtpguard-test-port-{port}")
            with socket.socket() as s:
                s.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        mark.detach()
        return port


def sasl_missing() -> str | None:
    """Why Postfix cannot check logins here, or None."""
    if not shutil.which("saslpasswd2"):
        return "sasl2-bin is not installed"
    if not any(Path("/usr/lib").glob("*/sasl2/liblogin.so")):
        return "libsasl2-modules is not installed"
    return missing()


def sasl(folder: Path, people: Mapping[str, str]) -> dict[str, str]:
    """main.cf parameters for an smtpd where ``people``, address -> password, may log in: Cyrus SASL, with its own
    database in ``folder``."""
    database, config = folder / "sasldb", folder / "sasl"
    config.mkdir()
    (config / "smtpd.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\nmech_list: PLAIN LOGIN\n"
    )
    for address, password in people.items():
        user, _, realm = address.partition("@")
        words = ["saslpasswd2", "-p", "-c", "-f", str(database), "-u", realm, user]
        subprocess.run(words, input=password.encode(), check=True, timeout=120)
    database.chmod(0o644)
    return {
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_path": "smtpd",
        "cyrus_sasl_config_path": str(config),
        "smtpd_sasl_security_options": "noanonymous",
    }


class Postfix:
    """One instance. ``main``: main.cf parameters over the defaults. ``smtpd``: additional listeners in master.cf."""

    def __init__(
        self, root: Path, *, name: str, main: Mapping[str, str] | None = None, master: str = "", port: int = 0
    ) -> None:
        self.root = root / name
        self.port = port or free_port()
        self.config = self.root / "etc"
        self.queue = self.root / "spool"
        self.log = self.root / "maillog"
        for folder in (self.config, self.queue, self.root / "data"):
            folder.mkdir(parents=True)
        for above in (self.root, *self.root.parents):  # the user postfix must reach its queue
            if above.stat().st_uid == os.geteuid() and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o055)
        owner = pwd.getpwnam("postfix")
        os.chown(self.root / "data", owner.pw_uid, owner.pw_gid)
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "data_directory": str(self.root / "data"),
            "maillog_file": str(self.log),
            "maillog_file_prefixes": str(self.root),
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": f"{name}.example.com",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "smtp_dns_support_level": "disabled",
            "smtp_host_lookup": "native",
            "smtputf8_enable": "yes",
            "smtputf8_autodetect_classes": "all",
            "smtpd_peername_lookup": "no",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_client_port_logging": "no",
            "in_flow_delay": "0",
            "queue_run_delay": "1s",
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "2s",
            "default_process_limit": "50",
            "append_dot_mydomain": "no",
            "swap_bangpath": "no",
            "biff": "no",
            **(main or {}),
        }
        (self.config / "main.cf").write_text("".join(f"{k} = {v}\n" for k, v in settings.items()))
        (self.config / "master.cf").write_text(f"127.0.0.1:{self.port} inet n - n - - smtpd\n{SERVICES}{master}")
        shutil.copy("/etc/postfix/dynamicmaps.cf", self.config) if Path(
            "/etc/postfix/dynamicmaps.cf"
        ).exists() else None
        self._master: subprocess.Popen[bytes] | None = None

    def start(self) -> Postfix:
        said = self.root / "said"
        with said.open("ab") as out:
            check = ["postfix", "-c", str(self.config), "check"]  # creates the queue
            subprocess.run(check, check=False, timeout=120, stdout=out, stderr=out)
            master = [str(SBIN / "master"), "-c", str(self.config), "-d"]
            self._master = subprocess.Popen(master, start_new_session=True, stdout=out, stderr=out)
        deadline = time.monotonic() + 120
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=120) as s:
                s.recv(512)
                s.sendall(b"QUIT\r\n")
                return self
            if time.monotonic() > deadline or self._master.poll() is not None:
                raise RuntimeError(f"postfix did not start: {self.lines()[-5:]} {said.read_text()[-500:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._master is None:
            return
        with suppress(OSError):  # the whole process group: an smtpd with a client would outlive the master
            os.killpg(self._master.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._master.wait(120)
        if self._master.poll() is None:
            self._master.kill()
            self._master.wait(120)
        self._master = None

    def __enter__(self) -> Postfix:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process(self) -> int:
        """The pid of its master, 0 if it is not running."""
        return self._master.pid if self._master is not None else 0

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    def queued(self, *queues: str) -> int:
        """Messages in these queues, or in all. They are listed twice, since a message may move behind the listing."""
        listed = (queues or ("maildrop", "incoming", "active", "deferred", "hold")) * 2
        return len({f.name for q in listed for f in (self.queue / q).rglob("*") if f.is_file()})

    def flush(self) -> None:
        subprocess.run(["postqueue", "-c", str(self.config), "-f"], check=False, timeout=120, capture_output=True)
