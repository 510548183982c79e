"""smtpguard check of list sources: files are read; of remote sources only the local files that they need."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smtpguard.cli import main

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
    (tmp_path / "smtpguard.yaml").write_text(
        'policy: policy.yaml\nnotices: {contact: "it@example.com"}\nalarms: {relay: {host: other.example.com}}\n'
    )
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "shop.csv").write_text("email\na@kund.se\n")
    (tmp_path / "aliases").write_text("all: a@kund.se\n")
    (tmp_path / "secret").write_text("of tests")
    return tmp_path


def check(folder: Path) -> Result:
    return CliRunner().invoke(main, ["-c", str(folder / "smtpguard.yaml"), "check"])


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
