"""Setting a key in a policy's text leaves the text around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from smtpguard.cli.suggest import NotEditable, diff, with_key

ROOT = Path(__file__).parent.parent.parent
TEXT = """\
# mine
organization:
  name: Example AB   # ours
  domains: [example.com]
lists:
  news:
    # of the web shop
    addresses: [news@lists.example.com]
    writers:
      - eva@example.com
      - omar@example.com
  short: {addresses: [s@lists.example.com]}
streams: {}          # none yet
rules:
  - {id: one, when: {mailing.customers: ">= 20", message.looks: [internal]}, then: hold}
  - id: two
    when:
      mailing.customers: ">= 30"
    then: hold
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (["organization"], "customers_here", False),
        (["organization"], "domains", ["example.com", "example.se"]),
        (["lists", "news"], "origin", {"dkim": "example.com"}),
        (["lists", "news"], "writers", ["a@example.com"]),
        (["lists", "short"], "writers", ["a@example.com", "b@example.com"]),
        (["streams"], "noreply", {"from": ["noreply@example.com"], "max": "3 in 1h"}),
        (["rules", 0, "when"], "mailing.customers", ">= 40"),
        (["rules", 1, "when"], "mailing.customers", ">= 60"),
        (["rules", 1], "mode", "observe"),
        (["groups"], "duty", ["x@example.com"]),
    ],
)
def test_only_the_key_changes(path: Sequence[str | int], key: str, value: Any) -> None:
    made = with_key(TEXT, path, key, value, "twelve of\nthem: yes")
    wanted = yaml.safe_load(TEXT)
    place = wanted
    for step in path:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    place[key] = value
    assert yaml.safe_load(made) == wanted
    assert "# twelve of them: yes" in made
    for comment in ("# mine", "# ours", "# of the web shop", "# none yet"):
        assert comment in made


def test_a_second_stream_is_added() -> None:
    made = with_key(
        with_key(TEXT, ["streams"], "a", {"max": "1 in 1h"}, "one"), ["streams"], "b", {"max": "2 in 1h"}, "two"
    )
    assert yaml.safe_load(made)["streams"] == {"a": {"max": "1 in 1h"}, "b": {"max": "2 in 1h"}}


def test_the_sample_policy_can_be_edited(tmp_path: Path) -> None:
    text = (ROOT / "config" / "policy.yaml").read_text()
    made = with_key(text, ["lists", "newsletter"], "writers", ["campaigns@example.com"], "why")
    made = with_key(made, ["streams"], "help-desk", {"from": ["help@example.com"]}, "why")
    assert yaml.safe_load(made)["lists"]["newsletter"]["writers"] == ["campaigns@example.com"]
    changed = diff(text, made, "policy.yaml").splitlines()
    assert [line for line in changed if line.startswith("-") and not line.startswith("---")] == [
        "-    writers: [campaigns@example.com, eva@example.com]"
    ]


@pytest.mark.parametrize("path", [["lists", "absent"], ["rules", 7, "when"], ["organization", "name"]])
def test_a_missing_place_is_an_error(path: Sequence[str | int]) -> None:
    with pytest.raises(NotEditable):
        with_key(TEXT, path, "key", 1, "why")


def test_a_value_with_comments_is_not_replaced() -> None:
    with pytest.raises(NotEditable, match="comments of its own"):
        with_key("lists:\n  a:\n    writers:\n      - x   # who\n      - y\n", ["lists", "a"], "writers", ["z"], "why")
