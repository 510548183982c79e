"""Write metrics in the format that the scraper asks for: Prometheus' text format or OpenMetrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from smtpguard.observe.metrics.table import FAMILIES, Family, Kind, Numbers, Spread


class Exposition(Collector):
    """The response to a scrape. Families without numbers are left out: they are unknown now."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            if series := self._numbers.get(family.name):
                yield _metric(family, series)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its content type, as the Accept header prefers."""
        try:
            encoder, kind = choose_encoder(accept)
        except (ValueError, TypeError):  # it asks for a version that does not exist
            encoder, kind = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
        return encoder(self), kind


def _metric(family: Family, series: Mapping[tuple[str, ...], float | Spread]) -> Metric:
    name, says, labels = family.name, family.says, family.labels
    if family.kind is Kind.INFO:
        info = InfoMetricFamily(name.removesuffix("_info"), says)
        for values in series:
            info.add_metric((), dict(zip(labels, values, strict=True)))
        return info
    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, says, labels=labels)
        for values, spread in series.items():
            assert isinstance(spread, Spread)
            ends = [*(str(bound) for bound in spread.bounds), "+Inf"]
            histogram.add_metric(values, list(zip(ends, spread.counts, strict=True)), spread.total)
        return histogram
    metric = (CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily)(name, says, labels=labels)
    for values, number in sorted(series.items()):
        assert isinstance(number, (int, float))
        metric.add_metric(values, number)
    return metric
