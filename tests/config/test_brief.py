"""The settings that a freeze reads without the models equal those of the models, or are None."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from smtpguard.config.brief import NAMES, Brief, read_brief
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings, read_settings

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


def read(settings: Brief | Settings) -> tuple[Any, ...]:
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
