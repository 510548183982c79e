"""Votes by mail the whole way: the notice as it comes, the answer by swaks with and without a login, and a real Postfix as relay."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from smtplib import SMTP, SMTPDataError
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from smtpguard.wire.dkim import DkimSigner
from tests.peers import postfix
from tests.peers.chain import Guard, Recorder, until
from tests.peers.postfix import Postfix, free_port

ANNA, EVA, OMAR, GUARD = "anna@example.com", "eva@example.com", "omar@example.com", "guard@example.com"
PEOPLE = dict.fromkeys((ANNA, EVA, OMAR, GUARD), "a passphrase")
FRIENDS, RAMADAN, FEW, CLUB = (f"{name}@lists.example.com" for name in ("friends", "ramadan", "few", "club"))
POLICY = """\
version: 1
organization: {name: Example AB, domains: [example.com], languages: [en]}
groups: {communications: [eva@example.com], board: [omar@example.com]}
approvals: {from: [communications], each: 1}
reply_votes: {people: 200, senders_verified: [example.com]}
lists:
  friends: {title: Friends, addresses: [friends@lists.example.com], members: {csv: friends.csv, column: email}, writers: [anna@example.com]}
  ramadan: {title: Ramadan, addresses: [ramadan@lists.example.com], members: {csv: ramadan.csv, column: email}, writers: [anna@example.com], approvals: {from: [board]}}
  few: {title: Few, addresses: [few@lists.example.com], members: {csv: friends.csv, column: email}, writers: [anna@example.com], approvals: {from: [board]}}
  club: {title: Club, addresses: [club@lists.example.com], members: {csv: friends.csv, column: email}, writers: [anna@example.com]}
rules:
  - {id: to-lists, description: Nothing goes to a list unseen, when: {recipients.list_addresses: any}, unless: {recipients.lists: [club]}, then: hold}
  - {id: to-club, description: Mail to the club is confirmed, when: {recipients.lists: [club]}, then: confirm}
"""
KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
SIGNER = DkimSigner(
    domain="example.com",
    selector="s1",
    key=KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ),
)
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Office:
    guard: Guard
    recorder: Recorder
    inside: int
    """The port at which an MTA hands mail over without a login."""

    def swaks(self, *words: str, login: str = "", exits: bool = True) -> str:
        auth = ("-tls", "--auth", "PLAIN", "--auth-user", login, "--auth-password", PEOPLE[login]) if login else ()
        done = subprocess.run(
            ["swaks", "--server", f"127.0.0.1:{self.guard.port if login else self.inside}", *auth, *words],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode == 0) is exits, done.stdout + done.stderr
        return done.stdout

    def held(self, subject: str, to: str = FRIENDS) -> dict[str, Any]:
        self.swaks("--from", ANNA, "--to", to, "--header", f"Subject: {subject}", "--body", f"Hello, {subject}.", login=ANNA)  # fmt: skip
        return self.now(subject)

    def now(self, subject: str) -> dict[str, Any]:
        [hold] = self.guard.held(subject)
        return hold

    def mail(self, to: str, begins: str, about: str) -> EmailMessage:
        def come() -> list[EmailMessage]:
            parsed = (message_from_bytes(one.content, policy=default) for one in self.recorder.messages)
            said = ((m, str(m["Subject"])) for m in parsed if isinstance(m, EmailMessage) and to in str(m["To"]))
            return [m for m, subject in said if subject.startswith(begins) and subject.endswith(about)]

        [found] = until(come, f"{begins} {about} for {to}")
        assert isinstance(found, EmailMessage)
        return found

    def answer(self, notice: EmailMessage, words: str, *more: str, login: str = "", exits: bool = True) -> str:
        return self.swaks(
            "--from", str(notice["To"]), "--to", str(notice["Reply-To"]), "--header", f"Subject: Re: {notice['Subject']}",
            "--body", f"{words}\n", *more, login=login, exits=exits,
        )  # fmt: skip


@pytest.fixture(scope="module")
def office(certified: Path) -> Iterator[Office]:
    if why := postfix.sasl_missing():
        pytest.skip(why)
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder())
        tls = {"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": str(certified / "cert.pem"), "smtpd_tls_key_file": str(certified / "key.pem")}  # fmt: skip
        relay = stack.enter_context(
            Postfix(
                certified,
                name="relay",
                main={**postfix.sasl(certified, PEOPLE), **tls, "relayhost": f"[127.0.0.1]:{recorder.port}"},
            )
        )
        (certified / "password").write_text(PEOPLE[GUARD])
        (certified / "password").chmod(0o600)
        web, inside = free_port(), free_port()
        record = f'"s1._domainkey.example.com": "v=DKIM1; k=rsa; p={base64.b64encode(PUBLIC).decode()}"'
        guard = Guard(certified, relay_port=relay.port, policy=POLICY, workers=1, settings={
            "relay": f"{{host: 127.0.0.1, port: {relay.port}, tls: require, ca_file: ../ca.pem, auth: {{user: {GUARD}, password_file: ../password}}}}",
            "trust": "[]",
            "hold": "{release_delay: 0, reply_at: decisions@guard.example.com}",
            "console": f"{{address: 127.0.0.1, port: {web}, url: 'http://127.0.0.1:{web}', second_factor: {{required_for: [admin]}}}}",
            "dkim_keys": f"{{{record}}}",
        })  # fmt: skip
        listening = f"listen: {{smtp: [{{address: 127.0.0.1, port: {guard.port}, tls: {{certificate: ../cert.pem, key: ../key.pem}}, auth: {{}}}}, {{address: 127.0.0.1, port: {inside}}}]}}"
        guard.config.write_text(re.sub(r"(?m)^listen: .*$", listening, guard.config.read_text()))
        stack.enter_context(guard)
        guard.run("lists", "sync")
        yield Office(guard, recorder, inside)


def test_an_answer_rejects_and_the_approver_gets_a_notice(office: Office) -> None:
    office.held("wrong")
    notice = office.mail(EVA, "Held:", "wrong")
    assert re.fullmatch(
        r"decisions\+[0-9a-z]{16}\.[0-9a-f]{8}\.[a-z2-7]{26}@guard\.example\.com", str(notice["Reply-To"])
    )
    body = notice.get_body(("plain",))
    assert body is not None
    assert "write REJECT alone on the first line" in " ".join(body.get_content().split())
    refused = office.answer(notice, "APPROVE", exits=False)
    assert "<** 550 5.7.1 Nothing proves who wrote the answer" in refused
    assert "<** 550 5.7.1 An automatic mail" in office.answer(
        notice, "REJECT", "--header", "Auto-Submitted: auto-replied", exits=False
    )
    assert office.now("wrong")["state"] == "waiting"
    office.answer(notice, "REJECT\nNot to friends")
    assert office.now("wrong")["state"] == "rejected"
    told = office.mail(EVA, "You rejected by mail", "wrong")
    assert str(told["Reply-To"]) == "it@example.com", "and is no notice that can be answered by a vote"
    assert "<** 550 5.7.1 This notice was answered already" in office.answer(notice, "REJECT", exits=False)
    outcome = office.mail(ANNA, "Rejected", "wrong").get_body(("plain",))
    assert outcome is not None
    assert "Not to friends" in outcome.get_content()


def test_an_approval_by_the_approvers_own_login(office: Office) -> None:
    office.held("right")
    notice = office.mail(EVA, "Held:", "right")
    office.answer(notice, "APPROVE", login=ANNA, exits=False)
    assert office.now("right")["state"] == "waiting"
    office.answer(notice, "APPROVE", login=EVA)
    until(lambda: office.now("right")["state"] == "released", "the release")
    office.mail(EVA, "You approved by mail", "right")
    office.guard.run("audit", "verify")


def test_a_confirmation_by_the_writers_own_login(office: Office) -> None:
    asked = office.held("meant", to=CLUB)["confirm"]
    assert (asked["asked"], asked["proof"]) == (True, "login")
    notice = office.mail(ANNA, "Is this meant? 120 people, Club", "meant")
    body = notice.get_body(("plain",))
    assert body is not None
    assert "write CONFIRM and the number of people" in " ".join(body.get_content().split())
    for login in ("", EVA):
        assert "550 5.7.1 To confirm, its writer must answer from their own login" in office.answer(
            notice, "CONFIRM 120", login=login, exits=False
        )
    assert "550 5.7.1" in office.answer(notice, "CONFIRM 12", login=ANNA, exits=False)
    office.mail(ANNA, "Your answer does not count", "meant")
    assert office.now("meant")["state"] == "waiting"
    office.answer(notice, "CONFIRM 120", login=ANNA)
    until(lambda: office.now("meant")["state"] == "released", "the release")
    assert office.now("meant")["confirm"]["people"] == 120
    office.guard.run("audit", "verify")


def test_an_approval_by_a_signature_of_their_domain(office: Office) -> None:
    office.held("signed")
    notice = office.mail(EVA, "Held:", "signed")
    at = str(notice["Reply-To"])

    def send(mail: bytes) -> None:
        with SMTP("127.0.0.1", office.inside, timeout=120) as smtp:
            smtp.sendmail(EVA, [at], mail)

    raw = f"From: {EVA}\r\nTo: {at}\r\nSubject: Re: it\r\nDate: Mon, 2 Mar 2026 09:00:00 +0000\r\n\r\nAPPROVE\r\n".encode()
    signature = SIGNER.sign(raw)
    with pytest.raises(SMTPDataError, match="Nothing proves who wrote"):
        send(signature + raw + b"and more\r\n")
    with pytest.raises(SMTPDataError, match="Nothing proves who wrote"):
        send(signature + raw.replace(b"Subject: Re: it", b"Subject: Re: something else"))
    send(signature + raw)
    until(lambda: office.now("signed")["state"] == "released", "the release")


def test_approval_by_mail_is_refused_beyond_policy_or_factor(office: Office) -> None:
    office.held("a thousand", to=RAMADAN)
    notice = office.mail(OMAR, "Held:", "a thousand")
    body = notice.get_body(("plain",))
    assert body is not None
    assert "APPROVE" not in body.get_content()
    assert "The policy does not let" in office.answer(notice, "APPROVE", login=OMAR, exits=False)
    office.mail(OMAR, "Your vote by mail does not count", "a thousand")
    password = office.guard.root / "password"
    password.write_text("a long passphrase of his")
    password.chmod(0o600)
    office.guard.run("users", "add", OMAR, "--role", "approver", "--role", "admin", "--password-file", str(password))
    office.held("sensitive", to=FEW)
    notice = office.mail(OMAR, "Held:", "sensitive")
    assert "second factor" in office.answer(notice, "APPROVE", login=OMAR, exits=False)
    assert {office.now(each)["state"] for each in ("a thousand", "sensitive")} == {"waiting"}
    assert not [m for m in office.recorder.messages if any(b"guard.example.com" in each for each in m.rcpts)]
