"""Alert rules and dashboard, checked by promtool: each alert fires when it should, and every query has a result."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest
import yaml

from tests.observe.metrics.dashboard import MATCHER, SELECTED, labels, queries, shown

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def promtool(*words: str) -> str:
    done = subprocess.run(
        ["promtool", *words], capture_output=True, text=True, timeout=1200, check=False, cwd=ROOT, env={**os.environ, "GOGC": "400"}
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid() -> None:
    assert "rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", "config/prometheus-alerts.yaml")


def test_each_alert_fires() -> None:
    assert "SUCCESS" in promtool("test", "rules", "config/prometheus-alerts-test.yaml")


def test_the_example_configuration_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (example,) = [block.split("```")[0] for block in text.split("```yaml\n")[1:] if "scrape_configs" in block]
    rules = ROOT / "config" / "prometheus-alerts.yaml"
    (tmp_path / "prometheus.yaml").write_text(example.replace("/etc/prometheus/smtpguard-alerts.yaml", str(rules)))
    assert "SUCCESS: 1 rule files found" in promtool("check", "config", str(tmp_path / "prometheus.yaml"))


def test_every_dashboard_query_has_a_result(tmp_path: Path) -> None:
    """Each query of the dashboard is well-formed and has a result, if every metric has samples under each label value
    that a query selects."""
    asked: dict[str, dict[str, set[str]]] = {}
    for query in queries():
        for name, matchers in SELECTED.findall(query.expr):
            words = asked.setdefault(name, {label: set() for label in labels(name) - {"job", "instance", "le"}})
            for label, operator, value in MATCHER.findall(matchers):
                if label in words:
                    words[label] |= set(value.split("|")) if operator != "!=" else {"approved"}
    given = []
    for name, words in asked.items():
        named = [[(label, value) for value in values or {label}] for label, values in sorted(words.items())]
        if name.endswith("_bucket"):
            named.append([("le", "1.0"), ("le", "+Inf")])
        for row in product(*named):
            told = "".join(f', {label}="{value}"' for label, value in row)
            grows = "0+60x200" if name.endswith(("_total", "_bucket", "_entry")) else "1x200"
            if name == "smtpguard_freezes":
                grows = "0x100 1x100"
            series = f'{name}{{job="smtpguard", instance="guard:9125"{told}}}'
            given.append({"series": series, "values": grows})
    some = [
        {"expr": f"sum_over_time((count({shown(q.expr)}) > bool 0)[3h:1m]) > bool 0", "eval_time": "190m",
         "exp_samples": [{"labels": "{}", "value": 1}]}
        for q in queries()
    ]  # fmt: skip
    suite = {
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": given, "promql_expr_test": some}],
    }
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump(suite))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "queries.yaml"))
