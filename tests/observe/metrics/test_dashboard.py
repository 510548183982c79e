"""The dashboard uses existing metrics and labels, and its panels fit. tests/peers runs each query in Prometheus."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from smtpguard.admission.intake import ANSWERS
from smtpguard.observe.metrics import BY_NAME, Counters
from tests.every import every
from tests.observe.metrics.dashboard import BOARD, FILE, MATCHER, SELECTED, Query, family, labels, panels, queries

by_query = every("query", queries())
WORDS = {
    "smtpguard_part_processes": {"part": {"proxy", "milter", "delivery", "console"}},
    "smtpguard_answers_total": {"answer": set(ANSWERS)},
    "smtpguard_freezes": {"selector": {"all", "list", "sender", "mailing", "thread"}},
}


@by_query
def test_queries_use_existing_metrics_and_labels(query: Query) -> None:
    asked = SELECTED.findall(query.expr)
    assert {name for name, _ in asked} == set(re.findall(r"smtpguard_\w+", query.expr)), "each selects job and host"
    there = {label for name, _ in asked for label in labels(name)}
    for name, matchers in asked:
        assert {label for label, _, _ in MATCHER.findall(matchers)} <= labels(name)
        assert ("job", "=", "$job") in MATCHER.findall(matchers)
        assert ("instance", "=~", "$instance") in MATCHER.findall(matchers)
    kept = {word for by in re.findall(r"by \(([^)]*)\)", query.expr) for word in by.split(", ")}
    assert kept <= there
    assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= kept, "the legend has what the query keeps"


@by_query
def test_queries_use_existing_label_values(query: Query) -> None:
    """Queries select existing label values. Another value would select nothing, without an error."""
    tally = Counters()
    tally.expect(rules={"busy": "hold"}, lists=["news"], hooks=["chat"])
    numbers = tally.numbers()
    for name, matchers in SELECTED.findall(query.expr):
        told = family(name)
        assert told is not None
        for label, _, words in MATCHER.findall(matchers):
            if label in told.labels:
                known = WORDS.get(told.name, {}).get(label)
                known = known or {values[told.labels.index(label)] for values in numbers[told.name]}
                assert set(words.split("|")) <= known


@by_query
def test_counters_are_queried_as_rates(query: Query) -> None:
    for name in re.findall(r"smtpguard_\w+_(?:total|bucket)\b", query.expr):
        assert re.search(rf"(rate|increase)\({name}\{{[^}}]*\}}\[", query.expr), name


def test_the_main_metrics_are_shown() -> None:
    asked = " ".join(query.expr for query in queries())
    for name in ("decision_seconds", "rule_hold_ends_total", "admission_seconds", "outbox_oldest_due_seconds",
                 "list_checked_seconds", "part_memory_bytes", "holds_waiting", "relay_up", "store_up"):  # fmt: skip
        assert f"smtpguard_{name}" in asked


def test_panels_do_not_overlap_and_have_titles() -> None:
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    for one, other in combinations(places, 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert max(place["x"] + place["w"] for place in places) == 24
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["title"] and panel["datasource"]["uid"] == "${datasource}" for panel in panels())


def test_the_dashboard_is_provisioned_by_file() -> None:
    (provider,) = yaml.safe_load((FILE.parent / "dashboards.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/var/lib/grafana/")
    assert BOARD["uid"] == "smtpguard"
    assert "id" not in BOARD, "Grafana assigns the id"


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
