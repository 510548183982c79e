"""Files generated from code: JSON schemas for editors, tables and reference pages of the docs, man pages, shell
completion.

``python -m tests.generated`` (``make generated``) writes them. A test fails where a file differs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from smtpguard.config.schema import settings_schema
from smtpguard.observe.metrics import DECISION, HOST, JOURNAL, SECONDS, STORE, TREE, Family
from smtpguard.policy.facts import FACTS, Fact, Type
from smtpguard.policy.schema import list_schema, policy_schema
from smtpguard.reading.marks import KINDS, Side
from tests import stable
from tests.manual.made import manual

_ROOT = Path(__file__).parent.parent
_SCHEMAS = {"policy": policy_schema, "list": list_schema, "settings": settings_schema}
_KINDS = {Type.TRUTH: "truth", Type.WORD: "word", Type.WORDS: "set", Type.NETWORK: "address", Type.COUNT: "count", Type.SHARE: "share"}  # fmt: skip
_TABLE = re.compile(r"(?<=\| Fact \| Kind \| Means \|\n\|---\|---\|---\|\n)(?:\|.*\n)+")

_MARKS = re.compile(r"(?<=\| Mark \| Weight \| Group \| Why \|\n\|---\|---\|---\|---\|\n)(?:\|.*\n)+")
_SIGN = {Side.INTERNAL: "+", Side.MAILING: "-"}
_METRICS = re.compile(r"(?<=\| Metric \| \| Labels \| Meaning \|\n\|---\|---\|---\|---\|\n)(?:\|.*\n)+")


def generated() -> Mapping[Path, str]:
    """Each file with the text that it should have."""
    schemas = {
        _ROOT / f"config/schema/{name}.json": json.dumps(make(), indent=2, ensure_ascii=False) + "\n"
        for name, make in _SCHEMAS.items()
    }
    page = _ROOT / "docs/policy.md"
    rows = "".join(map(_row, FACTS.values()))
    policy = _TABLE.sub(lambda _: rows, page.read_text())
    return {**schemas, page: policy, **_marks(), **_metrics(), **manual(policy)}


def _marks() -> Mapping[Path, str]:
    page = _ROOT / "docs/reading.md"
    weights = {
        name: f"{_SIGN[kind.side]}{kind.weight:g}" if kind.side in _SIGN else "told" for name, kind in KINDS.items()
    }
    rows = "".join(f"| `{name}` | {weights[name]} | {kind.group} | {kind.reason} |\n" for name, kind in KINDS.items())
    return {page: _MARKS.sub(lambda _: rows, page.read_text())}


def _metrics() -> Mapping[Path, str]:
    page = _ROOT / "docs/metrics.md"
    groups = iter(((*JOURNAL, SECONDS, DECISION), STORE, HOST, TREE))
    return {page: _METRICS.sub(lambda _: "".join(map(_metric, next(groups))), page.read_text())}


def _metric(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.kind.value} | {labels} | {family.says} |\n"


def _row(fact: Fact) -> str:
    return f"| `{fact.name}` | {_KINDS[fact.type]}{', over a time' if fact.windowed else ''} | {fact.doc} |\n"


if __name__ == "__main__":
    stable.extend()
    for file, text in generated().items():
        file.write_text(text)
