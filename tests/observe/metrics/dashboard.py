"""The queries of the Grafana dashboard (config/grafana/smtpguard.json), and the metrics and labels that they select."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from smtpguard.observe.metrics import BY_NAME, Family, Type

ROOT = Path(__file__).parents[3]
FILE = ROOT / "config" / "grafana" / "smtpguard.json"
BOARD: dict[str, Any] = json.loads(FILE.read_text())
OF_PROMETHEUS = {"job", "instance"}
SELECTED = re.compile(r"(smtpguard_\w+)\{([^}]*)\}")
MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
_SERIES = re.compile(r"_(bucket|sum|count)$")


class Query(NamedTuple):
    panel: str
    expr: str
    legend: str


def panels() -> Iterator[dict[str, Any]]:
    """Panels with data. A row has only a title."""
    return (panel for panel in BOARD["panels"] if panel["type"] != "row")


def queries() -> list[Query]:
    found = [Query(p["title"], t["expr"], t["legendFormat"]) for p in panels() for t in p["targets"]]
    return found + [Query(a["name"], a["expr"], a["textFormat"]) for a in BOARD["annotations"]["list"]]


def family(series: str) -> Family | None:
    """The metric of a series; a histogram has three series."""
    found = BY_NAME.get(series)
    if found is None or found.kind is Type.HISTOGRAM:
        found = BY_NAME.get(_SERIES.sub("", series)) if _SERIES.search(series) else None
        return found if found is not None and found.kind is Type.HISTOGRAM else None
    return found


def labels(series: str) -> set[str]:
    found = family(series)
    assert found is not None, f"{series} is not told"
    return {*found.labels, *OF_PROMETHEUS, *({"le"} if series.endswith("_bucket") else ())}


def shown(expr: str) -> str:
    """The query with values for Grafana's variables."""
    values = {"$job": "smtpguard", "$instance": ".*", "$__rate_interval": "4m", "$__interval": "1m", "$__range": "1h"}
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(name, values[name])
    assert "$" not in expr, expr
    return expr
