"""Real proxies in front of smtpguard, each in a folder of its own, on loopback: HAProxy, and nginx's mail proxy."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.peers.chain import until

NGINX_MAIL = Path("/usr/lib/nginx/modules/ngx_mail_module.so")


class _Server:
    """A program that runs until it is stopped; ``port`` listens when it is ready."""

    def __init__(self, words: Sequence[str], port: int, log: Path) -> None:
        self._words, self._port, self.log = words, port, log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Server:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until(self._listens, 20, f"{self._words[0]} to listen")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=5):
            return True
        return False

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(10)


def haproxy_missing() -> str | None:
    return None if shutil.which("haproxy") else "haproxy is not installed"


def haproxy(root: Path, frontends: Sequence[tuple[int, int, str]]) -> _Server:
    """``frontends``: a port to listen on, one to pass on to, and the words of its ``server`` line."""
    root.mkdir()
    text = "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
    for number, (port, to, words) in enumerate(frontends):
        text += f"listen smtp{number}\n    bind 127.0.0.1:{port}\n    server guard 127.0.0.1:{to} {words}\n"
    (root / "haproxy.cfg").write_text(text)
    return _Server(["haproxy", "-db", "-f", str(root / "haproxy.cfg")], frontends[0][0], root / "log")


def nginx_missing() -> str | None:
    return None if shutil.which("nginx") and NGINX_MAIL.exists() else "nginx's mail proxy is not installed"


def nginx(root: Path, port: int, asks: int) -> _Server:
    """Its mail proxy. Whom it lets in, and to where, it asks at the port ``asks``."""
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
    return _Server(["nginx", "-p", str(root), "-c", str(root / "nginx.conf")], port, root / "log")


class Doorman:
    """What nginx asks: everybody who gives the password, or none at all, may pass on to ``port``."""

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
                """Not of interest."""

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
