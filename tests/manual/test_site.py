"""The docs' site builds without warnings, has every page, finds every page by search, and loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
import yaml

from tests.manual.made import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        capture_output=True, text=True, timeout=1200, check=False, cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_page_is_in_the_site_and_its_search(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert [page for page in pages if not (site / page / "index.html").exists()] == []
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    assert pages <= {entry["location"].split("/")[0] for entry in found}
    assert any("thaw --all" in unescape(entry["text"]) for entry in found)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """Every font, script, style, picture and frame of a page is part of the site."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        loads = re.findall(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)", text)
        loads += re.findall(
            r"<link\b(?=[^>]*rel=[\"']?(?:stylesheet|icon|preload|preconnect|dns-prefetch))[^>]*?href=[\"']?([^\"'\s>]+)",
            text,
        )
        assert [one for one in loads if re.match(r"(https?:)?//", one)] == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"url\(\s*[\"']?(?:https?:)?//[^)]*\)|@import\s+[\"']?https?:", style.read_text()) == []


def test_each_alert_links_to_its_runbook(site: Path) -> None:
    """Each alert's runbook_url, with the site's address before it as in operations.md, leads to a section."""
    rules = [
        r for g in yaml.safe_load((ROOT / "config/prometheus-alerts.yaml").read_text())["groups"] for r in g["rules"]
    ]
    text = (site / "runbooks" / "index.html").read_text()
    for rule in rules:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/runbooks.md"
        assert re.search(rf'<h2 id=["\']?{anchor}\b', text), anchor


def test_linked_files_are_included(site: Path) -> None:
    for name in (
        "config/policy.yaml",
        "config/grafana/smtpguard.json",
        "config/prometheus-alerts.yaml",
        "systemd/smtpguard.service",
    ):
        assert (site / "files" / name).read_bytes() == (ROOT / name).read_bytes()
    assert 'files/config/smtpguard.yaml"' in (site / "settings" / "index.html").read_text()


def test_table_cells_have_names_for_narrow_screens(site: Path) -> None:
    text = (site / "settings" / "index.html").read_text()
    assert re.search(
        r'<td data-is="Key"><code>workers</code></td>\s*<td data-is="Is">a number</td>\s*<td data-is="Default">', text
    )
    assert "data-is" not in (site / "glossary" / "index.html").read_text(), "two columns need no names"
