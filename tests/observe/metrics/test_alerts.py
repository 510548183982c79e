"""The alert rules use existing metrics, each has a promtool test, and the docs say what to do about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from smtpguard.observe.metrics.table import BY_NAME
from tests.every import every

ROOT = Path(__file__).parents[3]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "config" / "prometheus-alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
OF_PROMETHEUS = {"job", "instance"}
by_name = every("rule", RULES)


@by_name
def test_alerts_use_existing_metrics_and_labels(rule: dict[str, Any]) -> None:
    asked = set(re.findall(r"smtpguard_\w+", rule["expr"]))
    assert asked <= BY_NAME.keys()
    labels = {label for name in asked for label in BY_NAME[name].labels}
    selected = {
        word for braces in re.findall(r"\{([^}]*)\}", rule["expr"]) for word in re.findall(r"(\w+)=~?\"", braces)
    }
    kept = {word for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for word in by.split(", ")}
    said = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert selected | kept | said <= labels | OF_PROMETHEUS


@by_name
def test_alerts_describe_the_problem_and_instance(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Smtpguard[A-Z]\w+", rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert "$labels.instance" in rule["annotations"]["description"]


@by_name
def test_every_alert_has_a_promtool_test(rule: dict[str, Any]) -> None:
    """Each alert has a promtool test, which is shipped with the rules and run by tests/peers."""
    tests = (ROOT / "config" / "prometheus-alerts-test.yaml").read_text()
    assert re.search(rf'alertname(="|: ){rule["alert"]}\b', tests)


def test_the_docs_list_every_alert() -> None:
    rows = re.findall(
        r"^\| `(Smtpguard\w+)` \| (\w+) \| [^|]+ \|$", (ROOT / "docs" / "operations.md").read_text(), re.M
    )
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]


@by_name
def test_every_runbook_has_severity_meaning_and_action(rule: dict[str, Any]) -> None:
    page, _, section = rule["annotations"]["runbook_url"].partition("#")
    assert (page, section) == ("docs/runbooks.md", rule["alert"].lower())
    heads = re.split(r"^## ", (ROOT / page).read_text(), flags=re.M)
    (book,) = [one for one in heads if one.splitlines()[0] == rule["alert"]]
    told = re.findall(r"^\*\*([^*]+)\*\*", book, re.M)
    assert told == [f"{rule['labels']['severity'].capitalize()}.", "Look at.", "Do."]


def test_every_runbook_has_an_alert() -> None:
    heads = re.findall(r"^## (Smtpguard\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.M)
    assert heads == [rule["alert"] for rule in RULES]
