"""The metrics of `/llm/metrics` for Prometheus: counters and histograms of all rows of this process, gauges of the run.

The counters grow over all runs of the process and are never reset. The size of the page is limited: at most
``MOST_MODELS`` models and ``MOST_GROUPS`` groups of rows have labels of their own. All others count under ``other``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import gevent
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from llm_users._version import __version__
from llm_users.collect.client_health import DISTURBED, OK, SATURATED, STRAINED
from llm_users.load.protocol.messages import Live
from llm_users.load.protocol.stage import PHASES
from llm_users.outcome import Outcome
from llm_users.quantile import DurationHistogram
from llm_users.record import RequestRecord
from llm_users.secrets import redact
from llm_users.web.state import Course, LiveState

OTHER = "other"
"""The label value for models, stages and error codes beyond the limits."""

MOST_MODELS = 100
MOST_GROUPS = 300
"""Groups of rows by model, stage and ``measured``. One group has about 90 lines, so the page has at most 3 MB."""
MOST_ERROR_CODES = 50
MOST_LABEL_CHARACTERS = 200
MOST_WORKERS = 1000

HEALTHS = (OK, STRAINED, DISTURBED, SATURATED)

_STEPS = (1.0, 1.6, 2.5, 4.0, 6.3)
"""Five buckets per power of ten (preferred numbers, R5): a bound is about 1.6 times the one before."""


def _bounds(first_s: float, last_s: float) -> tuple[float, ...]:
    """Return the upper bounds of buckets from ``first_s`` to ``last_s``, in seconds."""
    bounds = (float(f"{step}e{power}") for power in range(-5, 5) for step in _STEPS)
    return tuple(bound for bound in bounds if first_s <= bound <= last_s)


DURATION_BOUNDS_S = _bounds(0.01, 1000.0)
TTFT_BOUNDS_S = _bounds(0.001, 100.0)
TOKEN_BOUNDS_S = _bounds(0.0001, 10.0)
"""For TPOT and for the gaps between chunks."""

Labels = dict[str, str]

_SAMPLES_PER_YIELD = 50
"""Number of lines to write before other greenlets may run: about 0.5 ms."""


def label_value(text: str) -> str:
    """Return a text as the value of a label: without secrets, in valid UTF-8, and not longer than 200 characters."""
    return redact(text)[:MOST_LABEL_CHARACTERS].encode("utf-8", "replace").decode()


class BucketCounts:
    """The counts of a Prometheus histogram."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """Count a value, which belongs to the first bucket whose bound is not below it."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def samples(self, name: str, labels: Labels) -> list[Sample]:
        """Return the lines of the histogram: cumulative counts, their number and the sum of the values."""
        samples, total = [], 0
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            total += count
            le = "+Inf" if bound == math.inf else repr(bound)
            samples.append(Sample(f"{name}_bucket", {**labels, "le": le}, total))
        return [*samples, Sample(f"{name}_count", labels, total), Sample(f"{name}_sum", labels, self._sum)]


class RowGroup:
    """The rows of one model and stage that are measured, or that are not."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        # A counter that appears with its first event loses this event in rate(), so all outcomes begin with 0.
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.input_tokens = self.output_tokens = 0
        self.duration = BucketCounts(DURATION_BOUNDS_S)
        self.ttft = BucketCounts(TTFT_BOUNDS_S)
        self.tpot = BucketCounts(TOKEN_BOUNDS_S)

    def add(self, record: RequestRecord, outcome: Outcome) -> None:
        """Count a row. The histograms have the values of successful requests, as the report has."""
        self.outcomes[outcome] += 1
        self.input_tokens += record.input_tokens or 0
        self.output_tokens += record.output_tokens or 0
        if outcome is not Outcome.OK:
            return
        if record.end_to_end_latency_s is not None:
            self.duration.add(record.end_to_end_latency_s)
        if record.buffered:
            return
        if record.ttft_s is not None:
            self.ttft.add(record.ttft_s)
        if record.tpot_s is not None:
            self.tpot.add(record.tpot_s)


class PrometheusMetrics(Collector):
    """The metrics of a process over all its runs. ``state`` gives the present values of the run."""

    def __init__(self, coordinator: Course, environment: Any, state: LiveState) -> None:
        self.coordinator = coordinator
        self.environment = environment
        self.state = state
        self.errors: Counter[str] = Counter()
        """Failed requests by error code."""
        self.gaps = BucketCounts(TOKEN_BOUNDS_S)
        self.arrived_tokens = 0.0
        self._by_row: dict[tuple[str, int, int], RowGroup] = {}
        self._groups: dict[tuple[str, ...], RowGroup] = {}
        self._models: set[str] = set()
        coordinator.watch_rows(self.on_row)

    @property
    def groups(self) -> list[RowGroup]:
        """All groups of rows so far."""
        return list(self._groups.values())

    # Input.

    def on_row(self, record: RequestRecord) -> None:
        """Count a row that was written."""
        group = self._by_row.get((record.model, record.stage, record.measured))
        if group is None:
            group = self._group_of(record.model, record.stage, measured=bool(record.measured))
            if len(self._by_row) < MOST_GROUPS:
                self._by_row[record.model, record.stage, record.measured] = group
        outcome = record.outcome
        group.add(record, outcome)
        if outcome.is_failure:
            code = label_value(record.error_code or "")
            self.errors[code if code in self.errors or len(self.errors) < MOST_ERROR_CODES else OTHER] += 1

    def on_live(self, message: Live) -> None:
        """Count the gaps and the tokens in the live metrics of a worker of the present run."""
        metrics = message.metrics
        self.arrived_tokens += metrics.tokens
        for bucket, count in metrics.gap.items():
            self.gaps.add(DurationHistogram.value_s(bucket), count)

    def _group_of(self, model: str, stage: int, *, measured: bool) -> RowGroup:
        """Return the group for rows of a model and a stage, or the group of all others beyond the limits."""
        labels = {"model": label_value(model), "stage": str(stage), "measured": "true" if measured else "false"}
        if labels["model"] not in self._models and len(self._models) >= MOST_MODELS:
            labels["model"] = OTHER
        if tuple(labels.values()) not in self._groups and len(self._groups) >= MOST_GROUPS:
            labels |= {"model": OTHER, "stage": OTHER}
        group = self._groups.setdefault(tuple(labels.values()), RowGroup(labels))
        self._models.add(labels["model"])
        return group

    def _prepare_groups(self) -> None:
        """Create the groups of the present stage, so that their counters are 0 before the first row comes."""
        plan, model = self.coordinator.plan, self.coordinator.options.model
        if plan is None:
            return
        models = [model] if model and not self.coordinator.options.targets else []
        models += [
            labels["model"]
            for labels in (group.labels for group in self.groups)
            if labels["stage"] == str(plan.stage - 1)
        ]
        for name in dict.fromkeys(models):
            self._group_of(name, plan.stage, measured=True)
            if plan.warmup_requests or plan.timed_warmup_s:
                self._group_of(name, plan.stage, measured=False)

    # Output.

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as text, in the format that an ``Accept`` header asks for, and the content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self), content_type

    def collect(self) -> Iterator[Metric]:
        """Return the metrics. Their lines are created while they are written."""
        self._prepare_groups()
        for declared in PROMETHEUS_METRICS:
            metric = Metric(declared.family, declared.meaning, declared.type)
            metric.samples = _Samples(declared.samples(self, declared.name))
            yield metric


class _Samples(list[Sample]):
    """Lines that are created when they are written, with pauses: in the only process, streams take precedence."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        super().__init__()
        self._samples = samples

    def __iter__(self) -> Iterator[Sample]:
        for count, sample in enumerate(self._samples, 1):
            yield sample
            if count % _SAMPLES_PER_YIELD == 0:
                gevent.sleep(0)
        gevent.sleep(0)


Samples: TypeAlias = Callable[[PrometheusMetrics, str], Iterable[Sample]]
"""Returns the lines of a metric with this name."""


class MetricDeclaration(NamedTuple):
    """A metric: its name in Prometheus, its type, its labels and its meaning, and a function for its lines."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str
    samples: Samples

    @property
    def family(self) -> str:
        """The name without the ending that belongs to the type."""
        return self.name.removesuffix("_total" if self.type == "counter" else f"_{self.type}")


def _requests(metrics: PrometheusMetrics, name: str) -> Iterable[Sample]:
    for group in metrics.groups:
        for outcome, count in group.outcomes.items():
            yield Sample(name, {**group.labels, "outcome": outcome.value}, count)


def _errors(metrics: PrometheusMetrics, name: str) -> Iterable[Sample]:
    return [Sample(name, {"error_code": code}, count) for code, count in metrics.errors.items()]


def _counts(of: Callable[[RowGroup], int]) -> Samples:
    """Return the function for a count of each group."""
    return lambda metrics, name: (Sample(name, group.labels, of(group)) for group in metrics.groups)


def _histograms(of: Callable[[RowGroup], BucketCounts]) -> Samples:
    """Return the function for a histogram of each group."""

    def samples(metrics: PrometheusMetrics, name: str) -> Iterable[Sample]:
        for group in metrics.groups:
            yield from of(group).samples(name, group.labels)

    return samples


def _value(of: Callable[[PrometheusMetrics], float | None]) -> Samples:
    """Return the function for one value. The metric has no line while the value is unknown."""

    def samples(metrics: PrometheusMetrics, name: str) -> Iterable[Sample]:
        value = of(metrics)
        return [] if value is None else [Sample(name, {}, value)]

    return samples


def _one_of(label: str, values: tuple[str, ...], of: Callable[[PrometheusMetrics], str | None]) -> Samples:
    """Return the function for a metric that is 1 for one value of its label and 0 for the others."""

    def samples(metrics: PrometheusMetrics, name: str) -> Iterable[Sample]:
        present = of(metrics)
        return [Sample(name, {label: value}, int(value == present)) for value in values]

    return samples


def _of_workers(field: str) -> Samples:
    """Return the function for a value of each worker."""

    def samples(metrics: PrometheusMetrics, name: str) -> Iterable[Sample]:
        rows = metrics.state.workers.rows({})[:MOST_WORKERS]
        return [Sample(name, {"worker": str(row["worker"])}, row[field]) for row in rows if row[field] is not None]

    return samples


def _run_info(metrics: PrometheusMetrics, name: str) -> Iterable[Sample]:
    state = metrics.state
    labels = {"version": __version__, "run_id": state.run or "", "api": label_value(state.about()["api"])}
    return [Sample(name, labels, 1)]


def _stage(metrics: PrometheusMetrics) -> float:
    plan = metrics.coordinator.plan
    return plan.stage if plan is not None else 0


def _target_users(metrics: PrometheusMetrics) -> float | None:
    plan = metrics.coordinator.plan
    return plan.load.users if plan is not None else 0


def _started_at(metrics: PrometheusMetrics) -> float | None:
    writer = metrics.coordinator.writer
    return writer.started_at if writer is not None else None


_ROW_LABELS = ("model", "stage", "measured")

PROMETHEUS_METRICS: tuple[MetricDeclaration, ...] = (
    MetricDeclaration(
        "locust_llm_requests_total", "counter", (*_ROW_LABELS, "outcome"), "requests that ended, by outcome", _requests
    ),
    MetricDeclaration(
        "locust_llm_errors_total", "counter", ("error_code",), "failed requests, by error code (at most 50)", _errors
    ),
    MetricDeclaration(
        "locust_llm_input_tokens_total", "counter", _ROW_LABELS,
        "input tokens of requests that ended", _counts(lambda group: group.input_tokens),
    ),
    MetricDeclaration(
        "locust_llm_output_tokens_total", "counter", _ROW_LABELS,
        "output tokens of requests that ended, all at once at the end of the request",
        _counts(lambda group: group.output_tokens),
    ),
    MetricDeclaration(
        "locust_llm_arrived_tokens_total", "counter", (),
        "output tokens as they arrive: chunks times the mean number of tokens per chunk so far",
        _value(lambda metrics: metrics.arrived_tokens),
    ),
    MetricDeclaration(
        "locust_llm_request_duration_seconds", "histogram", _ROW_LABELS,
        "end-to-end latency of successful requests (end_to_end_latency_s)", _histograms(lambda group: group.duration),
    ),
    MetricDeclaration(
        "locust_llm_time_to_first_token_seconds", "histogram", _ROW_LABELS,
        "time to first token of successful requests (ttft_s)", _histograms(lambda group: group.ttft),
    ),
    MetricDeclaration(
        "locust_llm_time_per_output_token_seconds", "histogram", _ROW_LABELS,
        "time per output token of successful requests (tpot_s)", _histograms(lambda group: group.tpot),
    ),
    MetricDeclaration(
        "locust_llm_chunk_gap_seconds", "histogram", (),
        "time between two chunks of an answer, of all requests, as they arrive (within 0.1 %)",
        lambda metrics, name: metrics.gaps.samples(name, {}),
    ),
    MetricDeclaration(
        "locust_llm_requests_in_flight", "gauge", (), "requests in flight",
        _value(lambda metrics: metrics.state.workers.in_flight if metrics.coordinator.plan is not None else 0),
    ),
    MetricDeclaration(
        "locust_llm_users", "gauge", (), "users that Locust runs",
        _value(lambda metrics: metrics.environment.runner.user_count),
    ),
    MetricDeclaration(
        "locust_llm_target_users", "gauge", (),
        "users of the stage in a closed loop; no value in an open loop", _value(_target_users),
    ),
    MetricDeclaration(
        "locust_llm_target_requests_per_second", "gauge", (),
        "present target rate of the stage in an open loop; no value in a closed loop",
        _value(lambda metrics: metrics.state.target_rate_per_s),
    ),
    MetricDeclaration("locust_llm_stage", "gauge", (), "number of the stage, from 1; 0 between runs", _value(_stage)),
    MetricDeclaration(
        "locust_llm_phase", "gauge", ("phase",), "1 for the phase of the stage, 0 for other phases; idle between runs",
        _one_of("phase", PHASES, lambda metrics: metrics.state.phase),
    ),
    MetricDeclaration(
        "locust_llm_client_health", "gauge", ("health",),
        "1 for the client health of the last 10 s, 0 for other values; all 0 while it is unknown",
        _one_of("health", HEALTHS, lambda metrics: metrics.state.health),
    ),
    MetricDeclaration(
        "locust_llm_worker_cpu_ratio", "gauge", ("worker",), "CPU of the worker in the last second, in cores",
        _of_workers("cpu"),
    ),
    MetricDeclaration(
        "locust_llm_worker_event_loop_lag_seconds", "gauge", ("worker",),
        "99th percentile of the lag of the worker's event loop in the last 10 s", _of_workers("lag_p99"),
    ),
    MetricDeclaration(
        "locust_llm_worker_requests_in_flight", "gauge", ("worker",), "requests in flight of the worker",
        _of_workers("in_flight"),
    ),
    MetricDeclaration(
        "locust_llm_run_start_time_seconds", "gauge", (), "Unix time of the start of the last run", _value(_started_at)
    ),
    MetricDeclaration(
        "locust_llm_run_info", "info", ("version", "run_id", "api"), "the last run: version, identifier, wire dialect",
        _run_info,
    ),
)  # fmt: skip
"""All metrics, in the order of the page. ``docs/prometheus.md`` has the same table."""
