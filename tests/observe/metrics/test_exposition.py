"""What is scraped is valid in both formats, whatever the request accepts; and the table in the docs matches the code."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from smtpguard.app.metrics import Exposition
from smtpguard.observe.metrics import FAMILIES, Family, Samples, Spread, Type
from smtpguard.wire.turnedaway import Why
from tests.every import every

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SPREAD = Spread(bounds=(0.5, 1.0), counts=(1, 1, 3), total=9.5)


def some(family: Family) -> dict[tuple[str, ...], float | Spread]:
    return {family.labels: SPREAD if family.kind is Type.HISTOGRAM else 3}


ALL: Samples = {family.name: some(family) for family in FAMILIES}


def test_every_family_has_its_type_and_description() -> None:
    text, kind = Exposition(ALL).text()
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    found = {metric.name: metric for metric in plain(text.decode())}
    for family in FAMILIES:
        name = family.name.removesuffix("_total") if family.kind is Type.COUNTER else family.name
        metric = found.pop(name)
        assert metric.type == ("gauge" if family.kind is Type.INFO else family.kind.value)
        assert metric.documentation == family.says
        assert {label for sample in metric.samples for label in sample.labels} - {"le"} == set(family.labels)
    assert found == {}


def test_openmetrics_is_sent_if_accepted() -> None:
    text, kind = Exposition(ALL).text(f"{OPENMETRICS}, text/plain;version=0.0.4;q=0.5, */*;q=0.1")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    families = {family.name: family for family in openmetrics(text.decode())}
    assert families["smtpguard_policy"].type == "info"
    histogram = families["smtpguard_outcome_seconds"]
    assert {sample.labels.get("le", sample.name[-5:]): sample.value for sample in histogram.samples} == {
        "0.5": 1, "1.0": 1, "+Inf": 3, "count": 3, "s_sum": 9.5,
    }  # fmt: skip


def test_unknown_values_are_left_out() -> None:
    assert Exposition({}).text()[0] == b""
    assert Exposition({"smtpguard_relay_up": {}}).text()[0] == b""


def test_labels_are_escaped() -> None:
    name = 'a "list"\n\\ with everything'
    text, _ = Exposition({"smtpguard_list_people": {(name,): 3}}).text()
    (metric,) = plain(text.decode())
    assert [(sample.labels, sample.value) for sample in metric.samples] == [({"list": name}, 3)]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(max_size=60)
    | st.from_regex(
        r"\A(application/openmetrics-text|text/plain)\s*;\s*(version|escaping|q)=[\w.\-=;é]*(,.*)?\Z", fullmatch=True
    )
)
def test_any_accept_header_gets_one_of_the_formats(accept: str) -> None:
    text, kind = Exposition(ALL).text(accept)
    kind.encode("latin-1")
    assert kind.startswith(("text/plain", "application/openmetrics-text"))
    assert text.endswith(b"# EOF\n") == kind.startswith("application/")


@every("family", FAMILIES)
def test_names_follow_the_conventions(family: Family) -> None:
    """Names follow https://prometheus.io/docs/practices/naming/; promtool checks more."""
    assert re.fullmatch(r"smtpguard_[a-z_]+", family.name)
    assert all(re.fullmatch("[a-z]+[0-9]*", label) for label in family.labels)
    assert not family.says.endswith(".")
    assert len({other.name for other in FAMILIES}) == len(FAMILIES)


def test_the_docs_have_the_same_table() -> None:
    rows = re.findall(r"^\| `(smtpguard_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", DOCS.read_text(), re.M)
    assert rows == [
        (family.name, family.kind.value, ", ".join(f"`{label}`" for label in family.labels), family.says)
        for family in FAMILIES
    ]


def test_the_words_of_mail_turned_away_are_in_the_help() -> None:
    says = next(family.says for family in FAMILIES if family.name == "smtpguard_turned_away_total")
    assert set(says.rpartition("Why: ")[2].split(", ")) == {why.value for why in Why}
