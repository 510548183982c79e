"""JSON schemas for editors: every key is described, check accepts what they offer, and the shipped files are current."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from smtpguard.cli import main
from smtpguard.config.documents import shipped
from smtpguard.config.schema import sections, settings_schema
from smtpguard.config.yaml import load_yaml
from smtpguard.policy.schema import list_schema, policy_schema
from tests.every import every
from tests.generated import generated

SCHEMAS = {"policy": policy_schema, "list": list_schema, "settings": settings_schema}
MEMBERS = "lists: {news: {addresses: [a@example.com], members: {csv: a.csv, refresh: %s}}}"


@every("which", SCHEMAS)
def test_every_key_is_described_and_every_default_is_valid(which: str) -> None:
    schema = SCHEMAS[which]()
    keys = 0
    assert not re.search(r"``|\\n", json.dumps(schema)), "an editor shows descriptions as Markdown"
    for model, properties in sections(schema):
        for key, each in properties.items():
            keys += 1
            assert each.get("description"), f"{model}.{key}"
            if each.get("default") is not None:
                jsonschema.Draft202012Validator({"$defs": schema["$defs"], **each}).validate(each["default"])
    assert keys >= 16


@every(("refresh", "taken"), [("900", False), ("15m", True), ("0.5", False), ('"900"', False), ("2h 30m", True)])
def test_a_duration_has_a_unit(refresh: str, taken: bool) -> None:
    value: Mapping[str, Any] = load_yaml(MEMBERS % refresh).value
    whole = {"organization": {"domains": ["example.com"]}, "approvals": {"from": "a"}, **value}
    assert jsonschema.Draft202012Validator(policy_schema()).is_valid(whole) is taken


def test_a_file_in_lists_d_is_a_list() -> None:
    validator = jsonschema.Draft202012Validator(list_schema())
    validator.validate({"addresses": ["a@example.com"], "members": {"csv": "a.csv", "refresh": "1h"}})
    assert not validator.is_valid({"adresses": ["a@example.com"]})


@every("which", SCHEMAS)
def test_the_shipped_schemas_are_current(which: str) -> None:
    file = shipped() / "schema" / f"{which}.json"
    assert file.read_text() == CliRunner().invoke(main, ["schema", which]).stdout, "make generated"


def test_the_generated_files_are_current() -> None:
    assert [str(file) for file, text in generated().items() if file.read_text() != text] == [], "make generated"


@pytest.mark.parametrize(("sample", "which"), [("policy.yaml", "policy"), ("smtpguard.yaml", "settings")])
def test_the_samples_name_their_schema(sample: str, which: str) -> None:
    last = (shipped() / sample).read_text().splitlines()[-1]
    assert last == f"# yaml-language-server: $schema=schema/{which}.json"
    assert (shipped() / last.rpartition("=")[2]).is_file()
