"""check --live against relays on loopback: its findings; it never sends a message."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme

from smtpguard.app import probe, ways
from smtpguard.app.files import read_policy
from smtpguard.app.probe import check_live
from smtpguard.app.storestatus import Finding, State
from smtpguard.config.listeners import MilterListener
from smtpguard.config.settings import read_settings
from tests.loopback import needs_ipv6
from tests.script import CONNECT, DROP, RESET, Answer
from tests.scripted_relay import ScriptedRelay
from tests.wire.milter.speaking import served

POLICY = """\
version: 1
organization: {name: Example AB, domains: [example.com, "*.example.com"]}
groups: {some: [eva@example.com]}
approvals: {from: [some], each: 1}
lists:
  news:
    addresses: [news@lists.example.com]
    members: {csv: members.csv, column: email, at_least: 3}
    writers: [campaigns@example.com]
rules:
  - id: not-a-writer
    when: {recipients.list_addresses: any, sender.is_writer: false}
    then: hold
"""


async def findings(
    folder: Path, relay: str, hosts: Sequence[str] = (), more: str = "", policy: str = POLICY
) -> list[Finding]:
    (folder / "policy.yaml").write_text(policy)
    if not (folder / "members.csv").exists():
        (folder / "members.csv").write_text("email\na@c.example\nb@c.example\nc@c.example\n")
    (folder / "smtpguard.yaml").write_text(f"relay: {relay}\n{more}\n")
    settings = read_settings(folder / "smtpguard.yaml")

    async def mail_hosts(domain: str) -> Sequence[str]:
        assert domain == "lists.example.com"
        return hosts

    return [f async for f in check_live(settings, read_policy(settings), mail_hosts, own=list)]


def states(found: Sequence[Finding], about: str) -> list[State]:
    return [f.state for f in found if f.about == about]


async def test_a_suitable_relay_has_no_findings(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        found = await findings(tmp_path, f"{{host: 127.0.0.1, port: {relay.port}, tls: none}}")
        assert relay.messages == []
    assert states(found, "relay") == [State.FINE]
    assert states(found, "tls") == [State.FINE]
    assert states(found, "sender") == [State.FINE] * 3
    assert states(found, "source") == [State.FINE]
    assert states(found, "list") == [State.FINE]
    assert states(found, "way") == [State.OPEN, State.UNKNOWN], "any other program here can use it as well"
    assert "accepted_ways: [this-machine]" in found[-2].text
    assert f"swaks --server THIS-MACHINE --port {relay.port} --quit-after RCPT" in found[-1].text


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        ("550 5.1.1 No such user", State.WRONG, "from campaigns@example.com: 550 5.1.1 No such user"),
        ("450 4.2.0 Greylisted", State.UNKNOWN, "not known: whether"),
        (RESET, State.WRONG, "ends the session at RCPT"),
    ],
)
async def test_a_list_that_the_relay_refuses_is_found(tmp_path: Path, answer: str, state: State, said: str) -> None:
    async with ScriptedRelay() as relay:
        relay.on("RCPT TO:<news@lists.example.com>", answer)
        found = await findings(tmp_path, f"{{host: 127.0.0.1, port: {relay.port}, tls: none}}")
        assert relay.messages == []
        assert "DATA" not in relay.verbs()
    assert states(found, "list") == [state]
    [text] = [f.text for f in found if f.about == "list"]
    assert "news@lists.example.com" in text
    assert "of the list news" in text
    assert said in text
    assert states(found, "sender") == [State.FINE] * 3


async def test_a_relay_that_disconnects_at_one_address_is_not_asked_the_next(tmp_path: Path) -> None:
    two = POLICY.replace("[news@lists.example.com]", "[news@lists.example.com, all@lists.example.com]")
    async with ScriptedRelay() as relay:
        relay.on("RCPT TO:<news@lists.example.com>", RESET)
        settings = f"{{host: 127.0.0.1, port: {relay.port}, tls: none}}"
        found = await findings(tmp_path, settings, policy=two)
        assert states(found, "list") == [State.WRONG]
        relay.on("RCPT TO:<news@lists.example.com>", "550 5.1.1 No such user")
        found = await findings(tmp_path, settings, policy=two)
        assert states(found, "list") == [State.WRONG, State.FINE]


async def test_an_accepted_way_past_the_guard_is_fine(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        settings = f"{{host: 127.0.0.1, port: {relay.port}, tls: none}}"
        found = await findings(tmp_path, settings, more="accepted_ways: [this-machine]")
        assert states(found, "way") == [State.ACCEPTED, State.UNKNOWN]
        relay.on("RCPT", "554 5.7.1 Only the guard writes here")
        found = await findings(tmp_path, settings, more="accepted_ways: [this-machine]")
        assert states(found, "way") == [State.FINE, State.UNKNOWN]


async def test_a_way_past_the_guard_may_be_with_or_without_tls() -> None:
    """A relay that offers a TLS that does not work takes mail without; others take none before STARTTLS, or hang up."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    no = "530 5.7.0 Must issue a STARTTLS command first"
    cases: list[tuple[str, Answer]] = [("STARTTLS", "454 4.7.0 TLS not available"), ("MAIL", no), ("MAIL", [no, DROP])]
    for point, answer in cases:
        async with ScriptedRelay(starttls=context) as relay:
            relay.on(point, answer, times=1)
            said = await asyncio.to_thread(
                ways.ask_as_stranger, "127.0.0.1", relay.port, None, "a@example.com", "b@example.org"
            )
            assert said is not None
            assert said[0] == 250, (point, answer, said)


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "localhost"])
async def test_a_way_past_the_guard_is_found_on_ipv6(host: str, tmp_path: Path) -> None:
    async with ScriptedRelay(host="::1") as relay:
        found = await findings(tmp_path, f"{{host: '{host}', port: {relay.port}, tls: none}}")
    [opened] = [f.text for f in found if f.state is State.OPEN]
    assert "any program on this machine" in opened


async def test_domains_may_all_be_patterns(tmp_path: Path) -> None:
    policy = POLICY.replace('[example.com, "*.example.com"]', '["*.example.com"]')
    async with ScriptedRelay() as relay:
        found = await findings(tmp_path, f"{{host: 127.0.0.1, port: {relay.port}, tls: none}}", policy=policy)
    assert states(found, "sender") == [State.FINE] * 3


async def test_a_remote_relay_must_be_probed_from_elsewhere(tmp_path: Path) -> None:
    found = await findings(tmp_path, "{host: localhost., port: 1, tls: implicit}")
    [way] = [f for f in found if f.about == "way"]
    assert way.state is State.UNKNOWN
    assert "swaks --server localhost. --port 1 --tls-on-connect" in way.text


async def test_a_relay_that_refuses_foreign_senders_is_found(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        relay.on("MAIL FROM:<postmaster@example.org>", "550 5.7.1 Not yours")
        found = await findings(tmp_path, f"{{host: 127.0.0.1, port: {relay.port}, tls: none}}")
    assert states(found, "sender") == [State.FINE, State.WRONG, State.FINE]
    assert "5.7.1 Not yours" in next(f.text for f in found if f.state is State.WRONG)


async def test_an_unreachable_relay_is_found(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        port = relay.port
    found = await findings(tmp_path, f"{{host: 127.0.0.1, port: {port}, tls: none}}")
    assert states(found, "relay") == [State.WRONG]
    assert states(found, "sender") == []
    assert found[0].text.endswith(f"cannot be used: connecting to 127.0.0.1 port {port}: Connection refused")
    assert states(found, "way") == [State.UNKNOWN] * 2, "a relay that is down does not show who else may use it"


async def test_each_fallback_is_probed(tmp_path: Path) -> None:
    async with ScriptedRelay() as gone:
        pass
    async with ScriptedRelay() as relay, ScriptedRelay() as other:
        others = f"[{{host: 127.0.0.1, port: {gone.port}, tls: none}}, {{host: 127.0.0.1, port: {other.port}}}]"
        found = await findings(tmp_path, f"{{host: 127.0.0.1, port: {relay.port}, fallbacks: {others}}}")
    assert states(found, "relay") == [State.FINE, State.WRONG, State.FINE]
    assert f"port {gone.port} cannot be used" in next(f.text for f in found if f.state is State.WRONG)


async def test_each_route_is_probed_for_its_own_mail_only(tmp_path: Path) -> None:
    """The list server need not take mail to anybody else, nor the relay mail to the list."""
    async with ScriptedRelay() as relay, ScriptedRelay() as bulk:
        relay.on("RCPT TO:<news@", "550 5.1.1 No such user")
        bulk.on("RCPT TO:<somebody@", "550 5.7.1 Not here")
        bulk.on("RCPT TO:<news@", "250 Ok")
        routes = f"routes: [{{name: bulk, lists: [news], relay: {{host: 127.0.0.1, port: {bulk.port}}}}}]"
        found = await findings(tmp_path, f"{{host: 127.0.0.1, port: {relay.port}}}", more=routes)
    assert not [f for f in found if f.state is State.WRONG], found
    assert states(found, "relay") == [State.FINE] * 2
    assert [f.text.startswith("route bulk: the relay takes mail to ") for f in found if f.about == "list"] == [True]


async def test_required_tls_that_is_not_offered_is_found(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        found = await findings(tmp_path, f"{{host: 127.0.0.1, port: {relay.port}, tls: require}}")
    assert states(found, "relay") == [State.WRONG]
    assert "TLS is required" in found[0].text


async def test_a_relay_open_without_login_is_found(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2-hunter2\n")
    async with ScriptedRelay() as relay:
        found = await findings(
            tmp_path,
            f"{{host: 127.0.0.1, port: {relay.port}, tls: opportunistic, auth: {{user: guard, password_file: password}}}}",
        )
    assert states(found, "relay") == [State.WRONG], "no TLS, and a password: nothing is sent"
    opened = [f.text for f in found if f.state is State.OPEN]
    assert any("without our login" in text and "accepted_ways: [without-login]" in text for text in opened)
    assert not any("hunter2" in f.text for f in found)


async def test_a_relay_without_auth_for_clients_is_found(tmp_path: Path) -> None:
    listen = "listen: {smtp: [{port: 2525, auth: {without_tls: true}}]}"
    async with ScriptedRelay(auth={"anna": "x"}) as relay:
        settings = f"{{host: 127.0.0.1, port: {relay.port}, tls: none}}"
        found = await findings(tmp_path, settings, more=listen)
        assert [f.text for f in found if f.about == "auth"] == [
            "mail clients can log in at the relay with PLAIN, LOGIN"
        ]
        relay.mechanisms = "CRAM-MD5"
        assert states(await findings(tmp_path, settings, more=listen), "auth") == [State.WRONG]
        assert "AUTH" not in relay.verbs()
        assert states(await findings(tmp_path, settings), "auth") == []
    found = await findings(tmp_path, settings, more=listen)
    assert states(found, "relay") == [State.WRONG]
    assert states(found, "auth") == [], "a relay that is down is reported once"


async def test_unreadable_sources_are_found(tmp_path: Path) -> None:
    (tmp_path / "members.csv").write_text("email\n" + "a@c.example\n" * 3)
    async with ScriptedRelay() as relay:
        settings = f"{{host: 127.0.0.1, port: {relay.port}, tls: none}}"
        found = await findings(tmp_path, settings)
        assert states(found, "source") == [State.WRONG]
        assert "holds 1 person, and the policy expects at least 3" in next(f.text for f in found if f.about == "source")
        (tmp_path / "members.csv").unlink()
        (tmp_path / "members.csv").mkdir()
        found = await findings(tmp_path, settings)
        assert states(found, "source") == [State.WRONG]


async def test_a_list_server_open_to_others_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedRelay() as relay, ScriptedRelay() as server:
        monkeypatch.setattr(ways, "SMTP_PORT", server.port)
        settings = f"{{host: 127.0.0.1, port: {relay.port}, tls: none}}"
        found = await findings(tmp_path, settings, hosts=["127.0.0.1"])
        assert any(f.state is State.OPEN and "news@lists.example.com" in f.text for f in found)
        both = await findings(
            tmp_path, settings, hosts=["127.0.0.1"], more="accepted_ways: [list-servers, this-machine]"
        )
        assert State.OPEN not in states(both, "way")
        server.on("RCPT", "554 5.7.1 Only the guard writes here")
        found = await findings(tmp_path, settings, hosts=["127.0.0.1"])
        assert any(f.state is State.FINE and "Only the guard writes here" in f.text for f in found)
        assert server.messages == []


async def test_names_of_the_relay_itself_are_proposed(tmp_path: Path) -> None:
    """Names in the greeting and the answer to EHLO are proposed, if the relay takes mail to a list's local part there."""
    async with ScriptedRelay() as relay:
        relay.on(CONNECT, "220 mx1.example.net ESMTP")
        relay.on("EHLO", "250 Relay.Example.")
        where = f"host: 127.0.0.1, port: {relay.port}, tls: none"
        found = await findings(tmp_path, f"{{{where}}}")
        texts = [f.text for f in found if f.about == "name"]
        assert texts == [
            f"the relay calls itself {name}, and takes mail to news@{name}: declare it with names: [{name}] in relay"
            for name in ("mx1.example.net", "relay.example")
        ]
        relay.on("RCPT TO:<news@relay.example>", "550 5.7.1 Relaying denied")
        found = await findings(tmp_path, f"{{{where}, names: [MX1.example.net]}}")
        assert [(f.state, f.text) for f in found if f.about == "name"] == [
            (State.FINE, "relay: names has mx1.example.net: the relay takes mail to news@mx1.example.net"),
            (State.FINE, "the relay calls itself relay.example, and takes no mail to news@relay.example"),
        ]
        assert relay.messages == []
        relay.on("EHLO", "250 localhost")
        relay.on(CONNECT, "220 mail.example.com ESMTP")  # one of our own domains, so the list has it already
        found = await findings(tmp_path, f"{{{where}}}")
        assert states(found, "name") == []


async def test_a_milter_that_answers_is_fine(tmp_path: Path) -> None:
    async with served(tmp_path) as world:
        found = await probe.milter_answers(MilterListener(unix=world.path))
        assert (found.about, found.state) == ("milter", State.FINE)
        assert found.text == f"the milter on {world.path} answers, in version 6 of the protocol"
        assert not world.seen


async def test_a_missing_milter_is_wrong(tmp_path: Path) -> None:
    found = await probe.milter_answers(MilterListener(unix=tmp_path / "no.sock"))
    assert found.state is State.WRONG
    assert found.text.endswith("does not answer: No such file or directory")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = await probe.milter_answers(MilterListener(port=taken.getsockname()[1]))
    assert found.state is State.WRONG
    assert "port" in found.text


@pytest.mark.parametrize(
    ("says", "text"),
    [(b"", "closes the connection"), (b"220 mail\r\n", "a packet of"), (b"\0\0\0\x01c", "it does not negotiate"),
     (None, "does not answer for")],
)  # fmt: skip
async def test_another_server_in_its_place_is_wrong(
    tmp_path: Path, says: bytes | None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100 if says is not None else -1)
        writer.write(says or b"")
        writer.close()

    if says is None:
        monkeypatch.setattr(probe, "SECONDS", 0.05)
    server = await asyncio.start_unix_server(other, tmp_path / "other.sock")
    async with server:
        found = await probe.milter_answers(MilterListener(unix=tmp_path / "other.sock"))
    assert found.state is State.WRONG
    assert text in found.text
