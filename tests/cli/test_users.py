"""users and tokens over a real store."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyotp
import pytest
from click.testing import CliRunner, Result

from smtpguard.app.services import opened
from smtpguard.cli import main
from smtpguard.config.settings import read_settings
from smtpguard.journal.event import Event, Kind
from smtpguard.policy.parse import parse
from tests.cli.stage import rows
from tests.every import every

PASSWORD = "a password that is long"
GROUPS = """
version: 1
organization: {name: Example AB, domains: [example.com]}
groups: {communications: [eva@example.com, omar@example.com]}
approvals: {from: [communications]}
rules: []
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "smtpguard.yaml"
    path.write_text("console: {}\n")

    async def made() -> None:
        async with opened(read_settings(path), migrate=True):
            pass

    asyncio.run(made())
    return path


def run(config: Path, *words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(main, ["-c", str(config), *words], input=input)


def add(config: Path, address: str = "eva@example.com", *words: str) -> Result:
    return run(config, "users", "add", address, *words, "--password-file", "-", input=PASSWORD + "\n")


def entries(config: Path) -> list[tuple[str, dict[str, object], object]]:
    async def read() -> list[tuple[str, dict[str, object], object]]:
        async with opened(read_settings(config)) as (store, _):
            return [(e.kind, dict(e.data), clear) for e, clear in await store.journal.entries()]

    return asyncio.run(read())


def test_an_account_from_creation_to_deletion(config: Path) -> None:
    made = add(config, "Eva@Example.com", "--role", "approver", "--role", "viewer", "--name", "Eva")
    assert (made.exit_code, made.stdout) == (0, "eva@example.com has an account.\n")
    again = add(config)
    assert (again.exit_code, again.stderr) == (1, "smtpguard: eva@example.com already has an account.\n")
    assert run(config, "users", "roles", "eva@example.com", "operator").stdout == "eva@example.com is operator now.\n"
    assert run(config, "users", "roles", "eva@example.com").stdout == "eva@example.com is nothing now.\n"
    assert run(config, "users", "disable", "eva@example.com").stdout == "eva@example.com is disabled.\n"
    listed = run(config, "users", "list").stdout.splitlines()
    assert listed[1].split() == ["eva@example.com", "-", "password", "disabled"]
    assert run(config, "users", "enable", "eva@example.com").exit_code == 0
    other = run(config, "users", "passwd", "eva@example.com", "--password-file", "-", input="yet another password\n")
    assert other.stdout == "eva@example.com has another password.\n"
    told = entries(config)
    assert [data["change"] for _, data, _ in told] == ["added", "roles", "roles", "disabled", "enabled", "password"]
    assert PASSWORD not in str(told)
    assert {tuple(clear["account"]) for _, _, clear in told} == {("eva@example.com",)}  # type: ignore[index]


def served(config: Path) -> None:
    """Put a policy in force, as the first start does."""

    async def put() -> None:
        async with opened(read_settings(config)) as (store, _):
            documents = {"policy.yaml": GROUPS.encode()}
            sha256 = parse(documents).sha256
            await store.policies.put(sha256, documents, Event(kind=Kind.POLICY, id=sha256[:16], at=datetime.now(UTC)))

    asyncio.run(put())


def test_accounts_without_a_group_and_approvers_without_account_are_listed(config: Path) -> None:
    assert add(config, "sven@example.com", "--role", "approver").stderr == "", "serve has not run yet"
    served(config)
    made = add(config, "tove@example.com", "--role", "approver")
    assert made.exit_code == 0
    assert made.stderr == (
        "smtpguard: tove@example.com has the approver's role and is in no group of the policy: they see no holds, and can "
        "decide on none\n"
    )
    assert add(config, "eva@example.com", "--role", "approver").stderr == ""
    off = run(config, "users", "disable", "eva@example.com")
    assert "eva@example.com is asked to decide (communications) and has an account that is disabled" in off.stderr
    listed = run(config, "users", "list").stderr
    assert "sven@example.com has the approver's role and is in no group" in listed
    assert "omar@example.com is asked to decide (communications) and has no account" in listed


def test_without_accounts_the_list_says_so(config: Path) -> None:
    assert run(config, "users", "list").stdout == "There are no accounts: smtpguard users add\n"
    missing = run(config, "users", "disable", "eva@example.com")
    assert (missing.exit_code, missing.stderr) == (1, "smtpguard: There is no account of eva@example.com.\n")


@every(
    ("words", "input", "status", "said"),
    [
        (["users", "add", "nobody"], PASSWORD, 2, "smtpguard: nobody: not a mailbox"),
        (["users", "add", "eva@example.com"], "short", 1, "at least 10 characters"),
        (["users", "add", "eva@example.com"], "", 2, "it contains no password"),
        (["users", "add", "eva@example.com", "--sso"], PASSWORD, 2, "give either --sso or --password-file"),
        (["users", "add", "eva@example.com", "--role", "boss"], PASSWORD, 2, "boss"),
    ],
)
def test_invalid_accounts_are_refused(config: Path, words: list[str], input: str, status: int, said: str) -> None:
    result = run(config, *words, "--password-file", "-", input=input)
    assert result.exit_code == status
    assert said in result.stderr
    assert run(config, "users", "list", "--json").stdout == ""


def test_a_password_is_read_from_a_file(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\nand a second line\n")
    assert run(config, "users", "add", "eva@example.com", "--password-file", str(file)).exit_code == 0
    file.write_bytes(b"\xff\xfe")
    bad = run(config, "users", "passwd", "eva@example.com", "--password-file", str(file))
    assert (bad.exit_code, "UTF-8" in bad.stderr) == (2, True)
    gone = run(config, "users", "passwd", "eva@example.com", "--password-file", str(tmp_path / "gone"))
    assert gone.exit_code == 2


def test_without_a_terminal_a_password_file_is_required(config: Path) -> None:
    result = run(config, "users", "add", "eva@example.com")
    assert result.exit_code == 2
    assert "--password-file" in result.stderr


@pytest.mark.parametrize(("second", "status"), [(PASSWORD, 0), ("another one altogether", 2)])
def test_a_password_is_typed_twice_at_a_terminal(config: Path, second: str, status: int) -> None:
    """The password is never shown, and is no argument of the command."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "smtpguard", "-c", str(config), "users", "add", "eva@example.com"]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=Path.cwd(),
                               preexec_fn=_own_terminal)  # fmt: skip
    os.close(theirs)
    seen = b""
    for prompt, typed in ((b"Password: ", PASSWORD), (b"Again: ", second)):
        while prompt not in seen:
            seen += os.read(ours, 1000)
        os.write(ours, typed.encode() + b"\n")
    try:
        while piece := os.read(ours, 1000):
            seen += piece
    except OSError:  # the other end is closed
        pass
    assert process.wait(120) == status, seen
    assert PASSWORD.encode() not in seen
    os.close(ours)


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_second_factor_is_set_and_removed(config: Path) -> None:
    add(config)
    made = rows(run(config, "users", "totp", "eva@example.com", "--json"))[0]
    assert pyotp.parse_uri(str(made["uri"])).name == "eva@example.com"
    assert len(made["recovery_codes"]) == 10
    assert rows(run(config, "users", "list", "--json"))[0]["second_factor"] is True
    shown = run(config, "users", "totp", "eva@example.com").stdout
    assert "Secret: " in shown
    assert "▀" in shown or "█" in shown or "\x1b[" in shown
    assert run(config, "users", "totp", "eva@example.com", "--off").exit_code == 0
    assert run(config, "users", "totp", "eva@example.com", "--off").exit_code == 1


def test_an_account_for_single_sign_on(config: Path) -> None:
    made = run(config, "users", "add", "eva@example.com", "--sso", "--role", "viewer")
    assert made.stdout == "eva@example.com has an account, and signs in by single sign-on.\n"
    assert rows(run(config, "users", "list", "--json"))[0]["with"] == "sso (not yet)"


def test_a_token_from_creation_to_revocation(config: Path) -> None:
    add(config, "eva@example.com", "--role", "approver")
    made = run(
        config,
        "tokens",
        "add",
        "ticket bot",
        "--as",
        "eva@example.com",
        "--scope",
        "held:read",
        "--scope",
        "held:decide",
    )
    assert made.exit_code == 0
    text = made.stdout.strip()
    assert text.startswith("smtpguard_")
    token_id = text.split("_")[1]
    row = rows(run(config, "tokens", "list", "--json"))[0]
    assert (row["id"], row["name"], row["as"], row["state"]) == (token_id, "ticket bot", "eva@example.com", "good")
    assert text.split("_", 2)[2] not in f"{entries(config)}{run(config, 'tokens', 'list').stdout}"
    assert run(config, "tokens", "revoke", token_id).stdout == f"{token_id} (ticket bot) is revoked.\n"
    assert run(config, "tokens", "revoke", token_id).exit_code == 1
    assert " revoked " in run(config, "tokens", "list").stdout
    assert [data["change"] for kind, data, _ in entries(config) if kind == "token"] == ["added", "revoked"]


@every(
    ("words", "status", "said"),
    [
        (["--as", "eva@example.com", "--scope", "freezes:lift"], 1, "has no role for: freezes:lift"),
        (["--as", "omar@example.com", "--scope", "held:read"], 1, "no account of omar@example.com"),
        (["--as", "omar", "--scope", "held:read"], 2, "smtpguard: omar: not a mailbox"),
        (["--as", "eva@example.com"], 2, "--scope"),
        (["--as", "eva@example.com", "--scope", "held:read", "--days", "9999"], 2, "730"),
    ],
)
def test_invalid_tokens_are_refused(config: Path, words: list[str], status: int, said: str) -> None:
    add(config, "eva@example.com", "--role", "viewer")
    result = run(config, "tokens", "add", "x", *words)
    assert (result.exit_code, said in result.stderr) == (status, True), result.stderr
    assert run(config, "tokens", "list").stdout == "There are no tokens: smtpguard tokens add\n"


def test_a_deleted_account_loses_its_tokens(config: Path) -> None:
    served(config)
    add(config, "eva@example.com", "--role", "approver")
    made = rows(run(config, "tokens", "add", "ci", "--as", "eva@example.com", "--scope", "held:read", "--json"))
    assert made
    gone = run(config, "users", "delete", "eva@example.com")
    assert (gone.exit_code, gone.stdout) == (0, "eva@example.com has no account any more.\n")
    assert "eva@example.com is asked to decide (communications) and has no account: they get notices" in gone.stderr
    assert "eva@example.com" not in run(config, "users", "list").stdout
    assert rows(run(config, "tokens", "list", "--json")) == []
    assert run(config, "users", "delete", "eva@example.com").exit_code == 1
    assert [data["change"] for kind, data, _ in entries(config) if kind == "account"] == ["added", "deleted"]
    assert add(config, "eva@example.com", "--role", "viewer").exit_code == 0


def test_an_account_is_moved_to_single_sign_on(config: Path) -> None:
    add(config, "eva@example.com", "--role", "approver")
    assert "there is no single sign-on" in run(config, "users", "link", "eva@example.com").stderr
    oidc = "{issuer: 'https://id.example.com', client_id: x, groups: {a: approver}}"
    config.write_text(f"console: {{url: 'https://guard.example.com', oidc: {oidc}}}\n")
    done = run(config, "users", "link", "eva@example.com")
    assert (done.exit_code, done.stdout) == (0, "eva@example.com signs in by single sign-on from now on.\n")
    assert rows(run(config, "users", "list", "--json"))[0]["with"] == "sso (not yet)"
