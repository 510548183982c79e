"""The alert rules, by Prometheus' own tool: each is valid, fires when it should, and is silent on an ordinary day."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def promtool(*words: str) -> str:
    done = subprocess.run(
        ["promtool", *words], capture_output=True, text=True, timeout=1200, check=False, cwd=ROOT
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid() -> None:
    assert "rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", "config/prometheus-alerts.yaml")


def test_each_fires_when_it_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", "tests/peers/prometheus-alerts.yaml")


def test_the_example_of_the_docs_scrapes(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (example,) = [block.split("```")[0] for block in text.split("```yaml\n")[1:] if "scrape_configs" in block]
    rules = ROOT / "config" / "prometheus-alerts.yaml"
    (tmp_path / "prometheus.yaml").write_text(example.replace("/etc/prometheus/smtpguard-alerts.yaml", str(rules)))
    assert "SUCCESS: 1 rule files found" in promtool("check", "config", str(tmp_path / "prometheus.yaml"))
