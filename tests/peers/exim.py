"""A real Exim in its own folder, on loopback. It is unpacked beside Postfix, since its package conflicts with
Postfix's.

It needs its own user, which exists only in the /etc/passwd of its mount namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.peers.postfix import free_port
from tests.peers.server import Server

BINARY = Path("/usr/local/lib/smtpguard-peers/exim/usr/sbin/exim4")
USER = "Debian-exim"

MAIN = """\
exim_path = {binary}
primary_hostname = mx.example.com
spool_directory = {root}/spool
log_file_path = {root}/log-%s
pid_file_path = {root}/pid
exim_user = {user}
exim_group = {user}
keep_environment =
never_users =
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
domainlist local_domains =
acl_smtp_rcpt = taken
acl_smtp_data = content
begin acl
taken:
  accept
content:
{data}
  accept
{recipe}
begin retry
* * F,2h,1s
"""


def missing() -> str | None:
    """Why Exim cannot run here, or None."""
    if not BINARY.exists():
        return "exim is not unpacked (tests/peers/install.sh)"
    if not shutil.which("unshare"):
        return "unshare is not installed"
    if os.geteuid() != 0:
        return "exim starts as root only"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "--bind", "/etc/passwd", "/etc/passwd"], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else "nothing can be mounted here"


class Exim:
    """``recipe``: routers and transports. ``data``: what its ACL for content has. Its folder is temporary, and its user can reach it."""

    def __init__(self, *, recipe: str, data: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="exim-", ignore_cleanup_errors=True)
        self.root, self.port = Path(self._folder.name), free_port()
        self.root.chmod(0o755)
        (self.root / "spool").mkdir()
        for name, line in (("passwd", f"{USER}:x:64321:64321::/:/usr/sbin/nologin"), ("group", f"{USER}:x:64321:")):
            (self.root / name).write_text(f"{Path('/etc', name).read_text().rstrip()}\n{line}\n")
        for path in (self.root, self.root / "spool"):
            os.chown(path, 64321, 64321)
        (self.root / "exim4.conf").write_text(
            MAIN.format(binary=BINARY, root=self.root, user=USER, port=self.port, recipe=recipe, data=data)
        )

    def __enter__(self) -> Exim:
        mounts = " && ".join(f"mount --bind {self.root}/{name} /etc/{name}" for name in ("passwd", "group"))
        run = f"{mounts} && exec {BINARY} -bdf -q1s -C {self.root}/exim4.conf"
        self._server = Server(["unshare", "--mount", "sh", "-c", run], self.port, self.root / "log")
        try:
            self._server.__enter__()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.root.glob("log*")))

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
        self._folder.cleanup()
