"""The daemon's settings: defaults, paths, secrets, and values that are never shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from smtpguard.config.documents import shipped
from smtpguard.config.durations import Span, in_short, seconds, span
from smtpguard.config.fields import read_secret
from smtpguard.config.problem import Broken
from smtpguard.config.schema import settings_schema
from smtpguard.config.settings import Settings, read_settings, settings_of
from smtpguard.config.yaml import load_yaml
from tests.every import every

BASE = Path("/etc/smtpguard")


def read(text: str, environ: dict[str, str] | None = None) -> Settings:
    return settings_of(load_yaml(text, "smtpguard.yaml"), BASE, environ or {})


def test_the_shipped_file_has_the_defaults() -> None:
    written = read_settings(shipped() / "smtpguard.yaml", {})
    default = settings_of(load_yaml(""), shipped(), {})
    assert written.model_copy(update={"notices": default.notices}) == default


def test_paths_are_relative_to_the_file() -> None:
    settings = read("policy: ../policy.yaml\nstate: /var/lib/smtpguard\n")
    assert settings.policy == BASE / "../policy.yaml"
    assert settings.state == Path("/var/lib/smtpguard")
    assert settings.secret_file == BASE / "var/secret"


@every(
    ("url", "absolute"),
    [
        ("sqlite:///var/a.db", "sqlite:////etc/smtpguard/var/a.db"), ("sqlite:////srv/a.db", "sqlite:////srv/a.db"),
        ("postgresql://guard@db/guard", "postgresql://guard@db/guard"),
        ("postgresql+psycopg://guard@db/guard", "postgresql+psycopg://guard@db/guard"),
    ],
)  # fmt: skip
def test_an_sqlite_path_is_relative_to_the_file(url: str, absolute: str) -> None:
    assert read(f"store: {{url: '{url}'}}").store.url == absolute


def test_spaces_around_a_url_are_no_part_of_it() -> None:
    """Behind https://guard.example.com and a space every link in a notice would be broken."""
    settings = read(
        "console: {url: 'https://guard.example.com '}\nwebhooks: [{url: ' https://hooks.example.com/x', secret_file: hook, events: [freeze.set]}]"
    )
    assert settings.console is not None
    assert settings.console.url == "https://guard.example.com"
    assert settings.webhooks[0].url == "https://hooks.example.com/x"


def test_a_relative_settings_file_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smtpguard.yaml").write_text("workers: 1")
    monkeypatch.chdir(tmp_path)
    assert read_settings(Path("smtpguard.yaml"), {}).policy == tmp_path / "policy.yaml"


@pytest.mark.parametrize("text", ["", "# relay: {host: relay.example.com}\n", "{}"])
def test_an_emptied_file_is_no_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "smtpguard.yaml").write_text(text)
    with pytest.raises(Broken, match="the file has no settings"):
        read_settings(tmp_path / "smtpguard.yaml", {})


@pytest.mark.parametrize("spelling", ["$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}"])
def test_systemd_credentials_are_found(spelling: str) -> None:
    text = f"relay: {{tls: require, auth: {{user: guard, password_file: '{spelling}/relay'}}}}"
    auth = read(text, {"CREDENTIALS_DIRECTORY": "/run/credentials/smtpguard"}).relay.auth
    assert auth is not None
    assert auth.password_file == Path("/run/credentials/smtpguard/relay")


def test_a_command_outside_of_the_unit_has_no_credentials(tmp_path: Path) -> None:
    """Nor can it make one, such as a new secret of the installation."""
    file = tmp_path / "smtpguard.yaml"
    file.write_text("relay: {auth: {user: guard, password_file: $CREDENTIALS_DIRECTORY/relay}}\n")
    auth = read_settings(file, {}).relay.auth
    assert auth is not None
    with pytest.raises(Broken, match=r"/\$CREDENTIALS_DIRECTORY/relay:1:1: CREDENTIALS_DIRECTORY is not set: systemd"):
        read_secret(auth.password_file)
    with pytest.raises(NotADirectoryError):
        auth.password_file.parent.mkdir(parents=True)


def test_a_hook_is_one_command_or_several() -> None:
    assert read("freeze_hook: [/bin/stop, all]").freeze_hook == (("/bin/stop", "all"),)
    assert read("freeze_hook: [[/bin/stop, all], [/bin/tell]]").freeze_hook == (("/bin/stop", "all"), ("/bin/tell",))
    assert read("freeze_hook: []").freeze_hook == ()


def test_networks_are_parsed() -> None:
    assert [str(n) for n in read("trust: [10.0.0.1, '2001:db8::/32', 10.1.2.3/24]").trust] == [
        "10.0.0.1/32",
        "2001:db8::/32",
        "10.1.2.0/24",
    ]
    assert [str(n) for n in read("expanders: 10.0.0.9").expanders] == ["10.0.0.9/32"]


def test_no_error_shows_a_secret() -> None:
    text = """
relay: {host: 5, auth: {user: guard, password: hunter2}}
store: {url: "postgresql://guard:hunter2@db/guard", password: hunter2}
dkim_sign: hunter2
notices: hunter2
console: {url: "hunter2"}
limits: {recipients: hunter2}
"""
    with pytest.raises(Broken) as found:
        read(text)
    assert len(found.value.problems) >= 7
    assert "hunter2" not in str(found.value)
    assert "hunter2" not in json.dumps([p.row() for p in found.value.problems])


def test_errors_as_json() -> None:
    with pytest.raises(Broken) as found:
        read("listn: {}")
    (problem,) = found.value.problems
    row = problem.row()
    assert (row["file"], row["line"], row["column"], row["text"]) == (
        "smtpguard.yaml",
        1,
        1,
        'unknown key "listn" (did you mean listen?)',
    )
    assert set(row) == {"file", "line", "column", "text", "expected"}


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="cannot be read: No such file"):
        read_settings(tmp_path / "none.yaml", {})


def test_a_secret_is_read_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    assert read_secret(path) == "hunter2"


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "is not UTF-8"), (b"x" * 70_000, "too large")],
)
def test_an_invalid_secret_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(Broken, match=why):
        read_secret(path)
    with pytest.raises(Broken, match="cannot be read"):
        read_secret(tmp_path / "none")


@every(
    ("text", "length"),
    [("15m", 900), ("2h 30m", 9000), ("30d", 2_592_000), ("1 week", 604_800), ("1.5h", 5400), ("90 Seconds", 90)],
)
def test_durations_are_parsed(text: str, length: int) -> None:
    assert seconds(text) == length
    assert span(text) == Span(length)


@every("text", ["", "15", "m", "15 m 3", "-1h", "0s", "1y", "1h,", "101 w 9999999d", "24 working", "1_0m"])
def test_invalid_durations_are_refused(text: str) -> None:
    for read_it in (seconds, span):
        with pytest.raises(ValueError, match=r"invalid duration|too long"):
            read_it(text)


def test_working_hours_are_parsed() -> None:
    assert span("24 working hours") == Span(86_400, working=True)
    assert span("1 working hour") == Span(3600, working=True)
    for text in ("0 working hours", "200000 working hours"):
        with pytest.raises(ValueError):
            span(text)


def test_the_schema_closes_every_section() -> None:
    schema = settings_schema()
    assert schema["additionalProperties"] is False
    assert {"listen", "relay", "store", "freeze_hook"} <= schema["properties"].keys()
    assert all(d.get("additionalProperties") is False for d in schema["$defs"].values() if d.get("type") == "object")


@every(
    ("written", "means"),
    [
        ('"+"', "+"),
        ('""', ""),
        ('{"*": "+-", qmail.example: "-"}', "+- qmail.example=-"),
        ("{qmail.example: '-'}", "+ qmail.example=-"),
        (
            "{B.example: '=', \"*.a.example\": '', bücher.example: '-'}",
            "+ *.a.example= b.example== xn--bcher-kva.example=-",
        ),
    ],
)
def test_delimiters_may_differ_by_domain(written: str, means: str) -> None:
    assert read(f"delimiters: {written}\n").delimiters == means


@given(st.integers(1, 10**8))
def test_a_short_duration_reads_back_the_same(length: int) -> None:
    assert seconds(in_short(length)) == length
    assert in_short(5400) == "1h 30m"


def test_every_setting_is_documented() -> None:
    """Each setting is in the sample settings or on a page."""
    top = Path(__file__).parents[2]
    told = "".join(path.read_text() for path in (top / "config" / "smtpguard.yaml", *(top / "docs").glob("*.md")))
    assert [key for key in keys_of(Settings) if not re.search(rf"\b{key.rpartition('.')[2]}\b", told)] == []


def keys_of(section: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        key = f"{above}{field.alias or name}"
        yield key
        yield from (below for model in sections_in(field.annotation) for below in keys_of(model, f"{key}."))


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from sections_in(each)


@every("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/a.db"])
def test_a_store_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(Broken, match=r"three slashes and a relative path"):
        read(f"store: {{url: '{url}'}}")


@every("places", ["one,two", "one:5432,two.example.com", "[2001:db8::1]:5432,[2001:db8::2]"])
def test_a_store_url_may_name_several_servers(places: str) -> None:
    url = f"postgresql://guard@{places}/guard?target_session_attrs=read-write"
    assert read(f"store: {{url: '{url}'}}").store.url == url


@every("places", ["one,", "one,two:port", "one two,three", "one,two:543210"])
def test_an_invalid_server_among_several_is_refused(places: str) -> None:
    with pytest.raises(Broken, match="is no server"):
        read(f"store: {{url: 'postgresql://guard@{places}/guard'}}")
