"""The settings that a freeze reads without the models equal those of the models, or are None; and what is read of settings with mistakes
elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from smtpguard.config.brief import NAMES, STORE, read_brief
from smtpguard.config.partial import read_needed
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Needed, Settings, read_settings

VALUES: dict[str, list[Any]] = {
    "store": [
        {}, None, {"url": "sqlite:///guard.db"}, {"url": "sqlite:////var/lib/guard.db"}, {"url": "sqlite://"}, {"url": "mysql://x/y"},
        {"url": "postgresql://guard@db.example.com:5432/guard", "password_file": "db"}, {"url": "postgresql:///guard?host=/run/pg"},
        {"url": "postgresql://one,two/guard"}, {"url": "postgresql://guard:secret@db/guard"}, {"url": 5}, {"ulr": "x"},
        {"url": "sqlite:///:memory:"}, {"password_file": None}, {"password_file": "$CREDENTIALS_DIRECTORY/db"}, "x",
    ],
    "state": ["var", "/var/lib/smtpguard", "", None, 5, "$CREDENTIALS_DIRECTORY/state", "a\0b"],
    "secret_file": ["secret", "/etc/secret", "", "$CREDENTIALS_DIRECTORY/secret"],
    "delimiters": ["+", "+-", {"*": "+"}, "abc", None],
    "freeze_hook": [[], ["postsuper", "-h", "ALL"], [["a"], ["b", "c"]], ["a", ""], [[]], "postsuper", None, [["a"], "b"]],
    "freeze": [{"thaw": "two"}],
    "workers": [2, "many"],
    "stat": ["var"],
}  # fmt: skip
TEXTS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})


def test_it_knows_all_settings() -> None:
    assert {field.alias or name for name, field in Settings.model_fields.items()} == NAMES


@examples(deadline=None, max_examples=300)
@given(TEXTS)
def test_it_reads_what_the_models_read(tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> None:
    folder = tmp_path_factory.getbasetemp() / "brief"
    folder.mkdir(exist_ok=True)
    path = folder / "smtpguard.yaml"
    path.write_text(yaml.safe_dump(document))
    brief = read_brief(path)
    if brief is None:
        return
    text = yaml.safe_dump({name: value for name, value in document.items() if name != "workers"})
    path.write_text(text)
    whole = read_settings(path, {})  # without the mistake, which a freeze ignores
    assert read(brief) == read(whole)


def read(settings: Needed) -> tuple[Any, ...]:
    store = settings.store
    return (store.url, store.password_file, settings.state, settings.secret_file, settings.delimiters, settings.freeze_hook)  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"store": {"url": "sqlite:///guard.db"}, "state": "var", "secret_file": "secret"},
        {"store": {"url": "postgresql://guard@db.example.com/guard", "password_file": "db"}},
        {"freeze_hook": ["postsuper", "-h", "ALL"], "workers": "many"},
    ],
)
def test_plain_settings_are_read(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "smtpguard.yaml"
    path.write_text(yaml.safe_dump(document))
    assert read_brief(path) is not None


@pytest.mark.parametrize("text", ["store: {url: 'sqlite:///a'}\nstore: {}\n", "stroe: {}\n", "[]", "a: b: c", "\xff"])
def test_unusual_settings_give_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "smtpguard.yaml"
    path.write_bytes(text.encode("latin-1"))
    assert read_brief(path) is None
    assert read_brief(tmp_path / "none.yaml") is None
    with pytest.raises(Broken):
        read_settings(path, {})


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
    settings, problems = read_needed(path, STORE | {"freeze"}, {})
    assert settings.store.url == "sqlite:////var/lib/smtpguard/guard.db"
    assert settings.state == Path("/var/lib/smtpguard")
    assert settings.freeze.thaw == "two"
    return settings.relay.host, [(problem.line, problem.text.split(",")[0]) for problem in problems]


def test_valid_settings_have_no_ignored_parts(tmp_path: Path) -> None:
    assert read_partly(tmp_path, FINE) == ("relay.example.com", [])


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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
        read_needed(path, STORE | {"freeze"}, {})


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="cannot be read"):
        read_needed(tmp_path / "none.yaml", STORE, {})
