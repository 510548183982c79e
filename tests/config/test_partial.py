"""What is read of settings with mistakes elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.config.problem import Broken
from smtpguard.config.settings import STORE, read_needed
from tests.every import every

FINE = """\
# the guard
store: {url: "sqlite:////var/lib/smtpguard/guard.db"}
state: /var/lib/smtpguard
secret_file: /etc/smtpguard/secret
freeze: {thaw: two}
relay:
  host: relay.example.com
  port: 2525
"""


def read_partly(tmp_path: Path, text: str) -> tuple[object, ...]:
    path = tmp_path / "smtpguard.yaml"
    path.write_text(text)
    settings, problems = read_needed(path, STORE | {"freeze"})
    assert settings.store.url == "sqlite:////var/lib/smtpguard/guard.db"
    assert settings.state == Path("/var/lib/smtpguard")
    assert settings.freeze.thaw == "two"
    return settings.relay.host, [(problem.line, problem.text.split(",")[0]) for problem in problems]


def test_valid_settings_have_no_ignored_parts(tmp_path: Path) -> None:
    assert read_partly(tmp_path, FINE) == ("relay.example.com", [])


@every(
    ("text", "host", "said"),
    [
        (FINE.replace("port: 2525", "prot: 2525"), "127.0.0.1", [(8, 'unknown key "prot"')]),
        (FINE + "loging: {format: json}\n", "relay.example.com", [(9, 'unknown key "loging"')]),
        (FINE + "workers: many\nlimits: {recipients: 0}\n", "relay.example.com", [(9, "text for workers"), (10, "0 for recipients")]),
        (FINE + "listen: {smtp: [\n", "relay.example.com", [(10, "not YAML: while parsing a flow node")]),
        (FINE + "notices:\n\tfrom: x\n", "relay.example.com", [(10, "not YAML: while scanning for the next token")]),
        (FINE + "hostname: a: b\n", "relay.example.com", [(9, "not YAML: mapping values are not allowed in this context")]),
        (FINE + "listen: {smtp: [{proxy: true}]}\n", "127.0.0.1", [(2, "a listener says proxy: true")]),
        (FINE + "relay: {port: 1}\n", "relay.example.com", [(9, 'duplicate key "relay": first on line 6')]),
    ],
)  # fmt: skip
def test_an_error_elsewhere_is_reported_and_ignored(
    text: str, host: str, said: list[tuple[int, str]], tmp_path: Path
) -> None:
    found, told = read_partly(tmp_path, text)
    assert isinstance(told, list)
    assert [line for line, _ in told] == [line for line, _ in said]
    assert all(text.startswith(start) for (_, text), (_, start) in zip(told, said, strict=True)), told
    assert found == host


@every(
    "text",
    [
        FINE.replace("url:", "ulr:"),
        FINE.replace("store:", "stroe:"),
        FINE.replace("store:", "store"),
        FINE.replace("state: /var", "state = /var"),
        FINE.replace("thaw: two", "thaw: three"),
        FINE + "store: {}\n",
        "{" + FINE.partition("\n")[2].replace("\n", ",") + "workers: many}",
        "no settings at all",
        "relay: {prot: 1}\nstore {url: x}\n",
    ],
)
def test_an_error_in_or_near_a_needed_part_is_fatal(text: str, tmp_path: Path) -> None:
    """A mistake in or near the needed settings is an error: a freeze must not go to another store."""
    path = tmp_path / "smtpguard.yaml"
    path.write_text(text)
    with pytest.raises(Broken):
        read_needed(path, STORE | {"freeze"})


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="cannot be read"):
        read_needed(tmp_path / "none.yaml", STORE)
