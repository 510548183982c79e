"""Failures at the start: one clear line each, and the exit status that says whether a retry helps."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs

from smtpguard.app import start
from smtpguard.app.clock import STEADY
from smtpguard.app.files import CannotStart
from smtpguard.cli import COMMANDS, main
from smtpguard.cli.context import TryAgain, sentence_of
from smtpguard.cli.serve import _listeners, _supervisor, _web
from smtpguard.config.settings import Settings, read_settings, settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.database.errors import Busy, CommitUnknown, Full, Unavailable, Unusable
from smtpguard.database.migrate import migrate
from smtpguard.database.schema import SCHEMA
from smtpguard.processes.supervisor import TRY_AGAIN
from tests import program
from tests.every import every
from tests.program import Program


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, "".join(map(as_text, told.err.splitlines(keepends=True)))


def as_text(line: str) -> str:
    """A log line's text: for JSON that says why the process ends, the line that a terminal would show."""
    if not line.startswith("{"):
        return line
    entry = json.loads(line)
    if entry["event"] != "cannot run":
        return line
    problem = entry["problem"]
    return f"{problem}\n" if problem.split(": ")[0].count(":") >= 2 else f"smtpguard: {problem}\n"


SMTP = "listen: {smtp: [{address: 127.0.0.1, port: 0}]}\n"
Serve = Callable[..., tuple[int, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Valid settings and a valid policy, on a free port."""
    (tmp_path / "members.csv").write_text("email\n" + "".join(f"c{n}@customer.example\n" for n in range(20)))
    (tmp_path / "policy.yaml").write_text(
        "version: 1\n"
        "organization: {name: Example AB, domains: [example.com]}\n"
        "groups: {some: [eva@example.com]}\n"
        "approvals: {from: [some], each: 1}\n"
        "lists:\n"
        "  news:\n"
        "    addresses: [news@lists.example.com]\n"
        "    members: {csv: members.csv, column: email}\n"
        "    writers: [campaigns@example.com]\n"
        "rules:\n"
        "  - id: not-a-writer\n"
        "    when: {recipients.list_addresses: any, sender.is_writer: false}\n"
        "    then: hold\n"
    )
    path = tmp_path / "smtpguard.yaml"
    path.write_text(SMTP)
    return path


@pytest.fixture
def serve(config: Path, capsys: pytest.CaptureFixture[str]) -> Serve:
    """The exit status and standard error of ``serve`` with these settings, by default those that are there."""

    def served(settings: str = "", *words: str) -> tuple[int, str]:
        if settings:
            config.write_text(settings)
        status, _, err = run("-c", str(config), "serve", *words, capsys=capsys)
        return status, err

    return served


def test_a_command_group_alone_prints_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("held", capsys=capsys)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: smtpguard held [OPTIONS] COMMAND")
    assert "(try" not in err


def test_without_any_settings_file_both_places_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("smtpguard.cli.SEARCHED", (tmp_path / "etc.yaml", Path("config/smtpguard.yaml")))
    for command in ("check", "serve"):
        status, _, err = run(command, capsys=capsys)
        assert status == 2
        assert err.startswith("smtpguard: no settings: neither ")
        assert err.count("\n") == 1


def test_every_command_in_the_table_exists() -> None:
    for name in COMMANDS:
        assert main.get_command(None, name) is not None, name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--nope"], "smtpguard: No such option '--nope'. (try smtpguard --help)\n"),
        (["frobnicate"], 'smtpguard: unknown command "frobnicate" (try smtpguard --help)\n'),
        (["polic", "diff"], 'smtpguard: unknown command "polic" (did you mean policy?) (try smtpguard --help)\n'),
        (["hold", "list"], 'smtpguard: unknown command "hold" (did you mean held?) (try smtpguard --help)\n'),
        (["serve", "--only", "milk"], "smtpguard serve: "),
    ],
)
def test_wrong_use_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(*words, capsys=capsys)
    assert status == 2
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_a_missing_settings_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run("-c", str(tmp_path / "none.yaml"), "serve", capsys=capsys)
    assert status == 2
    assert err.startswith(f"smtpguard: {tmp_path / 'none.yaml'}: no such file")
    assert err.count("\n") == 1


def test_invalid_settings_are_reported_with_their_place(config: Path, serve: Serve) -> None:
    status, err = serve("relay: {prot: 25}\n")
    assert status == 2
    assert err.startswith(f'{config}:1:9: unknown key "prot" (did you mean port?)')
    assert err.count("\n") == 1


def test_an_invalid_policy_stops_the_start(config: Path, serve: Serve) -> None:
    policy = config.parent / "policy.yaml"
    policy.write_text(policy.read_text().replace("then: hold", "then: hodl"))
    status, err = serve()
    assert (status, "did you mean hold?" in err) == (2, True)
    assert err.startswith(f"{policy}:13:")


def test_what_stops_the_start_is_told_without_mere_warnings(config: Path, serve: Serve) -> None:
    """Each of its lines is a critical entry of the log."""
    policy = config.parent / "policy.yaml"
    policy.write_text(policy.read_text().replace("column: email", "column: emil"))
    status, err = serve()
    assert (status, err) == (2, f'{policy}:8:20: {config.parent}/members.csv: no column "emil": it has email\n')


def test_an_address_that_is_not_free_asks_for_a_retry(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        used = f"{{address: 127.0.0.1, port: {port}}}"
        said = f"smtpguard: cannot listen on 127.0.0.1:{port}: the port is in use\n"
        assert serve(f"listen: {{smtp: [{used}]}}\n") == (TRY_AGAIN, said)
        for page in ("console", "metrics"):
            assert serve(f"{SMTP}{page}: {used}\n", "--only", page) == (TRY_AGAIN, said)
            settings = settings_of(load_yaml(f"{SMTP}{page}: {used}\n"), Path("/"), {})
            for listener in _listeners(settings, ("proxy", "delivery", page, "alarms")):  # mail goes on
                listener.close()
    said = "smtpguard: cannot listen on 192.0.2.1:2525: this machine has no such address\n"
    assert serve("listen: {smtp: [{address: 192.0.2.1, port: 2525}]}\n") == (TRY_AGAIN, said)


def test_a_signal_other_than_a_stop_does_not_end_the_start(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    def told(*_: object) -> None:
        waits.append(signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        raise TryAgain("not now")

    monkeypatch.setattr(start, "migrate_apart", told)
    assert serve(SMTP) == (TRY_AGAIN, "smtpguard: not now\n")
    assert waits == [True]


def test_metrics_alone_need_an_address(config: Path, serve: Serve) -> None:
    assert serve("", "--only", "metrics") == (2, f"smtpguard: {config}: metrics has no address\n")


@pytest.mark.parametrize("where", ["listen", "console"])
def test_an_unusable_certificate_stops_the_start(where: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate that cannot be used is reported in one line, before anything starts."""
    tls = "tls: {certificate: guard.pem, key: guard.key}"
    listening = "{address: 127.0.0.1, port: 0" + (f", {tls}}}" if where == "listen" else "}")
    config.write_text(
        f"listen: {{smtp: [{listening}]}}\n" + (f"console: {{port: 0, {tls}}}\n" if where == "console" else "")
    )
    certificate, key = config.parent / "guard.pem", config.parent / "guard.key"

    def problem() -> str:
        status, _, err = run("-c", str(config), "serve", capsys=capsys)
        assert (status, err.count("\n")) == (2, 1)
        return err

    assert problem() == f"smtpguard: {certificate}: No such file or directory\n"
    authority = trustme.CA()
    one, other = authority.issue_cert("guard.example.com"), authority.issue_cert("guard.example.com")
    one.cert_chain_pems[0].write_to_path(certificate)
    assert problem() == f"smtpguard: {key}: No such file or directory\n"
    other.private_key_pem.write_to_path(key)
    wrong = f"{certificate}, {key}: the key is not the certificate's"
    assert problem() == f"smtpguard: {wrong}\n"
    status, _, err = run("-c", str(config), "check", capsys=capsys)
    assert status == 1, "before a restart"
    assert f": {wrong}" in err
    key.write_text("no key")
    assert problem() == f"smtpguard: {certificate}, {key}: not PEM that can be used\n"


def test_an_unreadable_relay_secret_stops_the_start(config: Path, serve: Serve) -> None:
    """A password or key that cannot be read is reported in one line, before anything starts, however many parts use the
    relay."""
    listening = f"workers: 2\n{SMTP}"
    password, authorities = config.parent / "relay-password", config.parent / "ca.pem"
    login = "relay: {tls: require, auth: {user: guard, password_file: relay-password}}\n"
    assert serve(listening + login) == (2, f"{password}:1:1: cannot be read: No such file or directory\n")
    password.write_text("secret of the relay")
    told = f"smtpguard: {authorities}: No such file or directory\n"
    assert serve(listening + "relay: {tls: require, ca_file: ca.pem}\n") == (2, told)


def test_an_invalid_database_file_stops_the_start(config: Path, serve: Serve) -> None:
    database = config.parent / "var" / "smtpguard.db"
    database.parent.mkdir(exist_ok=True)
    database.write_text("no database, but a text that is long enough to be taken for the head of one" * 20)
    said = f"smtpguard: the store: {database} is not an SQLite database (SQLITE_NOTADB). Put the database there, or"
    assert serve(SMTP) == (2, f"{said} correct the url\n")


@pytest.mark.parametrize("name", [".", "secret", "smtpguard.db"])
def test_files_of_another_user_are_named(name: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``serve`` as the wrong user names the owner; so does ``check``. It is wrong if that user may write the state, and so is
    the one who serves."""
    assert run("-c", str(config), "lists", "sync", capsys=capsys)[0] == 0
    state = config.parent / "var"
    migrate(f"sqlite:///{state}/smtpguard.db")
    (state / "checkpoints").touch()
    path = state / name
    path.chmod(0)
    me = path.owner()
    try:
        started, checked = (
            program.run(["-c", str(config), word], timeout=120, powerless=True) for word in ("serve", "check")
        )
    finally:
        path.chmod(0o700)
    started.stderr = "".join(map(as_text, started.stderr.splitlines(keepends=True)))
    assert (started.returncode, started.stderr.count("\n")) == (2, 1), started
    assert str(path) in started.stderr
    if name == "smtpguard.db":
        said = f"the store: {path} belongs to {me}, and cannot be read and written by this user (SQLITE_CANTOPEN)"
        assert started.stderr == f"smtpguard: {said}\n"
    if name == ".":
        assert checked.returncode == 0, checked
        assert f"?     the store was not read: {path} belongs to {me}, not to this user\n" in checked.stdout
    else:
        assert checked.returncode == 1, checked
        assert f"WRONG smtpguard serve cannot start as this user: {path} belongs to {me}\n" in checked.stdout
    assert "Permission denied" not in checked.stderr


@pytest.mark.parametrize(("end", "mode"), [("", 0o444), ("-wal", 0)])
def test_a_file_of_the_database_that_cannot_be_written_is_named(config: Path, end: str, mode: int) -> None:
    database = config.parent / "var/smtpguard.db"
    database.parent.mkdir(mode=0o700)
    migrate(f"sqlite:///{database}")
    path = Path(f"{database}{end}")
    path.touch()
    path.chmod(mode)
    started = program.run(["-c", str(config), "serve"], timeout=120, powerless=True)
    said = f"the store: {path} belongs to {path.owner()}, and cannot be read and written by this user (SQLITE_"
    assert (started.returncode, said in started.stderr) == (2, True), started


@pytest.mark.parametrize("name", ["checkpoints", "smtpguard.db.next"])
def test_a_file_beside_the_database_that_cannot_be_read_is_not_waited_for(
    name: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-c", str(config), "lists", "sync", capsys=capsys)[0] == 0
    migrate(f"sqlite:///{config.parent}/var/smtpguard.db")
    path = config.parent / "var" / name
    path.touch()
    path.chmod(0)
    started = program.run(["-c", str(config), "serve"], timeout=120, powerless=True)
    assert (started.returncode, f"the store: {path}: Permission denied" in started.stderr) == (2, True), started


def test_a_part_that_cannot_run_is_a_start_that_failed(config: Path) -> None:
    """The alarm tells of it: no part is left that could, and a service manager does not try again. It goes on from one such
    start to the next, which a client may cause."""
    oidc = "{issuer: 'https://sso.example.com', client_id: a, client_secret_file: none, groups: {some: approver}}"
    config.write_text(f"{SMTP}console: {{port: 0, url: 'https://guard.example.com', oidc: {oidc}}}\n")
    began = datetime.now(UTC)
    state = config.parent / "var"
    state.mkdir()
    asyncio.run(start.note_failed_start(read_settings(config, {}), "not yet", began))
    started = program.run(["-c", str(config), "serve"], timeout=120)
    assert started.returncode == 2, started
    known = start.failing_starts(state, began)
    assert known is not None
    assert (known.since, known.why) == (began, "a part cannot run: the log says why")


def test_parts_that_die_again_and_again_are_a_start_that_failed(
    config: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody hears of it: no alarms part lives long enough to tell of the others."""

    async def gives_up(_: object) -> int:
        return TRY_AGAIN

    monkeypatch.setattr("smtpguard.processes.supervisor.Supervisor.run", gives_up)
    assert serve()[0] == TRY_AGAIN
    known = start.failing_starts(config.parent / "var", datetime.now(UTC))
    assert known is not None
    assert known.why == "its processes die again and again: the log says why"


def test_settings_that_cannot_be_read_are_named(config: Path) -> None:
    config.chmod(0)
    started = program.run(["-c", str(config), "serve"], timeout=120, powerless=True)
    said = f"{config}:1:1: cannot be read: Permission denied; run it as root, or as the user of smtpguard serve\n"
    assert (started.returncode, "".join(map(as_text, started.stderr.splitlines(keepends=True)))) == (2, said)


def test_an_unreachable_database_server_asks_for_a_retry(serve: Serve) -> None:
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        status, err = serve(f'{SMTP}store: {{url: "postgresql://guard@127.0.0.1:{port}/guard"}}\n')
    assert status == TRY_AGAIN, "2 would say that trying again does not help"
    assert err.startswith("smtpguard: the store: no connection to the database: ")
    assert f"port {port} failed: Connection refused" in err
    assert err.count("\n") == 1


def test_a_long_start_asks_systemd_for_more_time(config: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager is asked for more time during a long migration; otherwise it would kill each start."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(config.parent / "notify"))
        notices.settimeout(120)

        async def prepare(*_: object, **__: object) -> None:
            told = await asyncio.to_thread(notices.recv, 4096)
            raise Full(told.decode().partition("\n")[0])

        monkeypatch.setenv("NOTIFY_SOCKET", str(config.parent / "notify"))
        monkeypatch.setattr("smtpguard.app.start.prepare", prepare)
        monkeypatch.setattr("smtpguard.cli.serve._EXTEND_SECONDS", 0.05)
        assert serve() == (TRY_AGAIN, "smtpguard: the store: EXTEND_TIMEOUT_USEC=200000\n")


def test_a_full_disk_asks_for_a_retry(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise Full("no space left for the database")

    monkeypatch.setattr("smtpguard.store.store.migrate_open", full)
    assert serve() == (TRY_AGAIN, "smtpguard: the store: no space left for the database\n")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (
            "9999",
            f"the database has schema 9999, this smtpguard knows {SCHEMA}: a newer smtpguard has written it. Start that version; or "
            "restore a backup from before its installation",
        ),
        (
            "0005",
            f"the database could not be migrated from schema 0005 to {SCHEMA}: no version of smtpguard had schema 0005. It is "
            "unchanged: the previous smtpguard can use it",
        ),
    ],
)
def test_a_database_of_another_version_stops_the_start(
    schema: str, said: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database of another version is reported by ``serve`` in one line, and by ``check``."""
    state = config.parent / "var"
    assert run("-c", str(config), "lists", "sync", capsys=capsys)[0] == 0
    url = f"sqlite:///{state}/smtpguard.db"
    migrate(url)
    with contextlib.closing(sqlite3.connect(state / "smtpguard.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (schema,))
        database.commit()
    status, _, err = run("-c", str(config), "serve", capsys=capsys)
    assert (status, err.splitlines()[-1]) == (2, f"smtpguard: the store: {said}")
    assert "Traceback" not in err
    (state / "checkpoints").touch()
    status, out, _ = run("-c", str(config), "check", capsys=capsys)
    newer = schema > SCHEMA
    assert status == (1 if newer else 0)
    assert ("WRONG " if newer else "?     ") + f"the database has schema {schema}" in out


def test_parts_in_separate_units_share_the_store(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``serve --only`` in two units, delivery and proxy, shares one database."""
    config.write_text(config.read_text() + "workers: 1\nlogging: {format: json}\n")
    state = config.parent / "var"
    state.mkdir(mode=0o755)  # created by hand
    with contextlib.ExitStack() as undo:
        guards = []
        for part in ("delivery", "proxy"):
            notices = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notices.bind(str(tmp_path / part))
            notices.settimeout(120)
            log = undo.enter_context((tmp_path / f"{part}.log").open("wb"))
            env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / part)}
            guard = Program(["-c", str(config), "serve", "--only", part], stdout=log, stderr=log, env=env)
            undo.callback(guard.wait)
            undo.callback(guard.kill)
            guards.append((guard, notices))
        told = []
        for _, notices in guards:
            while (text := notices.recv(4096).decode()).startswith("EXTEND_TIMEOUT_USEC="):
                pass  # repeated as often as needed
            told.append(text)
        assert all(text.startswith("READY=1") for text in told)
        assert told[0] in ("READY=1\nSTATUS=delivery ready", "READY=1\nSTATUS=delivery, alarms ready")
        assert "SMTP on 127.0.0.1:" in told[1]
        logged = (tmp_path / "proxy.log").read_text()
        assert f"other users of this machine can read {state}: chmod 700 {state}" in logged
        for guard, _ in guards:
            guard.terminate()
        assert [guard.wait(120) for guard, _ in guards] == [0, 0]
    status, out, err = run("-c", str(config), "--json", "audit", "verify", capsys=capsys)
    assert (status, json.loads(out)["ok"]) == (0, True), err


def test_it_serves_without_standard_descriptors(config: Path) -> None:
    """They are closed, not /dev/null: the database must not get their numbers."""
    argv = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "smtpguard", "-c", str(config), "serve"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(config.parent / "notices"))
        notices.settimeout(120)
        env = {**os.environ, "NOTIFY_SOCKET": str(config.parent / "notices")}
        with subprocess.Popen([*argv, "--only", "delivery"], env=env) as guard:
            while not notices.recv(4096).startswith(b"READY=1"):
                pass
            held = {str(Path(f"/proc/{guard.pid}/fd/{number}").readlink()) for number in range(3)}
            guard.terminate()
    assert (held, guard.returncode) == ({os.devnull}, 0)


def test_commands_before_the_first_start_name_the_missing_store(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run("-c", str(config), "held", "list", capsys=capsys)
    assert status == 2
    assert "smtpguard serve makes it" in err
    assert err.count("\n") == 1


def test_state_and_secret_are_private(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("-c", str(config), "lists", "sync", capsys=capsys)
    assert status == 0
    assert "20 people" in out
    state = config.parent / "var"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "secret").stat().st_mode) == 0o600


def test_a_missing_csv_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "members.csv").unlink()
    status, _, err = run("-c", str(config), "lists", "sync", capsys=capsys)
    assert status == 1
    assert "members.csv" in err
    assert err.count("\n") == 1


def test_an_internal_error_has_another_status_than_a_finding(
    monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("smtpguard.cli.context.Context.settings", fault)
    status, _, err = run("-c", str(config), "reload", capsys=capsys)
    assert status == 2, "1 would say that the policy is not fine"
    assert err.endswith("smtpguard: an error of smtpguard itself: ZeroDivisionError\n")


def room(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/var/lib/smtpguard")


@every(
    ("error", "expected"),
    [
        (Unavailable("the database: OperationalError"), TRY_AGAIN),
        (Busy("2,000 are waiting already"), TRY_AGAIN),
        (CommitUnknown("the database: OperationalError"), TRY_AGAIN),
        (room(errno.ENOSPC), TRY_AGAIN),
        (room(errno.EMFILE), TRY_AGAIN),
        (room(errno.EACCES), 2),
        (CannotStart("no state", passing=True), TRY_AGAIN),
        (CannotStart("not the store"), 2),
        (Unusable("guard.db is damaged"), 2),
    ],
)
def test_the_exit_status_says_whether_to_retry(
    error: Exception, expected: int, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def prepare(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("smtpguard.app.start.prepare", prepare)
    status, _, err = run("-c", str(config), "serve", capsys=capsys)
    assert (status, err.count("\n")) == (expected, 1)


def test_an_unknown_outcome_is_called_so() -> None:
    told = sentence_of(CommitUnknown("no answer from the database in time"))
    assert told == (
        "the store: no answer from the database in time; it is not known whether it was written: look before you repeat it"
    )


def test_the_supervisor_watches_the_clock_for_parts_that_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("smtpguard.cli.serve.Supervisor", lambda **more: given.update(more))
    _supervisor(Settings(), Path("smtpguard.yaml"), ["delivery"], lambda *_: 0, [])
    assert given["ticks"] == STEADY.watch


def test_clients_do_not_take_all_descriptors(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else none is left for the relay, and no mail passes."""
    given: dict[str, Any] = {}
    monkeypatch.setattr("smtpguard.cli.serve.Supervisor", lambda **more: given.update(more))
    for hard, total, lines in ((64, 24, 1), (20, 2, 1), (4096, 2000, 0), (resource.RLIM_INFINITY, 2000, 0)):
        monkeypatch.setattr("resource.getrlimit", lambda _, hard=hard: (hard, hard))
        with contextlib.ExitStack() as undo, capture_logs() as logged:
            listeners = _listeners(read_settings(config, {}), ["proxy"])
            for listener in listeners:
                undo.callback(listener.close)
            _supervisor(Settings(), config, ["proxy", "proxy", "delivery"], lambda *_: 0, listeners)
        assert given["connections"].total == total
        assert [entry["connections"] for entry in logged] == [total] * lines


def test_the_first_line_of_the_log_names_the_console_as_browsers_reach_it(tmp_path: Path) -> None:
    tls = "tls: {certificate: guard.pem, key: guard.key}"
    for console, url in (
        ("address: '::1'", "http://[::1]:8025"),
        (tls, "https://127.0.0.1:8025"),
        ("url: 'https://guard.example.com/'", "https://guard.example.com"),
    ):
        settings = settings_of(load_yaml(f"console: {{{console}}}\n", "smtpguard.yaml"), tmp_path, {})
        assert _web(settings, ("console",)) == {"console": url}
