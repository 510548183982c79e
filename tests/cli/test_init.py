"""smtpguard init, by options and by questions: what it writes, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from smtpguard.cli import main
from tests.every import every
from tests.peers.postfix import free_port
from tests.scripted_relay import ScriptedRelay

PATIENCE = 120.0
CUSTOMERS = "email\n" + "".join(f"person{n}@customer.example\n" for n in range(40))


@pytest.fixture
def members(tmp_path: Path) -> Path:
    file = tmp_path / "News & more.csv"
    file.write_text(CUSTOMERS)
    return file


def init(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["-c", str(folder / "etc" / "smtpguard.yaml"), "init", *args])


def given(port: int, *more: str) -> list[str]:
    return ["--yes", "--domain", "example.com", "--domain", "example.se", "--approver", "eva@example.com",
            "--relay", f"127.0.0.1:{port}", *more]  # fmt: skip


async def test_files_written_from_options_pass_check(tmp_path: Path, members: Path) -> None:
    async with ScriptedRelay(keywords=["SIZE 25000000", "PIPELINING", "8BITMIME"]) as relay:
        asked = given(
            relay.port, "--list", f"news={members}:news@lists.example.com", "--name", "Example: AB", "--language", "sv"
        )
        result = await asyncio.to_thread(init, tmp_path, *asked)
        assert relay.messages == []
    assert result.exit_code == 0, result.output
    assert [line for line in result.stdout.splitlines() if line.startswith("  smtpguard ")] == [
        f"  smtpguard -c {tmp_path}/etc/smtpguard.yaml {then}"
        for then in ("check --live", "serve", "report observe --since 14d")
    ]
    settings = yaml.safe_load((tmp_path / "etc" / "smtpguard.yaml").read_text())
    assert settings["relay"] == {"host": "127.0.0.1", "port": relay.port, "tls": "opportunistic"}
    assert settings["limits"] == {"message_mb": 23}  # MiB
    policy = yaml.safe_load((tmp_path / "etc" / "policy.yaml").read_text())
    assert policy["enforce"] is False
    assert policy["organization"] == {
        "name": "Example: AB",
        "domains": ["example.com", "example.se"],
        "languages": ["sv"],
    }
    assert policy["groups"] == {"approvers": ["eva@example.com"]}
    assert policy["lists"]["news"] == {
        "addresses": ["news@lists.example.com"], "members": {"csv": str(members), "refresh": "15m", "at_least": 20},
        "audience": "customers",
    }  # fmt: skip
    assert "internal-to-list" in [rule["id"] for rule in policy["rules"]]
    assert (tmp_path / "etc" / "policy.yaml").stat().st_mode & 0o777 == 0o640
    checked = CliRunner().invoke(main, ["-c", str(tmp_path / "etc" / "smtpguard.yaml"), "check"])
    assert checked.exit_code == 0, checked.output
    assert "40 addresses" in checked.stdout


async def test_the_relays_size_limit_is_respected(tmp_path: Path) -> None:
    async with ScriptedRelay(keywords=["SIZE 10485760"]) as relay:
        assert (await asyncio.to_thread(init, tmp_path, *given(relay.port))).exit_code == 0
    text = (tmp_path / "etc" / "smtpguard.yaml").read_text()
    assert "message_mb: 10}" in text
    assert "It offers no STARTTLS" in text


async def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    policy = tmp_path / "etc" / "policy.yaml"
    policy.write_text("# mine\n")
    result = await asyncio.to_thread(init, tmp_path, *given(25))
    assert result.exit_code == 2
    assert f"{policy} exists, and is not overwritten" in result.stderr
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == ["policy.yaml"]
    assert policy.read_text() == "# mine\n"


def test_an_unreachable_relay_is_reported_and_configured(tmp_path: Path) -> None:
    port = free_port()
    result = init(tmp_path, *given(port))
    assert result.exit_code == 0, result.output
    assert "the relay did not answer" in result.stderr
    assert f"Once it does, run smtpguard -c {tmp_path}/etc/smtpguard.yaml check --live\n" in result.stderr
    assert "the relay did not answer" in (tmp_path / "etc" / "smtpguard.yaml").read_text()
    result = CliRunner().invoke(main, ["-c", str(tmp_path / "two" / "smtpguard.yaml"), "--json", "init", *given(port)])
    assert json.loads(result.stdout)["relay_answers"] is False


@every(
    ("more", "says"),
    [
        (["--domain", "no domain"], '"no domain" is not a domain: expected one like example.com'),
        (["--approver", "eva"], '"eva" is not an address'),
        (["--relay", "mail:99999"], '"mail:99999" is not a host with a port'),
        (["--list", "news"], '"news" names no file'),
        (["--list", "News!=x.csv"], '"News!" is not a name of a list'),
        (["--list", "news=absent.csv:news@example.com"], "absent.csv"),
        (["--listen", "0.0.0.0:25"], "--client NETWORK names those that may connect"),
        (["--listen", "0.0.0.0:25", "--client", "a b"], "a b"),
    ],
)
def test_unusable_options_write_nothing(tmp_path: Path, more: Sequence[str], says: str) -> None:
    result = init(tmp_path, *given(free_port(), *more))
    assert result.exit_code == 2
    assert says in result.stderr
    assert not list(tmp_path.glob("etc/*"))


def test_yes_names_the_missing_options(tmp_path: Path) -> None:
    result = init(tmp_path, "--yes", "--domain", "example.com")
    assert result.exit_code == 2
    assert "--yes asks nothing, and needs --relay, --approver" in result.stderr


class Dialog:
    """The command on its own terminal."""

    def __init__(self, *args: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smtpguard", *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.said = ""

    def expect(self, text: str) -> None:
        """Read until ``text`` is shown, and drop the output before it."""
        while text not in self.said:
            ready, _, _ = select.select([self._ours], [], [], PATIENCE)
            try:
                more = os.read(self._ours, 65_536) if ready else b""
            except OSError:  # the other end of the terminal is closed
                more = b""
            assert more, f"{text!r} was not said: {self.said}"
            self.said += more.decode(errors="replace").replace("\r\n", "\n")
        self.said = self.said.partition(text)[2]

    def answer(self, question: str, text: str) -> None:
        self.expect(question)
        os.write(self._ours, f"{text}\n".encode())

    def end(self) -> int:
        status = self.process.wait(PATIENCE)
        os.close(self._ours)
        return status


def _talk(settings: Path, port: int, members: Path, away: int) -> int:
    dialog = Dialog("-c", str(settings), "init")
    dialog.answer("Your domains", "example")
    dialog.expect('Error: "example" is not a domain: expected one like example.com')
    dialog.answer("Your domains", "example.com, example.se")
    dialog.answer("name of your organization", "Example AB")
    dialog.answer("The relay", f"127.0.0.1:{away}")
    dialog.expect("Error: it does not answer")
    dialog.answer("anyway", "n")
    dialog.answer("The relay", f"127.0.0.1:{port}")
    dialog.expect("The relay answers, without TLS")
    dialog.answer("a customer list", "absent.csv")
    dialog.expect("Error: ")
    dialog.answer("a customer list", str(members))
    dialog.expect("40 addresses.")
    dialog.answer("Its name", "Not One")
    dialog.expect('Error: "Not One" is not a name of a list')
    dialog.answer("Its name", "")  # the name of the file
    dialog.answer("expands to it", "news@lists.example.com")
    dialog.answer("another customer list", "")
    dialog.answer("The approvers of held mail", "eva@example.com omar@example.com")
    dialog.answer("The address that receives alarms", "it@example.com")
    dialog.expect("Next:")
    return dialog.end()


async def test_invalid_answers_are_asked_again(tmp_path: Path, members: Path) -> None:
    settings = tmp_path / "etc" / "smtpguard.yaml"
    async with ScriptedRelay() as relay:
        assert await asyncio.to_thread(_talk, settings, relay.port, members, free_port()) == 0
    said = yaml.safe_load(settings.read_text())
    assert said["relay"]["port"] == relay.port
    assert said["notices"]["contact"] == "it@example.com"
    policy = yaml.safe_load(settings.with_name("policy.yaml").read_text())
    assert policy["organization"]["domains"] == ["example.com", "example.se"]
    assert policy["groups"] == {"approvers": ["eva@example.com", "omar@example.com"]}
    assert list(policy["lists"]) == ["news-more"]


def test_without_a_terminal_it_fails_instead_of_asking(tmp_path: Path) -> None:
    result = init(tmp_path, "--domain", "example.com", "--name", "Example")
    assert result.exit_code != 0
    assert not (tmp_path / "etc").exists()
