"""Real proxies in front of smtpguard, each in its own folder, on loopback: HAProxy, nginx's mail proxy, Dovecot's
submission."""

from __future__ import annotations

import http.server
import os
import pwd
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.peers.server import Server

DOVECOT = Path("/usr/lib/dovecot/submission")
NGINX_MAIL = Path("/usr/lib/nginx/modules/ngx_mail_module.so")


def haproxy_missing() -> str | None:
    return None if shutil.which("haproxy") else "haproxy is not installed"


def haproxy(root: Path, frontends: Sequence[tuple[int, int, str]]) -> Server:
    """``frontends``: (port to listen on, port to forward to, parameters of its ``server`` line)."""
    root.mkdir()
    text = "defaults\n    mode tcp\n    timeout connect 60s\n    timeout check 60s\n    timeout client 60s\n    timeout server 60s\n"
    for number, (port, to, words) in enumerate(frontends):
        text += f"listen smtp{number}\n    bind 127.0.0.1:{port}\n    server guard 127.0.0.1:{to} {words}\n"
    (root / "haproxy.cfg").write_text(text)
    return Server(["haproxy", "-db", "-f", str(root / "haproxy.cfg")], frontends[0][0], root / "log")


def nginx_missing() -> str | None:
    return None if shutil.which("nginx") and NGINX_MAIL.exists() else "nginx's mail proxy is not installed"


def nginx(root: Path, port: int, asks: int) -> Server:
    """nginx's mail proxy. It asks the port ``asks`` who may log in, and where to forward."""
    root.mkdir()
    (root / "nginx.conf").write_text(f"""\
load_module {NGINX_MAIL};
daemon off; master_process off; pid {root}/pid; error_log stderr info;
events {{}}
mail {{
    auth_http 127.0.0.1:{asks}/;
    server {{
        listen 127.0.0.1:{port}; protocol smtp; smtp_auth login plain none; xclient on; proxy_smtp_auth off;
        server_name front.example.com;
    }}
}}
""")
    return Server(["nginx", "-p", str(root), "-c", str(root / "nginx.conf")], port, root / "log")


def dovecot_missing() -> str | None:
    if os.geteuid() != 0:
        return "dovecot starts as root only"
    return None if DOVECOT.exists() else "dovecot's submission service is not installed"


def dovecot(root: Path, port: int, password: str, recipe: str) -> Server:
    """Dovecot's submission service: any user with ``password`` may log in. ``recipe``: where it forwards mail."""
    root.mkdir()
    root.chmod(0o755)
    for name in ("state", "home"):
        (root / name).mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(root / "home", nobody.pw_uid, nobody.pw_gid)
    (root / "dovecot.conf").write_text(f"""\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
{recipe}
protocols = submission
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/said
listen = 127.0.0.1
hostname = front.example.com
ssl = no
submission_relay_ssl = no
auth_allow_cleartext = yes
auth_mechanisms = plain login
mail_driver = maildir
mail_path = {root}/home
service submission-login {{
  chroot =
  inet_listener submission {{
    port = {port}
  }}
  inet_listener submissions {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
passdb static {{
  password = {password}
}}
userdb static {{
  fields {{
    uid = {nobody.pw_uid}
    gid = {nobody.pw_gid}
    home = {root}/home
  }}
}}
""")
    return Server(["dovecot", "-F", "-c", str(root / "dovecot.conf")], port, root / "log")


class Doorman:
    """nginx's auth_http server: users with ``password``, and clients without a login, are forwarded to ``port``."""

    def __init__(self, port: int, password: str) -> None:
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                good = self.headers.get("Auth-Method") == "none" or self.headers.get("Auth-Pass") == password
                self.send_response(200)
                self.send_header("Auth-Status", "OK" if good else "Invalid login or password")
                if good:
                    self.send_header("Auth-Server", "127.0.0.1")
                    self.send_header("Auth-Port", str(port))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Do not log."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Doorman:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
