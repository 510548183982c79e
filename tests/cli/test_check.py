"""smtpguard check, test and schema at a terminal."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from smtpguard.accounts.model import Role
from smtpguard.app import ownports
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.services import accounts, opened
from smtpguard.app.start import prepare
from smtpguard.app.ways import reachable_addresses
from smtpguard.cli import main, offline
from smtpguard.config.documents import shipped
from smtpguard.config.settings import read_settings
from smtpguard.config.yaml import load_yaml
from tests.cli.installing import change, prepared_installation, running
from tests.every import every
from tests.guard.house import MEMBERS, FakePassage, House

WATCHED = 'policy: policy.yaml\nnotices: {contact: "it@example.com"}\nalarms: {relay: {host: other.example.com}}\n'
OWN = next(iter(reachable_addresses()), "")
WORKDAY = 'hours: {days: mon-fri, from: "08:00", to: "17:00", zone: Europe/Stockholm}, '
SUITE = Path(__file__).parent.parent / "policies"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A folder with the shipped configuration, plus a second relay for alarms, which only an operator can name."""
    folder = Path(shutil.copytree(shipped(), tmp_path / "etc"))
    edit(folder / "smtpguard.yaml", "# alarms: {", "alarms: {relay: {host: other.example.com}} # {")
    return folder


@pytest.fixture
def run(etc: Path) -> Callable[..., Result]:
    return partial(running(), etc)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_shipped_settings_warn_only_of_missing_alarm_settings(tmp_path: Path) -> None:
    """Only its operators know a second relay for alarms, so the shipped settings give this warning and no other."""
    etc = Path(shutil.copytree(shipped(), tmp_path / "etc"))
    result = running("check")(etc)
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert "warning: no one receives alarms while the relay cannot be used" in line


def test_unusable_alarm_settings_are_reported(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "smtpguard.yaml", 'contact: "it@example.com"', 'contact: "+46 8 123"')
    result = run("check")
    assert "no one receives alarms: notices: contact is not a mailbox" in result.stderr
    edit(
        etc / "smtpguard.yaml",
        "alarms: {relay",
        "alarms: {webhook: {url: https://pager.example.com/, secret_file: none}, relay",
    )
    result = run("check")
    assert result.exit_code == 1
    assert "there is no file" in result.stderr


def test_the_shipped_files_pass(run: Callable[..., Result], etc: Path) -> None:
    result = run("check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{etc}/smtpguard.yaml is fine.\n")
    assert (
        "list ramadan-greetings: ramadan@lists.example.com; 60 addresses; 1 of communications and 1 of compliance to release"
        in result.stdout
    )
    assert (
        "rule internal-to-list: holds where message.looks is internal or unclear and recipients.list_addresses is any"
        in result.stdout
    )
    assert (
        "rule unapproved-mailing: holds where mailing.customers >= 200 and mailing.approved is false, unless stream is any"
        in result.stdout
    )


def line_of(file: Path, text: str) -> int:
    return next(n for n, line in enumerate(file.read_text().splitlines(), start=1) if text in line)


def test_all_errors_of_both_files_are_reported_at_once(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "smtpguard.yaml", "dkim_sign: {}", "dkim_sign: {domain: example.com, selector: a, key_file: none.pem}")
    edit(etc / "policy.yaml", "then: hold", "then: hodl")
    edit(etc / "policy.yaml", "from: [communications]", "from: [comunications]")
    result, policy = run("check"), etc / "policy.yaml"
    mistakes = [
        f'policy.yaml:{line_of(policy, "comunications")}:20: unknown group "comunications" (did you mean communications?)',
        f'policy.yaml:{line_of(policy, "hodl")}:11: unknown action "hodl" (did you mean hold?)',
    ]
    assert (result.exit_code, result.stdout) == (1, "")
    assert [line.rpartition("/")[2] for line in result.stderr.splitlines()] == [
        *mistakes,
        "none.pem: expected a file that is there",
    ]
    edit(etc / "smtpguard.yaml", "\nstate: ", "\nstats: ")  # settings that cannot be used do not hide them
    said = [line.rpartition("/")[2] for line in run("check").stderr.splitlines()]
    assert said[:2] == mistakes
    assert [line.partition(": ")[2] for line in said[2:]] == ['unknown key "stats" (did you mean state?)']


def test_missing_misnamed_or_too_few_members_are_reported(run: Callable[..., Result], etc: Path) -> None:
    (etc / "lists/ramadan.csv").unlink()
    edit(etc / "policy.yaml", "at_least: 50", "at_least: 500")
    result = run("check", "--json")
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(Path(r["file"]).name, r["line"], r["column"]) for r in rows] == [
        ("policy.yaml", line_of(etc / "policy.yaml", "lists/ramadan.csv"), 20),
        ("policy.yaml", line_of(etc / "policy.yaml", "at_least: 500"), 91),
    ]
    assert all(set(r) == {"file", "line", "column", "text", "expected"} for r in rows)
    assert "No such file" in rows[0]["text"]
    assert "holds 120 people, and the policy expects at least 500" in rows[1]["text"]

    edit(etc / "policy.yaml", 'column: "Email Address"', "column: Adress")
    assert "Adress" in run("check").stderr


def test_too_few_people_are_reported_as_a_sync_counts_them(run: Callable[..., Result], etc: Path) -> None:
    """One mailbox is one person, however often it is there, and however it is spelled."""
    for name in (etc / "lists").glob("*.csv"):
        head = name.read_text(encoding="utf-8-sig").splitlines()[0]
        name.write_text("\n".join([head, *["an.na@gmail.com", "anna@gmail.com"] * 30]) + "\n")
    assert "holds 1 person, and the policy expects at least 50" in run("check").stderr


def test_a_policy_file_is_checked_without_settings(run: Callable[..., Result], etc: Path) -> None:
    result = run("check", str(etc / "policy.yaml"))
    assert result.exit_code == 0
    assert "Listens" not in result.stdout


def test_a_missing_file_is_an_error(run: Callable[..., Result], etc: Path) -> None:
    for name, status, said in (("policy.yaml", 1, "there is no file"), ("smtpguard.yaml", 2, "no such file")):
        (etc / name).unlink()
        result = run("check")
        assert (result.exit_code, said in result.stderr) == (status, True), result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_files_that_other_users_can_read_are_reported(run: Callable[..., Result], etc: Path) -> None:
    """``check`` warns about files that other users can read; ``serve`` logs it too (test_serve)."""
    state = etc / "var"
    state.mkdir(mode=0o755)
    lines = (etc / "smtpguard.yaml").read_text().splitlines()
    at = {
        key: 1 + next(n for n, line in enumerate(lines) if line.startswith(f"{key}:"))
        for key in ("state", "secret_file", "store")
    }
    (state / "secret").write_bytes(bytes(32))
    (state / "smtpguard.db").touch()
    for name in ("secret", "smtpguard.db"):
        (state / name).chmod(0o644)
    result = run("check")
    assert result.exit_code == 0
    file = etc / "smtpguard.yaml"
    told = result.stderr.splitlines()
    assert f"{file}:{at['state']}:8: warning: other users of this machine can read {state}: chmod 700 {state}" in told
    for key, name in (("secret_file", "secret"), ("store", "smtpguard.db")):
        there = state / name
        wanted = f"warning: other users of this machine can read {there}: chmod o= {there}"
        assert [line for line in told if line.startswith(f"{file}:{at[key]}:") and line.endswith(wanted)]
    state.chmod(0o711)
    assert "can read" in run("check").stderr
    state.chmod(0o750)
    assert run("check").stderr == "", "other users cannot reach the files"


@every(
    ("key", "file"),
    [
        ("relay: {tls: require, auth: {user: guard, password_file: pw}}", "pw"),
        ("webhooks: [{url: 'https://h.example.com/', secret_file: pw, events: [freeze.set]}]", "pw"),
        ("audit: {witness: {url: 'https://w.example.com', token_file: pw}}", "pw"),
        ("", "secret"),  # of a list's source
    ],
)
def test_secrets_that_other_users_can_read_are_reported(folder: Path, key: str, file: str) -> None:
    folder.chmod(0o755)
    for name in ("pw", "secret"):
        (folder / name).write_text("a secret of twenty-four")
        (folder / name).chmod(0o640)
    (folder / "smtpguard.yaml").write_text(f"{WATCHED}{key}\n")
    assert check(folder).stderr == ""
    secret = folder / file
    secret.chmod(0o644)
    assert f"warning: other users of this machine can read {secret}: chmod o= {secret}" in check(folder).stderr


@every(
    ("console", "clear"),
    [
        ("{}", False), ("{address: 0.0.0.0}", True), ("{address: 10.1.2.3, url: 'http://guard.example.com:8025'}", True),
        ("{proxies: [127.0.0.1], url: 'http://guard.example.com'}", True), ("{address: 0.0.0.0, proxies: [10.1.2.3]}", False),
        ("{address: 0.0.0.0, url: 'https://guard.example.com'}", False), ("{address: 0.0.0.0, url: 'http://127.0.0.1:8025'}", False),
        ("{proxies: [127.0.0.1], url: 'https://guard.example.com'}", False),
    ],
)  # fmt: skip
def test_a_console_in_clear_is_warned_about(folder: Path, console: str, clear: bool) -> None:
    (folder / "smtpguard.yaml").write_text(f"{WATCHED}console: {console}\n")
    done = check(folder)
    assert (done.exit_code, "in clear: the console has no TLS" in done.stderr) == (0, clear)


def test_addresses_of_lists_that_would_get_mail_of_the_guard_are_reported(folder: Path) -> None:
    edit(folder / "smtpguard.yaml", "it@example.com", "Guard <CRM@lists.example.com>")
    edit(folder / "smtpguard.yaml", "notices: {", "notices: {from: everybody@lists.example.com, ")
    with (folder / "smtpguard.yaml").open("a") as file:
        file.write("audit: {mail: crm@lists.example.com}\n")
    said = check(folder).stderr
    assert (
        "warning: everybody@lists.example.com is the address of list everybody: answers to notices would go to" in said
    )
    assert "is the address of list crm: alarms would go to everybody on it" in said
    assert "is the address of list crm: checkpoints would go to everybody on it" in said


def test_accounts_and_approvers_that_do_not_match_are_listed(run: Callable[..., Result], etc: Path) -> None:
    """Accounts and approvers that do not match are listed without failure, once a store and a console exist."""
    config = etc / "smtpguard.yaml"

    async def made(*people: tuple[str, Role]) -> None:
        async with opened(read_settings(config), migrate=True) as (store, _):
            work = accounts(read_settings(config), store, SystemClock(), secret=bytes(32), new_id=ids())
            for address, role in people:
                await work.add(address, roles=[role], by="root")

    asyncio.run(prepare(read_settings(config), by="test", parts=()))
    with config.open("a") as file:
        file.write("console: {}\n")
    assert "the console has no accounts" in run("check").stdout
    asyncio.run(
        made(("eva@example.com", Role.APPROVER), ("sven@example.com", Role.APPROVER), ("omar@example.com", Role.VIEWER))
    )
    result = run("check")
    assert result.exit_code == 0
    said = [line for line in result.stdout.splitlines() if line.startswith("odd ")]
    assert [line.split()[1] for line in said] == [
        "sven@example.com",
        "dpo@example.com",
        "duty-manager@example.com",
        "legal@example.com",
        "omar@example.com",
    ]
    assert "is in no group of the policy" in said[0]
    assert "(compliance) and has no account" in said[1]
    assert "(communications) and has an account without the approver's role" in said[4]
    edit(config, "console: {}", "")
    assert "odd " not in run("check").stdout


def test_a_warning_does_not_fail(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "policy.yaml", '">= 300 in 1h"', '">= 0 in 1h"')
    result = run("check")
    assert result.exit_code == 0
    assert "warning: sender.customers is always >= 0 in 1h" in result.stderr


def test_a_quorum_that_cannot_be_met_is_reported(run: Callable[..., Result], etc: Path) -> None:
    edit(
        etc / "policy.yaml",
        "approvals: {from: [communications], each: 1}",
        "approvals: {from: [communications], each: 2}",
    )
    edit(
        etc / "policy.yaml",
        "lists:\n",
        "people:\n  eva: {away: [2026-01-01..2026-01-05, 2999-07-01..2999-07-31]}\nlists:\n",
    )
    result = run("check")
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if "cannot be met" in line]
    assert (
        "from 2999-07-01 to 2999-07-31 approvals cannot be met: it needs 2 people of communications, which has 1"
        in line
    )
    assert "since eva@example.com is away and no one decides for them" in line
    edit(etc / "policy.yaml", "2999-07-31]", "2999-07-31], deputy: omar")
    assert "is away and omar@example.com decides for them" in run("check").stderr, "together they are one vote"
    edit(etc / "policy.yaml", "deputy: omar", "deputy: dpo")
    assert "cannot be met" not in run("check").stderr


def test_a_relay_loop_and_a_port_used_twice_are_reported(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "smtpguard.yaml", "port: 10026", "port: 10025, fallbacks: [{host: 127.0.0.1, port: 10025}]")
    edit(
        etc / "smtpguard.yaml",
        "    - {address: 127.0.0.1, port: 10025}",
        "    - {address: 127.0.0.1, port: 10025}\n    - {port: 10025}",
    )
    result = run("check")
    assert result.exit_code == 1
    assert "listened on twice" in result.stderr
    assert "the relay is this guard itself" in result.stderr
    assert "this fallback is this guard itself" in result.stderr


LOOP = "the relay is this guard itself: mail would loop"
NO_MAIL = "the relay is this guard's own {}, which takes no mail"
AGAIN = "is tried before this fallback already"
SECOND = "no one receives alarms while the relay cannot be used"


@every(
    ("listen", "relay", "said"),
    [
        ("", "relay: {host: localhost, port: 10025}", LOOP),
        ("", "relay: {host: '::ffff:127.0.0.1', port: 10025}", LOOP),
        ("", "relay: {host: 127.0.0.2, port: 10025}", ""),
        ("", "relay: {host: 0.0.0.0, port: 10025}", LOOP),
        ("", "relay: {host: '::1', port: 10025}", ""),
        ("{smtp: [{address: '::1', port: 25}]}", "relay: {host: '0:0:0:0:0:0:0:1', port: 25}", LOOP),
        ("{smtp: [{address: 0.0.0.0, port: 25, clients: [127.0.0.1]}]}", "relay: {host: 127.0.0.2, port: 25}", LOOP),
        ("{smtp: [{address: 0.0.0.0, port: 25, clients: [127.0.0.1]}]}", "relay: {host: 192.0.2.250, port: 25}", ""),
        ("{smtp: [{address: 0.0.0.0, port: 25, clients: [127.0.0.1]}]}", "relay: {host: '::1', port: 25}", ""),
        ("{smtp: [{address: '::', port: 25, clients: [127.0.0.1]}]}", "relay: {host: 127.0.0.1, port: 25}", LOOP),
        ("{smtp: [{port: 25}, {address: 0.0.0.0, port: 26, clients: [127.0.0.1]}]}", "relay: {host: OWN, port: 26}", LOOP),
        ("{milter: [{port: 10026}]}", "", NO_MAIL.format("milter")),
        ("", "metrics: {port: 10026}", NO_MAIL.format("metrics")),
        ("", "console: {port: 10026}", NO_MAIL.format("console")),
        ("{smtp: [{address: 0.0.0.0, port: 25, clients: [127.0.0.1]}, {port: 25}]}", "", "127.0.0.1 port 25 is listened on twice, also by 0.0.0.0"),
        ("{smtp: [{port: 9125}]}", "metrics: {address: '::'}", ":: port 9125 is listened on twice, also by 127.0.0.1"),
        ("{smtp: [{port: 25}, {address: '::1', port: 25}]}", "", ""),
        ("", "relay: {host: one.example.com, port: 25, fallbacks: [{host: One.example.com}]}", AGAIN),
        ("", "relay: {host: 127.0.0.1, port: 26, fallbacks: [{host: a.example.com}, {host: localhost, port: 26}]}", AGAIN),
        ("", "relay: {host: 127.0.0.1, port: 26, fallbacks: [{host: a.example.com}, {host: a.example.com}]}", AGAIN),
        ("", "relay: {host: a.example.com, port: 25, fallbacks: [{host: a.example.com, port: 587}, {host: b.example.com}]}", ""),
        ("", "alarms: {relay: {host: localhost, port: 10026}}", SECOND),
        ("", "alarms: {relay: {host: localhost, port: 10025}}", SECOND),
    ],
)  # fmt: skip
def test_a_place_is_the_same_however_it_is_spelled(folder: Path, listen: str, relay: str, said: str) -> None:
    text = f"{relay}\n" + (f"listen: {listen}\n" if listen else "")
    if "alarms" not in relay:
        text += "alarms: {relay: {host: other.example.com}}\n"
    text += 'notices: {contact: "it@example.com"}\n'
    (folder / "smtpguard.yaml").write_text(text.replace("OWN", OWN or "localhost"))
    stderr = check(folder).stderr
    assert (said in stderr) if said else stderr == "", stderr


@pytest.mark.parametrize("live", [False, True])
def test_only_a_live_check_asks_dns_for_a_relay_on_a_port_of_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    """Without it names are those of the file of hosts."""
    asked = []

    def getaddrinfo(host: str, *_: object, flags: int, **__: object) -> list[object]:
        if flags & socket.AI_NUMERICHOST and not host[0].isdigit():
            raise socket.gaierror
        asked.append(host)
        return [(None, None, None, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(ownports, "HOSTS", folder / "hosts")
    (folder / "hosts").write_text("127.0.0.1 localhost Own.example.com own # other.example.com\n")
    settings = folder / "smtpguard.yaml"
    for host, itself in (("own", True), ("OWN.example.com", True), ("other.example.com", live)):
        asked.clear()
        settings.write_text(f"relay: {{host: {host}, port: 10025}}\n")
        problems = offline.check(settings, live=live).problems
        assert any(LOOP in problem.text for problem in problems) == itself
        assert (host in asked) == live


@every(
    ("hold", "hours", "told"),
    [
        ("{expires: 2h, escalate_after: 1h}", "", False), ("{expires: 1h}", "", True), ("{expires: 2h, escalate_after: 3h}", "", True),
        ("{expires: 2 working hours, escalate_after: 3h}", WORKDAY, True), ("{escalate_after: 48h}", WORKDAY, False),
        ("{escalate_after: 60h}", WORKDAY, True), ("{expires: 8 working hours, escalate_after: 9h}", WORKDAY, True),
        ("{expires: 10 working hours, escalate_after: 20h}", WORKDAY, False),
    ],
)  # fmt: skip
def test_a_hold_that_expires_before_it_is_escalated_is_reported(
    folder: Path, hold: str, hours: str, told: bool
) -> None:
    (folder / "policy.yaml").write_text(POLICY.replace("domains: [", f"{hours}domains: [", 1))
    (folder / "smtpguard.yaml").write_text(f"{WATCHED}hold: {hold}\n")
    assert ("a hold may expire before it is escalated" in check(folder).stderr) == told


@every(
    ("client", "settings", "told"),
    [
        ("127.0.0.1", "", True), ("'::1'", "", True), ("10.1.2.0/24", "", False), ("127.0.0.1", "trust: [127.0.0.1]", False),
        ("127.0.0.1", "listen: {milter: [{port: 10027}]}", False),
        ("127.0.0.1", "listen: {smtp: [{address: 0.0.0.0, port: 25, clients: [10.0.0.0/8]}]}", False),
    ],
)  # fmt: skip
def test_an_origin_that_all_mail_has_is_reported(folder: Path, client: str, settings: str, told: bool) -> None:
    stream = f"streams: {{shop: {{from: [shop@example.com], origin: {{clients: [{client}]}}}}}}\n"
    (folder / "policy.yaml").write_text(POLICY + stream)
    (folder / "smtpguard.yaml").write_text(f"{WATCHED}{settings}\n")
    assert ("all mail has the client" in check(folder).stderr) == told


@every(
    ("host", "fine"),
    [
        ("mail.example.com", True), ("mail", True), ("::1", True), ("fe80::1%br-lan", True), ("b\u00fccher.example", True),
        ("mail.example.com:587", False), (" mail", False), ("smtp://mail", False), ("it@mail", False), ("[::1]", False),
    ],
)  # fmt: skip
def test_a_host_to_which_no_connection_can_go_is_an_error(folder: Path, host: str, fine: bool) -> None:
    (folder / "smtpguard.yaml").write_text(
        f"relay: {{host: '{host}', fallbacks: [{{host: '{host}'}}]}}\nalarms: {{relay: {{host: '{host}', port: 26}}}}\n"
    )
    said = f'"{host}" is no host: expected a name or an address; its port is a key of its own'
    assert check(folder).stderr.count(said) == (0 if fine else 3)


def test_routes_that_match_no_or_little_mail_are_reported(run: Callable[..., Result], etc: Path) -> None:
    settings = etc / "smtpguard.yaml"
    route = "  - {{name: {name}, {mail}, relay: {{host: {name}.example.com{more}}}}}\n"
    rows = (
        ("partners", 'domains: [one.example, "*.two.example"]', ", fallbacks: [{host: other.example.com}]"),
        ("never", "lists: [newsletter], domains: [one.example]", ""),
        ("bulk", "lists: [newsletter, no-such-list]", ", ca_file: none.pem"),
    )
    lines = "".join(route.format(name=name, mail=mail, more=more) for name, mail, more in rows)
    edit(settings, "\nroutes: []", f"\nroutes:\n{lines}\n")
    edit(settings, "127.0.0.1, port: 10025}", "127.0.0.1, port: 10025, auth: {without_tls: true}}")
    result = run("check")
    assert result.exit_code == 1
    assert 'the policy has no list "no-such-list"' in result.stderr
    assert "there is no file" in result.stderr
    assert "none.pem" in result.stderr
    assert "route never gets no mail: the earlier route partners takes all of it" in result.stderr
    assert "route partners is not for clients that log in on 127.0.0.1:10025" in result.stderr
    edit(settings, ", no-such-list", "")
    edit(settings, ", ca_file: none.pem", "")
    said = run("check").stdout
    assert (
        "Route partners (domain one.example or *.two.example) relays to partners.example.com port 25, TLS opportunistic, "
        "then other.example.com port 25." in said
    )


def test_rates_of_senders_are_described(run: Callable[..., Result], etc: Path) -> None:
    rates = "{client: {recipients: 600 in 1m}, login: {messages: 1000 in 1h}}"
    settings = etc / "smtpguard.yaml"
    edit(settings, "127.0.0.1, port: 10025}", f"127.0.0.1, port: 10025, rates: {rates}}}")
    result = run("check")
    assert (
        "Takes on 127.0.0.1:10025 at most from a client 600 recipients in 1m, a login 1,000 messages in 1h."
        in result.stdout
    )
    assert "no client logs in here, and no MTA in trust names a login" in result.stderr


def test_a_milter_without_a_proxy_names_only_its_releases(run: Callable[..., Result], etc: Path) -> None:
    (etc / "smtpguard.yaml").write_text("listen: {smtp: [], milter: [{port: 10027}]}\nrelay: {port: 10026}\n")
    assert "Releases what is held to 127.0.0.1 port 10026, TLS opportunistic.\nA milter on" in run("check").stdout


def test_the_configuration_is_described(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "smtpguard.yaml", "  milter: []", "  milter: [{port: 10027}, {unix: /run/guard/milter.sock}]")
    with (etc / "smtpguard.yaml").open("a") as file:
        file.write('console: {port: 8125, url: "https://guard.example.com"}\nmetrics: {port: 9225}\n')
    said = run("check").stdout
    assert "A milter on 127.0.0.1 port 10027.\nA milter on /run/guard/milter.sock.\n" in said
    assert (
        "The console on 127.0.0.1 port 8125, as https://guard.example.com.\nMetrics on 127.0.0.1 port 9225.\n" in said
    )
    assert (
        "stream receipts: from noreply@example.com, proven by DKIM of shop.example.com and a client in 10.1.2.0/24, "
        "at most 20,000 in 1h, at most 20 to one person in 1d\n" in said
    )
    assert "thread.replies >= 5 in 10m; the conversation then rests for 6h\n" in said


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("when: {login: any}, then: alarm", "alarms where login is any"),
        ("when: {login: any}, then: alarm, mode: observe", "would alarm where login is any"),
        ("when: {login: any}, then: confirm, mode: observe", "would ask its writer about it where login is any"),
        ("when: {login: {matches: ^a}}, then: hold", "holds where login matches ^a"),
        (
            "when: {sender.address: {matches: a}}, unless: {login: {matches: b}}, then: hold, scope: customers",
            "holds the customers' part where sender.address matches a, unless login all match b",
        ),
    ],
)
def test_a_rule_is_said_in_words(run: Callable[..., Result], etc: Path, rule: str, said: str) -> None:
    edit(etc / "policy.yaml", "\nrules: ", f"\nrules:\n  - {{id: one, {rule}}} #")
    assert f"  rule one: {said}\n" in run("check").stdout


def test_files_and_ports_of_the_console_are_checked(run: Callable[..., Result], etc: Path) -> None:
    witness = '{url: "https://witness.example.com", token_file: token}'
    edit(etc / "smtpguard.yaml", "audit: {}", f"audit: {{witness: {witness}, timestamps: {{ca_file: tsa.pem}}}}")
    with (etc / "smtpguard.yaml").open("a") as file:
        file.write("console: {port: 10025, tls: {certificate: web.pem, key: web.key}}\n")
        file.write("mentions: {webhook: {name: press, secret_file: press.key}}\n")
    said = run("check").stderr.splitlines()
    assert [line.split(": ", 1)[1].split(":")[0] for line in said] == [
        f"there is no file {etc / 'token'}",
        f"there is no file {etc / 'tsa.pem'}",
        "127.0.0.1 port 10025 is listened on twice",
        f"there is no file {etc / 'web.pem'}",
        f"there is no file {etc / 'web.key'}",
        f"there is no file {etc / 'press.key'}",
    ]


def test_metrics_reachable_by_anyone_are_warned_about(run: Callable[..., Result], etc: Path) -> None:
    file = etc / "smtpguard.yaml"
    text = file.read_text()
    for address in ("0.0.0.0", "'::'", "8.8.8.8"):
        file.write_text(f"{text}metrics: {{port: 9225, address: {address}}}\n")
        done, shown = run("check"), address.strip("'")
        assert (done.exit_code, done.stderr) == (
            0,
            f"{file}:{text.count(chr(10)) + 1}:32: warning: metrics ask nobody for a password, and {shown} may be reached "
            "by anybody: expected a private address\n",
        )
    for address in ("10.0.0.9", "'fd00::9'", "127.0.0.1"):
        file.write_text(f"{text}metrics: {{port: 9225, address: {address}}}\n")
        done = run("check")
        assert (done.exit_code, done.stderr) == (0, ""), address
    file.write_text(f"{text}console: {{port: 9125}}\nmetrics: {{}}\n")
    done = run("check")
    assert (done.exit_code, "127.0.0.1 port 9125 is listened on twice" in done.stderr) == (1, True)


def test_live_probes_the_relay_although_a_list_is_missing(run: Callable[..., Result], etc: Path) -> None:
    (etc / "lists" / "ramadan.csv").unlink()
    result = run("check", "--live")
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr
    assert "the relay 127.0.0.1 port" in result.stdout


def test_live_fails_if_the_relay_does_not_answer(run: Callable[..., Result], etc: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        edit(etc / "smtpguard.yaml", "port: 10026", f"port: {taken.getsockname()[1]}")
        edit(etc / "policy.yaml", "lists:\n  ramadan-greetings:", "lists: {}\nunused:\n  ramadan-greetings:")
        text = (etc / "policy.yaml").read_text()
        (etc / "policy.yaml").write_text(text[: text.index("unused:")] + text[text.index("streams:") :])
        result = run("check", "--live", "--json")
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert any(row["about"] == "relay" and row["state"] == "wrong" for row in rows)


def test_live_needs_settings(run: Callable[..., Result], etc: Path) -> None:
    result = run("check", "--live", str(etc / "policy.yaml"))
    assert result.exit_code == 2
    assert "--live needs the settings" in result.stderr


def test_with_an_invalid_policy_the_relay_is_not_probed(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "policy.yaml", "then: hold", "then: hodl")
    result = run("check", "--live")
    assert (result.exit_code, result.stdout) == (1, "")


def test_the_test_cases_of_the_policy_are_run(run: Callable[..., Result], etc: Path) -> None:
    result = run("test", str(SUITE))
    assert result.exit_code == 0
    assert result.stdout.endswith("cases, all as expected.\n")

    edit(
        etc / "policy.yaml",
        "recipients.list_addresses: any}\n    then: hold",
        "recipients.list_addresses: '>= 2'}\n    then: hold",
    )
    result = run("test", str(SUITE))
    assert result.exit_code == 1
    assert "internal-to-list did not hit: recipients.list_addresses is 1, the condition >= 2" in result.stdout
    rows = [json.loads(line) for line in run("test", "--json", str(SUITE / "sample.yaml")).stdout.splitlines()]
    assert not all(r["ok"] for r in rows)
    assert run("test", "--policy", str(shipped() / "policy.yaml"), str(SUITE)).exit_code == 0


def test_unusable_test_cases_are_an_error(run: Callable[..., Result], etc: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words in (["none.yaml"], [str(tmp_path / "empty")], [], ["--policy", "none.yaml", str(SUITE)]):
        assert run("test", *words).exit_code == 2
    bad = tmp_path / "bad.yaml"
    bad.write_text("cases: [{name: a, expect: hodl}]")
    result = run("test", str(bad))
    assert result.exit_code == 2
    assert "(did you mean hold?)" in result.stderr


def test_the_notices_sender_and_custom_templates_are_checked(run: Callable[..., Result], etc: Path) -> None:
    templates = etc / "templates"
    templates.mkdir()
    (templates / "held.sv.j2").write_text("{% set subject = 'Stoppat' %}\n{{ d.subject }}")
    edit(etc / "smtpguard.yaml", "notices: {", "notices: {templates: templates, ")
    assert run("check").exit_code == 0
    (templates / "held.sv.j2").write_text("{% if %}")
    (templates / "decided.en.j2").write_text("{{ no.such.thing }}")
    edit(etc / "smtpguard.yaml", 'from: "Mail guard <smtpguard@example.com>"', 'from: "The mail guard"')
    result = run("check")
    assert result.exit_code == 1
    said = [line.rpartition("/")[2] for line in result.stderr.splitlines()]
    assert [line.split(":")[0] for line in said] == ["smtpguard.yaml"] * 3
    assert "decided.en.j2" in said[0]
    assert "held.sv.j2" in said[1]
    assert "not the mailbox of a sender" in said[2]


def test_times_of_minutes_that_may_be_meant_as_months_are_reported(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "smtpguard.yaml", "content: 30d, addresses: 90d", "content: 1m, addresses: 3M")
    edit(
        etc / "smtpguard.yaml", "expires: 24 working hours, escalate_after: 1h", "expires: 30 min, escalate_after: 10m"
    )
    result = run("check")
    assert result.exit_code == 0
    said = [line.partition("warning: ")[2] for line in result.stderr.splitlines()]
    assert said[-3:] == [
        'a hold expires after 30 minutes if nobody decides: expected days, like "30d"',
        'the content of a hold is erased 1 minute after its end: expected days, like "30d"',
        'the journal\'s addresses are erased after 3 minutes: expected days, like "30d"',
    ]


def test_a_sender_that_needs_smtputf8_is_an_error(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "smtpguard.yaml", "<smtpguard@example.com>", "<vakt@räksmörgås.example>")
    assert run("check").exit_code == 0
    edit(etc / "smtpguard.yaml", "<vakt@räksmörgås.example>", "<vård@example.com>")
    result = run("check")
    assert result.exit_code == 1
    assert "without SMTPUTF8 would take no notice" in result.stderr


def test_changed_marks_are_shown_with_their_weight(run: Callable[..., Result], etc: Path) -> None:
    assert "mark " not in run("check").stdout
    own = """marks: {reply-prefix: 1.5, campaign-header: 0, draft: 7, test: 0}
own_marks:
  project: {side: internal, weight: 6, term: project heron}
  tool: {side: mailing, weight: 3, header: X-Our-Tool}
  number: {side: internal, weight: 1, pattern: "PT-[0-9]+"}
"""
    edit(etc / "policy.yaml", "version: 1\n", f"version: 1\n{own}")
    result = run("check")
    assert "warning: draft is shown and weighs nothing (0 switches it off)\n" in result.stderr
    said = result.stdout
    assert "mark draft: shown, and weighs nothing; " in said
    assert "mark test: switched off; " in said
    assert "mark reply-prefix: +1.5 instead of +2; " in said
    assert "mark campaign-header: switched off instead of -2.5; " in said
    assert 'mark project, your own: +6 where the subject or the text says "project heron"' in said
    assert "mark tool, your own: -3 where the field X-Our-Tool is there" in said
    assert "mark number, your own: +1 where the subject or the text matches PT-" in said


@pytest.mark.parametrize("rules", ["", "rules: []\n"])
def test_a_policy_without_rules_is_warned_about(run: Callable[..., Result], etc: Path, rules: str) -> None:
    """A policy that lost its rules can be put in force, but not without a warning."""
    asyncio.run(prepare(read_settings(etc / "smtpguard.yaml"), by="test", parts=()))
    policy = etc / "policy.yaml"
    policy.write_text(policy.read_text().partition("\nrules:")[0] + "\nmarks: {}\n" + rules)
    said = "warning: no rules: the guard holds nothing\n"
    checked = run("check")
    assert (checked.exit_code, checked.stderr.endswith(said)) == (0, True)
    assert run("check", "--fail-on-warning").exit_code == 1
    assert run("reload", "--yes", "--fail-on-warning").exit_code == 1
    reloaded = run("reload", "--yes")
    assert (reloaded.exit_code, reloaded.stderr.endswith(said)) == (0, True)
    again = run("reload").stdout
    assert again.endswith("was in force already; smtpguard.yaml is read when serve starts\n")


_HOOK = '{url: "https://chat.example.com", secret_file: '


def test_errors_that_would_show_only_in_use_are_reported(run: Callable[..., Result], etc: Path) -> None:
    etc.chmod(0o700)  # or others could read these secrets
    (etc / "none").touch()
    (etc / "short").write_text("secret")
    for old, new, told in (
        ("dkim_sign: {}", "dkim_sign: {domain: example.com, selector: a, key_file: policy.yaml}", "policy.yaml: "),
        ("secret_file: var/secret", "secret_file: policy.yaml", "policy.yaml does not hold 32 octets"),
        ("freeze_hook: []", "freeze_hook: [[/no/such/hook, now]]", "/no/such/hook is no program that can be run"),
        ("thaw_hook: []", "thaw_hook: [no-such-hook]", "no-such-hook is no program that can be run"),
        ("tls: opportunistic,", "tls: require, ca_file: policy.yaml,", "policy.yaml: no certificates in PEM"),
        ("tls: opportunistic,", "auth: {user: a, password_file: none},", "none is empty"),
        ("webhooks: []", f"webhooks: [{_HOOK}none, events: [freeze.set]}}]", "none:1:1: is empty"),
        ("webhooks: []", f"webhooks: [{_HOOK}short, events: [freeze.set]}}]", "secret has at least 16 characters"),
        ("alarms: {", f"alarms: {{webhook: {_HOOK}none}}, ", "none is empty"),
        ("audit: {}", 'audit: {witness: {url: "https://w.example.com", token_file: none}}', "none is empty"),
        ("audit: {}", "audit: {timestamps: {ca_file: policy.yaml}}", "policy.yaml: no certificates in PEM"),
    ):
        edit(etc / "smtpguard.yaml", old, new)
        result = run("check")
        (line,) = result.stderr.splitlines()
        assert (result.exit_code, told in line) == (1, True), line
        edit(etc / "smtpguard.yaml", new, old)


def test_a_threshold_above_all_list_members_is_warned_about(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "policy.yaml", 'mailing.customers: ">= 200"', 'mailing.customers: ">= 200000"')
    result = run("check")
    assert result.exit_code == 0
    assert "warning: rule unapproved-mailing can never hit: all lists together have 180 people" in result.stderr


def test_writers_without_proof_of_origin_are_warned_about(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "policy.yaml", "    origin: {dkim: campaigns.example.com}", "")
    edit(etc / "smtpguard.yaml", "trust: [", "trust: [] # [")
    told = "warning: no sender can be verified as a writer of ramadan-greetings: it has no origin, and no listener has auth or senders_verified"
    assert told in run("check").stderr
    edit(etc / "smtpguard.yaml", "port: 10025", "port: 10025, senders_verified: true")
    assert told not in run("check").stderr


def test_each_rule_that_can_ask_no_writer_is_named(folder: Path) -> None:
    rules = "".join(f"  - {{id: {name}, when: {{recipients.total: any}}, then: confirm}}\n" for name in ("a", "b"))
    (folder / "policy.yaml").write_text(POLICY + rules)
    told = check(folder).stderr
    for place, name in (("17:50", "a"), ("18:50", "b")):
        at = f"policy.yaml:{place}: warning: rule {name}"
        assert f"{at} cannot ask any writer, so it holds every message that it hits: no listener has auth" in told
        assert f"{at} asks writers, but they have no page to answer on: console has no url" in told


def test_a_listener_that_the_settings_do_not_have_is_named(run: Callable[..., Result], etc: Path) -> None:
    edit(etc / "smtpguard.yaml", "port: 10025", "port: 10025, name: inside")
    rule = "\n  - {id: one, when: {recipients.total: any}, unless: {listener: [inside, %s]}, then: hold}\n"
    edit(etc / "policy.yaml", "\n# yaml-language-server", rule % "insied" + "# yaml-language-server")
    assert "warning: the settings have no listener insied (did you mean inside?)" in run("check").stderr
    edit(etc / "policy.yaml", "insied", "outer")
    assert "warning: the settings have no listener outer: expected inside" in run("check").stderr


def test_files_beside_the_policy_that_are_not_read_are_named(run: Callable[..., Result], etc: Path) -> None:
    for name in ("lists.d/press.yml", "policy.d/More.YAML", "policy.d/notes.txt", "vocabularies/wine.yml"):
        (etc / name).parent.mkdir(exist_ok=True)
        (etc / name).write_text("rules: []\n")
    told = run("check").stderr.splitlines()
    assert [line.partition(etc.name)[2] for line in told] == [
        f"/{name}:1:1: warning: this file is not read: its name does not end in .yaml"
        for name in ("lists.d/press.yml", "policy.d/More.YAML", "vocabularies/wine.yml")
    ]


def test_rows_without_an_address_are_counted(run: Callable[..., Result], etc: Path) -> None:
    with (etc / "lists/ramadan.csv").open("a") as csv:
        csv.write("nobody,\n" * 2)
    said = run("check").stdout
    assert "60 addresses (2 rows hold none)" in said
    assert "    written by campaigns@example.com, proven by DKIM of campaigns.example.com" in said


def test_the_shipped_files_conform_to_their_schema(run: Callable[..., Result], etc: Path) -> None:
    for what, file in (("settings", "smtpguard.yaml"), ("policy", "policy.yaml")):
        schema = json.loads(run("schema", what).stdout)
        assert schema["title"] == f"smtpguard {what}"
        jsonschema.Draft202012Validator(schema).validate(load_yaml(etc / file).value)


POLICY = """\
organization: {name: Example AB, domains: [example.com]}
groups: {communications: [eva@example.com]}
approvals: {from: [communications]}
expansions:
  - {aliases: aliases, domains: [example.com]}
  - {mailman: "http://127.0.0.1:1/3.1", password_file: secret}
lists:
  crm:
    addresses: [crm@lists.example.com]
    members: {sql: "postgresql://reader@127.0.0.1:1/crm", query: "SELECT email FROM customers", password_file: secret}
  everybody:
    addresses: [everybody@lists.example.com]
    members: [{csv: shop.csv}, {list: crm}]
rules:
  - {id: one, when: {recipients.list_addresses: any}, then: hold}
  - {id: many, when: {message.looks: [internal, unclear], mailing.customers: ">= 20"}, then: hold}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "smtpguard.yaml").write_text(WATCHED)
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "shop.csv").write_text("email\na@kund.se\n")
    (tmp_path / "aliases").write_text("all: a@kund.se\n")
    (tmp_path / "secret").write_text("of tests")
    return tmp_path


def check(folder: Path) -> Result:
    return running("check")(folder)


def test_remote_sources_are_not_contacted(folder: Path) -> None:
    done = check(folder)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "list crm: crm@lists.example.com; addresses elsewhere (see check --live)" in done.stdout
    assert "list everybody: everybody@lists.example.com; 1 address, more elsewhere" in done.stdout
    assert "expansions: aliases aliases" in done.stdout
    assert "expansions: mailman http://127.0.0.1:1/3.1" in done.stdout


def test_a_source_that_sync_would_refuse_is_an_error(folder: Path) -> None:
    (folder / "shop.csv").write_text("email\na@kund.se\n" + "b@kund.se@\n" * 4)
    done = check(folder)
    assert done.exit_code == 1
    assert "policy.yaml:13:21: shop.csv: 4 of 5 rows hold no address (the first: line 3: " in done.stderr
    assert "b@kund.se" not in done.stderr
    (folder / "policy.yaml").write_text(POLICY.replace("{csv: shop.csv}", "{csv: shop.csv, max_bad: 0.5}"))
    assert "policy.yaml:13:40: shop.csv: 4 of 5" in check(folder).stderr
    (folder / "policy.yaml").write_text(POLICY.replace("{csv: shop.csv}", "{csv: shop.csv, max_bad: 0.9}"))
    assert check(folder).exit_code == 0


def test_a_map_that_sync_would_refuse_is_an_error(folder: Path) -> None:
    (folder / "aliases").write_text("all: a@kund.se\n" + "".join(f"wrong{n}: a@@kund.se\n" for n in range(4)))
    assert (
        "policy.yaml:5:15: aliases: 4 of 5 lines are invalid (the first: line 2: not a mailbox" in check(folder).stderr
    )


def test_what_no_map_and_no_message_can_name_is_an_error(folder: Path) -> None:
    """A map of *.example.com would name no address, so its aliases would expand to nobody."""
    text = POLICY.replace("domains: [example.com]}\n  -", 'domains: [example.com, "*.example.com"]}\n  -').replace(
        "[{csv: shop.csv}, ", "[{csv: shop.csv}, {aliases: aliases, name: all, domain: a@b}, "
    )
    ids = "    list_ids: [good.example.com, <good2.example.com>, News <bad.example.com>, '']\nrules:"
    (folder / "policy.yaml").write_text(text.replace("rules:", ids))
    done = check(folder)
    assert done.exit_code == 1
    assert [line.partition("policy.yaml:")[2].partition(": expected")[0] for line in done.stderr.splitlines()] == [
        '5:47: invalid domain name "*.example.com"',
        '13:70: invalid domain name "a@b"',
        '14:55: invalid List-Id "News <bad.example.com>"',
        '14:79: invalid List-Id ""',
    ]  # fmt: skip


def test_names_that_conditions_have_for_something_else_are_errors(folder: Path) -> None:
    """recipients.lists: none is mail to no list, and never mail to a list called none."""
    text = POLICY.replace("lists:\n", "lists:\n  none: {addresses: [none@lists.example.com], audience: any}\n"
                          "  special-category: {addresses: [special@lists.example.com]}\n", 1)  # fmt: skip
    streams = "streams:\n  any: {from: [shop@example.com], origin: {clients: [10.0.0.9]}}\n"
    streams += "  special-category: {from: [bills@example.com], origin: {clients: [10.0.0.9]}}\n"
    (folder / "policy.yaml").write_text(
        text.replace("rules:", f"{streams}own_marks: {{none: {{side: internal, weight: 1, term: x}}}}\nrules:")
    )
    (folder / "vocabularies").mkdir()
    (folder / "vocabularies" / "any.yaml").write_text("groups: [{language: en, terms: [bacon]}]\n")
    done = check(folder)
    assert done.exit_code == 1
    told = [line.partition(f"{folder.name}/")[2] for line in done.stderr.splitlines() if ": warning: " not in line]
    said = "the name {} is reserved: in conditions it means something else: expected another name"
    assert told == [
        f"{place}: {said.format(name)}"
        for place, name in (
            ("policy.yaml:8:3", "none"),
            ("policy.yaml:8:57", "any"),
            ("policy.yaml:9:3", "special-category"),
            ("policy.yaml:17:3", "any"),
            ("policy.yaml:19:13", "none"),
            ("vocabularies/any.yaml:1:1", "any"),
        )
    ]


@every(
    ("usual", "own", "told"),
    [
        ("{stops: lists}", "{}", ["7:12"]),
        ("{stops: lists}", "{stops: mailing}", ["7:12", "15:16"]),
        ("{stops: lists}", "{bounces: '>= 5'}", []),
        ("{stops: lists}", "{bounces: '>= 5', stops: mailing}", ["7:12"]),
        ("{bounces: '>= 5'}", "{stops: lists}", []),
        ("{bounces: '>= 5', stops: lists}", "{}", []),
        ("{}", "{stops: lists}", ["15:16"]),
    ],
)
def test_breakers_without_a_bound_are_errors(folder: Path, usual: str, own: str, told: list[str]) -> None:
    text = POLICY.replace("rules:", f"    breakers: {own}\nrules:").replace(
        "lists:\n", f"breakers: {usual}\nlists:\n", 1
    )
    (folder / "policy.yaml").write_text(text)
    done = check(folder)
    said = ': stops without a bound stops nothing: expected a bound beside it, like complaints: ">= 0.1% after 500"'
    assert [line.partition("policy.yaml:")[2] for line in done.stderr.splitlines()] == [place + said for place in told]


def test_missing_files_are_errors(folder: Path) -> None:
    for name in ("secret", "aliases", "shop.csv"):
        (folder / name).unlink()
    done = check(folder)
    assert done.exit_code == 1
    told = [line.partition("policy.yaml:")[2] for line in done.stderr.splitlines()]
    assert [line.partition(": ")[0] for line in told] == ["5:15", "6:56", "10:112", "13:21"]
    assert "No such file" in told[0]
    assert "there is no file" in told[1]
    assert "expected a file that is there" in told[2]


def test_systemd_credentials_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "policy.yaml").write_text(POLICY.replace("secret", "$CREDENTIALS_DIRECTORY/crm"))
    assert "CREDENTIALS_DIRECTORY is not set" in check(folder).stderr
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    (folder / "crm").write_text("of tests")
    assert check(folder).exit_code == 0


def test_a_map_of_patterns_is_an_error(folder: Path) -> None:
    (folder / "aliases").write_text("/^all/ a@kund.se\n")
    assert "policy.yaml:5:15: " in check(folder).stderr
    assert "a map of patterns" in check(folder).stderr


@pytest.mark.parametrize("indexed", [False, True], ids=["without index", "with index"])
def test_addresses_that_count_as_a_list_by_name_are_shown(tmp_path: Path, indexed: bool) -> None:
    async def happens(home: House) -> None:
        home.clock.at = datetime.now(UTC) - timedelta(days=32)
        intake = home.intake()
        await intake(home.transaction("ramadan@example.com", Message_ID="<old@example.com>"), FakePassage())
        home.clock.pass_(days=31)
        for n in range(3):
            await intake(home.transaction("ramadan@example.com", Message_ID=f"<{n}@example.com>"), FakePassage())
            await intake(home.transaction("bo@example.com", Message_ID=f"<b{n}@example.com>"), FakePassage())
        if indexed:
            while await home.store.journal.index():
                pass

    installed = prepared_installation(tmp_path, happens)
    for name in ("ramadan", "news"):
        (installed / f"{name}.csv").write_text("email\n" + "".join(f"{member}\n" for member in MEMBERS))
    settings = installed / "smtpguard.yaml"
    (installed / "checkpoints").touch()
    result = CliRunner().invoke(main, ["-c", str(settings), "check"])
    lines = result.stdout.splitlines()
    assert "    by the same name also ramadan@example.com" in lines
    assert (
        "odd   ramadan@example.com counts as the list ramadan, and 3 messages name it in 30 days; if it is something else: "
        "addresses_elsewhere: [ramadan@example.com] at the list"
    ) in lines
    assert "ok    as lists count news@example.com, which no message names in 30 days" in lines

    change(installed, ("    addresses: [ramadan@lists.example.com]\n",
                       "    addresses: [ramadan@lists.example.com]\n    addresses_elsewhere: [ramadan@example.com]\n"))  # fmt: skip
    result = CliRunner().invoke(main, ["-c", str(settings), "check"])
    assert "counts as the list ramadan" not in result.stdout
