"""Planted secrets appear nowhere: not in the log, the journal, errors, notices or pages."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
from pathlib import Path

import pytest
import trustme

from smtpguard.demo.stage import make_key
from smtpguard.observe import log as lines
from tests import program
from tests.catalogue.wholeguard import WholeGuard, personal_mail, policy, whole_guard
from tests.scripted_relay import ScriptedRelay

OWN_KEY = make_key(1024)
PASSWORD = "correct-horse-battery-staple"


def planted(folder: Path) -> list[bytes]:
    """Each secret in every encoding in which it could leak."""
    secret = (folder / "var" / "secret").read_bytes()
    login = base64.b64encode(b"\0smtpguard\0" + PASSWORD.encode())
    key = [line for line in OWN_KEY.pem.split(b"\n") if line and not line.startswith(b"---")]
    found = [PASSWORD.encode(), base64.b64encode(PASSWORD.encode()), login, *key]
    for piece in (secret, secret.strip()):
        found += [piece, piece.hex().encode(), base64.b64encode(piece), repr(piece)[2:-1].encode()]
    return found


def clean(text: bytes, folder: Path) -> None:
    assert not [secret for secret in planted(folder) if secret in text]


async def command(guard: WholeGuard, *words: str) -> bytes:
    """All output of a command in its own process."""
    done = await asyncio.to_thread(program.run, ["-c", str(guard.config), *words], timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return (done.stdout + done.stderr).encode()


@pytest.mark.parametrize("right", [True, False], ids=["the right password", "a wrong one"])
async def test_secrets_appear_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    right: bool,
) -> None:  # fmt: skip
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("relay.example.com").configure_cert(tls)
    relay = ScriptedRelay(starttls=tls, auth={"smtpguard": PASSWORD if right else "another"})
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "key.pem").write_bytes(OWN_KEY.pem)
    for name in ("password", "key.pem"):
        (tmp_path / name).chmod(0o600)
    caplog.set_level(logging.DEBUG)
    lines.configure("json", "clear")
    async with whole_guard(
        tmp_path, monkeypatch, relay=relay, text=policy(),
        relay_settings="tls: require, ca_file: ca.pem, auth: {user: smtpguard, password_file: password}",
        settings="dkim_sign: {domain: example.com, selector: a, key_file: key.pem}",
    ) as guard:  # fmt: skip
        said = b""
        try:
            client = await guard.connect()
        except AssertionError:
            assert not right
        else:
            assert right
            client.close()
            hold = await guard.held(personal_mail())
            await guard.release(hold)
            assert any(b"DKIM-Signature" in m.content for m in await guard.deliver())
            assert relay.users
            said += await command(guard, "held", "show", hold.hold_id)
            said += await command(guard, "--json", "held", "show", hold.hold_id)
        said += await command(guard, "--json", "held", "list")
        said += await command(guard, "check")
        said += await command(guard, "lists", "show")
        said += await command(guard, "--json", "audit", "export")
        for message in relay.messages:
            said += message.content
        said += json.dumps(
            [repr(guard.settings), repr(guard.proxy_part.__dict__), repr(guard.office.__dict__)]
        ).encode()
        out, err = capfd.readouterr()
        said += (out + err + caplog.text).encode()
        assert len(said) > 2000
        clean(said, tmp_path)
        clean((tmp_path / "guard.db").read_bytes(), tmp_path)


async def test_an_error_in_the_settings_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with whole_guard(tmp_path, monkeypatch) as guard:
        text = guard.config.read_text()
        guard.config.write_text(text.replace("tls: none", f'tls: require, auth: {{user: a, password: "{PASSWORD}"}}'))
        said = await command(guard, "check")
        assert b"password must not be in this file" in said
        clean(said, tmp_path)
        guard.config.write_text(text.replace("sqlite:///guard.db", f"postgresql://a:{PASSWORD}@127.0.0.1:1/x"))
        for words in (("check",), ("held", "list"), ("serve",)):
            clean(await command(guard, *words), tmp_path)


async def test_an_unreachable_database_shows_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with whole_guard(tmp_path, monkeypatch) as guard:
        (tmp_path / "password").write_text(PASSWORD)
        (tmp_path / "password").chmod(0o600)
        text = guard.config.read_text()
        there = 'postgresql://smtpguard@127.0.0.1:1/smtpguard", password_file: password'
        guard.config.write_text(text.replace('sqlite:///guard.db"', there))
        for words in (("held", "list"), ("serve",), ("reload",), ("lists", "sync", "--force")):
            said = await command(guard, *words)
            assert said
            clean(said, tmp_path)
