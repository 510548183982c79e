"""A real Dovecot that authenticates for Postfix, with tokens that a test server validates; on loopback."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.peers import postfix
from tests.peers.chain import until
from tests.peers.server import ended

CONFIG = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/log
protocols =
ssl = no
auth_allow_cleartext = yes
auth_mechanisms = xoauth2 oauthbearer
auth_failure_delay = 0
oauth2 {{
  introspection_mode = post
  introspection_url = http://127.0.0.1:{port}/
  username_attribute = email
  active_attribute = active
  active_value = true
}}
passdb oauth2 {{
}}
service auth {{
  unix_listener {root}/auth-client {{
    mode = 0666
  }}
}}
"""


def missing() -> str | None:
    return postfix.missing() or (None if shutil.which("dovecot") else "dovecot is not installed")


class Dovecot:
    """``tokens``: token -> user."""

    def __init__(self, root: Path, tokens: Mapping[str, str]) -> None:
        class Authority(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
                [token] = parse_qs(asked)["token"]
                known = {"active": True, "email": tokens[token]} if token in tokens else {"active": False}
                body = json.dumps(known).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Do not log."""

        self.root = root
        self._authority = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Authority)
        self._thread = threading.Thread(
            target=self._authority.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """main.cf parameters for an smtpd that authenticates here."""
        return {
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": str(self.root / "auth-client"),
            "smtpd_sasl_security_options": "noanonymous",
        }

    def __enter__(self) -> Dovecot:
        self.root.mkdir()
        (self.root / "state").mkdir()
        self._thread.start()
        config = self.root / "dovecot.conf"
        config.write_text(CONFIG.format(root=self.root, port=self._authority.server_address[1]))
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(["dovecot", "-F", "-c", str(config)], **quiet)
        try:
            until((self.root / "auth-client").exists, "dovecot to listen")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            ended(self._process)
        self._authority.shutdown()
        self._authority.server_close()
        self._thread.join(5)
