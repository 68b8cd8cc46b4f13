"""The metrics for Prometheus: limited in size, with any text as a label, and right at the bounds of buckets."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from locust.env import Environment
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from llm_users.load.coordinator.coordinator import Coordinator
from llm_users.load.protocol.messages import Live, LiveMetrics
from llm_users.quantile import DurationHistogram
from llm_users.record import RequestRecord
from llm_users.secrets import remember
from llm_users.web.prometheus import (
    MOST_ERROR_CODES,
    MOST_GROUPS,
    MOST_LABEL_CHARACTERS,
    MOST_MODELS,
    PROMETHEUS_METRICS,
    TOKEN_BOUNDS_S,
    TTFT_BOUNDS_S,
    BucketCounts,
    PrometheusMetrics,
)
from llm_users.web.state import LiveState

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
HOSTILE = 'a"b\\c\nd{e="f"} 7\r# HELP x \u2028 \N{BANKNOTE WITH DOLLAR SIGN} \ud800 \x00'


def no_writer(*_: Any) -> Any:
    raise AssertionError("no run starts")


@pytest.fixture
def metrics() -> PrometheusMetrics:
    coordinator = Coordinator(lambda *_: None, lambda: [None], no_writer)
    environment = Environment(user_classes=[])
    environment.create_local_runner()
    state = LiveState(coordinator, environment, lambda _text: [], lambda: None)
    return PrometheusMetrics(coordinator, environment, state)


def row(**columns: Any) -> RequestRecord:
    return RequestRecord(**{"model": "m", "stage": 1, "measured": 1, "ttft_s": 0.02, **columns})


def samples(metrics: PrometheusMetrics, accept: str = "") -> dict[str, list[tuple[dict[str, str], float]]]:
    body, content_type = metrics.page(accept)
    text = body.decode()
    parse: Any = text_string_to_metric_families
    if "openmetrics" in content_type:
        parse = openmetrics.text_string_to_metric_families
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in parse(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_every_metric_has_its_declared_name_and_labels(metrics: PrometheusMetrics, accept: str) -> None:
    metrics.on_row(row(error_code="503"))
    found = samples(metrics, accept)
    for metric in PROMETHEUS_METRICS:
        if metric.name.startswith(("locust_llm_worker_", "locust_llm_run_start", "locust_llm_target_requests")):
            continue  # these have no value without a run
        name = f"{metric.name}_bucket" if metric.type == "histogram" else metric.name
        labels = {*metric.labels, "le"} if metric.type == "histogram" else {*metric.labels}
        assert found[name], metric
        assert all(set(given) == labels for given, _ in found[name]), metric


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_any_text_can_be_the_name_of_a_model_or_an_error(metrics: PrometheusMetrics, accept: str) -> None:
    remember("secret-of-a-test")
    metrics.on_row(row(model=HOSTILE, error_code=HOSTILE))
    metrics.on_row(row(model="secret-of-a-test", error_code="x" * 1000))
    found = samples(metrics, accept)
    models = {labels["model"] for labels, _ in found["locust_llm_requests_total"]}
    clean = HOSTILE.replace("\ud800", "?")
    assert clean in models
    assert not any("secret-of-a-test" in model for model in models)
    codes = {labels["error_code"] for labels, _ in found["locust_llm_errors_total"]}
    assert codes == {clean, "x" * MOST_LABEL_CHARACTERS}


def test_the_number_of_models_groups_and_codes_is_limited_and_nothing_is_lost(metrics: PrometheusMetrics) -> None:
    for number in range(MOST_MODELS + 50):
        for stage in range(1, 7):
            metrics.on_row(row(model=f"m{number}", stage=stage, error_code=f"e{number}"))
            metrics.on_row(row(model=f"m{number}", stage=stage))
    assert len(metrics.groups) <= MOST_GROUPS + 2
    found = samples(metrics)
    requests = found["locust_llm_requests_total"]
    total = 2 * 6 * (MOST_MODELS + 50)
    assert sum(value for _, value in requests) == total
    assert len({labels["model"] for labels, _ in requests}) <= MOST_MODELS + 1
    assert any(labels["model"] == labels["stage"] == "other" and value for labels, value in requests)
    assert sum(value for _, value in found["locust_llm_time_to_first_token_seconds_count"]) == total / 2
    errors = found["locust_llm_errors_total"]
    assert len(errors) == MOST_ERROR_CODES + 1
    assert sum(value for _, value in errors) == total / 2


def test_a_value_on_a_bound_belongs_to_the_bucket_that_ends_there() -> None:
    counts = BucketCounts((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        counts.add(value)
    lines = {(sample.name, sample.labels.get("le")): sample.value for sample in counts.samples("x", {})}
    assert lines == {
        ("x_bucket", "1.0"): 2,
        ("x_bucket", "2.0"): 4,
        ("x_bucket", "+Inf"): 5,
        ("x_count", None): 5,
        ("x_sum", None): 8.0,
    }


def test_buckets_grow_by_a_constant_factor() -> None:
    assert TTFT_BOUNDS_S[:6] == (0.001, 0.0016, 0.0025, 0.004, 0.0063, 0.01)
    for bounds in (TTFT_BOUNDS_S, TOKEN_BOUNDS_S):
        assert all(1.5 < high / low < 1.65 for low, high in pairwise(bounds))


def test_gaps_and_tokens_come_from_live_metrics(metrics: PrometheusMetrics) -> None:
    histogram = DurationHistogram()
    for gap_s in [0.011] * 30 + [0.3] * 10:
        histogram.add(gap_s)
    for _ in range(2):
        metrics.on_live(Live("run", 0, metrics=LiveMetrics(gap=dict(histogram.counts), tokens=41.5)))
    found = samples(metrics)
    buckets = {labels["le"]: value for labels, value in found["locust_llm_chunk_gap_seconds_bucket"]}
    assert (buckets["0.01"], buckets["0.016"], buckets["0.25"], buckets["0.4"]) == (0, 60, 60, 80)
    assert found["locust_llm_chunk_gap_seconds_count"] == [({}, 80)]
    assert found["locust_llm_chunk_gap_seconds_sum"][0][1] == pytest.approx(2 * (30 * 0.011 + 10 * 0.3), rel=1e-3)
    assert found["locust_llm_arrived_tokens_total"] == [({}, 83)]
