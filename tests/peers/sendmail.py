"""A real Sendmail in its own folder, on loopback. It is unpacked beside Postfix, since its package conflicts with
Postfix's.

A UTS namespace gives its host a name. Without a host name, it would wait for a minute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.peers.postfix import free_port
from tests.peers.server import Server

UNPACKED = Path("/usr/local/lib/smtpguard-peers/sendmail")
BINARY = UNPACKED / "usr/libexec/sendmail/sendmail"
CF = UNPACKED / "usr/share/sendmail/cf"
NAME = "mx.example.com"

MC = """\
divert(-1)dnl
include(`{cf}/m4/cf.m4')dnl
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `{name}')dnl
define(`QUEUE_DIR', `{root}/queue')dnl
define(`STATUS_FILE', `')dnl
define(`HELP_FILE', `')dnl
define(`ALIAS_FILE', `{root}/aliases')dnl
define(`confDONT_BLAME_SENDMAIL', `MapInUnsafeDirPath,GroupWritableDirPathSafe')dnl
define(`confPID_FILE', `{root}/pid')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`confSERVICE_SWITCH_FILE', `{root}/switch')dnl
define(`confMIN_QUEUE_AGE', `0')dnl
define(`confQUEUE_LA', `10000')dnl
define(`confREFUSE_LA', `10000')dnl
define(`confDELAY_LA', `0')dnl
define(`SMART_HOST', `relay:[127.0.0.1]')dnl
define(`RELAY_MAILER_ARGS', `TCP $h {relay}')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`promiscuous_relay')dnl
FEATURE(`no_default_msa')dnl
DAEMON_OPTIONS(`Port={port}, Addr=127.0.0.1, Name=MTA, InputMailFilters=smtpguard;other')dnl
{recipe}
MAILER(`local')dnl
MAILER(`smtp')dnl
"""


def missing() -> str | None:
    """Why Sendmail cannot run here, or None."""
    if not BINARY.exists():
        return "sendmail is not unpacked (tests/peers/install.sh)"
    if not shutil.which("m4") or not shutil.which("unshare"):
        return "m4 or unshare is not installed"
    return None if os.geteuid() == 0 else "sendmail starts as root only"


class Sendmail:
    """``recipe``: lines of sendmail.mc. ``relay``: the port of its smart host. ``aliases``: aliases of its own host."""

    def __init__(self, root: Path, *, relay: int, recipe: str, aliases: str = "") -> None:
        self.root, self.port = root / "sendmail", free_port()
        (self.root / "queue").mkdir(parents=True, mode=0o700)
        (self.root / "switch").write_text("hosts files\naliases files\npasswd files\n")
        (self.root / "aliases").write_text(aliases)
        self.mc = MC.format(cf=CF, root=self.root, name=NAME, relay=relay, port=self.port, recipe=recipe)

    def __enter__(self) -> Sendmail:
        made = subprocess.run(["m4", f"-D_CF_DIR_={CF}/"], input=self.mc.encode(), capture_output=True, check=True)
        (self.root / "sendmail.cf").write_bytes(made.stdout)
        sendmail = f"{BINARY} -C {self.root}/sendmail.cf"
        run = f"hostname {NAME}; {sendmail} -bi; exec {sendmail} -bD -q1s"
        self._server = Server(["unshare", "--uts", "sh", "-c", run], self.port, self.root / "log")
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
