"""Mail clients log in through smtpguard at a real submission service: Postfix with Cyrus SASL, STARTTLS and implicit
TLS.

The relay accepts only mail of logged-in users with a reverse-path of their own. So mail that arrives has gone over a
connection in the writer's name, and a release over one in the guard's name.
"""

from __future__ import annotations

import base64
import json
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers import letters, postfix
from tests.peers.chain import POLICY, Guard, Recorder, logged, rules, until
from tests.peers.postfix import Postfix, free_port

ANNA, GUARD = "anna@example.com", "guard@example.com"
PEOPLE = {ANNA: "corréct horse", "bo@example.com": "hunter2", GUARD: "of its own"}
UNPROVEN = """
  - id: somebody-elses-name
    description: Mail goes in one's own name
    when: {sender.proven: false}
    then: reject
"""


class Submission:
    """``relay_tls``: TLS mode from smtpguard to the relay."""

    def __init__(self, root: Path, relay_tls: str) -> None:
        self._stack = ExitStack()
        self.root, self._relay_tls = root, relay_tls
        self.ca = ssl.create_default_context(cafile=str(root / "ca.pem"))

    def __enter__(self) -> Submission:
        self.recorder = self._stack.enter_context(Recorder())
        here = self.root / self._relay_tls
        here.mkdir()
        smtps = free_port()
        # the guard may use every address, since it releases other people's mail
        (here / "owners").write_text("".join(f"{who} {who}, {GUARD}\n" for who in PEOPLE))
        self.relay = self._stack.enter_context(
            Postfix(
                here,
                name="relay",
                main={
                    **postfix.sasl(here, PEOPLE),
                    "relayhost": f"[127.0.0.1]:{self.recorder.port}",
                    "smtpd_tls_security_level": "encrypt",
                    "smtpd_tls_cert_file": str(self.root / "cert.pem"),
                    "smtpd_tls_key_file": str(self.root / "key.pem"),
                    "smtpd_tls_auth_only": "yes",
                    "smtpd_client_restrictions": "permit_sasl_authenticated, reject",
                    "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
                    "smtpd_sender_login_maps": f"texthash:{here / 'owners'}",
                    "smtpd_sender_restrictions": "reject_sender_login_mismatch",
                },
                master=f"127.0.0.1:{smtps} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n",
            )
        )
        (here / "password").write_text(PEOPLE[GUARD])
        (here / "password").chmod(0o600)
        self.implicit = free_port()
        port = {"require": self.relay.port, "implicit": smtps}[self._relay_tls]
        own = "tls: {certificate: ../../cert.pem, key: ../../key.pem"
        guard = Guard(here, relay_port=port, policy=POLICY + rules() + UNPROVEN, workers=1)
        keys = guard.config.read_text().splitlines()
        settings = {
            "listen": f"{{smtp: [{{address: 127.0.0.1, port: {guard.port}, {own}}}, auth: {{}}}}, "
            f"{{address: 127.0.0.1, port: {self.implicit}, {own}, mode: implicit}}, auth: {{required: true}}}}]}}",
            "trust": "[]",
            "relay": f"{{host: 127.0.0.1, port: {port}, tls: {self._relay_tls}, ca_file: ../../ca.pem, "
            f"auth: {{user: {GUARD}, password_file: ../password}}}}",
        }
        guard.config.write_text(
            "\n".join(line for line in keys if line.partition(":")[0] not in settings)
            + "".join(f"\n{key}: {value}" for key, value in settings.items())
            + "\n"
        )
        self.guard = self._stack.enter_context(guard)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self, *, implicit: bool = False) -> smtplib.SMTP:
        """Connect as a mail client does: TLS before the login."""
        if implicit:
            return smtplib.SMTP_SSL("localhost", self.implicit, timeout=120, context=self.ca, local_hostname="desk")
        smtp = smtplib.SMTP("localhost", self.guard.port, timeout=120, local_hostname="desk")
        smtp.starttls(context=self.ca)
        return smtp


@pytest.fixture(scope="module", params=["require", "implicit"])
def submission(request: pytest.FixtureRequest, certified: Path) -> Iterator[Submission]:
    if why := postfix.sasl_missing():
        pytest.skip(why)
    with Submission(certified, request.param) as submission:
        yield submission


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
def test_mail_is_submitted_under_the_clients_login(submission: Submission, implicit: bool) -> None:
    message_id = f"own-{implicit}@example.com"
    with submission.client(implicit=implicit) as smtp:
        smtp.ehlo()
        assert set(smtp.esmtp_features["auth"].split()) == {"PLAIN", "LOGIN"}
        assert smtp.docmd("AUTH", "PLAIN " + _plain(ANNA, PEOPLE[ANNA])) == (235, b"2.7.0 Authentication successful")
        smtp.sendmail(ANNA, ["you@example.org"], letters.mail(to="you@example.org", message_id=message_id))
    until(lambda: submission.recorder.with_id(message_id), why="the mail")
    logged(submission.relay, f"sasl_username={ANNA}")
    until(lambda: any(line.get("actor") == ANNA for line in _log(submission.guard)), why="its line in the log")


def test_a_wrong_password_gets_the_relays_reply(submission: Submission) -> None:
    with submission.client() as smtp:
        smtp.ehlo()
        code, text = smtp.docmd("AUTH", "PLAIN " + _plain(ANNA, "wrong"))
        assert code == 535
        assert text.startswith(b"5.7.8 Error: authentication failed")
        assert smtp.docmd("AUTH", "PLAIN " + _plain(ANNA, PEOPLE[ANNA]))[0] == 235
        assert smtp.docmd("MAIL", f"FROM:<{ANNA}>")[0] == 250


def test_without_a_login_nothing_is_accepted(submission: Submission) -> None:
    with submission.client() as smtp:
        smtp.ehlo()
        assert smtp.docmd("MAIL", f"FROM:<{ANNA}>") == (530, b"5.7.0 Authentication required")
    with smtplib.SMTP("localhost", submission.guard.port, timeout=120) as smtp:
        smtp.ehlo()
        assert "auth" not in smtp.esmtp_features
        assert smtp.docmd("AUTH", "PLAIN " + _plain(ANNA, PEOPLE[ANNA]))[0] == 538


def test_the_relay_refuses_a_foreign_reverse_path(submission: Submission) -> None:
    with submission.client() as smtp:
        smtp.login("bo@example.com", PEOPLE["bo@example.com"])
        assert smtp.docmd("MAIL", f"FROM:<{ANNA}>")[0] == 250
        code, text = smtp.docmd("RCPT", "TO:<you@example.org>")
        assert code == 553
        assert b"not owned by user bo@example.com" in text


def test_the_login_does_not_prove_another_from(submission: Submission) -> None:
    """Mail with Anna's From and Bo's login is rejected. The relay would accept it, since the reverse-path is Bo's."""
    with submission.client() as smtp:
        smtp.login("bo@example.com", PEOPLE["bo@example.com"])
        mail = letters.mail(to="you@example.org", message_id="forged@example.com")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail("bo@example.com", ["you@example.org"], mail)
        assert b"Mail goes in one's own name" in refused.value.smtp_error


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("tls", ["-tls", "-tlsc"])
def test_swaks_submits(submission: Submission, mechanism: str, tls: str) -> None:
    port = submission.guard.port if tls == "-tls" else submission.implicit
    message_id = f"swaks{tls}-{mechanism}@example.com"
    done = subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{port}", tls, "--auth", mechanism, "--auth-user", "bo@example.com",
         "--auth-password", PEOPLE["bo@example.com"], "--from", "bo@example.com", "--to", "you@example.org",
         "--header", f"Message-ID: <{message_id}>"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: submission.recorder.with_id(message_id), why="the mail of swaks")


def test_a_release_uses_the_guards_own_login(submission: Submission) -> None:
    with submission.client() as smtp:
        smtp.login("bo@example.com", PEOPLE["bo@example.com"])
        mail = letters.mail(
            sender="Bo Berg <bo@example.com>", to="ramadan@lists.example.com", subject="SV: Utskick",
            text="Hej kollegor! Kan ni titta på detta?\n", message_id="released@example.com",
        )  # fmt: skip
        smtp.sendmail("bo@example.com", ["ramadan@lists.example.com"], mail)
    [hold] = until(lambda: submission.guard.held("SV: Utskick"), why="the hold")
    for who in ("eva@example.com", "dpo@example.com"):
        submission.guard.run("held", "approve", str(hold["id"]), "--as", who)
    until(lambda: submission.recorder.with_id("released@example.com"), why="the release")
    queue_id = logged(submission.relay, "message-id=<released@example.com>").split(": ")[1]
    logged(submission.relay, f"{queue_id}: client=", f"sasl_username={GUARD}")


def test_no_password_is_in_any_file(submission: Submission) -> None:
    for file in submission.guard.root.rglob("*"):
        if file.is_file():
            octets = file.read_bytes()
            for password in (PEOPLE[ANNA], PEOPLE["bo@example.com"], PEOPLE[GUARD]):
                assert password.encode() not in octets, file
                assert _plain("bo@example.com", password).encode() not in octets, file


def test_a_down_relay_gives_454(submission: Submission) -> None:
    """A login while the relay is down gets 454. This test comes last in the file, since it stops the relay."""
    with submission.client() as smtp:
        smtp.ehlo()
        submission.relay.stop()
        try:
            code, text = smtp.docmd("AUTH", "PLAIN " + _plain(ANNA, PEOPLE[ANNA]))
            assert (code, text) == (454, b"4.7.0 Temporary authentication failure")
        finally:
            submission.relay.start()
        until(lambda: smtp.docmd("AUTH", "PLAIN " + _plain(ANNA, PEOPLE[ANNA]))[0] == 235, why="the relay to be back")


def _log(guard: Guard) -> list[dict[str, object]]:
    return [json.loads(line) for line in guard.log.read_text().splitlines() if line.startswith("{")]


def _plain(user: str, password: str) -> str:
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()
