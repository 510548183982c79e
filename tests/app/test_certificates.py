"""Certificates replaced while in use: taken into use if complete, ignored if not; and warnings before they expire."""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from smtpguard.app import proxy
from smtpguard.app.certificates import Pair, Renewals, endings, server_context
from smtpguard.cli.offline import check
from smtpguard.config.listeners import Certificate
from smtpguard.config.settings import read_settings
from tests.catalogue.wholeguard import whole_guard
from tests.wire.submitting import start_tls

CA = trustme.CA()


def issued(folder: Path, days: float = 90, begins: float = -1000) -> tuple[Path, Path, bytes]:
    """Write a new pair over the old one: the paths, and the certificate in DER."""
    now = datetime.now(UTC)
    first, last = now + timedelta(days=begins), now + timedelta(days=days)
    made = CA.issue_cert("localhost", "127.0.0.1", "*.example.com", not_before=first, not_after=last)
    certificate, key = folder / "guard.pem", folder / "guard.key"
    made.private_key_pem.write_to_path(key)
    made.cert_chain_pems[0].write_to_path(certificate)
    return certificate, key, ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())


def shown(context: ssl.SSLContext) -> bytes:
    """The certificate that a client gets now, in DER."""
    trusting = ssl.create_default_context()
    CA.configure_trust(trusting)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return client.getpeercert(binary_form=True) or b""


async def test_a_renewed_pair_is_used_only_if_complete(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "smtpguard")
    certificate, key, first = issued(tmp_path)
    context = server_context(Certificate(certificate=certificate, key=key))
    renewals = Renewals()
    renewals.watch(Pair(name="[::]:25", certificate=certificate, key=key), context, None)
    await renewals.look()
    assert (shown(context), renewals.refused, caplog.messages) == (first, 0, [])

    old_key = key.read_bytes()
    _, _, second = issued(tmp_path)
    new_key = key.read_bytes()
    for broken in (old_key, b"no key", b""):
        key.write_bytes(broken)
        await renewals.look()
        await renewals.look()
        assert shown(context) == first
    assert renewals.counts == {"certificates refused": 2}, "once for each problem"
    assert [message.rpartition(": ")[2] for message in caplog.messages] == [
        "the key is not the certificate's",
        "not PEM that can be used",
    ]
    key.unlink()
    await renewals.look()
    assert shown(context) == first
    key.write_bytes(new_key)
    await renewals.look()
    assert (shown(context), renewals.refused) == (second, 3)
    assert "the certificate of [::]:25 was renewed; it ends on " in caplog.messages[-1]

    issued(tmp_path, days=-1)
    await renewals.look()
    assert shown(context) == second, "an expired certificate is no renewal"
    assert "it ended on " in caplog.messages[-1]


async def test_a_proxy_uses_a_renewed_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "RENEWAL_SECONDS", 0.02)
    certificate, key, first = issued(tmp_path)
    trusting = ssl.create_default_context()
    CA.configure_trust(trusting)
    tls = f", tls: {{certificate: {certificate}, key: {key}}}"
    async with whole_guard(tmp_path, monkeypatch, listen=tls) as guard:

        async def seen() -> bytes:
            client = await guard.connect()
            await start_tls(client, trusting)
            found = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            client.close()
            return bytes(found)

        assert await seen() == first
        _, _, second = issued(tmp_path)
        async with asyncio.timeout(600):
            while await seen() != second:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.02)


def settings_with(folder: Path, listener: str, more: str) -> Path:
    path = folder / "smtpguard.yaml"
    path.write_text(f"listen: {{smtp: [{{address: 127.0.0.1, port: 2525, {listener}}}]}}\npolicy: policy.yaml\n{more}")
    return path


TLS = "tls: {certificate: guard.pem, key: guard.key}"


@pytest.mark.parametrize(
    ("days", "fatal", "said"),
    [(90, None, ""), (29, False, "guard.pem ends on "), (-1, True, "guard.pem ended on ")],
)
@pytest.mark.parametrize("where", ["listener", "console", "relay"])
def test_check_warns_before_a_certificate_expires(
    where: str, days: float, fatal: bool | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    issued(tmp_path, days)
    more = {
        "listener": "",
        "console": f"console: {{{TLS}}}\n",
        "relay": "relay: {tls: require, client_certificate: guard.pem, client_key: guard.key}\n",
    }[where]
    found = [
        problem
        for problem in check(settings_with(tmp_path, TLS if where == "listener" else "", more)).problems
        if "guard.pem" in problem.text
    ]
    assert [problem.fatal for problem in found] == ([] if fatal is None else [fatal])
    assert all(problem.text.startswith(said) for problem in found)


def test_expiry_of_the_other_certificates_is_reported(tmp_path: Path) -> None:
    issued(tmp_path, 10)
    settings = read_settings(settings_with(tmp_path, TLS, f"console: {{{TLS.replace('guard.key', 'none.key')}}}\n"))
    one, other = endings(settings)
    assert one.pair.name == "127.0.0.1:2525"
    assert one.ends is not None
    assert timedelta(days=9) < one.ends - datetime.now(UTC) < timedelta(days=10)
    assert (other.pair.name, other.ends, other.problem) == (
        "console", None, f"{tmp_path / 'none.key'}: No such file or directory",
    )  # fmt: skip


async def test_a_certificate_that_is_not_valid_yet_is_reported_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key, first = issued(tmp_path)
    context = server_context(Certificate(certificate=certificate, key=key))
    renewals = Renewals()
    renewals.watch(Pair(name="console", certificate=certificate, key=key), context)
    issued(tmp_path, begins=2)
    await renewals.look()
    assert (shown(context), renewals.refused) == (first, 1)
    assert f"{certificate}: not valid before " in caplog.text
    (found,) = [each for each in check(settings_with(tmp_path, TLS, "")).problems if "not valid before" in each.text]
    assert found.fatal


@pytest.mark.parametrize(
    ("console", "told"),
    [
        ("url: 'https://guard.example.com'", False), ("url: 'https://LOCALHOST:8025'", False), ("url: 'https://127.0.0.1'", False),
        ("url: 'https://guard.example.se'", True), ("url: 'https://a.guard.example.com'", True),
        ("url: 'https://guard.example.se', proxies: [127.0.0.1]", False), ("address: 127.0.0.1", False),
    ],
)  # fmt: skip
def test_a_console_with_the_certificate_of_another_name_is_reported(tmp_path: Path, console: str, told: bool) -> None:
    issued(tmp_path)
    found = check(settings_with(tmp_path, "name: inside", f"console: {{{TLS}, {console}}}\n")).problems
    assert any("guard.pem is not for " in problem.text for problem in found) == told, found
